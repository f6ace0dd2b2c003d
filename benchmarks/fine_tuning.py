"""Measure a frozen head and what fine-tuning adds to it, over several seeds, and write `results/`.

python -m benchmarks.fine_tuning --data sample --seeds 0 1 2
python -m benchmarks.fine_tuning --data photos --backbone squeezenet1_1 --weights FILE --seeds 0 1 2
    --epochs 8 --blocks 4 --average 0.995
python -m benchmarks.fine_tuning --table        only write the table anew from the JSON files
"""

import argparse
from dataclasses import replace
from datetime import date
from statistics import mean

from helpers.data import Splits, load_splits, make_loaders
from helpers.models import blocks, count_parameters, freeze_batch_norm, unfreeze
from helpers.runs import Run, train_transfer, write_json
from helpers.settings import Setting, choose_setting, environment
from helpers.training import evaluate, fit, learning_rates_by_block
from helpers.transfer import PLAIN, TRANSFER_RECIPES

from .pages import accuracy_cell, file_of, images_cell, parser_of_settings, results_table, write_table

STAGES = {"frozen_head": "head on a frozen base", "fine_tuned": "then fine-tuned"}


def main() -> None:
    """Measure one setting (unless --table) and write the table."""
    options = read_options()
    if not options.table:
        measure(options)
    write_table(table(), command="benchmarks.fine_tuning")


def measure(options: argparse.Namespace) -> None:
    """Both stages for each seed; the file is written after each, so that a stopped run loses little."""
    setting = choose_setting(options.data, backbone=options.backbone, weights=options.weights)
    file, runs = file_of("fine_tuning", setting), []
    for seed in options.seeds:
        print(f"seed {seed}")
        runs.append(measure_seed(load_splits(setting, seed=seed), setting, options, seed=seed))
        write_json(file, {"date": date.today().isoformat(), "runs": runs})


def read_options() -> argparse.Namespace:
    """The command line; data, backbone and weights as in `python -m helpers compare`."""
    parser = parser_of_settings("Measure fine-tuning after a frozen head over several seeds.", seeds=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10, help="epochs of fine-tuning, after those of the head")
    parser.add_argument("--blocks", type=int, help="how many of the last blocks to unfreeze (default: all)")
    parser.add_argument("--rate", type=float, default=2e-4, help="learning rate of the head")
    parser.add_argument("--factor", type=float, default=0.5, help="from each part to the one before it")
    parser.add_argument("--average", type=float, help="keep a moving average of the last epoch's weights, as in `fit`")
    return parser.parse_args()


def measure_seed(splits: Splits, setting: Setting, options: argparse.Namespace, *, seed: int) -> dict:
    """The head on a frozen base, then fine-tuning from there: what one seed gives."""
    recipe = replace(TRANSFER_RECIPES[setting.backbone], test_views=PLAIN)  # both stages are asked once
    run = train_transfer(splits, setting, recipe=recipe, seed=seed)
    last_blocks = len(blocks(run.model)) if options.blocks is None else options.blocks
    tuned = fine_tune(run, splits, options, last_blocks=last_blocks, seed=seed)
    about = {"blocks": last_blocks, "head_rate": options.rate, "factor": options.factor, "average": options.average}
    return {
        "data": {"name": splits.name, "classes": splits.classes, **splits.sizes},
        "frozen_head": run.summary,
        "fine_tuned": tuned,
        "recipe": about,
        "seed": seed,
        "environment": environment(),
    }


def fine_tune(run: Run, splits: Splits, options: argparse.Namespace, *, last_blocks: int, seed: int) -> dict:
    """Unfreeze the last blocks, hold batch norm still, train at a rate for each block, and test once."""
    model = freeze_batch_norm(unfreeze(run.model, last_blocks))
    rates = learning_rates_by_block(model, head=options.rate, factor=options.factor)
    train_loader, validation_loader, test_loader = make_loaders(splits, run.about["image_size"])
    epochs = {"epochs": options.epochs, "average": options.average}
    history = fit(model, train_loader, validation_loader, **epochs, learning_rate=rates, seed=seed)
    test = evaluate(model, test_loader)
    print(f"fine-tuned: {test}")
    return {
        "test_accuracy": test.accuracy,
        "test_log_loss": test.log_loss,
        "trainable_parameters": count_parameters(model, trainable_only=True),
        "epochs": len(history.rows),
        "best_epoch": history.best_epoch,
        "train_seconds": round(history.seconds, 2),
    }


def table() -> str:
    """All JSON files of this benchmark as Markdown: a row for each stage."""
    header = (
        "| images | network | stage | seeds | test accuracy ± standard deviation (lowest to highest) | log loss "
        "| trained parameters | epochs | training time, median |"
    )
    return results_table("fine_tuning_*.json", header, row, tuple(STAGES))


def row(runs: list[dict], stage: str) -> str:
    """One stage over all seeds."""
    results, recipe = [run[stage] for run in runs], runs[0]["recipe"]
    seconds = sorted(result["train_seconds"] for result in results)
    unfrozen = f" ({recipe['blocks']} blocks, head {recipe['head_rate']:g}, factor {recipe['factor']:g}"
    unfrozen += f", average {recipe['average']:g}, last epoch)" if recipe.get("average") else ")"
    return (
        f"| {images_cell(runs[0]['data'])} | {runs[0]['frozen_head']['backbone']} "
        f"| {STAGES[stage]}{unfrozen if stage == 'fine_tuned' else ''} "
        f"| {', '.join(str(run['seed']) for run in runs)} "
        f"| {accuracy_cell([result['test_accuracy'] for result in results], mark='**')} "
        f"| {mean(result['test_log_loss'] for result in results):.3f} | {results[0]['trainable_parameters']:,} "
        f"| {results[0]['epochs']} | {seconds[len(seconds) // 2]:.0f} s |"
    )


if __name__ == "__main__":
    main()
