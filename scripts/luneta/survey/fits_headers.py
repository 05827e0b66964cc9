"""Headers of a FITS file, read strictly: what each part of it promises, and whether that can be.

The pixels are not touched, so that the coordinate systems of thousands of tiles cost little.
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import math
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import BinaryIO

from luneta.faults import passing_fault
from luneta.printable import printable
from luneta.survey.bounds import ALWAYS_ALLOWED, BEST_COMPRESSION, TooLarge, check_size
from luneta.survey.flags import Flag
from luneta.urls import redacted, shown_url

BLOCK = 2880
CARD = 80
_MOST_FIELDS = 999
_MOST_HEADER_BYTES = 16 * 1024**2
_MOST_EXTENSIONS = 20_000
_MOST_NAMED = 20
_BITPIX = (8, 16, 32, 64, -32, -64)
_HARMLESS = b"\0 \t\r\n\v\f\x1a"  # what editors and transfers leave at the end of a file
_HIERARCH = re.compile(rb"HIERARCH +([^=]*?) *= ?(.*)", re.DOTALL | re.IGNORECASE)
# Of an image that has none of these, the stored numbers are the pixels, and nothing tells whether
# they have changed. Every reader of pixels asks this list: no other keyword may change a pixel.
PIXEL_KEYWORDS = (
    "BSCALE", "BZERO", "BLANK", "ZBLANK", "BSOFTEN", "BOFFSET", "DATASUM", "CHECKSUM", "GROUPS",
)  # fmt: skip
_LAYOUT = re.compile(
    r"BITPIX|NAXIS\d*|PCOUNT|GCOUNT|XTENSION|Z(IMAGE|CMPTYPE|BITPIX|NAXIS\d*|TILE\d+)"
    r"|" + "|".join(k for k in PIXEL_KEYWORDS if k != "CHECKSUM")  # whose value is never used
)
_TABLE_LAYOUT = re.compile(r"T(FIELDS|FORM\d+)|THEAP")
_PACKERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}
_ONE_SLASH = re.compile(r"(^|[/ ])(https?|s3|gs|ftp):/[^/]", re.IGNORECASE)
_NO_FILES = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_OTHER_FORMATS = {
    b"<": "a web page or other markup",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"\x89HDF": "an HDF5 file",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"\x1f\x9d": "a file of the old Unix compress: unpack it",
    b"version https://git-lfs": "a Git LFS pointer, whose content was never downloaded",
}


class ImageError(Exception):
    """An image file that cannot be used; neither the reason nor the path shows a secret of a URL.

    Attributes
    ----------
    flag : Flag
        What its objects are flagged with.
    path : str or None
        The file at fault, where it is known.
    """

    def __init__(self, flag: Flag, reason: str, path: Path | str | None = None):
        super().__init__(printable(redacted(reason)))
        self.flag = flag
        self.path = None if path is None else shown_url(str(path))


def unreadable(path: Path | str, reason: str) -> ImageError:
    """Make the error of a file that is there but cannot be used."""
    return ImageError(Flag.UNREADABLE_FILE, f"{path} {reason}", path)


def unavailable(path: Path | str, fault: str) -> ImageError:
    """Make the error of a file that could not be read, and may be readable in the next run."""
    reason = f"{path} could not be read this time: {fault}; the next run tries again"
    return ImageError(Flag.UNAVAILABLE, reason, path)


@dataclass(frozen=True)
class Unit:
    """One header with its data, as the header describes it.

    Attributes
    ----------
    number : int
        0 is the primary one.
    cards : dict of str to bytes
        The card of each keyword, in capitals; of a repeated keyword the first.
    start, data : int
        First byte of the header, and of the data, in the (unpacked) file.
    size : int
        Bytes of data, without the padding to whole blocks.
    shape : tuple of int
        Axes of the image, slowest first: (..., y, x); of the unpacked image if `compressed`.
    ambiguous : dict of str to bytes
        Keywords that stand in the header again with another value, and the last such card.
    primary : dict of str to bytes
        Cards of the file's primary header; empty of the primary one itself.
    notes : tuple of str
        How the header departs from the standard without harm.
    """

    number: int
    cards: dict[str, bytes]
    start: int
    data: int
    size: int
    shape: tuple[int, ...]
    ambiguous: dict[str, bytes] = field(default_factory=dict)
    primary: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def get(self, keyword: str, default=None):
        """Return the value of a keyword: bool, int, float or str."""
        card = self.cards.get(keyword)
        return default if card is None else card_value(card, default)

    def get_anywhere(self, keyword: str, default=None):
        """Return the value of a keyword of this header, or else of the primary one."""
        card = self.cards.get(keyword, self.primary.get(keyword))
        return default if card is None else card_value(card, default)

    def pixel_keyword(self, keyword: str, default=None):
        """Return the value of one of `PIXEL_KEYWORDS`; KeyError for any other."""
        if keyword not in PIXEL_KEYWORDS:
            raise KeyError(keyword)
        return self.get(keyword, default)

    @property
    def kind(self) -> str:
        """What it is: "IMAGE", "BINTABLE", "TABLE", ..."""
        return str(self.get("XTENSION", "IMAGE")).strip().upper()

    @property
    def compressed(self) -> bool:
        """Whether it is an image cut into compressed tiles."""
        return self.kind == "BINTABLE" and self.get("ZIMAGE") is True

    @property
    def is_image(self) -> bool:
        """Whether it is an image, compressed or not."""
        return self.compressed or self.kind in ("IMAGE", "IUEIMAGE")

    @property
    def bitpix(self) -> int:
        """Bits of a stored pixel, negative if a float; of the unpacked image if `compressed`."""
        return self.get("ZBITPIX" if self.compressed else "BITPIX")

    @property
    def name(self) -> str:
        """EXTNAME, in capitals."""
        return str(self.get("EXTNAME", "" if self.number else "PRIMARY")).strip().upper()

    @property
    def end(self) -> int:
        """First byte of what comes after, if the file goes on."""
        return self.data + math.ceil(self.size / BLOCK) * BLOCK


def card_value(card: bytes, default=None):
    """Return the value of a header card: bool, int, float or str; `default` if it has none."""
    text = card[10:].decode("latin-1") if card[8:10] == b"= " else ""
    if (quoted := re.match(r"\s*'((?:[^']|'')*)'", text)) is not None:
        return quoted[1].replace("''", "'").rstrip()
    text = text.split("/")[0].strip()
    if text in ("T", "F"):
        return text == "T"
    for kind in (int, float):
        try:
            return kind(text.replace("D", "E"))
        except ValueError:
            continue
    return text or default


def make_card(keyword: str, value: bool | float | str) -> bytes:
    """Write a header card of 80 bytes."""
    if isinstance(value, str):
        text = f"'{value:<8}'"
    elif isinstance(value, bool):
        text = f"{'FT'[value]:>20}"
    else:
        text = f"{value!r:>20}"
    return f"{keyword:<8}= {text}".encode("ascii", "replace").ljust(CARD)


def require_file(path: Path | str) -> None:
    """Insist on a plain file, since to open a named pipe is to wait for ever.

    Raises
    ------
    ImageError
        If it is missing, or a directory, a named pipe, a socket or a device, or in /proc or /sys.
    """
    try:
        info = Path(path).stat()
    except (OSError, ValueError) as error:
        raise _not_opened(Path(path), error) from None
    kind = stat.S_IFMT(info.st_mode)
    if kind in _NO_FILES:
        raise unreadable(path, f"is {_NO_FILES[kind]}, not a file")
    if info.st_dev in _system_devices():
        raise unreadable(path, "lies in /proc or /sys, where the system shows its own state")


@cache
def _system_devices() -> frozenset[int]:
    """Numbers of the file systems /proc and /sys, where there are any."""
    places = (place for place in map(Path, ("/proc", "/sys")) if place.is_dir())
    return frozenset(place.stat().st_dev for place in places) - {Path("/").stat().st_dev}


def open_plain(path: Path | str) -> BinaryIO:
    """Open a file for reading, as it is.

    Raises
    ------
    ImageError
        If it is missing, not a plain file, forbidden, or cannot be read this time.
    """
    require_file(path)
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise _not_opened(Path(path), error) from None


def open_file(path: Path | str) -> BinaryIO:
    """Open a file for reading, unpacked if it is packed by gzip or bzip2.

    Raises
    ------
    ImageError
        If it is missing, no plain file, empty, forbidden, or of another format than FITS.
    """
    require_file(path)
    try:
        with Path(path).open("rb", buffering=0) as file:
            start = file.read(CARD)
        for magic, opener in _PACKERS.items():
            if start.startswith(magic):
                return opener(path, "rb")
        _check_start(path, start)
        return Path(path).open("rb", buffering=0)
    except OSError as error:
        raise _not_opened(Path(path), error) from None


def _not_opened(path: Path, error: Exception) -> ImageError:
    code = getattr(error, "errno", None)
    if fault := passing_fault(error):
        return unavailable(path, fault)
    if code in (errno.ENOENT, errno.ENOTDIR):
        target = f": it is a link to {path.readlink()}" if path.is_symlink() else ""
        hint = "; a URL has two slashes behind its protocol" if _ONE_SLASH.search(str(path)) else ""
        return ImageError(Flag.MISSING_FILE, f"{path} does not exist{target}{hint}", path)
    if code == errno.ELOOP:
        return unreadable(path, "is a symbolic link that leads round in a circle")
    if code == errno.EACCES:
        return unreadable(path, "may not be read by this user: see its permissions (ls -l)")
    return unreadable(path, f"cannot be opened: {getattr(error, 'strerror', None) or error}")


def _check_start(path: Path | str, start: bytes) -> None:
    if not start:
        raise unreadable(path, "is empty (0 bytes)")
    if start.startswith(b"SIMPLE  ="):
        return
    for magic, what in _OTHER_FORMATS.items():
        if start.lstrip().startswith(magic):
            raise unreadable(path, f"is {what}, not FITS")
    raise unreadable(path, f"is not FITS: it starts with {start[:9]!r} instead of 'SIMPLE  ='")


def read_units(file: BinaryIO, path: Path | str) -> Iterator[Unit]:
    """Go through the headers of an open file, skipping the data.

    Parameters
    ----------
    file : binary file
        As `open_file` gives it.
    path : path or str
        For messages.

    Raises
    ------
    ImageError
        If a header ends before its END, or promises what cannot be.
    """
    number, start = 0, 0
    primary: dict[str, bytes] = {}
    while True:
        file.seek(start)
        header = _read_header(file, path, number, start)
        if header is None:
            return
        unit = replace(_unit(path, number, header, start), primary=primary)
        if number == 0:
            primary = unit.cards
        if number > _MOST_EXTENSIONS:
            raise unreadable(path, f"has more than {_MOST_EXTENSIONS:,} extensions")
        if not isinstance(file, io.FileIO):
            require_bound(path, unit.data)  # so much was unpacked to come here
        yield unit
        number, start = number + 1, unit.end


@dataclass
class _Header:
    """The cards of one header, its length in bytes, and what is odd about them."""

    cards: dict[str, bytes] = field(default_factory=dict)
    ambiguous: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    length: int = 0

    def add(self, card: bytes) -> None:
        """Take in a card; keywords in small letters count as those in capitals."""
        keyword, card = _keyword_and_card(card.replace(b"\0", b" "))
        first = self.cards.setdefault(keyword, card)
        has_value = card[8:10] == b"= "
        if has_value and first != card and card_value(first, None) != card_value(card, None):
            self.ambiguous[keyword] = card


def _keyword_and_card(card: bytes) -> tuple[str, bytes]:
    """Return a card's keyword in capitals, and the card; one of HIERARCH in the usual form."""
    long = _HIERARCH.match(card)
    if long is not None:
        name = long[1].decode("latin-1").upper()
        card = (long[1][:8].ljust(8) + b"= " + long[2]).ljust(CARD)
        # A name that the standard could mean is not what it means.
        return (name if _is_long(name) else f"HIERARCH {name}"), card
    written = card[:8].decode("latin-1")
    if not written.isupper():
        card = written.upper().encode("latin-1", "replace")[:8].ljust(8) + card[8:]
    return written.rstrip().upper(), card


