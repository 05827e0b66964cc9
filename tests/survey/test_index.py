"""A survey-wide list is dealt to the shards of the tiles that hold its sources."""

import os
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import Sip

from fits_files import tan_wcs, write_image
from luneta.files import read_json
from luneta.survey import ingest
from luneta.survey.fingerprints import fingerprint, fingerprints
from luneta.survey.flags import Flag
from luneta.survey.footprints import holders, survey_footprints, unit_vectors
from luneta.survey.index import deal, deal_sources, read_objects, shards_with, signature
from luneta.survey.tiles import BandFiles, Tile
from luneta.survey.wcs import to_pixels

SHAPE = (60, 80)
IN_MEMORY = {"protocols": ["memory"]}


def sip(wcs):
    """Bend a grid by a pixel at its edge."""
    bend = np.zeros((4, 4))
    bend[3, 0] = 1e-5
    wcs.sip = Sip(bend, 0 * bend, None, None, wcs.wcs.crpix)
    wcs.wcs.ctype = ["RA---TAN-SIP", "DEC--TAN-SIP"]
    return wcs


def fk5(wcs):
    wcs.wcs.radesys, wcs.wcs.equinox = "FK5", 1975.0
    return wcs


def galactic(wcs):
    wcs.wcs.ctype = ["GLON-TAN", "GLAT-TAN"]
    return wcs


def orthographic(wcs):
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.cd *= 100
    return wcs


def make_tile(folder, name, wcs, shard=None):
    image = fits.PrimaryHDU(np.zeros(SHAPE, np.int16), wcs.to_header(relax=True))
    image.writeto(folder / f"{name}.fits", overwrite=True)
    return Tile(name, shard or name, {"g": BandFiles(f"{folder / name}.fits")})


def footprint_of(folder, wcs):
    tile = make_tile(folder, "a", wcs)
    (found,) = survey_footprints({"a": tile}, "g", {}, folder / "memory.json").values()
    return found


@pytest.mark.parametrize(
    ("change", "plain"),
    [
        (lambda wcs: wcs, True),
        (fk5, True),
        (galactic, True),
        (sip, False),
        (orthographic, False),
    ],
    ids=["icrs", "fk5", "galactic", "sip", "sin"],
)
@pytest.mark.parametrize("place", [(150.0, 2.0), (359.999, 10.0), (20.0, -89.99)])
def test_tiles_hold_what_astropy_puts_on_their_pixels(tmp_path, change, plain, place):
    wcs = change(tan_wcs(SHAPE, *place, rotation=33.0))
    footprint = footprint_of(tmp_path, wcs)
    assert (footprint.matrix is not None) == plain
    random = np.random.default_rng(0)
    x, y = random.uniform(-20, SHAPE[1] + 20, 500), random.uniform(-20, SHAPE[0] + 20, 500)
    sky = wcs.pixel_to_world(x, y).icrs
    x, y = to_pixels(wcs, sky.ra.deg, sky.dec.deg)
    inside = (x > -0.5) & (x < SHAPE[1] - 0.5) & (y > -0.5) & (y < SHAPE[0] - 0.5)
    rows, numbers = holders(sky.ra.deg, sky.dec.deg, [footprint])
    assert rows.tolist() == np.flatnonzero(inside).tolist()
    assert set(numbers) == {0}
    assert 100 < inside.sum() < 400


def test_the_matrix_is_exact(tmp_path):
    wcs = tan_wcs(SHAPE, 150.0, 2.0)
    x, y = np.array([0.0, 79.0, 40.0]), np.array([0.0, 10.0, 59.0])
    sky = wcs.pixel_to_world(x, y)
    matrix = np.reshape(footprint_of(tmp_path, wcs).matrix, (3, 3))
    wx, wy, w = matrix @ unit_vectors(sky.ra.deg, sky.dec.deg).T
    assert np.allclose([wx / w, wy / w], [x, y], atol=1e-7, rtol=0)


def test_far_side_of_the_sky_is_not_on_a_tile(tmp_path):
    footprint = footprint_of(tmp_path, tan_wcs(SHAPE, 150.0, 2.0))
    rows, _ = holders(np.array([330.0, 150.0]), np.array([-2.0, 2.0]), [footprint])
    assert rows.tolist() == [1]


