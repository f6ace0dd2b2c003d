"""Maps of what a network looks at: exact where that is possible, and checked against others where it is not."""

import copy

import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from small import alone, draw_classes, untrained_run
from torch import nn

from helpers import __main__ as command_line
from helpers import explaining, models
from helpers.evaluating import Strangeness
from helpers.plots import overlay
from helpers.runs import Run, read_run
from helpers.settings import SAMPLE, BadArgument
from helpers.training import History, placed

SIDE = 64
NETWORKS = ["vgg16", "squeezenet1_1", "resnet18", "small_cnn", "averages alone"]


@pytest.fixture
def images():
    """Four smooth images: noise of 8 × 8 pixels, enlarged."""
    noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(noise, size=(SIDE, SIDE), mode="bilinear")


def network(name, images, *, classes=3):
    """A network with a linear head on its maps, frozen below it, standardized on the images as training would."""
    torch.manual_seed(0)
    if name == "small_cnn":
        return models.SmallCNN(classes)
    if name == "averages alone":
        return models.build("resnet18", num_classes=classes)
    weights = SAMPLE / "vgg16_slim.safetensors" if name == "vgg16" else "random"
    model = models.replace_head(models.load_backbone(name, weights), classes).eval()
    base, head = models.split_model(model)
    with torch.no_grad():
        features = base(images).double()
    head[0].learn(features.mean(0), features.var(0, correction=0))
    return models.freeze_base_layers(model).train()


def logits_of(model, images):
    """In the memory layout in which the package asks: in another, a base rounds so that logits move by some 1e-5."""
    with torch.no_grad(), placed(model) as device:
        return model.eval()(images.to(device)).to(images.device)


# ---------------------------------------------------------------------------------- the exact map


@pytest.mark.parametrize("name", NETWORKS)
def test_the_exact_map_and_the_bias_add_up_to_the_logits(name, images):
    model = network(name, images)
    maps, (_, _, bias) = explaining.exact_map(model, images), explaining.linear_parts(model)
    assert maps.dtype == torch.float32
    assert maps.shape[:2] == (4, 3)
    assert maps.shape[2] > 1
    torch.testing.assert_close(maps.sum((2, 3)) + bias.float(), logits_of(model, images), rtol=0, atol=1e-5)


def test_an_average_belongs_to_all_places_and_a_maximum_to_its_own_which_ties_share():
    features = torch.tensor([[[[1.0, 3.0], [0.0, 0.0]], [[2.0, 0.0], [0.0, 2.0]]]])
    average, maximum = torch.tensor([[4.0, 8.0]]), torch.tensor([[10.0, 100.0]])
    maps = explaining.logit_maps(features, average, maximum)
    # By hand: a quarter of each value times its weight; 3 · 10 at the second place; 2 · 100 shared by two.
    assert maps.tolist() == [[[[1 + 4 + 100, 3 + 30], [0, 4 + 100]]]]


def test_the_map_from_stored_feature_maps_is_the_map_from_the_image(images):
    model = network("vgg16", images)
    average, maximum, _ = explaining.linear_parts(model)
    with torch.no_grad():
        stored = model.features(images)
    torch.testing.assert_close(explaining.logit_maps(stored, average, maximum), explaining.exact_map(model, images))


@pytest.mark.parametrize("name", ["vgg16", "resnet18", "two layers"])
def test_no_map_is_called_exact_that_is_not(name, images):
    model = models.VGG16(3, width=1 / 8, image_size=SIDE) if name == "vgg16" else models.build("resnet18")
    if name == "two layers":
        model.fc = nn.Sequential(nn.Linear(512, 8), nn.ReLU(), nn.Linear(8, 3))
    if name == "resnet18":
        model.avgpool = nn.AdaptiveAvgPool2d(2)
    with pytest.raises(explaining.NotLinear, match="no map is exact"):
        explaining.exact_map(model, images)


def test_a_network_without_feature_maps_is_refused(images):
    with pytest.raises(BadArgument, match="pools no feature maps"):
        explaining.evidence(transformer(), images, torch.zeros(4, dtype=torch.long))


