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
_LOWEST, _HIGHEST = -5.0, 60.0  # zero points beyond are sentinels, such as -99
_SATURATION = ("SATURATE", "SATLEVEL")
_OF_HUBBLE = ("PHOTFLAM", "PHOTPLAM")
# Of an image that has none of these, the header says nothing of the unit of its pixels. Every
# reader of a header asks this list: no other keyword is used.
KEYWORDS = ("FLUXMAG0", "BUNIT", *_TOTAL, *_EITHER, *_OF_HUBBLE, "FPA.ZP", *_SATURATION)
_SAMPLE = 200_000  # pixels of an image that its sky is judged by
_NANOMAGGY = re.compile(r"(nano-?magg(y|ies)|nmgy)", re.IGNORECASE)
_PER_PIXEL = re.compile(r" */ *pix(els?)?$", re.IGNORECASE)
_PER_AREA = re.compile(
    r"(/|per) ?\(?(sr|ster|arcsec|arcmin|deg|sq|beam)|(sr|ster|arcsec|beam) ?\^?-[12]",
    re.IGNORECASE,
)
_PER_SECOND = re.compile(r"(/|per) ?s(ec(ond)?)?\b|\bs ?\^?-1", re.IGNORECASE)
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
    """Return a number of the header, written as such or as text; None if it is not one."""
    if keyword not in (*KEYWORDS, "EXPTIME"):
        raise KeyError(keyword)
    value = unit.get_anywhere(keyword)
    try:
        number = math.nan if value is None or isinstance(value, bool) else float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@lru_cache(maxsize=256)
