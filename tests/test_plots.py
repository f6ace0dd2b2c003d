"""The figures: do they show the numbers they were given?"""

from itertools import accumulate

import numpy
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Polygon, Rectangle
from PIL import Image
from torch import nn

from helpers import costs, models, plots
from helpers.training import Evaluation, History


def history(accuracies):
    keys = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    return History([{"epoch": i, **dict.fromkeys(keys, a)} for i, a in enumerate(accuracies, start=1)], best_epoch=1)


def evaluation():
    """Three classes; images 1 and 3 are named wrongly, 3 with more certainty."""
    probabilities = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.9, 0.05, 0.05], [0.2, 0.2, 0.6]]
    return Evaluation(torch.tensor(probabilities), torch.tensor([0, 1, 1, 2, 2]))


def test_learning_curves_draw_every_run():
    figure = plots.learning_curves(
        {"a": history([0.5, 0.6]), "b": history([0.7, 0.8, 0.9])}, test_accuracy={"a": 0.55, "b": 0.85}
    )
    loss, accuracy = figure.axes
    drawn = [line.get_ydata().tolist() for line in accuracy.lines]
    assert [0.5, 0.6] in drawn
    assert [0.7, 0.8, 0.9] in drawn
    assert [0.85] in [list(numpy.atleast_1d(y)) for y in drawn]
    for axes in (loss, accuracy):
        assert axes.get_title(loc="left")
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel()


def test_confusion_matrix_counts_rows_by_truth_and_columns_by_answer():
    figure = plots.confusion_matrix(evaluation(), ["x", "y", "z"])
    counts = [text.get_text().split("\n")[0] for text in figure.axes[0].texts]
    assert counts == ["1", "0", "0", "1", "1", "0", "1", "0", "1"]


def test_most_wrong_shows_the_surest_mistake_first():
    images = [(f"{i}.jpg", 0) for i in range(5)]
    opened = []

    def load(path):
        opened.append(path)
        return Image.new("RGB", (8, 8))

    figure = plots.most_wrong(evaluation(), images, ["x", "y", "z"], load=load)
    assert opened == ["3.jpg", "1.jpg"]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["z, taken\nfor x (90%)", "y, taken\nfor x (60%)"]


def test_a_grid_of_few_or_no_images_works():
    for count in (0, 1, 7):
        figure = plots.image_grid([torch.rand(3, 8, 8)] * count, ["title"] * count)
        assert sum(bool(axes.images) for axes in figure.axes) == count


def test_perfect_models_have_no_mistakes_to_show():
    perfect = Evaluation(torch.eye(2), torch.tensor([0, 1]))
    figure = plots.most_wrong(perfect, [("a", 0), ("b", 1)], ["x", "y"], load=None)
    assert "0 mistakes" in figure.get_suptitle()


# ---- what a network costs


@pytest.fixture(scope="module")
def vgg16_costs():
    with torch.device("meta"):
        return costs.layer_costs(models.VGG16())


def filled(axes, level):
    """Which cells of one row of a receptive field are filled, from the bottom."""
    rows = sorted({patch.get_y() for patch in axes.patches})
    cells = [patch for patch in axes.patches if patch.get_y() == rows[level]]
    return [to_hex(patch.get_facecolor()) == plots.BLUE.lower() for patch in cells]


@pytest.mark.parametrize("kernels", [[3], [5], [3, 3], [3, 5], [3, 3, 3]])
def test_a_receptive_field_is_filled_where_a_gradient_arrives(kernels):
    """The oracle: which inputs have a gradient, when one output of such convolutions has one."""
    row = torch.zeros(1, 1, 9, requires_grad=True)
    weights = [torch.ones(1, 1, kernel) for kernel in kernels]
    maps = row
    for weight in weights:
        maps = nn.functional.conv1d(maps, weight, padding="same")
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
    assert [max(patch.get_y() for patch in axes.patches) for axes in (left, right)] == [1.8, 1.8]


def test_the_network_drawing_has_a_box_for_each_layer_and_names_the_maps(vgg16_costs):
    figure = plots.network_drawing(vgg16_costs, title="VGG16")
    (axes,) = figure.axes
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert len(boxes) == 13 + 5 + 3
    assert sum(isinstance(patch, Polygon) for patch in axes.patches) == 2 * len(boxes)
    assert boxes[0].get_height() / boxes[17].get_height() == pytest.approx((224 / 7) ** 0.5)
    assert boxes[17].get_width() / boxes[0].get_width() == pytest.approx((512 / 64) ** (1 / 3))
    sizes = ["64 maps\n224 × 224", "128 maps\n112 × 112", "256 maps\n56 × 56", "512 maps\n28 × 28"]
    assert [text.get_text() for text in axes.texts] == [*sizes, "512 maps\n14 × 14", "512 maps\n7 × 7", "4096", "1000"]
    assert len(axes.get_legend().get_texts()) == 3
    assert axes.get_title(loc="left") == "VGG16"


def test_boxes_of_the_network_drawing_do_not_overlap(vgg16_costs):
    (axes,) = plots.network_drawing(vgg16_costs, title="VGG16").axes
    boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    backs = [box.get_x() + box.get_width() + plots.DEPTH * box.get_height() for box in boxes]
    assert all(back < after.get_x() for back, after in zip(backs, boxes[1:], strict=False))


