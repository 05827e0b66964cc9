"""The precision that trained networks compute in, and the check that it changes no answer."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from luneta.models import devices
from luneta.models import network as networks

logger = logging.getLogger(__name__)

LIMIT = 0.02  # probability; calibration errors of a good ensemble are as large
OBJECTS = 64  # that are compared
ALWAYS_FLOAT32 = {"cutouts", "preprocessing", "features", "logits"}


class PrecisionError(ValueError):
    """A precision that changes what networks say; the message says by how much, and the fix."""


def compute_in(network: keras.Model, precision: str) -> None:
    """Let a network compute in a precision; its weights stay float32.

    Parameters
    ----------
    network
        As `luneta.models.network.build` gives it. Preprocessing, features and logits stay float32.
    precision
        `float32`, `bfloat16`, or `trained`, which leaves it as it was trained.
    """
    if precision == "trained":
        return
    policy = "mixed_bfloat16" if precision == "bfloat16" else "float32"
    head = [layer for layer in network.layers if not isinstance(layer, keras.Model)]
    for layer in [*networks.leaves(network.get_layer("backbone")), *head]:
        if layer.name not in ALWAYS_FLOAT32:
            layer.dtype_policy = policy


def _probabilities(network: keras.Model, images: np.ndarray, precision: str) -> np.ndarray:
    compute_in(network, precision)
    logits = ops.convert_to_numpy(network(images, training=False)).astype("float64")
    return np.asarray(ops.convert_to_numpy(ops.softmax(logits)))


def difference(ensemble: Sequence[keras.Model], images: np.ndarray, precision: str) -> float:
    """Compare a precision with float32; the networks are left in that precision.

    Parameters
    ----------
    ensemble
        Networks for the same classes.
    images
        (object, band, y, x); the first 64 are used.
    precision
        `float32` or `bfloat16`.

    Returns
    -------
    float
        Largest difference of a probability, mean over the networks and not calibrated.
    """
    images = np.asarray(images[:OBJECTS], "float32")
    if precision == "float32" or not len(images):
        for network in ensemble:
            compute_in(network, precision)
        return 0.0
    pairs = [
        [_probabilities(network, images, one) for one in ("float32", precision)]
        for network in ensemble
    ]
    exact, other = np.mean(pairs, axis=0)
    return float(np.abs(other - exact).max())


def _said(found: float, precision: str) -> str:
    return (
        f"probabilities in {precision} differ from those in float32 by up to {found:.3g}, and "
        f"{LIMIT} is allowed"
    )


def check(ensemble: Sequence[keras.Model], images: np.ndarray, precision: str) -> None:
    """Insist that networks say in a precision what they say in float32.

    Raises
    ------
    PrecisionError
        If a probability differs by more than 0.02.
    """
    found = difference(ensemble, images, precision)
    if not found <= LIMIT:
        raise PrecisionError(f"{_said(found, precision)}: set inference.precision: float32")
    logger.info("%s differs from float32 by at most %.2g in probability", precision, found)


def agree(wanted: str, ensemble: Sequence[keras.Model], images: np.ndarray) -> str:
    """Choose the precision that networks are asked in.

    Parameters
    ----------
    wanted
        `trained`, `float32`, `bfloat16`, or `auto`: bfloat16 where the device has it and
        probabilities stay, else float32.
    ensemble, images
        As in `difference`.

    Returns
    -------
    str
        `trained`, `float32` or `bfloat16`.

    Raises
    ------
    PrecisionError
        If bfloat16 is wanted, and changes probabilities by more than 0.02.
    """
    if wanted == "trained":
        return wanted
    precision = devices.resolve_precision(wanted)
    if wanted != "auto":
        check(ensemble, images, precision)
        return precision
    found = difference(ensemble, images, precision)
    if not found <= LIMIT:
        logger.warning("%s: float32 is used", _said(found, precision))
        return "float32"
    return precision
