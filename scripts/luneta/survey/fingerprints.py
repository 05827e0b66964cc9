"""Telling a new delivery of a file from the old one, without reading large files.

Snakemake goes by modification times, and misses a file that was fetched with an older one (as
`rsync -a` and `cp -p` do). The fingerprints are among the settings of the jobs that read the
files, so that such a delivery is seen too.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from luneta.files import read_memory, write_json

# Below this size Snakemake goes by content, above it by time.
SMALL = 1_000_000
UNREADABLE = "unreadable"
READERS = 8
PARTS = "parts"


def fingerprint(path: str, index: Path | None = None) -> str | None:
    """Fingerprint of a file or folder: its content, or of a file above 1 MB its size and time.

    Times count in whole seconds, as archives keep no more. That of a folder is made of the names
    and fingerprints of the files in it.

    Parameters
    ----------
    path : str
        Of the file or folder.
    index : path, optional
        Folder in which the fingerprints of the files of a folder are remembered, so that those of
        unchanged size and time are not read again.

    Returns
    -------
    str or None
        None if there is no such file.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 (called for each file of a survey)
            info = os.fstat(file.fileno())
            if info.st_size > SMALL:
                return f"{info.st_size} bytes of {int(info.st_mtime)}"
            return hashlib.blake2b(file.read(), digest_size=8).hexdigest()
    except IsADirectoryError:
        return hashlib.blake2b(repr(_listing(path, index)).encode(), digest_size=8).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"{UNREADABLE}: {error.strerror}"


def is_readable(version: str | None) -> bool:
    """Whether a fingerprint is of a file that is there and may be read."""
    return version is not None and not version.startswith(UNREADABLE)


def _listing(folder: str, index: Path | None) -> list:
    """Names and fingerprints of the files of a folder, such as a catalog of many parts."""
    files = sorted(str(path) for path in Path(folder).rglob("*") if path.is_file())
    if index is not None:
        name = hashlib.blake2b(folder.encode(errors="replace"), digest_size=8).hexdigest()
        versions = fingerprints(files, index / PARTS / f"{name}.json")
        return [(file, versions[file]) for file in files]
    with ThreadPoolExecutor(READERS) as pool:
        return list(zip(files, pool.map(fingerprint, files), strict=True))


def _mark(path: str) -> list[int] | None:
    """Size and time by which a file is taken to be unchanged; empty for what is no plain file."""
    try:
        info = os.stat(path)  # noqa: PTH116 (called for each file of a survey)
    except (OSError, ValueError):
        return None
    return [info.st_size, info.st_mtime_ns] if stat.S_ISREG(info.st_mode) else []


def _of_no_file(path: str, index: Path | None = None) -> str | None:
    """Fingerprint of a folder; of a device or a pipe, which may not be read, its kind."""
    return fingerprint(path, index) if os.path.isdir(path) else "no plain file"  # noqa: PTH112


def fingerprints(paths: Iterable[str], memory: Path) -> dict[str, str | None]:
    """Fingerprints of many files; those of unchanged size and time are remembered.

    A folder, such as one of Parquet parts, is listed each time; what is known of its files lies in
    a folder `parts` beside the memory. A device has none but its kind.

    Parameters
    ----------
    paths : iterable of str
        Files, whether they exist or not.
    memory : path
        JSON file of what is known from earlier, rewritten where something changed.

    Returns
    -------
    dict
        Fingerprint by path; None where there is no such file.
    """
    known = read_memory(memory) or {}
    marks = {path: _mark(path) for path in dict.fromkeys(paths)}
    now = {p: known[p][1] for p, mark in marks.items() if mark and known.get(p, [0])[0] == mark}
    now |= {path: _of_no_file(path, memory.parent) for path, mark in marks.items() if mark == []}
    unknown = [path for path, mark in marks.items() if mark and path not in now]
    with ThreadPoolExecutor(READERS) as pool:
        now |= zip(unknown, pool.map(fingerprint, unknown), strict=True)
    # One that could not be read is looked at again, as the fault may pass.
    state = {
        path: [mark, now[path]] for path, mark in marks.items() if mark and is_readable(now[path])
    }
    if state != known:
        write_json(memory, state, indent=None)
    return {path: now.get(path) for path in marks}


class Deliveries:
    """The files that a job reads, and whether they stay as its run has found them.

    A file that is taken away, or written anew, while a run is at work and put back afterwards is
    for the next run what it was: only the job can tell that it has read something else.

    Parameters
    ----------
    planned : mapping
        Fingerprint of each file as the run has found it; None for one that was missing.
    """

    def __init__(self, planned: Mapping[str, str | None]):
        self._marks = {path: _inode(path) for path in planned}
        self._changed = {path for path in planned if _current(path) != planned[path]}

    def changed(self) -> list[str]:
        """Name the files that are not as planned, or have changed since this object was made."""
        moved = {path for path, mark in self._marks.items() if _inode(path) != mark}
        return sorted(self._changed | moved)


def _current(path: str) -> str | None:
    """Fingerprint of a file as it is now, as `fingerprints` has it."""
    mark = _mark(path)
    if mark is None:
        return None
    return fingerprint(path) if mark else _of_no_file(path)


def _inode(path: str) -> tuple[int, ...] | None:
    """What changes with each new content of a file, whatever is done to its time."""
    try:
        info = os.stat(path)  # noqa: PTH116 (called for each file of a survey)
    except (OSError, ValueError):
        return None
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
