"""Train and evaluate: `fit`, `evaluate`, the history of a training run, and learning rates."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice, repeat

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from .models import check_freezing, named_parts
from .precision import autocast, choose_precision, to_device
from .settings import BadArgument, CourseError, best_device
from .tables import format_table

OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("one-cycle", "cosine", "constant")
KEEP = ("best", "last")


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
        """One answer for each image, the mean over its views: test-time averaging.

        All first views come first, then all second ones, as an unshuffled `feature_loader` gives them.
        """
        probabilities = self.probabilities.unflatten(0, (views, -1)).mean(0)
        return Evaluation(probabilities, self.labels[: len(probabilities)])

    def __repr__(self) -> str:
        return f"accuracy {self.accuracy:.3f}, log loss {self.log_loss:.3f} on {len(self.labels)} images"


def evaluate(
    model: nn.Module, loader: DataLoader, *, device: torch.device | None = None, precision: str = "fast"
) -> Evaluation:
    """Show the model every image once, in eval mode and without gradients.

    Raises CourseError if the loader leaves images out, as one with drop_last does.
    """
    device = device or best_device()
    model.to(device).eval()
    logits, labels = [], []
    with torch.inference_mode(), autocast(device, precision):
        for images, batch_labels in loader:
            logits.append(model(to_device(images, device)).float().cpu())
            labels.append(batch_labels)
    evaluation = Evaluation(torch.cat(logits).softmax(1), torch.cat(labels))
    seen, expected = len(evaluation.labels), len(loader.dataset)
    if seen != expected:
        raise CourseError(f"The loader gave {seen} of {expected} images. Is drop_last on?")
    return evaluation


# ------------------------------------------------------------------------------------------ fit


@dataclass
class History:
    """One row for each epoch of a training run; prints as a table and plots itself."""

    rows: list[dict] = field(default_factory=list)
    best_epoch: int = 0
    seconds_before: float = 0.0  # what came before the first epoch, such as the features of a frozen base

    def is_best(self, keep: str) -> bool:
        """True if the last epoch has the lowest validation loss so far, or the last counts; it is then `best_epoch`."""
        if keep == "best" and self.rows[-1]["validation_loss"] > self.lowest_loss:
            return False
        self.best_epoch = self.rows[-1]["epoch"]
        return True

    @property
    def lowest_loss(self) -> float:
        """The lowest validation loss of all epochs."""
        return min(row["validation_loss"] for row in self.rows)

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
        lowest = any(
            row["epoch"] == self.best_epoch and row["validation_loss"] == self.lowest_loss for row in self.rows
        )
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
    optimizer: str = "adamw",
    schedule: str = "one-cycle",
    weight_decay: float = 0.01,
    label_smoothing: float = 0.0,
    patience: int | None = None,
    average: float | None = None,
    keep: str = "best",
    seed: int = 0,
    device: torch.device | None = None,
    precision: str = "fast",
    seconds_before: float = 0.0,
    on_best: Callable[[], None] = lambda: None,
    report: Callable[[str], None] = print,
) -> History:
    """Train the layers that are not frozen; the model ends with the weights of the epoch that `keep` names.

    `learning_rate`: one for all, or groups of parameters with a rate each, as `learning_rates_by_block` makes them.
    `patience`: stop after so many epochs in a row without a new best one; None runs all `epochs`.
    `average`: validate and keep not the weights themselves but a moving average of them, in which each step leaves
    this share of what was there: 0.99 is about the mean of the last 100 batches (arXiv:1803.05407 says why that helps).
    `keep`: "best", the epoch with the lowest validation loss, or "last": with few validation images the lowest loss
    is partly luck, and a schedule that ends at low rates makes its last epochs good ones.
    `seconds_before`: time already spent, which the history counts too.
    `precision`: "fast" computes in bfloat16 or float16 where that is faster, "float32" always exactly.
    `on_best` is called after each epoch that is kept for the time being, to save it.
    Ctrl-C keeps the best weights so far in the model and raises KeyboardInterrupt.
    Raises BadArgument for a wrong option, or a freezing mistake that PyTorch would accept in silence, and CourseError
    if a loss is no longer a finite number.
    """
    check_freezing(model)
    if patience is not None and patience < 1:
        raise BadArgument(f"patience is {patience}; it must be at least one epoch, or None to run all epochs.")
    if average is not None and not 0 < average < 1:
        raise BadArgument(f"average is {average}; it must be between 0 and 1, such as 0.99, or None for no average.")
    if keep not in KEEP or (patience and keep == "last"):
        raise BadArgument(f'keep is {keep!r}; it must be "best" or "last", and "best" if there is patience.')
    device = device or best_device()
    model.to(device, memory_format=torch.channels_last)
    torch.manual_seed(seed)
    if train_loader.generator is not None:
        train_loader.generator.manual_seed(seed)  # so that a second call sees the same order
    optimizer = make_optimizer(model, optimizer, learning_rate, weight_decay)
    scheduler = make_schedule(optimizer, schedule, epochs * len(train_loader))
    averaged = None if average is None else moving_average(model, optimizer, decay=average)
    scaler = torch.amp.GradScaler(device.type, enabled=choose_precision(device, precision) == torch.float16)
    history, best = History(seconds_before=seconds_before), copy_of_weights(model)
    try:
        for epoch in range(1, epochs + 1):
            start = time.perf_counter()
            row = train_one_epoch(model, train_loader, optimizer, scheduler, scaler, device, label_smoothing, precision)
            with weights_of(model, averaged):
                result = evaluate(model, validation_loader, device=device, precision=precision)
                check_finite(result.log_loss)
                row |= {"validation_loss": result.log_loss, "validation_accuracy": result.accuracy}
                history.rows.append({"epoch": epoch, **row, "seconds": time.perf_counter() - start})
                if history.is_best(keep):
                    best = copy_of_weights(model)
                    on_best()
            report(epoch_line(history.rows[-1], epochs))  # last: what the reader sees is then kept
            if patience and epoch - history.best_epoch >= patience:
                report(f"Stopped early: no new best in the last {patience} epochs.")
                break
    except KeyboardInterrupt:
        kept = f"the best weights, from epoch {history.best_epoch}" if history.best_epoch else "the weights from before"
        report(f"Stopped in epoch {len(history.rows) + 1}. Kept: {kept}.")
        raise
    finally:
        model.load_state_dict(best)
    return history


def copy_of_weights(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, copied to the CPU's memory."""
    return {key: value.cpu().clone() for key, value in model.state_dict().items()}


