"""The generated files say what the models say."""

import re
import runpy
from pathlib import Path

import pytest
import yaml

from luneta.config import Config, Tiles, validate

ROOT = Path(__file__).parent.parent
GENERATED = runpy.run_path(str(ROOT / "scripts" / "document_config.py"))["generated"]()


@pytest.mark.parametrize("path", GENERATED, ids=lambda path: path.name)
def test_in_step(path):
    assert path.read_text(encoding="utf-8") == GENERATED[path], "run `make schema`"


def test_default_yaml_is_the_defaults():
    given = yaml.safe_load((ROOT / "config" / "default.yaml").read_text())
    config = validate(given)
    required = Config(survey=config.survey, input=config.input, tasks=config.tasks)
    assert config == required
    assert set(given) == set(Config.model_fields) - {"simulation", "clustering"}
    assert set(given["input"]) == set(Tiles.model_fields) - {"detection"}


def test_examples_of_the_readme_work():
    text = (ROOT / "config" / "README.md").read_text()
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]
    assert [validate(example).input.kind for example in examples] == ["tiles", "stamps"]
