"""`fit` and `evaluate`, against torch's and numpy's own arithmetic."""

import math
import multiprocessing
import os
import signal
import warnings
from contextlib import contextmanager

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from helpers import models, training
from helpers.settings import BadArgument, CourseError, Stopped

CPU = torch.device("cpu")


def quiet(line):
    """Instead of print."""


def loader_of(count, *, batch_size=8, shuffle=False, seed=0, classes=2, **options):
    """Random images with labels that one linear layer can learn."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 8, 8, generator=generator)
    labels = (images[:, 0].mean((1, 2)) * classes * 2).long() % classes
    return DataLoader(TensorDataset(images, labels), batch_size, shuffle=shuffle, **options)


def fit(model, *loaders, **options):
    """`fit` on the CPU without a word, exactly, unless the options say otherwise."""
    return training.fit(model, *loaders, **({"device": CPU, "precision": "float32", "report": quiet} | options))


def same(one, other):
    """True if two models have the same weights to the last bit."""
    return models.fingerprint(one) == models.fingerprint(other)


def small_model(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 2)]
    return nn.Sequential(*layers)


# ---- evaluate


def test_evaluate_is_a_mean_over_images_not_over_batches():
    loader, model = loader_of(21), small_model()  # batches of 8, 8 and 5
    result = training.evaluate(model, loader, device=CPU, precision="float32")
    images, labels = loader.dataset.tensors
    logits = model.eval()(images).detach()
    assert result.accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert result.log_loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    by_numpy = -numpy.log(result.probabilities.numpy()[range(21), labels.numpy()]).mean()
    assert result.log_loss == pytest.approx(by_numpy, rel=1e-5)


def test_evaluate_leaves_all_as_it_was():
    """Weights, modes, places in memory, gradients and torch's random numbers; twice the same answer."""
    model, loader = small_model(dropout=0.5).train(), loader_of(20, shuffle=True)
    models.freeze(model[0])
    model[1].eval()
    before, modes, state = models.fingerprint(model), [m.training for m in model.modules()], torch.get_rng_state()
    ordered = loader_of(20, generator=torch.Generator().manual_seed(1))
    order = ordered.generator.get_state()
    first, second = (training.evaluate(model, ordered, device=CPU, precision="float32") for _ in range(2))
    training.evaluate(model, loader, device=CPU, precision="float32")
    assert torch.equal(first.probabilities, second.probabilities)
    assert models.fingerprint(model) == before
    assert [m.training for m in model.modules()] == modes
    assert model[0].weight.is_contiguous()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(ordered.generator.get_state(), order)
    model(loader.dataset.tensors[0]).sum().backward()  # gradients are on again


def test_evaluate_refuses_a_loader_that_leaves_images_out():
    with pytest.raises(CourseError, match=r"16 of 21 images.*drop_last"):
        training.evaluate(small_model(), loader_of(21, drop_last=True), device=CPU)


def test_answers_are_averaged_over_the_views_of_each_image():
    probabilities = torch.rand(12, 3).softmax(1)  # four images in three views, the first view of all four first
    labels = torch.tensor([0, 1, 2, 1])
    result = training.Evaluation(probabilities, labels.repeat(3)).mean_over(3)
    expected = [numpy.mean([probabilities[view * 4 + i].numpy() for view in range(3)], axis=0) for i in range(4)]
    numpy.testing.assert_allclose(result.probabilities.numpy(), expected, rtol=1e-6)
    assert torch.equal(result.labels, labels)


# ---- fit


@pytest.mark.parametrize("schedule", ["one-cycle", "constant"])
def test_fit_learns_with_every_schedule(schedule):
    model, train = small_model(), loader_of(64, shuffle=True)
    before = training.evaluate(model, train, device=CPU).log_loss
    history = fit(model, train, loader_of(64), epochs=5, learning_rate=0.01, label_smoothing=0.05, schedule=schedule)
    assert len(history.rows) == 5
    assert training.evaluate(model, train, device=CPU).log_loss < before - 0.05


