"""Calibration: from a network's logits to probabilities that can be taken at their word.

Logits may come in several samples of the same objects (views, draws of dropout). The probability
that luneta reports is the mean over the samples' calibrated probabilities, and it is the log-loss
of this mean that calibration makes small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.isotonic import IsotonicRegression

METHODS = ("none", "temperature", "vector", "isotonic")  # the simplest first
BOUNDS = (0.05, 20.0)
TIE = 1e-4  # of log-loss, in nat: a more complex method must gain more than this
BLEND = 1e-3
MOST_SAMPLES = 64


@dataclass(frozen=True)
class Calibrator:
    """A fitted calibration.

    Attributes
    ----------
    method
        One of `METHODS`.
    parameters
        `none`: empty. `temperature`: `temperature`. `vector`: `scale` and `bias`, a list of a
        number per class. `isotonic`: `curves`, a pair of lists (uncalibrated, calibrated) for
        each class, or for the positive class alone where there are two.
    """

    method: str
    parameters: dict[str, Any]

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Give probabilities of logits, both (..., class), float64."""
        return _APPLY[self.method](np.asarray(logits, dtype="float64"), **self.parameters)

    def as_dict(self) -> dict[str, Any]:
        """Give plain values that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibrator:
        """Make a calibrator of what `as_dict` gave; other keys are passed over."""
        return cls(values["method"], values["parameters"])


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Give softmax(logits / temperature) over the last axis, float64."""
    return softmax(np.asarray(logits, dtype="float64") / temperature, axis=-1)


def _vector(logits: np.ndarray, scale: Sequence[float], bias: Sequence[float]) -> np.ndarray:
    return softmax(logits * np.asarray(scale) + np.asarray(bias), axis=-1)


