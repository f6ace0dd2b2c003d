"""Convolutions in 8 bits: PyTorch's own convolution is the oracle; chosen only where they are fast and near enough."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from helpers import models, quantization
from helpers.precision import autocast

CPU = torch.device("cpu")
PICTURE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 4 - 2
has_operator = pytest.mark.skipif(
    not hasattr(torch.ops.onednn, "qconv_pointwise"), reason="this PyTorch has no 8-bit convolution for a CPU"
)


def whole_numbers(*shape, low, high, seed=0):
    """Whole numbers as floats, the lowest and the highest among them, so that rounding to 8 bits changes nothing."""
    numbers = torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed)).float()
    numbers.view(len(numbers), -1)[:, 0], numbers.view(len(numbers), -1)[:, -1] = low, high
    return numbers


def relative_error(found, expected):
    return ((found.float() - expected).norm() / expected.norm()).item()


@has_operator
@torch.inference_mode()
@pytest.mark.parametrize("low", [0, -100], ids=["after a ReLU", "with negative numbers"])
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": 1},
        {"stride": 2, "padding": 1},
        {"dilation": 2},
        {"groups": 4, "padding": 1},
        {"bias": False},
        {"kernel_size": (1, 3), "padding": (0, 1)},
    ],
    ids=str,
)
def test_what_8_bits_can_hold_is_computed_exactly(options, relu, low):
    layer = nn.Conv2d(8, 12, **{"kernel_size": 3, **options})
    layer.weight.copy_(whole_numbers(*layer.weight.shape, low=-127, high=127))
    maps = whole_numbers(1, 8, 10, 14, low=low, high=low + 255)
    expected = layer(maps).relu() if relu else layer(maps)
    found = quantization.Int8Conv2d(layer, relu=relu)(maps.to(memory_format=torch.channels_last))
    # bfloat16, in which the result is written, holds 8 bits of each number
    torch.testing.assert_close(found.float(), expected, rtol=2**-8, atol=1e-2)


@has_operator
@torch.inference_mode()
def test_maps_of_any_range_and_size_through_the_same_layer():
    layer = nn.Conv2d(16, 16, 3, padding=1)
    in_8_bits = quantization.Int8Conv2d(layer, relu=False)
    for shift, factor, side in [(0, 1, 9), (0, 1000, 9), (-3, 1, 9), (5, 0.01, 12), (-0.5, 1, 12), (0, 1, 9)]:
        maps = torch.rand(1, 16, side, side) * factor + shift
        assert relative_error(in_8_bits(maps), layer(maps)) < 0.02, (shift, factor, side)


@has_operator
@torch.inference_mode()
def test_nothing_but_zeros_is_no_division_by_zero():
    layer = nn.Conv2d(3, 4, 3)
    nn.init.zeros_(layer.weight[0])
    torch.testing.assert_close(
        quantization.Int8Conv2d(layer, relu=False)(torch.zeros(1, 3, 5, 5)).float(), layer(torch.zeros(1, 3, 5, 5)),
        rtol=2**-8, atol=0,
    )  # fmt: skip


@has_operator
@torch.inference_mode()
@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "squeezenet1_1", "resnet18"])
def test_a_trunk_in_8_bits_says_nearly_the_same(name):
    torch.manual_seed(0)
    trunk, _ = models.split_model(models.replace_head(models.build(name), 2))
    before = copy.deepcopy(trunk.eval())
    pictures = torch.stack([PICTURE, PICTURE.flip(-1)]).repeat(1, 1, 3, 3)
    in_8_bits = quantization.quantize(trunk)
    assert relative_error(in_8_bits(pictures), before(pictures)) < 0.1
    assert not torch.equal(in_8_bits(pictures).float(), before(pictures))
    torch.testing.assert_close(trunk(pictures), before(pictures), rtol=0, atol=0)  # the trunk itself is as it was


@has_operator
@torch.inference_mode()
def test_a_picture_is_alone_in_its_range():
    trunk = quantization.quantize(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval())
    alone = trunk(PICTURE[None])
    beside = trunk(torch.stack([100 * PICTURE, PICTURE]))
    assert torch.equal(alone[0], beside[1])


@has_operator
def test_only_the_relu_that_follows_at_once_is_taken_in():
    trunk = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), nn.ReLU())
    network = quantization.quantize(trunk.eval()).network
    assert [type(layer).__name__ for layer in network] == ["Int8Conv2d", "Identity", "Int8Conv2d", "MaxPool2d", "ReLU"]
    assert [layer.output[3] for layer in network if hasattr(layer, "output")] == ["relu", "none"]


def test_a_convolution_of_another_kind_stays_as_it_is():
    kinds = [
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(3, 4, 3),
    ]
    network = quantization.quantize(nn.Sequential(*kinds)).network
    assert [type(layer) for layer in network] == [type(layer) for layer in kinds]


# ---- when it pays


class Trunk(nn.Sequential):
    """Two convolutions that may be quantized."""

    def __init__(self):
        super().__init__(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten())
        self.eval()


def pretend(monkeypatch, *, exact, in_8_bits):
    """So many seconds a picture, in this processor's stead."""
    monkeypatch.setattr(
        quantization, "seconds_of", lambda network, _: in_8_bits if type(network) is quantization.OneByOne else exact
    )


