"""What a network costs: shapes, parameters, multiply-adds and memory, counted without computing."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from math import prod

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from .models import BATCH_NORM, count_parameters, without_numbers
from .settings import BadArgument, first_line, format_table
from .training import make_optimizer

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
    """The cost of every layer for one image (channels, height, width), in the order in which the image meets them.

    Raises BadArgument for an image that does not fit, or a layer whose multiply-adds are not known here.
    """
    costs, twin = [], without_numbers(model).eval()

    def note(name: str, inputs: tuple, output: Tensor) -> None:
        layer, shape = model.get_submodule(name), tuple(output.shape[1:])
        work = multiply_adds(name, layer, shape)
        costs.append(LayerCost(name, layer, tuple(inputs[0].shape[1:]), shape, count_parameters(layer), work))

    for name, layer in twin.named_modules():
        if not list(layer.children()):
            layer.register_forward_hook(lambda _, inputs, output, name=name: note(name, inputs, output))
    try:
        twin(torch.empty(1, *image_shape, device="meta"))
    except RuntimeError as error:
        raise BadArgument(f"An image of {image_shape} doesn't fit this network: {first_line(error)}.") from error
    return costs


def multiply_adds(name: str, layer: nn.Module, output_shape: tuple[int, ...]) -> int:
    """How often a convolution or linear layer multiplies and adds for one image; 0 for a layer without weights."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        return layer.weight.numel() * prod(output_shape[1:])  # every weight is used once at every place
    if count_parameters(layer) and not isinstance(layer, BATCH_NORM):
        raise BadArgument(f"{name} is a {type(layer).__name__}, whose multiply-adds can't be counted here.")
    return 0


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


def predicted_memory(
    model: nn.Module, image_shape: tuple[int, ...], batch_size: int, *, optimizer: str | None = "adamw"
) -> dict[str, int]:
    """Bytes for one batch, by what they are for, before anything is computed; `optimizer` None means predicting.

    What PyTorch itself, the system and the convolutions' scratch space take comes on top.
    """
    memory = {"weights": tensor_bytes(model.parameters()), "gradients": 0, "optimizer": 0, "activations": 0}
    if optimizer:
        memory |= step_memory(without_numbers(model), torch.empty(batch_size, *image_shape, device="meta"), optimizer)
    # Where nothing is kept, input and output of the largest layer are there at once. In place, they are one.
    layers = [cost for cost in layer_costs(model, image_shape) if not getattr(cost.layer, "inplace", False)]
    working = 4 * batch_size * max(prod(cost.input_shape) + prod(cost.output_shape) for cost in layers)
    return memory | {"activations": max(memory["activations"], working)}


def step_memory(model: nn.Module, images: Tensor, optimizer: str) -> dict[str, int]:
    """Bytes of the tensors that the model's first training step makes and keeps beside its weights."""
    kept = {}

    def note(tensor: Tensor) -> Tensor:
        kept[id(tensor.untyped_storage())] = tensor.untyped_storage()  # each memory once, whatever shares it
        return tensor

    stepper = make_optimizer(model, optimizer, learning_rate=1e-3, weight_decay=0.0)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    with saved_tensors_hooks(note, lambda tensor: tensor):  # called for all that autograd keeps
        loss = F.cross_entropy(model.train()(images), labels)
    loss.backward()
    stepper.step()
    for parameter in model.parameters():
        kept.pop(id(parameter.untyped_storage()), None)  # kept too, but counted as weights
    return {
        "gradients": tensor_bytes(parameter.grad for parameter in model.parameters()),
        "optimizer": tensor_bytes(chain.from_iterable(state.values() for state in stepper.state.values())),
        "activations": sum(storage.nbytes() for storage in kept.values()),
    }


def tensor_bytes(tensors: Iterable) -> int:
    """Bytes of all that are tensors."""
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def memory_table(memories: dict[str, dict[str, int]]) -> str:
    """A text table, one column for each entry, in megabytes (a million bytes)."""
    columns = [memory | {"total": sum(memory.values())} for memory in memories.values()]
    rows = [[part, *(f"{column[part] / 1e6:,.1f} MB" for column in columns)] for part in columns[0]]
    return format_table(["", *memories], rows)
