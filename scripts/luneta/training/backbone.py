"""Training a backbone from random weights."""

from __future__ import annotations

import keras
import numpy as np

from luneta.config import Pretraining, Training
from luneta.models import network as networks
from luneta.training.data import Batches
from luneta.training.finetune import VALIDATION
from luneta.training.loop import Journal, Phase, train


def fit_backbone(
    images: np.ndarray,
    labels: np.ndarray,
    classes: int,
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
    bands, side = images.shape[1:3]
    network = networks.build(training, bands, side, "flux", classes, seed, "none")
    if bands != 3:  # the mixer is not saved: fine-tuning starts from the same fixed one
        network.get_layer("band_mixer").trainable = False
    order = np.random.default_rng(seed).permutation(len(labels))
    held, kept = np.split(order, [max(1, round(VALIDATION * len(order)))])
    equal, size = np.ones(classes, dtype="float32"), pretraining.batch_size
    validation = Batches(images[held], labels[held], equal, size)
    journal = Journal(network, validation, patience=pretraining.epochs)
    train(
        network,
        Phase("pretrain", pretraining.epochs, pretraining.learning_rate, True),
        Batches(images[kept], labels[kept], equal, size, seed),
        journal,
        augment_seed=seed,
    )
    journal.restore()
    return network, journal