def _is_long(name: str) -> bool:
    """Whether only HIERARCH can write a keyword, or it names a mask plane of LSST."""
    return len(name) > 8 or not re.fullmatch(r"[A-Z0-9_-]+", name) or name.startswith("MP_")


def _read_header(file: BinaryIO, path, number: int, start: int) -> _Header | None:
    """Read one header; None after the last one."""
    header = _Header()
    while header.length < _MOST_HEADER_BYTES:
        block = read_fully(file, BLOCK)
        if header.length == 0 and _is_the_end(path, number, start, block):
            return None
        _require_block(path, number, start + header.length, block)
        is_last = _add_cards(header, block, path, number)
        header.length += len(block)
        if is_last:
            return header
        if not _looks_like_text(block):
            raise unreadable(
                path,
                f"has no END in the header of extension {number}: what is no text comes before "
                f"byte {start + header.length:,}",
            )
    raise unreadable(path, f"has no END in the header of extension {number}")


def _require_block(path, number: int, place: int, block: bytes) -> None:
    if len(block) < BLOCK:
        raise unreadable(
            path,
            f"is truncated in the header of extension {number}: the file ends after "
            f"{place + len(block):,} bytes",
        )


def _add_cards(header: _Header, block: bytes, path, number: int) -> bool:
    """Add the cards of a block; tell whether END is among them."""
    for first in range(0, len(block), CARD):
        card = block[first : first + CARD]
        if card.rstrip(b" \0") == b"END":
            if block[first:].strip(b" ") != b"END":
                header.notes += (f"other bytes than blanks follow END in extension {number}",)
            return True
        if card.startswith(b"XTENSION") and header.length + first > 0:
            raise unreadable(
                path, f"has no END in the header of extension {number}: that of the next begins"
            )
        header.add(card)
    return False


