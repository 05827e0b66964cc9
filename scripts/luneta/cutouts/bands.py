"""One band of one tile: pixels made comparable before anything is cut."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from astropy.wcs import WCS

from luneta.cutouts import tile_fills
from luneta.cutouts.sky import Sky, fit_sky, fit_sky_in
from luneta.survey.calibration import (
    ZeroPoint,
    choose_planes,
    choose_zero_point,
    saturated_pixels,
)
from luneta.survey.constants import Fill, Judgement
from luneta.survey.fits_headers import Unit
from luneta.survey.flags import Flag
from luneta.survey.grids import resampled, same_grid
from luneta.survey.images import ImageError, ImageFile
from luneta.survey.masks import LARGEST_VALUE, bad_pixels, noise_of_weight, sentinel_pixels
from luneta.survey.tiles import BandFiles
from luneta.survey.wcs import pixel_scale, read_grid, wcs_notes

ROWS_AT_ONCE = 512

Windows = list[tuple[slice, slice]]


@dataclass
class BandImage:
    """A band of a tile on the reference grid.

    Attributes
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32; bad pixels are NaN.
    saturated : numpy.ndarray or None
        Shape (y, x), float32; 1 where saturated.
    noise : numpy.ndarray or None
        Standard deviation of each pixel by the weight image, shape (y, x), float32.
    sky : Sky or None
        What was subtracted, or would have been, and its noise.
    header : Unit or None
        Header of the image.
    zero_point : ZeroPoint
        What turns its counts into fluxes.
    conflicts : list of str
        How the config and the headers of image and mask contradict each other.
    notes : list of str
        What was odd about the files, and did no harm.
    filled : numpy.ndarray or None
        Shape (y, x), float32; 1 where one value fills the image in place of data.
    values : Judgement
        What was found out about the tile's values.
    fills : list of Fill
        Those that fill it.
    """

    pixels: np.ndarray
    saturated: np.ndarray | None = None
    noise: np.ndarray | None = None
    sky: Sky | None = None
    header: Unit | None = None
    zero_point: ZeroPoint = ZeroPoint(None)
    conflicts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    filled: np.ndarray | None = None
    values: Judgement = tile_fills.NOTHING
    fills: list[Fill] = field(default_factory=list)

    def mask_fills(self, fills: list[Fill]) -> None:
        """Make NaN of the pixels that a value fills."""
        self.filled = tile_fills.mask(self.pixels, fills, self.filled)
        self.fills = self.fills + fills


def windows_around(x: np.ndarray, y: np.ndarray, shape: tuple[int, int], side: float) -> Windows:
    """Windows of an image that hold the surroundings of its objects.

    Returns
    -------
    list of (slice, slice)
        Rows and columns, clipped to the image.
    """
    half = int(np.ceil(side / 2))
    centres = zip(np.round(y).astype(int).tolist(), np.round(x).astype(int).tolist(), strict=True)
    return [
        (
            slice(max(row - half, 0), min(row + half, shape[0])),
            slice(max(column - half, 0), min(column + half, shape[1])),
        )
        for row, column in centres
    ]


def worth_windows(image: ImageFile, count: int, side: float, below: int | None) -> bool:
    """Whether reading windows around the objects is cheaper than reading the image whole.

    A compressed image is stored row by row, so that a window costs its rows in full: 64 windows
    of 64 rows cost as much as 4096 rows. Of other images a window costs about ten times its share.

    Parameters
    ----------
    count : int
        Objects on the image.
    side : float
        Side of a window in pixels.
    below : int or None
        The config's `subset_below`.
    """
    if below is not None:
        return count < below
    ny, nx = image.shape
    if image.compressed:
        return count * side < ny
    return count * side * side * 10 < ny * nx


def _pixels_of(image: ImageFile, windows: Windows | None, fill: float, dtype) -> np.ndarray:
    """Read an image whole, or windows of it into an image of `fill`; shape (y, x)."""
    if windows is None:
        return image.read()
    pixels = np.full(image.shape, fill, dtype)
    for rows, columns in windows:
        pixels[rows, columns] = image.window(rows, columns)
    return pixels


def _read(files: BandFiles, windows: Windows | None) -> BandImage:
    """Read an image with its header."""
    with ImageFile(files.image, files.plane) as image:
        pixels = _pixels_of(image, windows, np.nan, np.float32).astype(np.float32, copy=False)
        notes = [*image.notes, *wcs_notes(image.unit)]
    return BandImage(pixels, header=image.unit, notes=[f"{files.image}: {note}" for note in notes])


def _read_beside(name: str, plane: int, windows: Windows | None, shape) -> tuple[np.ndarray, Unit]:
    """Read a mask or weight image, which must be as large as the image it belongs to."""
    with ImageFile(name, plane) as image:
        if image.shape != tuple(shape):
            raise ImageError(
                Flag.SHAPE_MISMATCH,
                f"{name} has shape {image.shape}, the image it belongs to {tuple(shape)}",
                name,
            )
        return _pixels_of(image, windows, 0, image.dtype.newbyteorder("=")), image.unit


def read_band(files: BandFiles, settings: dict, windows: Windows | None = None) -> BandImage:
    """Read a band and make its bad pixels NaN: masked, of no weight, sentinels, or not finite.

    Parameters
    ----------
    settings : dict
        `mask`, `weight` and `cutouts` of the config.
    windows : list of (slice, slice), optional
        What is read; all else is NaN. Everything if not given.

    Raises
    ------
    ImageError
        If a file is missing or broken, shapes differ, or no pixel is good.
    """
    image = _read(files, windows)
    _drop_values(image.pixels, settings["mask"].get("sentinels", []))
    _mark_saturated(image, files.image)
    if not _has_good(image.pixels):
        raise _no_data(files.image, f"has no good pixel: {_kinds(files, windows)}")
    if files.mask:
        _apply_mask(image, files, windows, settings)
    if files.weight:
        _apply_weight(image, files, windows, settings)
    _refuse_constant(image.pixels, files.image)
    image.values = tile_fills.judge_tile(image.pixels, files, settings, windows is not None)
    image.mask_fills(image.values.fills)
    if image.fills and not _has_good(image.pixels):
        raise _no_data(files.image, "has no good pixel here: one value fills it")
    return image


def _mark_saturated(image: BandImage, name: str) -> None:
    """Note the pixels that reach the level at which the header says the detector saturates."""
    saturated, note = saturated_pixels(image.pixels, image.header, name)
    image.notes += [] if note is None else [note]
    if saturated is not None:
        image.saturated = saturated.astype(np.float32)


def _apply_mask(image: BandImage, files: BandFiles, windows, settings: dict) -> None:
    """Make the pixels NaN that the mask calls bad; in place."""
    mask, header = _read_beside(files.mask, files.plane, windows, image.pixels.shape)
    planes, conflict = choose_planes(header, settings["mask"])
    if conflict is not None:
        image.conflicts.append(f"{files.mask}: {conflict}")
    bad, saturated = bad_pixels(mask, planes)
    image.pixels[bad] = np.nan
    if saturated.any():
        known = np.zeros(bad.shape, bool) if image.saturated is None else image.saturated > 0
        image.saturated = (saturated | known).astype(np.float32)
    if not _has_good(image.pixels):
        raise _no_data(files.image, f"has no good pixel left: {files.mask} marks all as bad")


def _apply_weight(image: BandImage, files: BandFiles, windows, settings: dict) -> None:
    """Make the pixels NaN that have no weight, and keep the noise if it is asked for; in place."""
    weight, _ = _read_beside(files.weight, files.plane, windows, image.pixels.shape)
    noise = noise_of_weight(weight, settings["weight"])
    image.pixels[np.isnan(noise)] = np.nan
    tells_noise = settings["weight"] != "relative"
    if tells_noise and settings["cutouts"].get("noise") == "weight":
        image.noise = noise
    if not _has_good(image.pixels):
        most = f"its largest value is {np.fmax.reduce(weight, axis=None):g}"
        reason = f"has no good pixel left: {files.weight} is positive at none; {most}"
        raise _no_data(files.image, reason)


def calibrate(
    image: BandImage, files: BandFiles, band: str, settings: dict, scale: float | None
) -> None:
    """Settle what turns the counts of an image into fluxes; in place.

    Parameters
    ----------
    settings : dict
        `zero_points` and `zero_point` of the config.
    scale : float or None
        Arcsec a pixel of this image.
    """
    image.zero_point = choose_zero_point(image.header, band, settings, scale)
    if image.zero_point.conflict is not None:
        image.conflicts.append(f"{files.image}: {image.zero_point.conflict}")


def _no_data(name: str, reason: str) -> ImageError:
    return ImageError(Flag.NO_DATA, f"{name} {reason}", name)


def _has_good(pixels: np.ndarray) -> bool:
    return any(not np.isnan(row).all() for row in pixels)


def _kinds(files: BandFiles, windows: Windows | None) -> str:
    """Tell of which kinds the pixels of an image without a good one are."""
    pixels = _read(files, windows).pixels
    size = np.abs(pixels)
    kinds = {
        "NaN": np.isnan(pixels),
        "infinite": np.isinf(pixels),
        f"beyond {LARGEST_VALUE:g}": (size >= LARGEST_VALUE) & (size < np.inf),
        "sentinel values": size < LARGEST_VALUE,
    }
    return "all are " + " or ".join(kind for kind, where in kinds.items() if where.any())


def _drop_values(pixels: np.ndarray, sentinels: list[float]) -> None:
    """Make NaN of what is not finite, beyond all measure, or marks a bad pixel; in place."""
    for start in range(0, len(pixels), ROWS_AT_ONCE):
        rows = pixels[start : start + ROWS_AT_ONCE]
        # One pass tells whether a second one is needed: a sum is finite if all its terms are.
        with np.errstate(over="ignore", invalid="ignore"):
            if not np.abs(rows.sum(dtype=np.float32)) < LARGEST_VALUE:
                rows[~(np.abs(rows) < LARGEST_VALUE)] = np.nan
        if sentinels:
            rows[sentinel_pixels(rows, sentinels)] = np.nan


def _refuse_constant(pixels: np.ndarray, name: str) -> None:
    """Raise ImageError if all good pixels of an image have the same value."""
    good = next(row[~np.isnan(row)] for row in pixels if not np.isnan(row).all())
    value = good[0]
    if (good == value).all() and (np.isnan(pixels) | (pixels == value)).all():
        raise _no_data(name, f"is constant: all its good pixels have the value {value:g}")


def on_reference_grid(
    files: BandFiles, reference: tuple[WCS | None, tuple[int, int]]
) -> WCS | None:
    """Tell whether a band must be resampled: its coordinate system if so, else None.

    Raises
    ------
    ImageError
        If the band has no celestial coordinate system; or if the reference band has none, and
        their shapes differ.
    """
    if reference[0] is None:
        _require_shape(files, reference[1])
        return None
    wcs, shape = read_grid(files.image)
    return None if same_grid(wcs, shape, *reference) else wcs


def _require_shape(files: BandFiles, shape: tuple[int, int]) -> None:
    with ImageFile(files.image, files.plane) as image:
        if image.shape != shape:
            raise ImageError(
                Flag.SHAPE_MISMATCH,
                f"{files.image} has shape {image.shape}, the reference band {shape}, and without a "
                f"coordinate system it cannot be brought onto it",
                files.image,
            )


def align(
    image: BandImage, wcs: WCS, reference: tuple[WCS, tuple[int, int]], name: str
) -> BandImage:
    """Resample a band onto the reference band's grid; flux is conserved (DeForest 2004).

    A surface brightness is averaged instead.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Coordinate system of the band.
    reference : tuple
        Coordinate system and shape (y, x) of the reference band.

    Raises
    ------
    ImageError
        If the two do not overlap.
    """
    target, shape = reference
    side = pixel_scale(target) / pixel_scale(wcs)
    averages = image.zero_point.per_area
    pixels = resampled(image.pixels, wcs, target, shape, conserve_flux=not averages)
    if np.isnan(pixels).all():
        raise _no_data(name, "has no pixel on the reference band's image")
    saturated, noise = image.saturated, image.noise
    if saturated is not None:
        spread = resampled(saturated, wcs, target, shape, conserve_flux=False)
        saturated = (np.nan_to_num(spread) > 0.1).astype(np.float32)
    if noise is not None:
        noise = resampled(noise, wcs, target, shape, conserve_flux=False)
        noise *= np.float32(_noise_growth(side) / (side**2 if averages else 1))
    filled = image.filled
    if filled is not None:
        spread = resampled(filled, wcs, target, shape, conserve_flux=False)
        filled = (np.nan_to_num(spread) > 0).astype(np.float32)
    return replace(image, pixels=pixels, saturated=saturated, noise=noise, filled=filled)


def _noise_growth(side: float) -> float:
    """Noise of a new pixel, `side` old ones wide, over that of an old one.

    It grows as the root of the area that a pixel collects, but as the area where new pixels are
    smaller and share what they collect. The Hann kernel takes in a neighbour's light, which leaves
    3/4: the root of the integral of cos(pi x / 2)^4 from -1 to 1, once for each axis.
    """
    return 0.75 * side * min(side, 1.0)


def without_sky(image: BandImage, background: str, windows: Windows | None = None) -> BandImage:
    """Fit the sky, and subtract it if `background` is `map`.

    Parameters
    ----------
    windows : list of (slice, slice), optional
        What was read of the image, if not all.
    """
    image.sky = fit_sky(image.pixels) if windows is None else fit_sky_in(image.pixels, windows)
    if background == "map":
        image.sky.subtract_from(image.pixels)
    return image


def light_of(image: BandImage, background: str) -> np.ndarray:
    """Give the pixels less the sky, shape (y, x), float32; a copy if they still have it."""
    if background == "map":
        return image.pixels
    light = image.pixels.copy()
    image.sky.subtract_from(light)
    return light
