"""Reading tables of text: CSV and its dialects, ECSV, and those that astropy tells apart."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import logging
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from luneta.survey.arrow_columns import (
    BLANKS,
    array_column,
    table_of,
    with_missing,
)
from luneta.survey.bounds import check_columns, check_size, unpack_text
from luneta.survey.table_choice import Listing, TableError, require
from luneta.survey.text_dialect import (
    DECIMAL_COMMA,
    DELIMITERS,
    SAMPLE_BYTES,
    Dialect,
    decode_check,
    fields_of,
    find_dialect,
    is_delimited,
)
from luneta.survey.yaml_headers import read_header

PACKERS = {".gz": gzip.open, ".bz2": bz2.open}
# What stands for none in a column of numbers, booleans or dates, in any capitals.
WORDS = (
    "NA",
    "N/A",
    "#NA",
    "#N/A",
    "<NA>",
    "NULL",
    "(NULL)",
    "<NULL>",
    "NONE",
    "NIL",
    "NAN",
    "-NAN",
)
# ... and, being no words, in any column.
MARKS = ("--", "---", "\\N", "...", "....")
# ... and only where numbers stand beside it, as it may be a sign.
SINGLE = ("-", "*", "?", ".", "_", "MASKED", "MISSING", "UNDEFINED", "NODATA")
CASES = (str.upper, str.lower, str.capitalize)
NULLS = ("", *MARKS, "NaN", "-NaN", *(case(word) for word in WORDS for case in CASES))
# Numbers in groups of thousands, by what sets them off; and those that only such groups explain.
THOUSANDS = {
    ",": r"^[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d*)?$",
    ".": r"^[+-]?[1-9]\d{0,2}(\.\d{3})+(,\d*)?$",
}
PROOFS = {
    ",": r"^[+-]?[1-9]\d{0,2}((,\d{3}){2,}|(,\d{3})+\.\d*)$",
    ".": r"^[+-]?[1-9]\d{0,2}((\.\d{3}){2,}|(\.\d{3})+,\d*)$",
}
WHOLE_NUMBER = r"^[+-]?\d+$"
FORTRAN = r"^([+-]?[\d.]+)D([+-]?\d+)$"
CLEAR_FORTRAN = r"^[+-]?[\d.]+D[+-]|^[+-]?\d*\.\d*D|D\d\d"
LONGEST_ROW = 100_000  # characters; csv reads no longer field
LARGEST_INT = 2.0**63

TYPED = ("mrt", "cds", "ipac")  # forms of text whose header tells the types

log = logging.getLogger(__name__)


def unpacked(path: Path) -> bytes:
    """Read a file, unpacked if its name says that it is packed.

    Raises
    ------
    TooLarge
        If that is more than the bound, or than the packed file can hold.
    """
    opener = PACKERS.get(path.suffix.lower())
    stored = path.stat().st_size
    if opener is None:
        check_size(stored, stored)
        return path.read_bytes()
    with opener(path, "rb") as file:
        return unpack_text(file, stored)


def _start(path: Path) -> bytes:
    opener = PACKERS.get(path.suffix.lower(), open)
    with opener(path, "rb") as file:
        start = file.read(SAMPLE_BYTES)
    last = max(start.rfind(b"\n"), start.rfind(b"\r"))
    is_cut = len(start) == SAMPLE_BYTES and last > 0
    return start[: last + 1] if is_cut else start


class TextTable:
    """A table of CSV, or a dialect of it.

    Parameters
    ----------
    suffix : str
        `.csv` or `.tsv`.
    text_columns : sequence of str
        Columns that stay text, so that `007` is not read as 7.

    Attributes
    ----------
    tables : list of Listing
        The one table there is.
    """

    def __init__(self, path: Path, suffix: str, text_columns: Sequence[str] = ()):
        self._path, self._suffix, self._text = path, suffix, text_columns
        start = decode_check(_start(path), path)
        self._dialect = find_dialect(start, suffix, path)
        check_columns(self._dialect.names)
        self.tables = [Listing((), [name for name in self._dialect.names if name])]

    def close(self) -> None:
        """Nothing is open."""

    def read(self, table: Listing, columns: Sequence[str] | None) -> pa.Table:
        """Read columns, in the table's order; all if not given."""
        require(table, columns or (), self._path)
        data = decode_check(unpacked(self._path), self._path)
        dialect = self._dialect_of(data)
        if dialect.decimal == "," and not dialect.has_commas and dialect.delimiter == ";":
            log.warning(
                "%s: commas are read as decimal, as the delimiter is a semicolon; no number among "
                "the first rows proves it, so remove commas that set off thousands",
                self._path,
            )
        rows = _without_comments(data, dialect, self._path)
        found = _read_rows(rows, dialect, self._text, columns)
        units = dict(zip(dialect.names, dialect.units, strict=False))
        return _typed(found, dialect, self._text, units, self._path)

    def _dialect_of(self, data: bytes) -> Dialect:
        """How the bytes are written that are read: the file's first ones may decode otherwise."""
        dialect = find_dialect(data, self._suffix, self._path)
        if dialect.names != self._dialect.names:
            raise TableError(
                f"{self._path}: its first lines name the columns "
                f"{', '.join(self._dialect.names)}, but the whole file reads as "
                f"{', '.join(dialect.names)}: it may be UTF-8 at first and Latin-1 later, or begin "
                f"with very many comments; save it anew as CSV UTF-8"
            )
        return dialect


