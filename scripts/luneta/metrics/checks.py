"""Refuse labels and probabilities that would give a number without a meaning."""

from __future__ import annotations

import numpy as np


def _first(wrong: np.ndarray) -> str:
    return f"{np.sum(wrong)} of {len(wrong)} objects, the first is number {np.argmax(wrong)}"


def checked(labels, probabilities) -> tuple[np.ndarray, np.ndarray]:
    """Check labels and probabilities against each other.

    Parameters
    ----------
    labels : array_like
        True class numbers, shape (objects,), int.
    probabilities : array_like
        Shape (objects, classes), float.

    Returns
    -------
    labels, probabilities : numpy.ndarray
        The same, as int64 and float64.

    Raises
    ------
    ValueError
        If shapes do not fit, a label is not the number of a column (NaN and fractions are not),
        or a probability is NaN or outside 0 to 1.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, float)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            f"labels have shape {labels.shape} and probabilities {probabilities.shape}; they must "
            "be (objects,) and (objects, classes). Give one label and one row for each object."
        )
    classes = probabilities.shape[1]
    wrong = ~((labels >= 0) & (labels < classes) & (labels == np.floor(labels)))
    if wrong.any():
        raise ValueError(
            f"labels must be class numbers from 0 to {classes - 1}, the columns of the "
            f"probabilities; other values: {_first(wrong)}, {labels[np.argmax(wrong)]}. Leave "
            "objects of unknown class out before scoring."
        )
    wrong = ~((probabilities >= -1e-6) & (probabilities <= 1 + 1e-6)).all(axis=1)
    if wrong.any():
        raise ValueError(
            f"probabilities must lie between 0 and 1: {_first(wrong)}, "
            f"{probabilities[np.argmax(wrong)].tolist()}. Apply softmax to logits; leave objects "
            "whose prediction is NaN out, and count them, before scoring."
        )
    return labels.astype(np.int64), probabilities


def checked_score(positive, score) -> tuple[np.ndarray, np.ndarray]:
    """Check a binary label and a score for each object.

    Parameters
    ----------
    positive : array_like
        Shape (objects,), bool, or 0 and 1.
    score : array_like
        Shape (objects,), float.

    Returns
    -------
    positive, score : numpy.ndarray
        Shape (objects,), as bool and float64.

    Raises
    ------
    ValueError
        If shapes do not fit, a label is neither 0 nor 1, or a score is NaN.
    """
    positive, score = np.asarray(positive), np.asarray(score, float)
    if score.ndim != 1 or positive.shape != score.shape:
        raise ValueError(
            f"labels have shape {positive.shape} and scores {score.shape}; both must be "
            "(objects,). Give the column of the positive class, not all columns."
        )
    wrong = (positive != 0) & (positive != 1)
    if wrong.any():
        raise ValueError(
            f"labels must be 0 or 1, or bool: {_first(wrong)}, {positive[np.argmax(wrong)]}. "
            "Compare class numbers with the positive one; leave objects of unknown class out."
        )
    wrong = np.isnan(score)
    if wrong.any():
        raise ValueError(
            f"scores must not be NaN: {_first(wrong)}. A NaN has no rank; leave these objects "
            "out, and count them, before scoring."
        )
    return positive.astype(bool), score