def transformer():
    return torchvision.models.VisionTransformer(SIDE, 32, 1, 1, hidden_dim=8, mlp_dim=8, num_classes=2)


def test_evidence_leaves_out_what_speaks_for_all_classes_alike(images):
    model = network("vgg16", images)
    classes = torch.tensor([0, 1, 2, 0])
    total = explaining.evidence(model, images, classes).sum((1, 2))
    logits = logits_of(model, images) - explaining.linear_parts(model)[2].float()
    above = (logits - logits.mean(1, keepdim=True))[range(4), classes]
    torch.testing.assert_close(total, above, rtol=0, atol=1e-4)


# --------------------------------------------------------------------------------------- Grad-CAM


def with_own_classifier():
    """The slim VGG16 with the classifier that it was pretrained with: three linear layers, ReLUs in place."""
    return models.load_backbone("vgg16", SAMPLE / "vgg16_slim.safetensors")


def fine_tuned(images):
    """The slim VGG16 with a linear head, all of which has learned for two steps."""
    model = models.unfreeze(network("vgg16", images), 5)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    return model


def test_the_weights_of_grad_cam_are_what_a_small_change_of_each_map_does(images):
    model, images = with_own_classifier().double().eval(), images.double()
    classes = torch.tensor([3, 0, 36, 20])
    found = explaining.grad_cam(model, images, classes)
    with torch.no_grad():
        maps = model.features(images)
        change = 1e-6 * torch.eye(64, dtype=torch.double)[:, None, :, None, None] / maps[0, 0].numel()
        ask = lambda maps: model.classifier(model.avgpool(maps).flatten(1)).gather(1, classes[:, None])  # noqa: E731
        slopes = torch.cat([(ask(maps + one) - ask(maps - one)) / 2e-6 for one in change], dim=1)
    torch.testing.assert_close(found, (slopes[:, :, None, None] * maps).sum(1).clamp_min(0), rtol=1e-5, atol=1e-6)


def test_where_there_is_only_average_pooling_grad_cam_is_the_exact_map_above_zero(images):
    model = network("averages alone", images)
    classes = torch.tensor([0, 1, 2, 0])
    exact = explaining.exact_map(model, images)[range(4), classes]
    torch.testing.assert_close(explaining.grad_cam(model, images, classes), exact.clamp_min(0))


VGG16S = ["own classifier", "linear head", "fine-tuned"]
LAYERS = [(kind, layer) for kind in VGG16S for layer in (None, "features.29", "features.22")]


@pytest.mark.parametrize(("kind", "layer"), [*LAYERS, ("resnet18", None), ("squeezenet1_1", None)])
def test_grad_cam_is_torchcams(kind, layer, images):
    torchcam = pytest.importorskip("torchcam.methods", reason="TorchCAM is not installed: pip install torchcam")
    makers = {"own classifier": with_own_classifier, "fine-tuned": lambda: fine_tuned(images)}
    model = makers.get(kind, lambda: network("vgg16" if kind == "linear head" else kind, images))()
    theirs = copy.deepcopy(model).requires_grad_(True).eval()  # TorchCAM needs gradients in the base; ours must not
    name = layer or ("layer4" if kind == "resnet18" else "features")
    with torchcam.GradCAM(theirs, name) as extract:
        scores = theirs(images)
        classes = scores.argmax(1)
        (expected,) = extract(classes.tolist(), scores, normalized=False)
    models.freeze_base_layers(model)
    found = explaining.grad_cam(model, images, classes, layer=model.get_submodule(layer) if layer else None)
    assert expected.max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_relu_in_place_behind_the_layer_writes_over_nothing(images):
    model, classes = with_own_classifier(), torch.tensor([3, 0, 36, 20])
    careful = copy.deepcopy(model)
    for layer in careful.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    found = explaining.grad_cam(model, images, classes, layer=model.features[28])
    assert found.max() > 0
    torch.testing.assert_close(found, explaining.grad_cam(careful, images, classes, layer=careful.features[28]))


