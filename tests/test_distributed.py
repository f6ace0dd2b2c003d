"""Several processes against one: the same run, to the last digit where that is possible, and one voice when it ends."""

import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
import torch
from processes import PATIENCE, together
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small import alone, draw_classes
from torchvision.transforms import v2

from helpers import __main__ as command_line
from helpers import data, distributed, models, runs, settings, training, transfer
from helpers.settings import BadArgument, CourseError, choose_setting

PHOTOS = settings.SETTINGS["photos"]  # as programs have it that are started from here

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes, so that they are there at once")


@pytest.fixture(autouse=True)
def _small_and_alone(tmp_path, monkeypatch):
    alone(monkeypatch, tmp_path / "features")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn(folder, **counts):
    """A folder with so many images of each of three classes in each split."""
    for seed, (split, count) in enumerate(counts.items()):
        draw_classes(folder / split, count=count, seed=seed)
    return folder


def slim_weights(file):
    """A slim VGG16 with batch normalisation, whose statistics are not those of a new one."""
    torch.manual_seed(0)
    network = models.VGG16(5, batch_norm=True, width=1 / 16, image_size=32).train()
    network(torch.randn(64, 3, 32, 32))
    save_file(network.state_dict(), file)
    return file


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """501 training images, which no batch size of interest divides."""
    return drawn(tmp_path_factory.mktemp("images"), train=167, val=13, test=11)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return slim_weights(tmp_path_factory.mktemp("weights") / "slim.safetensors")


@pytest.fixture
def setting(images, weights):
    return choose_setting(str(images), backbone="vgg16_bn", weights=str(weights), precision="float32")


def learned(folder):
    """The tensors of a run, and what it says about its history and test, without the times."""
    file = folder / runs.RUN_FILE
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["run"])
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in about["history"]["rows"]]
    summary = {name: value for name, value in about["summary"].items() if name != "train_seconds"}
    return load_file(file), rows, summary


def largest_difference(one, other):
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one | other)


# ------------------------------------------------------------------------------------ the same run


@pytest.mark.parametrize("world", [2, 3])
def test_a_frozen_base_and_its_head_are_bit_for_bit_those_of_one_process(setting, tmp_path, monkeypatch, world):
    """Features, their order on the disk, the head, the history and the test."""
    splits = data.load_splits(setting)

    def work(name):
        monkeypatch.setattr(transfer, "FEATURES", tmp_path / name / "features")
        with distributed.group():
            runs.train_transfer(data.load_splits(setting), setting, folder=tmp_path / name)

    work("one")
    ends = together(lambda: work("many"), tmp_path / "said", world)
    assert [(end.status, end.err) for end in ends] == [(0, "")] * world
    assert "epoch  2/2" in ends[0].out
    assert [end.out for end in ends[1:]] == [""] * (world - 1)
    one, many = (sorted((tmp_path / name / "features").glob("*.features")) for name in ("one", "many"))
    assert [file.name for file in one] == [file.name for file in many]
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in many]
    (first, rows, summary), others = learned(tmp_path / "one"), learned(tmp_path / "many")
    assert len(splits.train) == 501
    assert largest_difference(first, others[0]) == 0
    assert (rows, summary) == others[1:]


def in_float64(monkeypatch):
    """Fine-tuning in float64, in batches of 50: eleven steps an epoch, the last of them with one image."""
    make, unfreeze = data.make_loaders, models.unfreeze

    def make_loaders(*arguments, **options):
        loaders = make(*arguments, **options, batch_size=50)
        for loader in loaders:
            loader.dataset.transform = v2.Compose([loader.dataset.transform, v2.ToDtype(torch.float64)])
        return loaders

    monkeypatch.setattr(runs, "make_loaders", make_loaders)
    monkeypatch.setattr(runs, "unfreeze", lambda model, last_blocks: unfreeze(model.double(), last_blocks))
    monkeypatch.setattr(runs, "FINE_TUNING_EPOCHS", 2)


