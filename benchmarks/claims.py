"""Measure the headline claims of the lessons, each with its control, over several seeds; write `results/claims.json`.

python -m benchmarks.claims                         five seeds, in float32 and in the fast precision
python -m benchmarks.claims --only augmentation     one claim; the others stay as they were measured
python -m benchmarks.claims --only learns --seeds 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19
python -m benchmarks.claims --table                 only write the table anew

An effect is a difference of accuracies that should be positive; a claim holds if its mean is more than two standard
errors above zero. Everything is measured with the drawn sample. With `--precision bfloat16`, a processor that has no
units for it rounds as they do.
"""

import argparse
import copy
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, partial
from itertools import product
from math import inf
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from helpers.auditing import audit
from helpers.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    EvalTransform,
    Splits,
    denormalize,
    load_image,
    load_splits,
    make_loaders,
)
from helpers.distributed import cores
from helpers.drawing import PRETRAINING, draw_animal, draw_folder, find_head, restyle
from helpers.explaining import FILLS, evidence, grad_cam, trial
from helpers.models import (
    VGG16,
    AverageAndMaxPool,
    SmallCNN,
    blocks,
    freeze_base_layers,
    initialize,
    load_backbone,
    replace_head,
    split_model,
    unfreeze,
)
from helpers.runs import SCRATCH_RECIPE, evaluate_run, train_transfer, write_json
from helpers.settings import SETTINGS, choose_precision, environment, has_bfloat16_units
from helpers.spoiling import spoil
from helpers.training import History, autocast, evaluate, fit, learning_rates_by_block

from .curve import draw_images
from .pages import RESULTS, refuse_mixture, write_table
from .worth import features_of, one_draw

SAMPLE = SETTINGS["sample"]
QUIET = {"report": lambda line: None}
RATES = (1e-3, 3e-3)  # the second is lesson 1's


@cache
def splits_of(seed: int) -> Splits:
    """The sample; a seed changes nothing in it, for its splits are folders."""
    return load_splits(SAMPLE, seed=seed)


@cache
def scratch_run(
    seed: int,
    precision: str,
    *,
    count: int = 400,
    size: int = SAMPLE.scratch_size,
    augment: bool = True,
    rate: float = RATES[1],
    epochs: int = SAMPLE.scratch_epochs,
) -> tuple[History, float, float]:
    """Lesson 1's network, trained on so many images for as many steps as on all: history, and accuracies.

    Those on the test images, and on the training images as they are.
    """
    torch.manual_seed(seed)
    model, splits = SmallCNN(2), splits_of(seed)
    splits = replace(splits, train=draw_images(splits, count, seed=seed)) if count < len(splits.train) else splits
    passes = SAMPLE.scratch_passes * 400 // count
    train, validation, test = make_loaders(splits, size, passes=passes, augment=augment)
    options = {**SCRATCH_RECIPE, "epochs": epochs, "learning_rate": rate, "precision": precision}
    history = fit(model, train, validation, seed=seed, **options, **QUIET)
    _, known, _ = make_loaders(replace(splits, validation=splits.train), size)
    return history, *(evaluate(model, loader, precision=precision).accuracy for loader in (test, known))


def augmentation(seed: int, precision: str) -> dict[str, float]:
    """At 48 pixels, in four epochs, as in lesson 1: what it adds on test images, and takes from the gap to them.

    Without it the network may choose its rate.
    """
    run = partial(scratch_run, seed, precision, size=48, epochs=SAMPLE.scratch_epochs - 1)
    _, test, train = min([run(augment=False, rate=rate) for rate in RATES], key=lambda one: one[0].lowest_loss)
    _, with_test, with_train = run()
    return {"accuracy": with_test - test, "gap": (train - test) - (with_train - with_test)}


def learns(seed: int, precision: str) -> float:
    """How far lesson 1's network is above 80 % in the end, or above 60 % by its third epoch, if that is less."""
    history, accuracy, _ = scratch_run(seed, precision)
    early = max(row[f"{part}_accuracy"] for row in history.rows[:3] for part in ("train", "validation"))
    return min(accuracy - 0.8, early - 0.6)


@cache
def few_images(count: int, seed: int, precision: str) -> float:
    """The test accuracy of lesson 2's network with so many training images."""
    few = replace(splits_of(seed), train=draw_images(splits_of(seed), count, seed=seed))
    setting = replace(SAMPLE, transfer_epochs=10 * SAMPLE.transfer_epochs, precision=precision)
    return train_transfer(few, setting, seed=seed, **QUIET).summary["test_accuracy"]


