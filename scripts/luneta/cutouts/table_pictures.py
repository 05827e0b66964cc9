"""Pictures that a Parquet table holds itself, one a row, as data sets on Hugging Face do."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from luneta.faults import passing_fault
from luneta.survey.bounds import limited_memory
from luneta.survey.fits_headers import require_file, unavailable
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError

SUFFIXES = frozenset([".parquet", ".pq", ".parq"])


def picture_bytes(path: Path, column: str | int | None, row: int | None) -> bytes:
    """Read the bytes of one row's picture; the row group around it is kept for the next ones.

    Parameters
    ----------
    path : path
        Parquet file.
    column : str
        A column of bytes, or a struct with a field `bytes`. What a field `path` says is not read.
    row : int
        Row in the file, from 0.

    Raises
    ------
    ImageError
        If the file cannot be read, or has no such column or row, or no bytes there.
    """
    require_file(path)
    name = f"{path}[{column}], row {row}"
    if row is None or column is None:
        reason = f"{path} is a table of pictures: a column and a row are needed"
        raise ImageError(Flag.UNREADABLE_FILE, reason, path)
    try:
        info = path.stat()
        key = str(path), info.st_size, info.st_mtime_ns
        starts = _starts(*key)
        if not 0 <= row < starts[-1]:
            reason = f"{path} has no row {row}: it holds {starts[-1]} rows"
            raise ImageError(Flag.MISSING_FILE, reason, path)
        group = int(np.searchsorted(starts, row, "right")) - 1
        value = _row_group(*key, group, str(column))[row - int(starts[group])].as_py()
    except (OSError, pa.ArrowException, KeyError, MemoryError) as error:
        if fault := passing_fault(error, path):
            raise unavailable(path, fault) from None
        detail = " ".join(str(error).split())[:200]
        raise ImageError(Flag.UNREADABLE_FILE, f"{name} cannot be read: {detail}", path) from None
    if not value:
        reason = f"{name} holds no bytes of a picture; the path beside them is not opened"
        raise ImageError(Flag.MISSING_FILE, reason, path)
    return value


@lru_cache(maxsize=64)
def _starts(path: str, size: int, time: int) -> np.ndarray:
    """First row of each row group, and the number of rows; shape (groups + 1,), int64."""
    found = pq.read_metadata(path)
    counts = [found.row_group(number).num_rows for number in range(found.num_row_groups)]
    return np.cumsum([0, *counts])


@lru_cache(maxsize=1)
def _row_group(path: str, size: int, time: int, group: int, column: str) -> pa.Array:
    with limited_memory(), pq.ParquetFile(path) as file:
        field = file.schema_arrow.field(column)
        name = f"{column}.bytes" if pa.types.is_struct(field.type) else column
        values = file.read_row_group(group, columns=[name], use_threads=False)
        found = values[column].combine_chunks()
        return found.field("bytes") if pa.types.is_struct(field.type) else found
