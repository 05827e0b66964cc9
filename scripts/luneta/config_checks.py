"""Checks of a config against the files it names, before any job starts.

A missing image of the tile table is not among them: it is flagged when its tile is cut, and the
survey goes on without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from luneta.config import (
    BUILT_IN_WEIGHTS,
    HUB,
    SMALLEST_SIDE,
    SMALLEST_SIDES,
    WEIGHTS_FILES,
    WITH_ACTIVATION,
    WITH_IMAGENET,
    WITH_TIMM,
    Config,
    Stamps,
    Task,
    Tiles,
    Training,
    did_you_mean,
    refusal,
)
from luneta.wording import few

if TYPE_CHECKING:
    import pyarrow as pa

    from luneta.survey.tiles import Tile

# Lists of one format look alike, and 1000 of ECSV or VOTable take seconds already.
MOST_LISTS = 1000
MOST_LABELS = 5  # that a message tells of


def check_paths(config: Config) -> dict[str, Tile]:
    """Check that the tables and weights a config names can be read and hold what it asks of them.

    Files that the simulation will make are left out.

    Returns
    -------
    dict
        `Tile` by name, as found on the way; none for stamps.

    Raises
    ------
    ConfigError
        With one line for each problem.
    """
    from luneta.table_checks import candidates_problems

    tiles: dict[str, Tile] = {}
    problems = [
        *_input_problems(config, tiles),
        *_cross_problems(config),
        *_name_problems(config),
        *_weights_problems(config),
    ]
    for name, task in config.tasks.items():
        problems += _network_problems(f"tasks.{name}.training", task.training, config)
        problems += _label_problems(f"tasks.{name}", task, _made_by_simulation(config))
        problems += _position_problems(f"tasks.{name}", task, config.input)
        problems += candidates_problems(f"tasks.{name}.candidates", task.candidates)
    if problems:
        raise refusal(problems)
    return tiles


def _made_by_simulation(config: Config) -> Callable[[Path | str], bool]:
    folder = Path("results") / config.survey
    return lambda path: config.simulation is not None and folder in Path(path).parents


def _input_problems(config: Config, tiles: dict[str, Tile]) -> Iterator[str]:
    """Problems of the `input` section; the tiles that are found are put into `tiles`."""
    from luneta.survey.remote_checks import url_problems

    problems = list(url_problems(config.input.model_dump(mode="json")))
    yield from problems
    if problems:
        return
    if isinstance(config.input, Tiles):
        yield from _tile_problems(config, tiles)
    else:
        yield from _stamp_problems(config.input)


def _tile_problems(config: Config, tiles: dict[str, Tile]) -> Iterator[str]:
    from luneta.survey.shards import survey_tiles
    from luneta.survey.tiles import TileTableError

    given = config.input
    try:
        tiles |= survey_tiles(given.model_dump(mode="json"))
    except TileTableError as error:
        yield str(error) if str(error).startswith("input.") else f"input.tiles: {error}"
        return
    if not tiles:
        yield f"input.tiles: {given.tiles} lists no tile; add a line for each tile and band"
        return
    yield from _band_problems(given, {band for tile in tiles.values() for band in tile.bands})
    if given.sources is None:
        yield from _detection_problems(given)
    else:
        problems = list(_source_problems(given, list(tiles), _made_by_simulation(config)))
        yield from problems or _content_problems(config, list(tiles))


def _band_problems(given: Tiles, delivered: set[str]) -> Iterator[str]:
    from luneta.survey.tiles import read_tiles

    missing = [band for band in given.bands if band not in delivered]
    if not missing:
        return
    where = given.tiles or given.images
    if given.tiles is not None:
        tiles = read_tiles(given.tiles, given.root).values()
        delivered = {band for tile in tiles for band in tile.bands}
    for band in missing:
        yield (
            f"input.bands = {band!r}: no tile of {where} has this band; "
            f"{did_you_mean(band, sorted(delivered))}"
        )


def _detection_problems(given: Tiles) -> Iterator[str]:
    for name, column in given.keep.items():
        yield (
            f"input.keep.{name} = {column!r}: with input.detection there is no source list whose "
            f"columns could be kept; what is measured is kept anyway. Remove the key"
        )


def _unit_problems(given: Tiles) -> Iterator[str]:
    mapped = [key for key, column in given.columns.model_dump().items() if column is not None]
    for key in given.units:
        if key not in mapped:
            yield f"input.units.{key}: no such column is mapped; {did_you_mean(key, mapped)}"


def _source_problems(given: Tiles, tiles: list[str], made: Callable) -> Iterator[str]:
    from luneta.survey.remote import is_remote
    from luneta.survey.source_files import absent_reason
    from luneta.survey.table_choice import TableError, split_table

    yield from _unit_problems(given)
    columns = {f"input.columns.{k}": v for k, v in given.columns.model_dump().items() if v}
    columns |= {f"input.keep.{k}": v for k, v in given.keep.items()}
    try:
        names = _list_names(given.model_dump(mode="json"), tiles)
    except TableError as error:
        yield str(error)
        return
    for number, name in enumerate(name for name in names if not made(name)):
        is_there = is_remote(name) or Path(split_table(name)[0]).exists()
        if not is_there:
            yield f"input.sources: {absent_reason(name, given.root)}"
        elif number < MOST_LISTS:
            yield from _column_problems("input.sources", name, columns)


def _list_names(given: Mapping, tiles: list[str]) -> list[str]:
    """Files of the source list, or of those of the tiles."""
    from luneta.survey.source_files import has_one_list, list_files, list_of_tile

    if has_one_list(given["sources"]):
        return list_files(given)
    return list(dict.fromkeys(list_of_tile(given, tile) for tile in tiles))


def _content_problems(config: Config, tiles: list[str]) -> Iterator[str]:
    """Read some of the lists of the tiles; a survey-wide list is read when it is dealt."""
    from luneta.survey.remote import is_remote
    from luneta.survey.source_files import has_one_list, list_of_tile
    from luneta.table_checks import list_problems

    given, made = config.input.model_dump(mode="json"), _made_by_simulation(config)
    if has_one_list(given["sources"]) or is_remote(given["sources"]):
        return
    lists = {tile: list_of_tile(given, tile) for tile in tiles[:MOST_LISTS]}
    yield from list_problems(config, {t: path for t, path in lists.items() if not made(path)})


def _stamp_problems(given: Stamps) -> Iterator[str]:
    from luneta.survey.stamp_index import templates

    columns = {f"input.columns.{k}": v for k, v in given.columns.model_dump().items() if v}
    columns |= {f"input.keep.{k}": v for k, v in given.keep.items()}
    if given.row is not None:
        columns["input.row"] = given.row
    found = templates(given.model_dump(mode="json"))
    for template in found.values():
        try:
            columns |= {f"{template.key}, {{{name}}}": name for name in sorted(template.fields)}
        except ValueError as error:
            yield f"{template.key} = {template.text!r}: is no template ({error}); write {{column}}"
            return
    yield from _column_problems("input.table", given.table, columns)


def _column_problems(key: str, path: Path | str, columns: Mapping[str, str]) -> Iterator[str]:
    from luneta.survey.names import parts_of
    from luneta.survey.remote import is_remote
    from luneta.survey.table_choice import TableError, not_a_value
    from luneta.survey.tables import list_columns

    if is_remote(str(path)):
        return  # fetched when it is read
    wanted = {where: parts_of(mapping) for where, mapping in columns.items()}
    try:
        table = list_columns(path, [name for parts in wanted.values() for name in parts])
    except TableError as error:
        yield f"{key}: {error}"
        return
    for where, parts in wanted.items():
        for name in (name for name in parts if name not in table.names):
            if name in table.pictures and columns[where] == name and "{" in where:
                continue  # a stamp
            if name in table.others:
                yield f"{where} = {name!r}: {path}: {not_a_value(name, table.others[name])}"
            else:
                fix = did_you_mean(name, table.names)
                yield f"{where} = {name!r}: {path} has no such column; {fix}"


def column_names(path: Path) -> list[str]:
    """Read the column names of a table, without its rows where the format allows.

    Raises
    ------
    TableError
        If the table cannot be read.
    """
    from luneta.survey.tables import table_columns

    return table_columns(path)


def _cross_problems(config: Config) -> Iterator[str]:
    """Check what one section asks of another: bands, and kept columns."""
    yield from _unknown_bands(config)
    yield from _unkept_columns(config)
    ratio, seeing = config.cutouts.area_ratio, config.input.seeing
    if ratio is None or ratio.seeing is not None:
        return
    reference = getattr(config.input, "reference", config.input.bands[0])
    if seeing is None or (isinstance(seeing, Mapping) and reference not in seeing):
        yield (
            f"cutouts.area_ratio: the seeing of band {reference} is not known; give input.seeing "
            f"in arcsec, or name the kept column with it by cutouts.area_ratio.seeing"
        )


def _unknown_bands(config: Config) -> Iterator[str]:
    given, extinction = config.input, config.cutouts.extinction
    by_band = {
        "input.zero_points": given.zero_points,
        "input.seeing": given.seeing,
        "input.planes": getattr(given, "planes", None),
        "input.band_names": getattr(given, "band_names", None),
        "cutouts.extinction.coefficients": extinction and extinction.coefficients,
    }
    for key, values in by_band.items():
        for band in values if isinstance(values, Mapping) else ():
            # A preset speaks of all bands of its survey.
            if band not in given.bands and config.preset is None:
                yield f"{key}.{band}: is none of input.bands; {did_you_mean(band, given.bands)}"
    for band in given.bands if extinction is not None else ():
        if band not in extinction.coefficients:
            yield f"cutouts.extinction.coefficients: band {band} has none; add it"


def _detected(config: Config) -> list[str]:
    """Name the columns that detection measures; none with a source list."""
    if getattr(config.input, "detection", None) is None:
        return []
    from luneta.survey.detected import detected_columns

    return detected_columns(config.input.model_dump(mode="json"))


def _name_problems(config: Config) -> Iterator[str]:
    from luneta.catalog.clashes import clashes, unknown_defaults

    yield from clashes(config, _detected(config))
    yield from unknown_defaults(config, _detected(config))


def remarks(config: Config) -> list[str]:
    """List what is allowed in a config, and yet worth knowing."""
    from luneta.catalog import clashes
    from luneta.survey.remote_checks import url_remarks

    return [*clashes.remarks(config), *url_remarks(config.input.model_dump(mode="json"))]


def _unkept_columns(config: Config) -> Iterator[str]:
    from luneta.table_checks import number_columns

    kept = [*config.input.keep, *_detected(config)]
    for key, name in number_columns(config).items():
        if name not in kept:
            fix = did_you_mean(name, kept) if kept else "none is kept"
            yield f"{key} = {name!r}: is no kept column; {fix}. Name it under input.keep"


def _weights_problems(config: Config) -> Iterator[str]:
    seen: set[str] = set()
    for name, task in config.tasks.items():
        weights = task.training.weights
        if weights in BUILT_IN_WEIGHTS or weights in seen or weights.startswith(HUB):
            continue
        seen.add(weights)
        where = f"tasks.{name}.training.weights = {weights!r}"
        if not Path(weights).is_file():
            yield (
                f"{where}: there is no such file; give the path of a weights file "
                f"({', '.join(WEIGHTS_FILES)}), {HUB}owner/name, or one of "
                f"{', '.join(BUILT_IN_WEIGHTS)}"
            )
        elif not weights.endswith(WEIGHTS_FILES):
            names = ", ".join(WEIGHTS_FILES)
            yield f"{where}: weights are read from files named *{names}; convert or rename it"


def _network_problems(where: str, training: Training, config: Config) -> Iterator[str]:
    """Find what the network of a task cannot be, so that no job has to start to say so."""
    name, side = training.backbone, training.image_size or config.cutouts.size
    smallest = SMALLEST_SIDES.get(name, SMALLEST_SIDE)
    if side < smallest:
        key = "cutouts.size" if training.image_size is None else f"{where}.image_size"
        yield (
            f"{key} = {side}: {name} needs images of at least {smallest} pixels; set "
            f"{where}.image_size to {smallest} or more, or choose another backbone"
        )
    if training.activation is not None and name not in WITH_ACTIVATION:
        yield (
            f"{where}.activation = {training.activation!r}: {name} has its own; leave it out, or "
            f"choose a backbone with a choice ({', '.join(WITH_ACTIVATION)})"
        )
    yield from _rgb_problems(where, training, config.input.bands)
    if not training.course_recipe:  # it starts from random weights, whatever is said
        yield from _misfit_problems(where, training)
        yield from _pretraining_problems(where, training, config)


def _rgb_problems(where: str, training: Training, bands: list[str]) -> Iterator[str]:
    rgb = training.rgb
    if rgb is None:
        return
    if len(set(rgb)) < 3 or not set(rgb) <= set(bands):
        yield (
            f"{where}.rgb = {rgb}: must name three different ones of input.bands "
            f"({', '.join(bands)}); name them, or leave it out"
        )
    elif training.stem == "mean" and len(bands) != 3:
        yield (
            f"{where}.rgb = {rgb}: with stem: mean all {len(bands)} bands get the same filters, "
            f"and rgb has no effect; set stem: copy or zero, or leave rgb out"
        )


def _misfit_problems(where: str, training: Training) -> Iterator[str]:
    weights, name = training.weights, training.backbone
    if weights == "imagenet" and name not in WITH_IMAGENET:
        yield (
            f"{where}.weights = 'imagenet': there are none of {name}; use none, pretrain or a "
            f"file, or a backbone that has them ({', '.join(WITH_IMAGENET)})"
        )
    if (weights.startswith(HUB) or weights.endswith(".safetensors")) and name not in WITH_TIMM:
        yield (
            f"{where}.weights = {weights!r}: weights of PyTorch do not fit {name}; set backbone "
            f"to what they are of, one of {', '.join(WITH_TIMM)}"
        )


def _pretraining_problems(where: str, training: Training, config: Config) -> Iterator[str]:
    display = getattr(config.input, "pixels", "flux") == "display"
    if training.weights == "pretrain" and config.pretraining.method == "supervised" and display:
        yield (
            f"{where}.weights = 'pretrain': pretraining.method: supervised learns from simulated "
            f"fluxes, and input.pixels: display has another scale; set pretraining.method: "
            f"contrastive, which learns from the survey's own cutouts, or give other weights"
        )


def _label_problems(where: str, task: Task, made: Callable) -> Iterator[str]:
    from luneta.survey.tables import text

    rows: set[tuple[str, str, str]] = set()
    for path in task.labels:
        if made(path):
            return
        problem, table = _label_table(where, task, path)
        if table is None:
            yield problem
            return
        names = _label_columns(task).values()
        columns = [text(table[name]).tolist() for name in names]
        rows.update(zip(*columns, *[[""] * len(table)] * (3 - len(columns)), strict=True))
    labelled = [row for row in rows if row[0] and row[1]]
    pairs = {(name, label) for name, label, _ in labelled}
    yield from _class_problems(where, task, Counter(label for _, label in pairs))
    yield from _group_problems(where, task, labelled)


def _label_columns(task: Task) -> dict[str, str]:
    """Columns of the label tables, by the key that names them."""
    columns = {"id_column": task.id_column, "label_column": task.label_column}
    if task.training.group_column is not None:
        columns["training.group_column"] = task.training.group_column
    return columns


def _label_table(where: str, task: Task, path: Path) -> tuple[str, pa.Table | None]:
    """Read a label table, or say why not."""
    from luneta.survey.ids import rounded
    from luneta.survey.tables import TableError, read_table

    columns = _label_columns(task)
    try:
        table = read_table(path, list(columns.values()))
    except TableError as error:
        return f"{where}.labels: {error}", None
    for key, name in columns.items():
        if name not in table.column_names:
            fix = did_you_mean(name, table.column_names)
            return f"{where}.{key} = {name!r}: {path} has no such column; {fix}", None
    problem = rounded(table[task.id_column], task.id_column)
    if problem is not None:
        return f"{where}.id_column = {task.id_column!r}: {path}: {problem}", None
    return "", table


def _group_problems(where: str, task: Task, rows: list[tuple[str, str, str]]) -> Iterator[str]:
    """Find objects in two groups: the group decides the fold."""
    from luneta.training.labels import class_of_value, first_few

    allowed = class_of_value(task)
    groups: dict[str, set[str]] = {}
    for name, label, group in rows:
        if allowed.get(label) is not None:
            groups.setdefault(name, set()).add(group)
    several = sorted(name for name, values in groups.items() if len(values) > 1)
    if several:
        values = " and ".join(map(repr, sorted(groups[several[0]])[:2]))
        yield (
            f"{where}.training.group_column = {task.training.group_column!r}: {len(several)} "
            f"objects are in two groups ({first_few(several)}; the first in {values}); the group "
            f"decides the fold: give an object the same in all its rows"
        )


def _position_problems(where: str, task: Task, given: Tiles | Stamps) -> Iterator[str]:
    columns, radius = given.columns, task.training.group_radius
    told = (columns.ra and columns.dec) or getattr(given, "positions", None) == "wcs"
    if radius > 0 and isinstance(given, Stamps) and not told:
        yield (
            f"{where}.training.group_radius = {radius:g}: the positions of the stamps are not "
            f"known; name their columns by input.columns.ra and .dec, set input.positions: wcs if "
            f"their headers tell them, or set it to 0 and name the "
            f"near-duplicates by training.group_column"
        )


def _class_problems(where: str, task: Task, counts: Counter[str]) -> Iterator[str]:
    """Compare the labels found with the classes, before usability and folds have their say."""
    from luneta.training.labels import class_of_value

    allowed = class_of_value(task)
    members: Counter[str] = Counter()
    yield from _unknown_labels(where, {k: n for k, n in counts.items() if k not in allowed}, task)
    for label, count in counts.items():
        if allowed.get(label) is not None:
            members[allowed[label]] += count
    found = ", ".join(f"{label} ({count})" for label, count in _commonest(counts)) or "none"
    for name in task.classes:
        if members[name] < task.training.folds:
            yield (
                f"{where}.classes = {name!r}: {members[name]} objects have this label, fewer than "
                f"training.folds = {task.training.folds}; labels found: {found}. Correct the "
                f"name, merge other labels into it, or drop the class"
            )


def _unknown_labels(where: str, unknown: Mapping[str, int], task: Task) -> Iterator[str]:
    """Tell of labels that are none of the task's: each of a few, the commonest of many."""
    from luneta.training.labels import class_of_value

    allowed = sorted(class_of_value(task))
    if len(unknown) <= MOST_LABELS:
        for label, count in sorted(unknown.items()):
            yield (
                f"{where}.labels: label {label!r} ({count} objects) is none of classes, merge "
                f"and ignore; {did_you_mean(label, allowed)}; or ignore it"
            )
        return
    shown = [f"{label!r} ({n:,} objects)" for label, n in _commonest(unknown)[:MOST_LABELS]]
    text = f"{', '.join(shown)} and {len(unknown) - MOST_LABELS:,} more"
    yield (
        f"{where}.labels: {len(unknown):,} labels are none of classes, merge and ignore: {text}; "
        f"{_remedy(where, unknown, task)}"
    )


def _remedy(where: str, unknown: Mapping[str, int], task: Task) -> str:
    """Say what to do about many labels that are none of the task's."""
    from luneta.training.labels import class_of_value

    if all(map(_is_number, unknown)):
        return (
            f"these look like numbers, such as fractions of votes, and not like classes: make a "
            f"column with the name of a class for each object (from votes by a threshold, the "
            f"unsure ones empty), and name it by {where}.label_column (now {task.label_column!r})"
        )
    return (
        f"allowed are {few(sorted(class_of_value(task)))}; name the column of the classes by "
        f"{where}.label_column (now {task.label_column!r}), or add the labels to classes, merge or "
        "ignore"
    )


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def _commonest(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:10]
