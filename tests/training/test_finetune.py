import csv
import json

import keras
import numpy as np
import pytest

from luneta.config import Pretraining, Training
from luneta.models import devices
from luneta.models import network as networks
from luneta.training import finetune, folds
from luneta.training.backbone import fit_backbone
from luneta.training.data import Batches
from luneta.training.loop import COLUMNS, GRADIENT_COLUMNS

BANDS = ["g", "r", "i"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, galaxies, task_settings):
    """Weights of a backbone that was pretrained for two epochs."""
    images, labels = galaxies
    path = tmp_path_factory.mktemp("backbone") / "small.weights.h5"
    training = Training.model_validate(task_settings()["training"])
    settings = Pretraining(galaxies=100, epochs=2, batch_size=16)
    network, journal = fit_backbone(images, labels, 2, BANDS, training, settings, 1)
    network.get_layer("backbone").save_weights(path)
    moving = networks.batch_norms(network)[0].moving_mean
    assert float(keras.ops.max(keras.ops.abs(moving))) > 0.01  # batch norm followed
    assert [r["phase"] for r in journal.progress.records] == ["pretrain"] * 2
    return path


@pytest.fixture(scope="module")
def job(tmp_path_factory, survey, backbone, task_settings):
    """Both folds, fine-tuned; the folder holds their files."""
    folder = tmp_path_factory.mktemp("job")
    settings = {
        "task": task_settings(weights="pretrain"),
        "task_name": "shape",
        "shards": ["a", "b"],
        "seed": 1,
    }
    quality = [survey / "a.parquet", survey / "b.parquet"]
    folds.run([survey / "labels.csv"], quality, folder / "split.parquet", settings)
    for fold in (0, 1):
        fine_tune(folder, survey, settings, backbone, fold, f"fold{fold}")
    return folder, settings


def fine_tune(folder, survey, settings, weights, fold, name):
    finetune.run(
        folder / "split.parquet",
        [survey / "a.arrow", survey / "b.arrow"],
        folder / f"{name}.keras",
        folder / f"{name}.json",
        folder / f"{name}_history.csv",
        folder / f"{name}_gradients.csv",
        settings,
        fold,
        weights,
        threads=2,
    )
    return json.loads((folder / f"{name}.json").read_text())


def small_batches(galaxies, seed=None):
    images, labels = galaxies
    return Batches(images, labels, np.ones(2, "float32"), 32, seed)


def statistics(network):
    return [
        keras.ops.convert_to_numpy(value)
        for layer in networks.batch_norms(network)
        for value in (layer.moving_mean, layer.moving_variance)
    ]


def test_frozen_batch_norm_stays_and_unfreezing_changes_nothing(galaxies, backbone, task_settings):
    training = Training.model_validate(task_settings(dropout=0.0, head_epochs=0)["training"])
    network = networks.build(training, BANDS, 32, "flux", 2, 1, backbone)
    before = statistics(network)
    kernels = network.get_layer("backbone").get_weights()
    networks.freeze(network, backbone=True, batch_norm=True)
    images = np.nan_to_num(galaxies[0])
    frozen = keras.ops.convert_to_numpy(network(images, training=True))
    networks.freeze(network, backbone=False, batch_norm=True)
    free = keras.ops.convert_to_numpy(network(images, training=True))
    asleep = keras.ops.convert_to_numpy(network(images, training=False))
    np.testing.assert_array_equal(free, frozen)
    np.testing.assert_array_equal(free, asleep)
    finetune.fit(network, training, small_batches(galaxies, 1), small_batches(galaxies), True, 1)
    for old, new in zip(before, statistics(network), strict=True):
        np.testing.assert_array_equal(old, new)
    after = network.get_layer("backbone").get_weights()
    assert any(not np.array_equal(a, b) for a, b in zip(kernels, after, strict=True))


def test_files_of_a_fold(job):
    folder, _ = job
    sidecar = json.loads((folder / "fold0.json").read_text())
    network = networks.load(folder / "fold0.keras")
    assert sidecar["model_id"] == networks.digest(network)
    assert sidecar["parameters"] == network.count_params()
    assert (sidecar["bands"], sidecar["cutout_size"], sidecar["pixels"]) == (
        ["g", "r", "i"],
        32,
        "flux",
    )
    with (folder / "fold0_history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["phase"] for row in rows] == ["head", "fine_tune", "fine_tune"]
    assert float(rows[-1]["learning_rate"]) == 0  # the cosine has fallen
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert sidecar["metrics"]["epoch"] == int(best["epoch"])


def test_two_runs_are_the_same(job, survey, backbone):
    folder, settings = job
    first = json.loads((folder / "fold0.json").read_text())
    second = fine_tune(folder, survey, settings, backbone, 0, "again")
    assert second == first
    assert (folder / "again.keras").read_bytes() == (folder / "fold0.keras").read_bytes()
    assert json.loads((folder / "fold1.json").read_text())["model_id"] != first["model_id"]


def test_diverging_loss_is_explained(galaxies, task_settings):
    training = Training.model_validate(task_settings(augment=False)["training"])
    network = networks.build(training, BANDS, 32, "flux", 2, 1)
    network.get_layer("logits").set_weights([np.full((1280, 2), np.nan), np.zeros(2)])
    with pytest.raises(
        FloatingPointError, match=r"epoch 1 \(head\), batch 1: lower the learning rate"
    ):
        finetune.fit(
            network, training, small_batches(galaxies, 1), small_batches(galaxies), True, 1
        )


