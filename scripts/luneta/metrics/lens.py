"""Scores of lens finding, where the first few false positives decide.

Positive objects are the lenses. Completeness is the true-positive rate (recall), purity the
precision.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from luneta.metrics.arithmetic import ratio
from luneta.metrics.ranking import Ranking, ranked


class OperatingPoint(NamedTuple):
    """What a threshold gives; the fields have the leading axes of the ranking."""

    threshold: float | np.ndarray
    true_positives: float | np.ndarray
    false_positives: float | np.ndarray
    completeness: float | np.ndarray
    false_positive_rate: float | np.ndarray
    purity: float | np.ndarray


def reached_before(ranking: Ranking, false_positives: int):
    """True-positive rate of a ranking; see `true_positive_rate_before`."""
    found = np.where(ranking.false < false_positives, ranking.true, 0).max(axis=-1)
    return np.where(ranking.negatives > 0, ratio(found, ranking.positives), np.nan)[()]


def true_positive_rate_before(labels, score, false_positives: int, weights=None):
    """Highest true-positive rate with fewer than so many false positives.

    Metcalf et al. (2019, A&A 625, A119): TPR0 is "the highest TPR reached, as a function of
    the threshold, before a single false positive occurs" (here `false_positives` = 1), TPR10
    the TPR "at the point where less than ten false positives are made" (10, so at most nine).

    Only thresholds that exist count: objects of equal score are accepted together, nothing is
    interpolated. So a lens and a non-lens tied at the top give TPR0 = 0, as do most discrete
    scores. With fewer than `false_positives` non-lenses in all, every lens is reached and the
    rate is one. NaN without a lens or without a non-lens.

    The numbers depend on how many non-lenses were tried: the challenge had 100,000 objects.

    Parameters
    ----------
    labels : array_like
        Whether an object is a lens, shape (objects,), bool or 0 and 1.
    score : array_like
        Shape (objects,), float.
    false_positives : int
        The number of false positives that must not be reached, one or more.
    weights : array_like, optional
        How often each object counts, shape (..., objects).

    Raises
    ------
    ValueError
        If `false_positives` is below one or a score is NaN.
    """
    if false_positives < 1:
        raise ValueError(
            f"false_positives is {false_positives}, but fewer than that many are allowed, so it "
            "must be at least 1. Use 1 for TPR0 and 10 for TPR10."
        )
    return reached_before(ranked(labels, score, weights), false_positives)


def tpr0(labels, score, weights=None):
    """True-positive rate before the first false positive; see `true_positive_rate_before`."""
    return true_positive_rate_before(labels, score, 1, weights)


def tpr10(labels, score, weights=None):
    """True-positive rate at nine false positives; see `true_positive_rate_before`."""
    return true_positive_rate_before(labels, score, 10, weights)


def _point(ranking: Ranking, index: np.ndarray) -> OperatingPoint:
    index = np.asarray(index)
    true = np.take_along_axis(ranking.true, index[..., None], axis=-1)[..., 0]
    false = np.take_along_axis(ranking.false, index[..., None], axis=-1)[..., 0]
    return OperatingPoint(
        ranking.thresholds[index],
        true,
        false,
        ratio(true, ranking.positives),
        ratio(false, ranking.negatives),
        ratio(true, true + false),
    )


def at_false_positive_rate(ranking: Ranking, rate: float) -> OperatingPoint:
    """Give the lowest threshold whose false-positive rate is not above `rate`.

    A threshold between scores would not help, so nothing is interpolated; with ties at the
    top the point may accept nothing (threshold infinity, purity NaN). Without a negative
    object the false-positive rate is NaN and so is the completeness.
    """
    negatives = np.where(ranking.negatives > 0, ranking.negatives, np.nan)[..., None]
    index = np.maximum(np.sum(ranking.false / negatives <= rate, axis=-1) - 1, 0)
    point = _point(ranking, index)
    completeness = np.where(ranking.negatives > 0, point.completeness, np.nan)[()]
    return point._replace(completeness=completeness)


def at_completeness(ranking: Ranking, completeness: float) -> OperatingPoint:
    """Give the highest threshold whose completeness is not below `completeness`.

    Completeness and purity are NaN without a positive object.

    Raises
    ------
    ValueError
        If `completeness` is not above 0 and at most 1.
    """
    if not 0 < completeness <= 1:
        raise ValueError(
            f"completeness is {completeness}; it must be above 0 and at most 1. Give a fraction, "
            "not per cent."
        )
    positives = np.where(ranking.positives > 0, ranking.positives, np.nan)[..., None]
    return _point(ranking, np.sum(ranking.true / positives < completeness, axis=-1))


def completeness_at_false_positive_rate(labels, score, rate: float, weights=None):
    """Completeness at the lowest threshold whose false-positive rate is at most `rate`.

    `at_false_positive_rate(ranked(labels, score), rate)` gives the number of false positives
    as well, and says what happens at ties. NaN without a lens or without a non-lens.
    """
    return at_false_positive_rate(ranked(labels, score, weights), rate).completeness


def purity_at_completeness(labels, score, completeness: float, weights=None):
    """Purity at the highest threshold whose completeness is at least `completeness`.

    It is the purity of this sample of objects: `contamination` carries it to the sky, where
    lenses are rarer. NaN without a lens.
    """
    return at_completeness(ranked(labels, score, weights), completeness).purity


def contamination(false_positive_rate, true_positive_rate, prevalence):
    """False positives for each true one where a fraction `prevalence` of objects are lenses.

    FP / TP = (FPR / TPR) (1 - prevalence) / prevalence, with (1 - prevalence) / prevalence the
    number of non-lenses for each lens (Metcalf et al. 2019); the purity is 1 / (1 + FP / TP).
    NaN where no lens is found or there is none.
    """
    prevalence = np.asarray(prevalence, float)
    rates = ratio(false_positive_rate, true_positive_rate)
    return (rates * ratio(1 - prevalence, prevalence))[()]
