"""Transfer: what a frozen base says about each image, computed once and kept on disk, and how a head learns from it."""

import math
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy
import PIL
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, WeightedRandomSampler
from tqdm import tqdm

from .data import IMAGENET_MEAN, IMAGENET_STD, EvalTransform, ImageDataset, Splits, digest_of, read, stream
from .distributed import collected, gather, once, rank, world
from .downloads import only_one
from .models import Standardize, expected_images, fingerprint
from .settings import FEATURES, BadArgument, CourseError, best_device, choose_precision, first_line
from .training import autocast, is_out_of_memory, own_randomness, placed, to_device

# A view is another look at the same image, made from the batch that was decoded once:
# (how much is cut off at each border, in percent, and the rest enlarged; mirrored or not).
VIEWS = {"plain": (0, False), "flip": (0, True), "zoom": (10, False), "zoom-flip": (10, True)}
PLAIN, MIRRORED, ALL = ("plain",), ("plain", "flip"), tuple(VIEWS)


# ----------------------------------------------------------------------------------- the recipes


@dataclass(frozen=True)
class TransferRecipe:
    """How a backbone is transferred: found on validation images, over five seeds (results/README.md)."""

    head: str  # of HEADS
    views: tuple[str, ...]  # of VIEWS; those of each training image
    learning_rate: float
    test_views: tuple[str, ...] = PLAIN  # of each image to be named; the answers are averaged
    mean: tuple[float, ...] = field(default=IMAGENET_MEAN, repr=False)  # that the images are normalised with
    std: tuple[float, ...] = field(default=IMAGENET_STD, repr=False)


LARGE = TransferRecipe("linear", MIRRORED, 3e-3)
SMALL = TransferRecipe("linear", ALL, 3e-3, test_views=MIRRORED)
OTHERS = TransferRecipe("linear", MIRRORED, 3e-3, test_views=MIRRORED)
LEARNING_RATES = {"timm:tf_efficientnet_lite0": 1e-3}  # where another one than that of OTHERS was found better


class Recipes(dict):
    """Name of a backbone to its recipe; one that has none of its own gets OTHERS, with the colours it expects."""

    def __missing__(self, name: str) -> TransferRecipe:
        expected, rate = expected_images(name), LEARNING_RATES.get(name, OTHERS.learning_rate)
        return replace(OTHERS, learning_rate=rate, mean=expected["mean"], std=expected["std"])


TRANSFER_RECIPES = Recipes(vgg16=LARGE, vgg16_bn=LARGE, squeezenet1_1=SMALL, resnet18=SMALL)


def feature_loaders(
    base: nn.Module, splits: Splits, size: int, recipe: TransferRecipe, *, balanced: bool = False, **options
) -> tuple[DataLoader, DataLoader, DataLoader]:
    """Loaders of (features, labels) batches: train in the recipe's views, validation and test in its test views.

    `balanced`: train draws each class equally often. `options`: of `extract_features`.
    """
    transform, loaders = EvalTransform(size, recipe.mean, recipe.std), []
    for name, part in splits.parts().items():
        images = ImageDataset(part, transform, size=size, digests=splits.digests)
        learn = name == "train"
        features = extract_features(base, images, views=recipe.views if learn else recipe.test_views, **options)
        loaders.append(feature_loader(features, shuffle=learn, balanced=learn and balanced))
    return tuple(loaders)


def standardize(head: nn.Module, features: "Features") -> None:
    """Give the head's Standardize layers, if it has any, the exact mean and variance of the features."""
    for layer in head.modules():
        if isinstance(layer, Standardize):
            layer.learn(*features.mean_and_variance())


# ------------------------------------------------------------------------- a head for few images

PENALTIES = torch.logspace(-4, 2, 13, dtype=torch.float64)


