"""The figures: do they show the numbers and names they were given, in a notebook and to a screen reader too?"""

import base64
import io
import re
import sys
from itertools import accumulate, pairwise

import nbformat
import numpy
import pytest
import torch
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter
from IPython.core.pylabtools import print_figure
from matplotlib import cbook
from matplotlib._pylab_helpers import Gcf
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from nbconvert import HTMLExporter
from PIL import Image
from torch import nn

from helpers import costs, models, plots
from helpers.settings import SAMPLE
from helpers.training import Evaluation, History


def history(accuracies):
    keys = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    return History([{"epoch": i, **dict.fromkeys(keys, a)} for i, a in enumerate(accuracies, start=1)], best_epoch=1)


def evaluation():
    """Three classes; images 1 and 3 are named wrongly, 3 with more confidence."""
    probabilities = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6]]
    return Evaluation(torch.tensor(probabilities), torch.tensor([0, 1, 1, 2, 2]))


def all_right(count):
    return Evaluation(torch.eye(count), torch.arange(count))


@pytest.fixture(scope="module")
def vgg16_costs():
    with torch.device("meta"):
        return costs.layer_costs(models.VGG16())


AXES = {"title": "A title", "x": "days", "y": "size"}
FIGURES = {
    "line_chart": lambda: plots.line_chart({"a": [1.0, 2.0, 3.5]}, **AXES),
    "curve_with_spread": lambda: plots.curve_with_spread({"a": {1: [0.5, 0.7], 10: [0.9]}}, **AXES),
    "learning_curves": lambda: plots.learning_curves({"a": history([0.5, 0.75])}),
    "image_grid": lambda: plots.image_grid([torch.rand(3, 8, 8)], ["a cat"], title="One"),
    "most_wrong": lambda: plots.most_wrong(
        evaluation(), [("", 0)] * 5, ["x", "y", "z"], load=lambda _: Image.new("L", (8, 8))
    ),
    "confusion_matrix": lambda: plots.confusion_matrix(evaluation(), ["x", "y", "z"]),
    "reliability": lambda: plots.reliability([{"images": 9, "probability": 0.8, "right": 0.7, "interval": (0.4, 0.9)}]),
    "bar_chart": lambda: plots.bar_chart({"left": {"a": 0.25}}, title="A title", x="share"),
    "cost_bars": lambda: plots.cost_bars(small_costs(), title="A title"),
    "network_drawing": lambda: plots.network_drawing(small_costs(), title="A title"),
    "receptive_fields": lambda: plots.receptive_fields({"two layers": [3, 3]}),
}
EVERY_FIGURE = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES)


def small_costs():
    return costs.layer_costs(models.SmallCNN(2), (3, 64, 64))


def names_in(figure):
    """All texts of a figure, as a reader sees them: none of them may be taken for a formula."""
    texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    assert not any(cbook.is_math_text(text) for text in texts if "mathdefault" not in text)  # 10² on a log scale
    return [text.replace(r"\$", "$") for text in texts]


