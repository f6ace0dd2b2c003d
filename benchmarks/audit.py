"""Measure how fast the audit is, and how well it tells copies from strangers; write `results/`.

python -m benchmarks.audit --data photos --rounds 9
python -m benchmarks.audit --table           only write the table anew from the JSON file

Speed: the audit, and the check before training, against decoding every image fully in one process, and what bare
decoding takes in as many threads: Pillow's smallest draft, in shades of grey, of files that are in memory. Processor
time says how much work each is. It is measured on the images as they are, and on 12-megapixel mosaics of them,
because a draft saves more on images of a camera's size.

Copies: which of 300 altered copies, saved at quality 50, are recognised, and how many unaltered images are taken for
copies of others, among photographs, drawings, textures and pages of text; by the audit, and by `imagehash.phash` with
at most 8 of 64 bits different, where imagehash is installed.
"""

import argparse
import io
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path

import numpy
import PIL
from PIL import Image, ImageEnhance, ImageFilter, features

from helpers.auditing import SIDE, SIMILAR, audit, find_similar, look_at, standardize_waves
from helpers.data import cores, digests_of, in_threads, load_splits
from helpers.runs import write_json
from helpers.settings import SAMPLE, choose_setting, environment

from .image_sets import write_pages, write_textures
from .pages import RESULTS, write_table
from .speed import make_mosaics, speed_cells, stopwatch, take_turns

try:
    import imagehash  # no part of the course; compared with it where it is installed
except ImportError:
    imagehash = None

