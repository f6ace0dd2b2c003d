"""Convolutions in whole numbers of 8 bits, the fastest that many processors have: for a heavy base that is frozen."""

import copy
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from .models import fingerprint
from .precision import seconds_of

HEAVY = 0.03  # seconds an image in one thread; what a lighter base would gain is not worth the trouble
WORTH = 1.25  # times as fast, at least
ERROR = 0.05  # at most, in relation to the size of the exact features; VGG16's is about 0.03

MEASURED = {}  # what was found for a base and a size of image, so that all images meet the same base


def int8_pays(base: nn.Module, image: Tensor, fast: AbstractContextManager) -> bool:
    """True if a heavy base is clearly faster in 8 bits than within `fast` on this CPU, at nearly the same features.

    Measured with one image (3, height, width) in one thread, in about ten passes; two tell that a base is light.
    """
    key = (fingerprint(base), repr(base), image.shape)
    if key not in MEASURED:
        try:
            MEASURED[key] = int8_is_exact() and measure(base, image[None], fast)
        except Exception:  # whatever goes wrong in 8 bits, there is the usual way
            MEASURED[key] = False
    return MEASURED[key]


@lru_cache
@torch.inference_mode()
def int8_is_exact() -> bool:
    """False where the operator is missing, slow by its nature, or cuts off large sums, as before AVX-512 VNNI."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    layer = nn.utils.skip_init(nn.Conv2d, 64, 64, kernel_size=1, bias=False)  # draws no random numbers
    nn.init.ones_(layer.weight)
    try:
        return bool((Int8Conv2d(layer, relu=False)(torch.ones(1, 64, 8, 8)) == 64).all())
    except Exception:  # the operator is no part of PyTorch's promises: it may fail in any way
        return False


@torch.inference_mode()
def measure(base: nn.Module, image: Tensor, fast: AbstractContextManager) -> bool:
    """As `int8_pays`, for a batch of one image."""
    image = image.to(memory_format=torch.channels_last)
    with one_thread(), fast:
        usual = min(seconds_of(partial(base, image)) for _ in range(2))
        if usual < HEAVY:
            return False
        quantized = quantize(base)
        if seconds_of(partial(quantized, image)) > 3 * usual or not error_of(quantized, base, image) <= ERROR:
            return False  # the error may be NaN
        # In turn, and the shortest time counts: else a moment in which the machine is busy would decide.
        seconds = [[seconds_of(partial(network, image)) for network in (base, quantized)] for _ in range(3)]
    usual, in_8_bits = map(min, zip(*seconds, strict=True))
    return usual > WORTH * in_8_bits


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes in one thread for a while, as it does where each image has a thread of its own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def error_of(network: nn.Module, base: nn.Module, image: Tensor) -> float:
    """How far the network's features are from the base's exact ones, in relation to the size of those."""
    with torch.autocast("cpu", enabled=False):
        exact = base(image)
        return ((network(image) - exact).norm() / exact.norm()).item()


def quantize(base: nn.Module) -> nn.Module:
    """A copy of a base in eval mode whose convolutions compute in 8 bits. It can't be trained.

    This is dynamic quantization after training: each layer's input is rounded to 255 steps of its own range, so there
    is nothing to calibrate. The weights have one scale for each output channel (as in arXiv:1806.08342).
    """
    base = copy.deepcopy(base)
    for parent in list(base.modules()):
        in_order = type(parent).forward is nn.Sequential.forward
        for (name, layer), (after, activation) in pairwise([*parent._modules.items(), ("", None)]):
            if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                continue
            relu = in_order and isinstance(activation, nn.ReLU)
            setattr(parent, name, Int8Conv2d(layer, relu=relu))
            if relu:
                setattr(parent, after, nn.Identity())
    return OneByOne(base)


class OneByOne(nn.Module):
    """A network that meets each image of a batch alone, so that its neighbours don't change an image's features."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.network(image) for image in images.split(1)])


class Int8Conv2d(nn.Module):
    """A convolution, and the ReLU after it if wanted, in whole numbers of 8 bits; float maps in, bfloat16 maps out.

    PyTorch has the product as an operator that its compiler uses, `onednn::qconv_pointwise`.
    """

    def __init__(self, layer: nn.Conv2d, *, relu: bool):
        super().__init__()
        weight = layer.weight.detach()
        self.scale = weight.abs().amax((1, 2, 3)).clamp_min(1e-12) / 127  # (out,): each channel's largest becomes 127
        self.weight = (weight / self.scale[:, None, None, None]).round().to(torch.int8)
        self.zero, self.bias = torch.zeros(len(weight), dtype=torch.int32), layer.bias
        self.geometry = [*map(list, (layer.stride, layer.padding, layer.dilation)), layer.groups]
        self.output = [1.0, 0, torch.bfloat16, "relu" if relu else "none", [], ""]
        self.packed = {}

    def forward(self, maps: Tensor) -> Tensor:
        return self.convolve(*in_steps(maps))

    def convolve(self, steps: Tensor, scale: float, zero: int) -> Tensor:
        """The convolution of maps that are rounded already, as `in_steps` gives them."""
        weight = self.pack(scale, zero, list(steps.shape))
        product = torch.ops.onednn.qconv_pointwise
        return product(steps, scale, zero, weight, self.scale, self.zero, self.bias, *self.geometry, *self.output)

    def pack(self, scale: float, zero: int, shape: list[int]) -> Tensor:
        """The weights in the order that oneDNN wants for maps of this shape; kept, for packing takes longer."""
        if (key := (*shape, zero > 0)) not in self.packed:
            pack = torch.ops.onednn.qconv_prepack
            self.packed[key] = pack(self.weight, self.scale, scale, zero, *self.geometry, shape)
        return self.packed[key]


def in_steps(maps: Tensor) -> tuple[Tensor, float, int]:
    """Maps (n, c, h, w) in 255 steps of their own range: the steps (uint8), the size of one, and which stands for 0."""
    lowest, highest = torch.aminmax(maps.permute(0, 2, 3, 1))  # in the order of memory, which is faster
    lowest, highest = min(lowest.item(), 0), max(highest.item(), 1e-12)
    scale = (highest - lowest) / 255
    zero = round(-lowest / scale)  # it is 0 after a ReLU
    steps = maps.mul(1 / scale).round_().to(torch.int16)  # from floats straight to uint8 is slow
    steps = (steps + zero).clamp_(0, 255) if zero else steps  # the two roundings may add up to one step too many
    return steps.to(torch.uint8), scale, zero
