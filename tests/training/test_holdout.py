"""A network learns nothing of its own fold nor of the hold-out, be it by weights or by scales."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from luneta.cutouts.shard import write_shard
from luneta.files import read_json
from luneta.training import finetune, folds

NAMES = [f"galaxy{i}" for i in range(96)]


@pytest.fixture(scope="module")
def train(tmp_path_factory, galaxies, task_settings):
    """A function that splits and trains fold 0 with some cutouts changed; it gives the sidecar."""
    folder = tmp_path_factory.mktemp("holdout")
    preprocessing = {"noise_scaling": "training", "normalisation": "image"}
    task = task_settings(
        backbone="LeNet5", width=1.0, holdout=0.3, fine_tune_epochs=1, preprocessing=preprocessing
    )
    settings = {"task": task, "task_name": "shape", "shards": ["a"], "seed": 1}
    images, labels = galaxies
    rows = [f"{n},{('bar', 'spot')[c]}" for n, c in zip(NAMES, labels, strict=True)]
    (folder / "labels.csv").write_text("\n".join(["object_id,label", *rows, ""]))
    pq.write_table(pa.table({"object_id": NAMES, "usable": [True] * 96}), folder / "a.parquet")
    folds.run([folder / "labels.csv"], [folder / "a.parquet"], folder / "split.parquet", settings)
    outputs = {"model": ".keras", "sidecar": ".json", "history": ".csv", "gradients": "_grad.csv"}

    def run(changed):
        pixels = np.where(changed[:, None, None, None], 50 - 3 * images, images)
        write_shard(
            folder / "a.arrow", np.array(NAMES), np.zeros(96, "int32"), pixels, list("gri"), "flux"
        )
        paths = {key: folder / f"fold0{end}" for key, end in outputs.items()}
        finetune.run(
            folder / "split.parquet", [folder / "a.arrow"], **paths, settings=settings, fold=0
        )
        return read_json(folder / "fold0.json")

    return run, np.array(pq.read_table(folder / "split.parquet")["fold"].to_pylist())


def test_pixels_that_a_network_must_not_see_change_nothing(train):
    run, fold = train
    assert [(fold == k).sum() > 15 for k in (-1, 0, 1)] == [True] * 3
    plain, poisoned = run(fold > 5), run(fold <= 0)
    assert poisoned["model_id"] == plain["model_id"]
    assert poisoned["metrics"] == plain["metrics"]
    one_seen = run(np.arange(96) == np.flatnonzero(fold == 1)[0])
    assert one_seen["model_id"] != plain["model_id"]