def test_deepest_tile_first(tmp_path):
    step = 20 * 0.262 / 3600
    tiles = [make_tile(tmp_path, n, tan_wcs(SHAPE, 150.0, d, rotation=0.0)) for n, d in
             (("a", 2.0), ("b", 2.0 + step))]  # fmt: skip
    known = survey_footprints({t.name: t for t in tiles}, "g", {}, tmp_path / "m.json")
    dec = 2.0 + step * np.array([0.1, 0.9, -1.2, 9.0])
    rows, numbers = holders(np.full(4, 150.0), dec, [None, *known.values()])
    assert list(zip(rows, numbers, strict=True)) == [(0, 1), (0, 2), (1, 2), (1, 1), (2, 1)]


def test_no_tile_and_no_source():
    nothing = np.zeros(0)
    assert len(holders(nothing, nothing, [None])[0]) == 0


def given(folder, rows, header="object_id,ra,dec", **more):
    (folder / "list.csv").write_text("\n".join([header, *rows]) + "\n")
    columns = {"object_id": "object_id", "ra": "ra", "dec": "dec"}
    columns |= dict.fromkeys(["x", "y", "tile", "pm_ra", "pm_dec"])
    return {
        "sources": str(folder / "list.csv"), "columns": columns, "keep": {}, "units": {},
        "frame": "icrs", "equinox": "J2000", "epoch": None, "image_epoch": None, "first_pixel": 1,
        "reference_band": None, "bands": ["g"],
    } | more  # fmt: skip


ROWS = ["one,150.0,2.0", "two,150.0,2.003", "far,10.0,2.0", "bad,,", "three,150.001,2.0"]


def slices(folder, settings, tiles):
    versions = {t.bands["g"].image: fingerprint(t.bands["g"].image) for t in tiles}
    paths = deal_sources(settings, {t.name: t for t in tiles}, folder / "index", versions)
    return {shard: pq.read_table(path) for shard, path in paths.items()}


def ids(tables):
    return {shard: table["object_id"].to_pylist() for shard, table in tables.items()}


def test_every_row_is_in_a_slice(tmp_path):
    tile = make_tile(tmp_path, "a", tan_wcs(SHAPE, 150.0, 2.0), shard="s")
    tables = slices(tmp_path, given(tmp_path, ROWS), [tile])
    assert ids(tables) == {"s": ["one", "three"], "unplaced": ["two", "far", "bad"]}
    assert tables["s"]["tile"].to_pylist() == ["a", "a"]
    assert tables["unplaced"]["tile"].to_pylist() == ["", "", ""]
    assert tables["unplaced"]["ra"].to_pylist() == [150.0, 10.0, None]


def test_a_new_overlapping_tile_leaves_the_slice_of_the_old_one(tmp_path):
    a = make_tile(tmp_path, "a", tan_wcs(SHAPE, 150.0, 2.0))
    slices(tmp_path, given(tmp_path, ROWS), [a])
    path = tmp_path / "index/a.parquet"
    before = path.read_bytes(), path.stat().st_mtime_ns
    b = make_tile(tmp_path, "b", tan_wcs(SHAPE, 150.001, 2.001))
    tables = slices(tmp_path, given(tmp_path, ROWS), [a, b])
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert ids(tables) == {
        "a": ["one", "three"],
        "b": ["one", "two", "three"],
        "unplaced": ["far", "bad"],
    }


def test_a_source_stands_twice_in_a_shard_of_two_tiles_that_hold_it(tmp_path):
    step = 20 * 0.262 / 3600
    tiles = [
        make_tile(tmp_path, name, tan_wcs(SHAPE, 150.0, dec, rotation=0.0), shard="s")
        for name, dec in (("a", 2.0 + step), ("b", 2.0))
    ]
    table = slices(tmp_path, given(tmp_path, ["one,150.0,2.0"]), tiles)["s"]
    assert table["tile"].to_pylist() == ["b", "a"]


