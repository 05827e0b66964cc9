import json

import keras
import numpy as np
import pytest

from luneta.config.training import Preprocessing, Training
from luneta.models import preprocessing
from luneta.models.preprocessing import Statistics


def run(images, pixels="flux", side=None, scaling="none", channels=None, known=None, **settings):
    """Preprocess (object, band, y, x) and give (object, band, y, x) back."""
    images = np.asarray(images, dtype="float32")
    bands, size = images.shape[1:3]
    model = preprocessing.build(
        Preprocessing(**settings), bands, size, side or size, pixels, scaling, channels, known
    )
    return keras.ops.convert_to_numpy(model(images)).transpose(0, 3, 1, 2)


def one(values, **options):
    """Preprocess one band of one cutout, whose pixels are the values and further zeros."""
    side = int(np.ceil(np.sqrt(len(values))))
    pixels = np.zeros(side**2)
    pixels[: len(values)] = values
    return run(pixels.reshape(1, 1, side, side), **options).ravel()[: len(values)]


def sky(count=3, bands=2, size=12, seed=0):
    random = np.random.default_rng(seed)
    images = random.normal(2, [[[[1]], [[5]], [[9]], [[3]]]][0][:bands], (count, bands, size, size))
    images[:, :, 4:7, 4:7] += 80
    images[0, 0, 0, :5] = np.nan
    return images.astype("float32")


def test_asinh_stretch_of_literal_values():
    pixels = [0, 3, -3, 250, 1000, np.inf, -np.inf, -1e6, np.nan]
    # arcsinh(1) = 0.881374, arcsinh(250 / 3) = 5.116031
    unit = 0.881374 / 5.116031
    expected = [0, unit, -unit, 1, 1, 1, -0.25, -0.25, 0]
    np.testing.assert_allclose(one(pixels, softening=3, maximum=250), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"stretch": "linear", "maximum": 250}, [0, 0.5, 1, -0.25, 0]),
        ({"stretch": "sqrt", "maximum": 250}, [0, 0.5**0.5, 1, -0.25, 0]),
        ({"stretch": "none"}, [0, 125, 500, -1000, 0]),
        ({"stretch": "none", "clip": 250}, [0, 125, 250, -250, 0]),
        ({"stretch": "sqrt", "maximum": 1e4}, [0, 0.0125**0.5, 0.05**0.5, -0.25, 0]),
    ],
)
def test_other_stretches_of_literal_values(settings, expected):
    got = one([0, 125, 500, -1000, np.nan], **settings)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_negative_pixels_are_mirrored_by_sqrt():
    np.testing.assert_allclose(one([-4.0], stretch="sqrt", maximum=100), [-0.2], rtol=1e-6)


def test_display_pixels_are_only_divided():
    settings = {"stretch": "sqrt", "clip": 3, "noise_scaling": "cutout"}
    got = one([0, 51, 255, np.nan], pixels="display", **settings)
    np.testing.assert_allclose(got, [0, 0.2, 1, 0], rtol=1e-6)


def test_lupton_keeps_colours_and_is_asinh_of_a_grey_pixel():
    pixels = np.zeros((1, 3, 2, 2))
    pixels[0, :, 0, 0] = 7, 7, 7
    pixels[0, :, 0, 1] = 2, 4, 12
    pixels[0, :, 1, 0] = 100, 300, 900
    got = run(pixels, stretch="lupton", softening=3, maximum=250)[0]
    white = np.arcsinh(250 / 3)
    np.testing.assert_allclose(got[:, 0, 0], np.arcsinh(7 / 3) / white, rtol=1e-5)
    # I = 6: x arcsinh(6 / 3) / 6 / arcsinh(250 / 3)
    np.testing.assert_allclose(
        got[:, 0, 1], np.array([2, 4, 12]) * np.arcsinh(2) / 6 / white, rtol=1e-5
    )
    # the brightest band would exceed 1: it is 1, and colours stay
    np.testing.assert_allclose(got[:, 1, 0], [1 / 9, 1 / 3, 1], rtol=1e-5)
    assert (got[:, 1, 1] == 0).all()


def test_lupton_near_zero_mean_is_linear():
    pixels = np.zeros((1, 2, 1, 1))
    pixels[0, :, 0, 0] = 1, -1
    got = run(pixels, stretch="lupton", softening=3, maximum=250).ravel()
    np.testing.assert_allclose(got, np.array([1, -1]) / 3 / np.arcsinh(250 / 3), rtol=1e-5)


