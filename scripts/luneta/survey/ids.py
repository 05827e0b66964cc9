"""Names of objects: what rounding has done to them, and other spellings of one name."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# The first whole number that the type cannot tell from the next one
EXACT_BELOW = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}
# As spreadsheets, TOPCAT and pandas write long numbers: 1.23765E+18, 1.2376487206937559E18,
# 1237648720693755904.0
SCIENTIFIC = r"^\s*[+-]?(\d[.,]\d+[eE]\+?\d+|\d[eE]\+\d+)\s*$"
LONG_DECIMAL = r"^\s*[+-]?\d{16,}\.\d*\s*$"


def rounded(column: pa.ChunkedArray | pa.Array, name: str) -> str | None:
    """Say that a column of names has lost digits, if it has.

    Float64 holds whole numbers up to 2^53 only: three SDSS objects become one. A spreadsheet writes
    them as 1.23765E+18.

    Parameters
    ----------
    column : pyarrow.ChunkedArray or pyarrow.Array
        As the table has it, of any type.
    name : str
        Of the column, for the message.

    Returns
    -------
    str or None
        What is wrong and how to correct it; None if the names are whole.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        return _rounded_floats(column, name)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _rounded_text(column, name)
    return None


def _rounded_floats(column: pa.ChunkedArray, name: str) -> str | None:
    limit = EXACT_BELOW[column.type]
    values = np.asarray(column.cast(pa.float64()).fill_null(np.nan), float)
    long = values[np.isfinite(values) & (np.abs(values) >= limit)]
    if not len(long):
        return None
    power = int(np.log2(limit))
    kind = {pa.float16(): "float16", pa.float32(): "float32"}.get(column.type, "float64")
    return (
        f"column {name!r} holds names as {kind}, which holds whole numbers up to 2^{power} only: "
        f"{_shared(np.array([str(int(value)) for value in long], object))}; store the names as "
        "integers or text, from the original table"
    )


def _rounded_text(column: pa.ChunkedArray, name: str) -> str | None:
    marks = pc.or_(
        pc.match_substring_regex(column, SCIENTIFIC), pc.match_substring_regex(column, LONG_DECIMAL)
    )
    rounded = column.filter(pc.fill_null(marks, False))
    if not len(rounded):
        return None
    return (
        f"column {name!r} holds names written as floating-point numbers, as spreadsheets do, which "
        f"may have lost digits: {_shared(np.array(rounded.to_pylist(), object))}; store the names "
        "as integers or text, from the original table"
    )


def _shared(names: np.ndarray) -> str:
    """Say how many of some rounded names fall together."""
    values, counts = np.unique(names.astype(str), return_counts=True)
    most = counts.argmax()
    if counts[most] > 1:
        return f"{counts[most]} rows share {values[most]}"
    return f"one is {names[0]}"


def loose(names: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Write names as another table may: small letters; no leading zeros, `.0`, blanks and `_`.

    Examples
    --------
    >>> loose(pa.array(["007.0", "NGC 0007"])).to_pylist()
    ['7', 'ngc0007']
    """
    names = pc.utf8_lower(names)
    for pattern, put in ((r"[\s_]+", ""), (r"\.0*$", ""), (r"^0+(.)", r"\1")):
        names = pc.replace_substring_regex(names, pattern, put)
    return names
