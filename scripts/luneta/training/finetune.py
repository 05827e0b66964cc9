"""Rule finetune: train the network of one task and fold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras
import numpy as np

from luneta.code_digest import source_digest
from luneta.config import Question, Training
from luneta.config.tasks import NO_NETWORK_READS
from luneta.digests import digest
from luneta.files import write_json
from luneta.models import devices, preprocessing
from luneta.models import network as networks
from luneta.models.preprocessing import Statistics
from luneta.training import augmentation, course_recipe, resume
from luneta.training.data import (
    Batches,
    Cutouts,
    Labelled,
    TrainingError,
    class_weights,
    data_digest,
    derived_seed,
    label_mask,
    read_split,
    training_part,
    validation_mask,
)
from luneta.training.loop import (
    COLUMNS,
    GRADIENT_COLUMNS,
    Journal,
    Phase,
    train,
    validate,
    with_augmentation,
    write_csv,
)
from luneta.training.schedules import plateau_factor

logger = logging.getLogger(__name__)


def phases(training: Training, pretrained: bool) -> list[Phase]:
    """Plan the phases: the head alone, then the backbone too, as far as it is set free.

    From random weights there is nothing to protect, so that all epochs train the whole network.
    """
    head, whole = training.head_epochs, training.fine_tune_epochs
    patience, rate = training.patience, training.fine_tune_learning_rate
    if training.course_recipe:
        factor = course_recipe.rate_factor
        return [Phase("fine_tune", whole, rate, patience=whole + 1, factor=factor)]
    if not pretrained and whole:
        head, whole = 0, head + whole
    of_schedule: dict[str, Any] = {
        "cosine": {"cosine": True},
        "constant": {},
        "plateau": {
            "patience": 2 * patience,
            "factor": partial(plateau_factor, patience=patience),
        },
    }[training.schedule]
    plan = [
        Phase("head", head, training.head_learning_rate, patience),
        Phase("fine_tune", whole, rate, **{"patience": patience, **of_schedule},
              warmup=training.warmup),
    ]  # fmt: skip
    return [phase for phase in plan if phase.epochs]


def fit(
    network: keras.Model,
    training: Training,
    batches: Batches,
    validation: Batches,
    pretrained: bool,
    seed: int,
    saved: resume.Saved | None = None,
    log_folder: Path | None = None,
) -> Journal:
    """Train a network in its phases and leave it with the weights that are to be kept."""
    journal = Journal(network, partial(validate, network, validation), saved)
    journal.resume()
    for phase in phases(training, pretrained):
        networks.freeze(
            network,
            backbone=phase.name == "head",
            batch_norm=pretrained,
            unfreeze=training.unfreeze if pretrained else "all",
        )
        model = with_augmentation(network, augmentation.layers(training.augmentation, seed))
        train(network, model, phase, batches, journal, training, seed, log_folder=log_folder)
    if training.keep == "best":
        journal.restore()
    return journal


def versions() -> dict[str, str]:
    """Give the versions of the packages that shape the weights."""
    found = {"keras": keras.__version__, "numpy": np.__version__}
    for name in ("tensorflow", "tensorflow-cpu", "jax", "torch", "luneta"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def importance_of(
    learnt: np.ndarray, held: np.ndarray, classes: int, training: Training
) -> tuple[np.ndarray, np.ndarray]:
    """Weigh the classes of the labels to learn from and of those that choose the epoch.

    Where every class is drawn as often, they have no weights in training, and those that make
    every class count as much in validation, which draws none.

    Returns
    -------
    learnt, held : numpy.ndarray
        float32 (class,).
    """
    if training.sampling == "balanced":
        return class_weights(learnt, classes, 1.0), class_weights(held, classes, np.inf)
    weights = class_weights(learnt, classes, training.class_weight_cap)
    return weights, weights


def parts(
    everything: Labelled, classes: Sequence[str], training: Training, fold: int, seed: int
) -> tuple[Labelled, Labelled]:
    """Give the objects that a fold's network learns from, and those that choose the epoch.

    Of a fraction of the labels both get a fraction: who has few labels has few to choose by.

    Raises
    ------
    ValueError
        If nothing would be left to choose the epoch by.
    """
    objects = training_part(everything, fold)
    objects = objects.where(label_mask(objects, training.label_fraction, seed))
    chosen = validation_mask(objects, seed)
    if not chosen.any():
        raise TrainingError(_too_few(objects, classes, training, fold))
    return objects.where(~chosen), objects.where(chosen)


def _too_few(objects: Labelled, classes: Sequence[str], training: Training, fold: int) -> str:
    lacking = ", ".join(
        f"{name} has {(objects.labels == label).sum()}" for label, name in enumerate(classes)
    )
    return (
        f"fold {fold} has no object to choose the epoch by, which takes two of a class to learn "
        f"from ({lacking}, at label_fraction {training.label_fraction:g}): label more objects, "
        "raise training.label_fraction or lower training.holdout"
    )


@dataclass(frozen=True)
class Job:
    """The network of one task and fold: what it is asked, and what it learns from.

    Attributes
    ----------
    settings
        As `run` takes them.
    training
        Those of the task, or what the course's recipe makes of them.
    seed
        Of this network.
    everything, learnt, held
        All labelled objects, those it learns from, and those that choose the epoch.
    """

    settings: dict[str, Any]
    fold: int
    task: Question
    training: Training
    seed: int
    store: Cutouts
    everything: Labelled
    learnt: Labelled
    held: Labelled

    @classmethod
    def read(
        cls, split: Path | str, cutouts: Sequence[Path | str], settings: dict[str, Any], fold: int
    ) -> Job:
        """Read what a job is told."""
        task, name = Question.model_validate(settings["task"]), settings["task_name"]
        training = course_recipe.applied(task.training)
        everything = read_split(split, task.classes)
        learnt, held = parts(everything, task.classes, training, fold, settings["seed"])
        logger.info("%s fold %d: %d to train on, %d to choose the epoch",
                    name, fold, len(learnt), len(held))  # fmt: skip
        seed = derived_seed(settings["seed"], name, fold)
        store = Cutouts(dict(zip(settings["shards"], cutouts, strict=True)))
        return cls(settings, fold, task, training, seed, store, everything, learnt, held)

    def batches(self) -> tuple[Batches, Batches]:
        """Serve the objects to learn from, and those that choose the epoch."""
        training, learnt, held = self.training, self.learnt, self.held
        weights, others_weights = importance_of(
            learnt.labels, held.labels, len(self.task.classes), training
        )
        images, others = (self.store.gather(part.shards, part.rows) for part in (learnt, held))
        size, balanced = training.batch_size, training.sampling == "balanced"
        options = {"balanced": balanced, "mixup": training.mixup, "ids": learnt.ids}
        return (
            Batches(images, learnt.labels, weights, size, self.seed, **options),
            Batches(others, held.labels, others_weights, size, ids=held.ids),
        )

    def build(self, source: str, precision: str, statistics: Statistics) -> keras.Model:
        """Build the network, filled from a source of weights."""
        store, classes = self.store, len(self.task.classes)
        shape = store.bands, store.shape[1], store.pixels, classes
        with devices.arithmetic(precision):
            network = networks.build(self.training, *shape, self.seed, source, statistics)
        if self.training.course_recipe:
            for layer in networks.batch_norms(network):
                layer.momentum = course_recipe.BATCH_NORM_MOMENTUM
        return network


def digest_of(job: Job, data: str, network: keras.Model, precision: str) -> str:
    """Give the sha256 over all that decides how the training of a network goes on."""
    code, start = source_digest(Path(__file__)), networks.digest(network)
    machine = keras.backend.backend(), devices.sharing()
    told = job.settings, job.fold, data, start, precision, versions(), code
    return digest([*told, *machine])


def sidecar_of(job: Job, network: keras.Model, journal: Journal) -> dict[str, Any]:
    """Tell of a trained network what does not depend on how it was made."""
    progress, task, store = journal.progress, job.task, job.store
    return {
        "model_id": networks.digest(network),
        "task": job.settings["task_name"],
        "fold": job.fold,
        "kind": task.kind,
        "classes": task.classes,
        "bands": store.bands,
        "cutout_size": store.shape[1],
        "pixels": store.pixels,
        "training": job.training.model_dump(mode="json", exclude=NO_NETWORK_READS),
        "objects": {"training": len(job.learnt), "validation": len(job.held)},
        "devices": devices.description(),
        "versions": versions(),
        "metrics": progress.best if job.training.keep == "best" else progress.records[-1],
        "parameters": int(network.count_params()),
    }


def run(
    split: Path | str,
    cutouts: Sequence[Path | str],
    model: Path | str,
    sidecar: Path | str,
    history: Path | str,
    gradients: Path | str,
    settings: dict[str, Any],
    fold: int,
    weights: Path | str | None = None,
    threads: int = 1,
    device: str = "auto",
    log_folder: Path | str | None = None,
) -> None:
    """Train the network of one fold on the objects of the others.

    Parameters
    ----------
    split
        splits/{task}.parquet.
    cutouts
        cutouts/{shard}.arrow, in the order of `settings["shards"]`.
    model, sidecar, history, gradients
        Written: models/{task}/fold{k}.keras, .json, _history.csv and _gradients.csv. A hidden
        folder beside the model holds the state after each epoch until these are written; a job
        that was interrupted takes it up.
    settings
        `task` (dump of config.Question), `task_name`, `shards`, `seed`.
    fold
        Fold that is held out.
    weights
        File to start from, where `training.weights` is `pretrain` or a path.
    threads
        Processor threads the job may use.
    device
        `auto`, `cpu` or `gpu`.
    log_folder
        For TensorBoard's files, if they are wanted.
    """
    devices.configure(threads, device)
    keras.utils.clear_session()
    job = Job.read(split, cutouts, settings, fold)
    training = job.training
    learnt, held = job.batches()
    statistics = preprocessing.measure(learnt.images, training, job.store.pixels)
    source = str(weights) if weights and training.weights != "none" else training.weights
    precision = devices.resolve_precision(training.precision)
    data = data_digest(job.everything, job.store)
    logs = Path(log_folder) if log_folder else None
    with devices.scope():
        network = job.build(source, precision, statistics)
        devices.check_batch_size(training.batch_size, "training.batch_size")
        start = networks.digest(network.get_layer("backbone"))
        saved = resume.Saved(resume.folder_of(model), digest_of(job, data, network, precision))
        pretrained = source != "none"
        journal = fit(network, training, learnt, held, pretrained, job.seed, saved, logs)
        networks.save(network, model)
    progress = journal.progress
    write_csv(progress.records, COLUMNS, history)
    write_csv(progress.gradients, GRADIENT_COLUMNS, gradients)
    details = {
        "data_digest": data,
        "start": start,
        "statistics": statistics.as_dict(),
        "precision": precision,
        "steps": len(progress.records) * learnt.num_batches,
    }
    write_json(sidecar, {**sidecar_of(job, network, journal), **details})
    saved.remove()
