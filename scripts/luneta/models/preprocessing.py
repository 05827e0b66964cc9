"""Layers between a raw cutout and a backbone; they are part of every saved network.

Written with keras.ops only, so that they run on every backend of Keras.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

# Keeps the noise of the sky on both sides of zero: with the default stretch, -5 sky noise.
DARKEST = -0.25
CAFFE_MEAN = (103.939, 116.779, 123.68)

register = keras.saving.register_keras_serializable("luneta")


@register
class Stretch(keras.layers.Layer):
    """Bring raw pixels to 0 (sky) to 1 (white); NaN, a bad pixel, becomes 0 before.

    Parameters
    ----------
    kind
        `asinh`: arcsinh(x / softening) / arcsinh(maximum / softening) (Lupton et al. 2004,
        PASP 116, 133). `linear`: x / maximum. Both are clipped to -0.25 to 1.
        `display`: x / 255.
    softening, maximum
        In the units of the pixels, which is sky noise unless the config says otherwise.
    """

    def __init__(self, kind: str, softening: float = 1.0, maximum: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.kind = kind
        self.softening = softening
        self.maximum = maximum

    def call(self, x: Any) -> Any:
        """Stretch pixels of any shape, float32."""
        x = ops.where(ops.isnan(x), ops.zeros_like(x), x)
        if self.kind == "display":
            return x / 255.0
        if self.kind == "linear":
            return ops.clip(x / self.maximum, DARKEST, 1.0)
        white = float(np.arcsinh(self.maximum / self.softening))
        return ops.clip(ops.arcsinh(x / self.softening) / white, DARKEST, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Give the arguments that make this layer again."""
        own = {"kind": self.kind, "softening": self.softening, "maximum": self.maximum}
        return {**super().get_config(), **own}


@register
class ChannelsLast(keras.layers.Layer):
    """Turn (object, band, y, x) into (object, y, x, band)."""

    def call(self, x: Any) -> Any:
        """Move the band axis to the end."""
        return ops.transpose(x, (0, 2, 3, 1))


@register
class Resize(keras.layers.Layer):
    """Resize (object, y, x, band) to `side` pixels, bilinear, with antialiasing if smaller."""

    def __init__(self, side: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.side = side

    def call(self, x: Any) -> Any:
        """Resize images."""
        return ops.image.resize(
            x,
            (self.side, self.side),
            interpolation="bilinear",
            antialias=self.side < x.shape[1],
            data_format="channels_last",
        )

    def get_config(self) -> dict[str, Any]:
        """Give the arguments that make this layer again."""
        return {**super().get_config(), "side": self.side}


@register
class InputScaling(keras.layers.Layer):
    """Bring 0 to 1 to what a backbone expects: `signed` (-1 to 1) or `caffe` (see backbones)."""

    def __init__(self, kind: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.kind = kind

    def call(self, x: Any) -> Any:
        """Scale images (object, y, x, 3)."""
        if self.kind == "signed":
            return 2.0 * x - 1.0
        return ops.flip(255.0 * x, axis=-1) - ops.convert_to_tensor(CAFFE_MEAN, dtype=x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Give the arguments that make this layer again."""
        return {**super().get_config(), "kind": self.kind}


def mixing_kernel(bands: int) -> np.ndarray:
    """Give the first weights of the 1x1 convolution from `bands` bands to the 3 of RGB weights.

    One band is copied; of two the middle channel is the mean; of more, each channel is the mean of
    its third of the bands, in order. Shape (1, 1, band, 3), float32.
    """
    if bands == 1:
        kernel = np.ones((1, 3))
    elif bands == 2:
        kernel = np.array([[1, 0.5, 0], [0, 0.5, 1]])
    else:
        kernel = np.zeros((bands, 3))
        for channel, members in enumerate(np.array_split(np.arange(bands), 3)):
            kernel[members, channel] = 1 / len(members)
    return kernel.astype("float32")[None, None]