def _looks_like_text(block: bytes) -> bool:
    """Whether each card of a block begins like one; values may hold letters beyond ASCII."""
    keywords = b"".join(block[first : first + 8] for first in range(0, len(block), CARD))
    return keywords.isascii() and keywords.decode("ascii").isprintable()


def read_fully(file: BinaryIO, count: int) -> bytes:
    """Read so many bytes, fewer only at the end of the file."""
    parts = []
    while count > 0 and (part := file.read(count)):
        parts.append(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_the_end(path, number: int, start: int, block: bytes) -> bool:
    if number == 0:
        _check_start(path, block)
        return False
    if block.startswith(b"XTENSION"):
        return False
    if block.strip(_HARMLESS):
        raise unreadable(
            path,
            f"goes on at byte {start:,}, after the data of extension {number - 1} as the header "
            "counts them, with what is no extension: NAXIS or BITPIX is wrong, or the file damaged",
        )
    return True


def _unit(path, number: int, header: _Header, start: int) -> Unit:
    cards, data = header.cards, start + header.length
    _refuse_ambiguous_layout(path, number, header)
    axes = _axes(path, number, cards, "")
    size = _data_size(path, number, cards, axes)
    unit = Unit(number, cards, start, data, size, axes[::-1], header.ambiguous, notes=header.notes)
    if "TABLE" in unit.kind and unit.get("TFIELDS") not in range(_MOST_FIELDS + 1):
        said = unit.get("TFIELDS")
        raise unreadable(path, f"has a wrong header: TFIELDS of extension {number} is {said!r}")
    if not unit.compressed:
        return unit
    shape = _axes(path, number, cards, "Z")[::-1]
    _check_tiles(path, unit, axes, shape)
    image = replace(unit, shape=shape)
    check_memory(path, image, unit.size)
    return image


def _refuse_ambiguous_layout(path, number: int, header: _Header) -> None:
    """Refuse a header that says two things of its pixels: which one holds is not known."""
    is_image = "ZIMAGE" in header.cards
    for keyword in header.ambiguous:
        matters = _LAYOUT.fullmatch(keyword) or (is_image and _TABLE_LAYOUT.fullmatch(keyword))
        if not matters:
            continue
        first = card_value(header.cards[keyword], None)
        last = card_value(header.ambiguous[keyword], None)
        raise unreadable(
            path,
            f"has a wrong header: {keyword} stands twice in extension {number}, as {first!r} and "
            f"as {last!r}; remove one of the two cards",
        )


def _axes(path, number: int, cards: dict[str, bytes], prefix: str) -> tuple[int, ...]:
    """Lengths of the axes, fastest first, as in the header."""

    def whole(keyword: str, most: int) -> int:
        card = cards.get(keyword)
        value = None if card is None else card_value(card, None)
        if type(value) is int and 0 <= value <= most:
            return value
        said = "missing" if card is None else f"{value!r}, which is no length or count"
        raise unreadable(path, f"has a wrong header: {keyword} of extension {number} is {said}")

    count = whole(f"{prefix}NAXIS", 999)
    return tuple(whole(f"{prefix}NAXIS{axis}", 2**62) for axis in range(1, count + 1))


def _data_size(path, number: int, cards: dict[str, bytes], axes: tuple[int, ...]) -> int:
    values = {}
    for keyword, default in (("BITPIX", None), ("PCOUNT", 0), ("GCOUNT", 1)):
        values[keyword] = card_value(cards[keyword], None) if keyword in cards else default
    if type(values["BITPIX"]) is not int or values["BITPIX"] not in _BITPIX:
        raise unreadable(
            path,
            f"has a wrong header: BITPIX of extension {number} is {values['BITPIX']!r}; FITS "
            "knows 8, 16, 32, 64, -32 and -64",
        )
    if not all(type(value) is int and value >= 0 for value in (values["PCOUNT"], values["GCOUNT"])):
        raise unreadable(
            path, f"has a wrong header: PCOUNT or GCOUNT of extension {number} is no count"
        )
    elements = math.prod(axes) if axes else 0
    return abs(values["BITPIX"]) // 8 * values["GCOUNT"] * (values["PCOUNT"] + elements)


def _check_tiles(path, unit: Unit, axes: tuple[int, ...], shape: tuple[int, ...]) -> None:
    """Compare a compressed image's shape with the number of its tiles: the rows of the table."""
    if unit.bitpix not in _BITPIX:
        raise unreadable(path, f"has a wrong header: ZBITPIX is {unit.bitpix!r}")
    tiles = 1
    pixels = 1
    for axis, length in enumerate(shape[::-1], start=1):
        tile = unit.get(f"ZTILE{axis}", length if axis == 1 else 1)
        if type(tile) is not int or tile < 1:
            raise unreadable(path, f"has a wrong header: ZTILE{axis} is {tile!r}")
        tiles *= math.ceil(length / tile)
        pixels *= tile
    if pixels > max(math.prod(shape), ALWAYS_ALLOWED // 8):
        raise unreadable(
            path,
            f"has a wrong header: tiles have {pixels:,} pixels, the image {math.prod(shape):,}",
        )
    if len(axes) != 2 or tiles != axes[1]:
        raise unreadable(
            path,
            f"has a wrong header: an image of shape {shape} is cut into {tiles:,} compressed "
            f"tiles, but extension {unit.number} holds {axes[-1] if axes else 0:,}",
        )


def check_memory(path: Path | str, unit: Unit, packed: int) -> None:
    """Refuse an image far larger than what packed data could hold, before memory is asked for it.

    Parameters
    ----------
    packed : int
        Bytes of the packed file, or of the compressed extension.

    Raises
    ------
    ImageError
        If the image has more than 1 GB, and more than 10,000 times as many bytes.
    """
    size = math.prod(unit.shape) * abs(unit.bitpix) // 8
    if size > max(ALWAYS_ALLOWED, packed * BEST_COMPRESSION):
        raise unreadable(
            path,
            f"has a wrong header: {packed:,} bytes of packed data cannot hold the {size:,} bytes "
            f"of an image of shape {unit.shape} in extension {unit.number}",
        )
    require_bound(path, size)


def require_bound(path: Path | str, size: int) -> None:
    """Refuse to read so many bytes at once, if they are more than one file may ask for.

    Raises
    ------
    ImageError
        If so.
    """
    try:
        check_size(size, size)
    except TooLarge as error:
        raise unreadable(path, str(error)) from None


def check_what_follows(file: BinaryIO, path: Path | str, unit: Unit) -> tuple[str, ...]:
    """Check that after an extension's data comes another extension, or nothing.

    Returns
    -------
    tuple of str
        A note, if a few bytes follow that do no harm, such as a newline.

    Raises
    ------
    ImageError
        If there is something else: the header counts fewer data than there are.
    """
    file.seek(unit.end)
    block = read_fully(file, BLOCK)
    if not block or not _is_the_end(path, unit.number + 1, unit.end, block):
        return ()
    return (f"{len(block):,} bytes without meaning follow the last extension",)


def find_unit(file: BinaryIO, path: Path | str, extension: str | int | None) -> Unit:
    """Find an image in an open file.

    Parameters
    ----------
    extension : str, int or None
        Number, name, name with * and ?, name and version ("SCI,2"); None: the first image that
        has pixels.

    Raises
    ------
    ImageError
        If there is none, or it is no image of at least two axes.
    """
    seen: list[str] = []
    for unit in read_units(file, path):
        if len(seen) < _MOST_NAMED:
            seen.append(f"{unit.number} {unit.name} ({_describe(unit)})")
        if _is_meant(unit, extension):
            _check_image(path, unit)
            return unit
    there = ", ".join(seen)
    wanted = "no extension with an image" if extension is None else f"no extension {extension!r}"
    raise unreadable(path, f"has {wanted}; it holds {there}")


def _is_meant(unit: Unit, extension: str | int | None) -> bool:
    if extension is None:
        return unit.is_image and len(unit.shape) >= 2 and unit.size > 0
    if isinstance(extension, int):
        return unit.number == extension
    name, _, version = extension.upper().rpartition(",")
    if version.strip().isdigit() and name:
        given = unit.get("EXTVER", 1)
        return fnmatchcase(unit.name, name.strip()) and given == int(version)
    return fnmatchcase(unit.name, extension.strip().upper())


def _describe(unit: Unit) -> str:
    if not unit.is_image:
        return "table" if "TABLE" in unit.kind else unit.kind
    return " x ".join(map(str, unit.shape[::-1])) + " pixels" if unit.shape else "empty"


def _check_image(path, unit: Unit) -> None:
    which = f"extension {unit.number}" + (f" ({unit.name})" if unit.name else "")
    if not unit.is_image:
        raise unreadable(path, f"has a {_describe(unit)} in {which}, not an image")
    if len(unit.shape) < 2:
        raise unreadable(
            path, f"has {len(unit.shape)} axes in {which}; an image has two, (y, x), or is a cube"
        )
    if 0 in unit.shape:
        reason = f"{path} has an image without pixels in {which}: its shape is {unit.shape}"
        raise ImageError(Flag.NO_DATA, reason, path)
