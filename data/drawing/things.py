"""Small things that lie around the animal: they have points, rounds and lines as ears, noses and whiskers have."""

import math

import numpy as np

from .colours import dark, light
from .pen import box, fit, oval, rays, rotate, smooth


def scatter_things(pen, dice):
    """Put a few small things around."""
    for _ in range(int(dice.between(1, 5))):
        dice.choice(THINGS)(pen, dice, dice.between(0, 1), dice.between(0.05, 0.95))


def bunting(pen, dice, x, y):
    """A string of flags."""
    y, drop, size = y * 0.6, dice.between(-0.1, 0.15), dice.between(0.06, 0.12)
    string = smooth([(x - 0.4, y), (x, y + abs(drop)), (x + 0.4, y + drop)], closed=False, steps=4)
    pen.line(string, (90, 80, 80), width=0.007)
    for px, py in string:
        flag, down = dice.colour((0.3, 0.8), (0.4, 1.0)), dice.choice((1.2, 1.2, -1.2))
        pen.solid([(px - size / 2, py), (px + size / 2, py), (px, py + size * down)], flag)


def balloons(pen, dice, x, y):
    """Balloons on strings."""
    for _ in range(2):
        bx, by = x + dice.between(-0.1, 0.1), y * 0.5 + dice.between(-0.05, 0.05)
        r, colour = dice.between(0.04, 0.08), dice.colour((0.4, 0.8))
        pen.curve([(bx, by), (bx + 0.02, by + 2 * r), (x, by + 4 * r)], (80, 74, 80), width=0.007)
        pen.solid(oval(bx, by, r, r * 1.25), colour, shade=0.45)
        pen.shape(oval(bx - r * 0.3, by - r * 0.4, r * 0.2, r * 0.3), light(colour, 0.7))


def stones(pen, dice, x, y):
    """Pebbles with a shine."""
    for _ in range(3):
        sx, sy = x + dice.between(-0.1, 0.1), y + dice.between(-0.05, 0.05)
        r, tone = dice.between(0.015, 0.05), dice.colour((0.0, 0.3), (0.15, 0.7))
        pen.solid(oval(sx, sy, r, r * 0.75), tone, width=0.007)
        pen.shape(oval(sx - r * 0.2, sy - r * 0.3, r * 0.3, r * 0.15), light(tone, 0.6))


def star(pen, dice, x, y):
    """A paper star or a many-pointed leaf."""
    count, r, colour = int(dice.between(4, 8)), dice.between(0.04, 0.09), dice.colour((0.3, 0.8), (0.4, 1.0))
    turns = np.arange(2 * count) * np.pi / count + dice.between(0, 3)
    radius = np.where(np.arange(2 * count) % 2, 0.45, 1.0) * r
    pen.solid(rays(turns) * radius[:, None] + (x, y), colour)


def heart(pen, dice, x, y):
    """A heart, any way up."""
    r, colour = dice.between(0.03, 0.07), dice.colour((0.4, 0.8), (0.3, 1.0))
    points = smooth(np.array([(0, -0.45), (0.5, -0.9), (1, -0.4), (0, 1), (-1, -0.4), (-0.5, -0.9)]) * r)
    pen.solid(rotate(points, dice.between(-180, 180)) + (x, y), colour)


def twigs(pen, dice, x, y):
    """Thin twigs or straws, pale or dark."""
    tone = dice.choice(((246, 240, 230), (70, 54, 46)))
    for _ in range(4):
        angle, length = dice.between(0, 2 * math.pi), dice.between(0.06, 0.16)
        pen.line([(x, y), (x + math.cos(angle) * length, y + math.sin(angle) * length)], tone, width=0.007)


def mushroom(pen, dice, x, y):
    """A toadstool with spots."""
    r, colour = dice.between(0.05, 0.09), dice.colour((0.4, 0.8), (0.4, 0.95))
    pen.shape(box(x - r * 0.3, y, r * 0.6, r * 1.2), (240, 228, 206), edge=(150, 132, 112), width=0.007)
    cap = fit([(-1, 0.1), (-0.5, -0.8), (0.5, -0.8), (1, 0.1)], x, y, width=r, height=r)
    pen.solid(smooth(cap), colour)
    for dx, dy in ((-0.4, -0.3), (0.1, -0.55), (0.45, -0.2)):
        pen.shape(oval(x + dx * r, y + dy * r, r * 0.15, r * 0.13), (250, 246, 236))


def butterfly(pen, dice, x, y):
    """A butterfly."""
    r, wing = dice.between(0.03, 0.06), dice.colour((0.4, 0.9), (0.5, 1.0))
    edge = dark(wing, 0.5)
    for side in (-1, 1):
        fore = oval(x + side * r * 0.7, y - r * 0.4, r * 0.75, r * 0.6, side * -35)
        hind = oval(x + side * r * 0.55, y + r * 0.5, r * 0.5, r * 0.45)
        pen.shape(fore, wing, edge=edge, width=0.006)
        pen.shape(hind, light(wing, 0.3), edge=edge, width=0.006)
    pen.line([(x, y - r), (x, y + r)], (50, 40, 44), width=0.012)


THINGS = (bunting, balloons, stones, star, heart, twigs, mushroom, butterfly)
