"""What a killed run has left is cleared, and what was changed since is found."""

import errno
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
    outputs.note(tmp_path, everything)
    return tmp_path


def everything(name):
    return "mine" not in name and "/." not in name


def recovered(results):
    """Messages when a run begins."""
    found = outputs.Outputs(results)
    found.check_others(everything)
    return found.messages


def missing(results):
    return outputs.Outputs(results).missing()


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
    assert recovered(results) == []
    assert (results / outputs.RECORD).stat().st_mtime_ns == before


def test_outputs_from_the_future_get_the_present_time_and_are_still_checked(results):
    ahead = time.time() + 86_400
    names = ["objects/a.parquet", "figures/objects.png", "metrics/lens.npz"]
    contents = [(results / name).read_bytes() for name in names]
    for name in names:
        os.utime(results / name, (ahead, ahead))
    damage_and_keep_the_time(results / "metrics/lens.npz")
    note, damaged = recovered(results)
    assert note.startswith(f"Note: 3 files in {results} had a time in the future, such as figures/")
    assert "metrics/lens.npz is damaged" in damaged
    times = {(results / name).stat().st_mtime_ns for name in names[:2]}
    assert len(times) == 1 and times.pop() <= time.time_ns()
    assert [(results / name).read_bytes() for name in names[:2]] == contents[:2]
    assert recovered(results) == []


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
    (message,) = recovered(results)
    assert message.startswith(f"{path} is damaged: ")
    assert not path.exists()
    assert missing(results) == [name]
    assert recovered(results) == []
    path.write_bytes(whole)
    assert missing(results) == []


def test_an_output_that_was_touched_is_left_alone(results):
    os.utime(results / "objects/a.parquet", (1, 1))
    assert recovered(results) == []
    assert missing(results) == []


def test_an_output_that_was_removed_by_hand_is_asked_for(results):
    (results / "metrics/lens.npz").unlink()
    assert recovered(results) == []
    assert missing(results) == ["metrics/lens.npz"]


def test_outputs_that_were_never_noted_are_checked(results):
    (results / outputs.RECORD).unlink()
    damage(results / "objects/a.parquet")
    assert len(recovered(results)) == 1


def test_of_very_much_only_the_ends_are_looked_at(results, monkeypatch):
    monkeypatch.setattr(outputs, "READ_WHOLE", 0)
    path = results / "objects/a.parquet"
    damage(path)
    (unread,) = recovered(results)
    assert unread.startswith("1 file of 0.0 GB changed, and only their size and ends")
    os.truncate(path, path.stat().st_size - 1)
    damaged, _ = recovered(results)
    assert damaged.startswith(f"{path} is damaged: ")


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
    recovered(results)
    assert not left.exists()
    assert all(path.exists() for path in others)


def test_a_users_own_file_is_left_alone_whatever_is_done_to_it(results):
    """In a folder of outputs, and with a suffix of theirs."""
    path = results / "metrics/mine.json"
    path.write_text("{} {}")
    assert recovered(results) == []
    outputs.note(results, everything)
    damage(path)
    assert recovered(results) == []
    assert path.exists()
    (results / "metrics/mine.npz.damaged").touch()
    (results / "metrics/mine.npz").touch()
    outputs.remove_set_aside(results, everything)
    assert (results / "metrics/mine.npz.damaged").exists()


def test_what_somebody_has_added_to_a_text_is_kept(results):
    path = results / "models/lens/fold0_history.csv"
    whole = path.read_bytes()
    for number, name in enumerate(["fold0_history.csv.edited", "fold0_history.csv.edited2"]):
        path.write_bytes(whole + b"# a remark %d" % number)
        (message,) = recovered(results)
        assert message == f"{path} was changed after the run had written it. It is kept as {name}"
        assert missing(results) == ["models/lens/fold0_history.csv"]
        path.write_bytes(whole)
        outputs.note(results, everything)
        outputs.remove_set_aside(results, everything)
        assert (path.parent / name).read_bytes() == whole + b"# a remark %d" % number


def test_no_bit_of_an_archive_flips_without_a_message(tmp_path):
    path = tmp_path / "metrics/lens.npz"
    path.parent.mkdir()
    np.savez(path, np.arange(4))
    outputs.note(tmp_path, everything)
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        assert outputs.reason_of(path, outputs.noted_digests(tmp_path)["metrics/lens.npz"])
        outputs.reason_of(path, "")  # by its own checksums: found or not, no other error


def test_a_killed_run_leaves_files_that_it_did_not_touch_under_the_old_digests(results):
    """They bear no checksum of their own, and their size and time say that no job wrote them."""
    (results / outputs.LOCK).write_text("process 1 on here\nanother run\n")
    damage_and_keep_the_time(results / "figures/objects.png")
    damage(results / "models/lens/fold0_history.csv")  # as if the killed run had written it anew
    (message,) = recovered(results)
    assert message.startswith(f"{results}/figures/objects.png is damaged: ")


def test_files_that_are_too_much_to_read_keep_their_digest(results, monkeypatch):
    monkeypatch.setattr(outputs, "READ_WHOLE", 100)
    path = results / "figures/objects.png"
    damage(path)
    (message,) = recovered(results)
    assert "1 file of 0.0 GB changed" in message
    assert outputs.verify(results) == [f"{path}: its content is not what the run wrote"]


def test_a_file_that_cannot_be_read_stays_and_is_named(results, monkeypatch):
    path = results / "figures/objects.png"
    damage(path)

    def stale(*arguments, **options):
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(outputs, "_hash", stale)
    assert recovered(results) == [f"{path} cannot be read: Stale file handle"]
    assert path.exists()


def test_the_list_of_an_earlier_luneta_is_as_none(results):
    write_json(results / outputs.RECORD, {"objects/a.parquet": [1, 2]})
    assert recovered(results) == []
    write_json(results / outputs.RECORD, {"objects/a.parquet": [1, 2]})
    (line,) = outputs.verify(results)
    assert "so that not all files can be checked" in line
