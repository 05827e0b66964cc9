"""Scores of a classifier, from labels and probabilities alone.

Class numbers count the columns of `probabilities`. In a binary task column 1 is the
positive class. A class that no object belongs to is left out of means over classes, and
a score that cannot be computed is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

Kind = Literal["multiclass", "binary"]


def _ratio(numerator, denominator) -> np.ndarray:
    """Divide; NaN where the denominator is zero."""
    numerator, denominator = np.broadcast_arrays(
        np.asarray(numerator, float), np.asarray(denominator, float)
    )
    return np.divide(
        numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0
    )


def nan_mean(values, axis: int | None = None):
    """Mean without the NaNs; NaN, and no warning, where nothing else is there."""
    values = np.asarray(values, float)
    return _ratio(np.nansum(values, axis=axis), np.sum(~np.isnan(values), axis=axis))[()]


def nan_std(values, axis: int = 0):
    """Sample standard deviation (N - 1) without the NaNs; NaN for fewer than two values."""
    values = np.asarray(values, float)
    mean = np.expand_dims(nan_mean(values, axis), axis)
    count = np.sum(~np.isnan(values), axis=axis)
    squares = np.nansum((values - mean) ** 2, axis=axis)
    return np.sqrt(_ratio(squares, np.maximum(count - 1, 0)))[()]


def confusion(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Count the objects of each true class (rows) and predicted class (columns).

    Parameters
    ----------
    labels : numpy.ndarray
        True class numbers, shape (objects,), int.
    probabilities : numpy.ndarray
        Shape (objects, classes), float; the largest one is the prediction.

    Returns
    -------
    numpy.ndarray
        Shape (classes, classes), int64.
    """
    classes = probabilities.shape[1]
    counts = np.zeros((classes, classes), np.int64)
    if len(labels):
        np.add.at(counts, (np.asarray(labels), probabilities.argmax(axis=1)), 1)
    return counts


def macro_roc_auc(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the one-against-rest ROC curve, mean over the classes that can have one.

    A class needs an object inside and one outside it (Hanley & McNeil 1982; Fawcett 2006).
    """
    columns = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    areas = [
        roc_auc_score(labels == column, probabilities[:, column])
        for column in columns
        if 0 < np.sum(labels == column) < len(labels)
    ]
    return float(nan_mean(areas))


def _binary_scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    positive, chosen = labels == 1, probabilities[:, 1] >= 0.5
    found = float(np.sum(positive & chosen))
    average_precision = (
        float(average_precision_score(positive, probabilities[:, 1])) if positive.any() else np.nan
    )
    return {
        "average_precision": average_precision,
        "completeness": float(_ratio(found, positive.sum())),
        "purity": float(_ratio(found, chosen.sum())),
    }


def scores(labels: np.ndarray, probabilities: np.ndarray, kind: Kind) -> dict[str, float]:
    """Score predictions.

    Parameters
    ----------
    labels : numpy.ndarray
        True class numbers, shape (objects,), int.
    probabilities : numpy.ndarray
        Shape (objects, classes), float; rows sum to one.
    kind : {"multiclass", "binary"}
        Binary tasks get `average_precision`, `completeness` and `purity` as well, the last
        two at probability 0.5.

    Returns
    -------
    dict
        `accuracy`; `balanced_accuracy`: mean recall of the classes that occur (Brodersen et
        al. 2010); `macro_f1`; `log_loss` in nat; `roc_auc`: macro one-against-rest.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, float)
    counts = confusion(labels, probabilities)
    hits, true, predicted = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    assigned = probabilities[np.arange(len(labels)), labels]
    result = {
        "accuracy": float(_ratio(hits.sum(), counts.sum())),
        "balanced_accuracy": float(nan_mean(_ratio(hits, true))),
        "macro_f1": float(nan_mean(_ratio(2 * hits, true + predicted))),
        "log_loss": float(nan_mean(-np.log(np.clip(assigned, np.finfo(float).eps, 1.0)))),
        "roc_auc": macro_roc_auc(labels, probabilities),
    }
    return result | (_binary_scores(labels, probabilities) if kind == "binary" else {})


