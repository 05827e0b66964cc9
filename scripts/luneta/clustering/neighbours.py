"""Nearest neighbours in the space of the features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from sklearn.neighbors import NearestNeighbors

from luneta.parquet import read_parquet


def nearest(
    components: np.ndarray, count: int, exact_below: int, seed: int, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest neighbours of each object among the others.

    Parameters
    ----------
    components
        float32 (object, component).
    count
        Neighbours of each; fewer where there are no more objects.
    exact_below
        Beyond so many objects an index (NN-descent, Dong et al. 2011) finds them, nearly all.
    seed
        Of the index.
    threads
        Processor threads it may use.

    Returns
    -------
    rows, distances : numpy.ndarray
        int64 and float32 (object, neighbour), the nearest first; Euclidean.
    """
    count = min(count, max(0, len(components) - 1))
    if count == 0:
        empty = np.empty((len(components), 0))
        return empty.astype("int64"), empty.astype("float32")
    if len(components) <= exact_below:
        exact = NearestNeighbors(n_neighbors=count, n_jobs=threads).fit(components)
        distances, rows = exact.kneighbors()
    else:
        rows, distances = _from_index(components, count, seed, threads)
    return rows.astype("int64"), distances.astype("float32")


def _from_index(
    components: np.ndarray, count: int, seed: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    from pynndescent import NNDescent

    wider = max(2 * count, 15)
    index = NNDescent(components, n_neighbors=wider, random_state=seed, n_jobs=threads)
    rows, distances = index.neighbor_graph
    others = rows != np.arange(len(components))[:, None]
    # The object itself is in nearly all rows: put it last, keep the order of the others.
    order = np.argsort(~others, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(distances, order, 1)


def among_others(
    rows: np.ndarray, distances: np.ndarray, names: np.ndarray, count: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Keep the nearest placement of each other object.

    Parameters
    ----------
    rows, distances
        Of neighbouring placements, the nearest first, (placement, neighbour).
    names
        Of the objects, object (placement,); an object on several tiles has several.
    count
        Neighbours kept of each.

    Returns
    -------
    list
        For each placement the rows and the distances of its neighbours.
    """
    kept = []
    for own, found, away in zip(names, rows, distances, strict=True):
        others, first = np.unique(names[found], return_index=True)
        first = np.sort(first[others != own])[:count]
        kept.append((found[first], away[first]))
    return kept


def neighbours_of(path: Path | str, object_id: str) -> list[tuple[str, float]]:
    """Read the neighbours of an object from clusters/{task}_neighbours.parquet.

    Returns
    -------
    list
        Name and distance of each, the nearest first.

    Raises
    ------
    KeyError
        If there is no such object, or it could not be used.
    FileNotFoundError
        If there is no such file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(
            f"{path} is not there: name the task under clustering.tasks of the config, and run it"
        )
    table = read_parquet(path, filters=pc.field("object_id") == object_id)
    if not len(table):
        raise KeyError(
            f"{object_id!r} has no neighbours in {path}: give the name of an object of the "
            "catalog that has a cutout"
        )
    row = table.slice(0, 1).to_pylist()[0]
    return list(zip(row["neighbours"], row["distances"], strict=True))
