"""Images that tempt a search for copies to accuse strangers: textures under one lamp, pages of text in one layout."""

from collections.abc import Callable
from pathlib import Path

import numpy
from numpy import ndarray
from numpy.random import Generator, default_rng
from PIL import Image, ImageDraw, ImageFont

PIXELS = 200  # a side of a texture
LETTERS = list("abdefghiklmnoprstuv" + 4 * " ")


def write_textures(folder: Path, count: int) -> list[Path]:
    """Grey close-ups of surfaces, drawn: six kinds of low contrast, each in a class folder, lit from one side."""
    files = []
    for i in range(count):
        kind = KINDS[i % len(KINDS)]
        files.append(folder / kind.__name__ / f"{i}.jpg")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        draw_texture(kind, default_rng(i)).save(files[-1], quality=90)
    return files


def write_pages(folder: Path, count: int) -> list[Path]:
    """Scanned pages, drawn: in each of five layouts, different words at the same places, on paper of uneven light."""
    files = []
    for i in range(count):
        layout = list(LAYOUTS)[i % len(LAYOUTS)]
        files.append(folder / layout / f"{i}.jpg")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        draw_page(*LAYOUTS[layout], default_rng(i)).save(files[-1], quality=85)
    return files


# ------------------------------------------------------------------------------------- textures


def draw_texture(kind: Callable, rng: Generator) -> Image.Image:
    """One texture: its contrast is a fraction of that of the light, which makes strangers agree."""
    pattern = kind(rng)
    pattern = (pattern - pattern.mean()) / pattern.std()
    y, x = numpy.mgrid[-1 : 1 : PIXELS * 1j, -1 : 1 : PIXELS * 1j]
    light = x * rng.uniform(0.5, 1) + 0.2 * rng.standard_normal() * y - rng.uniform(0, 0.3) * (x**2 + y**2)
    grain = 3 * rng.standard_normal((PIXELS, PIXELS))
    values = rng.uniform(100, 160) + 30 * light + rng.uniform(4, 14) * pattern + grain
    return Image.fromarray(values.clip(0, 255).astype(numpy.uint8))


def clouds(rng: Generator, rows: int, columns: int) -> ndarray:
    """Smooth noise with that many bumps down and across, of mean 0 and deviation 1."""
    bumps = Image.fromarray(rng.standard_normal((rows, columns)).astype(numpy.float32))
    values = numpy.asarray(bumps.resize((PIXELS, PIXELS)))
    return (values - values.mean()) / values.std()


def crazing(rng: Generator) -> ndarray:
    """A net of fine dark lines."""
    return -numpy.exp(-((clouds(rng, 25, 25) / 0.2) ** 2))


def inclusion(rng: Generator) -> ndarray:
    """Dark streaks from top to bottom."""
    return -numpy.clip(clouds(rng, 5, 50) - 1, 0, None)


def patches(rng: Generator) -> ndarray:
    """Large dark patches."""
    return -1 / (1 + numpy.exp(-6 * (clouds(rng, 7, 7) - 0.7)))


def pitted(rng: Generator) -> ndarray:
    """Dark dots."""
    return -numpy.clip(clouds(rng, 50, 50) - 1.3, 0, None)


def rolled_in_scale(rng: Generator) -> ndarray:
    """Islands of fine ripples."""
    return -abs(clouds(rng, 70, 25)) * (clouds(rng, 8, 8) > 0)


def scratches(rng: Generator) -> ndarray:
    """One to four bright upright lines."""
    values = numpy.zeros((PIXELS, PIXELS))
    for x in rng.integers(5, PIXELS - 5, rng.integers(1, 5)):
        top, bottom = sorted(rng.integers(0, PIXELS, 2))
        values[top : bottom + 20, x : x + rng.integers(2, 4)] = 1
    return values


KINDS = (crazing, inclusion, patches, pitted, rolled_in_scale, scratches)


# ---------------------------------------------------------------------------------------- pages


LAYOUTS = {  # width, height, size of the letters, from line to line, top, left, right, lines, ragged
    "full page": (620, 877, 16, 22, 70, 60, 560, 33, False),
    "small print": (620, 877, 11, 15, 60, 50, 570, 50, False),
    "large print": (500, 700, 24, 36, 50, 40, 460, 16, False),
    "letter": (620, 877, 16, 22, 200, 70, 550, 12, True),
    "list": (480, 640, 20, 36, 80, 60, 420, 12, True),
}


def draw_page(width, height, size, step, top, left, right, lines, ragged, rng: Generator) -> Image.Image:
    """One page of a layout."""
    y, x = numpy.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = 235 + rng.uniform(-8, 8) * x + rng.uniform(-8, 8) * y - rng.uniform(0, 6) * (x**2 + y**2)
    light += 1.5 * rng.standard_normal((height, width))
    paper = numpy.stack([light, light - rng.uniform(0, 6), light - rng.uniform(4, 18)], axis=-1)
    page = Image.fromarray(paper.clip(0, 255).astype(numpy.uint8))
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size)
    for line in range(lines):
        width = (right - left) * (rng.uniform(0.4, 1) if ragged else 1)
        words = "".join(rng.choice(LETTERS, round(width / (0.5 * size))))
        pen.text((left, top + line * step), words, fill=(40, 40, 45), font=font)
    return page