def _without_comments(data: bytes, dialect: Dialect, path: Path) -> pa.Buffer:
    """Rows without lines that begin with #, and without blanks between a delimiter and a quote.

    Where there are neither, as in most tables, nothing is copied.
    """
    start, mark = dialect.start, dialect.delimiter.encode() + b' "'
    has_blanks = dialect.delimiter != "\t" and data.find(mark, start) >= 0
    comment = re.compile(rb"(?:\A|[\r\n])[ \t]*#")
    has_comments = data.find(b"#", start) >= 0 and comment.search(data[start:])
    if not has_blanks and not has_comments:
        return pa.py_buffer(data).slice(start)
    rows = data[start:]
    if has_blanks:
        rows = rows.replace(mark, dialect.delimiter.encode() + b'"')
    return pa.py_buffer(_uncommented(rows, dialect, path) if has_comments else rows)


def _uncommented(rows: bytes, dialect: Dialect, path: Path) -> bytes:
    rows = rows.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    left, count = re.subn(rb"(?m)^[ \t]*#[^\n]*(?:\n|\Z)", b"", rows)
    marks = rows.split(b"\n", 1)[0].count(dialect.delimiter.encode())
    if not left.strip() and marks == len(dialect.names) - 1 > 0:
        raise TableError(
            f"{path}: all {count} lines below the names begin with #, so all are comments; put "
            f"names that begin with # into quotes"
        )
    log.info("%s: %d lines that begin with # are comments", path, count)
    _check_comments(rows.decode("utf-8").split("\n"), dialect, path)
    return left


def _check_comments(lines: Sequence[str], dialect: Dialect, path: Path) -> None:
    """Warn of comments that may be rows; refuse them between rows, where an id may begin with #."""
    if len(dialect.names) < 2:
        return
    plain = [n for n, line in enumerate(lines) if line.strip() and not _is_comment(line)]
    commented = [n for n, line in enumerate(lines) if _is_comment(line)]
    like_rows = [n for n in commented if _counts_fields(lines[n], dialect)]
    between = [n for n in like_rows if plain and plain[0] < n < plain[-1]]
    if between:
        raise TableError(
            f"{path}: {len(between)} lines between the rows begin with # and have a field for each "
            f"column, the first {lines[between[0]][:80]!r}, so they may be rows or comments; put "
            f"the first field into quotes if they are rows, or delete them"
        )
    if like_rows:
        log.warning(
            "%s: %d lines that begin with # are left out as comments, though they have a field for "
            "each column, the first %r; put the first field into quotes if they are rows",
            path,
            len(like_rows),
            lines[like_rows[0]][:80],
        )


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#")


