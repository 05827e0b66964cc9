"""Bootstrap intervals (Efron & Tibshirani 1993, ch. 13): percentiles of the resampled score.

Objects, or groups of them, are drawn with replacement, as many as there are. The interval
between percentiles follows skewed scores and stays within their bounds; it is not corrected
for bias and acceleration (BCa), which for scores of hundreds of objects or more changes little
beside the scatter that no bootstrap of the test set sees, that of training.

Two scores it does not suit. `ece` has no interval: resampling raises it, so that the value
itself would lie at the lower end or outside. That of `tpr0`, which hangs on the one best
non-lens, says how much hangs on it and no more (the bootstrap of an extreme is not consistent,
Bickel & Freedman 1981).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from luneta.metrics.arithmetic import nan_quantile
from luneta.metrics.checks import checked
from luneta.metrics.classification import Kind, scores
from luneta.metrics.delong import delong_interval

# Draws are scored in blocks of this many weights (16 MB), as each block sorts anew.
BLOCK = 2**21
WITHOUT = {"ece"}


def _strata_of_groups(groups: np.ndarray, strata: np.ndarray, count: int) -> np.ndarray:
    """Give the stratum of each group, (groups,); a group must lie in one."""
    result = np.empty(count, strata.dtype)
    result[groups] = strata
    if (result[groups] != strata).any():
        raise ValueError(
            f"{len(np.unique(groups[result[groups] != strata]))} groups have objects in more "
            "than one stratum, but a group is drawn as a whole. Leave out either `stratify` or "
            "`groups`."
        )
    return result


def resampled(
    objects: int, draws: int = 1000, seed: int = 0, stratify=None, groups=None
) -> Iterator[np.ndarray]:
    """Draw objects with replacement: give how often each is drawn, draw by draw.

    Parameters
    ----------
    objects : int
        Number of objects.
    draws : int, optional
        Number of draws.
    seed : int, optional
        The same seed gives the same draws.
    stratify : array_like, optional
        Stratum, as the class, of each object, shape (objects,): each keeps its number of
        objects (or of groups).
    groups : array_like, optional
        Group of each object, shape (objects,): objects of a group, as images of one galaxy,
        are not independent, and are drawn together.

    Yields
    ------
    numpy.ndarray
        Shape (objects,), int64.

    Raises
    ------
    ValueError
        If there is no draw, or a group has objects in several strata.
    """
    if draws < 1:
        raise ValueError(
            f"draws = {draws}: an interval needs one draw or more; its ends scatter less with 1000."
        )
    random = np.random.default_rng(seed)
    _, member = np.unique(np.arange(objects) if groups is None else groups, return_inverse=True)
    count = int(member.max()) + 1 if objects else 0
    strata = np.zeros(objects, int) if stratify is None else np.unique(stratify, False, True)[1]
    of_group = _strata_of_groups(member, strata, count)
    parts = [np.flatnonzero(of_group == stratum) for stratum in np.unique(of_group)]
    for _ in range(draws):
        drawn = np.zeros(count, np.int64)
        for part in parts:
            drawn[part] = np.bincount(random.integers(0, len(part), len(part)), None, len(part))
        yield drawn[member]


def _ends(values, level: float):
    return nan_quantile(values, [(1 - level) / 2, (1 + level) / 2])


def bootstrap(
    statistic: Callable,
    *arrays,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.683,
    stratify=None,
    groups=None,
) -> tuple:
    """Give the percentile interval of any statistic.

    Parameters
    ----------
    statistic : callable
        Takes the arrays, resampled along their first axis, and gives a number or an array.
    *arrays : array_like
        Shape (objects, ...), all of as many objects.
    draws, seed, stratify, groups
        As in `resampled`.
    level : float, optional
        Probability of the interval, 0.683 for one sigma.

    Returns
    -------
    low, high : float or numpy.ndarray
        Draws that give NaN are left out; NaN where all do, or where there is no object.

    Raises
    ------
    ValueError
        If arrays differ in length, or as in `resampled`.
    """
    arrays = [np.asarray(array) for array in arrays]
    lengths = {len(array) for array in arrays}
    if len(lengths) != 1:
        raise ValueError(
            f"arrays have {sorted(lengths)} objects; all must have the same objects, in one order."
        )
    objects = np.arange(lengths.pop())
    values = [
        statistic(*(array[rows] for array in arrays))
        for rows in (
            np.repeat(objects, weights)
            for weights in resampled(len(objects), draws, seed, stratify, groups)
        )
    ]
    low, high = _ends(values, level)
    return low, high


def _blocks(rows: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Stack rows in float64 blocks of `size`."""
    block = []
    for row in rows:
        block.append(row)
        if len(block) == size:
            yield np.stack(block, dtype=float)
            block = []
    if block:
        yield np.stack(block, dtype=float)


def intervals(
    labels,
    probabilities,
    kind: Kind,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.683,
    stratified: bool = False,
    groups=None,
) -> dict[str, tuple[float, float]]:
    """Give the percentile interval of the scores of `classification.scores`.

    Parameters
    ----------
    labels : array_like
        True class numbers, shape (objects,), int.
    probabilities : array_like
        Shape (objects, classes), float.
    kind : {"multiclass", "binary"}
        As in `classification.scores`.
    draws, seed, groups
        As in `resampled`.
    level : float, optional
        Probability of the interval, 0.683 for one sigma.
    stratified : bool, optional
        Keep the number of objects of each class, for a test set made with given numbers.

    Returns
    -------
    dict
        (low, high) for each score but `ece`; in a binary task `roc_auc_delong` as well.

    Raises
    ------
    ValueError
        As `classification.scores` and `resampled`.
    """
    labels, probabilities = checked(labels, probabilities)
    rows = resampled(len(labels), draws, seed, labels if stratified else None, groups)
    blocks = [
        scores(labels, probabilities, kind, weights)
        for weights in _blocks(rows, max(BLOCK // max(len(labels), 1), 1))
    ]
    result = {
        name: tuple(map(float, _ends(np.concatenate([block[name] for block in blocks]), level)))
        for name in blocks[0]
        if name not in WITHOUT
    }
    if kind == "binary":
        area = delong_interval(labels == 1, probabilities[:, 1], level)
        result["roc_auc_delong"] = (area.low, area.high)
    return result
