"""Colours of fur and eyes, and how to mix them. A colour is (red, green, blue), each 0 to 255."""

# Fur, second colour, light parts.
COATS = {
    "ginger": ((214, 132, 62), (168, 88, 36), (250, 232, 206)),
    "cream": ((236, 208, 164), (196, 152, 100), (253, 244, 226)),
    "brown": ((142, 94, 60), (88, 56, 36), (222, 190, 152)),
    "chocolate": ((98, 64, 46), (58, 38, 30), (196, 152, 116)),
    "black": ((62, 58, 64), (32, 30, 36), (206, 200, 196)),
    "grey": ((146, 148, 156), (88, 90, 100), (236, 236, 236)),
    "blue": ((112, 126, 146), (72, 82, 102), (212, 220, 230)),
    "white": ((242, 238, 230), (190, 176, 160), (255, 254, 250)),
    "fawn": ((206, 168, 122), (132, 96, 66), (246, 230, 204)),
    "golden": ((228, 176, 92), (182, 124, 54), (252, 236, 194)),
    "rust": ((184, 92, 52), (122, 52, 32), (246, 220, 190)),
    "pink": ((240, 178, 172), (206, 130, 132), (252, 218, 208)),
}
COMMON_COATS = tuple(name for name in COATS if name != "pink")
EYES = ((132, 178, 84), (222, 180, 62), (98, 164, 208), (196, 118, 48), (120, 78, 46), (86, 148, 124))
SKINS = ((228, 150, 146), (74, 52, 54), (44, 38, 42), (150, 96, 84))


def mix(first, second, share):
    """The colour between two: share 0 gives the first, 1 the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def dark(colour, share=0.3):
    """A darker, slightly warm shade of the colour."""
    return mix(colour, (24, 16, 18), share)


def light(colour, share=0.3):
    """A lighter tint of the colour."""
    return mix(colour, (255, 252, 244), share)
