"""Small images, weights and settings, on which a training takes a second; and a list of the files that are opened."""

import sys
from contextlib import contextmanager
from pathlib import Path

import numpy
import torch
from PIL import Image
from safetensors.torch import save_file

from helpers import models, runs, settings, transfer

SETTING = {"scratch_size": 32, "transfer_size": 32, "scratch_epochs": 2, "transfer_epochs": 2}
CHOICES = ("SETTING", "BACKBONE", "WEIGHTS", "ARCHIVES", "PRECISION", "CACHE")


def draw_classes(folder, names=("ants", "bees", "wasps"), *, count=8, seed=0):
    """A folder with a class folder for each name; each class has a colour of its own."""
    generator = numpy.random.default_rng(seed)
    for label, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = generator.integers(0, 120, (40, 40, 3), dtype=numpy.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def slim_weights(file):
    """A weights file of a slim VGG16 for small images."""
    torch.manual_seed(0)
    save_file(models.VGG16(5, width=1 / 8, image_size=32).state_dict(), file)
    return file


def alone(monkeypatch, folder):
    """No choice of the user's, and features in a folder of the test's own."""
    for name in CHOICES:
        monkeypatch.delenv(f"COURSE_{name}", raising=False)
    monkeypatch.setattr(transfer, "FEATURES", folder)
    photos = settings.replace(settings.SETTINGS["photos"], **SETTING)
    monkeypatch.setitem(settings.SETTINGS, "photos", photos)


def alone_in_an_empty_folder(monkeypatch, folder):
    """The same, with an empty working folder and the features inside of a test's own folder."""
    alone(monkeypatch, folder / "features")
    (folder / "here").mkdir()
    monkeypatch.chdir(folder / "here")


def untrained_run(folder):
    """The folder of a run that knows ants from bees, untrained."""
    about = {"network": "small_cnn", "classes": ["ants", "bees"], "image_size": 32}
    torch.manual_seed(0)
    runs.save_run(runs.Run(models.SmallCNN(2), about, runs.History(), summary={"epochs": 0}), folder)
    return folder


# ------------------------------------------------------------------------------- opened files

_opened: list[list[Path]] = []  # one list for each watch that is going on


def _note(event, arguments):
    """Python calls this at every event; those called "open" name a file."""
    if _opened and event == "open" and isinstance(arguments[0], str | Path):
        for names in _opened:
            names.append(Path(arguments[0]))


sys.addaudithook(_note)


@contextmanager
def opened_below(folder):
    """The names of the files below a folder that are opened meanwhile, each as often as it is opened."""
    paths, names = [], []
    _opened.append(paths)
    try:
        yield names
    finally:
        _opened.remove(paths)
        names += [path.relative_to(folder).as_posix() for path in paths if path.is_relative_to(folder)]
