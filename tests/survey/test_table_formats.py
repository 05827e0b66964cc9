"""One small table, written in every format by other libraries, is read as the same table."""

from __future__ import annotations

import io
import math

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.io.votable import from_table
from astropy.table import MaskedColumn, Table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from luneta.survey.sources import kept_columns
from luneta.survey.tables import read_table

# Type by column; text is checked apart.
KINDS = {"flag": "?", "small": "<i2", "whole": "<i4", "long": "<i8", "single": "<f4", "real": "<f8"}
UNITS = {"real": "deg", "single": "mag", "long": "s"}
NULL = {"<i2": -32768, "<i4": -(2**31), "<i8": -(2**63)}
# Types that only some formats tell; the others are wider.
WIDE = {"<i2": pa.int64(), "<i4": pa.int64(), "<f4": pa.float64()}

wholes = {k: st.integers(NULL[k] + 1, -NULL[k] - 1) for k in NULL}
words = st.text("abcXYZ019 _-.é", min_size=1, max_size=6).map(str.strip).filter(
    lambda word: word not in ("", "-", ".", "_", "--", "---", "...", "....")
)  # fmt: skip
floats = {
    "<f4": st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False),
    "<f8": st.floats(-1e300, 1e300, allow_subnormal=False),
}
values = {"?": st.booleans(), **wholes, **floats}


@st.composite
def tables(draw):
    """Columns of values and None; none of them is None alone, so that all types can be told."""
    count = draw(st.integers(2, 5))
    columns = {"name": draw(st.lists(words, min_size=count, max_size=count))}
    columns["name"] = [f"n{word}" for word in columns["name"]]
    for name, kind in KINDS.items():
        some = draw(st.lists(st.none() | values[kind], min_size=count, max_size=count))
        some[draw(st.integers(0, count - 1))] = draw(values[kind])
        columns[name] = some
    columns["word"] = draw(st.lists(st.none() | words, min_size=count, max_size=count))
    columns["word"][0] = "q" + draw(words)
    return columns


def masked(columns):
    """Build the table in astropy; an undefined number is masked over the value FITS uses for it."""
    table = Table({"name": columns["name"]}, masked=True)
    for name, kind in KINDS.items():
        fill = NULL.get(kind, 0)
        data = [fill if value is None else value for value in columns[name]]
        mask = [value is None for value in columns[name]]
        table[name] = MaskedColumn(np.array(data, kind), mask=mask, unit=UNITS.get(name))
        if kind in NULL:
            table[name].fill_value = fill
    table["word"] = MaskedColumn(
        [word or "" for word in columns["word"]], mask=[word is None for word in columns["word"]]
    )
    return table


def write_fits(path, columns):
    """Write by astropy's columns, but the logicals byte by byte: astropy cannot write undefined."""
    letters = {"<i2": "I", "<i4": "J", "<i8": "K", "<f4": "E", "<f8": "D"}
    width = max(len(word.encode()) for word in columns["name"])
    given = [fits.Column("name", f"{width}A", array=encoded(columns["name"]))]
    flags = [{None: 0, True: ord("T"), False: ord("F")}[value] for value in columns["flag"]]
    for name, kind in KINDS.items():
        if kind == "?":
            given.append(fits.Column(name, "B", array=np.array(flags, np.uint8)))
            continue
        fill = NULL.get(kind, math.nan)
        data = np.array([fill if v is None else v for v in columns[name]], kind)
        null = {"null": NULL[kind]} if kind in NULL else {}
        given.append(fits.Column(name, letters[kind], array=data, unit=UNITS.get(name), **null))
    width = max(len((word or "").encode()) for word in columns["word"])
    given.append(fits.Column("word", f"{width}A", array=encoded(columns["word"])))
    table = fits.BinTableHDU.from_columns(given)
    buffer = io.BytesIO()
    table.writeto(buffer)
    content = buffer.getvalue().replace(b"TFORM2  = 'B       '", b"TFORM2  = 'L       '")
    path.write_bytes(content)


def encoded(strings):
    return np.array([(word or "").encode() for word in strings])


def write_votable(path, columns):
    table = masked(columns)
    votable = from_table(table)
    for field in votable.get_first_table().fields:
        if field.name in KINDS and KINDS[field.name] in NULL:
            field.values.null = NULL[KINDS[field.name]]
    votable.to_xml(str(path))


def write_ecsv(path, columns):
    masked(columns).write(path, format="ascii.ecsv", overwrite=True)


def write_parquet(path, columns):
    kinds = {"?": pa.bool_()} | {k: pa.from_numpy_dtype(np.dtype(k)) for k in KINDS.values()}
    fields = [pa.field("name", pa.string_view())]
    for name, kind in KINDS.items():
        unit = {"unit": UNITS[name]} if name in UNITS else None
        fields.append(pa.field(name, kinds[kind], metadata=unit))
    fields.append(pa.field("word", pa.dictionary(pa.int8(), pa.string())))
    arrays = [pa.array(columns[field.name], field.type) for field in fields]
    pq.write_table(pa.table(arrays, schema=pa.schema(fields)), path)


