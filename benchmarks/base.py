"""Measure VGG16's base against what this device's own matrix product allows; write `results/`.

python -m benchmarks.base                   on the best device there is
python -m benchmarks.base --table           only write the table anew from the JSON files

The limit is the rate of a product of two square matrices in the same precision. The rate of the base counts its
multiplications and additions, two for each multiply-add of `helpers.costs`, on images of 224 pixels a side. The two are
measured in turns; the best of each is what the device can do when nothing else disturbs it.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from statistics import median

import torch

from helpers.costs import layer_costs
from helpers.models import VGG16, split_model
from helpers.runs import write_json
from helpers.settings import best_device, choose_precision, environment
from helpers.training import to_device
from helpers.transfer import forward

from .pages import RESULTS, note, write_table

ROUNDS = 9
SIDES = (1024, 2048, 4096)  # of the matrices


def main() -> None:
    """Measure this device (unless --table) and write the table."""
    parser = argparse.ArgumentParser(description="Measure VGG16's base against the device's own matrix product.")
    parser.add_argument("--table", action="store_true")
    if not parser.parse_args().table:
        measure(best_device())
    write_table(table(), command="benchmarks.base")


def measure(device: torch.device) -> None:
    """float32 and the fast precision, as one JSON file named after the device."""
    batch = 256 if device.type == "cuda" else 32
    base, _ = split_model(VGG16())
    base.to(device, memory_format=torch.channels_last).eval()
    images = to_device(torch.randn(batch, 3, 224, 224), device)
    # Two operations for each multiply-add.
    operations = 2 * sum(cost.multiply_adds for cost in layer_costs(base))
    content = {"date": date.today().isoformat(), "environment": environment(), "batch": batch}
    content |= {"operations_per_image": operations, "precisions": {}}
    for precision in dict.fromkeys(["float32", choose_precision(device)]):
        matrices = {side: torch.ones(side, side, device=device, dtype=getattr(torch, precision)) for side in SIDES}
        matrix_products = {side: partial(torch.mm, matrix, matrix) for side, matrix in matrices.items()}
        work = partial(forward, base, images, views=("plain",), precision=precision, device=device)
        products, bases = [], []
        for _ in range(ROUNDS):
            products += [2 * side**3 / seconds(product, device) for side, product in matrix_products.items()]
            bases.append(batch * operations / seconds(work, device))
        rates = {"matrix_product": max(products), "base": max(bases), "base_median": median(bases)}
        content["precisions"][precision] = rates
        print(precision, rates, flush=True)
    where = content["environment"]
    name = where["cpu"] if device.type == "cpu" else where["device"]
    write_json(RESULTS / f"base_{re.sub(r'[^A-Za-z0-9]+', '_', name).strip('_')}.json", content)


def seconds(work: Callable, device: torch.device) -> float:
    """How long `work` takes; a GPU is waited for."""
    wait(device)
    start = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - start


def wait(device: torch.device) -> None:
    """Until the GPU has done all that it was given; a CPU has."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def table() -> str:
    """All JSON files as Markdown: a row for each device and precision."""
    header = "| device | precision | matrix product, best | VGG16's base, best (median) | share of the limit |"
    lines, notes = [header, "|" + "---|" * (header.count("|") - 1)], []
    for file in sorted(RESULTS.glob("base_*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        lines += [row(content, precision) for precision in content["precisions"]]
        notes.append(note(file, {"date": content["date"], "runs": [content]}))
    return "\n".join([*lines, "", *notes, ""])


def row(content: dict, precision: str) -> str:
    """One precision on one device."""
    rates, where = content["precisions"][precision], content["environment"]
    best, usual = (rates[name] / content["operations_per_image"] for name in ("base", "base_median"))
    return (
        f"| {where['cpu'] if where['device'] == 'cpu' else where['device']} | {precision} "
        f"| {rates['matrix_product'] / 1e12:.2f} TFLOP/s | {best:,.1f} ({usual:,.1f}) images/s "
        f"| {rates['base'] / rates['matrix_product']:.0%} |"
    )


if __name__ == "__main__":
    main()
