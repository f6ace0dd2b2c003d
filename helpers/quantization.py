"""Convolutions in whole numbers of 8 bits, the fastest that many processors have: for a heavy trunk that is frozen."""

import copy
import platform
import time
from itertools import pairwise
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

HEAVY = 0.02  # seconds a picture; what a lighter trunk would gain is not worth the trouble
WORTH = 1.25  # times as fast, at least
ERROR = 0.05  # at most, in relation to the size of the exact features (SqueezeNet: 0.09, and 0.6 points of accuracy)

MEASURED = WeakKeyDictionary()  # what was found for a trunk counts as long as it lives: it sees all pictures alike


def int8_pays(trunk: nn.Module, picture: Tensor, fast: torch.autocast) -> bool:
    """True if a heavy trunk is clearly faster in 8 bits than within `fast` on this CPU, at nearly the same features.

    Measured with one picture (3, height, width), once for each trunk, in about six passes.
    """
    if trunk not in MEASURED:
        try:
            MEASURED[trunk] = platform.machine() in ("x86_64", "AMD64") and measure(trunk, picture[None], fast)
        except (AttributeError, RuntimeError, TypeError, ValueError):  # this torch, or this trunk, can't do it
            MEASURED[trunk] = False
    return MEASURED[trunk]


@torch.inference_mode()
def measure(trunk: nn.Module, picture: Tensor, fast: torch.autocast) -> bool:
    """As `int8_pays`, for a batch of one picture."""
    picture = picture.to(memory_format=torch.channels_last)
    with fast:
        if min(seconds_of(trunk, picture) for _ in range(2)) < HEAVY:
            return False
    exact, quantized = trunk(picture), quantize(trunk)
    if not (quantized(picture) - exact).norm() <= ERROR * exact.norm():  # false for NaN too
        return False
    with fast:
        # In turn, and the shortest time counts: else a moment in which the machine is busy would decide.
        seconds = [[seconds_of(network, picture) for network in (trunk, quantized)] for _ in range(3)]
    otherwise, in_8_bits = map(min, zip(*seconds, strict=True))
    return otherwise > WORTH * in_8_bits


def seconds_of(network: nn.Module, picture: Tensor) -> float:
    """How many seconds a forward pass takes."""
    start = time.perf_counter()
    network(picture)
    return time.perf_counter() - start


def quantize(trunk: nn.Module) -> nn.Module:
    """A copy of a trunk in eval mode whose convolutions compute in 8 bits. It can't be trained.

    This is dynamic quantization after training: each layer's input is rounded to 255 steps of its own range, so there
    is nothing to calibrate. The weights have one scale for each output channel (as in arXiv:1806.08342).
    """
    trunk = copy.deepcopy(trunk)
    for parent in list(trunk.modules()):
        children = [*parent.named_children(), ("", None)]
        for (name, layer), (after, activation) in pairwise(children):
            if type(layer) is not nn.Conv2d or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                continue
            relu = isinstance(parent, nn.Sequential) and isinstance(activation, nn.ReLU)
            setattr(parent, name, Int8Conv2d(layer, relu=relu))
            if relu:
                setattr(parent, after, nn.Identity())
    return OneByOne(trunk)


class OneByOne(nn.Module):
    """A network that meets each picture of a batch alone, so that its neighbours don't change a picture's features."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.cat([self.network(picture) for picture in pictures.split(1)])


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
        lowest, highest = torch.aminmax(maps.permute(0, 2, 3, 1))  # in the order of memory, which is faster
        lowest, highest = min(lowest.item(), 0), max(highest.item(), 1e-12)
        scale = (highest - lowest) / 255
        zero = round(-lowest / scale)  # the step that stands for 0; it is 0 after a ReLU
        steps = maps.mul(1 / scale).round_().to(torch.int16)
        steps = (steps + zero if zero else steps).to(torch.uint8)  # from floats straight to uint8 is slow
        weight = self.pack(scale, zero, list(maps.shape))
        product = torch.ops.onednn.qconv_pointwise
        return product(steps, scale, zero, weight, self.scale, self.zero, self.bias, *self.geometry, *self.output)

    def pack(self, scale: float, zero: int, shape: list[int]) -> Tensor:
        """The weights in the order that oneDNN wants for maps of this shape; kept, for packing takes longer."""
        if (key := (*shape, zero > 0)) not in self.packed:
            pack = torch.ops.onednn.qconv_prepack
            self.packed[key] = pack(self.weight, self.scale, scale, zero, *self.geometry, shape)
        return self.packed[key]
