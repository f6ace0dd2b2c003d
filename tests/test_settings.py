"""One choice, made once: where the setting comes from, which precision a machine gets, and how text is printed."""

import importlib.util
import os
import platform
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell

from helpers import settings
from helpers.settings import BadArgument, CourseError, Stopped, choose_precision, choose_setting

COURSE = Path(__file__).resolve().parent.parent
VARIABLES = (
    "COURSE_SETTING", "COURSE_BACKBONE", "COURSE_WEIGHTS", "COURSE_ARCHIVES", "COURSE_PRECISION", "COURSE_CACHE",
    "COURSE_DEVICE", "XDG_CACHE_HOME",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_choices(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def machine(monkeypatch):
    """A function that makes this machine another one."""

    def make(*, cuda=None, mps=False, bfloat16=False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(settings, "has_bfloat16_units", lambda: bfloat16)

    make()
    return make


# ---- which images


@pytest.mark.parametrize(
    ("hardware", "device", "expected"),
    [({}, "cpu", "sample"), ({"cuda": (7, 5)}, "cuda", "photos"), ({"mps": True}, "mps", "sample")],
)
def test_the_default_follows_the_device(machine, hardware, device, expected):
    """A laptop with an Apple GPU does not download 600 MB unasked."""
    machine(**hardware)
    assert settings.best_device().type == device
    assert choose_setting().name == expected


def test_an_argument_beats_the_variable_and_the_variable_the_default(monkeypatch):
    monkeypatch.setenv("COURSE_SETTING", "photos-full")
    assert choose_setting().name == "photos-full"
    assert choose_setting("photos").name == "photos"


@pytest.mark.parametrize("text", ["Sample", "SAMPLE", " sample ", "'sample'", '"Sample"'])
def test_a_setting_is_understood_however_it_is_written(monkeypatch, text):
    assert choose_setting(text) == choose_setting("sample")
    monkeypatch.setenv("COURSE_SETTING", text)
    assert choose_setting() == choose_setting("sample")


@pytest.mark.parametrize("text", ["pets", "./pets", " pets ", "'pets'", '"pets"', "~/pets", "'~/pets'", "PATH"])
def test_a_folder_is_understood_however_it_is_written(tmp_path, monkeypatch, text):
    (tmp_path / "pets").mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    setting = choose_setting(text.replace("PATH", str(tmp_path / "pets")))
    assert Path(setting.name).samefile(tmp_path / "pets")
    assert setting.transfer_size == 224
    assert setting.weights == "imagenet"


@pytest.mark.parametrize("name", ["sample", "photos", "photos-full"])
def test_a_folder_that_is_called_like_a_setting_is_never_taken_for_the_other(tmp_path, name):
    (tmp_path / name).mkdir()
    both = f"'{name}' is a setting, and there is a folder {tmp_path / name} too"
    with pytest.raises(BadArgument, match=re.escape(both)):
        choose_setting(name)
    setting = choose_setting(f"./{name}")  # as the message says
    assert setting.name not in settings.SETTINGS
    assert Path(setting.name).samefile(tmp_path / name)
    assert choose_setting().name in ("sample", "photos")  # who asks for nothing means no folder


def test_the_courses_own_sample_is_not_such_a_folder(monkeypatch):
    monkeypatch.chdir(COURSE / "data")
    assert choose_setting("sample").weights.endswith("vgg16_slim.safetensors")


def test_a_folder_whose_name_differs_in_case_is_the_folder(tmp_path):
    (tmp_path / "Photos").mkdir()
    if (tmp_path / "photos").exists():
        pytest.skip("to this disk both names are one")
    assert choose_setting("Photos").name == "Photos"
    assert choose_setting("photos").name == "photos"


@pytest.mark.parametrize("text", ["photo", "'no such folder'", "''", '"'])
def test_what_is_neither_is_refused_with_the_choices_and_the_path_that_was_tried(tmp_path, text):
    with pytest.raises(BadArgument, match="sample, photos, photos-full") as error:
        choose_setting(text)
    assert f"there is no {tmp_path / text.strip(chr(39) + chr(34))}" in str(error.value)


def test_a_file_is_not_called_missing(tmp_path):
    (tmp_path / "pets.zip").write_bytes(b"")
    with pytest.raises(BadArgument, match=r"pets.zip is a file\. Give a folder.*unpacked"):
        choose_setting("pets.zip")


# ---- which network


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


def test_the_setting_prints_without_a_path_of_the_machine(machine):
    machine(cuda=(8, 6))
    text = str(choose_setting("sample"))
    network = "backbone: vgg16, weights: data/sample/vgg16_slim.safetensors"
    assert text == f"setting: sample, {network}, precision: bfloat16"
    assert "weights: w.pth, " in str(choose_setting("sample", weights="/some/where/w.pth"))


# ---- which precision


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        ({"cuda": (9, 0)}, "bfloat16"), ({"cuda": (8, 0)}, "bfloat16"), ({"cuda": (7, 5)}, "float16"),  # H100, A100, T4
        ({"cuda": (7, 5), "bfloat16": True}, "float16"), ({"mps": True, "bfloat16": True}, "float32"),
        ({"bfloat16": True}, "bfloat16"), ({}, "float32"),
    ],
)  # fmt: skip
def test_the_precision_is_asked_of_the_device(machine, hardware, expected):
    machine(**hardware)
    assert choose_precision(settings.best_device()) == expected
    assert choose_setting().precision == expected
    assert str(choose_setting()).endswith(f"precision: {expected}")


def test_a_precision_that_is_named_beats_the_variable_and_that_the_device(machine, monkeypatch):
    machine(bfloat16=True)
    monkeypatch.setenv("COURSE_PRECISION", "float32")
    assert choose_setting().precision == "float32"
    assert choose_setting(precision="float16").precision == "float16"
    monkeypatch.setenv("COURSE_PRECISION", "fast")
    assert choose_setting().precision == "bfloat16"


@pytest.mark.parametrize("variable", [True, False])
def test_a_precision_that_is_none_is_refused_with_the_choices(monkeypatch, variable):
    options = {} if variable else {"precision": "half"}
    monkeypatch.setenv("COURSE_PRECISION", "half" if variable else "")
    with pytest.raises(BadArgument, match=r"'half'.*fast, float32, bfloat16, float16"):
        choose_setting(**options)


UNITS = [
    ({"avx512_bf16": True, "amx_bf16": False, "cpu_name": "AMD EPYC"}, "fpu sse avx512_bf16 avx512vl", True),
    ({"avx512_bf16": False, "amx_bf16": True}, "fpu amx_bf16 amx_tile", True),
    ({"avx512_bf16": False, "avx512_f": True, "num_sockets": 1}, "fpu sse avx2 avx512f", False),
    ({"neon": True, "architecture": "aarch64"}, "", False),
    ({}, "fpu not_avx512_bf16 avx512_bf16x", False),
]


@pytest.mark.parametrize("newer", [True, False], ids=["torch 2.10", "older torch"])
@pytest.mark.parametrize(("capabilities", "flags", "expected"), UNITS)
def test_bfloat16_units_are_a_capability_of_the_processor(monkeypatch, tmp_path, newer, capabilities, flags, expected):
    """What PyTorch says where it can be asked, else what Linux says; nothing is timed."""
    wrong = "avx512_bf16" if not expected else "sse"
    linux = wrong if newer else flags
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: A: B\nflags\t\t: {linux}\nvmx flags\t: x\n")
    monkeypatch.setattr(settings, "Path", lambda _: tmp_path / "cpuinfo")
    if newer:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    else:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    settings.has_bfloat16_units.cache_clear()
    try:
        assert settings.has_bfloat16_units() is expected
        assert settings.environment()["cpu"] == "A: B"
    finally:
        settings.has_bfloat16_units.cache_clear()


def test_without_linux_the_processor_still_has_a_name(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "Path", lambda _: tmp_path / "missing")
    assert settings.cpu_info("flags") == ""
    assert settings.environment()["cpu"] == (platform.processor() or platform.machine())


def test_the_environment_is_what_results_carry():
    found = settings.environment()
    assert set(found) == {"python", "torch", "torchvision", "device", "cpu", "threads"}
    assert found["torch"] == torch.__version__
    assert found["threads"] == torch.get_num_threads()


# ---- which folders


def test_a_clone_keeps_what_it_makes():
    if not os.access(COURSE, os.W_OK):
        pytest.skip("the course lies on a read-only disk")
    assert settings.kept("downloads") == COURSE / "data" / "downloads"
    assert settings.kept("features") == COURSE / "data" / "features"
    assert settings.kept("runs") == COURSE / "runs"


def test_a_variable_names_another_place(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "mine"))
    assert settings.kept("features") == tmp_path / "mine" / "features"
    monkeypatch.setenv("COURSE_CACHE", "~/mine")
    assert settings.kept("runs") == Path.home() / "mine" / "runs"
    monkeypatch.setenv("COURSE_CACHE", "~$x")  # a name, and nobody's home
    assert settings.kept("runs") == Path("~$x", "runs")


