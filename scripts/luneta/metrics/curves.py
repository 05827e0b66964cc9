"""Curves and scores over folds: taken at the same thresholds, then summarised there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from luneta.metrics.arithmetic import nan_mean, nan_quantile, nan_std, ratio
from luneta.metrics.checks import checked_score

# The quantiles of one standard deviation either side of a normal mean.
BAND = (0.1587, 0.8413)
# False positive rates up to this one get thresholds of their own, evenly on a logarithmic axis.
TAIL, TAIL_COUNT = 0.05, 100


class Band(NamedTuple):
    """Summary of curves over folds, each of shape (thresholds,)."""

    mean: np.ndarray
    median: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray


def common_thresholds(score, positive=None, count: int = 201) -> np.ndarray:
    """Thresholds, falling, at which the ROC curves of all folds are taken.

    They are quantiles of all scores, so that they lie where the objects do, between one
    that no object reaches and one that all reach; where it is known which objects are positive,
    also those that accept few negatives, so that small false positive rates are resolved.

    Parameters
    ----------
    score : array_like
        Scores of all folds together, shape (objects,), float.
    positive : array_like, optional
        Whether an object belongs to the class, shape (objects,), bool.
    count : int, optional
        Number of quantiles.
    """
    score = np.asarray(score, float)
    inner = [[-np.inf, np.inf]]
    if len(score):
        inner.append(np.quantile(score, np.linspace(0, 1, count)))
    if positive is not None and len(negative := score[~np.asarray(positive, bool)]):
        rates = np.geomspace(min(1 / len(negative), TAIL), TAIL, TAIL_COUNT)
        inner.append(np.quantile(negative, 1 - rates))
    return np.unique(np.concatenate(inner))[::-1]


def course_thresholds(count: int = 1000) -> np.ndarray:
    """Thresholds of the course this project starts from: equal steps from 1 down to 0.

    It accepts an object if p > t (`strict=True` below): nothing at the first threshold, and
    at the last all but those with p = 0, so that the curve may end short of (1, 1). Networks
    put most probabilities near 0 and 1, where few of these thresholds lie; `common_thresholds`
    are better for figures.
    """
    return np.linspace(1, 0, count)


def _accepted(positive, score, thresholds, strict: bool) -> tuple[np.ndarray, np.ndarray]:
    """Count the true and false positives that each threshold accepts."""
    side = "right" if strict else "left"

    def reaching(values):
        return len(values) - np.searchsorted(np.sort(values), thresholds, side=side)

    return reaching(score[positive]), reaching(score[~positive])


def roc_on_thresholds(
    positive, score, thresholds, strict: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Take the ROC curve at given thresholds: an object is accepted from the threshold up.

    Curves of several folds taken at the same thresholds can be averaged threshold by
    threshold (Fawcett 2006, sect. 8.2).

    Parameters
    ----------
    positive : array_like
        Whether an object belongs to the class, shape (objects,), bool.
    score : array_like
        Shape (objects,), float.
    thresholds : array_like
        Shape (thresholds,), float.
    strict : bool, optional
        Accept only scores above the threshold, as the course does.

    Returns
    -------
    false_positive_rate, true_positive_rate : numpy.ndarray
        Shape (thresholds,); NaN if there is no negative, or no positive, object.

    Raises
    ------
    ValueError
        If a score is NaN.
    """
    positive, score = checked_score(positive, score)
    true, false = _accepted(positive, score, thresholds, strict)
    return ratio(false, np.sum(~positive)), ratio(true, np.sum(positive))


def precision_recall_on_thresholds(
    positive, score, thresholds, strict: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Take precision (purity) and recall (completeness) at given thresholds.

    Parameters are those of `roc_on_thresholds`.

    Returns
    -------
    precision, recall : numpy.ndarray
        Shape (thresholds,); precision is NaN where no object is accepted.
    """
    positive, score = checked_score(positive, score)
    true, false = _accepted(positive, score, thresholds, strict)
    return ratio(true, true + false), ratio(true, np.sum(positive))


def over_folds(curves) -> Band:
    """Summarise curves threshold by threshold; NaNs are left out.

    Mean, median, sample standard deviation (N - 1; NaN for fewer than two folds) and the
    15.87 and 84.13 per cent quantiles, linear between folds. With few folds the band lies
    close to the extremes: five folds put it 0.63 of a step inside them.

    Parameters
    ----------
    curves : array_like
        Shape (folds, thresholds), float.
    """
    curves = np.asarray(curves, float)
    low, median, high = nan_quantile(curves, [BAND[0], 0.5, BAND[1]])
    return Band(nan_mean(curves, 0), median, nan_std(curves), low, high)


def roc_over_folds(
    positive, score, folds, thresholds=None, strict: bool = False
) -> tuple[Band, Band]:
    """Take the ROC curve of each fold at the same thresholds and summarise it on each.

    Parameters
    ----------
    positive, score : array_like
        As in `roc_on_thresholds`, all folds together.
    folds : array_like
        Fold of each object, shape (objects,).
    thresholds : array_like, optional
        Shape (thresholds,), float; `common_thresholds` of all objects if not given.
    strict : bool, optional
        Accept only scores above the threshold; with `course_thresholds` it is the course's
        definition.

    Returns
    -------
    false_positive_rate, true_positive_rate : Band
        A fold without negative, or positive, objects is left out of the one, or the other.
    """
    positive, score = checked_score(positive, score)
    thresholds = (
        common_thresholds(score, positive) if thresholds is None else np.asarray(thresholds)
    )
    folds = np.asarray(folds)
    rates = [
        roc_on_thresholds(positive[folds == fold], score[folds == fold], thresholds, strict)
        for fold in np.unique(folds)
    ]
    return over_folds([rate[0] for rate in rates]), over_folds([rate[1] for rate in rates])


def mean_and_standard_error(
    folds: Sequence[Mapping[str, float]],
) -> tuple[dict[str, float], dict[str, float]]:
    """Average each score over folds; NaNs are left out.

    The standard error is the sample standard deviation over the square root of the number
    of folds. It understates the scatter somewhat, as folds share training objects (Bengio &
    Grandvalet 2004).

    Returns
    -------
    mean, standard_error : dict
        One entry for each score of the first fold.
    """
    names = list(folds[0]) if folds else []
    values = {name: np.array([fold[name] for fold in folds], float) for name in names}
    mean = {name: float(nan_mean(v)) for name, v in values.items()}
    error = {
        name: float(nan_std(v) / np.sqrt(max(np.sum(~np.isnan(v)), 1)))
        for name, v in values.items()
    }
    return mean, error
