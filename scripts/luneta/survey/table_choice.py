"""Which table of a file is meant, where it holds several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from luneta.printable import printable
from luneta.survey.images import split_extension
from luneta.survey.remote import is_remote
from luneta.urls import redacted
from luneta.wording import few

MOST_NAMED = 20


class TableError(ValueError):
    """A table that cannot be read, or lacks a column; the message says how to fix it.

    It shows no secret of a URL.
    """

    def __init__(self, reason: str):
        super().__init__(printable(redacted(reason)))


@dataclass(frozen=True)
class Listing:
    """A table in a file, before its rows are read.

    Attributes
    ----------
    keys : tuple of (int or str)
        What it may be called by in brackets; the first one goes into messages.
    names : list of str
        Columns that hold one value a row.
    others : mapping
        Columns that do not, and what they hold.
    number : int
        Where it is in the file, for its reader.
    is_usual : bool
        Whether it may be taken for the table that is meant if none is named.
    pictures : tuple of str
        Those of the others that hold the bytes of a picture in each row.
    """

    keys: tuple[int | str, ...]
    names: list[str]
    others: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    is_usual: bool = True
    pictures: tuple[str, ...] = ()

    def has(self, columns: Sequence[str]) -> bool:
        """Whether it has all of the columns, of whatever kind."""
        return all(name in self.names or name in self.others for name in columns)

    def is_called(self, key: int | str) -> bool:
        """Whether it is meant by what stands in brackets."""
        if isinstance(key, int):
            return key in self.keys
        words = [word.upper() for word in self.keys if isinstance(word, str)]
        return any(fnmatchcase(word, key.strip().upper()) for word in words)

    def __str__(self) -> str:
        """Its keys and first columns."""
        columns = [*self.names, *self.others]
        more = ", ..." if len(columns) > MOST_NAMED else ""
        called = " ".join(f"[{key}]" for key in self.keys) or "the table"
        return f"{called} with {', '.join(columns[:MOST_NAMED])}{more}"


def split_table(name: Path | str) -> tuple[Path | str, int | str | None]:
    """Split `list.fits[2]` into the file and the table that is meant; None if none is named.

    A file whose name does end in brackets is taken by its name.

    Examples
    --------
    >>> split_table("cat.h5[group/stars]")
    (PosixPath('cat.h5'), 'group/stars')
    """
    if isinstance(name, str) and is_remote(name):
        return split_extension(name)
    if Path(name).exists():
        return Path(name), None
    return split_extension(str(name))


def choose(
    tables: Sequence[Listing], key: int | str | None, columns: Sequence[str], path: Path | str
) -> Listing:
    """Find the table that is meant: the one that is named, or the only one with the columns.

    Parameters
    ----------
    key : int, str or None
        What stands in brackets behind the file's name.
    columns : sequence of str
        Columns that are asked for; if none are, the file's first table is meant.

    Raises
    ------
    TableError
        If there is no such table, or several have the columns.
    """
    if not tables:
        raise TableError(f"{path}: the file holds no table")
    if key is not None:
        return _named(tables, key, path)
    usual = [table for table in tables if table.is_usual] or list(tables)
    fitting = [table for table in usual if table.has(columns)]
    if len(fitting) == 1 or len(usual) == 1:
        return (fitting or usual)[0]
    if columns and fitting:
        raise TableError(
            f"{path}: {len(fitting)} of its tables have the columns {', '.join(columns)}: "
            f"{_all(fitting)}. Write which one behind the name, such as "
            f"{path}[{fitting[0].keys[0]}]"
        )
    if columns:
        raise TableError(
            f"{path}: none of its {len(usual)} tables has all of the columns "
            f"{', '.join(columns)}; it holds {_all(usual)}. Correct the columns, or name the table "
            f"as in {path}[{usual[0].keys[0]}]"
        )
    return usual[0]


def _named(tables: Sequence[Listing], key: int | str, path: Path | str) -> Listing:
    meant = [table for table in tables if table.is_called(key)]
    if len(meant) == 1:
        return meant[0]
    if not meant:
        raise TableError(f"{path}: there is no table [{key}]; the file holds {_all(tables)}")
    raise TableError(
        f"{path}: {len(meant)} tables are called [{key}]: {_all(meant)}. Name one by its number"
    )


def _all(tables: Sequence[Listing]) -> str:
    more = f"; and {len(tables) - MOST_NAMED} more" if len(tables) > MOST_NAMED else ""
    return "; ".join(map(str, tables[:MOST_NAMED])) + more


def require(table: Listing, columns: Sequence[str], path: Path | str) -> None:
    """Insist that a table has the columns, and that each has one value a row.

    Raises
    ------
    TableError
        If not; it says what the column holds, or what columns there are.
    """
    refuse_arrays(table, columns, path)
    require_names(table.names, columns, path)


def refuse_arrays(table: Listing, columns: Sequence[str], path: Path | str) -> None:
    """Insist that each of the columns, as far as it is there, has one value a row.

    Raises
    ------
    TableError
        If not; it says what the column holds.
    """
    for name in columns:
        if name in table.others and name not in table.names:
            raise TableError(f"{path}: {not_a_value(name, table.others[name])}")


def not_a_value(name: str, what: str) -> str:
    """Say what a column holds instead of one value a row."""
    return (
        f"the column {name!r} holds {what}, and luneta reads one number or word a row; write what "
        f"you need of it as a column of its own, such as {name}_1"
    )


def require_names(there: Sequence[str], names: Sequence[str], path: Path | str) -> None:
    """Insist on columns that are there, and there once.

    Raises
    ------
    TableError
        If not.
    """
    missing = [name for name in dict.fromkeys(names) if name not in there]
    if missing:
        raise TableError(
            f"{path}: there is no column {', '.join(map(repr, missing))}; the table has "
            f"{few(there)}. Correct the column mapping in the config"
        )
    for name in names:
        if list(there).count(name) > 1:
            raise TableError(f"{path}: two columns are named {name!r}; rename one of them")
