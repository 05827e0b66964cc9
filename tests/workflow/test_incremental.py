"""What changes in a survey costs what it must, and nothing else."""

import os
import time

import pytest

from tiny_survey import PlainSurvey, plain_config, quick_survey, sources_of

MERGES = {"catalog": 1, "report": 1}


@pytest.fixture(scope="module")
def run_once(tmp_path_factory) -> PlainSurvey:
    """Three tiles, run through the whole workflow."""
    survey = quick_survey(tmp_path_factory.mktemp("plain"))
    survey.run()
    return survey


@pytest.fixture
def plain(run_once, tmp_path) -> PlainSurvey:
    """A copy of the survey, to change at will."""
    return run_once.copied_to(tmp_path / "copy")


def state(survey: PlainSurvey, shards: list[str]) -> dict:
    """Content and time of what the untouched shards have."""
    patterns = ["objects/{}.parquet", "cutouts/{}.arrow", "quality/{}.parquet",
                "quality/{}_files.json", "index/{}.parquet"]  # fmt: skip
    paths = [survey.results / pattern.format(shard) for shard in shards for pattern in patterns]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def change(survey, jobs: dict, said: list[str], untouched: list[str]) -> None:
    """A change plans these jobs and says why; run, it leaves the other shards as they were."""
    before = state(survey, untouched)
    assert survey.plan() == ({**jobs, **MERGES}, said)
    survey.run()
    assert state(survey, untouched) == before
    assert survey.plan() == ({}, [])


def test_nothing_new_says_nothing(plain):
    assert plain.plan() == ({}, [])


def test_new_tile(plain):
    plain.write_tile(3)
    change(plain, {"ingest": 1, "cutouts": 1}, ["1 new tile: t3"], ["t0", "t1", "t2"])


@pytest.mark.slow
def test_new_tile_over_old_ones(plain):
    """A tile that overlaps others shares their objects, and leaves theirs as they are."""
    plain.write_tile(3)
    for band in "gr":
        plain.write_image(3, band, dra=-0.0335)
    change(plain, {"ingest": 1, "cutouts": 1}, ["1 new tile: t3"], ["t0", "t1", "t2"])


@pytest.mark.slow
def test_image_delivered_again(plain):
    plain.write_image(1, "g", seed=1)
    change(plain, {"cutouts": 1}, ["1 image changed: t1 (g)"], ["t0", "t2"])


@pytest.mark.slow
def test_reference_image_delivered_again(plain):
    plain.write_image(1, "r", seed=1)
    change(plain, {"ingest": 1, "cutouts": 1}, ["1 image changed: t1 (r)"], ["t0", "t2"])


@pytest.mark.slow
def test_image_delivered_again_with_an_old_time(plain):
    """As rsync and cp -p deliver it, which Snakemake alone does not see."""
    path = plain.write_image(1, "g", seed=1)
    os.utime(path, (1e9, 1e9))
    change(plain, {"cutouts": 1}, ["1 image changed: t1 (g)"], ["t0", "t2"])


@pytest.mark.slow
def test_mask_changed(plain):
    plain.write_mask(2, "r", bad_row=40)
    change(plain, {"cutouts": 1}, ["1 mask changed: t2 (r)"], ["t0", "t1"])


@pytest.mark.slow
def test_missing_image_delivered(plain):
    (plain.folder / "tiles/t2_g.fits").unlink()
    change(plain, {"cutouts": 1}, ["1 image gone: t2 (g)", "1 mask gone: t2 (g)"], ["t0", "t1"])
    plain.write_image(2, "g")
    said = ["1 image delivered: t2 (g)", "1 mask delivered: t2 (g)"]
    change(plain, {"cutouts": 1}, said, ["t0", "t1"])


@pytest.mark.slow
def test_removed_tile(plain):
    rows = [row for tile in (0, 2) for row in sources_of(tile)]
    plain.write_sources(rows)
    plain.remove_tile(1)
    said = ["1 tile removed: t1", "source list: 5 rows removed in 1 shard"]
    change(plain, {}, said, ["t0", "t2"])


@pytest.mark.slow
def test_removed_tile_leaves_its_objects_without_one(plain):
    plain.remove_tile(1)
    change(plain, {"ingest": 1, "cutouts": 1}, ["1 tile removed: t1"], ["t0", "t2"])
    assert (plain.results / "objects/unplaced.parquet").exists()


@pytest.mark.slow
def test_rows_added_changed_and_removed(plain):
    rows = [row for tile in range(3) for row in sources_of(tile)]
    name, ra, dec = rows[0]
    rows[0] = (name, ra + 1e-5, dec)
    plain.write_sources([*rows[:-1], ("late", rows[1][1], 0.0005)])
    said = ["source list: 1 row added, 1 changed, 1 removed in 2 shards"]
    change(plain, {"ingest": 2, "cutouts": 2}, said, ["t1"])


def test_touched_files_rerun_nothing(plain):
    time.sleep(0.01)
    for path in [*(plain.folder / "tiles").iterdir(), plain.folder / "sources.csv"]:
        os.utime(path)
    assert plain.plan() == ({}, [])


@pytest.mark.slow
def test_setting_changed(plain):
    config = plain_config()
    config["cutouts"]["size"] = 24
    plain.write_config(config)
    said = ["config: cutouts.size = 24, was 16"]
    change(plain, {"cutouts": 3}, said, [])


@pytest.mark.slow
def test_several_tiles_a_shard(tmp_path):
    """New tiles fill new shards, and the old ones stay as they are, full or not."""
    survey = PlainSurvey(tmp_path)
    config = plain_config()
    config["input"]["tiles_per_shard"] = 2
    survey.write_config(config)
    for tile in (1, 2, 3):
        survey.write_tile(tile)
    survey.write_sources([row for tile in range(5) for row in sources_of(tile)])
    survey.run()
    survey.write_tile(0)
    survey.write_tile(4)
    jobs = {"ingest": 1, "cutouts": 1}
    change(survey, jobs, ["2 new tiles: t0, t4"], ["shard_00000", "shard_00001"])
    lines = (survey.results / "index/shards.tsv").read_text().splitlines()
    assert lines[1:] == ["t1\tshard_00000", "t2\tshard_00000", "t3\tshard_00001",
                         "t0\tshard_00002", "t4\tshard_00002"]  # fmt: skip


def resized(survey: PlainSurvey, size: int | None, **more) -> None:
    config = plain_config()
    config["input"] |= {"tiles_per_shard": size, **more}
    survey.write_config(config)


def test_another_shard_size_is_refused(plain):
    resized(plain, 2)
    done = plain.snakemake("--dry-run")
    assert done.returncode == 1
    told = done.stdout + done.stderr
    assert "15 objects would be cut and predicted again, in 2 shards" in told
    assert "Traceback" not in told
    done = plain.snakemake("--dry-run", "--config", "input={reshard: true}")
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_another_shard_size_that_is_asked_for(plain):
    ledger = plain.results / "index/shards.tsv"
    before = ledger.read_bytes()
    resized(plain, 2, reshard=True)
    jobs, said = plain.plan()
    assert jobs == {"ingest": 2, "cutouts": 2, **MERGES}
    assert "3 tiles put into another shard: t0, t1, t2" in said
    assert ledger.read_bytes() == before
    plain.write_config(plain_config())  # thought better of it
    assert plain.plan() == ({}, [])
    resized(plain, 2, reshard=True)
    plain.run()
    lines = ledger.read_text().splitlines()
    assert lines[1:] == ["t0\tshard_00000", "t1\tshard_00000", "t2\tshard_00001"]
    resized(plain, 2)
    assert plain.plan() == ({}, [])
