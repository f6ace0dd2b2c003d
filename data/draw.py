"""Draw the embedded sample again: the images of cats and dogs in train, val and test, and data/animals.jpg.

python data/draw.py                    all of it, in place
python data/draw.py --overview FILE    only the overview: every animal once, and the first ones in each style
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from drawing import PRETRAINING, SIZE, STYLES, draw_animal, restyle
from PIL import Image

FOLDER = Path(__file__).resolve().parent / "sample"
SEED = 2014  # the year of the VGG paper
JPEG_QUALITY = 88
SPLITS = {"train": 200, "val": 50, "test": 150}  # images per class
FOLDERS = {"cats": "cat", "dogs": "dog"}


def main(arguments=None):
    """Draw the sample and its overview, or only the overview."""
    parser = argparse.ArgumentParser(description="Draw the embedded sample of cats and dogs.")
    parser.add_argument("--overview", metavar="FILE", type=Path, help="draw only the overview, into this file")
    file = parser.parse_args(arguments).overview
    if not file:
        print(f"drew {draw_sample(FOLDER)} images")
    draw_overview().save(file or FOLDER.parent / "animals.jpg", quality=JPEG_QUALITY)


def draw_sample(folder):
    """Draw the three splits into a temporary folder, then swap: a stopped run leaves the old ones whole."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".drawing-") as unfinished:
        for split in SPLITS:
            draw_split(Path(unfinished), split)
        for split in SPLITS:
            shutil.rmtree(folder / split, ignore_errors=True)
            shutil.move(Path(unfinished) / split, folder / split)
    return sum(SPLITS.values()) * len(FOLDERS)


def draw_split(folder, split):
    """Write the images of one split as folder/split/{cats,dogs}/NNN.jpg."""
    for name, species in FOLDERS.items():
        target = folder / split / name
        target.mkdir(parents=True)
        for index in range(SPLITS[split]):
            draw_animal(species, (SEED, split, index)).save(target / f"{index:03d}.jpg", quality=JPEG_QUALITY)


def draw_overview(columns=13):
    """Three rows with each of the 39 animals, then the first row again in each style."""
    animals = [draw_animal(name, (SEED, "overview"), cover=()) for name in [*FOLDERS.values(), *PRETRAINING]]
    images = animals + [restyle(image, style, SEED) for style in STYLES for image in animals[:columns]]
    sheet = Image.new("RGB", (SIZE * columns, SIZE * (len(images) // columns)))
    for i, image in enumerate(images):
        sheet.paste(image, (SIZE * (i % columns), SIZE * (i // columns)))
    return sheet


if __name__ == "__main__":
    main()
