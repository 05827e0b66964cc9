"""From images to catalog, and what a change makes run again."""

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from luneta.catalog.read import catalog_schema, partition_files, read_columns
from luneta.files import read_json
from tiny_survey import LABELLED, REPOSITORY, tiny_config

AFTER_TRAINING = {
    "finetune": 2, "evaluate": 1, "infer": 2, "embed": 2, "cluster": 1, "card": 1, "catalog": 1,
    "report": 1,
}  # fmt: skip


def catalog(survey):
    collection = survey.results / "catalog/collection.properties"
    return read_columns(collection, catalog_schema(collection).names)


def test_rows_in_are_rows_out(finished):
    sources = [
        Table.read(finished.results / f"raw/{t}_sources.fits")["OBJECT_ID"] for t in LABELLED
    ]
    expected = [str(name) for column in sources for name in column]
    assert sorted(catalog(finished)["object_id"].to_pylist()) == sorted(expected)


def test_usable_objects_have_probabilities_that_sum_to_one(finished):
    rows = catalog(finished).to_pandas()
    usable = rows["reject_reason"].isna()
    total = rows["lens_nolens_probability"] + rows["lens_lens_probability"]
    assert usable.sum() > 60
    assert total[usable].sub(1).abs().max() < 1e-5
    assert rows.loc[~usable, "lens_lens_probability"].isna().all()


def test_units_are_there_for_astropy(finished):
    leaf = partition_files(finished.results / "catalog/collection.properties")[0]
    table = Table.read(leaf, format="parquet.votable")
    assert {name: str(table[name].unit) for name in ("ra", "dec", "magnitude_r", "radius")} == {
        "ra": "deg",
        "dec": "deg",
        "magnitude_r": "mag",
        "radius": "arcsec",
    }


def test_the_identity_of_the_model_is_in_every_row(finished):
    metrics = read_json(finished.results / "metrics/lens.json")
    found = set(catalog(finished)["lens_model_id"].drop_null().to_pylist())
    assert found == {metrics["model_id"]}


def test_every_usable_object_has_a_place_among_the_others(finished):
    rows = catalog(finished).to_pandas()
    usable = rows["reject_reason"].isna()
    assert rows.loc[usable, "lens_map_1"].notna().all()
    assert rows.loc[~usable, "lens_group"].isna().all()
    assert rows.loc[usable, "lens_anomaly_score"].between(0, 1).all()


def test_the_card_names_the_networks(finished):
    metrics = read_json(finished.results / "metrics/lens.json")
    card = (finished.results / "models/lens/model_card.md").read_text()
    assert all(name in card for name in [metrics["model_id"], *metrics["models"]])
    assert (finished.results / "models/lens/failures.png").exists()


def test_the_hold_out_is_scored_by_the_ensemble(finished):
    metrics = read_json(finished.results / "metrics/lens.json")
    held = pq.read_table(finished.results / "metrics/lens_holdout.parquet")
    assert metrics["holdout"]["count"] == len(held) > 5
    assert metrics["holdout"]["scores"]["accuracy"] is not None


def test_the_run_ends_with_its_numbers(finished):
    assert "90 objects: " in finished.log
    assert "0 files could not be used" in finished.log


def test_a_second_run_has_nothing_to_do(finished):
    assert finished.planned() == {}


def test_file_times_alone_rerun_nothing(survey):
    for part in ("workflow", "scripts"):
        for path in (survey.folder / part).rglob("*"):
            os.utime(path)
    for name in ("config.yaml", "tiles.tsv"):
        os.utime(survey.folder / name)
    assert survey.planned() == {}


def test_a_training_setting_reruns_training_and_what_follows(survey):
    config = tiny_config()
    config["training"]["head_learning_rate"] = 5e-4
    survey.write(config, LABELLED)
    assert survey.planned() == AFTER_TRAINING


@pytest.mark.parametrize(
    ("module", "first"),
    [("cutouts/gather.py", "cutouts"), ("inference/infer.py", "infer"), ("config/survey.py", None)],
)
def test_changed_code_reruns_the_rules_that_use_it(survey, module, first):
    path = survey.folder / "scripts/luneta" / module
    path.write_text(path.read_text() + "\nCHANGED = True\n")
    expected = {
        "cutouts": {"cutouts": 2, "split": 1, **AFTER_TRAINING},
        "infer": {"infer": 2, "catalog": 1, "report": 1},
        None: {},
    }
    assert survey.planned() == expected[first]


@pytest.mark.slow
def test_candidates_are_listed_and_graded(survey):
    config = tiny_config()
    config["tasks"]["lens"]["candidates"] = {"probability": 0, "grades": "grades.csv"}
    grades = survey.folder / "grades.csv"
    grades.write_text("object_id,grade\n")
    survey.write(config, LABELLED)
    assert survey.planned() == {"catalog": 1, "candidates": 1, "report": 1}
    said = survey.run()
    path = survey.results / "catalog/lens_candidates.parquet"
    first = pq.read_table(path).to_pandas()
    assert f"lens_candidates: {len(first)} systems listed" in said
    assert first["members"].sum() == catalog(survey)["lens_class"].drop_null().length()
    assert first["grade"].isna().all()
    assert survey.planned() == {}
    grades.write_text(f"object_id,grade\n{first['object_id'][3]},A\n")
    assert survey.planned() == {"candidates": 1}
    survey.run()
    assert pq.read_table(path)["grade"].to_pylist()[3] == "A"


def test_a_new_tile_costs_only_itself_and_the_merges(survey):
    before = survey.contents("*/**/tiny_[01]*")
    models = survey.contents("models/**/*.json")
    survey.write(tiny_config(), [*LABELLED, "tiny_2"])
    assert survey.planned() == {
        "simulate": 1, "ingest": 1, "cutouts": 1, "infer": 1, "embed": 1, "cluster": 1,
        "catalog": 1, "report": 1,
    }  # fmt: skip
    survey.run()
    after = survey.contents("*/**/tiny_[01]*")
    changed = [name for name in before if not name.startswith(("logs", "benchmarks"))
               and after[name] != before[name]]  # fmt: skip
    assert changed == []
    assert survey.contents("models/**/*.json") == models
    assert len(catalog(survey)) == 135
    assert survey.planned() == {}


def test_the_workflow_is_found_from_the_folder_of_the_repository(tmp_path):
    """A Snakefile beside the folder `workflow` would be taken in its place."""
    for entry in REPOSITORY.iterdir():
        if not entry.name.startswith((".", "results")):
            (tmp_path / entry.name).symlink_to(entry)
    command = [sys.executable, "-m", "snakemake", "--configfile", "config/demo.yaml", "--dry-run"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "scripts")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "\nsimulate " in done.stdout + done.stderr
