"""`make verify`: all files of a run are read again."""

import json

import numpy as np
import pyarrow as pa
import pytest

from luneta import outputs
from luneta.files import write_json
from luneta.parquet import write_parquet
from luneta.plan import verify
from luneta.plan.runs import Digests
from luneta.plan.runs import outputs as digests_of_outputs
from tiny_survey import plain_config

RUN = "0123456789abcdef"
LENS = {"kind": "binary", "classes": ["nolens", "lens"], "labels": ["labels.csv"]}


@pytest.fixture
def record(tmp_path, monkeypatch):
    """The record of a finished run of few files."""
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "results/tiny"
    write_json(results / "metrics/lens.json", {"accuracy": 0.5})
    write_parquet(pa.table({"x": np.arange(9)}), results / "catalog/rejects.parquet")
    (results / "figures").mkdir()
    (results / "figures/objects.png").write_bytes(b"drawn" * 40)
    path = results / f"runs/{RUN}.json"
    made = digests_of_outputs(results, ["lens"], Digests(tmp_path / "none"))
    assert set(made) == {"metrics/lens.json", "catalog/rejects.parquet"}
    config = plain_config() | {"tasks": {"lens": LENS}}
    facts = {"survey": "tiny", "run_id": RUN, "git_commit": "unknown", "git_dirty": "unknown",
             "environment_sha256": "0" * 64}  # fmt: skip
    content = {
        "facts": {f"luneta.{key}": value for key, value in facts.items()},
        "config": config, "environment": {"lock": None}, "changes": None,
        "inputs": {"files": {}, "left_out": None}, "outputs": made,
    }  # fmt: skip
    write_json(path, content)
    outputs.note(results, lambda name: True)
    return path


def status(*arguments):
    with pytest.raises(SystemExit) as ended:
        verify.main(list(arguments))
    return ended.value.code


def test_a_sound_run_ends_with_0(record, capsys):
    assert status(RUN) == 0
    assert capsys.readouterr().out == "results/tiny: all files are as the run wrote them\n"


def test_bits_that_flipped_without_any_trace_are_found(record, capsys):
    """By content alone: size and times are noted as they are, as if the disk had done it."""
    path = record.parents[1] / "figures/objects.png"
    path.write_bytes(b"drawm" + b"drawn" * 39)
    manifest = outputs.Manifest.parse((record.parents[1] / outputs.RECORD).read_bytes())
    state = path.stat()
    manifest.states["figures/objects.png"] = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    manifest.write(record.parents[1])
    assert outputs.Outputs(record.parents[1]).messages == []
    assert status(RUN) == 1
    assert capsys.readouterr().out == (
        "results/tiny/figures/objects.png: its content is not what the run wrote\n"
        "results/tiny: 1 file missing or differing\n"
    )


@pytest.mark.parametrize("name", ["metrics/lens.json", "catalog/rejects.parquet"])
def test_a_lost_output_is_named(record, capsys, name):
    (record.parents[1] / name).unlink()
    assert status(str(record)) == 1
    assert f"{name}: it is missing" in capsys.readouterr().out


def test_a_sound_file_of_another_run_is_told_from_the_recorded_one(record, capsys):
    write_json(record.parents[1] / "metrics/lens.json", {"accuracy": 0.9})
    outputs.note(record.parents[1], lambda name: True)
    assert json.loads((record.parents[1] / "metrics/lens.json").read_text())["accuracy"] == 0.9
    assert status(str(record)) == 1
    assert "metrics/lens.json: it differs from the record" in capsys.readouterr().out


def test_without_such_a_run_it_says_so(record, capsys):
    assert status("fedcba9876543210") == 2
    assert "there is no run 'fedcba9876543210'" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["remove", "flip"])
def test_without_its_manifest_not_all_can_be_checked(record, capsys, damage):
    path = record.parents[1] / outputs.RECORD
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw) if damage == "flip" else path.unlink()
    assert status(RUN) == 1
    assert "missing or damaged, so that not all files can be checked" in capsys.readouterr().out
    assert path.exists() == (damage == "flip")


@pytest.mark.parametrize("content", [b"{", b"{}", b"[]", b""])
def test_a_file_that_is_no_record_is_named_and_left(record, capsys, content):
    record.write_bytes(content)
    assert status(str(record)) == 2
    assert "is not the record of a run" in capsys.readouterr().err
    assert record.read_bytes() == content


def test_a_record_elsewhere_is_refused(record, capsys, tmp_path):
    other = tmp_path / "x.json"
    other.write_bytes(record.read_bytes())
    assert status(str(other)) == 2
    assert "does not lie in results/tiny/runs/" in capsys.readouterr().err
