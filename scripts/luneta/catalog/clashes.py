"""Names of the catalog's columns that clash, found from the config before anything is computed.

Names are compared without case: FITS (standard 4.0, section 7.3.2) and SQL do not tell capitals
from small letters, and DuckDB answers `RA` with the column `ra`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from luneta.catalog import candidates
from luneta.catalog.schema import (
    HEALPIX_COLUMN,
    OBJECT_COLUMNS,
    QUALITY_COLUMNS,
    cluster_columns,
    noise_column,
    run_column,
    task_columns,
)
from luneta.config import Config, Stamps, Task, did_you_mean
from luneta.survey.stamp_index import OWN_COLUMNS, templates

# By which HATS divides a catalog; `catalog.index`, which has them too, takes long to import.
PARTITION_COLUMNS = ("Norder", "Dir", "Npix")
# Of the files between the jobs, from which the catalog is joined; and provenance, as in the list of
# candidates.
BETWEEN_JOBS = ("usable", "skipped", "shard", "run_id", "model_id")
LUNETA = "luneta"
KEEP_OTHERWISE = "keep it by another name"
# What DuckDB or PostgreSQL reserves: `SELECT order FROM ...` is an error, and PostgreSQL answers
# `SELECT user ...` with its own user.
SQL_RESERVED = (
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric",
    "authorization", "between", "binary", "both", "case", "cast", "check", "collate", "column",
    "concurrently", "constraint", "create", "cross", "current_catalog", "current_date",
    "current_role", "current_time", "current_timestamp", "current_user", "default",
    "deferrable", "desc", "describe", "distinct", "do", "else", "end", "except", "false",
    "fetch", "for", "foreign", "freeze", "from", "full", "glob", "grant", "group", "having",
    "ilike", "in", "initially", "inner", "intersect", "into", "is", "isnull", "join", "lambda",
    "lateral", "leading", "left", "like", "limit", "localtime", "localtimestamp", "natural",
    "not", "notnull", "null", "offset", "on", "only", "or", "order", "outer", "overlaps",
    "pivot", "placing", "primary", "qualify", "references", "returning", "right", "select",
    "session_user", "show", "similar", "some", "summarize", "symmetric", "table", "tablesample",
    "then", "to", "trailing", "true", "union", "unique", "unpivot", "user", "using", "variadic",
    "verbose", "when", "where", "window", "with",
)  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A column that a config leads to.

    Attributes
    ----------
    name : str
        Of the column.
    key : str
        The setting that makes it, with its value; `luneta` if every config does.
    """

    name: str
    key: str


def made_columns(config: Config, detected: list[str]) -> list[Made]:
    """List the columns of the catalog, and those of the files it is joined from.

    Parameters
    ----------
    config : Config
        A checked config.
    detected : list of str
        Columns that detection measures; empty with a source list.
    """
    own = [column.name for column in (HEALPIX_COLUMN, *OBJECT_COLUMNS, *QUALITY_COLUMNS)]
    return [
        *(Made(name, LUNETA) for name in (*own, *PARTITION_COLUMNS, *BETWEEN_JOBS)),
        *_of_stamps(config),
        *_of_config(config, detected),
    ]


def _of_config(config: Config, detected: list[str]) -> list[Made]:
    """List the columns of the catalog that this config asks for."""
    return [
        *(
            Made(noise_column(band, False).name, f"input.bands = {band!r}")
            for band in config.input.bands
        ),
        *(Made(name, "input.detection") for name in detected),
        *(Made(name, _key(name, config.input.keep)) for name in config.input.keep),
        *(made for name, task in config.tasks.items() if task.predict for made in _of(name, task)),
        *_of_clusters(config),
    ]


def _key(name: str, keep: Mapping[str, str]) -> str:
    return f"input.keep.{name} = {keep[name]!r}"


def _of_stamps(config: Config) -> Iterator[Made]:
    """Columns of a slice of the stamp table, beside those of its objects."""
    if isinstance(config.input, Stamps):
        for name in (*OWN_COLUMNS, *templates(config.input.model_dump(mode="json"))):
            yield Made(name, LUNETA)


def _of(name: str, task: Task) -> Iterator[Made]:
    """Columns of a task."""
    shared = [column.name for column in (*task_columns(name, task.kind, []), run_column(name))]
    for column in shared:
        yield Made(column, f"tasks.{name}")
    for label in task.classes:
        for column in task_columns(name, task.kind, [label]):
            if column.name not in shared:
                yield Made(column.name, f"tasks.{name}.classes = {label!r}")


def _of_clusters(config: Config) -> Iterator[Made]:
    for task in config.clustering.tasks if config.clustering else ():
        for column in cluster_columns(task):
            yield Made(column.name, f"clustering.tasks = {task!r}")


