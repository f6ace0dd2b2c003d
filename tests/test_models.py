"""The networks, against torchvision and torch as oracles."""

import copy

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from helpers import models
from helpers.settings import SAMPLE, BadArgument

OURS_AND_THEIRS = [(False, torchvision.models.vgg16), (True, torchvision.models.vgg16_bn)]


def slim(num_classes=3, **options):
    return models.VGG16(num_classes, width=1 / 8, image_size=96, **options)


def show_batch(model):
    """One forward pass in train mode, which would move unfrozen batch-norm statistics."""
    model.train()
    return model(torch.rand(4, 3, 96, 96))


# ---- VGG16


@pytest.mark.parametrize(("batch_norm", "theirs"), OURS_AND_THEIRS)
def test_vgg16_equals_torchvisions_on_the_same_weights(batch_norm, theirs, tmp_path):
    torch.manual_seed(0)
    reference = theirs(weights=None).eval()
    with torch.no_grad():  # batch norm starts as the identity; give it statistics to get wrong
        for name, buffer in reference.named_buffers():
            if "running" in name:
                buffer.uniform_(0.5, 1.5)
    torch.save(reference.state_dict(), tmp_path / "published.pth")
    ours = models.load_backbone("vgg16_bn" if batch_norm else "vgg16", tmp_path / "published.pth").eval()
    assert list(ours.state_dict()) == list(reference.state_dict())
    images = torch.rand(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(ours(images), reference(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("batch_norm", "theirs"), OURS_AND_THEIRS)
def test_vgg16_has_torchvisions_number_of_parameters(batch_norm, theirs):
    with torch.device("meta"):
        ours, reference = models.VGG16(batch_norm=batch_norm), theirs(weights=None)
    assert models.count_parameters(ours) == sum(p.numel() for p in reference.parameters())
    assert batch_norm or models.count_parameters(ours) == 138_357_544


def test_the_slim_vgg16_is_an_eighth_as_wide():
    model = slim()
    assert model(torch.rand(2, 3, 96, 96)).shape == (2, 3)
    assert model.features(torch.rand(1, 3, 96, 96)).shape == (1, 64, 3, 3)
    assert models.vgg16_shape(model.state_dict()) == {"width": 1 / 8, "image_size": 96, "num_classes": 3}


def test_small_cnn_gives_a_logit_for_each_class_at_any_size():
    for size in (32, 96, 130):
        assert models.SmallCNN(5)(torch.rand(2, 3, size, size)).shape == (2, 5)


# ---- weights


@pytest.mark.parametrize("name", models.BACKBONES)
def test_every_backbone_gets_a_new_last_layer(name):
    model = models.replace_classifier(models.load_backbone(name, "random"), 7)
    models.freeze_base_layers(model)
    assert model(torch.rand(2, 3, 224, 224)).shape == (2, 7)
    assert models.count_parameters(model, trainable_only=True) > 0


def test_pooling_takes_the_mean_and_the_maximum_of_each_map():
    maps = torch.randn(3, 5, 7, 6)
    expected = [F.adaptive_avg_pool2d(maps, 1), F.adaptive_max_pool2d(maps, 1)]
    torch.testing.assert_close(models.AverageAndMaxPool()(maps), torch.cat(expected, dim=1).flatten(1))


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


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_files_in_both_formats_load_back(tmp_path, suffix):
    model, file = slim(), tmp_path / f"weights.{suffix}"
    torch.save(model.state_dict(), file) if suffix == "pth" else save_file(model.state_dict(), file)
    assert models.fingerprint(models.load_backbone("vgg16", file)) == models.fingerprint(model)


def test_a_file_of_features_alone_is_enough(tmp_path):
    model, file = torchvision.models.squeezenet1_1(weights=None), tmp_path / "features.safetensors"
    save_file({key: value for key, value in model.state_dict().items() if key.startswith("features.")}, file)
    loaded = models.load_backbone("squeezenet1_1", file)
    assert models.fingerprint(loaded.features) == models.fingerprint(model.features)


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


def test_weights_of_another_network_are_named(tmp_path):
    save_file(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(BadArgument, match=r"for another network.*features\.0\.weight"):
        models.load_backbone("vgg16", tmp_path / "resnet.safetensors")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_weights_file_is_named(tmp_path, suffix):
    whole, cut = tmp_path / f"whole.{suffix}", tmp_path / f"cut.{suffix}"
    state = slim().state_dict()
    torch.save(state, whole) if suffix == "pth" else save_file(state, whole)
    cut.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(BadArgument, match=r"cut.*damaged"):
        models.load_backbone("vgg16", cut)


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


def test_wrong_names_list_the_choices(tmp_path):
    with pytest.raises(BadArgument, match="vgg16, vgg16_bn, squeezenet1_1, resnet18"):
        models.load_backbone("vgg19")
    with pytest.raises(BadArgument, match="no weights file"):
        models.load_backbone("vgg16", tmp_path / "missing.pth")


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


def test_the_freeze_survives_a_copy_and_leaves_the_original_alone():
    model = models.freeze_base_layers(slim(batch_norm=True))
    twin = models.unfreeze(copy.deepcopy(model), 5)
    before, twin_before = models.fingerprint(model.features), models.fingerprint(twin.features)
    show_batch(model), show_batch(twin)
    assert models.fingerprint(model.features) == before
    assert models.fingerprint(twin.features) != twin_before


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
    lines = models.parameter_table(models.freeze_base_layers(slim())).splitlines()
    assert [line.split()[-1] for line in lines[1:6]] == ["frozen"] * 5
    assert lines[1].split() == ["block", "1", "2", "808", "frozen"]
    total = sum(p.numel() for p in slim().parameters())
    assert lines[-1].split()[:3] == ["total", "16", f"{total:,}"]


@pytest.mark.parametrize("name", models.BACKBONES)
def test_blocks_hold_all_that_comes_before_the_classifier(name):
    model = models.build(name)
    heads = [child for n, child in model.named_children() if n in models.CLASSIFIER_NAMES]
    layers = [layer for block in models.blocks(model) for layer in block]
    assert models.count_parameters(*layers, *heads) == models.count_parameters(model)
