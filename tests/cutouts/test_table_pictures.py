"""Stamps that a Parquet table holds as bytes, as Galaxy Zoo is published on Hugging Face."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from luneta.config_checks import column_names
from luneta.cutouts.stamp_files import StampFiles
from luneta.cutouts.table_pictures import picture_bytes
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError
from luneta.survey.parquet_tables import picture_rows
from luneta.survey.stamp_index import deal_stamps
from luneta.survey.tables import TableError, list_columns, read_table

COLOURS = [(10, 20, 30), (40, 50, 60), (70, 80, 90), (100, 110, 120), (130, 140, 150)]


def png(colour):
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(rows, as_struct=True):
    content = [None if row is None else png(COLOURS[row]) for row in rows]
    if not as_struct:
        return pa.array(content, pa.binary())
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": one, "path": "/etc/passwd"} for one in content], kind)


def write(path, rows, as_struct=True, **options):
    ids = [f"n{row}" for row in range(len(rows))]
    table = pa.table({"id_str": ids, "ra": np.arange(len(rows)) * 1.0,
                      "image": pictures(rows, as_struct)})  # fmt: skip
    pq.write_table(table, path, **options)


def stamps(table, **more):
    return {
        "kind": "stamps", "bands": ["g", "r", "z"], "table": str(table), "image": "{image}",
        "root": None, "columns": {"object_id": "id_str", "ra": "ra", "dec": None}, "keep": {},
        "stamps_per_shard": 3, **more,
    }  # fmt: skip


@pytest.mark.parametrize("as_struct", [True, False])
def test_the_index_names_file_and_row_and_copies_no_picture(tmp_path, as_struct):
    write(tmp_path / "t.parquet", range(5), as_struct, row_group_size=2)
    slices = deal_stamps(stamps(tmp_path / "t.parquet"), tmp_path / "index")
    rows = [row for path in slices.values() for row in pq.read_table(path).to_pylist()]
    assert [row["object_id"] for row in rows] == ["n0", "n1", "n2", "n3", "n4"]
    assert {row["image_g"] for row in rows} == {f"{tmp_path}/t.parquet[image]"}
    assert [row["row"] for row in rows] == [0, 1, 2, 3, 4]
    assert {row["refused"] for row in rows} == {None}
    files = StampFiles([row["row"] for row in rows])
    for number in (3, 0, 4):
        names = [rows[number][f"image_{band}"] for band in "grz"]
        planes = files.planes(names, rows[number]["row"])
        assert [set(plane.ravel()) for plane in planes] == [{c} for c in COLOURS[number]]
        assert planes[0].shape == (4, 6)


@pytest.mark.parametrize("name", ["", "train-*.parquet"])
def test_parts_of_a_table_keep_their_pictures(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "train-00001-of-00002.parquet", [3, 4])
    write(folder / "train-00000-of-00002.parquet", [0, 1, 2])
    slices = deal_stamps(stamps(folder / name), tmp_path / "index")
    rows = [row for path in slices.values() for row in pq.read_table(path).to_pylist()]
    assert [row["row"] for row in rows] == [0, 1, 2, 0, 1]
    found = [StampFiles().read(row["image_r"], row["row"])[0, 0].tolist() for row in rows]
    assert found == [list(colour) for colour in COLOURS]


def test_the_column_of_pictures_is_told_from_other_columns(tmp_path):
    write(tmp_path / "t.parquet", [0, 1])
    listed = list_columns(tmp_path / "t.parquet")
    assert (listed.names, listed.pictures) == (["id_str", "ra"], ("image",))
    assert column_names(tmp_path / "t.parquet") == ["id_str", "ra"]
    with pytest.raises(TableError, match="the column 'image' holds a picture in each row"):
        read_table(tmp_path / "t.parquet", columns=["image"])


@pytest.mark.parametrize("in_parts", [True, False])
def test_pictures_are_told_though_the_first_rows_hold_none(tmp_path, in_parts):
    if in_parts:
        write(tmp_path / "0.parquet", [None] * 6, as_struct=False)
        write(tmp_path / "1.parquet", [None, 1], as_struct=False)
    else:
        rows = [*[None] * 6, None, 1]
        write(tmp_path / "0.parquet", rows, as_struct=False, row_group_size=7)
    assert list_columns(tmp_path).pictures == ("image",)
    write(tmp_path / "0.parquet", [None] * 6, as_struct=False)
    assert list_columns(tmp_path / "0.parquet").pictures == ()


def test_a_row_without_bytes_is_refused_and_no_path_is_opened(tmp_path):
    write(tmp_path / "t.parquet", [0, None])
    with pytest.raises(ImageError, match="row 1 holds no bytes of a picture") as error:
        StampFiles().read(f"{tmp_path}/t.parquet[image]", 1)
    assert error.value.flag == Flag.MISSING_FILE


def test_bytes_that_are_no_picture_are_refused(tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = pa.array([{"bytes": b"hello", "path": None}], kind)
    pq.write_table(pa.table({"image": rows}), tmp_path / "t.parquet")
    with pytest.raises(ImageError, match="row 0 is not a picture"):
        StampFiles().read(f"{tmp_path}/t.parquet[image]", 0)


def test_a_row_or_file_that_is_not_there_is_refused(tmp_path):
    write(tmp_path / "t.parquet", [0])
    assert StampFiles().header(f"{tmp_path}/t.parquet[image]") == (None, ())
    with pytest.raises(ImageError, match="no row 7"):
        picture_bytes(tmp_path / "t.parquet", "image", 7)
    with pytest.raises(ImageError, match="cannot be read"):
        picture_bytes(tmp_path / "t.parquet", "picture", 0)
    with pytest.raises(ImageError, match="does not exist"):
        picture_bytes(tmp_path / "u.parquet", "image", 0)


def test_pictures_in_one_huge_group_are_refused(tmp_path, monkeypatch):
    write(tmp_path / "t.parquet", [0, 1])
    monkeypatch.setattr("luneta.survey.parquet_tables.LARGEST_GROUP", 100)
    with pytest.raises(TableError, match="row_group_size=1000"):
        picture_rows(tmp_path / "t.parquet", "image")


@pytest.mark.parametrize("wrong", [{"image": "stamps/{image}"}, {"row": "ra"}])
def test_a_column_of_pictures_is_asked_for_by_its_name_alone(tmp_path, wrong):
    write(tmp_path / "t.parquet", [0, 1])
    with pytest.raises(TableError, match="holds (pictures|the pictures)"):
        deal_stamps(stamps(tmp_path / "t.parquet", **wrong), tmp_path / "index")
