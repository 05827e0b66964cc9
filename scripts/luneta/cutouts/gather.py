"""Gathering many stamps out of one image at once."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def corner(position: np.ndarray, size: int) -> np.ndarray:
    """First pixel of a stamp along one axis: round(position) - size // 2, zero-based.

    The object's pixel is index size // 2 of the stamp, the convention of astrocut.

    Parameters
    ----------
    position : numpy.ndarray
        Pixel positions, shape (objects,), float64.
    """
    return np.floor(np.asarray(position) + 0.5).astype(np.int64) - size // 2


def gather(image: np.ndarray, x: np.ndarray, y: np.ndarray, size: int, fill) -> np.ndarray:
    """Copy the stamps around many positions out of an image.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (y, x), any dtype.
    x, y : numpy.ndarray
        Zero-based pixel positions inside the image, shape (objects,), float64.
    size : int
        Side of a stamp in pixels.
    fill : scalar
        Value of pixels beyond the image's edge.

    Returns
    -------
    numpy.ndarray
        Shape (objects, size, size), dtype of the image.
    """
    margin = size
    padded = np.full([side + 2 * margin for side in image.shape], fill, image.dtype)
    padded[margin:-margin, margin:-margin] = image
    windows = sliding_window_view(padded, (size, size))
    return windows[corner(y, size) + margin, corner(x, size) + margin]


def over_edge(shape: tuple[int, int], x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Whether a stamp reaches over the image's edge; shape (objects,), bool."""
    left, low = corner(x, size), corner(y, size)
    return (left < 0) | (low < 0) | (left + size > shape[1]) | (low + size > shape[0])
