import pytest

from luneta.plan import make_plan


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A function that gives a config of stamps whose tasks differ in their training."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{i},{i}.jpg,{'xy'[i % 2]},{i},0\n" for i in range(20))
    (tmp_path / "labels.csv").write_text("object_id,image,label,ra,dec\n" + rows)

    def of(**tasks):
        question = {"kind": "multiclass", "classes": ["x", "y"], "labels": "labels.csv"}
        return {
            "survey": "sky",
            "input": {"kind": "stamps", "table": "labels.csv", "image": "{image}",
                      "bands": ["red", "green", "blue"], "pixels": "display",
                      "columns": {"ra": "ra", "dec": "dec"}},
            "cutouts": {"size": 32},
            "tasks": {name: {**question, **(task if "training" in task else {"training": task})}
                      for name, task in tasks.items()},
        }  # fmt: skip

    return of


def test_one_task_is_compared_with_nothing(config):
    plan = make_plan(config(only={"weights": "none"}))
    assert plan.comparison_figure() == plan.label_efficiency_figure() == []
    assert plan.report()["comparison"] == plan.report()["label_efficiency"] == []


def test_tasks_of_one_fraction_have_no_curve(config):
    plan = make_plan(config(a={"weights": "none"}, b={"weights": "imagenet"}))
    assert plan.comparison_figure() == ["results/sky/figures/comparison.png"]
    assert plan.report()["comparison"] == ["a", "b"]
    assert plan.label_efficiency_figure() == []


def test_one_network_of_two_fractions_has_a_curve(config):
    few, all_labels = {"weights": "none", "label_fraction": 0.1}, {"weights": "none"}
    plan = make_plan(config(few=few, all=all_labels, other={"backbone": "VGG16"}))
    assert plan.label_efficiency_figure() == ["results/sky/figures/label_efficiency.png"]
    assert plan.report()["label_efficiency"] == ["few", "all", "other"]


def test_fractions_of_different_networks_make_no_curve(config):
    few = {"weights": "none", "label_fraction": 0.1}
    plan = make_plan(config(few=few, all={"weights": "none", "backbone": "VGG16"}))
    assert plan.report()["label_efficiency"] == []


@pytest.mark.parametrize(
    "other",
    [
        {"training": {"folds": 3}},
        {"training": {"holdout": 0.2}},
        {"training": {"group_column": "image"}},
        {"training": {"group_radius": 2.0}},
        {"training": {}, "merge": {"x": ["z"]}},
        {"training": {}, "ignore": ["z"]},
        {"training": {}, "kind": "binary"},
        {"training": {}, "id_column": "image"},
        {"training": {}, "classes": ["y", "x"]},
    ],
)
def test_tasks_of_other_folds_or_labels_are_no_pairs(config, other):
    assert make_plan(config(a={}, b={"dropout": 0.4}, c=other)).compared() == ["a", "b"]
    assert make_plan(config(a={}, c=other)).compared() == []
