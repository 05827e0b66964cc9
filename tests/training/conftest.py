import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SIZE = 32


@pytest.fixture(scope="session", autouse=True)
def backend():
    from luneta.models import devices

    devices.configure(2)


@pytest.fixture(scope="session")
def galaxies():
    """96 stamps (object, band, y, x): bars along x or spots, in noise, with some bad pixels."""
    random = np.random.default_rng(3)
    labels = np.arange(96) % 2
    images = random.normal(size=(96, 3, SIZE, SIZE)).astype("float32")
    images[labels == 0, :, 14:18, 4:28] += 20
    images[labels == 1, :, 12:20, 12:20] += 40
    images[::7, :, 3, :] = np.nan
    return images, labels


def _task_settings(**training):
    settings = {
        "weights": "none",
        "width": 0.35,
        "folds": 2,
        "head_epochs": 1,
        "fine_tune_epochs": 2,
        "batch_size": 16,
    }
    return {
        "kind": "binary",
        "classes": ["bar", "spot"],
        "training": {**settings, **training},
    }


@pytest.fixture(scope="session")
def task_settings():
    """A function that dumps a small task, given training settings that differ."""
    return _task_settings


@pytest.fixture(scope="session")
def small_training():
    """A function that gives the training section of a LeNet-5, with settings that differ."""
    from luneta.config import Training

    settings = {
        "backbone": "LeNet5",
        "weights": "none",
        "head_epochs": 0,
        "fine_tune_epochs": 2,
        "fine_tune_learning_rate": 1e-3,
        "batch_size": 16,
    }
    return lambda **changes: Training.model_validate({**settings, **changes})


@pytest.fixture(scope="session")
def small_network():
    """A function that builds the network of a training for `galaxies`."""
    from luneta.models import network as networks

    return lambda training, seed=1: networks.build(training, ["g", "r", "i"], SIZE, "flux", 2, seed)


@pytest.fixture(scope="session")
def small_batches(galaxies):
    """A function that serves `galaxies`: with a seed to learn from, without to validate."""
    from luneta.training.data import Batches

    images, labels = galaxies

    def serve(seed=None, size=16, **options):
        return Batches(images, labels, np.ones(2, "float32"), size, seed, **options)

    return serve


def write_shard(path, ids, images, pixels="flux", step=20):
    tensor = pa.fixed_shape_tensor(pa.float32(), images.shape[1:])
    schema = pa.schema(
        [("object_id", pa.string()), ("flags", pa.int32()), ("image", tensor)],
        metadata={"bands": json.dumps(["g", "r", "i"][: images.shape[1]]), "pixels": pixels},
    )
    with pa.ipc.new_file(str(path), schema) as writer:
        for start in range(0, len(ids), step):
            part = np.ascontiguousarray(images[start : start + step])
            image = pa.FixedShapeTensorArray.from_numpy_ndarray(part)
            names = pa.array(ids[start : start + step], pa.string())
            flags = pa.array(np.zeros(len(part), "int32"))
            writer.write_batch(pa.record_batch([names, flags, image], schema=schema))


@pytest.fixture(scope="session")
def survey(tmp_path_factory, galaxies):
    """Two shards, of which every fifth object is not usable, and their label table."""
    folder = tmp_path_factory.mktemp("survey")
    images, labels = galaxies
    names = np.array([f"galaxy{i}" for i in range(96)])
    usable = np.arange(96) % 5 != 0
    for shard, part in {"a": slice(0, 48), "b": slice(48, 96)}.items():
        ok = usable[part]
        write_shard(folder / f"{shard}.arrow", names[part][ok].tolist(), images[part][ok])
        table = pa.table({"object_id": names[part].tolist(), "usable": ok})
        pq.write_table(table, folder / f"{shard}.parquet")
    classes = np.array(["bar", "spot"])[labels]
    rows = "".join(f"{n},{c}\n" for n, c in zip(names, classes, strict=True))
    (folder / "labels.csv").write_text("object_id,label\n" + rows)
    return folder
