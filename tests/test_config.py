"""What a config may hold, and what is said of one that cannot work."""

import copy
import datetime
import json
from pathlib import Path

import pytest
import yaml

from luneta.config import ConfigError, load, validate

EXAMPLES = Path(__file__).parents[1] / "config"

TILES = {
    "survey": "sky",
    "input": {"kind": "tiles", "tiles": "t.tsv", "sources": "s.fits", "bands": ["g", "r"]},
    "tasks": {
        "shape": {"kind": "multiclass", "classes": ["round", "disc"], "labels": "labels.csv"}
    },
}


def changed(path, value):
    """TILES with one key set to another value."""
    config = copy.deepcopy(TILES)
    section = config
    *parents, last = path.split(".")
    for key in parents:
        section = section.setdefault(key, {})
    section[last] = value
    return config


def test_minimal_config_gets_defaults():
    config = validate(TILES)
    assert config.input.reference == "g"
    assert config.tasks["shape"].training.folds == 5
    assert [str(path) for path in config.tasks["shape"].labels] == ["labels.csv"]


def test_task_inherits_training():
    config = changed("training", {"folds": 3, "dropout": 0.5})
    config["tasks"]["shape"]["training"] = {"folds": 4}
    training = validate(config).tasks["shape"].training
    assert (training.folds, training.dropout) == (4, 0.5)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("seeed", 2, "seeed = 2: there is no such key; did you mean seed?"),
        ("cutouts.sise", 2, "cutouts.sise = 2: there is no such key; did you mean size?"),
        ("cutouts.SIZE", 2, "cutouts.SIZE = 2: there is no such key; did you mean size?"),
        ("input.source", "a", "input.source = 'a': there is no such key; did you mean sources?"),
        ("input.mask.plains", {}, "input.mask.plains: there is no such key; did you mean planes?"),
        ("tasks.shape.clases", [], "tasks.shape.clases = []: there is no such key; did you mean"),
        ("tasks.shape.training.fold", 2, "training.fold = 2: there is no such key; did you mean"),
        ("cutouts.qqqqqq", 1, "allowed are size, extent, crop"),
        ("cutouts.size", 4, "cutouts.size = 4: must be greater than or equal to 8 (Side of"),
        ("cutouts.size", "big", "cutouts.size = 'big': must be a valid integer"),
        ("cutouts", [1], "cutouts = [1]: must hold keys"),
        ("training.backbone", "VGG", "= 'VGG': there is no backbone 'VGG'; did you mean VGG19"),
        ("training", ["folds"], "training = ['folds']: must hold keys"),
        ("input.kind", "tile", "input.kind = 'tile': must be tiles"),
        ("input.bands", ["g", "g"], "input.bands = ['g', 'g']: ['g', 'g'] hold a name twice"),
        ("input.bands", "gri", "input.bands = 'gri': must be a list; write bands: [g, r, i]"),
        ("input.bands", "g, r", "must be a list; write bands: [g, r]"),
        ("input.bands", "F200W", "must be a list; write bands: [F200W]"),
        ("input.mask.ignore", "cosmic_ray", "must be a list; write ignore: [cosmic_ray]"),
        ("input.mask.sentinels", 100, "must be a list; write sentinels: [100]"),
        ("tasks.shape.classes", "round disc", "must be a list; write classes: [round, disc]"),
        ("tasks.shape.training.rgb", "irg", "must be a list; write rgb: [i, r, g]"),
        ("input.bands", [True, "g"], "input.bands.0 = True: YAML reads this as a number or as"),
        ("input.reference_band", "z", "input: reference_band 'z' is not one of bands"),
        ("survey", "my sky", "survey = 'my sky': names become file and column names"),
        ("survey", 7, "survey = 7: YAML reads this as a number"),
        ("survey", datetime.date(2026, 1, 1), "YAML reads this as a date; put it in quotes"),
        ("tasks.shape.kind", "binary2", "tasks.shape.kind = 'binary2': must be 'multiclass' or"),
        ("tasks.shape.merge", {"x": ["y"]}, "tasks.shape: merge names ['x']"),
        ("training.width", 0.5, None),
        (
            "training",
            {"course_recipe": True, "fine_tune_epochs": 0},
            "course_recipe trains for fine_tune_epochs, which are 0: set fine_tune_epochs to 50",
        ),
    ],
)
def test_message_names_key_value_and_fix(path, value, said):
    if said is None:
        validate(changed(path, value))
        return
    with pytest.raises(ConfigError) as refused:
        validate(changed(path, value))
    lines = str(refused.value).splitlines()
    assert lines[0] == "The config cannot work:"
    assert len(lines) == 2
    assert said in lines[1]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("survey", "survey: this key is required (Name of the survey"),
        ("input.bands", "input.bands: this key is required (Bands in the order"),
        ("input.kind", "input.kind: must be tiles"),
        ("tasks.shape.labels", "tasks.shape.labels: this key is required (Label tables"),
    ],
)
def test_missing_key(path, said):
    config = copy.deepcopy(TILES)
    section = config
    *parents, last = path.split(".")
    for key in parents:
        section = section[key]
    del section[last]
    with pytest.raises(ConfigError) as refused:
        validate(config)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("predict", "tasks", "said"),
    [
        (True, ["shap"], "tasks = 'shap': is no task that predicts; did you mean shape?"),
        (False, ["shape"], "= 'shape': is no task that predicts; no task of this config does: add"),
        (True, ["shape", "shape"], "clustering.tasks = ['shape', 'shape']: ['shape', 'shape'] h"),
    ],
)
def test_clustered_tasks_predict_and_are_named_once(predict, tasks, said):
    config = changed("clustering", {"tasks": tasks})
    config["tasks"]["shape"]["predict"] = predict
    with pytest.raises(ConfigError) as refused:
        validate(config)
    assert said in str(refused.value)


