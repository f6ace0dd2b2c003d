"""Features of a frozen base: equal to the full model's, stored once, never stale, whatever happens to the disk."""

import errno
import itertools
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy
import PIL
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import v2

from benchmarks.recipes import Middle
from helpers import data, models, training, transfer
from helpers.data import IMAGENET_MEAN, IMAGENET_STD, ImageDataset, eval_transform, train_transform
from helpers.settings import BadArgument, CourseError

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


@pytest.fixture
def computed(monkeypatch):
    """The names of the files whose features are computed, as it goes on."""
    names, load = [], transfer.load
    monkeypatch.setattr(transfer, "load", lambda dataset, path: names.append(path.name) or load(dataset, path))
    return names


def loader_of(images, transform=None, size=SIZE):
    return DataLoader(ImageDataset(images, transform or eval_transform(size), size=size), batch_size=4)


def slim_model(name="vgg16", head="full"):
    torch.manual_seed(0)
    if name.startswith("vgg16"):
        model = models.VGG16(batch_norm=name == "vgg16_bn", width=1 / 16, image_size=SIZE)
    else:
        model = models.build(name)
    return models.freeze_base_layers(models.HEADS[head](model, 2)).eval()


class Means(nn.Module):
    """A base of which each feature is a mean of colour; it notes how many images it was asked about."""

    def __init__(self, factor=1):
        super().__init__()
        self.seen, self.factor, self.scale = [], factor, nn.Parameter(torch.ones(()))

    def forward(self, batch):
        self.seen.append(len(batch))
        return batch.mean((2, 3)) * self.scale * self.factor


class Maxima(Means):
    def forward(self, batch):
        return batch.amax((2, 3)) * self.scale


def extract(base, images, folder, **options):
    options = {"precision": "float32", "device": CPU, "folder": folder / "features", **options}
    return transfer.extract_features(base, loader_of(images), **options)


def values(found):
    """All features, in order, and their labels."""
    return found[list(range(len(found)))]


def store_in(folder):
    """The one file that holds features."""
    (file,) = (folder / "features").glob("*.features")
    return file


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
    result = training.evaluate(head, transfer.feature_loader(found), device=CPU, precision="float32").mean_over(2)
    batch = torch.stack([eval_transform(SIZE)(Image.open(path).convert("RGB")) for path, _ in images])
    with torch.inference_mode():
        expected = (model(batch).softmax(1) + model(batch.flip(-1)).softmax(1)) / 2
    torch.testing.assert_close(result.probabilities, expected, rtol=0, atol=1e-5)
    assert result.labels.tolist() == [label for _, label in images]


def test_what_fit_teaches_the_head_the_model_has_learned(images, tmp_path):
    model = slim_model(head="linear")
    base, head = models.split_model(model)
    frozen, before = models.fingerprint(model.features), models.fingerprint(model)
    found = extract(base, images, tmp_path)
    loaders = transfer.feature_loader(found, batch_size=4, shuffle=True), transfer.feature_loader(found)
    training.fit(head, *loaders, epochs=2, device=CPU, precision="float32", report=lambda line: None)
    assert models.fingerprint(model.features) == frozen
    assert models.fingerprint(model) != before
    by_head = training.evaluate(head, transfer.feature_loader(found), device=CPU, precision="float32")
    by_model = training.evaluate(model, loader_of(images), device=CPU, precision="float32")
    torch.testing.assert_close(by_head.probabilities, by_model.probabilities, atol=1e-5, rtol=0)


def test_the_loader_gives_every_item_once_and_shuffles_where_it_should(images, tmp_path):
    found = extract(Means(), images, tmp_path, views=("plain", "flip"))
    loader = transfer.feature_loader(found, batch_size=4, shuffle=True)
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 2] == [4] * (len(loader) - 1) + [2]
    everything, labels = torch.cat([batch for batch, _ in batches]), torch.cat([labels for _, labels in batches])
    assert not torch.equal(everything, values(found)[0])
    label_of = dict(zip(map(tuple, values(found)[0].tolist()), values(found)[1].tolist(), strict=True))
    assert sorted(everything.tolist()) == sorted(values(found)[0].tolist())
    assert labels.tolist() == [label_of[tuple(feature)] for feature in everything.tolist()]
    in_order = torch.cat([batch for batch, _ in transfer.feature_loader(found, batch_size=4)])
    assert torch.equal(in_order, values(found)[0])


