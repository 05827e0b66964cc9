"""How a table of text is written: its encoding, delimiter, comments and line of names."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from luneta.survey.table_choice import TableError

DELIMITERS = {".csv": ",", ".tsv": "\t"}
OTHERS = (",", ";", "\t", "|")
SAMPLE_LINES = 50
SAMPLE_BYTES = 1 << 20
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eEdD][+-]?\d+)?$")
COMMA_NUMBER = re.compile(r"[+-]?\d*,\d+([eEdD][+-]?\d+)?$")
# A comma that is decimal for certain: no group of thousands looks like it.
DECIMAL_COMMA = re.compile(
    r"[+-]?(0*,\d+|0\d*,\d+|\d{4,},\d+|\d+,(\d{1,2}|\d{4,}))([eE][+-]?\d+)?$"
)
POINTED = re.compile(r"[+-]?\d*\.\d+([eE][+-]?\d+)?$")
GROUPS = re.compile(r"[+-]?\d{1,3}((,\d{3}){2,}|(,\d{3})+\.\d*)$")
NO_NUMBER = ("", "-", "--", "---", "\\N", "NA", "N/A", "<NA>", "NAN", "NULL", "NONE", "INF", "-INF")
SEPARATOR = re.compile(r'"?sep=.?"?', re.IGNORECASE)
WORD = re.compile(r"[^\s]+$")


@dataclass(frozen=True)
class Dialect:
    """How a table of text is written.

    Attributes
    ----------
    names : list of str
        Of the columns.
    units : list of str
        Of the columns, where a line below the names tells them; else empty.
    start : int
        First byte of the rows.
    delimiter : str
        One character.
    decimal : str
        What stands before the fraction of a number: `.` or `,`.
    has_commas : bool
        Whether commas are decimal where a column has them, be there points in others or not.
    """

    names: list[str]
    units: list[str]
    start: int
    delimiter: str
    decimal: str
    has_commas: bool = False


@dataclass(frozen=True)
class _Line:
    text: str
    end: int

    @property
    def is_comment(self) -> bool:
        return self.text.lstrip().startswith("#")

    @property
    def uncommented(self) -> str:
        return self.text.lstrip().lstrip("#")


def decode_check(data: bytes, path: Path | str) -> bytes:
    """Bring text to UTF-8 without a mark: it is UTF-8, or else Latin-1, which takes any byte.

    Raises
    ------
    TableError
        If it is UTF-16, or holds NULs as no text does.
    """
    if data.startswith(UTF16_MARKS) or b"\0" in data[:1000]:
        raise TableError(
            f"{path}: is no UTF-8 text but UTF-16, as some spreadsheets write, or no text at all; "
            f"save it as CSV UTF-8, or run: iconv -f UTF-16 -t UTF-8 {path} > new.csv"
        )
    data = data.removeprefix(UTF8_MARK)
    if data.isascii():
        return data
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1").encode("utf-8")
    return data


def is_delimited(data: bytes) -> bool:
    """Whether the first line that is no comment holds a delimiter other than blanks."""
    lines = (line.text for line in _lines(data) if line.text.strip() and not line.is_comment)
    return any(mark in next(lines, "") for mark in OTHERS)


def find_dialect(data: bytes, suffix: str, path: Path | str) -> Dialect:
    """Find out how a table is written, from its first lines.

    Parameters
    ----------
    data : bytes
        The table, or its first part, as `decode_check` gives it.
    suffix : str
        `.csv` or `.tsv`, which decides where the line of names holds no delimiter.

    Raises
    ------
    TableError
        If there is no line of names.
    """
    lines = [line for line in _lines(data) if line.text.strip()]
    if lines and SEPARATOR.fullmatch(lines[0].text.strip()):  # as Excel tells the delimiter
        lines.pop(0)
    comments: list[_Line] = []
    while lines and lines[0].is_comment:
        comments.append(lines.pop(0))
    if not lines:
        return _only_comments(comments, suffix, path)
    delimiter = _delimiter(lines[0].text, suffix)
    rows = [fields_of(line.text, delimiter) for line in lines if not line.is_comment]
    header, start = _header(comments, lines, rows, delimiter)
    if header is None:
        raise TableError(
            f"{path}: no line names the columns: the first is {lines[0].text[:80]!r}, which holds "
            f"numbers. Put a line of names, such as object_id{delimiter}ra{delimiter}dec, before it"
        )
    rows = rows[len(rows) - sum(line.end > start for line in lines if not line.is_comment) :]
    units, start, rows = _units(lines, rows, start, delimiter)
    decimal, has_commas = _decimal(rows, delimiter), _has_commas(rows, delimiter)
    return Dialect(header, units, start, delimiter, decimal, has_commas)


def _lines(data: bytes) -> list[_Line]:
    """Split the first lines, ended in any way; comments count little."""
    found, start, plain = [], 0, 0
    for match in re.finditer(rb"\r\n|\n|\r", data):
        found.append(_Line(data[start : match.start()].decode("utf-8", "replace"), match.end()))
        plain += not found[-1].is_comment
        start = match.end()
        if plain >= SAMPLE_LINES:
            return found
    if start < len(data):
        found.append(_Line(data[start:].decode("utf-8", "replace"), len(data)))
    return found


def fields_of(line: str, delimiter: str) -> list[str]:
    """Split a line into its fields, trimmed."""
    rows = csv.reader([line], delimiter=delimiter, skipinitialspace=delimiter != "\t")
    return [field.strip() for field in next(rows, [])]


def _delimiter(line: str, suffix: str) -> str:
    """The delimiter that a line holds most often outside quotes; that of the suffix in doubt."""
    bare = re.sub(r'"[^"]*"', "", line)
    usual = DELIMITERS.get(suffix, ",")
    counts = {mark: bare.count(mark) for mark in OTHERS}
    if usual == "\t" and counts[usual]:
        return usual
    if counts[";"] and counts[","] <= counts[";"] + 1:  # of each number a decimal comma
        return ";"
    best = max(OTHERS, key=lambda mark: (counts[mark], mark == usual))
    return best if counts[best] else usual


def _only_comments(comments: list[_Line], suffix: str, path: Path | str) -> Dialect:
    """A table without rows, of which a comment may name the columns."""
    if not comments:
        raise ValueError("the file is empty; its first line must name the columns")
    names = comments[-1].uncommented
    delimiter = _delimiter(names, suffix)
    return Dialect(fields_of(names, delimiter), [], comments[-1].end, delimiter, ".")


def _header(
    comments: Sequence[_Line], lines: Sequence[_Line], rows: list[list[str]], delimiter: str
) -> tuple[list[str] | None, int]:
    """Names of the columns, and the first byte behind them: a plain line, or the last comment."""
    commented = fields_of(comments[-1].uncommented, delimiter) if comments else []
    is_close = bool(comments) and not re.search(r"\s", comments[-1].text.strip())
    may_name = _may_name(commented, rows[0]) and not _names_columns(rows)
    if may_name and (_holds_numbers(rows) or (is_close and not any(map(_is_number, rows[0])))):
        return commented, comments[-1].end
    if comments and any(map(_is_number, rows[0])):
        return None, 0
    return rows[0], lines[0].end


def _may_name(commented: list[str], row: list[str]) -> bool:
    """Whether a comment can be the line of names: one word for each field of a row."""
    same = len(commented) == len(row) and len(set(commented)) == len(commented)
    return same and len(row) > 1 and all(WORD.match(name) for name in commented)


def _holds_numbers(rows: list[list[str]]) -> bool:
    """Whether the first row has a number, and all others have one (or nothing) there too."""
    places = [n for n, field in enumerate(rows[0]) if _is_number(field)]
    return any(all(_may_be_number(row, n) for row in rows[1:]) for n in places)


def _may_be_number(row: list[str], place: int) -> bool:
    return len(row) <= place or row[place].upper() in NO_NUMBER or _is_number(row[place])


def _names_columns(rows: list[list[str]]) -> bool:
    """Whether the first row names columns: there is a number below a word, none beside."""
    if any(map(_is_number, rows[0])):
        return False
    below = [row for row in rows[1:] if len(row) == len(rows[0])]
    return any(map(_is_number, (field for row in below for field in row)))


def _is_number(field: str) -> bool:
    return bool(NUMBER.match(field) or COMMA_NUMBER.match(field))


def _units(
    lines: Sequence[_Line], rows: list[list[str]], start: int, delimiter: str
) -> tuple[list[str], int, list[list[str]]]:
    """Units of the columns, from the line above one of dashes, as VizieR writes them."""
    plain = [line for line in lines if not line.is_comment and line.end > start]
    for number in range(min(2, len(rows))):
        above = rows[number - 1] if number else []
        if _is_line(rows[number]) and not any(map(_is_number, above)):
            units = rows[0] if number == 1 else []
            return units, plain[number].end, rows[number + 1 :]
    return [], start, rows


def _is_line(row: list[str]) -> bool:
    """Whether a row is a line of dashes; of `--` alone it is a row of missing values."""
    is_drawn = len(row) > 1 and all(re.fullmatch("-+", field) for field in row)
    return is_drawn and max(map(len, row)) > len("--")


def _has_commas(rows: list[list[str]], delimiter: str) -> bool:
    """Whether a comma is decimal for certain; behind tabs one column alone may hold pairs."""
    if delimiter == ",":
        return False
    fields = [(n, word) for row in rows for n, word in enumerate(row)]
    if not any(DECIMAL_COMMA.match(word) for _, word in fields):
        return False
    columns = {n for n, word in fields if COMMA_NUMBER.match(word)}
    return delimiter == ";" or len(columns) > 1


def _decimal(rows: list[list[str]], delimiter: str) -> str:
    """What stands before the fraction of numbers: a comma if numbers have commas and no points.

    Where each comma might set off thousands, as in 21,345, it is decimal if the delimiter is a
    semicolon, which those use whose comma is decimal.
    """
    if delimiter == ",":
        return "."
    fields = [field for row in rows for field in row]
    if any(map(POINTED.match, fields)) or not any(map(COMMA_NUMBER.match, fields)):
        return "."
    if any(map(DECIMAL_COMMA.match, fields)):
        return ","
    return "," if delimiter == ";" and not any(map(GROUPS.match, fields)) else "."
