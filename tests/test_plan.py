"""What a config is turned into: shards, files, settings, and what has changed."""

import os
import re

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fits_files import tan_wcs, write_image
from luneta.config import ConfigError
from luneta.plan import make_plan
from luneta.plan.changes import changes

TILES = "tile\tband\timage\tmask\n"


@pytest.fixture
def survey(tmp_path, monkeypatch):
    """A config of two tiles side by side in the working directory."""
    monkeypatch.chdir(tmp_path)
    lines = ""
    for name, ra in (("a", 150.0), ("b", 151.0)):
        for band in "gr":
            pixels = np.zeros((60, 60), np.int16)
            write_image(tmp_path / f"{name}_{band}.fits", pixels, tan_wcs((60, 60), ra, 2.0))
            lines += f"{name}\t{band}\t{name}_{band}.fits[IMAGE]\t{name}_{band}_mask.fits\n"
    (tmp_path / "tiles.tsv").write_text(TILES + lines)
    (tmp_path / "list.csv").write_text("object_id,ra,dec\n1,150.0,2.0\n2,151.0,2.0\n")
    return {
        "survey": "sky",
        "input": {
            "kind": "tiles",
            "tiles": "tiles.tsv",
            "sources": "list.csv",
            "bands": ["g", "r"],
            "reference_band": "r",
        },
    }


def test_each_tile_is_a_shard_with_its_files(survey):
    plan = make_plan(survey)
    assert plan.shards == ["a", "b"]
    assert plan.images("a") == ["a_g.fits", "a_r.fits"]
    assert plan.grids("a") == ["a_r.fits"]
    assert plan.sources("a") == ["results/sky/index/a.parquet"]
    (tile,) = plan.ingest("a")["tiles"]
    assert list(tile["bands"]) == ["r"]
    assert tile["bands"]["r"]["mask"] is None
    assert plan.ingest("a")["overlap_radius"] == 1.0
    (tile,) = plan.cutouts("a")["tiles"]
    assert tile["bands"]["r"]["plane"] == 1


def test_detection_reads_masks_and_keeps_what_it_measures(survey, tmp_path):
    survey["input"] |= {"sources": None, "detection": {}}
    (tmp_path / "a_r_mask.fits").touch()
    plan = make_plan(survey)
    assert plan.sources("a") == []
    assert plan.grids("a") == ["a_r.fits", "a_r_mask.fits", "a_g.fits"]
    (tile,) = plan.ingest("a")["tiles"]
    assert list(tile["bands"]) == ["r", "g"]
    assert tile["bands"]["r"]["mask"] == "a_r_mask.fits"
    kept = set(plan.catalog()["keep"])
    assert {"instrumental_magnitude_r", "half_light_radius", "axis_ratio"} <= kept


def test_detection_runs_again_when_any_band_changes(survey, tmp_path):
    survey["input"] |= {"sources": None, "detection": {}}
    before = [make_plan(survey).ingest(shard) for shard in "ab"]
    write_image(tmp_path / "b_g.fits", np.ones((60, 60), np.int16), tan_wcs((60, 60), 151.0, 2.0))
    after = [make_plan(survey).ingest(shard) for shard in "ab"]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, False]


def test_the_catalog_knows_which_bands_have_a_zero_point(survey):
    survey["input"] |= {"sources": None, "detection": {}, "zero_points": {"g": 25.0}}
    settings = make_plan(survey).catalog()
    assert settings["calibrated"] == ["g"]
    assert {"magnitude_g", "magnitude_error_g"} <= set(settings["keep"])
    assert {"instrumental_magnitude_r", "instrumental_magnitude_error_r"} <= set(settings["keep"])
    survey["input"]["zero_point"] = "header"
    settings = make_plan(survey).catalog()
    assert settings["calibrated"] == ["g", "r"]
    assert {"magnitude_g", "magnitude_r"} <= set(settings["keep"])
    assert make_plan(survey).ingest("a")["zero_point"] == "header"


