"""Coats: the pattern on head and body, and the hairs over it."""

from .colours import dark, light
from .pen import SIDES, both_sides, mirror, oval, ragged, smooth


def paint_coat(pen, dice, look, *, part):
    """Paint pattern and hairs; the pen is already cut off at the part's outline."""
    PATTERNS[look.pattern](pen, dice, look, part)
    for _ in range(70):
        x, y = dice.between(-1.6, 1.6), dice.between(*((0.3, 3.3) if part == "body" else (-1.0, 1.0)))
        tone = dark(look.fur, 0.22) if dice.chance(0.5) else light(look.fur, 0.3)
        pen.line([(x, y), (x + 0.1 * x, y + dice.between(0.08, 0.2))], tone, width=0.02)


def plain(pen, dice, look, part):
    """One colour, a little paler below."""
    y, ry = (2.0, 1.4) if part == "body" else (0.8, 0.6)
    pen.glow(0, y, rx=0.8, ry=ry, fill=look.pale, strength=0.5)


def tabby(pen, dice, look, part):
    """Stripes: on brow and cheeks, or around the body."""
    plain(pen, dice, look, part)
    if part == "body":
        for step in range(6):
            y = 0.9 + step * 0.42 + dice.between(-0.08, 0.08)
            for stripe in both_sides([(2.4, y - 0.1), (1.2, y + 0.15), (0.6, y)]):
                pen.curve(stripe, look.second, width=0.13)
        return
    for x, y in ((-0.34, -0.42), (-0.12, -0.52), (0.12, -0.52), (0.34, -0.42)):
        pen.line([(x * 1.3, -1.0), (x, y)], look.second, width=0.09)
    for side in SIDES:
        for y in (0.08, 0.3, 0.52):
            pen.line([(side * 1.3, y + 0.05), (side * dice.between(0.58, 0.72), y)], look.second, width=0.08)


def patches(pen, dice, look, part):
    """A few large patches."""
    count, heights = (5, (0.8, 3.2)) if part == "body" else (3, (-0.9, 0.6))
    for _ in range(count):
        x, y, r = dice.between(-1.2, 1.2), dice.between(*heights), dice.between(0.28, 0.6)
        patch = ragged(oval(0, 0, r, dice.about(r, 0.3)), dice, fluff=0.12)
        pen.shape(patch + (x, y), dice.choice((look.second, look.second, look.pale)))


def spots(pen, dice, look, part):
    """Many small spots."""
    plain(pen, dice, look, part)
    for _ in range(34):
        x, y = dice.between(-1.4, 1.4), dice.between(*((0.5, 3.3) if part == "body" else (-0.9, 0.8)))
        r = dice.between(0.05, 0.11)
        pen.shape(oval(x, y, r, r * 0.8), look.second)


def bicolour(pen, dice, look, part):
    """A white blaze, or a white chest."""
    if part == "body":
        pen.shape(oval(0, 1.5, dice.between(0.4, 0.7), dice.between(0.9, 1.5)), look.pale)
        return
    top, base = dice.between(0.04, 0.16), dice.between(0.5, 0.9)
    right = [(top, -0.9), (top * 1.6, -0.1), (base, 0.5), (base, 1.1)]
    pen.shape(smooth([(-top, -0.9), *right, *((-x, y) for x, y in right[:0:-1])]), look.pale)


def points(pen, dice, look, part):
    """A dark face; ears, paws and tail are dark as well."""
    if part == "head":
        pen.glow(look.turn, 0.2, rx=1.0, ry=0.95, fill=look.second, strength=0.95)


def brindle(pen, dice, look, part):
    """Thin, uneven stripes all over."""
    for _ in range(26):
        x, y = dice.between(-1.4, 1.4), dice.between(*((0.4, 3.2) if part == "body" else (-0.9, 0.9)))
        pen.line([(x, y), (x + dice.between(0.1, 0.3), y + dice.between(-0.1, 0.25))], look.second, width=0.055)


def cap(pen, dice, look, part):
    """A dark cap or back, with pale brow spots, cheeks and chest."""
    if part == "body":
        pen.glow(0, 1.6, rx=0.9, ry=1.6, fill=look.pale, strength=1.0)
        return
    shape, y = look.shape, look.shape.eye_y
    half = [(0.08, -0.95), (0.14, y - 0.1), (0.6, y + 0.3), (1.4, y + 0.3), (1.3, -1.0)]
    for side in SIDES:
        pen.shape(smooth(mirror(half, side)), look.second)
        x = side * shape.eye_gap * 0.85 + look.turn * 0.5
        pen.shape(oval(x, y - shape.eye_size - 0.12, 0.12, 0.08), look.pale)
    pen.glow(0, 0.6, rx=1.2, ry=0.6, fill=look.pale, strength=0.9)


PATTERNS = {"plain": plain, "tabby": tabby, "patches": patches, "spots": spots, "bicolour": bicolour,
            "points": points, "brindle": brindle, "cap": cap}  # fmt: skip
