"""The tolerance plugin and the sanitize file: what they let pass, and that they fail what they must."""

import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbval.plugin import IPyNbCell, get_sanitize_patterns
from nbval_tolerance import TolerantText, differences, pytest_configure, read_tags

ROOT = Path(__file__).resolve().parent.parent
SANITIZE_FILE = ROOT / "tests" / "nbval_sanitize.cfg"


def agree(reference, result, *tags):
    """Say whether two texts agree under a cell's tags."""
    return not differences(reference, result, read_tags(tags))


@pytest.mark.parametrize(
    ("reference", "result", "tag"),
    [
        ("accuracy 0.80", "accuracy 0.85", "tolerance=0.05"),  # the limit itself
        ("accuracy 0.85", "accuracy 0.80", "tolerance=0.05"),
        ("change -0.02", "change  0.02", "tolerance=0.05"),
        ("change=-0.02", "change=0.02", "tolerance=0.05"),
        ("change −0.02", "change 0.02", "tolerance=0.05"),
        ("accuracy 83.3 %", "accuracy 88.3 %", "tolerance=0.05"),
        ("accuracy 97%", "accuracy 100%", "tolerance=0.05"),
        ("loss  9.98\nloss 10.02", "loss 10.02\nloss  9.98", "tolerance=0.05"),
        ("1,234,567.5 per run", "1,234,000.5 per run", "tolerance=5%"),
        ("rate 1.50e-03", "rate 1.55e-03", "tolerance=5%"),
        ("rate 1e-05", "rate 1.02e-05", "tolerance=5%"),
        ("0.50-0.70", "0.52-0.69", "tolerance=0.05"),
        ("0.50x faster", "0.53x faster", "tolerance=0.05"),
        ("[[41  9]\n [ 8 42]]", "[[39 11]\n [10 40]]", "tolerance-integers=2"),
        ("loss nan", "loss nan", "tolerance=0.05"),
        ("<td>0.80</td>", "<td>0.81</td>", "tolerance=0.05"),
    ],
)
def test_numbers_within_the_tolerance_agree(reference, result, tag):
    assert agree(reference, result, tag)


@pytest.mark.parametrize(
    ("reference", "result", "tag"),
    [
        ("accuracy 0.80", "accuracy 0.8501", "tolerance=0.05"),
        ("accuracy 83.3 %", "accuracy 88.4 %", "tolerance=0.05"),
        ("accuracy 83.3 %", "accuracy 83.3", "tolerance=0.05"),
        ("1,000.0", "1,050.1", "tolerance=5%"),
        ("0.0", "0.1", "tolerance=5%"),
        ("accuracy 0.80", "Accuracy 0.80", "tolerance=0.05"),
        ("accuracy 0.80", "accuracy 0.80 ", "tolerance=0.05"),
        ("0.80", "0.80 0.80", "tolerance=0.05"),
        ("2000 images", "2001 images", "tolerance=0.05"),
        ("138,357,544 parameters", "138,357,545 parameters", "tolerance=5%"),
        ("1", "1.0", "tolerance=0.05"),
        ("1.0", "1", "tolerance=0.05"),
        ("0.01-0.02", "0.01 0.02", "tolerance=0.05"),
        ("vgg16 0.80", "vgg19 0.80", "tolerance-integers=5"),
        ("torch 2.9.1", "torch 2.9.2", "tolerance-integers=5"),
        ("0x7f12", "0x7f13", "tolerance-integers=5"),
        ("loss 0.80", "loss nan", "tolerance=5"),
        ("loss nan", "loss 0.80", "tolerance=5"),
        ("loss inf", "loss 0.80", "tolerance=50%"),
        ("loss 1e999", "loss 0.80", "tolerance=50%"),
        ("[[41  9]]", "[[38 12]]", "tolerance-integers=2"),
        ("0.80", "0.90", "tolerance-integers=2"),
    ],
)
def test_anything_else_differs(reference, result, tag):
    assert not agree(reference, result, tag)


@pytest.mark.parametrize(
    "tags",
    [
        ["tolerance"],
        ["tolerance="],
        ["tolerance=five"],
        ["tolerance=-0.05"],
        ["tolerance=0"],
        ["tolerance=0.05 "],
        ["tolerance=.05"],
        ["tolerance = 0.05"],
        ["Tolerance=0.05"],
        ["tolerances=0.05"],
        ["tolerance-integer=3"],
        ["tolerance=inf"],
        ["tolerance=0.05", "tolerance=5%"],
    ],
)
def test_a_tag_that_cannot_be_read_is_an_error(tags):
    with pytest.raises(ValueError, match="tolerance"):
        read_tags(tags)


