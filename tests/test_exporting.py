"""What is handed over: an ONNX file that answers as Python does, or no file; and the web page around it."""

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image
from small import alone_in_an_empty_folder, draw_classes
from torch import nn
from torchvision.transforms import v2

from helpers import __main__ as command_line
from helpers import downloads, evaluating, explaining, exporting, models, runs
from helpers.settings import BadArgument, CourseError, replace

for package in exporting.PACKAGES:
    pytest.importorskip(package, reason="the extra for an export is not installed: pip install '.[export]'")
pytest.importorskip("torch", minversion="2.6", reason="older versions of torch export in another way")
import onnx  # noqa: E402
import onnxruntime  # noqa: E402

HALF = [0.5, 0.5, 0.5]
IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def network(name, head, classes=3):
    """A small network with random weights."""
    torch.manual_seed(0)
    if name == "small_cnn":
        return models.SmallCNN(classes).eval()
    options = {"width": 1 / 8, "image_size": 32} if name.startswith("vgg16") else {}
    return models.HEADS[head](models.build(name, **options), classes).eval()


def a_run(name="small_cnn", head="linear", **about):
    """A run that was never trained; one with a linear head knows some images of noise."""
    about = {"network": name, "classes": ["Ämter", "bees", "c"], "image_size": 32, "seed": 0, "head": head} | about
    run = runs.Run(network(name, head), {"data": "ants", "temperature": 1.7} | about, runs.History(), summary={"n": 0})
    if name != "small_cnn" and head == "linear":
        base, head = models.split_model(run.model)
        with torch.no_grad():
            features = base(torch.randn(8, 3, 32, 32))
        head[0].learn(features.double().mean(0), features.double().var(0))
        known = nn.functional.normalize(features / head[0].std).half()
        run.strangeness = evaluating.Strangeness(known, head[0].std.clone(), torch.tensor(0.4))
    return run


TO_ONNX = exporting.to_onnx  # which some tests replace


@cache
def exported(name="small_cnn"):
    """The content of such a run's file: an export takes seconds."""
    return TO_ONNX(a_run(name))


def some_images(*sizes):
    """Images of smooth noise, (height, width, 3)."""
    generator = numpy.random.default_rng(0)
    small = [generator.integers(0, 256, (7, 9, 3), dtype=numpy.uint8) for _ in sizes]
    return [numpy.asarray(Image.fromarray(one).resize(size[::-1], 2)) for one, size in zip(small, sizes, strict=True)]


def torchs(run, image, mean, std):
    """What torch and torchvision say about one image: tensors (views, 3, 32, 32), probabilities, features."""
    steps = [v2.ToImage(), v2.Resize((32, 32)), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
    plain = v2.Compose(steps)(Image.fromarray(image))
    views = torch.stack([plain, plain.flip(-1)][: len(run.about.get("test_views", [0]))])
    with torch.inference_mode():
        mean = run.model(views).softmax(1).mean(0)
    return views, (mean.log() / run.about["temperature"]).softmax(0)


# ---------------------------------------------------------------------------------- the resizing


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(500, 375, 256), (375, 500, 224), (64, 64, 96), (1, 1, 40), (96, 50, 96), (1200, 1600, 224), (3000, 37, 64)],
)
def test_images_are_resized_as_torchvision_does(height, width, size):
    pixels = torch.randint(256, (1, 3, height, width), generator=torch.Generator().manual_seed(0))
    expected = v2.functional.resize(pixels.byte(), [size, size]).float()
    rounding = exporting.rounds_between()
    errors = (exporting.resize(pixels.float(), size, rounding=rounding) - expected).abs()
    assert errors.max() <= 1
    # Without AVX2 torchvision computes in floats, where a tie may fall either way.
    assert (errors > 0).double().mean() <= (1e-4 if rounding else 0.05)


def test_a_processor_without_short_vectors_is_followed_too():
    code = """if True:
        import torch
        from torchvision.transforms.v2 import functional as F
        from helpers import exporting
        assert not exporting.rounds_between()
        for height, width, size in ((375, 500, 224), (96, 96, 110), (64, 64, 96)):
            pixels = torch.randint(256, (1, 3, height, width), generator=torch.Generator().manual_seed(0))
            expected = F.resize(pixels.byte(), [size, size])
            errors = exporting.resize(pixels.float(), size, rounding=False) - expected
            assert (errors != 0).double().mean() < 0.001, (size, errors)
    """
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


# ---------------------------------------------------------------------------------- the answers

BOTH = ["plain", "flip"]


