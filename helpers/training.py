"""Train and evaluate: `fit`, `evaluate`, the history of a training run, and learning rates."""

import copy
import io
import math
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import ConstantLR, ExponentialLR, LRScheduler, OneCycleLR
from torch.utils.data import DataLoader

from .data import dealt, with_batches
from .distributed import collected, gather, once, rank, world
from .downloads import write_whole
from .models import BATCH_NORM, check_freezing, is_frozen, named_parts
from .settings import BadArgument, CourseError, Stopped, best_device, choose_precision, format_table

OPTIMIZERS = {"adamw": AdamW, "sgd": partial(SGD, momentum=0.9, nesterov=True)}
SCHEDULES = ("one-cycle", "constant")


# ------------------------------------------------------------------------------------- evaluate


@dataclass(frozen=True)
class Evaluation:
    """What a model says about every image of a loader, in the loader's order."""

    probabilities: Tensor  # (images, classes), float32
    labels: Tensor  # (images,), int64

    @property
    def predictions(self) -> Tensor:
        """The most probable class of each image."""
        return self.probabilities.argmax(1)

    @property
    def accuracy(self) -> float:
        """The share of images whose most probable class is the right one, in [0, 1]."""
        return (self.predictions == self.labels).double().mean().item()

    @property
    def log_loss(self) -> float:
        """Mean over images of −ln(probability of the right class), in nats."""
        right = self.probabilities[torch.arange(len(self.labels)), self.labels]
        return -right.double().clamp_min(1e-12).log().mean().item()

    def mean_over(self, views: int) -> "Evaluation":
        """One answer for each image, the mean over its views; the first views of all images come first."""
        probabilities = self.probabilities.unflatten(0, (views, -1)).mean(0)
        return Evaluation(probabilities, self.labels[: len(probabilities)])

    def __repr__(self) -> str:
        return f"accuracy {self.accuracy:.3f}, log loss {self.log_loss:.3f} on {len(self.labels)} images"


def evaluate(model: nn.Module, loader: DataLoader, *, device=None, precision="fast") -> Evaluation:
    """Show the model every image once, in eval mode, without gradients; CourseError if the loader leaves images out."""
    device, batches = device or best_device(), []
    with own_randomness(loader), placed(model, device), torch.inference_mode(), autocast(device, precision):
        for images, labels in dealt(loader):
            batches.append((at_least_float32(model(to_device(images, device))).cpu(), labels))
    batches = collected(batches)
    seen, expected = sum(len(labels) for _, labels in batches), len(loader.dataset)
    if seen != expected or not seen:
        raise CourseError(f"The loader gave {seen} of {expected} images. Is drop_last on?")
    logits, labels = map(torch.cat, zip(*batches, strict=True))
    return Evaluation(logits.softmax(1), labels)


# ---------------------------------------------------------------------- device, precision, chance


def to_device(batch: Tensor, device: torch.device) -> Tensor:
    """A batch on the device; images channels last in memory, the order in which convolutions are fastest."""
    layout = torch.channels_last if batch.dim() == 4 else torch.contiguous_format
    # Only CUDA keeps the source until the copy is done; an Apple GPU would read memory that is free again.
    return batch.to(device, non_blocking=device.type == "cuda", memory_format=layout)


def at_least_float32(tensor: Tensor) -> Tensor:
    """As float32, if it is not float64."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


@contextmanager
def placed(model: nn.Module, device: torch.device | None = None) -> Iterator[torch.device]:
    """The model on the device, in eval mode, for a while; then where and how it was, each layer in the mode it had."""
    device = device or best_device()
    parameters, modes = list(model.parameters()), {layer: layer.training for layer in model.modules()}
    home = parameters[0].device if parameters else device
    contiguous = all(parameter.is_contiguous() for parameter in parameters)
    try:
        model.eval().to(device, memory_format=torch.channels_last)
        yield device
    finally:
        model.to(home, memory_format=torch.contiguous_format if contiguous else torch.preserve_format)
        for layer, training in modes.items():
            layer.training = training


@contextmanager
def autocast(device: torch.device, precision: str = "fast") -> Iterator[None]:
    """The context in which convolutions and matrix products use the chosen precision."""
    name = choose_precision(device, precision)
    lower = nullcontext() if name == "float32" else torch.autocast(device.type, dtype=getattr(torch, name))
    with exact_convolutions(device, name), lower:
        yield


@contextmanager
def exact_convolutions(device: torch.device, precision: str) -> Iterator[None]:
    """In float32, no rounding of a convolution's inputs to 10 binary digits (TF32), as CUDA does by default."""
    if device.type != "cuda" or precision != "float32":  # on a CPU, threads would change the flag under each other
        yield
        return
    # PyTorch 2.9 and later have a new flag, and refuse to read the old one where a user has set the new.
    new = getattr(torch.backends.cudnn, "conv", None)
    flags, name, exact = (new, "fp32_precision", "ieee") if new else (torch.backends.cudnn, "allow_tf32", False)
    before = getattr(flags, name)
    setattr(flags, name, exact)
    try:
        yield
    finally:
        setattr(flags, name, before)


