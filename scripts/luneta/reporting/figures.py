"""The figures of the report, one function each; none reads or writes a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from luneta.metrics.counts import balanced_accuracy, confusion
from luneta.metrics.probability import expected_calibration_error, reliability
from luneta.reporting.predictions import AgainstTruth, OutOfFold
from luneta.reporting.reckoning import Reckoning, total
from luneta.reporting.style import BLUE, GREY, ORANGE, panels, say, styled, words
from luneta.survey.flags import Flag

OBJECTS_PER_BIN = 40


def _bars(axes: Axes, names: Sequence[str], values, color, left=None) -> None:
    axes.barh(range(len(names)), values, color=color, height=0.7, left=left)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(False, axis="y")


def _numbers(axes: Axes, ends, texts: Sequence[str]) -> None:
    """Write a text after the end of each bar."""
    for row, (end, text) in enumerate(zip(ends, texts, strict=True)):
        axes.annotate(text, (end, row), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.margins(x=0.18)


@styled
def objects(found: Reckoning) -> Figure:
    """Show how many objects came in and went out, and how many bear each flag."""
    figure, (left, right) = panels(2, 10, 4.6, width_ratios=[1, 1.5])
    totals = [found.usable + found.rejected, found.usable, found.rejected, found.overlaps]
    names = ["all", "usable", "rejected", "better in\nanother tile"]
    _bars(left, names, totals, [BLUE, BLUE, ORANGE, GREY])
    _numbers(left, totals, [f"{n:,}" for n in totals])
    left.set_title("Objects")
    left.set_xlabel(f"objects  ({total(found.unusable_files):,} image files could not be used)")
    left.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    _flag_bars(right, found)
    handles = [mpl.patches.Patch(color=c, label=t) for c, t in _USED_OR_NOT]
    figure.legend(handles=handles, loc="outside lower right", ncols=2)
    return figure


def _flag_bars(axes: Axes, found: Reckoning) -> None:
    names = [flag.name.lower() for flag in Flag if flag is not Flag.OVERLAP]
    used = np.array([found.usable_flags[name] for name in names])
    rejected = np.array([found.objects[n].count if n in found.objects else 0 for n in names])
    _bars(axes, [words(name) for name in names], used, BLUE)
    _bars(axes, [words(name) for name in names], rejected, ORANGE, left=used)
    _numbers(axes, used + rejected, [f"{n:,}" for n in used + rejected])
    axes.set_xscale("symlog", linthresh=10)
    axes.set_xlim(0, max(10, (used + rejected).max()) * 3)
    axes.set_title("Flags (an object can bear several)")
    axes.set_xlabel("objects, logarithmic above 10")


_USED_OR_NOT = ((BLUE, "usable objects that bear it"), (ORANGE, "objects rejected for it"))


@styled
def labels(
    classes: Sequence[str], labelled: np.ndarray, predicted: np.ndarray | None, note: str = ""
) -> Figure:
    """Show the balance of the classes among the labels and in the catalog.

    Parameters
    ----------
    classes : sequence of str
        Names of the classes.
    labelled, predicted : numpy.ndarray
        Objects of each class, shape (classes,), int; `predicted` is None for a task that is not
        in the catalog.
    note : str, optional
        Title: what is held out, and what was left out.
    """
    figure, (axes,) = panels(1, 7.5, 1.4 + 0.55 * len(classes) + 0.2 * len(note.splitlines()))
    given = [("labelled", labelled, BLUE)]
    given += (
        [] if predicted is None else [("most probable class in the catalog", predicted, ORANGE)]
    )
    height = 0.8 / len(given)
    for number, (name, counts, color) in enumerate(given):
        share = counts / max(counts.sum(), 1)
        rows = np.arange(len(classes)) + (number - (len(given) - 1) / 2) * height
        axes.barh(rows, share, height * 0.92, color=color, label=f"{name} ({counts.sum():,})")
        for row, end, objects_here in zip(rows, share, counts, strict=True):
            text = f"{objects_here:,}"
            axes.annotate(
                text, (end, row), (4, 0), textcoords="offset points", va="center", fontsize=8.5
            )
    axes.set_yticks(range(len(classes)), [words(name) for name in classes])
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.grid(False, axis="y")
    axes.set_xlabel("fraction of the objects")
    axes.set_title(note, fontsize=8.5)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _matrix(axes: Axes, counts: np.ndarray, classes: Sequence[str]) -> None:
    """Draw counts, coloured by the fraction of the true class."""
    true = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(true, 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(share):
        color = "white" if value > 0.55 else "black"
        text = f"{value:.2f}\n{counts[row, column]:,}" if true[row] else "none"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    names = [words(name) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.grid(False)


def _matrix_side(classes: Sequence[str]) -> float:
    return 2.3 + 0.72 * len(classes)


@styled
def confusion_matrix(found: OutOfFold) -> Figure:
    """Show which classes are taken for which, out of fold."""
    side = max(_matrix_side(found.classes), 4.2)
    figure, (axes,) = panels(1, side, side)
    counts = confusion(found.labels, found.probabilities)
    _matrix(axes, counts, found.classes)
    axes.set_title(
        f"{counts.sum():,} labelled objects\nbalanced accuracy {balanced_accuracy(counts):.3f}"
    )
    return figure


@styled
def truth_matrices(found: Mapping[str, AgainstTruth]) -> Figure:
    """Show the catalog's classes against the hidden truth, one panel per task."""
    if not found:
        figure, (axes,) = panels(1, 6, 2.5)
        say(axes, "The hidden truth answers none of the tasks.")
        return figure
    sides = [max(_matrix_side(result.classes), 4.2) for result in found.values()]
    figure, axes = panels(len(found), sum(sides), max(sides), width_ratios=sides)
    for panel, (task, result) in zip(axes, found.items(), strict=True):
        _matrix(panel, result.every, result.classes)
        panel.set_title(
            f"{words(task)}: {result.every.sum():,} objects\n"
            f"balanced accuracy {balanced_accuracy(result.every):.3f}\n"
            f"without the labelled objects {balanced_accuracy(result.unlabelled):.3f}"
        )
    return figure


