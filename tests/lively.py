"""Random weights that carry a signal through a deep network, for tests of what it computes."""

import keras
import numpy as np


def redraw(network: keras.Model, seed: int = 5) -> keras.Model:
    """Draw the kernels anew, of a size that keeps signals as they are from layer to layer.

    Keras's own let them fade in networks without skips until every output is nearly zero.
    """
    random = np.random.default_rng(seed)
    for variable in network.weights:
        if len(variable.shape) == 4:
            inputs = np.prod(variable.shape[: 3 if variable.shape[3] > 1 else 2])
            variable.assign(random.normal(0, (2 / inputs) ** 0.5, variable.shape))
    return network


def rounding(network: keras.Model, values: np.ndarray) -> float:
    """How far two orders of the same float32 sums may be apart: one rounding a layer."""
    layers = sum(1 for layer in network.get_layer("backbone").layers if layer.count_params())
    return layers * np.finfo(np.float32).eps * float(np.abs(values).max())
