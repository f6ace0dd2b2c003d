"""The audit: every planted fault is found, nothing healthy is accused, and the loaders agree with it."""

import csv
import errno
import hashlib
import io
import os
import random
import re
import shutil
import struct
import sys
import time
import tracemalloc
import zlib
from collections import Counter
from pathlib import Path

import numpy
import pytest
from PIL import Image, ImageEnhance, ImageFilter
from test_data import ended_wait

import helpers
from benchmarks.image_sets import write_pages, write_textures
from helpers import auditing, data
from helpers.__main__ import main
from helpers.settings import SAMPLE, BadArgument, CourseError, choose_setting

ORIENTATION = 0x0112
SIZES = (None, 32, 83, 125, 291)  # what load_image is asked for by models of 64, 96 and 224 pixels, and by nobody


@pytest.fixture
def sample(tmp_path):
    """A copy of the sample's images, which are healthy."""
    for split in ("train", "val", "test"):
        shutil.copytree(SAMPLE / split, tmp_path / "sample" / split)
    return tmp_path / "sample"


def drawing(seed, size=(120, 90), mode="RGB"):
    """An image like no other: a few blurred spots."""
    spots = numpy.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=numpy.uint8)
    return Image.fromarray(spots).resize(size, Image.Resampling.BICUBIC).convert(mode)


def encoded(image, kind, **options):
    """The bytes of an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_of_size(width, height):
    """A PNG whose header promises that many pixels, and nothing else."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def turned(seed, orientation):
    """A JPEG whose EXIF note says how the camera was held."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(drawing(seed), "JPEG", exif=exif)


def found(report):
    """All findings as (kind, path within the folder)."""
    return sorted((finding.kind, report.name(finding.path)) for finding in report.findings)


def fingerprint(folder):
    """Every file with its content and its time of change."""
    return {
        path: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).digest())
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---- planted faults


def plant(folder):
    """Put faults of all kinds into a copy of the sample; returns them as (kind, path)."""
    planted = []

    def put(kind, path, content):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(content)
        planted.append((kind, path))

    jpeg, png, gif, bmp = (encoded(drawing(i), kind) for i, kind in enumerate(("JPEG", "PNG", "GIF", "BMP")))
    for name, content in {
        "empty.jpg": b"", "text.jpg": b"not an image", "page.png": b"<html><body>404</body></html>",
        "half.jpg": jpeg[: len(jpeg) // 2], "tail.jpg": jpeg[:-100], "zeros.jpg": bytes(5000), "cut.png": png[:-200],
        "cut.gif": gif[: len(gif) // 2], "cut.bmp": bmp[:-500], "bomb.png": png_of_size(2000, 2000),
    }.items():  # fmt: skip
        put("unreadable", f"train/cats/{name}", content)
    put("dark", "train/dogs/night.png", encoded(Image.new("RGB", (64, 64), (9, 30, 39)), "PNG"))
    put("enormous", "train/dogs/enormous.png", encoded(drawing(10, (1100, 1000)), "PNG"))
    put("tiny", "val/cats/narrow.png", encoded(drawing(11, (31, 200)), "PNG"))
    put("tiny", "val/cats/dot.jpg", encoded(drawing(12, (4, 4)), "JPEG"))
    put("wrong extension", "train/cats/png.jpg", encoded(drawing(13), "PNG"))
    put("wrong extension", "train/cats/jpeg.png", encoded(drawing(14), "JPEG"))
    put("wrong extension", "test/cats/bmp.gif", encoded(drawing(15), "BMP"))
    put("wrong extension", "test/cats/no_suffix", encoded(drawing(16), "PNG"))
    put("wrong extension", "train/dogs/jpeg.dat", encoded(drawing(51), "JPEG"))
    for i, (mode, kind) in enumerate([("CMYK", "JPEG"), ("L", "JPEG"), ("1", "PNG"), ("P", "PNG"), ("RGBA", "PNG"),
                                      ("LA", "PNG"), ("P", "GIF"), ("F", "TIFF")]):  # fmt: skip
        suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(kind, kind.lower())
        put("converted", f"train/dogs/{mode}.{suffix}", encoded(drawing(20 + i, mode=mode), kind))
    deep = numpy.asarray(drawing(30, mode="L")).astype(numpy.uint16) * 257
    put("converted", "test/dogs/deep.png", encoded(Image.fromarray(deep), "PNG"))
    for orientation in (3, 6, 8):
        put("turned", f"train/cats/turned{orientation}.jpg", turned(40 + orientation, orientation))
    plant_copies(folder, put)
    put("stray file", "train/cats/.DS_Store", b"\0\0\0\1Bud1")
    put("stray file", "train/cats/._000.jpg", b"\0\5\26\7")
    put("stray file", "train/dogs/Thumbs.db", b"\xd0\xcf\x11\xe0")
    put("stray file", "notes.txt", b"cats: 200, dogs: 200")
    put("stray file", "train/lost.jpg", encoded(drawing(50), "JPEG"))
    put("stray file", "train/dogs/labels.txt", b"000.jpg dog")
    put("stray file", "train/dogs/.hidden.jpg", encoded(drawing(52), "JPEG"))
    for name in (".ipynb_checkpoints", "train/__MACOSX", "val/dogs/.cache"):
        put("hidden folder", f"{name}/000.jpg", (SAMPLE / "train" / "cats" / "000.jpg").read_bytes())
        planted[-1] = ("hidden folder", name)
    return planted


def plant_copies(folder, put):
    """Exact copies and altered copies of the sample's images: in a class, across splits, across classes."""

    def bytes_of(path):
        return (SAMPLE / path).read_bytes()

    def altered(path, change, **options):
        return encoded(change(Image.open(SAMPLE / path)), "JPEG", **options)

    put("duplicate", "train/cats/x1.jpg", bytes_of("train/cats/010.jpg"))
    put("duplicate", "test/dogs/x2.jpg", bytes_of("test/dogs/011.jpg"))
    put("duplicate across splits", "train/cats/x3.jpg", bytes_of("test/cats/012.jpg"))
    put("duplicate across splits", "train/dogs/x4.jpg", bytes_of("val/dogs/013.jpg"))
    put("duplicate across classes", "train/dogs/x5.jpg", bytes_of("train/cats/014.jpg"))
    near = altered("train/cats/015.jpg", lambda image: image, quality=40)
    put("near-duplicate", "train/cats/y1.jpg", near)
    near = altered("train/dogs/016.jpg", lambda image: image.resize((150, 150)))
    put("near-duplicate", "train/dogs/y2.jpg", near)
    near = altered("test/cats/017.jpg", lambda image: ImageEnhance.Brightness(image).enhance(1.15))
    put("near-duplicate across splits", "train/cats/y3.jpg", near)
    near = altered("val/cats/018.jpg", lambda image: image.crop((1, 1, 95, 95)))
    put("near-duplicate across splits", "train/cats/y4.jpg", near)
    near = altered("train/cats/019.jpg", lambda image: image.resize((70, 70)))
    put("near-duplicate across classes", "train/dogs/y5.jpg", near)


