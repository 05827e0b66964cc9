import pytest

from luneta.survey.images import split_extension
from luneta.survey.tiles import Tile, TileTableError, read_tiles

HEADER = "tile\tband\timage\tmask\tshard\n"


def write(path, text):
    path.write_text(text)
    return path


def test_tiles_keep_bands_paths_and_shards(tmp_path):
    rows = (
        "a\tg\ta_g.fits[SCI]\ta_g.fits[DQ]\tone\na\tr\t/data/a_r.fits\t\tone\nb\tg\tb.fits\t\tone\n"
    )
    tiles = read_tiles(write(tmp_path / "t.tsv", HEADER + rows), root="images")
    assert list(tiles) == ["a", "b"]
    assert tiles["a"].bands["g"].image == "images/a_g.fits[SCI]"
    assert tiles["a"].bands["r"].image == "/data/a_r.fits"
    assert tiles["a"].bands["r"].mask is None
    assert {tile.shard for tile in tiles.values()} == {"one"}
    assert Tile.from_dict(tiles["a"].as_dict()) == tiles["a"]


def test_without_a_shard_column_a_tile_is_its_own_shard(tmp_path):
    tiles = read_tiles(write(tmp_path / "t.tsv", "tile\tband\timage\na\tg\tx.fits\n"))
    assert tiles["a"].shard == "a"


def test_a_table_as_windows_writes_it(tmp_path):
    (tmp_path / "t.tsv").write_bytes(b"\xef\xbb\xbftile\tband\timage\r\na\tg\tx.fits\r\n")
    assert read_tiles(tmp_path / "t.tsv")["a"].bands["g"].image == "x.fits"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tile,band,image\n", "no column tile, band, image"),
        ("tile\tband\timage\na\tg\tx.fits\na\tg\ty.fits\n", "line 3: tile a has band g twice"),
        ("tile\tband\timage\n../a\tg\tx.fits\n", "line 2: tile '../a' cannot name a file"),
        ("tile\tband\timage\nunplaced\tg\tx.fits\n", "line 2: tile 'unplaced' is luneta's own"),
        ("tile\tband\timage\na\tg\t\n", "has no image"),
        ("tile\tband\timage\n\n\na\tg\t\n", "line 4: tile a, band g has no image"),
        (HEADER + "a\tg\tx\t\tone\na\tr\ty\t\ttwo\n", "in shard two here and in one above"),
    ],
)
def test_a_wrong_tile_table_says_where(tmp_path, text, words):
    with pytest.raises(TileTableError, match=words):
        read_tiles(write(tmp_path / "t.tsv", text))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.fits", ("a.fits", None)),
        ("a.fits[3]", ("a.fits", 3)),
        ("a.fits.fz[SCI]", ("a.fits.fz", "SCI")),
        ("run[2]/a.fits", ("run[2]/a.fits", None)),
    ],
)
def test_split_extension(name, expected):
    path, extension = split_extension(name)
    assert (str(path), extension) == expected
