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


def over_edge(shape: tuple[int, int], x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    """Whether a stamp reaches over the image's edge; shape (objects,), bool."""
    left, low = corner(x, size), corner(y, size)
    return (left < 0) | (low < 0) | (left + size > shape[1]) | (low + size > shape[0])


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
