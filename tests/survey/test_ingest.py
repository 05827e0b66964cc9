import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from fits_files import tan_wcs, write_image
from luneta.survey.flags import Flag
from luneta.survey.index import assign, deal_sources
from luneta.survey.ingest import repeated, run
from luneta.survey.sources import Sources
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
    assert "the first is used" in reasons[2]


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


def two_tiles(tmp_path, tile):
    pixels = np.zeros((200, 220), np.float32)
    right = tan_wcs(ra=150.0 - 150 * 0.262 / 3600)  # overlaps tile a by about 70 pixels
    name = write_image(tmp_path / "b_r.fits", pixels, right)
    return {"a": tile, "b": Tile("b", "b", {"r": BandFiles(name)})}, right


def test_an_object_in_two_tiles_goes_where_it_lies_deeper(tmp_path, tile):
    tiles, right = two_tiles(tmp_path, tile)
    centres = [tan_wcs().pixel_to_world(110, 100), right.pixel_to_world(110, 100)]
    nearer_b = right.pixel_to_world(60, 100)
    sky = [*centres, nearer_b]
    ra, dec = np.array([p.ra.deg for p in sky] + [10.0]), np.array([p.dec.deg for p in sky] + [0.0])
    sources = Sources(np.array(list("wxyz"), object), ra, dec, np.full(4, "", object), None)
    assert assign(sources, tiles.values(), "r").tolist() == ["a", "b", "b", ""]


def test_a_survey_wide_list_is_dealt_whole_and_slices_stay_when_rows_come(tmp_path, tile):
    tiles, right = two_tiles(tmp_path, tile)
    folder = tmp_path / "index"
    given = {
        "sources": str(tmp_path / "s.fits"),
        "columns": COLUMNS,
        "keep": {"magnitude": "MAG"},
        "bands": ["r"],
        "reference_band": "r",
    }
    table = source_list(tmp_path / "s.fits", [10.0, 20.0, -5000.0], [100.0, 120.0, 0.0])
    slices = deal_sources(given, tiles, folder)
    counts = {shard: pq.read_metadata(path).num_rows for shard, path in slices.items()}
    assert counts == {"a": 2, "b": 0, "unplaced": 1}
    before = {shard: (path.stat().st_mtime_ns, path.read_bytes()) for shard, path in slices.items()}
    new = right.pixel_to_world(150, 100)
    table.add_row(["new", new.ra.deg, new.dec.deg, 20.0])
    table.write(tmp_path / "s.fits", overwrite=True)
    slices = deal_sources(given, tiles, folder)
    changed = {
        shard
        for shard, path in slices.items()
        if (path.stat().st_mtime_ns, path.read_bytes()) != before[shard]
    }
    assert changed == {"b"}
    assert pq.read_table(slices["b"])["object_id"].to_pylist() == ["new"]


def test_objects_of_a_tile_with_a_bad_reference_image_stay_with_it(tmp_path, tile):
    broken = Tile("a", "a", {"r": BandFiles(f"{tmp_path}/none.fits"), "g": tile.bands["r"]})
    sky = tan_wcs().pixel_to_world(100, 100)
    sources = Sources(
        np.array(["s"], object), np.array([sky.ra.deg]), np.array([sky.dec.deg]),
        np.array([""], object), None,
    )  # fmt: skip
    assert assign(sources, [broken], "r").tolist() == ["a"]
