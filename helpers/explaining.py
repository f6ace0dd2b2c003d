"""What a network looks at: what each place of an image adds to each class, and whether such a map can be trusted."""

import torch
from torch import Tensor, nn

from .models import AverageAndMaxPool, Standardize
from .settings import BadArgument, best_device
from .training import placed

PASSIVE = (nn.Dropout, nn.Flatten, nn.Identity, nn.Sequential)  # what changes no number of a head in eval mode


def exact_map(model: nn.Module, images: Tensor) -> Tensor:
    """How much each place adds to each logit: (n, classes, h, w), whose sum over h and w, plus the bias, is the logit.

    No approximation, and no backward pass; `linear_parts` has the bias. Raises BadArgument for a head that is not
    linear on pooled maps: take `grad_cam` there.
    """
    average, maximum, _ = linear_parts(model)
    return logit_maps(feature_maps(model, images).double(), average, maximum).float()  # large terms may cancel


def logit_maps(features: Tensor, average: Tensor, maximum: Tensor) -> Tensor:
    """The same from feature maps (n, c, h, w) and weights (classes, c): an average belongs to all places alike,
    a maximum to the place where it is; places that tie share it.
    """
    highest = features.amax((2, 3), keepdim=True)
    peaks = (features == highest).to(features.dtype)
    peaks = highest * peaks / peaks.sum((2, 3), keepdim=True)
    evenly = features / (features.shape[2] * features.shape[3])
    both, weights = torch.cat([evenly, peaks], dim=1), torch.cat([average, maximum], dim=1)
    return nn.functional.conv2d(both, weights[:, :, None, None].to(features))


def linear_parts(model: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the averages (classes, c), of the maxima (classes, c), and bias (classes,), float64.

    The standardization is folded into them. Raises BadArgument for a head that is not linear on pooled maps.
    """
    layers = list(model.modules())
    pool = pool_of(model)
    head = [layer for layer in layers[layers.index(pool) + 1 :] if not isinstance(layer, PASSIVE)]
    both = isinstance(pool, AverageAndMaxPool)
    kinds = [type(layer) for layer in head if not isinstance(layer, Standardize)]
    if kinds != [nn.Linear] or not (both or pool.output_size in (1, (1, 1))):
        raise BadArgument("The head is not linear on pooled maps, so that no map is exact. Grad-CAM works here.")
    weight, bias = head[-1].weight.detach().double(), head[-1].bias.detach().double()
    if isinstance(head[0], Standardize):
        weight = weight / head[0].std
        bias = bias - weight @ head[0].mean.double()
    average, maximum = weight.chunk(2, dim=1) if both else (weight, torch.zeros_like(weight))
    return average, maximum, bias


def pool_of(model: nn.Module) -> nn.Module:
    """The layer that pools the last feature maps; raises BadArgument for a network that has none."""
    pools = [layer for layer in model.modules() if isinstance(layer, AverageAndMaxPool | nn.AdaptiveAvgPool2d)]
    if not pools:
        raise BadArgument("This network pools no feature maps, so that there is no place to point at.")
    return pools[-1]


@torch.no_grad()
def feature_maps(model: nn.Module, images: Tensor) -> Tensor:
    """The last feature maps (n, c, h, w) of images (n, 3, height, width), on the images' device."""
    seen: list[Tensor] = []
    handle = pool_of(model).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        forward(model, images)
    finally:
        handle.remove()
    return seen[0].to(images.device)


def forward(model: nn.Module, images: Tensor) -> Tensor:
    """The logits of images, in eval mode, on the best device; the model is left as it was."""
    device = best_device()
    with placed(model, device):
        model.eval()
        return model(images.to(device))
