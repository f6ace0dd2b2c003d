"""One choice, made once: where the setting comes from."""

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from helpers import settings
from helpers.settings import BadArgument, CourseError, choose_setting

VARIABLES = ("COURSE_SETTING", "COURSE_BACKBONE", "COURSE_WEIGHTS", "COURSE_ARCHIVES")


@pytest.fixture(autouse=True)
def _no_choices(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(("device", "expected"), [("cpu", "sample"), ("cuda", "photos"), ("mps", "photos")])
def test_the_default_follows_the_device(monkeypatch, device, expected):
    monkeypatch.setattr(settings, "best_device", lambda: torch.device(device))
    assert choose_setting().name == expected


def test_an_argument_beats_the_variable_and_the_variable_the_default(monkeypatch):
    monkeypatch.setenv("COURSE_SETTING", "photos-full")
    assert choose_setting().name == "photos-full"
    assert choose_setting("photos").name == "photos"


def test_backbone_and_weights_can_be_overridden(monkeypatch):
    assert choose_setting("photos").backbone == "vgg16"
    monkeypatch.setenv("COURSE_BACKBONE", "squeezenet1_1")
    monkeypatch.setenv("COURSE_WEIGHTS", "file.safetensors")
    assert (choose_setting("photos").backbone, choose_setting("photos").weights) == (
        "squeezenet1_1",
        "file.safetensors",
    )
    chosen = choose_setting("photos", backbone="resnet18", weights="random")
    assert (chosen.backbone, chosen.weights) == ("resnet18", "random")


def test_squeezenet_sees_larger_images_however_it_is_chosen(monkeypatch):
    assert choose_setting("photos").transfer_size == 224
    assert choose_setting("photos", backbone="resnet18").transfer_size == 224
    assert choose_setting("photos", backbone="squeezenet1_1").transfer_size == 256
    monkeypatch.setenv("COURSE_BACKBONE", "squeezenet1_1")
    assert (choose_setting("photos").transfer_size, choose_setting("photos").scratch_size) == (256, 128)


@pytest.mark.parametrize(
    ("backbone", "weights"),
    [("vgg16", "vgg16_slim.safetensors"), ("vgg16_bn", "vgg16_bn_slim.safetensors"), ("resnet18", "imagenet")],
)
def test_the_sample_starts_from_the_embedded_networks(backbone, weights):
    assert choose_setting("sample", backbone=backbone).weights.endswith(weights)


def test_unknown_settings_list_the_choices():
    with pytest.raises(BadArgument, match="sample, photos, photos-full"):
        choose_setting("photo")


def test_the_setting_prints_without_a_path_of_the_machine():
    text = str(choose_setting("sample"))
    assert text == "setting: sample, backbone: vgg16, weights: data/sample/vgg16_slim.safetensors"
    assert str(choose_setting("sample", weights="/some/where/w.pth")).endswith("weights: w.pth")


def test_the_environment_is_what_results_carry():
    assert set(settings.environment()) == {"python", "torch", "torchvision", "device", "cpu", "threads"}


@pytest.mark.parametrize("error", [CourseError, BadArgument])
def test_a_notebook_shows_the_one_line_and_no_traceback(capsys, error):
    shell = InteractiveShell.instance()
    shell.user_ns["error"] = error
    shell.run_cell("raise error('The cat is missing. Buy one.') from OSError('deep')")
    assert capsys.readouterr().out.strip() == f"{error.__name__}: The cat is missing. Buy one."
