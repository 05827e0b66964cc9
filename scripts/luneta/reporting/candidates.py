"""Figure of a list of candidates: its purity, and the first of them as pictures."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from luneta.parquet import read_parquet
from luneta.reporting.cutouts import Pictures, blank, picture_caption, place, shortened
from luneta.reporting.style import BLUE, GREY, ORANGE, STYLE, panels, say, styled

SHOWN, COLUMNS = 40, 8
SIDE, HEIGHT = 1.45, 1.28  # of a cutout with its caption: inch, and in units of its side


def read_candidates(path: Path | str) -> pd.DataFrame:
    """Read the columns of a list of candidates that its figure shows."""
    names = ["rank", "object_id", "tile", "probability", "probability_low", "probability_high",
             "expected_purity", "outlier", "known_name"]  # fmt: skip
    return read_parquet(path, columns=names).to_pandas()


def _curves(axes: Axes, listed: pd.DataFrame) -> None:
    """Draw probability, its interval and the expected purity by rank."""
    rank, bounds = listed["rank"], (listed["probability_low"], listed["probability_high"])
    axes.fill_between(rank, *bounds, color=GREY, alpha=0.25, linewidth=0, label="68.3 % interval")
    axes.plot(rank, listed["probability"], color=GREY, linewidth=1, label="probability")
    purity = listed["expected_purity"]
    axes.plot(rank, purity, color=BLUE, label="expected purity down to the rank")
    axes.set(xlabel="rank", ylabel="probability", ylim=(0, 1.02), xlim=(1, max(2, len(listed))))
    axes.xaxis.get_major_locator().set_params(integer=True)
    true = listed["probability"].sum()
    axes.set_title(f"{len(listed):,} candidates, of which {true:,.0f} are expected to be true")
    axes.legend(loc="lower left", ncols=3)


def _caption(row: tuple) -> tuple[str, str]:
    """Words below a candidate, and their colour."""
    name = row.known_name if isinstance(row.known_name, str) else row.object_id
    text = f"{row.rank}. {row.probability:.3f}\n{shortened(name, 20)}"
    if row.outlier:
        return text, ORANGE
    return text, BLUE if isinstance(row.known_name, str) else "black"


def _montage(axes: Axes, best: pd.DataFrame, pictures: Pictures) -> None:
    """Draw the first candidates with rank, probability and name."""
    places = pictures.find(dict(zip(best["object_id"], best["tile"], strict=True)))
    for number, row in enumerate(best.itertuples()):
        x, y = number % COLUMNS, number // COLUMNS * HEIGHT
        if row.object_id in places:
            place(axes, pictures.at(*places[row.object_id]).pixels, x, y)
        text, colour = _caption(row)
        picture_caption(axes, text, x + 0.47, y + 0.96, color=colour)
    blank(axes, COLUMNS, -(-len(best) // COLUMNS) * HEIGHT)


@styled
def candidates(listed: pd.DataFrame, pictures: Pictures) -> Figure:
    """Show what purity a list is expected to have, and its first candidates.

    Parameters
    ----------
    listed : pandas.DataFrame
        As `read_candidates` gives it.
    pictures : Pictures
        The cutouts.
    """
    if not len(listed):
        figure, (axes,) = panels(1, 6, 2.5)
        say(axes, "No object is probable enough to be listed.")
        return figure
    best = listed.head(SHOWN)
    height = SIDE * HEIGHT * -(-len(best) // COLUMNS)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(SIDE * COLUMNS + 0.2, height + 3.0), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=[2.8, height])
    _curves(upper, listed)
    _montage(lower, best, pictures)
    return figure
