"""Rule pretrain: train a backbone, on simulated galaxies or on the survey's own cutouts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from luneta.config import Pretraining, Training
from luneta.parquet import read_parquet
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


def free(counts: Mapping[str, int], splits: Sequence[Path | str]) -> dict[str, np.ndarray]:
    """Tell for each shard which of its cutouts are of no task's hold-out.

    Parameters
    ----------
    counts
        Cutouts in each shard, by its name.
    splits
        splits/{task}.parquet.

    Returns
    -------
    dict
        bool (cutout,), by the shard's name.
    """
    found = {name: np.ones(count, dtype=bool) for name, count in counts.items()}
    for path in splits:
        table = read_parquet(path, columns=["shard", "row", "fold"], filters=[("fold", "<", 0)])
        for name, row in zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True):
            found[name][row] = False
    return found


def sample(free: Sequence[np.ndarray], most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose cutouts of all shards at random, evenly.

    Parameters
    ----------
    free
        For each shard, which of its cutouts may be chosen, bool (cutout,).
    most
        Cutouts in all, at most.

    Returns
    -------
    tuple
        Number of the shard and row in it of each chosen cutout, int (object,), in order.
    """
    places = np.flatnonzero(np.concatenate(free))
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(places, min(most, len(places)), replace=False))
    starts = np.cumsum([0, *map(len, free)])
    shards = np.searchsorted(starts, chosen, side="right") - 1
    return shards, chosen - starts[shards]


def _contrasted(
    pretraining: Pretraining,
    training: Training,
    settings: dict,
    threads: int,
    cutouts: Sequence[Path | str],
    splits: Sequence[Path | str],
):
    """Train a network to know the survey's own cutouts again."""
    from luneta.models import devices
    from luneta.training.contrastive import fit_contrastive
    from luneta.training.data import Cutouts

    devices.configure(threads, settings["device"])
    store = Cutouts(dict(zip(settings["shards"], cutouts, strict=True)))
    allowed = free({name: len(shard) for name, shard in store.shards.items()}, splits)
    shards, rows = sample(list(allowed.values()), pretraining.galaxies, settings["seed"])
    held = sum(int((~chosen).sum()) for chosen in allowed.values())
    logger.info("%d cutouts of %d shards; %d of a hold-out left out", len(rows), len(allowed), held)
    images = store.gather(np.array(list(allowed))[shards], rows)
    return fit_contrastive(
        images, store.bands, store.pixels, training, pretraining, settings["seed"]
    )


def run(
    weights: Path | str,
    history: Path | str,
    settings: dict[str, Any],
    threads: int = 1,
    cutouts: Sequence[Path | str] = (),
    splits: Sequence[Path | str] = (),
    device: str = "auto",
) -> None:
    """Train a backbone on the simulated source set, or on cutouts without labels.

    The contrastive method sees no object of a hold-out. It does see the pixels of all folds, though
    no label: a fold's network may know its held-out objects by sight, so that scores out of fold
    may be a little too good, and those of the hold-out are not.

    Parameters
    ----------
    weights, history
        Written: backbones/{name}.weights.h5 and .csv.
    settings
        `pretraining` and `training` (dumps of the config sections), `seed`; for the simulation
        `classes` (list), `bands` (list), `cutout_size` (pixels), `pixel_scale` (arcsec); for the
        contrastive method `shards`, the names of `cutouts`.
    threads
        Processor threads the job may use.
    cutouts
        cutouts/{shard}.arrow, for the contrastive method.
    splits
        splits/{task}.parquet of the tasks that start from this backbone, for the same.
    device
        `auto`, `cpu` or `gpu`.
    """
    pretraining = Pretraining.model_validate(settings["pretraining"])
    training = Training.model_validate(settings["training"])
    job = {**settings, "device": device}
    if pretraining.method == "supervised":
        network, journal = _simulated(pretraining, training, job, threads)
    else:
        network, journal = _contrasted(pretraining, training, job, threads, cutouts, splits)

    from luneta.models.saving import save_weights
    from luneta.training.loop import COLUMNS, write_csv

    save_weights(network.get_layer("backbone"), weights)
    write_csv(journal.progress.records, COLUMNS, history)
