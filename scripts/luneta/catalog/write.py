"""Writing the catalog as a HATS collection, with the lists of what it leaves out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from luneta.catalog import hats_files, index, schema
from luneta.catalog.collection import SORT, Collection, Job, default_columns, leaves_of
from luneta.catalog.layout import Layout, Seen, look
from luneta.catalog.leaves import (
    MANIFEST,
    Leaf,
    Spill,
    is_whole,
    read_manifest,
    remove_catalogs,
    remove_others,
    small_files,
    sorted_by,
    split_rows,
    write_leaf,
)
from luneta.catalog.partition import NOWHERE, healpix_of, margin_rows
from luneta.catalog.placements import find_placements
from luneta.catalog.provenance import provenance
from luneta.catalog.rows import (
    OVERLAPS,
    REJECTS,
    CatalogError,
    Shard,
    cast,
    complete,
    joined,
    kept_rows,
    rejects_and_overlaps,
    shards_of,
    unified_schema,
)
from luneta.digests import digest
from luneta.files import write_json
from luneta.inference.predictions import check_schema
from luneta.parquet import parquet_writer

__all__ = ["CatalogError", "run"]

log = logging.getLogger(__name__)

ROWS, INDEX, WITHOUT = "rows", "index", "without_position"


def _job(folder: Path, columns: list[schema.Column], settings: Mapping, facts: Mapping) -> Job:
    return Job(
        folder,
        settings["survey"],
        columns,
        default_columns(columns, settings),
        settings["epoch"],
        settings["catalog"],
        facts,
    )


def run(
    objects: Sequence[Path | str],
    quality: Sequence[Path | str],
    files: Sequence[Path | str],
    predictions: Mapping[str, Sequence[Path | str | None]],
    clusters: Mapping[str, Path | str],
    metrics: Mapping[str, Path | str],
    outputs: Mapping[str, Path | str],
    settings: Mapping,
    threads: int = 1,
) -> None:
    """Write the catalog, its rejects and its overlaps; files that do not change are left alone.

    An object that several tiles show is in the catalog once, with its best placement. An object_id
    that an earlier object bears is flagged as a duplicate and loses its predictions. Objects that
    the config skips are only among the rejects. For each thread, one shard or one partition is in
    memory at a time.

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
        `collection` (`collection.properties`), `rejects`, `overlaps` and `without_position`.
    settings : mapping
        `survey`, `config` (whole), `tasks` (name: kind and classes, of `predictions`), `bands`,
        `keep`, `overlap_radius` (arcsec, None for stamps), `detected`, `epoch` (of the positions,
        or None), `catalog` (the section of the config, and `code`, a digest of this program).
    threads : int
        Shards, or partitions, that are worked on at once.
    """
    data = {"objects": objects, "quality": quality}
    data |= {f"predictions.{t}": [p for p in ps if p] for t, ps in predictions.items()}
    data |= {f"clusters.{task}": [path] for task, path in clusters.items()}
    shapes = {task: settings["tasks"][task] for task in predictions}
    columns = schema.catalog_columns(
        unified_schema(objects),
        unified_schema(quality),
        {**settings, "tasks": shapes, "clustered": list(clusters)},
    )
    facts = provenance(settings["config"], data, metrics)
    job = _job(Path(outputs["collection"]).parent, columns, settings, facts)
    for task, found in predictions.items():
        for path in filter(None, found):
            check_schema(path, task, settings["tasks"][task]["classes"])
    placements = find_placements(objects, quality, settings)
    paths = {"objects": objects, "quality": quality, "files": files}
    paths["clusters"] = list(clusters.values())
    policies = settings["config"].get("quality", {})
    shards = shards_of(paths, predictions, placements, policies)
    with ThreadPoolExecutor(threads) as pool:
        seen = list(pool.map(lambda shard: look(shard, job.settings), shards))
        layout = Layout(job.survey, seen, job.settings, job.common)
        leaves = _write_leaves(job, layout, shards, seen, outputs, pool)
    remove_catalogs(job.folder, layout.catalogs)
    removed = remove_others(job.folder, layout.catalogs, leaves_of(leaves))
    if removed:
        log.info("%d files removed, whose partitions are no more", len(removed))
    _tell(job, layout, leaves, seen)


def _tell(job: Job, layout: Layout, leaves: Mapping, seen: Sequence[Seen]) -> None:
    """Write what tells of the whole catalog: the file that names all others is the last."""
    cells, counts = (np.concatenate([getattr(s, n) for s in seen]) for n in ("cells", "counts"))
    properties = Collection(job, layout, leaves).write_catalogs(cells, counts)
    small = small_files(job.folder, layout.catalogs)
    manifest = {"catalogs": layout.catalogs, "leaves": leaves, "small": small}
    write_json(job.folder / MANIFEST, manifest)
    held = digest([leaves, [one.digest for one in seen if one.without]])
    hats_files.write_collection(job.folder, {**properties, "luneta.content_sha256": held})
    rows = sum(about["rows"] for about in leaves_of(leaves, layout.primary).values())
    log.info("%d objects in %d partitions", rows, len(layout.partitions))


def _is_current(folder: Path, leaf: Leaf, known: Mapping | None) -> bool:
    """Whether a leaf is there as it would be written now."""
    if known is None or known["made_of"] != leaf.made_of:
        return False
    path = folder / leaf.path
    if not known["rows"]:
        return not path.exists()
    whole = is_whole(path, known)
    if not whole:
        log.warning("%s is missing or not as it was written: it is made again", path)
    return whole


def _write_leaves(
    job: Job,
    layout: Layout,
    shards: Sequence[Shard],
    seen: Sequence[Seen],
    outputs: Mapping,
    pool: ThreadPoolExecutor,
) -> dict[str, dict]:
    """Write the leaves that have changed, and the lists beside; give the new manifest's leaves."""
    known = read_manifest(job.folder)
    current = pool.map(
        lambda leaf: _is_current(job.folder, leaf, known.get(leaf.path)), layout.leaves.values()
    )
    stay = {path for path, stays in zip(layout.leaves, current, strict=True) if stays}
    changed = [path for path in layout.leaves if path not in stay]
    spill = Spill(job.folder)
    try:
        _write_beside(
            job, layout, zip(shards, seen, strict=True), set(changed), spill, outputs, pool
        )
        made = pool.map(lambda path: _write_one(job, layout, path, spill), changed)
        found = {path: known[path] for path in stay} | dict(zip(changed, made, strict=True))
    finally:
        spill.clear()
    count = len(leaves_of({path: found[path] for path in changed}))
    log.info("%d files written, %d unchanged", count, len(leaves_of(found)) - count)
    return dict(sorted(found.items()))