def ten_against_the_twin(seed: int, precision: str) -> float:
    """Ten images with the pretrained base less all five hundred with its untrained twin: lesson 8, section 4."""
    splits, accuracies = splits_of(0), []
    images = splits.train + splits.validation + splits.test
    for count, pretrained in ((10, True), (500, False)):
        network = load_backbone("vgg16", SAMPLE.weights)
        if not pretrained:
            torch.manual_seed(seed)
            network.apply(initialize)
        base, _ = split_model(freeze_base_layers(replace_head(network, 2)))
        stored = features_of(base, SAMPLE, images, splits.digests, precision=precision)
        rows = torch.stack([stored[range(800 * view, 800 * (view + 1))][0] for view in (0, 1)]).mean(0)
        accuracies.append(one_draw(rows, stored.labels, 500, count, 2, seed))
    return accuracies[0] - accuracies[1]


def few_against_more(seed: int, precision: str) -> float:
    """Forty images transferred less a hundred from scratch."""
    return few_images(40, seed, precision) - scratch_run(seed, precision, count=100)[1]


@cache
def task(style: str | None) -> dict[str, DataLoader]:
    """The sample's images in memory, in another style if one is named."""
    loaders = {}
    for name, part in splits_of(0).parts().items():
        images = [load_image(path) for path, _ in part]
        images = [restyle(image, style, seed=i) for i, image in enumerate(images)] if style else images
        tensors = torch.stack([EvalTransform(SAMPLE.transfer_size)(image) for image in images])
        data = TensorDataset(tensors, torch.tensor([label for _, label in part]))
        loaders[name] = DataLoader(data, 32, shuffle=name == "train")
    return loaders


def fine_tuning(style: str | None, seed: int, precision: str) -> float:
    """Fine-tuned less the best frozen base: lesson 4, sections 2 and 3."""
    loaders, options = task(style), {"seed": seed, "precision": precision, **QUIET}
    torch.manual_seed(seed)
    model = freeze_base_layers(replace_head(load_backbone("vgg16", SAMPLE.weights), 2))
    train_best_head(model, loaders, options, rates=(1e-3, 1e-2, 3e-2))
    frozen = evaluate(model, loaders["test"], precision=precision).accuracy
    rates = learning_rates_by_block(unfreeze(model, 5), head=1e-3, factor=0.5)
    fit(model, loaders["train"], loaders["validation"], epochs=8, learning_rate=rates, **options)
    return evaluate(model, loaders["test"], precision=precision).accuracy - frozen


def wiped_out(seed: int, precision: str) -> float:
    """A tenth less what the base still knows of its 37 species, after three epochs at one rate of 0.01: lesson 4."""
    loaders, options = task("x-ray"), {"seed": seed, "precision": precision, **QUIET}
    torch.manual_seed(seed)
    model = freeze_base_layers(replace_head(load_backbone("vgg16", SAMPLE.weights), 2))
    train_best_head(model, loaders, options, rates=(1e-2,))
    fit(unfreeze(model, 5), loaders["train"], loaders["validation"], epochs=3, learning_rate=1e-2, **options)
    old = load_backbone("vgg16", SAMPLE.weights)  # with the head that names the species
    old.features.load_state_dict(model.features.state_dict())
    drawn = [draw_animal(name, (4, i), cover=(0.3,)) for name in PRETRAINING for i in range(8)]
    images = torch.stack([EvalTransform(SAMPLE.transfer_size)(image) for image in drawn])
    species = TensorDataset(images, torch.arange(len(PRETRAINING)).repeat_interleave(8))
    return 0.1 - evaluate(old, DataLoader(species, 64), precision=precision).accuracy


def smaller_images(seed: int, precision: str) -> float:
    """What lesson 2's network loses at 64 pixels, less ten points."""
    settings = (replace(SAMPLE, transfer_size=size, precision=precision) for size in (96, 64))
    whole, small = (train_transfer(splits_of(seed), one, seed=seed, **QUIET).summary for one in settings)
    return whole["test_accuracy"] - small["test_accuracy"] - 0.1


def train_best_head(model, loaders: dict, options: dict, rates=(1e-3, 3e-3, 1e-2)) -> None:
    """Train the head on features at three rates, and keep that with the lowest validation loss."""
    base, head = split_model(model.eval())
    features = {}
    for name in ("train", "validation"):
        images, labels = loaders[name].dataset.tensors
        with torch.no_grad():
            rows = torch.cat([base(batch) for batch in images.split(50)])
        features[name] = DataLoader(TensorDataset(rows, labels), 32, shuffle=name == "train")
    rows = features["train"].dataset.tensors[0].double()
    head[0].learn(rows.mean(0), rows.var(0, correction=0))
    start, found = copy.deepcopy(head.state_dict()), []
    for rate in rates:
        head.load_state_dict(start)
        history = fit(head, features["train"], features["validation"], epochs=20, learning_rate=rate, **options)
        found.append((history.lowest_loss, copy.deepcopy(head.state_dict())))
    head.load_state_dict(min(found, key=lambda pair: pair[0])[1])


