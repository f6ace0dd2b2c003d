"""From folders to splits to tensors, against PIL, hashlib, torchvision's own transforms and literal numbers."""

import errno
import hashlib
import io
import multiprocessing
import os
import pathlib
import random
import re
import shutil
import struct
import sys
import threading
import time
import unicodedata
import zipfile
import zlib
from collections import Counter
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
import torchvision
from PIL import Image, ImageOps
from torch.utils.data import RandomSampler, SequentialSampler
from torchvision import transforms as v1

from helpers import data
from helpers.settings import BadArgument, CourseError, choose_setting

# As torchvision's documentation gives them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PARTS = ("train", "validation", "test")


def noise(seed=0, size=(40, 30)):
    """An image of random colours."""
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=numpy.uint8))


def encoded(image, kind, **options):
    """The bytes of an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_image(path, *, seed=0, size=(8, 8), **options):
    """An image of random colours in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise(seed, size).save(path, **options)
    return path


def class_folders(folder, **counts):
    """One folder a class with so many images, no two alike."""
    for label, (name, count) in enumerate(counts.items()):
        for i in range(count):
            make_image(folder / name / f"{i}.png", seed=1000 * label + i)
    return folder


def read(folder, seed=0):
    return data.load_splits(choose_setting(str(folder)), seed=seed)


def sizes(splits):
    return tuple(len(getattr(splits, name)) for name in PARTS)


def where(splits):
    """The split of each file, by its class and name."""
    return {f"{path.parent.name}/{path.name}": name for name in PARTS for path, _ in getattr(splits, name)}


# ---- splits


def test_class_folders_are_cut_into_three_stratified_splits(tmp_path):
    splits = read(class_folders(tmp_path, ants=20, bees=40, wasps=10))
    assert splits.classes == ["ants", "bees", "wasps"]
    paths = [path for name in PARTS for path, _ in getattr(splits, name)]
    assert len(set(paths)) == len(paths) == 70
    for name in PARTS:
        part = getattr(splits, name)
        assert all(path.parent.name == splits.classes[label] for path, label in part)
        share = 0.6 if name == "train" else 0.2
        for label, total in enumerate((20, 40, 10)):
            assert sum(its == label for _, its in part) == pytest.approx(share * total, abs=0.15 * total)


def by_rule(names, seed, *, missing):
    """The split of each name by the rule of the design page, written down a second time."""
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
    low = sum(hashlib.sha256(f"{seed} {name}".encode()).digest()[0] < 128 for name in names)
    counts = {"test": round(0.4 * low) or 1, "validation": round(0.4 * (len(names) - low)) or 1}
    if missing == "validation":
        counts = {"test": 0, "validation": round(0.2 * len(names)) or 1}
    last = len(names) - counts["validation"]
    return {
        name: "test" if i < counts["test"] else "validation" if i >= last else "train" for i, name in enumerate(order)
    }


@pytest.mark.parametrize("seed", [0, 1])
def test_a_cut_is_the_published_rule_of_seed_and_name(tmp_path, seed):
    class_folders(tmp_path / "flat", a=30, b=9)
    names = {label: [f"{label}/{i}.png" for i in range(count)] for label, count in {"a": 30, "b": 9}.items()}
    expected = by_rule(names["a"], seed, missing="both") | by_rule(names["b"], seed, missing="both")
    assert where(read(tmp_path / "flat", seed)) == expected
    shutil.copytree(tmp_path / "flat", tmp_path / "two" / "train")
    class_folders(tmp_path / "two" / "test", a=3, b=3)
    (tmp_path / "two" / "test").rename(tmp_path / "two" / "Testing")
    expected = by_rule(names["a"], seed, missing="validation") | by_rule(names["b"], seed, missing="validation")
    splits = read(tmp_path / "two", seed)
    assert sizes(splits) == (31, 8, 6)
    assert where(replace(splits, test=[])) == expected


@pytest.mark.parametrize("layout", ["flat", "train and test", "train and validation"])
def test_the_cut_follows_the_seed(tmp_path, layout):
    class_folders(tmp_path if layout == "flat" else tmp_path / "train", a=20, b=20)
    if layout != "flat":
        class_folders(tmp_path / layout.split()[-1], a=3, b=3)
    assert read(tmp_path, seed=1) == read(tmp_path, seed=1)
    first, second = where(read(tmp_path, seed=1)), where(read(tmp_path, seed=2))
    for label in "ab":
        assert {name for name in first if name[0] == label and first[name] != second[name]}


def moved(names, seed, given=()):
    """A function that says, after the loss of a file, how many others are in another split."""
    folder = Path("/somewhere")

    def cut(names):
        images = {"train": [(folder / name, 0) for name in names]} | {split: [] for split in given}
        parts = data.cut_missing_splits(images, folder, seed=seed)
        return {path.name: split for split, part in parts.items() for path, _ in part}

    before = cut(names)
    assert set(before.values()) == {*PARTS} - {*given}

    def count(lost):
        after = cut([name for name in names if name != lost])
        return sum(before[path] != split for path, split in after.items())

    return count


@pytest.mark.parametrize("given", [(), ("test",), ("validation",)])
def test_a_file_that_comes_or_goes_moves_at_most_one_other(given):
    """Every class of 3 to 60 files, without each of its files."""
    for count in range(4, 61):
        names, seed = [f"a/{i:03d}.jpg" for i in range(count)], count % 7
        halves = {hashlib.sha256(f"{seed} {name}".encode()).digest()[0] < 128 for name in names}
        lose = moved(names, seed, given)
        assert max(map(lose, names)) <= (1 if len(halves) == 2 or given else 2)


def test_an_image_that_gets_damaged_moves_at_most_one_other(tmp_path):
    class_folders(tmp_path, a=25, b=25)
    before = where(read(tmp_path))
    for lost in ("a/3.png", "b/17.png"):
        content = (tmp_path / lost).read_bytes()
        (tmp_path / lost).write_bytes(content[:50])
        splits = read(tmp_path)
        assert [path.relative_to(tmp_path).as_posix() for path in splits.left_out] == [lost]
        assert sum(before[name] != split for name, split in where(splits).items()) <= 1
        (tmp_path / lost).write_bytes(content)


def test_a_split_depends_on_names_alone(tmp_path, monkeypatch):
    """Not on the place of the folder, nor on the order in which the disk lists the files."""
    before = read(class_folders(tmp_path / "here", a=30, b=30))
    shutil.copytree(tmp_path / "here", tmp_path / "else" / "where")
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: Backwards(scandir(folder)))
    after = read(tmp_path / "else" / "where")
    assert where(after) == where(before)
    assert [path.name for path, _ in after.train] == [path.name for path, _ in before.train]


