"""Positions of a list in degrees, of whatever unit, and which of them are points of the sky."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy import units
from astropy.coordinates import Angle

from luneta.survey.names import FIELD, object_names, parts_of
from luneta.survey.table_choice import TableError
from luneta.survey.tables import is_text, text
from luneta.survey.text_tables import without_nulls

PLAIN = r"^(?P<v>[+-]?\d+\.?\d*(?:[eE][+-]?\d+)?)$"
COLONS = r"^(?P<s0>[+-]?) *(?P<d>\d+)[: ] *(?P<m>\d+)(?:[: ] *(?P<s>\d+\.?\d*))?$"
COLONS_FRACTION = r"^(?P<s0>[+-]?) *(?P<d>\d+)[: ] *(?P<m>\d+\.\d*)$"
SEPARATED = r"^[+-]? *\d+[: ] *\d"
SEXAGESIMAL = {"ra": "hourangle", "dec": "deg"}
VIZIER = {"h:m:s": "hourangle", "d:m:s": "deg"}
# Values that stand for no position, in whatever unit; positive ones only if both stand so.
NINES = (99.0, 99.9, 99.99, 99.999, 999.0, 999.9, 999.99, 9999.0, 9999.9, 99999.0, 999999.0)
ENDLESS = 1e10
TOLERANCE = 1e-6  # degrees
RARE = 0.1  # share of a column's rows that may be written otherwise, and are lost
SIGNS = ("", "+", "-", "\u2212")

log = logging.getLogger(__name__)


def on_the_sky(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Whether positions in degrees are points of the sky, ra from 0 to 360; (objects,), bool."""
    with np.errstate(invalid="ignore"):
        return (ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90)


