"""Writing files whole, finding damaged ones, logging to a file."""

from __future__ import annotations

import errno
import filecmp
import json
import logging
import os
import re
import secrets
import socket
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from luneta.faults import NoRoom
from luneta.printable import printable
from luneta.urls import redacted

HOST = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())
TEMPORARY = r"\.(?P<process>\d+)@(?P<host>[^@]+)@.+"
# Errors of fsync where a file system does not know it, or not for folders
NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}

_refusals: list[Callable[[], str | None]] = []


def refuse_when(reason: Callable[[], str | None]) -> None:
    """Put no file in place any more from the moment that a function gives a reason."""
    _refusals.append(reason)


def temporary_name(name: str) -> str:
    """Return a hidden name that nobody can foresee; it tells which process of which machine writes.

    So what a killed process leaves can be removed (`TEMPORARY`, `luneta.outputs`).
    """
    return f".{os.getpid()}@{HOST}@{secrets.token_hex(8)}@{name}"


@contextmanager
def atomic_path(
    path: Path | str,
    keep_equal: bool = False,
    is_private: bool = False,
    is_durable: bool = True,
) -> Iterator[Path]:
    """Yield a path beside `path` to write to, and rename it into place at the end.

    The temporary name keeps the suffix, as writers choose the format by it, and is new, so that
    no link can wait there. If the block raises, the temporary file is removed and `path` is left
    as it was. File and folder are on the disk before the block ends, so that a power failure
    leaves the old file or the new one.

    Parameters
    ----------
    path : path
        Where the file goes.
    keep_equal : bool
        A file with the same bytes that is there already stays.
    is_private : bool
        The file can be read by its owner only.
    is_durable : bool
        File and folder are brought to the disk. False for one of many files that planning makes
        again where its checksum is wrong.

    Raises
    ------
    InterruptedError
        If another run has taken the folder; see `refuse_when`.
    OSError
        If the file cannot be written, or is not a plain file any more.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(temporary_name(path.name))
    # Here, not in the writers, which follow links: they find a file that is there
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    os.close(os.open(temporary, flags, 0o600 if is_private else 0o666))
    try:
        yield temporary
        if reasons := [reason for refusal in _refusals if (reason := refusal())]:
            raise InterruptedError(f"{path} is not put in place: {reasons[0]}")
        if not (keep_equal and _are_equal(temporary, path)):
            _check_plain(temporary, is_durable)
            temporary.replace(path)
            if is_durable:
                sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each on the disk before the next."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def _are_equal(one: Path, other: Path) -> bool:
    try:
        return filecmp.cmp(one, other, shallow=False)
    except FileNotFoundError:
        return False


def _check_plain(path: Path, is_durable: bool) -> None:
    """Insist on a plain file, and have its content written to the disk if that is asked for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not is_plain(os.fstat(descriptor)):
            raise OSError(errno.EPERM, "another process has replaced it by a link", str(path))
        if is_durable:
            _sync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder written to the disk, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:  # one may write to it, but not list it
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise


def is_plain(status: os.stat_result) -> bool:
    """Whether a file is a regular one with one name; what a link leads to may be another's."""
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def open_new(path: Path) -> int:
    """Open a file to write to, at a name that others can foresee: a link there is not followed.

    An older file, or a link, is removed first. The descriptor is not inherited.

    Raises
    ------
    FileExistsError
        If something else has the name, such as a named pipe or a folder.
    """
    with suppress(FileNotFoundError):
        kind = path.lstat().st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISLNK(kind)):
            raise FileExistsError(errno.EEXIST, "no file can be made there: remove it", str(path))
        path.unlink()
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)


class DamagedFile(Exception):
    """A file of ours is not as it was written; the message says which, and what happens now."""


DAMAGED = ".damaged"
MADE_AGAIN = "Run the same command again: the file is made again."


