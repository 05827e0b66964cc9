"""Cutouts of the objects of a shard of tiles."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from math import prod

import numpy as np
import pyarrow as pa
from astropy.wcs import WCS

from luneta.cutouts.astrometry import median_offset
from luneta.cutouts.bands import (
    BandImage,
    Windows,
    align,
    calibrate,
    light_of,
    on_reference_grid,
    read_band,
    windows_around,
    without_sky,
    worth_windows,
)
from luneta.cutouts.flux import area_ratio, column, flux_factors, source_factors
from luneta.cutouts.gather import edge_distance, gather, gather_into, over_edge
from luneta.cutouts.quality import Quality, centre_touched
from luneta.cutouts.recentre import shifts
from luneta.cutouts.resample import noise_growth, resample, source_side
from luneta.cutouts.sky import median, ring_level
from luneta.cutouts.tile_fills import fills_of_cutouts
from luneta.survey.constants import describe
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError, ImageFile, memory_for
from luneta.survey.remote import localised, under_given_names
from luneta.survey.tiles import BandFiles, Tile
from luneta.survey.wcs import pixel_scale, read_grid, to_pixels, to_sky

OBJECTS_AT_ONCE = 512
SKY_WINDOW, LEAST_WINDOW = 1.5, 64

log = logging.getLogger(__name__)


def cut_tiles(
    objects: pa.Table, quality: Quality, settings: dict
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut the objects of a shard out of their tiles: each tile is read once, band by band.

    Parameters
    ----------
    objects : pyarrow.Table
        The shard's objects, those of a tile one after the other.
    quality : Quality
        Takes their flags and measurements.
    settings : dict
        See `luneta.plan.Plan.cutouts`.

    Yields
    ------
    rows : numpy.ndarray
        Rows of some objects, shape (block,), int64.
    images : numpy.ndarray
        Their cutouts, shape (block, band, y, x), float32, NaN where there is nothing; only good
        until the next block.
    """
    rows = np.flatnonzero(quality.usable)
    names = np.array(objects["tile"].to_pylist(), object)[rows]
    x, y = (np.asarray(objects[name])[rows] for name in ("x", "y"))
    tiles = [Tile.from_dict(tile) for tile in settings["tiles"]]
    _require_order(names, [tile.name for tile in tiles])
    for tile in tiles:
        here = np.flatnonzero(names == tile.name)
        cutter = TileCutter(tile, objects, rows[here], x[here], y[here], quality, settings)
        yield from cutter.blocks()
    if settings["cutouts"].get("area_ratio"):
        quality.put("galaxy_area_ratio", slice(None), area_ratio(objects, settings))


def _require_order(names: np.ndarray, tiles: list[str]) -> None:
    """Insist on what lets cutouts be written tile by tile in the order of the objects."""
    place = {name: number for number, name in enumerate(tiles)}
    if (np.diff([place[name] for name in names]) < 0).any():
        raise ValueError(f"objects are not in the order of their tiles {tiles}; run ingest again")