def test_slices_change_where_rows_do(tmp_path):
    tiles = [make_tile(tmp_path, n, tan_wcs(SHAPE, ra, 2.0)) for n, ra in (("a", 150), ("b", 151))]
    rows = ["one,150.0,2.0", "two,151.0,2.0"]
    slices(tmp_path, given(tmp_path, rows), tiles)
    times = {n: (tmp_path / f"index/{n}.parquet").stat().st_mtime_ns for n in "ab"}
    tables = slices(tmp_path, given(tmp_path, [*rows, "three,151.0,2.0"]), tiles)
    assert ids(tables) == {"a": ["one"], "b": ["two", "three"]}
    now = {n: (tmp_path / f"index/{n}.parquet").stat().st_mtime_ns for n in "ab"}
    assert now["a"] == times["a"]
    assert now["b"] > times["b"]


def test_the_slice_of_a_removed_tile_goes(tmp_path):
    tiles = [make_tile(tmp_path, n, tan_wcs(SHAPE, ra, 2.0)) for n, ra in (("a", 150), ("b", 151))]
    settings = given(tmp_path, ["one,150.0,2.0", "two,151.0,2.0"])
    slices(tmp_path, settings, tiles)
    assert ids(slices(tmp_path, settings, tiles[:1])) == {"a": ["one"], "unplaced": ["two"]}
    assert not (tmp_path / "index/b.parquet").exists()


def test_a_tile_of_the_list_goes_before_the_footprints(tmp_path):
    tiles = [make_tile(tmp_path, n, tan_wcs(SHAPE, 150.0, 2.0)) for n in "ab"]
    rows = ["one,150.0,2.0,b", "two,150.0,2.0,a", "three,150.0,2.0,c"]
    settings = given(tmp_path, rows, "object_id,ra,dec,field")
    settings["columns"]["tile"] = "field"
    tables = slices(tmp_path, settings, tiles)
    assert ids(tables) == {"a": ["two"], "b": ["one"], "unplaced": ["three"]}
    assert tables["unplaced"]["tile"].to_pylist() == ["c"]


def test_pixel_positions_are_carried_from_zero(tmp_path):
    settings = given(tmp_path, ["one,11,21.5,a"], "object_id,px,py,field")
    settings["columns"] |= {"ra": None, "dec": None, "x": "px", "y": "py", "tile": "field"}
    tile = make_tile(tmp_path, "a", tan_wcs(SHAPE, 150.0, 2.0))
    table = slices(tmp_path, settings, [tile])["a"]
    assert (table["x"].to_pylist(), table["y"].to_pylist()) == ([10.0], [20.5])


def test_a_tile_without_a_grid_holds_nothing_and_the_next_band_stands_in(tmp_path):
    bad, good = tmp_path / "bad.fits", tan_wcs(SHAPE, 150.0, 2.0)
    bad.write_text("<html>")
    image = write_image(tmp_path / "r.fits", np.zeros(SHAPE, np.int16), good)
    tiles = {
        "lost": Tile("lost", "lost", {"g": BandFiles(str(bad))}),
        "half": Tile("half", "half", {"r": BandFiles(image), "g": BandFiles(str(bad))}),
    }
    found = survey_footprints(tiles, "g", {}, tmp_path / "m.json")
    assert "bad.fits is a web page" in found["lost"].reason
    assert found["half"].image == image


def test_a_remote_tile_has_the_footprint_of_its_file(tmp_path):
    """Over fsspec's file in memory; transfers themselves are tested in test_remote."""
    local = make_tile(tmp_path, "a", tan_wcs(SHAPE, 150.0, 2.0)).bands["g"].image
    with fsspec.open("memory://a.fits", "wb") as file:
        file.write(Path(local).read_bytes())
    remote = {"retries": 0, "wait": 0.0, "timeout": 5.0, "options": {}, **IN_MEMORY}
    tile = Tile("a", "a", {"g": BandFiles("memory://a.fits")})
    found = survey_footprints({"a": tile}, "g", {}, tmp_path / "m.json", remote)["a"]
    expected = footprint_of(tmp_path, tan_wcs(SHAPE, 150.0, 2.0))
    assert (found.image, found.matrix) == ("memory://a.fits", expected.matrix)


