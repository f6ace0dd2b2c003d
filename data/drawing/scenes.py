"""Backgrounds, the same for every species; a scene's units are shares of the image's side."""

import numpy as np
from PIL import ImageFilter

from .colours import dark, light, mix
from .pen import box, fit, oval, rays, rotate, smooth

FRAME = (240, 234, 222)  # of a window


def room(pen, dice):
    """A room: wall, floor and two pieces of furniture."""
    wall, floor = dice.colour((0.1, 0.45), (0.55, 0.95)), dice.colour((0.2, 0.5), (0.35, 0.75))
    horizon = dice.between(0.58, 0.8)
    pen.gradient(0, horizon, light(wall, 0.2), wall)
    if dice.chance(0.4):
        for step in range(12):
            pen.shape(box(step / 11 - 0.02, 0, 0.03, horizon), mix(wall, dark(wall, 0.3), 0.4))
    pen.gradient(horizon, 1, floor, dark(floor, 0.3))
    pen.shape(box(0, horizon - 0.015, 1, 0.025), light(wall, 0.5))
    for _ in range(2):
        dice.choice((window, picture, shelf, lamp, sofa, plant))(pen, dice, horizon)


def window(pen, dice, horizon):
    """A window with sky."""
    x, y, w, h = dice.between(0.02, 0.7), dice.between(0.04, 0.15), dice.between(0.22, 0.36), dice.between(0.26, 0.4)
    pen.shape(box(x - 0.02, y - 0.02, w + 0.04, h + 0.04), FRAME)
    pen.shape(box(x, y, w, h), dice.colour((0.2, 0.5), (0.7, 1.0)))
    pen.line([(x + w / 2, y), (x + w / 2, y + h)], FRAME, width=0.016)
    pen.line([(x, y + h / 2), (x + w, y + h / 2)], FRAME, width=0.016)


def picture(pen, dice, horizon):
    """A framed picture."""
    x, y, s = dice.between(0.03, 0.75), dice.between(0.05, 0.25), dice.between(0.14, 0.22)
    pen.shape(box(x, y, s * 1.2, s), dice.colour((0.3, 0.7), (0.3, 0.6)))
    pen.shape(box(x + 0.02, y + 0.02, s * 1.2 - 0.04, s - 0.04), dice.colour())
    pen.shape(oval(x + s * 0.6, y + s * 0.55, s * 0.2, s * 0.2), dice.colour((0.4, 0.8)))


def shelf(pen, dice, horizon):
    """A shelf of books."""
    x, y = dice.between(0, 0.6), dice.between(0.12, 0.35)
    for book in range(8):
        height = dice.between(0.1, 0.16)
        pen.shape(box(x + book * 0.05, y - height, 0.042, height), dice.colour((0.3, 0.7), (0.4, 0.9)))
    pen.shape(box(x - 0.02, y, 0.44, 0.025), (126, 90, 62))


def lamp(pen, dice, horizon):
    """A standing lamp with its light."""
    x, shade = dice.choice((dice.between(0.05, 0.2), dice.between(0.8, 0.95))), dice.colour((0.3, 0.6), (0.7, 1.0))
    pen.glow(x, 0.25, rx=0.35, ry=0.35, fill=(255, 240, 190), strength=0.7)
    pen.line([(x, 0.25), (x, horizon + 0.08)], (70, 60, 58), width=0.014)
    pen.solid([(x - 0.06, 0.16), (x + 0.06, 0.16), (x + 0.11, 0.32), (x - 0.11, 0.32)], shade, shade=0.3, width=0.006)


def sofa(pen, dice, horizon):
    """A sofa across the room."""
    colour, x, w = dice.colour((0.3, 0.6), (0.4, 0.8)), dice.between(-0.2, 0.3), dice.between(0.7, 1.0)
    pen.solid(smooth(box(x, horizon - 0.22, w, 0.34), steps=4), colour, shade=0.3)
    pen.shape(box(x, horizon - 0.02, w, 0.14), light(colour, 0.15), edge=dark(colour), width=0.008)


def plant(pen, dice, horizon):
    """A plant in a pot."""
    x, y = dice.choice((dice.between(0.04, 0.2), dice.between(0.8, 0.96))), horizon + 0.05
    leaf = mix(dice.colour((0.4, 0.7), (0.4, 0.7)), (70, 130, 70), 0.7)
    for lean in (-50, -25, 0, 25, 50):
        blade = rotate(oval(0, -0.2, 0.035, 0.17), lean + dice.between(-8, 8)) + (x, y - 0.04)
        pen.solid(blade, leaf, shade=0.3, width=0.005)
    pot = [(x - 0.08, y - 0.08), (x + 0.08, y - 0.08), (x + 0.06, y + 0.08), (x - 0.06, y + 0.08)]
    pen.solid(pot, dice.colour((0.4, 0.7), (0.5, 0.9)), shade=0.3, width=0.006)


