"""The wheel carries all that the package needs, so that the course also works without its clone."""

import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUILD = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"
FILES = (
    "pyproject.toml",
    "requirements.txt",
    "requirements-keras.txt",
    "requirements-export.txt",
    "requirements-tests.txt",
    "requirements-timm.txt",
    "requirements-lite0.txt",
    "README.md",
    "LICENSE",
)
FOLDERS = ("helpers", "data/sample", "data/drawing")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with what the wheel holds, built from a copy: a build leaves its own files in the source."""
    pytest.importorskip("setuptools", minversion="77", reason="building the wheel needs setuptools 77")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for name in FILES:
        shutil.copy(ROOT / name, source)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name)
    subprocess.run([sys.executable, "-c", BUILD, str(target)], cwd=source, check=True, capture_output=True)
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def contents(folder):
    """Return {path inside the folder: bytes} of its files, without what Python caches."""
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_it_holds_the_package_the_whole_sample_and_what_draws_it(installed):
    expected, found = contents(ROOT / "helpers"), contents(installed / "helpers")
    for part in ("sample", "drawing"):
        expected |= {f"{part}/{name}": data for name, data in contents(ROOT / "data" / part).items()}
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert sum(name.endswith(".jpg") for name in found) == 800


@pytest.mark.parametrize("clone", [False, True])
def test_the_settings_find_the_sample_in_a_wheel_and_in_a_clone(installed, clone):
    package = ROOT / "helpers" if clone else installed.resolve() / "helpers"
    sample = ROOT / "data" / "sample" if clone else package / "sample"
    assert runpy.run_path(str(package / "settings.py"))["SAMPLE"] == sample
