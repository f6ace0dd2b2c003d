"""Measure what each part of the transfer recipe gives and costs, over several seeds; write `results/`.

python -m benchmarks.recipes --data sample
python -m benchmarks.recipes --data photos --backbone squeezenet1_1 --weights FILE
python -m benchmarks.recipes --only 7 9      only some rows of the table, counted from 0; the others stay as they were
python -m benchmarks.recipes --table        only write the table anew from the JSON files

A choice is made on the validation images; the test accuracy stands beside it. Both are those of the answers that the
recipe gives, averaged over two views where it asks about two. Seconds are those of the features and the training of the
head with the first seed. The other seeds find most features there: only the splits differ.
"""

import argparse
import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from unittest.mock import patch

from torchvision.transforms import v2

from helpers import transfer
from helpers.data import EvalTransform, load_splits
from helpers.runs import train_transfer, write_json
from helpers.settings import Setting, choose_setting, environment
from helpers.transfer import ALL, MIRRORED, PLAIN, TRANSFER_RECIPES, TransferRecipe

from .pages import RESULTS, file_of, note, parser_of_settings, write_table

MIDDLE = "linear head, all views, only the middle"
SMALL_IMAGES = "the course's choice, images as small as for the network from scratch"
CHOSEN = " (the course's choice)"


def recipes(setting: Setting) -> dict[str, tuple[TransferRecipe, int, str]]:
    """What is compared, by name: the recipe, the images' side in pixels, the precision."""
    chosen, size = TRANSFER_RECIPES[setting.backbone], setting.transfer_size
    if setting.backbone not in TRANSFER_RECIPES:  # its recipe is that of all others, but for views and rate
        views = {"one view": PLAIN, "flipped images too, two answers averaged": MIRRORED}
        candidates = {
            f"linear head, {text}, learning rate {rate:g}": replace(chosen, views=v, test_views=v, learning_rate=rate)
            for text, v in views.items()
            for rate in (3e-4, 1e-3, 3e-3)
        }
        found = {name + CHOSEN * (one == chosen): (one, size, "fast") for name, one in candidates.items()}
        return found | {SMALL_IMAGES: (chosen, setting.scratch_size, "fast")}
    full = 3e-4 if setting.backbone.startswith("vgg16") else 3e-3
    all_views = TransferRecipe("linear", ALL, 3e-3)
    candidates = {
        "the published classifier, its last layer new": TransferRecipe("full", PLAIN, full),
        "the published classifier, flipped images too": TransferRecipe("full", MIRRORED, full),
        "linear head on averages and maxima": TransferRecipe("linear", PLAIN, 3e-3),
        "linear head, flipped images too": TransferRecipe("linear", MIRRORED, 3e-3),
        "linear head, all views: flipped and zoomed too": all_views,
        "linear head, all views, two answers averaged": replace(all_views, test_views=MIRRORED),
    }
    found = {name + CHOSEN * (one == chosen): (one, size, "fast") for name, one in candidates.items()}
    found[MIDDLE] = (all_views, size, "fast")
    found["linear head, all views, 7/8 of the size"] = (all_views, size * 7 // 8, "fast")
    found["the course's choice, exact in float32"] = (chosen, size, "float32")
    return found | ({SMALL_IMAGES: (chosen, setting.scratch_size, "fast")} if size > setting.scratch_size else {})


def main() -> None:
    """Measure one setting (unless --table) and write the table."""
    parser = parser_of_settings("Measure what each part of the transfer recipe gives and costs.", seeds=[0, 1, 2, 3, 4])
    parser.add_argument("--only", type=int, nargs="+", help="rows of the table, counted from 0")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    write_table(table(), command="benchmarks.recipes")


def measure(options: argparse.Namespace) -> None:
    """Every recipe for each seed; the file is written after each, so that a stopped run loses little."""
    setting = choose_setting(options.data, backbone=options.backbone, weights=options.weights)
    file = file_of("recipes", setting)
    earlier = json.loads(file.read_text(encoding="utf-8"))["runs"] if options.only and file.exists() else []
    runs = {run["seed"]: run for run in earlier}
    with TemporaryDirectory() as stores:
        for seed in options.seeds:
            run = measure_seed(setting, seed, Path(stores), options.only)
            found = runs.get(seed, run)["recipes"] | run["recipes"]
            run["recipes"] = {name: found[name] for name in recipes(setting) if name in found}
            runs[seed] = run
            write_json(file, {"date": date.today().isoformat(), "runs": [runs[seed] for seed in sorted(runs)]})


def measure_seed(setting: Setting, seed: int, stores: Path, only: list[int] | None = None) -> dict:
    """Every recipe on the splits of one seed; each recipe keeps its features in a store of its own."""
    splits, results = load_splits(setting, seed=seed), {}
    for number, (name, (recipe, size, precision)) in enumerate(recipes(setting).items()):
        if only and number not in only:
            continue
        own = replace(setting, transfer_size=size, precision=precision)
        transfer.FEATURES = stores / str(number)
        with patch.object(transfer, "EvalTransform", Middle if name == MIDDLE else EvalTransform):
            run = train_transfer(splits, own, recipe=recipe, seed=seed, report=lambda line: None)
        results[name] = {
            "validation_accuracy": run.validation.accuracy,
            "validation_loss": run.validation.log_loss,
            "test_accuracy": run.test.accuracy,
            "seconds": round(run.history.seconds, 2),
        }
        print(seed, name, results[name], flush=True)
    about = {"data": {"name": splits.name, **splits.sizes}, "backbone": setting.backbone, "seed": seed}
    return {**about, "environment": environment(), "recipes": results}


class Middle(EvalTransform):
    """For comparison: the middle of the image is cut out, where the course squeezes the whole of it."""

    def __init__(self, size: int, *more):
        super().__init__(size, *more[:2])  # mean and standard deviation; the key has a word behind them
        self.transforms[1] = v2.Compose([v2.Resize(size), v2.CenterCrop(size)])
        self.key += ("middle",)


def table() -> str:
    """All JSON files of this benchmark as Markdown: a table for each, with a row for each recipe."""
    files = {file: json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("recipes_*.json"))}
    tables = [table_of(content["runs"]) for content in files.values()]
    return "\n".join([*tables, *(note(file, content) for file, content in files.items()), ""])


def table_of(runs: list[dict]) -> str:
    """One setting: what was measured, and a row for each recipe."""
    sizes, seeds = runs[0]["data"], ", ".join(str(run["seed"]) for run in runs)
    images = f"{sizes['train']:,} / {sizes['validation']:,} / {sizes['test']:,}"
    lines = [
        f"`{sizes['name']}`, {images} images, {runs[0]['backbone']}, seeds {seeds}:",
        "",
        "| recipe | validation accuracy ± standard deviation | validation loss "
        "| test accuracy ± standard deviation | seconds |",
        "|---|---|---|---|---|",
        *(row([run["recipes"][name] for run in runs], name) for name in runs[0]["recipes"]),
        "",
    ]
    return "\n".join(lines)


def row(results: list[dict], name: str) -> str:
    """One recipe over all seeds."""

    def spread(key: str) -> str:
        values = [one[key] for one in results]
        return f"{mean(values):.1%}" + (f" ± {stdev(values):.1%}" if len(values) > 1 else "")

    return (
        f"| {name} | {spread('validation_accuracy')} | {mean(one['validation_loss'] for one in results):.3f} "
        f"| {spread('test_accuracy')} | {results[0]['seconds']:.1f} |"
    )


if __name__ == "__main__":
    main()
