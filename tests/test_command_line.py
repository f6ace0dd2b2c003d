"""The commands: what they write, and how they refuse bad input."""

import io
import json
import os
import re
import runpy
import shutil
import signal
import sys
from pathlib import Path

import matplotlib.figure
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import save_file
from small import alone_in_an_empty_folder, draw_classes, opened_below, slim_weights, untrained_run

from helpers import __main__ as command_line
from helpers import data, downloads, models, runs, training
from helpers.runs import load_model, load_run


@pytest.fixture(autouse=True)
def _small_and_here(tmp_path, monkeypatch):
    """Two short epochs on small images, in an empty working folder, without the user's choices."""
    alone_in_an_empty_folder(monkeypatch, tmp_path)


@pytest.fixture
def images(tmp_path):
    return draw_classes(tmp_path / "images")


@pytest.fixture
def slim(tmp_path):
    return slim_weights(tmp_path / "slim.safetensors")


@pytest.fixture
def a_run(tmp_path):
    """The folder of a run that knows ants from bees, untrained."""
    return untrained_run(tmp_path / "run")


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
    printed = capsys.readouterr().out
    assert "test accuracy" in printed
    with Image.open(out / "comparison.png") as figure:
        figure.load()
    content = json.loads((out / "comparison.json").read_text())
    for model in content["models"].values():
        counts = ("parameters", "trainable_parameters", "epochs")
        assert all(isinstance(model[key], int) and model[key] > 0 for key in counts)
        assert model["train_seconds"] > 0
        assert model["test_log_loss"] > 0
        assert model["precision"] in printed.splitlines()[0]  # which names the setting
    assert set(content) == {"data", "models", "seed", "environment"}
    sizes = dict(zip(("train", "validation", "test"), map(int, line_of("all", printed)[1:]), strict=True))
    assert sum(sizes.values()) == 24
    assert content["data"] == {"name": "images", "classes": ["ants", "bees", "wasps"], **sizes}
    keys = {"test_accuracy", "test_log_loss", "parameters", "trainable_parameters", "epochs", "train_seconds"}
    assert set(content["models"]["scratch"]) == keys | {"precision"}
    assert set(content["models"]["transfer"]) == keys | {"precision", "backbone", "weights"}
    assert content["models"]["transfer"]["weights"] == "slim.safetensors"
    assert all(0 <= model["test_accuracy"] <= 1 for model in content["models"].values())
    assert content["seed"] == 3
    assert set(content["environment"]) == {"python", "torch", "torchvision", "device", "cpu", "threads"}


def line_of(word, printed):
    """The words of the first line that begins with this one."""
    return next(line.split() for line in printed.splitlines() if line.startswith(word))


def test_the_seed_and_the_precision_go_everywhere(images, slim, tmp_path, monkeypatch):
    """Into the splits, both trainings and the JSON; the numbers are those of the functions with that seed."""
    seen, load_splits, fit = [], command_line.load_splits, runs.fit

    def split(setting, *, seed):
        seen.append(("split", seed))
        return load_splits(setting, seed=seed)

    monkeypatch.setattr(command_line, "load_splits", split)
    monkeypatch.setattr(
        runs, "fit", lambda *a, **options: seen.append((options["precision"], options["seed"])) or fit(*a, **options)
    )
    told = {}
    for seed in (3, 4):
        out = ("--weights", slim, "--precision", "float32", "--seed", seed, "--out", tmp_path / str(seed))
        assert run("compare", "--data", images, *out) == 0
        told[seed] = json.loads((tmp_path / str(seed) / "comparison.json").read_text())
        assert told[seed]["seed"] == seed
    assert seen == [("split", 3), ("float32", 3), ("float32", 3), ("split", 4), ("float32", 4), ("float32", 4)]
    for name in ("scratch", "transfer"):
        assert told[3]["models"][name]["precision"] == "float32"
        assert told[3]["models"][name]["test_log_loss"] != told[4]["models"][name]["test_log_loss"]
        assert run("train", name, "--data", images, "--weights", slim, "--precision", "float32", "--seed", 3) == 0
        alone = load_run(tmp_path / "here" / "runs" / name).summary
        assert alone["test_log_loss"] == told[3]["models"][name]["test_log_loss"]


