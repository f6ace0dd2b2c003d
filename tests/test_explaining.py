"""Maps of what a network looks at: exact where that is possible, and checked against others where it is not."""

import pytest
import torch
from torch import nn

from helpers import explaining, models
from helpers.settings import SAMPLE, BadArgument

SIDE = 64


@pytest.fixture
def images():
    """Four smooth images: noise of 8 × 8 pixels, enlarged."""
    noise = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return nn.functional.interpolate(noise, size=(SIDE, SIDE), mode="bilinear")


def network(name, images, *, classes=3):
    """A network with a linear head on its maps, standardized on the images as training would."""
    torch.manual_seed(0)
    if name == "small_cnn":
        return models.SmallCNN(classes).eval()
    weights = SAMPLE / "vgg16_slim.safetensors" if name == "vgg16" else "random"
    model = models.replace_head(models.load_backbone(name, weights), classes).eval()
    base, head = models.split_model(model)
    with torch.no_grad():
        features = base(images).double()
    head[0].learn(features.mean(0), features.var(0, correction=0))
    return models.freeze_base_layers(model)


# ----------------------------------------------------------------------------- the exact map


@pytest.mark.parametrize("name", ["vgg16", "squeezenet1_1", "resnet18", "small_cnn"])
def test_the_exact_map_and_the_bias_add_up_to_the_logits(name, images):
    model = network(name, images)
    maps, (_, _, bias) = explaining.exact_map(model, images), explaining.linear_parts(model)
    with torch.no_grad():
        logits = model(images)
    assert maps.dtype == torch.float32
    assert maps.shape[:2] == (4, 3)
    assert maps.shape[2] > 1
    torch.testing.assert_close(maps.sum((2, 3)) + bias.float(), logits, rtol=0, atol=1e-5)


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


def test_no_map_is_called_exact_that_is_not(images):
    with pytest.raises(BadArgument, match="not linear on pooled maps"):
        explaining.exact_map(models.VGG16(3, width=1 / 8, image_size=SIDE), images)
