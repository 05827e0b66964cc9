"""Names of objects by their position."""

from __future__ import annotations

import numpy as np


def position_names(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Name objects by their position, as the IAU asks: truncated, not rounded.

    Two that fall on one name get a, b and so on at its end, from west to east.

    Parameters
    ----------
    ra, dec : numpy.ndarray
        ICRS degrees, shape (objects,), float64.

    Returns
    -------
    numpy.ndarray
        Such as J123049.42+122328.0, shape (objects,), object.
    """
    names = [_position_name(*position) for position in zip(ra % 360, dec, strict=True)]
    twins: dict[str, list[int]] = {}
    for row in np.lexsort((dec, ra)):
        twins.setdefault(names[row], []).append(row)
    for name, rows in twins.items():
        for number, row in enumerate(rows if len(rows) > 1 else ()):
            names[row] = name + _letters(number)
    return np.array(names, object)


def _position_name(ra: float, dec: float) -> str:
    # 1e-7 s and 1e-6 arcsec: decimal positions such as 15 degrees are not exact in binary
    time, arc = int(ra / 15 * 360000 + 1e-5), int(abs(dec) * 36000 + 1e-5)
    hours, minutes, seconds = time // 360000 % 24, time // 6000 % 60, time % 6000
    sign = "-" if dec < 0 else "+"
    degrees, arcminutes, arcseconds = arc // 36000, arc // 600 % 60, arc % 600
    return (
        f"J{hours:02d}{minutes:02d}{seconds // 100:02d}.{seconds % 100:02d}"
        f"{sign}{degrees:02d}{arcminutes:02d}{arcseconds // 10:02d}.{arcseconds % 10}"
    )


def _letters(number: int) -> str:
    first, last = divmod(number, 26)
    return (_letters(first - 1) if first else "") + chr(ord("a") + last)