class Backwards:
    """What `os.scandir` gives, the other way round."""

    def __init__(self, entries):
        with entries:
            self.entries = iter(sorted(entries, key=lambda entry: entry.name, reverse=True))

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.entries)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    close = __exit__


def test_accents_in_one_piece_or_two_are_one_name():
    """Linux keeps what a zip file says; macOS takes é apart."""
    names = [f"{letter}{i}.jpg" for letter in "éüñå" for i in range(10)]

    def cut(form, reverse=False):
        folder = Path("/d")
        paths = [folder / "a" / unicodedata.normalize(form, name) for name in names]
        parts = data.cut_missing_splits({"train": [(path, 0) for path in paths]}, folder, seed=3)
        return {
            split: [unicodedata.normalize("NFC", path.name) for path in sorted((p for p, _ in part), key=data.in_order)]
            for split, part in parts.items()
        }

    assert cut("NFC") == cut("NFD")


def test_files_are_in_the_order_of_their_letters_on_every_system(tmp_path, monkeypatch):
    """On Windows a Path is compared without regard to case."""
    names = ["B.png", "Z.png", "_.png", "a.png", "c.png", "d.png", "e.png", "É.png"]
    for label in ("Two", "one", "three"):
        for i, name in enumerate(names):
            make_image(tmp_path / label / name, seed=i + len(label) * 10)
    monkeypatch.setattr(pathlib.PurePath, "__lt__", lambda self, other: str(self).lower() < str(other).lower())
    splits = read(tmp_path)
    assert splits.classes == ["Two", "one", "three"]
    for name in PARTS:
        for label in range(3):
            found = [path.name for path, its_label in getattr(splits, name) if its_label == label]
            assert found == [name for name in names if name in found]


# ---- folders


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"), ("train", "validation", "test"), ("Train", "Val", "Test"), ("train", "valid", "test"),
        ("TRAIN", "VALID", "TEST"), ("training_set", "val_set", "test_set"), ("training", "validation", "testing"),
        ("Training Data", "Validation Data", "Test Data"), ("train-images", "val-images", "test-images"),
        ("trainset", "valset", "testset"), ("seg_train", "seg_val", "seg_test"), ("petsTrain", "petsVal", "petsTest"),
        ("TrainImages", "ValidationImages", "TestImages"), ("train_2017", "val_2017", "test_2017"),
    ],
)  # fmt: skip
def test_splits_are_known_in_every_spelling(tmp_path, names):
    for name, count in zip(names, (6, 2, 3), strict=True):
        class_folders(tmp_path / name, a=count, b=count)
    splits = read(tmp_path)
    assert splits.classes == ["a", "b"]
    assert sizes(splits) == (12, 4, 6)
    for name, split in zip(names, PARTS, strict=True):
        assert {path.parent.parent.name for path, _ in getattr(splits, split)} == {name}


def test_a_missing_split_is_cut_from_train(tmp_path):
    for split, count in {"Train": 10, "test": 3}.items():
        class_folders(tmp_path / split, a=count, b=count)
    splits = read(tmp_path)
    assert sizes(splits) == (16, 4, 6)
    assert {path.parent.parent.name for path, _ in splits.validation} == {"Train"}


REFUSED = {
    "a class that is called like a split": ("train/1 car/1 bus/1", "'?train'?.*, and bus, which is not"),
    "a class called valid": ("valid/1 invalid/1", "a folder valid, .*, and invalid, which is not"),
    "a test folder without classes": ("train/a/1 train/b/1 test/1", "test has no class folders.*predict"),
    "an empty folder of a split": ("train/a/1 train/b/1 val/", "val has no class folders"),
    "two folders for one split": ("train/a/1 val/a/1 val/b/1 validation/a/1", "val and validation in .* both"),
    "the same in another case": ("train/a/1 Train/a/1", "Train and train in .* are both named like the split train"),
    "another folder beside them": ("train/a/1 test/a/1 extra/a/1", "a folder test, .*, and extra, which is not"),
    "a folder of predictions": ("seg_train/a/1 seg_test/a/1 seg_pred/1", "seg_test, .*, and seg_pred, which is not"),
    "two domains": ("trainA/1 trainB/1 testA/1 testB/1", "testA has no class folders"),
    "no train": ("val/a/1 test/a/1", "has a folder test and none called train"),
    "classes first": ("a/train/1 a/test/1 b/train/1 b/test/1", "train/a instead of a/train"),
    "a class of the test alone": ("train/a/1 train/b/1 val/a/1 val/b/1 test/a/1 test/c/1", "'c'.* split train"),
}  # fmt: skip