@pytest.mark.parametrize(
    ("name", "head", "about"),
    [
        ("small_cnn", "full", {}),
        ("vgg16", "linear", {}),
        ("vgg16_bn", "full", {}),
        ("squeezenet1_1", "linear", {"test_views": BOTH, "mean": HALF, "std": HALF}),
        ("resnet18", "linear", {"test_views": BOTH}),
    ],
)
def test_the_file_answers_as_torch_does_at_any_size_and_in_any_number(name, head, about):
    run = a_run(name, head, **about)
    content = exported(name) if name in ("small_cnn", "vgg16") else exporting.to_onnx(run)
    onnx.checker.check_model(onnx.load_from_string(content))
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = some_images((90, 60), (32, 32), (20, 200))
    for image in [*images, numpy.stack([images[0], images[0][::-1], images[0][:, ::-1]])]:
        batch = image if image.ndim == 4 else image[None]
        found = dict(
            zip([one.name for one in session.get_outputs()], session.run(None, {"images": batch}), strict=True)
        )
        for i, one in enumerate(batch):
            mean, std = (about.get(key, usual) for key, usual in zip(("mean", "std"), IMAGENET, strict=True))
            views, expected = torchs(run, numpy.ascontiguousarray(one), mean, std)
            numpy.testing.assert_allclose(found["probabilities"][i], expected, atol=2e-6)
            if run.strangeness:
                with torch.inference_mode():
                    features = models.split_model(run.model)[0](views[:1])
                    numpy.testing.assert_allclose(found["strangeness"][i], run.strangeness(features)[0], atol=1e-5)
            if (name, head) != ("vgg16_bn", "full"):
                exact = explaining.exact_map(run.model, views[:1])[0]
                numpy.testing.assert_allclose(found["map"][i], exact, atol=1e-4 * exact.abs().max())
    assert ("map" in found) == ((name, head) != ("vgg16_bn", "full"))
    assert ("strangeness" in found) == (name != "small_cnn" and head == "linear")


def test_the_metadata_say_what_the_numbers_mean():
    file = onnx.load_from_string(exported("vgg16"))
    told = {one.key: json.loads(one.value) for one in file.metadata_props}
    expected = {"classes": ["Ämter", "bees", "c"], "image_size": 32, "temperature": 1.7, "network": "vgg16"}
    assert expected.items() <= told.items()
    assert told["refused_above"] == pytest.approx(0.4)
    assert told["torch"] == torch.__version__
    assert told["course"]


# ------------------------------------------------------------------------------------ the commands


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    """An empty working folder, without the user's choices."""
    alone_in_an_empty_folder(monkeypatch, tmp_path)


@pytest.fixture
def saved(tmp_path):
    """The folder of a small run, and images for it."""
    runs.save_run(a_run(), tmp_path / "run")
    draw_classes(tmp_path / "images")
    return tmp_path / "run"


def command(*arguments):
    return command_line.main([str(argument) for argument in arguments])


def refused(capsys, *arguments, status=1):
    """The one line of error of a command that must fail, and leave nothing."""
    assert command(*arguments) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert not list(Path().rglob("*")), "something was left behind"
    return lines[0]


