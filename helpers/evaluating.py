"""How good a model really is, and when not to trust it: calibration, refusal, sets with a promise, the report."""

import html
import math
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .data import load_image
from .settings import format_table, printable
from .training import Evaluation
from .transfer import Features

# --------------------------------------------------------------------------------- calibration


def fit_temperature(evaluation: Evaluation) -> float:
    """The temperature with the lowest log loss on these images; above 1 it makes less sure (arXiv:1706.04599)."""
    logits, count = log(evaluation.probabilities), len(evaluation.labels)
    right = F.one_hot(evaluation.labels, logits.shape[1]).double()

    def best(doubt: float) -> float:
        # The loss falls as T grows as long as the model expects more of its logits than the right classes get.
        target, low, high = right * (1 - doubt) + doubt / logits.shape[1], -3.0, 3.0
        for _ in range(60):
            middle = (low + high) / 2
            too_sure = (((logits / math.exp(middle)).softmax(1) - target) * logits).sum() > 0
            low, high = (middle, high) if too_sure else (low, middle)
        return math.exp((low + high) / 2)

    # If all are right, the lowest loss is at T = 0, which would make every answer certain. So a model is made surer
    # only as far as one more image, of which it would know nothing, allows.
    return max(best(doubt=0), min(1.0, best(doubt=1 / (count + 1))))


def log(probabilities: Tensor) -> Tensor:
    """Natural logarithm in float64, finite for 0 too."""
    return probabilities.double().clamp_min(1e-12).log()


def soften(probabilities: Tensor, temperature: float) -> Tensor:
    """Probabilities (n, classes) at a temperature; the order of the classes stays."""
    return (log(probabilities) / temperature).softmax(1).float()


def calibrate(evaluation: Evaluation, temperature: float) -> Evaluation:
    """The same answers at a temperature."""
    return replace(evaluation, probabilities=soften(evaluation.probabilities, temperature))


def calibration_bins(evaluation: Evaluation) -> list[dict]:
    """The images in 15 bins of equal width by the probability of their answer, as KEYS names them; no empty ones."""
    sure, right = evaluation.probabilities.double().amax(1), evaluation.predictions == evaluation.labels
    places, found = (sure * 15).long().clamp_max(14), []
    for place in places.unique():
        hits, count = int(right[places == place].sum()), int((places == place).sum())
        ends = {"right": hits / count, "interval": wilson(hits, count), "images": count}
        found.append({"probability": sure[places == place].mean().item(), **ends})
    return found


def calibration_error(evaluation: Evaluation) -> float:
    """Expected calibration error: distance of a bin's probability from its share right, the mean over images."""
    bins = calibration_bins(evaluation)
    return sum(one["images"] * abs(one["probability"] - one["right"]) for one in bins) / len(evaluation.labels)


# ----------------------------------------------------------------------------- refusal and sets

NEAREST = 5  # training images that an image is compared with
MOST_KNOWN = 2000  # training images that are kept for it, which makes a run some megabytes larger


class Strangeness(nn.Module):
    """How unlike the training images (n, d) features are: mean cosine distance to the nearest (arXiv:2204.06507)."""

    def __init__(self, known: Tensor, std: Tensor, threshold: Tensor):
        super().__init__()
        self.register_buffer("known", known)  # (m, d) float16, rows of length 1
        self.register_buffer("std", std)  # (d,) float32
        self.register_buffer("threshold", threshold)  # one number, float32, above which an image is refused

    def forward(self, features: Tensor) -> Tensor:
        similar = F.normalize(features / self.std) @ self.known.float().T
        return 1 - similar.topk(min(NEAREST, len(self.known))).values.mean(1)