def test_one_list_a_tile(survey, tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("object_id,ra,dec\n1,150.0,2.0\n")
    survey["input"]["sources"] = "{tile}.csv"
    plan = make_plan(survey)
    assert plan.sources("b") == ["b.csv"]
    assert not plan.ingest("b")["sliced"]


def test_remote_files_are_no_inputs(survey, tmp_path):
    table = (tmp_path / "tiles.tsv").read_text()
    (tmp_path / "tiles.tsv").write_text(table.replace("a_g.fits[IMAGE]", "https://x.org/g.fits"))
    plan = make_plan(survey)
    assert plan.images("a") == ["a_r.fits"]
    assert plan.cutouts("a")["tiles"][0]["bands"]["g"]["image"] == "https://x.org/g.fits"


def test_a_server_that_is_down_while_planning_is_told(survey, tmp_path):
    wcs = tan_wcs((60, 60), 150.0, 2.0)
    wcs.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    wcs.wcs.cd *= 100
    write_image(tmp_path / "bent.fits", np.zeros((60, 60), np.int16), wcs)
    survey["input"]["remote"] = {"protocols": ["memory"]}
    with fsspec.open("memory://bent.fits", "wb") as file:
        file.write((tmp_path / "bent.fits").read_bytes())
    lines = "".join(f"a\t{band}\tmemory://bent.fits\t\n" for band in "gr")
    (tmp_path / "tiles.tsv").write_text(TILES + lines)
    assert make_plan(survey).shards == ["a", "unplaced"]
    fsspec.filesystem("memory").rm("/bent.fits")
    (tmp_path / "list.csv").write_text("object_id,ra,dec\n1,150.0,2.0\n3,150.001,2.0\n")
    with pytest.raises(ConfigError, match="memory://bent.fits does not exist"):
        make_plan(survey)


def test_settings_change_with_the_content_of_their_files_only(survey, tmp_path):
    first = make_plan(survey)
    before = [f(s) for f in (first.ingest, first.cutouts) for s in "ab"]
    os.utime(tmp_path / "a_g.fits", (1, 1))
    write_image(tmp_path / "b_g.fits", np.ones((60, 60), np.int16), tan_wcs((60, 60), 151.0, 2.0))
    second = make_plan(survey)
    after = [f(s) for f in (second.ingest, second.cutouts) for s in "ab"]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, True, False]


def test_settings_that_only_detection_reads_are_of_no_concern_to_a_list(survey):
    before = make_plan(survey).ingest("a")
    survey["input"] |= {
        "weight": "variance", "zero_points": {"r": 25.0}, "mask": {"sentinels": [100]},
        "pixel_scale": 0.2,
    }  # fmt: skip
    assert make_plan(survey).ingest("a") == before
    survey["input"] |= {"sources": None, "detection": {}}
    assert make_plan(survey).ingest("a")["zero_points"] == {"r": 25.0}


def test_labelled_shards_are_found_again_by_another_column(survey, tmp_path):
    rows = [f"x{n},{n},{'yes' if n % 2 else 'no'}" for n in (1, *range(10, 20))]
    (tmp_path / "labels.csv").write_text("\n".join(["name,number,label", *rows]) + "\n")
    task = {"kind": "binary", "classes": ["no", "yes"], "labels": ["labels.csv"]}
    survey["tasks"] = {"t": {**task, "id_column": "name"}}
    assert make_plan(survey).labelled_shards("t") == []
    survey["tasks"] = {"t": {**task, "id_column": "number"}}
    assert make_plan(survey).labelled_shards("t") == ["a"]


