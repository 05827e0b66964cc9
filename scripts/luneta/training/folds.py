"""Rule split: join labels to cutouts and deal the objects into folds.

The fold of an object is a function of its own name (or its group's) and of nothing else. No other
rule would do: if adding labels is to move no old object, then an object's fold among all labels
is that which it has when it is labelled alone, whatever else is labelled before or after. So no
rule can look at the other objects to even out the classes. The folds are stratified in
expectation: a class of n objects has n / folds in each, give or take the square root of that.
How many they are is written down with the split, and a fold that lacks a class is refused.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from luneta.config import ConfigError, Question, Training
from luneta.parquet import parquet_schema, read_parquet, write_parquet
from luneta.survey.overlaps import best_placement
from luneta.training.labels import FEW, Labels, check_found, first_few, read_labels

QUALITY = ("object_id", "usable", "masked_fraction", "edge_distance")
HOLDOUT = -1
REASONS = 3  # that a message repeats
CORRECT = "what rejects them; quality/*.parquet in the results has the reason of each"

logger = logging.getLogger(__name__)


def _hash(text: str) -> int:
    """Give the first 64 bits of the sha256, which is the same in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def fold_of(key: str, folds: int, seed: int) -> int:
    """Give the fold of an object's or a group's name: sha256 of `seed:key`, modulo `folds`."""
    return _hash(f"{seed}:{key}") % folds


def in_holdout(key: str, fraction: float, seed: int) -> bool:
    """Tell whether a name is in the hold-out test split: sha256 of `seed:holdout:key`.

    A larger fraction holds a smaller one, and the folds of all others stay.
    """
    return _hash(f"{seed}:holdout:{key}") < fraction * 2**64


def deal(keys: Iterable[str], training: Training, seed: int) -> np.ndarray:
    """Deal objects into folds by their key: the name, or that of the group they belong to.

    Returns
    -------
    numpy.ndarray
        int32 (object,), -1 for the hold-out test split.
    """
    return np.array(
        [
            HOLDOUT
            if in_holdout(key, training.holdout, seed)
            else fold_of(key, training.folds, seed)
            for key in keys
        ],
        dtype="int32",
    )


def friends_of_friends(ra: np.ndarray, dec: np.ndarray, radius: float) -> np.ndarray:
    """Number the groups of objects that chains of neighbours within a radius link.

    Parameters
    ----------
    ra, dec
        ICRS degrees, float64 (object,); what is no position is near to nothing.
    radius
        Arcsec.

    Returns
    -------
    numpy.ndarray
        int32 (object,).
    """
    known = np.flatnonzero(np.isfinite(ra) & (np.abs(dec) <= 90))
    longitude, latitude = np.radians(ra[known]), np.radians(dec[known])
    points = np.stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ],
        axis=1,
    )
    chord = 2 * np.sin(np.radians(radius / 3600) / 2)
    pairs = cKDTree(points).query_pairs(chord, output_type="ndarray") if len(known) else []
    first, second = known[np.asarray(pairs, np.int64).reshape(-1, 2)].T
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(ra), len(ra)))
    return connected_components(links, directed=False)[1]


def in_fold_of_anchor(
    keys: Sequence[str], folds: np.ndarray, groups: np.ndarray, seed: int
) -> np.ndarray:
    """Choose the objects of each group that share the fold of its anchor.

    The anchor is the member whose key has the lowest hash. A group that is dealt to several folds
    so keeps one of them, and no near-duplicate of an object is in another fold than its own. To
    move the others into that fold instead would move old objects whenever a label links them.

    Parameters
    ----------
    keys
        Names or groups by which the objects were dealt (object,).
    folds, groups
        int (object,).

    Returns
    -------
    numpy.ndarray
        bool (object,).
    """
    order = np.lexsort((np.array([_hash(f"{seed}:{key}") for key in keys], "uint64"), groups))
    _, start, number = np.unique(groups[order], return_index=True, return_inverse=True)
    kept = np.empty(len(keys), dtype=bool)
    kept[order] = folds[order] == folds[order][start][number]
    return kept