def reliability(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 15
) -> dict[str, np.ndarray]:
    """Bin objects by the probability of their predicted class.

    Bins are equally wide and closed on the right, as in Guo et al. (2017, sect. 2).

    Parameters
    ----------
    labels : numpy.ndarray
        True class numbers, shape (objects,), int.
    probabilities : numpy.ndarray
        Shape (objects, classes), float.
    bins : int, optional
        Number of bins between 0 and 1.

    Returns
    -------
    dict
        `edges` (bins + 1), `count`, `confidence` (mean probability of the predicted class)
        and `accuracy` (fraction right), each of shape (bins,); NaN where a bin is empty.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, float)
    edges = np.linspace(0.0, 1.0, bins + 1)
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(float)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    count = np.bincount(which, minlength=bins)
    return {
        "edges": edges,
        "count": count,
        "confidence": _ratio(np.bincount(which, confidence, bins), count),
        "accuracy": _ratio(np.bincount(which, right, bins), count),
    }


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 15
) -> float:
    """Mean gap between probability and accuracy of the predicted class, weighted by objects.

    Guo, Pleiss, Sun & Weinberger (2017), eq. 3.

    Parameters
    ----------
    labels : numpy.ndarray
        True class numbers, shape (objects,), int.
    probabilities : numpy.ndarray
        Shape (objects, classes), float.
    bins : int, optional
        Number of bins between 0 and 1.
    """
    binned = reliability(labels, probabilities, bins)
    gaps = np.abs(binned["accuracy"] - binned["confidence"])
    return float(_ratio(np.nansum(binned["count"] * gaps), binned["count"].sum()))


def common_thresholds(score: np.ndarray, count: int = 201) -> np.ndarray:
    """Thresholds, falling, at which the ROC curves of all folds are taken.

    They are quantiles of all scores, so that they lie where the objects do, between one
    that no object reaches and one that all reach.

    Parameters
    ----------
    score : numpy.ndarray
        Scores of all folds together, shape (objects,), float.
    count : int, optional
        Number of quantiles.
    """
    inner = np.quantile(score, np.linspace(0, 1, count)) if len(score) else np.array([])
    return np.unique(np.concatenate([[-np.inf, np.inf], inner]))[::-1]


def _accepted(positive, score, thresholds) -> tuple[np.ndarray, np.ndarray]:
    """Count the true and false positives with a score of at least each threshold."""
    positive, score = np.asarray(positive, bool), np.asarray(score, float)

    def at_least(values):
        return len(values) - np.searchsorted(np.sort(values), thresholds, side="left")

    return at_least(score[positive]), at_least(score[~positive])


def roc_on_thresholds(
    positive: np.ndarray, score: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take the ROC curve at given thresholds: an object is accepted from the threshold up.

    Curves of several folds taken at the same thresholds can be averaged threshold by
    threshold (Fawcett 2006, sect. 8.2).

    Parameters
    ----------
    positive : numpy.ndarray
        Whether an object belongs to the class, shape (objects,), bool.
    score : numpy.ndarray
        Shape (objects,), float.
    thresholds : numpy.ndarray
        Shape (thresholds,), float.

    Returns
    -------
    false_positive_rate, true_positive_rate : numpy.ndarray
        Shape (thresholds,); NaN if there is no negative, or no positive, object.
    """
    positive = np.asarray(positive, bool)
    true, false = _accepted(positive, score, thresholds)
    return _ratio(false, np.sum(~positive)), _ratio(true, np.sum(positive))


def precision_recall_on_thresholds(
    positive: np.ndarray, score: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Take precision (purity) and recall (completeness) at given thresholds.

    Parameters are those of `roc_on_thresholds`.

    Returns
    -------
    precision, recall : numpy.ndarray
        Shape (thresholds,); precision is NaN where no object is accepted.
    """
    true, false = _accepted(positive, score, thresholds)
    return _ratio(true, true + false), _ratio(true, np.sum(positive))


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
