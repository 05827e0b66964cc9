import keras
import numpy as np
import pytest

from luneta.config import Training
from luneta.models import devices, precision
from luneta.models import network as networks

IMAGES = np.random.default_rng(0).normal(2, 20, (6, 3, 32, 32)).astype("float32")


@pytest.fixture(scope="module", autouse=True)
def backend():
    devices.configure(2)


def build(backbone="LeNet5", seed=1):
    training = Training(backbone=backbone, weights="none", head_units=[8])
    return networks.build(training, ["g", "r", "i"], 32, "flux", 3, seed)


def sharpened(factor):
    """A network in which little things weigh much, so that rounding changes its mind."""
    network = build()
    head = network.get_layer("logits")
    kernel, bias = head.get_weights()
    head.set_weights([kernel * factor, bias - answers(network)[0] * factor])
    return network


def answers(network):
    return np.asarray(network(IMAGES, training=False))


@pytest.mark.bfloat16
def test_a_network_is_asked_in_bfloat16_as_if_built_so():
    network = build("MobileNetV2")
    exact = answers(network)
    with devices.arithmetic("bfloat16"):
        expected = build("MobileNetV2")
    expected.set_weights(network.get_weights())
    precision.compute_in(network, "bfloat16")
    got = answers(network)
    np.testing.assert_array_equal(got, answers(expected))
    assert np.abs(got - exact).max() > 0
    assert {layer.dtype_policy.name for layer in network.layers} == {
        layer.dtype_policy.name for layer in expected.layers
    }
    precision.compute_in(network, "trained")
    np.testing.assert_array_equal(answers(network), got)
    precision.compute_in(network, "float32")
    np.testing.assert_array_equal(answers(network), exact)
    assert got.dtype == "float32"


@pytest.mark.bfloat16
def test_the_difference_is_that_of_the_mean_probability():
    networks_of_two = [build(seed=1), build(seed=2)]
    got = precision.difference(networks_of_two, IMAGES, "bfloat16")
    each = []
    for name in ("float32", "bfloat16"):
        for network in networks_of_two:
            precision.compute_in(network, name)
        logits = np.stack([answers(network) for network in networks_of_two])
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        each.append((odds / odds.sum(axis=-1, keepdims=True)).mean(axis=0))
    assert got == pytest.approx(np.abs(each[1] - each[0]).max(), abs=1e-6)
    assert got > 0
    assert precision.difference(networks_of_two, IMAGES, "float32") == 0


@pytest.mark.bfloat16
def test_bfloat16_that_changes_answers_is_refused_and_auto_falls_back(monkeypatch, caplog):
    monkeypatch.setattr(devices, "has_bfloat16", lambda: True)
    tame, wild = [build()], [sharpened(300)]
    assert precision.difference(wild, IMAGES, "bfloat16") > precision.LIMIT
    assert precision.agree("trained", wild, IMAGES) == "trained"
    assert precision.agree("bfloat16", tame, IMAGES) == "bfloat16"
    assert precision.agree("auto", tame, IMAGES) == "bfloat16"
    with pytest.raises(precision.PrecisionError, match=r"differ .* 0.02 is allowed: set inference"):
        precision.agree("bfloat16", wild, IMAGES)
    assert precision.agree("auto", wild, IMAGES) == "float32"
    assert "float32 is used" in caplog.text
    monkeypatch.setattr(devices, "has_bfloat16", lambda: False)
    assert precision.agree("auto", tame, IMAGES) == "float32"


@pytest.mark.bfloat16
def test_what_is_no_number_is_refused():
    broken = build()
    head = broken.get_layer("logits")
    head.set_weights([head.get_weights()[0] + np.nan, head.get_weights()[1]])
    with pytest.raises(precision.PrecisionError):
        precision.check([broken], IMAGES, "bfloat16")


def test_weights_stay_float32():
    network = build()
    precision.compute_in(network, "bfloat16")
    assert {keras.backend.standardize_dtype(w.dtype) for w in network.weights} == {"float32"}
