"""Writing the catalog, shard by shard, and the list of what was rejected."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luneta.catalog import schema
from luneta.catalog.provenance import provenance
from luneta.files import atomic_path, read_json
from luneta.survey.flags import DESCRIPTIONS, Flag

log = logging.getLogger(__name__)

ROW_GROUP = 100_000
REJECTS = pa.schema(
    [
        pa.field("kind", pa.string(), metadata={"description": "object or file"}),
        pa.field("name", pa.string(), metadata={"description": "object_id, or path of the file"}),
        pa.field("tile", pa.string()),
        pa.field("band", pa.string()),
        pa.field("reason", pa.string()),
    ]
)


# astropy reads a null as the string "None", whose place must suffice.
NULL_LENGTH = len("None")


class CatalogError(ValueError):
    """Files of a shard that do not belong together."""


def _shared_unit(fields: list[pa.Field]) -> dict[str, str] | None:
    found = {(field.metadata or {}).get(b"unit", b"").decode() for field in fields}
    if len(found) > 1:
        raise CatalogError(
            f"the column {fields[0].name!r} has the units {sorted(found)} in different shards; "
            "give every source list the same unit"
        )
    return {"unit": found.pop()} if found != {""} else None


def unified_schema(paths: Sequence[Path | str]) -> pa.Schema:
    """Find the schema that holds the columns of all files, wide enough for each.

    Raises
    ------
    CatalogError
        If a column has different units in two files.
    """
    schemas = [pq.read_schema(path).remove_metadata() for path in paths]
    wide = pa.unify_schemas(schemas, promote_options="permissive")
    holders = {
        name: [found.field(name) for found in schemas if name in found.names] for name in wide.names
    }
    return pa.schema([field.with_metadata(_shared_unit(holders[field.name])) for field in wide])


def _hashes(path: Path | str) -> np.ndarray:
    ids = pq.read_table(path, columns=["object_id"])["object_id"].to_numpy()
    return pd.util.hash_array(np.asarray(ids, dtype=object), categorize=False)


def repeated_hashes(paths: Sequence[Path | str]) -> np.ndarray:
    """Find hashes of object_ids that occur more than once; eight bytes of memory an object.

    Returns
    -------
    numpy.ndarray
        Sorted, uint64. Two ids may share a hash, so look at the ids themselves next.
    """
    values = np.sort(np.concatenate([_hashes(path) for path in paths]))
    return np.unique(values[1:][values[1:] == values[:-1]])


class Repeats:
    """Tell, shard after shard, which rows bear an object_id that came before."""

    def __init__(self, paths: Sequence[Path | str]):
        self._suspects = repeated_hashes(paths)
        self._seen: set[str] = set()

    def of(self, ids: pa.ChunkedArray) -> np.ndarray:
        """Mark the rows of the next shard; shape (objects,), bool."""
        values = np.asarray(ids.to_numpy(), dtype=object)
        again = np.zeros(len(values), bool)
        hashes = pd.util.hash_array(values, categorize=False)
        for row in np.flatnonzero(np.isin(hashes, self._suspects)):
            again[row] = values[row] is not None and values[row] in self._seen
            self._seen.add(values[row])
        return again


def check_rows(expected: pa.ChunkedArray, found: pa.ChunkedArray, what: str, shard: str) -> None:
    """Insist that two files of a shard list the same objects in the same order.

    Raises
    ------
    CatalogError
        Naming the first row that differs.
    """
    if len(expected) != len(found):
        raise CatalogError(
            f"shard {shard}: objects has {len(expected)} rows and {what} has {len(found)}; "
            f"remove {what} of this shard and run again"
        )
    ours, theirs = expected.to_numpy(), found.to_numpy()
    differs = np.flatnonzero(ours != theirs)
    if len(differs):
        row = differs[0]
        raise CatalogError(
            f"shard {shard}: row {row} is {ours[row]!r} in objects and {theirs[row]!r} in {what}; "
            f"remove {what} of this shard and run again"
        )


def _mark_repeats(table: pa.Table, repeats: Repeats) -> tuple[pa.Table, np.ndarray]:
    """Flag and reject later rows of an object_id; also say which rows are usable."""
    again = repeats.of(table["object_id"])
    flags = table["flags"].to_numpy() | np.where(again, Flag.DUPLICATE_ID.value, 0)
    reason = pa.scalar(DESCRIPTIONS[Flag.DUPLICATE_ID])
    given = table["reject_reason"].combine_chunks().cast(pa.string())
    reasons = pc.if_else(pc.and_(pa.array(again), pc.is_null(given)), reason, given)
    table = _put(table, "flags", pa.array(flags.astype(np.int32)))
    table = _put(table, "reject_reason", reasons)
    return table, table["usable"].to_numpy() & ~again


def _put(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), name, values)


def _joined(objects: Path | str, quality: Path | str, shard: str) -> pa.Table:
    """Put an objects file and its quality file side by side; flags are those of quality."""
    left, right = pq.read_table(objects), pq.read_table(quality)
    check_rows(left["object_id"], right["object_id"], "quality", shard)
    left = left.drop_columns(
        [name for name in ("flags", "reject_reason") if name in left.schema.names]
    )
    for name in right.schema.names:
        if name != "object_id":
            left = left.append_column(name, right[name])
    return left


def _add_predictions(table: pa.Table, path: Path | str, usable: np.ndarray, shard: str):
    """Append a task's predictions, without those of rows that are not usable."""
    found = pq.read_table(path)
    check_rows(table["object_id"], found["object_id"], f"predictions ({path})", shard)
    keep = pa.array(usable)
    for name in found.schema.names:
        if name != "object_id":
            values = found[name].combine_chunks()
            table = table.append_column(
                name, pc.if_else(keep, values, pa.scalar(None, values.type))
            )
    return table


