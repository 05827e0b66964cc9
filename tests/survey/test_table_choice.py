"""Which of several tables in a file is meant; types that are cast once; columns that are arrays."""

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.votable import from_table, parse
from astropy.io.votable.tree import Resource
from astropy.table import Table

from luneta.survey.tables import TableError, list_columns, read_table, table_columns

STARS = {"ID": [7, 8], "RA": [1.5, 2.5]}


@pytest.fixture
def votable(tmp_path):
    file = from_table(Table({"key": ["a"]}))
    for number, name in ((1, "stars"), (2, "galaxies")):
        other = from_table(Table({"ID": [number], "RA": [1.5]}))
        table = other.get_first_table()
        table.name, table.ID = name, f"t{number}"
        resource = Resource()
        resource.tables.append(table)
        file.resources.append(resource)
    file.to_xml(str(tmp_path / "t.vot"))
    assert len(list(parse(str(tmp_path / "t.vot")).iter_tables())) == 3
    return tmp_path / "t.vot"


@pytest.mark.parametrize(("key", "value"), [("1", 1), ("stars", 1), ("t2", 2), ("GALAXIES", 2)])
def test_a_table_of_a_votable_by_number_name_or_id(votable, key, value):
    assert read_table(f"{votable}[{key}]")["ID"].to_pylist() == [value]


FIELDS = """<?xml version="1.0"?><VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">
<RESOURCE type="results"><INFO name="QUERY_STATUS" value="OK"/><TABLE>
<FIELD ID="C1" name="ra" datatype="double" unit="deg"/>
<FIELD ID="C2" name="dec" datatype="double"/>
<FIELD ID="C3" name="mag" datatype="double"/><FIELD ID="C4" name="mag" datatype="double"/>
<FIELD name="z [spec]" datatype="double"/>
<DATA><TABLEDATA><TR><TD>10</TD><TD>2</TD><TD>20</TD><TD>21</TD><TD>0.5</TD></TR></TABLEDATA></DATA>
</TABLE>{after}</RESOURCE></VOTABLE>"""


@pytest.mark.parametrize(
    ("column", "value"),
    [("ra", 10), ("C1", 10), ("dec", 2), ("C3", 20), ("C4", 21), ("z [spec]", 0.5),
     ("z__spec_", 0.5)],
)  # fmt: skip
def test_a_column_of_a_votable_by_name_or_id(tmp_path, column, value):
    (tmp_path / "t.vot").write_text(FIELDS.format(after=""))
    assert column in table_columns(tmp_path / "t.vot")
    table = read_table(tmp_path / "t.vot", columns=[column])
    assert table.to_pydict() == {column: [value]}
    assert table.schema.field(column).metadata == ({b"unit": b"deg"} if value == 10 else None)


def test_a_name_of_several_columns_of_a_votable_is_no_name(tmp_path):
    (tmp_path / "t.vot").write_text(FIELDS.format(after=""))
    with pytest.raises(TableError, match="no column 'mag'; the table has ra, dec, z .*, C3, C4"):
        read_table(tmp_path / "t.vot", columns=["mag"])


@pytest.mark.parametrize("status", ["OVERFLOW", "OK"])
def test_a_list_that_the_server_cut_short_is_told(tmp_path, caplog, status):
    after = f'<INFO name="QUERY_STATUS" value="{status}"/>'
    (tmp_path / "t.vot").write_text(FIELDS.format(after=after))
    read_table(tmp_path / "t.vot", columns=["ra"])
    warned = "t.vot: the server cut the list short (QUERY_STATUS = OVERFLOW)" in caplog.text
    assert warned == (status == "OVERFLOW")


def test_a_votable_of_several_tables_asks_which(votable):
    assert table_columns(votable) == ["key"]
    with pytest.raises(TableError, match=r"2 of its tables have the columns ID, RA: \[1\]"):
        read_table(votable, columns=["ID", "RA"])
    with pytest.raises(TableError, match=r"no table \[quasars\]; the file holds \[0\] with key"):
        read_table(f"{votable}[quasars]")


