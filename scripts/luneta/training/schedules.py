"""Learning rates: by step within a phase, and what falls between epochs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

# The warm-up starts at a tenth of the peak, so that the first steps teach something too.
START = 0.1
FALL = 0.1


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate by step: a linear rise, then constant or a cosine that falls to zero.

    The cosine is that of Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts.

    Parameters
    ----------
    peak
        Largest learning rate.
    steps
        Steps in all.
    warm
        Steps of the rise, which begins at a tenth of the peak.
    cosine
        Whether it falls.
    """

    def __init__(self, peak: float, steps: int, warm: int = 0, cosine: bool = False):
        self.peak, self.steps, self.warm, self.cosine = peak, steps, warm, cosine

    def __call__(self, step: Any) -> Any:
        """Give the learning rate of a step, float32; steps are counted from 0."""
        step = ops.cast(step, "float32")
        rate = ops.convert_to_tensor(self.peak, dtype="float32")
        if self.warm:
            rate = rate * ops.minimum(1.0, START + (1 - START) * step / self.warm)
        if not self.cosine:
            return rate
        gone = ops.clip((step - self.warm) / max(1, self.steps - self.warm), 0.0, 1.0)
        return rate * 0.5 * (1 + ops.cos(np.pi * gone))

    def get_config(self) -> dict[str, Any]:
        """Give the arguments that make this schedule again."""
        return {n: getattr(self, n) for n in ("peak", "steps", "warm", "cosine")}


def waits(records: Sequence[dict[str, Any]]) -> list[int]:
    """Count for each epoch the epochs of its phase since the validation loss was last lowest.

    Parameters
    ----------
    records
        Epochs of all phases, with `phase` and `val_loss`.
    """
    best, waited, phase, found = float("inf"), 0, None, []
    for record in records:
        waited = 0 if record["phase"] != phase else waited
        phase = record["phase"]
        waited = 0 if record["val_loss"] < best else waited + 1
        best = min(best, record["val_loss"])
        found.append(waited)
    return found


def plateau_factor(records: Sequence[dict[str, Any]], patience: int) -> float:
    """Give the factor on the rate after these epochs: tenfold less each time patience ran out.

    Parameters
    ----------
    records
        Epochs of all phases; the falls of the last one count.
    patience
        Epochs without a lower validation loss.
    """
    falls = [
        record["phase"] == records[-1]["phase"] and waited == patience
        for record, waited in zip(records, waits(records), strict=True)
    ]
    return FALL ** sum(falls)
