"""Locks on files of one machine, which the kernel frees when a process ends, however it ends.

Their folders have known names on disks that all users share. So a folder is opened without
following links, its owner is checked, and all that is done in it is done by its descriptor.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TURN = "turn"
STAGED = "staged-"
LOCK_NAME = re.compile(r"(?:local|\d+\w*)-[\w-]+", re.ASCII)  # empty files; see `gpus`
FOLDER_NAME = re.compile(rf"{STAGED}[0-9a-f]{{16}}")  # see `staging`


class FolderError(OSError):
    """A folder that users share cannot be trusted; the message says why, and the fix."""


def shared_folder(path: Path) -> Path:
    """Make a folder in which every user of the machine may make files, but remove own ones only.

    One that another user has made is taken as it is. It is good enough for locks, which hold
    nothing: its maker can remove them, but cannot have our process write or remove anything else.

    Raises
    ------
    FolderError
        If a link or a file is there, or a folder in which users may replace each other's files.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(0o700)
    with _opened(path) as folder:
        is_new = _is_own(status := os.fstat(folder)) and not os.listdir(folder)  # noqa: PTH208 (a descriptor)
        if is_new and stat.S_IMODE(status.st_mode) != 0o1777:
            os.fchmod(folder, 0o1777)
    return path


def private_folder(path: Path) -> Path:
    """Make a folder whose content nobody but this user and root can replace.

    Raises
    ------
    FolderError
        If a link, a file or another user's folder is there, or others may replace the folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_open_to_all(path.parent.stat()):
        raise FolderError(
            f"every user may rename what is in {path.parent}: set its sticky bit "
            f"(chmod +t {path.parent}), or choose another folder"
        )
    with suppress(FileExistsError):
        path.mkdir(0o700)
    with _opened(path, is_private=True):
        return path


def make_private_folder(path: Path) -> Path:
    """Make a folder for this user alone in a folder that is shared.

    Raises
    ------
    FolderError
        If the folder that it is made in cannot be trusted.
    """
    with _opened(path.parent) as folder:
        os.mkdir(path.name, 0o700, dir_fd=folder)
    return path


def remove_folder(path: Path) -> None:
    """Remove a folder of this process, as far as possible; links in it are not followed."""
    with suppress(OSError), _opened(path.parent) as folder:
        shutil.rmtree(path.name, ignore_errors=True, dir_fd=folder)


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """One at a time makes, locks and removes files of a folder.

    Raises
    ------
    FolderError
        If the folder cannot be trusted.
    """
    with _opened(folder) as descriptor:
        held = _lockable(folder / TURN, descriptor)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def lock(path: Path) -> int | None:
    """Lock a file, which is made, or a folder: an open descriptor, or nothing if it is taken.

    Raises
    ------
    FolderError
        If the folder that it lies in cannot be trusted, or it is a link or a named pipe.
    """
    with _opened(path.parent) as folder:
        return _lock(path, folder)


def sweep(folder: Path, keep: set[Path]) -> None:
    """Remove, in one's turn, what ended processes of this user have left in a folder.

    That is what bears a name of ours, is this user's, and nobody locks. All else stays.

    Raises
    ------
    FolderError
        If the folder cannot be trusted.
    """
    with _opened(folder) as descriptor:
        for name in os.listdir(descriptor):  # noqa: PTH208
            with suppress(OSError):
                if folder / name not in keep and _is_swept(name, descriptor):
                    _remove_unlocked(folder / name, descriptor)


def _is_swept(name: str, folder: int) -> bool:
    """Whether an entry is a lock file or a folder of this user, by its name too."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not _is_own(status):
        return False
    if stat.S_ISREG(status.st_mode):
        return status.st_size == 0 and LOCK_NAME.fullmatch(name) is not None
    return stat.S_ISDIR(status.st_mode) and FOLDER_NAME.fullmatch(name) is not None


def _remove_unlocked(path: Path, folder: int) -> None:
    held = _lock(path, folder)
    if held is None:
        return
    try:
        if stat.S_ISDIR(os.fstat(held).st_mode):
            shutil.rmtree(path.name, dir_fd=folder)
        else:
            os.unlink(path.name, dir_fd=folder)
    finally:
        os.close(held)


@contextmanager
def _opened(path: Path, is_private: bool = False) -> Iterator[int]:
    """Open a folder that is no link, and in which no user may replace the files of another."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise FolderError(
                f"{path} is a link or a file, but must be a folder: remove it, or have its owner "
                "or the administrator remove it"
            ) from None
        if error.errno == errno.EACCES:
            raise FolderError(f"{path} belongs to another user and is closed to you") from None
        raise
    try:
        if reason := _distrust(os.fstat(folder), is_private):
            raise FolderError(f"{path} is not used: {reason}")
        yield folder
    finally:
        os.close(folder)


def _distrust(status: os.stat_result, is_private: bool) -> str | None:
    """Say why a folder cannot be trusted, if so."""
    is_trusted = status.st_uid in (os.geteuid(), 0)
    owner = f"it belongs to user {status.st_uid}"
    if is_private and not is_trusted:
        return f"{owner}, who may replace what is in it"
    if not is_trusted and not status.st_mode & stat.S_ISVTX:
        return f"{owner} and has no sticky bit: have its owner remove it, or set chmod 1777"
    if _is_open_to_all(status):
        return "every user may replace what is in it: remove it, or set chmod 1777"
    return None


def _is_open_to_all(status: os.stat_result) -> bool:
    return bool(status.st_mode & stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX


def _is_own(status: os.stat_result) -> bool:
    return status.st_uid == os.geteuid()


def _lock(path: Path, folder: int) -> int | None:
    held = _lockable(path, folder)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    return held


def _lockable(path: Path, folder: int) -> int:
    """Open a file, which is made, or a folder; neither a link nor a pipe, which would block."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    _make(path.name, folder)
    try:
        held = os.open(path.name, flags, dir_fd=folder)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise FolderError(_strange(path)) from None
    kind = os.fstat(held).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        os.close(held)
        raise FolderError(_strange(path))
    return held


def _strange(path: Path) -> str:
    return (
        f"{path} is a link or a pipe, but must be a lock file: remove it, or have its owner or the "
        "administrator remove it"
    )


def _make(name: str, folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with suppress(FileExistsError):
        made = os.open(name, flags, 0o644, dir_fd=folder)
        os.fchmod(made, 0o644)  # whatever the user's umask: others must be able to lock it
        os.close(made)
