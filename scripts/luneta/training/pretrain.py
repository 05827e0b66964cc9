"""Rule pretrain: train a backbone, on simulated galaxies or on the survey's own cutouts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from luneta.config import Pretraining, Training
from luneta.files import atomic_path
from luneta.simulation.sources import galaxy_stamps

logger = logging.getLogger(__name__)


def _simulated(pretraining: Pretraining, training: Training, settings: dict, threads: int):
    """Train a network to tell simulated galaxies apart."""
    classes, bands, seed = settings["classes"], settings["bands"], settings["seed"]
    size, scale = settings["cutout_size"], settings["pixel_scale"]
    images, labels = galaxy_stamps(pretraining.galaxies, classes, bands, size, scale, seed, threads)
    logger.info("%d simulated galaxies of %d classes", len(labels), len(classes))

    # Keras comes after the simulation, whose worker processes are forks of this one
    from luneta.models import devices
    from luneta.training.backbone import fit_backbone

    devices.configure(threads, settings["device"])
    return fit_backbone(images, labels, len(classes), bands, training, pretraining, seed)


def sample(counts: Sequence[int], most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose cutouts of all shards at random, evenly.

    Parameters
    ----------
    counts
        Cutouts in each shard.
    most
        Cutouts in all, at most.

    Returns
    -------
    tuple
        Number of the shard and row in it of each chosen cutout, int (object,), in order.
    """
    total = sum(counts)
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(total, min(most, total), replace=False))
    starts = np.cumsum([0, *counts])
    shards = np.searchsorted(starts, chosen, side="right") - 1
    return shards, chosen - starts[shards]


def _contrasted(
    pretraining: Pretraining,
    training: Training,
    settings: dict,
    threads: int,
    cutouts: Sequence[Path | str],
):
    """Train a network to know the survey's own cutouts again."""
    from luneta.models import devices
    from luneta.training.contrastive import fit_contrastive
    from luneta.training.data import Cutouts

    devices.configure(threads, settings["device"])
    store = Cutouts({str(number): path for number, path in enumerate(cutouts)})
    counts = [len(shard) for shard in store.shards.values()]
    shards, rows = sample(counts, pretraining.galaxies, settings["seed"])
    logger.info("%d cutouts of %d shards", len(rows), len(counts))
    images = store.gather(shards.astype(str), rows)
    return fit_contrastive(
        images, store.bands, store.pixels, training, pretraining, settings["seed"]
    )


def run(
    weights: Path | str,
    history: Path | str,
    settings: dict[str, Any],
    threads: int = 1,
    cutouts: Sequence[Path | str] = (),
    device: str = "auto",
) -> None:
    """Train a backbone on the simulated source set, or on cutouts without labels.

    Parameters
    ----------
    weights, history
        Written: backbones/{name}.weights.h5 and .csv.
    settings
        `pretraining` and `training` (dumps of the config sections), `seed`; for the simulation
        `classes` (list), `bands` (list), `cutout_size` (pixels), `pixel_scale` (arcsec).
    threads
        Processor threads the job may use.
    cutouts
        cutouts/{shard}.arrow, for the contrastive method.
    device
        `auto`, `cpu` or `gpu`.
    """
    pretraining = Pretraining.model_validate(settings["pretraining"])
    training = Training.model_validate(settings["training"])
    job = {**settings, "device": device}
    if pretraining.method == "supervised":
        network, journal = _simulated(pretraining, training, job, threads)
    else:
        network, journal = _contrasted(pretraining, training, job, threads, cutouts)

    from luneta.training.loop import COLUMNS, write_csv

    with atomic_path(weights) as temporary:
        network.get_layer("backbone").save_weights(temporary)
    write_csv(journal.progress.records, COLUMNS, history)
