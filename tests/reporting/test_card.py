import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread

from luneta.config import Training
from luneta.metrics import classification
from luneta.reporting import card
from luneta.reporting.predictions import read_out_of_fold

CLASSES = ["nolens", "lens"]


def scored(labels, probabilities):
    scores = classification.scores(labels, probabilities, "binary")
    found = {"count": len(labels), "scores": scores}
    found["intervals"] = {name: [value - 0.01, value + 0.02] for name, value in scores.items()}
    return found | {"confusion": classification.confusion(labels, probabilities).tolist()}


@pytest.fixture
def job(results, tmp_path):
    """Arguments of `card.run` for a binary task with a hold-out."""
    root, arguments = results
    out = pq.read_table(arguments["out_of_fold"]["lens"])
    found = read_out_of_fold(arguments["out_of_fold"]["lens"], CLASSES, "binary")
    metrics = {
        **json.loads(arguments["metrics"]["lens"].read_text()),
        **scored(found.labels, found.probabilities),
        "holdout": scored(found.labels[:50], found.probabilities[:50]),
        "calibration": {"method": "temperature", "parameters": {"temperature": 1.25},
                        "log_losses": {"none": 0.4, "temperature": 0.31}},
        "members": {"networks": 3, "views": 8, "draws": 0, "seed": 1},
        "outliers": {"share": 0.99, "threshold": 12.3, "digest": "d"},
    }  # fmt: skip
    training = Training(backbone="MobileNetV2", weights="none", batch_size=7)
    sidecar = {
        "training": training.model_dump(mode="json"), "bands": ["g", "r", "i"], "cutout_size": 32,
        "pixels": "flux", "parameters": 1234567, "data_digest": "cafe", "model_id": "a",
        "versions": {"keras": "3.15.1", "luneta": "0.1.0"},
    }  # fmt: skip
    for name, content in (("metrics", metrics), ("sidecar", sidecar)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    assert len(out) == len(found.labels)
    return {
        "metrics": tmp_path / "metrics.json",
        "out_of_fold": arguments["out_of_fold"]["lens"],
        "split": arguments["splits"]["lens"],
        "sidecar": tmp_path / "sidecar.json",
        "cutouts": arguments["cutouts"],
        "card": tmp_path / "model_card.md",
        "picture": tmp_path / "failures.png",
        "settings": {"task_name": "lens", "survey": "demo", "pixel_scale": 0.262,
                     "units": "in units of each band's sky noise",
                     "split": {"holdout": 0.2, "group_column": "cluster"}},
    }, metrics  # fmt: skip


def test_card_tells_what_a_reader_needs(job):
    arguments, metrics = job
    card.run(**arguments)
    text = arguments["card"].read_text()
    assert text.startswith("---\nlibrary_name: keras\n")
    assert "# lens: MobileNetV2 for nolens, lens\n" in text
    assert "3 networks, one per fold, each of 1,234,567 parameters" in text
    assert "- `batch_size: 7`\n" in text and "`backbone:" not in text
    auc = metrics["scores"]["roc_auc"]
    assert f"{auc:.3f} ({auc - 0.01:.3f} to {auc + 0.02:.3f})" in text
    assert "Calibration: temperature 1.250;" in text
    assert "| temperature | 0.3100 |\n" in text
    assert "mean of 24 members: 3 networks, 8 view(s), no Monte Carlo" in text
    assert 'keras.models.load_model("fold0.keras", compile=False)' in text
    assert "softmax(logits / 1.25, axis=-1)" in text
    assert f"Ensemble: `{metrics['model_id']}`" in text
    assert "32 x 32 px of 0.262 arcsec in g, r, i, pixels in units of each band's sky noise" in text
    assert "- `group_column: cluster`" in text
    assert "{{" not in text and "{%" not in text and "\\\n" not in text
    assert imread(arguments["picture"]).std() > 0.01


def test_tables_of_the_card_are_whole(job):
    arguments, metrics = job
    card.run(**arguments)
    tables = arguments["card"].read_text().split("\n\n")
    tables = [block.splitlines() for block in tables if block.lstrip().startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table}) == 1, table
        assert set(table[1]) <= set("|-")
    assert len(tables[2]) == 2 + len(metrics["scores"])
    assert tables[1][2].startswith("| nolens |")


def test_a_task_without_hold_out_or_mistakes(job, tmp_path):
    arguments, metrics = job
    table = pq.read_table(arguments["out_of_fold"])
    right = pa.array((np.array(table["label"].to_pylist()) == "lens").astype(float))
    for name, values in (("probability_lens", right),
                         ("probability_nolens", pa.array(1 - right.to_numpy()))):  # fmt: skip
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table, tmp_path / "perfect.parquet")
    metrics |= {"holdout": None, "confusion": [[200, 0], [0, 80]]}
    metrics["calibration"] = {"method": "none", "parameters": {}, "log_losses": {"none": 0.1}}
    arguments["metrics"].write_text(json.dumps(metrics))
    card.run(**arguments | {"out_of_fold": tmp_path / "perfect.parquet"})
    text = arguments["card"].read_text()
    assert "None of the labelled objects was misclassified" in text
    assert "a hold-out that no network saw" not in text
    assert "`scipy.special.softmax(logits, axis=-1)`" in text


def test_confusions_are_ordered_by_share():
    matrix = np.array([[90, 10, 0], [5, 5, 0], [0, 1, 99]])
    found = card.confusions(matrix, ["a", "b", "c"])
    assert [(f["true"], f["predicted"], f["count"], f["total"]) for f in found] == [
        ("b", "a", 5, 10),
        ("a", "b", 10, 100),
        ("c", "b", 1, 100),
    ]


def test_differences_name_nested_settings():
    training = Training(dropout=0.5, augmentation={"zoom": 0.1}, backbone="VGG16")
    assert card.differences(training) == {
        "dropout": 0.5,
        "augmentation.zoom": 0.1,
    }


def test_a_course_recipe_tells_what_was_used(job):
    arguments, _ = job
    sidecar = json.loads(arguments["sidecar"].read_text())
    sidecar["training"] |= {"course_recipe": True, "weights": "imagenet"}
    arguments["sidecar"].write_text(json.dumps(sidecar))
    card.run(**arguments)
    text = arguments["card"].read_text()
    assert "weights at the start: `none`" in text
    assert "- `optimizer: sgd`" in text and "- `fine_tune_learning_rate: 0.01`" in text


def test_parameters_of_a_vector_calibration_are_told(job):
    arguments, metrics = job
    parameters = {"scale": [1.5, 0.5], "bias": [0.0, -0.25]}
    metrics["calibration"] = {"method": "vector", "parameters": parameters,
                              "log_losses": {"vector": 0.2}}  # fmt: skip
    arguments["metrics"].write_text(json.dumps(metrics))
    card.run(**arguments)
    text = arguments["card"].read_text()
    assert "softmax(scale * logits + bias)" in text
    block = text.split("```json\n")[1].split("\n```")[0]
    assert json.loads(block) == parameters
