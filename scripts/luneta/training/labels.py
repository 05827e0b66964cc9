"""Label tables: the class of each object, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from luneta.config import ConfigError, Question
from luneta.survey.ids import loose
from luneta.wording import few

FEW = 5


class OtherSpelling(ConfigError):
    """Labels that name the survey's objects, spelt otherwise."""


@dataclass(frozen=True)
class Labels:
    """What the label tables of a task say.

    Attributes
    ----------
    classes : dict
        Class by object name, in order of first appearance.
    groups : dict
        Value of `training.group_column` by object name, where there is one.
    conflicting : list of str
        Objects labelled with two classes; they are left out of `classes`.
    counts : collections.Counter
        Rows `without_label` and `ignored`, objects `conflicting`.
    """

    classes: dict[str, str]
    groups: dict[str, str]
    conflicting: list[str]
    counts: Counter[str]


def class_of_value(task: Question) -> dict[str, str | None]:
    """Map each allowed label to its class, ignored ones to None."""
    allowed: dict[str, str | None] = dict.fromkeys(task.ignore)
    for name, values in task.merge.items():
        allowed.update(dict.fromkeys(values, name))
    return {**allowed, **{name: name for name in task.classes}}


def first_few(names: Iterable[str]) -> str:
    """Write the first names of a list, and dots where there are more."""
    names = list(names)
    return ", ".join(map(repr, names[:FEW])) + (", ..." if len(names) > FEW else "")


def _column(table: pa.Table, name: str, key: str, path: Path | str) -> list[str]:
    from luneta.survey.tables import text

    if name not in table.column_names:
        raise ConfigError(
            f"{key} = {name!r}: {path} has no such column; it has "
            f"{few(map(repr, table.column_names))}"
        )
    return text(table[name]).tolist()


def _rows(path: Path | str, task: Question) -> Iterator[tuple[str, str, str]]:
    """Give name, label and group of each row; what is missing is empty."""
    from luneta.survey.tables import read_table

    keys = {"id_column": task.id_column, "label_column": task.label_column}
    if task.training.group_column is not None:
        keys["training.group_column"] = task.training.group_column
    table = read_table(path, text_columns=list(keys.values()))
    columns = [_column(table, name, key, path) for key, name in keys.items()]
    if task.training.group_column is None:
        columns.append([""] * len(table))
    return zip(*columns, strict=True)


def read_labels(paths: Sequence[Path | str], task: Question) -> Labels:
    """Read the label tables of a task.

    Raises
    ------
    ConfigError
        If a column is missing, a label is none of the task's, or an object is in two groups.
    """
    allowed = class_of_value(task)
    found: dict[str, set[str]] = {}
    groups: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for path in paths:
        for name, value, group in _rows(path, task):
            if not name or not value:
                counts["without_label"] += 1
            elif value not in allowed:
                raise _unknown_label(path, name, value, allowed)
            elif (label := allowed[value]) is None:
                counts["ignored"] += 1
            else:
                found.setdefault(name, set()).add(label)
                if groups.setdefault(name, group) != group:
                    raise _two_groups(path, name, [groups[name], group], task)
    conflicting = [name for name, labels in found.items() if len(labels) > 1]
    counts["conflicting"] = len(conflicting)
    classes = {name: min(labels) for name, labels in found.items() if len(labels) == 1}
    return Labels(classes, {n: g for n, g in groups.items() if g}, conflicting, counts)


def _unknown_label(path: Path | str, name: str, value: str, allowed: Iterable[str]) -> ConfigError:
    return ConfigError(
        f"{path}: label {value!r} of object {name!r} is not allowed; allowed are "
        f"{few(map(repr, sorted(allowed)))}. Add it to classes, merge or ignore of the task"
    )


def _two_groups(path: Path | str, name: str, groups: list[str], task: Question) -> ConfigError:
    return ConfigError(
        f"{path}: object {name!r} is in two groups: training.group_column = "
        f"{task.training.group_column!r} is {groups[0]!r} in one row and {groups[1]!r} in another. "
        "Its group decides its fold: give it the same in all rows"
    )


def check_found(
    labelled: Collection[str], cutouts: Collection[str] | pa.ChunkedArray, task: Question
) -> str | None:
    """Refuse labels whose names are not those of the survey.

    A label table of which the survey covers a small part is not among these, so that most labels
    may lack a cutout; but not all, and not for the spelling of their names.

    Parameters
    ----------
    labelled : collection of str
        Names in the label tables.
    cutouts : collection of str, or pyarrow.ChunkedArray
        Names in the survey.

    Returns
    -------
    str or None
        A warning, where more than half have no cutout, or a few are spelt otherwise.

    Raises
    ------
    OtherSpelling
        If one in a hundred has a cutout by another spelling only: leading zeros, capitals, blanks,
        or decimals.
    ConfigError
        If none has a cutout.
    """
    names, known = _names(labelled), _names(cutouts)
    absent = names.filter(pc.invert(pc.is_in(names, known)))
    if not len(absent):
        return None
    alike = spelt_otherwise(absent, names, known)
    problem = (
        f"id_column = {task.id_column!r}: {len(absent)} of {len(names)} labelled objects have "
        f"no cutout; the label tables name {first_few(absent[: FEW + 1].to_pylist())}, the survey "
        f"{first_few(known[: FEW + 1].to_pylist()) or 'none of them'}"
    )
    if len(alike):
        problem += f" ({len(alike)} differ in zeros, capitals, blanks or decimals alone)"
    if len(absent) < len(names) and 100 * len(alike) < len(names):
        return problem if len(alike) or 2 * len(absent) > len(names) else None
    refusal = OtherSpelling if len(alike) else ConfigError
    raise refusal(
        f"{problem}. Name the column of the label tables that holds the survey's object_id, and "
        "spell the names as there"
    )


def spelt_otherwise(absent: pa.Array, names: pa.Array, known: pa.Array) -> pa.Array:
    """Choose the absent names that name an object of the survey by another spelling.

    Parameters
    ----------
    absent, names : pyarrow.Array
        Names that the survey does not have, and all names, of the label tables.
    known : pyarrow.Array
        Names in the survey.
    """
    free = known.filter(pc.invert(pc.is_in(known, names)))
    return absent.filter(pc.is_in(loose(absent), loose(free)))


def _names(names: Collection[str] | pa.ChunkedArray) -> pa.Array:
    if isinstance(names, pa.ChunkedArray):
        return names.combine_chunks()
    return pa.array(list(names), pa.string())
