"""Things in front of the animal, which hide a part of it."""

import numpy as np

from .colours import dark, light, mix
from .pen import box, oval, rotate


def grass(pen, dice):
    """Blades of grass in front."""
    green = mix(dice.colour((0.4, 0.7), (0.4, 0.8)), (96, 150, 70), 0.6)
    top = dice.between(0.68, 0.86)
    for _ in range(46):
        x, tip = dice.between(-0.05, 1.05), top + dice.between(-0.08, 0.12)
        lean, tone = dice.between(-0.08, 0.08), mix(dark(green, 0.3), light(green, 0.2), dice.between(0, 1))
        pen.shape([(x - 0.016, 1.02), (x + lean, tip), (x + 0.016, 1.02)], tone)


def ball(pen, dice):
    """A ball in front."""
    r, colour = dice.between(0.09, 0.16), dice.colour((0.5, 0.9), (0.6, 1.0))
    x, y = dice.between(0.15, 0.85), dice.between(0.72, 0.92)
    pen.solid(oval(x, y, r, r), colour)
    pen.curve([(x - r, y), (x, y + 0.35 * r), (x + r, y)], light(colour, 0.7), width=0.02)
    pen.glow(x - 0.3 * r, y - 0.35 * r, rx=0.5 * r, ry=0.5 * r, fill=(255, 255, 255), strength=0.8)


def carton(pen, dice):
    """The front of a cardboard box or of a basket."""
    colour, top = mix(dice.colour(), (196, 152, 104), 0.6), dice.between(0.7, 0.86)
    lean = dice.between(-0.05, 0.05)
    left, right = (0.04, top - lean), (0.96, top + lean)
    rim = [left, right, (0.98, top + 0.07 + lean), (0.02, top + 0.07 - lean)]
    pen.solid([left, right, (0.92, 1.05), (0.08, 1.05)], colour, shade=0.45, width=0.012)
    pen.shape(rim, light(colour, 0.2), edge=dark(colour, 0.35), width=0.008)


def fence(pen, dice):
    """A picket fence."""
    colour, top = light(dice.colour((0.1, 0.4), (0.6, 0.9)), 0.4), dice.between(0.68, 0.84)
    step, start = dice.between(0.17, 0.24), dice.between(-0.1, 0.05)
    edge = dark(colour, 0.4)
    pen.shape(box(-0.1, top + 0.13, 1.2, 0.045), dark(colour, 0.15), edge=edge, width=0.006)
    for x in np.arange(start, 1.1, step):
        picket = [(x, 1.1), (x, top), (x + 0.045, top - 0.05), (x + 0.09, top), (x + 0.09, 1.1)]
        pen.shape(picket, colour, edge=edge, width=0.008)


def leaves(pen, dice):
    """A branch with leaves that hangs into a corner."""
    green = mix(dice.colour((0.4, 0.7), (0.4, 0.8)), (90, 150, 80), 0.5)
    side, reach, low = dice.choice((0, 1)), dice.between(0.35, 0.6), dice.between(0.08, 0.3)
    end = abs(side - reach)
    pen.line([(side, -0.02), (end, low)], (96, 70, 52), width=0.02)
    for share in (step / 8 for step in range(9)):
        place = (side + (end - side) * share, low * share)
        leaf = rotate(oval(0, 0.06, 0.028, 0.065), dice.between(-60, 60)) + place
        pen.shape(leaf, mix(green, dice.colour(), 0.15), edge=dark(green, 0.4), width=0.006)


def flowers(pen, dice):
    """Large flowers in front."""
    for _ in range(int(dice.between(2, 5))):
        x, y = dice.between(0.02, 0.98), dice.between(0.74, 0.94)
        r, petal = dice.between(0.03, 0.05), dice.colour((0.3, 0.8), (0.8, 1.0))
        pen.line([(x, y), (x + dice.between(-0.04, 0.04), 1.05)], (92, 142, 76), width=0.016)
        for turn in range(0, 360, 60):
            pen.solid(rotate(oval(0, -r, r * 0.62, r), turn) + (x, y), petal, shade=0.3, width=0.005)
        pen.shape(oval(x, y, r * 0.6, r * 0.6), (244, 206, 84))


def post(pen, dice):
    """A curtain, a tree or a post at one side."""
    colour, w = dice.colour((0.2, 0.6), (0.35, 0.85)), dice.between(0.1, 0.24)
    x = 0.0 if dice.chance(0.5) else 1 - w
    pen.solid(box(x, -0.02, w, 1.04), colour, shade=0.45, width=0.01)
    for fold in (x + w * share for share in (0.25, 0.55, 0.8)):
        pen.line([(fold, 0), (fold + dice.between(-0.01, 0.01), 1)], dark(colour, 0.3), width=0.012)


def flakes(pen, dice):
    """Snow, petals or bubbles in the air."""
    colour = light(dice.colour((0.1, 0.5), (0.8, 1.0)), 0.4)
    for _ in range(22):
        r = dice.between(0.006, 0.017)
        pen.shape(oval(dice.between(0, 1), dice.between(0, 1), r, dice.about(r, 0.3)), colour)


COVERS = (grass, ball, carton, fence, leaves, flowers, post, flakes)
