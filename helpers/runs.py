"""A training run from images to a tested model: the recipe of each of the two models, saved and loaded again."""

import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from .data import ImageDataset, Splits, eval_transform, make_loaders
from .features import VIEWS, extract_features, feature_loader
from .models import (
    HEADS,
    SmallCNN,
    build,
    count_parameters,
    freeze_base_layers,
    load_backbone,
    load_weights,
    read_weights,
    split_model,
    vgg16_shape,
)
from .settings import BadArgument, Setting, best_device, environment, first_line, short
from .tables import format_table
from .training import Evaluation, History, evaluate, fit

MODEL_FILE, RUN_FILE = "model.safetensors", "run.json"


@dataclass
class Run:
    """A trained model, how its training went, and how it did on the test images."""

    model: nn.Module
    about: dict  # network, classes, image_size, seed, and weights if pretrained
    history: History
    test: Evaluation | None = None  # None for a run that was loaded from its folder, which has the summary alone
    summary: dict = field(default_factory=dict)  # the numbers that a comparison shows

    def __post_init__(self):
        self.summary = self.summary or summarise(self.model, self.about, self.history, self.test)


# ----------------------------------------------------------------------------------- the recipes

# Found on the validation images of `sample` and `photos`; the epochs stand in the setting.
SCRATCH_RECIPE = {"learning_rate": 3e-3, "weight_decay": 0.05, "label_smoothing": 0.1}

# Of VIEWS: an image as it is, its mirror image too, and all there are.
PLAIN, MIRRORED, ALL = ("plain",), ("plain", "flip"), tuple(VIEWS)


@dataclass(frozen=True)
class TransferRecipe:
    """How a backbone is transferred: its new head, the views of each training image, the learning rate.

    The linear head is the choice for all: with flipped images it is, over five seeds, at least as good on the
    validation images as the published classifier with a new last layer, and its log loss is lower
    (results/README.md). VGG16's classifier would also have 120 million parameters to learn: minutes for what takes
    seconds. The small backbones are quick enough to learn from four views of each image and, when they are asked
    about one, to answer for its mirror image too: with SqueezeNet, which stands for both here, the mean of the two
    answers is better on the validation images.
    """

    head: str  # of HEADS
    views: tuple[str, ...]  # of VIEWS; those of each training image
    learning_rate: float
    test_views: tuple[str, ...] = PLAIN  # of each image to be named; the answers are averaged


LARGE = TransferRecipe("linear", MIRRORED, 3e-3)
SMALL = TransferRecipe("linear", ALL, 3e-3, test_views=MIRRORED)
TRANSFER_RECIPES = {"vgg16": LARGE, "vgg16_bn": LARGE, "squeezenet1_1": SMALL, "resnet18": SMALL}


def train_scratch(splits: Splits, setting: Setting, *, seed: int = 0, folder: Path | None = None, report=print) -> Run:
    """Train `SmallCNN` from random weights, as lesson 01 does."""
    torch.manual_seed(seed)  # the random start of the weights
    model = SmallCNN(len(splits.classes))
    about = {"network": "small_cnn", "classes": splits.classes, "image_size": setting.scratch_size, "seed": seed}
    if folder:
        check_writable(folder)
    loaders = make_loaders(splits, setting.scratch_size, seed=seed)
    recipe = {"epochs": setting.scratch_epochs, **SCRATCH_RECIPE}
    return train(model, about, loaders, recipe, folder=folder, report=report)


