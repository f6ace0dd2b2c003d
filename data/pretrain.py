"""Pretrain the slim VGG16 on drawn animals that are neither cats nor dogs, and save it with and without batch norm.

    python data/pretrain.py        writes vgg16_slim.safetensors and vgg16_bn_slim.safetensors into data/sample

The network learns with batch normalisation. The plain VGG16 is the same function: each batch norm is folded into the
convolution before it. The images are drawn into memory and forgotten.
"""

import argparse
import json
import platform
import sys
import time
from datetime import datetime, timezone
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import PIL
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.data import DataLoader, Dataset

FOLDER = Path(__file__).resolve().parent / "sample"
sys.path.insert(0, str(FOLDER.parent.parent))  # where helpers is: the script runs from any folder

from drawing import PRETRAINING, SIZE, draw_animal  # noqa: E402

from helpers.data import IMAGENET_MEAN, IMAGENET_STD  # noqa: E402
from helpers.models import VGG16  # noqa: E402
from helpers.training import evaluate, fit  # noqa: E402

SEED = 2014
WIDTH = 1 / 8
IMAGES = {"train": 240, "validation": 20, "test": 30}  # of each species
COVER = (0.3,)  # less than in the sample: the network should see what it is to learn


def main(arguments=None):
    """Draw, train, fold, save; print what was measured."""
    options = read_options(arguments)
    torch.manual_seed(SEED)
    loaders = draw_loaders(options.per_species)
    model = VGG16(len(PRETRAINING), batch_norm=True, width=WIDTH, image_size=SIZE, dropout=0.2)
    start = time.perf_counter()
    steady_start(model.classifier)
    fit(model, loaders["train"], loaders["validation"], epochs=options.epochs, learning_rate=3e-3, weight_decay=0.05,
        seed=SEED, device=torch.device("cpu"))  # fmt: skip
    seconds = time.perf_counter() - start
    held_out = evaluate(model, loaders["test"], device=torch.device("cpu"))
    print(f"held-out species accuracy {held_out.accuracy:.3f}, trained in {seconds:.0f} s")
    about = describe(options, accuracy=held_out.accuracy)
    save(model, options.out / "vgg16_bn_slim.safetensors", {**about, "architecture": "vgg16_bn"})
    plain = fold_batch_norm(model)
    check_same(plain, model, loaders["test"])
    save(plain, options.out / "vgg16_slim.safetensors", {**about, "architecture": "vgg16"})


def steady_start(classifier):
    """Scale the random weights so that three layers pass the signal on; VGG's own start (0.01) takes epochs to grow."""
    for layer in classifier:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.normal_(classifier[-1].weight, 0, 0.01)  # nearly equal chances for all classes at first


def read_options(arguments):
    """The options of the command line; the defaults made the committed files."""
    parser = argparse.ArgumentParser(description="Pretrain the slim VGG16 on drawn animals.")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder for the two files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--per-species", type=int, default=IMAGES["train"], help="training images of each species")
    return parser.parse_args(arguments)


# ---------------------------------------------------------------------------------------------------------------------
# Images
# ---------------------------------------------------------------------------------------------------------------------
def draw_loaders(per_species):
    """Draw the images with all cores; one loader for each split."""
    start, loaders = time.perf_counter(), {}
    # "spawn" works the same on Linux, macOS and Windows, and is safe beside torch's threads.
    with get_context("spawn").Pool() as pool:
        for split, count in {**IMAGES, "train": per_species}.items():
            tasks = [(label, split, index) for label in range(len(PRETRAINING)) for index in range(count)]
            images = np.stack(pool.map(draw_task, tasks, chunksize=32))
            labels = torch.tensor([label for label, _, _ in tasks])
            loaders[split] = make_loader(torch.from_numpy(images), labels, augment=split == "train")
    drawn = sum(len(loader.dataset) for loader in loaders.values())
    print(f"drew {drawn} images of {len(PRETRAINING)} species in {time.perf_counter() - start:.0f} s", flush=True)
    return loaders


