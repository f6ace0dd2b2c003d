"""What a network costs: shapes, parameters, multiply-adds and memory, from formulas and measured."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from .models import count_parameters
from .settings import BadArgument, format_table
from .training import make_optimizer

FLOAT_BYTES = 4  # float32, in which the networks compute unless told otherwise
SAME_SHAPE = (nn.ReLU, nn.BatchNorm2d, nn.Dropout)
# How many numbers an optimizer keeps for each parameter it trains.
OPTIMIZER_NUMBERS = {"adamw": 2, "sgd": 1}
# What a layer notes for the backward pass beside its output, in bytes for each number of the output:
# where each maximum stood (int64), and which numbers were dropped (float32).
NOTES = {nn.MaxPool2d: 8, nn.Dropout: 4}


# -------------------------------------------------------------- shapes, parameters, multiply-adds


@dataclass(frozen=True)
class LayerCost:
    """What one layer makes of one image, and what that costs."""

    name: str  # as in the state dict, such as features.0
    layer: nn.Module
    input_shape: tuple[int, ...]  # (channels, height, width), or (numbers,) once the maps are flattened
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def layer_costs(model: nn.Module, image_shape: tuple[int, int, int] = (3, 224, 224)) -> list[LayerCost]:
    """The cost of every layer for one image (channels, height, width); nothing is run.

    Raises BadArgument if the layers do not follow one another in a line, as those of VGG16 do.
    """
    costs, shape = [], tuple(image_shape)
    for name, layer in model.named_modules():
        if list(layer.children()):
            continue
        if isinstance(layer, nn.Linear):
            shape = (prod(shape),)  # the maps, one after the other
        check_input(name, layer, shape)
        after = output_shape(layer, shape)
        costs.append(LayerCost(name, layer, shape, after, count_parameters(layer), multiply_adds(layer, after)))
        shape = after
    return costs


def output_shape(layer: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the layer makes of one image's `shape`; kernels are square and not dilated."""
    if isinstance(layer, nn.Linear):
        return (layer.out_features,)
    if isinstance(layer, nn.Flatten):
        return (prod(shape),)
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return (shape[0], *both(layer.output_size))
    if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
        kernel, stride, padding = (both(size)[0] for size in (layer.kernel_size, layer.stride, layer.padding))
        channels = layer.out_channels if isinstance(layer, nn.Conv2d) else shape[0]
        return (channels, *((side + 2 * padding - kernel) // stride + 1 for side in shape[1:]))
    return shape


def both(size: int | tuple[int, int]) -> tuple[int, int]:
    """PyTorch's "one number, or one for the height and one for the width" as two numbers."""
    return (size, size) if isinstance(size, int) else size


def multiply_adds(layer: nn.Module, output_shape: tuple[int, ...]) -> int:
    """How often a convolution or linear layer multiplies and adds for one image; 0 for all other layers."""
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        return 0
    places = prod(output_shape[1:])  # height × width; 1 for a linear layer
    return layer.weight.numel() * places  # every weight is used once at every place


def check_input(name: str, layer: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise BadArgument if the layer is of a kind not counted here, or can't follow a layer that gave `shape`."""
    known = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.Flatten, *SAME_SHAPE)
    if not isinstance(layer, known):
        raise BadArgument(f"{name} is a {type(layer).__name__}; only {', '.join(k.__name__ for k in known)} count.")
    wanted = getattr(layer, "in_channels", getattr(layer, "in_features", shape[0]))
    if wanted != shape[0]:
        raise BadArgument(f"{name} needs {wanted} inputs, the layer before it gives {shape[0]}: they form no line.")


def cost_table(costs: list[LayerCost]) -> str:
    """A text table, one row for each layer with weights, and the totals."""
    rows = [
        [cost.name, " × ".join(map(str, cost.output_shape)), f"{cost.parameters:,}", f"{cost.multiply_adds:,}"]
        for cost in costs
        if cost.parameters
    ]
    parameters, operations = sum(cost.parameters for cost in costs), sum(cost.multiply_adds for cost in costs)
    rows.append(["total", "", f"{parameters:,}", f"{operations:,}"])
    return format_table(["layer", "output", "parameters", "multiply-adds"], rows)


# ---------------------------------------------------------------------------------------- memory


@dataclass(frozen=True)
class Memory:
    """Bytes that training or predicting needs, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations


def predicted_memory(
    model: nn.Module, image_shape: tuple[int, int, int], batch_size: int, *, optimizer: str | None = "adamw"
) -> Memory:
    """Bytes for one batch in float32, from formulas; `optimizer` None means predicting, without gradients.

    What PyTorch itself, the system and the convolutions' scratch space take comes on top.
    """
    costs = layer_costs(model, image_shape)
    trained = FLOAT_BYTES * count_parameters(model, trainable_only=True) if optimizer else 0
    kept = kept_bytes(costs) if optimizer else 0
    return Memory(
        weights=FLOAT_BYTES * count_parameters(model),
        gradients=trained,
        optimizer=OPTIMIZER_NUMBERS[optimizer] * trained if optimizer else 0,
        activations=batch_size * max(kept, working_bytes(costs)),
    )


def kept_bytes(costs: list[LayerCost]) -> int:
    """Bytes that one image leaves behind in the forward pass, for the backward pass to use."""
    kept, learning = 0, False
    for cost in costs:
        if not learning and count_parameters(cost.layer, trainable_only=True):
            learning = True  # the gradient of the first weights that learn needs their input
            kept += FLOAT_BYTES * prod(cost.input_shape)
        # A layer that works in place leaves its output where its input was, which is counted already.
        if learning and not in_place(cost.layer):
            kept += (FLOAT_BYTES + NOTES.get(type(cost.layer), 0)) * prod(cost.output_shape)
    return kept


def working_bytes(costs: list[LayerCost]) -> int:
    """Bytes for one image that are in use at once if nothing is kept: input and output of the largest layer."""
    return FLOAT_BYTES * max(prod(c.input_shape) + prod(c.output_shape) for c in costs if not in_place(c.layer))


def in_place(layer: nn.Module) -> bool:
    """True if the layer writes its output over its input."""
    return getattr(layer, "inplace", False)


def measured_memory(model: nn.Module, images: Tensor, *, optimizer: str = "adamw") -> Memory:
    """The bytes of the tensors that one real training step on the images makes and keeps."""
    stored = {}

    def note(tensor: Tensor) -> Tensor:
        stored[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()  # each memory once
        return tensor

    stepper = make_optimizer(model, optimizer, learning_rate=1e-3, weight_decay=0.0)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    with saved_tensors_hooks(note, lambda tensor: tensor):  # called for all that autograd keeps
        loss = F.cross_entropy(model.train()(images), labels)
    loss.backward()
    stepper.step()
    for parameter in model.parameters():
        stored.pop(parameter.untyped_storage().data_ptr(), None)  # kept too, but counted as weights
    states = (value for state in stepper.state.values() for value in state.values())
    return Memory(
        weights=tensor_bytes(model.parameters()),
        gradients=tensor_bytes(p.grad for p in model.parameters()),
        optimizer=tensor_bytes(states),
        activations=sum(stored.values()),
    )


def tensor_bytes(tensors: Iterable) -> int:
    """Bytes of all that are tensors."""
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def memory_table(memories: dict[str, Memory]) -> str:
    """A text table, one column for each entry, in megabytes (a million bytes)."""
    parts = ("weights", "gradients", "optimizer", "activations", "total")
    rows = [[part, *(f"{getattr(memory, part) / 1e6:,.1f} MB" for memory in memories.values())] for part in parts]
    return format_table(["", *memories], rows)