def train_transfer(
    splits: Splits,
    setting: Setting,
    *,
    recipe: TransferRecipe | None = None,
    precision: str = "fast",
    seed: int = 0,
    folder: Path | None = None,
    report=print,
) -> Run:
    """Freeze a pretrained backbone, compute its features once, and train a new head on them, as lesson 02 does.

    `recipe`: by default the backbone's own, from TRANSFER_RECIPES. `precision`: as in `extract_features`.
    """
    torch.manual_seed(seed)  # the random start of the new layer
    recipe = recipe or TRANSFER_RECIPES[setting.backbone]
    model = HEADS[recipe.head](load_backbone(setting.backbone, setting.weights), len(splits.classes))
    base, head = split_model(freeze_base_layers(model))
    about = {"network": setting.backbone, "classes": splits.classes, "image_size": setting.transfer_size, "seed": seed}
    about |= {"weights": short(setting.weights), "head": recipe.head, "test_views": recipe.test_views}
    if folder:
        check_writable(folder)  # only now, when the weights were found to fit: a wrong argument leaves nothing behind
    start = time.perf_counter()
    options = {"precision": precision, "seed": seed, "report": report}
    loaders = feature_loaders(base, splits, setting.transfer_size, recipe, **options)
    seconds = time.perf_counter() - start
    report(f"features of all images  ({seconds:.1f} s)")
    options = {"epochs": setting.transfer_epochs, "learning_rate": recipe.learning_rate, "precision": precision}
    options |= {"seconds_before": seconds}
    return train(model, about, loaders, options, head=head, folder=folder, report=report)


def feature_loaders(
    base: nn.Module,
    splits: Splits,
    size: int,
    recipe: TransferRecipe,
    *,
    precision: str = "fast",
    seed: int = 0,
    report=print,
) -> tuple:
    """Loaders of (features, labels) batches: train and test in the recipe's views, validation as it is."""
    loaders, views = make_loaders(splits, size, augment=False), (recipe.views, PLAIN, recipe.test_views)
    extract = partial(extract_features, base, precision=precision, report=report)
    train, *others = [extract(loader, views=looks) for loader, looks in zip(loaders, views, strict=True)]
    return feature_loader(train, seed=seed), *map(feature_loader, others)


def train(model: nn.Module, about: dict, loaders, options: dict, *, head=None, folder=None, report=print) -> Run:
    """Fit the model, or only its head on loaders of features; keep the best epoch, and test once.

    `folder`: where the model is saved after each new best epoch, and the run in the end.
    """
    train_loader, validation_loader, test_loader = loaders
    options = {**options, "seed": about["seed"], "report": report}
    if folder:
        options["on_best"] = partial(save_model, model, about, folder)
    history = fit(head or model, train_loader, validation_loader, **options)
    test = evaluate(head or model, test_loader, precision=options.get("precision", "fast"))
    test = test.mean_over(len(about.get("test_views", PLAIN)))
    run = Run(model, about, history, test=test)
    if folder:
        save_run(run, folder)
    return run


def summarise(model: nn.Module, about: dict, history: History, test: Evaluation) -> dict:
    """The numbers of a run that a comparison shows."""
    summary = {
        "test_accuracy": test.accuracy,
        "test_log_loss": test.log_loss,
        "parameters": count_parameters(model),
        "trainable_parameters": count_parameters(model, trainable_only=True),
        "epochs": len(history.rows),
        "train_seconds": round(history.seconds, 2),
    }
    return summary | ({"backbone": about["network"], "weights": about["weights"]} if "weights" in about else {})


def compare(splits: Splits, setting: Setting, *, seed=0, folder: Path | None = None, report=print) -> dict[str, Run]:
    """Both recipes on the same images: {"scratch": Run, "transfer": Run}."""
    load_backbone(setting.backbone, setting.weights)  # a wrong name or file should show before the first training
    runs = {}
    for name, recipe in {"scratch": train_scratch, "transfer": train_transfer}.items():
        report(f"{name}:")
        runs[name] = recipe(splits, setting, seed=seed, folder=folder and folder / name, report=report)
    return runs


def comparison(runs: dict[str, Run], splits: Splits, *, seed: int) -> dict:
    """What `comparison.json` holds: the data, each run's summary, the seed and the environment."""
    return {
        "data": {"name": splits.name, "classes": splits.classes, **splits.sizes},
        "models": {name: run.summary for name, run in runs.items()},
        "seed": seed,
        "environment": environment(),
    }


