"""Reading parts of a .npy file without mapping it into memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from luneta.survey.bounds import check_size

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class NumpyFile:
    """An array in a .npy file; a mapped one would end the process where the file is cut short.

    Attributes
    ----------
    shape : tuple of int
        Of the array.
    dtype : numpy.dtype
        Of its values.

    Raises
    ------
    ValueError
        If it is no .npy file of version 1 or 2, or is shorter than its header says.
    """

    def __init__(self, path: Path):
        self._file = path.open("rb")  # noqa: SIM115 (closed with the object)
        version = np.lib.format.read_magic(self._file)
        if version not in _HEADERS:
            raise ValueError(f"it is a .npy file of version {version}; save it as version 1 or 2")
        self.shape, self._is_fortran, self.dtype = _HEADERS[version](self._file)
        if self.dtype.hasobject:
            raise ValueError("it holds Python objects, which can run any code when they are read")
        self._start = self._file.tell()
        missing = self._start + self._size - os.fstat(self._file.fileno()).st_size
        if missing > 0:
            raise ValueError(
                f"its header promises an array of shape {self.shape}, and the file ends "
                f"{missing:,} bytes short of it"
            )

    @property
    def _size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """Read the array.

        Raises
        ------
        ValueError
            If it is larger than one file may be, or the file has become shorter.
        """
        check_size(self._size, self._size)
        flat = self._values(0, math.prod(self.shape))
        return flat.reshape(self.shape, order="F" if self._is_fortran else "C")

    def read_row(self, row: int) -> np.ndarray:
        """Read one row along the first axis; of Fortran's order all is read for it.

        Raises
        ------
        ValueError
            As `read`.
        """
        if self._is_fortran:
            return self.read()[row]
        count = math.prod(self.shape[1:])
        check_size(count * self.dtype.itemsize, self._size)
        return self._values(row * count, count).reshape(self.shape[1:])

    def _values(self, first: int, count: int) -> np.ndarray:
        self._file.seek(self._start + first * self.dtype.itemsize)
        content = self._file.read(count * self.dtype.itemsize)
        if len(content) < count * self.dtype.itemsize:
            raise ValueError("it has become shorter since it was opened")
        return np.frombuffer(content, self.dtype)
