"""What a network costs: every number against PyTorch's own counters, real runs and the lesson's formulas."""

import copy
import weakref
from math import prod

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
    ("resnet18, with branches", lambda: torchvision.models.resnet18(weights=None), (3, 96, 96)),
    ("squeezenet1_1, without linear layers", lambda: torchvision.models.squeezenet1_1(weights=None), (3, 96, 96)),
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
    """A VGG16 that makes a training step in no time."""
    return models.VGG16(3, width=1 / 16, image_size=32, **options)


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


def test_a_layer_whose_work_is_unknown_is_named():
    with pytest.raises(BadArgument, match=r"1 is a Conv1d, whose multiply-adds"):
        costs.layer_costs(nn.Sequential(nn.Flatten(2), nn.Conv1d(3, 1, 1)), (3, 8, 8))


def test_images_of_the_wrong_size_for_the_linear_layer_are_refused():
    without_average = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    assert costs.layer_costs(without_average, (3, 4, 4))[-1].output_shape == (2,)
    with pytest.raises(BadArgument, match=r"image of \(3, 6, 6\) doesn't fit this network: .*27"):
        costs.layer_costs(without_average, (3, 6, 6))


def test_a_batch_norm_over_single_numbers_can_be_counted():
    """In training it needs more than one image, as the heads that standardize features do."""
    head = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 2))
    assert [cost.output_shape for cost in costs.layer_costs(head, (3, 2, 2))] == [(12,), (12,), (2,)]


def test_counting_leaves_the_model_as_it_was_and_reads_its_own_layers():
    model = disturbed(slim(batch_norm=True))
    before = state_of(model)
    found = costs.layer_costs(model, (3, 32, 32))
    costs.predicted_memory(model, (3, 32, 32), 2)
    assert_same_state(state_of(model), before)
    assert all(cost.layer is model.get_submodule(cost.name) for cost in found)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_the_cost_table_has_a_row_for_each_layer_with_weights():
    lines = costs.cost_table(costs.layer_costs(on_meta(models.VGG16))).splitlines()
    assert len(lines) == 1 + 16 + 1
    assert lines[2].split() == ["features.2", "64", "×", "224", "×", "224", "36,928", "1,849,688,064"]
    assert lines[-1].split() == ["total", "138,357,544", "15,470,264,320"]


# ---- memory


@pytest.mark.parametrize(
    ("optimizer", "build"),
    [
        ("adamw", slim),
        ("sgd", lambda: slim(batch_norm=True)),
        ("adamw", lambda: models.freeze_base_layers(slim(batch_norm=True))),
        ("sgd", lambda: torchvision.models.squeezenet1_1(weights=None)),
    ],
)
def test_predicted_memory_is_what_a_real_training_step_leaves(build, optimizer):
    model, images = build(), torch.rand(2, 3, 32, 32)
    predicted = costs.predicted_memory(model, (3, 32, 32), 2, optimizer=optimizer)
    measured = costs.step_memory(model, images, optimizer)
    if all(p.requires_grad for p in model.parameters()):
        assert predicted["activations"] == measured["activations"]
    assert predicted["weights"] == sum(p.nbytes for p in model.parameters())
    assert (predicted["gradients"], predicted["optimizer"]) == (measured["gradients"], measured["optimizer"])
    assert predicted["activations"] >= measured["activations"]


def test_training_all_of_vgg16_keeps_what_the_formulas_of_the_lesson_say():
    """4 bytes for a weight, as many for its gradient, 8 for AdamW, and each output once where no ReLU overwrites it."""
    model = on_meta(models.VGG16)
    predicted = costs.predicted_memory(model, (3, 224, 224), 32)
    assert (predicted["weights"], predicted["gradients"]) == (4 * 138_357_544,) * 2
    assert predicted["optimizer"] == 8 * 138_357_544 + 4 * len(list(model.parameters()))  # and the number of steps
    images, poolings, dropouts = 3 * 224 * 224, 64 * 112**2 + 128 * 56**2 + 256 * 28**2 + 512 * (14**2 + 7**2), 2 * 4096
    convolutions = 2 * 64 * 224**2 + 2 * 128 * 112**2 + 3 * 256 * 56**2 + 3 * 512 * 28**2 + 3 * 512 * 14**2
    average, linear = 512 * 7**2, 2 * 4096 + 1000
    numbers = images + convolutions + poolings + average + linear + dropouts
    notes = 8 * poolings + 4 * dropouts  # where each maximum stood, and what was dropped
    assert predicted["activations"] == pytest.approx(32 * (4 * numbers + notes), rel=1e-6)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("last_blocks", [0, 2, 5])
