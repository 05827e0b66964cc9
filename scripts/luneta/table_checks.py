"""Checks of what the tables of a survey hold, as far as planning can afford to read them."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from luneta.catalog.candidates import read_grades, read_known
from luneta.config import Candidates, Config, ConfigError, Task, refusal
from luneta.digests import digest
from luneta.files import read_memory, write_json
from luneta.survey.index import KEY, OBJECTS, read_objects, signature
from luneta.survey.sources import Sources, read_list
from luneta.survey.tables import TableError, is_text
from luneta.survey.tiles import UNPLACED
from luneta.training.labels import (
    Labels,
    OtherSpelling,
    check_found,
    first_few,
    read_labels,
    spelt_otherwise,
)

FEW_LISTS = 3  # of one list a tile, those that are read: lists of one survey look alike
NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
CHECKED = "checked_labels.json"


def number_columns(config: Config) -> dict[str, str]:
    """Name the kept columns that are computed with, by the key that names them."""
    cutouts = config.cutouts
    wanted = {
        "cutouts.extent.radius": cutouts.extent and cutouts.extent.radius,
        "cutouts.extinction.ebv": cutouts.extinction and cutouts.extinction.ebv,
        "cutouts.area_ratio.radius": cutouts.area_ratio and cutouts.area_ratio.radius,
        "cutouts.area_ratio.axis_ratio": cutouts.area_ratio and cutouts.area_ratio.axis_ratio,
        "cutouts.area_ratio.seeing": cutouts.area_ratio and cutouts.area_ratio.seeing,
    }
    return {key: name for key, name in wanted.items() if name}


def type_problems(config: Config, kept: pa.Table, path: Path | str) -> Iterator[str]:
    """Find the kept columns that are computed with and hold no numbers.

    Parameters
    ----------
    config : Config
        A checked config.
    kept : pyarrow.Table
        Kept columns of a list, or of a part of it.
    path : path
        Of the list, for the messages.
    """
    for key, name in number_columns(config).items():
        if name not in kept.column_names or _is_number(kept.schema.field(name).type):
            continue
        yield (
            f"{key} = {name!r}: the column {config.input.keep[name]!r} of {path} holds "
            f"{_content(kept[name])}, and must hold numbers; store it as numbers, with nothing "
            "where a value is missing, or name another column"
        )


def _is_number(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    return any(test(kind) for test in tests)


def _content(column: pa.ChunkedArray) -> str:
    """Say what a column holds, with an example."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values = column.drop_null()
    if is_text(values):
        odd = values.filter(pc.invert(pc.match_substring_regex(values, NUMBER)))
        values = odd if len(odd) else values
        return f"text, such as {values[0].as_py()!r}" if len(values) else "text"
    if pa.types.is_boolean(column.type):
        return "true and false"
    if pa.types.is_temporal(column.type):
        return "dates or times"
    return f"values of type {column.type}"


def list_problems(config: Config, lists: Mapping[str, str]) -> Iterator[str]:
    """Read a few of the lists of the tiles as `ingest` will, and say what is wrong with them.

    Parameters
    ----------
    lists : mapping
        Path of the list of each tile.

    Yields
    ------
    str
        A problem of positions, names or types, or of labels whose names are spelt otherwise.
    """
    found: list[Sources] = []
    settings = config.input.model_dump(mode="json")
    for tile in _to_read(config, lists):
        try:
            found.append(read_list(lists[tile], settings, tile))
        except TableError as error:
            yield f"input.sources: {error}"
            return
        problems = list(type_problems(config, found[-1].kept, lists[tile]))
        if problems:
            yield from problems
            return
    names = [name for sources in found for name in sources.object_id.tolist() if name]
    for task_name, task in config.tasks.items():
        yield from _spelling_problems(f"tasks.{task_name}", task, pa.array(names, pa.string()))


def _to_read(config: Config, lists: Mapping[str, str]) -> list[str]:
    """Choose a few tiles whose lists are read, those that are labelled first."""
    named = [tile for task in config.tasks.values() for tile in task.label_tiles or ()]
    labelled = [tile for tile in dict.fromkeys(named) if tile in lists]
    return list(dict.fromkeys([*_some(labelled), *_some(list(lists))]))


def _some(names: Sequence[str]) -> list[str]:
    """Choose a few of many, the first and the last among them."""
    if len(names) <= FEW_LISTS:
        return list(names)
    last = len(names) - 1
    return [names[round(n * last / (FEW_LISTS - 1))] for n in range(FEW_LISTS)]


def _spelling_problems(where: str, task: Task, some: pa.Array) -> Iterator[str]:
    """Find labels whose names none of a part of the survey has, but for their spelling."""
    labels = _readable_labels(task)
    if labels is None:
        return
    names = pa.array(list(labels.classes), pa.string())
    found = pc.is_in(names, some)
    if pc.any(found).as_py():
        return
    alike = spelt_otherwise(names, names, some)
    if len(alike):
        yield (
            f"{where}.id_column = {task.id_column!r}: the label tables name "
            f"{first_few(alike.to_pylist())}, the source lists {first_few(some[:6].to_pylist())}; "
            f"{len(alike)} names differ in zeros, capitals, blanks or decimals alone. Spell the "
            "names of the label tables as the lists do"
        )