def test_split_reads_positions_only_for_near_duplicates(survey, tmp_path):
    rows = [f"{n},{'yes' if n % 2 else 'no'}" for n in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["object_id,label", *rows]) + "\n")
    task = {"kind": "binary", "classes": ["no", "yes"], "labels": ["labels.csv"]}
    survey["tasks"] = {"t": task}
    plan = make_plan(survey)
    assert plan.positions("t") == []
    dealt = {"folds": 5, "holdout": 0.0, "group_column": None, "group_radius": 0.0}
    assert plan.split("t")["task"]["training"] == dealt
    survey["tasks"]["t"]["training"] = {"group_radius": 2.0, "dropout": 0.5}
    plan = make_plan(survey)
    assert plan.positions("t") == ["results/sky/objects/a.parquet", "results/sky/objects/b.parquet"]
    assert plan.split("t")["task"]["training"] == {**dealt, "group_radius": 2.0}


def test_views_and_draws_are_a_matter_of_evaluate(survey, tmp_path):
    """What infer does follows from the metrics that evaluate writes, so that they agree."""
    rows = [f"{n},{'yes' if n % 2 else 'no'}" for n in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["object_id,label", *rows]) + "\n")
    task = {"kind": "binary", "classes": ["no", "yes"], "labels": ["labels.csv"]}
    survey["tasks"] = {"t": {**task, "training": {"calibration": "vector"}}}
    before = make_plan(survey)
    survey["inference"] = {"views": 8, "draws": 20, "strange": 0.9}
    after = make_plan(survey)
    assert after.evaluate("t") == before.evaluate("t") | survey["inference"]
    assert after.evaluate("t")["calibration"] == "vector"
    folds = [f"results/sky/models/t/fold{fold}" for fold in range(5)]
    assert (
        after.infer("t")
        == before.infer("t")
        == {
            "task_name": "t",
            "batch_size": 256,
            "jit": "auto",
            "models": [f"{fold}.keras" for fold in folds],
            "sidecars": [f"{fold}.json" for fold in folds],
        }
    )
    assert after.finetune("t") == before.finetune("t")


def test_changes_are_told_until_a_run_succeeds(survey, tmp_path):
    plan = make_plan(survey)
    assert plan.changes() == []
    plan.remember()
    assert not (plan.index / "last_run.json").exists()  # it stopped short of the catalog
    catalog = plan.results / "catalog/collection.properties"
    catalog.parent.mkdir(parents=True)
    catalog.touch()
    plan.remember()
    survey["cutouts"] = {"size": 32}
    (tmp_path / "list.csv").write_text("object_id,ra,dec\n1,150.0,2.0\n2,151.0001,2.0\n3,9,9\n")
    said = [
        "config: cutouts.size = 32, was 64",
        "source list: 1 row added, 1 changed in 2 shards",
    ]
    for _ in range(2):
        assert make_plan(survey).changes() == said
    make_plan(survey).remember()
    assert make_plan(survey).changes() == []


def state(**more):
    files = {"image g": "1", "image r": "2", "mask r": "3"}
    return {
        "tiles": {name: {"shard": name, "files": files} for name in ("t1", "t2")},
        "lists": {"t1": "5", "t2": "6"},
        "config": {"cutouts": {"size": 64}, "survey": "sky"},
        "code": {"ingest": "a", "cutouts": "b"},
    } | more


def tiles(*names, **files):
    return {n: {"shard": n, "files": state()["tiles"]["t1"]["files"] | files} for n in names}


