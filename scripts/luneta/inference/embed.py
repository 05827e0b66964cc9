"""Rule embed: the features that a task's network has of every object of a shard."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.parquet as pq

from luneta.cutouts.shard import Shard
from luneta.files import atomic_path
from luneta.inference.embeddings import schema, spread
from luneta.models import devices
from luneta.models import network as networks

logger = logging.getLogger(__name__)


def features_of(extractor: keras.Model, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Run a network over cutouts; the last batch is padded, so that one graph serves all.

    Parameters
    ----------
    extractor
        From raw cutouts to (features, logits), as `networks.with_features` makes it.
    images
        (object, band, y, x), float32, at most `batch_size` objects.

    Returns
    -------
    numpy.ndarray
        (object, feature), float32.
    """
    padding = ((0, batch_size - len(images)), (0, 0), (0, 0), (0, 0))
    features, _ = extractor.predict_on_batch(np.pad(images, padding))
    return np.asarray(features[: len(images)], "float32")


def run(
    cutouts: Path | str,
    quality: Path | str,
    model: Path | str,
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
    model
        models/{task}/fold0.keras: features of two networks cannot be compared, so that one
        network serves all.
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
    extractor = networks.with_features(networks.load(model))
    count, size = extractor.output_shape[0][-1], settings["batch_size"]
    shard, done = Shard(cutouts), 0
    with atomic_path(embeddings) as temporary, pq.ParquetWriter(temporary, schema(count)) as writer:
        for part in pq.ParquetFile(quality).iter_batches(size, columns=["object_id", "usable"]):
            usable = part["usable"].to_numpy(zero_copy_only=False)
            features, objects = np.empty((0, count), "float32"), int(usable.sum())
            if objects:
                features = features_of(extractor, shard.read(done, done + objects), size)
            writer.write_batch(spread(part["object_id"], usable, features))
            done += objects
    logger.info("features of %d objects", done)
