"""Every notebook of the course keeps the guard's rules, and each rule fails a notebook that breaks it."""

import copy
from pathlib import Path, PurePosixPath

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_guard import FLOORS, MOST_BYTES, MOST_CELLS, MOST_LINES, is_compared, problems

import notebooks as notebook_tools  # tools/notebooks.py

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = notebook_tools.find_notebooks(ROOT)
SETUP = "import sys"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_keeps_the_rules(path):
    setup = notebook_tools.setup_source(notebook_tools.stored_address(ROOT))
    found = problems(path, setup)
    assert not found, "\n".join(["", *found])


def test_every_notebook_has_a_floor_and_every_floor_a_notebook():
    assert sorted(FLOORS) == [path.stem for path in NOTEBOOKS]


def test_badges_and_links_carry_the_address_of_pyproject():
    changes = notebook_tools.planned_changes(ROOT, notebook_tools.stored_address(ROOT))
    assert not changes, f"run tools/notebooks.py stamp: {[path.name for path in changes]}"


# ---- the rules, on doctored notebooks ----


def stream(text, name="stdout"):
    """Return a printed output."""
    return new_output("stream", name=name, text=text)


def shown(alt="Two curves that fall", **data):
    """Return a displayed output; a mime is written with _ for its slash."""
    data = {mime.replace("_", "/", 1).replace("_", "+"): value for mime, value in data.items()}
    return new_output("display_data", data=data, metadata={"image/png": {"alt": alt}} if "image/png" in data else {})


def code(source, *outputs, tags=(), **metadata):
    """Return a code cell; it is numbered when the notebook is written."""
    return new_code_cell(source, outputs=list(outputs), metadata={"tags": list(tags)} | metadata)


def collapsed(*tags):
    """Return a code cell whose output is collapsed."""
    return code("2 + 2", shown(text_plain="4"), tags=tags, jupyter={"outputs_hidden": True}, collapsed=True)


GOOD_CELLS = [
    new_markdown_cell("# A lesson"),
    code(SETUP, tags=["setup"]),
    code("print(1)  # a comment;", stream("1\n")),
    code("draw('%d' % 3)", shown(image_png="aGk=", text_plain="<Figure size 640x480 with 1 Axes>")),
    new_markdown_cell("*Figure: the loss falls, then levels off.*"),
    code("text = '''\n%matplotlib\n!ls\n'''\ntext", shown(text_plain="'%matplotlib'")),
    new_markdown_cell("**Predict:** how much is 2 + 2?"),
    collapsed("hide-output"),
    new_markdown_cell("Four."),
]


def good_cells():
    """Return the cells of a notebook that keeps every rule; the numbers of its cells run from 1 to 9."""
    return copy.deepcopy(GOOD_CELLS)


def found_in(tmp_path, cells, renumber=True, floor=3):
    """Write a notebook of these cells, executed in order, and return the guard's problems."""
    count = 0
    for cell in cells:
        if renumber and cell.cell_type == "code":
            count += 1
            cell.execution_count = count
    path = tmp_path / "lesson.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return problems(path, SETUP, {"lesson": floor})


def with_cell(*cells):
    """Return the good cells followed by others."""
    return [*good_cells(), *cells]


def test_a_good_notebook_passes(tmp_path):
    assert found_in(tmp_path, good_cells()) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("%matplotlib inline", "not plain Python"),
        ("  %timeit 1", "not plain Python"),
        ("%%time\nx = 1", "not plain Python"),
        ("x = 1\n!pip install torch", "not plain Python"),
        ("print?", "not plain Python"),
        ("print??", "not plain Python"),
        ("?print", "not plain Python"),
        ("files = !ls", "not plain Python"),
        ("get_ipython().run_line_magic('time', '')", "magic in disguise"),
        ("x = 1\nx;", "trailing ;"),
        ("x; # quiet", "trailing ;"),
        ("from IPython.display import clear_output", "clear_output"),
        ("display(1, display_id='a')", "display_id"),
        ("handle.update_display(1)", "update_display"),
        ("x = 1\n" * (MOST_LINES + 1), f"{MOST_LINES + 1} lines"),
    ],
)
def test_a_source_that_breaks_a_rule_fails(tmp_path, source, expected):
    (problem,) = found_in(tmp_path, with_cell(code(source)))
    assert problem.startswith("cell 10: ")
    assert expected in problem


