"""From a file to an image, from a folder to three splits, from splits to batches of tensors."""

import hashlib
import io
import os
import re
import stat
import struct
import sys
import unicodedata
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import chain, product
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, get_worker_info
from torchvision.transforms import v2
from tqdm import tqdm

from .distributed import collected, cores, rank, world
from .downloads import fetch, find_archive, unpack
from .settings import DOWNLOADS, SAMPLE, BadArgument, CourseError, Setting, first_line, format_table, printable

# A folder is a split by its name, in any case, with or without "_set", "-data" or "images" at its end.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
# What systems and programs leave behind beside the files whose names begin with a dot.
LEFT_BEHIND = {
    "__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", "Thumbs.db",
    "desktop.ini",
}  # fmt: skip
SHARE = 0.2  # of the train split goes to each split that is missing
# Mean and standard deviation of ImageNet's images, which pretrained networks expect (RGB in [0, 1]).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL_FILE = 10_000  # bytes: below, threads cost more time than they save


# ------------------------------------------------------------------------------ where images are


@dataclass(frozen=True)
class Archive:
    """A published archive of images, and where in it they lie."""

    urls: tuple[str, ...]  # the second is asked if the first has it not
    folder: str
    splits: dict[str, str]  # the folder of each split, where their names don't tell
    published: dict  # its size in bytes, or its sha256


ARCHIVES = {
    # Its `validation` folder is our test set: nobody chooses anything on it.
    "photos": Archive(
        (
            "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip",
            "https://download.mlcc.google.com/mledu-datasets/cats_and_dogs_filtered.zip",
        ),
        "cats_and_dogs_filtered",
        {"train": "train", "test": "validation"},
        {"size": 68_606_236},
    ),
    "photos-full": Archive(
        (
            "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
        ),
        "PetImages",
        {},
        {"sha256": "b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9"},
    ),
}


@dataclass(frozen=True)
class Splits:
    """Images as (path, label) pairs in three splits; label i is classes[i]."""

    name: str
    classes: list[str]
    train: list[tuple[Path, int]]
    validation: list[tuple[Path, int]]
    test: list[tuple[Path, int]]
    left_out: list[Path] = field(default_factory=list)  # files that are no images, damaged, or beside the classes
    digests: dict[Path, str] = field(default_factory=dict, repr=False)  # SHA-256 of each image's file

    @property
    def sizes(self) -> dict[str, int]:
        """How many images each split has, by its name."""
        return {name: len(part) for name, part in self.parts().items()}

    def parts(self) -> dict[str, list[tuple[Path, int]]]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def digest(self) -> str:
        """12 hexadecimal digits that change if any image, label or split does, whatever the files are called."""
        rows = [
            f"{split} {self.classes[label]} {self.digests.get(path, path)}"
            for split, part in self.parts().items()
            for path, label in part
        ]
        return digest_of("\n".join(sorted(rows)))[:12]

    def __str__(self) -> str:
        counts = [Counter(label for _, label in part) for part in self.parts().values()]
        rows = [[name, *(count[i] for count in counts)] for i, name in enumerate(self.classes)]
        table = format_table(["class", *self.sizes], [*rows, ["all", *self.sizes.values()]])
        if not self.left_out:
            return table
        why = "python -m helpers audit DIR says why"
        return f"{table}\nnot loaded: {len(self.left_out):,}, first {printable(self.left_out[0])} ({why})"

    __repr__ = __str__


def load_splits(setting: Setting, *, seed: int = 0) -> Splits:
    """The images of a setting in three splits, downloaded if need be; a split that is missing is cut by `seed`.

    Raises BadArgument if the folder can't be used, CourseError if a download or the reading of a file fails.
    """
    if setting.name not in ARCHIVES:
        folder = SAMPLE if setting.name == "sample" else Path(setting.name)
        return read_folder(folder, name=folder.resolve().name, seed=seed)
    archive = ARCHIVES[setting.name]
    target = DOWNLOADS / Path(archive.urls[0]).name
    file = find_archive(target.name) or fetch(archive.urls, target, **archive.published)
    # The size in the folder's name keeps two archives of one name apart.
    unpacked = DOWNLOADS / f"{file.stem}-{file.stat().st_size}"
    needed = [f"{archive.folder}/{name}" for name in archive.splits.values()] or [archive.folder]
    folder = unpack(file, unpacked, folders=needed, **archive.published) / archive.folder
    parts = {split: folder / name for split, name in archive.splits.items()}
    return read_folder(folder, parts, name=setting.name, seed=seed)


