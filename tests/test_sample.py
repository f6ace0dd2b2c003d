"""The embedded sample: what is committed is what its code draws, and it is small and balanced."""

import importlib.util
import json
import sys
from io import BytesIO
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from helpers import models
from helpers.settings import SAMPLE

WEIGHTS = ("vgg16_slim.safetensors", "vgg16_bn_slim.safetensors")


def load(name, file):
    """A package or a script of the sample, under a name of our choice."""
    spec = importlib.util.spec_from_file_location(name, file)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Under this name only imports within the package, relative to it, can work.
drawing = load("drawing_under_another_name", SAMPLE.parent / "drawing" / "__init__.py")


@pytest.fixture
def scripts(monkeypatch):
    """Loads a script of the sample with its folder on the path, where Python puts it for a script."""
    monkeypatch.syspath_prepend(SAMPLE.parent)
    return lambda name: load(f"sample_{name}", SAMPLE.parent / f"{name}.py")


def pixels(image):
    return numpy.asarray(image.convert("RGB"), dtype=float)


def jpeg(image):
    """The image in a JPEG file of the sample's quality."""
    file = BytesIO()
    image.save(file, "JPEG", quality=88)
    return file


def assert_same(file, stored):
    """Two JPEG files hold one drawing: Pillow's versions differ by at most 6.1 in any block of 8 x 8 pixels."""
    with Image.open(file) as first, Image.open(stored) as second:
        assert first.quantization == second.quantization
        difference = abs(pixels(first) - pixels(second))
    blocks = difference.reshape(difference.shape[0] // 8, 8, -1, 8, 3).mean(axis=(1, 3, 4))
    assert blocks.max() < 8


@pytest.mark.parametrize(("split", "count"), [("train", 200), ("val", 50), ("test", 150)])
def test_every_split_has_its_images(split, count):
    for name in ("cats", "dogs"):
        files = sorted((SAMPLE / split / name).iterdir())
        assert [file.name for file in files] == [f"{i:03d}.jpg" for i in range(count)]
        assert {Image.open(file).size for file in files} == {(96, 96)}
        assert {Image.open(file).mode for file in files} == {"RGB"}


@pytest.mark.parametrize(("split", "indices"), [("train", (0, 199)), ("val", range(50)), ("test", (0, 77, 149))])
def test_the_code_draws_the_committed_images(split, indices):
    for species in ("cat", "dog"):
        for i in indices:
            drawn = drawing.draw_animal(species, (2014, split, i))
            assert_same(jpeg(drawn), SAMPLE / split / f"{species}s" / f"{i:03d}.jpg")


def test_the_code_draws_the_committed_overview(scripts):
    assert_same(jpeg(scripts("draw").draw_overview()), SAMPLE.parent / "animals.jpg")


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
    assert tuple(classes) == drawing.PRETRAINING
    assert len(classes) == len(set(classes)) == 37
    assert not {"cat", "dog"} & set(classes)
    assert {"pictures", "epochs", "held_out_accuracy", "torch", "pillow", "date", "licence", "seed"} <= set(about)
    backbone = Path(name).name.removesuffix("_slim.safetensors")
    assert models.load_backbone(backbone, SAMPLE / name).classifier[6].out_features == len(classes)


# ----------------------------------------------------------------------------- drawing


def test_a_seed_gives_one_image_and_another_seed_another():
    first, again, other = (drawing.draw_animal("owl", seed) for seed in ((1, "a"), (1, "a"), (1, "b")))
    assert first.size == (96, 96)
    assert first.tobytes() == again.tobytes()
    assert abs(pixels(first) - pixels(other)).mean() > 20
    assert drawing.draw_animal("owl", 3).tobytes() == drawing.draw_animal("owl", (3,)).tobytes()


def test_the_sample_is_drawn_whole_or_not_at_all(scripts, tmp_path, monkeypatch):
    draw = scripts("draw")
    monkeypatch.setattr(draw, "SPLITS", {"train": 2, "val": 1})
    (tmp_path / "train" / "cats").mkdir(parents=True)
    (tmp_path / "train" / "cats" / "old.jpg").write_bytes(b"old")
    with monkeypatch.context() as broken:
        broken.setattr(
            draw, "draw_animal", lambda species, seed: None if seed[1] == "val" else Image.new("RGB", (9, 9))
        )
        with pytest.raises(AttributeError):  # None can't be saved: the run stops in its second split
            draw.draw_sample(tmp_path)
    assert [path.name for path in tmp_path.rglob("*.jpg")] == ["old.jpg"]
    assert draw.draw_sample(tmp_path) == 6
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert files == [f"{place}.jpg" for place in ("train/cats/000", "train/cats/001", "train/dogs/000",
                                                  "train/dogs/001", "val/cats/000", "val/dogs/000")]  # fmt: skip
    assert_same(tmp_path / "val/dogs/000.jpg", SAMPLE / "val/dogs/000.jpg")


def test_pretraining_runs_and_writes_two_networks(scripts, tmp_path, monkeypatch):
    pretrain = scripts("pretrain")
    image = pretrain.draw_task((36, "train", 3))  # of the last species, with something in front
    drawn = drawing.draw_animal("bat", (2014, "pretrain-train", 3), cover=(0.3,))
    assert (image.transpose(1, 2, 0) == numpy.asarray(drawn)).all()
    images, labels = torch.tensor(image).repeat(8, 1, 1, 1), torch.arange(8)
    loaders = {split: pretrain.make_loader(images, labels, augment=split == "train") for split in pretrain.IMAGES}
    monkeypatch.setattr(pretrain, "draw_loaders", lambda per_species: loaders)
    pretrain.main(["--out", str(tmp_path), "--epochs", "1", "--per-species", "1"])
    plain, normalized = (models.load_backbone(n, tmp_path / f"{n}_slim.safetensors") for n in ("vgg16", "vgg16_bn"))
    inputs = torch.rand(2, 3, 96, 96)
    torch.testing.assert_close(plain.eval()(inputs), normalized.eval()(inputs), atol=0.02, rtol=0.02)  # half precision


# ----------------------------------------------------------------------------- styles


@pytest.fixture(scope="module")
def cat():
    return drawing.draw_animal("cat", (2014, "test", 55))


@pytest.mark.parametrize("style", ["pencil", "night", "x-ray"])
@pytest.mark.parametrize(
    ("mode", "size"), [("RGB", (96, 96)), ("RGB", (150, 70)), ("L", (40, 60)), ("RGBA", (300, 200))]
)
def test_a_style_keeps_the_size_and_the_image_given(cat, style, mode, size):
    image = cat.resize(size).convert(mode)
    before = image.tobytes()
    styled = drawing.restyle(image, style, (1, 2))
    assert (styled.mode, styled.size) == ("RGB", size)
    assert (image.mode, image.tobytes()) == (mode, before)
    assert drawing.restyle(image, style, (1, 2)).tobytes() == styled.tobytes()
    assert drawing.restyle(image, style, (1, 3)).tobytes() != styled.tobytes()


def test_the_styles_differ_from_the_original_and_from_each_other(cat):
    images = [pixels(image) for image in (cat, *(drawing.restyle(cat, s, 0) for s in ("pencil", "night", "x-ray")))]
    for i, first in enumerate(images):
        for second in images[i + 1 :]:
            assert abs(first - second).mean() > 25


def test_a_pencil_draws_dark_lines_on_pale_paper_without_colour(cat):
    styled = pixels(drawing.restyle(cat, "pencil", 0))
    assert styled.mean() > 180
    assert styled.min() < 100
    assert abs(styled[..., 0] - styled[..., 1]).mean() < 12


def test_a_night_is_dark_and_blue(cat):
    red, _, blue = pixels(drawing.restyle(cat, "night", 0)).mean(axis=(0, 1))
    assert red < 60
    assert blue > 1.5 * red


def test_an_x_ray_is_inverted_and_its_outlines_glow():
    square = Image.new("RGB", (96, 96), "black")
    square.paste("white", (24, 24, 72, 72))
    grey = pixels(drawing.restyle(square, "x-ray", 0)).mean(axis=2)
    inside, outside, outline = grey[40:56, 40:56].mean(), grey[4:12, 4:12].mean(), grey[40:56, 20:23].mean()
    assert inside < 40 < 80 < outside < 160 < outline


def test_an_unknown_style_is_refused_with_the_choices(cat):
    with pytest.raises(ValueError, match="no style 'xray'; choose one of pencil, night, x-ray"):
        drawing.restyle(cat, "xray", 0)
