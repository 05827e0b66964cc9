"""The cutouts of one shard, from images to its files."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow.parquet as pq

from luneta.cutouts.shard import write_shard
from luneta.cutouts.stamps import cut_stamps
from luneta.cutouts.tiles import cut_tiles
from luneta.files import atomic_path, write_json

log = logging.getLogger(__name__)


def run(
    objects: Path,
    stamps: Path | None,
    outputs: dict[str, Path],
    settings: dict,
    threads: int = 1,
) -> None:
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
        `bands`, `pixels`, `cutouts`, and for tiles `tiles`, `reference_band`, `mask`.
    """
    table = pq.read_table(objects)
    if stamps is None:
        rows, images, quality = cut_tiles(table, settings)
    else:
        rows, images, quality = cut_stamps(table, pq.read_table(stamps), settings, threads)
    quality.measure(rows, images, settings["cutouts"]["max_masked_fraction"])
    usable = quality.usable
    write_shard(
        outputs["cutouts"],
        quality.object_id[usable],
        quality.flags[usable],
        images if usable[rows].all() else images[usable[rows]],
        settings["bands"],
        settings["pixels"],
    )
    with atomic_path(outputs["quality"]) as temporary:
        pq.write_table(quality.table(settings["bands"]), temporary, compression="zstd")
    write_json(outputs["files"], quality.files)
    log.info("%d of %d objects cut", usable.sum(), len(usable))