def read_folder(folder: Path, parts: dict[str, Path] | None = None, *, name: str, seed: int) -> Splits:
    """Splits from `folder`: class folders in the folder of each split, `parts`, which is found if it is not given."""
    parts = parts or find_splits(folder)
    found = {split: {child.name: list_files(child) for child in class_folders(part)} for split, part in parts.items()}
    classes = check_classes(found, folder)
    digests = digests_of([file for part in found.values() for files in part.values() for file in files])
    images = {
        split: [(path, i) for i, name in enumerate(classes) for path in part.get(name, []) if digests[path]]
        for split, part in found.items()
    }
    images = cut_missing_splits(images, parts["train"], seed=seed)
    beside = [file for place in {folder, *parts.values()} for file in list_folder(place, folders=False)]
    left_out = [file for file in beside if has_image_name(file)] + [file for file in digests if not digests[file]]
    check_every_class(images, classes, folder, left_out=len(left_out))
    digests = {file: digest for file, digest in digests.items() if digest}
    return Splits(name, classes, **images, left_out=sorted(left_out, key=in_order), digests=digests)


def find_splits(folder: Path) -> dict[str, Path]:
    """The folder of each split; only "train", which is the folder itself, where no folder is named like a split.

    Raises BadArgument if some are and others are not: nothing is quietly taken for a class, or left out.
    """
    if not folder.is_dir():
        raise BadArgument(f"There is no folder {folder.absolute()}.")
    folders = class_folders(folder)
    names = {child: split_of(child.name) for child in folders}
    if not any(names.values()):  # one class may be called train_station; seg_train and seg_test are splits
        names = {child: split_of(child.name, loosely=True) for child in folders}
        if not is_set_of_splits(names.values()):
            check_order_of_folders(folders)
            return {"train": folder}
    return check_splits(names, folder)


def split_of(name: str, *, loosely: bool = False) -> str | None:
    """The split that a folder of this name is meant for, or None; `loosely`: if any word of the name says so."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name) if loosely else [name]
    plain = {re.sub(r"[\W_]*(set|data|images)?$", "", word.casefold()) for word in words}
    return next((split for split, known in SPLIT_NAMES.items() if not plain.isdisjoint(known)), None)


def is_set_of_splits(names: Iterable[str | None]) -> bool:
    """True if there are a train split and another one."""
    return {"train"} < {*names} - {None}


def check_order_of_folders(classes: list[Path]) -> None:
    """Raise BadArgument for class folders with split folders inside: they would be mixed, and cut anew."""
    if classes and all(is_set_of_splits(split_of(child.name) for child in class_folders(one)) for one in classes):
        name = classes[0].name
        raise BadArgument(
            f"{classes[0]} holds folders that are named like splits. Put the classes into the splits, "
            f"train/{name} instead of {name}/train, and so on."
        )


def check_splits(names: dict[Path, str | None], folder: Path) -> dict[str, Path]:
    """The folder of each split; raises BadArgument, naming a folder, unless each is one split with classes inside."""
    known, parts = next(child.name for child, split in names.items() if split), {}
    for child, split in names.items():
        name = child.name
        if split is None:
            raise BadArgument(
                f"{folder} has a folder {known}, which is named like a split, and {name}, which is not. "
                f"Take {name} out of it; or, if {known} is a class, rename {known}."
            )
        if split in parts:
            both = f"{parts[split].name} and {name}"
            raise BadArgument(f"{both} in {folder} are both named like the split {split}. Take one of them out.")
        if not class_folders(child):
            raise BadArgument(
                f"{child} has no class folders. If its images have no labels, take it out: predict can name them later."
            )
        parts[split] = child
    if "train" not in parts:
        raise BadArgument(f"{folder} has a folder {known} and none called train.")
    return parts


def class_folders(folder: Path) -> list[Path]:
    """The visible folders in a folder, in order, without what the course itself wrote there."""
    for child in list_folder(folder, folders=False):
        if not has_image_name(child) and not child.exists():  # a class on a drive that is not there, perhaps
            raise CourseError(f"{child} is a link that leads nowhere. Bring back its target, or remove it.")
    return [child for child in list_folder(folder, folders=True) if not is_output(child)]


def list_folder(folder: Path, *, folders: bool) -> list[Path]:
    """The visible folders directly in a folder, or the visible files, in order."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() == folders and not is_hidden(entry.name)]
    except OSError as error:
        stop_reading(error)
    return sorted((folder / name for name in names), key=in_order)


