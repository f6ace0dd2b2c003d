"""Measure the headline claims of the lessons, each with its control, over several seeds; write `results/claims.json`.

python -m benchmarks.claims                         five seeds, in float32 and in the fast precision
python -m benchmarks.claims --only augmentation     one claim; the others stay as they were measured
python -m benchmarks.claims --table                 only write the table anew

An effect is a difference of test accuracies that should be positive; a claim holds if its mean is more than two
standard errors above what the claim asks for. Everything is measured with the drawn sample.
"""

import argparse
import copy
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import cache, partial
from statistics import mean, stdev

import torch
from torch.utils.data import DataLoader, TensorDataset

from helpers.data import EvalTransform, Splits, load_image, load_splits, make_loaders
from helpers.drawing import restyle
from helpers.models import (
    SmallCNN,
    freeze_base_layers,
    load_backbone,
    replace_head,
    split_model,
    unfreeze,
)
from helpers.runs import SCRATCH_RECIPE, train_transfer, write_json
from helpers.settings import SETTINGS, choose_precision, environment
from helpers.training import evaluate, fit, learning_rates_by_block

from .curve import draw_images
from .pages import RESULTS, write_table

SAMPLE = SETTINGS["sample"]
QUIET = {"report": lambda line: None}


@cache
def splits_of(seed: int) -> Splits:
    """The sample; a seed changes nothing in it, for its splits are folders."""
    return load_splits(SAMPLE, seed=seed)


@cache
def from_scratch(seed: int, precision: str, augment: bool) -> float:
    """The test accuracy of lesson 1's network."""
    torch.manual_seed(seed)
    model, options = SmallCNN(2), {"passes": SAMPLE.scratch_passes, "augment": augment}
    train, validation, test = make_loaders(splits_of(seed), SAMPLE.scratch_size, **options)
    options = {"epochs": SAMPLE.scratch_epochs, "seed": seed, "precision": precision, **SCRATCH_RECIPE, **QUIET}
    fit(model, train, validation, **options)
    return evaluate(model, test, precision=precision).accuracy


def augmentation(seed: int, precision: str) -> float:
    """With augmentation less without, all else the same."""
    return from_scratch(seed, precision, True) - from_scratch(seed, precision, False)


def few_images(count: int, seed: int, precision: str) -> float:
    """So many images transferred less four hundred from scratch."""
    few = replace(splits_of(seed), train=draw_images(splits_of(seed), count, seed=seed))
    setting = replace(SAMPLE, transfer_epochs=10 * SAMPLE.transfer_epochs, precision=precision)
    run = train_transfer(few, setting, seed=seed, **QUIET)
    return run.summary["test_accuracy"] - from_scratch(seed, precision, True)


@cache
def task(style: str | None) -> dict[str, DataLoader]:
    """The sample's images in memory, in another style if one is named."""
    loaders = {}
    for name, part in splits_of(0).parts().items():
        images = [load_image(path) for path, _ in part]
        images = [restyle(image, style, seed=i) for i, image in enumerate(images)] if style else images
        tensors = torch.stack([EvalTransform(SAMPLE.transfer_size)(image) for image in images])
        data = TensorDataset(tensors, torch.tensor([label for _, label in part]))
        loaders[name] = DataLoader(data, 32, shuffle=name == "train")
    return loaders


def fine_tuning(style: str | None, seed: int, precision: str) -> float:
    """Fine-tuned less the best frozen base: lesson 4, sections 2 and 3."""
    loaders, options = task(style), {"seed": seed, "precision": precision, **QUIET}
    torch.manual_seed(seed)
    model = freeze_base_layers(replace_head(load_backbone("vgg16", SAMPLE.weights), 2))
    train_best_head(model, loaders, options)
    frozen = evaluate(model, loaders["test"], precision=precision).accuracy
    rates = learning_rates_by_block(unfreeze(model, 5), head=1e-3, factor=0.5)
    fit(model, loaders["train"], loaders["validation"], epochs=8, learning_rate=rates, **options)
    return evaluate(model, loaders["test"], precision=precision).accuracy - frozen


def train_best_head(model, loaders: dict, options: dict) -> None:
    """Train the head on features at three rates, and keep that with the lowest validation loss."""
    base, head = split_model(model.eval())
    features = {}
    for name in ("train", "validation"):
        images, labels = loaders[name].dataset.tensors
        with torch.no_grad():
            rows = torch.cat([base(batch) for batch in images.split(50)])
        features[name] = DataLoader(TensorDataset(rows, labels), 32, shuffle=name == "train")
    rows = features["train"].dataset.tensors[0].double()
    head[0].learn(rows.mean(0), rows.var(0, correction=0))
    start, found = copy.deepcopy(head.state_dict()), []
    for rate in (1e-3, 3e-3, 1e-2):
        head.load_state_dict(start)
        history = fit(head, features["train"], features["validation"], epochs=20, learning_rate=rate, **options)
        found.append((history.lowest_loss, copy.deepcopy(head.state_dict())))
    head.load_state_dict(min(found, key=lambda pair: pair[0])[1])


# Name to lesson, the claim, what is measured, and what the mean must be above.
CLAIMS: dict[str, tuple[str, str, Callable[[int, str], float], float]] = {
    "augmentation": ("1", "augmentation raises the accuracy", augmentation, 0.0),
    "forty images": ("2", "forty images transferred do better than 400 from scratch", partial(few_images, 40), 0.0),
    "fine-tuning pays": (
        "4",
        "on X-rays, fine-tuning beats the best frozen base",
        partial(fine_tuning, "x-ray"),
        0.0,
    ),
    "fine-tuning adds little": (
        "4",
        "in colour, fine-tuning gains less than two points",
        lambda seed, precision: 0.02 - fine_tuning(None, seed, precision),
        0.0,
    ),
}


def main() -> None:
    """Measure the claims (unless --table) and write the table."""
    parser = argparse.ArgumentParser(description="Measure the headline claims of the lessons.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--precision", nargs="+", default=["float32", "fast"])
    parser.add_argument("--only", nargs="+", choices=CLAIMS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    file = RESULTS / "claims.json"
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"claims": {}}
    for name in options.only or ([] if options.table else CLAIMS):
        for precision in dict.fromkeys(choose_precision(torch.device("cpu"), one) for one in options.precision):
            effects = [CLAIMS[name][2](seed, precision) for seed in options.seeds]
            about = {"date": date.today().isoformat(), "seeds": options.seeds, "environment": environment()}
            found["claims"].setdefault(name, {})[precision] = {**about, "effects": effects}
            print(name, precision, effects, flush=True)
            write_json(file, found)
    write_table(table(found["claims"]), command="benchmarks.claims")


def table(claims: dict) -> str:
    """A row for each claim and precision."""
    header = "| lesson | claim | precision | effect, mean ± 2 standard errors | seeds against it | holds | processor |"
    lines = [header, "|---|---|---|---|---|---|---|"]
    for name, (lesson, sentence, _, floor) in CLAIMS.items():
        for precision, one in claims.get(name, {}).items():
            effects = one["effects"]
            error = 2 * stdev(effects) / len(effects) ** 0.5
            against = sum(effect <= floor for effect in effects)
            holds = "yes" if mean(effects) - error > floor else "no"
            lines.append(
                f"| {lesson} | {sentence} | {precision} | {100 * mean(effects):+.1f} ± {100 * error:.1f} points "
                f"| {against} of {len(effects)} | {holds} | {one['environment']['cpu']} |"
            )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
