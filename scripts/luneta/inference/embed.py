"""Rule embed: the features that a task's network has of every object of a shard."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from luneta.cutouts.shard import Shard
from luneta.files import read_json
from luneta.inference.embeddings import schema, spread
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
        models/{task}/fold0.keras and .json: features of two networks cannot be compared, so
        that one network serves all.
    embeddings
        Written: embeddings/{task}/{shard}.parquet, one row per row of `quality`.
    settings
        `batch_size`.
    threads
        Processor threads the job may use.
    device
        `auto`, `cpu` or `gpu`.
    """
    devices.configure(threads, device)
    network = networks.load_known(model, read_json(sidecar)["model_id"])
    ensemble = [predicting.prepare(network)]
    count, size = ensemble[0].whole.output_shape[0][-1], settings["batch_size"]
    shard, done = Shard(cutouts), 0
    with parquet_writer(embeddings, schema(count)) as writer:
        for part in open_parquet(quality).iter_batches(size, columns=["object_id", "usable"]):
            usable = part["usable"].to_numpy(zero_copy_only=False)
            objects = int(usable.sum())
            found = predicting.predict(
                ensemble,
                lambda a, b, f=done: shard.read(f + a, f + b),
                objects,
                size,
                features=True,
            )
            features = found.features[0]
            writer.write_batch(spread(part["object_id"], usable, features))
            done += objects
    logger.info("features of %d objects", done)
