"""A training run from images to a tested model: the recipe of each of the two models, saved and loaded again."""

import json
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import BatchSampler
from tqdm import tqdm

from .data import IMAGENET_MEAN, IMAGENET_STD, EvalTransform, Splits, digest_of, load_image, make_loaders, read, stream
from .distributed import cores, once, rank
from .downloads import check_new_file, check_writable, write_whole
from .evaluating import Strangeness, as_html, fit_temperature, learn_strangeness, measure, soften
from .models import (
    HEADS,
    SmallCNN,
    blocks,
    build,
    check_backbone,
    count_parameters,
    fingerprint,
    freeze_base_layers,
    freeze_batch_norm,
    load_backbone,
    load_weights,
    pretrained_classes,
    shape_of_network,
    split_model,
    unfreeze,
)
from .settings import BadArgument, CourseError, Setting, Stopped, environment, format_table, short
from .training import Checkpoint, Evaluation, History, evaluate, fit, learning_rates_by_block, own_randomness, placed
from .transfer import PLAIN, TRANSFER_RECIPES, VIEWS, TransferRecipe, feature_loaders, look, standardize

RUN_FILE, CHECKPOINT_FILE = "model.safetensors", "checkpoint.pt"
OLD_RUN = (RUN_FILE, CHECKPOINT_FILE, "run.json")  # the last is of the course's first version
STRANGENESS = "strangeness."  # how the names of its tensors begin in that file


@dataclass
class Run:
    """A trained model, how its training went, and how it did on the test images."""

    model: nn.Module
    about: dict  # what `about_scratch` or `about_transfer` says
    history: History
    test: Evaluation | None = None  # None for a run that was loaded from its folder, which has the summary alone
    summary: dict = field(default_factory=dict)  # the numbers that a comparison shows
    strangeness: Strangeness | None = None  # None for a run that stored no features of its training images
    validation: Evaluation | None = None  # as `test`, of the validation images

    def __post_init__(self):
        if self.summary:
            return
        self.summary = {
            "test_accuracy": self.test.accuracy,
            "test_log_loss": self.test.log_loss,
            "parameters": count_parameters(self.model),
            "trainable_parameters": count_parameters(self.model, trainable_only=True),
            "epochs": len(self.history.rows),
            "train_seconds": round(self.history.seconds, 2),
            "precision": self.history.precision,
        }
        if "weights" in self.about:
            self.summary |= {"backbone": self.about["network"], "weights": self.about["weights"]}


# ----------------------------------------------------------------------------------- the recipes

# Found on the validation images of `sample` and `photos`; the epochs stand in the setting.
SCRATCH_RECIPE = {"learning_rate": 3e-3, "weight_decay": 0.05, "label_smoothing": 0.1}
FINE_TUNING_EPOCHS = 8
# The head's; each block before it has half the rate of the next. The sample's slim network bears more than wide ones.
FINE_TUNING_RATES = {"sample": 1e-3, "photos": 2e-4}


def train_scratch(
    splits: Splits, setting: Setting, *, seed=0, folder: Path | None = None, report=print, resume: bool | None = None
) -> Run:
    """Train `SmallCNN` from random weights, as lesson 01 does.

    `resume`: True or False keeps the training in `folder` after each epoch, and True goes on from what is kept there.
    """
    with own_randomness(seed=seed):  # the random start of the weights
        model = SmallCNN(len(splits.classes))
    options = {"epochs": setting.scratch_epochs, "precision": setting.precision}
    about = about_scratch(splits, setting, seed=seed)
    checkpoint = checkpoint_in(folder, resume, about, splits=splits, recipe="scratch", **options)
    make_ready(folder, OLD_RUN, resume=resume)
    options |= {**SCRATCH_RECIPE, "report": report}
    loaders = make_loaders(splits, setting.scratch_size, passes=setting.scratch_passes)
    # Once, on rank 0: batch normalisation must see whole batches, and the network is small.
    return once(lambda: train(model, about, loaders, options, folder=folder, checkpoint=checkpoint))


