"""Measure how many strange images a run refuses, and write `results/`.

python -m benchmarks.refusal --data sample
python -m benchmarks.refusal --data photos --backbone squeezenet1_1 --weights FILE
python -m benchmarks.refusal --table        only write the table anew from the JSON files

Two scores: the run's strangeness, and as the baseline how far the highest probability is below 1. The threshold of each
refuses at most 5 % of the validation images; no strange image has a part in it. Each is then compared with the test
images. The strange images are drawn here: what a run refuses of others, they cannot tell.
"""

import json
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from helpers.data import Splits, load_image, load_splits
from helpers.drawing import PRETRAINING, SIZE, draw_animal
from helpers.drawing.animal import SUPERSAMPLE, add_light
from helpers.drawing.dice import Dice
from helpers.drawing.pen import Pen
from helpers.drawing.scenes import SCENES
from helpers.drawing.things import scatter_things
from helpers.evaluating import wilson
from helpers.runs import Run, ask, train_transfer, write_json
from helpers.settings import Setting, choose_setting, environment

from .pages import RESULTS, file_of, note, parser_of_settings, write_table

COUNT = 185  # images of each kind: five of each of the 37 other species
SCORES = ("strangeness", "highest probability")
WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "it",
    "for",
    "was",
    "on",
    "are",
    "as",
    "with",
    "they",
    "at",
    "be",
)


def main() -> None:
    """Measure one setting (unless --table) and write the table."""
    options = parser_of_settings("Measure how many strange images a run refuses.", seeds=[0]).parse_args()
    if not options.table:
        setting = choose_setting(options.data, backbone=options.backbone, weights=options.weights)
        measure(setting, seed=options.seeds[0])
    write_table(table(), command="benchmarks.refusal")


