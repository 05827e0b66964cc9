"""Augmentation: random changes of cutouts as Keras layers, made on the device in training only.

All layers take and give (object, band, y, x), float32. Bad pixels (NaN) move with the image where
pixels are only moved; before interpolation they become 0, which is what the network's own
preprocessing makes of them: empty sky.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from luneta.config import Augmentation
from luneta.models import devices


class Seeds(keras.random.SeedGenerator):
    """Seeds that differ on each replica of TensorFlow's strategy."""

    def next(self, ordered: bool = True) -> Any:
        """Give the seed of the next draw."""
        return devices.apart_by_replica(super().next(ordered))


class Random(keras.layers.Layer):
    """A layer with a seed of its own that acts in training only."""

    def __init__(self, seed: int, **kwargs: Any):
        super().__init__(dtype="float32", **kwargs)
        self.generator = Seeds(seed)

    def call(self, x: Any, training: bool = False) -> Any:
        """Change images (object, band, y, x) if in training."""
        return self.change(x) if training else x

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        """Shapes stay."""
        return input_shape

    def uniform(self, x: Any, low: float, high: float, draws: int = 1) -> Any:
        """Draw a number for each object, shape (draw, object, 1, 1)."""
        shape = (draws, ops.shape(x)[0], 1, 1)
        return keras.random.uniform(shape, low, high, seed=self.generator)


class Dihedral(Random):
    """Turn each image by a random element of the dihedral group of order 8.

    Pixels are moved, never interpolated (Dieleman et al. 2015, MNRAS 450, 1441, for galaxies).
    """

    def change(self, x: Any) -> Any:
        """Transpose and flip along each axis, each with probability one half."""
        shape = (3, ops.shape(x)[0], 1, 1, 1)
        transposed, up, left = ops.unstack(
            keras.random.uniform(shape, seed=self.generator) < 0.5, num=3, axis=0
        )
        x = ops.where(transposed, ops.swapaxes(x, 2, 3), x)
        x = ops.where(up, ops.flip(x, axis=2), x)
        return ops.where(left, ops.flip(x, axis=3), x)


def sky_for_bad(x: Any) -> Any:
    """Replace bad pixels (NaN) by 0, of any shape."""
    return ops.where(ops.isnan(x), ops.zeros_like(x), x)


def separable(x: Any, rows: Any, columns: Any) -> Any:
    """Apply a matrix along y and another along x, each object its own.

    Parameters
    ----------
    x
        Images (object, band, y, x).
    rows, columns
        Weights (object, new y, y) and (object, new x, x).
    """
    x = ops.matmul(rows[:, None], sky_for_bad(x))
    return ops.matmul(x, ops.swapaxes(columns, 1, 2)[:, None])


def bilinear_weights(side: int, shift: Any, zoom: Any) -> Any:
    """Give the weights of bilinear interpolation along one axis.

    The content moves by `shift` pixels after it has grown by `zoom` about the middle of the image;
    what comes from outside has no weight.

    Parameters
    ----------
    side
        Pixels along the axis.
    shift, zoom
        Shape (object, 1, 1).

    Returns
    -------
    tensor
        (object, new pixel, old pixel).
    """
    pixels = ops.arange(side, dtype="float32")
    middle = (side - 1) / 2
    source = (pixels[None, :, None] - middle - shift) / zoom + middle
    return ops.maximum(0.0, 1.0 - ops.abs(source - pixels[None, None, :]))


class ShiftZoom(Random):
    """Shift by up to `shift` pixels along each axis and zoom by 1 - `zoom` to 1 + `zoom`."""

    def __init__(self, shift: float, zoom: float, seed: int, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.shift, self.zoom = shift, zoom

    def change(self, x: Any) -> Any:
        """Interpolate bilinearly; sky moves in as zeros."""
        up, right = ops.unstack(self.uniform(x, -self.shift, self.shift, 2), num=2, axis=0)
        zoom = self.uniform(x, 1 - self.zoom, 1 + self.zoom)[0]
        rows = bilinear_weights(x.shape[2], up, zoom)
        return separable(x, rows, bilinear_weights(x.shape[3], right, zoom))


def gaussian_weights(side: int, sigma: Any, largest: float) -> Any:
    """Give the weights of a Gaussian blur along one axis.

    The kernel is cut at 4 `largest` and sums to 1, so that flux is lost over the edge alone.

    Parameters
    ----------
    side
        Pixels along the axis.
    sigma
        Shape (object, 1, 1), pixels; 0 gives the identity.
    largest
        Largest value of `sigma`.

    Returns
    -------
    tensor
        (object, new pixel, old pixel).
    """
    reach = math.ceil(4 * largest)
    sigma = ops.maximum(sigma, 1e-3)

    def kernel(distance: np.ndarray) -> Any:
        values = ops.exp(-0.5 * ops.square(distance.astype("float32")[None] / sigma))
        return values * (np.abs(distance) <= reach)

    total = ops.sum(kernel(np.arange(-reach, reach + 1)[None]), axis=2, keepdims=True)
    pixels = np.arange(side)
    return kernel(pixels[:, None] - pixels[None]) / total


class Blur(Random):
    """Blur the PSF by a Gaussian with a sigma of 0 to `sigma` pixels."""

    def __init__(self, sigma: float, seed: int, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.sigma = sigma

    def change(self, x: Any) -> Any:
        """Convolve along y, then along x; flux is conserved away from the edge."""
        sigma = self.uniform(x, 0.0, self.sigma)[0]
        rows = gaussian_weights(x.shape[2], sigma, self.sigma)
        return separable(x, rows, gaussian_weights(x.shape[3], sigma, self.sigma))


class Noise(Random):
    """Add Gaussian noise with a scatter of 0 to `scatter`, in the units of the pixels."""

    def __init__(self, scatter: float, seed: int, **kwargs: Any):
        super().__init__(seed, **kwargs)
        self.scatter = scatter

    def change(self, x: Any) -> Any:
        """Add noise of one scatter to all bands of an object; a bad pixel stays bad."""
        scatter = self.uniform(x, 0.0, self.scatter)[0][..., None]
        return x + scatter * keras.random.normal(ops.shape(x), seed=self.generator)


def layers(augmentation: Augmentation, seed: int, suffix: str = "") -> list[Random]:
    """Make the layers that a config asks for, in the order of the light's way to the pixels.

    Parameters
    ----------
    augmentation
        Section of the config.
    seed
        Until the training loop gives each layer another one for each epoch.
    suffix
        Of the layers' names.
    """
    chosen: list[Random] = []
    if augmentation.dihedral:
        chosen.append(Dihedral(seed, name=f"dihedral{suffix}"))
    if augmentation.shift or augmentation.zoom:
        amounts = augmentation.shift, augmentation.zoom
        chosen.append(ShiftZoom(*amounts, seed, name=f"shift_zoom{suffix}"))
    if augmentation.blur:
        chosen.append(Blur(augmentation.blur, seed, name=f"blur{suffix}"))
    if augmentation.noise:
        chosen.append(Noise(augmentation.noise, seed, name=f"noise{suffix}"))
    return chosen
