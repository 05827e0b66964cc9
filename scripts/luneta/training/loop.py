"""The training loop: phases of epochs, a journal, the best epoch's weights."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy.special import log_softmax

from luneta.config import Training
from luneta.files import atomic_path
from luneta.models import network as networks
from luneta.models.predicting import check_finite, named
from luneta.training import losses, optimisers
from luneta.training.data import Batches, Epochs, derived_seed
from luneta.training.optimisers import Group
from luneta.training.resume import Saved, assign, values
from luneta.training.schedules import Schedule, waits

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
GRADIENT_COLUMNS = ("epoch", "phase", "block", "layer", "norm")

Records = list[dict[str, Any]]


def _unchanged(records: Records) -> float:
    return 1.0


@dataclass(frozen=True)
class Phase:
    """Some epochs trained alike.

    Attributes
    ----------
    name
        As in the history: `head`, `fine_tune` or `pretrain`.
    learning_rate
        Peak learning rate.
    patience
        Epochs without a lower validation loss after which it ends.
    cosine
        Whether the rate falls to zero as a cosine.
    warmup
        Share of the steps in which the rate rises.
    factor
        Gives the factor on the rate of the next epoch, from the records of all epochs so far.
    """

    name: str
    epochs: int
    learning_rate: float
    patience: int
    cosine: bool = False
    warmup: float = 0.0
    factor: Callable[[Records], float] = _unchanged


@dataclass
class Progress:
    """What a training has come to: all that must survive an interruption beside the weights."""

    records: Records = field(default_factory=list)
    gradients: Records = field(default_factory=list)
    best: dict[str, Any] | None = None
    best_weights: list[np.ndarray] = field(default_factory=list)


def validate(network: keras.Model, objects: Batches) -> dict[str, float]:
    """Score a classifier: cross-entropy weighted by class, and accuracy.

    Raises
    ------
    FloatingPointError
        If a logit is not finite; it names the objects.
    """
    logits = network.predict(objects, verbose=0).astype("float64")
    check_finite(objects.ids, logits)
    labels = objects.labels
    found = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    weights = objects.weights[labels]
    accuracy = (logits.argmax(axis=1) == labels).mean()
    return {"val_loss": float(np.average(found, weights=weights)), "val_accuracy": float(accuracy)}


def number(value: Any) -> float:
    """Bring a scalar tensor or variable from the device."""
    return float(keras.ops.convert_to_numpy(value))


class Journal(keras.callbacks.Callback):
    """Keep the history and the best weights over all phases; stop a phase that leads nowhere.

    Parameters
    ----------
    network
        What is trained, without the augmentation before it.
    score
        Gives `val_loss` and `val_accuracy` of the network.
    saved
        Where the state goes after each epoch, if anywhere.
    """

    # Keras then runs `on_train_batch_end` beside the training, which waits for no loss
    async_safe = True

    def __init__(
        self,
        network: keras.Model,
        score: Callable[[], dict[str, float]],
        saved: Saved | None = None,
    ):
        super().__init__()
        self.network, self.score, self.saved = network, score, saved
        self.progress = Progress()
        self.optimizer_values: list[np.ndarray] = []

    def resume(self) -> None:
        """Take up the state of an interrupted training, if there is one."""
        found = self.saved.read() if self.saved else None
        if found is None:
            return
        content, arrays = found
        self.progress = Progress(**content, best_weights=arrays["best"])
        self.network.set_weights(arrays["network"])
        self.optimizer_values = arrays["optimizer"]
        logger.info("resumed after epoch %d", len(self.progress.records))

    def begin(self, phase: Phase, batches: Batches, groups: Sequence[Group], seed: int) -> None:
        """Turn to a phase, new or interrupted."""
        self.phase, self.batches, self.groups, self.seed = phase, batches, groups, seed
        self.first = sum(r["phase"] != phase.name for r in self.progress.records)

    def is_over(self, phase: Phase) -> bool:
        """Tell whether a phase has run its epochs, its patience, or been followed by another."""
        records = self.progress.records
        own = [r["phase"] == phase.name for r in records]
        if not any(own):
            return False
        ran_out = waits(records)[-1] >= phase.patience
        return not own[-1] or sum(own) >= phase.epochs or ran_out

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Fix what is random by the number of the epoch, so that training can be taken up here."""
        generators = [v for v in self.model.variables if v.name == "seed_generator_state"]
        for place, state in enumerate(generators):
            state.assign(np.array([derived_seed(self.seed, epoch, place), 0]))
        norms = self.model.optimizer.norm_sums
        norms.assign(np.zeros(norms.shape))

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop with a clear error when the loss is no number."""
        if not math.isfinite(logs["loss"]):
            raise self._not_finite(batch)

    def _synchronise(self) -> None:
        """Bring the variables up to date, which training on JAX leaves behind."""
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()

    def _not_finite(self, batch: int) -> FloatingPointError:
        self._synchronise()
        bad = int(number(self.model.optimizer.first_bad))
        batch = bad % self.batches.num_batches if bad >= 0 else batch
        ids = self.batches.ids[self.batches.members(len(self.progress.records), batch)]
        rate = number(self.model.optimizer.learning_rate)
        return FloatingPointError(
            f"the loss or its gradient is not finite in epoch {len(self.progress.records) + 1} "
            f"({self.phase.name}), batch {batch + 1} of {self.batches.num_batches} (objects "
            f"{named(ids)}): look at these cutouts, lower the "
            f"learning rate of this phase (now {rate:g}) or set training.gradient_clip"
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write down the epoch, keep its weights if they are the best."""
        self._synchronise()
        optimizer = self.model.optimizer
        if number(optimizer.first_bad) >= 0:
            raise self._not_finite(0)
        rate = number(optimizer.learning_rate) * number(optimizer.factor)
        logs.update(self.score())
        if not math.isfinite(logs["val_loss"]):
            raise FloatingPointError(
                f"the validation loss is not finite in epoch {epoch + 1} ({self.phase.name}): "
                "lower the learning rate of this phase "
                f"(now {number(optimizer.learning_rate):g})"
            )
        records = self.progress.records
        measured = {name: round(float(logs[name]), 6) for name in COLUMNS[2:6]}
        record = {"epoch": epoch + 1, "phase": self.phase.name, **measured}
        record["learning_rate"] = float(f"{rate:.6g}")
        records.append(record)
        logger.info(
            "epoch %(epoch)d %(phase)s loss %(loss).4f accuracy %(accuracy).3f "
            "val_loss %(val_loss).4f val_accuracy %(val_accuracy).3f",
            record,
        )
        self._note_gradients(epoch)
        if self.progress.best is None or record["val_loss"] < self.progress.best["val_loss"]:
            self.progress.best = record
            self.progress.best_weights = self.network.get_weights()
        optimizer.factor.assign(self.phase.factor(records))
        self.model.stop_training = self.is_over(self.phase)
        self._save()

    def _note_gradients(self, epoch: int) -> None:
        sums = keras.ops.convert_to_numpy(self.model.optimizer.norm_sums)
        for group, total in zip(self.groups, sums, strict=True):
            row = (epoch + 1, self.phase.name, group.block, group.layer)
            norm = float(f"{total / self.batches.num_batches:.6g}")
            self.progress.gradients.append(dict(zip(GRADIENT_COLUMNS, (*row, norm), strict=True)))

    def _save(self) -> None:
        if self.saved is None:
            return
        progress = self.progress
        self.saved.write(
            {"records": progress.records, "gradients": progress.gradients, "best": progress.best},
            network=self.network.get_weights(),
            optimizer=values(self.model.optimizer.variables),
            best=progress.best_weights,
        )

    def restore(self) -> None:
        """Put the best epoch's weights into the network."""
        self.network.set_weights(self.progress.best_weights)


