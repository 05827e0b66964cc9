"""Folders at known names on disks that all users share: what another user may have put there."""

import os
import shutil
import stat
from pathlib import Path

import numpy as np
import pytest

from luneta import flocks, gpus, staging
from luneta.cutouts.shard import write_shard
from luneta.flocks import FolderError

OTHER = 12_345  # a user who is not there
ANOTHER = 12_346
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may act as other users")


def mode(path):
    return stat.S_IMODE(path.lstat().st_mode)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def victim(tmp_path):
    """A user's folder that somebody else would like to see emptied and opened."""
    folder = tmp_path / "home"
    (folder / "staged-0123456789abcdef").mkdir(parents=True)
    (folder / "staged-0123456789abcdef/thesis.tex").write_text("x")
    (folder / "local-a").touch()
    (folder / "16-GPU-1111-aa").touch()
    folder.chmod(0o700)
    return folder


def is_whole(victim):
    kept = (victim / "staged-0123456789abcdef/thesis.tex").read_text() == "x"
    whole = ["16-GPU-1111-aa", "local-a", "staged-0123456789abcdef"]
    return kept and names(victim) == whole and mode(victim) == 0o700


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "results/shard_1.arrow"
    ids, images = np.array(["a"], object), np.ones((1, 1, 8, 8), np.float32)
    write_shard(path, ids, np.zeros(1, np.int32), images, ["g"], "flux")
    return path


def claim(locks):
    environment = {"LUNETA_GPUS": "a,b"}
    gpus.claim(1, "auto", environment, locks)
    return environment["CUDA_VISIBLE_DEVICES"]


@pytest.fixture(autouse=True)
def no_locks_stay():
    before = [list(module._held) for module in (gpus, staging)]
    yield
    for module, held in zip((gpus, staging), before, strict=True):
        for descriptor in set(module._held) - set(held):
            os.close(descriptor)
        module._held[:] = held


