"""What an HDF5 file holds itself, and no more than it can hold.

A file of HDF5 can lead to any other file: by soft and external links, external storage, virtual
datasets. It can also claim, or unpack to, more than any memory holds. Each file that others
delivered is opened and read by the functions of this module.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from luneta.survey.bounds import ALWAYS_ALLOWED, check_size, most_bytes, shown
from luneta.survey.fits_headers import ImageError, require_file
from luneta.survey.table_choice import TableError

DEFLATE = h5py.h5z.FILTER_DEFLATE
BEST_DEFLATE = 1032  # bytes that one deflated byte can stand for
MOST_ITEMS = 20_000
ROWS_OF_WORDS = (2**10, 2**16)  # that are read at once


def open_hdf5(path: Path | str) -> h5py.File:
    """Open a file for reading.

    Raises
    ------
    TableError
        If it is not a plain file.
    OSError
        If it is not HDF5.
    """
    try:
        require_file(path)
    except ImageError as error:
        raise TableError(str(error)) from None
    return h5py.File(path, "r")


def own_item(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset | None:
    """Find a group or dataset that lies in the file itself.

    Parameters
    ----------
    name : str
        Of one item, or a path such as `group/stars`.

    Returns
    -------
    h5py.Group, h5py.Dataset or None
        None if there is no such item.

    Raises
    ------
    TableError
        If a soft or external link stands there, or a dataset takes its values from another file
        (external storage, or a virtual dataset).
    """
    item = group
    for part in filter(None, name.split("/")):
        if not isinstance(item, h5py.Group):
            return None
        if not item.id.links.exists(part.encode()):
            return None
        if not is_own_link(item, part):
            raise TableError(
                f"{group.file.filename}: {name!r} is a soft or external link, and luneta follows "
                f"none; name the dataset itself, or copy it into the file with h5copy"
            )
        item = item[part]
    _refuse_other_files(item)
    return item


def own_dataset(group: h5py.Group, name: str) -> h5py.Dataset | None:
    """Find a dataset that lies in the file itself; see `own_item`.

    Returns
    -------
    h5py.Dataset or None
        None if there is no dataset of that name.

    Raises
    ------
    TableError
        As of `own_item`.
    """
    item = own_item(group, name)
    return item if isinstance(item, h5py.Dataset) else None


def own_items(group: h5py.Group) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Go through the items of a group that are no soft or external links.

    Raises
    ------
    TableError
        As of `own_item`, or if there are more than 20,000.
    """
    if len(group) > MOST_ITEMS:
        raise TableError(
            f"{group.file.filename}: the group {group.name!r} holds {len(group):,} items, and "
            f"luneta reads {MOST_ITEMS:,} at most; write the table as one dataset of records"
        )
    for name in group:
        if is_own_link(group, name):
            yield name, own_item(group, name)


def is_own_link(group: h5py.Group, name: str) -> bool:
    """Whether an item of a group is no soft or external link."""
    return group.id.links.get_info(name.encode()).type == h5py.h5l.TYPE_HARD


def address_of(item: h5py.Group | h5py.Dataset) -> int:
    """Return the place of an item in its file, which tells whether two names mean one item."""
    return h5py.h5o.get_info(item.id).addr


def _refuse_other_files(item: h5py.Group | h5py.Dataset) -> None:
    if not isinstance(item, h5py.Dataset):
        return
    kind = "a virtual dataset" if item.is_virtual else "stored outside" if item.external else None
    if kind is not None:
        raise TableError(
            f"{item.file.filename}: {item.name!r} is {kind}: its values lie in other files, which "
            f"luneta does not open; write the values into the file itself, such as by h5repack"
        )


def read_rows(
    dataset: h5py.Dataset, rows: slice | None = None, field: str | None = None
) -> np.ndarray:
    """Read values, after it was checked that the file can hold them.

    Parameters
    ----------
    rows : slice, optional
        Along the first axis, of step 1; all if not given.
    field : str, optional
        Of a dataset of records, which one.

    Raises
    ------
    TooLarge
        If the values take more memory than the bound, or than what is stored can stand for.
    TableError
        If a chunk is larger than 1 GiB, is packed twice, or unpacks to more than it should.
    """
    start, stop = _ends(dataset, rows)
    _refuse_bombs(dataset, start, stop, field)
    values = dataset if field is None else dataset.fields(field)
    if dataset.ndim == 0:
        return values[()]
    kind = dataset.dtype if field is None else dataset.dtype[field]
    if not kind.hasobject:
        return values[start:stop]
    return _read_words(values, start, stop, dataset)


