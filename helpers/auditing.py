"""The audit of a folder of images: what in it one would rather know before training. It changes nothing."""

import csv
import io
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy
from numpy import ndarray
from PIL import Image, UnidentifiedImageError

from .data import (
    FORMATS,
    Unreadable,
    class_folders,
    digest_of,
    find_splits,
    finish_decoding,
    has_image_name,
    in_threads,
    is_hidden,
    is_transparent,
    list_files,
    open_image,
    orientation,
    read,
)
from .downloads import write_whole
from .settings import BadArgument, CourseError, first_line, format_table, printable

# Every kind of finding, and what loading does with such a file.
KINDS = {
    "no access": "loading stops",
    "unreadable": "left out",
    "enormous": "slow",
    "tiny": "enlarged",
    "dark": "nearly black",
    "wrong extension": "read by content",
    "converted": "made RGB",
    "turned": "put upright",
    "duplicate": "kept",
    "duplicate across splits": "kept",
    "duplicate across classes": "kept",
    "near-duplicate": "kept",
    "near-duplicate across splits": "kept",
    "near-duplicate across classes": "kept",
    "stray file": "ignored",
    "hidden folder": "ignored",
}
READERS = {  # what some files need: the format, and who reads it
    ".heic": ("HEIF", "pillow-heif"), ".heif": ("HEIF", "pillow-heif"), ".avif": ("AVIF", "a newer Pillow"),
}  # fmt: skip
DARK = 40  # of 255: often 12 bits of a camera or a scanner in a file of 16
TINY = 32  # pixels; five halvings, as in VGG16, leave nothing of a shorter side
SIDE = 32  # pixels of the thumbnails that are compared
DRAFT = 40  # pixels of the draft that they are made of; at fewer, fewer trimmed copies are recognised
WAVES = 20  # per direction: finer ones hardly survive an alteration
FAINT = 0.4  # of 255: weaker waves may stem from rounding
SIMILAR = 0.7  # the correlation of two thumbnails' waves from which they count as one image
SPLIT_ORDER = ["test", "validation", "train", ""]  # of two copies the later is named, which is the one to drop


@dataclass(frozen=True)
class Finding:
    """One thing about one file or folder."""

    kind: str
    path: Path
    detail: str
    other: Path | None = None  # the image that this one repeats


@dataclass(frozen=True)
class Report:
    """What an audit found; prints as a table."""

    folder: Path
    images: int  # files looked into
    healthy: int  # of them could be decoded
    without_jfif: int  # of the healthy ones a filter for the letters JFIF would throw away
    findings: list[Finding]
    seconds: float

    def of(self, kind: str) -> list[Finding]:
        """The findings of one kind; raises BadArgument if there is no such kind."""
        if kind not in KINDS:
            raise BadArgument(f"{kind!r} is no kind of finding. Choose from: {', '.join(KINDS)}.")
        return [finding for finding in self.findings if finding.kind == kind]

    def __str__(self) -> str:
        found = {kind: self.of(kind) for kind in KINDS if self.of(kind)}
        rows = [[kind, f"{len(of):,}", KINDS[kind], self.describe(of[0])] for kind, of in found.items()]
        table = format_table(["finding", "count", "when loaded", "first example"], rows, left=(0, 2, 3))
        return (
            f"{self.images:,} images, {self.healthy:,} of them readable\n"
            f"{table if rows else 'nothing found'}\n"
            f"A filter for the letters JFIF would throw away {self.without_jfif:,} of the readable ones."
        )

    __repr__ = __str__

    def describe(self, finding: Finding) -> str:
        """A finding as one line of text; a copy as `path = other`, a near-duplicate as `path ~ other`."""
        if finding.other is None:
            return f"{self.name(finding.path)}: {finding.detail}"
        sign = "~" if finding.kind.startswith("near") else "="
        return f"{self.name(finding.path)} {sign} {self.name(finding.other)}"

    def name(self, path: Path) -> str:
        """A path within the folder, printable whatever its letters."""
        return printable(path.relative_to(self.folder).as_posix())

    def save(self, file: str | Path) -> None:
        """Write all findings as CSV, whole or not at all: kind, path, detail, and the image that it repeats."""
        text = io.StringIO(newline="")
        rows = [[f.kind, self.name(f.path), f.detail, self.name(f.other) if f.other else ""] for f in self.findings]
        csv.writer(text).writerows([["kind", "path", "detail", "other"], *rows])
        write_whole(Path(file), text.getvalue().encode())


