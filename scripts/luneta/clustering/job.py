"""Rule cluster: place every object of a survey in the space of a network's features."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luneta.clustering.neighbours import among_others, nearest
from luneta.clustering.space import Places, Space
from luneta.inference.embeddings import read_features
from luneta.parquet import parquet_writer, read_parquet, write_parquet

logger = logging.getLogger(__name__)

FEWEST = 10
NEIGHBOURS = pa.schema(
    [
        ("object_id", pa.string()),
        ("neighbours", pa.list_(pa.string())),
        ("distances", pa.list_(pa.float32())),
    ]
)


def schema(task: str) -> pa.Schema:
    """Give the columns of clusters/{task}.parquet."""
    return pa.schema(
        [
            ("shard", pa.string()),
            ("object_id", pa.string()),
            *((f"{task}_pca_{i}", pa.float32()) for i in (1, 2)),
            *((f"{task}_map_{i}", pa.float32()) for i in (1, 2)),
            (f"{task}_group", pa.int32()),
            (f"{task}_anomaly_score", pa.float32()),
        ]
    )


def sample(paths: Sequence[Path | str], most: int, seed: int) -> np.ndarray:
    """Draw at most `most` usable objects of all shards, each as likely: (object, feature)."""
    counts = [pc.count(read_parquet(p, columns=["features"])["features"]).as_py() for p in paths]
    total = sum(counts)
    chosen = np.arange(total)
    if total > most:
        chosen = np.sort(np.random.default_rng(seed).choice(total, most, replace=False))
    parts, first = [], 0
    for path, count in zip(paths, counts, strict=True):
        rows = chosen[(chosen >= first) & (chosen < first + count)] - first
        if len(rows):
            parts.append(read_features(path)[2][rows])
        first += count
    return np.concatenate(parts) if parts else np.empty((0, 0), "float32")


def _nothing() -> Places:
    empty = np.empty((0, 2), "float32")
    return Places(empty, empty, np.empty(0, "int32"), np.empty(0, "float32"))


def table_of(
    task: str, shard: str, ids: pa.ChunkedArray, usable: np.ndarray, places: Places
) -> pa.Table:
    """Lay the places of the usable objects over all rows of a shard, null for the others."""
    row = np.cumsum(usable) - 1

    def spread(values: np.ndarray) -> pa.Array:
        full = values[row] if len(values) else np.zeros(len(usable), values.dtype)
        return pa.array(full, mask=~usable)

    columns = [*places.components.T[:2], *places.map.T, places.group, places.anomaly]
    arrays = [pa.repeat(shard, len(ids)), ids, *(spread(column) for column in columns)]
    return pa.Table.from_arrays(arrays, schema=schema(task))


def _neighbour_table(
    names: list[str], components: np.ndarray, settings: dict, threads: int
) -> pa.Table:
    """List the neighbours of each object, once; another placement of itself is none of them."""
    everyone = np.array(names, object)
    _, several = np.unique(everyone, return_counts=True)
    most = int(several.max()) if len(names) else 1
    rows, distances = nearest(
        components, settings["neighbours"] * most + most - 1, settings["exact_below"],
        settings["seed"], threads,
    )  # fmt: skip
    found = among_others(rows, distances, everyone, settings["neighbours"])
    first = np.sort(np.unique(everyone, return_index=True)[1])
    lists = [
        [everyone[found[i][0]].tolist() for i in first],
        [found[i][1].tolist() for i in first],
    ]
    columns = [everyone[first].tolist(), *lists]
    arrays = [pa.array(c, field.type) for c, field in zip(columns, NEIGHBOURS, strict=True)]
    return pa.Table.from_arrays(arrays, schema=NEIGHBOURS)


def run(
    embeddings: Sequence[Path | str],
    clusters: Path | str,
    neighbours: Path | str,
    settings: dict[str, Any],
    threads: int = 1,
) -> None:
    """Place all objects of a survey.

    Parameters
    ----------
    embeddings
        embeddings/{task}/{shard}.parquet, in the order of `settings["shards"]`.
    clusters
        Written: clusters/{task}.parquet, a row for each row of the embeddings; null where the
        object could not be used.
    neighbours
        Written: clusters/{task}_neighbours.parquet, a row for each usable object; one that lies on
        several tiles is there with its first placement.
    settings
        `task_name`, `shards`, `seed` and the section `clustering` of the config.
    threads
        Processor threads the job may use.

    Notes
    -----
    The principal components of all objects are in memory for the neighbours, 4 bytes each. With
    fewer than 10 usable objects there is nothing to fit: all places are null.
    """
    task, seed = settings["task_name"], settings["seed"]
    features = sample(embeddings, settings["sample"], seed)
    space = Space(features, settings, seed, threads) if len(features) >= FEWEST else None
    if space is None:
        logger.warning("%s: %d usable objects are too few to place", task, len(features))
    names: list[str] = []
    components = []
    with parquet_writer(clusters, schema(task)) as writer:
        for shard, ids, usable, places in _placed(embeddings, settings["shards"], space):
            writer.write_table(table_of(task, shard, ids, usable, places))
            names += ids.filter(pa.array(usable)).to_pylist()
            components.append(places.components)
    together = np.concatenate(components) if names else np.empty((0, 1), "float32")
    write_parquet(_neighbour_table(names, together, settings, threads), neighbours)
    logger.info("%s: %d objects placed", task, len(names))


def _placed(
    paths: Sequence[Path | str], shards: Sequence[str], space: Space | None
) -> Iterator[tuple[str, pa.ChunkedArray, np.ndarray, Places]]:
    for shard, path in zip(shards, paths, strict=True):
        ids, usable, features = read_features(path)
        if space is None:
            yield shard, ids, np.zeros_like(usable), _nothing()
        else:
            yield shard, ids, usable, space.place(features)
