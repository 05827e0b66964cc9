"""Which pixels are bad: mask images, weight maps and sentinel values."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

LARGEST_VALUE = 1e30  # what is larger is no measured value


def _integers(mask: np.ndarray) -> np.ndarray:
    """Mask as integers; one stored as floats is rounded, and what is no number is all bits."""
    if mask.dtype.kind in "iu":
        return mask
    if mask.dtype.kind == "b":
        return mask.view(np.uint8)
    undefined = ~np.isfinite(mask) | (np.abs(mask) >= 2.0**63)
    return np.where(undefined, -1, np.rint(np.where(undefined, 0, mask))).astype(np.int64)


def _has_code(mask: np.ndarray, codes: list[int]) -> np.ndarray:
    found = np.zeros(mask.shape, bool)
    for code in codes:
        found |= mask == code
    return found


def _has_bit(mask: np.ndarray, bits: Iterable[int]) -> np.ndarray:
    unsigned = mask.view(mask.dtype.str.replace("i", "u"))
    most = np.iinfo(unsigned.dtype).max
    wanted = sum(1 << bit for bit in set(bits)) & most
    return (unsigned & unsigned.dtype.type(wanted)) != 0


def bad_pixels(mask: np.ndarray, settings: dict) -> tuple[np.ndarray, np.ndarray]:
    """Read a mask image.

    Parameters
    ----------
    mask : numpy.ndarray
        Shape (y, x), integer of any width, signed or not (or floats that hold integers; one that
        is not finite is bad).
    settings : dict
        The config's `input.mask` section: encoding, planes, ignore, saturated.

    Returns
    -------
    bad, saturated : numpy.ndarray
        Shape (y, x), bool.
    """
    if settings["encoding"] == "good":
        return (mask == 0) | (mask != mask), np.zeros(mask.shape, bool)
    mask, planes = _integers(mask), settings["planes"]

    def values(names) -> list[int]:
        return [planes[name] for name in names if name in planes]

    ignored, saturated = values(settings["ignore"]), values(settings["saturated"])
    if settings["encoding"] == "codes":
        bad = mask != 0
        bad &= ~_has_code(mask, ignored)
        return bad, _has_code(mask, saturated)
    others = set(range(8 * mask.itemsize)) - set(ignored)
    return _has_bit(mask, others), _has_bit(mask, saturated)


def sentinel_pixels(pixels: np.ndarray, sentinels: Iterable[float]) -> np.ndarray:
    """Find the pixels whose value marks them as bad.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x) or any other.
    sentinels : iterable of float
        Values, as the config's `input.mask.sentinels`, compared in the pixels' own precision.

    Returns
    -------
    numpy.ndarray
        Shape of `pixels`, bool. Pixels that are not finite are left to the caller.
    """
    found = np.zeros(pixels.shape, bool)
    for value in sentinels:
        found |= pixels == (pixels.dtype.type(value) if pixels.dtype.kind == "f" else value)
    return found


def noise_of_weight(weight: np.ndarray, kind: str) -> np.ndarray:
    """Turn a weight image into the noise of each pixel.

    Parameters
    ----------
    weight : numpy.ndarray
        Shape (y, x).
    kind : str
        What it holds: "inverse_variance", "variance", "rms", or "relative" (only that zero is bad).

    Returns
    -------
    numpy.ndarray
        Standard deviation, shape (y, x), float32; NaN where the weight is not positive or not
        finite; 1 elsewhere for "relative".
    """
    weight = np.asarray(weight, np.float32)
    noise = np.full(weight.shape, np.nan, np.float32)
    good = (weight > 0) & (weight < np.inf)
    if kind == "relative":
        noise[good] = 1
        return noise
    if kind == "rms":
        noise[good] = weight[good]
        return noise
    np.sqrt(weight, out=noise, where=good)
    if kind == "inverse_variance":
        np.divide(np.float32(1), noise, out=noise, where=good)
    return noise