def audit(folder: str | Path) -> Report:
    """Decode every image in `folder` once and report what is odd about the files and folders in it.

    Class folders are found as the loaders find them. Raises BadArgument if there is no such folder, or none in it.
    """
    start, folder = time.perf_counter(), Path(os.path.expanduser(folder))
    places = {
        path: (split, child.name)
        for split, part in find_splits(folder).items()
        for child in class_folders(part)
        for path in list_files(child)
    }
    findings = find_ignored(folder, places)
    images = [*places, *(finding.path for finding in findings if is_visible_image(finding.path))]
    images.sort(key=lambda path: (SPLIT_ORDER.index(places.get(path, ("", ""))[0]), path.as_posix()))
    if not images:
        raise BadArgument(f"{folder.absolute()} holds no images, nor class folders with images in them.")
    looks = in_threads(look_at, images, title="audit")
    healthy = [look for look in looks if look.thumbnail]
    findings += [finding for look in looks for finding in look.findings]
    findings += find_copies(healthy, places)
    findings.sort(key=lambda finding: (list(KINDS).index(finding.kind), finding.path.as_posix()))
    strays = sum(finding.kind == "stray file" for look in looks for finding in look.findings)
    without_jfif = sum(not look.jfif for look in healthy)
    return Report(folder, len(looks) - strays, len(healthy), without_jfif, findings, time.perf_counter() - start)


def find_ignored(folder: Path, places: dict) -> list[Finding]:
    """A finding for every file and folder that loading ignores."""
    findings = []
    for place, folders, names in os.walk(folder):
        for path in (Path(place, name) for name in folders if is_hidden(name)):
            count = sum(inside.is_file() for inside in path.rglob("*"))
            findings.append(Finding("hidden folder", path, f"{count:,} files, read by ImageFolder"))
        folders[:] = [name for name in folders if not is_hidden(name)]
        strays = [path for path in (Path(place, name) for name in names) if path not in places]
        findings += [Finding("stray file", path, why_stray(path)) for path in strays]
    return findings


def is_visible_image(path: Path) -> bool:
    """True for a file that is called like an image and not hidden."""
    return has_image_name(path) and not is_hidden(path.name)


def why_stray(path: Path) -> str:
    """Why a file is not loaded."""
    if is_visible_image(path):
        return "outside the class folders"
    if path.is_file():  # a pipe would be waited for
        with suppress(Exception), Image.open(path) as image:  # its first bytes only: it may be huge
            return f"holds a {image.format} image, but is hidden or not named like one"
    return "not an image"


# ------------------------------------------------------------------------------------- one image


@dataclass(frozen=True)
class Look:
    """What one look at a file gives; without a thumbnail if it could not be decoded."""

    path: Path
    findings: list[Finding]
    thumbnail: bytes = b""
    digest: str = ""  # SHA-256 of the file
    jfif: bool = False  # the letters by which a popular filter tells healthy files: it knows one kind of JPEG only


def look_at(path: Path) -> Look:
    """Read and decode an image once, small, and note what is odd about it."""
    content = b""
    try:
        content = read(path)
        with open_image(content, path) as image:
            oddities, jfif = list(find_oddities(image, path.suffix.lower())), "jfif" in image.info
            upright = finish_decoding(image, at_least=DRAFT)
    except Unreadable as error:
        kind = "unreadable" if has_image_name(path) else "stray file"
        return Look(path, [Finding(kind, path, why_unreadable(path, content, error.__cause__ or error))])
    except CourseError as error:
        cause = error.__cause__ or error
        why = "not enough memory" if isinstance(cause, MemoryError) else getattr(cause, "strerror", None)
        return Look(path, [Finding("no access", path, why or "not a file")])
    grey = upright.convert("L")
    # The three colours take longer to look through, and no grey is brighter than the brightest of them.
    if grey.getextrema()[1] < DARK and (brightest := max(high for _, high in upright.getextrema())) < DARK:
        oddities.append(("dark", f"its brightest value is {brightest} of 255"))
    thumbnail = grey.resize((SIDE, SIDE)).tobytes()  # 8 bits a pixel, row by row
    findings = [Finding(kind, path, detail) for kind, detail in oddities]
    return Look(path, findings, thumbnail, digest_of(content), jfif)


def find_oddities(image: Image.Image, suffix: str) -> Iterator[tuple[str, str]]:
    """(kind, detail) of what is odd about an image that is opened but not decoded."""
    width, height = image.size
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        yield "enormous", f"{width} × {height} pixels"
    if min(width, height) < TINY:
        yield "tiny", f"{width} × {height} pixels"
    # MPO: several JPEGs in one file, of which the first is used.
    contents = ("JPEG", "MPO") if image.format == "MPO" else (image.format,)
    if Image.registered_extensions().get(suffix) not in contents:
        yield "wrong extension", f"holds a {contents[0]} image"
    if colours(image) != "RGB":
        yield "converted", colours(image)
    if orientation(image) in range(2, 9):
        yield "turned", "by its EXIF note"