def _calibration_line(axes: Axes, found: OutOfFold, after: bool) -> None:
    probabilities = found.probabilities if after else found.uncalibrated
    error = expected_calibration_error(found.labels, probabilities)
    binned = reliability(found.labels, probabilities)
    color, marker = (BLUE, "o") if after else (ORANGE, "s")
    spread = np.sqrt(binned["accuracy"] * (1 - binned["accuracy"]) / np.maximum(binned["count"], 1))
    axes.errorbar(
        binned["confidence"],
        binned["accuracy"],
        yerr=spread,
        color=color,
        marker=marker,
        markersize=4.5,
        linewidth=1.4,
        elinewidth=0.9,
        label=f"{'after' if after else 'before'} calibration: ECE {error:.3f}",
    )


@styled
def calibration(found: OutOfFold) -> Figure:
    """Show accuracy against probability of the predicted class, before and after calibration."""
    figure, (axes, lower) = panels(2, 9.5, 4.4)
    for after in (False, True):
        _calibration_line(axes, found, after)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", label="perfect")
    lowest = 1 / len(found.classes)
    axes.set(xlim=(lowest - 0.02, 1.02), ylim=(0, 1.02))
    axes.set(xlabel="probability of the predicted class", ylabel="fraction that is right")
    axes.legend(loc="upper left", fontsize=8.5)
    axes.set_ylim(0, 1.25)
    axes.set_yticks(np.arange(0, 1.01, 0.2))
    edges = np.linspace(lowest, 1, 21)
    for name, values, color in (
        ("before", found.uncalibrated, ORANGE),
        ("after", found.probabilities, BLUE),
    ):
        lower.hist(
            values.max(axis=1), edges, histtype="step", linewidth=1.6, color=color, label=name
        )
    lower.set(xlabel="probability of the predicted class", ylabel="labelled objects")
    lower.legend(loc="upper left")
    return figure


def _wilson(right: np.ndarray) -> tuple[float, float, float]:
    """Fraction and its 68 % interval (Wilson 1927), which never leaves 0 to 1."""
    n, p = len(right), float(np.mean(right))
    centre = (p + 1 / (2 * n)) / (1 + 1 / n)
    half = np.sqrt(p * (1 - p) / n + 1 / (4 * n * n)) / (1 + 1 / n)
    return p, max(p - centre + half, 0.0), max(centre + half - p, 0.0)


def _binned_accuracy(axes: Axes, values: np.ndarray, right: np.ndarray) -> None:
    order = np.argsort(values, kind="stable")
    bins = np.array_split(order, int(np.clip(len(order) // OBJECTS_PER_BIN, 1, 10)))
    points = np.array([_wilson(right[rows]) for rows in bins])
    middle = np.array([np.median(values[rows]) for rows in bins])
    reach = [
        [middle[i] - values[rows[0]], values[rows[-1]] - middle[i]] for i, rows in enumerate(bins)
    ]
    axes.errorbar(
        middle,
        points[:, 0],
        xerr=np.transpose(reach),
        yerr=points[:, 1:].T,
        fmt="o",
        color=BLUE,
        elinewidth=1.1,
        markersize=5,
    )
    axes.axhline(np.mean(right), color=GREY, linewidth=1, linestyle="--")
    axes.set_ylim(min(0.5, float((points[:, 0] - points[:, 1]).min()) - 0.05), 1.02)


@styled
def magnitude_size(
    right: np.ndarray, columns: Mapping[str, tuple[str, str | None, np.ndarray] | None]
) -> Figure:
    """Show accuracy against magnitude and against size, in bins of equally many objects.

    Parameters
    ----------
    right : numpy.ndarray
        Whether each labelled object was classified right, shape (objects,), bool.
    columns : mapping
        `magnitude` and `size`: name, unit and values of shape (objects,); None if the source list
        has no such column.
    """
    figure, axes = panels(2, 9.5, 3.9, sharey=True)
    for panel, (what, column) in zip(axes, columns.items(), strict=True):
        if column is None:
            say(panel, f"The source list has no {what}.")
            continue
        name, unit, values = column
        good = np.isfinite(values)
        if good.sum() < OBJECTS_PER_BIN:
            say(panel, f"Only {good.sum()} labelled objects have {words(name)}.")
            continue
        _binned_accuracy(panel, values[good], right[good])
        panel.set_xlabel(f"{words(name)} ({unit})" if unit else words(name))
        panel.set_title(f"{good.sum():,} labelled objects, out of fold")
    axes[0].set_ylabel("fraction that is right")
    return figure
