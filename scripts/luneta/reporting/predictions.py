"""What the figures are drawn from: predictions out of fold, and the hidden truth."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luneta.parquet import read_parquet

LEFT_OUT = {
    "without_label": "without label",
    "ignored": "ignored",
    "conflicting": "of two classes",
    "absent": "without cutout",
    "not_usable": "not usable",
    "near_duplicate": "near-duplicate",
}


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of labelled objects by the network that did not train on them.

    Attributes
    ----------
    object_id : numpy.ndarray
        Shape (objects,), object.
    labels : numpy.ndarray
        Class numbers, shape (objects,), int.
    fold : numpy.ndarray
        Shape (objects,), int.
    probabilities, uncalibrated : numpy.ndarray
        Shape (objects, classes), float.
    classes : list of str
        In the order of the columns.
    kind : {"multiclass", "binary"}
    """

    object_id: np.ndarray
    labels: np.ndarray
    fold: np.ndarray
    probabilities: np.ndarray
    uncalibrated: np.ndarray
    classes: list[str]
    kind: str

    @property
    def right(self) -> np.ndarray:
        """Whether the most probable class is the label; shape (objects,), bool."""
        return self.probabilities.argmax(axis=1) == self.labels

    @property
    def entropy(self) -> np.ndarray:
        """Entropy of the probabilities in nat; shape (objects,), float."""
        safe = np.clip(self.probabilities, np.finfo(float).tiny, None)
        return -(self.probabilities * np.log(safe)).sum(axis=1)

    @property
    def shown(self) -> list[int]:
        """Classes that get a one-against-rest curve: all, or the positive one of a binary task."""
        return [1] if self.kind == "binary" else list(range(len(self.classes)))

    def folds(self) -> Iterator[np.ndarray]:
        """Give the objects of each fold; shape (objects,), bool."""
        for fold in np.unique(self.fold):
            yield self.fold == fold


def read_out_of_fold(path: Path | str, classes: list[str], kind: str) -> OutOfFold:
    """Read `metrics/{task}_out_of_fold.parquet`, without the hold-out if it is there."""
    table = read_parquet(path, filters=pc.field("fold") >= 0)
    number = {name: i for i, name in enumerate(classes)}

    def columns(stem: str) -> np.ndarray:
        return np.stack([table[f"{stem}_{name}"].to_numpy() for name in classes], 1).astype(float)

    return OutOfFold(
        object_id=np.asarray(table["object_id"].to_numpy(), object),
        labels=np.array([number[name] for name in table["label"].to_pylist()], int),
        fold=table["fold"].to_numpy(),
        probabilities=columns("probability"),
        uncalibrated=columns("uncalibrated"),
        classes=list(classes),
        kind=kind,
    )


def told_of_split(schema: pa.Schema, key: str) -> Any:
    """Read what `splits/{task}.parquet` tells in its metadata: `counts`, `conflicting`, ...

    Returns
    -------
    object
        An empty dict where it tells nothing.
    """
    return json.loads((schema.metadata or {}).get(key.encode(), b"{}"))


def note_on_labels(split: pa.Table) -> str:
    """Say how many labelled objects of a split are held out, and how many were left out, why."""
    numbers = told_of_split(split.schema, "counts")
    held = pc.sum(pc.less(split["fold"], 0)).as_py() or 0
    parts = [f"{held:,} of the labelled held out as test"] if held else []
    left_out = [f"{numbers[key]:,} {why}" for key, why in LEFT_OUT.items() if numbers.get(key)]
    return "\n".join(parts + (["left out: " + ", ".join(left_out)] if left_out else []))


def read_truth(paths: Sequence[Path | str]) -> pa.Table:
    """Read the hidden truth of all tiles."""
    return pa.concat_tables([read_parquet(path) for path in paths], promote_options="permissive")


def truth_column(truth: pa.Table, classes: Sequence[str]) -> str | None:
    """Find the column of the truth that answers a task: most of its values are the classes."""
    strings = [f.name for f in truth.schema if pa.types.is_string(f.type) and f.name != "object_id"]
    share = {
        name: np.mean([value in classes for value in truth[name].to_pylist()]) for name in strings
    }
    best = max(share, key=share.get, default=None)
    return best if best is not None and share[best] > 0.5 else None


@dataclass(frozen=True)
class AgainstTruth:
    """Counts of a task's predictions against the hidden truth, rows true, columns predicted.

    Attributes
    ----------
    every : numpy.ndarray
        All classified objects, shape (classes, classes), int.
    unlabelled : numpy.ndarray
        Of these, the ones that no network was trained on.
    classes : list of str
    """

    every: np.ndarray
    unlabelled: np.ndarray
    classes: list[str]


def against_truth(
    catalog: pa.Table, task: str, classes: list[str], truth: pa.Table, labelled: set[str]
) -> AgainstTruth | None:
    """Compare a catalog's classes with the hidden truth.

    Parameters
    ----------
    catalog : pyarrow.Table
        With `object_id` and `{task}_class`.
    task : str
        Name of the task.
    classes : list of str
        In the order of the counts.
    truth : pyarrow.Table
        See docs/architecture.md; one row per object.
    labelled : set of str
        Objects with a label.

    Returns
    -------
    AgainstTruth or None
        None if the truth has no column for the task.
    """
    column = truth_column(truth, classes)
    if column is None:
        return None
    number = {name: i for i, name in enumerate(classes)}
    true = dict(zip(truth["object_id"].to_pylist(), truth[column].to_pylist(), strict=True))
    every = np.zeros((len(classes), len(classes)), np.int64)
    unlabelled = every.copy()
    ids, chosen = catalog["object_id"].to_pylist(), catalog[f"{task}_class"].to_pylist()
    for name, predicted in zip(ids, chosen, strict=True):
        if predicted is not None and true.get(name) in number:
            place = number[true[name]], number[predicted]
            every[place] += 1
            unlabelled[place] += name not in labelled
    return AgainstTruth(every, unlabelled, classes)
