"""Reading tables of every format that astronomers keep lists in."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds

from luneta.survey.fits_headers import open_file, read_units, unreadable

ASTROPY_FORMATS = {
    ".fits": "fits",
    ".fit": "fits",
    ".fits.gz": "fits",
    ".fz": "fits",
    ".vot": "votable",
    ".votable": "votable",
    ".xml": "votable",
    ".ecsv": "ascii.ecsv",
}
DELIMITERS = {".csv": ",", ".tsv": "\t", ".csv.gz": ",", ".tsv.gz": "\t"}
PARQUET = (".parquet", ".pq")
HDF5 = (".h5", ".hdf5", ".hdf")
SUFFIXES = (*ASTROPY_FORMATS, *DELIMITERS, *PARQUET, *HDF5)
HATS_PROPERTIES = ("hats.properties", "properties")
PARTITION_COLUMNS = ("Norder", "Dir", "Npix")
YAML = b"table_meta_yaml"
VOPARQUET = b"IVOA.VOTable-Parquet.content"


class TableError(ValueError):
    """A table that cannot be read, or lacks a column; the message says how to mend it."""


def _suffix(path: Path) -> str:
    if path.is_dir():
        return ".parquet"
    name = path.name.lower()
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    raise TableError(
        f"{path}: the suffix {path.suffix!r} names no known table format; "
        f"rename the file to one of {', '.join(SUFFIXES)}, or name the folder of a HATS catalog"
    )


def _decoded(data: np.ndarray) -> np.ndarray:
    """Decode bytes as UTF-8; as Latin-1, which takes any byte, where they are not."""
    try:
        return np.char.decode(data, "utf-8")
    except UnicodeDecodeError:
        return np.char.decode(data, "latin-1")


def _arrow_column(column) -> pa.Array:
    values = np.ma.asarray(column)
    mask = np.ma.getmaskarray(values)
    data = values.data
    if data.dtype.kind == "S":
        data = _decoded(data)
    if data.dtype.kind == "U":
        data = np.char.strip(data, " \t")
    elif not data.dtype.isnative:
        data = data.astype(data.dtype.newbyteorder("="))
    return pa.array(data, mask=mask if mask.any() else None)


def _arrow_table(columns: dict, units: dict) -> pa.Table:
    """Put columns together; `units` are kept as field metadata."""
    arrays = {name: _arrow_column(column) for name, column in columns.items()}
    fields = [
        pa.field(name, array.type, metadata={"unit": str(units[name])} if units.get(name) else None)
        for name, array in arrays.items()
    ]
    return pa.table(list(arrays.values()), schema=pa.schema(fields))


def _check_fits(path: Path) -> None:
    """Read headers strictly: astropy takes a wrong NAXIS at its word, and a short file for whole.

    Raises
    ------
    ImageError
        If a header up to the first table's is wrong, or the table breaks off.
    """
    with open_file(path) as file:
        for unit in read_units(file, path):
            if "TABLE" in unit.kind:
                missing = unit.data + unit.size - path.stat().st_size
                if missing > 0 and isinstance(file, io.FileIO):
                    raise unreadable(path, f"is truncated: it ends {missing:,} bytes short")
                return


def _from_astropy(path: Path, form: str, columns: Sequence[str] | None) -> pa.Table:
    from astropy.table import Table

    if form == "fits":
        _check_fits(path)
    options = {"mask_invalid": False} if form == "fits" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = Table.read(path, format=form, **options)
    names = [name for name in table.colnames if _is_plain(table[name])]
    _require(names, columns or (), path)
    names = [name for name in names if columns is None or name in columns]
    return _arrow_table(
        {name: table[name] for name in names}, {name: table[name].unit for name in names}
    )


def _is_plain(column) -> bool:
    """Whether a column has one number or word a row: no arrays, times or coordinates."""
    from astropy.table import Column

    if not isinstance(column, Column) or column.ndim != 1:
        return False
    return column.dtype.kind != "O" or not any(np.ndim(value) for value in column[:1])


def _from_text(
    path: Path, delimiter: str, text_columns: Sequence[str], columns: Sequence[str] | None
) -> pa.Table:
    table = pa.csv.read_csv(
        path,
        parse_options=pa.csv.ParseOptions(delimiter=delimiter),
        convert_options=pa.csv.ConvertOptions(
            column_types={name: pa.string() for name in text_columns}
        ),
    )
    _ = table.column_names  # raises if they are not UTF-8
    return _picked(table, columns, path)


def _from_hdf5(path: Path, columns: Sequence[str] | None) -> pa.Table:
    """Read the one-dimensional datasets of an HDF5 file, or the fields of its first table."""
    import h5py

    with h5py.File(path) as file:
        sets = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
        tables = [item for item in sets.values() if item.dtype.names and item.ndim == 1]
        if tables:
            rows = tables[0][()]
            found = {name: rows[name] for name in rows.dtype.names if rows[name].ndim == 1}
        else:
            lists = {name: item for name, item in sets.items() if item.ndim == 1}
            length = max((len(item) for item in lists.values()), default=0)
            found = {name: item for name, item in lists.items() if len(item) == length}
        _require(list(found), columns or (), path)
        wanted = [name for name in found if columns is None or name in columns]
        values = {name: _hdf5_values(found[name]) for name in wanted}
        units = {name: _hdf5_unit(found[name]) for name in wanted}
    return _arrow_table(values, units)


def _hdf5_values(item) -> np.ndarray:
    values = np.asarray(item[()])
    if values.dtype.kind == "O":
        return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], str)
    return values


def _hdf5_unit(item) -> str | None:
    unit = getattr(item, "attrs", {}).get("unit")
    return unit.decode() if isinstance(unit, bytes) else unit


def _properties(folder: Path, name: str) -> dict[str, str]:
    """Read a Java properties file, as HATS uses them."""
    lines = (folder / name).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and line[:1] not in "#!"]
    return {key.strip(): value.strip() for key, value in pairs}


def _parquet_files(path: Path) -> list[Path]:
    """Find the files of a Parquet table: one, a folder of parts, a HATS catalog or collection."""
    if path.is_file():
        return [path]
    if (path / "collection.properties").exists():
        named = _properties(path, "collection.properties")
        if "hats_primary_table_url" not in named:
            raise TableError(f"{path}/collection.properties names no hats_primary_table_url")
        return _parquet_files(path / named["hats_primary_table_url"])
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
    files = [str(file) for file in _parquet_files(path)]
    if len(files) == 1:
        return ds.dataset(files, format="parquet", partitioning=None)
    factory = ds.FileSystemDatasetFactory(
        pa.fs.LocalFileSystem(), files, ds.ParquetFileFormat(), ds.FileSystemFactoryOptions()
    )
    return factory.finish(factory.inspect(promote_options="permissive", fragments=None))


def _parquet_names(schema: pa.Schema) -> list[str]:
    return [
        field.name
        for field in schema
        if not pa.types.is_nested(field.type)
        and field.name not in PARTITION_COLUMNS
        and not _is_mask(field.name, schema)
    ]


def _is_mask(name: str, schema: pa.Schema) -> bool:
    """Whether a column is the mask that astropy writes beside a masked one."""
    masked = name.removesuffix(".mask")
    return masked != name and masked in schema.names and YAML in (schema.metadata or {})


def _from_parquet(path: Path, columns: Sequence[str] | None) -> pa.Table:
    parts = _dataset(path)
    names = _parquet_names(parts.schema)
    _require(names, columns or (), path)
    wanted = [name for name in names if columns is None or name in columns]
    units = {**_astropy_units(parts.schema), **_voparquet_units(parts.schema)}
    masks = [n for n in parts.schema.names if _is_mask(n, parts.schema)]
    masks = [name for name in masks if name.removesuffix(".mask") in wanted]
    return _with_units(_masked(parts.to_table(columns=[*wanted, *masks]), masks), units)


def _masked(table: pa.Table, masks: Sequence[str]) -> pa.Table:
    """Make the values missing that the masks beside them say are."""
    for mask in masks:
        position = table.schema.get_field_index(mask.removesuffix(".mask"))
        field, column = table.schema.field(position), table.column(position)
        column = pc.if_else(table[mask], pa.scalar(None, field.type), column)
        table = table.set_column(position, field, column)
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


def _picked(table: pa.Table, columns: Sequence[str] | None, path: Path) -> pa.Table:
    if columns is None:
        return table
    _require(table.column_names, columns, path)
    return table.select([name for name in table.column_names if name in columns])


def _read(path: Path, suffix: str, text_columns, columns) -> pa.Table:
    if suffix in PARQUET:
        return _from_parquet(path, columns)
    if suffix in HDF5:
        return _from_hdf5(path, columns)
    if suffix in DELIMITERS:
        return _from_text(path, DELIMITERS[suffix], text_columns, columns)
    return _from_astropy(path, ASTROPY_FORMATS[suffix], columns)


def read_table(
    path: Path | str, text_columns: Sequence[str] = (), columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a table of any known format; units stay as field metadata `unit`.

    Formats: FITS, VOTable, ECSV, CSV, TSV, Parquet (a file, a folder of parts, a HATS catalog or
    collection) and HDF5. Columns of more than one dimension are left out.

    Parameters
    ----------
    path : path
        The format is chosen by the suffix; a folder is Parquet.
    text_columns : sequence of str
        Columns of a CSV or TSV that stay text, so that `007` is not read as 7.
    columns : sequence of str, optional
        Read these only, in the table's order; all if not given.

    Raises
    ------
    TableError
        If the suffix is unknown, a column is missing, or the file is missing or not what its
        suffix says.
    """
    path = Path(path)
    if not path.exists():
        raise _absent(path)
    suffix = _suffix(path)
    try:
        return _read(path, suffix, text_columns, columns)
    except TableError:
        raise
    except FileNotFoundError:
        raise _absent(path) from None
    except Exception as error:  # each reader has its own kinds of error for a broken file
        raise TableError(
            f"{path}: cannot be read as {suffix[1:]} ({type(error).__name__}: {error}); "
            f"check that the file is whole and that its suffix tells its format"
        ) from error


