"""Running networks over cutouts: in batches, from eight sides, with draws of dropout."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from luneta.models import devices
from luneta.models import network as networks
from luneta.models.background import ahead
from luneta.models.folding import folded

logger = logging.getLogger(__name__)

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
    """A network made ready for `Predictor`.

    Attributes
    ----------
    whole
        From cutouts to (features, logits).
    head
        From features to logits, its dropout replaced by `thinnings`.
    thinnings
        In the order of the head.
    compiled
        What is compiled of them and of networks of the same shape, by shape.
    """

    whole: keras.Model
    head: keras.Model
    thinnings: tuple[Thinning, ...]
    compiled: dict[str, Callable[..., Any]] = field(default_factory=dict)

    def draw(self, number: int, seed: int) -> None:
        """Thin the head by the masks of a draw."""
        for place, thinning in enumerate(self.thinnings):
            thinning.draw((seed, number, place))


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

    def __len__(self) -> int:
        return self.logits.shape[2]


def prepare(network: keras.Model) -> Prepared:
    """Make a network, as `luneta.models.network.build` gives it, ready for `Predictor`.

    Batch norms that can be are folded away; see `luneta.models.folding`.
    """
    thinnings: list[Thinning] = []

    def thin(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Dropout):
            return layer
        thinnings.append(Thinning(layer.rate, name=f"thinning{len(thinnings)}"))
        return thinnings[-1]

    head = keras.models.clone_model(networks.head(network), clone_function=thin)
    return Prepared(folded(networks.with_features(network)), head, tuple(thinnings))


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


def dihedral(images: Any, view: int) -> Any:
    """Turn cutouts (object, band, y, x) by `view % 4` quarters; mirror them from view 4 on.

    It is done where the cutouts are; view 0 is what was given.
    """
    turned = ops.rot90(images, view % 4, axes=(2, 3)) if view % 4 else images
    return ops.flip(turned, axis=3) if view >= 4 else turned


def _shape_of(model: keras.Model) -> str:
    """Write down all of a model but its weights, names of models and seeds."""

    def plain(config: Any) -> Any:
        if isinstance(config, list):
            return [plain(value) for value in config]
        if not isinstance(config, dict):
            return config
        return {k: plain(v) for k, v in config.items() if k not in ("seed", "shared_object_id")}

    config = plain(json.loads(model.to_json()))
    config["config"].pop("name")
    return json.dumps(config, sort_keys=True)


class Compiled:
    """A model compiled for inference; models of one shape share what is compiled.

    Parameters
    ----------
    model
        A network.
    jit
        Compile by XLA; see `luneta.models.devices.resolve_jit`.
    known
        What is compiled already, by shape; it is added to.
    """

    def __init__(self, model: keras.Model, jit: bool, known: dict[str, Callable[..., Any]]):
        def run(trained: list[Any], others: list[Any], inputs: Any) -> Any:
            return model.stateless_call(trained, others, inputs, training=False)[0]

        self._variables = model.trainable_variables, model.non_trainable_variables
        shape = f"{'jit' if jit else ''}{_shape_of(model)}"
        if shape not in known:
            known[shape] = devices.compiled(run, jit)
        self._run = known[shape]

    def __call__(self, inputs: Any) -> Any:
        """Give the model's outputs, on the device."""
        values = ([variable.value for variable in group] for group in self._variables)
        return self._run(*values, inputs)


def to_device(images: np.ndarray) -> Any:
    """Bring cutouts to the device; if it has no place for them, they stay as they are."""
    try:
        return ops.convert_to_tensor(images)
    except Exception as error:
        if devices.is_out_of_memory(error):
            return images
        raise