def test_a_server_that_was_down_is_asked_again(tmp_path):
    local = make_tile(tmp_path, "a", tan_wcs(SHAPE, 150.0, 2.0)).bands["g"].image
    tile = Tile("a", "a", {"g": BandFiles("memory://down/a.fits")})
    settings = given(tmp_path, ["one,150.0,2.0"])
    settings["remote"] = {"retries": 0, "wait": 0.0, "timeout": 5.0, "options": {}, **IN_MEMORY}

    def dealt():
        paths = deal_sources(settings, {"a": tile}, tmp_path / "index", {})
        return ids({shard: pq.read_table(path) for shard, path in paths.items()})

    assert dealt() == {"a": [], "unplaced": ["one"]}
    with fsspec.open(tile.bands["g"].image, "wb") as file:
        file.write(Path(local).read_bytes())
    assert dealt() == {"a": ["one"]}


@pytest.mark.parametrize("unit", ["degree", "DEG", "degrees"])
def test_units_that_only_astropy_understands(tmp_path, unit):
    wcs = tan_wcs(SHAPE, 150.0, 2.0)
    tile = make_tile(tmp_path, "a", wcs)
    for axis in "12":
        fits.setval(tile.bands["g"].image, f"CUNIT{axis}", value=unit)
    found = survey_footprints({"a": tile}, "g", {}, tmp_path / "m.json")["a"]
    expected = footprint_of(tmp_path, wcs)
    assert found.matrix == pytest.approx(expected.matrix)


def test_footprints_are_measured_again_by_new_code(tmp_path, monkeypatch):
    tile = make_tile(tmp_path, "a", tan_wcs(SHAPE, 150.0, 2.0))
    survey_footprints({"a": tile}, "g", {}, tmp_path / "m.json")
    make_tile(tmp_path, "a", tan_wcs(SHAPE, 160.0, 2.0))
    monkeypatch.setattr("luneta.survey.footprints.source_digest", lambda path: "new")
    found = survey_footprints({"a": tile}, "g", {}, tmp_path / "m.json")["a"]
    ra = SkyCoord(*found.centre, representation_type="cartesian").spherical.lon.deg
    assert ra == pytest.approx(160.0, abs=1e-3)


def test_footprints_are_read_again_where_the_file_is_new(tmp_path):
    tile = make_tile(tmp_path, "a", tan_wcs(SHAPE, 150.0, 2.0))
    image, memory = tile.bands["g"].image, tmp_path / "m.json"
    first = survey_footprints({"a": tile}, "g", {image: "1"}, memory)["a"]
    make_tile(tmp_path, "a", tan_wcs(SHAPE, 160.0, 2.0))
    assert survey_footprints({"a": tile}, "g", {image: "1"}, memory)["a"] == first
    second = survey_footprints({"a": tile}, "g", {image: "2"}, memory)["a"]
    ra = SkyCoord(*second.centre, representation_type="cartesian").spherical.lon.deg
    assert ra == pytest.approx(160.0, abs=1e-3)


def test_objects_know_their_shards(tmp_path):
    tile = make_tile(tmp_path, "a", tan_wcs(SHAPE, 150.0, 2.0))
    slices(tmp_path, given(tmp_path, ROWS), [tile])
    assert shards_with(tmp_path / "index", ["three", "nobody"]) == {"a"}
    assert shards_with(tmp_path / "index", ["far", "one"]) == {"a", "unplaced"}
    assert read_objects(tmp_path / "index/objects.arrow").num_rows == 5


def test_small_files_go_by_content_and_large_ones_by_size_and_time(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"a" * 100)
    large.write_bytes(bytes(2_000_000))
    os.utime(large, (100, 100))
    none, memory = tmp_path / "none", tmp_path / "m"
    paths = [str(p) for p in (small, large, none, os.devnull)]
    first = fingerprints(paths, memory)
    assert first[str(large)] == "2000000 bytes of 100"
    assert first[str(none)] is None
    assert first[os.devnull] == "no plain file"
    os.utime(small, (1, 1))
    assert fingerprints(paths, memory) == first
    small.write_bytes(b"a" * 50 + b"b" + b"a" * 49)
    os.utime(large, (90, 90))
    second = fingerprints(paths, memory)
    assert second[str(small)] != first[str(small)]
    assert second[str(large)] == "2000000 bytes of 90"
    assert set(read_json(memory)) == {str(small), str(large)}


def test_a_folder_goes_by_what_is_in_it(tmp_path):
    (tmp_path / "hats").mkdir()
    before = fingerprint(str(tmp_path / "hats"))
    (tmp_path / "hats/part.parquet").write_bytes(b"1")
    assert fingerprint(str(tmp_path / "hats")) != before


