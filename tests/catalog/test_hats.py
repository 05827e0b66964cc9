"""The catalog is a HATS collection that every reader of the field understands."""

import logging
import os
import shutil
import subprocess
import warnings

import duckdb
import lsdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from hats import read_hats
from hats.io.validation import is_valid_catalog, is_valid_collection

from catalog_files import arguments, rows_of, write_shard
from luneta.catalog import write
from luneta.catalog.leaves import lost_files, read_manifest
from luneta.catalog.read import partition_files

SHARDS, OBJECTS = ["east", "north", "south", "west"], 60
PLACES = {"east": (30.3, 5.0), "north": (30.0, 5.3), "south": (30.0, 4.7), "west": (29.7, 5.0)}
LAYOUT = {"rows_per_partition": 40, "highest_order": 9, "margin": 100.0}


def shard_at(root, name, east, north, count=OBJECTS, **changes):
    """A shard of objects spread over half a degree."""
    random = np.random.default_rng([count, *name.encode()])
    ids = [f"{name}_{i:03d}" for i in range(count)]
    places = {"ra": east + random.uniform(-0.25, 0.25, count)}
    places["dec"] = north + random.uniform(-0.25, 0.25, count)
    return write_shard(root, name, ids, **places | changes)


def given(root, shards, layout=LAYOUT):
    """Arguments of `write.run`, of a catalog of many partitions."""
    found = arguments(root, shards)
    found["settings"]["catalog"] |= layout
    return found


def written(root, places=PLACES, threads=1, **layout):
    root.mkdir(exist_ok=True)
    shards = [shard_at(root, name, *place) for name, place in places.items()]
    arguments = given(root, shards, LAYOUT | layout)
    write.run(**arguments, threads=threads)
    return arguments["outputs"]["collection"].parent


def files(folder):
    """Content of every file, by path."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def times(folder):
    """Time of change of the Parquet files of the collection's catalogs."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.glob("*/**/*.parquet")}


