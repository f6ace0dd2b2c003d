"""The first code cell of every notebook, kept here once; `python tools/notebooks.py stamp` writes it in."""

TEMPLATE = """\
# Find the course's folder, wherever this notebook runs; in Google Colab, fetch it first.
import os
import sys
from importlib.util import find_spec
from pathlib import Path

COURSE = "{repository}"
notebook = Path(globals().get("__vsc_ipynb_file__", "notebook")).resolve()  # VS Code tells its path
places = [*notebook.parents, *Path("notebook").resolve().parents, Path("course").resolve()]
found = [str(place) for place in places if os.path.exists(place / "helpers" / "settings.py")]
if not found and find_spec("google") and find_spec("google.colab"):
    if "OWNER/REPOSITORY" in COURSE:
        raise RuntimeError("This copy has no address to fetch: stamp it (README.md), or upload the folder course here.")
    if os.system(f"git clone --depth 1 {{COURSE}} course"):
        raise RuntimeError(f"{{COURSE}} was not fetched: is there a network, or a folder course in the way?")
elif not found and not find_spec("helpers"):
    raise RuntimeError("The folder helpers was not found: keep this notebook inside the course's folder.")
sys.path.insert(0, [*found, str(places[-1])][0])  # the nearest; in Colab, the one just fetched
print("Ready. The first import from helpers takes some seconds.")"""


def setup_source(repository):
    """Return the set-up cell for a repository's address."""
    return TEMPLATE.format(repository=repository)
