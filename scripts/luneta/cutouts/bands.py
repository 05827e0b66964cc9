"""One band of one tile: pixels made comparable before anything is cut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from astropy.wcs import WCS

from luneta.cutouts.sky import Sky, fit_sky, fit_sky_in
from luneta.survey.flags import Flag
from luneta.survey.grids import resampled, same_grid
from luneta.survey.images import ImageError, ImageFile
from luneta.survey.masks import bad_pixels, noise_of_weight, sentinel_pixels
from luneta.survey.tiles import BandFiles
from luneta.survey.wcs import pixel_scale, read_grid

LARGEST_VALUE = 1e30
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
    """

    pixels: np.ndarray
    saturated: np.ndarray | None = None
    noise: np.ndarray | None = None
    sky: Sky | None = None


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


def _read(name: str, plane: int, windows: Windows | None) -> np.ndarray:
    with ImageFile(name, plane) as image:
        if windows is None:
            return image.read()
        pixels = np.full(image.shape, np.nan, np.float32)
        for rows, columns in windows:
            pixels[rows, columns] = image.window(rows, columns)
        return pixels


def _read_beside(name: str, plane: int, windows: Windows | None, shape) -> np.ndarray:
    """Read a mask or weight image, which must be as large as the image it belongs to."""
    with ImageFile(name, plane) as image:
        if image.shape != tuple(shape):
            raise ImageError(
                Flag.SHAPE_MISMATCH,
                f"{name} has shape {image.shape}, the image it belongs to {tuple(shape)}",
                name,
            )
        if windows is None:
            return image.read()
        pixels = np.zeros(shape, image.dtype.newbyteorder("="))
        for rows, columns in windows:
            pixels[rows, columns] = image.window(rows, columns)
        return pixels


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
    pixels = _read(files.image, files.plane, windows).astype(np.float32, copy=False)
    image = BandImage(pixels)
    _drop_values(pixels, settings["mask"].get("sentinels", []))
    if not _has_good(pixels):
        raise _no_data(files.image, f"has no good pixel: {_kinds(files, windows)}")
    if files.mask:
        mask = _read_beside(files.mask, files.plane, windows, pixels.shape)
        bad, saturated = bad_pixels(mask, settings["mask"])
        pixels[bad] = np.nan
        image.saturated = saturated.astype(np.float32) if saturated.any() else None
        if not _has_good(pixels):
            raise _no_data(files.image, f"has no good pixel left: {files.mask} marks all as bad")
    if files.weight:
        weight = _read_beside(files.weight, files.plane, windows, pixels.shape)
        noise = noise_of_weight(weight, settings["weight"])
        pixels[np.isnan(noise)] = np.nan
        tells_noise = settings["weight"] != "relative"
        if tells_noise and settings["cutouts"].get("noise") == "weight":
            image.noise = noise
        if not _has_good(pixels):
            most = f"its largest value is {np.fmax.reduce(weight, axis=None):g}"
            reason = f"has no good pixel left: {files.weight} is positive at none; {most}"
            raise _no_data(files.image, reason)
    _refuse_constant(pixels, files.image)
    return image


def _no_data(name: str, reason: str) -> ImageError:
    return ImageError(Flag.NO_DATA, f"{name} {reason}", name)


def _has_good(pixels: np.ndarray) -> bool:
    return any(not np.isnan(row).all() for row in pixels)


def _kinds(files: BandFiles, windows: Windows | None) -> str:
    """Tell of which kinds the pixels of an image without a good one are."""
    pixels = _read(files.image, files.plane, windows)
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
    pixels = resampled(image.pixels, wcs, target, shape, conserve_flux=True)
    if np.isnan(pixels).all():
        raise _no_data(name, "has no pixel on the reference band's image")
    saturated, noise = image.saturated, image.noise
    if saturated is not None:
        spread = resampled(saturated, wcs, target, shape, conserve_flux=False)
        saturated = (np.nan_to_num(spread) > 0.1).astype(np.float32)
    if noise is not None:
        noise = resampled(noise, wcs, target, shape, conserve_flux=False)
        noise *= np.float32(_noise_growth(side))
    return BandImage(pixels, saturated, noise)


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