def plain_loop(model, train, validation, *, epochs, rate, decay, smoothing):
    """What `fit` promises, as anybody would write it: its rows, and the weights after each epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.999), weight_decay=decay)
    steps = epochs * len(train)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.3)
    rows, weights = [], []
    for _ in range(epochs):
        losses = []
        for images, labels in train:
            loss = F.cross_entropy(model.train()(images), labels, label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses += len(labels) * [loss.item()]
        images, labels = validation.dataset.tensors
        with torch.no_grad():
            loss = F.cross_entropy(model.eval()(images), labels).item()
        rows.append({"train_loss": numpy.mean(losses), "validation_loss": loss})
        weights.append({key: value.clone() for key, value in model.state_dict().items()})
    return rows, weights


def two_layers():
    """A network whose arithmetic is smooth, so that two ways to the same weights stay together."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.Tanh(), nn.Linear(8, 2))


@pytest.mark.parametrize(("seed", "best"), [(0, 4), (1, 1)])
def test_fit_does_what_a_plain_loop_does(seed, best):
    """Optimizer, schedule, weight decay, label smoothing (in training alone), and the epoch that is kept.

    The train loss falls to the end; on other images than the train split's the first epoch is the best.
    """
    model, train, validation = two_layers(), loader_of(21), loader_of(16, seed=seed)
    history = fit(model, train, validation, epochs=4, learning_rate=0.01, weight_decay=0.5, label_smoothing=0.2)
    rows, weights = plain_loop(two_layers(), train, validation, epochs=4, rate=0.01, decay=0.5, smoothing=0.2)
    for row, expected in zip(history.rows, rows, strict=True):
        assert {key: row[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert history.best_epoch == best
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, weights[best - 1][key], rtol=1e-4, atol=1e-6)


def test_weight_decay_and_label_smoothing_do_something():
    ends = [small_model() for _ in range(3)]
    for model, options in zip(ends, ({}, {"weight_decay": 0.5}, {"label_smoothing": 0.2}), strict=True):
        fit(model, loader_of(16), loader_of(16), epochs=1, learning_rate=0.01, **options)
    assert len({models.fingerprint(model) for model in ends}) == 3


def test_label_smoothing_is_in_the_train_loss_and_not_in_the_validation_loss():
    """With a rate of nothing both are losses of the same weights: the oracle is torch's own."""
    loader, model = loader_of(21), nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    history = fit(model, loader, loader, epochs=1, learning_rate=0.0, schedule="constant", label_smoothing=0.3)
    images, labels = loader.dataset.tensors
    logits = model(images).detach()
    smooth, plain = (F.cross_entropy(logits, labels, label_smoothing=share).item() for share in (0.3, 0.0))
    assert abs(smooth - plain) > 1e-3
    assert history.rows[0]["train_loss"] == pytest.approx(smooth, rel=1e-5)
    assert history.rows[0]["validation_loss"] == pytest.approx(plain, rel=1e-5)


def test_train_loss_is_a_mean_over_images():
    """With a rate of nothing the mean over 8 + 8 + 5 images must be that of all 21."""
    loader, model = loader_of(21), nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    row = fit(model, loader, loader, epochs=1, learning_rate=0.0, schedule="constant").rows[0]
    assert row["train_loss"] == pytest.approx(row["validation_loss"], rel=1e-5)
    assert row["train_accuracy"] == pytest.approx(row["validation_accuracy"])


# ---- the seed


class Noisy(Dataset):
    """Images that look different every time, as augmentation makes them."""

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return torch.rand(3, 8, 8) + index % 2, index % 2


def trained(seed, *, generator=None, count=2, **options):
    """What a training gives to the last bit: the losses and the weights."""
    loader = DataLoader(Noisy(), 8, shuffle=True, generator=generator)
    model = small_model(dropout=0.5)
    torch.rand(count)  # other random numbers were drawn before
    history = fit(model, loader, loader_of(16), epochs=2, seed=seed, **options)
    return [(row["train_loss"], row["validation_loss"]) for row in history.rows], models.fingerprint(model)


def test_the_same_seed_gives_the_same_numbers_whatever_was_drawn_before_and_another_seed_others():
    assert trained(0, count=1) == trained(0, count=5)
    assert trained(0) != trained(1)
    assert trained(3) == trained(numpy.int64(3)) == trained(numpy.array([3])[0])


def test_the_order_of_a_loader_with_random_numbers_of_its_own_is_the_seeds_too():
    ends = [trained(0, generator=torch.Generator().manual_seed(start)) for start in (1, 2)]
    assert ends[0] == ends[1]


def test_each_epoch_has_an_order_of_its_own():
    seen = []

    class Watched(TensorDataset):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

    loader = DataLoader(Watched(*loader_of(16).dataset.tensors), 8, shuffle=True)
    fit(small_model(), loader, loader_of(8), epochs=3)
    orders = [tuple(seen[start : start + 16]) for start in (0, 16, 32)]
    assert len(set(orders)) == 3
    assert all(sorted(order) == list(range(16)) for order in orders)
    assert orders[0] != tuple(range(16))


def test_fit_leaves_torchs_and_the_loaders_random_numbers_alone():
    torch.manual_seed(5)
    loader = loader_of(16, shuffle=True, generator=torch.Generator().manual_seed(1))
    model, state, order = small_model(dropout=0.5), torch.get_rng_state(), loader.generator.get_state()
    fit(model, loader, loader_of(8, shuffle=True), epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(loader.generator.get_state(), order)


def spin():
    """Keep a core busy; for another process."""
    while True:
        pass


@contextmanager
def busy_cores():
    """Two other processes that compute all the time."""
    processes = [multiprocessing.get_context("fork").Process(target=spin, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.join()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that the other processes are there at once")
def test_a_busy_machine_gives_the_same_numbers():
    quiet_numbers = trained(0, precision="fast")
    with busy_cores():
        assert trained(0, precision="fast") == quiet_numbers


# ---- the epoch that is kept


def test_the_model_ends_with_its_best_epoch():
    """A rate this high gets worse in the end; the best epoch must be kept."""
    model, train, validation = small_model(), loader_of(32, shuffle=True), loader_of(32, seed=1)
    history = fit(model, train, validation, epochs=6, learning_rate=0.5, schedule="constant")
    losses = [row["validation_loss"] for row in history.rows]
    assert losses[-1] > min(losses), "this run must get worse in the end"
    assert history.best_epoch == losses.index(min(losses)) + 1
    assert "kept: the lowest validation loss" in repr(history)
    images, labels = validation.dataset.tensors
    with torch.no_grad():
        assert F.cross_entropy(model.eval()(images), labels).item() == pytest.approx(min(losses), rel=1e-5)


def test_of_equal_epochs_the_first_is_kept():
    loader, model = loader_of(16), nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    history = fit(model, loader, loader, epochs=3, learning_rate=0.0, schedule="constant")
    assert len({row["validation_loss"] for row in history.rows}) == 1
    assert history.best_epoch == 1


# ---- Ctrl-C


@pytest.fixture
def ctrl_c():
    """Press it; in a process that a shell started in the background it would do nothing."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("where", ["in a batch", "when an epoch is shown"])
def test_ctrl_c_ends_the_training_with_one_line_and_all_that_was_learned(ctrl_c, where):
    lines, seen, batches = [], [], []
    model, train = small_model(), loader_of(32, shuffle=True)

    def note_epoch(line):
        lines.append(line)
        seen.append(models.fingerprint(model))
        if where == "when an epoch is shown" and len(seen) == 2:
            ctrl_c()

    def note_batch(module, inputs):
        batches.append(model.training)
        if where == "in a batch" and sum(batches) == 11:  # of the third epoch
            ctrl_c()

    hook = model.register_forward_pre_hook(note_batch)
    history = fit(model, train, loader_of(16), epochs=9, learning_rate=0.01, report=note_epoch)
    hook.remove()
    assert len(history.rows) == 2
    assert history.stopped
    assert lines[2:] == [f"Stopped after epoch 2. Kept: the weights of epoch {history.best_epoch}."]
    assert models.fingerprint(model) == seen[history.best_epoch - 1]
    assert model.training
    assert history.plot().axes


def test_ctrl_c_in_the_first_epoch_leaves_the_weights_from_before(ctrl_c):
    model, state = small_model(), torch.get_rng_state()
    before, state = models.fingerprint(model), torch.get_rng_state()
    hook = model.register_forward_pre_hook(lambda *_: ctrl_c())
    with pytest.raises(Stopped, match="Stopped in the first epoch") as caught:
        fit(model, loader_of(8), loader_of(8), epochs=2)
    hook.remove()
    assert isinstance(caught.value, KeyboardInterrupt)  # which a notebook takes for what it is
    assert caught.value._render_traceback_() == ["Stopped in the first epoch. The weights are those from before."]
    assert models.fingerprint(model) == before
    assert torch.equal(torch.get_rng_state(), state)


# ---- what is refused


def test_fit_says_what_is_wrong():
    loader, model = loader_of(8), small_model()
    with pytest.raises(BadArgument, match="one-cycle, constant"):
        fit(model, loader, loader, epochs=1, schedule="step")
    with pytest.raises(BadArgument, match="adamw, sgd"):
        training.make_optimizer(model, "adam", 1e-3, 0.0)
    with pytest.raises(BadArgument, match="Every parameter is frozen"):
        fit(models.freeze(small_model()), loader, loader, epochs=1)
    with pytest.raises(CourseError, match="lower learning rate"):
        fit(model, loader, loader, epochs=5, learning_rate=1e30)
    with pytest.raises(BadArgument, match=r"'half'.*fast, float32"):
        fit(model, loader, loader, epochs=1, precision="half")
    model = small_model()
    model[0].weight.require_grad = False
    with pytest.raises(BadArgument, match="with an s"):
        fit(model, loader, loader, epochs=1)


def test_nothing_to_train_on_is_said_before_anything_begins():
    """A loader whose only batch drop_last leaves out has none: the finder used to look for one without end."""
    empty, full, model = loader_of(5, drop_last=True), loader_of(8), small_model()
    for train, epochs in ((empty, 1), (full, 0)):
        with pytest.raises(BadArgument, match="nothing to train on"):
            fit(model, train, full, epochs=epochs)
    with pytest.raises(BadArgument, match="nothing to train on"):
        training.find_learning_rate(model, empty, device=CPU)


def test_weights_that_are_no_numbers_are_not_kept():
    model, loader = small_model(), loader_of(8)
    before = models.fingerprint(model)
    with pytest.raises(CourseError, match="lower learning rate"):
        fit(model, loader, loader, epochs=5, learning_rate=1e30, schedule="constant")
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert models.fingerprint(model) == before


# ---- schedules


def test_one_cycle_rises_for_a_third_and_falls_to_almost_nothing():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.2)
    schedule, rates = training.make_schedule(optimizer, "one-cycle", 100), []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert 27 <= rates.index(max(rates)) <= 32
    assert max(rates) == pytest.approx(0.2, rel=0.01)
    assert rates[-1] < 0.001


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_schedules_work_for_very_few_batches(steps):
    loader = loader_of(8 * steps)
    for schedule in training.SCHEDULES:
        history = fit(small_model(), loader, loader, epochs=1, schedule=schedule)
        assert math.isfinite(history.rows[0]["train_loss"])


# ---- mixed precision


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_what_is_chosen_is_computed_with_and_noted(name):
    used, model, loader = set(), small_model(), loader_of(16, shuffle=True)
    model[0].register_forward_hook(lambda layer, inputs, output: used.add((layer.training, output.dtype)))
    history = fit(model, loader, loader, epochs=1, precision=name)
    assert used == {(learning, getattr(torch, name)) for learning in (True, False)}
    assert history.precision == name
    assert {value.dtype for value in model.parameters()} == {torch.float32}


def test_the_fast_precision_is_the_settings(monkeypatch):
    monkeypatch.setenv("COURSE_PRECISION", "bfloat16")
    loader = loader_of(32, shuffle=True)
    history = fit(small_model(), loader, loader, epochs=3, learning_rate=0.01, precision="fast")
    assert history.precision == "bfloat16"
    assert history.rows[-1]["train_loss"] < history.rows[0]["train_loss"]


def test_gradients_too_small_for_float16_are_not_lost():
    """The gradients of a model that is almost sure are nothing in float16, unless the loss is enlarged first."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    nn.init.zeros_(model[1].weight)
    model[1].bias.data = torch.tensor([16.0, 0.0])
    loader = DataLoader(TensorDataset(torch.rand(8, 3, 8, 8), torch.zeros(8, dtype=torch.int64)), 8)
    fit(model, loader, loader, epochs=1, precision="float16", weight_decay=0.0, schedule="constant", learning_rate=0.1)
    assert model[1].weight.abs().min() > 1e-3


def test_a_batch_that_float16_left_out_does_not_move_the_schedule(monkeypatch):
    """torch's own scaler begins at 65,536, with which these gradients are infinite: it leaves batches out at first."""
    rates, batches, make_optimizer = [], [], training.make_optimizer

    def watched(*arguments):
        optimizer = make_optimizer(*arguments)
        optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr(training, "make_optimizer", watched)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    model.register_forward_pre_hook(lambda module, inputs: batches.append(module.training))
    images = 30 * torch.rand(80, 3, 8, 8)
    loader = DataLoader(TensorDataset(images, torch.arange(80) % 2), 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch's "lr_scheduler.step() before optimizer.step()"
        fit(model, loader, loader, epochs=1, learning_rate=1e-3, precision="float16")
    assert 0 < len(rates) < sum(batches) == 10, "some batches must be left out"
    twin = torch.optim.SGD(model.parameters(), lr=1e-3)
    schedule, expected = torch.optim.lr_scheduler.OneCycleLR(twin, 1e-3, total_steps=11, pct_start=0.3), []
    for _ in rates:
        expected.append(twin.param_groups[0]["lr"])
        twin.step()
        schedule.step()
    assert rates == pytest.approx(expected)


def test_a_copy_runs_on_its_own_only_to_a_cuda_card():
    class Batch:
        def dim(self):
            return 4

        def to(self, device, **options):
            return options["non_blocking"], options["memory_format"]

    copies = {name: training.to_device(Batch(), torch.device(name)) for name in ("cuda", "mps", "cpu")}
    assert copies == {name: (name == "cuda", torch.channels_last) for name in copies}


NEW_FLAGS = hasattr(torch.backends.cudnn, "conv")  # PyTorch 2.9 and later


def rounds_convolutions():
    """True if CUDA would round a convolution's inputs (TF32)."""
    return torch.backends.cudnn.conv.fp32_precision != "ieee" if NEW_FLAGS else torch.backends.cudnn.allow_tf32


def test_exact_on_a_cuda_card_means_no_tf32_and_what_a_user_has_set_stays(monkeypatch):
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=True, benchmark=True, deterministic=True, allow_tf32=True):
        for precision, rounded in {"float32": False, "bfloat16": True}.items():
            with training.autocast(torch.device("cuda" if precision == "float32" else "cpu"), precision):
                assert rounds_convolutions() == rounded
                assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic) == (True, True, True)
            assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (True, True, True)
        with training.autocast(CPU, "float32"):  # where threads would change the flag under each other's hands
            assert rounds_convolutions()


@pytest.mark.skipif(not NEW_FLAGS, reason="this PyTorch has one flag only")
def test_a_user_may_have_set_the_new_flag():
    """After which PyTorch refuses to read the old one."""
    conv, before = torch.backends.cudnn.conv, torch.backends.cudnn.conv.fp32_precision
    conv.fp32_precision = "ieee"
    try:
        with training.autocast(torch.device("cuda"), "float32"):
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == "ieee"
    finally:
        conv.fp32_precision = before
    assert torch.backends.cudnn.allow_tf32


def test_a_device_without_autocast_is_not_asked_for_it(monkeypatch):
    monkeypatch.delenv("COURSE_PRECISION", raising=False)
    monkeypatch.setattr(torch, "autocast", None)  # for Apple's GPUs PyTorch 2.4 has none
    with training.autocast(torch.device("mps")), training.autocast(CPU, "float32"):
        pass


# ---- memory


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.05 GB)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_the_end_of_memory_is_known_by_its_words(error, memory):
    assert training.is_out_of_memory(error) == memory


# ---- what fit gives back


def test_a_model_is_left_where_it_was_in_the_mode_and_layout_it_had():
    model = small_model()
    models.freeze(model[0])
    model[1].eval()
    modes = [layer.training for layer in model.modules()]
    fit(model, loader_of(16), loader_of(16), epochs=1)
    assert [layer.training for layer in model.modules()] == modes
    assert all(parameter.is_contiguous() for parameter in model.parameters())  # so that .view() goes on working
    model.to(memory_format=torch.channels_last)
    fit(model, loader_of(16), loader_of(16), epochs=1)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_history_prints_a_table_with_the_best_epoch_marked():
    loader = loader_of(16)
    history = fit(small_model(), loader, loader, epochs=3)
    lines = repr(history).splitlines()
    assert lines[0].split("  ")[0] == "epoch"
    assert "*" in lines[history.best_epoch]
    assert f"{history.rows[0]['train_loss']:.3f}" in lines[1]
    assert history.plot().axes[0].get_ylabel() == "mean cross-entropy (nats)"


# ---- fine-tuning: a rate for each block


def slim_vgg(seed=0, **options):
    torch.manual_seed(seed)
    return models.VGG16(2, width=1 / 16, image_size=32, dropout=0.0, **options)


def test_each_block_has_its_rate_and_frozen_blocks_have_none():
    model = models.unfreeze(models.freeze_base_layers(slim_vgg()), 2)
    groups = training.learning_rates_by_block(model, head=1e-2, factor=0.1)
    assert [group["part"] for group in groups] == ["classifier", "block 5", "block 4"]
    assert [group["lr"] for group in groups] == pytest.approx([1e-2, 1e-3, 1e-4])
    expected = [model.classifier, model.features[24:], model.features[17:24]]  # torchvision's places of the blocks
    for group, part in zip(groups, expected, strict=True):
        assert {id(p) for p in group["params"]} == {id(p) for p in part.parameters()}


@pytest.mark.parametrize("name", ["squeezenet1_1", "resnet18"])
def test_the_groups_of_other_backbones_hold_every_parameter_once(name):
    model = models.build(name)
    groups = training.learning_rates_by_block(model, head=1e-2, factor=0.5)
    given = [id(p) for group in groups for p in group["params"]]
    assert sorted(given) == sorted(id(p) for p in model.parameters())


def test_a_step_with_groups_moves_each_part_by_its_rate():
    """AdamW's first step moves a weight by the rate, whatever the gradient: the oracle is the paper's formula."""
    model = slim_vgg()
    before = [p.detach().clone() for p in model.parameters()]
    groups = training.learning_rates_by_block(model, head=1e-2, factor=0.5)
    optimizer = training.make_optimizer(model, "adamw", groups, weight_decay=0.0)
    F.cross_entropy(model(torch.rand(8, 3, 32, 32)), torch.tensor([0, 1] * 4)).backward()
    optimizer.step()
    moved = {id(p): (p - start).abs().max().item() for p, start in zip(model.parameters(), before, strict=True)}
    for group in groups:
        assert max(moved[id(p)] for p in group["params"]) == pytest.approx(group["lr"], rel=0.02)


@pytest.mark.parametrize("schedule", training.SCHEDULES)
def test_groups_stay_as_they_were_made_and_can_be_used_again(schedule):
    model, loader = small_model(), loader_of(16)
    groups = [{"params": list(model[0].parameters()), "lr": 1e-4}]
    groups += [{"params": [p for layer in model[1:] for p in layer.parameters()], "lr": 1e-2}]
    fit(model, loader, loader, epochs=1, learning_rate=groups, schedule=schedule)
    assert [group["lr"] for group in groups] == [1e-4, 1e-2]
    assert set(groups[0]) == {"params", "lr"}


def test_one_cycle_keeps_the_groups_apart():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [weights[0]], "lr": 0.5}, {"params": [weights[1]], "lr": 0.05}])
    schedule = training.make_schedule(optimizer, "one-cycle", 10)
    for _ in range(10):
        fast, slow = (group["lr"] for group in optimizer.param_groups)
        assert fast / slow == pytest.approx(10)
        optimizer.step()
        schedule.step()


