"""Interval of the area under the ROC curve, after DeLong, DeLong & Clarke-Pearson (1988)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata

from luneta.metrics.checks import checked, checked_score


class Area(NamedTuple):
    """An area under the ROC curve with its interval."""

    value: float
    low: float
    high: float


def delong_covariance(positive, scores) -> tuple[np.ndarray, np.ndarray]:
    """Give the areas of several models on the same objects, and their covariance.

    A positive object's component is the fraction of negatives that it outranks, a negative
    object's the fraction of positives that outrank it; the variances of the components over
    the numbers of objects add up. Mid-ranks give them in O(n log n) (Sun & Xu 2014). The
    difference of two areas has variance c[0, 0] + c[1, 1] - 2 c[0, 1].

    Parameters
    ----------
    positive : array_like
        Whether an object belongs to the class, shape (objects,), bool.
    scores : array_like
        Shape (models, objects), float.

    Returns
    -------
    areas : numpy.ndarray
        Shape (models,); NaN without a positive or without a negative object.
    covariance : numpy.ndarray
        Shape (models, models); NaN with fewer than two objects of either class.

    Raises
    ------
    ValueError
        If a score is NaN.
    """
    scores = [checked_score(positive, score)[1] for score in np.atleast_2d(scores)]
    positive = np.asarray(positive, bool)
    count, others = int(positive.sum()), int((~positive).sum())
    models = len(scores)
    if not count or not others:
        return np.full(models, np.nan), np.full((models, models), np.nan)
    ranks = np.stack([rankdata(score) for score in scores])
    among = np.stack([rankdata(score[positive]) for score in scores])
    among_others = np.stack([rankdata(score[~positive]) for score in scores])
    outranked = (ranks[:, positive] - among) / others
    outranking = 1 - (ranks[:, ~positive] - among_others) / count
    if min(count, others) < 2:
        return outranked.mean(axis=1), np.full((models, models), np.nan)
    covariance = np.atleast_2d(np.cov(outranked)) / count
    return outranked.mean(axis=1), covariance + np.atleast_2d(np.cov(outranking)) / others


def delong_interval(positive, score, level: float = 0.683) -> Area:
    """Give the area under the ROC curve with its normal interval, cut at 0 and 1.

    The classes' numbers of objects count as given. A perfect ranking gets no width, and areas
    near one too little. The bounds are NaN with fewer than two objects of either class.

    Parameters
    ----------
    positive : array_like
        Whether an object belongs to the class, shape (objects,), bool.
    score : array_like
        Shape (objects,), float.
    level : float, optional
        Confidence level.
    """
    areas, covariance = delong_covariance(positive, [score])
    half = norm.ppf((1 + level) / 2) * np.sqrt(np.maximum(covariance[0, 0], 0))
    low, high = np.clip([areas[0] - half, areas[0] + half], 0, 1)
    return Area(float(areas[0]), float(low), float(high))


def class_areas(labels, probabilities, level: float = 0.683) -> list[Area]:
    """Give the area of each class against the rest, with its interval.

    Parameters
    ----------
    labels : array_like
        True class numbers, shape (objects,), int.
    probabilities : array_like
        Shape (objects, classes), float.
    level : float, optional
        Confidence level.

    Raises
    ------
    ValueError
        As `checks.checked`.
    """
    labels, probabilities = checked(labels, probabilities)
    return [
        delong_interval(labels == number, score, level)
        for number, score in enumerate(probabilities.T)
    ]