@pytest.fixture
def hdf5(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["images"] = np.zeros((2, 4, 4))
        for group, ids in (("train", [1, 2]), ("field/test", [3, 4])):
            file[f"{group}/ID"], file[f"{group}/RA"] = ids, [1.5, 2.5]
        file["field/rows"] = np.array(
            [(5, 1.5, [1, 2, 3])], [("ID", "i8"), ("z", "f8"), ("v", "f8", 3)]
        )
        file["elsewhere"] = h5py.ExternalLink("/etc/passwd", "/")
    return tmp_path / "t.h5"


@pytest.mark.parametrize(
    ("key", "ids"), [("train", [1, 2]), ("field/test", [3, 4]), ("field/rows", [5])]
)
def test_a_group_or_dataset_of_an_hdf5_file(hdf5, key, ids):
    assert read_table(f"{hdf5}[{key}]")["ID"].to_pylist() == ids


def test_an_hdf5_file_of_several_tables_asks_which(hdf5):
    assert read_table(hdf5, columns=["ID", "z"]).to_pylist() == [{"ID": 5, "z": 1.5}]
    with pytest.raises(TableError, match=r"2 of its tables have the columns ID, RA: \[train\]"):
        read_table(hdf5, columns=["ID", "RA"])
    with pytest.raises(TableError, match="'v' holds an array of shape .3,. in each row"):
        read_table(f"{hdf5}[field/rows]", columns=["v"])


def test_undefined_values_of_an_hdf5_file(tmp_path):
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["n"] = np.array([2**60 + 1, -1])
        file["n"].attrs["missing_value"] = -1
        file["x"] = np.array([1.5, -999.0], ">f4")
        file["x"].attrs["_FillValue"] = np.float32(-999)
        file["s"] = ["é", ""]
    assert read_table(tmp_path / "t.h5").to_pydict() == {
        "n": [2**60 + 1, None], "x": [1.5, None], "s": ["é", None]
    }  # fmt: skip


TEXT = ["PSF", None, "é"]


@pytest.mark.parametrize(
    "kind",
    [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.large_string()), pa.binary(),
     pa.binary_view(), pa.large_binary()],
)  # fmt: skip
def test_text_of_any_layout_is_text(tmp_path, kind):
    words = pa.array(TEXT, pa.string())
    is_view = kind in (pa.string_view(), pa.binary_view())
    column = pa.array(TEXT, kind) if is_view else words.cast(kind)
    if pa.types.is_dictionary(kind):
        column = words.dictionary_encode().cast(kind)
    pq.write_table(pa.table({"type": column}), tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet")["type"]
    assert (found.type, found.to_pylist()) == (pa.string(), TEXT)


def test_bytes_that_are_latin_1_are_text(tmp_path):
    column = pa.array(["é".encode("latin-1"), b"b", None], pa.binary())
    fixed = pa.array([b"ab", b"c\xe9", None], pa.binary(2))
    pq.write_table(pa.table({"a": column, "b": fixed}), tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet")
    assert found.to_pydict() == {"a": ["é", "b", None], "b": ["ab", "cé", None]}


def test_numbers_of_odd_types_are_plain_numbers(tmp_path):
    import decimal

    table = pa.table({
        "half": pa.array(np.array([1.5, 2.5], np.float16)),
        "price": pa.array([decimal.Decimal("1.25"), None], pa.decimal128(10, 2)),
        "id": pa.array([decimal.Decimal(2**62 + 1), None], pa.decimal128(38, 0)),
        "huge": pa.array([decimal.Decimal(10**30), None], pa.decimal128(38, 0)),
        "code": pa.array([3, None]).dictionary_encode(),
    })  # fmt: skip
    pq.write_table(table, tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet")
    assert [str(kind) for kind in found.schema.types] == [
        "float", "double", "int64", "string", "int64"
    ]  # fmt: skip
    assert found["id"].to_pylist() == [2**62 + 1, None]
    assert found["huge"].to_pylist() == [str(10**30), None]
    assert found["code"].to_pylist() == [3, None]


def test_a_uuid_is_written_out(tmp_path):
    import uuid

    name = "12345678-1234-5678-1234-567812345678"
    column = pa.array([uuid.UUID(name).bytes, None], pa.uuid())
    pq.write_table(pa.table({"id": column}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet")["id"].to_pylist() == [name, None]


def test_a_uuid_of_duckdb_is_written_out(tmp_path):
    import duckdb

    name = "12345678-1234-5678-1234-567812345678"
    duckdb.sql(f"copy (select '{name}'::uuid as id) to '{tmp_path}/t.parquet'")
    assert read_table(tmp_path / "t.parquet")["id"].to_pylist() == [name]


def test_parts_may_write_text_in_different_layouts(tmp_path):
    for name, kind in (("a", pa.string()), ("b", pa.large_string()), ("c", pa.string_view())):
        pq.write_table(pa.table({"id": pa.array([name], kind)}), tmp_path / f"{name}.parquet")
    assert read_table(tmp_path)["id"].to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ([[1.0, 2.0], [3.0]], "an array of values"),
        (pa.array([[1, 2], [3, 4]], pa.list_(pa.int64(), 2)), "an array of 2 values"),
        ([{"g": 1.0, "r": 2.0}] * 2, r"several values in each row \(g, r\)"),
    ],
)
def test_a_column_of_arrays_is_named_as_such(tmp_path, column, words):
    pq.write_table(pa.table({"ID": [1, 2], "flux": column}), tmp_path / "t.parquet")
    assert table_columns(tmp_path / "t.parquet") == ["ID"]
    assert list(list_columns(tmp_path / "t.parquet").others) == ["flux"]
    with pytest.raises(TableError, match=f"the column 'flux' holds {words}.*one number or word"):
        read_table(tmp_path / "t.parquet", columns=["flux"])


@pytest.mark.parametrize("name", ["t.fits", "t.vot", "t.ecsv"])
def test_an_array_of_a_fixed_length_is_named_as_such(tmp_path, name):
    Table({"ID": [1, 2], "flux": [[1.0, 2.0], [3.0, 4.0]]}).write(
        tmp_path / name, format="votable" if name == "t.vot" else None
    )
    with pytest.raises(TableError, match="the column 'flux' holds (an array|arrays)"):
        read_table(tmp_path / name, columns=["ID", "flux"])