def test_fine_tuning_on_two_processes_is_that_on_one(setting, tmp_path, monkeypatch):
    """501 images, 22 steps, with augmentation, dropout and rates by block: equal to 1e-12; batch norm stands still."""
    in_float64(monkeypatch)

    def work(name):
        with distributed.group():
            runs.train_fine_tune(data.load_splits(setting), setting, seed=1, folder=tmp_path / name)

    work("one")
    ends = together(lambda: work("two"), tmp_path / "said")
    assert [(end.status, end.err) for end in ends] == [(0, ""), (0, "")]
    (one, rows, summary), (two, rows_of_two, summary_of_two) = (learned(tmp_path / name) for name in ("one", "two"))
    assert largest_difference(one, two) <= 1e-12
    assert rows_of_two == [pytest.approx(row, rel=1e-12) for row in rows]
    assert summary_of_two == {
        name: pytest.approx(value, rel=1e-12) if isinstance(value, float) else value for name, value in summary.items()
    }
    before = load_file(setting.weights)
    for name in (name for name in one if "running" in name and name.startswith("features")):
        assert torch.equal(two[name], before[name].double())
    changed = [name for name in one if name in before and not torch.equal(one[name], before[name].double())]
    assert "features.0.weight" in changed


def test_evaluation_sees_every_image_once_and_gives_all_the_same_answer(setting, tmp_path):
    """23 batches for three processes; the oracle is the answer of one, bit for bit."""
    splits, model = data.load_splits(setting), models.SmallCNN(3)
    loader = torch.utils.data.DataLoader(data.ImageDataset(splits.train, data.eval_transform(32), size=32), 22)
    expected = training.evaluate(model, loader, precision="float32")

    def work():
        with distributed.group():
            found = training.evaluate(model, loader, precision="float32")
        same = torch.equal(found.probabilities, expected.probabilities) and torch.equal(found.labels, expected.labels)
        return 10 if same and len(found.labels) == 501 else 11

    assert [end.status for end in together(work, tmp_path / "said", world=3)] == [10, 10, 10]


def test_augmentation_depends_on_seed_epoch_and_image_alone(setting):
    """Not on the images before it, nor on torch's random numbers, which it leaves alone."""
    dataset = data.make_loaders(data.load_splits(setting), 32, by_image=True)[0].dataset

    def look(indices, epoch, seed=0):
        training.set_seed(training.seed_of_epoch(seed, epoch), torch.utils.data.DataLoader(dataset))
        torch.rand(len(indices))
        state = torch.get_rng_state()
        seen = [image for image, _ in dataset.__getitems__(indices)]
        assert torch.equal(torch.get_rng_state(), state)
        return seen

    first, alone_, later = look([3, 4, 5], 1), look([4], 1), look([4], 2)
    assert torch.equal(first[1], alone_[0])
    assert torch.equal(dataset[4][0], later[0])
    assert not torch.equal(later[0], alone_[0])
    assert not torch.equal(look([4], 1, seed=1)[0], alone_[0])
    dataset.images = [dataset.images[3]] * 5  # one image under two numbers is two
    assert not torch.equal(*look([3, 4], 1))


def test_batch_norm_that_learns_is_not_shared(setting, tmp_path):
    """It would be normalised by a part of each batch, and the result another than one process's."""

    def work():
        loaders = data.make_loaders(data.load_splits(setting), 32)
        with pytest.raises(BadArgument, match="freeze_batch_norm"), distributed.group():
            training.fit(models.SmallCNN(3), *loaders[:2], epochs=1, report=lambda line: None)
        return 0

    assert sum(end.status == 0 for end in together(work, tmp_path / "said")) == 1


# --------------------------------------------------------------------------------------- one voice


def command(*arguments):
    """A command as each process runs it."""
    return lambda: command_line.main([str(argument) for argument in arguments])


def one_line(ends):
    """The only line that the processes have printed as an error."""
    lines = [line for end in ends for line in end.err.splitlines()]
    assert len(lines) == 1, lines
    assert all(end.status for end in ends)
    return lines[0]


@pytest.mark.parametrize("arguments", [("train", "nonsense"), ("train", "scratch", "--data", "/nowhere")])
def test_what_all_find_wrong_is_said_once(tmp_path, arguments):
    assert one_line(together(command(*arguments), tmp_path / "said", world=3)).startswith("error: ")


