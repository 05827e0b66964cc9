"""However a run ends, one plain rerun finishes it, and the catalog is that of a quiet run."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from luneta.outputs import RECORD, Manifest
from started_runs import Started, disk
from tiny_survey import PlainSurvey, Survey, quick_survey, small_survey

MOMENTS = 25
SEED = 5


def kill_snakemake(started, results):
    """Its jobs must not live on, to write into the files of the next run."""
    jobs = started.jobs()
    started.end(signal.SIGKILL)
    started.wait()
    _, alive = psutil.wait_procs(jobs, timeout=60)
    assert not alive


def kill_jobs(started, results):
    for job in started.jobs():
        with suppress(psutil.NoSuchProcess):
            job.kill()
    started.wait()


def kill_group(started, results):
    jobs = started.jobs()
    started.end(signal.SIGKILL, group=True)
    started.wait()
    psutil.wait_procs(jobs, timeout=60)


def terminate(started, results):
    started.end(signal.SIGTERM)
    started.wait()


def interrupt(started, results):
    """As Ctrl-C does."""
    started.end(signal.SIGINT, group=True)
    started.wait()


def fill_disk(started, results):
    """Until the run has ended; then there is room again."""
    ballast = results / "ballast"
    with ballast.open("wb") as file:
        try:
            while True:
                file.write(bytes(2**20))
                file.flush()
        except OSError:
            pass
    text = started.wait()
    ballast.unlink()
    if started.process.returncode:
        assert "the disk is full: free some space" in text, text[-4000:]


def lock_disk(started, results):
    """A run on a disk that can only be read says so, and can go on when that is mended."""
    kill_group(started, results)
    subprocess.run(["mount", "-o", "remount,ro", results], check=True)
    try:
        done = Survey(results.parents[1], new=False).snakemake()
    finally:
        subprocess.run(["mount", "-o", "remount,rw", results], check=True)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert text.count("the disk can only be read") == 1, text[-4000:]
    assert "Traceback" not in text


WAYS = [kill_snakemake, kill_jobs, kill_group, terminate, interrupt, fill_disk, lock_disk]
# The others, half a minute each, are tried by `make test-all`
QUICK = [kill_snakemake, interrupt, fill_disk, lock_disk]
ON_A_DISK = (fill_disk, lock_disk)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("quiet"), quick_survey)


@pytest.fixture(scope="module")
def quiet_whole(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("whole"), small_survey)


def undisturbed(folder: Path, make) -> tuple:
    """A run that nothing disturbs: how it is made, its catalog, how long it took, and where."""
    survey, start = make(folder), time.monotonic()
    survey.run()
    return make, survey.contents("catalog/**/*.*"), time.monotonic() - start, folder


def disturbed(folder: Path, quiet: tuple, way, moment: float) -> None:
    """Disturb a run at a moment, 0 to 1 of its length; run again, and compare the catalogs."""
    make, catalog, seconds, _ = quiet
    with disk(folder / "results/tiny", way in ON_A_DISK):
        survey = make(folder)
        started = Started(survey)
        try:
            started.process.wait(timeout=moment * seconds)
        except subprocess.TimeoutExpired:
            way(started, survey.results)
        survey.run()
        assert survey.contents("catalog/**/*.*") == catalog
        left = [path for path in survey.results.rglob("*") if "@" in path.name]
        assert left == []
        assert not list(survey.results.rglob("*.damaged"))


def folder_for(tmp_path: Path) -> Path:
    folder = tmp_path / "survey"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, id=way.__name__, marks=() if way in QUICK else pytest.mark.slow)
        for way in WAYS
    ],
)
def test_a_run_that_is_disturbed_is_finished_by_the_next(quiet, tmp_path, way):
    disturbed(folder_for(tmp_path), quiet, way, random.Random(way.__name__).uniform(0.3, 0.8))


def moments() -> list:
    """One for each twenty-fifth of the run's length, all ways in turn."""
    chance = random.Random(SEED)
    times = [(number + chance.random()) / MOMENTS for number in range(MOMENTS)]
    chance.shuffle(times)
    ways = [WAYS[number % len(WAYS)] for number in range(MOMENTS)]
    return [
        pytest.param(way, moment, id=f"{way.__name__}-{moment:.3f}")
        for way, moment in zip(ways, times, strict=True)
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("way", "moment"), moments())
def test_at_any_moment(quiet_whole, tmp_path, way, moment):
    disturbed(folder_for(tmp_path), quiet_whole, way, moment)
    shutil.rmtree(tmp_path / "survey")


