"""Faults of a machine or server that pass: what failed today may work in the next run.

A file that does not exist, may not be read or is damaged stays so until somebody changes it. A disk
that does not answer, a server that is away or a machine without memory is of another kind: nothing
is known of the file.
"""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path

_NAMES = (
    "EIO", "ESTALE", "ETIMEDOUT", "ENOMEM", "EMFILE", "ENFILE", "EAGAIN", "EINTR", "EBUSY",
    "ENOBUFS", "EREMOTEIO", "ENOLINK", "ECOMM", "EPROTO", "ENOLCK", "EKEYEXPIRED", "ENODEV",
    "ENXIO", "ECONNRESET", "ECONNREFUSED", "ECONNABORTED", "ENOTCONN", "ESHUTDOWN", "EPIPE",
    "ENETDOWN", "ENETUNREACH", "ENETRESET", "EHOSTDOWN", "EHOSTUNREACH",
)  # fmt: skip
PASSING = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))
FULL = (errno.ENOSPC, errno.EDQUOT)
_CHUNK = 2**20
_MOST_READ = 2**27  # bytes at either end of a file; a file of holes can be of any size


class NoRoom(OSError):
    """The folder of temporary files cannot take a file: all others would fail likewise.

    Parameters
    ----------
    error : OSError
        What the system says.
    folder : path or str
        Where.
    """

    def __init__(self, error: OSError, folder: Path | str):
        super().__init__(error.errno, error.strerror or str(error))
        self._folder = str(folder)

    def __str__(self) -> str:
        """Return what to do about it."""
        return (
            f"{self._folder} cannot take a temporary file ({self.strerror}): free some space "
            "there, or set the environment variable TMPDIR to a folder with more; then run the "
            "same command again. What is finished stays"
        )

    def __reduce__(self) -> tuple:
        """Return what makes it again in another process."""
        return type(self), (OSError(self.errno, self.strerror), self._folder)


def passing_fault(error: BaseException | None, path: Path | str | None = None) -> str | None:
    """Say which passing fault an error tells of; None if it tells of another one.

    Parameters
    ----------
    error : BaseException or None
        Of the system, or of a library that passes on its words or its number.
    path : path or str, optional
        The file that was read. As some libraries tell neither, it is read once more, as bytes.

    Returns
    -------
    str or None
        In the system's words.
    """
    number = _number(error)
    if number is None and path is not None:
        number = _number(_of_reading(path))
    return None if number is None else os.strerror(number)


def is_full(error: BaseException | None) -> bool:
    """Whether an error tells that a disk is full, or a quota used up."""
    text = str(error)
    is_known = isinstance(error, OSError) and error.errno in FULL
    return is_known or any(os.strerror(number) in text for number in FULL)


def _number(error: BaseException | None) -> int | None:
    """Return the number of a passing fault, if that is what an error or one of its causes tells."""
    if error is None:
        return None
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno if error.errno in PASSING else None
    text = str(error)
    found = (number for number in PASSING if _tells(text, number))
    return next(found, None) or _number(error.__cause__ or error.__context__)


def _tells(text: str, number: int) -> bool:
    words = (f"[Errno {number}]", f"errno = {number},", os.strerror(number))
    return any(word in text for word in words)


def _of_reading(path: Path | str) -> OSError | None:
    """Read a plain file as bytes, of a large one its ends; return the error of that."""
    try:
        if not Path(path).is_file():
            return None
        with Path(path).open("rb", buffering=0) as file:
            _read(file, _MOST_READ)
            if file.tell() >= _MOST_READ:
                file.seek(max(_MOST_READ, os.fstat(file.fileno()).st_size - _MOST_READ))
                _read(file, _MOST_READ)
    except OSError as error:
        return error
    except ValueError:  # a name that no file can bear
        return None
    return None


def _read(file: FileIO, most: int) -> None:
    while most > 0 and (part := file.read(_CHUNK)):
        most -= len(part)