def rows_by_leaf(folder, catalog="test"):
    paths = (folder / catalog / "dataset").rglob("Npix=*.parquet")
    return {
        str(path.relative_to(folder)): set(pq.read_table(path)["object_id"].to_pylist())
        for path in paths
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return written(tmp_path_factory.mktemp("hats"))


@pytest.fixture
def survey(folder, tmp_path):
    """A copy to change: its root, its arguments and its folder."""
    root = tmp_path / "copy"
    shutil.copytree(folder.parent, root)
    found = given(root, [shard_at(root, name, *place) for name, place in PLACES.items()])
    return root, found, root / "catalog"


class TestReaders:
    def test_hats_finds_it_valid(self, folder, caplog):
        with caplog.at_level(logging.WARNING):
            assert is_valid_collection(folder, strict=True)
            for name in ("test", "test_100arcs", "test_index"):
                assert is_valid_catalog(folder / name, strict=True)
        assert caplog.text == ""
        catalog = read_hats(folder)
        info = catalog.main_catalog.catalog_info
        assert len(catalog.get_healpix_pixels()) >= 8
        assert info.total_rows == len(SHARDS) * OBJECTS
        assert info.hats_max_rows <= 40
        assert info.default_columns[:4] == ["object_id", "ra", "dec", "tile"]
        assert "lens_spiral_probability" in info.default_columns
        assert catalog.get_margin_thresholds() == {"test_100arcs": 100.0}
        extra = info.extra_dict()
        assert extra["hats_frame"] == "ICRS" and extra["hats_version"] == "v1.0"
        assert "luneta v" in extra["hats_builder"] and "hats v" in extra["hats_builder"]
        assert 0 < info.moc_sky_fraction < 1e-3

    def test_the_sky_map_counts_the_objects(self, folder):
        from hats.io.skymap import read_skymap

        assert read_skymap(read_hats(folder).main_catalog, None).sum() == len(SHARDS) * OBJECTS

    def test_lsdb_searches_a_cone(self, folder):
        rows = rows_of(folder / "collection.properties")
        centre = SkyCoord(30.0 * u.deg, 5.0 * u.deg)
        away = SkyCoord(rows["ra"].to_numpy() * u.deg, rows["dec"].to_numpy() * u.deg)
        expected = set(rows["object_id"][away.separation(centre).deg < 0.2])
        found = lsdb.open_catalog(folder).cone_search(30.0, 5.0, 0.2 * 3600).compute()
        assert set(found["object_id"]) == expected and len(expected) > 10
        assert "lens_class" in found.columns and "x" not in found.columns
        whole = lsdb.open_catalog(folder, columns="all")
        assert "x" in whole.columns

    def test_lsdb_matches_across_the_borders_of_partitions(self, folder):
        rows = rows_of(folder / "collection.properties")
        random = np.random.default_rng(5)
        # Each object is searched 30 to 90 arcsec off its place, where others can be nearer.
        shift = random.uniform(30, 90, len(rows)) / 3600
        angle = random.uniform(0, 2 * np.pi, len(rows))
        off_ra = rows["ra"] + shift * np.sin(angle) / np.cos(np.radians(rows["dec"]))
        other = pd.DataFrame({"name": rows["object_id"], "ra": off_ra,
                              "dec": rows["dec"] + shift * np.cos(angle)})  # fmt: skip
        searched = lsdb.from_dataframe(other, ra_column="ra", dec_column="dec")
        found = searched.crossmatch(
            lsdb.open_catalog(folder), radius_arcsec=95, suffixes=("_a", "_b"),
            suffix_method="all_columns",
        ).compute()  # fmt: skip
        ours = SkyCoord(rows["ra"].to_numpy() * u.deg, rows["dec"].to_numpy() * u.deg)
        theirs = SkyCoord(other["ra"].to_numpy() * u.deg, other["dec"].to_numpy() * u.deg)
        nearest, distance, _ = theirs.match_to_catalog_sky(ours)
        expected = {
            (name, rows["object_id"][i])
            for name, i, d in zip(other["name"], nearest, distance.arcsec, strict=True)
            if d <= 95
        }
        pairs = set(zip(found["name_a"], found["object_id_b"], strict=True))
        assert pairs == expected and len(pairs) == len(rows)

    def test_lsdb_finds_a_name_by_the_index(self, folder):
        catalog = lsdb.open_catalog(folder)
        index = read_hats(folder / "test_index")
        leaves = rows_by_leaf(folder)
        for name in ("north_007", "west_059", "east_000"):
            (pixel,) = index.loc_partitions([name])
            place = f"Norder={pixel.order}/Dir={pixel.dir}/Npix={pixel.pixel}.parquet"
            assert name in leaves[f"test/dataset/{place}"]
            found = catalog.id_search(values={"object_id": name}).compute()
            assert found["object_id"].tolist() == [name]

    def test_astropy_reads_units_and_ucds_of_any_leaf(self, folder):
        for path in [*partition_files(folder / "collection.properties"),
                     *(folder / "test_100arcs").rglob("Npix=*")]:  # fmt: skip
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                table = Table.read(path, format="parquet.votable")
            assert str(table["ra"].unit) == "deg"
            assert table["_healpix_29"].meta["ucd"] == "pos.healpix"
            assert table["lens_spiral_probability"].meta["ucd"] == "stat.probability"

    def test_polars_and_duckdb_read_the_whole(self, folder):
        rows = rows_of(folder / "collection.properties")
        total = rows["lens_spiral_probability"].sum()
        pattern = f"{folder}/test/dataset/**/*.parquet"
        query = (
            "select count(*), sum(lens_spiral_probability), count(distinct Norder) "
            f"from read_parquet('{pattern}', hive_partitioning = true)"
        )
        ((count, added, orders),) = duckdb.sql(query).fetchall()
        table = pl.read_parquet(pattern, hive_partitioning=True)
        assert count == len(table) == len(rows)
        assert orders == table["Norder"].n_unique() >= 2
        assert added == pytest.approx(total) and table["lens_spiral_probability"].sum() == (
            pytest.approx(total)
        )
        units = duckdb.sql(
            f"select count(*) from parquet_kv_metadata('{folder}/test/dataset/_common_metadata') "
            "where key = 'IVOA.VOTable-Parquet.content'"
        ).fetchall()
        assert units == [(1,)]

    def test_stilts_reads_a_leaf(self, folder):
        if shutil.which("stilts") is None:
            pytest.skip("stilts is not installed: apt install stilts")
        leaf = partition_files(folder / "collection.properties")[0]
        command = ["stilts", "tpipe", f"in={leaf}", "ifmt=parquet", "omode=meta"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        said = done.stdout + done.stderr
        if "No table handler available for parquet" in said:
            pytest.skip("this stilts, as Debian builds it, reads no Parquet")
        assert done.returncode == 0, said
        assert "pos.eq.ra;meta.main" in said and "deg" in said


class TestLayout:
    def test_leaves_are_sorted_and_within_their_pixel(self, folder):
        for path in partition_files(folder / "collection.properties"):
            table = pq.read_table(path, partitioning=None)
            order, pixel = (int(path_part.split("=")[1]) for path_part in
                            (path.parts[-3], path.stem))  # fmt: skip
            healpix = table["_healpix_29"].to_numpy()
            assert (np.diff(healpix) >= 0).all()
            assert set(healpix >> 2 * (29 - order)) == {pixel}
            about = pq.ParquetFile(path).metadata
            assert about.row_group(0).column(0).compression == "ZSTD"
            assert about.row_group(0).sorting_columns[0].column_index == 0

    def test_one_place_is_sorted_by_name(self, tmp_path):
        shards = [write_shard(tmp_path, s, ids, ra=[5, 5], dec=[5, 5], tiles=["t", "t"])
                  for s, ids in (("b", ["4", "1"]), ("a", ["3", "2"]))]  # fmt: skip
        found = given(tmp_path, shards)
        write.run(**found)
        (leaf,) = partition_files(found["outputs"]["collection"])
        assert pq.read_table(leaf)["object_id"].to_pylist() == ["1", "2", "3", "4"]

    def test_a_margin_has_the_columns_of_the_catalog_and_others_rows(self, folder):
        own, margins = rows_by_leaf(folder), rows_by_leaf(folder, "test_100arcs")
        assert sum(map(len, margins.values())) > 40
        for path, names in margins.items():
            assert not names & own.get(path.replace("test_100arcs", "test"), set())
        schemas = [pq.read_schema(next((folder / c).rglob("Npix=*")))
                   for c in ("test", "test_100arcs")]  # fmt: skip
        assert schemas[0].equals(schemas[1])

    def test_without_margin_and_index(self, tmp_path):
        folder = written(tmp_path / "plain", margin=0, index=False)
        assert {path.name for path in folder.iterdir() if path.is_dir()} == {"test"}
        assert is_valid_collection(folder, strict=True)
        assert len(lsdb.open_catalog(folder).compute()) == len(SHARDS) * OBJECTS

    def test_no_margin_has_rows_in_a_sparse_survey(self, tmp_path):
        folder = written(tmp_path / "sparse", {"east": PLACES["east"]}, margin=5.0)
        assert is_valid_collection(folder, strict=True)
        assert len(lsdb.open_catalog(folder).cone_search(30.3, 5.0, 3600).compute()) == OBJECTS

    def test_no_file_tells_the_time(self, folder):
        for name, content in files(folder).items():
            assert b"2026-" not in content and b"creation_date" not in content, name


class TestRowsWithoutPosition:
    def test_they_are_kept_beside(self, tmp_path, caplog):
        ra = np.where(np.arange(OBJECTS) % 10 == 0, np.nan, 30.0)
        shards = [shard_at(tmp_path, "a", 30, 5, ra=ra), shard_at(tmp_path, "b", 30, 5)]
        found = given(tmp_path, shards)
        with caplog.at_level(logging.WARNING):
            write.run(**found)
        assert "6 objects have no position and are in" in caplog.text
        beside = found["outputs"]["without_position"]
        table = Table.read(beside, format="parquet.votable")
        assert sorted(table["object_id"]) == [f"a_{i:03d}" for i in range(0, OBJECTS, 10)]
        assert np.isnan(np.ma.filled(table["ra"], np.nan)).all()
        assert table["lens_class"][0] in ("smooth", "spiral")
        rows = rows_of(found["outputs"]["collection"])
        assert len(rows) == 2 * OBJECTS and rows["object_id"].is_unique
        assert read_hats(beside.parent).main_catalog.catalog_info.total_rows == 2 * OBJECTS - 6

    def test_a_survey_without_any(self, tmp_path):
        nowhere = np.full(OBJECTS, np.nan)
        shards = [shard_at(tmp_path, "a", 0, 0, ra=nowhere, dec=nowhere)]
        found = given(tmp_path, shards)
        write.run(**found)
        assert len(rows_of(found["outputs"]["collection"])) == OBJECTS
        assert partition_files(found["outputs"]["collection"]) == []
        assert is_valid_collection(found["outputs"]["collection"].parent)
        table = Table.read(found["outputs"]["without_position"], format="parquet.votable")
        assert len(table) == OBJECTS and str(table["magnitude_r"].unit) == "mag"


class TestIncremental:
    def test_twice_and_with_threads_is_the_same(self, survey, folder):
        root, found, copy = survey
        before, written_at = files(folder), times(copy)
        assert files(copy) == before
        write.run(**found, threads=4)
        assert files(copy) == before
        assert times(copy) == written_at

    def add(self, root, found, name, place, **changes):
        """The arguments with one more shard."""
        shards = [shard_at(root, n, *p) for n, p in PLACES.items()]
        return given(root, [*shards, shard_at(root, name, *place, **changes)])

    def test_a_new_tile_touches_only_its_partitions(self, survey, tmp_path):
        root, found, copy = survey
        before, old = files(copy), times(copy)
        place = (30.9, 5.0)
        write.run(**self.add(root, found, "far", place, count=30))
        after, new = files(copy), times(copy)
        scratch = written(tmp_path / "scratch", PLACES)
        shutil.rmtree(scratch)
        again = self.add(scratch.parent, None, "far", place, count=30)
        write.run(**again)
        assert files(scratch) == after  # incremental is the same as from scratch
        own = [path for path, names in rows_by_leaf(copy).items() if any("far" in n for n in names)]
        margins = rows_by_leaf(copy, "test_100arcs")
        own += [path for path, names in margins.items() if any("far" in n for n in names)]
        own = {*own, *(path for path in new if path.startswith("test_index"))}
        kept = [path for path in old if path not in own]
        assert len([path for path in kept if path.startswith("test/")]) >= 8
        for path in kept:
            assert new[path] == old[path] and after[path] == before[path], path

    def test_a_tile_that_goes_takes_its_partitions_with_it(self, survey, folder):
        root, found, copy = survey
        before, old = files(copy), times(copy)
        write.run(**self.add(root, found, "far", (40.0, 5.0)))
        grown = rows_by_leaf(copy)
        assert set(rows_by_leaf(folder)) < set(grown)
        shards = [shard_at(root, name, *place) for name, place in PLACES.items()]
        write.run(**given(root, shards))
        assert files(copy) == before
        assert {p: t for p, t in times(copy).items() if p.startswith("test/")} == {
            p: t for p, t in old.items() if p.startswith("test/")
        }
        assert not any(path.is_dir() and not any(path.iterdir()) for path in copy.rglob("*"))

    def test_a_pixel_with_too_many_rows_is_split(self, survey):
        root, found, copy = survey
        before = rows_by_leaf(copy)
        write.run(**self.add(root, found, "more", PLACES["west"], count=90))
        after = rows_by_leaf(copy)
        gone = set(before) - set(after)
        assert gone and all(any("west" in name for name in before[path]) for path in gone)
        assert sorted(n for names in after.values() for n in names if "more" not in n) == sorted(
            name for names in before.values() for name in names
        )
        assert is_valid_collection(copy, strict=True)

    def test_a_longer_name_changes_only_its_own_partition(self, survey):
        root, found, copy = survey
        old = times(copy)
        far = {"ra": [60.0], "dec": [5.0]}
        shards = [shard_at(root, name, *place) for name, place in PLACES.items()]
        shards.append(write_shard(root, "long", ["x" * 300], tiles=["t" * 200], **far))
        write.run(**given(root, shards))
        new = times(copy)
        assert {p: new[p] for p in old if "index" not in p} == {
            p: t for p, t in old.items() if "index" not in p
        }

    def test_what_only_the_provenance_tells_changes_no_partition(self, survey):
        _, found, copy = survey
        before, old = files(copy), times(copy)
        found["settings"]["config"] = {"survey": "test", "seed": 2}
        write.run(**found)
        assert times(copy) == old
        changed = {name for name, content in files(copy).items() if before[name] != content}
        assert changed == {
            "test/hats.properties", "test/properties", "test/dataset/_common_metadata",
            "test_100arcs/dataset/_common_metadata", "without_position.parquet",
            "partitions.json",
        }  # fmt: skip

    def test_a_changed_prediction_changes_the_partitions_of_its_shard(self, survey):
        root, found, copy = survey
        old = times(copy)
        path = found["predictions"]["lens"][SHARDS.index("west")]
        table = pq.read_table(path)
        number = table.schema.get_field_index("lens_model_id")
        model = pa.array(["another"] * len(table)).dictionary_encode()
        pq.write_table(table.set_column(number, "lens_model_id", model), path)
        write.run(**found)
        touched = {path for path, time in times(copy).items() if time != old[path]}
        west = {p for p, names in rows_by_leaf(copy).items() if any("west" in n for n in names)}
        beside = rows_by_leaf(copy, "test_100arcs")
        west |= {p for p, names in beside.items() if any("west" in n for n in names)}
        assert touched == west

    @pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
    def test_a_damaged_leaf_is_made_again(self, survey, damage, caplog):
        _, found, copy = survey
        before, old = files(copy), times(copy)
        assert lost_files(copy) == []
        leaf = partition_files(copy / "collection.properties")[2]
        content = bytearray(leaf.read_bytes())
        if damage == "remove":
            leaf.unlink()
        else:
            content[2000] ^= 16
            leaf.write_bytes(content if damage == "flip" else content[:5000])
        name = str(leaf.relative_to(copy))
        assert lost_files(copy) == ([] if damage == "flip" else [name])
        with caplog.at_level(logging.WARNING):
            write.run(**found)
        assert f"{leaf} is missing or not as it was written: it is made again" in caplog.text
        assert files(copy) == before
        assert {path for path, time in times(copy).items() if time != old[path]} == {name}
        assert lost_files(copy) == []

    @pytest.mark.parametrize(
        "name",
        [
            "test/hats.properties",
            "test/partition_info.csv",
            "test/skymap.fits",
            "test/dataset/_common_metadata",
            "test_100arcs/properties",
            "test_index/dataset/_metadata",
        ],
    )
    def test_a_small_file_that_is_damaged_is_made_again(self, survey, name):
        _, found, copy = survey
        before = files(copy)
        (copy / name).unlink()
        assert lost_files(copy) == [name]
        (copy / name).write_bytes(b"altered")
        assert lost_files(copy) == [name]
        write.run(**found)
        assert files(copy) == before
        assert lost_files(copy) == []

    @pytest.mark.parametrize("content", [None, b"{", b'{"catalogs": []}'])
    def test_without_its_manifest_it_is_made_again(self, survey, content):
        _, found, copy = survey
        before, old = files(copy), times(copy)
        (copy / "partitions.json").unlink()
        if content:
            (copy / "partitions.json").write_bytes(content)
        assert lost_files(copy) == ["partitions.json"]
        write.run(**found)
        (copy / "partitions.json.damaged").unlink(missing_ok=True)
        assert files(copy) == before and times(copy) == old

    def test_what_a_killed_run_left_is_cleared(self, survey):
        _, found, copy = survey
        before = files(copy)
        leaf = partition_files(copy / "collection.properties")[0]
        leaf.with_name(f".{leaf.name}.new").write_bytes(b"half")
        (copy / ".spill/rows").mkdir(parents=True)
        (copy / ".spill/rows/west.arrow").write_bytes(b"half")
        stray = leaf.with_name("Npix=999999.parquet")
        shutil.copy(leaf, stray)
        write.run(**found)
        assert files(copy) == before

    def test_another_layout_leaves_nothing_of_the_old(self, survey):
        _, found, copy = survey
        found["settings"]["catalog"] |= {"margin": 60.0, "index": False}
        write.run(**found)
        assert {path.name for path in copy.iterdir() if path.is_dir()} == {"test", "test_60arcs"}
        assert is_valid_collection(copy, strict=True)
        assert all(name.split("/")[0] != "test_100arcs" for name in read_manifest(copy))

    def test_file_times_alone_change_nothing(self, survey):
        _, found, copy = survey
        for path in copy.glob("*/**/*.parquet"):
            os.utime(path)
        old = times(copy)
        assert lost_files(copy) == []
        write.run(**found)
        assert times(copy) == old
