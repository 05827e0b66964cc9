"""Widening the first layer of a network of red, green and blue to any number of bands."""

from __future__ import annotations

import keras
import numpy as np

KINDS = ("mean", "copy", "zero")


def channels(bands: int, rgb: list[int] | None = None, kind: str = "mean") -> list[int | None]:
    """Give what each band stands for.

    Parameters
    ----------
    bands
        Number of bands.
    rgb
        Indices of the bands that stand for red, green and blue; the first three if not given.
    kind
        See `widen`.

    Returns
    -------
    list
        For each band 0 (red), 1 (green), 2 (blue) or None (grey: a mean of the three).
    """
    if bands < 3 or (kind == "mean" and bands != 3):
        return [None] * bands
    chosen = dict(zip(rgb or (0, 1, 2), range(3), strict=True))
    others = [band for band in range(bands) if band not in chosen]
    if kind == "copy":
        chosen |= {band: i % 3 for i, band in enumerate(others)}
    return [chosen.get(band) for band in range(bands)]


def widen(
    kernel: np.ndarray, bands: int, rgb: list[int] | None = None, kind: str = "mean"
) -> np.ndarray:
    """Widen the kernel of a first layer.

    Parameters
    ----------
    kernel
        (y, x, 3, filter), its inputs in the order red, green, blue.
    bands
        Number of bands, not 3: three bands keep the kernel as it is.
    rgb
        Indices of the bands that stand for red, green and blue; the first three if not given.
    kind
        `mean`: every band gets the mean of the three filters, times 3 / bands. `copy`: the bands
        of `rgb` get the red, green and blue filter, further bands take them in turn; a filter
        used n times is divided by n. Of two bands, the first gets red and half of green, the
        second half of green and blue; one band gets their sum. `zero`: the bands of `rgb` get red,
        green and blue, all others zero; with fewer than three bands it is `copy`.

    Returns
    -------
    numpy.ndarray
        (y, x, band, filter), of the type of `kernel`.

    Notes
    -----
    `mean` and `copy` keep the sum over bands, and so the response to a grey image, all of whose
    bands are equal. The mean filter is that of Wightman's timm (2019); keeping the response by the
    scale is from Wang et al. 2016 (arXiv:1608.00859), who widened RGB networks to optical flow.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no way {kind!r} to widen a stem: it is one of {KINDS}")
    if kernel.shape[2] != 3:
        raise ValueError(f"only a stem of 3 bands can be widened, this has {kernel.shape[2]}")
    return np.einsum("yxcf,cb->yxbf", kernel, _mixing(bands, rgb, kind)).astype(kernel.dtype)


def _mixing(bands: int, rgb: list[int] | None, kind: str) -> np.ndarray:
    """Give how much of each filter (red, green, blue) each band gets: (3, band), float64."""
    if kind == "mean":
        return np.full((3, bands), 1 / bands)
    if bands == 1:
        return np.ones((3, 1))
    if bands == 2:
        return np.array([[1, 0], [0.5, 0.5], [0, 1]])
    taken = channels(bands, rgb, "copy" if kind == "copy" else "zero")
    shares = np.zeros((3, bands))
    for band, channel in enumerate(taken):
        if channel is not None:
            shares[channel, band] = 1 / taken.count(channel)
    return shares


def find(network: keras.Model) -> keras.Variable:
    """Give the kernel that takes the image first: (y, x, band, filter).

    Raises
    ------
    ValueError
        If there is none, or none that takes all bands.
    """
    bands = network.input_shape[-1]
    for variable in network.weights:
        if len(variable.shape) == 4:
            if variable.shape[2] != bands:
                break
            return variable
    raise ValueError(f"the first layer of {network.name} is no convolution of {bands} bands")


def copy_widened(
    source: keras.Model,
    target: keras.Model,
    rgb: list[int] | None = None,
    kind: str = "mean",
    *,
    reverse: bool = False,
) -> None:
    """Fill a network of any number of bands with the weights of one of three.

    Parameters
    ----------
    source
        Network of three bands.
    target
        The same network of another number of bands.
    rgb, kind
        See `widen`.
    reverse
        Whether the source takes blue, green, red (`caffe` scaling). The bands of the target keep
        the survey's order always.
    """
    wide = find(target)
    for old, new in zip(source.weights, target.weights, strict=True):
        values = keras.ops.convert_to_numpy(old)
        if new is wide:
            kernel = values[:, :, ::-1] if reverse else values
            values = widen(kernel, target.input_shape[-1], rgb, kind)
        new.assign(values)
