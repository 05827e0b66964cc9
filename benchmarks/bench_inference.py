"""Inference: the work of the rule `infer` over a bare loop of the same networks, and its memory.

The job's own work is all that `infer` does once its networks are loaded and compiled: reading the
shard, predicting with all folds, calibration, outlier scores, writing the sealed file. Against it
stands a loop of nothing but the compiled networks, as they were trained, over one resident batch,
in turn; the job folds their batch norms away, and may so be faster than the loop. Memory is the
peak of a whole job, start-up included, on a shard and on one of ten times as many objects.
Runs on every backend of Keras (`KERAS_BACKEND`), and on a GPU where there is one.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pyarrow as pa
from network_cost import wait_for
from timing import finish, interleaved, ratio, show

from luneta.config import Training
from luneta.cutouts.shard import ShardWriter
from luneta.files import read_json, write_json
from luneta.inference import infer
from luneta.inference.predictions import Origin, PredictionsWriter, schema
from luneta.models import devices, precision, predicting
from luneta.models import network as networks
from luneta.parquet import open_parquet, parquet_writer, write_parquet
from luneta.training import outliers
from luneta.training.outliers import OutlierModel

BANDS, CLASSES, FOLDS = ["g", "r", "i"], ["smooth", "disc", "edge_on", "merger"], 5
CHUNK = 512  # objects made at once


def noise(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Make cutouts of noise, (object, band, y, x)."""
    random = np.random.default_rng(seed)
    return random.normal(0, 1, (count, len(BANDS), side, side)).astype("float32")


def write_shard(folder: Path, name: str, count: int, side: int) -> tuple[Path, Path]:
    """Write so many cutouts and their quality table."""
    cutouts, quality = folder / f"{name}.arrow", folder / f"{name}.parquet"
    ids = np.array([f"object{i}" for i in range(count)], object)
    with ShardWriter(cutouts, BANDS, side, "flux") as shard:
        for start in range(0, count, CHUNK):
            part = ids[start : start + CHUNK]
            shard.write(part, np.zeros(len(part), np.int32), noise(len(part), side, start))
    write_parquet(pa.table({"object_id": ids, "usable": np.ones(count, bool)}), quality)
    return cutouts, quality


def write_ensemble(folder: Path, backbone: str, side: int, folds: int) -> dict:
    """Write networks with random weights and all that `infer` reads of them; give the paths."""
    images, familiar, identities = noise(2 * len(CLASSES), side), [], []
    labels = np.arange(len(images)) % len(CLASSES)
    paths = {
        "models": [folder / f"fold{k}.keras" for k in range(folds)],
        "sidecars": [folder / f"fold{k}.json" for k in range(folds)],
        "metrics": folder / "metrics.json",
        "outlier_model": folder / "outliers.npz",
    }
    training = Training(backbone=backbone, weights="none")
    for k, (path, sidecar) in enumerate(zip(paths["models"], paths["sidecars"], strict=True)):
        keras.utils.clear_session()  # each fold is a job of its own
        network = networks.build(training, BANDS, side, "flux", len(CLASSES), k)
        networks.save(network, path)
        identities.append(networks.digest(network))
        about = {"bands": BANDS, "pixels": "flux", "cutout_size": side}
        write_json(sidecar, {**about, "model_id": identities[-1]})
        features = networks.with_features(network)(images, training=False)[0]
        familiar.append(outliers.fit(keras.ops.convert_to_numpy(features), labels))
    model = OutlierModel(tuple(familiar), 10.0)
    model.save(paths["outlier_model"])
    told = {
        "calibration": {"method": "temperature", "parameters": {"temperature": 1.5}},
        "members": {"networks": folds, "views": 1, "draws": 0, "seed": 1, "precision": "trained"},
        "outliers": {"digest": model.digest},
        "classes": CLASSES,
        "models": identities,
        "model_id": "0" * 64,
    }
    write_json(paths["metrics"], told)
    return paths


def bare_loop(ensemble: infer.Ensemble, images: np.ndarray) -> Callable[[], None]:
    """Give a function that asks all networks about one batch that is there, as fast as Keras can.

    It is the faster of `predict_on_batch` and the compiled `model(x)`.
    """
    jit, batch = devices.resolve_jit("auto"), keras.ops.convert_to_tensor(images)

    def called(network: keras.Model) -> Callable:
        if keras.backend.backend() != "tensorflow":
            return predicting.Compiled(network, jit, {})
        return devices.compiled(lambda x: network(x, training=False), jit)

    calls = [called(network) for network in ensemble.networks]

    def compiled() -> None:
        for call in calls:
            said = call(batch)
        wait_for(said)

    def on_batch() -> None:
        for network in ensemble.networks:
            network.predict_on_batch(batch)

    for way in (compiled, on_batch):
        way()
    seconds = interleaved({"compiled": compiled, "on_batch": on_batch}, 2)
    return min((compiled, on_batch), key=lambda way: min(seconds[way.__name__]))


