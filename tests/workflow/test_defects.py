"""All kinds of defective files in one survey: each costs itself only, and is told why."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
import yaml

import defects
from catalog_files import table_of_catalog
from luneta.survey.flags import UNUSABLE, Flag
from luneta.survey.footprints import survey_footprints
from luneta.survey.tiles import BandFiles, Tile
from tiny_survey import Survey

# Root may read what is forbidden, unless it gives up the right to.
AS_A_USER = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
IS_ROOT = os.geteuid() == 0
CAN_FORBID = not IS_ROOT or (
    shutil.which("setpriv") is not None
    and subprocess.run([*AS_A_USER, "true"], capture_output=True, check=False).returncode == 0
)
TILES = [d for d in defects.TILES if CAN_FORBID or d.name != "forbidden"]
COLUMNS = ("image", "mask", "weight")


class UserSurvey(Survey):
    """A survey that is run as a user without root's rights."""

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "snakemake", "--configfile", "config.yaml", "--cores", "2"]
        return subprocess.run(
            [*(AS_A_USER if IS_ROOT and CAN_FORBID else []), *command, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / "scripts")},
            capture_output=True,
            text=True,
            check=False,
        )


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


def run_to_the_catalog(survey: Survey) -> Survey:
    """Run all rules but the report, to save its time."""
    done = survey.snakemake("catalog")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return survey


