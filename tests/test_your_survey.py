"""The examples of docs/your_survey.md are configs that work."""

import re
from pathlib import Path

import pytest
import yaml

from luneta.config import validate
from luneta.config.presets import merged

TEXT = (Path(__file__).parents[1] / "docs" / "your_survey.md").read_text(encoding="utf-8")
EXAMPLES = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.S)]
SMALLEST = next(example for example in EXAMPLES if example.get("survey") == "mine")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: " ".join(example))
def test_example_is_valid(example):
    config = validate(example if "survey" in example else merged(SMALLEST, example))
    assert config.input.kind == "tiles"


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (Path(__file__).parents[1] / "docs" / target).exists(), target
