"""Draw the embedded sample: cats and dogs, and the other animals that the slim VGG16 is pretrained on.

    python data/sample/draw.py                       draw data/sample/{train,val,test}/{cats,dogs} again
    python data/sample/draw.py --sheet cats_dogs.png --species-sheet others.png

One function, `draw_animal`, draws every animal from one table, `SPECIES`. Cat and dog are two rows of it, and they
share everything that is not shape: coats, patterns, eye colours, poses, backgrounds, cover and light come from the same
distributions, so only the form of ears, muzzle, nose, eyes and whiskers can tell the two apart.
"""

import argparse
import math
import random
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SEED = 2014  # the year of the VGG paper
SIZE = 96  # pixels: a multiple of 32, so that VGG16's five poolings leave 3x3
SUPERSAMPLE = 3  # drawn three times larger and shrunk, which smooths every edge
JPEG_QUALITY = 88
SPLITS = {"train": 200, "val": 50, "test": 150}  # images per class
FOLDERS = {"cats": "cat", "dogs": "dog"}


# ---------------------------------------------------------------------------------------------------------------------
# The table of species
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Species:
    """The shape of one animal, in head units: the head is about 2 wide, its middle is (0, 0), y points down."""

    crown: float = 0.78  # half width of the skull between the ears
    width: float = 0.95  # half width at the eyes
    cheek: float = 0.92  # half width at the cheeks
    jaw: float = 0.52  # half width at the jaw
    top: float = 0.82  # height above the middle
    chin: float = 0.86  # depth below the middle
    fluff: float = 0.03  # how ragged the outline is
    ears: str = "point"  # a key of EARS, or "none"
    ear_length: float = 0.8
    ear_width: float = 0.7
    ear_at: float = 38  # degrees from the top of the head to the middle of the ear's base
    ear_tilt: float = 22  # degrees that the ear leans outwards
    muzzle: str = "puffs"  # a key of MUZZLES
    muzzle_width: float = 0.3
    muzzle_height: float = 0.2
    muzzle_y: float = 0.4
    nose: str = "triangle"  # a key of NOSES, or "none"
    nose_width: float = 0.12
    nose_y: float = 0.26
    eye_size: float = 0.2
    eye_gap: float = 0.42  # half the distance between the eyes
    eye_y: float = -0.06
    pupil: str = "round"  # a key of PUPILS
    almond: float = 0.8  # height of the eye divided by its width
    whiskers: float = 0.0  # length; 0 draws none
    tongue: float = 0.12  # how often the mouth is open
    neck: float = 0.72  # half width of neck and shoulders
    tail: str = "long"  # a key of TAILS, "none", or "any"
    marks: tuple = ()  # keys of MARKS, always drawn
    coats: tuple = ()  # keys of COATS; empty allows all but pink
    patterns: tuple = ("plain",)  # keys of PATTERNS
    breeds: tuple = ()  # one is drawn at random


# Fur, second colour, light parts.
COATS = {
    "ginger": ((214, 132, 62), (168, 88, 36), (250, 232, 206)),
    "cream": ((236, 208, 164), (196, 152, 100), (253, 244, 226)),
    "brown": ((142, 94, 60), (88, 56, 36), (222, 190, 152)),
    "chocolate": ((98, 64, 46), (58, 38, 30), (196, 152, 116)),
    "black": ((62, 58, 64), (32, 30, 36), (206, 200, 196)),
    "grey": ((146, 148, 156), (88, 90, 100), (236, 236, 236)),
    "blue": ((112, 126, 146), (72, 82, 102), (212, 220, 230)),
    "white": ((242, 238, 230), (190, 176, 160), (255, 254, 250)),
    "fawn": ((206, 168, 122), (132, 96, 66), (246, 230, 204)),
    "golden": ((228, 176, 92), (182, 124, 54), (252, 236, 194)),
    "rust": ((184, 92, 52), (122, 52, 32), (246, 220, 190)),
    "pink": ((240, 178, 172), (206, 130, 132), (252, 218, 208)),
}
EYE_COLOURS = ((132, 178, 84), (222, 180, 62), (98, 164, 208), (196, 118, 48), (120, 78, 46), (86, 148, 124))
COMMON_COATS = tuple(name for name in COATS if name != "pink")
COMMON_PATTERNS = ("plain", "tabby", "patches", "spots", "bicolour", "points", "brindle", "cap")

# fmt: off
_CAT = Species(
    crown=0.8, width=0.98, cheek=0.95, jaw=0.55, top=0.78, chin=0.79, ear_length=0.84, ear_width=0.74, ear_at=39,
    ear_tilt=19, muzzle_width=0.28, muzzle_height=0.2, muzzle_y=0.38, nose_width=0.12, nose_y=0.24, eye_size=0.21,
    eye_gap=0.42, eye_y=-0.1, pupil="slit", almond=0.84, whiskers=0.85, tongue=0.12, neck=0.68,
    tail="any", patterns=COMMON_PATTERNS,
)
_DOG = Species(
    crown=0.76, width=0.9, cheek=0.86, jaw=0.53, top=0.82, chin=0.93, ears="droop", ear_length=1.1, ear_width=0.6,
    ear_at=56, ear_tilt=10, muzzle="long", muzzle_width=0.38, muzzle_height=0.33, muzzle_y=0.48, nose="oval",
    nose_width=0.18, nose_y=0.33, eye_size=0.18, eye_gap=0.39, eye_y=-0.14, pupil="large", almond=0.92, tongue=0.2,
    neck=0.7, tail="any", patterns=COMMON_PATTERNS,
)

