"""What a killed run has left is cleared, and what was changed since is found."""

import os
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pytest

from luneta import outputs
from luneta.files import HOST, write_json
from luneta.parquet import write_parquet


@pytest.fixture
def results(tmp_path):
    write_parquet(pa.table({"x": np.arange(5000)}), tmp_path / "objects/a.parquet")
    write_json(tmp_path / "quality/a_files.json", [])
    (tmp_path / "metrics").mkdir()
    np.savez(tmp_path / "metrics/lens.npz", np.arange(500))
    (tmp_path / "models/lens").mkdir(parents=True)
    (tmp_path / "models/lens/fold0_history.csv").write_text("epoch,loss\n0,0.5\n1,0.25\n")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures/objects.png").write_bytes(b"drawn" * 40)
    outputs.note(tmp_path)
    return tmp_path


def damage(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def damage_and_keep_the_time(path):
    times = path.stat()
    damage(path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def test_nothing_changed_nothing_said(results):
    before = (results / outputs.RECORD).stat().st_mtime_ns
    assert outputs.recover(results) == []
    assert (results / outputs.RECORD).stat().st_mtime_ns == before


def test_outputs_from_the_future_get_the_present_time_and_are_still_checked(results):
    ahead = time.time() + 86_400
    names = ["objects/a.parquet", "figures/objects.png", "metrics/lens.npz"]
    contents = [(results / name).read_bytes() for name in names]
    for name in names:
        os.utime(results / name, (ahead, ahead))
    damage_and_keep_the_time(results / "metrics/lens.npz")
    note, damaged = outputs.recover(results)
    assert note.startswith(f"Note: 3 files in {results} had a time in the future, such as objects/")
    assert "metrics/lens.npz is damaged" in damaged
    times = {(results / name).stat().st_mtime_ns for name in names[:2]}
    assert len(times) == 1 and times.pop() <= time.time_ns()
    assert [(results / name).read_bytes() for name in names[:2]] == contents[:2]
    assert outputs.recover(results) == []


@pytest.mark.parametrize(
    "name",
    [
        "objects/a.parquet", "quality/a_files.json", "metrics/lens.npz",
        "models/lens/fold0_history.csv", "figures/objects.png",
    ],
)  # fmt: skip
@pytest.mark.parametrize("change", [damage, damage_and_keep_the_time, halve, empty])
def test_a_changed_output_is_found_and_asked_for_until_it_is_made(results, name, change):
    path = results / name
    whole = path.read_bytes()
    change(path)
    (message,) = outputs.recover(results)
    assert message.startswith(f"{path} is damaged: ")
    assert not path.exists()
    assert outputs.missing(results) == [str(path)]
    assert outputs.recover(results) == []
    path.write_bytes(whole)
    assert outputs.missing(results) == []


def test_an_output_that_was_touched_is_left_alone(results):
    os.utime(results / "objects/a.parquet", (1, 1))
    assert outputs.recover(results) == []
    assert outputs.missing(results) == []


def test_an_output_that_was_removed_by_hand_is_asked_for(results):
    (results / "metrics/lens.npz").unlink()
    assert outputs.recover(results) == []
    assert outputs.missing(results) == [str(results / "metrics/lens.npz")]


def test_outputs_that_were_never_noted_are_checked(results):
    (results / outputs.RECORD).unlink()
    damage(results / "objects/a.parquet")
    assert len(outputs.recover(results)) == 1


def test_of_very_much_only_the_ends_are_looked_at(results, monkeypatch):
    monkeypatch.setattr(outputs, "READ_WHOLE", 0)
    path = results / "objects/a.parquet"
    damage(path)
    assert outputs.recover(results) == []
    os.truncate(path, path.stat().st_size - 1)
    assert len(outputs.recover(results)) == 1


def test_only_what_dead_processes_of_this_machine_left_is_removed(results):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = results / "models/lens/.fold0_state"
    folder.mkdir()
    left = folder / f".{dead.pid}@{HOST}@state.npz"
    others = [
        folder / f".{os.getpid()}@{HOST}@state.npz", folder / f".{dead.pid}@elsewhere@state.npz",
        folder / "state.npz",
    ]  # fmt: skip
    for path in [left, *others]:
        path.touch()
    outputs.recover(results)
    assert not left.exists()
    assert all(path.exists() for path in others)
