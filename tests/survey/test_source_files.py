"""A list may lie in several files, and start in the working folder or in `root`."""

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fits_files import tan_wcs, write_image
from luneta.survey.index import deal_sources
from luneta.survey.source_files import absent_reason, list_files, list_of_tile, located_lists
from luneta.survey.sources import read_lists
from luneta.survey.tables import TableError
from luneta.survey.tiles import BandFiles, Tile

COLUMNS = {"object_id": "id", "ra": "ra", "dec": "dec"}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A working folder beside `root`."""
    work, root = tmp_path / "work", tmp_path / "root"
    work.mkdir()
    root.mkdir()
    monkeypatch.chdir(work)
    return work, root


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("id,ra,dec\n")
    return path


def test_a_relative_name_starts_in_the_working_folder(folders):
    work, root = folders
    touch(work / "a.csv")
    assert located_lists("a.csv", root) == ["a.csv"]


def test_or_in_root_where_nothing_is_there(folders):
    _, root = folders
    touch(root / "lists/a.fits")
    assert located_lists("lists/a.fits", root) == [f"{root}/lists/a.fits"]
    assert located_lists("lists/a.fits[2]", root) == [f"{root}/lists/a.fits[2]"]
    assert located_lists("lists/*.fits[STARS]", root) == [f"{root}/lists/a.fits[STARS]"]


def test_two_different_files_of_one_name_are_refused(folders):
    work, root = folders
    touch(work / "a.csv")
    touch(root / "a.csv")
    with pytest.raises(TableError, match="'a.csv' means two files, a.csv and .*: write ./a.csv"):
        located_lists("a.csv", root)
    assert located_lists("./a.csv", root) == ["./a.csv"]
    assert located_lists(str(root / "a.csv"), root) == [str(root / "a.csv")]
    assert located_lists("a.csv", ".") == ["a.csv"]
    assert located_lists("a.csv", work) == ["a.csv"]


def test_a_missing_list_is_told_with_both_places(folders):
    _, root = folders
    assert located_lists("a.csv", root) == ["a.csv"]
    assert absent_reason("a.csv", root) == (
        f"a.csv: there is no such file, nor is there {root}/a.csv; correct input.sources, or "
        f"input.root"
    )
    assert "nor" not in absent_reason("/a.csv", root)
    with pytest.raises(TableError, match=f"matches no file: there is no a.*csv and no {root}/a"):
        located_lists("a*.csv", root)


def test_files_of_a_pattern_come_sorted_and_once(folders):
    work, root = folders
    for name in ("c2.csv", "c1.csv", "sub/c3.csv", "other.csv"):
        touch(work / name)
    given = {"sources": ["c*.csv", "c1.csv", "**/c3.csv", "https://a.org/b.csv"], "root": root}
    assert list_files(given) == ["c1.csv", "c2.csv", "sub/c3.csv", "https://a.org/b.csv"]


def test_a_file_with_brackets_in_its_name_is_found_by_it(folders):
    work, root = folders
    touch(work / "a[1].csv")
    assert located_lists("a[1].csv", root) == ["a[1].csv"]
    assert located_lists("a[1*.csv", root) == ["a[1].csv"]


def test_the_list_of_a_tile_by_pattern(folders):
    _, root = folders
    touch(root / "tractor/000/tractor-0001m002.fits")
    given = {"sources": "tractor/*/tractor-{tile}.fits", "root": root}
    assert list_of_tile(given, "0001m002") == f"{root}/tractor/000/tractor-0001m002.fits"
    touch(root / "tractor/001/tractor-0001m002.fits")
    with pytest.raises(TableError, match="2 files are the list of tile 0001m002"):
        list_of_tile(given, "0001m002")


def write(path, ids, **more):
    rows = {"id": ids, "ra": [150.0] * len(ids), "dec": [2.0] * len(ids), **more}
    pq.write_table(pa.table(rows), path)


def test_lists_are_read_one_after_the_other(tmp_path):
    write(tmp_path / "1.parquet", ["a"], mag=pa.array([1], pa.int32()))
    write(tmp_path / "2.parquet", ["b"], mag=pa.array([2.5]))
    names = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    found = read_lists(names, {"columns": COLUMNS, "keep": {"mag": "mag"}})
    assert found.object_id.tolist() == ["a", "b"]
    assert found.kept["mag"].to_pylist() == [1.0, 2.5]


def test_lists_that_do_not_go_together_are_refused(tmp_path):
    write(tmp_path / "1.parquet", ["a"], mag=[1.5])
    write(tmp_path / "2.parquet", ["b"], mag=["faint"])
    names = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    with pytest.raises(TableError, match="the source lists do not go together: .*mag"):
        read_lists(names, {"columns": COLUMNS, "keep": {"mag": "mag"}})
    for number, unit in enumerate(("mag", "Jy"), start=1):
        schema = pa.schema([("id", pa.string()), ("ra", pa.float64()), ("dec", pa.float64()),
                            pa.field("mag", pa.float64(), metadata={"unit": unit})])  # fmt: skip
        rows = pa.table([["a"], [1.0], [2.0], [3.0]], schema=schema)
        pq.write_table(rows, tmp_path / f"{number}.parquet")
    with pytest.raises(TableError, match=r"'mag' has the units \['Jy', 'mag'\] in different"):
        read_lists(names, {"columns": COLUMNS, "keep": {"mag": "mag"}})


def test_twins_of_two_lists_get_two_names(tmp_path):
    write(tmp_path / "1.parquet", ["x"])
    write(tmp_path / "2.parquet", ["y"])
    names = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    found = read_lists(names, {"columns": COLUMNS | {"object_id": None}, "keep": {}})
    assert found.object_id.tolist() == ["J100000.00+020000.0a", "J100000.00+020000.0b"]


@pytest.fixture
def tile(tmp_path):
    wcs = tan_wcs((60, 80), 150.0, 2.0)
    write_image(tmp_path / "t.fits", np.zeros((60, 80), np.float32), wcs)
    return Tile("t", "t", {"g": BandFiles(str(tmp_path / "t.fits"))})


def test_a_new_changed_or_removed_file_of_a_pattern_is_noticed(tmp_path, tile):
    columns = COLUMNS | dict.fromkeys(["x", "y", "tile", "pm_ra", "pm_dec"])
    settings = {"sources": "chunk_*.parquet", "root": str(tmp_path), "columns": columns,
                "keep": {}, "reference_band": None, "bands": ["g"]}  # fmt: skip

    def names():
        paths = deal_sources(settings, {"t": tile}, tmp_path / "index", {})
        return pq.read_table(paths["t"])["object_id"].to_pylist()

    write(tmp_path / "chunk_1.parquet", ["a"])
    assert names() == ["a"]
    write(tmp_path / "chunk_2.parquet", ["b"])
    assert names() == ["a", "b"]
    write(tmp_path / "chunk_1.parquet", ["c"])
    os.utime(tmp_path / "chunk_1.parquet", (0, 0))
    assert names() == ["c", "b"]
    (tmp_path / "chunk_2.parquet").unlink()
    assert names() == ["c"]