def legend_of(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


# ---- in a notebook, without a screen, and for a screen reader


def shown(figure, *, inline=False):
    """What a notebook stores: data and metadata; `inline`: as after `%matplotlib inline`."""
    formatter = DisplayFormatter()
    if inline:
        png = formatter.formatters["image/png"]
        png.for_type(Figure, lambda figure: print_figure(figure, fmt="png", base64=True))
    return formatter.format(figure)


@EVERY_FIGURE
def test_every_figure_shows_itself_without_pyplot_and_with_its_alt_text(draw, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # whoever imports it fails
    data, metadata = shown(draw())
    image = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    assert image.format == "PNG"
    assert 250 < image.width <= 1200
    assert set(data) == {"image/png", "text/plain"}
    assert re.fullmatch(r"Figure: [A-Za-z ,]+", data["text/plain"])  # and no number, which another run might change
    assert len(metadata["image/png"]["alt"]) > 25
    assert draw().dpi >= 100
    assert not Gcf.figs


def test_the_alt_text_stays_where_the_reader_has_switched_inline_figures_on():
    figure = FIGURES["line_chart"]()
    figure.alt = 'A "cat" & $5'
    data, metadata = shown(figure, inline=True)
    assert data["text/plain"] == "Figure: A title"
    assert metadata == {"image/png": {"alt": 'A "cat" & $5'}}


def test_nbconvert_writes_the_alt_text_into_its_page():
    """Its template "lab" has no alt texts yet (nbconvert 7.17), so this is the other one."""
    data, metadata = shown(plots.image_grid([torch.rand(3, 8, 8)], ["a cat"], alt='A "cat" & $5'))
    output = nbformat.v4.new_output("execute_result", data, metadata=metadata)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    page, _ = HTMLExporter(template_name="classic").from_notebook_node(notebook)
    assert [image["alt"] for image in BeautifulSoup(page, "html.parser").find_all("img")] == ['A "cat" & $5']


def test_the_alt_texts_say_what_there_is_to_see(vgg16_costs):
    assert plots.line_chart({"a": [1, 2, 3.5]}, **AXES).alt == "Line chart, A title: size, by days, a from 1 to 3.5."
    assert "mean of size, by days, a from 0.6 to 0.9" in FIGURES["curve_with_spread"]().alt
    curves = plots.learning_curves({"a": history([0.5, 0.75])}, test_accuracy={"a": 0.8})
    assert curves.alt.endswith("Validation accuracy: a from 0.5 to 0.75. Test accuracy of a: 0.8.")
    assert plots.image_grid([torch.rand(3, 8, 8)] * 2, ["a cat", "a dog"]).alt == "Images: 2 in rows of 2. a cat; a dog"
    assert FIGURES["confusion_matrix"]().alt == "Confusion matrix, 3 classes: 3 of 5 images are on the diagonal."
    assert "Parameters, most: classifier.0, 74.3%" in plots.cost_bars(vgg16_costs, title="VGG16").alt
    assert "13 of convolution, ReLU, 5 of max pooling" in plots.network_drawing(vgg16_costs, title="VGG16").alt
    assert "5 × 5 pixels through two layers" in FIGURES["receptive_fields"]().alt


def test_the_text_of_an_output_is_the_same_whatever_was_measured():
    assert repr(plots.learning_curves({"b": history([0.6, 0.7])})) == repr(FIGURES["learning_curves"]())
    no_mistakes = plots.most_wrong(all_right(3), [("", 0)] * 3, "xyz", load=None)
    assert repr(no_mistakes) == repr(FIGURES["most_wrong"]()) == "Figure: mistakes, the most confident first"


# ---- names that somebody else chose


ODD_NAMES = ["$a$_1 for $5", "_hidden", "tab\tand\nline", "a name that is longer than any label can be, really"]


def test_names_are_shown_as_they_are():
    figures = [
        plots.line_chart({name: [1, 2] for name in ODD_NAMES}, title="for $5 or $6", x="$x$", y="$y$"),
        plots.curve_with_spread({name: {1: [0.5]} for name in ODD_NAMES}, **AXES),
        plots.bar_chart({"$a$ panel": dict.fromkeys(ODD_NAMES, 0.5)}, title="for $5 or $6", x="$x$"),
        plots.confusion_matrix(all_right(4), ODD_NAMES, title="for $5 or $6"),
        plots.learning_curves({name: history([0.5]) for name in ODD_NAMES}),
    ]
    for figure in figures:
        names = " | ".join(names_in(figure))
        assert all(name in names for name in ("$a$_1 for $5", "_hidden", "tab and line", "a name that"))
        assert "…" in names
        assert "\n" not in re.sub(r"\d+\n\d+%", "", names)  # but for the counts in the confusion matrix
    assert all("for $5 or $6" in names_in(figures[i]) for i in (0, 2, 3))


def test_titles_of_images_are_wrapped_and_shown_as_they_are():
    grid = plots.image_grid([torch.rand(3, 8, 8)] * 6, ["$a$ and $b$ in a title as long as this", "_x\ny", *"abcd"])
    assert [axes.get_title(loc="left") for axes in grid.axes[:2]] == [
        "\\$a\\$ and \\$b\\$ in a title\nas long as this", "_x\ny"
    ]  # fmt: skip
    names_in(grid)


def test_names_that_are_numbers_or_twice_the_same_keep_their_bars():
    (axes,) = plots.bar_chart({"p": {"10": 0.1, "2": 0.5}}, title="t", x="x").axes
    assert [bar.get_width() for bar in axes.patches] == [0.1, 0.5]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["10", "2"]


def test_long_names_keep_both_ends():
    assert plots.label("a" * 40) == "a" * 40
    assert plots.label("start" + "x" * 40 + "end") == "start" + "x" * 15 + "…" + "x" * 16 + "end"
    assert len(plots.label("x" * 99, longest=24)) == 24


# ---- lines


def test_a_line_chart_draws_each_entry_by_number_or_by_x():
    figure = plots.line_chart({"by number": [3, 1, 2], "by x": ([0, 5, 10], torch.tensor([0.5, 0.25, 1.0]))}, **AXES)
    (axes,) = figure.axes
    first, second = axes.lines
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([1, 2, 3], [3, 1, 2])
    assert (list(second.get_xdata()), list(second.get_ydata())) == ([0, 5, 10], [0.5, 0.25, 1.0])
    assert first.get_color() != second.get_color()
    assert first.get_marker() != second.get_marker()
    assert legend_of(figure) == ["by number", "by x"]
    assert (axes.get_title(loc="left"), axes.get_xlabel(), axes.get_ylabel()) == ("A title", "days", "size")
    assert axes.get_ylim()[0] == 0


def test_epochs_are_whole_numbers():
    for figure in (plots.line_chart({"a": [1, 2, 3]}, **AXES), plots.learning_curves({"a": history([0.5, 0.6])})):
        figure.draw_without_rendering()
        assert all(tick == int(tick) for axes in figure.axes for tick in axes.get_xticks())


def test_more_lines_than_colours_are_all_drawn_and_can_be_told_apart():
    figure = plots.line_chart({f"run {i}": [i, i + 1] for i in range(14)}, **AXES)
    (axes,) = figure.axes
    assert len({(line.get_color(), line.get_marker()) for line in axes.lines}) == 14
    assert len(legend_of(figure)) == 14


def test_a_line_chart_has_log_scales_a_reference_and_pale_lines():
    rates, losses = [1e-3, 1e-2, 1e-1], [0.7, 0.4, 9.0]
    options = {"reference": ("guessing", 0.69), "pale": {"a": (rates, losses)}, "y_range": (0, 2)}
    figure = plots.line_chart({"a": (rates[1:], [0.5, 1.0])}, **AXES, log_x=True, **options)
    (axes,) = figure.axes
    pale, mean, guessing = axes.lines
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "linear")
    assert (list(pale.get_ydata()), pale.get_alpha(), pale.get_color()) == (losses, 0.3, mean.get_color())
    assert list(guessing.get_ydata()) == [0.69, 0.69]
    assert legend_of(figure) == ["a", "guessing"]
    assert axes.get_ylim() == (0, 2)
    (axes,) = plots.line_chart({"small": [1.0, 0.1, 0.01]}, **AXES, log_y=True).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")
    assert plots.line_chart({"below": [-1, 1]}, **AXES).axes[0].get_ylim()[0] < -1


def test_a_curve_with_spread_has_a_mean_a_dot_for_each_seed_and_a_band():
    values = {"a": {100: [0.9, 0.7], 10: [0.5, 0.6, 0.7]}, "b": {10: [0.45], 100: [0.5]}}
    figure = plots.curve_with_spread(values, **AXES, reference=("guessing", 0.5))
    (axes,) = figure.axes
    a, b, _, dots, _ = axes.lines
    assert (list(a.get_xdata()), a.get_ydata()) == ([10, 100], pytest.approx([0.6, 0.8]))
    assert (list(dots.get_xdata()), list(dots.get_ydata())) == ([10, 10, 10, 100, 100], [0.5, 0.6, 0.7, 0.9, 0.7])
    assert dots.get_linestyle() == "None"
    assert dots.get_color() == a.get_color() != b.get_color()
    band = axes.collections[0].get_paths()[0].vertices
    assert {tuple(corner) for corner in band.round(3).tolist()} == {(10, 0.5), (10, 0.7), (100, 0.7), (100, 0.9)}
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "100"]
    assert axes.get_ylim() == pytest.approx((0.4, 1.005))
    assert legend_of(figure) == ["a", "b", "guessing"]