def test_images_made_in_inference_mode_may_be_explained_by_a_network_that_learns(images):
    model, classes = fine_tuned(images), torch.tensor([0, 1, 2, 0])
    with torch.inference_mode():
        made = images.clone()
    torch.testing.assert_close(explaining.grad_cam(model, made, classes), explaining.grad_cam(model, images, classes))


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("explain", [explaining.evidence, explaining.grad_cam])
def test_the_model_is_left_as_it_was(explain, around, images):
    model = network("vgg16", images)
    grown = [p for p in model.parameters() if p.requires_grad]
    for parameter in grown:
        parameter.grad = torch.ones_like(parameter)
    before, hooks = models.fingerprint(model), [len(m._forward_pre_hooks) for m in model.modules()]
    modes, chance = [m.training for m in model.modules()], torch.get_rng_state()
    with around():
        found = explain(model, images.clone(), torch.tensor([0, 1, 2, 0]))
    assert not found.requires_grad
    assert models.fingerprint(model) == before
    assert [m.training for m in model.modules()] == modes
    assert [len(m._forward_pre_hooks) for m in model.modules()] == hooks
    assert [p for p in model.parameters() if p.requires_grad] == grown
    assert all((parameter.grad == 1).all() for parameter in grown)
    assert torch.equal(torch.get_rng_state(), chance)


# ---------------------------------------------------------------------------------- maps on trial


