import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from luneta.catalog import provenance

REPOSITORY = Path(__file__).parents[2]
CONFIG = {"survey": "tiny", "seed": 3, "device": "auto", "cutouts": {"size": 32}}


def test_run_id_is_of_the_config_but_not_of_the_machine():
    name = provenance.run_id(CONFIG)
    assert len(name) == 16
    assert set(name) <= set("0123456789abcdef")
    assert provenance.run_id(dict(reversed(CONFIG.items()))) == name
    assert provenance.run_id({**CONFIG, "device": "gpu"}) == name
    assert provenance.run_id({**CONFIG, "seed": 4}) != name
    assert provenance.run_id({**CONFIG, "cutouts": {"size": 34}}) != name


def test_run_id_is_of_the_environment(monkeypatch, tmp_path):
    names = set()
    for lock in ("a" * 64, "b" * 64):
        stamp = {"requirements-cpu.txt": lock, "requirements-test.txt": "c" * 64}
        (tmp_path / "luneta-setup.json").write_text(json.dumps(stamp))
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
        assert provenance.environment_digest() == lock
        names.add(provenance.run_id(CONFIG))
    assert len(names) == 2


def test_an_environment_that_make_did_not_install_is_that_of_the_checkout(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    lock = REPOSITORY / "envs/requirements-cpu.txt"
    said = subprocess.run(["sha256sum", lock], capture_output=True, text=True, check=True).stdout
    assert provenance.environment_digest() == said.split()[0]


@pytest.fixture
def checkout(tmp_path):
    """A repository of its own that holds this code, and a function that asks it."""
    folder = tmp_path / "checkout"
    for part in ("scripts", "workflow", "envs"):
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY / part, folder / part, ignore=ignore)
    for part in ("pyproject.toml", ".gitignore", "README.md"):
        shutil.copy(REPOSITORY / part, folder / part)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", folder, *command], check=True)

    def ask() -> dict:
        code = (
            "import json; from luneta.catalog import provenance as p; "
            f"print(json.dumps({{**p.code(), 'run': p.run_id({CONFIG!r})}}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(folder / "scripts")},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(done.stdout)

    return folder, ask


def test_code_is_told_by_commit_and_content(checkout):
    folder, ask = checkout
    head = subprocess.run(
        ["git", "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    clean = ask()
    assert clean["luneta.git_commit"] == head.stdout.strip()
    assert clean["luneta.git_dirty"] == "false"
    assert ask() == clean

    (folder / "README.md").write_text("Another text.\n")
    (folder / "workflow/profiles/mine").mkdir(parents=True)
    (folder / "workflow/profiles/mine/profile.yaml").write_text("cores: 3\n")
    assert ask() == clean

    new = folder / "scripts/luneta/survey/novelty.py"
    new.write_text("ANSWER = 1\n")
    dirty = ask()
    assert dirty["luneta.git_dirty"] == "true"
    assert dirty["run"] != clean["run"]
    new.write_text("ANSWER = 2\n")
    assert ask()["run"] not in (clean["run"], dirty["run"])
    new.unlink()
    assert ask() == clean

    with (folder / "workflow/rules/infer.smk").open("a") as file:
        file.write("# a remark\n")
    assert ask()["run"] != clean["run"]
