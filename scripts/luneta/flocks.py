"""Locks on files of one machine, which the kernel frees when a process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TURN = "turn"


def shared_folder(path: Path) -> Path:
    """Make a folder in which every user of the machine may make files, but remove own ones only."""
    path.mkdir(parents=True, exist_ok=True)
    with suppress(PermissionError):  # made by another user, and so open to all already
        path.chmod(0o1777)
    return path


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """One at a time makes, locks and removes files of a folder."""
    held = os.open(_made(folder / TURN), os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def lock(path: Path) -> int | None:
    """Lock a file, which is made, or a folder: an open descriptor, or nothing if it is taken."""
    held = os.open(_made(path), os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    return held


def sweep(folder: Path, keep: set[Path]) -> None:
    """Remove, in one's turn, what ended processes have left in a folder: all that nobody locks."""
    for path in set(folder.iterdir()) - keep - {folder / TURN}:
        with suppress(OSError):  # another user's
            held = lock(path)
            if held is None:
                continue
            try:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            finally:
                os.close(held)


def _made(path: Path) -> Path:
    if not path.is_dir():
        with suppress(FileExistsError):
            made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
            os.fchmod(made, 0o644)  # whatever the user's umask: others must be able to lock it
            os.close(made)
    return path