def is_out_of_memory(error: Exception) -> bool:
    """True for the errors that Python, CUDA, MPS, cuDNN (two ways) and the CPU (two ways) raise when memory ends."""
    words = "out of memory|ALLOC_FAILED|unable to find an engine|can't allocate memory|not enough memory"
    return isinstance(error, MemoryError) or bool(re.search(words, str(error)))


@contextmanager
def own_randomness(loader: DataLoader | None = None, *, seed: int | None = None) -> Iterator[None]:
    """Random numbers for a while; torch's global ones, and a loader's own, are then as they were."""
    apple = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    own, images = getattr(loader, "generator", None), getattr(loader, "dataset", None)
    order, of_images = own and own.get_state(), getattr(images, "seed", None)
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            if seed is not None:
                set_seed(seed, loader)
            yield
        finally:
            if own:
                own.set_state(order)
            if of_images is not None:
                images.seed = of_images
            if apple is not None:
                torch.mps.set_rng_state(apple)


def set_seed(seed: int, loader: DataLoader | None = None) -> None:
    """Start torch's random numbers anew, and those that a loader or its dataset has of its own."""
    torch.manual_seed(seed)
    if getattr(loader, "generator", None):
        loader.generator.manual_seed(seed)
    if getattr(getattr(loader, "dataset", None), "seed", None) is not None:
        loader.dataset.seed = seed


# ------------------------------------------------------------------------------------------ fit


@dataclass
class History:
    """One row for each epoch of a training run; prints as a table and plots itself."""

    rows: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    seconds_before: float = 0.0  # what came before the first epoch, such as the features of a frozen base
    precision: str = "float32"
    stopped: bool = False  # by Ctrl-C, or a notebook's Stop

    @property
    def lowest_loss(self) -> float:
        """The lowest validation loss of all epochs; infinite before the first."""
        return min((row["validation_loss"] for row in self.rows), default=math.inf)

    @property
    def seconds(self) -> float:
        """How long the run took, validation and what came before the first epoch included."""
        return self.seconds_before + sum(row["seconds"] for row in self.rows)

    def __repr__(self) -> str:
        shown = [
            [f"{row['epoch']}{' *' if row['epoch'] == self.best_epoch else '  '}"]
            + [f"{row[key]:.3f}" for key in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")]
            for row in self.rows
        ]
        header = ["epoch", "train loss", "train accuracy", "validation loss", "validation accuracy"]
        lowest = self.rows and self.rows[self.best_epoch - 1]["validation_loss"] == self.lowest_loss
        return f"{format_table(header, shown)}\n* kept: {'the lowest validation loss' if lowest else 'the last epoch'}"

    def plot(self, title: str = "Learning curves"):
        """The learning curves as a matplotlib figure."""
        from .plots import learning_curves  # here, because only a reader who plots needs matplotlib

        return learning_curves({title: self})


def fit(
    model: nn.Module,
    train_loader: DataLoader,
    validation_loader: DataLoader,
    *,
    epochs: int,
    learning_rate: float | list[dict] = 1e-3,
    schedule: str = "one-cycle",
    weight_decay: float = 0.01,
    label_smoothing: float = 0.0,
    seed: int = 0,
    device: torch.device | None = None,
    precision: str = "fast",
    report: Callable[[str], None] = print,
    checkpoint: "Checkpoint | None" = None,
) -> History:
    """Train what is not frozen, with AdamW; the model ends, after Ctrl-C too, with its best epoch on validation.

    `learning_rate`: one for all, or groups of parameters with a rate each, as `learning_rates_by_block` makes them.
    `seed`: of the order of the images, augmentation and dropout; torch's own random numbers are left alone.
    `checkpoint`: kept after each epoch, and where the training goes on if there is one already.
    Raises BadArgument for a wrong option or a freezing mistake, CourseError if a loss is no longer a finite number.
    """
    check_options(model, train_loader, epochs)
    device = device or best_device()
    history, parts = History(precision=choose_precision(device, precision)), Parts(train_loader)
    with own_randomness(train_loader), placed(model, device), parts.same_dropout(model):
        optimizer = make_optimizer(model, "adamw", learning_rate, weight_decay)
        scheduler = make_schedule(optimizer, schedule, epochs * len(train_loader))
        learner = DistributedDataParallel(model) if world() > 1 else model
        step = Step(learner, optimizer, scheduler, device, history.precision, label_smoothing)
        states = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "scaler": step.scaler}
        best = (checkpoint and checkpoint.restore(states, history)) or copy_of_weights(model)
        try:
            for epoch in range(len(history.rows) + 1, epochs + 1):
                start = time.perf_counter()
                set_seed(seed_of_epoch(seed, epoch), train_loader)
                row = {"epoch": epoch, **train_one_epoch(step, parts)}
                found = evaluate(model, validation_loader, device=device, precision=history.precision)
                row |= {"validation_loss": found.log_loss, "validation_accuracy": found.accuracy}
                if not math.isfinite(row["train_loss"] + row["validation_loss"]):
                    raise CourseError("The loss is no longer a finite number. Choose a lower learning rate.")
                if row["validation_loss"] < history.lowest_loss:
                    history.best_epoch, best = epoch, copy_of_weights(model)
                history.rows.append(row | {"seconds": time.perf_counter() - start})
                if checkpoint:
                    checkpoint.write(states, history, best)
                report(epoch_line(history.rows[-1], epochs))  # last: what the reader sees is then kept
        except KeyboardInterrupt:
            stop(history, report)
        finally:
            model.load_state_dict(best)
    return history


