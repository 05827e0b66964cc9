"""Every kind of defective file in one survey: each costs itself only, and is told with its reason."""

import itertools
import os
import re

import numpy as np
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
import yaml

import defects
from luneta.survey.flags import UNUSABLE, Flag
from tiny_survey import Survey

TILES = [d for d in defects.TILES if d.name != "forbidden" or os.geteuid() != 0]
COLUMNS = ("image", "mask", "weight")


def tile_config() -> dict:
    return {
        "survey": "tiny",
        "input": {
            "kind": "tiles",
            "tiles": "tiles.tsv",
            "sources": "lists/{tile}.csv",
            "bands": ["g", "r"],
            "reference_band": "r",
            "mask": {"planes": {"bad": 0}},
            "astrometry": {"max_offset": 5.0},
        },
        "cutouts": {"size": 16},
    }


def deliver(survey: Survey, tiles: list[tuple[defects.Tile, str]]) -> None:
    """Write the tile table, with the shard of each tile, and the source lists."""
    (survey.folder / "config.yaml").write_text(yaml.safe_dump(tile_config()))
    lines = ["tile\tband\timage\tmask\tweight\tshard"]
    (survey.folder / "lists").mkdir()
    for tile, shard in tiles:
        for band, names in tile.names.items():
            files = [names.get(column, "") for column in COLUMNS]
            lines.append("\t".join([tile.name, band, *files, shard]))
        rows = ["object_id,ra,dec", *(",".join(row) for row in tile.rows)]
        (survey.folder / f"lists/{tile.name}.csv").write_text("\n".join(rows) + "\n")
    (survey.folder / "tiles.tsv").write_text("\n".join(lines) + "\n")


def good_tiles(survey: Survey) -> list[tuple[defects.Tile, str]]:
    """One good tile with a shard of its own, and one in the shard of the bad ones."""
    (survey.folder / "raw").mkdir()
    tiles = []
    for number, shard in enumerate(("good", "mixed")):
        tile = defects.Tile(survey.folder / "raw", f"good_{number}", seed=10 * number)
        tile.write()
        tiles.append((tile, shard))
    return tiles


def bad_tiles(survey: Survey) -> list[tuple[defects.Tile, str]]:
    tiles = []
    for defect in TILES:
        tile = defects.Tile(survey.folder / "raw", defect.name)
        tile.write()
        defect.make(tile)
        tiles.append((tile, "mixed"))
    lists = {"rows": defects.ROWS, "text_rows": defects.TEXT_ROWS, "no_rows": {},
             "only_bad_rows": {"lost": (("", ""), None, "")}}  # fmt: skip
    for name, rows in lists.items():
        tile = defects.Tile(survey.folder / "raw", name)
        tile.write()
        tile.rows = (tile.rows if "text" in name else []) + defects.rows_of(rows)
        tiles.append((tile, "mixed"))
    return tiles


