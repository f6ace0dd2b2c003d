"""What only some of the species wear: masks, manes, horns, tusks. One function, or one row of `HORNS`, for each."""

import math
from functools import partial

import numpy as np

from .colours import dark, light, mix
from .pen import SIDES, both_sides, fit, mirror, oval, ragged, rays, smooth

# Pairs of horns: points for the right side, width at root and tip, colour.
HORNS = {
    "horns": [([(0.45, -0.7), (0.8, -1.0), (0.82, -1.35)], (0.24, 0.08), (226, 212, 182))],
    "long horns": [([(0.28, -0.6), (0.4, -1.2), (0.72, -1.65)], (0.28, 0.08), (172, 150, 122))],
    "antlers": [
        ([(0.3, -0.7), (0.55, -1.2), (0.62, -1.75)], (0.15, 0.08), (158, 122, 84)),
        ([(0.52, -1.15), (0.85, -1.35), (0.98, -1.65)], (0.12, 0.07), (158, 122, 84)),
    ],
}


def draw_marks(layer, pen, dice, look):
    """Draw those of the animal's marks that lie in this layer."""
    for mark in look.shape.marks:
        if mark in layer:
            layer[mark](pen, dice, look)


# --- behind the head


def mane(pen, dice, look):
    """A mane around the head."""
    for radius, tone in ((1.62, dark(look.second, 0.15)), (1.36, mix(look.second, look.fur, 0.35))):
        ring = rays(np.linspace(0, 2 * np.pi, 44, endpoint=False)) * (1, 1.02) * radius
        pen.solid(ragged(ring, dice, fluff=0.16), tone, shade=0.3, width=0.035)


def horns(pen, dice, look, *, pairs):
    """Pairs of tapering horns: short as a cow's, bent back as a goat's, or antlers."""
    for points, widths, fill in pairs:
        for spine in both_sides(smooth(points, closed=False)):
            for grow, tone in ((0.06, dark(fill, 0.45)), (0.0, fill)):
                for i, width in enumerate(np.linspace(*widths, len(spine) - 1)):
                    pen.line(spine[i : i + 2], tone, width=width + grow)


def fleece(pen, dice, look):
    """A cloud of wool around the head."""
    wool = light(look.pale, 0.2)
    for step in range(15):
        turn = 2 * math.pi * step / 15
        cloud = oval(0.86 * math.cos(turn), 0.72 * math.sin(turn) - 0.3, 0.36, 0.36)
        pen.solid(cloud, wool, shade=0.25, width=0.035)
    pen.shape(oval(0, -0.3, 0.9, 0.8), wool)


# --- on the head's fur


def cheeks(pen, dice, look):
    """Pale cheeks."""
    for cheek in both_sides([(0.1, 1.0), (0.3, 0.35), (0.75, 0.12), (1.4, 0.3), (1.0, 1.0)]):
        pen.shape(smooth(cheek), look.pale)


def mask(pen, dice, look):
    """A dark band across the eyes, pale above."""
    y = look.shape.eye_y
    for side in SIDES:
        pen.shape(oval(side * 0.5, y - 0.16, 0.5, 0.22, side * 14), look.pale)
        pen.shape(oval(side * 0.52 + look.turn * 0.4, y + 0.08, 0.5, 0.27, side * 26), dark(look.second, 0.5))


def panda(pen, dice, look):
    """Dark patches around the eyes."""
    for side in SIDES:
        x = side * look.shape.eye_gap * 1.04 + look.turn * 0.5
        pen.shape(oval(x, look.shape.eye_y + 0.06, 0.24, 0.31, side * 32), dark(look.second, 0.7))


def tiger(pen, dice, look):
    """Bold stripes from the brow and the cheeks."""
    ink = dark(look.second, 0.7)
    for side in SIDES:
        for x, y in ((0.2, -0.62), (0.36, -0.5)):
            pen.shape(smooth(mirror([(x * 1.7, -1.1), (x, y), (x * 1.9, -0.9)], side), steps=4), ink)
        for y in (-0.2, 0.1, 0.4):
            pen.shape(mirror([(1.4, y - 0.09), (dice.between(0.6, 0.74), y + 0.06), (1.4, y + 0.12)], side), ink)
    pen.shape(smooth([(-0.06, -1.0), (0.06, -1.0), (0, -0.4)], steps=4), ink)


def rosettes(pen, dice, look):
    """Rings with a darker middle."""
    for _ in range(22):
        x, y, r = dice.between(-1.1, 1.1), dice.between(-0.9, 0.7), dice.between(0.08, 0.13)
        if abs(x) > 0.3 or y < -0.3:
            pen.shape(oval(x, y, r, r), dark(look.second, 0.2), edge=dark(look.second, 0.7), width=0.05)


