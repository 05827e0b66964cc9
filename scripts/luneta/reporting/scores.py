"""The page of scores of all tasks, as self-contained HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luneta.metrics.classification import DESCRIPTIONS
from luneta.reporting.networks import Network
from luneta.reporting.style import words
from luneta.reporting.tables import HEAD, calibrated, interval, measured, write_page

MOST_COLUMNS = 6  # tasks side by side; more stand one below the other
SCORES = (
    HEAD
    + """<style>
table.turned td.number { white-space: normal; }
td.text { max-width: 30rem; color: #555; }
th { vertical-align: bottom; }
dt { font-weight: 600; } dd { margin: 0 0 0.2rem 1.5rem; color: #555; }
</style>
{% macro table(grid) %}
<table{% if grid.turned %} class="turned"{% endif %}>
<tr>{% for name in grid.header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in grid.rows %}<tr><td>{{ row[0] }}</td>
{% for cell in row[1:] %}<td class="number">{{ cell }}</td>{% endfor %}
{% if not grid.turned %}<td class="text">{{ grid.meanings[loop.index0] }}</td>{% endif %}</tr>
{% endfor %}</table>
{% if grid.turned %}<dl>{% for name, meaning in grid.described %}
<dt>{{ name }}</dt><dd>{{ meaning }}</dd>{% endfor %}</dl>{% endif %}
{% endmacro %}
{% if not metrics %}<p>The config asks for no task.</p>{% else %}
<h2>Over the folds</h2>
<p>Mean ± standard error over the folds, on objects that the network did not see.</p>
{{ table(over_folds) }}
{% if on_holdout %}<h2>On the hold-out</h2>
<p>All networks of a task together, on objects that no fold saw, with the 68.3 % interval of 1000
bootstrap draws:
{% for task, count in counts.items() %}{{ task | words }} on {{ "{:,}".format(count) }}
objects{{ "." if loop.last else ", " }}
{% endfor %}</p>
{{ table(on_holdout) }}{% endif %}
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
    described: list[tuple[str, str]]
    turned: bool

    @property
    def meanings(self) -> list[str]:
        """What each score is, in the order of the scores."""
        return [meaning for _, meaning in self.described]


def grid(
    contents: Mapping[str, Mapping[str, Any]],
    scores: Sequence[str],
    cell: Callable[[Mapping[str, Any], str], str],
) -> Grid:
    """Lay scores out in a table: a row for each, or a row for each task if they are many.

    Parameters
    ----------
    contents : mapping
        What `cell` reads, by task.
    scores : sequence of str
        Names of the scores.
    cell : callable
        Writes a score of a task.
    """
    described = [(words(name), DESCRIPTIONS.get(name, "")) for name in scores]
    columns = [[words(task), *(cell(content, name) for name in scores)]
               for task, content in contents.items()]  # fmt: skip
    names = [name for name, _ in described]
    if len(columns) > MOST_COLUMNS:
        return Grid(["task", *names], columns, described, turned=True)
    rows = [list(row) for row in zip(["score", *names], *columns, strict=True)]
    return Grid([*rows[0], "meaning"], rows[1:], described, turned=False)


def _names(contents: Mapping[str, Mapping[str, Any]], key: str) -> list[str]:
    """Names of all scores of any task, in the order of `DESCRIPTIONS`."""
    found = {name for content in contents.values() for name in content[key]}
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
    write_page(
        path,
        SCORES,
        title="Scores of the tasks",
        metrics=metrics,
        networks=networks,
        over_folds=grid(metrics, _names(metrics, "mean"), measured),
        on_holdout=grid(held, _names(held, "intervals"), interval) if held else None,
        counts={task: content["count"] for task, content in held.items()},
        calibrated=calibrated,
    )
