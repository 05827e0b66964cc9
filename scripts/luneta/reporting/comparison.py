"""Figures that compare tasks: score by score, and against the number of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from luneta.reporting.networks import Network, label_efficiency
from luneta.reporting.style import BLUE, GREY, line_of, panels, score_name, styled, words

MARKERS = "osD^v"


class Measured(NamedTuple):
    """A score with the reach of its error bar to either side, and what single folds gave."""

    value: float | None
    below: float
    above: float
    folds: list[float]


def over_folds(content: Mapping[str, Any], score: str) -> Measured:
    """Take a score's mean and standard error over folds from `metrics/{task}.json`."""
    folds = [fold[score] for fold in content["folds"] if fold[score] is not None]
    error = content["standard_error"][score] or 0.0
    return Measured(content["mean"][score], error, error, folds)


def on_holdout(content: Mapping[str, Any], score: str) -> Measured:
    """Take a score and its bootstrap interval on the hold-out from `metrics/{task}.json`."""
    value = content["holdout"]["scores"][score]
    low, high = content["holdout"]["intervals"].get(score, (None, None))
    if None in (value, low, high):
        return Measured(value, 0.0, 0.0, [])
    return Measured(value, max(value - low, 0.0), max(high - value, 0.0), [])


def compared_scores(metrics: Mapping[str, Mapping]) -> list[tuple[str, bool]]:
    """Choose the scores to compare tasks by, and whether each is that of the hold-out."""
    if any(content["kind"] != "binary" for content in metrics.values()):
        return [(name, False) for name in ("balanced_accuracy", "macro_f1", "roc_auc")]
    if all(content["holdout"] for content in metrics.values()):
        return [("roc_auc", False), ("roc_auc", True), ("tpr0", True), ("tpr10", True)]
    return [("roc_auc", False), ("tpr0", False), ("tpr10", False)]


def _score_rows(axes: Axes, found: list[Measured]) -> None:
    for row, score in enumerate(found):
        axes.plot(score.folds, [row + 0.24] * len(score.folds), "|", color=GREY, markersize=6)
        if score.value is None:
            continue
        reach = [[score.below], [score.above]]
        axes.errorbar(score.value, row, xerr=reach, fmt="o", color=BLUE, capsize=3, markersize=5)
        text = f"{score.value:.3f}" + (f" ± {score.below:.3f}" if score.folds else "")
        place = {"textcoords": "offset points", "ha": "center", "fontsize": 8.5}
        axes.annotate(text, (score.value, row), (0, 5), **place)
    axes.margins(x=0.22)
    low, high = axes.get_xlim()
    ticks = MaxNLocator(4).tick_values(low, high)
    axes.set_xticks(ticks[(ticks >= max(low, 0)) & (ticks <= min(high, 1))])


@styled
def comparison(metrics: Mapping[str, Mapping]) -> Figure:
    """Compare tasks that learn the same labels: over folds, and on the hold-out if it is binary.

    Parameters
    ----------
    metrics : mapping
        By task, the content of `metrics/{task}.json`.
    """
    scores = compared_scores(metrics)
    width = 2.2 + 3.0 * len(scores)
    figure, axes = panels(len(scores), width, 1.3 + 0.52 * len(metrics), sharey=True)
    for panel, (score, held) in zip(axes, scores, strict=True):
        take = on_holdout if held else over_folds
        _score_rows(panel, [take(content, score) for content in metrics.values()])
        panel.set_title(f"{score_name(score)}, {'hold-out' if held else 'over folds'}")
    axes[0].set_yticks(range(len(metrics)), [words(task) for task in metrics])
    axes[0].set_ylim(len(metrics) - 0.5, -0.7)
    return figure


def _efficiency_line(
    axes: Axes,
    metrics: Mapping[str, Mapping],
    networks: Mapping[str, Network],
    tasks: Sequence[str],
    score: str,
    number: int,
    name: str,
) -> None:
    found = [over_folds(metrics[task], score) for task in tasks]
    axes.errorbar(
        [networks[task].labels for task in tasks],
        [np.nan if one.value is None else one.value for one in found],
        yerr=[one.below for one in found],
        marker=MARKERS[number % len(MARKERS)],
        markersize=5,
        capsize=3,
        label=name,
        **line_of(number),
    )


@styled
def efficiency(metrics: Mapping[str, Mapping], networks: Mapping[str, Network]) -> Figure:
    """Show scores against the number of labels, a line for each backbone and weights.

    Parameters
    ----------
    metrics : mapping
        By task, the content of `metrics/{task}.json`.
    networks : mapping
        By task.
    """
    figure, axes = panels(2, 10.5, 4.6)
    lines = label_efficiency(networks)
    labels = sorted({networks[task].labels for tasks in lines.values() for task in tasks})
    for panel, score in zip(axes, ("balanced_accuracy", "macro_f1"), strict=True):
        for number, (name, tasks) in enumerate(lines.items()):
            _efficiency_line(panel, metrics, networks, tasks, score, number, name)
        panel.set(xscale="log", xlabel="labels learned from, logarithmic", title=score_name(score))
        panel.set_xticks(labels, [f"{count:,}" for count in labels])
        panel.minorticks_off()
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=1)
    return figure