def check_options(model: nn.Module, loader: DataLoader, epochs: int) -> None:
    """Raise BadArgument for what can't be trained, or not by several processes as one would."""
    check_freezing(model)
    if epochs < 1 or not len(loader):
        raise BadArgument(f"{epochs} epochs of {len(loader)} batches: there is nothing to train on.")
    learning = [layer for layer in model.modules() if isinstance(layer, BATCH_NORM) and not is_frozen(layer)]
    if world() > 1 and learning:
        raise BadArgument("Batch normalisation would see a part of each batch. Use helpers.models.freeze_batch_norm.")
    if world() > 1 and world() > loader.batch_size:
        raise BadArgument(f"{world()} processes can't share batches of {loader.batch_size} images. Start fewer.")


def seed_of_epoch(seed: int, epoch: int) -> int:
    """The seed of one epoch, so that its order and augmentation depend on nothing that came before."""
    return (int(seed) + epoch * 0x9E3779B97F4A7C15) % 2**63  # spreads consecutive numbers far apart


def stop(history: History, report: Callable[[str], None]) -> None:
    """Say what is kept of a training that was stopped; raises Stopped if that is nothing, or others learn along."""
    if world() > 1:
        raise Stopped("Stopped. Go on with --resume") from None
    if not history.rows:
        raise Stopped("Stopped in the first epoch. The weights are those from before.") from None
    history.stopped = True
    report(f"Stopped after epoch {len(history.rows)}. Kept: the weights of epoch {history.best_epoch}.")


def copy_of_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, copied to the CPU's memory."""
    return {key: value.cpu().clone() for key, value in model.state_dict().items()}


