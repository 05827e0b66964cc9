"""The tiles of a survey in their shards; which tile is in which shard is written down once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from luneta.files import atomic_path
from luneta.survey.patterns import match_tiles
from luneta.survey.tiles import BandFiles, Tile, TileTableError, read_tiles

HEADER = "tile\tshard"
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
        name: name if size == 1 else f"shard_{first + rank // size:05d}"
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
    """Read the shard of each known tile; none if there is no ledger yet."""
    if not ledger.exists():
        return {}
    header, *rows = ledger.read_text(encoding="utf-8").splitlines() or [""]
    pairs = [row.split("\t") for row in rows]
    if header != HEADER or any(len(pair) != 2 for pair in pairs):
        raise TileTableError(
            f"{ledger}: is not the table of tiles and shards that luneta wrote; bring back the "
            f"file as it was, or remove it to have all shards dealt and computed anew"
        )
    return dict(pairs)


def write_ledger(ledger: Path, shards: Mapping[str, str]) -> None:
    """Write the shard of each tile."""
    lines = [HEADER, *(f"{tile}\t{shard}" for tile, shard in shards.items())]
    with atomic_path(ledger) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