def test_a_course_on_a_read_only_disk_uses_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: not Path(path).is_relative_to(COURSE))
    assert settings.kept("downloads") == Path.home() / ".cache" / "transfer-learning-course" / "downloads"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("downloads", "features", "runs"):
        assert settings.kept(name) == tmp_path / "transfer-learning-course" / name


def test_a_wheel_brings_the_sample_along_and_writes_nothing_beside_itself(monkeypatch, tmp_path):
    """The module as it lies in site-packages: there is no folder data/sample beside the package."""
    package = tmp_path / "site-packages" / "helpers"
    package.mkdir(parents=True)
    shutil.copy(settings.__file__, package)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    spec = importlib.util.spec_from_file_location("installed_settings", package / "settings.py")
    installed = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, installed)
    spec.loader.exec_module(installed)
    assert package / "sample" == installed.SAMPLE
    assert installed.choose_setting("sample").weights == str(package / "sample" / "vgg16_slim.safetensors")
    places = (installed.DOWNLOADS, installed.FEATURES, installed.RUNS)
    assert {place.parent for place in places} == {tmp_path / "cache" / "transfer-learning-course"}


# ---- text


def test_a_table_is_aligned():
    table = settings.format_table(["name", "count", "note"], [["a", 1, "x"], ["long", 1000, "yy"]], left=(0, 2))
    assert table == "name  count  note\na         1  x\nlong   1000  yy"


