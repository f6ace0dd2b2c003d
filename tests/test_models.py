"""The networks, against torchvision and torch as oracles."""

import copy
import pickle
import random
from contextlib import suppress
from functools import partial

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from helpers import models, runs
from helpers.settings import SAMPLE, BadArgument, CourseError
from helpers.training import History

OURS_AND_THEIRS = [(False, torchvision.models.vgg16), (True, torchvision.models.vgg16_bn)]
THEIRS = {
    "vgg16": torchvision.models.vgg16, "vgg16_bn": torchvision.models.vgg16_bn,
    "squeezenet1_1": torchvision.models.squeezenet1_1, "resnet18": torchvision.models.resnet18,
}  # fmt: skip


def slim(num_classes=3, **options):
    return models.VGG16(num_classes, width=1 / 8, image_size=96, **options)


def small(name, num_classes=3):
    """The backbone of that name, not as wide where it can be slim."""
    if name.startswith("vgg16"):
        return slim(num_classes, batch_norm=name == "vgg16_bn")
    return THEIRS[name](weights=None, num_classes=num_classes)


def show_batch(model):
    """One forward pass in train mode, which would move unfrozen batch-norm statistics."""
    model.train()
    return model(torch.rand(4, 3, 96, 96))


# ---- VGG16


@pytest.mark.parametrize(("batch_norm", "theirs"), OURS_AND_THEIRS)
def test_vgg16_equals_torchvisions_on_the_same_weights(batch_norm, theirs):
    """At full width, on an image small enough to be quick; its 3 × 3 maps are pooled to 7 × 7 by both."""
    torch.manual_seed(0)
    reference = theirs(weights=None, init_weights=False).eval()
    with torch.no_grad():  # batch norm starts as the identity; give it statistics to get wrong
        for name, buffer in reference.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
    state = reference.state_dict()
    ours = models.load_weights(partial(models.VGG16, batch_norm=batch_norm), state, "the published file").eval()
    assert list(ours.state_dict()) == list(state)
    images = torch.rand(1, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), reference(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("batch_norm", "theirs"), OURS_AND_THEIRS)
def test_vgg16_has_torchvisions_number_of_parameters(batch_norm, theirs):
    with torch.device("meta"):
        ours, reference = models.VGG16(batch_norm=batch_norm), theirs(weights=None)
    shapes = [{key: value.shape for key, value in model.state_dict().items()} for model in (ours, reference)]
    assert shapes[0] == shapes[1]
    assert models.count_parameters(ours) == sum(p.numel() for p in reference.parameters())
    assert batch_norm or models.count_parameters(ours) == 138_357_544


def test_vgg16_starts_from_weights_of_torchvisions_spread():
    torch.manual_seed(0)
    for layer in slim().modules():
        if isinstance(layer, nn.Conv2d):  # Kaiming: variance 2 / fan-out
            assert layer.weight.std().item() == pytest.approx((2 / (9 * layer.out_channels)) ** 0.5, rel=0.15)
        elif isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.01, rel=0.1)
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert not layer.bias.any()


def test_the_slim_vgg16_is_an_eighth_as_wide():
    model = slim()
    assert model(torch.rand(2, 3, 96, 96)).shape == (2, 3)
    assert model.features(torch.rand(1, 3, 96, 96)).shape == (1, 64, 3, 3)
    expected = {"width": 1 / 8, "image_size": 96, "num_classes": 3}
    assert models.shape_of_network("vgg16", model.state_dict()) == expected


def test_small_cnn_gives_a_logit_for_each_class_at_any_size():
    for size in (32, 96, 130):
        assert models.SmallCNN(5)(torch.rand(2, 3, size, size)).shape == (2, 5)


# ---- heads


TRAINABLE = {  # with a last layer for 7 classes, and frozen before the classifier
    "vgg16": 25_088 * 4_096 + 4_096 + 4_096 * 4_096 + 4_096 + 4_096 * 7 + 7,
    "vgg16_bn": 25_088 * 4_096 + 4_096 + 4_096 * 4_096 + 4_096 + 4_096 * 7 + 7,
    "squeezenet1_1": 512 * 7 + 7,
    "resnet18": 512 * 7 + 7,
}


