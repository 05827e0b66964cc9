"""Which objects are point-like: the stellar locus of half-light radii."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import sep
from scipy.special import erf

SIGNAL_TO_NOISE = (200.0, 100.0, 50.0, 20.0)
WIDTHS = (1 / 3, 2 / 3)  # of a crowd, in units of log(1 + tolerance)
CHANCE = 1e-6  # at least seven stars
LEAST_EXPECTED, LEAST_EXCESS = 0.3, 2.0
ROUNDS = 5
# Gaussians from a hundredth of a pixel to where it no longer matters where in its pixel one lies.
GAUSSIANS = np.array([0.01, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8])
PHASES = np.linspace(0, 0.5, 6)
HALF = 8


def stellar_locus(radius: np.ndarray, signal_to_noise: np.ndarray, tolerance: float) -> float:
    """Half-light radius of point sources: that about which bright objects crowd.

    Point sources are all of one size, galaxies are not. So the locus is the narrow range of radii
    that holds most above what the radii beside it let expect, at the signal-to-noise ratio where
    it stands out most.

    Parameters
    ----------
    radius : numpy.ndarray
        Shape (objects,), float64; NaN where unknown, and of objects that cannot tell the locus.
    signal_to_noise : numpy.ndarray
        Shape (objects,), float64.
    tolerance : float
        Half-width of the locus, as a fraction of its radius.

    Returns
    -------
    float
        NaN where too few objects are bright, or none crowd.
    """
    least, locus = np.log(CHANCE), np.nan
    for limit in SIGNAL_TO_NOISE:
        logs = np.sort(np.log(radius[np.isfinite(radius) & (signal_to_noise > limit)]))
        for width in (np.log1p(tolerance) * factor for factor in WIDTHS):
            chance = _chance(logs, width)
            if chance.min(initial=0) < least:
                row = int(chance.argmin())
                least, locus = chance[row], _centre(logs, logs[row] + width / 2, tolerance)
    return locus


def _chance(logs: np.ndarray, width: float) -> np.ndarray:
    """Log of the most chance that a Poisson law gives as many within `width` above each, or more.

    What it expects is the mean of the two ranges of this width below, or above if that is more.
    The bound is Chernoff's. The range of most galaxies is told from a locus by its small excess.
    """
    rows = np.arange(len(logs))
    count = np.searchsorted(logs, logs + width, "right") - rows
    below = rows - np.searchsorted(logs, logs - 2 * width)
    above = np.searchsorted(logs, logs + 3 * width, "right") - rows - count
    expected = np.maximum(np.maximum(below, above) / 2, LEAST_EXPECTED)
    excess = count / expected
    chance = count - expected - count * np.log(excess)
    return np.where(excess < LEAST_EXCESS, 0.0, chance)


def _centre(logs: np.ndarray, start: float, tolerance: float) -> float:
    """Median radius of a crowd: of all within the tolerance of it, found by iteration."""
    centre = start
    for _ in range(ROUNDS):
        centre = np.median(logs[np.abs(np.expm1(logs - centre)) <= tolerance])
    return float(np.exp(centre))


def phase_free_radius(radius: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Half-light radius that a small object would show on average over its place in a pixel.

    A point source far narrower than a pixel shows 0.4 pixels if it lies on the centre of one, and
    0.8 on a corner of four, as a pixel's light is taken to be spread evenly over it. The radius
    tells the width of a Gaussian at the object's place, and that its mean radius.

    Parameters
    ----------
    radius : numpy.ndarray
        Pixels, shape (objects,), float64; NaN stays.
    x, y : numpy.ndarray
        Pixels, shape (objects,), float64.

    Returns
    -------
    numpy.ndarray
        Pixels, shape (objects,), float64; above 1.1 pixels the radius itself.
    """
    radii, means = _gaussian_radii()
    free = radius.astype(float)
    with np.errstate(invalid="ignore"):
        small = np.flatnonzero(radius < radii[-1].min())
    curves = _at_phase(radii, x[small], y[small])
    for row, curve in zip(small, curves, strict=True):
        free[row] = np.interp(radius[row], curve, means)
    return free


def _at_phase(radii: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interpolate the radii at each object's place in its pixel; shape (objects, width)."""
    steps = [np.abs(place - np.round(place)) / PHASES[1] for place in (y, x)]
    first = [np.minimum(step.astype(int), len(PHASES) - 2) for step in steps]
    (up, right), (row, column) = (s - f for s, f in zip(steps, first, strict=True)), first
    curves = (1 - up) * (1 - right) * radii[:, row, column]
    curves += up * (1 - right) * radii[:, row + 1, column]
    curves += (1 - up) * right * radii[:, row, column + 1]
    curves += up * right * radii[:, row + 1, column + 1]
    return curves.T


@lru_cache(maxsize=1)
def _gaussian_radii() -> tuple[np.ndarray, np.ndarray]:
    """Half-light radii of Gaussians by width and place, and their means over the places.

    Returns
    -------
    radii : numpy.ndarray
        Shape (width, y, x), float64, pixels; grows along the first axis.
    means : numpy.ndarray
        Shape (width,), float64, pixels.
    """
    radii = np.array([[[_radius(w, y, x) for x in PHASES] for y in PHASES] for w in GAUSSIANS])
    weight = np.ones(len(PHASES))
    weight[[0, -1]] = 0.5
    return radii, np.einsum("wyx,y,x->w", radii, weight, weight) / weight.sum() ** 2


def _radius(width: float, y: float, x: float) -> float:
    """Half-light radius of the pixels of a Gaussian that lies at (y, x)."""
    edges = np.arange(-HALF, HALF + 2) - 0.5
    rows, columns = (np.diff(erf((edges - c) / (np.sqrt(2) * width))) / 2 for c in (y, x))
    image = np.ascontiguousarray(np.outer(rows, columns))
    return sep.flux_radius(image, [HALF + x], [HALF + y], [HALF], 0.5, normflux=[1.0], subpix=5)[0][
        0
    ]
