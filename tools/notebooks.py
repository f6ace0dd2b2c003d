"""Execute the course's notebooks, and write the repository's address into them.

python tools/notebooks.py run [NAME...]   execute notebooks in place, in the sample setting (default: all)
python tools/notebooks.py stamp [URL]     write its address on GitHub (default: git's origin) wherever it stands
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

import nbformat
from setup_cell import setup_source

ROOT = Path(__file__).resolve().parent.parent
COLAB = "https://colab.research.google.com"
GITHUB = re.compile(
    r"(?:(?:https?|ssh|git)://)?(?:[^@/]+@)?(?:www\.|ssh\.)?github\.com(?::\d+)?[/:]([\w-]+)/([\w.-]+?)(?:\.git)?/?",
    re.I,
)
REPOSITORY_LINE = re.compile(r'^(\[project\.urls\]\n(?:(?!\[).*\n)*?Repository *= *")([^"\n]*)(?=")', re.M)
USER_CHOICES = ("COURSE_BACKBONE", "COURSE_WEIGHTS", "COURSE_ARCHIVES")
GIVE = "give the address it is published at: python tools/notebooks.py stamp https://github.com/OWNER/REPOSITORY"


class ToolError(Exception):
    """Something the user can put right; shown as one line."""


def main(arguments=None, root=ROOT):
    """Run one command; return the exit status: 0, 1 for a failed run, 2 for a bad argument."""
    options = parse(arguments)
    try:
        if options.command == "stamp":
            return stamp(root, options.url)
        return run(find_notebooks(root, options.names), root)
    except ToolError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse(arguments):
    """Read the command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    commands = parser.add_subparsers(dest="command", required=True)
    run_parser = commands.add_parser("run", help="execute notebooks in place, in the sample setting")
    run_parser.add_argument("names", nargs="*", metavar="NAME", help="a name or its beginning: 01")
    stamp_parser = commands.add_parser("stamp", help="write the repository's address wherever it stands")
    stamp_parser.add_argument("url", nargs="?", metavar="URL", help="https://github.com/OWNER/REPOSITORY")
    return parser.parse_args(arguments)


# ---- run ----


def find_notebooks(root, names=()):
    """Return the paths of the notebooks whose names begin with one of `names`, or of all."""
    paths = sorted((root / "notebooks").glob("*.ipynb"))
    stems = [Path(name).name.removesuffix(".ipynb") for name in names]
    for stem in stems:
        if not any(path.stem.startswith(stem) for path in paths):
            known = ", ".join(path.stem for path in paths) or "none"
            raise ToolError(f"there is no notebook {stem!r} in notebooks/; there are: {known}")
    return [path for path in paths if not stems or path.stem.startswith(tuple(stems))]


def run(paths, root):
    """Execute each notebook in place and print a line for it; return 1 if a cell of any of them failed."""
    failures = 0
    for path in paths:
        start = time.perf_counter()
        failure = execute_in_place(path)
        seconds = time.perf_counter() - start
        failures += failure is not None
        outcome = f"FAILED, file left as it was: {failure}" if failure else "executed"
        print(f"{path.relative_to(root).as_posix()}  {seconds:.1f} s  {outcome}", flush=True)
    return 1 if failures else 0


def execute_in_place(path):
    """Execute one notebook and write it; return None, or say which cell failed and leave the file alone."""
    from nbclient.exceptions import CellExecutionError, DeadKernelError

    notebook = nbformat.read(path, as_version=4)
    client = make_client(notebook, path.parent)
    try:
        client.execute(env=sample_environment(), cleanup_kc=True)
    except (CellExecutionError, DeadKernelError) as error:
        return describe_failure(notebook, error)
    write_atomically(path, as_text(collapsed_where_tagged(without_volatile_metadata(notebook))))
    return None


def make_client(notebook, folder):
    """Return a client whose kernel is this interpreter, whatever kernel is registered as python3."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    # With no folders to search, python3 is ipykernel's own, which runs sys.executable.
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    resources = {"metadata": {"path": str(folder)}}
    quiet = {"record_timing": False, "store_widget_state": False, "coalesce_streams": True}
    return NotebookClient(notebook, km=manager, resources=resources, timeout=None, **quiet)


def sample_environment():
    """Return this process's environment with the sample setting and without the user's other choices."""
    kept = {name: value for name, value in os.environ.items() if name not in USER_CHOICES}
    return kept | {"COURSE_SETTING": "sample"}


def describe_failure(notebook, error):
    """Name the cell that failed and its error, in one line."""
    for number, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"cell {number} raised {output.ename}: {output.evalue}".replace("\n", " ")
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def without_volatile_metadata(notebook):
    """Drop what changes with the machine and the moment, so that a diff shows what the course changed."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        for name in ("execution", "ExecuteTime"):
            cell.metadata.pop(name, None)
    return notebook