class Predictor:
    """Networks compiled for batches of one size, and asked in all views and draws.

    Parameters
    ----------
    members
        Networks as `prepare` makes them, all for the same classes.
    batch_size
        Cutouts of a pass. It is halved, and the log says so, when the device's memory does not
        suffice.
    views
        1, or 8: the quarter turns and their mirror images.
    draws
        Draws of dropout (Monte Carlo dropout; Gal & Ghahramani 2016, arXiv:1506.02142); 0 leaves
        dropout out.
    seed
        Of the draws.
    features
        Give the features too.
    jit
        Compile by XLA: True, False or `auto`.

    Notes
    -----
    Dropout acts in the head alone. A network called with `training=True` would also take the batch
    norm of its backbone from the batch. A draw thins the head once, for all objects and all
    networks: what an object gets does not depend on its batch.
    """

    def __init__(
        self,
        members: Sequence[Prepared],
        batch_size: int,
        views: int = 1,
        draws: int = 0,
        seed: int = 0,
        features: bool = False,
        jit: bool | str = "auto",
    ):
        self._members, self._seed, self._features = tuple(members), seed, features
        self._views, self._draws = views, draws
        self.batch_size = batch_size
        known, by_xla = members[0].compiled, devices.resolve_jit(jit)
        self._wholes = [Compiled(one.whole, by_xla, known) for one in members]
        self._heads = [Compiled(one.head, by_xla, known) for one in members] if draws else []

    def nothing(self) -> Outputs:
        """Give the outputs of no objects."""
        width, classes = (shape[-1] for shape in self._members[0].whole.output_shape)
        count = len(self._members)
        return Outputs(
            np.empty((count, self._views * max(1, self._draws), 0, classes), "float32"),
            np.empty((count, 0, width), "float32") if self._features else None,
        )

    def predict(self, images: Any) -> Outputs:
        """Ask the networks about some cutouts.

        Parameters
        ----------
        images
            (object, band, y, x), float32: an array, or as `to_device` gives it. What is less than
            a batch is filled up, so that nothing is compiled anew.

        Raises
        ------
        luneta.models.devices.DeviceError
            If not even one object fits into the device's memory.
        """
        parts, start = [], 0
        while start < len(images):
            try:
                parts.append(self._pass(images[start : start + self.batch_size]))
            except Exception as error:
                if not devices.is_out_of_memory(error):
                    raise
                self._halve(error)
            else:
                start += len(parts[-1])
        return joined(parts) if parts else self.nothing()

    def _halve(self, error: Exception) -> None:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        words = ("OOM", "RESOURCE_EXHAUSTED", "memory", "allocat")
        said = next((x for x in lines if any(word in x for word in words)), lines[0])[:200]
        if self.batch_size == 1:
            raise devices.DeviceError(
                f"not even one object fits into the memory of the device ({said}): end what else "
                "runs there, choose a smaller backbone or image_size, or set device: cpu"
            ) from None
        before, self.batch_size = self.batch_size, math.ceil(self.batch_size / 2)
        logger.warning(
            "out of memory with %d objects a pass: going on with %d (%s)",
            before,
            self.batch_size,
            said.strip(),
        )

    def _pass(self, images: Any) -> Outputs:
        """Ask about at most a batch."""
        count = len(images)
        images = ops.convert_to_tensor(images)
        if count < self.batch_size:
            images = ops.pad(images, ((0, self.batch_size - count), (0, 0), (0, 0), (0, 0)))
        said = [self._see(dihedral(images, view)) for view in range(self._views)]
        logits = [[x[i] for _, drawn in said for x in drawn] for i in range(len(self._members))]
        kept = [_to_host(x)[:count] for x in said[0][0]] if self._features else None
        return Outputs(
            np.stack([np.stack([_to_host(x)[:count] for x in each]) for each in logits]),
            None if kept is None else np.stack(kept),
        )

    def _see(self, images: Any) -> tuple[list[Any], list[list[Any]]]:
        """Give, on the device, features by network, and logits by draw and network."""
        said = [whole(images) for whole in self._wholes]
        features = [found for found, _ in said]
        if not self._draws:
            return features, [[logits for _, logits in said]]
        return features, [self._draw(features, number) for number in range(self._draws)]

    def _draw(self, features: list[Any], number: int) -> list[Any]:
        """Give the logits of one draw, by network."""
        for member in self._members:
            member.draw(number, self._seed)
        return [head(x) for head, x in zip(self._heads, features, strict=True)]


def _to_host(values: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(values), dtype="float32")


def joined(parts: Sequence[Outputs]) -> Outputs:
    """Join outputs of one predictor, in their order."""
    if len(parts) == 1:
        return parts[0]
    features = [part.features for part in parts if part.features is not None]
    return Outputs(
        np.concatenate([part.logits for part in parts], axis=2),
        np.concatenate(features, axis=1) if features else None,
    )


def stream(predictor: Predictor, batches: Iterable[np.ndarray]) -> Iterator[Outputs]:
    """Ask a predictor about batches of cutouts; the next one is made ready in the meantime.

    Parameters
    ----------
    predictor
        The networks.
    batches
        Each (object, band, y, x), float32. They are read, and brought to the device, in a thread.
    """
    with closing(ahead(to_device(images) for images in batches)) as ready:
        for images in ready:
            yield predictor.predict(images)


def predict(
    ensemble: Sequence[Prepared],
    read: Callable[[int, int], np.ndarray],
    count: int,
    batch_size: int,
    **options: Any,
) -> Outputs:
    """Run networks over the same cutouts, a batch at a time, and keep all they say.

    Parameters
    ----------
    ensemble
        Networks as `prepare` makes them, all for the same classes.
    read
        Gives cutouts `start` to `stop` as (object, band, y, x), float32.
    count
        Number of cutouts.
    batch_size
        Cutouts per pass.
    **options
        Of `Predictor`.
    """
    predictor = Predictor(ensemble, batch_size, **options)
    starts = range(0, count, batch_size)
    batches = (read(start, min(start + batch_size, count)) for start in starts)
    return joined([predictor.nothing(), *stream(predictor, batches)])