def test_no_name_breaks_a_table():
    table = settings.format_table(["name", "count"], [["a\nb\r\t", 1], ["\x1b[31mred\x07", 2], ["\u202eevil", 3]])
    assert table.splitlines() == [
        "name             count",
        "a\\nb\\r\\t             1",
        "\\x1b[31mred\\x07      2",
        "\\u202eevil           3",
    ]


@pytest.mark.parametrize("text", ["Häuser", "猫 and 犬", "$x_1$ %s {} 'quoted'", "😀"])
def test_what_can_be_printed_stays_as_it_is(text):
    assert settings.printable(text) == text


def test_letters_of_another_encoding_are_printed_as_numbers():
    assert settings.printable(Path("a\udce4.jpg")) == "a\\udce4.jpg"


def test_a_path_is_as_short_as_the_reader_needs_it(tmp_path):
    assert settings.short("imagenet") == "imagenet"
    assert settings.short("folder/w.pth") == "folder/w.pth"
    assert settings.short(str(tmp_path / "w.pth")) == "w.pth"
    assert settings.short(str(COURSE / "data" / "x.pth")) == "data/x.pth"


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("one.\ntwo"), "one"), (MemoryError(), "MemoryError"), (OSError(2, "No"), "[Errno 2] No")],
)
def test_the_first_line_of_an_error(error, line):
    assert settings.first_line(error) == line


@pytest.mark.parametrize("error", [CourseError, BadArgument])
def test_a_notebook_shows_the_one_line_and_no_traceback(capsys, error):
    shell = InteractiveShell.instance()
    shell.user_ns["error"] = error
    shell.run_cell("raise error('The cat is missing. Buy one.') from OSError('deep')")
    assert capsys.readouterr().out.strip() == f"{error.__name__}: The cat is missing. Buy one."


@pytest.mark.parametrize("error", [CourseError, BadArgument])
def test_an_error_is_one_line_whatever_a_file_is_called(error):
    assert str(error("No file a\nb\x1b[31m\udce4.jpg.")) == "No file a\\nb\\x1b[31m\\udce4.jpg."


def test_a_stop_is_one_line_too(capsys):
    shell = InteractiveShell.instance()
    shell.user_ns["Stopped"] = Stopped
    shell.run_cell("raise Stopped('Kept: the best weights.')")
    assert capsys.readouterr().out.strip() == "Kept: the best weights."


def test_the_error_of_a_worker_process_is_its_last_line():
    text = (
        "Caught CourseError in DataLoader worker process 0.\nTraceback …\nhelpers.data.Unreadable: x: y is damaged.\n"
    )
    assert str(CourseError(text)) == "x: y is damaged."


def test_a_card_that_is_not_used_is_no_reason_for_photographs_and_in_no_result(machine, monkeypatch):
    machine(cuda=(8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "A card")
    assert (choose_setting().name, settings.environment()["device"]) == ("photos", "A card")
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert (choose_setting().name, settings.environment()["device"]) == ("sample", "cpu")


def test_the_device_can_be_chosen(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    monkeypatch.setenv("COURSE_DEVICE", "cpu")
    assert settings.best_device() == torch.device("cpu")
    for name in ("gpu", "cuda", "cpu:x"):  # no device, one that this machine lacks, and a typing error
        monkeypatch.setenv("COURSE_DEVICE", name)
        with pytest.raises(settings.BadArgument, match="choose cpu, cuda or mps"):
            settings.best_device()
