"""The whole network, raw cutout in and logits out: building and freezing."""

from __future__ import annotations

from pathlib import Path

import keras
from keras import layers

from luneta.config.training import Training
from luneta.models import preprocessing, registry, stems
from luneta.models import weights as weight_files
from luneta.models.activations import activate
from luneta.models.preprocessing import Statistics
from luneta.models.saving import digest, load, load_known, save

__all__ = [
    "batch_norms",
    "blocks",
    "build",
    "digest",
    "freeze",
    "head",
    "leaves",
    "load",
    "load_known",
    "lower_momentum",
    "rgb_indices",
    "save",
    "with_features",
]

# Moving statistics of a network trained from nothing must follow within few hundred steps; the
# 0.999 of MobileNetV2 leaves them near their start, and inference is garbage.
MOMENTUM = 0.9


def rgb_indices(training: Training, bands: list[str]) -> list[int] | None:
    """Give the indices of the bands that stand for red, green and blue, if they are named.

    Raises
    ------
    ValueError
        If one of them is no band, or is named twice.
    """
    if training.rgb is None:
        return None
    unknown = [band for band in training.rgb if band not in bands]
    if unknown or len(set(training.rgb)) < 3:
        raise ValueError(
            f"training.rgb = {training.rgb} must name three different bands of {bands}: "
            "name them, or leave it out"
        )
    return [bands.index(band) for band in training.rgb]


def build(
    training: Training,
    bands: list[str],
    cutout_size: int,
    pixels: str,
    classes: int,
    seed: int,
    weights: str | Path | None = None,
    statistics: Statistics | None = None,
) -> keras.Model:
    """Build a classifier of raw cutouts.

    Parameters
    ----------
    training
        Backbone, weights, stem, image size, preprocessing and head.
    bands, cutout_size
        Of a cutout (band, y, x), names in order and y = x = `cutout_size` pixels.
    pixels
        `flux` (in units of sky noise) or `display` (0 to 255).
    classes
        Number of classes; a binary task has two.
    seed
        Seed of the random weights and of dropout.
    weights
        See `luneta.models.weights.create`; `training.weights` if not given.
    statistics
        Of the training images (`preprocessing.measure`), where the preprocessing needs them.

    Returns
    -------
    keras.Model
        Input (object, band, y, x) as in the cutout shard, NaN allowed, output logits
        (object, class), float32 whatever the precision. Its layers `preprocessing` (a network),
        `backbone` (a network), `features` (object, feature), float32, and `logits` are named so.

    Raises
    ------
    WeightsError
        If the weights do not fit.
    ValueError
        If the images are too small for the backbone, or the settings do not fit it.
    """
    keras.utils.set_random_seed(seed)
    source = training.weights if weights is None else weights
    side, rgb = training.image_size or cutout_size, rgb_indices(training, bands)
    wanted = weight_files.Wanted(
        training.backbone, side, len(bands), training.width, training.activation, rgb, training.stem
    )
    backbone = weight_files.create(wanted, source)
    if str(source) == "none":
        lower_momentum(backbone)
    before = preprocessing.build(
        training.preprocessing,
        len(bands),
        cutout_size,
        side,
        pixels,
        weight_files.scaling_of(source, training.backbone),
        stems.channels(len(bands), rgb, training.stem),
        statistics,
    )
    inputs = keras.Input((len(bands), cutout_size, cutout_size), name="cutouts")
    features = _features(backbone(before(inputs)))
    return keras.Model(inputs, _logits(features, training, classes, seed), name="luneta")


def _features(x: keras.KerasTensor) -> keras.KerasTensor:
    """Average a map (object, y, x, feature) over the image; vectors stay as they are."""
    if len(x.shape) == 4:
        return layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
    return layers.Identity(dtype="float32", name="features")(x)


def _logits(x: keras.KerasTensor, training: Training, classes: int, seed: int) -> keras.KerasTensor:
    """Add the head: hidden layers, each after dropout, and the logits."""
    for i, units in enumerate(training.head_units, 1):
        x = layers.Dropout(training.dropout, seed=seed + i, name=f"dropout_{i}")(x)
        x = layers.Dense(units, name=f"hidden_{i}")(x)
        x = activate(x, training.activation or "relu", f"hidden_{i}_activation")
    x = layers.Dropout(training.dropout, seed=seed, name="dropout")(x)
    return layers.Dense(classes, dtype="float32", name="logits")(x)


def _backbone(network: keras.Model) -> keras.Model:
    return network if network.name == "backbone" else network.get_layer("backbone")


def blocks(network: keras.Model) -> list[list[keras.Layer]]:
    """Give the layers of a network's backbone (or of a backbone) by block, input to output."""
    return registry.blocks(_backbone(network))


def leaves(model: keras.Model) -> list[keras.Layer]:
    """Give the layers of a model, those of models within it too."""
    return [
        leaf
        for layer in model.layers
        for leaf in (leaves(layer) if isinstance(layer, keras.Model) else [layer])
    ]


def batch_norms(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Give the batch norm layers of a network's backbone (or of a backbone)."""
    return [x for x in leaves(_backbone(network)) if isinstance(x, layers.BatchNormalization)]


def lower_momentum(network: keras.Model) -> None:
    """Let moving statistics follow within a few steps, for training from random weights."""
    for layer in batch_norms(network):
        layer.momentum = MOMENTUM


def freeze(
    network: keras.Model, *, backbone: bool, batch_norm: bool, unfreeze: str | int = "all"
) -> None:
    """Choose what of a network is trained; the head always is.

    Parameters
    ----------
    network
        As `build` makes it.
    backbone
        Freeze the whole backbone.
    batch_norm
        Freeze the batch norm layers, weights and moving statistics.
    unfreeze
        If the backbone is not frozen: `all` of it, or how many of its last blocks are free.

    Notes
    -----
    Batch norm is frozen layer by layer: a `training=False` written into the graph is overridden
    by the `training=True` of `fit`, and the moving statistics would follow the small new sample.
    The batch norm of a frozen block is frozen too, as frozen layers use their moving statistics.
    """
    inner = _backbone(network)
    inner.trainable = not backbone
    # Layer by layer too: Keras skips an assignment that changes nothing for the model as a whole
    for layer in leaves(inner):
        layer.trainable = not backbone
    if backbone:
        return
    parts = blocks(network)
    free = len(parts) if unfreeze == "all" else min(int(unfreeze), len(parts))
    for block in parts[: len(parts) - free]:
        for layer in block:
            layer.trainable = False
    if batch_norm:
        for layer in batch_norms(network):
            layer.trainable = False


def with_features(network: keras.Model) -> keras.Model:
    """Give the same network with two outputs: features (object, feature) and logits."""
    return keras.Model(network.input, [network.get_layer("features").output, network.output])


def head(network: keras.Model) -> keras.Model:
    """Give the head alone: features (object, feature) to logits (object, class).

    It shares the network's layers; dropout acts when it is called with `training=True`.
    """
    return keras.Model(network.get_layer("features").output, network.output, name="head")