def test_a_healthy_folder_has_no_findings(sample):
    report = helpers.audit(sample)
    assert report.findings == []
    assert (report.images, report.healthy, report.without_jfif) == (800, 800, 0)
    assert "nothing found" in str(report)


@pytest.fixture
def small_limit(monkeypatch):
    """Pillow's limits at 1 and 2 million pixels, so that enormous images need not be enormous."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)


@pytest.mark.usefixtures("small_limit")
def test_every_planted_fault_is_found_and_nothing_else(sample, capsys):
    planted = plant(sample)
    # The palette of this one is a second thing to say about it.
    (sample / "val" / "dogs" / "gif.jpeg").write_bytes(encoded(drawing(60), "GIF"))
    planted += [("wrong extension", "val/dogs/gif.jpeg"), ("converted", "val/dogs/gif.jpeg")]
    before = fingerprint(sample)
    report = helpers.audit(sample)
    assert fingerprint(sample) == before
    assert found(report) == sorted(planted)
    assert {kind for kind, _ in planted} == {*auditing.KINDS} - {"no access"}
    assert report.healthy == report.images - len(report.of("unreadable"))
    with capsys.disabled():
        print(f"\nfaults planted: {len(planted)}, found: {len(report.findings)}, healthy images accused: 0 of 800")
    assert len(planted) >= 40


@pytest.mark.usefixtures("small_limit")
def test_the_loaders_leave_out_what_the_audit_calls_unreadable(sample):
    plant(sample)
    report = helpers.audit(sample)
    splits = data.load_splits(choose_setting(str(sample)))
    unreadable, stray = ({finding.path for finding in report.of(kind)} for kind in ("unreadable", "stray file"))
    beside = {sample / "train" / "lost.jpg", sample / "train" / "dogs" / "labels.txt"}
    assert beside < stray
    assert set(splits.left_out) == unreadable | beside
    assert f"not loaded: {len(unreadable) + 2}, first " in str(splits)
    loaded = {path for part in (splits.train, splits.validation, splits.test) for path, _ in part}
    hidden = [finding.path for finding in report.of("hidden folder")]
    assert not loaded & stray
    assert not [path for path in loaded if any(path.is_relative_to(folder) for folder in hidden)]
    assert len(loaded) == report.healthy - 1  # train/lost.jpg is in no class


def test_colours_that_cannot_be_decoded_count_although_thumbnails_are_grey(sample):
    """A draft in shades of grey would read this file; at any size in colour, libjpeg refuses it."""
    content = bytearray(encoded(drawing(0), "JPEG", subsampling=0))
    start = content.index(b"\xff\xc0") + 10  # three bytes for each channel, the middle one its sampling factors
    content[start + 1], content[start + 4], content[start + 7] = 0x31, 0x21, 0x21  # two in three: no whole number
    (sample / "train" / "cats" / "odd.jpg").write_bytes(content)
    grey = Image.open(io.BytesIO(content))
    grey.draft("L", (32, 32))
    grey.load()
    assert found(helpers.audit(sample)) == [("unreadable", "train/cats/odd.jpg")]
    assert not data.digest_if_readable(sample / "train" / "cats" / "odd.jpg")


def test_the_reasons_are_told_apart(sample, monkeypatch):
    plant(sample)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    details = {finding.path.name: finding.detail for finding in helpers.audit(sample).findings}
    assert details["empty.jpg"] == "empty"
    assert details["text.jpg"] == details["page.png"] == "not an image"
    assert details["half.jpg"].startswith("cut short or damaged (image file is truncated")
    assert details["bomb.png"] == "more than 2,000,000 pixels"
    assert details["dot.jpg"] == "4 × 4 pixels"
    assert details["png.jpg"] == "holds a PNG image"
    assert details["jpeg.dat"] == "holds a JPEG image"
    assert details["no_suffix"] == "holds a PNG image"
    assert details[".hidden.jpg"] == "holds a JPEG image, but is hidden or not named like one"
    assert details["labels.txt"] == "not an image"
    assert details["night.png"] == "its brightest value is 39 of 255"
    assert details["lost.jpg"] == "outside the class folders"
    assert details["__MACOSX"].endswith("read by ImageFolder")
    assert details["CMYK.jpg"] == "CMYK"
    assert details["deep.png"] == "more than 8 bits a value"
    assert details["RGBA.png"] == "transparent, becomes white"


# ---- copies


def test_of_two_copies_the_one_to_drop_is_named(sample):
    """The test set keeps its image; training gives up the copy."""
    shutil.copy(sample / "train" / "cats" / "000.jpg", sample / "test" / "cats" / "zzz.jpg")
    (finding,) = helpers.audit(sample).findings
    assert finding.kind == "duplicate across splits"
    assert finding.path == sample / "train" / "cats" / "000.jpg"
    assert finding.other == sample / "test" / "cats" / "zzz.jpg"


def test_exact_copies_are_those_of_equal_hash(tmp_path):
    generator = random.Random(0)
    for i in range(120):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        (tmp_path / "ab"[i % 2] / f"{i}.png").write_bytes(encoded(drawing(generator.randrange(60)), "PNG"))
    report = helpers.audit(tmp_path)
    counts = Counter(hashlib.sha256(path.read_bytes()).digest() for path in tmp_path.rglob("*.png"))
    kinds = Counter(finding.kind for finding in report.findings)
    assert kinds["duplicate"] + kinds["duplicate across classes"] == sum(count - 1 for count in counts.values()) > 20
    assert set(kinds) == {"duplicate", "duplicate across classes"}
    for finding in report.findings:
        assert finding.path.read_bytes() == finding.other.read_bytes()
        assert ("classes" in finding.kind) == (finding.path.parent != finding.other.parent)


def test_similarity_is_the_correlation_of_the_waves_that_the_fourier_transform_finds():
    generator = numpy.random.default_rng(0)
    images = generator.integers(0, 256, (100, 32, 32), dtype=numpy.uint8)
    noise = generator.integers(-250, 251, images.shape) * generator.random((100, 1, 1))
    images = numpy.concatenate([images, (images + noise).clip(0, 255).astype(numpy.uint8)])
    mirrored = numpy.concatenate([images, images[:, ::-1]], axis=1)
    mirrored = numpy.concatenate([mirrored, mirrored[:, :, ::-1]], axis=2)
    shift = numpy.exp(-0.5j * numpy.pi * numpy.arange(64) / 32)  # by half a pixel: then only cosines remain
    waves = (numpy.fft.fft2(mirrored) * shift[:, None] * shift).real[:, 1:20, 1:20].reshape(200, 361)
    rows = numpy.sign(waves) * numpy.sqrt(numpy.sqrt(numpy.abs(waves)))
    rows /= numpy.sqrt((rows**2).sum(axis=1, keepdims=True))
    expected = numpy.tril(rows @ rows.T, -1)
    pairs = auditing.find_similar([image.tobytes() for image in images], block=7)
    assert {index for index, _, _ in pairs} == set(numpy.flatnonzero(expected.max(axis=1) >= 0.7))
    assert 20 < len(pairs) < 80
    for index, other, correlation in pairs:
        assert other == expected[index].argmax()
        assert correlation == pytest.approx(expected[index, other], abs=1e-4)


def test_textures_under_one_lamp_are_no_copies(tmp_path):
    """Correlation of their brightness at 16 × 16 pixels, 0.96 or more, accused 134 of these 300."""
    write_textures(tmp_path, 300)
    assert len(list(tmp_path.iterdir())) == 6
    assert {finding.kind for finding in helpers.audit(tmp_path).findings} == {"converted"}


def test_pages_of_text_in_one_layout_are_no_copies(tmp_path):
    write_pages(tmp_path, 100)
    assert helpers.audit(tmp_path).findings == []


def test_images_of_hardly_any_contrast_resemble_nothing(tmp_path):
    """A scanner's shading, faint or strong, is no reason to take two empty pages for one."""
    for i in range(9):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        shading = numpy.linspace(0, 5 if i < 6 else 40, 64)[None, :, None] * numpy.ones((64, 64, 3))
        page = Image.fromarray((shading + [200, 10 * i, 90]).astype(numpy.uint8))
        page.save(tmp_path / "ab"[i % 2] / f"{i}.png")
    assert helpers.audit(tmp_path).findings == []