def test_what_is_printed_comes_from_one_process(tmp_path):
    ends = together(command("--help"), tmp_path / "said")
    assert [bool(end.out) for end in ends] == [True, False]


def test_more_processes_than_cores_or_images(setting, tmp_path, monkeypatch):
    arguments = (
        "train",
        "transfer",
        "--data",
        tmp_path / "few",
        "--weights",
        setting.weights,
        "--out",
        tmp_path / "out",
    )
    draw_classes(tmp_path / "few" / "train", count=1)
    draw_classes(tmp_path / "few" / "val", count=1)
    draw_classes(tmp_path / "few" / "test", count=1)
    line = one_line(together(command(*arguments), tmp_path / "said", world=4))
    assert "4 processes for 3 training images" in line
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    line = one_line(together(command(*arguments), tmp_path / "said", world=4))
    assert "4 processes on 3 cores" in line
    assert "--nproc-per-node 3" in line
    assert not (tmp_path / "out").exists()


def test_one_process_for_an_apple_gpu(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "best_device", lambda: torch.device("mps"))
    with pytest.raises(BadArgument, match=r"2 processes on 1 GPU\. .*per-node 1, or set COURSE_DEVICE=cpu"):
        distributed.check_places()


def test_variables_of_torchrun_that_are_empty_or_alone(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "")
    with distributed.group():
        assert distributed.world() == 1
    monkeypatch.setenv("WORLD_SIZE", "2")  # as a cluster's job may have it, without a rank
    with pytest.raises(CourseError, match=r"RANK.* torchrun"), distributed.group():
        pass


def test_more_processes_than_a_batch_has_images(setting, tmp_path):
    splits = data.load_splits(setting)
    loaders = data.make_loaders(splits, 32, batch_size=2)
    model = models.freeze_batch_norm(models.SmallCNN(3))

    def work():
        with pytest.raises(BadArgument, match="3 processes can't share batches of 2 images"), distributed.group():
            training.fit(model, *loaders[:2], epochs=1)
        return 0

    assert sum(end.status == 0 for end in together(work, tmp_path / "said", world=3)) == 1


def test_different_settings_in_two_processes(setting, tmp_path):
    def work():
        seed = os.environ["RANK"]
        return command("train", "scratch", "--data", setting.name, "--seed", seed, "--out", tmp_path / "out")()

    line = one_line(together(work, tmp_path / "said"))
    assert "settings" in line
    assert "process 1" in line
    assert not (tmp_path / "out").exists()


def test_a_folder_that_can_not_be_written(setting, tmp_path):
    (tmp_path / "out").write_text("a file in the way")
    arguments = ("train", "fine-tune", "--data", setting.name, "--backbone", "vgg16_bn", "--weights", setting.weights)
    line = one_line(together(command(*arguments, "--out", tmp_path / "out"), tmp_path / "said"))
    assert str(tmp_path / "out") in line


@pytest.mark.parametrize("recipe", ["transfer", "fine-tune"])
def test_an_image_that_one_process_can_not_read_is_named_once(setting, images, tmp_path, monkeypatch, recipe):
    """While its features are computed, or in the middle of an epoch: the others end with it, without a word."""
    read, epoch = data.read, training.train_one_epoch
    lost = data.load_splits(setting).train[17][0]

    def refuse(path):
        if path == lost:
            raise CourseError(f"{path} could not be read (the drive igloo is gone).")
        return read(path)

    def later(*arguments):
        monkeypatch.setattr(data, "read", refuse)
        return epoch(*arguments)

    if recipe == "transfer":
        monkeypatch.setattr(transfer, "read", refuse)
    else:
        monkeypatch.setattr(runs, "train_transfer", partial(without_features, setting))
        monkeypatch.setattr(training, "train_one_epoch", later)
    arguments = ("train", recipe, "--data", setting.name, "--backbone", "vgg16_bn", "--weights", setting.weights)
    line = one_line(together(command(*arguments, "--out", tmp_path / "out"), tmp_path / "said"))
    assert line == f"error: {lost} could not be read (the drive igloo is gone)."
    assert not (tmp_path / "out" / runs.RUN_FILE).exists()


