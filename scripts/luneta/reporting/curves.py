"""Figures of ROC and precision-recall curves over folds."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from luneta.metrics.arithmetic import nan_mean, nan_quantile, nan_std
from luneta.metrics.curves import (
    BAND,
    Band,
    common_thresholds,
    over_folds,
    precision_recall_on_thresholds,
    roc_over_folds,
)
from luneta.metrics.delong import class_areas
from luneta.metrics.ranking import area_under_roc, ranked
from luneta.reporting.predictions import OutOfFold
from luneta.reporting.style import GREY, line_of, panels, styled, words
from luneta.reporting.tables import ranged

LEAST_RATE = 1e-3
CHALLENGE = (("TPR0", 1, "<"), ("TPR10", 10, "D"))
MEAN_TITLE = "Mean and standard deviation over folds"
MEDIAN_TITLE = "Median and 15.87 to 84.13 % of the folds"


def _ends(band: Band, quantiles: bool) -> tuple[np.ndarray, np.ndarray]:
    """Give the lower and the upper end of a band, within 0 to 1."""
    if quantiles:
        return band.low, band.high
    return np.clip(band.mean - band.std, 0, 1), np.clip(band.mean + band.std, 0, 1)


def _curve(axes: Axes, x: Band, y: Band, better: int, quantiles: bool, **line) -> None:
    """Draw a curve over folds with its band, both taken at each threshold.

    Parameters
    ----------
    axes : matplotlib.axes.Axes
        Where to draw.
    x, y : Band
        Of shape (thresholds,).
    better : {-1, 1}
        Whether a smaller or a larger x is better.
    quantiles : bool
        Draw the median and its quantiles, not the mean and its standard deviation.
    line
        For `Axes.plot`.
    """
    (x_low, x_high), (y_low, y_high) = _ends(x, quantiles), _ends(y, quantiles)
    good, bad = (x_high, x_low) if better > 0 else (x_low, x_high)
    upper, lower = np.stack([good, y_high]), np.stack([bad, y_low])
    keep = np.isfinite(upper + lower).all(axis=0)
    outline = np.concatenate([upper[:, keep], lower[:, keep][:, ::-1]], axis=1)
    axes.fill(*outline, color=line["color"], alpha=0.18, linewidth=0)
    middle = (x.median, y.median) if quantiles else (x.mean, y.mean)
    axes.plot(*middle, linewidth=1.7, **line)


def _square(axes: Axes, x: str, y: str) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel=x, ylabel=y, aspect="equal")


def _of_class(found: OutOfFold, number: int) -> tuple[np.ndarray, np.ndarray]:
    return found.labels == number, found.probabilities[:, number]


def areas(found: OutOfFold, number: int) -> np.ndarray:
    """Area under the ROC curve of a class against the rest in each fold, shape (folds,)."""
    positive, score = _of_class(found, number)
    return np.array([area_under_roc(ranked(positive[f], score[f])) for f in found.folds()])


def told_areas(found: OutOfFold, number: int) -> str:
    """Write a class's AUC: mean ± standard deviation; median (15.87 to 84.13 %) over folds."""
    values = areas(found, number)
    low, median, high = nan_quantile(values[:, None], [BAND[0], 0.5, BAND[1]])[:, 0]
    mean = f"{nan_mean(values):.3f} ± {nan_std(values):.3f}"
    return f"{mean}; {median:.3f} ({low:.3f} to {high:.3f})"


def first_false_positives(found: OutOfFold) -> dict[str, tuple[float, float]]:
    """Give the points TPR0 and TPR10 of a binary task, over all objects out of fold.

    Returns
    -------
    dict
        By name, false and true positive rate, at the lowest threshold with no false positive and
        with at most nine (Metcalf et al. 2019, A&A 625, A119). Empty where a class has no object.
    """
    ranking = ranked(*_of_class(found, 1))
    if not (ranking.positives and ranking.negatives):
        return {}
    points = {}
    for name, limit, _ in CHALLENGE:
        last = int(np.sum(ranking.false < limit)) - 1
        false, true = ranking.false[last], ranking.true[last]
        points[name] = (float(false / ranking.negatives), float(true / ranking.positives))
    return points


