"""What finished jobs have left in a results folder, and whether it is still as they left it."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from luneta.files import HOST, TEMPORARY, DamagedFile, read_json, set_aside, write_json
from luneta.seals import BrokenSeal, check

FOLDERS = ("objects", "quality", "cutouts", "splits", "backbones", "models", "metrics",
           "predictions", "embeddings", "clusters", "catalog", "index", "raw", "figures", "report",
           "runs")  # fmt: skip
# Of other makers, or checked by their own readers
UNWATCHED = ("catalog", "index", "raw", "figures", "report", "runs")
RECORD = "index/outputs.json"
READ_WHOLE = 4 * 10**9  # bytes, a few seconds

DAMAGED = ".damaged"
TEMPORARY_NAME = re.compile(TEMPORARY)

State = dict[str, list[int]]


def recover(results: Path | str) -> list[str]:
    """Clear up after a run that did not end well, so that the next one makes what is missing.

    Temporary files that dead processes of this machine left are removed. Outputs that are not as
    they were noted when a run ended, or were never noted, are checked by their checksums; damaged
    ones are set aside. Of more than 4 GB only the ends are looked at: jobs check what they read.

    Parameters
    ----------
    results : path
        `results/<survey>`, in which no other run is at work.

    Returns
    -------
    list of str
        A message for each damaged file.
    """
    root = Path(results)
    there, left = _look(root)
    for path in left:
        with suppress(OSError):
            is_folder = path.is_dir() and not path.is_symlink()
            shutil.rmtree(path) if is_folder else path.unlink()
    known = _noted(root)
    changed = [name for name, state in there.items() if known.get(name) != state]
    messages = [said for said in _checked(root, changed, there) if said]
    if changed or known.keys() - there.keys():
        note(root)
    return messages


def missing(results: Path | str) -> list[str]:
    """Outputs that were set aside as damaged and not made again since.

    Snakemake makes again what is missing only for the sake of a job that has to be done; so these
    must be asked for. What was removed by hand is not among them.

    Returns
    -------
    list of str
        Paths, `results` included.
    """
    aside = (
        entry.path
        for folder in FOLDERS
        if folder not in UNWATCHED
        for entry in _files(Path(results) / folder)
        if entry.name.endswith(DAMAGED)
    )
    names = [path.removesuffix(DAMAGED) for path in aside]
    return sorted(name for name in names if not Path(name).exists())


def note(results: Path | str) -> None:
    """Write down size and time of all outputs, to tell later what has changed."""
    root = Path(results)
    write_json(root / RECORD, _look(root)[0], indent=None)


def _noted(root: Path) -> State:
    try:
        return read_json(root / RECORD)
    except (FileNotFoundError, DamagedFile):
        return {}


def _look(root: Path) -> tuple[State, list[Path]]:
    """Size and time of each output, and what dead processes have left."""
    there, left = {}, []
    for folder in FOLDERS:
        for entry in _files(root / folder):
            if TEMPORARY_NAME.fullmatch(entry.name):
                if _is_left(entry.name):
                    left.append(Path(entry.path))
                continue
            name = os.path.relpath(entry.path, root)
            # A pipe would never end, and a link may lead nowhere
            if folder not in UNWATCHED and _is_output(name) and entry.is_file():
                status = entry.stat()
                there[name] = [status.st_size, status.st_mtime_ns]
    return there, left


def _is_left(name: str) -> bool:
    """Whether the process that made a temporary file or folder is dead, as far as can be told."""
    found = TEMPORARY_NAME.fullmatch(name)
    return found["host"] == HOST and not is_alive(int(found["process"]))


def _is_output(name: str) -> bool:
    is_hidden = any(part[0] == "." for part in name.split("/"))  # as the state of a training
    return not is_hidden and not name.endswith(DAMAGED)


def _files(folder: Path) -> Iterator[os.DirEntry]:
    """Files below a folder, and temporary folders."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and not TEMPORARY_NAME.fullmatch(entry.name):
            yield from _files(Path(entry.path))
        else:
            yield entry


def is_alive(process: int) -> bool:
    """Tell whether a process of this machine is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _checked(root: Path, names: list[str], there: State) -> Iterator[str | None]:
    """Check files, several at once, and give a message for each damaged one."""
    budget, whole = READ_WHOLE, {}
    for name in names:
        whole[name] = budget > 0
        budget -= there[name][0]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(partial(_trouble, root), names, whole.values())


def _trouble(root: Path, name: str, whole: bool) -> str | None:
    """Check one output; say what is wrong with it, once it is set aside."""
    path = root / name
    try:
        if path.suffix in (".parquet", ".arrow"):
            check(path, whole)
        elif path.suffix == ".json":
            read_json(path)
        elif path.suffix in (".keras", ".npz"):
            _check_zip(path, whole)
    except DamagedFile as error:
        return str(error)
    except BrokenSeal as error:
        return str(set_aside(path, str(error)))
    return None


def _check_zip(path: Path, whole: bool) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip() if whole else None
    except (zipfile.BadZipFile, EOFError, NotImplementedError, zlib.error) as error:
        raise BrokenSeal(f"it is cut short or altered ({error})") from None
    if broken is not None:
        raise BrokenSeal(f"the checksum of its part {broken} is wrong")
