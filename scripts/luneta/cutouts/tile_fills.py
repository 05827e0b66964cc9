"""Tiles of which one value fills a part, as where a survey has no data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from luneta.cutouts.gather import corner
from luneta.survey.calibration import choose_planes
from luneta.survey.constants import (
    STRIP,
    Fill,
    Judgement,
    find_fills,
    judge,
    mask_fills,
    repeats,
    sample_rows,
    spread_places,
    strips_of,
    suspects,
)
from luneta.survey.fits_headers import Unit
from luneta.survey.images import ImageFile
from luneta.survey.masks import LARGEST_VALUE, bad_pixels, noise_of_weight, sentinel_pixels
from luneta.survey.tiles import BandFiles

SCREENED = 128  # pixels of a cutout
RARER = 4  # values as rare in the tile may be common in a cutout
NOTHING = Judgement([], [], is_quantised=False)


def judge_tile(
    pixels: np.ndarray, files: BandFiles, settings: Mapping, in_windows: bool
) -> Judgement:
    """Find the values that fill a tile, by strips of rows across it.

    So a tile that is read in windows is judged like one that is read whole.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32; NaN is bad, or was not read.
    files : BandFiles
        Where the strips are read, if the image was not read whole.
    settings : mapping
        `mask` and `weight` of the config.
    in_windows : bool
        Whether the image was read in windows.
    """
    limit = settings["mask"].get("constant")
    if not limit:
        return NOTHING
    starts = sample_rows(len(pixels)) if in_windows else ()
    strips = _read_strips(files, settings, starts) if len(starts) else strips_of(pixels)
    if not suspects(strips.reshape(1, -1), limit)[0]:
        return NOTHING
    found = judge(strips, limit)
    if found.is_quantised:
        return found
    return replace(found, by_right=judge(strips, limit / RARER).by_right)


def fills_of_cutouts(
    pixels: np.ndarray, x: np.ndarray, y: np.ndarray, side: int, limit: float, tile: Judgement
) -> list[Fill]:
    """Find the values that fill a cutout, though they may be rare in its tile.

    Those of a tile whose values are quantised, or that it repeats by right, are not asked.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32; NaN is bad.
    x, y : numpy.ndarray
        Zero-based pixel positions, shape (objects,), float64.
    side : int
        Side of a cutout in pixels.
    limit : float
        The config's `input.mask.constant`.
    tile : Judgement
        Of the tile.
    """
    if tile.is_quantised or not len(x):
        return []
    low, left = corner(y, side), corner(x, side)
    fills: dict[float, Fill] = {}
    samples = _samples(pixels, low, left, side)
    samples[np.isin(samples, np.array(tile.by_right, np.float32))] = np.nan
    for row in np.flatnonzero(repeats(samples, limit)):
        window = pixels[
            max(low[row], 0) : max(low[row] + side, 0), max(left[row], 0) : max(left[row] + side, 0)
        ]
        for fill in _fills_of(window, limit):
            fills.setdefault(fill.value, fill)
    return [fill for value, fill in fills.items() if value not in tile.by_right]


def _fills_of(window: np.ndarray, limit: float) -> list[Fill]:
    """Find the values that fill a cutout, or the one that all its good pixels have."""
    good = window[~np.isnan(window)]
    if len(good) and (good == good[0]).all():
        return [Fill(float(good[0]) + 0.0, 1.0, everywhere=True, of_cutout=True)]
    return [replace(fill, of_cutout=True) for fill in find_fills(window[None], limit)]


def _samples(pixels: np.ndarray, low: np.ndarray, left: np.ndarray, side: int) -> np.ndarray:
    """Some pixels of each cutout, shape (objects, SCREENED); the nearest for those beyond."""
    down, right = np.divmod(spread_places(side * side, SCREENED), side)
    rows = np.clip(low[:, None] + down, 0, pixels.shape[0] - 1)
    columns = np.clip(left[:, None] + right, 0, pixels.shape[1] - 1)
    return pixels[rows, columns]


def mask(pixels: np.ndarray, fills: list[Fill], known: np.ndarray | None) -> np.ndarray | None:
    """Make NaN of filled pixels in place.

    Returns
    -------
    numpy.ndarray or None
        Where filled pixels are, with those `known`, shape (y, x), float32, 1 or 0; None where there
        are none.
    """
    filled = mask_fills(pixels, fills) if fills else None
    if filled is None or not filled.any():
        return known
    return filled.astype(np.float32) if known is None else np.maximum(known, filled)


def _read_strips(files: BandFiles, settings: Mapping, starts: np.ndarray) -> np.ndarray:
    """Read strips of an image, shape (strips, y, x); what is masked or not finite is NaN."""
    strips, _ = _strips(files.image, files.plane, starts)
    strips = strips.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore"):
        strips[~(np.abs(strips) < LARGEST_VALUE)] = np.nan
    if sentinels := settings["mask"].get("sentinels"):
        strips[sentinel_pixels(strips, sentinels)] = np.nan
    if files.mask:
        stored, header = _strips(files.mask, files.plane, starts)
        planes, _ = choose_planes(header, settings["mask"])
        bad, _ = bad_pixels(stored.reshape(-1, stored.shape[-1]), planes)
        strips[bad.reshape(stored.shape)] = np.nan
    if files.weight:
        weight, _ = _strips(files.weight, files.plane, starts)
        strips[np.isnan(noise_of_weight(weight, settings["weight"]))] = np.nan
    return strips


def _strips(name: str, plane: int, starts: np.ndarray) -> tuple[np.ndarray, Unit]:
    """Read strips of an image, and its header."""
    with ImageFile(name, plane) as image:
        every = slice(0, image.shape[1])
        parts = [image.window(slice(int(n), int(n) + STRIP), every) for n in starts]
        return np.stack(parts), image.unit
