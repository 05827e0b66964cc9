import csv
import logging

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest

from luneta.config import Pretraining, Training
from luneta.files import read_json
from luneta.models import devices, preprocessing
from luneta.models import network as networks
from luneta.training import finetune, folds
from luneta.training.backbone import fit_backbone
from luneta.training.data import Batches, Cutouts, Labelled, data_digest, read_split
from luneta.training.loop import COLUMNS, GRADIENT_COLUMNS

BANDS = ["g", "r", "i"]
OUTPUTS = {"model": ".keras", "sidecar": ".json", "history": ".csv", "gradients": "_g.csv"}


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, galaxies, task_settings):
    """Weights of a MobileNetV2 that was trained from random ones for two epochs."""
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


def statistics(network):
    return [
        keras.ops.convert_to_numpy(value)
        for layer in networks.batch_norms(network)
        for value in (layer.moving_mean, layer.moving_variance)
    ]


def test_frozen_batch_norm_stays_and_unfreezing_changes_nothing(galaxies, backbone, task_settings):
    # One step a phase: its loss is that before the step, and the head's step moves nothing
    changes = {"dropout": 0.0, "head_learning_rate": 1e-12, "fine_tune_epochs": 1, "warmup": 0.0}
    changes |= {"augmentation": {"dihedral": False}, "schedule": "constant", "keep": "last"}
    training = Training.model_validate(task_settings(**changes)["training"])
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
    learnt, held = (Batches(*galaxies, np.ones(2, "float32"), 96, seed) for seed in (1, None))
    journal = finetune.fit(network, training, learnt, held, True, 1)
    for old, new in zip(before, statistics(network), strict=True):
        np.testing.assert_array_equal(old, new)
    after = network.get_layer("backbone").get_weights()
    assert any(not np.array_equal(a, b) for a, b in zip(kernels, after, strict=True))
    head, whole = journal.progress.records
    assert (head["phase"], whole["phase"]) == ("head", "fine_tune")
    assert whole["loss"] == pytest.approx(head["loss"], abs=2e-6)


def test_batch_norm_of_random_weights_is_trained(galaxies, task_settings):
    changes = {"head_epochs": 0, "fine_tune_epochs": 1, "keep": "last"}
    training = Training.model_validate(task_settings(**changes)["training"])
    network = networks.build(training, BANDS, 32, "flux", 2, 1)
    learnt, held = (Batches(*galaxies, np.ones(2, "float32"), 96, seed) for seed in (1, None))
    finetune.fit(network, training, learnt, held, False, 1)
    # after one step of momentum 0.9 from 1, a variance holds a tenth of that of the batch
    for variance in statistics(network)[1::2]:
        assert (variance >= 0.9).all()
        assert np.abs(variance - 1).max() > 1e-3


@pytest.mark.parametrize(
    ("changes", "pretrained", "expected"),
    [
        ({}, True, [("head", 3, 1e-3, False), ("fine_tune", 8, 2e-4, True)]),
        ({}, False, [("fine_tune", 11, 2e-4, True)]),
        ({"fine_tune_epochs": 0}, True, [("head", 3, 1e-3, False)]),
        ({"fine_tune_epochs": 0}, False, [("head", 3, 1e-3, False)]),
        ({"head_epochs": 0, "schedule": "constant"}, True, [("fine_tune", 8, 2e-4, False)]),
    ],
)
def test_phases(changes, pretrained, expected):
    found = finetune.phases(Training(**changes), pretrained)
    assert [(p.name, p.epochs, p.learning_rate, p.cosine) for p in found] == expected


def test_plateau_waits_twice():
    head, whole = finetune.phases(Training(schedule="plateau", patience=3), True)
    assert (head.patience, whole.patience) == (3, 6)
    epochs = [{"phase": "fine_tune", "val_loss": loss} for loss in (2, 1, 1, 1, 1)]
    assert [whole.factor(epochs[:n]) for n in (4, 5)] == [1, pytest.approx(0.1)]


