"""Hand a run over: as one ONNX file that takes images of any size, or as a web page that computes in the browser."""

import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from .data import EvalTransform, load_image, load_splits
from .downloads import fetch, find_archive, tell_if_not_published
from .runs import load_model, run_file
from .settings import (
    DOWNLOADS,
    BadArgument,
    CourseError,
    Setting,
    choose_setting,
    environment,
    first_line,
    printable,
)
from .training import placed, to_device
from .transfer import PLAIN, look

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # in which the probabilities of torch and of the file must agree


# Of npm's package onnxruntime-web (MIT licence), by SHA-256: what computes in the browser.
RUNTIME = "onnxruntime-web@1.30.0"
RUNTIME_FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
PAGE = Path(__file__).resolve().parent / "page"


def export(folder: Path, data: str | None = None, *, report=print) -> bytes:
    """The run in a folder as the content of an ONNX file, after it was compared with torch.

    `data`: a setting or a folder, whose validation images are used; by default the run's own.
    """
    check_packages()
    model, about = load_model(folder)
    images = load_splits(find_data(about, data), seed=about["seed"]).validation
    content = to_onnx(model, about)
    report(check(content, model, about, [path for path, _ in images]))
    report(f"size: {len(content) / 1e6:.1f} MB, the run's own file: {run_file(folder).stat().st_size / 1e6:.1f} MB")
    return content


def find_data(about: dict, data: str | None) -> Setting:
    """The setting that has the images; raises BadArgument if the run's own are in a folder that is not known."""
    try:
        return choose_setting(data or about["data"])
    except BadArgument as error:
        if data:
            raise
        name = printable(about["data"])
        raise BadArgument(f"The run learned from a folder called {name}. Say where it is: --data DIR") from error


# ---------------------------------------------------------------------- from pixels to the answer


class WholeModel(nn.Module):
    """A run with all that comes before and after its network: what is exported.

    Input: uint8 RGB (batch, height, width, 3), of any size. Output: probabilities (batch, classes).
    """

    def __init__(self, model: nn.Module, about: dict):
        super().__init__()
        transform = EvalTransform(about["image_size"])
        self.model, self.views = model, about.get("test_views", PLAIN)
        self.size, mean, std = transform.key
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.rounding = rounds_between(transform)

    def forward(self, images: Tensor) -> Tensor:
        pixels = resize(images.permute(0, 3, 1, 2).float(), self.size, rounding=self.rounding)
        pixels = (pixels / 255 - self.mean) / self.std
        return torch.stack([self.model(look(pixels, view)).softmax(1) for view in self.views]).mean(0)


def resize(images: Tensor, size: int, *, rounding: bool) -> Tensor:
    """Squeeze (batch, 3, height, width), values 0 to 255, to (…, size, size), to the last bit as torchvision does.

    Two matrix products, since ONNX's own Resize rounds otherwise. `rounding`: to whole numbers after the first too.
    """
    for _ in ("width", "height"):
        weights = triangles(images.shape[-1], size)
        if rounding:  # as Pillow does in 16 bits: the largest weight decides how many binary digits are kept
            steps = 2 ** ((32767.5 / weights.max()).log2().ceil() - 1).clamp(max=22)
            weights = (weights * steps + 0.5).floor() / steps
        images = images @ weights.float().T
        images = ((images + 0.5).floor() if rounding else images).transpose(2, 3)
    return images.round()


def triangles(old: int, new: int) -> Tensor:
    """How much each of `old` pixels counts for each of `new`: (new, old), float64; each row sums to one."""
    pixels, centers = (torch.arange(count, dtype=torch.float64) + 0.5 for count in (old, new))
    step = torch.full((), old, dtype=torch.float64) / new
    weights = (1 - (pixels - centers[:, None] * step).abs() / step.clamp(min=1)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def rounds_between(transform: EvalTransform) -> bool:
    """True if torchvision rounds to 8 bits after the first direction: it does where the processor has AVX2."""
    pixels = numpy.random.default_rng(0).integers(0, 256, (97, 89, 3), dtype=numpy.uint8)
    expected = transform.transforms[1](transform.transforms[0](Image.fromarray(pixels))).float()
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    errors = {way: (resize(images, len(expected[0]), rounding=way) - expected).abs().sum() for way in (True, False)}
    return bool(errors[True] <= errors[False])


# ------------------------------------------------------------------------------- the ONNX file


def to_onnx(model: nn.Module, about: dict) -> bytes:
    """The whole model as the content of an ONNX file, not yet checked.

    Raises CourseError if the packages are missing, or if the network has an operation that ONNX has not.
    """
    check_packages()
    import onnx

    whole = WholeModel(model, about).eval()
    example = torch.zeros(2, 50, 60, 3, dtype=torch.uint8)
    sizes = {i: torch.export.Dim(name) for i, name in enumerate(("batch", "height", "width"))}
    try:
        program = torch.onnx.export(
            whole, (example,), dynamo=True, dynamic_shapes=(sizes,), verbose=False,
            input_names=["images"], output_names=["probabilities"],
        )  # fmt: skip
    except Exception as error:  # the exporter has many, some of them without a class of their own
        raise CourseError(why_not(error)) from error
    onnx.helper.set_model_props(program.model_proto, {key: json.dumps(value) for key, value in facts(whole, about)})
    return program.model_proto.SerializeToString()


def facts(whole: WholeModel, about: dict) -> Iterator[tuple[str, object]]:
    """What the file's metadata say, by name."""
    yield "classes", about["classes"]
    yield "network", about["network"]
    yield "image_size", whole.size
    yield from {key: environment()[key] for key in ("torch", "torchvision")}.items()


def check_packages() -> None:
    """Raise CourseError, naming them, if packages are missing that the course itself does not need."""
    if missing := [name for name in PACKAGES if not find_spec(name)]:
        raise CourseError(f"Exporting needs {len(missing)} more of pip's packages: pip install {' '.join(missing)}")


def why_not(error: BaseException) -> str:
    """One line about an export that failed, with the operation that ONNX has not, if it is that."""
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    operations = re.findall(r"(?:aten|torchvision|prims)[.:]+\w+", " ".join(map(str, causes)))
    reason = f"ONNX has no operation for {operations[0]}" if operations else first_line(causes[-1])
    advice = "Bring torch and onnxscript up to date, or train another --backbone"
    return f"This network can't be exported: {reason}. {advice}."


# -------------------------------------------------------------------------------------- checked


@dataclass(frozen=True)
class Check:
    """How an ONNX file did beside torch, on one image after the other."""

    images: int
    difference: float  # the largest of all probabilities
    rates: dict[str, float]  # images a second

    def __str__(self) -> str:
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in self.rates.items())
        return (
            f"checked on {self.images:,} images: the same class for each, probabilities within {self.difference:.0e}\n"
            f"images a second, one by one in {torch.get_num_threads()} threads: {rates}"
        )