def learning_by_heart(seed: int, precision: str) -> float:
    """Accuracy on 64 training images of a slim VGG16: from Kaiming's start less from deviation 0.01, lesson 3."""
    chosen = splits_of(seed).train[seed::6][:64]
    images = torch.stack([EvalTransform(64)(load_image(path)) for path, _ in chosen])
    loader = DataLoader(TensorDataset(images, torch.tensor([label for _, label in chosen])), 32, shuffle=True)
    learned = {}
    for deviation, rates in {None: (5e-4,), 0.01: (5e-4, 1.5e-2)}.items():
        for rate in rates:  # the bad start may choose its rate
            torch.manual_seed(seed)
            model = restart(VGG16(2, width=1 / 8, image_size=64, dropout=0.0), deviation)
            rows = fit(
                model, loader, loader, epochs=30, learning_rate=rate, seed=seed, precision=precision, **QUIET
            ).rows
            learned[deviation] = max(learned.get(deviation, 0), max(row["train_accuracy"] for row in rows))
    return learned[None] - learned[0.01]


def restart(model: nn.Module, deviation: float | None) -> nn.Module:
    """All weights drawn anew: with one standard deviation, or by Kaiming's rule."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.zeros_(layer.bias)
            if deviation:
                nn.init.normal_(layer.weight, std=deviation)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.normal_(model.classifier[-1].weight, std=0.01)
    return model


@cache
def spoiled_collection(seed: int, precision: str) -> dict[str, float]:
    """What lesson 5 measures on a collection with other faults planted by each seed."""
    with TemporaryDirectory() as folder:
        planted = spoil(splits_of(0), Path(folder) / "images", seed=seed)
        spoiled = load_splits(replace(SAMPLE, name=str(Path(folder) / "images")))
        copied = audit(Path(folder) / "images").of("near-duplicate across splits")
        loaders = {name: pixels_and_features(part, precision) for name, part in spoiled.parts().items()}
    labels, copies = loaders["train"][2], {finding.path for finding in copied}
    repeated = {finding.other for finding in copied}
    has_copy = torch.tensor([path in repeated for path, _ in spoiled.test])
    original = torch.tensor([path not in copies for path, _ in spoiled.train])
    lent = []
    torch.manual_seed(seed)  # of the heads' starts
    for kind in (0, 1):  # pixels, features
        right = []
        for kept in (original | ~original, original):
            head = train_head(loaders["train"][kind][kept], labels[kept])
            right.append((head(loaders["test"][kind]).argmax(1) == loaders["test"][2])[has_copy].float().mean().item())
        lent.append(right[0] - right[1])
    wrong = torch.tensor([path in planted.wrong for path, _ in spoiled.train])
    losses = F.cross_entropy(out_of_fold(loaders["train"][1], labels), labels, reduction="none")
    suspects = losses.argsort(descending=True)[: 2 * wrong.sum()]
    return {
        "lent by copies": min(lent),
        "found": (wrong[suspects].sum() / wrong.sum()).item(),
    }


def pixels_and_features(part: list, precision: str) -> tuple[Tensor, Tensor, Tensor]:
    """The thumbnails of some images, what the base makes of them in 3 × 3 places, and the labels."""
    base, images = load_backbone("vgg16", SAMPLE.weights).features.eval(), [load_image(path) for path, _ in part]
    tensors = torch.stack([EvalTransform(SAMPLE.transfer_size)(image) for image in images])
    with torch.no_grad(), autocast(torch.device("cpu"), precision):
        maps = torch.cat([base(batch).float() for batch in tensors.split(32)])
    features = F.adaptive_avg_pool2d(maps, 3).flatten(1)
    pixels = torch.stack([EvalTransform(16)(image).flatten() for image in images])
    return pixels, F.layer_norm(features, features.shape[1:]), torch.tensor([label for _, label in part])


def train_head(features: Tensor, labels: Tensor) -> nn.Linear:
    """A linear layer at its lowest loss, as in lesson 5."""
    head = nn.Linear(features.shape[1], 2)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def loss_and_gradients():
        optimizer.zero_grad()
        loss = F.cross_entropy(head(features), labels) + 0.001 * head.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(loss_and_gradients)
    return head.requires_grad_(False)


def out_of_fold(features: Tensor, labels: Tensor) -> Tensor:
    """Logits of each image by a head that was trained on the other four fifths."""
    fold = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)) % 5
    logits = torch.zeros(len(labels), 2)
    for number in range(5):
        head = train_head(features[fold != number], labels[fold != number])
        logits[fold == number] = head(features[fold == number])
    return logits


def frameworks(seed: int, precision: str) -> float:
    """Two points of test accuracy less the difference between PyTorch and Keras, by lesson 6's recipe."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras  # here, because nothing else needs it

    from helpers.keras_vgg import carry_weights, vgg16_base

    torch.manual_seed(seed)
    train, validation, test = make_loaders(splits_of(seed), SAMPLE.transfer_size)
    model, size = load_backbone("vgg16", SAMPLE.weights), SAMPLE.transfer_size
    base = carry_weights(model, vgg16_base((size, size, 3), width=1 / 8))
    model = freeze_base_layers(replace_head(model, 2))
    learn_statistics(model, make_loaders(splits_of(seed), size, augment=False)[0])
    start, inputs = (
        {key: value.numpy() for key, value in model.classifier.state_dict().items()},
        keras.Input((3, size, size)),
    )
    maps = base(keras.layers.Permute((2, 3, 1))(inputs))
    pooled = [keras.layers.GlobalAveragePooling2D()(maps), keras.layers.GlobalMaxPooling2D()(maps)]
    standardize = keras.layers.Normalization(mean=start["0.mean"], variance=start["0.std"] ** 2)
    dense = keras.layers.Dense(2)
    twin = keras.Model(inputs, dense(keras.layers.Dropout(0.5)(standardize(keras.layers.Concatenate()(pooled)))))
    dense.set_weights([start["2.weight"].T, start["2.bias"]])
    keras.utils.set_random_seed(seed)
    for epochs, rate in ((SAMPLE.transfer_epochs, 3e-3), (2, 1e-4)):
        tuned = rate == 1e-4
        base.trainable = tuned
        for layer in base.layers[:-5]:
            layer.trainable = False
        unfreeze(model, last_blocks=int(tuned))
        options = {"learning_rate": rate, "schedule": "constant", "precision": precision, "seed": seed}
        fit(model, train, validation, epochs=epochs, **options, **QUIET)
        twin.compile(
            optimizer=keras.optimizers.AdamW(rate, weight_decay=0.01, epsilon=1e-8),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        best = keras.callbacks.EarlyStopping(patience=epochs, restore_best_weights=True)
        with autocast(torch.device("cpu"), precision):
            options = {"validation_data": validation, "shuffle": False, "verbose": 0}
            twin.fit(train, epochs=epochs, callbacks=[best], **options)
    ours, theirs = (evaluate(one, test, precision=precision).accuracy for one in (model, twin))
    return 0.02 - abs(ours - theirs)


def wrong_preparation(seed: int, precision: str) -> float:
    """What it costs lesson 2's network to get images as Keras prepares them for other weights, less twenty points."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    from keras.applications.vgg16 import preprocess_input

    run = train_transfer(splits_of(seed), replace(SAMPLE, precision=precision), seed=seed, **QUIET)
    images, labels = task(None)["validation"].dataset.tensors
    pixels = 255 * denormalize(images).permute(0, 2, 3, 1).numpy()
    others = torch.from_numpy(preprocess_input(pixels).copy()).permute(0, 3, 1, 2)
    loaders = (DataLoader(TensorDataset(one, labels), 32) for one in (images, others))
    right, wrong = (evaluate(run.model, loader, precision=precision).accuracy for loader in loaders)
    return right - wrong - 0.2


def learn_statistics(model: nn.Module, loader: DataLoader) -> None:
    """Give the head the mean and variance of its features over the loader's images."""
    base, head = split_model(model.eval())
    with torch.no_grad():
        rows = torch.cat([base(batch) for batch, _ in loader]).double()
    head[0].learn(rows.mean(0), rows.var(0, correction=0))


@cache
def cut_network(seed: int, precision: str) -> nn.Module:
    """Four blocks of the slim VGG16 and a head trained on them: lesson 7, section 5."""
    torch.manual_seed(seed)
    model = load_backbone("vgg16", SAMPLE.weights)
    model.features = model.features[:23]
    train_best_head(
        freeze_base_layers(replace_head(model, 2)), task(None), {"seed": seed, "precision": precision, **QUIET}
    )
    return model


def neighbours(seed: int, precision: str) -> float:
    """How many more of five nearest neighbours are of an image's class than by pixels or a random network: lesson 7."""
    (train, train_labels), (test, labels) = (task(None)[name].dataset.tensors for name in ("train", "test"))
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(seed))[:100]
    torch.manual_seed(seed)
    networks = load_backbone("vgg16", SAMPLE.weights), VGG16(37, width=1 / 8, image_size=SAMPLE.transfer_size)
    ways = [*(nn.Sequential(network.features, AverageAndMaxPool()) for network in networks)]
    ways.append(nn.Sequential(nn.AdaptiveAvgPool2d(24), nn.Flatten()))
    shares = []
    for way in ways:
        with torch.no_grad(), autocast(torch.device("cpu"), precision):
            known, asked = (way(images).float() for images in (train, test[chosen]))
        mean, std = known.mean(0), known.std(0) + 1e-6
        near = torch.cdist((asked - mean) / std, (known - mean) / std).topk(5, largest=False).indices
        shares.append((train_labels[near] == labels[chosen][:, None]).float().mean().item())
    return shares[0] - max(shares[1:])