def without_features(setting, splits, _, *, recipe, seed, report):
    """A run whose head has not learned."""
    model = models.replace_head(models.load_backbone("vgg16_bn", setting.weights), 3)
    about = runs.about_transfer(splits, setting, recipe, seed=seed)
    return runs.Run(model, about, training.History(), summary={"epochs": 0})


@pytest.mark.parametrize("dies", [1, 2])
def test_a_process_that_dies_ends_the_others_and_is_named(setting, tmp_path, monkeypatch, dies):
    evaluate = training.evaluate

    def die(*arguments, **options):
        if os.environ.get("RANK") == str(dies):
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return evaluate(*arguments, **options)

    monkeypatch.setattr(training, "evaluate", die)
    monkeypatch.setattr(runs, "train_transfer", partial(without_features, setting))
    arguments = ("train", "fine-tune", "--data", setting.name, "--backbone", "vgg16_bn", "--weights", setting.weights)
    ends = together(command(*arguments, "--out", tmp_path / "out"), tmp_path / "said", world=3)
    assert time.time() - (tmp_path / "died").stat().st_mtime < 30
    assert ends[dies].status == -signal.SIGKILL
    assert one_line(ends).startswith(f"error: Process {dies} died, so all 3 ended")


# ------------------------------------------------------------------------------ killed, and resumed


@pytest.fixture
def few(tmp_path):
    """Eight images of each of three classes, to be split by the course."""
    return draw_classes(tmp_path / "few")


def test_after_twenty_kills_a_training_ends_as_if_nothing_had_happened(few, tmp_path, monkeypatch):
    """Weights, optimizer, schedule, dropout, augmentation, order, history, best epoch: bit for bit."""
    setting = replace(choose_setting(str(few), precision="float32"), scratch_epochs=40)
    splits = data.load_splits(setting)

    def train(name):
        runs.train_scratch(splits, setting, folder=tmp_path / name, report=lambda line: None, resume=True)

    start = time.monotonic()
    train("whole")
    seconds, chance, seen, kills = time.monotonic() - start, random.Random(0), set(), 0
    while kills < 20 or len(seen) <= 5:  # on a busy machine many come before the next epoch ends
        process = multiprocessing.get_context("fork").Process(target=alone_train, args=(train,))
        process.start()
        time.sleep(chance.uniform(0, seconds / 15))
        process.kill()
        process.join()
        if process.exitcode == 0:  # faster than the one before it
            shutil.rmtree(tmp_path / "killed")
            continue
        kills += 1
        seen.add(epochs_kept(tmp_path / "killed" / runs.CHECKPOINT_FILE))
        assert kills < 200, f"it does not get on: {seen}"
    train("killed")
    (whole, *said), (killed, *said_of_killed) = learned(tmp_path / "whole"), learned(tmp_path / "killed")
    assert largest_difference(whole, killed) == 0
    assert said == said_of_killed
    assert [file.name for file in (tmp_path / "killed").iterdir()] == [runs.RUN_FILE]


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(fine_tune, tmp_path, monkeypatch):
    """It is killed when the third one is complete and not yet in its place."""
    replace_file, names = os.replace, []

    def die(source, target):
        names.append(Path(target).name)
        if names.count(runs.CHECKPOINT_FILE) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        replace_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        process = multiprocessing.get_context("fork").Process(target=fine_tune)
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert epochs_kept(tmp_path / "out" / runs.CHECKPOINT_FILE) == 2
    assert fine_tune("--resume") == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == [runs.RUN_FILE], "the unfinished one was left"


def alone_train(train):
    torch.set_num_threads(1)
    train("killed")


def epochs_kept(file):
    """How many epochs a checkpoint has, which is whole or not there."""
    return len(torch.load(file, weights_only=True)["history"]["rows"]) if file.exists() else 0