def test_names_on_logarithmic_axes_are_plain_numbers_that_do_not_touch():
    (axes,) = plots.curve_with_spread({"a": {2: [0.5], 400: [0.9], 500: [0.9]}}, **AXES).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "", "500"]
    figure = plots.line_chart({"a": [0.4, 0.02]}, **AXES, log_y=True)
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_ylim()  # older matplotlib names what lies outside, too
    labels = [label for label in figure.axes[0].get_yticklabels(minor=True) if low <= label.get_position()[1] <= high]
    names = {label.get_text() for label in labels}
    assert {"0.05", "0.2"} <= names <= {"", "0.02", "0.05", "0.2", "0.5"}


def test_a_curve_of_anything_but_shares_begins_at_zero():
    (axes,) = plots.curve_with_spread({"a": {1: [3.0, 4.0], 10: [5.0]}}, **AXES).axes
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylim()[1] > 5


def test_learning_curves_draw_every_run():
    figure = plots.learning_curves(
        {"a": history([0.5, 0.6]), "b": history([0.7, 0.8, 0.9])}, test_accuracy={"b": 0.85, "a": 0.55}
    )
    loss, accuracy = figure.axes
    for axes in (loss, accuracy):
        drawn = [list(line.get_ydata()) for line in axes.lines][:4]
        assert drawn == [[0.5, 0.6], [0.7, 0.8, 0.9]] * 2  # train, then validation
        assert [line.get_color() for line in axes.lines][:4] == [plots.BLUE, plots.ORANGE] * 2
        assert axes.get_title(loc="left")
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel()
    tests = {line.get_color(): line.get_xydata().tolist() for line in accuracy.lines[4:]}
    assert tests == {plots.BLUE: [[2.6, 0.55]], plots.ORANGE: [[3.6, 0.85]]}
    trained = ["a, train", "b, train", "a, validation", "b, validation"]
    assert legend_of(figure) == [*trained, "b, test 85.0%", "a, test 55.0%"]
    assert loss.get_ylim()[0] == 0
    assert accuracy.get_ylim() == pytest.approx((0.4, 1.005))
    near = plots.learning_curves({"a": history([0.95, 0.96])})  # a gain of a point must not look like all there is
    assert near.axes[1].get_ylim() == pytest.approx((0.5, 1.005))


