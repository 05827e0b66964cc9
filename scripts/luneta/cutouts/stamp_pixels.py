"""Measuring and cutting many stamps of one shape at once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from luneta.cutouts.resample import resample, source_side, weights
from luneta.cutouts.sky import MAD_TO_SIGMA
from luneta.survey.masks import LARGEST_VALUE

MOST_SAMPLES = 2048


def drop_bad_values(stamps: np.ndarray) -> None:
    """Make NaN of what is not finite, or beyond all measure; in place.

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (objects, band, y, x), float32.
    """
    for stamp in stamps:
        # Most stamps are all good, and then the two extremes tell so.
        if not (stamp.min() > -LARGEST_VALUE and stamp.max() < LARGEST_VALUE):
            stamp[~(np.abs(stamp) < LARGEST_VALUE)] = np.nan


def without_signal(stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the bands that have no good pixel, or the same value in all good pixels.

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (objects, band, y, x), float32; NaN is bad.

    Returns
    -------
    empty, constant : numpy.ndarray
        Shape (objects, band), bool.
    """
    low = np.fmin.reduce(stamps.reshape(*stamps.shape[:2], -1), axis=-1)
    high = np.fmax.reduce(stamps.reshape(*stamps.shape[:2], -1), axis=-1)
    return np.isnan(low), low == high


def median(values: np.ndarray) -> np.ndarray:
    """Median along the last axis without its NaNs; NaN where there is nothing else.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (..., pixels), float32; its order along the last axis is lost.
    """
    flat = values.reshape(-1, values.shape[-1])
    spoilt = np.isnan(flat.sum(axis=1))
    found = np.full(len(flat), np.nan, np.float32)
    for row in np.flatnonzero(spoilt):
        good = flat[row][~np.isnan(flat[row])]
        if len(good):
            found[row] = np.median(good)
    whole = flat[~spoilt] if spoilt.any() else flat
    middle = whole.shape[1] // 2
    whole.partition(middle, axis=1)
    value = whole[:, middle]
    if whole.shape[1] % 2 == 0:
        value = (value + whole[:, :middle].max(axis=1)) / 2
    found[~spoilt] = value
    return found.reshape(values.shape[:-1])


