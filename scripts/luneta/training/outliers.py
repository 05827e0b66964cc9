"""Objects unlike those a network was trained on, by their distance in the space of features.

Each class is a Gaussian with the covariance common to all, and an object's distance is that to
the nearest class (Mahalanobis distance; Lee et al. 2018, arXiv:1807.03888).
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from luneta.files import atomic_path, set_aside

COMPONENTS = 64
OBJECTS_PER_COMPONENT = 10
MOST_OBJECTS = 5000


@dataclass(frozen=True)
class Gaussians:
    """The classes in the feature space of one network.

    Attributes
    ----------
    centres
        Means of the classes, float64 (class, feature).
    axes
        Orthonormal principal axes of the scatter within classes, float64 (component, feature).
    variances
        Along the axes, float64 (component,).
    rest
        Variance along every other direction, float64 ().
    """

    centres: np.ndarray
    axes: np.ndarray
    variances: np.ndarray
    rest: np.ndarray

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Give the distance to the nearest class of features (object, feature): (object,)."""
        features = np.asarray(features, dtype="float64")
        nearest = np.full(len(features), np.inf)
        for centre in self.centres:
            way = features - centre
            along = (way @ self.axes.T) ** 2
            beside = np.maximum((way**2).sum(axis=1) - along.sum(axis=1), 0)
            square = (along / self.variances).sum(axis=1) + beside / self.rest
            nearest = np.fmin(nearest, square)
        return np.sqrt(np.where(np.isnan(features).any(axis=1), np.nan, nearest))


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
            for name, array in vars(one).items():
                total.update(f"{name}{array.shape}{array.dtype}".encode())
                total.update(np.ascontiguousarray(array).tobytes())
        return total.hexdigest()

    def save(self, path: Path | str) -> None:
        """Write an .npz; equal models give equal bytes."""
        arrays = {"threshold": np.array(self.threshold)}
        for i, one in enumerate(self.networks):
            arrays |= {f"{name}{i}": array for name, array in vars(one).items()}
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)

    @classmethod
    def load(cls, path: Path | str) -> OutlierModel:
        """Read what `save` wrote.

        Raises
        ------
        luneta.files.DamagedFile
            If it is something else by now; it has then been set aside.
        """
        try:
            with np.load(path, allow_pickle=False) as found:
                arrays = dict(found)
            count = sum(name.startswith("rest") for name in arrays)
            names = [field.name for field in fields(Gaussians)]
            networks = tuple(
                Gaussians(**{name: arrays[f"{name}{i}"] for name in names}) for i in range(count)
            )
            return cls(networks, float(arrays["threshold"]))
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise set_aside(path, f"it is no outlier model ({error})") from None


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
    The covariance within classes of thousands of features is not known from as many objects. It is
    taken as that of at most 64 principal axes, one for every ten objects, and one variance for all
    other directions (probabilistic PCA; Tipping & Bishop 1999, eq. 7 and 8). To leave these
    directions out would lose most strange objects, which differ where familiar ones do not.
    """
    features = np.asarray(features, dtype="float64")
    present, member = np.unique(labels, return_inverse=True)
    centres = np.stack([features[member == i].mean(axis=0) for i in range(len(present))])
    _, widths, axes = np.linalg.svd(features - centres[member], full_matrices=False)
    variances = widths**2 / len(features)
    count = max(1, min(COMPONENTS, len(features) // OBJECTS_PER_COMPONENT, len(axes)))
    others = features.shape[1] - count
    rest = variances[count:].sum() / others if others else variances[-1]
    floor = max(variances[0] * 1e-9, 1e-30)
    return Gaussians(
        centres, axes[:count], np.maximum(variances[:count], floor), np.maximum(rest, floor)
    )


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
    """Give the score that a share `strange` of the labelled objects, out of fold, stays within.

    Raises
    ------
    FloatingPointError
        If a score is not finite: there would be no threshold, and every object would be flagged.
    """
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        raise FloatingPointError(
            f"{bad} of {len(scores)} outlier scores are not finite: look at the cutouts of the "
            "labelled objects, or choose another training.preprocessing"
        )
    return float(np.quantile(scores, strange))
