"""Names of objects: from a column, or put together from several."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

import numpy as np
import pyarrow as pa

from luneta.survey.ids import rounded
from luneta.survey.table_choice import TableError
from luneta.survey.tables import is_text, text

FIELD = re.compile(r"{([^{}]+)}")
# A number, a sign or a kind of number is asked for, so that a column such as `a:b` can be named.
FORM = re.compile(
    r"(?P<name>.+):(?P<form>(?=.*[\d+]|[dfeEgGF]$)"
    r"[<>=^]?[+\- ]?0?\d*[,_]?(?:\.\d+)?[dfeEgGFs]?)"
)
NUMBERS = "dfeEgGF"
WIDTH = re.compile(r"[<>=^]?(?P<sign>[+\- ]?)(?P<zero>0?)\d*(?P<thousands>[,_]?)")
WHOLE = re.compile(r"[+-]?[0-9]+")
WHOLE_AS_NUMBERS_ARE = re.compile(r"-?(0|[1-9][0-9]*)")
LARGEST_EXACT = 2**53  # of whole numbers as float64


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


def _whole_parts_of(mapping: str) -> list[str]:
    """Name those of the columns whose digits are all written out: text and whole numbers."""
    return [name for name, form in _fields(mapping) if form[-1:] not in "feEgGF" or _is_whole(form)]


def _is_whole(form: str) -> bool:
    return not form or form.endswith((".0f", ".0F"))


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
    for name in _whole_parts_of(mapping):
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
        values = _as_whole_numbers(values, form)
        return np.array([_written(value, form) for value in values], object)
    except (ValueError, TypeError) as error:
        raise TableError(
            f"input.columns.object_id: column {name!r} cannot be written as {{{name}:{form}}}: "
            f"{error}"
        ) from None


def _as_whole_numbers(values: Sequence, form: str) -> list:
    """Take what a form without a kind pads, such as `05`, as whole numbers if all values are.

    Raises
    ------
    ValueError
        If words would be filled with zeros behind, by which 7 and 70 become one.
    """
    match = WIDTH.fullmatch(form)
    if match is None:
        return list(values)
    is_number = any(match.groups())
    pattern = WHOLE if is_number else WHOLE_AS_NUMBERS_ARE  # 007 stays as it is, if it can
    odd = next((v for v in values if not _is_missing(v) and not _is_one(v, pattern)), None)
    if odd is None:
        return [v if _is_missing(v) else int(v) for v in values]
    if is_number and isinstance(odd, str):
        raise ValueError(f"{odd!r} is no whole number; leave the format out")
    return list(values)


def _is_missing(value) -> bool:
    return value is None or value == "" or value != value


def _is_one(value, pattern: re.Pattern) -> bool:
    """Whether a value is a whole number, or text that is."""
    if isinstance(value, str):
        return pattern.fullmatch(value) is not None
    return float(value).is_integer()


def _written(value, form: str) -> str:
    if _is_missing(value):
        return ""
    if isinstance(value, str) and form[-1] in NUMBERS:
        value = _number(value)
    if form[-1] == "d" and float(value).is_integer():
        value = int(value)
    if form[-1] in "fF" and isinstance(value, int) and abs(value) >= LARGEST_EXACT:
        value = Decimal(value)
    return format(value, form)


def _number(word: str) -> int | float:
    """Read a number; a whole one with all of its digits."""
    if WHOLE.fullmatch(word):
        return int(word)
    if "_" in word:  # which Python would take for 1000 in 1_000
        raise ValueError(f"could not convert {word!r} to a number")
    return float(word)