def test_learning_curves_show_train_and_validation_where_they_belong():
    rows = [{"epoch": 1, "train_loss": 0.1, "validation_loss": 0.2, "train_accuracy": 0.3, "validation_accuracy": 0.4}]
    loss, accuracy = plots.learning_curves({"a": History(rows)}).axes
    assert [line.get_ydata()[0] for line in (*loss.lines, *accuracy.lines)] == [0.1, 0.2, 0.3, 0.4]
    assert loss.lines[0].get_linestyle() == "--"
    assert "nats" in loss.get_ylabel()


def test_the_count_of_what_was_found_can_be_drawn_beside_chance():
    """As lesson 5 does."""
    is_wrong = [True, True, False, True, False, False]
    lines = {"at random": ([0, 6], [0, 3]), "in this order": (range(7), [0, *accumulate(is_wrong)])}
    (axes,) = plots.line_chart(lines, **AXES).axes
    assert list(axes.lines[1].get_xydata()[-1]) == [6, 3]


# ---- images


def drawn(figure):
    """The pixels of each image of a figure, as a notebook shows them."""
    data, _ = shown(figure)
    page = numpy.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB"))
    boxes = [axes.get_window_extent().extents.round().astype(int) for axes in figure.axes]
    return [page[len(page) - top : len(page) - bottom, left:right] for left, bottom, right, top in boxes]