@has_operator
@pytest.mark.parametrize(
    ("exact", "in_8_bits", "pays"), [(0.15, 0.08, True), (0.15, 0.14, False), (0.15, 0.3, False), (0.01, 0.001, False)]
)
def test_a_heavy_trunk_that_gains_clearly_is_quantized(monkeypatch, exact, in_8_bits, pays):
    pretend(monkeypatch, exact=exact, in_8_bits=in_8_bits)
    monkeypatch.setattr(quantization.platform, "machine", lambda: "x86_64")
    assert quantization.int8_pays(Trunk(), PICTURE, nullcontext()) is pays


@has_operator
def test_a_trunk_that_would_say_something_else_is_not(monkeypatch):
    pretend(monkeypatch, exact=0.15, in_8_bits=0.05)
    trunk = Trunk()
    with torch.no_grad():  # one channel a thousand times as loud: the others fall between two steps
        trunk[0].weight[0] *= 1000
        trunk[2].weight[:, 0] = 0
    assert not quantization.int8_pays(trunk, PICTURE, nullcontext())
    with torch.no_grad():
        other = Trunk()
        other[0].weight[0, 0, 0, 0] = torch.nan
    assert not quantization.int8_pays(other, PICTURE, nullcontext())


@pytest.mark.parametrize("lack", ["operator", "processor", "another form"])
def test_without_the_means_the_answer_is_no(monkeypatch, lack):
    pretend(monkeypatch, exact=0.15, in_8_bits=0.05)
    if lack == "operator":
        monkeypatch.setattr(torch.ops, "onednn", object())
    elif lack == "processor":
        monkeypatch.setattr(quantization.platform, "machine", lambda: "aarch64")
        monkeypatch.setattr(quantization, "measure", None)  # it would be an error to ask
    else:
        monkeypatch.setattr(quantization.Int8Conv2d, "pack", lambda *_: None)
    assert quantization.int8_pays(Trunk(), PICTURE, nullcontext()) is False


def test_a_trunk_is_measured_once_and_then_forgotten_with_it(monkeypatch):
    asked = []
    monkeypatch.setattr(quantization.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(quantization, "measure", lambda *_: asked.append(1) or len(asked) == 1)
    trunk, known = Trunk(), len(quantization.MEASURED)
    assert [quantization.int8_pays(trunk, PICTURE, nullcontext()) for _ in range(3)] == [True] * 3
    assert len(asked) == 1
    del trunk
    assert len(quantization.MEASURED) == known


@has_operator
def test_this_processor_is_measured():
    """Whatever the answer is here, all of it runs: the real times of a real trunk, heavy enough to be asked about."""
    trunk = nn.Sequential(*(nn.Conv2d(3 if i == 0 else 64, 64, 3, padding=1) for i in range(12))).eval()
    assert quantization.int8_pays(trunk, PICTURE.repeat(1, 8, 8), autocast(CPU)) in (True, False)
