"""Which partition of the sky a position belongs to; pure functions of all positions.

Partitions are HEALPix pixels (Gorski et al. 2005), nested numbering. A pixel is split in four if
it holds more rows than the config allows. So what a partition holds does not depend on the order
in which tiles came, and a new tile changes only partitions on which it lies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import cdshealpix
import numpy as np
from hats.pixel_math import HealpixPixel
from hats.pixel_math.healpix_shim import margin2order
from hats.pixel_math.spatial_index import SPATIAL_INDEX_ORDER, compute_spatial_index

from luneta.survey.sources import on_the_sky

NOWHERE = -1


def shift_to(order: int) -> int:
    """Bits by which an index of order 29 is shifted to give the pixel of an order."""
    return 2 * (SPATIAL_INDEX_ORDER - order)


def healpix_of(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Find the HEALPix pixels of order 29 of positions.

    Parameters
    ----------
    ra, dec : numpy.ndarray
        Degrees, float (objects,).

    Returns
    -------
    numpy.ndarray
        int64 (objects,); -1 where the position is no point of the sky.
    """
    known = on_the_sky(ra, dec)
    found = np.full(len(known), NOWHERE, np.int64)
    if known.any():
        found[known] = compute_spatial_index(ra[known], dec[known])
    return found


@dataclass(frozen=True)
class Partitions:
    """Pixels that do not overlap, in the order of the sky (that of `_healpix_29`).

    Attributes
    ----------
    order, pixel : numpy.ndarray
        int64 (partitions,).
    rows : numpy.ndarray
        How many rows each holds, int64 (partitions,).
    """

    order: np.ndarray
    pixel: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.order)

    @property
    def first(self) -> np.ndarray:
        """First pixel of order 29 in each, int64."""
        return self.pixel << 2 * (SPATIAL_INDEX_ORDER - self.order)

    @property
    def pixels(self) -> list[HealpixPixel]:
        """The same as pairs of order and pixel."""
        pairs = zip(self.order.tolist(), self.pixel.tolist(), strict=True)
        return [HealpixPixel(*pair) for pair in pairs]

    def number_of(self, healpix: np.ndarray) -> np.ndarray:
        """Tell in which partition each pixel of order 29 lies; -1 is none. int64."""
        if not len(self):
            return np.full(len(healpix), NOWHERE, np.int64)
        first = self.first
        number = np.searchsorted(first, healpix, side="right") - 1
        end = first + (np.int64(1) << 2 * (SPATIAL_INDEX_ORDER - self.order))
        return np.where((number >= 0) & (healpix < end[number]), number, NOWHERE)


def _sorted(order: np.ndarray, pixel: np.ndarray, rows: np.ndarray) -> Partitions:
    found = Partitions(*(np.asarray(values, np.int64) for values in (order, pixel, rows)))
    by_place = np.argsort(found.first, kind="stable")
    return Partitions(found.order[by_place], found.pixel[by_place], found.rows[by_place])


def partition(cells: np.ndarray, counts: np.ndarray, settings: Mapping) -> Partitions:
    """Divide the sky so that no partition holds more rows than wanted.

    The same as `hats.pixel_math.generate_alignment`, of pixels that are not empty alone.

    Parameters
    ----------
    cells : numpy.ndarray
        Pixels of the highest order that hold rows, int64; one may come more than once.
    counts : numpy.ndarray
        Rows in each, int64.
    settings : mapping
        `lowest_order`, `highest_order` and `rows_per_partition`. A pixel of the highest order is
        not divided, however many rows it holds.
    """
    highest = settings["highest_order"]
    found = []
    for order in range(settings["lowest_order"], highest + 1):
        pixel, cell = np.unique(cells >> 2 * (highest - order), return_inverse=True)
        rows = np.bincount(cell, counts, minlength=len(pixel)).astype(np.int64)
        final = (rows <= settings["rows_per_partition"]) | (order == highest)
        found.append((np.full(final.sum(), order), pixel[final], rows[final]))
        cells, counts = cells[~final[cell]], counts[~final[cell]]
    return _sorted(*(np.concatenate(values) for values in zip(*found, strict=True)))


