"""Our own Parquet files: every one is written and read through here, checksums and all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from luneta.files import atomic_path, set_aside
from luneta.seals import BrokenSeal, check, seal

_sound: set[tuple] = set()


@contextmanager
def parquet_writer(
    path: Path | str,
    schema: pa.Schema,
    is_private: bool = False,
    is_durable: bool = True,
    **options: Any,
) -> Iterator[pq.ParquetWriter]:
    """Open a Parquet file to write to; it appears under its name, sealed, when all went well.

    Parameters
    ----------
    path : path
        Where it goes.
    schema : pyarrow.Schema
        Of its rows.
    is_private : bool
        The file can be read by its owner only.
    is_durable : bool
        As in `luneta.files.atomic_path`.
    **options
        Of `pyarrow.parquet.ParquetWriter`; the compression is zstd unless told.
    """
    options = {"compression": "zstd", "write_page_checksum": True, **options}
    with atomic_path(path, is_private=is_private, is_durable=is_durable) as temporary:
        with pq.ParquetWriter(temporary, schema, **options) as writer:
            yield writer
        seal(temporary)


def write_parquet(table: pa.Table, path: Path | str, **options: Any) -> None:
    """Write a table whole; the options are those of `parquet_writer` and `write_table`."""
    size = options.pop("row_group_size", None)
    with parquet_writer(path, table.schema, **options) as writer:
        writer.write_table(table, row_group_size=size)


def check_parquet(path: Path | str) -> None:
    """Check the seal of a Parquet file, once for each process and state of the file.

    A file without one, from elsewhere, is left to its readers.

    Raises
    ------
    luneta.files.DamagedFile
        If it is not as it was written; it has then been set aside.
    """
    stat = Path(path).stat()
    state = (str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if state in _sound:
        return
    try:
        check(path)
    except BrokenSeal as error:
        raise set_aside(path, str(error)) from None
    _sound.add(state)


def open_parquet(path: Path | str) -> pq.ParquetFile:
    """Open a Parquet file of ours to read it in parts, checked; see `check_parquet`."""
    check_parquet(path)
    return pq.ParquetFile(path, page_checksum_verification=True)


def read_parquet(
    path: Path | str, columns: Sequence[str] | None = None, filters: Any = None
) -> pa.Table:
    """Read a Parquet file of ours, checked; see `check_parquet`."""
    check_parquet(path)
    names = None if columns is None else list(columns)
    # Folders named like `Npix=3` are no columns
    return pq.read_table(
        path, columns=names, filters=filters, partitioning=None, page_checksum_verification=True
    )


def parquet_schema(path: Path | str) -> pa.Schema:
    """Read the schema of a Parquet file of ours, checked; see `check_parquet`."""
    check_parquet(path)
    return pq.read_schema(path)
