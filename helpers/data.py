"""From a folder of images to three splits to batches of tensors."""

import os
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision.transforms import v2

from .downloads import fetch, find_archive, unpack
from .images import SUFFIXES, cores, decoders, in_threads, is_readable, load_image
from .settings import DOWNLOADS, SAMPLE, BadArgument, Setting
from .tables import format_table

SPLIT_FOLDERS = {"train": ["train"], "validation": ["val", "validation"], "test": ["test"]}
# How much of the largest split there is goes to a split that is missing.
SHARES = {"train": 0.6, "test": 0.2, "validation": 0.2}
# Mean and standard deviation of ImageNet's images, which pretrained networks expect (RGB in [0, 1]).
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


# ----------------------------------------------------------------------------- where images are


@dataclass(frozen=True)
class Archive:
    """A published archive of images, and where in it they lie."""

    url: str
    folder: str
    split_folders: dict[str, list[str]]
    size: int | None = None  # bytes
    sha256: str | None = None
    mirrors: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def folders(self) -> list[str]:
        """The folders that must be in it: those of its splits, else its only one."""
        splits = [name for names in self.split_folders.values() for name in names]
        return [f"{self.folder}/{name}" for name in splits] or [self.folder]


ARCHIVES = {
    # Its `validation` folder is our test set: nobody chooses anything on it.
    "photos": Archive(
        "https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip",
        "cats_and_dogs_filtered",
        {"train": ["train"], "validation": [], "test": ["validation"]},
        size=68_606_236,
        mirrors=("https://download.mlcc.google.com/mledu-datasets/cats_and_dogs_filtered.zip",),
    ),
    "photos-full": Archive(
        "https://download.microsoft.com/download/3/E/1/3E1C3F21-ECDB-4869-8368-6DEBA77B919F/kagglecatsanddogs_5340.zip",
        "PetImages",
        {},
        sha256="b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
    ),
}


@dataclass(frozen=True)
class Splits:
    """Images as (path, label) pairs in three splits; label i is classes[i]."""

    name: str
    classes: list[str]
    train: list[tuple[Path, int]]
    validation: list[tuple[Path, int]]
    test: list[tuple[Path, int]]
    left_out: list[Path] = field(default_factory=list)

    @property
    def sizes(self) -> dict[str, int]:
        """How many images each split has, by its name."""
        return {name: len(part) for name, part in self.parts().items()}

    def parts(self) -> dict[str, list[tuple[Path, int]]]:
        """The three splits by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def __str__(self) -> str:
        rows = [
            [name, *(sum(label == i for _, label in part) for i in range(len(self.classes))), len(part)]
            for name, part in self.parts().items()
        ]
        left_out = f"\nleft out, not readable: {len(self.left_out)}, first {self.left_out[0]}" if self.left_out else ""
        return format_table(["split", *self.classes, "all"], rows) + left_out

    __repr__ = __str__


def load_splits(setting: Setting, *, seed: int = 0) -> Splits:
    """The images of a setting in three splits, downloaded first if need be.

    A split that the folder lacks is cut from the others at random by `seed`, the same share of every class.
    Raises BadArgument if the folder can't be used, CourseError if a download fails.
    """
    if setting.name == "sample":
        return read_folder(SAMPLE, name="sample", seed=seed)
    if setting.name not in ARCHIVES:
        return read_folder(Path(setting.name), name=Path(setting.name).resolve().name, seed=seed)
    archive = ARCHIVES[setting.name]
    published, urls = {"size": archive.size, "sha256": archive.sha256}, [archive.url, *archive.mirrors]
    file = find_archive(archive.name) or fetch(urls, DOWNLOADS / archive.name, **published)
    # The size in the folder's name keeps two archives of one name apart.
    target = DOWNLOADS / f"{file.stem}-{file.stat().st_size}"
    folder = unpack(file, target, folders=archive.folders, **published) / archive.folder
    return read_folder(folder, name=setting.name, seed=seed, split_folders=archive.split_folders)


def read_folder(folder: Path, *, name: str, seed: int = 0, split_folders=SPLIT_FOLDERS) -> Splits:
    """Splits from `folder`: split folders with class folders inside, or class folders directly."""
    files = list_images(folder, split_folders=split_folders)
    found, left_out = keep_readable(files)
    classes = check_classes(found, folder)
    if "all" in found:
        found["train"] = found.pop("all")
    found = cut_missing_splits(found, seed=seed)
    images = {s: [(p, classes.index(c)) for c in classes for p in found[s].get(c, [])] for s in SHARES}
    check_every_class(images, classes, folder)
    return Splits(name, classes, **images, left_out=left_out)


def list_images(folder: Path, *, split_folders=SPLIT_FOLDERS) -> dict[str, dict[str, list[Path]]]:
    """The files named like images, by split and class; the only split is "all" where there are no split folders."""
    if not folder.is_dir():
        raise BadArgument(f"There is no folder {folder}.")
    parts = {s: folder / n for s, names in split_folders.items() for n in names if (folder / n).is_dir()}
    return {
        split: {child.name: class_images(child) for child in sorted(part.iterdir()) if is_class_folder(child)}
        for split, part in (parts or {"all": folder}).items()
    }


def is_class_folder(path: Path) -> bool:
    """True for a folder that is not hidden."""
    return path.is_dir() and not is_hidden_folder(path.name)


def is_hidden_folder(name: str) -> bool:
    """True for the folders of programs, such as .ipynb_checkpoints and __MACOSX."""
    return name[0] in "._"


def class_images(folder: Path) -> list[Path]:
    """The files in a class folder, at any depth, that are named like images; nothing hidden."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden_folder(name)]  # the others are not entered
        found += [Path(place, name) for name in names if is_image_name(name)]
    return sorted(found)


