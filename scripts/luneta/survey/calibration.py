"""What an image's header says of its numbers: zero point, unit, saturation, mask planes."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from astropy import units

from luneta.survey.fits_headers import Unit, card_value

NANOJANSKY = 31.4  # AB magnitude of 1 nJy, as 0 mag is 3631 Jy (Oke & Gunn 1983)
NANOMAGGY = 22.5  # AB magnitude of 1 nanomaggy, by definition
AGREEMENT = 0.02  # magnitudes by which config and header may differ
# Magnitude of one count, in the order in which they are believed. Those of the second line are
# written for one count or for one count per second, by the habits of each survey.
_TOTAL = ("MAGZERO", "MZP_AB")
_EITHER = ("MAGZPT", "MAGZP", "PHOTZP", "ZEROPNT", "ZEROPOINT", "ZP")
_SATURATION = ("SATURATE", "SATLEVEL")
_OF_HUBBLE = ("PHOTFLAM", "PHOTPLAM")
# Of an image that has none of these, the header says nothing of the unit of its pixels. Every
# reader of a header asks this list: no other keyword is used.
KEYWORDS = ("FLUXMAG0", "BUNIT", *_TOTAL, *_EITHER, *_OF_HUBBLE, "FPA.ZP", *_SATURATION)
MOST_SATURATED = 0.1
_NANOMAGGY = re.compile(r"(nano-?magg(y|ies)|nmgy)", re.IGNORECASE)
_PER_PIXEL = re.compile(r" */ *pix(els?)?$", re.IGNORECASE)
_PER_AREA = re.compile(r"(/|per) ?\(?(sr|steradian|arcsec|sq)", re.IGNORECASE)
_LSST_PLANE = re.compile(r"MP_(.+)")
_IPP_PLANE = re.compile(r"MSKNAM(\d\d)")


@dataclass(frozen=True)
class HeaderZeroPoint:
    """A zero point as a header tells it.

    Attributes
    ----------
    value : float or None
        AB magnitude of a pixel value of one; None: the header says that there is none.
    source : str
        Keyword and value, for messages.
    others : tuple of float
        What the keyword means by the habits of other surveys: for one count per second.
    counts_area : bool
        Whether it turns a surface brightness into the flux of a pixel.
    """

    value: float | None
    source: str
    others: tuple[float, ...] = ()
    counts_area: bool = False

    def agrees(self, zero_point: float) -> bool:
        """Whether a zero point of the config is what the header says, in any of its meanings."""
        meanings = () if self.value is None else (self.value, *self.others)
        return any(abs(zero_point - meaning) <= AGREEMENT for meaning in meanings)


def _number(unit: Unit, keyword: str) -> float | None:
    if keyword not in (*KEYWORDS, "EXPTIME"):
        raise KeyError(keyword)
    value = unit.get_anywhere(keyword)
    is_number = type(value) in (int, float) and math.isfinite(value)
    return float(value) if is_number else None


@lru_cache(maxsize=256)
def _parsed(text: str) -> units.UnitBase | None:
    """Read a BUNIT; None where it is not known. A pixel is taken for granted."""
    text = _PER_PIXEL.sub("", _NANOMAGGY.sub("nmgy", text.strip()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return units.Unit(text) if text else None
        except (ValueError, TypeError):
            return None


def _brightness_unit(unit: Unit) -> units.UnitBase | None:
    """Return the unit of BUNIT if it is a flux density, or one per solid angle; else None."""
    parsed = _parsed(str(unit.get("BUNIT", "") or ""))
    known = (units.Jy, units.Jy / units.sr, units.mgy, units.mgy / units.sr)
    is_known = parsed is not None and any(parsed.is_equivalent(each) for each in known)
    return parsed if is_known else None


def is_per_area(unit: Unit) -> bool:
    """Whether pixels hold a surface brightness: in whatever unit, per solid angle."""
    text = str(unit.get("BUNIT", "") or "")
    parsed = _parsed(text)
    if parsed is None:
        return _PER_AREA.search(text) is not None
    base = parsed.decompose()
    return dict(zip(base.bases, base.powers, strict=True)).get(units.rad, 0) == -2


def zero_point_of_header(unit: Unit, pixel_scale: float | None) -> HeaderZeroPoint | None:
    """Find the zero point that a header tells.

    Keywords: FLUXMAG0 (LSST and HSC: counts of magnitude 0), BUNIT (a physical unit), MAGZERO and
    the like (magnitude of one count), PHOTFLAM with PHOTPLAM (HST, counts per second), FPA.ZP with
    EXPTIME (Pan-STARRS).

    Parameters
    ----------
    pixel_scale : float or None
        Arcsec a pixel, where it is known; a surface brightness needs it.

    Returns
    -------
    HeaderZeroPoint or None
        None where the header is silent.
    """
    return next(_zero_points(unit, pixel_scale), None)


def _zero_points(unit: Unit, pixel_scale: float | None) -> Iterator[HeaderZeroPoint]:
    yield from _of_flux_of_magnitude_zero(unit)
    yield from _of_physical_unit(unit, pixel_scale)
    exposure = _number(unit, "EXPTIME")
    per_second = 2.5 * math.log10(exposure) if exposure and exposure > 0 else 0.0
    for keyword in _TOTAL:
        if (value := _number(unit, keyword)) is not None:
            yield HeaderZeroPoint(value, f"{keyword} = {value:g}")
    for keyword in _EITHER:
        if (value := _number(unit, keyword)) is not None:
            yield HeaderZeroPoint(value, f"{keyword} = {value:g}", (value + per_second,))
    yield from _of_hubble(unit)
    if (value := _number(unit, "FPA.ZP")) is not None and per_second:
        source = f"FPA.ZP = {value:g}, EXPTIME = {exposure:g}"
        yield HeaderZeroPoint(value + per_second, source)


def _of_flux_of_magnitude_zero(unit: Unit) -> Iterator[HeaderZeroPoint]:
    flux = _number(unit, "FLUXMAG0")
    if flux is not None:
        value = 2.5 * math.log10(flux) if flux > 0 else None
        yield HeaderZeroPoint(value, f"FLUXMAG0 = {flux:g}")


def _of_physical_unit(unit: Unit, pixel_scale: float | None) -> Iterator[HeaderZeroPoint]:
    brightness = _brightness_unit(unit)
    if brightness is None or (is_per_area(unit) and pixel_scale is None):
        return
    area = pixel_scale**2 * units.arcsec**2 if is_per_area(unit) else 1
    flux = 1 * brightness * area
    if flux.unit.is_equivalent(units.mgy):
        value = NANOMAGGY - 2.5 * math.log10(flux.to_value(1e-9 * units.mgy))
    else:
        value = NANOJANSKY - 2.5 * math.log10(flux.to_value(units.nJy))
    source = f"BUNIT = {str(unit.get('BUNIT')).strip()}"
    yield HeaderZeroPoint(value, source, counts_area=is_per_area(unit))


def _of_hubble(unit: Unit) -> Iterator[HeaderZeroPoint]:
    """AB zero point of HST by PHOTFLAM and PHOTPLAM (ACS Data Handbook, section 5.1)."""
    flux, wavelength = (_number(unit, keyword) for keyword in _OF_HUBBLE)
    if flux and wavelength and flux > 0 and wavelength > 0:
        value = -2.5 * math.log10(flux) - 5 * math.log10(wavelength) - 2.408
        yield HeaderZeroPoint(value, f"PHOTFLAM = {flux:g}, PHOTPLAM = {wavelength:g}")


@dataclass(frozen=True)
class ZeroPoint:
    """The zero point that is used for an image.

    Attributes
    ----------
    value : float or None
        AB magnitude of a pixel value of one; None: its fluxes stay in its own unit.
    conflict : str or None
        How config and header contradict each other.
    per_area : bool
        Whether what it gives is a surface brightness: not to be added up over pixels.
    is_known : bool
        Whether the image's unit is known as far as the config asks for it.
    """

    value: float | None
    conflict: str | None = None
    per_area: bool = False
    is_known: bool = True


def choose_zero_point(
    unit: Unit | None, band: str, settings: Mapping, pixel_scale: float | None
) -> ZeroPoint:
    """Choose between the config's zero point of a band and the one that its header tells.

    Parameters
    ----------
    unit : Unit or None
        Header of the image; None for a format without one.
    settings : mapping
        `zero_points` and `zero_point` of the config's `input` section.
    pixel_scale : float or None
        Arcsec a pixel.
    """
    given = settings.get("zero_points", {}).get(band)
    told = None if unit is None else zero_point_of_header(unit, pixel_scale)
    per_area = unit is not None and is_per_area(unit)
    if settings.get("zero_point", "config") == "header":
        return _by_header(told, given, band, per_area)
    if given is None or told is None or told.agrees(given):
        return ZeroPoint(given, per_area=per_area)
    meaning = "no zero point" if told.value is None else f"a zero point of {told.value:.3f}"
    return ZeroPoint(
        given,
        f"its header tells {meaning} ({told.source}), the config input.zero_points.{band} = "
        f"{given:g}, which is used; correct it, or set input.zero_point: header",
        per_area,
    )


def _by_header(
    told: HeaderZeroPoint | None, given: float | None, band: str, per_area: bool
) -> ZeroPoint:
    if told is not None and told.value is not None:
        return ZeroPoint(told.value, per_area=per_area and not told.counts_area)
    if told is None and given is not None:
        return ZeroPoint(given, per_area=per_area)
    why = "tells no zero point" if told is None else f"says that there is none ({told.source})"
    return ZeroPoint(
        None,
        f"its header {why}, which input.zero_point: header asks for: its fluxes in band {band} "
        "stay in its own unit, and have no magnitude",
        per_area,
        is_known=False,
    )


def saturation_level(unit: Unit) -> float | None:
    """Return the pixel value from which on a header calls a pixel saturated."""
    levels = (_number(unit, keyword) for keyword in _SATURATION)
    return next((level for level in levels if level is not None and level > 0), None)


def saturated_pixels(
    pixels: np.ndarray, header: Unit, name: str
) -> tuple[np.ndarray | None, str | None]:
    """Find the pixels that reach the level at which a header says the detector saturates.

    A level that more than a tenth of the image reaches is not believed.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x), in the unit of the image.
    name : str
        Name of the image, for the note.

    Returns
    -------
    saturated : numpy.ndarray or None
        Shape of `pixels`, bool; None where there are none.
    note : str or None
        Why the level is not believed.
    """
    level = saturation_level(header)
    if level is None:
        return None, None
    with np.errstate(invalid="ignore"):
        saturated = pixels >= level
    share = saturated.mean()
    if share > MOST_SATURATED:
        return None, (
            f"{name}: its header calls pixels from {level:g} on saturated, which are {share:.0%} "
            "of all; this is not believed"
        )
    return (saturated if share else None), None


def header_planes(unit: Unit) -> dict[str, int]:
    """Return the mask planes that a mask's header numbers: name in capitals, and bit from 0.

    LSST and HSC write MP_SAT = 1, Pan-STARRS MSKNAM05 = 'SAT' with MSKVAL05 = 32.
    """
    planes = {}
    for keyword, card in unit.cards.items():
        if (match := _LSST_PLANE.fullmatch(keyword)) is not None:
            bit = card_value(card)
            if type(bit) is int and 0 <= bit < 64:
                planes[match[1]] = bit
        elif (match := _IPP_PLANE.fullmatch(keyword)) is not None:
            value = unit.get(f"MSKVAL{match[1]}")
            if type(value) is int and value > 0 and value & (value - 1) == 0:
                planes[str(card_value(card)).strip().upper()] = value.bit_length() - 1
    return planes


def choose_planes(unit: Unit, settings: Mapping) -> tuple[dict, str | None]:
    """Choose between the mask planes of the config and those that a mask's header numbers.

    Parameters
    ----------
    settings : mapping
        The config's `input.mask` section.

    Returns
    -------
    settings : dict
        The same, with the planes that hold for this mask.
    conflict : str or None
        How config and header contradict each other.
    """
    settings = dict(settings)
    told = header_planes(unit) if settings["encoding"] == "bits" else {}
    if not told:
        return settings, None
    names = settings.get("header_names", {})
    matched = {
        plane: told[name]
        for plane in settings["planes"]
        if (name := names.get(plane, plane).upper()) in told
    }
    if settings.get("planes_from", "config") == "header":
        settings["planes"] = matched
        return settings, None
    differing = [plane for plane, bit in matched.items() if bit != settings["planes"][plane]]
    if not differing:
        return settings, None
    first = differing[0]
    return settings, (
        f"its header numbers the mask planes otherwise than the config: {len(differing)} differ, "
        f"such as {names.get(first, first).upper()}, bit {matched[first]} in the header (MP_ or "
        f"MSKNAM) and input.mask.planes.{first} = {settings['planes'][first]}; correct the config, "
        "or set input.mask.planes_from: header"
    )