def test_only_who_draws_waits_for_matplotlib():
    """Read from the sources, since a fresh Python that imports the package takes seconds."""
    for file in Path(command_line.__file__).parent.glob("*.py"):
        at_once = re.findall(
            r"^(?:from|import) .*(?:plots|matplotlib).*", file.read_text(encoding="utf-8"), re.MULTILINE
        )
        assert file.stem == "plots" or not at_once


def test_the_numbers_are_on_the_disk_before_the_figure_is_drawn(images, slim, tmp_path, capsys, monkeypatch):
    """A figure may fail, for want of room, of a font, of a screen."""
    out = tmp_path / "out"
    full = OSError(28, "No space left on device")

    def fail(figure, file, **options):
        assert json.loads((out / "comparison.json").read_text())["seed"] == 0
        raise full

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", fail)
    assert run("compare", "--data", images, "--weights", slim, "--out", out) == 1
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device.\n"
    assert sorted(file.name for file in out.iterdir()) == ["comparison.json", "scratch", "transfer"]


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
        calibrated = (expected.log() / about["temperature"]).softmax(0)
        assert float(probability) == pytest.approx(calibrated.max().item(), abs=0.001)


def answer(model, file, sides, *, size):
    """The mean of the model's answers to an image as it is, and mirrored."""
    image = Image.open(file).convert("RGB")
    images = {"as it is": image, "mirrored": ImageOps.mirror(image)}
    with torch.inference_mode():
        answers = [model.eval()(data.eval_transform(size)(images[side])[None]).softmax(1)[0] for side in sides]
    return sum(answers) / len(sides)


# ---- predict: what may be named


def test_one_image_goes_from_its_file_to_its_line_and_is_read_once(images, a_run, capsys):
    file = images / "ants" / "3.png"
    with opened_below(images) as opened:
        assert run("predict", a_run, file) == 0
    assert opened == ["ants/3.png"]
    path, name, probability = capsys.readouterr().out.rstrip("\n").split("\t")
    assert (path, name in ("ants", "bees")) == (str(file), True)
    assert 0.5 <= float(probability) <= 1


def named(capsys):
    """The paths in the lines that were printed, and the lines of errors."""
    printed = capsys.readouterr()
    return [line.split("\t")[0] for line in printed.out.splitlines()], printed.err.splitlines()


def test_a_folder_is_named_image_by_image(images, a_run, capsys):
    assert run("predict", a_run, images) == 0
    assert named(capsys) == ([str(path) for path in sorted(images.rglob("*.png"))], [])


def test_a_pattern_that_the_shell_left_alone_is_understood(images, a_run, capsys):
    assert run("predict", a_run, images / "bees" / "[0-2].png", images / "**" / "7.png") == 0
    expected = [images / "bees" / f"{i}.png" for i in range(3)]
    expected += [images / name / "7.png" for name in ("ants", "bees", "wasps")]
    assert named(capsys) == ([str(path) for path in expected], [])


def test_a_file_whose_name_is_a_pattern_is_that_file(images, a_run, capsys):
    odd = (images / "ants" / "0.png").rename(images / "ants" / "[1].png")
    assert run("predict", a_run, odd) == 0
    assert named(capsys) == ([str(odd)], [])


@pytest.mark.parametrize("name", ["~0.png", "~$mine.png"])
def test_a_name_that_begins_with_a_tilde_is_no_user(images, a_run, capsys, monkeypatch, name):
    monkeypatch.chdir(images / "ants")
    shutil.copy("0.png", name)
    assert run("predict", a_run, name) == 0
    assert named(capsys) == ([name], [])


def test_the_home_folder_is_understood(images, a_run, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(images))
    monkeypatch.setenv("USERPROFILE", str(images))
    shutil.copytree(a_run, images / "run")
    assert run("predict", "~/run", "~/ants/0.png") == 0  # in quotes, or from a shell that leaves ~ alone
    assert named(capsys) == ([str(images / "ants" / "0.png")], [])


