"""Hand a run over: as an ONNX file that takes images of any size, or as a web page that computes in the browser."""

import json
import os
import re
import shutil
import time
from contextlib import nullcontext, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import numpy
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F
from tqdm import tqdm

from .data import load_image
from .downloads import fetch, find_archive
from .explaining import linear_parts, logit_maps, pool_of
from .runs import Run, answers_to, ask, transform_of
from .settings import DOWNLOADS, BadArgument, CourseError, best_device, first_line, format_table
from .training import exact_convolutions

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
PAGE = Path(__file__).resolve().parent / "page"
RUNTIME = "onnxruntime-web@1.30.0"  # a package of npm's, MIT licence; two of its files, by their SHA-256
MIRRORS = ("https://cdn.jsdelivr.net/npm", "https://unpkg.com")
RUNTIME_FILES = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}


def export(run: Run, images: list[Path]) -> bytes:
    """The run as the content of an ONNX file; raises CourseError if torch says otherwise about one of these images."""
    content = to_onnx(run)
    print(compare_with_torch(content, run, images))
    return content


def check_packages() -> None:
    """Raise CourseError if a package is missing that only an export needs."""
    if any(not find_spec(name) for name in PACKAGES):
        raise CourseError(f"An export needs packages that are missing here: pip install {' '.join(PACKAGES)}")


# ---------------------------------------------------------------------- from pixels to the answer


class WholeModel(nn.Module):
    """A run with what comes before and after its network. Input: uint8 RGB (n, height, width, 3), of any size.

    Output: probabilities (n, classes); strangeness (n,) and the exact map (n, classes, h, w), where there are such.
    """

    def __init__(self, run: Run):
        super().__init__()
        self.network, self.strangeness, self.about = run.model, run.strangeness, run.about
        self.size, mean, std = transform_of(run.about).key
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.rounding, self.linear = rounds_between(), None
        with suppress(BadArgument):  # a head of which no map is exact
            self.linear = linear_parts(self.network)[:2]
        self.outputs = ["probabilities", *["strangeness"] * bool(self.strangeness), *["map"] * bool(self.linear)]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        pixels = resize(images.permute(0, 3, 1, 2).float(), self.size, rounding=self.rounding)
        pixels, maps = (pixels / 255 - self.mean) / self.std, []
        register = pool_of(self.network).register_forward_pre_hook if self.linear else nullcontext
        with register(lambda _, inputs: maps.append(inputs[0])):
            answers = answers_to(self.network, self.about, pixels, self.strangeness)
        answers = answers if self.strangeness else answers[:1]
        return *answers, *([logit_maps(maps[0], *self.linear)] if self.linear else [])


def resize(images: Tensor, size: int, *, rounding: bool) -> Tensor:
    """Squeeze (n, 3, height, width), values 0 to 255, to (n, 3, size, size) as torchvision does, and ONNX does not."""
    for _ in ("width", "height"):
        weights = triangles(images.shape[-1], size, torch.float64 if rounding else torch.float32)
        if rounding:  # weights have 16 bits then, as Pillow's: the largest decides how many are behind the point
            steps = 2 ** ((32767.5 / weights.max()).log2().ceil() - 1).clamp(max=22)
            weights = (weights * steps + 0.5).floor() / steps
        images = images @ weights.float().T
        images = ((images + 0.5).floor() if rounding else images).transpose(2, 3)  # after the first direction too
    return images.round()


def triangles(old: int, new: int, dtype: torch.dtype) -> Tensor:
    """How much each of `old` pixels counts for each of `new`: (new, old); each row sums to one."""
    # In torchvision's own order: where an exact sum lies halfway between two levels, the last bit decides.
    step = torch.full((), old, dtype=dtype) / new
    centers = step * (torch.arange(new, dtype=dtype) + 0.5)
    distances = (torch.arange(old, dtype=dtype) - centers[:, None] + 0.5) * (1 / step.clamp(min=1))
    weights = (1 - distances.abs()).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def rounds_between() -> bool:
    """True if torchvision rounds to 8 bits after the first direction, as it does where the processor has AVX2."""
    noise = torch.randint(256, (1, 3, 97, 89), generator=torch.Generator().manual_seed(0))
    expected = F.resize(noise.byte(), [64, 64]).float()
    errors = [(resize(noise.float(), 64, rounding=way) - expected).abs().sum() for way in (False, True)]
    return bool(errors[1] < errors[0])


# --------------------------------------------------------------------------------- the ONNX file


def to_onnx(run: Run) -> bytes:
    """The run as the content of an ONNX file, not yet checked; raises CourseError if ONNX can't say what it does."""
    import onnx

    whole = WholeModel(run).eval()
    sizes = {i: torch.export.Dim(name) for i, name in enumerate(("batch", "height", "width"))}
    names = {"input_names": ["images"], "output_names": whole.outputs}
    example = torch.zeros(2, 50, 60, 3, dtype=torch.uint8)
    try:
        program = torch.onnx.export(whole, (example,), dynamo=True, dynamic_shapes=(sizes,), verbose=False, **names)
    except Exception as error:  # of many classes
        raise CourseError(why_not(error)) from error
    file = program.model_proto
    facts = {key: run.about.get(key) for key in ("classes", "network", "image_size", "temperature", "data")}
    facts["refused_above"] = run.strangeness and run.strangeness.threshold.item()
    facts["course"] = next((one.version for one in distributions(name="transfer-learning-course")), "not installed")
    facts["torch"] = torch.__version__
    onnx.helper.set_model_props(file, {key: json.dumps(value) for key, value in facts.items()})
    return file.SerializeToString()


