"""Placing the objects of a source list on their tiles."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luneta.files import atomic_path
from luneta.survey.flags import DESCRIPTIONS, Flag
from luneta.survey.images import ImageError, read_grid, to_pixels
from luneta.survey.sources import Sources, read_sources
from luneta.survey.tiles import Tile

log = logging.getLogger(__name__)


def mark(
    flags: np.ndarray, reasons: np.ndarray, where: np.ndarray, flag: Flag, reason: str | None = None
) -> None:
    """Flag objects in place; the first reason to reject an object stays.

    Parameters
    ----------
    flags : numpy.ndarray
        Shape (objects,), int32.
    reasons : numpy.ndarray
        Shape (objects,), object; None where there is no reason yet.
    where : numpy.ndarray
        Shape (objects,), bool.
    reason : str, optional
        Why the object is rejected; the flag's description if not given.
    """
    flags[where] |= flag.value
    new = where & np.equal(reasons, None)
    reasons[new] = reason or DESCRIPTIONS[flag]


def repeated(ids: Sequence[str]) -> np.ndarray:
    """Whether an id stood earlier in the list already; shape (objects,), bool."""
    values = np.asarray(ids, dtype=object)
    again = np.ones(len(values), bool)
    again[np.unique(values.astype(str), return_index=True)[1]] = False
    return again


def place(sources: Sources, tiles: list[Tile], reference: str) -> dict[str, np.ndarray]:
    """Compute each object's pixel position in its tile's reference band, and its flags.

    Returns
    -------
    dict
        `x`, `y` (float64, zero-based pixel), `flags` (int32), `reject_reason` (object),
        each of shape (objects,).
    """
    count = len(sources.object_id)
    x, y = np.full(count, np.nan), np.full(count, np.nan)
    flags, reasons = np.zeros(count, np.int32), np.full(count, None, object)
    mark(flags, reasons, repeated(sources.object_id), Flag.DUPLICATE_ID)
    mark(flags, reasons, ~sources.on_the_sky(), Flag.BAD_POSITION)
    mark(flags, reasons, (sources.tile == "") & sources.on_the_sky(), Flag.OUTSIDE)
    for tile in tiles:
        here = sources.tile == tile.name
        if here.any():
            _place_on(tile, reference, sources, here, x, y, flags, reasons)
    return {"x": x, "y": y, "flags": flags, "reject_reason": reasons}


def _place_on(tile, reference, sources, here, x, y, flags, reasons) -> None:
    if reference not in tile.bands:
        reason = f"tile {tile.name} has no image in the reference band {reference}"
        mark(flags, reasons, here, Flag.MISSING_FILE, reason)
        return
    try:
        wcs, (ny, nx) = read_grid(tile.bands[reference].image)
    except ImageError as error:
        log.warning("tile %s: %s", tile.name, error)
        mark(flags, reasons, here, error.flag, str(error))
        return
    x[here], y[here] = to_pixels(wcs, sources.ra[here], sources.dec[here])
    with np.errstate(invalid="ignore"):
        inside = (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
    mark(flags, reasons, here & ~inside & sources.on_the_sky(), Flag.OUTSIDE)


def run(sources: list[Path], output: Path, settings: dict) -> None:
    """Write `objects/{shard}.parquet`: every row of the shard's source lists, placed and flagged.

    Parameters
    ----------
    sources : list of path
        The shard's source lists: one a tile, or its slice of the survey's list.
    output : path
        See docs/architecture.md for the columns.
    settings : dict
        `tiles` (as `Tile.as_dict`), `columns`, `keep`, `reference_band`, `sliced`.
    """
    tiles = [Tile.from_dict(tile) for tile in settings["tiles"]]
    given = read_sources(sources, settings, [tile.name for tile in tiles])
    if settings["reference_band"] is None:
        placed = _unplaced(given)
    else:
        placed = place(given, tiles, settings["reference_band"])
    table = _objects_table(given, placed)
    with atomic_path(output) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    rejected = pc.sum(pc.is_valid(table["reject_reason"])).as_py() or 0
    log.info("%d objects, %d of them not usable", len(table), rejected)


def _unplaced(sources: Sources) -> dict[str, np.ndarray]:
    """Stamps have no place in a tile; only their names can be wrong."""
    count = len(sources.object_id)
    flags, reasons = np.zeros(count, np.int32), np.full(count, None, object)
    mark(flags, reasons, repeated(sources.object_id), Flag.DUPLICATE_ID)
    nowhere = np.full(count, np.nan)
    return {"x": nowhere, "y": nowhere, "flags": flags, "reject_reason": reasons}


def _objects_table(sources: Sources, placed: dict[str, np.ndarray]) -> pa.Table:
    degrees, pixels = {"unit": "deg"}, {"unit": "pix"}
    columns = [
        (pa.field("object_id", pa.string()), pa.array(sources.object_id, pa.string())),
        (pa.field("ra", pa.float64(), metadata=degrees), pa.array(sources.ra)),
        (pa.field("dec", pa.float64(), metadata=degrees), pa.array(sources.dec)),
        (pa.field("tile", pa.string()), pa.array(sources.tile, pa.string())),
        (pa.field("x", pa.float64(), metadata=pixels), pa.array(placed["x"])),
        (pa.field("y", pa.float64(), metadata=pixels), pa.array(placed["y"])),
        (pa.field("flags", pa.int32()), pa.array(placed["flags"])),
        (pa.field("reject_reason", pa.string()), pa.array(placed["reject_reason"], pa.string())),
    ]
    columns += [(sources.kept.schema.field(n), sources.kept[n]) for n in sources.kept.column_names]
    return pa.table(
        [array for _, array in columns], schema=pa.schema([field for field, _ in columns])
    )