class TileCutter:
    """Cuts the objects of one tile.

    Parameters
    ----------
    rows : numpy.ndarray
        Their rows in the shard, shape (objects,), int64.
    x, y : numpy.ndarray
        Their zero-based pixel positions in the reference band, shape (objects,), float64.
    """

    def __init__(self, tile: Tile, objects: pa.Table, rows, x, y, quality: Quality, settings: dict):
        self.tile, self.objects, self.quality = tile, objects.take(pa.array(rows)), quality
        self.rows, self.x, self.y = rows, x, y
        self.settings, self.cutouts = settings, settings["cutouts"]
        self.bands, self.reference = settings["bands"], settings["reference_band"]
        self.size = self.cutouts["size"]
        self.factor = np.ones(len(rows))  # image pixels per cutout pixel
        self.grid: tuple[WCS | None, tuple[int, int]] | None = None
        self.scale: float | None = None  # arcsec per image pixel

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give the cutouts some objects at a time; see `cut_tiles`.

        All bands are kept in memory if they are smaller than the cutouts, else all cutouts are.
        """
        others = [band for band in self.bands if band != self.reference]
        first = self._load(self.reference)
        if self._bands_are_smaller():
            images = {self.reference: first, **{band: self._load(band) for band in others}}
            buffer = np.empty((min(len(self.rows), OBJECTS_AT_ONCE), *self._shape()), np.float32)
            for part in self._parts():
                block = buffer[: len(self.rows[part])]
                for band, image in images.items():
                    self._cut(image, band, part, block)
                yield self.rows[part], block
        else:
            stamps = np.empty((len(self.rows), *self._shape()), np.float32)
            self._cut_all(first, self.reference, stamps)
            del first
            for band in others:
                self._cut_all(self._load(band), band, stamps)
            for part in self._parts():
                yield self.rows[part], stamps[part]

    def _cut_all(self, image: BandImage | None, band: str, stamps: np.ndarray) -> None:
        for part in self._parts():
            self._cut(image, band, part, stamps[part])

    def _shape(self) -> tuple[int, int, int]:
        return len(self.bands), self.size, self.size

    def _parts(self) -> Iterator[slice]:
        for start in range(0, len(self.rows), OBJECTS_AT_ONCE):
            yield slice(start, min(start + OBJECTS_AT_ONCE, len(self.rows)))

    def _bands_are_smaller(self) -> bool:
        return self.grid is not None and prod(self.grid[1]) < len(self.rows) * self.size**2

    def _load(self, band: str) -> BandImage | None:
        """Read a band; a file that cannot be used costs the tile's own objects only."""
        try:
            if band not in self.tile.bands:
                reason = f"tile {self.tile.name} has no image in band {band}"
                raise ImageError(Flag.MISSING_FILE, reason)
            given = self.tile.bands[band]
            with localised(given, self.settings["remote"]) as files, memory_for(given.image):
                return self._prepared(files, band)
        except ImageError as error:
            log.warning("tile %s, band %s: %s", self.tile.name, band, error)
            path = self.tile.bands[band].image if band in self.tile.bands else None
            what = (error.flag, str(error), self.tile.name, band, error.path or path)
            if band in (self.settings.get("bands_required") or self.bands):
                self.quality.reject_file(self.rows, *what)
            else:
                self.quality.mark(self.rows, Flag.MISSING_BAND)
                self.quality.note_file(*what)
            return None

    def _prepared(self, files: BandFiles, band: str) -> BandImage | None:
        if band == self.reference:
            self._open_grid(files)
        if self.grid is None or not self.quality.usable[self.rows].any():
            read_band(files, self.settings)  # only to learn whether this file is good
            return None
        wcs = None if band == self.reference else on_reference_grid(files, self.grid)
        windows = self._windows(files, band) if wcs is None else None
        image, windows = self._read(files, windows)
        self._mask_fills(image, wcs)
        given = self.tile.bands[band].image  # which is not the name of a copy that was fetched
        if image.fills:
            what = self.tile.name, band, given
            self.quality.note_file(Flag.CONSTANT, describe(given, image.fills), *what)
        calibrate(
            image, files, band, self.settings, self.scale if wcs is None else pixel_scale(wcs)
        )
        self._report(image, files, band)
        if wcs is not None:
            image = align(image, wcs, self.grid, files.image)
        image = without_sky(image, self.cutouts["background"], windows)
        if band == self.reference:
            self._settle(image)
        return image

    def _mask_fills(self, image: BandImage, wcs: WCS | None) -> None:
        """Mask values that fill a cutout, rare as they may be in the tile.

        Parameters
        ----------
        wcs : astropy.wcs.WCS or None
            Coordinate system of the band; None if it has the reference band's grid.
        """
        limit = self.settings["mask"].get("constant")
        if not limit:
            return
        x, y, scale = self.x, self.y, 1.0
        if wcs is not None:
            x, y = to_pixels(wcs, *to_sky(self.grid[0], x, y))
            scale = pixel_scale(self.grid[0]) / pixel_scale(wcs)
        known = np.isfinite(x) & np.isfinite(y)
        side = max(1, int(np.ceil(self.size * self.factor.max() * scale)))
        where = image.pixels, x[known], y[known], side, limit, image.values
        image.mask_fills(fills_of_cutouts(*where))

    def _report(self, image: BandImage, files: BandFiles, band: str) -> None:
        """Flag the objects if config and headers contradict each other; note what is odd."""
        given = self.tile.bands[band]
        path = given.image
        for conflict in image.conflicts:
            reason = under_given_names(conflict, files, given)
            self.quality.mark(self.rows, Flag.HEADER_CONFLICT)
            self.quality.note_file(Flag.HEADER_CONFLICT, reason, self.tile.name, band, path)
        for note in image.notes:
            reason = under_given_names(note, files, given)
            self.quality.note_file(None, reason, self.tile.name, band, path)

    def _open_grid(self, files: BandFiles) -> None:
        """Learn the reference band's grid; one without a sky will do for positions in pixels."""
        try:
            self.grid = read_grid(files.image)
            self.scale = pixel_scale(self.grid[0])
        except ImageError as error:
            # Ingest has let only those objects through that have a place on this image.
            if error.flag != Flag.NO_WCS or not len(self.rows):
                raise
            with ImageFile(files.image, files.plane) as image:
                self.grid = None, image.shape
            self.scale = self.settings["pixel_scale"]
        self.factor = source_factors(self.objects, self.scale, self.settings)

    def _read(self, files: BandFiles, windows: Windows | None) -> tuple[BandImage, Windows | None]:
        """Read a band in windows, or whole if they are empty: the image need not be."""
        try:
            return read_band(files, self.settings, windows), windows
        except ImageError as error:
            if windows is None or error.flag != Flag.NO_DATA:
                raise
        return read_band(files, self.settings), None

    def _windows(self, files: BandFiles, band: str) -> Windows | None:
        """Choose the parts of an image to read; None for all of it."""
        if band == self.reference and self.settings["astrometry"]["max_offset"] is not None:
            return None
        largest = float(self.factor.max())
        side = self.size if largest == 1 else source_side(self.size, largest)
        side = max(SKY_WINDOW * side, LEAST_WINDOW)
        if band == self.reference and self.cutouts["recentre"] != "none":
            side += 2 * self._farthest_way()
        with ImageFile(files.image, files.plane) as image:
            if worth_windows(image, len(self.rows), side, self.cutouts["subset_below"]):
                return windows_around(self.x, self.y, image.shape, side)
        return None

    def _farthest_way(self) -> float:
        """Pixels by which recentring may move a cutout."""
        return self.cutouts["recentre_radius"] / (self.scale or 1.0)

    def _settle(self, image: BandImage) -> None:
        """Fix, on the reference band, where each object is cut."""
        put, shape = partial(self.quality.put, rows=self.rows), image.pixels.shape
        light = light_of(image, self.cutouts["background"])
        self._check_astrometry(light, image.sky.noise)
        if self.cutouts["recentre"] != "none":
            self._recentre(light)
        put("dx", values=self.x - np.floor(self.x + 0.5))
        put("dy", values=self.y - np.floor(self.y + 0.5))
        put("edge_distance", values=edge_distance(shape, self.x, self.y))
        put("resample_factor", values=self.factor)
        over = over_edge(shape, self.x, self.y, self.size, self.factor)
        self.quality.mark(self.rows[over], Flag.EDGE)

    def _recentre(self, light: np.ndarray) -> None:
        """Move the objects' positions onto their light."""
        radius, how = self._farthest_way(), self.cutouts["recentre"]
        for part in self._parts():
            way = shifts(light, self.x[part], self.y[part], radius, how)
            for name, position, shift in zip("xy", (self.x, self.y), way, strict=True):
                position[part] += shift
                self.quality.put(f"shift_{name}", self.rows[part], shift)

    def _check_astrometry(self, light: np.ndarray, noise: float) -> None:
        """Flag the tile's objects if its coordinate system disagrees with the source list."""
        asked = self.settings["astrometry"]
        if asked["max_offset"] is None or self.scale is None:
            return
        starts = ("magnitude", "instrumental_magnitude")
        magnitude = next((n for n in self.objects.column_names if n.startswith(starts)), None)
        found = median_offset(
            light,
            self.x,
            self.y,
            None if magnitude is None else -column(self.objects, magnitude),
            self.scale,
            noise,
            asked["sources"],
            asked["max_offset"],
        )
        log.info("tile %s, astrometry: %s", self.tile.name, found.reason)
        if found.off:
            self.quality.mark(self.rows, Flag.WCS_OFFSET)
            path = self.tile.bands[self.reference].image
            self.quality.note_file(
                Flag.WCS_OFFSET, found.reason, self.tile.name, self.reference, path
            )

    def _cut(self, image: BandImage | None, band: str, part: slice, stamps: np.ndarray) -> None:
        """Cut one band of some objects, in the units that the config asks for."""
        number = self.bands.index(band)
        if image is None:
            stamps[:, number] = np.nan
            return
        rows, x, y, factor = (v[part] for v in (self.rows, self.x, self.y, self.factor))
        zero_point = image.zero_point
        scale = flux_factors(self.objects, part, band, zero_point.value, self.settings)
        noise = self._noise(image, x, y) * self._growth(factor, zero_point.per_area)
        self.quality.sky_noise[rows, number] = noise * scale if zero_point.is_known else np.nan
        if self.cutouts["noise_units"]:
            scale = np.divide(1.0, noise, where=noise > 0, out=np.ones_like(noise))
        if image.saturated is not None:
            self._mark_saturated(image.saturated, rows, x, y, factor)
        if image.filled is not None:
            self._mark_filled(image.filled, rows, x, y, factor)
        if (factor == 1).all() and self.cutouts["background"] != "annulus":
            gather_into(stamps[:, number], image.pixels, x, y, scale)
        else:
            if zero_point.per_area:
                scale = scale / factor**2  # a mean, where a flux would be a sum
            self._cut_resampled(image.pixels, x, y, factor, scale, stamps[:, number])

    def _mark_saturated(self, saturated: np.ndarray, rows, x, y, factors) -> None:
        for factor in np.unique(factors):
            same = factors == factor
            side = max(3, int(self.size * factor) // 4)
            touched = centre_touched(gather(saturated, x[same], y[same], side))
            self.quality.mark(rows[same][touched], Flag.SATURATED)

    def _mark_filled(self, filled: np.ndarray, rows, x, y, factors) -> None:
        """Flag the objects whose cutout holds pixels that a constant fills."""
        for factor in np.unique(factors):
            same = factors == factor
            side = int(np.ceil(self.size * factor))
            touched = centre_touched(gather(filled, x[same], y[same], side))
            self.quality.mark(rows[same][touched], Flag.CONSTANT)

    def _growth(self, factors: np.ndarray, per_area: bool) -> np.ndarray:
        """Noise of a cutout's pixel over that of an image's; shape (objects,), float64."""
        steps, place = np.unique(factors, return_inverse=True)
        growth = np.array([noise_growth(self.size, factor) for factor in steps])
        return (growth / steps**2 if per_area else growth)[place]

    def _noise(self, image: BandImage, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Standard deviation of an image pixel near each object; shape (objects,), float64."""
        if image.noise is None:
            return np.full(len(x), image.sky.noise)
        step = max(1, self.size // 16)
        near = gather(image.noise, x, y, self.size)[:, ::step, ::step]
        found = median(near.reshape(len(near), -1))
        return np.where(np.isfinite(found), found, image.sky.noise).astype(float)

    def _cut_resampled(self, pixels, x, y, factors, scale, stamps: np.ndarray) -> None:
        """Cut with a local sky or at another pixel size."""
        for factor in np.unique(factors):
            same = np.flatnonzero(factors == factor)
            side = self.size if factor == 1 else source_side(self.size, factor)
            found = gather(pixels, x[same], y[same], side)
            if self.cutouts["background"] == "annulus":
                found -= ring_level(found, self.cutouts["annulus"])[:, None, None]
            if factor != 1:
                found = resample(found, self.size, factor)
            stamps[same] = found * scale[same, None, None].astype(np.float32)
