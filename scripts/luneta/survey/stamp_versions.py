"""Telling changed stamp files from touched or copied ones, a million at a time.

Of a file up to 1 MB its content decides, of a larger one size and time in whole seconds, as in
`luneta.survey.fingerprints`. A file of unchanged size and time is not read again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa

from luneta.files import DamagedFile
from luneta.parquet import read_parquet, write_parquet
from luneta.survey.fingerprints import READERS, SMALL, UNREADABLE, fingerprint

MEMORY = "stamp_files.seen"  # Parquet, but no slice
ABSENT = "-"
NO_FILE, NO_PLAIN_FILE = -1, -2  # in place of a size


def stamp_versions(paths: Sequence[str], memory: Path) -> list[str]:
    """Find the version of each file, a text without blanks that begins with its size.

    Parameters
    ----------
    paths : sequence of str
        Files, whether they exist or not, each of them once.
    memory : path
        What is known from earlier; rewritten where something has changed.

    Returns
    -------
    list of str
        `-` for what is not there.
    """
    marks = np.array([_size_and_time(path) for path in paths], np.int64).reshape(-1, 2)
    known = _read(memory)
    versions = _remembered(paths, marks, known)
    unknown = [number for number, version in enumerate(versions) if version is None]
    with ThreadPoolExecutor(READERS) as pool:
        read = pool.map(lambda n: _version(paths[n], *marks[n].tolist()), unknown, chunksize=256)
        for number, version in zip(unknown, read, strict=True):
            versions[number] = version
    if unknown or len(known) != len(paths):
        _write(paths, marks, versions, memory)
    return versions


def _size_and_time(path: str) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds; a negative size for what is no file."""
    try:
        info = os.stat(path)  # noqa: PTH116 (for each of 1e6 stamps)
    except (OSError, ValueError):
        return NO_FILE, 0
    return (info.st_size, info.st_mtime_ns) if stat.S_ISREG(info.st_mode) else (NO_PLAIN_FILE, 0)


def _version(path: str, size: int, time: int) -> str:
    if size == NO_FILE:
        return ABSENT
    if size == NO_PLAIN_FILE:
        return "no-plain-file"
    if size > SMALL:
        return f"{size}:{time // 10**9}"
    version = fingerprint(path)
    if version is None:
        return ABSENT
    return f"{size}:{UNREADABLE if version.startswith(UNREADABLE) else version}"


def _read(memory: Path) -> pa.Table:
    empty = pa.table({"path": [], "size": [], "time": [], "version": []})
    try:
        return read_parquet(memory) if memory.exists() else empty
    except DamagedFile:
        return empty


def _write(paths: Sequence[str], marks: np.ndarray, versions: list, memory: Path) -> None:
    columns = [pa.array(paths, pa.string()), marks[:, 0], marks[:, 1], pa.array(versions)]
    names = ["path", "size", "time", "version"]
    write_parquet(pa.table(dict(zip(names, columns, strict=True))), memory)


def _remembered(paths: Sequence[str], marks: np.ndarray, known: pa.Table) -> list[str | None]:
    """Take the versions of files of unchanged size and time; None for the others.

    What could not be read is tried again: permissions change no time.
    """
    before = known["path"].to_pylist()
    place = {path: number for number, path in enumerate(before)}
    numbers = np.array([place.get(path, -1) for path in paths], np.int64)
    if not len(before):
        return [None] * len(paths)
    is_same = numbers >= 0
    for column, name in enumerate(("size", "time")):
        is_same &= known[name].to_numpy()[numbers] == marks[:, column]
    versions = known["version"].to_pylist()
    return [
        versions[number] if same and not versions[number].endswith(UNREADABLE) else None
        for number, same in zip(numbers.tolist(), is_same.tolist(), strict=True)
    ]
