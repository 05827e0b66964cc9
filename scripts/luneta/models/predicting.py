"""Running networks over cutouts: in batches, from eight sides, with draws of dropout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from luneta.models import network as networks

NAMED = 5  # objects named in a message


class Thinning(keras.layers.Layer):
    """Dropout by a mask that is given and not drawn; it is never saved.

    Attributes
    ----------
    rate
        Of the dropout it stands for.
    mask
        Factors, 0 or 1 / (1 - rate), float32 (feature,).
    """

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = rate

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Make place for the mask."""
        self.mask = self.add_weight(
            shape=(shape[-1],), initializer="ones", trainable=False, name="mask"
        )

    def call(self, x: Any) -> Any:
        """Thin the features of all objects alike."""
        return x * ops.cast(self.mask, x.dtype)

    def draw(self, key: Sequence[int]) -> None:
        """Take the mask of a key of whole numbers."""
        kept = np.random.default_rng(key).random(self.mask.shape[0]) >= self.rate
        self.mask.assign(kept.astype("float32") / np.float32(1 - self.rate))


@dataclass(frozen=True)
class Prepared:
    """A network made ready for `predict`, which compiles it once.

    Attributes
    ----------
    whole
        From cutouts to (features, logits).
    head
        From features to logits, its dropout replaced by `thinnings`.
    thinnings
        In the order of the head.
    """

    whole: keras.Model
    head: keras.Model
    thinnings: tuple[Thinning, ...]

    def draw(self, features: np.ndarray, number: int, seed: int) -> np.ndarray:
        """Give the logits (object, class) of one thinned head for features (object, feature)."""
        for place, thinning in enumerate(self.thinnings):
            thinning.draw((seed, number, place))
        return np.asarray(self.head.predict_on_batch(features), dtype="float32")


@dataclass(frozen=True)
class Outputs:
    """What networks say of the same cutouts.

    Attributes
    ----------
    logits
        (network, sample, object, class), float32. Samples are views, and of each its draws.
    features
        Of the cutouts as they are, (network, object, feature), float32; None if not asked for.
    """

    logits: np.ndarray
    features: np.ndarray | None


def prepare(network: keras.Model) -> Prepared:
    """Make a network, as `luneta.models.network.build` gives it, ready for `predict`."""
    thinnings: list[Thinning] = []

    def thin(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Dropout):
            return layer
        thinnings.append(Thinning(layer.rate, name=f"thinning{len(thinnings)}"))
        return thinnings[-1]

    head = keras.models.clone_model(networks.head(network), clone_function=thin)
    return Prepared(networks.with_features(network), head, tuple(thinnings))


def check_finite(ids: np.ndarray, *outputs: np.ndarray) -> None:
    """Refuse what a network says of objects if it is not finite.

    Parameters
    ----------
    ids
        Names of the objects.
    outputs
        (..., object, class or feature).

    Raises
    ------
    FloatingPointError
        It names the objects.
    """
    fine = [np.isfinite(x).all(axis=(*range(x.ndim - 2), -1)) for x in outputs]
    bad = ids[~np.all(fine, axis=0)]
    if len(bad):
        raise FloatingPointError(
            f"the network says nothing finite of {len(bad)} of {len(ids)} objects ({named(bad)}): "
            "look at these cutouts, choose another training.preprocessing, or lower the learning "
            "rates"
        )


def named(ids: np.ndarray) -> str:
    """List the first names of objects."""
    return ", ".join(map(str, ids[:NAMED])) + (", ..." if len(ids) > NAMED else "")


def even_batch_size(count: int, batch_size: int) -> int:
    """Give the batch size at most `batch_size` that cuts `count` objects most evenly."""
    return math.ceil(count / max(1, math.ceil(count / batch_size))) or 1


def dihedral(images: np.ndarray, view: int) -> np.ndarray:
    """Turn cutouts (object, band, y, x) by `view % 4` quarters; mirror them from view 4 on."""
    turned = np.rot90(images, view % 4, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if view >= 4 else turned)


def _batch(
    one: Prepared, images: np.ndarray, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Give logits (draw, object, class) and features (object, feature) of a full batch."""
    features, logits = (np.asarray(x, "float32") for x in one.whole.predict_on_batch(images))
    if draws:
        return np.stack([one.draw(features, n, seed) for n in range(draws)]), features
    return logits[None], features


def predict(
    ensemble: Sequence[Prepared],
    read: Callable[[int, int], np.ndarray],
    count: int,
    batch_size: int,
    views: int = 1,
    draws: int = 0,
    seed: int = 0,
    features: bool = False,
) -> Outputs:
    """Run networks over the same cutouts, a batch at a time.

    Parameters
    ----------
    ensemble
        Networks as `prepare` makes them, all for the same classes.
    read
        Gives cutouts `start` to `stop` as (object, band, y, x), float32.
    count
        Number of cutouts.
    batch_size
        Cutouts per pass. The last batch is padded, so that the graph is compiled once.
    views
        1, or 8: the quarter turns and their mirror images.
    draws
        Draws of dropout (Monte Carlo dropout; Gal & Ghahramani 2016, arXiv:1506.02142); 0 leaves
        dropout out.
    seed
        Of the draws.
    features
        Give the features too.

    Notes
    -----
    Dropout acts in the head alone. A network called with `training=True` would also take the batch
    norm of its backbone from the batch. A draw thins the head once, for all objects and all
    networks: what an object gets does not depend on its batch.
    """
    classes = ensemble[0].whole.output_shape[1][-1]
    width = ensemble[0].whole.output_shape[0][-1]
    times = max(1, draws)
    logits = np.empty((len(ensemble), views * times, count, classes), dtype="float32")
    kept = np.empty((len(ensemble), count, width), dtype="float32") if features else None
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        images = read(start, stop)
        images = np.pad(images, ((0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)))
        for view in range(views):
            seen = dihedral(images, view)
            for i, one in enumerate(ensemble):
                drawn, found = _batch(one, seen, draws, seed)
                samples = slice(view * times, (view + 1) * times)
                logits[i, samples, start:stop] = drawn[:, : stop - start]
                if kept is not None and view == 0:
                    kept[i, start:stop] = found[: stop - start]
    return Outputs(logits, kept)