@pytest.mark.parametrize(("side", "times"), [(96, 2), (64, 3), (150, 1)])
def test_small_images_are_enlarged_pixel_by_pixel(side, times):
    image = Image.effect_noise((side, side // 2), 60).convert("RGB")
    found = drawn(plots.image_grid([image] * 7, ["title"] * 7, title="Noise"))
    expected = numpy.asarray(image).repeat(times, 0).repeat(times, 1).astype(int)
    assert len(found) == 7
    for pixels in found:
        assert pixels.shape == expected.shape
        assert abs(pixels - expected).max() <= 2


def test_large_images_are_shrunk_and_keep_their_proportions():
    image = Image.linear_gradient("L").resize((3000, 1000))
    (pixels,) = drawn(plots.image_grid([image], ["title"]))
    assert pixels.shape[:2] == (104, 312)
    assert abs(pixels[:, 100, 0] - numpy.linspace(0, 255, 104)).max() < 6
    assert [p.shape[:2] for p in drawn(plots.image_grid([Image.new("RGB", (5000, 7))], [""]))] == [(1, 312)]


def test_a_row_of_images_is_1200_pixels_wide_at_120_dots_per_inch():
    figure = plots.image_grid([Image.new("RGB", (96, 96))] * 12, ["cats"] * 12, title="Twelve")
    assert figure.dpi == 120
    assert figure.get_size_inches()[0] == pytest.approx(10, abs=0.01)


def test_enlarged_drawings_take_hardly_more_bytes_than_the_drawings():
    images = [Image.open(file).convert("RGB") for file in sorted((SAMPLE / "train").rglob("*.jpg"))[::30][:12]]
    files = [io.BytesIO() for _ in images]
    for image, file in zip(images, files, strict=True):
        image.save(file, "png")
    data, _ = shown(plots.image_grid(images, ["cats"] * 12, title="Twelve"))
    assert len(base64.b64decode(data["image/png"])) < 1.1 * sum(len(file.getvalue()) for file in files)


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("L", (8, 8), 100), (100, 100, 100)),
        (Image.new("LA", (8, 8), (100, 255)), (100, 100, 100)),
        (Image.new("LA", (8, 8), (0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (8, 8), (0, 0, 0, 0)), (255, 255, 255)),
        (Image.new("1", (8, 8), 1), (255, 255, 255)),
        (Image.new("CMYK", (8, 8), (0, 255, 255, 0)), (255, 0, 0)),
        (Image.new("P", (8, 8), 0), (0, 0, 0)),
        (Image.fromarray(numpy.full((8, 8), 32768, numpy.uint16)), (128, 128, 128)),
        (torch.full((3, 8, 8), 0.2), (51, 51, 51)),
        (torch.full((1, 8, 8), 0.2, dtype=torch.bfloat16), (51, 51, 51)),
        (torch.full((8, 8), 7.0), (255, 255, 255)),
        (torch.full((3, 8, 8), 200, dtype=torch.uint8), (200, 200, 200)),
    ],
)
def test_an_image_of_any_kind_is_shown_in_its_colours(image, colour):
    (pixels,) = drawn(plots.image_grid([image], ["title"]))
    assert abs(pixels.reshape(-1, 3).astype(int) - colour).max() <= 3


