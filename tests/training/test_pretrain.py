import csv

import h5py
import numpy as np
import pytest

from luneta.training import backbone, pretrain
from luneta.training.loop import COLUMNS

SETTINGS = {
    "pretraining": {"galaxies": 100, "epochs": 1, "batch_size": 32},
    "training": {"width": 0.35},
    "classes": ["round", "spiral"],
    "bands": ["g", "r", "i"],
    "cutout_size": 32,
    "pixel_scale": 0.262,
    "seed": 1,
}


def stamps(count, classes, bands, size, pixel_scale, seed, workers):
    labels = np.arange(count) % len(classes)
    images = np.random.default_rng(seed).normal(size=(count, len(bands), size, size))
    return images.astype("float32"), labels


def test_files_are_written_and_repeat(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain, "galaxy_stamps", stamps)
    monkeypatch.setattr(backbone, "train", lambda network, *_, **__: None)
    monkeypatch.setattr(backbone.Journal, "restore", lambda _: None)
    files = [tmp_path / f"{k}.weights.h5" for k in (1, 2)]
    for path in files:
        pretrain.run(path, tmp_path / "history.csv", SETTINGS)
    assert files[0].read_bytes() == files[1].read_bytes()
    with h5py.File(files[0]) as file:
        assert "Conv1" in file["layers"] or len(file["layers"]) > 100
    with (tmp_path / "history.csv").open() as file:
        assert next(csv.reader(file)) == list(COLUMNS)


@pytest.mark.slow
def test_simulated_galaxies_are_learnt(tmp_path):
    pytest.importorskip("galsim")
    classes = ["round", "in_between", "cigar", "edge_on", "spiral", "lens"]
    schedule = {"galaxies": 4000, "epochs": 5, "learning_rate": 4e-3}  # the demo's
    settings = {**SETTINGS, "pretraining": schedule, "classes": classes, "cutout_size": 64}
    pretrain.run(tmp_path / "x.weights.h5", tmp_path / "history.csv", settings, threads=2)
    with (tmp_path / "history.csv").open() as file:
        assert max(float(row["val_accuracy"]) for row in csv.DictReader(file)) > 0.55
