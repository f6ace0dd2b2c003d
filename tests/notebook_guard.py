"""What a notebook must be so that nbval's comparison of it means something.

Each rule yields one line per problem, and `problems(path, setup)` applies them all. nbval passes a
cell that was never executed, ignores images, and knows nothing of how a lesson should look.
"""

import ast
import io
import re
import tokenize

import nbformat
from nbval.plugin import find_comment_markers, find_metadata_tags

# How many cells of each notebook nbval must compare. Raise a floor when a lesson gains compared cells; lower
# it only when cells were removed on purpose, never because a cell was tagged as ignored.
FLOORS = {
    "00_start_here": 5,
    "01_cnn_from_scratch": 18,
    "02_vgg_transfer_learning": 19,
    "03_vgg16_by_hand": 16,
    "04_fine_tuning": 18,
    "05_know_your_pictures": 21,
    "06_the_same_in_keras": 16,
    "07_inside_the_network": 15,
    "08_what_transfer_is_worth": 14,
    "09_your_own_images": 17,
    "10_from_laptop_to_cluster": 18,
}

MOST_BYTES = 1_000_000
MOST_CELLS = 49
MOST_LINES = 16  # the set-up cell may have more
LIVE_DISPLAY = {"clear_output", "update_display", "display_id"}  # what they leave depends on timing
MACHINE_PATH = re.compile(r"/home/|/root/|/tmp/|/Users/|[A-Z]:\\+Users")
UNCOMPARED_MIMES = {"image/png", "image/jpeg", "application/vnd.jupyter.widget-view+json"}


def problems(path, setup, floors=None):
    """Return every problem of a notebook file, one line each; `setup` is the set-up cell it must hold."""
    notebook = nbformat.read(path, as_version=4)
    found = list(size_problems(path, notebook))
    found += floor_problems(path.stem, notebook, FLOORS if floors is None else floors)
    found += setup_problems(notebook, setup)
    for rule in RULES:
        found += rule(notebook)
    for number, cell in code_cells(notebook):
        most = MOST_LINES if cell.source != setup else len(setup.splitlines())
        rules = (*source_problems(cell.source, most), *output_problems(cell.outputs))
        found += [f"cell {number}: {rule}" for rule in rules]
    return found


def code_cells(notebook):
    """Return (number, cell) of the code cells; the number counts all cells from 1."""
    return [(number, cell) for number, cell in enumerate(notebook.cells, start=1) if cell.cell_type == "code"]


def size_problems(path, notebook):
    """A lesson stays small enough to read, to diff and to open."""
    if path.stat().st_size > MOST_BYTES:
        yield f"the file has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}"
    if len(notebook.cells) > MOST_CELLS:
        yield f"there are {len(notebook.cells)} cells, more than {MOST_CELLS}"


def floor_problems(name, notebook, floors):
    """So many cells are really compared."""
    count = sum(is_compared(cell) for _, cell in code_cells(notebook))
    if name not in floors:
        yield f'no floor; {count} cells are compared: add "{name}": {count} to FLOORS in notebook_guard.py'
    elif count < floors[name]:
        yield f"only {count} cells are compared, the floor is {floors[name]}"


def is_compared(cell):
    """Say whether nbval compares something of this cell that a reader would call a result."""
    options = dict(find_metadata_tags(cell.metadata)) | dict(find_comment_markers(cell.source))
    ignored = options.get("skip") or options.get("check_exception") or not options.get("check", True)
    return not ignored and any(is_compared_output(output) for output in cell.outputs)


def is_compared_output(output):
    """Say whether an output has compared text; the "<Figure size ...>" beside an image does not count."""
    if output.output_type == "stream":
        return output.name == "stdout" and bool(output.text.strip())
    return bool(output.get("data")) and not UNCOMPARED_MIMES & set(output.data)


