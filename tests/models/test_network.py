import os
import pickle
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

from lively import redraw
from luneta.config import ACTIVATIONS, Training
from luneta.models import devices, preprocessing
from luneta.models import network as networks
from luneta.models.saving import NetworkFileError

BANDS = ["u", "g", "r", "i", "z"]
LOAD_WITH_KERAS_ALONE = """
import sys
sys.modules["luneta"] = None  # importing it fails
import keras, numpy as np
for path in sys.argv[1:]:
    network = keras.models.load_model(path)
    images = np.load(path.replace(".keras", ".npz"))
    np.testing.assert_array_equal(network.predict_on_batch(images["cutouts"]), images["logits"])
"""


@pytest.fixture(scope="module", autouse=True)
def backend():
    devices.configure(2)


def build(bands=3, pixels="flux", size=40, statistics=None, **training):
    small = {"backbone": "MobileNet", "width": 0.25} if "backbone" not in training else {}
    settings = Training(**{"weights": "none", **small, **training})
    network = networks.build(settings, BANDS[:bands], size, pixels, 3, 7, statistics=statistics)
    redraw(network.get_layer("backbone"))
    return network


def cutouts(count=4, bands=3, size=40):
    images = np.random.default_rng(0).normal(3, 20, (count, bands, size, size)).astype("float32")
    images[0, 0, 3:5] = np.nan
    return images


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
    assert logits.shape == (4, 3) and logits.dtype == "float32"
    assert np.ptp(logits, axis=0).min() > 1e-3  # objects differ
    np.testing.assert_array_equal(loaded.predict_on_batch(images), logits)
    assert networks.digest(loaded) == networks.digest(network)


