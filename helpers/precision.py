"""How numbers are computed on a device: the fastest precision that is safe there, and the order in memory."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache, partial

import torch
from torch import Tensor, nn

from .settings import BadArgument

PRECISIONS = ("fast", "float32")


def to_device(batch: Tensor, device: torch.device) -> Tensor:
    """A batch on the device; images channels last in memory, the order in which convolutions are fastest."""
    layout = torch.channels_last if batch.dim() == 4 else torch.contiguous_format
    # Only CUDA keeps the source until the copy is done; an Apple GPU would read memory that is free again.
    return batch.to(device, non_blocking=device.type == "cuda", memory_format=layout)


def autocast(device: torch.device, precision: str = "fast") -> AbstractContextManager:
    """The context in which convolutions and matrix products use the chosen precision."""
    if dtype := choose_precision(device, precision):
        return torch.autocast(device.type, dtype=dtype)
    if device.type == "cuda":  # where convolutions would otherwise round their inputs to 10 binary digits (TF32)
        return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    return nullcontext()


def choose_precision(device: torch.device, precision: str) -> torch.dtype | None:
    """ "fast" is the device's fast precision if it has one; "float32" is exact, and so is None, the answer for it."""
    if precision not in PRECISIONS:
        raise BadArgument(f"Unknown precision {precision!r}. Choose one of: {', '.join(PRECISIONS)}.")
    return fast_precision(device) if precision == "fast" else None


def fast_precision(device: torch.device) -> torch.dtype | None:
    """bfloat16 on recent CUDA cards and CPUs that are faster with it, float16 on older cards, else None."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and bfloat16_pays() else None


@lru_cache
@torch.inference_mode()
def bfloat16_pays() -> bool:
    """True if this CPU convolves in bfloat16 at least 1.5 times as fast as in float32 (measured, 0.2 s)."""
    # CPUs with bfloat16 units are two to six times as fast, all others several times slower.
    convolutions = {dtype: convolution(dtype) for dtype in (torch.float32, torch.bfloat16)}
    # In turn, and the shortest time counts: else a moment in which the machine is busy would decide.
    seconds = [[seconds_of(convolve) for convolve in convolutions.values()] for _ in range(8)]
    exact, fast = map(min, zip(*seconds, strict=True))
    return exact > 1.5 * fast


def convolution(dtype: torch.dtype) -> Callable:
    """A convolution as VGG16's third block has it, of one image."""
    layer = nn.utils.skip_init(nn.Conv2d, 256, 256, kernel_size=3, padding=1)  # draws no random numbers
    nn.init.ones_(layer.weight), nn.init.ones_(layer.bias)
    layer.to(dtype=dtype, memory_format=torch.channels_last)
    return partial(layer, torch.ones(1, 256, 56, 56, dtype=dtype).to(memory_format=torch.channels_last))


def seconds_of(work: Callable) -> float:
    """How many seconds the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
