"""Predictions for JPEGs of galaxies: luneta beside Zoobot and Hyrax, ResNet50 with random weights.

    .venv/bin/python benchmarks/bench_peers.py --images 1500 --side 128

Each takes its turn on the same files, decoding included, with start-up counted (from the start of
the process to its end) and not counted (luneta: the work of `ingest`, `cutouts` and `infer`, with
loading and compiling of the network; Zoobot: the call of `predict`; Hyrax: the call of `infer`).
Then, on a third of the images, each is killed at half of its work, and each is given one file that
is no picture. With --repeats 1 it takes about ten minutes on two cores.

The peers live in `.venv-peers` beside this checkout, which the first run makes (about 4 GB).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from timing import finish, ratio, show

from luneta.files import read_json

HERE = Path(__file__).parent
ROOT = HERE.parent
PEERS = ROOT / ".venv-peers"
PYTHON = PEERS / "bin" / "python"
# The newest torch whose CPU build pip finds wherever there is one; else the one with CUDA.
PACKAGES = ["torch==2.13.0", "torchvision==0.28.0", "zoobot[pytorch]==2.9.0", "hyrax==0.13"]
KINDS = 200  # different pictures
SHARDS = 4
STARTED, FINISHED = "Predicting shape for shard", r"Finished jobid: \d+ \(Rule: infer\)"
SHARE = 3  # of the images for the tests of what is left
ZOOBOT_SETTINGS = {
    "zoobot as installed": [],
    "zoobot channels_last": ["--channels-last"],
    "zoobot channels_last, 2 workers, batches of 64": [
        "--channels-last", "--workers", "2", "--batch-size", "64",
    ],
}  # fmt: skip


class NotHere(RuntimeError):
    """The peers cannot be installed; the message says why."""


def install() -> None:
    """Make the peers' environment, unless it is there.

    Raises
    ------
    NotHere
        If it cannot be made here.
    """
    stamp = PEERS / "installed.json"
    if stamp.exists() and json.loads(stamp.read_text()) == PACKAGES:
        return
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < 15:
        raise NotHere(f"the peers need 15 GB of disk while they are installed; {free:.0f} are free")
    print(f"Making {PEERS.name} (once): {', '.join(PACKAGES)}", flush=True)
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(PEERS)],
        [str(PYTHON), "-m", "pip", "install", "--quiet", *PACKAGES],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.strip()][-3:]
            raise NotHere(f"`{' '.join(step[1:4])} ...` failed: {' '.join(said)}")
    stamp.write_text(json.dumps(PACKAGES))


def write_images(folder: Path, count: int, side: int) -> None:
    """Write JPEGs of blobs in noise, as large as those of real galaxies."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] / side - 0.5
    for number in range(KINDS):
        angle, width = random.uniform(0, np.pi), random.uniform(0.05, 0.2)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        light = np.exp(-((along / width) ** 2 + (across / width / 0.6) ** 2))
        colour = random.uniform(80, 250, 3)
        pixels = light[..., None] * colour + random.normal(20, 8, (side, side, 3))
        name = folder / f"galaxy{number:06d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(name, quality=90)
        for copy in range(number + KINDS, count, KINDS):
            shutil.copy(name, folder / f"galaxy{copy:06d}.jpg")
    for surplus in sorted(folder.glob("*.jpg"))[count:]:
        surplus.unlink()


@dataclass
class Turn:
    """One run of one program.

    Attributes
    ----------
    whole, work : float
        Seconds with start-up and without.
    processor : float
        Seconds of processor time, start-up and all processes included.
    memory : float
        Peak of the largest process, GB.
    """

    whole: float
    work: float
    processor: float
    memory: float


def run(
    command: list[str], folder: Path, kill_when: Callable[[], bool] | None = None
) -> tuple[float, float, float]:
    """Run a command in a folder; kill it and all it started when something has come, if asked.

    Returns
    -------
    float, float, float
        Seconds it took, seconds of processor time, and the peak memory of its largest process, GB.

    Raises
    ------
    RuntimeError
        If it fails, with the end of what it said.
    """
    with (folder / "said.txt").open("wb") as said:
        start = time.time()
        process = subprocess.Popen(
            command, cwd=folder, stdout=said, stderr=said, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "scripts")},
        )  # fmt: skip
        if kill_when is not None:
            while process.poll() is None and not kill_when():
                time.sleep(0.1)
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            return time.time() - start, 0.0, 0.0
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.time() - start
    if status != 0:
        raise RuntimeError("\n".join((folder / "said.txt").read_text().splitlines()[-5:]))
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6


