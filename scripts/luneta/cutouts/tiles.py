"""Cutouts of the objects of a shard of tiles."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from luneta.cutouts.bands import BandImage, align, normalise, read_band
from luneta.cutouts.gather import gather, over_edge
from luneta.cutouts.quality import Quality, center_touched
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError, read_grid
from luneta.survey.tiles import Tile

log = logging.getLogger(__name__)


def cut_tiles(objects: pa.Table, settings: dict) -> tuple[np.ndarray, np.ndarray, Quality]:
    """Cut the objects of a shard out of their tiles.

    Parameters
    ----------
    objects : pyarrow.Table
        The shard's objects.
    settings : dict
        `tiles`, `bands`, `reference_band`, `mask`, `cutouts`.

    Returns
    -------
    rows : numpy.ndarray
        Rows of the objects that were placed on a tile, shape (placed,), int64.
    images : numpy.ndarray
        Their cutouts, shape (placed, band, y, x), float32; NaN where there is nothing.
    quality : Quality
        Flags and measurements of all objects.
    """
    quality = Quality.of(objects, settings["bands"])
    x, y = np.asarray(objects["x"]), np.asarray(objects["y"])
    quality.dx, quality.dy = x - np.floor(x + 0.5), y - np.floor(y + 0.5)
    rows = np.flatnonzero(quality.usable)
    size = settings["cutouts"]["size"]
    images = np.full((len(rows), len(settings["bands"]), size, size), np.nan, np.float32)
    names = np.array(objects["tile"].to_pylist(), object)
    for tile in map(Tile.from_dict, settings["tiles"]):
        for number, band in enumerate(settings["bands"]):
            slots = np.flatnonzero((names[rows] == tile.name) & quality.usable[rows])
            here = rows[slots]
            image = _load(tile, band, here, quality, settings)
            if image is not None and len(here):
                stamps = _cut(image, x[here], y[here], here, quality, size)
                images[slots, number] = stamps
                quality.sky_noise[here, number] = image.sky_noise
    return rows, images, quality


def _cut(image: BandImage, x, y, here, quality: Quality, size: int) -> np.ndarray:
    """Gather stamps, and flag those over the edge and those with a saturated centre."""
    quality.mark(here[over_edge(image.pixels.shape, x, y, size)], Flag.EDGE)
    if image.saturated is not None:
        saturated = gather(image.saturated, x, y, size, False)
        quality.mark(here[center_touched(saturated)], Flag.SATURATED)
    return gather(image.pixels, x, y, size, np.float32(np.nan))


def _load(tile: Tile, band: str, here, quality: Quality, settings: dict) -> BandImage | None:
    """Read a band; a file that cannot be used costs its own objects, `here`, only."""
    try:
        if band not in tile.bands:
            raise ImageError(Flag.MISSING_FILE, f"tile {tile.name} has no image in band {band}")
        image = read_band(tile.bands[band], settings["mask"])
        return _prepare(image, tile, band, settings) if len(here) else None
    except ImageError as error:
        log.warning("tile %s, band %s: %s", tile.name, band, error)
        path = tile.bands[band].image if band in tile.bands else None
        quality.reject_file(here, error.flag, str(error), tile.name, band, error.path or path)
        return None


def _prepare(image: BandImage, tile: Tile, band: str, settings: dict) -> BandImage:
    cutouts, reference = settings["cutouts"], settings["reference_band"]
    if band != reference:
        image = align(image, tile.bands[band], read_grid(tile.bands[reference].image))
    return normalise(image, cutouts["background"] == "map", cutouts["noise_units"])
