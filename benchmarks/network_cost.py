"""Arithmetic of a network, and the fastest arithmetic of the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import prod
from statistics import median

import keras
import numpy as np
from keras import layers, ops

SIDE = 2048


def _leaves(network: keras.Model) -> Iterator[layers.Layer]:
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


def multiply_adds(network: keras.Model) -> int:
    """Count the multiply-adds of the convolutions and dense layers for one image."""
    total = 0
    for layer in _leaves(network):
        places = prod(layer.output.shape[1:-1])
        if isinstance(layer, layers.DepthwiseConv2D | layers.Conv2D):
            total += places * prod(layer.kernel.shape)
        elif isinstance(layer, layers.SeparableConv2D):
            total += places * (
                prod(layer.depthwise_kernel.shape) + prod(layer.pointwise_kernel.shape)
            )
        elif isinstance(layer, layers.Dense):
            total += places * prod(layer.kernel.shape)
    return total


def wait_for(values) -> None:
    """Bring a result to the processor, so that an asynchronous backend has finished it."""
    ops.convert_to_numpy(ops.sum(ops.cast(values, "float32")))


def matrix_peak(dtype: str, repeats: int = 7) -> float:
    """Measure the rate of a matrix product of 2048 x 2048, multiply-adds per second."""
    values = np.random.default_rng(0).normal(0, SIDE**-0.5, (SIDE, SIDE)).astype("float32")
    matrix = ops.cast(ops.convert_to_tensor(values), dtype)
    wait_for(ops.matmul(matrix, matrix))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product = matrix
        for _ in range(4):
            product = ops.matmul(matrix, product)
        wait_for(product)
        seconds.append((time.perf_counter() - start) / 4)
    return SIDE**3 / median(seconds)
