"""Time this course against what else one would pick, from images to a tested classifier; write `results/`.

python -m benchmarks.contenders --network vgg16 --weights random --rounds 3 --images 300
python -m benchmarks.contenders --network squeezenet1_1 --weights FILE --rounds 5
python -m benchmarks.contenders --growth 500 1000 2000 4000 8000 --network squeezenet1_1 --weights FILE
python -m benchmarks.contenders --table        only write tables and figures anew from the JSON files

Each contender is a process of its own, from its start to its end; they take turns. Keras and fastai get a virtual
environment each, `.venv-keras` and `.venv-fastai`, made at first use. All see the same splits, cut anew by each round's
seed. Memory is what the process and its workers hold, without the files that they map; what they share counts once.
A look holds the process up, so looks are rare enough to take a fiftieth of the time, and a short peak may be missed.
It needs Linux.
"""

import argparse
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from itertools import cycle, islice
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy
import psutil

from helpers.data import Splits, load_splits
from helpers.plots import BLUE, GREY, ORANGE, tidy
from helpers.runs import write_json
from helpers.settings import choose_setting, environment

from ..pages import RESULTS, ROOT, note, write_table

HERE = Path(__file__).parent
CONTENDERS = {
    "ours": "this course",
    "ours_one_view": "this course, one view of each",
    "plain_recipe": "plain recipe, 5 epochs",
    "with_keras": "Keras, stored features",
    "with_fastai": "fastai, 3 epochs",
}
# What runs in a virtual environment of its own. Keras and fastai bring their own bounds on torch.
PACKAGES = {"with_keras": ["keras", "torch", "torchvision"], "with_fastai": ["fastai", "safetensors"]}
LABELS = {"vgg16": "VGG16, random weights", "squeezenet1_1": "SqueezeNet 1.1, ImageNet weights"}
SPLIT_FOLDERS = {"train": "train", "validation": "val", "test": "test"}


def main() -> None:
    """Measure (unless --table), then write the tables and the figures."""
    options = read_options()
    if options.growth:
        measure_growth(options)
    elif not options.table:
        measure(options)
    write_table(table(), command="benchmarks.contenders")
    draw_contenders(load("contenders_*.json")).savefig(RESULTS / "contenders.png", dpi=110)
    if growth := load("growth.json"):
        draw_growth(growth[0]).savefig(RESULTS / "growth.png", dpi=110)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time this course against what else one would pick.")
    parser.add_argument("--data", default="photos")
    parser.add_argument("--network", default="vgg16", choices=LABELS)
    parser.add_argument("--weights", default="random")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, help="how many, over all splits (default: all)")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--growth", type=int, nargs="+", help="numbers of images; times this course alone")
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


# ------------------------------------------------------------------------------------- measure


def measure(options: argparse.Namespace) -> None:
    """All contenders, round by round; the file is written after each run, so that a stopped one loses little."""
    setting = choose_setting(options.data)
    names = [name for name in options.only if (name, options.network) != ("with_keras", "squeezenet1_1")]
    pythons = {name: interpreter(name) for name in names}
    content = {"date": date.today().isoformat(), "environment": environment(), "network": options.network}
    content |= {"versions": {name: versions(python) for name, python in pythons.items()}, "runs": []}
    for seed in range(options.rounds):
        splits = load_splits(setting, seed=seed)
        total = sum(len(getattr(splits, split)) for split in SPLIT_FOLDERS)
        with TemporaryDirectory() as folder:
            sizes = copy_splits(splits, Path(folder), share=(options.images or total) / total)
            file = RESULTS / f"contenders_{options.network}_{sum(sizes.values())}.json"
            content["runs"] = content["runs"] or runs_of_others(file, names)
            for name, python in pythons.items():
                result = run(command(python, name, folder, options, seed=seed))
                content["runs"].append({"contender": name, "seed": seed, "images": sizes, **result})
                print(content["runs"][-1], flush=True)
                write_json(file, content)


def runs_of_others(file: Path, names: list[str]) -> list[dict]:
    """The runs in an earlier file of contenders that are not measured now."""
    earlier = json.loads(file.read_text(encoding="utf-8"))["runs"] if file.exists() else []
    return [run for run in earlier if run["contender"] not in names]


def measure_growth(options: argparse.Namespace) -> None:
    """This course's command on more and more images."""
    splits = load_splits(choose_setting(options.data))
    images = sorted(splits.train + splits.validation + splits.test)
    images = [image for pair in zip(images[::2], reversed(images[1::2]), strict=False) for image in pair]
    content = {"date": date.today().isoformat(), "environment": environment(), "network": options.network, "runs": []}
    for count in options.growth:
        with TemporaryDirectory() as folder:
            repeat(images, splits.classes, count, Path(folder))
            result = run(command(sys.executable, "ours_one_view", folder, options, seed=0))
        content["runs"].append({"images": count, **result})
        print(content["runs"][-1], flush=True)
        write_json(RESULTS / "growth.json", content)


