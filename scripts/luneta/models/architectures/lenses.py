"""Networks that find strong lenses: CMU DeepLens, the ResNet50 lens finder, LensDetectNet."""

from __future__ import annotations

import keras
from keras import applications, layers

from luneta.models.activations import activate
from luneta.models.architectures.layers import (
    convolve,
    convolve_normalise,
    dense,
    finish,
    normalise,
)
from luneta.models.architectures.residual import preactivated_unit


def cmu_deeplens(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "elu"
) -> keras.Model:
    """Build CMU DeepLens of Lanusse et al. 2018, MNRAS 473, 3895, arXiv:1703.02642.

    A 7x7 convolution of 32 features, then five blocks of three pre-activated bottlenecks with 32
    to 512 features out and half as many inside; the first unit of each block but the first
    strides. 46 convolutions, not counting the projections of shortcuts.
    """
    inputs = keras.Input(input_shape)
    x = convolve_normalise(inputs, 32, 7, "block1_conv", activation)
    for stage, features in enumerate((32, 64, 128, 256, 512)):
        for i in range(3):
            x = preactivated_unit(
                x,
                features // 2,
                features,
                f"block{stage + 2}_unit{i + 1}",
                activation,
                strides=2 if stage and not i else 1,
                bias=True,
                is_activated=stage == i == 0,
            )
    return finish(inputs, x, classes, "cmu_deeplens")


def resnet50_lens_finder(
    input_shape: tuple[int, int, int], classes: int | None = None
) -> keras.Model:
    """Build the course's ResNet50 lens finder.

    ResNet50 of keras.applications (He et al. 2015, arXiv:1512.03385), global average pooling and
    one dense layer: 23,591,810 parameters, 53,120 of them not trainable, at 101 x 101 x 3 and 2
    classes.
    """
    network = applications.ResNet50(include_top=False, weights=None, input_shape=input_shape)
    return finish(network.input, network.output, classes, "resnet50_lens_finder")


def lens_detect_net(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "relu"
) -> keras.Model:
    """Build a reconstruction of LensDetectNet, the course's lens finder for FITS stamps.

    This is not the original: its layers were never published, only its 49,714,696 parameters,
    49,712,008 trainable and 2,688 not. This network meets all three at 101 x 101 x 1, the stamps
    of the space-based lens challenge, and 2 classes, and so do others.

    Notes
    -----
    The counts fix that batch norms have 1,344 channels together, and that with two classes some
    width is not a multiple of 16. A search over three to ten convolutions of the usual widths and
    kernels, all or some of them normalised, up to three hidden layers and 1, 3 or 4 bands, left
    about a hundred networks. This one is the plainest of them: three pairs of 3x3 convolutions as
    in VGG, each normalised, the overlapping pooling and the narrower last convolution of AlexNet,
    hidden layers of 1000 and 10.
    """
    inputs = keras.Input(input_shape)
    x = inputs
    for block, pair in ((1, (48, 48)), (2, (96, 256)), (3, (512, 384))):
        for i, filters in enumerate(pair, 1):
            label = f"block{block}_conv{i}"
            x = normalise(convolve(x, filters, 3, label), f"{label}_norm")
            x = activate(x, activation, f"{label}_{activation}")
        x = layers.MaxPooling2D(3, 2, name=f"block{block}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    x = dense(x, 1000, "block4_dense", activation, dropout=0.5)
    x = dense(x, 10, "block5_dense", activation)
    return finish(inputs, x, classes, "lens_detect_net")
