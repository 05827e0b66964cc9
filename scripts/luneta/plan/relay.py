"""What a run has found of its survey, handed to its jobs on other machines.

A job on a cluster reads the Snakefile again. Were it to look at the survey again too, each job
would ask the shared disk for the state of every delivered file; and a file delivered while the run
is under way would have some jobs plan another survey than others.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from luneta.config import Config
from luneta.digests import digest
from luneta.files import DamagedFile, read_json, write_json
from luneta.plan.jobs import Plan
from luneta.plan.survey import Found
from luneta.runs import RUN
from luneta.survey.tiles import Tile
from luneta.urls import without_secrets

PLAN = "plan.json"


def tell_jobs(plan: Plan) -> None:
    """Write down what the run has found, once it has claimed the results.

    Where URLs of tiles hold secrets, which the jobs need, only the owner of the file can read it.
    """
    found = plan.found
    content = {
        "run": os.environ[RUN],
        "config": digest(plan.config.model_dump(mode="json")),
        "tiles": [tile.as_dict() for tile in found.tiles.values()],
        "versions": found.versions,
        "slices": {shard: str(path) for shard, path in found.slices.items()},
        "lists": found.lists,
    }
    with suppress(OSError):  # of a disk that cannot be written to, the run itself will tell
        has_secrets = without_secrets(content) != content
        write_json(plan.index / PLAN, content, indent=None, is_private=has_secrets)


def told(config: Config) -> Found | None:
    """Read what the run that this process is a job of has found; None if it is no such job."""
    path = Path("results") / config.survey / "index" / PLAN
    run = os.environ.get(RUN)
    if run is None or not path.exists():
        return None
    try:
        content = read_json(path)
    except DamagedFile:
        return None
    if (content["run"], content["config"]) != (run, digest(config.model_dump(mode="json"))):
        return None
    tiles = map(Tile.from_dict, content["tiles"])
    slices = {shard: Path(path) for shard, path in content["slices"].items()}
    tiles = {tile.name: tile for tile in tiles}
    return Found(tiles, content["versions"], slices, content["lists"])
