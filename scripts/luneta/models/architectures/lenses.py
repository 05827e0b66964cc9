"""Networks that find strong lenses: CMU DeepLens, the ResNet50 lens finder, LensDetectNet."""

from __future__ import annotations

import keras
from keras import applications

from luneta.models.architectures.layers import convolve_normalise, finish
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
