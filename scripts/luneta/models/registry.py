"""The register of backbones: which there are, how one is made, of which blocks it is."""

from __future__ import annotations

import difflib
import re

import keras

from luneta.models.entries import APPLICATIONS, ARCHITECTURES, TIMM, Backbone

BACKBONES = {x.name: x for x in (*APPLICATIONS, *ARCHITECTURES, *TIMM)}

# How the name of a layer begins tells its block. Layers whose name does not, such as those that
# Keras only counts, go with the next that does: they are stems, or branches that end in it.
_BLOCK = re.compile(
    r"""
      block_?\d+                 # built here, VGG, Xception, EfficientNetV2, MobileNetV2
    | expanded_conv              # MobileNetV2
    | conv\d (?=_|$)             # ResNet, DenseNet, MobileNet, SqueezeNet
    | conv_[dp]w_ (?P<unit>\d+)  # MobileNet
    | fire\d                     # SqueezeNet
    | mixed_?\d+ (?=[a-z]|$)     # InceptionV3, InceptionResNetV2
    | convnext_[a-z]+_stage_\d
    """,
    re.VERBOSE,
)


def find(name: str) -> Backbone:
    """Give the backbone of a name.

    Raises
    ------
    ValueError
        If there is none; the message names the nearest.
    """
    if name not in BACKBONES:
        lower = {x.lower(): x for x in BACKBONES}
        near = difflib.get_close_matches(name.lower(), lower, 1)
        hint = f"did you mean {lower[near[0]]}? " if near else ""
        raise ValueError(
            f"there is no backbone {name!r}: {hint}`make models` lists all {len(BACKBONES)}"
        )
    return BACKBONES[name]


def create(
    name: str,
    input_shape: tuple[int, int, int],
    weights: str | None = None,
    width: float = 1.0,
    activation: str | None = None,
    classes: int | None = None,
) -> keras.Model:
    """Create a backbone.

    Parameters
    ----------
    name
        Key of `BACKBONES`.
    input_shape
        (y, x, band), pixels and any number of bands.
    weights
        `imagenet` (downloaded by Keras, three bands only) or none (random).
    width
        Width multiplier, of those that have widths.
    activation
        One of `luneta.models.activations.ACTIVATIONS`; the paper's own if none is given.
    classes
        If given, the network gets its own top and gives so many logits.

    Returns
    -------
    keras.Model
        Named `backbone`; input (object, y, x, band) scaled as `Backbone.scaling` says, output
        (object, y', x', feature), (object, feature) or, with a top, logits (object, class).

    Raises
    ------
    ValueError
        If there is no such backbone, the image is too small for it, or it has no choice of width,
        activation or weights where one is made.
    """
    backbone = find(name)
    _check(backbone, input_shape, weights, width, activation)
    options = {
        "weights": weights if weights else None,
        "width": width if backbone.has_width else None,
        "activation": activation,
    }
    options = {key: value for key, value in options.items() if value is not None}
    network = backbone.create(input_shape, classes=classes, **options)
    network.name = "backbone"  # as an argument, EfficientNetV2 would look it up in its tables
    return network


def _check(
    backbone: Backbone,
    input_shape: tuple[int, int, int],
    weights: str | None,
    width: float,
    activation: str | None,
) -> None:
    """Refuse what a backbone cannot be."""
    name, smallest = backbone.name, backbone.smallest_side
    side, bands = min(input_shape[:2]), input_shape[2]
    if side < smallest:
        raise ValueError(
            f"{name} needs images of at least {smallest} px, these have {side}: set "
            f"training.image_size to {smallest} or more, or cut larger cutouts"
        )
    if width != 1.0 and not backbone.has_width:
        others = ", ".join(x.name for x in BACKBONES.values() if x.has_width)
        raise ValueError(
            f"training.width = {width:g}, but {name} comes in one width: leave it at 1, or choose "
            f"a backbone that has widths ({others})"
        )
    if activation is not None and not backbone.has_activation:
        others = ", ".join(x.name for x in BACKBONES.values() if x.has_activation)
        raise ValueError(
            f"training.activation = {activation!r}, but {name} has its own: leave it out, or "
            f"choose a backbone built here ({others})"
        )
    if weights and (weights != "imagenet" or "imagenet" not in backbone.weights):
        raise ValueError(
            f"{name} cannot be made with weights {weights!r}: it is made with random weights"
            + (" or imagenet" if "imagenet" in backbone.weights else "")
            + "; those of a file are loaded into it afterwards"
        )
    if weights and bands != 3:
        raise ValueError(
            f"the imagenet weights of {name} have 3 bands, these images {bands}: make it with 3 "
            "and widen its stem (luneta.models.stems)"
        )


def blocks(network: keras.Model) -> list[list[keras.layers.Layer]]:
    """Group the layers of a backbone that have weights, to unfreeze or pace them together.

    Parameters
    ----------
    network
        A backbone, or a network with a layer `backbone`, of any name in `BACKBONES`.

    Returns
    -------
    list of list of keras.layers.Layer
        From the input to the output. A block is what stands between two halvings of the map
        (ResNet, VGG, ConvNeXt, EfficientNetV2 and their like), or one module (InceptionV3,
        MobileNet, MobileNetV2, Xception). Stems without a name of their own are in the first,
        closing layers in the last. Each layer with weights is in one block.
    """
    names = [x.name for x in network.layers]
    backbone = network.get_layer("backbone") if "backbone" in names else network
    groups: dict[str, list[keras.layers.Layer]] = {}
    nameless: list[keras.layers.Layer] = []
    last: list[keras.layers.Layer] = []
    for layer in backbone.layers:
        found = _BLOCK.match(layer.name)
        nameless += [layer] if layer.weights else []
        if found:
            last = groups.setdefault(found["unit"] or found[0], [])
            last += nameless
            nameless = []
    last += nameless
    return [x for x in groups.values() if x]


def table() -> list[dict[str, object]]:
    """Give one row a backbone, from what is written down: no network is built.

    Returns
    -------
    list of dict
        `name`, `parameters` (million, with its own top), `smallest_side` (pixels), `weights`,
        `paper`, `year`.
    """
    return [
        {
            "name": x.name,
            "parameters": x.parameters / 1e6,
            "smallest_side": x.smallest_side,
            "weights": ", ".join(x.weights) or "random",
            "paper": x.paper,
            "year": x.year,
        }
        for x in BACKBONES.values()
    ]


def describe() -> str:
    """Give the table of backbones as text, one aligned line each."""
    heads = ("backbone", "million parameters", "smallest side", "weights", "paper", "year")
    cells = [
        (
            str(x["name"]),
            f"{x['parameters']:.3f}",
            f"{x['smallest_side']} px",
            str(x["weights"]),
            str(x["paper"]),
            str(x["year"]),
        )
        for x in table()
    ]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    lines = [
        "  ".join(
            text.rjust(width) if i in (1, 2) else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (heads, *cells)
    ]
    return "\n".join(lines)