def is_image_name(name: str) -> bool:
    """True if a visible file of this name should be an image."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and name[0] != "."


def keep_readable(files: dict[str, dict[str, list[Path]]]) -> tuple[dict[str, dict[str, list[Path]]], list[Path]]:
    """The same without the files that can't be decoded, and those files."""
    every = [path for part in files.values() for paths in part.values() for path in paths]
    answers = dict(zip(every, in_threads(is_readable, every, title="checking images"), strict=True))
    kept = {
        split: {name: [path for path in paths if answers[path]] for name, paths in part.items()}
        for split, part in files.items()
    }
    return kept, [path for path in every if not answers[path]]


def check_classes(found: dict[str, dict[str, list]], folder: Path) -> list[str]:
    """The class names, the same in every split; raises BadArgument if there are fewer than two."""
    classes = sorted({name for split in found.values() for name in split})
    if len(classes) < 2:
        raise BadArgument(
            f"{folder} has {len(classes)} class folders ({', '.join(classes) or 'none'}); at least two are needed: "
            "one folder of images for each class, directly or inside train, val and test."
        )
    return classes


def cut_missing_splits(found: dict[str, dict[str, list]], *, seed: int) -> dict[str, dict[str, list]]:
    """Cut each missing split from the largest one, the same share of every class."""
    found = {split: {name: list(paths) for name, paths in part.items()} for split, part in found.items()}
    for split, share in SHARES.items():
        if split in found:
            continue
        donor = max(found.values(), key=lambda part: sum(map(len, part.values())))
        generator, found[split] = random.Random(f"{split} {seed}"), {}
        for name, paths in donor.items():
            generator.shuffle(paths)
            count = max(1, round(share * len(paths)))
            found[split][name], donor[name] = sorted(paths[:count]), sorted(paths[count:])
    return found


def check_every_class(images: dict[str, list], classes: list[str], folder: Path) -> None:
    """Raise BadArgument if some class has no image in some split."""
    for split, part in images.items():
        counts = [sum(label == i for _, label in part) for i in range(len(classes))]
        if 0 in counts:
            name = classes[counts.index(0)]
            total = sum(label == classes.index(name) for part in images.values() for _, label in part)
            raise BadArgument(
                f"Class {name!r} in {folder} has {total} readable images and none for the split {split}; "
                "every class needs at least three, one for each of train, validation and test."
            )


