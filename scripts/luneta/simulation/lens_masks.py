"""Masked regions of a survey's stamps: edges of chips, bleed trails, halos of stars, defects."""

from __future__ import annotations

import numpy as np

MASKED_SHARE = 0.35
# Chances that a masked image has one band masked, all bands alike, or each for itself.
ONE_BAND, ALL_ALIKE = 0.5, 0.25


def edge(random: np.random.Generator, size: int) -> np.ndarray:
    """Mask a strip along an edge, sometimes with a step in it, as where an exposure ends."""
    mask = np.zeros((size, size), bool)
    width, step = 1 + int(random.exponential(size / 7)), int(random.integers(0, 4))
    mask[: min(width, size // 2 - 4)] = True
    mask[: min(width + step, size // 2 - 4), : random.integers(0, size)] = True
    return np.rot90(mask, random.integers(4))


def corner(random: np.random.Generator, size: int) -> np.ndarray:
    """Mask a rectangle at a corner."""
    mask = np.zeros((size, size), bool)
    height, width = random.integers(size // 8, size // 2 - 4, 2)
    mask[:height, :width] = True
    return np.rot90(mask, random.integers(4))


def trail(random: np.random.Generator, size: int) -> np.ndarray:
    """Mask a bleed trail or bad columns: a narrow band along one axis, or a part of it."""
    mask = np.zeros((size, size), bool)
    place, width = int(random.integers(0, size)), int(random.integers(1, 6))
    end = size if random.random() < 0.5 else int(random.integers(size // 4, size))
    mask[:end, place : place + width] = True
    return np.rot90(mask, random.integers(4))


def halo(random: np.random.Generator, size: int) -> np.ndarray:
    """Mask a disc about a bright star, inside the stamp or out of it."""
    x, y = random.uniform(-0.3 * size, 1.3 * size, 2)
    radius = random.uniform(0.1, 0.4) * size
    row, column = np.ogrid[:size, :size]
    return np.hypot(row - y, column - x) < radius


def patches(random: np.random.Generator, size: int) -> np.ndarray:
    """Mask one to four small rectangles."""
    mask = np.zeros((size, size), bool)
    for _ in range(int(random.integers(1, 5))):
        (x, y), (width, height) = random.integers(0, size, 2), random.integers(2, 14, 2)
        mask[y : y + height, x : x + width] = True
    return mask


SHAPES = (edge, edge, corner, trail, halo, patches)


def draw_masks(random: np.random.Generator, bands: int, size: int) -> np.ndarray:
    """Draw the masks of an image: most images have none.

    Parameters
    ----------
    random : numpy.random.Generator
        Source of all that is random.
    bands, size : int
        Number of bands, and side in pixels.

    Returns
    -------
    numpy.ndarray
        Shape (band, y, x), bool; True where masked.
    """
    masks = np.zeros((bands, size, size), bool)
    if random.random() >= MASKED_SHARE:
        return masks
    sharing = random.random()
    if sharing < ONE_BAND:
        masks[random.integers(bands)] = _shape(random, size)
    elif sharing < ONE_BAND + ALL_ALIKE:
        masks[:] = _shape(random, size)
    else:
        for mask in masks:
            mask[:] = _shape(random, size)
    return masks


def _shape(random: np.random.Generator, size: int) -> np.ndarray:
    return SHAPES[random.integers(len(SHAPES))](random, size)
