"""EfficientNet-B0 as timm has it, so that weights trained there fit."""

from __future__ import annotations

import math
from typing import NamedTuple

import keras
from keras import initializers, layers

from luneta.models.activations import activate
from luneta.models.architectures.layers import convolve_normalise, finish, normalise


class Stage(NamedTuple):
    """A row of table 1 of the paper: `depth` units, the first of which strides."""

    expansion: int
    size: int
    strides: int
    features: int
    depth: int


B0 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


def _depthwise(
    x: keras.KerasTensor, size: int, strides: int, label: str, activation: str
) -> keras.KerasTensor:
    """Convolve each feature by itself, normalise, activate."""
    padding = "same"
    if strides > 1:
        x = layers.ZeroPadding2D(size // 2, name=f"{label}_pad")(x)
        padding = "valid"
    convolution = layers.DepthwiseConv2D(
        size,
        strides=strides,
        padding=padding,
        use_bias=False,
        # Keras's he_normal would count the inputs of all features, though each sees its own only
        depthwise_initializer=initializers.RandomNormal(stddev=math.sqrt(2) / size),
        name=label,
    )
    return activate(normalise(convolution(x), f"{label}_norm"), activation, f"{label}_{activation}")


def _squeeze_excite(
    x: keras.KerasTensor, width: int, label: str, activation: str
) -> keras.KerasTensor:
    """Weigh features by a gate made from their means (Hu et al. 2017, arXiv:1709.01507)."""
    gate = layers.GlobalAveragePooling2D(keepdims=True, name=f"{label}_means")(x)
    gate = layers.Conv2D(width, 1, name=f"{label}_squeeze")(gate)
    gate = activate(gate, activation, f"{label}_squeeze_{activation}")
    gate = layers.Conv2D(x.shape[-1], 1, activation="sigmoid", name=f"{label}_excite")(gate)
    return layers.Multiply(name=f"{label}_gate")([x, gate])


def _inverted_bottleneck(
    x: keras.KerasTensor, stage: Stage, strides: int, label: str, activation: str
) -> keras.KerasTensor:
    """Expand, convolve depthwise, gate and project a map; add the input where the shape allows."""
    before = x
    features = x.shape[-1]
    if stage.expansion > 1:
        x = convolve_normalise(x, stage.expansion * features, 1, f"{label}_expand", activation)
    x = _depthwise(x, stage.size, strides, f"{label}_depthwise", activation)
    x = _squeeze_excite(x, features // 4, label, activation)
    x = convolve_normalise(x, stage.features, 1, f"{label}_project")
    if strides == 1 and features == stage.features:
        x = layers.Add(name=f"{label}_add")([before, x])
    return x


def timm_efficientnet_b0(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "silu"
) -> keras.Model:
    """Build the EfficientNet-B0 of timm; Tan & Le 2019, arXiv:1905.11946.

    5,288,548 trainable parameters with 3 bands and 1000 classes. Unlike that of
    keras.applications it pads strided convolutions on both sides alike, its batch normalisation has
    epsilon 1e-5 and it has no preprocessing inside.
    """
    inputs = keras.Input(input_shape)
    x = convolve_normalise(inputs, 32, 3, "block1_conv", activation, strides=2, padding="centred")
    for number, stage in enumerate(B0, start=2):
        for i in range(stage.depth):
            strides = 1 if i else stage.strides
            x = _inverted_bottleneck(x, stage, strides, f"block{number}_unit{i + 1}", activation)
    x = convolve_normalise(x, 1280, 1, "block9_conv", activation)
    return finish(inputs, x, classes, "timm_efficientnet_b0", dropout=0.2)
