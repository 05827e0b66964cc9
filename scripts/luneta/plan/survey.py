"""What a survey consists of: its tiles, shards and files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pyarrow.parquet as pq

from luneta.config import Config, ConfigError, Tiles
from luneta.digests import digest
from luneta.files import read_memory, write_json
from luneta.plan.changes import NOT_WATCHED
from luneta.plan.links import plain_name
from luneta.plan.resharding import hours_of, known_size, moved, objects_of, refusal, remember_size
from luneta.survey.bounds import set_most_gigabytes
from luneta.survey.detected import detected_columns, is_calibrated, measured_bands
from luneta.survey.fingerprints import fingerprints, is_readable
from luneta.survey.images import split_extension
from luneta.survey.index import KEY, deal_sources, shards_with, signature
from luneta.survey.parquet_tables import parquet_files
from luneta.survey.remote import is_remote
from luneta.survey.shards import (
    LAST_RUN,
    deal_tiles,
    in_shards,
    put,
    read_ledger,
    write_ledger,
)
from luneta.survey.source_files import has_one_list, list_files, list_of_tile
from luneta.survey.stamp_index import deal_stamps
from luneta.survey.table_choice import split_table
from luneta.survey.tables import read_table, text
from luneta.survey.tiles import UNPLACED, BandFiles, Tile
from luneta.table_checks import check_dealt
from luneta.wording import few

LEDGER = "shards.tsv"


@dataclass(frozen=True)
class Found:
    """What planning finds of a survey: the attributes of `SurveyPlan` of the same names."""

    tiles: dict[str, Tile]
    versions: dict[str, str | None]
    slices: dict[str, Path]
    lists: dict[str, str]


class SurveyPlan:
    """The survey of a config.

    Parameters
    ----------
    config : Config
        The checked config.
    tiles : dict
        `Tile` by name, in the shards that the table names.
    found : Found or None
        What the run that this process is a job of has found; the survey is then not looked at.

    Attributes
    ----------
    config : Config
        The checked config.
    given : dict
        Its `input` section as plain types.
    results : pathlib.Path
        `results/<survey>`.
    tiles : dict
        `Tile` by name; empty for stamps.
    versions : dict
        Fingerprint of each local file of the survey, whether it exists or not (then None); of
        files that the simulation makes there is none.
    slices : dict
        Slice of a survey-wide list by shard; empty if each tile brings its own list.
    lists : dict
        The list of each tile that brings one, maybe with [TABLE] at its end.
    """

    def __init__(self, config: Config, tiles: dict[str, Tile], found: Found | None = None):
        self.config = config
        self.results = Path("results") / config.survey
        self.index = self.results / "index"
        self.given = config.input.model_dump(mode="json")
        set_most_gigabytes(config.input.most_gigabytes)
        self.is_tiles = isinstance(config.input, Tiles)
        self.tiles: dict[str, Tile] = {}
        self.lists: dict[str, str] = {}
        self._anew: dict[str, str] = {}
        if found is not None:
            self.tiles, self.versions, self.slices = found.tiles, found.versions, found.slices
            self.lists = found.lists
            return
        if self.is_tiles:
            self.tiles = self._in_shards(tiles)
        else:
            self._check_stamps_per_shard()
        if self.given.get("sources") is not None and not self._has_one_list:
            self.lists = {tile: list_of_tile(self.given, tile) for tile in self.tiles}
        self.versions = self._fingerprints()
        self.slices = self._deal()
        check_dealt(config, self.index, self.slices)
        self._check_label_tiles()

    @property
    def found(self) -> Found:
        """What has been found of the survey."""
        return Found(self.tiles, self.versions, self.slices, self.lists)

    @property
    def _size(self) -> int | None:
        """Shard size of the config."""
        return self.given["tiles_per_shard" if self.is_tiles else "stamps_per_shard"]

    def _in_shards(self, tiles: dict[str, Tile]) -> dict[str, Tile]:
        """Tiles in their shards; dealt anew, if another size is asked for, till a run succeeds.

        As the ledger is left alone till then, a dry run can be taken back.
        """
        ledger = self.index / LEDGER
        known = read_ledger(ledger)
        is_known, size = known_size(self.index, self.index / LAST_RUN)
        if known and is_known and size != self._size:
            anew = deal_tiles({n: tiles[n] for n in [*known, *tiles] if n in tiles}, self._size, {})
            if found := moved(known, anew):
                self._check_resharding(size, found, known, anew)
                self._anew = anew
                return put(tiles, anew)
        remember_size(self.index, self._size)
        return in_shards(tiles, self._size, ledger)

    def _check_resharding(
        self, size: int | None, shards: set[str], known: dict[str, str], anew: dict[str, str]
    ) -> None:
        if self.config.input.reshard:
            return
        tiles = {n: known[n] for n, shard in anew.items() if shard in shards and n in known}
        raise refusal(
            "input.tiles_per_shard",
            (size, self._size),
            len(shards),
            objects_of(self.results, tiles),
            hours_of(self.results, tiles.values()),
        )

    def _check_stamps_per_shard(self) -> None:
        """Refuse another number of stamps a shard, unless asked for or of no consequence."""
        is_known, size = known_size(self.index, self.index / LAST_RUN)
        if not is_known or size == self._size:
            remember_size(self.index, self._size)
            return
        slices = sorted(self.index.glob("stamps_*.parquet"))
        objects = sum(pq.read_metadata(path).num_rows for path in slices)
        # Of no size were tiles, which the survey may have been of before.
        if objects <= min(size or 0, self._size) or self.config.input.reshard:
            return
        raise refusal(
            "input.stamps_per_shard",
            (size, self._size),
            -(-objects // self._size),
            objects,
            hours_of(self.results, [path.stem for path in slices]),
        )

    def remember_shards(self) -> None:
        """Write down shards that were dealt anew, once they have been computed."""
        if self._anew:
            write_ledger(self.index / LEDGER, self._anew)
        remember_size(self.index, self._size)

    @cached_property
    def _path(self) -> dict[str, str]:
        """Path on disk of each file name of the tiles; a URL has none."""
        files = [files for tile in self.tiles.values() for files in tile.bands.values()]
        names = {name for f in files for name in (f.image, f.mask, f.weight) if name}
        return {name: str(split_extension(name)[0]) for name in names if not is_remote(name)}

    def _fingerprints(self) -> dict[str, str | None]:
        lists = [_file_of(name) for name in self.lists.values() if not is_remote(name)]
        local = [path for path in {*self._path.values(), *lists} if not self._made(path)]
        return fingerprints(sorted(local), self.index / "files.json")

    def _deal(self) -> dict[str, Path]:
        """Slices of a survey-wide list by shard; empty if each tile brings its own list."""
        if not self.is_tiles:
            return deal_stamps(self.given, self.index)
        if not self._has_one_list:
            return {}
        versions = {name: self.versions.get(path) for name, path in self._path.items()}
        return deal_sources(self.given, self.tiles, self.index, versions)

    @property
    def _has_one_list(self) -> bool:
        return has_one_list(self.given.get("sources"))

    def _check_label_tiles(self) -> None:
        known = [*self.tiles, *self.shards]
        for name, task in self.config.tasks.items():
            unknown = [tile for tile in task.label_tiles or [] if tile not in known]
            if unknown:
                raise ConfigError(
                    f"The config cannot work:\n  tasks.{name}.label_tiles = {few(unknown, 5)}: "
                    f"there is no such tile or shard; there are {few(known)}"
                )

    @property
    def bands(self) -> list[str]:
        """Bands in the order of a cutout's first axis."""
        return list(self.config.input.bands)

    @cached_property
    def kept(self) -> dict[str, str]:
        """Catalog name and column of what is carried into the catalog."""
        if self.given.get("detection") is None:
            return self.given["keep"]
        return {name: name for name in detected_columns(self.given)} | self.given["keep"]

    @property
    def calibrated(self) -> list[str]:
        """Bands whose cutouts are in nanojansky."""
        if self.given.get("pixels") == "display":
            return []
        return [band for band in self.bands if is_calibrated(self.given, band)]

    @cached_property
    def shards(self) -> list[str]:
        """All shards, in the order of the tile or stamp table."""
        return list(self.slices or self._tiles_by_shard)

    @cached_property
    def _tiles_by_shard(self) -> dict[str, list[Tile]]:
        shards: dict[str, list[Tile]] = {}
        for tile in self.tiles.values():
            shards.setdefault(tile.shard, []).append(tile)
        return shards

    def tiles_of(self, shard: str) -> list[Tile]:
        """Tiles of a shard, in table order."""
        return self._tiles_by_shard.get(shard, [])

    # Files outside the rules' own naming

    def list_files(self) -> list[str]:
        """Local files of a survey-wide list, or of the stamp table."""
        if not self.is_tiles:
            table = Path(_file_of(self.given["table"]))
            is_pattern = "*" in table.name and not table.exists()
            names = [str(path) for path in parquet_files(table)] if is_pattern else [str(table)]
        else:
            names = list_files(self.given) if self._has_one_list else []
        return [_file_of(name) for name in names if not is_remote(name)]

    def sources(self, shard: str) -> list[str]:
        """Source lists that a shard is ingested from; none if its objects are detected."""
        if self.slices:
            return [str(self.slices[shard])]
        return [self.lists[t.name] for t in self.tiles_of(shard) if t.name in self.lists]

    def source_files(self, shard: str) -> list[str]:
        """Those source lists of a shard that are files; one named by URL is not watched."""
        return [_file_of(name) for name in self.sources(shard) if not is_remote(name)]

    def images(self, shard: str) -> list[str]:
        """Image files of a shard that can be read, or that the simulation will make.

        Another one is no input, but a defect that the cutouts job flags. Files named by URL
        are not watched.
        """
        return self._existing(f for t in self.tiles_of(shard) for f in t.bands.values())

    def grids(self, shard: str) -> list[str]:
        """Files that `ingest` reads of a shard, as `images`."""
        return self._existing(f for t in self.tiles_of(shard) for f in self.grid(t).bands.values())

    def grid(self, tile: Tile) -> Tile:
        """What `ingest` reads of a tile: its reference band; all bands where it detects."""
        reference = self.config.input.reference
        if reference not in tile.bands:
            return replace(tile, bands={})
        if self.given["detection"] is None:
            return replace(tile, bands={reference: BandFiles(tile.bands[reference].image)})
        bands = [band for band in measured_bands(self.given) if band in tile.bands]
        return replace(tile, bands={band: tile.bands[band] for band in bands})

    def _existing(self, files: Iterable[BandFiles]) -> list[str]:
        paths = self._local(files)
        return [path for path in paths if self._made(path) or is_readable(self.versions[path])]

    def _local(self, files: Iterable[BandFiles]) -> list[str]:
        names = (name for f in files for name in (f.image, f.mask, f.weight))
        return list(dict.fromkeys(self._path[name] for name in names if name in self._path))

    def _made(self, path: str) -> bool:
        return self.config.simulation is not None and self.results in Path(path).parents

    def delivered(self, tiles: Iterable[Tile], lists: Iterable[str] = ()) -> dict[str, str | None]:
        """Fingerprints of delivered files, to be among the settings of the job that reads them.

        None for one that is missing. Files that the workflow makes are left out.
        """
        files = self._local(f for tile in tiles for f in tile.bands.values())
        paths = [*files, *lists]
        return {path: self.versions[path] for path in paths if path in self.versions}

    def delivery(self) -> dict:
        """Tiles with their shard and the fingerprints of their files, and of their lists."""
        lists = {tile: self._version(_file_of(name)) for tile, name in self.lists.items()}
        return {"tiles": {name: self._tile_state(t) for name, t in self.tiles.items()},
                "lists": lists}  # fmt: skip

    def _tile_state(self, tile: Tile) -> dict:
        files = {
            f"{kind} {band}": self._version(self._path.get(name, name))
            for band, f in tile.bands.items()
            for kind, name in (("image", f.image), ("mask", f.mask), ("weight", f.weight))
            if name
        }
        return {"shard": tile.shard, "files": files}

    def _version(self, path: str) -> str | None:
        """Fingerprint of a file; a constant for one that is not watched."""
        return self.versions.get(path, NOT_WATCHED)

    def stamps(self, shard: str) -> list[str]:
        """The shard's slice of the stamp table; none for tiles."""
        return [] if self.is_tiles else [str(self.slices[shard])]

    def truth(self) -> list[str]:
        """Files of the hidden truth, where the survey is simulated."""
        if self.config.simulation is None:
            return []
        return [str(self.results / "raw" / f"{tile}_truth.parquet") for tile in self.tiles]

    def label_files(self, task: str) -> list[str]:
        """Label tables of a task, by names that Snakemake can take."""
        return [self.plain_name(path) for path in self.config.tasks[task].labels]

    def plain_name(self, path: Path | str) -> str:
        """Name a file of the config so that Snakemake does not take it for a pattern."""
        return plain_name(str(path), self.index / "links")

    def labelled_shards(self, task: str) -> list[str]:
        """Shards whose cutouts a task is trained on.

        Named by `label_tiles`; else found by the ids, where the lists exist before the first
        job; else all shards.
        """
        named = self.config.tasks[task].label_tiles
        if named is not None:
            wanted = {self.tiles[name].shard if name in self.tiles else name for name in named}
            return [shard for shard in self.shards if shard in wanted]
        files = self.label_files(task)
        if self.slices and all(Path(path).exists() for path in files):
            return self._shards_with(task, files)
        return [shard for shard in self.shards if shard != UNPLACED]

    def _shards_with(self, task: str, files: list[str]) -> list[str]:
        memory = self.index / f"labelled_{task}.json"
        column = self.config.tasks[task].id_column
        lists = [signature(f, self.index) for f in files]
        key = digest([read_memory(self.index / KEY), lists, column])
        known = read_memory(memory)
        if known is not None and known["key"] == key:
            return known["shards"]
        ids = {name for f in files for name in text(read_table(f, [column])[column]) if name}
        found = shards_with(self.index, ids) - {UNPLACED}
        shards = [shard for shard in self.shards if shard in found]
        write_json(memory, {"key": key, "shards": shards})
        return shards


def _file_of(name: str) -> str:
    """Path of a list, without the [TABLE] at its end."""
    return str(split_table(name)[0])
