"""The embedded sample: what is committed is what its script draws, and it is small and balanced."""

import importlib.util
import json
from pathlib import Path

import numpy
import pytest
from PIL import Image
from safetensors import safe_open

from helpers import models
from helpers.settings import SAMPLE

WEIGHTS = ("vgg16_slim.safetensors", "vgg16_bn_slim.safetensors")


def load_script(name):
    """One of the scripts beside the sample, as a module."""
    spec = importlib.util.spec_from_file_location(name, SAMPLE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


draw = load_script("draw")


def pixels(image):
    return numpy.asarray(image.convert("RGB"), dtype=float)


@pytest.mark.parametrize(("split", "count"), [("train", 200), ("val", 50), ("test", 150)])
def test_every_split_has_its_images(split, count):
    for name in ("cats", "dogs"):
        files = sorted((SAMPLE / split / name).iterdir())
        assert [file.name for file in files] == [f"{i:03d}.jpg" for i in range(count)]
        assert {Image.open(file).size for file in files} == {(96, 96)}
        assert {Image.open(file).mode for file in files} == {"RGB"}


@pytest.mark.parametrize(
    ("split", "folder", "index"), [("train", "cats", 0), ("val", "dogs", 49), ("test", "cats", 77)]
)
def test_the_script_draws_the_committed_images(split, folder, index):
    drawn = pixels(draw.draw_animal(draw.FOLDERS[folder], (draw.SEED, split, index)))
    stored = pixels(Image.open(SAMPLE / split / folder / f"{index:03d}.jpg"))
    other = pixels(Image.open(SAMPLE / split / folder / f"{index - 1 if index else 1:03d}.jpg"))
    assert abs(drawn - stored).mean() < 10  # what JPEG at this quality loses, and Pillow's versions differ in
    assert abs(drawn - other).mean() > 20


def test_no_two_images_are_the_same():
    files = list(SAMPLE.rglob("*.jpg"))
    assert len({file.read_bytes() for file in files}) == len(files) == 800


def test_images_and_weights_are_small():
    assert sum(file.stat().st_size for file in SAMPLE.rglob("*.jpg")) <= 4_000_000
    assert sum((SAMPLE / name).stat().st_size for name in WEIGHTS) <= 4_000_000


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_weights_say_what_they_are(name):
    with safe_open(SAMPLE / name, "pt") as file:
        about = file.metadata()
    classes = json.loads(about["classes"])
    assert tuple(classes) == draw.PRETRAINING
    assert len(classes) >= 24
    assert not {"cat", "dog"} & set(classes)
    assert {"pictures", "epochs", "held_out_accuracy", "torch", "pillow", "date", "licence", "seed"} <= set(about)
    backbone = Path(name).name.removesuffix("_slim.safetensors")
    assert models.load_backbone(backbone, SAMPLE / name).classifier[6].out_features == len(classes)
