"""VGG16 in Keras, against keras.applications, torchvision and Keras's own `evaluate`."""

import ast
import os
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

os.environ["KERAS_BACKEND"] = "torch"  # Keras reads it when it is imported
keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras")

from helpers import keras_vgg, models  # noqa: E402
from helpers.settings import SAMPLE, BadArgument, choose_setting  # noqa: E402


def with_random_biases(model):
    """VGG's biases start at zero, and a test on zeros would not see one that was lost."""
    with torch.no_grad():
        for layer in model.modules():
            if getattr(layer, "bias", None) is not None:
                layer.bias.normal_(0, 0.1)
    return model.eval()


def in_torch(network, images):
    """What a PyTorch network makes of images."""
    with torch.inference_mode():
        return network(images)


def in_keras(model, images):
    """What a Keras model makes of images in PyTorch's layout."""
    return torch.from_numpy(model.predict(images.permute(0, 2, 3, 1).numpy(), verbose=0))


def assert_same_features(torch_vgg16, keras_base, size):
    torch.manual_seed(1)
    images = torch.randn(3, 3, size, size)
    expected = in_torch(torch_vgg16.features, images).permute(0, 2, 3, 1)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(in_keras(keras_base, images), expected, rtol=1e-4, atol=1e-4)


def theirs(*, width=1 / 8, **options):
    """keras.applications.VGG16 with random weights, all its layers but the last `width` times as wide."""

    def narrower(layer):
        config = layer.get_config()
        for size in {"filters", "units"} & set(config) if layer.name != "predictions" else ():
            config[size] = round(config[size] * width)
        return type(layer).from_config(config)

    with keras.device("meta"):  # at full width without numbers, which takes no time
        full = keras.applications.VGG16(weights=None, **options)
    return keras.models.clone_model(full, clone_function=narrower)


# ---- the network


def test_at_full_width_it_is_keras_applications_vgg16():
    with keras.device("meta"):
        expected = keras.applications.VGG16(include_top=False, weights=None, input_shape=(64, 64, 3))
        ours = keras_vgg.vgg16_base((64, 64, 3))
    assert ours.count_params() == expected.count_params() == 14_714_688
    assert [layer.get_config() for layer in ours.layers[1:]] == [layer.get_config() for layer in expected.layers[1:]]
    assert [weight.shape for weight in ours.weights] == [weight.shape for weight in expected.weights]


def test_a_slim_base_gives_what_the_network_of_keras_gives_at_that_width():
    expected = theirs(include_top=False, input_shape=(64, 64, 3))
    ours = keras_vgg.vgg16_base((64, 64, 3), width=1 / 8)
    ours.set_weights(expected.get_weights())
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(in_keras(ours, images), in_keras(expected, images))


def test_the_slim_base_is_as_large_as_ours_in_pytorch():
    base = keras_vgg.vgg16_base((96, 96, 3), width=1 / 8)
    assert base.output_shape == (None, 3, 3, 64)
    assert base.count_params() == models.count_parameters(models.VGG16(width=1 / 8).features)


# ---- the weights


def test_the_samples_weights_give_the_same_features_in_both_frameworks():
    ours = models.load_backbone("vgg16", SAMPLE / "vgg16_slim.safetensors").eval()
    base = keras_vgg.vgg16_base((96, 96, 3), width=1 / 8)
    assert keras_vgg.carry_weights(ours, base) is base
    assert_same_features(ours, base, 96)


def torchvisions_vgg16():
    """torchvision's class and layers, an eighth as wide."""
    with torch.device("meta"):
        vgg16 = torchvision.models.VGG(nn.Identity(), num_classes=2, init_weights=False)
    channels = [item if item == "M" else item // 8 for item in torchvision.models.vgg.cfgs["D"]]
    vgg16.features = torchvision.models.vgg.make_layers(channels)
    vgg16.classifier = nn.Sequential(nn.Linear(64 * 7 * 7, 8), nn.ReLU(), nn.Linear(8, 2))
    return vgg16


@pytest.mark.parametrize(
    "build", [lambda: models.VGG16(2, width=1 / 8), torchvisions_vgg16], ids=["ours", "torchvision"]
)
def test_weights_carry_over_into_keras_applications(build):
    torch.manual_seed(0)
    vgg16 = with_random_biases(build())
    base = theirs(include_top=False, input_shape=(64, 64, 3))
    assert_same_features(vgg16, keras_vgg.carry_weights(vgg16, base), 64)


def test_the_three_linear_layers_carry_over_too():
    """At 64 px the last maps are 2×2, so rows of fc1 in the wrong order would show."""
    torch.manual_seed(0)
    ours = with_random_biases(models.VGG16(5, width=1 / 8, image_size=64))
    whole = theirs(include_top=True, input_shape=(64, 64, 3), classes=5, classifier_activation=None)
    images = torch.randn(3, 3, 64, 64)
    expected = in_torch(ours, images)
    assert expected.std() > 0.05
    torch.testing.assert_close(in_keras(keras_vgg.carry_weights(ours, whole), images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 1 / 4}, r"block1_conv1 .*\(3, 3, 3, 8\).*\(3, 3, 3, 16\).*same width"),
        ({"width": 1 / 8, "batch_norm": True}, "no batch normalisation"),
    ],
)
def test_another_network_is_refused_and_nothing_is_copied(options, message):
    base = keras_vgg.vgg16_base((32, 32, 3), width=1 / 8)
    before = models.fingerprint(base)
    with pytest.raises(BadArgument, match=message):
        keras_vgg.carry_weights(models.VGG16(image_size=32, **options), base)
    assert models.fingerprint(base) == before


