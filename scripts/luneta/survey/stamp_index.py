"""Dealing a table of stamps to shards, before any job is planned."""

from __future__ import annotations

import string
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from luneta.code_digest import source_digest
from luneta.survey.images import split_extension
from luneta.survey.index import deal, digest_of, remembered, signature, slice_table
from luneta.survey.sources import select
from luneta.survey.tables import TableError, read_table


def _image_names(table: pa.Table, settings: Mapping, band: str) -> list[str]:
    root = Path(settings["table"]).parent
    wanted = [f for _, f, _, _ in string.Formatter().parse(settings["image"]) if f]
    missing = [name for name in wanted if name != "band" and name not in table.column_names]
    if missing:
        raise TableError(
            f"{settings['table']}: input.image = {settings['image']!r} asks for the column "
            f"{', '.join(missing)}; the table has {', '.join(table.column_names)}"
        )
    columns = {name: table[name].to_pylist() for name in wanted if name != "band"}
    rows = [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
    return [str(root / settings["image"].format(band=band, **row)) for row in rows]


def deal_stamps(settings: Mapping, folder: Path) -> dict[str, Path]:
    """Deal a table of stamps to shards in table order, with the paths and signatures of the images.

    Returns
    -------
    dict
        Path of each shard's slice.
    """
    names = [f for _, f, _, _ in string.Formatter().parse(settings["image"]) if f and f != "band"]
    table = read_table(settings["table"], [settings["columns"]["object_id"], *names])
    images = {b: _image_names(table, settings, b) for b in settings["bands"]}
    if "{band}" not in settings["image"]:
        images = dict.fromkeys(settings["bands"], images[settings["bands"][0]])
    signatures = [
        digest_of([signature(split_extension(n)[0]) for n in dict.fromkeys(row)])
        for row in zip(*images.values(), strict=True)
    ]
    digest = digest_of(
        [settings, signature(settings["table"]), signatures, source_digest(Path(__file__))]
    )
    if (paths := remembered(folder, digest)) is not None:
        return paths
    nowhere = np.full(len(table), "", object)
    sources = select(table, settings["columns"], settings["keep"], nowhere, settings["table"])
    extra = {f"image_{band}": values for band, values in images.items()}
    extra["signature"] = signatures
    size = settings["stamps_per_shard"]
    rows = np.arange(len(table))
    slices = {
        f"stamps_{start // size:05d}": slice_table(sources, rows[start : start + size], extra)
        for start in range(0, max(len(table), 1), size)
    }
    return deal(slices, folder, digest)
