"""Measure accuracy over the number of training images, from scratch and transferred, and write `results/`.

python -m benchmarks.curve --data sample
python -m benchmarks.curve --data photos --backbone squeezenet1_1 --weights FILE --seeds 0 1 2
python -m benchmarks.curve --data sample --counts 2 4        other numbers stay as they were measured
python -m benchmarks.curve --table        only draw the figure and write the table anew from the JSON files

A seed draws the images, the same for both models, and the start of the weights. With fewer images there are more passes
through them, so that the network from scratch always gets the same number of steps. Both choose their best epoch on the
whole validation split: a real user of ten images has none so large.
"""

import argparse
import json
import random
from dataclasses import replace
from datetime import date
from math import inf
from pathlib import Path
from statistics import mean

import numpy

from helpers.data import Splits, load_splits
from helpers.plots import curve_with_spread
from helpers.runs import train_scratch, train_transfer, write_json
from helpers.settings import Setting, choose_setting, environment

from .pages import RESULTS, ROOT, note, parser_of_settings, write_table

COUNTS = (2, 4, 10, 20, 40, 100, 200, 400)
NAMES = {"scratch": "from scratch", "transfer": "transferred"}


def main() -> None:
    """Measure one setting (unless --table), draw it and write the table."""
    parser = parser_of_settings("Measure accuracy over the number of training images.", seeds=[0, 1, 2])
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="of training images")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    for file in RESULTS.glob("curve_*.json"):
        draw(json.loads(file.read_text(encoding="utf-8"))).savefig(file.with_suffix(".png"), dpi=110)
    write_table(table(), command="benchmarks.curve")
    write_table(headline(), command="benchmarks.curve", pages=(ROOT / "README.md",))


def measure(options: argparse.Namespace) -> None:
    """Both models for each number of images and each seed; the file is written after each, others in it stay."""
    setting = choose_setting(options.data, backbone=options.backbone, weights=options.weights)
    file = RESULTS / f"curve_{Path(setting.name).name}.json"
    old = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() else []
    runs = {(run["seed"], run["images"]): run for run in old if run["backbone"] == setting.backbone}
    for seed in options.seeds:
        splits = load_splits(setting, seed=seed)
        for count in (count for count in options.counts if count <= len(splits.train)):
            about = {"environment": environment(), "date": date.today().isoformat()}
            runs[seed, count] = measure_one(splits, setting, count, seed=seed) | about
            print(runs[seed, count], flush=True)
            write_json(file, {"runs": [runs[key] for key in sorted(runs)]})


def measure_one(splits: Splits, setting: Setting, count: int, *, seed: int) -> dict:
    """The test accuracy of both models with so many training images."""
    few = replace(splits, train=draw_images(splits, count, seed=seed))
    more = len(splits.train) // count
    many_passes = replace(setting, scratch_passes=more * setting.scratch_passes)
    many_epochs = replace(setting, transfer_epochs=min(10, more) * setting.transfer_epochs)
    scratch = train_scratch(few, many_passes, seed=seed, report=lambda line: None)
    transfer = train_transfer(few, many_epochs, seed=seed, report=lambda line: None)
    return {
        "data": splits.name,
        "backbone": setting.backbone,
        "seed": seed,
        "images": count,
        "scratch": scratch.summary["test_accuracy"],
        "transfer": transfer.summary["test_accuracy"],
    }


def draw_images(splits: Splits, count: int, *, seed: int) -> list:
    """So many training images, as many of each class as can be."""
    chance = random.Random(seed)
    of_class = [[pair for pair in splits.train if pair[1] == label] for label in range(len(splits.classes))]
    shares = [count // len(of_class) + (i < count % len(of_class)) for i in range(len(of_class))]
    return [pair for part, share in zip(of_class, shares, strict=True) for pair in chance.sample(part, share)]


def accuracies(runs: list[dict]) -> dict[str, dict[int, list[float]]]:
    """Model to number of images to the accuracy of each seed."""
    counts = sorted({run["images"] for run in runs})
    return {
        model: {count: [run[model] for run in runs if run["images"] == count] for count in counts} for model in NAMES
    }


def draw(content: dict):
    """The curve as a figure."""
    series = {NAMES[model]: values for model, values in accuracies(content["runs"]).items()}
    title = f"Accuracy over the number of training images ({content['runs'][0]['data']})"
    return curve_with_spread(series, title=title, x="training images", y="test accuracy")


def table() -> str:
    """All JSON files of this benchmark as Markdown: a row for each number of images."""
    lines = ["| images | training images | from scratch | transferred |", "|---|---|---|---|"]
    notes = []
    for file in sorted(RESULTS.glob("curve_*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        found = accuracies(content["runs"])
        name = f"`{content['runs'][0]['data']}`"
        for count in found["scratch"]:
            lines.append(f"| {name} | {count:,} | {cell(found['scratch'][count])} | {cell(found['transfer'][count])} |")
        notes += dict.fromkeys(note(file, content | {"runs": [run]}) for run in content["runs"])
        notes += readings(content["runs"])
    return "\n".join([*lines, "", *notes, ""])


def headline() -> str:
    """How the sample's curve is read, for the course's first page."""
    content = json.loads((RESULTS / "curve_sample.json").read_text(encoding="utf-8"))
    return "\n".join([*readings(content["runs"]), ""])


def readings(runs: list[dict]) -> list[str]:
    """For few images: with how many from scratch the other network is as good, in each draw."""
    lines = []
    for count in sorted({10, 20, 40} & {run["images"] for run in runs}):
        needed = []
        for one in (run for run in runs if run["images"] == count):
            curve = {run["images"]: run["scratch"] for run in runs if run["seed"] == one["seed"]}
            needed.append(images_needed(one["transfer"], curve))
        most = "more than all" if max(needed) == inf else f"{max(needed):.0f}"
        least = "more than all" if min(needed) == inf else f"{min(needed):.0f}"
        lines.append(f"- {count} images transferred do as well as {least} to {most} from scratch, by the draw.")
    return lines


def images_needed(level: float, curve: dict[int, float]) -> float:
    """The number of images at which a curve (images to accuracy) reaches a level, on a log scale; inf if nowhere."""
    sizes = sorted(curve)
    heights = numpy.maximum.accumulate([curve[size] for size in sizes])
    return inf if level > heights[-1] else float(numpy.exp(numpy.interp(level, heights, numpy.log(sizes))))


def cell(values: list[float]) -> str:
    """Mean, lowest and highest."""
    return f"{mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"


if __name__ == "__main__":
    main()