WAYS = ("decoded fully, one process", "audit", "check before training", "bare decoding, the least there is")
ALTERATIONS: dict[str, Callable] = {
    "saved again at quality 50": lambda image: image,
    "three quarters of the size": lambda image: image.resize((image.width * 3 // 4, image.height * 3 // 4)),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "1.6 times the size": lambda image: image.resize((round(1.6 * image.width), round(1.6 * image.height))),
    "15% brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "20% less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.8),
    "20% more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "grey": lambda image: image.convert("L"),
    "slightly blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "slight noise": lambda image: add_noise(image, 5),
    "1% cut from each side": lambda image: trim(image, 0.01),
    "2% cut from each side": lambda image: trim(image, 0.02),
    "5% cut from each side": lambda image: trim(image, 0.05),
}


def main() -> None:
    """Measure everything (unless --table) and write the table."""
    options = read_options()
    if not options.table:
        measure(options)
    write_table(table(), command="benchmarks.audit")


def measure(options: argparse.Namespace) -> None:
    """All measurements of the images of one setting, as one JSON file."""
    splits = load_splits(choose_setting(options.data))
    files = [path for part in (splits.train, splits.validation, splits.test) for path, _ in part]
    content = {"date": date.today().isoformat(), "environment": versions(), "data": splits.name}
    with tempfile.TemporaryDirectory() as folder:
        content["as they are"] = measure_speed(files, rounds=options.rounds)
        mosaics = make_mosaics(files, Path(folder), count=options.mosaics)
        content["mosaics"] = measure_speed(mosaics, rounds=options.rounds)
    content["search among 25,000"] = {"seconds": measure_search(25_000)}
    content["copies"] = measure_sets(splits.name, files)
    write_json(RESULTS / "audit_speed.json", content)


def versions() -> dict:
    """What the numbers depend on."""
    libraries = {"pillow": PIL.__version__, "libjpeg_turbo": features.version("libjpeg_turbo")}
    return environment() | {"cores": cores(), "numpy": numpy.__version__} | libraries


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the audit.")
    parser.add_argument("--data", default="photos")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--mosaics", type=int, default=24)
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


# ---------------------------------------------------------------------------------------- speed


def measure_speed(files: list[Path], *, rounds: int) -> dict:
    """How fast each way is."""
    contents = [file.read_bytes() for file in files]
    works = (
        lambda: [decode_fully(file) for file in files],
        lambda: run_audit(files),
        lambda: check(files),
        lambda: in_threads(decode_least, contents, title="least"),
    )
    return take_turns(dict(zip(WAYS, works, strict=True)), files, rounds=rounds)


def decode_fully(file: Path) -> None:
    """What a first script would do."""
    with Image.open(file) as image:
        image.convert("RGB")


def run_audit(files: list[Path]) -> None:
    """The audit of the folder that holds all the files."""
    folder = min(file.parents[2] for file in files)
    assert audit(folder).images == len(files)


def check(files: list[Path]) -> None:
    """What `load_splits` does with every file before training."""
    assert all(digests_of(files).values())


def decode_least(content: bytes) -> None:
    """What no look at every coded byte can do without: no file, no colours, an eighth of the size."""
    with Image.open(io.BytesIO(content)) as image:
        image.draft("L", (1, 1))
        image.load()


# --------------------------------------------------------------------------------------- copies


def measure_search(count: int) -> float:
    """Seconds to search that many thumbnails for similar ones."""
    noise = numpy.random.default_rng(0).integers(0, 256, (count, SIDE * SIDE), dtype=numpy.uint8)
    thumbnails = [row.tobytes() for row in noise]
    return stopwatch(lambda: find_similar(thumbnails))[0]


def measure_sets(name: str, files: list[Path]) -> dict:
    """How well each method tells copies from strangers, among images of four kinds."""
    methods = {"audit": (audit_vectors, SIMILAR)} | ({"imagehash": (imagehash_vectors, 0.75)} if imagehash else {})
    with tempfile.TemporaryDirectory() as folder:
        sets = {name: files, "sample": sorted(SAMPLE.glob("*/*/*.jpg"))}
        sets["textures"] = write_textures(Path(folder, "textures"), 1770)
        sets["pages"] = write_pages(Path(folder, "pages"), 1000)
        return {
            kind: {method: measure_copies(images, *how) for method, how in methods.items()}
            for kind, images in sets.items()
        }


def measure_copies(files: list[Path], vectors: Callable, limit: float, *, count: int = 300) -> dict:
    """The share of altered copies that are recognised, and how many of the unaltered images are accused.

    `vectors` makes rows of length 1 of files; two images count as one if the product of their rows reaches `limit`.
    """
    start = time.perf_counter()
    rows = vectors(files)
    result = {"milliseconds_per_image": 1000 * (time.perf_counter() - start) / len(files), "limit": limit}
    products = numpy.tril(rows @ rows.T, -1)
    best, other = products.max(axis=1), products.argmax(axis=1)
    accused = numpy.flatnonzero(best >= limit)
    across = sum(files[i].parent.name != files[other[i]].parent.name for i in accused)
    result |= {"images": len(files), "accused": len(accused), "across_classes": across}
    result |= {"most_similar": [round(float(product), 4) for product in sorted(best)[:-7:-1]]}
    chosen = random.Random(0).sample(range(len(files)), min(count, len(files)))
    for name, change in ALTERATIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            copies = [altered(files[i], change, Path(folder) / f"{i}.jpg") for i in chosen]
            products = (vectors(copies) * rows[chosen]).sum(axis=1)
        result[name] = {"recognised": float((products >= limit).mean()), "lowest": round(float(products.min()), 4)}
    print(result, flush=True)
    return result


def altered(file: Path, change: Callable, copy: Path) -> Path:
    """Change an image and save it as a JPEG of quality 50."""
    with Image.open(file) as image:
        change(image.convert("RGB")).save(copy, quality=50)
    return copy


def audit_vectors(files: list[Path]) -> numpy.ndarray:
    """What the audit compares."""
    return standardize_waves([look.thumbnail for look in in_threads(look_at, files, title="thumbnails")])


def imagehash_vectors(files: list[Path]) -> numpy.ndarray:
    """The 64 bits of imagehash's perceptual hash as ±1/8: a product of 0.75 stands for 8 bits that differ."""

    def bits(file: Path) -> numpy.ndarray:
        with Image.open(file) as image:
            return imagehash.phash(image).hash.ravel()

    return numpy.array(in_threads(bits, files, title="imagehash"), dtype=numpy.float32) / 4 - 1 / 8


def add_noise(image: Image.Image, deviation: float) -> Image.Image:
    """The image with normal noise, different in each channel."""
    noise = deviation * numpy.random.default_rng(0).standard_normal((image.height, image.width, 3))
    return Image.fromarray((numpy.asarray(image) + noise).clip(0, 255).astype(numpy.uint8))


def trim(image: Image.Image, share: float) -> Image.Image:
    """The image without that share of its width and height on each side."""
    x, y = round(share * image.width), round(share * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


# ---------------------------------------------------------------------------------------- table


def table() -> str:
    """The JSON file as Markdown."""
    content = json.loads((RESULTS / "audit_speed.json").read_text(encoding="utf-8"))
    lines = [
        "| images | work | images a second | times as fast (lowest to highest) | processor time an image |",
        "|---|---|---|---|---|",
        *(row(content, images, name) for images in ("as they are", "mosaics") for name in WAYS),
        "",
        *copies_lines(content),
        "",
        f"- `audit_speed.json`: {content['date']}, {content['environment']['cpu']}, "
        f"{content['environment']['cores']} cores, Pillow {content['environment']['pillow']}.",
        "",
    ]
    return "\n".join(lines)


def row(content: dict, images: str, name: str) -> str:
    """One way of going through one kind of images."""
    all_ways, way = content[images], content[images][name]
    return (
        f"| `{content['data']}` {images}: {all_ways['images']:,} of {all_ways['kilobytes_per_image']:,.0f} kB "
        f"| {name} | {speed_cells(way)} | {way['processor_milliseconds_per_image']:.2f} ms |"
    )


def copies_lines(content: dict) -> list[str]:
    """Which altered copies are recognised, and which strangers accused, in each set of images."""
    sets = content["copies"].values()
    heads = [f"{name}: {kind['audit']['images']:,} images" for name, kind in content["copies"].items()]
    rows = {"altered copies recognised": heads, "---": ["---"] * len(heads)}
    for name in ALTERATIONS:
        rows[name] = [cell(f"{method[name]['recognised']:.1%}" for method in kind.values()) for kind in sets]
    rows["unaltered images accused"] = [cell(str(method["accused"]) for method in kind.values()) for kind in sets]
    rows["of them across classes"] = [cell(str(method["across_classes"]) for method in kind.values()) for kind in sets]
    return [f"| {' | '.join([name, *cells])} |" for name, cells in rows.items()]


def cell(values: Iterable[str]) -> str:
    """The audit's value, and in brackets that of imagehash where it was installed."""
    first, *others = values
    return first + "".join(f" ({other})" for other in others)


if __name__ == "__main__":
    main()
