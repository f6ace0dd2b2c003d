"""What lesson 5 plants is there as it says, by Pillow's word and the files' own bytes; and the originals stay whole."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, UnidentifiedImageError

from helpers.auditing import audit
from helpers.data import Splits, load_splits
from helpers.settings import CourseError, choose_setting
from helpers.spoiling import Planted, spoil, thin_out


@pytest.fixture(scope="module")
def splits():
    """A third of the sample: 134 training images, 34 for validation, 100 for the test."""
    whole = load_splits(choose_setting("sample"))
    return replace(whole, **{name: part[::3] for name, part in whole.parts().items()})


@pytest.fixture(scope="module")
def spoiled(splits, tmp_path_factory):
    """(folder, what was planted there)."""
    folder = tmp_path_factory.mktemp("spoiled") / "images"
    return folder, spoil(splits, folder, seed=0)


def contents(folder):
    """Each file's path within the folder, and its bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def named(planted, kind):
    """The planted files of one kind, by name."""
    return {path.name: path for path in planted.files[kind]}


def test_the_audit_finds_all_that_was_planted_and_nothing_else(spoiled):
    folder, planted = spoiled
    report = audit(folder)
    found = {}
    for finding in report.findings:
        found.setdefault(finding.kind, set()).add(finding.path)
    assert found == planted.files
    assert {kind: len(files) for kind, files in planted.files.items()} == {
        "unreadable": 4, "enormous": 1, "tiny": 1, "wrong extension": 1, "converted": 4, "turned": 1,
        "duplicate": 1, "duplicate across splits": 1, "duplicate across classes": 1,
        "near-duplicate": 1, "near-duplicate across splits": 25, "near-duplicate across classes": 1,
        "stray file": 2, "hidden folder": 1,
    }  # fmt: skip


def test_pillow_stumbles_over_the_unreadable_ones(spoiled):
    files = named(spoiled[1], "unreadable")
    errors = {
        "cut-short.jpg": OSError, "empty.jpg": UnidentifiedImageError, "web-page.jpg": UnidentifiedImageError,
        "bomb.png": Image.DecompressionBombError,
    }  # fmt: skip
    assert files.keys() == errors.keys()
    for name, error in errors.items():
        with pytest.raises(error):
            Image.open(files[name]).load()


def test_the_odd_ones_are_what_their_names_say(spoiled):
    folder, planted = spoiled
    odd = {"from-a-phone.jpg": "RGB", "sixteen-bits.png": "I;16", "cut-out.png": "RGBA", "for-print.jpg": "CMYK"}
    for name, mode in odd.items():
        with Image.open(next(folder.glob(f"train/*/{name}"))) as image:
            assert image.mode == mode
            assert image.getexif().get(0x0112) == (6 if name == "from-a-phone.jpg" else None)
            if name == "sixteen-bits.png":
                assert image.getextrema()[1] > 255  # 255 · 257 would be white
            if name == "cut-out.png":
                assert image.getchannel("A").getextrema() == (0, 255)
    with Image.open(named(planted, "wrong extension")["really-a-png.jpg"]) as image:
        assert image.format == "PNG"
    with Image.open(named(planted, "tiny")["preview.jpg"]) as image:
        assert image.size == (16, 16)
    assert len(list((folder / "train" / ".ipynb_checkpoints").iterdir())) == 3


def test_an_image_in_eight_is_in_the_folder_of_another_class_and_nowhere_else(splits, spoiled):
    planted = spoiled[1]
    labels = {hashlib.sha256(path.read_bytes()).digest(): splits.classes[label] for path, label in splits.train}
    assert len(planted.wrong) == 134 // 8
    for path, belongs in planted.wrong.items():
        assert path.parent.name != belongs.parent.name == labels[hashlib.sha256(path.read_bytes()).digest()]
        assert path.name == belongs.name
        assert not belongs.exists()
    assert {path.parent.name for path in planted.wrong} == {"cats", "dogs"}


def test_the_copies_lie_where_they_should_not(splits, spoiled):
    folder, planted = spoiled
    test_files = {path.read_bytes() for path, _ in splits.test}
    (copy,) = planted.files["duplicate across splits"]
    assert copy.read_bytes() in test_files
    assert copy.parents[1] == folder / "train"
    (copy,) = planted.files["duplicate across classes"]
    assert copy.read_bytes() == (folder / "train" / "cats" / copy.name.removeprefix("same-")).read_bytes()
    assert copy.parent.name == "dogs"
    for copy in planted.files["near-duplicate across splits"]:
        original = folder / "test" / copy.parent.name / copy.name.removeprefix("copy-")
        assert list(original.parent.glob(f"{original.stem}.*"))
        assert copy.read_bytes() not in test_files


def test_a_seed_decides_all_of_it_and_another_one_plants_elsewhere(splits, spoiled, tmp_path):
    folder = spoiled[0]
    spoil(splits, tmp_path / "again", seed=0)
    assert contents(tmp_path / "again") == contents(folder)
    other = spoil(splits, tmp_path / "other", seed=1)
    assert {path.name for path in other.wrong} != {path.name for path in spoiled[1].wrong}


def test_the_originals_and_the_other_splits_stay_as_they_were(splits, spoiled):
    folder = spoiled[0]
    for path, digest in splits.digests.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    for name in ("validation", "test"):
        expected = sorted(path.read_bytes() for path, _ in splits.parts()[name])
        assert sorted(contents(folder / name).values()) == expected


def made_up(train, validation, test, classes=2):
    """Splits of files that need not exist: so many of each class."""
    counts = {"train": train, "validation": validation, "test": test}
    parts = {
        name: [(Path(f"{name}-{label}-{i}.jpg"), label) for label in range(classes) for i in range(count)]
        for name, count in counts.items()
    }
    return Splits("made up", [f"c{i}" for i in range(classes)], **parts)


def test_a_large_collection_is_thinned_out_and_a_small_one_is_not():
    large = thin_out(made_up(10_000, 1_000, 1_000))
    assert large.sizes == {"train": 400, "validation": 100, "test": 286}
    assert [path.name for path, _ in large.train[:2]] == ["train-0-0.jpg", "train-0-50.jpg"]
    small = made_up(200, 50, 150)
    assert thin_out(small) == small
    many = thin_out(made_up(100, 20, 20, classes=50))
    assert many.sizes == {"train": 1000, "validation": 250, "test": 500}
    assert {label for _, label in many.validation} == set(range(50))


def test_a_rare_class_is_not_thinned_out_of_a_split():
    splits = made_up(500, 995, 20)
    rare = replace(splits, validation=splits.validation[:997])  # 995 of the first class, 2 of the second
    assert sum(label for _, label in thin_out(rare).validation) == 1


@pytest.mark.parametrize(("train", "classes"), [(6, 2), (49, 2), (9, 20)])
def test_too_few_images_are_refused_in_one_line_that_says_how_many_are_needed(train, classes):
    with pytest.raises(CourseError, match=rf"needs 100 or more for training.*here are {train * classes}.*sample") as e:
        thin_out(made_up(train, 5, 5, classes))
    assert "\n" not in str(e.value)
    assert f"{train} of the smallest class" in str(e.value)


def test_what_is_planted_is_listed_by_kind():
    planted = Planted()
    planted.add(Path("a"), "tiny", "turned")
    planted.add(Path("b"), "tiny")
    assert planted.files == {"tiny": {Path("a"), Path("b")}, "turned": {Path("a")}}
