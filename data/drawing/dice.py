"""Chance: the same seeds give the same choices on every machine."""

import random


class Dice:
    """Random choices that repeat for the same seeds on every machine (only `random()` is promised to be stable)."""

    def __init__(self, name, seed):
        seeds = seed if isinstance(seed, tuple) else (seed,)
        self._random = random.Random("/".join(map(str, (name, *seeds)))).random

    def between(self, low, high):
        """A number between low and high."""
        return low + (high - low) * self._random()

    def chance(self, probability):
        """True with this probability."""
        return self._random() < probability

    def choice(self, options):
        """One of the options."""
        return options[int(self._random() * len(options))]

    def about(self, value, spread=0.1):
        """The value, changed by up to the share `spread`."""
        return value * self.between(1 - spread, 1 + spread)

    def colour(self, saturation=(0.15, 0.55), value=(0.5, 0.95)):
        """A colour of any hue."""
        hue, s, v = self.between(0, 6), self.between(*saturation), self.between(*value)
        return tuple(round(255 * v * (1 - s * max(0, min(1, 2 - abs((hue + k) % 6 - 3))))) for k in (3, 1, 5))