def test_a_cell_of_the_most_lines_passes(tmp_path):
    assert found_in(tmp_path, with_cell(code("x = 1\n" * MOST_LINES))) == []


def test_a_longer_setup_cell_passes(tmp_path):
    path, setup = tmp_path / "lesson.ipynb", "x = 1\n" * (MOST_LINES + 1)
    cells = good_cells()
    cells[1].source = setup
    found_in(tmp_path, cells)
    assert problems(path, setup, {"lesson": 3}) == []


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (new_output("error", ename="ValueError", evalue="no", traceback=[]), "an error output, ValueError"),
        (stream("UserWarning: old\n", name="stderr"), "output on stderr"),
        (shown(image_svg_xml="<svg/>"), "an SVG image"),
        (stream("saved in /home/someone/runs\n"), "a path of someone's machine, /home/"),
        (stream("saved in /tmp/runs\n"), "a path of someone's machine, /tmp/"),
        (shown(text_plain=repr(str(PurePosixPath("/", "root", "course")))), "a path of someone's machine, /root/"),
        (shown(text_plain="1", text_html="<b>/Users/someone</b>"), "a path of someone's machine, /Users/"),
        (stream("C:\\Users\\someone\n"), "a path of someone's machine, C:\\Users"),
        (shown(text_plain="WindowsPath('C:\\\\Users\\\\someone')"), "a path of someone's machine, C:"),
    ],
)
def test_an_output_that_breaks_a_rule_fails(tmp_path, output, expected):
    (problem,) = found_in(tmp_path, with_cell(code("x = 1", output)))
    assert problem.startswith("cell 10: ")
    assert expected in problem


def test_the_bytes_of_a_image_are_no_path(tmp_path):
    image = code("draw()", shown(image_png="aGk/home/aGk=", text_plain="<Figure>"))
    assert found_in(tmp_path, with_cell(image, new_markdown_cell("Figure: bytes."))) == []


def test_an_unexecuted_cell_fails(tmp_path):
    cells = good_cells()
    found_in(tmp_path, cells)
    cells[-2].execution_count = None
    assert found_in(tmp_path, cells, renumber=False) == ["cell 8: not executed"]


def test_cells_executed_out_of_order_fail(tmp_path):
    cells = good_cells()
    found_in(tmp_path, cells)
    cells[1].execution_count, cells[2].execution_count = 2, 1
    found = found_in(tmp_path, cells, renumber=False)
    assert found == [
        "cell 2: executed as number 2, expected 1",
        "cell 3: executed as number 1, expected 2",
    ]


def test_a_count_that_skips_a_number_fails(tmp_path):
    cells = good_cells()
    found_in(tmp_path, cells)
    cells[-2].execution_count = 9
    assert found_in(tmp_path, cells, renumber=False) == ["cell 8: executed as number 9, expected 5"]


def test_too_few_compared_cells_fail(tmp_path):
    assert found_in(tmp_path, good_cells(), floor=4) == ["only 3 cells are compared, the floor is 4"]


def test_a_notebook_without_a_floor_fails(tmp_path):
    path = tmp_path / "lesson.ipynb"
    found_in(tmp_path, good_cells())
    (problem,) = problems(path, SETUP, {"another": 3})
    assert 'add "lesson": 3 to FLOORS' in problem


