"""Dealing a survey-wide list to shards, before any job is planned.

A shard's slice is written only when its content changes, so that new rows of the list
concern only the shards they fall into.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy.spatial import cKDTree

from luneta.code_digest import source_digest
from luneta.files import atomic_path, read_json, write_json
from luneta.survey.images import ImageError, read_grid, split_extension, to_pixels
from luneta.survey.sources import Sources, select
from luneta.survey.tables import read_table
from luneta.survey.tiles import Tile

UNPLACED = "unplaced"

log = logging.getLogger(__name__)


def signature(path: Path | str) -> list:
    """Size and modification time of a file; what tells a new delivery from the old one."""
    path = Path(path)
    if not path.exists():
        return [str(path), None]
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]


def digest_of(content) -> str:
    """Digest of plain types, to tell whether a planning has changed."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def assign(sources: Sources, tiles: Iterable[Tile], reference: str) -> np.ndarray:
    """Find each source's tile: of those that hold it, the one where it lies deepest inside.

    A tile none of whose images has a readable grid holds nothing.

    Returns
    -------
    numpy.ndarray
        Tile names, shape (objects,), object; empty for a source outside every tile.
    """
    names = np.full(len(sources.ra), "", object)
    depth = np.full(len(sources.ra), -0.5)
    good = np.flatnonzero(sources.on_the_sky())
    if len(good) == 0:
        return names
    tree = cKDTree(_unit_vectors(sources.ra[good], sources.dec[good]))
    for tile in tiles:
        grid = footprint(tile, reference)
        if grid is None:
            log.warning(
                "tile %s has no footprint: none of its images has a readable grid", tile.name
            )
            continue
        wcs, shape = grid
        near = good[_near(tree, wcs, shape)]
        x, y = to_pixels(wcs, sources.ra[near], sources.dec[near])
        inside = np.min([x, y, shape[1] - 1 - x, shape[0] - 1 - y], axis=0)
        deeper = np.nan_to_num(inside, nan=-np.inf) > depth[near]
        names[near[deeper]], depth[near[deeper]] = tile.name, inside[deeper]
    return names


def footprint(tile: Tile, reference: str) -> tuple | None:
    """Pixel grid of a tile: of its reference band, or else of the first band that has one.

    So the objects of a tile with a bad reference image stay with it, and are told why.
    """
    bands = sorted(tile.bands, key=lambda band: band != reference)
    for band in bands:
        try:
            return read_grid(tile.bands[band].image)
        except ImageError as error:
            log.warning("tile %s, band %s: %s", tile.name, band, error)
    return None


def _near(tree: cKDTree, wcs, shape: tuple[int, int]) -> np.ndarray:
    """Indices of the positions inside the circle around a tile."""
    (ny, nx) = shape
    corners = wcs.pixel_to_world([0, nx, 0, nx], [0, 0, ny, ny]).icrs
    centre = wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2).icrs
    radius = 1.05 * corners.separation(centre).max().rad
    point = _unit_vectors(np.array([centre.ra.deg]), np.array([centre.dec.deg]))[0]
    return np.array(tree.query_ball_point(point, 2 * np.sin(min(radius, np.pi) / 2)), dtype=int)


def slice_table(sources: Sources, rows: np.ndarray, extra: Mapping[str, list] | None) -> pa.Table:
    """Take rows of a list, with columns of one's own beside."""
    table = pa.table(
        {
            "object_id": pa.array(sources.object_id[rows], pa.string()),
            "ra": sources.ra[rows],
            "dec": sources.dec[rows],
            "tile": pa.array(sources.tile[rows], pa.string()),
            **{name: pa.array([values[r] for r in rows]) for name, values in (extra or {}).items()},
        }
    )
    for field in sources.kept.schema:
        table = table.append_column(field, sources.kept[field.name].take(pa.array(rows)))
    return table


def _write_if_changed(table: pa.Table, path: Path) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    if path.exists() and path.read_bytes() == buffer.getvalue():
        return
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def deal(slices: Mapping[str, pa.Table], folder: Path, key: str) -> dict[str, Path]:
    """Write the slices that changed, remove those of shards that are gone, remember the key."""
    paths = {shard: folder / f"{shard}.parquet" for shard in slices}
    for shard, table in slices.items():
        _write_if_changed(table, paths[shard])
    for old in set(folder.glob("*.parquet")) - set(paths.values()):
        old.unlink()
    write_json(folder / "key.json", {"key": key, "shards": list(slices)})
    return paths


def remembered(folder: Path, key: str) -> dict[str, Path] | None:
    """The slices of an earlier planning, if nothing has changed since."""
    if not (folder / "key.json").exists():
        return None
    known = read_json(folder / "key.json")
    paths = {shard: folder / f"{shard}.parquet" for shard in known["shards"]}
    whole = known["key"] == key and all(path.exists() for path in paths.values())
    return paths if whole else None


def deal_sources(settings: Mapping, tiles: Mapping[str, Tile], folder: Path) -> dict[str, Path]:
    """Deal a survey-wide source list to the shards of its tiles.

    Parameters
    ----------
    settings : mapping
        The config's `input` section, as plain types.
    tiles : mapping
        Tiles by name.
    folder : path
        Where the slices go.

    Returns
    -------
    dict
        Path of each shard's slice; objects outside every tile make the shard `unplaced`.
    """
    reference = settings["reference_band"] or settings["bands"][0]
    images = [files.image for tile in tiles.values() for files in tile.bands.values()]
    digest = digest_of(
        [
            settings,
            [t.as_dict() for t in tiles.values()],
            signature(settings["sources"]),
            source_digest(Path(__file__)),
            [signature(split_extension(name)[0]) for name in images],
        ]
    )
    if (paths := remembered(folder, digest)) is not None:
        return paths
    table = read_table(settings["sources"], [settings["columns"]["object_id"]])
    nowhere = np.full(len(table), "", object)
    sources = select(table, settings["columns"], settings["keep"], nowhere, settings["sources"])
    sources.tile[:] = assign(sources, tiles.values(), reference)
    shard_of = {"": UNPLACED, **{tile.name: tile.shard for tile in tiles.values()}}
    shards = np.array([shard_of[name] for name in sources.tile], object)
    names = list(dict.fromkeys(tile.shard for tile in tiles.values()))
    names += [UNPLACED] if (shards == UNPLACED).any() else []
    slices = {n: slice_table(sources, np.flatnonzero(shards == n), None) for n in names}
    return deal(slices, folder, digest)