class Corner(nn.Module):
    """Sees one thing: how bright the upper left quarter is."""

    def forward(self, images):
        bright = images[:, :, : SIDE // 2, : SIDE // 2].mean((1, 2, 3))
        return torch.stack([10 * bright, torch.zeros_like(bright)], dim=1)


@pytest.fixture
def bright_corners():
    images = torch.zeros(2, 3, SIDE, SIDE)
    images[:, :, : SIDE // 2, : SIDE // 2] = 1
    return images


@pytest.mark.parametrize(("fill", "left"), [("mean colour", 0.25), ("blurred", None), ("shuffled", 0.25)])
def test_what_counts_is_deleted_first_or_inserted_first(fill, left, bright_corners):
    right = torch.tensor([[[3.0, 2.0], [1.0, 0.0]]] * 2)
    classes = torch.tensor([0, 0])
    full, empty = torch.sigmoid(torch.tensor([10.0, 0.0])).tolist()
    curve = explaining.trial(Corner(), bright_corners, right, classes, fill=fill, steps=4)
    assert curve.shape == (2, 5)
    assert curve[0, 0].item() == pytest.approx(full)
    if left:  # a quarter of the pixels was white, so the corner is then as bright as that
        expected = torch.sigmoid(torch.tensor(10 * left)).item()
        assert curve[0, 1:].tolist() == pytest.approx([expected] * 4, abs=0.02)
        inserted = explaining.trial(Corner(), bright_corners, right, classes, fill=fill, insert=True, steps=4)
        assert inserted[0].tolist() == pytest.approx([expected, *[full] * 4], abs=0.02)
        wrong = explaining.trial(Corner(), bright_corners, -right, classes, fill=fill, steps=4)
        assert wrong[0].tolist() == pytest.approx([*[full] * 4, expected], abs=0.02)
    assert empty == 0.5


def test_each_image_is_asked_about_its_own_class_and_deleted_by_its_own_map(bright_corners):
    maps = torch.tensor([[[3.0, 2.0], [1.0, 0.0]], [[0.0, 1.0], [2.0, 3.0]]])
    first, second = explaining.trial(Corner(), bright_corners, maps, torch.tensor([0, 1]), fill="mean colour", steps=4)
    assert first[1] < 0.95 < first[0]
    assert second[3] < 0.01  # of the second image the corner goes last
    assert second[4] > 0.05


def test_the_fills_are_what_they_are_called(images):
    flat, soft, mixed = (explaining.FILLS[name](images) for name in ("mean colour", "blurred", "shuffled"))
    torch.testing.assert_close(flat.expand_as(images).mean((2, 3)), images.mean((2, 3)))
    assert flat.expand_as(images).std((2, 3)).max() < 1e-6
    torch.testing.assert_close(mixed.flatten(2).sort().values, images.flatten(2).sort().values)
    assert not torch.equal(mixed, images)
    torch.testing.assert_close(soft.mean((2, 3)), images.mean((2, 3)), atol=0.05, rtol=0)
    assert soft.diff(dim=-1).abs().max() < 0.2 * images.diff(dim=-1).abs().max()


def test_the_overlay_is_orange_for_blue_against_and_grey_elsewhere():
    places = torch.tensor([[2.0, -1.0], [0.0, 0.0]])
    shown = overlay(Image.new("RGB", (20, 20), (200, 100, 100)), places)
    for_it, against, neither = shown.getpixel((5, 5)), shown.getpixel((15, 5)), shown.getpixel((5, 15))
    assert for_it[0] > 1.5 * for_it[2]
    assert against[2] > 1.2 * against[0]
    assert neither == (130, 130, 130)  # the grey of that red: 0.299 · 200 + 0.701 · 100


# ------------------------------------------------------------------------------------ the command


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two folders of small images."""
    alone(monkeypatch, tmp_path / "features")
    monkeypatch.chdir(tmp_path)
    return draw_classes(tmp_path / "images", names=("ants", "bees"), count=2)


@pytest.fixture
def a_run(tmp_path):
    """The folder of a run that knows ants from bees, untrained."""
    return untrained_run(tmp_path / "run")


def explain(*arguments):
    return command_line.main(["explain", *map(str, arguments)])


def test_a_figure_is_written_for_each_image_and_said(files, a_run, tmp_path, capsys):
    out = tmp_path / "out" / "deep"
    assert explain(a_run, files, "--out", out) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert command_line.main(["predict", str(a_run), str(files)]) == 0
    named = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines] == named
    written = [out / f"{stem}_explained{again}.png" for again in ("", "_2") for stem in (0, 1)]
    assert [line[3] for line in lines] == [str(file) for file in written]
    assert sorted(out.iterdir()) == sorted(written)
    with Image.open(written[0]) as figure:
        assert figure.width > 2 * 200


def test_an_image_unlike_all_others_is_refused_as_by_predict(files, a_run, tmp_path, capsys, monkeypatch):
    run = read_run(a_run)
    run.strangeness = Strangeness(torch.zeros(1, 512), torch.ones(512), torch.tensor(0.5))  # all score 1
    monkeypatch.setattr(command_line, "read_run", lambda folder: run)
    assert explain(a_run, files, "--out", tmp_path / "out") == 0
    assert capsys.readouterr().out.count("\tnone of these (nearest: ") == 4


def test_an_image_is_never_written_over(files, a_run):
    before = {path: path.read_bytes() for path in files.rglob("*.png")}
    assert explain(a_run, files / "ants", "--out", files / "ants") == 0
    assert all(path.read_bytes() == content for path, content in before.items())


def test_what_cannot_be_read_is_named_and_the_others_are_explained(files, a_run, tmp_path, capsys):
    (files / "ants" / "0.png").write_text("no image")
    assert explain(a_run, files / "ants", tmp_path / "missing.png", "--out", tmp_path / "out") == 1
    told = capsys.readouterr()
    assert len(told.err.splitlines()) == 2
    assert told.err.count("error: ") == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1_explained.png"]


def refused(capsys, *arguments):
    """The one line of a command that must fail."""
    assert explain(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_file_in_the_place_of_the_folder_is_one_line(files, a_run, tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.write_text("mine")
    assert str(taken) in refused(capsys, a_run, files, "--out", taken)
    assert taken.read_text() == "mine"
    assert "--out" in refused(capsys, a_run, files)


def test_a_network_without_feature_maps_and_an_older_run_are_one_line(files, a_run, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    (tmp_path / "old").mkdir()
    save_file({"x": torch.zeros(1)}, tmp_path / "old" / "model.safetensors", {"run": "{}"})
    assert "this version of the course" in refused(capsys, tmp_path / "old", files, "--out", out)
    run = Run(transformer(), {"image_size": SIDE}, History(), summary={"epochs": 0})
    monkeypatch.setattr(command_line, "read_run", lambda folder: run)
    assert "pools no feature maps" in refused(capsys, a_run, files, "--out", out)
    assert not out.exists()
