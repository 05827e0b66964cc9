import gzip
import shutil

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.time import Time

from luneta.survey.tables import TableError, read_table, table_columns

WRITERS = {
    "list.fits": "fits",
    "list.fits.gz": "fits",
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
    assert table_columns(tmp_path / name) == ["ID", "RA", "DEC"]
    few = read_table(tmp_path / name, text_columns=["ID"], columns=["DEC", "ID"])
    assert few.column_names == ["ID", "DEC"]


@pytest.mark.parametrize("name", ["list.fits", "list.vot", "list.ecsv"])
def test_units_stay(tmp_path, table, name):
    table.write(tmp_path / name, format=WRITERS[name])
    assert read_table(tmp_path / name).schema.field("RA").metadata == {b"unit": b"deg"}


def test_a_packed_csv(tmp_path):
    with gzip.open(tmp_path / "list.csv.gz", "wt") as file:
        file.write("ID,RA\n007,1.5\n")
    read = read_table(tmp_path / "list.csv.gz", text_columns=["ID"])
    assert read.to_pylist() == [{"ID": "007", "RA": 1.5}]


def test_parquet_keeps_units_and_leaves_out_lists(tmp_path):
    schema = pa.schema([pa.field("RA", pa.float64(), metadata={"unit": "deg"})])
    plain = pa.table([[1.0, 2.0]], schema=schema)
    pq.write_table(plain, tmp_path / "list.parquet")
    assert read_table(tmp_path / "list.parquet").equals(plain, check_metadata=True)
    pq.write_table(plain.append_column("spectrum", [[[1.0], [2.0]]]), tmp_path / "list.parquet")
    assert read_table(tmp_path / "list.parquet").column_names == ["RA"]


def test_units_of_voparquet(tmp_path, table):
    table.write(tmp_path / "list.vot", format="votable")
    header = (tmp_path / "list.vot").read_bytes()
    rows = pa.table({"ID": ["007"], "RA": [150.5]})
    rows = rows.replace_schema_metadata({"IVOA.VOTable-Parquet.content": header})
    pq.write_table(rows, tmp_path / "list.parquet")
    read = read_table(tmp_path / "list.parquet")
    assert read.schema.field("RA").metadata == {b"unit": b"deg"}
    assert read.schema.field("ID").metadata is None


def test_units_of_parquet_written_by_astropy(tmp_path, table):
    table.write(tmp_path / "list.parquet")
    read = read_table(tmp_path / "list.parquet", columns=["ID", "RA"])
    assert read["ID"].to_pylist() == ["007", "b"]
    assert [field.metadata for field in read.schema] == [None, {b"unit": b"deg"}]


def test_a_folder_of_parts_has_the_columns_of_all(tmp_path):
    pq.write_table(pa.table({"id": ["b"], "n": pa.array([1], pa.int32())}), tmp_path / "2.parquet")
    pq.write_table(pa.table({"id": ["a"], "n": pa.array([5], pa.int64())}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"id": ["c"], "z": [0.5]}), tmp_path / "3.parquet")
    assert read_table(tmp_path).to_pylist() == [
        {"id": "a", "n": 5, "z": None},
        {"id": "b", "n": 1, "z": None},
        {"id": "c", "n": None, "z": 0.5},
    ]


def hats_catalog(folder, properties="hats.properties", data="dataset"):
    """A catalog of two pixels, laid out as the HATS note (IVOA 2025) says."""
    folder.mkdir(parents=True)
    (folder / properties).write_text("#HATS\nobs_collection=small\nhats_col_ra=ra\n")
    for norder, npix, ids in ((1, 44, [3, 4]), (0, 3, [1, 2])):
        part = folder / data / f"Norder={norder}" / "Dir=0"
        part.mkdir(parents=True)
        rows = {"id": ids, "ra": np.array(ids) * 1.5, "Norder": [norder] * 2, "Npix": [npix] * 2}
        pq.write_table(pa.table(rows), part / f"Npix={npix}.parquet")
    pq.write_metadata(pa.schema([("id", pa.int64())]), folder / data / "_metadata")
    pq.write_table(pa.table({"id": [99]}), folder / data / "data_thumbnail.parquet")
    return folder


