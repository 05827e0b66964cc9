"""A shard is read from a disk of the node, and nothing of it stays there."""

import errno
import os
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from luneta import staging
from luneta.cutouts.shard import write_shard
from luneta.staging import stage

JOB = """
import sys
from luneta.staging import stage
print(stage(sys.argv[1], sys.argv[2]), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "shared/shard_1.arrow"
    ids, images = np.array(["a", "b"], object), np.ones((2, 3, 32, 32), np.float32)
    write_shard(path, ids, np.zeros(2, np.int32), images, ["g", "r", "i"], "flux")
    return path


@pytest.fixture
def scratch(tmp_path):
    return tmp_path / "scratch"


def job(shard, scratch):
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, str(shard), str(scratch)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return process, process.stdout.readline().strip()


def left(scratch):
    return sorted(path.name for path in (scratch / "luneta-staged").iterdir())


def test_a_copy_of_the_same_name_is_read_and_removed_at_the_end(shard, scratch):
    process, copy = job(shard, scratch)
    assert copy.startswith(str(scratch)) and copy.endswith("/shard_1.arrow")
    assert Path(copy).read_bytes() == shard.read_bytes()
    process.communicate("\n", timeout=60)
    assert left(scratch) == ["turn"]
    assert shard.exists()


def test_what_a_killed_job_leaves_is_removed_by_the_next_and_a_running_one_keeps_its_own(
    shard, scratch
):
    killed, lost = job(shard, scratch)
    running, kept = job(shard, scratch)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert Path(lost).exists()
    third, own = job(shard, scratch)
    assert not Path(lost).exists()
    assert Path(kept).exists() and Path(own).exists()
    for process in (running, third):
        process.communicate("\n", timeout=60)


@pytest.mark.parametrize("scratch", [None, ""])
def test_without_scratch_the_file_is_read_where_it_is(shard, scratch):
    assert stage(shard, scratch) == shard


def test_where_there_is_no_room_the_file_is_read_where_it_is(shard, scratch, monkeypatch, caplog):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(staging.shutil, "disk_usage", lambda folder: usage(20_000))
    assert stage(shard, scratch) == shard
    assert "is read where it is" in caplog.text and "0.0 GB are free" in caplog.text
    assert left(scratch) == ["turn"]


def test_a_copy_for_which_the_room_did_not_last_is_removed(shard, scratch, monkeypatch, caplog):
    def half(path, copy):
        Path(copy).write_bytes(Path(path).read_bytes()[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(staging.shutil, "copy2", half)
    assert stage(shard, scratch) == shard
    assert "No space left on device" in caplog.text
    assert left(scratch) == ["turn"]


def test_a_damaged_copy_is_not_read_and_the_file_stays(shard, scratch, monkeypatch, caplog):
    def flip(path, copy):
        raw = bytearray(Path(path).read_bytes())
        raw[len(raw) // 2] ^= 1
        Path(copy).write_bytes(raw)
        return copy

    before = shard.read_bytes()
    monkeypatch.setattr(staging.shutil, "copy2", flip)
    assert stage(shard, scratch) == shard
    assert "is read where it is" in caplog.text and "the checksum of its bytes" in caplog.text
    assert left(scratch) == ["turn"]
    assert shard.read_bytes() == before


def test_a_scratch_that_cannot_be_made_is_named(shard, caplog):
    assert stage(shard, shard / "scratch") == shard
    assert f"scratch {shard / 'scratch'}" in caplog.text
