"""What is told of a catalog as a whole: properties, schemas, partitions, a map of the sky."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from luneta.catalog import hats_files, index, schema
from luneta.catalog.layout import Layout
from luneta.catalog.partition import Partitions
from luneta.catalog.rows import CatalogError
from luneta.config.fields import did_you_mean
from luneta.digests import digest

WRITERS = ("pyarrow", "hats", "astropy")
SORT = (schema.HEALPIX, "object_id")


@dataclass(frozen=True)
class Job:
    """What all shards and leaves of a catalog have in common.

    Attributes
    ----------
    folder : pathlib.Path
        Of the collection.
    survey : str
        Its name, and that of the catalog in it.
    columns : list of schema.Column
        Of the catalog, without `_healpix_29`.
    default_columns : list of str
        Those of them that LSDB reads when it is told none.
    epoch : float or None
        Year that the positions are of.
    settings : mapping
        The section `catalog` of the config, and `code`, a digest of this program.
    facts : mapping
        Provenance; only in files of the whole catalog.
    """

    folder: Path
    survey: str
    columns: list[schema.Column]
    default_columns: list[str]
    epoch: float | None
    settings: Mapping
    facts: Mapping[str, str]

    @property
    def leaf_columns(self) -> list[schema.Column]:
        """Columns of a partition."""
        return [schema.HEALPIX_COLUMN, *self.columns]

    @property
    def common(self) -> str:
        """Digest of what decides every leaf."""
        about = {
            "columns": [[c.name, str(c.type), c.unit, c.ucd, c.description] for c in self.columns],
            "compression_level": self.settings["compression_level"],
            "survey": self.survey,
            "writers": {name: metadata.version(name) for name in WRITERS},
            "code": self.settings["code"],
        }
        return digest(about)


def default_columns(columns: Sequence[schema.Column], settings: Mapping) -> list[str]:
    """Choose the columns that LSDB reads when it is told none.

    Raises
    ------
    CatalogError
        If the config names one that the catalog has not.
    """
    first = ["object_id", "ra", "dec", "tile", "flags", *settings["keep"]]
    for task, shape in settings["tasks"].items():
        first += [f"{task}_class", *(f"{task}_{name}_probability" for name in shape["classes"])]
        first += [f"{task}_outlier", f"{task}_model_id"]
    there = {column.name for column in columns}
    given = [n for n in settings["catalog"]["default_columns"] if n != schema.HEALPIX]
    for name in given:
        if name not in there:
            raise CatalogError(
                f"catalog.default_columns = {name!r}: the catalog has no such column; "
                f"{did_you_mean(name, sorted(there))}"
            )
    return given or [name for name in first if name in there]


def leaves_of(leaves: Mapping[str, Mapping], catalog: str = "") -> dict[str, Mapping]:
    """Those leaves of the manifest that have rows, of all catalogs or of one."""
    beginning = f"{catalog}/" if catalog else ""
    return {p: about for p, about in leaves.items() if about["rows"] and p.startswith(beginning)}


def _some(partitions: Partitions, paths: Sequence[str], found: Mapping) -> Partitions:
    """Those partitions whose leaf has rows."""
    chosen = np.array([path in found for path in paths], bool)
    values = (partitions.order, partitions.pixel, partitions.rows)
    return Partitions(*(value[chosen] for value in values))


class Collection:
    """The small files of a collection whose leaves are written.

    Parameters
    ----------
    job : Job
        What all leaves have in common.
    layout : Layout
        Which leaves there are.
    leaves : mapping
        Of the manifest, by path.
    """

    def __init__(self, job: Job, layout: Layout, leaves: Mapping[str, Mapping]):
        self._job, self._layout, self._leaves = job, layout, leaves

    def write_catalogs(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
        """Write what belongs to each catalog; give the properties of the collection.

        Parameters
        ----------
        cells, counts : numpy.ndarray
            Pixels of the layout's order that hold rows, and how many, int64.
        """
        self._write_primary(cells, counts)
        properties = {
            "name": self._job.survey,
            "hats_primary_table_url": self._layout.primary,
            **hats_files.builder(),
            **{key: value for key, value in self._told.items() if value},
        }
        if name := self._layout.margin:
            self._write_margin()
            properties |= {"all_margins": [name], "default_margin": name}
        if name := self._layout.index:
            self._write_index()
            properties |= {"all_indexes": {"object_id": name}, "default_index": "object_id"}
        return properties

    @cached_property
    def _told(self) -> dict[str, str]:
        settings = self._job.settings
        return {"obs_title": settings["title"], "hats_creator": settings["creator"]}

    @cached_property
    def _shown(self) -> dict[str, Any]:
        """Properties of a catalog of objects: what its columns are."""
        return {
            "default_columns": self._job.default_columns or None,
            "hats_cols_sort": " ".join(SORT),
            "hats_cols_survey_id": "object_id",
            "hats_coordinate_epoch": self._job.epoch and f"J{self._job.epoch:g}",
            **hats_files.POSITIONS,
        }

    def _write_primary(self, cells: np.ndarray, counts: np.ndarray) -> None:
        name, order = self._layout.primary, self._layout.order
        folder = self._job.folder / name
        covered = len(np.unique(cells)) / (12 * 4**order)
        about = {
            **self._shown,
            **self._told,
            "skymap_order": hats_files.write_skymap_of(folder, cells, counts, order),
            "moc_sky_fraction": float(f"{covered:.5g}"),
            **self._job.facts,
        }
        hats_files.write_partition_info(folder, self._layout.partitions)
        self._write_schemas(name, self._layout.primary_paths)
        self._write_properties("object", name, about)

    def _write_margin(self) -> None:
        name, paths = self._layout.margin, self._layout.margin_paths
        found = leaves_of(self._leaves, name)
        partitions = _some(self._layout.sky, paths, found)
        hats_files.write_partition_info(self._job.folder / name, partitions)
        self._write_schemas(name, [path for path in paths if path in found])
        about = {"primary_catalog": self._layout.primary, "margin_threshold": self._layout.radius}
        self._write_properties("margin", name, {**about, **self._shown})

    def _write_index(self) -> None:
        name = self._layout.index
        found = leaves_of(self._leaves, name)
        paths = [path for path in self._layout.index_paths if path in found]
        columns = schema.arrow_schema(self._job.survey, index.COLUMNS)
        self._write_footers(name, paths, (columns, columns), True)
        about = {"primary_catalog": self._layout.primary, "indexing_column": "object_id"}
        self._write_properties("index", name, about)

    def _write_properties(self, kind: str, name: str, about: Mapping) -> None:
        found = leaves_of(self._leaves, name)
        properties = hats_files.table_properties(kind, name, found, **about)
        hats_files.write_properties(self._job.folder / name, properties)

    def _write_schemas(self, name: str, paths: Sequence[str]) -> None:
        """Write the schema of a catalog of objects, with the provenance in that of the whole."""
        columns = self._job.survey, self._job.leaf_columns
        schemas = schema.arrow_schema(*columns), schema.arrow_schema(*columns, self._job.facts)
        self._write_footers(name, paths, schemas, self._job.settings["footers"])

    def _write_footers(
        self, name: str, paths: Sequence[str], schemas: tuple[pa.Schema, pa.Schema], all_of: bool
    ) -> None:
        names = [path.removeprefix(f"{name}/dataset/") for path in paths]
        hats_files.write_schemas(self._job.folder / name, names, *schemas, all_of)
