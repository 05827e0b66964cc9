"""Reading the pixels of image files, and what can be wrong with them."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import fitsio
import numpy as np
from astropy.io import fits

from luneta.faults import NoRoom, is_full, passing_fault
from luneta.survey.bounds import ALWAYS_ALLOWED, TEXT_BEST_COMPRESSION, shown
from luneta.survey.fits_checks import check_gzip_tiles, data_sum
from luneta.survey.fits_headers import (
    ImageError,
    Unit,
    check_memory,
    check_what_follows,
    find_unit,
    open_file,
    require_bound,
    unavailable,
    unreadable,
)
from luneta.survey.flags import Flag
from luneta.urls import is_remote

_EXTENSION = re.compile(r"^(?P<path>.+)\[(?P<extension>[^\[\]]+)\]$")
# What CFITSIO can only take for the name of a file that is there.
_PLAIN_PATH = re.compile(r"/(?:(?!\.imh)[\w/.,=@-])+\.(?:fits?|fits?\.fz|fz)", re.ASCII)
_MOST_PADDING = 2**26  # bytes without meaning behind the last extension
_FITSIO_STATUS = re.compile(r"FITSIO status = \d+: ")


def split_extension(name: str) -> tuple[Path | str, str | int | None]:
    """Split `image.fits[SCI]` into the path and the extension's name or number.

    The path of a URL is a str, since a Path would lose one of its slashes.

    Examples
    --------
    >>> split_extension("image.fits[2]")[1]
    2
    """
    match = _EXTENSION.match(name)
    path, extension = (name, None) if match is None else (match["path"], match["extension"])
    if extension is not None and extension.isdecimal():
        extension = int(extension)
    return path if is_remote(path) else Path(path), extension


@contextlib.contextmanager
def memory_for(path: Path | str) -> Iterator[None]:
    """Turn a lack of memory into the error of the file that asks for it.

    Raises
    ------
    ImageError
        If there is not enough.
    """
    try:
        yield
    except MemoryError:
        raise unreadable(path, "asks for more memory than there is") from None


def _teaching(method):
    """Turn whatever a broken file raises into an ImageError."""

    @functools.wraps(method)
    def wrapped(self, *arguments, **named):
        try:
            with memory_for(self.path):
                return _twice(method, self, *arguments, **named)
        except ImageError:
            raise
        except Exception as error:  # fitsio, astropy and zlib errors are of many kinds
            if is_full(error):
                raise NoRoom(error, tempfile.gettempdir()) from None
            if fault := passing_fault(error, self.path):
                raise unavailable(self.path, fault) from None
            first = str(error).strip().split("\n")[0]  # CFITSIO tells its way there in others
            detail = _FITSIO_STATUS.sub("", first)[:200] or type(error).__name__
            raise unreadable(self.path, f"is damaged: {detail}") from None

    return wrapped


def _twice(method, *arguments, **named):
    try:
        return method(*arguments, **named)
    except UnicodeDecodeError:
        # What CFITSIO kept to say of an earlier file; having said it, it has forgotten it.
        return method(*arguments, **named)


class ImageFile:
    """An image of a FITS file, plain, packed (gzip, bzip2) or compressed in tiles.

    Parameters
    ----------
    name : str
        Path, maybe with [EXTENSION] (see `find_unit`); else the first extension with an image.
    plane : int
        Which plane is read, if the image is a cube (plane, y, x).

    Attributes
    ----------
    shape : tuple of 2 ints
        (y, x).
    planes : int or None
        Number of planes, if it is a cube.
    dtype : numpy.dtype
        Of the pixels as they are read: integers stay integers, unsigned if the file means so; those
        that are scaled (BSCALE, BZERO) or may be BLANK become float32, or float64 from 32 bits on.
    compressed : bool
        Whether the image is compressed in tiles: a window costs the tiles that it touches.
    notes : tuple of str
        How the file departs from the standard without harm.

    Raises
    ------
    ImageError
        If the file is missing, broken or shorter than its header says, at once or when read.
    """

    def __init__(self, name: str, plane: int = 0):
        self.name, self.plane = name, plane
        self.path, extension = split_extension(name)
        self._whole = self._tiles = self._unpacked = None
        self._open_things = contextlib.ExitStack()
        self._file = self._open_things.enter_context(open_file(self.path))
        try:
            self._open(extension)
        except BaseException:
            self.close()
            raise

    @_teaching
    def _open(self, extension: str | int | None) -> None:
        self.unit = unit = find_unit(self._file, self.path, extension)
        self.shape, leading = unit.shape[-2:], unit.shape[:-2]
        self.planes = math.prod(leading) if leading else None
        self.compressed = unit.compressed
        self.notes = unit.notes
        self.dtype = _pixel_type(unit)
        self._packed = not isinstance(self._file, io.FileIO)
        if self.planes in (None, 1):
            self.plane = 0  # which plane is only asked of a cube
        elif not 0 <= self.plane < self.planes:
            raise unreadable(
                self.path, f"has {self.planes} planes, so none of number {self.plane} (from 0)"
            )
        if not self._packed:
            self._require(os.fstat(self._file.fileno()).st_size - unit.data)
        require_bound(self.path, math.prod(self.shape) * self.dtype.itemsize)
        if not self._packed:
            self.notes += check_what_follows(self._file, self.path, unit)

    def _require(self, there: int) -> None:
        """Refuse an image whose data end before the header says they do."""
        missing = self.unit.size - max(there, 0)
        if missing <= 0:
            return
        promised = f"{self.unit.size:,} bytes of data"
        if not self.compressed:
            rows = self.unit.size // (self.shape[1] * abs(self.unit.bitpix) // 8)
            promised = f"{rows:,} rows ({promised})"
        raise unreadable(
            self.path,
            f"is truncated: {promised} are promised in extension {self.unit.number} and the file "
            f"ends {missing:,} bytes short of them",
        )

    def __enter__(self) -> ImageFile:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; arrays that were read stay."""
        self._open_things.close()
        self._whole = self._tiles = self._unpacked = None

    @_teaching
    def read(self) -> np.ndarray:
        """Read the image, or the plane of it, and check the data against DATASUM if it is given.

        Returns
        -------
        numpy.ndarray
            Shape (y, x), type `dtype`; undefined pixels of an image with BLANK are NaN.
        """
        if self.planes is None:
            return self._read_all()
        if self._packed:
            return self._cube()[self.plane].copy()
        self._check_sum(None)
        return self._cut(slice(None), slice(None))

    @_teaching
    def read_planes(self) -> np.ndarray:
        """Read a cube whole, shape (plane, y, x), otherwise like `read`; an image is one plane."""
        return self._cube()

    @_teaching
    def window(self, rows: slice, columns: slice) -> np.ndarray:
        """Read a part, without the rest where the format allows; DATASUM is not checked.

        A packed file is read whole at the first window, and kept.

        Parameters
        ----------
        rows, columns : slice
            Zero-based, of step 1.

        Returns
        -------
        numpy.ndarray
            Shape (y, x) of the part that lies on the image, type `dtype`.
        """
        if self._packed:
            if self._whole is None:
                self._whole = self._cube()
            return self._whole[self.plane, rows, columns].copy()
        return self._cut(rows, columns)

    def _cube(self) -> np.ndarray:
        return self._read_all().reshape(self.planes or 1, *self.shape)

    def _read_all(self) -> np.ndarray:
        if not self.compressed:
            return self._read_plain()
        tiles = self._tiled()
        self._check_sum(None)
        stored = tiles[(slice(None),) * len(self.unit.shape)]
        return _physical(stored.astype(stored.dtype.newbyteorder("="), copy=False), self.unit)

    def _read_plain(self) -> np.ndarray:
        if self._packed:
            check_memory(self.path, self.unit, Path(self.path).stat().st_size)
        require_bound(self.path, self.unit.size)
        stored = np.empty(self.unit.shape, _stored_type(self.unit))
        view, filled = memoryview(stored.reshape(-1)).cast("B"), 0
        self._file.seek(self.unit.data)
        while filled < len(view) and (count := self._file.readinto(view[filled:])):
            filled += count
        self._require(filled)
        if self._packed:
            padding = check_what_follows(self._file, self.path, self.unit)
            self.notes = self.unit.notes + padding
            for _ in self._pieces(_MOST_PADDING if padding else None):
                pass  # the packer's own checksum comes last
        self._check_sum(view)
        native = stored.byteswap(inplace=True).view(stored.dtype.newbyteorder("="))
        return _physical(native, self.unit)

    def _cut(self, rows: slice, columns: slice) -> np.ndarray:
        (top, bottom, _), (left, right, _) = (
            axis.indices(length) for axis, length in zip((rows, columns), self.shape, strict=True)
        )
        if bottom <= top or right <= left:
            return np.empty((max(bottom - top, 0), max(right - left, 0)), self.dtype)
        leading = np.unravel_index(self.plane, self.unit.shape[:-2]) if self.planes else ()
        if self.compressed:
            where = (*(slice(int(n), int(n) + 1) for n in leading), slice(top, bottom))
            stored = self._tiled()[(*where, slice(left, right))]
            stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
            return _physical(stored.reshape(bottom - top, right - left), self.unit)
        stored = self._read_window(top, bottom, left, right)
        native = stored.byteswap(inplace=True).view(stored.dtype.newbyteorder("="))
        return _physical(native, self.unit)

    def _read_window(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        """Read a part of a plain image as it is stored.

        It is not mapped into memory: where a file is cut short meanwhile, the process would end.
        """
        ny, nx = self.shape
        kind = _stored_type(self.unit)
        shape = bottom - top, right - left
        first = self.unit.data + ((self.plane * ny + top) * nx + left) * kind.itemsize
        size = math.prod(shape) * kind.itemsize
        if shape[1] == nx:
            stored = np.empty(size, np.uint8)
            content = stored[: _read_into(self._file, stored, first)]
        else:
            content = self._read_lines(first, shape, kind.itemsize)
        if len(content) < size:
            self._require(os.fstat(self._file.fileno()).st_size - self.unit.data)
            raise unreadable(self.path, "has changed while it was read")
        return np.frombuffer(content, kind).reshape(shape)

    def _read_lines(self, first: int, shape: tuple[int, int], itemsize: int) -> bytearray:
        """Read parts of lines, each as long and all one below the other, from the first's place."""
        line = self.shape[1] * itemsize
        places = range(first, first + shape[0] * line, line)
        size = shape[1] * itemsize
        content = bytearray(size * len(places))
        view = memoryview(content)
        for number, place in enumerate(places):
            start = number * size
            if (count := _read_into(self._file, view[start : start + size], place)) < size:
                return content[: start + count]
        return content

    def _tiled(self):
        """The compressed image as fitsio or astropy gives it, to be read by slices.

        CFITSIO runs for ever on a damaged gzip stream; astropy is as fast with those.
        """
        if self._tiles is None:
            if self._packed:
                self._unpack()
            check_gzip_tiles(self.unit, self._stored_part, self.path)
            if _by_astropy(self.unit):
                file = fits.open(self._unpacked_path(), memmap=False)
                tiles = self._open_things.enter_context(file)[self.unit.number].section
                shape = tiles.shape
            else:
                file = self._open_things.enter_context(fitsio.FITS(self._plain_path()))
                tiles = file[self.unit.number]
                tiles.ignore_scaling = _scaled_here(self.unit)
                shape = tiles.get_dims()
            if tuple(shape) != self.unit.shape:
                raise unreadable(self.path, f"is damaged: it is read with shape {tuple(shape)}")
            self._tiles = tiles
        return self._tiles

    def _unpacked_path(self) -> str:
        return str(self.path) if self._unpacked is None else self._unpacked.name

    def _plain_path(self) -> str:
        """The absolute path, by way of a link if CFITSIO might take it for a command.

        CFITSIO takes a name for what to read of a file, for standard input, a list, an address or
        an image of IRAF, which names another file.
        """
        path = str(Path(self._unpacked_path()).absolute())
        if _PLAIN_PATH.fullmatch(path):
            return path
        folder = self._open_things.enter_context(tempfile.TemporaryDirectory())
        link = Path(folder, "image.fits")
        link.symlink_to(path)
        return str(link)

    def _stored_part(self, start: int, size: int) -> np.ndarray:
        """Read a part of the data as they are in the file, uint8; fewer where the file ends."""
        stored = np.empty(size, np.uint8)
        file = self._file if self._unpacked is None else self._unpacked.file
        return stored[: _read_into(file, stored, self.unit.data + start)]

    def _unpack(self) -> None:
        file = tempfile.NamedTemporaryFile(suffix=".fits")  # noqa: SIM115 (closed with the stack)
        self._unpacked = self._open_things.enter_context(file)
        self._file.seek(0)
        for piece in self._pieces():
            self._unpacked.write(piece)
        self._unpacked.flush()
        self._require(self._unpacked.tell() - self.unit.data)
        self.notes = self.unit.notes + check_what_follows(self._unpacked, self.path, self.unit)

    def _pieces(self, most: int | None = None) -> Iterator[bytes]:
        """Read on to the end of a packed file, which may be without one."""
        stored = Path(self.path).stat().st_size
        most = most or max(ALWAYS_ALLOWED, TEXT_BEST_COMPRESSION * stored)
        total = 0
        while piece := self._file.read(2**20):
            total += len(piece)
            if total > most:
                raise unreadable(
                    self.path,
                    f"unpacks to {shown(most)} and more behind its image, from {shown(stored)}: it "
                    "repeats a few bytes without end",
                )
            yield piece

    def _check_sum(self, stored: memoryview | None) -> None:
        """Compare the stored bytes with DATASUM, where the header has one."""
        written = str(self.unit.pixel_keyword("DATASUM", "")).strip()
        if not written.isdecimal() or int(written) == 0:
            return
        if stored is None:
            require_bound(self.path, self.unit.size)
            stored = self._stored_part(0, self.unit.size)
        if data_sum(stored) != int(written):
            raise ImageError(
                Flag.BAD_CHECKSUM,
                f"{self.path} has changed since its checksum was written: the data of extension "
                f"{self.unit.number} do not add up to DATASUM {written}",
                self.path,
            )


def _read_into(file: BinaryIO, target: np.ndarray | memoryview, place: int) -> int:
    """Read bytes from a place of a plain file, and return how many there were.

    One call may return fewer than there are, as on a network file system.
    """
    count = 0
    while count < len(target):
        read = os.preadv(file.fileno(), [target[count:]], place + count)
        if read == 0:
            break
        count += read
    return count


def _stored_type(unit: Unit) -> np.dtype:
    kind = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
    return np.dtype(kind[unit.bitpix])


def _scaling(unit: Unit) -> tuple[float, float, int | None]:
    """Return BSCALE, BZERO and, of an image of integers, BLANK."""
    scale = unit.pixel_keyword("BSCALE", 1)
    zero = unit.pixel_keyword("BZERO", 0)
    packed_blank = unit.pixel_keyword("ZBLANK") if unit.compressed else None
    blank = unit.pixel_keyword("BLANK", packed_blank)
    return scale, zero, blank if unit.bitpix > 0 and type(blank) is int else None


def _is_offset_half(unit: Unit) -> bool:
    """Whether BZERO only moves integers from signed to unsigned (bytes: to signed)."""
    scale, zero, _ = _scaling(unit)
    half = -(2**7) if unit.bitpix == 8 else 2 ** (unit.bitpix - 1) if unit.bitpix > 0 else None
    return scale == 1 and zero == half


def _by_astropy(unit: Unit) -> bool:
    return str(unit.get("ZCMPTYPE")).startswith("GZIP") or unit.bitpix == 64


def _scaled_here(unit: Unit) -> bool:
    """Whether compressed pixels are scaled by `_scaled`: fitsio would not make BLANK NaN."""
    return _scaling(unit)[2] is not None and not _by_astropy(unit)


def _softening(unit: Unit) -> tuple[float, float] | None:
    """BSOFTEN and BOFFSET of an image stored on an asinh scale, as Pan-STARRS does."""
    softening = unit.pixel_keyword("BSOFTEN"), unit.pixel_keyword("BOFFSET")
    return None if None in softening else softening


def _linear(pixels: np.ndarray, unit: Unit) -> np.ndarray:
    """Undo the asinh scale of Pan-STARRS stacks (Waters et al. 2020, section 5).

    A value is 2.5 log10(e) asinh((flux - BOFFSET) / (2 BSOFTEN)).
    """
    if (softening := _softening(unit)) is None:
        return pixels
    soft, offset = softening
    pixels = pixels.astype(_pixel_type(unit), copy=False)
    with np.errstate(over="ignore"):  # a damaged pixel becomes infinite, and is dropped later
        return offset + 2 * soft * np.sinh(pixels / pixels.dtype.type(2.5 * np.log10(np.e)))


def _pixel_type(unit: Unit) -> np.dtype:
    scale, zero, blank = _scaling(unit)
    stored = _stored_type(unit).newbyteorder("=")
    if _softening(unit) is not None:
        return np.dtype(np.float64 if unit.bitpix in (-64, 64) else np.float32)
    if unit.bitpix < 0:
        return stored
    if blank is None and _is_offset_half(unit):
        return np.dtype(("i" if unit.bitpix == 8 else "u") + str(unit.bitpix // 8))
    if blank is None and (scale, zero) == (1, 0):
        return stored
    return np.dtype(np.float32 if unit.bitpix <= 16 else np.float64)


def _physical(stored: np.ndarray, unit: Unit) -> np.ndarray:
    """Turn stored values into those they stand for; changes the array given."""
    return _linear(_scaled(stored, unit), unit)


def _scaled(stored: np.ndarray, unit: Unit) -> np.ndarray:
    """Scale pixels by BSCALE and BZERO, unless the library has."""
    scale, zero, blank = _scaling(unit)
    if (unit.compressed and not _scaled_here(unit)) or (scale, zero, blank) == (1, 0, None):
        return stored
    wanted = _pixel_type(unit)
    if blank is None and _softening(unit) is None and _is_offset_half(unit):
        flipped = stored.view(f"u{stored.itemsize}")
        flipped ^= flipped.dtype.type(1 << (unit.bitpix - 1))
        return flipped.view(wanted)
    undefined = None if blank is None else stored == blank
    pixels = stored.astype(wanted, copy=False)
    pixels *= pixels.dtype.type(scale)
    pixels += pixels.dtype.type(zero)
    if undefined is not None:
        pixels[undefined] = np.nan
    return pixels


def read_pixels(name: str, plane: int | None = None) -> np.ndarray:
    """Read an image whole.

    Parameters
    ----------
    name : str
        Path of a FITS file, maybe with [EXTENSION]; else the first extension with an image.
    plane : int, optional
        Which plane of a cube; all if not given.

    Returns
    -------
    numpy.ndarray
        Pixels as `ImageFile` gives them, shape (y, x), or (plane, y, x) of a whole cube.

    Raises
    ------
    ImageError
        If the file is missing, broken or shorter than its header says.
    """
    with ImageFile(name, plane or 0) as image:
        whole_cube = plane is None and image.planes is not None
        return image.read_planes() if whole_cube else image.read()
