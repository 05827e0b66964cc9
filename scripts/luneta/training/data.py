"""Reading cutouts from shards, and serving them in batches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pyarrow.parquet as pq

from luneta.cutouts.shard import Shard


class Cutouts:
    """The cutouts of several shards, which must agree in bands, pixels and size."""

    def __init__(self, paths: dict[str, Path | str]):
        self.shards = {name: Shard(path) for name, path in paths.items()}
        kinds = {(tuple(s.bands), s.pixels, s.shape) for s in self.shards.values()}
        if len(kinds) != 1:
            raise ValueError(
                f"the shards' cutouts differ in (bands, pixels, shape): {sorted(kinds)}; "
                "remove the results of the older settings and cut them again"
            )
        ((bands, self.pixels, self.shape),) = kinds
        self.bands = list(bands)

    def take(self, shards: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Read one cutout for each pair of shard name and row: (object, band, y, x), float32."""
        images = np.empty((len(rows), *self.shape), dtype="float32")
        for name in np.unique(shards):
            chosen = shards == name
            images[chosen] = self.shards[name].take(rows[chosen])
        return images


@dataclass(frozen=True)
class Labelled:
    """Labelled objects of a task, one entry per object in each array.

    Attributes
    ----------
    ids, shards
        Names, str.
    rows
        Row in the shard's cutout file, int64.
    labels
        Index of the class, int32.
    folds
        Fold that holds the object out, int32; -1 for the hold-out test split.
    """

    ids: np.ndarray
    shards: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    folds: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, chosen: np.ndarray) -> Labelled:
        """Give the objects a boolean array chooses."""
        return Labelled(
            self.ids[chosen],
            self.shards[chosen],
            self.rows[chosen],
            self.labels[chosen],
            self.folds[chosen],
        )


def read_split(path: Path | str, classes: Sequence[str]) -> Labelled:
    """Read splits/{task}.parquet."""
    table = pq.read_table(path)
    index = {name: i for i, name in enumerate(classes)}
    return Labelled(
        ids=np.array(table["object_id"].to_pylist(), dtype=str),
        shards=np.array(table["shard"].to_pylist(), dtype=str),
        rows=table["row"].to_numpy().astype("int64"),
        labels=np.array([index[label] for label in table["label"].to_pylist()], dtype="int32"),
        folds=table["fold"].to_numpy().astype("int32"),
    )


def training_part(objects: Labelled, fold: int) -> Labelled:
    """Give the objects on which a fold's network may learn: of no hold-out, and of other folds."""
    return objects.where((objects.folds >= 0) & (objects.folds != fold))


def data_digest(objects: Labelled, cutouts: Cutouts, step: int = 1024) -> str:
    """Give the sha256 over the objects' names, labels, folds and pixels, in order of name."""
    order = np.argsort(objects.ids, kind="stable")
    total = hashlib.sha256()
    for start in range(0, len(order), step):
        part = order[start : start + step]
        entries = zip(objects.ids[part], objects.labels[part], objects.folds[part], strict=True)
        total.update(json.dumps([[str(i), int(c), int(f)] for i, c, f in entries]).encode())
        total.update(cutouts.take(objects.shards[part], objects.rows[part]).tobytes())
    return total.hexdigest()


def class_weights(labels: np.ndarray, classes: int, cap: float) -> np.ndarray:
    """Weigh classes by inverse frequency, relative to the most common one, at most `cap`.

    Scaled so that the mean over the objects is 1: the learning rate keeps its meaning.

    Parameters
    ----------
    labels
        Class indices, int (object,).
    classes
        Number of classes.
    cap
        Largest ratio of two weights; 1 weighs all classes alike.

    Returns
    -------
    numpy.ndarray
        float32 (class,).
    """
    counts = np.maximum(np.bincount(labels, minlength=classes), 1)
    weights = np.minimum(counts.max() / counts, cap)
    return (weights / weights[labels].mean()).astype("float32")


class Batches(keras.utils.PyDataset):
    """Batches of (images, labels, weights), shuffled anew each epoch if a seed is given.

    Shuffled epochs leave the remainder of a batch out; it is another one each time.

    Parameters
    ----------
    images
        Array (object, band, y, x), float32.
    labels
        Class indices, int (object,).
    weights
        Of the classes, float32 (class,).
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        batch_size: int,
        seed: int | None = None,
    ):
        super().__init__(workers=1)
        self.images, self.labels, self.weights = images, labels, weights
        self.size = min(batch_size, len(labels))
        self.seed = seed
        self.epoch = 0
        self.order = self._shuffled()

    def _shuffled(self) -> np.ndarray:
        count = len(self.labels)
        if self.seed is None:
            return np.arange(count)
        return np.random.default_rng([self.seed, self.epoch]).permutation(count)

    @property
    def num_batches(self) -> int:
        """Batches per epoch."""
        count = len(self.labels)
        return count // self.size if self.seed is not None else -(-count // self.size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chosen = self.order[index * self.size : (index + 1) * self.size]
        labels = self.labels[chosen]
        return self.images[chosen], labels, self.weights[labels]

    def on_epoch_end(self) -> None:
        """Shuffle for the next epoch."""
        self.epoch += 1
        self.order = self._shuffled()
