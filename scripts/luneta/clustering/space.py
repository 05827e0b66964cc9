"""The space of a network's features: principal components, a map, groups, anomaly score.

All is fitted on a sample and then laid over every object, a shard at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import NearestNeighbors

NO_GROUP = -1
TREES = 200
# Enough to span the map; UMAP's own default
MAP_NEIGHBOURS = 15


@dataclass(frozen=True)
class Places:
    """Where objects are in the space of the features, one entry per object in each array.

    Attributes
    ----------
    components
        Principal components, float32 (object, component).
    map
        UMAP coordinates, float32 (object, 2).
    group
        Number of the group, int32 (object,); -1 outside all groups.
    anomaly
        Anomaly score, float32 (object,), 0 to 1; the rarer an object, the higher. 0.5 is common.
    """

    components: np.ndarray
    map: np.ndarray
    group: np.ndarray
    anomaly: np.ndarray


class Space:
    """The space of the features, fitted on a sample.

    Parameters
    ----------
    features
        Of the sample, float32 (object, feature).
    settings
        `components`, `method` (`hdbscan` or `kmeans`), `groups`, `smallest_group`.
    seed
        Of all random choices.
    threads
        Processor threads it may use; UMAP takes one, so that its map is the same each time.

    Notes
    -----
    HDBSCAN (Campello et al. 2013) groups the objects on the UMAP map (McInnes et al. 2018,
    arXiv:1802.03426), where density is to be had; k-means groups them by principal components. The
    anomaly score is that of an isolation forest (Liu et al. 2008) on the components. Groups are
    numbered by falling size.
    """

    def __init__(self, features: np.ndarray, settings: dict[str, Any], seed: int, threads: int = 1):
        import umap

        count = min(settings["components"], *features.shape)
        self.pca = PCA(count, svd_solver="randomized", random_state=seed).fit(features)
        self.sample = self.pca.transform(features).astype("float32")
        self.umap = umap.UMAP(
            n_neighbors=min(MAP_NEIGHBOURS, len(features) - 1), random_state=seed, n_jobs=1
        )
        self.map = self.umap.fit_transform(self.sample).astype("float32")
        forest = IsolationForest(n_estimators=TREES, random_state=seed, n_jobs=threads)
        self.forest = forest.fit(self.sample)
        where = self.map if settings["method"] == "hdbscan" else self.sample
        self.group = by_size(_groups(where, settings, seed))
        self._nearest = NearestNeighbors(n_neighbors=1, n_jobs=threads).fit(self.sample)

    def place(self, features: np.ndarray) -> Places:
        """Place objects; an object outside the sample joins the group of its nearest there."""
        if not len(features):
            return Places(
                np.empty((0, self.sample.shape[1]), "float32"), np.empty((0, 2), "float32"),
                np.empty(0, "int32"), np.empty(0, "float32"),
            )  # fmt: skip
        components = self.pca.transform(features).astype("float32")
        distance, nearest = (x[:, 0] for x in self._nearest.kneighbors(components))
        # Of the sample the map is known; what UMAP would make of it anew is a little beside it.
        known = distance <= 1e-4 * float(np.abs(self.sample).max())
        coordinates = self.map[nearest]
        if not known.all():
            coordinates[~known] = self.umap.transform(components[~known])
        return Places(
            components,
            coordinates.astype("float32"),
            self.group[nearest],
            -self.forest.score_samples(components).astype("float32"),
        )


def _groups(points: np.ndarray, settings: dict[str, Any], seed: int) -> np.ndarray:
    if settings["method"] == "kmeans":
        count = min(settings["groups"], len(points))
        return KMeans(count, n_init=10, random_state=seed).fit_predict(points)
    smallest = min(settings["smallest_group"], len(points))
    return HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(points)


def by_size(groups: np.ndarray) -> np.ndarray:
    """Number groups by falling size, int32; what is below 0 is -1."""
    found, counts = np.unique(groups[groups >= 0], return_counts=True)
    order = found[np.argsort(-counts, kind="stable")]
    number = {old: new for new, old in enumerate(order.tolist())}
    return np.array([number.get(g, NO_GROUP) for g in groups.tolist()], "int32")
