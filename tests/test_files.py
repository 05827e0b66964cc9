"""What a job's log says of the error that ended it."""

import errno
import os
import subprocess
import sys

import pytest

from luneta.files import disk_trouble

END = """
import errno, os, sys
from luneta.files import DamagedFile, log_to
from luneta.gpus import DeviceError
from luneta.inference.predictions import PredictionsError

log_to(sys.argv[1])
raise {error}
"""


def log_of(tmp_path, error):
    command = [sys.executable, "-c", END.format(error=error), tmp_path / "logs/job.log"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert (tmp_path / "logs/job.log").read_text() == done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("DeviceError('no GPU is free')", "no GPU is free"),
        ("PredictionsError('they are of another run')", "they are of another run"),
        ("DamagedFile('it is cut short')", "it is cut short"),
        ("FloatingPointError('the loss of batch 3 is nan')", "the loss of batch 3 is nan"),
        ("OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))", "the disk is full"),
        ("MemoryError()", "The job has run out of memory (no more is given): run it with fewer"),
        ("ValueError() from MemoryError('of 9 GiB')", "run out of memory (of 9 GiB): run it"),
    ],
)
def test_an_error_for_users_is_one_message(tmp_path, error, said):
    told = log_of(tmp_path, error)
    assert said in told and "CRITICAL" in told
    assert "Traceback" not in told


def test_an_unforeseen_error_says_where_it_happened(tmp_path):
    told = log_of(tmp_path, "KeyError('flux')")
    assert "Traceback" in told and 'File "<string>", line 8' in told and "KeyError: 'flux'" in told


def test_a_disk_with_room_but_without_inodes_is_told_as_that(tmp_path, monkeypatch):
    class Status:
        f_files = 1000
        f_favail = 2
        f_bavail = 10_000
        f_frsize = 4096

    monkeypatch.setattr(os, "statvfs", lambda path: Status)
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "new/a.parquet"))
    assert "its inodes are used up: remove some files, then run" in disk_trouble(error)
    Status.f_bavail = 10
    assert "the disk is full: free some space" in disk_trouble(error)
    Status.f_bavail = 10_000
    Status.f_files = Status.f_favail = 0  # a file system that makes inodes as it needs them
    assert "the disk is full: free some space" in disk_trouble(error)
