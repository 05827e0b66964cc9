import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from lively import rounding
from luneta.config import Training
from luneta.models import devices, predicting
from luneta.models import network as networks

RATE = 0.4


@pytest.fixture(scope="module", autouse=True)
def backend():
    devices.configure(2)


def build(seed=1, **training):
    settings = {"backbone": "LeNet5", "weights": "none", "dropout": RATE, **training}
    return networks.build(Training(**settings), ["g", "r", "i"], 32, "flux", 2, seed)


@pytest.fixture(scope="module")
def two():
    """Two networks, the second with a hidden layer in its head."""
    return build(), build(2, head_units=[6], activation="tanh")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(2, 20, (7, 3, 32, 32)).astype("float32")


def predict(ensemble, images, batch=3, **options):
    prepared = [predicting.prepare(network) for network in ensemble]
    return predicting.predict(prepared, lambda a, b: images[a:b], len(images), batch, **options)


def test_without_draws_it_is_the_network(two, images):
    got = predict(two, images, features=True)
    assert got.logits.shape == (2, 1, 7, 2)
    for network, logits, features in zip(two, got.logits[:, 0], got.features, strict=True):
        np.testing.assert_allclose(logits, network.predict(images, verbose=0), atol=1e-5)
        again = networks.head(network)(features)
        np.testing.assert_allclose(ops.convert_to_numpy(again), logits, atol=1e-5)
    assert predict(two, images).features is None


def test_views_are_the_eight_of_a_square(two, images):
    numbers = np.arange(6, dtype="float32").reshape(1, 1, 2, 3)[..., :2]  # 0 1 / 3 4
    views = [np.asarray(predicting.dihedral(numbers, view))[0, 0].tolist() for view in range(8)]
    assert views == [
        [[0, 1], [3, 4]], [[1, 4], [0, 3]], [[4, 3], [1, 0]], [[3, 0], [4, 1]],
        [[1, 0], [4, 3]], [[4, 1], [3, 0]], [[3, 4], [0, 1]], [[0, 3], [1, 4]],
    ]  # fmt: skip
    got = predict(two[:1], images, views=8)
    assert got.logits.shape == (1, 8, 7, 2)
    for view in range(8):
        seen = predicting.dihedral(images, view)
        expected = two[0].predict(seen, verbose=0)
        np.testing.assert_allclose(got.logits[0, view], expected, atol=1e-5)
    assert np.ptp(got.logits, axis=1).max() > 1e-3


def test_features_are_of_the_cutout_as_it_is(two, images):
    plain = predict(two, images, features=True).features
    got = predict(two, images, views=8, draws=2, features=True).features
    np.testing.assert_array_equal(got, plain)


def test_draws_by_hand(two, images):
    """Features thinned by one mask a draw, in NumPy, in place of the network's dropout."""
    got = predict(two, images, draws=3, seed=5, features=True)
    for draw in range(3):
        first, second = (
            lambda x, place, d=draw: (
                x * (np.random.default_rng((5, d, place)).random(x.shape[1]) >= RATE) / (1 - RATE)
            )
            for place in (0, 1)
        )
        x = first(got.features[0], 0)
        kernel, bias = two[0].get_layer("logits").get_weights()
        np.testing.assert_allclose(got.logits[0, draw], x @ kernel + bias, atol=1e-4)
        x = first(got.features[1], 0)
        kernel, bias = two[1].get_layer("hidden_1").get_weights()
        x = second(np.tanh(x @ kernel + bias), 1)
        kernel, bias = two[1].get_layer("logits").get_weights()
        np.testing.assert_allclose(got.logits[1, draw], x @ kernel + bias, atol=1e-4)
    assert np.ptp(got.logits, axis=1).max() > 1e-3


def test_draws_scatter_about_the_network(two, images):
    """Dropout is unbiased: logits that are linear in the features keep their mean."""
    draws = predict(two[:1], images, draws=600).logits[0]
    plain = predict(two[:1], images).logits[0, 0]
    error = draws.std(axis=0) / np.sqrt(600)
    assert (np.abs(draws.mean(axis=0) - plain) < 5 * error).all()


def test_draws_do_not_depend_on_the_batches(two, images):
    options = {"views": 8, "draws": 2, "seed": 3}
    whole = predict(two, images, 7, **options)
    np.testing.assert_allclose(predict(two, images, 2, **options).logits, whole.logits, atol=1e-5)
    again = predict(two, images, 7, **options)
    np.testing.assert_array_equal(again.logits, whole.logits)
    other = predict(two, images, 7, views=8, draws=2, seed=4)
    assert np.abs(other.logits - whole.logits).max() > 1e-3


def test_samples_are_views_and_their_draws(two, images):
    got = predict(two[:1], images, views=8, draws=2, seed=3).logits[0]
    turned = predicting.dihedral(images, 5)
    expected = predict(two[:1], turned, draws=2, seed=3).logits[0]
    np.testing.assert_allclose(got[10:12], expected, atol=1e-5)


def test_batch_norm_is_not_stirred_by_draws(images):
    network = build(backbone="CMUDeepLens")
    norms = networks.batch_norms(network)
    before = [ops.convert_to_numpy(norm.moving_mean) for norm in norms]
    assert len(before) > 0
    alone = predict([network], images[:1], 1, draws=2).logits
    together = predict([network], images, 7, draws=2).logits
    np.testing.assert_allclose(together[:, :, :1], alone, rtol=0, atol=rounding(network, alone))
    for norm, old in zip(norms, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(norm.moving_mean), old)


