"""The rows of a shard, joined from its files: of the catalog, of its rejects, of its overlaps."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from luneta.catalog.placements import Placements
from luneta.files import read_json
from luneta.parquet import parquet_schema, read_parquet
from luneta.survey.flags import DESCRIPTIONS, UNUSABLE, Flag

log = logging.getLogger(__name__)


def _described(name: str, kind: pa.DataType, description: str, unit: str = "") -> pa.Field:
    about = {"description": description} | ({"unit": unit} if unit else {})
    return pa.field(name, kind, metadata=about)


REJECTS = pa.schema(
    [
        _described("kind", pa.string(), "object or file"),
        _described("name", pa.string(), "object_id, or path of the file"),
        _described("tile", pa.string(), "tile that the object or the file belongs to"),
        _described("band", pa.string(), "band of the file; null for objects"),
        _described("flag", pa.string(), "names of the flags that reject it, joined by |"),
        _described("reason", pa.string(), "what is wrong, in plain words"),
    ]
)
OVERLAPS = pa.schema(
    [
        _described("object_id", pa.string(), "name of the object"),
        _described("ra", pa.float64(), "right ascension, ICRS", "deg"),
        _described("dec", pa.float64(), "declination, ICRS", "deg"),
        _described("tile", pa.string(), "tile of the placement that is not used"),
        _described("shard", pa.string(), "shard of that placement"),
        _described("masked_fraction", pa.float32(), "fraction of the cutout's pixels masked"),
        _described("edge_distance", pa.float32(), "distance to the nearest image edge", "pix"),
        _described("flags", pa.int32(), "flags of the placement, OVERLAP among them"),
        _described("chosen_tile", pa.string(), "tile of the placement that is in the catalog"),
        _described("chosen_object_id", pa.string(), "its name, which may differ if detected"),
    ]
)


class CatalogError(ValueError):
    """Files of a shard that do not belong together."""


def _shared_metadata(fields: list[pa.Field]) -> dict[bytes, bytes] | None:
    """Find the metadata of a column; the first file that describes it has its say."""
    found = {(field.metadata or {}).get(b"unit", b"").decode() for field in fields}
    if len(found) > 1:
        raise CatalogError(
            f"the column {fields[0].name!r} has the units {sorted(found)} in different shards; "
            "give every source list the same unit"
        )
    about = {}
    for field in reversed(fields):
        about |= {key: value for key, value in (field.metadata or {}).items() if value}
    return {key: about[key] for key in (b"unit", b"ucd", b"description") if key in about} or None


def unified_schema(paths: Sequence[Path | str]) -> pa.Schema:
    """Find the schema that holds the columns of all files, wide enough for each.

    A column that is empty in all of them is of numbers.

    Raises
    ------
    CatalogError
        If a column has different units in two files.
    """
    schemas = [parquet_schema(path).remove_metadata() for path in paths]
    wide = pa.unify_schemas(schemas, promote_options="permissive")
    holders = {
        name: [found.field(name) for found in schemas if name in found.names] for name in wide.names
    }
    fields = [field.with_metadata(_shared_metadata(holders[field.name])) for field in wide]
    return pa.schema([f.with_type(pa.float64()) if pa.types.is_null(f.type) else f for f in fields])


def check_rows(
    expected: pa.ChunkedArray, found: pa.ChunkedArray, path: Path | str, shard: str
) -> None:
    """Insist that a file lists the same objects of a shard in the same order.

    Parameters
    ----------
    expected, found
        Names of the objects, in the shard's objects file and in the other.
    path
        Of the other file.
    shard
        Its name.

    Raises
    ------
    CatalogError
        Naming the first row that differs.
    """
    fix = f"remove {path} and run again"
    if len(expected) != len(found):
        raise CatalogError(
            f"shard {shard}: objects has {len(expected)} rows and {path} has {len(found)} of it; "
            f"{fix}"
        )
    ours, theirs = expected.to_numpy(), found.to_numpy()
    differs = np.flatnonzero(ours != theirs)
    if len(differs):
        row = differs[0]
        raise CatalogError(
            f"shard {shard}: row {row} is {ours[row]!r} in objects and {theirs[row]!r} in {path}; "
            f"{fix}"
        )


def _mark_repeats(table: pa.Table, again: np.ndarray, policy: str) -> pa.Table:
    """Flag and reject rows, shape (objects,), whose object_id an earlier object bears.

    Raises
    ------
    CatalogError
        If there is one, and the policy is `fail`.
    """
    if policy == "fail" and again.any():
        raise CatalogError(
            f"{again.sum()} objects bear the object_id of an earlier one, first "
            f"{table['object_id'][int(again.argmax())].as_py()}. The config says "
            "quality.duplicate_id: fail; fix the source list, or set it to flag or skip"
        )
    flags = table["flags"].to_numpy() | np.where(again, Flag.DUPLICATE_ID.value, 0)
    told = " (skipped by config)" if policy == "skip" else ""
    reason = pa.scalar(DESCRIPTIONS[Flag.DUPLICATE_ID] + told)
    given = table["reject_reason"].combine_chunks().cast(pa.string())
    reasons = pc.if_else(pc.and_(pa.array(again), pc.is_null(given)), reason, given)
    table = _put(table, "flags", pa.array(flags.astype(np.int32)))
    table = _put(table, "reject_reason", reasons)
    if policy == "skip":
        table = _put(table, "skipped", pa.array(table["skipped"].to_numpy() | again))
    return _put(table, "usable", pa.array(table["usable"].to_numpy() & ~again))


def _put(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def _joined(objects: Path | str, quality: Path | str, shard: str) -> pa.Table:
    """Put an objects file and its quality file side by side; flags are those of quality."""
    left, right = read_parquet(objects), read_parquet(quality)
    check_rows(left["object_id"], right["object_id"], quality, shard)
    left = left.drop_columns(
        [name for name in ("flags", "reject_reason") if name in left.schema.names]
    )
    for name in right.schema.names:
        if name != "object_id":
            left = left.append_column(name, right[name])
    return left


def _add_predictions(table: pa.Table, path: Path | str, shard: str) -> pa.Table:
    """Append a task's predictions, without those of rows that are not usable."""
    return _add_columns(table, read_parquet(path), path, shard)


