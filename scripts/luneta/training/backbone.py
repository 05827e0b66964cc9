"""Training a backbone from random weights: to tell labelled images apart."""

from __future__ import annotations

from functools import partial

import keras
import numpy as np

from luneta.config import Augmentation, Pretraining, Training
from luneta.models import devices, preprocessing
from luneta.models import network as networks
from luneta.training import augmentation
from luneta.training.data import VALIDATION, Batches
from luneta.training.loop import Journal, Phase, train, validate, with_augmentation

WARMUP = 0.05


def pretraining_phase(pretraining: Pretraining) -> Phase:
    """Plan the one phase of a pretraining; it runs all its epochs."""
    epochs = pretraining.epochs
    return Phase("pretrain", epochs, pretraining.learning_rate, epochs + 1, True, WARMUP)


def build(
    images: np.ndarray,
    bands: list[str],
    pixels: str,
    classes: int,
    training: Training,
    seed: int,
) -> keras.Model:
    """Build a network with random weights, its preprocessing fitted to the images."""
    statistics = preprocessing.measure(images, training, pixels)
    with devices.arithmetic(devices.resolve_precision(training.precision)):
        return networks.build(
            training, bands, images.shape[-1], pixels, classes, seed, "none", statistics
        )


def held_and_kept(count: int, seed: int, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Give the positions of a tenth of the objects, at random, and of all others."""
    order = np.random.default_rng(seed).permutation(count)
    held, kept = np.split(order, [max(least, round(VALIDATION * count))])
    return held, kept


def fit_backbone(
    images: np.ndarray,
    labels: np.ndarray,
    classes: int,
    bands: list[str],
    training: Training,
    pretraining: Pretraining,
    seed: int,
) -> tuple[keras.Model, Journal]:
    """Train a network from random weights on labelled images.

    Parameters
    ----------
    images
        (object, band, y, x), float32, in units of sky noise.
    labels
        Class indices, int (object,).
    classes
        Number of classes.
    bands
        Names along the band axis.
    training, pretraining
        Sections of the config.
    seed
        Of weights, order and augmentation.

    Returns
    -------
    tuple
        The network with the best epoch's weights, and the journal of its epochs.
    """
    keras.utils.clear_session()
    held, kept = held_and_kept(len(labels), seed)
    equal, size = np.ones(classes, dtype="float32"), pretraining.batch_size
    with devices.scope():
        devices.check_batch_size(size, "pretraining.batch_size")
        network = build(images[kept], bands, "flux", classes, training, seed)
        validation = Batches(images[held], labels[held], equal, size)
        journal = Journal(network, partial(validate, network, validation))
        train(
            network,
            with_augmentation(network, augmentation.layers(Augmentation(), seed)),
            pretraining_phase(pretraining),
            Batches(images[kept], labels[kept], equal, size, seed),
            journal,
            training,
            seed,
        )
        journal.restore()
    return network, journal