def as_user(user, job):
    """Do a job as another user, in a process of its own; give what it raises, or nothing."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        told = ""
        try:
            os.setgroups([])
            os.setgid(user)
            os.setuid(user)
            job()
        except BaseException as error:  # noqa: BLE001 (the process ends here)
            told = f"{type(error).__name__}: {error}"
        os.write(write, told.encode())
        os._exit(0)
    os.close(write)
    with open(read) as file:  # noqa: PTH123
        told = file.read()
    os.waitpid(process, 0)
    return told


@pytest.fixture
def shared(tmp_path):
    """A folder like /tmp, that other users can reach."""
    folder = Path("/tmp") / f"luneta-test-{os.getpid()}-{tmp_path.name}"
    folder.mkdir()
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


# Links


@pytest.mark.parametrize("is_dangling", [False, True])
def test_a_link_in_place_of_the_folder_of_locks_is_refused(tmp_path, victim, is_dangling):
    locks = tmp_path / "luneta-gpus"
    locks.symlink_to(victim if not is_dangling else tmp_path / "nothing")
    with pytest.raises(FolderError, match="must be a folder: remove it"):
        claim(locks)
    assert is_whole(victim) and not (tmp_path / "nothing").exists()


def test_every_door_to_a_folder_of_locks_refuses_a_link(tmp_path, victim):
    locks = tmp_path / "luneta-gpus"
    locks.symlink_to(victim)
    doors = [
        lambda: flocks.shared_folder(locks), lambda: flocks.private_folder(locks),
        lambda: flocks.turn(locks).__enter__(), lambda: flocks.lock(locks / "local-a"),
        lambda: flocks.sweep(locks, set()), lambda: flocks.make_private_folder(locks / "staged-1"),
    ]  # fmt: skip
    for door in doors:
        with pytest.raises(FolderError):
            door()
    flocks.remove_folder(locks / "staged-0123456789abcdef")
    assert is_whole(victim)


@pytest.mark.parametrize("name", ["turn", "local-a"])
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe"])
def test_a_link_or_a_pipe_in_place_of_a_lock_is_refused(tmp_path, victim, name, kind):
    locks = flocks.shared_folder(tmp_path / "luneta-gpus")
    if kind == "pipe":
        os.mkfifo(locks / name)
    else:
        target = victim / "local-a" if kind == "link" else tmp_path / "new"
        (locks / name).symlink_to(target)
    with pytest.raises(FolderError, match=f"{name} is a link or a pipe"):
        claim(locks)
    assert is_whole(victim) and not (tmp_path / "new").exists()


def test_a_link_in_place_of_the_staging_folder_is_not_followed(tmp_path, victim, shard):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "luneta-staged").symlink_to(victim)
    copy = staging.stage(shard, scratch)
    assert copy.read_bytes() == shard.read_bytes()
    assert victim not in copy.resolve().parents
    assert is_whole(victim)


def test_where_every_name_is_taken_by_a_link_the_file_is_read_where_it_is(
    tmp_path, victim, shard, caplog
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name in ("luneta-staged", f"luneta-staged-{os.geteuid()}"):
        (scratch / name).symlink_to(victim)
    assert staging.stage(shard, scratch) == shard
    assert "is read where it is" in caplog.text
    assert is_whole(victim)


# What is swept away


def test_only_own_lock_files_and_staged_folders_are_swept_away(tmp_path, victim):
    folder = flocks.shared_folder(tmp_path / "shared")
    for name in ("notes.txt", "thesis", "local-a.bak", "GPU-1"):
        (folder / name).touch()
    (folder / "local-full").write_text("a lock holds nothing")
    for name in ("data", "staged-x", "local-folder", "tmpabcdefgh"):
        (folder / name).mkdir()
    (folder / "staged-aaaaaaaaaaaaaaaa").symlink_to(victim)
    (folder / "local-link").symlink_to(victim / "local-a")
    os.mkfifo(folder / "local-pipe")
    before = names(folder)
    (folder / "local-old").touch()
    (folder / "17-GPU-1").touch()
    left = folder / "staged-0123456789abcdef"
    left.mkdir()
    (left / "out").symlink_to(victim)
    (left / "shard.arrow").touch()
    flocks.sweep(folder, set())
    assert names(folder) == before
    assert is_whole(victim)


@as_root
def test_what_another_user_has_left_is_not_swept_away(tmp_path):
    folder = flocks.shared_folder(tmp_path / "shared")
    (folder / "local-a").touch()
    (folder / "staged-0123456789abcdef").mkdir()
    for path in folder.iterdir():
        os.chown(path, OTHER, OTHER)
    before = names(folder)
    flocks.sweep(folder, set())
    assert names(folder) == before


# Owners and modes


def test_only_a_folder_that_is_new_is_opened_to_all(tmp_path):
    old = tmp_path / "old"
    old.mkdir(0o750)
    old.chmod(0o750)
    (old / "something").touch()
    flocks.shared_folder(old)
    assert mode(old) == 0o750
    assert mode(flocks.shared_folder(tmp_path / "new")) == 0o1777


def test_a_folder_in_which_all_may_replace_files_is_refused(tmp_path, shard, caplog):
    locks = tmp_path / "luneta-gpus"
    locks.mkdir()
    (locks / "turn").touch()
    locks.chmod(0o777)
    with pytest.raises(FolderError, match="chmod 1777"):
        claim(locks)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    scratch.chmod(0o777)
    assert staging.stage(shard, scratch) == shard
    assert "sticky bit" in caplog.text
    assert names(scratch) == []


@as_root
def test_two_users_share_the_folder_of_locks_that_one_has_made(shared):
    locks = shared / "luneta-gpus"
    assert as_user(OTHER, lambda: claim(locks)) == ""
    assert mode(locks) == 0o1777 and locks.stat().st_uid == OTHER
    assert as_user(ANOTHER, lambda: claim(locks)) == ""
    claim(locks)
    assert locks.stat().st_uid == OTHER


@as_root
def test_a_gpu_that_another_user_holds_is_not_taken(shared):
    locks = shared / "luneta-gpus"
    assert claim(locks) == "a"

    def take():
        assert claim(locks) == "b"

    assert as_user(OTHER, take) == ""


@as_root
@pytest.mark.parametrize(("bits", "said"), [(0o755, "no sticky bit"), (0o777, "no sticky bit")])
def test_a_folder_of_another_user_needs_the_sticky_bit(tmp_path, bits, said):
    locks = tmp_path / "luneta-gpus"
    locks.mkdir()
    locks.chmod(bits)
    os.chown(locks, OTHER, OTHER)
    with pytest.raises(FolderError, match=said):
        claim(locks)
    assert mode(locks) == bits and names(locks) == []


@as_root
def test_a_folder_that_is_closed_is_told_in_one_message(shared):
    locks = shared / "luneta-gpus"
    locks.mkdir()
    (locks / "turn").touch()
    locks.chmod(0o700)
    told = as_user(OTHER, lambda: claim(locks))
    assert told == f"FolderError: {locks} belongs to another user and is closed to you"


@as_root
def test_a_copy_is_not_laid_where_another_user_could_replace_it(tmp_path, shard):
    scratch = tmp_path / "scratch"
    theirs = flocks.shared_folder(scratch / "luneta-staged")
    os.chown(theirs, OTHER, OTHER)
    copy = staging.stage(shard, scratch)
    assert copy.parents[1] == scratch / f"luneta-staged-{os.geteuid()}"
    assert names(theirs) == []


@as_root
def test_two_users_stage_and_neither_reads_the_copy_of_the_other(shared, shard):
    content = shard.read_bytes()
    given = shared / "shard_1.arrow"
    given.write_bytes(content)
    given.chmod(0o644)
    copy = staging.stage(given, shared)
    assert copy != given and mode(copy.parent) == 0o700

    def peep():
        own = staging.stage(given, shared)
        assert own != given
        assert own.read_bytes() == content
        with pytest.raises(PermissionError):
            copy.read_bytes()
        with pytest.raises(PermissionError):
            copy.parent.rename(shared / "swapped")

    assert as_user(OTHER, peep) == ""
    assert copy.read_bytes() == content
