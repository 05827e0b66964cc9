"""Dealing a survey-wide list to shards, before any job is planned.

A shard's slice is written only when its content changes, so that new rows of the list
concern only the shards they fall into.
"""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from luneta.code_digest import source_digest
from luneta.digests import digest
from luneta.files import DamagedFile, atomic_path, read_memory, sync_folder, write_json
from luneta.parquet import read_parquet, write_parquet
from luneta.seals import seal
from luneta.survey.fingerprints import fingerprint
from luneta.survey.footprints import (
    Footprint,
    NoFootprint,
    holders,
    is_unwatched,
    survey_footprints,
)
from luneta.survey.source_files import list_files
from luneta.survey.sources import OUTSIDE_REASON, Sources, read_lists
from luneta.survey.table_choice import split_table
from luneta.survey.tiles import UNPLACED, Tile
from luneta.urls import shown_url
from luneta.wording import counted

OBJECTS = "objects.arrow"
KEY = "key.json"
FILES = "signature"  # column of a slice of stamps: the versions of each object's files

log = logging.getLogger(__name__)


def signature(path: Path | str, index: Path) -> list:
    """Path and fingerprint of a file or folder; what tells a new delivery from the old one."""
    return [str(path), fingerprint(str(path), index)]


def slice_table(sources: Sources, rows: np.ndarray, extra: Mapping[str, list] | None) -> pa.Table:
    """Take rows of a list, with columns of one's own beside.

    Positions are in ICRS, and pixels count from zero, whatever they were in the list.
    """
    missing = sources.missing[rows]
    table = pa.table(
        {
            "object_id": pa.array(sources.object_id[rows], pa.string()),
            "ra": pa.array(sources.ra[rows], mask=missing),
            "dec": pa.array(sources.dec[rows], mask=missing),
            "tile": pa.array(sources.tile[rows], pa.string()),
            **_pixels(sources, rows),
            **{name: pa.array([values[r] for r in rows]) for name, values in (extra or {}).items()},
        }
    )
    taken = sources.kept.take(pa.array(rows)) if sources.kept.num_columns else sources.kept
    for field in sources.kept.schema:
        table = table.append_column(field, taken[field.name])
    return table


