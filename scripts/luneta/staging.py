"""Shards on a disk of the node: copied there in one go, and gone when the job ends."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import shutil
import time
from pathlib import Path

from luneta import flocks
from luneta.seals import BrokenSeal, check

logger = logging.getLogger(__name__)

FOLDER = "luneta-staged"
ROOM = 1.1  # times the file, that must be free on the disk
_held: list[int] = []  # locks on the folders of this process, until it ends


def stage(path: Path | str, scratch: Path | str | None) -> Path:
    """Copy a file to a disk of this machine, to be read there.

    Parameters
    ----------
    path
        On a disk that the nodes share.
    scratch
        Folder on a disk of this machine, resource `scratch` of the profile; nothing or an empty
        name to read the file where it is.

    Returns
    -------
    path
        Of the copy, which bears the same name and is removed when the process ends. If it ends
        without a good-bye, the next that stages on this machine removes it. Where the folder
        cannot be used or has no room, or the copy is damaged, it is the path itself, whose readers
        check it, and the log says why.
    """
    path = Path(path)
    if not scratch:
        return path
    try:
        return _copy(path, Path(scratch))
    except OSError as error:
        logger.warning("%s is read where it is: scratch %s: %s", path, scratch, error)
        return path


def _copy(path: Path, scratch: Path) -> Path:
    folder = _folder(scratch)
    with flocks.turn(folder):
        flocks.sweep(folder, set())
        own = flocks.make_private_folder(folder / f"{flocks.STAGED}{secrets.token_hex(8)}")
        _held.append(flocks.lock(own))
    atexit.register(flocks.remove_folder, own)
    size, free = path.stat().st_size, shutil.disk_usage(folder).free
    if size * ROOM > free:
        flocks.remove_folder(own)
        raise OSError(f"{free / 1e9:.1f} GB are free, {size * ROOM / 1e9:.1f} GB are needed")
    start = time.monotonic()
    try:
        copy = Path(shutil.copy2(path, own / path.name))
        check(copy)
    except (OSError, BrokenSeal) as error:  # such as that another job has taken the room
        flocks.remove_folder(own)
        raise OSError(f"the copy there is of no use: {error}") from None
    seconds = max(time.monotonic() - start, 1e-3)
    logger.info("%s copied to %s: %.0f MB/s", path, own, size / 1e6 / seconds)
    return copy


def _folder(scratch: Path) -> Path:
    """Return a folder that is this user's: whoever owns it could replace the copies."""
    try:
        return flocks.private_folder(scratch / FOLDER)
    except flocks.FolderError:  # another user's
        return flocks.private_folder(scratch / f"{FOLDER}-{os.geteuid()}")
