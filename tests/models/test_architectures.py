import os
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from luneta.models.activations import ACTIVATIONS
from luneta.models.architectures import classic, inception, lenses, residual, squeezenet
from luneta.models.architectures.layers import normalise_responses

SQUEEZENET = (
    Path(__file__).parents[2].parent
    / "shared/weights/squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"
)


@pytest.fixture(autouse=True)
def forget():
    yield
    keras.backend.clear_session()


def counts(network):
    """All parameters, and those trained."""
    trained = sum(int(np.prod(v.shape)) for v in network.trainable_variables)
    return network.count_params(), trained


def test_lenet5():
    # LeCun et al. 1998, with full connections: 156 + 2416 + 48120 + 10164 + 850
    assert counts(classic.lenet5((32, 32, 1), 10)) == (61_706, 61_706)


def test_lenet5_averages():
    network = classic.lenet5((32, 32, 1), 10)
    pools = [x for x in network.layers if "pool" in x.name]
    assert [type(x).__name__ for x in pools] == ["AveragePooling2D", "AveragePooling2D"]


def test_alexnet():
    # Krizhevsky et al. 2012, as counted for Caffe's grouped form
    assert counts(classic.alexnet((227, 227, 3), 1000)) == (60_965_224, 60_965_224)


@pytest.mark.slow
def test_overfeat():
    # Sermanet et al. 2013, table 1 and section 3.3: 145 million, 12 x 12 after the second pooling
    network = classic.overfeat((231, 231, 3), 1000)
    assert counts(network) == (145_920_872, 145_920_872)
    assert network.get_layer("block2_pool").output.shape == (None, 12, 12, 256)
    assert network.get_layer("block5_pool").output.shape == (None, 6, 6, 1024)


def test_googlenet():
    # bvlc_googlenet without its auxiliary heads
    network = inception.googlenet((224, 224, 3), 1000)
    assert counts(network) == (6_998_552, 6_998_552)
    # Output sizes of table 1 of the paper
    for name, shape in (("block2_3a", (28, 28, 256)), ("block3_4e", (14, 14, 832))):
        assert network.get_layer(f"{name}_concat").output.shape[1:] == shape
    assert network.get_layer("block4_5b_concat").output.shape[1:] == (7, 7, 1024)


def test_inception_v4():
    network = inception.inception_v4((299, 299, 3), 1000)
    assert counts(network)[1] == 42_679_816
    # Figure 9 of the paper
    assert network.get_layer("block1_join3_concat").output.shape[1:] == (35, 35, 384)
    assert network.get_layer("block3_reduction_concat").output.shape[1:] == (17, 17, 1024)
    assert network.get_layer("block4_module3_concat").output.shape[1:] == (8, 8, 1536)


@pytest.mark.parametrize(
    ("build", "trained"),
    [
        (residual.resnet18, 11_689_512),
        (residual.resnet34, 21_797_672),
        (residual.resnext50, 25_028_904),
    ],
)
def test_residual_networks_have_the_published_counts(build, trained):
    network = build((224, 224, 3), 1000)
    assert counts(network)[1] == trained
    assert network.get_layer("pool").input.shape[1:3] == (7, 7)


def test_squeezenet():
    assert counts(squeezenet.squeezenet((227, 227, 3), 1000)) == (1_235_496, 1_235_496)
    assert squeezenet.squeezenet((227, 227, 3)).count_params() == 722_496


@pytest.mark.skipif(not SQUEEZENET.is_file(), reason=f"{SQUEEZENET.name} is not in shared/")
def test_squeezenet_fits_the_file_of_keras_squeezenet():
    network = squeezenet.squeezenet((227, 227, 3))
    with h5py.File(SQUEEZENET) as file:
        groups = [file[name] for name in file.attrs["layer_names"]]
        stored = [
            (group.name.strip("/").replace("/", "_"), group[weight].shape)
            for group in groups
            for weight in group.attrs["weight_names"]
        ]
    ours = [(x.name, tuple(v.shape)) for x in network.layers for v in x.weights]
    assert len(stored) == 50
    assert ours == stored


def preactivated(inside, outside, first, before):
    """Parameters of a pre-activated bottleneck, by hand: all, moving statistics."""
    convolutions = before * inside + 9 * inside**2 + inside * outside + outside
    shortcut = before * outside + outside if before != outside else 0
    channels = 2 * inside + (0 if first else before)
    return convolutions + shortcut + 4 * channels, 2 * channels


def test_dai_tong_resnet26():
    # definition: 6x6-64, then 2 bottlenecks in each of 4 blocks, k = 2, final norm, 5 classes
    total, moving = 6 * 6 * 3 * 64 + 64 + 4 * 4096 + 4096 * 5 + 5, 2 * 4096
    before = 64
    for inside in (128, 256, 512, 1024):
        for _ in range(2):
            more, still = preactivated(inside, 4 * inside, False, before)
            total, moving, before = total + more, moving + still, 4 * inside
    network = residual.dai_tong_resnet26((64, 64, 3), 5)
    assert counts(network) == (total, total - moving) == (55_725_637, 55_679_429)
    # 2 x 2 pooling, then three of four blocks halve
    assert network.get_layer("pool").input.shape == (None, 4, 4, 4096)
    convolutions = [x for x in network.layers if "_conv" in x.name and "norm" not in x.name]
    assert len([x for x in convolutions if isinstance(x, keras.layers.Conv2D)]) == 25