def _pixels(sources: Sources, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Pixel positions, where the list has any."""
    return {"x": sources.x[rows], "y": sources.y[rows]} if sources.on_a_pixel().any() else {}


def _digest(table: pa.Table) -> str:
    """Digest of a table's rows and schema."""
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return hashlib.blake2b(buffer.getbuffer(), digest_size=16).hexdigest()


def _write_if_changed(table: pa.Table, path: Path) -> None:
    """Write a slice, unless it is there; only its owner can read it if URLs in it hold secrets.

    The jobs of the shard need the full URLs. Who else may read the table that they come from can
    plan the survey, which writes the slice anew. `deal` brings the folder to the disk once for all
    slices; one that a power failure took has a wrong checksum, and is dealt again.
    """
    with suppress(OSError, DamagedFile):  # not there, damaged, or of another user
        if read_parquet(path).equals(table, check_metadata=True):
            return
    write_parquet(table, path, is_private=_holds_secrets(table), is_durable=False)


def _holds_secrets(table: pa.Table) -> bool:
    """Whether a slice names files by URLs of which a part is not to be shown."""
    kinds = ("image_", "mask_", "weight_")
    columns = [table[name] for name in table.column_names if name.startswith(kinds)]
    texts = (text for column in columns for text in pc.unique(column).to_pylist())
    return any(shown_url(text) != text for text in texts if isinstance(text, str))


def _known(folder: Path) -> dict:
    return read_memory(folder / KEY) or {"key": None, "shards": []}


def deal(slices: Mapping[str, pa.Table], folder: Path, key: str | None) -> dict[str, Path]:
    """Write the slices that changed, remove those of shards that are gone, remember the key.

    Parameters
    ----------
    slices : mapping
        Rows of each shard.
    folder : path
        Where the slices go; `key.json` there holds the digest of each.
    key : str or None
        Digest of all that the dealing depends on; None to deal again the next time.

    Returns
    -------
    dict
        Path of each shard's slice.
    """
    paths = {shard: folder / f"{shard}.parquet" for shard in slices}
    known, there = dict(_known(folder)["shards"]), set(folder.glob("*.parquet"))
    digests = {shard: _digest(table) for shard, table in slices.items()}
    for shard, table in slices.items():
        if known.get(shard) != digests[shard] or paths[shard] not in there:
            _write_if_changed(table, paths[shard])
    for old in there - set(paths.values()):
        old.unlink()
    sync_folder(folder)
    _write_objects(slices, folder / OBJECTS)
    content = {"key": key, "shards": list(digests.items())}
    write_json(folder / KEY, content, indent=None)
    return paths


def _write_objects(slices: Mapping[str, pa.Table], path: Path) -> None:
    """Write the name, shard and hash of each row, to tell later what has changed where.

    The versions of a stamp's files stay apart, as they are not of the list.
    """
    sizes = [len(table) for table in slices.values()]
    rows = pa.concat_tables(slices.values(), promote_options="permissive")
    beside = ("tile", OUTSIDE_REASON, FILES)
    not_of_the_list = [name for name in beside if name in rows.column_names]
    content = rows.drop_columns(not_of_the_list).to_pandas()
    shards = pa.DictionaryArray.from_arrays(
        pa.array(np.repeat(np.arange(len(sizes)), sizes), pa.int32()), pa.array(list(slices))
    )
    table = pa.table(
        {
            "object_id": rows["object_id"].combine_chunks(),
            "shard": shards,
            "content": pd.util.hash_pandas_object(content, index=False).to_numpy(),
            **({"files": rows[FILES].combine_chunks()} if FILES in rows.column_names else {}),
        }
    )
    with atomic_path(path) as temporary:
        with pa.ipc.new_file(temporary, table.schema) as writer:
            writer.write_table(table)
        seal(temporary)


def read_objects(path: Path) -> pa.Table:
    """Read what `deal` wrote of each row: `object_id`, `shard`, `content` (a hash), `files`.

    `files` are the versions of the files of a stamp, apart by blanks; tiles have none.
    """
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_file(source).read_all()


def shards_with(folder: Path, ids: Iterable[str]) -> set[str]:
    """Find the shards that hold any of the objects."""
    objects = read_objects(folder / OBJECTS)
    wanted = pc.is_in(objects["object_id"], pa.array(list(ids), pa.string()))
    return set(pc.unique(objects["shard"].filter(wanted)).to_pylist())


def remembered(folder: Path, key: str) -> dict[str, Path] | None:
    """The slices of an earlier planning, if nothing has changed since."""
    known = _known(folder)
    if known["key"] != key or not (folder / OBJECTS).exists():
        return None
    paths = {shard: folder / f"{shard}.parquet" for shard, _ in known["shards"]}
    there = set(folder.glob("*.parquet"))
    return paths if there.issuperset(paths.values()) else None


def deal_sources(
    settings: Mapping,
    tiles: Mapping[str, Tile],
    folder: Path,
    versions: Mapping[str, str | None],
) -> dict[str, Path]:
    """Deal a survey-wide source list to the shards of its tiles.

    A source that several tiles hold has a row for each, in the slice of that tile's shard, so
    that a new tile beside an old one leaves the old one's slice as it was.

    Parameters
    ----------
    settings : mapping
        The config's `input` section, as plain types.
    tiles : mapping
        Tiles by name.
    folder : path
        Where the slices go.
    versions : mapping
        Fingerprint of each image, by its name in the tile.

    Returns
    -------
    dict
        Path of each shard's slice; objects outside every tile make the shard `unplaced`.
    """
    names = list_files(settings)
    key = digest(
        [
            settings,
            repr(tiles),
            [[name, fingerprint(str(split_table(name)[0]), folder)] for name in names],
            source_digest(Path(__file__)),
            [versions.get(f.image) for tile in tiles.values() for f in tile.bands.values()],
        ]
    )
    if (paths := remembered(folder, key)) is not None:
        return paths
    sources = read_lists(names, settings)
    if settings["columns"].get("tile") is not None:
        rows, numbers = _placements_by_name(sources, tiles, str(settings["sources"]))
        return deal(_slices(sources, rows, numbers, tiles), folder, key)
    reference = settings["reference_band"] or settings["bands"][0]
    memory, remote = folder / "footprints.json", settings.get("remote")
    known = survey_footprints(tiles, reference, versions, memory, remote)
    rows, numbers = _placements_by_sky(sources, list(known.values()), remote)
    hidden = {n: found.reason for n, found in known.items() if isinstance(found, NoFootprint)}
    is_passing = any(footprint.is_passing for footprint in known.values())
    if is_passing or any(is_unwatched(tiles[name]) for name in hidden):
        key = None  # asked again the next time
    slices = _slices(sources, rows, numbers, tiles)
    if hidden and UNPLACED in slices:
        slices[UNPLACED] = _with_reason(slices[UNPLACED], _outside(hidden))
    return deal(slices, folder, key)


def _outside(hidden: Mapping[str, str]) -> str:
    """Say what "outside every tile" means where some tiles lie nobody knows where."""
    first = next(iter(hidden))
    count = f"{counted(len(hidden), 'tile')} {'has' if len(hidden) == 1 else 'have'}"
    return (
        f"the position lies outside every tile whose place is known; {count} no coordinate system "
        f"that can be read: tile {first}: {hidden[first]}"
    )


def _with_reason(table: pa.Table, reason: str) -> pa.Table:
    return table.append_column(OUTSIDE_REASON, pa.array([reason] * len(table), pa.string()))


def _placements_by_name(
    sources: Sources, tiles: Mapping[str, Tile], path: str
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the list and numbers of the tiles it names for them; number -1 for no tile."""
    number = {name: position for position, name in enumerate(tiles)}
    numbers = np.array([number.get(name, -1) for name in sources.tile], np.int64)
    if (lost := np.unique(sources.tile[numbers < 0].astype(str))).size:
        log.warning(
            "%s: %d rows are of tiles that the survey does not have: %s",
            path, (numbers < 0).sum(), ", ".join(lost[:10]),
        )  # fmt: skip
    return np.arange(len(numbers)), numbers


def _placements_by_sky(
    sources: Sources, footprints: Sequence[Footprint | NoFootprint], remote: Mapping | None
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the list and numbers of the tiles that hold them; number -1 for no tile.

    Sorted by row, then by depth.
    """
    good = np.flatnonzero(sources.on_the_sky())
    rows, numbers = holders(sources.ra[good], sources.dec[good], footprints, remote)
    rows = good[rows]
    outside = np.setdiff1d(np.arange(len(sources.ra)), rows)
    rows = np.concatenate([rows, outside])
    numbers = np.concatenate([numbers, np.full(len(outside), -1)])
    order = np.argsort(rows, kind="stable")
    return rows[order], numbers[order]


def _slices(
    sources: Sources, rows: np.ndarray, numbers: np.ndarray, tiles: Mapping[str, Tile]
) -> dict[str, pa.Table]:
    """Rows of each shard, in the order of the list."""
    shards = list(dict.fromkeys(tile.shard for tile in tiles.values()))
    position = {shard: n for n, shard in enumerate(shards)}
    of_tile = np.array([position[tile.shard] for tile in tiles.values()] + [len(shards)])
    order = np.argsort(of_tile[numbers], kind="stable")
    rows, numbers = rows[order], numbers[order]
    table = slice_table(sources, rows, None)
    # A tile that only the list knows stays named, so that `ingest` can tell.
    names = np.where(numbers < 0, sources.tile[rows], np.array([*tiles, ""], object)[numbers])
    column = table.schema.get_field_index("tile")
    table = table.set_column(column, "tile", pa.array(names, pa.string()))
    table = table.combine_chunks()
    bounds = np.searchsorted(of_tile[numbers], np.arange(len(shards) + 2))
    if bounds[-1] > bounds[-2]:
        shards.append(UNPLACED)
    return {s: table.slice(bounds[n], bounds[n + 1] - bounds[n]) for n, s in enumerate(shards)}
