"""What passes and what stays: servers that are away, disks that fail, folders that are full."""

import errno
import gzip
import os
import resource
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fits_files import tan_wcs, write_image
from luneta.cutouts.job import run as cut
from luneta.cutouts.stamp_files import StampFiles
from luneta.faults import PASSING, NoRoom, passing_fault
from luneta.files import disk_trouble, read_json
from luneta.plan import make_plan
from luneta.retries import Retries, remember
from luneta.survey import fits_headers
from luneta.survey.fingerprints import fingerprints
from luneta.survey.flags import UNUSABLE, Flag
from luneta.survey.images import ImageError, read_pixels
from luneta.survey.ingest import run
from luneta.survey.remote import fetch, local_copy
from web_server import refuse

REMOTE = {"retries": 0, "wait": 0.0, "timeout": 1.0, "options": {}}
FULL_DISK = Path("/dev/full")
BROKEN = Path("/proc/self/mem")  # a plain file whose first bytes cannot be read: EIO

linux = pytest.mark.skipif(not BROKEN.exists(), reason="needs Linux")


@pytest.fixture(autouse=True)
def proc_is_a_disk(monkeypatch):
    """What lies in /proc is refused; here it stands for a disk that does not answer."""
    monkeypatch.setattr(fits_headers, "_system_devices", frozenset)


def fetched(url):
    with local_copy(url, REMOTE) as path:
        return Path(path).read_bytes()


def flag_of(url):
    with pytest.raises(ImageError) as raised:
        fetched(url)
    return raised.value.flag


@pytest.mark.parametrize(
    ("status", "flag"),
    [
        (404, Flag.MISSING_FILE), (410, Flag.MISSING_FILE), (400, Flag.UNREADABLE_FILE),
        (401, Flag.UNREADABLE_FILE), (403, Flag.UNREADABLE_FILE), (451, Flag.UNREADABLE_FILE),
        (408, Flag.UNAVAILABLE), (425, Flag.UNAVAILABLE), (429, Flag.UNAVAILABLE),
        (500, Flag.UNAVAILABLE), (502, Flag.UNAVAILABLE), (503, Flag.UNAVAILABLE),
        (504, Flag.UNAVAILABLE),
    ],
)  # fmt: skip
def test_which_answers_of_a_server_are_final(server, status, flag):
    server.answers["/a.fits"] = refuse(status)
    assert flag_of(f"{server.url}/a.fits") == flag


def test_a_server_that_is_away_or_has_no_name_may_be_back(server):
    assert flag_of("http://127.0.0.1:9/a.fits") == Flag.UNAVAILABLE
    assert flag_of("http://no-such-host.invalid/a.fits") == Flag.UNAVAILABLE
    assert flag_of(f"{server.url.replace('http', 'https')}/a.fits") == Flag.UNAVAILABLE


def test_a_transfer_that_breaks_off_may_succeed_later(server):
    def answer(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"half")

    server.answers["/a.fits"] = answer
    assert flag_of(f"{server.url}/a.fits") == Flag.UNAVAILABLE


def test_objects_of_a_file_that_could_not_be_read_are_not_usable():
    assert Flag.UNAVAILABLE & UNUSABLE


