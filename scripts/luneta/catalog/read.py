"""Reading a catalog that was written, some columns at a time.

Without hats, which takes seconds to import and is not needed for this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from luneta.parquet import open_parquet, parquet_schema

COLLECTION = "collection.properties"
WITHOUT_POSITION = "without_position.parquet"
PARTITIONS = "partition_info.csv"


def properties(path: Path | str) -> dict[str, str]:
    """Read a properties file of a HATS catalog."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and line[:1] not in "#!"]
    return {key.strip(): value.strip() for key, value in pairs}


def partition_files(collection: Path | str) -> list[Path]:
    """List the files of the partitions, in the order of the sky.

    Parameters
    ----------
    collection : path
        `catalog/collection.properties`.
    """
    collection = Path(collection)
    folder = collection.parent / properties(collection)["hats_primary_table_url"]
    rows = (folder / PARTITIONS).read_text().split()[1:]
    pairs = [tuple(map(int, row.split(",")[:2])) for row in rows]
    return [
        folder / f"dataset/Norder={order}/Dir={pixel // 10_000 * 10_000}/Npix={pixel}.parquet"
        for order, pixel in pairs
    ]


def catalog_files(collection: Path | str) -> list[Path]:
    """List the files that hold the objects of a catalog, those without a position at the end."""
    beside = Path(collection).with_name(WITHOUT_POSITION)
    return [*partition_files(collection), beside]


def catalog_schema(collection: Path | str) -> pa.Schema:
    """Give the columns of a catalog, `_healpix_29` left out, which is not known of all objects."""
    return parquet_schema(Path(collection).with_name(WITHOUT_POSITION))


def batches(collection: Path | str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Read some columns of all objects piece by piece."""
    for path in catalog_files(collection):
        with open_parquet(path) as file:
            yield from file.iter_batches(columns=list(columns))


def read_columns(collection: Path | str, columns: Sequence[str]) -> pa.Table:
    """Read some columns of all objects, whole."""
    known = catalog_schema(collection)
    wanted = pa.schema([known.field(name) for name in columns])
    parts = (batch.select(list(columns)) for batch in batches(collection, columns))
    return pa.Table.from_batches((part.cast(wanted) for part in parts), wanted)
