import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from fits_files import tan_wcs, write_image
from luneta.survey.flags import Flag
from luneta.survey.ingest import in_tile_order, mark_duplicates, repeated, run
from luneta.survey.tiles import BandFiles, Tile

COLUMNS = {"object_id": "ID", "ra": "RA", "dec": "DEC"}


def settings_for(tiles, **changes):
    return {
        "tiles": [tile.as_dict() for tile in tiles],
        "columns": COLUMNS,
        "keep": {"magnitude": "MAG"},
        "reference_band": "r",
        "sliced": False,
        **changes,
    }


@pytest.fixture
def tile(tmp_path):
    pixels = np.random.default_rng(0).normal(size=(200, 220)).astype(np.float32)
    name = write_image(tmp_path / "a_r.fits", pixels, tan_wcs())
    return Tile("a", "a", {"r": BandFiles(name)})


def source_list(path, x, y, ids=None, wcs=None):
    sky = (wcs or tan_wcs()).pixel_to_world(x, y)
    ids = ids or [f"s{n}" for n in range(len(x))]
    table = Table({"ID": ids, "RA": sky.ra.deg, "DEC": sky.dec.deg, "MAG": np.arange(len(x)) * 1.0})
    table["MAG"].unit = "mag"
    table.write(path, overwrite=True)
    return table


def ingest(tmp_path, tile, **changes):
    run([tmp_path / "s.fits"], tmp_path / "o.parquet", settings_for([tile], **changes))
    return pq.read_table(tmp_path / "o.parquet")


def test_objects_are_placed_with_their_units(tmp_path, tile):
    source_list(tmp_path / "s.fits", [10.25, 219.4, 230.0], [20.5, 0.0, 50.0])
    objects = ingest(tmp_path, tile)
    np.testing.assert_allclose(objects["x"].to_numpy(), [10.25, 219.4, 230.0], atol=1e-6)
    np.testing.assert_allclose(objects["y"].to_numpy(), [20.5, 0.0, 50.0], atol=1e-6)
    assert objects["flags"].to_pylist() == [0, 0, Flag.OUTSIDE]
    assert objects.schema.field("magnitude").metadata[b"unit"] == b"mag"
    assert objects["magnitude"].to_pylist() == [0.0, 1.0, 2.0]


def test_no_row_is_lost_and_each_reject_has_a_reason(tmp_path, tile):
    table = source_list(tmp_path / "s.fits", [10.0, 20.0, 30.0, 40.0], [10.0] * 4, list("abac"))
    table["RA"][1], table["DEC"][3] = np.nan, 95.0
    table.write(tmp_path / "s.fits", overwrite=True)
    objects = ingest(tmp_path, tile)
    assert objects["object_id"].to_pylist() == list("abac")
    assert objects["flags"].to_pylist() == [
        0, Flag.BAD_POSITION, Flag.DUPLICATE_ID, Flag.BAD_POSITION
    ]  # fmt: skip
    reasons = objects["reject_reason"].to_pylist()
    assert reasons[0] is None
    assert reasons[1] == "the position is not a number: ra is NaN"
    assert "the first is used" in reasons[2]
    assert reasons[3] == (
        "the position lies beyond the pole: dec is 95, and goes from -90 to 90 degrees"
    )


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda path: None, Flag.MISSING_FILE),
        (lambda path: path.write_text("<html>"), Flag.UNREADABLE_FILE),
        (lambda path: write_image(path, np.zeros((20, 20), np.float32)), Flag.NO_WCS),
    ],
)
def test_a_bad_reference_image_rejects_its_objects_only(tmp_path, tile, make, flag):
    make(tmp_path / "bad.fits")
    bad = Tile("bad", "a", {"r": BandFiles(f"{tmp_path}/bad.fits")})
    source_list(tmp_path / "s.fits", [10.0], [10.0])
    source_list(tmp_path / "t.fits", [10.0], [10.0], ["t0"])
    settings = settings_for([tile, bad])
    run([tmp_path / "s.fits", tmp_path / "t.fits"], tmp_path / "o.parquet", settings)
    assert pq.read_table(tmp_path / "o.parquet")["flags"].to_pylist() == [0, flag]


def test_repeated():
    assert repeated(["a", "b", "a", "a"]).tolist() == [False, False, True, True]