def _write_one(job: Job, layout: Layout, path: str, spill: Spill) -> dict:
    """Write one leaf from the rows of all shards, or find that it has none."""
    leaf, rows = layout.leaves[path], spill.take(path)
    if rows is None:
        (job.folder / path).unlink(missing_ok=True)
        return {"made_of": leaf.made_of, "rows": 0, "bytes": 0, "sha256": ""}
    is_index = layout.kind_of(path) == layout.index
    columns, sort = (index.COLUMNS, SORT[1:]) if is_index else (job.leaf_columns, SORT)
    rows = sorted_by(rows, sort)
    wanted = schema.arrow_schema(job.survey, schema.with_lengths(columns, rows))
    rows = rows.replace_schema_metadata(wanted.metadata).cast(wanted)
    return write_leaf(job.folder, leaf, rows, hats_files.write_options(wanted, job.settings, sort))


def _write_beside(
    job: Job,
    layout: Layout,
    shards: Iterable[tuple[Shard, Seen]],
    changed: set[str],
    spill: Spill,
    outputs: Mapping,
    pool: ThreadPoolExecutor,
) -> None:
    """Read all shards once: spill the rows of the changed leaves, list what the catalog omits."""
    schemas = {"rejects": REJECTS, "overlaps": OVERLAPS}
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(parquet_writer(outputs[name], wanted))
            for name, wanted in schemas.items()
        }
        for tables, places in pool.map(lambda s: _shard(job, layout, *s, changed, spill), shards):
            spill.note(places)
            for name, table in tables.items():
                writers[name].write_table(table, row_group_size=hats_files.ROW_GROUP)
    _write_without_position(job, spill, outputs["without_position"])


