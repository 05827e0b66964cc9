"""The tile table: which image, mask and weight belong to which tile and band."""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, field
from pathlib import Path

from luneta.survey.images import split_extension

REQUIRED = ("tile", "band", "image")
OPTIONAL = ("mask", "weight", "shard")


class TileTableError(ValueError):
    """A tile table that cannot be used; the message names the line and the mend."""


@dataclass(frozen=True)
class BandFiles:
    """The files of one tile in one band; each path may end in [EXTENSION]."""

    image: str
    mask: str | None = None
    weight: str | None = None

    def paths(self) -> list[Path]:
        """The files on disk, without extensions and repetitions."""
        given = [name for name in (self.image, self.mask, self.weight) if name]
        return list(dict.fromkeys(split_extension(name)[0] for name in given))


@dataclass(frozen=True)
class Tile:
    """One patch of sky, as delivered."""

    name: str
    shard: str
    bands: dict[str, BandFiles] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """The tile as plain types, to pass to a job."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Tile:
        """The tile that `as_dict` described."""
        bands = {band: BandFiles(**files) for band, files in values["bands"].items()}
        return cls(values["name"], values["shard"], bands)


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            reader = csv.DictReader(lines, delimiter="\t")
            rows = list(reader)
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError) as error:
        raise TileTableError(f"{path}: cannot be read ({error})") from None
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise TileTableError(
            f"{path}: there is no column {', '.join(missing)}; the first line must name, separated "
            f"by tabs, {', '.join(REQUIRED)} and may name {', '.join(OPTIONAL)}; it names "
            f"{', '.join(columns) or 'nothing'}"
        )
    return rows


def _located(name: str | None, root: Path) -> str | None:
    return str(root / name.strip()) if name and name.strip() else None


def _check_name(name: str, what: str, where: str) -> str:
    if not name or name.startswith(".") or not all(c.isalnum() or c in "_-+." for c in name):
        raise TileTableError(
            f"{where}: {what} {name!r} cannot name a file; use letters, digits, '_', '-', '+', '.'"
        )
    return name


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
    for number, row in enumerate(_rows(path), start=2):
        where = f"{path}, line {number}"
        name = _check_name((row["tile"] or "").strip(), "tile", where)
        shard = _check_name((row.get("shard") or name).strip(), "shard", where)
        tile = tiles.setdefault(name, Tile(name, shard))
        if tile.shard != shard:
            raise TileTableError(
                f"{where}: tile {name} is in shard {shard} here and in {tile.shard} above; "
                f"give it one shard"
            )
        band = (row["band"] or "").strip()
        if band in tile.bands:
            raise TileTableError(f"{where}: tile {name} has band {band} twice; remove one line")
        image = _located(row["image"], root)
        if image is None:
            raise TileTableError(f"{where}: tile {name}, band {band} has no image; name its file")
        tile.bands[band] = BandFiles(
            image, _located(row.get("mask"), root), _located(row.get("weight"), root)
        )
    return tiles
