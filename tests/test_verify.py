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

RUN = "0123456789abcdef"


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
    write_json(path, {"config": {"tasks": {"lens": {}}}, "outputs": made})
    outputs.note(results)
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
    manifest = outputs.Manifest.read(record.parents[1])
    state = path.stat()
    manifest.stamps["figures/objects.png"] = [state.st_size, state.st_mtime_ns, state.st_ctime_ns]
    manifest.write(record.parents[1])
    assert outputs.recover(record.parents[1]) == []
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
    outputs.note(record.parents[1])
    assert json.loads((record.parents[1] / "metrics/lens.json").read_text())["accuracy"] == 0.9
    assert status(str(record)) == 1
    assert "metrics/lens.json: it differs from the record" in capsys.readouterr().out


def test_without_such_a_run_it_says_so(record, capsys):
    assert status("fedcba9876543210") == 2
    assert "there is no run 'fedcba9876543210'" in capsys.readouterr().err