@pytest.mark.parametrize("layout", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused_by_name(tmp_path, layout):
    paths, message = REFUSED[layout]
    if layout == "the same in another case" and sys.platform != "linux":
        pytest.skip("to this system both names are one")
    for i, path in enumerate(paths.split()):
        if path.endswith("/"):
            (tmp_path / path).mkdir(parents=True)
        else:
            make_image(tmp_path / f"{path}.png", seed=i)
    with pytest.raises(BadArgument, match=message) as error:
        read(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["train_station", "test_tube", "constraint", "validity", "contest", "trains"])
def test_one_class_may_have_the_word_in_its_name(tmp_path, name):
    assert read(class_folders(tmp_path, **{name: 5, "airport": 5})).classes == sorted(["airport", name])


def test_classes_may_have_folders_inside(tmp_path):
    for path in ("cats/tabby/young", "cats/black", "dogs/train/first"):
        class_folders(tmp_path / path.split("/")[0], **{path.split("/", 1)[1]: 4})
    splits = read(tmp_path)
    assert (splits.classes, sum(sizes(splits))) == (["cats", "dogs"], 12)


@pytest.mark.parametrize(
    "files",
    [
        ["runs/scratch/model.safetensors"], ["runs/compare/comparison.json", "runs/compare/comparison.png"],
        ["mine/model.safetensors"], ["mine/comparison.json", "mine/comparison.png", "mine/transfer/model.safetensors"],
        ["mine/transfer/model.safetensors"], ["mine/today/transfer/model.safetensors"],
        ["runs/Aug01_host/events.out.tfevents.1"], ["runs/"],
    ],
)  # fmt: skip
def test_the_courses_own_output_is_no_class(tmp_path, files):
    class_folders(tmp_path, a=5, b=5)
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith("/"):
            (tmp_path / file).mkdir()
        elif file.endswith(".png"):
            make_image(tmp_path / file)
        else:
            (tmp_path / file).write_bytes(b"{}")
    assert read(tmp_path).classes == ["a", "b"]
    assert sum(sizes(read(tmp_path))) == 10


def test_a_class_is_not_lost_because_somebody_trained_inside(tmp_path):
    """The images stay; of the run's files the figure is none of them."""
    class_folders(tmp_path, a=5, b=5, runs=5)
    for folder in ("a", "b/runs/compare"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "comparison.json").write_text("{}")
        make_image(tmp_path / folder / "comparison.png")
    splits = read(tmp_path)
    assert splits.classes == ["a", "b", "runs"]
    assert sum(sizes(splits)) == 15


def test_hidden_folders_and_files_are_no_classes_and_no_images(tmp_path):
    class_folders(tmp_path, a=5, b=5)
    for folder in (".ipynb_checkpoints", "__MACOSX", "System Volume Information", "@eaDir"):
        make_image(tmp_path / folder / "0.png")
    make_image(tmp_path / "a" / "._0.png")
    make_image(tmp_path / "a" / "@eaDir" / "0.png")
    (tmp_path / "a" / ".DS_Store").write_text("x")
    (tmp_path / "a" / "Thumbs.db").write_text("x")
    splits = read(tmp_path)
    assert splits.classes == ["a", "b"]
    assert sum(sizes(splits)) == 10
    assert splits.left_out == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs links in the file system")
def test_no_file_is_dropped_without_a_word(tmp_path):
    data.register_formats()
    folder = class_folders(tmp_path / "pets", disc=8, _other=8)
    for seed, name in enumerate(["browser.jfif", "old.jpe", "000123", "photo.jpg_large", "UPPER.JPG"]):
        (folder / "disc" / name).write_bytes(encoded(noise(50 + seed), "JPEG"))
    loaded = 16 + 5
    if "AVIF" in Image.SAVE:
        (folder / "disc" / "new.avif").write_bytes(encoded(noise(60), "AVIF"))
        loaded += 1
    class_folders(tmp_path, store=4)
    (folder / "disc" / "more").symlink_to(tmp_path / "store")  # a linked folder inside a class
    (folder / "stars").symlink_to(tmp_path / "store")  # a class that is a link
    (folder / "disc" / "again").symlink_to(folder / "disc")  # without end
    (folder / "_other" / "up").symlink_to(folder)
    (folder / "disc" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500))
    (folder / "disc" / "labels.txt").write_text("no image")
    make_image(folder / "beside.png")
    splits = read(folder)
    assert splits.classes == ["_other", "disc", "stars"]
    counts = Counter(label for name in PARTS for _, label in getattr(splits, name))
    assert counts == {0: 8, 1: loaded - 8 + 4, 2: 4}
    assert [path.name for path in splits.left_out] == ["beside.png", "IMG_1.HEIC", "labels.txt"]
    last = str(splits).splitlines()[-1]
    assert last == f"not loaded: 3, first {folder / 'beside.png'} (python -m helpers audit DIR says why)"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows forbids such names")
def test_files_that_are_no_images_are_left_out_and_named(tmp_path):
    class_folders(tmp_path, a=5, b=5)
    (tmp_path / "a" / "te\nxt.jpg").write_text("not an image")
    (tmp_path / "b" / "empty.png").write_bytes(b"")
    splits = read(tmp_path)
    assert sum(sizes(splits)) == 10
    assert str(splits).splitlines()[-1] == (
        f"not loaded: 2, first {tmp_path}/a/te\\nxt.jpg (python -m helpers audit DIR says why)"
    )


def test_a_class_without_a_readable_image_is_named_with_the_way_to_learn_why(tmp_path):
    class_folders(tmp_path, a=5, b=5)
    (tmp_path / "c").mkdir()
    for i in range(4):
        (tmp_path / "c" / f"{i}.heic").write_text("not an image")
    with pytest.raises(BadArgument, match=r"Class 'c' in .* has 0 readable images.*Not loaded: 4 files; .*audit"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "no class folders; at least two"),
        ({"a": 5}, "one class folder .a.; at least two"),
        ({"a": 5, "b": 1}, "Class 'b'.* 1 readable image and .*at least three"),
        ({"a": 5, "b": 2}, "Class 'b'.* 2 readable images and "),
    ],
)
def test_folders_that_cannot_be_used_are_explained(tmp_path, counts, message):
    with pytest.raises(BadArgument, match=message) as caught:
        read(class_folders(tmp_path, **counts))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("place", "text"), [(".", "."), ("a", ".."), ("a", "../"), (".", "../pets/")])
def test_a_folder_is_found_from_where_one_works(tmp_path, monkeypatch, place, text):
    """From inside of one of its classes too."""
    class_folders(tmp_path / "pets", a=5, b=5)
    monkeypatch.chdir(tmp_path / "pets" / place)
    splits = read(text)
    assert (splits.name, splits.classes, sum(sizes(splits))) == ("pets", ["a", "b"], 10)


def test_three_images_of_a_class_are_enough(tmp_path):
    assert sizes(read(class_folders(tmp_path, a=3, b=3))) == (2, 2, 2)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(BadArgument, match=re.escape(f"no folder {tmp_path / 'missing'}")):
        data.load_splits(replace(choose_setting("sample"), name=str(tmp_path / "missing")))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows forbids such names")
def test_the_table_has_one_row_for_each_class(tmp_path):
    class_folders(tmp_path / "train", a=4, **{"b\n\x1b[31mred": 3})
    for split in ("val", "test"):
        class_folders(tmp_path / split, a=2, **{"b\n\x1b[31mred": 1})
    assert str(read(tmp_path)).splitlines() == [
        "class           train  validation  test",
        "a                   4           2     2",
        "b\\n\\x1b[31mred      3           1     1",
        "all                 7           3     3",
    ]


# ---- disks


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
def test_a_file_that_cannot_be_read_stops_the_run(tmp_path, monkeypatch, number):
    """It may be healthy. Without it, others would change their split in silence."""
    class_folders(tmp_path, a=12, b=12)

    def failing(file, *arguments, **options):
        if str(file).endswith("a/7.png"):
            raise OSError(number, os.strerror(number), str(file))
        return open(file, *arguments, **options)

    monkeypatch.setattr(data, "open", failing, raising=False)
    with pytest.raises(CourseError, match=os.strerror(number)) as error:
        read(tmp_path)
    assert str(error.value).startswith(str(tmp_path / "a" / "7.png"))
    assert "may be healthy" in str(error.value)
    assert not isinstance(error.value, data.Unreadable)


