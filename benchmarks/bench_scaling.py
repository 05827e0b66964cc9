"""What an object costs in a survey ten times as large: planning, ingest and cutouts.

    .venv/bin/python benchmarks/bench_scaling.py --side 4096 --objects 5000 --tiles 4 --times 10

The small survey is one shard of four tiles; the large one is ten such shards. After each shard of
the large survey the small one is computed whole, so that a noisy machine hits both alike.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from statistics import mean, median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from survey_files import BANDS, write_tile
from timing import finish, show

from luneta.cutouts.job import run as cut
from luneta.plan import Plan, make_plan
from luneta.survey.ingest import run as ingest

SCALE = 0.262 / 3600


def write_tiles(folder: Path, count: int, side: int) -> None:
    """Write tiles side by side along the equator; all have the same pixels."""
    names = write_tile(folder, side)
    for band, name in names.items():
        content = Path(name.removesuffix("[1]")).read_bytes()
        for number in range(count):
            path = folder / f"t{number:03d}_{band}.fits.fz"
            path.write_bytes(moved(content, 10 + number * side * SCALE, 0.0))
        Path(name.removesuffix("[1]")).unlink()


def moved(content: bytes, ra: float, dec: float) -> bytes:
    """Put the image of a FITS file elsewhere on the sky."""
    for keyword, value in ((b"CRVAL1", ra), (b"CRVAL2", dec)):
        card = keyword + b"  = " + f"{value:20.12f}".encode()
        content, found = re.subn(keyword + rb"  =.{21}", card.ljust(30), content, count=1)
        assert found == 1, keyword
    return content


def write_list(path: Path, tiles: int, side: int, objects: int) -> None:
    """Write a list of the survey with as many objects on each tile."""
    random = np.random.default_rng(2)
    tile = np.repeat(np.arange(tiles), objects)
    half = 0.49 * side * SCALE
    ra = 10 + tile * side * SCALE + random.uniform(-half, half, len(tile))
    dec = random.uniform(-half, half, len(tile))
    names = [f"object_{number}" for number in range(len(tile))]
    pq.write_table(pa.table({"object_id": names, "ra": ra, "dec": dec}), path)


class Timed:
    """A survey whose planning and shards are computed in this process, and timed.

    Attributes
    ----------
    seconds : list of float
        Of the planning, and of each shard.
    objects : int
        Objects cut.
    """

    def __init__(self, name: str, tiles: int, side: int, objects: int, size: int):
        self.name, self.seconds, self.objects = name, [], 0
        write_list(Path(f"{name}.parquet"), tiles, side, objects)
        lines = [
            f"t{number:03d}\t{band}\tt{number:03d}_{band}.fits.fz[1]"
            for number in range(tiles)
            for band in BANDS
        ]
        Path(f"{name}.tsv").write_text("\n".join(["tile\tband\timage", *lines]) + "\n")
        self.config = {
            "survey": name,
            "input": {
                "kind": "tiles",
                "tiles": f"{name}.tsv",
                "sources": f"{name}.parquet",
                "bands": BANDS,
                "tiles_per_shard": size,
            },
        }

    def plan(self) -> Plan:
        """Plan the survey, as if for the first time."""
        shutil.rmtree(Path("results") / self.name, ignore_errors=True)
        start = time.perf_counter()
        plan = make_plan(self.config)
        self.seconds.append(time.perf_counter() - start)
        return plan

    def compute(self, plan: Plan, shard: str) -> None:
        """Do what the jobs of a shard do, and remove what they made."""
        folder = plan.results / "shard"
        folder.mkdir(parents=True)
        outputs = {n: folder / n for n in ("cutouts", "quality", "files")}
        start = time.perf_counter()
        ingest(plan.sources(shard), folder / "objects.parquet", plan.ingest(shard))
        cut(folder / "objects.parquet", None, outputs, plan.cutouts(shard), threads=2)
        self.seconds.append(time.perf_counter() - start)
        self.objects += pq.read_metadata(folder / "quality").num_rows
        shutil.rmtree(folder)

    def each(self) -> float:
        """Microseconds for each object."""
        return 1e6 * sum(self.seconds) / self.objects


def measure(tiles: int, times: int, side: int, objects: int) -> tuple[Timed, list[Timed]]:
    """Compute the large survey, and the small one after each of its shards."""

    def small() -> Timed:
        survey = Timed("small", tiles, side, objects, tiles)
        plan = survey.plan()
        for shard in plan.shards:
            survey.compute(plan, shard)
        return survey

    small()  # what Python does only once is no cost of an object
    large = Timed("large", tiles * times, side, objects, tiles)
    plan, turns = large.plan(), []
    for shard in plan.shards:
        large.compute(plan, shard)
        turns.append(small())
    return large, turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--objects", type=int, default=5000, help="objects a tile")
    parser.add_argument("--tiles", type=int, default=4, help="tiles of the small survey")
    parser.add_argument("--times", type=int, default=10, help="how many times as large")
    parser.add_argument("--folder", help="where the temporary survey is made (1 GB and more)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        os.chdir(name)
        write_tiles(Path(), given.tiles * given.times, given.side)
        large, turns = measure(given.tiles, given.times, given.side, given.objects)
        os.chdir("/")
    each = mean(small.each() for small in turns)
    small = turns[0]
    rows = [("survey", "objects", "planning [s]", "a shard [s]", "an object [us]")]
    rows.append(("small", small.objects, mean(s.seconds[0] for s in turns),
                 median(s.seconds[1] for s in turns), each))  # fmt: skip
    rows.append(("large", large.objects, large.seconds[0], median(large.seconds[1:]),
                 large.each()))  # fmt: skip
    show(rows)
    finish({"cost_ratio": large.each() / each, "objects": large.objects})


if __name__ == "__main__":
    main()
