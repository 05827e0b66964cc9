"""How long Snakemake takes to plan a survey of 10,000 tiles, and one of 1e9 objects.

    .venv/bin/python benchmarks/bench_planning.py --tiles 10000 --sources 200000
    .venv/bin/python benchmarks/bench_planning.py --tiles 0 --large-tiles 100000

The large survey has 100,000 tiles in 10,000 shards, each tile with a list of its own, and two tasks
whose labels lie on 20 tiles; 10,000 objects a tile, of which the lists here hold one, as planning
does not read lists of more than 1 MB. It is planned twice with `snakemake -n`: `plan_1e9_first_s`
has the fingerprint of each file in it (no header is read: that is up to `ingest` where tiles bring
lists), `plan_1e9_s` is of a survey whose files have been seen. `plan_1e9_mb` is the larger peak of
resident memory. The other keys are of the survey with one source list and ten tiles a shard.
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
LABELLED = 20  # tiles with labels, of the large survey


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


def plan(folder: Path, name: str, given: dict, **more) -> tuple[float, float]:
    """Time a dry run, by the clock in seconds; and its peak of resident memory in MB."""
    given = {"kind": "tiles", "images": "tiles/{tile}_{band}.fits", "bands": BANDS, **given}
    (folder / f"{name}.yaml").write_text(
        yaml.safe_dump({"survey": name, "input": given, **more}, sort_keys=False)
    )
    command = [
        sys.executable, "-m", "snakemake", "--dry-run", "--cores", "2",
        "--snakefile", str(REPOSITORY / "workflow/Snakefile"),
        "--directory", str(folder), "--configfile", str(folder / f"{name}.yaml"),
    ]  # fmt: skip
    start = time.perf_counter()
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit((folder / f"{name}.log").read_text()[-3000:])
    return seconds, usage.ru_maxrss / 1024


def plan_large(folder: Path, count: int) -> dict[str, float]:
    """Plan a survey of two tasks with ten tiles a shard, twice."""
    centres = write_tiles(folder / "tiles", count)
    write_lists(folder, centres, count)
    labelled = [f"t{number:05d}" for number in range(LABELLED)]
    rows = [f"object_{n},{'yes' if n % 2 else 'no'}" for n in range(LABELLED)]
    (folder / "labels.csv").write_text("\n".join(["object_id,label", *rows]) + "\n")
    task = {"kind": "binary", "classes": ["no", "yes"], "labels": ["labels.csv"]}
    task["label_tiles"] = labelled
    given = {"sources": "lists/{tile}.csv", "tiles_per_shard": 10}
    more = {"training": {"weights": "none"}, "tasks": {"lens": task, "spiral": dict(task)}}
    (first, most), (again, more_mb) = (plan(folder, "large", given, **more) for _ in range(2))
    text = (folder / "large.log").read_text()
    print(text[text.index("Job stats") :].split("\n\n")[0])
    return {
        "plan_1e9_s": again, "plan_1e9_first_s": first, "plan_1e9_mb": max(most, more_mb),
        "plan_1e9_tiles": count,
    }  # fmt: skip


def plan_small(folder: Path, count: int, sources: int) -> dict[str, float]:
    """Plan a survey with one list, and with a list a tile, in shards of ten tiles and of one."""
    rows: list[tuple] = [("source list", "tiles a shard", "first [s]", "again [s]")]
    write_lists(folder, write_tiles(folder / "tiles", count), sources)
    for size in (None, 1):
        for kind, name in (("one", "sources.parquet"), ("each", "lists/{tile}.csv")):
            given = {"sources": name, "tiles_per_shard": size}
            seconds = [plan(folder, f"{kind}_{size}", given)[0] for _ in range(2)]
            of = "survey" if kind == "one" else "tile"
            rows.append((f"one a {of}", size or "default", *seconds))
    show(rows)
    first, again = rows[1][2:]
    return {"seconds_first": first, "seconds_again": again, "tiles": count}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=10_000, help="0 leaves this survey out")
    parser.add_argument("--sources", type=int, default=200_000)
    parser.add_argument("--large-tiles", type=int, default=100_000, help="likewise")
    parser.add_argument("--folder", help="where the temporary surveys are made")
    given = parser.parse_args()
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        if given.tiles:
            (folder / "small").mkdir()
            results |= plan_small(folder / "small", given.tiles, given.sources)
        if given.large_tiles:
            (folder / "large").mkdir()
            results |= plan_large(folder / "large", given.large_tiles)
    finish(results)


if __name__ == "__main__":
    main()
