import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalog_files import BESIDE, arguments, rows_of, write_shard
from luneta.catalog import write
from luneta.catalog.placements import TileBoxes
from luneta.survey.flags import Flag

ARCSEC = 1 / 3600


def results(given):
    write.run(**given)
    found = {name: pd.read_parquet(given["outputs"][name]) for name in BESIDE}
    return {"catalog": rows_of(given["outputs"]["collection"]), **found}


@pytest.fixture
def overlapping(tmp_path):
    """`x` and `y` lie in tiles a, b (one shard) and c; b shows x best, and c shows y best."""
    first = {
        "ra": [20, 30, 20 + 0.4 * ARCSEC, 30, 40],
        "dec": [1, 1, 1, 1, 1],
        "masked_fraction": [0.2, 0.1, 0.0, 0.1, 0.0],
        "edge_distance": [90, 10, 5, 20, 60],
    }
    second = {"ra": [30, 50], "dec": [1, 1], "masked_fraction": [0.1, 0], "edge_distance": [30, 30]}
    shards = [
        write_shard(tmp_path, "north", ["x", "y", "x", "y", "z"], tiles=list("aabba"), **first),
        write_shard(tmp_path, "south", ["y", "w"], tiles=list("cc"), **second),
    ]
    return arguments(tmp_path, shards)


def test_the_best_placement_is_in_the_catalog_and_the_others_beside(overlapping):
    found = results(overlapping)
    rows, overlaps = found["catalog"], found["overlaps"]
    assert list(zip(rows["object_id"], rows["tile"], strict=True)) == [
        ("w", "c"), ("x", "b"), ("y", "c"), ("z", "a"),
    ]  # fmt: skip
    assert (rows["flags"] == 0).all()
    assert rows["morphology_class"].notna().all()
    told = overlaps[["object_id", "tile", "shard", "chosen_tile", "chosen_object_id"]]
    assert told.to_numpy().tolist() == [
        ["x", "a", "north", "b", "x"],
        ["y", "a", "north", "c", "y"],
        ["y", "b", "north", "c", "y"],
    ]
    assert overlaps["flags"].tolist() == [Flag.OVERLAP] * 3
    assert overlaps["edge_distance"].tolist() == [90, 10, 20]
    assert set(found["rejects"]["kind"]) == {"file"}


def test_the_winner_keeps_its_own_prediction(overlapping):
    rows = results(overlapping)["catalog"].set_index("object_id")
    given = pd.read_parquet(overlapping["predictions"]["lens"][0])
    assert rows.loc["x", "lens_spiral_probability"] == given.loc[2, "lens_spiral_probability"]


def test_an_object_none_of_whose_placements_is_usable_is_rejected_once(tmp_path):
    place = {"ra": [20], "dec": [1]}
    shards = [write_shard(tmp_path, tile, ["x"], rejected=[0], **place) for tile in "ab"]
    found = results(arguments(tmp_path, shards))
    assert [len(found[name]) for name in ("catalog", "overlaps")] == [1, 1]
    assert found["catalog"]["flags"].tolist() == [Flag.OUTSIDE]
    assert found["rejects"].query("kind == 'object'")["flag"].tolist() == ["outside"]


def test_a_name_far_away_is_a_duplicate_and_stays(tmp_path):
    shards = [
        write_shard(tmp_path, "a", ["x"], ra=[20], dec=[1]),
        write_shard(tmp_path, "b", ["x", "x"], ra=[20 + 2 * ARCSEC, 20], dec=[1, 1]),
    ]
    given = arguments(tmp_path, shards)
    found = results(given)
    assert found["catalog"]["flags"].tolist() == [0, Flag.DUPLICATE_ID]
    assert found["catalog"]["tile"].tolist() == ["a", "b"]
    assert len(found["overlaps"]) == 1
    given["settings"]["overlap_radius"] = None
    found = results(given)
    assert found["catalog"]["flags"].tolist() == [0, Flag.DUPLICATE_ID, Flag.DUPLICATE_ID]
    assert found["overlaps"].empty


def test_rows_without_a_name_are_no_duplicates(tmp_path):
    shards = [write_shard(tmp_path, t, [""], flags=[Flag.BAD_ID], usable=[False]) for t in "ab"]
    given = arguments(tmp_path, shards)
    given["settings"]["overlap_radius"] = None
    assert results(given)["catalog"]["flags"].tolist() == [Flag.BAD_ID, Flag.BAD_ID]


