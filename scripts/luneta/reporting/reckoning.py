"""What came in and what was left out, counted without holding the tables in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luneta.catalog.read import batches
from luneta.survey.flags import NOTE, UNUSABLE, Flag, count

FIRST = 10
NO_FLAG = "no flag"


@dataclass
class Group:
    """Objects or files that bear a flag: how many, and the first rows of them."""

    count: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Reckoning:
    """Objects and files of a survey in numbers.

    Attributes
    ----------
    usable : int
        Objects with a cutout.
    usable_flags : collections.Counter
        Of these, how many bear each flag, by its lower-case name.
    rejected : int
        Objects that cannot be used, those skipped by the config included.
    overlaps : int
        Cutouts that are not used, as another tile has a better one.
    objects, files : dict
        `Group` of rejected objects, and of files, by the flag's lower-case name.
    """

    usable: int = 0
    usable_flags: Counter = field(default_factory=Counter)
    rejected: int = 0
    overlaps: int = 0
    objects: dict[str, Group] = field(default_factory=dict)
    files: dict[str, Group] = field(default_factory=dict)

    @property
    def unusable_files(self) -> dict[str, Group]:
        """Files that could not be used, by flag."""
        return {name: group for name, group in self.files.items() if not is_soft(name)}

    @property
    def doubtful_files(self) -> dict[str, Group]:
        """Files that were used in spite of a flag, by flag."""
        return {name: group for name, group in self.files.items() if is_soft(name)}


def is_soft(name: str) -> bool:
    """Whether the flag of that lower-case name leaves its object or file usable."""
    is_flag = name.upper() in Flag.__members__
    return name == NOTE or (is_flag and not Flag[name.upper()] & UNUSABLE)


def total(groups: dict[str, Group]) -> int:
    """Number of entries in all groups."""
    return sum(group.count for group in groups.values())


def _rows(path: Path | str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Read some columns of a Parquet file piece by piece."""
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(columns=columns)


def _count_usable(catalog: Path | str, found: Reckoning) -> None:
    for batch in batches(catalog, ["flags", "reject_reason"]):
        usable = pc.is_null(batch["reject_reason"]).to_numpy(zero_copy_only=False)
        found.usable += int(usable.sum())
        found.usable_flags.update(count(np.asarray(batch["flags"])[usable]))


def _add(groups: dict[str, Group], rows: pa.RecordBatch) -> None:
    """Add rejects of one kind to their flags' groups."""
    flags = rows["flag"].fill_null(NO_FLAG)
    for entry in pc.value_counts(flags).to_pylist():
        wanted = [groups.setdefault(name, Group()) for name in entry["values"].split("|")]
        lacking = max(FIRST - len(group.rows) for group in wanted)
        here = pc.equal(flags, entry["values"])
        first = rows.filter(here).slice(0, lacking).to_pylist() if lacking else []
        for group in wanted:
            group.count += entry["counts"]
            group.rows += first[: FIRST - len(group.rows)]


def reckon(catalog: Path | str, rejects: Path | str, overlaps: Path | str) -> Reckoning:
    """Count what the catalog, its rejects and its overlaps hold.

    Parameters
    ----------
    catalog, rejects, overlaps : path
        Of the folder `catalog`: `collection.properties`, `rejects.parquet`, `overlaps.parquet`.
    """
    found = Reckoning(overlaps=pq.read_metadata(overlaps).num_rows)
    _count_usable(catalog, found)
    for batch in _rows(rejects, ["kind", "name", "tile", "band", "flag", "reason"]):
        objects = batch.filter(pc.equal(batch["kind"], "object"))
        found.rejected += len(objects)
        _add(found.objects, objects)
        _add(found.files, batch.filter(pc.equal(batch["kind"], "file")))
    return found
