"""What is said where there is no cluster, or no such executor."""

import pytest
import yaml

from luneta import slurm
from tiny_survey import LABELLED, Survey, tiny_config


def test_an_unknown_executor_is_named_with_those_that_are_there(tmp_path):
    survey = Survey(tmp_path / "survey")
    survey.write(tiny_config(), LABELLED)
    (survey.folder / "profile").mkdir()
    profile = survey.folder / "profile/profile.yaml"
    profile.write_text(yaml.safe_dump({"executor": "lsf", "jobs": 10}))
    done = survey.snakemake("--workflow-profile", "profile")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert "argument --executor/-e: invalid choice: 'lsf' (choose from 'slurm'" in last
    assert "Traceback" not in done.stderr


def test_without_slurm_the_message_says_where_to_run(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(slurm.SlurmError, match="no sbatch on this machine: run on a login node"):
        slurm.check([], "squeue", 40)


def test_a_slurm_that_does_not_answer_is_quoted(monkeypatch, tmp_path):
    for name, says in {"sbatch": "exit 0", "sinfo": "echo no controller >&2; exit 1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{says}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(slurm.SlurmError, match="Slurm does not answer: no controller"):
        slurm.check([], "squeue", 40)


@pytest.mark.parametrize(
    ("text", "partitions"),
    [("gpu", ["gpu"]), ("'gpu'", ["gpu"]), ('"a,b"', ["a", "b"]), (7, ["7"]), (None, []),
     ("'big' if attempt > 1 else 'small'", []), ("lookup(within=config)", [])],
)  # fmt: skip
def test_partitions_are_read_from_the_profiles_text(text, partitions):
    assert slurm.named(text) == partitions
