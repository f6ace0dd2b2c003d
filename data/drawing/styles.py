"""The same image in another style, for a harder task: what a network learned from colours no longer helps it."""

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from .dice import Dice


def restyle(image, style, seed):
    """The image as a "pencil" drawing, at "night" or as an "x-ray"; the same `seed` gives the same image."""
    if style not in STYLES:
        raise ValueError(f"There is no style {style!r}; choose one of {', '.join(STYLES)}.")
    dice = Dice(style, seed)
    unit = min(image.size) / 96  # so that lines and blur grow with the image
    pixels = STYLES[style](image.convert("RGB"), dice, unit)
    # RandomState's stream is frozen by numpy's policy, so the noise is the same in every version.
    noise = np.random.RandomState(int(dice.between(0, 2**31))).standard_normal(pixels.shape)
    return Image.fromarray((pixels + noise * dice.between(4, 9)).clip(0, 255).round().astype(np.uint8))


def pencil(image, dice, unit):
    """Lines and hatching in graphite, on paper."""
    tones, around = blurred(image, 0.5 * unit), blurred(image, dice.between(2.0, 3.0) * unit)
    # "Colour dodge": what is as bright as its surroundings becomes paper, what is darker stays a line.
    lines = np.clip(tones / around, 0, 1) ** dice.between(1.5, 2.5)
    x, y = coordinates(image)
    angle, pitch = dice.between(0.5, 1.1), dice.between(2.0, 2.4) / unit
    strokes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * pitch) > 0
    hatched = lines * (1 - 0.35 * (1 - around / 255) * strokes)
    return (50, 50, 54) + hatched[..., None] * (198, 194, 178)


def night(image, dice, unit):
    """Little light, and blue: the moon shines at one place."""
    x, y = coordinates(image) / (96 * unit)
    distance = np.hypot(x - dice.between(0.3, 0.7), y - dice.between(0.3, 0.6))
    moon = 0.25 + dice.between(0.35, 0.5) * np.exp(-((distance / 0.5) ** 2))
    faint = 0.7 * blurred(image, 0)[..., None] + 0.3 * np.asarray(image, dtype=float)
    return faint * moon[..., None] * (0.5, 0.75, 1.25)


def x_ray(image, dice, unit):
    """Inverted and pale, with outlines that glow."""
    soft, around = blurred(image, 0.7 * unit), blurred(image, dice.between(2.5, 3.5) * unit)
    light = 0.5 * (255 - soft) + dice.between(2.2, 3.2) * np.abs(soft - around)
    return light[..., None] * (0.82, 0.95, 1.05)


STYLES = {"pencil": pencil, "night": night, "x-ray": x_ray}


def blurred(image, radius):
    """The image in grey, from black to white, and blurred: an array (height, width) of 1 to 255."""
    grey = ImageOps.autocontrast(image.convert("L"), cutoff=1)
    return np.maximum(np.asarray(grey.filter(ImageFilter.GaussianBlur(radius)), dtype=float), 1)


def coordinates(image):
    """The x and the y of each pixel, an array (2, height, width)."""
    return np.mgrid[: image.height, : image.width][::-1]
