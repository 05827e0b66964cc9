"""Numbers and lists of things in messages."""

from __future__ import annotations

from collections.abc import Iterable

MOST_NAMED = 20  # names in a message


def few(names: Iterable[object], most: int = MOST_NAMED, between: str = ", ") -> str:
    """Write the first of some names, and how many more there are.

    Examples
    --------
    >>> few(["a", "b", "c"], 2)
    'a, b and 1 more'
    >>> few(["a", "b", "c"], 2, "; ")
    'a; b; and 1 more'
    """
    names = [str(name) for name in names]
    more = len(names) - most
    before = " " if between == ", " else between
    return between.join(names[:most]) + (f"{before}and {more:,} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> counted(1, "file"), counted(2000, "file")
    ('1 file', '2,000 files')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