def set_aside(path: Path | str, reason: str, remedy: str = MADE_AGAIN) -> DamagedFile:
    """Move a damaged file out of its place, so that the next run makes it again.

    Parameters
    ----------
    path : path
        Of the file.
    reason : str
        What is wrong with it.
    remedy : str
        What happens next, or what the user can do.

    Returns
    -------
    DamagedFile
        The error to raise, which says so.
    """
    path = Path(path)
    aside = path.with_name(path.name + DAMAGED)
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
    return DamagedFile(f"{said}It is set aside as {aside.name}, which may be deleted. {remedy}")


CHECKSUM = re.compile(rb'\{"checksum": "crc32:([0-9a-f]{8})"')


def write_json(
    path: Path | str, content: Any, indent: int | None = 2, is_private: bool = False
) -> None:
    """Write JSON with a checksum; not indented, fast.

    The keys are sorted, so that equal content gives equal bytes. The checksum, a first key of
    its own, is of all bytes behind it. What is no dict goes below a key `content`. A private file
    can be read by its owner only.
    """
    raw = format_json(content, indent)
    with atomic_path(path, is_private=is_private) as temporary:
        temporary.write_bytes(raw)


def format_json(content: Any, indent: int | None = 2) -> bytes:
    """The bytes that `write_json` writes."""
    content = content if isinstance(content, dict) else {"content": content}
    text = json.dumps(content, indent=indent, sort_keys=True)[1:] + "\n"
    rest = ("," if content else "").encode() + text.encode()
    return b'{"checksum": "crc32:%08x"' % zlib.crc32(rest) + rest


def read_json(path: Path | str) -> Any:
    """Read a JSON file, and check it if it has a checksum; see `write_json`.

    Raises
    ------
    DamagedFile
        If it is no JSON or its checksum is wrong; it has then been set aside.
    """
    try:
        return parse_json(Path(path).read_bytes())
    except ValueError as error:
        raise set_aside(path, str(error)) from None


def parse_json(raw: bytes) -> Any:
    """Parse the bytes of a JSON file, and check them if they begin with a checksum.

    Raises
    ------
    ValueError
        If they are not JSON or the checksum is wrong.
    """
    head = CHECKSUM.match(raw)
    if head and zlib.crc32(raw[head.end() :]) != int(head[1], 16):
        raise ValueError("its checksum is wrong")
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from None
    if not head and _had_checksum(content):
        raise ValueError("its checksum is altered")
    if head:
        del content["checksum"]
    return content["content"] if head and list(content) == ["content"] else content


def read_memory(path: Path | str) -> Any:
    """Read a JSON file that can be found out anew: None if it is missing, damaged or unreadable."""
    try:
        return read_json(path)
    except OSError:
        return None
    except DamagedFile as error:
        print(error, file=sys.stderr)
        return None


def write_twice(path: Path | str, content: bytes) -> None:
    """Write a file that nothing can make again, and a copy of it beside it."""
    for place in (copy_of(path), Path(path)):
        with atomic_path(place) as temporary:
            temporary.write_bytes(content)


def read_twice(path: Path | str, parse: Callable[[bytes], Any]) -> Any:
    """Read a file that `write_twice` has written, or its copy where the file is lost or damaged.

    The one that is lost is written again.

    Parameters
    ----------
    path : path
        Of the file.
    parse : callable
        Turn bytes into the content, or raise ValueError if they are not as they were written.

    Returns
    -------
    object or None
        None if neither is there.

    Raises
    ------
    DamagedFile
        If one is damaged and no other is sound.
    """
    places = (Path(path), copy_of(path))
    contents = {}
    reasons = {}
    for place in places:
        try:
            contents[place] = parse(place.read_bytes())
        except FileNotFoundError:
            reasons[place] = None
        except ValueError as error:
            reasons[place] = f"{place} is damaged: {error}."
    damaged = list(filter(None, reasons.values()))
    if not contents and damaged:
        raise DamagedFile(damaged[0])
    if not contents:
        return None
    sound, content = next(iter(contents.items()))
    for place, reason in reasons.items():
        if reason is not None:
            print(f"{reason} It is written again from {sound}", file=sys.stderr)
        _copy_whole(sound, place)
    return content