def _empty_pixels(partitions: Partitions) -> tuple[np.ndarray, np.ndarray]:
    """Find the largest pixels that hold no partition: order and pixel, int64."""
    found = []
    open_pixels = np.arange(12)
    for order in range(int(partitions.order.max()) + 1):
        here = partitions.pixel[partitions.order == order]
        deeper = partitions.order > order
        above = partitions.pixel[deeper] >> 2 * (partitions.order[deeper] - order)
        empty = open_pixels[~np.isin(open_pixels, np.concatenate([here, above]))]
        found.append((np.full(len(empty), order), empty))
        open_pixels = (4 * np.unique(above)[:, None] + np.arange(4)).ravel()
    order, pixel = (np.concatenate(values) for values in zip(*found, strict=True))
    return order, pixel


def whole_sky(partitions: Partitions) -> Partitions:
    """Add the pixels, without rows, that cover what the partitions leave of the sky.

    A match across the border of an empty pixel needs the rows beside it, too.
    """
    if not len(partitions):
        return partitions
    order, pixel = _empty_pixels(partitions)
    return _sorted(
        np.concatenate([partitions.order, order]),
        np.concatenate([partitions.pixel, pixel]),
        np.concatenate([partitions.rows, np.zeros(len(order), np.int64)]),
    )


def neighbours(cells: np.ndarray, order: int) -> np.ndarray:
    """List the pixels around each pixel, int64 (cells, 8); -1 where there is none."""
    around = cdshealpix.neighbours(cells.astype(np.uint64), order)
    return np.delete(np.asarray(around, np.int64), 4, axis=1)  # the fifth is the pixel itself


def _beside(cells: np.ndarray, order: int, sky: Partitions) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of a cell (its index) and a partition, not its own, that a neighbour lies in."""
    shift = shift_to(order)
    own = sky.number_of(cells << shift)
    around = neighbours(cells, order)
    other = np.where(around < 0, NOWHERE, sky.number_of((around << shift).ravel()).reshape(-1, 8))
    cell, column = np.nonzero((other != own[:, None]) & (other != NOWHERE))
    pairs = np.unique(np.stack([cell, other[cell, column]], 1), axis=0)
    return pairs[:, 0], pairs[:, 1]


def partitions_beside(cells: np.ndarray, order: int, sky: Partitions) -> np.ndarray:
    """Number the partitions that may have rows of these cells in their margin, int64."""
    return np.unique(_beside(cells, order, sky)[1]) if len(sky) else np.empty(0, np.int64)


def margin_rows(
    healpix: np.ndarray, radius: float, highest_order: int, sky: Partitions
) -> tuple[np.ndarray, np.ndarray]:
    """Find the rows that lie in the margin of a partition, at most some arcsec outside it.

    As in hats: a row belongs to a margin if its cell, of an order whose cells are wider than the
    radius, touches the partition. So a margin holds all rows within the radius, and some more.

    Parameters
    ----------
    healpix : numpy.ndarray
        Pixels of order 29 of the rows, int64 (rows,).
    radius : float
        Arcsec.
    highest_order : int
        Of the partitions; the cells of this order are looked at first.
    sky : Partitions
        That cover the whole sky.

    Returns
    -------
    tuple of numpy.ndarray
        Rows and numbers of partitions, both int64 (pairs,).
    """
    nothing = np.empty(0, np.int64), np.empty(0, np.int64)
    if not len(healpix) or not len(sky):
        return nothing
    coarse, of_row = np.unique(healpix >> shift_to(highest_order), return_inverse=True)
    near, _ = _beside(coarse, highest_order, sky)
    rows = np.flatnonzero(np.isin(of_row, near))
    if not len(rows):
        return nothing
    order = int(margin2order(radius / 60))
    cells, of_row = np.unique(healpix[rows] >> shift_to(order), return_inverse=True)
    cell, number = _beside(cells, order, sky)
    # Rows by cell, so that each pair of cell and partition becomes pairs of its rows.
    by_cell = np.argsort(of_row, kind="stable")
    start = np.searchsorted(of_row[by_cell], np.arange(len(cells) + 1))
    size = start[cell + 1] - start[cell]
    place = np.repeat(start[cell] - np.cumsum(size) + size, size) + np.arange(size.sum())
    return rows[by_cell[place]], np.repeat(number, size)
