"""Labelled cutouts: read from shards, chosen, weighted, served in batches."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import keras
import numpy as np

from luneta.cutouts.shard import Shard
from luneta.parquet import read_parquet

# Share of the training objects on which the best epoch is chosen. The held-out fold is never
# looked at, or its scores would be too good.
VALIDATION = 0.1
# More cutouts than this go to a file, which the system keeps in memory as far as there is any.
MEMORY = 4 * 2**30


def derived_seed(*parts: Any) -> int:
    """Give a seed below 2**31 fixed by its parts."""
    text = ":".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 2**31


class TrainingError(ValueError):
    """Labelled objects, or their cutouts, that no network can be trained on."""


class Cutouts:
    """The cutouts of several shards, which must agree in bands, pixels and size."""

    def __init__(self, paths: dict[str, Path | str]):
        self.shards = {name: Shard(path) for name, path in paths.items()}
        kinds = {(tuple(s.bands), s.pixels, s.shape) for s in self.shards.values()}
        if len(kinds) != 1:
            raise TrainingError(
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

    def gather(self, shards: np.ndarray, rows: np.ndarray, memory: int = MEMORY) -> np.ndarray:
        """Read cutouts once, to be taken in any order later: (object, band, y, x), float32.

        More than `memory` bytes are kept in a temporary file, mapped into memory, as a random
        order would uncompress a compressed shard again and again.
        """
        shape = (len(rows), *self.shape)
        if 4 * math.prod(shape) <= memory:
            return self.take(shards, rows)
        with tempfile.TemporaryFile() as file:
            images = np.memmap(file, "float32", shape=shape)
        order = np.lexsort((rows, shards))
        for start in range(0, len(rows), 1000):
            part = order[start : start + 1000]
            images[part] = self.take(shards[part], rows[part])
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
        return Labelled(*(getattr(self, field.name)[chosen] for field in fields(self)))


def read_split(path: Path | str, classes: Sequence[str]) -> Labelled:
    """Read splits/{task}.parquet."""
    table = read_parquet(path)
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


def _lowest(objects: Labelled, counts: dict[int, int], *seed: Any) -> np.ndarray:
    """Choose of each class so many objects, those with the lowest hash of their name."""
    order = np.array([derived_seed(*seed, name) for name in objects.ids])
    mask = np.zeros(len(objects), dtype=bool)
    for label, count in counts.items():
        members = np.flatnonzero(objects.labels == label)
        mask[members[np.argsort(order[members], kind="stable")[:count]]] = True
    return mask


def _sizes(objects: Labelled) -> dict[int, int]:
    return dict(zip(*(x.tolist() for x in np.unique(objects.labels, return_counts=True)),
                    strict=True))  # fmt: skip


def validation_mask(objects: Labelled, seed: int) -> np.ndarray:
    """Choose a tenth of each class, at least one, by the hash of the object's name.

    Returns
    -------
    numpy.ndarray
        bool (object,). A class of one object stays in training. Objects are chosen one by one:
        those that share a group or are near-duplicates, never in two folds, may be on both sides
        here, so that the epoch is chosen a little late. Scores out of fold are not touched by it.
    """
    counts = {
        label: max(1, round(VALIDATION * size)) if size > 1 else 0
        for label, size in _sizes(objects).items()
    }
    return _lowest(objects, counts, seed, "validation")


def label_mask(objects: Labelled, fraction: float, seed: int) -> np.ndarray:
    """Choose a fraction of each class, at least one object, by the hash of the object's name.

    Returns
    -------
    numpy.ndarray
        bool (object,). A larger fraction holds a smaller one.
    """
    counts = {label: max(1, round(fraction * size)) for label, size in _sizes(objects).items()}
    return _lowest(objects, counts, seed, "labels")


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


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Turn class indices into float32 (object, class)."""
    return np.eye(classes, dtype="float32")[labels]


