import re
import zipfile

import keras
import numpy as np
import pytest

from luneta.config import Training
from luneta.models import devices, registry
from luneta.models import network as networks

BAND_COUNTS = (1, 3, 4, 5)
# Too slow or too large for every run of the suite
HEAVY = {
    "AlexNet", "OverFeat", "VGG19", "DenseNet121", "InceptionV3", "InceptionV4",
    "InceptionResNetV2", "ResNet101", "ResNet152", "ResNet101V2", "ResNet152V2", "Xception",
    "EfficientNetV2B1", "EfficientNetV2B2", "EfficientNetV2B3", "EfficientNetV2S",
    "EfficientNetV2M", "EfficientNetV2L", "ConvNeXtTiny", "ConvNeXtSmall", "ConvNeXtBase",
    "ConvNeXtLarge", "ResNeXt50", "TimmResNet50", "TimmEfficientNetB0", "TimmConvNeXtTiny",
    "TimmConvNeXtSmall", "TimmConvNeXtBase",
}  # fmt: skip
# At the smallest side its last maps have one pixel: batch norm has two numbers to go by in each of
# a hundred layers, and the gradient overflows
SIDES = {"EfficientNetV2L": 64}


def _cases():
    """Every backbone with every count of bands; in the fast suite each light one with one."""
    for i, name in enumerate(sorted(registry.BACKBONES)):
        for bands in BAND_COUNTS:
            fast = name not in HEAVY and bands == BAND_COUNTS[i % 4]
            marks = () if fast else pytest.mark.slow
            yield pytest.param(name, bands, marks=marks, id=f"{name}-{bands}")


@pytest.fixture(autouse=True)
def backend():
    devices.configure(2)
    yield
    keras.utils.clear_session()


@pytest.mark.parametrize(("name", "bands"), _cases())
def test_trains_saves_and_predicts_the_same(tmp_path, name, bands):
    backbone = registry.find(name)
    training = Training(weights="none").model_copy(update={"backbone": name})
    side = SIDES.get(name, backbone.smallest_side)
    network = networks.build(training, [f"band{i}" for i in range(bands)], side, "flux", 2, 3)
    images = np.random.default_rng(1).normal(0, 3, (2, bands, side, side)).astype("float32")
    images[0, 0, 2:4] = np.nan
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Two objects of a few pixels give batch norm next to nothing to go by: gradients explode.
    # Eagerly, as two steps of a deep network take seconds, and making its graph takes minutes.
    network.compile(keras.optimizers.SGD(1e-3, clipvalue=0.01), loss, run_eagerly=True)
    before = networks.digest(network)
    losses = [network.train_on_batch(images, np.array([0, 1])) for _ in range(2)]
    assert np.isfinite(losses).all() and networks.digest(network) != before
    logits = keras.ops.convert_to_numpy(network(images))
    assert logits.shape == (2, 2) and np.isfinite(logits).all()
    networks.save(network, tmp_path / "x.keras")
    loaded = networks.load(tmp_path / "x.keras")
    assert networks.digest(loaded) == networks.digest(network)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(loaded(images)), logits)
    with zipfile.ZipFile(tmp_path / "x.keras") as archive:
        config = archive.read("config.json").decode()
    assert not re.search(r'"(module|registered_name)": "luneta', config)  # Keras alone reads it