def in_order(path: Path) -> str:
    """What files are sorted by, alike on all systems: Path ignores case on Windows, and macOS takes accents apart."""
    return unicodedata.normalize("NFC", path.as_posix())


def is_hidden(name: str) -> bool:
    """True for files and folders that programs and systems leave behind, such as .ipynb_checkpoints and __MACOSX."""
    return name[0] == "." or name in LEFT_BEHIND


def is_output(folder: Path) -> bool:
    """True for a folder of training runs, which `--data .` would otherwise take for a class; never one with images."""
    marks = ("model.safetensors", "comparison.json")
    written = any(file for depth in ("", "*/", "*/*/") for mark in marks for file in folder.glob(depth + mark))
    return (written or folder.name == "runs") and not any(map(has_image_name, list_files(folder)))


def list_files(folder: Path) -> list[Path]:
    """The visible files in a class folder, at any depth, in order; links to folders are followed, each folder once."""
    found, entered = [], {*folder.resolve().parents}
    for place, folders, names in os.walk(folder, followlinks=True, onerror=stop_reading):
        if (real := Path(place).resolve()) in entered:  # a link to a folder above, perhaps, which has no end
            folders.clear()
            continue
        entered.add(real)
        folders[:] = [name for name in folders if not is_hidden(name)]  # the others are not entered
        ours = {"comparison.png"} if "comparison.json" in names else set()  # a figure of the course's, no example
        found += [Path(place, name) for name in names if not is_hidden(name) and name not in ours]
    return sorted(found, key=in_order)


def stop_reading(error: OSError) -> None:
    """Raise CourseError for a folder that can't be listed: its images would be missed without a word."""
    text = f"{error.filename} could not be read ({error.strerror}). Look at the disk, and at its rights."
    raise CourseError(text) from error


def check_classes(found: dict[str, dict[str, list]], folder: Path) -> list[str]:
    """The class names, the same in every split; raises BadArgument if there are fewer than two."""
    classes = sorted({name for part in found.values() for name in part}, key=lambda name: in_order(Path(name)))
    if len(classes) < 2:
        number = f"one class folder ({classes[0]})" if classes else "no class folders"
        advice = "a folder of images for each class, directly or inside train, val and test"
        raise BadArgument(f"{folder} has {number}; at least two are needed: {advice}.")
    return classes


def cut_missing_splits(images: dict[str, list], folder: Path, *, seed: int) -> dict[str, list]:
    """The three splits by name: each that is missing is cut from train, which lies in `folder`.

    Files are ranked within their class by a hash of seed and name: the lowest go to test, the highest to validation.
    If both are missing, each half of all ranks decides how many: a file that comes or goes moves at most one other, or
    two while a half is empty.
    """
    given, missing = images["train"], [split for split in SPLIT_NAMES if split not in images]
    ranks = {path: digest_of(f"{seed} {in_order(path.relative_to(folder))}") for path, _ in given}
    taken = {}
    for label in {label for _, label in given}:
        files = sorted((path for path, its_label in given if its_label == label), key=ranks.get)
        low = sum(ranks[path] < "8" for path in files)  # the first of the hexadecimal digits
        halves = {"test": low, "validation": len(files) - low}
        for split in missing:
            size = 2 * halves[split] if len(missing) == 2 else len(files)
            count = max(1, round(SHARE * size))
            taken |= dict.fromkeys(files[:count] if split == "test" else files[-count:], split)
    parts = {split: [pair for pair in given if taken.get(pair[0], "train") == split] for split in SPLIT_NAMES}
    return parts | {split: part for split, part in images.items() if split != "train"}


