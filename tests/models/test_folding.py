"""Networks whose batch norms are folded away say what they said before."""

import keras
import numpy as np
import pytest
from keras import layers

from luneta.config import BACKBONES, Training
from luneta.models import network as networks
from luneta.models import precision, predicting, registry
from luneta.models.folding import folded

IMAGES = np.random.default_rng(0).normal(0, 1, (3, 12, 12, 4)).astype(np.float32)


def shaken(network):
    """Give the batch norms statistics and weights that are not those of a new network."""
    random = np.random.default_rng(1)
    for layer in networks.leaves(network):
        if isinstance(layer, layers.BatchNormalization):
            shape = layer.moving_mean.shape
            layer.moving_mean.assign(random.normal(0, 0.3, shape))
            layer.moving_variance.assign(random.uniform(1, 2, shape))
            if layer.scale:
                layer.gamma.assign(random.uniform(0.3, 0.9, shape))
            if layer.center:
                layer.beta.assign(random.normal(0, 0.3, shape))
    return network


def norms(network):
    return sum(isinstance(x, layers.BatchNormalization) for x in networks.leaves(network))


def said(network, images=IMAGES):
    return np.asarray(network(images, training=False))


@pytest.mark.parametrize(
    "convolution",
    [
        lambda: layers.Conv2D(6, 3, strides=2, padding="same", use_bias=False),
        lambda: layers.Conv2D(6, 3, groups=2, bias_initializer="random_normal"),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2, bias_initializer="random_normal"),
        lambda: layers.SeparableConv2D(5, 3, depth_multiplier=2, use_bias=False),
    ],
)
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False, "epsilon": 0.1}])
def test_a_convolution_takes_over_the_norm_behind_it(convolution, options):
    inputs = keras.Input((12, 12, 4))
    outputs = layers.ReLU()(layers.BatchNormalization(**options)(convolution()(inputs)))
    network = shaken(keras.Model(inputs, outputs))
    expected = said(network)
    new = folded(network)
    assert (norms(network), norms(new)) == (1, 0)
    np.testing.assert_allclose(said(new), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(said(network), expected)


def used_twice(x):
    before = layers.Conv2D(4, 3, padding="same")(x)
    return layers.add([layers.BatchNormalization()(before), before])


def activated(x):
    return layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(x))


def of_a_sum(x):
    return layers.BatchNormalization()(layers.add([layers.Conv2D(4, 1)(x), x]))


def of_the_input(x):
    return layers.Conv2D(4, 3)(layers.BatchNormalization()(x))


def of_rows(x):
    return layers.BatchNormalization(axis=1)(layers.Conv2D(4, 3)(x))


@pytest.mark.parametrize("graph", [used_twice, activated, of_a_sum, of_the_input, of_rows])
def test_a_norm_that_cannot_be_folded_stays(graph):
    inputs = keras.Input((12, 12, 4))
    network = shaken(keras.Model(inputs, graph(inputs)))
    new = folded(network)
    assert norms(new) == 1
    np.testing.assert_allclose(said(new), said(network), rtol=1e-5, atol=1e-5)


def test_a_convolution_that_is_an_output_too_stays():
    inputs = keras.Input((12, 12, 4))
    before = layers.Conv2D(4, 3)(inputs)
    network = shaken(keras.Model(inputs, [before, layers.BatchNormalization()(before)]))
    new = folded(network)
    assert norms(new) == 1
    for found, expected in zip(new(IMAGES), network(IMAGES), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


# Batch norms that are left: those before a convolution, or behind a sum.
LEFT = {"MobileNetV2": 0, "ResNet18": 0, "Xception": 0, "DaiTongResNet26": 9, "CMUDeepLens": 14}


@pytest.mark.parametrize(
    "name",
    [name if name in LEFT else pytest.param(name, marks=pytest.mark.slow) for name in BACKBONES],
)
def test_every_backbone_says_the_same(name):
    side = max(64, registry.find(name).smallest_side)
    training = Training(backbone=name, weights="none")
    network = shaken(networks.build(training, list("gri"), side, "flux", 2, 1))
    whole = networks.with_features(network)
    images = np.random.default_rng(2).normal(0, 5, (2, 3, side, side)).astype(np.float32)
    new = folded(whole)
    if name in LEFT:
        assert norms(new) == LEFT[name]
    for found, expected in zip(new(images), whole(images), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found / scale, expected / scale, atol=2e-5)


@pytest.mark.bfloat16
def test_networks_are_folded_for_predictions_in_the_precision_they_have():
    network = networks.build(
        Training(backbone="MobileNetV2", weights="none", width=0.35), list("gri"), 32, "flux", 2, 1
    )
    precision.compute_in(network, "bfloat16")
    prepared = predicting.prepare(network)
    assert norms(prepared.whole) == 0 < norms(network)
    kinds = {
        layer.compute_dtype
        for layer in networks.leaves(prepared.whole.get_layer("backbone"))
        if isinstance(layer, layers.Conv2D)
    }
    assert kinds == {"bfloat16"}
