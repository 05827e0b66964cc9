"""GoogLeNet (Inception v1) and Inception-v4, written as tables of their branches."""

from __future__ import annotations

import keras
from keras import layers

from luneta.models.activations import activate
from luneta.models.architectures.layers import (
    convolve,
    convolve_normalise,
    finish,
    normalise_responses,
)

# Features of the 1x1, 3x3 reduced, 3x3, 5x5 reduced, 5x5 and pooled branches: table 1 of
# arXiv:1409.4842
GOOGLENET = {
    2: {"3a": (64, 96, 128, 16, 32, 32), "3b": (128, 128, 192, 32, 96, 64)},
    3: {
        "4a": (192, 96, 208, 16, 48, 64),
        "4b": (160, 112, 224, 24, 64, 64),
        "4c": (128, 128, 256, 24, 64, 64),
        "4d": (112, 144, 288, 32, 64, 64),
        "4e": (256, 160, 320, 32, 128, 128),
    },
    4: {"5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)},
}

# A convolution of Inception-v4: features, (y, x) size, and V where it is valid and strides by two.
Step = tuple
A_BRANCHES = (
    ((96, 1),),
    ((64, 1), (96, 3)),
    ((64, 1), (96, 3), (96, 3)),
)
A_REDUCTION = (((384, 3, "V"),), ((192, 1), (224, 3), (256, 3, "V")))
B_BRANCHES = (
    ((384, 1),),
    ((192, 1), (224, (1, 7)), (256, (7, 1))),
    ((192, 1), (192, (1, 7)), (224, (7, 1)), (224, (1, 7)), (256, (7, 1))),
)
B_REDUCTION = (
    ((192, 1), (192, 3, "V")),
    ((256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, "V")),
)


def googlenet(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "relu"
) -> keras.Model:
    """Build GoogLeNet (Inception v1) of Szegedy et al. 2014, arXiv:1409.4842.

    6,998,552 parameters with 3 bands and 1000 classes, without the two auxiliary heads, which
    only help its training (13,378,280 with them); the paper's table sums to 6.8 million.
    """

    def conv(x: keras.KerasTensor, filters: int, size: int, label: str, strides: int = 1):
        x = convolve(x, filters, size, label, strides=strides)
        return activate(x, activation, f"{label}_{activation}")

    def pool(x: keras.KerasTensor, label: str, strides: int = 2):
        return layers.MaxPooling2D(3, strides, "same", name=label)(x)

    inputs = keras.Input(input_shape)
    x = pool(conv(inputs, 64, 7, "block1_conv1", 2), "block1_pool1")
    x = conv(normalise_responses(x), 64, 1, "block1_conv2")
    x = normalise_responses(conv(x, 192, 3, "block1_conv3"))
    for block, modules in GOOGLENET.items():
        x = pool(x, f"block{block}_pool")
        for module, (one, low3, three, low5, five, pooled) in modules.items():
            label = f"block{block}_{module}"
            branches = [
                conv(x, one, 1, f"{label}_1x1"),
                conv(conv(x, low3, 1, f"{label}_3x3_reduce"), three, 3, f"{label}_3x3"),
                conv(conv(x, low5, 1, f"{label}_5x5_reduce"), five, 5, f"{label}_5x5"),
                conv(pool(x, f"{label}_pool", 1), pooled, 1, f"{label}_pool_1x1"),
            ]
            x = layers.Concatenate(name=f"{label}_concat")(branches)
    return finish(inputs, x, classes, "googlenet", dropout=0.4)


def _chain(
    x: keras.KerasTensor, steps: tuple[Step, ...], label: str, activation: str
) -> keras.KerasTensor:
    """Apply the convolutions of one branch to a map (object, y, x, feature)."""
    for i, (filters, size, *valid) in enumerate(steps, 1):
        x = convolve_normalise(
            x,
            filters,
            size,
            f"{label}_conv{i}",
            activation,
            strides=2 if valid else 1,
            padding="valid" if valid else "same",
        )
    return x


def _module(
    x: keras.KerasTensor, branches: tuple, pooled: int, label: str, activation: str
) -> keras.KerasTensor:
    """Join branches with an average-pooled one of `pooled` features."""
    average = layers.AveragePooling2D(3, 1, "same", name=f"{label}_pool")(x)
    outputs = [_chain(average, ((pooled, 1),), f"{label}_pooled", activation)]
    outputs += [_chain(x, b, f"{label}_branch{i}", activation) for i, b in enumerate(branches, 1)]
    return layers.Concatenate(name=f"{label}_concat")(outputs)


def _reduction(
    x: keras.KerasTensor, branches: tuple, label: str, activation: str
) -> keras.KerasTensor:
    """Halve a map: strided branches beside a maximum."""
    outputs = [layers.MaxPooling2D(3, 2, name=f"{label}_pool")(x)]
    outputs += [_chain(x, b, f"{label}_branch{i}", activation) for i, b in enumerate(branches, 1)]
    return layers.Concatenate(name=f"{label}_concat")(outputs)


def _stem(x: keras.KerasTensor, activation: str) -> keras.KerasTensor:
    """Apply figure 3 of the paper: 299 x 299 to 35 x 35 x 384."""

    def conv(x: keras.KerasTensor, filters: int, size: int | tuple, label: str, **options):
        return convolve_normalise(x, filters, size, f"block1_{label}", activation, **options)

    x = conv(x, 32, 3, "conv1", strides=2, padding="valid")
    x = conv(conv(x, 32, 3, "conv2", padding="valid"), 64, 3, "conv3")
    x = _reduction(x, (((96, 3, "V"),),), "block1_join1", activation)
    short = conv(conv(x, 64, 1, "left1"), 96, 3, "left2", padding="valid")
    long = conv(conv(conv(x, 64, 1, "right1"), 64, (1, 7), "right2"), 64, (7, 1), "right3")
    long = conv(long, 96, 3, "right4", padding="valid")
    x = layers.Concatenate(name="block1_join2")([short, long])
    return _reduction(x, (((192, 3, "V"),),), "block1_join3", activation)


def _module_c(x: keras.KerasTensor, label: str, activation: str) -> keras.KerasTensor:
    """Apply figure 6 of the paper, whose branches fork at their ends."""
    average = layers.AveragePooling2D(3, 1, "same", name=f"{label}_pool")(x)
    short = _chain(x, ((384, 1),), f"{label}_branch2", activation)
    long = _chain(x, ((384, 1), (448, (1, 3)), (512, (3, 1))), f"{label}_branch3", activation)
    outputs = [
        _chain(average, ((256, 1),), f"{label}_pooled", activation),
        _chain(x, ((256, 1),), f"{label}_branch1", activation),
        _chain(short, ((256, (1, 3)),), f"{label}_branch2_wide", activation),
        _chain(short, ((256, (3, 1)),), f"{label}_branch2_high", activation),
        _chain(long, ((256, (3, 1)),), f"{label}_branch3_high", activation),
        _chain(long, ((256, (1, 3)),), f"{label}_branch3_wide", activation),
    ]
    return layers.Concatenate(name=f"{label}_concat")(outputs)


def inception_v4(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "relu"
) -> keras.Model:
    """Build Inception-v4 of Szegedy et al. 2016, arXiv:1602.07261.

    42,679,816 trainable parameters with 3 bands and 1000 classes.
    """
    inputs = keras.Input(input_shape)
    x = _stem(inputs, activation)
    for i in range(1, 5):
        x = _module(x, A_BRANCHES, 96, f"block2_module{i}", activation)
    x = _reduction(x, A_REDUCTION, "block3_reduction", activation)
    for i in range(1, 8):
        x = _module(x, B_BRANCHES, 128, f"block3_module{i}", activation)
    x = _reduction(x, B_REDUCTION, "block4_reduction", activation)
    for i in range(1, 4):
        x = _module_c(x, f"block4_module{i}", activation)
    return finish(inputs, x, classes, "inception_v4", dropout=0.2)