def comparison_table(runs: dict[str, Run]) -> str:
    """The runs side by side, as text."""
    rows = [
        ["test accuracy", *(f"{run.summary['test_accuracy']:.3f}" for run in runs.values())],
        ["test log loss", *(f"{run.summary['test_log_loss']:.3f}" for run in runs.values())],
        ["parameters", *(f"{run.summary['parameters']:,}" for run in runs.values())],
        ["trainable", *(f"{run.summary['trainable_parameters']:,}" for run in runs.values())],
        ["epochs", *(run.summary["epochs"] for run in runs.values())],
        ["training time", *(f"{run.summary['train_seconds']:.1f} s" for run in runs.values())],
    ]
    return format_table(["", *runs], rows)


# ----------------------------------------------------------------------------------- on the disk


def check_writable(folder: Path) -> None:
    """Make the folder; raises BadArgument if it can't be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise BadArgument(f"Can't write into {folder} ({first_line(error)}). Choose another folder.") from error


def save_model(model: nn.Module, about: dict, folder: Path) -> None:
    """Write the weights, and what is needed to build the model again, as one file into `folder`."""
    state = {key: value.cpu().contiguous() for key, value in model.state_dict().items()}
    temporary = folder / f"{MODEL_FILE}.part"
    try:
        save_file(state, temporary, metadata={"about": json.dumps(about)})
        os.replace(temporary, folder / MODEL_FILE)
    finally:
        temporary.unlink(missing_ok=True)  # Ctrl-C may come between the two


def save_run(run: Run, folder: Path) -> None:
    """Write the run into `folder`: the model, and its history and summary as JSON."""
    check_writable(folder)
    save_model(run.model, run.about, folder)
    write_json(folder / RUN_FILE, {"summary": run.summary, "history": asdict(run.history)})


def load_model(folder: Path) -> tuple[nn.Module, dict]:
    """The model in a run's folder and what is known about it; raises BadArgument if there is none."""
    file = Path(folder) / MODEL_FILE
    state = read_weights(file)
    try:
        with safe_open(file, "pt") as opened:
            about = json.loads(opened.metadata()["about"])
    except (SafetensorError, TypeError, KeyError) as error:
        raise BadArgument(f"{file} was not written by a training run of this course.") from error
    count = len(about["classes"])
    if about["network"] == "small_cnn":
        model = SmallCNN(count)
    else:
        options = vgg16_shape(state) if about["network"].startswith("vgg16") else {}
        model = HEADS[about["head"]](build(about["network"], **options), count)
    load_weights(model, state, file)
    return model, about


def load_run(folder: Path) -> Run:
    """A run from its folder; raises BadArgument if there is no finished run."""
    file = Path(folder) / RUN_FILE
    if not file.is_file():
        raise BadArgument(f"{folder} holds no finished run (no {RUN_FILE}). Train one first.")
    saved = json.loads(file.read_text())
    model, about = load_model(folder)
    return Run(model, about, History(**saved["history"]), summary=saved["summary"])


def write_json(file: Path, content: dict) -> None:
    """Write JSON under a temporary name first, so that the file is whole or not there."""
    temporary = file.with_name(f"{file.name}.part")
    temporary.write_text(json.dumps(content, indent=2, default=str) + "\n")
    os.replace(temporary, file)


# --------------------------------------------------------------------------------------- predict


def predict(model: nn.Module, about: dict, path: str | Path) -> tuple[str, float]:
    """The class of the image in a file, and the probability that the model gives it, as the run's test asked it."""
    size, device = about["image_size"], best_device()
    image, _ = ImageDataset([(path, 0)], eval_transform(size), size=size)[0]
    views = torch.cat([VIEWS[view](image.unsqueeze(0)) for view in about.get("test_views", PLAIN)])
    with torch.inference_mode():
        probabilities = model.to(device).eval()(views.to(device)).softmax(1).mean(0).cpu()
    return about["classes"][probabilities.argmax()], probabilities.max().item()
