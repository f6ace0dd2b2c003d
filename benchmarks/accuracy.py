"""Measure both models over several seeds, and the fine-tuned one on demand, and write `results/`.

python -m benchmarks.accuracy --data sample --seeds 0 1 2 3 4
python -m benchmarks.accuracy --data photos --backbone squeezenet1_1 --weights FILE --seeds 0 1 2
python -m benchmarks.accuracy --only fine-tune --seeds 3   one model; what else was measured stays as it was
python -m benchmarks.accuracy --table        only write the table anew from the JSON files
"""

import argparse
import json
from datetime import date
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from helpers import transfer
from helpers.data import load_splits
from helpers.runs import COMPARED, RECIPES, comparison, write_json
from helpers.settings import choose_setting

from .pages import (
    RESULTS,
    ROOT,
    accuracy_cell,
    file_of,
    images_cell,
    parser_of_settings,
    refuse_mixture,
    results_table,
    write_table,
)

NAMES = {"scratch": "SmallCNN from scratch", "transfer": "{} transferred", "fine-tune": "{} fine-tuned"}


def main() -> None:
    """Measure one setting (unless --table) and write the table."""
    parser = parser_of_settings("Measure both models over several seeds.", seeds=[0, 1, 2, 3, 4])
    parser.add_argument("--only", choices=RECIPES, help="measure one model, and keep what was measured of the others")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    write_table(table(), command="benchmarks.accuracy", pages=(RESULTS / "README.md", ROOT / "README.md"))


def measure(options: argparse.Namespace) -> None:
    """Both models for each seed; the file is written after each, so that a stopped run loses little."""
    setting = choose_setting(options.data, backbone=options.backbone, weights=options.weights)
    file = file_of("accuracy", setting)
    old = json.loads(file.read_text(encoding="utf-8"))["runs"] if options.only and file.exists() else []
    comparisons = {run["seed"]: run for run in old}
    for run in old:
        refuse_mixture(run["environment"], file)
    for seed in options.seeds:
        splits = load_splits(setting, seed=seed)
        print(f"seed {seed}")
        with TemporaryDirectory() as empty:  # so that each seed pays for its features
            transfer.FEATURES = Path(empty)
            names = [options.only] if options.only else COMPARED
            runs = {name: RECIPES[name](splits, setting, seed=seed) for name in names}
        new = comparison(runs, splits, seed=seed)
        comparisons[seed] = new | {"models": comparisons.get(seed, {}).get("models", {}) | new["models"]}
        runs_by_seed = [comparisons[seed] for seed in sorted(comparisons)]
        write_json(file, {"date": date.today().isoformat(), "runs": runs_by_seed})


def table() -> str:
    """All JSON files of this benchmark as Markdown: a row for each model."""
    header = (
        "| images | model | seeds | test accuracy ± standard deviation (lowest to highest) | log loss "
        "| trained parameters | epochs | training time, median |"
    )
    return results_table("accuracy_*.json", header, row, tuple(RECIPES), weights)


def weights(run: dict) -> str:
    """Where the transferred network comes from, if there is one."""
    return f" Weights: {run['models']['transfer']['weights']}." if "transfer" in run["models"] else ""


def row(runs: list[dict], model: str) -> str:
    """One model over all seeds that it was measured with; nothing without one."""
    runs = [run for run in runs if model in run["models"]]
    if not runs:
        return ""
    results = [run["models"][model] for run in runs]
    first, seconds = results[0], sorted(result["train_seconds"] for result in results)
    name = NAMES[model].format(first.get("backbone"))
    return (
        f"| {images_cell(runs[0]['data'])} | {name} | {', '.join(str(run['seed']) for run in runs)} "
        f"| {accuracy_cell([result['test_accuracy'] for result in results], mark='**')} "
        f"| {mean(result['test_log_loss'] for result in results):.3f} | {first['trainable_parameters']:,} "
        f"| {first['epochs']} | {seconds[len(seconds) // 2]:.0f} s |"
    )


if __name__ == "__main__":
    main()