def _placements(path: Path | str, shard: str) -> pa.Table:
    """Names and merits of a shard's rows, and their row in its cutout file (-1: not there)."""
    there = parquet_schema(path).names
    table = read_parquet(path, columns=[name for name in QUALITY if name in there])
    usable = table["usable"].to_numpy()
    rows = pa.array(np.where(usable, np.cumsum(usable) - 1, -1))
    names = pa.repeat(shard, len(table))
    return table.append_column("row", rows).append_column("shard", names)


def _floats(table: pa.Table, name: str) -> np.ndarray:
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
        _floats(table, "masked_fraction"),
        _floats(table, "edge_distance"),
        np.asarray(table["shard"].to_pylist(), dtype=str),
    )
    chosen = table.filter(pa.array(best))
    places = zip(chosen["shard"].to_pylist(), chosen["row"].to_pylist(), strict=True)
    return dict(zip(chosen["object_id"].to_pylist(), places, strict=True))


def read_positions(paths: Sequence[Path | str], names: Sequence[str]) -> np.ndarray:
    """Read where objects are; of an object in several tiles, the first position that is known.

    Returns
    -------
    numpy.ndarray
        Right ascension and declination, ICRS degrees, float64 (2, object); NaN if not known.
    """
    found: dict[str, tuple[float, float]] = {}
    wanted = pa.array(names, pa.string())
    for path in paths:
        table = read_parquet(path, columns=["object_id", "ra", "dec"])
        table = table.filter(pc.is_in(table["object_id"], wanted))
        positions = zip(_floats(table, "ra"), _floats(table, "dec"), strict=True)
        for name, position in zip(table["object_id"].to_pylist(), positions, strict=True):
            if np.isfinite(position).all():
                found.setdefault(name, position)
    nowhere = (np.nan, np.nan)
    return np.array([found.get(name, nowhere) for name in names], float).reshape(-1, 2).T


def near_duplicates(
    names: Sequence[str], objects: Sequence[Path | str], radius: float
) -> np.ndarray:
    """Number the groups of near-duplicates among objects, from their positions.

    Returns
    -------
    numpy.ndarray
        int32 (object,).

    Raises
    ------
    ConfigError
        If no object has a position.
    """
    ra, dec = read_positions(objects, names)
    if len(names) and not np.isfinite(ra).any():
        raise ConfigError(
            f"training.group_radius = {radius:g}: none of {len(names)} labelled objects has a "
            "position; name the columns input.columns.ra and .dec, or set group_radius: 0 and "
            "name the near-duplicates by training.group_column"
        )
    return friends_of_friends(ra, dec, radius)


def _divided(labels: Sequence[str], groups: np.ndarray) -> np.ndarray:
    """Choose the objects in whose group there is another label; bool (object,)."""
    codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)[1]
    lowest = np.full(groups.max(initial=-1) + 1, codes.max(initial=0))
    highest = np.zeros_like(lowest)
    np.minimum.at(lowest, groups, codes)
    np.maximum.at(highest, groups, codes)
    return (lowest != highest)[groups]


def members(labels: Sequence[str], folds: np.ndarray, task: Question) -> dict[str, dict[str, int]]:
    """Count the objects of each class in each fold, and in `holdout`."""
    names = {k: str(k) for k in range(task.training.folds)}
    if task.training.holdout > 0:
        names[HOLDOUT] = "holdout"
    counts = {label: dict.fromkeys(names.values(), 0) for label in task.classes}
    for label, fold in zip(labels, folds.tolist(), strict=True):
        counts[label][names[fold]] += 1
    return counts


def reject_reasons(quality: Sequence[Path | str], names: Collection[str]) -> Counter[str]:
    """Count why objects are not usable; reasons that differ in numbers alone count as the first.

    Parameters
    ----------
    quality
        quality/{shard}.parquet.
    names
        Of the objects.
    """
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    wanted = pa.array(list(names), pa.string())
    for path in quality:
        there = [c for c in ("object_id", "reject_reason") if c in parquet_schema(path).names]
        table = read_parquet(path, columns=there)
        chosen = table.filter(pc.is_in(table["object_id"], wanted))
        reasons = chosen["reject_reason"].to_pylist() if len(there) == 2 else []
        for reason in filter(None, reasons):
            counts[first.setdefault(re.sub(r"[-+]?\d[\d.]*", "#", reason), reason)] += 1
    return counts


