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
    """Random images with labels that one linear layer can learn."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, 3, 8, 8, generator=generator)
    labels = (images[:, 0].mean((1, 2)) * classes * 2).long() % classes
    order = torch.Generator().manual_seed(0) if shuffle else None
    return DataLoader(TensorDataset(images, labels), batch_size, shuffle=shuffle, generator=order, **options)


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


def test_evaluate_leaves_the_model_as_it_was():
    model = small_model(dropout=0.5).train()
    before = models.fingerprint(model)
    first, second = (training.evaluate(model, loader_of(20), device=CPU) for _ in range(2))
    assert models.fingerprint(model) == before
    assert torch.equal(first.probabilities, second.probabilities)


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
    images, labels = loader.dataset.tensors
    F.cross_entropy(twin.train()(images), labels).backward()
    rate = 0.1 * (1 + 0.9)  # Nesterov momentum counts the first gradient 1 + 0.9 times
    for learned, start in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(learned, start - rate * start.grad, rtol=1e-4, atol=1e-6)


def test_train_loss_is_a_mean_over_images():
    """With a rate of nothing the mean over 8 + 8 + 5 images must be that of all 21."""
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


def test_bfloat16_is_chosen_where_a_convolution_is_clearly_faster_with_it(monkeypatch):
    monkeypatch.setattr(precision, "convolution", lambda dtype: dtype)
    for bfloat16_seconds, pays in {0.5: True, 0.6: True, 0.8: False, 3.0: False}.items():
        times = {torch.float32: 1.0, torch.bfloat16: bfloat16_seconds}
        monkeypatch.setattr(precision, "seconds_of", times.get)
        assert precision.bfloat16_pays.__wrapped__() == pays


def test_a_busy_moment_does_not_change_the_precision(monkeypatch):
    # The same seed must give the same numbers again, so the choice must not depend on what else the machine does.
    monkeypatch.setattr(precision, "convolution", lambda dtype: dtype)
    times = {torch.float32: 1.0, torch.bfloat16: 0.5}
    for busy in (range(1, 4), range(3, 12), range(6, 15)):  # measurements that take ten times as long
        factors = iter([10 if number in busy else 1 for number in range(100)])
        monkeypatch.setattr(precision, "seconds_of", lambda dtype, factors=factors: times[dtype] * next(factors))
        assert precision.bfloat16_pays.__wrapped__()


def test_a_copy_runs_on_its_own_only_to_a_cuda_card():
    class Batch:
        def dim(self):
            return 4

        def to(self, device, **options):
            return options["non_blocking"], options["memory_format"]

    copies = {name: precision.to_device(Batch(), torch.device(name)) for name in ("cuda", "mps", "cpu")}
    assert copies == {name: (name == "cuda", torch.channels_last) for name in copies}


def test_exact_on_a_cuda_card_means_no_tf32_either():
    assert torch.backends.cudnn.allow_tf32
    with precision.autocast(torch.device("cuda"), "float32"):
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32


def test_a_device_without_autocast_is_not_asked_for_it(monkeypatch):
    monkeypatch.setattr(torch, "autocast", None)  # for Apple's GPUs PyTorch 2.4 has none
    with precision.autocast(torch.device("mps")), precision.autocast(CPU, "float32"):
        pass


def test_choosing_a_precision_draws_no_random_numbers():
    state = torch.get_rng_state()
    precision.bfloat16_pays.__wrapped__()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_convolution_is_measured_in_the_precision_asked_for(monkeypatch):
    used, forward = [], torch.nn.Conv2d.forward
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lambda layer, x: used.append(x.dtype) or forward(layer, x))
    assert precision.seconds_of(precision.convolution(torch.bfloat16)) > 0
    assert set(used) == {torch.bfloat16}


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


# ---- fine-tuning: a rate for each block, early stopping


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
    training.fit(model, loader, loader, epochs=1, learning_rate=groups, schedule=schedule, report=quiet, device=CPU)
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
        training.fit(model, loader, loader, epochs=1, learning_rate=groups, device=CPU)


def test_patience_ends_a_run_that_many_epochs_after_its_best():
    model, train, validation, lines = small_model(), loader_of(32, shuffle=True), loader_of(32, seed=1), []
    options = {"learning_rate": 0.5, "schedule": "constant", "device": CPU}
    whole = training.fit(small_model(), train, validation, epochs=20, report=quiet, **options)
    history = training.fit(model, train, validation, epochs=20, patience=3, report=lines.append, **options)
    losses = [row["validation_loss"] for row in whole.rows]
    end = next(i for i in range(3, 20) if min(losses[: i - 2]) <= min(losses[i - 2 : i + 1])) + 1  # by hand
    assert end < 20, "this run must have something to stop"
    assert len(history.rows) == end == history.best_epoch + 3
    assert "no new best in the last 3 epochs" in lines[-1]
    assert training.evaluate(model, validation, device=CPU).log_loss == pytest.approx(min(losses[:end]), rel=1e-5)


def test_without_patience_all_epochs_are_run_and_no_patience_is_refused():
    train, validation = loader_of(32, shuffle=True), loader_of(32, seed=1)
    options = {"learning_rate": 0.5, "schedule": "constant", "report": quiet, "device": CPU}
    assert len(training.fit(small_model(), train, validation, epochs=12, **options).rows) == 12
    for patience in (0, -1):
        with pytest.raises(BadArgument, match="at least one epoch"):
            training.fit(small_model(), train, validation, epochs=2, patience=patience, **options)


def steps_of(monkeypatch, **options):
    """Train a network with batch norm for two epochs: its history, itself, and its state after every step."""
    model, steps, make_optimizer = small_model(), [], training.make_optimizer

    def with_a_record(*arguments):
        optimizer = make_optimizer(*arguments)
        optimizer.register_step_post_hook(lambda *_: steps.append(training.copy_of_weights(model)))
        return optimizer

    loader, options = loader_of(40, shuffle=True), {"device": CPU, "report": quiet, **options}
    with monkeypatch.context() as patched:
        patched.setattr(training, "make_optimizer", with_a_record)
        history = training.fit(model, loader, loader_of(40), epochs=2, learning_rate=3e-3, **options)
    return history, model, steps


def test_the_average_is_that_of_the_weights_after_each_step(monkeypatch):
    saved = []
    history, model, steps = steps_of(monkeypatch, average=0.8, on_best=lambda: saved.append(True))
    assert (len(steps), history.best_epoch, len(saved)) == (10, 2, 2), "this run must get better to its end"
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            expected = steps[0][key].double().numpy()
            for step in steps[1:]:
                expected = 0.8 * expected + 0.2 * step[key].double().numpy()
            numpy.testing.assert_allclose(value.numpy(), expected, rtol=1e-4, atol=1e-6)
            assert not torch.equal(value, steps[-1][key])
    loss = training.evaluate(model, loader_of(40), device=CPU).log_loss
    assert loss == pytest.approx(history.rows[-1]["validation_loss"], rel=1e-5)


def test_the_average_does_not_change_the_steps(monkeypatch):
    (_, _, plain), (_, _, averaged) = steps_of(monkeypatch), steps_of(monkeypatch, average=0.9)
    for one, other in zip(plain, averaged, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_on_best_sees_the_average(monkeypatch):
    seen, fit = [], training.fit

    def watched(model, *arguments, **options):
        return fit(model, *arguments, on_best=lambda: seen.append(models.fingerprint(model)), **options)

    monkeypatch.setattr(training, "fit", watched)
    _, model, _ = steps_of(monkeypatch, average=0.8)
    assert seen[-1] == models.fingerprint(model)


def test_the_last_epoch_is_kept_where_that_is_asked_for():
    """The run of `test_the_model_ends_with_its_best_epoch`, which gets worse in the end."""
    model, train, validation, kept = small_model(), loader_of(32, shuffle=True), loader_of(32, seed=1), []
    history = training.fit(model, train, validation, epochs=8, learning_rate=0.5, schedule="constant", report=quiet,
                           device=CPU, keep="last", on_best=lambda: kept.append(models.fingerprint(model)))  # fmt: skip
    losses = [row["validation_loss"] for row in history.rows]
    assert losses[-1] > min(losses), "this run must get worse in the end"
    assert history.best_epoch == 8
    assert len(kept) == 8
    assert kept[-1] == models.fingerprint(model)
    assert training.evaluate(model, validation, device=CPU).log_loss == pytest.approx(losses[-1], rel=1e-5)
    assert "kept: the last epoch" in repr(history)


def test_wrong_words_for_what_is_kept_are_refused():
    for options in ({"keep": "first"}, {"keep": "last", "patience": 2}):
        with pytest.raises(BadArgument, match='"best" or "last"'):
            training.fit(small_model(), loader_of(8), loader_of(8), epochs=1, device=CPU, **options)


def test_no_average_outside_0_and_1():
    for average in (0, 1, -0.5, 2):
        with pytest.raises(BadArgument, match="between 0 and 1"):
            training.fit(small_model(), loader_of(8), loader_of(8), epochs=1, average=average, device=CPU)


def test_weights_that_give_no_number_on_validation_are_not_kept():
    images, saved, model = torch.full((8, 3, 8, 8), math.nan), [], small_model()
    validation = DataLoader(TensorDataset(images, torch.zeros(8, dtype=torch.int64)), 8)
    before = models.fingerprint(model)
    with pytest.raises(CourseError, match="no longer a finite number"):
        training.fit(model, loader_of(8), validation, epochs=2, device=CPU, on_best=lambda: saved.append(1))
    assert (saved, models.fingerprint(model)) == ([], before)


# ---- the learning-rate finder


def test_the_finder_raises_the_rate_by_one_factor_and_notes_each_loss():
    """The oracle: the same steps by hand, with torch's SGD and rates from numpy."""
    loader, model, twin = loader_of(24), small_model(), small_model().train()
    options = {"lowest": 1e-4, "highest": 1e-1, "steps": 7, "optimizer": "sgd", "precision": "float32"}
    rates, losses = training.find_learning_rate(model, loader, device=CPU, **options)
    assert rates == pytest.approx(numpy.geomspace(1e-4, 1e-1, 7))
    optimizer, batches = torch.optim.SGD(twin.parameters(), lr=1.0, momentum=0.9, nesterov=True), list(loader) * 3
    for rate, loss, (images, labels) in zip(rates, losses, batches, strict=False):
        optimizer.param_groups[0]["lr"] = rate
        by_hand = F.cross_entropy(twin(images), labels)
        assert loss == pytest.approx(by_hand.item(), rel=1e-4)
        optimizer.zero_grad()
        by_hand.backward()
        optimizer.step()


def test_the_finder_leaves_no_trace():
    """Weights, statistics, modes, gradients, frozen layers, the loader's order and torch's random numbers."""
    loader, model = loader_of(40, shuffle=True), small_model(dropout=0.5).eval()
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
    options = {"optimizer": "sgd", "steps": 200, "highest": highest, "device": CPU}
    rates, losses = training.find_learning_rate(small_model(), loader_of(32, shuffle=True), **options)
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
    for options, words in {"optimizer": "adagrad", "precision": "half"}.items():
        with pytest.raises(BadArgument, match=words):
            training.find_learning_rate(small_model(), loader_of(8), device=CPU, **{options: words})
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
    next(iter(loader))
    assert training.find_learning_rate(model, loader, steps=10, device=CPU) == first
    assert training.find_learning_rate(model, loader, steps=10, seed=1, device=CPU) != first


def test_the_finder_refuses_rates_that_do_not_grow():
    for options in ({"lowest": 0}, {"lowest": 2.0}, {"steps": 1}):
        with pytest.raises(BadArgument, match="two or more, up from above 0"):
            training.find_learning_rate(small_model(), loader_of(8), device=CPU, **options)
