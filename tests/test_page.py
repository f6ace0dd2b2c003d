"""The web page in a real browser: the same answers as Python's, for every kind of file, and for every reader."""

import shutil
import subprocess

import browser
import pytest
import torch
from PIL import Image, ImageCms
from torch import nn

from helpers import data, evaluating, exporting, models, runs
from helpers.settings import DOWNLOADS, SAMPLE

for package in (*exporting.PACKAGES, "websocket"):
    pytest.importorskip(package, reason=f"the page's tests need {package}: pip install '.[export]' websocket-client")
pytest.importorskip("torch", minversion="2.6", reason="older versions of torch export in another way")
if not browser.CHROMIUM:
    pytest.skip("the page's tests need Chromium: apt-get install chromium", allow_module_level=True)

SIZE = 80
FILES = sorted((SAMPLE / "test").rglob("*.jpg"))[::3]


@pytest.fixture(scope="module")
def run():
    """A slim VGG16 that knows the sample, with a head of random weights: it is sure of little, so that errors show."""
    torch.manual_seed(0)
    model = models.replace_head(models.load_backbone("vgg16", SAMPLE / "vgg16_slim.safetensors"), 3).eval()
    base, head = models.split_model(model)
    images = torch.stack([data.eval_transform(SIZE)(data.load_image(file)) for file in FILES[:40]])
    with torch.inference_mode():
        features = base(images)
    head[0].learn(features.double().mean(0), features.double().var(0))
    known, std = nn.functional.normalize(features / head[0].std).half(), head[0].std.clone()
    about = {"network": "vgg16", "head": "linear", "classes": ["ants", "bees", "wasps"], "image_size": SIZE, "seed": 0}
    about |= {"data": "sample", "test_views": ["plain", "flip"], "temperature": 0.8}
    scores = evaluating.Strangeness(known, std, torch.tensor(0.0))
    with torch.inference_mode():
        scores.threshold.copy_(scores(features).max() + 0.05)
    return runs.Run(model, about, runs.History(), summary={"epochs": 0}, strangeness=scores)


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """The page with that run in it."""
    place = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_ARCHIVES", str(runtime(place)))
        exporting.write_page(place / "page", exporting.to_onnx(run))
    return place / "page"


def runtime(place):
    """A folder with the files that compute in the browser; npm brings them where nobody has put them."""
    first = next(iter(exporting.RUNTIME_FILES))
    for known in (data.find_archive(first), DOWNLOADS / exporting.RUNTIME.replace("@", "-") / first):
        if known and all((known.parent / name).exists() for name in exporting.RUNTIME_FILES):
            return known.parent
    if not shutil.which("npm"):
        pytest.skip(f"the page's tests need npm's package {exporting.RUNTIME}, in COURSE_ARCHIVES or through npm")
    command = ["npm", "pack", exporting.RUNTIME, "--silent"]
    fetched = subprocess.run(command, cwd=place, capture_output=True, timeout=300, check=False)
    if fetched.returncode:
        pytest.skip(f"npm could not bring {exporting.RUNTIME}")
    (archive,) = place.glob("*.tgz")
    shutil.unpack_archive(archive, place, filter="data")
    return place / "package" / "dist"


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    """The page, open in a browser, ready to be asked; its server sends no header of its own."""
    with browser.browser(tmp_path_factory.mktemp("profile")) as one:
        one.address = exporting.serve(folder)
        one.open(one.address)
        browser.wait_for(lambda: one.run("document.querySelector('main').ariaBusy === 'false'"))
        yield one


ANSWER = """({
    status: document.querySelector("[role=status]").textContent,
    shown: !document.querySelector("#result").hidden,
    refused: document.querySelector("#result").dataset.refused === "true",
    probabilities: Object.fromEntries([...document.querySelectorAll("tbody tr")].map(
        (row) => [row.dataset.name, Number(row.dataset.probability)])),
})"""


def named(page, file):
    """What the page says about a file."""
    page.choose("#file", file)
    browser.wait_for(lambda: page.run("document.querySelector('main').ariaBusy === 'false'"))
    return page.run(ANSWER)


def differences(page, run, files):
    """By how much the page's probabilities are off Python's, after class and refusal were compared."""
    for file, (expected, score) in runs.ask(run.model, run.about, files, strangeness=run.strangeness):
        found = named(page, file)
        assert found["shown"], found
        told = [found["probabilities"][name] for name in run.about["classes"]]
        assert torch.tensor(told).argmax() == expected.argmax(), file
        assert found["refused"] == (score > run.strangeness.threshold.item()), file
        assert ("None of these" in found["status"]) == found["refused"]
        yield max(abs(one - other) for one, other in zip(told, expected.tolist(), strict=True))


def test_a_hundred_images_get_pythons_answers(page, run):
    assert len(FILES) == 100
    errors = list(differences(page, run, FILES))
    assert max(errors) < 1e-3, sorted(errors)[-5:]


