"""Time two processes of one thread against one process of two threads on this machine; write `results/`.

python -m benchmarks.scaling --rounds 3
python -m benchmarks.scaling --data photos --backbone squeezenet1_1 --weights FILE --images 1000 5000 25000
python -m benchmarks.scaling --table        only write the table anew from the JSON files

Each way is the course's own command, from its start to its end; the ways take turns, and ratios are taken within a
round. `train transfer` computes features anew and trains a head; `train fine-tune` goes on from the features that are
there. Memory is what all processes hold, and what they share counts once. With `--images` the training images are
repeated up to so many, for `train transfer` on two processes: does memory grow? It needs Linux.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from datetime import date
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil

from helpers.data import load_splits
from helpers.runs import write_json
from helpers.settings import choose_setting, environment

from .pages import RESULTS, note, parser_of_settings, write_table

# Processes and threads of each.
WAYS = {"one process, one thread": (1, 1), "one process, two threads": (1, 2), "two processes, one thread": (2, 1)}
FIRST = "one process, two threads"


def main() -> None:
    """Measure (unless --table) and write the table."""
    parser = parser_of_settings("Time two processes against one.", seeds=[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, nargs="+", default=[], help="numbers of images to repeat the data to")
    options = parser.parse_args()
    if options.images:
        measure_growth(options)
    elif not options.table:
        measure(options)
    write_table(table(), command="benchmarks.scaling")


def measure(options: argparse.Namespace) -> None:
    """All ways, round by round; the file is written after each round."""
    content = {"date": date.today().isoformat(), "environment": environment(), "runs": []}
    content["data"] = options.data
    for number in range(options.rounds):
        for name, way in WAYS.items():
            with TemporaryDirectory() as cache:
                features = command("transfer", way, options, cache)
                tuned = command("fine-tune", way, options, cache)
            busy = round(os.getloadavg()[0], 1)
            content["runs"].append(
                {"round": number, "way": name, "load": busy, "transfer": features, "fine-tune": tuned}
            )
            print(content["runs"][-1], flush=True)
        write_json(RESULTS / "scaling.json", content)


def command(
    recipe: str, way: tuple[int, int], options: argparse.Namespace, cache: str, data: str | None = None
) -> dict:
    """Seconds and highest memory of one command with so many processes and threads of each."""
    processes, threads = way
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] * (processes > 1)
    chosen = ["--data", data or options.data, "--out", f"{cache}/{recipe}"]
    chosen += ["--backbone", options.backbone] if options.backbone else []
    chosen += ["--weights", options.weights] if options.weights else []
    line = [sys.executable, *launch, "-m", "helpers", "train", recipe, *chosen]
    own = {"OMP_NUM_THREADS": str(threads), "COURSE_CACHE": cache}
    start, highest = time.perf_counter(), 0
    with subprocess.Popen(line, env=os.environ | own, stdout=subprocess.DEVNULL) as process:
        while process.returncode is None:
            highest = max(highest, memory(process.pid))
            with suppress(subprocess.TimeoutExpired):
                process.wait(1)  # a look takes a while itself
    if process.returncode:
        raise SystemExit(f"{' '.join(line)} ended with {process.returncode}")
    return {"seconds": round(time.perf_counter() - start, 2), "megabytes": round(highest / 1e6)}


def memory(pid: int) -> int:
    """Bytes that a process and all that it has started hold; what they share counts once."""
    total = 0
    with suppress(psutil.Error, OSError):  # one has just ended
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            total += process.memory_full_info().pss
    return total


def measure_growth(options: argparse.Namespace) -> None:
    """The features of more and more images; other numbers of them stay as they were measured."""
    splits, file = load_splits(choose_setting(options.data)), RESULTS / "scaling_growth.json"
    runs = {run["images"]: run for run in json.loads(file.read_text(encoding="utf-8"))["runs"]} if file.exists() else {}
    for count in options.images:
        with TemporaryDirectory() as folder:
            repeat(splits, count, Path(folder, "images"))
            found = command("transfer", (2, 1), options, folder, f"{folder}/images")
        about = {"date": date.today().isoformat(), "environment": environment() | {"threads": 1}, "data": options.data}
        runs[count] = {"images": count} | found | about
        print(runs[count], flush=True)
        write_json(file, {"runs": [runs[number] for number in sorted(runs)]})


def repeat(splits, count: int, folder: Path) -> None:
    """So many copies of the training images, a tenth each for validation and test.

    Each has its number behind the end of its pixels: one and the same file would not be computed twice.
    """
    for number in range(count):
        split = {0: "val", 1: "test"}.get(number // len(splits.train) % 10, "train")
        path, label = splits.train[number % len(splits.train)]
        copy = folder / split / splits.classes[label] / f"{number}{path.suffix}"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes() + str(number).encode())


def table() -> str:
    """Both JSON files as Markdown."""
    lines, notes = [], []
    if (file := RESULTS / "scaling.json").exists():
        content = json.loads(file.read_text(encoding="utf-8"))
        header = "| way | `train transfer` | times as long | memory | `train fine-tune` | times as long | memory |"
        lines += [header, "|" + "---|" * (header.count("|") - 1)]
        lines += [
            f"| {name} | {cells(content['runs'], name, 'transfer')} | {cells(content['runs'], name, 'fine-tune')} |"
            for name in WAYS
        ]
        loads = [run["load"] for run in content["runs"]]
        notes.append(
            note(file, content | {"runs": [content]}) + f" {len(content['runs']) // len(WAYS)} rounds on "
            f"`{content['data']}`; others used the machine too (load {min(loads)} to {max(loads)})."
        )
    if (file := RESULTS / "scaling_growth.json").exists():
        content = json.loads(file.read_text(encoding="utf-8"))
        header = "| images | `train transfer` on two processes | memory |"
        lines += ["", header, "|---|---|---|"]
        lines += [
            f"| {run['images']:,} | {run['seconds']:,.0f} s | {run['megabytes']:,} MB |" for run in content["runs"]
        ]
        notes += dict.fromkeys(note(file, run | {"runs": [run]}) for run in content["runs"])
    return "\n".join([*lines, "", *notes, ""])


def cells(runs: list[dict], way: str, recipe: str) -> str:
    """Median seconds, the ratio to one process of two threads, and the highest memory of one way."""
    own = [run[recipe] for run in runs if run["way"] == way]
    ratios = sorted(
        run[recipe]["seconds"] / other[recipe]["seconds"]
        for run in runs
        for other in runs
        if (run["round"], run["way"], other["way"]) == (other["round"], way, FIRST)
    )
    ratio = f"{median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return f"{median(run['seconds'] for run in own):.0f} s | {ratio} | {max(run['megabytes'] for run in own):,} MB"


if __name__ == "__main__":
    main()