def test_other_tags_are_none_of_its_business():
    assert read_tags(["setup", "nbval-ignore-output"]) == {}


def test_a_report_names_the_number_and_what_was_allowed():
    allowed = read_tags(["tolerance=5%"])
    assert differences("0.80 and 7", "0.90 and 8", allowed) == [
        "stored 0.80, now 0.90: it may change by 5 % of the stored number",
        "stored 7, now 8: it must be equal (no tolerance-integers tag)",
    ]


def test_a_tolerant_text_never_equals_something_that_is_no_text():
    assert TolerantText("1", {}) != 1


def test_an_nbval_that_lost_a_method_stops_the_run(monkeypatch):
    monkeypatch.delattr(IPyNbCell, "sanitize")
    with pytest.raises(pytest.UsageError, match="sanitize"):
        pytest_configure(config=None)


# ---- the same through nbval, on a doctored notebook ----

CASES = {  # name: (source, stored output, tags, expected outcome)
    "stream within": ("print('accuracy 0.85')", "accuracy 0.80\n", ["tolerance=0.05"], "passed"),
    "stream outside": ("print('accuracy 0.86')", "accuracy 0.80\n", ["tolerance=0.05"], "failed"),
    "stream untagged": ("print('accuracy 0.85')", "accuracy 0.80\n", [], "failed"),
    "stream text": ("print('precision 0.80')", "accuracy 0.80\n", ["tolerance=0.05"], "failed"),
    "stream integer": ("print('0.80 of 2001')", "0.80 of 2000\n", ["tolerance=0.05"], "failed"),
    "stream integer allowed": ("print('41 right')", "40 right\n", ["tolerance-integers=1"], "passed"),
    "stream in two parts": ("print(0.81)\nprint(0.79)", "0.8\n0.8\n", ["tolerance=0.05"], "passed"),
    "stream missing": ("pass", "accuracy 0.80\n", ["tolerance=0.05"], "failed"),
    "duration and tolerance": ("print('0.81 in 12.3 s')", "0.80 in 9.1 s\n", ["tolerance=0.05"], "passed"),
    "duration, number outside": ("print('0.91 in 12.3 s')", "0.80 in 9.1 s\n", ["tolerance=0.05"], "failed"),
    "result within": ("0.85", {"text/plain": "0.80"}, ["tolerance=0.05"], "passed"),
    "result outside": ("0.86", {"text/plain": "0.80"}, ["tolerance=0.05"], "failed"),
    "result not a number": ("float('nan')", {"text/plain": "0.80"}, ["tolerance=0.05"], "failed"),
    "thousands": ("print('1,250.0')", "1,200.0\n", ["tolerance=5%"], "passed"),
    "bad tag": ("bad = 0.80; print(bad)", "0.80\n", ["tolerance=much"], "failed"),
    "bad tag, no output": ("later = 'defined'", None, ["tolerance=much"], "failed"),
    "cell after a bad tag": ("print(later)", "defined\n", [], "passed"),
}


def make_output(stored):
    """Return a cell's outputs: a stream for a text, a result for a dictionary."""
    if stored is None:
        return []
    if isinstance(stored, str):
        return [nbformat.v4.new_output("stream", name="stdout", text=stored)]
    return [nbformat.v4.new_output("execute_result", data=stored, execution_count=1)]


def write_notebook(path, cases):
    """Write a notebook with one executed cell per (source, stored output, tags)."""
    notebook = nbformat.v4.new_notebook()
    for number, (source, stored, tags) in enumerate(cases, start=1):
        outputs, metadata = make_output(stored), {"tags": tags}
        cell = nbformat.v4.new_code_cell(source, outputs=outputs, metadata=metadata, execution_count=number)
        notebook.cells.append(cell)
    nbformat.write(notebook, path)


@pytest.fixture
def course(pytester):
    """A small copy of the course: its conftest, its test tools, and an empty notebooks folder."""
    shutil.copy(ROOT / "conftest.py", pytester.path)
    for folder in ("tests", "tools", "notebooks"):
        (pytester.path / folder).mkdir()
    for path in [*(ROOT / "tests").glob("nbval_*"), *(ROOT / "tools").glob("*.py")]:
        shutil.copy(path, pytester.path / path.relative_to(ROOT))
    return pytester


def outcomes(result):
    """Return each cell's outcome, in order, from pytest's summary."""
    found = re.findall(r"^(PASSED|FAILED) \S+::Cell (\d+)", result.stdout.str(), re.MULTILINE)
    return [outcome.lower() for outcome, number in sorted(found, key=lambda pair: int(pair[1]))]


