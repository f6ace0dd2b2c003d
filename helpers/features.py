"""What a frozen base says about each image: computed once, kept on disk, read back in seconds."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler, Subset
from tqdm import tqdm

from .data import default_workers
from .downloads import only_one
from .images import register_formats, stream
from .models import fingerprint
from .precision import autocast, choose_precision, to_device
from .quantization import int8_pays, quantize
from .settings import COURSE_ROOT, BadArgument, CourseError, best_device, first_line

FEATURES = COURSE_ROOT / "data" / "features"  # may be deleted at any time: it is computed anew
BATCH = {"thread": 8, "all threads": 32, "gpu": 128}  # images at once, at most
DIGITS = 32  # of an image's digest
HALF_MAX = torch.finfo(torch.float16).max
# What CUDA, MPS, cuDNN (two ways) and the CPU (two ways) say when memory ends.
OUT_OF_MEMORY = (
    "out of memory", "ALLOC_FAILED", "unable to find an engine", "can't allocate memory", "not enough memory",
)  # fmt: skip

# Each view is another look at the same image, made from the batch (n, 3, height, width) that was decoded once.
VIEWS = {
    "plain": lambda images: images,
    "flip": lambda images: images.flip(-1),
    "zoom": lambda images: zoom(images),
    "zoom-flip": lambda images: zoom(images).flip(-1),
}


def zoom(images: Tensor) -> Tensor:
    """The middle of each image, 4/5 of its height and width, enlarged to full size."""
    height, width = images.shape[-2:]
    middle = images[..., height // 10 : height - height // 10, width // 10 : width - width // 10]
    return F.interpolate(middle, size=(height, width), mode="bilinear")


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


def extract_features(
    base: nn.Module,
    loader: DataLoader,
    *,
    views: tuple[str, ...] = ("plain",),
    precision: str = "fast",
    device: torch.device | None = None,
    folder: Path | None = None,
    report=print,
) -> Features:
    """The base's output for every image of the loader, in the order of its dataset; stored in `folder`.

    An image is found again by its content, so one that was seen before, under any name, is not computed again,
    and a changed one is. Other weights, layers, preprocessing, views or precision are stored apart. A run that
    was stopped goes on where it was; a second process waits and then finds the work done.
    `views`: names from VIEWS. `precision`: "float32" is exact; "fast" is bfloat16 or float16 where that is faster, and
    8 bits where a heavy base gains by them on a CPU (see `quantization`). The features are kept as float16 after a
    fast pass, else as float32; memory does not grow with their number.
    Raises BadArgument for a wrong option or a loader that augments, CourseError if the disk can't be written.
    """
    if unknown := set(views) - set(VIEWS):
        raise BadArgument(f"Unknown view {min(unknown)!r}. Choose from: {', '.join(VIEWS)}.")
    check_not_random(loader.dataset)
    folder, device = folder or FEATURES, device or best_device()
    base = base.to(device, memory_format=torch.channels_last).eval()
    dtype = base_precision(base, loader.dataset, device, precision)
    digests = [content_digest(path) for path, _ in loader.dataset.images]
    store = Store(folder / store_key(base, loader.dataset.transform, views, dtype), half=dtype is not None)
    network = quantize(base) if dtype == torch.int8 else base
    through = Halving(partial(forward, network, views=views, precision=precision, device=device), report)
    try:
        with store.lock():
            missing = store.missing(digests)
            with (
                closing(compute(through, loader.dataset, list(missing.values()), device)) as batches,
                tqdm(total=len(missing), desc="features", unit=" images", disable=len(missing) < 1000) as bar,
            ):
                store.append(list(missing), batches, progress=bar.update)
            stored, row_of = store.read()
    except OSError as error:
        cause = first_line(error)
        raise CourseError(f"Could not keep features in {folder} ({cause}). Make room there.") from error
    labels = torch.tensor([label for _, label in loader.dataset.images])
    return Features(stored, torch.tensor([row_of[digest] for digest in digests]), labels)


def feature_loader(features: Features, *, batch_size: int = 64, seed: int | None = None) -> DataLoader:
    """Batches of (features, labels) for `fit` and `evaluate`; shuffled if a seed is given."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    order = SequentialSampler(features) if seed is None else RandomSampler(features, generator=generator)
    # A whole batch is read from the file at once: its indices are the sampler's item.
    return DataLoader(features, batch_size=None, sampler=BatchSampler(order, batch_size, False), generator=generator)


# ----------------------------------------------------------------------------------- what is it?


