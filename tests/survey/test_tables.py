import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import Table

from luneta.survey.sources import degrees, select
from luneta.survey.tables import TableError, read_table

WRITERS = {
    "list.fits": "fits",
    "list.vot": "votable",
    "list.ecsv": "ascii.ecsv",
    "list.csv": "ascii.csv",
    "list.tsv": "ascii.tab",
}


@pytest.fixture
def table():
    return Table(
        {"ID": ["007", "b"], "RA": [150.5, 10.25] * units.deg, "DEC": [2.0, -30.0] * units.deg}
    )


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path, table, name):
    table.write(tmp_path / name, format=WRITERS[name])
    read = read_table(tmp_path / name, text_columns=["ID"])
    assert read["ID"].to_pylist() == ["007", "b"]
    assert read["RA"].to_pylist() == [150.5, 10.25]


def test_parquet_and_units(tmp_path, table):
    table.write(tmp_path / "list.fits")
    read = read_table(tmp_path / "list.fits")
    assert read.schema.field("RA").metadata == {b"unit": b"deg"}
    pq.write_table(read, tmp_path / "list.parquet")
    assert read_table(tmp_path / "list.parquet").equals(read)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.fits", b"<html>404</html>", "cannot be read as fits"),
        ("list.parquet", b"PAR1 not", "cannot be read as parquet"),
        ("list.doc", b"", "names no known table format"),
    ],
)
def test_a_broken_table_says_why(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=words):
        read_table(tmp_path / name)


def test_a_missing_table_says_so(tmp_path):
    with pytest.raises(TableError, match="no such file"):
        read_table(tmp_path / "none.csv")


def test_a_missing_column_names_those_there_are():
    table = pa.table({"name": ["a"], "ra": [1.0], "dec": [2.0]})
    columns = {"object_id": "ID", "ra": "ra", "dec": "dec"}
    with pytest.raises(TableError, match="no column 'ID'; the table has name, ra, dec"):
        select(table, columns, {}, np.array([""], object), "list.csv")


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([12.5], None, 12.5),
        ([1.0], "hourangle", 15.0),
        ([np.pi], "rad", 180.0),
        (["12h30m00s"], None, 187.5),
        (["-00d30m00s"], "deg", -0.5),
    ],
)
def test_degrees(values, unit, expected):
    assert degrees(pa.chunked_array([values]), unit, "ra")[0] == pytest.approx(expected)


def test_a_missing_angle_is_not_a_number():
    assert np.isnan(degrees(pa.chunked_array([[None, 1.0]]), "deg", "ra")[0])


def test_sexagesimal_right_ascension_is_in_hours():
    table = pa.table({"id": ["a"], "ra": ["12:30:49.4"], "dec": ["-12:23:28"]})
    columns = {"object_id": "id", "ra": "ra", "dec": "dec"}
    sources = select(table, columns, {}, np.array([""], object), "list.csv")
    assert sources.ra[0] == pytest.approx(187.705833, abs=1e-5)
    assert sources.dec[0] == pytest.approx(-12.391111, abs=1e-5)


def test_a_unit_that_is_no_angle():
    with pytest.raises(TableError, match="no angle"):
        degrees(pa.chunked_array([[1.0]]), "kg", "ra")
