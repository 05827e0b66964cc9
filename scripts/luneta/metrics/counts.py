"""Scores of decisions: all follow from a table of counts, the confusion matrix.

A confusion matrix has shape (..., classes, classes), rows for the true and columns for the
predicted class; leading axes, as for the draws of a bootstrap, are kept. In a binary task
class 1 is the positive one: its precision is element 1 of `precision`, and so on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from luneta.metrics.arithmetic import nan_mean, ratio
from luneta.metrics.checks import checked, checked_score


class Counts(NamedTuple):
    """Numbers of objects by truth and decision, int or shape (..., classes)."""

    true_positive: int | np.ndarray
    false_positive: int | np.ndarray
    true_negative: int | np.ndarray
    false_negative: int | np.ndarray


def counts_at(positive, score, threshold: float = 0.5, strict: bool = False) -> Counts:
    """Count true and false positives and negatives at a threshold.

    Parameters
    ----------
    positive : array_like
        Whether an object belongs to the class, shape (objects,), bool.
    score : array_like
        Shape (objects,), float.
    threshold : float, optional
        An object is accepted if its score is at least this.
    strict : bool, optional
        Accept only scores above the threshold.

    Raises
    ------
    ValueError
        If a score is NaN.
    """
    positive, score = checked_score(positive, score)
    accepted = score > threshold if strict else score >= threshold
    return Counts(
        int(np.sum(positive & accepted)),
        int(np.sum(~positive & accepted)),
        int(np.sum(~positive & ~accepted)),
        int(np.sum(positive & ~accepted)),
    )


def table_of(counts: Counts) -> np.ndarray:
    """Give the confusion matrix of a binary decision: [[TN, FP], [FN, TP]]."""
    return np.array(
        [
            [counts.true_negative, counts.false_positive],
            [counts.false_negative, counts.true_positive],
        ]
    )


def confusion(labels, probabilities, weights=None) -> np.ndarray:
    """Count the objects of each true class (rows) and predicted class (columns).

    Parameters
    ----------
    labels : array_like
        True class numbers, shape (objects,), int.
    probabilities : array_like
        Shape (objects, classes), float; the largest one is the prediction, the first of
        equal ones. In a binary task class 1 is thus chosen above probability 0.5.
    weights : array_like, optional
        How often each object counts, shape (..., objects).

    Returns
    -------
    numpy.ndarray
        Shape (..., classes, classes); int64, or float64 if there are weights.

    Raises
    ------
    ValueError
        As `checks.checked`.
    """
    labels, probabilities = checked(labels, probabilities)
    classes = probabilities.shape[1]
    cells = labels * classes + (probabilities.argmax(axis=1) if len(labels) else 0)
    if weights is None:
        return np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    weights = np.asarray(weights, float)
    counts = np.apply_along_axis(
        lambda row: np.bincount(cells, row, minlength=classes**2), -1, weights
    )
    return counts.reshape(*weights.shape[:-1], classes, classes)


def _marginals(matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give hits, true and predicted objects of each class, float64 (..., classes)."""
    matrix = np.asarray(matrix, float)
    return np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1), matrix.sum(axis=-2)


def class_counts(matrix) -> Counts:
    """Count true and false positives and negatives of each class against the rest.

    Returns
    -------
    Counts
        Arrays of shape (..., classes), float64.
    """
    hits, true, predicted = _marginals(matrix)
    total = true.sum(axis=-1, keepdims=True)
    return Counts(hits, predicted - hits, total - true - predicted + hits, true - hits)


def accuracy(matrix):
    """Fraction of objects that are right, (TP + TN) / all; NaN if there are none."""
    hits, true, _ = _marginals(matrix)
    return ratio(hits.sum(axis=-1), true.sum(axis=-1))


def precision(matrix):
    """Precision (purity) of each class, TP / (TP + FP); NaN where it is never predicted."""
    hits, _, predicted = _marginals(matrix)
    return ratio(hits, predicted)


def recall(matrix):
    """Recall (completeness) of each class, TP / (TP + FN); NaN where no object belongs to it."""
    hits, true, _ = _marginals(matrix)
    return ratio(hits, true)


def balanced_accuracy(matrix):
    """Mean recall of the classes that occur (Brodersen et al. 2010); NaN if there are none."""
    return nan_mean(recall(matrix), axis=-1)


def f_beta(matrix, beta: float = 1.0):
    """F score of each class: recall counts `beta` times as much as precision.

    (1 + b²) TP / ((1 + b²) TP + b² FN + FP), van Rijsbergen (1979, ch. 7). Zero where nothing
    is right; NaN where a class neither occurs nor is predicted.
    """
    hits, true, predicted = _marginals(matrix)
    return ratio((1 + beta**2) * hits, beta**2 * true + predicted)


def macro_f1(matrix):
    """Mean F1 of the classes that occur or are predicted, as scikit-learn takes it."""
    return nan_mean(f_beta(matrix), axis=-1)


def cohen_kappa(matrix):
    """Agreement beyond chance, (p_o - p_e) / (1 - p_e) (Cohen 1960).

    p_o is the accuracy and p_e what the marginals alone would give. NaN where chance would
    be always right: one class, and nothing else predicted.
    """
    hits, true, predicted = _marginals(matrix)
    total, chance = true.sum(axis=-1), (true * predicted).sum(axis=-1)
    return ratio(total * hits.sum(axis=-1) - chance, total**2 - chance)


def matthews(matrix):
    """Matthews correlation of truth and prediction, for two classes (1975) or more.

    (TP TN - FP FN) / sqrt((TP + FP)(TP + FN)(TN + FP)(TN + FN)), and R_K of Gorodkin (2004)
    for more than two classes. Zero where only one class is predicted, its limit (Chicco &
    Jurman 2020); NaN where only one class occurs.
    """
    hits, true, predicted = _marginals(matrix)
    total = true.sum(axis=-1)
    covariance = total * hits.sum(axis=-1) - (true * predicted).sum(axis=-1)
    spread_true = total**2 - (true**2).sum(axis=-1)
    spread_predicted = total**2 - (predicted**2).sum(axis=-1)
    value = ratio(covariance, np.sqrt(spread_true) * np.sqrt(spread_predicted))
    constant = (spread_predicted == 0) & (spread_true > 0)
    return np.where(constant, 0.0, value)[()]