SPECIES = {
    "cat": replace(_CAT, breeds=(
        _CAT,
        replace(_CAT, pupil="large", ear_length=0.95),
        replace(_CAT, ear_length=1.02, ear_width=0.78, crown=0.74, width=0.88, cheek=0.8, jaw=0.42, chin=0.86),
        replace(_CAT, pupil="large", fluff=0.1, cheek=1.12, width=1.04, ear_length=0.7, muzzle_y=0.35, nose_y=0.19),
        replace(_CAT, ear_length=0.66, cheek=1.04, jaw=0.64, eye_size=0.23, fluff=0.06),
        replace(_CAT, ears="tuft", fluff=0.08, cheek=1.06, ear_length=0.88),
        replace(_CAT, ears="fold", pupil="large", ear_length=0.52, ear_width=0.62, ear_tilt=24, cheek=1.0),
    )),
    "dog": replace(_DOG, breeds=(
        _DOG,
        replace(_DOG, ear_length=1.4, ear_width=0.66, chin=1.02, muzzle_y=0.53, muzzle_width=0.36),
        replace(_DOG, ear_length=0.8, ear_width=0.56, width=0.94, cheek=0.92, fluff=0.08, muzzle_height=0.3),
        replace(_DOG, ears="fold", ear_length=0.72, ear_width=0.62, ear_at=41, ear_tilt=22, fluff=0.04),
        replace(_DOG, ears="fold", ear_length=0.6, ear_at=40, ear_tilt=24, muzzle_width=0.44, fluff=0.1, cheek=0.98),
        replace(_DOG, ears="point", ear_length=0.78, ear_width=0.62, ear_at=36, ear_tilt=14, cheek=0.95, fluff=0.07),
        replace(_DOG, ears="point", ear_length=0.95, ear_width=0.66, ear_at=37, ear_tilt=17, chin=1.04, muzzle_y=0.55,
                nose_y=0.38),
    )),
    # Below: what the slim VGG16 is pretrained on. None is a cat or a dog, all are put together from the same parts.
    "fox": Species(ear_length=0.9, ear_width=0.7, cheek=1.02, jaw=0.36, chin=1.0, muzzle="long", muzzle_width=0.26,
                   muzzle_height=0.3, muzzle_y=0.55, nose="oval", nose_width=0.13, nose_y=0.42, pupil="slit",
                   almond=0.62, eye_size=0.17, tail="plume", marks=("cheeks",), coats=("rust", "ginger")),
    "fennec": Species(ear_length=1.55, ear_width=0.95, ear_at=42, ear_tilt=30, width=0.9, cheek=0.92, jaw=0.38,
                      muzzle="long", muzzle_width=0.24, muzzle_height=0.24, muzzle_y=0.48, nose="oval",
                      nose_width=0.12, nose_y=0.36, eye_size=0.2, tail="plume", marks=("cheeks",),
                      coats=("cream", "fawn")),
    "lynx": Species(ears="tuft", ear_length=0.85, cheek=1.2, jaw=0.8, fluff=0.12, muzzle_width=0.31, pupil="round",
                    eye_size=0.18, almond=0.66, whiskers=0.7, tail="short", marks=("cheeks", "freckles"),
                    coats=("fawn", "grey", "cream"), patterns=("spots", "plain")),
    "lion": Species(ears="round", ear_length=0.44, ear_width=0.5, ear_at=44, chin=1.0, jaw=0.6, muzzle_width=0.4,
                    muzzle_height=0.27, muzzle_y=0.48, nose_width=0.22, nose_y=0.28, eye_size=0.16, almond=0.66,
                    whiskers=0.5, marks=("mane",), coats=("golden", "fawn")),
    "tiger": Species(ears="round", ear_length=0.48, ear_width=0.56, cheek=1.12, fluff=0.06, jaw=0.68, muzzle_width=0.38,
                     muzzle_height=0.25, muzzle_y=0.44, nose_width=0.2, nose_y=0.25, eye_size=0.17, almond=0.66,
                     whiskers=0.6, marks=("cheeks", "tiger"), coats=("ginger", "golden", "white")),
    "leopard": Species(ears="round", ear_length=0.42, ear_width=0.44, ear_at=42, muzzle_width=0.34, muzzle_height=0.24,
                       nose_width=0.17, nose_y=0.25, eye_size=0.18, almond=0.7, whiskers=0.6, marks=("rosettes",),
                       coats=("golden", "cream", "black")),
    "cheetah": Species(ears="round", ear_length=0.36, ear_width=0.46, ear_at=50, top=0.74, width=0.84, cheek=0.8,
                       muzzle_width=0.28, muzzle_height=0.22, nose_width=0.16, eye_size=0.18, whiskers=0.4,
                       marks=("tears",), coats=("golden", "fawn"), patterns=("spots",)),
    "bear": Species(ears="round", ear_length=0.46, ear_width=0.5, ear_at=46, jaw=0.66, muzzle="long",
                    muzzle_width=0.4, muzzle_height=0.34, muzzle_y=0.46, nose="oval", nose_width=0.22, nose_y=0.28,
                    eye_size=0.12, eye_gap=0.36, pupil="dark", almond=1.0, neck=0.95, tail="short",
                    coats=("brown", "chocolate", "black", "white")),
    "panda": Species(ears="round", ear_length=0.46, ear_width=0.54, ear_at=44, cheek=1.1, jaw=0.7, muzzle_width=0.28,
                     muzzle_height=0.22, nose="oval", nose_width=0.17, nose_y=0.24, eye_size=0.14, pupil="dark",
                     almond=1.0, neck=0.92, tail="short", marks=("panda",), coats=("white", "cream")),
    "red panda": Species(ears="point", ear_length=0.6, ear_width=0.72, ear_at=50, ear_tilt=34, cheek=1.1, jaw=0.7,
                         muzzle_width=0.25, muzzle_height=0.2, nose="oval", nose_width=0.14, nose_y=0.25, eye_size=0.15,
                         pupil="dark", almond=0.95, whiskers=0.4, tail="plume", marks=("mask", "cheeks"),
                         coats=("rust", "ginger")),
    "koala": Species(ears="round", ear_length=0.72, ear_width=0.92, ear_at=62, ear_tilt=48, fluff=0.05, jaw=0.66,
                     muzzle="none", nose="ball", nose_width=0.22, nose_y=0.2, eye_size=0.14, eye_gap=0.5, pupil="dark",
                     almond=1.0, tail="none", coats=("grey", "blue")),
    "raccoon": Species(ears="round", ear_length=0.5, ear_width=0.5, cheek=1.14, fluff=0.07, jaw=0.44, muzzle="long",
                       muzzle_width=0.25, muzzle_height=0.24, muzzle_y=0.46, nose="oval", nose_width=0.15, nose_y=0.34,
                       eye_size=0.15, pupil="dark", almond=0.9, whiskers=0.5, tail="ringed", marks=("mask",),
                       coats=("grey", "brown", "blue")),
    "badger": Species(ears="round", ear_length=0.32, ear_width=0.4, ear_at=56, ear_tilt=40, width=0.8, cheek=0.78,
                      jaw=0.4, chin=1.05, muzzle="long", muzzle_width=0.27, muzzle_height=0.28, muzzle_y=0.6,
                      nose="oval", nose_width=0.17, nose_y=0.5, eye_size=0.11, pupil="dark", almond=1.0, tail="short",
                      marks=("badger",), coats=("white", "grey", "cream")),
    "skunk": Species(ears="round", ear_length=0.3, ear_width=0.36, ear_at=54, ear_tilt=36, width=0.82, cheek=0.84,
                     jaw=0.38, muzzle_width=0.2, muzzle_height=0.18, muzzle_y=0.5, nose="oval", nose_width=0.12,
                     nose_y=0.42, eye_size=0.13, pupil="dark", almond=1.0, tail="plume", marks=("skunk",),
                     coats=("black", "chocolate")),
    "rabbit": Species(ears="leaf", ear_length=1.7, ear_width=0.5, ear_at=24, ear_tilt=10, width=0.84, cheek=0.88,
                      chin=0.8, muzzle_width=0.22, muzzle_height=0.17, muzzle_y=0.38, nose="heart", nose_width=0.1,
                      nose_y=0.26, eye_size=0.18, eye_gap=0.5, pupil="dark", almond=1.05, whiskers=0.6, tail="short",
                      patterns=("plain", "bicolour", "patches")),
    "lop rabbit": Species(ears="droop", ear_length=1.35, ear_width=0.56, ear_at=44, ear_tilt=22, width=0.88, cheek=0.96,
                          fluff=0.05, chin=0.78, muzzle_width=0.23, muzzle_height=0.18, muzzle_y=0.36, nose="heart",
                          nose_width=0.1, nose_y=0.24, eye_size=0.18, eye_gap=0.5, pupil="dark", almond=1.05,
                          whiskers=0.5, tail="short", patterns=("plain", "bicolour", "patches")),
    "mouse": Species(ears="round", ear_length=0.9, ear_width=0.95, ear_at=50, ear_tilt=40, width=0.78, cheek=0.72,
                     jaw=0.34, chin=0.9, muzzle_width=0.16, muzzle_height=0.14, muzzle_y=0.56, nose="oval",
                     nose_width=0.09, nose_y=0.48, eye_size=0.15, eye_gap=0.36, pupil="dark", almond=1.05,
                     whiskers=0.8, coats=("grey", "white", "brown", "fawn")),
    "hamster": Species(ears="round", ear_length=0.4, ear_width=0.44, ear_at=50, ear_tilt=34, cheek=1.2, jaw=0.86,
                       muzzle_width=0.2, muzzle_height=0.15, muzzle_y=0.3, nose="heart", nose_width=0.09, nose_y=0.2,
                       eye_size=0.15, pupil="dark", almond=1.05, whiskers=0.4, tail="none", marks=("cheeks",),
                       coats=("golden", "ginger", "cream", "grey"), patterns=("plain", "patches")),
    "squirrel": Species(ears="tuft", ear_length=0.7, ear_width=0.4, ear_at=34, ear_tilt=12, width=0.8, cheek=0.86,
                        chin=0.8, muzzle_width=0.2, muzzle_height=0.18, muzzle_y=0.42, nose="heart", nose_width=0.1,
                        nose_y=0.32, eye_size=0.18, eye_gap=0.48, pupil="dark", almond=0.95, whiskers=0.4,
                        tail="plume", coats=("rust", "grey", "brown")),
    "beaver": Species(ears="round", ear_length=0.28, ear_width=0.34, ear_at=56, ear_tilt=44, jaw=0.7, chin=0.92,
                      muzzle="broad", muzzle_width=0.36, muzzle_height=0.26, muzzle_y=0.44, nose="oval", nose_width=0.2,
                      nose_y=0.26, eye_size=0.12, pupil="dark", almond=1.0, whiskers=0.4, tail="short",
                      marks=("teeth",), coats=("brown", "chocolate", "fawn")),
    "otter": Species(ears="round", ear_length=0.24, ear_width=0.32, ear_at=72, ear_tilt=64, top=0.72, jaw=0.7,
                     muzzle_width=0.36, muzzle_height=0.24, muzzle_y=0.36, nose="oval", nose_width=0.18, nose_y=0.18,
                     eye_size=0.13, pupil="dark", almond=1.0, whiskers=0.8, marks=("cheeks",),
                     coats=("brown", "chocolate", "grey")),
    "seal": Species(ears="none", top=0.86, width=0.92, jaw=0.68, muzzle_width=0.34, muzzle_height=0.26, muzzle_y=0.4,
                    nose="oval", nose_width=0.14, nose_y=0.2, eye_size=0.22, pupil="dark", almond=1.0, whiskers=0.7,
                    tail="none", coats=("grey", "white", "blue", "fawn"), patterns=("plain", "spots")),
    "walrus": Species(ears="none", top=0.78, jaw=0.74, muzzle_width=0.5, muzzle_height=0.34, muzzle_y=0.36,
                      nose="oval", nose_width=0.2, nose_y=0.1, eye_size=0.11, eye_y=-0.2, pupil="dark", almond=1.0,
                      whiskers=0.4, neck=1.0, tail="none", marks=("tusks",), coats=("brown", "fawn", "rust")),
    "pig": Species(ears="fold", ear_length=0.7, ear_width=0.66, ear_at=42, ear_tilt=24, jaw=0.7, muzzle="snout",
                   muzzle_width=0.34, muzzle_height=0.25, muzzle_y=0.34, nose="none", eye_size=0.12, eye_y=-0.14,
                   pupil="dark", almond=1.0, neck=0.95, tail="short", coats=("pink", "cream", "fawn"),
                   patterns=("plain", "patches")),
    "boar": Species(ears="point", ear_length=0.7, ear_width=0.5, ear_at=40, ear_tilt=24, width=0.82, cheek=0.78,
                    jaw=0.5, chin=1.1, fluff=0.08, muzzle="snout", muzzle_width=0.3, muzzle_height=0.25, muzzle_y=0.64,
                    nose="none", eye_size=0.1, eye_y=-0.12, pupil="dark", almond=0.9, neck=0.98, tail="short",
                    marks=("tusks",), coats=("brown", "chocolate", "black")),
    "cow": Species(ears="leaf", ear_length=0.8, ear_width=0.42, ear_at=64, ear_tilt=84, width=0.78, cheek=0.72, jaw=0.5,
                   top=0.9, chin=1.12, muzzle="broad", muzzle_width=0.52, muzzle_height=0.34, muzzle_y=0.74,
                   nose="slits", nose_width=0.26, nose_y=0.64, eye_size=0.15, eye_gap=0.48, eye_y=-0.18, pupil="dark",
                   almond=0.9, neck=0.86, marks=("horns",), coats=("white", "brown", "black", "fawn"),
                   patterns=("patches", "plain", "bicolour")),
    "sheep": Species(ears="leaf", ear_length=0.66, ear_width=0.38, ear_at=66, ear_tilt=108, width=0.72, cheek=0.68,
                     jaw=0.42, chin=1.02, muzzle_width=0.24, muzzle_height=0.2, muzzle_y=0.62, nose="triangle",
                     nose_width=0.16, nose_y=0.5, eye_size=0.14, eye_gap=0.42, pupil="bar", almond=0.85, neck=1.0,
                     tail="short", marks=("wool",), coats=("white", "cream", "black", "grey")),
    "goat": Species(ears="droop", ear_length=0.95, ear_width=0.4, ear_at=62, ear_tilt=34, width=0.72, cheek=0.66,
                    jaw=0.36, chin=1.14, muzzle="long", muzzle_width=0.3, muzzle_height=0.26, muzzle_y=0.7,
                    nose="triangle", nose_width=0.17, nose_y=0.58, eye_size=0.14, eye_gap=0.44, pupil="bar",
                    almond=0.8, tail="short", marks=("long horns", "beard"), patterns=("plain", "bicolour", "patches")),
    "horse": Species(ears="leaf", ear_length=0.7, ear_width=0.36, ear_at=24, ear_tilt=8, width=0.66, cheek=0.6,
                     crown=0.6, jaw=0.44, top=0.9, chin=1.4, muzzle="broad", muzzle_width=0.38, muzzle_height=0.34,
                     muzzle_y=1.04, nose="slits", nose_width=0.2, nose_y=0.96, eye_size=0.13, eye_gap=0.46, eye_y=-0.2,
                     pupil="dark",
                     almond=0.85, neck=0.66, marks=("forelock",), coats=("brown", "rust", "chocolate", "black", "fawn"),
                     patterns=("plain", "bicolour")),
    "deer": Species(ears="leaf", ear_length=0.85, ear_width=0.44, ear_at=52, ear_tilt=58, width=0.72, cheek=0.66,
                    jaw=0.36, chin=1.1, muzzle="long", muzzle_width=0.25, muzzle_height=0.26, muzzle_y=0.68,
                    nose="oval", nose_width=0.17, nose_y=0.56, eye_size=0.17, eye_gap=0.46, pupil="dark", almond=0.85,
                    tail="short", marks=("antlers",), coats=("rust", "brown", "fawn")),
    "kangaroo": Species(ears="leaf", ear_length=1.05, ear_width=0.5, ear_at=32, ear_tilt=22, width=0.72, cheek=0.68,
                        jaw=0.38, chin=1.05, muzzle="long", muzzle_width=0.28, muzzle_height=0.28, muzzle_y=0.6,
                        nose="oval", nose_width=0.16, nose_y=0.46, eye_size=0.15, eye_gap=0.44, pupil="dark",
                        almond=0.85, coats=("rust", "fawn", "grey")),
    "hyena": Species(ears="round", ear_length=0.66, ear_width=0.56, ear_at=40, ear_tilt=24, cheek=0.8, jaw=0.5,
                     chin=0.98, muzzle="long", muzzle_width=0.38, muzzle_height=0.34, muzzle_y=0.5, nose="oval",
                     nose_width=0.2, nose_y=0.34, eye_size=0.14, eye_gap=0.38, eye_y=-0.14, tongue=0.3, tail="short",
                     coats=("fawn", "grey", "brown"), patterns=("spots",)),
    "monkey": Species(ears="round", ear_length=0.52, ear_width=0.6, ear_at=84, ear_tilt=84, width=0.82, jaw=0.56,
                      muzzle="broad", muzzle_width=0.42, muzzle_height=0.27, muzzle_y=0.5, nose="slits",
                      nose_width=0.1, nose_y=0.32, eye_size=0.15, eye_gap=0.28, marks=("face",), tongue=0.2,
                      coats=("brown", "chocolate", "golden", "black")),
    "elephant": Species(ears="round", ear_length=1.15, ear_width=1.4, ear_at=84, ear_tilt=86, width=0.78, cheek=0.68,
                        jaw=0.46, muzzle="base", muzzle_width=0.26, muzzle_y=0.4, nose="none", eye_size=0.11,
                        eye_gap=0.44, eye_y=-0.14, pupil="dark", almond=0.9, neck=1.0, coats=("grey", "blue", "fawn")),
    "hippo": Species(ears="round", ear_length=0.28, ear_width=0.32, ear_at=44, ear_tilt=30, width=0.78, cheek=0.78,
                     jaw=0.7, top=0.82, chin=1.04, muzzle="broad", muzzle_width=0.74, muzzle_height=0.46,
                     muzzle_y=0.62, nose="slits", nose_width=0.4, nose_y=0.4, eye_size=0.12, eye_gap=0.42, eye_y=-0.28,
                     pupil="dark", almond=1.0, neck=1.0, tail="short", coats=("grey", "blue", "pink")),
    "owl": Species(ears="tuft", ear_length=0.5, ear_width=0.42, ear_at=44, ear_tilt=30, crown=0.9, jaw=0.74, fluff=0.06,
                   muzzle="beak", muzzle_width=0.14, muzzle_height=0.3, muzzle_y=0.2, nose="none", eye_size=0.3,
                   eye_gap=0.4, pupil="ring", almond=1.0, tail="none", marks=("disc",),
                   coats=("brown", "fawn", "grey", "white"), patterns=("spots", "plain")),
    "bat": Species(ears="point", ear_length=1.3, ear_width=0.8, ear_at=36, ear_tilt=18, width=0.8, cheek=0.8, jaw=0.46,
                   chin=0.8, fluff=0.05, muzzle="snout", muzzle_width=0.2, muzzle_height=0.15, muzzle_y=0.3,
                   nose="none", eye_size=0.14, pupil="dark", almond=1.0, tail="none", marks=("fangs",),
                   coats=("chocolate", "brown", "black", "grey")),
}
# fmt: on
PRETRAINING = tuple(name for name in SPECIES if name not in FOLDERS.values())


