"""The files of a source list: one or several, by name or by pattern, from `root` or from here."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path

from luneta.survey.remote import is_remote
from luneta.survey.table_choice import TableError, split_table

WILD = "*?"


def is_pattern(name: str) -> bool:
    """Whether a name stands for all files that are like it."""
    return not is_remote(name) and any(mark in name for mark in WILD)


def has_one_list(sources: str | Sequence[str] | None) -> bool:
    """Whether the survey has one list, in one file or several, and not one for each tile."""
    return sources is not None and not (isinstance(sources, str) and "{tile}" in sources)


def list_files(given: Mapping) -> list[str]:
    """Find the files of a survey-wide list, each maybe with [TABLE].

    Parameters
    ----------
    given : mapping
        `sources` (a name, or several) and `root` of the config's `input` section.

    Returns
    -------
    list of str
        In the order of the config, of a pattern sorted; each file once.

    Raises
    ------
    TableError
        If a pattern matches nothing, or a name means two files.
    """
    sources = given["sources"]
    names = [sources] if isinstance(sources, str) else sources
    found = [path for name in names for path in located_lists(name, given.get("root") or ".")]
    return list(dict.fromkeys(found))


def list_of_tile(given: Mapping, tile: str) -> str:
    """Find the list that a tile brings.

    Raises
    ------
    TableError
        If a pattern matches no file or several, or a name means two files.
    """
    name = given["sources"].replace("{tile}", tile)
    found = located_lists(name, given.get("root") or ".")
    if len(found) > 1:
        raise TableError(
            f"input.sources = {given['sources']!r}: {len(found)} files are the list of tile "
            f"{tile}: {', '.join(found[:5])}; make the pattern narrower"
        )
    return found[0]


def located_lists(name: str, root: Path | str) -> list[str]:
    """Find the files that a name of the config means.

    A relative name starts in the working folder or, where nothing is there, in `root`; one that
    begins with `./` in the working folder alone.

    Returns
    -------
    list of str
        The name as it stands, if it is no pattern and there is no such file.

    Raises
    ------
    TableError
        If a pattern matches nothing, or there are different files in both folders.
    """
    if is_remote(name):
        return [name]
    places = [name]
    if not Path(name).is_absolute() and not name.startswith("./"):
        places.append(str(Path(root) / name))
    found = [files for place in places if (files := _matches(place))]
    if len(found) == 2 and not _are_same(*found):
        raise TableError(
            f"input.sources = {name!r} means two files, {found[0][0]} and {found[1][0]}: write "
            f"./{name} for that of the working folder, or the whole path of the other"
        )
    if not found and is_pattern(name):
        places = [str(split_table(place)[0]) for place in dict.fromkeys(map(_plain, places))]
        raise TableError(
            f"input.sources = {name!r} matches no file: there is no {' and no '.join(places)}. "
            f"Correct the pattern, or input.root"
        )
    return found[0] if found else [name]


def absent_reason(name: str, root: Path | str) -> str:
    """Say where a list was looked for."""
    path = str(split_table(name)[0])
    other = _plain(str(Path(root) / path))
    there = "" if other == _plain(path) or Path(path).is_absolute() else f", nor is there {other}"
    return f"{path}: there is no such file{there}; correct input.sources, or input.root"


def _plain(name: str) -> str:
    return str(Path(name))


def _matches(name: str) -> list[str]:
    """Files that a name means, with the [TABLE] of the name."""
    file, key = split_table(name)
    table = "" if key is None else name[name.rindex("[") :]
    if not is_pattern(str(file)):
        return [name] if file.exists() else []
    likeness = str(file).replace("[", "[[]")
    found = sorted(glob.iglob(likeness, recursive=True))  # noqa: PTH207 (keeps names as written)
    return [f"{path}{table}" for path in found if Path(path).exists()]


def _are_same(these: Sequence[str], those: Sequence[str]) -> bool:
    paths = ([Path(split_table(name)[0]).resolve() for name in names] for names in (these, those))
    first, second = paths
    return first == second
