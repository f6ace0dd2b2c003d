"""The figures: do they show the numbers they were given?"""

import numpy
import torch
from PIL import Image

from helpers import plots
from helpers.training import Evaluation, History


def history(accuracies):
    keys = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
    return History([{"epoch": i, **dict.fromkeys(keys, a)} for i, a in enumerate(accuracies, start=1)], best_epoch=1)


def evaluation():
    """Three classes; pictures 1 and 3 are named wrongly, 3 with more certainty."""
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
    pictures = [(f"{i}.jpg", 0) for i in range(5)]
    opened = []

    def load(path):
        opened.append(path)
        return Image.new("RGB", (8, 8))

    figure = plots.most_wrong(evaluation(), pictures, ["x", "y", "z"], load=load)
    assert opened == ["3.jpg", "1.jpg"]
    assert [axes.get_title() for axes in figure.axes[:2]] == ["z, taken\nfor x (90%)", "y, taken\nfor x (60%)"]


def test_a_grid_of_few_or_no_pictures_works():
    for count in (0, 1, 7):
        figure = plots.picture_grid([torch.rand(3, 8, 8)] * count, ["title"] * count)
        assert sum(bool(axes.images) for axes in figure.axes) == count


def test_perfect_models_have_no_mistakes_to_show():
    perfect = Evaluation(torch.eye(2), torch.tensor([0, 1]))
    figure = plots.most_wrong(perfect, [("a", 0), ("b", 1)], ["x", "y"], load=None)
    assert "0 mistakes" in figure.get_suptitle()
