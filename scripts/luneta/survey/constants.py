"""Pixels of one exact value where there should be sky: areas that were filled in, not observed.

Noise does not repeat a value, so a value that fills a large part of a band was put there. What
repeats values by right is told apart by numbers:

- integers and quantised floats (the second value has more than 2 % of the other pixels, or in each
  row a tenth of the value's): only areas of 3 x 3 pixels of the value count, where they are ten
  times as many as chance would make and the next value forms none;
- photon images, mostly zero, and noise far below a step: the value is scattered, with more than
  half of the borders between its pixels and others that as many pixels in any places would have;
- noiseless simulations: the light fades into the value, which is the least of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SAMPLE, SCREENED = 4096, 256
FEWEST = 64  # good pixels, of fewer nothing can be said
MOST_VALUES = 3
QUANTISED = 0.02
AS_COMMON = 0.1  # of a value, in rows that are quantised each by itself
SPIKE = 10.0  # how much commoner than any other value, or than by chance
SCATTERED = 0.5  # share of the borders that chance would make
FADING, SMALL, TURNING = 0.8, 0.2, 1 / 3
NEARLY = 0.8  # of the limit, by the sample
STRIPS, STRIP = 64, 3
_WHOSE = {False: "its", True: "a cutout's"}


@dataclass(frozen=True)
class Fill:
    """A value that fills a part of an image.

    Attributes
    ----------
    value : float
        The value.
    share : float
        Of the image's good pixels.
    everywhere : bool
        Whether each pixel of that value is filled in; else only those in areas of 3 x 3 pixels.
    of_cutout : bool
        Whether the share is that of a cutout, not of the whole image.
    """

    value: float
    share: float
    everywhere: bool
    of_cutout: bool = False


@dataclass(frozen=True)
class Judgement:
    """What the values of an image are.

    Attributes
    ----------
    fills : list of Fill
        Values that are no data, at most three.
    by_right : list of float
        Values as common, which the image repeats by right.
    is_quantised : bool
        Whether values repeat all over the image.
    """

    fills: list[Fill]
    by_right: list[float]
    is_quantised: bool


def sample_rows(rows: int) -> np.ndarray:
    """First rows of the strips, three rows high, by which a tile is judged.

    Returns
    -------
    numpy.ndarray
        Shape (strips,), int64; empty if the image is so small that all of it is looked at.
    """
    if rows <= STRIPS * STRIP:
        return np.empty(0, np.int64)
    return np.linspace(0, rows - STRIP, STRIPS).astype(np.int64)


def strips_of(pixels: np.ndarray) -> np.ndarray:
    """Take the strips of `sample_rows` out of an image; shape (strips, y, x)."""
    starts = sample_rows(len(pixels))
    if not len(starts):
        return pixels[None]
    return pixels[starts[:, None] + np.arange(STRIP)]


def suspects(images: np.ndarray, limit: float) -> np.ndarray:
    """Find the images in which one value may be too common, by a sample of their pixels.

    Parameters
    ----------
    images : numpy.ndarray
        Shape (images, pixels), float32; NaN is bad.
    limit : float
        The config's `input.mask.constant`.

    Returns
    -------
    numpy.ndarray
        Shape (images,), bool. True where a value has half of the limit, or much is bad.
    """
    sample = images[:, spread_places(images.shape[1], SCREENED)]
    return repeats(sample, limit) | (np.isnan(sample).mean(axis=1) > 0.5)


def repeats(samples: np.ndarray, limit: float) -> np.ndarray:
    """Whether any value has more than half of the limit in a sample; NaN has none.

    Parameters
    ----------
    samples : numpy.ndarray
        Shape (images, pixels), float32.

    Returns
    -------
    numpy.ndarray
        Shape (images,), bool.
    """
    values = np.sort(samples, axis=1)
    run = max(1, int(limit / 2 * values.shape[1]))
    return (values[:, run:] == values[:, :-run]).any(axis=1)


def find_fills(images: np.ndarray, limit: float) -> list[Fill]:
    """Find the values that fill more than `limit` of a band without being observed; see `judge`."""
    return judge(images, limit).fills


def judge(images: np.ndarray, limit: float) -> Judgement:
    """Judge the values that more than `limit` of a band's good pixels have.

    Parameters
    ----------
    images : numpy.ndarray
        Shape (parts, y, x), float32: the image, or strips of it; NaN is bad.
    limit : float
        The config's `input.mask.constant`.

    Returns
    -------
    Judgement
        Without fills where all good pixels have one value: such a band holds no data.
    """
    fills: list[Fill] = []
    while True:
        fill, by_right, is_quantised = _commonest_fill(images, limit)
        if fill is None or len(fills) == MOST_VALUES:
            return Judgement(fills, by_right, is_quantised)
        fills.append(fill)
        images = np.where(filled_pixels(images, [fill]), np.float32(np.nan), images)


def mask_constant(pixels: np.ndarray, limit: float) -> tuple[list[Fill], np.ndarray | None]:
    """Make NaN of the pixels of an image that a value fills, in place.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32, read whole; NaN is bad.
    limit : float
        The config's `input.mask.constant`.

    Returns
    -------
    fills : list of Fill
        The values; what to say of them, `describe` tells.
    filled : numpy.ndarray or None
        Where they were, shape (y, x), bool; None where there are none.
    """
    strips = strips_of(pixels)
    if not suspects(strips.reshape(1, -1), limit)[0]:
        return [], None
    fills = find_fills(strips, limit)
    return fills, mask_fills(pixels, fills) if fills else None


def filled_pixels(pixels: np.ndarray, fills: list[Fill]) -> np.ndarray:
    """Tell the pixels that were filled in; shape of `pixels` (..., y, x), bool."""
    filled = np.zeros(pixels.shape, bool)
    for fill in fills:
        same = pixels == np.float32(fill.value)
        filled |= same if fill.everywhere else _areas(same)
    return filled


def mask_fills(pixels: np.ndarray, fills: list[Fill]) -> np.ndarray:
    """Make filled pixels NaN in place; give where they were, shape of `pixels`, bool."""
    filled = filled_pixels(pixels, fills)
    pixels[filled] = np.nan
    return filled


def describe(name: str, fills: list[Fill]) -> str:
    """Say of a file which values fill it."""
    values = " and ".join(
        f"{fill.value:g} fills {fill.share:.0%} of {_WHOSE[fill.of_cutout]} good pixels"
        for fill in fills
    )
    return (
        f"{name}: the exact value {values}, so they are masked as no data (input.mask.constant; "
        "set it to null if they are real)"
    )


def _commonest_fill(images: np.ndarray, limit: float) -> tuple[Fill | None, list[float], bool]:
    """The fill that most pixels have, common values before it, and whether all are quantised."""
    good = ~np.isnan(images)
    count = int(good.sum())
    by_right: list[float] = []
    if count < FEWEST:
        return None, by_right, False
    values, counts = _values(images[good])
    most = np.argsort(-counts, kind="stable")[: int(1 / limit) + 1]
    for place in most[counts[most] > NEARLY * limit * counts.sum()]:
        same = images == values[place]
        if not limit < same.sum() / count < 1:
            continue
        fill = _fill(images, same, good, limit, values, counts, int(place))
        if fill is not None and not _fades(images, same, values[place]):
            return fill, by_right, _are_quantised(counts)
        by_right.append(float(values[place]))
    return None, by_right, _are_quantised(counts)


def _are_quantised(counts: np.ndarray) -> bool:
    """Whether a value is common that is none of the three commonest, which may be fills."""
    if len(counts) <= MOST_VALUES:
        return False
    return bool(np.sort(counts)[-1 - MOST_VALUES] > max(2, QUANTISED / 2 * counts.sum()))


def _fill(images, same, good, limit: float, values, counts, place: int) -> Fill | None:
    """Tell whether a common value is a fill; None if the image holds it by right."""
    value, share = float(values[place]) + 0.0, float(same.sum() / good.sum())
    others = np.delete(counts, place)
    second, is_spike = others.max(initial=0), counts[place] >= SPIKE * others.max(initial=0)
    is_repeated = second > max(2, QUANTISED * others.sum())
    by_row = not is_repeated and _by_row(images, same)
    if not is_repeated and not by_row:
        is_photons = value == values[0] and _borders(same, good) > SCATTERED
        return None if is_photons else Fill(value, share, True)
    areas = float(_areas(same).sum() / good.sum())
    if areas <= limit:
        return None
    is_scattered = _borders(same, good) > SCATTERED
    if is_spike and not by_row:
        return None if is_scattered else Fill(value, areas, False)
    is_chance = is_scattered and _cores(same).sum() <= SPIKE * share**9 * good.sum()
    is_right = is_chance or _is_step(images, values, place, areas)
    return None if is_right else Fill(value, areas, False)


def _by_row(images: np.ndarray, same: np.ndarray) -> bool:
    """Whether each row is quantised, with steps of its own, as by tile compression without dither.

    Zero is among the values of all rows then, and the commonest of the image.
    """
    width = images.shape[-1]
    rows, same = images.reshape(-1, width), same.reshape(-1, width)
    some = np.flatnonzero(same.sum(axis=1) > 2)
    some = some[:: max(1, len(some) // STRIPS)]
    ratios = [_next_to(rows[n][~same[n]], int(same[n].sum())) for n in some]
    return bool(ratios) and float(np.median(ratios)) > AS_COMMON


def _next_to(others: np.ndarray, count: int) -> float:
    """How common the commonest of other values is, in units of `count`."""
    counts = np.unique(others[~np.isnan(others)], return_counts=True)[1]
    return counts.max(initial=0) / count if counts.max(initial=0) > 2 else 0.0


def _values(good: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of a sample of pixels and how many there are of each."""
    return np.unique(good[spread_places(len(good), SAMPLE)], return_counts=True)


