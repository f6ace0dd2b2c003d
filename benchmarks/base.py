"""Measure VGG16's base against what this device's own matrix product allows; write `results/`.

python -m benchmarks.base                   on the best device there is
python -m benchmarks.base --table           only write the table anew from the JSON files

The limit is the rate of a product of two square matrices in the same precision, in 8 bits without the rounding. The
rate of the base counts its multiplications and additions, two for each multiply-add of `helpers.costs`, on images of
224 pixels a side. The two are measured in turns; the best of each is what the device can do when nothing else disturbs
it.
"""

import argparse
import json
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from statistics import median

import torch
from torch import nn

from helpers.costs import layer_costs
from helpers.features import forward
from helpers.models import VGG16, split_model
from helpers.precision import choose_precision, to_device
from helpers.quantization import Int8Conv2d, in_steps, int8_is_exact, quantize
from helpers.runs import write_json
from helpers.settings import best_device, environment

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
    """float32, the fast precision, and 8 bits on a CPU that has them, as one JSON file named after the device."""
    batch = 256 if device.type == "cuda" else 32
    base, _ = split_model(VGG16())
    base.to(device, memory_format=torch.channels_last).eval()
    images = to_device(torch.randn(batch, 3, 224, 224), device)
    # Two operations for each multiply-add.
    operations = 2 * sum(cost.multiply_adds for cost in layer_costs(base))
    content = {"date": date.today().isoformat(), "environment": environment(), "batch": batch}
    content |= {"operations_per_image": operations, "precisions": {}}
    for dtype in dtypes(device):
        network = quantize(base) if dtype == torch.int8 else base
        precision = "float32" if dtype == torch.float32 else "fast"
        matrix_products = {side: matrix_product(side, dtype, device) for side in SIDES}
        work = partial(forward, network, images, views=("plain",), precision=precision, device=device)
        products, bases = [], []
        for _ in range(ROUNDS):
            products += [2 * side**3 / seconds(product, device) for side, product in matrix_products.items()]
            bases.append(batch * operations / seconds(work, device))
        rates = {"matrix_product": max(products), "base": max(bases), "base_median": median(bases)}
        content["precisions"][str(dtype).removeprefix("torch.")] = rates
        print(dtype, rates, flush=True)
    where = content["environment"]
    name = where["cpu"] if device.type == "cpu" else where["device"]
    write_json(RESULTS / f"base_{'_'.join(name.split())}.json", content)


def matrix_product(side: int, dtype: torch.dtype, device: torch.device) -> Callable:
    """The product of two square matrices; in 8 bits as a convolution with a kernel of one pixel, which is one."""
    matrix = torch.ones(side, side, device=device)
    if dtype != torch.int8:
        return partial(torch.mm, matrix.to(dtype), matrix.to(dtype))
    layer = nn.utils.skip_init(nn.Conv2d, side, side, kernel_size=1, bias=False)
    layer.weight = nn.Parameter(matrix[:, :, None, None])
    maps = matrix.reshape(1, side // 32, 32, side).permute(0, 3, 1, 2)  # channels last in memory
    return torch.inference_mode()(partial(Int8Conv2d(layer, relu=False).convolve, *in_steps(maps)))


def dtypes(device: torch.device) -> list[torch.dtype]:
    """What is measured on a device."""
    found = [torch.float32, choose_precision(device, "fast") or torch.float32]
    if device.type == "cpu" and int8_is_exact():
        found.append(torch.int8)
    return list(dict.fromkeys(found))


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
