import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression

from luneta.config import Question, Training
from luneta.cutouts.shard import write_shard
from luneta.files import DamagedFile, read_json, write_json
from luneta.inference import infer
from luneta.metrics.bootstrap import intervals
from luneta.metrics.classification import scores
from luneta.metrics.delong import delong_interval
from luneta.models import network as networks
from luneta.training import calibration, evaluate, folds, outliers
from luneta.training.calibration import Calibrator, probabilities
from luneta.training.data import training_part

CLASSES = ["bar", "spot"]
MODELS = [f"fold{k}.keras" for k in (0, 1)]
SIDECARS = [f"fold{k}.json" for k in (0, 1)]


def stamps(count, seed, kind=None):
    """Faint bars and spots, so that some are mistaken; or rings, or nothing but noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = random.normal(size=(count, 3, 32, 32)).astype("float32")
    strength = random.uniform(0.2, 2.5, count)[:, None, None, None]
    if kind is None:
        images[labels == 0, :, 14:18, 4:28] += 2 * strength[labels == 0]
        images[labels == 1, :, 12:20, 12:20] += 4 * strength[labels == 1]
    elif kind == "ring":
        radius = np.hypot(*(np.indices((32, 32)) - 15.5))
        images += 60 * ((radius > 9) & (radius < 13))
    else:
        images *= 40
    return images, labels


def write(folder, name, images, labels=None):
    ids = np.array([f"{name}{i}" for i in range(len(images))], object)
    flags = np.zeros(len(images), "int32")
    write_shard(folder / f"{name}.arrow", ids, flags, images, list("gri"), "flux")
    table = pa.table({"object_id": ids, "usable": np.ones(len(ids), bool)})
    pq.write_table(table, folder / f"{name}.parquet")
    if labels is not None:
        rows = [f"{i},{CLASSES[label]}" for i, label in zip(ids, labels, strict=True)]
        (folder / f"{name}.csv").write_text("\n".join(["object_id,label", *rows, ""]))


def fit_head(network, images, labels):
    """Logistic regression on the features, instead of training."""
    features = networks.with_features(network).predict(images, verbose=0)[0]
    found = LogisticRegression(C=0.3, max_iter=2000).fit(features, labels)
    kernel = np.stack([-found.coef_[0], found.coef_[0]], axis=1)
    bias = np.array([-found.intercept_[0], found.intercept_[0]])
    network.get_layer("logits").set_weights([kernel, bias])


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """A labelled shard, its split with a hold-out, a network of each fold."""
    folder = tmp_path_factory.mktemp("evaluate")
    images, labels = stamps(240, 1)
    write(folder, "s", images, labels)
    training = {"folds": 2, "holdout": 0.25, "backbone": "LeNet5", "weights": "none"}
    task = {"kind": "binary", "classes": CLASSES, "training": training}
    settings = {"task": task, "shards": ["s"], "seed": 3}
    folds.run([folder / "s.csv"], [folder / "s.parquet"], folder / "split.parquet", settings)
    objects = evaluate.read_split(folder / "split.parquet", CLASSES)
    for fold in (0, 1):
        network = networks.build(Training(**training), list("gri"), 32, "flux", 2, fold)
        part = training_part(objects, fold)
        fit_head(network, images[part.rows], part.labels)
        networks.save(network, folder / MODELS[fold])
        sidecar = {"bands": list("gri"), "pixels": "flux", "cutout_size": 32}
        sidecar["model_id"] = networks.digest(network)
        (folder / SIDECARS[fold]).write_text(json.dumps(sidecar))
    return folder, images


def evaluated(survey, name, split="split.parquet", **changes):
    folder, _ = survey
    settings = {
        "task": {"kind": "binary", "classes": CLASSES}, "shards": ["s"], "batch_size": 64,
        "calibration": "auto", "views": 1, "draws": 0, "strange": 0.95, "seed": 3, **changes,
    }  # fmt: skip
    out = folder / name
    out.mkdir(exist_ok=True)
    evaluate.run(
        folder / split, [folder / "s.arrow"],
        [folder / m for m in MODELS], [folder / s for s in SIDECARS],
        out / "t.json", out / "out.parquet", out / "new.parquet", out / "outliers.npz", settings,
    )  # fmt: skip
    found = read_json(out / "t.json")
    return out, found, pq.read_table(out / "out.parquet"), pq.read_table(out / "new.parquet")


@pytest.fixture(scope="module")
def plain(survey):
    return evaluated(survey, "plain")


@pytest.fixture(scope="module")
def sampled(survey):
    return evaluated(survey, "sampled", views=8, draws=2, calibration="temperature")


def inferred(folder, out, shard):
    infer.run(
        folder / f"{shard}.arrow", folder / f"{shard}.parquet",
        [folder / m for m in MODELS], [folder / s for s in SIDECARS],
        out / "t.json", out / "outliers.npz", out / f"{shard}.parquet",
        {"task_name": "t", "batch_size": 50},
    )  # fmt: skip
    return pq.read_table(out / f"{shard}.parquet")


def columns(table, stem):
    return np.stack([table[f"{stem}{name}"].to_numpy() for name in CLASSES], axis=1)


def labels_of(table):
    return np.array([CLASSES.index(name) for name in table["label"].to_pylist()])


def test_logits_are_of_the_network_that_held_the_object_out(survey, plain):
    folder, images = survey
    _, _, table, _ = plain
    split = pq.read_table(folder / "split.parquet").to_pandas()
    assert table["object_id"].to_pylist() == split["object_id"][split["fold"] >= 0].tolist()
    rows = [int(name[1:]) for name in table["object_id"].to_pylist()]
    fold, got = table["fold"].to_numpy(), columns(table, "logit_")
    for k in (0, 1):
        expected = networks.load(folder / MODELS[k]).predict(images[rows], verbose=0)
        np.testing.assert_allclose(got[fold == k], expected[fold == k], atol=1e-4)
        assert np.abs(got - expected)[fold != k].max() > 0.1
    np.testing.assert_allclose(columns(table, "uncalibrated_"), probabilities(got), atol=1e-5)


def test_probabilities_are_calibrated_by_the_other_fold(plain):
    _, found, table, _ = plain
    logits, labels, fold = columns(table, "logit_"), labels_of(table), table["fold"].to_numpy()
    method = found["calibration"]["method"]
    for k in (0, 1):
        calibrator = calibration.fit(method, logits[fold != k], labels[fold != k])
        expected = calibrator.apply(logits[fold == k])
        np.testing.assert_allclose(columns(table, "probability_")[fold == k], expected, atol=1e-4)
    losses = found["calibration"]["log_losses"]
    assert set(losses) == set(calibration.METHODS)
    assert losses[method] <= min(losses.values()) + 1e-4
    again = calibration.fit(method, logits, labels)
    assert Calibrator.from_dict(found["calibration"]).apply(logits) == pytest.approx(
        again.apply(logits), abs=1e-4
    )


def test_scores_and_intervals(plain):
    _, found, table, new = plain
    predicted, labels = columns(table, "probability_").astype(float), labels_of(table)
    expected = scores(labels, predicted, "binary")
    assert found["scores"] == pytest.approx(expected, abs=1e-4, nan_ok=True)
    assert 0.6 < found["scores"]["accuracy"] < 1
    assert np.sum(found["confusion"]) == found["count"] == len(table)
    low, high = found["intervals"]["accuracy"]
    assert [low, high] == pytest.approx(intervals(labels, predicted, "binary", seed=3)["accuracy"])
    assert low < found["scores"]["accuracy"] < high
    fold = table["fold"].to_numpy()
    each = [np.mean(predicted.argmax(1)[fold == k] == labels[fold == k]) for k in (0, 1)]
    assert [f["accuracy"] for f in found["folds"]] == pytest.approx(each)
    assert found["mean"]["accuracy"] == pytest.approx(np.mean(each))
    assert found["standard_error"]["accuracy"] == pytest.approx(np.std(each, ddof=1) / 2**0.5)
    held = found["holdout"]
    right = columns(new, "probability_").argmax(1) == labels_of(new)
    assert (held["count"], held["scores"]["accuracy"]) == (len(new), pytest.approx(right.mean()))
    assert held["intervals"]["accuracy"][0] < right.mean() < held["intervals"]["accuracy"][1]


def test_each_class_has_its_area_with_the_interval_of_delong(plain):
    _, found, table, new = plain
    for content, rows in ((found, table), (found["holdout"], new)):
        assert list(content["class_auc"]) == ["spot"]
        expected = delong_interval(labels_of(rows) == 1, columns(rows, "probability_")[:, 1])
        assert content["class_auc"]["spot"] == pytest.approx(expected, abs=1e-6)
        assert content["class_auc"]["spot"][0] == pytest.approx(content["scores"]["roc_auc"])


def test_areas_of_many_classes_are_against_the_rest():
    random = np.random.default_rng(0)
    labels, predicted = random.integers(0, 2, 60), random.dirichlet(np.ones(3), 60)
    task = Question(kind="multiclass", classes=["a", "b", "never"])
    found = evaluate.class_auc(labels, predicted, task)
    for number, name in enumerate("ab"):
        assert found[name] == list(delong_interval(labels == number, predicted[:, number]))
    assert found["never"] == [None] * 3


@pytest.mark.parametrize("which", ["plain", "sampled"])
def test_the_hold_out_is_predicted_as_infer_does(survey, which, request):
    folder, _ = survey
    out, _, _, new = request.getfixturevalue(which)
    assert set(new["fold"].to_pylist()) == {-1}
    assert len(new) > 40
    table = inferred(folder, out, "s").to_pandas().set_index("object_id")
    table = table.loc[new["object_id"].to_pylist()]
    for name in CLASSES:
        got = new[f"probability_{name}"].to_numpy()
        np.testing.assert_allclose(table[f"t_{name}_probability"], got, atol=1e-5)
    for name in ("entropy", "mutual_information", "outlier_score"):
        np.testing.assert_allclose(table[f"t_{name}"], new[name].to_numpy(), rtol=1e-3, atol=1e-5)
    assert table["t_outlier"].tolist() == new["outlier"].to_pylist()


def test_one_look_has_no_disagreement_and_many_have(plain, sampled):
    assert plain[2]["mutual_information"].null_count == len(plain[2])
    assert plain[3]["mutual_information"].null_count == 0  # two networks
    information = sampled[2]["mutual_information"].to_numpy()
    assert (information > 0).all()
    assert (information < sampled[2]["entropy"].to_numpy()).all()
    asked = {"views": 8, "draws": 2, "seed": 3, "precision": "trained"}
    assert sampled[1]["members"] == {"networks": 2, **asked}
    assert sampled[1]["calibration"]["method"] == "temperature"
    assert sampled[1]["model_id"] != plain[1]["model_id"]


def test_strange_objects_are_told(survey, plain):
    folder, _ = survey
    out, found, table, _ = plain
    scores = table["outlier_score"].to_numpy()
    assert np.mean(scores <= found["outliers"]["threshold"] + 1e-4) == pytest.approx(0.95, abs=0.01)
    share = {}
    for name, kind in {"familiar": None, "rings": "ring", "noise": "noise"}.items():
        write(folder, name, stamps(100, 2, kind)[0])
        share[name] = np.mean(inferred(folder, out, name)["t_outlier"].to_numpy())
    assert share["familiar"] < 0.15
    assert share["rings"] > 0.95
    assert share["noise"] > 0.95


def test_without_a_hold_out(survey):
    folder, _ = survey
    split = pq.read_table(folder / "split.parquet")
    kept = split.filter(pa.array(split["fold"].to_numpy() >= 0))
    pq.write_table(kept, folder / "no_holdout.parquet")
    _, found, table, new = evaluated(survey, "without", "no_holdout.parquet")
    assert found["holdout"] is None
    assert len(new) == 0
    assert new.schema == table.schema


def test_networks_that_say_nothing_of_an_object_are_refused(survey, tmp_path):
    folder, images = survey
    for path in folder.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    network = networks.load(folder / MODELS[1])
    kernel, bias = network.get_layer("logits").get_weights()
    network.get_layer("logits").set_weights([kernel, bias + np.inf])
    networks.save(network, tmp_path / MODELS[1])
    sidecar = read_json(tmp_path / SIDECARS[1])
    write_json(tmp_path / SIDECARS[1], sidecar | {"model_id": networks.digest(network)})
    with pytest.raises(
        FloatingPointError, match=r"objects \(s\d+, s\d+, .*, \.\.\.\): look at the"
    ):
        evaluated((tmp_path, images), "refused")


def changed_models(folder):
    """A network of other weights, one cut short, and one with a flipped bit of a weight."""
    raw = (folder / MODELS[1]).read_bytes()
    other = (folder / MODELS[0]).read_bytes()
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 16
    return {"other": other, "short": raw[: len(raw) // 2], "flipped": bytes(flipped)}


@pytest.mark.parametrize("change", ["other", "short", "flipped"])
def test_a_network_that_is_not_the_trained_one_is_set_aside(survey, tmp_path, change):
    folder, images = survey
    for path in folder.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / MODELS[1]).write_bytes(changed_models(folder)[change])
    with pytest.raises(DamagedFile, match=f"{MODELS[1]} is damaged.*Run the same command again"):
        evaluated((tmp_path, images), "swapped")
    assert not (tmp_path / MODELS[1]).exists()


@pytest.mark.parametrize("length", [0, 30, -40])
def test_an_outlier_model_that_is_damaged_is_set_aside(tmp_path, length):
    path = tmp_path / "outliers.npz"
    features = np.random.default_rng(0).normal(size=(40, 5))
    fitted = outliers.fit(features, np.arange(40) % 2)
    outliers.OutlierModel((fitted,), 1.5).save(path)
    assert outliers.OutlierModel.load(path).threshold == 1.5
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedFile, match="it is no outlier model"):
        outliers.OutlierModel.load(path)


def test_members_are_combined_some_objects_at_a_time():
    logits = np.random.default_rng(1).normal(size=(3, 11, 2))
    by_fold = {k: Calibrator("temperature", {"temperature": 1 + k}) for k in (0, 1)}
    fold = np.arange(11) % 2
    members = np.where((fold == 0)[:, None], probabilities(logits), probabilities(logits, 2))
    whole, parts = (evaluate.summarised(by_fold, logits, fold, most) for most in (1000, 24))
    np.testing.assert_allclose(whole.probability, members.mean(axis=0), rtol=1e-12)
    for name, values in vars(whole).items():
        np.testing.assert_allclose(getattr(parts, name), values, rtol=1e-12, atol=1e-15)


def test_twice_the_same_bytes(survey, plain):
    again = evaluated(survey, "again")
    for name in ("t.json", "out.parquet", "new.parquet", "outliers.npz"):
        assert (again[0] / name).read_bytes() == (plain[0] / name).read_bytes()


def test_other_networks_or_outliers_than_evaluated_are_refused(survey, plain, sampled):
    folder, _ = survey
    (folder / "mixed").mkdir()
    for name, out in (("t.json", plain[0]), ("outliers.npz", sampled[0])):
        (folder / "mixed" / name).write_bytes((out / name).read_bytes())
    assert inferred(folder, folder / "mixed", "s") is not None  # the same outlier model
    changed = read_json(folder / "mixed" / "t.json")
    changed["outliers"]["digest"] = "other"
    (folder / "mixed" / "t.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="outlier model is not of the same evaluation"):
        inferred(folder, folder / "mixed", "s")
    changed["models"] = ["a", "b"]
    (folder / "mixed" / "t.json").write_text(json.dumps(changed))
    with pytest.raises(ValueError, match="networks are not those that were evaluated"):
        inferred(folder, folder / "mixed", "s")
