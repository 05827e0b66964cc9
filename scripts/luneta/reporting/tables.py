"""The tables of the report, as self-contained HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment

from luneta.files import atomic_path
from luneta.printable import printable
from luneta.reporting.reckoning import FIRST, Group, Reckoning, total
from luneta.reporting.style import words
from luneta.survey.flags import DESCRIPTIONS, NOTE

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


def ranged(value: float | None, low: float | None, high: float | None) -> str:
    """Write `value (low to high)`; the value alone if an end is None or NaN, a dash if it is."""
    if value is None or math.isnan(value):
        return "–"
    if any(end is None or math.isnan(end) for end in (low, high)):
        return f"{value:.3f}"
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def interval(content: Mapping[str, Any], score: str) -> str:
    """Write a score as `value (low to high)`, the value alone without interval, a dash if none.

    Parameters
    ----------
    content : mapping
        `scores` and `intervals` of `metrics/{task}.json`, or of its `holdout`.
    score : str
        Name of the score; `roc_auc_delong` is `roc_auc` with the interval of DeLong et al. (1988).
    """
    value = content["scores"].get("roc_auc" if score == "roc_auc_delong" else score)
    ends = content["intervals"].get(score)
    if score == "roc_auc_delong" and ends is None:
        return "–"
    return ranged(value, *(ends or (None, None)))


def shown(value: Any) -> Any:
    """Make text of others show on a page as it is, without what hides or turns it."""
    return printable(value, keep="\n\t") if type(value) is str else value


def _environment() -> Environment:
    environment = Environment(autoescape=True, trim_blocks=True, finalize=shown)
    environment.filters["words"] = words
    return environment


def write_page(path: Path | str, template: str, **content) -> None:
    """Fill a template, text escaped for HTML, and write it."""
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
    write_page(
        path,
        REJECTS,
        title="Rejected objects and files",
        found=found,
        unusable=total(found.unusable_files),
        descriptions={
            **{flag.name.lower(): text for flag, text in DESCRIPTIONS.items()},
            NOTE: "the file departs from its standard, and was used all the same",
        },
        count=counted,
        first=FIRST,
    )