def _parsed(text: str) -> units.UnitBase | None:
    """Read a BUNIT; None where it is not known. A pixel is taken for granted."""
    text = _PER_PIXEL.sub("", _NANOMAGGY.sub("nmgy", text.strip()))
    text = re.sub(r"^MJY", "MJy", re.sub(r"^micro-?jy", "uJy", text, flags=re.IGNORECASE))
    text = re.sub(r"(?<=MJy)/ ?(SR|STER)$", "/sr", text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return units.Unit(text) if text else None
        except (ValueError, TypeError):
            return None


def _unit_text(unit: Unit) -> str:
    return str(unit.get_anywhere("BUNIT", "") or "").strip()


def _brightness_unit(unit: Unit) -> units.UnitBase | None:
    """Return the unit of BUNIT if it is a flux density, or one per solid angle; else None."""
    parsed = _parsed(_unit_text(unit))
    known = (units.Jy, units.Jy / units.sr, units.mgy, units.mgy / units.sr)
    is_known = parsed is not None and any(parsed.is_equivalent(each) for each in known)
    return parsed if is_known else None


def is_per_area(unit: Unit) -> bool:
    """Whether pixels cannot be added up: per solid angle or beam, a temperature, a magnitude."""
    text = _unit_text(unit)
    if _PER_AREA.search(text) or text.lower() in ("k", "kelvin") or text.lower().startswith("mag"):
        return True
    parsed = _parsed(text)
    if parsed is None:
        return False
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
    told = list(_zero_points(unit, pixel_scale))
    explicit = [each for each in told if each.source.startswith("FLUXMAG0")]
    defined = [each for each in told if each.value is not None]
    return next(iter(explicit or defined or told), None)


def _zero_points(unit: Unit, pixel_scale: float | None) -> Iterator[HeaderZeroPoint]:
    yield from _of_flux_of_magnitude_zero(unit)
    yield from _of_physical_unit(unit, pixel_scale)
    exposure = _number(unit, "EXPTIME")
    per_second = 2.5 * math.log10(exposure) if exposure and exposure > 0 else None
    for keyword in _TOTAL:
        yield from _of_magnitude(unit, keyword, None)
    for keyword in _EITHER:
        yield from _of_magnitude(unit, keyword, per_second)
    yield from _of_hubble(unit, per_second)
    value = _number(unit, "FPA.ZP")
    if value is not None and per_second is not None:
        source = f"FPA.ZP = {value:g}, EXPTIME = {exposure:g}"
        yield HeaderZeroPoint(value + per_second, source)


def _of_magnitude(unit: Unit, keyword: str, per_second: float | None) -> Iterator[HeaderZeroPoint]:
    """Zero point by the magnitude of one count; undefined ones are written 0, -99 or 9999."""
    value = _number(unit, keyword)
    if value is None:
        return
    is_sentinel = not _LOWEST <= value <= _HIGHEST
    is_rate = _PER_SECOND.search(_unit_text(unit)) is not None
    others = () if per_second is None or is_rate else (value + per_second,)
    yield HeaderZeroPoint(None if is_sentinel else value, f"{keyword} = {value:g}", others)


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
    source = f"BUNIT = {_unit_text(unit)}"
    yield HeaderZeroPoint(value, source, counts_area=is_per_area(unit))


def _of_hubble(unit: Unit, per_second: float | None) -> Iterator[HeaderZeroPoint]:
    """AB zero point of HST by PHOTFLAM and PHOTPLAM (ACS Data Handbook, section 5.1).

    They are of one electron per second; an image in electrons needs its exposure time.
    """
    flux, wavelength = (_number(unit, keyword) for keyword in _OF_HUBBLE)
    if not flux or not wavelength or flux < 0 or wavelength < 0:
        return
    text = _unit_text(unit)
    is_rate = not text or _PER_SECOND.search(text) is not None
    source = f"PHOTFLAM = {flux:g}, PHOTPLAM = {wavelength:g}, BUNIT = {text or 'not given'}"
    value = -2.5 * math.log10(flux) - 5 * math.log10(wavelength) - 2.408
    if is_rate:
        yield HeaderZeroPoint(value, source)
    else:
        yield HeaderZeroPoint(None if per_second is None else value + per_second, source)


def _doubt(told: HeaderZeroPoint, band: str) -> str | None:
    """Say what a keyword may mean beside what it is taken for."""
    if told.value == 0:
        return (
            f"its header tells {told.source}, which may stand for an unknown one; if so, set "
            f"input.zero_points.{band} and input.zero_point: config"
        )
    if any(abs(other - told.value) > AGREEMENT for other in told.others):
        return (
            f"its header tells {told.source}, taken for the magnitude of one count; if it is that "
            f"of one count per second, set input.zero_points.{band} = {told.others[0]:.3f} and "
            "input.zero_point: config"
        )
    return None


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
    if told is not None and told.counts_area and given is not None and told.agrees(given):
        per_area = False  # the config's zero point is that of a pixel's flux
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
        conflict = None if given is not None and told.agrees(given) else _doubt(told, band)
        return ZeroPoint(told.value, conflict, per_area and not told.counts_area)
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

    A level within the noise of the sky is not believed.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x), in the unit of the image; NaN where bad, or not read.
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
    if _lies_in_the_sky(level, pixels):
        return None, (
            f"{name}: its header calls pixels from {level:g} on saturated, which lies within the "
            "sky of the image; this is not believed"
        )
    with np.errstate(invalid="ignore"):
        saturated = pixels >= level
    return (saturated if saturated.any() else None), None


def _lies_in_the_sky(level: float, pixels: np.ndarray) -> bool:
    """Whether a level is within about five standard deviations of the sky.

    The sky is judged by the fainter pixels, so that the answer is the same for an image read whole
    or in windows, and for a stamp that its object fills by half.
    """
    sample = pixels.reshape(-1)[:: max(1, pixels.size // _SAMPLE)]
    sample = sample[np.isfinite(sample)]
    if not len(sample):
        return False
    faintest, faint = np.percentile(sample, [5, 25])  # of a Gaussian 0.97 sigma apart
    return level <= faint + 6 * (faint - faintest)


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
    wrong = [plane for plane, bit in matched.items() if bit != settings["planes"][plane]]
    taken = {bit: name for name, bit in told.items()}
    foreign = [
        plane for plane, bit in settings["planes"].items() if plane not in matched and bit in taken
    ]
    if not wrong and not foreign:
        return settings, None
    first = (wrong + foreign)[0]
    bit = settings["planes"][first]
    name = names.get(first, first).upper()
    told_of = f"{name}, bit {matched[first]}" if wrong else f"bit {bit}, {taken[bit]}"
    return settings, (
        f"its header numbers the mask planes otherwise than the config: {len(wrong + foreign)} "
        f"differ, such as {told_of} in the header (MP_ or MSKNAM) and input.mask.planes.{first} = "
        f"{bit}; correct the config, or set input.mask.planes_from: header"
    )