@pytest.mark.parametrize("properties", ["hats.properties", "properties"])
def test_a_hats_catalog(tmp_path, properties):
    folder = hats_catalog(tmp_path / "small", properties)
    assert read_table(folder).to_pydict() == {"id": [1, 2, 3, 4], "ra": [1.5, 3.0, 4.5, 6.0]}
    assert read_table(folder, columns=["ra"]).column_names == ["ra"]
    assert table_columns(folder) == ["id", "ra"]


def test_a_hats_collection_leads_to_its_catalog(tmp_path):
    hats_catalog(tmp_path / "all/small")
    (tmp_path / "all/collection.properties").write_text("hats_primary_table_url = small\n")
    assert read_table(tmp_path / "all")["id"].to_pylist() == [1, 2, 3, 4]


@pytest.mark.parametrize("name", ["{0}/secret", "../secret", "a/../../secret", ".", "./"])
def test_a_hats_collection_leads_nowhere_else(tmp_path, name):
    hats_catalog(tmp_path / "secret")
    (tmp_path / "all").mkdir()
    lines = f"hats_primary_table_url = {name.format(tmp_path)}\n"
    (tmp_path / "all/collection.properties").write_text(lines)
    with pytest.raises(TableError, match="hats_primary_table_url = '.*' is no folder in .*/all; n"):
        read_table(tmp_path / "all")


def test_a_pixel_of_a_hats_catalog_may_be_a_folder(tmp_path):
    folder = hats_catalog(tmp_path / "small")
    part = folder / "dataset/Norder=0/Dir=0/Npix=3.parquet"
    (folder / "dataset/Norder=0/Dir=0/Npix=3").mkdir()
    shutil.move(part, folder / "dataset/Norder=0/Dir=0/Npix=3/part0.parquet")
    assert sorted(read_table(folder)["id"].to_pylist()) == [1, 2, 3, 4]


def test_hdf5_as_galaxy10_has_it(tmp_path):
    with h5py.File(tmp_path / "Galaxy10.h5", "w") as file:
        file["images"] = np.zeros((3, 8, 8, 3), np.uint8)
        file["ans"] = np.array([0, 1, 9], np.uint8)
        file["ra"] = np.array([1.0, 2.0, np.nan])
        file["ra"].attrs["unit"] = "deg"
        file["name"] = np.array(["é".encode(), b"b", b"c"])
        file["classes"] = np.array([b"round"])
    read = read_table(tmp_path / "Galaxy10.h5")
    assert sorted(read.column_names) == ["ans", "name", "ra"]
    assert read["ans"].to_pylist() == [0, 1, 9]
    assert read["name"].to_pylist() == ["é", "b", "c"]
    assert read.schema.field("ra").metadata == {b"unit": b"deg"}
    assert read_table(tmp_path / "Galaxy10.h5", columns=["ans"]).column_names == ["ans"]


def test_hdf5_with_a_table_of_records(tmp_path):
    with h5py.File(tmp_path / "t.hdf5", "w") as file:
        file["rows"] = np.array([(b"007", 1.5)], [("ID", "S3"), ("RA", ">f8")])
    assert read_table(tmp_path / "t.hdf5").to_pylist() == [{"ID": "007", "RA": 1.5}]


def test_the_first_table_of_a_fits_file_with_images(tmp_path, table):
    image = fits.ImageHDU(np.zeros((4, 4)))
    second = fits.BinTableHDU(Table({"other": [1]}))
    file = fits.HDUList([fits.PrimaryHDU(), image, fits.BinTableHDU(table), second])
    file.writeto(tmp_path / "list.fits")
    assert read_table(tmp_path / "list.fits")["ID"].to_pylist() == ["007", "b"]


