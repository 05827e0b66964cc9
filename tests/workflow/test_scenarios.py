"""What happens to a run from outside: killed jobs, moving inputs, clocks, skies without objects."""

import gc
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import yaml

from fits_files import tan_wcs, write_image
from luneta.config import ConfigError
from luneta.cutouts.job import run as cut
from luneta.files import read_json
from luneta.plan import make, make_plan
from luneta.plan.recording import changed_since
from luneta.retries import Retries, remember
from luneta.runs import explanations
from luneta.survey.fingerprints import Deliveries, fingerprints
from luneta.survey.ingest import run as ingest
from started_runs import Started, disk
from tiny_survey import PlainSurvey, Survey, plain_config, quick_survey

SECONDS = 120  # until a job must have begun
DAY = 86_400


def catalog(survey: Survey) -> dict[str, bytes]:
    return survey.contents("catalog/**/*.*")


def rejected(survey: Survey) -> list[dict]:
    return pq.read_table(survey.results / "catalog/rejects.parquet").to_pylist()


def rows_of(survey: Survey) -> int:
    paths = survey.results.glob("catalog/tiny/dataset/Norder*/**/*.parquet")
    return sum(pq.read_metadata(path).num_rows for path in paths)


def said(done: subprocess.CompletedProcess) -> str:
    return done.stdout + done.stderr