def check_every_class(images: dict[str, list], classes: list[str], folder: Path, *, left_out: int) -> None:
    """Raise BadArgument if some class has no image in some split."""
    counts = {split: Counter(label for _, label in part) for split, part in images.items()}
    why = f" Not loaded: {left_out:,} files; python -m helpers audit DIR says why." if left_out else ""
    for split, label in product(counts, range(len(classes))):
        if not counts[split][label]:
            total = sum(count[label] for count in counts.values())
            found = "1 readable image" if total == 1 else f"{total} readable images"
            raise BadArgument(
                f"Class {classes[label]!r} in {folder} has {found} and none for the split {split}; every class needs "
                f"at least three, one for each of train, validation and test.{why}"
            )


# ------------------------------------------------------------------------- from a file to an image


class Unreadable(CourseError):
    """A file whose content can't be decoded as an image: not one, damaged, cut short, or far too large."""


# The formats that are known by how a file begins, whatever it is called. HEIF needs pillow-heif, AVIF a recent Pillow.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "MPO", "AVIF", "HEIF", "JPEG2000", "PPM")
LARGEST_FILE = 1 << 30  # bytes; a video in a class folder should not be read into memory
UPRIGHT = {  # what turns an image upright, by the orientation in its EXIF note
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def load_image(path: str | Path, *, at_least: int | None = None) -> Image.Image:
    """The image in a file as RGB, upright; the first frame if it moves, white where it is transparent.

    `at_least`: a JPEG may be decoded smaller, which is faster, as long as its sides keep this many pixels.
    Raises Unreadable if its content is no image, CourseError if the file can't be read at all.
    """
    return decode(read(path), path, at_least=at_least)


def read(path: str | Path) -> bytes:
    """The bytes of a file; raises CourseError if there is none, or if the disk or its rights don't let it be read."""
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):  # a pipe would be waited for
            kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
            raise CourseError(f"{path} is {kind}, not the file of an image.")
        if about.st_size > LARGEST_FILE:
            raise Unreadable(f"{path} is larger than a gigabyte: no image, or too large to train on.")
        # Read at once: every access to a file in Pillow's small pieces would make threads wait for each other.
        with open(path, "rb", buffering=0) as file:
            return file.read()
    except FileNotFoundError as error:
        link = " (it is a link that leads nowhere)" if os.path.islink(path) else ""
        raise CourseError(f"There is no file {path}{link}.") from error
    except OSError as error:
        raise CourseError(
            f"{path} could not be read ({error.strerror or first_line(error)}). The file may be healthy: "
            "look at the disk, the network drive or the file's rights, and run again."
        ) from error


def decode(content: bytes, path: str | Path, *, at_least: int | None = None) -> Image.Image:
    """The bytes of a file as upright RGB; `at_least` as in `load_image`. Raises Unreadable if they are no image."""
    with open_image(content, path) as image:
        return finish_decoding(image, at_least=at_least)


@contextmanager
def open_image(content: bytes, path: str | Path) -> Iterator[Image.Image]:
    """The image in the bytes of a file, not yet decoded; any error of Pillow's about them becomes Unreadable."""
    try:
        with identify(content) as image:
            yield image
    except MemoryError as error:
        raise CourseError(f"Not enough memory to decode {path}. Close other programs.") from error
    # A damaged file makes Pillow stumble anywhere: OSError, SyntaxError, ValueError, struct.error, KeyError and more.
    except Exception as error:
        raise Unreadable(f"{path} can't be read as an image. Replace it or take it out of the folder.") from error


