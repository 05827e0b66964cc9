import csv

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luneta.cutouts.shard import write_shard
from luneta.models import network as networks
from luneta.training import pretrain
from luneta.training.loop import COLUMNS

SETTINGS = {
    "pretraining": {"galaxies": 100, "epochs": 2, "batch_size": 32},
    "training": {"backbone": "LeNet5"},
    "classes": ["round", "spiral"],
    "bands": ["g", "r", "i", "z"],
    "cutout_size": 32,
    "pixel_scale": 0.262,
    "seed": 1,
}


def stamps(count, classes, bands, size, pixel_scale, seed, workers):
    labels = np.arange(count) % len(classes)
    images = np.random.default_rng(seed).normal(size=(count, len(bands), size, size))
    images[labels == 1, :, 12:20, 12:20] += 20
    return images.astype("float32"), labels


def history(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_backbone_of_four_bands_is_written_repeats_and_is_taken_up(
    tmp_path, monkeypatch, small_training
):
    monkeypatch.setattr(pretrain, "galaxy_stamps", stamps)
    files = [tmp_path / f"{k}.weights.h5" for k in (1, 2)]
    for path in files:
        pretrain.run(path, tmp_path / "history.csv", SETTINGS)
    assert files[0].read_bytes() == files[1].read_bytes()
    rows = history(tmp_path / "history.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [row["phase"] for row in rows] == ["pretrain"] * 2
    assert float(rows[1]["val_loss"]) < float(rows[0]["val_loss"])
    build = [small_training(weights=str(files[0])), SETTINGS["bands"], 32, "flux", 2, 5]
    one, two = (networks.build(*build[:-1], seed) for seed in (5, 6))
    for a, b in zip(*(n.get_layer("backbone").get_weights() for n in (one, two)), strict=True):
        np.testing.assert_array_equal(a, b)
    fresh = networks.build(small_training(), *build[1:])
    kernel = fresh.get_layer("backbone").get_layer("block1_conv").kernel
    assert kernel.shape[2] == 4
    found = one.get_layer("backbone").get_layer("block1_conv").kernel
    assert not np.allclose(*(keras.ops.convert_to_numpy(k) for k in (kernel, found)))


@pytest.fixture
def contrast(tmp_path, galaxies):
    """A function that pretrains on two shards, some cutouts changed, and gives the weights."""
    pretraining = {**SETTINGS["pretraining"], "method": "contrastive", "batch_size": 8}
    settings = {"pretraining": pretraining, "training": SETTINGS["training"], "seed": 1}
    settings["shards"] = ["a", "b"]
    images = galaxies[0]

    def run(changed, splits):
        pixels = np.where(changed[:, None, None, None], 50 - 3 * images, images)
        for name, part in {"a": slice(0, 40), "b": slice(40, 96)}.items():
            ids = np.array([f"galaxy{i}" for i in range(96)])[part]
            flags = np.zeros(len(ids), "int32")
            write_shard(tmp_path / f"{name}.arrow", ids, flags, pixels[part], list("gri"), "flux")
        cutouts, path = [tmp_path / "a.arrow", tmp_path / "b.arrow"], tmp_path / "x.weights.h5"
        pretrain.run(path, tmp_path / "history.csv", settings, cutouts=cutouts, splits=splits)
        return path.read_bytes()

    return run


def test_contrastive_backbone_sees_all_shards_but_no_hold_out(tmp_path, contrast):
    random = np.random.default_rng(2)
    held = np.zeros(96, bool)
    for task in "tu":  # the second task holds out others, and labels half of the objects
        labelled = np.sort(random.choice(96, 48, replace=False))
        fold = random.integers(-1, 3, 48).astype("int32")
        held[labelled[fold < 0]] = True
        shard, row = np.where(labelled < 40, "a", "b"), np.where(labelled < 40, 0, 40)
        columns = {"shard": shard, "row": labelled - row, "fold": fold}
        pq.write_table(pa.table(columns), tmp_path / f"{task}.parquet")
    assert 10 < held.sum() < 50
    splits = [tmp_path / "t.parquet", tmp_path / "u.parquet"]
    plain = contrast(np.zeros(96, bool), splits)
    first, last = (float(row["loss"]) for row in history(tmp_path / "history.csv"))
    assert last < first
    assert contrast(held, splits) == plain
    for seen in (np.arange(96) < 40, np.arange(96) >= 40):
        assert contrast(seen & ~held, splits) != plain


def test_sample_of_cutouts_is_even_and_within_the_shards():
    shards, rows = pretrain.sample([np.ones(n, bool) for n in (100, 5, 895)], 500, 1)
    assert len(rows) == len(set(zip(shards.tolist(), rows.tolist(), strict=True))) == 500
    assert np.bincount(shards)[0] == pytest.approx(50, abs=20)
    for shard, count in enumerate([100, 5, 895]):
        assert rows[shards == shard].max() < count
    free = [np.array([True, False, True]), np.array([True, True])]
    np.testing.assert_array_equal(pretrain.sample(free, 500, 1), [[0, 0, 1, 1], [0, 2, 0, 1]])


@pytest.mark.slow
def test_simulated_galaxies_are_learnt(tmp_path):
    pytest.importorskip("galsim")
    classes = ["round", "in_between", "cigar", "edge_on", "spiral", "lens"]
    schedule = {"galaxies": 4000, "epochs": 5, "learning_rate": 4e-3}  # the demo's
    settings = {**SETTINGS, "pretraining": schedule, "classes": classes, "cutout_size": 64}
    settings |= {"training": {"width": 0.35}, "bands": ["g", "r", "i"]}
    pretrain.run(tmp_path / "x.weights.h5", tmp_path / "history.csv", settings, threads=2)
    rows = history(tmp_path / "history.csv")
    assert max(float(row["val_accuracy"]) for row in rows) > 0.55
