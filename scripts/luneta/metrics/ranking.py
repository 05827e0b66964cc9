"""Scores of a ranking: ROC and precision-recall curves and the areas under them.

Objects are sorted once, in O(n log n), by `ranked`; functions that take a `Ranking` cost O(n)
each. Objects of equal score are accepted together: no order among them is made up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from luneta.metrics.arithmetic import nan_mean, once_each, ratio
from luneta.metrics.checks import checked, checked_score


class Ranking(NamedTuple):
    """Accepted objects as the threshold falls; the first point accepts none.

    `thresholds` has shape (points,): infinity, then the distinct scores, falling. `true` and
    `false`, shape (..., points), float64, count the positive and the negative objects with a
    score of at least the threshold; the last point accepts all.
    """

    thresholds: np.ndarray
    true: np.ndarray
    false: np.ndarray

    @property
    def positives(self):
        """Number of positive objects, shape (...)."""
        return self.true[..., -1]

    @property
    def negatives(self):
        """Number of negative objects, shape (...)."""
        return self.false[..., -1]


def _running(values: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Sum along the last axis up to each of the positions `last`, after a zero."""
    sums = np.zeros((*values.shape[:-1], len(last) + 1))
    if len(last) == values.shape[-1]:
        np.cumsum(values, axis=-1, out=sums[..., 1:])
    else:
        sums[..., 1:] = np.cumsum(values, axis=-1)[..., last]
    return sums


def ranked(positive, score, weights=None) -> Ranking:
    """Sort objects by score and count what each threshold accepts.

    Parameters
    ----------
    positive : array_like
        Whether an object belongs to the class, shape (objects,), bool.
    score : array_like
        Shape (objects,), float; larger is more likely positive.
    weights : array_like, optional
        How often each object counts, whole numbers, shape (..., objects).

    Raises
    ------
    ValueError
        If a score is NaN.
    """
    positive, score = checked_score(positive, score)
    order = np.argsort(-score, kind="stable")
    falling = score[order]
    last = np.flatnonzero(np.append(falling[1:] != falling[:-1], True)[: len(score)])
    ordered = once_each(len(score), weights)[..., order]
    true = _running(ordered * positive[order], last)
    false = _running(ordered, last) - true
    return Ranking(np.concatenate([[np.inf], falling[last]]), true, false)


def area_under_roc(ranking: Ranking):
    """Area under the ROC curve of a ranking; see `roc_auc`."""
    area = np.trapezoid(ranking.true, ranking.false, axis=-1)
    return ratio(area, ranking.positives * ranking.negatives)


def area_under_precision_recall(ranking: Ranking):
    """Average precision of a ranking; see `average_precision`."""
    accepted = ranking.true + ranking.false
    precision = np.divide(ranking.true, accepted, out=accepted, where=accepted > 0)
    gained = np.diff(ranking.true, axis=-1)
    return ratio((gained * precision[..., 1:]).sum(axis=-1), ranking.positives)


def roc_auc(positive, score, weights=None):
    """Area under the ROC curve: the chance that a positive object outranks a negative one.

    From the mid-ranks of the positive objects (Mann-Whitney; Hanley & McNeil 1982), so equal
    scores count one half: the trapezium between points of the curve, in fewer passes over the
    draws of a bootstrap than a `Ranking` takes. NaN without a positive or without a negative
    object. Parameters are those of `ranked`.
    """
    positive, score = checked_score(positive, score)
    order = np.argsort(score, kind="stable")
    weights = once_each(len(score), weights)
    running = _running(weights[..., order], np.arange(len(score)))
    first = np.searchsorted(score[order], score[positive], side="left")
    last = np.searchsorted(score[order], score[positive], side="right")
    members = weights[..., positive]
    ranks = (members * (running[..., first] + running[..., last])).sum(axis=-1) / 2
    count = members.sum(axis=-1)
    return ratio(ranks - count**2 / 2, count * (running[..., -1] - count))


def average_precision(positive, score, weights=None):
    """Sum over thresholds of the gain in recall times the precision there.

    Without interpolation, as in scikit-learn: the trapezium would be too kind (Davis &
    Goadrich 2006). NaN without positive, one without negative objects. Parameters are those
    of `ranked`.
    """
    return area_under_precision_recall(ranked(positive, score, weights))


def roc(positive, score) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take the ROC curve at every distinct score, from (0, 0) to (1, 1).

    Returns
    -------
    thresholds, false_positive_rate, true_positive_rate : numpy.ndarray
        Shape (points,), falling thresholds; rates are NaN where their class is empty
        (Fawcett 2006).
    """
    ranking = ranked(positive, score)
    return (
        ranking.thresholds,
        ratio(ranking.false, ranking.negatives),
        ratio(ranking.true, ranking.positives),
    )


def precision_recall(positive, score) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Take precision (purity) and recall (completeness) at every distinct score.

    Returns
    -------
    thresholds, precision, recall : numpy.ndarray
        Shape (distinct scores,), falling thresholds; recall is NaN without positive objects.
    """
    ranking = ranked(positive, score)
    true, false = ranking.true[1:], ranking.false[1:]
    return ranking.thresholds[1:], ratio(true, true + false), ratio(true, ranking.positives)


def one_against_rest_auc(labels, probabilities, weights=None) -> np.ndarray:
    """Area under the ROC curve of each class against all others.

    Parameters
    ----------
    labels : array_like
        True class numbers, shape (objects,), int.
    probabilities : array_like
        Shape (objects, classes), float.
    weights : array_like, optional
        Shape (..., objects).

    Returns
    -------
    numpy.ndarray
        Shape (..., classes); NaN for a class without an object inside or outside it.
    """
    labels, probabilities = checked(labels, probabilities)
    areas = [
        roc_auc(labels == column, probabilities[:, column], weights)
        for column in range(probabilities.shape[1])
    ]
    return np.stack(areas, axis=-1)


def macro_roc_auc(labels, probabilities, weights=None):
    """Area under the one-against-rest ROC curve, mean over the classes that can have one.

    Hanley & McNeil (1982), Fawcett (2006, sect. 9). With two classes it is that of column 1.
    Parameters are those of `one_against_rest_auc`.
    """
    labels, probabilities = checked(labels, probabilities)
    if probabilities.shape[1] == 2:
        return roc_auc(labels == 1, probabilities[:, 1], weights)
    return nan_mean(one_against_rest_auc(labels, probabilities, weights), axis=-1)