def moving_average(model: nn.Module, optimizer: torch.optim.Optimizer, *, decay: float) -> nn.Module:
    """A copy of the model that follows it: after each step of the optimizer its weights move a little towards it."""
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    optimizer.register_step_post_hook(lambda *_: averaged.update_parameters(model))
    return averaged.module


@contextmanager
def weights_of(model: nn.Module, other: nn.Module | None) -> Iterator[None]:
    """For a while the model has the weights of another, if there is one."""
    own = None if other is None else copy_of_weights(model)
    try:
        if other is not None:
            model.load_state_dict(other.state_dict())
        yield
    finally:
        if own:
            model.load_state_dict(own)


def train_one_epoch(model, loader, optimizer, scheduler, scaler, device, label_smoothing, precision) -> dict:
    """Learn from every image once; returns the means over images on the way."""
    model.train()
    loss_sum, correct, seen = torch.zeros((), device=device), torch.zeros((), device=device), 0
    for images, labels in loader:
        labels = to_device(labels, device)
        with autocast(device, precision):
            logits = model(to_device(images, device))
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        # A mean over batches would give the images of a small last batch more weight.
        loss_sum += loss.detach() * len(labels)
        correct += (logits.detach().argmax(1) == labels).sum()
        seen += len(labels)
    check_finite(loss_sum.item())
    return {"train_loss": loss_sum.item() / seen, "train_accuracy": correct.item() / seen}


def check_finite(loss: float) -> None:
    """Raise CourseError if a loss is infinite or no number: the weights that gave it are of no use."""
    if not math.isfinite(loss):
        raise CourseError("The loss is no longer a finite number. Choose a lower learning rate.")


# ------------------------------------------------------------------------ optimizer and schedule