def test_parameters_without_a_rate_are_refused():
    model, loader = models.freeze_base_layers(slim_vgg()), loader_of(8)
    groups = training.learning_rates_by_block(model, head=1e-3, factor=0.1)
    models.unfreeze(model, 1)
    with pytest.raises(BadArgument, match=r"6 tensors.*features\.24\.weight.*after you unfreeze"):
        fit(model, loader, loader, epochs=1, learning_rate=groups)


def test_weights_that_give_no_number_on_validation_are_not_kept():
    images, model = torch.full((8, 3, 8, 8), math.nan), small_model()
    validation = DataLoader(TensorDataset(images, torch.zeros(8, dtype=torch.int64)), 8)
    before = models.fingerprint(model)
    with pytest.raises(CourseError, match="no longer a finite number"):
        fit(model, loader_of(8), validation, epochs=2)
    assert models.fingerprint(model) == before


def test_a_model_that_comes_in_eval_mode_is_trained_in_train_mode_and_given_back_as_it_came():
    """The statistics of batch normalisation move only in train mode."""
    one, other = small_model(), small_model().eval()
    for model in (one, other):
        fit(model, loader_of(16), loader_of(8), epochs=1, report=lambda line: None)
    assert same(one, other)
    assert not torch.equal(other[1].running_mean, torch.zeros(4))
    assert not any(layer.training for layer in other.modules())