def test_equal_pixels_in_different_files_are_no_exact_copies(tmp_path):
    (tmp_path / "a").mkdir()
    for level in (1, 9):
        (tmp_path / "a" / f"{level}.png").write_bytes(encoded(drawing(1), "PNG", compress_level=level))
    (finding,) = helpers.audit(tmp_path).findings
    assert (finding.kind, finding.detail) == ("near-duplicate", "correlation 1.000 with")


ALTERATIONS = {
    "coarser": lambda image: (image, 30),
    "three quarters": lambda image: (image.resize((72, 72)), 75),
    "half": lambda image: (image.resize((48, 48)), 40),
    "larger": lambda image: (image.resize((150, 150)), 75),
    "brighter": lambda image: (ImageEnhance.Brightness(image).enhance(1.15), 75),
    "less contrast": lambda image: (ImageEnhance.Contrast(image).enhance(0.8), 75),
    "more contrast": lambda image: (ImageEnhance.Contrast(image).enhance(1.2), 75),
    "grey": lambda image: (image.convert("L"), 75),
    "blurred": lambda image: (image.filter(ImageFilter.GaussianBlur(0.7)), 75),
    "noise": lambda image: (Image.blend(image, Image.effect_noise(image.size, 60).convert("RGB"), 0.1), 75),
    "trimmed": lambda image: (image.crop((1, 1, 95, 95)), 75),
    "trimmed more": lambda image: (image.crop((2, 2, 94, 94)), 75),
}


