"""Reading one object's stamp, of whatever format it comes in."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import h5py
import numpy as np

from luneta.cutouts.numpy_files import NumpyFile
from luneta.cutouts.plain_fits import read_plain
from luneta.cutouts.stamp_pictures import SUFFIXES as PICTURES
from luneta.cutouts.stamp_pictures import read_picture, read_stored, shades
from luneta.cutouts.table_pictures import SUFFIXES as TABLES
from luneta.cutouts.table_pictures import picture_bytes
from luneta.faults import passing_fault
from luneta.survey.fits_headers import Unit, require_file, unavailable
from luneta.survey.flags import Flag
from luneta.survey.hdf5_files import open_hdf5, own_dataset, read_rows
from luneta.survey.images import ImageError, ImageFile, read_pixels, split_extension
from luneta.wording import few

HDF5 = {".h5", ".hdf5", ".hdf"}
DATASETS = ("images", "image", "data")
# Rows of an HDF5 dataset that lie this close are read at once, with those between.
GAP = 8


def _unreadable(path: Path | str, error: Exception | str) -> ImageError:
    if isinstance(error, Exception) and (fault := passing_fault(error, path)):
        return unavailable(path, fault)
    detail = " ".join(str(error).split())[:200]
    return ImageError(Flag.UNREADABLE_FILE, f"{path} cannot be read: {detail}", path)


def _require_stamps(path: Path | str, array: NumpyFile | h5py.Dataset) -> None:
    """Insist on an array of real numbers."""
    if array.dtype.kind not in "biuf" or not array.shape:
        what = "text or objects" if array.dtype.kind in "SUOV" else f"{array.dtype} numbers"
        reason = f"{path} holds {what} of shape {array.shape}; stamps are arrays of real numbers"
        raise ImageError(Flag.UNREADABLE_FILE, reason, path)


class StampFiles:
    """The files of a block of objects; one that holds many stamps is opened once.

    Parameters
    ----------
    rows : iterable of int or None
        Rows that will be asked of files that hold the stamps of many objects.
    axes : {"auto", "band_first", "band_last"}
        Order of a stamp's axes in cubes and arrays.
    display : bool
        Whether pixels are to be 0 to 255, as those of a picture.
    """

    def __init__(self, rows: Iterable[int | None] = (), axes: str = "auto", display: bool = False):
        self.axes, self.display = axes, display
        self._rows = np.unique(np.array([row for row in rows if row is not None], np.int64))
        self._stacks: dict[str, NumpyFile] = {}
        self._runs: dict[tuple[str, int], tuple[int, np.ndarray]] = {}
        self._silent: set[str] = set()

    def planes(self, names: Sequence[str], row: int | None = None) -> list[np.ndarray]:
        """Read one object's bands.

        Parameters
        ----------
        names : sequence of str
            File of each band, maybe with [EXTENSION] or [DATASET]; all the same for a colour
            picture or a cube.
        row : int, optional
            The object's row, in files that hold the stamps of many objects.

        Returns
        -------
        list of numpy.ndarray
            Each of shape (y, x), as stored.

        Raises
        ------
        ImageError
            If a file is missing or broken, or the bands differ in shape.
        """
        if len(names) > 1 and len(set(names)) == 1:
            planes = self.planes_of(names[0], len(names), row)
        else:
            planes = [self.planes_of(name, 1, row)[0] for name in names]
        if len({plane.shape for plane in planes}) > 1:
            raise differing(names, planes)
        return planes

    def planes_of(self, name: str, count: int, row: int | None = None) -> list[np.ndarray]:
        """Read the bands that one object has in one file.

        Parameters
        ----------
        name : str
            The file, maybe with [EXTENSION] or [DATASET].
        count : int
            How many bands it holds.
        row : int, optional
            The object's row, in files that hold the stamps of many objects.

        Returns
        -------
        list of numpy.ndarray
            Each of shape (y, x), as stored; of display pixels from 0 to 255.

        Raises
        ------
        ImageError
            If the file is missing or broken, or holds another number of bands.
        """
        pixels = self.read(name, row)
        if count == 1 and pixels.ndim == 2 and not self.display:
            return [pixels]
        planes = list(_bands(name, pixels, count, self._axes(name)))
        if 0 in planes[0].shape:
            reason = f"{name} has a stamp without pixels: its shape is {planes[0].shape}"
            raise ImageError(Flag.NO_DATA, reason, name)
        return shades(planes, name) if self.display and not is_picture(name) else planes

    def planes_beside(self, name: str, count: int, row: int | None) -> list[np.ndarray]:
        """Read the masks or weights that one object has in one file.

        Parameters
        ----------
        name, count, row
            As of `planes_of`. A mask of two axes (y, x) serves all `count` bands.

        Raises
        ------
        ImageError
            As of `planes_of`.
        """
        path, page = split_extension(name)
        stored = is_picture(name)
        pixels = read_stored(path, _page(page, name)) if stored else self.read(name, row)
        if pixels.ndim == 2:
            return [pixels] * count
        return list(_bands(name, pixels, count, self._axes(name)))

    def header(self, name: str, is_mask: bool = False) -> tuple[Unit | None, tuple[str, ...]]:
        """Return the header of a file that was read, and what is odd about the file.

        None if it is not FITS, or of an image whose header says nothing of its unit.

        Parameters
        ----------
        is_mask : bool
            Whether the header is asked for mask planes.
        """
        suffix = split_extension(name)[0].suffix.lower()
        is_fits = suffix not in PICTURES | TABLES | HDF5 and suffix != ".npy"
        if not is_fits or (name in self._silent and not is_mask):
            return None, ()
        with ImageFile(name) as image:
            return image.unit, image.notes

    def _axes(self, name: str) -> str:
        return "band_last" if is_picture(name) else self.axes

    def read(self, name: str, row: int | None = None) -> np.ndarray:
        """Read what one object has in one file, all axes.

        Raises
        ------
        ImageError
            If the file is missing or broken, or holds no pixels.
        """
        try:
            pixels = self._read(name, row)
        except MemoryError:
            raise _unreadable(name, "it asks for more memory than is free") from None
        if pixels.size == 0:
            raise ImageError(Flag.NO_DATA, f"{name} has shape {pixels.shape}: no pixels", name)
        return pixels

    def _read(self, name: str, row: int | None) -> np.ndarray:
        if name.endswith(".fits") and (plain := read_plain(name)) is not None:
            if plain.is_silent:
                self._silent.add(name)
            return plain.pixels
        path, extension = split_extension(name)
        suffix = path.suffix.lower()
        if suffix in PICTURES:
            return read_picture(path, _page(extension, name), self.display)
        if suffix in TABLES:
            content = picture_bytes(path, extension, row)
            return read_picture(content, None, self.display, f"{name}, row {row}")
        if suffix == ".npy":
            return self._from_numpy(path, row, name)
        if suffix in HDF5:
            return self._from_hdf5(path, extension, row, name)
        return read_pixels(name)

    def _stack(self, path: Path) -> NumpyFile:
        """Open a .npy file, once."""
        key = str(path)
        if key not in self._stacks:
            require_file(path)
            try:
                stack = NumpyFile(path)
            except (OSError, ValueError, EOFError) as error:
                raise _unreadable(path, error) from None
            _require_stamps(path, stack)
            self._stacks[key] = stack
        return self._stacks[key]

    def _from_numpy(self, path: Path, row: int | None, name: str) -> np.ndarray:
        stack = self._stack(path)
        try:
            if row is None:
                return stack.read()
            return stack.read_row(_checked(row, stack.shape[0], name))
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None

    def _from_hdf5(self, path: Path, dataset, row: int | None, name: str) -> np.ndarray:
        if row is None:
            return self._from_dataset(path, dataset, read_rows)
        start, stop = self._run(row)
        if (name, start) not in self._runs:
            self._runs[name, start] = self._from_dataset(
                path, dataset, lambda images: (len(images), read_rows(images, slice(start, stop)))
            )
        length, images = self._runs[name, start]
        return images[_checked(row, length, name) - start]

    def _from_dataset(self, path: Path, dataset, take) -> np.ndarray:
        require_file(path)
        try:
            with open_hdf5(path) as file:
                images = _dataset(file, path, dataset)
                _require_stamps(path, images)
                return take(images)
        except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
            raise _unreadable(path, error) from None

    def _run(self, row: int) -> tuple[int, int]:
        """First and last-plus-one of the rows that are read together with `row`."""
        breaks = np.flatnonzero(np.diff(self._rows) > GAP) + 1
        for run in np.split(self._rows, breaks):
            if len(run) and run[0] <= row <= run[-1]:
                return int(run[0]), int(run[-1]) + 1
        return row, row + 1


def _dataset(file: h5py.File, path: Path, name) -> h5py.Dataset:
    named = DATASETS if name is None else (str(name),)
    datasets = (own_dataset(file, one) for one in named)
    if (dataset := next((d for d in datasets if d is not None), None)) is not None:
        return dataset
    wanted = f"no dataset {name!r}" if name else f"none of the datasets {', '.join(DATASETS)}"
    there = few(file) or "nothing"
    raise ImageError(Flag.UNREADABLE_FILE, f"{path} has {wanted}; it holds {there}", path)


def _checked(row: int, length: int, name: str) -> int:
    """Give the row, if a file of `length` stamps has it."""
    if not 0 <= row < length:
        reason = f"{name} has no row {row}: it holds {length} stamps"
        raise ImageError(Flag.MISSING_FILE, reason, name)
    return row


def is_picture(name: str) -> bool:
    """Whether a file is a picture, or a table of pictures, by its suffix."""
    return Path(split_extension(name)[0]).suffix.lower() in PICTURES | TABLES


def _page(extension: str | int | None, name: str) -> int | None:
    """Page of a picture that a name asks for by [NUMBER]."""
    if isinstance(extension, str):
        reason = f"{name}: the pages of a picture have numbers, from 0, and no names"
        raise ImageError(Flag.UNREADABLE_FILE, reason, name)
    return extension


def differing(names: Sequence[str], planes: Sequence[np.ndarray]) -> ImageError:
    """Make the error of bands whose stamps differ in shape."""
    given = zip(names, planes, strict=True)
    shapes = ", ".join(f"{name} {plane.shape}" for name, plane in given)
    reason = f"the bands of one stamp differ in shape: {shapes}"
    return ImageError(Flag.SHAPE_MISMATCH, reason, names[0])


def _bands(name: str, pixels: np.ndarray, count: int, axes: str) -> Sequence[np.ndarray]:
    """Bring the bands of a file to the front; shape (band, y, x)."""
    if pixels.ndim == 4 and is_picture(name):
        pixels, axes = _grey_pages(name, pixels), "band_first"
    elif count == 1:
        return [_one_plane(pixels, name)]
    if pixels.ndim == 3 and axes != "band_last" and pixels.shape[0] == count:
        return pixels
    if pixels.ndim == 3 and axes != "band_first" and pixels.shape[-1] == count:
        return np.moveaxis(pixels, -1, 0)
    shapes = {"band_first": f"({count}, y, x)", "band_last": f"(y, x, {count})"}
    asked = shapes.get(axes, " or ".join(shapes.values()))
    reason = f"{name} has shape {pixels.shape}; {count} bands ask for {asked}"
    if is_picture(name) and axes == "band_first":
        reason = f"{name} has {len(pixels)} pages for {count} bands; choose one, as in {name}[0]"
    raise ImageError(Flag.SHAPE_MISMATCH, reason, name)


def _grey_pages(name: str, pages: np.ndarray) -> np.ndarray:
    """Pages of a TIFF, one a band, shape (page, y, x)."""
    grey = pages[..., 0]
    if not all(np.array_equal(grey, pages[..., n], equal_nan=True) for n in (1, 2)):
        reason = f"{name} has {len(pages)} pages of colours; choose one, as in {name}[0]"
        raise ImageError(Flag.SHAPE_MISMATCH, reason, name)
    return grey


def _one_plane(pixels: np.ndarray, name: str) -> np.ndarray:
    """Make a band of a file with no other: colours are averaged, axes of length one dropped."""
    if pixels.ndim == 3 and is_picture(name):
        return pixels.mean(axis=-1, dtype=np.float32)
    if pixels.ndim == 3 and 1 in (pixels.shape[0], pixels.shape[-1]):
        pixels = pixels[0] if pixels.shape[0] == 1 else pixels[..., 0]
    if pixels.ndim != 2:
        reason = f"{name} has shape {pixels.shape}; a file of one band holds (y, x)"
        raise ImageError(Flag.SHAPE_MISMATCH, reason, name)
    return pixels