def meadow(pen, dice):
    """Sky, clouds, hills, trees and flowers."""
    horizon = dice.between(0.5, 0.7)
    sky = mix(dice.colour((0.2, 0.5), (0.7, 1.0)), (150, 200, 240), 0.4)
    pen.gradient(0, horizon + 0.1, sky, light(sky, 0.6))
    for _ in range(3):
        x, y = dice.between(0, 1), dice.between(0.04, 0.3)
        for dx, dy in ((-0.07, 0), (0, -0.02), (0.07, 0)):
            pen.shape(oval(x + dx, y + dy, 0.07, 0.045), light(sky, 0.75))
    ground = mix(dice.colour((0.3, 0.6), (0.4, 0.8)), (110, 160, 80), 0.6)
    pen.shape(oval(dice.between(0, 1), horizon + 0.12, 0.7, 0.22), mix(ground, sky, 0.4))
    for _ in range(dice.choice((1, 2, 4))):
        tree(pen, dice, x=dice.between(0, 1), y=horizon + 0.04, leaf=dark(ground, 0.2))
    pen.gradient(horizon, 1, ground, dark(ground, 0.25))
    for _ in range(24):
        x, y = dice.between(0, 1), dice.between(horizon + 0.03, 1)
        pen.shape(oval(x, y, 0.012, 0.01), dice.colour((0.3, 0.8), (0.8, 1.0)))


def tree(pen, dice, *, x, y, leaf):
    """A round or a pointed tree that stands at (x, y)."""
    h, leaf = dice.between(0.16, 0.4), mix(leaf, dice.colour(), 0.2)
    pen.shape(box(x - 0.015, y - h * 0.4, 0.03, h * 0.4), (104, 76, 56))
    if dice.chance(0.5):
        pen.solid(oval(x, y - h * 0.7, h * 0.4, h * 0.42), leaf, shade=0.25, width=0.006)
        return
    for step in range(3):
        top, w = y - h * (1.1 - step * 0.25), h * (0.2 + 0.1 * step)
        pen.shape([(x, top), (x + w, top + h * 0.42), (x - w, top + h * 0.42)], mix(leaf, (40, 90, 70), 0.3))


def wallpaper(pen, dice):
    """A paper backdrop: stripes, dots or tiles."""
    first, kind = dice.colour((0.1, 0.45), (0.5, 0.95)), dice.choice(("stripes", "dots", "tiles"))
    second = mix(first, dice.colour(), dice.between(0.25, 0.7))
    pen.gradient(0, 1, light(first, 0.15), dark(first, 0.15))
    count = int(dice.between(4, 9))
    if kind == "stripes":
        lean, half = dice.between(-0.5, 0.5), 0.5 / count
        for x in (step / count for step in range(-count, 2 * count)):
            pen.shape([(x, 0), (x + half, 0), (x + half + lean, 1), (x + lean, 1)], second)
        return
    for row in range(count + 1):
        for column in range(count + 1):
            y = row / count
            if kind == "dots":
                pen.shape(oval((column + 0.5 * (row % 2)) / count, y, 0.22 / count, 0.22 / count), second)
            elif (row + column) % 2:
                pen.shape(box(column / count, y, 1 / count, 1 / count), second)


def clutter(pen, dice):
    """Soft shapes of many colours, as out of focus."""
    pen.gradient(0, 1, dice.colour(), dice.colour((0.2, 0.5), (0.3, 0.7)))
    for _ in range(16):
        x, y, r = dice.between(0, 1), dice.between(0, 1), dice.between(0.06, 0.2)
        turns = np.linspace(0, 2 * np.pi, int(dice.between(3, 7)), endpoint=False) + dice.between(0, 6)
        points = fit(rays(turns), x, y, width=r, height=r)
        pen.shape(smooth(points) if dice.chance(0.5) else points, dice.colour((0.2, 0.6), (0.35, 0.95)))
    pen.image.paste(pen.image.filter(ImageFilter.BoxBlur(dice.between(1, 5))))


def seaside(pen, dice):
    """Sky, sun, sea and sand, or the same shapes in snow."""
    sky, water = dice.colour((0.15, 0.55), (0.7, 1.0)), mix(dice.colour(), (80, 150, 190), 0.5)
    sand = mix(dice.colour((0.1, 0.3), (0.7, 1.0)), (232, 208, 160), 0.5)
    pen.gradient(0, 0.5, sky, light(sky, 0.6))
    pen.shape(oval(dice.between(0.1, 0.9), dice.between(0.1, 0.3), 0.08, 0.08), (255, 238, 170))
    pen.gradient(0.42, 0.7, dark(water, 0.15), light(water, 0.3))
    for _ in range(7):
        x, y = dice.between(0, 1), dice.between(0.46, 0.66)
        pen.curve([(x, y), (x + 0.06, y - 0.015), (x + 0.12, y)], light(water, 0.6), width=0.01)
    pen.gradient(0.66, 1, sand, dark(sand, 0.2))
    if dice.chance(0.5):
        x, sail = dice.between(0.1, 0.9), dice.colour((0.4, 0.8), (0.7, 1.0))
        pen.shape([(x, 0.24), (x + 0.11, 0.42), (x, 0.42)], sail)
        pen.shape([(x - 0.07, 0.44), (x + 0.12, 0.44), (x + 0.08, 0.49), (x - 0.03, 0.49)], (120, 76, 56))


SCENES = (room, room, meadow, meadow, wallpaper, clutter, seaside)  # room and meadow twice as often
