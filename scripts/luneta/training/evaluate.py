"""Rule evaluate: score each fold's network on the fold it never saw, and calibrate."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from luneta.config import Question
from luneta.files import atomic_path, read_json, write_json
from luneta.metrics import classification
from luneta.models import devices
from luneta.models import network as networks
from luneta.training.calibration import fit_temperature, probabilities
from luneta.training.data import Cutouts, Labelled, read_split

logger = logging.getLogger(__name__)


def held_out_logits(
    models: Sequence[Path | str], objects: Labelled, cutouts: Cutouts, classes: int, batch: int
) -> np.ndarray:
    """Give each object's logits from the network that did not train on it.

    Returns
    -------
    numpy.ndarray
        (object, class), float32.
    """
    logits = np.empty((len(objects), classes), dtype="float32")
    for fold, path in enumerate(models):
        held = np.flatnonzero(objects.folds == fold)

        def read(start: int, stop: int, held: np.ndarray = held) -> np.ndarray:
            part = held[start:stop]
            return cutouts.take(objects.shards[part], objects.rows[part])

        network = networks.load(path)
        logits[held] = networks.predict_logits([network], read, len(held), batch)[0]
    return logits


def cross_fitted(logits: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Calibrate each fold with the temperature of the others, so that scores stay honest.

    Returns
    -------
    numpy.ndarray
        Probabilities (object, class), float64.
    """
    calibrated = np.empty(logits.shape)
    for fold in np.unique(folds):
        held = folds == fold
        temperature = fit_temperature(logits[~held], labels[~held])
        calibrated[held] = probabilities(logits[held], temperature)
    return calibrated


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def over_folds(folds: list[dict[str, float]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the mean and the standard error of each score over the folds; None if undefined."""
    means, errors = {}, {}
    for score in folds[0]:
        values = np.array([fold[score] for fold in folds], dtype=float)
        means[score] = _finite(values.mean())
        errors[score] = _finite(values.std(ddof=1) / math.sqrt(len(values)))
    return means, errors


def ensemble_id(model_ids: Sequence[str], temperature: float) -> str:
    """Give the sha256 over the folds' ids and the temperature."""
    return hashlib.sha256(":".join([*model_ids, f"{temperature:.9g}"]).encode()).hexdigest()


def _write_out_of_fold(
    path: Path | str,
    objects: Labelled,
    classes: list[str],
    logits: np.ndarray,
    calibrated: np.ndarray,
) -> None:
    columns: dict[str, Any] = {
        "object_id": pa.array(objects.ids.tolist(), pa.string()),
        "label": pa.array([classes[i] for i in objects.labels], pa.string()),
        "fold": pa.array(objects.folds, pa.int32()),
    }
    values = {
        "logit": logits,
        "probability": calibrated,
        "uncalibrated": probabilities(logits),
    }
    for prefix, table in values.items():
        for i, name in enumerate(classes):
            columns[f"{prefix}_{name}"] = pa.array(table[:, i].astype("float32"))
    with atomic_path(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def run(
    split: Path | str,
    cutouts: Sequence[Path | str],
    models: Sequence[Path | str],
    sidecars: Sequence[Path | str],
    metrics: Path | str,
    out_of_fold: Path | str,
    settings: dict[str, Any],
    threads: int = 1,
) -> None:
    """Score a task's networks, one per fold, and fit their temperature.

    Parameters
    ----------
    split
        splits/{task}.parquet.
    cutouts
        cutouts/{shard}.arrow, in the order of `settings["shards"]`.
    models, sidecars
        models/{task}/fold{k}.keras and .json, in the order of the folds.
    metrics, out_of_fold
        Written: metrics/{task}.json and metrics/{task}_out_of_fold.parquet.
    settings
        `task` (dump of config.Question), `shards`; `batch_size` if not 256.
    threads
        Processor threads the job may use.
    """
    devices.configure(threads)
    task = Question.model_validate(settings["task"])
    store = Cutouts(dict(zip(settings["shards"], cutouts, strict=True)))
    objects = read_split(split, task.classes)
    labels, folds = objects.labels, objects.folds
    logits = held_out_logits(
        models, objects, store, len(task.classes), settings.get("batch_size", 256)
    )
    temperature = fit_temperature(logits, labels)
    calibrated = cross_fitted(logits, labels, folds)
    scores = [
        classification.scores(labels[folds == k], calibrated[folds == k], task.kind)
        for k in range(len(models))
    ]
    mean, error = over_folds(scores)
    identities = [read_json(path)["model_id"] for path in sidecars]
    ece = classification.expected_calibration_error
    _write_out_of_fold(out_of_fold, objects, task.classes, logits, calibrated)
    write_json(
        metrics,
        {
            "temperature": temperature,
            "classes": task.classes,
            "kind": task.kind,
            "folds": [{k: _finite(v) for k, v in fold.items()} for fold in scores],
            "mean": mean,
            "standard_error": error,
            "confusion": np.asarray(classification.confusion(labels, calibrated)).tolist(),
            "ece_before": float(ece(labels, probabilities(logits))),
            "ece_after": float(ece(labels, calibrated)),
            "models": identities,
            "model_id": ensemble_id(identities, temperature),
        },
    )
    logger.info("temperature %.3f, mean scores %s", temperature, mean)
