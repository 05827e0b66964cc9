"""Whatever is done to a file of a finished survey, one plain rerun makes it as it was."""

import os
import re
from pathlib import Path

import pytest
import yaml

from luneta.catalog.read import read_columns
from luneta.plan import make, make_plan
from luneta.plan.jobs import Plan
from tiny_survey import Survey, quick_survey, small_survey

# All that a finished survey consists of; a fold, shard or task more has the same kinds of files.
FILES = [
    "catalog/collection.properties", "catalog/overlaps.parquet", "catalog/partitions.json",
    "catalog/rejects.parquet", "catalog/tiny/dataset/Norder=0/Dir=0/Npix=6.parquet",
    "catalog/tiny/dataset/_common_metadata", "catalog/tiny/dataset/_metadata",
    "catalog/tiny/hats.properties", "catalog/tiny/partition_info.csv", "catalog/tiny/properties",
    "catalog/tiny/skymap.fits", "catalog/tiny_5arcs/dataset/_common_metadata",
    "catalog/tiny_5arcs/dataset/_metadata", "catalog/tiny_5arcs/hats.properties",
    "catalog/tiny_5arcs/partition_info.csv", "catalog/tiny_5arcs/properties",
    "catalog/tiny_index/dataset/_common_metadata", "catalog/tiny_index/dataset/_metadata",
    "catalog/tiny_index/dataset/index/part_0.parquet", "catalog/tiny_index/hats.properties",
    "catalog/tiny_index/properties", "catalog/without_position.parquet",
    "catalog/lens_candidates.parquet", "clusters/lens.parquet",
    "clusters/lens_neighbours.parquet", "cutouts/tiny_0.arrow", "embeddings/lens/tiny_0.parquet",
    "figures/cutouts.png", "figures/flagged.png", "figures/lens_anomalies.png",
    "figures/lens_calibration.png", "figures/lens_candidates.png", "figures/lens_confusion.png",
    "figures/lens_examples.png", "figures/lens_gradients.png", "figures/lens_groups.png",
    "figures/lens_labels.png", "figures/lens_magnitude_size.png", "figures/lens_map.png",
    "figures/lens_precision_recall.png", "figures/lens_roc.png", "figures/lens_training.png",
    "figures/objects.png", "figures/truth.png", "index/last_run.json", "index/last_run_copy.json",
    "index/outputs.json", "index/digests.json", "index/shard_size.json",
    "index/shard_size_copy.json", "index/shards.tsv", "index/shards_copy.tsv",
    "metrics/lens.json", "metrics/lens_holdout.parquet", "metrics/lens_out_of_fold.parquet",
    "metrics/lens_outliers.npz", "models/lens/failures.png", "models/lens/fold0.json",
    "models/lens/fold0.keras", "models/lens/fold0_gradients.csv", "models/lens/fold0_history.csv",
    "models/lens/model_card.md", "objects/tiny_0.parquet", "predictions/lens/tiny_0.parquet",
    "quality/tiny_0.parquet", "quality/tiny_0_files.json", "raw/tiny_0_g.fits",
    "raw/tiny_0_i.fits", "raw/tiny_0_labels.csv", "raw/tiny_0_r.fits", "raw/tiny_0_sources.fits",
    "raw/tiny_0_truth.parquet", "report/rejects.html", "report/scores.html", "runs/RUN.json",
    "splits/lens.parquet",
]  # fmt: skip
# The diary of the jobs: of no consequence, and never the same twice.
DIARY = ["logs/catalog.log", "benchmarks/catalog.jsonl", ".lock"]
HOLDS_TIMES = {"index/outputs.json", "index/digests.json", "index/files.json", "index/plan.json"}