def test_a_value_that_stands_for_none_is_told_and_not_folded(tmp_path, tile):
    rows = {
        "ID": list("abcdef"),
        "RA": [150.0, -99.0, -999.0, 9999.0, 150.0, 725.5],
        "DEC": [2.0, 2.0, -999.0, 9999.0, -99.0, 2.0],
        "MAG": [1.0] * 6,
    }
    pq.write_table(pa.table(rows), tmp_path / "s.parquet")
    run([tmp_path / "s.parquet"], tmp_path / "o.parquet", settings_for([tile]))
    objects = pq.read_table(tmp_path / "o.parquet")
    assert objects["flags"].to_pylist() == [0, *[Flag.BAD_POSITION] * 5]
    limit = "ra goes from 0 to 360 degrees"
    assert objects["reject_reason"].to_pylist() == [
        None,
        f"the position is no point of the sky: ra is -99; {limit}",
        f"the position is no point of the sky: ra is -999 and dec is -999; {limit}",
        f"the position is no point of the sky: ra is 9999 and dec is 9999; {limit}",
        "the position lies beyond the pole: dec is -99, and goes from -90 to 90 degrees",
        f"the position is no point of the sky: ra is 725.5; {limit}",
    ]


def test_a_pixel_that_stands_for_none_is_told_or_the_sky_is_used(tmp_path, tile):
    sky = tan_wcs().pixel_to_world([10.0, 20.0], [10.0, 20.0])
    rows = {"ID": list("ab"), "X": [11.0, -999.0], "Y": [11.0, -999.0], "MAG": [1.0, 2.0]}
    table = pa.table(rows)
    pixels = {"object_id": "ID", "ra": None, "dec": None, "x": "X", "y": "Y"}
    pq.write_table(table, tmp_path / "s.parquet")
    settings = settings_for([tile], columns=pixels)
    run([tmp_path / "s.parquet"], tmp_path / "o.parquet", settings)
    objects = pq.read_table(tmp_path / "o.parquet")
    assert objects["flags"].to_pylist() == [0, Flag.BAD_POSITION]
    assert objects["reject_reason"][1].as_py() == "the position is none: x is -999 and y is -999"
    for name, values in (("RA", sky.ra.deg), ("DEC", sky.dec.deg)):
        table = table.append_column(name, pa.array(values))
    pq.write_table(table, tmp_path / "s.parquet")
    settings = settings_for([tile], columns=pixels | {"ra": "RA", "dec": "DEC"})
    run([tmp_path / "s.parquet"], tmp_path / "o.parquet", settings)
    objects = pq.read_table(tmp_path / "o.parquet")
    assert objects["flags"].to_pylist() == [0, 0]
    np.testing.assert_allclose(objects["x"].to_numpy(), [10.0, 20.0], atol=1e-6)


def test_each_impossible_position_has_its_own_reason(tmp_path, tile):
    rows = {
        "ID": list("abcde"),
        "RA": [None, float("nan"), float("inf"), 150.0, 150.0],
        "DEC": [2.0, 2.0, 2.0, -1e9, float("-inf")],
        "MAG": [1.0] * 5,
    }
    pq.write_table(pa.table(rows), tmp_path / "s.parquet")
    run([tmp_path / "s.parquet"], tmp_path / "o.parquet", settings_for([tile]))
    objects = pq.read_table(tmp_path / "o.parquet")
    assert objects["flags"].to_pylist() == [Flag.BAD_POSITION] * 5
    assert objects["reject_reason"].to_pylist() == [
        "the position is missing: the list leaves it empty",
        "the position is not a number: ra is NaN",
        "the position is infinite: ra is inf",
        "the position lies beyond the pole: dec is -1e+09, and goes from -90 to 90 degrees",
        "the position is infinite: dec is -inf",
    ]


def test_a_row_without_a_name_is_flagged_and_no_duplicate_of_another(tmp_path, tile):
    source_list(tmp_path / "s.fits", [10.0, 20.0, 30.0], [10.0] * 3, ["", "  ", "a"])
    objects = ingest(tmp_path, tile)
    assert objects["flags"].to_pylist() == [Flag.BAD_ID, Flag.BAD_ID, 0]
    assert objects["reject_reason"][0].as_py() == "the row of the source list has no object_id"


