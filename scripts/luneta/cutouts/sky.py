"""The sky behind the objects: its level and its noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep

LARGE = 1024
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
        step, width = self.step, pixels.shape[1]
        wide = np.repeat(self.level, step, axis=1)[:, :width]
        whole = len(pixels) // step
        pixels[: whole * step].reshape(whole, step, width)[...] -= wide[:whole, None]
        pixels[whole * step :] -= wide[whole:]


def fit_sky(pixels: np.ndarray) -> Sky:
    """Fit the sky of an image with SEP (Barbary 2016), as SExtractor does (Bertin & Arnouts 1996).

    The mesh is about 64 pixels wide. In an image of 1024 pixels or more it is twice as wide, and
    every second pixel of every second row is looked at: as many pixels decide its level.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32; NaN is bad.
    """
    step = 2 if min(pixels.shape) >= LARGE else 1
    sky = _background(pixels[::step, ::step])
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


def _background(pixels: np.ndarray) -> sep.Background:
    bad = np.isnan(pixels)
    sample = np.where(bad, np.float32(0), pixels) if bad.any() else np.ascontiguousarray(pixels)
    high, wide = (_even_cell(side) for side in pixels.shape)
    return sep.Background(sample, mask=bad if bad.any() else None, bw=wide, bh=high)


def _even_cell(side: int, cell: int = 64) -> int:
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