def fresh(folder: Path) -> Path:
    """Empty a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def work_of(path: Path) -> float:
    """Read the seconds between the start and the end of the work."""
    times = json.loads(path.read_text())
    return times["ended"] - times["began"]


def peer(script: str, images: Path, outputs: Path, side: int, options: list[str]) -> list[str]:
    """Give the command of a peer."""
    return [str(PYTHON), str(HERE / "peers" / script), str(images), str(outputs),
            "--side", str(side), *options]  # fmt: skip


def turn_of_peer(script: str, images: Path, folder: Path, side: int, options: list[str]) -> Turn:
    """Let a peer predict all images."""
    outputs = fresh(folder)
    whole, processor, memory = run(peer(script, images, outputs, side, options), outputs)
    return Turn(whole, work_of(outputs / "times.json"), processor, memory)


def job(name: str, folder: Path, *options: str) -> list[str]:
    """Give the command of one of luneta's jobs."""
    return [sys.executable, str(HERE / "peers" / "luneta_jobs.py"), name, str(folder), *options]


def turn_of_luneta(folder: Path) -> Turn:
    """Let luneta cut and predict all images, in two processes as in a workflow."""
    shutil.rmtree(folder / "results/peers/predictions", ignore_errors=True)
    shutil.rmtree(folder / "results/peers/cutouts", ignore_errors=True)
    turns = [run(job(name, folder), folder) for name in ("cut", "infer")]
    work = sum(work_of(folder / f"{name}_times.json") for name in ("cut", "infer"))
    whole, processor, memory = zip(*turns, strict=True)
    return Turn(sum(whole), work, sum(processor), max(memory))


def survey(folder: Path, images: Path, side: int, shards: int) -> Path:
    """Lay out a survey of the images, with untrained networks."""
    fresh(folder)
    (folder / "images").symlink_to(images)
    run(job("prepare", folder, "--side", str(side), "--shards", str(shards)), folder)
    return folder


def speeds(images: Path, folder: Path, side: int, repeats: int, fewer: bool) -> dict:
    """Let all take turns; give a `Turn` for each and repeat, by name."""
    ours = survey(folder / "luneta", images, side, 1)
    settings = dict(list(ZOOBOT_SETTINGS.items())[:2] if fewer else ZOOBOT_SETTINGS)
    ways = {"luneta": partial(turn_of_luneta, ours)}
    for name, options in settings.items():
        ways[name] = partial(turn_of_peer, "zoobot_predict.py", images, folder / "zoobot", side,
                             options)  # fmt: skip
    ways["hyrax"] = partial(turn_of_peer, "hyrax_infer.py", images, folder / "hyrax", side, [])
    turns: dict[str, list[Turn]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            turns[name].append(way())
            print(f"  {name}: {turns[name][-1].whole:.0f} s", flush=True)
    return turns


def show_speeds(turns: dict[str, list[Turn]], count: int) -> None:
    """Print the rates of all."""
    head = ("", "images/s", "with start-up", "start-up (s)", "processor time (s)", "memory (GB)")
    rows = [head]
    for name, each in turns.items():
        whole, work = median(t.whole for t in each), median(t.work for t in each)
        processor, memory = median(t.processor for t in each), median(t.memory for t in each)
        rows.append((name, count / work, count / whole, whole - work, processor, memory))
    show(rows)


def left_by_zoobot(folder: Path) -> int:
    """Count the predictions that Zoobot has written."""
    return sum(len(path.read_text().splitlines()) - 1 for path in folder.glob("*.csv"))


def left_by_hyrax(folder: Path) -> int:
    """Count the results that Hyrax has written."""
    tables = list(folder.glob("*/lance_db/*.lance"))
    if not tables:
        return 0
    code = f"import lance; print(lance.dataset({str(tables[0])!r}).count_rows())"
    done = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True)
    return int(done.stdout.strip() or 0)


def left_by_luneta(folder: Path) -> int:
    """Count luneta's predictions."""
    files = (folder / "results/peers/predictions/shape").glob("[!.]*.parquet")
    return sum(len(column) - column.null_count for column in map(_classes, files))


def _classes(path: Path) -> pa.ChunkedArray:
    return pq.read_table(path)["shape_class"]


def jobs(folder: Path, line: str) -> int:
    """Count the `infer` jobs of a run of Snakemake that it has told of in such a line."""
    said = re.sub(r"\x1b\[[0-9;]*m", "", (folder / "said.txt").read_text())
    return len(re.findall(line, said))


def by_snakemake(folder: Path, images: Path, side: int) -> list[str]:
    """Lay out a survey of several shards; give the command that predicts it with Snakemake.

    The networks are those that `prepare` has left, so that no rule but these three may run.
    """
    survey(folder, images, side, SHARDS)
    wanted = [f"results/peers/predictions/shape/stamps_{n:05d}.parquet" for n in range(SHARDS)]
    return [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile"),
            "--configfile", "config.yaml", "--no-hooks", "--cores", str(os.cpu_count()),
            "--allowed-rules", "ingest", "cutouts", "infer", "--", *wanted]  # fmt: skip