def _of_candidates(config: Config) -> Iterator[Made]:
    """Columns of the lists of candidates beside those of the catalog, and one on the way there."""
    for name, task in config.tasks.items():
        if task.candidates is not None:
            for column in candidates.columns_of(name, task.classes[-1], []):
                yield Made(column.name, f"tasks.{name}.candidates")
            yield Made("spread", f"tasks.{name}.candidates")


def clashes(config: Config, detected: list[str]) -> Iterator[str]:
    """Find columns that bear one name, and kept ones that bear a reserved name.

    Parameters
    ----------
    config, detected
        As `made_columns`.

    Yields
    ------
    str
        A problem, with the two keys that clash and the fix.
    """
    seen: dict[str, Made] = {}
    told: set[tuple[str, str]] = set()
    for made in made_columns(config, detected):
        other = seen.setdefault(made.name.casefold(), made)
        if other.key != made.key and (other.key, made.key) not in told:
            told.add((other.key, made.key))
            yield _clash(other, made)
    yield from _clashes_of_candidates(config)
    keep = config.input.keep
    yield from _reserved({name: keep[name] for name in keep if _is_first(name, keep, seen)})


def _is_first(name: str, keep: Mapping[str, str], seen: Mapping[str, Made]) -> bool:
    """Whether a kept name is not told of already, as a name that another key makes."""
    return seen[name.casefold()].key == _key(name, keep)


def unknown_defaults(config: Config, detected: list[str]) -> Iterator[str]:
    """Find default columns that the catalog will not have.

    Parameters
    ----------
    config, detected
        As `made_columns`.
    """
    cutouts = config.cutouts
    lacking = {"shift_x", "shift_y"} if cutouts.recentre == "none" else set()
    lacking |= {"galaxy_area_ratio"} if cutouts.area_ratio is None else set()
    own = [column.name for column in (HEALPIX_COLUMN, *OBJECT_COLUMNS, *QUALITY_COLUMNS)]
    names = [*own, *(made.name for made in _of_config(config, detected))]
    there = [name for name in names if name not in lacking]
    for name in config.catalog.default_columns:
        if name not in there:
            yield (
                f"catalog.default_columns = {name!r}: the catalog has no such column; "
                f"{did_you_mean(name, there)}"
            )


def _clash(first: Made, second: Made) -> str:
    if first.key == LUNETA:
        what = "a column of this name" if first.name == second.name else f"the column {first.name}"
        return f"{second.key}: luneta writes {what}{_case(first, second)}; {_fix(second)}"
    names = first.name if first.name == second.name else f"{first.name} and {second.name}"
    return (
        f"{second.key}: makes the column {names}, as does {first.key}{_case(first, second)}; "
        f"{_fix(second)}"
    )


def _case(first: Made, second: Made) -> str:
    same = first.name == second.name
    return "" if same else ", and FITS and SQL do not tell capitals from small letters"


def _fix(made: Made) -> str:
    """Say which name can be changed."""
    if made.key.startswith("input.keep"):
        return KEEP_OTHERWISE
    if made.key.startswith("input.bands"):
        return "name the band otherwise, and say by input.band_names how its files write it"
    return "rename the class or the task"


def _clashes_of_candidates(config: Config) -> Iterator[str]:
    kept = {name.casefold(): name for name in config.input.keep}
    in_catalog = {column.name for column in OBJECT_COLUMNS} | {"flags", *BETWEEN_JOBS}
    told: set[str] = set()
    for made in _of_candidates(config):
        name = kept.get(made.name)
        if name is not None and made.name not in told | in_catalog:
            told.add(made.name)
            yield (
                f"{_key(name, config.input.keep)}: the list of candidates ({made.key}) has the "
                f"column {made.name}; {KEEP_OTHERWISE}"
            )


def _reserved(keep: Mapping[str, str]) -> Iterator[str]:
    for name in keep:
        key = _key(name, keep)
        if name.casefold().startswith(noise_column("", False).name):
            yield f"{key}: luneta writes columns of such names; {KEEP_OTHERWISE}"
        elif name.lower() in SQL_RESERVED:
            yield (
                f"{key}: {name} is a reserved word of SQL, which does not read it as a column; "
                f"{KEEP_OTHERWISE}, such as {name}_"
            )
        elif name in _frame_names(methods=False):
            yield (
                f"{key}: pandas answers catalog.{name} with a property of the table instead of the "
                f"column; {KEEP_OTHERWISE}, such as {name}_"
            )


def remarks(config: Config) -> list[str]:
    """List what is allowed, yet worth knowing: kept names that a method of pandas hides."""
    return [
        f'input.keep.{name}: in pandas catalog.{name} is a method; write catalog["{name}"]'
        for name in config.input.keep
        if name in _frame_names(methods=True)
    ]


@cache
def _frame_names(methods: bool) -> frozenset[str]:
    """Names that a pandas table has of its own."""
    import pandas as pd

    names = (name for name in dir(pd.DataFrame) if re.match("[a-zA-Z]", name))
    return frozenset(n for n in names if callable(getattr(pd.DataFrame, n)) == methods)
