"""Rule finetune: train the network of one task and fold."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from luneta.config import Question, Training
from luneta.files import write_json
from luneta.models import devices
from luneta.models import network as networks
from luneta.training.data import (
    Batches,
    Cutouts,
    Labelled,
    class_weights,
    data_digest,
    read_split,
    training_part,
)
from luneta.training.loop import Journal, Phase, train, write_history

logger = logging.getLogger(__name__)

# Share of the training objects on which the best epoch is chosen. The held-out fold is never
# looked at, or its scores would be too good.
VALIDATION = 0.1


def derived_seed(*parts: Any) -> int:
    """Give a seed below 2**31 fixed by its parts."""
    text = ":".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 2**31


def validation_mask(objects: Labelled, seed: int) -> np.ndarray:
    """Choose a tenth of each class, at least one, by the hash of the object's name.

    Returns
    -------
    numpy.ndarray
        bool (object,). A class of one object stays in training.
    """
    order = np.array([derived_seed(seed, "validation", i) for i in objects.ids])
    mask = np.zeros(len(objects), dtype=bool)
    for label in np.unique(objects.labels):
        members = np.flatnonzero(objects.labels == label)
        count = max(1, round(VALIDATION * len(members))) if len(members) > 1 else 0
        mask[members[np.argsort(order[members], kind="stable")[:count]]] = True
    return mask


def phases(training: Training, pretrained: bool) -> list[Phase]:
    """Plan the phases: the head alone, then the whole network.

    From random weights there is nothing to protect, so that all epochs train the whole network.
    """
    head, whole = training.head_epochs, training.fine_tune_epochs
    if not pretrained and whole:
        head, whole = 0, head + whole
    decay = training.weight_decay
    plan = [
        Phase("head", head, training.head_learning_rate, False, decay),
        Phase("fine_tune", whole, training.fine_tune_learning_rate, True, decay),
    ]
    return [phase for phase in plan if phase.epochs]


def fit(
    network: keras.Model,
    training: Training,
    batches: Batches,
    validation: Batches,
    pretrained: bool,
    seed: int,
) -> Journal:
    """Train a network in its phases and leave it with the best epoch's weights."""
    journal = Journal(network, validation, training.patience)
    for phase in phases(training, pretrained):
        networks.freeze(network, backbone=phase.name == "head", batch_norm=pretrained)
        augment_seed = derived_seed(seed, phase.name) if training.augment else None
        train(network, phase, batches, journal, augment_seed)
    journal.restore()
    return journal


def versions() -> dict[str, str]:
    """Give the versions of the packages that shape the weights."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"keras": keras.__version__, "numpy": np.__version__}
    for name in ("tensorflow", "tensorflow-cpu", "luneta"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def run(
    split: Path | str,
    cutouts: Sequence[Path | str],
    model: Path | str,
    sidecar: Path | str,
    history: Path | str,
    settings: dict[str, Any],
    fold: int,
    weights: Path | str | None = None,
    threads: int = 1,
) -> None:
    """Train the network of one fold on the objects of the others.

    Parameters
    ----------
    split
        splits/{task}.parquet.
    cutouts
        cutouts/{shard}.arrow, in the order of `settings["shards"]`.
    model, sidecar, history
        Written: models/{task}/fold{k}.keras, .json and _history.csv.
    settings
        `task` (dump of config.Question), `task_name`, `shards`, `seed`.
    fold
        Fold that is held out.
    weights
        Backbone weights (.weights.h5), where `training.weights` is `pretrain` or a path.
    threads
        Processor threads the job may use.
    """
    devices.configure(threads)
    keras.utils.clear_session()
    task = Question.model_validate(settings["task"])
    name, training = settings["task_name"], task.training
    seed = derived_seed(settings["seed"], name, fold)
    source = str(weights) if weights else training.weights
    pretrained = source != "none"
    store = Cutouts(dict(zip(settings["shards"], cutouts, strict=True)))
    everything = read_split(split, task.classes)
    objects = training_part(everything, fold)
    chosen = validation_mask(objects, settings["seed"])
    importance = class_weights(objects.labels, len(task.classes), training.class_weight_cap)

    def batches(part: Labelled, seed: int | None) -> Batches:
        images = store.take(part.shards, part.rows)
        return Batches(images, part.labels, importance, training.batch_size, seed)

    network = networks.build(
        training, len(store.bands), store.shape[1], store.pixels, len(task.classes), seed, source
    )
    logger.info("%s fold %d: %d to train on, %d to choose the epoch", name, fold,
                (~chosen).sum(), chosen.sum())  # fmt: skip
    journal = fit(
        network,
        training,
        batches(objects.where(~chosen), seed),
        batches(objects.where(chosen), None),
        pretrained,
        seed,
    )
    networks.save(network, model)
    write_history(journal.records, history)
    write_json(
        sidecar,
        {
            "model_id": networks.digest(network),
            "task": name,
            "fold": fold,
            "kind": task.kind,
            "classes": task.classes,
            "bands": store.bands,
            "cutout_size": store.shape[1],
            "pixels": store.pixels,
            "training": training.model_dump(mode="json"),
            "data_digest": data_digest(everything, store),
            "versions": versions(),
            "metrics": journal.best,
            "parameters": int(network.count_params()),
        },
    )