def test_classes_drawn_alike_have_no_weights():
    labels = np.repeat([0, 1], [30, 10])
    held = np.repeat([0, 1], [20, 2])
    for weights in finetune.importance_of(labels, held, 2, Training()):
        assert weights[1] / weights[0] == pytest.approx(3)
    balanced = Training(sampling="balanced")
    alike, of_validation = finetune.importance_of(labels, held, 2, balanced)
    np.testing.assert_array_equal(alike, [1, 1])
    assert of_validation[1] / of_validation[0] == pytest.approx(10)  # beyond the cap


def test_too_few_labels_to_choose_an_epoch_by_are_told():
    zeros = np.zeros(6, "int32")
    names = np.array([f"galaxy{i}" for i in range(6)])
    objects = Labelled(names, names, zeros, np.array([0, 0, 0, 0, 1, 1]), zeros)
    few = Training(label_fraction=0.25)
    with pytest.raises(ValueError, match=r"fold 1 has no object.*\(bar has 1, spot has 1, at"):
        finetune.parts(objects, ["bar", "spot"], few, 1, 1)


@pytest.fixture(scope="module")
def start(tmp_path_factory, small_training, small_network):
    """A weights file of a LeNet-5."""
    path = tmp_path_factory.mktemp("start") / "small.weights.h5"
    small_network(small_training()).get_layer("backbone").save_weights(path)
    return path


@pytest.fixture(scope="module")
def prepare(tmp_path_factory, survey):
    """A function that gives one that trains a fold, with settings that differ."""

    def prepared(**changes):
        folder = tmp_path_factory.mktemp("job")
        training = {"backbone": "LeNet5", "folds": 2, "head_epochs": 1, "fine_tune_epochs": 2}
        training |= {"batch_size": 16, "weights": "none", **changes}
        task = {"kind": "binary", "classes": ["bar", "spot"], "training": training}
        settings = {"task": task, "task_name": "shape", "shards": ["a", "b"], "seed": 1}
        quality = [survey / "a.parquet", survey / "b.parquet"]
        folds.run([survey / "labels.csv"], quality, folder / "split.parquet", settings)

        def train(name="fold0", fold=0, **arguments):
            cutouts = [survey / "a.arrow", survey / "b.arrow"]
            paths = {key: folder / f"{name}{end}" for key, end in OUTPUTS.items()}
            finetune.run(
                folder / "split.parquet", cutouts, **paths, settings=settings, fold=fold,
                threads=2, **arguments,
            )  # fmt: skip
            return read_json(paths["sidecar"])

        return folder, train

    return prepared


@pytest.fixture(scope="module")
def job(prepare, start):
    """Both folds, from a weights file; their folder, sidecars, and how to train them again."""
    preprocessed = {"normalisation": "band", "noise_scaling": "training"}
    folder, train = prepare(weights=str(start), preprocessing=preprocessed)
    sidecars = [train(f"fold{fold}", fold, weights=start) for fold in (0, 1)]
    return folder, sidecars, train


