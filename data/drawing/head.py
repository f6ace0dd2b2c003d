"""The head: its outline, ears, eyes and whiskers, and the order in which all its parts are drawn."""

import math

import numpy as np

from .coats import paint_coat
from .colours import dark, light, mix
from .marks import BEHIND_HEAD, IN_FRONT, ON_FUR, draw_marks
from .muzzles import MUZZLES
from .noses import NOSES
from .pen import SIDES, mirror, oval, ragged, rotate, smooth, whole

# Outlines that point up from (0, 0), for the right side, in units of the ear's width and length.
POINTED = np.array([(-0.52, 0.16), (-0.36, -0.42), (0.02, -1.0), (0.1, -1.0), (0.38, -0.5), (0.52, 0.16)])
LEAF = np.array([(-0.28, 0.1), (-0.5, -0.45), (-0.22, -0.9), (0.04, -1.0), (0.28, -0.88), (0.5, -0.45), (0.28, 0.1)])
HANGING = np.array([(-0.4, -0.06), (0.1, -0.16), (0.52, 0.12), (0.66, 0.55), (0.42, 0.96), (0.05, 0.98), (-0.22, 0.6)])
FLAP = np.array([(-0.44, -0.52), (0.1, -0.66), (0.46, -0.5), (0.42, 0.0), (0.22, 0.2), (-0.1, -0.08)])
# Width and height of the pupil, in eye radii; an eye that is "dark" has none.
PUPILS = {"slit": (0.26, 0.86), "round": (0.56, 0.56), "large": (0.64, 0.64), "bar": (0.7, 0.3), "ring": (0.5, 0.5)}


def draw_head(pen, dice, look):
    """Draw ears, head, coat and face."""
    shape = look.shape
    draw_marks(BEHIND_HEAD, pen, dice, look)
    if shape.ears not in ("none", "droop"):
        draw_ears(pen, dice, look)
    outline = ragged(head_outline(shape), dice, fluff=shape.fluff + 0.012)
    pen.shape(outline, look.fur, edge=look.edge)
    with pen.inside(outline) as inner:
        paint_coat(inner, dice, look, part="head")
        draw_marks(ON_FUR, inner, dice, look)
        inner.glow(-0.3, -0.55, rx=0.8, ry=0.5, fill=light(look.fur, 0.5), strength=0.45)
        inner.glow(0.2, shape.chin, rx=1.1, ry=0.5, fill=dark(look.fur, 0.6), strength=0.4)
    draw_face(pen, dice, look)
    if shape.ears == "droop":
        draw_ears(pen, dice, look)
    draw_marks(IN_FRONT, pen, dice, look)


def head_outline(shape):
    """The outline of the head."""
    brow = [(shape.crown * 0.5, -shape.top * 0.98), (shape.crown, -shape.top * 0.68), (shape.width, -0.14)]
    chin = [(shape.cheek, 0.3 * shape.chin), (shape.jaw, 0.8 * shape.chin), (0, shape.chin)]
    return smooth(whole(brow + chin))


def draw_face(pen, dice, look):
    """Draw muzzle, mouth, nose, eyes and whiskers, moved to the side to which the head is turned."""
    shape = look.shape
    MUZZLES[shape.muzzle](pen, look, look.turn)
    for side in SIDES:
        draw_eye(pen, look, x=side * shape.eye_gap + look.turn * 0.55, side=side)
    if shape.nose != "none":
        NOSES[shape.nose](pen, look, look.turn * 1.15)
    if shape.whiskers:
        draw_whiskers(pen, dice, look)


def draw_ears(pen, dice, look):
    """Draw both ears at their place on the skull."""
    shape, angle = look.shape, math.radians(look.shape.ear_at)
    base = np.array([math.sin(angle) * (shape.crown + 0.08), -math.cos(angle) * shape.top])
    for side in SIDES:
        tilt = shape.ear_tilt + look.ear_swing * side * 0.6
        tilt = -tilt if shape.ears == "droop" else tilt

        def place(points, tilt=tilt, side=side):
            return mirror(rotate(points, tilt) + base, side) - (look.turn * 0.3, 0)

        draw_ear(pen, dice, look, place=place)


def draw_ear(pen, dice, look, *, place):
    """Draw one ear; `place` moves its outlines to the head."""
    shape, size = look.shape, np.array((look.shape.ear_width, look.shape.ear_length))
    outer, inner = ear_outlines(shape.ears, size)
    pen.shape(ragged(place(outer), dice, fluff=shape.fluff * 0.15), look.ear_fur, edge=look.edge)
    if inner is not None:
        pen.shape(place(inner), mix((226, 156, 150), look.ear_fur, 0.45))
    if shape.ears == "tuft":
        for lean in (-0.08, 0.05, 0.16):
            pen.line(place([(0.06, -0.9), (lean, -1.38)] * size), dark(look.second, 0.5), width=0.06)
    if shape.ears == "fold":
        pen.shape(place(smooth(FLAP * size)), dark(look.ear_fur, 0.14), edge=look.edge)


def ear_outlines(kind, size):
    """The outline of an ear and of its inside; hanging and folded ears show none."""
    if kind == "round":
        width, length = size
        return oval(0, -0.42 * length, 0.52 * width, 0.62 * length), oval(0, -0.4 * length, 0.33 * width, 0.42 * length)
    if kind == "leaf":
        return smooth(LEAF * size), smooth((LEAF * 0.66 + (0, -0.1)) * size)
    if kind == "droop":
        return smooth(HANGING * size), None
    return smooth(POINTED * size), None if kind == "fold" else smooth((POINTED * 0.62 + (0.02, -0.06)) * size)


def draw_eye(pen, look, *, x, side):
    """Draw one eye: open, half closed or asleep."""
    shape, r = look.shape, look.shape.eye_size
    y, lid = shape.eye_y, dark(look.edge, 0.5)
    if look.mood == "asleep":
        pen.curve([(x - r, y), (x, y + 0.5 * r), (x + r, y)], lid, width=0.06)
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
    r = look.shape.eye_size
    if look.shape.pupil in PUPILS:
        width, height = PUPILS[look.shape.pupil]
        pen.shape(oval(x, y, 0.86 * r, 0.86 * r), look.iris)
        pen.glow(x, y + 0.4 * r, rx=0.9 * r, ry=0.6 * r, fill=light(look.iris, 0.5), strength=0.7)
        pen.shape(oval(x, y, width * r, height * r), (18, 14, 18))
    pen.shape(oval(x - 0.3 * r, y - 0.32 * r, 0.24 * r, 0.24 * r), (255, 255, 255))
    pen.shape(oval(x + 0.3 * r, y + 0.34 * r, 0.1 * r, 0.1 * r), (225, 225, 230))


def draw_whiskers(pen, dice, look):
    """Draw three whiskers on each side."""
    shape = look.shape
    colour = (250, 248, 244) if sum(look.fur) < 560 else (120, 108, 104)
    for side in SIDES:
        x = look.turn + side * shape.muzzle_width * 0.6
        for row, slope in enumerate((-0.22, 0.02, 0.26)):
            y, length = shape.muzzle_y - 0.06 + row * 0.07, dice.about(shape.whiskers)
            end = (x + side * length, y + slope * length + dice.between(-0.05, 0.05))
            pen.curve([(x, y), (x + side * length * 0.5, y + slope * length * 0.35), end], colour, width=0.026)