def make_optimizer(
    model: nn.Module, name: str, learning_rate: float | list[dict], weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum, over the parameters that are not frozen, all at one rate or in groups."""
    if name not in OPTIMIZERS:
        raise BadArgument(f"Unknown optimizer {name!r}. Choose one of: {', '.join(OPTIMIZERS)}.")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise BadArgument("Every parameter is frozen, so nothing can be trained. Replace the classifier or unfreeze.")
    groups = learning_rate if isinstance(learning_rate, list) else [{"params": parameters, "lr": learning_rate}]
    groups = [dict(group) for group in groups]  # copies, because a schedule writes its rates into them
    check_groups(model, groups)
    if name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=weight_decay)
    return torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=weight_decay)


def check_groups(model: nn.Module, groups: list[dict]) -> None:
    """Raise BadArgument if a parameter that is not frozen is in no group: it would silently stay as it is."""
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    left_out = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in grouped]
    if left_out:
        raise BadArgument(
            f"No learning rate for {len(left_out)} tensors that are not frozen, first {left_out[0]}. "
            "Make the groups of learning rates after you unfreeze."
        )


def learning_rates_by_block(model: nn.Module, *, head: float, factor: float) -> list[dict]:
    """Groups of parameters with a rate each: `head` for the classifier, `factor` times as much per block.

    From the classifier back to the first block; what is frozen is in no group.
    Source: discriminative fine-tuning, arXiv:1801.06146, section 3.2.
    """
    groups = []
    for distance, (name, layers) in enumerate(reversed(named_parts(model).items())):
        learning = [p for layer in layers for p in layer.parameters() if p.requires_grad]
        if learning:
            groups.append({"params": learning, "lr": head * factor**distance, "part": name})
    return groups


def make_schedule(
    optimizer: torch.optim.Optimizer,
    name: str,
    steps: int,
) -> torch.optim.lr_scheduler.LRScheduler:
    """How the learning rate changes from batch to batch; `steps` is the number of batches in all."""
    if name not in SCHEDULES:
        raise BadArgument(f"Unknown schedule {name!r}. Choose one of: {', '.join(SCHEDULES)}.")
    highest = [group["lr"] for group in optimizer.param_groups]
    if name == "one-cycle":  # up for the first 30 %, then down to nearly nothing (arXiv:1708.07120)
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, total_steps=steps + 1, pct_start=0.3)
    if name == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def epoch_line(row: dict, epochs: int) -> str:
    """One epoch as one line of text."""
    return (
        f"epoch {row['epoch']:2d}/{epochs}  "
        f"train loss {row['train_loss']:.3f}, accuracy {row['train_accuracy']:.3f}  "
        f"validation loss {row['validation_loss']:.3f}, accuracy {row['validation_accuracy']:.3f}  "
        f"({row['seconds']:.1f} s)"
    )


# -------------------------------------------------------------------------- learning-rate finder


def find_learning_rate(
    model: nn.Module,
    loader: DataLoader,
    *,
    lowest: float = 1e-6,
    highest: float = 1.0,
    steps: int = 60,
    optimizer: str = "adamw",
    seed: int = 0,
    device: torch.device | None = None,
    precision: str = "fast",
) -> tuple[list[float], list[float]]:
    """Learn from batch after batch at a growing rate: the rates, and each batch's loss before its step.

    Ends early once the loss is four times that of the first batch, or no number. The model, the loader
    and torch's random numbers are left as they were. Source: arXiv:1506.01186, section 3.3.
    """
    if not 0 < lowest < highest or steps < 2:
        raise BadArgument(
            f"No way from {lowest:g} to {highest:g} in {steps} steps: take two or more, up from above 0.",
        )
    check_freezing(model)
    device, rates, losses = device or best_device(), [], []
    with left_as_it_was(model, loader):
        model.to(device, memory_format=torch.channels_last)
        torch.manual_seed(seed)
        if loader.generator is not None:
            loader.generator.manual_seed(seed)
        stepper = make_optimizer(model, optimizer, lowest, weight_decay=0.0)
        growth = torch.optim.lr_scheduler.ExponentialLR(stepper, (highest / lowest) ** (1 / (steps - 1)))
        half = choose_precision(device, precision) == torch.float16
        scaler = torch.amp.GradScaler(device.type, enabled=half)
        for batch in islice(chain.from_iterable(repeat(loader)), steps):
            rate = stepper.param_groups[0]["lr"]
            try:
                row = train_one_epoch(model, [batch], stepper, growth, scaler, device, 0.0, precision)
            except CourseError:  # the loss is no number
                break
            rates.append(rate)
            losses.append(row["train_loss"])
            if losses[-1] > 4 * losses[0]:
                break
    return rates, losses


@contextmanager
def left_as_it_was(model: nn.Module, loader: DataLoader) -> Iterator[None]:
    """In the end give back weights, statistics, train or eval mode, and the state of the random numbers."""
    weights, modes = copy_of_weights(model), {layer: layer.training for layer in model.modules()}
    order = loader.generator.get_state() if loader.generator is not None else None
    cards = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(cards):
            yield
    finally:
        model.load_state_dict(weights)
        model.zero_grad()
        for layer, training in modes.items():
            layer.training = training
        if order is not None:
            loader.generator.set_state(order)
