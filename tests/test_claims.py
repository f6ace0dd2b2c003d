"""The lessons' claims: each lesson says them word by word, and each was measured and holds."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.claims import CLAIMS, holds, rounding_autocast
from helpers.models import SmallCNN

ROOT = Path(__file__).resolve().parent.parent
LESSONS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
# What lesson 10 says holds to the last digit or not at all: its own cells and tests/test_distributed.py compare.
EXACT = ("10_from_laptop_to_cluster",)


def prose(file: Path) -> str:
    """All text of a notebook that is not code."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@pytest.mark.parametrize("lesson", [file for file in LESSONS if file.stem not in EXACT], ids=lambda file: file.stem)
def test_every_lesson_says_its_claims_word_by_word(lesson):
    claims = [claim.sentence for claim in CLAIMS.values() if claim.lesson == int(lesson.stem[:2])]
    assert claims, "no claim of this lesson is measured"
    assert [sentence for sentence in claims if sentence not in prose(lesson)] == []


MEASURED = json.loads((ROOT / "results" / "claims.json").read_text(encoding="utf-8"))["claims"]


@pytest.mark.parametrize("name", CLAIMS)
def test_every_measured_claim_holds_over_five_seeds(name):
    for one in MEASURED.get(name, {}).values():
        assert len(set(one["seeds"])) == len(one["effects"]) >= 5
        assert holds(one["effects"])


def test_every_claim_was_measured_in_float32_and_another_precision():
    done = [name for name in CLAIMS if "float32" in MEASURED.get(name, {}) and len(MEASURED[name]) >= 2]
    assert done == list(CLAIMS)


def test_a_claim_holds_only_beyond_two_standard_errors():
    assert holds([0.01, 0.02, 0.03])  # 0.02 ± 0.0115
    assert not holds([0.0, 0.01, 0.02])  # 0.01 ± 0.0115
    assert not holds([-0.01, -0.02, -0.03])


def test_rounding_is_what_autocast_does():
    torch.manual_seed(0)
    model, images = SmallCNN(2).eval(), torch.randn(4, 3, 32, 32)
    exact, found = model(images), []
    for autocast in (torch.autocast, rounding_autocast):
        with autocast("cpu", dtype=torch.bfloat16):
            logits = model(images).float()
        gradient = torch.autograd.grad(logits[:, 0].sum(), model.features[0][0].weight)[0]
        found.append((logits - exact, gradient))
    (wanted, its_gradient), (rounded, gradient) = found
    assert (rounded - wanted).abs().max() < 0.3 * wanted.abs().max()  # sums in another order round a few numbers apart
    assert (gradient - its_gradient).norm() < 0.02 * its_gradient.norm()
