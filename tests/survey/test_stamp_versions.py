"""What tells a changed stamp from a touched or copied one, and what is said of it."""

import os
import shutil
import tarfile
import time

import pytest

from luneta.plan.changes import row_changes
from luneta.survey import stamp_versions as module
from luneta.survey.fingerprints import fingerprint
from luneta.survey.index import OBJECTS
from luneta.survey.stamp_index import deal_stamps
from luneta.survey.stamp_versions import stamp_versions

OLD = 1_600_000_000


def written(folder, count=4, bands="g"):
    """Write stamps, which are of one size, and a table of them."""
    (folder / "img").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        for band in bands:
            path = folder / f"img/{number}_{band}.fits"
            path.write_bytes(f"{band}{number:07}".encode() * 400)
            os.utime(path, (OLD, OLD))
    rows = "\n".join(f"o{number},{number}" for number in range(count))
    (folder / "t.csv").write_text(f"object_id,n\n{rows}\n")
    os.utime(folder / "t.csv", (OLD, OLD))


def dealt(folder, index, bands="g"):
    settings = {
        "kind": "stamps", "table": f"{folder}/t.csv", "bands": list(bands), "root": None,
        "image": "img/{n}_{band}.fits", "masks": None, "weights": None, "row": None,
        "columns": {"object_id": "object_id", "ra": None, "dec": None, "x": None, "y": None},
        "keep": {}, "stamps_per_shard": 3, "bands_required": None, "units": {}, "frame": "icrs",
        "equinox": None, "epoch": None, "image_epoch": None, "positions": None,
        "pixels": "flux",
    }  # fmt: skip
    return deal_stamps(settings, index)


def copied(folder, how):
    """Copy a folder as users do, onto itself, so that all names stay."""
    aside = folder.with_name("aside")
    if how == "tar":
        with tarfile.open(aside, "w") as archive:
            archive.add(folder, arcname="x")
        shutil.rmtree(folder)
        with tarfile.open(aside) as archive:
            archive.extractall(aside.with_name("out"), filter="data")
        (aside.with_name("out") / "x").rename(folder)
    elif how == "cp -r":
        shutil.copytree(folder, aside, copy_function=shutil.copy)
        shutil.rmtree(folder)
        aside.rename(folder)
    else:
        for path in folder.rglob("*.*"):
            os.utime(path)


@pytest.mark.parametrize("how", ["touch", "cp -r", "tar"])
def test_stamps_that_were_touched_or_copied_are_the_same(tmp_path, how):
    written(tmp_path / "data", bands="gr")
    index = tmp_path / "index"
    before = {k: p.read_bytes() for k, p in dealt(tmp_path / "data", index, "gr").items()}
    shutil.copy(index / OBJECTS, tmp_path / "last")
    copied(tmp_path / "data", how)
    after = {k: p.read_bytes() for k, p in dealt(tmp_path / "data", index, "gr").items()}
    assert after == before
    assert row_changes(tmp_path / "last", index / OBJECTS) == []


def test_a_stamp_of_other_content_is_told_where_its_size_stays(tmp_path):
    written(tmp_path / "data", bands="gr")
    index = tmp_path / "index"
    dealt(tmp_path / "data", index, "gr")
    shutil.copy(index / OBJECTS, tmp_path / "last")
    for name in ("0_g", "0_r", "3_g"):
        path = tmp_path / f"data/img/{name}.fits"
        path.write_bytes(path.read_bytes()[::-1])
        os.utime(path, (OLD + 5, OLD + 5))
    (tmp_path / "data/img/1_g.fits").unlink()
    slices = dealt(tmp_path / "data", index, "gr")
    said = row_changes(tmp_path / "last", index / OBJECTS)
    assert said == ["1 stamp file gone in 2 shards", "3 stamp files changed in 2 shards"]
    assert list(slices) == ["stamps_00000", "stamps_00001"]


def test_rows_and_files_are_told_apart(tmp_path):
    written(tmp_path / "data")
    index = tmp_path / "index"
    dealt(tmp_path / "data", index)
    shutil.copy(index / OBJECTS, tmp_path / "last")
    written(tmp_path / "data", count=5)
    path = tmp_path / "data/img/2_g.fits"
    path.write_bytes(b"new")
    dealt(tmp_path / "data", index)
    said = row_changes(tmp_path / "last", index / OBJECTS)
    assert said == ["source list: 1 row added in 1 shard", "1 stamp file changed in 1 shard"]


