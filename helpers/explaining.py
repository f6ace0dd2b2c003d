"""What a network looks at: what each place of an image adds to each class, and whether such a map can be trusted."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .models import AverageAndMaxPool, Standardize
from .settings import BadArgument
from .training import placed

PASSIVE = (nn.Dropout, nn.Flatten, nn.Identity, nn.Sequential)  # what changes no number of a head in eval mode


def evidence(model: nn.Module, images: Tensor, classes: Tensor) -> Tensor:
    """What speaks for an image's class at each place, below 0 against it: exact maps (n, h, w), or else Grad-CAM."""
    try:
        maps = exact_map(model, images)
    except NotLinear:
        return grad_cam(model, images, classes)
    maps = maps - maps.mean(1, keepdim=True)  # what speaks for all classes alike changes no probability
    return maps[torch.arange(len(maps)), classes]


class NotLinear(BadArgument):
    """A head that is more than a linear layer on pooled maps."""


def exact_map(model: nn.Module, images: Tensor) -> Tensor:
    """What each place adds to each logit: (n, classes, h, w); with the bias of `linear_parts` it sums to the logits."""
    average, maximum, _ = linear_parts(model)
    with torch.no_grad():
        features, _ = look_inside(model, images, pool_of(model).register_forward_pre_hook)
    return logit_maps(features.cpu().double(), average, maximum).float().to(images.device)  # large terms may cancel


def logit_maps(features: Tensor, average: Tensor, maximum: Tensor) -> Tensor:
    """The same from feature maps (n, c, h, w) and weights (classes, c); places that tie share their maximum."""
    highest = features.amax((2, 3), keepdim=True)
    shares = (features == highest).to(features.dtype)
    peaks = highest * shares / shares.sum((2, 3), keepdim=True)
    evenly = features / (features.shape[2] * features.shape[3])
    both, weights = torch.cat([evenly, peaks], dim=1), torch.cat([average, maximum], dim=1)
    return F.conv2d(both, weights[:, :, None, None].to(features))


def linear_parts(model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of averages (classes, c), of maxima (classes, c), and bias (classes,), with any Standardize in them."""
    layers, pool = list(model.modules()), pool_of(model)
    head = [layer for layer in layers[layers.index(pool) + 1 :] if not isinstance(layer, PASSIVE)]
    both = isinstance(pool, AverageAndMaxPool)
    kinds = [type(layer) for layer in head if not isinstance(layer, Standardize)]
    if kinds != [nn.Linear] or not (both or pool.output_size in (1, (1, 1))):
        raise NotLinear("The head is not one linear layer on averages and maxima, so no map is exact. Take grad_cam.")
    weight, bias = (tensor.detach().cpu().double() for tensor in (head[-1].weight, head[-1].bias))
    if isinstance(head[0], Standardize):
        mean, std = (tensor.cpu().double() for tensor in (head[0].mean, head[0].std))
        weight, bias = weight / std, bias - weight @ (mean / std)
    average, maximum = weight.chunk(2, dim=1) if both else (weight, torch.zeros_like(weight))
    return average, maximum, bias


def pool_of(model: nn.Module) -> nn.Module:
    """The layer that pools the last feature maps; raises BadArgument for a network that has none."""
    pools = [layer for layer in model.modules() if isinstance(layer, AverageAndMaxPool | nn.AdaptiveAvgPool2d)]
    if not pools:
        raise BadArgument("This network pools no feature maps, as a transformer does not: there is no place to show.")
    return pools[-1]


@torch.inference_mode(False)
@torch.enable_grad()
def grad_cam(model: nn.Module, images: Tensor, classes: Tensor, *, layer: nn.Module | None = None) -> Tensor:
    """Where a layer's maps, by default the last, speak for a class of each image: (n, h, w) (arXiv:1610.02391)."""
    register = layer.register_forward_hook if layer else pool_of(model).register_forward_pre_hook
    maps, logits = look_inside(model, images.clone(), register)  # a clone: no gradient knows what inference mode made
    (gradient,) = torch.autograd.grad(logits[range(len(images)), classes.tolist()].sum(), maps)
    return (gradient.mean((2, 3), keepdim=True) * maps).sum(1).relu().detach().to(images.device)


def look_inside(model: nn.Module, images: Tensor, register: Callable) -> tuple[Tensor, Tensor]:
    """The maps that a hook finds, and the logits that follow from them; the model is left as it was."""
    seen = []

    def hook(_, inputs: tuple, output: Tensor | None = None) -> Tensor:
        maps = inputs[0] if output is None else output
        # Cut off from what comes before, which may be frozen. And a copy goes on: a ReLU may write over it.
        seen.append(maps.detach().requires_grad_(torch.is_grad_enabled()))
        return seen[-1].clone()

    with register(hook), placed(model) as device:
        logits = model(images.to(device))
    return seen[-1], logits


def shuffled(images: Tensor) -> Tensor:
    """Each image's own pixels, in a random order that is always the same."""
    order = torch.randperm(images[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    return images.flatten(2)[..., order].view_as(images)


FILLS = {
    "mean colour": lambda images: images.mean((2, 3), keepdim=True),
    "blurred": lambda images: F.interpolate(F.adaptive_avg_pool2d(images, 4), images.shape[-2:], mode="bilinear"),
    "shuffled": shuffled,
}


@torch.inference_mode()
def trial(model, images: Tensor, maps: Tensor, classes: Tensor, *, fill: str, insert=False, steps=6) -> Tensor:
    """How probable a class of each image is, (n, steps + 1), while its places are deleted, the highest of `maps` first.

    `fill`, of FILLS: what stands where a place is missing. `insert`: begin with none and add them (arXiv:1806.07421).
    """
    ranks = maps.flatten(1).argsort(1, descending=True).argsort(1).view_as(maps)[:, None]
    filled, curve = FILLS[fill](images), []
    with placed(model) as device:
        for step in range(steps + 1):
            chosen = F.interpolate((ranks < maps[0].numel() * step / steps).float(), size=images.shape[-2:]) > 0
            answers = model(torch.where(chosen == insert, images, filled).to(device)).softmax(1).to(images.device)
            curve.append(answers.gather(1, classes[:, None])[:, 0])
    return torch.stack(curve, dim=1)
