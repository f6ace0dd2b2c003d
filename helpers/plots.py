"""Every figure of the course, one function each; each returns a matplotlib figure."""

from collections.abc import Sequence
from itertools import groupby, pairwise

import matplotlib.pyplot as plt
import numpy
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

# Okabe and Ito's colours, which people with colour-blindness can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
COLOURS = [BLUE, ORANGE, GREEN, "#CC79A7", "#56B4E9", "#E69F00"]


def finish(figure: Figure) -> Figure:
    """Take the figure off pyplot's list, so that a notebook shows it once: as the cell's value."""
    plt.close(figure)
    return figure


def tidy(axes, *, title: str, x: str, y: str) -> None:
    """Title, axis labels, a light grid and no box."""
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def image_grid(images: Sequence, titles: Sequence[str], *, columns: int = 6, title: str = "") -> Figure:
    """Images in rows, each under its title. An image is a PIL image or a tensor (3, height, width) in [0, 1]."""
    columns = min(columns, len(images)) or 1
    rows = max(1, -(-len(images) // columns))
    # Few dots per inch: more would only enlarge small images, and the notebook's file with them.
    options = {"figsize": (2.4 * columns, 2.9 * rows), "dpi": 40, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(rows, columns, **options)
    for spot in axes.flat:
        spot.axis("off")
    for spot, image, text in zip(axes.flat, images, titles, strict=False):
        spot.imshow(image.permute(1, 2, 0).numpy() if hasattr(image, "permute") else image)
        spot.set_title(text, fontsize=17)
    figure.suptitle(title, fontweight="bold", fontsize=21)
    return finish(figure)


def learning_curves(histories: dict, *, test_accuracy: dict | None = None) -> Figure:
    """Loss and accuracy by epoch for one or more runs, side by side.

    `histories`: name of a run to its History. `test_accuracy`: name to a fraction, drawn as a diamond after the run.
    """
    figure, (loss, accuracy) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for colour, (name, history) in zip(COLOURS, histories.items(), strict=False):
        for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
            epochs = [row["epoch"] for row in history.rows]
            for part, style in (("train", {"linestyle": "--", "alpha": 0.6}), ("validation", {"marker": "o"})):
                values = [row[f"{part}_{quantity}"] for row in history.rows]
                axes.plot(epochs, values, color=colour, markersize=3.5, label=f"{name}, {part}", **style)
        if test_accuracy:
            spot = (epochs[-1] + 0.6, test_accuracy[name])
            accuracy.plot(*spot, "D", color=colour, markeredgecolor="black", label=f"{name}, test {spot[1]:.1%}")
    tidy(loss, title="Loss", x="epoch", y="mean cross-entropy (nats)")
    tidy(accuracy, title="Accuracy", x="epoch", y="share of images named correctly")
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=1.005)
    for axes in (loss, accuracy):
        axes.xaxis.get_major_locator().set_params(integer=True)
    accuracy.legend(loc="lower right", fontsize=8)
    return finish(figure)


def confusion_matrix(evaluation, classes: Sequence[str], *, title: str = "Confusion matrix") -> Figure:
    """Rows: the true class. Columns: what the model said. Each cell: how many images, and the share of its row."""
    counts = numpy.zeros((len(classes), len(classes)), dtype=int)
    numpy.add.at(counts, (evaluation.labels.numpy(), evaluation.predictions.numpy()), 1)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    side = 2.2 + 0.9 * len(classes)
    figure, axes = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in numpy.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, f"{count}\n{shares[row, column]:.0%}", ha="center", va="center", color=colour)
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    tidy(axes, title=title, x="the model says", y="the image shows")
    axes.grid(visible=False)
    return finish(figure)


def most_wrong(evaluation, images: Sequence, classes: Sequence[str], *, load, count: int = 12) -> Figure:
    """The wrongly named images of which the model was most sure, with the probability it gave its answer.

    `images`: the (path, label) pairs in the order of the evaluation. `load`: path to PIL image.
    """
    sure = evaluation.probabilities.max(1).values
    wrong = (evaluation.predictions != evaluation.labels).nonzero().flatten().tolist()
    worst = sorted(wrong, key=lambda i: -sure[i])[:count]
    said = evaluation.predictions
    titles = [f"{classes[evaluation.labels[i]]}, taken\nfor {classes[said[i]]} ({sure[i]:.0%})" for i in worst]
    title = f"The most wrong of {len(wrong)} mistakes in {len(evaluation.labels)} images"
    return image_grid([load(images[i][0]) for i in worst], titles, title=title)


def receptive_fields(stacks: dict[str, Sequence[int]], *, cells: int = 9) -> Figure:
    """What one number at the top sees of a row of `cells` pixels at the bottom, through stacks of convolutions.

    `stacks`: name to the kernel sizes, from the bottom up. The figure shows one of the two dimensions.
    """
    figure, axes = plt.subplots(1, len(stacks), figsize=(5 * len(stacks), 3), squeeze=False, layout="constrained")
    deepest = max(map(len, stacks.values()))
    for spot, (name, kernels) in zip(axes.flat, stacks.items(), strict=True):
        spacing, widths = deepest / len(kernels), [1]
        for kernel in reversed(kernels):  # from the top down, where the view widens
            widths.insert(0, widths[0] + kernel - 1)
        for level, width in enumerate(widths):
            draw_row(spot, level * spacing, width, cells=cells)
        for level, (below, above) in enumerate(pairwise(widths)):
            for side in (-1, 1):
                ends = [cells // 2 + side * (width / 2 - 0.1) for width in (below, above)]
                spot.plot(ends, [level * spacing + 0.2, (level + 1) * spacing - 0.2], color=ORANGE)
        tidy(spot, title=f"{name}: sees {widths[0]} × {widths[0]}", x="position in a row (pixels)", y="")
        labels = ["input", *(f"after a {kernel} × {kernel} layer" for kernel in kernels)]
        spot.set_yticks([level * spacing for level in range(len(widths))], labels)
        spot.set_xticks(range(cells))
        spot.grid(visible=False)
    return finish(figure)


def draw_row(axes, height: float, width: int, *, cells: int) -> None:
    """A row of cells, of which the `width` in the middle are filled."""
    for cell in range(cells):
        colour = BLUE if abs(cell - cells // 2) <= width // 2 else "white"
        axes.add_patch(Rectangle((cell - 0.4, height - 0.2), 0.8, 0.4, facecolor=colour, edgecolor=GREY))


def network_drawing(costs: Sequence, *, title: str) -> Figure:
    """The network from left to right: a box for the maps after each layer, higher for larger, longer for more maps.

    `costs`: the LayerCost of every layer. Heights grow with the square root of the maps' side, lengths with the
    cube root of their number, so that the smallest box is still to be seen.
    """
    figure, axes = plt.subplots(figsize=(12, 3.4), layout="constrained")
    left, spots, unnamed = 0.0, [], dict(BOXES)
    for cost in costs:
        kind = type(cost.layer).__name__
        if kind not in BOXES:
            continue
        (count, *sides), (colour, name) = cost.output_shape, BOXES[kind]
        length, height = count ** (1 / 3), 3 * (sides[0] if sides else 1) ** 0.5
        draw_box(axes, left, length, height, colour=colour, label=name if unnamed.pop(kind, None) else None)
        spots.append((kind, cost.output_shape, left + length / 2, height / 2))
        left += length + DEPTH * height + 2
    name_boxes(axes, spots)
    axes.set_title(title, loc="left", fontweight="bold")
    axes.legend(loc="upper right", frameon=False)
    axes.set_aspect("equal")
    axes.autoscale_view()
    axes.axis("off")
    return finish(figure)


BOXES = {"Conv2d": (BLUE, "convolution, ReLU"), "MaxPool2d": (ORANGE, "max pooling"), "Linear": (GREEN, "linear layer")}
DEPTH = 0.25  # how far a box reaches back, as a share of its height


def draw_box(axes, left: float, length: float, height: float, *, colour: str, label: str | None) -> None:
    """A box as seen from the front, from a little above and from the right."""
    right, top, back = left + length, height / 2, DEPTH * height
    style = {"facecolor": colour, "edgecolor": "white", "linewidth": 0.8}
    above = [(left, top), (left + back, top + back), (right + back, top + back), (right, top)]
    beside = [(right, -top), (right, top), (right + back, top + back), (right + back, back - top)]
    axes.add_patch(Rectangle((left, -top), length, height, label=label, **style))
    axes.add_patch(Polygon(above, alpha=0.55, **style))
    axes.add_patch(Polygon(beside, alpha=0.75, **style))


def name_boxes(axes, spots: Sequence[tuple]) -> None:
    """Number and size of the maps, once below each group of boxes of the same kind and shape.

    `spots`: (kind, output shape, middle, half the height) of each box, from left to right.
    """
    for (kind, (count, *sides)), group in groupby(spots, key=lambda spot: spot[:2]):
        _, _, middles, halves = zip(*group, strict=True)
        last_maps = middles[-1] == max(middle for _, shape, middle, _ in spots if len(shape) == 3)
        if kind == "MaxPool2d" and not last_maps:
            continue  # the next group says how large the maps are now
        text = f"{count} maps\n{sides[0]} × {sides[1]}" if sides else f"{count}"
        axes.text(sum(middles) / len(middles), -halves[0] - 2, text, ha="center", va="top", fontsize=9)


def cost_bars(costs: Sequence, *, title: str) -> Figure:
    """Parameters (left) and multiply-adds for one image (right), a bar for each layer that has weights.

    `costs`: the LayerCost of every layer.
    """
    costs = [cost for cost in costs if cost.parameters]
    figure, axes = plt.subplots(1, 2, figsize=(11, 5), sharey=True, layout="constrained")
    colours = [GREEN if len(cost.output_shape) == 1 else BLUE for cost in costs]
    for spot, quantity, unit, name in (
        (axes[0], "parameters", 1e6, "parameters (millions)"),
        (axes[1], "multiply_adds", 1e9, "multiply-adds for one image (billions)"),
    ):
        values = [getattr(cost, quantity) for cost in costs]
        bars = spot.barh([cost.name for cost in costs], [value / unit for value in values], color=colours)
        spot.bar_label(bars, [f"{value / sum(values):.1%}" for value in values], padding=3, fontsize=8)
        tidy(spot, title=name.split(" (")[0].capitalize(), x=name, y="")
        spot.set_axisbelow(True)
        spot.margins(x=0.12)
    axes[0].invert_yaxis()
    axes[0].set_ylabel("layer")
    figure.suptitle(title, fontweight="bold")
    return finish(figure)


def signal_by_layer(signals: dict[str, Sequence[float]]) -> Figure:
    """How large the numbers are after each layer: name of a start to the standard deviations, on a log scale."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for colour, marker, (name, values) in zip(COLOURS, "os^Dvx", signals.items(), strict=False):
        axes.semilogy(range(1, len(values) + 1), values, color=colour, marker=marker, label=name)
    tidy(axes, title="The signal on its way through the network", x="layer", y="standard deviation of the outputs")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return finish(figure)


def training_losses(histories: dict, *, guessing: float) -> Figure:
    """The training loss by epoch of one or more runs, and the loss of one who guesses.

    `histories`: name of a run to its History.
    """
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for colour, marker, (name, history) in zip(COLOURS, "os^Dvx", histories.items(), strict=False):
        epochs, losses = zip(*((row["epoch"], row["train_loss"]) for row in history.rows), strict=True)
        axes.plot(epochs, losses, color=colour, marker=marker, markersize=4, label=name)
    axes.axhline(guessing, color=GREY, linestyle=":", label="guessing")
    tidy(axes, title="Loss on the training images", x="epoch", y="mean cross-entropy (nats)")
    axes.set_ylim(bottom=0)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return finish(figure)


def found_by_order(is_wrong: Sequence[bool], *, title: str) -> Figure:
    """How many of the wrong ones are found after so many looks; `is_wrong`: in the order of looking."""
    count = sum(is_wrong)
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    axes.plot([0, len(is_wrong)], [0, count], "--", color=GREY, label="in a random order, on average")
    axes.plot(numpy.cumsum([0, *is_wrong]), color=BLUE, label="in this order, first the most suspicious")
    tidy(axes, title=title, x="images looked at", y=f"found, of {count}")
    axes.legend(loc="lower right")
    return finish(figure)


def learning_rate_search(searches: dict) -> Figure:
    """The loss of each batch by the learning rate, on a log scale: pale as it was, and as a running mean.

    `searches`: name to what `find_learning_rate` returned, the rates and the losses.
    """
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for colour, (name, (rates, losses)) in zip(COLOURS, searches.items(), strict=False):
        means = [sum(losses[max(0, i - 4) : i + 1]) / len(losses[max(0, i - 4) : i + 1]) for i in range(len(losses))]
        axes.semilogx(rates, losses, color=colour, alpha=0.3)
        axes.semilogx(rates, means, color=colour, label=name)
    tidy(axes, title="Loss while the learning rate grows", x="learning rate", y="loss of a batch (nats)")
    first = max(losses[0] for _, losses in searches.values())
    axes.set_ylim(0, 2.5 * first)  # the end, where the loss explodes, would flatten all the rest
    axes.legend(loc="upper left")
    return finish(figure)


def rates_by_batch(schedules: dict[str, Sequence[float]]) -> Figure:
    """The learning rate of each batch, on a log scale: name of a schedule or of a part to its rates."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for colour, (name, rates) in zip(COLOURS, schedules.items(), strict=False):
        axes.semilogy(range(1, len(rates) + 1), rates, color=colour, marker="o", markersize=3.5, label=name)
    tidy(axes, title="Learning rates", x="batch", y="learning rate")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    return finish(figure)


def new_and_old_task(accuracies: dict[str, tuple[float, float]], *, guessing: tuple[float, float]) -> Figure:
    """How well a fine-tuned network knows the new task, and with its old head the old one: two bars for each run.

    `accuracies`: name of a run to (new task, old task), fractions; `guessing`: the same for one who guesses.
    """
    figure, panels = plt.subplots(1, 2, figsize=(10, 0.5 * len(accuracies) + 1.8), sharey=True, layout="constrained")
    for axes, colour, title, chance, values in zip(
        panels, (BLUE, ORANGE), ("New task", "Old task"), guessing, zip(*accuracies.values(), strict=True), strict=True
    ):
        bars = axes.barh(list(accuracies), values, color=colour)
        axes.bar_label(bars, [f"{value:.0%}" for value in values], padding=3)
        line = axes.axvline(chance, color=GREY, linestyle=":")
        tidy(axes, title=title, x="share of images named correctly", y="")
        axes.set_xlim(0, 1.15)
        axes.set_axisbelow(True)
    panels[0].invert_yaxis()
    figure.legend([line], ["guessing"], loc="outside lower right", frameon=False)
    return finish(figure)


def freeze_depths(accuracies: dict, seconds: dict, megabytes: dict) -> Figure:
    """Accuracy, time and memory by the number of unfrozen blocks, side by side.

    `accuracies`: blocks to the test accuracy of each seed; `seconds`: blocks to those of an epoch, for each seed;
    `megabytes`: blocks to the memory of a training step, in millions of bytes.
    """
    figure, (accuracy, time, memory) = plt.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    for axes, values in ((accuracy, accuracies), (time, seconds)):
        for depth, single in values.items():
            axes.plot([depth] * len(single), single, "o", color=BLUE, alpha=0.4, markersize=5)
        means = [sum(single) / len(single) for single in values.values()]
        axes.plot(list(values), means, color=BLUE, label="mean; a dot is one seed")
    memory.bar(list(megabytes), list(megabytes.values()), color=ORANGE)
    unit = "unfrozen blocks"
    tidy(accuracy, title="Accuracy", x=unit, y="share of test images named correctly")
    tidy(time, title="Time", x=unit, y="seconds for an epoch")
    tidy(memory, title="Memory", x=unit, y="megabytes for a training step")
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside lower left", frameon=False)
    time.set_ylim(bottom=0)
    memory.set_axisbelow(True)
    return finish(figure)
