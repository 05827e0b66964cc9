"""Reading Parquet tables: a file, a folder of parts, a HATS catalog or collection."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds

from luneta.survey.arrow_columns import is_nested, with_missing
from luneta.survey.table_choice import Listing, TableError, require

HATS_PROPERTIES = ("hats.properties", "properties")
PARTITION_COLUMNS = ("Norder", "Dir", "Npix")
YAML = b"table_meta_yaml"
VOPARQUET = b"IVOA.VOTable-Parquet.content"


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
        names = [field.name for field in plain if not is_nested(field.type)]
        others = {f.name: _described(f.type) for f in plain if is_nested(f.type)}
        self.tables = [Listing((), names, others)]

    def close(self) -> None:
        """Forget the files."""

    def read(self, table: Listing, columns: Sequence[str] | None) -> pa.Table:
        """Read columns, in the table's order; all if not given."""
        require(table, columns or (), self._path)
        schema = self._parts.schema
        wanted = [name for name in table.names if columns is None or name in columns]
        units = {**_astropy_units(schema), **_voparquet_units(schema)}
        masks = [
            n for n in schema.names if _is_mask(n, schema) and n.removesuffix(".mask") in wanted
        ]
        return _with_units(_masked(self._parts.to_table(columns=[*wanted, *masks]), masks), units)


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


def parquet_files(path: Path) -> list[Path]:
    """Find the files of a Parquet table: one, a folder of parts, a HATS catalog or collection.

    Raises
    ------
    TableError
        If a folder holds none.
    FileNotFoundError
        If there is no such file or folder.
    """
    if path.is_file():
        return [path]
    if (path / "collection.properties").exists():
        named = _properties(path, "collection.properties")
        if "hats_primary_table_url" not in named:
            raise TableError(f"{path}/collection.properties names no hats_primary_table_url")
        return parquet_files(path / named["hats_primary_table_url"])
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


def _dataset(path: Path) -> ds.Dataset:
    """Open Parquet parts as one table with the columns of all."""
    files = [str(file) for file in parquet_files(path)]
    if len(files) == 1:
        return ds.dataset(files, format="parquet", partitioning=None)
    factory = ds.FileSystemDatasetFactory(
        pa.fs.LocalFileSystem(), files, ds.ParquetFileFormat(), ds.FileSystemFactoryOptions()
    )
    return factory.finish(factory.inspect(promote_options="permissive", fragments=None))


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
    from astropy.table.meta import get_header_from_yaml

    columns = get_header_from_yaml(content.decode().splitlines())["datatype"]
    return {column["name"]: str(column["unit"]) for column in columns if column.get("unit")}


def _voparquet_units(schema: pa.Schema) -> dict[str, str]:
    """Units of a VOParquet file, which packs the header of a VOTable into its metadata."""
    content = (schema.metadata or {}).get(VOPARQUET)
    if content is None:
        return {}
    from astropy.io import votable

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = votable.parse(io.BytesIO(content)).get_first_table()
    return {field.name: str(field.unit) for field in header.fields if field.unit}


def _with_units(table: pa.Table, units: dict[str, str]) -> pa.Table:
    """Give fields their unit, and keep no metadata but that."""
    fields = []
    for field in table.schema:
        known = (field.metadata or {}).get(b"unit", b"").decode() or units.get(field.name)
        fields.append(pa.field(field.name, field.type, metadata={"unit": known} if known else None))
    return pa.Table.from_arrays(table.columns, schema=pa.schema(fields))