def test_cmu_deeplens():
    # 7x7-32, then 3 bottlenecks in each of 5 blocks, half as wide inside as outside, 1 logit
    total, moving = 7 * 7 * 4 * 32 + 4 * 32 + 512 + 1, 2 * 32
    before = 32
    for outside in (32, 64, 128, 256, 512):
        for i in range(3):
            first = outside == 32 and i == 0
            more, still = preactivated(outside // 2, outside, first, before)
            total, moving, before = total + more, moving + still, outside
    network = lenses.cmu_deeplens((101, 101, 4), 1)
    assert counts(network) == (total, total - moving) == (3_524_193, 3_513_249)
    convolutions = [x for x in network.layers if isinstance(x, keras.layers.Conv2D)]
    assert len([x for x in convolutions if "shortcut" not in x.name]) == 46
    assert "block3_unit1_elu" in [x.name for x in network.layers]


def test_resnet50_lens_finder():
    total, trained = counts(lenses.resnet50_lens_finder((101, 101, 3), 2))
    assert (total, trained, total - trained) == (23_591_810, 23_538_690, 53_120)


def test_lens_detect_net_meets_the_published_counts():
    network = lenses.lens_detect_net((101, 101, 1), 2)
    total, trained = counts(network)
    assert (total, trained, total - trained) == (49_714_696, 49_712_008, 2_688)
    norms = [x for x in network.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert sum(x.input.shape[-1] for x in norms) == 1_344


def test_responses_are_divided_by_their_neighbours():
    images = np.random.default_rng(3).normal(0, 50, (2, 3, 4, 7)).astype("float32")
    inputs = keras.Input((3, 4, 7))
    network = keras.Model(inputs, normalise_responses(inputs))
    expected = np.empty_like(images, dtype="float64")
    for i in range(7):
        near = images[..., max(0, i - 2) : i + 3].astype("float64")
        expected[..., i] = images[..., i] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(network(images), expected, rtol=1e-5)


SMALL = {
    classic.lenet5: (16, 16, 2),
    inception.googlenet: (32, 32, 2),
    residual.resnet18: (32, 32, 2),
    squeezenet.squeezenet: (31, 31, 2),
    lenses.cmu_deeplens: (16, 16, 2),
    lenses.lens_detect_net: (15, 15, 2),
}


@pytest.mark.parametrize("build", SMALL, ids=lambda x: x.__name__)
@pytest.mark.parametrize("activation", ["prelu", "arctan"])
def test_activation_is_the_one_asked_for(build, activation):
    network = build(SMALL[build], activation=activation)
    bends = {type(x).__name__ for x in network.layers} & {"PReLU", "Activation", "LeakyReLU"}
    assert bends == ({"PReLU"} if activation == "prelu" else set())


@pytest.mark.slow
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("build", SMALL, ids=lambda x: x.__name__)
def test_every_activation_builds(build, activation):
    shape = SMALL[build]
    network = build(shape, 3, activation=activation)
    logits = network.predict_on_batch(np.ones((2, *shape), dtype="float32"))
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()


PLAIN_KERAS = """
import sys
import keras
import numpy as np

for path in sys.argv[1:]:
    network = keras.models.load_model(path, safe_mode=True)
    images = np.load(path + ".npz")
    np.testing.assert_array_equal(network(images["images"]), images["outputs"])
assert "luneta" not in sys.modules
print("same")
"""


def reload_with_keras_alone(networks, folder):
    """Save networks, load them in another process, compare what they give there."""
    paths = []
    for network in networks:
        shape = (2, *network.input_shape[1:])
        images = np.random.default_rng(0).normal(0, 1, shape).astype("float32")
        path = str(folder / f"{network.name}.keras")
        network.save(path)
        np.savez(f"{path}.npz", images=images, outputs=network(images))
        paths.append(path)
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_KERAS, *paths],
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "same\n", done.stderr


def test_saved_networks_need_keras_alone(tmp_path):
    networks = [
        classic.lenet5((16, 16, 2), 3, activation="binary_step"),
        inception.googlenet((32, 32, 2), 3, activation="arctan"),
        lenses.lens_detect_net((15, 15, 2), 3, activation="prelu"),
    ]
    reload_with_keras_alone(networks, tmp_path)


@pytest.mark.slow
def test_all_saved_networks_need_keras_alone(tmp_path):
    """ConvNeXt, whose layers of its own Keras finds again, and all that are built here."""
    networks = [build(shape, 3) for build, shape in SMALL.items()]
    networks += [keras.applications.ConvNeXtTiny(weights=None, input_shape=(32, 32, 3))]
    networks += [residual.resnext50((32, 32, 2), 3), residual.dai_tong_resnet26((16, 16, 2), 3)]
    networks += [classic.alexnet((67, 67, 2), 3), inception.inception_v4((75, 75, 2), 3)]
    reload_with_keras_alone(networks, tmp_path)
