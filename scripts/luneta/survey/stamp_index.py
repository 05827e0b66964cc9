"""Dealing a table of stamps to shards, before any job is planned."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from luneta.code_digest import source_digest
from luneta.digests import digest
from luneta.survey.images import split_extension
from luneta.survey.index import deal, remembered, signature, slice_table
from luneta.survey.parquet_tables import parquet_files, picture_rows
from luneta.survey.remote import is_remote
from luneta.survey.sources import select, text_columns, wanted_columns
from luneta.survey.stamp_versions import MEMORY, stamp_versions
from luneta.survey.table_choice import Listing, split_table
from luneta.survey.tables import TableError, list_columns, read_table
from luneta.urls import shown_url
from luneta.wording import few

OWN_COLUMNS = ("row", "refused", "signature")  # of a slice, beside those of the templates
_FIELD = re.compile(r"\{[^{}]*\}")
STACKS = (".npy", ".h5", ".hdf5", ".hdf")


@dataclass(frozen=True)
class Template:
    """A path with the names of table columns in braces.

    Attributes
    ----------
    text : str
        Such as `images/{name}_g.fits[SCI]`; {band} is filled in already.
    key : str
        Where it stands in the config, for messages.
    """

    text: str
    key: str

    @property
    def fields(self) -> list[str]:
        """Columns that it asks for, in order."""
        return [name for _, name, _, _ in string.Formatter().parse(self.text) if name is not None]

    @property
    def start(self) -> str:
        """What comes before the first column."""
        return next(iter(string.Formatter().parse(self.text)), ("",))[0]

    def fill(self, table: pa.Table) -> list[str | None]:
        """Fill in each row of a table; None where the row has no value for one of the columns.

        A column that the table does not have holds pictures, and no names.
        """
        fields = self.fields
        if any(name not in table.column_names for name in fields):
            return [""] * len(table)
        if not fields:
            return [self.text.format()] * len(table)
        rows = zip(*(table[name].to_pylist() for name in fields), strict=True)
        numbered = _numbered(self.text)
        try:
            return [None if None in row or "" in row else numbered.format(*row) for row in rows]
        except (ValueError, IndexError, KeyError) as error:
            raise TableError(
                f"{self.key} = {self.text!r} cannot be filled in: {error}; columns of a CSV are "
                "text, so leave number formats such as :05d out"
            ) from None


def _numbered(template: str) -> str:
    """Put the order of columns in place of their names: `{a}_{b}` becomes `{}_{}`."""
    parts = []
    for literal, name, form, conversion in string.Formatter().parse(template):
        parts.append(literal.replace("{", "{{").replace("}", "}}"))
        if name is not None:
            shown = f"!{conversion}" if conversion else ""
            parts.append("{" + shown + (f":{form}" if form else "") + "}")
    return "".join(parts)


def templates(settings: Mapping) -> dict[str, Template]:
    """Find the template of each band's image, and of its mask and weight if there are any.

    Parameters
    ----------
    settings : mapping
        The config's `input` section of kind `stamps`, as plain types.

    Returns
    -------
    dict
        By slice column: `image_g`, `mask_g`, `weight_g` ...
    """
    found = {}
    for kind, key in (("image", "image"), ("mask", "masks"), ("weight", "weights")):
        given = settings.get(key)
        for band in settings["bands"] if given else ():
            text = given[band] if isinstance(given, dict) else given
            where = f"input.{key}.{band}" if isinstance(given, dict) else f"input.{key}"
            found[f"{kind}_{band}"] = Template(text.replace("{band}", band), where)
    return found


@dataclass
class Located:
    """Where the files of a table's stamps lie.

    Attributes
    ----------
    names : dict
        By slice column, the file of each row.
    refused : list of (str or None)
        Why a row's files may not be read, if so.
    """

    names: dict[str, list[str]]
    refused: list[str | None]


def locate(table: pa.Table, settings: Mapping) -> Located:
    """Find the files of each object; a name that leads out of the folder is refused.

    Parameters
    ----------
    table : pyarrow.Table
        The stamp table.
    settings : mapping
        The config's `input` section.
    """
    root = str(settings.get("root") or Path(settings["table"]).parent)
    found = Located({}, [None] * len(table))
    required = settings.get("bands_required") or settings["bands"]
    known: dict[tuple[str, bool], list[str]] = {}
    for column, template in templates(settings).items():
        is_required = column.split("_", 1)[1] in required
        key = template.text, is_required
        if key not in known:
            filled = template.fill(table)
            known[key] = _full_names(template, filled, root, found.refused, is_required)
        found.names[column] = known[key]
    return found


def _full_names(
    template: Template, filled: Sequence, root: str, refused: list, is_required: bool
) -> list[str]:
    """Put the root before each name; what is wrong with a name is noted in `refused`.

    The name is empty where the table gives none for a band that an object may do without.
    """
    folder = os.path.normpath(os.path.join(root, os.path.dirname(template.start)))  # noqa: PTH118, PTH120
    names = []
    for row, name in enumerate(filled):
        if name is None and not is_required:
            names.append("")
        elif name is None:
            columns = " or ".join(template.fields)
            refused[row] = refused[row] or f"the table gives no {columns}, which names its file"
            names.append(template.text)
        elif "://" in name and is_remote(name := name.strip()):
            names.append(name)
            refused[row] = refused[row] or _other_host(name, template.text)
        else:
            names.append(os.path.join(root, name))  # noqa: PTH118 (for each of 1e5 stamps)
            if (".." in name or name.startswith("/")) and _leads_out(names[-1], folder):
                refused[row] = refused[row] or (
                    f"its name leads out of the folder {folder}: {name!r}; set input.root to a "
                    "folder that holds all stamps"
                )
    return names


def _other_host(name: str, template: str) -> str | None:
    """Say so, if a row leads away from the host that the config writes.

    A field within a host stands for letters, digits and dots only, so that no row can end the host
    early (`@evil.org/`); one right behind a host does not belong to it.
    """
    _, mark, written = template.partition("://")
    authority = re.split(r"[/?#]", _FIELD.sub("{}", written))[0].rpartition("@")[2]
    if not mark or authority in ("", "{}"):
        return None  # the table names the host
    if authority.endswith("{}") and "/" not in _FIELD.sub("{}", written):
        authority = authority.removesuffix("{}")
    pattern = re.escape(authority).replace(re.escape("{}"), "[A-Za-z0-9_.-]+")
    try:
        host = urlsplit(name).netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    if re.fullmatch(pattern, host):
        return None
    return (
        f"its name leads away from the host of {shown_url(template)!r} in the config: "
        f"{shown_url(name)!r}; correct the row, or write the host in the config"
    )


def _leads_out(path: str, folder: str) -> bool:
    inside = os.path.abspath(folder).rstrip("/") + "/"  # noqa: PTH100
    return not os.path.abspath(path).startswith(inside)  # noqa: PTH100


def stack_rows(table: pa.Table, settings: Mapping) -> np.ndarray | None:
    """Row of each object in the files that hold the stamps of many; None if there are none.

    Raises
    ------
    TableError
        If the column `row` does not hold whole numbers from 0, or one file for all is no array.
    """
    if settings.get("row") is not None:
        return _given_rows(table[settings["row"]], settings)
    of_all = [t for t in templates(settings).values() if not t.fields]
    for template in of_all:
        path = str(split_extension(template.text)[0])
        if not path.lower().endswith(STACKS) or is_remote(template.text):
            raise TableError(
                f"{template.key} = {template.text!r} names one file for all objects, which must be "
                f"a local file of {', '.join(STACKS)}; else name a column in braces, as in "
                "{object_id}.fits"
            )
    return np.arange(len(table)) if of_all else None


def _given_rows(column: pa.ChunkedArray, settings: Mapping) -> np.ndarray:
    try:
        rows = column.cast(pa.int64())
        wrong = column.null_count or (pc.min(rows).as_py() or 0) < 0
        wrong |= pa.types.is_boolean(column.type)
    except pa.ArrowException:
        wrong = True
    if wrong:
        raise TableError(
            f"{settings['table']}: the column input.row = {settings['row']!r} must hold a whole "
            "number from 0 for each object"
        )
    return np.asarray(rows)


def file_signatures(
    names: Mapping[str, Sequence[str]], refused: Sequence, memory: Path
) -> list[str]:
    """Versions of all files of each object, as one text; `-` for those that are not there.

    Parameters
    ----------
    names : mapping
        By slice column, the file of each row.
    refused : sequence of (str or None)
        Why a row's files may not be read, if so.
    memory : path
        What is known of the files from earlier.
    """
    columns = [values for _, values in _different(names)]
    wanted = {
        name for column in columns for name, why in zip(column, refused, strict=True) if why is None
    }
    path_of = {name: _path(name) for name in sorted(wanted)}
    paths = list(dict.fromkeys(path_of.values()))
    versions = dict(zip(paths, stamp_versions(paths, memory), strict=True))
    return [
        "refused" if why is not None else " ".join(versions[path_of[name]] for name in row)
        for row, why in zip(zip(*columns, strict=True), refused, strict=True)
    ]


def _different(names: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Sequence[str]]]:
    """Give the columns that are not the same list as an earlier one."""
    seen: set[int] = set()
    for column, values in names.items():
        if id(values) not in seen:
            seen.add(id(values))
            yield column, values


def _path(name: str) -> str:
    """Path of a file, without the [EXTENSION] at its end."""
    return name[: name.rindex("[")] if name.endswith("]") and "[" in name else name


def deal_stamps(settings: Mapping, folder: Path) -> dict[str, Path]:
    """Deal a table of stamps to shards in table order.

    A slice has the columns `image_{band}` and, where there are any, `mask_{band}`,
    `weight_{band}`: path of the file; `row`: the object's row in files that hold many stamps;
    `refused`: why its files may not be read, if so; `signature`: versions of its files.

    Parameters
    ----------
    settings : mapping
        The config's `input` section of kind `stamps`, as plain types.
    folder : path
        Where the slices go.

    Returns
    -------
    dict
        Path of each shard's slice.
    """
    listed = _listed(settings)
    table = _read(settings, listed)
    located, rows = locate(table, settings), stack_rows(table, settings)
    if (pictures := _pictures(settings, listed)) is not None:
        rows = _take_pictures(located, pictures, settings)
    signatures = file_signatures(located.names, located.refused, folder / MEMORY)
    delivered = [signature(file, folder) for file in parquet_files(_file(settings))]
    parts = [settings, delivered, signatures, source_digest(Path(__file__))]
    key = digest(parts)
    if (paths := remembered(folder, key)) is not None:
        return paths
    nowhere = np.full(len(table), "", object)
    sources = select(table, settings["columns"], settings["keep"], nowhere, settings["table"])
    extra = {**located.names, "refused": located.refused, "signature": signatures}
    if rows is not None:
        extra["row"] = rows.tolist()
    size, order = settings["stamps_per_shard"], np.arange(len(table))
    slices = {
        f"stamps_{start // size:05d}": slice_table(sources, order[start : start + size], extra)
        for start in range(0, max(len(table), 1), size)
    }
    return deal(slices, folder, key)


def _file(settings: Mapping) -> Path:
    """File of the stamp table, without the [TABLE] at its end."""
    return Path(split_table(settings["table"])[0])


def _pictures(settings: Mapping, listed: Listing) -> str | None:
    """Column of the table that holds the objects' pictures; None if the pictures are files.

    Raises
    ------
    TableError
        If it is asked for in a way that cannot be.
    """
    columns = {name for t in templates(settings).values() for name in t.fields}
    wanted = [name for name in listed.pictures if name in columns]
    if not wanted:
        return None
    images = {key: t for key, t in templates(settings).items() if key.startswith("image_")}
    others = [t for key, t in templates(settings).items() if key not in images]
    for template in images.values():
        if template.text != f"{{{wanted[0]}}}":
            raise TableError(
                f"{template.key} = {template.text!r}: the column {wanted[0]} holds pictures, and "
                f"no names of files; write {{{wanted[0]}}} and nothing else, for all bands"
            )
    if settings.get("row") is not None or any(
        wanted[0] in t.fields or not t.fields for t in others
    ):
        raise TableError(
            f"{settings['table']}: the column {wanted[0]} holds the pictures themselves; leave "
            f"input.row out, and name one mask or weight file an object, if there are any"
        )
    return wanted[0]


def _take_pictures(located: Located, column: str, settings: Mapping) -> np.ndarray:
    """Put the place of each picture into `located`; give the rows in their files."""
    files, rows = picture_rows(_file(settings), column)
    names = [f"{file}[{column}]" for file in files]
    for name in located.names:
        if name.startswith("image_"):
            located.names[name] = names
    return np.array(rows, np.int64)


def _asked(settings: Mapping) -> list[str]:
    """Name the columns that the config maps, keeps or fills into templates."""
    wanted = wanted_columns(settings["columns"], settings["keep"])
    wanted += [settings["row"]] if settings.get("row") else []
    fields = [name for t in templates(settings).values() for name in t.fields]
    return list(dict.fromkeys([*wanted, *fields]))


def _listed(settings: Mapping) -> Listing:
    """List the columns of the stamp table; insist on those that the templates ask for."""
    listed = list_columns(settings["table"], _asked(settings))
    fields = {name: t for t in templates(settings).values() for name in t.fields}
    for name, template in fields.items():
        if name not in listed.names and name not in listed.others:
            raise TableError(
                f"{settings['table']}: {template.key} = {template.text!r} asks for the column "
                f"{name}; the table has {few(listed.names)}"
            )
    return listed


def _read(settings: Mapping, listed: Listing) -> pa.Table:
    """Read the columns of the stamp table that are asked for; pictures stay where they are."""
    asked = [name for name in _asked(settings) if name not in listed.pictures]
    fields = [name for t in templates(settings).values() for name in t.fields]
    table = read_table(settings["table"], [*text_columns(settings["columns"]), *fields], asked)
    return table.select(asked)