@pytest.mark.parametrize("name", models.BACKBONES)
def test_every_backbone_gets_a_new_last_layer(name):
    with torch.device("meta"):
        model = models.freeze_base_layers(models.replace_classifier(models.build(name), 7))
    assert models.count_parameters(model, trainable_only=True) == TRAINABLE[name]
    assert models.replace_classifier(small(name), 7)(torch.rand(2, 3, 96, 96)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "features"), [("vgg16", 512), ("vgg16_bn", 512), ("squeezenet1_1", 512), ("resnet18", 512)]
)
def test_every_backbone_gets_a_linear_head_for_pooled_features(name, features):
    with torch.device("meta"):
        model = models.freeze_base_layers(models.replace_head(models.build(name), 7))
    assert models.count_parameters(model, trainable_only=True) == 2 * features * 7 + 7
    assert models.replace_head(small(name), 7)(torch.rand(2, 3, 96, 96)).shape == (2, 7)


@pytest.mark.parametrize("head", models.HEADS)
@pytest.mark.parametrize("name", models.BACKBONES)
def test_base_and_head_together_are_the_model(name, head):
    torch.manual_seed(0)
    model = models.HEADS[head](small(name), 5).eval()
    base, last = (part.eval() for part in models.split_model(model))
    images = torch.rand(2, 3, 96, 96)
    with torch.inference_mode():
        torch.testing.assert_close(last(base(images)), model(images))
    models.freeze_base_layers(model)
    assert not any(parameter.requires_grad for parameter in base.parameters())
    # The head that is trained is the model's own.
    assert {id(p) for p in last.parameters()} == {id(p) for p in model.parameters() if p.requires_grad}


def test_pooling_takes_the_mean_and_the_maximum_of_each_map():
    maps = torch.randn(3, 5, 7, 6)
    expected = [F.adaptive_avg_pool2d(maps, 1), F.adaptive_max_pool2d(maps, 1)]
    torch.testing.assert_close(models.AverageAndMaxPool()(maps), torch.cat(expected, dim=1).flatten(1))


def test_features_are_standardized_exactly_and_nothing_moves_afterwards():
    """A batch norm would be near mean 0 and deviation 1 after the few batches of a small folder."""
    features = torch.randn(50, 4) * torch.tensor([1.0, 5, 0.1, 0]) + torch.tensor([0.0, 3, -2, 7])
    layer = models.Standardize(4)
    assert torch.equal(layer(features), features)
    layer.learn(features.mean(0), features.var(0, correction=0))
    result = layer.train()(features)
    torch.testing.assert_close(result.mean(0), torch.zeros(4), rtol=0, atol=1e-5)
    torch.testing.assert_close(result[:, :3].std(0, correction=0), torch.ones(3), rtol=0, atol=1e-3)
    assert torch.isfinite(result).all()  # the last feature is constant
    before = models.fingerprint(layer)
    layer(torch.randn(8, 4) + 9)
    assert models.fingerprint(layer) == before
    assert list(layer.state_dict()) == ["mean", "std"]
    assert not list(layer.parameters())


def test_replace_classifier_replaces_index_6_only():
    model = slim()
    before = models.fingerprint(model.features), models.fingerprint(model.classifier[:6])
    models.replace_classifier(model, 2)
    assert model.classifier[6].weight.shape == (2, 512)
    assert (models.fingerprint(model.features), models.fingerprint(model.classifier[:6])) == before


def test_squeezenet_can_say_no_to_a_class():
    """torchvision's last ReLU would leave no negative logit."""
    torch.manual_seed(0)
    model = models.replace_classifier(models.load_backbone("squeezenet1_1", "random"), 50).eval()
    assert (model(torch.rand(2, 3, 64, 64)) < 0).any()


# ---- weights


@pytest.fixture
def drawn(monkeypatch):
    """The sizes of all tensors that are filled at random from here on; on the meta device nothing is filled."""
    sizes = []
    for name in ("kaiming_normal_", "normal_", "kaiming_uniform_", "uniform_", "trunc_normal_"):
        original = getattr(nn.init, name)

        def spy(tensor, *arguments, _original=original, **options):
            if not tensor.is_meta:
                sizes.append(tensor.numel())
            return _original(tensor, *arguments, **options)

        monkeypatch.setattr(nn.init, name, spy)
    return sizes