@pytest.mark.parametrize(
    ("given", "status", "message"),
    [
        ("https://example.org/pets/cat.jpg", 2, "https://example.org/pets/cat.jpg is an address. Download"),
        ("-", 1, "There is no file -"),
        ("*.jpg", 2, "There is no file like *.jpg"),
        ("dta/cat.jpg", 1, "There is no file dta/cat.jpg"),
        ("empty", 2, "There is no file in empty"),
        ("~nobody-of-this-name/cat.jpg", 1, "There is no file ~nobody-of-this-name/cat.jpg"),
        ("a\nb.jpg", 1, r"There is no file a\nb.jpg"),
        ("x" * 300, 1, "too long"),
    ],
)
def test_what_is_no_image_is_called_what_it_is(a_run, capsys, given, status, message):
    os.mkdir("empty")
    assert run("predict", a_run, given) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert "can't be read as an image" not in lines[0]


def test_predict_names_the_unreadable_and_goes_on(images, a_run, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("not an image")
    good = sorted(images.rglob("*.png"))
    many = [*good, tmp_path / "text.jpg", *good, tmp_path / "gone.jpg", *good]
    assert run("predict", a_run, *many) == 1
    lines, errors = named(capsys)
    assert lines == [str(path) for path in 3 * good]
    assert len(errors) == 2
    assert "text.jpg can't be read as an image" in errors[0]
    assert "There is no file" in errors[1]


@pytest.mark.skipif(sys.platform == "win32", reason="no such names")
def test_odd_names_stay_on_their_line(images, a_run, capsys):
    for name in (b"new\nline.png", b"tab\there.png", b"red\x1b[31m.png", b"broken\x80.png", "größe.png".encode()):
        (images / "odd").mkdir(exist_ok=True)
        shutil.copy(images / "ants" / "0.png", os.path.join(os.fsencode(images / "odd"), name))
    assert run("predict", a_run, images / "odd") == 0
    expected = {r"new\nline.png", r"tab\there.png", r"red\x1b[31m.png", r"broken\udc80.png", "größe.png"}
    assert {path.rsplit("/", 1)[1] for path in named(capsys)[0]} == expected


def test_a_name_that_the_terminal_cannot_show_is_written_in_its_letters_numbers(images, a_run, monkeypatch):
    first, second = sorted(images.rglob("*.png"))[:2]
    first = first.rename(first.with_name("größe.png"))
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert run("predict", a_run, first, second) == 0
    lines = ascii_only.buffer.getvalue().decode("ascii").splitlines()
    assert [line.split("\t")[0].rsplit("/", 1)[-1] for line in lines] == [r"gr\xf6\xdfe.png", second.name]


def test_the_folder_of_compare_is_no_run_and_its_runs_are_named(images, a_run, capsys, tmp_path):
    for name in ("scratch", "transfer"):
        shutil.copytree(a_run, tmp_path / "both" / name)
    line = refused(capsys, tmp_path, "predict", tmp_path / "both", images / "ants" / "0.png")
    assert f"Choose one: {tmp_path / 'both' / 'scratch'} or {tmp_path / 'both' / 'transfer'}." in line


def test_who_reads_the_output_may_leave(images, a_run, capsys, monkeypatch):
    """As `head` does: no word, no traceback, and nothing more at Python's end."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert run("predict", a_run, images) == 1
        monkeypatch.undo()
        pipe.flush()
    assert capsys.readouterr().err == ""


def test_without_an_output_the_work_is_done(images, a_run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)  # as Python finds it after >&-
    assert run("predict", a_run, images / "ants" / "0.png") == 0
    assert capsys.readouterr().err == ""


# ---- failures


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), 1),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1),
        (MemoryError(), 1),
        (RuntimeError("a bug"), None),
    ],
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


@pytest.fixture
def pressed(monkeypatch):
    """Press Ctrl-C when such a line is printed; where a shell put this process in the background, that is heard too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def at(beginning):
        def watched(*arguments, report, **options):
            def press(line):
                report(line)
                if line.startswith(beginning):
                    signal.raise_signal(signal.SIGINT)

            return fit(*arguments, report=press, **options)

        fit = runs.fit
        monkeypatch.setattr(runs, "fit", watched)

    yield at
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_keeps_what_was_learned_and_is_one_line(images, tmp_path, capsys, pressed):
    pressed("epoch  1")
    out = tmp_path / "out"
    assert run("train", "scratch", "--data", images, "--out", out) == 130
    printed = capsys.readouterr()
    assert "Stopped after epoch 1. Kept: the weights of epoch 1." in printed.out
    assert printed.err == f"error: Stopped. What was learned so far is in {out}.\n"
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.pt", "model.safetensors"]  # the first: --resume
    assert run("predict", out, images / "ants" / "0.png") == 0


@pytest.mark.usefixtures("pressed")
def test_ctrl_c_before_anything_was_learned_is_one_line_too(images, tmp_path, capsys, monkeypatch):
    evaluate = training.evaluate

    def press(*arguments, **options):
        signal.raise_signal(signal.SIGINT)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(training, "evaluate", press)
    assert run("train", "scratch", "--data", images, "--out", tmp_path / "out") == 130
    expected = "error: Stopped in the first epoch. The weights are those from before.\n"
    assert capsys.readouterr().err == expected
    assert list((tmp_path / "out").iterdir()) == []


def test_ctrl_c_in_a_comparison_ends_all_of_it(images, slim, tmp_path, capsys, pressed):
    pressed("epoch  1")
    assert run("compare", "--data", images, "--weights", slim, "--out", tmp_path / "out") == 130
    error = f"error: Stopped. What scratch learned so far is in {tmp_path / 'out' / 'scratch'}.\n"
    assert capsys.readouterr().err == error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scratch"]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_disk_that_fills_while_the_model_is_written_is_one_line(images, tmp_path, capsys):
    import resource  # POSIX only

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
    try:
        assert run("train", "scratch", "--data", images, "--out", tmp_path / "out") == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: Could not write {tmp_path / 'out' / 'checkpoint.pt'} (")
    assert errors.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


# ---- bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "COMMAND"),
        (("elucidate",), "compare"),
        (("train", "fine"), "scratch"),
        (("compare", "--colour"), "--colour"),
        (("compare", "--seed", "x"), "--seed: 'x' is no whole number"),
        (("compare", "--data", ""), "An argument is empty"),
        (("train", "scratch", "--data", "sample", "--out", ""), "An argument is empty"),
        (("compare", "--seed", str(2**70)), "--seed"),
        (("compare", "--precision", "half"), "float32"),
        (("compare", "--data", "sample", "--backbone", "vgg61"), "vgg16"),
        (("compare", "--data", "sample", "--weights", "missing.pth"), "There is no weights file"),
        (("compare", "--data", "photo"), "sample, photos, photos-full"),
        (("train", "transfer", "--data", "sample", "--backbone", "vgg61"), "vgg16"),
        (("train", "scratch", "--data", "sample", "--backbone", "vgg61"), "vgg16"),
        (("train", "transfer", "--data", "sample", "--weights", "missing.pth"), "There is no weights file"),
        (("predict", "nowhere", "x.jpg"), "no model.safetensors"),
        (("audit", "nowhere"), "nowhere"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, message, capsys, tmp_path):
    line = refused(capsys, tmp_path, *arguments)
    assert message in line
    assert not line.endswith("?.")


@pytest.mark.parametrize(
    "command", [(), ("compare",), ("train", "scratch"), ("predict",), ("explain",), ("audit",)], ids=str
)
def test_help_is_no_error(command, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*command, "--help")
    assert ended.value.code == 0
    assert "usage: python -m helpers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("counts", "message"), [({}, "no class folders"), ({"a": 5}, "one class folder (a)"), ({"a": 5, "b": 1}, "'b'")]
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
    return images / "ants" / "cut.jpg"


def test_an_image_that_is_cut_short_is_not_loaded_and_that_is_said(images, cut, capsys):
    assert run("train", "scratch", "--data", images) == 0
    captured = capsys.readouterr()
    assert f"not loaded: 1, first {cut}" in captured.out
    assert captured.err == ""


def test_an_image_that_is_damaged_after_the_check_ends_the_run_with_its_name(images, cut, capsys, monkeypatch):
    monkeypatch.setattr(data, "digest_if_readable", lambda path: "0" * 64)
    assert run("train", "scratch", "--data", images) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {cut} can't be read as an image")
    assert errors.count("\n") == 1


def test_an_output_folder_that_cannot_be_written_is_one_line(images, capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    line = refused(capsys, tmp_path, "train", "scratch", "--data", images, "--out", tmp_path / "file" / "out")
    assert "Can't write into" in line


def test_photos_without_a_network_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(data, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setattr(downloads, "RETRY", downloads.RETRY.new(total=0))
    monkeypatch.setitem(data.ARCHIVES, "photos", data.Archive(("http://127.0.0.1:9/cats.zip",), "x", {}, {}))
    assert "COURSE_ARCHIVES" in refused(capsys, tmp_path, "train", "scratch", "--data", "photos", status=1)


# ---- audit


def test_audit_prints_what_it_found_and_writes_it(images, capsys, tmp_path):
    shutil.copy(images / "ants" / "0.png", images / "bees" / "copy.png")
    assert run("audit", images, "--out", tmp_path / "new" / "found.csv") == 0
    assert "copy.png" in (tmp_path / "new" / "found.csv").read_text()
    assert "images a second" in capsys.readouterr().out


def test_what_was_written_is_one_line(images, capsys, tmp_path):
    assert run("audit", images, "--out", tmp_path / "two\nlines.csv") == 0
    assert capsys.readouterr().out.splitlines()[-1] == rf"written: {tmp_path / 'two'}\nlines.csv"


def test_evaluate_asks_for_a_run_that_says_what_it_learned_from(a_run, images, capsys):
    for more in ((), ("--data", images)):
        assert run("evaluate", a_run, *more) == 2
        assert "does not say what it learned from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "name"), [(("fine-tune", "--seed", 0), "network"), (("scratch", "--seed", 1), "seed")]
)
def test_another_run_that_is_finished_is_not_taken_for_the_one_to_resume(images, slim, capsys, tmp_path, more, name):
    # With splits of its own the folder is the same for each seed
    for part in ("train", "val", "test"):
        shutil.copytree(images, tmp_path / "data" / part)
    to_run = ("--data", tmp_path / "data", "--weights", slim, "--resume", "--out", tmp_path / "run")
    assert run("train", "scratch", *to_run) == 0
    assert run("train", *more, *to_run) == 2
    assert f"holds another finished run: its {name} is" in capsys.readouterr().err
    assert run("train", "scratch", *to_run) == 0


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        (("train", "scratch"), "checkpoint.pt"),
        (("train", "scratch"), "model.safetensors"),
        (("train", "scratch", "--resume"), "checkpoint.pt"),
        (("train", "scratch", "--resume"), "model.safetensors"),
        (("compare",), "comparison.json"),
        (("compare",), "comparison.png"),
        (("compare",), "transfer/checkpoint.pt"),
    ],
)
def test_a_folder_in_the_place_of_a_file_is_named_before_any_work(
    images, slim, capsys, tmp_path, monkeypatch, arguments, taken
):
    monkeypatch.setattr(runs, "train", None)
    (tmp_path / "out" / taken).mkdir(parents=True)
    line = refused(capsys, tmp_path, *arguments, "--data", images, "--weights", slim, "--out", tmp_path / "out")
    assert line.startswith(f"error: {tmp_path / 'out' / taken} is a folder")
    assert "Rename it" in line


def test_a_file_in_the_place_of_a_runs_folder_is_named(images, slim, capsys, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "transfer").write_text("mine")
    line = refused(capsys, tmp_path, "compare", "--data", images, "--weights", slim, "--out", tmp_path / "out")
    assert f"Can't write into {tmp_path / 'out' / 'transfer'}" in line


@pytest.mark.parametrize("taken", ["evaluation.json", "evaluation.html"])
def test_a_folder_in_the_place_of_a_report_is_named_before_any_work(images, capsys, tmp_path, monkeypatch, taken):
    assert run("train", "scratch", "--data", images, "--out", tmp_path / "run") == 0
    (tmp_path / "run" / taken).mkdir()
    monkeypatch.setattr(runs, "ask", None)
    capsys.readouterr()
    line = refused(capsys, tmp_path, "evaluate", tmp_path / "run", "--data", images)
    assert f"{tmp_path / 'run' / taken} is a folder" in line


def test_audit_asks_for_the_name_of_a_file(images, capsys, tmp_path):
    assert "is a folder" in refused(capsys, tmp_path, "audit", images, "--out", tmp_path)


# ---- the package as a program


def test_the_package_runs_as_a_program_and_ends_with_the_status(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["helpers", "compare", "--data", str(tmp_path / "missing")])
    monkeypatch.delitem(sys.modules, "helpers.__main__")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("helpers", run_name="__main__", alter_sys=False)
    assert ended.value.code == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "missing" in errors
