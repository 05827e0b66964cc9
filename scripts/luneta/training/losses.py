"""Losses of soft labels and logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from luneta.config import Training


def smoothed(labels: Any, share: float) -> Any:
    """Spread a share of each label evenly over all classes (Szegedy et al. 2016).

    Parameters
    ----------
    labels
        (object, class), rows that sum to 1.
    """
    return labels * (1 - share) + share / labels.shape[-1] if share else labels


def cross_entropy(labels: Any, logits: Any) -> Any:
    """Give -sum_k y_k log p_k with p the softmax of the logits.

    Parameters
    ----------
    labels, logits
        (object, class), float32.

    Returns
    -------
    tensor
        (object,).
    """
    return -ops.sum(labels * ops.log_softmax(logits, axis=-1), axis=-1)


def focal(labels: Any, logits: Any, gamma: float) -> Any:
    """Give -sum_k y_k (1 - p_k)^gamma log p_k (Lin et al. 2017, arXiv:1708.02002, eq. 4).

    The softmax form for any number of classes; of two classes it is the paper's binary form, as
    softmax over the logits (0, x) is the logistic function of x. Balancing (the paper's alpha) is
    the class weights' affair.

    Parameters
    ----------
    labels, logits
        (object, class), float32.
    gamma
        Exponent; 0 gives the cross-entropy.

    Returns
    -------
    tensor
        (object,).
    """
    log_p = ops.log_softmax(logits, axis=-1)
    # 1 - p from log p keeps its digits where p is near 1, and its gradient finite at p = 1
    rest = ops.maximum(-ops.expm1(log_p), 1e-7)
    return -ops.sum(labels * ops.power(rest, gamma) * log_p, axis=-1)


def binary_cross_entropy(labels: Any, logits: Any) -> Any:
    """Give the mean over classes of -y log p - (1 - y) log(1 - p), with p the softmax.

    The loss of the lens course; for hard labels of two classes it equals the cross-entropy.
    Probabilities are kept 1e-7 from 0 and 1, as Keras does.

    Parameters
    ----------
    labels, logits
        (object, class), float32.

    Returns
    -------
    tensor
        (object,).
    """
    p = ops.clip(ops.softmax(logits, axis=-1), 1e-7, 1 - 1e-7)
    return -ops.mean(labels * ops.log(p) + (1 - labels) * ops.log(1 - p), axis=-1)


def of_training(training: Training) -> Callable[[Any, Any], Any]:
    """Make the loss that a config asks for, of soft labels and logits (object, class)."""
    if training.course_recipe:
        return binary_cross_entropy
    share, gamma = training.label_smoothing, training.focal_gamma

    def loss(labels: Any, logits: Any) -> Any:
        labels = smoothed(labels, share)
        if training.loss == "focal":
            return focal(labels, logits, gamma)
        return cross_entropy(labels, logits)

    return loss
