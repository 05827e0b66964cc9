import numpy as np
import pytest

from lively import redraw
from luneta.models import devices, registry, stems

SMALL = {"MobileNetV2": 0.35, "ResNet18": 1.0, "VGG16": 1.0}


@pytest.fixture(scope="module", autouse=True)
def backend():
    devices.configure(2)


@pytest.fixture(scope="module")
def rgb_network():
    """A function that gives the RGB network of a name, made once, of random weights."""
    made = {}

    def give(name):
        if name not in made:
            made[name] = redraw(registry.create(name, (32, 32, 3), width=SMALL[name]))
        return made[name]

    return give


def widened(network, name, bands, kind, rgb=None, reverse=False):
    wide = registry.create(name, (32, 32, bands), width=SMALL[name])
    stems.copy_widened(network, wide, rgb, kind, reverse=reverse)
    return wide


def images(bands, seed=1):
    return np.random.default_rng(seed).normal(size=(2, 32, 32, bands)).astype("float32")


def assert_same_output(wide, many, network, few):
    expected, got = np.asarray(network(few)), np.asarray(wide(many))
    scale = expected.std()
    assert np.abs(expected[0] - expected[1]).max() > 0.5 * scale  # the image is seen in the output
    np.testing.assert_allclose(got / scale, expected / scale, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("rgb", [[0, 1, 2], [4, 2, 0]])
@pytest.mark.parametrize("name", SMALL)
def test_zero_gives_the_output_of_the_rgb_network(rgb_network, name, rgb):
    network = rgb_network(name)
    wide = widened(network, name, 5, "zero", rgb)
    many = images(5)
    assert_same_output(wide, many, network, many[..., rgb])
    # whatever the further bands hold
    others = [band for band in range(5) if band not in rgb]
    many[..., others] = 1e3 * images(2, seed=2)
    assert_same_output(wide, many, network, many[..., rgb])


@pytest.mark.parametrize("kind", ["mean", "copy"])
@pytest.mark.parametrize("bands", [1, 2, 4, 5])
@pytest.mark.parametrize("name", SMALL)
def test_response_to_a_grey_image_is_kept(rgb_network, name, bands, kind):
    network, grey = rgb_network(name), images(1)
    wide = widened(network, name, bands, kind)
    assert_same_output(wide, grey.repeat(bands, axis=-1), network, grey.repeat(3, axis=-1))


def test_a_reversed_stem_takes_the_survey_order(rgb_network):
    network, many = rgb_network("MobileNetV2"), images(4)
    wide = widened(network, "MobileNetV2", 4, "zero", reverse=True)
    assert_same_output(wide, many, network, many[..., [2, 1, 0]])


def test_widened_kernels_of_literal_values():
    kernel = np.array([1.0, 2.0, 6.0], dtype="float32").reshape(1, 1, 3, 1)

    def weights(*arguments):
        return stems.widen(kernel, *arguments).ravel().tolist()

    assert weights(1, None, "mean") == [9]
    assert weights(2, None, "mean") == [4.5, 4.5]
    assert weights(4, None, "mean") == [2.25] * 4
    assert weights(1, None, "copy") == [9]
    assert weights(2, None, "copy") == [2, 7]
    assert weights(5, None, "copy") == [0.5, 1, 6, 0.5, 1]
    assert weights(4, [3, 2, 0], "copy") == [6, 0.5, 2, 0.5]
    assert weights(4, None, "zero") == [1, 2, 6, 0]
    assert weights(5, [3, 2, 0], "zero") == [6, 0, 2, 1, 0]
    assert weights(2, None, "zero") == [2, 7]
    assert stems.widen(kernel, 4).dtype == "float32"


def test_what_bands_stand_for():
    assert stems.channels(3) == [0, 1, 2]
    assert stems.channels(3, [2, 0, 1]) == [1, 2, 0]
    assert stems.channels(4) == [None] * 4
    assert stems.channels(5, None, "copy") == [0, 1, 2, 0, 1]
    assert stems.channels(4, [3, 2, 0], "copy") == [2, 0, 1, 0]
    assert stems.channels(4, [3, 2, 0], "zero") == [2, None, 1, 0]
    assert stems.channels(2, None, "zero") == [None, None]


@pytest.mark.parametrize("bands", [1, 3, 4])
@pytest.mark.parametrize(
    ("name", "side", "kernel"),
    [
        ("ResNet50", 32, (7, 7, 64)),
        ("Xception", 71, (3, 3, 32)),
        ("SqueezeNet", 31, (3, 3, 64)),
        ("ConvNeXtTiny", 32, (4, 4, 96)),
    ],
)
def test_stem_is_found(name, side, kernel, bands):
    stem = stems.find(registry.create(name, (side, side, bands)))
    assert tuple(stem.shape) == (*kernel[:2], bands, kernel[2])


def test_unknown_kind_and_other_stems_are_refused():
    with pytest.raises(ValueError, match="no way 'half'.*mean"):
        stems.widen(np.zeros((3, 3, 3, 8)), 4, None, "half")
    with pytest.raises(ValueError, match="only a stem of 3 bands.*this has 5"):
        stems.widen(np.zeros((3, 3, 5, 8)), 4)