def train_transfer(
    splits: Splits,
    setting: Setting,
    *,
    recipe: TransferRecipe | None = None,  # by default the backbone's own
    balanced: bool = False,  # learn from each class equally often
    seed: int = 0,
    folder: Path | None = None,
    report=print,
    resume: bool | None = None,  # as in `train_scratch`
) -> Run:
    """Freeze a pretrained backbone, compute its features once, and train a new head on them, as lesson 02 does."""
    recipe = recipe or TRANSFER_RECIPES[setting.backbone]
    options = {"epochs": setting.transfer_epochs, "precision": setting.precision}
    about = about_transfer(splits, setting, recipe, seed=seed) | {"balanced": balanced, "views": list(recipe.views)}
    checkpoint = checkpoint_in(folder, resume, about, splits=splits, recipe="transfer", **options)
    with own_randomness(seed=seed):  # the random start of the new layer
        model = HEADS[recipe.head](load_backbone(setting.backbone, setting.weights), len(splits.classes))
    base, head = split_model(freeze_base_layers(model))
    # Only now, when the weights were found to fit: a wrong argument changes nothing.
    make_ready(folder, OLD_RUN, resume=resume)
    start, more = time.perf_counter(), {"balanced": balanced, "precision": setting.precision, "report": report}
    loaders = feature_loaders(base, splits, setting.transfer_size, recipe, **more)
    standardize(head, loaders[0].dataset)
    seconds = time.perf_counter() - start
    report(f"features of all images  ({seconds:.1f} s)")
    options |= {"learning_rate": recipe.learning_rate, "report": report}
    more = {"head": head, "seconds_before": seconds, "folder": folder, "checkpoint": checkpoint}
    return once(lambda: train(model, about, loaders, options, **more))


def train_fine_tune(
    splits: Splits, setting: Setting, *, seed=0, folder: Path | None = None, report=print, resume: bool | None = None
) -> Run:
    """Train a head on the frozen base, then all blocks with it, each at its own rate, as lesson 04 does."""
    recipe = replace(TRANSFER_RECIPES[setting.backbone], test_views=PLAIN)
    about = about_transfer(splits, setting, recipe, seed=seed) | {"training": "fine-tuned"}
    options = {"epochs": FINE_TUNING_EPOCHS, "precision": setting.precision}
    checkpoint = checkpoint_in(folder, resume, about, splits=splits, recipe="fine-tune", **options)
    check_network(setting)
    make_ready(folder, OLD_RUN, resume=resume)
    run = train_transfer(splits, setting, recipe=recipe, seed=seed, report=report)
    if run.history.stopped:
        raise Stopped("Stopped before the fine-tuning began.")
    model = freeze_batch_norm(unfreeze(run.model, len(blocks(run.model))))
    rate = FINE_TUNING_RATES.get(setting.name, FINE_TUNING_RATES["photos"])
    options |= {"learning_rate": learning_rates_by_block(model, head=rate, factor=0.5), "report": report}
    loaders = make_loaders(splits, setting.transfer_size, by_image=True, mean=recipe.mean, std=recipe.std)
    more = {"seconds_before": run.history.seconds, "folder": folder, "checkpoint": checkpoint}
    return train(model, about, loaders, options, **more)


def check_network(setting: Setting) -> None:
    """Raise BadArgument for a wrong backbone or weights file: before any training, and before a folder changes."""
    load_backbone(setting.backbone, setting.weights)


def about_scratch(splits: Splits, setting: Setting, *, seed: int = 0) -> dict:
    """What a run from scratch has to know to build its model again and to say what it learned from."""
    data = {"data": splits.name, "classes": splits.classes, "splits": splits.digest, "seed": int(seed)}
    seen = {short_digest(splits, path) for path, _ in splits.train + splits.validation}
    return {"network": "small_cnn", "image_size": setting.scratch_size, **data, "seen": sorted(seen)}


def short_digest(splits: Splits, path: Path) -> str:
    """12 hexadecimal digits by which a run knows an image again."""
    return (splits.digests.get(path) or digest_of(read(path)))[:12]


