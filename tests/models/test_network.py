from pathlib import Path

import numpy as np
import pytest

from luneta.config import Training
from luneta.models import backbones, devices
from luneta.models import network as networks

IMAGENET = (
    Path(__file__).parents[2].parent
    / "shared/weights/mobilenet_v2_1_224_imagenet_dequant_notop.weights.h5"
)


@pytest.fixture(scope="module", autouse=True)
def backend():
    devices.configure(2)


def build(bands=3, pixels="flux", size=40, weights="none", **training):
    settings = Training(**{"weights": "none", "width": 0.35, **training})
    return networks.build(settings, bands, size, pixels, 3, 7, weights)


def cutouts(count=4, bands=3, size=40):
    return np.random.default_rng(0).normal(3, 20, (count, bands, size, size)).astype("float32")


@pytest.mark.parametrize(
    ("bands", "pixels", "training"),
    [(3, "flux", {}), (1, "flux", {"image_size": 48}), (5, "display", {"image_size": 32})],
)
def test_saved_network_predicts_the_same(tmp_path, bands, pixels, training):
    network = build(bands, pixels, **training)
    images = cutouts(bands=bands)
    networks.save(network, tmp_path / "one.keras")
    loaded = networks.load(tmp_path / "one.keras")
    logits = network.predict_on_batch(images)
    assert logits.shape == (4, 3)
    np.testing.assert_array_equal(loaded.predict_on_batch(images), logits)
    assert networks.digest(loaded) == networks.digest(network)
    networks.save(loaded, tmp_path / "two.keras")
    networks.save(loaded, tmp_path / "three.keras")
    assert (tmp_path / "two.keras").read_bytes() == (tmp_path / "three.keras").read_bytes()


def test_bad_pixel_is_sky():
    network = build()
    holes, zeros = cutouts(), cutouts()
    holes[:, :, 5:9], zeros[:, :, 5:9] = np.nan, 0
    np.testing.assert_array_equal(network.predict_on_batch(holes), network.predict_on_batch(zeros))


def test_seed_fixes_the_weights():
    assert networks.digest(build()) == networks.digest(build())


@pytest.mark.parametrize("name", ["ResNet50", "EfficientNetV2B0"])
def test_other_backbones_build_and_freeze(name):
    network = build(bands=2, size=32, backbone=name, width=1.0)
    networks.freeze(network, backbone=False, batch_norm=True)
    assert network.output_shape == (None, 3)
    frozen = networks.batch_norms(network)
    assert len(frozen) > 10 and not any(layer.trainable for layer in frozen)
    assert any(layer.trainable for layer in network.get_layer("backbone").layers)


def test_momentum_is_lowered_from_random_weights():
    assert {layer.momentum for layer in networks.batch_norms(build())} == {0.9}


def test_small_cutouts_are_explained():
    with pytest.raises(ValueError, match="at least 32 px, these have 24.*image_size"):
        build(size=24)


def test_predicting_pads_the_last_batch():
    network, images = build(), cutouts(7)
    got = networks.predict_logits([network, network], lambda a, b: images[a:b], 7, 3)
    assert got.shape == (2, 7, 3)
    np.testing.assert_allclose(got[0], network.predict(images, verbose=0), atol=1e-5)


@pytest.mark.skipif(not IMAGENET.exists(), reason="../shared/weights is not here")
def test_local_weights_are_used():
    backbone = build(weights=IMAGENET, width=1.0).get_layer("backbone")
    # first filter of the ImageNet file, unlike any random start
    assert backbone.get_layer("Conv1").get_weights()[0].ravel()[:2] == pytest.approx(
        [-0.5095339, -1.800353]
    )


@pytest.mark.skipif(not IMAGENET.exists(), reason="../shared/weights is not here")
@pytest.mark.parametrize(("name", "width"), [("MobileNetV2", 0.35), ("ResNet50", 1.0)])
def test_weights_of_another_backbone_are_refused(name, width):
    with pytest.raises(backbones.WeightsError, match=f"dequant.*does not f.*{name} of width"):
        backbones.create(name, 32, width, IMAGENET)


def test_missing_and_broken_weights_are_refused(tmp_path):
    path = tmp_path / "x.weights.h5"
    with pytest.raises(backbones.WeightsError, match="no such file"):
        backbones.create("MobileNetV2", 32, 0.35, path)
    path.write_text("<html>")
    with pytest.raises(backbones.WeightsError, match="does not fit MobileNetV2 of width 0.35"):
        backbones.create("MobileNetV2", 32, 0.35, path)
