"""Spoil a copy of some images on purpose, and remember how, so that lesson 5 can count what an audit finds of it."""

import io
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path

import numpy
from PIL import Image, ImageEnhance, ImageOps

from .data import Splits, load_image
from .settings import CourseError

# How much a collection is thinned out to: about so many images in all, or so many of each class if that is more.
ENOUGH = {"train": (400, 20), "validation": (100, 5), "test": (300, 15)}
LEAST, LEAST_OF_CLASS = 100, 10  # training images, without which too few would be left healthy
WRONG_LABELS, COPIES = 8, 4  # one training image in 8 gets a wrong label, one test image in 4 a copy in train


@dataclass
class Planted:
    """What was planted: the files by the kind of finding that an audit should report, and the wrong labels."""

    files: dict[str, set[Path]] = field(default_factory=dict)  # of two copies the one that should go
    wrong: dict[Path, Path] = field(default_factory=dict)  # where a file is: where it belongs

    def add(self, path: Path, *kinds: str) -> None:
        """Remember a file that was planted."""
        for kind in kinds:
            self.files.setdefault(kind, set()).add(path)


def thin_out(splits: Splits) -> Splits:
    """As many images as lesson 5 needs, spread evenly over each class; the files stay where they are.

    Raises CourseError if there are too few to spoil some of them.
    """
    counts = [sum(label == i for _, label in splits.train) for i in range(len(splits.classes))]
    if len(splits.train) < LEAST or min(counts) < LEAST_OF_CLASS:
        raise CourseError(
            f"This lesson spoils some of its images, and needs {LEAST} or more for training, {LEAST_OF_CLASS} or more "
            f"of each class; here are {len(splits.train)}, {min(counts)} of the smallest class. Choose a larger folder "
            '(about 160 images, if it is not split yet), or the "sample".'
        )
    parts = {name: thin_out_part(part, len(splits.classes), *ENOUGH[name]) for name, part in splits.parts().items()}
    return replace(splits, **parts)


def thin_out_part(images: list, classes: int, most: int, of_each: int) -> list:
    """Every image, or every second one of each class, or every third one, and so on."""
    step = ceil(len(images) / max(most, of_each * classes))
    return [image for label in range(classes) for image in [pair for pair in images if pair[1] == label][::step]]


def spoil(splits: Splits, folder: Path, *, seed: int = 0) -> Planted:
    """Copy the images into `folder` as train, validation and test, and plant faults of every kind in train."""
    copies = {name: copy_images(part, folder / name, splits.classes) for name, part in splits.parts().items()}
    spare, planted = random.Random(seed).sample(copies["train"], len(copies["train"])), Planted()
    plant_copies(spare, planted, copies["test"][1], splits.classes)
    plant_copies_of_test(copies["test"][::COPIES], planted, folder / "train")
    plant_unreadable(spare, planted)
    plant_odd(spare, planted)
    plant_strangers(spare, planted, folder / "train", splits.classes)
    for path in spare[: len(copies["train"]) // WRONG_LABELS]:
        wrong = path.rename(other_class(path, splits.classes) / path.name)
        planted.wrong[wrong] = path
    return planted


def copy_images(images: list, folder: Path, classes: list[str]) -> list[Path]:
    """Copy images into class folders, numbered from 0000 on; returns the copies."""
    for label in {label for _, label in images}:
        (folder / classes[label]).mkdir(parents=True)
    return [
        Path(shutil.copyfile(path, folder / classes[label] / f"{number:04}{path.suffix}"))
        for number, (path, label) in enumerate(images)
    ]


def take(spare: list[Path], name: str) -> tuple[Image.Image, Path]:
    """Take one of the spare files for spoiling: its image, and its path under a new name."""
    path = spare.pop()
    return load_image(path), path.rename(path.with_name(name))


# ------------------------------------------------------------------------------------ the faults


def plant_unreadable(spare: list[Path], planted: Planted) -> None:
    """Four files that can't be read: cut short, empty, a web page, and one that claims 400 million pixels."""
    image, path = take(spare, "cut-short.jpg")
    image.save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    planted.add(path, "unreadable")
    contents = {"empty.jpg": b"", "web-page.jpg": b"<html>404</html>", "bomb.png": b"P6 20000 20000 255 "}
    for name, content in contents.items():
        _, path = take(spare, name)
        path.write_bytes(content)
        planted.add(path, "unreadable")


def plant_odd(spare: list[Path], planted: Planted) -> None:
    """Six files that can be read, but are not what they seem."""
    for name, (kind, spoil_one) in ODD.items():
        image, path = take(spare, name)
        spoil_one(image, path)
        planted.add(path, kind)


def turn(image: Image.Image, path: Path) -> None:
    """Save it lying on its side, with a note (EXIF) that says how to turn it, as phones do."""
    note = Image.Exif()
    note[0x0112] = 6  # orientation: turn by a quarter to see it upright
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=note)


