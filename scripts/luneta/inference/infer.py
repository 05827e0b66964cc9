"""Rule infer: predict every object of a shard with all folds of a task, in one pass."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from luneta.cutouts.shard import Shard
from luneta.files import read_json
from luneta.models import devices, predicting
from luneta.models import network as networks
from luneta.parquet import open_parquet, parquet_writer, read_parquet
from luneta.training.calibration import Calibrator
from luneta.training.outliers import OutlierModel
from luneta.training.uncertainty import Summary, summarise

logger = logging.getLogger(__name__)

BATCHES_PER_ROW_GROUP = 16
MOST_LOGITS = 2**24  # of a row group, in memory: many draws make it shorter


def schema(task: str, classes: Sequence[str]) -> pa.Schema:
    """Give the columns of predictions/{task}/{shard}.parquet."""
    numbers = [f"{task}_{name}_{kind}" for name in classes for kind in ("probability", "std")]
    return pa.schema(
        [
            ("object_id", pa.string()),
            *((name, pa.float32()) for name in numbers),
            (f"{task}_class", pa.string()),
            (f"{task}_entropy", pa.float32()),
            (f"{task}_mutual_information", pa.float32()),
            (f"{task}_outlier_score", pa.float32()),
            (f"{task}_outlier", pa.bool_()),
            (f"{task}_model_id", pa.string()),
        ]
    )


@dataclass(frozen=True)
class Ensemble:
    """The networks of a task, and how their logits are read.

    Attributes
    ----------
    members
        The networks, made ready.
    sampling
        Views, draws and seed, those of `evaluate`.
    calibrator
        Of every member's logits.
    outliers
        Tells which objects are strange.
    classes
        In the order of the logits.
    model_id
        Of all of this.
    """

    members: tuple[predicting.Prepared, ...]
    sampling: dict[str, int]
    calibrator: Calibrator
    outliers: OutlierModel
    classes: list[str]
    model_id: str

    @property
    def logits_per_object(self) -> int:
        """Logits of one object: networks times views times draws times classes."""
        samples = self.sampling["views"] * max(1, self.sampling["draws"])
        return len(self.outliers.networks) * samples * len(self.classes)

    def predict(
        self, read: Callable[[int, int], np.ndarray], count: int, batch: int
    ) -> tuple[Summary, np.ndarray]:
        """Give the summary of so many cutouts, and their outlier scores, float64 (object,)."""
        if not count:
            return summarise(np.empty((1, 0, len(self.classes)))), np.empty(0)
        found = predicting.predict(self.members, read, count, batch, **self.sampling, features=True)
        each = self.calibrator.apply(found.logits.reshape(-1, *found.logits.shape[2:]))
        return summarise(each), self.outliers.scores(found.features)


def _row_group(
    ids: pa.ChunkedArray,
    usable: np.ndarray,
    summary: Summary,
    scores: np.ndarray,
    ensemble: Ensemble,
    columns: pa.Schema,
) -> pa.Table:
    """Spread the predictions of the usable objects over all rows, null for the others."""
    place = np.where(usable, np.cumsum(usable) - 1, 0)
    each = [
        x[:, i] for i in range(len(ensemble.classes)) for x in (summary.probability, summary.std)
    ]
    values = [
        *each,
        np.array(ensemble.classes, dtype=object)[summary.chosen],
        summary.entropy,
        summary.mutual_information,
        scores,
        ensemble.outliers.flags(scores),
        np.full(len(scores), ensemble.model_id, dtype=object),
    ]

    def spread(values: np.ndarray, kind: pa.DataType) -> pa.Array:
        full = values[place] if len(values) else np.zeros(len(usable), dtype=values.dtype)
        return pa.array(full, kind, mask=~usable)

    kinds = columns.types[1:]
    arrays = [spread(one, kind) for one, kind in zip(values, kinds, strict=True)]
    return pa.Table.from_arrays([ids, *arrays], schema=columns)


def check(
    shard: Shard,
    sidecars: list[dict[str, Any]],
    metrics: dict[str, Any],
    outliers: OutlierModel,
) -> None:
    """Refuse networks that were not trained on such cutouts or not evaluated."""
    if [s["model_id"] for s in sidecars] != metrics["models"]:
        raise ValueError("the networks are not those that were evaluated: run evaluate again")
    if outliers.digest != metrics["outliers"]["digest"]:
        raise ValueError("the outlier model is not of the same evaluation: run evaluate again")
    found = {"bands": shard.bands, "pixels": shard.pixels, "cutout_size": shard.shape[1]}
    for key, value in found.items():
        expected = sidecars[0][key]
        if expected != value:
            raise ValueError(
                f"the cutouts have {key} {value}, the networks were trained with {expected}: "
                "use the config of the training, or train again"
            )


def assemble(
    models: Sequence[Path | str], metrics: dict[str, Any], outliers: OutlierModel
) -> Ensemble:
    """Load the networks of a task with what `evaluate` found of them."""
    return Ensemble(
        tuple(
            predicting.prepare(networks.load_known(path, model_id))
            for path, model_id in zip(models, metrics["models"], strict=False)
        ),
        {name: metrics["members"][name] for name in ("views", "draws", "seed")},
        Calibrator.from_dict(metrics["calibration"]),
        outliers,
        metrics["classes"],
        metrics["model_id"],
    )


def run(
    cutouts: Path | str,
    quality: Path | str,
    models: Sequence[Path | str],
    sidecars: Sequence[Path | str],
    metrics: Path | str,
    outlier_model: Path | str,
    predictions: Path | str,
    settings: dict[str, Any],
    threads: int = 1,
    device: str = "auto",
) -> None:
    """Predict all objects of a shard.

    Parameters
    ----------
    cutouts, quality
        cutouts/{shard}.arrow and quality/{shard}.parquet.
    models, sidecars
        models/{task}/fold{k}.keras and .json, in the order of the folds.
    metrics, outlier_model
        metrics/{task}.json and metrics/{task}_outliers.npz: the identity of the networks, their
        calibration, views and draws, and what is strange to them.
    predictions
        Written: predictions/{task}/{shard}.parquet, one row per row of `quality`.
    settings
        `task_name`, `batch_size`.
    threads
        Processor threads the job may use.
    device
        `auto`, `cpu` or `gpu`.

    Notes
    -----
    A row group is read, predicted and written before the next; the shard is mapped anew for each,
    so that memory depends on the batch size and not on the shard.
    """
    devices.configure(threads, device)
    found, outliers = read_json(metrics), OutlierModel.load(outlier_model)
    check(Shard(cutouts), [read_json(path) for path in sidecars], found, outliers)
    usable = read_parquet(quality, columns=["usable"])["usable"].to_numpy()
    if usable.sum() != len(Shard(cutouts)):
        raise ValueError(f"{quality} and {cutouts} are not of the same run: run cutouts again")
    ensemble = assemble(models if usable.any() else [], found, outliers)
    group = min(
        BATCHES_PER_ROW_GROUP * settings["batch_size"],
        max(1, MOST_LOGITS // ensemble.logits_per_object),
    )
    batch = predicting.even_batch_size(min(int(usable.sum()), group), settings["batch_size"])
    columns = schema(settings["task_name"], ensemble.classes)
    done = row = 0
    with parquet_writer(predictions, columns) as writer:
        for part in open_parquet(quality).iter_batches(group, columns=["object_id", "usable"]):
            chosen = usable[row : row + len(part)]
            shard, first, count = Shard(cutouts), done, int(chosen.sum())
            summary, scores = ensemble.predict(
                lambda a, b, s=shard, f=first: s.read(f + a, f + b), count, batch
            )
            writer.write_table(
                _row_group(part["object_id"], chosen, summary, scores, ensemble, columns)
            )
            done, row = done + count, row + len(part)
    logger.info("%s: %d of %d objects predicted", settings["task_name"], done, row)