@pytest.mark.parametrize(
    ("new", "lines"),
    [
        ({}, []),
        ({"tiles": tiles("t1", "t2", "t3")}, ["1 new tile: t3"]),
        ({"tiles": tiles("t2")}, ["1 tile removed: t1"]),
        (
            {"tiles": tiles("t1", "t2", *(f"n{i}" for i in range(1200)))},
            ["1,200 new tiles: n0, n1, n2, n3, n4 and 1,195 more"],
        ),
        (
            {"tiles": tiles("t1", **{"image g": "9", "mask r": None}) | tiles("t2")},
            ["1 mask gone: t1 (r)", "1 image changed: t1 (g)"],
        ),
        (
            {"tiles": tiles("t1", "t2", **{"weight g": "9"})},
            ["2 weights delivered: t1 (g), t2 (g)"],
        ),
        ({"tiles": {**tiles("t1"), "t2": {**tiles("t2")["t2"], "shard": "s"}}},
         ["1 tile put into another shard: t2"]),
        ({"lists": {"t1": "5", "t2": "7"}}, ["1 source list changed: t2"]),
        ({"config": {"cutouts": {"size": 96}}},
         ["config: cutouts.size = 96, was 64", "config: survey = None, was 'sky'"]),
        ({"code": {"ingest": "a", "cutouts": "c"}}, ["code changed: cutouts"]),
    ],
)  # fmt: skip
def test_each_reason_is_a_line(new, lines):
    assert changes(state(), state(**new)) == lines


def finish_run(plan):
    """Do as a run that succeeded, as far as planning knows of it."""
    catalog = plan.results / "catalog" / "collection.properties"
    catalog.parent.mkdir(parents=True, exist_ok=True)
    catalog.touch()
    plan.remember()


def test_another_shard_size_is_refused_and_its_cost_told(survey):
    plan = make_plan(survey)
    finish_run(plan)
    (plan.results / "objects").mkdir()
    for tile, count in (("a", 3), ("b", 4)):
        table = pa.table({"tile": [tile] * count})
        pq.write_table(table, plan.results / f"objects/{tile}.parquet")
        folder = plan.results / "benchmarks/cutouts"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{tile}.jsonl").write_text('{"s": 3600.0, "rule": "cutouts"}\n')
    survey["input"]["tiles_per_shard"] = 2
    told = (
        "input.tiles_per_shard = 2, but the survey was dealt to shards with null. With 2, 7 "
        "objects would be cut and predicted again, in 1 shard, and all tasks trained again; the "
        "jobs took 2 hours when they ran."
    )
    with pytest.raises(ConfigError, match=re.escape(told)):
        make_plan(survey)


def test_another_shard_size_that_is_asked_for_lasts_once_a_run_succeeds(survey):
    finish_run(make_plan(survey))
    before = (make_plan(survey).index / "shards.tsv").read_bytes()
    survey["input"] |= {"tiles_per_shard": 2, "reshard": True}
    plan = make_plan(survey)
    assert plan.shards == ["shard_00000"]
    assert (plan.index / "shards.tsv").read_bytes() == before
    survey["input"] |= {"tiles_per_shard": None, "reshard": False}  # thought better of it
    assert make_plan(survey).shards == ["a", "b"]
    survey["input"] |= {"tiles_per_shard": 2, "reshard": True}
    finish_run(make_plan(survey))
    del survey["input"]["reshard"]
    plan = make_plan(survey)
    assert plan.shards == ["shard_00000"]
    assert plan.changes() == []


def test_another_shard_size_of_no_consequence_is_no_matter(survey):
    finish_run(make_plan(survey))
    survey["input"]["tiles_per_shard"] = 1
    assert make_plan(survey).shards == ["a", "b"]


def test_a_survey_from_before_sizes_were_written_down_knows_its_own(survey):
    plan = make_plan(survey)
    finish_run(plan)
    (plan.index / "shard_size.json").unlink()
    survey["input"]["tiles_per_shard"] = 2
    with pytest.raises(ConfigError, match=r"reshard: true"):
        make_plan(survey)


