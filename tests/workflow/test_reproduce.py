"""The record of a run, and `make reproduce`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from luneta.files import read_json, write_json
from tiny_survey import REPOSITORY, PlainSurvey, Survey, plain_config, sources_of, tiny_config

IDENTITY = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]


def commit(folder: Path) -> None:
    """Make the folder a repository of its own that holds the code."""
    for part in ("pyproject.toml", ".gitignore"):
        shutil.copy(REPOSITORY / part, folder / part)
    code = ["scripts", "workflow", "envs", "pyproject.toml", ".gitignore"]
    for command in (["init", "-q"], ["add", *code], [*IDENTITY, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", folder, *command], check=True)


def plain(folder: Path) -> PlainSurvey:
    survey = PlainSurvey(folder)
    config = plain_config()
    config["input"]["sources"] = "../lists/sources.csv"  # outside the checkout, as lists often are
    survey.write_config(config)
    for tile in (1, 2):
        survey.write_tile(tile)
    survey.write_sources([*sources_of(1), *sources_of(2)])
    lists = folder.parent / "lists"
    lists.mkdir(exist_ok=True)
    (folder / "sources.csv").rename(lists / "sources.csv")
    commit(folder)
    return survey


def record_of(survey: Survey) -> dict:
    (path,) = (survey.results / "runs").glob("*.json")
    found = read_json(path)
    assert found["facts"]["luneta.run_id"] == path.stem
    return found


def reproduce(survey: Survey, run: str, *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "luneta.plan.reproduce", run, "--cores", "2", *options],
        cwd=survey.folder,
        env={**os.environ, "PYTHONPATH": str(survey.folder / "scripts")},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> PlainSurvey:
    survey = plain(tmp_path_factory.mktemp("plain") / "survey")
    survey.run()
    return survey


@pytest.fixture
def survey(finished, tmp_path) -> PlainSurvey:
    """A copy of a finished survey, to spoil."""
    shutil.copytree(finished.folder.parent, tmp_path / "copy", symlinks=True)
    return PlainSurvey(tmp_path / "copy/survey", new=False)


def sha256(path: Path) -> str:
    said = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    return said.stdout.split()[0]


def test_a_run_leaves_a_record(finished):
    found = record_of(finished)
    head = subprocess.run(
        ["git", "-C", finished.folder, "rev-parse", "HEAD"], capture_output=True, text=True
    )
    assert found["facts"]["luneta.git_commit"] == head.stdout.strip()
    assert found["facts"]["luneta.git_dirty"] == "false"
    assert found["facts"]["luneta.survey"] == "tiny"
    assert found["config"]["cutouts"]["size"] == 16
    assert found["environment"]["packages"]["snakemake"] == "9.27.1"
    names = [f"tiles/t{t}_{b}{m}.fits" for t in (1, 2) for b in "gr" for m in ("", "_mask")]
    files = found["inputs"]["files"]
    assert sorted(files) == sorted(["../lists/sources.csv", *names])
    for name, digest in files.items():
        path = finished.folder / name
        assert digest == {"bytes": path.stat().st_size, "sha256": sha256(path)}
    assert found["inputs"]["left_out"] is None
    assert "catalog/rejects.parquet" in found["outputs"]


def test_a_plain_rerun_leaves_the_record_as_it_was(survey):
    (path,) = (survey.results / "runs").glob("*.json")
    before = path.read_bytes()
    survey.run()
    assert path.read_bytes() == before
    path.unlink()
    survey.run()
    assert path.read_bytes() == before


def test_a_run_is_made_again(survey):
    run = record_of(survey)["facts"]["luneta.run_id"]
    status, said = reproduce(survey, run)
    assert status == 0, said
    outputs = len(record_of(survey)["outputs"])
    assert f"{outputs} of {outputs} outputs are the same" in said
    again = survey.results / "reproduced" / run / "within/checkout/results/tiny"
    assert (again / "runs" / f"{run}.json").exists()
    # once more, over what is there, by the path of the record; and one output has another digest
    (path,) = (survey.results / "runs").glob("*.json")
    record = read_json(path)
    record["outputs"]["catalog/rejects.parquet"] = "0" * 64
    write_json(path, record)
    status, said = reproduce(survey, str(path))
    assert status == 1, said
    assert f"{outputs - 1} of {outputs} outputs are the same" in said
    (line,) = [line for line in said.splitlines() if line.startswith("catalog/rejects.parquet")]
    assert line.split()[1] == "0" * 12
    assert line.endswith("differs")


def test_changed_inputs_are_named(survey):
    run = record_of(survey)["facts"]["luneta.run_id"]
    survey.write_image(2, "g", seed=7)
    (survey.folder / "tiles/t1_r.fits").unlink()
    status, said = reproduce(survey, run)
    assert status == 2
    assert "its inputs have changed" in said
    assert "tiles/t2_g.fits: was" in said
    assert "tiles/t1_r.fits: was" in said
    assert "is missing" in said
    assert "tiles/t1_g.fits" not in said
    assert "Traceback" not in said
    assert not (survey.results / "reproduced").exists()


def test_a_run_that_is_not_known(survey):
    status, said = reproduce(survey, "0123456789abcdef")
    assert status == 2
    assert "there is no run '0123456789abcdef'" in said
    assert record_of(survey)["facts"]["luneta.run_id"] in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_run_of_changed_code_is_made_again_with_the_changes(survey):
    shutil.rmtree(survey.results)
    ingest = survey.folder / "scripts/ingest.py"
    ingest.write_text(ingest.read_text() + "# changed\n")
    (survey.folder / "scripts/luneta/survey/novelty.py").write_text("ANSWER = 42")
    survey.run()
    found = record_of(survey)
    assert found["facts"]["luneta.git_dirty"] == "true"
    run = found["facts"]["luneta.run_id"]
    patch = survey.results / "runs" / f"{run}.diff"
    assert found["changes"]["sha256"] == sha256(patch)
    for path in (ingest, survey.folder / "scripts/luneta/survey/novelty.py"):
        path.unlink()  # what there is now is no matter
    subprocess.run(["git", "-C", survey.folder, "checkout", "-q", "scripts"], check=True)
    status, said = reproduce(survey, run)
    assert status == 2
    assert "scripts/ingest.py" in said and "scripts/luneta/survey/novelty.py" in said
    assert "TRUST=1" in said
    status, said = reproduce(survey, run, "--trust")
    assert status == 0, said
    (checkout,) = (survey.results / "reproduced" / run).glob("**/checkout")
    assert (checkout / "scripts/ingest.py").read_text().endswith("# changed\n")
    assert (checkout / "scripts/luneta/survey/novelty.py").read_text() == "ANSWER = 42"

    patch.unlink()
    status, said = reproduce(survey, run)
    assert status == 2
    assert "its code was changed since the commit" in said
    assert patch.name in said


def test_a_run_outside_a_repository_is_refused(survey):
    found = record_of(survey)
    found["facts"]["luneta.git_commit"] = "unknown"
    (path,) = (survey.results / "runs").glob("*.json")
    write_json(path, found)
    status, said = reproduce(survey, str(path))
    assert status == 2
    assert "outside a git repository" in said


def test_a_run_of_a_commit_that_is_not_here_is_refused(survey):
    found = record_of(survey)
    found["facts"]["luneta.git_commit"] = "0" * 40
    (path,) = (survey.results / "runs").glob("*.json")
    write_json(path, found)
    status, said = reproduce(survey, str(path))
    assert status == 2
    assert "git fetch" in said


def test_images_beyond_the_limit_are_left_out_with_the_reason(survey):
    config = yaml.safe_load((survey.folder / "config.yaml").read_text())
    before = record_of(survey)
    survey.write_config({**config, "provenance": {"most_files": 7}})
    assert "Nothing to be done" in survey.run()
    found = record_of(survey)  # of the same name: what is noted of a run is no part of it
    assert found["facts"]["luneta.run_id"] == before["facts"]["luneta.run_id"]
    assert list(found["inputs"]["files"]) == ["../lists/sources.csv"]
    assert found["inputs"]["left_out"] == ("8 images are not digested: provenance.most_files = 7")


@pytest.mark.slow
def test_a_run_with_networks_is_made_again(tmp_path):
    survey = Survey(tmp_path)
    survey.write(tiny_config(), ["tiny_0", "tiny_1"])
    commit(tmp_path)
    survey.run()
    found = record_of(survey)
    assert list(found["inputs"]["files"]) == ["tiles.tsv"]  # all else the simulation makes
    sidecar = read_json(survey.results / "models/lens/fold1.json")
    assert found["outputs"]["models/lens/fold1.json"] == sidecar["model_id"]
    status, said = reproduce(survey, found["facts"]["luneta.run_id"])
    assert status == 0, said
