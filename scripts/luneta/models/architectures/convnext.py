"""ConvNeXt as timm has it, from pico to base, so that weights trained there fit."""

from __future__ import annotations

import keras
from keras import initializers, layers

from luneta.models.activations import activate
from luneta.models.architectures.layers import finish


def _initializer() -> keras.Initializer:
    """Give the paper's first weights, anew for each layer, as one object repeats its numbers."""
    return initializers.TruncatedNormal(stddev=0.02)


def _normalise(x: keras.KerasTensor, label: str) -> keras.KerasTensor:
    """Normalise over the features (Ba et al. 2016, arXiv:1607.06450)."""
    return layers.LayerNormalization(epsilon=1e-6, name=label)(x)


def _patches(x: keras.KerasTensor, features: int, size: int, label: str) -> keras.KerasTensor:
    """Turn each patch of `size` x `size` pixels into one pixel of `features`."""
    return layers.Conv2D(features, size, size, kernel_initializer=_initializer(), name=label)(x)


def _scale(x: keras.KerasTensor, label: str) -> keras.KerasTensor:
    """Multiply each feature by its own learned factor, 1e-6 at the start.

    A depthwise 1x1 convolution, as Keras has no such layer and a file must load without luneta.
    """
    return layers.DepthwiseConv2D(
        1, use_bias=False, depthwise_initializer=initializers.Constant(1e-6), name=label
    )(x)


def _unit(x: keras.KerasTensor, label: str, activation: str) -> keras.KerasTensor:
    """Add a depthwise 7x7 convolution and two dense layers to a map (object, y, x, feature)."""
    features = x.shape[-1]
    before = x
    x = layers.DepthwiseConv2D(
        7, padding="same", depthwise_initializer=_initializer(), name=f"{label}_depthwise"
    )(x)
    x = _normalise(x, f"{label}_norm")
    x = layers.Dense(4 * features, kernel_initializer=_initializer(), name=f"{label}_expand")(x)
    x = activate(x, activation, f"{label}_{activation}")
    x = layers.Dense(features, kernel_initializer=_initializer(), name=f"{label}_project")(x)
    return layers.Add(name=f"{label}_add")([before, _scale(x, f"{label}_scale")])


def _convnext(
    input_shape: tuple[int, int, int],
    classes: int | None,
    activation: str,
    width: int,
    depths: tuple[int, int, int, int],
    name: str,
) -> keras.Model:
    """Build a ConvNeXt of `width` features at the first stage, twice as many at each further one.

    The last normalisation comes after the pooling, so that the network ends in a vector.
    """
    inputs = keras.Input(input_shape)
    x = _normalise(_patches(inputs, width, 4, "block1_conv"), "block1_norm")
    for stage, depth in enumerate(depths):
        block = f"block{stage + 2}"
        if stage:
            x = _normalise(x, f"{block}_downsample_norm")
            x = _patches(x, width * 2**stage, 2, f"{block}_downsample_conv")
        for i in range(depth):
            x = _unit(x, f"{block}_unit{i + 1}", activation)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return finish(inputs, _normalise(x, "block6_norm"), classes, name)


def timm_convnext_pico(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "gelu"
) -> keras.Model:
    """Build timm's ConvNeXt-Pico, a form of Liu et al. 2022, arXiv:2201.03545, of timm's own.

    9,045,672 parameters with 3 bands and 1000 classes; 512 features.
    """
    return _convnext(input_shape, classes, activation, 64, (2, 2, 6, 2), "timm_convnext_pico")


def timm_convnext_nano(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "gelu"
) -> keras.Model:
    """Build timm's ConvNeXt-Nano, a form of Liu et al. 2022, arXiv:2201.03545, of timm's own.

    15,593,560 parameters with 3 bands and 1000 classes; 640 features.
    """
    return _convnext(input_shape, classes, activation, 80, (2, 2, 8, 2), "timm_convnext_nano")


def timm_convnext_tiny(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "gelu"
) -> keras.Model:
    """Build ConvNeXt-T of Liu et al. 2022, arXiv:2201.03545.

    28,589,128 parameters with 3 bands and 1000 classes; 768 features.
    """
    return _convnext(input_shape, classes, activation, 96, (3, 3, 9, 3), "timm_convnext_tiny")


def timm_convnext_small(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "gelu"
) -> keras.Model:
    """Build ConvNeXt-S of Liu et al. 2022, arXiv:2201.03545.

    50,223,688 parameters with 3 bands and 1000 classes; 768 features.
    """
    return _convnext(input_shape, classes, activation, 96, (3, 3, 27, 3), "timm_convnext_small")


def timm_convnext_base(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "gelu"
) -> keras.Model:
    """Build ConvNeXt-B of Liu et al. 2022, arXiv:2201.03545.

    88,591,464 parameters with 3 bands and 1000 classes; 1024 features.
    """
    return _convnext(input_shape, classes, activation, 128, (3, 3, 27, 3), "timm_convnext_base")
