"""Training a backbone without labels (SimCLR, Chen et al. 2020, arXiv:2002.05709)."""

from __future__ import annotations

from functools import partial
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from luneta.config import Augmentation, Pretraining, Training
from luneta.models import devices
from luneta.models.preprocessing import band_noise
from luneta.training import augmentation
from luneta.training.backbone import build, held_and_kept, pretraining_phase
from luneta.training.data import Batches, TrainingError, derived_seed
from luneta.training.loop import Journal, Objective, train

PROJECTION = 128  # width of the space in which views are compared, as in the paper
LARGE = 1e9


def nt_xent(views: Any, temperature: float) -> Any:
    """Give the normalised, temperature-scaled cross-entropy (NT-Xent, eq. 1 of the paper).

    For a view i with partner j, -log(exp(s_ij / t) / sum over k != i of exp(s_ik / t)), where s is
    the cosine of two projections and k runs over both views of all objects of the batch.

    Parameters
    ----------
    views
        Projections (object, view, dimension), two views of each object.
    temperature
        t.

    Returns
    -------
    tensor
        (object,), float32: the mean over its two views.
    """
    similarity, partner = _similarity(views)
    scores = ops.log_softmax(similarity / temperature, axis=-1)
    own = ops.take_along_axis(scores, partner[:, None], axis=1)[:, 0]
    return -ops.mean(ops.reshape(own, (2, -1)), axis=0)


def _similarity(views: Any) -> tuple[Any, Any]:
    """Give the cosines of all views, (2 object, 2 object), and the index of each one's partner."""
    views = ops.cast(views, "float32")
    count = ops.shape(views)[0]
    z = ops.normalize(ops.concatenate([views[:, 0], views[:, 1]], axis=0), axis=-1)
    cosines = ops.matmul(z, ops.transpose(z)) - LARGE * ops.eye(2 * count)
    return cosines, (ops.arange(2 * count) + count) % (2 * count)


def found_again(views: Any) -> Any:
    """Tell for each object how often the nearest to one of its views is the other, float32."""
    similarity, partner = _similarity(views)
    found = ops.cast(ops.equal(ops.argmax(similarity, axis=-1), partner), "float32")
    return ops.mean(ops.reshape(found, (2, -1)), axis=0)


def view_changes(images: np.ndarray) -> Augmentation:
    """Choose how two views of a cutout differ: what tells nothing of the kind of galaxy.

    Turns, a shift of a sixteenth of the side, 20 % of zoom, blur by up to 1 pixel, added noise of
    up to the scatter of the pixels. Colours stay: they tell much (unlike in the paper).
    """
    return Augmentation(
        dihedral=True,
        shift=images.shape[-1] / 16,
        zoom=0.2,
        blur=1.0,
        noise=float(band_noise(images).mean()),
    )


def projector(network: keras.Model) -> keras.Model:
    """Give a network from cutouts to projections: its head becomes two layers (section 4.2)."""
    x = network.get_layer("features").output
    x = layers.Dense(x.shape[-1], activation="relu", dtype="float32", name="projection_1")(x)
    x = layers.Dense(PROJECTION, dtype="float32", name="projection_2")(x)
    return keras.Model(network.inputs, x, name="projector")


def viewer(shape: tuple[int, ...], changes: Augmentation, seed: int) -> keras.Model:
    """Give a network from cutouts of a shape to two random views, (2 object, band, y, x).

    The first views of all objects come before the second ones: batch norm then sees one
    distribution.
    """
    inputs = keras.Input(shape, dtype="float32")
    views = []
    for view in range(2):
        x = inputs
        for layer in augmentation.layers(changes, derived_seed(seed, view), f"_{view}"):
            x = layer(x)
        views.append(x)
    return keras.Model(inputs, ops.concatenate(views, axis=0), name="viewer")


def paired(projections: Any) -> Any:
    """Turn projections in the order of `viewer` into (object, view, dimension)."""
    return ops.stack(ops.split(projections, 2, axis=0), axis=1)


def score(projections: keras.Model, views: np.ndarray, size: int, temperature: float) -> dict:
    """Score a network on views that stay the same: mean NT-Xent, share of views found again.

    Parameters
    ----------
    views
        (object, 2, band, y, x), float32.
    size
        Objects per batch, about.
    """
    parts = np.array_split(views, -(-len(views) // size))
    losses, found = [], []
    for part in parts:
        both = np.concatenate([part[:, 0], part[:, 1]])
        z = paired(ops.convert_to_tensor(projections.predict(both, batch_size=size, verbose=0)))
        losses.append(ops.convert_to_numpy(nt_xent(z, temperature)))
        found.append(ops.convert_to_numpy(found_again(z)))
    return {
        "val_loss": float(np.concatenate(losses).mean()),
        "val_accuracy": float(np.concatenate(found).mean()),
    }


def fit_contrastive(
    images: np.ndarray,
    bands: list[str],
    pixels: str,
    training: Training,
    pretraining: Pretraining,
    seed: int,
) -> tuple[keras.Model, Journal]:
    """Train a backbone to tell two views of one cutout from all other views of its batch.

    Parameters
    ----------
    images
        (object, band, y, x), float32, NaN where bad.
    bands
        Names along the band axis.
    pixels
        `flux` or `display`.
    training, pretraining
        Sections of the config. On several devices the other views are those of one device.
    seed
        Of weights, order and views.

    Returns
    -------
    tuple
        The network with the best epoch's backbone and an untrained head, and the journal.

    Raises
    ------
    TrainingError
        If there are fewer than 4 images: a batch would hold nothing to tell apart.
    """
    if len(images) < 4:
        raise TrainingError(
            f"contrastive pretraining needs at least 4 cutouts, there are {len(images)}: label "
            "more shards, or set pretraining.method: supervised"
        )
    keras.utils.clear_session()
    held, kept = held_and_kept(len(images), seed, least=2)
    learnt, size, temperature = images[kept], pretraining.batch_size, pretraining.temperature
    none, one = np.zeros(len(kept), "int32"), np.ones(1, "float32")
    with devices.scope():
        devices.check_batch_size(size, "pretraining.batch_size")
        network = build(learnt, bands, pixels, 2, training, seed)
        projections = projector(network)
        views = viewer(images.shape[1:], view_changes(learnt), seed)
        fixed = fixed_views(views, images[held], size)
        model = keras.Model(views.inputs, paired(projections(views.output)))
        journal = Journal(projections, partial(score, projections, fixed, size, temperature))
        train(
            projections,
            model,
            pretraining_phase(pretraining),
            Batches(learnt, none, one, size, seed),
            journal,
            training,
            seed,
            objective=Objective(
                lambda _, views: nt_xent(views, temperature), lambda _, views: found_again(views)
            ),
        )
        journal.restore()
    return network, journal


def fixed_views(views: keras.Model, images: np.ndarray, size: int) -> np.ndarray:
    """Draw two views of cutouts (object, band, y, x), so many at once: (object, 2, band, y, x)."""
    parts = np.array_split(images, -(-len(images) // size))
    drawn = [ops.convert_to_numpy(views(part, training=True)) for part in parts]
    return np.concatenate([np.stack(np.split(both, 2), axis=1) for both in drawn])