@cache
def deleted(seed: int, precision: str) -> dict[tuple[str, str], float]:
    """The mean probability of the right class while places are deleted, by map and fill: lesson 7, section 7."""
    images, labels = task(None)["test"].dataset.tensors
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:100]
    images, labels, model = images[chosen], labels[chosen], cut_network(seed, precision)
    maps = {"exact": evidence(model, images, labels), "edges": edges(images)}
    maps |= {"random": torch.rand(100, 12, 12, generator=torch.Generator().manual_seed(seed))}
    with autocast(torch.device("cpu"), precision):
        return {
            (name, fill): trial(model, images, places, labels, fill=fill).mean().item()
            for name, places in maps.items()
            for fill in FILLS
        }


def on_trial(rival: str, seed: int, precision: str) -> float:
    """The probability that deletion by a rival leaves less what the exact map leaves; the least over the fills."""
    left = deleted(seed, precision)
    return min(left[rival, fill] - left["exact", fill] for fill in FILLS)


@cache
def heads() -> Tensor:
    """Where the head is in each test image: (images, height, width), 0 or 1."""
    seeds = [(("cat", "dog")[label], (2014, "test", int(path.stem))) for path, label in splits_of(0).test]
    return torch.stack([torch.from_numpy(find_head(*one)).float() for one in seeds])


