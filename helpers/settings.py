"""The one choice of a lesson (which images, which pretrained network), the device, seeds, versions."""

import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torchvision

COURSE_ROOT = Path(__file__).resolve().parent.parent
SAMPLES = (COURSE_ROOT / "data" / "sample", Path(__file__).resolve().parent / "sample")  # in a clone, in a wheel
SAMPLE = next(filter(Path.is_dir, SAMPLES), SAMPLES[0])
DOWNLOADS = COURSE_ROOT / "data" / "downloads"
RUNS = COURSE_ROOT / "runs"  # where the lessons leave their models for one another


class CourseError(Exception):
    """Something that a user can cause or mend. The message is one line: what is wrong and what to do."""

    def __init__(self, message: str):
        # A loader's worker process reports its error as a whole traceback; the last line is "module.Class: message".
        caught = message.startswith("Caught ")
        super().__init__(message.rstrip().splitlines()[-1].partition(": ")[2] if caught else message)

    def _render_traceback_(self) -> list[str]:
        """What Jupyter shows instead of a traceback: the one line."""
        return [f"{type(self).__name__}: {self}"]


class BadArgument(CourseError, ValueError):
    """A wrong argument, or a file or folder it names that can't be used."""


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

    def __str__(self) -> str:
        return f"setting: {self.name}, backbone: {self.backbone}, weights: {short(self.weights)}"


SETTINGS = {
    "sample": Setting("sample", 64, 96, 14, 5, weights=str(SAMPLE / "vgg16_slim.safetensors")),
    "photos": Setting("photos", 128, 224, 30, 8),
    "photos-full": Setting("photos-full", 128, 224, 15, 3),
}
# SqueezeNet is quick enough for images a little larger than the setting's, and gains by it (results/README.md).
ENLARGED = {"squeezenet1_1": 8 / 7}
SLIM_WEIGHTS = {"vgg16": "vgg16_slim.safetensors", "vgg16_bn": "vgg16_bn_slim.safetensors"}


def choose_setting(name: str | None = None, *, backbone: str | None = None, weights: str | None = None) -> Setting:
    """The setting: `name`, else COURSE_SETTING, else photos on a machine with a GPU and sample on one without.

    `backbone` and `weights` override the setting's pretrained network, else COURSE_BACKBONE and COURSE_WEIGHTS do.
    A name that is none of the three settings is taken as a folder of your own images; BadArgument if it is none.
    """
    name = name or os.environ.get("COURSE_SETTING") or ("photos" if best_device().type != "cpu" else "sample")
    backbone = backbone or os.environ.get("COURSE_BACKBONE")
    weights = weights or os.environ.get("COURSE_WEIGHTS")
    setting = SETTINGS.get(name) or replace(SETTINGS["photos"], name=name)
    if name not in SETTINGS and not Path(name).is_dir():
        raise BadArgument(f"{name!r} is neither a setting ({', '.join(SETTINGS)}) nor a folder that exists.")
    if backbone:
        size = round(setting.transfer_size * ENLARGED.get(backbone, 1))
        setting = replace(setting, backbone=backbone, weights=default_weights(name, backbone), transfer_size=size)
    return replace(setting, weights=weights) if weights else setting


def default_weights(setting_name: str, backbone: str) -> str:
    """The sample starts from the embedded slim networks where there is one, all else from ImageNet weights."""
    if setting_name == "sample" and backbone in SLIM_WEIGHTS:
        return str(SAMPLE / SLIM_WEIGHTS[backbone])
    return "imagenet"


def best_device() -> torch.device:
    """The CUDA card if there is one, else Apple's GPU (MPS), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def environment() -> dict:
    """Versions and hardware, as every measured number carries them."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else best_device().type,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
    }


def cpu_name() -> str:
    """The processor's name, as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def short(path: str) -> str:
    """A path as the reader needs it: inside the course from its root, elsewhere the file's name."""
    if not Path(path).is_absolute():
        return path
    return Path(path).relative_to(COURSE_ROOT).as_posix() if Path(path).is_relative_to(COURSE_ROOT) else Path(path).name


def first_line(error: BaseException) -> str:
    """The first line of an error's text, for a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip().rstrip(".")
