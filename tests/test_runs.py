"""A run from a folder of images to a saved model and its answers: what is passed on, what is kept, what is read."""

import json
import math
import multiprocessing
import os
import shutil
import signal
import struct
import sys
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small import SETTING, alone, draw_classes, opened_below, slim_weights
from torch import nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import normalize, pil_to_tensor, resize

from helpers import models, runs, training, transfer
from helpers.data import Splits, load_splits
from helpers.settings import BadArgument, CourseError, Setting, Stopped, choose_setting


@pytest.fixture(autouse=True)
def _small_and_alone(tmp_path, monkeypatch):
    alone(monkeypatch, tmp_path / "features")


@pytest.fixture
def images(tmp_path):
    return draw_classes(tmp_path / "images")


@pytest.fixture
def setting(images, tmp_path):
    """The folder, a slim VGG16, exact arithmetic."""
    weights = slim_weights(tmp_path / "slim.safetensors")
    return choose_setting(str(images), weights=str(weights), precision="float32")


@pytest.fixture
def splits(setting):
    return load_splits(setting)


def quiet(line):
    """Instead of print."""


def numbers(run):
    """All that a run learned and measured, to the last bit."""
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in run.history.rows]
    summary = {key: value for key, value in run.summary.items() if key != "train_seconds"}
    return rows, summary, models.fingerprint(run.model)


both = pytest.mark.parametrize("recipe", [runs.train_scratch, runs.train_transfer])


@pytest.fixture
def fitted(monkeypatch):
    """What `fit` is given in each call: its model's fingerprint at the start, its loaders' datasets, its options."""
    calls, fit = [], runs.fit

    def watched(model, *loaders, **options):
        calls.append((models.fingerprint(model), [loader.dataset for loader in loaders], options))
        return fit(model, *loaders, **options)

    monkeypatch.setattr(runs, "fit", watched)
    return calls


# ---- the seed


@both
def test_the_same_seed_gives_the_same_run_whatever_was_drawn_before(recipe, splits, setting):
    first = recipe(splits, setting, seed=1, report=quiet)
    torch.rand(3)
    state = torch.get_rng_state()
    second = recipe(splits, setting, seed=1, report=quiet)
    assert torch.equal(torch.get_rng_state(), state)
    assert numbers(first) == numbers(second)


@both
def test_the_seed_draws_the_first_weights_and_goes_on_into_the_training(recipe, splits, setting, fitted):
    for seed in (0, 1, numpy.int64(1)):
        run = recipe(splits, setting, seed=seed, report=quiet)
        assert run.about["seed"] == seed
        assert fitted[-1][2]["seed"] == seed
    starts = [start for start, _, _ in fitted]
    assert starts[0] != starts[1] == starts[2]


def test_compare_passes_its_seed_to_both(splits, setting, fitted):
    found = runs.compare(splits, setting, seed=5, report=quiet)
    alone = [recipe(splits, setting, seed=5, report=quiet) for recipe in (runs.train_scratch, runs.train_transfer)]
    assert [options["seed"] for _, _, options in fitted] == [5, 5, 5, 5]
    assert [numbers(run) for run in found.values()] == [numbers(run) for run in alone]


