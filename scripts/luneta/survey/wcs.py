"""Coordinate systems of images: read from headers, and used between pixels and the sky."""

from __future__ import annotations

import contextlib
import math
import re
import warnings

import numpy as np
from astropy import log as astropy_log
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from luneta.survey import iraf_wcs
from luneta.survey.fits_headers import BLOCK, CARD, ImageError, Unit
from luneta.survey.flags import Flag
from luneta.survey.images import ImageFile, split_extension

_WCS_KEYWORD = re.compile(
    r"(WCSAXES|(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[1-9]|(CD|PC|PV|PS)[1-9]_\d{1,2}"
    r"|(CD|PC)00[1-9]00[1-9]|PROJP\d{1,2}|LONPOLE|LATPOLE|EQUINOX|EPOCH|RADESYS"
    r"|RADECSYS|DATE-OBS|MJD-OBS|(A|B|AP|BP)_(ORDER|DMAX|\d_\d)|(DP|DQ|CPDIS|CPERR|CQDIS)[1-9].*"
    r"|D2IM.*|AXISCORR)"
)
_WCS_NUMBER = re.compile(r"(CRVAL|CRPIX|CDELT|CROTA)[12]|(CD|PC)[12]_[12]")
_MOST_WCS_AXES = 9
_HIGHEST_SIP_ORDER = 9


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
    with ImageFile(name) as image:
        unit, shape = image.unit, image.shape
    try:
        with _quiet_astropy():
            wcs = _celestial(unit, name)
    except ImageError:
        raise
    except Exception as error:  # astropy's errors are of many kinds
        reason = f"its coordinate system ({_axis_types(unit)}) cannot be used: {_last_line(error)}"
        raise _no_wcs(name, reason) from None
    wcs.array_shape = shape
    return wcs, shape


@contextlib.contextmanager
def _quiet_astropy():
    """Keep astropy from telling of each header what it mended in it."""
    level = astropy_log.level
    astropy_log.setLevel("WARNING")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        astropy_log.setLevel(level)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]


def _no_wcs(name: str, reason: str) -> ImageError:
    return ImageError(Flag.NO_WCS, f"{name}: {reason}", split_extension(name)[0])


def _celestial(unit: Unit, name: str) -> WCS:
    refuse_no_numbers(unit, name)
    header = _wcs_header(unit, name)
    if any(keyword.startswith(("CPDIS", "D2IMDIS")) for keyword in unit.cards):
        with fits.open(split_extension(name)[0]) as file:  # tables of other extensions matter
            wcs = WCS(file[unit.number].header, file)
    else:
        wcs = WCS(header)
    if (wcs.naxis, wcs.wcs.lng, wcs.wcs.lat) != (2, 0, 1):
        wcs = wcs.celestial
    if not wcs.has_celestial:
        raise _no_wcs(name, f"it has no celestial coordinate system ({_axis_types(unit)})")
    _refuse_singular(wcs, unit, name)
    if iraf_wcs.is_iraf(unit):
        wcs.sip = iraf_wcs.distortion(unit, wcs.pixel_scale_matrix, wcs.wcs.crpix)
    wcs_to_celestial_frame(wcs)  # raises if the frame is of no known kind
    return wcs


def _axis_types(unit: Unit) -> str:
    """What the header says of its axes, for messages."""
    axes = range(1, max(2, len(unit.shape)) + 1)
    said = {f"CTYPE{axis}": unit.get(f"CTYPE{axis}") for axis in axes}
    return ", ".join(
        f"no {keyword}" if value is None else f"{keyword} is {value!r}"
        for keyword, value in said.items()
    )


def refuse_no_numbers(unit: Unit, name: str) -> None:
    """Refuse a coordinate system one of whose numbers is none: wcslib takes it for zero.

    Raises
    ------
    ImageError
        Naming the keyword.
    """
    for keyword in filter(_WCS_NUMBER.fullmatch, unit.cards):
        value = unit.get(keyword)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise _no_wcs(name, f"{keyword} of its coordinate system is {value!r}, not a number")


def is_singular(matrix: np.ndarray) -> bool:
    """Whether a matrix, shape (2, 2), maps the plane onto a line or a point."""
    return abs(np.linalg.det(matrix)) <= 1e-10 * np.square(matrix).sum()


def _refuse_singular(wcs: WCS, unit: Unit, name: str) -> None:
    given = [unit.get(f"CD{i}_{j}") for i in (1, 2) for j in (1, 2)]
    all_zero = any(value is not None for value in given) and not any(given)
    if all_zero or is_singular(wcs.pixel_scale_matrix):
        raise _no_wcs(
            name,
            "its matrix from pixels to the sky (CD, or PC and CDELT) is singular: it maps the "
            "image onto a line or a point",
        )


def _wcs_header(unit: Unit, name: str) -> bytes:
    """The cards that bear on the coordinate system; hundreds of others cost time to parse."""
    for keyword, most in (
        ("WCSAXES", _MOST_WCS_AXES),
        *((f"{letters}_ORDER", _HIGHEST_SIP_ORDER) for letters in ("A", "B", "AP", "BP")),
    ):
        if (value := unit.get(keyword, 0)) not in range(most + 1):
            raise _no_wcs(name, f"{keyword} is {value!r}; it is at most {most}")
    cards = [b"SIMPLE  =                    T".ljust(CARD)]
    axes = (len(unit.shape), *unit.shape[::-1])
    names = ["NAXIS", *(f"NAXIS{axis}" for axis in range(1, len(axes)))]
    cards += [f"{n:<8}= {v:>20}".encode().ljust(CARD) for n, v in zip(names, axes, strict=True)]
    kept = {k: card for k, card in unit.cards.items() if _WCS_KEYWORD.fullmatch(k)}
    if iraf_wcs.is_iraf(unit):
        kept.update(iraf_wcs.standard_cards(unit))
    cards += [card.decode("latin-1").encode("ascii", "replace") for card in kept.values()]
    header = b"".join(cards) + b"END".ljust(CARD)
    return header.ljust(-(-len(header) // BLOCK) * BLOCK)


def pixel_scale(wcs: WCS) -> float:
    """Side of a pixel in arcsec: the root of its area on the sky."""
    return 3600 * float(np.abs(np.linalg.det(wcs.pixel_scale_matrix))) ** 0.5


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


def to_sky(wcs: WCS, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn zero-based pixel positions into ICRS degrees, shape (objects,), float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sky = wcs.pixel_to_world(x, y).icrs
    return sky.ra.deg, sky.dec.deg
