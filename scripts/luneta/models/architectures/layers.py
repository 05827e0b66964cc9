"""What several architectures are put together from."""

from __future__ import annotations

import keras
from keras import layers, ops

from luneta.models.activations import activate


def convolve(
    x: keras.KerasTensor,
    filters: int,
    size: int | tuple[int, int],
    label: str,
    *,
    strides: int = 1,
    padding: str = "same",
    groups: int = 1,
    bias: bool = True,
) -> keras.KerasTensor:
    """Apply a convolution with the weights of He et al. 2015 (arXiv:1502.01852).

    Parameters
    ----------
    x
        Feature map (object, y, x, feature).
    filters, size, strides, groups, bias
        Of the convolution; `size` is a side or (y, x) in pixels.
    label
        Name of the layer.
    padding
        `same` or `valid` as in Keras, or `centred`: half the size on each side, whatever the
        strides, as PyTorch and Caffe pad. Keras's `same` pads an even map on one side only when it
        strides.
    """
    if padding == "centred":
        x = layers.ZeroPadding2D(size // 2, name=f"{label}_pad")(x)
        padding = "valid"
    convolution = layers.Conv2D(
        filters,
        size,
        strides=strides,
        padding=padding,
        groups=groups,
        use_bias=bias,
        kernel_initializer="he_normal",
        name=label,
    )
    return convolution(x)


def normalise(x: keras.KerasTensor, label: str, epsilon: float = 1e-5) -> keras.KerasTensor:
    """Apply batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167)."""
    return layers.BatchNormalization(epsilon=epsilon, name=label)(x)


def convolve_normalise(
    x: keras.KerasTensor,
    filters: int,
    size: int | tuple[int, int],
    label: str,
    activation: str | None = None,
    *,
    strides: int = 1,
    padding: str = "same",
    groups: int = 1,
) -> keras.KerasTensor:
    """Apply a convolution without bias, batch normalisation and, if given, an activation."""
    x = convolve(
        x, filters, size, label, strides=strides, padding=padding, groups=groups, bias=False
    )
    x = normalise(x, f"{label}_norm")
    return activate(x, activation, f"{label}_{activation}") if activation else x


def normalise_responses(x: keras.KerasTensor) -> keras.KerasTensor:
    """Divide each feature by the power of its neighbours, as AlexNet does.

    Parameters
    ----------
    x
        Feature map (object, y, x, feature).

    Notes
    -----
    b_i = a_i / (2 + 1e-4 sum_j a_j^2)^0.75 with j over five features around i: section 3.3 of
    Krizhevsky et al. 2012, NIPS 25.
    """
    features = x.shape[-1]
    squares = ops.pad(ops.square(x), ((0, 0), (0, 0), (0, 0), (2, 2)))
    power = squares[..., :features]
    for shift in range(1, 5):
        power = power + squares[..., shift : shift + features]
    return x / ops.power(2.0 + 1e-4 * power, 0.75)


def dense(
    x: keras.KerasTensor, units: int, label: str, activation: str, dropout: float = 0.0
) -> keras.KerasTensor:
    """Apply a hidden dense layer, with dropout of its input if asked for."""
    if dropout:
        x = layers.Dropout(dropout, name=f"{label}_dropout")(x)
    x = layers.Dense(units, kernel_initializer="he_normal", name=label)(x)
    return activate(x, activation, f"{label}_{activation}")


def finish(
    inputs: keras.KerasTensor,
    x: keras.KerasTensor,
    classes: int | None,
    name: str,
    dropout: float = 0.0,
) -> keras.Model:
    """Close a network, with its top if `classes` is given.

    Parameters
    ----------
    inputs, x
        Its input, and its features: a map (object, y, x, feature), which the top averages over y
        and x, or a vector (object, feature).
    classes
        Logits of the top; none for a network that ends in its features.
    name
        Of the network.
    dropout
        Before the logits.
    """
    if classes is None:
        return keras.Model(inputs, x, name=name)
    if len(x.shape) == 4:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
    if dropout:
        x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, layers.Dense(classes, name="logits")(x), name=name)