def test_a_balanced_loader_draws_each_class_equally_often_and_the_same_with_the_same_seed():
    labels = torch.tensor([0] * 900 + [1] * 100)
    stored = transfer.Features(numpy.arange(2000, dtype=numpy.float32).reshape(1000, 2, 1), torch.arange(1000), labels)
    torch.manual_seed(0)
    first = list(transfer.feature_loader(stored, balanced=True))
    torch.manual_seed(0)
    second = list(transfer.feature_loader(stored, balanced=True))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    drawn = torch.cat([batch for _, batch in first])
    assert len(drawn) == 2000
    assert 900 < drawn.sum() < 1100
    assert len(torch.cat([batch for batch, _ in first]).unique()) > 700  # of both views, not the same few


@pytest.mark.parametrize("count", [3, 9])
def test_standardized_features_have_the_exact_mean_and_deviation_of_few_images_too(images, tmp_path, count):
    """A batch norm with momentum would still be near 0 and 1 after so few batches."""
    model = slim_model(head="linear")
    base, head = models.split_model(model)
    found = extract(base, images[:count], tmp_path, views=("plain", "flip"))
    transfer.standardize(head, found)
    features = values(found)[0].double().numpy()
    assert features.shape == (2 * count, 64)
    numpy.testing.assert_allclose(head[0].mean, features.mean(0), rtol=1e-6)
    numpy.testing.assert_allclose(head[0].std, numpy.sqrt(features.var(0) + 1e-5), rtol=1e-6)
    scaled = head[0](values(found)[0]).numpy()
    numpy.testing.assert_allclose(scaled.mean(0), 0, atol=1e-4)
    assert numpy.all((scaled.std(0) < 1.0001) & ((scaled.std(0) > 0.9) | (features.std(0) < 0.01)))


def test_the_mean_is_exact_over_more_features_than_are_read_at_once():
    numbers = numpy.random.default_rng(0).normal(1000, 1, (5000, 2, 3)).astype("<f4")
    found = transfer.Features(numbers, torch.arange(5000), torch.zeros(5000, dtype=torch.int64))
    mean, variance = found.mean_and_variance()
    numpy.testing.assert_allclose(mean, numbers.astype(float).mean((0, 1)), rtol=1e-12)
    numpy.testing.assert_allclose(variance, numbers.astype(float).var((0, 1)), rtol=1e-9)


def test_a_head_without_a_scale_is_left_as_it_is(images, tmp_path):
    base, head = models.split_model(slim_model(head="full"))
    before = models.fingerprint(head)
    transfer.standardize(head, extract(base, images, tmp_path))
    assert models.fingerprint(head) == before


# ---- computed once, never stale


def test_an_image_is_computed_once_whatever_its_name_and_place(images, tmp_path, computed):
    first, _ = values(extract(Means(), images[:5], tmp_path))
    assert computed == [path.name for path, _ in images[:5]]
    copy = tmp_path / "copy.png"
    shutil.copy(images[0][0], copy)
    computed.clear()
    found, labels = values(extract(Means(), [(copy, 1), *images[::-1]], tmp_path))
    assert sorted(computed) == [path.name for path, _ in images[5:]]
    assert torch.equal(found[0], first[0])
    assert torch.equal(found[-5:], first.flip(0))
    assert labels.tolist() == [1, *(label for _, label in images[::-1])]


CHANGES = ["weights", "size", "draft", "views", "a view", "precision", "another layer", "its code", "its attributes"]
CHANGES += ["batch size"]  # which follows the number of threads, and changes the last digits