def test_activations_are_kept_from_the_first_layer_that_learns(last_blocks, batch_norm):
    model = models.unfreeze(models.freeze_base_layers(slim(batch_norm=batch_norm)), last_blocks)
    kept, learning = 0, False
    for cost in costs.layer_costs(model, (3, 32, 32)):
        if not learning and models.count_parameters(cost.layer, trainable_only=True):
            learning, kept = True, 4 * prod(cost.input_shape)  # the gradient of the first weights needs their input
        if learning and not getattr(cost.layer, "inplace", False):
            notes = {"MaxPool2d": 8, "Dropout": 4}.get(type(cost.layer).__name__, 0)
            kept += (4 + notes) * prod(cost.output_shape)
    measured = costs.step_memory(model, torch.rand(8, 3, 32, 32), "adamw")["activations"]
    assert measured == pytest.approx(8 * kept, rel=0.03)  # batch norm also keeps a mean and a deviation of each channel


def disturbed(model):
    """A model in a state of its own: gradients, moved statistics, and modes that differ from layer to layer."""
    model.train()(torch.rand(2, 3, 32, 32)).sum().backward()
    model.eval()
    model.classifier.train()
    return model


def state_of(model):
    """Copies of all that a training step could change, torch's random state included."""
    gradients = {name: copy.deepcopy(p.grad) for name, p in model.named_parameters()}
    frozen = {name: p.requires_grad for name, p in model.named_parameters()}
    modes = {name: layer.training for name, layer in model.named_modules()}
    return copy.deepcopy(model.state_dict()), gradients, frozen, modes, torch.get_rng_state()


def assert_same_state(found, expected):
    for ours, theirs in zip(found[:2], expected[:2], strict=True):
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert (tensor is None) == (ours[name] is None), name
            assert tensor is None or (torch.equal(ours[name], tensor) and ours[name].device == tensor.device), name
    assert found[2:4] == expected[2:4]
    assert torch.equal(found[4], expected[4])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_predicting_leaves_the_model_and_the_random_numbers_as_they_were(optimizer):
    model = disturbed(models.unfreeze(models.freeze_base_layers(slim(batch_norm=True)), 2))
    before = state_of(model)
    costs.predicted_memory(model, (3, 32, 32), 2, optimizer=optimizer)
    assert_same_state(state_of(model), before)


def test_a_step_counts_the_tensors_of_a_network_done_by_hand():
    """One linear layer, 3 to 2: weights 6 + 2; autograd keeps the input, the 2 log-probabilities and the label."""
    measured = costs.step_memory(nn.Linear(3, 2), torch.rand(5, 3), "sgd")
    assert (measured["gradients"], measured["optimizer"]) == (32, 32)
    assert measured["activations"] == 4 * 5 * 3 + 4 * 5 * 2 + 8 * 5 + 4  # and one sum of class weights


def test_memory_that_two_layers_share_is_counted_once():
    """The tanh keeps its output, which is the input that the second layer keeps."""
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    measured = costs.step_memory(network, torch.rand(5, 3), "sgd")
    assert measured["activations"] == 4 * 5 * 3 + 4 * 5 * 4 + 4 * 5 * 2 + 8 * 5 + 4


@pytest.mark.parametrize(
    "build",
    [models.VGG16, lambda: nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(inplace=True))],
    ids=["vgg16", "one layer"],
)
def test_predicting_needs_no_gradients_and_frees_what_it_has_used(build):
    model = on_meta(build).eval()
    predicted = costs.predicted_memory(model, (3, 224, 224), 2, optimizer=None)
    assert (predicted["gradients"], predicted["optimizer"]) == (0, 0)
    with torch.inference_mode(), LiveBytes() as live:
        images = torch.empty(2, 3, 224, 224, device="meta")
        model(images)
    held = images.nbytes if build is models.VGG16 else 0  # by the caller, and not the input of the largest layer
    assert predicted["activations"] == live.most - held


def test_a_frozen_base_works_in_the_memory_of_its_largest_layer():
    model = models.freeze_base_layers(on_meta(models.VGG16))
    predicted = costs.predicted_memory(model, (3, 224, 224), 1)
    assert predicted["activations"] == 2 * 64 * 224 * 224 * 4
    assert predicted["gradients"] == 4 * 123_642_856
    steps = 4 * 6  # a number of steps for each of the six tensors
    assert predicted["optimizer"] == 2 * predicted["gradients"] + steps


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
    parts = ("weights", "gradients", "optimizer", "activations")
    small = {part: million * 1_000_000 for million, part in enumerate(parts, start=1)}
    memories = {"small": small, "none": dict.fromkeys(parts, 0)}
    lines = costs.memory_table(memories).splitlines()
    assert lines[0].split() == ["small", "none"]
    assert lines[4].split() == ["activations", "4.0", "MB", "0.0", "MB"]
    assert lines[-1].split() == ["total", "10.0", "MB", "0.0", "MB"]
