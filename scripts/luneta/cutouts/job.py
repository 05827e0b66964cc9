"""The cutouts of one shard, from images to its files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from luneta.cutouts.flux import warn_of_missing_dust
from luneta.cutouts.quality import Quality
from luneta.cutouts.shard import ShardWriter
from luneta.cutouts.stamps import cut_stamps
from luneta.cutouts.tiles import cut_tiles
from luneta.files import write_json
from luneta.parquet import read_parquet, write_parquet
from luneta.survey.bounds import USUAL_GIGABYTES, set_most_gigabytes

Blocks = Iterator[tuple[np.ndarray, np.ndarray]]

log = logging.getLogger(__name__)


def run(
    objects: Path,
    stamps: Path | None,
    outputs: dict[str, Path],
    settings: dict,
    threads: int = 1,
) -> list[str]:
    """Write `cutouts/{shard}.arrow`, `quality/{shard}.parquet` and `quality/{shard}_files.json`.

    Parameters
    ----------
    objects : path
        `objects/{shard}.parquet`.
    stamps : path or None
        The shard's slice of the stamp table; None if the input is tiles.
    outputs : dict
        `cutouts`, `quality`, `files`.
    settings : dict
        See `luneta.plan.Plan.cutouts`.

    Returns
    -------
    list of str
        Files that could not be read this time.

    Raises
    ------
    QualityError
        If there is a defect that the config does not allow.
    """
    set_most_gigabytes(settings.get("most_gigabytes", USUAL_GIGABYTES))
    table = read_parquet(objects)
    warn_of_missing_dust(table, settings)
    # The matrices of a resampling are small: threads of the linear algebra would only wait.
    with threadpool_limits(1, user_api="blas"):
        quality = Quality.of(table, settings["bands"])
        if stamps is None:
            blocks = cut_tiles(table, quality, settings)
        else:
            blocks = cut_stamps(table, read_parquet(stamps), quality, settings, threads)
        _write_cutouts(outputs["cutouts"], blocks, quality, settings)
    quality.refuse(settings["quality"])
    write_parquet(quality.table(settings["bands"]), outputs["quality"])
    write_json(outputs["files"], quality.files)
    log.info("%d of %d objects cut", quality.usable.sum(), len(table))
    return quality.not_read()


def _write_cutouts(path: Path, blocks: Blocks, quality: Quality, settings: dict) -> None:
    """Measure each block of cutouts, and write what can be used of it."""
    cutouts, bands = settings["cutouts"], settings["bands"]
    kind = (settings["pixels"], cutouts["dtype"], cutouts["compression"])
    with ShardWriter(path, bands, cutouts["size"], *kind) as shard:
        for rows, images in blocks:
            quality.measure(rows, images, cutouts["max_masked_fraction"])
            quality.skip(rows, settings["quality"])
            good = quality.usable[rows]
            chosen = images if good.all() else images[good]
            shard.write(quality.object_id[rows[good]], quality.flags[rows[good]], chosen)
    quality.skip(np.arange(len(quality.flags)), settings["quality"])
