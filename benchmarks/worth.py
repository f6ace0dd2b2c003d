"""Measure what transfer is worth: accuracy over the number of images, time and size, for several backbones.

python -m benchmarks.worth --data sample
python -m benchmarks.worth --data photos --backbones squeezenet1_1=FILE timm:tf_efficientnet_lite0=FILE
python -m benchmarks.worth --data sample --fine-tune --seeds 0 1 2 3 4 5 6 7 8 9      the fine-tuned networks too
python -m benchmarks.worth --table                        only write the table anew from the JSON files

The training images are the published ones, without a validation split: whatever a head chooses, it chooses inside the
images it is given, by leave-one-out. A draw takes as many images of each class. An image's features are their mean over
the views of the recipe. The recipe of `train transfer` is measured as well, over seeds that cut the validation split.
"""

import argparse
import copy
import json
import math
import random
import time
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from statistics import mean, stdev

import numpy
import torch
from torch import Tensor

from helpers.costs import layer_costs
from helpers.data import EvalTransform, ImageDataset, Splits, load_splits, make_loaders
from helpers.downloads import sha256_of
from helpers.models import (
    AverageAndMaxPool,
    blocks,
    count_parameters,
    freeze_base_layers,
    freeze_batch_norm,
    last_layer,
    load_backbone,
    pretrained_classes,
    replace_head,
    split_model,
    unfreeze,
)
from helpers.runs import FINE_TUNING_RATES, write_json
from helpers.settings import SAMPLE, Setting, best_device, choose_precision, choose_setting, environment, short
from helpers.training import evaluate, fit, learning_rates_by_block
from helpers.transfer import TRANSFER_RECIPES, Features, extract_features, feature_loader, forward, ridge_head
from helpers.transfer import standardize as standardize_head

from .pages import RESULTS, note, parser_of_settings, write_table

COUNTS = (2, 4, 10, 20, 40, 100, 200, 400, 1000, 1600)
TUNED = (2, 4, 10, 20, 40, 100, 200, 400)
LAW_COUNTS = (10, 20, 40, 100, 200)  # that the law is fitted to
DRAWS = 20
SLIM = [f"vgg16={SAMPLE / 'vgg16_slim.safetensors'}", f"vgg16_bn={SAMPLE / 'vgg16_bn_slim.safetensors'}"]
CATS, DOGS = range(281, 286), range(151, 269)  # among ImageNet's 1,000 classes
QUIET = {"report": lambda line: None}


def main() -> None:
    """Measure one setting (unless --table) and write the table."""
    parser = parser_of_settings("Measure what transfer is worth.", seeds=[0, 1, 2, 3, 4])
    parser.add_argument("--backbones", nargs="+", metavar="NAME=FILE", default=SLIM)
    parser.add_argument("--fine-tune", type=int, nargs="*", metavar="IMAGES", help="fine-tune, on so many images each")
    options = parser.parse_args()
    if not options.table:
        measure(options)
    write_table(table(), command="benchmarks.worth")


def measure(options: argparse.Namespace) -> None:
    """Every backbone; the file is written after each."""
    file = RESULTS / f"worth_{Path(options.data).name}.json"
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"runs": []}
    for given in options.backbones:
        name, _, weights = given.partition("=")
        setting = choose_setting(options.data, backbone=name, weights=weights)
        old = next((one for one in content["runs"] if one["backbone"] == name), {})
        about = {"environment": environment(), "date": date.today().isoformat()}
        if options.fine_tune is None:
            run = old | measure_backbone(setting, options.seeds) | about
        elif not old:
            raise SystemExit(f"{file.name} has no curve of {name} yet: measure that first, without --fine-tune.")
        else:
            tuned = measure_tuned(setting, options.fine_tune or TUNED, options.seeds)
            tuned = old.get("fine-tuned", {}) | {count: tuned[count] | about for count in tuned}
            run = old | {"fine-tuned": {count: tuned[count] for count in sorted(tuned, key=int)}}
        content["runs"] = [one for one in content["runs"] if one["backbone"] != name] + [run]
        write_json(file, content)
        print(name, {key: value for key, value in run.items() if key != "curve"}, flush=True)


# ----------------------------------------------------------------------------- heads on stored features


