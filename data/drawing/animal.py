"""One image, from back to front: scene, small things, animal, covers, and the light on all of it."""

import math

import numpy as np
from PIL import Image, ImageChops

from .body import POSES, draw_body
from .covers import COVERS
from .dice import Dice
from .head import draw_head
from .look import choose_look
from .pen import Pen
from .scenes import SCENES
from .species import SPECIES
from .things import scatter_things

SIZE = 96  # pixels: a multiple of 32, so that VGG16's five poolings leave 3x3
SUPERSAMPLE = 3  # drawn three times larger and shrunk, which smooths every edge


def draw_animal(species, seed, *, cover=(0.65, 0.2)):
    """Draw one animal, a key of `SPECIES`, as an RGB image; the same `seed` gives the same image.

    `seed`: a number or a tuple. `cover`: the chances of a first and a second thing in front of the animal.
    """
    dice = Dice(species, seed)
    image, _ = draw_uncovered(species, dice)
    for probability in cover:
        if dice.chance(probability):
            dice.choice(COVERS)(Pen(image), dice)
    return add_light(image.resize((SIZE, SIZE), Image.Resampling.BOX), dice)


def draw_folder(folder, counts, *, seed):
    """Draw so many of each animal into class folders of a new `folder`, and return that; `seed`: a tuple."""
    for species, count in counts.items():
        (folder / species).mkdir(parents=True)
        for i in range(count):
            draw_animal(species, (*seed, i)).save(folder / species / f"{i:03d}.png")
    return folder


def find_head(species, seed):
    """Where the head is in the image that `draw_animal` draws with this seed: booleans (SIZE, SIZE)."""
    image, headless = draw_uncovered(species, Dice(species, seed))
    changed = ImageChops.difference(image, headless).convert("L").point(lambda level: 255 * (level > 0))
    return np.asarray(changed.resize((SIZE, SIZE), Image.Resampling.BOX)) > 127


def draw_uncovered(species, dice):
    """The animal in its scene, with nothing in front of it yet, and the same without its head; both enlarged."""
    image = Image.new("RGB", (SIZE * SUPERSAMPLE,) * 2)
    scene = Pen(image)
    dice.choice(SCENES)(scene, dice)
    scatter_things(scene, dice)
    return image, draw_creature(image, dice, choose_look(SPECIES[species], dice))


def draw_creature(image, dice, look):
    """Draw the animal in its pose; returns the image as it was before the head."""
    side, pose = image.width, POSES[look.pose]
    scale = dice.about(pose.size, 0.2) * side
    centre = (dice.between(0.3, 0.7) * side, dice.between(*pose.heights) * side)
    draw_body(Pen(image, centre=centre, scale=scale, angle=dice.between(-5, 5)), dice, look)
    headless = image.copy()
    draw_head(Pen(image, centre=centre, scale=scale, angle=dice.between(-25, 25)), dice, look)
    return headless


def add_light(image, dice):
    """Add light from one side, contrast, a colour cast and noise."""
    pixels = np.asarray(image, dtype=np.float32) / 255
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE - 0.5
    angle = dice.between(0, 2 * math.pi)
    slope = (x * math.cos(angle) + y * math.sin(angle)) * dice.between(0, 0.6)
    pixels = pixels * (dice.between(0.84, 1.14) + slope)[..., None]
    pixels = (pixels - 0.5) * dice.between(0.74, 1.12) + 0.5
    pixels = pixels * np.array([dice.between(0.92, 1.08) for _ in range(3)], dtype=np.float32)
    # RandomState's stream is frozen by numpy's policy, so the noise is the same in every version.
    noise = np.random.RandomState(int(dice.between(0, 2**31))).standard_normal(pixels.shape)
    pixels = pixels + noise * dice.between(0.005, 0.025)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