def saved(state, file):
    """A state dict, or what is around it, in a file."""
    torch.save(state, file) if file.suffix == ".pth" else save_file(state, file)
    return file


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", models.BACKBONES)
def test_weights_files_in_both_formats_load_back_and_nothing_is_drawn_at_random(tmp_path, name, suffix, drawn):
    model = small(name)
    file = saved(model.state_dict(), tmp_path / f"weights.{suffix}")
    drawn.clear()
    before = torch.get_rng_state()
    loaded = models.load_backbone(name, file)
    assert drawn == []
    assert torch.equal(torch.get_rng_state(), before)
    assert models.fingerprint(loaded) == models.fingerprint(model)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert type(loaded) is type(model)
    file.unlink()  # nothing holds the file open
    assert models.fingerprint(loaded) == models.fingerprint(model)


@pytest.mark.parametrize("network", ["small_cnn", "vgg16", "squeezenet1_1"])
def test_a_run_is_loaded_without_drawing_a_network_at_random(tmp_path, network, drawn):
    about = {"network": network, "classes": ["a", "b", "c"], "splits": "x", "seed": 0, "image_size": 96}
    model = models.SmallCNN(3)
    if network != "small_cnn":
        model, about = models.replace_head(small(network), 3), about | {"weights": "w", "head": "linear"}
    history = History([{"epoch": 1, "validation_loss": 1.0, "seconds": 1.0}], best_epoch=1)
    runs.save_run(runs.Run(model, about, history, summary={"epochs": 1}), tmp_path)
    drawn.clear()
    before = torch.get_rng_state()
    loaded, _ = runs.load_model(tmp_path)
    assert drawn == []
    assert torch.equal(torch.get_rng_state(), before)
    assert models.fingerprint(loaded) == models.fingerprint(model)


@pytest.mark.parametrize("name", models.BACKBONES)
def test_a_file_without_the_classifier_is_enough(tmp_path, name):
    model = small(name)
    base = {key: value for key, value in model.state_dict().items() if not key.startswith(("classifier.", "fc."))}
    if name == "vgg16_bn":  # what only old files lack
        base = {key: value for key, value in base.items() if "num_batches" not in key}
    loaded = models.load_backbone(name, saved(base, tmp_path / "features.safetensors"))
    state = loaded.state_dict()
    assert all(torch.equal(state[key], value) for key, value in base.items())
    assert loaded(torch.rand(2, 3, 224, 224)).shape == (2, 1000)