def rows_of(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_files_of_a_fold(job):
    folder, (sidecar, _), _ = job
    network = networks.load(folder / "fold0.keras")
    assert sidecar["model_id"] == networks.digest(network)
    assert sidecar["parameters"] == network.count_params()
    assert (sidecar["bands"], sidecar["cutout_size"], sidecar["pixels"]) == (BANDS, 32, "flux")
    rows = rows_of(folder / "fold0.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [row["phase"] for row in rows] == ["head", "fine_tune", "fine_tune"]
    assert float(rows[-1]["learning_rate"]) == 0  # the cosine has fallen
    best = min(rows, key=lambda row: float(row["val_loss"]))
    assert sidecar["metrics"]["epoch"] == int(best["epoch"])
    norms = rows_of(folder / "fold0_g.csv")
    assert tuple(norms[0]) == GRADIENT_COLUMNS
    assert [row["block"] for row in norms] == [
        "head", *["block1", "block2", "block3", "block4", "head"] * 2,
    ]  # fmt: skip
    assert all(float(row["norm"]) > 0 for row in norms)


def test_sidecar_tells_what_shaped_the_weights(job, survey, start):
    folder, (sidecar, _), _ = job
    objects = read_split(folder / "split.parquet", ["bar", "spot"])
    store = Cutouts({name: survey / f"{name}.arrow" for name in "ab"})
    assert sidecar["data_digest"] == data_digest(objects, store)
    learnt, held = finetune.parts(objects, ["bar", "spot"], Training(), 0, 1)
    assert sidecar["objects"] == {"training": len(learnt), "validation": len(held)}
    assert len(learnt) + len(held) == (objects.folds == 1).sum()
    assert sidecar["steps"] == 3 * (len(learnt) // 16)
    assert sidecar["precision"] == "float32"
    assert sidecar["devices"] == devices.description()
    build = [Training(backbone="LeNet5"), BANDS, 32, "flux", 2, 5, start]
    started = networks.build(*build).get_layer("backbone")
    assert sidecar["start"] == networks.digest(started)
    assert sidecar["versions"]["keras"] == keras.__version__
    training = Training.model_validate(sidecar["training"])
    measured = preprocessing.measure(store.take(learnt.shards, learnt.rows), training, "flux")
    assert sidecar["statistics"] == measured.as_dict()
    normalisation = networks.load(folder / "fold0.keras").get_layer("preprocessing")
    mean = normalisation.get_layer("normalisation").get_weights()[0]
    np.testing.assert_allclose(mean.ravel(), measured.mean, rtol=1e-5)


def test_two_runs_are_the_same(job, start):
    folder, (first, second), train = job
    assert train("again", weights=start) == first
    for end in OUTPUTS.values():
        assert (folder / f"again{end}").read_bytes() == (folder / f"fold0{end}").read_bytes()
    assert second["model_id"] != first["model_id"]


def test_label_fraction_shrinks_both_parts(prepare, job):
    _, (whole, _), _ = job
    _, train = prepare(label_fraction=0.5, fine_tune_epochs=1)
    half = train()
    for part in ("training", "validation"):
        assert half["objects"][part] == pytest.approx(whole["objects"][part] / 2, abs=1)
    assert half["objects"]["validation"] < whole["objects"]["validation"]
    assert half["data_digest"] == whole["data_digest"]


@pytest.mark.bfloat16
def test_every_option_at_once(prepare, tmp_path):
    folder, train = prepare(
        optimizer="sgd", momentum=0.8, schedule="plateau", layer_decay=0.7, loss="focal",
        label_smoothing=0.1, sampling="balanced", mixup=0.3, gradient_clip=1.0, keep="last",
        augmentation={"shift": 1, "zoom": 0.1, "noise": 0.5, "blur": 0.5}, precision="bfloat16",
        tensorboard=True, head_units=[8], unfreeze=1, activation="gelu", warmup=0.1,
    )  # fmt: skip
    sidecar = train(log_folder=tmp_path / "log")
    assert sidecar["precision"] == "bfloat16"
    assert list((tmp_path / "log").glob("train/events*"))
    assert sidecar["metrics"]["epoch"] == len(rows_of(folder / "fold0.csv"))
    network = networks.load(folder / "fold0.keras")
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype("float32")
    logits = keras.ops.convert_to_numpy(network(images))
    assert (logits.dtype, logits.shape) == (np.float32, (2, 2))


def test_course_recipe_trains_from_random_weights(prepare):
    folder, train = prepare(course_recipe=True, weights="imagenet", fine_tune_epochs=2)
    sidecar = train()
    rows = rows_of(folder / "fold0.csv")
    assert [row["learning_rate"] for row in rows] == ["0.01", "0.01"]
    assert sidecar["metrics"]["epoch"] == 2
    used = sidecar["training"]
    assert used["course_recipe"] is True
    assert (used["weights"], used["optimizer"], used["dropout"]) == ("none", "sgd", 0.0)


def test_a_gpu_that_is_not_there_stops_the_job(prepare):
    if devices.gpus():
        pytest.skip("this machine has a GPU")
    folder, train = prepare()
    with pytest.raises(devices.DeviceError, match="device: gpu, but tensorflow sees no GPU"):
        train(device="gpu")
    assert [path.name for path in folder.iterdir()] == ["split.parquet"]


def test_run_tells_how_many_objects_it_has(prepare, caplog):
    folder, train = prepare(fine_tune_epochs=1)
    with caplog.at_level(logging.INFO):
        sidecar = train()
    counts = sidecar["objects"]
    told = f"shape fold 0: {counts['training']} to train on, {counts['validation']} to choose"
    assert told in caplog.text
    assert pq.read_metadata(folder / "split.parquet").num_rows > sum(counts.values())