def identify(content: bytes) -> Image.Image:
    """The image that begins so, opened by Pillow; without its notes if Pillow refuses it because of them."""
    try:
        return open_first(content)
    except Exception:
        for begin, without_notes in {b"\x89PNG": png_without_notes, b"\xff\xd8": jpeg_without_notes}.items():
            if content.startswith(begin):
                return open_first(without_notes(content))
        raise


def open_first(content: bytes) -> Image.Image:
    """The image that begins so, opened by Pillow; a PNG is decoded too, since notes may stand behind its pixels."""
    register_formats()
    image = Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN])
    if image.format == "PNG":
        image.load()
    return image


def png_without_notes(content: bytes) -> bytes:
    """A PNG's header and the chunks that its pixels need: what else is in it may be damaged or too long for Pillow."""
    kept, position = [content[:8]], 8
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(content[position : position + 12 + length])
        position += 12 + length
    return b"".join(kept)


def jpeg_without_notes(content: bytes) -> bytes:
    """A JPEG without what describes it; the orientation stays (APP1), and which colours it has (a whole APP14)."""
    kept, position = [content[:2]], 2
    while position + 4 <= len(content):
        marker, length = struct.unpack_from(">HH", content, position)
        if not 0xFFC0 <= marker <= 0xFFFE or marker == 0xFFDA:  # pixels from here on
            break
        is_note = (0xFFE0 <= marker <= 0xFFEF and marker != 0xFFE1) or marker == 0xFFFE
        if not is_note or (marker == 0xFFEE and length >= 14):
            kept.append(content[position : position + 2 + length])
        position += 2 + length
    return b"".join(kept) + content[position:]


def finish_decoding(image: Image.Image, *, at_least: int | None = None) -> Image.Image:
    """An opened image as upright RGB; `at_least` as in `load_image`."""
    if at_least:
        # Not "L", where grey would do: it passes over faults of the colours at which "RGB" stumbles.
        image.draft("RGB", (at_least, at_least))
    image.load()
    turn = UPRIGHT.get(orientation(image))
    rgb = to_rgb(image)
    return rgb if turn is None else rgb.transpose(turn)


def orientation(image: Image.Image) -> int:
    """The orientation in the EXIF note, 1 to 8; 1 also if there is no note or a damaged one."""
    with suppress(Exception):  # a note that can't be read says nothing about the pixels
        value = image.getexif().get(0x0112, 1)
        return int(value[0] if isinstance(value, tuple) else value)
    return 1


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded image in any of Pillow's modes as 8-bit RGB; itself if that is what it is."""
    if image.mode.startswith("I") or image.mode == "F":
        values = numpy.nan_to_num(numpy.asarray(image, dtype=numpy.float32), posinf=0, neginf=0)
        white = 65535 if image.mode.startswith("I;16") or values.max() > 255 else 255
        if image.mode == "F" and values.max() <= 1:
            white = 1
        # Pillow's own conversion would cut values off at 255 instead of scaling them.
        scaled = (values * (255 / white)).clip(0, 255)
        return Image.fromarray(scaled.astype(numpy.uint8)).convert("RGB")
    if is_transparent(image):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def is_transparent(image: Image.Image) -> bool:
    """True if some of it may be transparent: by a channel of its own or by one colour."""
    return "A" in image.getbands() or "transparency" in image.info


@cache
def register_formats() -> None:
    """Load Pillow's readers, before threads do so at the same time and one of them misses some."""
    with suppress(ImportError):
        from pillow_heif import register_heif_opener  # what iPhones write, where somebody has installed its reader

        register_heif_opener()
    Image.preinit()  # the readers that are loaded first are tried first: those of the usual formats
    Image.init()


def has_image_name(path: Path) -> bool:
    """True if a file is called like an image, whether Pillow can read that kind here or not."""
    register_formats()
    suffix = path.suffix.lower()
    return suffix in Image.registered_extensions() or suffix in (".heic", ".heif", ".avif")