def killed_after(epochs, monkeypatch, work):
    """Do the work in another process, which is killed when it has kept so many epochs."""
    write = training.Checkpoint.write

    def die(checkpoint, states, history, best):
        write(checkpoint, states, history, best)
        if len(history.rows) == epochs:
            os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(training.Checkpoint, "write", die)
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.fixture
def fine_tune(few, weights, tmp_path):
    """The command, into the folder `out`."""
    chosen = ("--data", few, "--backbone", "vgg16_bn", "--weights", weights, "--precision", "float32")
    return lambda *more, out="out": command("train", "fine-tune", *chosen, "--out", tmp_path / out, *more)()


def test_fine_tuning_goes_on_with_resume(fine_tune, tmp_path, monkeypatch, capsys):
    killed_after(3, monkeypatch, fine_tune)
    assert not (tmp_path / "out" / runs.RUN_FILE).exists()
    assert fine_tune("--resume") == 0
    told = capsys.readouterr().out
    assert "epoch  4/8" in told
    assert "epoch  3/8" not in told
    assert fine_tune(out="whole") == 0
    (whole, *said), (resumed, *said_of_resumed) = learned(tmp_path / "whole"), learned(tmp_path / "out")
    assert largest_difference(whole, resumed) == 0
    assert said == said_of_resumed
    capsys.readouterr()
    assert fine_tune("--resume") == 0
    assert "finished already" in capsys.readouterr().out


def test_without_resume_it_starts_anew(fine_tune, monkeypatch, capsys):
    killed_after(3, monkeypatch, fine_tune)
    assert fine_tune() == 0
    assert "epoch  1/8" in capsys.readouterr().out


def test_two_processes_go_on_where_one_was_killed(fine_tune, tmp_path, monkeypatch):
    killed_after(7, monkeypatch, fine_tune)
    ends = together(lambda: fine_tune("--resume"), tmp_path / "said")
    assert [end.status for end in ends] == [0, 0], ends
    assert "epoch  8/8" in ends[0].out
    assert "epoch  7/8" not in ends[0].out


