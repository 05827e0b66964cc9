"""A run under way, and a small disk of its own for its results."""

import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tiny_survey import Survey


class Started:
    """A run under way, in a process group of its own."""

    def __init__(self, survey: Survey, *arguments: str):
        self._log = (survey.folder / "started.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--configfile", "config.yaml", "--cores", "2",
             *arguments],
            cwd=survey.folder,
            env={**os.environ, "PYTHONPATH": str(survey.folder / "scripts")},
            stdout=self._log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def jobs(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def wait(self) -> str:
        self.process.wait(timeout=600)
        self._log.seek(0)
        return self._log.read()

    def end(self, number: int, group: bool = False) -> None:
        """Send a signal to Snakemake, or to it and all its jobs."""
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.process.pid, number)


@contextmanager
def disk(results: Path, wanted: bool):
    """A small disk of its own for the results, if wanted."""
    results.mkdir(parents=True)
    if not wanted:
        yield
        return
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "none", results],
        capture_output=True,
        check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", results], check=True)
