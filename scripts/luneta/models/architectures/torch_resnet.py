"""ResNet-50 as PyTorch has it, so that weights trained there fit."""

from __future__ import annotations

import keras
from keras import layers

from luneta.models.activations import activate
from luneta.models.architectures.layers import convolve_normalise, finish


def _bottleneck(
    x: keras.KerasTensor, width: int, strides: int, label: str, activation: str
) -> keras.KerasTensor:
    """Add 1x1, 3x3 and 1x1 convolutions, 4 `width` features out, to a map (object, y, x, feature).

    The 3x3 strides; in keras.applications.ResNet50, as in the paper, the first 1x1 does.
    """
    padding = "centred" if strides > 1 else "same"
    shortcut = x
    x = convolve_normalise(x, width, 1, f"{label}_conv1", activation)
    x = convolve_normalise(
        x, width, 3, f"{label}_conv2", activation, strides=strides, padding=padding
    )
    x = convolve_normalise(x, 4 * width, 1, f"{label}_conv3")
    if shortcut.shape[-1] != 4 * width:
        shortcut = convolve_normalise(
            shortcut, 4 * width, 1, f"{label}_shortcut", strides=strides, padding="valid"
        )
    x = layers.Add(name=f"{label}_add")([shortcut, x])
    return activate(x, activation, f"{label}_{activation}")


def timm_resnet50(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "relu"
) -> keras.Model:
    """Build the ResNet-50 of PyTorch and timm; He et al. 2015, arXiv:1512.03385.

    25,557,032 trainable parameters with 3 bands and 1000 classes. It is the "v1.5" of the paper's
    network, with the stride in the 3x3 convolutions, and batch normalisation has epsilon 1e-5.
    """
    inputs = keras.Input(input_shape)
    x = convolve_normalise(inputs, 64, 7, "block1_conv", activation, strides=2, padding="centred")
    x = layers.ZeroPadding2D(1, name="block1_pool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="block1_pool")(x)
    for stage, depth in enumerate((3, 4, 6, 3)):
        for i in range(depth):
            strides = 2 if stage and not i else 1
            label = f"block{stage + 2}_unit{i + 1}"
            x = _bottleneck(x, 64 * 2**stage, strides, label, activation)
    return finish(inputs, x, classes, "timm_resnet50")
