"""What the workflow adds to its jobs' own work, on the demo and on 10 and 50 times its objects.

    .venv/bin/python benchmarks/bench_pipeline.py --times 1 10 50

The demo's four tiles are simulated once. A survey of `times` as many objects has each tile `times`
times, under other names and farther along in right ascension; the labels are those of the first
four, so that training is the same. All but the first survey have four shards, as the demo has, with
up to 30,000 objects each. Jobs run one after the other with two threads, so that the wall time is a
sum: of planning, scheduling, start-ups and own work. A job's own work is what Snakemake's benchmark
file says, less what its script takes to start (interpreter and imports), timed here.
Simulating is left out. `overhead_50x` is wall time over own work, less one;
`overhead_with_start_up_50x` counts start-ups as work, so that Snakemake's own share is left.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import fitsio
import numpy as np
import yaml
from timing import finish, show
from whole_runs import REPOSITORY, by_rule, jobs_since, own_work, snakemake

from luneta.config import validate
from luneta.simulation import tile as simulation

STEP = 1.0  # degrees of right ascension between a tile and its next copy
TILES = [f"demo_{number}" for number in range(4)]
RULES = (
    "ingest", "cutouts", "pretrain", "split", "finetune", "evaluate", "infer", "embed", "cluster",
    "card", "catalog", "candidates", "report",
)  # fmt: skip


def demo() -> dict:
    """The demo's config."""
    return yaml.safe_load((REPOSITORY / "config/demo.yaml").read_text())


def simulate(folder: Path) -> None:
    """Simulate the demo's tiles."""
    config = validate(demo())
    settings = {
        "seed": config.seed,
        "bands": list(config.input.bands),
        "simulation": config.simulation.model_dump(mode="json"),
    }
    for name in TILES:
        images = {band: str(folder / f"{name}_{band}.fits") for band in config.input.bands}
        tables = {
            "sources": str(folder / f"{name}_sources.fits"),
            "labels": str(folder / f"{name}_labels.csv"),
            "truth": str(folder / f"{name}_truth.parquet"),
        }
        simulation.run(name, settings, {"images": images, **tables})


def copy_tile(source: Path, target: Path, name: str, number: int) -> None:
    """Copy a tile and its list; moved along in right ascension, its objects under other names."""
    for band in demo()["input"]["bands"]:
        path = target / f"{name}_{number}_{band}.fits"
        shutil.copyfile(source / f"{name}_{band}.fits", path)
        with fitsio.FITS(str(path), "rw") as file:
            for unit in file:
                ra = unit.read_header().get("CRVAL1")
                if ra is not None:
                    unit.write_key("CRVAL1", (ra + number * STEP) % 360)
    rows = fitsio.read(str(source / f"{name}_sources.fits"))
    rows["RA"] = (rows["RA"] + number * STEP) % 360
    if number:
        kind = [(n, "S40" if n == "OBJECT_ID" else rows.dtype[n]) for n in rows.dtype.names]
        rows = rows.astype(kind)
        ids = [f"{text(given)}_{number}" for given in rows["OBJECT_ID"]]
        rows["OBJECT_ID"] = np.array(ids, "S40")
    fitsio.write(str(target / f"{name}_{number}_sources.fits"), rows, clobber=True)


def text(value: bytes | str) -> str:
    """A name from a FITS table."""
    return (value.decode() if isinstance(value, bytes) else str(value)).strip()


def survey(source: Path, folder: Path, times: int) -> dict:
    """Write the files of a survey of so many times the demo; gives its config."""
    target = folder / "tiles"
    target.mkdir(parents=True)
    config = demo()
    del config["simulation"]
    lines = ["tile\tband\timage\tmask\tweight"]
    for number in range(times):
        for name in TILES:
            copy_tile(source, target, name, number)
            for band in config["input"]["bands"]:
                path = f"tiles/{name}_{number}_{band}.fits"
                extensions = (f"{path}[{kind}]" for kind in ("IMAGE", "MASK", "WEIGHT"))
                lines.append("\t".join([f"{name}_{number}", band, *extensions]))
    (folder / "tiles.tsv").write_text("\n".join(lines) + "\n")
    config["input"] |= {
        "tiles": "tiles.tsv",
        "sources": "tiles/{tile}_sources.fits",
        "tiles_per_shard": times,
    }
    for task in config["tasks"].values():
        task["labels"] = [str(source / f"{name}_labels.csv") for name in TILES]
        task["label_tiles"] = [f"{name}_0" for name in TILES]
    return config


def measure(source: Path, folder: Path, times: int) -> dict[str, float]:
    """Run a survey whole."""
    config = survey(source, folder, times)
    objects = sum(
        fitsio.FITS(str(path))[1].get_nrows() for path in folder.glob("tiles/*_sources.fits")
    )
    start = time.time()
    threads = [f"{rule}=2" for rule in RULES]
    wall = snakemake(folder, config, "--cores", "2", "--set-threads", *threads)
    jobs = jobs_since(folder / "results/demo", start)
    print(f"{times} times the demo: {objects:,} objects, {wall:.0f} s")
    show(by_rule(jobs))
    work, with_start_up = own_work(jobs), sum(seconds for _, seconds in jobs)
    return {
        "objects": objects,
        "wall": wall,
        "jobs": len(jobs),
        "work": work,
        "overhead": wall / work - 1,
        "overhead_with_start_up": wall / with_start_up - 1,
        "cost": wall / objects,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10, 50])
    parser.add_argument("--folder", help="where the temporary surveys are made; 50 times: 8 GB")
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        source = Path(name) / "simulated"
        source.mkdir()
        simulate(source)
        for times in given.times:
            folder = Path(name) / f"times_{times}"
            found[times] = measure(source, folder, times)
            shutil.rmtree(folder)
    keys = ["objects", "jobs", "wall", "work", "overhead", "overhead_with_start_up", "cost"]
    show([("times", *keys), *((times, *(row[k] for k in keys)) for times, row in found.items())])
    results = {f"overhead_{t}x": row["overhead"] for t, row in found.items()}
    results |= {
        f"overhead_with_start_up_{t}x": row["overhead_with_start_up"] for t, row in found.items()
    }
    first = found[given.times[0]]["cost"]
    for times in given.times[1:]:
        results[f"cost_per_object_ratio_{times}x_over_{given.times[0]}x"] = (
            found[times]["cost"] / first
        )
    finish(results)


if __name__ == "__main__":
    main()
