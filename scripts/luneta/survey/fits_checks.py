"""Checks of the stored bytes of FITS data that the reading libraries leave out."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from luneta.survey.fits_headers import Unit, unreadable

_WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "P": 8, "Q": 16}
_ANY_ZLIB_HEADER = 47
_PACKER_HEADER = 64
_LONGEST_PIXEL = 8  # bytes
_BEST_GZIP = 1032  # bytes that one packed byte can stand for
_LARGE = 2**26  # what tiles that cannot unpack to more may hold needs no look
_PIECE = 2**20


def data_sum(stored) -> int:
    """Compute the checksum of FITS data: the ones'-complement sum of its 32-bit words.

    Parameters
    ----------
    stored : bytes-like
        Data as they are in the file; zeros are thought behind them up to a multiple of 4.

    References
    ----------
    FITS Standard 4.0, appendix J.
    """
    stored = np.frombuffer(stored, np.uint8)
    whole = len(stored) // 4 * 4
    total = int(stored[:whole].view(">u4").sum(dtype=np.uint64))
    total += int.from_bytes(stored[whole:].tobytes().ljust(4, b"\0"), "big")
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def check_gzip_tiles(unit: Unit, read: Callable[[int, int], np.ndarray], path: Path | str) -> None:
    """Check what the libraries do not: tiles packed by gzip, and the shape of tiles of HCOMPRESS.

    CFITSIO runs for ever on a gzip stream that does not end, and astropy unpacks all that a stream
    holds, however small its tile.

    Parameters
    ----------
    unit : Unit
        A compressed image.
    read : callable
        Reads so many bytes from a place of its data, uint8.

    Raises
    ------
    ImageError
        If one of the tiles is broken, or larger than the header says.
    """
    table = read(0, unit.get("NAXIS1") * unit.get("NAXIS2"))
    heap = unit.get("THEAP", len(table))
    kind = str(unit.get("ZCMPTYPE")).strip()
    most = _LONGEST_PIXEL * _tile_pixels(unit) + _PACKER_HEADER
    for name in ("GZIP_COMPRESSED_DATA", "COMPRESSED_DATA"):
        tiles = _tiles_in(unit, table, name)
        is_fallback = name.startswith("GZIP")
        for length, start in tiles[tiles[:, 0] > 0].tolist():
            if is_fallback or (kind.startswith("GZIP") and length * _BEST_GZIP > _LARGE):
                packed = _tile(unit, read, heap + start, length, path)
                _check_stream(packed, most, path)
            elif kind.startswith("HCOMPRESS"):
                packed = _tile(unit, read, heap + start, min(length, 10), path)
                _check_hcompress(packed, _tile_pixels(unit), path)


def _tile(unit: Unit, read, first: int, length: int, path) -> bytes:
    stored = read(first, length) if first >= 0 and first + length <= unit.size else b""
    if len(stored) < length:
        raise unreadable(path, "is damaged: a compressed tile lies outside the file's data")
    return bytes(stored)


def _tile_pixels(unit: Unit) -> int:
    """Pixels of the largest tile."""
    sides = enumerate(unit.shape[::-1], start=1)
    return math.prod(unit.get(f"ZTILE{n}", side if n == 1 else 1) for n, side in sides)


def _check_stream(packed: bytes, most: int, path) -> None:
    """Check that a gzip stream ends, and holds no more bytes than a tile can have."""
    stream = zlib.decompressobj(_ANY_ZLIB_HEADER)
    rest = packed
    size = 0
    try:
        while rest and not stream.eof and size <= most:
            size += len(stream.decompress(rest, _PIECE))
            rest = stream.unconsumed_tail
        if size <= most:
            size += len(stream.flush(_PIECE)) if not stream.eof else 0
    except zlib.error as error:
        raise unreadable(path, f"is damaged in a compressed tile: {error}") from None
    if size > most:
        raise unreadable(
            path,
            f"is damaged: a compressed tile unpacks to more than the {most:,} bytes it can have",
        )
    if not stream.eof:
        raise unreadable(path, "is damaged: a compressed tile breaks off")


def _check_hcompress(packed: bytes, pixels: int, path) -> None:
    """Check the shape that a stream of HCOMPRESS tells itself (White, Postman & Lattanzi 1992)."""
    nx, ny = (int.from_bytes(packed[start : start + 4], "big", signed=True) for start in (2, 6))
    if nx < 0 or ny < 0 or nx * ny > pixels:
        raise unreadable(
            path,
            f"is damaged: a compressed tile tells its shape as {nx} x {ny}, and tiles have "
            f"{pixels:,} pixels at most",
        )


def _tiles_in(unit: Unit, table: np.ndarray, name: str) -> np.ndarray:
    """Length and place in the heap of each tile in a column, shape (tiles, 2)."""
    offset = 0
    for column in range(1, unit.get("TFIELDS", 0) + 1):
        repeat, kind = re.match(r"(\d*)([A-Z])", unit.get(f"TFORM{column}")).groups()
        width = int(repeat or 1) * _WIDTHS[kind]
        if unit.get(f"TTYPE{column}") == name and kind in "PQ":
            cells = table.reshape(-1, unit.get("NAXIS1"))[:, offset : offset + width]
            return np.ascontiguousarray(cells).view(">i4" if kind == "P" else ">i8")
        offset += width
    return np.empty((0, 2), np.int64)