def on_heads(seed: int, precision: str) -> float:
    """The share of the evidence that lies on heads, of the exact map less of Grad-CAM: lesson 7, sections 5 and 6."""
    images, labels = task(None)["test"].dataset.tensors
    shares, model = [], cut_network(seed, precision)
    for explain in (evidence, grad_cam):
        with autocast(torch.device("cpu"), precision):
            maps = explain(model, images, labels).float().clamp_min(0)[:, None]
        maps = F.interpolate(maps, size=heads().shape[1:])[:, 0]
        shares.append(((maps * heads()).sum((1, 2)) / maps.sum((1, 2))).nanmean().item())
    return shares[0] - shares[1]


def answers_on_heads(seed: int, precision: str) -> float:
    """How much more of the places of the fourth block's strongest answers is head than in a random network: lesson 7.

    Than in one as its training began: with batch normalisation, which has no statistics yet but those of the batch.
    """
    images, shares = task(None)["test"].dataset.tensors[0][::3], []
    torch.manual_seed(seed)
    start = VGG16(37, batch_norm=True, width=1 / 8, image_size=SAMPLE.transfer_size).train()
    for network in (load_backbone("vgg16", SAMPLE.weights), start):
        layers = [layer for block in blocks(network)[:4] for layer in block]
        with torch.no_grad(), autocast(torch.device("cpu"), precision):
            maps = nn.Sequential(*layers)(images).float()
        of_head = F.adaptive_avg_pool2d(heads()[::3, None], maps.shape[-1]).flatten(1)
        highest, place = maps.flatten(2).max(2)
        shares.append(of_head.gather(1, place)[highest > 0].mean().item())
    return shares[0] - shares[1]


def edges(images: Tensor) -> Tensor:
    """How much the brightness changes from pixel to pixel, at 12 × 12 places."""
    grey = F.pad(images.mean(1, keepdim=True), (0, 1, 0, 1), mode="replicate")
    change = (grey[..., :-1, 1:] - grey[..., :-1, :-1]).abs() + (grey[..., 1:, :-1] - grey[..., :-1, :-1]).abs()
    return F.adaptive_avg_pool2d(change, 12)[:, 0]