def measure_backbone(setting: Setting, seeds: list[int]) -> dict:
    """The curve of one backbone, its recipe over the seeds, its size and time, and its own classifier."""
    splits = load_splits(setting, seed=0)
    train, test = sorted(splits.train + splits.validation), splits.test
    network = load_backbone(setting.backbone, setting.weights)
    about = {"data": {"name": splits.name, "train": len(train), "test": len(test)}, "backbone": setting.backbone}
    about |= {"weights": short(setting.weights), "sha256": sha256_of(Path(setting.weights))}
    about |= {"image_size": setting.transfer_size, "precision": setting.precision, **costs(network, setting)}
    base, _ = split_model(freeze_base_layers(replace_head(copy.deepcopy(network), len(splits.classes))))
    kinds, stored = kinds_of(base), features_of(base, setting, train + test, splits.digests)
    rows, labels = by_view(stored), stored.labels
    images = rows.mean(0)
    about["curve"] = curve(images, labels, len(train), kinds)
    about["law"] = law_errors(images, labels, len(train), kinds)
    about["one view"] = [one_draw(rows[0], labels, len(train), len(train) * 4 // 5, kinds, seed) for seed in seeds]
    about["recipe"] = [by_recipe(setting, stored, train + test, seed) for seed in seeds]
    about["own classifier"] = own_classifier(network, setting, rows[0][len(train) :], labels[len(train) :])
    times = processor_time(base, setting)
    return about | {"milliseconds": times, "milliseconds of one view": times / stored.views}


def kinds_of(base) -> int:
    """How many kinds of numbers its features are made of: averages and maxima, or one."""
    return 2 if any(isinstance(layer, AverageAndMaxPool) for layer in base.modules()) else 1


def by_view(stored: Features) -> Tensor:
    """The stored features as (views, images, features)."""
    count = len(stored.labels)
    return torch.stack([stored[range(count * view, count * (view + 1))][0] for view in range(stored.views)])


def features_of(base, setting: Setting, images: list, digests: dict, *, precision: str = "fast") -> Features:
    """The stored features of all images in the recipe's views."""
    recipe = TRANSFER_RECIPES[setting.backbone]
    size, normalised = setting.transfer_size, (recipe.mean, recipe.std)
    dataset = ImageDataset(images, EvalTransform(size, *normalised), size=size, digests=digests)
    return extract_features(base, dataset, views=recipe.views, precision=precision)


def curve(images: Tensor, labels: Tensor, train: int, kinds: int) -> dict[str, list[float]]:
    """Number of images to the test accuracy of each draw; with all images there is one."""
    found = {}
    for count in (*(count for count in COUNTS if count < train), train):
        draws = 1 if count == train else DRAWS if count <= 400 else 5
        found[str(count)] = [one_draw(images, labels, train, count, kinds, seed) for seed in range(draws)]
        print(count, f"{mean(found[str(count)]):.4f}", flush=True)
    return found


def law_errors(images: Tensor, labels: Tensor, train: int, kinds: int) -> dict[str, list[float]]:
    """Number of images to the error of each draw, for the law; here a draw takes its test images anew as well.

    So all images together are the test: on the published thousand alone, the last errors are a handful of images.
    """
    found = {}
    for count in (*LAW_COUNTS, train):
        found[str(count)] = []
        for seed in range(60 if count <= LAW_COUNTS[-1] else 12):
            order, generator = torch.arange(len(labels)), torch.Generator().manual_seed(seed)
            for one in labels.unique():  # the images of a class change places with each other
                places = (labels == one).nonzero().flatten()
                order[places] = places[torch.randperm(len(places), generator=generator)]
            found[str(count)].append(1 - one_draw(images[order], labels, train, count, kinds, seed))
        print("law", count, f"{mean(found[str(count)]):.4f}", flush=True)
    return found


def one_draw(images: Tensor, labels: Tensor, train: int, count: int, kinds: int, seed: int) -> float:
    """The test accuracy of a head that learned from so many images, as many of each class."""
    chosen = draw(labels[:train].tolist(), count, seed)
    head, _ = ridge_head(images[chosen], labels[chosen], kinds=kinds)
    with torch.no_grad():
        return (head(images[train:]).argmax(1) == labels[train:]).double().mean().item()


def draw(labels: list[int], count: int, seed: int) -> list[int]:
    """The places of so many images, as many of each class."""
    chance, classes = random.Random(seed), sorted(set(labels))
    return [
        place
        for one in classes
        for place in chance.sample([i for i, label in enumerate(labels) if label == one], count // len(classes))
    ]


def by_recipe(setting: Setting, stored: Features, images: list, seed: int) -> float:
    """The test accuracy of `train transfer`'s recipe, on features that are there."""
    recipe, splits = TRANSFER_RECIPES[setting.backbone], load_splits(setting, seed=seed)
    place = {path: i for i, (path, _) in enumerate(images)}
    loaders = []
    for name, part in splits.parts().items():
        count = len(recipe.views if name == "train" else recipe.test_views)
        chosen = torch.tensor([place[path] for path, _ in part])
        features = Features(stored.stored[:, :count], stored.rows[chosen], stored.labels[chosen])
        loaders.append(feature_loader(features, shuffle=name == "train"))
    torch.manual_seed(seed)
    model = replace_head(load_backbone(setting.backbone, setting.weights), len(splits.classes))
    _, head = split_model(model)
    standardize_head(head, loaders[0].dataset)
    options = {"epochs": setting.transfer_epochs, "learning_rate": recipe.learning_rate, "seed": seed, **QUIET}
    fit(head, *loaders[:2], **options)
    return evaluate(head, loaders[2]).mean_over(len(recipe.test_views)).accuracy


def own_classifier(network, setting: Setting, features: Tensor, labels: Tensor) -> float | None:
    """How often the pretrained classifier's dogs against its cats are right, untrained; None if it can't be asked.

    It gets the averages of the maps, which are the first half of the features.
    """
    name = last_layer(network)
    layer = network.get_submodule(name) if name else None
    known = pretrained_classes(setting.backbone, setting.weights)
    if len(known) != 1000 or known[281] != "tabby" or not isinstance(layer, torch.nn.Linear):
        return None
    if layer.in_features * 2 != features.shape[1]:
        return None
    with torch.no_grad():
        shares = layer(features[:, : layer.in_features]).softmax(1)
    dogs = shares[:, list(DOGS)].sum(1) > shares[:, list(CATS)].sum(1)
    return (dogs.long() == labels).double().mean().item()  # the classes are cats and dogs, in this order


def costs(network, setting: Setting) -> dict:
    """Parameters of the network, bytes of its file, and multiply-adds for one image."""
    side = setting.transfer_size
    layers = layer_costs(network, (3, side, side))
    found = {"parameters": count_parameters(network), "multiply_adds": sum(layer.multiply_adds for layer in layers)}
    return found | {"bytes": Path(setting.weights).stat().st_size}


def processor_time(base, setting: Setting) -> float:
    """Milliseconds of one core for the base on one image, in all its views: the least of nine rounds."""
    device, size = torch.device("cpu"), setting.transfer_size
    batch = torch.randn(8, 3, size, size)
    views = TRANSFER_RECIPES[setting.backbone].views
    work = partial(forward, base.eval(), batch, views=views, precision=choose_precision(device), device=device)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rounds = []
    for _ in range(9):
        start = time.process_time()
        work()
        rounds.append((time.process_time() - start) * 1000 / len(batch))
    torch.set_num_threads(before)
    return min(rounds)


# ---------------------------------------------------------------------------------------- fine-tuned


def measure_tuned(setting: Setting, counts: list[int], seeds: list[int]) -> dict[str, dict[str, list[float]]]:
    """Number of images to the test accuracies of networks before and after they were fine-tuned, for each seed."""
    splits, found = load_splits(setting, seed=0), {}
    for count in counts:
        before, after = zip(*(tune(setting, splits, count, seed) for seed in seeds), strict=True)
        found[str(count)] = {"frozen base": list(before), "fine-tuned": list(after)}
        print(count, found[str(count)], flush=True)
    return found


def tune(setting: Setting, splits: Splits, count: int, seed: int) -> tuple[float, float]:
    """Lesson 4's way: the head first, here by ridge regression, then all blocks, each at a rate of its own.

    No validation image has a say: the training images stand in their place. Few images are shown more often. Both
    test accuracies, before and after, are of the same draw and of one view of each test image.
    """
    chosen = draw([label for _, label in splits.train], count, seed)
    few = replace(splits, train=[splits.train[i] for i in chosen])
    recipe = TRANSFER_RECIPES[setting.backbone]
    colours = {"mean": recipe.mean, "std": recipe.std}
    train, *_, test = make_loaders(few, setting.transfer_size, passes=max(1, 100 // count), **colours)
    model = freeze_base_layers(replace_head(load_backbone(setting.backbone, setting.weights), len(splits.classes)))
    base, head = split_model(model)
    kinds, stored = kinds_of(base), features_of(base, setting, few.train, splits.digests)
    rows = by_view(stored).mean(0)
    variance = rows.var(0, correction=0).view(kinds, -1).mean(1).repeat_interleave(rows.shape[1] // kinds)
    head[0].learn(rows.mean(0), variance)  # one for each kind: few images can't tell each feature's
    ridge, _ = ridge_head(head[0](rows), stored.labels, kinds=kinds)
    head[-1].load_state_dict(ridge.state_dict())
    before = evaluate(model, test, device=best_device()).accuracy
    model = freeze_batch_norm(unfreeze(model, len(blocks(model))))
    rate = FINE_TUNING_RATES.get(setting.name, FINE_TUNING_RATES["photos"])
    rates = learning_rates_by_block(model, head=rate, factor=0.5)
    looked_at = make_loaders(replace(few, validation=few.train), setting.transfer_size, **colours)[1]
    fit(model, train, looked_at, epochs=8, learning_rate=rates, seed=seed, **QUIET)
    return before, evaluate(model, test, device=best_device()).accuracy


# -------------------------------------------------------------------------------------------- read


def predicted_error(curve: dict[str, list[float]], count: int) -> float:
    """The error that power laws with a floor, a · n^(−b) + c, fitted to those with LAW_COUNTS, say for so many images.

    A line through the logarithms for each floor c; their mean, each counted by its likelihood (lesson 8, section 8).
    """
    errors = numpy.array([mean(curve[str(known)]) for known in LAW_COUNTS])
    spread = numpy.array([stdev(curve[str(known)]) / len(curve[str(known)]) ** 0.5 for known in LAW_COUNTS])
    says, misfits = [], []
    for floor in errors.min() * numpy.linspace(0, 0.99, 100):
        line = {"x": numpy.log(LAW_COUNTS), "y": numpy.log(errors - floor), "w": (errors - floor) / spread}
        (slope, height), (misfit,), *_ = numpy.polyfit(**line, deg=1, full=True)
        says.append(floor + math.exp(height) * count**slope)
        misfits.append(misfit)
    return float(numpy.average(says, weights=numpy.exp((min(misfits) - numpy.array(misfits)) / 2)))


def table() -> str:
    """All JSON files of this benchmark as Markdown."""
    files = {file: json.loads(file.read_text(encoding="utf-8")) for file in sorted(RESULTS.glob("worth_*.json"))}
    runs = [run for content in files.values() for run in content["runs"]]
    header = (
        "| images | backbone | file | parameters | multiply-adds | processor time an image | own classifier, untrained "
    )
    header += "| 2 images | 10 | 40 | 200 | all | error with all: the law up to 200 says | four fifths, one view "
    header += "| `train transfer` |"
    lines = [header, "|" + "---|" * (header.count("|") - 1), *map(row, runs)]
    tuned = [
        f"| `{run['data']['name']}` | {run['backbone']} | {count} | {cell(values['frozen base'])} "
        f"| {cell(values['fine-tuned'])} | {gain(values)} |"
        for run in runs
        for count, values in run.get("fine-tuned", {}).items()
    ]
    if tuned:
        lines += [
            "",
            "| images | backbone | training images | frozen base | fine-tuned | gain, mean ± 2 standard errors |",
            "|---|---|---|---|---|---|",
            *tuned,
        ]
    notes = {}
    for file, content in files.items():
        notes |= dict.fromkeys(note(file, {"runs": [run]}) for run in content["runs"])
        tuned = [one for run in content["runs"] for one in run.get("fine-tuned", {}).values()]
        notes |= dict.fromkeys(f"{note(file, {'runs': [one]})} Fine-tuned there." for one in tuned)
    return "\n".join([*lines, "", *notes, ""])


def row(run: dict) -> str:
    """One backbone."""
    curve, everything = run["curve"], list(run["curve"])[-1]
    predicted, error = predicted_error(run["law"], int(everything)), mean(run["law"][everything])
    own = run["own classifier"]
    return (
        f"| `{run['data']['name']}`, {run['image_size']} px | {run['backbone']} | {run['bytes'] / 1e6:.1f} MB "
        f"| {run['parameters']:,} | {run['multiply_adds'] / 1e6:,.0f} million | {run['milliseconds']:.0f} ms "
        f"| {'–' if own is None else f'{own:.1%}'} | {' | '.join(cell(curve[n]) for n in ('2', '10', '40', '200'))} "
        f"| **{curve[everything][0]:.1%}** ({int(everything):,}) | {predicted:.2%}; it is {error:.2%} "
        f"| {cell(run['one view'])} | {cell(run['recipe'])} |"
    )


def gain(values: dict[str, list[float]]) -> str:
    """What fine-tuning adds to the frozen base, draw by draw."""
    gains = [after - before for before, after in zip(values["frozen base"], values["fine-tuned"], strict=True)]
    return f"{100 * mean(gains):+.1f} ± {200 * stdev(gains) / len(gains) ** 0.5:.1f} points"


def cell(values: list[float]) -> str:
    """Mean and standard deviation of the draws or seeds."""
    return f"{mean(values):.1%} ± {stdev(values):.1%}" if len(values) > 1 else "–"


if __name__ == "__main__":
    main()
