"""One object in several tiles: which placements are the same object, and which is the best."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree


def _directions(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Unit vectors of positions in degrees; shape (placements, 3)."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


def _near_pairs(ra, dec, tile: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs in different tiles nearer than `radius` arcsec, shape (pairs, 2), and their chords.

    Positions that are not known, and objects outside every tile, are near to nothing.
    """
    rows = np.flatnonzero(np.isfinite(ra) & (np.abs(dec) <= 90) & (tile != ""))
    points = _directions(ra[rows], dec[rows])
    chord = 2 * np.sin(np.radians(radius / 3600) / 2)
    pairs = cKDTree(points).query_pairs(chord, output_type="ndarray") if len(rows) else []
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    pairs = pairs[tile[rows[pairs[:, 0]]] != tile[rows[pairs[:, 1]]]]
    return rows[pairs], np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)


def _nearest(pairs: np.ndarray, chord: np.ndarray, tile: np.ndarray, side: int) -> np.ndarray:
    """Whether the partner of a pair's placement `side` is the nearest of the partner's tile."""
    here, there = pairs[:, side], pairs[:, 1 - side]
    order = np.lexsort((there, chord, tile[there], here))
    here, there = here[order], there[order]
    new = np.ones(len(order), bool)
    new[1:] = (here[1:] != here[:-1]) | (tile[there][1:] != tile[there][:-1])
    nearest = np.zeros(len(order), bool)
    nearest[order[new]] = True
    return nearest


def _rank_within(group: np.ndarray, tile: np.ndarray) -> np.ndarray:
    """How many earlier placements of the same group lie in the same tile."""
    order = np.lexsort((tile, group))
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(group[order]) != 0) | (np.diff(tile[order]) != 0)
    starts = np.flatnonzero(new)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    return rank


def same_object(
    names: np.ndarray,
    ra: np.ndarray,
    dec: np.ndarray,
    tile: np.ndarray,
    radius: float | None,
    by_position: bool = False,
) -> np.ndarray:
    """Number the objects to which placements belong.

    Placements of one name in different tiles within `radius` are one object. Two in one tile are
    two: the first of a tile goes with the first of the other.

    Parameters
    ----------
    names, tile : numpy.ndarray
        Shape (placements,), object; tile is empty for what lies on none.
    ra, dec : numpy.ndarray
        ICRS degrees, shape (placements,), float64.
    radius : float or None
        Arcsec; with None every placement is an object.
    by_position : bool, optional
        Whether mutual nearest neighbours of two tiles are one object under any name.

    Returns
    -------
    numpy.ndarray
        Shape (placements,), int64; objects are numbered by their first placement.
    """
    count = len(names)
    if radius is None or count == 0:
        return np.arange(count)
    codes = np.unique(tile.astype(str), return_inverse=True)[1]
    pairs, chord = _near_pairs(ra, dec, tile, radius)
    same = names[pairs[:, 0]] == names[pairs[:, 1]]
    if by_position:
        mutual = _nearest(pairs, chord, codes, 0) & _nearest(pairs, chord, codes, 1)
        same = same | mutual
    first, second = pairs[same].T
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    group = connected_components(links, directed=False)[1].astype(np.int64)
    rank = _rank_within(group, codes)
    object_key = group * (rank.max() + 1) + rank
    _, start, number = np.unique(object_key, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(start))[number]


def best_placement(
    group: np.ndarray,
    usable: np.ndarray,
    masked_fraction: np.ndarray,
    edge_distance: np.ndarray,
    tile: np.ndarray,
) -> np.ndarray:
    """Choose one placement of each object.

    The best is usable, has the fewest masked pixels, and lies farthest from the edge of its image;
    between equals the tile's name decides, then the order given.

    Parameters
    ----------
    group : numpy.ndarray
        Number or name of the object, shape (placements,).
    usable : numpy.ndarray
        Shape (placements,), bool.
    masked_fraction, edge_distance : numpy.ndarray
        Shape (placements,), float, fraction and pixels; NaN is the worst.
    tile : numpy.ndarray
        Names, shape (placements,).

    Returns
    -------
    numpy.ndarray
        Shape (placements,), bool; one is true for each object.
    """
    masked = np.where(np.isnan(masked_fraction), np.inf, masked_fraction)
    edge = np.where(np.isnan(edge_distance), -np.inf, edge_distance)
    numbers = np.unique(group, return_inverse=True)[1]
    order = np.lexsort((np.asarray(tile).astype(str), -edge, masked, ~usable, numbers))
    new = np.ones(len(order), bool)
    new[1:] = np.diff(numbers[order]) != 0
    best = np.zeros(len(order), bool)
    best[order[new]] = True
    return best