# ----------------------------------------------------------------------------- image to tensor


def eval_transform(size: int) -> v2.Transform:
    """Image to normalized tensor (3, size, size): the whole of it, squeezed to a square if it is none.

    Most programs cut out the middle instead, and lose what stands beside it (measured: results/README.md). It is a
    tensor before it is resized: PyTorch resizes it faster than Pillow, to within one of 255 levels.
    """
    return v2.Compose([v2.ToImage(), v2.Resize((size, size)), *to_normalized()])


def train_transform(size: int) -> v2.Transform:
    """As `eval_transform`, but every time another crop, perhaps mirrored, in slightly other light."""
    return v2.Compose([
        to_square,
        v2.RandomResizedCrop(size, scale=(0.5, 1.0), ratio=(0.8, 1.25)),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
        v2.ToImage(),
        *to_normalized(),
    ])  # fmt: skip


def to_square(image: Image.Image) -> Image.Image:
    """The whole image, its longer side squeezed to the shorter one."""
    side = min(image.size)
    return image if image.width == image.height else image.resize((side, side), Image.Resampling.BILINEAR)


def to_normalized() -> list[v2.Transform]:
    """A tensor of 8-bit RGB to float32 in [0, 1], then ImageNet's mean taken off and divided by its deviation."""
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD, inplace=True)]


def denormalize(tensor: Tensor) -> Tensor:
    """Undo the normalisation of a tensor (…, 3, height, width), for showing it: values in [0, 1]."""
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (tensor.cpu() * std + mean).clamp(0, 1)


class ImageDataset(Dataset):
    """Pairs of (path, label) as pairs of (tensor, label)."""

    def __init__(self, images: list[tuple[Path, int]], transform: v2.Transform, *, size: int):
        self.images, self.transform, self.size = images, transform, size

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.images[index]
        return self.transform(self.load(path)), label

    def load(self, path: Path) -> Image.Image:
        """The image in a file, of which a random crop still has enough pixels to be seldom enlarged."""
        return load_image(path, at_least=round(1.3 * self.size))

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        """A whole batch, as DataLoader asks for it: files are decoded in threads, unless this is a worker process.

        The transform goes through the images in their order, because its random numbers come in that of the seed.
        """
        paths, labels = zip(*(self.images[index] for index in indices), strict=True)
        decoded = map(self.load, paths) if get_worker_info() else decoders().map(self.load, paths)
        return list(zip(map(self.transform, decoded), labels, strict=True))


def make_loaders(
    splits: Splits,
    size: int,
    *,
    batch_size: int | None = None,
    augment: bool = True,
    seed: int = 0,
    workers: int | None = None,
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Loaders of (images, labels) batches for train, validation and test.

    Batches are float32 (batch, 3, size, size) and int64 (batch,). Only train is shuffled, by `seed`, and augmented.
    `batch_size` is 32 by default, or 16 for fewer than 1,000 images: an epoch of large batches has too few steps.
    `workers`: processes that decode, by default as `default_workers` says.
    """
    batch_size = batch_size or (16 if len(splits.train) < 1000 else 32)
    train = ImageDataset(splits.train, train_transform(size) if augment else eval_transform(size), size=size)
    others = [ImageDataset(part, eval_transform(size), size=size) for part in (splits.validation, splits.test)]
    options = {"num_workers": default_workers(len(splits.train)) if workers is None else workers}
    options |= {"pin_memory": torch.cuda.is_available()}
    shuffled = {"shuffle": True, "generator": torch.Generator().manual_seed(seed)}
    return (
        DataLoader(train, batch_size, **shuffled, **options),
        *(DataLoader(part, 2 * batch_size, **options) for part in others),
    )


def default_workers(images: int) -> int:
    """Processes that decode images while a GPU computes: none for small data, or where processes start slowly.

    Without a GPU there are none: `ImageDataset` decodes in threads, and both need the same cores.
    """
    # On Windows and macOS each worker starts Python anew, and in a notebook it may never come up.
    if sys.platform != "linux" or images < 1000 or not torch.cuda.is_available():
        return 0
    return min(8, cores())