def test_another_number_of_stamps_a_shard(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [f"{n},{n}.jpg" for n in range(10)]
    (tmp_path / "stamps.csv").write_text("\n".join(["object_id,image", *rows]) + "\n")
    given = {"kind": "stamps", "table": "stamps.csv", "bands": ["g"], "stamps_per_shard": 4}
    config = {"survey": "stamps", "input": given}
    finish_run(make_plan(config))
    given["stamps_per_shard"] = 3
    with pytest.raises(ConfigError, match="10 objects would be cut .* in 4 shards"):
        make_plan(config)
    given["reshard"] = True
    assert len(make_plan(config).shards) == 4
    given |= {"stamps_per_shard": 4, "reshard": False}
    assert len(make_plan(config).shards) == 3


def test_stamps_where_tiles_of_no_size_were_before(survey, tmp_path):
    finish_run(make_plan(survey))
    (tmp_path / "stamps.csv").write_text("object_id,image\n1,1.jpg\n2,2.jpg\n")
    given = {"kind": "stamps", "table": "stamps.csv", "bands": ["g"]}
    assert make_plan({"survey": "sky", "input": given}).shards == ["stamps_00000"]


def task(**more):
    return {"kind": "binary", "classes": ["no", "yes"], "training": {"folds": 5}, **more}


LENS_GONE = (
    "task lens is not in the config any more: its files stay in results/sky (models/lens, "
    "predictions/lens and others), and the catalog is written without it"
)
RENAMED = (
    "task lens is called arc now: it is trained and predicted again under that name; the files of "
    "lens stay in results/sky"
)
AGAIN = "all is cut, trained and predicted again"


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"lens": task()}, {}, [LENS_GONE]),
        ({"lens": task()}, {"arc": task()}, [RENAMED]),
        ({"lens": task()}, {"arc": task(kind="multiclass")}, [LENS_GONE, "1 new task: arc"]),
        ({"lens": task(), "shape": task(a=1)}, {"shape": task(a=2)},
         [LENS_GONE, "config: tasks.shape.a = 2, was 1"]),
        ({}, {"lens": task()}, ["1 new task: lens"]),
        ({"lens": task(), "b": task()}, {"arc": task(), "b": task()}, [RENAMED]),
    ],
)  # fmt: skip
def test_a_task_that_goes_or_is_renamed_is_a_line(old, new, lines):
    states = [state(config={"survey": "sky", "tasks": tasks}) for tasks in (old, new)]
    assert changes(*states) == lines


@pytest.mark.parametrize(
    ("new", "lines"),
    [
        ({"bands": ["g"], "zero_points": {"g": 25.0, "r": 24.0}},
         [f"band r is not in the config any more; {AGAIN}"]),
        ({"bands": ["g", "r", "i"], "zero_points": {"g": 25.0, "r": 24.0}},
         [f"1 new band: i; {AGAIN}"]),
        ({"bands": ["g", "R"], "zero_points": {"g": 25.0, "R": 24.0}},
         [f"1 band renamed: r is called R now; {AGAIN}"]),
        ({"bands": ["g", "R"], "zero_points": {"g": 25.0, "r": 24.0}},
         [f"band r is not in the config any more; {AGAIN}", f"1 new band: R; {AGAIN}"]),
        ({"bands": ["r", "g"], "zero_points": {"g": 25.0, "r": 24.0}},
         ["config: input.bands = ['r', 'g'], was ['g', 'r']"]),
    ],
)  # fmt: skip
def test_a_band_that_goes_or_is_renamed_is_a_line(new, lines):
    old = {"bands": ["g", "r"], "zero_points": {"g": 25.0, "r": 24.0}}
    states = [state(config={"survey": "sky", "input": given}) for given in (old, new)]
    assert changes(*states) == lines


def test_a_tile_that_is_renamed_is_told_by_its_files():
    own = {name: {"shard": name, "files": {"image g": name}} for name in ("t1", "t2")}
    new = {"u": {"shard": "u", "files": {"image g": "t1"}}, "t2": own["t2"]}
    assert changes(state(tiles=own), state(tiles=new)) == ["1 tile renamed: t1 is u now"]
    unknown = {"image g": "not watched"}
    old = {"t1": {"shard": "t1", "files": unknown}}
    new = {"u": {"shard": "u", "files": unknown}}
    assert changes(state(tiles=old), state(tiles=new)) == ["1 new tile: u", "1 tile removed: t1"]
