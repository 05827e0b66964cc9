"""Checks of a config against the files it names, before any job starts.

A missing image of the tile table is not among them: it is flagged when its tile is cut, and the
survey goes on without it.
"""

from __future__ import annotations

import csv
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from luneta.config import Config, Stamps, Task, Tiles, did_you_mean, refusal

if TYPE_CHECKING:
    import pyarrow as pa

BUILT_IN_WEIGHTS = ("imagenet", "pretrain", "none")


def check_paths(config: Config) -> None:
    """Check that the tables and weights a config names can be read and hold what it asks of them.

    Files that the simulation will make are left out.

    Raises
    ------
    ConfigError
        With one line for each problem.
    """
    problems = [*_input_problems(config), *_weights_problems(config)]
    for name, task in config.tasks.items():
        problems += _label_problems(f"tasks.{name}", task, _made_by_simulation(config))
    if problems:
        raise refusal(problems)


def _made_by_simulation(config: Config) -> Callable[[Path | str], bool]:
    folder = Path("results") / config.survey
    return lambda path: config.simulation is not None and folder in Path(path).parents


def _input_problems(config: Config) -> Iterator[str]:
    if isinstance(config.input, Tiles):
        yield from _tile_problems(config.input, _made_by_simulation(config))
    else:
        yield from _stamp_problems(config.input)


def _tile_problems(given: Tiles, made: Callable[[Path | str], bool]) -> Iterator[str]:
    from luneta.survey.tiles import TileTableError, read_tiles

    try:
        tiles = read_tiles(given.tiles, given.root)
    except TileTableError as error:
        yield f"input.tiles: {error}"
        return
    if not tiles:
        yield f"input.tiles: {given.tiles} lists no tile; add a line for each tile and band"
        return
    delivered = sorted({band for tile in tiles.values() for band in tile.bands})
    for band in given.bands:
        if band not in delivered:
            yield (
                f"input.bands = {band!r}: no tile of {given.tiles} has this band; "
                f"{did_you_mean(band, delivered)}"
            )
    yield from _source_problems(given, list(tiles), made)


def _source_problems(given: Tiles, tiles: list[str], made: Callable) -> Iterator[str]:
    columns = {f"input.columns.{k}": v for k, v in given.columns.model_dump().items() if v}
    columns |= {f"input.keep.{k}": v for k, v in given.keep.items()}
    paths = dict.fromkeys(given.sources.replace("{tile}", tile) for tile in tiles)
    for path in paths:
        if not made(path):
            yield from _column_problems("input.sources", path, columns)


def _stamp_problems(given: Stamps) -> Iterator[str]:
    columns = {f"input.columns.{k}": v for k, v in given.columns.model_dump().items() if v}
    columns |= {f"input.keep.{k}": v for k, v in given.keep.items()}
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(given.image) if name}
    except ValueError as error:
        yield f"input.image = {given.image!r}: is no template ({error}); write {{column}}"
        return
    columns |= {f"input.image, {{{name}}}": name for name in sorted(fields - {"band"})}
    yield from _column_problems("input.table", given.table, columns)


def _column_problems(key: str, path: Path | str, columns: Mapping[str, str]) -> Iterator[str]:
    from luneta.survey.tables import TableError

    try:
        names = column_names(Path(path))
    except TableError as error:
        yield f"{key}: {error}"
        return
    for column_key, name in columns.items():
        if name not in names:
            yield f"{column_key} = {name!r}: {path} has no such column; {did_you_mean(name, names)}"


def column_names(path: Path) -> list[str]:
    """Read the column names of a table, without its rows where the format allows.

    Raises
    ------
    TableError
        If the table cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from luneta.survey.tables import DELIMITERS, read_table

    try:
        if path.suffix.lower() in DELIMITERS:
            with path.open(newline="", encoding="utf-8-sig") as lines:
                return next(csv.reader(lines, delimiter=DELIMITERS[path.suffix.lower()]), [])
        if path.suffix.lower() == ".parquet":
            return pq.read_schema(path).names
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowInvalid):
        pass  # read_table fails too, and says why
    return read_table(path).column_names


def _weights_problems(config: Config) -> Iterator[str]:
    seen: set[str] = set()
    for name, task in config.tasks.items():
        weights = task.training.weights
        if weights in BUILT_IN_WEIGHTS or weights in seen:
            continue
        seen.add(weights)
        where = f"tasks.{name}.training.weights = {weights!r}"
        if not Path(weights).is_file():
            yield (
                f"{where}: there is no such file; give the path of a .weights.h5 file, or one of "
                f"{', '.join(BUILT_IN_WEIGHTS)}"
            )
        elif not weights.endswith(".weights.h5"):
            yield f"{where}: Keras reads weights from files named *.weights.h5; rename the file"


def _label_problems(where: str, task: Task, made: Callable) -> Iterator[str]:
    counts: Counter[str] = Counter()
    for path in task.labels:
        if made(path):
            return
        problem, table = _label_table(where, task, path)
        if table is None:
            yield problem
            return
        values = table[task.label_column].to_pylist()
        counts.update(str(v).strip() for v in values if v is not None and str(v).strip())
    yield from _class_problems(where, task, counts)


def _label_table(where: str, task: Task, path: Path) -> tuple[str, pa.Table | None]:
    """Read a label table, or say why not."""
    from luneta.survey.tables import TableError, read_table

    try:
        table = read_table(path, [task.id_column, task.label_column])
    except TableError as error:
        return f"{where}.labels: {error}", None
    for key in ("id_column", "label_column"):
        name = getattr(task, key)
        if name not in table.column_names:
            mend = did_you_mean(name, table.column_names)
            return f"{where}.{key} = {name!r}: {path} has no such column; {mend}", None
    return "", table


def _class_problems(where: str, task: Task, counts: Counter[str]) -> Iterator[str]:
    """Compare the labels found with the classes, before usability and folds have their say."""
    from luneta.training.folds import class_of_value

    allowed = class_of_value(task)
    members: Counter[str] = Counter()
    for label, count in sorted(counts.items()):
        if label not in allowed:
            yield (
                f"{where}.labels: label {label!r} ({count} objects) is none of classes, merge and "
                f"ignore; {did_you_mean(label, sorted(allowed))}; or ignore it"
            )
        elif allowed[label] is not None:
            members[allowed[label]] += count
    found = ", ".join(f"{label} ({count})" for label, count in counts.most_common(10)) or "none"
    for name in task.classes:
        if members[name] < task.training.folds:
            yield (
                f"{where}.classes = {name!r}: {members[name]} objects have this label, fewer than "
                f"training.folds = {task.training.folds}; labels found: {found}. Correct the "
                f"name, merge other labels into it, or drop the class"
            )
