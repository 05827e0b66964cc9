"""The one module that knows TensorFlow: threads, quiet logs, repeatable arithmetic."""

from __future__ import annotations

import logging
import os

logger = logging.getLogger(__name__)


def configure(threads: int = 1) -> None:
    """Prepare the backend of Keras for one job; call it before the first network is built.

    Parameters
    ----------
    threads
        Processor threads the job may use.

    Notes
    -----
    On TensorFlow, operations are made deterministic, so that two runs on the same machine give
    the same weights. Other backends (`KERAS_BACKEND`) are left as they are.
    """
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") != "tensorflow":
        return
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        for device in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(device, True)
    except RuntimeError:
        logger.info("TensorFlow already runs in this process; its thread count stays as it is")
    tf.config.experimental.enable_op_determinism()