def test_no_memory_stops_the_run(tmp_path, monkeypatch):
    class_folders(tmp_path, a=5, b=5)

    def no_memory(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(Image, "open", no_memory)
    with pytest.raises(CourseError, match=r"Not enough memory to decode .*png") as error:
        read(tmp_path)
    assert not isinstance(error.value, data.Unreadable)


def test_a_folder_that_cannot_be_listed_stops_the_run(tmp_path, monkeypatch):
    class_folders(tmp_path, a=5, b=5)
    scandir = os.scandir

    def failing(folder):
        if str(folder).endswith("b"):
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(CourseError, match=re.escape(f"{tmp_path / 'b'} could not be read (Permission denied)")):
        read(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes and links in the file system")
@pytest.mark.parametrize(("kind", "message"), [("pipe", "is a pipe or a device"), ("link", "no file .*leads nowhere")])
def test_pipes_and_broken_links_stop_the_run_and_nobody_waits(tmp_path, kind, message):
    class_folders(tmp_path, a=5, b=5)
    if kind == "pipe":
        os.mkfifo(tmp_path / "a" / "x.jpg")
    else:
        (tmp_path / "a" / "x.jpg").symlink_to(tmp_path / "drive" / "x.jpg")
    with ended_wait(tmp_path / "a" / "x.jpg"), pytest.raises(CourseError, match=message) as error:
        read(tmp_path)
    assert str(tmp_path / "a" / "x.jpg") in str(error.value)


@pytest.mark.skipif(sys.platform == "win32", reason="needs links in the file system")
def test_a_class_on_a_drive_that_is_not_there_is_not_forgotten(tmp_path):
    class_folders(tmp_path, a=5, b=5)
    (tmp_path / "c").symlink_to(tmp_path / "drive" / "c")
    with pytest.raises(CourseError, match=re.escape(f"{tmp_path / 'c'} is a link that leads nowhere")):
        read(tmp_path)
    (tmp_path / "c").rename(tmp_path / "c.jpg")  # an image beside the classes, which would not be loaded anyway
    assert [path.name for path in read(tmp_path).left_out] == ["c.jpg"]


@contextmanager
def ended_wait(pipe):
    """Who reads from the pipe meets its end after ten seconds, so that a failing test does not wait for ever."""

    def end():
        with suppress(OSError):  # nobody waits
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))

    timer = threading.Timer(10, end)
    timer.start()
    yield
    timer.cancel()


# ---- digests


def test_splits_know_the_digest_of_each_file(tmp_path):
    splits = read(class_folders(tmp_path, a=5, b=5))
    assert splits.digests == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.rglob("*.png")}


def test_the_digest_of_splits_changes_with_image_label_and_split_and_with_nothing_else(tmp_path):
    """So the run of one folder is not taken for that of another of the same name."""
    for split, count in {"train": 4, "val": 2, "test": 2}.items():
        class_folders(tmp_path / "pets" / split, a=count, b=count)
    first = tmp_path / "pets" / "train" / "a" / "0.png"
    original = read(tmp_path / "pets").digest
    assert len(original) == 12
    shutil.copytree(tmp_path / "pets", tmp_path / "elsewhere" / "pets")
    assert read(tmp_path / "elsewhere" / "pets").digest == original
    content = first.read_bytes()
    first.rename(first.with_name("renamed.png"))
    assert read(tmp_path / "pets").digest == original
    for place in ("train/b", "val/a"):  # another class, another split
        moved_to = first.with_name("renamed.png").rename(tmp_path / "pets" / place / "moved.png")
        assert read(tmp_path / "pets").digest != original
        moved_to.rename(first.with_name("renamed.png"))
    make_image(first, seed=99)
    first.with_name("renamed.png").unlink()
    assert read(tmp_path / "pets").digest != original
    first.write_bytes(content)
    assert read(tmp_path / "pets").digest == original
    for split in ("train", "val", "test"):
        (tmp_path / "pets" / split / "a").rename(tmp_path / "pets" / split / "A")
    assert read(tmp_path / "pets").digest != original


# ---- published archives


def test_the_published_archive_keeps_its_validation_folder_for_the_test(tmp_path, monkeypatch):
    source = tmp_path / "source" / "cats_and_dogs_filtered"
    for split, count in {"train": 20, "validation": 4}.items():
        class_folders(source / split, cats=count, dogs=count)
    with zipfile.ZipFile(tmp_path / "cats_and_dogs_filtered.zip", "w") as zipped:
        for file in source.rglob("*.png"):
            zipped.write(file, file.relative_to(source.parent))
    monkeypatch.setenv("COURSE_ARCHIVES", str(tmp_path))
    monkeypatch.setattr(data, "DOWNLOADS", tmp_path / "downloads")
    splits, other = (data.load_splits(choose_setting("photos"), seed=seed) for seed in (0, 1))
    assert sizes(splits) == sizes(other) == (32, 8, 8)
    assert splits.name == "photos"
    assert {path.parent.parent.name for path, _ in splits.test} == {"validation"}
    assert {path.parent.parent.name for path, _ in splits.train + splits.validation} == {"train"}
    assert splits.validation != other.validation


def test_the_real_archive_has_its_published_sizes(monkeypatch):
    monkeypatch.setenv("COURSE_SETTING", "photos")
    if data.find_archive("cats_and_dogs_filtered.zip") is None:
        pytest.skip("needs COURSE_ARCHIVES with cats_and_dogs_filtered.zip")
    splits = data.load_splits(choose_setting())
    assert splits.classes == ["cats", "dogs"]
    assert sizes(splits) == (1600, 400, 1000)


PUBLISHED = {
    "photos": (
        "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip",
        {"size": 68_606_236},
        ["cats_and_dogs_filtered/train", "cats_and_dogs_filtered/validation"],
    ),
    "photos-full": (
        "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
        {"sha256": "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"},
        ["PetImages"],
    ),
}