def test_percentiles_are_those_of_the_good_pixels():
    images = sky()
    got = run(images, stretch="percentile", percentiles=[5, 90])
    low, high = np.nanpercentile(images.astype("float64"), [5, 90], axis=(2, 3), keepdims=True)
    expected = np.clip((np.nan_to_num(images) - low) / (high - low), 0, 1)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert (run(np.full((1, 1, 4, 4), 7), stretch="percentile") == 0).all()


def test_noise_of_the_cutout_is_the_mad_of_its_good_pixels():
    images = sky()
    images[2, 1] = np.nan
    got = run(images, stretch="none", noise_scaling="cutout")
    middle = np.nanmedian(images[:2], axis=(2, 3), keepdims=True)
    sigma = 1.4826 * np.nanmedian(np.abs(images[:2] - middle), axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(got[:2], np.nan_to_num(images[:2]) / sigma, rtol=1e-5)
    assert (got[2, 1] == 0).all()
    assert (run(np.full((1, 1, 4, 4), 7), stretch="none", noise_scaling="cutout") == 7).all()


def test_noise_of_the_training_fold_divides_each_band():
    known = Statistics(np.array([2.0, 4.0]), np.zeros(2), np.ones(2))
    images = np.full((1, 2, 3, 3), 8)
    got = run(images, stretch="none", noise_scaling="training", known=known)
    np.testing.assert_allclose(got[0, :, 0, 0], [4, 2])
    # clipping is in units of noise, after it is divided out
    got = run(images, stretch="none", noise_scaling="training", clip=3, known=known)
    np.testing.assert_allclose(got[0, :, 0, 0], [3, 2])


@pytest.mark.parametrize("kind", ["band", "image"])
def test_normalised_training_images_have_mean_0_and_scatter_1(kind):
    training = Training(
        image_size=28, preprocessing={"normalisation": kind, "noise_scaling": "training"}
    )
    images = sky(count=300, bands=4, size=30)
    known = preprocessing.measure(images, training, "flux")
    settings = training.preprocessing.model_dump()
    got = run(images, side=28, known=known, **settings).astype("float64")
    np.testing.assert_allclose(got.mean(axis=(0, 2, 3)), 0, atol=1e-4)
    if kind == "image":
        np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-4)
    else:
        np.testing.assert_allclose(got.std(axis=(0, 2, 3)), 1, rtol=1e-4)
    before = run(images, side=28, known=known, **{**settings, "normalisation": "none"})
    before = before.astype("float64")
    np.testing.assert_allclose(known.mean, before.mean(axis=(0, 2, 3)), atol=1e-5)
    np.testing.assert_allclose(known.scatter, before.std(axis=(0, 2, 3)), rtol=1e-4)
    if kind == "image":
        np.testing.assert_allclose(known.mean_image, before.mean(axis=0).transpose(1, 2, 0), 1e-3)


def test_measured_noise_is_robust_and_of_each_band():
    images = np.random.default_rng(1).normal(5, 1, (40, 3, 30, 30)).astype("float32")
    images *= np.array([1, 10, 0.1], dtype="float32")[:, None, None]
    images[:, :, 10:14, 10:14] = 1e5
    images[:, 0, 0] = np.nan
    noise = preprocessing.measure(images, Training(), "flux").noise
    np.testing.assert_allclose(noise, [1, 10, 0.1], rtol=0.04)
    dead = preprocessing.measure(np.full((2, 2, 4, 4), np.nan), Training(), "flux")
    assert dead.noise.tolist() == [1, 1] and dead.scatter.tolist() == [1, 1]


def test_many_pixels_are_sampled(monkeypatch):
    monkeypatch.setattr(preprocessing, "SAMPLED_PIXELS", 20_000)
    images = np.random.default_rng(1).normal(5, 3, (400, 2, 32, 32))
    np.testing.assert_allclose(preprocessing.band_noise(images), 3, rtol=0.05)


def test_statistics_can_be_written_as_json():
    known = Statistics(np.array([1.5]), np.array([2.0]), np.array([0.25]))
    expected = {"noise": [1.5], "mean": [2.0], "scatter": [0.25], "mean_image": None}
    assert json.loads(json.dumps(known.as_dict())) == expected
    image = Statistics(*np.ones((3, 1)), np.full((1, 2, 1), 3.0)).as_dict()["mean_image"]
    assert image == [[[3.0], [3.0]]]


