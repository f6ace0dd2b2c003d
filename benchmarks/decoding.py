"""Measure how fast files become tensors, and whether a classifier minds the way; write `results/`.

python -m benchmarks.decoding --data photos --weights FILE
python -m benchmarks.decoding --table        only write the table anew from the JSON file

Each way takes a file to a normalized tensor (3, 224, 224). Speed: on the images as they are and on 12-megapixel
mosaics of them, in the process itself and with two workers. Accuracy: the recipe of a linear head on a frozen
SqueezeNet, plain view, for several seeds, with every image prepared in that way.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path

import PIL
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvision import transforms
from torchvision.datasets.folder import default_loader
from torchvision.io import ImageReadMode, decode_image, decode_jpeg, read_file

from helpers.data import IMAGENET_MEAN, IMAGENET_STD, ImageDataset, cores, eval_transform, load_splits
from helpers.models import freeze_base_layers, load_backbone, replace_head, split_model
from helpers.runs import write_json
from helpers.settings import Setting, best_device, choose_setting, environment
from helpers.training import evaluate, fit
from helpers.transfer import TRANSFER_RECIPES, forward

from .pages import RESULTS, accuracy_cell, write_table
from .speed import make_mosaics, speed_cells, take_turns

SIZE = 224
WORKERS = (0, 2)


def main() -> None:
    """Measure everything (unless --table) and write the table."""
    options = read_options()
    if not options.table:
        measure(options)
    write_table(table(), command="benchmarks.decoding")


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Measure the ways from a file to a tensor.")
    parser.add_argument("--data", default="photos")
    parser.add_argument("--weights", help="a file with SqueezeNet's weights, else they are downloaded")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=600, help="how many of them are timed")
    parser.add_argument("--mosaics", type=int, default=12)
    parser.add_argument("--table", action="store_true")
    return parser.parse_args()


def measure(options: argparse.Namespace) -> None:
    """All measurements of the images of one setting, as one JSON file."""
    setting = choose_setting(options.data, backbone="squeezenet1_1", weights=options.weights)
    splits = load_splits(setting)
    files = [path for part in (splits.train, splits.validation, splits.test) for path, _ in part]
    about = environment() | {"cores": cores(), "pillow": PIL.__version__}
    content = {"date": date.today().isoformat(), "environment": about, "data": splits.name}
    with tempfile.TemporaryDirectory() as folder:
        some = files[:: max(1, len(files) // options.images)]
        content["as they are"] = measure_speed(some, rounds=options.rounds)
        mosaics = make_mosaics(files, Path(folder), count=options.mosaics)
        content["mosaics"] = measure_speed(mosaics, rounds=options.rounds)
    content["accuracy"] = measure_accuracy(setting, seeds=options.seeds)
    write_json(RESULTS / "decoding.json", content)


# ------------------------------------------------------------------------------------- the ways


class Images(Dataset):
    """Pairs of (path, label) as pairs of (tensor, label), by any loader and transform."""

    def __init__(self, images: list[tuple[Path, int]], load: Callable, transform: Callable):
        self.images, self.load, self.transform = images, load, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.images[index]
        return self.transform(self.load(path)), label


def tutorials_dataset(images: list) -> Dataset:
    """What torchvision's ImageFolder does, with the transforms of most tutorials."""
    steps = [transforms.Resize(SIZE), transforms.CenterCrop(SIZE), transforms.ToTensor()]
    return Images(
        images, default_loader, transforms.Compose([*steps, transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    )


def course_dataset(images: list) -> Dataset:
    """What the course does."""
    return ImageDataset(images, eval_transform(SIZE), size=SIZE)


def tensor_dataset(images: list) -> Dataset:
    """torchvision's own decoder, and its transforms on the tensor of bytes that it gives."""
    decode = partial(decode_image, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    return Images(images, decode, eval_transform(SIZE))


def cpu_batches(dataset: Callable, images: list, workers: int) -> DataLoader:
    """Batches of (images, labels) of a dataset made of (path, label) pairs."""
    return DataLoader(dataset(images), 32, num_workers=workers)


def cuda_batches(images: list, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Decoded by nvJPEG, a batch at once, and transformed on the card; there is no use for workers."""
    transform = eval_transform(SIZE)
    for start in range(0, len(images), 32):
        batch = images[start : start + 32]
        decoded = decode_jpeg([read_file(str(path)) for path, _ in batch], ImageReadMode.RGB, device="cuda")
        yield torch.stack([transform(image) for image in decoded]), torch.tensor([label for _, label in batch])


WAYS: dict[str, Callable] = {
    "`ImageFolder` and the tutorials' transforms": partial(cpu_batches, tutorials_dataset),
    "the course: Pillow with drafts, transforms on tensors": partial(cpu_batches, course_dataset),
    "torchvision's decoder, transforms on tensors": partial(cpu_batches, tensor_dataset),
}
if torch.cuda.is_available():
    WAYS["torchvision's decoder on the GPU"] = cuda_batches


# ---------------------------------------------------------------------------------------- speed


def measure_speed(files: list[Path], *, rounds: int) -> dict:
    """How fast each way is, without and with workers."""
    images = [(file, 0) for file in files]
    works = {
        workers: {name: partial(go_through, way, images, workers) for name, way in WAYS.items()} for workers in WORKERS
    }
    return {str(workers): take_turns(works[workers], files, rounds=rounds) for workers in WORKERS}


def go_through(way: Callable, images: list, workers: int) -> None:
    """Make every batch, one after the other; torch computes in one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert sum(len(labels) for _, labels in way(images, workers)) == len(images)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    torch.set_num_threads(threads)


# ------------------------------------------------------------------------------------- accuracy


def measure_accuracy(setting: Setting, *, seeds: list[int]) -> dict:
    """For each way the test accuracy of each seed: a linear head on the features of images prepared in that way."""
    result = {name: [] for name in WAYS}
    for name, way in WAYS.items():
        features = extract(way, setting)
        for seed in seeds:
            result[name].append(test_accuracy(features, setting, seed=seed))
        print(f"{name}: {result[name]}", flush=True)
    return {"seeds": seeds, **result}


def split_network(setting: Setting, classes: int) -> tuple:
    """The frozen base and a new linear head."""
    return split_model(freeze_base_layers(replace_head(load_backbone(setting.backbone, setting.weights), classes)))


def extract(way: Callable, setting: Setting) -> dict[Path, Tensor]:
    """The features of every image, by its path."""
    splits = load_splits(setting)
    images = [*splits.train, *splits.validation, *splits.test]
    base, _ = split_network(setting, len(splits.classes))
    device = best_device()
    base = base.to(device, memory_format=torch.channels_last).eval()
    options = {"views": ("plain",), "precision": "float32", "device": device}
    batches = [forward(base, batch, **options) for batch, _ in way(images, WORKERS[-1])]
    return dict(zip((path for path, _ in images), torch.cat(batches)[:, 0], strict=True))


def test_accuracy(features: dict[Path, Tensor], setting: Setting, *, seed: int) -> float:
    """The accuracy of the course's recipe with the splits and the head of a seed."""
    splits = load_splits(setting, seed=seed)
    torch.manual_seed(seed)
    _, head = split_network(setting, len(splits.classes))
    train, validation, test = (head_loader(part, features) for part in (splits.train, splits.validation, splits.test))
    recipe = TRANSFER_RECIPES[setting.backbone]
    options = {"epochs": setting.transfer_epochs, "learning_rate": recipe.learning_rate, "precision": "float32"}
    rows = train.dataset.tensors[0].double()
    head[0].learn(rows.mean(0), rows.var(0, correction=0))
    fit(head, train, validation, **options, seed=seed, report=lambda line: None)
    return evaluate(head, test, precision="float32").accuracy


def head_loader(images: list, features: dict[Path, Tensor]) -> DataLoader:
    """Shuffled batches of (features, labels)."""
    rows, labels = torch.stack([features[path] for path, _ in images]), torch.tensor([label for _, label in images])
    return DataLoader(TensorDataset(rows, labels), 64, shuffle=True)


# ---------------------------------------------------------------------------------------- table


def table() -> str:
    """The JSON file as Markdown."""
    content = json.loads((RESULTS / "decoding.json").read_text(encoding="utf-8"))
    about, names = content["environment"], [name for name in content["accuracy"] if name != "seeds"]
    kinds = [(images, workers) for images in ("as they are", "mosaics") for workers in content["mosaics"]]
    lines = [
        "| images | workers | way | images a second | times as fast (lowest to highest) |",
        "|---|---|---|---|---|",
        *(speed_row(content, images, workers, name) for images, workers in kinds for name in names),
        "",
        "| way | seeds | test accuracy ± standard deviation (lowest to highest) |",
        "|---|---|---|",
        *(accuracy_row(content["accuracy"], name) for name in names),
        "",
        f"- `decoding.json`: {content['date']}, {about['cpu']}, {about['cores']} cores, torch {about['torch']}, "
        f"torchvision {about['torchvision']}, Pillow {about['pillow']}.",
        *([] if any("GPU" in name for name in names) else ["- Decoding on a GPU: not measured, there was none."]),
        "",
    ]
    return "\n".join(lines)


def speed_row(content: dict, images: str, workers: str, name: str) -> str:
    """One way through one kind of images."""
    ways = content[images][workers]
    size = f"{ways['images']:,} of {ways['kilobytes_per_image']:,.0f} kB"
    return f"| `{content['data']}` {images}: {size} | {workers} | {name} | {speed_cells(ways[name])} |"


def accuracy_row(content: dict, name: str) -> str:
    """One way over all seeds."""
    return f"| {name} | {', '.join(map(str, content['seeds']))} | {accuracy_cell(content[name])} |"


if __name__ == "__main__":
    main()