@pytest.mark.parametrize("change", [*CHANGES, "torch", "torchvision", "Pillow"])
def test_whatever_changes_a_feature_is_computed_anew(images, tmp_path, change, monkeypatch, computed):
    base = Means()
    extract(base, images, tmp_path, views=("plain", "zoom"))
    options, size, draft = {"precision": "float32", "views": ("plain", "zoom")}, SIZE, SIZE
    if change == "weights":
        base.scale.data += 1e-7
    elif change == "size":
        size = draft = SIZE + 8
    elif change == "draft":
        draft = SIZE + 8  # a JPEG may then be decoded at another size
    elif change == "views":
        options["views"] = ("plain", "zoom-flip")
    elif change == "a view":
        monkeypatch.setitem(transfer.VIEWS, "zoom", (20, False))
    elif change == "precision":
        options["precision"] = "bfloat16"
    elif change == "batch size":
        monkeypatch.setattr(transfer, "batch_size", lambda device: 2)
    elif change == "another layer":
        base = nn.Sequential(base, nn.Unflatten(1, (3, 1)))
        base.register_parameter("scale", base[0].scale)
    elif change == "its code":
        base = type("Means", (Maxima,), {})()  # the same text and the same weights
        assert repr(base) == repr(Means())
    elif change == "its attributes":
        base = Means(factor=2)
    else:
        module = {"torch": torch, "torchvision": torchvision, "Pillow": PIL}[change]
        monkeypatch.setattr(module, "__version__", "99.0")
    computed.clear()
    loader = DataLoader(ImageDataset(images, eval_transform(size), size=draft), 4)
    transfer.extract_features(base, loader, device=CPU, folder=tmp_path / "features", **options)
    assert len(computed) == 9


def test_a_changed_image_is_computed_anew_and_the_others_are_not(images, tmp_path, computed):
    extract(Means(), images, tmp_path)
    Image.new("RGB", (40, 40), "red").save(images[3][0])
    computed.clear()
    found, _ = values(extract(Means(), images, tmp_path))
    assert computed == ["3.png"]
    torch.testing.assert_close(found[3], eval_transform(SIZE)(Image.new("RGB", (40, 40), "red")).mean((1, 2)))


def test_another_base_of_the_same_kind_finds_the_features_again(images, tmp_path, computed):
    """Its text may hold an address in memory, which is another every time."""
    bases = [type("Means", (Means,), {"extra_repr": lambda self: str(id(self))})() for _ in range(2)]
    assert repr(bases[0]) != repr(bases[1])
    for base in bases:
        extract(base, images, tmp_path)
    assert len(computed) == 9


def test_what_changes_while_features_are_computed_is_named(images, tmp_path):
    dataset = ImageDataset(images, eval_transform(SIZE), size=SIZE, digests={images[2][0]: "0" * 64})
    with pytest.raises(CourseError, match=r"2\.png changed while features were computed\. Load the splits again"):
        transfer.extract_features(Means(), dataset, device=CPU, folder=tmp_path / "features", precision="float32")


def test_fast_features_are_kept_in_half_the_space_and_close(images, tmp_path):
    base, _ = models.split_model(slim_model())
    exact, fast = (extract(base, images, tmp_path, precision=name) for name in ("float32", "bfloat16"))
    assert (exact.stored.dtype, fast.stored.dtype) == (numpy.float32, numpy.float16)
    torch.testing.assert_close(values(fast)[0], values(exact)[0], atol=0.02, rtol=0.05)


def test_a_feature_does_not_depend_on_what_else_is_computed_with_it(images, tmp_path):
    """Else a run that was stopped, or that finds some features already there, would give other last digits."""
    base, _ = models.split_model(slim_model("squeezenet1_1"))
    whole = values(extract(base, images, tmp_path / "whole"))[0]
    for count in (1, 8, 9):  # eight new ones: all but one are there; then the last one alone
        parts = values(extract(base, images[:count], tmp_path / "parts"))[0]
        assert torch.equal(parts, whole[:count])
    alone = [values(extract(base, [image], tmp_path / image[0].stem))[0] for image in images]
    assert torch.equal(torch.cat(alone), whole)


