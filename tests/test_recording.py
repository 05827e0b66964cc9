"""Which run is remembered and recorded, of those that Snakemake ends well."""

import json

import pytest

from luneta.files import read_json
from luneta.plan import make_plan
from luneta.plan.recording import close, lacking

CONFIG = {
    "survey": "sky",
    "input": {"kind": "stamps", "table": "stamps.csv", "bands": ["g"]},
}
WHOLE = ["results/sky/catalog/collection.properties", "results/sky/catalog/rejects.parquet"]
PART = ["results/sky/cutouts/stamps_00000.arrow", "results/sky/catalog/rejects.parquet"]
TASK = {"kind": "binary", "classes": ["no", "yes"], "labels": ["labels.csv"]}


@pytest.fixture
def survey(tmp_path, monkeypatch):
    """A table of stamps in the working directory, and labels of it."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{n},{n}.jpg" for n in range(12)]
    (tmp_path / "stamps.csv").write_text("\n".join(["object_id,image", *rows]) + "\n")
    labels = [f"{n},{'yes' if n % 2 else 'no'}" for n in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["object_id,label", *labels]) + "\n")
    return tmp_path


def write_catalog(plan, content="1"):
    """Write what tells of a catalog, with the digest of the plan's config."""
    from luneta.catalog.provenance import run_facts

    folder = plan.results / "catalog"
    (folder / "sky").mkdir(parents=True, exist_ok=True)
    (folder / "collection.properties").write_text(
        f"hats_primary_table_url=sky\nluneta.content_sha256={content}\n"
    )
    facts = run_facts(plan.config.model_dump(mode="json"))
    lines = "\n".join(f"{key}={value}" for key, value in facts.items())
    (folder / "sky" / "hats.properties").write_text(f"{lines}\n")


def memory(folder):
    """What is remembered and recorded, by file."""
    paths = [*folder.glob("results/sky/runs/*"), *folder.glob("results/sky/index/last_*")]
    return {path.name: path.read_bytes() for path in paths}


def plan_of(**more):
    return make_plan({**CONFIG, **more})


def finished(survey):
    plan = plan_of()
    write_catalog(plan)
    assert close(plan, WHOLE) == (True, [])
    return memory(survey)


def test_a_whole_run_is_recorded(survey):
    kept = finished(survey)
    assert f"{plan_of().run_id}.json" in kept
    assert plan_of().changes() == []


@pytest.mark.parametrize(
    ("seen_to", "is_unchecked", "said"),
    [
        (PART, False, "not for all of catalog"),  # --until cutouts, or one file
        ([], False, "not for all of catalog"),  # --omit-from cutouts
        (WHOLE, True, "config: cutouts.size = 32, was 64"),  # --touch
        (WHOLE, False, "was made from another config"),  # files newer than they are
    ],
)
def test_a_run_that_did_not_make_the_catalog_of_its_config_is_not_recorded(
    survey, seen_to, is_unchecked, said
):
    kept = finished(survey)
    is_recorded, lines = close(plan_of(cutouts={"size": 32}), seen_to, is_unchecked)
    assert not is_recorded
    assert said in lines[0]
    assert memory(survey) == kept
    assert plan_of(cutouts={"size": 32}).changes() == ["config: cutouts.size = 32, was 64"]


def test_a_run_that_did_not_make_what_was_delivered_is_not_recorded(survey):
    """The run bears the same name, as its config is the same."""
    kept = finished(survey)
    with (survey / "stamps.csv").open("a") as table:
        table.write("12,12.jpg\n")
    assert not close(plan_of(), PART)[0]
    plan_of().complete_record()
    assert memory(survey) == kept


def test_a_run_of_whose_tasks_some_were_left_out_is_not_recorded(survey):
    plan = plan_of(tasks={"a": TASK, "b": {**TASK, "predict": False}}, training={"folds": 2})
    folds = [f"results/sky/models/{task}/fold{fold}.keras" for task in "ab" for fold in (0, 1)]
    metrics = [f"results/sky/metrics/{task}.json" for task in "ab"]
    assert lacking(plan, [*WHOLE, *folds, *metrics]) == []
    assert lacking(plan, [*WHOLE, *folds[:3], *metrics[:1]]) == ["finetune", "evaluate"]
    listed = plan_of(tasks={"a": {**TASK, "candidates": {}}}, training={"folds": 2})
    assert lacking(listed, [*WHOLE, *folds, *metrics]) == ["candidates"]


def test_copies_of_files_in_a_storage_count(survey):
    copies = [f".snakemake/storage/s3/bucket/luneta/{path}" for path in WHOLE]
    assert lacking(plan_of(), copies) == []


def test_what_was_touched_is_told_in_later_records_until_all_is_made(survey):
    finished(survey)
    changed = plan_of(cutouts={"size": 32})
    assert not close(changed, WHOLE, is_unchecked=True)[0]
    write_catalog(changed)
    assert close(changed, WHOLE)[0]
    path = survey / f"results/sky/runs/{changed.run_id}.json"
    assert read_json(path)["taken_over"] == ["config: cutouts.size = 32, was 64"]
    assert close(changed, WHOLE, is_all=True)[0]
    assert read_json(path)["taken_over"] == []


def test_touching_where_nothing_has_changed_is_no_matter(survey):
    finished(survey)
    assert close(plan_of(), WHOLE, is_unchecked=True) == (True, [])


def test_the_record_of_a_run_that_was_killed_is_written_by_the_next(survey):
    kept = finished(survey)
    record = survey / f"results/sky/runs/{plan_of().run_id}.json"
    record.unlink()
    plan_of().complete_record()
    assert memory(survey) == kept


@pytest.mark.parametrize("what", ["delivery", "outputs"])
def test_the_record_of_a_run_is_not_written_from_what_came_later(survey, what):
    finished(survey)
    record = survey / f"results/sky/runs/{plan_of().run_id}.json"
    record.unlink()
    if what == "delivery":
        with (survey / "stamps.csv").open("a") as table:
            table.write("12,12.jpg\n")
    else:
        write_catalog(plan_of(), content="of another run")
        plan_of().note_outputs()
    plan_of().complete_record()
    assert not record.exists()


def test_other_provenance_is_written_of_the_same_run_only(survey):
    finished(survey)
    record = survey / f"results/sky/runs/{plan_of().run_id}.json"
    plan_of(provenance={"most_files": 7}).complete_record()
    assert json.loads(record.read_text())["config"]["provenance"]["most_files"] == 7
    with (survey / "stamps.csv").open("a") as table:
        table.write("12,12.jpg\n")
    before = record.read_bytes()
    plan_of(provenance={"most_files": 8}).complete_record()
    assert record.read_bytes() == before
