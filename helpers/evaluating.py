"""How good a model really is, and when not to trust it: calibration, refusal, sets with a promise."""

import math
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .training import Evaluation
from .transfer import Features

# --------------------------------------------------------------------------------- calibration


def fit_temperature(evaluation: Evaluation) -> float:
    """The temperature with the lowest log loss on these images, found in float64 on its logarithm (arXiv:1706.04599).

    Above 1 it makes a model less sure. The log loss never rises by it; where nothing is wrong it never makes sure.
    """
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


# ------------------------------------------------------------------------------------- refusal

NEAREST = 5  # training images that an image is compared with
MOST_KNOWN = 2000  # training images that are kept for it, which makes a run some megabytes larger


class Strangeness(nn.Module):
    """How unlike the training images an image is, by its features: (n, d) to (n,), 0 for one of them.

    The mean cosine distance to the nearest of them, each feature divided by its standard deviation (after
    arXiv:2204.06507). What is above the threshold should be refused.
    """

    def __init__(self, known: Tensor, std: Tensor, threshold: Tensor):
        super().__init__()
        self.register_buffer("known", known)  # (m, d) float16, rows of length 1
        self.register_buffer("std", std)  # (d,) float32
        self.register_buffer("threshold", threshold)  # one number, float32

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
