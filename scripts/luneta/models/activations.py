"""Activations by name: the course's table, and those that users of today expect beside it."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import keras
from keras import layers, ops


def _prelu(x: keras.KerasTensor, label: str) -> keras.KerasTensor:
    """Apply a leaky ramp whose slope, one a feature, is learned; it starts at 0.25."""
    shared = list(range(1, len(x.shape) - 1)) or None
    start = keras.initializers.Constant(0.25)
    return layers.PReLU(alpha_initializer=start, shared_axes=shared, name=label)(x)


def _built_in(name: str) -> Callable[[keras.KerasTensor, str], keras.KerasTensor]:
    """Give an activation that Keras has by name."""
    return lambda x, label: layers.Activation(name, name=label)(x)


_BY_NAME: dict[str, Callable[[keras.KerasTensor, str], keras.KerasTensor]] = {
    "identity": _built_in("linear"),
    "binary_step": lambda x, _: ops.minimum(ops.sign(x) + 1, 1),
    "logistic": _built_in("sigmoid"),
    "tanh": _built_in("tanh"),
    "arctan": lambda x, _: ops.arctan(x),
    "relu": _built_in("relu"),
    "prelu": _prelu,
    "elu": _built_in("elu"),
    "softplus": _built_in("softplus"),
    "gelu": _built_in("gelu"),
    "silu": _built_in("silu"),
    "leaky_relu": lambda x, label: layers.LeakyReLU(negative_slope=0.01, name=label)(x),
}
ACTIVATIONS = tuple(_BY_NAME)


def activate(x: keras.KerasTensor, name: str, label: str) -> keras.KerasTensor:
    """Apply an activation to a tensor of a functional network.

    Parameters
    ----------
    x
        Features on the last axis: (object, y, x, feature) or (object, feature).
    name
        One of `ACTIVATIONS`.
    label
        Name of the new layer. `binary_step` and `arctan` become operations of Keras, which name
        themselves.

    Returns
    -------
    keras.KerasTensor
        Of the shape of `x`.

    Raises
    ------
    ValueError
        If there is no such activation.

    Notes
    -----
    With a = 0.01 for `leaky_relu`, a = 0.25 at the start for `prelu`:

    =============  =====================================================================
    identity       x
    binary_step    0 for x < 0, 1 for x >= 0; its gradient is zero everywhere, so that
                   nothing before it learns
    logistic       1 / (1 + exp(-x))
    tanh           tanh(x)
    arctan         arctan(x)
    relu           max(0, x)
    leaky_relu     x for x >= 0, a x for x < 0 (Maas et al. 2013, ICML)
    prelu          the same, a learned for each feature (He et al. 2015, arXiv:1502.01852)
    elu            x for x >= 0, exp(x) - 1 for x < 0 (Clevert et al. 2015, arXiv:1511.07289)
    softplus       ln(1 + exp(x))
    gelu           x Phi(x), Phi of the normal law (Hendrycks & Gimpel 2016, arXiv:1606.08415)
    silu           x / (1 + exp(-x)) (Ramachandran et al. 2017, arXiv:1710.05941)
    =============  =====================================================================
    """
    if name not in _BY_NAME:
        near = difflib.get_close_matches(name, ACTIVATIONS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"there is no activation {name!r}: {hint}training.activation is one of "
            f"{', '.join(ACTIVATIONS)}"
        )
    return _BY_NAME[name](x, label)
