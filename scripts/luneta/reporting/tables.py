"""The tables of the report, as self-contained HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment

from luneta.files import atomic_path
from luneta.reporting.reckoning import FIRST, Group, Reckoning, total
from luneta.reporting.style import words
from luneta.survey.flags import DESCRIPTIONS

HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title><style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem; color: #222; }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem; }
th, td { text-align: left; padding: 0.3rem 0.9rem 0.3rem 0; border-bottom: 1px solid #ddd; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name { overflow-wrap: anywhere; min-width: 6rem; }
td.reason { overflow-wrap: anywhere; min-width: 14rem; }
table.wide { width: 100%; }
td { vertical-align: top; }
h3 { font-size: 1rem; margin: 1.2rem 0 0; }
</style></head><body><h1>{{ title }}</h1>
"""
REJECTS = (
    HEAD
    + """{% macro table(groups, noun) %}
<table><tr><th>flag</th><th>{{ noun }}s</th><th>meaning</th></tr>
{% for name, group in groups.items() %}
<tr><td>{{ name | words }}</td><td class="number">{{ "{:,}".format(group.count) }}</td>
<td>{{ descriptions.get(name, "") }}</td></tr>
{% endfor %}</table>
{% for name, group in groups.items() %}
<h3>{{ name | words }}{% if group.count > first %}: the first {{ first }} of
{{ "{:,}".format(group.count) }}{% endif %}</h3>
<table class="wide"><tr><th>{{ noun }}</th><th>tile</th>{% if noun == "file" %}<th>band</th>
{% endif %}<th>reason</th></tr>
{% for row in group.rows %}
<tr><td class="name">{{ row.name or "" }}</td><td class="name">{{ row.tile or "" }}</td>
{% if noun == "file" %}<td class="name">{{ row.band or "" }}</td>{% endif %}
<td class="reason">{{ row.reason or "no reason given" }}</td></tr>
{% endfor %}</table>
{% endfor %}
{% endmacro %}
<p>{{ count(found.rejected, "object") }} rejected, {{ count(found.usable, "object") }} usable.
{{ count(unusable, "file") }} could not be used. {{ count(found.overlaps, "cutout") }} not used, as
another tile shows the same object better; see <code>catalog/overlaps.parquet</code>.</p>
<h2>Rejected objects</h2>
{% if found.objects %}<p>An object can bear several flags, and is counted with each.</p>
{{ table(found.objects, "object") }}{% else %}<p>No object was rejected.</p>{% endif %}
<h2>Files that could not be used</h2>
{% if unusable %}{{ table(found.unusable_files, "file") }}
{% else %}<p>All files could be used.</p>{% endif %}
{% if found.doubtful_files %}<h2>Files that were used, with doubts</h2>
{{ table(found.doubtful_files, "file") }}{% endif %}
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
<table><tr><th>task</th><th>calibration</th><th>ECE before</th><th>ECE after</th><th>folds</th>
<th>model id</th></tr>
{% for task, content in tasks.items() %}<tr><td>{{ task | words }}</td>
<td class="number">{{ content | calibrated }}</td>
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


def calibrated(content: Mapping[str, Any]) -> str:
    """Name the calibration of `metrics/{task}.json`, with its temperature if it is one number."""
    found = content["calibration"]
    temperature = found["parameters"].get("temperature")
    return found["method"] + ("" if temperature is None else f" {temperature:.3f}")


def _environment() -> Environment:
    environment = Environment(autoescape=True, trim_blocks=True)
    environment.filters |= {"words": words, "measured": measured, "calibrated": calibrated}
    return environment


def _write(path: Path | str, template: str, **content) -> None:
    text = _environment().from_string(template).render(**content)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, which gets an s unless there is one."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _by_count(groups: Mapping[str, Group]) -> dict[str, Group]:
    return dict(sorted(groups.items(), key=lambda item: -item[1].count))


def write_rejects(path: Path | str, found: Reckoning) -> None:
    """Write `rejects.html`: counts by flag, and the first of each."""
    found = replace(found, objects=_by_count(found.objects), files=_by_count(found.files))
    _write(
        path,
        REJECTS,
        title="Rejected objects and files",
        found=found,
        unusable=total(found.unusable_files),
        descriptions={flag.name.lower(): text for flag, text in DESCRIPTIONS.items()},
        count=counted,
        first=FIRST,
    )


def write_scores(path: Path | str, metrics: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `scores.html` from the content of `metrics/{task}.json` by task."""
    names = dict.fromkeys(name for content in metrics.values() for name in content["mean"])
    _write(path, SCORES, title="Scores of the tasks", tasks=metrics, scores=list(names))