def test_detected_objects_match_by_place_alone(tmp_path):
    north = {"ra": [20, 20.01], "dec": [1, 1], "edge_distance": [9, 40], "masked_fraction": [0, 0]}
    south = {"ra": [20.01 + 0.3 * ARCSEC, 20.02], "dec": [1, 1], "edge_distance": [4, 4]}
    south["masked_fraction"] = [0, 0]
    shards = [
        write_shard(tmp_path, "north", ["J1", "J2"], **north),
        write_shard(tmp_path, "south", ["J2b", "J3"], **south),
    ]
    given = arguments(tmp_path, shards)
    assert len(results(given)["catalog"]) == 4
    given["settings"]["detected"] = True
    found = results(given)
    assert found["catalog"]["object_id"].tolist() == ["J1", "J2", "J3"]
    assert found["overlaps"]["object_id"].tolist() == ["J2b"]
    assert found["overlaps"]["chosen_object_id"].tolist() == ["J2"]


def test_only_where_boxes_meet_are_positions_compared(tmp_path):
    tables = []
    for tile, ra in (("a", [10, 10.5, 11]), ("b", [10.9, 11.5, 12]), ("c", [40, 41, 42])):
        table = pa.table({"ra": np.array(ra, float), "dec": [0.0, 0.1, 0.2], "tile": [tile] * 3})
        pq.write_table(table, tmp_path / f"{tile}.parquet")
        tables.append(table)
    boxes = TileBoxes([tmp_path / f"{tile}.parquet" for tile in "abc"], 1.0)
    found = [boxes.in_another(table).tolist() for table in tables]
    assert found == [[False, False, True], [True, False, False], [False] * 3]


def test_skipped_objects_are_only_among_the_rejects(tmp_path):
    flags, reason = Flag.SATURATED | Flag.MASKED, "a saturated pixel (skipped by config)"
    shard = write_shard(
        tmp_path, "a", ["x", "y"], flags=[0, flags], usable=[True, False], skipped=[False, True],
        reject_reason=[None, reason],
    )  # fmt: skip
    given = arguments(tmp_path, [shard])
    given["settings"]["config"]["quality"] = {"saturated": "skip"}
    found = results(given)
    assert found["catalog"]["object_id"].tolist() == ["x"]
    row = found["rejects"].query("kind == 'object'").iloc[0]
    assert (row["name"], row["flag"], row["reason"]) == ("y", "saturated", reason)


def test_rejects_name_the_flags(tmp_path):
    flags = Flag.TOO_MASKED | Flag.MASKED | Flag.NO_DATA
    shard = write_shard(tmp_path, "a", ["x"], flags=[flags], usable=[False], reject_reason=["bad"])
    rejects = results(arguments(tmp_path, [shard]))["rejects"]
    assert rejects[["kind", "name", "flag"]].to_numpy().tolist() == [
        ["object", "x", "no_data|too_masked"],
        ["file", "a_g.fits", "unreadable_file"],
    ]
    assert rejects["band"].isna().tolist() == [True, False]


def test_quality_of_stamps_has_no_edge(tmp_path):
    shard = write_shard(tmp_path, "a", ["x", "x"], ra=[1, 1], dec=[1, 1])
    table = pq.read_table(shard["quality"]).drop_columns(["edge_distance", "skipped"])
    pq.write_table(table, shard["quality"])
    found = results(arguments(tmp_path, [shard]))
    assert found["catalog"]["flags"].tolist() == [0, Flag.DUPLICATE_ID]


class TestRepeatsOfAnotherShard:
    @pytest.fixture
    def twice(self, tmp_path):
        return arguments(tmp_path, [write_shard(tmp_path, "a", ["x"], ra=[20], dec=[1]),
                                    write_shard(tmp_path, "b", ["y", "x"])])  # fmt: skip

    def test_skip_leaves_them_out(self, twice):
        twice["settings"]["config"]["quality"] = {"duplicate_id": "skip"}
        found = results(twice)
        assert found["catalog"]["object_id"].tolist() == ["x", "y"]
        row = found["rejects"].query("kind == 'object'").iloc[0]
        assert (row["name"], row["flag"]) == ("x", "duplicate_id")
        assert row["reason"].endswith("the first is used (skipped by config)")

    def test_a_name_that_only_an_unusable_row_bore_is_free(self, tmp_path):
        lost = {"ra": [np.nan], "flags": [Flag.BAD_POSITION], "reject_reason": ["no position"]}
        shards = [write_shard(tmp_path, "a", ["x"], usable=[False], **lost),
                  write_shard(tmp_path, "b", ["x"])]  # fmt: skip
        rows = results(arguments(tmp_path, shards))["catalog"]
        assert rows["tile"].tolist() == ["a", "b"]
        assert rows["flags"].tolist() == [Flag.BAD_POSITION | Flag.DUPLICATE_ID, 0]
        assert rows["lens_class"].notna().tolist() == [False, True]

    def test_fail_names_them(self, twice):
        twice["settings"]["config"]["quality"] = {"duplicate_id": "fail"}
        with pytest.raises(
            write.CatalogError, match=r"1 objects .* first x\. .*duplicate_id: fail"
        ):
            write.run(**twice)
        assert not twice["outputs"]["collection"].exists()