@pytest.fixture(scope="module")
def without(tmp_path_factory) -> Survey:
    """The good tiles alone."""
    survey = Survey(tmp_path_factory.mktemp("without"))
    deliver(survey, good_tiles(survey))
    survey.log = survey.run()
    return survey


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Survey:
    """The good tiles among all the defective ones."""
    survey = Survey(tmp_path_factory.mktemp("corpus"))
    tiles = good_tiles(survey)
    good, beside = tiles
    bad = bad_tiles(survey)
    survey.tiles = {tile.name: tile for tile, _ in [*tiles, *bad]}
    deliver(survey, [good, *bad[: len(bad) // 2], beside, *bad[len(bad) // 2 :]])
    survey.log = survey.run()
    return survey


@pytest.fixture(scope="module")
def catalog(corpus):
    rows = pq.read_table(corpus.results / "catalog/tiny.parquet").to_pandas()
    return dict(tuple(rows.groupby("tile", sort=False)))


def reasons_of(survey: Survey, kind: str) -> dict[str, list[tuple[str, str]]]:
    """Flag and reason of what was rejected, by tile (of files) or by name (of objects)."""
    rows = pq.read_table(survey.results / "catalog/rejects.parquet").to_pylist()
    found = {}
    for row in rows:
        if row["kind"] == kind:
            key = row["tile"] if kind == "file" else row["name"]
            found.setdefault(key, []).append((row["flag"], row["reason"]))
    return found


def test_the_corpus_is_large_enough():
    assert len(defects.TILES) + len(defects.ROWS) + len(defects.STAMPS) >= 60
    names = [defect.name for defect in (*defects.TILES, *defects.STAMPS)]
    assert len(set(names)) == len(names)


def test_no_row_is_lost(corpus, catalog):
    for name, tile in corpus.tiles.items():
        found = catalog[name]["object_id"].tolist() if tile.rows else []
        assert found == [row[0] for row in tile.rows], name
    assert sum(map(len, catalog.values())) == sum(len(t.rows) for t in corpus.tiles.values())


def test_every_unusable_object_is_among_the_rejects_with_its_reason(corpus, catalog):
    rejected = reasons_of(corpus, "object")
    for rows in catalog.values():
        for row in rows.itertuples():
            assert ((row.flags & UNUSABLE) != 0) == isinstance(row.reject_reason, str)
            if row.flags & UNUSABLE:
                assert row.reject_reason in [reason for _, reason in rejected[row.object_id]]


@pytest.mark.parametrize("defect", TILES, ids=lambda defect: defect.name)
def test_the_objects_of_a_defective_tile_have_its_flag_and_reason(catalog, defect):
    rows = catalog[defect.name]
    if defect.flag is None or not defect.flag & UNUSABLE:
        assert rows["reject_reason"].isna().mean() > 0.5
        flag = defect.flag or 0
        assert ((rows["flags"][rows["reject_reason"].isna()] & ~Flag.MASKED) == flag).all()
    else:
        assert ((rows["flags"] & UNUSABLE) == defect.flag).all()
        assert rows["reject_reason"].str.contains(defect.words).all(), rows["reject_reason"][0]


def said_of_tiles(corpus, catalog) -> dict[str, str]:
    """Reason of each defective tile: of its file, or else of its objects."""
    files = reasons_of(corpus, "file")
    said = {}
    for defect in TILES:
        if defect.flag is not None:
            (flag, reason), *others = files.get(defect.name) or [
                (None, catalog[defect.name]["reject_reason"].iloc[0])
            ]
            assert not others, (defect.name, reason, others)
            assert flag in (None, defect.flag.name.lower()), defect.name
            said[defect.name] = reason
    return said


def assert_distinct(said: dict[str, str], corpus: list[defects.Defect]) -> None:
    """Each reason fits its own defect, and no other's; also without the names of files."""
    words = {defect.name: defect.words for defect in corpus if defect.name in said}
    for (name, pattern), (other, reason) in itertools.product(words.items(), said.items()):
        assert bool(re.search(pattern, reason)) == (name == other), (name, other, reason)


def test_each_defective_tile_has_a_reason_of_its_own(corpus, catalog):
    assert_distinct(said_of_tiles(corpus, catalog), TILES)


def test_tolerated_files_are_not_reported(corpus):
    files = reasons_of(corpus, "file")
    assert not [d.name for d in TILES if d.flag is None and d.name in files]
    assert not [name for name in files if name.startswith("good")]


def test_each_defective_row_has_its_flag_and_reason(catalog):
    for tile, given in (("rows", defects.ROWS), ("text_rows", defects.TEXT_ROWS)):
        rows = catalog[tile].set_index("object_id")
        for name, (_, flag, words) in given.items():
            row = rows.loc[name]
            assert (row["flags"] & UNUSABLE) == (flag or 0), name
            assert bool(row["reject_reason"]) == (flag is not None), name
            assert re.search(words, row["reject_reason"] or ""), (name, row["reject_reason"])


def test_good_objects_are_as_in_a_run_without_the_bad_ones(corpus, without):
    for name in ("objects/good.parquet", "cutouts/good.arrow", "quality/good.parquet"):
        assert (corpus.results / name).read_bytes() == (without.results / name).read_bytes(), name
    found, expected = (
        pq.read_table(s.results / "catalog/tiny.parquet").to_pandas() for s in (corpus, without)
    )
    found = found[found["tile"].str.startswith("good")].reset_index(drop=True)
    assert found.drop(columns="shard", errors="ignore").equals(expected)
    assert len(expected) == 50
    assert expected["reject_reason"].isna().all()


def cutouts_of(survey: Survey, shard: str) -> dict[str, np.ndarray]:
    table = ipc.open_file(survey.results / f"cutouts/{shard}.arrow").read_all()
    images = table["image"].combine_chunks().to_numpy_ndarray()
    return dict(zip(table["object_id"].to_pylist(), images, strict=True))


def test_cutouts_of_a_good_tile_in_a_shard_of_bad_ones_are_as_without_them(corpus, without):
    found, expected = (cutouts_of(survey, "mixed") for survey in (corpus, without))
    assert len(expected) == 25
    for name, image in expected.items():
        assert np.array_equal(found[name], image, equal_nan=True), name


def test_the_report_shows_reasons_and_no_markup_of_the_data(corpus):
    page = (corpus.results / "report/rejects.html").read_text()
    assert "is a named pipe, not a file" in page
    assert "<script>alert" not in page
