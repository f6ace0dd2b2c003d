"""tools/notebooks.py: what `run` and `stamp` write, leave alone, and say when they cannot."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from setup_cell import setup_source

import notebooks as notebook_tools  # tools/notebooks.py

TOOL = Path(notebook_tools.__file__)
ADDRESS = "https://github.com/someone/a-course"
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/someone/a-course/blob/main/notebooks/{}.ipynb)"
)
PYPROJECT = """\
[project]
name = "course"

[project.urls]
Homepage = "https://example.org"
Repository = "https://github.com/OWNER/REPOSITORY"

[tool.other]
Repository = "stays"
"""
WHY = "and Colab opens notebooks from there only"
GIVE = "give the address it is published at: python tools/notebooks.py stamp https://github.com/OWNER/REPOSITORY"
README = """\
[first](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/01_first.ipynb)
[second](https://colab.research.google.com/github/OWNER/REPOSITORY/blob/main/notebooks/02_second.ipynb)
[not ours](https://colab.research.google.com/github/d2l-ai/d2l/blob/main/other/01_first.ipynb)
"""


def write_notebook(path, *cells, **metadata):
    """Write a notebook file."""
    nbformat.write(new_notebook(cells=list(cells), metadata=metadata), path)
    return path


def lesson_cells(title):
    """Return a lesson's cells: title, set-up, and one that was executed."""
    output = new_output("execute_result", data={"text/plain": "0.5"}, execution_count=7)
    return [
        new_markdown_cell(title),
        new_code_cell("old", metadata={"tags": ["setup"]}, execution_count=1),
        new_code_cell("0.5", outputs=[output], execution_count=7, metadata={"tags": ["tolerance=5%"]}),
    ]


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A small course that was never stamped: one notebook with an old badge, one without."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    root = tmp_path / "course"
    (root / "notebooks").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "README.md").write_text(README)
    badge = BADGE.format("old_name").replace("someone/a-course", "OWNER/REPOSITORY")
    write_notebook(root / "notebooks/01_first.ipynb", *lesson_cells(f"# First\n\n{badge}\n\nText."))
    write_notebook(root / "notebooks/02_second.ipynb", *lesson_cells("# Second\n\nText."))
    return root


def files(root):
    """Return {path: bytes} of every file of a course outside .git."""
    paths = [path for path in root.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {path: path.read_bytes() for path in paths}


def cells_of(root, name):
    """Return the cells of a notebook of the course."""
    return nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4).cells


# ---- stamp ----


def test_stamp_writes_the_address_wherever_it_stands(course):
    assert notebook_tools.main(["stamp", ADDRESS], course) == 0
    pyproject = PYPROJECT.replace("https://github.com/OWNER/REPOSITORY", ADDRESS)
    assert (course / "pyproject.toml").read_text() == pyproject
    assert notebook_tools.stored_address(course) == ADDRESS
    assert (course / "README.md").read_text() == README.replace("OWNER/REPOSITORY", "someone/a-course")
    for name, title in (("01_first", "First"), ("02_second", "Second")):
        cells = cells_of(course, name)
        assert cells[0].source == f"# {title}\n\n{BADGE.format(name)}\n\nText."
        assert cells[1].source == setup_source(ADDRESS)


def test_stamp_leaves_outputs_counts_and_tags_alone(course):
    before = cells_of(course, "01_first")
    notebook_tools.main(["stamp", ADDRESS], course)
    after = cells_of(course, "01_first")
    assert before[2] == after[2]
    for name in ("execution_count", "outputs", "metadata", "id"):
        assert before[1][name] == after[1][name]


def test_a_second_stamp_changes_nothing(course, capsys):
    notebook_tools.main(["stamp", ADDRESS], course)
    first = files(course)
    capsys.readouterr()
    assert notebook_tools.main(["stamp", ADDRESS + ".git"], course) == 0
    assert files(course) == first
    assert capsys.readouterr().out == "nothing to change\n"


def test_stamp_keeps_the_bytes_of_a_notebook_that_needs_no_change(course):
    notebook_tools.main(["stamp", ADDRESS], course)
    path = course / "notebooks/01_first.ipynb"
    path.write_text(json.dumps(json.loads(path.read_text()), indent=4))
    reformatted = path.read_bytes()
    notebook_tools.main(["stamp", ADDRESS], course)
    assert path.read_bytes() == reformatted


@pytest.mark.parametrize(
    "url",
    [
        "git@github.com:someone/a-course.git",
        "git@github.com:someone/a-course",
        "ssh://git@github.com/someone/a-course.git",
        "ssh://git@ssh.github.com:443/someone/a-course.git",
        "https://github.com/someone/a-course.git",
        "https://github.com/someone/a-course/",
        "https://someone:secret@github.com/someone/a-course",
        "http://www.GitHub.com/someone/a-course",
        "git://github.com/someone/a-course.git",
        "github.com/someone/a-course",
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_stamp_takes_the_address_from_origin_or_as_given(course, url, given):
    with_origin(course, url)
    assert notebook_tools.main(["stamp", url] if given else ["stamp"], course) == 0
    assert notebook_tools.stored_address(course) == ADDRESS
    assert not any(b"secret" in content for content in files(course).values())


@pytest.mark.parametrize("as_address", [str, Path.as_uri, lambda clone: "../clone"])
def test_stamp_takes_the_address_that_a_local_clone_was_cloned_from(course, as_address):
    clone = course.parent / "clone"
    with_origin(clone, "git@github.com:someone/a-course.git")
    with_origin(course, as_address(clone))
    assert notebook_tools.main(["stamp"], course) == 0
    assert notebook_tools.stored_address(course) == ADDRESS


def with_origin(folder, url):
    """Make a folder a git repository with this origin."""
    subprocess.run(["git", "init", "-q", folder], check=True)
    subprocess.run(["git", "-C", folder, "remote", "add", "origin", url], check=True)


def without_origin(course):
    return ["stamp"]


def elsewhere(course):
    return ["stamp", "https://gitlab.com/someone/a-course"]


def not_a_repository(course):
    return ["stamp", "https://github.com/someone"]


def a_local_origin(course):
    subprocess.run(["git", "init", "-q", "--bare", course.parent / "bare.git"], check=True)
    with_origin(course, str(course.parent / "bare.git"))
    return ["stamp"]


def without_repository_line(course):
    (course / "pyproject.toml").write_text('[project.urls]\nHomepage = "x"\n[tool.other]\nRepository = "x"\n')
    return ["stamp", ADDRESS]


def without_setup_cell(course):
    write_notebook(course / "notebooks/03_third.ipynb", new_markdown_cell("# Third"))
    return ["stamp", ADDRESS]


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (without_origin, f"this folder has no git origin; {GIVE}"),
        (elsewhere, f"'https://gitlab.com/someone/a-course' is no repository on GitHub, {WHY}; {GIVE}"),
        (not_a_repository, f"'https://github.com/someone' is no repository on GitHub, {WHY}; {GIVE}"),
        (a_local_origin, f"bare.git' is no repository on GitHub, {WHY}; {GIVE}"),
        (without_repository_line, "pyproject.toml needs a line Repository"),
        (without_setup_cell, "03_third.ipynb has no code cell tagged 'setup'"),
    ],
)
def test_stamp_says_in_one_line_what_it_lacks_and_writes_nothing(course, capsys, prepare, expected):
    arguments = prepare(course)
    before = files(course)
    assert notebook_tools.main(arguments, course) == 2
    assert files(course) == before
    message = capsys.readouterr().err
    assert expected in message
    assert message.count("\n") == 1


# ---- run ----

REPORT = """\
import os, sys
print(sorted(name for name in os.environ if name.startswith("COURSE_")), os.environ["COURSE_SETTING"])
print(os.path.basename(os.getcwd()), sys.executable)"""


@pytest.fixture
def hostile_shell(tmp_path, monkeypatch):
    """A shell with other choices, and a broken kernel registered under the usual name."""
    for name in ("COURSE_SETTING", "COURSE_BACKBONE", "COURSE_WEIGHTS", "COURSE_ARCHIVES"):
        monkeypatch.setenv(name, "from the shell")
    kernel = tmp_path / "jupyter/kernels/python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["no-such-program"], "display_name": "x", "language": "x"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))


@pytest.mark.usefixtures("hostile_shell")
def test_run_executes_in_place_or_leaves_the_file_alone(course, capsys):
    timing = {"execution": {"iopub.status.busy": "2031-01-01"}, "tags": ["setup"]}
    shown = {"jupyter": {"outputs_hidden": True, "source_hidden": True}, "collapsed": True}
    good = [new_code_cell(REPORT, metadata=timing), new_markdown_cell("Text."), new_code_cell("1 + 1", metadata=shown)]
    good += [new_code_cell("2 + 2", metadata={"tags": ["hide-output"]})]
    write_notebook(course / "notebooks/03_good.ipynb", *good, widgets={"old": 1})
    bad = [new_markdown_cell("# Bad"), new_code_cell("x = 1"), new_code_cell("missing"), new_code_cell("x")]
    bad_path = write_notebook(course / "notebooks/04_bad.ipynb", *bad)
    before = files(course)

    assert notebook_tools.main(["run", "03", "notebooks/04_bad.ipynb"], course) == 1

    changed = {path.name for path, content in files(course).items() if before.get(path) != content}
    assert changed == {"03_good.ipynb"}
    good_line, bad_line = capsys.readouterr().out.splitlines()
    assert good_line.startswith("notebooks/03_good.ipynb  ")
    assert good_line.endswith(" s  executed")
    assert bad_line.startswith(f"notebooks/{bad_path.name}  ")
    assert bad_line.endswith("file left as it was: cell 3 raised NameError: name 'missing' is not defined")
    check_executed(nbformat.read(course / "notebooks/03_good.ipynb", as_version=4))


def check_executed(notebook):
    """Check the outputs of the good notebook, and that nothing volatile came with them."""
    report, _, result, hidden = notebook.cells
    assert report.outputs[0].text == f"['COURSE_SETTING'] sample\nnotebooks {sys.executable}\n"
    assert (report.execution_count, result.execution_count) == (1, 2)
    assert result.outputs[0].data == {"text/plain": "2"}
    assert report.metadata == {"tags": ["setup"]}
    assert result.metadata == {"jupyter": {"source_hidden": True}}
    assert hidden.metadata == {"tags": ["hide-output"], "jupyter": {"outputs_hidden": True}, "collapsed": True}
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }


def test_an_unknown_name_lists_the_notebooks(course, capsys):
    assert notebook_tools.main(["run", "05"], course) == 2
    message = capsys.readouterr().err
    assert "01_first, 02_second" in message
    assert message.count("\n") == 1


def test_all_notebooks_are_run_without_a_name(course):
    assert [path.stem for path in notebook_tools.find_notebooks(course)] == ["01_first", "02_second"]


def test_the_script_runs_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(TOOL.parent)])  # as in a new process, whose start would take two seconds
    monkeypatch.setattr(sys, "argv", [str(TOOL), "--help"])
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tools", "setup_cell")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(TOOL), run_name="__main__")
    assert "stamp" in capsys.readouterr().out


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_text("old")
    monkeypatch.setattr(Path, "write_text", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        notebook_tools.write_atomically(path, "new")
    assert path.read_bytes() == b"old"
