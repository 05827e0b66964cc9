"""Reading tables of every format that astronomers keep lists in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luneta.survey.arrow_columns import plain_table
from luneta.survey.bounds import TooLarge, limited_memory, most_bytes, shown
from luneta.survey.fits_headers import ImageError, require_file
from luneta.survey.fits_tables import FitsTables
from luneta.survey.hdf5_tables import HDF5Tables
from luneta.survey.parquet_tables import ParquetTable
from luneta.survey.table_choice import (
    Listing,
    TableError,
    choose,
    refuse_arrays,
    require_names,
    split_table,
)
from luneta.survey.text_tables import ECSVTable, text_reader
from luneta.survey.votables import VOTables

__all__ = [
    "TableError", "is_text", "list_columns", "read_table", "require_columns", "table_columns",
    "text",
]  # fmt: skip

FITS = (".fits", ".fit", ".fits.gz", ".fit.gz", ".fits.bz2", ".fz", ".ldac")
VOTABLE = (".vot", ".votable", ".xml", ".vot.gz", ".votable.gz")
ECSV = (".ecsv", ".ecsv.gz")
DELIMITED = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".csv.bz2", ".tsv.bz2")
ASCII = (".txt", ".dat", ".ascii", ".cat", ".tbl", ".mrt", ".txt.gz", ".dat.gz", ".cat.gz")
PARQUET = (".parquet", ".pq", ".parq")
HDF5 = (".h5", ".hdf5", ".hdf")
SUFFIXES = (*FITS, *VOTABLE, *ECSV, *DELIMITED, *ASCII, *PARQUET, *HDF5)


def _suffix(path: Path) -> str:
    if path.is_dir():
        return ".parquet"
    name = path.name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    raise TableError(
        f"{path}: the suffix {path.suffix!r} names no known table format; "
        f"rename the file to one of {', '.join(SUFFIXES)}, or name the folder of a HATS catalog"
    )


def _opened(path: Path, suffix: str, text_columns: Sequence[str]):
    """Open a file's tables by the reader of its format."""
    if suffix in FITS or (suffix in ASCII and _is_fits(path)):
        return FitsTables(path)
    if suffix in VOTABLE:
        return VOTables(path)
    if suffix in ECSV:
        return ECSVTable(path)
    if suffix in PARQUET:
        return ParquetTable(path)
    if suffix in HDF5:
        return HDF5Tables(path)
    plain = suffix.removesuffix(".gz").removesuffix(".bz2")
    return text_reader(path, plain, text_columns)


def _is_fits(path: Path) -> bool:
    """Whether a file is FITS, as catalogs of SExtractor are whose names end in .cat."""
    with path.open("rb") as file:
        return file.read(9) == b"SIMPLE  ="


@contextlib.contextmanager
def _teaching(path: Path, suffix: str) -> Iterator[None]:
    """Turn what the readers raise into errors that name the file, and bound what they ask for."""
    try:
        with limited_memory():
            yield
    except TableError:
        raise
    except TooLarge as error:
        raise TableError(f"{path} {error}") from None
    except MemoryError:
        raise TableError(
            f"{path} asks for more memory than is free, or than one file may ask for "
            f"({shown(most_bytes())}, input.most_gigabytes); it has {path.stat().st_size:,} bytes"
        ) from None
    except FileNotFoundError:
        raise _absent(path) from None
    except Exception as error:  # each reader has its own kinds of error for a broken file
        raise TableError(
            f"{path}: cannot be read as {suffix[1:]} ({type(error).__name__}: {error}); "
            f"check that the file is whole and that its suffix tells its format"
        ) from error


def read_table(
    path: Path | str, text_columns: Sequence[str] = (), columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a table of any known format; units stay as field metadata `unit`.

    Formats: FITS, VOTable, ECSV, CSV, TSV and other text, Parquet (a file, a folder of parts, a
    HATS catalog or collection) and HDF5. Columns of more than one value a row are left out. What
    the file leaves undefined is null, and columns are of plain types: see
    `luneta.survey.arrow_columns.plain_column`.

    Parameters
    ----------
    path : path
        The format is chosen by the suffix; a folder is Parquet. Which of several tables is meant
        may be told in brackets at the end, as in `list.fits[2]`; without it, it is the only one
        with the columns that are asked for.
    text_columns : sequence of str
        Columns of a CSV or TSV that stay text, so that `007` is not read as 7.
    columns : sequence of str, optional
        Read these only, in the table's order; all if not given.

    Raises
    ------
    TableError
        If the suffix is unknown, a column is missing or holds arrays, several tables have the
        columns, or the file is missing or not what its suffix says.
    """
    file, key = _located(path)
    suffix = _suffix(file)
    with _teaching(file, suffix), contextlib.closing(_opened(file, suffix, text_columns)) as opened:
        asked = text_columns if columns is None else columns
        table = choose(opened.tables, key, _present(opened.tables, asked, columns), file)
        refuse_arrays(table, asked, file)
        return plain_table(opened.read(table, columns))


def _present(
    tables: Sequence[Listing], asked: Sequence[str], columns: Sequence[str] | None
) -> Sequence[str]:
    """Columns to choose a table by: all that are asked for, if any table has them."""
    if columns is None and not any(table.has(asked) for table in tables):
        return ()  # whoever asks for all columns looks for its own
    return asked


def _located(path: Path | str) -> tuple[Path, int | str | None]:
    file, key = split_table(path)
    is_pattern = "*" in Path(file).name and bool(
        next(Path(file).parent.glob(Path(file).name), None)
    )
    if not Path(file).exists() and not (is_pattern and _suffix(Path(file)) in PARQUET):
        raise _absent(Path(file))
    if Path(file).exists() and not Path(file).is_dir():
        _require_file(Path(file))
    return Path(file), key


def _require_file(path: Path) -> None:
    try:
        require_file(path)
    except ImageError as error:
        raise TableError(str(error)) from None


def _absent(path: Path) -> TableError:
    return TableError(f"{path}: there is no such file; check the path in the config")


def list_columns(path: Path | str, columns: Sequence[str] = ()) -> Listing:
    """List the columns of a table, without reading its rows where the format allows.

    Parameters
    ----------
    path : path
        As for `read_table`.
    columns : sequence of str
        Columns that will be asked for, by which one of several tables is chosen.

    Raises
    ------
    TableError
        As `read_table`, but for missing columns.
    """
    file, key = _located(path)
    suffix = _suffix(file)
    with _teaching(file, suffix), contextlib.closing(_opened(file, suffix, ())) as opened:
        return choose(opened.tables, key, columns, file)


def table_columns(path: Path | str) -> list[str]:
    """Name the columns of a table that hold one value a row.

    Raises
    ------
    TableError
        As `list_columns`.
    """
    return list_columns(path).names


def require_columns(table: pa.Table, names: Sequence[str], path: Path | str) -> None:
    """Raise TableError unless the table has the columns."""
    require_names(table.column_names, names, path)


def is_text(column: pa.ChunkedArray) -> bool:
    """Whether a column holds text."""
    return pa.types.is_string(column.type) or pa.types.is_large_string(column.type)


def text(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Read a column of names, numbers included, as text; shape (objects,), object.

    Blanks around a name go, as FITS pads with them; all other characters stay as they are.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    if not is_text(column):
        return np.array([_written(v) for v in column.to_pylist()], object)
    column = pc.utf8_trim(column, characters=" \t\r\n").fill_null("")
    return np.array(column.to_pylist(), object)


def _written(value) -> str:
    """Write a name that is not text; missing and not-a-number are empty, 7.0 is 7."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return str(value).strip(" \t\r\n")
