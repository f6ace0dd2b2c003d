"""The set-up cell, run as Google Colab would run it and as every other machine does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from setup_cell import setup_source

import notebooks as notebook_tools  # tools/notebooks.py

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = notebook_tools.stored_address(ROOT)
RUNNER = """\
import json, os, sys
cell, last = sys.stdin.read(), sys.argv[1]
before = [os.getcwd(), *sys.path]
exec(cell)
after_one = os.getcwd()
exec(cell)
exec(last)
after = [os.getcwd(), *sys.path]
helpers = getattr(sys.modules.get("helpers"), "__file__", None)
print(json.dumps({"before": before, "after_one": after_one, "after": after, "helpers": helpers}))
"""


def setup_cells():
    """Return the distinct set-up cells of the notebooks; the template's while there are none."""
    found = set()
    for path in notebook_tools.find_notebooks(ROOT):
        cells = nbformat.read(path, as_version=4).cells
        found |= {cell.source for cell in cells if notebook_tools.is_setup(cell)}
    return sorted(found) or [setup_source(ADDRESS)]


@pytest.fixture(params=setup_cells(), ids=lambda source: "cell")
def cell(request):
    """A set-up cell as it stands in the notebooks."""
    return request.param


def git(*arguments):
    """Run git without the user's configuration."""
    name = ["-c", "user.name=Course", "-c", "user.email=course@example.org"]
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", *name, *map(str, arguments)], check=True, env=environment, capture_output=True)


@pytest.fixture
def published(tmp_path):
    """The course as a repository to clone from: the real helpers, as they are in this working copy."""
    repository = tmp_path / "published"
    shutil.copytree(ROOT / "helpers", repository / "helpers", ignore=shutil.ignore_patterns("__pycache__"))
    (repository / "notebooks").mkdir()
    (repository / "notebooks" / "x.ipynb").write_text("{}")
    git("init", "-q", repository)
    git("-C", repository, "add", ".")
    git("-C", repository, "commit", "-q", "-m", "The course")
    return repository


@pytest.fixture
def empty(tmp_path):
    """An empty working folder."""
    folder = tmp_path / "content"
    folder.mkdir()
    return folder


@pytest.fixture
def colab(tmp_path):
    """A folder that holds a stand-in for Colab's google.colab."""
    module = tmp_path / "stand-in" / "google" / "colab" / "__init__.py"
    module.parent.mkdir(parents=True)
    module.touch()
    return tmp_path / "stand-in"


def run_twice(source, folder, search_path=None, last="import helpers"):
    """Run a cell twice in a new interpreter, then `last`; return the finished process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if search_path:
        environment["PYTHONPATH"] = str(search_path)
    command = [sys.executable, "-c", RUNNER, last]
    return subprocess.run(command, input=source, cwd=folder, env=environment, capture_output=True, text=True)


def report(process):
    """Return what the runner saw."""
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_in_colab_it_fetches_the_course_once(cell, published, empty, colab):
    seen = report(run_twice(cell.replace(ADDRESS, published.as_uri()), empty, colab))
    course = empty / "course"
    assert seen["after_one"] == seen["after"][0] == str(course / "notebooks")
    assert seen["helpers"] == str(course / "helpers" / "__init__.py")
    assert sorted(path.name for path in (course / "notebooks").iterdir()) == ["x.ipynb"]
    assert [path.name for path in empty.iterdir()] == ["course"]


def test_after_a_restart_it_uses_the_course_that_is_there(cell, published, empty, colab):
    source = cell.replace(ADDRESS, published.as_uri())
    run_twice(source, empty, colab, last="pass")
    shutil.rmtree(published)
    assert report(run_twice(source, empty, colab))["helpers"] == str(empty / "course/helpers/__init__.py")


def test_a_course_that_cannot_be_fetched_is_a_clear_error_and_leaves_nothing(cell, published, empty, colab):
    missing = (published / "missing").as_uri()
    process = run_twice(cell.replace(ADDRESS, missing), empty, colab)
    assert process.returncode != 0
    assert f"RuntimeError: The course could not be fetched from {missing}" in process.stderr
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize("other_google_package", [False, True])
def test_elsewhere_it_does_nothing(cell, empty, tmp_path, other_google_package):
    (tmp_path / "packages" / "google" / "protobuf").mkdir(parents=True)
    search_path = tmp_path / "packages" if other_google_package else None
    process = run_twice(cell, empty, search_path, last="pass")
    seen = report(process)
    assert seen["before"] == seen["after"]
    assert process.stdout.count("\n") == 1  # the runner's own line
    assert list(empty.iterdir()) == []


def test_it_is_short():
    lines = setup_source(ADDRESS).splitlines()
    assert len([line for line in lines if line]) < 12