def copy_splits(splits: Splits, folder: Path, *, share: float) -> dict[str, int]:
    """Copy that share of each class of each split into `folder/train`, `val` and `test`; how many there are of each."""
    sizes = {}
    for split, name in SPLIT_FOLDERS.items():
        sizes[split] = 0
        for label, title in enumerate(splits.classes):
            paths = [path for path, image_label in getattr(splits, split) if image_label == label]
            (folder / name / title).mkdir(parents=True)
            for path in paths[: round(share * len(paths))]:
                shutil.copy(path, folder / name / title)
                sizes[split] += 1
    return sizes


def repeat(images: list, classes: list[str], count: int, folder: Path) -> None:
    """Write `count` images into class folders, the same ones again and again as far as needed.

    A few bytes after the end of the image make each file another one, so that no stored feature is found again.
    """
    for title in classes:
        (folder / title).mkdir()
    for number, (path, label) in enumerate(islice(cycle(images), count)):
        (folder / classes[label] / f"{number}.jpg").write_bytes(path.read_bytes() + b"%d" % number)


def command(python: str, name: str, folder: str, options: argparse.Namespace, *, seed: int) -> list[str]:
    """A contender's command line."""
    arguments = [folder, options.network, options.weights, str(seed)]
    if name.startswith("ours"):
        return [python, "-m", f"{__package__}.ours", *arguments, name.removeprefix("ours_")]
    return [python, str(HERE / f"{name}.py"), *arguments]


def interpreter(name: str) -> str:
    """The Python of a contender; its virtual environment is made if it is not there yet."""
    if name not in PACKAGES:
        return sys.executable
    folder = ROOT / f".venv-{name.removeprefix('with_')}"
    python = folder / "bin" / "python"
    if not python.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES[name]], check=True)
        except BaseException:  # Ctrl-C too: the next run must not take it for a whole one
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return str(python)


def versions(python: str) -> dict[str, str]:
    """The versions of the libraries that a contender runs on."""
    code = (
        "import importlib.metadata as m, json; names = {d.name: d.version for d in m.distributions()};"
        "print(json.dumps({n: names[n] for n in ('torch', 'torchvision', 'keras', 'fastai') if n in names}))"
    )
    return json.loads(subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout)


def run(command: list[str]) -> dict:
    """Run a contender to its end: what it prints last, with wall-clock seconds and peak memory in megabytes."""
    start, peak = time.perf_counter(), [0]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        watcher = threading.Thread(target=watch_memory, args=(process, peak))
        watcher.start()
        output, _ = process.communicate()
        seconds = time.perf_counter() - start
        watcher.join()
    if process.returncode:
        sys.exit(f"{' '.join(command)} failed.")
    result = json.loads(output.splitlines()[-1])
    return {"seconds": round(seconds, 2), "peak_megabytes": round(peak[0] / 1e6), **result}


def watch_memory(process: subprocess.Popen, peak: list[int]) -> None:
    """Keep the largest sum seen of what the process and its children hold, in bytes."""
    parent = psutil.Process(process.pid)
    while process.poll() is None:
        start = time.perf_counter()
        with suppress(psutil.Error, OSError):  # one of them has just ended
            peak[0] = max(peak[0], sum(map(memory_held, [parent, *parent.children(recursive=True)])))
        time.sleep(max(0.5, 50 * (time.perf_counter() - start)))


def memory_held(process: psutil.Process) -> int:
    """The memory of a process in bytes, mapped files aside; of what n processes share, the nth part counts."""
    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    kilobytes = {name: int(size) for name, size, *_ in map(str.split, lines[1:])}
    return 1024 * (kilobytes["Pss_Anon:"] + kilobytes["Pss_Shmem:"])


# -------------------------------------------------------------------------------------- tables


def load(pattern: str) -> list[dict]:
    """The JSON files of that name."""
    return [json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob(pattern))]


def table() -> str:
    """All JSON files as Markdown: a row for each contender."""
    header = (
        "| network | images | contender | rounds | seconds, median (lowest to highest) | times as long as ours "
        "| as ours with one view | test accuracy | peak memory |"
    )
    lines = [header, "|" + "---|" * (header.count("|") - 1)]
    for content in load("contenders_*.json"):
        lines += [row(content, name) for name in names_in(content)]
    files = sorted([*RESULTS.glob("contenders_*.json"), *RESULTS.glob("growth.json")])
    notes = [where(file, json.loads(file.read_text(encoding="utf-8"))) for file in files]
    return "\n".join([*lines, "", *notes, ""])


