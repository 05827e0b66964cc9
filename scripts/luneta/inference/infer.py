"""Rule infer: predict every object of a shard with all folds of a task, in one pass."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from luneta.cutouts.shard import Shard
from luneta.files import read_json
from luneta.inference import predictions as files
from luneta.inference.predictions import Answers, Origin, PredictionsError, PredictionsWriter
from luneta.models import devices, precision, predicting
from luneta.models import network as networks
from luneta.models.background import Behind
from luneta.parquet import open_parquet, parquet_writer, read_parquet
from luneta.training.calibration import Calibrator
from luneta.training.outliers import OutlierModel
from luneta.training.uncertainty import summarise

logger = logging.getLogger(__name__)

BATCHES_PER_ROW_GROUP = 16
MOST_LOGITS = 2**24  # of a row group, in memory: many draws make it shorter
AGAIN = "remove metrics/ of the results, then run the same command again"
MOST_MAPPED = 2**25  # bytes of the shard, in memory until they are released


@dataclass(frozen=True)
class Ensemble:
    """The networks of a task, and how their logits are read.

    Attributes
    ----------
    networks
        One a fold.
    precision
        In which they compute; see `luneta.models.precision`.
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

    networks: tuple[keras.Model, ...]
    precision: str
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

    def check_precision(self, shard: Shard) -> None:
        """Let the networks compute in their precision, if the first cutouts show that it serves."""
        if self.precision != "trained":
            first = shard.read(0, min(len(shard), precision.OBJECTS))
            precision.check(self.networks, first, self.precision)

    def predictor(self, batch: int, jit: bool | str) -> predicting.Predictor:
        """Make the networks ready for batches of a size."""
        members = [predicting.prepare(network) for network in self.networks]
        return predicting.Predictor(members, batch, **self.sampling, features=True, jit=jit)

    def answers(self, said: predicting.Outputs) -> Answers:
        """Read what the networks say."""
        summary = summarise(self.calibrator.apply(said.logits.reshape(-1, *said.logits.shape[2:])))
        scores = self.outliers.scores(said.features)
        return Answers(
            summary.probability,
            summary.std,
            summary.entropy,
            summary.mutual_information,
            scores,
            self.outliers.flags(scores),
        )

    def no_answers(self) -> Answers:
        """Give the answers about no objects."""
        by_class, alone = np.empty((0, len(self.classes))), np.empty(0)
        return Answers(by_class, by_class, alone, alone, alone, np.empty(0, dtype=bool))


def check(
    shard: Shard,
    sidecars: list[dict[str, Any]],
    metrics: dict[str, Any],
    outliers: OutlierModel,
) -> None:
    """Refuse networks that were not trained on such cutouts or not evaluated."""
    if [s["model_id"] for s in sidecars] != metrics["models"]:
        raise PredictionsError(f"the networks are not those that were evaluated: {AGAIN}")
    if outliers.digest != metrics["outliers"]["digest"]:
        raise PredictionsError(f"the outlier model is not of the same evaluation: {AGAIN}")
    found = {"bands": shard.bands, "pixels": shard.pixels, "cutout_size": shard.shape[1]}
    for key, value in found.items():
        expected = sidecars[0][key]
        if expected != value:
            raise PredictionsError(
                f"the cutouts have {key} {value}, the networks were trained with {expected}: "
                "use the config of the training, or train again"
            )


def assemble(
    models: Sequence[Path | str], metrics: dict[str, Any], outliers: OutlierModel
) -> Ensemble:
    """Load the networks of a task with what `evaluate` found of them."""
    pairs = zip(models, metrics["models"], strict=False)  # a shard without objects needs none
    return Ensemble(
        tuple(networks.load_known(*pair) for pair in pairs),
        metrics["members"].get("precision", "trained"),
        {name: metrics["members"][name] for name in ("views", "draws", "seed")},
        Calibrator.from_dict(metrics["calibration"]),
        outliers,
        metrics["classes"],
        metrics["model_id"],
    )


def batches(path: Path | str, count: int, size: int) -> Iterator[np.ndarray]:
    """Read the cutouts of a shard in their order, in batches (object, band, y, x), float32."""
    shard, mapped = Shard(path), 0
    for start in range(0, count, size):
        images = shard.read(start, min(start + size, count))
        mapped += images.nbytes
        yield images
        if mapped > MOST_MAPPED:
            shard.release()
            mapped = 0


def predict_shard(
    ensemble: Ensemble,
    predictor: predicting.Predictor,
    cutouts: Path | str,
    count: int,
    writer: PredictionsWriter,
) -> None:
    """Predict so many cutouts of a shard.

    While the device works on a batch, one thread reads the next, and one reads the answers out of
    the last and writes them.
    """
    read = batches(cutouts, count, predictor.batch_size)
    with (
        closing(predicting.stream(predictor, read)) as said,
        Behind(lambda one: writer.add(ensemble.answers(one))) as behind,
    ):
        for one in said:
            behind.put(one)


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
    run_id: str = "",
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
        calibration, views, draws and precision, and what is strange to them.
    predictions
        Written: predictions/{task}/{shard}.parquet, one row per row of `quality`.
    settings
        `task_name`, `batch_size`, `jit`.
    threads
        Processor threads the job may use.
    device
        `auto`, `cpu` or `gpu`.
    run_id
        Of the run, written into every predicted row.

    Notes
    -----
    Memory depends on the batch size and not on the shard.
    """
    devices.configure(threads, device)
    found, outliers = read_json(metrics), OutlierModel.load(outlier_model)
    check(Shard(cutouts), [read_json(path) for path in sidecars], found, outliers)
    usable = read_parquet(quality, columns=["usable"])["usable"]
    count = int(usable.to_numpy().sum())
    if count != len(Shard(cutouts)):
        raise PredictionsError(
            f"{quality} and {cutouts} are not of the same run: remove both, then run the same "
            "command again"
        )
    ensemble = assemble(models if count else [], found, outliers)
    group = min(
        BATCHES_PER_ROW_GROUP * settings["batch_size"],
        max(1, MOST_LOGITS // ensemble.logits_per_object),
    )
    size = predicting.even_batch_size(count, min(group, settings["batch_size"]))
    origin = Origin(settings["task_name"], tuple(ensemble.classes), ensemble.model_id, run_id)
    parts = open_parquet(quality).iter_batches(group, columns=["object_id", "usable"])
    columns = files.schema(origin.task, origin.classes)
    with parquet_writer(predictions, columns) as file:
        writer = PredictionsWriter(file, parts, origin)
        if count:
            ensemble.check_precision(Shard(cutouts))
            predictor = ensemble.predictor(size, settings.get("jit", "auto"))
            predict_shard(ensemble, predictor, cutouts, count, writer)
        writer.finish(ensemble.no_answers())
    if writer.unknown:
        logger.warning(
            "%s: the networks say nothing finite of %d objects, which get no predictions",
            *(origin.task, writer.unknown),
        )
    logger.info("%s: %d of %d objects predicted", origin.task, count, writer.rows)
