"""One individual: what the dice make of a species."""

from dataclasses import dataclass, replace

from .coats import PATTERNS
from .colours import COATS, COMMON_COATS, EYES, SKINS, dark, mix
from .species import Species


@dataclass(frozen=True)
class Look:
    """What is true of one individual: its shape, colours, pose and mood."""

    shape: Species
    fur: tuple
    second: tuple
    pale: tuple
    iris: tuple
    skin: tuple
    pattern: str
    pose: str
    turn: float  # how far the face looks to the side, in head units
    gaze: tuple
    mood: str  # "awake", "sleepy" or "asleep"
    tongue: bool
    ear_swing: float

    @property
    def edge(self):
        """The colour of the outlines."""
        return dark(mix(self.fur, self.second, 0.5), 0.5)

    @property
    def ear_fur(self):
        """The colour of the ears' backs."""
        dark_ears = self.pattern in ("points", "cap") or "panda" in self.shape.marks
        return self.second if dark_ears else self.fur


def choose_look(species, dice):
    """Roll one individual of the species."""
    shape = vary(dice.choice(species.breeds) if species.breeds else species, dice)
    # A third of the animals wear any coat, so that colour alone never names the species.
    coats = shape.coats if shape.coats and dice.chance(0.67) else COMMON_COATS
    fur, second, pale = (mix(c, dice.colour(), 0.08) for c in COATS[dice.choice(coats)])
    patterns = (dice.chance(0.75) and shape.patterns) or tuple(PATTERNS)
    return Look(
        shape=shape,
        fur=fur,
        second=second,
        pale=pale,
        iris=mix(dice.choice(EYES), dice.colour(), 0.15),
        skin=mix(dice.choice(SKINS), fur, 0.1),
        pattern=dice.choice(patterns),
        pose=dice.choice(("bust", "bust", "sit", "loaf")),
        turn=dice.between(-0.26, 0.26),
        gaze=(dice.between(-0.25, 0.25), dice.between(-0.15, 0.2)),
        mood=dice.choice(("awake",) * 7 + ("sleepy",) * 2 + ("asleep",)),
        tongue=dice.chance(shape.tongue),
        ear_swing=dice.between(-10, 10),
    )


def vary(shape, dice):
    """The species' shape with every length changed a little."""
    lengths = {name: dice.about(value, 0.1) for name, value in vars(shape).items() if isinstance(value, float)}
    lengths["ear_tilt"] = shape.ear_tilt + dice.between(-7, 7)
    return replace(shape, **lengths)
