"""Cutouts of objects that come as one image each."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from luneta.cutouts.quality import Quality
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError, read_pixels, split_extension

PICTURES = {".jpg", ".jpeg", ".png"}
MAD_TO_SIGMA = 1.482602218505602

log = logging.getLogger(__name__)


def read_picture(name: str) -> np.ndarray:
    """Read a JPEG or PNG; shape (channel, y, x), float32, 0 to 255.

    Raises
    ------
    ImageError
        If the file is missing, or broken, or not a picture.
    """
    path = Path(name)
    if not path.exists():
        raise ImageError(Flag.MISSING_FILE, f"{path} does not exist", path)
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.float32)
    except UnidentifiedImageError:
        start = path.read_bytes()[:12]
        raise ImageError(
            Flag.UNREADABLE_FILE, f"{path} is not a picture: it starts with {start!r}", path
        ) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageError(Flag.UNREADABLE_FILE, f"{path} cannot be read: {error}", path) from None
    return np.moveaxis(pixels, -1, 0)


def read_stamp(names: list[str]) -> np.ndarray:
    """Read one object's bands.

    Parameters
    ----------
    names : list of str
        File of each band; all the same for a colour picture or a FITS cube.

    Returns
    -------
    numpy.ndarray
        Shape (band, y, x), float32.
    """
    if len(set(names)) > 1 or len(names) == 1:
        planes = [_one_plane(name) for name in names]
        if len({plane.shape for plane in planes}) > 1:
            shapes = ", ".join(str(plane.shape) for plane in planes)
            raise ImageError(
                Flag.UNREADABLE_FILE, f"the bands of {names[0]} differ in shape: {shapes}"
            )
        return np.stack(planes)
    cube = _read(names[0])
    if cube.ndim != 3 or len(cube) != len(names):
        raise ImageError(
            Flag.UNREADABLE_FILE,
            f"{names[0]} has shape {cube.shape}; {len(names)} bands ask for ({len(names)}, y, x)",
        )
    return cube


def _read(name: str) -> np.ndarray:
    if split_extension(name)[0].suffix.lower() in PICTURES:
        return read_picture(name)
    return read_pixels(name).astype(np.float32)


def _one_plane(name: str) -> np.ndarray:
    pixels = _read(name)
    if pixels.ndim == 3 and (len(pixels) == 1 or Path(name).suffix.lower() in PICTURES):
        return pixels.mean(axis=0)
    if pixels.ndim != 2:
        raise ImageError(Flag.UNREADABLE_FILE, f"{name} has shape {pixels.shape}; a band is (y, x)")
    return pixels


def central(pixels: np.ndarray, fraction: float, size: int) -> np.ndarray:
    """Keep the central part of a stamp and resample it to `size`.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (band, y, x), float32; NaN is bad.
    fraction : float
        Part of the shorter side that is kept.

    Returns
    -------
    numpy.ndarray
        Shape (band, size, size), float32: means over the area of a new pixel.
    """
    ny, nx = pixels.shape[-2:]
    side = max(1, round(fraction * min(ny, nx)))
    low_y, low_x = ny // 2 - side // 2, nx // 2 - side // 2
    kept = pixels[:, low_y : low_y + side, low_x : low_x + side]
    return kept if side == size else np.stack([_resample(band, size) for band in kept])


def _resample(band: np.ndarray, size: int) -> np.ndarray:
    good = np.isfinite(band)
    total = _resize(np.where(good, band, 0), size)
    if good.all():
        return total
    weight = _resize(good, size)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(weight > 0.5, total / weight, np.nan).astype(np.float32)


def _resize(band: np.ndarray, size: int) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(band, dtype=np.float32))
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR), np.float32)


def border_sky(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and noise (1.4826 MAD) of the sky in a stamp's border, a tenth of its side wide.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (band, y, x), float32.

    Returns
    -------
    level, noise : numpy.ndarray
        Shape (band,), float32.
    """
    width = max(1, min(pixels.shape[-2:]) // 10)
    border = np.ones(pixels.shape[-2:], bool)
    border[width:-width, width:-width] = False
    values = pixels[:, border]
    level = np.nanmedian(values, axis=1)
    return level, MAD_TO_SIGMA * np.nanmedian(np.abs(values - level[:, None]), axis=1)


def prepare(names: list[str], pixels: str, settings: dict) -> tuple[np.ndarray, np.ndarray]:
    """Read one object's stamp and bring it to the cutout's size and units.

    Returns
    -------
    image : numpy.ndarray
        Shape (band, y, x), float32.
    sky_noise : numpy.ndarray
        Shape (band,), float32; NaN for display pixels.
    """
    image = read_stamp(names)
    image[~np.isfinite(image)] = np.nan
    for name, plane in zip(names, image, strict=True):
        if np.isnan(plane).all():
            raise ImageError(Flag.NO_DATA, f"{name} has no good pixel")
    if pixels == "display":
        return central(image, settings["crop"], settings["size"]), np.full(len(image), np.nan)
    level, noise = border_sky(image)
    if settings["background"] != "none":
        image = image - level[:, None, None]
    if settings["noise_units"]:
        image = image / np.where(noise > 0, noise, 1)[:, None, None]
    return central(image, settings["crop"], settings["size"]), noise


def cut_stamps(
    objects: pa.Table, stamps: pa.Table, settings: dict, threads: int
) -> tuple[np.ndarray, np.ndarray, Quality]:
    """Read the stamps of a shard; a file that cannot be used costs its own object only.

    Parameters
    ----------
    objects, stamps : pyarrow.Table
        The shard's objects, and its slice of the stamp table with `image_{band}` columns.
    settings : dict
        `bands`, `pixels`, `cutouts`.

    Returns
    -------
    rows : numpy.ndarray
        Rows of the objects whose stamps were asked for, shape (cut,), int64.
    images : numpy.ndarray
        Their cutouts, shape (cut, band, y, x), float32.
    quality : Quality
        Flags and measurements of all objects.
    """
    bands, size = settings["bands"], settings["cutouts"]["size"]
    quality = Quality.of(objects, bands)
    rows = np.flatnonzero(quality.usable)
    images = np.full((len(rows), len(bands), size, size), np.nan, np.float32)
    names = list(zip(*(stamps[f"image_{band}"].to_pylist() for band in bands), strict=True))

    def fill(slot: int) -> ImageError | None:
        row = rows[slot]
        try:
            image, noise = prepare(list(names[row]), settings["pixels"], settings["cutouts"])
        except ImageError as error:
            return error
        images[slot], quality.sky_noise[row] = image, noise
        return None

    with ThreadPoolExecutor(threads) as pool:
        for row, error in zip(rows, pool.map(fill, range(len(rows))), strict=True):
            if error is not None:
                log.warning("%s", error)
                where = np.array([row])
                path = error.path or names[row][0]
                quality.reject_file(where, error.flag, str(error), None, None, path)
    return rows, images, quality