REFUSED = {
    "other network": ({"--backbone": "vgg16"}, "network was vgg16_bn, and is vgg16 now"),
    "other precision": ({"--precision": "bfloat16"}, "precision was float32, and is bfloat16 now"),
    "other seed": ({"--seed": 1}, "seed was 0, and is 1 now"),
    "more images": ({}, r"number of images was \[.*\], and is \[.*\] now"),
    "other version": ({}, "torch was 1.0, and is "),
    "half written": ({}, "is damaged, or no checkpoint of this course"),
    "of something else": ({}, "is damaged, or no checkpoint of this course"),
    "other width": ({}, "another network"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_of_another_training_is_refused(case, fine_tune, few, weights, tmp_path, monkeypatch, capsys):
    changed, expected = REFUSED[case]
    killed_after(1, monkeypatch, fine_tune)
    file = tmp_path / "out" / runs.CHECKPOINT_FILE
    if case == "other network":
        save_file(models.VGG16(5, width=1 / 16, image_size=32).state_dict(), tmp_path / "plain.safetensors")
        changed = changed | {"--weights": tmp_path / "plain.safetensors"}
    elif case == "more images":
        draw_classes(few.with_name("more"), count=4, seed=1)
        for i, more in enumerate(few.with_name("more").rglob("*.png")):
            more.rename(few / more.parent.name / f"more {i}.png")
    elif case == "half written":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif case in ("other version", "of something else", "other width"):
        saved = torch.load(file, weights_only=True)
        if case == "other version":
            saved["about"]["torch"] = "1.0"
        elif case == "other width":
            saved["states"]["model"]["features.0.weight"] = torch.zeros(1, 3, 3, 3)
        torch.save(saved if case != "of something else" else saved["best"], file)
    before = file.read_bytes()
    capsys.readouterr()
    assert fine_tune("--resume", *chain.from_iterable(changed.items())) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith(f"error: {file} ")
    # Only weights of another shape show when there is a network to load them into.
    assert ("features of all images" in told.out) == (case == "other width")
    assert re.search(expected, line)
    assert "without --resume" in line
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        # They draw other images from the same features: mixed, the run would be neither.
        (("transfer", "--balanced"), "balanced was False, and is True now"),
        (("fine-tune",), "recipe was transfer, and is fine-tune now"),
        (("scratch",), "recipe was transfer, and is scratch now"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused(other, expected, few, weights, tmp_path, monkeypatch, capsys):
    chosen = ("--data", few, "--backbone", "vgg16_bn", "--weights", weights, "--out", tmp_path / "out")
    killed_after(1, monkeypatch, command("train", "transfer", *chosen))
    capsys.readouterr()
    assert command("train", *other, *chosen, "--resume")() == 2
    told = capsys.readouterr()
    assert expected in told.err
    assert "epoch" not in told.out
    assert "features" not in told.out


# --------------------------------------------------------------------------------------- torchrun


@pytest.fixture
def torchrun(few, weights, tmp_path):
    """Start a command as the README says, with two processes, or as `launch` says, and a folder for its results."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COURSE_CACHE": str(tmp_path / "cache"), "COURSE_DEVICE": "cpu"}
    environment |= {"PYTHONPATH": str(Path(runs.__file__).parent.parent)}
    chosen = ("--data", few, "--backbone", "vgg16_bn", "--weights", weights, "--out", tmp_path / "out")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}

    def start(*more, launch=("--standalone", "--nproc-per-node", 2)):
        words = [sys.executable, "-m", "torch.distributed.run", *launch, "-m", "helpers", *more, *chosen]
        return subprocess.Popen([*map(str, words)], **pipes)

    return start


def finished(process):
    """Its exit status, once it has ended; what it says is shown if the test fails."""
    out, errors = process.communicate(timeout=PATIENCE)
    print(out, errors)
    return process.returncode


def children_of(process):
    """The numbers of the processes that it has started."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    return [int(number) for number in found.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes as Linux lists them")
def test_torchrun_compares_resumes_and_ends_whole(torchrun, tmp_path):
    """The commands of the README; then one of two processes is killed: one line names it, and nobody is left."""
    assert finished(torchrun("compare")) == 0
    assert set(json.loads((tmp_path / "out" / "comparison.json").read_text())["models"]) == {"scratch", "transfer"}
    running = torchrun("train", "fine-tune")
    while not (tmp_path / "out" / runs.CHECKPOINT_FILE).exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    workers = children_of(running)
    os.kill(workers[1], signal.SIGKILL)
    start = time.monotonic()
    _, errors = running.communicate(timeout=PATIENCE)
    assert time.monotonic() - start < 30
    assert running.returncode == 1
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == [
        "error: Process 1 died, so all 2 ended. What is in checkpoints is safe: run again with --resume."
    ]
    assert len(workers) == 2
    assert not any(Path("/proc", str(worker)).exists() for worker in workers)
    assert finished(torchrun("train", "fine-tune", "--resume")) == 0
    assert learned(tmp_path / "out")[1][-1]["epoch"] == 8


def test_two_machines_give_what_one_process_gives(torchrun, few, weights, tmp_path, monkeypatch):
    """A torchrun for each, as lesson 10 says: features of both, the head bit for bit; only the first one prints."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = ("--nnodes", 2, "--nproc-per-node", 1, "--master-addr", "127.0.0.1", "--master-port", port, "--node-rank")
    machines = [torchrun("train", "transfer", launch=[*launch, number]) for number in range(2)]
    monkeypatch.setitem(settings.SETTINGS, "photos", PHOTOS)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    chosen = ("--data", few, "--backbone", "vgg16_bn", "--weights", weights)
    assert command("train", "transfer", *chosen, "--out", tmp_path / "one")() == 0
    said = [machine.communicate(timeout=PATIENCE) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    outputs, errors = zip(*said, strict=True)
    assert [bool(output) for output in outputs] == [True, False]
    if torch.torch_version.TorchVersion(torch.__version__) >= (2, 6):  # older ones warn of their own calls
        # The machine that is done last may find the other one gone, of which torch's log warns: W1127 12:00:00 ...
        assert [line for text in errors for line in text.splitlines() if not re.match(r"\[?W\d{4} ", line)] == []
    assert not any("Traceback" in text for text in errors)
    (one, *rest), (two, *rest_of_two) = learned(tmp_path / "one"), learned(tmp_path / "out")
    assert largest_difference(one, two) == 0
    assert rest == rest_of_two