def why_not(error: BaseException) -> str:
    """One line about an export that failed; it names the operation that ONNX has not, if that is why."""
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    operations = re.findall(r"(?:aten|torchvision|prims)[.:]+\w+", " ".join(map(str, causes)))
    reason = f"ONNX has no operation {operations[0]}" if operations else first_line(causes[-1])
    advice = "Bring torch and onnxscript up to date, or train another --backbone"
    return f"This network can't be exported: {reason}. {advice}."


def compare_with_torch(content: bytes, run: Run, paths: list[Path]) -> str:
    """How large and how fast both are, as text; raises CourseError if they disagree about an image."""
    import onnxruntime

    options, size, start = onnxruntime.SessionOptions(), round(1.3 * run.about["image_size"]), time.perf_counter()
    options.intra_op_num_threads = torch.get_num_threads()
    with exact_convolutions(best_device(), "float32"):
        answers = list(ask(run.model, run.about, paths, strangeness=run.strangeness))
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    middle, worst = time.perf_counter(), 0.0
    # Resizing in floats leaves exact halves to chance: there torch itself is not more certain than this.
    tolerance = 1e-4 if rounds_between() else 1e-3
    for path, answer in tqdm(answers, desc="comparing", unit=" images", delay=2):
        if isinstance(answer, CourseError):  # the file changed meanwhile
            raise answer
        expected, score = answer
        given, *more = session.run(None, {"images": numpy.asarray(load_image(path, at_least=size))[None]})
        difference = abs(given[0] - expected.numpy()).max()
        if run.strangeness:
            difference = max(difference, abs(more[0][0] - score))
        if given[0].argmax() != expected.argmax() or not difference <= tolerance:
            raise CourseError(
                f"torch and ONNX Runtime disagree about {path}, by {difference:.1g}, so nothing was "
                f"written. Bring torch, {', '.join(PACKAGES)} up to date."
            )
        worst = max(worst, difference)
    weights, end = sum(tensor.nbytes for tensor in run.model.state_dict().values()), time.perf_counter()
    rows = [
        ["torch", f"{weights / 1e6:.1f}", f"{len(paths) / (middle - start):,.0f}"],
        ["ONNX Runtime", f"{len(content) / 1e6:.1f}", f"{len(paths) / (end - middle):,.0f}"],
    ]
    same = f"the same class for each of {len(paths):,} images, probabilities within {worst:.0e}"
    return f"{same}\n{format_table(['', 'MB', 'images a second, from the file on'], rows)}"


# --------------------------------------------------------------------------------- the web page


def page_files(folder: Path) -> dict[str, Path]:
    """What a page is made of, by name, but for its run; raises BadArgument if the folder for it has other files."""
    files = {file.name: file for file in PAGE.iterdir()}
    ours = {*files, *RUNTIME_FILES, "model.onnx", "about.json"}
    if folder.exists() and not folder.is_dir():
        raise BadArgument(f"{folder} is a file; --out takes the name of a folder.")
    if folder.exists() and not {file.name for file in folder.iterdir()} <= ours:
        raise BadArgument(f"{folder} holds other files too. Choose a new folder for the page.")
    return files | {name: runtime_file(name) for name in RUNTIME_FILES}


def write_page(folder: Path, content: bytes) -> None:
    """Write a page with the ONNX file's content in it, whole or not at all; it takes the place of an earlier one."""
    import onnx

    files = page_files(folder)
    about = {one.key: json.loads(one.value) for one in onnx.load_from_string(content).metadata_props}
    try:
        with TemporaryDirectory(prefix=".", dir=folder.absolute().parent) as place:
            new = Path(place, "new")
            new.mkdir()
            for name, file in files.items():
                shutil.copyfile(file, new / name)
            (new / "model.onnx").write_bytes(content)
            (new / "about.json").write_text(json.dumps(about), encoding="utf-8")
            if folder.exists():
                os.replace(folder, Path(place, "old"))
            os.replace(new, folder)
    except OSError as error:
        raise CourseError(f"Could not write {folder} ({first_line(error)}). Make room, or choose another.") from error


def runtime_file(name: str) -> Path:
    """One of RUNTIME_FILES: from the folder COURSE_ARCHIVES, else downloaded. Raises CourseError if that fails."""
    if file := find_archive(name, sha256=RUNTIME_FILES[name]):
        return file
    urls = [f"{place}/{RUNTIME}/dist/{name}" for place in MIRRORS]
    target = DOWNLOADS / RUNTIME.replace("@", "-") / name
    try:
        return fetch(urls, target, sha256=RUNTIME_FILES[name], recheck=True)
    except CourseError as error:
        raise CourseError(
            f"Could not download {error.__cause__}. Without a network, put {' and '.join(RUNTIME_FILES)} of npm's "
            f"package {RUNTIME} into a folder, and name that folder in COURSE_ARCHIVES."
        ) from error


class QuietFiles(SimpleHTTPRequestHandler):
    """Sends files, without a line on stderr for each; a script is one, whatever the registry of Windows calls it."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | dict.fromkeys((".js", ".mjs"), "text/javascript")

    def log_message(self, *_) -> None:
        """Say nothing."""


def serve(folder: Path) -> str:
    """The address of a page, for browsers on this machine, until this process ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"
