"""Muzzles, one function for each kind; `x` is the side to which the face is turned."""

import numpy as np

from .colours import dark, light, mix
from .pen import SIDES, fit, oval, smooth


def puffs(pen, look, x):
    """Two round whisker pads and a small chin."""
    fur, (w, h, y) = muzzle_colour(look), measures(look)
    pen.glow(x, y, rx=w * 2.2, ry=h * 2.4, fill=fur, strength=0.9)
    pen.solid(oval(x, y + h * 0.85, w * 0.5, h * 0.55), fur, shade=0.25, width=0.025)
    if look.tongue:
        draw_tongue(pen, x, y + h * 0.8, size=w * 0.6)
    for side in SIDES:
        pen.shape(oval(x + side * w * 0.5, y, w * 0.56, h, side * -12), light(fur, 0.15))
    draw_mouth(pen, look, x=x, spread=w * 0.8)


def long(pen, look, x):
    """A muzzle that comes towards the viewer: a bridge from the brow and a broad, rounded end."""
    fur, (w, h, y) = muzzle_colour(look), measures(look)
    if look.tongue:
        draw_tongue(pen, x, y + h * 0.75, size=w * 0.62)
    right = [(0.45 * w, look.shape.eye_y + 0.1), (0.62 * w, y - h * 0.75), (w, y), (0.86 * w, y + h * 0.6),
             (0.4 * w, y + h)]  # fmt: skip
    around = right + [(-px, py) for px, py in right[::-1]]
    outline = smooth([(px + x * min(1.0, max(0.5, py / y)), py) for px, py in around])
    pen.shape(outline, fur, edge=mix(fur, look.edge, 0.45), width=0.028)
    with pen.inside(outline) as inner:
        inner.glow(x, y + h, rx=w * 1.3, ry=h * 0.7, fill=dark(fur, 0.5), strength=0.5)
        inner.glow(x * 0.8, y - h, rx=w * 0.5, ry=h, fill=light(fur, 0.5), strength=0.6)
    draw_mouth(pen, look, x=x, spread=w * 0.72)


def broad(pen, look, x):
    """A wide, heavy muzzle."""
    fur, (w, h, y) = mix(muzzle_colour(look), (226, 176, 164), 0.35), measures(look)
    points = [(-1, 0), (-0.7, -0.8), (0, -0.9), (0.7, -0.8), (1, 0), (0.66, 0.85), (0, 1), (-0.66, 0.85)]
    outline = smooth(fit(points, x, y, width=w, height=h))
    pen.shape(outline, fur, edge=mix(fur, look.edge, 0.5))
    with pen.inside(outline) as inner:
        inner.glow(x, y + h, rx=w, ry=h * 0.8, fill=dark(fur, 0.5), strength=0.4)
    pen.curve(fit([(-0.6, 0.3), (0, 0.5), (0.6, 0.3)], x, y, width=w, height=h), look.edge, width=0.04)


def snout(pen, look, x):
    """A flat disc with two nostrils, and a smile below."""
    fur, (w, h, y) = mix(look.fur, (226, 140, 134), 0.5), measures(look)
    pen.curve(fit([(-0.8, 1.1), (0, 1.55), (0.8, 1.1)], x, y, width=w, height=h), look.edge, width=0.04)
    pen.solid(oval(x, y, w, h), fur, shade=0.4, width=0.035)
    for side in SIDES:
        pen.shape(oval(x + side * w * 0.36, y, w * 0.14, h * 0.34), dark(fur, 0.65))


def beak(pen, look, x):
    """A hooked beak."""
    w, h, y = measures(look)
    points = [(-1, -0.3), (0, -0.6), (1, -0.3), (0.3, 0.6), (0, 1)]
    pen.solid(smooth(fit(points, x, y, width=w, height=h)), mix((232, 172, 72), look.fur, 0.15), width=0.035)


def trunk(pen, look, x):
    """A trunk with wrinkles that swings to the side."""
    (w, _, y), swing = measures(look), 0.4 if x > 0 else -0.4
    spine = smooth([(x * 0.6, y - 0.5), (x, y + 0.1), (x + swing * 0.4, y + 0.7), (x + swing, y + 1.1)], closed=False)
    widths = np.linspace(1.1, 0.6, len(spine)) * w
    across = np.stack([widths, 0 * widths], axis=1)
    pen.shape(np.concatenate([spine + across, (spine - across)[::-1]]), light(look.fur, 0.08), edge=look.edge)
    for (px, py), half in list(zip(spine, widths, strict=True))[4::3]:
        pen.line([(px - half * 0.7, py), (px + half * 0.7, py + 0.03)], dark(look.fur, 0.3))


def mouth_only(pen, look, x):
    """No muzzle, only a mouth."""
    draw_mouth(pen, look, x=x, spread=0.2)


MUZZLES = {"puffs": puffs, "long": long, "broad": broad, "snout": snout, "beak": beak, "trunk": trunk,
           "none": mouth_only}  # fmt: skip


def measures(look):
    """Half width and half height of the muzzle, and the height of its middle."""
    return look.shape.muzzle_width, look.shape.muzzle_height, look.shape.muzzle_y


def muzzle_colour(look):
    """The colour of the muzzle, which the coat's pattern decides."""
    if look.pattern == "points":
        return mix(look.fur, look.second, 0.75)
    return look.pale if look.pattern in ("bicolour", "cap") else mix(look.fur, look.pale, 0.6)


def draw_mouth(pen, look, *, x, spread):
    """Draw the line under the nose and the two curves of the lips."""
    shape = look.shape
    y = shape.muzzle_y + shape.muzzle_height * 0.42
    pen.line([(x * 1.1, shape.nose_y + 0.05), (x, y)], look.edge, width=0.035)
    for side in SIDES:
        lip = [(x, y), (x + side * spread * 0.5, y + 0.1), (x + side * spread, y - 0.02)]
        pen.curve(lip, look.edge, width=0.04)


def draw_tongue(pen, x, y, *, size):
    """Draw an open mouth and a tongue."""
    pen.shape(oval(x, y, size * 0.9, size * 0.8), (112, 44, 52), edge=(70, 30, 36))
    pen.shape(oval(x, y + size * 0.5, size * 0.55, size * 0.72), (232, 124, 130), edge=(178, 82, 92), width=0.025)
