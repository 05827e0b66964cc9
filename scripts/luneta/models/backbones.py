"""The backbones: which there are, what pixels they expect, how their weights are loaded."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import applications

SMALLEST_SIDE = 32


class WeightsError(ValueError):
    """A weights file that does not fit its backbone; the message names both and the mend."""


@dataclass(frozen=True)
class Backbone:
    """A network of keras.applications.

    Attributes
    ----------
    create
        Its function in keras.applications.
    scaling
        What it expects of its input: `signed` for -1 to 1, `caffe` for 0 to 255 in the order
        blue, green, red with the ImageNet mean subtracted.
    arguments
        Further arguments of `create`.
    has_width
        Whether it comes in widths (`alpha`).
    """

    create: Callable[..., keras.Model]
    scaling: str
    arguments: dict[str, Any]
    has_width: bool = False


# MobileNetV2: Sandler et al. 2018, arXiv:1801.04381. ResNet50: He et al. 2015, arXiv:1512.03385.
# EfficientNetV2: Tan & Le 2021, arXiv:2104.00298.
BACKBONES = {
    "MobileNetV2": Backbone(applications.MobileNetV2, "signed", {}, has_width=True),
    "ResNet50": Backbone(applications.ResNet50, "caffe", {}),
    "EfficientNetV2B0": Backbone(
        applications.EfficientNetV2B0, "signed", {"include_preprocessing": False}
    ),
}


def create(name: str, side: int, width: float = 1.0, weights: str | Path = "none") -> keras.Model:
    """Create a backbone without its top.

    Parameters
    ----------
    name
        Key of `BACKBONES`.
    side
        Side of its input in pixels.
    width
        Width multiplier, MobileNetV2 only.
    weights
        `imagenet` (downloaded by Keras), `none` (random) or the path of a .weights.h5 file.

    Returns
    -------
    keras.Model
        Named `backbone`; input (object, y, x, 3), output (object, y', x', feature), float32.
    """
    if side < SMALLEST_SIDE:
        raise ValueError(
            f"{name} needs images of at least {SMALLEST_SIDE} px, these have {side}: "
            f"set training.image_size to {SMALLEST_SIDE} or more, or cut larger cutouts"
        )
    backbone = BACKBONES[name]
    arguments = dict(backbone.arguments, **({"alpha": width} if backbone.has_width else {}))
    network = backbone.create(
        include_top=False,
        weights="imagenet" if weights == "imagenet" else None,
        input_shape=(side, side, 3),
        **arguments,
    )
    network.name = "backbone"  # as an argument, EfficientNetV2 would look it up in its tables
    if weights not in ("imagenet", "none"):
        load_weights(network, Path(weights), f"{name} of width {width:g}")
    return network


def load_weights(network: keras.Model, path: Path, label: str) -> None:
    """Fill every variable of a network from a .weights.h5 file.

    Raises
    ------
    WeightsError
        If the file is missing, is not a weights file or does not fill the whole network.
    """
    if not path.is_file():
        raise WeightsError(f"training.weights = {str(path)!r}: there is no such file")
    for variable in network.weights:  # what the file does not fill stays NaN and is found below
        variable.assign(np.full(variable.shape, np.nan, dtype="float32"))
    mend = f"give a .weights.h5 file saved from {label} without its top, or change the backbone"
    try:
        with warnings.catch_warnings():
            # Keras warns of its own bookkeeping groups, which hold no weights
            warnings.filterwarnings("ignore", message="Skipping nested container")
            network.load_weights(path)
    except (ValueError, OSError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise WeightsError(f"{path} does not fit {label} ({reason}): {mend}") from None
    empty = [v.path for v in network.weights if np.isnan(keras.ops.convert_to_numpy(v)).any()]
    if empty:
        raise WeightsError(
            f"{path} does not fill {len(empty)} of {len(network.weights)} weights of {label}, "
            f"such as {empty[0]}: {mend}"
        )