def test_a_difference_in_the_last_layer_is_found_before_the_first_is_copied():
    whole = theirs(include_top=True, input_shape=(32, 32, 3), classes=3)
    before = models.fingerprint(whole)
    with pytest.raises(BadArgument, match=r"predictions .*\(512, 3\).*\(512, 2\)"):
        keras_vgg.carry_weights(models.VGG16(2, width=1 / 8, image_size=32), whole)
    assert models.fingerprint(whole) == before


# ---- what the lesson relies on


def test_pytorchs_tools_work_on_a_keras_model():
    """The fingerprint and the counts of lesson 2 prove the freezing in the Keras lesson too."""
    base = keras_vgg.vgg16_base((32, 32, 3), width=1 / 8)
    base.trainable = False
    model = keras.Sequential([base, keras.layers.Flatten(), keras.layers.Dense(1)])
    counts = models.count_parameters(model), models.count_parameters(model, trainable_only=True)
    assert counts == (model.count_params(), model.count_params() - base.count_params())
    before = models.fingerprint(model)
    bias = base.get_layer("block5_conv3").bias
    bias.assign(bias + 1e-6)
    assert models.fingerprint(model) != before


def small_loader(count=21):
    """Random images in batches of 8, 8 and 5; the bright ones are of the second class."""
    torch.manual_seed(0)
    images = torch.rand(count, 3, 4, 4) + torch.rand(count, 1, 1, 1)
    return DataLoader(TensorDataset(images, (images.mean((1, 2, 3)) > 1).long()), batch_size=8)


@pytest.fixture
def model():
    """A small Keras model with one output, compiled as in the lesson."""
    keras.utils.set_random_seed(0)
    head = [keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential([keras.Input((3, 4, 4)), keras.layers.Permute((2, 3, 1)), *head])
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss="binary_crossentropy", metrics=["accuracy"])
    return model


def test_as_history_puts_two_calls_of_fit_one_after_the_other(model):
    loader = small_loader()
    options = {"validation_data": loader, "shuffle": False, "verbose": 0}
    parts = [model.fit(loader, epochs=epochs, **options) for epochs in (2, 1)]
    history = keras_vgg.as_history(*parts)
    assert ([row["epoch"] for row in history.rows], history.best_epoch) == ([1, 2, 3], 3)
    for ours, theirs in [("train_loss", "loss"), ("train_accuracy", "accuracy")]:
        assert [row[ours] for row in history.rows] == parts[0].history[theirs] + parts[1].history[theirs]
    last = model.evaluate(loader, verbose=0)
    shown = [history.rows[-1][name] for name in ("validation_loss", "validation_accuracy")]
    assert shown == pytest.approx(last)


def test_check_choice_says_what_has_no_twin(monkeypatch):
    monkeypatch.delenv("COURSE_BACKBONE", raising=False)
    monkeypatch.delenv("COURSE_WEIGHTS", raising=False)
    keras_vgg.check_choice(choose_setting("sample"))
    with pytest.raises(BadArgument, match=r"has no squeezenet1_1.*Unset COURSE_BACKBONE"):
        keras_vgg.check_choice(choose_setting("photos", backbone="squeezenet1_1"))


def test_the_rest_of_the_package_does_without_keras():
    """Read from the sources, since a fresh Python that imports it all takes four seconds."""
    imports = {}
    for file in Path(keras_vgg.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imports.setdefault(file.stem, set()).update(part for name in names for part in name.split("."))
    assert len(imports) > 5
    assert [module for module, names in imports.items() if {"keras", "keras_vgg"} & names] == ["keras_vgg"]
