"""The source list: names and positions, whatever its format and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy import units
from astropy.coordinates import Angle

from luneta.survey.tables import TableError, read_table, require_columns


@dataclass(frozen=True)
class Sources:
    """The rows of a source list.

    Attributes
    ----------
    object_id : numpy.ndarray
        Names, shape (objects,), object.
    ra, dec : numpy.ndarray
        ICRS positions in degrees, shape (objects,), float64; NaN where missing.
    tile : numpy.ndarray
        Name of the object's tile, shape (objects,), object; empty where it has none.
    kept : pyarrow.Table
        The columns that go on to the catalog, with their units.
    """

    object_id: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    tile: np.ndarray
    kept: pa.Table

    def on_the_sky(self) -> np.ndarray:
        """Whether the position is a point of the sky; shape (objects,), bool."""
        with np.errstate(invalid="ignore"):
            return np.isfinite(self.ra) & (np.abs(self.dec) <= 90)


def degrees(column: pa.ChunkedArray, unit: str | None, name: str) -> np.ndarray:
    """Read a column of angles in degrees, hours or sexagesimal text as degrees.

    Parameters
    ----------
    column : pyarrow.ChunkedArray
        Numbers, or text such as `12h30m49.4s`.
    unit : str or None
        Unit of the numbers; degrees if None.

    Returns
    -------
    numpy.ndarray
        Shape (objects,), float64, degrees; NaN where missing.
    """
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        text = column.to_pylist()
        try:
            return np.array([np.nan if not t else Angle(t, unit or "deg").deg for t in text], float)
        except (ValueError, units.UnitsError) as error:
            raise TableError(f"column {name!r} holds text that is no angle: {error}") from None
    values = np.asarray(column.cast(pa.float64()).fill_null(np.nan), float)
    if unit in (None, "deg"):
        return values
    try:
        return values * units.Unit(unit).to(units.deg)
    except (ValueError, units.UnitsError) as error:
        raise TableError(f"column {name!r} has a unit that is no angle: {error}") from None


def _unit(table: pa.Table, name: str) -> str | None:
    metadata = table.schema.field(name).metadata or {}
    return metadata[b"unit"].decode() if b"unit" in metadata else None


def text(column: pa.ChunkedArray) -> np.ndarray:
    """Read a column of names, numbers included, as text; shape (objects,), object."""
    return np.array([str(v).strip() if v is not None else "" for v in column.to_pylist()], object)


def _position(table: pa.Table, name: str | None, sexagesimal: str) -> np.ndarray:
    """Read a position; `sexagesimal` is the unit of text such as 12:30:49.4 that names none."""
    if name is None:
        return np.full(len(table), np.nan)
    column, unit = table[name], _unit(table, name)
    first = next((str(v).strip() for v in column.to_pylist() if v), "") if unit is None else ""
    if not pa.types.is_floating(column.type) and any(mark in first for mark in ": "):
        unit = sexagesimal
    return degrees(column, unit, name)


def kept_columns(table: pa.Table, keep: Mapping[str, str]) -> pa.Table:
    """Select the columns `keep` maps to (catalog name: table column), with their units."""
    fields = [
        pa.field(new, table[old].type, metadata=table.schema.field(old).metadata)
        for new, old in keep.items()
    ]
    return pa.table([table[old] for old in keep.values()], schema=pa.schema(fields))


def select(table: pa.Table, columns: Mapping, keep: Mapping, tile: np.ndarray, path) -> Sources:
    """Pick the mapped columns out of a table.

    Raises
    ------
    TableError
        If a mapped column is missing, or a position is no angle.
    """
    mapped = [name for name in columns.values() if name is not None]
    require_columns(table, [*mapped, *keep.values()], path)
    return Sources(
        object_id=text(table[columns["object_id"]]),
        ra=_position(table, columns["ra"], "hourangle"),
        dec=_position(table, columns["dec"], "deg"),
        tile=tile,
        kept=kept_columns(table, keep),
    )


SLICE_COLUMNS = {"object_id": "object_id", "ra": "ra", "dec": "dec"}


def read_sources(paths: Sequence[Path], settings: Mapping, tiles: Sequence[str]) -> Sources:
    """Read a shard's source lists one after the other.

    Parameters
    ----------
    paths : sequence of path
        A slice made by `luneta.survey.index`, or one list for each of `tiles`.
    settings : mapping
        `sliced` (bool), `columns`, `keep`: see `luneta.survey.ingest.run`.
    """
    if settings["sliced"]:
        table = read_table(paths[0])
        same_names = {name: name for name in settings["keep"]}
        return select(table, SLICE_COLUMNS, same_names, text(table["tile"]), paths[0])
    parts = []
    for path, tile in zip(paths, tiles, strict=True):
        table = read_table(path, [settings["columns"]["object_id"]])
        names = np.full(len(table), tile, object)
        parts.append(select(table, settings["columns"], settings["keep"], names, path))
    return concatenate(parts)


def concatenate(parts: Sequence[Sources]) -> Sources:
    """Join source lists."""
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("object_id", "ra", "dec", "tile")
    }
    kept = pa.concat_tables([part.kept for part in parts], promote_options="permissive")
    return Sources(**arrays, kept=kept)