def test_one_file_of_all_stamps_counts_once(tmp_path):
    written(tmp_path / "data")
    index = tmp_path / "index"
    for number in range(4):
        path = tmp_path / f"data/img/{number}_g.fits"
        path.unlink()
        path.symlink_to(tmp_path / "data/all.h5")
    (tmp_path / "data/all.h5").write_bytes(b"1")
    dealt(tmp_path / "data", index)
    shutil.copy(index / OBJECTS, tmp_path / "last")
    (tmp_path / "data/all.h5").write_bytes(b"22")
    dealt(tmp_path / "data", index)
    said = row_changes(tmp_path / "last", index / OBJECTS)
    assert said == ["1 stamp file changed in 2 shards"]


def test_large_files_go_by_size_and_whole_seconds(tmp_path):
    path = tmp_path / "large.npy"
    path.write_bytes(bytes(1_000_001))
    os.utime(path, ns=(OLD * 10**9 + 7, OLD * 10**9 + 7))
    memory = tmp_path / "memory"
    (before,) = stamp_versions([str(path)], memory)
    assert before == f"1000001:{OLD}"
    os.utime(path, (OLD, OLD))
    assert stamp_versions([str(path)], memory) == [before]
    os.utime(path, (OLD + 1, OLD + 1))
    assert stamp_versions([str(path)], memory) == [f"1000001:{OLD + 1}"]


def test_what_is_no_file_has_a_version_too(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    names = ["folder", "pipe", "nothing"]
    versions = stamp_versions([str(tmp_path / name) for name in names], tmp_path / "memory")
    assert versions == ["no-plain-file", "no-plain-file", "-"]
    assert stamp_versions(["a\0b"], tmp_path / "memory") == ["-"]


def test_files_of_unchanged_size_and_time_are_not_read_again(tmp_path, monkeypatch):
    paths = [tmp_path / f"{n}" for n in range(50)]
    for path in paths:
        path.write_text(path.name)
    names = [str(path) for path in paths]
    before = stamp_versions(names, tmp_path / "memory")
    read = []
    monkeypatch.setattr(module, "fingerprint", lambda path: read.append(path) or "new")
    assert stamp_versions(names, tmp_path / "memory") == before
    assert stamp_versions(names[::-1], tmp_path / "memory") == before[::-1]
    assert read == []
    os.utime(paths[7], (OLD, OLD))
    assert stamp_versions(names, tmp_path / "memory")[7] == "1:new"
    assert read == [names[7]]


def test_a_damaged_memory_is_read_anew(tmp_path):
    (tmp_path / "a").write_text("a")
    before = stamp_versions([str(tmp_path / "a")], tmp_path / "memory")
    content = bytearray((tmp_path / "memory").read_bytes())
    content[20] ^= 1
    (tmp_path / "memory").write_bytes(content)
    assert stamp_versions([str(tmp_path / "a")], tmp_path / "memory") == before


@pytest.mark.slow
def test_a_hundred_thousand_stamps_are_planned_again_in_seconds(tmp_path):
    names = [str(tmp_path / f"{n}.jpg") for n in range(100_000)]
    for name in names:
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(name.encode())
    stamp_versions(names, tmp_path / "memory")
    start = time.process_time()
    stamp_versions(names, tmp_path / "memory")
    assert time.process_time() - start < 3


def test_a_folder_that_was_touched_is_the_same(tmp_path):
    (tmp_path / "catalog/Dir=0").mkdir(parents=True)
    path = tmp_path / "catalog/Dir=0/Npix=1.parquet"
    path.write_bytes(b"rows")
    before = fingerprint(str(tmp_path / "catalog"))
    os.utime(path, (OLD, OLD))
    assert fingerprint(str(tmp_path / "catalog")) == before
    path.write_bytes(b"swor")
    os.utime(path, (OLD, OLD))
    assert fingerprint(str(tmp_path / "catalog")) != before