def tears(pen, dice, look):
    """Dark lines from the eyes to the mouth."""
    shape = look.shape
    for side in SIDES:
        x = side * shape.eye_gap + look.turn * 0.5
        tear = [(x - side * 0.14, shape.eye_y), (x - side * 0.2, 0.2), (x - side * 0.06, 0.55)]
        pen.curve(tear, dark(look.second, 0.75), width=0.09)


def badger(pen, dice, look):
    """Two dark bands through the eyes."""
    band = [(1.5, -1.0), (0.7, -0.8), (0.55, 0.1), (0.5, 0.6), (1.1, 0.3), (1.7, -0.3)]
    for points in both_sides(fit(band, 0, 0, width=look.shape.eye_gap, height=1)):
        pen.shape(smooth(points), dark(look.second, 0.8))


def skunk(pen, dice, look):
    """One pale stripe over the brow."""
    pen.shape(smooth([(-0.2, -1.0), (0.2, -1.0), (0.12, -0.2), (0, 0.15), (-0.12, -0.2)]), light(look.pale, 0.6))


def bare_face(pen, dice, look):
    """A bare, heart-shaped face."""
    skin = mix(look.pale, (226, 172, 140), 0.5)
    for side in SIDES:
        pen.shape(oval(side * 0.3 + look.turn * 0.5, -0.08, 0.36, 0.44), skin)
    pen.shape(oval(look.turn * 0.7, 0.45, 0.6, 0.45), skin)


def disc(pen, dice, look):
    """Feathered discs around the eyes."""
    for side in SIDES:
        x = side * look.shape.eye_gap + look.turn * 0.5
        pen.shape(oval(x, look.shape.eye_y + 0.04, 0.46, 0.5), look.pale, edge=dark(look.second, 0.2), width=0.05)


# --- in front of the face


def tusks(pen, dice, look):
    """Two tusks that point down, or up for a boar."""
    shape, length = look.shape, -0.375 if look.shape.muzzle == "snout" else 0.75
    for side in SIDES:
        x, y = look.turn + side * shape.muzzle_width * 0.75, shape.muzzle_y + shape.muzzle_height * 0.7
        pen.shape([(x - 0.08, y), (x + 0.08, y), (x + side * 0.05, y + length)], (248, 242, 224), edge=(150, 136, 110))


def teeth(pen, dice, look):
    """Two front teeth."""
    y = look.shape.muzzle_y + look.shape.muzzle_height * 0.5
    for side in SIDES:
        x = look.turn + side * 0.075
        tooth = [(x - 0.075, y), (x + 0.075, y), (x + 0.07, y + 0.24), (x - 0.07, y + 0.24)]
        pen.shape(tooth, (250, 244, 224), edge=look.edge)


def fangs(pen, dice, look):
    """Two small fangs."""
    y = look.shape.muzzle_y + look.shape.muzzle_height * 1.5
    for x in (look.turn - 0.1, look.turn + 0.1):
        pen.shape([(x - 0.04, y), (x + 0.04, y), (x, y + 0.14)], (250, 248, 240))


def beard(pen, dice, look):
    """A beard below the chin."""
    y = look.shape.chin
    points = [(-0.2, y - 0.12), (0.2, y - 0.12), (0.1, y + 0.3), (0, y + 0.5), (-0.1, y + 0.3)]
    pen.shape(smooth(points), look.pale, edge=look.edge)


def forelock(pen, dice, look):
    """A forelock between the ears."""
    points = [(-0.26, -0.95), (0.24, -0.98), (0.2, -0.5), (0.02, -0.12), (-0.16, -0.4)]
    pen.shape(smooth(points), look.second, edge=look.edge)


def tuft(pen, dice, look):
    """A tuft of wool on the brow."""
    for x, y in ((-0.36, -0.66), (0.36, -0.66), (-0.14, -0.82), (0.16, -0.82), (0, -0.58)):
        pen.solid(oval(x, y, 0.27, 0.25), light(look.pale, 0.2), shade=0.2, width=0.035)


BEHIND_HEAD = {"mane": mane, "wool": fleece, **{name: partial(horns, pairs=pairs) for name, pairs in HORNS.items()}}
ON_FUR = {"cheeks": cheeks, "mask": mask, "panda": panda, "tiger": tiger, "rosettes": rosettes, "tears": tears,
          "badger": badger, "skunk": skunk, "face": bare_face, "disc": disc}  # fmt: skip
IN_FRONT = {"tusks": tusks, "teeth": teeth, "fangs": fangs, "beard": beard, "forelock": forelock, "wool": tuft}