# ------------------------------------------------------------------------------------- many files


def digests_of(files: list[Path]) -> dict[Path, str]:
    """The `digest_if_readable` of each file. Raises CourseError at the first that can't be read from the disk."""
    mine = in_threads(digest_if_readable, files[rank() :: world()], title="reading images")
    return dict(zip(files, collected(mine), strict=True))


def digest_if_readable(path: Path) -> str:
    """The digest of a file that can be decoded to its end, as `load_image` must do at any size; empty for any other."""
    try:
        content = read(path)
        decode(content, path, at_least=1)  # the smallest draft: all of a JPEG's bytes are read, for less arithmetic
    except Unreadable:
        return ""
    return digest_of(content)


def digest_of(content: bytes | str) -> str:
    """The SHA-256 of a file's bytes, or of a text: 64 hexadecimal digits."""
    content = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    return hashlib.sha256(content).hexdigest()


def in_threads(work: Callable, files: list[Path], *, title: str) -> list:
    """What `work` returns for every file, in order; a thread for each core: Pillow decodes without Python's lock."""
    register_formats()
    # Handing over small images one by one would take long; large pieces would leave threads idle at the end.
    size = min(32, len(files) // (8 * cores()) + 1)
    pieces = [files[i : i + size] for i in range(0, len(files), size)]
    results = stream(lambda piece: [work(file) for file in piece], pieces, cores())
    with warnings.catch_warnings(), closing(results):
        warnings.filterwarnings("ignore", module=r"PIL\.")  # what is wrong with an image, the caller says
        return list(tqdm(chain.from_iterable(results), total=len(files), desc=title, unit=" files", delay=2))


def stream(work: Callable, items: Iterable, threads: int, **options) -> Iterator:
    """What `work` returns for every item, in order; the threads are at most two items each ahead of who asks.

    Close it to end the threads before the end of the items. `options`: of ThreadPoolExecutor.
    """
    pool, waiting = ThreadPoolExecutor(threads, **options), deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


# ----------------------------------------------------------------------------- images to tensors


class EvalTransform(v2.Compose):
    """Image to normalized tensor (3, size, size): all of it, squeezed to a square, where most cut out the middle.

    It is a tensor before it is resized: PyTorch resizes it faster than Pillow, to within one of 255 levels.
    """

    def __init__(self, size: int, mean=IMAGENET_MEAN, std=IMAGENET_STD):
        super().__init__([v2.ToImage(), v2.Resize((size, size)), *to_normalized(mean, std)])
        self.key = (size, tuple(mean), tuple(std))  # all that changes its result


def eval_transform(size: int) -> EvalTransform:
    """Image to normalized tensor (3, size, size), always the same."""
    return EvalTransform(size)


def train_transform(size: int, mean=IMAGENET_MEAN, std=IMAGENET_STD) -> v2.Transform:
    """As `eval_transform`, but every time another crop, perhaps mirrored."""
    return v2.Compose([
        to_square,
        v2.RandomResizedCrop(size, scale=(0.6, 1.0), ratio=(0.8, 1.25)),
        v2.RandomHorizontalFlip(),
        v2.ToImage(),
        *to_normalized(mean, std),
    ])  # fmt: skip


def to_square(image: Image.Image) -> Image.Image:
    """The whole image, its longer side squeezed to the shorter one."""
    side = min(image.size)
    return image if image.width == image.height else image.resize((side, side), Image.Resampling.BILINEAR)


def to_normalized(mean, std) -> list[v2.Transform]:
    """A tensor of 8-bit RGB to float32 in [0, 1], less the mean, divided by the standard deviation."""
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std, inplace=True)]


def denormalize(tensor: Tensor) -> Tensor:
    """Undo the normalisation of a tensor (…, 3, height, width), for showing it: values in [0, 1]."""
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (tensor.cpu() * std + mean).clamp(0, 1)