def _readable_labels(task: Task) -> Labels | None:
    """Read the labels of a task; None if tables are missing or wrong, of which others tell."""
    if not all(path.exists() for path in task.labels):
        return None
    try:
        return read_labels(task.labels, task)
    except (ConfigError, TableError):
        return None


def candidates_problems(where: str, section: Candidates | None) -> Iterator[str]:
    """Read the tables that a list of candidates is joined with, as its job will.

    Parameters
    ----------
    where : str
        Key of the section.
    """
    if section is None:
        return
    readers = {
        "known": lambda path: read_known(path, section.known_columns),
        "grades": read_grades,
    }
    for key, read in readers.items():
        path = getattr(section, key)
        if path is None:
            continue
        if not path.is_file():
            yield f"{where}.{key}: {path}: there is no such file"
            continue
        try:
            read(path)
        except TableError as error:
            yield f"{where}.{key}: {error}"


def check_dealt(config: Config, index: Path, slices: Mapping[str, Path]) -> None:
    """Check a survey-wide list, or a table of stamps, once it has been dealt to shards.

    Parameters
    ----------
    index : path
        Folder `index` of the results.
    slices : mapping
        Slice of each shard; empty if each tile brings its own list.

    Raises
    ------
    ConfigError
        If a column that is computed with holds no numbers, or labels and grades name other objects.
    """
    problems = list(_dealt_problems(config, index, slices)) if slices else []
    if problems:
        raise refusal(problems)


def _dealt_problems(config: Config, index: Path, slices: Mapping[str, Path]) -> Iterator[str]:
    path = getattr(config.input, "sources", None) or getattr(config.input, "table", None)
    schema = pq.read_schema(next(iter(slices.values())))
    used = [name for name in number_columns(config).values() if name in config.input.keep]
    wrong = [name for name in dict.fromkeys(used) if not _is_number(schema.field(name).type)]
    if wrong:  # all of it is read, for an example
        parts = [pq.read_table(part, columns=wrong) for part in slices.values()]
        yield from type_problems(config, pa.concat_tables(parts), path)
    for name, task in config.tasks.items():
        yield from _label_problems(name, task, index)


def _label_problems(name: str, task: Task, index: Path) -> Iterator[str]:
    """Compare a task's labels and grades with the survey's names; not again if none has changed."""
    grades = task.candidates and task.candidates.grades
    labelled = [signature(path, index) for path in (*task.labels, *([grades] if grades else []))]
    key = digest([read_memory(index / KEY), labelled, task.model_dump(mode="json")])
    known = read_memory(index / CHECKED) or {}
    labels = None if known.get(name) == key else _readable_labels(task)
    if labels is None:
        return
    objects = read_objects(index / OBJECTS)
    problems = list(_problems_of(f"tasks.{name}", task, labels, objects))
    yield from problems
    names = pa.array(list(labels.classes), pa.string())
    if not problems and pc.any(pc.is_in(names, objects["object_id"])).as_py():
        write_json(index / CHECKED, {**known, name: key})


def _problems_of(where: str, task: Task, labels: Labels, objects: pa.Table) -> Iterator[str]:
    try:
        remark = check_found(labels.classes, objects["object_id"], task)
    except OtherSpelling as error:
        yield f"{where}.{error}"
        return
    except ConfigError as error:  # a survey that still grows may come to have them
        print(f"Note: {where}.{error}. So far `split` will refuse them", file=sys.stderr)
        return
    if remark is not None:
        print(f"Note: {where}.{remark}", file=sys.stderr)
    yield from _grade_problems(where, task, objects["object_id"].combine_chunks())
    yield from _unplaced_problems(where, task, labels, objects)


def _grade_problems(where: str, task: Task, known: pa.Array) -> Iterator[str]:
    """Find grades whose names the survey spells otherwise."""
    if task.candidates is None or task.candidates.grades is None:
        return
    names = pa.array(list(read_grades(task.candidates.grades)), pa.string())
    absent = names.filter(pc.invert(pc.is_in(names, known)))
    alike = spelt_otherwise(absent, names, known)
    if len(alike):
        yield (
            f"{where}.candidates.grades: {task.candidates.grades} names "
            f"{first_few(alike.to_pylist())}, the survey {first_few(known[:6].to_pylist())}; "
            f"{len(alike)} names differ in zeros, capitals, blanks or decimals alone. Spell them "
            "as the survey's object_id"
        )


def _unplaced_problems(where: str, task: Task, labels: Labels, objects: pa.Table) -> Iterator[str]:
    """Find classes of which too few objects lie in a tile."""
    names = pa.array(list(labels.classes), pa.string())
    wanted = objects.filter(pc.is_in(objects["object_id"], names))
    rows = set(zip(wanted["object_id"].to_pylist(), wanted["shard"].to_pylist(), strict=True))
    placed = {name for name, shard in rows if shard != UNPLACED}
    inside = Counter(labels.classes[name] for name in placed)
    lost = Counter(labels.classes[name] for name in {name for name, _ in rows} - placed)
    for label in task.classes:
        if lost[label] and inside[label] < task.training.folds:
            yield (
                f"{where}.classes = {label!r}: {lost[label]} of its "
                f"{lost[label] + inside[label]} labelled objects lie outside every tile that can "
                f"be read, and {inside[label]} are fewer than training.folds = "
                f"{task.training.folds}; check units, frame and columns of the positions, and the "
                "coordinate systems of the images"
            )