def setup_problems(notebook, setup):
    """The set-up cell is there once, is the first code cell, and is the same in all notebooks."""
    tagged = [number for number, cell in code_cells(notebook) if "setup" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        yield f"{len(tagged)} code cells are tagged 'setup', there must be one"
    elif tagged[0] != code_cells(notebook)[0][0]:
        yield f"cell {tagged[0]}: the set-up cell is not the first code cell"
    elif notebook.cells[tagged[0] - 1].source != setup:
        yield f"cell {tagged[0]}: the set-up cell is not the stamped one; run tools/notebooks.py stamp"


def execution_problems(notebook):
    """Every code cell was executed, once, from top to bottom."""
    for expected, (number, cell) in enumerate(code_cells(notebook), start=1):
        if cell.execution_count is None:
            yield f"cell {number}: not executed"
        elif cell.execution_count != expected:
            yield f"cell {number}: executed as number {cell.execution_count}, expected {expected}"


def caption_problems(notebook):
    """The cell after an image is markdown that contains "Figure:" and says what to see."""
    for number, cell in code_cells(notebook):
        images = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        after = notebook.cells[number] if number < len(notebook.cells) else cell
        if images and not (after.cell_type == "markdown" and "Figure:" in after.source):
            yield f"cell {number}: its image has no caption: the next cell must be markdown with 'Figure:'"


def collapse_problems(notebook):
    """Exactly the cells tagged 'hide-output' have their outputs collapsed, in every program that can do it."""
    for number, cell in code_cells(notebook):
        tagged = "hide-output" in cell.metadata.get("tags", [])
        collapsed = [
            cell.metadata.get("jupyter", {}).get("outputs_hidden", False),
            cell.metadata.get("collapsed", False),
        ]
        if collapsed != [tagged, tagged]:
            yield f"cell {number}: tagged 'hide-output' or collapsed, not both; run tools/notebooks.py run"


def prediction_problems(notebook):
    """Below a text that asks for a prediction, the cells up to the next text have their outputs collapsed."""
    asked = False
    for number, cell in enumerate(notebook.cells, start=1):
        if cell.cell_type == "markdown":
            asked = "**Predict" in cell.source
        elif asked and cell.outputs and "hide-output" not in cell.metadata.get("tags", []):
            yield f"cell {number}: it answers a **Predict**, so it needs the tag 'hide-output'"


def alt_text_problems(notebook):
    """Every image says in words what it shows, for those who do not see it."""
    for number, cell in code_cells(notebook):
        for output in cell.outputs:
            metadata = output.get("metadata", {}).get("image/png", {})
            if "image/png" in output.get("data", {}) and not metadata.get("alt", "").strip():
                yield f"cell {number}: its image has no alt text"


RULES = (execution_problems, caption_problems, collapse_problems, prediction_problems, alt_text_problems)


def source_problems(source, most):
    """A cell has at most so many lines of plain Python, and its result is shown and stays."""
    lines = len(source.splitlines())
    if lines > most:
        yield f"{lines} lines, more than {most}"
    try:
        ast.parse(source)
    except SyntaxError as error:
        yield f"not plain Python (a magic, a shell escape, a ?): {(error.text or '').strip()}"
        return
    tokens = meaningful_tokens(source)
    if tokens and tokens[-1] == ";":
        yield "the trailing ; hides the result"
    if "get_ipython" in tokens:
        yield "get_ipython() is a magic in disguise"
    for name in sorted(LIVE_DISPLAY & set(tokens)):
        yield f"{name} makes outputs that depend on timing"


def meaningful_tokens(source):
    """Return the tokens of a source that are neither comments nor line ends."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type != tokenize.COMMENT and token.string.strip()]


def output_problems(outputs):
    """Outputs hold no errors, no warnings, nothing nbval compares by accident, and no path of a machine."""
    for output in outputs:
        if output.output_type == "error":
            yield f"an error output, {output.ename}"
        if output.output_type == "stream" and output.name == "stderr":
            yield f"output on stderr, a warning or a progress bar: {output.text.strip()[:60]}"
        if "image/svg+xml" in output.get("data", {}):
            yield "an SVG image, which nbval compares as text"
        for match in MACHINE_PATH.finditer("\n".join(output_texts(output))):
            yield f"a path of someone's machine, {match.group()}..."
            break


def output_texts(output):
    """Return every text of an output, without its images."""
    texts = [str(output.get(name, "")) for name in ("text", "evalue", "traceback")]
    data = output.get("data", {})
    return texts + [str(value) for mime, value in data.items() if not mime.startswith("image/")]