@lru_cache(maxsize=64)
def spread_places(pixels: int, most: int) -> np.ndarray:
    """Places of a sample, one at random in each of `most` parts; regular ones fall on columns.

    Returns
    -------
    numpy.ndarray
        Indices below `pixels`, shape (places,), int64, the same each time.
    """
    edges = np.linspace(0, pixels, min(pixels, most) + 1).astype(np.int64)
    return edges[:-1] + np.random.default_rng(0).integers(0, np.diff(edges))


def _borders(same: np.ndarray, good: np.ndarray) -> float:
    """Borders between a value's pixels and others, over those of as many pixels in any places."""
    unlike = pairs = 0
    for axis in (-2, -1):
        (first, next_), both = _neighbours(same, axis), np.logical_and(*_neighbours(good, axis))
        unlike += ((first != next_) & both).sum()
        pairs += both.sum()
    share = same.sum() / good.sum()
    return float(unlike / max(1, pairs) / (2 * share * (1 - share)))


def _neighbours(array: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel but the last along an axis, and the next one."""
    return (
        (array[..., :-1, :], array[..., 1:, :]) if axis == -2 else (array[..., :-1], array[..., 1:])
    )


def _cores(same: np.ndarray) -> np.ndarray:
    """Pixels whose 3 x 3 neighbourhood is all of the value; those at the border are not."""
    wide = same[..., :-2] & same[..., 1:-1] & same[..., 2:]
    cores = np.zeros(same.shape, bool)
    if wide.shape[-1] > 0 and same.shape[-2] > 2:
        cores[..., 1:-1, 1:-1] = wide[..., :-2, :] & wide[..., 1:-1, :] & wide[..., 2:, :]
    return cores


def _areas(same: np.ndarray) -> np.ndarray:
    """Pixels of a value that lie in an area of 3 x 3 pixels of it."""
    cores = _cores(same)
    for axis in (-2, -1):
        grown = cores.copy()
        first, next_ = _neighbours(grown, axis)
        before, after = _neighbours(cores, axis)
        first |= after
        next_ |= before
        cores = grown
    return cores


def _is_step(images: np.ndarray, values: np.ndarray, place: int, areas: float) -> bool:
    """Whether the next value forms areas too, as in a smooth image of few values."""
    beside = values[max(place - 1, 0) : place + 2]
    count = (~np.isnan(images)).sum()
    found = [_areas(images == v).sum() / count for v in beside if v != values[place]]
    return max(found, default=0.0) > areas / SPIKE


def _fades(images: np.ndarray, same: np.ndarray, value: float) -> bool:
    """Whether light fades into the value, the least of all: the empty sky of a simulation.

    What lies beside the value is then its next step, or fainter than the rest and smooth.
    """
    rest = ~np.isnan(images) & ~same
    light = images[rest] - value
    if light.min() < 0:
        return False
    beside = np.zeros(same.shape, bool)
    for axis in (-2, -1):
        (first, next_), (low, high) = _neighbours(beside, axis), _neighbours(same, axis)
        first |= high
        next_ |= low
    edge = images[beside & rest] - value
    if not len(edge):
        return False
    if np.median(edge) <= light.min():
        return True
    # Of a small source much is beside the value, which then cannot be much fainter than the rest.
    allowed = 1.0 if len(edge) > SMALL * len(light) else FADING
    is_fainter = np.quantile(edge, 0.9) < allowed * np.median(light)
    return bool(is_fainter and _is_smooth(images, rest))


def _is_smooth(images: np.ndarray, rest: np.ndarray) -> bool:
    """Whether the faintest third of the light turns from rising to falling more rarely than noise.

    Noise does at two pixels of three.
    """
    faint = rest & (images <= np.quantile(images[rest], 1 / 3))
    inside = rest[..., :-2] & faint[..., 1:-1] & rest[..., 2:]
    left, middle, right = (
        part[inside] for part in (images[..., :-2], images[..., 1:-1], images[..., 2:])
    )
    if len(middle) < SPIKE:
        return True
    rises, falls = np.sign(middle - left), np.sign(right - middle)
    return bool((rises * falls < 0).mean() < TURNING)
