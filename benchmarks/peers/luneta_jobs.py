"""luneta's jobs over the same JPEGs: `ingest` and `cutouts` in one process, `infer` in another.

    luneta_jobs.py prepare FOLDER --side 128 --shards 1    a survey with an untrained ResNet50
    luneta_jobs.py cut FOLDER                              its first shard
    luneta_jobs.py infer FOLDER                            by one network

`prepare` is what training would have left, and is not timed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from pathlib import Path

import yaml

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CLASSES = ["smooth", "featured"]
SHARD = "stamps_00000"


def config(count: int, side: int, shards: int) -> dict:
    """Write out a survey of JPEGs, with one task."""
    return {
        "survey": "peers",
        "input": {
            "kind": "stamps",
            "table": "stamps.csv",
            "image": "images/{object_id}.jpg",
            "bands": ["red", "green", "blue"],
            "pixels": "display",
            "stamps_per_shard": math.ceil(count / shards),
        },
        "cutouts": {"size": side},
        "training": {"backbone": "ResNet50", "weights": "none", "folds": 2},
        "tasks": {
            "shape": {"kind": "binary", "classes": CLASSES, "labels": "labels.csv"},
        },
    }


def prepare(side: int, shards: int) -> None:
    """Lay out the survey, and what training leaves of two equal, untrained networks."""
    import numpy as np

    from luneta.config import validate
    from luneta.models import network as networks
    from luneta.training import outliers
    from luneta.training.outliers import OutlierModel

    names = sorted(path.stem for path in Path("images").glob("*.jpg"))
    settings = config(len(names), side, shards)
    Path("config.yaml").write_text(yaml.safe_dump(settings))
    Path("stamps.csv").write_text("\n".join(["object_id", *names]) + "\n")
    rows = [f"{name},{CLASSES[n % 2]}" for n, name in enumerate(names)]
    Path("labels.csv").write_text("\n".join(["object_id,label", *rows]) + "\n")
    training = validate(settings).tasks["shape"].training
    network = networks.build(training, settings["input"]["bands"], side, "display", 2, 1)
    models, metrics = Path("results/peers/models/shape"), Path("results/peers/metrics")
    models.mkdir(parents=True, exist_ok=True)
    metrics.mkdir(parents=True, exist_ok=True)
    networks.save(network, models / "fold0.keras")
    shutil.copy(models / "fold0.keras", models / "fold1.keras")
    identity = networks.digest(network)
    sidecar = {"bands": settings["input"]["bands"], "pixels": "display", "cutout_size": side}
    for fold in (0, 1):
        (models / f"fold{fold}.json").write_text(json.dumps({**sidecar, "model_id": identity}))
    random = np.random.default_rng(1).uniform(0, 255, (32, 3, side, side)).astype("float32")
    features = networks.with_features(network).predict(random, verbose=0)[0]
    familiar = outliers.fit(features, np.arange(32) % 2)
    for count, name in ((1, "one"), (2, "shape")):
        model = OutlierModel((familiar,) * count, float(familiar.distances(features).max()))
        model.save(metrics / f"{name}_outliers.npz")
        found = {
            "calibration": {"method": "none", "parameters": {}},
            "members": {"networks": count, "views": 1, "draws": 0, "seed": 1},
            "outliers": {"digest": model.digest},
            "classes": CLASSES,
            "models": [identity] * count,
            "model_id": identity,
        }
        (metrics / f"{name}.json").write_text(json.dumps(found))


def cut() -> None:
    """Do the work of the rules `ingest` and `cutouts`."""
    from luneta.cutouts.job import run as cutouts
    from luneta.plan import make_plan
    from luneta.survey.ingest import run as ingest

    plan = make_plan(yaml.safe_load(Path("config.yaml").read_text()))
    began = time.time()
    objects = plan.results / f"objects/{SHARD}.parquet"
    ingest(plan.sources(SHARD), objects, plan.ingest(SHARD))
    outputs = {
        "cutouts": plan.results / f"cutouts/{SHARD}.arrow",
        "quality": plan.results / f"quality/{SHARD}.parquet",
        "files": plan.results / f"quality/{SHARD}_files.json",
    }
    cutouts(objects, plan.stamps(SHARD)[0], outputs, plan.cutouts(SHARD), os.cpu_count())
    note("cut", began)


def infer() -> None:
    """Do the work of the rule `infer`, with one network."""
    from luneta.inference.infer import run
    from luneta.plan import make_plan

    plan = make_plan(yaml.safe_load(Path("config.yaml").read_text()))
    began, results = time.time(), plan.results
    run(
        results / f"cutouts/{SHARD}.arrow",
        results / f"quality/{SHARD}.parquet",
        [results / "models/shape/fold0.keras"],
        [results / "models/shape/fold0.json"],
        results / "metrics/one.json",
        results / "metrics/one_outliers.npz",
        results / f"predictions/shape/{SHARD}.parquet",
        plan.infer("shape"),
        os.cpu_count(),
        "cpu",
    )
    note("infer", began)


def note(job: str, began: float) -> None:
    """Write down when the work began and ended."""
    Path(f"{job}_times.json").write_text(json.dumps({"began": began, "ended": time.time()}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=["prepare", "cut", "infer"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--shards", type=int, default=1)
    given = parser.parse_args()
    os.chdir(given.folder)
    if given.job == "prepare":
        prepare(given.side, given.shards)
    else:
        {"cut": cut, "infer": infer}[given.job]()