def _add_clusters(table: pa.Table, path: Path | str, shard: str) -> pa.Table:
    """Append a shard's part of a task's clusters, likewise."""
    found = read_parquet(path, filters=pc.field("shard") == shard).drop_columns(["shard"])
    return _add_columns(table, found, path, shard)


def _add_columns(table: pa.Table, found: pa.Table, path: Path | str, shard: str) -> pa.Table:
    check_rows(table["object_id"], found["object_id"], path, shard)
    keep = table["usable"].combine_chunks()
    for name in found.schema.names:
        if name != "object_id":
            values = found[name].combine_chunks()
            table = table.append_column(
                name, pc.if_else(keep, values, pa.scalar(None, values.type))
            )
    return table


def cast(table: pa.Table, wanted: pa.Schema, decided: Collection[str] = ()) -> pa.Table:
    """Bring columns into the order and types of the catalog; a missing one is null.

    Parameters
    ----------
    decided : collection of str
        Booleans of luneta's own that are false where nothing is known. What a source list leaves
        undefined stays null.
    """

    def column(field: pa.Field) -> pa.Array | pa.ChunkedArray:
        if field.name not in table.schema.names:
            found = pa.nulls(len(table), field.type)
        else:
            found = table[field.name].cast(field.type)
        return pc.fill_null(found, False) if field.name in decided else found

    return pa.table([column(field) for field in wanted], schema=wanted)


def flag_names(flags: np.ndarray) -> list[str]:
    """Write bit masks as names joined by `|`, in order of the bits."""
    text = {
        value: "|".join(flag.name.lower() for flag in Flag if flag & value)
        for value in np.unique(flags).tolist()
    }
    return [text[value] for value in flags.tolist()]


def _rejecting(flags: np.ndarray, policies: Mapping[str, str]) -> np.ndarray:
    """Keep those flags that make an object unusable, by themselves or by the config."""
    skipped = sum(Flag[name.upper()].value for name, p in policies.items() if p == "skip")
    found = flags & (UNUSABLE.value | skipped)
    return np.where(found == 0, flags, found)


def _rejected_objects(table: pa.Table, policies: Mapping[str, str]) -> pa.Table:
    bad = table.filter(pc.invert(table["usable"]))
    columns = {
        "kind": pa.repeat("object", len(bad)),
        "name": bad["object_id"],
        "tile": bad["tile"],
        "band": pa.nulls(len(bad), pa.string()),
        "flag": pa.array(flag_names(_rejecting(bad["flags"].to_numpy(), policies)), pa.string()),
        "reason": bad["reject_reason"],
    }
    return pa.table([columns[field.name].cast(field.type) for field in REJECTS], schema=REJECTS)


def _rejected_files(path: Path | str) -> pa.Table:
    rows = [
        {"kind": "file", "name": entry["path"]}
        | {key: entry.get(key) for key in ("tile", "band", "flag", "reason")}
        for entry in read_json(path)
    ]
    return pa.Table.from_pylist(rows, schema=REJECTS)