@pytest.mark.parametrize("stored", [False, True], ids=["downloaded", "from the archive folder"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published_is_passed_on_to_whom_it_protects(tmp_path, monkeypatch, name, stored):
    url, published, folders = PUBLISHED[name]
    calls, file = {}, tmp_path / Path(url).name
    file.write_bytes(b"a zip file")

    def fetch(urls, target, **options):
        calls["fetch"] = (urls[0], target, options)
        return file

    def unpack(archive, target, *, folders, **options):
        calls["unpack"] = (archive, target, list(folders), options)
        class_folders(target / folders[0] if name == "photos" else target / "PetImages", Cat=5, Dog=5)
        class_folders(target / folders[-1], Cat=5, Dog=5)
        return target

    monkeypatch.setattr(data, "find_archive", lambda _: file if stored else None)
    monkeypatch.setattr(data, "fetch", fetch)
    monkeypatch.setattr(data, "unpack", unpack)
    monkeypatch.setattr(data, "DOWNLOADS", tmp_path / "downloads")
    assert data.load_splits(choose_setting(name)).classes == ["Cat", "Dog"]
    if stored:
        assert "fetch" not in calls
    else:
        assert calls["fetch"] == (url, tmp_path / "downloads" / file.name, published)
    target = tmp_path / "downloads" / f"{file.stem}-10"
    assert calls["unpack"] == (file, target, folders, published)


# ---- images


def saved(tmp_path, image, name, **options):
    image.save(tmp_path / name, **options)
    return data.load_image(tmp_path / name)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "CMYK", "LA", "RGBA"])
def test_every_mode_becomes_rgb_as_pillow_would_show_it(tmp_path, mode):
    image = noise().convert(mode)
    loaded = saved(tmp_path, image, "x.tif" if mode == "CMYK" else "x.png")
    assert loaded.mode == "RGB"
    expected = numpy.asarray(image.convert("RGB"), dtype=int)
    assert abs(numpy.asarray(loaded, dtype=int) - expected).max() <= 1


def test_transparent_becomes_white(tmp_path):
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    assert saved(tmp_path, clear, "clear.png").getpixel((3, 3)) == (255, 255, 255)
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert saved(tmp_path, half, "half.png").getpixel((3, 3))[0] == pytest.approx(127, abs=1)
    palette = Image.new("P", (8, 8), 0)
    assert saved(tmp_path, palette, "palette.png", transparency=0).getpixel((3, 3)) == (255, 255, 255)


def grey(image):
    """The values of an image in shades of grey."""
    values = numpy.asarray(image, dtype=float)
    assert values.shape[2] == 3
    assert (values == values[..., :1]).all()
    return values[..., 0]


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    values = numpy.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(numpy.uint16)
    for name in ("deep.png", "deep.tif"):
        assert abs(grey(saved(tmp_path, Image.fromarray(values), name)) - values / 257).max() <= 1


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path):
    """All its values would be bright ones in 8 bits."""
    loaded = saved(tmp_path, Image.fromarray(numpy.full((8, 8), 250, dtype=numpy.uint16)), "dark.png")
    assert loaded.getpixel((4, 4)) == pytest.approx((1, 1, 1), abs=1)


@pytest.mark.parametrize("white", [1, 255, 65535])
def test_float_images_are_neither_black_nor_cut_off(tmp_path, white):
    """White is 1 by the usual convention, or as in 8 or 16 bits."""
    values = numpy.tile(numpy.linspace(0, white, 64, dtype=numpy.float32), (64, 1))
    assert abs(grey(saved(tmp_path, Image.fromarray(values), "x.tif")) - values * (255 / white)).max() <= 1


def test_what_is_no_number_in_a_float_image_is_black_and_harms_no_other(tmp_path):
    values = numpy.full((8, 8), 0.5, dtype=numpy.float32)
    values[0, :4] = numpy.nan, numpy.inf, -numpy.inf, -3
    loaded = grey(saved(tmp_path, Image.fromarray(values), "x.tif"))
    assert loaded[0, :4].tolist() == [0, 0, 0, 0]
    assert loaded[1:] == pytest.approx(127, abs=1)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert data.load_image(tmp_path / "moving.gif").getpixel((4, 4)) == (255, 0, 0)


def test_a_large_jpeg_is_decoded_smaller_but_never_too_small(tmp_path):
    file = make_image(tmp_path / "large.jpg", size=(1600, 1200))
    assert data.load_image(file).size == (1600, 1200)
    smaller = data.load_image(file, at_least=200).size
    assert 200 <= min(smaller) < 600


def test_what_cannot_be_decoded_is_named_and_so_is_what_is_not_there(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    whole = make_image(tmp_path / "whole.jpg", size=(300, 300))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:2000])
    for name in ("text.jpg", "cut.jpg"):
        with pytest.raises(data.Unreadable, match=f"{name} can't be read as an image"):
            data.load_image(tmp_path / name)
    with pytest.raises(CourseError, match=r"There is no file .*missing\.jpg"):
        data.load_image(tmp_path / "missing.jpg")
    with pytest.raises(CourseError, match=r"is a folder, not the file of an image"):
        data.load_image(tmp_path)


def test_a_film_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "LARGEST_FILE", 1000)
    class_folders(tmp_path, a=5, b=5)
    (tmp_path / "a" / "film.mp4").write_bytes(bytes(1001))

    def open_small(file, *arguments, **options):
        assert os.path.getsize(file) <= 1000
        return open(file, *arguments, **options)

    monkeypatch.setattr(data, "open", open_small, raising=False)
    assert [path.name for path in read(tmp_path).left_out] == ["film.mp4"]


# ---- notes beside the pixels


def with_segment(jpeg, marker, content):
    """A JPEG with one more segment at its beginning."""
    return jpeg[:2] + b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content + jpeg[2:]


def entry(tag, kind, count, value):
    return struct.pack("<HHII", tag, kind, count, value)


def exif(*entries, count=None, begin=b"Exif\0\0II*\0\x08\0\0\0"):
    return begin + struct.pack("<H", len(entries) if count is None else count) + b"".join(entries) + bytes(4)


ORIENTATION = 0x0112
BROKEN_EXIF = {
    "prefix twice": exif(entry(ORIENTATION, 3, 1, 6), begin=b"Exif\0\0Exif\0\0II*\0\x08\0\0\0"),
    "no TIFF header": b"Exif\0\0garbage garbage",
    "empty": b"Exif\0\0",
    "orientation is text": exif(entry(ORIENTATION, 2, 4, 0x00303036)),
    "offset beyond the end": exif(entry(ORIENTATION, 3, 1, 6), entry(0x11A, 5, 1, 0xFFFFFF)),
    "cut short": exif(entry(ORIENTATION, 3, 1, 6), count=9)[:-4],
    "1/0 resolution": exif(entry(ORIENTATION, 3, 1, 6), entry(0x11A, 5, 1, 38)) + struct.pack("<II", 1, 0),
    "signed where unsigned": exif(entry(ORIENTATION, 3, 1, 6), entry(0x128, 8, 1, 0xFFFF)),
    "orientation 6 twice": exif(entry(ORIENTATION, 3, 2, 0x00060006)),
    "float orientation": exif(entry(ORIENTATION, 11, 1, 0x40C00000)),
    "orientation 9": exif(entry(ORIENTATION, 3, 1, 9)),
    "orientation 0": exif(entry(ORIENTATION, 3, 1, 0)),
}


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")
@pytest.mark.parametrize("name", BROKEN_EXIF)
def test_a_healthy_image_with_a_broken_note_is_loaded(tmp_path, name):
    jpeg = encoded(noise(), "JPEG")
    (tmp_path / "x.jpg").write_bytes(with_segment(jpeg, 0xE1, BROKEN_EXIF[name]))
    assert data.digest_if_readable(tmp_path / "x.jpg")
    pixels = numpy.asarray(Image.open(io.BytesIO(jpeg)))
    shown = numpy.asarray(data.load_image(tmp_path / "x.jpg"))
    assert any(numpy.array_equal(shown, turned) for turned in (pixels, numpy.rot90(pixels, -1)))


