"""The tiles of a survey in their shards; which tile is in which shard is written down once."""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pyarrow.compute as pc

from luneta.files import DamagedFile, copy_of, parse_json, read_twice, write_twice
from luneta.parquet import read_parquet
from luneta.survey.patterns import match_tiles
from luneta.survey.tiles import UNPLACED, BandFiles, Tile, TileTableError, read_tiles

HEADER = "tile\tshard"
CHECKSUM = b"# crc32 of the lines above: "
LAST_RUN = "last_run.json"
MOST_NEW_SHARDS = 1000


def survey_tiles(given: Mapping, ledger: Path | None = None) -> dict[str, Tile]:
    """Find the tiles of a survey, from its table or by its file patterns, and their shards.

    Parameters
    ----------
    given : mapping
        The config's `input` section of kind `tiles`, as plain types.
    ledger : path, optional
        Table of tiles and shards, kept from run to run; see `in_shards`.

    Returns
    -------
    dict
        `Tile` by name, in table order or sorted by name; of the bands, those of the config.

    Raises
    ------
    TileTableError
        If the table cannot be used, or the patterns match nothing or one band twice.
    """
    by_table = given["tiles"] is not None
    tiles = read_tiles(given["tiles"], given["root"]) if by_table else match_tiles(given)
    planes = {band: number for number, band in enumerate(given["bands"])} | given["planes"]
    tiles = {name: _with_planes(tile, given["bands"], planes) for name, tile in tiles.items()}
    if ledger is None:
        return tiles
    return in_shards(tiles, given["tiles_per_shard"], ledger)


def _with_planes(tile: Tile, bands: list[str], planes: Mapping[str, int]) -> Tile:
    """Keep the wanted bands of a tile, each with its plane."""
    kept = {
        band: BandFiles(files.image, files.mask, files.weight, planes[band])
        for band, files in tile.bands.items()
        if band in bands
    }
    return Tile(tile.name, tile.shard, kept)


def in_shards(tiles: Mapping[str, Tile], size: int | None, ledger: Path) -> dict[str, Tile]:
    """Put tiles into shards of `size` tiles, in the order they come.

    Known tiles stay where they are, new ones make new shards. A last shard that is not full is
    never filled up, as that would compute it again. Tiles that the table gives a shard of
    another name keep it.

    Parameters
    ----------
    tiles : mapping
        Tiles by name.
    size : int or None
        Tiles a shard; if None, one, or as many as keep the new tiles to 1,000 shards.
    ledger : path
        Tab-separated table of tile and shard; new tiles are added to it, none is ever removed.

    Raises
    ------
    TileTableError
        If the ledger is no such table.
    """
    known = read_ledger(ledger)
    shards = deal_tiles(tiles, size, known)
    if len(shards) > len(known):
        write_ledger(ledger, shards)
    return put(tiles, shards)


def deal_tiles(
    tiles: Mapping[str, Tile], size: int | None, known: Mapping[str, str]
) -> dict[str, str]:
    """Shard of each tile, of those that are known and of those that are not yet; see `in_shards`.

    Parameters
    ----------
    known : mapping
        Shard of each known tile.
    """
    free = [name for name, tile in tiles.items() if tile.shard == name and name not in known]
    first = _first_number(known, tiles)
    size = size or max(1, -(-len(free) // MOST_NEW_SHARDS))
    new = {
        name: name.replace(",", "_") if size == 1 else f"shard_{first + rank // size:05d}"
        for rank, name in enumerate(free)
    }
    return {**known, **new}


def put(tiles: Mapping[str, Tile], shards: Mapping[str, str]) -> dict[str, Tile]:
    """Put tiles into their shards; one that its table gives a shard of another name keeps it."""
    return {
        name: replace(tile, shard=shards[name]) if tile.shard == name else tile
        for name, tile in tiles.items()
    }


def _first_number(known: Mapping[str, str], tiles: Mapping[str, Tile]) -> int:
    """Number of the next new shard."""
    taken = {*known.values(), *(tile.shard for tile in tiles.values())}
    numbers = [int(m[1]) for m in (re.fullmatch(r"shard_(\d+)", name) for name in taken) if m]
    return max(numbers, default=-1) + 1


def read_ledger(ledger: Path) -> dict[str, str]:
    """Read the shard of each known tile; none if there is no ledger yet.

    A ledger that is lost or damaged is read from its copy, else made again from what the last run
    noted and from the object lists.

    Raises
    ------
    TileTableError
        If the ledger is damaged and nothing is there to make it again.
    """
    reason = f"{ledger} is lost."
    # One of an earlier luneta has neither a copy nor a checksum
    is_old = not copy_of(ledger).exists()
    try:
        shards = read_twice(ledger, partial(_parse_ledger, needs_checksum=not is_old))
    except DamagedFile as error:
        reason = str(error)
        shards = None
    if shards is not None:
        if is_old:
            write_ledger(ledger, shards)
        return shards
    shards = _rebuilt(ledger)
    if shards:
        print(f"{reason} It is made again from the last run and the object lists", file=sys.stderr)
        write_ledger(ledger, shards)
    elif ledger.exists():
        raise TileTableError(
            f"{reason} Neither its copy nor the object lists are there to make it again: bring "
            f"back the file as it was, or remove it to have all shards dealt and computed anew"
        )
    return shards


def _rebuilt(ledger: Path) -> dict[str, str]:
    """Find the shard of each tile in the record of the last run, and in `objects/`."""
    try:
        last_run = read_twice(ledger.with_name(LAST_RUN), parse_json) or {}
    except DamagedFile:
        last_run = {}
    shards = {name: tile["shard"] for name, tile in last_run.get("tiles", {}).items()}
    for path in sorted((ledger.parent.parent / "objects").glob("[!.]*.parquet")):
        if path.stem != UNPLACED:
            tiles = pc.unique(read_parquet(path, columns=["tile"])["tile"]).to_pylist()
            shards |= {tile: path.stem for tile in tiles if tile and tile not in shards}
    return shards


def _parse_ledger(raw: bytes, needs_checksum: bool) -> dict[str, str]:
    """Parse a ledger, and check it by the checksum at its end.

    Raises
    ------
    ValueError
        If it is not as it was written.
    """
    body, mark, checksum = raw.rpartition(CHECKSUM)
    if needs_checksum and not mark:
        raise ValueError("its checksum is missing")
    if mark and checksum != b"%08x\n" % zlib.crc32(body):
        raise ValueError("its checksum is wrong")
    lines = (body if mark else raw).decode(errors="replace").splitlines()
    pairs = [tuple(line.split("\t")) for line in lines[1:]]
    is_table = raw.endswith(b"\n") and lines[0] == HEADER
    if not is_table or any(len(pair) != 2 for pair in pairs):
        raise ValueError("it is not the table of tiles and shards that luneta wrote")
    return dict(pairs)


def write_ledger(ledger: Path, shards: Mapping[str, str]) -> None:
    """Write the shard of each tile, with a checksum, and a copy."""
    lines = [HEADER, *(f"{tile}\t{shard}" for tile, shard in shards.items())]
    body = ("\n".join(lines) + "\n").encode()
    write_twice(ledger, body + CHECKSUM + b"%08x\n" % zlib.crc32(body))
