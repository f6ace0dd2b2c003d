"""VGG16 as a Keras model of any width, and our weights in it. The only module that needs Keras."""

import math

import keras
import numpy
from torch import nn

from .models import BATCH_NORM, VGG16, VGG16_LAYERS
from .settings import BadArgument, Setting
from .training import History


def check_choice(setting: Setting) -> None:
    """Raise BadArgument for another network than VGG16, the only one of the course that Keras has too."""
    if setting.backbone != "vgg16":
        raise BadArgument(
            f"keras.applications has no {setting.backbone}; this lesson is about VGG16. Unset COURSE_BACKBONE and "
            "COURSE_WEIGHTS and start Jupyter again."
        )


# --------------------------------------------------------------------------- the network


def vgg16_base(input_shape: tuple[int, int, int], *, width: float = 1.0) -> keras.Model:
    """The network and the layer names of keras.applications.VGG16(include_top=False), with `width` times its channels.

    `input_shape`: (rows, columns, 3). Output: (batch, rows / 32, columns / 32, 512 · width).
    """
    maps = inputs = keras.Input(input_shape)
    block, convolution = 1, 1
    for channels in VGG16_LAYERS:
        if channels == "M":
            maps = keras.layers.MaxPooling2D(2, name=f"block{block}_pool")(maps)
            block, convolution = block + 1, 1
        else:
            options = {"padding": "same", "activation": "relu", "name": f"block{block}_conv{convolution}"}
            maps = keras.layers.Conv2D(round(channels * width), 3, **options)(maps)
            convolution += 1
    return keras.Model(inputs, maps, name="vgg16")


# --------------------------------------------------------------------------- the weights


def carry_weights(torch_vgg16: VGG16, keras_vgg16: keras.Model) -> keras.Model:
    """Copy the weights of our VGG16, or torchvision's, into a Keras VGG16 with or without its classifier.

    Raises BadArgument, and copies nothing, if the two are different networks.
    """
    if any(isinstance(layer, BATCH_NORM) for layer in torch_vgg16.modules()):
        raise BadArgument("Keras's VGG16 has no batch normalisation. Use the backbone vgg16.")
    layers = [layer for layer in keras_vgg16.layers if layer.weights]
    weights = keras_weights(torch_vgg16)[: len(layers)]  # without the classifier, Keras's network ends earlier
    for layer, (kernel, bias) in zip(layers, weights, strict=True):
        if (layer.kernel.shape, layer.bias.shape) != (kernel.shape, bias.shape):
            raise BadArgument(
                f"{layer.name} has a kernel of shape {tuple(layer.kernel.shape)}, and its weights in PyTorch have "
                f"{kernel.shape}. Build both networks with the same width, image size and classes."
            )
    for layer, pair in zip(layers, weights, strict=True):
        layer.set_weights(pair)
    return keras_vgg16


def keras_weights(torch_vgg16: VGG16) -> list[tuple[numpy.ndarray, numpy.ndarray]]:
    """Kernel and bias of every layer, in order, in Keras's layout."""
    convolutions = [layer for layer in torch_vgg16.features if isinstance(layer, nn.Conv2d)]
    linear = [layer for layer in torch_vgg16.classifier if isinstance(layer, nn.Linear)]
    # PyTorch keeps (out, in, height, width), Keras (height, width, in, out).
    kernels = [layer.weight.permute(2, 3, 1, 0) for layer in convolutions] + [layer.weight.T for layer in linear]
    # The same for the first weights behind the maps, which PyTorch flattens channel by channel, Keras place by place.
    channels = convolutions[-1].out_channels
    side = math.isqrt(linear[0].in_features // channels)
    as_maps = linear[0].weight.view(-1, channels, side, side)
    kernels[len(convolutions)] = as_maps.permute(2, 3, 1, 0).flatten(0, 2)
    biases = [layer.bias for layer in convolutions + linear]
    return [(k.detach().cpu().numpy(), b.detach().cpu().numpy()) for k, b in zip(kernels, biases, strict=True)]


# --------------------------------------------------------------------------- results


def as_history(*parts: keras.callbacks.History) -> History:
    """The epochs of one or more calls of Keras's `fit`, one after the other, as our History."""
    history = History()
    for logs in (part.history for part in parts):
        for epoch in zip(logs["loss"], logs["accuracy"], logs["val_loss"], logs["val_accuracy"], strict=True):
            names = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
            history.rows.append({"epoch": len(history.rows) + 1, **dict(zip(names, epoch, strict=True))})
    history.best_epoch = len(history.rows)  # Keras keeps the weights of the last epoch
    return history
