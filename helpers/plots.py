"""Every figure of the course, one function each; each returns a matplotlib figure."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy
from matplotlib.figure import Figure

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


def picture_grid(pictures: Sequence, titles: Sequence[str], *, columns: int = 6, title: str = "") -> Figure:
    """Pictures in rows, each under its title. A picture is a PIL image or a tensor (3, height, width) in [0, 1]."""
    columns = min(columns, len(pictures)) or 1
    rows = max(1, -(-len(pictures) // columns))
    # Few dots per inch: more would only enlarge small pictures, and the notebook's file with them.
    options = {"figsize": (2.4 * columns, 2.9 * rows), "dpi": 40, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(rows, columns, **options)
    for spot in axes.flat:
        spot.axis("off")
    for spot, picture, text in zip(axes.flat, pictures, titles, strict=False):
        spot.imshow(picture.permute(1, 2, 0).numpy() if hasattr(picture, "permute") else picture)
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
    tidy(accuracy, title="Accuracy", x="epoch", y="share of pictures named correctly")
    loss.set_ylim(bottom=0)
    accuracy.set_ylim(top=1.005)
    for axes in (loss, accuracy):
        axes.xaxis.get_major_locator().set_params(integer=True)
    accuracy.legend(loc="lower right", fontsize=8)
    return finish(figure)


def confusion_matrix(evaluation, classes: Sequence[str], *, title: str = "Confusion matrix") -> Figure:
    """Rows: the true class. Columns: what the model said. Each cell: how many pictures, and the share of its row."""
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
    tidy(axes, title=title, x="the model says", y="the picture shows")
    axes.grid(visible=False)
    return finish(figure)


def most_wrong(evaluation, pictures: Sequence, classes: Sequence[str], *, load, count: int = 12) -> Figure:
    """The wrongly named pictures of which the model was most sure, with the probability it gave its answer.

    `pictures`: the (path, label) pairs in the order of the evaluation. `load`: path to PIL image.
    """
    sure = evaluation.probabilities.max(1).values
    wrong = (evaluation.predictions != evaluation.labels).nonzero().flatten().tolist()
    worst = sorted(wrong, key=lambda i: -sure[i])[:count]
    said = evaluation.predictions
    titles = [f"{classes[evaluation.labels[i]]}, taken\nfor {classes[said[i]]} ({sure[i]:.0%})" for i in worst]
    title = f"The most wrong of {len(wrong)} mistakes in {len(evaluation.labels)} pictures"
    return picture_grid([load(pictures[i][0]) for i in worst], titles, title=title)
