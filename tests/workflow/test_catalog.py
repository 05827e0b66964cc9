"""The catalog's files are no outputs of the rule, and are looked after all the same."""

import pytest
from hats.io.validation import is_valid_collection

from luneta.catalog.read import partition_files
from tiny_survey import OBJECTS_A_TILE, PlainSurvey, plain_config, sources_of

TILES = 3
LAYOUT = {"rows_per_partition": 6, "highest_order": 12, "margin": 10.0}


@pytest.fixture(scope="module")
def run_once(tmp_path_factory) -> PlainSurvey:
    """Three tiles in partitions of their own, as far as the report."""
    survey = PlainSurvey(tmp_path_factory.mktemp("plain"))
    for tile in range(TILES):
        survey.write_tile(tile)
    survey.write_sources([row for tile in range(TILES) for row in sources_of(tile)])
    survey.write_config(plain_config() | {"catalog": LAYOUT})
    survey.run()
    return survey


@pytest.fixture
def plain(run_once, tmp_path) -> PlainSurvey:
    """A copy of the survey, to change at will."""
    return run_once.copied_to(tmp_path / "copy")


def leaves(survey: PlainSurvey) -> dict:
    """Content and time of the files of the catalog's partitions."""
    found = (survey.results / "catalog").glob("*/dataset/Norder=*/**/*.parquet")
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(found)}


def test_the_survey_is_a_valid_collection(run_once):
    assert is_valid_collection(run_once.results / "catalog", strict=True)
    assert len(partition_files(run_once.results / "catalog/collection.properties")) >= 2


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_partition_is_made_again(plain, damage):
    before = leaves(plain)
    path = partition_files(plain.results / "catalog/collection.properties")[1]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "flip":
        path.write_bytes(content)
    else:
        path.unlink()
    said = (
        "the catalog is made again: of its files 1 are missing or not as they were written, first "
        f"{path.relative_to(plain.folder)}"
    )
    assert plain.plan() == ({"catalog": 1, "report": 1}, [said])
    plain.run()
    after = leaves(plain)
    assert {path: content for path, (content, _) in after.items()} == {
        path: content for path, (content, _) in before.items()
    }
    assert [name for name in before if after[name] != before[name]] == [path]
    assert plain.plan() == ({}, [])


@pytest.mark.slow
def test_a_new_tile_touches_only_its_partitions(plain):
    before = leaves(plain)
    plain.write_tile(TILES + 2)
    plain.write_sources([row for t in (*range(TILES), TILES + 2) for row in sources_of(t)])
    plain.run()
    after = leaves(plain)
    assert {path: after.get(path) for path in before} == before
    assert len(after) > len(before)
    assert is_valid_collection(plain.results / "catalog", strict=True)


@pytest.mark.slow
def test_another_layout_is_made_of_the_same_rows(plain):
    config = plain_config() | {"catalog": LAYOUT | {"rows_per_partition": 100, "margin": 0}}
    plain.write_config(config)
    assert plain.plan()[0] == {"catalog": 1, "report": 1}
    plain.run()
    (leaf,) = leaves(plain)
    assert leaf.parts[-3].startswith("Norder=")
    assert is_valid_collection(plain.results / "catalog", strict=True)
    assert (plain.results / "catalog/tiny/hats.properties").read_text().count(
        f"hats_nrows={TILES * OBJECTS_A_TILE}\n"
    ) == 1