def job_of(started: Started, rule: str) -> psutil.Process:
    """Wait for the first job of a rule."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and started.process.poll() is None:
        for process in started.jobs():
            with suppress(psutil.Error):
                if any(word.endswith(f".{rule}.py") for word in process.cmdline()):
                    return process
        time.sleep(0.05)
    raise AssertionError(started.wait())


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> PlainSurvey:
    """Three tiles, run by a run that nothing disturbs."""
    survey = quick_survey(tmp_path_factory.mktemp("quiet"))
    survey.run()
    return survey


@pytest.fixture
def survey(tmp_path) -> PlainSurvey:
    """The same three tiles, not run yet."""
    (tmp_path / "survey").mkdir()
    return quick_survey(tmp_path / "survey")


# Inputs that are replaced, or removed and put back


def deliver(folder: Path) -> Path:
    path = folder / "a.fits"
    path.write_bytes(b"as delivered")
    return path


def write_other(path: Path) -> None:
    path.write_bytes(b"of another day")


def write_other_of_the_same_size_and_time(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"AS DELIVERED")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def write_the_same_again(path: Path) -> None:
    """As a second delivery does: for a moment the file is empty."""
    path.write_bytes(b"")
    path.write_bytes(b"as delivered")


def replace_by_the_same(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(path.read_bytes())
    path.unlink()
    new.rename(path)


CHANGES = [
    Path.unlink, write_other, write_other_of_the_same_size_and_time, write_the_same_again,
    replace_by_the_same,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_job_notices_that_a_file_changes_while_it_is_read(tmp_path, change):
    path = deliver(tmp_path)
    planned = fingerprints([str(path)], tmp_path / "memory.json")
    deliveries = Deliveries(planned)
    assert deliveries.changed() == []
    change(path)
    assert deliveries.changed() == [str(path)]


@pytest.mark.parametrize("change", [Path.unlink, write_other], ids=lambda change: change.__name__)
def test_a_job_notices_that_a_file_is_not_the_one_that_was_planned(tmp_path, change):
    path = deliver(tmp_path)
    planned = fingerprints([str(path)], tmp_path / "memory.json")
    change(path)
    deliveries = Deliveries(planned)
    path.write_bytes(b"as delivered")
    assert deliveries.changed() == [str(path)]


def test_a_job_notices_a_file_that_was_missing_when_the_run_was_planned(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    missing = tmp_path / "b.fits"
    paths = [str(missing), "/dev/null", str(parts)]
    planned = fingerprints(paths, tmp_path / "memory.json")
    assert Deliveries(planned).changed() == []
    deliveries = Deliveries(planned)
    missing.touch()
    assert deliveries.changed() == [str(missing)]


def test_what_changed_while_it_was_read_is_read_again_by_the_next_run(tmp_path):
    remember(tmp_path, "cutouts", "t1", [], {}, ["a.fits"])
    retries = Retries(tmp_path / "index")
    assert retries.settings("cutouts", "t1") == {"retry": 1}
    assert retries.changed() == ["a.fits"]
    assert retries.changed(["t2"]) == []
    assert retries.files() == []
    remember(tmp_path, "cutouts", "t1", [], {"retry": 1})
    retries = Retries(tmp_path / "index")
    assert retries.settings("cutouts", "t1") == {"retry": 1}
    assert retries.changed() == []


@pytest.fixture
def planned(survey, monkeypatch):
    """A function that plans a survey in this process, as Snakemake does when it begins."""
    monkeypatch.chdir(survey.folder)

    def plan():
        made = make_plan(yaml.safe_load(Path("config.yaml").read_text()), is_run=True)
        os.close(made.run._lock)
        make._runs.clear()
        return made

    return plan


def test_a_job_is_told_of_all_files_that_it_reads_and_of_no_other(planned):
    Path("tiles/t1_g.fits").unlink()
    plan = planned()
    delivered = plan.cutouts("t0")["delivered"]
    names = ["t0_g.fits", "t0_g_mask.fits", "t0_r.fits", "t0_r_mask.fits"]
    assert sorted(delivered) == [f"tiles/{name}" for name in names]
    assert all(delivered.values())
    assert list(plan.ingest("t0")["delivered"]) == ["tiles/t0_r.fits"]


@pytest.mark.parametrize("name", ["tiles/t1_g.fits", "tiles/t2_r_mask.fits", "sources.csv"])
def test_a_run_whose_input_changes_meanwhile_is_not_recorded(planned, name):
    plan = planned()
    assert changed_since(plan) == []
    content = Path(name).read_bytes()
    Path(name).write_bytes(content + b" ")
    assert changed_since(plan) == [name]
    Path(name).unlink()
    assert changed_since(plan) == [name]
    Path(name).write_bytes(content)
    assert changed_since(plan) == []
    remember(plan.results, "cutouts", "t1", [], {}, [name])
    assert changed_since(plan) == [name]
    assert planned().retried() == [
        f"1 file changed while the last run was at work, and is read again now (first: {name})"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["t1_g.fits", "t1_r.fits", "t1_g_mask.fits"])
def test_a_file_that_is_away_while_a_run_is_at_work_costs_nothing_in_the_end(quiet, survey, name):
    path = survey.folder / "tiles" / name
    aside = survey.folder / "aside"
    started = Started(survey)
    job_of(started, "ingest")
    path.rename(aside)
    log = started.wait()
    aside.rename(path)
    assert started.process.returncode == 0
    assert catalog(survey) != catalog(quiet)
    assert "This run is not recorded: 1 file changed while the run was at work" in log
    assert not list(survey.results.glob("runs/*"))
    lines = survey.plan()[1]
    assert lines == [
        "1 file changed while the last run was at work, and is read again now "
        f"(first: tiles/{name})"
    ]
    survey.run()
    assert catalog(survey) == catalog(quiet)
    assert survey.plan() == ({}, [])


@pytest.mark.slow
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "taken back"])
def test_an_image_that_is_replaced_while_a_run_is_at_work_is_read_again(quiet, survey, is_kept):
    path = survey.folder / "tiles/t1_g.fits"
    before = path.read_bytes()
    started = Started(survey)
    job_of(started, "ingest")
    survey.write_image(1, "g", seed=7)
    log = started.wait()
    assert started.process.returncode == 0
    assert "This run is not recorded: 1 file changed while the run was at work" in log
    if not is_kept:
        path.write_bytes(before)
    survey.run()
    record = read_json(next(survey.results.glob("runs/*.json")))
    assert record["inputs"]["files"]["tiles/t1_g.fits"]["bytes"] == len(before)
    assert (catalog(survey) == catalog(quiet)) is not is_kept
    assert survey.plan() == ({}, [])


# Stopped and killed jobs


@pytest.mark.slow
def test_a_run_goes_on_after_it_and_its_job_were_stopped(quiet, survey):
    started = Started(survey)
    job = job_of(started, "cutouts")
    job.send_signal(signal.SIGSTOP)
    started.end(signal.SIGSTOP)
    refused = survey.snakemake()
    assert refused.returncode != 0
    assert "Another run is at work in" in said(refused)
    assert job.status() == psutil.STATUS_STOPPED
    job.send_signal(signal.SIGCONT)
    started.end(signal.SIGCONT)
    log = started.wait()
    assert started.process.returncode == 0, log
    assert catalog(survey) == catalog(quiet)
    assert survey.planned() == {}


def test_what_snakemake_says_of_killed_jobs_is_explained(tmp_path):
    log = tmp_path / "run.log"
    log.write_text("Command 'python a.py' returned non-zero exit status 1.\n" * 2)
    assert explanations([log, tmp_path / "none.log"], "results/sky") == []
    log.write_text("Command 'python a.py' died with <Signals.SIGKILL: 9>.\n")
    (line,) = explanations([log], "results/sky")
    assert line.startswith("1 job was killed (SIGKILL), most often for lack of memory: run it with")
    log.write_text("Command 'singularity exec' returned non-zero exit status 137.\n" * 2)
    (line,) = explanations([log], "results/sky")
    assert line.startswith("2 jobs were killed")


@pytest.mark.parametrize(
    ("number", "where", "message"),
    [
        (28, ": 'results/sky/benchmarks/a.jsonl'", "results/sky/benchmarks cannot be written to"),
        (28, "", "results/sky cannot be written to: the disk is full"),
        (122, "", "your quota of the disk is used up"),
    ],
)
def test_a_disk_that_snakemake_itself_finds_full_is_explained(tmp_path, number, where, message):
    log = tmp_path / "run.log"
    log.write_text(f"WorkflowError:\nOSError: [Errno {number}] {os.strerror(number)}{where}\n" * 3)
    (line,) = explanations([log], "results/sky")
    assert message in line
    assert line.endswith(f"what is finished stays ({os.strerror(number)})")


@pytest.mark.slow
def test_a_job_killed_as_for_memory_is_explained_and_made_by_the_next_run(quiet, survey):
    started = Started(survey)
    job_of(started, "cutouts").kill()
    log = started.wait()
    assert started.process.returncode != 0
    assert log.count("1 job was killed (SIGKILL), most often for lack of memory") == 1
    assert "Traceback" not in log
    survey.run()
    assert catalog(survey) == catalog(quiet)
    assert survey.planned() == {}


# Clocks


@pytest.mark.slow
def test_a_clock_that_is_set_back_hides_nothing_and_reruns_nothing_for_ever(quiet, tmp_path):
    survey = quiet.copied_to(tmp_path / "copy")
    ahead = time.time() + DAY
    for path in survey.folder.rglob("*"):
        if path.is_file():
            os.utime(path, (ahead, ahead))
    survey.run()
    assert catalog(survey) == catalog(quiet)
    assert survey.planned() == {}
    survey.write_image(1, "g", seed=4)
    jobs, lines = survey.plan()
    assert jobs == {"cutouts": 1, "catalog": 1, "report": 1}
    assert lines == ["1 image changed: t1 (g)"]
    survey.run()
    assert survey.planned() == {}
    again = survey.copied_to(tmp_path / "again")
    shutil.rmtree(again.results)
    shutil.rmtree(again.folder / ".snakemake")
    again.run()
    assert catalog(survey) == catalog(again)


def test_labels_from_the_future_are_refused_with_the_remedy(planned):
    config = yaml.safe_load(Path("config.yaml").read_text())
    task = {"kind": "binary", "classes": ["no", "yes"], "labels": ["labels.csv"]}
    task["training"] = {"folds": 2, "holdout": 0.0, "image_size": 32}
    Path("config.yaml").write_text(yaml.safe_dump(config | {"tasks": {"lens": task}}))
    names = [row.partition(",")[0] for row in Path("sources.csv").read_text().split()[1:]]
    labels = [f"{name},{'yes' if number % 2 else 'no'}" for number, name in enumerate(names)]
    Path("labels.csv").write_text("\n".join(["object_id,label", *labels]) + "\n")
    ahead = time.time() + DAY
    os.utime("labels.csv", (ahead, ahead))
    with pytest.raises(ConfigError, match=r"labels.csv has a time in the future.*touch labels.csv"):
        planned()
    make._runs.clear()
    os.utime("labels.csv")
    assert planned().tasks == ["lens"]


# No room for names


@pytest.mark.slow
def test_a_disk_without_inodes_is_named_and_the_next_run_goes_on(quiet, tmp_path):
    folder = tmp_path / "survey"
    folder.mkdir()
    with disk(folder / "results/tiny", wanted=True):
        survey = quick_survey(folder)
        for number in (6, 30, 50):
            resize(survey, number)
            done = survey.snakemake()
            assert done.returncode != 0
            assert "inodes are used up" in said(done), said(done)[-3000:]
            assert "Traceback" not in said(done)
        resize(survey, 5000)
        survey.run()
        assert catalog(survey) == catalog(quiet)
        assert survey.planned() == {}


def resize(survey: Survey, inodes: int) -> None:
    """Let the disk of the results hold another number of files."""
    options = f"remount,nr_inodes={inodes}"
    subprocess.run(["mount", "-o", options, survey.results], check=True)


# Nothing to work on


def cut_in_half(survey: PlainSurvey) -> None:
    for path in survey.folder.glob("tiles/t?_?.fits"):
        os.truncate(path, path.stat().st_size // 2)


def empty_files(survey: PlainSurvey) -> None:
    for path in survey.folder.glob("tiles/t?_?.fits"):
        os.truncate(path, 0)


def without_coordinates(survey: PlainSurvey) -> None:
    for path in survey.folder.glob("tiles/t?_?.fits"):
        path.write_bytes(path.read_bytes().replace(b"RA---TAN", b"XX---YYY"))


def without_images(survey: PlainSurvey) -> None:
    lines = ["tile\tband\timage"]
    lines += [f"t{tile}\t{band}\ttiles/t{tile}_{band}.fits" for tile in range(3) for band in "gr"]
    (survey.folder / "tiles.tsv").write_text("\n".join(lines) + "\n")
    config = plain_config()
    config["input"] |= {"images": None, "masks": None, "tiles": "tiles.tsv"}
    survey.write_config(config)
    shutil.rmtree(survey.folder / "tiles")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "flag"),
    [
        (cut_in_half, "unreadable_file"), (empty_files, "unreadable_file"),
        (without_coordinates, "no_wcs"), (without_images, "missing_file"),
    ],
)  # fmt: skip
def test_a_survey_of_bad_tiles_only_has_a_catalog_that_says_why(survey, spoil, flag):
    spoil(survey)
    log = survey.run()
    assert "15 objects: 0 usable, 15 rejected; " in log
    assert rows_of(survey) == 15
    rejects = rejected(survey)
    files = [row["name"] for row in rejects if row["kind"] == "file" and row["flag"] == flag]
    assert {f"tiles/t{tile}_r.fits" for tile in range(3)} <= set(files)
    assert len([row for row in rejects if row["kind"] == "object" and row["reason"]]) == 15
    assert (survey.results / "figures/flagged.png").stat().st_size > 1000
    assert survey.planned() == {}


def an_empty_list(survey: PlainSurvey) -> int:
    survey.write_sources([])
    return 0


def a_list_of_another_sky(survey: PlainSurvey) -> int:
    survey.write_sources([("a", 10.0, 50.0), ("b", 11.0, 50.0)])
    return 2


def a_detection_that_finds_nothing(survey: PlainSurvey) -> int:
    config = plain_config()
    del config["input"]["sources"]
    config["input"]["detection"] = {"threshold": 50.0}
    survey.write_config(config)
    return 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "prepare", [an_empty_list, a_list_of_another_sky, a_detection_that_finds_nothing]
)
def test_a_survey_without_objects_ends_well_and_says_so(survey, prepare):
    number = prepare(survey)
    log = survey.run()
    assert f"{number} objects: 0 usable, {number} rejected; 0 files could not be used" in log
    assert rows_of(survey) == number
    reasons = [row["reason"] for row in rejected(survey)]
    assert reasons == ["the position lies outside every tile"] * number
    assert survey.planned() == {}


# Many tiles, many runs


def test_planning_and_cutting_again_and_again_leaks_nothing(planned, tmp_path):
    plan = planned()
    outputs = {name: tmp_path / name for name in ("cutouts", "quality", "files")}
    objects = tmp_path / "objects.parquet"
    ingest(plan.sources("t1"), objects, plan.ingest("t1"))
    process = psutil.Process()
    states = []
    for _ in range(50):
        planned()
        cut(objects, None, outputs, plan.cutouts("t1"), threads=2)
        gc.collect()
        memory = process.memory_info().rss / 1e6
        states.append((process.num_fds(), process.num_threads(), memory))
    descriptors, threads, megabytes = zip(*states, strict=True)
    assert descriptors[-1] == descriptors[9]
    assert threads[-1] == threads[9]
    assert megabytes[-1] - megabytes[9] < 20


NUMBER = 2000
PIXELS = 32


@pytest.mark.slow
def test_two_thousand_tiny_tiles_are_cut_in_four_shards(tmp_path):
    survey = PlainSurvey(tmp_path)
    (tmp_path / "tiles").mkdir()
    random = np.random.default_rng(1)
    rows = []
    for tile in range(NUMBER):
        ra = 150 + (tile % 50) * 0.003
        dec = (tile // 50) * 0.003
        wcs = tan_wcs((PIXELS, PIXELS), ra=ra, dec=dec, rotation=0.0)
        for band in "gr":
            noise = random.normal(0, 1, (PIXELS, PIXELS)).astype(np.float32)
            write_image(tmp_path / f"tiles/t{tile}_{band}.fits", noise, wcs, compressed=False)
        rows.append((f"o{tile}", ra, dec))
    survey.write_sources(rows)
    config = plain_config()
    del config["input"]["masks"]
    config["input"]["tiles_per_shard"] = 500
    survey.write_config(config)
    started = Started(survey)
    most_files = 0
    most_memory = 0.0
    while started.process.poll() is None:
        for process in started.jobs():
            with suppress(psutil.Error):
                most_files = max(most_files, process.num_fds())
                most_memory = max(most_memory, process.memory_info().rss / 1e9)
        time.sleep(0.3)
    assert "2,000 objects: 2,000 usable, 0 rejected" in started.wait()
    assert len(list(survey.results.glob("cutouts/*.arrow"))) == 4
    assert most_files < 256
    assert most_memory < 1.5
    assert survey.planned() == {}