def balanced_order(labels: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Draw as many objects as there are, every class as often, in random order.

    Within a class each object is drawn as often as any other, or once more.

    Returns
    -------
    numpy.ndarray
        Positions, int (object,); a few less than objects if the classes do not divide them.
    """
    present = np.unique(labels)
    share = max(1, len(labels) // len(present))
    drawn = [
        np.resize(random.permutation(np.flatnonzero(labels == label)), share) for label in present
    ]
    return random.permutation(np.concatenate(drawn))


class Batches(keras.utils.PyDataset):
    """Batches of (images, labels, weights), in an order fixed by the seed and the epoch.

    Without a seed all objects come in their own order. With one, the remainder of a batch is left
    out; it is another one each epoch. As a dataset it serves the first epoch; `Epochs` serves all.

    Parameters
    ----------
    images
        Array (object, band, y, x), float32.
    labels
        Class indices, int (object,); they are served one-hot, float32 (object, class).
    weights
        Of the classes, float32 (class,).
    balanced
        Draw every class as often.
    mixup
        Alpha of mixup (Zhang et al. 2018, arXiv:1710.09412): each object is blended with another
        of its batch, pixels, label and weight alike, with a share drawn from Beta(alpha, alpha).
        Bad pixels are 0 then.
    ids
        Names of the objects, for messages; numbered if not given.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        batch_size: int,
        seed: int | None = None,
        *,
        balanced: bool = False,
        mixup: float = 0.0,
        ids: np.ndarray | None = None,
    ):
        super().__init__(workers=1)
        self.images, self.labels, self.weights = images, labels, weights
        self.seed, self.balanced, self.mixup = seed, balanced, mixup
        self.ids = np.arange(len(labels)).astype(str) if ids is None else ids
        self._last = 0, self._order(0)
        self.count = len(self._last[1])
        self.size = min(batch_size, self.count)

    def order(self, epoch: int) -> np.ndarray:
        """Give the positions of the objects in the order of an epoch, int (object,)."""
        last, order = self._last
        if epoch != last:
            order = self._order(epoch)
            self._last = epoch, order
        return order

    def _order(self, epoch: int) -> np.ndarray:
        if self.seed is None:
            return np.arange(len(self.labels))
        random = np.random.default_rng([self.seed, epoch])
        if self.balanced:
            return balanced_order(self.labels, random)
        return random.permutation(len(self.labels))

    @property
    def num_batches(self) -> int:
        """Batches per epoch."""
        return self.count // self.size if self.seed is not None else -(-self.count // self.size)

    def members(self, epoch: int, index: int) -> np.ndarray:
        """Give the positions of a batch's objects, int (object,)."""
        return self.order(epoch)[index * self.size : (index + 1) * self.size]

    def batch(self, epoch: int, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Give a batch of an epoch: images, labels and weights."""
        chosen = self.members(epoch, index)
        labels = one_hot(self.labels[chosen], len(self.weights))
        found = self.images[chosen], labels, self.weights[self.labels[chosen]]
        return self._mixed(epoch, index, found) if self.mixup else found

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.batch(0, index)

    def _mixed(self, epoch: int, index: int, batch: tuple[np.ndarray, ...]) -> tuple:
        random = np.random.default_rng([self.seed or 0, epoch, index])
        count = len(batch[0])
        share = random.beta(self.mixup, self.mixup, count).astype("float32")
        partner = random.permutation(count)

        def blend(values: np.ndarray) -> np.ndarray:
            part = share.reshape(-1, *[1] * (values.ndim - 1))
            return part * values + (1 - part) * values[partner]

        images, labels, weights = batch
        return blend(np.nan_to_num(images)), blend(labels), blend(weights)


class Epochs(keras.utils.PyDataset):
    """The batches of all epochs from one on, without end.

    One iterator then serves a whole training. Keras makes a new one for each epoch of a dataset
    that ends, which costs time, and on a busy machine was seen to take seconds.

    Parameters
    ----------
    batches
        Of each epoch.
    first
        Epoch to begin with.
    """

    num_batches = None

    def __init__(self, batches: Batches, first: int = 0):
        super().__init__(workers=1)
        self.batches, self.first = batches, first

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        epoch, place = divmod(index, self.batches.num_batches)
        return self.batches.batch(self.first + epoch, place)
