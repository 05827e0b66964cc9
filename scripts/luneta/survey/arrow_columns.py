"""Columns of tables as Arrow holds them: of plain types, missing where the file says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BLANKS = " \t\r\n"


def decoded(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Decode bytes as UTF-8; as Latin-1, which takes any byte, where they are not."""
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, UnicodeDecodeError):
        words = [None if v is None else v.decode("latin-1") for v in column.to_pylist()]
    return pa.array(words, pa.string())


def text_of_bytes(data: np.ndarray) -> pa.Array:
    """Read fixed-width bytes, shape (rows,), as text: it ends at a NUL or before blanks.

    What is empty is missing, as no format with such fields can tell the two apart.
    """
    width = data.dtype.itemsize
    if not width:
        return pa.nulls(len(data), pa.string())
    data = np.ascontiguousarray(data)
    fixed = pa.Array.from_buffers(pa.binary(width), len(data), [None, pa.py_buffer(data)])
    words = pc.utf8_rtrim(decoded(fixed.cast(pa.binary())), "\0")
    if pc.any(pc.match_substring(words, "\0")).as_py():
        words = pc.replace_substring_regex(words, r"(?s)\0.*", "")
    return empty_to_null(pc.utf8_trim(words, " \t"))


def empty_to_null(words: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Make empty text missing."""
    return pc.if_else(pc.equal(words, ""), pa.scalar(None, words.type), words)


def array_column(values: np.ndarray, missing: np.ndarray | None = None) -> pa.Array:
    """Put numbers, booleans or text, shape (rows,), of any byte order into an Arrow array.

    Parameters
    ----------
    missing : numpy.ndarray, optional
        Shape (rows,), bool.
    """
    if values.dtype.kind == "S":
        words = text_of_bytes(values)
        return words if missing is None else with_missing(words, pa.array(missing))
    if values.dtype.kind == "U":
        words = empty_to_null(pc.utf8_trim(pa.array(values, pa.string()), " \t"))
        return words if missing is None else with_missing(words, pa.array(missing))
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    is_there = missing is None or not missing.any()
    return pa.array(values, mask=None if is_there else missing)


def object_column(values: Sequence) -> pa.Array:
    """Put Python objects into an Arrow array: text, or numbers all of one kind."""
    values = _words_of_bytes(values)
    words = pa.array(values, pa.string()) if all(_is_word(v) for v in values) else pa.array(values)
    return empty_to_null(pc.utf8_trim(words, " \t")) if pa.types.is_string(words.type) else words


def _words_of_bytes(values: Sequence) -> list:
    """Decode bytes as `decoded` does: all as UTF-8, or else all as Latin-1."""
    for encoding in ("utf-8", "latin-1"):
        try:
            return [v.decode(encoding) if isinstance(v, bytes) else v for v in values]
        except UnicodeDecodeError:
            continue
    raise AssertionError("Latin-1 takes any byte")


def _is_word(value) -> bool:
    return value is None or isinstance(value, str)


def with_missing(column, missing):
    """Make the values missing where `missing` (Arrow booleans) is true."""
    return pc.if_else(pc.fill_null(missing, False), pa.scalar(None, column.type), column)


def table_of(columns: Mapping[str, pa.Array], units: Mapping[str, object]) -> pa.Table:
    """Put columns together; `units` are kept as field metadata."""
    fields = [
        pa.field(name, array.type, metadata=_about(units.get(name)))
        for name, array in columns.items()
    ]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def _about(unit) -> dict[str, str] | None:
    return {"unit": str(unit)} if unit is not None and str(unit).strip() else None


def is_nested(kind: pa.DataType) -> bool:
    """Whether a column of this type has more than one value a row."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return pa.types.is_nested(kind)


def plain_table(table: pa.Table) -> pa.Table:
    """Cast columns to plain types, once for all that read the table: see `plain_column`."""
    columns = [plain_column(column) for column in table.columns]
    fields = [
        pa.field(field.name, column.type, metadata=field.metadata)
        for field, column in zip(table.schema, columns, strict=True)
    ]
    return pa.table(columns, schema=pa.schema(fields))


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cast a column to a type that every reader of the catalog knows.

    Text of any layout (large, view, dictionary, run-end encoded) is `string`; bytes are text;
    dictionaries are their values; float16 is float32; decimals are whole numbers or, where they
    have a fraction, float64.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_extension(column)
    if pa.types.is_dictionary(kind):
        return plain_column(column.cast(kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        chunks = [pc.run_end_decode(chunk) for chunk in column.chunks]
        return plain_column(pa.chunked_array(chunks, kind.value_type))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if is_bytes(kind):
        return pa.chunked_array([decoded(_as_binary(c)) for c in column.chunks], pa.string())
    if pa.types.is_float16(kind):
        return column.cast(pa.float32())
    return _plain_decimal(column) if pa.types.is_decimal(kind) else column


def _plain_extension(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cast a column of an extension type to what it is stored as; a UUID is written out."""
    if column.type == pa.uuid():
        words = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.chunked_array([words], pa.string())
    storage = [chunk.storage for chunk in column.chunks]
    return plain_column(pa.chunked_array(storage, column.type.storage_type))


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds bytes, of any layout."""
    return kind != pa.uuid() and (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


def _as_binary(chunk: pa.Array) -> pa.Array:
    return chunk.cast(pa.large_binary() if chunk.nbytes > 2**31 - 1 else pa.binary())


def _plain_decimal(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Cast decimals to int64, to text where they are too large for it, or to float64."""
    if column.type.scale > 0:
        return column.cast(pa.float64())
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return pa.chunked_array([[None if v is None else str(v) for v in column.to_pylist()]])
