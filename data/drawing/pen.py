"""Outlines as arrays (n, 2) of x and y, which points down, and the pen that draws them."""

import math
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageDraw

from .colours import dark

SIDES = (-1, 1)  # left and right
SOFT_DISC = Image.radial_gradient("L").resize((48, 48)).point(lambda distance: max(0, 255 - distance * 2))


def smooth(points, closed=True, steps=6):
    """A Catmull-Rom curve through the points."""
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
    """An ellipse, turned by `angle` degrees."""
    return CIRCLE @ (turn_matrix(angle) * ((rx,), (ry,))) + (x, y)


def box(x, y, width, height):
    """A box whose upper left corner is (x, y)."""
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def rays(turns):
    """Points on a circle of radius 1 around (0, 0), one for each angle of the array `turns`, in radians."""
    return np.stack([np.cos(turns), np.sin(turns)], axis=1)


CIRCLE = rays(np.arange(28) * np.pi / 14)


def fit(points, x, y, *, width, height):
    """The points stretched by width and height, then moved to (x, y)."""
    return np.array(points) * (width, height) + (x, y)


def rotate(points, angle):
    """The points turned about (0, 0) by `angle` degrees, clockwise on the image."""
    return np.asarray(points, dtype=float) @ turn_matrix(angle)


def turn_matrix(angle):
    """The matrix that turns row vectors by `angle` degrees."""
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return np.array([[cos, sin], [-sin, cos]])


def mirror(points, side=-1):
    """The points mirrored for the left side (-1), or as they are (1)."""
    return np.asarray(points, dtype=float) * (side, 1)


def both_sides(points):
    """The points mirrored for the left side, and as they are for the right."""
    return [mirror(points, side) for side in SIDES]


def whole(half):
    """The outline whose right half is given, from the top to a point in the middle."""
    return np.concatenate([half, mirror(half[-2::-1])])


def ragged(points, dice, *, fluff):
    """The outline with tufts of fur: every other point is pushed outwards from the middle."""
    points = np.asarray(points, dtype=float)
    push = np.array([dice.between(0.3, 1.0) if i % 2 else dice.between(-0.3, 0.1) for i in range(len(points))])
    return points * (1 + fluff * push)[:, None]


class Pen:
    """Draws on an image in units of `scale` pixels, by default its width, from `centre`, turned by `angle` degrees."""

    def __init__(self, image, *, centre=(0, 0), scale=None, angle=0.0):
        self.image, self.centre, self.scale, self.angle = image, centre, scale or image.width, angle
        self.draw = ImageDraw.Draw(image)
        self.matrix = turn_matrix(angle) * self.scale

    def pixels(self, points):
        """The points in pixels, as a list of tuples."""
        return list(map(tuple, (np.asarray(points) @ self.matrix + self.centre).tolist()))

    def shape(self, points, fill, *, edge=None, width=0.035):
        """Fill an outline and draw its edge."""
        corners = self.pixels(points)
        self.draw.polygon(corners, fill=fill)
        if edge is not None:
            self.draw.line([*corners, *corners[:2]], fill=edge, width=self.thickness(width), joint="curve")

    def solid(self, points, fill, *, shade=0.5, width=0.008):
        """Fill an outline and draw its edge in a darker shade."""
        self.shape(points, fill, edge=dark(fill, shade), width=width)

    def line(self, points, fill, *, width=0.03):
        """Draw straight lines from point to point."""
        self.draw.line(self.pixels(points), fill=fill, width=self.thickness(width), joint="curve")

    def curve(self, points, fill, *, width=0.03):
        """Draw a smooth line through the points."""
        self.line(smooth(points, closed=False), fill, width=width)

    def thickness(self, width):
        """A line's width in pixels, at least one."""
        return max(1, round(width * self.scale))

    def glow(self, x, y, *, rx, ry, fill, strength=0.6):
        """Add a soft round patch of colour, strongest in its middle."""
        ((px, py),) = self.pixels([(x, y)])
        size = (max(2, round(2 * rx * self.scale)), max(2, round(2 * ry * self.scale)))
        alpha = SOFT_DISC.point(lambda value: value * strength).resize(size, Image.Resampling.BILINEAR)
        self.image.paste(fill, (round(px - size[0] / 2), round(py - size[1] / 2)), alpha)

    def gradient(self, top, bottom, first, second):
        """Fill the image's whole width, from the height `top` to `bottom`, with colours from first to second."""
        upper, lower = round(top * self.scale), round(bottom * self.scale)
        size = (self.image.width, max(1, lower - upper))
        alpha = Image.linear_gradient("L").resize(size)
        colours = [Image.new("RGB", size, colour) for colour in (second, first)]
        self.image.paste(Image.composite(*colours, alpha), (0, upper))

    @contextmanager
    def inside(self, outline):
        """A pen whose strokes are cut off at the outline."""
        layer = self.image.copy()
        yield Pen(layer, centre=self.centre, scale=self.scale, angle=self.angle)
        mask = Image.new("L", layer.size)
        ImageDraw.Draw(mask).polygon(self.pixels(outline), fill=255)
        self.image.paste(layer, mask=mask)