def with_augmentation(
    network: keras.Model, augmentation: Sequence[keras.layers.Layer]
) -> keras.Model:
    """Put layers before a network; both share their variables."""
    inputs = keras.Input(network.input_shape[1:], dtype="float32")
    x = inputs
    for layer in augmentation:
        x = layer(x)
    return keras.Model(inputs, network(x))


@dataclass(frozen=True)
class Objective:
    """What is minimised, and what is shown as accuracy: functions of labels and outputs."""

    loss: Callable[[Any, Any], Any]
    accuracy: Callable[[Any, Any], Any] = keras.metrics.categorical_accuracy


def train(
    network: keras.Model,
    model: keras.Model,
    phase: Phase,
    batches: Batches,
    journal: Journal,
    training: Training,
    seed: int,
    *,
    objective: Objective | None = None,
    log_folder: Path | None = None,
) -> None:
    """Train what is not frozen of a network for one phase, or for what is left of it.

    Parameters
    ----------
    network
        With a backbone and a head; its frozen layers stay as they are.
    model
        The network with what is before it in training alone, such as `with_augmentation` gives.
    phase
        Epochs and learning rate.
    batches
        To learn from.
    journal
        Receives the epochs, and chooses the best one.
    training
        Optimiser; loss, if no `objective` is given.
    seed
        Of augmentation and dropout.
    objective
        That of a classifier if not given.
    log_folder
        For TensorBoard's files, if wanted.
    """
    if journal.is_over(phase):
        return
    steps = phase.epochs * batches.num_batches
    rate = Schedule(phase.learning_rate, steps, round(phase.warmup * steps), phase.cosine)
    groups = optimisers.layer_groups(network, networks.blocks(network))
    objective = objective or Objective(losses.of_training(training))
    model.compile(
        optimizer=optimisers.make(training, rate, groups),
        loss=objective.loss,
        metrics=[keras.metrics.MeanMetricWrapper(objective.accuracy, name="accuracy")],
    )
    # Slots made inside the first step would cost seconds of graph building
    model.optimizer.build(model.trainable_variables)
    journal.begin(phase, batches, groups, derived_seed(seed, phase.name))
    start = len(journal.progress.records)
    if start > journal.first:  # resumed within this phase
        assign(model.optimizer.variables, journal.optimizer_values)
    callbacks: list[keras.callbacks.Callback] = [journal]
    if log_folder is not None:
        callbacks.append(keras.callbacks.TensorBoard(log_folder, write_graph=False))
    model.fit(
        Epochs(batches, start),
        steps_per_epoch=batches.num_batches,
        initial_epoch=start,
        epochs=journal.first + phase.epochs,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )


def write_csv(records: Records, columns: Sequence[str], path: Path | str) -> None:
    """Write records as CSV, columns as in docs/data_model.md."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