def _absent(path: Path) -> TableError:
    return TableError(f"{path}: there is no such file; check the path in the config")


def table_columns(path: Path | str) -> list[str]:
    """Name the columns of a table, without reading its rows where the format is Parquet.

    Raises
    ------
    TableError
        As `read_table`.
    """
    path = Path(path)
    if not path.exists() or _suffix(path) not in PARQUET:
        return read_table(path).column_names
    try:
        return _parquet_names(_dataset(path).schema)
    except (OSError, pa.ArrowInvalid):
        return read_table(path).column_names  # fails too, and says why


def _require(found: Sequence[str], names: Sequence[str], path: Path | str) -> None:
    missing = [name for name in dict.fromkeys(names) if name not in found]
    if missing:
        raise TableError(
            f"{path}: there is no column {', '.join(map(repr, missing))}; the table has "
            f"{', '.join(found)}. Correct the column mapping in the config"
        )


def require_columns(table: pa.Table, names: Sequence[str], path: Path | str) -> None:
    """Raise TableError unless the table has the columns."""
    _require(table.column_names, names, path)


def is_text(column: pa.ChunkedArray) -> bool:
    """Whether a column holds text."""
    return pa.types.is_string(column.type) or pa.types.is_large_string(column.type)


def text(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """Read a column of names, numbers included, as text; shape (objects,), object.

    Blanks around a name go, as FITS pads with them; all other characters stay as they are.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    if not is_text(column):
        return np.array([_written(v) for v in column.to_pylist()], object)
    column = pc.utf8_trim(column, characters=" \t\r\n").fill_null("")
    return np.array(column.to_pylist(), object)


def _written(value) -> str:
    """Write a name that is not text; missing and not-a-number are empty, 7.0 is 7."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return str(value).strip(" \t\r\n")