def test_odd_names_pass_unchanged(tmp_path, tile):
    names = ["../../etc/passwd", "Ω Cen", "a/b\\c", "x'; drop table"]
    sky = tan_wcs().pixel_to_world([10.0, 20.0, 30.0, 40.0], [10.0] * 4)
    rows = {"ID": names, "RA": sky.ra.deg, "DEC": sky.dec.deg, "MAG": [1.0] * 4}
    pq.write_table(pa.table(rows), tmp_path / "s.parquet")
    run([tmp_path / "s.parquet"], tmp_path / "o.parquet", settings_for([tile]))
    objects = pq.read_table(tmp_path / "o.parquet")
    assert objects["object_id"].to_pylist() == names
    assert objects["flags"].to_pylist() == [0, 0, 0, 0]


def two_tiles(tmp_path, tile):
    """A second tile, which overlaps the first by about 70 pixels."""
    right = tan_wcs(ra=150.0 - 150 * 0.262 / 3600)
    name = write_image(tmp_path / "b_r.fits", np.zeros((200, 220), np.float32), right)
    return [tile, Tile("b", "b", {"r": BandFiles(name)})], right


def placements(tmp_path, tiles, first, second, names=("s", "s"), **changes):
    """Ingest one object in each tile's own list; positions in degrees."""
    for path, (ra, dec), name in zip(("s.csv", "t.csv"), (first, second), names, strict=True):
        Table({"ID": [name], "RA": [ra], "DEC": [dec], "MAG": [1.0]}).write(
            tmp_path / path, overwrite=True
        )
    paths = [tmp_path / "s.csv", tmp_path / "t.csv"]
    run(paths, tmp_path / "o.parquet", settings_for(tiles, **changes))
    return pq.read_table(tmp_path / "o.parquet")


@pytest.mark.parametrize(
    ("apart", "radius", "flag"),
    [(0.0, 1.0, 0), (0.9, 1.0, 0), (1.1, 1.0, Flag.DUPLICATE_ID), (1.1, 2.0, 0)],
)
def test_one_name_in_two_tiles_is_one_object_if_near(tmp_path, tile, apart, radius, flag):
    tiles, right = two_tiles(tmp_path, tile)
    sky = right.pixel_to_world(30, 100)
    first, second = (sky.ra.deg, sky.dec.deg), (sky.ra.deg, sky.dec.deg + apart / 3600)
    objects = placements(tmp_path, tiles, first, second, overlap_radius=radius)
    assert objects["tile"].to_pylist() == ["a", "b"]
    assert objects["flags"].to_pylist() == [0, flag]
    if flag:
        assert objects["reject_reason"][1].as_py() == (
            "tile a has the same object_id 1.1 arcsec away, so it is another object "
            "(input.overlap_radius = 1 arcsec); the first is used"
        )


def test_a_rejected_row_is_no_first_of_a_name(tmp_path, tile):
    source_list(tmp_path / "s.fits", [5000.0, 10.0, 12.0], [10.0] * 3, ["s", "s", "s"])
    assert ingest(tmp_path, tile)["flags"].to_pylist() == [Flag.OUTSIDE, 0, Flag.DUPLICATE_ID]


def test_duplicates_at_an_unknown_distance_are_duplicates():
    flags, reasons = np.zeros(2, np.int32), np.full(2, None, object)
    names, nowhere = np.array(["1", "1"], object), np.full(2, np.nan)
    tiles = np.array(["a", "b"], object)
    mark_duplicates(names, tiles, nowhere, nowhere, 1.0, flags, reasons)
    assert flags.tolist() == [0, Flag.DUPLICATE_ID]
    assert "at an unknown distance" in reasons[1]


PIXELS = {"object_id": "ID", "ra": None, "dec": None, "x": "X", "y": "Y"}


def pixel_list(path, x, y):
    Table({"ID": [f"s{n}" for n in range(len(x))], "X": x, "Y": y}).write(path, overwrite=True)