def _cast(table: pa.Table, wanted: pa.Schema) -> pa.Table:
    """Bring columns into the order and types of the catalog; a missing one is null."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(len(table), field.type)
        for field in wanted
    ]
    return pa.table(columns, schema=wanted)


def with_lengths(
    columns: Sequence[schema.Column], paths: Sequence[Path | str]
) -> list[schema.Column]:
    """Measure the longest string of each string column.

    Parameters
    ----------
    columns : sequence of schema.Column
        Of the catalog.
    paths : sequence of path
        All files that hold any of them.
    """
    names = [column.name for column in columns if pa.types.is_string(column.type)]
    longest = dict.fromkeys(names, NULL_LENGTH)
    longest["reject_reason"] = len(DESCRIPTIONS[Flag.DUPLICATE_ID])
    for path in paths:
        here = [name for name in names if name in pq.read_schema(path).names]
        table = pq.read_table(path, columns=here)
        for name in here:
            length = pc.max(pc.utf8_length(table[name].cast(pa.string()))).as_py() or 0
            longest[name] = max(longest[name], length)
    return [replace(column, length=longest.get(column.name)) for column in columns]


def _rejects(table: pa.Table, usable: np.ndarray, files: Path | str) -> pa.Table:
    bad = table.filter(pa.array(~usable))
    objects = pa.table(
        [
            pa.repeat("object", len(bad)).cast(pa.string()),
            bad["object_id"].cast(pa.string()),
            bad["tile"].cast(pa.string()),
            pa.nulls(len(bad), pa.string()),
            bad["reject_reason"].cast(pa.string()),
        ],
        schema=REJECTS,
    )
    rows = [
        {"kind": "file", "name": entry["path"]} | {k: entry[k] for k in ("tile", "band", "reason")}
        for entry in read_json(files)
    ]
    return pa.concat_tables([objects, pa.Table.from_pylist(rows, schema=REJECTS)])


def _shards(
    objects: Sequence, quality: Sequence, files: Sequence, predictions: Mapping[str, Sequence]
) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Give the catalog rows and the rejects of each shard."""
    repeats = Repeats(objects)
    for number, paths in enumerate(zip(objects, quality, files, strict=True)):
        shard = Path(paths[0]).stem
        table, usable = _mark_repeats(_joined(paths[0], paths[1], shard), repeats)
        rejects = _rejects(table, usable, paths[2])
        for of_shard in predictions.values():
            if of_shard[number] is not None:
                table = _add_predictions(table, of_shard[number], usable, shard)
        log.info("shard %s: %d objects, %d usable", shard, len(table), usable.sum())
        yield table, rejects


def run(
    objects: Sequence[Path | str],
    quality: Sequence[Path | str],
    files: Sequence[Path | str],
    predictions: Mapping[str, Sequence[Path | str | None]],
    metrics: Mapping[str, Path | str],
    outputs: Mapping[str, Path | str],
    settings: Mapping,
) -> None:
    """Write the catalog and its rejects; one shard is in memory at a time.

    An object_id that came in an earlier shard is flagged as a duplicate and loses its
    predictions. Columns of unusable objects' predictions are null.

    Parameters
    ----------
    objects, quality, files : sequence of path
        `objects/{shard}.parquet`, `quality/{shard}.parquet`, `quality/{shard}_files.json`, in
        one order of shards.
    predictions : mapping
        By task, `predictions/{task}/{shard}.parquet` in that order; None where a shard has none.
    metrics : mapping
        By task, `metrics/{task}.json`.
    outputs : mapping
        `catalog` and `rejects`.
    settings : mapping
        `survey`, `config` (whole), `tasks` (name: kind and classes, of `predictions`), `bands`,
        `keep`.
    """
    tasks = {name: settings["tasks"][name] for name in predictions}
    columns = schema.catalog_columns(
        unified_schema(objects), unified_schema(quality), {**settings, "tasks": tasks}
    )
    data = {"objects": objects, "quality": quality}
    data |= {f"predictions.{t}": [p for p in ps if p] for t, ps in predictions.items()}
    facts = provenance(settings["config"], data, metrics)
    columns = with_lengths(columns, [path for paths in data.values() for path in paths])
    wanted = schema.arrow_schema(settings["survey"], columns, facts)
    with (
        atomic_path(outputs["catalog"]) as catalog,
        atomic_path(outputs["rejects"]) as rejected,
        pq.ParquetWriter(catalog, wanted, compression="zstd") as rows,
        pq.ParquetWriter(rejected, REJECTS, compression="zstd") as rejects,
    ):
        for table, bad in _shards(objects, quality, files, predictions):
            rows.write_table(_cast(table, wanted), row_group_size=ROW_GROUP)
            rejects.write_table(bad)
