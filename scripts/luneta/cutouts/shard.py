"""The shard file: cutouts of many objects in one memory-mapped Arrow file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
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
    """A shard file, mapped into memory; nothing is read before it is asked for.

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
        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        metadata = self._reader.schema.metadata
        self.bands = json.loads(metadata[b"bands"])
        self.pixels = metadata[b"pixels"].decode()
        self.shape = tuple(self._reader.schema.field("image").type.shape)

    def __len__(self) -> int:
        return sum(batch.num_rows for batch in self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for number in range(self._reader.num_record_batches):
            yield self._reader.get_batch(number)

    def batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Give (object_id, images) of each stored batch.

        Images are views into the file: shape (objects, band, y, x), float32.
        """
        for batch in self._batches():
            yield np.array(batch["object_id"].to_pylist(), object), self._images(batch)

    def _images(self, batch: pa.RecordBatch) -> np.ndarray:
        storage = batch["image"].storage
        values = storage.values.slice(storage.offset * storage.type.list_size)
        flat = values.to_numpy(zero_copy_only=True)[: len(storage) * storage.type.list_size]
        return flat.reshape(len(storage), *self.shape)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Copy the cutouts of some rows; shape (objects, band, y, x), float32."""
        rows = np.asarray(rows, dtype=np.int64)
        images = np.empty((len(rows), *self.shape), np.float32)
        start = 0
        for batch in self._batches():
            here = (rows >= start) & (rows < start + batch.num_rows)
            if here.any():
                images[here] = self._images(batch)[rows[here] - start]
            start += batch.num_rows
        if len(rows) and rows.max() >= start:
            raise IndexError(f"row {rows.max()} asked of a shard of {start} cutouts")
        return images