def kinds(folder):
    """Files of all kinds that browsers and Pillow read, of one drawing."""
    image = Image.open(FILES[0]).convert("RGB").resize((150, 110))
    wide = image.resize((700, 500), Image.Resampling.BICUBIC)
    seen = wide.convert("RGBA")
    seen.putalpha(Image.linear_gradient("L").resize(wide.size))
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, one, options in (
        ("plain.png", image, {}),
        ("grey.png", image.convert("L"), {}),
        ("palette.gif", image.quantize(64), {}),
        ("transparent.png", seen, {}),
        ("lossless.webp", image, {"lossless": True}),
        ("progressive.jpg", image, {"progressive": True, "quality": 90}),
        ("turned.jpg", image, {"exif": turned, "quality": 95}),
        ("profile.jpg", image, {"icc_profile": other_profile(), "quality": 95}),
        ("half.jpg", wide.resize((300, 240)), {"quality": 95}),
        ("quarter.jpg", wide, {"quality": 95}),
        ("eighth.jpg", wide.resize((1203, 999)), {"quality": 95}),
        ("turned_large.jpg", wide, {"exif": turned}),
        ("grey.jpg", wide.convert("L"), {"quality": 95}),
        ("large.png", wide.resize((1203, 999)), {}),
    ):
        one.save(folder / name, **options)
    return sorted(folder.iterdir())


def other_profile():
    """A colour profile in which red and blue are each other."""
    content = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return content.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")


def test_all_kinds_of_files_get_pythons_answers(page, run, tmp_path):
    files = kinds(tmp_path)
    errors = dict(zip([file.name for file in files], differences(page, run, files), strict=True))
    assert max(errors.values()) < 1e-3, errors


def test_browsers_that_cannot_read_a_jpeg_at_a_fraction_of_its_size_come_near(page, run, tmp_path):
    files = [file for file in kinds(tmp_path) if file.name in ("half.jpg", "quarter.jpg", "eighth.jpg")]
    page.run("{ globalThis.kept = ImageDecoder; delete globalThis.ImageDecoder; 0 }")
    try:
        errors = list(differences(page, run, files))
    finally:
        page.run("{ globalThis.ImageDecoder = kept; 0 }")
    assert 1e-3 < max(errors) < 0.02


def test_a_file_that_is_no_image_gets_a_line(page, tmp_path):
    for name, content in {"notes.txt": b"no image", "cut.jpg": FILES[0].read_bytes()[:1500], "empty.png": b""}.items():
        (tmp_path / name).write_bytes(content)
        found = named(page, tmp_path / name)
        assert found["status"] == f"{name} is no image that this browser can read."
        assert not found["shown"]


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_of_a_hundred_megapixels_get_a_line_or_an_answer(page, run, tmp_path):
    Image.new("L", (10_000, 10_000), 90).save(tmp_path / "large.png", compress_level=1)
    found = named(page, tmp_path / "large.png")
    expected = "large.png is too large: it has 100 megapixels. Make it smaller first: 40 are the most."
    assert (found["status"], found["shown"]) == (expected, False)
    Image.new("L", (10_000, 10_000), 90).save(tmp_path / "large.jpg")
    assert max(differences(page, run, [tmp_path / "large.jpg"])) < 1e-3


def test_it_is_used_by_keyboard_and_read_aloud(page):
    named(page, FILES[0])
    page.run("document.activeElement.blur()")
    stops = []
    for _ in range(2):
        page.press("Tab", "Tab")
        stops.append(page.run("document.activeElement.id"))
    assert stops == ["file", "show"]
    before = page.run("document.querySelector('#show').checked")
    page.press(" ", "Space")
    assert page.run("document.querySelector('#show').checked") != before
    tree = page.do("Accessibility.getFullAXTree")["nodes"]
    told = {(one["role"]["value"], one.get("name", {}).get("value", "").strip()) for one in tree if not one["ignored"]}
    assert ("heading", "Name an image") in told
    assert ("checkbox", "Show the places that decided") in told
    assert ("image", f"The image {FILES[0].name}") in told
    assert {name for role, name in told if role == "rowheader"} == {"ants", "bees", "wasps"}
    assert all(name.endswith("%") for role, name in told if role == "cell")
    assert {role for role, _ in told} >= {"status", "table", "main"}


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_in_both_themes(page, dark):
    named(page, FILES[0])
    page.look(width=340, height=700, dark=dark)
    assert page.run("document.documentElement.scrollWidth") <= 340
    style = page.run("""[document.body, document.documentElement].map(one => getComputedStyle(one).color)""")
    assert style == (["rgb(255, 255, 255)"] if dark else ["rgb(0, 0, 0)"]) * 2


def test_it_asks_nobody_else_and_complains_of_nothing(page, folder):
    named(page, FILES[0])
    asked = [one["params"]["request"]["url"] for one in page.events if one["method"] == "Network.requestWillBeSent"]
    assert {url.removeprefix(page.address) for url in asked} <= {"", *(file.name for file in folder.iterdir())}
    assert "model.onnx" in {url.removeprefix(page.address) for url in asked}
    complaints = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    assert [one["params"] for one in page.events if one["method"] in complaints] == []


def test_it_stays_small(folder):
    without_model = sum(file.stat().st_size for file in folder.iterdir() if file.name != "model.onnx")
    assert without_model < 20e6  # SqueezeNet's model takes 4 MB, or 8 with what a run knows of its training images