@pytest.fixture(scope="module")
def without(tmp_path_factory) -> Survey:
    """The good tiles alone."""
    survey = Survey(tmp_path_factory.mktemp("without"))
    deliver(survey, good_tiles(survey))
    return run_to_the_catalog(survey)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Survey:
    """The good tiles among all the defective ones."""
    survey = UserSurvey(tmp_path_factory.mktemp("corpus"))
    tiles = good_tiles(survey)
    good, beside = tiles
    bad = bad_tiles(survey)
    survey.tiles = {tile.name: tile for tile, _ in [*tiles, *bad]}
    deliver(survey, [good, *bad[: len(bad) // 2], beside, *bad[len(bad) // 2 :]])
    survey.log = survey.run()
    return survey


def catalog_of(survey: Survey) -> dict[str, list[dict]]:
    """Rows of the catalog by tile."""
    found = {}
    for row in table_of_catalog(survey.results / "catalog/collection.properties").to_pylist():
        found.setdefault(row["tile"], []).append(row)
    return found


@pytest.fixture(scope="module")
def catalog(corpus) -> dict[str, list[dict]]:
    return catalog_of(corpus)


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
        found = [row["object_id"] for row in catalog.get(name, [])]
        assert found == sorted(row[0] for row in tile.rows), name
    assert sum(map(len, catalog.values())) == sum(len(t.rows) for t in corpus.tiles.values())


def assert_told(rows: list[dict], rejected: dict) -> None:
    """Every unusable object has a reason, and is among the rejects with it."""
    for row in rows:
        unusable = (row["flags"] & UNUSABLE) != 0
        assert unusable == (row["reject_reason"] is not None)
        if unusable:
            told = [reason for _, reason in rejected[row["object_id"]]]
            assert row["reject_reason"] in told


def test_every_unusable_object_is_among_the_rejects_with_its_reason(corpus, catalog):
    rejected = reasons_of(corpus, "object")
    for rows in catalog.values():
        assert_told(rows, rejected)


@pytest.mark.parametrize("defect", TILES, ids=lambda defect: defect.name)
def test_the_objects_of_a_defective_tile_have_its_flag_and_reason(catalog, defect):
    rows = catalog[defect.name]
    if defect.flag is None or not defect.flag & UNUSABLE:
        usable = [row for row in rows if row["reject_reason"] is None]
        assert len(usable) > len(rows) / 2
        assert {row["flags"] & ~(Flag.MASKED | Flag.EDGE) for row in usable} == {defect.flag or 0}
        return
    for row in rows:
        assert row["flags"] & UNUSABLE == defect.flag
        assert re.search(defect.words, row["reject_reason"]), row["reject_reason"]


def said_of_tiles(corpus, catalog) -> dict[str, str]:
    """Reason of each defective tile: of its file, or else of its objects."""
    files = reasons_of(corpus, "file")
    said = {}
    for defect in TILES:
        if defect.flag is not None:
            (flag, reason), *others = files.get(defect.name) or [
                (None, catalog[defect.name][0]["reject_reason"])
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


def test_a_survey_wide_list_finds_defective_tiles_by_their_other_band(corpus, tmp_path):
    tiles = {
        defect.name: Tile(
            defect.name,
            "mixed",
            {b: BandFiles(**names) for b, names in corpus.tiles[defect.name].names.items()},
        )
        for defect in TILES
    }
    found = survey_footprints(tiles, "r", {}, tmp_path / "footprints.json")
    broken = ["reference_missing", "reference_named_pipe", "singular_matrix", "no_ctype",
              "ctype_of_no_sky", "crval_not_a_number", "crval_text"]  # fmt: skip
    for name in broken:
        assert found[name].image == str(corpus.tiles[name].g)
        assert found[name].centre == pytest.approx(found["missing"].centre, abs=1e-9)


def test_tolerated_files_are_not_reported(corpus):
    files = reasons_of(corpus, "file")
    assert not [d.name for d in TILES if d.flag is None and d.name in files]
    assert not [name for name in files if name.startswith("good")]


def test_each_defective_row_has_its_flag_and_reason(catalog):
    for tile, given in (("rows", defects.ROWS), ("text_rows", defects.TEXT_ROWS)):
        rows = {row["object_id"]: row for row in catalog[tile]}
        for name, (_, flag, words) in given.items():
            row = rows[name]
            assert row["flags"] & UNUSABLE == (flag or 0), name
            assert (row["reject_reason"] is None) == (flag is None), name
            assert re.search(words, row["reject_reason"] or ""), (name, row["reject_reason"])


def test_good_objects_are_as_in_a_run_without_the_bad_ones(catalog, corpus, without):
    for name in ("objects/good.parquet", "cutouts/good.arrow", "quality/good.parquet"):
        assert (corpus.results / name).read_bytes() == (without.results / name).read_bytes(), name
    expected = catalog_of(without)
    assert list(expected) == ["good_0", "good_1"]
    for tile, rows in expected.items():
        assert len(rows) == 25
        assert all(row["reject_reason"] is None for row in rows)
        assert catalog[tile] == rows


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
    assert "empty_g.fits is empty (0 bytes)" in page
    assert "<script>alert" not in page


def stamp_config() -> dict:
    return {
        "survey": "tiny",
        "input": {
            "kind": "stamps",
            "table": "stamps.csv",
            "root": "stamps",
            "image": "{file}",
            "row": "row",
            "bands": ["g", "r", "i"],
        },
        "cutouts": {"size": 16},
    }


def deliver_stamps(survey: Survey, bad: list[defects.Defect]) -> Survey:
    """Write good stamps, each followed by some of the bad ones."""
    (survey.folder / "config.yaml").write_text(yaml.safe_dump(stamp_config()))
    folder = survey.folder / "stamps"
    folder.mkdir()
    step = -(-len(bad) // len(defects.GOOD_STAMPS))
    rows = ["object_id,file,row"]
    for number, make in enumerate(defects.GOOD_STAMPS):
        made = [(make.__name__, make)]
        made += [(d.name, d.make) for d in bad[number * step : (number + 1) * step]]
        for name, maker in made:
            file, row = found if isinstance(found := maker(folder, name), tuple) else (found, 0)
            if isinstance(file, Path) or str(file).startswith(str(folder)):
                file = os.path.relpath(file, folder)
            rows.append(f"{name},{file},{row}")
    (survey.folder / "stamps.csv").write_text("\n".join(rows) + "\n")
    return survey


@pytest.fixture(scope="module")
def good_stamps(tmp_path_factory) -> Survey:
    """The good stamps alone."""
    return run_to_the_catalog(deliver_stamps(Survey(tmp_path_factory.mktemp("good_stamps")), []))


@pytest.fixture(scope="module")
def stamps(tmp_path_factory) -> Survey:
    """The good stamps among all the defective ones."""
    survey = Survey(tmp_path_factory.mktemp("stamps"))
    return run_to_the_catalog(deliver_stamps(survey, defects.STAMPS))


def stamp_rows(survey: Survey) -> dict[str, dict]:
    rows = table_of_catalog(survey.results / "catalog/collection.properties").to_pylist()
    return {row["object_id"]: row for row in rows}


def test_no_stamp_is_lost(stamps):
    names = {make.__name__ for make in defects.GOOD_STAMPS} | {d.name for d in defects.STAMPS}
    assert set(stamp_rows(stamps)) == names
    assert_told(list(stamp_rows(stamps).values()), reasons_of(stamps, "object"))


@pytest.mark.parametrize("defect", defects.STAMPS, ids=lambda defect: defect.name)
def test_a_defective_stamp_has_its_flag_and_reason(stamps, defect):
    row = stamp_rows(stamps)[defect.name]
    assert row["flags"] & UNUSABLE == defect.flag
    assert re.search(defect.words, row["reject_reason"]), row["reject_reason"]


def test_each_defective_stamp_has_a_reason_of_its_own(stamps):
    rows = stamp_rows(stamps)
    assert_distinct({d.name: rows[d.name]["reject_reason"] for d in defects.STAMPS}, defects.STAMPS)


def test_good_stamps_are_as_in_a_run_without_the_bad_ones(stamps, good_stamps):
    found, expected = stamp_rows(stamps), stamp_rows(good_stamps)
    assert len(expected) == len(defects.GOOD_STAMPS)
    for name, row in expected.items():
        assert repr(found[name]) == repr(row)  # a repr, as NaN is not itself
    assert all(row["reject_reason"] is None for row in expected.values())
    images, alone = (cutouts_of(survey, "stamps_00000") for survey in (stamps, good_stamps))
    assert {name: image.tobytes() for name, image in images.items()} == {
        name: image.tobytes() for name, image in alone.items()
    }
