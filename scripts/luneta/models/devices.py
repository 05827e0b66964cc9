"""The one module that knows TensorFlow: threads, devices, precision, repeatable arithmetic."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from luneta.gpus import VISIBLE, DeviceError

logger = logging.getLogger(__name__)

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
# What oneDNN can be held to by ONEDNN_MAX_CPU_ISA that multiplies no bfloat16 matrices.
WITHOUT_BFLOAT16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}
BFLOAT16_CAPABILITY = (8, 0)  # of a GPU: Ampere, the first with bfloat16 matrix products


REPLICA_STEP = 1_000_003  # between the seeds of two replicas


def _backend() -> str:
    return os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def gpus() -> list[Any]:
    """Give the GPUs that the backend of Keras sees, as its own objects."""
    if _backend() == "tensorflow":
        import tensorflow as tf

        return tf.config.get_visible_devices("GPU")
    if _backend() == "jax":
        import jax

        return [device for device in jax.devices() if device.platform == "gpu"]
    import torch

    return list(range(torch.cuda.device_count()))


def _hide_gpus() -> None:
    if _backend() == "tensorflow":
        import tensorflow as tf

        tf.config.set_visible_devices([], "GPU")
    elif _backend() == "jax":
        import jax

        jax.config.update("jax_platforms", "cpu")
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def configure(threads: int = 1, device: str = "auto") -> None:
    """Prepare the backend of Keras for one job; call it before the first network is built.

    Parameters
    ----------
    threads
        Processor threads the job may use.
    device
        `cpu` leaves GPUs alone; `gpu` stops where there is none; `auto` takes what is there.

    Raises
    ------
    DeviceError
        If a GPU is asked for and the backend sees none.

    Notes
    -----
    On TensorFlow, operations are made deterministic, so that two runs on the same machine give
    the same weights. On JAX, several devices share each batch from here on, see `scope`.
    """
    if _backend() == "tensorflow":
        _configure_tensorflow(threads, device)
    elif device == "cpu":
        _hide_gpus()
    if device == "gpu" and not gpus():
        raise DeviceError(
            f"device: gpu, but {_backend()} sees no GPU on this machine (a profile's resource gpu "
            "asks for one too): ask the cluster for one (workflow/profiles), install the "
            "environment with CUDA (make GPU=1), or set device: auto or cpu"
        )
    if device == "auto" and os.environ.get(VISIBLE) and not gpus():
        logger.warning(
            "GPU %s is there, but %s does not see it: computing on the processor; for CUDA, make "
            "the environment with make GPU=1",
            os.environ[VISIBLE],
            _backend(),
        )
    if _backend() == "jax":
        _share_with_jax()


def _configure_tensorflow(threads: int, device: str) -> None:
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        if device == "cpu":
            _hide_gpus()
        for gpu in gpus():
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        logger.info("TensorFlow already runs in this process; its threads and devices stay")
    tf.config.experimental.enable_op_determinism()


def _share_with_jax() -> None:
    import jax
    import keras

    if jax.device_count() > 1 and keras.distribution.distribution() is None:
        keras.distribution.set_distribution(keras.distribution.DataParallel())


def scope(devices: list[str] | None = None) -> AbstractContextManager:
    """Give the context in which a network is built and trained on several devices.

    Parameters
    ----------
    devices
        Names for tf.distribute.MirroredStrategy; all GPUs if not given.

    Returns
    -------
    context manager
        On TensorFlow with more than one device, the scope of a MirroredStrategy: each device gets
        its share of a batch, and gradients are summed. Elsewhere it does nothing: on JAX
        `configure` has set keras.distribution.DataParallel already.

    Notes
    -----
    Several devices give the weights of one, to rounding, where nothing is drawn at random and no
    batch norm is trained. On TensorFlow a batch norm that is trained takes mean and variance from
    the share of its own device, as if the batch were so much smaller, and its moving statistics
    are the mean over the devices. On JAX they are of the whole batch. Frozen batch norm, that of
    pretrained backbones, is the same everywhere.

    Augmentation draws by `apart_by_replica`. The dropout of Keras cannot: a layer that is built
    takes no other random numbers. On TensorFlow the n-th object of each device's share is thinned
    by the same mask in a step; masks of objects of one device, and of other steps, differ.
    """
    if _backend() != "tensorflow":
        return nullcontext()
    import tensorflow as tf

    devices = devices or [gpu.name for gpu in tf.config.list_logical_devices("GPU")]
    if len(devices) < 2:
        return nullcontext()
    return tf.distribute.MirroredStrategy(devices).scope()


def sharing() -> int:
    """Count the devices that share a batch, within `scope`."""
    if _backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_strategy().num_replicas_in_sync
    if _backend() == "jax":
        import jax
        import keras

        return jax.device_count() if keras.distribution.distribution() is not None else 1
    return 1


def check_batch_size(size: int, key: str) -> None:
    """Refuse, within `scope`, a batch that the devices cannot share evenly.

    Parameters
    ----------
    size
        Objects per batch.
    key
        Of the config, that sets it.

    Raises
    ------
    DeviceError
        It names the next sizes that can be shared.
    """
    count = sharing()
    if size % count:
        below = size - size % count
        sizes = [str(one) for one in (below, below + count) if one]
        raise DeviceError(
            f"{key} = {size} cannot be shared evenly by {count} devices: set it to "
            f"{' or '.join(sizes)}, or set device: cpu"
        )


def apart_by_replica(seed: Any) -> Any:
    """Give each replica of TensorFlow's strategy a seed of its own; without one it stays.

    All replicas hold the same state of random numbers, from which they would draw the same ones.

    Parameters
    ----------
    seed
        What `keras.random.SeedGenerator.next` gives: (2,), the seed and a count of draws.
    """
    if _backend() != "tensorflow":
        return seed
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return seed
    own = tf.cast(context.replica_id_in_sync_group, seed.dtype)
    return seed + own * tf.constant([REPLICA_STEP, 0], seed.dtype)


def sum_over_replicas(gradients: list[Any]) -> list[Any]:
    """Sum gradients over the replicas of TensorFlow's strategy; without one they stay as they are.

    Parameters
    ----------
    gradients
        Tensors, one for each variable.
    """
    if _backend() != "tensorflow":
        return gradients
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return gradients
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, gradients))


def description() -> list[str]:
    """Name what the job computes on: each GPU by its model, or `CPU`."""
    if not gpus():
        return ["CPU"]
    if _backend() == "tensorflow":
        import tensorflow as tf

        details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus()]
        return [found.get("device_name", "GPU") for found in details]
    if _backend() == "jax":
        return [gpu.device_kind for gpu in gpus()]
    import torch

    return [torch.cuda.get_device_name(gpu) for gpu in gpus()]


def _capability(gpu: Any) -> tuple[int, int]:
    if _backend() == "tensorflow":
        import tensorflow as tf

        found = tf.config.experimental.get_device_details(gpu)
        return found.get("compute_capability", (0, 0))
    if _backend() == "jax":
        major, minor = str(gpu.compute_capability).split(".")
        return int(major), int(minor)
    import torch

    return torch.cuda.get_device_capability(gpu)


def has_bfloat16(processor: Path = Path("/proc/cpuinfo")) -> bool:
    """Tell whether the GPUs, or the processor where there are none, multiply bfloat16 matrices.

    Parameters
    ----------
    processor
        Linux's description of the processor; where there is no such file the answer is no.
    """
    if gpus():
        return all(tuple(_capability(gpu)) >= BFLOAT16_CAPABILITY for gpu in gpus())
    if not processor.is_file() or os.environ.get("ONEDNN_MAX_CPU_ISA") in WITHOUT_BFLOAT16:
        return False
    return bool(BFLOAT16_FLAGS & set(processor.read_text().split()))


def resolve_precision(precision: str) -> str:
    """Turn `auto` into `bfloat16` where the hardware has it, and into `float32` elsewhere."""
    if precision != "auto":
        return precision
    return "bfloat16" if has_bfloat16() else "float32"


@contextmanager
def arithmetic(precision: str) -> Iterator[None]:
    """Build the layers within in a precision, `float32` or `bfloat16`; variables are float32."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16" if precision == "bfloat16" else "float32")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def resolve_jit(jit: bool | str) -> bool:
    """Tell whether networks are compiled by XLA (on torch, by torch.compile).

    Parameters
    ----------
    jit
        True, False or `auto`, which is what was measured to be faster: XLA on JAX, and on
        TensorFlow with a GPU. TensorFlow's XLA is 2 to 20 times slower on a processor than its
        own kernels, and torch without compilation starts at once.
    """
    if jit != "auto":
        return bool(jit)
    return _backend() == "jax" or (_backend() == "tensorflow" and bool(gpus()))


def compiled(function: Callable[..., Any], jit: bool) -> Callable[..., Any]:
    """Compile a function of tensors and variables for inference, once for each shape.

    Parameters
    ----------
    function
        Pure: it takes variables as arguments and changes none.
    jit
        As `resolve_jit` gives it. JAX without it runs operation by operation.
    """
    if _backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=jit or None, autograph=False)
    if _backend() == "jax":
        import jax

        return jax.jit(function) if jit else function
    import torch

    return torch.inference_mode()(torch.compile(function) if jit else function)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of the backend says that the device's memory does not suffice."""
    if _backend() == "tensorflow":
        import tensorflow as tf

        kinds: Any = (tf.errors.ResourceExhaustedError, tf.errors.InternalError)
        if isinstance(error, tf.errors.ResourceExhaustedError):
            return True
    elif _backend() == "jax":
        import jax

        kinds = jax.errors.JaxRuntimeError
    else:
        import torch

        if isinstance(error, torch.OutOfMemoryError):
            return True
        kinds = RuntimeError
    said = ("RESOURCE_EXHAUSTED", "out of memory", "not enough memory", "Out of memory")
    return isinstance(error, kinds) and any(text in str(error) for text in said)