def scrambled(seed: int, precision: str) -> float:
    """0.5 less the rank correlation of maps before and after the convolutions became random: of both, the worse."""
    images, labels = (tensor[::3] for tensor in task(None)["test"].dataset.tensors)
    model = cut_network(seed, precision)
    torch.manual_seed(seed)
    other, random = copy.deepcopy(model), VGG16(37, width=1 / 8, image_size=SAMPLE.transfer_size)
    other.features.load_state_dict(random.features[:23].state_dict())
    found = []
    for explain in (evidence, grad_cam):
        with autocast(torch.device("cpu"), precision):
            both = [explain(network, images, labels).flatten(1).float() for network in (model, other)]
        ranks = [one.argsort(1).argsort(1).float() for one in both]
        first, second = (rank - rank.mean(1, keepdim=True) for rank in ranks)
        found.append(F.cosine_similarity(first, second).mean().item())
    return 0.5 - max(found)


@cache
def shortcut(seed: int, precision: str) -> dict[str, float]:
    """What a corner that gives the class away does to two networks: lesson 7, section 9."""
    plain = {name: loader.dataset.tensors for name, loader in task(None).items()}
    loaders = {
        name: DataLoader(TensorDataset(plant(images, labels), labels), 16, shuffle=name == "train")
        for name, (images, labels) in plain.items()
    }
    torch.manual_seed(seed)
    scratch, options = SmallCNN(2, channels=(16, 32, 64)), {"seed": seed, "precision": precision, **QUIET}
    fit(scratch, loaders["train"], loaders["validation"], epochs=6, learning_rate=3e-3, **options)
    frozen = copy.deepcopy(cut_network(seed, precision))
    train_best_head(frozen, loaders, options)
    images, labels = plain["test"]
    exchanged = DataLoader(TensorDataset(plant(images, 1 - labels), labels), 50)
    tests, networks = {"planted": loaders["test"], "exchanged": exchanged}, {"scratch": scratch, "frozen": frozen}
    found = {}
    for name, network in networks.items():
        right = [evaluate(network, test, precision=precision).accuracy for test in tests.values()]
        maps = evidence(network, loaders["test"].dataset.tensors[0][::3], labels[::3]).clamp_min(0)
        found |= {f"{name} falls": right[0] - right[1]}
        found |= {f"{name} in the corner": (maps[:, :2, :2].sum((1, 2)) / maps.sum((1, 2))).mean().item()}
    return found


def plant(images: Tensor, inked_as: Tensor) -> Tensor:
    """A square in the corner of each image: red for class 0, blue for class 1."""
    inks = (torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.2, 0.8]]) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    planted = images.clone()
    planted[:, :, 3:13, 3:13] = inks[inked_as][:, :, None, None]
    return planted


@cache
def unequal(seed: int, precision: str) -> dict[str, float]:
    """What drawing each class equally often does to the recalls: with it less without, on a balanced set."""
    with TemporaryDirectory() as place:
        folders = {"mine": {"cat": 300, "fox": 120, "dog": 30}, "later": {"cat": 80, "fox": 80, "dog": 80}}
        settings = {}
        for name, counts in folders.items():
            draw_folder(Path(place, name), counts, seed=(name, "unequal", seed))
            setting = replace(SAMPLE, name=str(Path(place, name)), transfer_epochs=30, precision=precision)
            settings[name] = setting, load_splits(setting, seed=seed)
        (setting, splits), (_, later) = settings.values()
        runs = [train_transfer(splits, setting, seed=seed, balanced=way, **QUIET) for way in (False, True)]
        plain, balanced = (evaluate_run(run, later)["classes"] for run in runs)
    return {name: balanced[name]["recall"] - plain[name]["recall"] for name in plain}


@dataclass(frozen=True)
class Claim:
    """A sentence of a lesson, and the measurement (seed, precision) that must be above zero."""

    lesson: int
    sentence: str
    measure: Callable[[int, str], float]


