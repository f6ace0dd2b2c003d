"""How hard is the sample? Logistic regression on raw pixels and on colours alone, printed as JSON.

    python data/check.py

Both should do poorly: only the shape of the animal tells a cat from a dog, not its colours or its background.
"""

import json
from pathlib import Path

import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

FOLDER = Path(__file__).resolve().parent / "sample"
CLASSES = ("cats", "dogs")
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
BINS = 8  # of each colour histogram


def main():
    """Print the test accuracies of both regressions, with the images and bytes of the sample."""
    images = {split: read_split(split) for split in ("train", "val", "test")}
    files = sorted(FOLDER.glob("*/*/*.jpg"))
    report = {
        "images": {split: len(labels) for split, (_, labels) in images.items()},
        "bytes": sum(file.stat().st_size for file in files),
        "pixels": regression_report(images, describe=raw_pixels),
        "colours": regression_report(images, describe=colour_statistics),
    }
    print(json.dumps(report, indent=2))


def read_split(split):
    """Images as a float tensor (n, 3, height, width) in [0, 1], and labels (n,): 0 for cats, 1 for dogs."""
    folders = [FOLDER / split / name for name in CLASSES]
    files = [(file, label) for label, folder in enumerate(folders) for file in sorted(folder.glob("*.jpg"))]
    images = torch.stack([pil_to_tensor(Image.open(file).convert("RGB")) for file, _ in files])
    return images.float() / 255, torch.tensor([label for _, label in files])


def raw_pixels(images):
    """Every pixel value as one feature."""
    return images.flatten(1)


def colour_statistics(images):
    """Mean, standard deviation and histogram of each channel: 3 * (2 + BINS) features."""
    channels = images.flatten(2)
    moments = [channels.mean(2), channels.std(2)]
    bins = (channels * BINS).long().clamp(max=BINS - 1)
    histograms = [(bins == i).float().mean(2) for i in range(BINS)]
    return torch.cat(moments + histograms, dim=1)


def regression_report(images, *, describe):
    """Fit on train, choose the L2 penalty on val, report the accuracy on test."""
    features = {split: describe(images) for split, (images, _) in images.items()}
    mean, std = features["train"].mean(0), features["train"].std(0) + 1e-6
    data = {split: ((features[split] - mean) / std, labels) for split, (_, labels) in images.items()}
    fits = {penalty: fit_logistic(*data["train"], penalty=penalty) for penalty in PENALTIES}
    best = max(PENALTIES, key=lambda penalty: (accuracy(fits[penalty], *data["val"]), penalty))
    return {"test_accuracy": round(accuracy(fits[best], *data["test"]), 4), "penalty": best,
            "features": mean.numel()}  # fmt: skip


def fit_logistic(features, labels, *, penalty):
    """Logistic regression with L2 penalty by LBFGS, from zero: (n, d) features, (n,) labels in {0, 1}."""
    layer = nn.Linear(features.shape[1], 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(layer(features)[:, 0], labels.float())
        loss = loss + penalty / 2 * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return layer


def accuracy(layer, features, labels):
    """The share of rows on the right side of the line."""
    with torch.no_grad():
        return ((layer(features)[:, 0] > 0).long() == labels).double().mean().item()


if __name__ == "__main__":
    main()
