"""What every test run shares: the notebooks' tolerance, sanitize file and kernel environment."""

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest
from nbval.plugin import IPyNbCell

ROOT = Path(__file__).resolve().parent
# The folders, not a package called "tests": some published wheels install a package of that name.
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

from notebooks import sample_environment  # noqa: E402  (tools/notebooks.py, found through the line above)

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many processes as cores run the tests: threads in each of them would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

pytest_plugins = ["nbval_tolerance", "pytester"]


def pytest_configure(config):
    """Name the sanitize file by its full path: nbval would look for it in pytest's working folder."""
    if config.option.nbval_sanitize_with is None:
        config.option.nbval_sanitize_with = str(ROOT / "tests" / "nbval_sanitize.cfg")


def pytest_collection_modifyitems(items):
    """Skip the Keras lesson, and say why, where Keras is not installed."""
    if find_spec("keras"):
        return
    for item in items:
        if isinstance(item, IPyNbCell) and item.path.stem == "06_the_same_in_keras":
            item.add_marker(pytest.mark.skip(reason="Keras is not installed: pip install keras"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Start the notebooks' kernels in the sample setting; all other tests keep the user's environment."""
    if not isinstance(item, IPyNbCell):
        return (yield)
    with mock.patch.dict(os.environ, sample_environment(), clear=True):
        return (yield)