@pytest.mark.bfloat16
def test_bfloat16_networks_give_float32(images):
    with devices.arithmetic("bfloat16"):
        network = build(head_units=[6])
    got = predict([network], images, draws=2, features=True)
    assert (got.logits.dtype, got.features.dtype) == ("float32", "float32")
    assert np.isfinite(got.logits).all()


def test_nothing_to_predict(two, images):
    got = predict(two, images[:0], 4, views=8, features=True)
    assert got.logits.shape == (2, 8, 0, 2)
    assert got.features.shape[:2] == (2, 0)


def test_batches_are_cut_evenly():
    sizes = [predicting.even_batch_size(n, 256) for n in (0, 1, 256, 257, 600)]
    assert sizes == [1, 1, 256, 129, 200]


def test_objects_of_which_nothing_finite_is_said_are_named():
    ids = np.array([f"galaxy{i}" for i in range(8)])
    logits, features = np.zeros((2, 3, 8, 2)), np.zeros((2, 8, 5))
    predicting.check_finite(ids, logits, features)
    predicting.check_finite(ids[:0], logits[:, :, :0])
    logits[1, 2, 4, 0], features[0, 6, 3] = np.nan, np.inf
    with pytest.raises(FloatingPointError, match=r"of 2 of 8 objects \(galaxy4, galaxy6\): look"):
        predicting.check_finite(ids, logits, features)
    with pytest.raises(FloatingPointError, match=r"\(galaxy0, .*, galaxy4, \.\.\.\): look"):
        predicting.check_finite(ids, logits + np.nan)


class Hungry(keras.layers.Layer):
    """Counts how often it is compiled; above a number of objects the memory does not suffice."""

    def __init__(self, most, error=None, **kwargs):
        super().__init__(**kwargs)
        self.most, self.error, self.seen = most, error, []

    def get_config(self):
        return {**super().get_config(), "most": self.most}

    def call(self, x):
        count = x.shape[0] or 0  # None while the network is built
        self.seen.append(count)
        if count > self.most and self.error is not None:
            raise self.error
        if count > self.most:  # a petabyte
            many = ops.tile(ops.reshape(x, (1, -1)), (2**48 // max(1, x.shape[-1]), 1))
            x = x + 0 * ops.sum(ops.sort(many, axis=0))
        return x

    def compute_output_shape(self, shape):
        return shape


def hungry(most, error=None):
    """A network that is hungry, and its layer."""
    layer = Hungry(most, error, name="hungry")
    inputs = keras.Input((3, 32, 32), name="cutouts")
    x = layer(inputs)
    x = keras.layers.GlobalAveragePooling2D(name="features", data_format="channels_first")(x)
    network = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
    layer.seen.clear()
    return network, layer


def test_the_last_batch_is_filled_up_and_nothing_is_compiled_anew(images):
    network, layer = hungry(100)
    predictor = predicting.Predictor([predicting.prepare(network)], 3, views=8)
    layer.seen.clear()
    said = list(predicting.stream(predictor, (images[i : i + 3] for i in (0, 3, 6))))
    assert [len(one) for one in said] == [3, 3, 1]
    assert layer.seen == [3]


def test_networks_of_one_shape_are_compiled_once(images):
    first, layer = hungry(100)
    second, other = hungry(100)
    second.set_weights([w + 1 for w in second.get_weights()])
    ensemble = [predicting.prepare(one) for one in (first, second)]
    layer.seen.clear()
    other.seen.clear()
    got = predicting.predict(ensemble, lambda a, b: images[a:b], 7, 7).logits
    assert (layer.seen, other.seen) == ([7], [])
    for one, logits in zip((first, second), got[:, 0], strict=True):
        np.testing.assert_allclose(logits, np.asarray(one(images)), atol=1e-5)


@pytest.mark.parametrize(
    "kind",
    ["raised", pytest.param("happens", marks=pytest.mark.slow)],  # TensorFlow waits 20 s for it
)
def test_out_of_memory_halves_the_batch_and_goes_on(images, kind, caplog):
    """Once the error that TensorFlow raises is raised, once memory is really asked for."""
    raised = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    network, layer = hungry(2, raised if kind == "raised" else None)
    predictor = predicting.Predictor([predicting.prepare(network)], 7)
    said = list(predicting.stream(predictor, [images, images[:3]]))
    assert predictor.batch_size == 2
    expected = np.asarray(network(images[:2]))
    np.testing.assert_allclose(said[0].logits[0, 0, :2], expected, atol=1e-5)
    np.testing.assert_allclose(said[1].logits[0, 0], said[0].logits[0, 0, :3], atol=1e-5)
    assert len(said[0]) == 7
    texts = [record.getMessage().partition(" (")[0] for record in caplog.records]
    assert [text for text in texts if "out of memory" in text] == [
        "out of memory with 7 objects a pass: going on with 4",
        "out of memory with 4 objects a pass: going on with 2",
    ]


def test_a_device_too_small_for_one_object_says_so(images):
    error = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    network, _ = hungry(0, error)
    predictor = predicting.Predictor([predicting.prepare(network)], 4)
    with pytest.raises(devices.DeviceError, match=r"not even one object .*OOM when.*image_size"):
        predictor.predict(images)


def test_other_errors_are_not_taken_for_a_lack_of_memory(images):
    network, _ = hungry(0, tf.errors.InvalidArgumentError(None, None, "wrong shape"))
    predictor = predicting.Predictor([predicting.prepare(network)], 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="wrong shape"):
        predictor.predict(images)
    assert predictor.batch_size == 4