def _write_without_position(job: Job, spill: Spill, path: Path | str) -> None:
    """Write the objects that no partition can hold."""
    longest: dict[str, int] = {}
    for rows in spill.each(WITHOUT):
        for column in schema.with_lengths(job.columns, rows):
            longest[column.name] = max(longest.get(column.name, 0), column.length or 0)
    columns = [replace(c, length=longest.get(c.name) or None) for c in job.columns]
    wanted, count = schema.arrow_schema(job.survey, columns, job.facts), 0
    with parquet_writer(path, wanted) as writer:
        for rows in spill.each(WITHOUT):
            writer.write_table(rows.replace_schema_metadata(wanted.metadata).cast(wanted))
            count += len(rows)
    if count:
        log.warning("%d objects have no position and are in %s", count, path)


def _shard(
    job: Job, layout: Layout, shard: Shard, seen: Seen, changed: set[str], spill: Spill
) -> tuple[dict[str, pa.Table], list]:
    """Read a shard; give its rows for the lists beside, and where its other rows are spilled."""
    table = joined(shard)
    rejects, overlaps = rejects_and_overlaps(shard, table)
    wanted = layout.wants[shard.name] & changed
    whole = any(layout.kind_of(path) != layout.index for path in wanted)
    if whole or seen.without:
        table = complete(shard, table)
    table = table.filter(pa.array(kept_rows(shard)))
    healpix = healpix_of(*(table[name].to_numpy().astype(float) for name in ("ra", "dec")))
    decided = {column.name for column in job.columns if column.is_decided}
    lost = cast(table.filter(pa.array(healpix == NOWHERE)), _plain(job.columns), decided)
    places = []
    if whole:
        rows = cast(
            table.append_column(schema.HEALPIX, pa.array(healpix)),
            _plain(job.leaf_columns),
            decided,
        )
        parts = [*_primary_parts(layout, healpix, wanted), *_margin_parts(layout, healpix, wanted)]
        taken = ((path, rows.take(pa.array(chosen))) for path, chosen in parts)
        places += spill.put(shard.name, ROWS, taken)
    if any(layout.kind_of(path) == layout.index for path in wanted):
        parts = _index_parts(layout, table["object_id"], healpix, wanted)
        places += spill.put(shard.name, INDEX, parts)
    if len(lost):
        places += spill.put(shard.name, WITHOUT, [(WITHOUT, lost)])
    return {"rejects": rejects, "overlaps": overlaps}, places


def _plain(columns: Sequence[schema.Column]) -> pa.Schema:
    return pa.schema([column.field() for column in columns])


Parts = Iterator[tuple[str, np.ndarray]]


def _primary_parts(layout: Layout, healpix: np.ndarray, wanted: set[str]) -> Parts:
    """Rows of a shard by the changed partition they lie in."""
    for number, rows in split_rows(layout.partitions.number_of(healpix)):
        if number != NOWHERE and layout.primary_paths[number] in wanted:
            yield layout.primary_paths[number], rows


def _margin_parts(layout: Layout, healpix: np.ndarray, wanted: set[str]) -> Parts:
    """Rows of a shard by the changed margin they lie in."""
    if not layout.margin or not wanted & set(layout.margin_paths):
        return
    placed = np.flatnonzero(healpix != NOWHERE)
    rows, numbers = margin_rows(healpix[placed], layout.radius, layout.order, layout.sky)
    for number, chosen in split_rows(numbers):
        if layout.margin_paths[number] in wanted:
            yield layout.margin_paths[number], placed[np.sort(rows[chosen])]


def _index_parts(
    layout: Layout, names: pa.ChunkedArray, healpix: np.ndarray, wanted: set[str]
) -> Iterator[tuple[str, pa.Table]]:
    """Rows of the index, of a shard, by the changed part they fall in."""
    placed = np.flatnonzero(healpix != NOWHERE)
    names = names.take(pa.array(placed))
    rows = index.rows_of(names, layout.partitions.number_of(healpix[placed]), layout.partitions)
    for number, chosen in split_rows(index.part_of(names.to_numpy(), layout.cuts)):
        if layout.index_paths[number] in wanted:
            yield layout.index_paths[number], rows.take(pa.array(chosen))
