"""Every write, fsync and rename of a job fails once, and one rerun ends with the same bytes.

SQLite is tested in this way. `faults.c` lets the n-th call fail, `fault_jobs.py` does the jobs.
"""

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from luneta import files
from luneta.files import atomic_path, sync_folder, write_json

HERE = Path(__file__).parent
WAYS = ["EIO", "ENOSPC from then on", "killed before", "killed after"]
# Calls of a job that make for a file: write, fsync and rename of it, fsync of the folder
JSON_CALLS = 2 * 4


@pytest.fixture(scope="session")
def faults(tmp_path_factory):
    """The library that lets calls fail."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        pytest.skip("it takes Linux and a C compiler (cc, gcc or clang) to let system calls fail")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", library, HERE / "faults.c", "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def trials(faults, folder, job, way, every=1):
    """Number of calls of a job, and what became of each trial."""
    command = [sys.executable, HERE / "fault_jobs.py", folder, job, way, str(every)]
    environment = {**os.environ, "LD_PRELOAD": str(faults), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return lines[0]["calls"], lines[1:]


def check(trial):
    """Nothing half made has its final name, and one rerun makes all as it should be."""
    assert trial["half"] == [], trial
    assert not trial["wrong"], trial
    assert trial["again"] == {"left": []}, trial
    assert trial["other"] == [], trial
    ended = trial["ended"]
    if "killed" in trial["way"]:
        assert ended == {"signal": signal.SIGKILL} or "calls" in ended, trial
    elif "raised" in ended:  # in one message
        cause = "disk is full" if "ENOSPC" in trial["way"] else "has failed"
        assert cause in (ended["told"] or ""), trial


def test_a_job_whose_nth_call_fails_is_finished_by_one_rerun(faults, tmp_path):
    calls, found = trials(faults, tmp_path, "json", "all")
    assert calls == JSON_CALLS and len(found) == calls * len(WAYS)
    for trial in found:
        check(trial)
        assert "calls" not in trial["ended"]


@pytest.mark.parametrize(
    ("job", "every"),
    [("parquet", 11), ("shard", 8), ("index", 9), ("figure", 2), ("catalog", 449)],
)
def test_jobs_of_every_kind_are_finished_by_one_rerun(faults, tmp_path, job, every):
    calls, found = trials(faults, tmp_path, job, "in turn", every)
    assert calls >= 7 and len(found) >= 4
    for trial in found:
        check(trial)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("job", "every"),
    [("parquet", 1), ("shard", 1), ("index", 1), ("figure", 1), ("candidates", 3), ("network", 1),
     ("catalog", 29)],
)  # fmt: skip
def test_every_call_of_jobs_of_every_kind_may_fail(faults, tmp_path, job, every, way):
    _, found = trials(faults, tmp_path, job, way, every)
    for trial in found:
        check(trial)


def test_file_and_folder_are_on_the_disk_before_and_after_the_rename(tmp_path, monkeypatch):
    order = []
    sync, replace = os.fsync, Path.replace

    def note_sync(descriptor):
        order.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def note_rename(path, new):
        order.append("rename")
        return replace(path, new)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    write_json(tmp_path / "new/inner/a.json", {})
    assert order == ["folder", "folder", "file", "rename", "folder"]


def test_a_file_system_that_cannot_sync_a_folder_is_put_up_with(tmp_path, monkeypatch):
    sync = os.fsync

    def refuse(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    write_json(tmp_path / "a.json", {})
    sync_folder(tmp_path)
    assert files.read_json(tmp_path / "a.json") == {}


def test_a_file_that_did_not_reach_the_disk_is_not_put_in_place(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"old": 1})

    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"), atomic_path(tmp_path / "a.json") as path:
        path.write_text("new")
    assert files.read_json(tmp_path / "a.json") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
