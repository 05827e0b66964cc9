"""What has changed since the last run, in a line for each reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from luneta.digests import digest
from luneta.survey.index import read_objects
from luneta.survey.stamp_versions import ABSENT
from luneta.wording import counted, few

FILES = ("image", "mask", "weight")
NOT_WATCHED = "not watched"  # in place of the fingerprint of a file
ALL_AGAIN = "all is cut, trained and predicted again"
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
        *_task_lines(old["config"], new["config"]),
        *_band_lines(old["config"], new["config"]),
        *_setting_lines(old["config"], new["config"]),
        *_code_lines(old["code"], new["code"]),
    ]


def _tile_lines(old: Mapping, new: Mapping) -> Iterator[str]:
    renamed = _renamed_tiles(old, new)
    added = [name for name in new if name not in old and name not in renamed.values()]
    removed = [name for name in old if name not in new and name not in renamed]
    moved = [n for n in new if n in old and new[n]["shard"] != old[n]["shard"]]
    if added:
        yield f"{counted(len(added), 'new tile')}: {few(added, _MOST_NAMES)}"
    if removed:
        yield f"{counted(len(removed), 'tile')} removed: {few(removed, _MOST_NAMES)}"
    if renamed:
        names = [f"{before} is {after} now" for before, after in renamed.items()]
        yield f"{counted(len(renamed), 'tile')} renamed: {few(names, _MOST_NAMES)}"
    if moved:
        yield f"{counted(len(moved), 'tile')} put into another shard: {few(moved, _MOST_NAMES)}"


def _renamed_tiles(old: Mapping, new: Mapping) -> dict[str, str]:
    """New name of each tile that has the very files of one that is gone, by its old name."""
    gone: dict[str, list[str]] = {}
    for name in (name for name in old if name not in new):
        gone.setdefault(digest(old[name]["files"]), []).append(name)
    come: dict[str, list[str]] = {}
    for name in (name for name in new if name not in old):
        if any(version not in (None, NOT_WATCHED) for version in new[name]["files"].values()):
            come.setdefault(digest(new[name]["files"]), []).append(name)
    pairs = [(gone[files], come[files]) for files in gone if files in come]
    return {before[0]: after[0] for before, after in pairs if len(before) == len(after) == 1}


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
                yield f"{counted(len(here), kind)} {verb}: {few(here, _MOST_NAMES)}"


def _list_lines(old: Mapping, new: Mapping) -> Iterator[str]:
    changed = [name for name in new if name in old and new[name] != old[name]]
    if changed:
        yield f"{counted(len(changed), 'source list')} changed: {few(changed, _MOST_NAMES)}"


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


def _task_lines(old: Mapping, new: Mapping) -> Iterator[str]:
    """Lines for tasks that came, went or have another name."""
    before, after = old.get("tasks") or {}, new.get("tasks") or {}
    renamed = _renamed_tasks(before, after)
    folder = f"results/{old.get('survey')}"
    for name, now in renamed.items():
        yield (
            f"task {name} is called {now} now: it is trained and predicted again under that name; "
            f"the files of {name} stay in {folder}"
        )
    for name in before:
        if name not in after and name not in renamed:
            yield (
                f"task {name} is not in the config any more: its files stay in {folder} "
                f"(models/{name}, predictions/{name} and others), and the catalog is written "
                "without it"
            )
    come = [name for name in after if name not in before and name not in renamed.values()]
    if come:
        yield f"{counted(len(come), 'new task')}: {few(come, _MOST_NAMES)}"


def _renamed_tasks(old: Mapping, new: Mapping) -> dict[str, str]:
    """New name of each task whose settings another one has now, by its old name."""
    gone = [name for name in old if name not in new]
    come = [name for name in new if name not in old]
    renamed: dict[str, str] = {}
    for name in gone:
        alike = [n for n in come if new[n] == old[name] and n not in renamed.values()]
        if alike:
            renamed[name] = alike[0]
    return renamed


def _band_lines(old: Mapping, new: Mapping) -> Iterator[str]:
    """Lines for bands that came, went or have another name."""
    before, after = _bands(old), _bands(new)
    gone = [band for band in before if band not in after]
    come = [band for band in after if band not in before]
    if not before or not after or not (gone or come):
        return
    renamed = _renamed_bands(old["input"], new["input"], gone, come)
    if renamed:
        names = [f"{band} is called {now} now" for band, now in renamed.items()]
        yield f"{counted(len(names), 'band')} renamed: {few(names, _MOST_NAMES)}; {ALL_AGAIN}"
        return
    if gone:
        yield f"band {few(gone, _MOST_NAMES)} is not in the config any more; {ALL_AGAIN}"
    if come:
        yield f"{counted(len(come), 'new band')}: {few(come, _MOST_NAMES)}; {ALL_AGAIN}"


def _bands(config: Mapping) -> list[str]:
    return list((config.get("input") or {}).get("bands") or [])


def _renamed_bands(
    old: Mapping, new: Mapping, gone: Sequence[str], come: Sequence[str]
) -> dict[str, str]:
    """New name of each band, if other names are all that is new in the section `input`."""
    names = dict(zip(gone, come, strict=False)) if len(gone) == len(come) else {}
    return names if names and _with_names(old, names) == new else {}


def _with_names(value: object, names: Mapping[str, str]) -> object:
    """Put other names in place of some keys and values."""
    if isinstance(value, Mapping):
        return {names.get(key, key): _with_names(one, names) for key, one in value.items()}
    if isinstance(value, list):
        return [_with_names(one, names) for one in value]
    return names.get(value, value) if isinstance(value, str) else value


def _of_both(old: Mapping, new: Mapping) -> tuple[Mapping, Mapping]:
    """Leave out what lines of their own tell: tasks that only one config has, and bands."""
    before, after = dict(old), dict(new)
    tasks = [config.get("tasks") or {} for config in (old, new)]
    both = set(tasks[0]) & set(tasks[1])
    for config, its_tasks in zip((before, after), tasks, strict=True):
        config["tasks"] = {name: task for name, task in its_tasks.items() if name in both}
    gone = [band for band in _bands(old) if band not in _bands(new)]
    come = [band for band in _bands(new) if band not in _bands(old)]
    if not _bands(old) or not _bands(new) or not (gone or come):
        return before, after
    if _renamed_bands(old["input"], new["input"], gone, come):
        before["input"] = new["input"]
    for config in (before, after):
        config["input"] = {key: v for key, v in config["input"].items() if key != "bands"}
    return before, after


def _setting_lines(old: Mapping, new: Mapping) -> Iterator[str]:
    before, after = map(_flat, _of_both(old, new))
    before.pop("tasks", None)
    after.pop("tasks", None)
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