def _told(reasons: Counter[str]) -> str:
    """Write the commonest reasons, each with its count."""
    most = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))[:REASONS]
    more = len(reasons) - len(most)
    told = "; ".join(f"{count}: {reason}" for reason, count in most)
    return told + (f"; and {more} other reasons" if more > 0 else "")


def check_members(
    counts: Mapping[str, Mapping[str, int]],
    task: Question,
    rejected: Mapping[str, Counter[str]] | None = None,
) -> None:
    """Refuse a split in which a fold, or the hold-out, lacks a class.

    Parameters
    ----------
    counts
        Objects of each class in each fold.
    task
        The task.
    rejected
        Why labelled objects of each class are not usable, and how many.

    Raises
    ------
    ConfigError
        Naming the class, how many objects it has, the fold, and why others are not used.
    """
    rejected = rejected or {}
    for name, per_fold in counts.items():
        reasons = rejected.get(name, Counter())
        problem = _too_few(per_fold, task, reasons) or _empty(per_fold, task, reasons)
        if problem is not None:
            raise ConfigError(f"class {name!r} {problem}")


def _too_few(per_fold: Mapping[str, int], task: Question, reasons: Counter[str]) -> str | None:
    """Say that a class has fewer objects than there are folds."""
    number, total = task.training.folds, _in_folds(per_fold).total()
    if total >= number:
        return None
    problem = (
        f"has {total} usable labelled objects in the folds, fewer than training.folds = {number}"
    )
    if total + reasons.total() < number:
        return f"{problem}: lower folds, add labels, or merge or drop the class"
    return (
        f"{problem}, as {reasons.total()} of its labelled objects cannot be used "
        f"({_told(reasons)}). Correct {CORRECT}"
    )


def _empty(per_fold: Mapping[str, int], task: Question, reasons: Counter[str]) -> str | None:
    """Say that a fold, or the hold-out, lacks a class."""
    in_folds, number = _in_folds(per_fold), task.training.folds
    others = f" ({reasons.total()} more cannot be used: {_told(reasons)})" if reasons else ""
    empty = next((fold for fold, count in in_folds.items() if not count), None)
    if empty is not None:
        return (
            f"with {in_folds.total()} objects{others} has none in fold {empty} of {number}: "
            "lower training.folds, add labels, or change seed"
        )
    if not per_fold.get("holdout", 1):
        return (
            f"with {in_folds.total()} objects in the folds{others} has none in the hold-out: "
            f"raise training.holdout = {task.training.holdout:g} or set it to 0, add labels, "
            "or change seed"
        )
    return None


def _in_folds(per_fold: Mapping[str, int]) -> Counter[str]:
    """Objects of a class in each fold, without the hold-out."""
    return Counter({fold: count for fold, count in per_fold.items() if fold != "holdout"})


def _placed(
    labels: Labels, places: Mapping[str, tuple[str, int]], training: Training, seed: int
) -> tuple[pa.Table, list[str]]:
    """Give the labelled objects that have a cutout, in the cutouts' order, and their keys."""
    names = [name for name in labels.classes if places.get(name, ("", -1))[1] >= 0]
    names.sort(key=lambda name: places[name])
    keys = [labels.groups.get(name, name) for name in names]
    table = pa.table(
        {
            "object_id": pa.array(names, pa.string()),
            "shard": pa.array([places[name][0] for name in names], pa.string()),
            "row": pa.array([places[name][1] for name in names], pa.int64()),
            "label": pa.array([labels.classes[name] for name in names], pa.string()),
            "fold": pa.array(deal(keys, training, seed), pa.int32()),
        }
    )
    return table, keys