def where(file: Path, content: dict) -> str:
    """Where and when a file was measured, and with which libraries."""
    line = note(file, {"date": content["date"], "runs": [content]}).rstrip(".")
    for name, found in content.get("versions", {}).items():
        if name in PACKAGES:
            line += f"; {CONTENDERS[name].split(',')[0]}: " + ", ".join(f"{n} {v}" for n, v in found.items())
    return f"{line}."


def names_in(content: dict) -> list[str]:
    """The contenders that were measured, in their order."""
    return [name for name in CONTENDERS if any(run["contender"] == name for run in content["runs"])]


def runs_of(content: dict, name: str) -> list[dict]:
    """The rounds of one contender."""
    return [run for run in content["runs"] if run["contender"] == name]


def ratios(content: dict, name: str, *, to: str = "ours") -> list[float]:
    """How many times as long as ours, or as another contender, round by round."""
    seconds = {run["seed"]: run["seconds"] for run in runs_of(content, to)}
    return [run["seconds"] / seconds[run["seed"]] for run in runs_of(content, name) if run["seed"] in seconds]


def row(content: dict, name: str) -> str:
    """One contender over all rounds."""
    runs = runs_of(content, name)
    times = [spread(ratios(content, name, to=ours), ".1f") for ours in ("ours", "ours_one_view")]
    seconds, accuracy = [run["seconds"] for run in runs], [run["test_accuracy"] for run in runs]
    # With random weights the accuracy says nothing.
    score = spread(accuracy, ".1%", middle=mean) if content["network"] == "squeezenet1_1" else "–"
    return (
        f"| {LABELS[content['network']]} | {' / '.join(f'{count:,}' for count in runs[0]['images'].values())} "
        f"| {CONTENDERS[name]} | {len(runs)} | {spread(seconds, '.0f')} | {' | '.join(times)} | {score} "
        f"| {median(run['peak_megabytes'] for run in runs) / 1000:.1f} GB |"
    )


def spread(values: list[float], form: str, *, middle: Callable = median) -> str:
    """The middle of some values, and, if there are several, the lowest and the highest; a dash if there is none."""
    if not values:
        return "–"
    ends = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
    return f"{middle(values):{form}}{ends}"


# ------------------------------------------------------------------------------------- figures


def draw_contenders(contents: list[dict]) -> plt.Figure:
    """A panel for each file: the median time of each contender, and how many times ours that is."""
    figure, panels = plt.subplots(
        1, len(contents), figsize=(5 * len(contents), 2.9), layout="constrained", squeeze=False
    )
    for axes, content in zip(panels[0], contents, strict=True):
        names = names_in(content)
        seconds = [median(run["seconds"] for run in runs_of(content, name)) for name in names]
        colours = [BLUE if name.startswith("ours") else GREY for name in names]
        axes.barh([CONTENDERS[name] for name in names], seconds, color=colours)
        for place, (name, value) in enumerate(zip(names, seconds, strict=True)):
            times = ratios(content, name) if name != "ours" else []
            times = f", {median(times):.1f} ×" if times else ""
            axes.annotate(f" {value:.0f} s{times}", (value, place), va="center")
        axes.invert_yaxis()
        axes.set_xlim(0, 1.35 * max(seconds))
        count = sum(content["runs"][0]["images"].values())
        tidy(axes, title=f"{LABELS[content['network']]}\n{count:,} photographs", x="seconds, folder to test", y="")
    return figure


def draw_growth(content: dict) -> plt.Figure:
    """Time and memory by the number of images, with the straight line through the times."""
    counts = numpy.array([run["images"] for run in content["runs"]])
    seconds = numpy.array([run["seconds"] for run in content["runs"]])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
    slope, start = numpy.polyfit(counts, seconds, 1)
    left.plot(counts, start + slope * counts, color=GREY, label=f"{start:.0f} s + {1000 * slope:.1f} ms an image")
    left.plot(counts, seconds, "o", color=BLUE, label="measured")
    left.legend(frameon=False)
    left.set_ylim(0)
    tidy(left, title="Time", x="images", y="seconds, folder to test")
    gigabytes = [run["peak_megabytes"] / 1000 for run in content["runs"]]
    right.plot(counts, gigabytes, "o-", color=ORANGE)
    right.set_ylim(0, 1.3 * max(gigabytes))
    tidy(right, title="Memory", x="images", y="peak, GB")
    return figure


if __name__ == "__main__":
    main()
