"""Scores of probabilities: proper scores, top-k accuracy and calibration.

Each takes `weights`, shape (..., objects): how often each object counts, as in a draw of the
bootstrap. The result then has the leading axes of the weights.
"""

from __future__ import annotations

import numpy as np

from luneta.metrics.arithmetic import once_each, ratio, weighted_mean
from luneta.metrics.checks import checked


def log_loss(labels, probabilities, weights=None):
    """Cross-entropy: mean of -ln of the probability of the true class, in nat.

    Good (1952). Probabilities are clipped at the float64 epsilon, so that one object costs at
    most 36.04 nat. NaN without objects.

    Parameters
    ----------
    labels : array_like
        True class numbers, shape (objects,), int.
    probabilities : array_like
        Shape (objects, classes), float; rows sum to one.
    weights : array_like, optional
        Shape (..., objects).
    """
    labels, probabilities = checked(labels, probabilities)
    assigned = probabilities[np.arange(len(labels)), labels]
    losses = -np.log(np.clip(assigned, np.finfo(float).eps, 1.0))
    return weighted_mean(losses, once_each(len(labels), weights))


def brier(labels, probabilities, weights=None):
    """Mean squared error of the probabilities (Brier 1950).

    Mean over objects of the sum over classes of (p - y)², y = 1 for the true class: 0 to 2.
    With two classes, as is usual, only column 1 counts, which halves it: 0 to 1. NaN without
    objects. Parameters are those of `log_loss`.
    """
    labels, probabilities = checked(labels, probabilities)
    squares = ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1)
    if probabilities.shape[1] == 2:
        squares = (probabilities[:, 1] - labels) ** 2
    return weighted_mean(squares, once_each(len(labels), weights))


def top_k_accuracy(labels, probabilities, k: int = 2, weights=None):
    """Fraction of objects whose true class is among the k most probable.

    Among equal probabilities the first column leads, as in `counts.confusion`, so that k = 1
    is the accuracy. One if k is the number of classes; NaN without objects. Parameters are
    those of `log_loss`.
    """
    labels, probabilities = checked(labels, probabilities)
    assigned = probabilities[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    ahead = (probabilities > assigned) | ((probabilities == assigned) & earlier)
    return weighted_mean(ahead.sum(axis=1) < k, once_each(len(labels), weights))


def reliability(labels, probabilities, bins: int = 15, weights=None) -> dict[str, np.ndarray]:
    """Bin objects by the probability of their predicted class.

    Bins are equally wide and closed on the right, as in Guo et al. (2017, sect. 2).

    Parameters
    ----------
    labels : array_like
        True class numbers, shape (objects,), int.
    probabilities : array_like
        Shape (objects, classes), float.
    bins : int, optional
        Number of bins between 0 and 1.
    weights : array_like, optional
        Shape (..., objects).

    Returns
    -------
    dict
        `edges` (bins + 1), `count`, `confidence` (mean probability of the predicted class)
        and `accuracy` (fraction right), each of shape (..., bins); NaN where a bin is empty.
    """
    labels, probabilities = checked(labels, probabilities)
    edges = np.linspace(0.0, 1.0, bins + 1)
    confidence = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(float)
    which = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    each = once_each(len(labels), weights)

    def binned(values):
        return np.apply_along_axis(
            lambda row: np.bincount(which, row, minlength=bins), -1, each * values
        )

    count = binned(np.ones(len(labels)))
    return {
        "edges": edges,
        "count": count.astype(np.int64) if weights is None else count,
        "confidence": ratio(binned(confidence), count),
        "accuracy": ratio(binned(right), count),
    }


def expected_calibration_error(labels, probabilities, bins: int = 15, weights=None):
    """Mean gap between probability and accuracy of the predicted class, weighted by objects.

    Guo, Pleiss, Sun & Weinberger (2017), eq. 3. It is never negative, so that noise raises it:
    that of few objects, or of a bootstrap, is too large (Kumar, Liang & Ma 2019). NaN without
    objects. Parameters are those of `reliability`.
    """
    binned = reliability(labels, probabilities, bins, weights)
    gaps = np.abs(binned["accuracy"] - binned["confidence"])
    return ratio(np.nansum(binned["count"] * gaps, axis=-1), binned["count"].sum(axis=-1))