def collapsed_where_tagged(notebook):
    """Collapse the outputs of the cells tagged 'hide-output', which a reader predicts first, and of no others."""
    for cell in notebook.cells:
        jupyter = {name: value for name, value in cell.metadata.pop("jupyter", {}).items() if name != "outputs_hidden"}
        cell.metadata.pop("collapsed", None)
        if "hide-output" in cell.metadata.get("tags", []):  # the two that JupyterLab writes, so that it changes nothing
            jupyter["outputs_hidden"] = cell.metadata["collapsed"] = True
        if jupyter:
            cell.metadata["jupyter"] = jupyter
    return notebook


def as_text(notebook):
    """Return the notebook as the text of its file."""
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def write_atomically(path, text):
    """Write a whole file or nothing: beside it first, then in its place."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)


# ---- stamp ----


def stamp(root, url=None):
    """Write the address into pyproject.toml, the notebooks and README.md; return 0."""
    changes = planned_changes(root, github_address(published(url or origin(root), root)))
    for path, text in changes.items():
        write_atomically(path, text)
        print(f"stamped {path.relative_to(root).as_posix()}")
    if not changes:
        print("nothing to change")
    return 0


def planned_changes(root, address):
    """Return {path: new text} for each file that does not yet carry the address; nothing is written."""
    paths = find_notebooks(root)
    wanted = {root / "pyproject.toml": stamped_pyproject(root, address)}
    wanted |= {path: stamped_notebook(path, address) for path in paths}
    readme = root / "README.md"
    if readme.exists():
        names = [path.stem for path in paths]
        wanted[readme] = stamped_links(readme.read_text(encoding="utf-8"), names, address)
    return {path: text for path, text in wanted.items() if path.read_text(encoding="utf-8") != text}


def origin(folder):
    """Return the address of git's origin, or None."""
    command = ["git", "-C", str(folder), "remote", "get-url", "origin"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if answer.returncode else answer.stdout.strip()


def published(url, root):
    """Return where a repository was cloned from if the address is a folder on this machine, else the address."""
    if url is None:
        raise ToolError(f"this folder has no git origin; {GIVE}")
    path = Path(root, url2pathname(urlparse(url).path) if url.startswith("file:") else url)
    if not path.exists():
        return url
    return origin(path) or url


def github_address(url):
    """Return https://github.com/OWNER/REPOSITORY for any of the forms git knows."""
    match = GITHUB.fullmatch(url)
    if match is None:
        raise ToolError(f"{url!r} is no repository on GitHub, and Colab opens notebooks from there only; {GIVE}")
    return f"https://github.com/{match[1]}/{match[2]}"


def read_pyproject(root):
    """Return the text of pyproject.toml, in which the address stands."""
    path = root / "pyproject.toml"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    if not REPOSITORY_LINE.search(text):
        raise ToolError('pyproject.toml needs a line Repository = "..." under [project.urls]')
    return text


def stored_address(root):
    """Return the repository's address that pyproject.toml holds."""
    return REPOSITORY_LINE.search(read_pyproject(root))[2]


def stamped_pyproject(root, address):
    """Return pyproject.toml's text with the address in its Repository line."""
    return REPOSITORY_LINE.sub(lambda match: match[1] + address, read_pyproject(root))


def stamped_notebook(path, address):
    """Return the notebook's text with the address in its badge and its set-up cell, all else as it was."""
    original = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(original, as_version=4)
    before = json.dumps(notebook)
    title = first_cell(notebook, path, "markdown cell", lambda cell: cell.cell_type == "markdown")
    title.source = with_badge(title.source, path.stem, address)
    first_cell(notebook, path, "code cell tagged 'setup'", is_setup).source = setup_source(address)
    return original if json.dumps(notebook) == before else as_text(notebook)


def is_setup(cell):
    """Say whether a cell is the set-up cell."""
    return cell.cell_type == "code" and "setup" in cell.metadata.get("tags", [])


def first_cell(notebook, path, what, matches):
    """Return the first cell that matches, or say what the notebook lacks."""
    for cell in notebook.cells:
        if matches(cell):
            return cell
    raise ToolError(f"{path.name} has no {what}")


def badge_link(name, address):
    """Return the address at which Colab opens a notebook of the course."""
    return f"{COLAB}/github/{address.removeprefix('https://github.com/')}/blob/main/notebooks/{name}.ipynb"


def with_badge(source, name, address):
    """Return a title cell whose Colab badge opens the notebook; a missing badge goes below the first line."""
    badge = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({badge_link(name, address)})"
    pattern = rf"\[!\[[^]]*\]\({re.escape(COLAB)}/assets/colab-badge\.svg\)\]\([^)]*\)"
    if re.search(pattern, source):
        return re.sub(pattern, lambda match: badge, source, count=1)
    first, _, rest = source.partition("\n")
    return "\n\n".join(part for part in (first, badge, rest.strip("\n")) if part)


def stamped_links(text, names, address):
    """Return a text whose Colab links to the course's notebooks carry the address; other links stay."""
    any_repository = rf"{re.escape(COLAB)}/github/[^/\s)]+/[^/\s)]+/blob/[^/\s)]+/notebooks"
    for name in names:
        link = rf"{any_repository}/{re.escape(name)}\.ipynb"
        text = re.sub(link, badge_link(name, address), text)
    return text


if __name__ == "__main__":
    sys.exit(main())