def job(
    ensemble: infer.Ensemble, predictor: predicting.Predictor, cutouts: Path, quality: Path
) -> Callable[[], None]:
    """Give a function that does the own work of the job `infer` on a shard."""
    origin = Origin("morphology", tuple(CLASSES), ensemble.model_id, "0" * 16)
    count, group = len(infer.Shard(cutouts)), infer.BATCHES_PER_ROW_GROUP * predictor.batch_size

    def work() -> None:
        parts = open_parquet(quality).iter_batches(group, columns=["object_id", "usable"])
        columns = schema(origin.task, origin.classes)
        with parquet_writer(quality.with_name("predictions.parquet"), columns) as file:
            writer = PredictionsWriter(file, parts, origin)
            infer.predict_shard(ensemble, predictor, cutouts, count, writer)
            writer.finish(ensemble.no_answers())

    return work


def over_bare(
    backbone: str, side: int, batch: int, batches: int, repeats: int, kind: str = "float32"
) -> float:
    """Give the rate of the job's own work over the bare loop, and print both."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_ensemble(folder, backbone, side, FOLDS)
        cutouts, quality = write_shard(folder, "shard", batch * batches, side)
        start = time.perf_counter()
        model = OutlierModel.load(paths["outlier_model"])
        ensemble = infer.assemble(paths["models"], read_json(paths["metrics"]), model)
        for network in ensemble.networks:
            precision.compute_in(network, kind)
        loaded = time.perf_counter()
        predictor = ensemble.predictor(batch, "auto")
        predictor.predict(noise(batch, side))
        ready = time.perf_counter()
        bare = bare_loop(ensemble, noise(batch, side))
        ways = {
            "infer": job(ensemble, predictor, cutouts, quality),
            "bare loop": lambda: [bare() for _ in range(batches)],
        }
        ways["infer"]()
        seconds = interleaved(ways, repeats)
    objects = batch * batches
    print(
        f"{backbone} {side} px {kind}, {FOLDS} folds, batches of {batch}; bare: {bare.__name__}; "
        f"start-up: networks {loaded - start:.1f} s, compiling {ready - loaded:.1f} s"
    )
    rates = [(way, objects / median(found), FOLDS * objects / median(found))
             for way, found in seconds.items()]  # fmt: skip
    show([("way", "objects/s", "images/s"), *rates])
    print(flush=True)
    return ratio(seconds["bare loop"], seconds["infer"])


def peak() -> int:
    """Give the most memory that this process has held, in bytes."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])


def whole_job(folder: Path, name: str) -> None:
    """Run the whole job once, and print its time, its rate after start-up and its peak memory."""
    paths = read_json(folder / "paths.json")
    count = len(infer.Shard(folder / f"{name}.arrow"))
    settings = {"task_name": "morphology", "batch_size": 128, "jit": "auto"}
    start = time.perf_counter()
    shard = (folder / f"{name}.arrow", folder / f"{name}.parquet")
    infer.run(
        *shard, **paths, predictions=folder / f"{name}_predictions.parquet", settings=settings,
        threads=os.cpu_count(),
    )  # fmt: skip
    told = {"objects": count, "seconds": time.perf_counter() - start, "peak": peak()}
    print(json.dumps(told))


def memory_ratio(objects: int, folds: int = 2) -> float:
    """Give the peak memory of a job on ten times as many objects over that on so many."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_ensemble(folder, "MobileNetV2", 64, folds)
        told = {k: [*map(str, v)] if isinstance(v, list) else str(v) for k, v in paths.items()}
        write_json(folder / "paths.json", told)
        found = []
        for times in (1, 10):
            write_shard(folder, f"x{times}", times * objects, 64)
            command = [sys.executable, __file__, "--job", str(folder), f"x{times}"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    rows = [(one["objects"], one["seconds"], one["peak"] / 2**20) for one in found]
    print(f"whole jobs, MobileNetV2 64 px, {folds} folds, batches of 128")
    show([("objects", "seconds", "peak MiB"), *rows])
    first, second = found
    steady = (second["objects"] - first["objects"]) / (second["seconds"] - first["seconds"])
    print(
        f"{steady:.4g} objects/s and {first['seconds'] - first['objects'] / steady:.1f} s to start"
    )
    return second["peak"] / first["peak"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--objects", type=int, default=2048, help="of the smaller shard")
    parser.add_argument("--skip", nargs="*", default=[], choices=["small", "large", "memory"])
    parser.add_argument("--job", nargs=2, metavar=("FOLDER", "SHARD"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        whole_job(Path(given.job[0]), given.job[1])
        sys.exit()
    logging.basicConfig(level=logging.WARNING)
    devices.configure(os.cpu_count())
    print(f"Keras {keras.__version__} on {keras.backend.backend()}: {devices.description()}\n")
    gpu, results = bool(devices.gpus()), {}
    if "small" not in given.skip:
        size = (1024, 16) if gpu else (256, 4)
        results["mobilenetv2_64_over_bare"] = over_bare("MobileNetV2", 64, *size, given.repeats)
    if "large" not in given.skip:
        size = (512, 16) if gpu else (64, 3)
        results["resnet50_128_over_bare"] = over_bare("ResNet50", 128, *size, given.repeats)
    if gpu and "large" not in given.skip:
        results["resnet50_128_bfloat16_over_bare"] = over_bare(
            "ResNet50", 128, *size, given.repeats, "bfloat16"
        )
    if "memory" not in given.skip:
        results["memory_ratio_10x"] = memory_ratio(given.objects)
    finish(results)