def check(content: bytes, model: nn.Module, about: dict, paths: Iterable[Path]) -> Check:
    """Ask torch and ONNX Runtime about the images in these files; raises CourseError if they disagree about one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    worst, seconds, paths = 0.0, {"torch": 0.0, "ONNX Runtime": 0.0}, list(paths)
    for path in tqdm(paths, desc="checking", unit=" images", delay=2):
        image = load_image(path, at_least=round(1.3 * about["image_size"]))
        start = time.perf_counter()
        expected = ask_torch(model, about, image)
        middle = time.perf_counter()
        (given,), *_ = session.run(None, {"images": numpy.asarray(image)[None]})
        seconds["torch"] += middle - start
        seconds["ONNX Runtime"] += time.perf_counter() - middle
        worst = max(worst, difference := float(abs(given - expected).max()))
        if given.argmax() != expected.argmax() or not difference <= TOLERANCE:
            raise CourseError(
                f"The exported model disagrees with torch about {printable(path)}, by {difference:.1g}. Nothing was "
                f"written. Bring torch, {' and '.join(PACKAGES[1:])} up to date."
            )
    return Check(len(paths), worst, {name: len(paths) / time_ for name, time_ in seconds.items()})


@torch.inference_mode()
def ask_torch(model: nn.Module, about: dict, image: Image.Image) -> numpy.ndarray:
    """The probabilities (classes,) of one image, on the CPU in float32, as the run's test asked for them."""
    images = EvalTransform(about["image_size"])(image)[None]
    views = about.get("test_views", PLAIN)
    return torch.stack([model.eval()(look(images, view)).softmax(1) for view in views]).mean(0)[0].numpy()


# --------------------------------------------------------------------------------- the web page


def write_page(folder: Path, content: bytes) -> None:
    """Write the web page into a folder, whole or not at all; it takes the place of an earlier one."""
    files = {file.name: file for file in PAGE.iterdir()} | runtime_files()
    if folder.exists() and not {file.name for file in folder.iterdir()} <= {*files, "model.onnx", "about.json"}:
        raise BadArgument(f"{folder} holds other files too. Choose a new folder for the page.")
    try:
        with TemporaryDirectory(prefix=".", dir=folder.parent) as place:
            new = Path(place, "page")
            new.mkdir()
            for name, file in files.items():
                shutil.copyfile(file, new / name)
            (new / "model.onnx").write_bytes(content)
            (new / "about.json").write_text(json.dumps(properties(content)), encoding="utf-8")
            if folder.exists():
                os.replace(folder, Path(place, "old"))
            os.replace(new, folder)
    except OSError as error:
        raise CourseError(f"Could not write {folder} ({first_line(error)}). Make room, or choose another.") from error


def properties(content: bytes) -> dict:
    """The metadata in an ONNX file, by name."""
    import onnx

    return {one.key: json.loads(one.value) for one in onnx.load_from_string(content).metadata_props}


def runtime_files() -> dict[str, Path]:
    """The files of RUNTIME by name: in COURSE_ARCHIVES, else downloaded. Raises CourseError if that fails."""
    return {name: runtime_file(name, digest) for name, digest in RUNTIME_FILES.items()}


def runtime_file(name: str, digest: str) -> Path:
    """One of them."""
    if file := find_archive(name):
        tell_if_not_published(file, sha256=digest)
        return file
    urls = [f"{place}/{RUNTIME}/dist/{name}" for place in ("https://cdn.jsdelivr.net/npm", "https://unpkg.com")]
    try:
        return fetch(urls, DOWNLOADS / RUNTIME.replace("@", "-") / name, sha256=digest, recheck=True)
    except CourseError as error:
        files = " and ".join(RUNTIME_FILES)
        raise CourseError(
            f"Could not download {error.__cause__}. Without a network, put {files} of npm's package {RUNTIME} into a "
            "folder, and name that folder in COURSE_ARCHIVES."
        ) from error