# ---- the learning-rate finder


def test_the_finder_raises_the_rate_by_one_factor_and_notes_each_loss():
    """The oracle: the same steps by hand, with torch's AdamW and rates from numpy."""
    loader, model, twin = loader_of(24), small_model(), small_model().train()
    options = {"lowest": 1e-4, "highest": 1e-1, "steps": 7, "precision": "float32"}
    rates, losses = training.find_learning_rate(model, loader, device=CPU, **options)
    assert rates == pytest.approx(numpy.geomspace(1e-4, 1e-1, 7))
    optimizer, batches = torch.optim.AdamW(twin.parameters(), weight_decay=0.0), list(loader) * 3
    for rate, loss, (images, labels) in zip(rates, losses, batches, strict=False):
        optimizer.param_groups[0]["lr"] = rate
        by_hand = F.cross_entropy(twin(images), labels)
        assert loss == pytest.approx(by_hand.item(), rel=1e-4)
        optimizer.zero_grad()
        by_hand.backward()
        optimizer.step()


def test_the_finder_leaves_no_trace():
    """Weights, statistics, modes, gradients, frozen layers, the loader's order and torch's random numbers."""
    loader = loader_of(40, shuffle=True, generator=torch.Generator().manual_seed(0))
    model = small_model(dropout=0.5).eval()
    models.freeze(model[0])
    torch.manual_seed(5)
    state, order, before = torch.get_rng_state(), loader.generator.get_state(), models.fingerprint(model)
    training.find_learning_rate(model, loader, steps=20, device=CPU)
    assert models.fingerprint(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(loader.generator.get_state(), order)
    assert not any(layer.training for layer in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()] == [False] * 2 + [True] * 4


def test_the_finder_leaves_no_trace_when_it_fails():
    model = small_model()
    before = models.fingerprint(model)
    loader = DataLoader([(torch.rand(3, 8, 8), 0)] * 8 + [(torch.rand(3, 9, 9), 0)] * 8, 8)  # the second batch fails
    with pytest.raises(RuntimeError):
        training.find_learning_rate(model, loader, steps=20, device=CPU)
    assert models.fingerprint(model) == before


@pytest.mark.parametrize("highest", [1e6, 1e38])
def test_the_finder_ends_when_the_loss_explodes(highest):
    loader = loader_of(32, shuffle=True)
    rates, losses = training.find_learning_rate(small_model(), loader, steps=200, highest=highest, device=CPU)
    assert 1 < len(rates) == len(losses) < 200
    assert all(math.isfinite(loss) for loss in losses)
    assert all(loss <= 4 * losses[0] for loss in losses[:-1])


def test_a_loss_that_is_no_number_ends_the_search():
    images = torch.rand(24, 3, 8, 8)
    images[16:] = math.nan  # the third batch of eight
    loader = DataLoader(TensorDataset(images, torch.zeros(24, dtype=torch.int64)), 8)
    rates, losses = training.find_learning_rate(small_model(), loader, device=CPU)
    assert len(rates) == len(losses) == 2
    assert all(math.isfinite(loss) for loss in losses)


def test_a_mistake_is_not_taken_for_the_end_of_the_search():
    with pytest.raises(BadArgument, match="half"):
        training.find_learning_rate(small_model(), loader_of(8), device=CPU, precision="half")
    with pytest.raises(BadArgument, match="frozen"):
        training.find_learning_rate(models.freeze(small_model()), loader_of(8), device=CPU)

    class Unreadable(TensorDataset):
        def __getitem__(self, index):
            raise CourseError("cut.jpg can't be read")

    with pytest.raises(CourseError, match="can't be read"):
        training.find_learning_rate(small_model(), DataLoader(Unreadable(torch.rand(8, 3))), device=CPU)


def test_the_finder_shows_the_same_batches_every_time():
    model, loader = small_model(dropout=0.5), loader_of(40, shuffle=True)
    first = training.find_learning_rate(model, loader, steps=10, device=CPU)
    torch.rand(1)
    assert training.find_learning_rate(model, loader, steps=10, device=CPU) == first
    assert training.find_learning_rate(model, loader, steps=10, seed=1, device=CPU) != first


def test_the_finder_refuses_rates_that_do_not_grow():
    for options in ({"lowest": 0}, {"lowest": 2.0}, {"steps": 1}):
        with pytest.raises(BadArgument, match="two or more, up from above 0"):
            training.find_learning_rate(small_model(), loader_of(8), device=CPU, **options)
