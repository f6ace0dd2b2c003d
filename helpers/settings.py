"""The one choice of a lesson (which images, which pretrained network), the device, versions, errors, text tables."""

import os
import platform
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch
import torchvision

COURSE_ROOT = Path(__file__).resolve().parent.parent
IN_CLONE = (COURSE_ROOT / "data" / "sample").is_dir()  # else installed from a wheel, which brings the sample along
SAMPLE = COURSE_ROOT / "data" / "sample" if IN_CLONE else Path(__file__).resolve().parent / "sample"


class CourseError(Exception):
    """Something that a user can cause or mend. The message is one line, whatever files and classes are called."""

    def __init__(self, message: str):
        if message.startswith("Caught "):  # by a loader's worker process, as a traceback: "module.Class: message" last
            message = message.rstrip().splitlines()[-1].partition(": ")[2]
        super().__init__(printable(message))

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows instead of a traceback: the one line."""
        return [f"{type(self).__name__}: {self}"]


class BadArgument(CourseError, ValueError):
    """A wrong argument, or a file or folder it names that can't be used."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C, after what was trained so far has been put in order; the message is one line."""

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows instead of a traceback."""
        return [str(self)]


# ------------------------------------------------------------------------------------ the choice


@dataclass(frozen=True)
class Setting:
    """Which images a lesson uses, how large, and from which pretrained network it starts."""

    name: str  # sample, photos, photos-full, or the path of a folder
    scratch_size: int  # side in pixels of the images SmallCNN sees
    transfer_size: int  # side in pixels of the images the pretrained network sees
    scratch_epochs: int
    transfer_epochs: int
    backbone: str = "vgg16"
    weights: str = "imagenet"
    precision: str = "fast"  # of PRECISIONS
    scratch_passes: int = 1  # how often an epoch from scratch shows each image: few images make short epochs

    def __str__(self) -> str:
        precision = choose_precision(best_device(), self.precision)
        network = f"backbone: {self.backbone}, weights: {short(self.weights)}"
        return f"setting: {printable(self.name)}, {network}, precision: {precision}"


SLIM_WEIGHTS = {name: str(SAMPLE / f"{name}_slim.safetensors") for name in ("vgg16", "vgg16_bn")}  # of the sample
SETTINGS = {
    "sample": Setting("sample", 96, 96, 5, 5, weights=SLIM_WEIGHTS["vgg16"], scratch_passes=4),
    "photos": Setting("photos", 128, 224, 6, 8, scratch_passes=4),
    "photos-full": Setting("photos-full", 128, 224, 15, 3),
}
# Small networks are quick enough for images a little larger than those they learned from, and gain by it
# (results/README.md).
ENLARGED = {"squeezenet1_1": 8 / 7, "timm:tf_efficientnet_lite0": 8 / 7}


def choose_setting(name: str | None = None, *, backbone=None, weights=None, precision="fast") -> Setting:
    """The setting, or your own folder: `name`, else COURSE_SETTING, else photos with a CUDA card, sample without one.

    `backbone` and `weights` override the setting's pretrained network, else COURSE_BACKBONE and COURSE_WEIGHTS do.
    """
    if asked := name or os.environ.get("COURSE_SETTING"):
        name = as_setting_or_folder(asked)
    else:  # an Apple GPU alone is no wish to download 600 MB
        name = "photos" if best_device().type == "cuda" else "sample"
    backbone = backbone or os.environ.get("COURSE_BACKBONE")
    weights = weights or os.environ.get("COURSE_WEIGHTS")
    setting = SETTINGS.get(name) or replace(SETTINGS["photos"], name=name)
    setting = replace(setting, precision=choose_precision(best_device(), precision))
    if backbone:
        from .models import BACKBONES, LITE0, expected_images  # here, because models imports this module

        backbone = LITE0 if backbone == f"{LITE0}.in1k" else backbone  # timm's longer name of the same weights
        size = setting.transfer_size if backbone in BACKBONES else expected_images(backbone)["size"]
        size = round(size * ENLARGED.get(backbone, 1))
        usual = SLIM_WEIGHTS.get(backbone, "imagenet") if name == "sample" else "imagenet"
        setting = replace(setting, backbone=backbone, weights=usual, transfer_size=size)
    return replace(setting, weights=weights) if weights else setting


def as_setting_or_folder(text: str) -> str:
    """The name of a setting, in any case, or the path of a folder that exists; BadArgument for all else."""
    name = os.path.expanduser(text.strip().strip("'\""))  # as text: Path would make "photos" of "./photos"
    folder = Path(name)
    if name in SETTINGS and folder.is_dir() and not folder.resolve().is_relative_to(SAMPLE):
        advice = f"Write ./{name} for the folder, or rename it to use the setting."
        raise BadArgument(f"{name!r} is a setting, and there is a folder {folder.resolve()} too. {advice}")
    if name in SETTINGS or (name.lower() in SETTINGS and not folder.is_dir()):
        return name.lower()
    if name and folder.is_dir():
        return name
    if folder.is_file():
        raise BadArgument(f"{name} is a file. Give a folder of images; an archive must be unpacked first.")
    choices = ", ".join(SETTINGS)
    raise BadArgument(f"{name!r} is neither a setting ({choices}) nor a folder: there is no {folder.absolute()}.")


def best_device() -> torch.device:
    """COURSE_DEVICE, such as cpu; without it the CUDA card if there is one, else Apple's GPU (MPS), else the CPU."""
    is_there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    name = os.environ.get("COURSE_DEVICE") or next(name for name in is_there if is_there[name])
    with suppress(RuntimeError):  # of a name that is no device's
        device = torch.device(name)
        if is_there.get(device.type):
            return device
    raise BadArgument(f"COURSE_DEVICE is {name!r}; choose cpu, cuda or mps, whichever this machine has.")


