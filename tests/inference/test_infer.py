import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luneta.config import Training
from luneta.cutouts.shard import ShardWriter
from luneta.inference import infer
from luneta.models import devices
from luneta.models import network as networks
from luneta.training.calibration import probabilities

CLASSES = ["round", "edge_on"]
TEMPERATURE = 0.5
TASK = {
    "kind": "multiclass",
    "classes": CLASSES,
    "training": {"weights": "none", "width": 0.35, "folds": 2},
}
SETTINGS = {"task": TASK, "task_name": "shape", "batch_size": 4}


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """Two untrained networks with sidecars and metrics."""
    devices.configure(2)
    folder = tmp_path_factory.mktemp("ensemble")
    identities = []
    for fold in (0, 1):
        network = networks.build(Training(**TASK["training"]), 3, 32, "flux", 2, fold)
        head = network.get_layer("logits")
        images = np.random.default_rng(4).normal(5, 50, (20, 3, 32, 32)).astype("float32")
        logits = network.predict(images, verbose=0)
        kernel, bias = head.get_weights()  # scaled so that the network has opinions
        head.set_weights(
            [kernel / logits.std(axis=0), bias - (logits / logits.std(axis=0)).mean(axis=0)]
        )
        networks.save(network, folder / f"fold{fold}.keras")
        identities.append(networks.digest(network))
        sidecar = {"bands": ["g", "r", "i"], "pixels": "flux", "cutout_size": 32}
        sidecar["model_id"] = identities[-1]
        (folder / f"fold{fold}.json").write_text(json.dumps(sidecar))
    found = {"temperature": TEMPERATURE, "models": identities, "model_id": "ensemble"}
    (folder / "metrics.json").write_text(json.dumps(found))
    return folder


def write_shard(folder, usable, bands=("g", "r", "i")):
    count = int(np.sum(usable))
    random = np.random.default_rng(4)
    images = random.normal(5, 50, (count, len(bands), 32, 32)).astype("float32")
    names = np.array([f"galaxy{i}" for i in range(len(usable))], object)
    flags = np.zeros(count, np.int32)
    with ShardWriter(folder / "s.arrow", bands, 32, "flux") as shard:
        for start in range(0, count, 7):
            part = slice(start, start + 7)
            shard.write(names[np.flatnonzero(usable)[part]], flags[part], images[part])
    table = {"object_id": pa.array(names, pa.string()), "usable": pa.array(usable, pa.bool_())}
    pq.write_table(pa.table(table), folder / "s.parquet")
    return images


def predict(folder, ensemble):
    infer.run(
        folder / "s.arrow",
        folder / "s.parquet",
        [ensemble / "fold0.keras", ensemble / "fold1.keras"],
        [ensemble / "fold0.json", ensemble / "fold1.json"],
        ensemble / "metrics.json",
        folder / "predictions.parquet",
        SETTINGS,
    )
    return pq.read_table(folder / "predictions.parquet")


def test_predictions_are_those_of_the_networks(tmp_path, ensemble):
    usable = np.ones(23, dtype=bool)
    usable[[0, 5, 22]] = False
    images = write_shard(tmp_path, usable)
    table = predict(tmp_path, ensemble)
    assert table.schema.equals(infer.schema("shape", CLASSES))
    assert table["object_id"].to_pylist() == [f"galaxy{i}" for i in range(23)]
    logits = np.stack(
        [networks.load(ensemble / f"fold{k}.keras").predict(images, verbose=0) for k in (0, 1)]
    )
    each = probabilities(logits, TEMPERATURE)
    assert each.std(axis=0).max() > 0.01
    for i, name in enumerate(CLASSES):
        got = table[f"shape_{name}_probability"].to_numpy()
        np.testing.assert_allclose(got[usable], np.mean(each, axis=0)[:, i], atol=1e-5)
        got = table[f"shape_{name}_std"].to_numpy()
        np.testing.assert_allclose(got[usable], np.std(each, axis=0)[:, i], atol=1e-5)
    mean = each.mean(axis=0)
    entropy = -(mean * np.log(mean)).sum(axis=1)
    np.testing.assert_allclose(table["shape_entropy"].to_numpy()[usable], entropy, atol=1e-4)
    named = [CLASSES[i] for i in mean.argmax(axis=1)]
    assert [v for v in table["shape_class"].to_pylist() if v] == named
    for column in table.column_names[1:]:
        assert [v is None for v in table[column].to_pylist()] == (~usable).tolist()


def test_row_groups_stream(tmp_path, ensemble, monkeypatch):
    monkeypatch.setattr(infer, "BATCHES_PER_ROW_GROUP", 2)
    usable = np.arange(50) % 9 != 0
    images = write_shard(tmp_path, usable)
    most = []
    read = infer.Shard.read
    monkeypatch.setattr(infer.Shard, "read", lambda s, a, b: most.append(b - a) or read(s, a, b))
    table = predict(tmp_path, ensemble)
    assert pq.ParquetFile(tmp_path / "predictions.parquet").num_row_groups == 7  # 50 by 8
    assert max(most) <= 4  # never more than a batch in memory
    assert len(table) == 50
    logits = networks.load(ensemble / "fold0.keras").predict(images, verbose=0)
    assert len(logits) == table["shape_class"].drop_null().length()


@pytest.mark.parametrize("usable", [[], [False, False]])
def test_empty_shards(tmp_path, ensemble, usable):
    write_shard(tmp_path, np.array(usable, dtype=bool))
    table = predict(tmp_path, ensemble)
    assert len(table) == len(usable)
    assert table["shape_class"].null_count == len(usable)


def test_same_bytes_twice(tmp_path, ensemble):
    write_shard(tmp_path, np.ones(5, dtype=bool))
    predict(tmp_path, ensemble)
    first = (tmp_path / "predictions.parquet").read_bytes()
    predict(tmp_path, ensemble)
    assert (tmp_path / "predictions.parquet").read_bytes() == first


def test_cutouts_of_other_bands_are_refused(tmp_path, ensemble):
    write_shard(tmp_path, np.ones(3, dtype=bool), bands=("g", "i"))
    with pytest.raises(ValueError, match=r"bands \['g', 'i'\].*trained with \['g', 'r', 'i'\]"):
        predict(tmp_path, ensemble)


def test_batches_are_cut_evenly():
    assert [infer.even_batch_size(n, 256) for n in (0, 1, 256, 257, 600)] == [1, 1, 256, 129, 200]
