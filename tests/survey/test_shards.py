"""The tiles of a survey, by table or by pattern, and their shards."""

import os

import pyarrow as pa
import pytest

from luneta.files import write_json
from luneta.parquet import write_parquet
from luneta.survey.shards import in_shards, survey_tiles
from luneta.survey.tiles import BandFiles, Tile, TileTableError


@pytest.fixture
def given(tmp_path):
    """Settings of a survey whose files lie as the Legacy Surveys ship them."""
    for tile in ("b_1", "a"):
        folder = tmp_path / "coadd" / tile
        folder.mkdir(parents=True)
        for band in ("g", "HSC-R"):
            (folder / f"ls-{tile}-image-{band}.fits.fz").touch()
            (folder / f"ls-{tile}-mask-v1-{band}.fits").touch()
    return {
        "tiles": None,
        "images": "coadd/{tile}/ls-{tile}-image-{band}.fits.fz[1]",
        "masks": None,
        "weights": None,
        "root": str(tmp_path),
        "bands": ["r", "g"],
        "band_names": {"r": "HSC-R"},
        "planes": {},
        "tiles_per_shard": 1,
    }


def names(tiles, kind="image"):
    return {
        (t.name, band): getattr(files, kind).split("coadd/")[-1]
        for t in tiles.values()
        for band, files in t.bands.items()
    }


def test_files_are_found_by_pattern(given):
    tiles = survey_tiles(given)
    assert names(tiles) == {
        ("a", "r"): "a/ls-a-image-HSC-R.fits.fz[1]",
        ("a", "g"): "a/ls-a-image-g.fits.fz[1]",
        ("b_1", "r"): "b_1/ls-b_1-image-HSC-R.fits.fz[1]",
        ("b_1", "g"): "b_1/ls-b_1-image-g.fits.fz[1]",
    }
    assert list(tiles) == ["a", "b_1"]
    assert [tile.shard for tile in tiles.values()] == ["a", "b_1"]


def test_a_repeated_tile_is_the_same_tile(given, tmp_path):
    (tmp_path / "coadd/a/ls-c-image-g.fits.fz").touch()
    assert list(survey_tiles(given)) == ["a", "b_1"]


def test_a_missing_band_has_no_entry(given, tmp_path):
    (tmp_path / "coadd/a/ls-a-image-g.fits.fz").unlink()
    assert list(survey_tiles(given)["a"].bands) == ["r"]


def test_masks_lie_beside_and_one_that_is_missing_keeps_its_name(given, tmp_path):
    (tmp_path / "coadd/a/ls-a-mask-v1-g.fits").unlink()
    given["masks"] = "coadd/{tile}/ls-{tile}-mask-*-{band}.fits[MASK_{band}]"
    given["weights"] = "weights/{tile}.fits"
    tiles = survey_tiles(given)
    masks = names(tiles, "mask")
    assert masks["b_1", "r"] == "b_1/ls-b_1-mask-v1-HSC-R.fits[MASK_HSC-R]"
    assert masks["a", "g"] == "a/ls-a-mask-*-g.fits[MASK_g]"
    assert tiles["a"].bands["g"].weight == str(tmp_path / "weights/a.fits")


def test_a_file_of_all_bands(given, tmp_path):
    (tmp_path / "cubes").mkdir()
    (tmp_path / "cubes/x.fits").touch()
    given["images"] = "cubes/{tile}.fits[SCI_{band}]"
    given["planes"] = {"g": 4}
    bands = survey_tiles(given)["x"].bands
    assert bands["r"] == BandFiles(str(tmp_path / "cubes/x.fits[SCI_HSC-R]"), plane=0)
    assert bands["g"] == BandFiles(str(tmp_path / "cubes/x.fits[SCI_g]"), plane=4)


def test_the_shortest_tile_where_a_name_can_be_read_in_two_ways(given, tmp_path):
    (tmp_path / "des").mkdir()
    (tmp_path / "des/DES0001_v3_g.fits").touch()
    given["images"] = "des/{tile}_*_{band}.fits"
    assert list(survey_tiles(given)) == ["DES0001"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"band_names": {"r": "R"}, "bands": ["r"]}, "there are files of HSC-R, g: say by"),
        ({"images": "img/{tile}/{band}.fits"}, "there is no folder .*/img"),
        ({"images": "{tile}_{band}.fits"}, "matches no file; .* holds coadd"),
        ({"images": "https://x.org/{tile}_{band}.fits"}, "cannot be listed by a pattern"),
    ],
)
def test_patterns_that_match_nothing_say_what_is_there(given, change, words):
    with pytest.raises(TileTableError, match=words):
        survey_tiles(given | change)


def test_two_files_for_one_band(given, tmp_path):
    (tmp_path / "coadd/a/ls-a-mask-v2-g.fits").touch()
    given["masks"] = "coadd/{tile}/ls-{tile}-mask-*-{band}.fits"
    with pytest.raises(TileTableError, match=r"both .*v1-g.fits and .*v2-g.fits are tile a, band"):
        survey_tiles(given)


def test_a_name_that_no_file_can_bear(given, tmp_path):
    (tmp_path / "bad tile-g.fits").touch()
    given["images"] = "{tile}-{band}.fits"
    with pytest.raises(TileTableError, match="'bad tile' cannot name a file"):
        survey_tiles(given)