# ------------------------------------------------------------------------- machines and folders


PRECISIONS = ("fast", "float32", "bfloat16", "float16")


def choose_precision(device: torch.device, precision: str = "fast") -> str:
    """The precision that a device computes in: for "fast", COURSE_PRECISION or the fastest that it has units for."""
    if precision == "fast":
        precision = os.environ.get("COURSE_PRECISION") or "fast"
    if precision not in PRECISIONS:
        raise BadArgument(f"Unknown precision {precision!r}. Choose one of: {', '.join(PRECISIONS)}.")
    if precision != "fast":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
    return "bfloat16" if device.type == "cpu" and has_bfloat16_units() else "float32"


@cache
def has_bfloat16_units() -> bool:
    """True if this CPU multiplies bfloat16 in hardware (x86: AVX-512 BF16 or AMX); all others are slower with it."""
    flags = cpu_info("flags").split()
    if hasattr(torch.cpu, "get_capabilities"):  # PyTorch 2.10 and later, on every system
        flags = [name for name, has in torch.cpu.get_capabilities().items() if has]
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def kept(name: str) -> Path:
    """Where "downloads", "features" and "runs" are: in COURSE_CACHE, else in the clone, else in the user's cache."""
    if cache := os.environ.get("COURSE_CACHE"):
        return Path(os.path.expanduser(cache)) / name
    in_clone = COURSE_ROOT if name == "runs" else COURSE_ROOT / "data"
    if IN_CLONE and os.access(in_clone, os.W_OK):
        return in_clone / name
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "transfer-learning-course" / name


DOWNLOADS, FEATURES, RUNS = kept("downloads"), kept("features"), kept("runs")  # runs: of the lessons


def environment() -> dict:
    """Versions and hardware, as every measured number carries them."""
    device = best_device()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": cpu_info("model name") or platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }


def cpu_info(key: str) -> str:
    """What Linux says about the first processor, such as its "model name" or its "flags"; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")


# ------------------------------------------------------------------------------------------ text


def format_table(header: list[str], rows: list[list], *, left: tuple[int, ...] = (0,)) -> str:
    """Header and rows as aligned text: the columns `left` to the left, the others to the right."""
    cells = [[printable(cell) for cell in row] for row in [header, *rows]]
    columns = []
    for i, column in enumerate(zip(*cells, strict=True)):
        align, width = (str.ljust if i in left else str.rjust), max(map(len, column))
        columns.append([align(cell, width) for cell in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def printable(text: object) -> str:
    r"""Text on one line, whatever a file is called: control characters and broken letters as \n, \x1b, \udc80."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def short(path: str) -> str:
    """A path as the reader needs it: inside the course from its root, elsewhere the file's name."""
    if not Path(path).is_absolute():
        return path
    return Path(path).relative_to(COURSE_ROOT).as_posix() if Path(path).is_relative_to(COURSE_ROOT) else Path(path).name


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