@linux
@pytest.mark.parametrize("suffix", [".fits", ".fits.fz", ".npy", ".h5", ".png", ".tif", ".parquet"])
def test_a_disk_that_does_not_answer_says_nothing_of_the_file(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.symlink_to(BROKEN)
    name = f"{path}[image]" if suffix == ".parquet" else str(path)
    with pytest.raises(ImageError, match="could not be read this time") as raised:
        StampFiles().read(name, 0 if suffix == ".parquet" else None)
    assert raised.value.flag == Flag.UNAVAILABLE
    assert os.strerror(errno.EIO) in str(raised.value)
    assert raised.value.path == str(path)


@pytest.mark.parametrize("suffix", [".fits", ".npy", ".h5", ".png", ".parquet"])
def test_a_file_that_is_damaged_or_empty_is_so_for_good(tmp_path, suffix):
    for content in (b"", b"no such format " * 100):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        name = f"{path}[image]" if suffix == ".parquet" else str(path)
        with pytest.raises(ImageError) as raised:
            StampFiles().read(name, 0 if suffix == ".parquet" else None)
        assert raised.value.flag == Flag.UNREADABLE_FILE


@contextmanager
def no_more_files():
    """Let this process open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@linux
def test_a_process_with_too_many_open_files_says_nothing_of_the_file(tmp_path):
    pixels = np.ones((8, 8), np.float32)
    write_image(tmp_path / "a.fits", pixels, compressed=False)
    np.save(tmp_path / "a.npy", pixels)
    (tmp_path / "a.png").write_bytes(b"a")
    for name in ("a.fits", "a.npy", "a.png"):
        with no_more_files(), pytest.raises(ImageError) as raised:
            StampFiles().read(str(tmp_path / name))
        assert raised.value.flag == Flag.UNAVAILABLE
        assert os.strerror(errno.EMFILE) in str(raised.value)


@pytest.mark.parametrize("number", sorted(PASSING))
def test_passing_faults_are_known_by_number_and_by_words(number):
    words = os.strerror(number)
    assert passing_fault(OSError(number, words)) == words
    assert passing_fault(RuntimeError(f"cannot read: {words}")) == words
    assert passing_fault(RuntimeError(f"errno = {number}, error message = '...'")) == words
    outer = ValueError("of a library")
    outer.__cause__ = OSError(number, words)
    assert passing_fault(outer) == words


@pytest.mark.parametrize(
    "number",
    [errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.EINVAL],
)
def test_faults_of_a_file_itself_do_not_pass(number):
    assert passing_fault(OSError(number, os.strerror(number))) is None
    assert passing_fault(ValueError("is damaged")) is None


@linux
def test_a_full_folder_of_temporary_files_stops_the_job_with_one_message(server, tmp_path):
    server.answers["/a.fits"] = b"a" * 10**6
    target = tmp_path / "a.fits"
    target.symlink_to("/dev/full")
    with pytest.raises(NoRoom, match="cannot take a temporary file .No space left.*TMPDIR"):
        fetch(f"{server.url}/a.fits", str(target), REMOTE | {"retries": 5, "wait": 9.0})
    assert not target.is_symlink()
    assert len(server.requests) == 1


def test_no_folder_of_temporary_files_stops_the_job_with_one_message(server, tmp_path, monkeypatch):
    server.answers["/a.fits"] = b"a"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(NoRoom, match=r"none cannot take a temporary file .*TMPDIR") as raised:
        fetched(f"{server.url}/a.fits")
    assert disk_trouble(raised.value) == str(raised.value)


@linux
def test_a_packed_image_that_finds_no_room_stops_the_job_with_one_message(tmp_path, monkeypatch):
    path = tmp_path / "a.fits"
    write_image(path, np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32))
    (tmp_path / "a.fits.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert read_pixels(str(tmp_path / "a.fits.gz")).shape == (64, 64)
    monkeypatch.setattr(tempfile, "NamedTemporaryFile", lambda **_: FULL_DISK.open("wb"))  # noqa: SIM115
    with pytest.raises(NoRoom, match="TMPDIR"):
        read_pixels(str(tmp_path / "a.fits.gz"))


def test_a_fingerprint_that_could_not_be_taken_is_not_kept(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"a")
    with no_more_files():
        first = fingerprints([str(path)], tmp_path / "memory.json")[str(path)]
    assert first == f"unreadable: {os.strerror(errno.EMFILE)}"
    second = fingerprints([str(path)], tmp_path / "memory.json")[str(path)]
    assert not second.startswith("unreadable")


# What a job leaves for the next run


def test_a_job_that_could_read_all_leaves_nothing(tmp_path):
    remember(tmp_path, "cutouts", "a", [], {})
    assert not (tmp_path / "index").exists()
    assert Retries(tmp_path / "index").settings("cutouts", "a") == {}


def test_each_try_that_fails_raises_the_number_and_one_that_succeeds_keeps_it(tmp_path):
    numbers = []
    for files in (["b", "a", "a"], ["a"], [], []):
        settings = Retries(tmp_path / "index").settings("cutouts", "one")
        remember(tmp_path, "cutouts", "one", files, settings)
        found = Retries(tmp_path / "index")
        numbers.append((found.settings("cutouts", "one"), found.files()))
    assert numbers == [
        ({"retry": 1}, ["a", "b"]), ({"retry": 2}, ["a"]), ({"retry": 2}, []), ({"retry": 2}, []),
    ]  # fmt: skip
    assert found.settings("ingest", "one") == found.settings("cutouts", "two") == {}


def test_what_a_job_has_left_and_is_damaged_costs_one_more_try_at_most(tmp_path):
    remember(tmp_path, "cutouts", "one", ["a"], {})
    path = tmp_path / "index/retries/cutouts/one.json"
    for content in (b"", path.read_bytes()[:-9], path.read_bytes().replace(b"1", b"7")):
        path.write_bytes(content)
        assert Retries(tmp_path / "index").settings("cutouts", "one") == {}


def test_planning_changes_the_settings_of_that_job_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("object_id,ra,dec\n1,150.0,2.0\n")
    lines = "".join(f"{tile}\tg\t{tile}.fits\n" for tile in "ab")
    (tmp_path / "tiles.tsv").write_text("tile\tband\timage\n" + lines)
    given = {"kind": "tiles", "tiles": "tiles.tsv", "sources": "list.csv", "bands": ["g"]}
    config = {"survey": "sky", "input": given}
    before = make_plan(config)
    remember("results/sky", "cutouts", "b", ["b.fits"], {})
    after = make_plan(config)
    assert after.cutouts("b") == before.cutouts("b") | {"retry": 1}
    assert after.cutouts("a") == before.cutouts("a")
    assert after.ingest("b") == before.ingest("b")
    assert after.retried() == [
        "1 file could not be read in the last run, and now tried again (first: b.fits)"
    ]
    assert make_plan(config).cutouts("b") == after.cutouts("b")


def planned(config, shard):
    """Settings of the ingest job of a shard, and the files that it could not read."""
    plan = make_plan(config)
    settings = plan.ingest(shard)
    return plan, run(settings["sources"], plan.results / "objects/a.parquet", settings)


@pytest.fixture
def tiles(tmp_path, monkeypatch):
    """A tile of two bands, of which the second one lies on a disk that does not answer."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(1).normal(0, 1, (96, 96)).astype(np.float32)
    noise[40:44, 40:44] += 200
    wcs = tan_wcs((96, 96), ra=150.0, dec=2.0, rotation=0.0)
    write_image(tmp_path / "a_g.fits", noise, wcs, compressed=False)
    (tmp_path / "a_r.fits").symlink_to(BROKEN)
    (tmp_path / "list.csv").write_text("object_id,ra,dec\n1,150.0,2.0\n")
    lines = "".join(f"a\t{band}\ta_{band}.fits\n" for band in "gr")
    (tmp_path / "tiles.tsv").write_text("tile\tband\timage\n" + lines)
    given = {"kind": "tiles", "tiles": "tiles.tsv", "bands": ["g", "r"]}
    return {"survey": "sky", "input": given}


@linux
@pytest.mark.parametrize("reference", ["g", "r"])
def test_a_band_that_could_not_be_searched_for_objects_is_searched_again(tiles, reference):
    tiles["input"] |= {"detection": {}, "sources": None, "reference_band": reference}
    plan, lost = planned(tiles, "a")
    assert lost == ["a_r.fits"]
    objects = pq.read_table(plan.results / "objects/a.parquet")
    assert len(objects) == (1 if reference == "g" else 0)


@linux
def test_objects_that_could_not_be_placed_are_placed_again(tiles):
    tiles["input"] |= {"sources": "list.csv", "reference_band": "r"}
    plan, lost = planned(tiles, "a")
    assert lost == ["a_r.fits"]
    objects = pq.read_table(plan.results / "objects/a.parquet").to_pylist()
    assert [row["flags"] for row in objects] == [Flag.UNAVAILABLE]
    assert "the next run tries again" in objects[0]["reject_reason"]
    # Where the tile lies, another band has told; the next plan asks the reference band again.
    assert not (plan.index / "footprints.json").exists()
    assert read_json(plan.index / "key.json")["key"] is None


@linux
def test_a_stamp_that_could_not_tell_its_position_is_asked_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.fits").symlink_to(BROKEN)
    (tmp_path / "list.csv").write_text("object_id\na\n")
    given = {"kind": "stamps", "table": "list.csv", "image": "{object_id}.fits", "bands": ["g"]}
    given |= {"columns": {"ra": None, "dec": None}, "positions": "wcs"}
    _, lost = planned({"survey": "sky", "input": given}, "stamps_00000")
    assert lost == ["a.fits"]


@linux
def test_a_band_that_an_object_may_do_without_is_masked_and_tried_again(tiles):
    tiles["input"] |= {"sources": "list.csv", "reference_band": "g", "bands_required": ["g"]}
    plan, lost = planned(tiles, "a")
    assert lost == []
    outputs = {name: plan.results / f"{name}.out" for name in ("cutouts", "quality", "files")}
    outputs["quality"] = plan.results / "quality.parquet"
    settings = plan.cutouts("a") | {"cutouts": plan.cutouts("a")["cutouts"] | {"size": 16}}
    assert cut(plan.results / "objects/a.parquet", None, outputs, settings) == ["a_r.fits"]
    flags = pq.read_table(outputs["quality"])["flags"].to_pylist()
    assert flags[0] & Flag.MISSING_BAND
    assert not flags[0] & Flag.UNAVAILABLE


# Servers and disks that still do not answer


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def left_by(tmp_path, *files):
    """What planning finds after a cutouts job that could not read some files."""
    remember(tmp_path, "cutouts", "a", files, {"retry": 2})
    return Retries(tmp_path / "index", probes=True)


def test_while_a_server_takes_no_connection_its_job_is_not_done_again(tmp_path, server):
    away = f"http://127.0.0.1:{closed_port()}/a.fits"
    retries = left_by(tmp_path, away)
    assert retries.settings("cutouts", "a") == {"retry": 2}  # as the job was done
    assert (retries.files(), retries.silent()) == ([], [away])
    back = left_by(tmp_path, f"{server.url}/a.fits", away)
    assert back.settings("cutouts", "a") == {"retry": 3}
    assert (back.files(), back.silent()) == ([f"{server.url}/a.fits"], [away])


def test_after_the_first_failure_such_a_job_keeps_the_settings_of_a_first_try(tmp_path):
    remember(tmp_path, "ingest", "a", [f"http://127.0.0.1:{closed_port()}/a.fits"], {})
    assert Retries(tmp_path / "index", probes=True).settings("ingest", "a") == {}
    assert Retries(tmp_path / "index").settings("ingest", "a") == {"retry": 1}


@linux
def test_while_a_disk_gives_no_byte_of_a_file_its_job_is_not_done_again(tmp_path):
    assert left_by(tmp_path, str(BROKEN)).settings("cutouts", "a") == {"retry": 2}
    (tmp_path / "sound.fits").write_bytes(b"SIMPLE")
    for name in ("sound.fits", "gone.fits"):  # what is gone is told by the job, for good
        assert left_by(tmp_path, str(tmp_path / name)).settings("cutouts", "a") == {"retry": 3}


def test_a_file_that_changed_is_read_again_whatever_else_is_away(tmp_path):
    away = f"http://127.0.0.1:{closed_port()}/a.fits"
    remember(tmp_path, "cutouts", "a", [away], {}, ["b.fits"])
    assert Retries(tmp_path / "index", probes=True).settings("cutouts", "a") == {"retry": 1}