def test_export_says_how_large_and_fast_both_are(saved, tmp_path, capsys):
    assert command("export", saved, "--data", tmp_path / "images", "--out", tmp_path / "new" / "model.onnx") == 0
    onnx.checker.check_model(str(tmp_path / "new" / "model.onnx"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("the same class for each of 4 images, probabilities within ")
    files = {"torch": saved / "model.safetensors", "ONNX Runtime": tmp_path / "new" / "model.onnx"}
    for line, file in files.items():
        told = next(one.removeprefix(line).split() for one in lines if one.startswith(line))
        assert float(told[0]) == pytest.approx(file.stat().st_size / 1e6, abs=0.06)
        assert float(told[1].replace(",", "")) > 0


@pytest.mark.parametrize("name", ["small_cnn", "vgg16"])
def test_a_file_that_answers_otherwise_is_not_written(name, tmp_path, capsys, monkeypatch):
    """As one would with an operator that ONNX Runtime computes wrongly: a probability, or the strangeness."""
    real = onnxruntime.InferenceSession

    class Wrong(real):
        def run(self, *arguments):
            *right, wrong = super().run(*arguments)[: 2 if name == "vgg16" else 1]
            return [*right, wrong + 2e-4]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Wrong)
    refuses(capsys, monkeypatch, tmp_path, name)


def test_a_file_that_names_another_class_is_not_written(tmp_path, capsys, monkeypatch):
    """However near to each other the two classes are."""
    torchs, others = torch.tensor([0.33336, 0.33333, 0.33331]), numpy.float32([[0.33333, 0.33336, 0.33331]])
    monkeypatch.setattr(exporting, "ask", lambda model, about, paths, **_: [(path, (torchs, 0.0)) for path in paths])
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", lambda *_: [others])
    refuses(capsys, monkeypatch, tmp_path, "small_cnn")


def refuses(capsys, monkeypatch, tmp_path, name):
    """An export of this network says about which image the two programs disagree, and writes nothing."""
    runs.save_run(a_run(name), tmp_path / "run")
    draw_classes(tmp_path / "images")
    monkeypatch.setattr(exporting, "to_onnx", lambda run: exported(name))
    line = refused(capsys, "export", tmp_path / "run", "--data", tmp_path / "images", "--out", "model.onnx")
    assert "disagree about" in line
    assert ".png" in line


def test_without_the_extra_one_line_says_what_to_install(saved, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else True)
    for name in ("export", "page"):
        line = refused(capsys, name, saved, "--data", tmp_path / "images", "--out", "new")
        assert line.endswith("pip install onnx onnxscript onnxruntime.")


def test_a_run_whose_folder_is_not_known_asks_for_it(saved, capsys):
    assert "--data DIR" in refused(capsys, "export", saved, "--out", "model.onnx", status=2)


def test_an_operation_that_onnx_has_not_is_named():
    class Odd(models.SmallCNN):
        def forward(self, images):
            return super().forward(images) + torch.linalg.svdvals(images[:, 0])[:, :3]

    run = replace(a_run(), model=Odd(3).eval())
    with pytest.raises(CourseError, match=r"svd.*--backbone") as caught:
        exporting.to_onnx(run)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
@pytest.mark.parametrize("name", ["export", "page"])
def test_a_disk_that_fills_leaves_nothing(name, saved, archives, capsys, monkeypatch):
    import resource  # POSIX only

    monkeypatch.setattr(exporting, "to_onnx", lambda run: an_onnx_file())
    monkeypatch.setattr(exporting, "compare_with_torch", lambda *_: "")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        line = refused(capsys, name, saved, "--data", archives.parent / "images", "--out", "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Could not write new" in line


# ---------------------------------------------------------------------------------------- the page


def an_onnx_file():
    """The content of an ONNX file of some kilobytes that says what its classes are."""
    file = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], [], doc_string="x" * 5000))
    onnx.helper.set_model_props(file, {"classes": '["ants", "bees"]'})
    return file.SerializeToString()


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """A folder with files in place of what computes in the browser."""
    (tmp_path / "archives").mkdir()
    monkeypatch.setattr(exporting, "RUNTIME_FILES", {})
    for name in ("a.mjs", "b.wasm"):
        (tmp_path / "archives" / name).write_text(name)
        exporting.RUNTIME_FILES[name] = downloads.sha256_of(tmp_path / "archives" / name)
    monkeypatch.setenv("COURSE_ARCHIVES", str(tmp_path / "archives"))
    return tmp_path / "archives"


def test_the_page_is_a_folder_that_can_be_made_anew(archives, tmp_path, capsys):
    page = tmp_path / "page"
    exporting.write_page(page, an_onnx_file())  # as lesson 9 calls it
    (page / "page.js").write_text("of an older version")
    exporting.write_page(page, an_onnx_file())
    own = {"index.html", "page.css", "page.js", "model.onnx", "about.json", "a.mjs", "b.wasm"}
    assert {file.name for file in page.iterdir()} == own
    assert (page / "page.js").read_text(encoding="utf-8").startswith("// Names an image")
    assert json.loads((page / "about.json").read_text()) == {"classes": ["ants", "bees"]}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archives", "here", "page"]
    assert capsys.readouterr().err == ""


def test_the_page_takes_no_others_place(tmp_path, monkeypatch):
    """Which is said before anything is fetched."""
    monkeypatch.setattr(exporting, "runtime_file", None)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(BadArgument, match="is a file"):
        exporting.page_files(tmp_path / "thesis" / "chapter.txt")
    with pytest.raises(CourseError, match="other files"):
        exporting.page_files(tmp_path / "thesis")
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["chapter.txt"]


def test_without_a_network_one_line_says_which_files_are_needed(archives, tmp_path, monkeypatch):
    monkeypatch.delenv("COURSE_ARCHIVES")
    monkeypatch.setattr(exporting, "MIRRORS", ["http://127.0.0.1:9"])
    monkeypatch.setattr(exporting, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setattr(downloads, "RETRY", downloads.RETRY.new(total=0))
    with pytest.raises(CourseError, match=r"a\.mjs and b\.wasm .*onnxruntime-web@.* COURSE_ARCHIVES") as caught:
        exporting.page_files(tmp_path / "page")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "page").exists()


def test_the_page_asks_no_other_server():
    for file in (exporting.PAGE / name for name in ("index.html", "page.css", "page.js")):
        assert "//" not in file.read_text(encoding="utf-8").replace("// ", "").replace("//\n", "").replace("// -", "")
    assert "default-src 'self'" in (exporting.PAGE / "index.html").read_text(encoding="utf-8")