def _counts_fields(line: str, dialect: Dialect) -> bool:
    if len(line) > LONGEST_ROW or line.count(dialect.delimiter) < len(dialect.names) - 1:
        return False
    return len(fields_of(line, dialect.delimiter)) == len(dialect.names)


def _read_rows(rows: pa.Buffer, dialect: Dialect, text_columns: Sequence[str], columns) -> pa.Table:
    """Read the rows; types are found by their values."""
    names = dialect.names
    if rows.size < SAMPLE_BYTES and not rows.to_pybytes().strip():
        wanted = [name for name in names if columns is None or name in columns]
        return pa.table({name: pa.nulls(0) for name in wanted})
    if len(set(names)) < len(names):
        names = [name if names.count(name) == 1 else f"{name}\0{n}" for n, name in enumerate(names)]
    if names and not names[-1]:  # each line ends in a delimiter
        names = [*names[:-1], "\0"]
    wanted = columns and [name for name in names if name in columns]
    as_text = [name for name in text_columns if name in names]
    table = _parsed(rows, dialect, names, as_text, wanted)
    large = [name for name in table.column_names if _may_be_large(table[name])]
    if not large:
        return table
    exact = _parsed(rows, dialect, names, large, large)
    for name in large:
        position = table.column_names.index(name)
        table = table.set_column(position, name, exact[name])
    return table


def _parsed(rows: pa.Buffer, dialect: Dialect, names, as_text, wanted) -> pa.Table:
    return pa.csv.read_csv(
        pa.BufferReader(rows),
        read_options=pa.csv.ReadOptions(column_names=names),
        parse_options=pa.csv.ParseOptions(delimiter=dialect.delimiter),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(as_text, pa.string()),
            include_columns=wanted,
            null_values=NULLS,
            decimal_point=dialect.decimal,
        ),
    )


def _may_be_large(column: pa.ChunkedArray) -> bool:
    """Whether numbers may be integers beyond int64, which Arrow reads as doubles."""
    if not pa.types.is_float64(column.type):
        return False
    ends = pc.min_max(column).as_py()
    is_large = any(v is not None and abs(v) >= LARGEST_INT for v in ends.values())
    return is_large and pc.all(pc.equal(pc.floor(column), column)).as_py()


def _typed(
    table: pa.Table,
    dialect: Dialect,
    text_columns: Sequence[str],
    units: Mapping[str, str],
    path: Path,
) -> pa.Table:
    """Make numbers of text that is numbers but for what stands for none, and trim the rest."""
    arrays = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if "\0" not in name:
            is_open = pa.types.is_string(column.type) and name not in text_columns
            numbers = numbers_of_text(column, _comma_or_point(column, dialect)) if is_open else None
            arrays[name] = _words(column) if numbers is None else numbers
            if is_open and numbers is None:
                _warn_of_commas(arrays[name], name, path)
    return table_of(arrays, units)


def _comma_or_point(column: pa.ChunkedArray, dialect: Dialect) -> str:
    """What is decimal in a column: other columns may differ."""
    if dialect.decimal == "," or dialect.has_commas:
        return ","
    words = pc.utf8_trim(column, characters=BLANKS)
    is_proof = pc.match_substring_regex(words, f"^(?:{DECIMAL_COMMA.pattern})")
    return "," if dialect.delimiter == ";" and pc.any(is_proof).as_py() else "."


