"""The tables of the report, as self-contained HTML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment

from luneta.files import atomic_path
from luneta.reporting.style import words

FIRST = 10
HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #222; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; }
th, td { text-align: left; padding: 0.3rem 0.9rem 0.3rem 0; border-bottom: 1px solid #ddd; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name { word-break: break-all; }
</style></head><body><h1>{{ title }}</h1>
"""
REJECTS = (
    HEAD
    + """{% if not kinds %}<p>Nothing was rejected.</p>{% endif %}
{% for kind, groups in kinds.items() %}
<h2>{{ groups.values() | sum(attribute="count") }} rejected {{ kind }}s</h2>
<table><tr><th>count</th><th>reason</th></tr>
{% for reason, group in groups.items() %}
<tr><td class="number">{{ group.count }}</td><td>{{ reason }}</td></tr>
{% endfor %}</table>
<p>The first {{ first }} of each reason:</p>
<table><tr><th>{{ kind }}</th><th>tile</th><th>band</th><th>reason</th></tr>
{% for reason, group in groups.items() %}{% for row in group.rows %}
<tr><td class="name">{{ row.name }}</td><td>{{ row.tile or "" }}</td><td>{{ row.band or "" }}</td>
<td>{{ reason }}</td></tr>
{% endfor %}{% endfor %}</table>
{% endfor %}
<p>All of them are in <code>catalog/rejects.parquet</code>.</p></body></html>
"""
)
SCORES = (
    HEAD
    + """{% if not tasks %}<p>The config asks for no task.</p>{% else %}
<p>Mean and standard error over the folds, on objects that the network did not see.</p>
<table><tr><th>task</th>{% for score in scores %}<th>{{ score | words }}</th>{% endfor %}</tr>
{% for task, content in tasks.items() %}<tr><td>{{ task | words }}</td>
{% for score in scores %}<td class="number">{{ content | measured(score) }}</td>{% endfor %}</tr>
{% endfor %}</table>
<h2>Calibration</h2>
<table><tr><th>task</th><th>temperature</th><th>ECE before</th><th>ECE after</th><th>folds</th>
<th>model id</th></tr>
{% for task, content in tasks.items() %}<tr><td>{{ task | words }}</td>
<td class="number">{{ "%.3f" | format(content.temperature) }}</td>
<td class="number">{{ "%.4f" | format(content.ece_before) }}</td>
<td class="number">{{ "%.4f" | format(content.ece_after) }}</td>
<td class="number">{{ content.folds | length }}</td>
<td class="name"><code>{{ content.model_id[:16] }}</code></td></tr>
{% endfor %}</table>{% endif %}</body></html>
"""
)


def measured(content: Mapping[str, Any], score: str, digits: int = 3) -> str:
    """Write a score as `mean ± standard error`; a dash where there is none.

    Parameters
    ----------
    content : mapping
        Of `metrics/{task}.json`.
    score : str
        Name of the score.
    digits : int, optional
        Decimal places.
    """
    mean = content["mean"].get(score)
    if mean is None:
        return "–"
    error = content["standard_error"].get(score)
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")


def _environment() -> Environment:
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters |= {"words": words, "measured": measured}
    return environment


def _write(path: Path | str, template: str, **content) -> None:
    text = _environment().from_string(template).render(**content)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def group_rejects(rejects: pa.Table) -> dict[str, dict[str, dict[str, Any]]]:
    """Group rejects by kind and reason: how many, and the first rows; common reasons first."""
    kinds: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rejects.to_pylist():
        reasons = kinds.setdefault(row["kind"], {})
        group = reasons.setdefault(row["reason"] or "no reason given", {"count": 0, "rows": []})
        group["count"] += 1
        if len(group["rows"]) < FIRST:
            group["rows"].append(row)
    return {
        kind: dict(sorted(reasons.items(), key=lambda item: -item[1]["count"]))
        for kind, reasons in kinds.items()
    }


def write_rejects(path: Path | str, rejects: pa.Table) -> None:
    """Write `rejects.html`: counts by reason, and the first of each."""
    _write(
        path, REJECTS, title="Rejected objects and files", kinds=group_rejects(rejects), first=FIRST
    )


def write_scores(path: Path | str, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `scores.html` from the content of `metrics/{task}.json` by task."""
    names = dict.fromkeys(name for content in metrics.values() for name in content["mean"])
    _write(path, SCORES, title="Scores of the tasks", tasks=metrics, scores=list(names))
