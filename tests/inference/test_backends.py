"""The same networks give the same predictions on every backend of Keras."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luneta.config import Training
from luneta.cutouts.shard import write_shard
from luneta.inference import infer
from luneta.models import devices
from luneta.models import network as networks
from luneta.training import outliers
from luneta.training.outliers import OutlierModel

CLASSES = ["smooth", "disc", "merger"]
OBJECTS, SIDE = 21, 40
RUN = "import json, sys; from luneta.inference import infer; infer.run(**json.loads(sys.argv[1]))"


def opinionated(backbone, seed):
    """An untrained network whose logits scatter by two."""
    training = Training(backbone=backbone, weights="none", head_units=[12], dropout=0.3)
    network = networks.build(training, ["g", "r", "i"], SIDE, "flux", 3, seed)
    logits = network.predict(pictures(), verbose=0)
    kernel, bias = network.get_layer("logits").get_weights()
    scale = 2 / logits.std(axis=0)
    network.get_layer("logits").set_weights([kernel * scale, (bias - logits.mean(axis=0)) * scale])
    return network


def pictures():
    return np.random.default_rng(4).normal(5, 30, (OBJECTS, 3, SIDE, SIDE)).astype("float32")


@pytest.fixture(scope="module", params=["MobileNetV2", "LeNet5"])
def job(request, tmp_path_factory):
    """What `infer.run` is given, and the predictions of TensorFlow."""
    folder = tmp_path_factory.mktemp(request.param)
    devices.configure(2)
    identities, familiar, images = [], [], pictures()
    for fold in (0, 1):
        network = opinionated(request.param, fold)
        networks.save(network, folder / f"fold{fold}.keras")
        identities.append(networks.digest(network))
        about = {"bands": ["g", "r", "i"], "pixels": "flux", "cutout_size": SIDE}
        about["model_id"] = identities[-1]
        (folder / f"fold{fold}.json").write_text(json.dumps(about))
        features = networks.with_features(network).predict(images, verbose=0)[0]
        familiar.append(outliers.fit(features, np.arange(OBJECTS) % 3))
    model = OutlierModel(tuple(familiar), 20.0)
    model.save(folder / "outliers.npz")
    metrics = {
        "calibration": {"method": "temperature", "parameters": {"temperature": 1.3}},
        "members": {"networks": 2, "views": 8, "draws": 2, "seed": 5, "precision": "trained"},
        "outliers": {"digest": model.digest},
        "classes": CLASSES,
        "models": identities,
        "model_id": "ensemble",
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    ids = np.array([f"galaxy{i}" for i in range(OBJECTS)], object)
    flags = np.zeros(OBJECTS, np.int32)
    write_shard(folder / "s.arrow", ids, flags, images, ["g", "r", "i"], "flux")
    pq.write_table(pa.table({"object_id": ids, "usable": [True] * OBJECTS}), folder / "s.parquet")
    given = {
        "cutouts": str(folder / "s.arrow"),
        "quality": str(folder / "s.parquet"),
        "models": [str(folder / f"fold{k}.keras") for k in (0, 1)],
        "sidecars": [str(folder / f"fold{k}.json") for k in (0, 1)],
        "metrics": str(folder / "metrics.json"),
        "outlier_model": str(folder / "outliers.npz"),
        "predictions": str(folder / "tensorflow.parquet"),
        "settings": {"task_name": "shape", "batch_size": 8, "jit": "auto"},
        "threads": 2,
    }
    infer.run(**given)
    return given, pq.read_table(folder / "tensorflow.parquet")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_predictions_are_those_of_tensorflow(job, backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed here: pip install {backend}")
    given, expected = job
    given = {**given, "predictions": str(tmp_path / f"{backend}.parquet"), "device": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(given)],
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    got = pq.read_table(given["predictions"])
    assert got.schema.equals(expected.schema)
    for name in expected.column_names:
        theirs, ours = expected[name].to_numpy(), got[name].to_numpy()
        if "outlier_score" in name:  # a distance, of some tens
            np.testing.assert_allclose(ours, theirs, rtol=1e-3)
        elif theirs.dtype == "float32":
            assert np.ptp(theirs) > 0.01 or "probability" not in name
            np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
        else:
            assert ours.tolist() == theirs.tolist()
