"""From folders to splits to tensors, against PIL, numpy and torchvision's older transforms."""

import multiprocessing
import os
import sys
import threading
import zipfile
from dataclasses import replace

import numpy
import pytest
import torch
from PIL import Image
from torchvision import transforms as v1

from helpers import data
from helpers.settings import BadArgument, CourseError, choose_setting


def make_image(path, *, size=(40, 30), seed=0, **options):
    """An image of random colours in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = numpy.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=numpy.uint8)
    Image.fromarray(noise).save(path, **options)
    return path


def class_folders(folder, **counts):
    """One folder a class with so many images."""
    for name, count in counts.items():
        for i in range(count):
            make_image(folder / name / f"{i}.png", seed=i)
    return folder


def read(folder, seed=0):
    return data.load_splits(choose_setting(str(folder)), seed=seed)


def sizes(splits):
    return len(splits.train), len(splits.validation), len(splits.test)


# ---- splits


def test_class_folders_are_cut_into_three_stratified_splits(tmp_path):
    splits = read(class_folders(tmp_path, ants=20, bees=40, wasps=10))
    assert splits.classes == ["ants", "bees", "wasps"]
    assert sizes(splits) == (45, 11, 14)
    for part in (splits.train, splits.validation, splits.test):
        assert {label for _, label in part} == {0, 1, 2}
    paths = [path for part in (splits.train, splits.validation, splits.test) for path, _ in part]
    assert len(set(paths)) == len(paths) == 70
    assert all(path.parent.name == splits.classes[label] for path, label in splits.train)
    shares = {name: [sum(label == i for _, label in getattr(splits, name)) for i in range(3)] for name in data.SHARES}
    assert shares == {"train": [13, 26, 6], "test": [4, 8, 2], "validation": [3, 6, 2]}


def test_the_cut_follows_the_seed(tmp_path):
    class_folders(tmp_path, ants=20, bees=20)
    assert read(tmp_path, seed=1) == read(tmp_path, seed=1)
    assert read(tmp_path, seed=1) != read(tmp_path, seed=2)


@pytest.mark.parametrize("name", ["val", "validation"])
def test_given_splits_are_kept(tmp_path, name):
    for split, count in {"train": 6, name: 2, "test": 3}.items():
        class_folders(tmp_path / split, a=count, b=count)
    assert sizes(read(tmp_path)) == (12, 4, 6)


def test_a_missing_validation_split_is_cut_from_train(tmp_path):
    for split, count in {"train": 10, "test": 3}.items():
        class_folders(tmp_path / split, a=count, b=count)
    splits = read(tmp_path)
    assert sizes(splits) == (16, 4, 6)
    assert {path.parent.parent.name for path, _ in splits.validation} == {"train"}


def test_the_published_archive_keeps_its_validation_folder_for_the_test(tmp_path, monkeypatch):
    source = tmp_path / "source" / "cats_and_dogs_filtered"
    for split, count in {"train": 10, "validation": 4}.items():
        class_folders(source / split, cats=count, dogs=count)
    with zipfile.ZipFile(tmp_path / "cats_and_dogs_filtered.zip", "w") as zipped:
        for file in source.rglob("*.png"):
            zipped.write(file, file.relative_to(source.parent))
    monkeypatch.setenv("COURSE_ARCHIVES", str(tmp_path))
    monkeypatch.setattr(data, "DOWNLOADS", tmp_path / "downloads")
    splits = data.load_splits(choose_setting("photos"))
    assert sizes(splits) == (16, 4, 8)
    assert {path.parent.parent.name for path, _ in splits.test} == {"validation"}
    assert {path.parent.parent.name for path, _ in splits.train + splits.validation} == {"train"}


def test_the_real_archive_has_its_published_sizes(monkeypatch):
    monkeypatch.setenv("COURSE_SETTING", "photos")
    if data.find_archive("cats_and_dogs_filtered.zip") is None:
        pytest.skip("needs COURSE_ARCHIVES with cats_and_dogs_filtered.zip")
    splits = data.load_splits(choose_setting())
    assert splits.classes == ["cats", "dogs"]
    assert sizes(splits) == (1600, 400, 1000)


def test_hidden_folders_and_files_are_no_classes_and_no_images(tmp_path):
    class_folders(tmp_path, a=5, b=5)
    make_image(tmp_path / ".ipynb_checkpoints" / "0.png")
    make_image(tmp_path / "__MACOSX" / "0.png")
    make_image(tmp_path / "a" / "._0.png")
    (tmp_path / "a" / ".DS_Store").write_text("x")
    splits = read(tmp_path)
    assert splits.classes == ["a", "b"]
    assert sum(sizes(splits)) == 10


def test_files_that_are_no_images_are_left_out_and_named(tmp_path):
    class_folders(tmp_path, a=5, b=5)
    (tmp_path / "a" / "text.jpg").write_text("not an image")
    splits = read(tmp_path)
    assert sum(sizes(splits)) == 10
    assert "left out, not readable: 1" in str(splits)
    assert "text.jpg" in str(splits)


def test_a_png_with_a_short_header_is_left_out(tmp_path):
    """Pillow raises ValueError for this one, not its own error."""
    class_folders(tmp_path, a=5, b=5)
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "short.png").write_bytes(whole[:11] + bytes([5]) + whole[12:])  # the header's length
    assert [path.name for path in read(tmp_path).left_out] == ["short.png"]


def test_a_class_without_a_readable_image_is_named(tmp_path):
    class_folders(tmp_path, a=5, b=5)
    (tmp_path / "c").mkdir()
    for i in range(4):
        (tmp_path / "c" / f"{i}.jpg").write_text("not an image")
    with pytest.raises(BadArgument, match=r"Class 'c' in .* has 0 readable images"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "0 class folders"),
        ({"a": 5}, "1 class folders .a."),
        ({"a": 5, "b": 1}, "Class 'b'.* 1 readable images.*at least three"),
        ({"a": 5, "b": 2}, "Class 'b'.* 2 readable images"),
    ],
)
def test_folders_that_cannot_be_used_are_explained(tmp_path, counts, message):
    with pytest.raises(BadArgument, match=message) as caught:
        read(class_folders(tmp_path, **counts))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(BadArgument, match=r"neither a setting .sample, photos, photos-full. nor a folder"):
        choose_setting(str(tmp_path / "missing"))
    with pytest.raises(BadArgument, match=f"no folder {tmp_path / 'missing'}"):
        data.load_splits(replace(choose_setting("sample"), name=str(tmp_path / "missing")))


# ---- images


def saved(tmp_path, image, name, **options):
    image.save(tmp_path / name, **options)
    return data.load_image(tmp_path / name)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB", "CMYK", "LA", "RGBA"])
def test_every_mode_becomes_rgb_as_pillow_would_show_it(tmp_path, mode):
    base = Image.open(make_image(tmp_path / "base.png")).convert("RGB")
    image = base.convert(mode)
    loaded = saved(tmp_path, image, "x.tif" if mode == "CMYK" else "x.png")
    assert loaded.mode == "RGB"
    expected = numpy.asarray(image.convert("RGB"), dtype=int)
    assert abs(numpy.asarray(loaded, dtype=int) - expected).max() <= 1


def test_transparent_becomes_white(tmp_path):
    clear = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    assert saved(tmp_path, clear, "clear.png").getpixel((3, 3)) == (255, 255, 255)
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert saved(tmp_path, half, "half.png").getpixel((3, 3))[0] == pytest.approx(127, abs=1)
    palette = Image.new("P", (8, 8), 0)
    assert saved(tmp_path, palette, "palette.png", transparency=0).getpixel((3, 3)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    values = numpy.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(numpy.uint16)
    loaded = saved(tmp_path, Image.fromarray(values), "deep.png")
    assert loaded.mode == "RGB"
    assert abs(numpy.asarray(loaded)[..., 0].astype(float) - values / 257).max() <= 1


def test_a_dark_sixteen_bit_image_stays_dark(tmp_path):
    """All its values would be bright ones in 8 bits."""
    loaded = saved(tmp_path, Image.fromarray(numpy.full((8, 8), 250, dtype=numpy.uint16)), "dark.png")
    assert loaded.getpixel((4, 4)) == pytest.approx((1, 1, 1), abs=1)


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert data.load_image(tmp_path / "moving.gif").getpixel((4, 4)) == (255, 0, 0)


def test_turned_images_are_put_upright(tmp_path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side: what is left belongs on top
    loaded = saved(tmp_path, image, "turned.jpg", exif=exif)
    assert loaded.size == (20, 40)
    assert loaded.getpixel((10, 5))[0] > 250
    assert loaded.getpixel((10, 35))[0] < 5


def test_what_cannot_be_decoded_is_named(tmp_path):
    (tmp_path / "text.jpg").write_text("not an image")
    whole = make_image(tmp_path / "whole.jpg", size=(300, 300))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:2000])
    for name in ("text.jpg", "cut.jpg", "missing.jpg"):
        with pytest.raises(CourseError, match=f"{name} can't be read as an image"):
            data.load_image(tmp_path / name)


def test_a_large_jpeg_is_decoded_smaller_but_never_too_small(tmp_path):
    file = make_image(tmp_path / "large.jpg", size=(1600, 1200))
    assert data.load_image(file).size == (1600, 1200)
    smaller = data.load_image(file, at_least=200).size
    assert 200 <= min(smaller) < 600


# ---- tensors


def test_eval_transform_equals_the_older_transforms(tmp_path):
    image = Image.open(make_image(tmp_path / "x.png", size=(90, 60))).convert("RGB")
    steps = [v1.Resize((32, 32)), v1.ToTensor(), v1.Normalize(data.IMAGENET_MEAN, data.IMAGENET_STD)]
    tensor, older = data.eval_transform(32)(image).as_subclass(torch.Tensor), v1.Compose(steps)(image)
    one_level = 1.01 / 255 / min(data.IMAGENET_STD)  # Pillow rounds otherwise
    torch.testing.assert_close(tensor, older, rtol=0, atol=one_level)
    assert (tensor - older).abs().mean() < one_level / 10


def test_augmentation_starts_from_the_whole_image():
    image = Image.new("RGB", (90, 30), "blue")
    image.paste("red", (0, 0, 15, 30))
    image.paste("lime", (75, 0, 90, 30))
    assert data.to_square(image).size == (30, 30)
    assert data.to_square(image.crop((0, 0, 30, 30))).size == (30, 30)
    torch.manual_seed(0)
    crops = [data.denormalize(data.train_transform(32)(image)) for _ in range(50)]
    # A square cut from the wide image itself would never hold both of its ends.
    assert any((crop[0] > 0.6).any() and (crop[1] > 0.6).any() for crop in crops)


def test_denormalize_undoes_the_normalisation(tmp_path):
    image = Image.open(make_image(tmp_path / "x.png", size=(32, 32))).convert("RGB")
    restored = data.denormalize(data.eval_transform(32)(image))
    torch.testing.assert_close(restored.as_subclass(torch.Tensor), v1.ToTensor()(image))


def digest(tensor):
    return tensor.contiguous().numpy().tobytes()


def test_loaders_show_every_image_once_and_repeat_by_seed(tmp_path):
    splits = read(class_folders(tmp_path, a=30, b=25))

    def epoch(seed, augment=False, part=0):
        loader = data.make_loaders(splits, 32, batch_size=8, augment=augment, seed=seed)[part]
        batches = list(loader)
        return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])

    images, labels = epoch(0)
    assert images.shape == (len(splits.train), 3, 32, 32)
    alone = [data.eval_transform(32)(Image.open(path).convert("RGB")) for path, _ in splits.train]
    assert sorted(map(digest, images)) == sorted(map(digest, alone))
    assert sorted(labels.tolist()) == [label for _, label in splits.train]
    assert torch.equal(epoch(0)[0], images)
    assert not torch.equal(epoch(1)[1], labels)
    for part, expected in ((1, splits.validation), (2, splits.test)):
        assert epoch(0, part=part)[1].tolist() == [label for _, label in expected]
    torch.manual_seed(0)
    assert not torch.equal(epoch(0, augment=True)[0], epoch(0, augment=True)[0])


def test_a_batch_is_decoded_in_threads_and_equals_its_images_alone(tmp_path, monkeypatch):
    splits, threads, alone_in = read(class_folders(tmp_path, a=30, b=25)), set(), data.load_image
    dataset = data.make_loaders(splits, 32, augment=False)[0].dataset
    alone = [dataset[index] for index in (7, 3, 20)]

    def load(*arguments, **options):
        threads.add(threading.current_thread())
        return alone_in(*arguments, **options)

    monkeypatch.setattr(data, "load_image", load)
    together = dataset.__getitems__([7, 3, 20])
    assert len(threads) >= 1
    assert threading.main_thread() not in threads
    assert all(torch.equal(one[0], other[0]) for one, other in zip(together, alone, strict=True))
    assert [label for _, label in together] == [label for _, label in alone]


def test_augmentation_repeats_by_seed_although_threads_decode(tmp_path):
    dataset = data.make_loaders(read(class_folders(tmp_path, a=30, b=25)), 32)[0].dataset

    def augmented():
        torch.manual_seed(0)
        return torch.stack([image for image, _ in dataset.__getitems__(list(range(33)))])

    first = augmented()
    assert all(torch.equal(augmented(), first) for _ in range(5))


def mean_of_a_batch(dataset, answers):
    """In a process of its own."""
    answers.put(torch.stack([image for image, _ in dataset.__getitems__([0, 1, 2])]).mean().item())


@pytest.mark.skipif(sys.platform != "linux", reason="where processes start anew, loaders have none")
@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_one_line_from_a_worker_process_too(tmp_path, workers):
    splits = read(class_folders(tmp_path, a=30, b=25))
    damaged = splits.validation[3][0]
    damaged.write_bytes(damaged.read_bytes()[:200])
    _, loader, _ = data.make_loaders(splits, 32, augment=False, workers=workers)
    with pytest.raises(CourseError) as error:
        list(loader)
    assert str(error.value) == f"{damaged} can't be read as an image. Replace it or take it out of the folder."


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork processes")
def test_a_forked_process_starts_threads_of_its_own(tmp_path):
    splits = read(class_folders(tmp_path, a=30, b=25))
    train, validation, _ = data.make_loaders(splits, 32, augment=False)
    batches = torch.cat([images for images, _ in validation])  # starts this process's threads
    workers = data.make_loaders(splits, 32, augment=False, workers=2)[1]
    assert torch.equal(torch.cat([images for images, _ in workers]), batches)
    forking = multiprocessing.get_context("fork")
    answers = forking.Queue()
    process = forking.Process(target=mean_of_a_batch, args=(train.dataset, answers), daemon=True)
    process.start()
    assert isinstance(answers.get(timeout=30), float)
    process.join()


def test_worker_processes_only_beside_a_gpu_and_where_they_cannot_hang(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    for gpu in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: gpu)
        assert data.default_workers(400) == 0
        assert (data.default_workers(5000) >= 1) == gpu
    for platform in ("win32", "darwin"):
        monkeypatch.setattr(sys, "platform", platform)
        assert data.default_workers(5000) == 0