@dataclass
class Step:
    """One step of training: what it needs, and what it does with a batch."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler
    device: torch.device
    precision: str
    label_smoothing: float = 0.0

    def __post_init__(self):
        # float16 has no room for small gradients: the loss is enlarged for the way back.
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")

    def __call__(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> tuple[Tensor, Tensor]:
        """Learn from one batch, on the device; returns the loss and the logits. `weight`: of this part of the batch."""
        with autocast(self.device, self.precision):
            logits = self.model(images)
            loss = F.cross_entropy(at_least_float32(logits), labels, label_smoothing=self.label_smoothing)
        self.optimizer.zero_grad()
        with exact_convolutions(self.device, self.precision):
            self.scaler.scale(loss * weight).backward()
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:  # else float16 overflowed, and the optimizer left this batch out
            self.scheduler.step()
        return loss.detach(), logits.detach()


class Parts:
    """A loader's batches, or this rank's images of each: (images, labels, how many of them count, their weight).

    A rank's mean loss times its weight, averaged over the ranks, is the mean loss of the whole batch.
    """

    def __init__(self, loader):
        self.loader, self.size = loader, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int, float]]:
        if world() == 1:
            yield from ((images, labels, len(labels), 1.0) for images, labels in self.loader)
            return
        sizes = deque()

        def mine() -> Iterator[list[int]]:
            for batch in self.loader.batch_sampler:
                sizes.append(len(batch))
                yield batch[rank() :: world()] or batch[:1]  # where there is none for this rank, one that won't count

        for images, labels in with_batches(self.loader, mine()):
            self.size = sizes.popleft()
            count = len(range(rank(), self.size, world()))
            yield images, labels, count, count * world() / self.size

    @contextmanager
    def same_dropout(self, model: nn.Module) -> Iterator[None]:
        """For a while dropout hides, image by image, what it hides in one process with the whole batch."""
        layers = [layer for layer in model.modules() if isinstance(layer, nn.Dropout) and world() > 1]
        for layer in layers:
            layer.forward = partial(self.hide, layer)
        try:
            yield
        finally:
            for layer in layers:
                del layer.forward

    def hide(self, layer: nn.Dropout, x: Tensor) -> Tensor:
        """The layer's output: its random numbers are drawn for the whole batch, and this rank's rows are taken."""
        if not layer.training:
            return x
        layout = torch.channels_last if x.dim() == 4 else torch.contiguous_format
        whole = torch.ones((self.size, *x.shape[1:]), dtype=x.dtype, device=x.device).to(memory_format=layout)
        rows = F.dropout(whole, layer.p)[rank() :: world()]
        return x * (rows if len(rows) else 1)


def train_one_epoch(step: Step, parts: Parts) -> dict:
    """Learn from every image once; returns the means over images on the way."""
    step.model.train()
    loss_sum, correct, seen = torch.zeros((), device=step.device), torch.zeros((), device=step.device), 0
    for images, labels, count, weight in parts:
        labels = to_device(labels, step.device)
        loss, logits = step(to_device(images, step.device), labels, weight)
        # A mean over batches would give the images of a small last batch more weight.
        loss_sum = loss_sum + loss * count
        correct += (logits.argmax(1) == labels)[:count].sum()
        seen += count
    sums = loss_sum.item(), correct.item(), seen
    loss_sum, correct, seen = map(sum, zip(*gather(sums), strict=True))
    return {"train_loss": loss_sum / seen, "train_accuracy": correct / seen}


# ------------------------------------------------------------------------------------ checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """A training after its last whole epoch, as one file, whole or not there, from which `fit` goes on."""

    # It has no random state: what is random in an epoch depends on its number and the seed alone.
    file: Path
    about: dict  # which training it is; another one can't go on from here

    def write(self, parts: dict, history: History, best: dict[str, Tensor]) -> None:
        """Keep the training: `parts` by name, such as the optimizer, which know their state; rank 0 writes."""
        if rank() == 0:
            states, content = {name: part.state_dict() for name, part in parts.items()}, io.BytesIO()
            torch.save({"about": self.about, "history": asdict(history), "best": best, "states": states}, content)
            write_whole(self.file, content.getbuffer())

    def restore(self, parts: dict, history: History) -> dict[str, Tensor] | None:
        """Put the parts and the history back as they were; returns the best weights, or None if there is no file."""
        if (saved := once(self.read)) is None:
            return None
        try:
            for name, part in parts.items():
                part.load_state_dict(saved["states"][name])
            vars(history).update(saved["history"])
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise BadArgument(f"{self.file} is the checkpoint of another network. {self.ADVICE}") from error
        return saved["best"]

    def read(self) -> dict | None:
        """What the file holds, None if it is not there; raises BadArgument if it is damaged, or of another training."""
        if not self.file.is_file():
            return None
        try:
            saved = torch.load(self.file, map_location="cpu", weights_only=True)
            theirs = dict(saved["about"])
        except Exception as error:  # a damaged file makes the unpickler stumble anywhere
            raise BadArgument(f"{self.file} is damaged, or no checkpoint of this course. {self.ADVICE}") from error
        for name, ours in self.about.items():
            if theirs.get(name) != ours:
                raise BadArgument(
                    f"{self.file} is the checkpoint of another training: {name} was {theirs.get(name)}, and is {ours} "
                    f"now. {self.ADVICE}"
                )
        return saved

    ADVICE = "Start anew without --resume, or choose another --out."


# ------------------------------------------------------------------ optimizer and learning rates


def make_optimizer(model: nn.Module, name: str, learning_rate: float | list[dict], weight_decay: float) -> Optimizer:
    """One of OPTIMIZERS over the parameters that are not frozen, all at one rate or in groups."""
    if name not in OPTIMIZERS:
        raise BadArgument(f"Unknown optimizer {name!r}. Choose one of: {', '.join(OPTIMIZERS)}.")
    learning = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not learning:
        raise BadArgument("Every parameter is frozen, so nothing can be trained. Replace the classifier or unfreeze.")
    if not isinstance(learning_rate, list):
        learning_rate = [{"params": [*learning.values()], "lr": learning_rate}]
    groups = [dict(group) for group in learning_rate]  # copies, because a schedule writes its rates into them
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    if left_out := [name for name, parameter in learning.items() if id(parameter) not in grouped]:
        advice = "Make the groups of learning rates after you unfreeze."
        raise BadArgument(f"No learning rate for {len(left_out)} tensors, first {left_out[0]}. {advice}")
    return OPTIMIZERS[name](groups, weight_decay=weight_decay)


def learning_rates_by_block(model: nn.Module, *, head: float, factor: float) -> list[dict]:
    """Parameters in groups: the rate `head` for the classifier, `factor` times it a block before (arXiv:1801.06146)."""
    groups = []
    for distance, (name, layers) in enumerate(reversed(named_parts(model).items())):
        learning = [p for layer in layers for p in layer.parameters() if p.requires_grad]
        if learning:
            groups.append({"params": learning, "lr": head * factor**distance, "part": name})
    return groups


def make_schedule(optimizer: Optimizer, name: str, steps: int) -> LRScheduler:
    """How the learning rate changes from batch to batch; `steps` is the number of batches in all."""
    if name not in SCHEDULES:
        raise BadArgument(f"Unknown schedule {name!r}. Choose one of: {', '.join(SCHEDULES)}.")
    if name == "constant":
        return ConstantLR(optimizer, factor=1.0)
    # Up for the first 30 %, then down to nearly nothing (arXiv:1708.07120).
    highest = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, highest, total_steps=steps + 1, pct_start=0.3)


def epoch_line(row: dict, epochs: int) -> str:
    """One epoch as one line of text."""
    return (
        f"epoch {row['epoch']:2d}/{epochs}  "
        f"train loss {row['train_loss']:.3f}, accuracy {row['train_accuracy']:.3f}  "
        f"validation loss {row['validation_loss']:.3f}, accuracy {row['validation_accuracy']:.3f}  "
        f"({row['seconds']:.1f} s)"
    )


def find_learning_rate(
    model: nn.Module, loader: DataLoader, *, lowest=1e-6, highest=1.0, steps=60, seed=0, device=None, precision="fast"
) -> tuple[list[float], list[float]]:
    """Growing rates at which a copy learns from batch after batch, and the loss before each step (arXiv:1506.01186)."""
    if not 0 < lowest < highest or steps < 2:
        raise BadArgument(f"No way from {lowest:g} to {highest:g} in {steps} steps: take two or more, up from above 0.")
    check_options(model, loader, epochs=1)
    twin, device, rates, losses = copy.deepcopy(model), device or best_device(), [], []
    with own_randomness(loader, seed=seed), placed(twin, device):
        optimizer = make_optimizer(twin, "adamw", lowest, weight_decay=0.0)
        growth = ExponentialLR(optimizer, (highest / lowest) ** (1 / (steps - 1)))
        step = Step(twin, optimizer, growth, device, choose_precision(device, precision))
        for batch in islice(chain.from_iterable(repeat(loader)), steps):
            rate = optimizer.param_groups[0]["lr"]
            loss = train_one_epoch(step, Parts([batch]))["train_loss"]
            if not math.isfinite(loss):
                break
            rates.append(rate)
            losses.append(loss)
            if loss > 4 * losses[0]:  # it explodes
                break
    return rates, losses