CHOICES = "import os\nprint(sorted(f'{k}={v}' for k, v in os.environ.items() if k.startswith('COURSE_')))"
KERNEL = {  # the setting of the lessons, the notebook's folder, this interpreter
    "setting": (CHOICES, "['COURSE_SETTING=sample']\n", [], "passed"),
    "folder": ("print(os.path.basename(os.getcwd()))", "notebooks\n", [], "passed"),
    "interpreter": (f"import sys\nprint(sys.executable == {sys.executable!r})", "True\n", [], "passed"),
}
ORDINARY_TEST = """
import os, pytest

@pytest.fixture
def setting():
    return os.environ["COURSE_SETTING"]

def test_it(setting):
    assert setting == os.environ["COURSE_SETTING"] == "photos"
"""


def test_nbval_keeps_to_the_tolerance_and_only_notebooks_get_the_sample_setting(course, monkeypatch):
    for name in [name for name in os.environ if name.startswith("COURSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("COURSE_SETTING", "photos")
    for name in ("COURSE_BACKBONE", "COURSE_WEIGHTS", "COURSE_ARCHIVES"):
        monkeypatch.setenv(name, "from the shell")
    cases = CASES | KERNEL
    write_notebook(course.path / "notebooks" / "doctored.ipynb", [case[:3] for case in cases.values()])
    course.makepyfile(ORDINARY_TEST)
    # In this process, and so with one start of Python less.
    result = course.runpytest_inprocess("--nbval", "--nbval-current-env", "-rA", "--color=no")
    expected = {name: case[3] for name, case in cases.items()}
    assert dict(zip(cases, outcomes(result), strict=True)) == expected
    result.stdout.fnmatch_lines(["*stored 0.80, now 0.86: it may change by 0.05*"])
    result.stdout.fnmatch_lines(["*The tag 'tolerance=much' is not understood*"])
    result.stdout.fnmatch_lines(["*accuracy 0.80*"])
    result.stdout.fnmatch_lines(["PASSED *::test_it"])


# ---- the sanitize file ----


def sanitize_problems(text):
    """Return what nbval would silently ignore in a sanitize file."""
    lines = text.splitlines()
    following = dict(zip(lines, [*lines[1:], ""], strict=True))
    regexes = [line for line in lines if line.lstrip().startswith("regex")]
    lonely = [line for line in regexes if not following[line].startswith("replace: ")]
    pairs = get_sanitize_patterns(text)
    unread = [] if len(pairs) == len(regexes) else [f"nbval reads {len(pairs)} of {len(regexes)} pairs"]
    twice = [] if len(dict(pairs)) == len(pairs) else ["one regex stands twice"]
    return lonely + unread + twice


def sanitized(text):
    """Return a text as nbval compares it."""
    for regex, replace in get_sanitize_patterns(SANITIZE_FILE.read_text(encoding="ascii")):
        text = re.sub(regex, replace, text)
    return text


def test_every_regex_of_the_sanitize_file_is_read():
    text = SANITIZE_FILE.read_text(encoding="ascii")  # nbval opens it in the encoding of the machine
    assert get_sanitize_patterns(text)
    assert sanitize_problems(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "regex: a\n\nreplace: b\n",
        "regex: a\n# why\nreplace: b\n",
        "regex:a\nreplace: b\n",
        " regex: a\nreplace: b\n",
        "regex: a\nreplace:b\n",
        "regex: a\nreplace: b\nregex: c\n",
    ],
)
def test_a_pair_that_nbval_would_ignore_is_found(text):
    assert sanitize_problems(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("done in 12.3 s", "done in DURATION"),
        ("done in    9.1 s.", "done in DURATION."),
        ("took 1.2 min (1,200 ms)", "took DURATION ( DURATION)"),
        ("123 images/s", " SPEED"),
        ("1,234.5 images per second", " SPEED"),
        ("2031-01-02 13:14:15", "DATE"),
        ("torch 2.9.1+cu128, Python 3.12.1", "torch VERSION, Python VERSION"),
        ("weights: imagenet, precision: bfloat16", "weights: imagenet, precision: PRECISION"),
        ("dtype: torch.float32, precision: 0.85", None),
        ("accuracy 0.85", "accuracy 0.85"),
        ("138,357,544 parameters, 224 pixels, 3 splits, 5 samples", None),
        ("vgg16 small, 12 heads, 2 hidden", None),
    ],
)
def test_the_sanitize_file_replaces_what_a_machine_decides_and_nothing_else(text, expected):
    assert sanitized(text) == (text if expected is None else expected)
