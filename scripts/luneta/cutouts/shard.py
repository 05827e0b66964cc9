"""The shard file: cutouts of many objects in one memory-mapped Arrow file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from luneta.files import atomic_path

ROWS_PER_BATCH = 1024


def _schema(bands: Sequence[str], size: int, pixels: str) -> pa.Schema:
    image = pa.fixed_shape_tensor(
        pa.float32(), (len(bands), size, size), dim_names=("band", "y", "x")
    )
    fields = [
        pa.field("object_id", pa.string()),
        pa.field("flags", pa.int32()),
        pa.field("image", image),
    ]
    return pa.schema(fields, metadata={"bands": json.dumps(list(bands)), "pixels": pixels})


def write_shard(
    path: Path | str,
    object_id: np.ndarray,
    flags: np.ndarray,
    images: np.ndarray,
    bands: Sequence[str],
    pixels: str,
) -> None:
    """Write cutouts as an Arrow IPC file.

    Parameters
    ----------
    object_id : numpy.ndarray
        Shape (objects,), object.
    flags : numpy.ndarray
        Shape (objects,), int32.
    images : numpy.ndarray
        Cutouts, shape (objects, band, y, x), float32; bad pixels are NaN.
    bands : sequence of str
        Names along the band axis.
    pixels : str
        `flux` (units of sky noise) or `display` (0 to 255).
    """
    schema = _schema(bands, images.shape[-1], pixels)
    with (
        atomic_path(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for start in range(0, len(images), ROWS_PER_BATCH):
            rows = slice(start, start + ROWS_PER_BATCH)
            writer.write_batch(_batch(schema, object_id[rows], flags[rows], images[rows]))


def _batch(schema: pa.Schema, object_id, flags, images) -> pa.RecordBatch:
    storage = pa.FixedSizeListArray.from_arrays(
        pa.array(images.reshape(-1)), int(np.prod(images.shape[1:]))
    )
    tensor = pa.ExtensionArray.from_storage(schema.field("image").type, storage)
    columns = [pa.array(object_id, pa.string()), pa.array(flags, pa.int32()), tensor]
    return pa.record_batch(columns, schema=schema)


class Shard:
    """A shard file, mapped into memory: only the pages that are read take any.

    Attributes
    ----------
    bands : list of str
        Names along the band axis.
    pixels : str
        `flux` or `display`.
    shape : tuple of 3 ints
        Shape of one cutout, (band, y, x).
    """

    def __init__(self, path: Path | str):
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = reader.schema.metadata
        self.bands: list[str] = json.loads(metadata[b"bands"])
        self.pixels = metadata[b"pixels"].decode()
        self.shape = tuple(reader.schema.field("image").type.shape)
        column = reader.read_all()["image"]
        self._chunks = [chunk.to_numpy_ndarray() for chunk in column.chunks if len(chunk)]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Copy the cutouts of some rows, in any order; shape (objects, band, y, x), float32."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and rows.max() >= len(self):
            raise IndexError(f"row {rows.max()} asked of a shard of {len(self)} cutouts")
        images = np.empty((len(rows), *self.shape), np.float32)
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(chunks):
            chosen = chunks == number
            images[chosen] = self._chunks[number][rows[chosen] - self._starts[number]]
        return images

    def read(self, start: int, stop: int) -> np.ndarray:
        """Copy the cutouts of rows `start` to `stop`; shape (objects, band, y, x), float32."""
        return self.take(np.arange(start, stop))