def about_transfer(splits: Splits, setting: Setting, recipe: TransferRecipe | None = None, *, seed: int = 0) -> dict:
    """The same of a transferred backbone."""
    recipe = recipe or TRANSFER_RECIPES[setting.backbone]
    about = about_scratch(splits, setting, seed=seed) | {"network": setting.backbone, "weights": short(setting.weights)}
    about |= {"image_size": setting.transfer_size, "mean": list(recipe.mean), "std": list(recipe.std)}
    return about | {"head": recipe.head, "test_views": list(recipe.test_views)}


def about_pretrained(setting: Setting) -> dict:
    """What `predict` has to know to let a pretrained network, as it is, name an image by the classes it has learned."""
    recipe, classes = TRANSFER_RECIPES[setting.backbone], pretrained_classes(setting.backbone, setting.weights)
    return {"classes": classes, "image_size": setting.transfer_size, "mean": recipe.mean, "std": recipe.std}


def checkpoint_in(
    folder: Path | None, resume: bool | None, about: dict, *, splits: Splits, **options
) -> Checkpoint | None:
    """Where a training is kept, None for nowhere; raises BadArgument if it can't go on from what is there."""
    if not folder or resume is None:
        return None
    same = {"checkpoint": 2, "torch": str(torch.__version__), **options}  # what differs first is what a user is told
    same |= {"seed": about["seed"], "number of images": [*splits.sizes.values()]}
    checkpoint = Checkpoint(folder / CHECKPOINT_FILE, same | about)
    if resume and rank() == 0:
        checkpoint.read()  # now, before any long work
    return checkpoint


def train(model, about: dict, loaders, options, *, folder, checkpoint, head=None, seconds_before=0.0) -> Run:
    """Fit the model, or only its head on loaders of features; keep the best epoch, test once, save the run."""
    train_loader, validation_loader, test_loader = loaders
    learner = head or model
    history = fit(learner, train_loader, validation_loader, seed=about["seed"], checkpoint=checkpoint, **options)
    history.seconds_before = seconds_before
    validation, test = (
        evaluate(learner, loader, precision=options["precision"]).mean_over(len(about.get("test_views", PLAIN)))
        for loader in (validation_loader, test_loader)
    )
    run = Run(model, about | {"temperature": fit_temperature(validation)}, history, test, validation=validation)
    if head and about["head"] == "linear":  # its base ends in a vector, a number for each pattern
        run.strangeness = learn_strangeness(train_loader.dataset, validation_loader.dataset, head[0].std)
    if folder and rank() == 0:
        save_run(run, folder)
        if checkpoint and not history.stopped:
            checkpoint.file.unlink(missing_ok=True)
    return run


RECIPES = {"scratch": train_scratch, "transfer": train_transfer, "fine-tune": train_fine_tune}
COMPARED = ("scratch", "transfer")


def compare(splits: Splits, setting: Setting, *, seed=0, folder: Path | None = None, report=print) -> dict[str, Run]:
    """Both recipes on the same images: {"scratch": Run, "transfer": Run}; with `folder` also comparison.json there."""
    check_network(setting)
    old_runs = [f"{name}/{file}" for name in COMPARED for file in OLD_RUN]
    make_ready(folder, ["comparison.json", "comparison.png", *old_runs])
    runs = {}
    for name in COMPARED:
        report(f"{name}:")
        runs[name] = RECIPES[name](splits, setting, seed=seed, folder=folder and folder / name, report=report)
        if runs[name].history.stopped:
            raise Stopped(f"Stopped. What {name} learned so far is in {folder / name}." if folder else "Stopped.")
    if folder and rank() == 0:
        write_json(folder / "comparison.json", comparison(runs, splits, seed=seed))
    report(comparison_table(runs))
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
    table = format_table(["", *runs], rows)
    if not any("backbone" in run.summary for run in runs.values()):
        return table
    return f"{table}\n(training time: with the base's features, unless an earlier run has stored them)"


# ----------------------------------------------------------------------------------- on the disk


