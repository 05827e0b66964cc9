"""The shard file: cutouts of many objects in one memory-mapped Arrow file."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa

from luneta.files import atomic_path, set_aside
from luneta.seals import BrokenSeal, Seal, seal

ROWS_PER_BATCH = 1024
LARGEST = {"float16": 65504.0, "float32": float(np.finfo(np.float32).max)}


def _schema(
    bands: Sequence[str], size: int, pixels: str, dtype: str, compression: str
) -> pa.Schema:
    image = pa.fixed_shape_tensor(
        pa.from_numpy_dtype(dtype), (len(bands), size, size), dim_names=("band", "y", "x")
    )
    fields = [
        pa.field("object_id", pa.string()),
        pa.field("flags", pa.int32()),
        pa.field("image", image),
    ]
    described = {"bands": json.dumps(list(bands)), "pixels": pixels, "compression": compression}
    return pa.schema(fields, metadata=described)


class ShardWriter:
    """A context manager that writes cutouts, block by block, as an Arrow IPC file.

    The file appears under its name, sealed, when the context ends without an error.

    Parameters
    ----------
    path : path
        `cutouts/{shard}.arrow`.
    bands : sequence of str
        Names along the band axis.
    size : int
        Side of a cutout in pixels.
    pixels : str
        `flux` (units of sky noise) or `display` (0 to 255).
    dtype : {"float32", "float16"}
        Type of the stored pixels.
    compression : {"none", "lz4", "zstd"}
        Only `none` can be mapped into memory.
    """

    def __init__(
        self,
        path: Path | str,
        bands: Sequence[str],
        size: int,
        pixels: str,
        dtype: str = "float32",
        compression: str = "none",
    ):
        self._path, self._dtype = path, dtype
        self._schema = _schema(bands, size, pixels, dtype, compression)
        self._compression = None if compression == "none" else compression
        self._open_things = ExitStack()

    def __enter__(self) -> ShardWriter:
        with ExitStack() as things:
            temporary = things.enter_context(atomic_path(self._path))
            self._ends: list[int] = []
            things.push(lambda kind, *_: seal(temporary, self._ends) if kind is None else None)
            sink = self._sink = things.enter_context(pa.OSFile(str(temporary), "wb"))
            options = pa.ipc.IpcWriteOptions(compression=self._compression)
            writer = pa.ipc.new_file(sink, self._schema, options=options)
            self._writer = things.enter_context(writer)
            self._open_things = things.pop_all()
        return self

    def __exit__(self, *error) -> bool | None:
        return self._open_things.__exit__(*error)

    def write(self, object_id: np.ndarray, flags: np.ndarray, images: np.ndarray) -> None:
        """Add cutouts.

        Parameters
        ----------
        object_id : numpy.ndarray
            Shape (objects,), object.
        flags : numpy.ndarray
            Shape (objects,), int32.
        images : numpy.ndarray
            Shape (objects, band, y, x), float32; bad pixels are NaN.
        """
        for start in range(0, len(images), ROWS_PER_BATCH):
            part = slice(start, start + ROWS_PER_BATCH)
            stored = _stored(images[part], self._dtype)
            self._writer.write_batch(_batch(self._schema, object_id[part], flags[part], stored))
            self._ends.append(self._sink.tell())


def write_shard(
    path: Path | str,
    object_id: np.ndarray,
    flags: np.ndarray,
    images: np.ndarray,
    bands: Sequence[str],
    pixels: str,
    dtype: str = "float32",
    compression: str = "none",
) -> None:
    """Write cutouts that are all there; see `ShardWriter`."""
    with ShardWriter(path, bands, images.shape[-1], pixels, dtype, compression) as shard:
        shard.write(object_id, flags, images)


def _stored(images: np.ndarray, dtype: str) -> np.ndarray:
    if images.dtype == dtype:
        return images
    return np.clip(images, -LARGEST[dtype], LARGEST[dtype]).astype(dtype)


def _batch(schema: pa.Schema, object_id, flags, images) -> pa.RecordBatch:
    storage = pa.FixedSizeListArray.from_arrays(
        pa.array(images.reshape(-1)), int(np.prod(images.shape[1:]))
    )
    tensor = pa.ExtensionArray.from_storage(schema.field("image").type, storage)
    columns = [pa.array(object_id, pa.string()), pa.array(flags, pa.int32()), tensor]
    return pa.record_batch(columns, schema=schema)


class Shard:
    """A shard file, mapped into memory: only the pages that are read take any.

    Of a compressed file one batch of a thousand cutouts is in memory at a time. What is read is
    checked first, against the checksums that `ShardWriter` has laid into the file. Any method
    may raise `luneta.files.DamagedFile`; the file has then been set aside.

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
        self._path = Path(path)
        self._memory = _map(self._path)
        self._content, view = pa.py_buffer(self._memory), memoryview(self._memory)
        with self._checked():
            self._seal = Seal(lambda start, stop: view[start:stop], len(view))
        self._reader = pa.ipc.open_file(pa.BufferReader(self._content))
        schema = self._reader.schema
        self.bands: list[str] = json.loads(schema.metadata[b"bands"])
        self.pixels = schema.metadata[b"pixels"].decode()
        self.shape = tuple(schema.field("image").type.shape)
        self._is_compressed = schema.metadata.get(b"compression", b"none") != b"none"
        for number in range(self._reader.num_record_batches):
            self._check(number, 0, 1)
        self._starts = np.cumsum([0, *_lengths(self._content)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except BrokenSeal as error:
            raise set_aside(self._path, str(error)) from None

    def _check(self, number: int, start: int = 0, stop: int | None = None) -> None:
        """Check bytes of a batch, counted from its start; all of it unless told."""
        if not self._seal.is_there:
            return
        first, last = self._seal.batch(number)
        with self._checked():
            self._seal.check(first + start, last if stop is None else first + stop)

    def _check_rows(self, number: int, rows: np.ndarray) -> None:
        """Check all that is read for some rows of a batch."""
        dense = len(rows) > 8 and 2 * len(rows) > np.ptp(rows)
        if dense or self._is_compressed or not self._seal.is_there:
            return self._check(number)
        first, size = self._pixels(number)
        self._check(number, 0, first)
        for row in rows:
            self._check(number, first + row * size, first + (row + 1) * size)
        return None

    def _pixels(self, number: int) -> tuple[int, int]:
        """Where in a batch the pixels start, and the bytes of a cutout."""
        pixels = self._reader.get_batch(number).column("image").storage.values.buffers()[1]
        first = pixels.address - self._content.address - self._seal.batch(number)[0]
        return first, pixels.size // int(self._starts[number + 1] - self._starts[number])

    def mapped(self, number: int) -> np.ndarray:
        """View a batch of cutouts, without a copy if the file is not compressed.

        Returns
        -------
        numpy.ndarray
            Shape (objects, band, y, x), float32 or float16.
        """
        self._check(number)
        return self._view(number)

    def _view(self, number: int) -> np.ndarray:
        return self._reader.get_batch(number).column("image").to_numpy_ndarray()

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Copy the cutouts of some rows, in any order; shape (objects, band, y, x), float32."""
        rows = np.asarray(rows, dtype=np.int64)
        if len(rows) and rows.max() >= len(self):
            raise IndexError(f"row {rows.max()} asked of a shard of {len(self)} cutouts")
        images = np.empty((len(rows), *self.shape), np.float32)
        batches = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(batches):
            chosen = batches == number
            here = rows[chosen] - self._starts[number]
            self._check_rows(int(number), here)
            images[chosen] = self._view(int(number))[here]
        return images

    def read(self, start: int, stop: int) -> np.ndarray:
        """Give the cutouts of rows `start` to `stop`; shape (objects, band, y, x), float32.

        Of a file that is not compressed they are not copied, and cannot be written to, where they
        are float32 and lie in one batch. Only what is asked for is checked.
        """
        if stop > len(self):
            raise IndexError(f"row {stop - 1} asked of a shard of {len(self)} cutouts")
        if stop <= start:
            return np.empty((0, *self.shape), np.float32)
        first, last = np.searchsorted(self._starts, [start, stop - 1], side="right") - 1
        parts = [
            self._span(number, *(np.clip([start, stop], *self._starts[number : number + 2])))
            for number in range(int(first), int(last) + 1)
        ]
        return (parts[0] if len(parts) == 1 else np.concatenate(parts)).astype(
            np.float32, copy=False
        )

    def release(self) -> None:
        """Take what was read out of memory; what is still viewed is read from the disk again."""
        self._memory.madvise(mmap.MADV_DONTNEED)

    def _span(self, number: int, start: int, stop: int) -> np.ndarray:
        """View the cutouts of rows of the file that lie in a batch."""
        here = slice(*(int(row - self._starts[number]) for row in (start, stop)))
        if self._is_compressed or not self._seal.is_there:
            self._check(number)
        else:
            first, size = self._pixels(number)
            self._check(number, 0, first)
            self._check(number, first + here.start * size, first + here.stop * size)
        return self._view(number)[here]


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise set_aside(path, "it is empty") from None


def _lengths(content: pa.Buffer) -> list[int]:
    """Rows of each batch, read without the cutouts, which may be compressed."""
    options = pa.ipc.IpcReadOptions(included_fields=[1])
    reader = pa.ipc.open_file(pa.BufferReader(content), options=options)
    return [reader.get_batch(number).num_rows for number in range(reader.num_record_batches)]
