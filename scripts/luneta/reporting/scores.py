"""The page of scores of all tasks, as self-contained HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from luneta.metrics.classification import DESCRIPTIONS
from luneta.reporting.challenge import BESIDE, HANGS, HEADER, of_lenses, rows
from luneta.reporting.networks import Network
from luneta.reporting.style import score_name, words
from luneta.reporting.tables import HEAD, calibrated, interval, measured, ranged, write_page

MOST_TASKS = 6  # side by side; more stand one below the other
MOST_SCORES = 10  # side by side, where tasks stand one below the other
SCORES = (
    HEAD
    + """<style>
table.turned td:first-child { white-space: nowrap; }
small { color: #555; }
th { vertical-align: bottom; }
td.text, dd { color: #555; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.2rem 1.5rem; } dd { margin: 0; }
</style>
{% macro table(grids, meanings) %}
{% for grid in grids %}<table{% if grid.turned %} class="turned"{% endif %}>
<tr>{% for name in grid.header %}<th>{{ name }}</th>{% endfor %}
{% if meanings and not grid.turned %}<th>meaning</th>{% endif %}</tr>
{% for row in grid.rows %}<tr><td>{{ row[0] }}</td>
{% for cell in row[1:] %}<td class="number">{% if grid.turned and " " in cell %}
{{ cell.split(" ", 1)[0] }}<br><small>{{ cell.split(" ", 1)[1] }}</small>
{% else %}{{ cell }}{% endif %}</td>{% endfor %}
{% if meanings and not grid.turned %}<td class="text">{{ meanings[row[0]] }}</td>{% endif %}</tr>
{% endfor %}</table>
{% endfor %}
{% endmacro %}
{% if not metrics %}<p>The config asks for no task.</p>{% else %}
<h2>Over the folds</h2>
<p>Mean ± standard error over the folds, on objects that the network did not see.</p>
{{ table(over_folds, meanings) }}
{% if over_folds[0].turned %}<dl>{% for name, meaning in meanings.items() %}
<dt>{{ name }}</dt><dd>{{ meaning }}</dd>{% endfor %}</dl>{% endif %}
<h2>All objects of the folds together</h2>
<p>On the same objects, with 68.3 % bootstrap intervals; that of ROC AUC (DeLong) is after DeLong et
al. (1988). {{ hangs }} ECE has no interval, as resampling raises it.</p>
{{ table(together, none) }}
{% if on_holdout %}<h2>On the hold-out</h2>
<p>All networks of a task together, on objects that no fold saw, with the same intervals.</p>
{{ table(on_holdout, none) }}{% endif %}
{% if published %}<h2>Lens challenge</h2>
<p>{{ beside }}</p>
<table><tr>{% for name in published_header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in published %}<tr><td>{{ row[0] }}</td><td>{{ row[1] }}</td>
{% for cell in row[2:] %}<td class="number">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}
<h2>Each class against the rest</h2>
<p>Area under the ROC curve with its 68.3 % interval after DeLong et al. (1988).</p>
<table><tr><th>task</th><th>class</th><th>objects of the folds</th>
{% if on_holdout %}<th>hold-out</th>{% endif %}</tr>
{% for task, content in metrics.items() %}{% for name, area in content.class_auc.items() %}
<tr><td>{{ task | words }}</td><td>{{ name | words }}</td>
<td class="number">{{ ranged(*area) }}</td>
{% if on_holdout %}<td class="number">{{ ranged(*content.holdout.class_auc[name]) if content.holdout
else "–" }}</td>{% endif %}</tr>
{% endfor %}{% endfor %}</table>
<h2>Networks</h2>
<table><tr><th>task</th><th>backbone</th><th>weights</th><th>parameters</th>
<th>image size (px)</th><th>precision</th><th>epochs, frozen + free</th><th>fraction of labels</th>
<th>labels learned from</th><th>calibration</th></tr>
{% for task, network in networks.items() %}<tr><td>{{ task | words }}</td>
<td>{{ network.backbone }}</td><td class="name">{{ network.weights }}</td>
<td class="number">{{ "{:,}".format(network.parameters) }}</td>
<td class="number">{{ network.image_size }}</td><td>{{ network.precision }}</td>
<td class="number">{{ network.epochs[0] }} + {{ network.epochs[1] }}</td>
<td class="number">{{ "%g" | format(network.label_fraction) }}</td>
<td class="number">{{ "{:,}".format(network.labels) }}</td>
<td>{{ calibrated(metrics[task]) }}</td></tr>
{% endfor %}</table>
<p>Parameters and labels are those of fold 0.</p>
<h2>Calibration error</h2>
<table><tr><th>task</th><th>ECE before</th><th>ECE after</th><th>folds</th><th>model id</th></tr>
{% for task, content in metrics.items() %}<tr><td>{{ task | words }}</td>
<td class="number">{{ "%.4f" | format(content.ece_before) }}</td>
<td class="number">{{ "%.4f" | format(content.ece_after) }}</td>
<td class="number">{{ content.folds | length }}</td>
<td class="name"><code>{{ content.model_id[:16] }}</code></td></tr>
{% endfor %}</table>{% endif %}</body></html>
"""
)


@dataclass(frozen=True)
class Grid:
    """A table of scores: a row per score and a column per task, or `turned` the other way."""

    header: list[str]
    rows: list[list[str]]
    turned: bool


def grids(
    contents: Mapping[str, Mapping[str, Any]],
    scores: Sequence[str],
    cell: Callable[[Mapping[str, Any], str], str],
) -> list[Grid]:
    """Lay scores out in one table, or in several with a row for each task if tasks are many.

    Parameters
    ----------
    contents : mapping
        What `cell` reads, by task.
    scores : sequence of str
        Names of the scores.
    cell : callable
        Writes a score of a task.
    """
    if len(contents) <= MOST_TASKS:
        rows = [
            [score_name(name), *(cell(content, name) for content in contents.values())]
            for name in scores
        ]
        return [Grid(["score", *map(words, contents)], rows, turned=False)]
    parts = np.array_split(list(scores), -(-len(scores) // MOST_SCORES))
    return [
        Grid(
            ["task", *map(score_name, part)],
            [[words(task), *(cell(content, name) for name in part)]
             for task, content in contents.items()],
            turned=True,
        )
        for part in parts
    ]  # fmt: skip


def _counted(content: Mapping[str, Any], name: str) -> str:
    return f"{content['count']:,}" if name == "objects" else interval(content, name)


def _names(contents: Mapping[str, Mapping[str, Any]], *keys: str) -> list[str]:
    """Names of all scores of any task, in the order of `DESCRIPTIONS`."""
    found = {name for content in contents.values() for key in keys for name in content[key]}
    return [name for name in DESCRIPTIONS if name in found]


def write_scores(
    path: Path | str, metrics: Mapping[str, Mapping[str, Any]], networks: Mapping[str, Network]
) -> None:
    """Write `scores.html`.

    Parameters
    ----------
    path : path
        Of the page.
    metrics : mapping
        By task, the content of `metrics/{task}.json`.
    networks : mapping
        By task.
    """
    held = {task: content["holdout"] for task, content in metrics.items() if content["holdout"]}
    names, known = _names(metrics, "mean"), ("scores", "intervals")
    write_page(
        path,
        SCORES,
        title="Scores of the tasks",
        metrics=metrics,
        networks=networks,
        over_folds=grids(metrics, names, measured),
        together=grids(metrics, ["objects", *_names(metrics, *known)], _counted),
        on_holdout=grids(held, ["objects", *_names(held, *known)], _counted) if held else [],
        hangs=HANGS if "tpr0" in names else "",
        beside=BESIDE,
        published=rows() if of_lenses(metrics) else [],
        published_header=HEADER,
        meanings={score_name(name): DESCRIPTIONS[name] for name in names},
        calibrated=calibrated,
        ranged=ranged,
    )
