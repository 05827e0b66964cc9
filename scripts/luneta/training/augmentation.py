"""Augmentation: the eight flips and quarter turns under which the sky has no preference."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


class Dihedral(keras.layers.Layer):
    """Turn each image (object, band, y, x) by a random element of the dihedral group of order 8.

    Acts in training only; pixels are moved, never interpolated (Dieleman et al. 2015,
    MNRAS 450, 1441, for galaxies).
    """

    def __init__(self, seed: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, x: Any, training: bool = False) -> Any:
        """Transpose and flip along each axis, each with probability one half."""
        if not training:
            return x
        shape = (3, ops.shape(x)[0], 1, 1, 1)
        transposed, up, left = ops.unstack(
            keras.random.uniform(shape, seed=self.generator) < 0.5, num=3, axis=0
        )
        x = ops.where(transposed, ops.swapaxes(x, 2, 3), x)
        x = ops.where(up, ops.flip(x, axis=2), x)
        return ops.where(left, ops.flip(x, axis=3), x)
