"""Reading FITS tables as they are stored, so that nothing is lost before it is looked at.

The stored numbers are compared with TNULL before they are scaled (FITS 4.0, 7.2.2 and 7.3.2), which
astropy does the other way round.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.io import fits

from luneta.survey.arrow_columns import array_column, table_of, text_of_bytes
from luneta.survey.bounds import TEXT_BEST_COMPRESSION, check_size
from luneta.survey.fits_headers import (
    ImageError,
    Unit,
    open_file,
    read_fully,
    read_units,
    unreadable,
)
from luneta.survey.table_choice import Listing, TableError, require

# SExtractor writes the header of its image as a table before that of the objects.
HEADERS_AS_TABLES = ("LDAC_IMHEAD",)
WHOLE = "BIJK"
SIGNED = {"I": 2**15, "J": 2**31, "K": 2**63}
FRACTIONS = "EFD"
COMPLEX = "CM"
POINTERS = "PQ"
_PIECE = 2**25  # bytes of rows that are read at once


class FitsTables:
    """The tables of a FITS file.

    Parameters
    ----------
    path : path
        Packed by gzip or bzip2, or not.

    Attributes
    ----------
    tables : list of Listing
        In the file's order.

    Raises
    ------
    ImageError
        If a header up to the first table's is wrong.
    """

    def __init__(self, path: Path):
        self._path = path
        self._units = _table_units(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Only headers are read by astropy: a file that it maps and another shortens is SIGBUS.
            with fits.open(path, disable_image_compression=True, memmap=False) as file:
                self._columns = {unit.number: file[unit.number].columns for unit in self._units}
            self.tables = [self._listing(unit) for unit in self._units]

    def close(self) -> None:
        """Nothing is open."""

    def _listing(self, unit: Unit) -> Listing:
        columns = self._columns[unit.number]
        is_ascii = unit.kind == "TABLE"
        others = {} if is_ascii else {c.name: w for c in columns if (w := _not_one_value(c))}
        names = [column.name for column in columns if column.name not in others]
        version = unit.get("EXTVER", 1)
        keys = (unit.number, unit.name, f"{unit.name},{version}") if unit.name else (unit.number,)
        is_usual = unit.name not in HEADERS_AS_TABLES
        return Listing(keys, names, others, unit.number, is_usual)

    def read(self, table: Listing, columns: Sequence[str] | None) -> pa.Table:
        """Read columns of a table, in its order; all if not given.

        Raises
        ------
        ImageError
            If the table breaks off.
        TableError
            If a column cannot be read.
        """
        unit = next(unit for unit in self._units if unit.number == table.number)
        require(table, columns or (), self._path)
        _check_whole(self._path, unit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            every = self._columns[unit.number]
            wanted = [c for c in every if c.name in (columns or table.names)]
            wanted = [c for c in wanted if c.name in table.names]
            stored = _read_columns(self._path, unit, every, [c.name for c in wanted])
            read = _ascii_column if unit.kind == "TABLE" else _binary_column
            known = {c.name: _coded(c, n, unit) for n, c in enumerate(every, start=1)}
            arrays = {c.name: read(known[c.name], stored[c.name], self._path) for c in wanted}
            return table_of(arrays, {c.name: c.unit for c in wanted})


@dataclass(frozen=True)
class _Coded:
    """How a column is coded: its format and the cards TNULLn, TSCALn and TZEROn."""

    name: str
    format: object
    null: object
    bscale: object
    bzero: object


def _coded(column: fits.Column, number: int, unit: Unit) -> _Coded:
    """Take the cards from the header, as astropy ignores numbers that are written as text."""
    null, scale, zero = (_number_in(unit, f"{key}{number}") for key in ("TNULL", "TSCAL", "TZERO"))
    null = column.null if null is None or unit.kind == "TABLE" else null  # there it is text
    scale = column.bscale if scale is None else scale
    zero = column.bzero if zero is None else zero
    return _Coded(column.name, column.format, null, scale, zero)


def _number_in(unit: Unit, key: str) -> int | float | None:
    """Read a number that is written as text; None if the card is no text, or no number."""
    value = unit.get(key)
    if not isinstance(value, str):
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value.strip().upper().replace("D", "E"))
    return None


def _read_columns(
    path: Path, unit: Unit, columns: fits.ColDefs, names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Read columns as they are stored, each of shape (rows,) or, of bits, (rows, bytes)."""
    width = unit.get("NAXIS1")
    count = unit.get("NAXIS2")
    row = _row_type(path, unit, columns)
    arrays = {name: np.empty((count, *row[name].shape), row[name].base) for name in names}
    at_once = max(1, _PIECE // max(width, 1))
    with open_file(path) as file:
        file.seek(unit.data)
        for first in range(0, count, at_once):
            rows = min(at_once, count - first)
            content = read_fully(file, rows * width)
            if len(content) < rows * width:
                missing = (count - first) * width - len(content)
                raise unreadable(path, f"is truncated: it ends {missing:,} bytes short")
            part = np.frombuffer(content, row)
            for name in names:
                arrays[name][first : first + rows] = part[name]
    return arrays


def _row_type(path: Path, unit: Unit, columns: fits.ColDefs) -> np.dtype:
    """Type of a row as it is stored: the columns, and what the header counts beyond them."""
    kind = np.dtype(columns.dtype).newbyteorder(">")
    width = unit.get("NAXIS1")
    fields = kind.fields or {}
    end = max((start + part.itemsize for part, start in fields.values()), default=0)
    if end > width:
        raise unreadable(
            path,
            f"has a wrong header: a row of extension {unit.number} has {width:,} bytes (NAXIS1), "
            f"and its columns take {end:,}",
        )
    return np.dtype(
        {
            "names": list(fields),
            "formats": [part for part, _ in fields.values()],
            "offsets": [start for _, start in fields.values()],
            "itemsize": width,
        }
    )


def _table_units(path: Path) -> list[Unit]:
    """Headers of the tables, read strictly; what is wrong behind the first is left alone."""
    units: list[Unit] = []
    with open_file(path) as file:
        is_packed = not isinstance(file, io.FileIO)
        try:
            for unit in _unpacked_tables(read_units(file, path), path):
                if is_packed:  # before all of it is unpacked to find the next header
                    check_size(unit.size, path.stat().st_size, TEXT_BEST_COMPRESSION)
                units.append(unit)
        except ImageError:
            if not units:
                raise
    return units


def _unpacked_tables(units: Iterator[Unit], path: Path) -> Iterator[Unit]:
    for unit in units:
        if unit.get("ZTABLE") is True:
            raise unreadable(path, "holds a compressed table; unpack the file by funpack")
        if "TABLE" in unit.kind and not unit.compressed:
            yield unit


def _check_whole(path: Path, unit: Unit) -> None:
    """Insist that the file is as long as the table's header says, and that this can be read."""
    missing = unit.data + unit.size - path.stat().st_size
    with open_file(path) as file:
        if missing > 0 and isinstance(file, io.FileIO):
            raise unreadable(path, f"is truncated: it ends {missing:,} bytes short")
    check_size(unit.size, unit.size)


def _not_one_value(column: fits.Column) -> str | None:
    """Say what a column of a binary table holds, if not one number or word a row."""
    kind, repeat = column.format.format[:1], column.format.repeat
    if kind in POINTERS:
        return "an array of varying length in each row"
    if kind == "A":
        several = column.dim is not None and len(column._dims) > 1
        return "several words in each row" if several else None
    if kind in COMPLEX and repeat == 1:
        return "complex numbers"
    if repeat == 1:
        return None
    what = "bits" if kind == "X" else "numbers"
    return f"an array of {repeat} {what} in each row" if repeat else "nothing"


def _binary_column(column: _Coded, stored: np.ndarray, path: Path) -> pa.Array:
    kind = column.format.format[:1]
    if kind == "A":
        return text_of_bytes(stored if stored.ndim == 1 else stored.reshape(len(stored)))
    if kind == "L":
        return array_column(stored == ord("T"), ~np.isin(stored, (ord("T"), ord("F"))))
    if kind == "X":
        return array_column(stored.reshape(len(stored), -1)[:, 0] & 128 != 0)
    if kind not in WHOLE + FRACTIONS:
        raise TableError(f"{path}: column {column.name!r} has the unknown format {column.format}")
    missing = stored == column.null if kind in WHOLE and _is_number(column.null) else None
    return array_column(_scaled(stored, kind, column.bscale, column.bzero), missing)


def _is_number(value) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _scaled(stored: np.ndarray, kind: str, scale, zero) -> np.ndarray:
    """Physical values: whole numbers where only an offset makes unsigned ones of them."""
    scale, zero = scale if _is_number(scale) else 1, zero if _is_number(zero) else 0
    if scale == 1 and zero == 0:
        return stored
    if scale == 1 and kind in SIGNED and zero == SIGNED[kind]:
        native = stored.astype(stored.dtype.newbyteorder("="))
        unsigned = native.view(native.dtype.str.replace("i", "u"))
        return unsigned ^ unsigned.dtype.type(zero)
    if scale == 1 and kind == "B" and zero == -128:
        return (stored ^ np.uint8(128)).view(np.int8)
    return stored.astype(np.float64) * scale + zero


def _ascii_column(column: _Coded, stored: np.ndarray, path: Path) -> pa.Array:
    """Read a column of an ASCII table; numbers that are blank or TNULL are missing."""
    words = text_of_bytes(stored)
    kind = column.format.format
    if kind == "A":
        return words
    if column.null is not None and str(column.null).strip():
        nulls = pa.array([str(column.null).strip()])
        words = pc.if_else(pc.is_in(words, nulls), pa.scalar(None, pa.string()), words)
    words = pc.utf8_ltrim(words, "+ ")
    is_scaled = _is_number(column.bscale) or _is_number(column.bzero)
    try:
        if kind == "I" and not is_scaled:
            return words.cast(pa.int64())
        words = pc.replace_substring_regex(pc.utf8_upper(words), "D", "E")
        numbers = words.cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise TableError(f"{path}: column {column.name!r}: {error}") from None
    scale, zero = column.bscale, column.bzero
    if is_scaled:
        numbers = pc.multiply(numbers, float(scale if _is_number(scale) else 1))
        numbers = pc.add(numbers, float(zero if _is_number(zero) else 0))
    return numbers
