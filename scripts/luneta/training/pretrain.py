"""Rule pretrain: train a backbone on simulated galaxies."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np

from luneta.config import Pretraining, Training
from luneta.files import atomic_path
from luneta.models import devices
from luneta.models import network as networks
from luneta.training.data import Batches
from luneta.training.finetune import VALIDATION, derived_seed
from luneta.training.loop import Journal, Phase, train, write_history

logger = logging.getLogger(__name__)


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


def run(
    weights: Path | str, history: Path | str, settings: dict[str, Any], threads: int = 1
) -> None:
    """Train a backbone on the simulated source set.

    Parameters
    ----------
    weights, history
        Written: backbones/{name}.weights.h5 and .csv.
    settings
        `pretraining` and `training` (dumps of the config sections), `classes` (list), `bands`
        (list), `cutout_size` (pixels), `pixel_scale` (arcsec), `seed`.
    threads
        Processor threads the job may use.
    """
    from luneta.simulation.sources import galaxy_stamps

    pretraining = Pretraining.model_validate(settings["pretraining"])
    training = Training.model_validate(settings["training"])
    classes, seed = settings["classes"], derived_seed(settings["seed"], "pretrain")
    # The stamps are drawn by worker processes, forked before TensorFlow starts its threads
    images, labels = galaxy_stamps(
        pretraining.galaxies,
        classes,
        settings["bands"],
        settings["cutout_size"],
        settings["pixel_scale"],
        seed,
        threads,
    )
    logger.info("%d simulated galaxies of %d classes", len(labels), len(classes))
    devices.configure(threads)
    network, journal = fit_backbone(
        images, np.asarray(labels), len(classes), training, pretraining, seed
    )
    with atomic_path(Path(weights)) as temporary:
        network.get_layer("backbone").save_weights(temporary)
    write_history(journal.records, history)
