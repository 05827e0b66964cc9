"""Reading image files: FITS extensions, coordinate systems, and what can be wrong with them."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import fitsio
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from luneta.survey.flags import Flag

_EXTENSION = re.compile(r"^(?P<path>.+)\[(?P<extension>[^\[\]]+)\]$")


class ImageError(Exception):
    """An image file that cannot be used.

    Attributes
    ----------
    flag : Flag
        What its objects are flagged with.
    path : str or None
        The file at fault, where it is known.
    """

    def __init__(self, flag: Flag, reason: str, path: Path | str | None = None):
        super().__init__(reason)
        self.flag = flag
        self.path = None if path is None else str(path)


def split_extension(name: str) -> tuple[Path, str | int | None]:
    """Split `image.fits[SCI]` into the path and the extension's name or number.

    Examples
    --------
    >>> split_extension("image.fits[2]")[1]
    2
    """
    match = _EXTENSION.match(name)
    if match is None:
        return Path(name), None
    extension = match["extension"]
    return Path(match["path"]), int(extension) if extension.isdigit() else extension


def _unreadable(path: Path, error: Exception) -> ImageError:
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(64)
    hint = " (it looks like a web page)" if start.lstrip()[:1] == b"<" else ""
    detail = " ".join(str(error).split())[:200]
    return ImageError(Flag.UNREADABLE_FILE, f"{path} cannot be read{hint}: {detail}", path)


def _require(path: Path) -> None:
    if not path.exists():
        raise ImageError(Flag.MISSING_FILE, f"{path} does not exist", path)


def _image_extension(path: Path, extension: str | int | None) -> str | int:
    if extension is not None:
        return extension
    with fitsio.FITS(str(path)) as file:
        for number, unit in enumerate(file):
            if unit.get_exttype() == "IMAGE_HDU" and unit.has_data() and len(unit.get_dims()) >= 2:
                return number
    raise OSError("no extension holds an image")


def read_pixels(name: str) -> np.ndarray:
    """Read an image whole.

    Parameters
    ----------
    name : str
        Path of a FITS file, maybe with [EXTENSION]; else the first extension with an image.

    Returns
    -------
    numpy.ndarray
        Pixels as stored, native byte order, shape (y, x) or (plane, y, x).

    Raises
    ------
    ImageError
        If the file is missing, broken or shorter than its header says.
    """
    path, extension = split_extension(name)
    _require(path)
    try:
        pixels = fitsio.read(str(path), ext=_image_extension(path, extension))
    except Exception as error:  # fitsio raises OSError, ValueError and RuntimeError alike
        raise _unreadable(path, error) from None
    if pixels is None or pixels.ndim < 2:
        raise ImageError(Flag.UNREADABLE_FILE, f"{name} holds no image")
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def read_grid(name: str) -> tuple[WCS, tuple[int, int]]:
    """Read an image's celestial coordinate system and shape from its header alone.

    Returns
    -------
    wcs : astropy.wcs.WCS
        Celestial part.
    shape : tuple of 2 ints
        (y, x).

    Raises
    ------
    ImageError
        If the file is missing or broken, or has no celestial coordinate system.
    """
    path, extension = split_extension(name)
    _require(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with fits.open(path, memmap=False, lazy_load_hdus=True) as file:
                unit = file[_image_extension(path, extension)]
                shape = unit.shape[-2:]
                wcs = WCS(unit.header).celestial
                if wcs.has_celestial:
                    wcs_to_celestial_frame(wcs)  # raises if the frame is of no known kind
    except Exception as error:  # header, compression and WCS errors are of many kinds
        raise _unreadable(path, error) from None
    if not wcs.has_celestial:
        raise ImageError(Flag.NO_WCS, f"{name} has no celestial coordinate system (CTYPE1, CTYPE2)")
    return wcs, shape


def to_pixels(wcs: WCS, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn positions on the sky into zero-based pixel positions.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Celestial coordinate system of any frame.
    ra, dec : numpy.ndarray
        ICRS positions in degrees, shape (objects,), float64.

    Returns
    -------
    x, y : numpy.ndarray
        Pixel positions, shape (objects,), float64; NaN where the projection has none.
    """
    x, y = np.full(len(ra), np.nan), np.full(len(ra), np.nan)
    near = _on_this_side(wcs, ra, dec)
    if not near.any():
        return x, y
    sky = SkyCoord(ra[near], dec[near], unit="deg").transform_to(wcs_to_celestial_frame(wcs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x[near], y[near] = wcs.all_world2pix(
            sky.spherical.lon.deg, sky.spherical.lat.deg, 0, quiet=True
        )
    return x, y


def _on_this_side(wcs: WCS, ra: np.ndarray, dec: np.ndarray, radius: float = 10.0) -> np.ndarray:
    """Whether positions lie within `radius` degrees of the image's centre.

    Tangential projections with distortions fold far positions back onto the image.
    """
    good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    if good.any():
        ny, nx = wcs.array_shape or (1, 1)
        centre = wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2).icrs
        separation = SkyCoord(ra[good], dec[good], unit="deg").separation(centre).deg
        good[good] = separation < radius
    return good
