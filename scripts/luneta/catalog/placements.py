"""Which rows of the shards are one object, which of them is used, and which ids come again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from luneta.parquet import parquet_schema, read_parquet
from luneta.survey.overlaps import best_placement, same_object

DEFAULT_RADIUS = 1.0
POSITION = ["object_id", "ra", "dec", "tile"]
GOODNESS = ["usable", "masked_fraction", "edge_distance"]


def hashes(ids: pa.ChunkedArray) -> np.ndarray:
    """Hash names; two names may share a hash. Shape (objects,), uint64."""
    return pd.util.hash_array(np.asarray(ids.to_numpy(), dtype=object), categorize=False)


def repeated_hashes(paths: Sequence[Path | str]) -> np.ndarray:
    """Find hashes of object_ids that occur more than once; eight bytes of memory an object.

    Returns
    -------
    numpy.ndarray
        Sorted, uint64. Two ids may share a hash, so look at the ids themselves next.
    """
    found = [hashes(read_parquet(path, columns=["object_id"])["object_id"]) for path in paths]
    values = np.sort(np.concatenate(found))
    return np.unique(values[1:][values[1:] == values[:-1]])


def _directions(table: pa.Table) -> np.ndarray:
    """Unit vectors of the positions, shape (objects, 3)."""
    ra, dec = (np.radians(table[name].to_numpy().astype(float)) for name in ("ra", "dec"))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=1)


class TileBoxes:
    """The box, in unit vectors, that holds the objects of each tile.

    Parameters
    ----------
    paths : sequence of path
        `objects/{shard}.parquet`.
    radius : float
        Arcsec by which each box is widened.
    """

    def __init__(self, paths: Sequence[Path | str], radius: float):
        low, high = {}, {}
        for path in paths:
            table = read_parquet(path, columns=POSITION[1:])
            frame = pd.DataFrame(_directions(table)).groupby(table["tile"].to_pandas().to_numpy())
            low |= dict(zip(frame.groups, frame.min().to_numpy(), strict=True))
            high |= dict(zip(frame.groups, frame.max().to_numpy(), strict=True))
        self._names = list(low)
        margin = np.radians(radius / 3600)
        self._low = np.array([*low.values()]).reshape(-1, 3) - margin
        self._high = np.array([*high.values()]).reshape(-1, 3) + margin

    def in_another(self, table: pa.Table) -> np.ndarray:
        """Whether each object lies in the box of a tile that is not its own."""
        points, tiles = _directions(table), table["tile"].to_pandas().to_numpy()
        found = np.zeros(len(table), bool)
        for number in np.flatnonzero(np.isin(self._names, pd.unique(tiles))):
            rows = np.flatnonzero(tiles == self._names[number])
            for other in self._touching(number):
                low, high = self._low[other], self._high[other]
                found[rows] |= ((points[rows] >= low) & (points[rows] <= high)).all(axis=1)
        return found

    def _touching(self, number: int) -> np.ndarray:
        """Numbers of the other tiles whose boxes meet that of a tile."""
        meet = (self._low <= self._high[number]) & (self._high >= self._low[number])
        others = np.arange(len(self._names)) != number
        return np.flatnonzero(meet.all(axis=1) & others)


def _suspects(objects: Sequence, quality: Sequence, radius, by_position: bool) -> pd.DataFrame:
    """Rows that may share their object or their name with another, with their shard and row."""
    suspicious = repeated_hashes(objects)
    boxes = TileBoxes(objects, radius) if by_position and radius is not None else None
    parts = []
    for shard, (path, measured) in enumerate(zip(objects, quality, strict=True)):
        table = read_parquet(path, columns=POSITION)
        chosen = np.isin(hashes(table["object_id"]), suspicious)
        if boxes is not None:
            chosen |= boxes.in_another(table)
        rows = np.flatnonzero(chosen)
        if len(rows):
            known = [name for name in GOODNESS if name in parquet_schema(measured).names]
            beside = read_parquet(measured, columns=known).take(rows).to_pandas()
            part = table.take(rows).to_pandas().assign(shard=shard, row=rows)
            parts.append(part.join(beside.reindex(columns=GOODNESS)))
    empty = pd.DataFrame(columns=[*POSITION, "shard", "row", *GOODNESS])
    return pd.concat(parts, ignore_index=True) if parts else empty


def _names(column: pd.Series) -> np.ndarray:
    return column.fillna("").to_numpy(object)


@dataclass(frozen=True)
class Placements:
    """What becomes of the rows that share an object or a name.

    Attributes
    ----------
    overlaps : pandas.DataFrame
        Rows whose object has a better placement: `shard` (its number), `row`, `chosen_tile`,
        `chosen_object_id`.
    repeats : pandas.DataFrame
        Rows whose name an earlier object bears: `shard`, `row`.
    """

    overlaps: pd.DataFrame
    repeats: pd.DataFrame

    @cached_property
    def _overlaps_by_shard(self) -> dict[int, pd.DataFrame]:
        return {shard: rows.sort_values("row") for shard, rows in self.overlaps.groupby("shard")}

    @cached_property
    def _repeats_by_shard(self) -> dict[int, pd.Series]:
        return dict(iter(self.repeats.groupby("shard")["row"]))

    def overlaps_of(self, shard: int) -> pd.DataFrame:
        """Rows of a shard that are not used, as another placement is better."""
        return self._overlaps_by_shard.get(shard, self.overlaps.iloc[:0])

    def repeats_of(self, shard: int) -> np.ndarray:
        """Rows of a shard whose name came before, int64."""
        return self._repeats_by_shard.get(shard, self.repeats["row"].iloc[:0]).to_numpy(np.int64)


def find_placements(
    objects: Sequence[Path | str], quality: Sequence[Path | str], settings: Mapping
) -> Placements:
    """Decide which placement of each object is used, and which names came before.

    Only rows that may share an object or a name are in memory at once.

    Parameters
    ----------
    objects, quality : sequence of path
        `objects/{shard}.parquet` and `quality/{shard}.parquet`, in one order.
    settings : mapping
        `overlap_radius` (arcsec; None if the survey has no tiles), `detected` (whether objects
        were found in each tile, so that they have other names in each).
    """
    radius = settings.get("overlap_radius", DEFAULT_RADIUS)
    rows = _suspects(objects, quality, radius, settings.get("detected", False))
    names, tile = _names(rows["object_id"]), _names(rows["tile"])
    ra, dec = rows["ra"].to_numpy(float), rows["dec"].to_numpy(float)
    group = same_object(names, ra, dec, tile, radius, settings.get("detected", False))
    goodness = (rows[name].to_numpy(float) for name in GOODNESS[1:])
    best = best_placement(group, rows["usable"].to_numpy(bool), *goodness, tile)
    chosen = rows[best].set_axis(group[best])
    lost = rows.loc[~best, ["shard", "row"]].assign(
        chosen_tile=chosen["tile"].reindex(group[~best]).to_numpy(),
        chosen_object_id=chosen["object_id"].reindex(group[~best]).to_numpy(),
    )
    # A row that cannot be used takes no name from one that can.
    chosen = chosen.sort_index().sort_values("usable", ascending=False, kind="stable")
    again = chosen["object_id"].duplicated() & (_names(chosen["object_id"]) != "")
    return Placements(lost, chosen.loc[again, ["shard", "row"]])