WRAPPED = {
    "DataParallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled": lambda state: {f"_orig_mod.{key}": value for key, value in state.items()},
    "compiled, then DataParallel": lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
    "the other way round": lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
    "Lightning around both": lambda state: {f"model._orig_mod.module.{key}": value for key, value in state.items()},
    "checkpoint": lambda state: {"epoch": 3, "state_dict": state, "optimizer": {}},
    "another checkpoint": lambda state: {"model_state_dict": state, "loss": 0.1},
    "a third": lambda state: {"model": state, "args": {"lr": 0.1}},
    "Lightning": lambda state: {"state_dict": {f"model.{key}": value for key, value in state.items()}, "epoch": 3},
    "checkpoint of DataParallel": lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize(("name", "classes"), [("squeezenet1_1", 1000), ("vgg16", 3), ("resnet18", 5)])
def test_weights_are_found_in_what_others_put_around_them(tmp_path, wrapper, name, classes):
    """Heads of other numbers of classes too; the course replaces the head anyway."""
    model = small(name, classes)
    loaded = models.load_backbone(name, saved(WRAPPED[wrapper](model.state_dict()), tmp_path / "w.pth"))
    assert models.fingerprint(loaded) == models.fingerprint(model)
    assert models.replace_classifier(loaded, 2)(torch.rand(2, 3, 96, 96)).shape == (2, 2)


def test_half_precision_files_load_as_float32(tmp_path):
    model, file = slim(), tmp_path / "half.safetensors"
    save_file({key: value.half() for key, value in model.state_dict().items()}, file)
    loaded = models.load_backbone("vgg16", file)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(loaded.features[0].weight, model.features[0].weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn"])
def test_the_embedded_weights_load_and_give_the_same_answers(name):
    """The plain network is the batch-norm network with its normalisation folded into the convolutions."""
    images = torch.rand(2, 3, 96, 96)
    plain, other = (models.load_backbone(n, SAMPLE / f"{n}_slim.safetensors").eval() for n in ("vgg16", name))
    with torch.inference_mode():
        torch.testing.assert_close(plain(images), other(images), rtol=0.05, atol=0.05)


def test_a_path_with_a_tilde_is_understood(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    saved(slim().state_dict(), tmp_path / "w.pth")
    assert models.load_backbone("vgg16", "~/w.pth").classifier[6].out_features == 3
    for ask in (models.load_backbone, models.pretrained_classes):
        with pytest.raises(BadArgument, match=r"There is no weights file .*~\$x"):  # a name, and nobody's home
            ask("vgg16", "~$x")


@pytest.mark.parametrize(
    ("name", "other", "message"),
    [
        ("vgg16", lambda: THEIRS["resnet18"](), r"features\.0\.weight .needed 64×3×3×3, found nothing"),
        ("vgg16_bn", slim, r"features\.1\.weight .needed 8, found nothing"),
        ("vgg16", lambda: slim(batch_norm=True), "Name the backbone they belong to"),
        ("resnet18", lambda: THEIRS["squeezenet1_1"](), "tensors differ"),
        ("squeezenet1_1", lambda: models.replace_head(THEIRS["squeezenet1_1"](), 2), r"classifier\.1"),
    ],
)
def test_weights_of_another_network_are_named(tmp_path, name, other, message):
    file = saved(other().state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(BadArgument, match=message) as error:
        models.load_backbone(name, file)
    assert "for another network" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_weights_file_is_named(tmp_path, suffix):
    whole, cut = saved(slim().state_dict(), tmp_path / f"whole.{suffix}"), tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(BadArgument, match=r"cut.*damaged"):
        models.load_backbone("vgg16", cut)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_damaged_weights_file_is_one_line_whatever_the_damage(tmp_path, suffix):
    state = {"features.0.weight": torch.rand(8, 3, 3, 3), "features.0.bias": torch.rand(8)}
    content = saved(state, tmp_path / f"whole.{suffix}").read_bytes()
    generator, file = random.Random(0), tmp_path / f"w.{suffix}"
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(generator.choice([1, 3, 30])):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        file.write_bytes(damaged[: generator.choice([None, None, generator.randrange(len(damaged))])])
        with suppress(BadArgument):  # nothing else is allowed to come, and some damage can't be seen
            models.load_backbone("vgg16", file)


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"model": {"lr": 0.1}}, torch.rand(3), "text"])
def test_a_file_without_tensors_by_name_is_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BadArgument, match="holds no state dict"):
        models.load_backbone("vgg16", tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_tensors_of_unusual_shapes_are_no_traceback(tmp_path):
    names = ("features.0.weight", "classifier.0.weight", "classifier.6.weight", "classifier.1.weight", "fc.weight")
    for shape in ((), (0,), (2,), (2, 3, 4)):
        file = saved({name: torch.zeros(shape) for name in names}, tmp_path / "w.pth")
        for name in models.BACKBONES:
            with pytest.raises(BadArgument, match="for another network"):
                models.load_backbone(name, file)


def test_a_weights_file_that_would_run_code_is_refused(tmp_path):
    torch.save({"weight": pytest}, tmp_path / "code.pth", pickle_module=PickleByName)
    with pytest.raises(BadArgument, match="can't be read"):
        models.load_backbone("vgg16", tmp_path / "code.pth")


class PickleByName:
    """Pickles any object as a call of print, as a hostile file would."""

    import pickle as _pickle

    class Pickler(_pickle.Pickler):
        def reducer_override(self, thing):
            return (print, ("code ran",)) if thing is pytest else NotImplemented


def test_wrong_names_list_the_choices_and_missing_files_their_whole_path(tmp_path, monkeypatch):
    with pytest.raises(BadArgument, match="vgg16, vgg16_bn, squeezenet1_1, resnet18"):
        models.load_backbone("nothing like it")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadArgument) as error:
        models.load_backbone("vgg16", "missing.pth")
    assert str(error.value) == f"There is no weights file {tmp_path / 'missing.pth'}."
    (tmp_path / "cut.safetensors").write_bytes(b"garbage")
    for name, reason in {"missing.safetensors": "There is no weights file", "cut.safetensors": "is damaged"}.items():
        with pytest.raises(BadArgument, match=reason):
            models.pretrained_classes("vgg16", name)


