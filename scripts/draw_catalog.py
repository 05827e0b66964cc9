"""Draw a catalog in use: `python scripts/draw_catalog.py results/demo lens PICTURE.png`.

The sky with its partitions, the best candidates of a task, and a query with its answer.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cdshealpix
import duckdb
import numpy as np
import pandas as pd
from astropy import units as u
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from luneta.catalog.read import COLLECTION, partition_files
from luneta.parquet import parquet_schema, read_parquet
from luneta.reporting.cutouts import Pictures, blank, place
from luneta.reporting.style import COLOURS, GREY, save, styled

COLUMNS, ROWS = 5, 3
MIDDLE = 0.6  # of a cutout that is shown
QUERY = """\
select object_id, round({stem}_probability, 3) as probability,
       round({stem}_std, 3) as spread, {task}_outlier as outlier
from '{dataset}/*/*/*.parquet'
where flags = 0 order by {stem}_probability desc limit 5"""


def _outline(path: Path) -> np.ndarray:
    """Corners of a partition, degrees (points, 2), with points between them."""
    order, pixel = (int(part.split("=")[1]) for part in (path.parts[-3], path.stem))
    lon, lat = cdshealpix.vertices(np.array([pixel], np.uint64), order, step=8)
    return np.stack([lon[0].to_value(u.deg), lat[0].to_value(u.deg)], 1)


def _sky(axes: Axes, files: list[Path], listed: pd.DataFrame) -> None:
    """Draw the objects by partition, the partitions' borders and the candidates."""
    count, places = 0, []
    for number, path in enumerate(files):
        table = read_parquet(path, columns=["ra", "dec"])
        colour = COLOURS[:6][number % 6]
        places.append(np.stack([table["ra"].to_numpy(), table["dec"].to_numpy()], 1))
        axes.scatter(*places[-1].T, s=2.5, color=colour, alpha=0.55, linewidths=0)
        axes.add_patch(Polygon(_outline(path), fill=False, edgecolor=GREY, linewidth=0.9))
        count += len(table)
    axes.scatter(listed["ra"], listed["dec"], s=16, facecolors="none", edgecolors="black",
                 linewidths=0.8, label=f"{len(listed)} listed candidates")  # fmt: skip
    points = np.concatenate(places)
    low, high = points.min(axis=0), points.max(axis=0)
    margin = 0.04 * (high - low)
    axes.set(xlim=(high[0] + margin[0], low[0] - margin[0]),
             ylim=(low[1] - margin[1], high[1] + margin[1]),
             xlabel="right ascension (deg)", ylabel="declination (deg)")  # fmt: skip
    axes.set_aspect(1 / np.cos(np.radians(points[:, 1].mean())))
    axes.set_title(f"{count:,} objects in {len(files)} HEALPix partitions")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1))


def _middle(pixels: np.ndarray) -> np.ndarray:
    """Cut the middle out of a picture, (y, x, 3)."""
    edge = round(len(pixels) * (1 - MIDDLE) / 2)
    return pixels[edge : len(pixels) - edge, edge : len(pixels) - edge]


def _candidates(axes: Axes, results: Path, listed: pd.DataFrame, task: str) -> None:
    """Draw the best candidates with their probabilities."""
    best = listed.head(COLUMNS * ROWS)
    pictures = Pictures({p.stem: p for p in sorted((results / "cutouts").glob("*.arrow"))})
    places = pictures.find(dict(zip(best["object_id"], best["tile"], strict=True)))
    height = 1.3
    for number, row in enumerate(best.itertuples()):
        x, y = number % COLUMNS, number // COLUMNS * height
        place(axes, _middle(pictures.at(*places[row.object_id]).pixels), x, y)
        bounds = f"{row.probability_low:.3f} to {row.probability_high:.3f}"
        text = f"{row.rank}. {row.probability:.3f}\n{bounds}"
        axes.text(x + 0.47, y + 0.97, text, ha="center", va="top", fontsize=9)
    blank(axes, COLUMNS, ROWS * height)
    purity = best["expected_purity"].iloc[-1]
    axes.set_title(f"{task}_candidates.parquet: rank, probability, its 68.3 % interval")
    axes.text(0, ROWS * height + 0.02, f"expected purity down to rank {len(best)}: {purity:.3f}",
              color=GREY, fontsize=9.5, va="top")  # fmt: skip


def _query(axes: Axes, query: str) -> None:
    """Write a query and what DuckDB answers."""
    answer = duckdb.sql(query).df().to_string(index=False)
    axes.set_axis_off()
    font = {"family": "DejaVu Sans Mono", "fontsize": 9.2, "va": "top"}
    axes.text(0, 1, "DuckDB> " + query.replace("\n", "\n        "), color="#1f3b57", **font)
    axes.text(0.58, 1, answer, color="black", **font)


@styled
def picture(results: Path, task: str) -> Figure:
    """Draw the catalog of a survey in use.

    Parameters
    ----------
    results : path
        `results/{survey}`.
    task : str
        One with a list of candidates.
    """
    catalog = results / "catalog"
    listed = read_parquet(catalog / f"{task}_candidates.parquet").to_pandas()
    schema = parquet_schema(catalog / f"{task}_candidates.parquet")
    told = schema.field("score").metadata[b"description"].decode()
    stem = told.split()[1].removesuffix("_probability")
    figure = Figure(figsize=(12.5, 7.2), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.1)
    grid = figure.add_gridspec(2, 2, height_ratios=[4.9, 1.0], width_ratios=[1, 1.35])
    files = partition_files(catalog / COLLECTION)
    _sky(figure.add_subplot(grid[0, 0]), files, listed)
    _candidates(figure.add_subplot(grid[0, 1]), results, listed, task)
    dataset = f"{results}/catalog/{results.name}/dataset"
    query = QUERY.format(task=task, stem=stem, dataset=dataset)
    _query(figure.add_subplot(grid[1, :]), query)
    return figure


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("Usage: python scripts/draw_catalog.py results/SURVEY TASK PICTURE.png")
    save(picture(Path(sys.argv[1]), sys.argv[2]), Path(sys.argv[3]))
