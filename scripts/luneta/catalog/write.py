"""Writing the catalog as a HATS collection, with the lists of what it leaves out."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow as pa

from luneta.catalog import hats_files, index, schema
from luneta.catalog.layout import Layout, Seen, look
from luneta.catalog.leaves import (
    MANIFEST,
    TEMPORARY,
    Leaf,
    Spill,
    is_whole,
    read_manifest,
    remove_catalogs,
    remove_others,
    sorted_by,
    split_rows,
    write_leaf,
)
from luneta.catalog.partition import NOWHERE, Partitions, healpix_of, margin_rows
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
from luneta.config.fields import did_you_mean
from luneta.digests import digest
from luneta.files import write_json
from luneta.inference.predictions import check_schema
from luneta.parquet import parquet_writer

__all__ = ["CatalogError", "run"]

log = logging.getLogger(__name__)

WRITERS = ("pyarrow", "hats", "astropy")
SORT = (schema.HEALPIX, "object_id")
ROWS, INDEX, WITHOUT = "rows", "index", "without_position"


@dataclass(frozen=True)
class Job:
    """What all shards and leaves of a catalog have in common.

    Attributes
    ----------
    folder : pathlib.Path
        Of the collection.
    survey : str
        Its name, and that of the catalog in it.
    columns : list of schema.Column
        Of the catalog, without `_healpix_29`.
    settings : mapping
        The section `catalog` of the config.
    facts : mapping
        Provenance; only in files of the whole catalog.
    """

    folder: Path
    survey: str
    columns: list[schema.Column]
    settings: Mapping
    facts: Mapping[str, str]

    @property
    def leaf_columns(self) -> list[schema.Column]:
        """Columns of a partition."""
        return [schema.HEALPIX_COLUMN, *self.columns]

    @property
    def common(self) -> str:
        """Digest of what decides every leaf."""
        about = {
            "columns": [[c.name, str(c.type), c.unit, c.ucd, c.description] for c in self.columns],
            "compression_level": self.settings["compression_level"],
            "survey": self.survey,
            "writers": {name: metadata.version(name) for name in WRITERS},
            "code": self.settings["code"],
        }
        return digest(about)


def _columns(objects: Sequence, quality: Sequence, tasks: Mapping, clusters: Mapping, settings):
    shapes = {name: settings["tasks"][name] for name in tasks}
    return schema.catalog_columns(
        unified_schema(objects),
        unified_schema(quality),
        {**settings, "tasks": shapes, "clustered": list(clusters)},
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
    job = Job(
        Path(outputs["collection"]).parent,
        settings["survey"],
        _columns(objects, quality, predictions, clusters, settings),
        settings["catalog"],
        provenance(settings["config"], data, metrics),
    )
    default_columns(job.columns, settings)  # before hours of work
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
    removed = remove_others(job.folder, layout.catalogs, _with_rows(leaves))
    if removed:
        log.info("%d files removed, whose partitions are no more", len(removed))
    write_json(job.folder / MANIFEST, {"catalogs": layout.catalogs, "leaves": leaves})
    cells, counts = (np.concatenate([getattr(s, n) for s in seen]) for n in ("cells", "counts"))
    held = digest([leaves, [one.digest for one in seen if one.without]])
    _write_small_files(job, layout, leaves, held, (cells, counts), settings)


def _with_rows(leaves: Mapping[str, Mapping], catalog: str = "") -> dict[str, Mapping]:
    """Those leaves that have rows, of all catalogs or of one."""
    beginning = f"{catalog}/" if catalog else ""
    return {p: about for p, about in leaves.items() if about["rows"] and p.startswith(beginning)}


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
    spill = Spill(job.folder / TEMPORARY)
    try:
        _write_beside(
            job, layout, zip(shards, seen, strict=True), set(changed), spill, outputs, pool
        )
        made = pool.map(lambda path: _write_one(job, layout, path, spill), changed)
        found = {path: known[path] for path in stay} | dict(zip(changed, made, strict=True))
    finally:
        spill.clear()
    count = len(_with_rows({path: found[path] for path in changed}))
    log.info("%d files written, %d unchanged", count, len(_with_rows(found)) - count)
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
    lost = cast(table.filter(pa.array(healpix == NOWHERE)), _plain(job.columns))
    places = []
    if whole:
        rows = cast(
            table.append_column(schema.HEALPIX, pa.array(healpix)), _plain(job.leaf_columns)
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


def default_columns(columns: Sequence[schema.Column], settings: Mapping) -> list[str]:
    """Choose the columns that LSDB reads when it is told none.

    Raises
    ------
    CatalogError
        If the config names one that the catalog has not.
    """
    first = ["object_id", "ra", "dec", "tile", "flags", *settings["keep"]]
    for task, shape in settings["tasks"].items():
        first += [f"{task}_class", *(f"{task}_{name}_probability" for name in shape["classes"])]
        first += [f"{task}_outlier", f"{task}_model_id"]
    there = {column.name for column in columns}
    given = [n for n in settings["catalog"]["default_columns"] if n != schema.HEALPIX]
    for name in given:
        if name not in there:
            raise CatalogError(
                f"catalog.default_columns = {name!r}: the catalog has no such column; "
                f"{did_you_mean(name, sorted(there))}"
            )
    return given or [name for name in first if name in there]


def _some(partitions: Partitions, paths: Sequence[str], found: Mapping) -> Partitions:
    """Those partitions whose leaf has rows."""
    chosen = np.array([path in found for path in paths], bool)
    values = (partitions.order, partitions.pixel, partitions.rows)
    return Partitions(*(value[chosen] for value in values))


def _write_small_files(
    job: Job,
    layout: Layout,
    leaves: Mapping[str, Mapping],
    held: str,
    cells_and_counts: tuple[np.ndarray, np.ndarray],
    settings: Mapping,
) -> None:
    """Write what tells of the whole catalog; `collection.properties` at the end.

    It holds a digest of all that the catalog holds, so that what is made of the catalog is made
    again when anything in it changes.
    """
    cells, counts = cells_and_counts
    primary = _with_rows(leaves, layout.primary)
    whole = schema.arrow_schema(job.survey, job.leaf_columns, job.facts)
    of_leaves = schema.arrow_schema(job.survey, job.leaf_columns)
    shown = {
        "default_columns": default_columns(job.columns, settings) or None,
        "hats_cols_sort": " ".join(SORT),
        "hats_cols_survey_id": "object_id",
        "hats_coordinate_epoch": settings["epoch"] and f"J{settings['epoch']:g}",
        **hats_files.POSITIONS,
    }
    told = {"obs_title": job.settings["title"], "hats_creator": job.settings["creator"]}
    folder = job.folder / layout.primary
    covered = len(np.unique(cells)) / (12 * 4**layout.order)
    more = {
        "skymap_order": hats_files.write_skymap_of(folder, cells, counts, layout.order),
        "moc_sky_fraction": float(f"{covered:.5g}"),
        **job.facts,
    }
    hats_files.write_partition_info(folder, layout.partitions)
    _write_schemas(job, layout.primary, layout.primary_paths, of_leaves, whole)
    hats_files.write_properties(
        folder,
        hats_files.table_properties("object", job.survey, primary, **shown, **told, **more),
    )
    collection = {"name": job.survey, "hats_primary_table_url": layout.primary}
    collection["luneta.content_sha256"] = held
    collection |= hats_files.builder() | {key: value for key, value in told.items() if value}
    if layout.margin:
        found = _with_rows(leaves, layout.margin)
        folder = job.folder / layout.margin
        beside = _some(layout.sky, layout.margin_paths, found)
        hats_files.write_partition_info(folder, beside)
        paths = [path for path in layout.margin_paths if path in found]
        _write_schemas(job, layout.margin, paths, of_leaves, whole)
        about = {"primary_catalog": layout.primary, "margin_threshold": layout.radius, **shown}
        properties = hats_files.table_properties("margin", layout.margin, found, **about)
        hats_files.write_properties(folder, properties)
        collection |= {"all_margins": [layout.margin], "default_margin": layout.margin}
    if layout.index:
        found = _with_rows(leaves, layout.index)
        of_index = schema.arrow_schema(job.survey, index.COLUMNS)
        paths = [path for path in layout.index_paths if path in found]
        _write_schemas(job, layout.index, paths, of_index, of_index, footers=True)
        about = {"primary_catalog": layout.primary, "indexing_column": "object_id"}
        properties = hats_files.table_properties("index", layout.index, found, **about)
        hats_files.write_properties(job.folder / layout.index, properties)
        collection |= {"all_indexes": {"object_id": layout.index}, "default_index": "object_id"}
    hats_files.write_collection(job.folder, collection)
    rows = sum(about["rows"] for about in primary.values())
    log.info("%d objects in %d partitions", rows, len(layout.partitions))


def _write_schemas(
    job: Job,
    catalog: str,
    paths: Sequence[str],
    of_leaves: pa.Schema,
    whole: pa.Schema,
    footers: bool | None = None,
) -> None:
    names = [path.removeprefix(f"{catalog}/dataset/") for path in paths]
    footers = job.settings["footers"] if footers is None else footers
    hats_files.write_schemas(job.folder / catalog, names, of_leaves, whole, footers)
