"""The index of a catalog: in which partition the object of a name lies.

Names are sorted and cut where a name's hash says so. So a part of the index is decided by the
names in it alone, and new objects change only the parts that their names fall in.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import pyarrow as pa

from luneta.catalog.partition import Partitions
from luneta.catalog.schema import Column

COLUMNS = (
    Column("object_id", pa.string(), None, "meta.id;meta.main", "Name of the object"),
    Column("Norder", pa.uint8(), None, "pos.healpix", "Order of the partition that holds it"),
    Column("Dir", pa.uint64(), None, "meta.code", "Directory of the partition"),
    Column("Npix", pa.uint64(), None, "pos.healpix", "Pixel of the partition, of that order"),
)
DIRECTORY = 10_000  # pixels a directory, as hats does it


def hashes(names: np.ndarray) -> np.ndarray:
    """Hash names, uint64 (names,)."""
    return pd.util.hash_array(np.asarray(names, object), categorize=False)


def cuts(names: np.ndarray, rows: int) -> np.ndarray:
    """Find the names before which the index is cut: one in `rows`, by their hashes; sorted."""
    return np.unique(names[hashes(names) % np.uint64(rows) == 0])


def part_of(names: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """Number the part of the index that each name falls in, int64 (names,)."""
    return np.searchsorted(cut, names, side="right")


def part_names(cut: Iterable[str]) -> list[str]:
    """Name the files of all parts, by the hash of the name that each begins with."""
    marks = hashes(np.array([*cut], object)) if len([*cut]) else []
    return ["part_0.parquet", *(f"part_{mark:016x}.parquet" for mark in marks)]


def rows_of(names: pa.ChunkedArray, number: np.ndarray, partitions: Partitions) -> pa.Table:
    """Tell the partition of each object, whose number is given."""
    pixel = partitions.pixel[number]
    columns = [
        names,
        pa.array(partitions.order[number].astype(np.uint8)),
        pa.array((pixel // DIRECTORY * DIRECTORY).astype(np.uint64)),
        pa.array(pixel.astype(np.uint64)),
    ]
    return pa.Table.from_arrays(columns, names=[column.name for column in COLUMNS])