class ImageDataset(Dataset):
    """Pairs of (path, label) as pairs of (tensor, label)."""

    def __init__(self, images: list[tuple[Path, int]], transform: v2.Transform, *, size: int, digests=None):
        self.images, self.transform, self.size = images, transform, size
        self.digests = digests or {}  # path to SHA-256, where known: what is stored about a file is found without it
        self.seed = None  # a number: `fit` puts that of each epoch in its place
        register_formats()  # before the threads that decode

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.images[index]
        return self.seen(index, self.load(path)), label

    def seen(self, index: int, image: Image.Image) -> Tensor:
        """The image transformed; with a seed, by random numbers that depend on the seed and the image's index alone."""
        if self.seed is None:
            return self.transform(image)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(digest_of(f"{self.seed} {index}")[:8], 16))
            return self.transform(image)

    def load(self, path: Path) -> Image.Image:
        """The image in a file."""
        return self.decode(read(path), path)

    def decode(self, content: bytes, path: Path) -> Image.Image:
        """The image in a file's bytes, of which a random crop still has enough pixels to be seldom enlarged."""
        return decode(content, path, at_least=round(1.3 * self.size))

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        """A whole batch, as DataLoader asks for it: decoded in threads, but for small files and in worker processes.

        The transform goes through the images in their order, because its random numbers come in that of the seed.
        """
        paths, labels = zip(*(self.images[index] for index in indices), strict=True)
        small = paths[0].is_file() and paths[0].stat().st_size < SMALL_FILE
        if small or get_worker_info():
            decoded = (self.load(path) for path in paths)
        else:
            decoded = stream(self.load, paths, cores())
        with closing(decoded):
            return list(zip(map(self.seen, indices, decoded), labels, strict=True))


def make_loaders(
    splits: Splits,
    size: int,
    *,
    batch_size: int | None = None,  # by default 32, or 16 for fewer than 1,000 images: else an epoch has too few steps
    augment: bool = True,
    passes: int = 1,  # how often an epoch shows each training image
    by_image: bool = False,  # augment by seed, epoch and image alone: alike on any number of processes
    mean=IMAGENET_MEAN,  # that the network expects
    std=IMAGENET_STD,
    workers: int | None = None,  # processes that decode, by default `default_workers`
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Loaders of (images, labels) batches for train, validation and test; only train is shuffled and augmented.

    Batches are float32 (batch, 3, size, size) and int64 (batch,). `fit` seeds what is random.
    """
    batch_size = batch_size or (16 if len(splits.train) < 1000 else 32)
    plain, dataset = EvalTransform(size, mean, std), partial(ImageDataset, size=size, digests=splits.digests)
    train = dataset(splits.train, train_transform(size, mean, std) if augment else plain)
    others = [dataset(part, plain) for part in (splits.validation, splits.test)]
    train.seed = 0 if by_image else None
    workers = default_workers(len(train)) if workers is None else workers
    options = {"num_workers": workers, "pin_memory": torch.cuda.is_available()}
    return (
        DataLoader(train, batch_size, sampler=RandomSampler(train, num_samples=passes * len(train)), **options),
        *(DataLoader(part, 2 * batch_size, **options) for part in others),
    )


def dealt(loader: DataLoader) -> DataLoader:
    """A loader of this rank's share of the batches, each of them whole, so that it gives what it always gives."""
    return with_batches(loader, list(loader.batch_sampler)[rank() :: world()]) if world() > 1 else loader


def with_batches(loader: DataLoader, batches) -> DataLoader:
    """The same loader with other batches of indices."""
    options = ("num_workers", "collate_fn", "pin_memory", "generator", "worker_init_fn")
    return DataLoader(loader.dataset, batch_sampler=batches, **{name: getattr(loader, name) for name in options})


def default_workers(images: int) -> int:
    """Processes that decode images beside a GPU; none for small data, and none where computing needs the same cores."""
    # On Windows and macOS each worker starts Python anew, and in a notebook it may never come up.
    if sys.platform != "linux" or images < 1000 or not torch.cuda.is_available():
        return 0
    return min(8, cores())