def test_the_base_and_torch_are_left_as_they_were(images, tmp_path):
    base = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    base[1].eval()
    before, modes, state = models.fingerprint(base), [m.training for m in base.modules()], torch.get_rng_state()
    first = values(extract(base, images, tmp_path))[0]
    assert models.fingerprint(base) == before
    assert [m.training for m in base.modules()] == modes
    assert base[0].weight.is_contiguous()
    assert torch.equal(torch.get_rng_state(), state)
    expected = base.eval()(torch.stack([image for image, _ in loader_of(images).dataset]))
    torch.testing.assert_close(first, expected.detach(), atol=1e-5, rtol=1e-5)


# ---- what is on the disk is whole, or does not count


def flip(content, position):
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


RECORD = 64 + 4 * 3 + 4  # a digest, three numbers of 32 bits, a checksum
DAMAGES = {  # to the content of the file, and how many images are to be computed anew
    "the last byte is gone": (lambda content: content[:-1], 1),
    "the last record is gone": (lambda content: content[:-RECORD], 1),
    "cut in the middle of a record": (lambda content: content[: 5 * RECORD + 30], 4),
    "the second half is zeros": (lambda content: content[: 5 * RECORD] + bytes(4 * RECORD), 4),
    "the last few bytes are zeros": (lambda content: content[:-20] + bytes(20), 1),
    "zeros behind the end": (lambda content: content + bytes(100), 0),
    "empty": (lambda content: b"", 9),
    "garbage": (lambda content: b"garbage" * 100, 9),
    "all zeros": (lambda content: bytes(len(content)), 9),
    "a beginning of something else": (lambda content: b"{}" + content, 9),
    "two images' digests are exchanged": (
        lambda content: content[RECORD : RECORD + 64] + content[64:RECORD] + content[:64] + content[RECORD + 64 :],
        2,
    ),
    **{f"byte {i} is another": (lambda content, i=i: flip(content, 2 * RECORD + i), 1) for i in range(RECORD)},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Nine images and the file of their features."""
    folder, random, found = tmp_path_factory.mktemp("store"), numpy.random.default_rng(0), []
    for number in range(9):
        path = folder / f"{number}.png"
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=numpy.uint8)).save(path)
        found.append((path, number % 2))
    first = values(extract(Means(), found, folder))[0]
    return folder, found, first, store_in(folder).read_bytes()


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_whole_is_computed_anew_and_nothing_else(store, computed, damage):
    folder, found, first, whole = store
    change, expected = DAMAGES[damage]
    store_in(folder).write_bytes(change(whole))
    assert torch.equal(values(extract(Means(), found, folder))[0], first)
    assert len(computed) == expected
    computed.clear()
    assert torch.equal(values(extract(Means(), found, folder))[0], first)
    assert computed == []


def test_a_file_that_is_gone_or_called_otherwise_is_made_anew(store, computed):
    folder, found, first, whole = store
    file = store_in(folder)
    for name in ("x", "-.features", f"{file.stem}-3x4.features", f"{file.stem} (1).features", f"{file.stem}-.features"):
        other = file.rename(file.with_name(name))
        computed.clear()
        assert torch.equal(values(extract(Means(), found, folder))[0], first)
        assert len(computed) == 9
        other.write_bytes(b"garbage")
        assert torch.equal(values(extract(Means(), found, folder))[0], first)
        other.unlink()
    file.write_bytes(whole)


def test_a_batch_counts_when_it_is_safe_on_the_disk(images, tmp_path, monkeypatch):
    """Each batch is flushed out of Python and out of the system before the next: seen in the file's size by then."""
    sizes, fsync = [], os.fsync
    monkeypatch.setattr(transfer, "batch_size", lambda device: 4)
    monkeypatch.setattr(os, "fsync", lambda number: sizes.append(os.fstat(number).st_size) or fsync(number))
    extract(Means(), images, tmp_path)
    assert sizes == [4 * RECORD, 8 * RECORD, 9 * RECORD]


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_full_disk_is_one_line_and_what_was_written_counts(images, tmp_path, monkeypatch, computed):
    import resource  # POSIX only

    monkeypatch.setattr(transfer, "batch_size", lambda device: 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5 * RECORD + 30, before[1]))
    try:
        with pytest.raises(CourseError, match=r"Could not keep features in .*features \(.*File too large\)\. Make roo"):
            extract(Means(), images, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    computed.clear()
    found = values(extract(Means(), images, tmp_path))[0]
    assert computed == [path.name for path, _ in images[5:]]
    assert torch.equal(found, values(extract(Means(), images, tmp_path / "other"))[0])


@pytest.mark.skipif(sys.platform == "win32", reason="no modes")
@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_who_may_read_the_features_is_the_umasks_choice(images, tmp_path, mask):
    before = os.umask(mask)
    try:
        extract(Means(), images, tmp_path)
    finally:
        os.umask(before)
    assert store_in(tmp_path).stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_folder_that_cannot_be_made_is_one_clear_line(images, tmp_path):
    (tmp_path / "features").write_text("a file is in the way")
    with pytest.raises(CourseError, match=r"Could not keep features in .*name another folder in COURSE_CACHE"):
        extract(Means(), images, tmp_path)


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_a_stopped_run_goes_on_where_it_was(images, tmp_path, monkeypatch, threads, computed):
    monkeypatch.setattr(transfer, "batch_size", lambda device: 1)
    base, whole = Means(), values(extract(Means(), images, tmp_path / "whole"))[0]

    def stop_at_the_sixth(batch):
        if len(base.seen) == 6:  # the first was the example
            raise KeyboardInterrupt
        return batch

    hook = base.register_forward_pre_hook(lambda module, inputs: stop_at_the_sixth(*inputs))
    with pytest.raises(KeyboardInterrupt):
        extract(base, images, tmp_path)
    hook.remove()
    computed.clear()
    assert torch.equal(values(extract(base, images, tmp_path))[0], whole)
    assert computed == [path.name for path, _ in images[5:]]
    computed.clear()
    assert torch.equal(values(extract(base, images, tmp_path))[0], whole)
    assert not computed


def extract_slowly(images, folder):
    """For another process: a base that takes its time."""
    base = Means()
    base.register_forward_pre_hook(lambda module, inputs: time.sleep(0.5))
    extract(base, images, folder)
    os._exit(0 if sum(base.seen) > 9 else 17)  # 17: somebody else did some of the work


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, so that the child is there at once")
@pytest.mark.parametrize("killed", [False, True])
def test_a_second_process_waits_and_a_killed_one_holds_nobody_up(images, tmp_path, capsys, killed, computed):
    child = multiprocessing.get_context("fork").Process(target=extract_slowly, args=(images, tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads around
        child.start()
    end = time.monotonic() + 60
    while not list(tmp_path.glob("features/.*.lock")):
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.05)
    if killed:
        os.kill(child.pid, signal.SIGKILL)
    found, _ = values(extract(Means(), images, tmp_path))
    child.join()
    assert child.exitcode == (-signal.SIGKILL if killed else 0)
    assert len(computed) == (9 if killed else 0)
    if killed:
        assert capsys.readouterr().err == ""
    torch.testing.assert_close(found, values(extract(Means(), images, tmp_path / "other"))[0])


# ---- threads


def test_each_thread_takes_batches_of_its_own_and_their_order_stays(images, tmp_path, monkeypatch, threads):
    monkeypatch.setattr(transfer, "batch_size", lambda device: 1)
    base, used, calls, ready = Means(), set(), itertools.count(), []
    monkeypatch.setattr(data, "register_formats", lambda: ready.append(threading.current_thread()))
    meeting = threading.Barrier(threads, timeout=60)  # passed only if three batches are underway at once

    def note(module, inputs):
        call = next(calls)
        if call == 0:
            assert torch.get_num_threads() == 1  # the example, whose last digits must not depend on the threads either
            return
        # Pillow must know all formats before several threads ask it for one.
        assert ready[0] is threading.main_thread()
        used.add((threading.get_ident(), torch.get_num_threads()))
        if call <= threads:
            meeting.wait()

    base.register_forward_pre_hook(note)
    found, _ = values(extract(base, images, tmp_path))
    assert [count for _, count in used] == threads * [1]
    assert torch.get_num_threads() == threads
    batch = torch.stack([image for image, _ in loader_of(images).dataset])
    torch.testing.assert_close(found, batch.mean((2, 3)))


@pytest.mark.parametrize(("threads", "size"), [(1, 8), (8, 4), (16, 2)], indirect=["threads"])
def test_memory_does_not_grow_with_the_number_of_cores(images, tmp_path, threads, size):
    base = Means()
    extract(base, images, tmp_path)
    assert base.seen == [1, *-(-9 // size) * [size]]  # the example, then batches that are filled up


@pytest.mark.parametrize(("gpu", "size"), [("cuda", 128), ("mps", 32)])
def test_a_gpu_is_given_large_batches_in_order(images, gpu, size):
    sizes, dataset, paths = [], loader_of(images).dataset, [images[i][0] for i in [7, 0, 3, *range(9)]]
    found = transfer.compute(lambda batch: sizes.append(len(batch)) or batch, dataset, [paths], torch.device(gpu))
    digests, features = zip(*found, strict=True)
    expected = [dataset[i][0] for i in [7, 0, 3, *range(9)]]
    assert torch.equal(torch.cat(features), torch.stack(expected))
    assert digests == ([transfer.digest_of(path.read_bytes()) for path in paths],)
    assert sizes == [size]  # threads would take eight and four


def test_after_a_failure_torch_has_its_threads_again_and_nothing_runs_on(images, tmp_path, monkeypatch, threads):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CourseError, match="No space left") as held:  # as a notebook holds the last error
        extract(Means(), images, tmp_path)
    with ThreadPoolExecutor(1) as pool:  # what a thread made from now on is given
        assert pool.submit(torch.get_num_threads).result() == torch.get_num_threads() == threads
    assert not [thread for thread in threading.enumerate() if "ThreadPoolExecutor" in thread.name]
    del held


# ---- memory


def test_a_batch_that_does_not_fit_is_halved_with_one_line_said(images, tmp_path):
    base, lines = Means(), []

    def at_most_two(module, inputs):
        if len(inputs[0]) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    base.register_forward_pre_hook(at_most_two)
    found, _ = values(extract(base, images, tmp_path, report=lines.append))
    assert lines == [f"Out of memory: going on with {number} images at once." for number in (4, 2)]
    assert sorted(base.seen) == [1, *8 * [2]]
    assert torch.equal(found, values(extract(Means(), images, tmp_path / "other"))[0])


def test_two_threads_that_run_out_of_memory_at_once_halve_once(threads):
    meeting, lines = threading.Barrier(threads, timeout=60), []

    def work(part):
        if len(part) > 4:
            meeting.wait()
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return part

    through = transfer.Halving(work, lines.append)
    batches = [torch.arange(8) + 8 * thread for thread in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        assert torch.cat(list(pool.map(through, batches))).tolist() == list(range(8 * threads))
    assert lines == ["Out of memory: going on with 4 images at once."]


@pytest.mark.parametrize(
    ("message", "halvings"), [("shapes cannot be multiplied", 0), ("CUDA out of memory", 3)], ids=["other", "memory"]
)
def test_other_errors_and_a_single_image_that_does_not_fit_are_not_hidden(images, tmp_path, message, halvings):
    base, lines = Means(), []

    def fail(module, inputs):
        if base.seen:  # not the example
            raise RuntimeError(message)

    base.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match=message):
        extract(base, images[:8], tmp_path, report=lines.append)
    assert len(lines) == halvings  # from eight to four, two and one


@pytest.mark.parametrize(("name", "largest"), [("float32", 1e30), ("bfloat16", 65504.0)])
def test_only_halved_numbers_are_cut_off_at_what_they_can_hold(images, tmp_path, name, largest):
    class Loud(nn.Module):
        def forward(self, batch):
            return torch.full((len(batch), 2), 1e30)

    found, _ = values(extract(Loud(), images, tmp_path, precision=name))
    assert found.unique().tolist() == [pytest.approx(largest)]


def test_rows_are_read_from_the_file_not_held_in_memory(images, tmp_path):
    assert isinstance(extract(Means(), images, tmp_path).stored.base, numpy.memmap)


# ---- bad input


def test_wrong_options_are_named(images, tmp_path):
    for views in (("mirror",), ("plain", "Flip"), (), "flip"):
        with pytest.raises(BadArgument, match="Choose one or more of: plain, flip, zoom, zoom-flip"):
            extract(Means(), images, tmp_path, views=views)
    with pytest.raises(BadArgument, match=r"'half'.*fast, float32"):
        extract(Means(), images, tmp_path, precision="half")
    assert not (tmp_path / "features").exists()


def rarely(transform):
    """The transform, and very seldom mirrored."""
    transform.transforms.insert(1, v2.RandomHorizontalFlip(p=1e-6))
    return transform


@pytest.mark.parametrize(
    "transform",
    [
        train_transform(SIZE),
        v2.Compose([v2.RandomHorizontalFlip(p=1e-6), eval_transform(SIZE)]),
        v2.Compose([v2.Lambda(lambda image: image), eval_transform(SIZE)]),
        rarely(eval_transform(SIZE)),
        lambda image: torch.rand(3, SIZE, SIZE),
        None,
    ],
    ids=["augments", "seldom", "a function", "seldom, inside", "plain function", "none"],
)
def test_features_are_kept_only_of_images_that_are_always_the_same(images, tmp_path, transform):
    """Judged by what the transform is: looking at a few images would miss one that changes seldom."""
    dataset = ImageDataset(images, transform, size=SIZE)
    with pytest.raises(BadArgument, match="augment=False"):
        transfer.extract_features(Means(), dataset, device=CPU, folder=tmp_path / "features")
    assert not (tmp_path / "features").exists()


def test_the_middle_of_images_is_another_transform_for_the_benchmark(images, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "EvalTransform", Middle)
    dataset = ImageDataset(images, Middle(SIZE, IMAGENET_MEAN, IMAGENET_STD), size=SIZE)
    base = nn.AdaptiveAvgPool2d(1)
    found = transfer.extract_features(base, dataset, device=CPU, folder=tmp_path / "features", precision="float32")
    loaded = [v2.functional.center_crop(dataset.load(path).resize((38, 32), 2), SIZE) for path, _ in images]
    expected = torch.stack([eval_transform(SIZE)(image).mean((1, 2)) for image in loaded])
    torch.testing.assert_close(values(found)[0].flatten(1), expected, atol=0.02, rtol=0)


def test_a_part_of_a_dataset_is_not_taken_for_the_whole(images, tmp_path):
    """torch's Subset, too, has a `dataset`."""
    part = Subset(loader_of(images).dataset, [0, 1])
    for given in (part, DataLoader(part)):
        with pytest.raises(BadArgument, match="ImageDataset with eval_transform"):
            transfer.extract_features(Means(), given, device=CPU, folder=tmp_path / "features")


def test_a_dataset_and_a_loader_of_it_give_the_same(images, tmp_path):
    options = {"device": CPU, "folder": tmp_path / "features", "precision": "float32"}
    loader = loader_of(images)
    found = [values(transfer.extract_features(Means(), given, **options)) for given in (loader, loader.dataset)]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
