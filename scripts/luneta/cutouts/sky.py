"""The sky behind the objects: its level and its noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep

LARGE, SPARSE = 1024, 3
ROWS_AT_ONCE = 64
MAD_TO_SIGMA = 1.482602218505602
MOST_SAMPLES = 512


@dataclass(frozen=True)
class Sky:
    """The sky of an image.

    Attributes
    ----------
    level : numpy.ndarray
        Map of the sky, shape (y // step, x // step) rounded up, float32.
    step : int
        Image pixels per pixel of the map, along a side.
    noise : float
        Standard deviation of a pixel.
    """

    level: np.ndarray
    step: int
    noise: float

    def subtract_from(self, pixels: np.ndarray) -> None:
        """Subtract the map from the image in place; shape (y, x), float32."""
        step = self.step
        wide = np.empty((ROWS_AT_ONCE, pixels.shape[1]), np.float32)
        for start in range(0, len(self.level), ROWS_AT_ONCE):
            level = self.level[start : start + ROWS_AT_ONCE]
            for first in range(step):
                columns = wide[: len(level), first::step]
                columns[...] = level[:, : columns.shape[1]]
            block = pixels[start * step : (start + len(level)) * step]
            for first in range(step):
                rows = block[first::step]
                rows -= wide[: len(rows)]


def fit_sky(pixels: np.ndarray) -> Sky:
    """Fit the sky of an image with SEP (Barbary 2016), as SExtractor does (Bertin & Arnouts 1996).

    The mesh is about 64 pixels wide. In an image of 1024 pixels or more it is twice as wide, and
    every third pixel of every third row is looked at: the 1,800 in a mesh, and the median of nine
    meshes that SEP takes, tell the level to about 2 % of the noise.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32; NaN is bad.
    """
    large = min(pixels.shape) >= LARGE
    step, cell = (SPARSE, 128) if large else (1, 64)
    sky = _background(pixels[::step, ::step], cell / step)
    return Sky(sky.back(dtype=np.float32), step, float(sky.globalrms))


def fit_sky_in(pixels: np.ndarray, windows: list[tuple[slice, slice]]) -> Sky:
    """Fit a sky of its own in each window of an image that was not read whole.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32; NaN is bad, or was not read.
    windows : list of (slice, slice)
        Rows and columns that were read.

    Returns
    -------
    Sky
        Its noise is the median of the windows'.
    """
    level, noises = np.zeros(pixels.shape, np.float32), []
    for rows, columns in windows:
        if not np.isnan(pixels[rows, columns]).all():
            sky = _background(pixels[rows, columns])
            level[rows, columns] = sky.globalback
            noises.append(sky.globalrms)
    return Sky(level, 1, float(np.median(noises)))


def _background(pixels: np.ndarray, cell: float = 64) -> sep.Background:
    bad = np.isnan(pixels)
    sample = np.where(bad, np.float32(0), pixels) if bad.any() else np.ascontiguousarray(pixels)
    high, wide = (_even_cell(side, cell) for side in pixels.shape)
    return sep.Background(sample, mask=bad if bad.any() else None, bw=wide, bh=high)


def _even_cell(side: int, cell: float) -> int:
    """Width near `cell` that divides a side without leaving a sliver."""
    return -(-side // max(1, round(side / cell)))


def ring(size: int, inner: float, outer: float) -> np.ndarray:
    """Choose the pixels of a ring around the centre of a stamp, 512 of them at most.

    Parameters
    ----------
    size : int
        Side of the stamp in pixels.
    inner, outer : float
        Radii as fractions of half the side.

    Returns
    -------
    numpy.ndarray
        Indices into the flattened stamp, shape (pixels,), int64.
    """
    y, x = np.indices((size, size)) - size // 2
    radius = np.hypot(x, y) / (size / 2)
    found = np.flatnonzero((radius >= inner) & (radius <= outer))
    return found[:: max(1, len(found) // MOST_SAMPLES)]


def ring_level(stamps: np.ndarray, annulus: dict) -> np.ndarray:
    """Measure the median of a ring around each object.

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (objects, y, x), float32; NaN is bad.
    annulus : dict
        `inner` and `outer`, as fractions of half the side.

    Returns
    -------
    numpy.ndarray
        Shape (objects,), float32; 0 where the ring has no good pixel.
    """
    chosen = ring(stamps.shape[-1], annulus["inner"], annulus["outer"])
    return np.nan_to_num(median(stamps.reshape(len(stamps), -1)[:, chosen]))


def median(values: np.ndarray) -> np.ndarray:
    """Median along the last axis without its NaNs; NaN where there is nothing else."""
    good = np.isfinite(values).any(axis=-1)
    found = np.full(values.shape[:-1], np.nan, np.float32)
    if good.any():
        found[good] = np.nanmedian(values[good], axis=-1)
    return found
