"""Checks of the stored bytes of FITS data that the reading libraries leave out."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import numpy as np

from luneta.survey.fits_headers import Unit, unreadable

_WIDTHS = {"L": 1, "B": 1, "I": 2, "J": 4, "K": 8, "E": 4, "D": 8, "P": 8, "Q": 16}
_ANY_ZLIB_HEADER = 47


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


def check_fallback_tiles(unit: Unit, stored: np.ndarray, path: Path | str) -> None:
    """Check the tiles that are packed by gzip in an image compressed otherwise.

    CFITSIO runs for ever on a gzip stream that does not end.

    Parameters
    ----------
    unit : Unit
        A compressed image.
    stored : numpy.ndarray
        Its data as they are in the file, uint8.

    Raises
    ------
    ImageError
        If one of the streams is broken.
    """
    tiles = _fallback_tiles(unit, stored)
    heap = unit.get("THEAP", unit.get("NAXIS1") * unit.get("NAXIS2"))
    for length, start in tiles[tiles[:, 0] > 0].tolist():
        first = heap + start
        if start < 0 or first + length > len(stored):
            raise unreadable(path, "is damaged: a compressed tile lies outside the file's data")
        stream = zlib.decompressobj(_ANY_ZLIB_HEADER)
        try:
            stream.decompress(stored[first : first + length])
        except zlib.error as error:
            raise unreadable(path, f"is damaged in a compressed tile: {error}") from None
        if not stream.eof:
            raise unreadable(path, "is damaged: a compressed tile breaks off")


def _fallback_tiles(unit: Unit, stored: np.ndarray) -> np.ndarray:
    """Length and place in the heap of each tile's gzip stream, shape (tiles, 2)."""
    offset = 0
    for column in range(1, unit.get("TFIELDS", 0) + 1):
        repeat, kind = re.match(r"(\d*)([A-Z])", unit.get(f"TFORM{column}")).groups()
        width = int(repeat or 1) * _WIDTHS[kind]
        if unit.get(f"TTYPE{column}") == "GZIP_COMPRESSED_DATA" and kind in "PQ":
            table = stored[: unit.get("NAXIS1") * unit.get("NAXIS2")]
            cells = table.reshape(-1, unit.get("NAXIS1"))[:, offset : offset + width]
            return np.ascontiguousarray(cells).view(">i4" if kind == "P" else ">i8")
        offset += width
    return np.empty((0, 2), np.int64)