def test_cost_bars_are_as_long_as_the_costs(vgg16_costs):
    left, right = plots.cost_bars(vgg16_costs, title="Where they are").axes
    weighted = [cost for cost in vgg16_costs if cost.parameters]
    assert [bar.get_width() * 1e6 for bar in left.patches] == pytest.approx([cost.parameters for cost in weighted])
    assert [bar.get_width() * 1e9 for bar in right.patches] == pytest.approx([cost.multiply_adds for cost in weighted])
    assert [text.get_text() for text in left.texts][13:] == ["74.3%", "12.1%", "3.0%"]
    assert [label.get_text() for label in left.get_yticklabels()] == [cost.name for cost in weighted]
    assert left.get_xlabel() == "parameters (millions)"
    assert right.get_xlabel() == "multiply-adds for one image (billions)"
    assert left.yaxis_inverted()  # the first layer at the top


def test_the_signal_is_drawn_on_a_log_scale_for_each_start():
    (axes,) = plots.signal_by_layer({"small": [1.0, 0.1, 0.01], "good": [1.0, 1.1, 0.9]}).axes
    assert axes.get_yscale() == "log"
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1.0, 0.1, 0.01], [1.0, 1.1, 0.9]]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 2, 3], [1, 2, 3]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["small", "good"]
    assert axes.get_xlabel() == "layer"
    assert axes.get_ylabel()


def test_training_losses_are_drawn_beside_guessing():
    (axes,) = plots.training_losses({"a": history([0.7, 0.4]), "b": history([0.7, 0.7, 0.7])}, guessing=0.693).axes
    first, second, guess = axes.lines
    assert first.get_ydata().tolist() == [0.7, 0.4]
    assert second.get_xdata().tolist() == [1, 2, 3]
    assert guess.get_ydata() == [0.693, 0.693]
    assert axes.get_ylim()[0] == 0
    assert "nats" in axes.get_ylabel()


def test_found_by_order_counts_what_was_found_after_each_look():
    is_wrong = [True, True, False, True, False, False]
    axes = plots.found_by_order(is_wrong, title="Found").axes[0]
    by_chance, found = axes.lines
    assert list(found.get_xdata()) == list(range(7))
    assert list(found.get_ydata()) == [0, *accumulate(is_wrong)]
    assert [list(by_chance.get_xdata()), list(by_chance.get_ydata())] == [[0, 6], [0, 3]]
    assert axes.get_title(loc="left") == "Found"
    assert axes.get_ylabel() == "found, of 3"


# ---- fine-tuning


def test_the_search_shows_every_loss_and_the_mean_of_five():
    rates, losses = [10.0**i for i in range(-6, 1)], [0.7, 0.6, 0.5, 0.4, 0.3, 0.4, 5.0]
    (axes,) = plots.learning_rate_search({"a": (rates, losses), "b": (rates[:2], losses[:2])}).axes
    pale, mean, _, short = axes.lines
    assert axes.get_xscale() == "log"
    assert pale.get_xdata().tolist() == rates
    assert pale.get_ydata().tolist() == losses
    assert mean.get_ydata().tolist()[-1] == pytest.approx(numpy.mean(losses[-5:]))
    assert mean.get_ydata().tolist()[:2] == pytest.approx([0.7, 0.65])
    assert len(short.get_xdata()) == 2
    assert axes.get_ylim() == pytest.approx((0, 2.5 * 0.7))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]


def test_rates_are_drawn_by_batch_from_one():
    (axes,) = plots.rates_by_batch({"classifier": [1e-4, 1e-3], "block 5": [1e-5, 1e-4]}).axes
    assert axes.get_yscale() == "log"
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1e-4, 1e-3], [1e-5, 1e-4]]
    assert axes.lines[0].get_xdata().tolist() == [1, 2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["classifier", "block 5"]


def test_new_and_old_task_have_a_bar_for_each_run():
    figure = plots.new_and_old_task({"a": (0.9, 0.8), "b": (0.5, 0.03)}, guessing=(0.5, 0.027))
    new, old = figure.axes
    assert [bar.get_width() for bar in new.patches] == [0.9, 0.5]
    assert [bar.get_width() for bar in old.patches] == [0.8, 0.03]
    assert [text.get_text() for text in old.texts] == ["80%", "3%"]
    assert [axes.lines[0].get_xdata()[0] for axes in (new, old)] == [0.5, 0.027]
    assert [label.get_text() for label in new.get_yticklabels()] == ["a", "b"]
    assert new.yaxis_inverted()  # the first run at the top
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["guessing"]


def test_freeze_depths_draw_each_seed_their_mean_and_the_memory():
    figure = plots.freeze_depths({0: [0.8, 0.9], 1: [0.9, 1.0]}, {0: [1.0, 3.0], 1: [4.0, 4.0]}, {0: 10.0, 1: 30.0})
    accuracy, time, memory = figure.axes
    assert [line.get_ydata().tolist() for line in accuracy.lines[:2]] == [[0.8, 0.9], [0.9, 1.0]]
    assert accuracy.lines[2].get_ydata().tolist() == pytest.approx([0.85, 0.95])
    assert time.lines[2].get_ydata().tolist() == pytest.approx([2.0, 4.0])
    assert time.lines[2].get_xdata().tolist() == [0, 1]
    assert [bar.get_height() for bar in memory.patches] == [10.0, 30.0]
    assert {axes.get_xlabel() for axes in figure.axes} == {"unfrozen blocks"}
    assert "megabytes" in memory.get_ylabel()
    assert len(figure.legends[0].get_texts()) == 1