def ridge_head(
    features: Tensor, labels: Tensor, *, kinds: int = 2, penalties: Tensor = PENALTIES
) -> tuple[nn.Linear, float]:
    """A linear layer for features (images, numbers), and its penalty, which has the smallest leave-one-out error."""
    # Each kind of number, such as averages and maxima, has one deviation: few images can't tell each feature's.
    x, y = features.double(), F.one_hot(labels).double()
    mean, center = x.mean(0), y.mean(0)
    deviation = (x - mean).unflatten(1, (kinds, -1)).square().mean((0, 2)).sqrt().clamp_min(1e-12)
    scale = (deviation * x.shape[1] ** 0.5).repeat_interleave(x.shape[1] // kinds)
    rows = (x - mean) / scale
    energies, directions = torch.linalg.eigh(rows @ rows.T)
    losses = [leave_one_out(energies, directions, y - center, penalty) for penalty in penalties]
    penalty = penalties[len(losses) - 1 - int(torch.stack(losses).flip(0).argmin())]  # of equal ones the strongest
    inner = directions / (energies.clamp_min(0) + penalty * len(x)) @ directions.T
    weight = (rows.T @ inner @ (y - center)) / scale[:, None]
    head = nn.Linear(*weight.shape)
    head.load_state_dict({"weight": weight.T, "bias": center - mean @ weight})
    return head, penalty.item()


def leave_one_out(energies: Tensor, directions: Tensor, y: Tensor, penalty: Tensor) -> Tensor:
    """The mean squared error on each image by a ridge regression on all others, exactly (PRESS, Allen 1974)."""
    shares = energies.clamp_min(0) / (energies.clamp_min(0) + penalty * len(y))
    errors = y - directions * shares @ (directions.T @ y)
    own_weight = directions.square() @ shares + 1 / len(y)
    return (errors / (1 - own_weight)[:, None]).square().mean()


# ---------------------------------------------------------------------------------- the features


@dataclass(frozen=True)
class Features(Dataset):
    """The stored features of some images; an item is (feature, label), for one index or for a list of them."""

    stored: numpy.ndarray  # (stored images, views, *shape of a feature), memory-mapped
    rows: Tensor  # (images,): where each image stands in `stored`
    labels: Tensor  # (images,), int64

    @property
    def views(self) -> int:
        """How many views of each image there are."""
        return self.stored.shape[1]

    def __len__(self) -> int:
        """Every view of every image counts, the first view of all images first."""
        return len(self.rows) * self.views

    def __getitem__(self, index) -> tuple[Tensor, Tensor]:
        view, image = divmod(torch.as_tensor(index).numpy(), len(self.rows))
        feature = self.stored[self.rows.numpy()[image], view]
        return torch.from_numpy(numpy.array(feature, dtype=numpy.float32)), self.labels[image]

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Of each number in a feature, over all views of all images: exact, in float64."""
        parts = [list(part) for part in BatchSampler(range(len(self)), 4096, drop_last=False)]
        mean = sum(self[part][0].double().sum(0) for part in parts) / len(self)
        return mean, sum((self[part][0].double() - mean).square().sum(0) for part in parts) / len(self)


def feature_loader(features: Features, *, batch_size=64, shuffle=False, balanced=False) -> DataLoader:
    """Batches of (features, labels); `balanced`: each class is drawn equally often, those of a rare one repeatedly."""
    order = RandomSampler(features) if shuffle else SequentialSampler(features)
    if balanced:
        labels = features.labels.repeat(features.views)
        order = WeightedRandomSampler((1 / labels.bincount())[labels], len(labels))
    # A whole batch is read from the file at once: its indices are the sampler's item.
    return DataLoader(features, batch_size=None, sampler=BatchSampler(order, batch_size, False))


def extract_features(
    base: nn.Module,
    images: ImageDataset | DataLoader,
    *,
    views: tuple[str, ...] = PLAIN,
    precision: str = "fast",
    device: torch.device | None = None,
    folder: Path | None = None,
    report=print,
) -> Features:
    """The base's output for every image, in the order of the dataset; stored in `folder`. The base is left as it was.

    An image is found again by its content, and not computed again; what another base, size, view, precision, device
    or version computes is stored apart. What a run that was stopped has computed counts; a second process waits.
    Raises BadArgument for a wrong option or a dataset that augments, CourseError if the disk can't be written.
    """
    dataset, folder = images.dataset if isinstance(images, DataLoader) else images, folder or FEATURES
    check_images(dataset, views)
    device = device or best_device()
    precision = choose_precision(device, precision)
    digests = [dataset.digests.get(path) or digest_of(read(path)) for path, _ in dataset.images]
    through = Halving(partial(forward, base, views=views, precision=precision, device=device), report)
    with own_randomness(), placed(base, device):
        example = example_of(through, dataset)
        key = store_key(base, dataset, views, precision, device, example)
        store = Store(folder / f"{key}.features", example, half=precision != "float32")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with only_one(store.file) if rank() == 0 else nullcontext():
                known = once(lambda: set(store.rows()[1]))
                path_of = {digest: path for digest, (path, _) in zip(digests, dataset.images, strict=True)}
                paths = [path for digest, path in path_of.items() if digest not in known]
                batches = list(BatchSampler(paths, batch_size(device), drop_last=False))
                turns = range(0, len(batches), world())
                with closing(compute(through, dataset, batches[rank() :: world()], device)) as computed:
                    # One batch of each process at a time, so that not all have to be in memory; rank 0 writes.
                    found = (batch for _ in turns for batch in collected([next(computed, None)]) if rank() == 0)
                    store.append(found, images=len(paths))
                gather(None)  # the others open the file only now that it is whole
                stored, row_of = store.rows()
        except OSError as error:
            advice = "Make room there, or name another folder in COURSE_CACHE."
            raise CourseError(f"Could not keep features in {folder} ({first_line(error)}). {advice}") from error
    if digests and not store.file.exists():
        raise CourseError(f"{folder} is not on a disk that all machines share. Name one that is in COURSE_CACHE.")
    if changed := [path for digest, path in path_of.items() if digest not in row_of]:
        raise CourseError(f"{changed[0]} changed while features were computed. Load the splits again.")
    labels = torch.tensor([label for _, label in dataset.images])
    return Features(stored, torch.tensor([row_of[digest] for digest in digests]), labels)


def check_images(dataset: Dataset, views: tuple[str, ...]) -> None:
    """Raise BadArgument for an unknown view, and for images that are not the same at every look."""
    if not views or set(views) - set(VIEWS):
        raise BadArgument(f"views is {views!r}. Choose one or more of: {', '.join(VIEWS)}.")
    transform = getattr(dataset, "transform", None)
    # Its text too: to an EvalTransform, as to any Compose, another transform may have been added.
    if type(transform) is not EvalTransform or repr(transform) != repr(EvalTransform(*transform.key)):
        raise BadArgument(
            "Features are kept of an ImageDataset with eval_transform, whose images are always the same. "
            "Make the loader with augment=False, and choose `views` instead."
        )


def store_key(base: nn.Module, dataset: ImageDataset, views, precision: str, device, example: Tensor) -> str:
    """Another key for all that changes a feature: base, images, views, precision, device, batch size, versions."""
    # What a base does shows in its answer to an example: its layers' text says nothing about code of one's own.
    answer = [tuple(example.shape), digest_of(example.numpy().tobytes())]
    parts = [fingerprint(base), answer, type(dataset).__name__, dataset.size, dataset.transform.key]
    parts += [[VIEWS[view] for view in views], precision, device.type, batch_size(device)]
    parts += [torch.__version__, torchvision.__version__, PIL.__version__]
    return digest_of("\n".join(map(repr, parts)).encode())[:16]


def example_of(through: Callable, dataset: ImageDataset) -> Tensor:
    """The features (views, …) of an image of noise, always the same one, computed in one thread."""
    size = dataset.transform.key[0]
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with one_thread():
        return through(noise)[0]


# ------------------------------------------------------------------------ computed and stored

Batch = tuple[list[str], Tensor]  # the digests of some images, and their features (n, views, …)


def compute(through: Callable, dataset: ImageDataset, batches: list[list[Path]], device) -> Iterator[Batch]:
    """Digests and features of the images in those batches of files, in their order; each file is read once."""
    threads, size = torch.get_num_threads(), batch_size(device)
    if device.type != "cpu":
        with closing(stream(partial(load, dataset), chain.from_iterable(batches), threads)) as items:
            for batch in BatchSampler(items, size, drop_last=False):
                yield through_full(through, batch, size)
        return

    # Each thread takes batches of its own: in the layers of one batch all would wait for the slowest, again and again.
    def work(batch: list[Path]) -> Batch:
        return through_full(through, [load(dataset, path) for path in batch], size)

    with one_thread():
        yield from stream(work, batches, threads, initializer=torch.set_num_threads, initargs=(1,))


def batch_size(device: torch.device) -> int:
    """How many images go through the base at once; on a CPU at most 32 in all of torch's threads."""
    threads = torch.get_num_threads()
    return {"cuda": 128, "mps": 32}.get(device.type) or max(1, min(8, 32 // threads))


def through_full(through: Callable, batch: list[tuple[str, Tensor]], size: int) -> Batch:
    """Digests and features of a batch, which is filled up to its size with its last image."""
    digests, images = map(list, zip(*batch, strict=True))
    # Else a feature would depend, in its last digits, on how many others are computed with it.
    images += [images[-1]] * (size - len(images))
    return digests, through(torch.stack(images))[: len(digests)]


@contextmanager
def one_thread() -> Iterator[None]:
    """For a while torch computes in one thread, afterwards in as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def load(dataset: ImageDataset, path: Path) -> tuple[str, Tensor]:
    """The digest and the tensor of one file, of the same bytes."""
    content = read(path)
    return digest_of(content), dataset.transform(dataset.decode(content, path))


@torch.inference_mode()
def forward(base: nn.Module, images: Tensor, *, views, precision: str, device: torch.device) -> Tensor:
    """The features (n, views, …) of one batch, float32 on the CPU."""
    images = to_device(images, device)
    with autocast(device, precision):
        return torch.stack([base(look(images, view)).float().cpu() for view in views], dim=1)


def look(images: Tensor, view: str) -> Tensor:
    """One of VIEWS of a batch (n, 3, height, width)."""
    percent, mirrored = VIEWS[view]
    if percent:
        height, width = images.shape[-2:]
        top, left = height * percent // 100, width * percent // 100
        middle = images[..., top : height - top, left : width - left]
        images = F.interpolate(middle, size=(height, width), mode="bilinear")
    return images.flip(-1) if mirrored else images


class Halving:
    """`work` on a batch, in parts if memory runs out: halved until they fit, and so are all later batches."""

    def __init__(self, work: Callable, report: Callable):
        self.work, self.report, self.most = work, report, math.inf  # images at once

    def __call__(self, images: Tensor) -> Tensor:
        if len(images) > self.most:
            return torch.cat([self(part) for part in images.split(self.most)])
        try:
            return self.work(images)
        except RuntimeError as error:
            if len(images) == 1 or not is_out_of_memory(error):
                raise
        if self.most > len(images) // 2:  # else another thread was first
            self.most = len(images) // 2
            self.report(f"Out of memory: going on with {self.most} images at once.")
        return self(images)


class Store:
    """A file of records: an image's digest, its feature (views, …), and a checksum, without which it does not count."""

    def __init__(self, file: Path, example: Tensor, *, half: bool):
        self.file = file
        feature = ("feature", "<f2" if half else "<f4", tuple(example.shape))
        self.record = numpy.dtype([("digest", "S64"), feature, ("checksum", "<u4")])

    def rows(self) -> tuple[numpy.ndarray, dict[str, int]]:
        """All features, memory-mapped, and where in them each image stands that counts."""
        count = self.file.stat().st_size // self.record.itemsize if self.file.exists() else 0
        if not count:
            return numpy.empty((0, *self.record["feature"].shape)), {}
        records = numpy.memmap(self.file, self.record, mode="r", shape=(count,))
        whole = [row for row, one in enumerate(records) if checksum(one) == one["checksum"]]
        return records["feature"], dict(zip(map(bytes.decode, records["digest"][whole]), whole, strict=True))

    def append(self, batches: Iterator[Batch], *, images: int) -> None:
        """Write the records of each batch behind those that are there, and see them safe on the disk."""
        with tqdm(total=images, desc="features", unit=" images", disable=images < 1000) as bar:
            for digests, features in batches:
                records = numpy.zeros(len(digests), self.record)
                if records["feature"].dtype == numpy.float16:
                    most = torch.finfo(torch.float16).max
                    features = features.clamp(-most, most)
                records["digest"], records["feature"] = digests, features.numpy()
                records["checksum"] = [checksum(one) for one in records]
                with open(self.file, "r+b" if self.file.exists() else "wb") as out:
                    # From the end of the last whole record on: one that was cut is written over.
                    out.seek(out.seek(0, os.SEEK_END) // self.record.itemsize * self.record.itemsize)
                    out.write(records.tobytes())
                    out.flush()
                    os.fsync(out.fileno())
                bar.update(len(digests))


def checksum(record: numpy.void) -> int:
    """The CRC-32 of a record's digest and feature."""
    return zlib.crc32(record.tobytes()[:-4])