def test_names_that_are_not_ascii(tmp_path):
    columns = [fits.Column("ID", "4A", array=np.array(["é".encode(), b"b"]))]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "utf.fits")
    assert read_table(tmp_path / "utf.fits")["ID"].to_pylist() == ["é", "b"]
    columns = [fits.Column("ID", "4A", array=np.array(["é".encode("latin-1"), b"b"]))]
    fits.BinTableHDU.from_columns(columns).writeto(tmp_path / "latin.fits")
    assert read_table(tmp_path / "latin.fits")["ID"].to_pylist() == ["é", "b"]


@pytest.mark.parametrize("name", ["list.fits", "list.ecsv"])
def test_arrays_are_left_out_and_positions_are_two_columns(tmp_path, table, name):
    table["when"] = Time([2000.0, 2001.0], format="jyear")
    table["where"] = SkyCoord([1, 2], [3, 4], unit="deg")
    table["fluxes"] = np.array([np.array([1.0, 2.0]), np.array([3.0])], object)
    table.write(tmp_path / name)
    names = [name for name in table_columns(tmp_path / name) if name != "when"]
    assert names == ["ID", "RA", "DEC", "where.ra", "where.dec"]
    read = read_table(tmp_path / name, columns=["where.dec", "where.ra"])
    assert read.to_pydict() == {"where.ra": [1.0, 2.0], "where.dec": [3.0, 4.0]}
    assert [field.metadata for field in read.schema] == [{b"unit": b"deg"}] * 2
    with pytest.raises(TableError, match="the column 'fluxes' holds (an array|arrays)"):
        read_table(tmp_path / name, columns=["ID", "fluxes"])


def test_masked_values_of_parquet_written_by_astropy_are_missing(tmp_path, table):
    table = Table(table, masked=True)
    table["RA"].mask = [False, True]
    table.write(tmp_path / "list.parquet")
    assert table_columns(tmp_path / "list.parquet") == ["ID", "RA", "DEC"]
    assert read_table(tmp_path / "list.parquet", columns=["RA"])["RA"].to_pylist() == [150.5, None]


def test_columns_of_more_dimensions_are_left_out(tmp_path):
    Table({"ID": ["a"], "flux": [[1.0, 2.0]]}).write(tmp_path / "list.fits")
    assert read_table(tmp_path / "list.fits").column_names == ["ID"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.fits", b"<html>404</html>", "cannot be read as fits"),
        ("list.parquet", b"PAR1 not", "cannot be read as parquet"),
        ("list.h5", b"\x89HDF not", "cannot be read as h5"),
        ("list.csv.gz", b"no gzip", "cannot be read as csv.gz"),
        ("list.doc", b"", "names no known table format"),
    ],
)
def test_a_broken_table_says_why(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TableError, match=words):
        read_table(tmp_path / name)
    with pytest.raises(TableError, match=words):
        table_columns(tmp_path / name)


@pytest.mark.parametrize("name", ["none.csv", "none.parquet", "none"])
def test_a_missing_table_says_so(tmp_path, name):
    with pytest.raises(TableError, match="no such file"):
        read_table(tmp_path / name)


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(TableError, match="holds no Parquet file"):
        read_table(tmp_path)


@pytest.mark.parametrize("name", ["list.fits", "list.parquet", "list.csv"])
def test_a_column_that_is_not_there_names_those_there_are(tmp_path, table, name):
    if name.endswith("parquet"):
        pq.write_table(pa.table({"ID": ["a"], "RA": [1.0], "DEC": [1.0]}), tmp_path / name)
    else:
        table.write(tmp_path / name, format=WRITERS[name])
    with pytest.raises(TableError, match="no column 'z'; the table has ID, RA, DEC"):
        read_table(tmp_path / name, columns=["ID", "z"])
