"""Rule infer: predict every object of a shard with all folds of a task, in one pass."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from luneta.config import Question
from luneta.cutouts.shard import Shard
from luneta.files import atomic_path, read_json
from luneta.models import devices
from luneta.models import network as networks
from luneta.training.calibration import probabilities

logger = logging.getLogger(__name__)

BATCHES_PER_ROW_GROUP = 16


def schema(task: str, classes: Sequence[str]) -> pa.Schema:
    """Give the columns of predictions/{task}/{shard}.parquet."""
    numbers = [f"{task}_{name}_{kind}" for name in classes for kind in ("probability", "std")]
    return pa.schema(
        [
            ("object_id", pa.string()),
            *((name, pa.float32()) for name in numbers),
            (f"{task}_class", pa.string()),
            (f"{task}_entropy", pa.float32()),
            (f"{task}_model_id", pa.string()),
        ]
    )


def summarise(logits: np.ndarray, temperature: float) -> dict[str, np.ndarray]:
    """Combine the folds.

    Parameters
    ----------
    logits
        (fold, object, class).
    temperature
        Of the calibration.

    Returns
    -------
    dict
        `probability` (mean over folds) and `std` (population standard deviation over folds),
        both (object, class); `class` (index of the largest, int), `entropy` (nat), both (object,).
    """
    each = probabilities(logits, temperature)
    mean = each.mean(axis=0)
    entropy = -np.sum(mean * np.log(np.maximum(mean, 1e-300)), axis=1)
    return {
        "probability": mean,
        "std": each.std(axis=0),
        "class": mean.argmax(axis=1),
        "entropy": entropy,
    }


def _row_group(
    ids: pa.ChunkedArray,
    usable: np.ndarray,
    summary: dict[str, np.ndarray],
    classes: Sequence[str],
    columns: pa.Schema,
    model_id: str,
) -> pa.Table:
    """Spread the predictions of the usable objects over all rows, null for the others."""
    place = np.where(usable, np.cumsum(usable) - 1, 0)

    def spread(values: Any, kind: pa.DataType) -> pa.Array:
        values = np.asarray(values)
        full = values[place] if len(values) else np.zeros(len(usable), dtype=values.dtype)
        return pa.array(full, kind, mask=~usable)

    arrays: list[Any] = [ids]
    for i in range(len(classes)):
        arrays += [spread(summary[key][:, i], pa.float32()) for key in ("probability", "std")]
    arrays.append(spread(np.array(classes, dtype=object)[summary["class"]], pa.string()))
    arrays.append(spread(summary["entropy"], pa.float32()))
    arrays.append(spread(np.full(int(usable.sum()), model_id, dtype=object), pa.string()))
    return pa.Table.from_arrays(arrays, schema=columns)


def check(shard: Shard, sidecars: list[dict[str, Any]], metrics: dict[str, Any]) -> None:
    """Refuse networks that were not trained on such cutouts or not evaluated."""
    if [s["model_id"] for s in sidecars] != metrics["models"]:
        raise ValueError("the networks are not those that were evaluated: run evaluate again")
    found = {"bands": shard.bands, "pixels": shard.pixels, "cutout_size": shard.shape[1]}
    for key, value in found.items():
        expected = sidecars[0][key]
        if expected != value:
            raise ValueError(
                f"the cutouts have {key} {value}, the networks were trained with {expected}: "
                "use the config of the training, or train again"
            )


def even_batch_size(count: int, batch_size: int) -> int:
    """Give the batch size at most `batch_size` that cuts `count` objects most evenly."""
    return math.ceil(count / max(1, math.ceil(count / batch_size))) or 1


def run(
    cutouts: Path | str,
    quality: Path | str,
    models: Sequence[Path | str],
    sidecars: Sequence[Path | str],
    metrics: Path | str,
    predictions: Path | str,
    settings: dict[str, Any],
    threads: int = 1,
) -> None:
    """Predict all objects of a shard.

    Parameters
    ----------
    cutouts, quality
        cutouts/{shard}.arrow and quality/{shard}.parquet.
    models, sidecars
        models/{task}/fold{k}.keras and .json, in the order of the folds.
    metrics
        metrics/{task}.json: temperature and identity of the networks.
    predictions
        Written: predictions/{task}/{shard}.parquet, one row per row of `quality`.
    settings
        `task` (dump of config.Question), `task_name`, `batch_size`.
    threads
        Processor threads the job may use.

    Notes
    -----
    A row group is read, predicted and written before the next; the shard is mapped anew for each,
    so that memory depends on the batch size and not on the shard.
    """
    devices.configure(threads)
    task = Question.model_validate(settings["task"])
    found = read_json(metrics)
    check(Shard(cutouts), [read_json(path) for path in sidecars], found)
    usable = pq.read_table(quality, columns=["usable"])["usable"].to_numpy()
    if usable.sum() != len(Shard(cutouts)):
        raise ValueError(f"{quality} and {cutouts} are not of the same run: run cutouts again")
    group = BATCHES_PER_ROW_GROUP * settings["batch_size"]
    batch = even_batch_size(min(int(usable.sum()), group), settings["batch_size"])
    loaded = [networks.load(path) for path in models] if usable.any() else []
    columns = schema(settings["task_name"], task.classes)
    done = row = 0
    with atomic_path(predictions) as temporary, pq.ParquetWriter(temporary, columns) as writer:
        for part in pq.ParquetFile(quality).iter_batches(group, columns=["object_id", "usable"]):
            chosen = usable[row : row + len(part)]
            shard, count = Shard(cutouts), int(chosen.sum())
            logits = np.empty((1, 0, len(task.classes)), dtype="float32")
            if count:
                first = done
                logits = networks.predict_logits(
                    loaded, lambda a, b, s=shard, f=first: s.read(f + a, f + b), count, batch
                )
            summary = summarise(logits, found["temperature"])
            writer.write_table(
                _row_group(
                    part["object_id"], chosen, summary, task.classes, columns, found["model_id"]
                )
            )
            done, row = done + count, row + len(part)
    logger.info("%s: %d of %d objects predicted", settings["task_name"], done, row)
