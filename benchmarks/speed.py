"""How fast several ways of doing the same are: they take turns, so that a busy machine disturbs all alike."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from PIL import Image


def take_turns(works: dict[str, Callable], files: list[Path], *, rounds: int) -> dict:
    """How fast each way goes through the files, by the wall clock and in processor time.

    Ratios to the first way are taken within a round. Processor time is that of this process alone.
    """
    times = [[stopwatch(work) for work in works.values()] for _ in range(rounds)]
    result = {"images": len(files), "kilobytes_per_image": sum(f.stat().st_size for f in files) / len(files) / 1000}
    for i, name in enumerate(works):
        ratios = sorted(turn[0][0] / turn[i][0] for turn in times)
        result[name] = {
            "images_per_second": len(files) / median(turn[i][0] for turn in times),
            "times_as_fast": median(ratios),
            "lowest_and_highest": [ratios[0], ratios[-1]],
            "processor_milliseconds_per_image": 1000 * median(turn[i][1] for turn in times) / len(files),
        }
        print(f"{len(files)} images, {name}: {result[name]}", flush=True)
    return result


def stopwatch(work: Callable) -> tuple[float, float]:
    """Seconds by the wall clock, and of processor time."""
    start, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - processor


def make_mosaics(files: list[Path], folder: Path, *, count: int) -> list[Path]:
    """JPEGs of 4000 × 3000 pixels, each of 100 images, in a class folder of a class folder."""
    (folder / "mosaics" / "all").mkdir(parents=True)
    mosaics = []
    for number in range(count):
        mosaic = Image.new("RGB", (4000, 3000))
        for i, file in enumerate(random.Random(number).sample(files, 100)):
            with Image.open(file) as image:
                mosaic.paste(image.convert("RGB").resize((400, 300)), (i % 10 * 400, i // 10 * 300))
        mosaics.append(folder / "mosaics" / "all" / f"{number}.jpg")
        mosaic.save(mosaics[-1], quality=90)
    return mosaics


def speed_cells(way: dict) -> str:
    """Images a second, and how many times as fast as the first way, as cells of a Markdown table."""
    (low, high), speed = way["lowest_and_highest"], way["images_per_second"]
    return f"{speed:,.{0 if speed > 100 else 1}f} | {way['times_as_fast']:.1f} ({low:.1f} to {high:.1f})"