def make_ready(folder: Path | None, names: Iterable[str], *, resume: bool | None = False) -> None:
    """Make room in the folder, if there shall be one, for new files; old ones belong only to a run that goes on."""
    if folder and rank() == 0:
        check_writable(folder)
        files = [file for name in names if (file := folder / name).parent.is_dir()]
        for file in files:
            check_new_file(file)
        for file in [] if resume else files:
            file.unlink(missing_ok=True)
        for part in folder.glob(".*.part"):  # of a file that a killed process was writing
            part.unlink()


def save_run(run: Run, folder: Path) -> None:
    """Write the run into `folder` as one file: weights, what it is about, history and summary."""
    check_writable(folder)
    state = {key: value.cpu().contiguous() for key, value in run.model.state_dict().items()}
    about = {"about": run.about, "history": asdict(run.history), "summary": run.summary}
    about |= {"environment": environment(), "fingerprint": fingerprint(run.model)}
    if run.strangeness:
        state |= {STRANGENESS + key: value for key, value in run.strangeness.state_dict().items()}
        about["strangeness"] = fingerprint(run.strangeness)
    write_whole(folder / RUN_FILE, save(state, metadata={"run": json.dumps(about)}))


def load_model(folder: Path) -> tuple[nn.Module, dict]:
    """The model in a run's folder and what is known about it; raises BadArgument if there is none."""
    run = read_run(Path(folder))
    return run.model, run.about


def load_run(folder: Path, splits: Splits | None = None) -> Run:
    """A finished run; raises BadArgument if there is none, or if it learned from other splits than these."""
    run = read_run(Path(folder))
    if run.history.stopped:
        raise BadArgument(f"The run in {folder} was stopped after epoch {len(run.history.rows)}. Train it again.")
    if splits and run.about["splits"] != splits.digest:
        raise BadArgument(f"The run in {folder} learned from other images, or from another split of them.")
    return run


def is_finished(folder: Path, splits: Splits, **wanted) -> bool:
    """True for the folder of a run that needs no resuming; raises BadArgument if it is another one than `wanted`."""
    if not (folder / RUN_FILE).is_file() or (folder / CHECKPOINT_FILE).exists():
        return False
    about = load_run(folder, splits).about
    for name, ours in wanted.items():
        if about.get(name) != ours:
            raise BadArgument(
                f"{folder} holds another finished run: its {name} is {about.get(name)}, not {ours}. Choose another "
                "--out, or leave --resume out to train anew in its place."
            )
    return True


def read_run(folder: Path) -> Run:
    """The run in a folder, finished or stopped; raises BadArgument if there is none of this version of the course."""
    file = run_file(folder)
    refused = BadArgument(f"{file} is damaged, or was not written by this version of the course. Train it again.")
    try:
        with safe_open(file, "pt") as opened:
            saved, names = json.loads(opened.metadata()["run"]), opened.keys()
            # Copies: else the file would stay mapped into memory, and Windows would let nobody replace it.
            state = {name: opened.get_tensor(name).clone() for name in names}
        about, history, summary = saved["about"], History(**saved["history"]), saved["summary"]
        own = {name.removeprefix(STRANGENESS): state.pop(name) for name in names if name.startswith(STRANGENESS)}
        strangeness = Strangeness(**own) if own else None
        pretrained = about["network"] != "small_cnn"
        if not summary or {"image_size", "classes", *["head"] * pretrained} - {*about}:
            raise KeyError
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise refused from error
    for name, value in about.items():
        if not is_possible(name, value):
            what = f"{name} is {value!s:.50}"
            raise BadArgument(f"{file} is no run of this course, or was changed by hand: {what}. Train it again.")
    if pretrained:
        check_backbone(about["network"])  # which an older torchvision or timm may lack
    elif "classifier.3.weight" in state:  # SmallCNN, when it took averages alone
        raise BadArgument(f"{file} is of an older version of the course, with another classifier. Train it again.")
    model = load_weights(partial(empty_model, about, state), state, file)
    if fingerprint(model) != saved.get("fingerprint") or (own and fingerprint(strangeness) != saved.get("strangeness")):
        raise refused
    return Run(model, about, history, summary=summary, strangeness=strangeness)