def at_work(outputs: Path, seconds: float) -> bool:
    """Tell whether a peer has been at work for so long."""
    marker = outputs / "began"
    return marker.exists() and time.time() - marker.stat().st_mtime > seconds


def killed(
    images: Path, folder: Path, side: int, turns: dict[str, list[Turn]], share: float
) -> list[tuple]:
    """Kill each at half of its work; tell what is left, and what the next run does.

    The images are a share of those that the turns were timed on.
    """
    rows = []
    for name, script, left in PEERS_LEFT:
        outputs, half = fresh(folder / "killed"), turns[name][-1].work * share / 2
        run(peer(script, images, outputs, side, []), outputs, partial(at_work, outputs, half))
        rows.append((name, left(outputs), "begins anew"))
    ours = folder / "killed_luneta"
    usual, *_ = run(by_snakemake(ours, images, side), ours)
    command = by_snakemake(ours, images, side)
    run(command, ours, lambda: jobs(ours, FINISHED) * 2 >= SHARDS)
    left = left_by_luneta(ours)
    again, *_ = run(command, ours)
    then = (
        f"{jobs(ours, STARTED)} of {SHARDS} shards, {again:.0f} s of {usual:.0f} s; "
        f"{left_by_luneta(ours)} rows then"
    )
    rows.append((f"luneta, {SHARDS} shards by Snakemake, 2 networks", left, then))
    return rows


def with_bad_file(images: Path, folder: Path, side: int) -> list[tuple]:
    """Give each a file that is no picture; tell what there is at the end."""
    spoilt = folder / "spoilt"
    shutil.copytree(images, spoilt, symlinks=True)
    last = sorted(spoilt.glob("*.jpg"))[-1]
    last.unlink()
    last.write_bytes(b"no picture at all")
    rows = []
    for name, script, left in PEERS_LEFT:
        outputs = fresh(folder / "bad_file")
        ended = said_by(peer(script, spoilt, outputs, side, []), outputs)
        rows.append((name, left(outputs), ended))
    ours = survey(folder / "bad_file_luneta", spoilt, side, 1)
    turn_of_luneta(ours)
    (bad,) = read_json(ours / "results/peers/quality/stamps_00000_files.json")
    rows.append(("luneta", left_by_luneta(ours), f"ends well; {bad['flag']}: {bad['path']}"))
    return rows


def said_by(command: list[str], folder: Path) -> str:
    """Run a command; give how it ends."""
    try:
        run(command, folder)
    except RuntimeError as error:
        return f"fails: {str(error).splitlines()[-1][:80]}"
    return "ends well"


def compare(count: int, side: int, repeats: int, fewer: bool) -> dict[str, float]:
    """Let all take turns, kill them, and give them a bad file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = folder / "images"
        write_images(images, count, side)
        turns = speeds(images, folder, side, repeats, fewer)
        show_speeds(turns, count)
        few = folder / "few"
        few.mkdir()
        for path in sorted(images.glob("*.jpg"))[: count // SHARE]:
            (few / path.name).symlink_to(path)
        print()
        rows = killed(few, folder, side, turns, 1 / SHARE)
        show([(f"{count // SHARE} images, killed (-9) half way", "left", "the next run"), *rows])
        print()
        rows = with_bad_file(few, folder, side)
        show([(f"one of {count // SHARE} files is no picture", "predicted", ""), *rows])
    work = {name: [t.work for t in each] for name, each in turns.items()}
    whole = {name: [t.whole for t in each] for name, each in turns.items()}
    best = min(ZOOBOT_SETTINGS, key=lambda name: median(work.get(name, [math.inf])))
    return {
        "speedup_over_zoobot": ratio(work["zoobot as installed"], work["luneta"]),
        "speedup_over_zoobot_best": ratio(work[best], work["luneta"]),
        "speedup_over_hyrax": ratio(work["hyrax"], work["luneta"]),
        "with_startup_over_zoobot": ratio(whole["zoobot as installed"], whole["luneta"]),
        "with_startup_over_zoobot_best": ratio(whole[best], whole["luneta"]),
        "with_startup_over_hyrax": ratio(whole["hyrax"], whole["luneta"]),
    }


def main() -> None:
    """Compare, or say why not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--fewer", action="store_true", help="without the last setting of Zoobot")
    given = parser.parse_args()
    try:
        install()
    except NotHere as error:
        print(f"skipped: {error}")
        finish({})
        return
    finish(compare(given.images, given.side, given.repeats, given.fewer))


PEERS_LEFT = (
    ("zoobot as installed", "zoobot_predict.py", left_by_zoobot),
    ("hyrax", "hyrax_infer.py", left_by_hyrax),
)

if __name__ == "__main__":
    main()
