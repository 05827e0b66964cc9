"""Checksums inside our own Parquet and Arrow files, over every byte of them.

Both formats are read from their end, where a footer says where everything lies; readers pass
over bytes between the data and the footer. There a seal is laid:

    data | seal: ends of batches, a checksum of each block of data, head | footer

The head ends with a mark and holds a checksum of the seal and the footer. So any reader can use
the files, and ours finds out every change: of the data a block at a time, as it is read.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

BLOCK = 1 << 18
MARK = b"luneta#1"
HEAD = struct.Struct("<QQI8s")  # blocks, ends, checksum of seal and footer, mark
SEARCHED = 1 << 20

Read = Callable[[int, int], bytes | memoryview]


class BrokenSeal(ValueError):
    """A file is not as it was written; the message says what is wrong with it."""


def seal(path: Path | str, ends: Sequence[int] = ()) -> None:
    """Lay a seal into a finished Parquet or Arrow file that has none.

    Parameters
    ----------
    path : path
        The file; it is written to.
    ends : sequence of int
        Where in the file each of its batches ends, for `Seal.batch`.
    """
    with Path(path).open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = _footer(lambda a, b: _read(file.fileno(), a, b), size)
        footer = _read(file.fileno(), start, size)
        checksums = [
            zlib.crc32(_read(file.fileno(), at, min(at + BLOCK, start)))
            for at in range(0, start, BLOCK)
        ]
        body = np.array(ends, "<u8").tobytes() + np.array(checksums, "<u4").tobytes()
        checksum = _of_seal(body, len(checksums), len(ends), footer)
        file.seek(start)
        file.write(body + HEAD.pack(len(checksums), len(ends), checksum, MARK) + footer)


def _read(descriptor: int, start: int, stop: int) -> bytes:
    parts = []
    while start < stop and (part := os.pread(descriptor, stop - start, start)):
        parts.append(part)
        start += len(part)
    return b"".join(parts)


def _of_seal(body: bytes, blocks: int, ends: int, footer: bytes | memoryview) -> int:
    return zlib.crc32(footer, zlib.crc32(struct.pack("<QQ", blocks, ends), zlib.crc32(body)))


def _footer(read: Read, size: int) -> int:
    """Where the footer of a Parquet or Arrow file starts."""
    last = bytes(read(max(size - 10, 0), size))
    for mark in (b"PAR1", b"ARROW1"):
        if last.endswith(mark) and len(last) == 10:
            tail = len(mark) + 4
            (length,) = struct.unpack("<I", last[-tail : -len(mark)])
            if length + tail + len(mark) <= size:
                return size - length - tail
    raise BrokenSeal(f"its end is missing or altered ({size} bytes are there)")


class Seal:
    """The seal of a file, and what of the file is known to be sound.

    Parameters
    ----------
    read : callable
        Gives the bytes of the file from a start to a stop.
    size : int
        Size of the file.

    Attributes
    ----------
    is_there : bool
        A file from elsewhere has none; then nothing is checked.
    checksum : int or None
        CRC-32 of the checksums of all blocks, and of the footer.

    Raises
    ------
    BrokenSeal
        If the seal or the footer is not as it was written.
    """

    def __init__(self, read: Read, size: int):
        self._read = read
        self.checksum: int | None = None
        footer = _footer(read, size)
        head = footer - HEAD.size
        self.is_there = head >= 0 and bytes(read(footer - len(MARK), footer)) == MARK
        if not self.is_there:
            if MARK in bytes(read(max(size - SEARCHED, 0), size)):
                raise BrokenSeal("its footer is altered")
            return
        blocks, ends, checksum, _ = HEAD.unpack(read(head, footer))
        self._stop = head - 4 * blocks - 8 * ends
        if self._stop < 0 or -(-self._stop // BLOCK) != blocks:
            raise BrokenSeal("its seal is altered")
        body = bytes(read(self._stop, head))
        if _of_seal(body, blocks, ends, read(footer, size)) != checksum:
            raise BrokenSeal("the checksum of its footer is wrong")
        self.checksum = checksum
        self._ends = np.frombuffer(body, "<u8", ends)
        self._checksums = np.frombuffer(body, "<u4", blocks, 8 * ends)
        self._sound = np.zeros(blocks, bool)

    def batch(self, number: int) -> tuple[int, int]:
        """Where in the file a batch starts and stops."""
        return (int(self._ends[number - 1]) if number else 0), int(self._ends[number])

    def check(self, start: int = 0, stop: int | None = None) -> None:
        """Check those blocks of the data between two places that were not checked before.

        Raises
        ------
        BrokenSeal
            If one is not as it was written.
        """
        if not self.is_there:
            return
        stop = self._stop if stop is None else min(stop, self._stop)
        for block in range(start // BLOCK, -(-stop // BLOCK)):
            if self._sound[block]:
                continue
            at = block * BLOCK
            if zlib.crc32(self._read(at, min(at + BLOCK, self._stop))) != self._checksums[block]:
                raise BrokenSeal(f"the checksum of its bytes from {at} is wrong")
            self._sound[block] = True


def check(path: Path | str, whole: bool = True) -> bool:
    """Check a file, or its end alone; tell whether it had a seal to check by.

    Raises
    ------
    BrokenSeal
        If the file is not as it was written.
    OSError
        If it cannot be read.
    """
    with Path(path).open("rb") as file:
        found = _seal_in(file)
        if whole:
            found.check()
    return found.is_there


def seal_of(path: Path | str) -> int | None:
    """Read the checksum in a file's seal, which changes with any byte; None without a seal.

    Raises
    ------
    BrokenSeal
        If the seal or the footer is not as it was written.
    """
    with Path(path).open("rb") as file:
        return _seal_in(file).checksum


def _seal_in(file: BinaryIO) -> Seal:
    size = os.fstat(file.fileno()).st_size
    return Seal(lambda start, stop: _read(file.fileno(), start, stop), size)
