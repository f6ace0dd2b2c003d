"""Features of a frozen base: equal to the full model's, stored once, never stale."""

import errno
import itertools
import math
import multiprocessing
import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from helpers import features, models, precision, runs, training
from helpers.data import ImageDataset, Splits, eval_transform, train_transform
from helpers.quantization import int8_is_exact
from helpers.settings import BadArgument, CourseError, Setting

CPU = torch.device("cpu")
SIZE = 32


@pytest.fixture
def images(tmp_path):
    """Nine small images of random dots, as (path, label)."""
    random = numpy.random.default_rng(0)
    found = []
    for number in range(9):
        path = tmp_path / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=numpy.uint8)).save(path)
        found.append((path, number % 2))
    return found


@pytest.fixture(params=[3])
def threads(request):
    """So many threads for torch, as on a computer with as many cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def loader_of(images, transform=None, size=SIZE):
    return DataLoader(ImageDataset(images, transform or eval_transform(size), size=size), batch_size=4)


def slim_model(name="vgg16", head="full"):
    torch.manual_seed(0)
    if name.startswith("vgg16"):
        model = models.VGG16(batch_norm=name == "vgg16_bn", width=1 / 16, image_size=SIZE)
    else:
        model = models.build(name)
    return models.freeze_base_layers(models.HEADS[head](model, 2)).eval()


class Counting(nn.Module):
    """A base that counts the images it was asked about; each feature is a mean of colour."""

    def __init__(self):
        super().__init__()
        self.seen, self.scale = [], nn.Parameter(torch.ones(()))

    def forward(self, batch):
        self.seen.append(len(batch))
        return batch.mean((2, 3)) * self.scale


def extract(base, images, folder, **options):
    options = {"precision": "float32", "device": CPU, "folder": folder / "features", **options}
    return features.extract_features(base, loader_of(images), **options)


def values(found):
    """All features, in order, and their labels."""
    return found[list(range(len(found)))]


# ---- equal to the full model


@pytest.mark.parametrize(
    ("name", "head"),
    [(name, "linear") for name in models.BACKBONES]
    + [("vgg16", "full"), ("vgg16_bn", "full"), ("squeezenet1_1", "full"), ("resnet18", "full")],
)
def test_head_on_stored_features_gives_the_full_models_logits(images, tmp_path, name, head):
    model = slim_model(name, head)
    base, part = models.split_model(model)
    found, labels = values(extract(base, images, tmp_path))
    batch = torch.stack([image for image, _ in loader_of(images).dataset])
    with torch.inference_mode():
        torch.testing.assert_close(part(found), model(batch), atol=1e-5, rtol=1e-5)
    assert labels.tolist() == [label for _, label in images]


def test_views_are_the_flipped_and_the_zoomed_image(images, tmp_path):
    base = nn.Flatten()
    found, labels = values(extract(base, images, tmp_path, views=("plain", "flip", "zoom")))
    batch = torch.stack([image for image, _ in loader_of(images).dataset])
    middle = batch[..., 3:29, 3:29]
    expected = [batch, batch.flip(3), F.interpolate(middle, size=(SIZE, SIZE), mode="bilinear", antialias=True)]
    torch.testing.assert_close(found, torch.cat(expected).flatten(1), atol=1e-6, rtol=0)
    assert labels.tolist() == 3 * [label for _, label in images]


def test_answers_averaged_over_views_are_the_models_own_to_image_and_mirror_image(images, tmp_path):
    model = slim_model()
    base, head = models.split_model(model)
    found = extract(base, images, tmp_path, views=("plain", "flip"))
    result = training.evaluate(head, features.feature_loader(found), device=CPU, precision="float32").mean_over(2)
    batch = torch.stack([eval_transform(SIZE)(Image.open(path).convert("RGB")) for path, _ in images])
    with torch.inference_mode():
        expected = (model(batch).softmax(1) + model(batch.flip(-1)).softmax(1)) / 2
    torch.testing.assert_close(result.probabilities, expected, rtol=0, atol=1e-5)
    assert result.labels.tolist() == [label for _, label in images]


def test_what_fit_teaches_the_head_the_model_has_learned(images, tmp_path):
    model = slim_model(head="linear")
    base, head = models.split_model(model)
    base, before = models.fingerprint(model.features), models.fingerprint(model)
    found = extract(base, images, tmp_path)
    training.fit(head, features.feature_loader(found, batch_size=4, seed=0), features.feature_loader(found),
                 epochs=2, device=CPU, precision="float32", report=lambda line: None)  # fmt: skip
    assert models.fingerprint(model.features) == base
    assert models.fingerprint(model) != before
    by_head = training.evaluate(head, features.feature_loader(found), device=CPU, precision="float32")
    by_model = training.evaluate(model, loader_of(images), device=CPU, precision="float32")
    torch.testing.assert_close(by_head.probabilities, by_model.probabilities, atol=1e-5, rtol=0)


def test_the_loader_gives_every_item_once_and_shuffles_by_seed(images, tmp_path):
    found = extract(Counting(), images, tmp_path, views=("plain", "flip"))
    loader = features.feature_loader(found, batch_size=4, seed=0)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 2] == [4] * (len(loader) - 1) + [2]
    everything = torch.cat([batch for batch, _ in batches])
    assert not torch.equal(everything, values(found)[0])
    assert sorted(everything.tolist()) == sorted(values(found)[0].tolist())
    again = torch.cat([batch for batch, _ in features.feature_loader(found, batch_size=4, seed=0)])
    assert torch.equal(again, everything)


# ---- computed once, never stale


def test_a_image_is_computed_once_whatever_its_name_and_place(images, tmp_path):
    base = Counting()
    first, _ = values(extract(base, images[:5], tmp_path))
    assert sum(base.seen) == 5
    copy = tmp_path / "copy.png"
    shutil.copy(images[0][0], copy)
    found, labels = values(extract(base, [(copy, 1), *images[::-1]], tmp_path))
    assert sum(base.seen) == 9
    assert torch.equal(found[0], first[0])
    assert torch.equal(found[-5:], first.flip(0))
    assert labels.tolist() == [1, *(label for _, label in images[::-1])]


@pytest.mark.parametrize("change", ["image", "weights", "size", "views", "layers", "precision"])
def test_whatever_changes_a_feature_is_computed_anew(images, tmp_path, change, monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: True)
    monkeypatch.setattr(features, "int8_pays", lambda *_: False)
    base = Counting()
    extract(base, images, tmp_path)
    options, size, expected = {}, SIZE, 9
    if change == "image":
        Image.new("RGB", (40, 40), "red").save(images[3][0])
        expected = 1
    elif change == "weights":
        base.scale.data += 1e-3
    elif change == "size":
        size = SIZE + 8
    elif change == "views":
        options["views"] = ("flip",)
    elif change == "layers":
        base.extra = nn.ReLU()
    else:
        options["precision"] = "fast"
    base.seen.clear()
    options = {"precision": "float32", "device": CPU, "folder": tmp_path / "features", **options}
    features.extract_features(base, loader_of(images, size=size), **options)
    assert sum(base.seen) == expected


def test_fast_features_are_kept_in_half_the_space_and_close(images, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: True)
    base, _ = models.split_model(slim_model())
    exact, fast = (extract(base, images, tmp_path, precision=name) for name in ("float32", "fast"))
    assert (exact.stored.dtype, fast.stored.dtype) == (numpy.float32, numpy.float16)
    torch.testing.assert_close(values(fast)[0], values(exact)[0], atol=0.02, rtol=0.05)


@pytest.mark.skipif(not int8_is_exact(), reason="no exact 8-bit convolution on this CPU")
def test_where_8_bits_pay_they_are_used_and_stored_apart(images, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: True)
    base, _ = models.split_model(slim_model())
    found = {}
    for name, pays in [("exact", None), ("fast", False), ("in 8 bits", True)]:
        monkeypatch.setattr(features, "int8_pays", lambda *_, pays=pays: pays)
        options = {"precision": "float32" if name == "exact" else "fast"}
        found[name] = values(extract(base, images, tmp_path, **options))[0]
    assert len(list((tmp_path / "features").iterdir())) == 3
    error = {name: (found[name] - found["exact"]).norm() / found["exact"].norm() for name in found}
    assert 0 == error["exact"] < error["fast"] < error["in 8 bits"] < 0.1


def test_8_bits_are_not_asked_about_where_they_are_not_wanted(images, tmp_path, monkeypatch):
    monkeypatch.setattr(features, "int8_pays", None)  # it would be an error to ask
    extract(Counting(), images, tmp_path, precision="float32")
    dataset = loader_of(images).dataset
    for name in ("cuda", "mps"):
        monkeypatch.setattr(features, "choose_precision", lambda device, asked: torch.float16)
        assert features.base_precision(Counting(), dataset, torch.device(name), "fast") == torch.float16


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_a_stopped_run_goes_on_where_it_was(images, tmp_path, monkeypatch, threads):
    monkeypatch.setitem(features.BATCH, "thread", 1)
    base, whole = Counting(), values(extract(Counting(), images, tmp_path / "whole"))[0]

    def stop_at_the_sixth(batch):
        if len(base.seen) == 6:
            raise KeyboardInterrupt
        return batch

    base.register_forward_pre_hook(lambda module, inputs: stop_at_the_sixth(*inputs))
    with pytest.raises(KeyboardInterrupt):
        extract(base, images, tmp_path)
    base._forward_pre_hooks.clear()
    (row_file,) = tmp_path.glob("features/*/rows")
    with open(row_file, "ab") as rows, open(row_file.with_name("digests"), "ab") as digests:
        rows.write(b"half a row")  # as a killed process may leave it
        digests.write(b"half a digest")
    base.seen.clear()
    assert torch.equal(values(extract(base, images, tmp_path))[0], whole)
    assert len(base.seen) == 3
    base.seen.clear()
    assert torch.equal(values(extract(base, images, tmp_path))[0], whole)
    assert not base.seen


def extract_slowly(images, folder):
    """For another process: a base that takes its time."""
    base = Counting()
    base.register_forward_pre_hook(lambda module, inputs: time.sleep(1.5))
    extract(base, images, folder)
    os._exit(0 if sum(base.seen) == 9 else 17)  # 17: somebody else did some of the work


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that the child is there at once")
@pytest.mark.parametrize("killed", [False, True])
def test_a_second_process_waits_and_a_killed_one_holds_nobody_up(images, tmp_path, capsys, killed):
    child = multiprocessing.get_context("fork").Process(target=extract_slowly, args=(images, tmp_path))
    child.start()
    end = time.monotonic() + 60
    while not list(tmp_path.glob("features/*/.features.lock")):
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.05)
    if killed:
        os.kill(child.pid, signal.SIGKILL)
    base = Counting()
    found, _ = values(extract(base, images, tmp_path))
    child.join()
    assert child.exitcode == (-signal.SIGKILL if killed else 0)
    assert sum(base.seen) == (9 if killed else 0)
    waiting = "Another process is working on features: waiting for it.\n"
    assert capsys.readouterr().err == ("" if killed else waiting)
    torch.testing.assert_close(found, values(extract(Counting(), images, tmp_path / "other"))[0])


# ---- threads


def test_each_thread_takes_batches_of_its_own_and_their_order_stays(images, tmp_path, monkeypatch, threads):
    monkeypatch.setitem(features.BATCH, "thread", 1)
    base, used, calls, ready = Counting(), set(), itertools.count(), []
    monkeypatch.setattr(features, "register_formats", lambda: ready.append(True))
    meeting = threading.Barrier(threads, timeout=60)  # passed only if three batches are underway at once

    def note(module, inputs):
        assert ready  # Pillow must know all formats before several threads ask it for one
        used.add((threading.get_ident(), torch.get_num_threads()))
        if next(calls) < threads:
            meeting.wait()

    base.register_forward_pre_hook(note)
    found, _ = values(extract(base, images, tmp_path))
    assert [count for _, count in used] == threads * [1]
    batch = torch.stack([image for image, _ in loader_of(images).dataset])
    torch.testing.assert_close(found, batch.mean((2, 3)))


@pytest.mark.parametrize(
    ("threads", "sizes"), [(1, [1, 8]), (8, [1, 4, 4]), (16, [1, 2, 2, 2, 2])], indirect=["threads"]
)
def test_memory_does_not_grow_with_the_number_of_cores(images, tmp_path, threads, sizes):
    base = Counting()
    extract(base, images, tmp_path)
    assert sorted(base.seen) == sizes


def test_a_gpu_is_given_large_batches_in_order(images):
    sizes, dataset, positions = [], loader_of(images).dataset, [7, 0, 3, *range(9)]
    found = features.compute(lambda batch: sizes.append(len(batch)) or batch, dataset, positions, torch.device("cuda"))
    assert torch.equal(torch.cat(list(found)), torch.stack([dataset[position][0] for position in positions]))
    assert sizes == [12]  # threads would take eight and four


def test_after_a_failure_torch_has_its_threads_again_and_nothing_runs_on(images, tmp_path, monkeypatch, threads):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(features, "write_at", full)
    with pytest.raises(CourseError, match="No space left") as held:  # as a notebook holds the last error
        extract(Counting(), images, tmp_path)
    with ThreadPoolExecutor(1) as pool:  # what a thread made from now on is given
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == threads
    assert not [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]
    del held


# ---- memory


def test_a_batch_that_does_not_fit_is_halved_with_one_line_said(images, tmp_path):
    base, lines = Counting(), []

    def at_most_two(module, inputs):
        if len(inputs[0]) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    base.register_forward_pre_hook(at_most_two)
    found, _ = values(extract(base, images, tmp_path, report=lines.append))
    assert lines == [f"Out of memory: going on with {number} images at once." for number in (4, 2)]
    assert sorted(base.seen) == [1, 2, 2, 2, 2]
    assert torch.equal(found, values(extract(Counting(), images, tmp_path / "other"))[0])


def test_two_threads_that_run_out_of_memory_at_once_halve_once(threads):
    meeting, lines = threading.Barrier(threads, timeout=60), []

    def work(part):
        if len(part) > 4:
            meeting.wait()
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return part

    through = features.Halving(work, lines.append)
    batches = [torch.arange(8) + 8 * thread for thread in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        assert torch.cat(list(pool.map(through, batches))).tolist() == list(range(8 * threads))
    assert lines == ["Out of memory: going on with 4 images at once."]


# The messages are PyTorch's own: a wrong shape, a broken kernel, then memory on CUDA, in cuDNN (two ways), on the CPU.
@pytest.mark.parametrize(
    ("message", "halvings"),
    [
        ("shapes cannot be multiplied", 0),
        ("CUDA error: an illegal memory access was encountered", 0),
        ("CUDA out of memory", 3),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", 3),
        ("GET was unable to find an engine to execute this computation", 3),
        ("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes", 3),
    ],
)
def test_other_errors_and_a_single_image_that_does_not_fit_are_not_hidden(images, tmp_path, message, halvings):
    def fail(module, inputs):
        raise RuntimeError(message)

    base, lines = Counting(), []
    base.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match=message):
        extract(base, images[:8], tmp_path, report=lines.append)
    assert len(lines) == halvings  # from eight to four, two and one


@pytest.mark.parametrize(("name", "largest"), [("float32", 1e30), ("fast", 65504.0)])
def test_only_halved_numbers_are_cut_off_at_what_they_can_hold(images, tmp_path, monkeypatch, name, largest):
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: True)

    class Loud(nn.Module):
        def forward(self, batch):
            return torch.full((len(batch), 2), 1e30)

    found, _ = values(extract(Loud(), images, tmp_path, precision=name))
    assert found.unique().tolist() == [pytest.approx(largest)]


def test_rows_are_read_from_the_file_not_held_in_memory(images, tmp_path):
    found = extract(Counting(), images, tmp_path)
    assert isinstance(found.stored, numpy.memmap)


# ---- bad input


def test_wrong_options_are_named(images, tmp_path):
    with pytest.raises(BadArgument, match=r"Unknown view 'mirror'. Choose from: plain, flip"):
        extract(Counting(), images, tmp_path, views=("mirror",))
    with pytest.raises(BadArgument, match=r"'half'.*fast, float32"):
        extract(Counting(), images, tmp_path, precision="half")
    loader = loader_of(images, train_transform(SIZE))
    with pytest.raises(BadArgument, match="augment=False"):
        features.extract_features(Counting(), loader, device=CPU, folder=tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_a_folder_that_cannot_be_made_is_one_clear_line(images, tmp_path):
    (tmp_path / "features").write_text("a file is in the way")
    with pytest.raises(CourseError, match="Could not keep features in"):
        extract(Counting(), images, tmp_path)


# ---- the recipe that uses them


@pytest.mark.parametrize(("head", "name"), [("full", "float32"), ("linear", "fast")])
def test_a_recipe_and_a_precision_of_ones_own_are_used(images, tmp_path, monkeypatch, head, name):
    monkeypatch.setattr(precision, "bfloat16_pays", lambda: True)
    monkeypatch.setattr(features, "FEATURES", tmp_path / "features")
    used = {function: [] for function in ("fit", "evaluate")}
    for function, seen in used.items():
        real = getattr(runs, function)
        monkeypatch.setattr(runs, function, lambda *a, real=real, seen=seen, **o: seen.append(o) or real(*a, **o))
    splits = Splits("dots", ["even", "odd"], images[:5], images[5:7], images[7:])
    setting = Setting("dots", SIZE, SIZE, 1, 1, backbone="squeezenet1_1", weights="random")
    recipe = runs.TransferRecipe(head, ("plain", "flip"), 1e-3)
    run = runs.train_transfer(splits, setting, recipe=recipe, precision=name, report=lambda line: None)
    assert run.about["head"] == head
    # SqueezeNet's 512 maps: a kernel of 1 × 1 over them, or a weight for the average and the maximum of each.
    assert run.summary["trainable_parameters"] == {"full": 2 * 512 + 2, "linear": 2 * 1024 + 2}[head]
    stored = {len(line.read_text().split()): line.parent for line in (tmp_path / "features").glob("*/digests")}
    shape = math.prod(map(int, (stored[5] / "shape").read_text().split()))
    assert (stored[5] / "rows").stat().st_size == 5 * shape * {"float32": 4, "fast": 2}[name]
    assert [options["precision"] for seen in used.values() for options in seen] == [name, name]


@pytest.mark.parametrize("test_views", [("plain",), ("plain", "flip")], ids=len)
def test_a_run_is_tested_as_predict_asks_its_model(images, tmp_path, monkeypatch, test_views):
    monkeypatch.setattr(features, "FEATURES", tmp_path / "features")
    splits = Splits("dots", ["even", "odd"], images[:5], images[5:7], images[7:])
    setting = Setting("dots", SIZE, SIZE, 1, 1, backbone="squeezenet1_1", weights="random")
    recipe = runs.TransferRecipe("linear", ("plain",), 1e-2, test_views=test_views)
    options = {"recipe": recipe, "precision": "float32", "report": lambda line: None}
    run = runs.train_transfer(splits, setting, **options, folder=tmp_path / "run")
    saved = runs.load_model(tmp_path / "run")
    assert len(run.test.labels) == len(splits.test)
    answers = zip(run.test.predictions, run.test.probabilities.amax(1), splits.test, strict=True)
    for label, probability, (path, _) in answers:
        expected = (splits.classes[label], pytest.approx(probability.item(), abs=1e-5))
        assert runs.predict(run.model, run.about, path) == expected
        assert runs.predict(*saved, path) == expected
