"""Cutting stamps of one file a band: the job on one core and on two, against astropy's getdata.

The job reads, checks, measures the sky, scales and writes the shard; astropy only reads.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from timing import finish, interleaved, ratio, show

from luneta.config import validate
from luneta.cutouts import job
from luneta.survey.stamp_index import deal_stamps

BANDS = ["u", "g", "r", "i"]
SIDE, SIZE = 101, 64


def write_stamps(folder: Path, count: int) -> None:
    """Write a FITS file for each object and band, with a header as surveys have."""
    pixels = np.random.default_rng(0).normal(0, 1e-12, (SIDE, SIDE)).astype(np.float32)
    header = fits.Header([(f"KEY{number}", number, "a card") for number in range(20)])
    for number in range(count):
        pixels[SIDE // 2, SIDE // 2] = 1e-10 * (1 + number)
        for band in BANDS:
            fits.PrimaryHDU(pixels, header).writeto(folder / f"{number}_{band}.fits")


def plan(folder: Path, count: int) -> tuple[Path, Path, dict]:
    """Make the objects, the slice of the stamp table and the settings of one shard."""
    (folder / "stamps.csv").write_text("object_id\n" + "\n".join(map(str, range(count))) + "\n")
    config = validate(
        {
            "survey": "benchmark",
            "input": {
                "kind": "stamps",
                "table": str(folder / "stamps.csv"),
                "image": "{object_id}_{band}.fits",
                "bands": BANDS,
                "stamps_per_shard": count,
            },
            "cutouts": {"size": SIZE, "crop": SIZE / SIDE},
        }
    )
    given = config.input.model_dump(mode="json")
    stamps = deal_stamps(given, folder / "index")["stamps_00000"]
    objects = {
        "object_id": pq.read_table(stamps)["object_id"],
        "flags": pa.array(np.zeros(count, np.int32)),
        "reject_reason": pa.nulls(count, pa.string()),
    }
    pq.write_table(pa.table(objects), folder / "objects.parquet")
    settings = {**given, "cutouts": config.cutouts.model_dump(mode="json"), "quality": {}}
    return folder / "objects.parquet", stamps, settings


def cut(folder: Path, objects: Path, stamps: Path, settings: dict, cores: int) -> None:
    """Do the cutouts job's work."""
    outputs = {name: folder / f"shard_{name}" for name in ("cutouts", "quality", "files")}
    job.run(objects, stamps, outputs, settings, cores)


def getdata_loop(folder: Path, count: int) -> None:
    """Read each file with astropy."""
    for number in range(count):
        for band in BANDS:
            fits.getdata(folder / f"{number}_{band}.fits")


def compare(count: int, repeats: int) -> dict[str, float]:
    """Run the three ways in turn, all on files that the machine has in memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_stamps(folder, count)
        shard = plan(folder, count)
        cut(folder, *shard, 2)
        os.sync()
        seconds = interleaved(
            {
                "astropy.io.fits.getdata per file": partial(getdata_loop, folder, count),
                "luneta, the whole job, one core": partial(cut, folder, *shard, 1),
                "luneta, the whole job, two cores": partial(cut, folder, *shard, 2),
            },
            repeats,
        )
    rows = [(way, float(np.median(s)), count / float(np.median(s))) for way, s in seconds.items()]
    show([("way", "seconds", "objects/s"), *rows])
    astropy, one, two = seconds.values()
    return {"speedup_over_astropy": ratio(astropy, one), "speedup_two_cores": ratio(one, two)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    finish(compare(given.objects, given.repeats))
