"""The body: poses, coat and paws, collar, tails."""

import math
from dataclasses import dataclass

import numpy as np

from .coats import paint_coat
from .colours import dark
from .pen import SIDES, mirror, oval, ragged, smooth, whole


@dataclass(frozen=True)
class Pose:
    """How an animal stands; places in head units, their x in units of the neck's half width."""

    size: float  # of the head, as a share of the image's side
    heights: tuple  # of the head's middle, lowest and highest share of the side
    floor: float
    outline: tuple  # right half of neck and body
    tail: tuple = ()  # where it begins


POSES = {
    "bust": Pose(0.2, (0.46, 0.62), 3.5, ((0.8, 0.3), (1, 0.9), (1.55, 1.5), (1.8, 2.4), (1.8, 3.6), (0, 3.8))),
    "sit": Pose(0.145, (0.33, 0.48), 3.3, ((0.75, 0.3), (0.95, 1.1), (1.2, 1.9), (1.65, 2.7), (1.5, 3.3), (0, 3.35)),
                tail=(1.3, 2.9)),
    "loaf": Pose(0.165, (0.42, 0.58), 2.15, ((1, 0.2), (1.5, 0.62), (2.15, 1.05), (2.4, 1.7), (2, 2.1), (0, 2.15)),
                 tail=(2.3, 1.8)),
}  # fmt: skip


def draw_body(pen, dice, look):
    """Draw shadow, tail, body, coat and paws."""
    pose, shape = POSES[look.pose], look.shape
    pen.glow(0, pose.floor, rx=2.6, ry=0.6, fill=(20, 16, 24), strength=0.55)
    if pose.tail and shape.tail != "none":
        TAILS[dice.choice(tuple(TAILS)) if shape.tail == "any" else shape.tail](pen, look, tail_spine(look, dice))
    body = smooth(whole(np.array(pose.outline) * (shape.neck, 1)), steps=5)
    outline = ragged(body - (0, 1.4), dice, fluff=shape.fluff * 0.5) + (0, 1.4)
    pen.shape(outline, look.fur, edge=look.edge)
    with pen.inside(outline) as inner:
        paint_coat(inner, dice, look, part="body")
        inner.glow(0, 0.9, rx=1.5, ry=0.7, fill=dark(look.fur, 0.5), strength=0.6)
        inner.glow(1.6, 2.4, rx=1.2, ry=2.2, fill=dark(look.fur, 0.6), strength=0.5)
    if look.pose != "bust":
        draw_paws(pen, look, y=pose.floor - 0.12)
    if dice.chance(0.2):
        draw_collar(pen, dice, look)


def draw_paws(pen, look, y):
    """Draw two front paws, with legs when the animal sits."""
    fur = {"points": look.second, "bicolour": look.pale}.get(look.pattern, look.fur)
    for x in (-0.36, 0.36):
        if look.pose == "sit":
            pen.line([(x * 1.5, y - 1.2), (x * 1.45, y - 0.2)], look.edge, width=0.04)
            pen.line([(x * 0.1, y - 0.9), (x * 0.1, y - 0.1)], look.edge)
        pen.shape(oval(x, y, 0.36, 0.2), fur, edge=look.edge)
        for toe in (-0.1, 0.1):
            pen.line([(x + toe, y + 0.02), (x + toe, y + 0.15)], look.edge)


def draw_collar(pen, dice, look):
    """Draw a collar with a tag; any animal may wear one."""
    colour, reach = dice.colour((0.5, 0.9), (0.5, 0.95)), look.shape.neck * 0.98
    for tone, width in ((dark(colour, 0.45), 0.22), (colour, 0.15)):
        pen.curve([(-reach, 0.86), (0, 1.14), (reach, 0.86)], tone, width=width)
    pen.shape(oval(0, 1.26, 0.11, 0.11), (238, 204, 92), edge=(150, 112, 40))


def tail_spine(look, dice):
    """The middle line of a tail that rises beside the body."""
    side, (x, y) = dice.choice(SIDES), POSES[look.pose].tail
    x, curl = x * look.shape.neck, dice.between(0.2, 0.7)
    return mirror(smooth([(x, y), (x + 0.7, y - 0.1), (x + 1.0, y - 0.8), (x + curl, y - 1.3)], closed=False), side)


def tail_long(pen, look, spine):
    """A long, slender tail."""
    pen.line(spine, look.edge, width=0.38)
    pen.line(spine, look.ear_fur, width=0.3)


def tail_plume(pen, look, spine):
    """A bushy tail."""
    for grow, tone in ((0.06, look.edge), (0.0, look.ear_fur)):
        for share, (x, y) in zip(np.linspace(0, 1, len(spine)), spine, strict=True):
            radius = 0.16 + 0.3 * math.sin(math.pi * min(1, share * 0.9 + 0.05)) + grow
            pen.shape(oval(x, y, radius, radius), tone)


def tail_short(pen, look, spine):
    """A stump."""
    x, y = spine[0]
    pen.shape(oval(x * 1.15, y - 0.2, 0.3, 0.26), look.fur, edge=look.edge)


def tail_ringed(pen, look, spine):
    """A bushy tail with rings."""
    for step, (x, y) in enumerate(spine):
        pen.shape(oval(x, y, 0.34, 0.34), dark(look.second, 0.4) if step // 3 % 2 else look.pale)


TAILS = {"long": tail_long, "plume": tail_plume, "short": tail_short, "ringed": tail_ringed}