def _warn_of_commas(words: pa.ChunkedArray, name: str, path: Path) -> None:
    """Say that a column stays text whose commas or points may be decimal or set off thousands."""
    words = words.drop_null()
    is_number = pc.match_substring_regex(words, r"^[+-]?\d[\d.,]*$")
    if len(words) and pc.all(is_number).as_py():
        log.warning(
            "%s: the column %r stays text: in numbers such as %r it is open what is decimal and "
            "what sets off thousands; write them with a decimal point and without thousands",
            path,
            name,
            words[0].as_py(),
        )


def _words(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Trim text; what is empty, or a mark that is no word, is missing."""
    if not pa.types.is_string(column.type):
        return column
    words = pc.utf8_trim(column, characters=BLANKS)
    return with_missing(words, pc.is_in(words, pa.array(["", *MARKS])))


def numbers_of_text(column: pa.ChunkedArray, decimal: str = ".") -> pa.ChunkedArray | None:
    """Read text as numbers, if all of it is numbers or stands for none.

    Understood are signs, the D of Fortran's exponents where it is clear (1.5D3, 1D+3, 1D03), and
    thousands set off by commas or points where a value of the column proves them, such as
    1,234,567 or 1,234.5: 21,345 alone may be either.

    Parameters
    ----------
    decimal : {".", ","}
        What is decimal in the table; `,` where a column has commas and nothing proves otherwise.

    Returns
    -------
    pyarrow.ChunkedArray or None
        int64, uint64 or float64; None if there is a word, no number, or an integer beyond these.
    """
    words = pc.utf8_trim(column, characters=BLANKS)
    first = next((w for w in words.slice(0, 1000).to_pylist() if w and not _is_none(w)), None)
    if first is not None and not re.match(r"[+-]?[\d.,]", first) and "INF" not in first.upper():
        return None
    upper = pc.utf8_upper(words)
    nulls = pa.array([w.upper() for w in ("", *MARKS, *WORDS, *SINGLE)])
    words = with_missing(upper, pc.is_in(upper, nulls))
    if words.null_count == len(words):
        return None
    words = _with_points(words, decimal)
    if words is None:
        return None
    words = pc.replace_substring_regex(words, r"^\+", "")
    is_fortran = pc.match_substring_regex(words, FORTRAN)
    is_clear = pc.match_substring_regex(words, CLEAR_FORTRAN)
    if _any(pc.and_not(is_fortran, is_clear)):
        return None
    return _cast(pc.replace_substring_regex(words, FORTRAN, r"\1E\2"))


def _any(flags: pa.ChunkedArray) -> bool:
    return bool(pc.any(flags).as_py())


def _with_points(words: pa.ChunkedArray, decimal: str) -> pa.ChunkedArray | None:
    """Write numbers with a decimal point and without thousands; None if it is open which is which.

    A comma that is left in the result makes it no number.
    """
    proven = [m for m, proof in PROOFS.items() if _any(pc.match_substring_regex(words, proof))]
    if len(proven) > 1:
        return None
    for mark in proven:
        is_grouped = pc.match_substring_regex(words, THOUSANDS[mark])
        words = pc.if_else(is_grouped, pc.replace_substring(words, mark, ""), words)
        decimal = "." if mark == "," else ","
    has_points = _any(pc.match_substring(words, "."))
    if decimal == "." or (not proven and not _any(pc.match_substring(words, ","))):
        is_open = (
            decimal == ","
            and has_points
            and not _any(
                pc.and_not(
                    pc.match_substring(words, "."), pc.match_substring_regex(words, THOUSANDS["."])
                )
            )
        )
        return None if is_open else words
    return None if has_points else pc.replace_substring(words, ",", ".")


def _is_none(word: str) -> bool:
    return word.upper() in (*MARKS, *WORDS, *SINGLE)


def without_nulls(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Make text missing that stands for none, where numbers or angles are meant."""
    nulls = pa.array(["", *MARKS, *WORDS])
    words = pc.utf8_upper(pc.utf8_trim(column, characters=BLANKS))
    return with_missing(column, pc.is_in(words, nulls))


def _cast(words: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Cast text to the first type that takes all of it; integers never become doubles."""
    is_whole = pc.all(pc.match_substring_regex(words, WHOLE_NUMBER)).as_py()
    kinds = (pa.int64(), pa.uint64()) if is_whole else (pa.float64(),)
    for kind in kinds:
        with contextlib.suppress(pa.ArrowInvalid):
            return words.cast(kind)
    return None


class ECSVTable:
    """A table of ECSV (astropy's APE 6): its header tells the types and units.

    Columns of mixed-in objects, such as the positions `sky.ra` and `sky.dec`, are read by the
    names they have in the file.
    """

    def __init__(self, path: Path):
        self._path = path
        data = decode_check(unpacked(path), path)
        self._columns, self._delimiter, self._rows = _ecsv_header(data, path)
        others = {n: what for n, c in self._columns.items() if (what := _ecsv_other(c))}
        names = [n for n in self._columns if n not in others and not self._is_mask(n)]
        self.tables = [Listing((), names, others)]

    def close(self) -> None:
        """Nothing is open."""

    def _is_mask(self, name: str) -> bool:
        masked = name.removesuffix(".mask")
        is_bool = self._columns[name]["datatype"] == "bool"
        return masked != name and masked in self._columns and is_bool

    def read(self, table: Listing, columns: Sequence[str] | None) -> pa.Table:
        """Read columns, in the table's order; all if not given."""
        require(table, columns or (), self._path)
        wanted = [name for name in table.names if columns is None or name in columns]
        masks = [f"{n}.mask" for n in wanted if f"{n}.mask" in self._columns]
        masks = [name for name in masks if self._is_mask(name)]
        found = self._values([*wanted, *masks])
        arrays = {name: found[name] for name in wanted}
        for name in masks:
            masked = name.removesuffix(".mask")
            arrays[masked] = with_missing(arrays[masked], found[name])
        arrays = {n: _words(c) if pa.types.is_string(c.type) else c for n, c in arrays.items()}
        return table_of(arrays, {name: self._columns[name].get("unit") for name in wanted})

    def _values(self, names: Sequence[str]) -> pa.Table:
        kinds = {name: _ecsv_type(self._columns[name]["datatype"]) for name in names}
        if not self._rows.strip():
            return pa.table({name: pa.nulls(0, kind) for name, kind in kinds.items()})
        return pa.csv.read_csv(
            pa.BufferReader(self._rows),
            read_options=pa.csv.ReadOptions(column_names=list(self._columns)),
            parse_options=pa.csv.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=b'"' in self._rows
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=kinds,
                include_columns=list(names),
                null_values=[""],
                true_values=["True", "true", "1"],
                false_values=["False", "false", "0"],
            ),
        )


def _ecsv_header(data: bytes, path: Path) -> tuple[dict[str, dict], str, bytes]:
    """Columns by name, the delimiter, and the rows of an ECSV table."""
    head = re.match(rb"(?:[ \t]*(?:#[^\r\n]*)?(?:\r\n|\n|\r))*", data)[0]
    lines = [line for line in head.decode().splitlines() if line.strip()]
    if not lines or not lines[0].startswith("# %ECSV"):
        raise TableError(f"{path}: is no ECSV: its first line is not '# %ECSV 1.0'")
    columns, delimiter = read_header(
        [line.removeprefix("#").removeprefix(" ") for line in lines[1:]]
    )
    check_columns(columns)
    delimiter = delimiter or " "
    names, _, rows = re.sub(rb"\r\n?", b"\n", data[len(head) :]).partition(b"\n")
    there = _split_names(names.decode(), delimiter)
    if there != list(columns):
        raise TableError(
            f"{path}: its header describes the columns {', '.join(columns)}, but the line of names "
            f"has {', '.join(there)}"
        )
    return columns, delimiter, rows


def _split_names(line: str, delimiter: str) -> list[str]:
    import csv

    return next(csv.reader([line], delimiter=delimiter), [])


def _ecsv_other(column: Mapping) -> str | None:
    """Say what a column holds, if not one number or word a row."""
    if column["datatype"].startswith("complex"):
        return "complex numbers"
    if column.get("subtype"):
        return f"arrays or objects ({column['subtype']}) in each row"
    return None


def _ecsv_type(name: str) -> pa.DataType:
    kinds = {"bool": pa.bool_(), "float16": pa.float32(), "float128": pa.float64()}
    if name in kinds:
        return kinds[name]
    return pa.from_numpy_dtype(np.dtype(name)) if name[:3] in ("int", "uin", "flo") else pa.string()


class AsciiTable:
    """A table of text that astropy tells apart: SExtractor, CDS and MRT, IPAC, blanks between."""

    def __init__(self, path: Path, text_columns: Sequence[str] = ()):
        from astropy.io import ascii as reader

        self._path, self._text = path, text_columns
        data = decode_check(unpacked(path), path)
        options = _ascii_form(data)
        if options["format"] not in TYPED:
            words = [reader.convert_numpy(str)]
            options["converters"] = dict.fromkeys(text_columns, words)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._table = reader.read(_text_lines(data), **options)
        check_columns(self._table.colnames)
        names = [n for n in self._table.colnames if self._table[n].ndim == 1]
        others = {n: "an array in each row" for n in self._table.colnames if n not in names}
        self.tables = [Listing((), names, others)]

    def close(self) -> None:
        """Nothing is open."""

    def read(self, table: Listing, columns: Sequence[str] | None) -> pa.Table:
        """Read columns, in the table's order; all if not given."""
        require(table, columns or (), self._path)
        wanted = [name for name in table.names if columns is None or name in columns]
        arrays = {name: self._column(name) for name in wanted}
        return table_of(arrays, {name: self._table[name].unit for name in wanted})

    def _column(self, name: str) -> pa.ChunkedArray:
        values = np.ma.asarray(self._table[name])
        array = pa.chunked_array([array_column(values.data, np.ma.getmaskarray(values))])
        is_open = pa.types.is_string(array.type) and name not in self._text
        numbers = numbers_of_text(array) if is_open else None
        return _words(array) if numbers is None else numbers


def _text_lines(data: bytes) -> list[str]:
    """Split text into two lines or more: astropy takes a single one for the name of a file."""
    lines = re.split(r"\r\n|\n|\r", data.decode("utf-8").rstrip("\r\n"))
    return lines if len(lines) > 1 else [*lines, ""]


def _ascii_form(data: bytes) -> dict:
    """How astropy is to read a table of text, by its first lines."""
    start = data[:SAMPLE_BYTES].lstrip()
    if re.match(rb"#\s*1\s+[A-Za-z]\w*", start):
        return {"format": "sextractor"}
    if b"Byte-by-byte Description" in start:
        return {"format": "mrt" if start.startswith(b"Title:") else "cds"}
    if re.match(rb"(?:\\[^\n]*\n)*\|", start):
        return {"format": "ipac"}
    comments = re.match(rb"(?:#[^\n]*\n)*", start)[0].splitlines()
    row = start[sum(len(line) + 1 for line in comments) :].split(b"\n", 1)[0]
    if comments and len(comments[-1].lstrip(b"#").split()) == len(row.split()):
        return {"format": "commented_header", "header_start": len(comments) - 1}
    return {"format": "basic"}


def text_reader(path: Path, suffix: str, text_columns: Sequence[str]):
    """Find the reader of a table of text by its first lines, and open the table."""
    start = _start(path)
    if start.startswith(b"# %ECSV"):
        return ECSVTable(path)
    if suffix in DELIMITERS:
        return TextTable(path, suffix, text_columns)
    form = _ascii_form(decode_check(start, path))["format"]
    if form in ("basic", "commented_header") and is_delimited(start):
        return TextTable(path, ".csv", text_columns)
    return AsciiTable(path, text_columns)
