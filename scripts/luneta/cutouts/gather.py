"""Gathering many stamps out of one image at once."""

from __future__ import annotations

import numpy as np


def corner(position: np.ndarray, size: int) -> np.ndarray:
    """First pixel of a stamp along one axis: round(position) - size // 2, zero-based.

    The object's pixel is index size // 2 of the stamp, the convention of astrocut.

    Parameters
    ----------
    position : numpy.ndarray
        Pixel positions, shape (objects,), float64.
    """
    return np.floor(np.asarray(position) + 0.5).astype(np.int64) - size // 2


def gather_into(
    stamps: np.ndarray, image: np.ndarray, x: np.ndarray, y: np.ndarray, scale: np.ndarray
) -> None:
    """Copy the windows around many positions out of an image to where they are wanted.

    Parameters
    ----------
    stamps : numpy.ndarray
        Shape (objects, size, size), float32, any strides; NaN beyond the image's edge.
    image : numpy.ndarray
        Shape (y, x), float32.
    x, y : numpy.ndarray
        Zero-based pixel positions, shape (objects,), float64.
    scale : numpy.ndarray
        Factor by which an object's pixels are multiplied on the way, shape (objects,).
    """
    size = stamps.shape[-1]
    arrays = (corner(y, size), corner(x, size), over_edge(image.shape, x, y, size))
    factors = np.asarray(scale, np.float32).tolist()
    places = zip(stamps, *(values.tolist() for values in arrays), factors, strict=True)
    for stamp, low, left, cut, factor in places:
        if cut:
            _copy_part(stamp, image, low, left, factor)
        else:
            window = image[low : low + size, left : left + size]
            np.multiply(window, factor, out=stamp)


def _copy_part(stamp: np.ndarray, image: np.ndarray, low: int, left: int, factor: float) -> None:
    """Fill a stamp of which only a part lies on the image."""
    size = len(stamp)
    stamp[...] = np.nan
    part = image[max(low, 0) : max(low + size, 0), max(left, 0) : max(left + size, 0)]
    top, first = max(-low, 0), max(-left, 0)
    stamp[top : top + part.shape[0], first : first + part.shape[1]] = part * factor


def gather(image: np.ndarray, x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Copy the windows around many positions out of an image.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (y, x), float32.
    x, y : numpy.ndarray
        Zero-based pixel positions, shape (objects,), float64.

    Returns
    -------
    numpy.ndarray
        Shape (objects, size, size), float32; NaN beyond the image's edge.
    """
    stamps = np.empty((len(x), size, size), np.float32)
    gather_into(stamps, image, x, y, np.ones(len(x)))
    return stamps


def over_edge(
    shape: tuple[int, int], x: np.ndarray, y: np.ndarray, size: int, factor: float | np.ndarray = 1
) -> np.ndarray:
    """Whether the centre of a stamp's outermost pixel lies on the image's edge or beyond.

    Parameters
    ----------
    shape : tuple
        Of the image, (y, x).
    x, y : numpy.ndarray
        Zero-based pixel positions, shape (objects,), float64.
    size : int
        Side of the stamp in its own pixels.
    factor : float or numpy.ndarray
        Image pixels per pixel of the stamp along a side; shape (objects,) if they differ.

    Returns
    -------
    numpy.ndarray
        Shape (objects,), bool.
    """
    before, after = size // 2 * factor, (size - 1 - size // 2) * factor
    column, row = corner(x, 1), corner(y, 1)
    first, last = np.minimum(column, row) - before, np.stack([row, column]) + after
    return (first <= -0.5) | (last[0] >= shape[0] - 0.5) | (last[1] >= shape[1] - 0.5)


def edge_distance(shape: tuple[int, int], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance from a position to the nearest edge of the image.

    Returns
    -------
    numpy.ndarray
        Shape (objects,), float32, pixels; negative outside the image.
    """
    ny, nx = shape
    sides = [x + 0.5, y + 0.5, nx - 0.5 - x, ny - 0.5 - y]
    return np.min(sides, axis=0).astype(np.float32)
