"""Rule pretrain: train a backbone on simulated galaxies."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from luneta.config import Pretraining, Training
from luneta.files import atomic_path
from luneta.simulation.sources import galaxy_stamps

logger = logging.getLogger(__name__)


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
    pretraining = Pretraining.model_validate(settings["pretraining"])
    training = Training.model_validate(settings["training"])
    classes, seed = settings["classes"], settings["seed"]
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

    # Keras comes after the simulation, whose worker processes are forks of this one
    from luneta.models import devices
    from luneta.training.backbone import fit_backbone
    from luneta.training.loop import write_history

    devices.configure(threads)
    network, journal = fit_backbone(images, labels, len(classes), training, pretraining, seed)
    with atomic_path(weights) as temporary:
        network.get_layer("backbone").save_weights(temporary)
    write_history(journal.records, history)
