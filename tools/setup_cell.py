"""The first code cell of every notebook, kept here once; `python tools/notebooks.py stamp` writes it in."""

TEMPLATE = """\
# In Google Colab: fetch the course and work in its notebooks folder. Elsewhere: nothing to do.
import os
import sys
from importlib.util import find_spec

COURSE = "{repository}"
if find_spec("google") and find_spec("google.colab"):
    if not os.path.exists("../helpers"):  # not in the notebooks folder yet
        if not os.path.exists("course") and os.system(f"git clone --depth 1 {{COURSE}} course") != 0:
            raise RuntimeError(f"The course could not be fetched from {{COURSE}}: is there a network?")
        os.chdir("course/notebooks")
    sys.path.insert(0, os.path.dirname(os.getcwd()))  # where helpers is"""


def setup_source(repository):
    """Return the set-up cell for a repository's address."""
    return TEMPLATE.format(repository=repository)
