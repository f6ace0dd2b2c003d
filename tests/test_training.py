"""`fit` and `evaluate`, against torch's and numpy's own arithmetic."""

import math

import numpy
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from helpers import models, precision, training
from helpers.settings import BadArgument, CourseError

CPU = torch.device("cpu")


def quiet(line):
    """Instead of print."""


def loader_of(count, *, batch_size=8, shuffle=False, seed=0, classes=2, **options):
    """Random pictures with labels that one linear layer can learn."""
    generator = torch.Generator().manual_seed(seed)
    pictures = torch.rand(count, 3, 8, 8, generator=generator)
    labels = (pictures[:, 0].mean((1, 2)) * classes * 2).long() % classes
    order = torch.Generator().manual_seed(0) if shuffle else None
    return DataLoader(TensorDataset(pictures, labels), batch_size, shuffle=shuffle, generator=order, **options)


def small_model(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 2)]
    return nn.Sequential(*layers)


# ---- evaluate


def test_evaluate_is_a_mean_over_pictures_not_over_batches():
    loader, model = loader_of(21), small_model()  # batches of 8, 8 and 5
    result = training.evaluate(model, loader, device=CPU, precision="float32")
    pictures, labels = loader.dataset.tensors
    logits = model.eval()(pictures).detach()
    assert result.accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
    assert result.log_loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-5)
    by_numpy = -numpy.log(result.probabilities.numpy()[range(21), labels.numpy()]).mean()
    assert result.log_loss == pytest.approx(by_numpy, rel=1e-5)


def test_evaluate_leaves_the_model_as_it_was():
    model = small_model(dropout=0.5).train()
    before = models.fingerprint(model)
    first, second = (training.evaluate(model, loader_of(20), device=CPU) for _ in range(2))
    assert models.fingerprint(model) == before
    assert torch.equal(first.probabilities, second.probabilities)


def test_evaluate_refuses_a_loader_that_leaves_pictures_out():
    with pytest.raises(CourseError, match=r"16 of 21 pictures.*drop_last"):
        training.evaluate(small_model(), loader_of(21, drop_last=True), device=CPU)


# ---- fit


@pytest.mark.parametrize("optimizer", training.OPTIMIZERS)
@pytest.mark.parametrize("schedule", training.SCHEDULES)
def test_fit_learns_with_every_optimizer_and_schedule(optimizer, schedule):
    options = {"optimizer": optimizer, "schedule": schedule, "learning_rate": 0.01, "report": quiet, "device": CPU}
    model, train, validation = small_model(), loader_of(64, shuffle=True), loader_of(64)
    before = training.evaluate(model, train, device=CPU).log_loss
    history = training.fit(model, train, validation, epochs=8, label_smoothing=0.05, **options)
    assert len(history.rows) == 8
    assert training.evaluate(model, train, device=CPU).log_loss < before - 0.05


def test_one_step_of_sgd_equals_torchs_arithmetic():
    """Weights after one batch, by hand: w − rate · gradient."""
    loader, model, twin = loader_of(8), small_model(), small_model()
    training.fit(model, loader, loader, epochs=1, optimizer="sgd", schedule="constant", weight_decay=0.0,
                 learning_rate=0.1, report=quiet, device=CPU, precision="float32")  # fmt: skip
    pictures, labels = loader.dataset.tensors
    F.cross_entropy(twin.train()(pictures), labels).backward()
    rate = 0.1 * (1 + 0.9)  # Nesterov momentum counts the first gradient 1 + 0.9 times
    for learned, start in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(learned, start - rate * start.grad, rtol=1e-4, atol=1e-6)


def test_train_loss_is_a_mean_over_pictures():
    """With a rate of nothing the mean over 8 + 8 + 5 pictures must be that of all 21."""
    loader, model = loader_of(21), nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    history = training.fit(model, loader, loader, epochs=1, learning_rate=0.0, weight_decay=0.0, schedule="constant",
                           report=quiet, device=CPU, precision="float32")  # fmt: skip
    row = history.rows[0]
    assert row["train_loss"] == pytest.approx(row["validation_loss"], rel=1e-5)
    assert row["train_accuracy"] == pytest.approx(row["validation_accuracy"])


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others():
    def losses(seed):
        loader = loader_of(40, shuffle=True)
        next(iter(loader))  # fit must not depend on what was drawn before
        model = small_model(dropout=0.5)
        history = training.fit(model, loader, loader, epochs=2, seed=seed, report=quiet, device=CPU)
        return [row["train_loss"] for row in history.rows], models.fingerprint(model)

    assert losses(0) == losses(0)
    assert losses(0) != losses(1)