@pytest.mark.filterwarnings("ignore:.*:UserWarning:PIL")  # Pillow writes the orientation of a TIFF twice
@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_turned_images_are_put_upright_as_pillow_does_it(tmp_path, kind, turn):
    note = Image.Exif()
    note[ORIENTATION] = turn
    options = {"lossless": True} if kind == "WEBP" else {}
    (tmp_path / "x").write_bytes(encoded(noise(), kind, exif=note, **options))
    with Image.open(tmp_path / "x") as image:
        expected = ImageOps.exif_transpose(image)
    assert data.load_image(tmp_path / "x").size == ((40, 30) if turn < 5 else (30, 40))
    assert numpy.array_equal(data.load_image(tmp_path / "x"), expected)


def test_a_camera_held_on_its_side(tmp_path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))  # the left half, which belongs on top
    note = Image.Exif()
    note[ORIENTATION] = 6
    loaded = saved(tmp_path, image, "turned.jpg", exif=note)
    assert loaded.size == (20, 40)
    assert loaded.getpixel((10, 5))[0] > 250
    assert loaded.getpixel((10, 35))[0] < 5


def mutate(content, generator):
    """Flip bytes, cut the tail, add some, or put some in between."""
    content, kind = bytearray(content), generator.choice(["flip", "cut", "add", "insert"])
    at = generator.randrange(len(content))
    if kind == "flip":
        for _ in range(generator.choice([1, 2, 5, 20])):
            content[generator.randrange(len(content))] = generator.randrange(256)
    elif kind == "cut":
        del content[at:]
    else:
        at = len(content) if kind == "add" else at
        content[at:at] = generator.randbytes(generator.randrange(1, 40))
    return bytes(content)


def photo_notes():
    """What a camera writes into its EXIF note."""
    note = Image.Exif()
    note[ORIENTATION], note[0x010F], note[0x011A] = 1, "Camera", 72.0
    note[0x8769] = {0x9003: "2026:01:01 00:00:00", 0x829A: (1, 60)}
    note[0x8825] = {1: "N", 2: (1.0, 2.0, 3.0)}
    return note.tobytes()


MPF = (
    b"MPF\0II*\0\x08\0\0\0\x03\0" + entry(0xB000, 7, 4, 0x30303130) + entry(0xB001, 4, 1, 2) + entry(0xB002, 7, 32, 50)
    + bytes(4) + struct.pack("<IIIHHIIIHH", 0x20030000, 1000, 0, 0, 0, 0, 1000, 100, 0, 0)
)  # fmt: skip
SEGMENTS = {  # which marker, and what stands there in a healthy file
    "EXIF": (0xE1, photo_notes()),
    "JFIF": (0xE0, b"JFIF\0\1\1\1\0H\0H\0\0"),
    "MPF": (0xE2, MPF),
    "ICC": (0xE2, b"ICC_PROFILE\0\1\1" + bytes(200)),
    "Photoshop": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10\0H\0\0\0\1\0\1\0H\0\0\0\1\0\1"),
    "Adobe": (0xEE, b"Adobe\0\x64\0\0\0\0\1"),
    "comment": (0xFE, b"a comment"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SEGMENTS)
def test_hundreds_of_broken_notes_cost_no_image(name):
    """Only its notes are broken, and whatever they say, its pixels are those of the plain file, at most turned."""
    marker, content = SEGMENTS[name]
    generator, jpeg = random.Random(0), encoded(noise(), "JPEG")
    pixels = numpy.asarray(Image.open(io.BytesIO(jpeg)))
    turned = [numpy.rot90(flipped, k) for flipped in (pixels, pixels[:, ::-1]) for k in range(4)]
    for _ in range(500):
        shown = numpy.asarray(data.decode(with_segment(jpeg, marker, mutate(content, generator)), "x.jpg"))
        assert any(numpy.array_equal(shown, other) for other in (turned if name == "EXIF" else [pixels]))


def test_an_image_without_its_broken_note_keeps_its_colours_and_its_orientation():
    """The colours of a CMYK JPEG are turned round, as its APP14 segment says."""
    note = Image.Exif()
    note[ORIENTATION] = 6
    jpeg = encoded(noise().convert("CMYK"), "JPEG", exif=note)
    broken = with_segment(jpeg, 0xE0, b"JFIF\0\1")
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(broken))
    assert b"Adobe" in jpeg
    assert numpy.array_equal(data.decode(broken, "x.jpg"), data.decode(jpeg, "x.jpg"))
    assert data.decode(broken, "x.jpg").size == (30, 40)


def chunk(kind, content, checksum=None):
    """A chunk of a PNG."""
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


CHUNKS = {
    "a text that grows to 2 MB": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2 << 20))),
    "a text of 2 MB": chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(bytes(2 << 20))),
    "65 texts of 1 MB": 65 * chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 20))),
    "a profile of 2 MB": chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(2 << 20))),
    "a wrong checksum": chunk(b"tEXt", b"Comment\0hello", checksum=1),
    "a profile that is none": chunk(b"iCCP", b"name\0\0no zlib"),
    "a resolution cut short": chunk(b"pHYs", b"\0\0"),
    "a gamma cut short": chunk(b"gAMA", b""),
}


@pytest.mark.parametrize("place", [33, -12], ids=["before the pixels", "behind them"])
@pytest.mark.parametrize("name", CHUNKS)
def test_a_png_is_not_lost_for_a_chunk_beside_its_pixels(tmp_path, name, place):
    png = encoded(noise(), "PNG")
    (tmp_path / "x.png").write_bytes(png[:place] + CHUNKS[name] + png[place:])
    assert numpy.array_equal(data.load_image(tmp_path / "x.png"), noise())
    assert data.digest_if_readable(tmp_path / "x.png")