def _without_straddlers(
    table: pa.Table, keys: Sequence[str], groups: np.ndarray, seed: int
) -> tuple[pa.Table, dict[str, int]]:
    """Leave out the near-duplicates dealt to another fold than their anchor's, and count them."""
    divided = _divided(table["label"].to_pylist(), groups)
    kept = in_fold_of_anchor(keys, table["fold"].to_numpy(), groups, seed)
    if divided.any():
        names = table["object_id"].filter(pa.array(divided)).to_pylist()
        logger.warning(
            "%d objects have a near-duplicate of another class: %s", len(names), first_few(names)
        )
    counts = {"near_duplicate": (~kept).sum(), "near_duplicate_conflicting": divided.sum()}
    return table.filter(pa.array(kept)), {key: int(count) for key, count in counts.items()}


def _rejected(
    labels: Labels, unusable: Sequence[str], quality: Sequence[Path | str]
) -> dict[str, Counter[str]]:
    """Count why labelled objects of each class are not usable."""
    names: dict[str, list[str]] = {}
    for name in unusable:
        names.setdefault(labels.classes[name], []).append(name)
    return {label: reject_reasons(quality, of_class) for label, of_class in names.items()}


def check_any(used: int, rejected: Mapping[str, Counter[str]]) -> None:
    """Refuse a split of which all objects are rejected.

    Raises
    ------
    ConfigError
        With the commonest reasons.
    """
    reasons = sum(rejected.values(), Counter())
    if not used and reasons:
        raise ConfigError(
            f"none of {reasons.total()} labelled objects can be used ({_told(reasons)}). Correct "
            f"{CORRECT}"
        )


def _warn(labels: Labels, places: Mapping[str, Any], task: Question) -> None:
    if labels.conflicting:
        logger.warning(
            "%d objects are labelled with two classes and left out: %s",
            len(labels.conflicting),
            first_few(labels.conflicting),
        )
    warning = check_found(labels.classes, places, task)
    if warning:
        logger.warning("%s", warning)


def run(
    labels: Sequence[Path | str],
    quality: Sequence[Path | str],
    split: Path | str,
    settings: dict[str, Any],
    objects: Sequence[Path | str] = (),
) -> None:
    """Write the labelled, usable objects of a task with their folds.

    Parameters
    ----------
    labels
        Label tables.
    quality
        quality/{shard}.parquet, in the order of `settings["shards"]`.
    split
        Written: splits/{task}.parquet; its schema metadata (JSON) tell `counts` (what was used
        and what was left out), `members` (objects of each class in each fold) and `conflicting`
        (the first objects with two classes).
    settings
        `task` (dump of config.Question), `shards` (names), `seed`.
    objects
        objects/{shard}.parquet, where `training.group_radius` is not 0.

    Raises
    ------
    ConfigError
        If the labels, the survey and the settings do not fit together.
    """
    task, seed = Question.model_validate(settings["task"]), settings["seed"]
    found = read_labels(labels, task)
    places = read_rows(quality, settings["shards"])
    _warn(found, places, task)
    table, keys = _placed(found, places, task.training, seed)
    counts = dict(found.counts)
    counts["absent"] = sum(name not in places for name in found.classes)
    counts["not_usable"] = len(found.classes) - counts["absent"] - len(table)
    if (radius := task.training.group_radius) > 0:
        groups = near_duplicates(table["object_id"].to_pylist(), objects, radius)
        table, left_out = _without_straddlers(table, keys, groups, seed)
        counts |= left_out
    counts["used"] = len(table)
    per_fold = members(table["label"].to_pylist(), table["fold"].to_numpy(), task)
    logger.info("labels: %s; in folds: %s", counts, per_fold)
    if any(not count for counts in per_fold.values() for count in counts.values()):
        unusable = [name for name in found.classes if places.get(name, ("", 0))[1] < 0]
        rejected = _rejected(found, unusable, quality)
        check_any(len(table), rejected)
        check_members(per_fold, task, rejected)
    conflicting = found.conflicting[:FEW]
    told = {"counts": counts, "members": per_fold, "conflicting": conflicting}
    metadata = {key: json.dumps(value, sort_keys=True) for key, value in told.items()}
    write_parquet(table.replace_schema_metadata(metadata), split)
