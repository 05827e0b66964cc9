"""Settings of Keras itself, the same whatever `~/.keras/keras.json` says."""

from __future__ import annotations

import keras

EPSILON = 1e-7


def pin_keras() -> None:
    """Set what Keras has read from the user's file to its own defaults.

    The backend is chosen when Keras is imported, by `luneta.surroundings.pin`.
    """
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    keras.config.set_epsilon(EPSILON)
    keras.config.set_image_data_format("channels_last")