@pytest.mark.parametrize("change", ALTERATIONS.values(), ids=ALTERATIONS)
def test_altered_copies_are_recognised(tmp_path, change):
    (tmp_path / "a").mkdir()
    for path in sorted((SAMPLE / "val" / "cats").iterdir()):
        with Image.open(path) as image:
            image.save(tmp_path / "a" / f"{path.stem}.png")
            copy, quality = change(image)
            copy.save(tmp_path / "a" / f"{path.stem}_copy.jpg", quality=quality)
    copies = {finding.path.name: finding.other.name for finding in helpers.audit(tmp_path).of("near-duplicate")}
    assert copies == {f"{i:03d}_copy.jpg": f"{i:03d}.png" for i in range(50)}


def test_a_copy_that_is_turned_only_by_its_note_is_recognised(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(encoded(drawing(1), "JPEG"))
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # to be turned by 90 degrees clockwise when shown
    (tmp_path / "a" / "2.jpg").write_bytes(encoded(drawing(1).rotate(90, expand=True), "JPEG", exif=exif))
    assert found(helpers.audit(tmp_path)) == [("near-duplicate", "a/2.jpg"), ("turned", "a/2.jpg")]


# ---- the popular filter


def test_the_jfif_filter_is_the_popular_one(sample):
    """Most cameras write Exif instead of JFIF; the filter takes such images for damaged ones."""
    jpeg = (SAMPLE / "train" / "cats" / "000.jpg").read_bytes()
    assert jpeg[2:4] == b"\xff\xe0"
    without = jpeg[:2] + jpeg[4 + int.from_bytes(jpeg[4:6], "big") :]  # the segment that holds the letters, cut out
    (sample / "train" / "cats" / "camera.jpg").write_bytes(without)
    (sample / "train" / "cats" / "drawing.png").write_bytes(encoded(drawing(1), "PNG"))
    (sample / "train" / "cats" / "broken.jpg").write_bytes(jpeg[:500])  # thrown away, but not healthy
    report = helpers.audit(sample)
    files = [path for path in sample.rglob("*") if path.suffix in (".jpg", ".png") and path.name != "broken.jpg"]
    assert report.without_jfif == sum(b"JFIF" not in path.read_bytes()[:10] for path in files) == 2
    assert "would throw away 2 of the readable ones" in str(report)


# ---- the report


def test_the_report_is_saved_whole_and_read_back(sample, tmp_path):
    plant(sample)
    (sample / "train" / "cats" / 'a, b\n"c".jpg').write_bytes(b"")
    report = helpers.audit(sample)
    report.save(tmp_path / "findings.csv")
    with open(tmp_path / "findings.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["kind"], row["path"]) for row in rows) == found(report)
    assert {row["other"] for row in rows} > {"", "train/cats/010.jpg", "test/cats/012.jpg"}
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["findings.csv"]


def test_the_table_names_a_copy_and_what_it_repeats(sample):
    shutil.copy(sample / "train" / "cats" / "000.jpg", sample / "train" / "cats" / "again.jpg")
    with Image.open(sample / "test" / "dogs" / "001.jpg") as image:
        image.save(sample / "train" / "dogs" / "near.jpg", quality=40)
    lines = str(helpers.audit(sample)).splitlines()
    assert lines[2].endswith("train/cats/again.jpg = train/cats/000.jpg")
    assert lines[3].endswith("train/dogs/near.jpg ~ test/dogs/001.jpg")


def test_a_report_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(encoded(drawing(1), "JPEG"))
    report = helpers.audit(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(CourseError, match=r"Could not write .*folder\.csv"):
        report.save(tmp_path / "folder.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder.csv"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows such names")
def test_a_name_in_another_encoding_is_printed_and_saved(sample, tmp_path):
    with open(os.fsencode(sample / "train" / "cats") + b"/\xe4.jpg", "wb"):
        pass
    report = helpers.audit(sample)
    assert "train/cats/\\udce4.jpg: empty" in str(report).encode("utf-8").decode()
    report.save(tmp_path / "findings.csv")
    assert "\\udce4.jpg" in (tmp_path / "findings.csv").read_text(encoding="utf-8")


def test_a_kind_that_is_none_is_refused(sample):
    with pytest.raises(BadArgument, match=r"'blurred' is no kind.*unreadable"):
        helpers.audit(sample).of("blurred")


# ---- folders


def test_a_folder_without_classes_is_looked_into_all_the_same(tmp_path):
    (tmp_path / "1.jpg").write_bytes(encoded(drawing(1), "JPEG"))
    (tmp_path / "2.jpg").write_bytes(b"")
    report = helpers.audit(str(tmp_path))
    assert found(report) == [("stray file", "1.jpg"), ("stray file", "2.jpg"), ("unreadable", "2.jpg")]


def test_a_huge_file_beside_the_images_is_not_read_whole(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(encoded(drawing(1), "JPEG"))
    with open(tmp_path / "film.mp4", "wb") as film:
        film.truncate(1 << 28)  # on the disk it takes no room
    tracemalloc.start()
    report = helpers.audit(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found(report) == [("stray file", "film.mp4")]
    assert peak < 1 << 24


@pytest.mark.parametrize("names", [[], ["a/", "b/"], ["notes.txt"], ["a/.DS_Store"]])
def test_a_folder_without_any_image_is_refused(tmp_path, names):
    """Nothing found would sound as if all were well."""
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_bytes(b"x")
    with pytest.raises(BadArgument, match=re.escape(f"{tmp_path} holds no images")):
        helpers.audit(tmp_path)


def test_a_folder_that_is_not_there_is_refused_and_a_tilde_understood(tmp_path, monkeypatch):
    with pytest.raises(BadArgument, match=re.escape(f"There is no folder {tmp_path / 'x'}")):
        helpers.audit(tmp_path / "x")
    with pytest.raises(BadArgument, match=r"There is no folder .*~\$x"):  # a name, and nobody's home
        helpers.audit("~$x")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "1.jpg").write_bytes(encoded(drawing(1), "JPEG"))
    assert helpers.audit("~").images == 1


def test_a_folder_that_loading_refuses_is_refused_in_the_same_words(tmp_path):
    for name in ("train/a", "train/b", "other/a"):
        (tmp_path / name).mkdir(parents=True)
    with pytest.raises(BadArgument, match=r"a folder train, .* and other, which is not"):
        helpers.audit(tmp_path)


# ---- files that can't be read


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_the_audit_goes_on_where_loading_stops(sample, monkeypatch, number):
    def failing(file, *arguments, **options):
        if str(file).endswith(("cats/007.jpg", "dogs/008.jpg")):
            raise OSError(number, os.strerror(number), str(file))
        return open(file, *arguments, **options)

    monkeypatch.setattr(data, "open", failing, raising=False)
    (sample / "train" / "cats" / "bad.jpg").write_bytes(b"no image")
    report = helpers.audit(sample)
    assert {finding.detail for finding in report.of("no access")} == {os.strerror(number)}
    assert len(report.of("no access")) == 6  # cats and dogs of three splits
    assert [finding.path.name for finding in report.of("unreadable")] == ["bad.jpg"]
    assert (report.images, report.healthy) == (801, 794)
    assert "loading stops" in str(report)
    with pytest.raises(CourseError, match=os.strerror(number)):
        data.load_splits(choose_setting(str(sample)))


def test_no_memory_is_no_damage(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").write_bytes(encoded(drawing(1), "JPEG"))

    def no_memory(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr(Image, "open", no_memory)
    (finding,) = helpers.audit(tmp_path).findings
    assert (finding.kind, finding.detail) == ("no access", "not enough memory")


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes and links in the file system")
def test_pipes_and_broken_links_are_no_images_and_nobody_waits_for_them(sample):
    pipes = [sample / "train" / "cats" / "pipe.jpg", sample / "pipe"]
    for pipe in pipes:
        os.mkfifo(pipe)
    (sample / "train" / "cats" / "link.jpg").symlink_to(sample / "missing.jpg")
    (sample / "train" / "cats" / "folder.jpg").mkdir()
    with ended_wait(pipes[0]), ended_wait(pipes[1]):
        findings = helpers.audit(sample).findings
    assert [(finding.kind, finding.path, finding.detail) for finding in findings] == [
        ("no access", sample / "train" / "cats" / "link.jpg", "No such file or directory"),
        ("no access", pipes[0], "not a file"),
        ("stray file", pipes[1], "not an image"),
    ]


# ---- what is odd about one image


@pytest.mark.parametrize(
    ("name", "kind", "odd"),
    [
        ("photo.jpg", "JPEG", False), ("photo.jpeg", "JPEG", False), ("photo.JPG", "JPEG", False),
        ("photo.jfif", "JPEG", False), ("photo.jpe", "JPEG", False), ("photo.mpo", "MPO", False),
        ("photo.jpg", "MPO", False), ("photo.tif", "TIFF", False), ("photo.png", "JPEG", True),
        ("photo", "PNG", True), ("photo.jpg_large", "JPEG", True),
    ],
)  # fmt: skip
def test_a_name_is_odd_only_if_it_says_something_else(tmp_path, name, kind, odd):
    options = {"save_all": True, "append_images": [drawing(2)]} if kind == "MPO" else {}
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(encoded(drawing(1), kind, **options))
    assert [finding.kind for finding in helpers.audit(tmp_path).findings] == ["wrong extension"] * odd


@pytest.mark.parametrize(
    ("white", "dark"), [(4095, True), (1023, True), (65535, False), (1.0, False), (0.1, True), (12.0, True)]
)
def test_values_that_fill_only_a_part_of_their_range_are_said(tmp_path, white, dark):
    """Often 12 bits in 16: the image is loaded nearly black."""
    kind = numpy.uint16 if isinstance(white, int) else numpy.float32
    (tmp_path / "a").mkdir()
    Image.fromarray(numpy.tile(numpy.linspace(0, white, 64).astype(kind), (64, 1))).save(tmp_path / "a" / "x.tif")
    assert [finding.kind for finding in helpers.audit(tmp_path).findings] == ["dark"] * dark + ["converted"]


def test_one_bright_colour_is_not_dark_whatever_its_grey(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (64, 64), (0, 0, 200)).save(tmp_path / "a" / "blue.png")  # 23 in grey
    assert helpers.audit(tmp_path).findings == []


@pytest.mark.parametrize(
    ("format_", "name", "reader"), [("HEIF", "x.heic", "pillow-heif"), ("AVIF", "x.avif", "a newer Pillow")]
)
@pytest.mark.parametrize("known", [True, False])
def test_a_file_that_needs_another_reader_is_not_called_damaged(tmp_path, monkeypatch, format_, name, reader, known):
    data.register_formats()
    monkeypatch.setattr(Image, "OPEN", {key: value for key, value in Image.OPEN.items() if key != format_})
    if known:
        monkeypatch.setitem(Image.OPEN, format_, (None, lambda prefix: False))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(b"\0\0\0\x18ftypheic" + bytes(500))
    (finding,) = helpers.audit(tmp_path).findings
    assert (finding.kind, finding.detail) == ("unreadable", "not an image" if known else f"needs {reader}")


@pytest.mark.parametrize("kind", ["ICO", "PCX", "TGA"])
def test_an_image_of_a_format_that_is_not_read_is_not_called_none(tmp_path, kind):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / f"x.{kind.lower()}").write_bytes(encoded(drawing(1), kind))
    (finding,) = helpers.audit(tmp_path).findings
    assert (finding.kind, finding.detail) == ("unreadable", f"named like a {kind} image, a format that is not read")


@pytest.mark.parametrize("name", ["film.mp4", "film.png"])
def test_what_is_too_large_to_read_is_said(tmp_path, monkeypatch, name):
    monkeypatch.setattr(data, "LARGEST_FILE", 100)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(encoded(drawing(1), "PNG"))
    (finding,) = helpers.audit(tmp_path).findings
    assert (finding.kind, finding.detail) == (
        "stray file" if name[-1] == "4" else "unreadable",
        "larger than a gigabyte",
    )


# ---- mutations


def healthy_files():
    """Healthy files of four formats, with their suffixes."""
    files = []
    for path in sorted((SAMPLE / "val").rglob("*.jpg"))[::10]:
        image = Image.open(path)
        files += [(".jpg", path.read_bytes()), (".jpg", encoded(image, "JPEG", progressive=True, subsampling=0))]
        files += [(".png", encoded(image, "PNG")), (".png", encoded(image.convert("P"), "PNG"))]
        files += [(".gif", encoded(image, "GIF")), (".bmp", encoded(image, "BMP"))]
    return files


def mutate(content, generator):
    """Flip bytes, cut the tail, or swap two pieces, somewhere or in the header."""
    content, end = bytearray(content), generator.choice([len(content), min(len(content), 700)])
    kind = generator.choice(["flip", "cut", "trim", "swap"])
    if kind == "flip":
        for _ in range(generator.choice([1, 2, 5, 20])):
            content[generator.randrange(end)] = generator.randrange(256)
    elif kind == "cut":
        del content[generator.randrange(end) :]
    elif kind == "trim":
        del content[-generator.randrange(1, 40) :]
    else:
        size = generator.randrange(1, end // 3)
        first, second = generator.randrange(end - 2 * size), generator.randrange(end - size)
        second = max(second, first + size) if second + size <= end else first + size
        one, two = content[first : first + size], content[second : second + size]
        content[first : first + size], content[second : second + size] = two, one
    return kind, bytes(content)


@pytest.fixture(scope="module")
def mutated(tmp_path_factory):
    """A folder of two classes with 1,000 mutated images, and how many of each kind."""
    folder, generator, sources, kinds = tmp_path_factory.mktemp("mutated"), random.Random(0), healthy_files(), Counter()
    for i in range(1000):
        suffix, content = sources[i % len(sources)]
        kind, content = mutate(content, generator)
        kinds[kind] += 1
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        (folder / "ab"[i % 2] / f"{i:04d}{suffix}").write_bytes(content)
    return folder, kinds


def loads(path, size):
    """Whether the loader can read an image; anything but CourseError goes through and fails the test."""
    try:
        assert data.load_image(path, at_least=size).mode == "RGB"
    except CourseError:
        return False
    return True


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_the_loader_never_meets_a_image_it_cannot_read(mutated, capsys):
    folder, kinds = mutated
    report = helpers.audit(folder)
    unreadable = {finding.path for finding in report.of("unreadable")}
    wrong, slowest = [], 0
    for path in sorted(folder.rglob("*.*")):
        start = time.perf_counter()
        wrong += [path for size in SIZES if loads(path, size) != (path not in unreadable)]
        slowest = max(slowest, time.perf_counter() - start)
    splits = data.load_splits(choose_setting(str(folder)))
    counts = ", ".join(f"{name} {count}" for name, count in sorted(kinds.items()))
    with capsys.disabled():
        print(f"\nmutations: {report.images} ({counts}); unreadable: {len(unreadable)}, read: {report.healthy},")
        print(f"left out: {len(splits.left_out)}, judged in two ways: {len(wrong)}; slowest: {slowest:.2f} s")
    assert report.images == 1000
    assert wrong == []
    assert set(splits.left_out) == unreadable
    assert len(splits.digests) == report.healthy
    assert 300 < len(unreadable) < 900
    assert slowest < 20


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_an_epoch_over_the_mutated_images_ends(mutated):
    splits = data.load_splits(choose_setting(str(mutated[0])))
    loaders = data.make_loaders(splits, 32, batch_size=50, workers=0)
    assert sum(len(labels) for loader in loaders for _, labels in loader) == 1000 - len(splits.left_out)


# ---- the package and the command


def test_the_package_offers_the_audit():
    assert helpers.audit is auditing.audit
    assert helpers.__all__ == ["audit"]


def test_the_command_prints_and_writes(sample, tmp_path, capsys):
    plant(sample)
    assert main(["audit", str(sample), "--out", str(tmp_path / "new" / "findings.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:4] == ["finding", "count", "when", "loaded"]
    assert any(line.split()[:3] == ["hidden", "folder", "3"] for line in lines)
    assert "images a second" in lines[-2]
    assert (tmp_path / "new" / "findings.csv").read_text(encoding="utf-8").startswith("kind,path,detail,other\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing",), "There is no folder "),
        (("file.jpg",), "There is no folder "),
        ((".", "--out", "file.jpg/findings.csv"), "Can't write into file.jpg"),
        ((".", "--out", "."), ". is a folder"),
        ((), "DIR"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file.jpg").write_bytes(b"")
    assert main(["audit", *arguments]) == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file.jpg"]
