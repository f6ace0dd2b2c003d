"""The set-up cell, run as Google Colab would run it and as every other machine does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from setup_cell import setup_source

import notebooks as notebook_tools  # tools/notebooks.py

ROOT = Path(__file__).resolve().parent.parent
UNSTAMPED = "https://github.com/OWNER/REPOSITORY"
RUNNER = """\
import json, os, sys
cell, last, notebook = sys.stdin.read(), *sys.argv[1:]
if notebook:
    __vsc_ipynb_file__ = notebook
exec(cell)
exec(cell)
exec(last)
helpers = getattr(sys.modules.get("helpers"), "__file__", None)
print(json.dumps({"folder": os.getcwd(), "helpers": helpers}))
"""


def git(*arguments):
    """Run git without the user's configuration."""
    name = ["-c", "user.name=Course", "-c", "user.email=course@example.org"]
    environment = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull}
    subprocess.run(["git", *name, *map(str, arguments)], check=True, env=environment, capture_output=True)


@pytest.fixture
def published(tmp_path):
    """The course as a repository to clone from; its files are empty, so that importing them takes no time."""
    repository = tmp_path / "published"
    for path in [*(ROOT / "helpers").glob("*.py"), ROOT / "notebooks" / "x.ipynb"]:
        copy = repository / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.touch()
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


def run_twice(address, folder, search_path="", *, last="import helpers", notebook=""):
    """Run the cell twice, then `last`, in a new interpreter in which nothing is installed (-S)."""
    environment = os.environ | {"PYTHONPATH": str(search_path)}
    command = [sys.executable, "-S", "-c", RUNNER, last, str(notebook)]
    cell = setup_source(address)
    return subprocess.run(command, input=cell, cwd=folder, env=environment, capture_output=True, text=True)


def report(process):
    """Return what the runner saw."""
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def error(process):
    """Return the one line in which the cell says what is wrong."""
    assert process.returncode != 0
    return process.stderr.splitlines()[-1]


def helpers_of(folder):
    """Return the file that `import helpers` finds in a copy of the course."""
    return str(folder / "helpers" / "__init__.py")


# ---- in Google Colab ----


def test_in_colab_it_fetches_the_course_once(published, empty, colab):
    process = run_twice(published.as_uri(), empty, colab)
    assert report(process) == {"folder": str(empty), "helpers": helpers_of(empty / "course")}
    assert process.stderr.count("Cloning into") == 1
    assert [path.name for path in empty.iterdir()] == ["course"]


def test_after_a_restart_it_uses_the_course_that_is_there(published, empty, colab):
    run_twice(published.as_uri(), empty, colab, last="pass")
    address = published.as_uri()
    shutil.rmtree(published)
    assert report(run_twice(address, empty, colab))["helpers"] == helpers_of(empty / "course")


def test_a_clone_that_was_interrupted_is_made_anew(published, empty, colab):
    (empty / "course").mkdir()
    assert report(run_twice(published.as_uri(), empty, colab))["helpers"] == helpers_of(empty / "course")


def test_a_folder_that_is_not_the_course_is_named_and_left_alone(published, empty, colab):
    (empty / "course").mkdir()
    (empty / "course" / "homework.txt").write_text("mine")
    assert "a folder course in the way" in error(run_twice(published.as_uri(), empty, colab))
    assert [path.name for path in (empty / "course").iterdir()] == ["homework.txt"]


def test_a_course_that_cannot_be_fetched_is_a_clear_error_and_leaves_nothing(published, empty, colab):
    missing = (published / "missing").as_uri()
    assert error(run_twice(missing, empty, colab)).startswith(f"RuntimeError: {missing} was not fetched")
    assert list(empty.iterdir()) == []


def test_without_an_address_it_says_what_to_do_and_asks_nobody(empty, colab):
    process = run_twice(UNSTAMPED, empty, colab)
    assert "stamp it (README.md), or upload the folder course" in error(process)
    assert "Cloning" not in process.stderr
    assert list(empty.iterdir()) == []


def test_without_an_address_it_uses_a_folder_that_was_uploaded(published, empty, colab):
    shutil.copytree(published, empty / "course")
    assert report(run_twice(UNSTAMPED, empty, colab))["helpers"] == helpers_of(empty / "course")


# ---- everywhere else ----


@pytest.mark.parametrize("folder", [".", "notebooks", "runs/deep/inside"])
def test_it_finds_the_course_from_any_folder_inside(published, folder):
    (published / folder).mkdir(parents=True, exist_ok=True)
    process = run_twice(UNSTAMPED, published / folder)
    assert report(process) == {"folder": str((published / folder).resolve()), "helpers": helpers_of(published)}
    assert "The first import from helpers takes some seconds" in process.stdout


def test_it_finds_the_course_of_the_notebook_that_vs_code_names(published, empty, tmp_path):
    other = shutil.copytree(published, tmp_path / "other")
    for folder in (empty, other):
        seen = report(run_twice(UNSTAMPED, folder, notebook=published / "notebooks" / "x.ipynb"))
        assert seen == {"folder": str(folder), "helpers": helpers_of(published)}


def test_a_notebook_outside_finds_the_course_of_the_working_folder(published, empty):
    seen = report(run_twice(UNSTAMPED, published / "notebooks", notebook=empty / "x.ipynb"))
    assert seen["helpers"] == helpers_of(published)


def test_the_course_around_it_goes_before_an_installed_one_and_one_below(published, tmp_path):
    other = shutil.copytree(published, tmp_path / "other")
    shutil.copytree(other, published / "notebooks" / "course")
    assert report(run_twice(UNSTAMPED, published / "notebooks", other))["helpers"] == helpers_of(published)


def test_outside_the_course_it_uses_an_installed_one(published, empty):
    assert report(run_twice(UNSTAMPED, empty, published))["helpers"] == helpers_of(published)


@pytest.mark.parametrize("address", [UNSTAMPED, "https://github.com/someone/a-course"])
def test_where_there_is_no_course_it_says_so_and_fetches_nothing(empty, tmp_path, address):
    (tmp_path / "packages" / "google" / "protobuf").mkdir(parents=True)  # a package of Google's, but not Colab
    process = run_twice(address, empty, tmp_path / "packages")
    assert error(process).startswith("RuntimeError: The folder helpers was not found")
    assert "Cloning" not in process.stderr
    assert list(empty.iterdir()) == []


def test_it_is_short():
    lines = setup_source(notebook_tools.stored_address(ROOT)).splitlines()
    assert len([line for line in lines if line]) <= 18
