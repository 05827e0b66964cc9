"""Names of objects: from a column, or put together from several."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from luneta.survey.ids import rounded
from luneta.survey.table_choice import TableError
from luneta.survey.tables import is_text, text

FIELD = re.compile(r"{([^{}]+)}")
# A number or a sign is asked for, so that a column such as `a:b` can be named.
FORM = re.compile(
    r"(?P<name>.+):(?P<form>(?=.*[\d+])[<>=^]?[+\- ]?0?\d*[,_]?(?:\.\d+)?[dfeEgGFs]?)"
)
NUMBERS = "dfeEgGF"


def _split(field: str) -> tuple[str, str]:
    """Column and format of what stands in braces."""
    match = FORM.fullmatch(field)
    return (match["name"], match["form"]) if match else (field, "")


def _fields(mapping: str) -> list[tuple[str, str]]:
    """Columns and formats of a mapping; of a plain column no format."""
    return [_split(field) for field in FIELD.findall(mapping)] or [(mapping, "")]


def parts_of(mapping: str) -> list[str]:
    """Name the columns that a mapping such as `{brickname}-{objid}` is made of.

    Examples
    --------
    >>> parts_of("{brickname}-{objid}"), parts_of("G{l:.4f}{b:+.4f}"), parts_of("ID")
    (['brickname', 'objid'], ['l', 'b'], ['ID'])
    """
    return [name for name, _ in _fields(mapping)]


def text_parts_of(mapping: str | None) -> list[str]:
    """Name those of the columns that are read as text: all that are not formatted as numbers."""
    fields = [] if mapping is None else _fields(mapping)
    return [name for name, form in fields if form[-1:] not in NUMBERS or not form]


def object_names(table: pa.Table, mapping: str) -> np.ndarray:
    """Read the objects' names from a column, or put them together from several.

    Parameters
    ----------
    mapping : str
        A column, or a template such as `{brickname}-{objid}` or, with Python's formats,
        `G{l:.4f}{b:+.4f}`; a row that lacks a part has no name.

    Returns
    -------
    numpy.ndarray
        Shape (objects,), object; empty where there is no name.

    Raises
    ------
    TableError
        If a value cannot be written in the format, or if the names were rounded as numbers, so that
        several objects may share one.
    """
    for name in text_parts_of(mapping):
        if (problem := rounded(table[name], name)) is not None:
            raise TableError(problem)
    if not FIELD.search(mapping):
        return text(table[mapping])
    whole, lacking = np.full(len(table), "", object), np.zeros(len(table), bool)
    for literal, part in _pieces(table, mapping):
        whole = whole + literal
        if part is not None:
            lacking |= part == ""
            whole = whole + part
    return np.where(lacking, "", whole)


def _pieces(table: pa.Table, mapping: str) -> Iterator[tuple[str, np.ndarray | None]]:
    """Go through a template: what stands before a column, and the column as text."""
    end = 0
    for match in FIELD.finditer(mapping):
        name, form = _split(match[1])
        column = table[name]
        part = _formatted(column, name, form) if form else text(column)
        yield mapping[end : match.start()], part
        end = match.end()
    yield mapping[end:], None


def _formatted(column: pa.ChunkedArray, name: str, form: str) -> np.ndarray:
    """Write the values of a column by a format; empty where there is none."""
    values = text(column).tolist() if is_text(column) else column.to_pylist()
    try:
        return np.array([_written(value, form) for value in values], object)
    except (ValueError, TypeError) as error:
        raise TableError(
            f"input.columns.object_id: column {name!r} cannot be written as {{{name}:{form}}}: "
            f"{error}"
        ) from None


def _written(value, form: str) -> str:
    if value is None or value == "" or value != value:
        return ""
    if isinstance(value, str) and form[-1] in NUMBERS:
        value = float(value)
    if form[-1] == "d" and float(value).is_integer():
        value = int(value)
    return format(value, form)
