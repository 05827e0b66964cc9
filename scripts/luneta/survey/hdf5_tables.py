"""Reading tables of HDF5 files: one-dimensional datasets side by side, or a dataset of records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from luneta.survey.arrow_columns import array_column, object_column, table_of, with_missing
from luneta.survey.hdf5_files import address_of, open_hdf5, own_dataset, own_items, read_rows
from luneta.survey.table_choice import Listing, TableError, require
from luneta.survey.yaml_headers import read_units

# Attributes by which writers tell the value that stands for none.
NULLS = ("_FillValue", "missing_value", "FillValue", "fill_value", "NULL", "null")
META = ".__table_column_meta__"  # of astropy: units, and which columns are masks
MOST_DEPTH = 8
MOST_GROUPS = 1000
# Attributes that are read; all others stay where they are.
SCALING = ("scale_factor", "add_offset")
UNITS = ("unit", "units", "UNIT")


class HDF5Tables:
    """The tables of an HDF5 file: the root or a group with columns, or a dataset of records.

    Attributes
    ----------
    tables : list of Listing
        Datasets of records before columns side by side, the root before its groups.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file = open_hdf5(path)
        found = list(_tables(self._file, set()))
        found.sort(key=lambda item: (item[0].count("/"), isinstance(item[1], h5py.Group)))
        self._items = [item for _, item in found]
        self.tables = [
            _listing(number, name, item, number == 0 or name != "")
            for number, (name, item) in enumerate(found)
        ]

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, table: Listing, columns: Sequence[str] | None) -> pa.Table:
        """Read columns of a table, in its order; all if not given."""
        require(table, columns or (), self._path)
        item = self._items[table.number]
        about = _about(item)
        wanted = [name for name in table.names if columns is None or name in columns]
        parts = _columns(item)
        values = {name: _values(parts[name], item, name) for name in wanted}
        for name in wanted:
            if f"{name}.mask" in parts and _is_mask(f"{name}.mask", parts, about):
                masked = pa.array(np.asarray(_stored(parts[f"{name}.mask"]), bool))
                values[name] = with_missing(values[name], masked)
        units = {name: _unit(item, name, parts[name]) or about.get(name) for name in wanted}
        return table_of(values, units)


def _tables(
    group: h5py.Group, seen: set[int], depth: int = 0
) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Go through a file, each group once; links that lead into other files are not followed."""
    _see(group, seen)
    items = list(_items(group))
    if any(_is_column(item) for _, item in items):
        yield group.name.strip("/"), group
    for name, item in items:
        if isinstance(item, h5py.Dataset) and item.dtype.names and item.ndim == 1:
            yield f"{group.name.strip('/')}/{name}".strip("/"), item
        elif isinstance(item, h5py.Group) and depth < MOST_DEPTH and address_of(item) not in seen:
            yield from _tables(item, seen, depth + 1)


def _see(group: h5py.Group, seen: set[int]) -> None:
    seen.add(address_of(group))
    if len(seen) > MOST_GROUPS:
        raise TableError(
            f"{group.file.filename}: the file has more than {MOST_GROUPS:,} groups, and each may "
            "be a table; write the table into a file of its own"
        )


def _items(group: h5py.Group) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    return ((name, item) for name, item in own_items(group) if not name.endswith(META))


def _is_column(item) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim == 1 and not item.dtype.names


def _columns(item: h5py.Group | h5py.Dataset) -> dict:
    """Columns by name; of a group those that are as long as the longest."""
    if isinstance(item, h5py.Dataset):
        return {name: _Field(item, name) for name in item.dtype.names}
    lists = {name: part for name, part in _items(item) if _is_column(part)}
    length = max((len(part) for part in lists.values()), default=0)
    return {name: part for name, part in lists.items() if len(part) == length}


class _Field:
    """A field of a dataset of records."""

    def __init__(self, dataset: h5py.Dataset, name: str):
        self.dataset = dataset
        self.name = name
        self.dtype = dataset.dtype[name]


def _listing(number: int, name: str, item, is_usual: bool) -> Listing:
    about = _about(item)
    parts = _columns(item)
    others = {n: what for n, part in parts.items() if (what := _not_one_value(part))}
    if isinstance(item, h5py.Group):
        arrays = {n: part for n, part in _items(item) if isinstance(part, h5py.Dataset)}
        others |= {n: _shape_of(part) for n, part in arrays.items() if part.ndim > 1}
    names = [n for n in parts if n not in others and not _is_mask(n, parts, about)]
    return Listing((name or "/",), names, others, number, is_usual)


def _not_one_value(part) -> str | None:
    kind = part.dtype
    if kind.subdtype is not None:
        return f"an array of shape {kind.shape} in each row"
    if kind.kind == "c":
        return "complex numbers"
    if kind.kind == "O" and h5py.check_string_dtype(kind) is None:
        return "an array of varying length, or references, in each row"
    return None


def _shape_of(part: h5py.Dataset) -> str:
    return f"an array of shape {part.shape[1:]} in each row"


def _is_mask(name: str, parts: Mapping, about: Mapping[str, str]) -> bool:
    """Whether a column is the mask that astropy writes beside a masked one."""
    masked = name.removesuffix(".mask")
    return masked != name and masked in parts and parts[name].dtype.kind == "b" and bool(about)


def _stored(part: h5py.Dataset | _Field) -> np.ndarray:
    if isinstance(part, _Field):
        return np.asarray(read_rows(part.dataset, field=part.name))
    return np.asarray(read_rows(part))


def _values(part, item, name: str) -> pa.Array:
    values = _stored(part)
    if values.dtype.kind == "O":
        return object_column(list(values))
    attributes = _attributes(part, item, name)
    missing = _filled(values, attributes)
    return array_column(_unpacked(values, attributes), missing)


def _unpacked(values: np.ndarray, attributes: Mapping) -> np.ndarray:
    """Physical values of numbers that are stored scaled, as netCDF and CF define it."""
    scale, offset = (
        float(np.atleast_1d(attributes.get(key, usual))[0])
        for key, usual in (("scale_factor", 1), ("add_offset", 0))
    )
    if values.dtype.kind not in "iuf" or (scale, offset) == (1, 0):
        return values
    return values.astype(np.float64) * scale + offset


def _attributes(part, item, name: str) -> dict:
    """Attributes of a column: its own, or of a field those that PyTables calls FIELD_0_..."""
    start = f"FIELD_{item.dtype.names.index(name)}_" if isinstance(part, _Field) else ""
    holder = item if start else part
    known = (*NULLS, *SCALING, *UNITS)
    return {key: holder.attrs[start + key] for key in known if start + key in holder.attrs}


def _filled(values: np.ndarray, attributes: Mapping) -> np.ndarray | None:
    """Whether a value is the one that stands for none; None if there is no such value."""
    given = [np.atleast_1d(attributes[name])[0] for name in NULLS if name in attributes]
    if not given or values.dtype.kind in "SU":
        return None
    missing = np.zeros(len(values), bool)
    for null in given:
        with np.errstate(invalid="ignore"):
            missing |= values == null
    return missing


def _unit(item, name: str, part) -> str | None:
    attributes = _attributes(part, item, name)
    unit = next((attributes[key] for key in UNITS if key in attributes), None)
    return unit.decode() if isinstance(unit, bytes) else unit


def _about(item) -> dict[str, str]:
    """Units of a dataset of records that astropy wrote; empty if it is of another writer."""
    if not isinstance(item, h5py.Dataset):
        return {}
    about = own_dataset(item.file, f"{item.name}{META}")
    if about is None:
        return {}
    return read_units([line.decode() for line in np.atleast_1d(read_rows(about))])
