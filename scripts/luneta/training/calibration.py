"""Temperature scaling (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BOUNDS = (0.05, 20.0)


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Give softmax(logits / temperature) over the last axis, float64."""
    return softmax(np.asarray(logits, dtype="float64") / temperature, axis=-1)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature with the lowest negative log-likelihood.

    Parameters
    ----------
    logits
        (object, class), of objects the networks were not trained on.
    labels
        Class indices, int (object,).

    Returns
    -------
    float
        Above 1 where the networks are too sure of themselves; within 0.05 to 20.
    """
    logits = np.asarray(logits, dtype="float64")
    objects = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=1)
        return -scaled[objects, labels].mean()

    found = minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