PUBLISHED = {
    "vgg16": "vgg16-397923af.pth", "vgg16_bn": "vgg16_bn-6c64b313.pth", "squeezenet1_1": "squeezenet1_1-b8a52dc0.pth",
    "resnet18": "resnet18-f37072fd.pth",
}  # fmt: skip


@pytest.mark.parametrize("name", models.BACKBONES)
def test_the_published_digest_of_the_weights_is_passed_on(tmp_path, monkeypatch, name):
    calls, digits = [], PUBLISHED[name][-12:-4]

    def record(*arguments, **options):
        calls.append((arguments, options))
        return tmp_path / "w.pth"

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(models, "find_archive", lambda *_, **__: None)
    monkeypatch.setattr(models, "fetch", record)
    assert models.imagenet_file(name) == tmp_path / "w.pth"
    url = f"https://download.pytorch.org/models/{PUBLISHED[name]}"
    target = tmp_path / "checkpoints" / PUBLISHED[name]
    assert calls.pop() == ((url, target), {"sha256": digits, "recheck": True})
    monkeypatch.setattr(models, "find_archive", record)
    assert models.imagenet_file(name) == tmp_path / "w.pth"
    assert calls == [((PUBLISHED[name],), {"sha256": digits})]


def test_a_download_that_fails_names_the_way_around_it(monkeypatch):
    def fail(*arguments, **options):
        raise CourseError("No network.")

    monkeypatch.setattr(models, "find_archive", lambda *_, **__: None)
    monkeypatch.setattr(models, "fetch", fail)
    with pytest.raises(
        CourseError, match=r"^No network\. Or name another weights file: --weights FILE or COURSE_WEIGHTS"
    ):
        models.load_backbone("resnet18")


# ---- freeze and unfreeze


