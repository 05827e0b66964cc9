"""The source list: names and positions, whatever its format, units, frame and epoch."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy import units
from astropy.coordinates import FK4, FK5, ICRS, Angle, Galactic, SkyCoord
from astropy.time import Time

from luneta.survey.ids import rounded
from luneta.survey.images import ImageError
from luneta.survey.remote import local_copy
from luneta.survey.tables import TableError, is_text, read_table, require_columns, text

POSITION_COLUMNS = ("ra", "dec", "x", "y", "pm_ra", "pm_dec")
PLAIN = r"^(?P<v>[+-]?\d+\.?\d*(?:[eE][+-]?\d+)?)$"
COLONS = r"^(?P<s0>[+-]?)(?P<d>\d+)[: ](?P<m>\d+)[: ](?P<s>\d+\.?\d*)$"
SEXAGESIMAL = {"ra": "hourangle", "dec": "deg"}
OUTSIDE_REASON = "outside:reason"  # column of a slice; no kept column can bear this name
VIZIER = {"h:m:s": "hourangle", "d:m:s": "deg"}


@dataclass(frozen=True)
class Sources:
    """The rows of a source list.

    Attributes
    ----------
    object_id : numpy.ndarray
        Names, shape (objects,), object; empty where there is none.
    ra, dec : numpy.ndarray
        ICRS positions in degrees, shape (objects,), float64; NaN where missing.
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
        return np.isfinite(self.x) & np.isfinite(self.y)


