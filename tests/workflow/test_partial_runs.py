"""A run that makes less than the whole, or only counts files as made, is not recorded."""

import pytest

from tiny_survey import PlainSurvey, plain_config, quick_survey

CHANGED = "config: cutouts.size = 24, was 16"
IMAGE = "1 image changed: t0 (g)"


@pytest.fixture(scope="module")
def run_once(tmp_path_factory) -> PlainSurvey:
    """Two tiles, run through the whole workflow."""
    survey = quick_survey(tmp_path_factory.mktemp("plain"), tiles=2)
    survey.run()
    return survey


@pytest.fixture
def plain(run_once, tmp_path) -> PlainSurvey:
    """A copy of the survey, to change at will."""
    return run_once.copied_to(tmp_path / "copy")


def memory(survey: PlainSurvey) -> dict[str, bytes]:
    """What is remembered and recorded of runs."""
    return survey.contents("runs/*") | survey.contents("index/last_*")


def change_config(survey: PlainSurvey) -> str:
    config = plain_config()
    config["cutouts"]["size"] = 24
    survey.write_config(config)
    return CHANGED


def change_image(survey: PlainSurvey) -> str:
    survey.write_image(0, "g", seed=5)
    return IMAGE


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        (change_config, ["--until", "cutouts"]),
        pytest.param(change_image, ["--until", "cutouts"], marks=pytest.mark.slow),
        pytest.param(change_config, ["--omit-from", "catalog"], marks=pytest.mark.slow),
        pytest.param(change_image, ["--omit-from", "catalog"], marks=pytest.mark.slow),
        pytest.param(
            change_config, ["results/tiny/cutouts/t0.arrow"], marks=pytest.mark.slow
        ),
        pytest.param(
            change_image, ["results/tiny/objects/t0.parquet", "--force"], marks=pytest.mark.slow
        ),
        pytest.param(
            change_config, ["--forcerun", "ingest", "--until", "ingest"], marks=pytest.mark.slow
        ),
        pytest.param(change_config, ["--touch"], marks=pytest.mark.slow),
        pytest.param(change_image, ["--touch"], marks=pytest.mark.slow),
        pytest.param(
            change_config, ["--rerun-triggers", "mtime", "--forcerun", "report"],
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_nothing_is_remembered_of_a_run_that_was_not_made(plain, change, arguments):
    kept = memory(plain)
    said = change(plain)
    done = plain.snakemake(*arguments)
    text = done.stdout + done.stderr
    assert done.returncode == 0, text[-3000:]
    assert "This run is not recorded" in text
    assert memory(plain) == kept
    assert plain.plan()[1] == [said]
    assert memory(plain) == kept


@pytest.mark.slow
@pytest.mark.parametrize("change", [change_config, change_image])
def test_a_run_that_goes_on_to_the_end_is_recorded(plain, change):
    change(plain)
    plain.snakemake("--until", "cutouts")
    before = memory(plain)
    plain.run()
    assert memory(plain) != before
    assert plain.plan() == ({}, [])


@pytest.mark.slow
def test_what_was_touched_stays_in_the_record_of_the_next_run(plain):
    change_config(plain)
    plain.snakemake("--touch")
    plain.write_tile(2)
    plain.run()
    (record,) = [
        content for name, content in plain.contents("runs/*.json").items()
        if b'"size": 24' in content
    ]  # fmt: skip
    assert CHANGED.encode() in record
