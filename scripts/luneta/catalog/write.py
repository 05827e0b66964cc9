"""Writing the catalog, shard by shard, and the list of what was rejected."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luneta.catalog import schema
from luneta.catalog.placements import Placements, find_placements
from luneta.catalog.provenance import provenance
from luneta.files import atomic_path, read_json
from luneta.survey.flags import DESCRIPTIONS, UNUSABLE, Flag

log = logging.getLogger(__name__)

ROW_GROUP = 100_000


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
    mend = f"remove {path} and run again"
    if len(expected) != len(found):
        raise CatalogError(
            f"shard {shard}: objects has {len(expected)} rows and {path} has {len(found)} of it; "
            f"{mend}"
        )
    ours, theirs = expected.to_numpy(), found.to_numpy()
    differs = np.flatnonzero(ours != theirs)
    if len(differs):
        row = differs[0]
        raise CatalogError(
            f"shard {shard}: row {row} is {ours[row]!r} in objects and {theirs[row]!r} in {path}; "
            f"{mend}"
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
            "quality.duplicate_id: fail; mend the source list, or set it to flag or skip"
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
    left, right = pq.read_table(objects), pq.read_table(quality)
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
    return _add_columns(table, pq.read_table(path), path, shard)


def _add_clusters(table: pa.Table, path: Path | str, shard: str) -> pa.Table:
    """Append a shard's part of a task's clusters, likewise."""
    found = pq.read_table(path, filters=pc.field("shard") == shard).drop_columns(["shard"])
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


def _cast(table: pa.Table, wanted: pa.Schema) -> pa.Table:
    """Bring columns into the order and types of the catalog; a missing one is null.

    Among booleans a null becomes false: astropy's reader fails on it, and `~` in pandas too.
    """

    def column(field: pa.Field) -> pa.Array | pa.ChunkedArray:
        if field.name not in table.schema.names:
            found = pa.nulls(len(table), field.type)
        else:
            found = table[field.name].cast(field.type)
        return pc.fill_null(found, False) if pa.types.is_boolean(field.type) else found

    return pa.table([column(field) for field in wanted], schema=wanted)


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
    return _cast(pa.table(columns), OVERLAPS)


@dataclass(frozen=True)
class Shard:
    """The files of a shard, and of the survey's clusters, which hold its objects too."""

    number: int
    objects: Path | str
    quality: Path | str
    files: Path | str
    predictions: Sequence[Path | str]
    clusters: Sequence[Path | str]

    @property
    def name(self) -> str:
        """Name of the shard."""
        return Path(self.objects).stem


def _files_of_shards(
    paths: Mapping[str, Sequence], predictions: Mapping[str, Sequence]
) -> Iterator[Shard]:
    files = zip(paths["objects"], paths["quality"], paths["files"], strict=True)
    for number, of_shard in enumerate(files):
        of_tasks = [found[number] for found in predictions.values() if found[number] is not None]
        yield Shard(number, *of_shard, of_tasks, paths["clusters"])


def _tables(shard: Shard, placements: Placements, policies: Mapping[str, str]) -> dict:
    """Give the rows of catalog, rejects and overlaps of a shard."""
    table = _joined(shard.objects, shard.quality, shard.name)
    again = _chosen(len(table), placements.repeats_of(shard.number))
    table = _mark_repeats(table, again, policies.get("duplicate_id", "flag"))
    for path in shard.predictions:
        table = _add_predictions(table, path, shard.name)
    for path in shard.clusters:
        table = _add_clusters(table, path, shard.name)
    lost = placements.overlaps_of(shard.number)
    overlaps = _overlaps(table, lost, shard.name)
    table = table.filter(pa.array(~_chosen(len(table), lost["row"].to_numpy(np.int64))))
    rejects = pa.concat_tables([_rejected_objects(table, policies), _rejected_files(shard.files)])
    if "skipped" in table.column_names:
        table = table.filter(pc.invert(table["skipped"]))
    counts = len(table), pc.sum(table["usable"]).as_py() or 0, len(overlaps)
    log.info("shard %s: %d objects, %d usable; %d better in another tile", shard.name, *counts)
    return {"catalog": table, "rejects": rejects, "overlaps": overlaps}


def _chosen(count: int, rows: np.ndarray) -> np.ndarray:
    """Rows as a mask, shape (count,), bool."""
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def run(
    objects: Sequence[Path | str],
    quality: Sequence[Path | str],
    files: Sequence[Path | str],
    predictions: Mapping[str, Sequence[Path | str | None]],
    clusters: Mapping[str, Path | str],
    metrics: Mapping[str, Path | str],
    outputs: Mapping[str, Path | str],
    settings: Mapping,
) -> None:
    """Write the catalog, its rejects and its overlaps; one shard is in memory at a time.

    An object that several tiles show is in the catalog once, with its best placement. An object_id
    that an earlier object bears is flagged as a duplicate and loses its predictions. Objects that
    the config skips are only among the rejects.

    Parameters
    ----------
    objects, quality, files : sequence of path
        `objects/{shard}.parquet`, `quality/{shard}.parquet`, `quality/{shard}_files.json`, in
        one order of shards.
    predictions : mapping
        By task, `predictions/{task}/{shard}.parquet` in that order; None where a shard has none.
    clusters : mapping
        By task, `clusters/{task}.parquet`; only of tasks that are clustered.
    metrics : mapping
        By task, `metrics/{task}.json`.
    outputs : mapping
        `catalog`, `rejects` and `overlaps`.
    settings : mapping
        `survey`, `config` (whole), `tasks` (name: kind and classes, of `predictions`), `bands`,
        `keep`, `overlap_radius` (arcsec, None for stamps), `detected`.
    """
    tasks = {name: settings["tasks"][name] for name in predictions}
    columns = schema.catalog_columns(
        unified_schema(objects),
        unified_schema(quality),
        {**settings, "tasks": tasks, "clustered": list(clusters)},
    )
    data = {"objects": objects, "quality": quality}
    data |= {f"predictions.{t}": [p for p in ps if p] for t, ps in predictions.items()}
    data |= {f"clusters.{task}": [path] for task, path in clusters.items()}
    facts = provenance(settings["config"], data, metrics)
    columns = with_lengths(columns, [path for paths in data.values() for path in paths])
    schemas = {
        "catalog": schema.arrow_schema(settings["survey"], columns, facts),
        "rejects": REJECTS,
        "overlaps": OVERLAPS,
    }
    paths = {"objects": objects, "quality": quality, "files": files}
    paths["clusters"] = list(clusters.values())
    placements = find_placements(objects, quality, settings)
    policies = settings["config"].get("quality", {})
    with ExitStack() as stack:
        temporary = {n: stack.enter_context(atomic_path(outputs[n])) for n in schemas}
        writers = {
            name: stack.enter_context(pq.ParquetWriter(temporary[name], wanted, compression="zstd"))
            for name, wanted in schemas.items()
        }
        for shard in _files_of_shards(paths, predictions):
            tables = _tables(shard, placements, policies)
            for name, writer in writers.items():
                rows = _cast(tables[name], schemas[name])
                writer.write_table(rows, row_group_size=ROW_GROUP)
