"""A config file that is missing, not YAML or ambiguous is answered in one line, with the fix."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from luneta.config import ConfigError, read_file
from luneta.config.yaml_files import named_files

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("survey: a\ninput:\n\tkind: tiles\n", ("line 3", "indent by blanks, not by a tab")),
        (
            "input:\n  images: {tile}_{band}.fits\n  bands: [g]\n",
            ("line 2", 'put text that begins so in quotes: "{tile}_{band}.fits"'),
        ),
        ("input:\n  images: *.fits\n", ("line 2", 'in quotes: "*.fits"')),
        ("input:\n  sources: @list.csv\n", ("line 2", 'in quotes: "@list.csv"')),
        (
            "input: {bands: [g, r\ncutouts: {size: 3}\n",
            ("line 2", "the bracket opened in line 1 is not closed"),
        ),
        ('survey: "a\ninput: b\n', ("the quote opened in line 1 is not closed",)),
        ("survey: a\ntitle: Coma: deep\n", ("line 2", "put text with a colon in quotes")),
        ("input:\n  kind:tiles\n  bands: [g]\n", ("write a blank after the colon in line 2",)),
        ("survey: a\ninput\n  kind: tiles\n", ("line 2 must be `key: value`",)),
        ("input:\n  kind: tiles\n bands: [g]\n", ("line 3", "indent the line like those beside")),
        ("survey: a\n---\nsurvey: b\n", ("line 2", "remove the line `---`")),
        ("survey: a\x00\n", ("remove that character",)),
        ("", ("the file is empty", "config/demo.yaml")),
        ("[1, 2]\n", ("config = [1, 2]: must hold keys",)),
    ],
)
def test_what_is_not_yaml_is_told_in_one_line_with_the_fix(tmp_path, text, words):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_file(path)
    first, line = str(refused.value).splitlines()
    assert first == "The config cannot work:"
    assert line.startswith(f"  {path}")
    for word in words:
        assert word in line


def test_text_that_is_not_utf_8(tmp_path):
    (tmp_path / "c.yaml").write_bytes("title: Galáxias".encode("latin-1"))
    with pytest.raises(ConfigError, match="byte 10 is not UTF-8; save the file as UTF-8"):
        read_file(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("survey: a\nseed: 1\nsurvey: b\n", "line 3: the key 'survey' stands in line 1 already"),
        ("input:\n  keep: {z: Z, z: z_spec}\n", "line 2: the key 'z' stands in line 2 already"),
        ("tasks:\n  a: {b: 1}\n  'a': {b: 2}\n", "line 3: the key 'a' stands in line 2 already"),
        ("a:\n - b: 1\n   b: 2\n", "line 3: the key 'b' stands in line 2 already"),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path, text, words):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_file(tmp_path / "c.yaml")


def test_anchors_and_merged_keys_are_no_repetition(tmp_path):
    text = "a: &one {folds: 3, seed: 1}\nb: {<<: *one, folds: 4}\nc: *one\nd: [*one, *one]\n"
    (tmp_path / "c.yaml").write_text(text)
    assert read_file(tmp_path / "c.yaml")["b"] == {"folds": 4, "seed": 1}


def test_json_is_a_config_too(tmp_path):
    (tmp_path / "c.json").write_text('{\n\t"survey": "a"\n}')
    assert read_file(tmp_path / "c.json") == {"survey": "a"}
    (tmp_path / "c.json").write_text('{"survey": "a", "survey": "b"}')
    with pytest.raises(ConfigError, match="the key 'survey' stands there twice"):
        read_file(tmp_path / "c.json")
    (tmp_path / "c.json").write_text('{"survey": "a",\n}')
    with pytest.raises(ConfigError, match="line 2: is not JSON"):
        read_file(tmp_path / "c.json")


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        (["--configfile", "a.yaml", "--cores", "1"], ["a.yaml"]),
        (["-n", "--configfiles", "a.yaml", "b.yaml", "-F"], ["a.yaml", "b.yaml"]),
        (["--configfile=a.yaml", "all"], ["a.yaml"]),
        (["--configfile", "a.yaml", "--configfile", "b.yaml"], ["b.yaml"]),  # as argparse
        (["--config", "survey=a", "all"], []),
    ],
)
def test_files_that_a_command_line_names(arguments, files):
    assert named_files(arguments) == files


def snakemake(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"),
         "--cores", "1", "--dry-run", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
    )  # fmt: skip
    lines = (done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in lines if line and not line.startswith("Using ")]


@pytest.mark.parametrize("profile", ["default", "gpu", "slurm"])
def test_snakemake_answers_a_config_that_is_not_there_in_one_line(tmp_path, profile):
    where = str(ROOT / "workflow/profiles" / profile)
    code, lines = snakemake(tmp_path, "--workflow-profile", where, "--configfile", "nowhere.yaml")
    said = "nowhere.yaml: cannot be read (No such file or directory); check the path"
    assert (code, lines) == (1, [f"The config cannot work: {said}"])


def test_snakemake_answers_broken_yaml_in_one_line(tmp_path):
    (tmp_path / "c.yaml").write_text("survey: a\n\tseed: 1\n")
    code, (line,) = snakemake(tmp_path, "--configfile", "c.yaml")
    assert code == 1
    assert "c.yaml, line 2: is not YAML" in line and "not by a tab" in line


def test_without_our_profile_a_key_that_stands_twice_is_refused_still(tmp_path):
    (tmp_path / "c.yaml").write_text("survey: a\nsurvey: b\n")
    code, lines = snakemake(tmp_path, "--workflow-profile", "none", "--configfile", "c.yaml")
    assert code == 1
    assert any("line 2: the key 'survey' stands in line 1 already" in line for line in lines)
