"""The small files of a HATS collection: properties, partitions, schema, footers, sky map.

They tell of the whole catalog, and are written anew by every run; none holds a time of day.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hats.catalog import PartitionInfo, TableProperties
from hats.catalog.dataset.collection_properties import CollectionProperties
from hats.io.file_io.file_io import get_parquet_write_table_kwargs
from hats.io.skymap import write_skymap
from hats.pixel_math.healpix_shim import order2npix
from hats.pixel_math.spatial_index import SPATIAL_INDEX_ORDER

from luneta.catalog.leaves import replace_if_changed
from luneta.catalog.partition import Partitions
from luneta.catalog.schema import HEALPIX

COLLECTION = "collection.properties"
HATS_VERSION = "v1.0"  # of the IVOA note that the layout follows
ROW_GROUP = 100_000
SKYMAP_ORDER = 7
KILOBYTE = 1024


def write_options(schema: pa.Schema, settings: Mapping, sort: Sequence[str]) -> dict[str, Any]:
    """Choose how a leaf is written: as hats does, compressed by the config, with checksums.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the leaf.
    settings : mapping
        `compression_level`.
    sort : sequence of str
        Columns by which its rows are sorted.
    """
    chosen = {
        "compression": "zstd",
        "compression_level": settings["compression_level"],
        "row_group_size": ROW_GROUP,
        "write_page_checksum": True,
        "sorting_columns": [pq.SortingColumn(schema.get_field_index(name)) for name in sort],
    }
    return get_parquet_write_table_kwargs(schema, write_table_kwargs=chosen)


def _as_written(write) -> dict[str, bytes]:
    """Let hats write into an empty folder, and give what it wrote by name."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}


def _install(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        replace_if_changed(folder / name, content)


def builder() -> dict[str, str]:
    """Say which program wrote a catalog, for its properties."""
    ours = f"luneta v{metadata.version('luneta')}, hats v{metadata.version('hats')}"
    return {"hats_builder": ours, "hats_version": HATS_VERSION}


def table_properties(kind: str, name: str, leaves: Mapping[str, Mapping], **others) -> dict:
    """Collect the properties that every catalog of a collection has.

    Parameters
    ----------
    kind : {"object", "margin", "index"}
        Type of the catalog.
    name : str
        Its name.
    leaves : mapping
        Its part of the manifest.
    **others
        Further properties, by the names of hats; those that are None are left out.
    """
    rows = [about["rows"] for about in leaves.values()]
    size = sum(about["bytes"] for about in leaves.values())
    return {
        "catalog_name": name,
        "catalog_type": kind,
        "total_rows": sum(rows),
        "hats_max_rows": max(rows, default=0),
        "hats_estsize": -(-size // KILOBYTE),
        **builder(),
        **{key: value for key, value in others.items() if value is not None},
    }


POSITIONS = {
    "ra_column": "ra",
    "dec_column": "dec",
    "healpix_column": HEALPIX,
    "healpix_order": SPATIAL_INDEX_ORDER,
    "hats_frame": "ICRS",
}


def write_properties(folder: Path, properties: Mapping) -> None:
    """Write `hats.properties` of a catalog, and `properties`, which older readers look for."""
    made = TableProperties(**properties)
    _install(folder, _as_written(made.to_properties_file))


def write_collection(folder: Path, properties: Mapping) -> None:
    """Write `collection.properties`: the last file to be written, and the one to open."""
    made = CollectionProperties(**properties)
    _install(folder, _as_written(made.to_properties_file))


def write_partition_info(folder: Path, partitions: Partitions) -> None:
    """Write `partition_info.csv`: order and pixel of each partition."""
    info = PartitionInfo.from_healpix(partitions.pixels)
    _install(folder, _as_written(lambda path: info.write_to_file(catalog_path=path)))


def write_skymap_of(folder: Path, cells: np.ndarray, counts: np.ndarray, order: int) -> int:
    """Write `skymap.fits`, how many rows each pixel of the sky holds; give its order.

    Parameters
    ----------
    folder : path
        Of the catalog.
    cells, counts : numpy.ndarray
        Pixels that hold rows, and how many, int64; one may come more than once.
    order : int
        Of the pixels.
    """
    drawn = min(order, SKYMAP_ORDER)
    histogram = np.zeros(order2npix(drawn), np.int64)
    np.add.at(histogram, cells >> 2 * (order - drawn), counts)
    _install(folder, _as_written(lambda path: write_skymap(histogram, path)))
    return drawn


def write_schemas(
    folder: Path, leaves: Sequence[str], leaf_schema: pa.Schema, schema: pa.Schema, footers: bool
) -> None:
    """Write `dataset/_common_metadata` and `dataset/_metadata`.

    Parameters
    ----------
    folder : path
        Of the catalog.
    leaves : sequence of str
        Paths of its leaves, relative to the folder `dataset`, in order.
    leaf_schema, schema : pyarrow.Schema
        Of the leaves, and of the catalog as a whole, which differs in file-level keys alone.
    footers : bool
        Whether the footers of all leaves are put together in `_metadata`.
    """
    dataset = folder / "dataset"
    _install(
        dataset, _as_written(lambda path: pq.write_metadata(schema, path / "_common_metadata"))
    )
    if not footers:
        (dataset / "_metadata").unlink(missing_ok=True)
        return
    found = []
    for leaf in leaves:
        footer = pq.read_metadata(dataset / leaf)
        footer.set_file_path(leaf)
        found.append(footer)
    _install(
        dataset,
        _as_written(
            lambda path: pq.write_metadata(
                leaf_schema, path / "_metadata", metadata_collector=found or None
            )
        ),
    )