def cut_out(image: Image.Image, path: Path) -> None:
    """Save it with a transparent background around a disc."""
    disc = Image.radial_gradient("L").resize(image.size).point(lambda distance: 255 * (distance < 128))
    Image.composite(image.convert("RGBA"), Image.new("RGBA", image.size), disc).save(path)


def in_16_bits(image: Image.Image, path: Path) -> None:
    """Save it in grey with 16 bits for each pixel, as scanners and microscopes do."""
    Image.fromarray(numpy.asarray(image.convert("L")).astype("uint16") * 257).save(path)


ODD: dict[str, tuple[str, Callable]] = {
    "from-a-phone.jpg": ("turned", turn),
    "sixteen-bits.png": ("converted", in_16_bits),
    "cut-out.png": ("converted", cut_out),
    "for-print.jpg": ("converted", lambda image, path: image.convert("CMYK").save(path)),
    "preview.jpg": ("tiny", lambda image, path: image.resize((16, 16)).save(path)),
    "really-a-png.jpg": ("wrong extension", lambda image, path: image.save(path, "PNG")),
}


def plant_strangers(spare: list[Path], planted: Planted, train: Path, classes: list[str]) -> None:
    """What does not belong there: a poster beside the class folders, a note, and a hidden folder of Jupyter's."""
    Image.new("L", (9500, 9500), "grey").save(train / "poster.jpg")
    planted.add(train / "poster.jpg", "enormous", "converted", "stray file")
    note = train / classes[0] / "notes.txt"
    note.write_text("Ask Kim about number 17.")
    planted.add(note, "stray file")
    hidden = train / ".ipynb_checkpoints"
    hidden.mkdir()
    for path in spare[:3]:
        shutil.copyfile(path, hidden / path.name)
    planted.add(hidden, "hidden folder")


# ------------------------------------------------------------------------------------ the copies


def save_again(image: Image.Image) -> Image.Image:
    """What a JPEG of low quality leaves of it."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=30)
    return Image.open(file).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "lower quality": save_again,
    "smaller": lambda image: image.resize((image.width * 3 // 4, image.height * 3 // 4)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "trimmed": lambda image: ImageOps.crop(image, border=image.width // 50),
}


def plant_copies_of_test(paths: list[Path], planted: Planted, train: Path) -> None:
    """Put a changed copy of each of these test images into train."""
    for number, path in enumerate(paths):
        target = train / path.parent.name / f"copy-{path.stem}.jpg"
        make = list(CHANGES.values())[number % len(CHANGES)]
        make(load_image(path)).save(target)
        planted.add(target, "near-duplicate across splits")


def plant_copies(spare: list[Path], planted: Planted, test: Path, classes: list[str]) -> None:
    """Copies of the same file and of a trimmed one: in the same class, in another class, and one of test in train.

    The originals are of the first class and the copies sort behind them, so that the copies are what an audit names.
    """
    first, second, third, fourth = originals = [path for path in spare if path.parent.name == classes[0]][:4]
    spare[:] = [path for path in spare if path not in originals]
    other, train = other_class(first, classes), first.parents[1]
    same = {
        "duplicate": (first, first.with_name(f"same-{first.name}")),
        "duplicate across classes": (second, other / f"same-{second.name}"),
        "duplicate across splits": (test, train / test.parent.name / f"same-test-{test.name}"),
    }
    trimmed = {
        "near-duplicate": (third, third.with_name(f"trimmed-{third.stem}.jpg")),
        "near-duplicate across classes": (fourth, other / f"trimmed-{fourth.stem}.jpg"),
    }
    for kind, (original, copy) in same.items():
        planted.add(Path(shutil.copyfile(original, copy)), kind)
    for kind, (original, copy) in trimmed.items():
        CHANGES["trimmed"](load_image(original)).save(copy)
        planted.add(copy, kind)


def other_class(path: Path, classes: list[str]) -> Path:
    """The folder of the class after that of a training image."""
    return path.parents[1] / classes[(classes.index(path.parent.name) + 1) % len(classes)]