# The lessons have these sentences word by word (tests/test_claims.py).
CLAIMS = {
    "forty images are enough": Claim(
        0,
        "Forty drawn images are enough for more than nine right answers in ten.",
        lambda seed, precision: few_images(40, seed, precision) - 0.9,
    ),
    "learns": Claim(
        1,
        "The network learns: more than 60 % right by the third epoch, more than 80 % in the end.",
        learns,
    ),
    "augmentation": Claim(
        1,
        "At 48 pixels, augmentation makes the network from scratch more accurate.",
        lambda seed, precision: augmentation(seed, precision)["accuracy"],
    ),
    "gap": Claim(
        1,
        "It narrows the gap between the accuracies on training images and on new ones.",
        lambda seed, precision: augmentation(seed, precision)["gap"],
    ),
    "forty against a hundred": Claim(
        2, "Forty images transferred do better than a hundred from scratch.", few_against_more
    ),
    "smaller images": Claim(
        2, "Shown at 64 pixels instead of 96, the transferred network loses more than ten points.", smaller_images
    ),
    "start": Claim(
        3,
        "From Kaiming's start the network learns 64 images by heart, from deviation 0.01 it does not.",
        lambda seed, precision: learning_by_heart(seed, precision) - 0.3,
    ),
    "fine-tuning pays": Claim(4, "On X-rays fine-tuning beats the best frozen base.", partial(fine_tuning, "x-ray")),
    "fine-tuning adds little": Claim(
        4,
        "In colour it adds less than two points.",
        lambda seed, precision: 0.02 - fine_tuning(None, seed, precision),
    ),
    "wiped out": Claim(4, "One rate of 0.01 for all blocks wipes the base out within three epochs.", wiped_out),
    "wrong labels": Claim(
        5,
        "Among twice as many suspects as there are wrong labels, three quarters of the wrong labels are found.",
        lambda seed, precision: spoiled_collection(seed, precision)["found"] - 0.75,
    ),
    "copies": Claim(
        5,
        "Copies in train make their originals in test look easier than they are.",
        lambda seed, precision: spoiled_collection(seed, precision)["lent by copies"],
    ),
    "frameworks": Claim(6, "With one recipe PyTorch and Keras differ by less than two points.", frameworks),
    "preparation": Claim(
        6,
        "Prepared for other weights, the images cost the network more than twenty points.",
        wrong_preparation,
    ),
    "neighbours": Claim(
        7,
        "Measured by the pretrained network, more of an image's neighbours are of its class "
        "than by pixels or a random network.",
        neighbours,
    ),
    "beats chance": Claim(
        7,
        "Whatever fills the gaps, deletion by the exact map takes the answer away sooner than deletion at random.",
        partial(on_trial, "random"),
    ),
    "beats edges": Claim(
        7,
        "It takes it away sooner than deletion by edges, too.",
        partial(on_trial, "edges"),
    ),
    "answers on heads": Claim(
        7,
        "In the fourth block, the pretrained network's strongest answers fall on heads more often "
        "than a random network's.",
        answers_on_heads,
    ),
    "on heads": Claim(7, "More of the exact map's evidence lies on heads than of Grad-CAM's.", on_heads),
    "sanity": Claim(7, "With random weights the exact map and Grad-CAM change.", scrambled),
    "shortcut": Claim(
        7,
        "When the corners are exchanged, the network from scratch loses half of its right answers or more.",
        lambda seed, precision: shortcut(seed, precision)["scratch falls"] - 0.5,
    ),
    "no shortcut": Claim(
        7,
        "The frozen base loses less than two points.",
        lambda seed, precision: 0.02 - shortcut(seed, precision)["frozen falls"],
    ),
    "betrayed": Claim(
        7,
        "Three quarters or more of the evidence lies in the corner, on one place in thirty-six.",
        lambda seed, precision: shortcut(seed, precision)["scratch in the corner"] - 0.75,
    ),
    "pretraining": Claim(
        8,
        "Ten images with the pretrained base beat all five hundred with its untrained twin.",
        ten_against_the_twin,
    ),
    "rare class": Claim(
        9,
        "Drawn equally often, the rare class is found more often.",
        lambda seed, precision: unequal(seed, precision)["dog"],
    ),
    "common class": Claim(
        9,
        "The most common class is found less often.",
        lambda seed, precision: -unequal(seed, precision)["cat"],
    ),
}


@contextmanager
def rounding_autocast(device_type: str, dtype: torch.dtype) -> Iterator[None]:
    """In place of `torch.autocast` where it takes ten times as long, for want of units: rounded inputs, weights and
    results of convolutions and linear layers, with sums in float32."""

    def low(value):
        return value.to(dtype).float() if isinstance(value, Tensor) else value

    def rounded(layer: Callable) -> Callable:
        return lambda *values: low(layer(*map(low, values)))

    with patch.object(F, "conv2d", rounded(F.conv2d)), patch.object(F, "linear", rounded(F.linear)):
        yield


def main() -> None:
    """Measure the claims (unless --table) and write the table."""
    parser = argparse.ArgumentParser(description="Measure the headline claims of the lessons.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--precision", nargs="+", default=["float32", "fast"])
    parser.add_argument("--only", nargs="+", choices=CLAIMS)
    parser.add_argument("--add", action="store_true", help="keep the seeds that were measured before")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    file = RESULTS / "claims.json"
    if not options.table:
        measure_all(options, file)
    write_table(table(stored(file)["claims"]), command="benchmarks.claims")