@lru_cache(maxsize=64)
def border(ny: int, nx: int) -> np.ndarray:
    """Pixels of the border, a tenth of the shorter side wide; indices into the flattened stamp.

    Of a wide border some are left out: two thousand tell the level to 3 % of the noise.
    """
    width = max(1, min(ny, nx) // 10)
    inside = np.zeros((ny, nx), bool)
    inside[width:-width, width:-width] = True
    found = np.flatnonzero(~inside)
    return found[:: max(1, round(len(found) / MOST_SAMPLES))]


def border_sky(stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and noise (1.4826 MAD) of the sky in the stamps' borders.

    Where most of a border has one value, that is taken for padding, and the rest for the sky.

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (objects, band, y, x), float32; NaN is bad.

    Returns
    -------
    level, noise : numpy.ndarray
        Shape (objects, band), float32; level 0 and noise NaN where the border has no good pixel.
    """
    pixels = border(*stamps.shape[-2:])
    values = stamps.reshape(*stamps.shape[:2], -1)[..., pixels]
    level, noise = _level_and_noise(values)
    if (padded := noise == 0).any():
        rest = stamps.reshape(*stamps.shape[:2], -1)[padded][:, pixels]
        rest[rest == level[padded][:, None]] = np.nan
        rest_level, rest_noise = _level_and_noise(rest)
        known = np.isfinite(rest_noise)
        level[padded] = np.where(known, rest_level, level[padded])
        noise[padded] = np.where(known, rest_noise, 0)
    return level, noise


def _level_and_noise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and 1.4826 MAD along the last axis, whose values are lost."""
    level = np.nan_to_num(median(values))
    values -= level[..., None]
    return level, np.float32(MAD_TO_SIGMA) * median(np.abs(values, out=values))


def around(stamps: np.ndarray, x: np.ndarray, y: np.ndarray, side: int) -> np.ndarray:
    """Take a window of each stamp.

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (objects, band, y, x), float32.
    x, y : numpy.ndarray
        Pixel of each stamp that falls on index side // 2, shape (objects,), int64.

    Returns
    -------
    numpy.ndarray
        Shape (objects, band, side, side), float32; NaN beyond the stamp's edge. A view of
        `stamps` where all windows are the same and inside.
    """
    low, left = y - side // 2, x - side // 2
    ny, nx = stamps.shape[-2:]
    inside = min(low.min(), left.min()) >= 0 and max(low.max() - ny, left.max() - nx) <= -side
    if inside and np.ptp(low) == 0 and np.ptp(left) == 0:
        return stamps[:, :, low[0] : low[0] + side, left[0] : left[0] + side]
    windows = np.full((*stamps.shape[:2], side, side), np.nan, np.float32)
    corners = zip(low.tolist(), left.tolist(), strict=True)
    for stamp, window, (bottom, first) in zip(stamps, windows, corners, strict=True):
        part = stamp[
            :, max(bottom, 0) : max(bottom + side, 0), max(first, 0) : max(first + side, 0)
        ]
        y0, x0 = max(-bottom, 0), max(-first, 0)
        window[:, y0 : y0 + part.shape[1], x0 : x0 + part.shape[2]] = part
    return windows


def kept_side(shape: tuple[int, int], fraction: float, size: int) -> int:
    """Pixels along the side of a stamp's central part.

    A part that is a pixel smaller or larger than `size`, or as long as `size` along one axis, was
    meant to be of that size: it is not resampled, and what lies beyond the stamp's edge is missing.
    Where it is to be resampled, the side is made even if `size` is, and odd if it is, and so small
    that the new pixel in the corner lies on the stamp for more than half: else it would be bad.
    """
    length = min(shape)
    side, longer = (max(1, round(fraction * n)) for n in (length, max(shape)))
    if abs(side - size) <= 1 or longer == size:
        return size
    side -= (side - size) % 2
    while side > 2 and not _has_corners(length, size, side / size):
        side -= 2
    return max(1, side)


@lru_cache(maxsize=256)
def _has_corners(length: int, size: int, factor: float) -> bool:
    """Whether the corners of a resampled cutout are good pixels; see `resample`."""
    source = np.arange(source_side(size, factor)) - source_side(size, factor) // 2 + length // 2
    share = weights(size, factor)[[0, -1]]
    on_stamp = share[:, (source >= 0) & (source < length)].sum(axis=1) / share.sum(axis=1)
    return bool(on_stamp.min() ** 2 > 0.5)


def cut(
    stamps: np.ndarray, x: np.ndarray, y: np.ndarray, factor: np.ndarray, size: int, mean: bool
) -> np.ndarray:
    """Cut the windows that cutouts show, and resample them to `size`.

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (objects, band, y, x), float32; NaN is bad.
    x, y : numpy.ndarray
        The object's pixel, which falls on index size // 2; shape (objects,), int64.
    factor : numpy.ndarray
        Stamp pixels per cutout pixel along a side, shape (objects,), float64.
    mean : bool
        Whether resampling averages pixels (of a picture) instead of adding up their flux.

    Returns
    -------
    numpy.ndarray
        Shape (objects, band, size, size), float32.
    """
    if (factor == 1).all():
        return around(stamps, x, y, size)
    cutouts = np.empty((*stamps.shape[:2], size, size), np.float32)
    for value in np.unique(factor):
        same = np.flatnonzero(factor == value)
        side = size if value == 1 else source_side(size, float(value))
        windows = around(stamps[same], x[same], y[same], side)
        if value != 1:
            flat = resample(windows.reshape(-1, side, side), size, float(value))
            windows = flat.reshape(len(same), -1, size, size)
            windows *= np.float32(value**-2 if mean else 1)
        cutouts[same] = windows
    return cutouts
