"""Reading Parquet tables: a file, a folder of parts, a HATS catalog or collection."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from luneta.survey.arrow_columns import is_bytes, is_nested, with_missing
from luneta.survey.table_choice import Listing, TableError, require
from luneta.survey.votables import parse_votable
from luneta.survey.yaml_headers import read_units

HATS_PROPERTIES = ("hats.properties", "properties")
PARTITION_COLUMNS = ("Norder", "Dir", "Npix")
YAML = b"table_meta_yaml"
VOPARQUET = b"IVOA.VOTable-Parquet.content"
PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"RIFF", b"GIF8", b"II*\0", b"MM\0*")
LONGEST_START, SAMPLE_ROWS = 8, 4
LARGEST_GROUP = 2**29  # bytes of pictures that are read at once


class ParquetTable:
    """A table in one Parquet file or more.

    Attributes
    ----------
    tables : list of Listing
        The one table there is.
    """

    def __init__(self, path: Path):
        self._path = path
        self._parts = _dataset(path)
        schema = self._parts.schema
        plain = [field for field in schema if not _is_other(field, schema)]
        pictures = tuple(field.name for field in plain if self._holds_pictures(field))
        others = {f.name: _described(f.type) for f in plain if is_nested(f.type)}
        others |= dict.fromkeys(pictures, "a picture in each row")
        names = [field.name for field in plain if field.name not in others]
        self.tables = [Listing((), names, others, pictures=pictures)]

    def close(self) -> None:
        """Forget the files."""

    def _holds_pictures(self, field: pa.Field) -> bool:
        """Whether a column holds the bytes of pictures: a struct with them, or bytes alone."""
        if pa.types.is_struct(field.type):
            kinds = {part.name: part.type for part in field.type}
            return "bytes" in kinds and is_bytes(kinds["bytes"])
        return is_bytes(field.type) and self._first_value(field.name).startswith(PICTURE_STARTS)

    def _first_value(self, name: str) -> bytes:
        """First bytes of a column of bytes, in whatever row they are; none if all are missing."""
        for path in self._parts.files:
            with pq.ParquetFile(path) as file:
                first = next(_values(file, name), None)
            if first is not None:
                return first[:LONGEST_START] if isinstance(first, bytes) else b""
        return b""

    def read(self, table: Listing, columns: Sequence[str] | None) -> pa.Table:
        """Read columns, in the table's order; all if not given."""
        require(table, columns or (), self._path)
        schema = self._parts.schema
        wanted = [name for name in table.names if columns is None or name in columns]
        units = {**_astropy_units(schema), **_voparquet_units(schema, self._path)}
        masks = [
            n for n in schema.names if _is_mask(n, schema) and n.removesuffix(".mask") in wanted
        ]
        rows = self._with_uuids(self._parts.to_table(columns=[*wanted, *masks]))
        return _with_units(_masked(rows, masks), units)

    def _with_uuids(self, table: pa.Table) -> pa.Table:
        """Give UUIDs their type, which a dataset of files has lost."""
        known = pq.read_schema(self._parts.files[0])
        for position, name in enumerate(table.column_names):
            is_uuid = name in known.names and known.field(name).type == pa.uuid()
            if is_uuid and table.schema.field(name).type != pa.uuid():
                chunks = table.column(position).chunks
                column = [pa.ExtensionArray.from_storage(pa.uuid(), chunk) for chunk in chunks]
                table = table.set_column(position, name, pa.chunked_array(column, pa.uuid()))
        return table


def _values(file: pq.ParquetFile, name: str) -> Iterator[Any]:
    """Go through the values of a column that are not missing, a few rows at a time."""
    if name not in file.schema_arrow.names:
        return
    groups = range(file.num_row_groups)
    filled = [number for number in groups if not _is_empty(file.metadata.row_group(number), name)]
    batches = file.iter_batches(SAMPLE_ROWS, filled, [name], use_threads=False)
    for batch in batches if filled else ():
        yield from (value.as_py() for value in batch.column(0) if value.is_valid)


def _is_empty(group: pq.RowGroupMetaData, name: str) -> bool:
    """Whether the file says that all values of a column are missing."""
    parts = (group.column(number) for number in range(group.num_columns))
    known = next((part.statistics for part in parts if part.path_in_schema == name), None)
    return known is not None and known.has_null_count and known.null_count == group.num_rows


def _is_other(field: pa.Field, schema: pa.Schema) -> bool:
    return field.name in PARTITION_COLUMNS or _is_mask(field.name, schema)


def _is_mask(name: str, schema: pa.Schema) -> bool:
    """Whether a column is the mask that astropy writes beside a masked one."""
    masked = name.removesuffix(".mask")
    return masked != name and masked in schema.names and YAML in (schema.metadata or {})


def _described(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return f"several values in each row ({', '.join(field.name for field in kind)})"
    if pa.types.is_fixed_size_list(kind):
        return f"an array of {kind.list_size} values in each row"
    return "an array of values in each row"


def _properties(folder: Path, name: str) -> dict[str, str]:
    """Read a Java properties file, as HATS uses them."""
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and line[:1] not in "#!"]
    return {key.strip(): value.strip() for key, value in pairs}


def _primary_table(collection: Path) -> Path:
    """Find the folder of a HATS collection's main table, which must lie in that of the collection.

    Raises
    ------
    TableError
        If `collection.properties`, which others may have written, names none, or leads elsewhere.
    """
    name = _properties(collection, "collection.properties").get("hats_primary_table_url", "")
    if not name:
        raise TableError(f"{collection}/collection.properties names no hats_primary_table_url")
    inside = os.path.normpath(name)
    if "://" in name or os.path.isabs(inside) or inside.split("/")[0] in ("..", "."):  # noqa: PTH117
        raise TableError(
            f"{collection}/collection.properties: hats_primary_table_url = {name!r} is no folder "
            f"in {collection}; name the folder of the table itself in the config"
        )
    return collection / inside


