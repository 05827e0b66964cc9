"""The source list: names and positions, whatever its format, units, frame and epoch."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy import units
from astropy.coordinates import FK4, FK5, ICRS, Galactic, SkyCoord
from astropy.time import Time

from luneta.survey.images import ImageError
from luneta.survey.names import FIELD, object_names, parts_of, text_parts_of
from luneta.survey.position_names import position_names
from luneta.survey.positions import (
    coordinate,
    degrees,
    known_unit,
    no_pixel,
    numbers,
    on_the_sky,
    pixel,
    settled,
)
from luneta.survey.remote import local_copy
from luneta.survey.tables import TableError, is_text, read_table, require_columns, text
from luneta.survey.text_tables import without_nulls
from luneta.urls import shown_url

__all__ = [
    "Sources", "concatenate", "degrees", "object_names", "on_the_sky", "parts_of", "read_list",
    "read_lists", "read_sources", "select", "settled", "wanted_columns",
]  # fmt: skip

POSITION_COLUMNS = ("ra", "dec", "x", "y", "pm_ra", "pm_dec")
OUTSIDE_REASON = "outside:reason"  # column of a slice; no kept column can bear this name
NO_MOTION = (9999.0, 99999.0, 999999.0)  # mas/yr, by which lists say that there is none
LARGEST_MOTION = 1e10


@dataclass(frozen=True)
class Sources:
    """The rows of a source list.

    Attributes
    ----------
    object_id : numpy.ndarray
        Names, shape (objects,), object; empty where there is none.
    ra, dec : numpy.ndarray
        ICRS positions in degrees, shape (objects,), float64; NaN where missing. What is no point
        of the sky is there as the list gives it.
    tile : numpy.ndarray
        Name of the object's tile, shape (objects,), object; empty where it has none.
    kept : pyarrow.Table
        The columns that go on to the catalog, with their units.
    x, y : numpy.ndarray
        Zero-based pixel positions in the tile, shape (objects,), float64; NaN where the list
        gives none.
    missing : numpy.ndarray
        Whether the list leaves the position empty, shape (objects,), bool.
    outside : numpy.ndarray
        Why the object lies on no tile, where planning knows more than that; shape (objects,),
        object, None elsewhere.
    """

    object_id: np.ndarray
    ra: np.ndarray
    dec: np.ndarray
    tile: np.ndarray
    kept: pa.Table
    x: np.ndarray | None = None
    y: np.ndarray | None = None
    missing: np.ndarray | None = None
    outside: np.ndarray | None = None

    def __post_init__(self):
        count = len(self.object_id)
        for name in ("x", "y"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.full(count, np.nan))
        if self.missing is None:
            object.__setattr__(self, "missing", np.zeros(count, bool))
        if self.outside is None:
            object.__setattr__(self, "outside", np.full(count, None, object))

    def on_the_sky(self) -> np.ndarray:
        """Whether the position is a point of the sky; shape (objects,), bool."""
        return on_the_sky(self.ra, self.dec)

    def on_a_pixel(self) -> np.ndarray:
        """Whether the list gives a position in pixels; shape (objects,), bool."""
        given = np.isfinite(self.x) & np.isfinite(self.y)
        return given & ~no_pixel(self.x) & ~no_pixel(self.y)


def _motion(table: pa.Table, name: str, key: str, given: str | None) -> np.ndarray:
    """Read a proper motion in mas/yr; zero where there is none."""
    unit = known_unit(table, name, key, given) or "mas/yr"
    try:
        factor = units.Unit(unit).to(units.mas / units.yr)
        values = numbers(table[name])
    except (ValueError, units.UnitsError, pa.ArrowInvalid) as error:
        raise TableError(f"column {name!r} is no proper motion, as in mas/yr: {error}") from None
    none = np.isin(np.abs(values), NO_MOTION) | (np.abs(values * factor) >= LARGEST_MOTION)
    return np.where(none, 0, np.nan_to_num(values * factor, posinf=0, neginf=0))


def _null(table: pa.Table, names: Sequence[str | None]) -> np.ndarray:
    """Whether any of the columns is empty; shape (rows,), bool."""
    empty = np.zeros(len(table), bool)
    for name in (part for mapping in filter(None, names) for part in _needed(table, mapping)):
        column = table[name]
        null = pc.is_null(without_nulls(column) if is_text(column) else column)
        empty |= np.asarray(null, bool)
    return empty


def _needed(table: pa.Table, mapping: str) -> list[str]:
    """Columns without which a coordinate is empty: of a template all but that of the sign."""
    parts = parts_of(mapping)
    return [part for part in parts if len(parts) == 1 or not _is_sign(table[part])]


def _is_sign(column: pa.ChunkedArray) -> bool:
    return is_text(column) and set(text(column)) <= set("+-\u2212") | {""}


def _frame(name: str, equinox: str, epoch: float | None):
    """Build the astropy frame of a list's positions."""
    if name == "galactic":
        return Galactic()
    try:
        when = Time(equinox)
    except ValueError:
        raise TableError(
            f"input.equinox = {equinox!r} is no equinox; write J2000 or B1950"
        ) from None
    if name == "fk5":
        return FK5(equinox=when)
    if name == "fk4":
        return FK4(equinox=when, obstime=when if epoch is None else Time(epoch, format="jyear"))
    return ICRS()