def test_a_png_with_a_damaged_header_or_damaged_pixels_stays_unreadable(tmp_path):
    png = encoded(noise(size=(200, 200)), "PNG")
    middle = len(png) // 2
    for content in (
        png[:11] + b"\5" + png[12:],
        png[:-5000],
        png[:middle] + bytes([png[middle] ^ 1]) + png[middle + 1 :],
    ):
        (tmp_path / "x.png").write_bytes(content)
        assert not data.digest_if_readable(tmp_path / "x.png")


# ---- tensors


def one_level():
    """The most that two ways of rounding differ, after the normalisation."""
    return 1.01 / 255 / min(STD)


def test_eval_transform_equals_the_older_transforms():
    image = noise(size=(90, 60))
    older = v1.Compose([v1.Resize((32, 32)), v1.ToTensor(), v1.Normalize(MEAN, STD)])(image)
    tensor = data.eval_transform(32)(image).as_subclass(torch.Tensor)
    torch.testing.assert_close(tensor, older, rtol=0, atol=one_level())
    assert (tensor - older).abs().mean() < one_level() / 10


@pytest.mark.parametrize("weights", ["VGG16_Weights", "SqueezeNet1_1_Weights", "ResNet18_Weights"])
def test_eval_transform_is_the_one_that_the_weights_were_published_with(weights):
    """On a square image, of which torchvision's cuts nothing off."""
    preset = getattr(torchvision.models, weights).IMAGENET1K_V1.transforms(resize_size=32, crop_size=32)
    tensor = data.eval_transform(32)(noise(size=(64, 64))).as_subclass(torch.Tensor)
    torch.testing.assert_close(tensor, preset(noise(size=(64, 64))), rtol=0, atol=one_level())


def test_one_colour_is_normalized_channel_by_channel():
    """Literal values for red 255, green 0, blue 51: (1 - 0.485) / 0.229 and so on."""
    red = Image.new("RGB", (40, 40), (255, 0, 51))
    for transform in (data.eval_transform(32), data.EvalTransform(32)):
        values = transform(red).as_subclass(torch.Tensor)
        assert values.dtype == torch.float32
        assert values.shape == (3, 32, 32)
        expected = torch.tensor([2.2489, -2.0357, -0.9156]).view(3, 1, 1).expand(3, 32, 32)
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-3)


def test_a_network_with_another_normalisation_gets_its_own():
    white = Image.new("RGB", (8, 8), "white")
    tensor = data.EvalTransform(8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.125))(white)
    assert tensor[:, 0, 0].tolist() == pytest.approx([1, 2, 4])
    assert data.EvalTransform(8).key != data.EvalTransform(8, mean=(0.5, 0.5, 0.5)).key
    assert data.EvalTransform(8).key != data.EvalTransform(9).key


def augmented(image, count=60, size=32):
    """The same image, so many times as training sees it."""
    transform = data.train_transform(size)
    torch.manual_seed(0)
    return torch.stack([transform(image).as_subclass(torch.Tensor) for _ in range(count)])


def test_training_images_are_normalized_too():
    """Black stays black in any light: (0 - 0.485) / 0.229 and so on."""
    black = augmented(Image.new("RGB", (40, 40)), count=5)
    assert black.dtype == torch.float32
    for channel, value in enumerate((-2.1179, -2.0357, -1.8044)):
        torch.testing.assert_close(black[:, channel], torch.full((5, 32, 32), value), rtol=0, atol=1e-3)


def test_half_of_the_training_images_are_mirrored():
    image = Image.new("RGB", (64, 64), "black")
    image.paste("white", (0, 0, 32, 64))
    mirrored = [(a[..., 16:].mean() > a[..., :16].mean()).item() for a in augmented(image, 200)]
    assert 70 < sum(mirrored) < 130


def test_training_images_are_cropped_and_keep_at_least_half():
    """How many of ten stripes, a tenth of the image each, are still to be seen, across and down."""
    stripes = numpy.zeros((100, 100, 3), dtype=numpy.uint8)
    stripes[:, 10::20] = stripes[:, 11::20] = 255
    for start in range(10, 100, 20):
        stripes[:, start : start + 10] = 255
    for image in (Image.fromarray(stripes), Image.fromarray(stripes.transpose(1, 0, 2))):
        crops = augmented(image, size=100)
        profile = crops.mean(1).mean(1 if image.getpixel((0, 15)) == (0, 0, 0) else 2)
        bright = profile > profile.mean(1, keepdim=True)
        seen = ((bright[:, 1:] != bright[:, :-1]).sum(1) + 1).tolist()
        assert min(seen) >= 5
        assert len({*seen}) >= 3


def test_augmentation_starts_from_the_whole_image():
    image = Image.new("RGB", (90, 30), "blue")
    image.paste("red", (0, 0, 15, 30))
    image.paste("lime", (75, 0, 90, 30))
    assert data.to_square(image).size == (30, 30)
    assert data.to_square(image.crop((0, 0, 30, 30))).size == (30, 30)
    crops = map(data.denormalize, augmented(image, 50))
    # A square cut from the wide image itself would never hold both of its ends.
    assert any((crop[0] > 0.6).any() and (crop[1] > 0.6).any() for crop in crops)


def test_denormalize_undoes_the_normalisation():
    restored = data.denormalize(data.eval_transform(32)(noise(size=(32, 32))))
    torch.testing.assert_close(restored.as_subclass(torch.Tensor), v1.ToTensor()(noise(size=(32, 32))))
    values = torch.tensor([2.2489, -2.0357, -0.9156]).view(3, 1, 1)
    assert data.denormalize(values).flatten().tolist() == pytest.approx([1, 0, 0.2], abs=1e-3)


# ---- loaders


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    return read(class_folders(tmp_path_factory.mktemp("images"), a=30, b=25))


def tensor_bytes(tensor):
    return tensor.contiguous().numpy().tobytes()


def epoch(splits, seed=0, augment=False, part=0):
    """All images and labels of one loader, in its order."""
    loader = data.make_loaders(splits, 32, batch_size=8, augment=augment)[part]
    torch.manual_seed(seed)
    batches = list(loader)
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def test_loaders_show_every_image_once_and_repeat_by_seed(splits):
    images, labels = epoch(splits)
    assert images.shape == (len(splits.train), 3, 32, 32)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    alone = [data.eval_transform(32)(Image.open(path).convert("RGB")) for path, _ in splits.train]
    assert sorted(map(tensor_bytes, images)) == sorted(map(tensor_bytes, alone))
    label_of = {tensor_bytes(image): label for image, (_, label) in zip(alone, splits.train, strict=True)}
    assert [label_of[tensor_bytes(image)] for image in images] == labels.tolist()
    assert torch.equal(epoch(splits)[0], images)
    assert not torch.equal(epoch(splits, seed=1)[0], images)
    assert [tensor_bytes(image) for image in images] != [tensor_bytes(image) for image in alone]  # shuffled


