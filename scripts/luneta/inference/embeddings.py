"""The file embeddings/{task}/{shard}.parquet: what a network sees in every object of a shard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from luneta.parquet import read_parquet


def schema(count: int) -> pa.Schema:
    """Give the columns of embeddings/{task}/{shard}.parquet, for so many features."""
    return pa.schema([("object_id", pa.string()), ("features", pa.list_(pa.float32(), count))])


def spread(ids: pa.Array, usable: np.ndarray, features: np.ndarray) -> pa.RecordBatch:
    """Lay the features of the usable objects over all rows, null for the others.

    Parameters
    ----------
    ids
        Names of all rows.
    usable
        bool (row,).
    features
        (usable object, feature), float32.
    """
    count = features.shape[1]
    full = np.zeros((len(usable), count), "float32")
    full[usable] = features
    values = pa.FixedSizeListArray.from_arrays(
        pa.array(full.ravel()), count, mask=pa.array(~usable)
    )
    return pa.record_batch([ids, values], schema=schema(count))


def read_features(path: Path | str) -> tuple[pa.ChunkedArray, np.ndarray, np.ndarray]:
    """Read the names of a shard's rows, bool (row,) of the usable, and features of these.

    Returns
    -------
    tuple
        Names, mask, float32 (usable object, feature).
    """
    table = read_parquet(path)
    column = table["features"].combine_chunks()
    usable = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.drop_null().flatten().to_numpy()
    return table["object_id"], usable, values.reshape(int(usable.sum()), column.type.list_size)
