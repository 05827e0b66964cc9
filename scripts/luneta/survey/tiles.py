"""The tiles of a survey: which image, mask and weight belong to which tile and band."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from luneta.printable import printable
from luneta.survey.remote import is_remote
from luneta.wording import few

REQUIRED = ("tile", "band", "image")
OPTIONAL = ("mask", "weight", "shard")
SIGNS = "_-+."  # that names may hold
LONGEST_NAME = 100  # bytes; a file's name may have 255, with what is put before and behind
UNPLACED = "unplaced"  # shard of the objects outside every tile


class TileTableError(ValueError):
    """Tiles that cannot be used; the message names the line or pattern, and the fix."""

    def __init__(self, reason: str):
        super().__init__(printable(reason))


@dataclass(frozen=True)
class BandFiles:
    """The files of one tile in one band.

    Attributes
    ----------
    image, mask, weight : str or None
        Path or URL; each may end in [EXTENSION].
    plane : int
        Which plane holds the band, from 0, if the image is a cube.
    """

    image: str
    mask: str | None = None
    weight: str | None = None
    plane: int = 0


@dataclass(frozen=True)
class Tile:
    """One patch of sky, as delivered."""

    name: str
    shard: str
    bands: dict[str, BandFiles] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """The tile as plain types, to pass to a job."""
        bands = {band: dict(vars(files)) for band, files in self.bands.items()}
        return {"name": self.name, "shard": self.shard, "bands": bands}

    @classmethod
    def from_dict(cls, values: dict) -> Tile:
        """The tile that `as_dict` described."""
        bands = {band: BandFiles(**files) for band, files in values["bands"].items()}
        return cls(values["name"], values["shard"], bands)


def located(name: str | None, root: Path) -> str | None:
    """Path of a file as a table names it: relative to `root`, absolute, or a URL as it stands."""
    name = name.strip() if name else ""
    if not name or is_remote(name):
        return name or None
    return str(root / name)


def check_name(name: str, what: str, where: str) -> str:
    """Give back the name of a tile or shard.

    Raises
    ------
    TileTableError
        If no file could bear the name, or luneta itself uses it.
    """
    if name == UNPLACED:
        raise TileTableError(
            f"{where}: {what} {name!r} is luneta's own name for what lies outside every tile; "
            f"choose another"
        )
    # Snakemake separates the wildcards of a job on a cluster by commas; HSC's tiles have one
    signs = SIGNS + "," if what == "tile" else SIGNS
    if not name or name.startswith(".") or not all(c.isalnum() or c in signs for c in name):
        raise TileTableError(
            f"{where}: {what} {name!r} cannot name a file; use letters, digits and "
            f"{' '.join(signs)}"
        )
    size = len(name.encode())
    if size > LONGEST_NAME:
        raise TileTableError(
            f"{where}: {what} {name[:40]!r}... has {size} bytes, and names of files are put "
            f"together from it; {LONGEST_NAME} are the most"
        )
    return name


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows of the table, each with the number of its line."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines, delimiter="\t")
            rows = [(reader.line_num, row) for row in reader]
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError) as error:
        raise TileTableError(f"{path}: cannot be read ({error})") from None
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise TileTableError(
            f"{path}: there is no column {', '.join(missing)}; the first line must name, separated "
            f"by tabs, {', '.join(REQUIRED)} and may name {', '.join(OPTIONAL)}; it names "
            f"{few(columns) or 'nothing'}"
        )
    return rows


def read_tiles(path: Path | str, root: Path | str = ".") -> dict[str, Tile]:
    """Read the tile table.

    Parameters
    ----------
    path : path
        Tab-separated, with the columns tile, band, image and maybe mask, weight, shard.
        Without a shard column, each tile is its own shard.
    root : path
        Where relative paths of the table start.

    Raises
    ------
    TileTableError
        If a column is missing, a tile has a band twice or lies in two shards.
    """
    path, root = Path(path), Path(root)
    tiles: dict[str, Tile] = {}
    for number, row in _rows(path):
        _add_row(tiles, row, root, f"{path}, line {number}")
    return tiles


def _add_row(tiles: dict[str, Tile], row: Mapping[str, str], root: Path, where: str) -> None:
    name = check_name((row["tile"] or "").strip(), "tile", where)
    given = (row.get("shard") or "").strip()
    shard = check_name(given, "shard", where) if given else name
    tile = tiles.setdefault(name, Tile(name, shard))
    if tile.shard != shard:
        raise TileTableError(
            f"{where}: tile {name} is in shard {shard} here and in {tile.shard} above; "
            f"give it one shard"
        )
    band = (row["band"] or "").strip()
    if band in tile.bands:
        raise TileTableError(f"{where}: tile {name} has band {band} twice; remove one line")
    image = located(row["image"], root)
    if image is None:
        raise TileTableError(f"{where}: tile {name}, band {band} has no image; name its file")
    tile.bands[band] = BandFiles(
        image, located(row.get("mask"), root), located(row.get("weight"), root)
    )