def test_bands_that_are_not_asked_for_are_left_out(given, tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("tile\tband\timage\na\tg\thttps://x.org/g.fits[1]\na\tu\tu.fits\n")
    bands = survey_tiles(given | {"tiles": str(table), "images": None})["a"].bands
    assert bands == {"g": BandFiles("https://x.org/g.fits[1]", plane=1)}


def tiles_named(text):
    return {name: Tile(name, name) for name in text.split()}


def shards(tiles):
    return {name: tile.shard for name, tile in tiles.items()}


def test_known_tiles_stay_and_new_ones_make_new_shards(tmp_path):
    ledger = tmp_path / "index/shards.tsv"
    first = shards(in_shards(tiles_named("c a b"), 2, ledger))
    assert first == {"c": "shard_00000", "a": "shard_00000", "b": "shard_00001"}
    written = ledger.read_text().rpartition("#")[0]
    later = shards(in_shards(tiles_named("a b c d e f"), 2, ledger))
    assert later == first | {"d": "shard_00002", "e": "shard_00002", "f": "shard_00003"}
    assert ledger.read_text().startswith(written)


def test_a_tile_that_was_gone_comes_back_to_its_shard(tmp_path):
    ledger = tmp_path / "shards.tsv"
    in_shards(tiles_named("a b"), 2, ledger)
    assert shards(in_shards(tiles_named("b"), 2, ledger)) == {"b": "shard_00000"}
    assert shards(in_shards(tiles_named("a x b"), 2, ledger)) == {
        "a": "shard_00000",
        "x": "shard_00001",
        "b": "shard_00000",
    }


def test_a_shard_of_the_table_is_kept(tmp_path):
    tiles = tiles_named("a b") | {"c": Tile("c", "shard_00007")}
    assert shards(in_shards(tiles, 5, tmp_path / "l.tsv")) == {
        "a": "shard_00008",
        "b": "shard_00008",
        "c": "shard_00007",
    }


def test_a_broken_ledger_is_refused(tmp_path):
    (tmp_path / "l.tsv").write_text("tile,shard\na,b\n")
    with pytest.raises(TileTableError, match="bring back the file as it was, or remove it"):
        in_shards(tiles_named("a"), 2, tmp_path / "l.tsv")


def damage_by(change):
    return pytest.param(change, id=change.__name__)


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def swap_a_letter(path):
    """A tile moves to the other shard."""
    path.write_text(path.read_text().replace("b\tshard_00001", "b\tshard_00000"))


def drop_the_checksum(path):
    path.write_text(path.read_text().rpartition("#")[0])


def remove(path):
    path.unlink()


@pytest.mark.parametrize(
    "damage", [*map(damage_by, [halve, swap_a_letter, drop_the_checksum, remove])]
)
@pytest.mark.parametrize("name", ["shards.tsv", "shards_copy.tsv"])
def test_a_damaged_ledger_is_written_again_from_the_other_one(tmp_path, name, damage):
    ledger = tmp_path / "shards.tsv"
    first = in_shards(tiles_named("c a b"), 2, ledger)
    content = ledger.read_bytes()
    damage(tmp_path / name)
    assert in_shards(tiles_named("b a c"), 2, ledger) == {n: first[n] for n in "bac"}
    assert ledger.read_bytes() == (tmp_path / "shards_copy.tsv").read_bytes() == content


def test_a_ledger_that_is_lost_with_its_copy_is_made_again_from_the_object_lists(tmp_path, capsys):
    """Of the tile without objects, from what the last run noted."""
    for shard, names in (("shard_00000", "ac"), ("shard_00001", "b")):
        path = tmp_path / f"objects/{shard}.parquet"
        write_parquet(pa.table({"tile": [*names, *names]}), path)
    write_json(tmp_path / "index/last_run.json", {"tiles": {"e": {"shard": "shard_00001"}}})
    found = shards(in_shards(tiles_named("a b c d e"), 2, tmp_path / "index/shards.tsv"))
    assert found == {
        "a": "shard_00000",
        "b": "shard_00001",
        "c": "shard_00000",
        "d": "shard_00002",
        "e": "shard_00001",
    }
    assert "is lost. It is made again from the last run" in capsys.readouterr().err


def test_a_ledger_of_an_earlier_luneta_is_read_and_has_a_copy_from_then_on(tmp_path):
    ledger = tmp_path / "shards.tsv"
    ledger.write_text("tile\tshard\na\tshard_00007\n")
    assert shards(in_shards(tiles_named("a"), 2, ledger)) == {"a": "shard_00007"}
    assert "# crc32 of the lines above: " in (tmp_path / "shards_copy.tsv").read_text()
    assert shards(in_shards(tiles_named("a"), 2, ledger)) == {"a": "shard_00007"}


def test_many_new_tiles_share_a_thousand_shards(tmp_path):
    ledger = tmp_path / "shards.tsv"
    few = {f"t{n}": Tile(f"t{n}", f"t{n}") for n in range(1000)}
    found = shards(in_shards(few, None, ledger))
    assert found == {name: name for name in few}
    many = few | {f"u{n}": Tile(f"u{n}", f"u{n}") for n in range(2500)}
    found = shards(in_shards(many, None, ledger))
    assert {name: found[name] for name in few} == {name: name for name in few}
    assert found["u0"] == found["u2"] == "shard_00000"
    assert found["u2499"] == "shard_00833"
    later = shards(in_shards(many | {"v": Tile("v", "v")}, None, ledger))
    assert later == found | {"v": "v"}
