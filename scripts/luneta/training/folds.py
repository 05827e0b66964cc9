"""Rule split: join labels to cutouts and deal the objects into folds."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from luneta.config import ConfigError, Question
from luneta.files import atomic_path
from luneta.survey.overlaps import best_placement

QUALITY = ("object_id", "usable", "masked_fraction", "edge_distance")

logger = logging.getLogger(__name__)


def fold_of(object_id: str, folds: int, seed: int) -> int:
    """Give an object's fold: sha256 of `seed:object_id`, modulo the number of folds.

    It depends on nothing else, so that new labels, new tiles or a mended label move no object to
    another fold. The price is that the folds' sizes vary as chance has it, in each class by about
    the square root of its members per fold.
    """
    value = hashlib.sha256(f"{seed}:{object_id}".encode()).digest()
    return int.from_bytes(value[:8], "big") % folds


def _column(table: pa.Table, name: str, key: str, path: Path | str) -> list[str]:
    from luneta.survey.tables import text

    if name not in table.column_names:
        raise ConfigError(
            f"{key} = {name!r}: {path} has no such column; it has {table.column_names}"
        )
    return text(table[name]).tolist()


def class_of_value(task: Question) -> dict[str, str | None]:
    """Map each allowed label to its class, ignored ones to None."""
    allowed: dict[str, str | None] = dict.fromkeys(task.ignore)
    for name, values in task.merge.items():
        allowed.update(dict.fromkeys(values, name))
    return {**allowed, **{name: name for name in task.classes}}


def read_labels(paths: Sequence[Path | str], task: Question) -> tuple[dict[str, str], Counter]:
    """Read label tables.

    Returns
    -------
    labels : dict
        Class by object name, in order of first appearance.
    counts : collections.Counter
        Rows `without_label`, `ignored`; objects `conflicting` (labelled with two classes, left
        out).
    """
    from luneta.survey.tables import read_table

    allowed = class_of_value(task)
    found: dict[str, set[str]] = {}
    counts: Counter = Counter()
    for path in paths:
        table = read_table(path, text_columns=(task.id_column, task.label_column))
        names = _column(table, task.id_column, "id_column", path)
        values = _column(table, task.label_column, "label_column", path)
        for name, value in zip(names, values, strict=True):
            if not name or not value:
                counts["without_label"] += 1
            elif value not in allowed:
                raise ConfigError(
                    f"{path}: label {value!r} of object {name!r} is not allowed; allowed are "
                    f"{sorted(allowed)}. Add it to classes, merge or ignore of the task"
                )
            elif (label := allowed[value]) is None:
                counts["ignored"] += 1
            else:
                found.setdefault(name, set()).add(label)
    counts["conflicting"] = sum(len(labels) > 1 for labels in found.values())
    return {n: min(labels) for n, labels in found.items() if len(labels) == 1}, counts


def _placements(path: Path | str, shard: str) -> pa.Table:
    """Names and merits of a shard's rows, and their row in its cutout file (-1: not there)."""
    there = pq.read_schema(path).names
    table = pq.read_table(path, columns=[name for name in QUALITY if name in there])
    usable = table["usable"].to_numpy()
    rows = pa.array(np.where(usable, np.cumsum(usable) - 1, -1))
    names = pa.repeat(shard, len(table))
    return table.append_column("row", rows).append_column("shard", names)


def _merit(table: pa.Table, name: str) -> np.ndarray:
    if name not in table.column_names:
        return np.full(len(table), np.nan)
    return table[name].cast(pa.float64()).fill_null(np.nan).to_numpy()


def read_rows(paths: Sequence[Path | str], shards: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Find where the best cutout of each object is.

    Returns
    -------
    dict
        Shard and row in the shard's cutout file by object name; row -1 for objects that are not
        usable.
    """
    parts = [_placements(path, shard) for path, shard in zip(paths, shards, strict=True)]
    if not parts:
        return {}
    table = pa.concat_tables(parts, promote_options="permissive")
    # Quality files do not tell the tile; between equals the shard decides, then the order.
    best = best_placement(
        np.asarray(table["object_id"].to_pylist(), dtype=str),
        table["usable"].to_numpy(),
        _merit(table, "masked_fraction"),
        _merit(table, "edge_distance"),
        np.asarray(table["shard"].to_pylist(), dtype=str),
    )
    chosen = table.filter(pa.array(best))
    places = zip(chosen["shard"].to_pylist(), chosen["row"].to_pylist(), strict=True)
    return dict(zip(chosen["object_id"].to_pylist(), places, strict=True))


def check_folds(labels: Sequence[str], folds: np.ndarray, task: Question) -> None:
    """Refuse a split in which a fold lacks a class."""
    count = task.training.folds
    members = {name: np.zeros(count, dtype=int) for name in task.classes}
    for label, fold in zip(labels, folds, strict=True):
        members[label][fold] += 1
    for name, per_fold in members.items():
        if per_fold.sum() < count:
            raise ConfigError(
                f"class {name!r} has {per_fold.sum()} usable labelled objects, fewer than "
                f"training.folds = {count}: lower folds, add labels, or merge or drop the class"
            )
        if per_fold.min() == 0:
            raise ConfigError(
                f"class {name!r} with {per_fold.sum()} objects has none in fold "
                f"{int(per_fold.argmin())} of {count}: lower training.folds, add labels, or "
                "change seed"
            )


def run(
    labels: Sequence[Path | str],
    quality: Sequence[Path | str],
    split: Path | str,
    settings: dict[str, Any],
) -> None:
    """Write the labelled, usable objects of a task with their folds.

    Parameters
    ----------
    labels
        Label tables.
    quality
        quality/{shard}.parquet, in the order of `settings["shards"]`.
    split
        Written: splits/{task}.parquet; what was left out is counted in its schema metadata
        `counts` (JSON).
    settings
        `task` (dump of config.Question), `shards` (names), `seed`.
    """
    task = Question.model_validate(settings["task"])
    classes, counts = read_labels(labels, task)
    places = read_rows(quality, settings["shards"])
    counts["absent"] = sum(name not in places for name in classes)
    kept = [name for name in classes if places.get(name, ("", -1))[1] >= 0]
    counts["not_usable"] = len(classes) - counts["absent"] - len(kept)
    counts["used"] = len(kept)
    logger.info("labels: %s", dict(counts))
    kept.sort(key=lambda name: places[name])
    seed, number = settings["seed"], task.training.folds
    folds = np.array([fold_of(name, number, seed) for name in kept], dtype="int32")
    names = [classes[name] for name in kept]
    check_folds(names, folds, task)
    table = pa.table(
        {
            "object_id": pa.array(kept, pa.string()),
            "shard": pa.array([places[name][0] for name in kept], pa.string()),
            "row": pa.array([places[name][1] for name in kept], pa.int64()),
            "label": pa.array(names, pa.string()),
            "fold": pa.array(folds, pa.int32()),
        }
    ).replace_schema_metadata({"counts": json.dumps(dict(sorted(counts.items())))})
    with atomic_path(split) as temporary:
        pq.write_table(table, temporary)
