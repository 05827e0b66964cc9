"""Scores of predicted numbers, such as the parameters of a lens.

Truth and prediction have shape (objects,) or (objects, parameters); scores are taken over
objects, in the unit of the parameter. An object whose truth is NaN is left out. A prediction
that is NaN makes the score NaN (in coverage: it counts as missed), so that no failure hides.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

from luneta.metrics.arithmetic import nan_quantile, ratio

LEVELS = (0.683, 0.955, 0.997)


def _mean(values, truth):
    """Mean over objects whose truth is known."""
    known = ~np.isnan(truth)
    return ratio(np.where(known, values, 0).sum(axis=0), known.sum(axis=0))


def _pair(truth, predicted) -> tuple[np.ndarray, np.ndarray]:
    truth, predicted = np.asarray(truth, float), np.asarray(predicted, float)
    if truth.shape != predicted.shape:
        raise ValueError(
            f"truth has shape {truth.shape} and prediction {predicted.shape}; they must be equal, "
            "(objects,) or (objects, parameters)."
        )
    return truth, predicted


def mean_squared_error(truth, predicted):
    """Mean of (predicted - truth)² over objects, squared unit; NaN without objects.

    Parameters
    ----------
    truth, predicted : array_like
        Shape (objects,) or (objects, parameters), float.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    truth, predicted = _pair(truth, predicted)
    return _mean((predicted - truth) ** 2, truth)


def mean_absolute_error(truth, predicted):
    """Mean of |predicted - truth|; parameters as in `mean_squared_error`."""
    truth, predicted = _pair(truth, predicted)
    return _mean(np.abs(predicted - truth), truth)


def bias(truth, predicted):
    """Mean of predicted - truth, with its sign; parameters as in `mean_squared_error`."""
    truth, predicted = _pair(truth, predicted)
    return _mean(predicted - truth, truth)


def error_68(truth, predicted, fraction: float = 0.68):
    """Error that 68 per cent of objects stay below: that quantile of |predicted - truth|.

    The "68 % error" of Hezaveh, Perreault Levasseur & Marshall (2017, table 1), linear between
    objects. It holds the bias, unlike half the width of the central 68 per cent. Parameters
    are those of `mean_squared_error`.
    """
    truth, predicted = _pair(truth, predicted)
    failed = (np.isnan(predicted) & ~np.isnan(truth)).any(axis=0)
    error = nan_quantile(np.abs(predicted - truth), fraction)
    return np.where(failed, np.nan, error)[()]


def coverage(truth, low, high):
    """Fraction of objects whose truth lies in the interval, its ends included.

    Parameters
    ----------
    truth, low, high : array_like
        Shape (objects,) or (objects, parameters), float.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    truth, low = _pair(truth, low)
    _, high = _pair(truth, high)
    return _mean((low <= truth) & (truth <= high), truth)


def normal_coverage(truth, mean, std, levels: Sequence[float] = LEVELS) -> dict[float, np.ndarray]:
    """Coverage of central intervals of normal predictions, at each level.

    Honest uncertainties give coverage = level (Perreault Levasseur, Hezaveh & Wechsler 2017).

    Parameters
    ----------
    truth, mean, std : array_like
        Shape (objects,) or (objects, parameters), float.
    levels : sequence of float, optional
        Probabilities of the intervals; 68.3, 95.5 and 99.7 per cent are 1, 2 and 3 sigma.
    """
    mean, std = _pair(mean, std)
    widths = {level: norm.ppf((1 + level) / 2) * std for level in levels}
    return {level: coverage(truth, mean - w, mean + w) for level, w in widths.items()}


def sample_coverage(truth, samples, levels: Sequence[float] = LEVELS) -> dict[float, np.ndarray]:
    """Coverage of central intervals between quantiles of samples, at each level.

    Parameters
    ----------
    truth : array_like
        Shape (objects,) or (objects, parameters), float.
    samples : array_like
        Draws of the prediction, shape (draws, *truth.shape), float. A level needs some
        2 / (1 - level) draws or more to be reached.
    levels : sequence of float, optional
        Probabilities of the intervals.
    """
    samples = np.asarray(samples, float)
    ends = {
        level: np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0) for level in levels
    }
    return {level: coverage(truth, low, high) for level, (low, high) in ends.items()}


def with_better_ellipticity_sign(truth, predicted, columns: Sequence[int] = (1, 2)) -> np.ndarray:
    """Turn predicted ellipticities to the sign that is closer to the truth.

    With e_x = e cos(phi) and e_y = e sin(phi), phi and phi + 180 degrees are the same ellipse
    but opposite components. Hezaveh et al. (2017) take the smaller error of both signs, in the
    loss and in the errors they quote: a choice that *looks at the truth* and so flatters.
    Say so where it is used, or use e cos(2 phi) and e sin(2 phi), which have no such freedom.

    Parameters
    ----------
    truth, predicted : array_like
        Shape (objects, parameters), float; their order is theta_E, e_x, e_y, x, y.
    columns : sequence of int, optional
        Where e_x and e_y are.

    Returns
    -------
    numpy.ndarray
        The predictions, float64; both components of an object change sign, or neither. Equal
        errors, or NaN, change nothing.
    """
    truth, predicted = _pair(truth, predicted)
    columns = list(columns)
    kept = ((predicted - truth)[:, columns] ** 2).sum(axis=1)
    turned = ((predicted + truth)[:, columns] ** 2).sum(axis=1)
    result = predicted.copy()
    result[np.ix_(turned < kept, columns)] *= -1
    return result