def measure_all(options: argparse.Namespace, file: Path) -> None:
    """Each seed and precision in a process of one thread, as many at a time as there are cores: no thread waits."""
    precisions = dict.fromkeys(choose_precision(torch.device("cpu"), one) for one in options.precision)
    before, found, names = stored(file)["claims"] if options.add else {}, {}, options.only or list(CLAIMS)
    torch.set_num_threads(1)  # as the processes do
    for name, precision in product(before.keys() & set(names), precisions):
        refuse_mixture(before[name].get(precision, {}).get("environment", environment()), file)
    with ProcessPoolExecutor(cores(), get_context("spawn"), initializer=prepare_process) as pool:
        jobs = {pool.submit(measure, names, *job): job for job in product(options.seeds, precisions)}
        try:
            for job in as_completed(jobs):
                (seed, precision), content = jobs[job], stored(file)  # now: another command may have measured others
                print(seed, precision, job.result(), flush=True)
                for name, effect_and_seconds in job.result().items():
                    fresh = found.setdefault((name, precision), {})
                    fresh[seed] = effect_and_seconds
                    if len(fresh) == len(set(options.seeds)):  # until then, what was measured before stays
                        old = before.get(name, {}).get(precision, {"seeds": [], "effects": []})
                        content["claims"].setdefault(name, {})[precision] = record(old, fresh, precision)
                write_json(file, content)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def prepare_process() -> None:
    """One thread; and where there are no units for bfloat16, rounding in their place."""
    torch.set_num_threads(1)
    if not has_bfloat16_units():
        torch.autocast = rounding_autocast


def measure(names: list[str], seed: int, precision: str) -> dict[str, tuple[float, float]]:
    """The effect of each of those claims and its processor seconds; what several need counts for the first."""
    found = {}
    for name in names:
        start = time.process_time()
        found[name] = CLAIMS[name].measure(seed, precision), time.process_time() - start
    return found


def record(old: dict, fresh: dict[int, tuple[float, float]], precision: str) -> dict:
    """What the file says of a claim in one precision: the effects of old seeds and of those just measured."""
    effects = dict(zip(old["seeds"], old["effects"], strict=True)) | {seed: one for seed, (one, _) in fresh.items()}
    return {
        "date": date.today().isoformat(),
        "environment": environment(),
        "processor_seconds": round(mean(seconds for _, seconds in fresh.values()), 1),
        "rounded": precision == "bfloat16" and not has_bfloat16_units(),
        "seeds": sorted(effects),
        "effects": [effects[seed] for seed in sorted(effects)],
    }


def stored(file: Path) -> dict:
    """What was measured so far of the claims that there are."""
    claims = json.loads(file.read_text(encoding="utf-8"))["claims"] if file.exists() else {}
    return {"claims": {name: claims[name] for name in CLAIMS if name in claims}}


def two_errors(effects: list[float]) -> float:
    """Two standard errors of the mean."""
    return 2 * stdev(effects) / len(effects) ** 0.5 if len(effects) > 1 else inf


def holds(effects: list[float]) -> bool:
    """True if the mean is more than two standard errors above zero."""
    return mean(effects) > two_errors(effects)


def table(claims: dict) -> str:
    """A row for each claim and precision."""
    effect, time_taken = "effect, mean ± 2 standard errors", "processor time of a seed"
    header = f"| lesson | claim | precision | {effect} | seeds against it | holds | processor | {time_taken} |"
    lines = [header, "|---|---|---|---|---|---|---|---|"]
    for name, claim in CLAIMS.items():
        for precision, one in claims.get(name, {}).items():
            effects = one["effects"]
            seconds = f"{one['processor_seconds']:.0f} s" if "processor_seconds" in one else "–"
            lines.append(
                f"| {claim.lesson} | {claim.sentence} | {precision}{' (rounded)' if one.get('rounded') else ''} "
                f"| {100 * mean(effects):+.1f} ± {100 * two_errors(effects):.1f} points "
                f"| {sum(effect <= 0 for effect in effects)} of {len(effects)} "
                f"| {'yes' if holds(effects) else 'no'} | {one['environment']['cpu']} "
                f"| {seconds} |"
            )
    return "\n".join([*lines, "", time_of_all(claims), ""])


def time_of_all(claims: dict) -> str:
    """How long five seeds of every claim take in both precisions."""
    seconds = sum(one.get("processor_seconds", 0) for claim in claims.values() for one in claim.values())
    return f"Five seeds of all: {5 * seconds / 60:.0f} minutes of processor time, on two cores half as long."


if __name__ == "__main__":
    main()
