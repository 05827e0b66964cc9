"""Cutouts of objects that come as one image each."""

from __future__ import annotations

import logging
from collections import defaultdict

import numpy as np
import pyarrow as pa

from luneta.cutouts.flux import area_ratio
from luneta.cutouts.parallel import shared_array, work_through
from luneta.cutouts.quality import Quality
from luneta.cutouts.stamp_blocks import Block, StampCutter
from luneta.survey.flags import Flag

OBJECTS_AT_ONCE = 64

log = logging.getLogger(__name__)


def cut_stamps(
    objects: pa.Table, stamps: pa.Table, settings: dict, threads: int
) -> tuple[np.ndarray, np.ndarray, Quality]:
    """Read and cut the stamps of a shard; a file that cannot be used costs its own objects only.

    Parameters
    ----------
    objects, stamps : pyarrow.Table
        The shard's objects, and its slice of the stamp table: `image_{band}` and maybe
        `mask_{band}`, `weight_{band}`, `row` and `refused`, see `luneta.survey.stamp_index`.
    settings : dict
        See `luneta.plan.Plan.cutouts`.
    threads : int
        Processes that read and cut; the result does not depend on their number.

    Returns
    -------
    rows : numpy.ndarray
        Rows of the objects whose stamps were asked for, shape (cut,), int64.
    images : numpy.ndarray
        Their cutouts, shape (cut, band, y, x), float32.
    quality : Quality
        Flags and measurements of all objects.
    """
    bands, size = settings["bands"], settings["cutouts"]["size"]
    quality = Quality.of(objects, bands)
    rows = np.flatnonzero(quality.usable)
    images = shared_array((len(rows), len(bands), size, size))
    chosen = pa.array(rows)
    cutter = StampCutter(objects.take(chosen), stamps.take(chosen), settings, images)
    blocks = list(work_through(cutter, len(rows), OBJECTS_AT_ONCE, threads))
    for block in blocks:
        _note(block, rows, quality, bands)
    _reject(blocks, rows, quality)
    if settings["cutouts"].get("area_ratio"):
        quality.put("galaxy_area_ratio", slice(None), area_ratio(objects, settings))
    return rows, images, quality


def _note(block: Block, rows: np.ndarray, quality: Quality, bands: list[str]) -> None:
    """Take over the flags and measurements of a block's usable objects."""
    for flag, slots in block.marked:
        quality.mark(rows[slots], flag)
    for name, slots, values in block.measured:
        if name == "sky_noise":
            quality.sky_noise[rows[slots]] = values
        else:
            quality.put(name, rows[slots], values)


def _reject(blocks: list[Block], rows: np.ndarray, quality: Quality) -> None:
    """Reject objects, those with one reason together: a file may hold many stamps."""
    alike: dict[tuple[Flag, str, str | None], list[int]] = defaultdict(list)
    for block in blocks:
        for slot, why in block.rejected.items():
            alike[why.flag, why.reason, why.path].append(slot)
    for (flag, reason, path), slots in alike.items():
        log.warning("%s (%d objects)", reason, len(slots))
        quality.reject_file(rows[slots], flag, reason, None, None, path)
