"""Where measurements go: JSON files in `results/`, and tables between two marks on a page."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results"
END = "<!-- end -->"


def write_table(table: str, *, command: str, pages: tuple[Path, ...] = (RESULTS / "README.md",)) -> None:
    """Replace what stands on each page between the mark of that command and the next end mark."""
    begin = f"<!-- written by python -m {command} -->"
    for page in pages:
        before, _, rest = page.read_text(encoding="utf-8").partition(begin)
        _, _, after = rest.partition(END)
        page.write_text(f"{before}{begin}\n{table}{END}{after}", encoding="utf-8")
