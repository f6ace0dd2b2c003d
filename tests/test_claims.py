"""The lessons' claims: each lesson says them word by word, and each was measured and holds."""

import json
from contextlib import nullcontext
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
    gradients = {}
    half = {"device_type": "cpu", "dtype": torch.bfloat16}
    for name, autocast in {
        "exact": nullcontext(),
        "real": torch.autocast(**half),
        "rounded": rounding_autocast(**half),
    }.items():
        with autocast:
            loss = model(images)[:, 0].float().sum()
        gradients[name] = torch.autograd.grad(loss, model.features[0][0].weight)[0]
    distance = {name: (one - gradients["real"]).norm() / one.norm() for name, one in gradients.items()}
    assert distance["rounded"] < 0.03  # sums in another order
    assert distance["exact"] > 0.1