def draw_task(task):
    """One image as an array (3, SIZE, SIZE) of bytes; run in a worker process."""
    label, split, index = task
    image = draw_animal(PRETRAINING[label], (SEED, f"pretrain-{split}", index), cover=COVER)
    return np.asarray(image).transpose(2, 0, 1)


def make_loader(images, labels, *, augment, batch_size=32):
    """Batches of normalized images; with `augment`, mirrored and moved at random."""
    return DataLoader(
        DrawnImages(images, labels, augment=augment), batch_size, shuffle=augment,
        generator=torch.Generator(), collate_fn=lambda batch: batch,
    )  # fmt: skip


class DrawnImages(Dataset):
    """Images in memory, fetched a batch at a time, which is much faster than one by one."""

    def __init__(self, images, labels, *, augment):
        self.images, self.labels, self.augment = images, labels, augment

    def __len__(self):
        return len(self.labels)

    def __getitems__(self, indices):
        images = self.images[indices].float() / 255
        if self.augment:
            images = move_at_random(images)
        mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
        return (images - mean) / std, self.labels[indices]


def move_at_random(images):
    """Mirror, zoom and shift each image of a batch by its own random amounts, and change its light."""
    count = len(images)
    zoom = torch.empty(count).uniform_(0.85, 1.05)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = zoom * (torch.randint(0, 2, (count,)) * 2 - 1), zoom
    theta[:, :, 2] = torch.empty(count, 2).uniform_(-0.1, 0.1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return moved * torch.empty(count, 1, 1, 1).uniform_(0.8, 1.2)


# ---------------------------------------------------------------------------------------------------------------------
# The two files
# ---------------------------------------------------------------------------------------------------------------------
def fold_batch_norm(model):
    """The plain VGG16 that computes the same as `model` in eval mode."""
    model.eval()
    classes = model.classifier[-1].out_features
    plain = VGG16(classes, width=WIDTH, image_size=SIZE).eval()
    layers = list(model.features)
    fused = [fuse_conv_bn_eval(a, b) for a, b in pairwise(layers) if isinstance(b, nn.BatchNorm2d)]
    convolutions = [layer for layer in plain.features if isinstance(layer, nn.Conv2d)]
    for target, source in zip(convolutions, fused, strict=True):
        target.load_state_dict(source.state_dict())
    plain.classifier.load_state_dict(model.classifier.state_dict())
    return plain


def check_same(plain, model, loader):
    """Stop if folding changed what the network says."""
    images, _ = next(iter(loader))
    with torch.inference_mode():
        difference = (plain(images) - model(images)).abs().max().item()
    if difference > 1e-3:
        raise SystemExit(f"Folding batch norm changed a logit by {difference:.2g}; the files are not to be trusted.")


def save(model, file, metadata):
    """Write the weights in half precision, batch norm in single: its variances span more than half precision can."""
    norms = [name for name, layer in model.named_modules() if isinstance(layer, nn.BatchNorm2d)]
    state = {
        key: value.contiguous() if key.rsplit(".", 1)[0] in norms else value.half().contiguous()
        for key, value in model.state_dict().items()
    }
    save_file(state, file, metadata=metadata)
    print(f"wrote {file.name}, {file.stat().st_size:,} bytes")


def describe(options, *, accuracy):
    """What the files say about themselves; safetensors allows only text."""
    return {
        "width": str(WIDTH),
        "image_size": str(SIZE),
        "normalisation": f"RGB in [0, 1], mean {IMAGENET_MEAN}, standard deviation {IMAGENET_STD}",
        "classes": json.dumps(PRETRAINING),
        "pictures": str(options.per_species * len(PRETRAINING)),
        "epochs": str(options.epochs),
        "held_out_accuracy": f"{accuracy:.4f}",
        "held_out_pictures": str(IMAGES["test"] * len(PRETRAINING)),
        "seed": str(SEED),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pillow": PIL.__version__,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "licence": "MIT",
    }


if __name__ == "__main__":
    main()
