"""Coordinate systems of images: read from headers, and used between pixels and the sky."""

from __future__ import annotations

import contextlib
import math
import re
import warnings
from collections.abc import Mapping

import numpy as np
from astropy import log as astropy_log
from astropy.coordinates import BaseCoordinateFrame, SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame

from luneta.survey import iraf_wcs
from luneta.survey.fits_headers import BLOCK, CARD, ImageError, Unit, card_value, make_card
from luneta.survey.flags import Flag
from luneta.survey.images import ImageFile, split_extension

# All that bears on a coordinate system. Every reader of one asks this list.
_KEYWORD = re.compile(
    r"(WCSAXES|(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[1-9]|(CD|PC|PV|PS)[1-9]_\d{1,2}"
    r"|(CD|PC)00[1-9]00[1-9]|PROJP\d{1,2}|LONPOLE|LATPOLE|EQUINOX|EPOCH|RADESYS"
    r"|RADECSYS|DATE-OBS|MJD-OBS|(A|B|AP|BP)_(ORDER|DMAX|\d_\d)|(DP|DQ|CPDIS|CPERR|CQDIS)[1-9].*"
    r"|D2IM.*|AXISCORR|WAT[1-9]_\d{3})"
)
_FRAME_KEYWORDS = ("RADESYS", "RADECSYS", "EQUINOX", "EPOCH", "DATE-OBS", "MJD-OBS")
_SIP = re.compile(r"(A|B|AP|BP)_(ORDER|DMAX|\d_\d)")
_THIRD_AXIS = re.compile(r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[3-9]|(CD|PC)[3-9]_\d|WCSAXES")
_WAT = re.compile(r"WAT[1-9]_\d{3}")
_RECORDS = re.compile(r"(DP|DQ)[1-9]|D2IM.*")  # a keyword of these stands in several cards
_NUMBER = re.compile(
    r"(CRVAL|CRPIX|CDELT|CROTA)[12]|(CD|PC)[12]_[12]|PV[1-9]_\d{1,2}|(A|B|AP|BP)_\d_\d"
    r"|LONPOLE|LATPOLE|PROJP\d{1,2}"
)
_EQUINOX = re.compile(r"[JB]?(\d{4}(?:\.\d*)?)")
_FRAMES = {  # as written in RADESYS, and what wcslib knows it by
    "ICRS": "ICRS",
    "ICRF": "ICRS",
    "ICRF2": "ICRS",
    "ICRF3": "ICRS",
    "FK5": "FK5",
    "J2000": "FK5",
    "FK4": "FK4",
    "B1950": "FK4",
    "FK4-NO-E": "FK4-NO-E",
}
_MOST_WCS_AXES = 9
_HIGHEST_SIP_ORDER = 9
_EDGE_SAMPLES = 9


def read_grid(name: str) -> tuple[WCS, tuple[int, int]]:
    """Read an image's celestial coordinate system and shape from its header alone.

    Returns
    -------
    wcs : astropy.wcs.WCS
        Celestial part; its pixel axes are those of the image, x first, whatever the order of
        longitude and latitude.
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
    """Keep astropy from reporting what it corrects in each header."""
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


def wcs_cards(unit: Unit, name: str) -> dict[str, bytes]:
    """Collect the cards that describe a coordinate system, in the words that wcslib knows.

    With INHERIT = T an extension without axis types takes over those of the primary header, and
    one without a frame the frame (FITS Standard 4.0, section 4.4.2.6). SIP coefficients count
    only where CTYPE ends in -SIP (Shupe et al. 2005).

    Parameters
    ----------
    name : str
        Name of the image, for messages.

    Raises
    ------
    ImageError
        If a number is not one, a keyword stands twice with two values, or the frame or the
        equinox is not known.
    """
    cards = _inherited(unit)
    if not any(keyword.startswith("CTYPE") for keyword in cards):
        raise _no_wcs(name, f"it has no celestial coordinate system ({_axis_types(unit)})")
    cards = _without_leftovers(_with_known_types(cards))
    _refuse_ambiguous(cards, unit, name)
    _refuse_no_numbers(cards, name)
    return _with_known_frame(cards, name)


def _without_leftovers(cards: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out coefficients of conventions that the axis types do not ask for."""
    unused = [_SIP] if has_leftover_sip(cards) else []
    unused += [] if iraf_wcs.is_iraf(cards) else [_WAT]
    return {k: c for k, c in cards.items() if not any(each.fullmatch(k) for each in unused)}


def _inherited(unit: Unit) -> dict[str, bytes]:
    own = {keyword: card for keyword, card in unit.cards.items() if _KEYWORD.fullmatch(keyword)}
    if unit.get("INHERIT") is not True:
        return own
    primary = {k: card for k, card in unit.primary.items() if _KEYWORD.fullmatch(k)}
    if not any(keyword.startswith("CTYPE") for keyword in own):
        return primary | own
    if any(keyword in own for keyword in _FRAME_KEYWORDS[:4]):
        return own
    return {k: card for k, card in primary.items() if k in _FRAME_KEYWORDS} | own


def _refuse_ambiguous(cards: Mapping[str, bytes], unit: Unit, name: str) -> None:
    """Refuse a keyword that stands twice with two values: libraries differ on which one counts."""
    for keyword, last in unit.ambiguous.items():
        is_used = keyword in cards and keyword not in ("DATE-OBS", "MJD-OBS")
        if is_used and not _RECORDS.fullmatch(keyword):
            raise _no_wcs(
                name,
                f"{keyword} stands twice in its header, as {card_value(cards[keyword])!r} and as "
                f"{card_value(last)!r}; remove one of the two cards",
            )


def _refuse_no_numbers(cards: Mapping[str, bytes], name: str) -> None:
    """Refuse a number that is not one, which wcslib takes for zero."""
    for keyword in filter(_NUMBER.fullmatch, cards):
        value = card_value(cards[keyword])
        if type(value) not in (int, float) or not math.isfinite(value):
            raise _no_wcs(name, f"{keyword} of its coordinate system is {value!r}, not a number")


def _with_known_types(cards: dict[str, bytes]) -> dict[str, bytes]:
    """Write the axis types in capitals, as the standard does."""
    types = {
        keyword: make_card(keyword, str(card_value(card, "")).strip().upper())
        for keyword, card in cards.items()
        if keyword.startswith("CTYPE")
    }
    return cards | types


def _with_known_frame(cards: dict[str, bytes], name: str) -> dict[str, bytes]:
    """Write the frame and the equinox as wcslib knows them."""
    known = dict(cards)
    for keyword in ("RADESYS", "RADECSYS"):
        if keyword in known:
            _put(known, keyword, _frame_name(keyword, known, name))
    for keyword in ("EQUINOX", "EPOCH"):
        if keyword in known:
            _put(known, keyword, _equinox(keyword, known, name))
    return known


def _put(cards: dict[str, bytes], keyword: str, value: str | float | None) -> None:
    if value is None:
        del cards[keyword]
    else:
        cards[keyword] = make_card(keyword, value)


def _frame_name(keyword: str, cards: Mapping[str, bytes], name: str) -> str | None:
    """Return the frame that RADESYS names; None where that is left open or does not matter."""
    written = str(card_value(cards[keyword], "") or "").strip()
    is_equatorial = any(
        str(card_value(card, "")).startswith(("RA--", "DEC-"))
        for key, card in cards.items()
        if key.startswith("CTYPE")
    )
    if not written or not is_equatorial:
        return None
    if (frame := _FRAMES.get(written.upper())) is None:
        raise _no_wcs(name, f"{keyword} is {written!r}; known are {', '.join(_FRAMES)}")
    return frame


def _equinox(keyword: str, cards: Mapping[str, bytes], name: str) -> float | None:
    """Return the equinox in years, written as a number or as J2000.0; None where it is empty."""
    value = card_value(cards[keyword])
    if type(value) in (int, float) and math.isfinite(value):
        return float(value) or None  # IRAF writes 0 where there is none
    written = "" if value is None else str(value).strip()
    if not written:
        return None
    if (match := _EQUINOX.fullmatch(written.upper())) is None:
        raise _no_wcs(name, f"{keyword} is {written!r}, not a year such as 2000.0")
    return float(match[1])


def has_leftover_sip(cards: Mapping[str, bytes]) -> bool:
    """Whether there are SIP coefficients that the axis types do not ask for."""
    types = (str(card_value(cards.get(f"CTYPE{axis}", b""), "")) for axis in (1, 2))
    asked = any(ctype.strip().upper().endswith("-SIP") for ctype in types)
    return not asked and any(_SIP.fullmatch(keyword) for keyword in cards)


def wcs_notes(unit: Unit) -> tuple[str, ...]:
    """Say what is left out of an image's coordinate system."""
    if not has_leftover_sip(_inherited(unit)):
        return ()
    return (
        "SIP coefficients (A_ORDER and the like) are not used, as CTYPE1 does not end in -SIP: "
        f"it is {unit.get('CTYPE1')!r}",
    )


def _celestial(unit: Unit, name: str) -> WCS:
    cards = wcs_cards(unit, name)
    if any(keyword.startswith(("CPDIS", "D2IMDIS")) for keyword in cards):
        wcs = _with_lookup_tables(unit, cards, name)
    else:
        has_sip = any(_SIP.fullmatch(keyword) for keyword in cards)
        wcs = WCS(_wcs_header(unit, cards, name), naxis=2 if has_sip else None)
    wcs = _of_image_axes(wcs, unit, name)
    _refuse_turned_polynomials(wcs, cards, name)
    _refuse_singular(wcs, cards, name)
    if iraf_wcs.is_iraf(cards):
        system = wcs.wcs
        wcs.sip = iraf_wcs.distortion(
            cards, unit.shape[-2:], wcs.pixel_scale_matrix, system.crpix, (system.lng, system.lat)
        )
    wcs_to_celestial_frame(wcs)  # raises if the frame is of no known kind
    return wcs


def _with_lookup_tables(unit: Unit, cards: Mapping[str, bytes], name: str) -> WCS:
    """Read a coordinate system whose distortions stand in tables of other extensions."""
    with fits.open(split_extension(name)[0]) as file:
        header = file[unit.number].header.copy()
        for keyword in [k for k in header if _SIP.fullmatch(k) and k not in cards]:
            header.remove(keyword, remove_all=True)
        for keyword, card in cards.items():
            if not _RECORDS.match(keyword):
                header[keyword] = card_value(card)
        return WCS(header, file, naxis=2 if len(unit.shape) > 2 else None)


def _of_image_axes(wcs: WCS, unit: Unit, name: str) -> WCS:
    """Return the part of a coordinate system that belongs to the axes x and y of the image."""
    if wcs.wcs.lng < 0 or wcs.wcs.lat < 0:
        raise _no_wcs(name, f"it has no celestial coordinate system ({_axis_types(unit)})")
    axes = sorted((wcs.wcs.lng + 1, wcs.wcs.lat + 1))
    if axes != [1, 2]:
        raise _no_wcs(
            name,
            f"its celestial axes are {axes[0]} and {axes[1]} ({_axis_types(unit)}); the axes of an "
            "image are 1 and 2: reorder the axes of the cube, so that these come first",
        )
    return wcs if wcs.naxis == 2 else wcs.sub([1, 2])


def _refuse_turned_polynomials(wcs: WCS, cards: Mapping[str, bytes], name: str) -> None:
    """Refuse the polynomials of SCAMP where the latitude comes first: they assume it second."""
    is_turned = wcs.wcs.lng > wcs.wcs.lat
    has_polynomials = any(keyword.startswith("PV") for keyword in cards)
    if is_turned and has_polynomials and wcs.wcs.ctype[0][-3:] in ("TPV", "TAN"):
        raise _no_wcs(
            name,
            "its distortion (PV1_1 and the like) is not defined where the latitude is its first "
            "axis; write the image with the longitude first",
        )


def _axis_types(unit: Unit) -> str:
    """Say what the header says of its axes, for messages."""
    axes = range(1, max(2, len(unit.shape)) + 1)
    types = {f"CTYPE{axis}": unit.get(f"CTYPE{axis}") for axis in axes}
    text = ", ".join(
        f"no {keyword}" if value is None else f"{keyword} is {value!r}"
        for keyword, value in types.items()
    )
    if "CTYPE1" in unit.primary and "CTYPE1" not in unit.cards:
        text += "; the primary header has one, but INHERIT is not T in this extension"
    return text


def is_singular(matrix: np.ndarray) -> bool:
    """Whether a matrix, shape (2, 2), maps the plane onto a line or a point."""
    return abs(np.linalg.det(matrix)) <= 1e-10 * np.square(matrix).sum()


def _refuse_singular(wcs: WCS, cards: Mapping[str, bytes], name: str) -> None:
    given = [card_value(cards[k]) for i in "12" for j in "12" if (k := f"CD{i}_{j}") in cards]
    all_zero = bool(given) and not any(given)
    if all_zero or is_singular(wcs.pixel_scale_matrix):
        raise _no_wcs(
            name,
            "its matrix from pixels to the sky (CD, or PC and CDELT) is singular: it maps the "
            "image onto a line or a point",
        )


def _wcs_header(unit: Unit, cards: Mapping[str, bytes], name: str) -> bytes:
    """Build a header of these cards alone; hundreds of others cost time to parse."""
    for keyword, most in (
        ("WCSAXES", _MOST_WCS_AXES),
        *((f"{letters}_ORDER", _HIGHEST_SIP_ORDER) for letters in ("A", "B", "AP", "BP")),
    ):
        value = card_value(cards[keyword]) if keyword in cards else 0
        if value not in range(most + 1):
            raise _no_wcs(name, f"{keyword} is {value!r}; it is at most {most}")
    axes = unit.shape[::-1]
    if not any(_THIRD_AXIS.fullmatch(keyword) for keyword in cards):
        axes = axes[:2]  # astropy takes SIP of an image of two axes only
    lengths = {f"NAXIS{n}": length for n, length in enumerate(axes, start=1)}
    first = {"SIMPLE": True, "NAXIS": len(axes), **lengths}
    used = {keyword: card for keyword, card in cards.items() if not keyword.startswith("WAT")}
    if iraf_wcs.is_iraf(cards):
        used |= iraf_wcs.standard_cards(cards)
    lines = [make_card(keyword, value) for keyword, value in first.items()]
    lines += [card.decode("latin-1").encode("ascii", "replace") for card in used.values()]
    header = b"".join(lines) + b"END".ljust(CARD)
    return header.ljust(-(-len(header) // BLOCK) * BLOCK)


def pixel_scale(wcs: WCS) -> float:
    """Return the side of a pixel in arcsec: the root of its area on the sky."""
    return 3600 * float(np.abs(np.linalg.det(wcs.pixel_scale_matrix))) ** 0.5


def to_sky(wcs: WCS, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn zero-based pixel positions into ICRS positions.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Celestial coordinate system of any frame, longitude and latitude in any order.
    x, y : numpy.ndarray
        Pixel positions, shape (objects,), float64.

    Returns
    -------
    ra, dec : numpy.ndarray
        Degrees, shape (objects,), float64; NaN where the projection has no sky.
    """
    sky = _sky(wcs, np.asarray(x, float), np.asarray(y, float)).icrs
    return sky.ra.deg, sky.dec.deg


def _sky(wcs: WCS, x: np.ndarray, y: np.ndarray) -> SkyCoord:
    return SkyCoord(*to_world(wcs, x, y), unit="deg", frame=frame_of(wcs))


def to_world(wcs: WCS, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn zero-based pixel positions into longitude and latitude of the image's own frame.

    Returns
    -------
    longitude, latitude : numpy.ndarray
        Degrees, shape of `x`, float64; NaN where the projection has no sky.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        world = wcs.all_pix2world(x, y, 0)
    return world[wcs.wcs.lng], world[wcs.wcs.lat]


def frame_of(wcs: WCS) -> BaseCoordinateFrame:
    """Return the frame of an image's sky."""
    return wcs_to_celestial_frame(wcs)


def to_pixels(wcs: WCS, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn ICRS positions into zero-based pixel positions; the inverse of `to_sky`.

    Parameters
    ----------
    wcs : astropy.wcs.WCS
        Celestial coordinate system of any frame, longitude and latitude in any order.
    ra, dec : numpy.ndarray
        ICRS positions in degrees, shape (objects,), float64.

    Returns
    -------
    x, y : numpy.ndarray
        Pixel positions, shape (objects,), float64; NaN where the projection has none, and far
        from the image.
    """
    x, y = np.full(len(ra), np.nan), np.full(len(ra), np.nan)
    near = _on_this_side(wcs, ra, dec)
    if not near.any():
        return x, y
    sky = SkyCoord(ra[near], dec[near], unit="deg").transform_to(frame_of(wcs))
    world = np.empty((2, near.sum()))
    world[wcs.wcs.lng] = sky.spherical.lon.deg
    world[wcs.wcs.lat] = sky.spherical.lat.deg
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x[near], y[near] = wcs.all_world2pix(*world, 0, quiet=True)
    if wcs.has_distortion or wcs.wcs.get_pv():
        _drop_folded(wcs, ra, dec, x, y)
    return x, y


def _drop_folded(wcs: WCS, ra, dec, x: np.ndarray, y: np.ndarray) -> None:
    """Make NaN, in place, of pixels on the image that a distortion does not lead back to the sky.

    The inverse of a distortion is found by iteration, which can end anywhere.
    """
    ny, nx = wcs.array_shape
    with np.errstate(invalid="ignore"):
        on_image = np.flatnonzero((np.abs(2 * x - nx + 1) <= nx) & (np.abs(2 * y - ny + 1) <= ny))
    if not len(on_image):
        return
    back = SkyCoord(*to_sky(wcs, x[on_image], y[on_image]), unit="deg")
    away = back.separation(SkyCoord(ra[on_image], dec[on_image], unit="deg")).arcsec
    folded = on_image[~(away <= pixel_scale(wcs))]
    x[folded] = np.nan
    y[folded] = np.nan


def _on_this_side(wcs: WCS, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Whether positions are so near to the image that they may lie on it; shape (objects,), bool.

    Tangential projections with distortions fold far positions back onto the image.
    """
    good = np.isfinite(ra) & np.isfinite(dec) & (np.abs(dec) <= 90)
    reach = _reach(wcs)
    if good.any() and reach is not None:
        centre, radius = reach
        separation = SkyCoord(ra[good], dec[good], unit="deg").separation(centre).deg
        good[good] = separation <= radius
    return good


def _reach(wcs: WCS) -> tuple[SkyCoord, float] | None:
    """Return the image's centre and degrees around it that hold the image; None: the whole sky."""
    ny, nx = wcs.array_shape or (1, 1)
    along = np.linspace(0, 1, _EDGE_SAMPLES)
    x, y = np.meshgrid(along * nx - 0.5, along * ny - 0.5)
    sky = _sky(wcs, np.append(x, (nx - 1) / 2), np.append(y, (ny - 1) / 2)).icrs
    centre = sky[-1]
    radius = float(sky.separation(centre).deg.max())
    return (centre, 1.5 * radius + 0.1) if np.isfinite(radius) else None