def colours(image: Image.Image) -> str:
    """How an image stores its colours, in words; RGB if that is how it is loaded."""
    if is_transparent(image):
        return "transparent, becomes white"
    if image.mode.startswith("I") or image.mode == "F":
        return "more than 8 bits a value"
    return {"1": "black and white", "L": "grey", "P": "palette"}.get(image.mode, image.mode)


def why_unreadable(path: Path, content: bytes, error: BaseException) -> str:
    """What is wrong with the content of a file, in a few words."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * Image.MAX_IMAGE_PIXELS:,} pixels"
    if isinstance(error, Unreadable):
        return "larger than a gigabyte"
    if not content:
        return "empty"
    if isinstance(error, UnidentifiedImageError):
        named = Image.registered_extensions().get(path.suffix.lower())
        if named not in (None, *FORMATS):
            return f"named like a {named} image, a format that is not read"
        format_, reader = READERS.get(path.suffix.lower(), (None, None))
        return f"needs {reader}" if format_ and format_ not in Image.OPEN else "not an image"
    return f"cut short or damaged ({first_line(error)})"


# --------------------------------------------------------------------------------------- copies


def find_copies(looks: list[Look], places: dict) -> list[Finding]:
    """Exact and near duplicates; each finding names an image and an earlier one that it repeats."""
    first_of, originals, findings = {}, [], []
    for look in looks:
        other = first_of.setdefault(look.digest, look.path)
        if other == look.path:
            originals.append(look)
        else:
            kind = across("duplicate", places.get(look.path), places.get(other))
            findings.append(Finding(kind, look.path, "the same file as", other))
    for index, earlier, correlation in find_similar([look.thumbnail for look in originals]):
        path, other = originals[index].path, originals[earlier].path
        kind = across("near-duplicate", places.get(path), places.get(other))
        findings.append(Finding(kind, path, f"correlation {correlation:.3f} with", other))
    return findings


def across(kind: str, place: tuple[str, str] | None, other: tuple[str, str] | None) -> str:
    """The kind of a copy by the (split, class) of both; two classes weigh more than two splits."""
    if not place or not other or place == other:
        return kind
    return f"{kind} across classes" if place[1] != other[1] else f"{kind} across splits"


def find_similar(thumbnails: list[bytes], *, block: int = 512) -> list[tuple[int, int, float]]:
    """(index, index of the most similar one before it, correlation) of every image that repeats an earlier one.

    Measured beside the library imagehash, on photographs, drawings, textures and pages of text: results/README.md.
    """
    vectors, found = numpy.empty((len(thumbnails), (WAVES - 1) ** 2), numpy.float32), []
    for start in range(0, len(thumbnails), block):
        rows = vectors[start : start + block] = standardize_waves(thumbnails[start : start + block])
        correlation = rows @ vectors[: start + len(rows)].T
        correlation[:, start:] = numpy.tril(correlation[:, start:], -1)  # 0 with itself and with later ones
        best = correlation.argmax(axis=1)
        similarity = correlation[numpy.arange(len(rows)), best]
        similar = numpy.flatnonzero(similarity >= SIMILAR).tolist()
        found += [(start + i, int(best[i]), float(similarity[i])) for i in similar]
    return found


def standardize_waves(thumbnails: list[bytes]) -> ndarray:
    """The waves that thumbnails consist of (their cosine transform) as float32 rows of length 1."""
    pixels = numpy.frombuffer(b"".join(thumbnails), dtype=numpy.uint8).reshape(-1, SIDE, SIDE).astype(numpy.float32)
    # No wave 0: light that falls off to one side and the lines of a text are alike in strangers, and run one way only.
    cosines = numpy.cos(numpy.pi / SIDE * numpy.outer(numpy.arange(1, WAVES), numpy.arange(SIDE) + 0.5))
    cosines = (cosines * (2 / SIDE) ** 0.5).astype(numpy.float32)
    waves = (cosines @ pixels @ cosines.T).reshape(len(pixels), -1)
    waves[(abs(waves) < FAINT).mean(axis=1) > 0.5] = 0  # hardly any detail is hardly any evidence
    # The fourth root: two images may share a few strong waves by chance, but not hundreds of all strengths.
    waves = numpy.sign(waves) * abs(waves) ** 0.25
    return waves / numpy.maximum(numpy.linalg.norm(waves, axis=1, keepdims=True), 1)
