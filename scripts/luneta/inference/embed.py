"""Rule embed: the features that a task's network has of every object of a shard."""

from __future__ import annotations

import itertools
import logging
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from luneta.cutouts.shard import Shard
from luneta.files import read_json
from luneta.inference.embeddings import schema, spread
from luneta.inference.predictions import PredictionsError
from luneta.models import devices, predicting
from luneta.models import network as networks
from luneta.parquet import open_parquet, parquet_writer

logger = logging.getLogger(__name__)


def run(
    cutouts: Path | str,
    quality: Path | str,
    model: Path | str,
    sidecar: Path | str,
    embeddings: Path | str,
    settings: dict[str, Any],
    threads: int = 1,
    device: str = "auto",
) -> None:
    """Write the features of all objects of a shard.

    Parameters
    ----------
    cutouts, quality
        cutouts/{shard}.arrow and quality/{shard}.parquet.
    model, sidecar
        models/{task}/fold0.keras and .json: features of two networks cannot be compared, so that
        one network serves all.
    embeddings
        Written: embeddings/{task}/{shard}.parquet, one row per row of `quality`.
    settings
        `batch_size`, `jit`.
    threads
        Processor threads the job may use.
    device
        `auto`, `cpu` or `gpu`.
    """
    devices.configure(threads, device)
    network = networks.load_known(model, read_json(sidecar)["model_id"])
    prepared, size = predicting.prepare(network), settings["batch_size"]
    options = {"features": True, "jit": settings.get("jit", "auto")}
    predictor = predicting.Predictor([prepared], size, **options)
    parts = [
        part["usable"].to_numpy(zero_copy_only=False)
        for part in open_parquet(quality).iter_batches(size, columns=["usable"])
    ]
    ends = np.cumsum([0, *(part.sum() for part in parts)]).tolist()
    shard = Shard(cutouts)
    if ends[-1] != len(shard):
        raise PredictionsError(
            f"{quality} and {cutouts} are not of the same run: remove both, then run the same "
            "command again"
        )
    images = (shard.read(*pair) for pair in itertools.pairwise(ends))
    named = open_parquet(quality).iter_batches(size, columns=["object_id"])
    columns = schema(prepared.whole.output_shape[0][-1])
    with (
        parquet_writer(embeddings, columns) as writer,
        closing(predicting.stream(predictor, images)) as said,
    ):
        for ids, usable, found in zip(named, parts, said, strict=True):
            writer.write_batch(spread(ids["object_id"], usable, found.features[0]))
    logger.info("features of %d objects", ends[-1])