def _copy_whole(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_bytes(source.read_bytes())


def copy_of(path: Path | str) -> Path:
    """Where the copy of a file lies that `write_twice` has written."""
    path = Path(path)
    return path.with_name(f"{path.stem}_copy{path.suffix}")


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
    errno.EIO: "the disk, or the connection to it, has failed: see that it works again, or choose "
    "another folder",
    errno.EACCES: "you may not write there: change the permissions, or choose another folder",
}


NO_INODES = "the disk can hold no more files, as its inodes are used up: remove some files"
FEW_INODES = 16  # a file that could not be made has left its own free
SOME_ROOM = 2**20  # bytes


def _lacks_inodes(folder: Path) -> bool:
    """Whether a disk has room, but not for one more name."""
    try:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        status = os.statvfs(there)
    except (OSError, StopIteration):
        return False
    has_few = status.f_files > 0 and status.f_favail < FEW_INODES
    return has_few and status.f_bavail * status.f_frsize > SOME_ROOM


def disk_trouble(error: BaseException | None) -> str | None:
    """Say what is wrong with the disk, and the fix, if that is what an error tells.

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
            what = "read or written" if number == errno.EIO else "written to"
            if number == errno.ENOSPC and where and _lacks_inodes(Path(place)):
                said = NO_INODES
            return (
                f"{place} cannot be {what}: {said}, then run the same command again; what is "
                f"finished stays ({os.strerror(number)})"
            )
    return disk_trouble(error.__cause__ or error.__context__)


OUT_OF_MEMORY = (
    "run it with fewer --cores, so that fewer jobs run at once, or on a machine with more memory; "
    "fewer tiles or stamps a shard (input.tiles_per_shard, input.stamps_per_shard) help too. Then "
    "run the same command again; what is finished stays"
)


def memory_trouble(error: BaseException | None) -> str | None:
    """Say what to do, if an error or one of its causes is a lack of memory."""
    if error is None:
        return None
    if isinstance(error, MemoryError):
        return (
            f"The job has run out of memory ({str(error) or 'no more is given'}): {OUT_OF_MEMORY}"
        )
    return memory_trouble(error.__cause__ or error.__context__)


def _is_for_users(error: BaseException) -> bool:
    """Whether an error's message is all that its reader needs."""
    ours = type(error).__module__.partition(".")[0] == "luneta"
    return ours or isinstance(error, InterruptedError | FloatingPointError)


def _log_file(path: Path) -> logging.Handler:
    """Return a handler that writes to a new file; others may foresee the name of a log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return logging.StreamHandler(os.fdopen(open_new(path), "w", encoding="utf-8"))


class _Formatter(logging.Formatter):
    """Formats records without secrets of URLs, and without commands to the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(redacted(super().format(record)), keep="\n\t")


def log_to(path: Path | str) -> None:
    """Send log records to `path` as well as standard error, uncaught errors included.

    URLs are logged without user, password and query.

    Errors of our own types, numbers that are not finite, a full disk and a lack of memory are told
    in one message, which says what to do; another error with where in the program it happened.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    logging.raiseExceptions = False  # on a full disk there is nowhere to log to
    try:
        handlers.insert(0, _log_file(Path(path)))
    except FileExistsError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
    except OSError as error:
        if (trouble := disk_trouble(error)) is None:
            raise
        sys.exit(trouble)
    formatter = _Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s")
    for handler in handlers:
        handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)

    def log_uncaught(kind, error, traceback):
        trouble = disk_trouble(error) or memory_trouble(error)
        told = str(error) if _is_for_users(error) else trouble
        shown = None if told else (kind, error, traceback)
        logging.getLogger("luneta").critical("%s", told or error, exc_info=shown)

    sys.excepthook = log_uncaught