def test_pixel_positions_stay_and_give_the_sky(tmp_path, tile):
    pixel_list(tmp_path / "s.fits", [11.0, 1000.0, np.nan], [21.5, 5.0, 5.0])
    objects = ingest(tmp_path, tile, columns=PIXELS, keep={}, first_pixel=1)
    assert objects["flags"].to_pylist() == [0, Flag.OUTSIDE, Flag.BAD_POSITION]
    assert (objects["x"][0].as_py(), objects["y"][0].as_py()) == (10.0, 20.5)
    sky = tan_wcs().pixel_to_world(10.0, 20.5)
    assert objects["ra"][0].as_py() == pytest.approx(sky.ra.deg, abs=1e-9)
    assert objects["dec"][0].as_py() == pytest.approx(sky.dec.deg, abs=1e-9)
    assert objects["reject_reason"][2].as_py() == "the position is not a number: x is NaN"


def test_pixel_positions_need_no_coordinate_system(tmp_path):
    name = write_image(tmp_path / "plain.fits", np.zeros((20, 30), np.float32))
    pixel_list(tmp_path / "s.fits", [30.0, 31.0], [20.0, 20.0])
    plain = Tile("a", "a", {"r": BandFiles(name)})
    objects = ingest(tmp_path, plain, columns=PIXELS, keep={})
    assert objects["flags"].to_pylist() == [0, Flag.OUTSIDE]
    assert np.isnan(objects["ra"].to_numpy()).all()


def test_a_tile_that_is_not_in_the_table_is_named(tmp_path, tile):
    rows = {"object_id": ["s"], "ra": [150.0], "dec": [2.0], "tile": ["z9"]}
    pq.write_table(pa.table(rows), tmp_path / "s.fits.parquet")
    run([tmp_path / "s.fits.parquet"], tmp_path / "o.parquet",
        settings_for([tile], sliced=True, keep={}))  # fmt: skip
    objects = pq.read_table(tmp_path / "o.parquet")
    assert objects["flags"].to_pylist() == [Flag.OUTSIDE]
    assert objects["reject_reason"][0].as_py() == (
        "the list puts the object in tile 'z9', which the tile table does not have"
    )


def test_stamps_only_need_a_name(tmp_path):
    rows = {"object_id": ["s", "s", None], "ra": [None] * 3, "dec": [None] * 3, "tile": [""] * 3}
    schema = pa.schema(
        [("object_id", pa.string()), ("ra", pa.float64()), ("dec", pa.float64()),
         ("tile", pa.string())]
    )  # fmt: skip
    pq.write_table(pa.table(rows, schema=schema), tmp_path / "s.parquet")
    settings = settings_for([], reference_band=None, sliced=True, keep={})
    run([tmp_path / "s.parquet"], tmp_path / "o.parquet", settings)
    objects = pq.read_table(tmp_path / "o.parquet")
    assert objects["flags"].to_pylist() == [0, Flag.DUPLICATE_ID, Flag.BAD_ID]


def test_a_hundred_thousand_rows_take_seconds(tmp_path, tile):
    x, y = np.random.default_rng(0).uniform(0, 199, (2, 100_000))
    source_list(tmp_path / "s.fits", x, y)
    start = time.process_time()
    objects = ingest(tmp_path, tile)
    assert time.process_time() - start < 5
    assert objects["flags"].to_pylist() == [0] * 100_000


def test_objects_of_a_tile_stand_together_in_the_order_of_the_list():
    table = pa.table({"object_id": list("abcdef"), "tile": ["y", "x", "", "x", "y", "x"]})
    found = in_tile_order(table, ["x", "y"])
    assert found["object_id"].to_pylist() == ["b", "d", "f", "a", "e", "c"]
    assert in_tile_order(found, ["x", "y"]) is found


def test_without_coordinates_only_those_by_sky_are_refused(tmp_path):
    bare = write_image(tmp_path / "bare.fits", np.ones((40, 50), np.float32))
    table = Table({"ID": ["a", "b"], "X": [11.0, np.nan], "Y": [21.0, 5.0]})
    table["RA"], table["DEC"] = [150.0, 150.0], [2.0, 2.0]
    table.write(tmp_path / "s.fits")
    tile = Tile("t", "t", {"r": BandFiles(bare)})
    columns = {"object_id": "ID", "x": "X", "y": "Y", "ra": "RA", "dec": "DEC"}
    objects = ingest(tmp_path, tile, columns=columns, keep={}, first_pixel=1)
    assert objects["flags"].to_pylist() == [0, Flag.NO_WCS]
    assert "no celestial coordinate system" in objects["reject_reason"][1].as_py()