def settled(
    longitude: np.ndarray, latitude: np.ndarray, raw: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Fold the longitudes of a list into 0 to 360 where that is what its author meant.

    A list is wrapped if all its longitudes lie between -180 and 180, or if they run across 360
    within half a circle. Another longitude outside 0 to 360, a latitude beyond a pole, and a value
    that stands for none (-99, -999, -9999, 9999 twice, 1e20, ...) is no point of the sky, and stays
    as it is, for `on_the_sky` to tell.

    Parameters
    ----------
    longitude, latitude : numpy.ndarray
        Degrees, shape (objects,), float64.
    raw : tuple of numpy.ndarray, optional
        The same as the list writes them, in its unit.

    Returns
    -------
    longitude, latitude : numpy.ndarray
        Degrees, shape (objects,), float64.
    """
    longitude, latitude = longitude.copy(), latitude.copy()
    raw = (longitude, latitude) if raw is None else raw
    none = stands_for_none(*raw)
    longitude[none], latitude[none] = raw[0][none], raw[1][none]
    with np.errstate(invalid="ignore"):
        near = (np.abs(latitude) > 90) & (np.abs(latitude) <= 90 + TOLERANCE)
        latitude[near] = np.sign(latitude[near]) * 90
        good = ~none & np.isfinite(longitude) & (np.abs(latitude) <= 90)
        usual = good & (longitude >= -TOLERANCE) & (longitude <= 360 + TOLERANCE)
        odd = good & ~usual & (longitude >= -180 - TOLERANCE) & (longitude <= 540)
    folded = usual | odd if _is_wrapped(longitude[usual | odd]) else usual
    longitude[folded] %= 360
    return longitude, latitude


def _is_wrapped(longitude: np.ndarray) -> bool:
    """Whether longitudes of a list, some outside 0 to 360, follow one convention."""
    if not len(longitude):
        return False
    least, most = longitude.min(), longitude.max()
    across = most > 360 > least >= 0 and most - least <= 180
    return bool(across or most <= 180 + TOLERANCE)


def stands_for_none(longitude: np.ndarray, latitude: np.ndarray) -> np.ndarray:
    """Whether lists say by a pair of values, or by a longitude, that there is no position.

    Returns
    -------
    numpy.ndarray
        Shape (objects,), bool.
    """
    with np.errstate(invalid="ignore"):
        endless = (np.abs(longitude) >= ENDLESS) | (np.abs(latitude) >= ENDLESS)
        endless &= np.isfinite(longitude) & np.isfinite(latitude)
        twice = _nines(np.abs(longitude)) & (longitude == latitude)
        return endless | twice | _nines(-longitude)


def no_pixel(values: np.ndarray) -> np.ndarray:
    """Whether lists say by a pixel coordinate that there is none; shape (objects,), bool."""
    with np.errstate(invalid="ignore"):
        return _nines(-values) | (np.isfinite(values) & (np.abs(values) >= ENDLESS))


def _nines(values: np.ndarray) -> np.ndarray:
    """Whether values are 99, 99.9, 999, ..., as float32 holds them; shape (objects,), bool."""
    found = np.zeros(len(values), bool)
    where = np.flatnonzero(values >= NINES[0] * 0.9999)
    for nine in NINES:
        found[where] |= np.abs(values[where] - nine) <= 1e-6 * nine
    return found


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """Read a column as float64, shape (rows,); NaN where missing."""
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
        values = numbers(column)
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
    words = pc.replace_substring(words, "\u2212", "-")
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
    """Read 12:30:49.4, 12 30 49.4, 12:30.8 and plain numbers; NaN for all else; (objects,)."""
    plain = numbers(pc.struct_field(pc.extract_regex(words, PLAIN), "v"))
    for pattern, names in ((COLONS, "dms"), (COLONS_FRACTION, "dm")):
        parts = pc.extract_regex(words, pattern)
        whole, minutes, *rest = (_part(parts, part) for part in names)
        seconds = np.nan_to_num(rest[0]) if rest else 0.0
        whole = np.where((minutes >= 60) | (seconds >= 60), np.nan, whole)
        sign = pc.fill_null(pc.equal(pc.struct_field(parts, "s0"), "-"), False)
        size = whole + minutes / 60 + seconds / 3600
        sexagesimal = np.where(np.asarray(sign, bool), -size, size)
        plain = np.where(np.isnan(plain), sexagesimal, plain)
    return plain


def _part(parts: pa.ChunkedArray, name: str) -> np.ndarray:
    part = pc.struct_field(parts, name)
    return numbers(pc.if_else(pc.equal(part, ""), pa.scalar(None, pa.string()), part))


def unit_of(table: pa.Table, name: str) -> str | None:
    """Unit that a table's column has by itself."""
    metadata = table.schema.field(name).metadata or {}
    return metadata[b"unit"].decode() if b"unit" in metadata else None


def known_unit(table: pa.Table, name: str, key: str, given: str | None) -> str | None:
    """Unit of a column: that of the config, or else its own.

    Raises
    ------
    TableError
        If its own is not known and the config gives none.
    """
    unit = unit_of(table, name)
    if given is not None:
        if unit is not None and not _is_same(unit, given):
            log.warning(
                "column %r has the unit %r, and is read in %r, as input.units.%s says",
                name, unit, given, key,
            )  # fmt: skip
        return given
    if unit is None:
        return None
    if (written := unit.strip('"')) in VIZIER:
        return VIZIER[written]
    try:
        units.Unit(unit)
    except ValueError:
        raise TableError(
            f"column {name!r} has the unit {unit!r}, which is not known; say what it is by "
            f"input.units.{key}"
        ) from None
    return unit


def _is_same(unit: str, given: str) -> bool:
    unit = VIZIER.get(unit.strip('"'), unit)
    try:
        return units.Unit(unit) == units.Unit(given)
    except ValueError:
        return unit == given


def coordinate(
    table: pa.Table, mapping: str | None, key: str, settings: Mapping
) -> tuple[np.ndarray, np.ndarray]:
    """Read a coordinate; text such as 12:30:49.4 without unit is hours in right ascension.

    Parameters
    ----------
    mapping : str or None
        A column, or a template such as `{DE-}{DEd}:{DEm}:{DEs}`.
    key : {"ra", "dec"}
        Which coordinate it is.
    settings : mapping
        `units` and `frame` of the config's `input` section.

    Returns
    -------
    degrees, raw : numpy.ndarray
        Shape (objects,), float64; in degrees, and as the table writes numbers.

    Raises
    ------
    TableError
        If the column is no angle, or holds plain numbers beside hours, minutes and seconds.
    """
    if mapping is None:
        return np.full(len(table), np.nan), np.full(len(table), np.nan)
    given = (settings.get("units") or {}).get(key)
    written_out = "deg" if settings.get("frame") == "galactic" else SEXAGESIMAL[key]
    if FIELD.search(mapping):
        column, unit = put_together(table, mapping), given or "sexagesimal"
    else:
        column, unit = table[mapping], known_unit(table, mapping, key, given)
    if pa.types.is_time(column.type):  # as CSV readers take 12:30:49
        column = column.cast(pa.string())
    column = without_nulls(column) if is_text(column) else column
    if unit == "sexagesimal":
        unit = written_out
    elif unit is None and is_text(column):
        column, is_sexagesimal = _of_one_form(column, mapping, written_out)
        unit = written_out if is_sexagesimal else None
    values = degrees(column, unit, mapping)
    return values, values if is_text(column) else numbers(column)


def _of_one_form(
    column: pa.ChunkedArray, name: str, written_out: str
) -> tuple[pa.ChunkedArray, bool]:
    """Tell whether text is of hours, minutes and seconds; a few rows of another form are no angles.

    Raises
    ------
    TableError
        If more than a tenth is of the other form, and it matters.
    """
    words = pc.replace_substring(pc.utf8_trim(column, " \t").fill_null(""), "\u2212", "-")
    separated = np.asarray(pc.match_substring_regex(words, SEPARATED))
    if not separated.any() or written_out == "deg":
        return column, bool(separated.any())
    plain = np.asarray(pc.match_substring_regex(words, PLAIN))
    plain[plain] = ~_nines(-numbers(words.filter(pa.array(plain))))
    counts = separated.sum(), plain.sum()
    if min(counts) > RARE * sum(counts):
        first, other = (words[int(where.argmax())].as_py() for where in (separated, plain))
        raise TableError(
            f"column {name!r} holds hours, minutes and seconds, such as {first!r}, and plain "
            f"numbers, such as {other!r}, which may be hours or degrees: write all of them in one "
            "way"
        )
    odd = separated if counts[0] < counts[1] else plain
    return pc.if_else(pa.array(odd), "no angle", column), bool(counts[0] >= counts[1])


def put_together(table: pa.Table, mapping: str) -> pa.ChunkedArray:
    """Write the parts of a coordinate into one text; a sign that is left out is a plus."""
    parts = {name: _plainly(table[name]) for name in parts_of(mapping)}
    for name, words in parts.items():
        if set(words) <= set(SIGNS):
            parts[name] = np.where((words == "") | (words == "+"), "+", "-").astype(object)
    filled = pa.table({name: pa.array(words, pa.string()) for name, words in parts.items()})
    return pa.chunked_array([pa.array(object_names(filled, mapping), pa.string())])


def _plainly(column: pa.ChunkedArray) -> np.ndarray:
    """Write numbers without exponents, and minus zero with its sign; empty where missing."""
    if not pa.types.is_floating(column.type):
        return text(column)
    values = column.to_numpy()
    words = [np.format_float_positional(value, trim="-") for value in values]
    return np.where(np.isfinite(values), np.array(words, object), "")


def pixel(table: pa.Table, name: str | None, first_pixel: int) -> np.ndarray:
    """Read a pixel coordinate, counted from zero; a value that stands for none stays as it is."""
    if name is None:
        return np.full(len(table), np.nan)
    try:
        values = numbers(table[name])
    except pa.ArrowInvalid as error:
        raise TableError(f"column {name!r} holds text that is no pixel: {error}") from None
    return np.where(no_pixel(values), values, values - first_pixel)
