"""Convolutions in 8 bits: PyTorch's own convolution is the oracle; chosen only where they are fast and near enough."""

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from helpers import models, quantization
from helpers.precision import autocast

CPU = torch.device("cpu")
IMAGE = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 4 - 2
in_8_bits_only = pytest.mark.skipif(
    not quantization.int8_is_exact(), reason="this PyTorch has no exact 8-bit convolution on this CPU"
)


def whole_numbers(*shape, low, high, seed=0):
    """Whole numbers as floats, the lowest and the highest among them, so that rounding to 8 bits changes nothing."""
    numbers = torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(seed)).float()
    numbers.view(len(numbers), -1)[:, 0], numbers.view(len(numbers), -1)[:, -1] = low, high
    return numbers


def relative_error(found, expected):
    return ((found.float() - expected).norm() / expected.norm()).item()


@in_8_bits_only
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


@in_8_bits_only
@torch.inference_mode()
def test_maps_of_any_range_and_size_through_the_same_layer():
    layer = nn.Conv2d(16, 16, 3, padding=1)
    in_8_bits = quantization.Int8Conv2d(layer, relu=False)
    for shift, factor, side in [(0, 1, 9), (0, 1000, 9), (-3, 1, 9), (5, 0.01, 12), (-0.5, 1, 12), (0, 1, 9)]:
        maps = torch.rand(1, 16, side, side) * factor + shift
        assert relative_error(in_8_bits(maps), layer(maps)) < 0.02, (shift, factor, side)
    # A range whose ends are rounded away from zero, both: the brightest must not become the darkest.
    maps = torch.linspace(-1, 1, 16 * 81).view(1, 16, 9, 9)
    assert relative_error(in_8_bits(maps), layer(maps)) < 0.02
    with torch.autocast("cpu", torch.bfloat16):
        assert relative_error(in_8_bits(maps.bfloat16()), layer(maps)) < 0.02


@in_8_bits_only
@torch.inference_mode()
def test_nothing_but_zeros_is_no_division_by_zero():
    layer = nn.Conv2d(3, 4, 3)
    nn.init.zeros_(layer.weight[0])
    torch.testing.assert_close(
        quantization.Int8Conv2d(layer, relu=False)(torch.zeros(1, 3, 5, 5)).float(), layer(torch.zeros(1, 3, 5, 5)),
        rtol=2**-8, atol=0,
    )  # fmt: skip


@in_8_bits_only
@torch.inference_mode()
@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "squeezenet1_1", "resnet18"])
def test_a_base_in_8_bits_says_nearly_the_same(name):
    torch.manual_seed(0)
    base, _ = models.split_model(models.replace_head(models.build(name), 2))
    before = copy.deepcopy(base.eval())
    images = torch.stack([IMAGE, IMAGE.flip(-1)]).repeat(1, 1, 3, 3)
    in_8_bits = quantization.quantize(base)
    assert relative_error(in_8_bits(images), before(images)) < 0.1
    assert not torch.equal(in_8_bits(images).float(), before(images))
    torch.testing.assert_close(base(images), before(images), rtol=0, atol=0)  # the base itself is as it was


@in_8_bits_only
@torch.inference_mode()
def test_a_image_is_alone_in_its_range():
    base = quantization.quantize(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval())
    alone = base(IMAGE[None])
    beside = base(torch.stack([100 * IMAGE, IMAGE]))
    assert torch.equal(alone[0], beside[1])


@in_8_bits_only
def test_only_the_relu_that_follows_at_once_is_taken_in():
    base = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), nn.ReLU())
    network = quantization.quantize(base.eval()).network
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


@in_8_bits_only
@torch.inference_mode()
def test_layers_that_are_used_twice_keep_their_place():
    pool = nn.AvgPool2d(2)
    base = nn.Sequential(pool, nn.Conv2d(3, 8, 3), pool, nn.ReLU()).eval()
    images = torch.rand(1, 3, 16, 16) - 0.5
    assert relative_error(quantization.quantize(base)(images), base(images)) < 0.05


# ---- when it pays


class Base(nn.Sequential):
    """Two convolutions that may be quantized."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten())
        self.eval()


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch):
    monkeypatch.setattr(quantization, "MEASURED", {})


def pretend(monkeypatch, *, usual, in_8_bits):
    """So many seconds an image, in this processor's stead."""
    monkeypatch.setattr(
        quantization, "seconds_of", lambda work: in_8_bits if type(work.func) is quantization.OneByOne else usual
    )


