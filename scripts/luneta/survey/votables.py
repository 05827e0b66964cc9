"""Reading VOTable files."""

from __future__ import annotations

import bz2
import gzip
import io
import logging
import warnings
import xml.parsers.expat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
from astropy.io import votable
from astropy.io.votable.tree import Field, Info, Resource, TableElement, VOTableFile

from luneta.survey.arrow_columns import array_column, object_column, table_of, with_missing
from luneta.survey.bounds import check_size, unpack_text
from luneta.survey.table_choice import Listing, TableError, require

WORDS = ("char", "unicodeChar")
PACKERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open}

log = logging.getLogger(__name__)


class VOTables:
    """The tables of a VOTable file.

    A column is called by the name of its field, or by the ID where several have that name; the ID
    may be asked for as well.

    Attributes
    ----------
    tables : list of Listing
        In the file's order; numbers count from 0.
    """

    def __init__(self, path: Path):
        self._path = path
        with _unpacked(path) as file:
            parsed = parse_votable(file, path)
        self._found = list(parsed.iter_tables())
        self._is_truncated = any(map(_tells_overflow, _infos(parsed)))
        self.tables = [_listing(number, table) for number, table in enumerate(self._found)]

    def close(self) -> None:
        """Forget the tables."""
        self._found = []

    def read(self, table: Listing, columns: Sequence[str] | None) -> pa.Table:
        """Read columns of a table, in its order; all if not given."""
        require(table, columns or (), self._path)
        found = self._found[table.number]
        if self._is_truncated:
            log.warning(
                "%s: the server cut the list short (QUERY_STATUS = OVERFLOW): rows are missing; "
                "ask for it again with a larger MAXREC",
                self._path,
            )
        wanted = [n for n in table.names if columns is None or n in columns]
        fields = _called(found.fields)
        arrays = {name: _column(found.array[fields[name].ID], fields[name]) for name in wanted}
        return table_of(arrays, {name: fields[name].unit for name in wanted})


def _unpacked(path: Path) -> BinaryIO:
    """Open a file; one that is packed by gzip or bzip2 is read whole."""
    stored = path.stat().st_size
    check_size(stored, stored)
    with path.open("rb") as file:
        start = file.read(3)
    opener = next((o for magic, o in PACKERS.items() if start.startswith(magic)), None)
    if opener is None:
        return path.open("rb")
    with opener(path, "rb") as file:
        return io.BytesIO(unpack_text(file, stored))


def parse_votable(file: BinaryIO, path: Path | str) -> VOTableFile:
    """Parse a VOTable that holds all of its rows itself.

    Parameters
    ----------
    file : file object
        Of bytes, unpacked, at its start.
    path : path
        Its name in messages.

    Raises
    ------
    TableError
        If it leads to rows elsewhere (a STREAM with href), which astropy would read from any file
        or address, or if it declares entities.
    """
    _refuse_other_files(file, path)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return votable.parse(file)


def _refuse_other_files(file: BinaryIO, path: Path | str) -> None:
    def refuse_entity(name, *_):
        raise TableError(
            f"{path}: declares the XML entity {name!r}, which may stand for another file, and a "
            f"VOTable needs none; write the text itself in its place"
        )

    def refuse_href(tag, attributes):
        if tag.rpartition(":")[2].upper() != "STREAM":
            return
        for name, value in attributes.items():
            if name.rpartition(":")[2].lower() == "href":
                raise TableError(
                    f"{path}: the rows lie elsewhere, in {value!r} (STREAM with href), which "
                    f"luneta does not open; write the table with its rows in the file, such as by "
                    f"topcat or stilts tcopy ofmt=votable-binary2-inline"
                )

    parser = xml.parsers.expat.ParserCreate()
    parser.EntityDeclHandler = refuse_entity
    parser.StartElementHandler = refuse_href
    parser.ParseFile(file)


def _infos(part: VOTableFile | Resource) -> Iterator[Info]:
    """Find what the server says of a file and of its resources."""
    yield from part.infos
    for resource in part.resources:
        yield from _infos(resource)


def _tells_overflow(info: Info) -> bool:
    return (info.name, info.value) == ("QUERY_STATUS", "OVERFLOW")


def _called(fields: Sequence[Field]) -> dict[str, Field]:
    """Fields by name, if it is that of one alone, and by all IDs that are no such names."""
    count = Counter(field.name for field in fields)
    named = {field.name: field for field in fields if field.name and count[field.name] == 1}
    return named | {field.ID: field for field in fields if field.ID not in named}


def _listing(number: int, table: TableElement) -> Listing:
    keys = dict.fromkeys([number, *(word for word in (table.ID, table.name) if word)])
    fields = _called(table.fields)
    others = {name: what for name, field in fields.items() if (what := _not_one_value(field))}
    names = [name for name in fields if name not in others]
    return Listing(tuple(keys), names, others, number)


def _not_one_value(field: Field) -> str | None:
    """Say what a column holds, if not one number or word a row."""
    size = str(field.arraysize or "1")
    if field.datatype in WORDS:
        return "several words in each row" if "x" in size else None
    if field.datatype.endswith("Complex"):
        return "complex numbers"
    return None if size == "1" else f"an array (arraysize {size}) in each row"


def _column(values: np.ma.MaskedArray, field: Field) -> pa.Array:
    values = np.ma.asarray(values)
    missing = np.ma.getmaskarray(values)
    data = values.data
    if data.dtype.kind == "O":
        return with_missing(object_column(list(data)), pa.array(missing))
    return array_column(data.reshape(len(data)), missing)
