"""Resampling stamps to the network's size, with flux conserved."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

STEP = 0.01


def source_side(size: int, factor: float) -> int:
    """Side of the window, an odd number of pixels, that a stamp of `size` is resampled from."""
    return 2 * int(np.ceil((size // 2 + 0.5) * factor + 1)) + 1


def rounded_factors(factors: np.ndarray) -> np.ndarray:
    """Round factors to steps of one per cent, so that many objects share one; shape (objects,)."""
    return np.exp(np.round(np.log(factors) / STEP) * STEP)


@lru_cache(maxsize=256)
def weights(size: int, factor: float) -> np.ndarray:
    """Share of each source pixel's flux that goes to each new pixel, along one axis.

    A new pixel that is larger than a source pixel collects flux by the overlap of the two; a
    smaller one by linear interpolation. The source's central pixel falls on index size // 2.

    Parameters
    ----------
    size : int
        New side in pixels.
    factor : float
        Source pixels per new pixel along the side.

    Returns
    -------
    numpy.ndarray
        Shape (size, source_side(size, factor)), float32; rows sum to `factor`, and away from the
        edge columns to 1, exactly where new pixels are larger and on average where smaller.
    """
    side = source_side(size, factor)
    source, new = np.arange(side) - side // 2, np.arange(size) - size // 2
    distance = np.abs(new[:, None] * factor - source[None, :])
    if factor >= 1:
        shares = np.clip((factor + 1) / 2 - distance, 0, 1)
    else:
        shares = np.clip(1 - distance, 0, None) * factor
    return shares.astype(np.float32)


def noise_growth(size: int, factor: float) -> float:
    """Noise of a new pixel over that of an old one, if the noise of old pixels is independent.

    Parameters
    ----------
    size : int
        New side in pixels.
    factor : float
        Old pixels per new pixel along the side.
    """
    # Of each axis the root of a row's squares; both axes together make it whole.
    return 1.0 if factor == 1 else float((weights(size, factor) ** 2).sum(axis=1).mean())


def resample(stamps: np.ndarray, size: int, factor: float) -> np.ndarray:
    """Resample stamps; the flux of what they show stays the same.

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (objects, side, side), float32 with side = source_side(size, factor); NaN is bad.
    size : int
        New side in pixels.
    factor : float
        Old pixels per new pixel along the side.

    Returns
    -------
    numpy.ndarray
        Shape (objects, size, size), float32; NaN where less than half of the new pixel is good,
        else its good part stands for the whole.
    """
    share = weights(size, float(factor))
    bad = np.isnan(stamps)
    total = share @ np.where(bad, np.float32(0), stamps) @ share.T
    if not bad.any():
        return total
    ones = share.sum(axis=1)
    covered = (share @ (~bad).astype(np.float32) @ share.T) / np.outer(ones, ones)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(covered > 0.5, total / covered, np.float32(np.nan)).astype(np.float32)