def _mark(axes: Axes, found: OutOfFold) -> None:
    """Mark TPR0 and TPR10 on the logarithmic axis; a rate of zero stands at its left end."""
    negatives = np.sum(found.labels == 0)
    left = min(LEAST_RATE, 10.0 ** np.floor(-np.log10(max(negatives, 1))))
    axes.set_xlim(left, 1.05)
    points, markers = first_false_positives(found), {name: m for name, _, m in CHALLENGE}
    for name, (false, true) in points.items():
        style = {"color": "black", "linestyle": "none", "markersize": 7, "clip_on": False}
        label = f"{name}, all folds together: {true:.3f}"
        axes.plot(max(false, left), true, marker=markers[name], label=label, zorder=5, **style)


@styled
def roc(found: OutOfFold) -> Figure:
    """Show one-against-rest ROC curves: mean, median, and median on a logarithmic axis."""
    rows = len(found.shown) + (3 if found.kind == "binary" else 1)
    figure, axes = panels(3, 14, 5.0 + 0.22 * (-(-rows // 2)))
    together = class_areas(found.labels, found.probabilities)
    for line, number in enumerate(found.shown):
        false, true = roc_over_folds(*_of_class(found, number), found.fold)
        name = f"{words(found.classes[number])}: {told_areas(found, number)}"
        name += f"; {ranged(*together[number])}"
        for panel, quantiles in zip(axes, (False, True, True), strict=True):
            _curve(panel, false, true, -1, quantiles, label=name, **line_of(line))
    chance = np.geomspace(1e-6, 1, 80)
    for panel in axes:
        panel.plot(chance, chance, color=GREY, linewidth=1, linestyle="--", label="chance: 0.5")
        _square(panel, "false positive rate", "true positive rate (completeness)")
    axes[0].set_title(MEAN_TITLE)
    axes[1].set_title(MEDIAN_TITLE)
    logarithmic = axes[2]
    logarithmic.set(xscale="log", xlim=(LEAST_RATE, 1.05), aspect="auto", box_aspect=1)
    logarithmic.set(xlabel="false positive rate, logarithmic", title="The same, logarithmic")
    if found.kind == "binary":
        _mark(logarithmic, found)
    title = (
        "class: AUC over folds, mean ± standard deviation; median (15.87 to 84.13 %); "
        "of all objects (68.3 % interval after DeLong)"
    )
    handles = logarithmic.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, title=title)
    return figure


@styled
def precision_recall(found: OutOfFold) -> Figure:
    """Show one-against-rest precision-recall curves: mean and median over folds."""
    figure, axes = panels(2, 12.5, 4.9)
    for line, number in enumerate(found.shown):
        positive, score = _of_class(found, number)
        thresholds = common_thresholds(score)
        curves = [
            precision_recall_on_thresholds(positive[f], score[f], thresholds) for f in found.folds()
        ]
        precision, recall = (over_folds(values) for values in zip(*curves, strict=True))
        share = np.mean(positive)
        name = f"{words(found.classes[number])}: {share:.2f}"
        for panel, quantiles in zip(axes, (False, True), strict=True):
            _curve(panel, recall, precision, 1, quantiles, label=name, **line_of(line))
            panel.axhline(share, color=line_of(line)["color"], linewidth=0.8, linestyle=":")
    for panel, title in zip(axes, (MEAN_TITLE, MEDIAN_TITLE), strict=True):
        _square(panel, "recall (completeness)", "precision (purity)")
        panel.set_title(title)
    title = "class: fraction of the objects\n(dotted)"
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right upper", title=title, alignment="left")
    return figure
