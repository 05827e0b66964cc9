"""What a run on Slurm needs of the cluster, looked at before the first job is submitted."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable

PROFILE = "the profile (workflow/profiles/slurm, see docs/cluster.md)"
TIME = 60  # seconds that Slurm has to answer


class SlurmError(RuntimeError):
    """Slurm cannot run the jobs; the message names why, and the fix."""


def check(partitions: Iterable[str | int | None], status_command: str | None, poll: int) -> None:
    """Stop a run that Slurm would refuse, or whose end nobody would learn of.

    Parameters
    ----------
    partitions
        `slurm_partition` of each rule that runs, as it stands in the profile.
    status_command
        `sacct` or `squeue`, by which Snakemake asks what has become of its jobs.
    poll
        Seconds between two questions, at least.

    Raises
    ------
    SlurmError
        If Slurm is not there or does not answer, a partition does not exist, or the state of jobs
        cannot be asked for.
    """
    if shutil.which("sbatch") is None:
        raise SlurmError(
            "executor: slurm, but there is no sbatch on this machine: run on a login node of the "
            "cluster, or without this profile (--workflow-profile workflow/profiles/default)"
        )
    _check_partitions({name for value in partitions for name in named(value)})
    _check_status(status_command, poll)


def named(value: str | int | None) -> list[str]:
    """Give the partitions in a resource's text: `gpu`, `'gpu'`, `a,b`; none of an expression."""
    text = "" if value is None else str(value)
    plain = re.fullmatch(r"""(['"]?)([\w.,-]+)\1""", text)
    return plain[2].split(",") if plain else []


def _check_partitions(wanted: set[str]) -> None:
    code, answer = _ask("sinfo", "--noheader", "--all", "--format=%R")
    if code:
        raise SlurmError(f"executor: slurm, but Slurm does not answer: {answer}")
    there = sorted(set(answer.split()))
    for name in sorted(wanted - set(there)):
        raise SlurmError(
            f"slurm_partition: {name}: this cluster has no such partition, but "
            f"{', '.join(there) or 'none at all'}: name one of them in {PROFILE}"
        )


def _check_status(command: str | None, poll: int) -> None:
    """See whether jobs can be asked after; the plugin would wait without end and without a word."""
    code, answer = _ask("sacct", "--allocations", "--noheader", "--starttime=now")
    if code == 0:
        return
    if command == "sacct":
        raise SlurmError(
            f"slurm-status-command: sacct, but this cluster has no accounting database ({answer}): "
            f"set slurm-status-command: squeue in {PROFILE}"
        )
    age = _seconds_remembered()
    if age is not None and age < 3 * poll:
        raise SlurmError(
            f"slurm-status-command: squeue, but Slurm forgets a job {age} s after its end "
            f"(MinJobAge) and is asked every {poll} s: set "
            f"slurm-init-seconds-before-status-checks: {max(1, age // 3)} in {PROFILE}"
        )


def _seconds_remembered() -> int | None:
    code, answer = _ask("scontrol", "show", "config")
    found = re.search(r"^MinJobAge\s*=\s*(\d+)", answer, re.MULTILINE)
    return int(found[1]) if found and not code else None


def _ask(*words: str) -> tuple[int, str]:
    """Run a command of Slurm; its exit status and what it said."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TIME, check=False)
    except FileNotFoundError:
        return 127, f"{words[0]} is not installed"
    except subprocess.TimeoutExpired:
        return 124, f"{words[0]} did not answer within {TIME} s"
    return done.returncode, (done.stdout if done.returncode == 0 else done.stderr).strip()