def _isotonic(logits: np.ndarray, curves: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    given = softmax(logits, axis=-1)
    columns = [1] if len(curves) == 1 else range(len(curves))
    found = np.stack(
        [
            (1 - BLEND) * np.interp(given[..., column], *curve) + BLEND * given[..., column]
            for column, curve in zip(columns, curves, strict=True)
        ],
        axis=-1,
    )
    if len(curves) == 1:
        return np.concatenate([1 - found, found], axis=-1)
    return found / found.sum(axis=-1, keepdims=True)


_APPLY = {
    "none": probabilities,
    "temperature": probabilities,
    "vector": _vector,
    "isotonic": _isotonic,
}


def _samples(logits: np.ndarray) -> np.ndarray:
    """Give logits as (sample, object, class), float64; of more than 64 samples an even choice."""
    logits = np.asarray(logits)
    logits = logits.reshape(-1, *logits.shape[-2:])
    step = -(-len(logits) // MOST_SAMPLES)
    return logits[::step].astype("float64")


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Find the temperature with the lowest log-loss (Guo et al. 2017, arXiv:1706.04599).

    Parameters
    ----------
    logits
        (object, class), or (sample, object, class), of objects the network was not trained on.
    labels
        Class indices, int (object,).

    Returns
    -------
    float
        Above 1 where the network is too sure of itself; within 0.05 to 20.
    """
    logits = _samples(logits)
    objects = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        each = log_softmax(logits / np.exp(log_temperature), axis=-1)[:, objects, labels]
        return -logsumexp(each, axis=0).mean()

    found = minimize_scalar(loss, bounds=np.log(BOUNDS), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def fit_vector(
    logits: np.ndarray, labels: np.ndarray, strength: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Find a scale and a bias for each class (vector scaling, Guo et al. 2017, sect. 4.2).

    Parameters
    ----------
    logits, labels
        As in `fit_temperature`.
    strength
        Of the pull towards temperature scaling: the log-loss summed over objects gets
        `strength / 2` times the squares of the biases and of the scales' relative departures
        from 1 / temperature, as a normal prior of unit width would give. It outweighs a class of
        few objects, whose bias would run away.

    Returns
    -------
    scale, bias : numpy.ndarray
        float64 (class,).
    """
    start = 1 / fit_temperature(logits, labels)
    logits = start * _samples(logits)
    samples, count, classes = logits.shape
    objects, right = np.arange(count), np.eye(classes)[labels]

    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        departure, bias = values.reshape(2, classes)
        each = log_softmax(logits * (1 + departure) + bias, axis=-1)
        assigned = each[:, objects, labels]
        total = logsumexp(assigned, axis=0)
        slope = np.exp(assigned - total)[..., None] * (np.exp(each) - right)
        gradient = np.concatenate([(slope * logits).sum((0, 1)), slope.sum((0, 1))])
        loss = count * np.log(samples) - total.sum() + strength / 2 * values @ values
        return loss / count, (gradient + strength * values) / count

    options = {"maxiter": 1000, "ftol": 1e-12, "gtol": 1e-8}
    found = minimize(objective, np.zeros(2 * classes), jac=True, method="L-BFGS-B", options=options)
    departure, bias = found.x.reshape(2, classes)
    return start * (1 + departure), bias


def fit_isotonic(logits: np.ndarray, labels: np.ndarray) -> list[list[list[float]]]:
    """Find the rising curves from uncalibrated to calibrated probability, of each class alone.

    One against the rest, renormalised when applied (Zadrozny & Elkan 2002); of two classes the
    second alone.

    Parameters
    ----------
    logits, labels
        As in `fit_temperature`.

    Returns
    -------
    list
        Curves as in `Calibrator.parameters`.

    Notes
    -----
    Of n objects, the curves are clipped to 1 / (n + 2) and 1 - 1 / (n + 2), Laplace's rule of
    succession for n agreeing trials, so that no log-loss is infinite. When applied, they are
    blended with a thousandth of the uncalibrated probability: objects on one step of the curve
    keep their order, by which candidates are ranked.
    """
    given = softmax(_samples(logits), axis=-1)
    right = np.tile(labels, len(given))  # each sample is calibrated by itself
    given, floor = given.reshape(-1, given.shape[-1]), 1 / (len(labels) + 2)
    curves = []
    for column in [1] if given.shape[1] == 2 else range(given.shape[1]):
        fitted = IsotonicRegression(y_min=floor, y_max=1 - floor, out_of_bounds="clip")
        fitted.fit(given[:, column], right == column)
        curves.append([fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist()])
    return curves


def fit(method: str, logits: np.ndarray, labels: np.ndarray) -> Calibrator:
    """Fit a calibration.

    Parameters
    ----------
    method
        One of `METHODS`.
    logits
        (object, class), or (sample, object, class), of objects the network was not trained on;
        of more than 64 samples an even choice is used.
    labels
        Class indices, int (object,).
    """
    if method == "temperature":
        return Calibrator(method, {"temperature": fit_temperature(logits, labels)})
    if method == "vector":
        scale, bias = fit_vector(logits, labels)
        return Calibrator(method, {"scale": scale.tolist(), "bias": bias.tolist()})
    if method == "isotonic":
        return Calibrator(method, {"curves": fit_isotonic(logits, labels)})
    return Calibrator("none", {})


def cross_fit(
    method: str, logits: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> dict[int, Calibrator]:
    """Fit a calibration for each fold on the objects of the others; arguments as `cross_fitted`."""
    return {
        int(fold): fit(method, logits[..., folds != fold, :], labels[folds != fold])
        for fold in np.unique(folds)
    }


def calibrated(
    calibrators: Mapping[int, Calibrator], logits: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Give the probabilities of logits (..., object, class), each object by its fold's calibration.

    Parameters
    ----------
    calibrators
        By fold.
    folds
        Int (object,).
    """
    found = np.empty(logits.shape)
    for fold in np.unique(folds):
        here = folds == fold
        found[..., here, :] = calibrators[int(fold)].apply(logits[..., here, :])
    return found


def cross_fitted(
    method: str, logits: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> np.ndarray:
    """Calibrate each fold by the objects of the others, so that scores stay honest.

    Parameters
    ----------
    method, labels
        As in `fit`.
    logits
        (..., object, class).
    folds
        Fold of each object, int (object,).

    Returns
    -------
    numpy.ndarray
        Probabilities, of the shape of `logits`, float64.
    """
    return calibrated(cross_fit(method, logits, labels, folds), logits, folds)


def log_loss(members: np.ndarray, labels: np.ndarray) -> float:
    """Give the log-loss, in nat, of the mean of probabilities (..., object, class)."""
    mean = members.reshape(-1, *members.shape[-2:]).mean(axis=0)
    assigned = mean[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(assigned, np.finfo(float).tiny)).mean())


def choose(
    method: str, logits: np.ndarray, labels: np.ndarray, folds: np.ndarray
) -> tuple[Calibrator, dict[str, float]]:
    """Fit a calibration on all objects; `auto` takes the best of `METHODS` on held-out ones.

    Parameters
    ----------
    method
        One of `METHODS`, or `auto`: that of the lowest cross-fitted log-loss. A simpler one is
        taken where it is within 1e-4 nat of it.
    logits, labels, folds
        As in `cross_fitted`; of more than 64 samples an even choice is used.

    Returns
    -------
    calibrator : Calibrator
        Fitted on all objects.
    log_losses : dict
        Cross-fitted log-loss in nat of each of `METHODS`.
    """
    logits = _samples(logits)
    losses = {name: log_loss(cross_fitted(name, logits, labels, folds), labels) for name in METHODS}
    if method == "auto":
        best = min(losses.values())
        method = next(name for name in METHODS if losses[name] <= best + TIE)
    return fit(method, logits, labels), losses
