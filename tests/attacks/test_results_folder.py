"""Results that others may write to: links at names that can be foreseen overwrite nothing."""

import os
import re
import stat
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from luneta import outputs, runs
from luneta.catalog.leaves import Leaf, Spill, replace_if_changed, write_leaf
from luneta.files import HOST, TEMPORARY, atomic_path, write_json
from luneta.runs import LOCK, Run, RunError
from luneta.surroundings import UNCLAIMED_MODULES

PRECIOUS = "ssh-ed25519 AAAA"


@pytest.fixture
def victim(tmp_path):
    path = tmp_path / "home/authorized_keys"
    path.parent.mkdir()
    path.write_text(PRECIOUS)
    return path


@pytest.fixture
def results(tmp_path):
    folder = tmp_path / "results/tiny"
    folder.mkdir(parents=True)
    return folder


def lay(kind, path, victim):
    """Put something in the place of a file of luneta's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling":
        path.symlink_to(victim.with_name("new"))
    elif kind == "hard link":
        path.hardlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()


def is_whole(victim):
    here = [path.name for path in victim.parent.iterdir()]
    return victim.read_text() == PRECIOUS and here == [victim.name]


EVERY = ["link", "dangling", "hard link", "pipe", "folder"]


@pytest.mark.parametrize("kind", EVERY)
def test_a_lock_that_is_no_plain_file_is_refused_and_not_written_to(results, victim, kind):
    lay(kind, results / LOCK, victim)
    with pytest.raises(RunError, match=f"{LOCK} must be a plain file.*remove it"):
        Run(results)
    assert is_whole(victim)


@pytest.mark.parametrize("kind", EVERY)
def test_a_job_does_not_wait_for_a_lock_that_was_replaced(results, victim, kind):
    lay(kind, results / LOCK, victim)
    assert runs._is_over(results / LOCK, "token") is None
    assert is_whole(victim)


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link"])
def test_a_log_is_a_new_file(results, victim, kind):
    log = results / "logs/ingest/a.log"
    lay(kind, log, victim)
    code = "import sys; from luneta.files import log_to; log_to(sys.argv[1]); raise KeyError('x')"
    done = subprocess.run([sys.executable, "-c", code, log], check=False, capture_output=True)
    assert done.returncode == 1
    assert not log.is_symlink() and "KeyError" in log.read_text()
    assert is_whole(victim)


def test_a_log_that_is_a_pipe_ends_the_job_with_a_message(results):
    log = results / "a.log"
    os.mkfifo(log)
    code = "import sys; from luneta.files import log_to; log_to(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, log], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "a.log" in done.stderr and "remove it" in done.stderr
    assert "Traceback" not in done.stderr
    assert stat.S_ISFIFO(log.lstat().st_mode)


def test_a_temporary_name_cannot_be_foreseen(results):
    seen = set()
    for _ in range(100):
        with atomic_path(results / "a.json") as temporary:
            seen.add(temporary.name)
            temporary.write_text("x")
    assert len(seen) == 100
    tokens = [name.split("@")[2] for name in seen]
    assert all(re.fullmatch("[0-9a-f]{16}", token) for token in tokens)
    assert len({token[:6] for token in tokens}) > 90
    assert all(re.fullmatch(TEMPORARY, name) for name in seen)


def test_a_temporary_file_is_there_before_its_writer_opens_it_by_name(results):
    with atomic_path(results / "a.json") as temporary:
        status = temporary.lstat()
        assert stat.S_ISREG(status.st_mode) and status.st_size == 0
        temporary.write_text("x")


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link"])
def test_a_link_at_the_older_kind_of_temporary_name_is_not_followed(results, victim, kind):
    """It told process and machine alone; process numbers can be foreseen."""
    for process in range(os.getpid() - 5, os.getpid() + 5):
        lay(kind, results / f".{process}@{HOST}@a.json", victim)
    write_json(results / "a.json", {"x": 1})
    assert is_whole(victim)


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "pipe"])
def test_a_link_at_the_name_of_an_output_is_replaced(results, victim, kind):
    lay(kind, results / "a.json", victim)
    write_json(results / "a.json", {"x": 1})
    assert not (results / "a.json").is_symlink() and (results / "a.json").is_file()
    assert is_whole(victim)


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link"])
def test_a_link_at_the_name_of_a_leaf_is_replaced(results, victim, kind):
    lay(kind, results / "catalog/a.parquet", victim)
    lay(kind, results / "catalog/.a.parquet.new", victim)
    write_leaf(results / "catalog", Leaf("a.parquet", "x"), pa.table({"x": [1]}), {})
    lay(kind, results / "catalog/properties", victim)
    replace_if_changed(results / "catalog/properties", b"x")
    assert (results / "catalog/properties").read_bytes() == b"x"
    assert is_whole(victim)


def test_a_link_put_in_place_of_a_temporary_file_is_not_put_in_place(results, victim):
    """As one who watches the folder might."""
    with pytest.raises(OSError, match=r"link|symbolic"), atomic_path(results / "a.json") as path:
        path.unlink()
        path.symlink_to(victim)
    with pytest.raises(OSError, match="link"), atomic_path(results / "a.json") as path:
        path.unlink()
        path.hardlink_to(victim)
    assert list(results.iterdir()) == []
    assert is_whole(victim)


def test_rows_are_spilled_into_no_folder_of_others(results, victim):
    folder = victim.parent / "rows"
    folder.mkdir()
    (results / "catalog").mkdir()
    (results / "catalog/.spill").symlink_to(victim.parent)
    spill = Spill(results / "catalog")
    places = spill.put("a", "rows", [("leaf", pa.table({"x": [1]}))])
    made = places[0][2].parents[1]
    assert made.parent == results / "catalog" and stat.S_IMODE(made.stat().st_mode) == 0o700
    spill.clear()
    assert not made.exists()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_outputs_have_the_mode_that_the_umask_says(results, umask):
    before = os.umask(umask)
    try:
        write_json(results / "new/a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((results / "new/a.json").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((results / "new").stat().st_mode) == 0o777 & ~umask


def test_what_a_dead_process_left_is_removed_and_no_link_is_followed(results, victim):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = results / "catalog"
    spilled = folder / f".{dead.pid}@{HOST}@0123456789abcdef@.spill/rows"
    spilled.mkdir(parents=True)
    (spilled / "out").symlink_to(victim.parent)
    (folder / f".{dead.pid}@{HOST}@0123456789abcdef@a.json").symlink_to(victim)
    (folder / f".{dead.pid}@{HOST}@0123456789abcdef@b").symlink_to(victim.parent)
    running = folder / f".{os.getpid()}@{HOST}@0123456789abcdef@.spill"
    running.mkdir()
    assert outputs.Outputs(results).messages == []
    assert list(folder.iterdir()) == [running]
    assert is_whole(victim)


@pytest.mark.parametrize("kind", ["dangling", "pipe"])
@pytest.mark.parametrize("name", ["objects/a.parquet", "metrics/lens.json"])
def test_planning_does_not_stop_at_a_pipe_or_a_link_to_nowhere(results, victim, kind, name):
    lay(kind, results / name, victim)
    assert outputs.Outputs(results).messages == []
    assert is_whole(victim)


def test_a_folder_of_a_training_that_is_a_link_is_not_used(results, victim):
    from luneta.training.resume import Saved

    link = results / "models/lens/.fold0_state"
    lay("link", link, victim.parent)
    saved = Saved(link, "digest")
    assert saved.read() is None
    saved.write({"epoch": 1}, weights=[np.zeros(2)])
    assert not link.is_symlink()
    assert saved.read()[0] == {"epoch": 1}
    saved.remove()
    assert not link.exists()
    assert is_whole(victim)


@pytest.mark.parametrize("kind", ["link", "dangling"])
def test_the_mark_of_a_job_without_a_run_follows_no_link(results, victim, kind, monkeypatch):
    mark = results / "index/unclaimed"
    lay(kind, mark, victim)
    before = victim.stat()
    for name in (runs.RUN, runs.SNAKEMAKE, UNCLAIMED_MODULES):
        monkeypatch.delenv(name, raising=False)
    code = "import sys; from luneta.runs import start_job; start_job(sys.argv[1])"
    log = str(results / "logs/ingest/a.log")
    subprocess.run([sys.executable, "-c", code, log], check=True, capture_output=True)
    assert is_whole(victim)
    assert victim.stat().st_mtime_ns == before.st_mtime_ns
    assert mark.is_file() and not mark.is_symlink()
