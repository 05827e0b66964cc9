"""What a change costs where networks are trained: two tasks, three shards of two tiles."""

import pytest

from tiny_survey import PlainSurvey, plain_config, sources_of

pytestmark = pytest.mark.slow

TILES, FOLDS, SHARDS = 6, 2, 3
MERGES = {"catalog": 1, "report": 1}
RETRAINED = {"split": 1, "finetune": FOLDS, "evaluate": 1, "card": 1, "infer": SHARDS}


def two_tasks() -> dict:
    """A config of two tasks on the same labelled tiles."""
    training = {
        "width": 0.35, "weights": "none", "folds": FOLDS, "holdout": 0.0, "head_epochs": 1,
        "fine_tune_epochs": 1, "label_smoothing": 0.0,
    }  # fmt: skip
    config = plain_config() | {"training": training, "tasks": {}}
    config["cutouts"]["size"] = 32
    config["input"]["tiles_per_shard"] = 2
    for task in ("bright", "round"):
        config["tasks"][task] = {
            "kind": "binary",
            "classes": ["no", "yes"],
            "labels": [f"{task}.csv"],
            "label_tiles": ["t0", "t1", "t2", "t3"],
        }
    return config


def write_labels(survey: PlainSurvey, task: str, tiles: int = 4, flip: int = 0) -> None:
    """Label the objects of the first tiles, no and yes in turn."""
    names = [name for tile in range(tiles) for name, *_ in sources_of(tile)]
    rows = [f"{name},{('no', 'yes')[(n + flip) % 2]}" for n, name in enumerate(names)]
    (survey.folder / f"{task}.csv").write_text("\n".join(["object_id,label", *rows]) + "\n")


@pytest.fixture(scope="module")
def run_once(tmp_path_factory) -> PlainSurvey:
    survey = PlainSurvey(tmp_path_factory.mktemp("tasks"))
    for tile in range(TILES):
        survey.write_tile(tile)
    survey.write_sources([row for tile in range(TILES) for row in sources_of(tile)])
    for task in ("bright", "round"):
        write_labels(survey, task)
    survey.write_config(two_tasks())
    survey.run()
    return survey


@pytest.fixture
def survey(run_once, tmp_path) -> PlainSurvey:
    """A copy of the survey, to change at will."""
    return run_once.copied_to(tmp_path / "copy")


def state(survey: PlainSurvey, *patterns: str) -> dict:
    """Content and time of files."""
    paths = [path for pattern in patterns for path in survey.results.glob(pattern)]
    assert all(any(survey.results.glob(pattern)) for pattern in patterns)
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def change(survey: PlainSurvey, jobs: dict, untouched: list[str]) -> list[str]:
    """A change plans these jobs, leaves these files; gives what is said of it."""
    before = state(survey, *untouched)
    planned, said = survey.plan()
    assert planned == {**jobs, **MERGES}
    survey.run()
    assert state(survey, *untouched) == before
    assert survey.plan() == ({}, [])
    return said


CUT = ["objects/*", "cutouts/*", "quality/*"]


def test_new_tile_is_cut_and_predicted_by_the_old_networks(survey):
    old = [f"{folder}/shard_0000[0-2]*" for folder in ("objects", "cutouts", "quality")]
    old += ["predictions/*/shard_0000[0-2]*", "models/*/*", "metrics/*", "splits/*"]
    survey.write_tile(TILES)
    survey.write_sources([row for tile in range(TILES + 1) for row in sources_of(tile)])
    jobs = {"ingest": 1, "cutouts": 1, "infer": 2}
    said = change(survey, jobs, old)
    assert said == ["1 new tile: t6", "source list: 5 rows added in 1 shard"]


def test_new_labels_train_and_predict_anew_and_leave_cutouts(survey):
    write_labels(survey, "bright", flip=1)
    untouched = [*CUT, "predictions/round/*", "models/round/*", "metrics/round*", "splits/round*"]
    change(survey, RETRAINED, untouched)


def test_one_network_changed_leaves_the_other_tasks_predictions(survey):
    config = two_tasks()
    config["tasks"]["bright"]["training"] = {"width": 0.5}
    survey.write_config(config)
    before = state(survey, "predictions/bright/*")
    jobs = {rule: count for rule, count in RETRAINED.items() if rule != "split"}
    untouched = [*CUT, "predictions/round/*", "models/round/*", "metrics/round*", "splits/*"]
    said = change(survey, jobs, untouched)
    assert said == ["config: tasks.bright.training.width = 0.5, was 0.35"]
    after = state(survey, "predictions/bright/*")
    assert all(after[path][0] != content for path, (content, _) in before.items())


def test_a_tile_delivered_again_concerns_its_shard(survey):
    """Its shard holds no labels, so that nothing is trained."""
    survey.write_image(5, "g", seed=1)
    rest = [f"{folder}/shard_0000[01]*" for folder in ("objects", "cutouts", "quality")]
    untouched = [*rest, "objects/*", "predictions/*/shard_0000[01]*", "models/*/*"]
    said = change(survey, {"cutouts": 1, "infer": 2}, untouched)
    assert said == ["1 image changed: t5 (g)"]


def test_a_network_that_is_gone_is_trained_again(survey):
    (survey.results / "models/bright/fold1.keras").unlink()
    planned, _ = survey.plan()
    assert planned["finetune"] == 1
    before = state(survey, "metrics/*.json", "predictions/*/*.parquet")
    survey.run()
    after = state(survey, "metrics/*.json", "predictions/*/*.parquet")
    assert {p: content for p, (content, _) in before.items()} == {
        p: content for p, (content, _) in after.items()
    }