POSSIBLE = {  # what a run may say about itself
    **dict.fromkeys(("network", "data", "splits"), lambda text: type(text) is str),
    **dict.fromkeys(("classes", "seen"), lambda texts: type(texts) is list and {*map(type, texts)} == {str}),
    "seed": lambda seed: type(seed) is int,
    "image_size": lambda size: type(size) is int and 0 < size < 10_000,
    "mean": lambda means: len(means) == 3 and all(abs(mean) < 1e6 for mean in means),
    "std": lambda deviations: len(deviations) == 3 and all(0 < deviation < 1e6 for deviation in deviations),
    "head": lambda name: name in HEADS,
    "test_views": lambda views: len(views) > 0 and {*views} <= {*VIEWS},
    "temperature": lambda temperature: 0 < temperature < 1e6,
}


def is_possible(name: str, value: object) -> bool:
    """False for what would only later, where it is used, turn out to be nonsense."""
    try:
        return name not in POSSIBLE or POSSIBLE[name](value)
    except TypeError:
        return False


def run_file(folder: Path) -> Path:
    """The file of the run in a folder; raises BadArgument if there is none, naming the folders inside that have one."""
    file = folder if folder.name == RUN_FILE else folder / RUN_FILE
    if file.is_file():
        return file
    if inside := sorted(file.parent for file in folder.glob(f"*/{RUN_FILE}")):
        raise BadArgument(f"{folder} holds {len(inside)} runs. Choose one: {' or '.join(map(str, inside))}.")
    raise BadArgument(f"{folder} holds no finished run (no {RUN_FILE}). Train one first.")


def empty_model(about: dict, state: dict) -> nn.Module:
    """The network of a run, before its weights are loaded."""
    if about["network"] == "small_cnn":
        return SmallCNN(len(about["classes"]))
    network = build(about["network"], **shape_of_network(about["network"], state))
    return HEADS[about["head"]](network, len(about["classes"]))


def write_json(file: Path, content: dict) -> None:
    """Write JSON, whole or not at all."""
    write_whole(file, (json.dumps(content, indent=2, default=str) + "\n").encode())


# --------------------------------------------------------------------------- predict and evaluate


class Answer(NamedTuple):
    """What a run says about one image: its most probable class, and how unlike its training images it is."""

    name: str
    probability: float
    strangeness: float = math.nan  # of a run that does not know it
    refused: bool = False  # stranger than the run's threshold: the name is only the nearest class

    def __str__(self) -> str:
        return f"none of these (nearest: {self.name})" if self.refused else self.name

    def columns(self) -> dict:
        """As a table has it: where it is refused, the class is only the nearest one."""
        known = {} if math.isnan(self.strangeness) else {"strangeness": round(self.strangeness, 6)}
        return {"class": self.name, "probability": round(self.probability, 6), **known, "refused": self.refused}


def predict(model: nn.Module, about: dict, path: str | Path) -> tuple[str, float]:
    """The class of the image in a file, and the probability that the model gives it, at the run's temperature."""
    (_, answer), *_ = predict_all(model, about, [path])
    if isinstance(answer, CourseError):
        raise answer
    return answer.name, answer.probability


def predict_all(
    model: nn.Module, about: dict, paths: Iterable[str | Path], *, strangeness: Strangeness | None = None
) -> Iterator[tuple[str | Path, Answer | CourseError]]:
    """Each path with the answer, or with the error why it could not be read; without `strangeness` none is refused."""
    for path, found in ask(model, about, paths, strangeness=strangeness):
        if isinstance(found, CourseError):
            yield path, found
            continue
        probabilities, score = found
        refused = strangeness is not None and score > strangeness.threshold.item()
        yield path, Answer(about["classes"][probabilities.argmax()], probabilities.max().item(), score, refused)


