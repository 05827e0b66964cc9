"""Moving a cutout onto its object's light."""

from __future__ import annotations

import numpy as np

from luneta.cutouts.gather import gather


def shifts(
    image: np.ndarray, x: np.ndarray, y: np.ndarray, radius: float, how: str
) -> tuple[np.ndarray, np.ndarray]:
    """Find the way from catalog positions to the light near them.

    Parameters
    ----------
    image : numpy.ndarray
        Reference band without its sky, shape (y, x), float32; NaN is bad.
    x, y : numpy.ndarray
        Zero-based pixel positions, shape (objects,), float64.
    radius : float
        Farthest way in pixels.
    how : {"peak", "centroid"}
        To the brightest pixel, or to the centroid of the positive light within the radius.

    Returns
    -------
    shift_x, shift_y : numpy.ndarray
        Shape (objects,), float64, pixels; 0 where there is no light.
    """
    half = int(np.ceil(radius))
    size = 2 * half + 1
    stamps = np.nan_to_num(gather(image, x, y, size), posinf=0).clip(0)
    rows, columns = np.indices((size, size)) - half
    # The stamp is centred on the pixel, the circle on the position inside it.
    rest_x, rest_y = x - np.floor(x + 0.5), y - np.floor(y + 0.5)
    away_x = columns[None] - rest_x[:, None, None]
    away_y = rows[None] - rest_y[:, None, None]
    light = np.where(np.hypot(away_x, away_y) <= radius, stamps, 0)
    found = (_peak if how == "peak" else _centroid)(light, away_x, away_y)
    dark = light.sum(axis=(1, 2)) <= 0
    return tuple(np.where(dark, 0.0, shift) for shift in found)


def _peak(light: np.ndarray, away_x: np.ndarray, away_y: np.ndarray):
    brightest = light.reshape(len(light), -1).argmax(axis=1)
    chosen = np.arange(len(light)), brightest
    return away_x.reshape(len(light), -1)[chosen], away_y.reshape(len(light), -1)[chosen]


def _centroid(light: np.ndarray, away_x: np.ndarray, away_y: np.ndarray):
    total = np.maximum(light.sum(axis=(1, 2)), np.finfo(np.float32).tiny)
    return (light * away_x).sum(axis=(1, 2)) / total, (light * away_y).sum(axis=(1, 2)) / total
