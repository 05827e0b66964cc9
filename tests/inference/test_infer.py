import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from luneta.catalog.schema import run_column, task_columns
from luneta.config import Training
from luneta.cutouts.shard import ShardWriter
from luneta.files import read_json
from luneta.inference import embed, infer, predictions
from luneta.models import devices, precision, predicting
from luneta.models import network as networks
from luneta.training import outliers
from luneta.training.calibration import probabilities
from luneta.training.outliers import OutlierModel

CLASSES = ["round", "edge_on"]
TEMPERATURE = 0.5
TRAINING = {"backbone": "LeNet5", "weights": "none", "dropout": 0.3}
SETTINGS = {"task_name": "shape", "batch_size": 4}
ONE_LOOK = {"views": 1, "draws": 0, "seed": 1}


def pictures(count, bands=3):
    random = np.random.default_rng(4)
    return random.normal(5, 50, (count, bands, 32, 32)).astype("float32")


def with_opinions(seed):
    """An untrained network, whose logits are scaled to scatter by one."""
    network = networks.build(Training(**TRAINING), ["g", "r", "i"], 32, "flux", 2, seed)
    head = network.get_layer("logits")
    logits = network.predict(pictures(20), verbose=0)
    kernel, bias = head.get_weights()
    head.set_weights(
        [kernel / logits.std(axis=0), (bias - logits.mean(axis=0)) / logits.std(axis=0)]
    )
    return network


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    """Two untrained networks with sidecars, outlier model and metrics."""
    devices.configure(2)
    folder = tmp_path_factory.mktemp("ensemble")
    identities, familiar, labels = [], [], np.arange(40) % 2
    for fold in (0, 1):
        network = with_opinions(fold)
        networks.save(network, folder / f"fold{fold}.keras")
        identities.append(networks.digest(network))
        sidecar = {"bands": ["g", "r", "i"], "pixels": "flux", "cutout_size": 32}
        sidecar["model_id"] = identities[-1]
        (folder / f"fold{fold}.json").write_text(json.dumps(sidecar))
        features = networks.with_features(network).predict(pictures(40), verbose=0)[0]
        familiar.append(outliers.fit(features, labels))
    of_nine = familiar[1].distances(features[:9])  # which the tests predict
    model = OutlierModel(tuple(familiar), outliers.threshold(of_nine, 0.5))
    model.save(folder / "outliers.npz")
    found = {
        "calibration": {"method": "temperature", "parameters": {"temperature": TEMPERATURE}},
        "members": {"networks": 2, **ONE_LOOK},
        "outliers": {"digest": model.digest},
        "classes": CLASSES,
        "models": identities,
        "model_id": "ensemble",
    }
    (folder / "metrics.json").write_text(json.dumps(found))
    return folder


def write_shard(folder, usable, bands=("g", "r", "i")):
    count = int(np.sum(usable))
    images = pictures(count, len(bands))
    names = np.array([f"galaxy{i}" for i in range(len(usable))], object)
    flags = np.zeros(count, np.int32)
    with ShardWriter(folder / "s.arrow", bands, 32, "flux") as shard:
        for start in range(0, count, 7):
            part = slice(start, start + 7)
            shard.write(names[np.flatnonzero(usable)[part]], flags[part], images[part])
    table = {"object_id": pa.array(names, pa.string()), "usable": pa.array(usable, pa.bool_())}
    pq.write_table(pa.table(table), folder / "s.parquet")
    return images


def predict(folder, ensemble, metrics="metrics.json", **options):
    infer.run(
        folder / "s.arrow",
        folder / "s.parquet",
        [ensemble / "fold0.keras", ensemble / "fold1.keras"],
        [ensemble / "fold0.json", ensemble / "fold1.json"],
        ensemble / metrics,
        ensemble / "outliers.npz",
        folder / "predictions.parquet",
        SETTINGS,
        **options,
    )
    return pq.read_table(folder / "predictions.parquet")


def test_predictions_are_those_of_the_networks(tmp_path, ensemble):
    usable = np.ones(23, dtype=bool)
    usable[[0, 5, 22]] = False
    images = write_shard(tmp_path, usable)
    table = predict(tmp_path, ensemble)
    assert table.schema.equals(predictions.schema("shape", CLASSES))
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
    information = entropy + (each * np.log(each)).sum(axis=2).mean(axis=0)
    assert information.max() > 0.01
    got = table["shape_mutual_information"].to_numpy()[usable]
    np.testing.assert_allclose(got, information, atol=1e-4)
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