def delete(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    os.truncate(path, 0)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_and_keep_the_time(path: Path) -> None:
    status = path.stat()
    flip(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


DAMAGES = [delete, empty, halve, flip, flip_and_keep_the_time]


def named(survey: Survey, name: str) -> Path:
    """The file of a name of `FILES`."""
    if name == "runs/RUN.json":
        return next(survey.results.glob("runs/*.json"))
    return survey.results / name


def contents(survey: Survey) -> dict[str, bytes]:
    """All files of the survey by name, but for the diary of its jobs."""
    paths = [path for path in survey.results.rglob("*") if path.is_file()]
    names = {path.relative_to(survey.results).as_posix(): path for path in paths}
    return {
        name: path.read_bytes()
        for name, path in names.items()
        if name not in HOLDS_TIMES and not name.startswith(("logs/", "benchmarks/", "."))
    }


def differences(survey: Survey, before: dict[str, bytes]) -> list[str]:
    now = contents(survey)
    return sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


@pytest.fixture(scope="session")
def all_kinds(tmp_path_factory) -> Survey:
    """The smallest survey that has a file of every kind but a pretrained backbone."""
    survey = small_survey(tmp_path_factory.mktemp("all_kinds"))
    config = yaml.safe_load((survey.folder / "config.yaml").read_text())
    config["tasks"]["lens"]["candidates"] = {}
    (survey.folder / "config.yaml").write_text(yaml.safe_dump(config))
    survey.run()
    return survey


@pytest.fixture(scope="session")
def plain(tmp_path_factory) -> Survey:
    """Three delivered tiles and their list, and nothing to train."""
    survey = quick_survey(tmp_path_factory.mktemp("plain"))
    survey.run()
    return survey


def healed(survey: Survey, before: dict[str, bytes]) -> None:
    survey.run()
    assert differences(survey, before) == []
    assert survey.planned() == {}


IRREPLACEABLE = {"index/shards.tsv", "index/last_run.json", "index/shard_size.json"}
ASKED_FOR_BY_THE_RULE_ALL = (
    "catalog/", "figures/", "report/", "models/lens/failures.png", "models/lens/model_card.md",
)  # fmt: skip


def planned(config: dict) -> Plan:
    """Plan as Snakemake does when it begins, and end that run."""
    plan = make_plan(config, is_run=True)
    plan.heal_catalog()
    plan.changes()
    plan.complete_record()
    os.close(plan.run._lock)
    make._runs.clear()
    return plan


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_planning_finds_every_damaged_file_and_sees_to_it(survey, monkeypatch, damage):
    """Each file of the manifest by itself: it is asked for, or written again at once."""
    monkeypatch.chdir(survey.folder)
    config = yaml.safe_load((survey.folder / "config.yaml").read_text())
    planned(config)
    names = [name for name in FILES if name not in HOLDS_TIMES and (survey.results / name).exists()]
    collection = survey.results / "catalog/collection.properties"
    properties = collection.read_bytes()
    assert len(names) > 60
    for name in names:
        path = named(survey, name)
        content = path.read_bytes()
        damage(path)
        plan = planned(config)
        if name in IRREPLACEABLE or name.endswith(("_copy.json", "_copy.tsv")):
            assert path.read_bytes() == content, name
            continue
        assert not path.exists(), name
        is_asked_for = str(path.relative_to(survey.folder)) in plan.missing()
        assert is_asked_for != name.startswith(ASKED_FOR_BY_THE_RULE_ALL), name
        if name.startswith("catalog/") and not name.endswith("_candidates.parquet"):
            is_output = name.count("/") == 1 and name != "catalog/partitions.json"
            assert is_output or not collection.exists(), name
            collection.write_bytes(properties)
        path.write_bytes(content)
        path.with_name(f"{path.name}.damaged").unlink(missing_ok=True)


def test_one_rerun_makes_results_again_that_were_damaged_in_many_ways(survey):
    """All at once, what is cheap to make; the slow tests take each file by itself."""
    damages = {
        "predictions/lens/tiny_0.parquet": delete,
        "clusters/lens.parquet": flip,
        "clusters/lens_neighbours.parquet": empty,
        "catalog/rejects.parquet": empty,
        "catalog/overlaps.parquet": flip_and_keep_the_time,
        "catalog/tiny/hats.properties": delete,
        "catalog/tiny/dataset/Norder=0/Dir=0/Npix=6.parquet": flip_and_keep_the_time,
        "figures/objects.png": delete,
        "figures/lens_roc.png": flip_and_keep_the_time,
        "report/scores.html": flip,
        "models/lens/model_card.md": halve,
        "index/shards.tsv": flip,
        "index/last_run.json": halve,
        "runs/RUN.json": flip,
    }  # fmt: skip
    before = contents(survey)
    for name, damage in damages.items():
        damage(named(survey, name))
    healed(survey, before)


@pytest.mark.slow
def test_the_list_of_files_is_complete(all_kinds):
    names = [re.sub("fold[1-9]", "fold0", name) for name in contents(all_kinds)]
    names = [re.sub("runs/[0-9a-f]{16}", "runs/RUN", name) for name in names]
    assert {*names} == {*FILES} - HOLDS_TIMES


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", [*FILES, *DIARY])
def test_a_damaged_file_is_made_again_unless_it_is_of_the_diary(all_kinds, tmp_path, name, damage):
    survey = all_kinds.copied_to(tmp_path / "copy")
    before = contents(survey)
    damage(named(survey, name))
    healed(survey, before)


# What the run does not make


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("config.yaml", delete, "config.yaml"),
        ("config.yaml", empty, "the file is empty"),
        ("sources.csv", delete, "sources.csv"),
        ("sources.csv", empty, "sources.csv"),
    ],
)
def test_an_input_without_which_nothing_can_be_planned_is_one_message(
    plain, tmp_path, name, damage, message
):
    survey = plain.copied_to(tmp_path / "copy")
    before = contents(survey)
    damage(survey.folder / name)
    done = survey.snakemake()
    text = done.stdout + done.stderr
    assert done.returncode == 1
    assert message in text
    assert "Traceback" not in text
    assert differences(survey, before) == []


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_image_costs_its_own_objects_and_is_told(plain, tmp_path, damage):
    """A flipped bit of a pixel is a new delivery, as a tile bears no checksum."""
    survey = plain.copied_to(tmp_path / "copy")
    others = survey.contents("cutouts/t[12].arrow")
    damage(survey.folder / "tiles/t0_r.fits")
    assert "Since the last run:" in survey.run()
    assert survey.contents("cutouts/t[12].arrow") == others
    rows = read_columns(survey.results / "catalog/collection.properties", ["object_id", "flags"])
    assert rows.num_rows == 15
    if damage in (delete, empty, halve):
        flags = dict(zip(rows["object_id"].to_pylist(), rows["flags"].to_pylist(), strict=True))
        assert {name.partition("-")[0] for name, flag in flags.items() if flag} == {"t0"}