def content_digest(path: Path) -> str:
    """Hexadecimal digits of the SHA-256 of a file's bytes."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:DIGITS]


def store_key(base: nn.Module, transform, views: tuple[str, ...], dtype: torch.dtype | None) -> str:
    """Another key for all that changes a feature: weights, layers, preprocessing, views, precision."""
    parts = [fingerprint(base), repr(base), repr(transform), repr(views), repr(dtype)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def check_not_random(dataset: Dataset) -> None:
    """Raise BadArgument if the dataset gives another tensor each time: nothing fixed could be stored."""
    if len(dataset) and not torch.equal(dataset[0][0], dataset[0][0]):
        raise BadArgument("This loader augments its images. Make it with augment=False, and choose `views` instead.")


def base_precision(base: nn.Module, dataset: Dataset, device: torch.device, precision: str) -> torch.dtype | None:
    """As `choose_precision`, but torch.int8 where a CPU is clearly faster so with this base."""
    dtype = choose_precision(device, precision)
    asked = precision == "fast" and device.type == "cpu" and len(dataset)
    return torch.int8 if asked and int8_pays(base, dataset[0][0], autocast(device)) else dtype


# -------------------------------------------------------------------------------- compute, store


def compute(through: Callable, dataset: Dataset, positions: list[int], device: torch.device) -> Iterator[Tensor]:
    """What `through` makes of the images at those positions, batch by batch, in their order."""
    return (on_cpu if device.type == "cpu" else on_gpu)(through, dataset, positions)


def on_cpu(through: Callable, dataset: Dataset, positions: list[int]) -> Iterator[Tensor]:
    """Each of torch's threads takes a batch of its own, from the files to the features.

    If they shared the layers of one batch, each layer would end when the slowest of them is done, and on a computer
    that does other things too there is always one that was held up.
    """

    def work(batch: list[int]) -> Tensor:
        return through(torch.stack([dataset[position][0] for position in batch]))

    register_formats()
    threads = torch.get_num_threads()
    size = max(1, min(BATCH["thread"], BATCH["all threads"] // threads))
    alone = {"initializer": torch.set_num_threads, "initargs": (1,)}
    try:
        yield from stream(work, BatchSampler(positions, size, drop_last=False), threads, **alone)
    finally:
        torch.set_num_threads(threads)


def on_gpu(through: Callable, dataset: Dataset, positions: list[int]) -> Iterator[Tensor]:
    """Large batches, decoded by worker processes where they suit the system."""
    options = {"num_workers": default_workers(len(positions)), "pin_memory": torch.cuda.is_available()}
    for images, _ in DataLoader(Subset(dataset, positions), BATCH["gpu"], **options):
        yield through(images)


class Halving:
    """`work` on a batch, in parts if memory runs out: halved until they fit, and so are all later batches."""

    def __init__(self, work: Callable, report: Callable):
        self.work, self.report = work, report
        self.most = None  # images at once; not known before memory runs out

    def __call__(self, images: Tensor) -> Tensor:
        done = []
        while sum(map(len, done)) < len(images):
            part = images[sum(map(len, done)) :][: self.most]
            try:
                done.append(self.work(part))
            except RuntimeError as error:
                if len(part) == 1 or not is_out_of_memory(error):
                    raise
                self.halve(len(part))
        return torch.cat(done)

    def halve(self, count: int) -> None:
        """Remember that so many images are too many, and say so once."""
        if self.most is None or self.most > count // 2:  # else another thread was first
            self.most = count // 2
            self.report(f"Out of memory: going on with {self.most} images at once.")


@torch.inference_mode()
def forward(base: nn.Module, images: Tensor, *, views, precision: str, device: torch.device) -> Tensor:
    """The features (n, views, …) of one batch, float32 on the CPU."""
    images = to_device(images, device)
    with autocast(device, precision):
        return torch.stack([base(VIEWS[view](images)).float().cpu() for view in views], dim=1)


def is_out_of_memory(error: RuntimeError) -> bool:
    """True for the errors that CUDA, MPS and the CPU raise when memory ends."""
    return any(words in str(error) for words in OUT_OF_MEMORY)


class Store:
    """A folder with rows of features in one growing file, and the digests of their images in another.

    A row counts once its digest stands there as a whole line; what a killed process left beyond that is cut off.
    """

    def __init__(self, folder: Path, *, half: bool):
        self.folder, self.dtype = folder, numpy.float16 if half else numpy.float32
        self.row_file, self.digest_file, self.shape_file = folder / "rows", folder / "digests", folder / "shape"

    def lock(self) -> AbstractContextManager:
        """For one process at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return only_one(self.folder / "features")

    def digests(self) -> list[str]:
        """The digests of the stored rows, in their order."""
        lines = self.digest_file.read_text().split("\n") if self.digest_file.exists() else [""]
        return lines[:-1]  # what follows the last line break is empty, or a part of a digest

    def shape(self) -> tuple[int, ...]:
        """The shape of one row: (views, …)."""
        return tuple(map(int, self.shape_file.read_text().split()))

    def missing(self, digests: list[str]) -> dict[str, int]:
        """Each digest that is not stored, once, with its place in the list."""
        known = set(self.digests())
        return {digest: place for place, digest in enumerate(digests) if digest not in known}

    def append(self, digests: list[str], batches: Iterator[Tensor], *, progress: Callable) -> None:
        """Write the rows of each batch, and only then their digests, which make them count."""
        known, start = self.digests(), 0
        for batch in batches:
            if self.dtype == numpy.float16:
                batch = batch.clamp(-HALF_MAX, HALF_MAX)
            array = batch.numpy().astype(self.dtype)
            if not known and not start:
                self.shape_file.write_text(" ".join(map(str, array.shape[1:])))
            count, row_bytes = len(known) + start, array[0].nbytes
            write_at(self.row_file, count * row_bytes, array.tobytes())
            names = "".join(f"{digest}\n" for digest in digests[start : start + len(array)])
            write_at(self.digest_file, count * (DIGITS + 1), names.encode())
            start += len(array)
            progress(len(array))

    def read(self) -> tuple[numpy.ndarray, dict[str, int]]:
        """The rows, memory-mapped, and where in them each image stands."""
        digests = self.digests()
        rows = numpy.memmap(self.row_file, self.dtype, mode="r", shape=(len(digests), *self.shape()))
        return rows, {digest: row for row, digest in enumerate(digests)}


def write_at(file: Path, position: int, content: bytes) -> None:
    """Write into a file at a position, and end it there."""
    with open(file, "r+b" if file.exists() else "wb") as opened:
        opened.seek(position)
        opened.write(content)
        if opened.tell() < file.stat().st_size:
            opened.truncate()