def _overlaps(table: pa.Table, lost: pd.DataFrame, shard: str) -> pa.Table:
    """List the placements of a shard that are not used, and where the used one is."""
    rows = table.take(pa.array(lost["row"].to_numpy(np.int64)))
    columns = {name: rows[name] for name in OVERLAPS.names if name in rows.column_names}
    columns |= {
        "shard": pa.repeat(shard, len(rows)),
        "flags": pa.array(rows["flags"].to_numpy() | Flag.OVERLAP.value),
        **{n: pa.array(lost[n], pa.string()) for n in ("chosen_tile", "chosen_object_id")},
    }
    return cast(pa.table(columns), OVERLAPS)


@dataclass(frozen=True)
class Shard:
    """The files of a shard, and what becomes of its rows.

    Attributes
    ----------
    name : str
        Name of the shard.
    objects, quality, files : path
        `objects/{shard}.parquet`, `quality/{shard}.parquet`, `quality/{shard}_files.json`.
    predictions : mapping
        By task, `predictions/{task}/{shard}.parquet`; of those that there are.
    clusters : sequence of path
        `clusters/{task}.parquet`, which hold all shards.
    lost : pandas.DataFrame
        Rows that are not used, as another placement is better; see `Placements.overlaps`.
    again : numpy.ndarray
        Rows whose name came before, int64.
    policies : mapping
        The section `quality` of the config.
    """

    name: str
    objects: Path | str
    quality: Path | str
    files: Path | str
    predictions: Mapping[str, Path | str]
    clusters: Sequence[Path | str]
    lost: pd.DataFrame
    again: np.ndarray
    policies: Mapping[str, str]

    @property
    def skips_repeats(self) -> bool:
        """Whether rows whose name came before are left out of the catalog."""
        return self.policies.get("duplicate_id", "flag") == "skip"


def shards_of(
    paths: Mapping[str, Sequence],
    predictions: Mapping[str, Sequence],
    placements: Placements,
    policies: Mapping[str, str],
) -> list[Shard]:
    """Put together what belongs to each shard.

    Parameters
    ----------
    paths : mapping
        `objects`, `quality` and `files`, in one order of shards, and `clusters`.
    predictions : mapping
        By task, files in that order; None where a shard has none.
    placements : Placements
        Of these shards.
    policies : mapping
        The section `quality` of the config.
    """
    found = []
    for number, of_shard in enumerate(
        zip(paths["objects"], paths["quality"], paths["files"], strict=True)
    ):
        of_tasks = {task: files[number] for task, files in predictions.items()}
        found.append(
            Shard(
                Path(of_shard[0]).stem,
                *of_shard,
                {task: path for task, path in of_tasks.items() if path is not None},
                paths["clusters"],
                placements.overlaps_of(number),
                placements.repeats_of(number),
                policies,
            )
        )
    return found


def kept_rows(shard: Shard) -> np.ndarray:
    """Tell which rows of a shard are in the catalog, shape (objects,), bool."""
    skipped = "skipped" in parquet_schema(shard.quality).names
    columns = ["object_id", "skipped"] if skipped else ["object_id"]
    table = read_parquet(shard.quality, columns=columns)
    kept = ~chosen(len(table), shard.lost["row"].to_numpy(np.int64))
    if skipped:
        kept &= ~table["skipped"].to_numpy()
    if shard.skips_repeats:
        kept &= ~chosen(len(table), shard.again)
    return kept


def joined(shard: Shard) -> pa.Table:
    """Read the objects of a shard with their quality, without what networks say of them."""
    table = _joined(shard.objects, shard.quality, shard.name)
    again = chosen(len(table), shard.again)
    return _mark_repeats(table, again, shard.policies.get("duplicate_id", "flag"))


def complete(shard: Shard, table: pa.Table) -> pa.Table:
    """Add predictions and clusters to the joined rows of a shard."""
    for path in shard.predictions.values():
        table = _add_predictions(table, path, shard.name)
    for path in shard.clusters:
        table = _add_clusters(table, path, shard.name)
    return table


def rejects_and_overlaps(shard: Shard, table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """List what the catalog leaves out of a shard, or cannot use, given its joined rows."""
    overlaps = _overlaps(table, shard.lost, shard.name)
    lost = chosen(len(table), shard.lost["row"].to_numpy(np.int64))
    left = table.filter(pa.array(~lost))
    files = _rejected_files(shard.files)
    rejects = pa.concat_tables([_rejected_objects(left, shard.policies), files])
    usable = pc.sum(left["usable"]).as_py() or 0
    counts = len(left), usable, len(overlaps)
    log.info("shard %s: %d objects, %d usable; %d better in another tile", shard.name, *counts)
    return rejects, overlaps


def chosen(count: int, rows: np.ndarray) -> np.ndarray:
    """Rows as a mask, shape (count,), bool."""
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask
