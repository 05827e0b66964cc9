import numpy as np
import pyarrow as pa
import pytest

from luneta.cutouts.shard import Shard, ShardWriter, write_shard

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