def test_a_folder_among_the_lists_of_tiles_is_looked_into_each_time(tmp_path):
    folder, memory = tmp_path / "list.parquet", tmp_path / "m"
    folder.mkdir()
    (folder / "part.parquet").write_bytes(b"1")
    first = fingerprints([str(folder)], memory)
    assert fingerprints([str(folder)], memory) == first
    (folder / "part.parquet").write_bytes(b"12")
    assert fingerprints([str(folder)], memory) != first


def test_the_parts_of_an_unchanged_folder_are_not_read_again(tmp_path):
    folder, index = tmp_path / "list.parquet", tmp_path / "index"
    folder.mkdir()
    index.mkdir()
    parts = [folder / f"part{n}.parquet" for n in range(3)]
    for n, part in enumerate(parts):
        part.write_bytes(b"%d" % n)
    first = signature(folder, index)
    assert first == [str(folder), fingerprint(str(folder))]
    assert fingerprints([str(folder)], index / "files.json") == {str(folder): first[1]}
    before = parts[0].stat()
    parts[0].write_bytes(b"8")  # which only who reads it can tell
    os.utime(parts[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert signature(folder, index) == first
    assert fingerprints([str(folder)], index / "files.json") == {str(folder): first[1]}
    parts[0].write_bytes(b"0")
    parts[1].write_bytes(b"9")
    assert signature(folder, index) == [str(folder), fingerprint(str(folder))] != first
    parts[2].unlink()
    assert signature(folder, index) == [str(folder), fingerprint(str(folder))]


def rows_of_the_unplaced(tmp_path, tiles, lines):
    settings = given(tmp_path, lines)
    path = deal_sources(settings, {t.name: t for t in tiles}, tmp_path / "index", {})["unplaced"]
    ingestion = {"tiles": [], "columns": {}, "keep": {}, "reference_band": "g", "sliced": True}
    ingest.run([path], tmp_path / "objects.parquet", ingestion)
    return pq.read_table(tmp_path / "objects.parquet").to_pandas().set_index("object_id")


def test_a_row_outside_every_tile_is_told_which_tile_lies_nobody_knows_where_and_why(tmp_path):
    good = make_tile(tmp_path, "good", tan_wcs(SHAPE, 150.0, 2.0))
    odd = make_tile(tmp_path, "odd", tan_wcs(SHAPE, 160.0, 2.0))
    with fits.open(tmp_path / "odd.fits", mode="update") as file:
        file[0].header["RADESYS"] = "GEOCENTRIC"
    rows = rows_of_the_unplaced(tmp_path, [good, odd], ["far,160.0,2.0", "bad,,2.0"])
    reason = rows.loc["far", "reject_reason"]
    assert reason.startswith(
        "the position lies outside every tile whose place is known; 1 tile has"
    )
    assert "tile odd: " in reason
    assert "odd.fits: RADESYS is 'GEOCENTRIC'; known are ICRS" in reason
    assert rows.loc["far", "flags"] == Flag.OUTSIDE
    assert rows.loc["bad", "reject_reason"] == "the position is missing: the list leaves it empty"


def test_where_every_tile_is_known_the_reason_is_short(tmp_path):
    good = make_tile(tmp_path, "good", tan_wcs(SHAPE, 150.0, 2.0))
    rows = rows_of_the_unplaced(tmp_path, [good], ["far,160.0,2.0"])
    assert rows.loc["far", "reject_reason"] == "the position lies outside every tile"


def test_slices_are_not_brought_to_the_disk_one_by_one(tmp_path, monkeypatch):
    """Of 100,000 shards that would take minutes at each new list."""
    counts = {}
    fsync = os.fsync
    for number in (2, 40):
        synced = []
        monkeypatch.setattr(os, "fsync", lambda file, synced=synced: synced.append(fsync(file)))
        table = pa.table({"object_id": ["a"], "ra": [1.0], "dec": [2.0], "tile": ["t"]})
        folder = tmp_path / str(number)
        paths = deal({f"s{n}": table for n in range(number)}, folder, "key")
        assert all(path.is_file() for path in paths.values())
        counts[number] = len(synced)
    assert 0 < counts[2] == counts[40]