def test_channels_keep_their_order():
    image = torch.zeros(3, 2, 2)
    image[0, 0, 0] = 1  # red, at the upper left
    image[2, 1, 1] = 1  # blue, at the lower right
    (pixels,) = drawn(plots.image_grid([image], ["title"]))
    assert pixels[0, 0].tolist() == [255, 0, 0]
    assert pixels[-1, -1].tolist() == [0, 0, 255]


def test_a_grid_of_few_or_no_images_works():
    for count in (0, 1, 7):
        figure = plots.image_grid([torch.rand(3, 8, 8)] * count, ["title"] * count)
        assert len(drawn(figure)) == count


def test_most_wrong_shows_the_most_confident_mistake_first():
    images = [(f"{i}.jpg", 0) for i in range(5)]
    opened = []

    def load(path):
        opened.append(path)
        return Image.new("RGB", (8, 8))

    figure = plots.most_wrong(evaluation(), images, ["x", "_y\n", "$z$"], load=load)
    assert opened == ["3.jpg", "1.jpg"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        r"\$z\$, taken" + "\nfor x (90%)",
        "_y , taken\nfor x (60%)",
    ]
    assert figure.get_suptitle() == "2 mistakes in 5 images, the most confident first"
    assert len(plots.most_wrong(evaluation(), images, "xyz", load=load, count=1).axes) == 1


def test_perfect_models_have_no_mistakes_to_show():
    figure = plots.most_wrong(all_right(2), [("a", 0), ("b", 1)], ["x", "y"], load=None)
    assert "0 mistakes" in figure.get_suptitle()
    shown(figure)


# ---- the confusion matrix