def measure(setting: Setting, *, seed: int) -> None:
    """Train, then ask about validation, test and strange images."""
    splits = load_splits(setting, seed=seed)
    run = train_transfer(splits, setting, seed=seed)
    validation, test = (scores_of(run, [path for path, _ in part]) for part in (splits.validation, splits.test))
    limits = {name: scores.sort().values[-1 - len(scores) // 20].item() for name, scores in validation.items()}
    limits["strangeness"] = run.strangeness.threshold.item()
    found = {"test images": {name: refused(test[name], limits[name]) for name in SCORES}}
    for kind, draw in kinds_for(setting, splits).items():
        with TemporaryDirectory() as folder:
            scores = scores_of(run, save_images(draw, Path(folder), seed=seed))
        found[kind] = {
            name: refused(scores[name], limits[name]) | area(test[name], scores[name], seed=seed) for name in SCORES
        }
        print(kind, found[kind], flush=True)
    about = {"images": splits.sizes, "weights": run.about["weights"], "test_accuracy": run.summary["test_accuracy"]}
    about |= {"seed": seed, "environment": environment()}
    content = {"date": date.today().isoformat(), "runs": [about], "limits": limits, "kinds": found}
    write_json(file_of("refusal", setting), content)


def scores_of(run: Run, paths: list[Path]) -> dict[str, Tensor]:
    """Both scores of the images in some files."""
    rows, strangeness = zip(
        *(found for _, found in ask(run.model, run.about, paths, strangeness=run.strangeness)), strict=True
    )
    return {"strangeness": torch.tensor(strangeness), "highest probability": 1 - torch.stack(rows).amax(1)}


def refused(scores: Tensor, limit: float) -> dict:
    """How many are above the limit: number, share, and its 95 % interval."""
    count = int((scores > limit).sum())
    return {"images": len(scores), "refused": count / len(scores), "interval": wilson(count, len(scores))}


def area(known: Tensor, strange: Tensor, *, seed: int, rounds: int = 1000) -> dict:
    """AUROC: how often a strange image has the higher score of a pair; its interval from resampled images."""
    higher = (strange[:, None] > known).double() + (strange[:, None] == known).double() / 2
    generator = torch.Generator().manual_seed(seed)
    # How often each image is in each resample.
    rows, columns = (
        torch.stack([torch.randint(n, (n,), generator=generator).bincount(minlength=n) for _ in range(rounds)]).double()
        for n in higher.shape
    )
    draws = ((rows @ higher) * columns).sum(1) / higher.numel()
    return {
        "auroc": higher.mean().item(),
        "auroc_interval": draws.quantile(torch.tensor([0.025, 0.975]).double()).tolist(),
    }


# --------------------------------------------------------------------------- the strange images


def kinds_for(setting: Setting, splits: Splits) -> dict[str, Callable]:
    """Name of a kind to a function of (index, random numbers) that makes an image; drawn ones for drawings."""
    kinds = {"drawings of 37 other species": species, "noise": noise, "textures": textures, "text": text}
    if setting.name == "sample":
        return kinds | {"scenes without an animal": scene}
    cats_and_dogs = {"drawings of cats and dogs": partial(animal, ["cat", "dog"])}
    return kinds | cats_and_dogs | {"corners of the test images": partial(corner, splits.test)}


def save_images(draw: Callable, folder: Path, *, seed: int) -> list[Path]:
    """The images of one kind as PNG files."""
    dice, paths = numpy.random.default_rng(seed), [folder / f"{index:03d}.png" for index in range(COUNT)]
    for index, path in enumerate(paths):
        draw(index, dice).save(path)
    return paths


def animal(names: list[str], index: int, dice) -> Image.Image:
    """A drawn animal, each name in turn, of another seed than the sample's and the pretraining's."""
    return draw_animal(names[index % len(names)], ("refusal", int(dice.integers(2**31))))


species = partial(animal, PRETRAINING)


def scene(index: int, dice) -> Image.Image:
    """What is behind a drawn animal."""
    image, own = Image.new("RGB", (SIZE * SUPERSAMPLE,) * 2), Dice("cat", ("refusal", int(dice.integers(2**31))))
    own.choice(SCENES)(Pen(image), own)
    scatter_things(Pen(image), own)
    return add_light(image.resize((SIZE, SIZE), Image.Resampling.BOX), own)


def noise(index: int, dice) -> Image.Image:
    """Each value by itself, of the whole range or of a narrow one."""
    spread = dice.uniform(20, 128)
    pixels = dice.uniform(40, 215, 3) + dice.uniform(-spread, spread, (SIZE, SIZE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8))


def textures(index: int, dice) -> Image.Image:
    """Waves in three colours, or smooth patches, in turn."""
    if index % 2:
        patches = dice.integers(0, 256, (*[int(dice.integers(3, 24))] * 2, 3), dtype=numpy.uint8)
        return Image.fromarray(patches).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    y, x = numpy.mgrid[:SIZE, :SIZE] / SIZE
    angle, waves = dice.uniform(0, numpy.pi), dice.uniform(2, 20)
    wave = numpy.sin(2 * numpy.pi * waves * (x * numpy.cos(angle) + y * numpy.sin(angle)))[..., None]
    first, second = dice.uniform(0, 255, (2, 3))
    return Image.fromarray((first + (second - first) * (wave + 1) / 2).astype(numpy.uint8))


def text(index: int, dice) -> Image.Image:
    """Lines of words, dark on light."""
    image = Image.new("RGB", (SIZE, SIZE), tuple(map(int, dice.integers(200, 256, 3))))
    font, step = ImageFont.load_default(size := int(dice.integers(7, 14))), size + 2
    lines = [" ".join(dice.choice(WORDS, 12)) for _ in range(SIZE // step)]
    ImageDraw.Draw(image).multiline_text((4, 3), "\n".join(lines), tuple(map(int, dice.integers(0, 80, 3))), font=font)
    return image


def corner(images: list, index: int, dice) -> Image.Image:
    """The upper left quarter of the width and height of a test image: background mostly, an ear now and then."""
    image = load_image(images[index * len(images) // COUNT][0])
    return image.crop((0, 0, image.width // 4, image.height // 4))


# -------------------------------------------------------------------------------------- the table


def table() -> str:
    """All JSON files as Markdown: a row for each kind of images."""
    header = "| setting | images | refused by strangeness | AUROC | refused by the highest probability | AUROC |"
    lines, notes = [header, "|---|---|---|---|---|---|"], []
    for file in sorted(RESULTS.glob("refusal_*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        setting = file.stem.removeprefix("refusal_").replace("_", ", ", 1)
        for kind, scores in content["kinds"].items():
            cells = [cell for name in SCORES for cell in cells_of(scores[name])]
            lines.append(f"| {setting} | {scores['strangeness']['images']} {kind} | {' | '.join(cells)} |")
        notes.append(note(file, content))
    return "\n".join([*lines, "", *notes, ""])


def cells_of(score: dict) -> tuple[str, str]:
    """Refused with its interval, AUROC with its own."""
    low, high = score["interval"]
    share = f"{score['refused']:.1%} ({low:.1%} to {high:.1%})"
    if "auroc" not in score:
        return share, ""
    low, high = score["auroc_interval"]
    return share, f"{score['auroc']:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
