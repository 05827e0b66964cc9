"""docs/data_model.md says what the code does."""

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from catalog_files import BESIDE, arguments
from catalog_files import write_shard as write_tables
from luneta.catalog import write
from luneta.catalog.read import partition_files
from luneta.cutouts.shard import write_shard
from luneta.survey.flags import DESCRIPTIONS, UNUSABLE, Flag

TEXT = (Path(__file__).parents[1] / "docs" / "data_model.md").read_text()
NAMES = set(re.findall(r"`([A-Za-z0-9_{}]+)`", TEXT))


def flag_rows():
    for line in TEXT.split("## Flags")[1].split("\n## ")[0].splitlines():
        if re.match(r"\| \d", line):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_flag_table_is_the_enum():
    assert [row[:4] for row in flag_rows()] == [
        [str(bit), str(2**bit), flag.name, DESCRIPTIONS[flag]] for bit, flag in enumerate(Flag)
    ]
    usable = {row[2] for row in flag_rows() if row[4] == "usable"}
    soft = {
        "CONSTANT",
        "EDGE",
        "HEADER_CONFLICT",
        "MASKED",
        "MISSING_BAND",
        "SATURATED",
        "WCS_OFFSET",
    }
    assert usable == soft
    assert usable == {flag.name for flag in Flag if not flag & UNUSABLE}


@pytest.fixture
def survey(tmp_path):
    shards = [
        write_tables(tmp_path, "tile_0", ["a", "b"], tiles=["tile_0"] * 2),
        write_tables(tmp_path, "tile_1", ["a", "c"], rejected=[1]),
    ]
    given = arguments(tmp_path, shards)
    folder = tmp_path / "results" / "demo" / "catalog"
    given["outputs"] = {name: folder / f"{name}.parquet" for name in BESIDE}
    given["outputs"]["collection"] = folder / "collection.properties"
    given["settings"]["survey"] = "demo"
    write.run(**given)
    return tmp_path, given


def generic(name):
    """A column's name as the document writes it."""
    for task in ("morphology", "lens"):
        name = re.sub(rf"^{task}_(smooth|spiral)_", "{task}_{class}_", name)
        name = re.sub(rf"^{task}_", "{task}_", name)
    return re.sub("^sky_noise_[gr]$", "sky_noise_{band}", name).replace(
        "magnitude_r", "magnitude_{band}"
    )


def test_every_column_is_in_the_document(survey):
    _, given = survey
    outputs = dict(given["outputs"])
    files = partition_files(outputs.pop("collection"))
    files += [*outputs.values(), *given["objects"], *given["quality"]]
    files += given["predictions"]["lens"]
    for path in files:
        missing = {generic(name) for name in pq.read_schema(path).names} - NAMES
        assert not missing, f"docs/data_model.md does not name {missing} of {path}"


def test_the_examples_run(survey, monkeypatch, capsys):
    root, _ = survey
    images = np.arange(2 * 3 * 8 * 8, dtype=np.float32).reshape(2, 3, 8, 8)
    ids, flags = np.array(["a", "b"], object), np.zeros(2, np.int32)
    path = root / "results" / "demo" / "cutouts" / "tile_0.arrow"
    write_shard(path, ids, flags, images, ["g", "r", "i"], "flux")
    monkeypatch.chdir(root)
    examples = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(examples) == 3
    found = {}
    for example in examples:
        exec(example, found)
    shown = capsys.readouterr().out
    assert shown.startswith("2 3 deg")
    assert not found["images"].flags.owndata
    np.testing.assert_array_equal(found["images"][:, :, 4, 4], images[:, :, 4, 4])
