"""Cutouts of objects that come as one image each."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from luneta.cutouts.flux import area_ratio
from luneta.cutouts.parallel import shared_array, work_through
from luneta.cutouts.quality import Quality
from luneta.cutouts.stamp_blocks import Block, StampCutter
from luneta.cutouts.stamp_reading import Fault

OBJECTS_AT_ONCE, AHEAD = 64, 16

log = logging.getLogger(__name__)


def cut_stamps(
    objects: pa.Table, stamps: pa.Table, quality: Quality, settings: dict, threads: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Read and cut the stamps of a shard; a file that cannot be used costs its own objects only.

    Parameters
    ----------
    objects, stamps : pyarrow.Table
        The shard's objects, and its slice of the stamp table: `image_{band}` and maybe
        `mask_{band}`, `weight_{band}`, `row` and `refused`, see `luneta.survey.stamp_index`.
    quality : Quality
        Takes the objects' flags and measurements.
    settings : dict
        See `luneta.plan.Plan.cutouts`.
    threads : int
        Processes that read and cut; the result does not depend on their number.

    Yields
    ------
    rows : numpy.ndarray
        Rows of some objects, shape (block,), int64.
    images : numpy.ndarray
        Their cutouts, shape (block, band, y, x), float32; only good until the next block.
    """
    bands, size = settings["bands"], settings["cutouts"]["size"]
    rows = np.flatnonzero(quality.usable)
    places = min(AHEAD * OBJECTS_AT_ONCE, len(rows))
    images = shared_array((places, len(bands), size, size))
    chosen = pa.array(rows)
    cutter = StampCutter(objects.take(chosen), stamps.take(chosen), settings, images)
    rejections = Rejections(quality)
    for block in work_through(cutter, len(rows), OBJECTS_AT_ONCE, threads, AHEAD):
        _note(block, rows, quality, bands)
        rejections.add(block, rows)
        here = np.asarray(block.slots)
        yield rows[here], images[here[0] % places :][: len(here)]
    rejections.note_files()
    if settings["cutouts"].get("area_ratio"):
        quality.put("galaxy_area_ratio", slice(None), area_ratio(objects, settings))


def _note(block: Block, rows: np.ndarray, quality: Quality, bands: list[str]) -> None:
    """Take over the flags and measurements of a block's usable objects."""
    for flag, slots in block.marked:
        quality.mark(rows[slots], flag)
    for name, slots, values in block.measured:
        if name == "sky_noise":
            quality.sky_noise[rows[slots]] = values
        else:
            quality.put(name, rows[slots], values)


class Rejections:
    """Rejected objects, and what is wrong with their files: one file may hold many stamps."""

    def __init__(self, quality: Quality):
        self._quality = quality
        self._objects: Counter[Fault] = Counter()

    def add(self, block: Block, rows: np.ndarray) -> None:
        """Reject what a block has rejected, and take over the faults of its files."""
        for slot, why in block.rejected.items():
            self._quality.mark(rows[slot : slot + 1], why.flag, why.reason)
        self._objects.update(block.faults)

    def note_files(self) -> None:
        """Note each fault once, however many objects it concerns."""
        for fault, count in self._objects.items():
            log.warning("%s (%d objects)", fault.reason, count)
            self._quality.note_file(fault.flag, fault.reason, None, fault.band, fault.path)
