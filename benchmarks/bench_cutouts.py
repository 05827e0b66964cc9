"""Cutting a tile: the job against the floor of the machine, and against what others do.

The floor is what no program can avoid: reading the bands once with fitsio, and writing as many
bytes as the shard file has.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import fitsio
import numpy as np
import pyarrow.parquet as pq
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from survey_files import cutout_settings, tan_header, write_objects, write_tile
from timing import finish, interleaved, ratio, show

from luneta.cutouts import job

SIZE = 64


def cut(folder: Path, names: dict[str, str]) -> Path:
    """Do the cutouts job's work; gives the shard file."""
    outputs = {name: folder / f"shard_{name}" for name in ("cutouts", "quality", "files")}
    job.run(folder / "objects.parquet", None, outputs, cutout_settings(names, SIZE))
    return outputs["cutouts"]


def floor(folder: Path, names: dict[str, str], content: memoryview) -> None:
    """Read the bands once, and write as many bytes as the shard has."""
    for name in names.values():
        fitsio.read(name.removesuffix("[1]"), ext=1)
    with (folder / "floor").open("wb", buffering=0) as file:
        file.write(content)


def clear(folder: Path) -> None:
    """Remove what the job and the floor wrote, and bring disk and memory to one state.

    A virtual machine gives freed memory back to its host, and is slow to get it again.
    """
    for name in ("floor", "shard_cutouts"):
        (folder / name).unlink(missing_ok=True)
    os.sync()
    np.ones(2**27)


def open_loop(names: dict[str, str], places: np.ndarray) -> None:
    """Open the file with astropy for each object and band, and slice its pixels."""
    for x, y in places:
        for name in names.values():
            with fits.open(name.removesuffix("[1]")) as file:
                file[1].data[y - SIZE // 2 : y + SIZE // 2, x - SIZE // 2 : x + SIZE // 2].copy()


def section_loop(names: dict[str, str], places: np.ndarray) -> None:
    """Open each band once with astropy, and read `.section` for each object."""
    for name in names.values():
        with fits.open(name.removesuffix("[1]")) as file:
            for x, y in places:
                file[1].section[y - SIZE // 2 : y + SIZE // 2, x - SIZE // 2 : x + SIZE // 2]


def astrocut_loop(names: dict[str, str], sky: SkyCoord) -> None:
    """Call astrocut for each coordinate, with all bands at once."""
    from astrocut import fits_cut  # brings much memory along, which another part measures

    paths = [name.removesuffix("[1]") for name in names.values()]
    for position in sky:
        fits_cut(paths, position, SIZE, extension=1, single_outfile=True, memory_only=True)


def speed(side: int, count: int, repeats: int) -> dict[str, float]:
    """Compare the job with the floor and with the three loops."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        names = write_tile(folder, side)
        write_objects(folder / "objects.parquet", side, count)
        content = memoryview(bytes(cut(folder, names).stat().st_size))
        both = interleaved(
            {"job": partial(cut, folder, names), "floor": partial(floor, folder, names, content)},
            repeats,
            partial(clear, folder),
        )
        table = pq.read_table(folder / "objects.parquet")
        xy = np.stack([table["x"], table["y"]], axis=1).round().astype(int)
        inside = xy[((xy > SIZE) & (xy < side - SIZE)).all(axis=1)]
        sky = WCS(tan_header(side)).pixel_to_world(*inside[:40].T)
        loops = {
            "open_loop": (8, partial(open_loop, names, inside[:8])),
            "section_loop": (60, partial(section_loop, names, inside[:60])),
            "astrocut": (40, partial(astrocut_loop, names, sky)),
        }
        rates = {}
        for loop, (done, way) in loops.items():
            start = time.perf_counter()
            way()
            rates[loop] = done / (time.perf_counter() - start)
    rate = count / median(both["job"])
    rows = [("", "seconds", "objects/s")]
    rows += [(name, median(both[name]), count / median(both[name])) for name in both]
    rows += [(name, "", value) for name, value in rates.items()]
    show(rows)
    speedups = {f"speedup_over_{name}": rate / value for name, value in rates.items()}
    return {"over_floor": ratio(both["job"], both["floor"]), **speedups}


def peak_memory() -> float:
    """Peak memory of this process in MB; what getrusage tells counts the parent's in."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def memory(side: int, count: int) -> dict[str, float]:
    """Measure the peak memory of a job in a process of its own."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        write_tile(Path(name), side)
        write_objects(Path(name) / "objects.parquet", side, count)
        subprocess.run([sys.executable, __file__, "--only-cut", name], check=True)
        peak = float((Path(name) / "peak").read_text())
    allowed = (4 * side**2 + 4 * count * 3 * SIZE**2) / 2**20 + 500
    show([("", "MB"), ("peak", peak), ("allowed", allowed)])
    return {"peak_mb": peak, "allowed_mb": allowed}


def main() -> None:
    """Measure speed and memory, or do one job to be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--large-side", type=int, default=10_000)
    parser.add_argument("--large-objects", type=int, default=50_000)
    parser.add_argument("--only-cut", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only_cut:
        cut(given.only_cut, {b: f"{given.only_cut}/tile_{b}.fits.fz[1]" for b in "grz"})
        (given.only_cut / "peak").write_text(str(peak_memory()))
        return
    results = speed(given.side, given.objects, given.repeats)
    finish({**results, **memory(given.large_side, given.large_objects)})


if __name__ == "__main__":
    main()
