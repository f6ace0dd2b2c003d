"""What a network costs: every formula against PyTorch's own counters and real runs."""

import weakref

import pytest
import torch
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from helpers import costs, models
from helpers.settings import BadArgument

# Name, network, shape of an image. The last has what VGG16 lacks: a stride, a 5×5 kernel, groups, an odd width.
NETWORKS = [
    ("vgg16", lambda: models.VGG16(), (3, 224, 224)),
    ("vgg16_bn, slim", lambda: models.VGG16(7, batch_norm=True, width=1 / 8, image_size=96), (3, 96, 96)),
    ("vgg16 on larger images", lambda: models.VGG16(width=1 / 8), (3, 300, 260)),
    ("torchvision's vgg19", lambda: torchvision.models.vgg19(weights=None), (3, 224, 224)),
    ("small_cnn", lambda: models.SmallCNN(5), (3, 75, 64)),
    (
        "odd one",
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, kernel_size=5, stride=2, padding=1), nn.MaxPool2d(3, 2), nn.Conv2d(8, 8, 3, groups=4)
        ),
        (3, 50, 41),
    ),
]
EVERY_NETWORK = pytest.mark.parametrize(("build", "shape"), [n[1:] for n in NETWORKS], ids=[n[0] for n in NETWORKS])


def on_meta(build):
    """The network without its numbers: shapes only, no memory."""
    with torch.device("meta"):
        return build()


def slim(**options):
    return models.VGG16(3, width=1 / 8, image_size=64, **options)


# ---- shapes, parameters, multiply-adds


@EVERY_NETWORK
def test_shapes_are_those_of_a_real_forward_pass(build, shape):
    model, seen = on_meta(build), {}
    for name, layer in model.named_modules():
        layer.register_forward_hook(lambda _, inputs, output, name=name: seen.update({name: (inputs[0], output)}))
    model(torch.empty(2, *shape, device="meta"))
    for cost in costs.layer_costs(model, shape):
        inputs, output = seen[cost.name]
        assert cost.input_shape == tuple(inputs.shape[1:]), cost.name
        assert cost.output_shape == tuple(output.shape[1:]), cost.name


@EVERY_NETWORK
def test_multiply_adds_are_half_of_what_torchs_flop_counter_counts(build, shape):
    model = on_meta(build)
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *shape, device="meta"))
    by_layer = counter.get_flop_counts()
    found = costs.layer_costs(model, shape)
    assert 2 * sum(cost.multiply_adds for cost in found) == counter.get_total_flops()
    for cost in found:
        counted = sum(by_layer.get(f"{type(model).__name__}.{cost.name}", {}).values())
        assert 2 * cost.multiply_adds == counted, cost.name


@EVERY_NETWORK
def test_parameters_add_up_to_the_models(build, shape):
    model = on_meta(build)
    assert sum(cost.parameters for cost in costs.layer_costs(model, shape)) == sum(
        p.numel() for p in model.parameters()
    )


def test_vgg16_has_the_published_parameters_and_multiply_adds():
    found = costs.layer_costs(on_meta(models.VGG16))
    assert sum(cost.parameters for cost in found) == 138_357_544
    assert round(sum(cost.multiply_adds for cost in found) / 1e9, 1) == 15.5


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_a_network_whose_layers_form_no_line_is_refused(name):
    with pytest.raises(BadArgument, match="form no line"):
        costs.layer_costs(models.build(name))


def test_a_layer_that_is_not_counted_is_named():
    with pytest.raises(BadArgument, match=r"1 is a Conv1d; only Conv2d, Linear"):
        costs.layer_costs(nn.Sequential(nn.Flatten(), nn.Conv1d(1, 1, 1)), (3, 8, 8))


def test_images_of_the_wrong_size_for_the_linear_layer_are_refused():
    without_average = nn.Sequential(nn.MaxPool2d(2), nn.Linear(12, 2))
    assert costs.layer_costs(without_average, (3, 4, 4))[-1].output_shape == (2,)
    with pytest.raises(BadArgument, match="1 needs 12 inputs, the layer before it gives 27"):
        costs.layer_costs(without_average, (3, 6, 6))