def to_icrs(
    longitude: np.ndarray,
    latitude: np.ndarray,
    settings: Mapping,
    motion: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Carry positions to ICRS and, by their proper motion, to the epoch of the images.

    Parameters
    ----------
    longitude, latitude : numpy.ndarray
        Positions in the list's frame, degrees, shape (objects,), float64; longitudes from 0 to
        360. Those that are no points of the sky stay as they are.
    settings : mapping
        `frame`, `equinox`, `epoch`, `image_epoch` of the config's `input` section.
    motion : tuple of numpy.ndarray, optional
        Proper motion in longitude times cos(latitude), and in latitude, mas/yr.

    Returns
    -------
    ra, dec : numpy.ndarray
        Degrees, shape (objects,), float64; ra in 0 to 360.

    Raises
    ------
    TableError
        If the equinox is none, or proper motions are given in FK4, whose system rotates.
    """
    frame, epoch = settings.get("frame", "icrs"), settings.get("epoch")
    ra, dec = longitude.copy(), latitude.copy()
    good = on_the_sky(ra, dec)
    if motion is not None and frame == "fk4":
        raise TableError("proper motions in frame fk4 are not supported; convert the list to icrs")
    if good.any() and (frame != "icrs" or motion is not None):
        axes = _frame(frame, settings.get("equinox", "J2000"), epoch)
        moved = motion and (motion[0][good], motion[1][good])
        sky = _moved(ra[good], dec[good], axes, moved, epoch, settings.get("image_epoch"))
        ra[good], dec[good] = sky.ra.deg, sky.dec.deg
    ra[good] %= 360
    return ra, dec


def _moved(longitude, latitude, frame, motion, epoch, image_epoch) -> SkyCoord:
    """Build ICRS positions at the images' epoch."""
    if motion is None:
        return SkyCoord(longitude, latitude, unit="deg", frame=frame).icrs
    names = ("pm_l_cosb", "pm_b") if isinstance(frame, Galactic) else ("pm_ra_cosdec", "pm_dec")
    rates = [rate * units.mas / units.yr for rate in motion]
    there = SkyCoord(
        longitude, latitude, unit="deg", frame=frame, **dict(zip(names, rates, strict=True))
    ).icrs
    start = SkyCoord(
        there.ra,
        there.dec,
        pm_ra_cosdec=there.pm_ra_cosdec,
        pm_dec=there.pm_dec,
        obstime=Time(epoch, format="jyear"),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ERFA warns that it assumes a distance
        return start.apply_space_motion(new_obstime=Time(image_epoch, format="jyear"))


def kept_columns(table: pa.Table, keep: Mapping[str, str]) -> pa.Table:
    """Select the columns `keep` maps to (catalog name: table column), with their units.

    A value that is not a number is missing, as FITS writes missing values so.
    """
    arrays = [_nan_to_null(table[old]) for old in keep.values()]
    fields = [
        pa.field(new, table[old].type, metadata=table.schema.field(old).metadata)
        for new, old in keep.items()
    ]
    return pa.table(arrays, schema=pa.schema(fields))


def _nan_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if column.type not in (pa.float32(), pa.float64()):
        return column
    return pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)


def select(
    table: pa.Table,
    columns: Mapping,
    keep: Mapping,
    tile: np.ndarray,
    path,
    settings: Mapping | None = None,
) -> Sources:
    """Pick the mapped columns out of a table.

    Parameters
    ----------
    columns : mapping
        The config's `input.columns`.
    keep : mapping
        Catalog name and table column of what is kept.
    tile : numpy.ndarray
        Tile of each row, shape (rows,), object; a mapped column `tile` goes before it.
    settings : mapping, optional
        `units`, `frame`, `equinox`, `epoch`, `image_epoch`, `first_pixel` of the config's `input`
        section; degrees in ICRS if not given.

    Raises
    ------
    TableError
        If a mapped column is missing, or a position is no angle.
    """
    settings = settings or {}
    require_columns(table, wanted_columns(columns, keep), path)
    names = {key: columns.get(key) for key in POSITION_COLUMNS}
    given = settings.get("units") or {}
    try:
        sky = _on_the_list(table, names, settings)
        motion = None
        if names["pm_ra"] is not None:
            motion = tuple(_motion(table, names[k], k, given.get(k)) for k in ("pm_ra", "pm_dec"))
        ra, dec = to_icrs(*sky, settings, motion)
        x, y = (pixel(table, names[key], settings.get("first_pixel", 1)) for key in "xy")
        names_of_rows = _names(table, columns.get("object_id"), ra, dec)
        tiles = tile if columns.get("tile") is None else text(table[columns["tile"]])
    except (TableError, pa.ArrowInvalid, UnicodeDecodeError) as error:  # bytes that are no text
        raise TableError(f"{path}: {error}") from None
    found = Sources(
        object_id=names_of_rows,
        ra=ra,
        dec=dec,
        tile=tiles,
        kept=kept_columns(table, keep),
        x=x,
        y=y,
    )
    empty = _null(table, [names[key] for key in ("ra", "dec", "x", "y")])
    return replace(found, missing=empty & ~found.on_the_sky() & ~found.on_a_pixel())


def _on_the_list(table: pa.Table, names: Mapping, settings: Mapping) -> tuple:
    """Positions in the list's frame, in degrees; of a slice they have been judged before."""
    (ra, raw_ra), (dec, raw_dec) = (
        coordinate(table, names[key], key, settings) for key in ("ra", "dec")
    )
    return (ra, dec) if settings.get("is_slice") else settled(ra, dec, (raw_ra, raw_dec))


def _names(table: pa.Table, mapping: str | None, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Names of the objects, made from their positions if no column holds any."""
    if mapping is not None:
        return object_names(table, mapping)
    return _names_by_position(ra, dec)


def _names_by_position(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    names, good = np.full(len(ra), "", object), on_the_sky(ra, dec)
    names[good] = position_names(ra[good], dec[good])
    return names


def wanted_columns(columns: Mapping, keep: Mapping) -> list[str]:
    """Name the columns of a list that the config maps or keeps."""
    mapped = [part for name in columns.values() if name is not None for part in parts_of(name)]
    return list(dict.fromkeys([*mapped, *keep.values()]))


def read_list(path: Path | str, settings: Mapping, tile: str = "") -> Sources:
    """Read a source list as the config's `input` section describes it.

    Parameters
    ----------
    path : path
        Or the URL of a file.
    settings : mapping
        `columns`, `keep`, `units`, `frame`, `equinox`, `epoch`, `image_epoch`, `first_pixel`,
        `remote`.
    tile : str
        Tile of all rows, for a list of one tile; empty if the list is of the whole survey.

    Raises
    ------
    TableError
        If the list cannot be read, or is not as described.
    """
    columns = dict(settings["columns"])
    if tile:
        columns["tile"] = None
    wanted = wanted_columns(columns, settings["keep"])
    table = _fetched(str(path), text_columns(columns), wanted, settings.get("remote") or {})
    rows = np.full(len(table), tile, object)
    return select(table, columns, settings["keep"], rows, path, settings)


def read_lists(paths: Sequence[Path | str], settings: Mapping) -> Sources:
    """Read a survey-wide list that lies in several files, one after the other.

    Parameters
    ----------
    paths : sequence of path
        As of `read_list`, which tells the settings too.

    Raises
    ------
    TableError
        As `read_list`, and if the files do not go together.
    """
    found = concatenate([read_list(path, settings) for path in paths])
    if settings["columns"].get("object_id") is None and len(paths) > 1:
        return replace(found, object_id=_names_by_position(found.ra, found.dec))
    return found


def text_columns(columns: Mapping) -> list[str]:
    """Name the mapped columns that are read as text: names, tiles, and parts of an angle."""
    angles = [columns[key] for key in ("ra", "dec") if FIELD.search(columns.get(key) or "")]
    parts = [part for angle in angles for part in parts_of(angle)]
    tile = [columns["tile"]] if columns.get("tile") else []
    return [*text_parts_of(columns.get("object_id")), *tile, *parts]


def _fetched(name: str, text_columns, columns, remote: Mapping) -> pa.Table:
    """Read a list by path or URL; an error names it as it was given."""
    local = name
    try:
        with local_copy(name, remote) as local:
            return read_table(local, text_columns, columns)
    except (ImageError, TableError) as error:
        raise TableError(str(error).replace(local, shown_url(name))) from None


def _read_slice(path: Path, keep: Mapping) -> Sources:
    """Read a slice made by `luneta.survey.index`, which is in ICRS and counts pixels from zero."""
    table = read_table(path)
    names = ["object_id", "ra", "dec", "tile", *(n for n in ("x", "y") if n in table.column_names)]
    same_names = {name: name for name in keep}
    nowhere = np.full(len(table), "", object)
    as_written = {"first_pixel": 0, "is_slice": True}
    columns = dict(zip(names, names, strict=True))
    sources = select(table, columns, same_names, nowhere, path, as_written)
    if OUTSIDE_REASON not in table.column_names:
        return sources
    return replace(sources, outside=np.array(table[OUTSIDE_REASON].to_pylist(), object))


def read_sources(paths: Sequence[Path], settings: Mapping, tiles: Sequence[str]) -> Sources:
    """Read a shard's source lists one after the other.

    Parameters
    ----------
    paths : sequence of path
        A slice made by `luneta.survey.index`, or one list for each of `tiles`.
    settings : mapping
        `sliced` (bool), and what `read_list` takes: see `luneta.survey.ingest.run`.
    """
    if settings["sliced"]:
        return _read_slice(paths[0], settings["keep"])
    return concatenate(
        [read_list(path, settings, tile) for path, tile in zip(paths, tiles, strict=True)]
    )


def concatenate(parts: Sequence[Sources]) -> Sources:
    """Join source lists.

    Raises
    ------
    TableError
        If a kept column has two units, or is of types that do not go together.
    """
    _check_units([part.kept.schema for part in parts])
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("object_id", "ra", "dec", "tile", "x", "y", "missing", "outside")
    }
    try:
        kept = pa.concat_tables([part.kept for part in parts], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TableError(
            f"the source lists do not go together: {error}; give a kept column one type in all"
        ) from None
    return Sources(**arrays, kept=kept)


def _check_units(schemas: Sequence[pa.Schema]) -> None:
    """Insist that a column has one unit in all lists."""
    found: dict[str, set[str]] = {}
    for field in (field for schema in schemas for field in schema):
        unit = (field.metadata or {}).get(b"unit", b"").decode()
        found.setdefault(field.name, set()).add(unit)
    for name, several in found.items():
        if len(several) > 1:
            raise TableError(
                f"the kept column {name!r} has the units {sorted(several)} in different source "
                f"lists; bring the lists to one unit, or keep the columns by different names"
            )
