"""The table of species: the shape of cat, dog and 37 other animals.

Cat and dog share everything that is not shape: coats, patterns, eye colours, poses, backgrounds, cover and light come
from the same distributions. Only the form of ears, muzzle, nose, eyes and whiskers can tell the two apart.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Species:
    """The shape of one animal, in head units: the head is about 2 wide, its middle is (0, 0), y points down."""

    crown: float = 0.78  # half width of the skull between the ears
    width: float = 0.95  # half width at the eyes
    cheek: float = 0.92  # half width at the cheeks
    jaw: float = 0.7  # half width at the jaw
    top: float = 0.82  # height above the middle
    chin: float = 0.86  # depth below the middle
    fluff: float = 0.03  # how ragged the outline is
    ears: str = "round"  # "point", "tuft", "fold", "round", "leaf", "droop" or "none"
    ear_length: float = 0.7
    ear_width: float = 0.5
    ear_at: float = 38  # degrees from the top of the head to the middle of the ear's base
    ear_tilt: float = 22  # degrees that the ear leans outwards
    muzzle: str = "puffs"  # a key of MUZZLES
    muzzle_width: float = 0.3
    muzzle_height: float = 0.2
    muzzle_y: float = 0.4
    nose: str = "oval"  # a key of NOSES, or "none"
    nose_width: float = 0.12
    nose_y: float = 0.26
    eye_size: float = 0.15
    eye_gap: float = 0.42  # half the distance between the eyes
    eye_y: float = -0.06
    pupil: str = "dark"  # a key of PUPILS, or "dark"
    almond: float = 1.0  # height of the eye divided by its width
    whiskers: float = 0.0  # length; 0 draws none
    tongue: float = 0.12  # how often the mouth is open
    neck: float = 0.72  # half width of neck and shoulders
    tail: str = "short"  # a key of TAILS, "none", or "any"
    marks: tuple = ()  # keys of the tables in marks.py, always drawn
    coats: tuple = ()  # keys of COATS; empty allows all but pink
    patterns: tuple = ("plain",)  # keys of PATTERNS; empty allows all
    breeds: tuple = ()  # one is drawn at random


# fmt: off
CAT = Species(crown=0.8, width=0.98, cheek=0.95, jaw=0.55, top=0.78, chin=0.79, ears="point", ear_length=0.84,
    ear_width=0.74, ear_at=39, ear_tilt=19, muzzle_width=0.28, muzzle_y=0.38, nose="triangle", nose_y=0.24,
    eye_size=0.21, eye_y=-0.1, pupil="slit", almond=0.84, whiskers=0.85, neck=0.68, tail="any", patterns=())
DOG = Species(crown=0.76, width=0.9, cheek=0.86, jaw=0.53, chin=0.93, ears="droop", ear_length=1.1, ear_width=0.6,
    ear_at=56, ear_tilt=10, muzzle="long", muzzle_width=0.38, muzzle_height=0.33, muzzle_y=0.48, nose_width=0.18,
    nose_y=0.33, eye_size=0.18, eye_gap=0.39, eye_y=-0.14, pupil="large", almond=0.92, tongue=0.2, neck=0.7, tail="any",
    patterns=())
SPECIES = {
    "cat": replace(CAT, breeds=(
        CAT,
        replace(CAT, pupil="large", ear_length=0.95),
        replace(CAT, ear_length=1.02, ear_width=0.78, crown=0.74, width=0.88, cheek=0.8, jaw=0.42, chin=0.86),
        replace(CAT, pupil="large", fluff=0.1, cheek=1.12, width=1.04, ear_length=0.7, muzzle_y=0.35, nose_y=0.19),
        replace(CAT, ear_length=0.66, cheek=1.04, jaw=0.64, eye_size=0.23, fluff=0.06),
        replace(CAT, ears="tuft", fluff=0.08, cheek=1.06, ear_length=0.88),
        replace(CAT, ears="fold", pupil="large", ear_length=0.52, ear_width=0.62, ear_tilt=24, cheek=1.0),
    )),
    "dog": replace(DOG, breeds=(
        DOG,
        replace(DOG, ear_length=1.4, ear_width=0.66, chin=1.02, muzzle_y=0.53, muzzle_width=0.36),
        replace(DOG, ear_length=0.8, ear_width=0.56, width=0.94, cheek=0.92, fluff=0.08, muzzle_height=0.3),
        replace(DOG, ears="fold", ear_length=0.72, ear_width=0.62, ear_at=41, ear_tilt=22, fluff=0.04),
        replace(DOG, ears="fold", ear_length=0.6, ear_at=40, ear_tilt=24, muzzle_width=0.44, fluff=0.1, cheek=0.98),
        replace(DOG, ears="point", ear_length=0.78, ear_width=0.62, ear_at=36, ear_tilt=14, cheek=0.95, fluff=0.07),
        replace(DOG, ears="point", ear_length=0.95, ear_width=0.66, ear_at=37, ear_tilt=17, chin=1.04, muzzle_y=0.55,
                nose_y=0.38),
    )),
    # Below: what the slim VGG16 is pretrained on. None is a cat or a dog, all are put together from the same parts.
    "fox": Species(cheek=1.02, jaw=0.36, chin=1.0, ears="point", ear_length=0.9, ear_width=0.7, muzzle="long",
        muzzle_width=0.26, muzzle_height=0.3, muzzle_y=0.55, nose_width=0.13, nose_y=0.42, eye_size=0.17, pupil="slit",
        almond=0.62, tail="plume", marks=("cheeks",), coats=("rust", "ginger")),
    "fennec": Species(width=0.9, jaw=0.38, ears="point", ear_length=1.55, ear_width=0.95, ear_at=42, ear_tilt=30,
        muzzle="long", muzzle_width=0.24, muzzle_height=0.24, muzzle_y=0.48, nose_y=0.36, eye_size=0.2, pupil="round",
        almond=0.8, tail="plume", marks=("cheeks",), coats=("cream", "fawn")),
    "lynx": Species(cheek=1.2, jaw=0.8, fluff=0.12, ears="tuft", ear_length=0.85, ear_width=0.7, muzzle_width=0.31,
        nose="triangle", eye_size=0.18, pupil="round", almond=0.66, whiskers=0.7, marks=("cheeks",),
        coats=("fawn", "grey", "cream"), patterns=("spots", "plain")),
    "lion": Species(jaw=0.6, chin=1.0, ear_length=0.44, ear_at=44, muzzle_width=0.4, muzzle_height=0.27, muzzle_y=0.48,
        nose="triangle", nose_width=0.22, nose_y=0.28, eye_size=0.16, pupil="round", almond=0.66, whiskers=0.5,
        tail="long", marks=("mane",), coats=("golden", "fawn")),
    "tiger": Species(cheek=1.12, jaw=0.68, fluff=0.06, ear_length=0.48, ear_width=0.56, muzzle_width=0.38,
        muzzle_height=0.25, muzzle_y=0.44, nose="triangle", nose_width=0.2, nose_y=0.25, eye_size=0.17, pupil="round",
        almond=0.66, whiskers=0.6, tail="long", marks=("cheeks", "tiger"), coats=("ginger", "golden", "white")),
    "leopard": Species(jaw=0.52, ear_length=0.42, ear_width=0.44, ear_at=42, muzzle_width=0.34, muzzle_height=0.24,
        nose="triangle", nose_width=0.17, nose_y=0.25, eye_size=0.18, pupil="round", almond=0.7, whiskers=0.6,
        tail="long", marks=("rosettes",), coats=("golden", "cream", "black")),
    "cheetah": Species(width=0.84, cheek=0.8, jaw=0.52, top=0.74, ear_length=0.36, ear_width=0.46, ear_at=50,
        muzzle_width=0.28, muzzle_height=0.22, nose="triangle", nose_width=0.16, eye_size=0.18, pupil="round",
        almond=0.8, whiskers=0.4, tail="long", marks=("tears",), coats=("golden", "fawn"), patterns=("spots",)),
    "bear": Species(jaw=0.66, ear_length=0.46, ear_at=46, muzzle="long", muzzle_width=0.4, muzzle_height=0.34,
        muzzle_y=0.46, nose_width=0.22, nose_y=0.28, eye_size=0.12, eye_gap=0.36, neck=0.95,
        coats=("brown", "chocolate", "black", "white")),
    "panda": Species(cheek=1.1, ear_length=0.46, ear_width=0.54, ear_at=44, muzzle_width=0.28, muzzle_height=0.22,
        nose_width=0.17, nose_y=0.24, eye_size=0.14, neck=0.92, marks=("panda",), coats=("white", "cream")),
    "red panda": Species(cheek=1.1, ears="point", ear_length=0.6, ear_width=0.72, ear_at=50, ear_tilt=34,
        muzzle_width=0.25, nose_width=0.14, nose_y=0.25, almond=0.95, whiskers=0.4, tail="plume",
        marks=("mask", "cheeks"), coats=("rust", "ginger")),
    "koala": Species(jaw=0.66, fluff=0.05, ear_length=0.72, ear_width=0.92, ear_at=62, ear_tilt=48, muzzle="none",
        nose="ball", nose_width=0.22, nose_y=0.2, eye_size=0.14, eye_gap=0.5, tail="none", coats=("grey", "blue")),
    "raccoon": Species(cheek=1.14, jaw=0.44, fluff=0.07, ear_length=0.5, muzzle="long", muzzle_width=0.25,
        muzzle_height=0.24, muzzle_y=0.46, nose_width=0.15, nose_y=0.34, almond=0.9, whiskers=0.5, tail="ringed",
        marks=("mask",), coats=("grey", "brown", "blue")),
    "badger": Species(width=0.8, cheek=0.78, jaw=0.4, chin=1.05, ear_length=0.32, ear_width=0.4, ear_at=56, ear_tilt=40,
        muzzle="long", muzzle_width=0.27, muzzle_height=0.28, muzzle_y=0.6, nose_width=0.17, nose_y=0.5, eye_size=0.11,
        marks=("badger",), coats=("white", "grey", "cream")),
    "skunk": Species(width=0.82, cheek=0.84, jaw=0.38, ear_length=0.3, ear_width=0.36, ear_at=54, ear_tilt=36,
        muzzle_width=0.2, muzzle_height=0.18, muzzle_y=0.5, nose_y=0.42, eye_size=0.13, tail="plume", marks=("skunk",),
        coats=("black", "chocolate")),
    "rabbit": Species(width=0.84, cheek=0.88, jaw=0.52, chin=0.8, ears="leaf", ear_length=1.7, ear_at=24, ear_tilt=10,
        muzzle_width=0.22, muzzle_height=0.17, muzzle_y=0.38, nose="heart", nose_width=0.1, eye_size=0.18, eye_gap=0.5,
        almond=1.05, whiskers=0.6, patterns=("plain", "bicolour", "patches")),
    "lop rabbit": Species(width=0.88, cheek=0.96, jaw=0.52, chin=0.78, fluff=0.05, ears="droop", ear_length=1.35,
        ear_width=0.56, ear_at=44, muzzle_width=0.23, muzzle_height=0.18, muzzle_y=0.36, nose="heart", nose_width=0.1,
        nose_y=0.24, eye_size=0.18, eye_gap=0.5, almond=1.05, whiskers=0.5, patterns=("plain", "bicolour", "patches")),
    "mouse": Species(width=0.78, cheek=0.72, jaw=0.34, chin=0.9, ear_length=0.9, ear_width=0.95, ear_at=50, ear_tilt=40,
        muzzle_width=0.16, muzzle_height=0.14, muzzle_y=0.56, nose_width=0.09, nose_y=0.48, eye_gap=0.36, almond=1.05,
        whiskers=0.8, tail="long", coats=("grey", "white", "brown", "fawn")),
    "hamster": Species(cheek=1.2, jaw=0.86, ear_length=0.4, ear_width=0.44, ear_at=50, ear_tilt=34, muzzle_width=0.2,
        muzzle_height=0.15, muzzle_y=0.3, nose="heart", nose_width=0.09, nose_y=0.2, almond=1.05, whiskers=0.4,
        tail="none", marks=("cheeks",), coats=("golden", "ginger", "cream", "grey"), patterns=("plain", "patches")),
    "squirrel": Species(width=0.8, cheek=0.86, jaw=0.52, chin=0.8, ears="tuft", ear_width=0.4, ear_at=34, ear_tilt=12,
        muzzle_width=0.2, muzzle_height=0.18, muzzle_y=0.42, nose="heart", nose_width=0.1, nose_y=0.32, eye_size=0.18,
        eye_gap=0.48, almond=0.95, whiskers=0.4, tail="plume", coats=("rust", "grey", "brown")),
    "beaver": Species(chin=0.92, ear_length=0.28, ear_width=0.34, ear_at=56, ear_tilt=44, muzzle="broad",
        muzzle_width=0.36, muzzle_height=0.26, muzzle_y=0.44, nose_width=0.2, eye_size=0.12, whiskers=0.4,
        marks=("teeth",), coats=("brown", "chocolate", "fawn")),
    "otter": Species(top=0.72, ear_length=0.24, ear_width=0.32, ear_at=72, ear_tilt=64, muzzle_width=0.36,
        muzzle_height=0.24, muzzle_y=0.36, nose_width=0.18, nose_y=0.18, eye_size=0.13, whiskers=0.8, tail="long",
        marks=("cheeks",), coats=("brown", "chocolate", "grey")),
    "seal": Species(width=0.92, jaw=0.68, top=0.86, ears="none", muzzle_width=0.34,
        muzzle_height=0.26, nose_width=0.14, nose_y=0.2, eye_size=0.22, whiskers=0.7, tail="none",
        coats=("grey", "white", "blue", "fawn"), patterns=("plain", "spots")),
    "walrus": Species(jaw=0.74, top=0.78, ears="none", muzzle_width=0.5,
        muzzle_height=0.34, muzzle_y=0.36, nose_width=0.2, nose_y=0.1, eye_size=0.11, eye_y=-0.2, whiskers=0.4,
        neck=1.0, tail="none", marks=("tusks",), coats=("brown", "fawn", "rust")),
    "pig": Species(ears="fold", ear_width=0.66, ear_at=42, ear_tilt=24, muzzle="snout", muzzle_width=0.34,
        muzzle_height=0.25, muzzle_y=0.34, nose="none", eye_size=0.12, eye_y=-0.14, neck=0.95,
        coats=("pink", "cream", "fawn"), patterns=("plain", "patches")),
    "boar": Species(width=0.82, cheek=0.78, jaw=0.5, chin=1.1, fluff=0.08, ears="point", ear_at=40, ear_tilt=24,
        muzzle="snout", muzzle_height=0.25, muzzle_y=0.64, nose="none", eye_size=0.1, eye_y=-0.12, almond=0.9,
        neck=0.98, marks=("tusks",), coats=("brown", "chocolate", "black")),
    "cow": Species(width=0.78, cheek=0.72, jaw=0.5, top=0.9, chin=1.12, ears="leaf", ear_length=0.8, ear_width=0.42,
        ear_at=64, ear_tilt=84, muzzle="broad", muzzle_width=0.52, muzzle_height=0.34, muzzle_y=0.74, nose="slits",
        nose_width=0.26, nose_y=0.64, eye_gap=0.48, eye_y=-0.18, almond=0.9, neck=0.86, tail="long", marks=("horns",),
        coats=("white", "brown", "black", "fawn"), patterns=("patches", "plain", "bicolour")),
    "sheep": Species(width=0.72, cheek=0.68, jaw=0.42, chin=1.02, ears="leaf", ear_length=0.66, ear_width=0.38,
        ear_at=66, ear_tilt=108, muzzle_width=0.24, muzzle_y=0.62, nose="triangle", nose_width=0.16, nose_y=0.5,
        eye_size=0.14, pupil="bar", almond=0.85, neck=1.0, marks=("wool",), coats=("white", "cream", "black", "grey")),
    "goat": Species(width=0.72, cheek=0.66, jaw=0.36, chin=1.14, ears="droop", ear_length=0.95, ear_width=0.4,
        ear_at=62, ear_tilt=34, muzzle="long", muzzle_height=0.26, muzzle_y=0.7, nose="triangle", nose_width=0.17,
        nose_y=0.58, eye_size=0.14, eye_gap=0.44, pupil="bar", almond=0.8, marks=("long horns", "beard"),
        patterns=("plain", "bicolour", "patches")),
    "horse": Species(crown=0.6, width=0.66, cheek=0.6, jaw=0.44, top=0.9, chin=1.4, ears="leaf", ear_width=0.36,
        ear_at=24, ear_tilt=8, muzzle="broad", muzzle_width=0.38, muzzle_height=0.34, muzzle_y=1.04, nose="slits",
        nose_width=0.2, nose_y=0.96, eye_size=0.13, eye_gap=0.46, eye_y=-0.2, almond=0.85, neck=0.66, tail="long",
        marks=("forelock",), coats=("brown", "rust", "chocolate", "black", "fawn"), patterns=("plain", "bicolour")),
    "deer": Species(width=0.72, cheek=0.66, jaw=0.36, chin=1.1, ears="leaf", ear_length=0.85, ear_width=0.44, ear_at=52,
        ear_tilt=58, muzzle="long", muzzle_width=0.25, muzzle_height=0.26, muzzle_y=0.68, nose_width=0.17, nose_y=0.56,
        eye_size=0.17, eye_gap=0.46, almond=0.85, marks=("antlers",), coats=("rust", "brown", "fawn")),
    "kangaroo": Species(width=0.72, cheek=0.68, jaw=0.38, chin=1.05, ears="leaf", ear_length=1.05, ear_at=32,
        muzzle="long", muzzle_width=0.28, muzzle_height=0.28, muzzle_y=0.6, nose_width=0.16, nose_y=0.46, eye_gap=0.44,
        almond=0.85, tail="long", coats=("rust", "fawn", "grey")),
    "hyena": Species(cheek=0.8, jaw=0.5, chin=0.98, ear_length=0.66, ear_width=0.56, ear_at=40, ear_tilt=24,
        muzzle="long", muzzle_width=0.38, muzzle_height=0.34, muzzle_y=0.5, nose_width=0.2, nose_y=0.34, eye_size=0.14,
        eye_gap=0.38, eye_y=-0.14, pupil="round", almond=0.8, tongue=0.3, coats=("fawn", "grey", "brown"),
        patterns=("spots",)),
    "monkey": Species(width=0.82, jaw=0.56, ear_length=0.52, ear_width=0.6, ear_at=84, ear_tilt=84, muzzle="broad",
        muzzle_width=0.42, muzzle_height=0.27, muzzle_y=0.5, nose="slits", nose_width=0.1, nose_y=0.32, eye_gap=0.28,
        pupil="round", almond=0.8, tongue=0.2, tail="long", marks=("face",),
        coats=("brown", "chocolate", "golden", "black")),
    "elephant": Species(width=0.78, cheek=0.68, jaw=0.46, ear_length=1.15, ear_width=1.4, ear_at=84, ear_tilt=86,
        muzzle="trunk", muzzle_width=0.26, nose="none", eye_size=0.11, eye_gap=0.44, eye_y=-0.14, almond=0.9, neck=1.0,
        tail="long", coats=("grey", "blue", "fawn")),
    "hippo": Species(width=0.78, cheek=0.78, chin=1.04, ear_length=0.28, ear_width=0.32, ear_at=44, ear_tilt=30,
        muzzle="broad", muzzle_width=0.74, muzzle_height=0.46, muzzle_y=0.62, nose="slits", nose_width=0.4, nose_y=0.4,
        eye_size=0.12, eye_y=-0.28, neck=1.0, coats=("grey", "blue", "pink")),
    "owl": Species(crown=0.9, jaw=0.74, fluff=0.06, ears="tuft", ear_length=0.5, ear_width=0.42, ear_at=44, ear_tilt=30,
        muzzle="beak", muzzle_width=0.14, muzzle_height=0.3, muzzle_y=0.2, nose="none", eye_size=0.3, eye_gap=0.4,
        pupil="ring", tail="none", marks=("disc",), coats=("brown", "fawn", "grey", "white"),
        patterns=("spots", "plain")),
    "bat": Species(width=0.8, cheek=0.8, jaw=0.46, chin=0.8, fluff=0.05, ears="point", ear_length=1.3, ear_width=0.8,
        ear_at=36, ear_tilt=18, muzzle="snout", muzzle_width=0.2, muzzle_height=0.15, muzzle_y=0.3, nose="none",
        eye_size=0.14, tail="none", marks=("fangs",), coats=("chocolate", "brown", "black", "grey")),
}
# fmt: on
PRETRAINING = tuple(name for name in SPECIES if name not in ("cat", "dog"))
