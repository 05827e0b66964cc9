import numpy as np
import pytest
from keras import ops

from luneta.config import Augmentation
from luneta.training import augmentation
from luneta.training.augmentation import Blur, Dihedral, Noise, ShiftZoom


def changed(layer, images):
    return ops.convert_to_numpy(layer(images, training=True))


def random_images(count=4, side=12, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 2, side, side)).astype("float32")


def spot(count, side, y, x):
    images = np.zeros((count, 1, side, side), "float32")
    images[:, :, y, x] = 1
    return images


def centroid(images):
    flux = images.sum(axis=(1, 2, 3))
    places = np.arange(images.shape[-1])
    y = (images.sum(axis=(1, 3)) * places).sum(axis=1) / flux
    return y, (images.sum(axis=(1, 2)) * places).sum(axis=1) / flux


def test_dihedral_moves_pixels_through_the_whole_group():
    image = np.arange(9, dtype="float32").reshape(1, 1, 3, 3)
    image[0, 0, 0, 1] = np.nan  # the mask moves along
    turned = changed(Dihedral(5), np.repeat(image, 200, axis=0))
    group = {np.rot90(m, k).tobytes() for m in (image[0, 0], image[0, 0].T) for k in range(4)}
    assert len(group) == 8
    assert {np.ascontiguousarray(x[0]).tobytes() for x in turned} == group


@pytest.mark.parametrize(
    "layer", [Dihedral(1), ShiftZoom(3, 0.2, 1), Blur(2.0, 1), Noise(5.0, 1)], ids=str
)
def test_nothing_changes_at_inference(layer):
    images = random_images()
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(images)), images)
    assert not np.allclose(changed(layer, images), images)


@pytest.mark.parametrize(
    "layer", [ShiftZoom(0.0, 0.0, 1), Blur(0.0, 1), Noise(0.0, 1)], ids=["shift", "blur", "noise"]
)
def test_amount_zero_is_the_identity(layer):
    images = random_images()
    np.testing.assert_allclose(changed(layer, images), images, rtol=0, atol=1e-6)


def test_whole_shift_moves_pixels_and_sky_moves_in():
    images = random_images(2, side=5)
    shift, one = np.array([2.0, -1.0], "float32").reshape(2, 1, 1), np.ones((2, 1, 1), "float32")
    rows = augmentation.bilinear_weights(5, shift, one)
    columns = augmentation.bilinear_weights(5, -shift, one)
    moved = ops.convert_to_numpy(augmentation.separable(images, rows, columns))
    expected = np.zeros_like(images)
    expected[0, :, 2:, :3] = images[0, :, :3, 2:]  # down by 2, left by 2
    expected[1, :, :4, 1:] = images[1, :, 1:, :4]  # up by 1, right by 1
    np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_random_shifts_stay_within_their_bound_and_are_bilinear():
    moved = changed(ShiftZoom(2.5, 0.0, 3), spot(300, 21, 10, 10))
    np.testing.assert_allclose(moved.sum(axis=(1, 2, 3)), 1, atol=1e-5)
    for along in centroid(moved):
        shift = along - 10
        assert np.abs(shift).max() <= 2.5
        assert shift.std() == pytest.approx(2.5 / np.sqrt(3), rel=0.1)  # uniform
    assert np.corrcoef(*centroid(moved))[0, 1] == pytest.approx(0, abs=0.2)


def test_zoom_scales_distances_from_the_middle():
    side, ones = 21, np.full((1, 1, 1), 1.25, "float32")
    weights = augmentation.bilinear_weights(side, 0 * ones, ones)
    image = spot(1, side, 14, 6)
    zoomed = ops.convert_to_numpy(augmentation.separable(image, weights, weights))
    y, x = centroid(zoomed)
    np.testing.assert_allclose([y[0], x[0]], [10 + 4 * 1.25, 10 - 4 * 1.25], atol=1e-4)


def test_zooms_stay_within_their_bound():
    wide = np.zeros((200, 1, 41, 41), "float32")
    wide[:, :, 10:31, 10:31] = 1
    area = changed(ShiftZoom(0.0, 0.2, 3), wide).sum(axis=(1, 2, 3)) / 21**2
    assert 0.8**2 - 0.01 < area.min() < 0.7
    assert 1.35 < area.max() < 1.2**2 + 0.01


@pytest.mark.parametrize("layer", [ShiftZoom(0.0, 0.0, 1), Blur(0.0, 1)], ids=["shift", "blur"])
def test_bad_pixels_become_sky_before_interpolation(layer):
    images = random_images()
    images[:, 0, 3, 4] = np.nan
    np.testing.assert_allclose(changed(layer, images), np.nan_to_num(images), atol=1e-6)


def test_noise_has_its_scatter_and_leaves_bad_pixels_bad():
    images = np.zeros((400, 1, 16, 16), "float32")
    images[:, :, 2, 3] = np.nan
    noisy = changed(Noise(4.0, 2), images)
    assert np.isnan(noisy[:, 0, 2, 3]).all()
    assert np.isnan(noisy).sum() == 400
    scatter = np.nanstd(noisy, axis=(1, 2, 3))
    assert scatter.max() < 4.4  # 4 and the scatter of a scatter of 255 pixels
    assert scatter.mean() == pytest.approx(2, rel=0.1)
    assert np.nanmean(noisy) == pytest.approx(0, abs=0.05)


def test_blur_conserves_flux_and_widens_by_sigma():
    sigma = np.array([0.8, 1.5], "float32").reshape(2, 1, 1)
    weights = augmentation.gaussian_weights(31, sigma, 1.5)
    blurred = ops.convert_to_numpy(augmentation.separable(spot(2, 31, 15, 15), weights, weights))
    np.testing.assert_allclose(blurred.sum(axis=(1, 2, 3)), 1, atol=1e-5)
    offsets = np.arange(31) - 15
    variance = (blurred.sum(axis=(1, 2)) * offsets**2).sum(axis=1)
    np.testing.assert_allclose(np.sqrt(variance), [0.8, 1.5], rtol=2e-3)
    distance = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 0.8**2))
    np.testing.assert_allclose(blurred[0, 0], distance / distance.sum(), atol=1e-6)


def test_random_blurs_stay_within_their_bound():
    blurred = changed(Blur(1.5, 4), spot(200, 31, 15, 15))
    variance = (blurred.sum(axis=(1, 2)) * (np.arange(31) - 15) ** 2).sum(axis=1)
    assert variance.max() <= 1.5**2 * 1.001
    assert np.sqrt(variance).mean() == pytest.approx(0.75, rel=0.15)


def test_layers_of_a_config():
    everything = Augmentation(shift=1, zoom=0.1, blur=1, noise=1)
    names = [layer.name for layer in augmentation.layers(everything, 1)]
    assert names == ["dihedral", "shift_zoom", "blur", "noise"]
    assert augmentation.layers(Augmentation(dihedral=False), 1) == []


def test_seeds_repeat_and_differ():
    first, second, other = (changed(Noise(1.0, seed), random_images()) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)
