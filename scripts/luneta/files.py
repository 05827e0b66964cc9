"""Writing files whole, finding damaged ones, logging to a file."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it into place at the end.

    The temporary name keeps the suffix, as writers choose the format by it. If the
    block raises, the temporary file is removed and `path` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class DamagedFile(Exception):
    """A file of ours is not as it was written; the message says which, and what happens now."""


def set_aside(path: Path | str, reason: str) -> DamagedFile:
    """Move a damaged file out of its place, so that the next run makes it again.

    Returns
    -------
    DamagedFile
        The error to raise, which says so.
    """
    path = Path(path)
    aside = path.with_name(f"{path.name}.damaged")
    said = f"{path} is damaged: {reason}. "
    try:
        path.replace(aside)
    except FileNotFoundError:  # another job was faster
        pass
    except OSError as error:
        return DamagedFile(
            f"{said}It cannot be moved out of its place ({error.strerror}): remove it, then run "
            "the same command again, and it is made again."
        )
    return DamagedFile(
        f"{said}It is set aside as {aside.name}, which may be deleted. Run the same command "
        "again: the file is made again."
    )


CHECKSUM = re.compile(rb'\{"checksum": "crc32:([0-9a-f]{8})"')


def write_json(path: Path | str, content: Any, indent: int | None = 2) -> None:
    """Write JSON with a checksum; not indented, fast.

    The keys are sorted, so that equal content gives equal bytes. The checksum, a first key of
    its own, is of all bytes behind it. What is no dict goes below a key `content`.
    """
    content = content if isinstance(content, dict) else {"content": content}
    text = json.dumps(content, indent=indent, sort_keys=True)[1:] + "\n"
    rest = ("," if content else "").encode() + text.encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(b'{"checksum": "crc32:%08x"' % zlib.crc32(rest) + rest)


def read_json(path: Path | str) -> Any:
    """Read a JSON file, and check it if it has a checksum; see `write_json`.

    Raises
    ------
    DamagedFile
        If it is no JSON or its checksum is wrong; it has then been set aside.
    """
    raw = Path(path).read_bytes()
    head = CHECKSUM.match(raw)
    if head and zlib.crc32(raw[head.end() :]) != int(head[1], 16):
        raise set_aside(path, "its checksum is wrong")
    try:
        content = json.loads(raw)
    except ValueError as error:
        raise set_aside(path, f"it is no JSON ({error})") from None
    if not head and _had_checksum(content):
        raise set_aside(path, "its checksum is altered")
    if head:
        del content["checksum"]
    return content["content"] if head and list(content) == ["content"] else content


def _had_checksum(content: Any) -> bool:
    """Tell whether what was read without a checksum was written with one."""
    if not isinstance(content, dict):
        return False
    first = next(iter(content.values()), None)
    claims = isinstance(first, str) and re.fullmatch("crc32:[0-9a-f]{8}", first)
    return bool(claims) or "checksum" in content


def log_to(path: Path | str) -> None:
    """Send log records to `path` as well as standard error, uncaught errors included."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(name)s %(levelname)s: %(message)s",
        handlers=[logging.FileHandler(path, mode="w"), logging.StreamHandler(sys.stderr)],
        force=True,
    )

    def log_uncaught(kind, error, traceback):
        logging.getLogger("luneta").critical("%s", error, exc_info=(kind, error, traceback))

    sys.excepthook = log_uncaught
