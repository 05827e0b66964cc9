"""What 1 % new tiles cost on a finished survey.

    .venv/bin/python benchmarks/bench_incremental.py --tiles 1000

A survey of noise and stars with a list a tile, ten tiles a shard and one task is run whole, then
again with 1 % more tiles, which make one new shard. `constant_s` is what does not depend on how
much is new: planning (a dry run of the finished survey) and the start-up (interpreter and imports)
of one job of each rule that ran. `fraction_of_full` is the rest of the second run over the first
run. `merges_s` is of that rest the own work of `catalog` and `report`, which look at the whole
survey. Both runs have two cores.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from survey_files import BANDS, tan_header
from timing import finish, show
from whole_runs import by_rule, jobs_since, own_work, snakemake, start_up

SIDE, STEP = 512, 0.05  # pixels; degrees between tiles
LABELLED = 2  # tiles
MERGES = ("catalog", "report")


def write_tile(folder: Path, number: int, objects: int) -> None:
    """Write the bands of a tile, and the list of its stars."""
    random = np.random.default_rng(number)
    ra = 150 + STEP * number
    header = tan_header(SIDE, ra, 0.0)
    x, y = random.integers(20, SIDE - 20, (2, objects))
    for band in BANDS:
        pixels = random.standard_normal((SIDE, SIDE), np.float32)
        np.add.at(pixels, (y, x), random.uniform(20, 200, objects).astype(np.float32))
        fits.writeto(folder / f"t{number:04d}_{band}.fits", pixels, header)
    offset = (np.array([x, y]) - (SIDE - 1) / 2) * 0.262 / 3600
    rows = (f"o{number}_{n},{ra - offset[0, n]:.8f},{offset[1, n]:.8f}" for n in range(objects))
    path = folder / f"t{number:04d}.csv"
    path.write_text("\n".join(["object_id,ra,dec", *rows]) + "\n")


def survey(folder: Path, tiles: int, objects: int) -> dict:
    """Write the files of a survey; gives its config."""
    (folder / "tiles").mkdir()
    for number in range(tiles):
        write_tile(folder / "tiles", number, objects)
    names = [f"o{tile}_{n}" for tile in range(LABELLED) for n in range(objects)]
    rows = [f"{name},{('no', 'yes')[n % 2]}" for n, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["object_id,label", *rows]) + "\n")
    return {
        "survey": "sky",
        "input": {
            "kind": "tiles",
            "images": "tiles/{tile}_{band}.fits",
            "sources": "tiles/{tile}.csv",
            "bands": BANDS,
            "tiles_per_shard": 10,
        },
        "training": {"width": 0.35, "weights": "none", "folds": 2},
        "tasks": {
            "lens": {
                "kind": "binary",
                "classes": ["no", "yes"],
                "labels": ["labels.csv"],
                "label_tiles": [f"t{number:04d}" for number in range(LABELLED)],
            }
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiles", type=int, default=1000)
    parser.add_argument("--objects", type=int, default=300, help="a tile")
    parser.add_argument("--folder", help="where the temporary survey is made")
    given = parser.parse_args()
    new = max(1, round(given.tiles / 100))
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        config = survey(folder, given.tiles, given.objects)
        full = snakemake(folder, config, "--cores", "2")
        planning = snakemake(folder, config, "--cores", "2", "--dry-run")
        for number in range(given.tiles, given.tiles + new):
            write_tile(folder / "tiles", number, given.objects)
        start = time.time()
        again = snakemake(folder, config, "--cores", "2")
        jobs = jobs_since(folder / "results/sky", start)
    show(by_rule(jobs))
    rules = dict.fromkeys(rule for rule, _ in jobs)
    constant = planning + sum(start_up(rule) for rule in rules)
    merges = own_work([job for job in jobs if job[0] in MERGES])
    show(
        [
            ("run", "seconds"),
            (f"{given.tiles} tiles", full),
            (f"{new} new", again),
            ("of it planning", planning),
            ("start-ups", constant - planning),
            ("catalog and report", merges),
        ]
    )
    finish(
        {
            "fraction_of_full": max(0.0, again - constant) / full,
            "constant_s": constant,
            "merges_s": merges,
            "full_s": full,
            "again_s": again,
        }
    )


if __name__ == "__main__":
    main()