def ask(
    model: nn.Module, about: dict, paths: Iterable[str | Path], *, strangeness: Strangeness | None = None
) -> Iterator[tuple[str | Path, tuple[Tensor, float] | CourseError]]:
    """As `predict_all`, with the probability of every class and the strangeness in place of the answer."""
    paths, transform = list(paths), transform_of(about)

    def load(path: str | Path) -> Tensor | CourseError:
        try:
            return transform(load_image(path, at_least=round(1.3 * about["image_size"])))
        except CourseError as error:
            return error

    with placed(model) as device, closing(stream(load, paths, cores())) as loaded:
        for batch in BatchSampler(zip(paths, loaded, strict=True), 32, drop_last=False):
            images = [image for _, image in batch if not isinstance(image, CourseError)]
            answers = iter([])
            if images:
                with torch.inference_mode():
                    probabilities, scores = answers_to(model, about, torch.stack(images).to(device), strangeness)
                answers = zip(probabilities, scores.tolist(), strict=True)
            for path, image in batch:
                yield path, image if isinstance(image, CourseError) else next(answers)


def transform_of(about: dict) -> EvalTransform:
    """What makes an image a tensor; a run of an older version names no mean and no deviation: it has ImageNet's."""
    return EvalTransform(about["image_size"], about.get("mean", IMAGENET_MEAN), about.get("std", IMAGENET_STD))


def answers_to(model: nn.Module, about: dict, images: Tensor, strangeness: Strangeness | None) -> tuple[Tensor, Tensor]:
    """Probabilities (n, classes), the mean over the run's views, at its temperature; strangeness (n,), or else NaN."""
    base, head = split_model(model) if strangeness else (nn.Identity(), model)
    features = [base(look(images, view)) for view in about.get("test_views", PLAIN)]
    probabilities = torch.stack([head(one).softmax(1) for one in features]).mean(0).cpu()
    scores = strangeness(features[0].cpu()) if strangeness else probabilities[:, 0] * math.nan
    return soften(probabilities, about.get("temperature", 1.0)), scores


def evaluate_run(run: Run, splits: Splits, *, folder: Path | None = None) -> dict:
    """What evaluating.KEYS names, of all images that the run has not learned from; also as reports in `folder`."""
    paths, labels = zip(*unseen(run, splits), strict=True)
    if folder:
        check_new_file(folder / "evaluation.json")
        check_new_file(folder / "evaluation.html")
    answers = ask(run.model, run.about | {"temperature": 1.0}, paths, strangeness=run.strangeness)
    found = [one for _, one in tqdm(answers, "evaluate", len(paths), unit=" images", disable=len(paths) < 1000)]
    if errors := [answer for answer in found if isinstance(answer, CourseError)]:
        raise errors[0]  # it could be read when the splits were made
    rows, scores = zip(*found, strict=True)
    evaluation, temperature = Evaluation(torch.stack(rows), torch.tensor(labels)), run.about.get("temperature", 1.0)
    refused = torch.tensor(scores) > run.strangeness.threshold if run.strangeness else None
    numbers = measure(evaluation, paths, splits.classes, temperature=temperature, refused=refused)
    if folder:
        title = f"{run.about['network']} on {splits.name}: {len(paths):,} images"
        page = as_html(numbers, evaluation, paths, splits.classes, title=title)
        write_json(folder / "evaluation.json", numbers | {"data": splits.name, "environment": environment()})
        write_whole(folder / "evaluation.html", page.encode("utf-8", "backslashreplace"))
    return numbers


def unseen(run: Run, splits: Splits) -> list[tuple[Path, int]]:
    """The images, with labels, that a run has not learned from; raises BadArgument if it can't be asked about any."""
    if splits.classes != run.about["classes"]:
        ours, theirs = (", ".join(names) for names in (run.about["classes"], splits.classes))
        raise BadArgument(f"The run knows the classes {ours}; the folders are called {theirs}. Rename the folders.")
    if "seen" not in run.about:
        raise BadArgument("This run does not say which images it learned from: an older version wrote it. Train again.")
    seen = set(run.about["seen"])
    pairs = [pair for part in splits.parts().values() for pair in part if short_digest(splits, pair[0]) not in seen]
    if not pairs:
        raise BadArgument(f"The run has learned from every image of {splits.name}. Give it new ones.")
    return pairs
