"""The bands of a tile on one pixel grid, to find and measure objects in."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS

from luneta.survey.calibration import choose_planes, choose_zero_point, saturated_pixels
from luneta.survey.constants import mask_constant
from luneta.survey.detected import detection_bands, measured_bands
from luneta.survey.fits_headers import Unit
from luneta.survey.flags import Flag
from luneta.survey.grids import resampled, same_grid
from luneta.survey.images import ImageError, ImageFile, memory_for, split_extension
from luneta.survey.masks import LARGEST_VALUE, bad_pixels, noise_of_weight, sentinel_pixels
from luneta.survey.measure import Plane, without_sky
from luneta.survey.remote import localised
from luneta.survey.tiles import BandFiles, Tile
from luneta.survey.wcs import pixel_scale, read_grid
from luneta.urls import shown_url

LEAST_MESH = 16
SATURATED_SHARE = 0.1

log = logging.getLogger(__name__)


def _required(
    name: str, plane: int, shape: tuple[int, int] | None = None
) -> tuple[np.ndarray, Unit]:
    """Read a plane of an image, and its header.

    Raises
    ------
    ImageError
        If the file cannot be read, or its shape is not the one it must have.
    """
    with ImageFile(name) as image:
        several = image.planes is not None  # the mask of a cube may be one plane for all bands
    with ImageFile(name, plane if several else 0) as image:
        if shape is not None and tuple(image.shape) != tuple(shape):
            raise ImageError(
                Flag.SHAPE_MISMATCH,
                f"{name} has shape {tuple(image.shape)}, the image it belongs to {tuple(shape)}",
                name,
            )
        return image.read(), image.unit


@dataclass(frozen=True)
class BandPixels:
    """An image with its mask and weight.

    Attributes
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32; 0 where bad.
    bad, saturated : numpy.ndarray
        Shape (y, x), bool. A saturated pixel is bad only if the mask says so.
    noise : numpy.ndarray or None
        Standard deviation of each pixel, shape (y, x), float32, where the weight image tells it.
    header : Unit
        Header of the image.
    """

    pixels: np.ndarray
    bad: np.ndarray
    saturated: np.ndarray
    noise: np.ndarray | None
    header: Unit


def read_image(files: BandFiles, settings: Mapping) -> BandPixels:
    """Read an image with its mask and weight.

    Parameters
    ----------
    files : BandFiles
        Of one band.
    settings : mapping
        `mask` and `weight` of the config's `input` section.

    Raises
    ------
    ImageError
        If a file is missing or broken, shapes differ, or no pixel is good.
    """
    stored, header = _required(files.image, files.plane)
    bad = sentinel_pixels(stored, settings["mask"]["sentinels"])
    pixels = np.ascontiguousarray(stored, np.float32)
    bad |= ~(np.abs(pixels) < LARGEST_VALUE)
    good = np.where(bad, np.float32(np.nan), pixels)
    saturated, _ = saturated_pixels(good, header, files.image)
    saturated = np.zeros(pixels.shape, bool) if saturated is None else saturated
    if files.mask:
        mask, mask_header = _required(files.mask, files.plane, bad.shape)
        masked = bad_pixels(mask, choose_planes(mask_header, settings["mask"])[0])
        bad |= masked[0]
        saturated |= masked[1]
    noise = None
    if files.weight:
        weight, _ = _required(files.weight, files.plane, bad.shape)
        noise = noise_of_weight(weight, settings["weight"])
        bad |= np.isnan(noise)
        noise = None if settings["weight"] == "relative" else np.nan_to_num(noise, nan=1.0)
    bad |= _filled(pixels, bad, settings["mask"].get("constant"))
    if bad.all():
        raise ImageError(Flag.NO_DATA, f"{files.image} has no good pixel", files.image)
    return BandPixels(np.where(bad, np.float32(0), pixels), bad, saturated, noise, header)


def _filled(pixels: np.ndarray, bad: np.ndarray, limit: float | None) -> np.ndarray:
    """Find the pixels that one value fills instead of an observation; shape (y, x), bool."""
    if limit is None:
        return np.zeros(bad.shape, bool)
    _, filled = mask_constant(np.where(bad, np.float32(np.nan), pixels), limit)
    return np.zeros(bad.shape, bool) if filled is None else filled


def on_grid(plane: Plane, wcs: WCS, grid: tuple[WCS, tuple[int, int]], name: str) -> Plane:
    """Bring an image onto another grid; flux is conserved.

    The noise of a pixel is the one that makes the noise of a sum over many pixels right. Resampled
    pixels are correlated, so that one alone has less.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Coordinate system of the image.
    grid : tuple
        Coordinate system and shape (y, x) of the new grid.
    name : str
        Name of the image, for messages.

    Raises
    ------
    ImageError
        If the image has no good pixel there.
    """
    target, shape = grid
    light = np.where(plane.bad, np.float32(np.nan), plane.pixels)
    pixels = resampled(light, wcs, target, shape, conserve_flux=True)
    bad = np.isnan(pixels)
    if bad.all():
        raise ImageError(Flag.NO_DATA, f"{name} has no good pixel on the reference band's image")
    noise = resampled(plane.noise, wcs, target, shape, conserve_flux=False)
    noise *= np.float32(pixel_scale(target) / pixel_scale(wcs))
    bad |= ~(noise > 0)
    zero, one = np.float32(0), np.float32(1)
    return Plane(
        np.where(bad, zero, pixels),
        bad,
        np.where(bad, one, noise),
        _saturated_on_grid(plane, wcs, target, shape),
    )


def _saturated_on_grid(plane: Plane, wcs: WCS, target: WCS, shape) -> np.ndarray:
    if not plane.saturated.any():
        return np.zeros(shape, bool)
    saturated = plane.saturated.astype(np.float32)
    spread = resampled(saturated, wcs, target, shape, conserve_flux=False)
    return np.nan_to_num(spread) > SATURATED_SHARE


def noise_weighted_sum(planes: Iterable[Plane]) -> Plane:
    """Add up images in units of their noise, whatever their units are.

    Each image is divided by its typical noise. The sum is their mean, weighted by the inverse
    variance of each pixel; a pixel that is bad in one image is the mean of the others. This is
    nearly the best for objects that stand out equally in all bands, whatever their colour is.

    Parameters
    ----------
    planes : iterable of Plane
        At least one, all of one shape; one at a time is in memory.

    Returns
    -------
    Plane
        In units of the noise of one image.
    """
    total = weight = saturated = None
    for plane in planes:
        typical = np.median(plane.noise[~plane.bad])
        share = np.where(plane.bad, np.float32(0), np.square(typical / plane.noise))
        light = share * (plane.pixels / typical)
        total = light if total is None else np.add(total, light, out=total)
        weight = share if weight is None else np.add(weight, share, out=weight)
        saturated = plane.saturated if saturated is None else saturated | plane.saturated
    bad = ~(weight > 0)
    weight[bad] = 1
    pixels = np.where(bad, np.float32(0), total / weight)
    return Plane(pixels, bad, 1 / np.sqrt(weight), saturated)


class TilePlanes:
    """The bands of a tile on the grid of its reference band, read one at a time.

    Parameters
    ----------
    settings : mapping
        `reference_band`, `bands`, `detection`, `mask`, `weight`, `zero_points`, `zero_point`,
        `remote` of the config's `input` section.

    Attributes
    ----------
    wcs : astropy.wcs.WCS
        Coordinate system of the reference band.

    Raises
    ------
    ImageError
        If the reference band is missing or has no coordinate system.
    """

    def __init__(self, tile: Tile, settings: Mapping):
        self.tile, self.settings = tile, settings
        self.reference = measured_bands(settings)[0]
        self._fetched = contextlib.ExitStack()
        self._files: dict[str, BandFiles] = {}
        self._failed: set[str] = set()
        self.unavailable: list[str] = []
        self._last: tuple[str, Plane] | None = None
        self._zero_points: dict[str, float | None] = {}
        try:
            with self._naming(self.reference):
                self.grid = read_grid(self.files(self.reference).image)
        except BaseException:
            self.close()
            raise
        self.wcs = self.grid[0]

    def __enter__(self) -> TilePlanes:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was fetched."""
        self._fetched.close()

    def files(self, band: str) -> BandFiles:
        """Files of a band with local names.

        Raises
        ------
        ImageError
            If the tile has no such band, or it cannot be fetched.
        """
        if band not in self.tile.bands:
            what = f"in the reference band {band}" if band == self.reference else f"in band {band}"
            raise ImageError(Flag.MISSING_FILE, f"tile {self.tile.name} has no image {what}")
        if band not in self._files:
            fetched = localised(self.tile.bands[band], self.settings.get("remote") or {})
            self._files[band] = self._fetched.enter_context(fetched)
        return self._files[band]

    @contextlib.contextmanager
    def _naming(self, band: str) -> Iterator[None]:
        """Name files in errors as the tile does, not as what was fetched is called."""
        try:
            yield
        except ImageError as error:
            local, given = self._files.get(band), self.tile.bands.get(band)
            if local == given or local is None:
                raise
            reason, path = str(error), error.path
            for kind in ("image", "mask", "weight"):
                if getattr(local, kind):
                    old, new = (split_extension(getattr(f, kind))[0] for f in (local, given))
                    reason = reason.replace(str(old), str(new))
                    path = new if str(path) == str(old) else path
            raise ImageError(error.flag, reason, path) from None

    def plane(self, band: str) -> Plane | None:
        """Read a band; None if it cannot be used, unless it is the reference band.

        Raises
        ------
        ImageError
            If the reference band cannot be used.
        """
        if band in self._failed:
            return None
        if self._last is None or self._last[0] != band:
            self._last = None  # before another one is read
            try:
                with self._naming(band), memory_for(f"tile {self.tile.name}, band {band}"):
                    self._last = band, self._read(band)
            except ImageError as error:
                if band == self.reference:
                    raise
                log.warning("tile %s, band %s is not measured: %s", self.tile.name, band, error)
                self._failed.add(band)
                if error.flag == Flag.UNAVAILABLE:
                    self.unavailable.append(error.path or shown_url(self.tile.bands[band].image))
                return None
        return self._last[1]

    def _read(self, band: str) -> Plane:
        files, mesh = self.files(band), self.settings["detection"]["mesh"]
        image = read_image(files, self.settings)
        wcs, shape = read_grid(files.image)
        self._zero_points[band] = self._zero_point(image.header, band, pixel_scale(wcs))
        same = band == self.reference or same_grid(wcs, shape, *self.grid)
        if not same:  # as wide on the sky as the mesh of the reference band
            mesh = max(LEAST_MESH, round(mesh * pixel_scale(self.wcs) / pixel_scale(wcs)))
        plane = without_sky(image.pixels, image.bad, image.noise, mesh, image.saturated)
        return plane if same else on_grid(plane, wcs, self.grid, files.image)

    def _zero_point(self, header: Unit, band: str, scale: float) -> float | None:
        """AB magnitude of one count, summed over pixels; None if there is none."""
        chosen = choose_zero_point(header, band, self.settings, scale)
        if chosen.value is not None and chosen.per_area:
            log.warning(
                "tile %s, band %s has no magnitudes: its BUNIT is a surface brightness, and "
                "input.zero_points gives no flux of a pixel; set input.zero_point: header",
                self.tile.name, band,
            )  # fmt: skip
            return None
        return chosen.value

    def zero_point(self, band: str) -> float | None:
        """AB magnitude of one count in a band that has been read; None if it is not known."""
        return self._zero_points[band]

    def detection_plane(self) -> Plane:
        """Image on which objects are detected: a band, or the noise-weighted sum of several.

        Raises
        ------
        ImageError
            If the reference band cannot be used, or none of the bands.
        """
        bands = detection_bands(self.settings)
        if bands == [self.reference]:
            return self.plane(self.reference)
        planes = (self.plane(band) for band in bands)
        used = (plane for plane in planes if plane is not None)
        first = next(used, None)
        if first is None:
            raise ImageError(
                Flag.NO_DATA, f"tile {self.tile.name} has no usable image in {', '.join(bands)}"
            )
        return noise_weighted_sum(itertools.chain([first], used))
