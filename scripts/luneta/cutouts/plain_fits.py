"""A fast reader of the plainest FITS files: one whole, uncompressed image in the primary unit."""

from __future__ import annotations

import math
import os
import re
import stat
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from luneta.survey.calibration import KEYWORDS
from luneta.survey.fits_headers import BLOCK, CARD, PIXEL_KEYWORDS

END = b"END" + b" " * (CARD - 3)
EXTENSION = b"XTENSION"
LARGEST = 2**28  # bytes of a file; the full reader does not read all of a larger one
SIMPLE = b"SIMPLE  =                    T"
TYPES = {8: "u1", 16: ">i2", 32: ">i4", -32: ">f4", -64: ">f8"}
MANDATORY = (
    "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT", "GCOUNT", "XTENSION", "SIMPLE",
)  # fmt: skip
# Files with these keywords behind the mandatory ones are left to the full reader, which checks or
# obeys them.
UNUSUAL = frozenset(keyword.ljust(8).encode() for keyword in (*PIXEL_KEYWORDS, *MANDATORY))
TELLING = frozenset(keyword.ljust(8).encode() for keyword in (*KEYWORDS, "HIERARCH"))
_INTEGER = re.compile(rb"= +(-?\d+) *(?:/[ -~]*)?\Z")


class PlainImage(NamedTuple):
    """The pixels of a file that is nothing but one image.

    Attributes
    ----------
    pixels : numpy.ndarray
        As stored, big-endian and read-only, shape (y, x) or (plane, y, x).
    is_silent : bool
        Whether its header says nothing of the unit of its pixels.
    """

    pixels: np.ndarray
    is_silent: bool


def read_plain(path: str) -> PlainImage | None:
    """Read a FITS file that is nothing but one image.

    Parameters
    ----------
    path : str
        Path without [EXTENSION].

    Returns
    -------
    PlainImage or None
        None where the file is missing, broken, or anything else: the full reader then does it, or
        says what is wrong.
    """
    try:
        content = _content(path)
    except (OSError, ValueError):
        return None
    start = _header_size(content)
    header = content[:start]
    layout = _layout(header[CARD : 6 * CARD])
    if start == 0 or layout is None or not header.isascii() or b"\0" in header:
        return None
    if header[header.rindex(END) + CARD :].strip(b" "):
        return None
    kind, shape = layout
    first = (3 + len(shape)) * CARD
    keywords = {header[card : card + 8].upper() for card in range(first, start, CARD)}
    if not UNUSUAL.isdisjoint(keywords):
        return None
    pixels = _pixels(content, start, kind, shape)
    return None if pixels is None else PlainImage(pixels, TELLING.isdisjoint(keywords))


def _content(path: str) -> bytes:
    # Half the time of Path.read_bytes, and the time of small files is all in these calls.
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # or a named pipe waits for ever
    try:
        info = os.fstat(file)
        if not stat.S_ISREG(info.st_mode) or info.st_size > LARGEST:
            raise ValueError
        return os.read(file, info.st_size)
    finally:
        os.close(file)


def _header_size(content: bytes) -> int:
    """Bytes up to the data; 0 where there is no END."""
    if not content.startswith(SIMPLE):
        return 0
    end = content.find(END)
    while end >= 0 and end % CARD:
        end = content.find(END, end + 1)
    return 0 if end < 0 else math.ceil((end + CARD) / BLOCK) * BLOCK


def _pixels(
    content: bytes, start: int, kind: np.dtype, shape: tuple[int, ...]
) -> np.ndarray | None:
    """Read what follows the header, if that is as much as the header says and no more."""
    count = math.prod(shape)
    end = start + math.ceil(count * kind.itemsize / BLOCK) * BLOCK
    if len(content) < end or not _may_follow(content[end : end + len(EXTENSION)]):
        return None
    return np.frombuffer(content, kind, count, start).reshape(shape)


def _may_follow(content: bytes) -> bool:
    """Whether nothing or another extension follows the image; of all else the full reader tells."""
    return content in (b"", EXTENSION)


@lru_cache(maxsize=1024)
def _layout(cards: bytes) -> tuple[np.dtype, tuple[int, ...]] | None:
    """Type and shape by the mandatory cards after SIMPLE, which many files share."""
    bits, axes = _integer(cards, 0, b"BITPIX  "), _integer(cards, 1, b"NAXIS   ")
    if bits not in TYPES or axes not in (2, 3):
        return None
    lengths = [_integer(cards, 2 + n, b"NAXIS%d  " % (n + 1)) for n in range(axes)]
    if any(length is None or length < 1 for length in lengths):
        return None
    return np.dtype(TYPES[bits]), tuple(lengths[::-1])


def _integer(cards: bytes, number: int, keyword: bytes) -> int | None:
    """Value of a card at its mandatory place; None if it is not there."""
    card = cards[number * CARD : (number + 1) * CARD]
    found = _INTEGER.match(card[8:]) if card.startswith(keyword) else None
    return None if found is None else int(found[1])
