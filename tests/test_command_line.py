"""The commands: what they write, and how they refuse bad input."""

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file

from helpers import __main__ as command_line
from helpers import data, downloads, models, runs, settings
from helpers.runs import load_model, load_run, train_scratch

TINY = {"scratch_size": 32, "transfer_size": 32, "scratch_epochs": 2, "transfer_epochs": 2}


@pytest.fixture
def images(tmp_path):
    """A folder of three classes, eight images each; each class has a colour of its own."""
    generator = numpy.random.default_rng(0)
    for label, name in enumerate(("ants", "bees", "wasps")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            pixels = generator.integers(0, 120, (40, 40, 3), dtype=numpy.uint8)
            pixels[..., label] += 120
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    return tmp_path / "images"


@pytest.fixture
def slim(tmp_path):
    """A weights file of a slim VGG16 for small images."""
    torch.manual_seed(0)
    save_file(models.VGG16(5, width=1 / 8, image_size=32).state_dict(), tmp_path / "slim.safetensors")
    return tmp_path / "slim.safetensors"


@pytest.fixture(autouse=True)
def _small_and_here(tmp_path, monkeypatch):
    """Two short epochs on small images, in an empty working folder, without the user's choices."""
    monkeypatch.setitem(settings.SETTINGS, "photos", replace(settings.SETTINGS["photos"], **TINY))
    for name in ("COURSE_SETTING", "COURSE_BACKBONE", "COURSE_WEIGHTS", "COURSE_ARCHIVES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def run(*arguments):
    return command_line.main([str(argument) for argument in arguments])


def refused(capsys, tmp_path, *arguments, status=2):
    """Run a command that must fail; its one line of error."""
    assert run(*arguments) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert not list((tmp_path / "here").rglob("*")), "something was left behind"
    return lines[0]


# ---- what they do


def test_compare_writes_the_figure_and_the_numbers(images, slim, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("compare", "--data", images, "--weights", slim, "--seed", 3, "--out", out) == 0
    assert "test accuracy" in capsys.readouterr().out
    with Image.open(out / "comparison.png") as figure:
        figure.load()
    content = json.loads((out / "comparison.json").read_text())
    for model in content["models"].values():
        counts = ("parameters", "trainable_parameters", "epochs")
        assert all(isinstance(model[key], int) and model[key] > 0 for key in counts)
        assert model["train_seconds"] > 0
        assert model["test_log_loss"] > 0
    assert set(content) == {"data", "models", "seed", "environment"}
    assert content["data"] == {
        "name": "images", "classes": ["ants", "bees", "wasps"], "train": 15, "validation": 3, "test": 6,
    }  # fmt: skip
    keys = {"test_accuracy", "test_log_loss", "parameters", "trainable_parameters", "epochs", "train_seconds"}
    assert set(content["models"]["scratch"]) == keys
    assert set(content["models"]["transfer"]) == keys | {"backbone", "weights"}
    assert content["models"]["transfer"]["weights"] == "slim.safetensors"
    assert all(0 <= model["test_accuracy"] <= 1 for model in content["models"].values())
    assert content["seed"] == 3
    assert set(content["environment"]) == {"python", "torch", "torchvision", "device", "cpu", "threads"}


@pytest.mark.parametrize(
    ("arguments", "sides"),
    [
        (("scratch",), ["as it is"]),
        (("transfer", "--backbone", "squeezenet1_1", "--weights", "random"), ["as it is", "mirrored"]),
    ],
    ids=["scratch", "transfer"],
)
def test_train_then_predict(images, arguments, sides, tmp_path, capsys):
    assert run("train", *arguments, "--data", images) == 0
    folder = tmp_path / "here" / "runs" / arguments[0]
    assert load_run(folder).history.rows
    capsys.readouterr()
    files = sorted(images.rglob("*.png"))[:3]
    assert run("predict", folder, *files) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    model, about = load_model(folder)
    for (path, name, probability), file in zip(lines, files, strict=True):
        expected = answer(model, file, sides, size=about["image_size"])
        assert path == str(file)
        assert name == about["classes"][expected.argmax()]
        assert float(probability) == pytest.approx(expected.max().item(), abs=0.001)


def answer(model, file, sides, *, size):
    """The mean of the model's answers to an image as it is, and mirrored."""
    image = Image.open(file).convert("RGB")
    images = {"as it is": image, "mirrored": ImageOps.mirror(image)}
    with torch.inference_mode():
        answers = [model.eval()(data.eval_transform(size)(images[side])[None]).softmax(1)[0] for side in sides]
    return sum(answers) / len(sides)


def test_the_same_seed_gives_the_same_numbers(images, slim, tmp_path):
    summaries = []
    for out in ("a", "b"):
        run("train", "transfer", "--data", images, "--weights", slim, "--out", tmp_path / out)
        summaries.append(load_run(tmp_path / out).summary)
    assert summaries[0]["test_log_loss"] == summaries[1]["test_log_loss"]


def test_a_name_that_the_terminal_cannot_show_is_written_in_its_letters_numbers(images, monkeypatch):
    run("train", "scratch", "--data", images)
    first, second = sorted(images.rglob("*.png"))[:2]
    first = first.rename(first.with_name("größe.png"))
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert run("predict", "runs/scratch", first, second) == 0
    lines = ascii_only.buffer.getvalue().decode("ascii").splitlines()
    assert [line.split("\t")[0].rsplit("/", 1)[-1] for line in lines] == [r"gr\xf6\xdfe.png", second.name]


@pytest.mark.parametrize(
    ("error", "status"), [(torch.cuda.OutOfMemoryError("CUDA out of memory."), 1), (RuntimeError("a bug"), None)]
)
def test_the_end_of_memory_is_one_line_and_a_bug_is_not(images, capsys, monkeypatch, error, status):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setitem(command_line.RECIPES, "scratch", fail)
    if status is None:
        with pytest.raises(RuntimeError, match="a bug"):
            run("train", "scratch", "--data", images)
    else:
        assert run("train", "scratch", "--data", images) == status
        errors = capsys.readouterr().err
        assert errors.startswith("error: Out of memory.")
        assert errors.count("\n") == 1


def test_predict_names_the_unreadable_and_goes_on(images, tmp_path, capsys):
    run("train", "scratch", "--data", images)
    capsys.readouterr()
    (tmp_path / "text.jpg").write_text("not an image")
    good = next(images.rglob("*.png"))
    assert run("predict", "runs/scratch", tmp_path / "text.jpg", good) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{good}\t")
    assert captured.err.count("\n") == 1
    assert "text.jpg can't be read" in captured.err


def test_an_epoch_that_was_shown_is_on_the_disk(images, tmp_path):
    """Ctrl-C the moment the first line appears."""

    def interrupt(line):
        raise KeyboardInterrupt

    setting = settings.choose_setting(str(images))
    with pytest.raises(KeyboardInterrupt):
        train_scratch(data.load_splits(setting), setting, folder=tmp_path / "out", report=interrupt)
    load_model(tmp_path / "out")


def test_ctrl_c_while_the_model_is_written_leaves_the_old_one_whole(tmp_path, monkeypatch):
    model, about = models.SmallCNN(2), {"network": "small_cnn", "classes": ["a", "b"], "image_size": 32}
    runs.save_model(model, about, tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()

    def interrupted(state, file, **_):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.save_model(models.SmallCNN(2), about, tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_ctrl_c_keeps_the_best_model_so_far(images, tmp_path):
    code = (
        # A shell starts what it runs in the background with Ctrl-C ignored, and these tests may run so.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "import sys; from dataclasses import replace; from helpers import settings; from helpers.__main__ import main;"
        f"settings.SETTINGS['photos'] = replace(settings.SETTINGS['photos'], **{TINY | {'scratch_epochs': 9999}});"
        f"sys.exit(main(['train', 'scratch', '--data', {str(images)!r}, '--out', {str(tmp_path / 'out')!r}]))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-u", "-c", code], env=os.environ, **pipes) as process:
        for line in process.stdout:
            if line.startswith("epoch  1"):
                break
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "error: Stopped.\n"
    assert "Kept: the best weights" in rest
    load_model(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "COMMAND"),
        (("explain",), "compare"),
        (("train", "fine"), "scratch"),
        (("compare", "--colour"), "--colour"),
        (("compare", "--seed", "x"), "--seed"),
        (("compare", "--seed", str(2**70)), "--seed"),
        (("compare", "--data", "sample", "--backbone", "vgg19"), "vgg16, vgg16_bn, squeezenet1_1, resnet18"),
        (("compare", "--data", "sample", "--weights", "missing.pth"), "no weights file missing.pth"),
        (("compare", "--data", "photo"), "sample, photos, photos-full"),
        (("train", "transfer", "--data", "sample", "--backbone", "vgg19"), "vgg16, vgg16_bn, squeezenet1_1, resnet18"),
        (("train", "scratch", "--data", "sample", "--backbone", "vgg19"), "vgg16, vgg16_bn, squeezenet1_1, resnet18"),
        (("train", "transfer", "--data", "sample", "--weights", "missing.pth"), "no weights file missing.pth"),
        (("predict", "nowhere", "x.jpg"), "no model.safetensors|no weights file"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, capsys, tmp_path):
    line = refused(capsys, tmp_path, *arguments)
    assert any(part in line for part in message.split("|"))


@pytest.mark.parametrize(
    ("counts", "message"), [({}, "0 class folders"), ({"a": 5}, "1 class"), ({"a": 5, "b": 1}, "'b'")]
)
def test_folders_that_cannot_be_used_are_one_line(counts, message, capsys, tmp_path):
    (tmp_path / "bad").mkdir()
    for name, count in counts.items():
        (tmp_path / "bad" / name).mkdir()
        for i in range(count):
            Image.new("RGB", (40, 40)).save(tmp_path / "bad" / name / f"{i}.png")
    assert message in refused(capsys, tmp_path, "compare", "--data", tmp_path / "bad")


def test_weights_that_cannot_be_used_are_one_line(images, slim, capsys, tmp_path):
    save_file(models.build("resnet18").state_dict(), tmp_path / "other.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(slim.read_bytes()[:-100])
    train = ("train", "transfer", "--data", images, "--weights")
    assert "features.0.weight" in refused(capsys, tmp_path, *train, tmp_path / "other.safetensors")
    assert "damaged" in refused(capsys, tmp_path, *train, tmp_path / "cut.safetensors")


@pytest.fixture
def cut(images, tmp_path):
    """A JPEG in the folder whose header is whole and whose end is missing."""
    Image.effect_noise((300, 300), 80).save(tmp_path / "whole.jpg")
    (images / "ants" / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:3000])


@pytest.mark.usefixtures("cut")
def test_a_image_that_is_cut_short_is_left_out_before_training(images, capsys):
    assert run("train", "scratch", "--data", images) == 0
    captured = capsys.readouterr()
    assert "left out, not readable: 1" in captured.out
    assert "cut.jpg" in captured.out
    assert captured.err == ""


@pytest.mark.usefixtures("cut")
def test_a_image_that_is_damaged_after_the_check_ends_the_run_with_its_name(images, capsys, monkeypatch):
    monkeypatch.setattr(data, "is_readable", lambda path: True)
    assert run("train", "scratch", "--data", images) == 1
    errors = capsys.readouterr().err
    assert "cut.jpg can't be read" in errors
    assert errors.count("\n") == 1


def test_an_output_folder_that_cannot_be_written_is_one_line(images, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    line = refused(capsys, tmp_path, "train", "scratch", "--data", images, "--out", tmp_path / "file" / "out")
    assert "Can't write into" in line


def test_photos_without_a_network_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(data, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setattr(downloads, "PATIENCE", downloads.Patience(first_wait=0.01))
    monkeypatch.setitem(data.ARCHIVES, "photos", data.Archive("http://127.0.0.1:9/cats.zip", "x", {}))
    assert "COURSE_ARCHIVES" in refused(capsys, tmp_path, "train", "scratch", "--data", "photos", status=1)


def test_a_real_process_ends_with_the_status_and_no_traceback(tmp_path):
    command = [sys.executable, "-m", "helpers", "compare", "--data", str(tmp_path / "missing")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