# ---------------------------------------------------------------------------------------------------------------------
# Entry points
# ---------------------------------------------------------------------------------------------------------------------
def draw_animal(species, seed, size=SIZE, *, cover=(0.65, 0.2)):
    """Draw one animal, a key of `SPECIES`, as an RGB image; the same `seed` (a tuple) gives the same image.

    `cover`: the chances of a first and a second thing in front of the animal.
    """
    dice = Dice(species, *seed)
    side = SIZE * SUPERSAMPLE
    image = Image.new("RGB", (side, side))
    dice.choice(BACKGROUNDS)(image, dice)
    scatter_things(image, dice)
    draw_creature(image, dice, choose_look(SPECIES[species], dice))
    for probability in cover:
        if dice.chance(probability):
            dice.choice(COVERS)(image, dice)
    image = image.resize((size, size), Image.Resampling.BOX)
    return add_light(image, dice)


def draw_split(folder, split, count=None):
    """Write the images of one split as folder/split/{cats,dogs}/NNN.jpg and return their number."""
    count = SPLITS[split] if count is None else count
    for name, species in FOLDERS.items():
        target = Path(folder) / split / name
        target.mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image = draw_animal(species, (SEED, split, index))
            image.save(target / f"{index:03d}.jpg", quality=JPEG_QUALITY)
    return count * len(FOLDERS)


def draw_sample(folder):
    """Draw the three splits into a temporary folder, then swap: a stopped run leaves the old ones whole."""
    folder = Path(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".drawing-") as unfinished:
        images = sum(draw_split(unfinished, split) for split in SPLITS)
        for split in SPLITS:
            shutil.rmtree(folder / split, ignore_errors=True)
            shutil.move(Path(unfinished) / split, folder / split)
    return images


