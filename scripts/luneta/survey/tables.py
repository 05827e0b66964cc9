"""Reading tables of every format that astronomers keep lists in."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

ASTROPY_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".fits.gz": "fits",
    ".fz": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".ecsv": "ascii.ecsv",
}
DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*ASTROPY_FORMATS, *DELIMITERS, ".parquet")


class TableError(ValueError):
    """A table that cannot be read, or lacks a column; the message says how to mend it."""


def _suffix(path: Path) -> str:
    name = path.name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    raise TableError(
        f"{path}: the suffix {path.suffix!r} names no known table format; "
        f"rename the file to one of {', '.join(SUFFIXES)}"
    )


def _arrow_column(column) -> pa.Array:
    values = np.ma.asarray(column)
    mask = np.ma.getmaskarray(values)
    data = values.data
    if data.dtype.kind == "S":
        data = np.char.decode(data, "utf-8")
    if data.dtype.kind in "US":
        data = np.char.strip(data)
    elif not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    return pa.array(data, mask=mask if mask.any() else None)


def _from_astropy(path: Path, form: str) -> pa.Table:
    from astropy.table import Table

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = Table.read(path, format=form)
    names = [name for name in table.colnames if table[name].ndim == 1]
    fields, arrays = [], []
    for name in names:
        array = _arrow_column(table[name])
        unit = table[name].unit
        metadata = {"unit": str(unit)} if unit else None
        fields.append(pa.field(name, array.type, metadata=metadata))
        arrays.append(array)
    return pa.table(arrays, schema=pa.schema(fields))


def _from_text(path: Path, delimiter: str, text_columns: Sequence[str]) -> pa.Table:
    return pa.csv.read_csv(
        path,
        parse_options=pa.csv.ParseOptions(delimiter=delimiter),
        convert_options=pa.csv.ConvertOptions(
            column_types={name: pa.string() for name in text_columns}
        ),
    )


def read_table(path: Path | str, text_columns: Sequence[str] = ()) -> pa.Table:
    """Read a FITS, VOTable, ECSV, CSV, TSV or Parquet table; units stay as field metadata `unit`.

    Parameters
    ----------
    path : path
        The format is chosen by the suffix.
    text_columns : sequence of str
        Columns of a CSV or TSV that stay text, so that `007` is not read as 7.

    Raises
    ------
    TableError
        If the suffix is unknown, or the file is missing or not what its suffix says.
    """
    path = Path(path)
    suffix = _suffix(path)
    try:
        if suffix == ".parquet":
            return pq.read_table(path)
        if suffix in DELIMITERS:
            return _from_text(path, DELIMITERS[suffix], text_columns)
        return _from_astropy(path, ASTROPY_FORMATS[suffix])
    except FileNotFoundError:
        raise TableError(f"{path}: there is no such file; check the path in the config") from None
    except Exception as error:  # each reader has its own kinds of error for a broken file
        raise TableError(
            f"{path}: cannot be read as {suffix[1:]} ({type(error).__name__}: {error}); "
            f"check that the file is whole and that its suffix tells its format"
        ) from error


def require_columns(table: pa.Table, names: Sequence[str], path: Path | str) -> None:
    """Raise TableError unless the table has the columns."""
    missing = [name for name in names if name not in table.column_names]
    if missing:
        raise TableError(
            f"{path}: there is no column {', '.join(map(repr, missing))}; the table has "
            f"{', '.join(table.column_names)}. Correct the column mapping in the config"
        )
