"""Finding the tiles of a survey by the names of its files."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from luneta.survey.remote import is_remote
from luneta.survey.tiles import SIGNS, BandFiles, Tile, TileTableError, check_name, located

_TOKEN = re.compile(r"(\{tile\}|\{band\}|\*+)")
_EXTENSION = re.compile(r"^(?P<path>.+?)(?P<extension>\[[^\[\]]+\])?$")


@dataclass(frozen=True)
class FilePattern:
    """A pattern of file names with {tile}, {band} and `*`, maybe with an [EXTENSION] at its end.

    A `*` stands for anything within one folder's name. Where a name can be read in several
    ways, the tile's name is the shortest. Without {tile} a tile is named by its file.

    Attributes
    ----------
    text : str
        The pattern, from `root`.
    spellings : dict
        How file names write each band.
    only_tile : str or None
        Name of the tile, where there is one and file names do not tell it.
    """

    text: str
    spellings: Mapping[str, str]
    only_tile: str | None = None

    @cached_property
    def path(self) -> str:
        """The pattern of the path."""
        return _EXTENSION.match(self.text)["path"]

    @cached_property
    def extension(self) -> str:
        """The pattern of the extension with its brackets; empty if there is none."""
        return _EXTENSION.match(self.text)["extension"] or ""

    def filled(self, text: str, tile: str, band: str) -> str:
        """Fill in a tile and a band."""
        return text.replace("{tile}", tile).replace("{band}", self.spellings[band])

    def bands_of(self, spelling: str | None) -> list[str]:
        """Bands that a file holds: the one its name spells; all if its name tells none."""
        return [b for b, s in self.spellings.items() if spelling is None or s == spelling]

    def tile_of(self, path: str, groups: Mapping[str, str]) -> str:
        """Name of the tile that a file is of, given the parts of its name."""
        return groups.get("tile") or self.only_tile or named_by_file(path)

    def expression(self, bands: Sequence[str] | None) -> re.Pattern:
        """Regular expression of the path; any band if `bands` are not given."""
        band = "|".join(re.escape(b) for b in sorted(bands, key=len, reverse=True)) if bands else ""
        groups = {"{tile}": r"[^/]+?", "{band}": band or r"[^/]+?"}
        seen: set[str] = set()
        parts = []
        for part in _TOKEN.split(self.path):
            name = part.strip("{}")
            if part in groups:
                parts.append(f"(?P={name})" if part in seen else f"(?P<{name}>{groups[part]})")
                seen.add(part)
            else:
                parts.append(r"[^/]*?" if part.startswith("*") else re.escape(part))
        return re.compile("".join(parts))

    def found(self) -> list[str]:
        """Files whose names are like the pattern, whatever tile and band, sorted."""
        parts = _TOKEN.split(self.path)
        likeness = "".join("*" if _TOKEN.fullmatch(p) else glob.escape(p) for p in parts)
        return sorted(glob.iglob(likeness))  # noqa: PTH207 (several times as fast as pathlib)


def named_by_file(path: str) -> str:
    """Name a tile by its file: without folder, suffix and {band}; other characters become `_`.

    Examples
    --------
    >>> named_by_file("data/coma cluster_{band}.fits.fz")
    'coma_cluster'
    """
    stem = Path(path).name.split(".fits")[0].split(".fit")[0].removesuffix(".asdf")
    stem = re.sub(r"[_\-+.,]*\{band\}", "", stem)
    name = "".join(c if c.isalnum() or c in SIGNS else "_" for c in stem)
    return name.strip(SIGNS) or "tile"


def _pattern(given: Mapping, key: str) -> FilePattern:
    names = {band: given["band_names"].get(band, band) for band in given["bands"]}
    path = _EXTENSION.match(given["images"])["path"]
    is_fixed = "{tile}" not in path and "*" not in path
    only = named_by_file(path) if is_fixed else None
    return FilePattern(located(given[key], Path(given["root"])), names, only)


def match_tiles(given: Mapping) -> dict[str, Tile]:
    """Find tiles by the patterns of the config's `input` section.

    Parameters
    ----------
    given : mapping
        `images`, `masks`, `weights` (patterns or None), `root`, `bands`, `band_names`.

    Returns
    -------
    dict
        `Tile` by name, sorted by name; bands in the order of the config. A band without an
        image has no entry. A mask or weight that should be there and is not keeps its
        expected name, so that the job that looks for it tells.

    Raises
    ------
    TileTableError
        If nothing matches, or two files match one tile and band.
    """
    images = _matches(given, "images")
    if not images:
        raise TileTableError(_nothing(_pattern(given, "images")))
    masks, weights = (_Beside(given, key) for key in ("masks", "weights"))
    tiles: dict[str, Tile] = {}
    for name, band in sorted(images, key=lambda key: (key[0], given["bands"].index(key[1]))):
        tile = tiles.setdefault(name, Tile(name, name))
        tile.bands[band] = BandFiles(
            images[name, band], masks.of(name, band), weights.of(name, band)
        )
    return tiles


def _matches(given: Mapping, key: str) -> dict[tuple[str, str], str]:
    """Files of a pattern by tile and band."""
    pattern = _pattern(given, key)
    if is_remote(pattern.text):
        raise TileTableError(
            f"input.{key} = {given[key]!r}: files on a server cannot be listed by a pattern; "
            f"name their URLs in a table, input.tiles"
        )
    found: dict[tuple[str, str], str] = {}
    for tile, band, path in _parsed(pattern):
        check_name(tile, "tile", f"input.{key} = {given[key]!r}, {path}")
        if (tile, band) in found:
            raise TileTableError(
                f"input.{key} = {given[key]!r}: both {found[tile, band]} and {path} are tile "
                f"{tile}, band {band}; make the pattern narrower"
            )
        found[tile, band] = path
    return found


def _parsed(pattern: FilePattern) -> Iterator[tuple[str, str, str]]:
    expression = pattern.expression(list(pattern.spellings.values()))
    for path in pattern.found():
        match = expression.fullmatch(path)
        if match is None:
            continue
        groups = match.groupdict()
        tile = pattern.tile_of(path, groups)
        for band in pattern.bands_of(groups.get("band")):
            yield tile, band, path + pattern.filled(pattern.extension, tile, band)


class _Beside:
    """Masks or weights that lie beside images."""

    def __init__(self, given: Mapping, key: str):
        self.pattern = None if given[key] is None else _pattern(given, key)
        # Without a `*` the name is certain, and no folder need be searched.
        self.found = _matches(given, key) if self.pattern and "*" in self.pattern.path else {}

    def of(self, tile: str, band: str) -> str | None:
        """The file of a tile and band, there or not; None if the config asks for none."""
        if self.pattern is None:
            return None
        expected = self.pattern.filled(self.pattern.text, tile, band)
        return self.found.get((tile, band), expected)


def _nothing(pattern: FilePattern) -> str:
    """Say what is there instead of files that match."""
    files = pattern.found()
    any_band = pattern.expression(None)
    spellings = sorted({m["band"] for m in map(any_band.fullmatch, files) if m and "{band}" in
                        pattern.path})  # fmt: skip
    wanted = ", ".join(pattern.spellings.values())
    if spellings:
        return (
            f"input.images = {pattern.text!r} matches no file of the bands {wanted}; there are "
            f"files of {', '.join(spellings[:10])}: say by input.band_names how files write a band"
        )
    folder = re.split(r"[*{]", pattern.path)[0].rpartition("/")[0] or "."
    if not Path(folder).is_dir():
        hint = f"there is no folder {folder}"
    else:
        names = sorted(path.name for path in Path(folder).iterdir())[:5]
        hint = f"{folder} holds {', '.join(names) or 'nothing'}"
    return f"input.images = {pattern.text!r} matches no file; {hint}. Correct the pattern or root"
