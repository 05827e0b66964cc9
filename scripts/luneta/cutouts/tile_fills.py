"""Tiles of which one value fills a part, as where a survey has no data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from luneta.survey.constants import (
    STRIP,
    Fill,
    find_fills,
    mask_fills,
    sample_rows,
    strips_of,
    suspects,
)
from luneta.survey.images import ImageFile
from luneta.survey.masks import bad_pixels, noise_of_weight, sentinel_pixels
from luneta.survey.tiles import BandFiles

LARGEST_VALUE = 1e30


def mask_constant(
    pixels: np.ndarray, files: BandFiles, settings: Mapping, in_windows: bool
) -> tuple[list[Fill], np.ndarray | None]:
    """Make NaN of the pixels that one value fills, in place.

    Whether one does is judged by strips of rows across the image, so that a tile that is read in
    windows is masked like one that is read whole.

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

    Returns
    -------
    fills : list of Fill
        The values.
    filled : numpy.ndarray or None
        Where they were, shape (y, x), float32, 1 or 0; None where there are none.
    """
    limit = settings["mask"].get("constant")
    if not limit:
        return [], None
    starts = sample_rows(len(pixels)) if in_windows else ()
    strips = _read_strips(files, settings, starts) if len(starts) else strips_of(pixels)
    if not suspects(strips.reshape(1, -1), limit)[0] or not (fills := find_fills(strips, limit)):
        return [], None
    filled = mask_fills(pixels, fills)
    return fills, filled.astype(np.float32) if filled.any() else None


def _read_strips(files: BandFiles, settings: Mapping, starts: np.ndarray) -> np.ndarray:
    """Read strips of an image, shape (strips, y, x); what is masked or not finite is NaN."""
    strips = _strips(files.image, files.plane, starts).astype(np.float32, copy=False)
    with np.errstate(invalid="ignore"):
        strips[~(np.abs(strips) < LARGEST_VALUE)] = np.nan
    if sentinels := settings["mask"].get("sentinels"):
        strips[sentinel_pixels(strips, sentinels)] = np.nan
    if files.mask:
        mask = _strips(files.mask, files.plane, starts)
        bad, _ = bad_pixels(mask.reshape(-1, mask.shape[-1]), settings["mask"])
        strips[bad.reshape(mask.shape)] = np.nan
    if files.weight:
        weight = _strips(files.weight, files.plane, starts)
        strips[np.isnan(noise_of_weight(weight, settings["weight"]))] = np.nan
    return strips


def _strips(name: str, plane: int, starts: np.ndarray) -> np.ndarray:
    with ImageFile(name, plane) as image:
        every = slice(0, image.shape[1])
        return np.stack([image.window(slice(int(n), int(n) + STRIP), every) for n in starts])