def write_astropy_parquet(path, columns):
    masked(columns).write(path, format="parquet", overwrite=True)


def write_hdf5(path, columns):
    """One dataset a column, as h5py writes them; an attribute tells what stands for none."""
    with h5py.File(path, "w") as file:
        for name, kind in KINDS.items():
            some = columns[name]
            if kind == "?":  # there is no third value
                kind, fill = "<i1", -1
            else:
                fill = NULL.get(kind, math.nan)
            file[name] = np.array([fill if v is None else v for v in some], kind)
            file[name].attrs["_FillValue"] = np.array([fill], kind)
            if name in UNITS:
                file[name].attrs["units"] = UNITS[name]
        for name in ("name", "word"):
            file[name] = [word or "" for word in columns[name]]


def write_astropy_hdf5(path, columns):
    table = masked(columns)
    for name in ("name", "word"):
        mask = table[name].mask
        table[name] = MaskedColumn(encoded(columns[name]), mask=mask)
    table.write(path, path="rows", serialize_meta=True, overwrite=True)


def write_csv(path, columns, comma=",", none="NULL"):
    names = list(columns)
    lines = [comma.join(names)]
    for row in zip(*columns.values(), strict=True):
        cells = [
            "" if value is None and name == "word" else none if value is None else written(value)
            for name, value in zip(names, row, strict=True)
        ]
        lines.append(comma.join(cells))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def written(value):
    if isinstance(value, float | np.floating):
        return np.format_float_scientific(value)
    return str(value)


def write_tsv(path, columns):
    write_csv(path, columns, "\t", "--")


WRITERS = {
    "list.fits": write_fits,
    "list.vot": write_votable,
    "list.ecsv": write_ecsv,
    "list.parquet": write_parquet,
    "by_astropy.parquet": write_astropy_parquet,
    "list.h5": write_hdf5,
    "by_astropy.hdf5": write_astropy_hdf5,
    "list.csv": write_csv,
    "list.tsv": write_tsv,
}
WITHOUT_UNITS = ("list.csv", "list.tsv")


def expected_type(file, kind):
    if file == "list.h5" and kind == "?":
        return pa.int8()
    if file in WITHOUT_UNITS and kind in WIDE:
        return WIDE[kind]
    return pa.bool_() if kind == "?" else pa.from_numpy_dtype(np.dtype(kind))


def as_read(file, column, name):
    """Values as they must be read: float32 rounds, and HDF5 has no booleans with a third value."""
    kind = KINDS.get(name)
    if kind == "<f4" and file not in WITHOUT_UNITS:
        return [None if v is None else float(np.float32(v)) for v in column]
    if kind == "?" and file == "list.h5":
        return [None if v is None else int(v) for v in column]
    return column


@pytest.mark.parametrize("file", WRITERS)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(columns=tables())
def test_a_table_is_the_same_in_every_format(tmp_path, file, columns):
    WRITERS[file](tmp_path / file, columns)
    read = read_table(tmp_path / file, text_columns=["name"])
    assert sorted(read.column_names) == sorted(columns)
    kept = kept_columns(read, {name: name for name in columns})
    for name, given_values in columns.items():
        assert kept[name].to_pylist() == as_read(file, given_values, name), (file, name)
    for name, kind in KINDS.items():
        whole_floats = file in WITHOUT_UNITS and kind in floats
        if not whole_floats:  # 1.0 in a CSV may be any number
            assert kept.schema.field(name).type == expected_type(file, kind), (file, name)
        unit = None if file in WITHOUT_UNITS else UNITS.get(name)
        about = kept.schema.field(name).metadata or {}
        assert about.get(b"unit", b"").decode() == (unit or ""), (file, name)
    assert kept.schema.field("word").type == pa.string()


def test_columns_of_hdf5_are_scaled_as_their_attributes_say_but_for_what_is_missing(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["ra"] = np.array([100, -1, 300], "i2")
        file["ra"].attrs.update({"scale_factor": 0.5, "add_offset": [10.0], "_FillValue": -1})
        file["id"] = np.array([2**62 + 1, 2, 3], "i8")
        file["id"].attrs["scale_factor"] = 1
    found = read_table(tmp_path / "t.h5")
    assert found["ra"].to_pylist() == [60.0, None, 160.0]
    assert found["id"].to_pylist() == [2**62 + 1, 2, 3]


def test_two_ids_of_latin_1_stay_two(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file.create_dataset("id", data=[b"a\xe9", b"a\xe8"], dtype=h5py.string_dtype("ascii"))
    assert read_table(tmp_path / "t.h5")["id"].to_pylist() == ["a\xe9", "a\xe8"]