def test_the_model_ends_with_its_best_epoch_and_on_best_sees_it():
    """A rate this high gets worse in the end; the best epoch must be kept."""
    model, train, validation, kept = small_model(), loader_of(32, shuffle=True), loader_of(32, seed=1), []
    history = training.fit(model, train, validation, epochs=8, learning_rate=0.5, schedule="constant", report=quiet,
                           device=CPU, on_best=lambda: kept.append(models.fingerprint(model)))  # fmt: skip
    losses = [row["validation_loss"] for row in history.rows]
    assert history.best_epoch == losses.index(min(losses)) + 1
    assert kept[-1] == models.fingerprint(model)
    assert training.evaluate(model, validation, device=CPU).log_loss == pytest.approx(min(losses), rel=1e-5)


def test_ctrl_c_keeps_the_best_weights_so_far(capsys):
    model, train, kept = small_model(), loader_of(32, shuffle=True), []

    def interrupt(line):
        if "epoch  3" in line:
            raise KeyboardInterrupt
        print(line)

    with pytest.raises(KeyboardInterrupt):
        training.fit(model, train, train, epochs=9, learning_rate=0.01, report=interrupt, device=CPU,
                     on_best=lambda: kept.append(models.fingerprint(model)))  # fmt: skip
    assert models.fingerprint(model) == kept[-1]
    assert "Kept: the best weights, from epoch" in capsys.readouterr().out


def test_fit_says_what_is_wrong():
    loader, model = loader_of(8), small_model()
    with pytest.raises(BadArgument, match="adamw, sgd"):
        training.fit(model, loader, loader, epochs=1, optimizer="adam", device=CPU)
    with pytest.raises(BadArgument, match="one-cycle, cosine, constant"):
        training.fit(model, loader, loader, epochs=1, schedule="step", device=CPU)
    with pytest.raises(BadArgument, match="Every parameter is frozen"):
        training.fit(models.freeze(small_model()), loader, loader, epochs=1, device=CPU)
    with pytest.raises(CourseError, match="lower learning rate"):
        training.fit(model, loader, loader, epochs=5, learning_rate=1e30, optimizer="sgd", report=quiet, device=CPU)
    model = small_model()
    model[0].weight.require_grad = False
    with pytest.raises(BadArgument, match="with an s"):
        training.fit(model, loader, loader, epochs=1, device=CPU)


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
        history = training.fit(small_model(), loader, loader, epochs=1, schedule=schedule, report=quiet, device=CPU)
        assert math.isfinite(history.rows[0]["train_loss"])


# ---- mixed precision


def test_precision_follows_the_device(monkeypatch):
    assert precision.fast_precision(torch.device("mps")) is None
    for capability, dtype in {(7, 5): torch.float16, (8, 0): torch.bfloat16, (9, 0): torch.bfloat16}.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, c=capability: c)
        assert precision.fast_precision(torch.device("cuda")) == dtype
    for pays, dtype in {True: torch.bfloat16, False: None}.items():
        monkeypatch.setattr(precision, "bfloat16_pays", lambda p=pays: p)
        assert precision.fast_precision(CPU) == dtype


def test_float32_is_exact_on_every_device_and_other_words_are_refused():
    for name in ("cuda", "cpu", "mps"):
        assert precision.choose_precision(torch.device(name), "float32") is None
    with pytest.raises(BadArgument, match=r"'half'.*fast, float32"):
        training.evaluate(small_model(), loader_of(8), device=CPU, precision="half")


def test_training_in_bfloat16_works_where_it_is_chosen(monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: True)
    loader = loader_of(32, shuffle=True)
    history = training.fit(small_model(), loader, loader, epochs=3, learning_rate=0.01, report=quiet, device=CPU)
    assert history.rows[-1]["train_loss"] < history.rows[0]["train_loss"]


# ---- history


def test_history_prints_a_table_with_the_best_epoch_marked():
    loader = loader_of(16)
    history = training.fit(small_model(), loader, loader, epochs=3, report=quiet, device=CPU)
    lines = repr(history).splitlines()
    assert lines[0].split("  ")[0] == "epoch"
    assert "*" in lines[history.best_epoch]
    assert f"{history.rows[0]['train_loss']:.3f}" in lines[1]
    assert history.plot().axes[0].get_ylabel() == "mean cross-entropy (nats)"
