"""The training loop: phases of epochs, a journal, the best epoch's weights."""

from __future__ import annotations

import csv
import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy.special import log_softmax

from luneta.files import atomic_path
from luneta.models.network import predict_logits
from luneta.training.augmentation import Dihedral
from luneta.training.data import Batches

logger = logging.getLogger(__name__)

COLUMNS = (
    "epoch",
    "phase",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
)


@dataclass(frozen=True)
class Phase:
    """Some epochs trained alike.

    Attributes
    ----------
    name
        As in the history: `head`, `fine_tune` or `pretrain`.
    learning_rate
        Peak learning rate.
    cosine
        Whether it rises over the first steps and falls to zero as a cosine (Loshchilov & Hutter
        2017, arXiv:1608.03983).
    """

    name: str
    epochs: int
    learning_rate: float
    cosine: bool
    weight_decay: float = 1e-4


class Journal(keras.callbacks.Callback):
    """Keep the history and the best weights over all phases; stop a phase that leads nowhere."""

    def __init__(self, network: keras.Model, validation: Batches, patience: int):
        super().__init__()
        self.network = network
        self.validation = validation
        self.patience = patience
        self.records: list[dict[str, Any]] = []
        self.best: dict[str, Any] | None = None
        self.best_weights: list[Any] = []
        self.phase = ""
        self.waited = 0

    def start(self, phase: str) -> None:
        """Begin a phase; patience starts anew."""
        self.phase, self.waited = phase, 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop with a clear error when the loss is no number."""
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"the loss is {logs['loss']} in epoch {len(self.records) + 1} ({self.phase}), "
                f"batch {batch + 1}: lower the learning rate of this phase "
                f"(now {float(self.model.optimizer.learning_rate):g})"
            )

    def _validate(self) -> dict[str, float]:
        """Score the network; its one graph for prediction serves all phases."""
        images, labels = self.validation.images, self.validation.labels
        logits = predict_logits(
            [self.network], lambda a, b: images[a:b], len(labels), self.validation.size
        )[0]
        losses = -log_softmax(logits.astype("float64"), axis=1)[np.arange(len(labels)), labels]
        weights = self.validation.weights[labels]
        accuracy = (logits.argmax(axis=1) == labels).mean()
        return {"val_loss": np.average(losses, weights=weights), "val_accuracy": accuracy}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write down the epoch, keep its weights if they are the best."""
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        logs = {**logs, **self._validate()}
        values = {name: round(float(logs[name]), 6) for name in COLUMNS[2:6]}
        record = {"epoch": len(self.records) + 1, "phase": self.phase, **values}
        record["learning_rate"] = float(f"{rate:.6g}")
        self.records.append(record)
        logger.info(
            "epoch %(epoch)d %(phase)s loss %(loss).4f accuracy %(accuracy).3f "
            "val_loss %(val_loss).4f val_accuracy %(val_accuracy).3f",
            record,
        )
        if self.best is None or record["val_loss"] < self.best["val_loss"]:
            self.best, self.best_weights = record, self.network.get_weights()
            self.waited = 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.model.stop_training = True

    def restore(self) -> None:
        """Put the best epoch's weights into the network."""
        self.network.set_weights(self.best_weights)


def _optimizer(phase: Phase, steps: int) -> keras.optimizers.Optimizer:
    rate: Any = phase.learning_rate
    if phase.cosine:
        total = steps * phase.epochs
        warm = max(1, total // 20)
        rate = keras.optimizers.schedules.CosineDecay(
            phase.learning_rate / 10,
            max(1, total - warm),
            warmup_target=phase.learning_rate,
            warmup_steps=warm,
        )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=phase.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def train(
    network: keras.Model,
    phase: Phase,
    batches: Batches,
    journal: Journal,
    augment_seed: int | None,
) -> None:
    """Train what is not frozen of a network for one phase.

    Parameters
    ----------
    network
        Classifier with logits as output.
    phase
        Epochs and learning rate.
    batches
        To learn from.
    journal
        Receives the epochs, and holds the objects by which the best one is chosen.
    augment_seed
        Seed of the flips and turns; none are made if it is None. They are no part of `network`.
    """
    if phase.epochs == 0:
        return
    layers = [keras.Input(network.input_shape[1:])]
    if augment_seed is not None:
        layers.append(Dihedral(augment_seed, name="dihedral"))
    model = keras.Sequential([*layers, network])
    model.compile(
        optimizer=_optimizer(phase, batches.num_batches),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=False,
    )
    # Slots made inside the first step would cost seconds of graph building
    model.optimizer.build(model.trainable_variables)
    journal.start(phase.name)
    model.fit(
        batches,
        epochs=phase.epochs,
        callbacks=[journal],
        shuffle=False,
        verbose=0,
    )


def write_history(records: list[dict[str, Any]], path: Path | str) -> None:
    """Write the epochs as CSV, columns as in docs/architecture.md."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
