"""One run at a time in a results folder; jobs that end with their run.

The process that plans and starts jobs, `Run`, locks the folder: a lock that the kernel frees when
the process ends, however it ends. It names itself in the file, and once it starts jobs, its run.
A job, `start_job`, ends with the Snakemake that started it, and does not put a file in place any
more once another run has taken over.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import select
import signal
import sys
import threading
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from luneta.files import (
    HOST,
    OUT_OF_MEMORY,
    disk_trouble,
    is_plain,
    log_to,
    open_new,
    refuse_when,
)
from luneta.surroundings import check_claimed

LOCK = ".lock"
UNCLAIMED = "index/unclaimed"  # jobs ran whose run did not claim the results
RUN = "LUNETA_RUN"  # lock file and token of the run that a job belongs to
SNAKEMAKE = "LUNETA_SNAKEMAKE"  # process that starts jobs, and its machine
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
PR_SET_PDEATHSIG = 1
# As Snakemake tells it: of the job itself, or of a shell or container around it
KILLED = r"died with <Signals\.SIGKILL|returned non-zero exit status 137\b"
NOT_WRITTEN = (
    rf"\[Errno (?P<number>{errno.ENOSPC}|{errno.EDQUOT})\] [^:\n]*(: '(?P<path>[^'\n]+)')?"
)
SHOWN = 1000  # bytes, more than a lock of ours holds


class RunError(Exception):
    """Another run is at work in the results folder; the message says which."""


class Run:
    """The run that plans in a results folder.

    Parameters
    ----------
    results : path
        `results/<survey>`.

    Attributes
    ----------
    is_alone : bool
        No other run is at work in the folder.

    Raises
    ------
    RunError
        If the lock is a link, a pipe or a folder: others may write to the results too.
    """

    def __init__(self, results: Path | str):
        self._path = Path(results).resolve() / LOCK
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Not inherited by jobs: they must not hold it when this process is gone
        self._lock = _open_lock(self._path, os.O_RDWR | os.O_CREAT)
        self.is_alone = self._take()
        if self.is_alone:
            with suppress(OSError):  # of a full disk, the run itself will tell
                self._name(self._read().partition("\n")[2].strip())

    def _take(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            print(
                f"{self._path.parent}: this file system knows no locks; see to it that one run at "
                "a time works there",
                file=sys.stderr,
            )
        return True

    def claim(self) -> None:
        """Say in the lock whose the folder is, before the first job.

        Raises
        ------
        RunError
            If another run is at work there.
        """
        if not self.is_alone:
            raise RunError(self.refusal())
        token = uuid.uuid4().hex
        self._name(token)
        os.environ[RUN] = f"{token} {self._path}"

    def _name(self, token: str) -> None:
        """Write into the lock who holds it, and the run whose jobs may put files in place."""
        text = f"process {os.getpid()} on {HOST}\n{token}\n".encode()
        os.pwrite(self._lock, text, 0)
        os.ftruncate(self._lock, len(text))

    def _read(self) -> str:
        return os.pread(self._lock, SHOWN, 0).decode(errors="replace")

    def refusal(self) -> str:
        """Say that another run is at work, and which."""
        holder = self._read().partition("\n")[0]
        return (
            f"Another run is at work in {self._path.parent}{f' ({holder})' if holder else ''}: "
            "wait until it has ended, or end it; then run the same command again"
        )


def _open_lock(path: Path, flags: int) -> int:
    """Open the lock, if it is a plain file: what a link leads to must not be written to."""
    try:
        lock = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        raise RunError(_not_a_lock(path)) from None
    if not is_plain(os.fstat(lock)):
        os.close(lock)
        raise RunError(_not_a_lock(path))
    return lock


def _not_a_lock(path: Path) -> str:
    return (
        f"{path} must be a plain file with one name, and is a link or something else: remove it, "
        "then run the same command again"
    )


def start_jobs() -> None:
    """Tell the jobs that this process will start, on a node of a cluster too, who started them."""
    os.environ[SNAKEMAKE] = f"{os.getpid()}@{HOST}"


def start_job(log: Path | str) -> None:
    """Begin a job: log to a file, and end with the Snakemake that has started it."""
    log_to(log)
    check_claimed()
    end_with_snakemake()
    token, _, lock = os.environ.get(RUN, "").partition(" ")
    if token:
        refuse_when(lambda: _is_over(Path(lock), token))
    else:
        _mark_unclaimed(Path(log))


def _mark_unclaimed(log: Path) -> None:
    """Note that outputs change without a run that notes them, such as with `--no-hooks`."""
    for folder in log.parents:
        if folder.name == "logs":
            mark = folder.parent / UNCLAIMED
            mark.parent.mkdir(parents=True, exist_ok=True)
            if mark.is_symlink() or not mark.exists():
                with suppress(FileExistsError):  # another job was faster
                    os.close(open_new(mark))


def explanations(logs: Iterable[Path | str], results: Path | str) -> list[str]:
    """Say what to do about faults that jobs could not explain themselves.

    Parameters
    ----------
    logs : iterable of path
        What Snakemake has written of the run.
    results : path
        `results/<survey>`.

    Returns
    -------
    list of str
        A line for killed jobs, and one for files that Snakemake itself could not write.
    """
    text = ""
    for log in logs:
        with suppress(OSError):
            text += Path(log).read_text(errors="replace")
    lines = []
    if number := len(re.findall(KILLED, text)):
        jobs = "1 job was" if number == 1 else f"{number} jobs were"
        lines.append(f"{jobs} killed (SIGKILL), most often for lack of memory: {OUT_OF_MEMORY}")
    if match := re.search(NOT_WRITTEN, text):
        where = match["path"] or str(Path(results) / "logs")
        lines.append(disk_trouble(OSError(int(match["number"]), "", where)))
    return lines


def _is_over(lock: Path, token: str) -> str | None:
    """Say so, if another run has taken the folder since."""
    try:
        descriptor = _open_lock(lock, os.O_RDONLY)
    except (OSError, RunError):  # removed by hand, or not of this machine
        return None
    with open(descriptor, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (no path)
        content = file.read(SHOWN).split("\n")
    if len(content) < 2 or content[1] in ("", token):
        return None
    return f"the run of this job has ended, and another one ({content[0]}) has begun"


def end_with_snakemake() -> None:
    """End this process when the Snakemake process that has started it is gone."""
    end_with_parent()
    process, _, host = os.environ.get(SNAKEMAKE, "").partition("@")
    snakemake, parent = int(process or 0), os.getppid()
    if host != HOST or snakemake == parent:
        return
    if _parent(parent) == snakemake:  # a shell lies between
        _watch(snakemake)
    elif not Path(f"/proc/{snakemake}").exists() and Path("/proc/self").exists():
        os.kill(os.getpid(), signal.SIGKILL)


def end_with_parent() -> None:
    """End this process when the one that has started it is gone, where the system can (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _parent(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _watch(process: int) -> None:
    """End this process when another one ends."""

    def wait() -> None:
        with suppress(OSError):
            select.select([os.pidfd_open(process)], [], [])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()
