"""Training on several devices, and devices that are not there; each in a process of its own."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from luneta.models import devices

TRAIN = """
import json, sys
import numpy as np
from luneta.models import devices

count, change = int(sys.argv[1]), json.loads(sys.argv[2])
if devices._backend() == "tensorflow":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
devices.configure(1, "cpu")
import keras
from luneta.config import Training
from luneta.models import network as networks
from luneta.training import finetune
from luneta.training.data import Batches

settings = dict(
    backbone="LeNet5", weights="none", head_epochs=0, fine_tune_epochs=1, batch_size=16,
    optimizer="sgd", dropout=0.0, warmup=0.0, schedule="constant", gradient_clip=0.5,
    layer_decay=0.8, fine_tune_learning_rate=0.1, augmentation={"dihedral": False},
)
training = Training.model_validate({**settings, **change})
random = np.random.default_rng(3)
labels = np.arange(32) % 2
images = random.normal(size=(32, 3, 32, 32)).astype("float32")
images[labels == 0, :, 14:18, 4:28] += 20
weights = np.array([1, 2], "float32")
names = ["CPU:0", "CPU:1"]
with devices.scope(names if count == 2 else None):
    network = networks.build(training, ["g", "r", "i"], 32, "flux", 2, 1)
    served = [Batches(images, labels, weights, 16, seed) for seed in (1, None)]
    journal = finetune.fit(network, training, *served, False, 1)
record = {k: v for k, v in journal.progress.records[0].items() if isinstance(v, (int, float))}
found = {"record": record, "norms": [row["norm"] for row in journal.progress.gradients],
         "devices": len(keras.distribution.list_devices("cpu"))}
np.savez(sys.argv[3], *network.get_weights(), text=json.dumps(found))
"""


def trained(folder, count, backend="tensorflow", **change):
    path = folder / f"{count}.npz"
    flags = f"--xla_force_host_platform_device_count={count}"
    environment = {**os.environ, "KERAS_BACKEND": backend, "XLA_FLAGS": flags}
    environment |= {"OMP_NUM_THREADS": "1"}
    script = [sys.executable, "-c", TRAIN, str(count), json.dumps(change), str(path)]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(path) as file:
        weights = [file[name] for name in file.files if name != "text"]
        return weights, json.loads(str(file["text"]))


def assert_equal_to_rounding(one, two):
    for a, b in zip(one[0], two[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert len(one[1]["norms"]) == 5
    np.testing.assert_allclose(one[1]["norms"], two[1]["norms"], rtol=1e-3)
    assert one[1]["record"] == pytest.approx(two[1]["record"], abs=1e-4)


def test_two_devices_of_tensorflow_give_the_weights_of_one(tmp_path):
    one, two = (trained(tmp_path, count) for count in (1, 2))
    assert one[1]["devices"] == two[1]["devices"] == 2
    assert_equal_to_rounding(one, two)


def test_two_devices_of_jax_give_the_weights_of_one(tmp_path):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    one, two = (trained(tmp_path, count, "jax") for count in (1, 2))
    assert (one[1]["devices"], two[1]["devices"]) == (1, 2)
    assert_equal_to_rounding(one, two)


DRAW = """
import json
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from luneta.config import Augmentation
from luneta.models import devices
from luneta.training import augmentation

devices.configure(1, "cpu")
alike = []
with devices.scope(["CPU:0", "CPU:1"]):
    strategy = tf.distribute.get_strategy()
    for layer in augmentation.layers(Augmentation(shift=2, blur=1, noise=1), 7):
        draw = tf.function(lambda x: strategy.run(lambda: layer(x, training=True)))
        first = draw(tf.random.normal((8, 3, 16, 16), seed=1)).values
        alike.append(bool(np.array_equal(*(x.numpy() for x in first))))
    shared, message = devices.sharing(), ""
    devices.check_batch_size(64, "training.batch_size")
    try:
        devices.check_batch_size(33, "training.batch_size")
    except devices.DeviceError as error:
        message = str(error)
print(json.dumps([alike, shared, message, devices.sharing()]))
"""


def test_replicas_draw_differently_and_share_a_batch_evenly():
    done = subprocess.run(
        [sys.executable, "-c", DRAW], env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    alike, shared, message, alone = json.loads(done.stdout)
    assert alike == [False] * 4
    assert (shared, alone) == (2, 1)
    assert "training.batch_size = 33 cannot be shared evenly by 2 devices: set it to 32 or 34" in (
        message
    )


def test_dropout_and_augmentation_run_on_two_devices(tmp_path):
    change = {
        "dropout": 0.5,
        "augmentation": {"shift": 2, "zoom": 0.1, "noise": 1, "blur": 1},
        "optimizer": "adamw",
        "mixup": 0.2,
    }
    weights, found = trained(tmp_path, 2, **change)
    assert all(np.isfinite(w).all() for w in weights)
    assert np.isfinite(found["norms"]).all()


def test_a_gpu_that_is_not_there_is_told():
    if devices.gpus():
        pytest.skip("this machine has a GPU")
    with pytest.raises(devices.DeviceError, match="device: gpu.*sees no GPU.*device: auto or cpu"):
        devices.configure(2, "gpu")
    devices.configure(2, "auto")
    assert devices.description() == ["CPU"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("fpu avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx2 avx512f", False)],
)
def test_bfloat16_is_told_by_the_flags_of_the_processor(tmp_path, monkeypatch, flags, expected):
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if devices.gpus():
        pytest.skip("this machine has a GPU")
    path = tmp_path / "cpuinfo"
    path.write_text(f"processor : 0\nflags\t\t: {flags}\n")
    assert devices.has_bfloat16(path) is expected
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert devices.has_bfloat16(path) is False
    assert devices.has_bfloat16(tmp_path / "none") is False


def test_precision_is_resolved():
    assert devices.resolve_precision("float32") == "float32"
    assert devices.resolve_precision("bfloat16") == "bfloat16"
    auto = "bfloat16" if devices.has_bfloat16() else "float32"
    assert devices.resolve_precision("auto") == auto
