from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from luneta.cutouts.shard import Shard, ShardWriter, write_shard
from luneta.files import DamagedFile

IDS = np.array([f"o{n}" for n in range(2500)], object)
FLAGS = np.arange(2500, dtype=np.int32)
BANDS = ["g", "r"]


@pytest.fixture(scope="module")
def images():
    found = np.random.default_rng(0).normal(0, 10, (2500, 2, 8, 8)).astype(np.float32)
    found[3, 1, 2] = np.nan
    return found


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd"])
def test_what_was_written_comes_back(tmp_path, images, compression):
    write_shard(tmp_path / "a.arrow", IDS, FLAGS, images, BANDS, "flux", compression=compression)
    shard = Shard(tmp_path / "a.arrow")
    assert (len(shard), shard.bands, shard.shape) == (2500, BANDS, (2, 8, 8))
    rows = np.array([2499, 0, 3, 1024, 3])
    np.testing.assert_array_equal(shard.take(rows), images[rows])
    np.testing.assert_array_equal(shard.read(1000, 1100), images[1000:1100])


def test_half_precision_keeps_three_digits_and_no_infinity(tmp_path, images):
    bright = images.copy()
    bright[0, 0, 0, 0] = 1e6
    write_shard(tmp_path / "a.arrow", IDS, FLAGS, bright, BANDS, "flux", dtype="float16")
    found = Shard(tmp_path / "a.arrow").read(0, 2500)
    assert found.dtype == np.float32
    assert found[0, 0, 0, 0] == 65504
    np.testing.assert_allclose(found[1:], images[1:], rtol=1e-3, atol=1e-4)
    assert np.isnan(found[3, 1, 2]).all()
    whole = tmp_path / "b.arrow"
    write_shard(whole, IDS, FLAGS, bright, BANDS, "flux")
    assert (tmp_path / "a.arrow").stat().st_size < 0.55 * whole.stat().st_size


def test_mapping_takes_no_memory(tmp_path, images):
    write_shard(tmp_path / "a.arrow", IDS, FLAGS, images, BANDS, "flux")
    before = pa.total_allocated_bytes()
    shard = Shard(tmp_path / "a.arrow")
    batch = shard.mapped(1)
    assert batch.shape == (1024, 2, 8, 8)
    assert not batch.flags.owndata
    assert pa.total_allocated_bytes() - before < 100_000
    np.testing.assert_array_equal(batch, images[1024:2048])


def test_blocks_of_any_length_make_one_shard(tmp_path, images):
    with ShardWriter(tmp_path / "a.arrow", BANDS, 8, "flux") as shard:
        for start, stop in ((0, 5), (5, 5), (5, 700), (700, 2500)):
            shard.write(IDS[start:stop], FLAGS[start:stop], images[start:stop])
    found = Shard(tmp_path / "a.arrow")
    np.testing.assert_array_equal(found.read(0, 2500), images)


def test_nothing_appears_if_writing_fails(tmp_path, images):
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        ShardWriter(tmp_path / "a.arrow", BANDS, 8, "flux") as shard,
    ):
        shard.write(IDS, FLAGS, images)
        raise RuntimeError("in the middle")
    assert list(tmp_path.iterdir()) == []


def test_a_shard_without_cutouts(tmp_path):
    with ShardWriter(tmp_path / "a.arrow", BANDS, 8, "flux"):
        pass
    shard = Shard(tmp_path / "a.arrow")
    assert len(shard) == 0
    assert shard.take(np.array([], int)).shape == (0, 2, 8, 8)


def test_ids_and_flags_are_beside_the_image(tmp_path, images):
    write_shard(tmp_path / "a.arrow", IDS, FLAGS, images, BANDS, "flux")
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "a.arrow"))).read_all()
    assert table.column_names == ["object_id", "flags", "image"]
    assert table["object_id"][7].as_py() == "o7"
    assert table["flags"][7].as_py() == 7


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_flipped_bit_is_found_by_whoever_reads_it(tmp_path, compression):
    """Each kind of reading, on a shard of three batches of about a megabyte."""
    size = 16
    images = np.random.default_rng(1).normal(0, 9, (2500, 1, size, size)).astype(np.float32)
    path = tmp_path / "a.arrow"
    write_shard(path, IDS, FLAGS, images, ["g"], "flux", compression=compression)
    raw = path.read_bytes()
    readings = {
        "mapped": lambda shard: [shard.mapped(number) for number in range(3)],
        "read": lambda shard: shard.read(0, 2500),
        "take": lambda shard: shard.take(np.arange(0, 2500, 2)),
    }
    for place in np.linspace(0, len(raw) - 1, 10).astype(int):
        changed = bytearray(raw)
        changed[place] ^= 1 << (place % 8)
        for reading in readings.values():
            path.write_bytes(changed)
            with pytest.raises(DamagedFile, match=r"a\.arrow is damaged"):
                reading(Shard(path))
            assert not path.exists()


