"""The whole network, raw cutout in and logits out: building, freezing, saving, predicting."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from luneta.config import Training
from luneta.files import atomic_path
from luneta.models import backbones
from luneta.models.preprocessing import (
    ChannelsLast,
    InputScaling,
    Resize,
    Stretch,
    mixing_kernel,
)

# Moving statistics of a network trained from nothing must follow within few hundred steps; the
# 0.999 of MobileNetV2 leaves them near their start, and inference is garbage.
MOMENTUM = 0.9


def build(
    training: Training,
    bands: int,
    cutout_size: int,
    pixels: str,
    classes: int,
    seed: int,
    weights: str | Path | None = None,
) -> keras.Model:
    """Build a classifier of raw cutouts.

    Parameters
    ----------
    training
        Backbone, width, image size, stretch and dropout.
    bands, cutout_size
        Shape of a cutout: (band, y, x) with y = x = `cutout_size` pixels.
    pixels
        `flux` (in units of sky noise) or `display` (0 to 255).
    classes
        Number of classes; a binary task has two.
    seed
        Seed of the random weights and of dropout.
    weights
        `imagenet`, `none` or a path; `training.weights` if not given.

    Returns
    -------
    keras.Model
        Input (object, band, y, x) as in the cutout shard, NaN allowed, output logits
        (object, class), float32. Its layers `backbone` and `logits` are named so.
    """
    keras.utils.set_random_seed(seed)
    weights = training.weights if weights is None else weights
    side = training.image_size or cutout_size
    kind = "display" if pixels == "display" else training.stretch
    inputs = keras.Input((bands, cutout_size, cutout_size), name="cutouts")
    x = Stretch(kind, training.stretch_softening, training.stretch_maximum, name="stretch")(inputs)
    x = ChannelsLast(name="channels_last")(x)
    if side != cutout_size:
        x = Resize(side, name="resize")(x)
    if bands != 3:
        mixer = keras.layers.Conv2D(3, 1, use_bias=False, name="band_mixer")
        x = mixer(x)
        mixer.set_weights([mixing_kernel(bands)])
    x = InputScaling(backbones.BACKBONES[training.backbone].scaling, name="input_scaling")(x)
    backbone = backbones.create(training.backbone, side, training.width, weights)
    if str(weights) == "none":
        lower_momentum(backbone)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(backbone(x))
    x = keras.layers.Dropout(training.dropout, seed=seed, name="dropout")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x), name="luneta")


def batch_norms(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Give the batch norm layers of a network's backbone (or of a backbone)."""
    backbone = network if network.name == "backbone" else network.get_layer("backbone")
    return [x for x in backbone.layers if isinstance(x, keras.layers.BatchNormalization)]


def lower_momentum(network: keras.Model) -> None:
    """Let moving statistics follow within a few steps, for training from random weights."""
    for layer in batch_norms(network):
        layer.momentum = MOMENTUM


def freeze(network: keras.Model, *, backbone: bool, batch_norm: bool) -> None:
    """Choose what of a network is trained; the head always is.

    Parameters
    ----------
    network
        As `build` makes it.
    backbone
        Freeze the backbone and the band mixer.
    batch_norm
        Freeze the batch norm layers, weights and moving statistics.

    Notes
    -----
    Batch norm is frozen layer by layer: a `training=False` written into the graph is overridden
    by the `training=True` of `fit`, and the moving statistics would follow the small new sample.
    """
    for layer in network.layers:
        if layer.name in ("backbone", "band_mixer"):
            layer.trainable = not backbone
    for layer in batch_norms(network):
        layer.trainable = not (backbone or batch_norm)


def digest(network: keras.Model) -> str:
    """Give the sha256 over a network's weights: names, shapes and bytes, in order."""
    total = hashlib.sha256()
    for variable in network.weights:
        values = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        total.update(f"{variable.path}{values.shape}{values.dtype}".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def _numbered(config: str) -> str:
    """Number the shared objects of a Keras config, which are named by their address in memory."""
    key = r'"shared_object_id": (\d+)'
    numbers = {name: i for i, name in enumerate(dict.fromkeys(re.findall(key, config)))}
    return re.sub(key, lambda found: f'"shared_object_id": {numbers[found[1]]}', config)


def save(network: keras.Model, path: Path | str) -> None:
    """Save a network as .keras; equal networks give equal bytes."""
    with atomic_path(path) as temporary:
        network.save(temporary)
        with zipfile.ZipFile(temporary) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
        members["config.json"] = _numbered(members["config.json"].decode()).encode()
        # Keras writes the time of day into the archive
        metadata = {**json.loads(members["metadata.json"]), "date_saved": "1980-01-01@00:00:00"}
        members["metadata.json"] = json.dumps(metadata).encode()
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name), content)


def load(path: Path | str) -> keras.Model:
    """Load a network for inference; code hidden in the file is refused by Keras."""
    return keras.models.load_model(path, compile=False, safe_mode=True)


def predict_logits(
    networks: list[keras.Model],
    read: Callable[[int, int], np.ndarray],
    count: int,
    batch_size: int,
) -> np.ndarray:
    """Run networks over the same cutouts, a batch at a time.

    Parameters
    ----------
    networks
        As `build` makes them, all for the same classes.
    read
        Gives cutouts `start` to `stop` as (object, band, y, x) float32.
    count
        Number of cutouts.
    batch_size
        Cutouts per pass. The last batch is padded, so that the graph is compiled once.

    Returns
    -------
    numpy.ndarray
        Logits (network, object, class), float32.
    """
    classes = networks[0].output_shape[-1]
    logits = np.empty((len(networks), count, classes), dtype="float32")
    for start in range(0, count, batch_size):
        stop = min(start + batch_size, count)
        images = read(start, stop)
        short = batch_size - (stop - start)
        if short:
            images = np.pad(images, ((0, short), (0, 0), (0, 0), (0, 0)))
        for i, network in enumerate(networks):
            logits[i, start:stop] = network.predict_on_batch(images)[: stop - start]
    return logits
