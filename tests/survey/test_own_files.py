"""A table that was delivered leads to no other file or address."""

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luneta.cutouts.stamp_files import StampFiles
from luneta.survey.images import ImageError
from luneta.survey.tables import TableError, read_table

VOTABLE = """<?xml version="1.0"?>{entity}
<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3"><RESOURCE><TABLE>
<FIELD name="a" ID="a" datatype="int"/><DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>
"""
ROWS = "<TABLEDATA><TR><TD>7</TD></TR></TABLEDATA>"


def votable(data=ROWS, entity=""):
    return VOTABLE.format(data=data, entity=entity)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.bin"
    path.write_bytes(np.array([1234], ">i4").tobytes())
    return path


@pytest.mark.parametrize("suffix", [".vot", ".vot.gz"])
@pytest.mark.parametrize("address", ["file://{}", "http://127.0.0.1:9/{}"])
def test_a_votable_reads_no_other_file(tmp_path, secret, suffix, address):
    import gzip

    stream = f'<BINARY><STREAM href="{address.format(secret)}"/></BINARY>'
    content = votable(stream).encode()
    path = tmp_path / f"t{suffix}"
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    with pytest.raises(TableError, match="rows lie elsewhere.*STREAM with href.*write the table"):
        read_table(path)


def test_a_stream_in_an_entity_or_under_a_prefix_is_seen_too(tmp_path, secret):
    path = tmp_path / "t.vot"
    path.write_text(votable(entity=f'<!DOCTYPE VOTABLE [<!ENTITY s SYSTEM "{secret}">]>'))
    with pytest.raises(TableError, match="XML entity 's'"):
        read_table(path)
    text = votable(f'<BINARY><v:STREAM href="file://{secret}"/></BINARY>')
    path.write_text(text.replace("<VOTABLE", '<VOTABLE xmlns:v="http://www.ivoa.net/v"'))
    with pytest.raises(TableError, match="rows lie elsewhere"):
        read_table(path)


@pytest.mark.parametrize("name", ["t.vot", "t.xml"])
def test_a_votable_with_its_rows_is_read(tmp_path, name):
    (tmp_path / name).write_text(votable())
    assert read_table(tmp_path / name).to_pylist() == [{"a": 7}]
    stream = '<BINARY><STREAM encoding="base64">AAAABw==</STREAM></BINARY>'
    (tmp_path / name).write_text(votable(stream))
    assert read_table(tmp_path / name).to_pylist() == [{"a": 7}]


def test_the_header_of_a_voparquet_reads_no_other_file(tmp_path, secret):
    about = votable(f'<BINARY><STREAM href="file://{secret}"/></BINARY>').encode()
    table = pa.table({"a": [1]}).replace_schema_metadata({"IVOA.VOTable-Parquet.content": about})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(TableError, match="rows lie elsewhere"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("name", ["list.txt", "list.dat"])
def test_a_line_of_text_is_no_path(tmp_path, name):
    (tmp_path / "secret.txt").write_text("password\nxyzzy\n")
    (tmp_path / name).write_text(f"{tmp_path / 'secret.txt'}")
    assert read_table(tmp_path / name).num_rows == 0


def other_files(folder):
    """An HDF5 file in which each of four items leads to the values of another file."""
    pixels = np.arange(2 * 4 * 4, dtype="f4").reshape(2, 4, 4)
    pixels.tofile(folder / "secret.raw")
    with h5py.File(folder / "other.h5", "w") as other:
        other["v"] = pixels
    source = h5py.VirtualSource(str(folder / "other.h5"), "v", pixels.shape)
    layout = h5py.VirtualLayout(pixels.shape, "f4")
    layout[...] = source
    with h5py.File(folder / "t.h5", "w") as file:
        file["own"] = pixels
        file["group/own"] = pixels
        outside = [(str(folder / "secret.raw"), 0, pixels.nbytes)]
        file.create_dataset("stored", pixels.shape, "f4", external=outside)
        file.create_virtual_dataset("virtual", layout)
        file["linked"] = h5py.ExternalLink(str(folder / "other.h5"), "v")
        file["away"] = h5py.ExternalLink(str(folder / "other.h5"), "/")
        file["soft"] = h5py.SoftLink("/away/v")
    return pixels


@pytest.mark.parametrize("name", ["stored", "virtual", "linked", "soft", "away/v"])
def test_stamps_of_hdf5_lie_in_the_file_itself(tmp_path, name):
    other_files(tmp_path)
    with pytest.raises(ImageError, match="other files|external link"):
        StampFiles().read(f"{tmp_path}/t.h5[{name}]", 1)


@pytest.mark.parametrize("name", ["own", "group/own", "/group/own"])
def test_stamps_of_the_file_itself_are_read(tmp_path, name):
    pixels = other_files(tmp_path)
    np.testing.assert_array_equal(StampFiles().read(f"{tmp_path}/t.h5[{name}]", 1), pixels[1])


def test_stamps_without_a_name_follow_no_link(tmp_path):
    other_files(tmp_path)
    with h5py.File(tmp_path / "u.h5", "w") as file:
        file["images"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "v")
    with pytest.raises(ImageError, match="external link"):
        StampFiles().read(f"{tmp_path}/u.h5", 1)


@pytest.mark.parametrize("kind", ["stored", "virtual"])
def test_columns_of_hdf5_lie_in_the_file_itself(tmp_path, kind):
    np.arange(3, dtype="f8").tofile(tmp_path / "secret.raw")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["v"] = np.arange(3.0)
    layout = h5py.VirtualLayout((3,), "f8")
    layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), "v", (3,))
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["ra"] = np.arange(3.0)
        if kind == "virtual":
            file.create_virtual_dataset("mag", layout)
        else:
            file.create_dataset("mag", (3,), "f8", external=[(str(tmp_path / "secret.raw"), 0, 24)])
    with pytest.raises(TableError, match="'/mag' is .*other files.*h5repack"):
        read_table(tmp_path / "t.h5")


def test_units_beside_a_dataset_of_records_follow_no_link(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["v"] = np.array([b"datatype:", b"- {name: ra, unit: deg, datatype: float64}"])
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["rows"] = np.array([(1.0,)], [("ra", "f8")])
        file["rows.__table_column_meta__"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "v")
    with pytest.raises(TableError, match="external link"):
        read_table(tmp_path / "t.h5")