def test_the_cost_table_has_a_row_for_each_layer_with_weights():
    lines = costs.cost_table(costs.layer_costs(on_meta(models.VGG16))).splitlines()
    assert len(lines) == 1 + 16 + 1
    assert lines[2].split() == ["features.2", "64", "×", "224", "×", "224", "36,928", "1,849,688,064"]
    assert lines[-1].split() == ["total", "138,357,544", "15,470,264,320"]


# ---- memory


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_predicted_memory_is_what_a_real_training_step_leaves(batch_norm, optimizer):
    model, images = slim(batch_norm=batch_norm), torch.rand(4, 3, 64, 64)
    predicted = costs.predicted_memory(model, (3, 64, 64), 4, optimizer=optimizer)
    measured = costs.measured_memory(model, images, optimizer=optimizer)
    assert predicted.weights == measured.weights
    assert predicted.gradients == measured.gradients
    assert predicted.optimizer == pytest.approx(measured.optimizer, rel=1e-4)  # AdamW also counts its steps
    assert predicted.activations == pytest.approx(measured.activations, rel=0.002)  # and labels, batch-norm means
    assert predicted.total == sum([predicted.weights, predicted.gradients, predicted.optimizer, predicted.activations])


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("last_blocks", range(6))
def test_what_is_kept_for_the_backward_pass_starts_at_the_first_layer_that_learns(last_blocks, batch_norm):
    model = models.unfreeze(models.freeze_base_layers(slim(batch_norm=batch_norm)), last_blocks)
    kept = 4 * costs.kept_bytes(costs.layer_costs(model, (3, 64, 64)))
    measured = costs.measured_memory(model, torch.rand(4, 3, 64, 64)).activations
    assert kept == pytest.approx(measured, rel=0.02)  # batch norm also keeps a mean and a deviation for each channel


def test_measured_memory_counts_the_tensors_of_a_network_done_by_hand():
    """One linear layer, 3 to 2: weights 6 + 2; autograd keeps the input, the 2 log-probabilities and the label."""
    measured = costs.measured_memory(nn.Linear(3, 2), torch.rand(5, 3), optimizer="sgd")
    assert (measured.weights, measured.gradients, measured.optimizer) == (32, 32, 32)
    assert measured.activations == 4 * 5 * 3 + 4 * 5 * 2 + 8 * 5 + 4  # and one sum of class weights


def test_predicting_needs_no_gradients_and_frees_what_it_has_used():
    model = on_meta(models.VGG16).eval()
    predicted = costs.predicted_memory(model, (3, 224, 224), 2, optimizer=None)
    assert (predicted.gradients, predicted.optimizer) == (0, 0)
    with torch.inference_mode(), LiveBytes() as live:
        model(torch.empty(2, 3, 224, 224, device="meta"))
    images = 2 * 3 * 224 * 224 * 4  # held by the caller all the time
    assert predicted.activations == live.most - images


def test_a_frozen_base_works_in_the_memory_of_its_largest_layer():
    model = models.freeze_base_layers(on_meta(models.VGG16))
    predicted = costs.predicted_memory(model, (3, 224, 224), 1)
    assert predicted.activations == 2 * 64 * 224 * 224 * 4
    assert predicted.gradients == 4 * 123_642_856
    assert predicted.optimizer == 2 * predicted.gradients


class LiveBytes(TorchDispatchMode):
    """Follows the memory of every tensor that an operation makes; `most` is the most there was at once."""

    def __init__(self):
        super().__init__()
        self.now, self.most, self.known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(results):
            storage = tensor.untyped_storage()
            if storage not in self.known:
                self.known.add(storage)
                self.now += storage.nbytes()
                weakref.finalize(storage, self.free, storage.nbytes())
        self.most = max(self.most, self.now)
        return results

    def free(self, size):
        self.now -= size


def test_the_memory_table_has_a_column_for_each_entry():
    memories = {"small": costs.Memory(1_000_000, 2_000_000, 3_000_000, 4_000_000), "none": costs.Memory(0, 0, 0, 0)}
    lines = costs.memory_table(memories).splitlines()
    assert lines[0].split() == ["small", "none"]
    assert lines[4].split() == ["activations", "4.0", "MB", "0.0", "MB"]
    assert lines[-1].split() == ["total", "10.0", "MB", "0.0", "MB"]
