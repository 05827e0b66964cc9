"""Writing files whole, finding damaged ones, logging to a file."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import socket
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from luneta.faults import NoRoom
from luneta.urls import redacted

HOST = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
TEMPORARY = r"\.(?P<process>\d+)@(?P<host>[^@]+)@.+"

_refusals: list[Callable[[], str | None]] = []


def refuse_when(reason: Callable[[], str | None]) -> None:
    """Put no file in place any more from the moment that a function gives a reason."""
    _refusals.append(reason)


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it into place at the end.

    The temporary name keeps the suffix, as writers choose the format by it. If the
    block raises, the temporary file is removed and `path` is left as it was. The name tells
    which process of which machine writes, so that what a killed one leaves can be removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}@{HOST}@{path.name}")
    try:
        yield temporary
        if reasons := [reason for refusal in _refusals if (reason := refusal())]:
            raise InterruptedError(f"{path} is not put in place: {reasons[0]}")
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


def write_json(
    path: Path | str, content: Any, indent: int | None = 2, is_private: bool = False
) -> None:
    """Write JSON with a checksum; not indented, fast.

    The keys are sorted, so that equal content gives equal bytes. The checksum, a first key of
    its own, is of all bytes behind it. What is no dict goes below a key `content`. A private file
    can be read by its owner only.
    """
    content = content if isinstance(content, dict) else {"content": content}
    text = json.dumps(content, indent=indent, sort_keys=True)[1:] + "\n"
    rest = ("," if content else "").encode() + text.encode()
    with atomic_path(path) as temporary:
        temporary.touch()
        if is_private:
            temporary.chmod(0o600)
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


DISK = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "your quota of the disk is used up: free some space",
    errno.EROFS: "the disk can only be read: have it mounted for writing, or choose another folder",
    errno.EACCES: "you may not write there: change the permissions, or choose another folder",
}


def disk_trouble(error: BaseException | None) -> str | None:
    """Say what is wrong with the disk, and the mend, if that is what an error tells.

    Libraries that write files by themselves pass on the system's words, but not its number.
    """
    if error is None:
        return None
    if isinstance(error, NoRoom):
        return str(error)
    for number, said in DISK.items():
        known = isinstance(error, OSError) and error.errno == number
        if known or (number != errno.EACCES and os.strerror(number) in str(error)):
            where = getattr(error, "filename", None)
            place = Path(str(where)).parent if where else "the results"
            return (
                f"{place} cannot be written to: {said}, then run the same command again; what is "
                f"finished stays ({os.strerror(number)})"
            )
    return disk_trouble(error.__cause__ or error.__context__)


def _is_for_users(error: BaseException) -> bool:
    """Whether an error's message is all that its reader needs."""
    ours = type(error).__module__.partition(".")[0] == "luneta"
    return ours or isinstance(error, InterruptedError | FloatingPointError)


class _Formatter(logging.Formatter):
    """Formats log records, tracebacks included, without the secrets of URLs."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def log_to(path: Path | str) -> None:
    """Send log records to `path` as well as standard error, uncaught errors included.

    URLs are logged without user, password and query.

    Errors of our own types, numbers that are not finite and a full disk are told in one message,
    which says what to do; another error with where in the program it happened.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    logging.raiseExceptions = False  # on a full disk there is nowhere to log to
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        handlers.insert(0, logging.FileHandler(path, mode="w"))
    except OSError as error:
        if (trouble := disk_trouble(error)) is None:
            raise
        sys.exit(trouble)
    formatter = _Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s")
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)

    def log_uncaught(kind, error, traceback):
        told = str(error) if _is_for_users(error) else disk_trouble(error)
        shown = None if told else (kind, error, traceback)
        logging.getLogger("luneta").critical("%s", told or error, exc_info=shown)

    sys.excepthook = log_uncaught
