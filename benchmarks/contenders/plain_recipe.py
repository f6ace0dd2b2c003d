"""The recipe of most tutorials: `features` frozen, a new last layer, every image through it all each epoch.

python plain_recipe.py FOLDER NETWORK WEIGHTS SEED

`classifier` is trained by Adam, in float32, on images that `ImageFolder` decodes in two worker processes.
"""

import json
import sys

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

EPOCHS = 5
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def main(folder: str, network: str, weights: str, seed: str) -> None:
    """Train, test, and print the result as one line of JSON."""
    torch.manual_seed(int(seed))
    model = make_model(network, weights).to(DEVICE)
    loaders = {split: make_loader(f"{folder}/{split}", shuffle=split == "train") for split in ("train", "val", "test")}
    optimizer = torch.optim.Adam(model.classifier.parameters(), lr=1e-3)
    for epoch in range(1, EPOCHS + 1):
        model.train()
        for images, labels in loaders["train"]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images.to(DEVICE)), labels.to(DEVICE)).backward()
            optimizer.step()
        print(f"epoch {epoch}: validation accuracy {accuracy(model, loaders['val']):.3f}", flush=True)
    print(json.dumps({"test_accuracy": accuracy(model, loaders["test"]), "epochs": EPOCHS}))


def make_model(network: str, weights: str) -> nn.Module:
    """torchvision's network with `features` frozen and two outputs."""
    model = torchvision.models.get_model(network, weights=None)
    if weights != "random":
        from safetensors.torch import load_file

        model.load_state_dict(load_file(weights), strict=False)  # the file has no classifier
    for parameter in model.features.parameters():
        parameter.requires_grad = False
    if network == "squeezenet1_1":
        model.classifier[1] = nn.Conv2d(512, 2, kernel_size=1)
    else:
        model.classifier[6] = nn.Linear(4096, 2)
    return model


def make_loader(folder: str, *, shuffle: bool) -> DataLoader:
    """Batches of 32 images, 224 pixels a side."""
    steps = [transforms.Resize(224), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return DataLoader(ImageFolder(folder, transforms.Compose(steps)), 32, shuffle=shuffle, num_workers=2)


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """The share of images whose class is right."""
    model.eval()
    return sum((model(x.to(DEVICE)).argmax(1).cpu() == y).sum().item() for x, y in loader) / len(loader.dataset)


if __name__ == "__main__":
    main(*sys.argv[1:])