def test_validation_and_test_come_in_order_and_are_never_augmented(splits):
    for number, part in enumerate((splits.validation, splits.test), start=1):
        for augment in (False, True):
            images, labels = epoch(splits, part=number, augment=augment)
            assert labels.tolist() == [label for _, label in part]
            alone = [data.eval_transform(32)(Image.open(path).convert("RGB")) for path, _ in part]
            assert torch.equal(images, torch.stack(alone).as_subclass(torch.Tensor))


def test_training_is_augmented_unless_it_is_said_otherwise(splits):
    train = data.make_loaders(splits, 32)[0].dataset
    assert len({tensor_bytes(train[0][0]) for _ in range(10)}) > 5  # small images have few crops
    plain = data.make_loaders(splits, 32, augment=False)[0].dataset
    assert len({tensor_bytes(plain[0][0]) for _ in range(10)}) == 1


def test_an_epoch_of_four_passes_shows_every_training_image_four_times(splits):
    few = replace(splits, train=[(path, i) for i, (path, _) in enumerate(splits.train)])  # a label tells the image
    train, validation, _ = data.make_loaders(few, 32, passes=4)
    seen = torch.cat([labels for _, labels in train]).tolist()
    assert sorted(seen) == sorted(4 * [*range(len(few.train))])
    assert len(train) == -(-4 * len(few.train) // 16)
    assert len(validation.sampler) == len(few.validation)


def test_loaders_carry_what_is_known_about_the_files(splits):
    train, validation, test = data.make_loaders(splits, 32, workers=0)
    assert isinstance(train.sampler, RandomSampler)
    assert isinstance(validation.sampler, SequentialSampler)
    assert isinstance(test.sampler, SequentialSampler)
    assert not any(loader.drop_last for loader in (train, validation, test))
    assert train.dataset.digests == splits.digests
    assert (train.batch_size, validation.batch_size) == (16, 32)
    many = replace(splits, train=splits.train * 40)
    assert data.make_loaders(many, 32)[0].batch_size == 32


@pytest.mark.parametrize("small", [True, False])
def test_a_batch_is_decoded_in_threads_unless_files_are_small_and_equals_its_images_alone(splits, monkeypatch, small):
    monkeypatch.setattr(data, "SMALL_FILE", splits.train[7][0].stat().st_size + small)
    dataset, threads, alone_in = data.make_loaders(splits, 32, augment=False)[0].dataset, set(), data.decode
    alone = [dataset[index] for index in (7, 3, 20)]

    def decode(*arguments, **options):
        threads.add(threading.current_thread())
        return alone_in(*arguments, **options)

    monkeypatch.setattr(data, "decode", decode)
    together = dataset.__getitems__([7, 3, 20])
    assert threads
    assert (threading.main_thread() in threads) == small
    assert all(torch.equal(one[0], other[0]) for one, other in zip(together, alone, strict=True))
    assert [label for _, label in together] == [label for _, label in alone]


def test_augmentation_repeats_by_seed_although_threads_decode(splits):
    dataset = data.make_loaders(splits, 32)[0].dataset

    def seen():
        torch.manual_seed(0)
        return torch.stack([image for image, _ in dataset.__getitems__(list(range(33)))])

    first = seen()
    assert all(torch.equal(seen(), first) for _ in range(5))


def mean_of_a_batch(dataset, answers):
    """In a process of its own."""
    answers.put(torch.stack([image for image, _ in dataset.__getitems__([0, 1, 2])]).mean().item())


@pytest.mark.skipif(sys.platform != "linux", reason="where processes start anew, loaders have none")
@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_line_from_a_worker_process_too(tmp_path, workers):
    splits = read(class_folders(tmp_path, a=30, b=25))
    damaged = splits.validation[3][0]
    damaged.write_bytes(damaged.read_bytes()[:100])
    _, loader, _ = data.make_loaders(splits, 32, augment=False, workers=workers)
    with pytest.raises(CourseError) as error:
        list(loader)
    assert str(error.value) == f"{damaged} can't be read as an image. Replace it or take it out of the folder."


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork processes")
def test_a_forked_process_starts_threads_of_its_own(splits):
    train, validation, _ = data.make_loaders(splits, 32, augment=False)
    batches = torch.cat([images for images, _ in validation])  # starts this process's threads
    workers = data.make_loaders(splits, 32, augment=False, workers=2)[1]
    assert torch.equal(torch.cat([images for images, _ in workers]), batches)
    forking = multiprocessing.get_context("fork")
    answers = forking.Queue()
    process = forking.Process(target=mean_of_a_batch, args=(train.dataset, answers), daemon=True)
    process.start()
    assert isinstance(answers.get(timeout=30), float)
    process.join()


def test_worker_processes_only_beside_a_gpu_and_where_they_cannot_hang(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert data.default_workers(400) == 0
        assert (data.default_workers(5000) >= 1) == gpu
    for platform in ("win32", "darwin"):
        monkeypatch.setattr(sys, "platform", platform)
        assert data.default_workers(5000) == 0


# ---- threads


def test_results_come_in_order(tmp_path):
    files = [tmp_path / str(i) for i in range(1000)]
    assert data.in_threads(lambda file: int(file.name), files, title="") == list(range(1000))


def test_threads_do_not_run_far_ahead_of_who_asks():
    items = iter(range(1000))
    with closing(data.stream(lambda item: item, items, threads=2)) as results:
        assert [next(results) for _ in range(10)] == list(range(10))
        assert next(items) <= 10 + 2 * 2


def test_an_interruption_does_not_wait_for_the_rest(tmp_path, monkeypatch):
    def interrupted(results, **options):
        next(results)
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "tqdm", interrupted)
    start = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        data.in_threads(lambda file: time.sleep(0.01), [tmp_path] * 5000, title="")
    assert time.perf_counter() - start < 5


def test_all_formats_are_loaded_before_threads_start(tmp_path, monkeypatch):
    """Pillow loads most of them when it first meets an unknown file, which all threads might do at once."""
    calls = []
    data.register_formats.cache_clear()
    monkeypatch.setattr(Image, "init", lambda: calls.append("init"))
    data.in_threads(lambda file: calls.append("work"), [tmp_path] * 3, title="")
    assert calls == ["init", "work", "work", "work"]
    data.register_formats.cache_clear()