def on_the_sky(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Whether positions in degrees are points of the sky; shape (objects,), bool."""
    with np.errstate(invalid="ignore"):
        return np.isfinite(ra) & (np.abs(dec) <= 90)


def _numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Read a column as float64; NaN where missing."""
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan), float)


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

    Raises
    ------
    TableError
        If the text, or the unit, is no angle.
    """
    if is_text(column):
        return _degrees_of_text(column, unit or "deg", name)
    try:
        values = _numbers(column)
    except pa.ArrowException:
        raise TableError(f"column {name!r} holds {column.type}, which is no angle") from None
    if unit in (None, "deg"):
        return values
    try:
        return values * units.Unit(unit).to(units.deg)
    except (ValueError, units.UnitsError) as error:
        raise TableError(f"column {name!r} has a unit that is no angle: {error}") from None


def _degrees_of_text(column: pa.ChunkedArray, unit: str, name: str) -> np.ndarray:
    """Read angles written out; the usual forms in bulk, the others one by one.

    A row that is no angle is not a number; a column without any angle is refused.
    """
    words = pc.utf8_trim(column, characters=" \t").fill_null("")
    written = np.asarray(pc.not_equal(words, ""), bool)
    values = np.full(len(written), np.nan)
    if unit in ("deg", "hourangle"):
        values = _usual_sexagesimal(words) * (15 if unit == "hourangle" else 1)
    rest = np.flatnonzero(written & np.isnan(values))
    errors = {}
    for row, word in zip(rest, words.take(pa.array(rest)).to_pylist(), strict=True):
        try:
            values[row] = Angle(word, unit).deg
        except (ValueError, TypeError, units.UnitsError) as error:
            errors[word] = error
    if errors and np.isnan(values).all():
        word, error = next(iter(errors.items()))
        raise TableError(f"column {name!r} holds text that is no angle: {word!r} ({error})")
    return values


def _usual_sexagesimal(words: pa.ChunkedArray) -> np.ndarray:
    """Read 12:30:49.4, 12 30 49.4 and plain numbers; NaN for all else; shape (objects,)."""
    number, parts = (pc.extract_regex(words, pattern) for pattern in (PLAIN, COLONS))
    plain = _numbers(pc.struct_field(number, "v"))
    whole, minutes, seconds = (_numbers(pc.struct_field(parts, part)) for part in "dms")
    whole = np.where((minutes >= 60) | (seconds >= 60), np.nan, whole)
    sign = pc.fill_null(pc.equal(pc.struct_field(parts, "s0"), "-"), False)
    size = whole + minutes / 60 + seconds / 3600
    return np.where(np.isnan(plain), np.where(np.asarray(sign, bool), -size, size), plain)


def _unit(table: pa.Table, name: str) -> str | None:
    metadata = table.schema.field(name).metadata or {}
    return metadata[b"unit"].decode() if b"unit" in metadata else None


def _known_unit(table: pa.Table, name: str, key: str, given: str | None) -> str | None:
    """Unit of a column; that of the config where the column has none, or one not known."""
    unit = _unit(table, name)
    if unit is None:
        return given
    if (written := unit.strip('"')) in VIZIER:
        return VIZIER[written]
    try:
        units.Unit(unit)
    except ValueError:
        if given is None:
            raise TableError(
                f"column {name!r} has the unit {unit!r}, which is not known; say what it is by "
                f"input.units.{key}"
            ) from None
        return given
    return unit


def _position(table: pa.Table, name: str | None, key: str, given: str | None) -> np.ndarray:
    """Read a coordinate in degrees; text such as 12:30:49.4 without unit is hours in ra."""
    if name is None:
        return np.full(len(table), np.nan)
    column, unit = table[name], _known_unit(table, name, key, given)
    if pa.types.is_time(column.type):  # as CSV readers take 12:30:49
        column = column.cast(pa.string())
    if unit == "sexagesimal":
        unit = SEXAGESIMAL[key]
    elif unit is None and is_text(column):
        first = next((t.strip() for t in column.to_pylist() if t and t.strip()), "")
        unit = SEXAGESIMAL[key] if any(mark in first for mark in ": ") else None
    return degrees(column, unit, name)


def _pixel(table: pa.Table, name: str | None, first_pixel: int) -> np.ndarray:
    """Read a pixel coordinate, counted from zero."""
    if name is None:
        return np.full(len(table), np.nan)
    try:
        return _numbers(table[name]) - first_pixel
    except pa.ArrowInvalid as error:
        raise TableError(f"column {name!r} holds text that is no pixel: {error}") from None


def _motion(table: pa.Table, name: str, key: str, given: str | None) -> np.ndarray:
    """Read a proper motion in mas/yr; zero where there is none."""
    unit = _known_unit(table, name, key, given) or "mas/yr"
    try:
        factor = units.Unit(unit).to(units.mas / units.yr)
        return np.nan_to_num(_numbers(table[name]) * factor, posinf=0, neginf=0)
    except (ValueError, units.UnitsError, pa.ArrowInvalid) as error:
        raise TableError(f"column {name!r} is no proper motion, as in mas/yr: {error}") from None


def _null(table: pa.Table, names: Sequence[str | None]) -> np.ndarray:
    """Whether any of the columns is empty; shape (rows,), bool."""
    empty = np.zeros(len(table), bool)
    for name in filter(None, names):
        column = table[name]
        null = pc.is_null(column)
        if is_text(column):
            null = pc.or_(null, pc.equal(pc.utf8_trim(column, characters=" ").fill_null(""), ""))
        empty |= np.asarray(null, bool)
    return empty


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
        Positions in the list's frame, degrees, shape (objects,), float64. Those that are no
        points of the sky stay as they are.
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
    finite = np.isfinite(ra)
    ra[finite] %= 360
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
        sky = [_position(table, names[key], key, given.get(key)) for key in ("ra", "dec")]
        motion = None
        if names["pm_ra"] is not None:
            motion = tuple(_motion(table, names[k], k, given.get(k)) for k in ("pm_ra", "pm_dec"))
        ra, dec = to_icrs(*sky, settings, motion)
        x, y = (_pixel(table, names[key], settings.get("first_pixel", 1)) for key in "xy")
        names_of_rows = object_names(table, columns["object_id"])
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


def wanted_columns(columns: Mapping, keep: Mapping) -> list[str]:
    """Name the columns of a list that the config maps or keeps."""
    mapped = [part for name in columns.values() if name is not None for part in parts_of(name)]
    return list(dict.fromkeys([*mapped, *keep.values()]))


def parts_of(name: str) -> list[str]:
    """Name the columns that a mapping such as `{brickname}-{objid}` is made of.

    Examples
    --------
    >>> parts_of("{brickname}-{objid}"), parts_of("ID")
    (['brickname', 'objid'], ['ID'])
    """
    return re.findall(r"{([^{}]+)}", name) or [name]


def object_names(table: pa.Table, mapping: str) -> np.ndarray:
    """Read the objects' names from a column, or put them together from several.

    Parameters
    ----------
    mapping : str
        A column, or a template such as `{brickname}-{objid}`; a row that lacks a part has no name.

    Returns
    -------
    numpy.ndarray
        Shape (objects,), object; empty where there is no name.

    Raises
    ------
    TableError
        If the names were rounded as numbers, so that several objects may share one.
    """
    names = parts_of(mapping)
    for problem in (rounded(table[name], name) for name in names):
        if problem is not None:
            raise TableError(problem)
    if names == [mapping]:
        return text(table[mapping])
    parts = {name: text(table[name]) for name in names}
    whole = np.full(len(table), "", object)
    for piece in re.split(r"({[^{}]+})", mapping):
        whole = whole + parts.get(piece[1:-1], piece)
    lacking = np.any([part == "" for part in parts.values()], axis=0)
    return np.where(lacking, "", whole)


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
    names = [*parts_of(columns["object_id"]), *([columns["tile"]] if columns.get("tile") else [])]
    table = _fetched(str(path), names, wanted, settings.get("remote") or {})
    rows = np.full(len(table), tile, object)
    return select(table, columns, settings["keep"], rows, path, settings)


def _fetched(name: str, text_columns, columns, remote: Mapping) -> pa.Table:
    """Read a list by path or URL; an error names it as it was given."""
    local = name
    try:
        with local_copy(name, remote) as local:
            return read_table(local, text_columns, columns)
    except (ImageError, TableError) as error:
        raise TableError(str(error).replace(local, name)) from None


def _read_slice(path: Path, keep: Mapping) -> Sources:
    """Read a slice made by `luneta.survey.index`, which is in ICRS and counts pixels from zero."""
    table = read_table(path)
    names = ["object_id", "ra", "dec", "tile", *(n for n in ("x", "y") if n in table.column_names)]
    same_names = {name: name for name in keep}
    nowhere = np.full(len(table), "", object)
    as_written = {"first_pixel": 0}
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
    """Join source lists."""
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("object_id", "ra", "dec", "tile", "x", "y", "missing", "outside")
    }
    kept = pa.concat_tables([part.kept for part in parts], promote_options="permissive")
    return Sources(**arrays, kept=kept)
