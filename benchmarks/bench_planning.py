"""How long Snakemake takes to plan a survey of 10,000 tiles, the first time and again.

    .venv/bin/python benchmarks/bench_planning.py --tiles 10000 --sources 200000

The last line, in JSON, is of the survey with one source list and ten tiles a shard.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from astropy.io import fits
from survey_files import BANDS, tan_header
from timing import finish, show

REPOSITORY = Path(__file__).parents[1]
SIDE = 32
STEP = 0.01  # degrees between tiles


def write_tiles(folder: Path, count: int) -> np.ndarray:
    """Write tiny tiles side by side; gives their centres (ra, dec), shape (tiles, 2), degrees."""
    folder.mkdir()
    image = fits.PrimaryHDU(np.zeros((SIDE, SIDE), np.int16), tan_header(SIDE))
    columns = int(np.ceil(np.sqrt(count)))
    centres = []
    for number in range(count):
        centre = 150 + STEP * (number % columns), STEP * (number // columns)
        image.header["CRVAL1"], image.header["CRVAL2"] = centre
        first = folder / f"t{number:05d}_{BANDS[0]}.fits"
        header = image.header.tostring().encode()
        first.write_bytes(header + b"\0" * 2880)
        for band in BANDS[1:]:
            os.link(first, folder / f"t{number:05d}_{band}.fits")
        centres.append(centre)
    return np.array(centres)


def write_lists(folder: Path, centres: np.ndarray, count: int) -> None:
    """Write one list of the survey, and one for each tile."""
    random = np.random.default_rng(1)
    half = 0.4 * SIDE * 0.262 / 3600
    tile = np.arange(count) % len(centres)
    ra, dec = (centres[tile] + random.uniform(-half, half, (count, 2))).T
    table = pa.table({"object_id": [f"object_{n}" for n in range(count)], "ra": ra, "dec": dec})
    pq.write_table(table, folder / "sources.parquet")
    (folder / "lists").mkdir()
    for number in range(len(centres)):
        rows = range(number, count, len(centres))
        lines = [f"object_{n},{ra[n]:.7f},{dec[n]:.7f}" for n in rows]
        path = folder / "lists" / f"t{number:05d}.csv"
        path.write_text("\n".join(["object_id,ra,dec", *lines]) + "\n")


def plan(folder: Path, name: str, sources: str, tiles_per_shard: int | None) -> float:
    """Time a dry run in seconds."""
    config = {
        "survey": name,
        "input": {
            "kind": "tiles",
            "images": "tiles/{tile}_{band}.fits",
            "sources": sources,
            "bands": BANDS,
            "tiles_per_shard": tiles_per_shard,
        },
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    command = [
        sys.executable, "-m", "snakemake", "--dry-run", "--cores", "2",
        "--snakefile", str(REPOSITORY / "workflow/Snakefile"),
        "--directory", str(folder), "--configfile", str(folder / f"{name}.yaml"),
    ]  # fmt: skip
    start = time.perf_counter()
    with (folder / f"{name}.log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit((folder / f"{name}.log").read_text()[-3000:])
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=10_000)
    parser.add_argument("--sources", type=int, default=200_000)
    parser.add_argument("--folder", help="where the temporary survey is made")
    given = parser.parse_args()
    rows: list[tuple] = [("source list", "tiles a shard", "first [s]", "again [s]")]
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        write_lists(folder, write_tiles(folder / "tiles", given.tiles), given.sources)
        for size in (None, 1):
            for kind, sources in (("one", "sources.parquet"), ("each", "lists/{tile}.csv")):
                survey = f"{kind}_{size}"
                seconds = [plan(folder, survey, sources, size) for _ in range(2)]
                of = "survey" if kind == "one" else "tile"
                rows.append((f"one a {of}", size or "default", *seconds))
    show(rows)
    first, again = rows[1][2:]
    finish({"seconds_first": first, "seconds_again": again, "tiles": given.tiles})


if __name__ == "__main__":
    main()
