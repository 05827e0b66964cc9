"""Objects unlike those a network was trained on, by their distance in the space of features.

Each class is a Gaussian with the covariance common to all, and an object's distance is that to
the nearest class (Mahalanobis distance; Lee et al. 2018, arXiv:1807.03888).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.covariance import ledoit_wolf

from luneta.files import atomic_path

COMPONENTS = 64
MOST_OBJECTS = 5000


@dataclass(frozen=True)
class Gaussians:
    """The classes in the feature space of one network.

    Attributes
    ----------
    projection
        To coordinates in which the covariance is the unit matrix, float32 (component, feature).
    centres
        Means of the classes there, float32 (class, component).
    """

    projection: np.ndarray
    centres: np.ndarray

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Give the distance to the nearest class of features (object, feature): (object,)."""
        place = np.asarray(features, dtype="float64") @ self.projection.T.astype("float64")
        between = place[:, None, :] - self.centres.astype("float64")
        return np.sqrt(np.sum(between**2, axis=2).min(axis=1))


@dataclass(frozen=True)
class OutlierModel:
    """The Gaussians of an ensemble's networks, in their order, and the distance that is too far."""

    networks: tuple[Gaussians, ...]
    threshold: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Give the mean distance over networks of features (network, object, feature)."""
        each = [one.distances(x) for one, x in zip(self.networks, features, strict=True)]
        return np.mean(each, axis=0)

    def flags(self, scores: np.ndarray) -> np.ndarray:
        """Tell which scores are out of distribution, bool; a NaN is."""
        return ~(scores <= self.threshold)

    @property
    def digest(self) -> str:
        """Sha256 over all numbers."""
        total = hashlib.sha256(repr(self.threshold).encode())
        for one in self.networks:
            for array in (one.projection, one.centres):
                total.update(f"{array.shape}{array.dtype}".encode())
                total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()

    def save(self, path: Path | str) -> None:
        """Write an .npz; equal models give equal bytes."""
        arrays = {"threshold": np.array(self.threshold)}
        for i, one in enumerate(self.networks):
            arrays |= {f"projection{i}": one.projection, f"centres{i}": one.centres}
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)

    @classmethod
    def load(cls, path: Path | str) -> OutlierModel:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as found:
            count = sum(name.startswith("projection") for name in found)
            networks = tuple(
                Gaussians(found[f"projection{i}"], found[f"centres{i}"]) for i in range(count)
            )
            return cls(networks, float(found["threshold"]))


def fit(features: np.ndarray, labels: np.ndarray) -> Gaussians:
    """Fit the classes' Gaussians.

    Parameters
    ----------
    features
        Of a network's training objects, float (object, feature).
    labels
        Class indices, int (object,).

    Notes
    -----
    Features are reduced to at most 64 principal components, as a covariance of thousands of
    features is not known from as many objects. The covariance within classes of these is shrunk
    towards a multiple of the unit matrix (Ledoit & Wolf 2004), so that it can be inverted where
    objects are fewer than components.
    """
    features = np.asarray(features, dtype="float64")
    about = features - features.mean(axis=0)
    _, spread, axes = np.linalg.svd(about, full_matrices=False)
    count = max(1, np.sum(spread[:COMPONENTS] > spread[0] * 1e-6))
    axes = axes[:count]
    places = about @ axes.T
    present = np.unique(labels)
    centres = np.stack([places[labels == name].mean(axis=0) for name in present])
    covariance, _ = ledoit_wolf(
        places - centres[np.searchsorted(present, labels)], assume_centered=True
    )
    covariance += np.eye(len(covariance)) * max(np.trace(covariance) * 1e-12, 1e-30)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    projection = (whiten @ axes).astype("float32")
    means = np.stack([features[labels == name].mean(axis=0) for name in present])
    return Gaussians(projection, (means @ projection.T.astype("float64")).astype("float32"))


def sample(labels: np.ndarray, seed: int, most: int = MOST_OBJECTS) -> np.ndarray:
    """Choose objects to fit on: all, or of each class at most an equal share of `most`.

    Parameters
    ----------
    labels
        Class indices, int (object,).
    seed
        Of the choice.
    most
        Objects in all.

    Returns
    -------
    numpy.ndarray
        Sorted indices, int64.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    present = np.unique(labels)
    share = most // len(present)
    return np.sort(np.concatenate([order[labels[order] == name][:share] for name in present]))


def threshold(scores: Sequence[float] | np.ndarray, strange: float) -> float:
    """Give the score that a share `strange` of the labelled objects, out of fold, stays within."""
    return float(np.quantile(scores, strange))