def parquet_files(path: Path) -> list[Path]:
    """Find the files of a table: one of any format, a folder of Parquet parts, a HATS catalog.

    Raises
    ------
    TableError
        If a folder holds none, or a collection names a table outside its folder.
    FileNotFoundError
        If there is no such file or folder.
    """
    if path.is_file():
        return [path]
    if "*" in path.name and not path.exists():
        return sorted(path.parent.glob(path.name))
    if (path / "collection.properties").exists():
        return parquet_files(_primary_table(path))
    pattern = "*.parquet"
    if any((path / name).exists() for name in HATS_PROPERTIES):
        pattern = "Norder=*/**/*.parquet"
        path = path / "dataset" if (path / "dataset").is_dir() else path
    files = sorted(
        file
        for file in path.rglob(pattern)
        if file.is_file() and not file.name.startswith(("_", "."))
    )
    if not files and not path.exists():
        raise FileNotFoundError(path)
    if not files:
        raise TableError(f"{path}: the folder holds no Parquet file; name a table, or a folder")
    return files


def picture_rows(path: Path, column: str) -> tuple[list[str], list[int]]:
    """Find where the pictures of a table's rows lie.

    Returns
    -------
    files : list of str
        Parquet file of each row, in the order of the table.
    rows : list of int
        Row in that file.

    Raises
    ------
    TableError
        If a row group is too large to be read for the sake of some rows.
    """
    files, rows = [], []
    for file in map(str, parquet_files(path)):
        about = pq.read_metadata(file)
        _check_groups(file, about, column)
        files += [file] * about.num_rows
        rows += range(about.num_rows)
    return files, rows


def _check_groups(file: str, about: pq.FileMetaData, column: str) -> None:
    for number in range(about.num_row_groups):
        group = about.row_group(number)
        parts = (group.column(n) for n in range(group.num_columns))
        named = [part for part in parts if part.path_in_schema in (column, f"{column}.bytes")]
        if sum(part.total_uncompressed_size for part in named) > LARGEST_GROUP:
            raise TableError(
                f"{file}: {group.num_rows:,} pictures lie in one row group of more than "
                f"{LARGEST_GROUP:,} bytes, and a group is read whole; write the file anew with "
                f"pyarrow.parquet.write_table(table, file, row_group_size=1000)"
            )


def _dataset(path: Path) -> ds.Dataset:
    """Open Parquet parts as one table with the columns of all."""
    files = [str(file) for file in parquet_files(path)]
    _refuse_other_files(files[0])
    if len(files) == 1:
        return ds.dataset(files, format="parquet", partitioning=None)
    try:
        factory = _factory(files)
        return factory.finish(factory.inspect(promote_options="permissive", fragments=None))
    except pa.ArrowTypeError:  # text of several layouts, maybe
        schemas = [pa.schema([_plain(field) for field in pq.read_schema(f)]) for f in files]
        return _factory(files).finish(pa.unify_schemas(schemas, promote_options="permissive"))


def _refuse_other_files(file: str) -> None:
    """Refuse a file whose columns lie in other files, as those called _metadata."""
    with pq.ParquetFile(file) as opened:
        about = opened.metadata
    columns = range(about.num_columns) if about.num_row_groups else ()
    others = (about.row_group(0).column(n).file_path for n in columns)
    if (other := next(filter(None, others), None)) is not None:
        raise TableError(
            f"{file}: its columns lie in another file, {other!r}, which luneta does not open; name "
            "the folder of the table, not its summary"
        )


def _factory(files: list[str]) -> ds.FileSystemDatasetFactory:
    system, options = pa.fs.LocalFileSystem(), ds.FileSystemFactoryOptions()
    return ds.FileSystemDatasetFactory(system, files, ds.ParquetFileFormat(), options)


def _plain(field: pa.Field) -> pa.Field:
    """Field of a part as the parts have it in common: text of any layout is text."""
    kind = field.type
    while pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return field.with_type(pa.string() if is_text else kind)


def _masked(table: pa.Table, masks: Sequence[str]) -> pa.Table:
    """Make the values missing that the masks beside them say are."""
    for mask in masks:
        position = table.schema.get_field_index(mask.removesuffix(".mask"))
        column = with_missing(table.column(position), table[mask])
        table = table.set_column(position, table.schema.field(position), column)
    return table.drop_columns(list(masks))


def _astropy_units(schema: pa.Schema) -> dict[str, str]:
    """Units of a Parquet file written by astropy, which keeps them as YAML in its metadata."""
    content = (schema.metadata or {}).get(YAML)
    if content is None:
        return {}
    return read_units(content.decode().splitlines())


def _voparquet_units(schema: pa.Schema, path: Path) -> dict[str, str]:
    """Units of a VOParquet file, which packs the header of a VOTable into its metadata."""
    content = (schema.metadata or {}).get(VOPARQUET)
    if content is None:
        return {}
    header = parse_votable(io.BytesIO(content), path).get_first_table()
    return {field.name: str(field.unit) for field in header.fields if field.unit}


def _with_units(table: pa.Table, units: dict[str, str]) -> pa.Table:
    """Give fields their unit, and keep no metadata but that."""
    fields = []
    for field in table.schema:
        known = (field.metadata or {}).get(b"unit", b"").decode() or units.get(field.name)
        fields.append(pa.field(field.name, field.type, metadata={"unit": known} if known else None))
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))
