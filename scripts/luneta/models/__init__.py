"""Networks: preprocessing, backbones, building, saving."""

import os

# Read by TensorFlow when it is first imported, which any module of this package does
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from luneta.models.keras_settings import pin_keras  # noqa: E402

pin_keras()
