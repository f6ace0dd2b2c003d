"""Noses, one function for each kind; `x` is the side to which the face is turned."""

from .colours import dark, light, mix
from .pen import SIDES, fit, oval, smooth


def triangle(pen, look, x):
    """A small triangle, point down."""
    points = [(-1, -0.4), (0, -0.55), (1, -0.4), (0, 0.8)]
    pen.solid(smooth(place(points, look, x), steps=4), look.skin, width=0.025)


def broad(pen, look, x):
    """A broad nose with a shine and nostrils."""
    w, y, fill = look.shape.nose_width, look.shape.nose_y, dark(look.skin, 0.55)
    points = [(-1, -0.15), (-0.5, -0.6), (0.5, -0.6), (1, -0.15), (0.5, 0.5), (0, 0.75), (-0.5, 0.5)]
    pen.solid(smooth(place(points, look, x)), fill, width=0.025)
    pen.shape(oval(x - 0.2 * w, y - 0.3 * w, 0.34 * w, 0.14 * w), light(fill, 0.55))


def heart(pen, look, x):
    """A tiny pink heart."""
    points = [(-1, -0.3), (0, -0.2), (1, -0.3), (0, 0.8)]
    pen.shape(smooth(place(points, look, x), steps=4), mix(look.skin, (230, 140, 146), 0.5))


def ball(pen, look, x):
    """A tall, round nose, as a koala's."""
    w, y, fill = look.shape.nose_width, look.shape.nose_y, dark(look.skin, 0.4)
    pen.solid(oval(x, y, w, 1.5 * w), fill, shade=0.4, width=0.035)
    pen.shape(oval(x - 0.3 * w, y - 0.7 * w, 0.2 * w, 0.4 * w), light(fill, 0.5))


def slits(pen, look, x):
    """Two nostrils, as a cow's."""
    w, y = look.shape.nose_width, look.shape.nose_y
    for side in SIDES:
        pen.shape(oval(x + side * w, y, 0.3 * w, 0.2 * w, side * 30), dark(look.skin, 0.6))


NOSES = {"triangle": triangle, "oval": broad, "heart": heart, "ball": ball, "slits": slits}


def place(points, look, x):
    """The points in units of the nose's half width, moved to its place."""
    return fit(points, x, look.shape.nose_y, width=look.shape.nose_width, height=look.shape.nose_width)
