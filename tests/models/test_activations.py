import math

import keras
import numpy as np
import pytest

from luneta.models.activations import ACTIVATIONS, activate

X = np.array([-3.0, -0.5, 0.0, 0.25, 2.0], dtype="float32")

FORMULAS = {
    "identity": lambda x: x,
    "binary_step": lambda x: np.where(x < 0, 0.0, 1.0),
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
    "arctan": np.arctan,
    "relu": lambda x: np.where(x < 0, 0, x),
    "prelu": lambda x: np.where(x < 0, 0.25 * x, x),
    "elu": lambda x: np.where(x < 0, np.exp(x) - 1, x),
    "softplus": lambda x: np.log(1 + np.exp(x)),
    "gelu": lambda x: x * [0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x],
    "silu": lambda x: x / (1 + np.exp(-x)),
    "leaky_relu": lambda x: np.where(x < 0, 0.01 * x, x),
}


def test_all_have_a_formula():
    assert tuple(FORMULAS) == ACTIVATIONS


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_equals_its_formula_also_when_saved(tmp_path, name):
    inputs = keras.Input((5,))
    network = keras.Model(inputs, activate(inputs, name, "bend"))
    expected = FORMULAS[name](X.astype("float64"))
    np.testing.assert_allclose(network(X[None])[0], expected, rtol=1e-5, atol=1e-6)
    network.save(tmp_path / "bend.keras")
    loaded = keras.models.load_model(tmp_path / "bend.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(X[None]), network(X[None]))


def test_prelu_learns_one_slope_a_feature():
    for shape, slopes in (((8, 8, 6), (1, 1, 6)), ((6,), (6,))):
        inputs = keras.Input(shape)
        network = keras.Model(inputs, activate(inputs, "prelu", "bend"))
        assert [tuple(v.shape) for v in network.trainable_variables] == [slopes]


def test_unknown_name_names_the_nearest():
    with pytest.raises(ValueError, match="no activation 'pRelu'.*did you mean prelu.*softplus"):
        activate(keras.Input((5,)), "pRelu", "bend")
