"""The projections TNX and ZPX of IRAF as TAN and ZPN with a SIP distortion.

wcslib's own reader of their WAT keywords refuses common spellings, carries its state over to the
next header, and has been seen to abort the process.

References
----------
FITS conventions TNX and ZPX, https://fits.gsfc.nasa.gov/registry/.
"""

from __future__ import annotations

import re

import numpy as np
from astropy.wcs import Sip
from numpy.polynomial import chebyshev, legendre, polynomial

from luneta.survey.fits_headers import CARD, Unit

_SERIES = {1: chebyshev.chebval2d, 2: legendre.legval2d, 3: polynomial.polyval2d}
_STANDARD = {"TNX": "TAN", "ZPX": "ZPN"}
_WAT_LENGTH = 68
_HIGHEST_DEGREE = 9


def is_iraf(unit: Unit) -> bool:
    """Whether a header has one of these projections."""
    return re.search(r"-(TNX|ZPX)$", str(unit.get("CTYPE1"))) is not None


def standard_cards(unit: Unit) -> dict[str, bytes]:
    """Cards of the standard projection that take the place of CTYPE.

    Raises
    ------
    ValueError
        If a number is none.
    """
    cards = {}
    for keyword in ("CTYPE1", "CTYPE2"):
        ctype = str(unit.get(keyword))
        cards[keyword] = f"'{ctype[:-3]}{_STANDARD.get(ctype[-3:], ctype[-3:])}'"
    for axis in (1, 2):
        for key, value in re.findall(r"projp(\d)\s*=\s*(\S+)", _text(unit, axis)):
            cards[f"PV2_{key}"] = f"{float(value)!r:>20}"
    return {key: f"{key:<8}= {value}".encode().ljust(CARD) for key, value in cards.items()}


def distortion(unit: Unit, matrix: np.ndarray, crpix: np.ndarray) -> Sip | None:
    """The corrections `lngcor` and `latcor`, turned from the tangent plane to pixels.

    Parameters
    ----------
    matrix : numpy.ndarray
        From pixels to degrees (CD), shape (2, 2).
    crpix : numpy.ndarray
        Reference pixel, one-based, shape (2,).

    Raises
    ------
    ValueError
        If a correction cannot be read.
    """
    found = [re.search(r'(lng|lat)cor\s*=\s*"([^"]*)"', _text(unit, axis)) for axis in (1, 2)]
    if not any(found):
        return None
    numbers = [[float(word) for word in match[2].split()] if match else None for match in found]
    degree = max(int(n[1] + n[2]) - 2 for n in numbers if n)
    if degree > _HIGHEST_DEGREE:
        raise ValueError(f"degree {degree} of lngcor and latcor is above {_HIGHEST_DEGREE}")
    # A polynomial is known by its values at enough points; u, v are scaled to keep them tame.
    scale = float(max(unit.shape[-2:]))
    u, v = (axis.ravel() for axis in np.meshgrid(*[np.linspace(-1, 1, degree + 1)] * 2))
    plane = matrix @ (scale * np.array([u, v]))
    moved = np.array([_series(n, *plane) if n else np.zeros(len(u)) for n in numbers])
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


def _text(unit: Unit, axis: int) -> str:
    """The parts of a long string joined; blanks at the end of a card belong to it."""
    keywords = sorted(k for k in unit.cards if re.fullmatch(rf"WAT{axis}_\d{{3}}", k))
    return "".join(str(unit.get(keyword)).ljust(_WAT_LENGTH) for keyword in keywords)
