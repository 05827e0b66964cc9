"""Fine-tuning and inference: images per second of each backbone, and luneta's step over a bare one.

Runs on every backend of Keras (`KERAS_BACKEND`). The step of `finetune` (augmentation, prefetched
batches, class weights, gradient norms, checks of the loss) stands against a loop of nothing but
the train step that Keras compiles, over one resident batch, in turn.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from network_cost import matrix_peak, multiply_adds, wait_for
from timing import finish, show

from luneta.config import Training
from luneta.files import write_json
from luneta.models import devices, registry
from luneta.models import network as networks
from luneta.training import augmentation
from luneta.training.data import Batches
from luneta.training.finetune import phases
from luneta.training.loop import Journal, train, with_augmentation

BANDS, CLASSES = ["g", "r", "i"], 2
USUAL = ("MobileNetV2", "EfficientNetV2B0", "ResNet18", "ResNet50", "ConvNeXtTiny", "CMUDeepLens",
         "SqueezeNet", "DenseNet121")  # fmt: skip
LONGEST = 1.5  # seconds of one measurement


def cutouts(count: int, side: int) -> np.ndarray:
    """Make cutouts of noise, (object, band, y, x)."""
    random = np.random.default_rng(0)
    return random.normal(0, 1, (count, len(BANDS), side, side)).astype("float32")


def build(backbone: str, side: int, precision: str = "float32") -> keras.Model:
    """Build a whole network, preprocessing and head included, with random weights."""
    training = Training(backbone=backbone, weights="none")
    with devices.arithmetic(precision):
        return networks.build(training, BANDS, side, "flux", CLASSES, 1)


def compiled(network: keras.Model) -> keras.Model:
    """Compile a network as plain Keras would be used."""
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    network.compile(keras.optimizers.AdamW(1e-4), loss, metrics=["accuracy"])
    return network


def bare_loop(network: keras.Model, batch: tuple) -> Callable[[int], None]:
    """Give a function that makes so many train steps on one batch, and nothing else."""
    compiled(network)
    tensors = tuple(keras.ops.convert_to_tensor(values) for values in batch)
    if keras.backend.backend() != "tensorflow":
        return lambda steps: [network.train_on_batch(*tensors) for _ in range(steps)]
    network.optimizer.build(network.trainable_variables)
    network.train_on_batch(*tensors)
    network.make_train_function()

    def loop(steps: int) -> None:
        for _ in range(steps):
            logs = network.train_function(iter([tensors]))
        wait_for(logs["loss"])

    return loop


class Clock(Journal):
    """Time each epoch without its scoring, and the bare loop after it."""

    def __init__(self, network: keras.Model, bare: Callable[[int], None]):
        super().__init__(network, lambda: {"val_loss": 1.0, "val_accuracy": 0.0})
        self.bare, self.ours, self.theirs = bare, [], []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the clock."""
        super().on_epoch_begin(epoch, logs)
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stop it, and give the bare loop its turn."""
        self.ours.append(time.perf_counter() - self.start)
        super().on_epoch_end(epoch, logs)
        start = time.perf_counter()
        self.bare(self.batches.num_batches)
        self.theirs.append(time.perf_counter() - start)


def train_over_bare(backbone: str, side: int, batch: int, steps: int, repeats: int) -> float:
    """Give the rate of luneta's training step over the bare one; the first turn is left out."""
    training = Training(
        backbone=backbone, weights="none", head_epochs=0, fine_tune_epochs=repeats + 1,
        batch_size=batch, patience=repeats + 2,
    )  # fmt: skip
    images, labels = cutouts(batch * steps, side), np.arange(batch * steps) % CLASSES
    batches = Batches(images, labels, np.ones(CLASSES, "float32"), batch, seed=1)
    clock = Clock(build(backbone, side), bare_loop(build(backbone, side), batches[0]))
    model = with_augmentation(clock.network, augmentation.layers(training.augmentation, 1))
    train(clock.network, model, phases(training, False)[0], batches, clock, training, 1)
    turns = list(zip(clock.ours[1:], clock.theirs[1:], strict=True))
    rates = [batch * steps / median(seconds) for seconds in zip(*turns, strict=True)]
    show([("train step", "images/s"), ("luneta", rates[0]), ("bare Keras", rates[1])])
    return median(theirs / ours for ours, theirs in turns)


def rate(way: Callable[[], object], images: int, repeats: int = 3) -> float:
    """Measure images per second: the median over turns of a second and a half."""
    way()
    found = []
    for _ in range(repeats):
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < LONGEST / repeats or not done:
            way()
            done += images
        found.append(done / (time.perf_counter() - start))
    return median(found)


def throughput(backbone: str, side: int, precision: str, batch: int, peak: float) -> dict:
    """Measure one network: images per second, and the share of the machine's matrix product."""
    keras.backend.clear_session()
    network = compiled(build(backbone, side, precision))
    images = keras.ops.convert_to_tensor(cutouts(batch, side))
    labels = np.eye(CLASSES, dtype="float32")[np.arange(batch) % CLASSES]
    inference = rate(lambda: network.predict_on_batch(images), batch)
    training = rate(lambda: network.train_on_batch(images, labels), batch)
    cost = multiply_adds(network)
    return {
        "backbone": backbone,
        "side": side,
        "precision": precision,
        "million multiply-adds": cost / 1e6,
        "inference/s": inference,
        "of peak": inference * cost / peak,
        "training/s": training,
        "of peak ": 3 * training * cost / peak,
    }


def table(backbones: list[str], sides: list[int], precisions: list[str], batch: int) -> list[dict]:
    """Measure all networks that can see images of these sides."""
    rows = []
    for precision in precisions:
        peak = matrix_peak(precision)
        print(f"matrix product, {precision}: {2 * peak / 1e9:.0f} GFLOP/s", flush=True)
        for name in backbones:
            for side in sides:
                if side < registry.BACKBONES[name].smallest_side:
                    continue
                fewer = max(4, batch * 64 // side) if side > 64 else batch
                rows.append(throughput(name, side, precision, fewer, peak))
                print(" ".join(f"{v:.4g}" if isinstance(v, float) else str(v)
                               for v in rows[-1].values()), flush=True)  # fmt: skip
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    names = "names of the registry, `all`, or `none` for the ratio alone"
    parser.add_argument("--backbones", nargs="+", default=USUAL, metavar="NAME", help=names)
    parser.add_argument("--sides", nargs="+", type=int, default=[64, 128, 224])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=Path, help="JSON file for the rows of the table")
    given = parser.parse_args()
    devices.configure(os.cpu_count())
    print(f"Keras {keras.__version__} on {keras.backend.backend()}: {devices.description()}")
    found = train_over_bare("ResNet50", 128, given.batch, given.steps, given.repeats)
    names = {"all": list(registry.BACKBONES), "none": []}.get(given.backbones[0], given.backbones)
    rows = table(list(names), given.sides, given.precisions, given.batch)
    if rows:
        show([tuple(rows[0]), *(tuple(row.values()) for row in rows)])
    if given.rows:
        write_json(given.rows, rows)
    finish({"train_over_bare": found})