def _ends(dataset: h5py.Dataset, rows: slice | None) -> tuple[int, int]:
    """Return the first row and the one behind the last."""
    length = dataset.shape[0] if dataset.ndim else 1
    start, stop, _ = (rows or slice(None)).indices(length)
    return start, max(start, stop)


def _refuse_bombs(dataset: h5py.Dataset, start: int, stop: int, field: str | None) -> None:
    kind = dataset.dtype if field is None else dataset.dtype[field]
    row = int(np.prod(dataset.shape[1:], dtype=object)) * kind.itemsize
    size = (stop - start) * row
    # Large files are slow to tell what they store, so they are asked only where it matters.
    check_size(size, dataset.id.get_storage_size() if size > ALWAYS_ALLOWED else size)
    if dataset.chunks is None:
        return
    chunk = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
    if chunk > ALWAYS_ALLOWED:
        raise _refused(
            dataset,
            f"is stored in chunks of {shown(chunk)}, and each is read whole; chunks may have "
            f"{shown(ALWAYS_ALLOWED)}: write it anew with smaller ones, such as by h5repack",
        )
    filters = dataset.id.get_create_plist()
    packers = [filters.get_filter(number)[0] for number in range(filters.get_nfilters())]
    if packers.count(DEFLATE) > 1:
        raise _refused(dataset, "is packed twice by gzip: write it anew, such as by h5repack")
    may_swell = _file_size(dataset) * BEST_DEFLATE > ALWAYS_ALLOWED
    if DEFLATE in packers and may_swell and stop > start:
        _refuse_swelling(dataset, start, stop, chunk)


def _refuse_swelling(dataset: h5py.Dataset, start: int, stop: int, size: int) -> None:
    """Refuse chunks that unpack to more than a chunk has: the library makes room for all of it."""
    rows = (slice(start, stop, 1), *(slice(0, length, 1) for length in dataset.shape[1:]))
    for part in dataset.iter_chunks(rows):
        place = tuple(
            s.start // length * length for s, length in zip(part, dataset.chunks, strict=True)
        )
        try:
            _, packed = dataset.id.read_direct_chunk(place)
        except (OSError, RuntimeError):  # there is no such chunk: its values are all the same
            continue
        if len(packed) * BEST_DEFLATE > ALWAYS_ALLOWED and _unpacks_beyond(packed, size):
            raise _refused(dataset, f"is damaged: a chunk unpacks to more than {shown(size)}")


def _file_size(dataset: h5py.Dataset) -> int:
    return Path(dataset.file.filename).stat().st_size


def _unpacks_beyond(packed: bytes, size: int) -> bool:
    """Whether a deflated stream holds more than so many bytes, and a few for a checksum."""
    stream = zlib.decompressobj()
    most = size + 64
    total = 0
    rest = packed
    try:
        while rest and not stream.eof and total <= most:
            total += len(stream.decompress(rest, 2**20))
            rest = stream.unconsumed_tail
    except zlib.error:  # the library says so better
        return False
    return total > most


def _refused(dataset: h5py.Dataset, reason: str) -> TableError:
    return TableError(f"{dataset.file.filename}: {dataset.name!r} {reason}")


def _read_words(values, start: int, stop: int, dataset: h5py.Dataset) -> np.ndarray:
    """Read words of any length, few at a time: many rows may refer to one long word."""
    longest = max(1, _file_size(dataset))
    at_once = int(np.clip(ALWAYS_ALLOWED // (4 * longest), *ROWS_OF_WORDS))
    parts = []
    total = 0
    for first in range(start, stop, at_once):
        part = values[first : min(first + at_once, stop)]
        total += sum(map(_length, part.ravel()))
        if total > most_bytes():
            check_size(total, longest)
        if total > max(ALWAYS_ALLOWED, 2 * longest):
            raise _refused(dataset, f"has many rows that refer to one word of its {shown(longest)}")
        parts.append(part)
    return np.concatenate(parts) if parts else values[start:start]


def _length(word: object) -> int:
    return len(word) if isinstance(word, bytes | str) else 8
