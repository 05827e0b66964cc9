"""SqueezeNet: few parameters, by squeezing before each 3x3 convolution."""

from __future__ import annotations

import keras
from keras import layers

from luneta.models.activations import activate
from luneta.models.architectures.layers import convolve

# Fire modules of version 1.1: features squeezed, and expanded by 1x1 and by 3x3 each
FIRE = {2: (16, 64), 3: (16, 64), 4: (32, 128), 5: (32, 128)} | {
    6: (48, 192),
    7: (48, 192),
    8: (64, 256),
    9: (64, 256),
}


def squeezenet(
    input_shape: tuple[int, int, int], classes: int | None = None, activation: str = "relu"
) -> keras.Model:
    """Build SqueezeNet 1.1 of Iandola et al. 2016, arXiv:1602.07360.

    1,235,496 parameters with 3 bands and 1000 classes, 722,496 without its top.

    Notes
    -----
    Layers are in the order, and named as in the weights files of keras-squeezenet, with `_` for
    the `/` that Keras 3 does not allow: `fire2_squeeze1x1` for `fire2/squeeze1x1`.
    """

    def conv(x: keras.KerasTensor, filters: int, size: int, label: str, **options):
        return activate(
            convolve(x, filters, size, label, **options), activation, f"{label}_{activation}"
        )

    inputs = keras.Input(input_shape)
    x = conv(inputs, 64, 3, "conv1", strides=2, padding="valid")
    for module, (squeezed, expanded) in FIRE.items():
        if module in (2, 4, 6):
            x = layers.MaxPooling2D(3, 2, name=f"pool{module - 1}")(x)
        x = conv(x, squeezed, 1, f"fire{module}_squeeze1x1")
        sides = [conv(x, expanded, size, f"fire{module}_expand{size}x{size}") for size in (1, 3)]
        x = layers.Concatenate(name=f"fire{module}_concat")(sides)
    x = layers.Dropout(0.5, name="drop9")(x)
    if classes is not None:
        x = conv(x, classes, 1, "conv10")
        x = layers.GlobalAveragePooling2D(name="pool10")(x)
    return keras.Model(inputs, x, name="squeezenet")
