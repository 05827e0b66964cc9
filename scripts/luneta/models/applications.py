"""The networks of keras.applications, each as one function of one form."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras


def application(
    function: Callable[..., keras.Model], *, has_width: bool = False, **fixed: Any
) -> Callable[..., keras.Model]:
    """Give a function of keras.applications the form of those in `architectures`.

    Parameters
    ----------
    function
        Such as `keras.applications.ResNet50`.
    has_width
        Whether it comes in widths (`alpha`).
    fixed
        Further arguments of the function.

    Returns
    -------
    Callable
        `build(input_shape, classes=None, weights=None, width=1.0)`: a network without its top, or
        with it, giving logits, if `classes` is given. `weights` is `imagenet` or none.
    """

    def build(
        input_shape: tuple[int, int, int],
        classes: int | None = None,
        weights: str | None = None,
        width: float = 1.0,
    ) -> keras.Model:
        arguments: dict[str, Any] = dict(fixed, alpha=width) if has_width else dict(fixed)
        if classes is not None:
            arguments.update(classes=classes, classifier_activation=None)
        with warnings.catch_warnings():
            # Keras warns of every band count but 1 and 3, and of sides MobileNet was not made for
            warnings.filterwarnings("ignore", message="This model usually expects")
            warnings.filterwarnings("ignore", message="`input_shape` is undefined or non-square")
            return function(
                include_top=classes is not None,
                weights=weights,
                input_shape=input_shape,
                **arguments,
            )

    return build


def without_preprocessing(function: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
    """Give a function whose network would scale its input without that scaling."""
    return application(function, include_preprocessing=False)


def mobilenet(function: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
    """Give a function whose network comes in widths."""
    return application(function, has_width=True)
