import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luneta.catalog import candidates, write
from luneta.clustering import job
from luneta.clustering.space import Places
from luneta.config import Candidates, Catalog, Training
from luneta.cutouts.shard import write_shard
from luneta.inference.predictions import schema
from luneta.metrics import classification
from luneta.metrics.counts import confusion
from luneta.metrics.curves import mean_and_standard_error
from luneta.metrics.delong import class_areas
from luneta.metrics.probability import expected_calibration_error

BANDS = ["g", "r", "i"]
TASKS = {
    "morphology": {
        "kind": "multiclass",
        "classes": ["round", "in_between", "cigar", "edge_on", "spiral"],
    },
    "frozen": {
        "kind": "multiclass",
        "classes": ["round", "in_between", "cigar", "edge_on", "spiral"],
    },
    "lens": {"kind": "binary", "classes": ["nolens", "lens"]},
}
PREDICTED = ["morphology", "lens"]
FOLDS, HELD_OUT = 3, 4


def softmax(logits):
    exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponent / exponent.sum(axis=1, keepdims=True)


def galaxy(random, label, size=32):
    y, x = np.mgrid[:size, :size] - size / 2 + 0.5
    ratio = {"round": 0.95, "in_between": 0.6, "cigar": 0.3, "edge_on": 0.15, "spiral": 0.8}[label]
    angle = random.uniform(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    radius = np.hypot(u, v / ratio)
    light = 60 * np.exp(-radius / random.uniform(2, 4))
    if label == "spiral":
        light *= 1 + 0.8 * np.cos(2 * np.arctan2(v, u) - radius)
    image = np.stack([light * 0.6, light, light * 1.3]) + random.normal(size=(3, size, size))
    return image.astype(np.float32)


def make_shard(root, shard, count, random):
    shapes = TASKS["morphology"]["classes"]
    ids = [f"{shard}_{i:03d}" for i in range(count)]
    morphology = random.choice(shapes, count, p=[0.3, 0.25, 0.15, 0.1, 0.2])
    lens = random.choice(["nolens", "lens"], count, p=[0.8, 0.2])
    usable = np.arange(count) % 29 != 0
    flags = np.where(usable, random.choice([0, 0, 0, 1, 3], count), 32).astype(np.int32)
    reason = pa.array([None if u else "the position lies outside every tile" for u in usable])
    images = np.stack([galaxy(random, label) for label in morphology[usable]])
    images[:3, :, :6] = np.nan
    ids_usable = np.array(ids, object)[usable]
    path = root / "cutouts" / f"{shard}.arrow"
    write_shard(path, ids_usable, flags[usable], images, BANDS, "flux")
    magnitude = random.uniform(17, 22, count).astype(np.float32)
    fields = pa.schema(
        [
            ("object_id", pa.string()),
            *((name, pa.float64()) for name in ("ra", "dec")),
            ("tile", pa.string()),
            *((name, pa.float64()) for name in "xy"),
            ("flags", pa.int32()),
            ("reject_reason", pa.string()),
            pa.field("magnitude_r", pa.float32(), metadata={"unit": "mag"}),
        ]
    )
    spot = random.uniform(0, 100, count)
    columns = [ids, spot, spot, [shard] * count, spot, spot, flags, reason, magnitude]
    objects = pa.table([pa.array(c) for c in columns], schema=fields)
    quality = {"object_id": ids, "flags": flags, "reject_reason": reason, "usable": usable}
    quality |= {n: np.zeros(count, np.float32) for n in ("dx", "dy", "masked_fraction")}
    truth = {"object_id": ids, "morphology": morphology, "lens": lens}
    for name, table in (
        (f"objects/{shard}", objects),
        (f"quality/{shard}", pa.table(quality)),
        (f"raw/{shard}_truth", pa.table(truth)),
    ):
        (root / name).parent.mkdir(exist_ok=True, parents=True)
        pq.write_table(table, root / f"{name}.parquet")
    bad = [{"tile": shard, "band": "g", "path": f"raw/{shard}_g.fits", "reason": "file is empty"}]
    bad[0]["flag"] = "unreadable_file"
    bad.append(bad[0] | {"flag": "wcs_offset", "reason": "2.0 arcsec off the source list"})
    (root / f"quality/{shard}_files.json").write_text(json.dumps(bad))
    return pd.DataFrame(truth).assign(usable=usable, shard=shard, magnitude=magnitude)


def logits_of(rows, column, classes, random):
    labels = np.array([classes.index(value) for value in rows[column]])
    strength = (24 - rows["magnitude"].to_numpy())[:, None] * 0.8
    return labels, 1.6 * (
        random.normal(size=(len(rows), len(classes))) + strength * np.eye(len(classes))[labels]
    )


def write_predictions(root, task, rows, random):
    classes = TASKS[task]["classes"]
    column = "lens" if task == "lens" else "morphology"
    for shard, group in rows.groupby("shard"):
        _, logits = logits_of(group, column, classes, random)
        probabilities, mask = softmax(logits).astype(np.float32), ~group["usable"].to_numpy()
        columns = {"object_id": pa.array(group["object_id"])}
        for number, name in enumerate(classes):
            values = probabilities[:, number]
            columns[f"{task}_{name}_probability"] = pa.array(values, mask=mask)
            columns[f"{task}_{name}_std"] = pa.array(values, mask=mask)
        chosen = np.array(classes, object)[probabilities.argmax(1)]
        columns[f"{task}_class"] = pa.array(chosen, pa.string(), mask=mask)
        for name in ("entropy", "mutual_information", "outlier_score"):
            columns[f"{task}_{name}"] = pa.array(probabilities[:, 0], mask=mask)
        columns[f"{task}_outlier"] = pa.array(probabilities[:, 0] > 0.99, mask=mask)
        columns[f"{task}_model_id"] = pa.array(["m"] * len(group), mask=mask)
        columns[f"{task}_run_id"] = pa.array(["r"] * len(group), mask=mask)
        path = root / "predictions" / task / f"{shard}.parquet"
        path.parent.mkdir(exist_ok=True, parents=True)
        pq.write_table(pa.table(columns).cast(schema(task, classes)), path)


def write_clusters(root, task, shards, random):
    parts = []
    for shard in shards:
        quality = pq.read_table(root / f"quality/{shard}.parquet")
        usable = quality["usable"].to_numpy()
        group = random.integers(0, 3, usable.sum())
        plane = random.normal(size=(usable.sum(), 2)) + 9 * np.eye(3)[group][:, :2]
        plane, anomaly = plane.astype("float32"), random.uniform(0.4, 0.7, usable.sum())
        places = Places(plane, plane, group.astype("int32"), anomaly.astype("float32"))
        parts.append(job.table_of(task, shard, quality["object_id"], usable, places))
    path = root / f"clusters/{task}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.concat_tables(parts), path)
    return path


def write_training(root, task, random):
    for fold in range(FOLDS):
        epoch = np.arange(10)
        loss = 1.5 * np.exp(-epoch / 4) + 0.1 * fold + random.uniform(0, 0.05, 10)
        history = {
            "epoch": epoch + 1,
            "phase": ["head"] * 3 + ["fine_tune"] * 7,
            "loss": loss,
            "accuracy": 1 - loss / 2,
            "val_loss": loss + 0.2,
            "val_accuracy": 0.9 - loss / 2,
            "learning_rate": 1e-3,
        }
        path = root / "models" / task / f"fold{fold}_history.csv"
        path.parent.mkdir(exist_ok=True, parents=True)
        pd.DataFrame(history).to_csv(path, index=False)
    layers = [("block1", "stem"), ("block2", "conv_a"), ("block2", "conv_b"), ("head", "logits")]
    gradients = [
        (epoch, "fine_tune" if epoch > 3 else "head", block, layer, random.uniform(0.1, 1))
        for epoch in range(1, 11)
        for block, layer in layers
        if epoch > 3 or block == "head"
    ]
    table = pd.DataFrame(gradients, columns=["epoch", "phase", "block", "layer", "norm"])
    table.to_csv(root / "models" / task / "fold0_gradients.csv", index=False)
    training = Training(weights="none", label_fraction=0.25 if task == "frozen" else 1.0)
    sidecar = {
        "training": training.model_dump(mode="json"),
        "parameters": 2_257_984,
        "cutout_size": 32,
        "precision": "float32",
        "objects": {"training": 150 if task == "frozen" else 600, "validation": 67},
    }
    (root / "models" / task / "fold0.json").write_text(json.dumps(sidecar))


def scored(labels, probabilities, kind, classes):
    """The part of the metrics that concerns all objects together, its intervals made up."""
    scores = classification.scores(labels, probabilities, kind)
    bounded = {name: value for name, value in scores.items() if name != "ece"}
    intervals = {name: [value - 0.01, value + 0.02] for name, value in bounded.items()}
    if kind == "binary":
        intervals["roc_auc_delong"] = [scores["roc_auc"] - 0.005, scores["roc_auc"] + 0.004]
    areas = list(zip(classes, class_areas(labels, probabilities), strict=True))
    return {
        "count": len(labels),
        "scores": scores,
        "intervals": intervals,
        "class_auc": {name: list(area) for name, area in areas[1 if kind == "binary" else 0 :]},
        "confusion": confusion(labels, probabilities).tolist(),
    }


def write_metrics(root, task, rows, random):
    kind, classes = TASKS[task]["kind"], TASKS[task]["classes"]
    column = "lens" if task == "lens" else "morphology"
    rows = rows[rows["usable"]].copy()
    rows["row"] = rows.groupby("shard").cumcount()
    rows = rows.iloc[::2]
    labels, logits = logits_of(rows, column, classes, random)
    fold = random.integers(0, FOLDS, len(rows))
    after, before = softmax(logits / 1.6), softmax(logits)
    columns = {"object_id": rows["object_id"], "label": rows[column], "fold": fold}
    for stem, values in (("logit", logits), ("probability", after), ("uncalibrated", before)):
        columns |= {f"{stem}_{name}": values[:, i] for i, name in enumerate(classes)}
    (root / "metrics").mkdir(exist_ok=True)
    (root / "splits").mkdir(exist_ok=True)
    pd.DataFrame(columns).to_parquet(root / "metrics" / f"{task}_out_of_fold.parquet")
    held = rows.iloc[:HELD_OUT].assign(object_id=[f"held{i}" for i in range(HELD_OUT)], fold=-1)
    split = pd.concat([rows.assign(fold=fold), held])
    split = split[["object_id", "shard", "row", "fold"]].assign(label=split[column])
    counts = {"used": len(split), "conflicting": 7, "absent": 1200, "not_usable": 0}
    counts |= {"ignored": 31, "without_label": 2}
    told = {"counts": json.dumps(counts), "conflicting": json.dumps(["a1", "b2", "c3"])}
    table = pa.Table.from_pandas(split, preserve_index=False).replace_schema_metadata(told)
    pq.write_table(table, root / "splits" / f"{task}.parquet")
    folds = [classification.scores(labels[fold == k], after[fold == k], kind) for k in range(FOLDS)]
    mean, error = mean_and_standard_error(folds)
    content = {
        "calibration": {"method": "temperature", "parameters": {"temperature": 1.6}},
        "classes": classes,
        "kind": kind,
        "folds": folds,
        "mean": mean,
        "standard_error": error,
        "ece_before": expected_calibration_error(labels, before),
        "ece_after": expected_calibration_error(labels, after),
        **scored(labels, after, kind, classes),
        "holdout": scored(labels[:60], after[:60], kind, classes) if kind == "binary" else None,
        "models": ["a"] * FOLDS,
        "model_id": "0123456789abcdef0123456789abcdef",
    }
    (root / "metrics" / f"{task}.json").write_text(json.dumps(content))


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Folder of a survey that has come as far as the catalog, and the report's arguments."""
    root, random = tmp_path_factory.mktemp("results") / "demo", np.random.default_rng(3)
    shards = ["north", "south"]
    rows = pd.concat([make_shard(root, shard, 300, random) for shard in shards])
    for task in TASKS:
        write_metrics(root, task, rows, random)
        write_training(root, task, random)
    for task in PREDICTED:
        write_predictions(root, task, rows, random)
    settings = {
        "survey": "demo",
        "config": {"survey": "demo"},
        "catalog": {**Catalog().model_dump(mode="json"), "code": ""},
        "epoch": None,
        "bands": BANDS,
        "shards": shards,
        "tasks": TASKS,
        "predicted": PREDICTED,
        "clustered": ["morphology"],
        "listed": ["lens"],
        "keep": {"magnitude_r": "MAG_R"},
        "comparison": ["morphology", "frozen"],
        "label_efficiency": ["morphology", "frozen"],
        "figures": str(root / "figures"),
        "report": str(root / "report"),
    }
    outputs = {
        "collection": root / "catalog" / "collection.properties",
        "rejects": root / "catalog" / "rejects.parquet",
        "overlaps": root / "catalog" / "overlaps.parquet",
        "without_position": root / "catalog" / "without_position.parquet",
    }
    clusters = {"morphology": write_clusters(root, "morphology", shards, random)}
    write.run(
        objects=[root / f"objects/{s}.parquet" for s in shards],
        quality=[root / f"quality/{s}.parquet" for s in shards],
        files=[root / f"quality/{s}_files.json" for s in shards],
        predictions={t: [root / f"predictions/{t}/{s}.parquet" for s in shards] for t in PREDICTED},
        clusters=clusters,
        metrics={t: root / f"metrics/{t}.json" for t in PREDICTED},
        outputs=outputs,
        settings=settings,
    )
    listed = root / "catalog" / "lens_candidates.parquet"
    about = {"task_name": "lens", "positive": "lens", "survey": "demo", "keep": settings["keep"]}
    metrics = root / "metrics/lens_out_of_fold.parquet"
    section = Candidates(probability=0.5).model_dump(mode="json")
    candidates.run(outputs["collection"], metrics, listed, {**section, **about})
    return root, {
        "catalog": outputs["collection"],
        "rejects": outputs["rejects"],
        "overlaps": outputs["overlaps"],
        "cutouts": {s: root / f"cutouts/{s}.arrow" for s in shards},
        "metrics": {t: root / f"metrics/{t}.json" for t in TASKS},
        "out_of_fold": {t: root / f"metrics/{t}_out_of_fold.parquet" for t in TASKS},
        "splits": {t: root / f"splits/{t}.parquet" for t in TASKS},
        "histories": {
            t: [root / f"models/{t}/fold{k}_history.csv" for k in range(FOLDS)] for t in TASKS
        },
        "sidecars": {t: root / f"models/{t}/fold0.json" for t in TASKS},
        "gradients": {t: root / f"models/{t}/fold0_gradients.csv" for t in TASKS},
        "clusters": clusters,
        "candidates": {"lens": listed},
        "truth": [root / f"raw/{s}_truth.parquet" for s in shards],
        "settings": settings,
    }
