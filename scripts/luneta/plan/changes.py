"""What has changed since the last run, in a line for each reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from luneta.survey.index import read_objects
from luneta.survey.stamp_versions import ABSENT

FILES = ("image", "mask", "weight")
_MOST_NAMES = 5
_MOST_SETTINGS = 20


def changes(old: Mapping, new: Mapping) -> list[str]:
    """Say what differs between two states of a survey, one line for each reason.

    Parameters
    ----------
    old, new : mapping
        `tiles`: of each tile its `shard` and `files`, the fingerprint by "image g", "mask g", ...,
        None for a file that is missing; `lists`: fingerprint of each tile's own source list;
        `config`: the checked config as plain types; `code`: digest of the code of each rule.

    Returns
    -------
    list of str
        Nothing if nothing has changed.
    """
    return [
        *_tile_lines(old["tiles"], new["tiles"]),
        *_file_lines(old["tiles"], new["tiles"]),
        *_list_lines(old["lists"], new["lists"]),
        *_setting_lines(old["config"], new["config"]),
        *_code_lines(old["code"], new["code"]),
    ]


def _named(names: Iterable[str]) -> str:
    """Write out a list of names, a long one in part."""
    names = list(names)
    rest = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def counted(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _tile_lines(old: Mapping, new: Mapping) -> Iterator[str]:
    added = [name for name in new if name not in old]
    removed = [name for name in old if name not in new]
    moved = [n for n in new if n in old and new[n]["shard"] != old[n]["shard"]]
    if added:
        yield f"{counted(len(added), 'new tile')}: {_named(added)}"
    if removed:
        yield f"{counted(len(removed), 'tile')} removed: {_named(removed)}"
    if moved:
        yield f"{counted(len(moved), 'tile')} put into another shard: {_named(moved)}"


def _file_lines(old: Mapping, new: Mapping) -> Iterator[str]:
    """Lines for files that came, went or changed, of tiles that were there before."""
    verbs = {"delivered": [], "gone": [], "changed": []}
    for name in (name for name in new if name in old):
        before, after = old[name]["files"], new[name]["files"]
        if before == after:
            continue
        for key in dict.fromkeys([*before, *after]):
            was, now = before.get(key), after.get(key)
            if was != now:
                verb = "delivered" if was is None else "gone" if now is None else "changed"
                verbs[verb].append((key, name))
    for verb, found in verbs.items():
        for kind in FILES:
            here = [f"{name} ({key.split()[1]})" for key, name in found if key.split()[0] == kind]
            if here:
                yield f"{counted(len(here), kind)} {verb}: {_named(here)}"


def _list_lines(old: Mapping, new: Mapping) -> Iterator[str]:
    changed = [name for name in new if name in old and new[name] != old[name]]
    if changed:
        yield f"{counted(len(changed), 'source list')} changed: {_named(changed)}"


def _flat(section: Mapping, where: str = "") -> dict[str, object]:
    """Settings by dotted key."""
    flat: dict[str, object] = {}
    for key, value in section.items():
        path = f"{where}{key}"
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{path}.")
        else:
            flat[path] = value
    return flat


def _setting_lines(old: Mapping, new: Mapping) -> Iterator[str]:
    before, after = _flat(old), _flat(new)
    changed = [k for k in dict.fromkeys([*after, *before]) if before.get(k) != after.get(k)]
    for key in changed[:_MOST_SETTINGS]:
        yield f"config: {key} = {after.get(key)!r:.60}, was {before.get(key)!r:.60}"
    if len(changed) > _MOST_SETTINGS:
        yield f"config: {counted(len(changed) - _MOST_SETTINGS, 'more setting')}"


def _code_lines(old: Mapping, new: Mapping) -> Iterator[str]:
    changed = [rule for rule in new if rule in old and new[rule] != old[rule]]
    if changed:
        yield f"code changed: {', '.join(changed)}"


def row_changes(old: Path, new: Path) -> list[str]:
    """Say how the rows of a survey-wide list have changed, and files of stamps; a line for each.

    Parameters
    ----------
    old, new : path
        Files as `luneta.survey.index.read_objects` reads them.
    """
    before, after = _rows(old), _rows(new)
    rows = before.add_suffix("_old").join(after.add_suffix("_new"), how="outer")
    added, removed = rows["shard_old"].isna(), rows["shard_new"].isna()
    changed = ~added & ~removed & (rows["content_old"] != rows["content_new"])
    return [*_row_lines(rows, added, changed, removed), *_stamp_lines(rows[~added & ~removed])]


def _row_lines(
    rows: pd.DataFrame, added: pd.Series, changed: pd.Series, removed: pd.Series
) -> Iterator[str]:
    parts = _parts(("added", added.sum()), ("changed", changed.sum()), ("removed", removed.sum()))
    if parts:
        new, old = rows.loc[added | changed, "shard_new"], rows.loc[removed, "shard_old"]
        shards = counted(pd.concat([new, old]).nunique(), "shard")
        yield f"source list: {', '.join(parts)} in {shards}"


def _stamp_lines(rows: pd.DataFrame) -> Iterator[str]:
    """Lines for files of stamps that came, went or changed; one of many objects counts once."""
    if not {"files_old", "files_new"} <= set(rows.columns):
        return
    rows = rows[(rows["files_old"] != rows["files_new"]) & rows["files_old"].notna()]
    found: dict[str, set] = {"delivered": set(), "gone": set(), "changed": set()}
    for row in rows[["files_old", "files_new"]].itertuples():
        before, after = row.files_old.split(" "), row.files_new.split(" ")
        for place, (was, now) in enumerate(zip(before, after, strict=False)):
            verb = "delivered" if was == ABSENT else "gone" if now == ABSENT else "changed"
            if was != now:
                found[verb].add((place, row.Index))
    shared = _shared_places(rows)
    for verb, places in found.items():
        files = {(place, None if place in shared else name) for place, name in places}
        if files:
            shards = counted(rows["shard_new"].nunique(), "shard")
            yield f"{counted(len(files), 'stamp file')} {verb} in {shards}"


def _shared_places(rows: pd.DataFrame) -> set[int]:
    """Find the places at which all objects have the same version: one file holds all stamps."""
    if len(rows) < 2:
        return set()
    columns = zip(*(files.split(" ") for files in rows["files_new"]), strict=False)
    return {
        place
        for place, versions in enumerate(columns)
        if len(set(versions)) == 1 and versions[0] != ABSENT
    }


def _rows(path: Path) -> pd.DataFrame:
    """One row of each object, whatever the number of tiles that hold it."""
    table = read_objects(path)
    columns = {
        "shard": np.asarray(table["shard"].cast("string").to_pylist(), object),
        "content": table["content"].to_numpy(),
    }
    if "files" in table.column_names:
        columns["files"] = np.asarray(table["files"].to_pylist(), object)
    frame = pd.DataFrame(columns, index=table["object_id"].to_pylist())
    return frame[~frame.index.duplicated()]


def _parts(*counts: tuple[str, int]) -> list[str]:
    """Write numbers of rows, those that are not zero; the first one names the thing."""
    some = [(verb, number) for verb, number in counts if number]
    first = [f"{counted(number, 'row')} {verb}" for verb, number in some[:1]]
    return first + [f"{number:,} {verb}" for verb, number in some[1:]]