def test_outliers_are_far_from_the_familiar(tmp_path, ensemble):
    usable = np.ones(10, dtype=bool)
    usable[3] = False
    images = write_shard(tmp_path, usable)
    table = predict(tmp_path, ensemble)
    model = OutlierModel.load(ensemble / "outliers.npz")
    features = [
        networks.with_features(networks.load(ensemble / f"fold{k}.keras")).predict(images)[0]
        for k in (0, 1)
    ]
    each = [one.distances(f) for one, f in zip(model.networks, features, strict=True)]
    scores = table["shape_outlier_score"].to_numpy()[usable]
    np.testing.assert_allclose(scores, np.mean(each, axis=0), rtol=1e-3)
    flags = [x for x in table["shape_outlier"].to_pylist() if x is not None]
    assert flags == list(scores > model.threshold)
    assert 0 < sum(flags) < 9


def test_views_and_draws_are_those_that_were_evaluated(tmp_path, ensemble):
    found = read_json(ensemble / "metrics.json")
    found["members"] |= {"views": 8, "draws": 3, "seed": 7}
    (ensemble / "sampled.json").write_text(json.dumps(found))
    usable = np.ones(6, dtype=bool)
    images = write_shard(tmp_path, usable)
    table = predict(tmp_path, ensemble, "sampled.json")
    members = [predicting.prepare(networks.load(ensemble / f"fold{k}.keras")) for k in (0, 1)]
    outputs = predicting.predict(members, lambda a, b: images[a:b], 6, 6, views=8, draws=3, seed=7)
    each = probabilities(outputs.logits.reshape(48, 6, 2), TEMPERATURE)
    for i, name in enumerate(CLASSES):
        got = table[f"shape_{name}_probability"].to_numpy()
        np.testing.assert_allclose(got, each.mean(axis=0)[:, i], atol=1e-5)
        got = table[f"shape_{name}_std"].to_numpy()
        np.testing.assert_allclose(got, each.std(axis=0)[:, i], atol=1e-5)