def test_confusion_matrix_counts_rows_by_truth_and_columns_by_answer():
    (axes,) = plots.confusion_matrix(evaluation(), ["x", "y", "z"]).axes
    counts = {text.get_position()[::-1]: text.get_text().split("\n") for text in axes.texts}
    expected = [["1", "100%"], ["0", "0%"], ["0", "0%"]], [["1", "50%"], ["1", "50%"], ["0", "0%"]]
    assert [[counts[row, column] for column in range(3)] for row in range(2)] == list(expected)
    assert [counts[2, column][0] for column in range(3)] == ["1", "0", "1"]
    assert axes.images[0].get_array()[1].tolist() == [0.5, 0.5, 0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("the model says", "the image shows")


@pytest.mark.parametrize("count", [2, 20, 120, 700])
def test_confusion_matrices_of_many_classes_stay_small_and_legible(count):
    figure = plots.confusion_matrix(all_right(count), [f"species number {i:03}" for i in range(count)])
    assert max(figure.get_size_inches()) <= 12
    axes = figure.axes[0]
    figure.draw_without_rendering()
    labels = [label for label in axes.get_yticklabels() if label.get_text()]
    assert labels[0].get_text() == "species number 000"
    assert len(labels) == {700: 59}.get(count, min(count, 60))  # every twelfth of 700
    boxes = sorted(label.get_window_extent().extents.tolist() for label in labels)
    boxes = sorted((bottom, top) for _, bottom, _, top in boxes)
    assert all(lower[1] <= upper[0] + 1 for lower, upper in pairwise(boxes)), "labels overlap"
    assert len(axes.texts) == {2: 4, 20: 20}.get(count, 0)  # of 20 classes, only the cells that hold an image
    assert axes.get_window_extent().width > 0.3 * figure.bbox.width
    assert len(figure.axes) == (2 if count > 20 else 1)  # a colour bar stands for the numbers


# ---- bars and drawings


def test_bars_begin_at_zero_and_stand_in_order():
    panels = {"New task": {"a": 0.9, "b": 0.5}, "Old task": {"b": 0.03, "a": 0.8}}
    figure = plots.bar_chart(panels, title="Both tasks", x="share", reference=("guessing", (0.5, 0.027)))
    new, old = figure.axes
    assert [bar.get_width() for bar in new.patches] == [0.9, 0.5]
    assert [bar.get_width() for bar in old.patches] == [0.8, 0.03]
    assert {bar.get_x() for bar in (*new.patches, *old.patches)} == {0}
    assert [axes.get_xlim()[0] for axes in (new, old)] == [0, 0]
    assert [text.get_text() for text in old.texts] == ["80%", "3%"]
    assert [axes.lines[0].get_xdata()[0] for axes in (new, old)] == [0.5, 0.027]
    assert [label.get_text() for label in new.get_yticklabels()] == ["a", "b"]
    assert [axes.get_title(loc="left") for axes in (new, old)] == ["New task", "Old task"]
    assert new.yaxis_inverted()  # the first at the top
    assert legend_of(figure) == ["guessing"]


def test_cost_bars_are_as_long_as_the_shares_of_the_costs(vgg16_costs):
    left, right = plots.cost_bars(vgg16_costs, title="Where they are").axes
    weighted = [cost for cost in vgg16_costs if cost.parameters]
    for axes, quantity, total in ((left, "parameters", 138_357_544), (right, "multiply_adds", 15_470_264_320)):
        expected = [getattr(cost, quantity) / total for cost in weighted]
        assert [bar.get_width() for bar in axes.patches] == pytest.approx(expected)
    assert [text.get_text() for text in left.texts][13:] == ["74.3%", "12.1%", "3.0%"]
    assert [label.get_text() for label in left.get_yticklabels()] == [cost.name for cost in weighted]
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["Parameters", "Multiply-adds for one image"]


def filled(axes, level):
    """Which cells of one row of a receptive field are filled, from the bottom."""
    return [to_hex(colour) == plots.BLUE.lower() for colour in axes.collections[level].get_facecolors()]


@pytest.mark.parametrize("kernels", [[3], [5], [3, 3], [3, 5], [3, 3, 3]])
def test_a_receptive_field_is_filled_where_a_gradient_arrives(kernels):
    """The oracle: which inputs have a gradient, when one output of such convolutions has one."""
    row = torch.zeros(1, 1, 9, requires_grad=True)
    maps = row
    for kernel in kernels:
        maps = nn.functional.conv1d(maps, torch.ones(1, 1, kernel), padding="same")
    maps[0, 0, 4].backward()
    (axes,) = plots.receptive_fields({"name": kernels}).axes
    assert filled(axes, 0) == (row.grad[0, 0] != 0).tolist()
    assert filled(axes, -1) == [cell == 4 for cell in range(9)]
    width = sum(filled(axes, 0))
    assert axes.get_title(loc="left") == f"name: sees {width} × {width}"
    assert axes.get_xlabel()
    assert len(axes.get_yticklabels()) == len(kernels) + 1


def test_two_stacks_of_different_depth_stand_side_by_side():
    left, right = plots.receptive_fields({"two": [3, 3], "one": [5]}).axes
    assert filled(left, 0) == filled(right, 0)
    assert (len(left.collections), len(right.collections)) == (3, 2)


def test_the_network_drawing_has_a_box_for_each_layer_and_names_the_maps(vgg16_costs):
    figure = plots.network_drawing(vgg16_costs, title="VGG16")
    (axes,) = figure.axes
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(boxes) == 13 + 5 + 3
    assert boxes[0].get_height() / boxes[17].get_height() == pytest.approx((224 / 7) ** 0.5)
    assert boxes[17].get_width() / boxes[0].get_width() == pytest.approx((512 / 64) ** (1 / 3))
    assert all(box.get_x() + box.get_width() < after.get_x() for box, after in pairwise(boxes))
    sizes = ["64 maps\n224 × 224", "128 maps\n112 × 112", "256 maps\n56 × 56", "512 maps\n28 × 28"]
    assert [text.get_text() for text in axes.texts] == [*sizes, "512 maps\n14 × 14", "512 maps\n7 × 7", "4096", "1000"]
    assert legend_of(figure) == ["convolution, ReLU", "max pooling", "linear layer"]
    assert figure.get_suptitle() == "VGG16"
