"""Residual networks: ResNet-18 and -34, ResNeXt-50, the ResNet-26 of Dai & Tong."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

from luneta.models.activations import activate
from luneta.models.architectures.layers import convolve, convolve_normalise, finish, normalise

Unit = Callable[[keras.KerasTensor, int, int, str, str], keras.KerasTensor]


def _basic_unit(
    x: keras.KerasTensor, width: int, strides: int, label: str, activation: str
) -> keras.KerasTensor:
    """Add two 3x3 convolutions of `width` features to a map (object, y, x, feature)."""
    shortcut = x
    x = convolve_normalise(
        x, width, 3, f"{label}_conv1", activation, strides=strides, padding="centred"
    )
    x = convolve_normalise(x, width, 3, f"{label}_conv2", padding="centred")
    return _join(x, shortcut, strides, label, activation)


def _grouped_unit(
    x: keras.KerasTensor, width: int, strides: int, label: str, activation: str
) -> keras.KerasTensor:
    """Add a bottleneck of `width` features, 3x3 in 32 groups, with 2 `width` features out."""
    shortcut = x
    x = convolve_normalise(x, width, 1, f"{label}_conv1", activation)
    x = convolve_normalise(
        x, width, 3, f"{label}_conv2", activation, strides=strides, padding="centred", groups=32
    )
    x = convolve_normalise(x, 2 * width, 1, f"{label}_conv3")
    return _join(x, shortcut, strides, label, activation)


def _join(
    x: keras.KerasTensor, shortcut: keras.KerasTensor, strides: int, label: str, activation: str
) -> keras.KerasTensor:
    """Add the shortcut, projected where the shape changes, and activate."""
    if shortcut.shape[-1] != x.shape[-1] or strides > 1:
        shortcut = convolve_normalise(
            shortcut, x.shape[-1], 1, f"{label}_shortcut", strides=strides, padding="valid"
        )
    x = layers.Add(name=f"{label}_add")([shortcut, x])
    return activate(x, activation, f"{label}_{activation}")


def _stages(
    x: keras.KerasTensor, unit: Unit, widths: tuple[int, ...], depths: tuple[int, ...], act: str
) -> keras.KerasTensor:
    """Stack the stem of a ResNet and its stages, blocks 2 to 5; each but the first halves."""
    x = convolve_normalise(x, 64, 7, "block1_conv", act, strides=2, padding="centred")
    x = layers.ZeroPadding2D(1, name="block1_pool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="block1_pool")(x)
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for i in range(depth):
            strides = 2 if stage and not i else 1
            x = unit(x, width, strides, f"block{stage + 2}_unit{i + 1}", act)
    return x


def resnet18(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "relu"
) -> keras.Model:
    """Build ResNet-18 of He et al. 2015, arXiv:1512.03385, with projected shortcuts (option B).

    11,689,512 trainable parameters with 3 bands and 1000 classes.
    """
    inputs = keras.Input(input_shape)
    x = _stages(inputs, _basic_unit, (64, 128, 256, 512), (2, 2, 2, 2), activation)
    return finish(inputs, x, classes, "resnet18")


def resnet34(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "relu"
) -> keras.Model:
    """Build ResNet-34 of He et al. 2015, arXiv:1512.03385, with projected shortcuts (option B).

    21,797,672 trainable parameters with 3 bands and 1000 classes.
    """
    inputs = keras.Input(input_shape)
    x = _stages(inputs, _basic_unit, (64, 128, 256, 512), (3, 4, 6, 3), activation)
    return finish(inputs, x, classes, "resnet34")


def resnext50(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "relu"
) -> keras.Model:
    """Build ResNeXt-50 (32x4d) of Xie et al. 2016, arXiv:1611.05431.

    25,028,904 trainable parameters with 3 bands and 1000 classes.
    """
    inputs = keras.Input(input_shape)
    x = _stages(inputs, _grouped_unit, (128, 256, 512, 1024), (3, 4, 6, 3), activation)
    return finish(inputs, x, classes, "resnext50")


def preactivated_unit(
    x: keras.KerasTensor,
    width: int,
    features: int,
    label: str,
    activation: str,
    *,
    strides: int = 1,
    bias: bool = False,
    is_activated: bool = False,
) -> keras.KerasTensor:
    """Add a pre-activated bottleneck (He et al. 2016, arXiv:1603.05027) to a map.

    Parameters
    ----------
    x
        Feature map (object, y, x, feature).
    width, features
        Features inside the bottleneck, and of its output.
    label, activation
        Prefix of the layers' names; name of the activation.
    strides
        Of the 3x3 convolution and of the shortcut.
    bias
        Whether the two convolutions that are not normalised, last and shortcut, have biases.
    is_activated
        Whether the input is normalised and activated already.
    """
    before = x
    if not is_activated:
        x = activate(normalise(x, f"{label}_norm"), activation, f"{label}_{activation}")
    if before.shape[-1] != features:
        shortcut = convolve(x, features, 1, f"{label}_shortcut", strides=strides, bias=bias)
    elif strides > 1:
        shortcut = layers.MaxPooling2D(1, strides, name=f"{label}_shortcut")(before)
    else:
        shortcut = before
    x = convolve_normalise(x, width, 1, f"{label}_conv1", activation)
    x = convolve_normalise(x, width, 3, f"{label}_conv2", activation, strides=strides)
    x = convolve(x, features, 1, f"{label}_conv3", bias=bias)
    return layers.Add(name=f"{label}_add")([shortcut, x])


def dai_tong_resnet26(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "relu"
) -> keras.Model:
    """Build the ResNet-26 for galaxies of Dai & Tong 2018, arXiv:1807.10406.

    A 6x6 convolution of 64 features, 2x2 pooling, four blocks of two pre-activated bottlenecks,
    each twice as wide (k = 2) as in ResNet-50. The last bottleneck of the first three blocks
    strides, as in their code. Input 64 x 64 x 3, five classes.
    """
    inputs = keras.Input(input_shape)
    x = convolve(inputs, 64, 6, "block1_conv")
    x = layers.MaxPooling2D(2, name="block1_pool")(x)
    for stage, width in enumerate((128, 256, 512, 1024)):
        for i in range(2):
            strides = 2 if i == 1 and stage < 3 else 1
            label = f"block{stage + 2}_unit{i + 1}"
            x = preactivated_unit(
                x, width, 4 * width, label, activation, strides=strides, bias=True
            )
    x = activate(normalise(x, "block5_norm"), activation, f"block5_{activation}")
    return finish(inputs, x, classes, "dai_tong_resnet26")
