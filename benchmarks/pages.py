"""Where measurements go: JSON files in `results/`, and tables between two marks on a page."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev

from helpers.settings import Setting, environment

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
END = "<!-- end -->"


def file_of(benchmark: str, setting: Setting) -> Path:
    """The JSON file of a benchmark of one setting, under a name that every system allows."""
    return RESULTS / f"{benchmark}_{Path(setting.name).name}_{setting.backbone}.json".replace(":", "_")


def parser_of_settings(description: str, *, seeds: list[int]) -> argparse.ArgumentParser:
    """The options of a benchmark of one setting over several seeds, some of them those of `python -m helpers`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", default="sample")
    parser.add_argument("--backbone")
    parser.add_argument("--weights")
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds)
    parser.add_argument("--table", action="store_true", help="measure nothing, only write the table anew")
    return parser


def write_table(table: str, *, command: str, pages: tuple[Path, ...] = (RESULTS / "README.md",)) -> None:
    """Replace what stands on each page between the mark of that command and the next end mark."""
    begin = f"<!-- written by python -m {command} -->"
    for page in pages:
        before, _, rest = page.read_text(encoding="utf-8").partition(begin)
        old, end, after = rest.partition(END)
        if not end or "<!-- written by" in old:
            raise ValueError(f"{page.name} has no end mark behind {begin}")
        page.write_text(f"{before}{begin}\n{table}{END}{after}", encoding="utf-8")


def results_table(
    pattern: str,
    header: str,
    row: Callable[[list[dict], str], str],
    names: tuple[str, ...],
    detail: Callable[[dict], str] = lambda run: "",
) -> str:
    """The JSON files of that name as Markdown: `row(runs, name)` for each file and name, then where it was measured.

    `detail` says more about a file's first run, at the end of that last line.
    """
    files = {file: json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob(pattern))}
    rows = [line for content in files.values() for name in names if (line := row(content["runs"], name))]
    rule = "|" + "---|" * (header.count("|") - 1)
    notes = [note(file, content) + detail(content["runs"][0]) for file, content in files.items()]
    return "\n".join([header, rule, *rows, "", *notes, ""])


def images_cell(data: dict) -> str:
    """Which images, and how many in each split."""
    return f"`{data['name']}`: {data['train']:,} / {data['validation']:,} / {data['test']:,}"


def accuracy_cell(accuracy: list[float], *, mark: str = "") -> str:
    """The mean over seeds, between the marks, with deviation, lowest and highest."""
    deviation = f" ± {stdev(accuracy):.1%}" if len(accuracy) > 1 else ""
    return f"{mark}{mean(accuracy):.1%}{mark}{deviation} ({min(accuracy):.1%} to {max(accuracy):.1%})"


def refuse_mixture(old: dict, file: Path) -> None:
    """End if what a file holds was measured on another processor, or with other versions, than would be added to it."""
    if (now := environment()) != old:
        raise SystemExit(f"{file.name} was measured in {old}, and this is {now}: measure all of it anew.")


def note(file: Path, content: dict) -> str:
    """Where and when a file was measured; a run may have a date of its own."""
    first = content["runs"][0]
    where, when = first["environment"], first.get("date", content.get("date"))
    return (
        f"- `{file.name}`: {when}, {where['device']}, {where['cpu']}, {where['threads']} threads, "
        f"Python {where['python']}, torch {where['torch']}, torchvision {where['torchvision']}."
    )