# Damaged files


@pytest.fixture
def done(quiet, tmp_path) -> PlainSurvey:
    """A copy of the quick survey, finished."""
    return PlainSurvey(quiet[3], new=False).copied_to(tmp_path / "copy")


def flip_unseen(results: Path, name: str) -> None:
    """Flip a bit as a bad disk does: no time that the manifest knows tells of it."""
    path = results / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 8
    put_unseen(results, name, bytes(raw))


def put_unseen(results: Path, name: str, content: bytes) -> None:
    path = results / name
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    manifest = Manifest.parse((results / RECORD).read_bytes())
    manifest.states[name][2] = path.stat().st_ctime_ns
    manifest.write(results)


def test_a_file_cut_short_is_found_before_it_is_used_and_made_again(quiet, done):
    """Though nothing else is to be done, which Snakemake alone would take for finished."""
    path = done.results / "cutouts/t1.arrow"
    before = path.read_bytes()
    os.truncate(path, len(before) // 2)
    log = done.run()
    words = r"cutouts/t1.arrow is damaged: it has [\d,]+ bytes, the run wrote"
    assert len(re.findall(words, log)) == 1
    assert path.read_bytes() == before
    assert done.contents("catalog/**/*.*") == quiet[1]
    assert done.planned() == {}


def test_a_flipped_bit_that_nothing_betrays_is_found_by_the_job_that_reads_it(quiet, done):
    path = done.results / "objects/t1.parquet"
    before = path.read_bytes()
    flip_unseen(done.results, "objects/t1.parquet")
    (done.results / "catalog/rejects.parquet").unlink()
    failed = done.snakemake()
    text = failed.stdout + failed.stderr
    assert failed.returncode != 0
    assert "objects/t1.parquet is damaged: the checksum of its" in text
    assert "Run the same command again: the file is made again." in text
    assert "Traceback" not in text
    done.run()
    assert path.read_bytes() == before
    assert done.contents("catalog/**/*.*") == quiet[1]


@pytest.mark.slow
@pytest.mark.parametrize("change", ["predictions", "network"])
def test_a_changed_prediction_or_network_is_made_again(quiet_whole, tmp_path, change):
    survey = Survey(quiet_whole[3], new=False).copied_to(tmp_path / "copy")
    (survey.results / "catalog/rejects.parquet").unlink()  # so that there is something to do
    if change == "predictions":
        path = survey.results / "predictions/lens/tiny_0.parquet"
        before = path.read_bytes()
        flip_unseen(survey.results, "predictions/lens/tiny_0.parquet")
    else:  # another network, whole
        path = survey.results / "models/lens/fold1.keras"
        (survey.results / "predictions/lens/tiny_0.parquet").unlink()
        before = path.read_bytes()
        other = path.with_name("fold0.keras").read_bytes()
        put_unseen(survey.results, "models/lens/fold1.keras", other)
    failed = survey.snakemake()
    text = failed.stdout + failed.stderr
    assert failed.returncode != 0
    assert f"{path.relative_to(survey.folder)} is damaged: " in text
    survey.run()
    assert path.read_bytes() == before
    assert survey.contents("catalog/**/*.*") == quiet_whole[1]


# Two runs


def test_a_second_run_in_the_same_results_is_refused(done, tmp_path):
    """From the same folder and from another one; a dry run may look on."""
    for path in sorted(done.folder.glob("tiles/t*_g.fits")):  # work enough to outlast the others
        done.write_image(int(path.name[1]), "g", seed=1)
    other = tmp_path / "other"
    other.mkdir()
    for path in done.folder.iterdir():
        (other / path.name).symlink_to(path)
    first = Started(done)
    token = done.results / ".lock"
    before = token.read_text()
    while token.read_text() in (before, ""):
        assert first.process.poll() is None
        time.sleep(0.1)
    for folder in (done.folder, other):
        second = PlainSurvey(folder, new=False)
        refused = second.snakemake("--forcerun", "report")
        text = refused.stdout + refused.stderr
        assert refused.returncode != 0
        assert f"Another run is at work in {done.results.resolve()} (process " in text
        assert "Traceback" not in text
    first.end(signal.SIGKILL, group=True)
    first.wait()
    done.run()
