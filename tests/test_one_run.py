"""One run at a time in a results folder; jobs end with their run."""

import errno
import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from luneta import files
from luneta.files import DamagedFile, atomic_path, disk_trouble
from luneta.runs import LOCK, RUN, SNAKEMAKE, Run, RunError

JOB = """
import sys, time
from pathlib import Path
from luneta.files import atomic_path
from luneta.runs import start_job
folder = Path(sys.argv[1])
start_job(folder / "job.log")
with atomic_path(folder / "out") as temporary:
    temporary.write_text("made")
    (folder / "started").touch()
    while not (folder / "go").exists():
        time.sleep(0.05)
"""
RUNNER = """
import json, subprocess, sys, time
from luneta.runs import Run, start_jobs
start_jobs()
run = Run(sys.argv[1])
run.claim()
jobs = [subprocess.Popen(json.loads(sys.argv[2]))] if len(sys.argv) > 2 else []
print(*(job.pid for job in jobs), flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in (RUN, SNAKEMAKE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def runner(folder, *command):
    job = [json.dumps(command)] if command else []
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, folder, *job], stdout=subprocess.PIPE, text=True
    )
    return process, [int(pid) for pid in process.stdout.readline().split()]


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path):
    first, _ = runner(tmp_path)
    second = Run(tmp_path)
    assert not second.is_alone
    with pytest.raises(RunError) as error:
        second.claim()
    assert str(error.value) == (
        f"Another run is at work in {tmp_path} (process {first.pid} on {files.HOST}): wait until "
        "it has ended, or end it; then run the same command again"
    )
    first.kill()
    first.wait()
    third = Run(tmp_path)
    assert third.is_alone
    third.claim()


def test_one_that_only_plans_is_named_and_leaves_the_jobs_of_the_last_run_alone(tmp_path):
    last, _ = runner(tmp_path)
    last.kill()
    last.wait()
    token = (tmp_path / LOCK).read_text().split("\n")[1]
    planning = Run(tmp_path)
    assert f"(process {os.getpid()} on {files.HOST})" in Run(tmp_path).refusal()
    assert (tmp_path / LOCK).read_text().split("\n")[1] == token
    planning.claim()
    assert (tmp_path / LOCK).read_text().split("\n")[1] not in ("", token)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("shell", [False, True])
def test_a_job_ends_with_the_run_that_started_it(tmp_path, shell):
    """Also where a shell lies between the two."""
    command = [sys.executable, "-c", JOB, str(tmp_path)]
    if shell:
        command = ["sh", "-c", '"$@"; true', "sh", *command]
    run, (pid,) = runner(tmp_path, *command)
    wait_for(lambda: (tmp_path / "started").exists())
    job = psutil.Process(pid)
    job = job.children()[0] if shell else job
    run.kill()
    run.wait()
    psutil.wait_procs([job], timeout=30)
    assert not job.is_running() or job.status() == psutil.STATUS_ZOMBIE
    assert not (tmp_path / "out").exists()


def test_a_job_that_starts_when_its_run_is_gone_ends_at_once(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    environment = {**os.environ, SNAKEMAKE: f"{gone.pid}@{files.HOST}"}
    command = [sys.executable, "-c", JOB, tmp_path]
    done = subprocess.run(command, env=environment, check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "started").exists()


def test_a_job_on_another_machine_does_not_look_for_its_run_here(tmp_path):
    (tmp_path / "go").touch()
    environment = {**os.environ, SNAKEMAKE: "999999999@elsewhere"}
    subprocess.run([sys.executable, "-c", JOB, tmp_path], env=environment, check=True, timeout=60)
    assert (tmp_path / "out").read_text() == "made"


def test_a_job_of_an_older_run_puts_nothing_in_place(tmp_path):
    """As one on another machine of a cluster, which outlives the run that submitted it."""
    old = Run(tmp_path)
    old.claim()
    environment = {name: value for name, value in os.environ.items() if name != SNAKEMAKE}
    job = subprocess.Popen(
        [sys.executable, "-c", JOB, tmp_path], env=environment, stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: (tmp_path / "started").exists())
    del environment
    os.close(old._lock)
    new = Run(tmp_path)
    new.claim()
    (tmp_path / "go").touch()
    _, told = job.communicate()
    assert job.returncode != 0
    assert "the run of this job has ended, and another one" in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if "@" in path.name]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "the disk is full: free some space"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "your quota"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "/a/b/c"), "/a/b cannot be written to"),
        (OSError("Unable to write (errno = 28, 'No space left on device')"), "the disk is full"),
    ],
)
def test_trouble_with_the_disk_is_told_in_one_message(error, words):
    assert words in disk_trouble(error)
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = error
    assert words in disk_trouble(wrapped)


def test_other_errors_are_no_trouble_with_the_disk():
    assert disk_trouble(ValueError("no space for opinions")) is None
    assert disk_trouble(DamagedFile("x")) is None
    assert disk_trouble(FileNotFoundError(errno.ENOENT, "nothing there")) is None


def test_the_name_of_a_temporary_file_tells_who_writes(tmp_path):
    with atomic_path(tmp_path / "a.parquet") as temporary:
        process, host, _, name = temporary.name.split("@")
        assert (process, host, name) == (f".{os.getpid()}", files.HOST, "a.parquet")
        assert temporary.suffix == ".parquet"
