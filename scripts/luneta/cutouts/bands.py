"""One band of one tile: pixels made comparable before anything is cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sep
from astropy.wcs import WCS
from reproject import reproject_interp

from luneta.survey.flags import Flag
from luneta.survey.images import ImageError, read_grid, read_pixels
from luneta.survey.tiles import BandFiles

GRID_TOLERANCE = 0.05


@dataclass
class BandImage:
    """A band of a tile on the reference grid.

    Attributes
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32; bad pixels are NaN.
    saturated : numpy.ndarray or None
        Shape (y, x), bool.
    sky_noise : float
        Standard deviation of the sky, in the image's own units.
    """

    pixels: np.ndarray
    saturated: np.ndarray | None
    sky_noise: float = np.nan


def mask_planes(mask: np.ndarray, settings: dict) -> tuple[np.ndarray, np.ndarray]:
    """Read a mask image.

    Parameters
    ----------
    mask : numpy.ndarray
        Shape (y, x), integer.
    settings : dict
        The config's `input.mask` section.

    Returns
    -------
    bad, saturated : numpy.ndarray
        Shape (y, x), bool.
    """
    planes = settings["planes"]

    def on(names) -> np.ndarray:
        values = [planes[name] for name in names if name in planes]
        if settings["encoding"] == "codes":
            return np.isin(mask, values)
        return (mask & sum(1 << bit for bit in values)) != 0

    ignored = on(settings["ignore"])
    if settings["encoding"] == "codes":
        bad = (mask != 0) & ~ignored
    else:
        allowed = sum(1 << planes[name] for name in settings["ignore"] if name in planes)
        bad = (mask & ~np.array(allowed, mask.dtype)) != 0
    return bad, on(settings["saturated"])


def read_band(files: BandFiles, mask_settings: dict) -> BandImage:
    """Read a band's image and make its bad pixels NaN: those masked, of no weight, or not finite.

    Raises
    ------
    ImageError
        If a file is missing or broken, shapes differ, or no pixel is good.
    """
    pixels = _plane(read_pixels(files.image), files.image).astype(np.float32)
    saturated = None
    pixels[~np.isfinite(pixels)] = np.nan
    if files.mask:
        mask = _same_shape(read_pixels(files.mask), pixels, files.mask)
        bad, saturated = mask_planes(mask.astype(np.int64), mask_settings)
        pixels[bad] = np.nan
    if files.weight:
        weight = _same_shape(read_pixels(files.weight), pixels, files.weight)
        pixels[~(weight > 0)] = np.nan
    if np.isnan(pixels).all():
        raise ImageError(Flag.NO_DATA, f"{files.image} has no good pixel")
    return BandImage(pixels, saturated)


def _plane(pixels: np.ndarray, name: str) -> np.ndarray:
    if pixels.ndim != 2:
        raise ImageError(
            Flag.UNREADABLE_FILE, f"{name} has {pixels.ndim} axes; a tile's image has 2, (y, x)"
        )
    return pixels


def _same_shape(pixels: np.ndarray, image: np.ndarray, name: str) -> np.ndarray:
    if pixels.shape != image.shape:
        raise ImageError(
            Flag.UNREADABLE_FILE,
            f"{name} has shape {pixels.shape}, the image it belongs to {image.shape}",
        )
    return pixels


def same_grid(wcs: WCS, shape, reference: WCS, reference_shape) -> bool:
    """Whether two images share their pixel grid to 0.05 pixel."""
    if tuple(shape) != tuple(reference_shape):
        return False
    ny, nx = shape
    x, y = np.array([0, nx - 1, 0, nx - 1, nx / 2]), np.array([0, 0, ny - 1, ny - 1, ny / 2])
    there = np.array(reference.world_to_pixel(wcs.pixel_to_world(x, y)))
    return bool(np.abs(there - [x, y]).max() < GRID_TOLERANCE)


def align(band: BandImage, files: BandFiles, reference: tuple[WCS, tuple[int, int]]) -> BandImage:
    """Resample a band onto the reference band's grid, where the two differ; flux is conserved.

    Parameters
    ----------
    reference : tuple
        Coordinate system and shape (y, x) of the reference band.

    Raises
    ------
    ImageError
        If the two do not overlap, or the band has no celestial coordinate system.
    """
    wcs, shape = read_grid(files.image)
    if same_grid(wcs, shape, *reference):
        return band
    target, target_shape = reference
    area = _pixel_area(target) / _pixel_area(wcs)
    pixels, _ = reproject_interp((band.pixels, wcs), target, shape_out=target_shape)
    if np.isnan(pixels).all():
        raise ImageError(Flag.NO_DATA, f"{files.image} has no pixel on the reference band's image")
    saturated = None
    if band.saturated is not None:
        spread, _ = reproject_interp(
            (band.saturated.astype(np.float32), wcs), target, shape_out=target_shape
        )
        saturated = np.nan_to_num(spread) > 0.1
    return BandImage((pixels * area).astype(np.float32), saturated)


def _pixel_area(wcs: WCS) -> float:
    return float(np.abs(np.linalg.det(wcs.pixel_scale_matrix)))


def normalise(band: BandImage, subtract_background: bool, noise_units: bool) -> BandImage:
    """Subtract the sky and divide by its noise, both as SEP finds them (Barbary 2016).

    The background map has a mesh of 64 pixels, as in SExtractor (Bertin & Arnouts 1996).
    """
    bad = np.isnan(band.pixels)
    mesh = min(64, *band.pixels.shape)
    filled = np.where(bad, np.float32(0), band.pixels)
    sky = sep.Background(filled, mask=bad, bw=mesh, bh=mesh)
    pixels = band.pixels
    if subtract_background:
        pixels -= sky.back(dtype=np.float32)
    if noise_units and sky.globalrms > 0:
        pixels /= np.float32(sky.globalrms)
    return BandImage(pixels, band.saturated, float(sky.globalrms))