@pytest.mark.parametrize("name", ["vgg16_bn", "resnet18"])
def test_frozen_layers_stand_still_through_training(name):
    model = models.replace_classifier(slim(batch_norm=True) if name == "vgg16_bn" else models.build(name), 2)
    models.freeze_base_layers(model)
    frozen = nn.ModuleList(child for n, child in model.named_children() if n not in models.CLASSIFIER_NAMES)
    before, head_before = models.fingerprint(frozen), models.fingerprint(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        show_batch(model).square().sum().backward()
        optimizer.step()
    assert models.fingerprint(frozen) == before
    assert models.fingerprint(model) != head_before


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_the_freeze_survives_a_copy_and_leaves_the_original_alone(copied):
    model = models.freeze_base_layers(slim(batch_norm=True))
    twin = copied(model)
    frozen = models.fingerprint(twin.features)
    show_batch(twin)
    assert models.fingerprint(twin.features) == frozen
    twin = models.unfreeze(copied(model), 5)
    before, twin_before = models.fingerprint(model.features), models.fingerprint(twin.features)
    show_batch(model), show_batch(twin)
    assert models.fingerprint(model.features) == before
    assert models.fingerprint(twin.features) != twin_before


def test_freezing_leaves_no_trace_when_it_is_undone():
    """Not in the weights' names, nor in hooks that run at each forward pass."""
    model, plain = slim(batch_norm=True), slim(batch_norm=True)
    for _ in range(2):  # freezing what is frozen changes nothing
        models.freeze(model.features)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [len(layer._forward_pre_hooks) for layer in model.features] == [1] * len(model.features)
    assert not any(layer.training for layer in model.features.modules())
    models.unfreeze(model, 5)
    assert not any(layer._forward_pre_hooks for layer in model.features)
    assert all(layer.training for layer in model.features)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_frozen_module_is_in_eval_mode_whatever_train_says():
    model = models.freeze_base_layers(slim(batch_norm=True))
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        expected = model.eval().features(images)
        assert torch.equal(model.train().features(images), expected)
    assert model.classifier[2].training  # dropout of the head goes on


@pytest.mark.parametrize("count", range(6))
def test_unfreeze_lets_the_last_blocks_move(count):
    model = models.unfreeze(models.freeze_base_layers(slim(batch_norm=True)), count)
    before = [models.fingerprint(nn.ModuleList(block)) for block in models.blocks(model)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    show_batch(model).square().sum().backward()
    optimizer.step()
    after = [models.fingerprint(nn.ModuleList(block)) for block in models.blocks(model)]
    assert [a != b for a, b in zip(before, after, strict=True)] == [False] * (5 - count) + [True] * count


def test_batch_norm_held_still_does_not_move_while_the_convolutions_learn():
    model = models.freeze_batch_norm(models.unfreeze(models.freeze_base_layers(slim(batch_norm=True)), 5))
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    others = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    before = [[models.fingerprint(layer) for layer in part] for part in (norms, others)]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    show_batch(model.train()).square().sum().backward()
    optimizer.step()
    after = [[models.fingerprint(layer) for layer in part] for part in (norms, others)]
    assert before[0] == after[0]
    assert all(a != b for a, b in zip(before[1], after[1], strict=True))
    models.check_freezing(model)


def test_unfreezing_too_many_blocks_is_refused():
    with pytest.raises(BadArgument, match="5 blocks"):
        models.unfreeze(slim(), 6)


def test_silent_freezing_mistakes_are_caught():
    model = slim(batch_norm=True)
    models.check_freezing(model)
    model.features[0].weight.require_grad = False
    with pytest.raises(BadArgument, match=r"features\.0\.weight\.require_grad .*with an s"):
        models.check_freezing(model)
    model = slim()
    model.classifier[3].requires_grad = True
    with pytest.raises(BadArgument, match=r"classifier\.3\.requires_grad was set on a module.*requires_grad_\(True\)"):
        models.check_freezing(model)
    model = slim(batch_norm=True)
    model.features.requires_grad_(False)
    with pytest.raises(BadArgument, match=r"features\.1 .*statistics would drift"):
        models.check_freezing(model)


# ---- tables and proofs


def test_fingerprint_sees_one_changed_number():
    model = slim(batch_norm=True)
    before = models.fingerprint(model)
    assert models.fingerprint(copy.deepcopy(model)) == before
    model.features[1].running_mean[0] += 1e-6
    assert models.fingerprint(model) != before


def test_parameter_table_says_what_is_frozen():
    """Numbers by hand: 3 · 3 · in · out weights and a bias for each output, and so on."""
    model = models.freeze_base_layers(slim())
    assert models.parameter_table(model).splitlines() == [
        "part        layers  parameters  trainable",
        "block 1          2         808     frozen",
        "block 2          2       3,488     frozen",
        "block 3          3      23,136     frozen",
        "block 4          3      92,352     frozen",
        "block 5          3     110,784     frozen",
        "classifier       3     559,619    559,619",
        "total           16     790,187    559,619",
    ]
    rows = [line.split()[-1] for line in models.parameter_table(models.unfreeze(model, 2)).splitlines()]
    assert rows == ["trainable", "frozen", "frozen", "frozen", "92,352", "110,784", "559,619", "762,755"]


def test_parameter_table_of_a_network_with_stages():
    model = models.freeze_base_layers(models.replace_classifier(THEIRS["resnet18"](), 2))
    assert [line.split()[-1] for line in models.parameter_table(models.unfreeze(model, 1)).splitlines()] == [
        "trainable", "frozen", "frozen", "frozen", "frozen", "8,393,728", "1,026", "8,394,754",
    ]  # fmt: skip


@pytest.mark.parametrize("name", models.BACKBONES)
def test_blocks_hold_all_that_comes_before_the_classifier(name):
    with torch.device("meta"):
        model = models.build(name)
    heads = [child for n, child in model.named_children() if n in models.CLASSIFIER_NAMES]
    layers = [layer for block in models.blocks(model) for layer in block]
    assert models.count_parameters(*layers, *heads) == models.count_parameters(model)
