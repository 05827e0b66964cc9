"""Figures of how networks learned: histories and gradients."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from luneta.reporting.style import GREY, ORANGE, line_of, panels, say, styled

HEAD = "head"
# Without the palest colours, which vanish on white.
SHADES = mpl.colors.ListedColormap(mpl.colormaps["viridis"](np.linspace(0, 0.88, 256)))


def _history_lines(axes: Axes, histories: Sequence[pd.DataFrame], score: str) -> None:
    for number, history in enumerate(histories):
        epochs = np.arange(1, len(history) + 1)
        color = line_of(number)["color"]
        axes.plot(epochs, history[score], color=color, linewidth=1, linestyle=":")
        axes.plot(
            epochs, history[f"val_{score}"], color=color, linewidth=1.6, label=f"fold {number}"
        )
        change = np.flatnonzero(history["phase"].to_numpy()[1:] != history["phase"].to_numpy()[:-1])
        for epoch in change[:1] if number == 0 else []:
            axes.axvline(epoch + 1.5, color=GREY, linewidth=1, linestyle="--")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


@styled
def training(histories: Sequence[pd.DataFrame]) -> Figure:
    """Show loss and accuracy against epoch, one colour per fold.

    Parameters
    ----------
    histories : sequence of pandas.DataFrame
        `models/{task}/fold{k}_history.csv`, in the order of the folds.
    """
    figure, axes = panels(2, 9.5, 3.8)
    for panel, score, title in zip(axes, ("loss", "accuracy"), ("Loss", "Accuracy"), strict=True):
        _history_lines(panel, histories, score)
        panel.set_title(title)
    handles, names = axes[0].get_legend_handles_labels()
    black = {"color": "black"}
    handles += [
        mpl.lines.Line2D([], [], **black),
        mpl.lines.Line2D([], [], linestyle=":", **black),
        mpl.lines.Line2D([], [], color=GREY, linestyle="--"),
    ]
    names += ["validation", "training", "backbone unfrozen"]
    figure.legend(handles, names, loc="outside right center")
    return figure


def block_names(blocks: Sequence[str]) -> list[str]:
    """Order the blocks of a network from input to output: by number, the head last."""
    return sorted(set(blocks), key=lambda name: (name == HEAD, len(name), name))


def norms_by_block(gradients: pd.DataFrame) -> pd.DataFrame:
    """Average the gradient norms over the layers of each block.

    Parameters
    ----------
    gradients : pandas.DataFrame
        `models/{task}/fold{k}_gradients.csv`.

    Returns
    -------
    pandas.DataFrame
        Epochs along rows, blocks along columns from input to output. NaN where a block was frozen,
        or where its norm is zero or infinite, which a logarithmic axis cannot show.
    """
    table = gradients.pivot_table("norm", "epoch", "block", aggfunc="mean")
    table = table.where((table > 0) & np.isfinite(table))
    return table.reindex(columns=block_names(gradients["block"]))


@styled
def gradients(noted: pd.DataFrame) -> Figure:
    """Show the gradient norm of each block against epoch, coloured from input to output.

    Parameters
    ----------
    noted : pandas.DataFrame
        `models/{task}/fold0_gradients.csv`.
    """
    figure, (axes,) = panels(1, 8, 4.2)
    table = norms_by_block(noted)
    if not table.notna().any(axis=None):
        say(axes, "No gradient was noted that is a number above zero.")
        return figure
    blocks = [name for name in table if name != HEAD]
    shades = mpl.cm.ScalarMappable(mpl.colors.Normalize(1, max(len(blocks), 2)), SHADES)
    for number, name in enumerate(blocks, start=1):
        color = shades.to_rgba(number)
        axes.plot(table.index, table[name], color=color, marker=".", linewidth=1.4)
    if HEAD in table:
        axes.plot(table.index, table[HEAD], color=ORANGE, marker="s", markersize=4, label=HEAD)
        axes.legend(loc="best")
    if blocks:
        bar = figure.colorbar(shades, ax=axes, label="block, from input to output", pad=0.02)
        bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(yscale="log", xlabel="epoch", ylabel="gradient norm, mean over the steps")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("Fold 0: gradient norm of each block, mean over its layers")
    return figure
