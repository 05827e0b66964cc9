"""Whether a tile's coordinate system agrees with the source list."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter
from scipy.special import pdtrc

BLOCK = 8
WINDOW = 3
PEAK_THRESHOLD = 6.0
MOST_DETECTIONS = 2000
MOST_SOURCES = 6000
MOST_PAIRS = 1_500_000
BIN = 3.0
CHANCE = 1e-4
LEAST_MATCHED = 4
LEAST_COMPARED = 10
ROUNDS = 8


@dataclass(frozen=True)
class Agreement:
    """How a tile's sources lie against what is seen in its image.

    Attributes
    ----------
    offset : float
        Median distance in arcsec of the matched sources from their detections; NaN if none match.
    matched : float
        Fraction of the compared that are matched; NaN if nothing could be compared.
    off : bool
        Whether the coordinate system disagrees with the list by more than is allowed.
    reason : str
        What was found, in plain words.
    """

    offset: float
    matched: float
    off: bool
    reason: str


def median_offset(
    pixels: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    brightness: np.ndarray | None,
    pixel_scale: float,
    noise: float,
    sources: int = 100,
    max_offset: float = 1.0,
    search: float = 180.0,
) -> Agreement:
    """Compare the positions of a tile's sources with the bright peaks of its image.

    The offsets of all pairs of a source and a peak crowd where the true offset is, and are spread
    evenly elsewhere; so an offset far larger than the distance between sources is found, and
    sources that have no peak do no harm. Where they crowd nowhere although there are many of both,
    the coordinate system is turned, or further off than `search`.

    Parameters
    ----------
    pixels : numpy.ndarray
        Image less its sky, shape (y, x), float32; bad pixels are NaN.
    x, y : numpy.ndarray
        Positions of the sources by the image's coordinate system, shape (objects,), zero-based
        pixels.
    brightness : numpy.ndarray or None
        Larger is brighter (a magnitude with its sign turned), shape (objects,); None if unknown.
    pixel_scale : float
        Arcsec a pixel.
    noise : float
        Standard deviation of the sky.
    sources : int
        How many of the brightest sources are compared; all, where `brightness` is not known.
    max_offset : float
        Arcsec beyond which the two disagree.
    search : float
        Arcsec within which offsets are looked for.
    """
    peak_x, peak_y = bright_peaks(pixels, noise)
    rows = _compared(x, y, brightness, pixels.shape, sources)
    if brightness is None:  # of peaks of every brightness, as a list may leave out the stars
        step = max(1, len(peak_x) * len(rows) // MOST_PAIRS)
        peak_x, peak_y = peak_x[::step], peak_y[::step]
    if min(len(rows), len(peak_x)) < LEAST_MATCHED:
        return _cannot_tell(len(rows), len(peak_x))
    reach = min(search / pixel_scale, max(pixels.shape))
    pairs = _Pairs.of(x[rows], y[rows], peak_x, peak_y, reach)
    place = pairs.crowd(pixels.shape, max_offset / pixel_scale)
    if place is None:
        return _no_match(len(rows), len(peak_x), search)
    distance, matched = pairs.matches(place)
    offset = float(np.median(distance) * pixel_scale)
    fraction = min(1.0, matched / min(len(rows), len(peak_x)))
    off = offset > max_offset
    relation = "above" if off else "within"
    return Agreement(
        offset,
        fraction,
        off,
        f"{matched} sources lie {offset:.2f} arcsec (median) from their detections, "
        f"{relation} the limit of {max_offset:g} arcsec",
    )


def _cannot_tell(count: int, peaks: int) -> Agreement:
    reason = f"too few to compare: {count} sources in the image, {peaks} bright detections"
    return Agreement(np.nan, np.nan, False, reason)


def _no_match(count: int, peaks: int, search: float) -> Agreement:
    if min(count, peaks) < LEAST_COMPARED:
        return _cannot_tell(count, peaks)
    return Agreement(
        np.nan,
        0.0,
        True,
        f"no offset up to {search:g} arcsec brings the {count} sources compared onto the {peaks} "
        f"bright detections: the coordinate system is wrong, or the list is of other objects",
    )


def _compared(x, y, brightness, shape, sources: int) -> np.ndarray:
    """Rows that are compared: the brightest, or where that is unknown all, evenly thinned out."""
    with np.errstate(invalid="ignore"):
        inside = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    rows = np.flatnonzero(inside)
    if brightness is None:
        return rows[:: max(1, -(-len(rows) // MOST_SOURCES))]
    rows = rows[np.isfinite(brightness[rows])]
    return rows[np.argsort(-brightness[rows], kind="stable")[:sources]]


def bright_peaks(pixels: np.ndarray, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Find the bright peaks of an image, at most one in a square of 8 pixels.

    Cheaper than a detection: the maxima of blocks of pixels, then a centroid about each. A peak
    whose neighbours are dark is a hot pixel or a cosmic ray, and left out.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32; bad pixels are NaN.
    noise : float
        Standard deviation of the sky.

    Returns
    -------
    x, y : numpy.ndarray
        Zero-based pixels, shape (peaks,), float64, brightest first.
    """
    ny, nx = (side // BLOCK for side in pixels.shape)
    if min(ny, nx) < 2 or not noise > 0:
        return np.empty(0), np.empty(0)
    blocks = pixels[: ny * BLOCK, : nx * BLOCK].reshape(ny, BLOCK, nx * BLOCK)
    highest = np.fmax.reduce(np.fmax.reduce(blocks, axis=1).reshape(ny, nx, BLOCK), axis=2)
    highest = np.nan_to_num(highest, nan=-np.inf)
    peaks = (highest > PEAK_THRESHOLD * noise) & (highest == maximum_filter(highest, 3))
    rows, columns = np.nonzero(peaks)
    order = np.argsort(-highest[rows, columns], kind="stable")[: 2 * MOST_DETECTIONS]
    x, y = _centroids(pixels, rows[order], columns[order], noise)
    good = np.isfinite(x)
    return x[good][:MOST_DETECTIONS], y[good][:MOST_DETECTIONS]


def _centroids(pixels, rows, columns, noise) -> tuple[np.ndarray, np.ndarray]:
    """Centroid of the light about the highest pixel of some blocks; NaN where it is no source."""
    inside = np.arange(BLOCK)
    squares = pixels[
        (rows * BLOCK)[:, None, None] + inside[:, None], (columns * BLOCK)[:, None, None] + inside
    ]
    flat = np.nan_to_num(squares.reshape(len(rows), BLOCK**2), nan=-np.inf).argmax(axis=1)
    y0, x0 = rows * BLOCK + flat // BLOCK, columns * BLOCK + flat % BLOCK
    ny, nx = pixels.shape
    away = (y0 >= WINDOW) & (y0 < ny - WINDOW) & (x0 >= WINDOW) & (x0 < nx - WINDOW)
    step = np.arange(-WINDOW, WINDOW + 1)
    yy, xx = np.clip(y0, WINDOW, ny - 1 - WINDOW), np.clip(x0, WINDOW, nx - 1 - WINDOW)
    light = np.nan_to_num(pixels[yy[:, None, None] + step[:, None], xx[:, None, None] + step])
    ring = light[:, WINDOW - 1 : WINDOW + 2, WINDOW - 1 : WINDOW + 2]
    real = away & ((ring > 2 * noise).sum(axis=(1, 2)) >= 5)
    light = np.clip(light - 0.2 * light.max(axis=(1, 2), keepdims=True), 0, None)
    total = np.where(real, light.sum(axis=(1, 2)), np.nan)
    return xx + (light * step).sum(axis=(1, 2)) / total, yy + (light * step[:, None]).sum(
        axis=(1, 2)
    ) / total


@dataclass(frozen=True)
class _Pairs:
    """Offsets of peaks from sources, for all pairs not too far apart.

    Attributes
    ----------
    dx, dy : numpy.ndarray
        Peak less source, shape (pairs,), pixels.
    source : numpy.ndarray
        Number of the source, shape (pairs,).
    x, y : numpy.ndarray
        Position of the source, shape (pairs,), pixels.
    product : int
        Number of all pairs, far ones too.
    reach : float
        Largest offset along an axis, in pixels.
    """

    dx: np.ndarray
    dy: np.ndarray
    source: np.ndarray
    x: np.ndarray
    y: np.ndarray
    product: int
    reach: float

    @classmethod
    def of(cls, x, y, peak_x, peak_y, reach: float) -> _Pairs:
        dx, dy = peak_x - x[:, None], peak_y - y[:, None]
        source, peak = np.nonzero((np.abs(dx) < reach) & (np.abs(dy) < reach))
        offsets = dx[source, peak], dy[source, peak]
        return cls(*offsets, source, x[source], y[source], dx.size, reach)

    def crowd(self, shape: tuple[int, int], near: float) -> tuple[float, float] | None:
        """Where offsets crowd more than chance allows; near (0, 0) first, else anywhere."""
        near = max(near, BIN)
        by_chance = self.product / (shape[0] * shape[1])
        count = int((np.hypot(self.dx, self.dy) <= near).sum())
        here = self._is_crowd(count, by_chance * np.pi * near**2, trials=1)
        place, highest, trials = self._densest()
        if place is None or not self._is_crowd(highest, by_chance * (3 * BIN) ** 2, trials):
            return (0.0, 0.0) if here else None
        return (0.0, 0.0) if here and 2 * count >= highest else place

    @staticmethod
    def _is_crowd(count: int, expected: float, trials: int) -> bool:
        """Whether a Poisson law gives so many, or more, less often than `CHANCE`."""
        return count >= LEAST_MATCHED and bool(pdtrc(count - 1, expected) * trials < CHANCE)

    def _densest(self) -> tuple[tuple[float, float] | None, int, int]:
        """Centre of the densest square of 3 x 3 bins, its count, and the number of bins."""
        side = int(np.ceil(2 * self.reach / BIN)) + 2
        if len(self.dx) == 0:
            return None, 0, side**2
        cells = np.floor((np.stack([self.dy, self.dx]) + self.reach) / BIN).astype(int) + 1
        counts = np.bincount(cells[0] * side + cells[1], minlength=side**2)
        counts = counts[: side**2].reshape(side, side)
        rows = counts[:-2] + counts[1:-1] + counts[2:]
        squares = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
        row, column = np.unravel_index(squares.argmax(), squares.shape)
        centre = ((column + 0.5) * BIN - self.reach, (row + 0.5) * BIN - self.reach)
        return centre, int(squares.max()), side**2

    def matches(self, place: tuple[float, float]) -> tuple[np.ndarray, int]:
        """Distances of the sources from the peaks that lie where the crowd is.

        Where the image is turned a little, the crowd is of one part of it only; so a linear map of
        the offsets is fitted, and the match is extended by it as long as it grows.

        Returns
        -------
        distance : numpy.ndarray
            Shape (matched,), pixels.
        count : int
            How many sources are matched.
        """
        near = np.hypot(self.dx - place[0], self.dy - place[1]) <= 3 * BIN
        rows = self._closest(np.median(self.dx[near]), np.median(self.dy[near]))
        terms = np.stack([np.ones_like(self.x), self.x, self.y], axis=1)
        for _ in range(ROUNDS):
            if len(rows) < 2 * LEAST_MATCHED:
                break
            offsets = np.stack([self.dx[rows], self.dy[rows]], axis=1)
            fitted = terms @ np.linalg.lstsq(terms[rows], offsets, rcond=None)[0]
            more = self._closest(fitted[:, 0], fitted[:, 1])
            if len(more) <= len(rows):
                break
            rows = more
        return np.hypot(self.dx[rows], self.dy[rows]), len(rows)

    def _closest(self, dx, dy) -> np.ndarray:
        """Pairs within 2 bins of expected offsets, for each source the closest."""
        apart = np.hypot(self.dx - dx, self.dy - dy)
        rows = np.flatnonzero(apart <= 2 * BIN)
        rows = rows[np.argsort(apart[rows], kind="stable")]
        return rows[np.unique(self.source[rows], return_index=True)[1]]