def spin():
    """Keep a core busy; for another process."""
    while True:
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that the other processes are there at once")
def test_compare_gives_the_same_numbers_on_a_busy_machine_and_from_an_empty_store(splits, setting, monkeypatch):
    setting = replace(setting, precision="fast", scratch_epochs=1, transfer_epochs=1)
    expected = {name: numbers(run) for name, run in runs.compare(splits, setting, report=quiet).items()}
    monkeypatch.setattr(transfer, "FEATURES", transfer.FEATURES.with_name("other"))
    processes = [multiprocessing.get_context("fork").Process(target=spin, daemon=True) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads around
        for process in processes:
            process.start()
    try:
        found = runs.compare(splits, setting, report=quiet)
    finally:
        for process in processes:
            process.kill()
            process.join()
    assert {name: numbers(run) for name, run in found.items()} == expected


# ---- what the recipes pass on


def test_scratch_is_trained_with_its_recipe(splits, setting, fitted):
    runs.train_scratch(splits, setting, report=quiet)
    expected = {"learning_rate": 3e-3, "weight_decay": 0.05, "label_smoothing": 0.1, "epochs": 2}
    assert {key: fitted[0][2][key] for key in expected} == expected
    assert fitted[0][2]["precision"] == "float32"


def test_transfer_is_trained_with_its_recipe(splits, setting, fitted):
    recipe = runs.TransferRecipe("linear", ("plain", "flip"), 0.0123)
    runs.train_transfer(splits, replace(setting, transfer_epochs=3), recipe=recipe, report=quiet)
    runs.train_transfer(splits, setting, report=quiet)
    assert [(options["learning_rate"], options["epochs"]) for _, _, options in fitted] == [(0.0123, 3), (3e-3, 2)]
    views, plain = [dataset.views for dataset in fitted[0][1]], [dataset.views for dataset in fitted[1][1]]
    assert views == plain == [2, 1]  # both have the mirrored image in training, and no views in validation


@both
def test_each_split_is_used_for_what_it_is_there_for(recipe, splits, setting):
    """The oracle: PIL, torchvision's own transforms and torch's cross-entropy, on the files of each split.

    The epoch's validation loss is one of the validation images; the run's accuracy and log loss are of the test's.
    """
    splits = replace(splits, validation=splits.validation[:2])
    run = recipe(splits, replace(setting, scratch_epochs=1, transfer_epochs=1), report=quiet)
    for part, (accuracy, loss) in {
        "validation": [run.history.rows[0][f"validation_{key}"] for key in ("accuracy", "loss")],
        "test": [run.summary[f"test_{key}"] for key in ("accuracy", "log_loss")],
    }.items():
        logits, labels = answers_by_hand(run.model, splits.parts()[part])
        assert accuracy == pytest.approx((logits.argmax(1) == labels).float().mean().item())
        assert loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
        assert getattr(run, part).log_loss == pytest.approx(loss, rel=1e-6)


def tensors(pairs):
    """The images of some (path, label) as a batch, with torchvision's own functions."""
    pixels = [resize(pil_to_tensor(Image.open(path)), [32, 32], antialias=True) for path, _ in pairs]
    return normalize(torch.stack(pixels) / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def answers_by_hand(model, pairs):
    """Logits and labels of some (path, label)."""
    with torch.no_grad():
        return model.eval()(tensors(pairs)), torch.tensor([label for _, label in pairs])


def test_the_head_is_given_the_exact_statistics_of_the_training_images_features(splits, setting):
    run = runs.train_transfer(splits, setting, report=quiet)
    (base, head), batch = models.split_model(run.model), tensors(splits.train)
    with torch.no_grad():
        features = torch.cat([base(batch), base(batch.flip(-1))]).double().numpy()
    numpy.testing.assert_allclose(head[0].mean, features.mean(0), atol=1e-5)
    numpy.testing.assert_allclose(head[0].std, numpy.sqrt(features.var(0) + 1e-5), atol=1e-5)
    assert numpy.abs(features.mean(0)).max() > 0.05


@pytest.mark.parametrize(("head", "name"), [("full", "float32"), ("linear", "bfloat16")])
def test_a_recipe_and_a_precision_of_ones_own_are_used(splits, setting, monkeypatch, fitted, head, name, tmp_path):
    tested, evaluate = [], runs.evaluate
    monkeypatch.setattr(runs, "evaluate", lambda *a, **options: tested.append(options) or evaluate(*a, **options))
    setting = replace(setting, backbone="squeezenet1_1", weights="random", precision=name)
    recipe = runs.TransferRecipe(head, ("plain", "flip"), 1e-3)
    run = runs.train_transfer(splits, setting, recipe=recipe, report=quiet)
    assert run.about["head"] == head
    # SqueezeNet's 512 maps: a kernel of 1 × 1 over them, or a weight for the average and the maximum of each.
    assert run.summary["trainable_parameters"] == {"full": 3 * 512 + 3, "linear": 3 * 1024 + 3}[head]
    assert [fitted[0][2]["precision"], tested[0]["precision"]] == [name, name]
    assert run.history.precision == run.summary["precision"] == name
    assert fitted[0][1][0].stored.dtype == {"float32": "<f4", "bfloat16": "<f2"}[name]


@pytest.mark.parametrize("test_views", [("plain",), ("plain", "flip")], ids=len)
def test_a_run_is_tested_as_predict_asks_its_model(splits, setting, tmp_path, test_views):
    setting = replace(setting, backbone="squeezenet1_1", weights="random")
    recipe = runs.TransferRecipe("linear", ("plain",), 1e-2, test_views=test_views)
    run = runs.train_transfer(splits, setting, recipe=recipe, report=quiet, folder=tmp_path / "run")
    saved = runs.load_model(tmp_path / "run")
    assert len(run.test.labels) == len(splits.test)
    calibrated = (run.test.probabilities.log() / run.about["temperature"]).softmax(1)
    answers = zip(run.test.predictions, calibrated.amax(1), splits.test, strict=True)
    for label, probability, (path, _) in answers:
        expected = (splits.classes[label], pytest.approx(probability.item(), abs=1e-5))
        assert runs.predict(run.model, run.about, path) == expected
        assert runs.predict(*saved, path) == expected


# ---- one file


@both
def test_a_run_is_one_file_that_knows_all(recipe, splits, setting, tmp_path):
    folder = tmp_path / "run"
    run = recipe(splits, setting, seed=2, report=quiet, folder=folder)
    assert [file.name for file in folder.iterdir()] == ["model.safetensors"]
    loaded = runs.load_run(folder)
    assert models.fingerprint(loaded.model) == models.fingerprint(run.model)
    assert loaded.about == run.about
    assert (loaded.history, loaded.summary) == (run.history, run.summary)
    content = (folder / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    saved = json.loads(header["__metadata__"]["run"])
    assert saved["about"]["classes"] == ["ants", "bees", "wasps"]
    assert saved["about"]["seed"] == 2
    assert saved["summary"]["precision"] == "float32"
    assert {"python", "torch", "torchvision", "device", "cpu", "threads"} <= set(saved["environment"])
    tensors, weights = load_file(folder / "model.safetensors"), run.model.state_dict()
    assert {key: torch.equal(tensors[key], value) for key, value in weights.items()} == dict.fromkeys(weights, True)
    beside = {"strangeness.known", "strangeness.std", "strangeness.threshold"}
    assert tensors.keys() - weights.keys() == (beside if recipe is runs.train_transfer else set())


def test_a_run_is_written_once_at_the_end(splits, setting, tmp_path, monkeypatch):
    written, lines, write = [], [], runs.write_whole
    monkeypatch.setattr(runs, "write_whole", lambda file, content: written.append(len(lines)) or write(file, content))
    runs.train_transfer(splits, setting, report=lines.append, folder=tmp_path / "run")
    assert written == [1 + 2]  # after the line about the features and the two of the epochs


def test_a_run_counts_when_it_is_safe_on_the_disk(splits, setting, tmp_path, monkeypatch):
    """All of it is flushed out of Python and out of the system before it gets its name."""
    seen, fsync = [], os.fsync
    target = tmp_path / "run" / "model.safetensors"
    noted = lambda number: seen.append((os.fstat(number).st_size, target.exists())) or fsync(number)  # noqa: E731
    monkeypatch.setattr(os, "fsync", noted)
    runs.train_scratch(splits, setting, report=quiet, folder=tmp_path / "run")
    assert seen == [(target.stat().st_size, False)]


def test_loading_draws_no_weights_at_random_and_leaves_the_file_free(splits, setting, tmp_path, monkeypatch):
    """59 MB would else be drawn, only to be thrown away; and Windows keeps a file that is mapped into memory."""
    runs.train_transfer(splits, setting, report=quiet, folder=tmp_path / "run")
    drawn = set()
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_", "uniform_"):
        draw = getattr(nn.init, name)
        note = lambda tensor, *a, draw=draw, **o: drawn.add(tensor.device.type) or draw(tensor, *a, **o)  # noqa: E731
        monkeypatch.setattr(nn.init, name, note)
    state = torch.get_rng_state()
    model, _ = runs.load_model(tmp_path / "run")
    assert drawn == {"meta"}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(tensor.device.type == "cpu" for tensor in model.state_dict().values())
    if sys.platform == "linux":
        assert str(tmp_path / "run") not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("change", ["none", "cut", "empty", "garbage", "header", "weights", "tail", "old", "other"])
def test_a_damaged_run_is_refused_in_one_line(tmp_path, change):
    model, about = models.SmallCNN(2), {"network": "small_cnn", "classes": ["a", "b"], "image_size": 32}
    runs.save_run(runs.Run(model, about, training.History(), summary={"epochs": 0}), tmp_path)
    file = tmp_path / "model.safetensors"
    content = file.read_bytes()
    middle = len(content) * 2 // 3
    if change in ("old", "other"):  # as the course's first version wrote it; as another program does
        save_file(model.state_dict(), file, metadata={"classes": '["a", "b"]'} if change == "old" else None)
        content = file.read_bytes()
    changed = {
        "cut": content[:-100],
        "empty": b"",
        "garbage": b"garbage" * 1000,
        "header": content[:20] + bytes([content[20] ^ 1]) + content[21:],
        "weights": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "tail": content[:middle] + bytes(len(content) - middle),
    }
    file.write_bytes(changed.get(change, content))
    if change == "none":
        assert models.fingerprint(runs.load_model(tmp_path)[0]) == models.fingerprint(model)
        return
    for load in (runs.load_run, runs.load_model):
        with pytest.raises(BadArgument, match=r"model\.safetensors is damaged, or was not written .* Train it again"):
            load(tmp_path)


@pytest.mark.parametrize("lost", ["network", "image_size", "classes", "head", "summary", "strangeness"])
def test_a_run_of_an_older_version_that_says_too_little_is_refused_in_one_line(splits, setting, tmp_path, lost):
    runs.train_transfer(splits, setting, report=quiet, folder=tmp_path)
    with safe_open(tmp_path / "model.safetensors", "pt") as opened:
        saved = json.loads(opened.metadata()["run"])
    state = load_file(tmp_path / "model.safetensors")
    (saved if lost in saved else saved["about"]).pop(lost)
    save_file(state, tmp_path / "model.safetensors", metadata={"run": json.dumps(saved)})
    with pytest.raises(BadArgument, match=r"not written by this version of the course\. Train it again"):
        runs.load_model(tmp_path)


def test_a_run_from_when_smallcnn_took_averages_alone_is_refused_and_trained_anew(splits, setting, tmp_path):
    model, about = models.SmallCNN(3), runs.about_scratch(splits, setting)
    layers = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(256, 3)
    model.classifier = nn.Sequential(*layers)
    runs.save_run(runs.Run(model, about, training.History(), summary={"epochs": 0}), tmp_path)
    for load in (runs.load_run, runs.load_model):  # BadArgument: what lessons 2 and 7 train anew after
        with pytest.raises(BadArgument, match=r"of an older version of the course, .* Train it again\.$"):
            load(tmp_path)
    runs.train_scratch(splits, setting, report=quiet, folder=tmp_path)
    assert runs.load_run(tmp_path, splits).summary["epochs"] == setting.scratch_epochs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("network", None),
        ("classes", "ab"),
        ("classes", ["a", 2]),
        ("classes", []),
        ("image_size", 0),
        ("image_size", "32"),
        ("image_size", 10**9),
        ("mean", [0.5, 0.5]),
        ("mean", "abc"),
        ("std", [1, 1, 0]),
        ("std", 1.0),
        ("std", [1, 1, math.nan]),
        ("head", ["linear"]),
        ("test_views", []),
        ("test_views", ["sideways"]),
        ("temperature", 0),
        ("temperature", "warm"),
        ("seed", "first"),
        ("seen", None),
        ("data", 5),
    ],
)
def test_a_run_that_somebody_changed_to_nonsense_is_refused_in_one_line(tmp_path, name, value):
    about = {"network": "small_cnn", "classes": ["a", "b"], "image_size": 32, "head": "linear", name: value}
    runs.save_run(runs.Run(models.SmallCNN(2), about, training.History(), summary={"epochs": 0}), tmp_path)
    with pytest.raises(BadArgument, match=rf"was changed by hand: {name} is .*\. Train it again\.") as caught:
        runs.load_model(tmp_path)
    assert len(str(caught.value)) < 150 + len(str(tmp_path))


def test_a_run_of_a_network_that_is_not_installed_here_is_refused_by_its_name(splits, setting, tmp_path):
    runs.train_transfer(splits, setting, report=quiet, folder=tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    name = setting.backbone.encode()
    (tmp_path / "model.safetensors").write_bytes(content.replace(name, b"x" * len(name)))
    with pytest.raises(BadArgument, match="Unknown backbone 'xxx"):
        runs.load_model(tmp_path)


def test_what_holds_no_run_is_named_and_where_runs_are(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BadArgument, match="holds no finished run"):
            runs.load_model(folder)
    for name in ("scratch", "transfer"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "model.safetensors").touch()
    with pytest.raises(BadArgument, match=r"holds 2 runs\. Choose one: .*out.scratch or .*out.transfer\."):
        runs.load_model(tmp_path / "out")


def test_the_file_of_a_run_may_be_named_too(tmp_path):
    model, about = models.SmallCNN(2), {"network": "small_cnn", "classes": ["a", "b"], "image_size": 32}
    runs.save_run(runs.Run(model, about, training.History(), summary={"epochs": 0}), tmp_path)
    assert runs.load_model(tmp_path / "model.safetensors")[1] == about


# ---- an earlier run in the same folder


def stop_after(epoch):
    """A `report` that is stopped when that epoch is shown."""

    def report(line):
        if line.startswith(f"epoch {epoch:2d}"):
            signal.raise_signal(signal.SIGINT)

    return report


@pytest.fixture
def _ctrl_c():
    """Ctrl-C is heard; in a process that a shell started in the background it would not be."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
@both
def test_a_stopped_run_is_kept_and_is_not_taken_for_a_finished_one(recipe, splits, setting, tmp_path):
    """What was on the screen when it was stopped is on the disk, even if another run was there before."""
    recipe(splits, setting, seed=1, report=quiet, folder=tmp_path / "run")
    run = recipe(splits, setting, seed=2, report=stop_after(1), folder=tmp_path / "run")
    assert run.history.stopped
    model, about = runs.load_model(tmp_path / "run")
    assert models.fingerprint(model) == models.fingerprint(run.model)
    assert about["seed"] == 2
    with pytest.raises(BadArgument, match=r"was stopped after epoch 1\. Train it again"):
        runs.load_run(tmp_path / "run")


@pytest.mark.usefixtures("_ctrl_c")
def test_old_results_go_before_the_first_epoch(splits, setting, tmp_path):
    runs.train_scratch(splits, setting, report=quiet, folder=tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{}")  # of the course's first version
    (tmp_path / "run" / "notes.txt").write_text("the user's own")

    def fail(line):
        raise RuntimeError("in the first epoch")

    with pytest.raises(RuntimeError):
        runs.train_scratch(splits, setting, report=fail, folder=tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["notes.txt"]


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_while_the_head_learns_is_the_end_of_fine_tuning(splits, setting, tmp_path):
    with pytest.raises(Stopped, match="Stopped before the fine-tuning began"):
        runs.train_fine_tune(splits, setting, report=stop_after(1), folder=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.usefixtures("_ctrl_c")
def test_a_comparison_that_is_stopped_leaves_nothing_of_the_one_before(splits, setting, tmp_path):
    runs.compare(splits, setting, seed=1, report=quiet, folder=tmp_path)
    (tmp_path / "comparison.png").touch()
    with pytest.raises(Stopped, match=r"What scratch learned so far is in .*scratch\."):
        runs.compare(splits, setting, seed=2, report=stop_after(1), folder=tmp_path)
    left = sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file())
    assert [name for name in left if name.split("/")[0] in ("scratch", "transfer")] == ["scratch/model.safetensors"]
    assert not [name for name in left if name.startswith("comparison")]
    assert runs.load_model(tmp_path / "scratch")[1]["seed"] == 2


def test_a_training_takes_out_only_what_it_replaces(splits, setting, tmp_path):
    """`train scratch --out runs` must leave the runs in runs/scratch and runs/transfer, and a comparison, alone."""
    others = ["scratch/model.safetensors", "transfer/model.safetensors", "comparison.json", "comparison.png"]
    for name in others:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).touch()
    runs.train_scratch(splits, setting, report=quiet, folder=tmp_path / "out")
    assert all((tmp_path / "out" / name).exists() for name in others)


def test_a_wrong_argument_takes_nothing_out(splits, setting, tmp_path):
    runs.compare(splits, setting, report=quiet, folder=tmp_path / "out")
    before = {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    wrong = replace(setting, weights=str(tmp_path / "missing.safetensors"))
    transfer = tmp_path / "out" / "transfer"
    trainings = {runs.compare: tmp_path / "out", runs.train_transfer: transfer, runs.train_fine_tune: transfer}
    for train, folder in trainings.items():
        with pytest.raises(BadArgument, match="no weights file"):
            train(splits, wrong, report=quiet, folder=folder)
    assert {file: file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file()} == before


def test_another_folder_of_the_same_name_is_not_taken_for_the_same(tmp_path, setting):
    """A run knows by a digest what it learned from; the same images elsewhere, or otherwise called, are the same."""
    for project, seed in {"flowers": 0, "leaves": 1}.items():
        draw_classes(tmp_path / project / "pets", ("a", "b"), seed=seed)
    shutil.copytree(tmp_path / "flowers" / "pets", tmp_path / "moved" / "pets")
    splits = {name: load_splits(replace(setting, name=str(tmp_path / name / "pets"))) for name in ("flowers", "leaves")}
    assert splits["flowers"].name == splits["leaves"].name == "pets"
    runs.train_scratch(splits["flowers"], setting, report=quiet, folder=tmp_path / "run")
    for same in (splits["flowers"], load_splits(replace(setting, name=str(tmp_path / "moved" / "pets")))):
        assert runs.load_run(tmp_path / "run", same).about["classes"] == ["a", "b"]
    other_seed = load_splits(replace(setting, name=str(tmp_path / "flowers" / "pets")), seed=1)
    for other in (splits["leaves"], other_seed):
        with pytest.raises(BadArgument, match="learned from other images, or from another split of them"):
            runs.load_run(tmp_path / "run", other)


# ---- disks


@pytest.fixture
def small_run():
    about = {"network": "small_cnn", "classes": ["a", "b"], "image_size": 32}
    return runs.Run(models.SmallCNN(2), about, training.History(), summary={"epochs": 0})


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_is_one_line_and_the_old_run_stays_whole(small_run, tmp_path):
    import resource  # POSIX only

    runs.save_run(small_run, tmp_path)
    content, before = (tmp_path / "model.safetensors").read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        with pytest.raises(CourseError, match=r"Could not write .*model\.safetensors \(.*too large\)\. Make room"):
            runs.save_run(replace(small_run, model=models.SmallCNN(2)), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == content


def test_ctrl_c_while_the_model_is_written_leaves_the_old_one_whole(small_run, tmp_path, monkeypatch):
    runs.save_run(small_run, tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()

    def interrupted(number):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.save_run(replace(small_run, model=models.SmallCNN(2)), tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == content


@pytest.mark.skipif(sys.platform == "win32", reason="no modes")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_who_may_read_a_run_is_the_umasks_choice(small_run, tmp_path, mask):
    before = os.umask(mask)
    try:
        runs.save_run(small_run, tmp_path)
        runs.write_json(tmp_path / "comparison.json", {})
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o666 & ~mask}


def test_a_folder_that_cannot_be_written_is_named_before_the_training(splits, setting, tmp_path, fitted):
    (tmp_path / "file").write_text("in the way")
    for train in (runs.train_scratch, runs.train_transfer, runs.train_fine_tune, runs.compare):
        with pytest.raises(BadArgument, match=r"Can't write into .*Choose another folder"):
            train(splits, setting, report=quiet, folder=tmp_path / "file" / "out")
    assert not fitted


# ---- predict


@pytest.fixture
def learned(splits, setting):
    """A model, and what is known about it."""
    run = runs.train_scratch(splits, replace(setting, scratch_epochs=1), report=quiet)
    return run.model, run.about


def test_many_images_are_named_each_as_if_it_were_alone(learned, images, tmp_path):
    """More than one batch of them, with a damaged and a missing one in between."""
    files = 2 * sorted(images.rglob("*.png"))
    (tmp_path / "text.jpg").write_text("not an image")
    files[5:5], files[40:40] = [tmp_path / "text.jpg"], [tmp_path / "missing.jpg"]
    model, about = learned
    modes = [layer.training for layer in model.train().modules()]
    answers = list(runs.predict_all(model, about, files))
    assert [layer.training for layer in model.modules()] == modes
    assert [path for path, _ in answers] == files
    errors = {path.name: str(answer) for path, answer in answers if isinstance(answer, CourseError)}
    assert set(errors) == {"text.jpg", "missing.jpg"}
    assert "can't be read as an image" in errors["text.jpg"]
    assert "There is no file" in errors["missing.jpg"]
    for path, answer in answers:
        if path.name not in errors:
            probabilities = answers_by_hand(model, [(path, 0)])[0].softmax(1)[0]
            assert answer.name == about["classes"][probabilities.argmax()]
            calibrated = (probabilities.log() / about["temperature"]).softmax(0).max().item()
            assert answer.probability == pytest.approx(calibrated, abs=1e-3)


def test_predict_raises_what_is_wrong_with_the_file(learned, tmp_path):
    with pytest.raises(CourseError, match=r"There is no file .*missing\.jpg"):
        runs.predict(*learned, tmp_path / "missing.jpg")


def test_nothing_to_name_is_no_answer(learned):
    assert list(runs.predict_all(*learned, [])) == []


# ---- the way of an image


def test_an_image_is_read_once_to_be_split_once_for_its_features_and_once_to_be_named(images, setting, tmp_path):
    every = {file.relative_to(images).as_posix() for file in images.rglob("*.png")}
    with opened_below(images) as opened:
        splits = load_splits(setting)
    assert Counter(opened) == dict.fromkeys(every, 1)

    with opened_below(images) as opened:
        run = runs.train_transfer(splits, setting, report=quiet, folder=tmp_path / "run")
    assert Counter(opened) == dict.fromkeys(every, 1)

    with opened_below(images) as opened:  # the features are there
        runs.train_transfer(splits, setting, report=quiet)
    assert opened == []

    with opened_below(images) as opened:
        answers = list(runs.predict_all(run.model, run.about, sorted(images.rglob("*.png"))))
    assert Counter(opened) == dict.fromkeys(every, 1)
    assert len(answers) == 24


@pytest.mark.parametrize("passes", [1, 3])
def test_training_from_scratch_reads_an_image_once_each_time_that_it_shows_it(images, setting, passes):
    splits = load_splits(setting)
    with opened_below(images) as opened:
        runs.train_scratch(splits, replace(setting, scratch_passes=passes), report=quiet)
    expected = Counter()
    for part, times in ((splits.train, 2 * passes), (splits.validation, 3), (splits.test, 1)):
        expected |= {path.relative_to(images).as_posix(): times for path, _ in part}
    assert Counter(opened) == expected


# ---- what is told


def test_the_table_has_the_runs_side_by_side(splits, setting):
    found = runs.compare(splits, setting, report=quiet)
    lines = runs.comparison_table(found).splitlines()
    assert lines[0].split() == ["scratch", "transfer"]
    accuracy = [f"{run.summary['test_accuracy']:.3f}" for run in found.values()]
    assert lines[1].split() == ["test", "accuracy", *accuracy]
    assert lines[3].split() == ["parameters", "394,643", "230,955"]  # counted by hand: 230,568 in slim convolutions
    assert lines[5].split() == ["epochs", "2", "2"]
    assert "unless an earlier run has stored them" in lines[7]  # or a second run's 0.2 s would be a riddle
    assert len(runs.comparison_table({"scratch": found["scratch"]}).splitlines()) == 7


def test_splits_need_no_files_digests(tmp_path):
    """Splits that a user made by hand know nothing of their files' contents; they are told apart by their paths."""
    draw_classes(tmp_path / "x", ("a", "b"))
    pairs = [(path, label) for label, name in enumerate("ab") for path in sorted((tmp_path / "x" / name).iterdir())]
    splits = Splits("mine", ["a", "b"], pairs[::2], pairs[1::4], pairs[3::4])
    setting = Setting("mine", *SETTING.values(), backbone="squeezenet1_1", weights="random")
    run = runs.train_transfer(splits, replace(setting, transfer_epochs=1), report=quiet, folder=tmp_path / "run")
    assert runs.load_run(tmp_path / "run", splits).about == run.about