def test_bands_written_as_one_word_are_told_once_with_a_preset_or_stamps():
    image = {"g": "{n}_g.fits", "r": "{n}_r.fits"}
    stamps = {"kind": "stamps", "table": "t.csv", "image": image, "bands": "gr"}
    for config in (
        {"survey": "s", "input": stamps},
        {"survey": "s", "preset": "sdss", "input": {"bands": "gr", "sources": "s.csv"}},
    ):
        with pytest.raises(ConfigError) as refused:
            validate(config)
        (line,) = str(refused.value).splitlines()[1:]
        assert line == "  input.bands = 'gr': must be a list; write bands: [g, r]"


def test_all_problems_are_told_once():
    config = changed("training", {"folds": 1})
    config["cutouts"] = {"size": 3}
    with pytest.raises(ConfigError) as refused:
        validate(config)
    assert len(str(refused.value).splitlines()) == 3


def test_binary_task_has_two_classes():
    config = changed("tasks.shape.kind", "binary")
    config["tasks"]["shape"]["classes"] = ["a", "b", "c"]
    with pytest.raises(ConfigError, match="a binary task has 2 classes, not 3"):
        validate(config)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("survey: [a", "is not YAML"),
        ("survey:\n\tinput: 1", "line 2"),
        ("", "config = None: must"),
        ("just words", "config = 'just words': must"),
    ],
)
def test_load_refuses_what_is_no_config(tmp_path, text, said):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="The config cannot work") as refused:
        load(path)
    assert said in str(refused.value)


def test_load_refuses_a_missing_file(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")


def test_an_ignored_plane_that_is_not_named_is_refused():
    given = {"kind": "tiles", "tiles": "t.tsv", "sources": "s.fits", "bands": ["r"]}
    given["mask"] = {"planes": {"bad": 0}, "ignore": ["typo"]}
    with pytest.raises(ConfigError, match="typo"):
        validate({"survey": "s", "input": given})


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_checked_config_written_out_is_itself_again(path):
    once = validate(yaml.safe_load(path.read_text())).model_dump(mode="json")
    assert validate(json.loads(json.dumps(once))).model_dump(mode="json") == once