@in_8_bits_only
@pytest.mark.parametrize(
    ("usual", "in_8_bits", "pays"), [(0.15, 0.08, True), (0.15, 0.14, False), (0.15, 0.3, False), (0.02, 0.001, False)]
)
def test_a_heavy_base_that_gains_clearly_is_quantized(monkeypatch, usual, in_8_bits, pays):
    pretend(monkeypatch, usual=usual, in_8_bits=in_8_bits)
    assert quantization.int8_pays(Base(), IMAGE, nullcontext()) is pays


@in_8_bits_only
def test_where_8_bits_are_very_slow_one_pass_tells(monkeypatch):
    passes = []

    def seconds(work):
        passes.append(type(work.func).__name__)
        return 100 if passes[-1] == "OneByOne" else 0.15

    monkeypatch.setattr(quantization, "seconds_of", seconds)
    assert not quantization.int8_pays(Base(), IMAGE, nullcontext())
    assert passes == ["Base", "Base", "OneByOne"]


@in_8_bits_only
def test_a_base_that_would_say_something_else_is_not(monkeypatch):
    pretend(monkeypatch, usual=0.15, in_8_bits=0.05)
    base = Base()
    with torch.no_grad():  # one channel a thousand times as loud: the others fall between two steps
        base[0].weight[0] *= 1000
        base[2].weight[:, 0] = 0
    assert not quantization.int8_pays(base, IMAGE, nullcontext())
    monkeypatch.setattr(quantization, "error_of", lambda *_: torch.nan)
    assert not quantization.int8_pays(Base(), IMAGE, nullcontext())


@in_8_bits_only
def test_a_base_without_numbers_is_left_to_the_usual_way(monkeypatch):
    pretend(monkeypatch, usual=0.15, in_8_bits=0.05)
    base = Base()
    with torch.no_grad():
        base[0].weight[0, 0, 0, 0] = torch.nan
    assert not quantization.int8_pays(base, IMAGE, nullcontext())


class Saturating(quantization.Int8Conv2d):
    """As on a processor that adds pairs of products in 16 bits: what is too large is cut off."""

    def forward(self, maps):
        return super().forward(maps) / 2


@pytest.mark.parametrize("lack", ["operator", "processor", "another form", "large sums"])
def test_without_the_means_the_answer_is_no(monkeypatch, lack):
    pretend(monkeypatch, usual=0.15, in_8_bits=0.05)
    monkeypatch.setattr(quantization.platform, "machine", lambda: "aarch64" if lack == "processor" else "x86_64")
    if lack == "operator":
        monkeypatch.setattr(torch.ops, "onednn", object())
    elif lack == "another form":
        monkeypatch.setattr(quantization.Int8Conv2d, "pack", lambda *_: None)
    elif lack == "large sums":
        monkeypatch.setattr(quantization, "Int8Conv2d", Saturating)
    assert quantization.int8_is_exact.__wrapped__() is False
    monkeypatch.setattr(quantization, "int8_is_exact", quantization.int8_is_exact.__wrapped__)
    assert quantization.int8_pays(Base(), IMAGE, nullcontext()) is False


def test_the_same_base_is_measured_once_for_each_size(monkeypatch):
    asked = []
    monkeypatch.setattr(quantization, "int8_is_exact", lambda: True)
    monkeypatch.setattr(quantization, "measure", lambda *_: asked.append(1) or len(asked) == 1)
    same = [quantization.int8_pays(Base(), IMAGE, nullcontext()) for _ in range(3)]
    assert (same, len(asked)) == ([True] * 3, 1)
    assert not quantization.int8_pays(Base(), IMAGE[:, :16], nullcontext())
    other = Base()
    with torch.no_grad():
        other[0].bias += 1
    assert not quantization.int8_pays(other, IMAGE, nullcontext())
    assert len(asked) == 3


@in_8_bits_only
def test_measuring_leaves_base_threads_and_random_numbers_as_they_were(monkeypatch):
    monkeypatch.setattr(quantization, "HEAVY", 0)
    monkeypatch.setattr(quantization.torch, "get_num_threads", lambda: 3)
    asked = []
    monkeypatch.setattr(quantization.torch, "set_num_threads", asked.append)
    base = Base()
    torch.manual_seed(1)
    state, before = torch.get_rng_state(), copy.deepcopy(base.state_dict())
    answer = quantization.measure(base, IMAGE[None].repeat(1, 1, 8, 8), autocast(CPU))  # the real times
    assert isinstance(answer, bool)
    assert torch.equal(torch.get_rng_state(), state)
    assert asked == [1, 3]
    assert all(torch.equal(before[name], value) for name, value in base.state_dict().items())
    assert [type(layer) for layer in base] == [nn.Conv2d, nn.ReLU, nn.Conv2d, nn.Flatten]
