"""From a file to an image, and whether a file is one."""

import io
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import cache
from itertools import chain
from pathlib import Path

import numpy
from PIL import Image, ImageOps
from tqdm import tqdm

from .settings import CourseError

# The names that images have, and what is in a file of that name.
SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".gif": "GIF", ".bmp": "BMP", ".webp": "WEBP", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip


def load_image(path: str | Path, *, at_least: int | None = None) -> Image.Image:
    """The image in a file as RGB, upright; the first frame if it moves, white where it is transparent.

    `at_least`: a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as its sides
    stay at least this many pixels, which is faster. Raises CourseError if the file can't be decoded.
    torchvision's decoder is faster on small JPEGs and has no drafts, so it is slower on a camera's (measured:
    results/README.md); it would be a second judge of what is readable.
    """
    with open_image(path) as image:
        return decode(image, at_least=at_least)


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """The image in a file, not yet decoded; any error of Pillow's, now or in decoding it, becomes a CourseError."""
    try:
        if not os.path.isfile(path):
            raise OSError("no file, or not one that ends")  # a pipe would be waited for
        # Read at once: every access to a file in Pillow's small pieces would make threads wait for each other.
        with open(path, "rb", buffering=0) as file:
            content = file.read()
        with Image.open(io.BytesIO(content)) as image:
            yield image
    # A damaged file makes Pillow stumble anywhere: OSError, SyntaxError, ValueError, struct.error, KeyError and more.
    except Exception as error:
        raise CourseError(f"{path} can't be read as an image. Replace it or take it out of the folder.") from error


def decode(image: Image.Image, *, at_least: int | None = None) -> Image.Image:
    """An opened image as upright RGB; `at_least` as in `load_image`."""
    if at_least:
        # Not "L", where grey would do: it passes over faults of the colours at which "RGB" stumbles.
        image.draft("RGB", (at_least, at_least))
    ImageOps.exif_transpose(image, in_place=True)
    return to_rgb(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """A decoded image in any of Pillow's modes as 8-bit RGB; itself if that is what it is."""
    if image.mode.startswith("I") or image.mode == "F":
        values = numpy.asarray(image, dtype=numpy.float32)
        # Pillow's own conversion would cut 16-bit values off at 255 instead of scaling them.
        scale = 255 / 65535 if image.mode.startswith("I;16") or values.max() > 255 else 1
        return Image.fromarray((values * scale).clip(0, 255).astype(numpy.uint8)).convert("RGB")
    if is_transparent(image):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def is_transparent(image: Image.Image) -> bool:
    """True if some of it may be transparent: by a channel of its own or by one colour."""
    return "A" in image.getbands() or "transparency" in image.info


# ----------------------------------------------------------------------------------- many files


def is_readable(path: Path) -> bool:
    """True if the file can be decoded to its end, which is what `load_image` needs at any size.

    The smallest draft will do: a JPEG's bytes are all read for it, only the arithmetic is less. A test mutates 1,000
    images and finds none that can be read at one size and not at another.
    """
    try:
        load_image(path, at_least=1)
    except CourseError:
        return False
    return True


def in_threads(work: Callable, files: list[Path], *, title: str) -> list:
    """What `work` returns for every file, in order; a thread for each processor core.

    Threads are enough, since Pillow decodes without holding Python's lock, and unlike processes they start at once
    on every system. What takes longer than two seconds shows a progress bar on standard error.
    """
    register_formats()
    # Handing over small images one by one would take long; large pieces would leave threads idle at the end.
    size = min(32, len(files) // (8 * cores()) + 1)
    pieces = [files[i : i + size] for i in range(0, len(files), size)]
    with (
        warnings.catch_warnings(),
        closing(stream(lambda piece: [work(file) for file in piece], pieces, cores())) as results,
    ):
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


@cache
def decoders() -> ThreadPoolExecutor:
    """Threads for decoding batch after batch, one for each processor core; between batches they wait."""
    register_formats()
    return ThreadPoolExecutor(cores(), "decoder")


if hasattr(os, "register_at_fork"):  # a forked process inherits no threads: it must make its own
    os.register_at_fork(after_in_child=decoders.cache_clear)


def register_formats() -> None:
    """Load Pillow's readers, before threads do so at the same time and one of them misses some."""
    Image.preinit()  # the readers that are loaded first are tried first: those of the usual formats
    Image.init()


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
