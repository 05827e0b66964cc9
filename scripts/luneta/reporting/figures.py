"""The figures of the report, one function each; none reads or writes a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from luneta.metrics.classification import (
    common_thresholds,
    confusion,
    expected_calibration_error,
    nan_mean,
    nan_std,
    precision_recall_on_thresholds,
    reliability,
    roc_on_thresholds,
)
from luneta.reporting.predictions import AgainstTruth, OutOfFold, balanced_accuracy
from luneta.reporting.reckoning import Reckoning, total
from luneta.reporting.style import BLUE, COLOURS, GREY, ORANGE, STYLE, line_of, panels, say, words
from luneta.survey.flags import Flag

OBJECTS_PER_BIN = 40
SCORE_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "roc_auc": "ROC AUC",
}


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Draw in the house style."""

    @wraps(draw)
    def inner(*arguments, **options):
        with mpl.rc_context(STYLE):
            return draw(*arguments, **options)

    return inner


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
    for panel, score, title in zip(
        axes, ("loss", "accuracy"), ("Cross-entropy (nat)", "Accuracy"), strict=True
    ):
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


def _edge(x: np.ndarray, y: np.ndarray, step_x: int, step_y: int) -> np.ndarray:
    """Move the mean curve by standard deviations over folds; shape (2, thresholds)."""
    moved_x = nan_mean(x, 0) + step_x * nan_std(x)
    return np.clip([moved_x, nan_mean(y, 0) + step_y * nan_std(y)], 0, 1)


def _mean_curve(axes: Axes, x: np.ndarray, y: np.ndarray, better: int, **line) -> None:
    """Draw the mean over folds at each threshold, with a band of one standard deviation.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    x, y : numpy.ndarray
        Shape (folds, thresholds), float.
    better : {-1, 1}
        Whether a smaller or a larger x is better.
    line
        For `Axes.plot`.
    """
    upper, lower = _edge(x, y, better, 1), _edge(x, y, -better, -1)
    keep = np.isfinite(upper + lower).all(axis=0)
    outline = np.concatenate([upper[:, keep], lower[:, keep][:, ::-1]], axis=1)
    axes.fill(*outline, color=line["color"], alpha=0.18, linewidth=0)
    axes.plot(nan_mean(x, 0), nan_mean(y, 0), linewidth=1.7, **line)


def _over_folds(found: OutOfFold, number: int, curve: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Take a class's curve of each fold at thresholds common to all; (folds, thresholds) each."""
    score = found.probabilities[:, number]
    thresholds = common_thresholds(score)
    curves = [curve(found.labels[f] == number, score[f], thresholds) for f in found.folds()]
    first, second = zip(*curves, strict=True)
    return np.array(first), np.array(second)


def _area(x: np.ndarray, y: np.ndarray) -> str:
    areas = np.trapezoid(y, x, axis=1)
    return f"{nan_mean(areas):.3f} ± {nan_std(areas):.3f}"


def _square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y, aspect="equal")


@styled
def roc(found: OutOfFold) -> Figure:
    """Show one-against-rest ROC curves, mean and standard deviation over folds."""
    figure, (axes, logarithmic) = panels(2, 11.5, 4.4)
    for line, number in enumerate(found.shown):
        false, true = _over_folds(found, number, roc_on_thresholds)
        name = f"{words(found.classes[number])}: {_area(false, true)}"
        for panel in (axes, logarithmic):
            _mean_curve(panel, false, true, -1, label=name, **line_of(line))
    chance = np.geomspace(1e-3, 1, 50)
    for panel in (axes, logarithmic):
        panel.plot(chance, chance, color=GREY, linewidth=1, linestyle="--", label="chance: 0.5")
        _square(panel, "false positive rate", "true positive rate (completeness)")
    logarithmic.set(xscale="log", xlim=(1e-3, 1.05), aspect="auto", box_aspect=1)
    logarithmic.set_xlabel("false positive rate, logarithmic")
    handles = axes.get_legend_handles_labels()
    title = "class: AUC ± std over folds"
    figure.legend(*handles, loc="outside right upper", title=title, alignment="left")
    return figure


@styled
def precision_recall(found: OutOfFold) -> Figure:
    """Show one-against-rest precision-recall curves, mean and standard deviation over folds."""
    figure, (axes,) = panels(1, 7.4, 4.6)
    for line, number in enumerate(found.shown):
        precision, recall = _over_folds(found, number, precision_recall_on_thresholds)
        share = np.mean(found.labels == number)
        name = f"{words(found.classes[number])}: {share:.2f}"
        _mean_curve(axes, recall, precision, 1, label=name, **line_of(line))
        axes.axhline(share, color=line_of(line)["color"], linewidth=0.8, linestyle=":")
    _square(axes, "recall (completeness)", "precision (purity)")
    title = "class: fraction of the objects\n(dotted)"
    figure.legend(loc="outside right upper", title=title, alignment="left")
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
    """Show accuracy against probability of the predicted class, before and after scaling."""
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


def _score_rows(axes: Axes, metrics: Mapping[str, Mapping], score: str) -> None:
    for row, content in enumerate(metrics.values()):
        folds = [fold[score] for fold in content["folds"] if fold[score] is not None]
        axes.plot(folds, [row + 0.22] * len(folds), "|", color=GREY, markersize=7)
        mean, error = content["mean"][score], content["standard_error"][score]
        if mean is None:
            continue
        color = COLOURS[row % len(COLOURS)]
        axes.errorbar(mean, row, xerr=error, fmt="o", color=color, capsize=3)
        text = f"{mean:.3f}" + (f" ± {error:.3f}" if error is not None else "")
        axes.annotate(
            text, (mean, row), (0, 7), textcoords="offset points", ha="center", fontsize=9
        )
    axes.set_title(SCORE_NAMES[score])
    axes.margins(x=0.25)
    axes.xaxis.set_major_locator(MaxNLocator(4))


@styled
def comparison(metrics: Mapping[str, Mapping]) -> Figure:
    """Compare tasks that learn the same labels: mean and standard error over folds.

    Parameters
    ----------
    metrics : mapping
        By task, the content of `metrics/{task}.json`.
    """
    figure, axes = panels(len(SCORE_NAMES), 11, 1.5 + 0.7 * len(metrics), sharey=True)
    for panel, score in zip(axes, SCORE_NAMES, strict=True):
        _score_rows(panel, metrics, score)
    axes[0].set_yticks(range(len(metrics)), [words(task) for task in metrics])
    axes[0].set_ylim(len(metrics) - 0.5, -0.6)
    return figure