def learn_strangeness(train: Features, validation: Features, std: Tensor) -> Strangeness:
    """Strangeness to the training images (their first view), which refuses at most 5 % of the validation images."""
    step = -(-len(train.rows) // MOST_KNOWN)
    known = F.normalize(train[list(range(0, len(train.rows), step))][0] / std).half()
    strangeness = Strangeness(known, std.clone(), torch.tensor(math.inf))
    scores = strangeness(validation[list(range(len(validation.rows)))][0]).sort().values
    # A little above that image's own score, which differs in its last digits in another batch.
    strangeness.threshold.copy_(scores[-1 - len(scores) // 20] + 1e-4)
    return strangeness


def conformal_level(evaluation: Evaluation, *, coverage: float = 0.95) -> float:
    """The probability from which a class is in an image's set, so that `coverage` of the sets hold the right one."""
    # Split conformal prediction (arXiv:2107.07511, section 1), on images that the model has not learned from.
    right = evaluation.probabilities[torch.arange(len(evaluation.labels)), evaluation.labels].sort().values
    rank = len(right) - math.ceil((len(right) + 1) * coverage)
    return right[rank].item() if rank >= 0 else 0.0  # too few images for the promise: every class is in every set


# ---------------------------------------------------------------------------------- the report

# Every key of evaluation.json, and what its value means.
KEYS = {
    "images": "how many images the run was asked about; it had not learned from any of them",
    "accuracy": "share of the images whose most probable class is the right one",
    "accuracy_interval": "Wilson's 95 % interval: where the accuracy on many more such images should lie",
    "balanced_accuracy": "mean of the recalls: a rare class counts as much as a common one",
    "log_loss": "mean of −ln(probability of the right class), in nats",
    "log_loss_before": "the same without the temperature",
    "calibration_error": "distance of the probabilities given from the shares that were right, in 15 bins (ECE)",
    "calibration_error_before": "the same without the temperature",
    "temperature": "what logits are divided by; above 1 makes less sure; fitted on the validation images",
    "refused": "share of the images that are refused as none of the classes; null if the run can't refuse",
    "accuracy_of_rest": "accuracy on the images that are not refused",
    "classes": "for each class: images, how often it was named, precision, recall (null: never named, no images)",
    "confusion": "numbers of images: a row for each true class, a column for each answer, in the order of classes",
    "bins": "of the reliability diagram: mean probability, share right and its interval, number of images",
    "mistakes": "wrongly named images, the most confident first: path, class, answer, probability",
}


def measure(
    evaluation: Evaluation, paths: list[Path], classes: list[str], *, temperature=1.0, refused: Tensor | None = None
) -> dict:
    """What evaluation.json holds, from the answers about some images, and which of these were refused (n,)."""
    before, after, count = evaluation, calibrate(evaluation, temperature), len(paths)
    right, sure, kinds = after.predictions == after.labels, after.probabilities.amax(1), len(classes)
    confusion = (after.labels * kinds + after.predictions).bincount(minlength=kinds**2).view(kinds, kinds)
    rows = zip(classes, confusion.sum(1), confusion.sum(0), confusion.diagonal(), strict=True)
    per_class = {
        name: {"images": int(n), "named": int(said), "precision": share(hits, said), "recall": share(hits, n)}
        for name, n, said, hits in rows
    }
    recalls = [one["recall"] for one in per_class.values() if one["images"]]
    scalars = {
        "images": count,
        "accuracy": after.accuracy,
        "accuracy_interval": wilson(int(right.sum()), count),
        "balanced_accuracy": sum(recalls) / len(recalls),
        "log_loss": after.log_loss,
        "log_loss_before": before.log_loss,
        "calibration_error": calibration_error(after),
        "calibration_error_before": calibration_error(before),
        "temperature": temperature,
        "refused": None if refused is None else share(refused.sum(), count),
        "accuracy_of_rest": None if refused is None else share((right & ~refused).sum(), (~refused).sum()),
    }
    wrong = sorted((~right).nonzero().flatten().tolist(), key=lambda i: -sure[i])
    mistakes = [[str(paths[i]), classes[after.labels[i]], classes[after.predictions[i]], sure[i].item()] for i in wrong]
    keys = ("path", "class", "answer", "probability")
    more = {"confusion": confusion.tolist(), "bins": calibration_bins(after)}
    return scalars | {"classes": per_class, **more, "mistakes": [dict(zip(keys, one, strict=True)) for one in mistakes]}


def share(part, whole) -> float | None:
    """A part of a whole; None of nothing."""
    return int(part) / int(whole) if whole else None


def wilson(right: int, count: int) -> list[float]:
    """Wilson's 95 % interval of a share, which is sensible for few images too, and for none wrong."""
    z = 1.959964  # standard deviations
    part, width = right / count, 1 + z**2 / count
    middle, half = part + z**2 / (2 * count), z * math.sqrt(part * (1 - part) / count + (z / (2 * count)) ** 2)
    return [max(0.0, (middle - half) / width), min(1.0, (middle + half) / width)]


def tables(found: dict) -> tuple[tuple[list, list], tuple[list, list]]:
    """(header, rows) of the numbers of `measure`, and of those of each class."""

    def text(value) -> str:
        ends = value if isinstance(value, list) else [value]
        return " to ".join("–" if end is None else str(end) if isinstance(end, int) else f"{end:.3f}" for end in ends)

    numbers = [[key.replace("_", " "), text(found[key])] for key in list(KEYS)[:11]]  # the others are lists
    classes = [[name, *map(text, one.values())] for name, one in found["classes"].items()]
    return (["", "value"], numbers), (["class", "images", "named", "precision", "recall"], classes)


def as_text(found: dict) -> str:
    """The numbers of `measure` as two tables for a terminal or a notebook."""
    return "\n\n".join(format_table(*table) for table in tables(found))


STYLE = """:root { color-scheme: light dark } body { font: 1rem/1.5 system-ui, sans-serif; max-width: 65rem;
margin: 2rem auto; padding: 0 1rem } div { overflow-x: auto; margin-bottom: 2rem } img { background: white }
td, th { text-align: right; padding: .2rem .8rem } :is(td, th):first-child, .words { text-align: left }"""


def as_html(found: dict, evaluation: Evaluation, paths: list[Path], classes: list[str], *, title: str) -> str:
    """The report on the answers about these images, as one page without outside requests."""
    from . import plots  # here, because only a reader of reports needs matplotlib

    evaluation = calibrate(evaluation, found["temperature"])
    figures = [plots.confusion_matrix(evaluation, classes), plots.reliability(found["bins"])]
    if found["mistakes"]:
        pairs = list(zip(paths, evaluation.labels.tolist(), strict=True))
        figures.append(plots.most_wrong(evaluation, pairs, classes, load=load_image))
    (header, numbers), of_classes = tables(found)
    numbers = [[*row, KEYS[row[0].replace(" ", "_")]] for row in numbers]
    parts = [html_table([*header, "what it means"], numbers), html_table(*of_classes)]
    for figure in figures:
        data, about = (part["image/png"] for part in figure._repr_mimebundle_())
        parts.append(f'<img alt="{escape(about["alt"])}" src="data:image/png;base64,{data}">')
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = f"<h1>{escape(title)}</h1>" + "".join(f"\n<div>{part}</div>" for part in parts)
    return f'<!DOCTYPE html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n'


def html_table(header: list[str], rows: list[list[str]]) -> str:
    """A table in HTML; a cell of many letters is text, not a number."""
    cells = [[f"<th scope=col>{escape(name)}" for name in header]]
    cells += [[f"<td{' class=words' if len(cell) > 20 else ''}>{escape(cell)}" for cell in row] for row in rows]
    return f"<table>{'<tr>'.join(map(''.join, [[], *cells]))}</table>"


def escape(text: str) -> str:
    """Text on one line, as HTML must be given it."""
    return html.escape(printable(text))
