"""Labels that cannot fill the folds are refused before the first job, by their names alone."""

import pytest

from luneta.config import ConfigError
from luneta.plan import make_plan
from luneta.training.folds import fold_of, in_holdout

SEED = 1


def in_folds(folds, count=40):
    """Names of objects that are dealt to some of five folds."""
    names = (f"o{n}" for n in range(10_000))
    chosen = [name for name in names if fold_of(name, 5, SEED) in folds]
    return chosen[:count]


@pytest.fixture
def survey(tmp_path, monkeypatch):
    """Stamps of objects in all folds, in the working directory, and a task of five folds."""
    monkeypatch.chdir(tmp_path)
    write_stamps(tmp_path, [*in_folds(range(5), 80), *in_folds([0, 1, 2, 4], 60)])
    write_labels(tmp_path, in_folds(range(5), 80))
    return {
        "survey": "sky",
        "seed": SEED,
        "input": {"kind": "stamps", "table": "stamps.csv", "bands": ["g"]},
        "tasks": {
            "t": {
                "kind": "binary",
                "classes": ["no", "yes"],
                "labels": ["labels.csv"],
                "training": {"folds": 5},
            }
        },
    }


def write_stamps(folder, names):
    rows = [f"{name},{name}.jpg" for name in dict.fromkeys(names)]
    (folder / "stamps.csv").write_text("\n".join(["object_id,image", *rows]) + "\n")


def write_labels(folder, names, others=(), group="a"):
    """Write labels: half of some objects are of each class, and all of the others are `yes`."""
    rows = [f"{name},{'yes' if n % 2 else 'no'},{name}" for n, name in enumerate(names)]
    rows += [f"{name},yes,{group}" for name in others]
    (folder / "labels.csv").write_text("\n".join(["object_id,label,field", *rows]) + "\n")


def refusal(config):
    with pytest.raises(ConfigError) as refused:
        make_plan(config, is_run=True)
    first, line = str(refused.value).splitlines()
    assert first == "The config cannot work:"
    return line.strip()


def test_labels_that_fill_the_folds_are_planned_and_not_read_again(survey, monkeypatch):
    assert make_plan(survey, is_run=True).shards == ["stamps_00000"]
    monkeypatch.setattr("luneta.plan.fold_checks.read_labels", None)  # would fail if called
    make_plan(survey, is_run=True)


def test_a_fold_without_a_class_is_refused(survey, tmp_path):
    write_labels(tmp_path, in_folds([0, 1, 2, 4], 60))
    assert refusal(survey) == (
        "tasks.t: class 'no' with 30 objects has none in fold 3 of 5: lower training.folds, add "
        "labels, or change seed"
    )
    assert refusal(survey) == refusal(survey)


def test_too_few_objects_that_the_survey_has_are_refused(survey, tmp_path):
    """The label table is of a larger survey."""
    write_stamps(tmp_path, in_folds(range(5), 3))
    assert refusal(survey).startswith(
        "tasks.t: class 'no' has 2 usable labelled objects in the folds, fewer than training.folds "
        "= 5: lower folds, add labels"
    )


def test_names_that_match_nothing_are_refused(survey, tmp_path):
    write_stamps(tmp_path, [f"star{n}" for n in range(20)])
    line = refusal(survey)
    assert line.startswith("tasks.t: none of 80 labelled objects is in the survey")
    assert "and 75 more (id_column = 'object_id')" in line
    assert "leave the task out until its objects are delivered" in line


def test_a_group_that_takes_a_whole_class_into_one_fold_is_refused(survey, tmp_path):
    names = in_folds(range(5), 80)
    rows = [f"{name},{'yes' if n % 2 else 'no'},{'one' if n % 2 else name}"
            for n, name in enumerate(names)]  # fmt: skip
    (tmp_path / "labels.csv").write_text("\n".join(["object_id,label,field", *rows]) + "\n")
    survey["tasks"]["t"]["training"]["group_column"] = "field"
    fold = fold_of("one", 5, SEED)
    assert refusal(survey).startswith(
        f"tasks.t: class 'yes' with 40 objects has none in fold {0 if fold else 1} of 5"
    )


def test_a_holdout_without_a_class_is_refused(survey, tmp_path):
    kept = [name for name in in_folds(range(5), 80) if not in_holdout(name, 0.1, SEED)]
    write_labels(tmp_path, kept)
    survey["tasks"]["t"]["training"]["holdout"] = 0.1
    assert "has none in the hold-out: raise training.holdout = 0.1" in refusal(survey)


def test_a_part_of_the_survey_that_label_tiles_name_decides(survey, tmp_path):
    survey["input"]["stamps_per_shard"] = 4
    survey["tasks"]["t"]["label_tiles"] = ["stamps_00000"]
    assert "fewer than training.folds = 5" in refusal(survey)


def test_where_each_tile_brings_its_list_all_labels_count(survey, tmp_path):
    from numpy import float32, zeros

    from fits_files import tan_wcs, write_image

    pixels = zeros((60, 60), float32)
    write_image(tmp_path / "a_r.fits", pixels, tan_wcs((60, 60), 150.0, 2.0), compressed=False)
    (tmp_path / "a.csv").write_text("object_id,ra,dec\no1,150.0,2.0\n")
    survey["input"] = {
        "kind": "tiles", "images": "{tile}_r.fits[IMAGE]", "sources": "{tile}.csv", "bands": ["r"],
    }  # fmt: skip
    make_plan(survey, is_run=True)
    write_labels(tmp_path, in_folds([0, 1, 2, 4], 60))
    assert "has none in fold 3 of 5" in refusal(survey)


def test_a_damaged_memory_is_found_out_anew(survey, tmp_path):
    make_plan(survey, is_run=True)
    (tmp_path / "results/sky/index/checked_folds.json").write_text("{")
    make_plan(survey, is_run=True)