def test_saved_network_needs_keras_alone(tmp_path):
    images, paths = cutouts(bands=4), []
    for i, (stretch, noise, normalisation) in enumerate(
        [
            ("asinh", "cutout", "image"),
            ("lupton", "training", "band"),
            ("percentile",) + ("none",) * 2,
        ]
    ):
        settings = {"stretch": stretch, "noise_scaling": noise, "normalisation": normalisation}
        training = {"preprocessing": {**settings, "clip": 250}, "image_size": 32, "stem": "copy"}
        known = preprocessing.measure(images, Training(**training), "flux")
        network = build(4, statistics=known, head_units=[6], **training)
        paths.append(tmp_path / f"{i}.keras")
        networks.save(network, paths[-1])
        logits = network.predict_on_batch(images)
        np.savez(paths[-1].with_suffix(".npz"), cutouts=images, logits=logits)
    run = subprocess.run(
        [sys.executable, "-I", "-c", LOAD_WITH_KERAS_ALONE, *map(str, paths)],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_equal_networks_give_equal_bytes(tmp_path):
    settings = {"preprocessing": {"noise_scaling": "cutout"}, "head_units": [4]}
    for name in ("one", "two"):
        keras.utils.clear_session()
        networks.save(build(4, **settings), tmp_path / f"{name}.keras")
        keras.ops.abs(keras.Input((2,)))
    assert (tmp_path / "one.keras").read_bytes() == (tmp_path / "two.keras").read_bytes()
    networks.save(networks.load(tmp_path / "one.keras"), tmp_path / "three.keras")
    networks.save(networks.load(tmp_path / "one.keras"), tmp_path / "four.keras")
    assert (tmp_path / "three.keras").read_bytes() == (tmp_path / "four.keras").read_bytes()


def test_bad_pixel_is_sky():
    network = build()
    holes, zeros = cutouts(), cutouts()
    zeros[:, :, 5:9], holes[:, :, 5:9] = 0, np.nan
    zeros[0, 0, 3:5] = 0
    np.testing.assert_array_equal(network.predict_on_batch(holes), network.predict_on_batch(zeros))


def test_seed_fixes_the_weights():
    def digest(seed):
        training = Training(backbone="MobileNet", width=0.25, weights="none")
        return networks.digest(networks.build(training, BANDS, 32, "flux", 2, seed))

    assert digest(1) == digest(1) != digest(2)


@pytest.mark.parametrize("setting", [{"normalisation": "band"}, {"noise_scaling": "training"}])
def test_statistics_change_the_digest(setting):
    training = {"preprocessing": setting}
    first, second = (
        preprocessing.measure(cutouts() * factor, Training(**training), "flux") for factor in (1, 2)
    )
    one, same, other = (build(statistics=x, **training) for x in (first, first, second))
    assert networks.digest(one) == networks.digest(same) != networks.digest(other)


@pytest.mark.parametrize(("name", "side"), [("MobileNet", 40), ("LeNet5", 40)])
def test_features_and_head_are_the_network(name, side):
    width = 0.25 if name == "MobileNet" else 1
    network = build(backbone=name, width=width, head_units=[6, 5], dropout=0.5)
    images = cutouts()
    features, logits = networks.with_features(network).predict_on_batch(images)
    np.testing.assert_array_equal(logits, network.predict_on_batch(images))
    assert features.ndim == 2 and features.dtype == "float32"
    head = networks.head(network)
    assert head.input_shape == (None, features.shape[1])
    np.testing.assert_allclose(head(features), logits, rtol=1e-5, atol=1e-6)
    assert [x.name for x in head.layers if x.weights] == ["hidden_1", "hidden_2", "logits"]
    assert np.abs(head(features, training=True) - logits).max() > 1e-4


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_head_of_every_activation(activation):
    network = build(backbone="LeNet5", activation=activation, head_units=[6], size=16)
    features, logits = networks.with_features(network).predict_on_batch(cutouts(size=16))
    np.testing.assert_allclose(networks.head(network)(features), logits, rtol=1e-5, atol=1e-6)


def test_features_are_the_mean_of_the_map():
    network, images = build(), cutouts()
    inner = network.get_layer("backbone")(network.get_layer("preprocessing")(images))
    features, _ = networks.with_features(network).predict_on_batch(images)
    np.testing.assert_allclose(features, np.asarray(inner).mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


def test_head_has_the_activation_of_the_settings():
    network = build(backbone="ResNet18", activation="tanh", head_units=[4], size=32)
    assert network.get_layer("hidden_1_activation").activation is keras.activations.tanh


def test_training_leaves_the_statistics_alone():
    settings = {"preprocessing": {"normalisation": "band", "noise_scaling": "training"}}
    known = preprocessing.measure(cutouts(), Training(**settings), "flux")
    network = build(statistics=known, **settings)
    networks.freeze(network, backbone=False, batch_norm=False)
    before = network.get_layer("preprocessing").get_weights()
    assert not network.get_layer("preprocessing").trainable_weights
    train(network)
    for a, b in zip(before, network.get_layer("preprocessing").get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def train(network, steps=2):
    network.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = cutouts(), np.arange(4) % 3
    return [network.train_on_batch(images, labels) for _ in range(steps)]


def moved(network, **frozen):
    """Give the names of the layers whose weights two steps of training change."""
    networks.freeze(network, **frozen)
    layers = {x.name: x for x in [*network.get_layer("backbone").layers, *network.layers]}
    layers = {n: x for n, x in layers.items() if x.weights and n != "backbone"}
    before = {name: layer.get_weights() for name, layer in layers.items()}
    train(network)
    return {
        name
        for name, layer in layers.items()
        if any((a != b).any() for a, b in zip(before[name], layer.get_weights(), strict=True))
    }


def test_frozen_backbone_does_not_move():
    assert moved(build(), backbone=True, batch_norm=True) == {"logits"}
    assert moved(build(), backbone=True, batch_norm=False) == {"logits"}


def test_frozen_batch_norm_keeps_its_statistics_to_the_bit():
    network = build()
    names = {layer.name for layer in networks.batch_norms(network)}
    changed = moved(network, backbone=False, batch_norm=True)
    assert len(names) == 27 and not changed & names
    assert {"conv1", "conv_pw_13", "logits"} <= changed
    assert names <= moved(build(), backbone=False, batch_norm=False)


def test_first_loss_after_unfreezing_is_that_before_it():
    network = build(dropout=0)
    networks.freeze(network, backbone=True, batch_norm=True)
    frozen = train(network, steps=1)[0]
    network = build(dropout=0)
    networks.freeze(network, backbone=False, batch_norm=True)
    assert train(network, steps=1)[0] == pytest.approx(frozen, rel=1e-5)


@pytest.mark.parametrize("count", [1, 3, 99])
def test_last_blocks_are_set_free(count):
    network = build()
    blocks = networks.blocks(network)
    changed = moved(network, backbone=False, batch_norm=False, unfreeze=count)
    free = {layer.name for block in blocks[-min(count, len(blocks)) :] for layer in block}
    assert changed == free | {"logits"}
    assert {x.name for b in blocks for x in b} == {
        x.name for x in network.get_layer("backbone").layers if x.weights
    }
    networks.freeze(network, backbone=False, batch_norm=False)
    assert all(layer.trainable for layer in network.get_layer("backbone").layers)


def test_momentum_is_lowered_from_random_weights():
    assert {layer.momentum for layer in networks.batch_norms(build())} == {0.9}


@pytest.mark.bfloat16
def test_mixed_precision_ends_in_float32():
    images = cutouts()
    settings = {"head_units": [6], "preprocessing": {"noise_scaling": "cutout"}}
    exact = build(**settings)
    features, _ = networks.with_features(exact).predict_on_batch(images)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = build(**settings)
    finally:
        keras.config.set_dtype_policy("float32")
    outputs = {x.name: x.output.dtype for x in network.layers}
    assert outputs == {
        "cutouts": "float32",
        "preprocessing": "float32",
        "backbone": "bfloat16",
        "features": "float32",
        "dropout_1": "bfloat16",
        "hidden_1": "bfloat16",
        "hidden_1_activation": "bfloat16",
        "dropout": "bfloat16",
        "logits": "float32",
    }
    assert {w.dtype for w in network.weights} == {"float32"}
    got_features, got_logits = networks.with_features(network).predict_on_batch(images)
    assert {got_features.dtype, got_logits.dtype} == {np.dtype("float32")}
    layers = sum(1 for x in exact.get_layer("backbone").layers if x.count_params())
    assert relative(got_features, features) < BFLOAT16_EPSILON * layers**0.5
    logits, sizes = head_in_float32(exact, got_features)
    assert (np.abs(got_logits - logits) < 4 * BFLOAT16_EPSILON * sizes).all()
    raw = [x.get_layer("preprocessing")(images) for x in (network, build(**settings))]
    np.testing.assert_array_equal(*map(np.asarray, raw))


BFLOAT16_EPSILON = 2.0**-8  # 8 bits of significand, of which the first is not stored


def relative(got, expected):
    """Root mean square of the difference over that of the values."""
    return np.sqrt(np.mean((got - expected) ** 2) / np.mean(expected**2))


def head_in_float32(network, features):
    """Logits of the head, and the sum of the sizes of all terms: what rounding is relative to."""
    (first, first_bias), (last, last_bias) = (
        network.get_layer(name).get_weights() for name in ("hidden_1", "logits")
    )
    hidden = np.maximum(features @ first + first_bias, 0)
    sizes = (np.abs(features) @ np.abs(first) + np.abs(first_bias)) @ np.abs(last)
    return hidden @ last + last_bias, sizes + np.abs(last_bias)


def test_named_bands_reach_the_backbone_as_red_green_blue():
    images = cutouts(bands=3)
    given = build(backbone="MobileNet", width=0.25, rgb=["r", "u", "g"])
    plain = build(backbone="MobileNet", width=0.25)
    np.testing.assert_array_equal(
        given.predict_on_batch(images), plain.predict_on_batch(images[:, [2, 0, 1]])
    )
    for rgb in (["g", "r", "K"], ["g", "g", "r"]):
        with pytest.raises(ValueError, match=r"training.rgb.*three different bands of \['u', 'g'"):
            build(rgb=rgb)


def test_small_cutouts_are_explained():
    with pytest.raises(ValueError, match="at least 32 px, these have 24.*image_size"):
        build(size=24)


def test_foreign_networks_with_code_are_refused(tmp_path):
    inputs = keras.Input((4,))
    path = tmp_path / "x.keras"
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(path)
    with pytest.raises(
        NetworkFileError, match="x.keras is refused: it holds a Lambda layer.*build"
    ):
        networks.load(path)
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(NetworkFileError, match="x.keras is refused: it is a Python pickle.*give"):
        networks.load(path)


class Unknown(keras.layers.Layer):
    def call(self, x):
        return x


def test_unreadable_networks_are_explained(tmp_path):
    path = tmp_path / "x.keras"
    with pytest.raises(NetworkFileError, match="there is no network"):
        networks.load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(NetworkFileError, match="x.keras is no .keras network, or is damaged"):
        networks.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(
        NetworkFileError, match="x.keras cannot be loaded.*layers that Keras itself"
    ):
        networks.load(path)
    inputs = keras.Input((4,))
    keras.Model(inputs, Unknown()(inputs)).save(path)
    with pytest.raises(
        NetworkFileError, match="x.keras cannot be loaded.*layers that Keras itself"
    ):
        networks.load(path)
