"""LeNet-5, AlexNet, OverFeat: convolutions, then hidden dense layers."""

from __future__ import annotations

import keras
from keras import layers

from luneta.models.activations import activate
from luneta.models.architectures.layers import convolve, dense, finish, normalise_responses


def lenet5(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "tanh"
) -> keras.Model:
    """Build LeNet-5 of LeCun et al. 1998, Proc. IEEE 86, 2278.

    61,706 parameters at 32 x 32 x 1 and 10 classes, which is the form in common use: the third
    convolution sees all features of the second, pooling has no weights, the top is linear. The
    paper's own, with a sparse table of connections and weighted pooling, has 60,000.
    """
    inputs = keras.Input(input_shape)
    x = inputs
    for block, filters in ((1, 6), (2, 16)):
        x = convolve(x, filters, 5, f"block{block}_conv", padding="valid")
        x = activate(x, activation, f"block{block}_{activation}")
        x = layers.AveragePooling2D(2, name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = dense(x, 120, "block3_dense", activation)
    x = dense(x, 84, "block4_dense", activation)
    return finish(inputs, x, classes, "lenet5")


def alexnet(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "relu"
) -> keras.Model:
    """Build AlexNet of Krizhevsky, Sutskever & Hinton 2012, NIPS 25.

    60,965,224 parameters at 227 x 227 x 3 and 1000 classes: the paper's form, whose second, fourth
    and fifth convolutions are in two groups.
    """
    inputs = keras.Input(input_shape)
    x = convolve(inputs, 96, 11, "block1_conv", strides=4, padding="valid")
    x = activate(x, activation, f"block1_{activation}")
    x = layers.MaxPooling2D(3, 2, name="block1_pool")(normalise_responses(x))
    x = convolve(x, 256, 5, "block2_conv", groups=2)
    x = activate(x, activation, f"block2_{activation}")
    x = layers.MaxPooling2D(3, 2, name="block2_pool")(normalise_responses(x))
    for block, filters, groups in ((3, 384, 1), (4, 384, 2), (5, 256, 2)):
        x = convolve(x, filters, 3, f"block{block}_conv", groups=groups)
        x = activate(x, activation, f"block{block}_{activation}")
    x = layers.MaxPooling2D(3, 2, name="block5_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = dense(x, 4096, "block6_dense", activation, dropout=0.5)
    x = dense(x, 4096, "block7_dense", activation, dropout=0.5)
    return finish(inputs, x, classes, "alexnet")


def overfeat(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "relu"
) -> keras.Model:
    """Build the fast network of OverFeat, Sermanet et al. 2013, arXiv:1312.6229, table 1.

    145,920,872 parameters at 231 x 231 x 3 and 1000 classes (145 million in the paper). This is
    its classifier; its sliding windows and bounding boxes are left out.
    """
    inputs = keras.Input(input_shape)
    x = convolve(inputs, 96, 11, "block1_conv", strides=4, padding="valid")
    x = activate(x, activation, f"block1_{activation}")
    x = layers.MaxPooling2D(2, name="block1_pool")(x)
    x = convolve(x, 256, 5, "block2_conv", padding="valid")
    x = activate(x, activation, f"block2_{activation}")
    x = layers.MaxPooling2D(2, name="block2_pool")(x)
    for block, filters in ((3, 512), (4, 1024), (5, 1024)):
        x = convolve(x, filters, 3, f"block{block}_conv")
        x = activate(x, activation, f"block{block}_{activation}")
    x = layers.MaxPooling2D(2, name="block5_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = dense(x, 3072, "block6_dense", activation, dropout=0.5)
    x = dense(x, 4096, "block7_dense", activation, dropout=0.5)
    return finish(inputs, x, classes, "overfeat")
