"""Which files a catalog consists of, and which shards decide each of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from luneta.catalog import index
from luneta.catalog.leaves import Leaf
from luneta.catalog.partition import (
    NOWHERE,
    Partitions,
    healpix_of,
    partition,
    partitions_beside,
    shift_to,
    whole_sky,
)
from luneta.catalog.rows import Shard, check_rows, kept_rows
from luneta.digests import digest, file_digest
from luneta.parquet import read_parquet


@dataclass(frozen=True)
class Seen:
    """What the first look at a shard tells.

    Attributes
    ----------
    name : str
        Of the shard.
    digest : str
        Of all that its rows of the catalog are made of.
    cells, counts : numpy.ndarray
        Pixels of the highest order, and how many of its rows lie in each, int64.
    without : int
        Rows of the catalog without a position.
    names : tuple of str
        The first and the last name of its rows with a position; empty if it has none.
    cuts : numpy.ndarray
        Names before which the index is cut, object.
    """

    name: str
    digest: str
    cells: np.ndarray
    counts: np.ndarray
    without: int
    names: tuple[str, ...]
    cuts: np.ndarray


def _rows_digest(rows: pd.DataFrame) -> str:
    return digest(rows.drop(columns="shard", errors="ignore").astype(str).to_numpy().tolist())


def _clusters_digest(shard: Shard) -> list[str]:
    """Digest what the clusters say of a shard, which are in one file of all shards."""
    found = []
    for path in shard.clusters:
        table = read_parquet(path, filters=pc.field("shard") == shard.name).combine_chunks()
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, table.schema.remove_metadata()) as writer:
            writer.write_table(table.replace_schema_metadata(None))
        found.append(digest(stream.getvalue().to_pybytes().hex()))
    return found


def look(shard: Shard, settings: Mapping) -> Seen:
    """Look at a shard for the first time: where its objects are, and what decides its rows.

    Parameters
    ----------
    shard : Shard
        Its files.
    settings : mapping
        The section `catalog` of the config.

    Raises
    ------
    luneta.catalog.rows.CatalogError
        If its quality file lists other objects.
    """
    order = settings["highest_order"]
    table = read_parquet(shard.objects, columns=["object_id", "ra", "dec"])
    beside = read_parquet(shard.quality, columns=["object_id"])["object_id"]
    check_rows(table["object_id"], beside, shard.quality, shard.name)
    table = table.filter(pa.array(kept_rows(shard)))
    healpix = healpix_of(*(table[name].to_numpy().astype(float) for name in ("ra", "dec")))
    placed = healpix != NOWHERE
    cells, counts = np.unique(healpix[placed] >> shift_to(order), return_counts=True)
    names, cut = (), np.empty(0, object)
    if placed.any():
        ids = table["object_id"].filter(pa.array(placed))
        ends = pc.min_max(ids).as_py()
        names = ends["min"], ends["max"]
        if settings["index"]:
            cut = index.cuts(ids.to_numpy(), settings["rows_per_partition"])
    files = [shard.objects, shard.quality, *shard.predictions.values()]
    made_of = digest(
        {
            "files": [file_digest(path) for path in files],
            "tasks": list(shard.predictions),
            "clusters": _clusters_digest(shard),
            "lost": _rows_digest(shard.lost),
            "again": shard.again.tolist(),
            "policies": dict(shard.policies),
        }
    )
    return Seen(shard.name, made_of, cells, counts, int((~placed).sum()), names, cut)


def pixel_path(catalog: str, order: int, pixel: int) -> str:
    """Give the path of a partition's file, as hats lays them out, from the collection's folder."""
    folder = pixel // index.DIRECTORY * index.DIRECTORY
    return f"{catalog}/dataset/Norder={order}/Dir={folder}/Npix={pixel}.parquet"


class Layout:
    """The leaves of a catalog.

    Parameters
    ----------
    survey : str
        Name of the catalog.
    seen : sequence of Seen
        All shards.
    settings : mapping
        The section `catalog` of the config.
    common : str
        Digest of what decides every leaf: columns, code, the packages that write.

    Attributes
    ----------
    partitions : Partitions
        Of the catalog.
    sky : Partitions
        The same with the empty pixels between them; each may have a margin.
    cuts : numpy.ndarray
        Names before which the index is cut, sorted.
    leaves : dict
        `Leaf` by path. Margins and parts of the index may turn out to have no rows.
    wants : dict
        By the name of a shard, the paths of the leaves that its rows may go to.
    """

    def __init__(self, survey: str, seen: Sequence[Seen], settings: Mapping, common: str):
        self.primary, self.index = survey, f"{survey}_index" if settings["index"] else None
        self.margin = f"{survey}_{settings['margin']:g}arcs" if settings["margin"] else None
        self.order, self.radius = settings["highest_order"], settings["margin"]
        cells, counts = (np.concatenate([getattr(s, n) for s in seen]) for n in ("cells", "counts"))
        self.partitions = partition(cells, counts, settings)
        self.sky = whole_sky(self.partitions) if self.margin else self.partitions
        self.cuts = np.unique(np.concatenate([one.cuts for one in seen]))
        self._made_of: dict[str, list] = defaultdict(list)
        self.wants: dict[str, set[str]] = {}
        for one in sorted(seen, key=lambda one: one.name):
            self.wants[one.name] = self._note(one)
        self.leaves = {
            path: Leaf(path, digest([common, path, made_of]))
            for path, made_of in sorted(self._made_of.items())
        }

    @cached_property
    def primary_paths(self) -> list[str]:
        """Paths of the partitions, in their order."""
        return self._paths(self.primary, self.partitions)

    @cached_property
    def margin_paths(self) -> list[str]:
        """Paths of the margins of the whole sky's pixels, in their order."""
        return self._paths(self.margin, self.sky) if self.margin else []

    @cached_property
    def index_paths(self) -> list[str]:
        """Paths of the parts of the index, in the order of the names."""
        if not self.index:
            return []
        return [f"{self.index}/dataset/index/{name}" for name in index.part_names(self.cuts)]

    @staticmethod
    def _paths(catalog: str, partitions: Partitions) -> list[str]:
        pairs = zip(partitions.order.tolist(), partitions.pixel.tolist(), strict=True)
        return [pixel_path(catalog, *pair) for pair in pairs]

    def _note(self, one: Seen) -> set[str]:
        """Note what a shard decides; give the leaves its rows may go to."""
        if not one.names:
            return set()
        own = np.unique(self.partitions.number_of(one.cells << shift_to(self.order)))
        mine = [self.primary_paths[number] for number in own]
        wanted = {path: [one.name, one.digest] for path in mine}
        if self.margin:
            for number in partitions_beside(one.cells, self.order, self.sky):
                wanted[self.margin_paths[number]] = [one.name, one.digest]
        if self.index:
            first, last = index.part_of(np.array(one.names, object), self.cuts)
            for path in self.index_paths[first : last + 1]:
                wanted[path] = [one.name, one.digest, mine]
        for path, made_of in wanted.items():
            self._made_of[path].append(made_of)
        return set(wanted)

    @property
    def catalogs(self) -> list[str]:
        """Names of the collection's catalogs."""
        return [name for name in (self.primary, self.margin, self.index) if name]

    def kind_of(self, path: str) -> str:
        """Name the catalog that a leaf belongs to."""
        return path.split("/", 1)[0]