def test_many_draws_make_row_groups_shorter(tmp_path, ensemble, monkeypatch):
    monkeypatch.setattr(infer, "MOST_LOGITS", 12)  # 2 networks, 2 classes: 3 objects
    write_shard(tmp_path, np.ones(7, dtype=bool))
    predict(tmp_path, ensemble)
    file = pq.ParquetFile(tmp_path / "predictions.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(3)] == [3, 3, 1]


def test_columns_are_those_of_the_catalog():
    described = [*task_columns("shape", "multiclass", CLASSES), run_column("shape")]
    expected = [("object_id", pa.string()), *((c.name, c.type) for c in described)]
    assert predictions.schema("shape", CLASSES) == pa.schema(expected)


def test_rows_bear_model_and_run(tmp_path, ensemble):
    usable = np.array([True, False, True])
    write_shard(tmp_path, usable)
    table = predict(tmp_path, ensemble, run_id="0123456789abcdef")
    assert table["shape_run_id"].to_pylist() == ["0123456789abcdef", None, "0123456789abcdef"]
    assert table["shape_model_id"].to_pylist() == ["ensemble", None, "ensemble"]


def test_unusable_rows_anywhere_keep_their_place(tmp_path, ensemble, monkeypatch):
    """Row groups without a usable object at the start, within and at the end."""
    monkeypatch.setattr(infer, "BATCHES_PER_ROW_GROUP", 1)
    usable = np.zeros(30, dtype=bool)
    usable[[5, 6, 7, 8, 9, 20, 21]] = True
    write_shard(tmp_path, usable)
    table = predict(tmp_path, ensemble)
    assert table["object_id"].to_pylist() == [f"galaxy{i}" for i in range(30)]
    assert table["shape_class"].is_valid().to_pylist() == usable.tolist()
    alone = np.ones(7, dtype=bool)
    (tmp_path / "alone").mkdir()
    write_shard(tmp_path / "alone", alone)
    expected = predict(tmp_path / "alone", ensemble)["shape_round_probability"].to_numpy()
    got = table["shape_round_probability"].drop_null().to_numpy()
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_of_whom_nothing_finite_is_said_gets_nulls(tmp_path, ensemble, monkeypatch, caplog):
    """One overflow costs its object, which is told of, and no other."""
    usable = np.ones(6, dtype=bool)
    usable[0] = False
    write_shard(tmp_path, usable)
    expected = predict(tmp_path, ensemble)
    answers = infer.Ensemble.answers

    def overflown(self, said):
        found = answers(self, said)
        if len(found):
            found.probability[1] = np.nan
        return found

    monkeypatch.setattr(infer.Ensemble, "answers", overflown)
    monkeypatch.setitem(SETTINGS, "batch_size", 8)
    got = predict(tmp_path, ensemble)
    for name in got.column_names[1:]:
        values = got[name].to_pylist()
        assert [row for row, value in enumerate(values) if value is None] == [0, 2]
    assert got["shape_class"][3:] == expected["shape_class"][3:]
    assert "shape: the networks say nothing finite of 1 objects" in caplog.text


def test_memory_that_runs_out_costs_time_alone(tmp_path, ensemble, monkeypatch, caplog):
    write_shard(tmp_path, np.ones(9, dtype=bool))
    expected = predict(tmp_path, ensemble)
    run, sizes = predicting.Compiled.__call__, []

    def hungry(self, inputs):
        sizes.append(len(inputs))
        if len(inputs) > 2:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating")
        return run(self, inputs)

    monkeypatch.setattr(predicting.Compiled, "__call__", hungry)
    got = predict(tmp_path, ensemble)
    assert set(sizes) == {3, 2}
    assert "out of memory with 3 objects a pass: going on with 2" in caplog.text
    for name in ("shape_round_probability", "shape_outlier_score"):
        np.testing.assert_allclose(got[name].to_numpy(), expected[name].to_numpy(), rtol=1e-4)


@pytest.mark.parametrize("limit", [precision.LIMIT, 0.0])
@pytest.mark.bfloat16
def test_bfloat16_is_checked_on_the_first_cutouts(tmp_path, ensemble, monkeypatch, limit):
    monkeypatch.setattr(precision, "LIMIT", limit)
    found = read_json(ensemble / "metrics.json")
    found["members"]["precision"] = "bfloat16"
    (ensemble / "bfloat16.json").write_text(json.dumps(found))
    write_shard(tmp_path, np.ones(9, dtype=bool))
    exact = predict(tmp_path, ensemble)["shape_round_probability"].to_numpy()
    if not limit:
        with pytest.raises(precision.PrecisionError, match="set inference.precision: float32"):
            predict(tmp_path, ensemble, "bfloat16.json")
        return
    got = predict(tmp_path, ensemble, "bfloat16.json")["shape_round_probability"].to_numpy()
    assert 0 < np.abs(got - exact).max() < limit


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda t: t.drop_columns(["shape_run_id"]), r"lacks shape_run_id \(string\): it was"),
        (
            lambda t: t.set_column(3, "shape_edge_on_probability", t[3].cast(pa.float64())),
            r"lacks shape_edge_on_probability \(float\) and has .* \(double\)",
        ),
        (lambda t: t.append_column("shape_odd", t[0]), r"has shape_odd \(string\)"),
        (lambda t: t.select(t.column_names[::-1]), "has its columns in another order"),
    ],
)
def test_predictions_of_another_schema_are_told(tmp_path, ensemble, change, said):
    write_shard(tmp_path, np.ones(3, dtype=bool))
    table, path = predict(tmp_path, ensemble), tmp_path / "predictions.parquet"
    predictions.check_schema(path, "shape", CLASSES)
    pq.write_table(change(table), path)
    with pytest.raises(predictions.PredictionsError, match=said):
        predictions.check_schema(path, "shape", CLASSES)


def features_of_all(folder, ensemble):
    settings = {"batch_size": 2, "jit": "auto"}
    network = (ensemble / "fold0.keras", ensemble / "fold0.json")
    embed.run(folder / "s.arrow", folder / "s.parquet", *network, folder / "e.parquet", settings)
    return pq.read_table(folder / "e.parquet")["features"]


def test_features_keep_the_place_of_their_objects(tmp_path, ensemble):
    usable = np.array([True, False, True, False, False, True, True])  # one batch has none
    images = write_shard(tmp_path, usable)
    found = features_of_all(tmp_path, ensemble)
    assert found.is_valid().to_pylist() == usable.tolist()
    network = networks.with_features(networks.load(ensemble / "fold0.keras"))
    expected = network.predict(images, verbose=0)[0]
    got = np.array(found.drop_null().to_pylist())
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_features_of_a_shard_with_other_objects_are_refused(tmp_path, ensemble):
    write_shard(tmp_path, np.ones(5, dtype=bool))
    rows = {
        "object_id": [f"galaxy{i}" for i in range(5)],
        "usable": [True, False, True, True, True],
    }
    pq.write_table(pa.table(rows), tmp_path / "s.parquet")
    with pytest.raises(ValueError, match="are not of the same run: remove both, then run"):
        features_of_all(tmp_path, ensemble)
    assert not (tmp_path / "e.parquet").exists()
