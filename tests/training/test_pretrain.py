import csv

import keras
import numpy as np
import pytest

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


def test_contrastive_backbone_is_trained_on_the_shards(tmp_path, survey):
    pretraining = {**SETTINGS["pretraining"], "method": "contrastive", "batch_size": 8}
    settings = {"pretraining": pretraining, "training": SETTINGS["training"], "seed": 1}
    weights = tmp_path / "x.weights.h5"
    shards = [survey / "a.arrow", survey / "b.arrow"]
    pretrain.run(weights, tmp_path / "history.csv", settings, cutouts=shards)
    first, last = (float(row["loss"]) for row in history(tmp_path / "history.csv"))
    assert last < first
    assert weights.stat().st_size > 100_000


def test_sample_of_cutouts_is_even_and_within_the_shards():
    shards, rows = pretrain.sample([100, 5, 895], 500, 1)
    assert len(rows) == len(set(zip(shards.tolist(), rows.tolist(), strict=True))) == 500
    assert np.bincount(shards)[0] == pytest.approx(50, abs=20)
    for shard, count in enumerate([100, 5, 895]):
        assert rows[shards == shard].max() < count
    everything = pretrain.sample([3, 2], 500, 1)
    np.testing.assert_array_equal(everything, [[0, 0, 0, 1, 1], [0, 1, 2, 0, 1]])


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
