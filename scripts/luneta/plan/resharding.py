"""A survey's shard size is not changed in passing, as that computes everything again."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from luneta.config import ConfigError
from luneta.files import DamagedFile, format_json, parse_json, read_twice, write_twice
from luneta.parquet import read_parquet
from luneta.wording import counted

SIZE = "shard_size.json"
HOUR = 3600.0


def known_size(index: Path, last_run: Path) -> tuple[bool, int | None]:
    """Tell whether a survey has been dealt to shards, and of which size.

    Parameters
    ----------
    index : path
        The folder `index` of the survey.
    last_run : path
        What the last run was made of, where `index` does not tell.
    """
    if (known := _read_or_none(index / SIZE)) is not None:
        return True, known["size"]
    if (last := _read_or_none(last_run)) is not None:
        given = last["config"]["input"]
        return True, given.get("tiles_per_shard", given.get("stamps_per_shard"))
    return False, None


def _read_or_none(path: Path) -> dict | None:
    try:
        return read_twice(path, parse_json)
    except DamagedFile as error:
        print(error, file=sys.stderr)
        return None


def remember_size(index: Path, size: int | None) -> None:
    """Write down the shard size of a survey."""
    if _read_or_none(index / SIZE) != {"size": size}:
        write_twice(index / SIZE, format_json({"size": size}))


def moved(old: Mapping[str, str], new: Mapping[str, str]) -> set[str]:
    """Find the shards that would hold other tiles than before.

    Parameters
    ----------
    old, new : mapping
        Shard of each tile, before and after; a tile that is only in one of them is no reason.
    """
    both = [tile for tile in new if tile in old]
    before, after = (_members(both, shards) for shards in (old, new))
    return {shard for shard, tiles in after.items() if before.get(shard) != tiles}


def _members(tiles: Iterable[str], shards: Mapping[str, str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for tile in tiles:
        found.setdefault(shards[tile], set()).add(tile)
    return found


def objects_of(results: Path, tiles: Mapping[str, str]) -> int:
    """Count the objects of tiles by the lists of the shards they were in.

    Parameters
    ----------
    tiles : mapping
        Old shard of each tile.
    """
    total = 0
    for shard, names in _members(tiles, tiles).items():
        path = results / "objects" / f"{shard}.parquet"
        if path.exists():
            counts = Counter(read_parquet(path, columns=["tile"])["tile"].to_pylist())
            total += sum(counts[name] for name in names)
    return total


def hours_of(results: Path, shards: Iterable[str]) -> float:
    """Add up what the jobs of shards took when they ran last, in hours."""
    wanted = set(shards)
    folder = results / "benchmarks"
    paths = [p for rule in ("cutouts", "infer", "embed") for p in folder.glob(f"{rule}/**/*.jsonl")]
    return sum(_seconds(path) for path in paths if path.stem in wanted) / HOUR


def _seconds(path: Path) -> float:
    """What a job took by its benchmark; nothing where that is damaged."""
    try:
        lines = path.read_text().splitlines()
        return sum(float(json.loads(line)["s"]) for line in lines if line)
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def refusal(
    key: str, sizes: tuple[int | None, int | None], shards: int, objects: int, hours: float
) -> ConfigError:
    """Say what another shard size would cost, and how to ask for it.

    Parameters
    ----------
    key : str
        The setting, such as `input.tiles_per_shard`.
    sizes : tuple of 2 ints or None
        Before and now.
    shards, objects : int
        What would be computed again.
    hours : float
        Time that the jobs of these objects took.
    """
    old, new = ("null" if size is None else size for size in sizes)
    took = f"; the jobs took {hours:.2g} hours when they ran" if hours else ""
    return ConfigError(
        f"The config cannot work:\n"
        f"  {key} = {new}, but the survey was dealt to shards with {old}. With {new}, "
        f"{counted(objects, 'object')} would be cut and predicted again, in "
        f"{counted(shards, 'shard')}, and all "
        f"tasks trained again{took}. Put it back to {old}; tiles and rows that come later need no "
        f"other size. Or, if that is what you want, ask for it: set input.reshard: true, or for "
        f"one run --config 'input={{reshard: true}}'"
    )