def test_every_flipped_bit_of_a_small_shard_is_found(tmp_path):
    """Bytes that no reader looks at may change; what is read is then the same."""
    path = tmp_path / "a.arrow"
    images = np.ones((2, 1, 2, 2), np.float32)
    write_shard(path, IDS[:2], FLAGS[:2], images, ["g"], "flux")
    raw = path.read_bytes()
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        try:
            shard = Shard(path)
            found = shard.take(np.array([1, 0]))
        except DamagedFile:
            continue
        np.testing.assert_array_equal(found, images)
        assert (shard.bands, shard.pixels) == (["g"], "flux")


@pytest.mark.parametrize("length", [0, 1, 100, 5000, -1, -8, -300])
def test_a_shard_cut_short_is_found(tmp_path, images, length):
    path = tmp_path / "a.arrow"
    write_shard(path, IDS, FLAGS, images, BANDS, "flux")
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedFile, match="Run the same command again"):
        Shard(path)
    assert [found.name for found in tmp_path.iterdir()] == ["a.arrow.damaged"]


def test_few_rows_cost_the_check_of_few_bytes(tmp_path):
    """Of a shard of 16 MB, two cutouts are read though another one is damaged."""
    images = np.random.default_rng(1).normal(0, 9, (1024, 1, 64, 64)).astype(np.float32)
    path = tmp_path / "a.arrow"
    write_shard(path, IDS[:1024], FLAGS[:1024], images, ["g"], "flux")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    np.testing.assert_array_equal(Shard(path).take(np.array([9, 1000])), images[[9, 1000]])
    with pytest.raises(DamagedFile):
        Shard(path).take(np.array([9, 510, 511, 512, 1000]))


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("rows", [(0, 0), (5, 9), (0, 1024), (1000, 2100), (1024, 2048), (0, 2500)])
def test_rows_that_follow_each_other(tmp_path, images, compression, rows):
    write_shard(tmp_path / "a.arrow", IDS, FLAGS, images, BANDS, "flux", compression=compression)
    got = Shard(tmp_path / "a.arrow").read(*rows)
    np.testing.assert_array_equal(got, images[slice(*rows)])
    assert got.dtype == np.float32
    with pytest.raises(IndexError, match="row 2500 asked of a shard of 2500"):
        Shard(tmp_path / "a.arrow").read(2400, 2501)


def test_rows_of_one_batch_are_not_copied(tmp_path, images):
    write_shard(tmp_path / "a.arrow", IDS, FLAGS, images, BANDS, "flux")
    shard = Shard(tmp_path / "a.arrow")
    assert np.shares_memory(shard.read(1100, 1300), shard.mapped(1))
    assert not np.shares_memory(shard.read(1000, 1100), shard.mapped(1))


def resident(path):
    """Memory in kB that the mapping of a file takes of this process."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    found = [next(x for x in lines if x.startswith("Rss:")) for line in lines if str(path) in line]
    return sum(int(line.split()[1]) for line in found)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's /proc")
def test_what_was_read_can_be_released_and_read_again(tmp_path, images):
    path = tmp_path / "a.arrow"
    write_shard(path, IDS, FLAGS, images, BANDS, "flux")
    shard = Shard(path)
    view = shard.read(0, 1000)
    np.testing.assert_array_equal(view, images[:1000])
    assert resident(path) > view.nbytes / 1024
    shard.release()
    assert resident(path) == 0
    np.testing.assert_array_equal(view, images[:1000])
    np.testing.assert_array_equal(shard.read(1000, 2500), images[1000:])


def test_only_what_is_read_is_checked(tmp_path):
    """A flipped bit costs those who read it, in a batch of 8 MiB, and no one else."""
    images = np.zeros((1024, 2, 32, 32), np.float32)
    ids, flags = np.array([f"o{n}" for n in range(1024)], object), np.zeros(1024, np.int32)
    path = tmp_path / "a.arrow"
    write_shard(path, ids, flags, images, BANDS, "flux")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    assert not Shard(path).read(0, 200).any()
    with pytest.raises(DamagedFile, match="checksum"):
        Shard(path).read(400, 700)