@pytest.mark.parametrize(
    "cell",
    [
        code("print(1)", stream("1\n"), tags=["nbval-ignore-output"]),
        code("print(1)", stream("1\n"), tags=["nbval-skip"]),
        code("print(1)", stream("1\n"), tags=["raises-exception"]),
        code("# NBVAL_IGNORE_OUTPUT\nprint(1)", stream("1\n")),
        code("# NBVAL_SKIP\nprint(1)", stream("1\n")),
        code("print(1)", stream("1\n", name="stderr")),
        code("print()", stream("\n")),
        code("draw()", shown(image_png="aGk=", text_plain="<Figure size 640x480 with 1 Axes>")),
        code("x = 1"),
    ],
)
def test_a_cell_that_nbval_does_not_really_compare_does_not_count(cell):
    assert not is_compared(cell)


@pytest.mark.parametrize(
    "cell",
    [
        code("print(1)", stream("1\n"), tags=["tolerance=0.05"]),
        code("1", shown(text_plain="1")),
        code("draw(); print(1)", stream("1\n"), shown(image_png="aGk=", text_plain="<Figure>")),
    ],
)
def test_a_compared_cell_counts(cell):
    assert is_compared(cell)


def test_a_file_over_a_megabyte_fails(tmp_path):
    (problem,) = found_in(tmp_path, with_cell(new_markdown_cell("x" * MOST_BYTES)))
    assert "bytes" in problem


def test_too_many_cells_fail(tmp_path):
    enough = [new_markdown_cell("text") for _ in range(MOST_CELLS - len(GOOD_CELLS))]
    assert found_in(tmp_path, with_cell(*enough)) == []
    (problem,) = found_in(tmp_path, with_cell(*enough, new_markdown_cell("one more")))
    assert problem == f"there are {MOST_CELLS + 1} cells, more than {MOST_CELLS}"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda cells: cells[1].update(source="import os"), "not the stamped one"),
        (lambda cells: cells[1].metadata.update(tags=[]), "0 code cells are tagged 'setup'"),
        (lambda cells: cells[2].metadata.update(tags=["setup"]), "2 code cells are tagged 'setup'"),
        (lambda cells: cells.insert(1, code("x = 1")), "not the first code cell"),
    ],
)
def test_a_missing_or_different_setup_cell_fails(tmp_path, change, expected):
    cells = good_cells()
    change(cells)
    (problem,) = found_in(tmp_path, cells)
    assert expected in problem


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([collapsed()], "cell 10: tagged 'hide-output' or collapsed, not both"),
        ([code("x = 1", tags=["hide-output"])], "cell 10: tagged 'hide-output' or collapsed, not both"),
        ([code("x = 1", tags=["hide-output"], jupyter={"outputs_hidden": True})], "cell 10: tagged"),
        ([code("x = 1", tags=["hide-output"], collapsed=True)], "cell 10: tagged"),
        ([code("x = 1", jupyter={"outputs_hidden": True})], "cell 10: tagged"),
        (
            [new_markdown_cell("Look.\n\n**Predict** it."), code("x = 1"), code("print(x)", stream("1"))],
            "cell 12: it answers a **Predict**",
        ),
        (
            [new_markdown_cell("**Predict** it."), collapsed("hide-output"), code("print(x)", stream("1"))],
            "cell 12: it answers a **Predict**",
        ),
        (
            [code("draw()", shown(alt=" ", image_png="aGk=")), new_markdown_cell("Figure: x.")],
            "cell 10: its image has no",
        ),
    ],
)
def test_a_prediction_that_is_given_away_or_an_image_without_words_fails(tmp_path, cells, expected):
    (problem,) = found_in(tmp_path, with_cell(*cells))
    assert problem.startswith(expected)


@pytest.mark.parametrize("after", [[], [new_markdown_cell("A figure.")], [code("print('Figure:')")]])
def test_a_image_without_a_caption_fails(tmp_path, after):
    image = code("draw()", shown(image_png="aGk=", text_plain="<Figure>"))
    (problem,) = found_in(tmp_path, with_cell(image, *after))
    assert problem.startswith("cell 10: its image has no caption")
