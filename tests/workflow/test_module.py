"""luneta as a module of another workflow, as the workflow catalog promises."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from luneta.files import read_json
from tiny_survey import PlainSurvey, plain_config, sources_of

MODULES = """
configfile: "outer.yaml"

module first:
    snakefile: "workflow/Snakefile"
    config: config["first"]
    {more}

use rule * from first as first_*

module second:
    snakefile: "workflow/Snakefile"
    config: config["second"]

use rule * from second as second_*

use rule cutouts from second as second_cutouts with:
    threads: 1

rule outer_all:
    default_target: True
    input: rules.first_all.input, rules.second_all.input
"""
HANDLERS = """
onstart:
    first.onstart()
    second.onstart()

onsuccess:
    first.onsuccess()
    second.onsuccess()

onerror:
    first.onerror()
    second.onerror()
"""


class Outer(PlainSurvey):
    """A workflow that runs two surveys of other sizes of cutouts by two modules."""

    def write_outer(self, handlers: str, more: str = "") -> None:
        (self.folder / "Snakefile").write_text(MODULES.format(more=more) + handlers)
        configs = {}
        for name, size in (("first", 16), ("second", 24)):
            configs[name] = plain_config() | {"survey": name, "cutouts": {"size": size}}
        (self.folder / "outer.yaml").write_text(yaml.safe_dump(configs))

    def snakemake(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "2", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / "scripts"), **environment},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def outer(tmp_path) -> Outer:
    survey = Outer(tmp_path)
    survey.write_tile(0)
    survey.write_sources(sources_of(0))
    return survey


def text_of(done) -> str:
    return done.stdout + done.stderr


@pytest.mark.slow
def test_two_surveys_of_one_workflow_are_claimed_recorded_and_told(outer):
    outer.write_outer(HANDLERS)
    done = outer.snakemake()
    assert done.returncode == 0, text_of(done)[-4000:]
    for name, size in (("first", 16), ("second", 24)):
        results = outer.folder / "results" / name
        (record,) = (results / "runs").glob("*.json")
        assert read_json(record)["config"]["cutouts"]["size"] == size
        assert read_json(results / "index/last_run.json")["config"]["survey"] == name
        assert (results / "catalog" / name / "hats.properties").exists()
        assert len((results / ".lock").read_text().splitlines()[1]) == 32
    assert done.stdout.count("5 objects: 5 usable") == 2
    assert {path.name for path in (outer.folder / "results").iterdir()} == {"first", "second"}
    again = outer.snakemake()
    assert "Nothing to be done" in text_of(again)
    config = yaml.safe_load((outer.folder / "outer.yaml").read_text())
    config["second"]["cutouts"]["size"] = 32
    (outer.folder / "outer.yaml").write_text(yaml.safe_dump(config))
    dry = text_of(outer.snakemake("--dry-run"))
    assert "Since the last run: config: cutouts.size = 32, was 24" in dry
    assert "second_cutouts" in dry
    assert "first_cutouts" not in dry


def test_a_snakefile_that_does_not_claim_the_results_is_told_the_lines_it_needs(outer):
    outer.write_outer("")
    done = outer.snakemake()
    assert done.returncode == 1
    text = text_of(done)
    assert HANDLERS.strip() in text
    assert "Traceback" not in text
    assert not list(outer.folder.glob("results/*/objects/*"))


@pytest.mark.parametrize(
    "more", ['prefix: "there"', 'replace_prefix: {"results": "there"}',
             'pathvars:\n        results="there"'],
)  # fmt: skip
def test_a_module_cannot_move_the_results(outer, more):
    outer.write_outer(HANDLERS, more)
    done = outer.snakemake("--dry-run")
    assert done.returncode == 1
    assert "module first: prefix, replace_prefix and pathvars cannot move" in text_of(done)
    assert "Traceback" not in text_of(done)


def test_where_luneta_is_not_installed_the_fix_is_named(outer, tmp_path):
    """An environment with Snakemake and without luneta, which stands for another one."""
    outer.write_config(plain_config())
    hide = tmp_path / "hide"
    hide.mkdir()
    (hide / "sitecustomize.py").write_text(
        "import sys\nsys.path[:] = [path for path in sys.path if not path.endswith('scripts')]\n"
    )
    arguments = ["--dry-run", "--configfile", "config.yaml"]
    for profile in ([], ["--workflow-profile", "none"]):
        text = text_of(outer.snakemake(*arguments, *profile, PYTHONPATH=str(hide)))
        assert "luneta is not installed" in text or "No module named 'luneta'" in text
        assert "`make`" in text
        assert ".venv/bin/snakemake" in text
        assert "Traceback" not in text


def test_the_package_of_another_checkout_is_refused(outer, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(outer.folder / "scripts" / "luneta", other / "luneta")
    outer.write_config(plain_config())
    arguments = ["--dry-run", "--configfile", "config.yaml"]
    text = text_of(outer.snakemake(*arguments, PYTHONPATH=str(other)))
    assert f"luneta is imported from {other / 'luneta'}, but this workflow belongs to" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("name", ["h5py", "statistics", "sep"])
def test_a_module_that_stands_before_one_that_luneta_needs_is_named(outer, tmp_path, name):
    folder = tmp_path / "odd"
    folder.mkdir()
    (folder / f"{name}.py").write_text("x = 1\n")
    outer.write_config(plain_config())
    arguments = ["--dry-run", "--configfile", "config.yaml"]
    path = f"{outer.folder / 'scripts'}{os.pathsep}{folder}"
    text = text_of(outer.snakemake(*arguments, PYTHONPATH=path))
    assert f"PYTHONPATH has {folder}, whose module {name} stands before" in text
    assert "Traceback" not in text