@pytest.mark.parametrize("noise", [1e-20, 1e-9, 1.0, 1e6])
def test_noise_of_any_unit_is_divided_out(noise):
    known = Statistics(np.array([noise, 4 * noise]), np.zeros(2), np.ones(2))
    images = noise * np.array([2.0, 2.0]).reshape(1, 2, 1, 1)
    got = run(images, stretch="none", noise_scaling="training", known=known)
    np.testing.assert_allclose(got.ravel(), [2, 0.5], rtol=1e-6)


def test_missing_statistics_are_explained():
    for settings in ({"noise_scaling": "training"}, {"normalisation": "band"}):
        with pytest.raises(ValueError, match="needs statistics of the training.*measure"):
            run(sky(), **settings)
    with pytest.raises(ValueError, match=r"mean image of shape \(6, 6, 2\).*have \(5, 5, 2\)"):
        known = Statistics(np.ones(2), np.ones(2), np.ones(2), np.ones((5, 5, 2)))
        run(sky(size=6), normalisation="image", known=known)
    with pytest.raises(ValueError, match="no training images"):
        preprocessing.measure(np.empty((0, 1, 4, 4)), Training(), "flux")


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [  # of a pixel of red 1, green 0.5, blue 0; constants of ImageNet
        ("none", [1, 0.5, 0]),
        ("unit", [1, 0.5, 0]),
        ("signed", [1, 0, -1]),
        ("torch", [0.515 / 0.229, 0.044 / 0.224, -0.406 / 0.225]),
        ("caffe", [-103.939, 127.5 - 116.779, 255 - 123.68]),  # blue, green, red
    ],
)
def test_input_scaling_of_red_green_blue(scaling, expected):
    pixel = np.array([255, 127.5, 0]).reshape(1, 3, 1, 1)
    got = run(pixel, pixels="display", scaling=scaling).ravel()
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    # the same sky in another order of the bands
    got = run(pixel[:, [2, 0, 1]], pixels="display", scaling=scaling, channels=[2, 0, 1]).ravel()
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_input_scaling_of_other_bands_takes_constants_of_what_they_stand_for():
    pixel = np.array([255, 255, 0, 255]).reshape(1, 4, 1, 1)
    got = run(pixel, pixels="display", scaling="caffe", channels=[1, 0, 2, None]).ravel()
    grey = 255 - (123.68 + 116.779 + 103.939) / 3
    np.testing.assert_allclose(got, [255 - 116.779, 255 - 123.68, -103.939, grey], rtol=1e-5)


def test_normalised_images_get_the_moments_of_imagenet():
    known = Statistics(np.ones(3), np.full(3, 10.0), np.full(3, 2.0))
    pixel = np.full((1, 3, 1, 1), 12.0)  # z = 1
    settings = {"stretch": "none", "normalisation": "band", "known": known}
    np.testing.assert_allclose(run(pixel, scaling="torch", **settings).ravel(), 1, rtol=1e-5)
    np.testing.assert_allclose(run(pixel, scaling="none", **settings).ravel(), 1, rtol=1e-5)
    unit = np.array([0.485 + 0.229, 0.456 + 0.224, 0.406 + 0.225])
    np.testing.assert_allclose(run(pixel, scaling="unit", **settings).ravel(), unit, rtol=1e-5)
    signed = run(pixel, scaling="signed", **settings).ravel()
    np.testing.assert_allclose(signed, 2 * unit - 1, rtol=1e-5)


def test_resizing_keeps_a_flat_image_and_averages_when_smaller():
    np.testing.assert_allclose(run(np.ones((1, 2, 6, 6)), stretch="none", side=2), 1, rtol=1e-6)
    assert run(np.ones((1, 2, 6, 6)), side=9).shape == (1, 2, 9, 9)
    checks = np.indices((8, 8)).sum(axis=0) % 2
    got = run(checks[None, None], stretch="none", side=4)
    np.testing.assert_allclose(got[..., 1:-1, 1:-1], 0.5, atol=0.01)  # without antialiasing 0 or 1


def test_equal_preprocessing_is_named_alike():
    def config():
        model = preprocessing.build(Preprocessing(stretch="percentile"), 2, 8, 8, "flux")
        return [operation.name for operation in model.operations]

    first = config()
    keras.ops.abs(keras.Input((2,)))  # moves the counters of Keras
    assert config() == first
