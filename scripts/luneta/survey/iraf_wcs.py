"""The projections TNX and ZPX of IRAF as TAN and ZPN with a SIP distortion.

wcslib's own reader of their WAT keywords refuses common spellings, carries its state over to the
next header, and has been seen to abort the process.

References
----------
FITS conventions TNX and ZPX, https://fits.gsfc.nasa.gov/registry/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
from astropy.wcs import Sip
from numpy.polynomial import chebyshev, legendre, polynomial

from luneta.survey.fits_headers import card_value, make_card

_SERIES = {1: chebyshev.chebval2d, 2: legendre.legval2d, 3: polynomial.polyval2d}
_STANDARD = {"TNX": "TAN", "ZPX": "ZPN"}
_LATITUDES = ("DEC-", "GLAT", "ELAT", "HLAT", "SLAT")
_WAT_LENGTH = 68
_HIGHEST_DEGREE = 9


def is_iraf(cards: Mapping[str, bytes]) -> bool:
    """Whether the cards of a coordinate system are of one of these projections."""
    return _ctype(cards, 1)[-4:] in ("-TNX", "-ZPX")


def _ctype(cards: Mapping[str, bytes], axis: int) -> str:
    return str(card_value(cards.get(f"CTYPE{axis}", b""), ""))


def standard_cards(cards: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the cards of the standard projection that take the place of CTYPE.

    Raises
    ------
    ValueError
        If a number is none.
    """
    latitude = 1 if _ctype(cards, 1).startswith(_LATITUDES) else 2
    standard = {}
    for axis in (1, 2):
        ctype = _ctype(cards, axis)
        projection = _STANDARD.get(ctype[-3:], ctype[-3:])
        standard[f"CTYPE{axis}"] = make_card(f"CTYPE{axis}", ctype[:-3] + projection)
        for key, value in re.findall(r"projp(\d)\s*=\s*(\S+)", _text(cards, axis)):
            keyword = f"PV{latitude}_{key}"
            standard[keyword] = make_card(keyword, float(value))
    return standard


def distortion(
    cards: Mapping[str, bytes],
    shape: tuple[int, int],
    matrix: np.ndarray,
    crpix: np.ndarray,
    axes: tuple[int, int],
) -> Sip | None:
    """Turn the corrections `lngcor` and `latcor` from the tangent plane to pixels.

    Parameters
    ----------
    cards : mapping
        Card of each keyword, WAT among them.
    shape : tuple of 2 ints
        (y, x) of the image.
    matrix : numpy.ndarray
        From pixels to degrees (CD), shape (2, 2).
    crpix : numpy.ndarray
        Reference pixel, one-based, shape (2,).
    axes : tuple of 2 ints
        Which axis, from zero, is the longitude, and which one the latitude.

    Raises
    ------
    ValueError
        If a correction cannot be read.
    """
    found = [re.search(r'(lng|lat)cor\s*=\s*"([^"]*)"', _text(cards, axis)) for axis in (1, 2)]
    if not any(found):
        return None
    numbers = [[float(word) for word in match[2].split()] if match else None for match in found]
    degree = max(int(n[1] + n[2]) - 2 for n in numbers if n)
    if degree > _HIGHEST_DEGREE:
        raise ValueError(f"degree {degree} of lngcor and latcor is above {_HIGHEST_DEGREE}")
    # A polynomial is known by its values at enough points; u, v are scaled to keep them tame.
    scale = float(max(shape))
    u, v = (axis.ravel() for axis in np.meshgrid(*[np.linspace(-1, 1, degree + 1)] * 2))
    plane = matrix @ (scale * np.array([u, v]))
    xi, eta = plane[axes[0]], plane[axes[1]]
    moved = np.array([_series(n, xi, eta) if n else np.zeros(len(u)) for n in numbers])
    terms = polynomial.polyvander2d(u, v, [degree, degree])
    solved = np.linalg.solve(terms, np.linalg.solve(matrix, moved).T)
    powers = np.add.outer(np.arange(degree + 1), np.arange(degree + 1))
    a, b = (s.reshape(powers.shape) / scale**powers for s in solved.T)
    return Sip(a, b, None, None, crpix)


def _series(numbers: list[float], xi: np.ndarray, eta: np.ndarray) -> np.ndarray:
    kind, nx, ny, cross = (int(n) for n in numbers[:4])
    low_x, high_x, low_y, high_y, *values = numbers[4:]
    used = [
        (m, n)
        for n in range(ny)
        for m in range(nx)
        if cross == 1 or m == 0 or n == 0 or (cross == 2 and m + n < max(nx, ny))
    ]
    if kind not in _SERIES or len(used) != len(values):
        raise ValueError(
            f"lngcor or latcor holds {len(values)} coefficients instead of {len(used)}"
        )
    coefficients = np.zeros((nx, ny))
    coefficients[tuple(np.transpose(used))] = values
    if kind != 3:
        xi = (2 * xi - high_x - low_x) / (high_x - low_x)
        eta = (2 * eta - high_y - low_y) / (high_y - low_y)
    return _SERIES[kind](xi, eta, coefficients)


def _text(cards: Mapping[str, bytes], axis: int) -> str:
    """Join the parts of a long string; blanks at the end of a card belong to it."""
    keywords = sorted(k for k in cards if re.fullmatch(rf"WAT{axis}_\d{{3}}", k))
    return "".join(str(card_value(cards[k])).ljust(_WAT_LENGTH) for k in keywords)