def contact_sheet(rows, *, zoom=2, gap=4):
    """Lay rows of images out on one white sheet."""
    cell = SIZE * zoom + gap
    sheet = Image.new("RGB", (gap + cell * max(map(len, rows)), gap + cell * len(rows)), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            large = image.resize((SIZE * zoom,) * 2, Image.Resampling.BICUBIC)
            sheet.paste(large, (gap + x * cell, gap + y * cell))
    return sheet


def sample_sheet(columns=8, rows=8):
    """Contact sheet of the test images: a row of cats, a row of dogs, and so on."""
    species = [list(FOLDERS.values())[row % 2] for row in range(rows)]
    return contact_sheet(
        [
            [draw_animal(name, (SEED, "test", row // 2 * columns + column)) for column in range(columns)]
            for row, name in enumerate(species)
        ]
    )


def species_sheet(columns=8):
    """Contact sheet of the pretraining animals, one row for each species."""
    return contact_sheet(
        [[draw_animal(name, (SEED, "sheet", column)) for column in range(columns)] for name in PRETRAINING]
    )


# ---------------------------------------------------------------------------------------------------------------------
# Chance and colour
# ---------------------------------------------------------------------------------------------------------------------
class Dice:
    """Random choices that repeat for the same seeds on every machine (only `random()` is promised to be stable)."""

    def __init__(self, *seeds):
        self._random = random.Random("/".join(map(str, seeds))).random

    def between(self, low, high):
        """A number between low and high."""
        return low + (high - low) * self._random()

    def chance(self, probability):
        """True with this probability."""
        return self._random() < probability

    def choice(self, options):
        """One of the options."""
        return options[int(self._random() * len(options))]

    def about(self, value, spread=0.1):
        """The value, changed by up to the share `spread`."""
        return value * self.between(1 - spread, 1 + spread)

    def colour(self, saturation=(0.15, 0.55), value=(0.5, 0.95)):
        """A colour of any hue."""
        hue, s, v = self.between(0, 6), self.between(*saturation), self.between(*value)
        return tuple(round(255 * v * (1 - s * max(0, min(1, 2 - abs((hue + k) % 6 - 3))))) for k in (3, 1, 5))


def mix(first, second, share):
    """The colour between two: share 0 gives the first, 1 the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def dark(colour, share=0.3):
    """A darker, slightly warm shade of the colour."""
    return mix(colour, (24, 16, 18), share)


def light(colour, share=0.3):
    """A lighter tint of the colour."""
    return mix(colour, (255, 252, 244), share)


# ---------------------------------------------------------------------------------------------------------------------
# Drawing in head units
# ---------------------------------------------------------------------------------------------------------------------
def smooth(points, closed=True, steps=6):
    """A Catmull-Rom curve through the points, as an array (n, 2)."""
    points = np.asarray(points, dtype=float)
    if not closed:
        points = np.concatenate([points[:1], points, points[-1:]])
    before, start = np.roll(points, 1, axis=0), points
    end, after = np.roll(points, -1, axis=0), np.roll(points, -2, axis=0)
    t = (np.arange(steps) / steps)[None, :, None]
    p0, p1, p2, p3 = (p[:, None, :] for p in (before, start, end, after))
    curve = p1 + 0.5 * t * (p2 - p0 + t * (2 * p0 - 5 * p1 + 4 * p2 - p3 + t * (3 * (p1 - p2) + p3 - p0)))
    return curve.reshape(-1, 2) if closed else np.concatenate([curve[1:-2].reshape(-1, 2), points[-1:]])


def oval(x, y, rx, ry, angle=0.0):
    """The outline of an ellipse, as an array (n, 2); `angle` in degrees."""
    return CIRCLE @ (turn_matrix(angle) * ((rx,), (ry,))) + (x, y)


def rotate(points, angle):
    """The points turned about (0, 0) by `angle` degrees, clockwise on the image."""
    return np.asarray(points, dtype=float) @ turn_matrix(angle)


def turn_matrix(angle):
    """The matrix that turns row vectors by `angle` degrees."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([[cos, sin], [-sin, cos]])


def mirror(points, side):
    """The points for the right side (1) or mirrored for the left (-1)."""
    return np.asarray(points, dtype=float) * (side, 1)


def ragged(points, dice, *, fluff):
    """The outline with tufts of fur: every other point is pushed outwards from the middle."""
    points = np.asarray(points, dtype=float)
    push = np.array([dice.between(0.3, 1.0) if i % 2 else dice.between(-0.3, 0.1) for i in range(len(points))])
    return points * (1 + fluff * push)[:, None]


CIRCLE = np.stack([np.cos(np.arange(28) * np.pi / 14), np.sin(np.arange(28) * np.pi / 14)], axis=1)


class Pen:
    """Draws on an image in head units: `centre` in pixels, `scale` in pixels per unit, `angle` in degrees."""

    def __init__(self, image, *, centre, scale, angle=0.0):
        self.image, self.centre, self.scale, self.angle = image, centre, scale, angle
        self.draw = ImageDraw.Draw(image)
        self.matrix = turn_matrix(angle) * scale

    def pixels(self, points):
        """The points in pixels, as a list of tuples."""
        return list(map(tuple, (np.asarray(points) @ self.matrix + self.centre).tolist()))

    def shape(self, points, fill, *, edge=None, width=0.035):
        """Fill an outline and draw its edge."""
        corners = self.pixels(points)
        self.draw.polygon(corners, fill=fill)
        if edge is not None:
            self.draw.line([*corners, *corners[:2]], fill=edge, width=self.thickness(width), joint="curve")

    def line(self, points, fill, *, width=0.03):
        """Draw an open line."""
        self.draw.line(self.pixels(points), fill=fill, width=self.thickness(width), joint="curve")

    def thickness(self, width):
        """A line's width in pixels, at least one."""
        return max(1, round(width * self.scale))

    def glow(self, x, y, *, rx, ry, fill, strength=0.6):
        """Add a soft round patch of colour, strongest in its middle."""
        ((px, py),) = self.pixels([(x, y)])
        size = (max(2, round(2 * rx * self.scale)), max(2, round(2 * ry * self.scale)))
        alpha = SOFT_DISC.point(lambda value: value * strength).resize(size, Image.Resampling.BILINEAR)
        self.image.paste(fill, (round(px - size[0] / 2), round(py - size[1] / 2)), alpha)

    @contextmanager
    def inside(self, outline):
        """A pen whose strokes are cut off at the outline."""
        layer = self.image.copy()
        yield Pen(layer, centre=self.centre, scale=self.scale, angle=self.angle)
        mask = Image.new("L", layer.size)
        ImageDraw.Draw(mask).polygon(self.pixels(outline), fill=255)
        self.image.paste(layer, mask=mask)


SOFT_DISC = Image.radial_gradient("L").resize((48, 48)).point(lambda distance: max(0, 255 - distance * 2))


# ---------------------------------------------------------------------------------------------------------------------
# One animal: its look, then its parts from back to front
# ---------------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Look:
    """What is true of one individual: its shape, colours, pose and mood."""

    shape: Species
    fur: tuple
    second: tuple
    pale: tuple
    iris: tuple
    skin: tuple
    pattern: str
    pose: str
    turn: float  # how far the face looks to the side, in head units
    gaze: tuple
    mood: str  # "awake", "sleepy" or "asleep"
    tongue: bool
    ear_swing: float

    @property
    def edge(self):
        """The colour of the outlines."""
        return dark(mix(self.fur, self.second, 0.5), 0.5)

    @property
    def ear_fur(self):
        """The colour of the ears' backs."""
        dark_ears = self.pattern in ("points", "cap") or "panda" in self.shape.marks
        return self.second if dark_ears else self.fur


def choose_look(species, dice):
    """Roll one individual of the species."""
    shape = vary(dice.choice(species.breeds) if species.breeds else species, dice)
    # A third of the animals wear any coat, so that colour alone never names the species.
    coats = shape.coats if shape.coats and dice.chance(0.67) else COMMON_COATS
    fur, second, pale = (mix(c, dice.colour(), 0.08) for c in COATS[dice.choice(coats)])
    patterns = shape.patterns if dice.chance(0.75) else COMMON_PATTERNS
    return Look(
        shape=shape,
        fur=fur,
        second=second,
        pale=pale,
        iris=mix(dice.choice(EYE_COLOURS), dice.colour(), 0.15),
        skin=mix(dice.choice(((228, 150, 146), (74, 52, 54), (44, 38, 42), (150, 96, 84))), fur, 0.1),
        pattern=dice.choice(patterns),
        pose=dice.choice(("bust", "bust", "sit", "loaf")),
        turn=dice.between(-0.26, 0.26),
        gaze=(dice.between(-0.25, 0.25), dice.between(-0.15, 0.2)),
        mood=dice.choice(("awake",) * 7 + ("sleepy",) * 2 + ("asleep",)),
        tongue=dice.chance(shape.tongue),
        ear_swing=dice.between(-10, 10),
    )


def vary(shape, dice):
    """The species' shape with every length changed a little."""
    lengths = {name: dice.about(value, 0.1) for name, value in vars(shape).items() if isinstance(value, float)}
    lengths["ear_tilt"] = shape.ear_tilt + dice.between(-7, 7)
    return replace(shape, **lengths)


def draw_creature(image, dice, look):
    """Draw the animal in its pose, back to front."""
    side = image.width
    size, (low, high) = {"bust": (0.2, (0.46, 0.62)), "sit": (0.145, (0.33, 0.48)), "loaf": (0.165, (0.42, 0.58))}[
        look.pose
    ]
    scale = dice.about(size, 0.2) * side
    centre = (dice.between(0.3, 0.7) * side, dice.between(low, high) * side)
    body = Pen(image, centre=centre, scale=scale, angle=dice.between(-5, 5))
    draw_body(body, dice, look)
    draw_head(Pen(image, centre=centre, scale=scale, angle=dice.between(-25, 25)), dice, look)


def body_outline(look):
    """The outline of neck and body in this pose."""
    neck = look.shape.neck
    half = {
        "bust": [(neck * 0.8, 0.3), (neck, 0.9), (neck * 1.55, 1.5), (neck * 1.8, 2.4), (neck * 1.8, 3.6), (0, 3.8)],
        "sit": [
            (neck * 0.75, 0.3),
            (neck * 0.95, 1.1),
            (neck * 1.2, 1.9),
            (neck * 1.65, 2.7),
            (neck * 1.5, 3.3),
            (0, 3.35),
        ],
        "loaf": [(neck, 0.2), (neck * 1.5, 0.62), (neck * 2.15, 1.05), (neck * 2.4, 1.7), (neck * 2.0, 2.1), (0, 2.15)],
    }[look.pose]
    return smooth(half + [(-x, y) for x, y in half[-2::-1]], steps=5)


def draw_body(pen, dice, look):
    """Draw shadow, tail, body, coat and paws."""
    floor = {"bust": 3.5, "sit": 3.3, "loaf": 2.15}[look.pose]
    pen.glow(0, floor, rx=2.6, ry=0.6, fill=(20, 16, 24), strength=0.55)
    if look.pose != "bust" and look.shape.tail != "none":
        TAILS[dice.choice(tuple(TAILS)) if look.shape.tail == "any" else look.shape.tail](pen, dice, look)
    outline = ragged(body_outline(look) - (0, 1.4), dice, fluff=look.shape.fluff * 0.5) + (0, 1.4)
    pen.shape(outline, look.fur, edge=look.edge)
    with pen.inside(outline) as inner:
        paint_coat(inner, dice, look, part="body")
        inner.glow(0, 0.9, rx=1.5, ry=0.7, fill=dark(look.fur, 0.5), strength=0.6)
        inner.glow(1.6, 2.4, rx=1.2, ry=2.2, fill=dark(look.fur, 0.6), strength=0.5)
    if look.pose != "bust":
        draw_paws(pen, look, y=floor - 0.12)
    if dice.chance(0.2):
        draw_collar(pen, dice, look)


def draw_paws(pen, look, y):
    """Draw two front paws, with legs when the animal sits."""
    fur = {"points": look.second, "bicolour": look.pale}.get(look.pattern, look.fur)
    for x in (-0.36, 0.36):
        if look.pose == "sit":
            pen.line([(x * 1.5, y - 1.2), (x * 1.45, y - 0.2)], look.edge, width=0.04)
            pen.line([(x * 0.1, y - 0.9), (x * 0.1, y - 0.1)], look.edge, width=0.03)
        pen.shape(oval(x, y, 0.36, 0.2), fur, edge=look.edge)
        for toe in (-0.1, 0.1):
            pen.line([(x + toe, y + 0.02), (x + toe, y + 0.15)], look.edge)


def draw_collar(pen, dice, look):
    """Draw a collar with a tag; any animal may wear one."""
    colour, neck = dice.colour((0.5, 0.9), (0.5, 0.95)), look.shape.neck
    arc = smooth([(-neck * 0.98, 0.86), (0, 1.14), (neck * 0.98, 0.86)], closed=False)
    pen.line(arc, dark(colour, 0.45), width=0.22)
    pen.line(arc, colour, width=0.15)
    pen.shape(oval(0, 1.26, 0.11, 0.11), (238, 204, 92), edge=(150, 112, 40))


def head_outline(shape):
    """The outline of the head."""
    half = [
        (shape.crown * 0.5, -shape.top * 0.98),
        (shape.crown, -shape.top * 0.68),
        (shape.width, -0.14),
        (shape.cheek, 0.3 * shape.chin),
        (shape.jaw, 0.8 * shape.chin),
    ]
    middle = [(0, shape.chin)]
    return smooth(half + middle + [(-x, y) for x, y in half[::-1]])


def draw_head(pen, dice, look):
    """Draw ears, head, coat and face."""
    shape = look.shape
    for mark in set(BEHIND_HEAD) & set(shape.marks):
        BEHIND_HEAD[mark](pen, dice, look)
    if shape.ears not in ("none", "droop"):
        draw_ears(pen, dice, look)
    outline = ragged(head_outline(shape), dice, fluff=shape.fluff + 0.012)
    pen.shape(outline, look.fur, edge=look.edge)
    with pen.inside(outline) as inner:
        paint_coat(inner, dice, look, part="head")
        for mark in shape.marks:
            if mark in MARKS:
                MARKS[mark](inner, dice, look)
        inner.glow(-0.3, -0.55, rx=0.8, ry=0.5, fill=light(look.fur, 0.5), strength=0.45)
        inner.glow(0.2, shape.chin, rx=1.1, ry=0.5, fill=dark(look.fur, 0.6), strength=0.4)
    draw_face(pen, dice, look)
    if shape.ears == "droop":
        draw_ears(pen, dice, look)
    for mark in shape.marks:
        if mark in ON_HEAD:
            ON_HEAD[mark](pen, dice, look)


def draw_face(pen, dice, look):
    """Draw muzzle, mouth, nose, eyes and whiskers, moved to the side to which the head is turned."""
    shape = look.shape
    MUZZLES[shape.muzzle](pen, look, x=look.turn)
    for side in (-1, 1):
        draw_eye(pen, look, x=side * shape.eye_gap + look.turn * 0.55, side=side)
    if shape.nose != "none":
        NOSES[shape.nose](pen, look, x=look.turn * 1.15)
    if shape.whiskers:
        draw_whiskers(pen, dice, look)


# --- ears: outlines point up from (0, 0), for the right side
def ear_point(length, width):
    """Outline and inner outline of a pointed ear."""
    outer = [(-0.52, 0.16), (-0.36, -0.42), (0.02, -1.0), (0.1, -1.0), (0.38, -0.5), (0.52, 0.16)]
    return smooth(np.array(outer) * (width, length)), smooth((np.array(outer) * 0.62 + (0.02, -0.06)) * (width, length))


def ear_round(length, width):
    """Outline and inner outline of a round ear."""
    return oval(0, -length * 0.42, width * 0.52, length * 0.62), oval(0, -length * 0.4, width * 0.33, length * 0.42)


def ear_leaf(length, width):
    """Outline and inner outline of a long ear, rounded like a leaf."""
    outer = [(-0.28, 0.1), (-0.5, -0.45), (-0.22, -0.9), (0.04, -1.0), (0.28, -0.88), (0.5, -0.45), (0.28, 0.1)]
    return smooth(np.array(outer) * (width, length)), smooth((np.array(outer) * 0.66 + (0, -0.1)) * (width, length))


def ear_droop(length, width):
    """Outline of a hanging ear; it has no visible inside. It hangs down from (0, 0)."""
    outer = [(-0.4, -0.06), (0.1, -0.16), (0.52, 0.12), (0.66, 0.55), (0.42, 0.96), (0.05, 0.98), (-0.22, 0.6)]
    return smooth(np.array(outer) * (width, length)), None


EARS = {
    "point": ear_point,
    "tuft": ear_point,
    "fold": ear_point,
    "round": ear_round,
    "leaf": ear_leaf,
    "droop": ear_droop,
}


def draw_ears(pen, dice, look):
    """Draw both ears at their place on the skull."""
    shape = look.shape
    outer, inner = EARS[shape.ears](shape.ear_length, shape.ear_width)
    for side in (-1, 1):
        angle = math.radians(shape.ear_at)
        base = np.array([math.sin(angle) * (shape.crown + 0.08), -math.cos(angle) * shape.top])
        tilt = shape.ear_tilt + look.ear_swing * side * 0.6
        tilt = -tilt if shape.ears == "droop" else tilt

        def place(points, base=base, tilt=tilt, side=side):
            return mirror(rotate(points, tilt) + base, side) - (look.turn * 0.3, 0)

        draw_ear(pen, dice, look, place=place, outlines=(outer, inner))


def draw_ear(pen, dice, look, *, place, outlines):
    """Draw one ear; `place` moves its outlines to the head."""
    shape, (outer, inner) = look.shape, outlines
    pen.shape(ragged(place(outer), dice, fluff=shape.fluff * 0.15), look.ear_fur, edge=look.edge)
    if inner is not None and shape.ears != "fold":
        pen.shape(place(inner), mix((226, 156, 150), look.ear_fur, 0.45))
    size = np.array((shape.ear_width, shape.ear_length))
    if shape.ears == "tuft":
        for lean in (-0.08, 0.05, 0.16):
            pen.line(place(np.array([(0.06, -0.9), (lean, -1.38)]) * size), dark(look.second, 0.5), width=0.06)
    if shape.ears == "fold":
        flap = smooth(
            np.array([(-0.44, -0.52), (0.1, -0.66), (0.46, -0.5), (0.42, 0.0), (0.22, 0.2), (-0.1, -0.08)]) * size
        )
        pen.shape(place(flap), dark(look.ear_fur, 0.14), edge=look.edge)


# --- eyes
# Width and height of the pupil, in eye radii; "dark" fills the eye.
PUPILS = {
    "slit": (0.26, 0.86),
    "round": (0.56, 0.56),
    "large": (0.64, 0.64),
    "dark": (1.0, 1.0),
    "bar": (0.7, 0.3),
    "ring": (0.5, 0.5),
}


def draw_eye(pen, look, *, x, side):
    """Draw one eye: open, half closed or asleep."""
    shape, r = look.shape, look.shape.eye_size
    y, lid = shape.eye_y, dark(look.edge, 0.5)
    if look.mood == "asleep":
        pen.line(smooth([(x - r, y), (x, y + 0.5 * r), (x + r, y)], closed=False), lid, width=0.06)
        return
    openness = shape.almond * (0.62 if look.mood == "sleepy" else 1.0)
    slant = -10 * side * (1.15 - shape.almond) * 2
    outline = oval(0, 0, r, r * openness, slant) + (x, y)
    white = mix((250, 248, 240), look.iris, 0.1 if shape.pupil == "round" else 1.0)
    pen.shape(outline, lid if shape.pupil == "dark" else white, edge=lid, width=0.05)
    with pen.inside(outline) as inner:
        draw_pupil(inner, look, x=x + look.gaze[0] * r, y=y + look.gaze[1] * r)


def draw_pupil(pen, look, *, x, y):
    """Draw iris, pupil and highlights."""
    shape, r = look.shape, look.shape.eye_size
    width, height = PUPILS[shape.pupil]
    if shape.pupil != "dark":
        pen.shape(oval(x, y, 0.86 * r, 0.86 * r), look.iris)
        pen.glow(x, y + 0.4 * r, rx=0.9 * r, ry=0.6 * r, fill=light(look.iris, 0.5), strength=0.7)
        pen.shape(oval(x, y, width * r, height * r), (18, 14, 18))
    pen.shape(oval(x - 0.3 * r, y - 0.32 * r, 0.24 * r, 0.24 * r), (255, 255, 255))
    pen.shape(oval(x + 0.3 * r, y + 0.34 * r, 0.1 * r, 0.1 * r), (225, 225, 230))


# --- muzzles
def muzzle_colour(look):
    """The colour of the muzzle, which the coat's pattern decides."""
    if look.pattern == "points":
        return mix(look.fur, look.second, 0.75)
    return look.pale if look.pattern in ("bicolour", "cap") else mix(look.fur, look.pale, 0.6)


def muzzle_puffs(pen, look, x):
    """Two round whisker pads and a small chin."""
    shape, fur = look.shape, muzzle_colour(look)
    w, h, y = shape.muzzle_width, shape.muzzle_height, shape.muzzle_y
    pen.glow(x, y, rx=w * 2.2, ry=h * 2.4, fill=fur, strength=0.9)
    pen.shape(oval(x, y + h * 0.85, w * 0.5, h * 0.55), fur, edge=dark(fur, 0.25), width=0.025)
    if look.tongue:
        draw_tongue(pen, x, y + h * 0.8, size=w * 0.6)
    for side in (-1, 1):
        pen.shape(oval(x + side * w * 0.5, y, w * 0.56, h, side * -12), light(fur, 0.15))
    draw_mouth(pen, look, x=x, spread=w * 0.8)


def muzzle_long(pen, look, x):
    """A muzzle that comes towards the viewer: a bridge from the brow and a broad, rounded end."""
    shape, fur = look.shape, muzzle_colour(look)
    w, h, y = shape.muzzle_width, shape.muzzle_height, shape.muzzle_y
    if look.tongue:
        draw_tongue(pen, x, y + h * 0.75, size=w * 0.62)
    half = [(0.45 * w, shape.eye_y + 0.1), (0.62 * w, y - h * 0.75), (w, y), (0.86 * w, y + h * 0.6), (0.4 * w, y + h)]
    shift = [(px + x * min(1.0, max(0.5, py / y)), py) for px, py in half]
    back = [(-px + x * min(1.0, max(0.5, py / y)), py) for px, py in half[::-1]]
    outline = smooth(shift + back)
    pen.shape(outline, fur, edge=mix(fur, look.edge, 0.45), width=0.028)
    with pen.inside(outline) as inner:
        inner.glow(x, y + h, rx=w * 1.3, ry=h * 0.7, fill=dark(fur, 0.5), strength=0.5)
        inner.glow(x * 0.8, y - h, rx=w * 0.5, ry=h, fill=light(fur, 0.5), strength=0.6)
    draw_mouth(pen, look, x=x, spread=w * 0.72)


def muzzle_broad(pen, look, x):
    """A wide, heavy muzzle."""
    shape, fur = look.shape, mix(muzzle_colour(look), (226, 176, 164), 0.35)
    w, h, y = shape.muzzle_width, shape.muzzle_height, shape.muzzle_y
    outline = smooth(
        [
            (x - w, y),
            (x - w * 0.7, y - h * 0.8),
            (x, y - h * 0.9),
            (x + w * 0.7, y - h * 0.8),
            (x + w, y),
            (x + w * 0.66, y + h * 0.85),
            (x, y + h),
            (x - w * 0.66, y + h * 0.85),
        ]
    )
    pen.shape(outline, fur, edge=mix(fur, look.edge, 0.5))
    with pen.inside(outline) as inner:
        inner.glow(x, y + h, rx=w, ry=h * 0.8, fill=dark(fur, 0.5), strength=0.4)
    arc = [(x - w * 0.6, y + h * 0.3), (x, y + h * 0.5), (x + w * 0.6, y + h * 0.3)]
    pen.line(smooth(arc, closed=False), look.edge, width=0.04)


def muzzle_snout(pen, look, x):
    """A flat disc with two nostrils, and a smile below."""
    shape, fur = look.shape, mix(look.fur, (226, 140, 134), 0.5)
    w, h, y = shape.muzzle_width, shape.muzzle_height, shape.muzzle_y
    smile = [(x - w * 0.8, y + h * 1.1), (x, y + h * 1.55), (x + w * 0.8, y + h * 1.1)]
    pen.line(smooth(smile, closed=False), look.edge, width=0.04)
    pen.shape(oval(x, y, w, h), fur, edge=dark(fur, 0.4))
    for side in (-1, 1):
        pen.shape(oval(x + side * w * 0.36, y, w * 0.14, h * 0.34), dark(fur, 0.65))


def muzzle_beak(pen, look, x):
    """A hooked beak."""
    w, h, y = look.shape.muzzle_width, look.shape.muzzle_height, look.shape.muzzle_y
    beak = mix((232, 172, 72), look.fur, 0.15)
    pen.shape(
        smooth([(x - w, y - h * 0.3), (x, y - h * 0.6), (x + w, y - h * 0.3), (x + w * 0.3, y + h * 0.6), (x, y + h)]),
        beak,
        edge=dark(beak, 0.5),
    )


def muzzle_base(pen, look, x):
    """A base with wrinkles that swings to the side."""
    w, y = look.shape.muzzle_width, look.shape.muzzle_y
    swing = 0.4 if x > 0 else -0.4
    spine = smooth([(x * 0.6, y - 0.5), (x, y + 0.1), (x + swing * 0.4, y + 0.7), (x + swing, y + 1.1)], closed=False)
    widths = np.linspace(1.1, 0.6, len(spine)) * w
    sides = [spine + np.stack([s * widths, 0 * widths], axis=1) for s in (1, -1)]
    pen.shape(np.concatenate([sides[0], sides[1][::-1]]), light(look.fur, 0.08), edge=look.edge)
    for (px, py), half in list(zip(spine, widths, strict=True))[4::3]:
        pen.line([(px - half * 0.7, py), (px + half * 0.7, py + 0.03)], dark(look.fur, 0.3))


def muzzle_none(pen, look, x):
    """Only a mouth."""
    draw_mouth(pen, look, x=x, spread=0.2)


MUZZLES = {
    "puffs": muzzle_puffs,
    "long": muzzle_long,
    "broad": muzzle_broad,
    "snout": muzzle_snout,
    "beak": muzzle_beak,
    "base": muzzle_base,
    "none": muzzle_none,
}


def draw_mouth(pen, look, *, x, spread):
    """Draw the line under the nose and the two curves of the lips."""
    shape = look.shape
    top, y = shape.nose_y + 0.05, shape.muzzle_y + shape.muzzle_height * 0.42
    pen.line([(x * 1.1, top), (x, y)], look.edge, width=0.035)
    for side in (-1, 1):
        lip = [(x, y), (x + side * spread * 0.5, y + 0.1), (x + side * spread, y - 0.02)]
        pen.line(smooth(lip, closed=False), look.edge, width=0.04)


def draw_tongue(pen, x, y, *, size):
    """Draw an open mouth and a tongue."""
    pen.shape(oval(x, y, size * 0.9, size * 0.8), (112, 44, 52), edge=(70, 30, 36))
    pen.shape(oval(x, y + size * 0.5, size * 0.55, size * 0.72), (232, 124, 130), edge=(178, 82, 92), width=0.025)


# --- noses
def nose_triangle(pen, look, x):
    """A small triangle, point down."""
    w, y = look.shape.nose_width, look.shape.nose_y
    points = smooth([(x - w, y - 0.4 * w), (x, y - 0.55 * w), (x + w, y - 0.4 * w), (x, y + 0.8 * w)], steps=4)
    pen.shape(points, look.skin, edge=dark(look.skin, 0.5), width=0.025)


def nose_oval(pen, look, x):
    """A broad nose with a shine and nostrils."""
    w, y, fill = look.shape.nose_width, look.shape.nose_y, dark(look.skin, 0.55)
    points = [
        (x - w, y - 0.15 * w),
        (x - 0.5 * w, y - 0.6 * w),
        (x + 0.5 * w, y - 0.6 * w),
        (x + w, y - 0.15 * w),
        (x + 0.5 * w, y + 0.5 * w),
        (x, y + 0.75 * w),
        (x - 0.5 * w, y + 0.5 * w),
    ]
    pen.shape(smooth(points), fill, edge=dark(fill, 0.5), width=0.025)
    pen.shape(oval(x - 0.2 * w, y - 0.3 * w, 0.34 * w, 0.14 * w), light(fill, 0.55))


def nose_heart(pen, look, x):
    """A tiny pink heart."""
    w, y, fill = look.shape.nose_width, look.shape.nose_y, mix(look.skin, (230, 140, 146), 0.5)
    pen.shape(smooth([(x - w, y - 0.3 * w), (x, y - 0.2 * w), (x + w, y - 0.3 * w), (x, y + 0.8 * w)], steps=4), fill)


def nose_ball(pen, look, x):
    """A tall, round nose, as a koala's."""
    w, y, fill = look.shape.nose_width, look.shape.nose_y, dark(look.skin, 0.4)
    pen.shape(oval(x, y, w, 1.5 * w), fill, edge=dark(fill, 0.4))
    pen.shape(oval(x - 0.3 * w, y - 0.7 * w, 0.2 * w, 0.4 * w), light(fill, 0.5))


def nose_slits(pen, look, x):
    """Two nostrils, as a cow's."""
    w, y = look.shape.nose_width, look.shape.nose_y
    for side in (-1, 1):
        pen.shape(oval(x + side * w, y, 0.3 * w, 0.2 * w, side * 30), dark(look.skin, 0.6))


NOSES = {"triangle": nose_triangle, "oval": nose_oval, "heart": nose_heart, "ball": nose_ball, "slits": nose_slits}


def draw_whiskers(pen, dice, look):
    """Draw three whiskers on each side."""
    shape = look.shape
    colour = (250, 248, 244) if sum(look.fur) < 560 else (120, 108, 104)
    for side in (-1, 1):
        x = look.turn + side * shape.muzzle_width * 0.6
        for row, slope in enumerate((-0.22, 0.02, 0.26)):
            y, length = shape.muzzle_y - 0.06 + row * 0.07, dice.about(shape.whiskers)
            end = (x + side * length, y + slope * length + dice.between(-0.05, 0.05))
            middle = (x + side * length * 0.5, y + slope * length * 0.35)
            pen.line(smooth([(x, y), middle, end], closed=False), colour, width=0.026)


# --- coats
def paint_coat(pen, dice, look, *, part):
    """Paint pattern and hairs; the pen is already cut off at the part's outline."""
    PATTERNS[look.pattern](pen, dice, look, part)
    low, high = ((-1.0, 1.0), (0.3, 3.3))[part == "body"]
    for _ in range(70):
        x, y = dice.between(-1.6, 1.6), dice.between(low, high)
        tone = dark(look.fur, 0.22) if dice.chance(0.5) else light(look.fur, 0.3)
        pen.line([(x, y), (x + 0.1 * x, y + dice.between(0.08, 0.2))], tone, width=0.02)


def coat_plain(pen, dice, look, part):
    """One colour, a little paler below."""
    y, ry = (0.8, 0.6) if part == "head" else (2.0, 1.4)
    pen.glow(0, y, rx=0.8, ry=ry, fill=look.pale, strength=0.5)


def coat_tabby(pen, dice, look, part):
    """Stripes: on brow and cheeks, and around the body."""
    coat_plain(pen, dice, look, part)
    if part == "body":
        for step in range(6):
            y = 0.9 + step * 0.42 + dice.between(-0.08, 0.08)
            for side in (-1, 1):
                pen.line(
                    smooth([(side * 2.4, y - 0.1), (side * 1.2, y + 0.15), (side * 0.6, y)], closed=False),
                    look.second,
                    width=0.13,
                )
        return
    for x in (-0.34, -0.12, 0.12, 0.34):
        pen.line([(x * 1.3, -1.0), (x, -0.42 - 0.1 * (abs(x) < 0.2))], look.second, width=0.09)
    for side in (-1, 1):
        for y in (0.08, 0.3, 0.52):
            pen.line([(side * 1.3, y + 0.05), (side * dice.between(0.58, 0.72), y)], look.second, width=0.08)


def coat_patches(pen, dice, look, part):
    """A few large patches."""
    low, high = ((-0.9, 0.6), (0.8, 3.2))[part == "body"]
    for _ in range(3 if part == "head" else 5):
        x, y, r = dice.between(-1.2, 1.2), dice.between(low, high), dice.between(0.28, 0.6)
        patch = ragged(oval(0, 0, r, dice.about(r, 0.3)), dice, fluff=0.12)
        pen.shape(patch + (x, y), dice.choice((look.second, look.second, look.pale)))


def coat_spots(pen, dice, look, part):
    """Many small spots."""
    low, high = ((-0.9, 0.8), (0.5, 3.3))[part == "body"]
    coat_plain(pen, dice, look, part)
    for _ in range(34):
        x, y, r = dice.between(-1.4, 1.4), dice.between(low, high), dice.between(0.05, 0.11)
        pen.shape(oval(x, y, r, r * 0.8), look.second)


def coat_bicolour(pen, dice, look, part):
    """A white blaze, or a white chest."""
    if part == "body":
        pen.shape(oval(0, 1.5, dice.between(0.4, 0.7), dice.between(0.9, 1.5)), look.pale)
        return
    top, base = dice.between(0.04, 0.16), dice.between(0.5, 0.9)
    pen.shape(
        smooth(
            [
                (-top, -0.9),
                (top, -0.9),
                (top * 1.6, -0.1),
                (base, 0.5),
                (base, 1.1),
                (-base, 1.1),
                (-base, 0.5),
                (-top * 1.6, -0.1),
            ]
        ),
        look.pale,
    )


def coat_points(pen, dice, look, part):
    """A dark face; ears, paws and tail are dark as well."""
    if part == "head":
        pen.glow(look.turn, 0.2, rx=1.0, ry=0.95, fill=look.second, strength=0.95)


def coat_brindle(pen, dice, look, part):
    """Thin, uneven stripes all over."""
    low, high = ((-0.9, 0.9), (0.4, 3.2))[part == "body"]
    for _ in range(26):
        x, y = dice.between(-1.4, 1.4), dice.between(low, high)
        pen.line([(x, y), (x + dice.between(0.1, 0.3), y + dice.between(-0.1, 0.25))], look.second, width=0.055)


def coat_cap(pen, dice, look, part):
    """A dark cap or back, with pale brow spots, cheeks and chest."""
    if part == "body":
        pen.glow(0, 1.6, rx=0.9, ry=1.6, fill=look.pale, strength=1.0)
        return
    y = look.shape.eye_y
    for side in (-1, 1):
        pen.shape(
            smooth(
                [
                    (side * 0.08, -0.95),
                    (side * 0.14, y - 0.1),
                    (side * 0.6, y + 0.3),
                    (side * 1.4, y + 0.3),
                    (side * 1.3, -1.0),
                ]
            ),
            look.second,
        )
        pen.shape(
            oval(side * look.shape.eye_gap * 0.85 + look.turn * 0.5, y - look.shape.eye_size - 0.12, 0.12, 0.08),
            look.pale,
        )
    pen.glow(0, 0.6, rx=1.2, ry=0.6, fill=look.pale, strength=0.9)


PATTERNS = {
    "plain": coat_plain,
    "tabby": coat_tabby,
    "patches": coat_patches,
    "spots": coat_spots,
    "bicolour": coat_bicolour,
    "points": coat_points,
    "brindle": coat_brindle,
    "cap": coat_cap,
}


# --- marks of the other animals
def mark_cheeks(pen, dice, look):
    """Pale cheeks."""
    for side in (-1, 1):
        pen.shape(
            smooth([(side * 0.1, 1.0), (side * 0.3, 0.35), (side * 0.75, 0.12), (side * 1.4, 0.3), (side * 1.0, 1.0)]),
            look.pale,
        )


def mark_mask(pen, dice, look):
    """A dark band across the eyes, pale above."""
    y = look.shape.eye_y
    for side in (-1, 1):
        pen.shape(oval(side * 0.5, y - 0.16, 0.5, 0.22, side * 14), look.pale)
        pen.shape(oval(side * 0.52 + look.turn * 0.4, y + 0.08, 0.5, 0.27, side * 26), dark(look.second, 0.5))


def mark_panda(pen, dice, look):
    """Dark patches around the eyes."""
    for side in (-1, 1):
        x = side * look.shape.eye_gap * 1.04 + look.turn * 0.5
        pen.shape(oval(x, look.shape.eye_y + 0.06, 0.24, 0.31, side * 32), dark(look.second, 0.7))


def mark_tiger(pen, dice, look):
    """Bold stripes from the brow and the cheeks."""
    ink = dark(look.second, 0.7)
    for side in (-1, 1):
        for x, y in ((0.2, -0.62), (0.36, -0.5)):
            pen.shape(smooth([(side * x * 1.7, -1.1), (side * x, y), (side * x * 1.9, -0.9)], steps=4), ink)
        for y in (-0.2, 0.1, 0.4):
            pen.shape([(side * 1.4, y - 0.09), (side * dice.between(0.6, 0.74), y + 0.06), (side * 1.4, y + 0.12)], ink)
    pen.shape(smooth([(-0.06, -1.0), (0.06, -1.0), (0, -0.4)], steps=4), ink)


def mark_rosettes(pen, dice, look):
    """Rings with a darker middle."""
    for _ in range(22):
        x, y, r = dice.between(-1.1, 1.1), dice.between(-0.9, 0.7), dice.between(0.08, 0.13)
        if abs(x) > 0.3 or y < -0.3:
            pen.shape(oval(x, y, r, r), dark(look.second, 0.2), edge=dark(look.second, 0.7), width=0.05)


def mark_tears(pen, dice, look):
    """Dark lines from the eyes to the mouth."""
    shape = look.shape
    for side in (-1, 1):
        x = side * shape.eye_gap + look.turn * 0.5
        pen.line(
            smooth([(x - side * 0.14, shape.eye_y), (x - side * 0.2, 0.2), (x - side * 0.06, 0.55)], closed=False),
            dark(look.second, 0.75),
            width=0.09,
        )


def mark_badger(pen, dice, look):
    """Two dark bands through the eyes."""
    for side in (-1, 1):
        x = side * look.shape.eye_gap
        pen.shape(
            smooth(
                [(x * 1.5, -1.0), (x * 0.7, -0.8), (x * 0.55, 0.1), (x * 0.5, 0.6), (x * 1.1, 0.3), (x * 1.7, -0.3)]
            ),
            dark(look.second, 0.8),
        )


def mark_skunk(pen, dice, look):
    """One pale stripe over the brow."""
    pen.shape(smooth([(-0.2, -1.0), (0.2, -1.0), (0.12, -0.2), (0, 0.15), (-0.12, -0.2)]), light(look.pale, 0.6))


def mark_face(pen, dice, look):
    """A bare, heart-shaped face."""
    skin = mix(look.pale, (226, 172, 140), 0.5)
    for side in (-1, 1):
        pen.shape(oval(side * 0.3 + look.turn * 0.5, -0.08, 0.36, 0.44), skin)
    pen.shape(oval(look.turn * 0.7, 0.45, 0.6, 0.45), skin)


def mark_disc(pen, dice, look):
    """Feathered discs around the eyes."""
    for side in (-1, 1):
        x = side * look.shape.eye_gap + look.turn * 0.5
        pen.shape(oval(x, look.shape.eye_y + 0.04, 0.46, 0.5), look.pale, edge=dark(look.second, 0.2), width=0.05)


MARKS = {
    "cheeks": mark_cheeks,
    "mask": mark_mask,
    "panda": mark_panda,
    "tiger": mark_tiger,
    "rosettes": mark_rosettes,
    "tears": mark_tears,
    "badger": mark_badger,
    "skunk": mark_skunk,
    "face": mark_face,
    "disc": mark_disc,
}


def behind_mane(pen, dice, look):
    """A mane around the head."""
    for radius, tone in ((1.62, dark(look.second, 0.15)), (1.36, mix(look.second, look.fur, 0.35))):
        turns = np.linspace(0, 2 * np.pi, 44, endpoint=False)
        ring = np.stack([np.cos(turns), np.sin(turns) * 1.02], axis=1) * radius
        pen.shape(ragged(ring, dice, fluff=0.16), tone, edge=dark(tone, 0.3))


def horn_pair(pen, look, *, points, widths, fill):
    """Draw a pair of tapering horns along the points."""
    for side in (-1, 1):
        spine = mirror(smooth(points, closed=False), side)
        for start, end, width in zip(spine, spine[1:], np.linspace(*widths, len(spine) - 1), strict=False):
            pen.line([start, end], dark(fill, 0.45), width=width + 0.06)
        for start, end, width in zip(spine, spine[1:], np.linspace(*widths, len(spine) - 1), strict=False):
            pen.line([start, end], fill, width=width)


def behind_horns(pen, dice, look):
    """Short horns, as a cow's."""
    horn_pair(pen, look, points=[(0.45, -0.7), (0.8, -1.0), (0.82, -1.35)], widths=(0.24, 0.08), fill=(226, 212, 182))


def behind_long_horns(pen, dice, look):
    """Long horns that bend back, as a goat's."""
    horn_pair(pen, look, points=[(0.28, -0.6), (0.4, -1.2), (0.72, -1.65)], widths=(0.28, 0.08), fill=(172, 150, 122))


def behind_antlers(pen, dice, look):
    """Antlers with two branches."""
    horn = (158, 122, 84)
    horn_pair(pen, look, points=[(0.3, -0.7), (0.55, -1.2), (0.62, -1.75)], widths=(0.15, 0.08), fill=horn)
    horn_pair(pen, look, points=[(0.52, -1.15), (0.85, -1.35), (0.98, -1.65)], widths=(0.12, 0.07), fill=horn)


def behind_wool(pen, dice, look):
    """A cloud of wool around the head."""
    wool = light(look.pale, 0.2)
    for step in range(15):
        turn = 2 * math.pi * step / 15
        pen.shape(oval(0.86 * math.cos(turn), 0.72 * math.sin(turn) - 0.3, 0.36, 0.36), wool, edge=dark(wool, 0.25))
    pen.shape(oval(0, -0.3, 0.9, 0.8), wool)


BEHIND_HEAD = {
    "mane": behind_mane,
    "horns": behind_horns,
    "long horns": behind_long_horns,
    "antlers": behind_antlers,
    "wool": behind_wool,
}


def on_tusks(pen, dice, look):
    """Two tusks that point down, or up for a boar."""
    shape = look.shape
    up = -0.5 if shape.muzzle == "snout" else 1.0
    for side in (-1, 1):
        x, y = look.turn + side * shape.muzzle_width * 0.75, shape.muzzle_y + shape.muzzle_height * 0.7
        pen.shape(
            [(x - 0.08, y), (x + 0.08, y), (x + side * 0.05, y + 0.75 * up)], (248, 242, 224), edge=(150, 136, 110)
        )


def on_teeth(pen, dice, look):
    """Two front teeth."""
    y = look.shape.muzzle_y + look.shape.muzzle_height * 0.5
    for side in (-1, 1):
        x = look.turn + side * 0.075
        pen.shape(
            [(x - 0.075, y), (x + 0.075, y), (x + 0.07, y + 0.24), (x - 0.07, y + 0.24)],
            (250, 244, 224),
            edge=look.edge,
        )


def on_fangs(pen, dice, look):
    """Two small fangs."""
    y = look.shape.muzzle_y + look.shape.muzzle_height * 1.5
    for x in (look.turn - 0.1, look.turn + 0.1):
        pen.shape([(x - 0.04, y), (x + 0.04, y), (x, y + 0.14)], (250, 248, 240))


def on_beard(pen, dice, look):
    """A beard below the chin."""
    y = look.shape.chin
    pen.shape(
        smooth([(-0.2, y - 0.12), (0.2, y - 0.12), (0.1, y + 0.3), (0, y + 0.5), (-0.1, y + 0.3)]),
        look.pale,
        edge=look.edge,
    )


def on_forelock(pen, dice, look):
    """A forelock between the ears."""
    pen.shape(
        smooth([(-0.26, -0.95), (0.24, -0.98), (0.2, -0.5), (0.02, -0.12), (-0.16, -0.4)]), look.second, edge=look.edge
    )


def on_wool(pen, dice, look):
    """A tuft of wool on the brow."""
    wool = light(look.pale, 0.2)
    for x, y in ((-0.36, -0.66), (0.36, -0.66), (-0.14, -0.82), (0.16, -0.82), (0, -0.58)):
        pen.shape(oval(x, y, 0.27, 0.25), wool, edge=dark(wool, 0.2))


ON_HEAD = {
    "tusks": on_tusks,
    "teeth": on_teeth,
    "fangs": on_fangs,
    "beard": on_beard,
    "forelock": on_forelock,
    "wool": on_wool,
}


# --- tails
def tail_spine(look, dice):
    """The middle line of a tail that rises beside the body."""
    side, neck = dice.choice((-1, 1)), look.shape.neck
    root = {"sit": (1.3 * neck, 2.9), "loaf": (2.3 * neck, 1.8)}[look.pose]
    curl = dice.between(0.2, 0.7)
    points = [root, (root[0] + 0.7, root[1] - 0.1), (root[0] + 1.0, root[1] - 0.8), (root[0] + curl, root[1] - 1.3)]
    return mirror(smooth(points, closed=False), side)


def tail_long(pen, dice, look):
    """A long, slender tail."""
    spine = tail_spine(look, dice)
    pen.line(spine, look.edge, width=0.38)
    pen.line(spine, look.ear_fur, width=0.3)


def tail_plume(pen, dice, look):
    """A bushy tail."""
    spine = tail_spine(look, dice)
    for grow, tone in ((0.06, look.edge), (0.0, look.ear_fur)):
        for share, (x, y) in zip(np.linspace(0, 1, len(spine)), spine, strict=True):
            pen.shape(oval(x, y, *(0.16 + 0.3 * math.sin(math.pi * min(1, share * 0.9 + 0.05)) + grow,) * 2), tone)


def tail_short(pen, dice, look):
    """A stump."""
    x, y = tail_spine(look, dice)[0]
    pen.shape(oval(x * 1.15, y - 0.2, 0.3, 0.26), look.fur, edge=look.edge)


def tail_ringed(pen, dice, look):
    """A bushy tail with rings."""
    spine = tail_spine(look, dice)
    for step, (x, y) in enumerate(spine):
        pen.shape(oval(x, y, 0.34, 0.34), dark(look.second, 0.4) if step // 3 % 2 else look.pale)


TAILS = {"long": tail_long, "plume": tail_plume, "short": tail_short, "ringed": tail_ringed}


# ---------------------------------------------------------------------------------------------------------------------
# Backgrounds, cover and light: the same for every species
# ---------------------------------------------------------------------------------------------------------------------
def gradient(image, box, top, bottom):
    """Fill a box (left, top, right, bottom in shares of the side) with a vertical gradient."""
    side = image.width
    left, upper, right, lower = (round(v * side) for v in box)
    size = (max(1, right - left), max(1, lower - upper))
    alpha = Image.linear_gradient("L").resize(size)
    image.paste(Image.composite(Image.new("RGB", size, bottom), Image.new("RGB", size, top), alpha), (left, upper))


def scene_pen(image):
    """A pen whose units are shares of the image's side."""
    return Pen(image, centre=(0, 0), scale=image.width)


def box(x, y, width, height):
    """The corners of a box whose upper left corner is (x, y)."""
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def scene_room(image, dice):
    """A room: wall, floor and two pieces of furniture."""
    pen, wall, floor = scene_pen(image), dice.colour((0.1, 0.45), (0.55, 0.95)), dice.colour((0.2, 0.5), (0.35, 0.75))
    horizon = dice.between(0.58, 0.8)
    gradient(image, (0, 0, 1, horizon), light(wall, 0.2), wall)
    if dice.chance(0.4):
        for step in range(12):
            pen.shape(box(step / 11 - 0.02, 0, 0.03, horizon), mix(wall, dark(wall, 0.3), 0.4))
    gradient(image, (0, horizon, 1, 1), floor, dark(floor, 0.3))
    pen.shape(box(0, horizon - 0.015, 1, 0.025), light(wall, 0.5))
    for _ in range(2):
        dice.choice((thing_window, thing_frame, thing_shelf, thing_lamp, thing_sofa, thing_plant))(pen, dice, horizon)


def thing_window(pen, dice, horizon):
    """A window with sky."""
    x, y, w, h = dice.between(0.02, 0.7), dice.between(0.04, 0.15), dice.between(0.22, 0.36), dice.between(0.26, 0.4)
    pen.shape(box(x - 0.02, y - 0.02, w + 0.04, h + 0.04), (240, 234, 222))
    pen.shape(box(x, y, w, h), dice.colour((0.2, 0.5), (0.7, 1.0)))
    pen.line([(x + w / 2, y), (x + w / 2, y + h)], (240, 234, 222), width=0.016)
    pen.line([(x, y + h / 2), (x + w, y + h / 2)], (240, 234, 222), width=0.016)


def thing_frame(pen, dice, horizon):
    """A framed image."""
    x, y, s = dice.between(0.03, 0.75), dice.between(0.05, 0.25), dice.between(0.14, 0.22)
    pen.shape(box(x, y, s * 1.2, s), dice.colour((0.3, 0.7), (0.3, 0.6)))
    pen.shape(box(x + 0.02, y + 0.02, s * 1.2 - 0.04, s - 0.04), dice.colour())
    pen.shape(oval(x + s * 0.6, y + s * 0.55, s * 0.2, s * 0.2), dice.colour((0.4, 0.8)))


def thing_shelf(pen, dice, horizon):
    """A shelf of books."""
    x, y = dice.between(0, 0.6), dice.between(0.12, 0.35)
    for book in range(8):
        height = dice.between(0.1, 0.16)
        pen.shape(box(x + book * 0.05, y - height, 0.042, height), dice.colour((0.3, 0.7), (0.4, 0.9)))
    pen.shape(box(x - 0.02, y, 0.44, 0.025), (126, 90, 62))


def thing_lamp(pen, dice, horizon):
    """A standing lamp with its light."""
    x, shade = dice.choice((dice.between(0.05, 0.2), dice.between(0.8, 0.95))), dice.colour((0.3, 0.6), (0.7, 1.0))
    pen.glow(x, 0.25, rx=0.35, ry=0.35, fill=(255, 240, 190), strength=0.7)
    pen.line([(x, 0.25), (x, horizon + 0.08)], (70, 60, 58), width=0.014)
    pen.shape(
        [(x - 0.06, 0.16), (x + 0.06, 0.16), (x + 0.11, 0.32), (x - 0.11, 0.32)], shade, edge=dark(shade), width=0.006
    )


def thing_sofa(pen, dice, horizon):
    """A sofa across the room."""
    colour, x, w = dice.colour((0.3, 0.6), (0.4, 0.8)), dice.between(-0.2, 0.3), dice.between(0.7, 1.0)
    pen.shape(smooth(box(x, horizon - 0.22, w, 0.34), steps=4), colour, edge=dark(colour), width=0.008)
    pen.shape(box(x, horizon - 0.02, w, 0.14), light(colour, 0.15), edge=dark(colour), width=0.008)


def thing_plant(pen, dice, horizon):
    """A plant in a pot."""
    x, y, leaf = (
        dice.choice((dice.between(0.04, 0.2), dice.between(0.8, 0.96))),
        horizon + 0.05,
        dice.colour((0.4, 0.7), (0.4, 0.7)),
    )
    leaf = mix(leaf, (70, 130, 70), 0.7)
    for lean in (-50, -25, 0, 25, 50):
        pen.shape(
            rotate(oval(0, -0.2, 0.035, 0.17), lean + dice.between(-8, 8)) + (x, y - 0.04),
            leaf,
            edge=dark(leaf),
            width=0.005,
        )
    pot = dice.colour((0.4, 0.7), (0.5, 0.9))
    pen.shape(
        [(x - 0.08, y - 0.08), (x + 0.08, y - 0.08), (x + 0.06, y + 0.08), (x - 0.06, y + 0.08)],
        pot,
        edge=dark(pot),
        width=0.006,
    )


def scene_meadow(image, dice):
    """Sky, clouds, hills, trees and flowers."""
    pen, horizon = scene_pen(image), dice.between(0.5, 0.7)
    sky = mix(dice.colour((0.2, 0.5), (0.7, 1.0)), (150, 200, 240), 0.4)
    gradient(image, (0, 0, 1, horizon + 0.1), sky, light(sky, 0.6))
    for _ in range(3):
        x, y = dice.between(0, 1), dice.between(0.04, 0.3)
        for puff in (-0.07, 0, 0.07):
            pen.shape(oval(x + puff, y - 0.02 * (puff == 0), 0.07, 0.045), light(sky, 0.75))
    ground = mix(dice.colour((0.3, 0.6), (0.4, 0.8)), (110, 160, 80), 0.6)
    pen.shape(oval(dice.between(0, 1), horizon + 0.12, 0.7, 0.22), mix(ground, sky, 0.4))
    for _ in range(dice.choice((1, 2, 4))):
        draw_tree(pen, dice, x=dice.between(0, 1), y=horizon + 0.04, leaf=dark(ground, 0.2))
    gradient(image, (0, horizon, 1, 1), ground, dark(ground, 0.25))
    for _ in range(24):
        x, y = dice.between(0, 1), dice.between(horizon + 0.03, 1)
        pen.shape(oval(x, y, 0.012, 0.01), dice.colour((0.3, 0.8), (0.8, 1.0)))


def draw_tree(pen, dice, *, x, y, leaf):
    """Draw a round or a pointed tree that stands at (x, y)."""
    h, leaf = dice.between(0.16, 0.4), mix(leaf, dice.colour(), 0.2)
    pen.shape(box(x - 0.015, y - h * 0.4, 0.03, h * 0.4), (104, 76, 56))
    if dice.chance(0.5):
        pen.shape(oval(x, y - h * 0.7, h * 0.4, h * 0.42), leaf, edge=dark(leaf, 0.25), width=0.006)
        return
    for step in range(3):
        top, w = y - h * (1.1 - step * 0.25), h * (0.2 + 0.1 * step)
        pen.shape([(x, top), (x + w, top + h * 0.42), (x - w, top + h * 0.42)], mix(leaf, (40, 90, 70), 0.3))


def scene_pattern(image, dice):
    """A paper backdrop: stripes, dots or tiles."""
    first, pen, kind = (
        dice.colour((0.1, 0.45), (0.5, 0.95)),
        scene_pen(image),
        dice.choice(("stripes", "dots", "tiles")),
    )
    second = mix(first, dice.colour(), dice.between(0.25, 0.7))
    gradient(image, (0, 0, 1, 1), light(first, 0.15), dark(first, 0.15))
    count = int(dice.between(4, 9))
    if kind == "stripes":
        lean = dice.between(-0.5, 0.5)
        for step in range(-count, 2 * count):
            x = step / count
            pen.shape([(x, 0), (x + 0.5 / count, 0), (x + 0.5 / count + lean, 1), (x + lean, 1)], second)
        return
    for row in range(count + 1):
        for column in range(count + 1):
            x, y = (column + 0.5 * (row % 2)) / count, row / count
            if kind == "dots":
                pen.shape(oval(x, y, 0.22 / count, 0.22 / count), second)
            elif (row + column) % 2:
                pen.shape(box(column / count, y, 1 / count, 1 / count), second)


def scene_clutter(image, dice):
    """Soft shapes of many colours, as out of focus."""
    gradient(image, (0, 0, 1, 1), dice.colour(), dice.colour((0.2, 0.5), (0.3, 0.7)))
    pen = scene_pen(image)
    for _ in range(16):
        x, y, r = dice.between(0, 1), dice.between(0, 1), dice.between(0.06, 0.2)
        corners = int(dice.between(3, 7))
        turns = np.linspace(0, 2 * np.pi, corners, endpoint=False) + dice.between(0, 6)
        points = np.stack([np.cos(turns), np.sin(turns)], axis=1) * r + (x, y)
        pen.shape(smooth(points) if dice.chance(0.5) else points, dice.colour((0.2, 0.6), (0.35, 0.95)))
    image.paste(image.filter(ImageFilter.BoxBlur(dice.between(1, 5))))


def scene_seaside(image, dice):
    """Sky, sun, sea and sand, or the same shapes in snow."""
    pen, sky = scene_pen(image), dice.colour((0.15, 0.55), (0.7, 1.0))
    water, sand = (
        mix(dice.colour(), (80, 150, 190), 0.5),
        mix(dice.colour((0.1, 0.3), (0.7, 1.0)), (232, 208, 160), 0.5),
    )
    gradient(image, (0, 0, 1, 0.5), sky, light(sky, 0.6))
    pen.shape(oval(dice.between(0.1, 0.9), dice.between(0.1, 0.3), 0.08, 0.08), (255, 238, 170))
    gradient(image, (0, 0.42, 1, 0.7), dark(water, 0.15), light(water, 0.3))
    for _ in range(7):
        x, y = dice.between(0, 1), dice.between(0.46, 0.66)
        pen.line(smooth([(x, y), (x + 0.06, y - 0.015), (x + 0.12, y)], closed=False), light(water, 0.6), width=0.01)
    gradient(image, (0, 0.66, 1, 1), sand, dark(sand, 0.2))
    if dice.chance(0.5):
        x, sail = dice.between(0.1, 0.9), dice.colour((0.4, 0.8), (0.7, 1.0))
        pen.shape([(x, 0.24), (x + 0.11, 0.42), (x, 0.42)], sail)
        pen.shape([(x - 0.07, 0.44), (x + 0.12, 0.44), (x + 0.08, 0.49), (x - 0.03, 0.49)], (120, 76, 56))


def scatter_things(image, dice):
    """Put a few small things around; they have points, rounds and lines as ears, noses and whiskers have."""
    pen = scene_pen(image)
    for _ in range(int(dice.between(1, 5))):
        dice.choice(THINGS)(pen, dice, dice.between(0, 1), dice.between(0.05, 0.95))


def thing_bunting(pen, dice, x, y):
    """A string of flags."""
    drop, size, start = dice.between(-0.1, 0.15), dice.between(0.06, 0.12), (x - 0.4, y * 0.6)
    string = smooth([start, (x, y * 0.6 + abs(drop)), (x + 0.4, y * 0.6 + drop)], closed=False, steps=4)
    pen.line(string, (90, 80, 80), width=0.007)
    for px, py in string:
        flag, down = dice.colour((0.3, 0.8), (0.4, 1.0)), dice.choice((1.2, 1.2, -1.2))
        pen.shape(
            [(px - size / 2, py), (px + size / 2, py), (px, py + size * down)], flag, edge=dark(flag, 0.5), width=0.008
        )


def thing_balloons(pen, dice, x, y):
    """Balloons on strings."""
    for _ in range(2):
        bx, by, r, colour = (
            x + dice.between(-0.1, 0.1),
            y * 0.5 + dice.between(-0.05, 0.05),
            dice.between(0.04, 0.08),
            dice.colour((0.4, 0.8)),
        )
        pen.line(smooth([(bx, by), (bx + 0.02, by + 2 * r), (x, by + 4 * r)], closed=False), (80, 74, 80), width=0.007)
        pen.shape(oval(bx, by, r, r * 1.25), colour, edge=dark(colour, 0.45), width=0.008)
        pen.shape(oval(bx - r * 0.3, by - r * 0.4, r * 0.2, r * 0.3), light(colour, 0.7))


def thing_stones(pen, dice, x, y):
    """Pebbles with a shine."""
    for _ in range(3):
        sx, sy, r, tone = (
            x + dice.between(-0.1, 0.1),
            y + dice.between(-0.05, 0.05),
            dice.between(0.015, 0.05),
            dice.colour((0.0, 0.3), (0.15, 0.7)),
        )
        pen.shape(oval(sx, sy, r, r * 0.75), tone, edge=dark(tone, 0.5), width=0.007)
        pen.shape(oval(sx - r * 0.2, sy - r * 0.3, r * 0.3, r * 0.15), light(tone, 0.6))


def thing_star(pen, dice, x, y):
    """A paper star or a many-pointed leaf."""
    count, r, colour = int(dice.between(4, 8)), dice.between(0.04, 0.09), dice.colour((0.3, 0.8), (0.4, 1.0))
    turns = np.arange(2 * count) * np.pi / count + dice.between(0, 3)
    radius = np.where(np.arange(2 * count) % 2, 0.45, 1.0) * r
    pen.shape(
        np.stack([np.cos(turns) * radius + x, np.sin(turns) * radius + y], axis=1),
        colour,
        edge=dark(colour, 0.5),
        width=0.008,
    )


def thing_heart(pen, dice, x, y):
    """A heart, any way up."""
    r, colour = dice.between(0.03, 0.07), dice.colour((0.4, 0.8), (0.3, 1.0))
    heart = smooth(np.array([(0, -0.45), (0.5, -0.9), (1, -0.4), (0, 1), (-1, -0.4), (-0.5, -0.9)]) * r)
    pen.shape(rotate(heart, dice.between(-180, 180)) + (x, y), colour, edge=dark(colour, 0.5), width=0.008)


def thing_twigs(pen, dice, x, y):
    """Thin twigs or straws, pale or dark."""
    tone = dice.choice(((246, 240, 230), (70, 54, 46)))
    for _ in range(4):
        angle, length = dice.between(0, 2 * math.pi), dice.between(0.06, 0.16)
        pen.line([(x, y), (x + math.cos(angle) * length, y + math.sin(angle) * length)], tone, width=0.007)


def thing_mushroom(pen, dice, x, y):
    """A toadstool with spots."""
    r, cap = dice.between(0.05, 0.09), dice.colour((0.4, 0.8), (0.4, 0.95))
    pen.shape(box(x - r * 0.3, y, r * 0.6, r * 1.2), (240, 228, 206), edge=(150, 132, 112), width=0.007)
    pen.shape(
        smooth([(x - r, y + 0.1 * r), (x - 0.5 * r, y - 0.8 * r), (x + 0.5 * r, y - 0.8 * r), (x + r, y + 0.1 * r)]),
        cap,
        edge=dark(cap, 0.5),
        width=0.008,
    )
    for dx, dy in ((-0.4, -0.3), (0.1, -0.55), (0.45, -0.2)):
        pen.shape(oval(x + dx * r, y + dy * r, r * 0.15, r * 0.13), (250, 246, 236))


def thing_butterfly(pen, dice, x, y):
    """A butterfly."""
    r, wing = dice.between(0.03, 0.06), dice.colour((0.4, 0.9), (0.5, 1.0))
    for side in (-1, 1):
        pen.shape(
            oval(x + side * r * 0.7, y - r * 0.4, r * 0.75, r * 0.6, side * -35),
            wing,
            edge=dark(wing, 0.5),
            width=0.006,
        )
        pen.shape(
            oval(x + side * r * 0.55, y + r * 0.5, r * 0.5, r * 0.45),
            light(wing, 0.3),
            edge=dark(wing, 0.5),
            width=0.006,
        )
    pen.line([(x, y - r), (x, y + r)], (50, 40, 44), width=0.012)


THINGS = (
    thing_bunting,
    thing_balloons,
    thing_stones,
    thing_star,
    thing_heart,
    thing_twigs,
    thing_mushroom,
    thing_butterfly,
)
BACKGROUNDS = (scene_room, scene_room, scene_meadow, scene_meadow, scene_pattern, scene_clutter, scene_seaside)


def cover_grass(image, dice):
    """Blades of grass in front."""
    pen, green = scene_pen(image), mix(dice.colour((0.4, 0.7), (0.4, 0.8)), (96, 150, 70), 0.6)
    top = dice.between(0.68, 0.86)
    for _ in range(46):
        x, tip = dice.between(-0.05, 1.05), top + dice.between(-0.08, 0.12)
        lean, tone = dice.between(-0.08, 0.08), mix(dark(green, 0.3), light(green, 0.2), dice.between(0, 1))
        pen.shape([(x - 0.016, 1.02), (x + lean, tip), (x + 0.016, 1.02)], tone)


def cover_ball(image, dice):
    """A ball in front."""
    pen, r, colour = scene_pen(image), dice.between(0.09, 0.16), dice.colour((0.5, 0.9), (0.6, 1.0))
    x, y = dice.between(0.15, 0.85), dice.between(0.72, 0.92)
    pen.shape(oval(x, y, r, r), colour, edge=dark(colour, 0.5), width=0.008)
    pen.line(smooth([(x - r, y), (x, y + 0.35 * r), (x + r, y)], closed=False), light(colour, 0.7), width=0.02)
    pen.glow(x - 0.3 * r, y - 0.35 * r, rx=0.5 * r, ry=0.5 * r, fill=(255, 255, 255), strength=0.8)


def cover_box(image, dice):
    """The front of a cardboard box or of a basket."""
    pen, colour, top = scene_pen(image), mix(dice.colour(), (196, 152, 104), 0.6), dice.between(0.7, 0.86)
    lean = dice.between(-0.05, 0.05)
    pen.shape(
        [(0.04, top - lean), (0.96, top + lean), (0.92, 1.05), (0.08, 1.05)],
        colour,
        edge=dark(colour, 0.45),
        width=0.012,
    )
    pen.shape(
        [(0.04, top - lean), (0.96, top + lean), (0.98, top + 0.07 + lean), (0.02, top + 0.07 - lean)],
        light(colour, 0.2),
        edge=dark(colour, 0.35),
        width=0.008,
    )


def cover_fence(image, dice):
    """A picket fence."""
    pen, colour, top = scene_pen(image), light(dice.colour((0.1, 0.4), (0.6, 0.9)), 0.4), dice.between(0.68, 0.84)
    step, start = dice.between(0.17, 0.24), dice.between(-0.1, 0.05)
    pen.shape(box(-0.1, top + 0.13, 1.2, 0.045), dark(colour, 0.15), edge=dark(colour, 0.4), width=0.006)
    for x in np.arange(start, 1.1, step):
        pen.shape(
            [(x, 1.1), (x, top), (x + 0.045, top - 0.05), (x + 0.09, top), (x + 0.09, 1.1)],
            colour,
            edge=dark(colour, 0.4),
            width=0.008,
        )


def cover_leaves(image, dice):
    """A branch with leaves that hangs into a corner."""
    pen, green = scene_pen(image), mix(dice.colour((0.4, 0.7), (0.4, 0.8)), (90, 150, 80), 0.5)
    side, reach = dice.choice((0, 1)), dice.between(0.35, 0.6)
    end = (abs(side - reach), dice.between(0.08, 0.3))
    pen.line([(side, -0.02), end], (96, 70, 52), width=0.02)
    for step in range(9):
        share = step / 8
        x, y = side + (end[0] - side) * share, end[1] * share
        leaf = rotate(oval(0, 0.06, 0.028, 0.065), dice.between(-60, 60)) + (x, y)
        pen.shape(leaf, mix(green, dice.colour(), 0.15), edge=dark(green, 0.4), width=0.006)


def cover_flowers(image, dice):
    """Large flowers in front."""
    pen = scene_pen(image)
    for _ in range(int(dice.between(2, 5))):
        x, y, r, petal = (
            dice.between(0.02, 0.98),
            dice.between(0.74, 0.94),
            dice.between(0.03, 0.05),
            dice.colour((0.3, 0.8), (0.8, 1.0)),
        )
        pen.line([(x, y), (x + dice.between(-0.04, 0.04), 1.05)], (92, 142, 76), width=0.016)
        for turn in range(0, 360, 60):
            pen.shape(rotate(oval(0, -r, r * 0.62, r), turn) + (x, y), petal, edge=dark(petal, 0.3), width=0.005)
        pen.shape(oval(x, y, r * 0.6, r * 0.6), (244, 206, 84))


def cover_post(image, dice):
    """A curtain, a base or a post at one side."""
    pen, colour, w = scene_pen(image), dice.colour((0.2, 0.6), (0.35, 0.85)), dice.between(0.1, 0.24)
    x = 0.0 if dice.chance(0.5) else 1 - w
    pen.shape(box(x, -0.02, w, 1.04), colour, edge=dark(colour, 0.45), width=0.01)
    for share in (0.25, 0.55, 0.8):
        pen.line([(x + w * share, 0), (x + w * share + dice.between(-0.01, 0.01), 1)], dark(colour, 0.3), width=0.012)


def cover_flakes(image, dice):
    """Snow, petals or bubbles in the air."""
    pen, colour = scene_pen(image), light(dice.colour((0.1, 0.5), (0.8, 1.0)), 0.4)
    for _ in range(22):
        r = dice.between(0.006, 0.017)
        pen.shape(oval(dice.between(0, 1), dice.between(0, 1), r, dice.about(r, 0.3)), colour)


COVERS = (cover_grass, cover_ball, cover_box, cover_fence, cover_leaves, cover_flowers, cover_post, cover_flakes)


def add_light(image, dice):
    """Add light from one side, contrast, a colour cast and noise."""
    pixels = np.asarray(image, dtype=np.float32) / 255
    side = image.width
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    angle = dice.between(0, 2 * math.pi)
    slope = (x * math.cos(angle) + y * math.sin(angle)) * dice.between(0, 0.6)
    pixels = pixels * (dice.between(0.84, 1.14) + slope)[..., None]
    pixels = (pixels - 0.5) * dice.between(0.74, 1.12) + 0.5
    pixels = pixels * np.array([dice.between(0.92, 1.08) for _ in range(3)], dtype=np.float32)
    # RandomState's stream is frozen by numpy's policy, so the noise is the same in every version.
    noise = np.random.RandomState(int(dice.between(0, 2**31))).standard_normal(pixels.shape)
    pixels = pixels + noise * dice.between(0.005, 0.025)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def main(arguments=None):
    """Draw the sample again, or contact sheets of it."""
    parser = argparse.ArgumentParser(description="Draw the embedded sample of cats and dogs.")
    parser.add_argument("--sheet", metavar="FILE", help="write a contact sheet of cats and dogs instead")
    parser.add_argument(
        "--species-sheet", metavar="FILE", help="write a contact sheet of the pretraining animals instead"
    )
    options = parser.parse_args(arguments)
    if options.sheet:
        sample_sheet().save(options.sheet)
    if options.species_sheet:
        species_sheet().save(options.species_sheet)
    if not options.sheet and not options.species_sheet:
        folder = Path(__file__).resolve().parent
        print(f"drew {draw_sample(folder)} images in {folder.name}/{{{','.join(SPLITS)}}}/{{{','.join(FOLDERS)}}}")


if __name__ == "__main__":
    main()
