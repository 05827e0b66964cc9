"""How much a file that others delivered may ask for.

A file of a few kilobytes can claim terabytes, or unpack to them. What it declares is held against
what it stores and against a bound, before memory is asked for.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

GIGABYTE = 10**9
USUAL_GIGABYTES = 16.0
# What is smaller is read whatever it is packed into.
ALWAYS_ALLOWED = 2**30
# zlib packs at most 1032 bytes into one; a filter behind it gains little more.
BEST_COMPRESSION = 10_000
TEXT_ALWAYS_ALLOWED = 2**28
TEXT_BEST_COMPRESSION = 200  # of a table with different rows some 50 are the most
MOST_COLUMNS = 20_000
UNLIMITED = 2**62  # bytes
_PIECE = 2**24
PROC = Path("/proc")  # where Linux tells of memory

_gigabytes = [USUAL_GIGABYTES]


class TooLarge(ValueError):
    """What a file asks for beyond the bound; the message says both, and how to raise the bound."""


def set_most_gigabytes(gigabytes: float) -> None:
    """Set the bound of this process and of those forked later, in 10^9 bytes."""
    _gigabytes[0] = gigabytes


def most_bytes() -> int:
    """Return the most bytes that the pixels or rows of one file may have in memory."""
    return int(_gigabytes[0] * GIGABYTE)


def shown(size: int) -> str:
    """Write a number of bytes.

    Examples
    --------
    >>> shown(64 * 10**12), shown(1400)
    ('64,000.0 GB', '1,400 bytes')
    """
    return f"{size:,} bytes" if size < GIGABYTE / 10 else f"{size / GIGABYTE:,.1f} GB"


def check_size(size: int, stored: int, ratio: int = BEST_COMPRESSION) -> None:
    """Refuse what is larger than the bound, or than the stored bytes could hold.

    Parameters
    ----------
    size : int
        Bytes that the content would take in memory.
    stored : int
        Bytes that the file has for it.
    ratio : int
        How many bytes one stored byte can stand for.

    Raises
    ------
    TooLarge
        If so.
    """
    if size > most_bytes():
        raise TooLarge(
            f"asks for {shown(size)} of memory, and one file may ask for {shown(most_bytes())}; "
            "set input.most_gigabytes higher if it is right"
        )
    if size > max(ALWAYS_ALLOWED, stored * ratio):
        raise TooLarge(
            f"declares {shown(size)}, which its {shown(stored)} of stored data cannot hold: its "
            "header is wrong"
        )


def unpack_text(file: BinaryIO, stored: int) -> bytes:
    """Read all of a packed file of text.

    Parameters
    ----------
    file : binary file
        That unpacks what is read.
    stored : int
        Bytes of the packed file.

    Raises
    ------
    TooLarge
        If there is more than the bound allows, or 200 times as much as is stored.
    """
    parts = []
    size = 0
    while part := file.read(_PIECE):
        parts.append(part)
        size += len(part)
        if size > most_bytes():
            check_size(size, stored)
        if size > max(TEXT_ALWAYS_ALLOWED, stored * TEXT_BEST_COMPRESSION):
            raise TooLarge(
                f"unpacks to more than {shown(size)} from {shown(stored)}, as no table does: it "
                "repeats a few bytes without end"
            )
    return b"".join(parts)


def check_columns(names: object) -> None:
    """Refuse a table of more columns than any real one.

    Raises
    ------
    TooLarge
        If there are more than 20,000.
    """
    if len(names) > MOST_COLUMNS:
        raise TooLarge(
            f"has {len(names):,} columns, and a table may have {MOST_COLUMNS:,}; leave out those "
            "that are not needed"
        )


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Let the process grow by the bound, or by the memory that is free, and no more.

    Readers of tables ask for memory as the file says. Beyond the limit they fail with an error, and
    not by the kernel's choice of a process to end. Only Linux tells what is needed for it.
    """
    if not (PROC / "self/statm").exists():
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = _address_space() + min(most_bytes(), _free_memory())
    given = [end for end in before if end != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min([limit, *given]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _address_space() -> int:
    pages = (PROC / "self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()


def _free_memory() -> int:
    """Return the bytes that the machine and the job's control group have left."""
    lines = (PROC / "meminfo").read_text(encoding="ascii").splitlines()
    free = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return min(free * 1024, group_memory())


def group_memory(groups: Path = PROC / "self/cgroup", root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return the bytes that the control groups of this process have left; 2^62 without a limit.

    Each group above it may set a limit, as Slurm does for a job. What the kernel keeps of files in
    a group's memory can be had again, and counts as left.

    Parameters
    ----------
    groups : path
        File in which the system names the groups (cgroups(7)); versions 1 and 2 are known.
    root : path
        Where the system shows them.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return UNLIMITED
    names = [line.split(":", 2)[1:] for line in lines if line.count(":") >= 2]
    left = [UNLIMITED]
    for kinds, name in names:
        if kinds == "":
            left += _left_up(root, name, "memory.max", "memory.current")
        elif "memory" in kinds.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            left += _left_up(root / "memory", name, *files)
    return max(min(left), 0)


def _left_up(root: Path, name: str, limit: str, used: str) -> Iterator[int]:
    """Yield what is left in a group and in each one above it that sets a limit."""
    group = root / name.strip("/")
    for folder in (group, *group.parents):
        if not folder.is_relative_to(root):
            return
        try:
            most = (folder / limit).read_text(encoding="ascii").strip()
            if most.isdecimal():
                now = int((folder / used).read_text(encoding="ascii"))
                yield int(most) - now + _of_files(folder)
        except (OSError, ValueError):
            continue


def _of_files(group: Path) -> int:
    """Return the bytes of files that the kernel keeps for a group and can give away."""
    try:
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    sizes = dict(line.rsplit(" ", 1) for line in lines)
    return sum(int(sizes.get(kind, 0)) for kind in ("inactive_file", "active_file"))
