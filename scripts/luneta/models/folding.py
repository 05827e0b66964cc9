"""Folding batch norms into the convolutions before them, for networks that are only asked.

With its statistics at rest, a batch norm multiplies each channel by a factor and adds a constant.
A convolution before it can do both by its kernel and bias, which saves two passes over the map.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from luneta.models.network import leaves

# Convolutions that fold, and their kernels, which are filled without drawing numbers first.
KERNELS = {
    layers.Conv2D: ("kernel",),
    layers.DepthwiseConv2D: ("depthwise",),
    layers.SeparableConv2D: ("depthwise", "pointwise"),
}


def folded(network: keras.Model) -> keras.Model:
    """Give a network that says the same with fewer passes, to rounding.

    Parameters
    ----------
    network
        A functional model; models within it are looked into. Layers that stay as they are are
        shared with it, so that it must not be trained any more.
    """
    pairs = list(_pairs(network))
    instead = {convolution.name: _like(convolution) for convolution, _ in pairs}
    for layer in network.layers:
        if isinstance(layer, keras.Model) and any(map(_is_norm, leaves(layer))):
            instead[layer.name] = folded(layer)
    gone = {norm.name for _, norm in pairs}

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        return inputs[0] if layer.name in gone else layer(*inputs, **options)

    clone = keras.models.clone_model(
        network,
        clone_function=lambda layer: instead.get(layer.name, layer),
        call_function=call,
    )
    for convolution, norm in pairs:
        _take_over(instead[convolution.name], convolution, norm)
    return clone


def _like(convolution: keras.Layer) -> keras.Layer:
    """Make a convolution of the same settings, with a bias."""
    empty = {f"{name}_initializer": "zeros" for name in KERNELS[type(convolution)]}
    return type(convolution).from_config({**convolution.get_config(), "use_bias": True, **empty})


def _is_norm(layer: keras.Layer) -> bool:
    return type(layer) is layers.BatchNormalization


def _pairs(model: keras.Model) -> Iterator[tuple[keras.Layer, keras.Layer]]:
    """Find convolutions whose map nobody but a batch norm takes, and that norm."""
    config = model.get_config()
    taken = {one["name"]: list(_sources(one["inbound_nodes"])) for one in config["layers"]}
    count = Counter(name for names in taken.values() for name in names)
    count.update(name for name, *_ in _outputs(config["output_layers"]))
    named = {layer.name: layer for layer in model.layers}
    for name, norm in named.items():
        before = [named.get(source) for source in taken[name]]
        if len(before) == 1 and count[taken[name][0]] == 1 and _folds(before[0], norm):
            yield before[0], norm


def _sources(nodes: Any) -> Iterator[str]:
    """Give the names of the layers whose outputs a layer takes, by its part of the config."""
    if isinstance(nodes, dict) and nodes.get("class_name") == "__keras_tensor__":
        yield nodes["config"]["keras_history"][0]
    elif isinstance(nodes, dict | list | tuple):
        for value in nodes.values() if isinstance(nodes, dict) else nodes:
            yield from _sources(value)


def _outputs(listed: list) -> list[list]:
    """Give the outputs of a model's config as a list, where it is one output too."""
    return [listed] if listed and isinstance(listed[0], str) else listed


def _folds(convolution: keras.Layer | None, norm: keras.Layer) -> bool:
    """Whether they are a convolution and a batch norm of the channels that it makes."""
    return (
        _is_norm(norm)
        and type(convolution) in KERNELS
        and convolution.activation is keras.activations.linear
        and convolution.data_format == "channels_last"
        and norm.axis in (-1, 3)
    )


def _numbers(variable: Any) -> np.ndarray | float:
    return 0.0 if variable is None else ops.convert_to_numpy(variable).astype("float64")


def _take_over(new: keras.Layer, old: keras.Layer, norm: keras.Layer) -> None:
    """Give a convolution the weights of another one and of the batch norm behind it."""
    factor = 1 / np.sqrt(_numbers(norm.moving_variance) + norm.epsilon)
    if norm.scale:
        factor = factor * _numbers(norm.gamma)
    constant = (_numbers(old.bias) - _numbers(norm.moving_mean)) * factor
    if norm.center:
        constant = constant + _numbers(norm.beta)
    if isinstance(old, layers.SeparableConv2D):
        new.depthwise_kernel.assign(old.depthwise_kernel)
        new.pointwise_kernel.assign(_numbers(old.pointwise_kernel) * factor)
    else:
        kernel = _numbers(old.kernel)
        depthwise = isinstance(old, layers.DepthwiseConv2D)
        new.kernel.assign(kernel * (factor.reshape(kernel.shape[2:]) if depthwise else factor))
    new.bias.assign(constant)
