"""The lens course's recipe, as its published ResNet50 scripts ran (`course_recipe: true`).

Reproduced, errors included:

- The optimiser is plain SGD at 0.01, without momentum or decay: the scripts build SGD with
  Nesterov's momentum 0.9 and decay 1e-6, then compile with the string `'sgd'`.
- The loss is binary cross-entropy on two softmax units (`losses.binary_cross_entropy`).
- Nothing is augmented: `ImageDataGenerator(aug_type)` hands the settings over as its first
  argument, `featurewise_center`, which without statistics does nothing.
- The rate falls tenfold by `ReduceLROnPlateau(monitor='loss', factor=0.1, patience=10,
  mode='max')`, which waits for the training loss to rise: it falls every 10 epochs.
- Pixels are raw fluxes, neither stretched nor normalised; weights are random; there are no class
  weights, no dropout, no early stopping; the last epoch is kept.
- Batch norm follows with Keras's momentum of 0.99, where luneta's networks with random weights take
  0.9.

Not reproduced:

- The scripts saw the first 3 of the data's 4 channels; the bands of the config are used here.
- They trained on as many lenses as other objects; the labels are used as they are here.
- Shuffles are seeded here: unseeded ones cannot be repeated.
- Each network trains on the other folds: one script trained on the held-out part (`val_idx`), a
  K-th of the data, which compares another amount of data and not another recipe. (Its validation
  on a fixed set is the tenth of the training objects here; nothing is chosen by it.)
- The remainder of a batch is left out of an epoch.
- The last line of a script, a call without an argument that it needs, ends it after the results.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from luneta.config import Augmentation, Preprocessing, Training

LEARNING_RATE = 0.01
BATCH_NORM_MOMENTUM = 0.99
PATIENCE = 10
FALL = 0.1
RISE = 1e-4  # the least that counts as one: `min_delta` of Keras

NOTHING = Augmentation(dihedral=False)
# Whatever the config says of these, the scripts had no such thing
FIXED = {
    "weights": "none",
    "preprocessing": Preprocessing(stretch="none"),
    "head_units": [],
    "dropout": 0.0,
    "head_epochs": 0,
    "fine_tune_learning_rate": LEARNING_RATE,
    "unfreeze": "all",
    "layer_decay": 1.0,
    "optimizer": "sgd",
    "momentum": 0.0,
    "weight_decay": 0.0,
    "schedule": "constant",
    "warmup": 0.0,
    "gradient_clip": None,
    "loss": "cross_entropy",
    "label_smoothing": 0.0,
    "class_weight_cap": 1.0,
    "sampling": "natural",
    "mixup": 0.0,
    "augmentation": NOTHING,
    "keep": "last",
}


def applied(training: Training) -> Training:
    """Give the settings that the recipe trains with; they stay as they are without it.

    Of the config it keeps backbone, image size, folds, `fine_tune_epochs`, `batch_size`,
    precision and the fraction of labels.
    """
    return training.model_copy(update=FIXED) if training.course_recipe else training


def rate_factor(records: Sequence[dict[str, Any]]) -> float:
    """Give the factor on the rate after these epochs, as ReduceLROnPlateau would in mode `max`.

    Parameters
    ----------
    records
        Epochs so far, with their training `loss`.
    """
    best, waited, factor = -math.inf, 0, 1.0
    for record in records:
        if record["loss"] > best + RISE:
            best, waited = record["loss"], 0
            continue
        waited += 1
        if waited >= PATIENCE:
            factor, waited = factor * FALL, 0
    return factor
