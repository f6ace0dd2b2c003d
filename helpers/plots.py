"""Every figure of the course, one function each. A figure needs no screen, and says in words what it shows."""

import base64
import io
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle, groupby, pairwise

import numpy
from matplotlib.colors import to_rgb as colour_numbers
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from .data import to_rgb

# Okabe and Ito's colours, which people with colour-blindness can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
COLOURS, MARKERS = [BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00"], "os^Dv"


class Plot(Figure):
    """A figure without pyplot: on no global list, the same on every machine, shown by a notebook as a cell's value.

    `name` is the same in every run, because notebook tests compare it; `alt` tells who can't see it what is there.
    """

    def __init__(self, width: float, height: float, *, name: str, **options):
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
        super().__init__(figsize=(width, height), **{"dpi": 100, "layout": layout} | options)
        self.name, self.alt = name, ""

    def __repr__(self) -> str:
        return f"Figure: {self.name}"

    def _repr_mimebundle_(self, **_) -> tuple[dict, dict]:
        """What Jupyter shows and stores: the image and a text, and the words for a screen reader."""
        file = io.BytesIO()
        self.savefig(file, format="png")
        png = base64.b64encode(file.getvalue()).decode()
        return {"image/png": png, "text/plain": repr(self)}, {"image/png": {"alt": self.alt}}


# ------------------------------------------------------------------------------- names and axes


def literal(text: str) -> str:
    """What matplotlib must be given to show the text as it is: between two $ it would read a formula."""
    return str(text).replace("$", r"\$")


def label(name: str, *, longest: int = 40) -> str:
    """A name that somebody else chose, on one line, and without its middle if it is long."""
    name, half = "".join(letter if letter.isprintable() else " " for letter in str(name)), longest // 2
    return name if len(name) <= longest else f"{name[:half]}…{name[1 - half :]}"


def tidy(axes, *, title: str, x: str, y: str) -> None:
    """Title, axis labels, a light grid behind all else and no box."""
    axes.set_title(literal(title), loc="left", fontweight="bold")
    axes.set_xlabel(literal(x))
    axes.set_ylabel(literal(y))
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def add_legend(figure: Figure, entries: Mapping, *, columns: int | None = None) -> None:
    """Name to what is drawn for it, below the axes, where the legend covers nothing."""
    names = [literal(label(name)) for name in entries]
    columns = columns or max(1, 100 // (8 + max(map(len, names))))
    options = {"loc": "outside lower left", "ncols": columns, "frameon": False, "fontsize": 9}
    legend = figure.legend(list(entries.values()), ["?"] * len(names), **options)
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(name)  # not earlier, because matplotlib leaves out names that start with an underscore


def begin_near_lowest(axes) -> None:
    """Let an axis of shares begin at a half, or at the tenth below the lowest one, and end at 1."""
    axes.set_ylim(min(0.5, max(0, numpy.floor(10 * axes.dataLim.ymin - 0.1) / 10)), 1.005)


# ---------------------------------------------------------------------------------------- lines


def line_chart(
    series: Mapping, *, title: str, x: str, y: str, log_x: bool = False, log_y: bool = False,
    reference: tuple[str, float] | None = None, pale: Mapping | None = None,
    y_range: tuple[float, float] | None = None,
) -> Plot:  # fmt: skip
    """A line for each entry: name to its values, counted from 1, or to the pair (x, y).

    `reference`: name and height of a dotted line. `pale`: lines behind, in the colours of `series`, in the same order.
    """
    figure = Plot(8, 4, name=title)
    axes = figure.subplots()
    draw_lines(axes, pale or {}, alpha=0.3, marker="", zorder=1)
    entries = draw_lines(axes, series)
    if reference:
        entries[reference[0]] = axes.axhline(reference[1], color=GREY, linestyle=":")
    if y_range or (not log_y and axes.dataLim.ymin >= 0):
        axes.set_ylim(y_range or (0, None))
    scales = {"xscale": log_x, "yscale": log_y}
    axes.set(**{scale: "log" for scale, is_log in scales.items() if is_log})
    for axis, is_log in ((axes.xaxis, log_x), (axes.yaxis, log_y)):
        if is_log and numpy.divide(*axis.get_view_interval()) > 1e-3:  # few powers of ten: 0.02 reads more easily
            axis.set_major_formatter(one_two_five)
            axis.set_minor_formatter(one_two_five)
            axis.set_tick_params(which="minor", pad=5)  # as far away as the others, whose ticks are longer
    tidy(axes, title=title, x=x, y=y)
    add_legend(figure, entries)
    figure.alt = f"Line chart, {title}: {y}, by {x}, {in_words(series)}."
    return figure


def one_two_five(value: float, _) -> str:
    """A place on a logarithmic axis, if it begins with 1, 2 or 5: the others would stand too near."""
    return f"{value:,g}" if f"{value:e}"[0] in "125" else ""


def curve_with_spread(
    series: Mapping[str, Mapping[float, Sequence[float]]], *, title: str, x: str, y: str,
    reference: tuple[str, float] | None = None,
) -> Plot:  # fmt: skip
    """What several seeds gave, name to {x: one value a seed}: their mean, a dot for each, and the band they fill."""
    means = {
        name: (sorted(values), [float(numpy.mean(values[place])) for place in sorted(values)])
        for name, values in series.items()
    }
    figure = line_chart(means, title=title, x=x, y=y, log_x=True, reference=reference)
    figure.alt = f"Line chart with a dot for each seed, {title}: mean of {y}, by {x}, {in_words(means)}."
    (axes,) = figure.axes
    for line, (name, values) in zip(list(axes.lines), series.items(), strict=False):
        places, colour = means[name][0], line.get_color()
        lowest, highest = ([end(values[place]) for place in places] for end in (min, max))
        axes.fill_between(places, lowest, highest, color=colour, alpha=0.15, linewidth=0)
        seeds = [(place, value) for place in places for value in values[place]]
        axes.plot(*zip(*seeds, strict=True), line.get_marker(), color=colour, alpha=0.4, markersize=4)
    ticks = sorted({place for values in series.values() for place in values})
    near = {place for place, after in pairwise(ticks) if after < 1.4 * place}  # their names would touch
    axes.set_xticks(ticks, ["" if place in near else f"{place:,g}" for place in ticks])
    axes.set_xticks([], minor=True)
    if axes.dataLim.ymin >= 0 and axes.dataLim.ymax <= 1:
        begin_near_lowest(axes)
    return figure


def draw_lines(axes, series: Mapping, **style) -> dict:
    """A line for each entry, in a colour and with markers of its own; returns name to line."""
    lines = {}
    for (name, values), colour, marker in zip(series.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
        x, y = points(values)
        options = {"color": colour, "marker": marker if len(x) <= 40 else "", "markersize": 4} | style
        (lines[name],) = axes.plot(x, y, **options)
        if all(float(place).is_integer() for place in x):
            axes.xaxis.get_major_locator().set_params(integer=True)
    return lines


def points(values) -> tuple[Sequence[float], Sequence[float]]:
    """x and y of a line, of which x may be left out."""
    is_pair = isinstance(values, tuple) and len(values) == 2 and all(isinstance(part, Iterable) for part in values)
    return values if is_pair else (range(1, len(values) + 1), values)


def in_words(series: Mapping) -> str:
    """Where each line begins and ends."""
    ends = {name: [float(y) for y in points(values)[1]] or [numpy.nan] for name, values in series.items()}
    return "; ".join(f"{label(name)} from {y[0]:.3g} to {y[-1]:.3g}" for name, y in ends.items())


def learning_curves(histories: Mapping, *, test_accuracy: Mapping | None = None) -> Plot:
    """Loss and accuracy by epoch for one or more runs, side by side.

    `histories`: name of a run to its History. `test_accuracy`: name to a fraction, drawn as a diamond after the run.
    """
    figure, tests = Plot(10, 4.4, name="learning curves"), test_accuracy or {}
    units = {"loss": "mean cross-entropy (nats)", "accuracy": "share of images named correctly"}
    for axes, (quantity, unit) in zip(figure.subplots(1, 2), units.items(), strict=True):
        entries = {}
        for part, style in (("train", {"linestyle": "--", "alpha": 0.6, "marker": ""}), ("validation", {})):
            series = {name: [row[f"{part}_{quantity}"] for row in run.rows] for name, run in histories.items()}
            entries |= {f"{name}, {part}": line for name, line in draw_lines(axes, series, **style).items()}
        tidy(axes, title=quantity.capitalize(), x="epoch", y=unit)
    for name, share in tests.items():
        style = {"color": entries[f"{name}, validation"].get_color(), "markeredgecolor": "black", "linestyle": ""}
        spot = (len(histories[name].rows) + 0.6, share)
        (entries[f"{name}, test {share:.1%}"],) = axes.plot(*spot, marker="D", **style)
    figure.axes[0].set_ylim(bottom=0)
    begin_near_lowest(axes)
    add_legend(figure, entries, columns=3 if tests else 2)
    tested = "".join(f" Test accuracy of {label(name)}: {share:.3g}." for name, share in tests.items())
    figure.alt = f"Line charts of loss and accuracy by epoch. Validation accuracy: {in_words(series)}.{tested}"
    return figure


# --------------------------------------------------------------------------------------- images

DPI = 120
FULL_WIDTH, WIDEST = 1200, 320  # pixels of a full row, and of an image in a row of few
LETTER, LINE = 9, 19  # pixels that a letter and a line of a title take


def image_grid(
    images: Sequence, titles: Sequence[str], *, columns: int = 6, title: str = "", alt: str | None = None
) -> Plot:
    """Images in rows, each under its title: small ones drawn 2, 3, 4 … times as large, large ones shrunk.

    An image is a PIL image of any mode, or a tensor (channels, height, width) in [0, 1].
    """
    columns = max(1, min(columns, len(images)))
    cell = min(FULL_WIDTH // columns, WIDEST)
    shown, texts = [as_pixels(image, cell - 8) for image in images], [wrap(text, cell) for text in titles]
    head, above = 2 * LINE if title else 0, LINE * max(map(len, texts), default=0)
    step = above + 8 + max(map(len, shown), default=0)  # from one row of images to the next
    width, height = max(columns * cell, 12 * len(title)), head + step * -(-len(images) // columns) + 1
    # A little more and a little less than whole pixels: matplotlib cuts a figure's size, and rounds an image's up.
    size = numpy.array([width, height]) + 0.1
    figure = Plot(*size / DPI, name=title or "images", dpi=DPI, layout="none")
    figure.suptitle(literal(title), x=4 / width, y=1 - 6 / height, ha="left", va="top", fontsize=12, fontweight="bold")
    for place, (pixels, text) in enumerate(zip(shown, texts, strict=True)):
        row, column = divmod(place, columns)
        high, wide = pixels.shape[:2]
        spot = column * cell + 4, height - (head + row * step + above + high), wide - 0.01, high - 0.01
        axes = figure.add_axes(spot / numpy.tile(size, 2), xticks=[], yticks=[], frame_on=False)
        axes.imshow(pixels, aspect="auto", interpolation="nearest")
        axes.set_title(literal("\n".join(text)), loc="left", fontsize=9, pad=3)
    words = textwrap.shorten("; ".join(map(" ".join, texts)), 400, placeholder=" …")
    figure.alt = alt or f"{title or 'Images'}: {len(images)} in rows of {columns}. {words}"
    return figure


def overlay(image, places: Tensor) -> Image.Image:
    """The image in grey, under what a map (h, w) says of each place: a square, orange above 0, blue below."""
    grey = as_image(image).convert("L").convert("RGB")
    shares = (places / places.abs().max().clamp_min(1e-12)).float().cpu().numpy()
    shares = numpy.asarray(Image.fromarray(shares).resize(grey.size, Image.Resampling.NEAREST))[..., None]
    colour = numpy.where(shares > 0, colour_numbers(ORANGE), colour_numbers(BLUE))
    opaque = 0.8 * numpy.abs(shares)
    mixed = numpy.asarray(grey) / 255 * (1 - opaque) + colour * opaque
    return Image.fromarray((255 * mixed).round().astype(numpy.uint8))


def as_image(image) -> Image.Image:
    """A PIL image of any mode, or a tensor (channels, height, width) in [0, 1], as RGB."""
    if isinstance(image, Tensor):
        image = to_pil_image(image.cpu().float().clamp(0, 1) if image.is_floating_point() else image.cpu())
    return to_rgb(image)


def as_pixels(image, box: int) -> numpy.ndarray:
    """The image as (height, width, 3), so large that it just fits into a square of `box` pixels."""
    image = as_image(image)
    scale = box / max(image.size)
    scale = int(scale) if scale >= 1 else scale  # a whole number of times, so that every pixel stays a sharp square
    size = [max(1, round(side * scale)) for side in image.size]
    pixels = numpy.asarray(image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS))
    # 52 levels of a colour instead of 256: nobody sees it, and a notebook's file is a third smaller.
    return (numpy.round(pixels / 5) * 5).astype(numpy.uint8)


def wrap(text: str, width: int) -> list[str]:
    """The text in lines that fit into so many pixels, the first four."""
    return [part for line in str(text).split("\n") for part in textwrap.wrap(line, width // LETTER)][:4]


def most_wrong(evaluation, images: Sequence, classes: Sequence[str], *, load, count: int = 12) -> Plot:
    """The wrongly named images, the most confident first, with the probability that the model gave its answer.

    `images`: the (path, label) pairs in the order of the evaluation. `load`: path to PIL image.
    """
    confidence, said, names = evaluation.probabilities.max(1).values, evaluation.predictions, [*map(label, classes)]
    wrong = (said != evaluation.labels).nonzero().flatten().tolist()
    first = sorted(wrong, key=lambda i: -confidence[i])[:count]
    titles = [f"{names[evaluation.labels[i]]}, taken\nfor {names[said[i]]} ({confidence[i]:.0%})" for i in first]
    title = f"{len(wrong)} mistakes in {len(evaluation.labels)} images, the most confident first"
    figure = image_grid([load(images[i][0]) for i in first], titles, title=title)
    figure.name = "mistakes, the most confident first"
    return figure


# --------------------------------------------------------------------------- a matrix, and bars


def confusion_matrix(evaluation, classes: Sequence[str], *, title: str = "Confusion matrix") -> Plot:
    """Rows: the true class. Columns: what the model said. The colour of a cell is its share of the row.

    Up to 20 classes, a cell also says how many images it holds; of more than 60, not every class is named.
    """
    count, counts = len(classes), numpy.zeros((len(classes), len(classes)), dtype=int)
    numpy.add.at(counts, (evaluation.labels.numpy(), evaluation.predictions.numpy()), 1)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    side, size = min(11.2, 2.2 + 0.9 * count), 10 if count <= 10 else 8
    figure = Plot(side + 0.8, side, name=title)
    axes = figure.subplots()
    cells = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    written = counts >= 0 if count <= 10 else counts > 0
    for row, column in zip(*written.nonzero(), strict=True) if count <= 20 else ():
        style = {"color": "white" if shares[row, column] > 0.5 else "black", "fontsize": size}
        axes.text(column, row, f"{counts[row, column]}\n{shares[row, column]:.0%}", ha="center", va="center", **style)
    if count > 20:
        figure.colorbar(cells, label="share of the row", shrink=0.6)
    places = range(0, count, -(-count // 60))
    names = [literal(label(classes[place], longest=24)) for place in places]
    axes.set_xticks(places, names, rotation=90 if count * max(map(len, names)) > 60 else 0, fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    tidy(axes, title=title, x="the model says", y="the image shows")
    axes.grid(visible=False)
    figure.alt = f"{title}, {count} classes: {counts.trace()} of {counts.sum()} images are on the diagonal."
    return figure


def bar_chart(
    panels: Mapping[str, Mapping[str, float]], *, title: str, x: str, form: str = ".0%",
    reference: tuple[str, Sequence[float]] | None = None,
) -> Plot:  # fmt: skip
    """Panels side by side, title to {name: value}, the same names in each: a bar to the right for each name.

    `form`: how the values are written. `reference`: name of a dashed line, and where it stands in each panel.
    """
    names = list(next(iter(panels.values())))
    figure, entries = Plot(10, 1.8 + 0.25 * len(names), name=title), {}
    figure.suptitle(literal(title), fontweight="bold")
    subplots = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for place, (axes, (panel, values)) in enumerate(zip(subplots, panels.items(), strict=True)):
        bars = axes.barh(range(len(names)), [values[name] for name in names], color=COLOURS[place])
        axes.bar_label(bars, [f"{values[name]:{form}}" for name in names], padding=3, fontsize=8)
        axes.set_yticks(range(len(names)), [literal(label(name)) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)  # the first at the top
        axes.margins(x=0.15)
        if reference:
            entries[reference[0]] = axes.axvline(reference[1][place], color=GREEN, linestyle="--")
        tidy(axes, title=panel, x=x, y="")
    if reference:
        add_legend(figure, entries)
    words = "; ".join(f"{panel}, most: {max(v, key=v.get)}, {max(v.values()):{form}}" for panel, v in panels.items())
    figure.alt = f"Bar chart of {len(names)} bars: {title}. {words}."
    return figure


def reliability(bins: Sequence[Mapping], *, title: str = "Reliability diagram") -> Plot:
    """How often a model is right where it is so sure: a dot for each bin of `calibration_bins`, with its interval."""
    figure = Plot(6.4, 4.8, name=title)
    axes, sure, right = figure.subplots(), [one["probability"] for one in bins], [one["right"] for one in bins]
    ends = [[abs(one["interval"][end] - one["right"]) for one in bins] for end in (0, 1)]
    (diagonal,) = axes.plot([0, 1], [0, 1], ":", color=GREY)
    dots = axes.errorbar(sure, right, ends, fmt="o", color=BLUE, elinewidth=1, capsize=3)
    axes.set(xlim=(0, 1.02), ylim=(-0.02, 1.04))
    tidy(axes, title=title, x="probability of the answer", y="share right")
    add_legend(figure, {"share right, with its 95 % interval": dots, "as sure as it is right": diagonal}, columns=2)
    words = "; ".join(f"{one['images']} at {one['probability']:.2f}, right {one['right']:.2f}" for one in bins)
    figure.alt = f"{title}: how many images had an answer of which probability, and the share right. {words}."
    return figure


def cost_bars(costs: Sequence, *, title: str) -> Plot:
    """Where the parameters are and where the work is, a bar for each layer with weights; `costs`: LayerCost of each."""
    costs = [cost for cost in costs if cost.parameters]
    work = {"Parameters": "parameters", "Multiply-adds for one image": "multiply_adds"}
    panels = {panel: {cost.name: getattr(cost, quantity) for cost in costs} for panel, quantity in work.items()}
    shares = {panel: {name: n / sum(of.values()) for name, n in of.items()} for panel, of in panels.items()}
    return bar_chart(shares, title=title, x="share of the whole network", form=".1%")


# ------------------------------------------------------------------------------------- drawings


def receptive_fields(stacks: Mapping[str, Sequence[int]]) -> Plot:
    """What one number at the top sees of a row of nine pixels at the bottom, through stacks of convolutions.

    `stacks`: name to the kernel sizes, from the bottom up. The figure shows one of the two dimensions.
    """
    figure, cells, seen = Plot(5 * len(stacks), 3, name="receptive fields"), 9, {}
    for axes, (name, kernels) in zip(figure.subplots(1, len(stacks), squeeze=False)[0], stacks.items(), strict=True):
        widths = [1 + sum(kernel - 1 for kernel in kernels[level:]) for level in range(len(kernels) + 1)]
        for level, width in enumerate(widths):
            colours = [BLUE if abs(cell - cells // 2) <= width // 2 else "white" for cell in range(cells)]
            axes.scatter(range(cells), [level] * cells, 500, c=colours, marker="s", edgecolors=GREY, zorder=3)
        for side in (-1, 1):
            axes.plot([cells // 2 + side * (width / 2 - 0.1) for width in widths], range(len(widths)), color=ORANGE)
        axes.set(xlim=(-0.6, cells - 0.4), ylim=(-0.5, len(kernels) + 0.5))
        seen[name] = f"{widths[0]} × {widths[0]}"
        tidy(axes, title=f"{name}: sees {seen[name]}", x="position in a row (pixels)", y="")
        axes.set_yticks(range(len(widths)), ["input", *(f"after a {kernel} × {kernel} layer" for kernel in kernels)])
        axes.set_xticks(range(cells))
        axes.grid(visible=False)
    words = "; ".join(f"{size} pixels through {name}" for name, size in seen.items())
    figure.alt = f"Drawing of what one number at the top sees of an image: {words}."
    return figure


BOXES = {"Conv2d": (BLUE, "convolution, ReLU"), "MaxPool2d": (ORANGE, "max pooling"), "Linear": (GREEN, "linear layer")}


def network_drawing(costs: Sequence, *, title: str) -> Plot:
    """The network from left to right: a box for the maps after each layer, higher for larger, wider for more maps.

    `costs`: the LayerCost of every layer. Heights grow with the square root of the maps' side, widths with the
    cube root of their number.
    """
    figure = Plot(12, 3.4, name=title)
    axes, left, entries = figure.subplots(), 0.0, {}
    layers = [(type(cost.layer).__name__, cost.output_shape) for cost in costs]
    groups = [(*layer, len(list(equal))) for layer, equal in groupby(layer for layer in layers if layer[0] in BOXES)]
    for place, (kind, (count, *sides), boxes) in enumerate(groups):
        width, height, (colour, name) = count ** (1 / 3), 3 * (sides[0] if sides else 1) ** 0.5, BOXES[kind]
        middle, foot = left + (boxes * (width + 2) - 2) / 2, -height / 2
        for _ in range(boxes):
            entries[name] = axes.add_patch(Rectangle((left, foot), width, height, facecolor=colour))
            left += width + 2
        has_maps_behind = any(len(shape) == 3 for _, shape, _ in groups[place + 1 :])
        if kind != "MaxPool2d" or not has_maps_behind:  # else the next boxes say how large the maps are now
            text = f"{count} maps\n{sides[0]} × {sides[1]}" if sides else f"{count}"
            axes.text(middle, foot - 2, text, ha="center", va="top", fontsize=9)
    figure.suptitle(literal(title), fontweight="bold")
    add_legend(figure, entries)
    axes.autoscale_view()
    axes.axis("off")
    counts = Counter(kind for kind, _ in layers)
    kinds = ", ".join(f"{counts[kind]} of {name}" for kind, (_, name) in BOXES.items())
    figure.alt = f"Drawing of a network, a box for the output of each layer: {title}. {kinds}."
    return figure
