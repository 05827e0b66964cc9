"""What the features of a trained network show: a map, its groups, the rarest objects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from luneta.parquet import read_parquet
from luneta.reporting.cutouts import Picture, Pictures, blank, picture_caption, place, shortened
from luneta.reporting.style import COLOURS, GREY, panels, say, styled, words

DRAWN = 20_000
GROUPS, PER_GROUP = 12, 10
RAREST = 40
HEIGHT = 1.25


@dataclass(frozen=True)
class Clusters:
    """Where the usable objects of a survey are, one entry per object in each array.

    Attributes
    ----------
    object_id, shard
        Names, object (object,).
    row
        Row in the shard's cutout file, int (object,).
    map
        UMAP coordinates, float (object, 2).
    group
        int (object,); -1 is none.
    anomaly
        float (object,).
    """

    object_id: np.ndarray
    shard: np.ndarray
    row: np.ndarray
    map: np.ndarray
    group: np.ndarray
    anomaly: np.ndarray

    def __len__(self) -> int:
        return len(self.object_id)


def read_clusters(path: Path | str, task: str, overlaps: Path | str) -> Clusters:
    """Read the usable objects of clusters/{task}.parquet, each with the placement in the catalog.

    Parameters
    ----------
    path
        clusters/{task}.parquet.
    task
        Its name.
    overlaps
        catalog/overlaps.parquet: the placements that are not used.
    """
    table = read_parquet(path)
    usable = pc.is_valid(table[f"{task}_group"])
    row = _row_in_shard(table["shard"].to_numpy(), usable.to_numpy())
    table = table.append_column("row", pa.array(row)).filter(usable)
    lost = read_parquet(overlaps, columns=["object_id", "shard"])
    unused = set(zip(lost["object_id"].to_pylist(), lost["shard"].to_pylist(), strict=True))
    places = zip(table["object_id"].to_pylist(), table["shard"].to_pylist(), strict=True)
    seen: set[str] = set()
    keep = [p not in unused and not (p[0] in seen or seen.add(p[0])) for p in places]
    kept = table.filter(pa.array(keep, pa.bool_()))
    return Clusters(
        np.asarray(kept["object_id"].to_numpy(), object),
        np.asarray(kept["shard"].to_numpy(), object),
        kept["row"].to_numpy(),
        np.stack([kept[f"{task}_map_{i}"].to_numpy() for i in (1, 2)], 1).reshape(-1, 2),
        kept[f"{task}_group"].to_numpy(),
        kept[f"{task}_anomaly_score"].to_numpy(),
    )


def _row_in_shard(shard: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """Number the usable rows of each shard from 0, as its cutout file does; int64 (row,)."""
    total = np.cumsum(usable)
    first = np.concatenate([[True], shard[1:] != shard[:-1]])[: len(shard)]
    before = np.where(first, total - usable, 0)
    return total - 1 - np.maximum.accumulate(before)


def _drawn(count: int) -> np.ndarray:
    """Choose at most `DRAWN` objects for a plot of points."""
    random = np.random.default_rng(0)
    return np.sort(random.permutation(count)[:DRAWN])


def _points(axes: Axes, points: np.ndarray, names: list[str], which: np.ndarray) -> None:
    """Draw points coloured by name; name number -1 is grey and below."""
    size = float(np.clip(4e4 / max(len(points), 1), 1.5, 14))
    options = {"s": size, "linewidths": 0, "rasterized": True}
    axes.scatter(*points[which < 0].T, color="#cccccc", **options)
    for number, name in enumerate(names):
        marker = "o^sD"[number // len(COLOURS) % 4]
        color = COLOURS[number % len(COLOURS)]
        axes.scatter(*points[which == number].T, color=color, marker=marker, label=name, **options)
    axes.set(xticks=[], yticks=[], xlabel="map 1", ylabel="map 2")
    axes.grid(False)


def _legend(axes: Axes, names: list[str]) -> None:
    if names:
        columns = -(-len(names) // 4)
        legend = axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=columns, fontsize=8.5
        )
        for handle in legend.legend_handles:
            handle.set_sizes([28])


@styled
def feature_map(found: Clusters, classes: list[str], predicted: np.ndarray) -> Figure:
    """Show the UMAP map, coloured by group and by predicted class.

    Parameters
    ----------
    found
        All usable objects.
    classes
        Of the task.
    predicted
        Number of each object's class in the catalog, int (object,); -1 if it has none.
    """
    if not len(found):
        figure, (axes,) = panels(1, 6, 2.5)
        say(axes, "Too few objects are usable to place them.")
        return figure
    figure, (left, right) = panels(2, 12.5, 6.0)
    rows = _drawn(len(found))
    shown = min(GROUPS, int(found.group.max()) + 1)
    counts = np.bincount(found.group[found.group >= 0], minlength=shown)
    names = [f"group {g}: {counts[g]:,}" for g in range(shown)]
    group = np.where(found.group < shown, found.group, -1)
    _points(left, found.map[rows], names, group[rows])
    outside = int(np.sum(group < 0))
    left.set_title(f"{len(found):,} objects; grey: {outside:,} in no group shown")
    _points(right, found.map[rows], [words(name) for name in classes], predicted[rows])
    right.set_title("by the most probable class")
    for axes, entries in ((left, names), (right, classes)):
        _legend(axes, entries)
    return figure


def typical(found: Clusters, group: int, number: int) -> np.ndarray:
    """Choose objects of a group, the nearest to its centre on the map first; rows, int."""
    rows = np.flatnonzero(found.group == group)
    centre = np.median(found.map[rows], axis=0)
    away = np.hypot(*(found.map[rows] - centre).T)
    return rows[np.argsort(away, kind="stable")[:number]]


def _picture(pictures: Pictures, found: Clusters, row: int) -> Picture:
    return pictures.at(found.shard[row], int(found.row[row]))


@styled
def groups(found: Clusters, pictures: Pictures) -> Figure:
    """Show the most typical objects of each group, a row of cutouts for each."""
    shown = min(GROUPS, int(found.group.max()) + 1) if len(found) else 0
    if not shown:
        figure, (axes,) = panels(1, 6, 2.5)
        say(axes, "No groups were found.")
        return figure
    figure, (axes,) = panels(1, 1.05 * (PER_GROUP + 1.6), 1.05 * shown + 0.3)
    for group in range(shown):
        count = int(np.sum(found.group == group))
        axes.text(-0.1, group + 0.47, f"group {group}\n{count:,}", ha="right", va="center")
        for column, row in enumerate(typical(found, group, PER_GROUP)):
            place(axes, _picture(pictures, found, row).pixels, column, group)
    blank(axes, PER_GROUP, shown)
    axes.set_xlim(-1.6, PER_GROUP)
    return figure


@styled
def anomalies(found: Clusters, pictures: Pictures) -> Figure:
    """Show the objects of the highest anomaly score, the highest first."""
    order = np.argsort(-found.anomaly, kind="stable")[:RAREST]
    if not len(order):
        figure, (axes,) = panels(1, 6, 2.5)
        say(axes, "Too few objects are usable to say which are rare.")
        return figure
    columns = min(10, len(order))
    rows = -(-len(order) // columns)
    figure, (axes,) = panels(1, 1.25 * columns + 0.2, 1.25 * HEIGHT * rows + 0.2)
    for number, row in enumerate(order):
        x, y = number % columns, number // columns * HEIGHT
        place(axes, _picture(pictures, found, row).pixels, x, y)
        name = shortened(str(found.object_id[row]), 18)
        picture_caption(axes, f"{found.anomaly[row]:.2f}\n{name}", x + 0.47, y + 0.96)
    blank(axes, columns, rows * HEIGHT)
    axes.text(0, rows * HEIGHT, "anomaly score and name", color=GREY, fontsize=8, va="top")
    return figure
