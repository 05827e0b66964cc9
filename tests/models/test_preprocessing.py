import keras
import numpy as np
import pytest

from luneta.models.preprocessing import ChannelsLast, InputScaling, Resize, Stretch, mixing_kernel


def apply(layer, values):
    return keras.ops.convert_to_numpy(layer(np.asarray(values, dtype="float32")))


def test_asinh_stretch_of_literal_values():
    pixels = [[0, 3, -3, 250, 1000, np.inf, -1e6, np.nan]]
    # arcsinh(1) = 0.881374, arcsinh(250 / 3) = 5.116031
    unit = 0.881374 / 5.116031
    expected = [[0, unit, -unit, 1, 1, 1, -0.25, 0]]
    np.testing.assert_allclose(apply(Stretch("asinh", 3, 250), pixels), expected, atol=1e-6)


def test_linear_and_display_stretch():
    np.testing.assert_allclose(
        apply(Stretch("linear", 3, 250), [[0, 125, 500, -1000, np.nan]]), [[0, 0.5, 1, -0.25, 0]]
    )
    np.testing.assert_allclose(apply(Stretch("display"), [[0, 51, 255]]), [[0, 0.2, 1]])


def test_input_scaling():
    white = np.ones((1, 1, 1, 3))
    np.testing.assert_allclose(apply(InputScaling("signed"), white * [0, 0.5, 1]), [[[[-1, 0, 1]]]])
    red = white * [1, 0, 0]
    expected = [[[[-103.939, -116.779, 255 - 123.68]]]]  # blue, green, red
    np.testing.assert_allclose(apply(InputScaling("caffe"), red), expected, rtol=1e-6)


def test_channels_last_and_resize():
    x = np.arange(2 * 4 * 4).reshape(1, 2, 4, 4)
    turned = apply(ChannelsLast(), x)
    assert turned.shape == (1, 4, 4, 2) and turned[0, 1, 2, 1] == x[0, 1, 1, 2]
    assert apply(Resize(8), turned).shape == (1, 8, 8, 2)
    np.testing.assert_allclose(apply(Resize(2), np.ones((1, 6, 6, 2))), 1, rtol=1e-6)


@pytest.mark.parametrize("bands", [1, 2, 4, 5, 6])
def test_mixing_keeps_the_level(bands):
    kernel = mixing_kernel(bands)
    assert kernel.shape == (1, 1, bands, 3)
    np.testing.assert_allclose(kernel.sum(axis=2), 1, rtol=1e-6)
