import numpy as np
import pytest

from fits_files import add_star
from luneta.cutouts.recentre import shifts


@pytest.fixture
def image():
    pixels = np.random.default_rng(0).normal(0, 1, (100, 120))
    add_star(pixels, 40.3, 50.6, flux=20_000)
    return pixels.astype(np.float32)


def test_centroid_finds_the_star(image):
    dx, dy = shifts(image, np.array([39.0]), np.array([51.5]), 5.0, "centroid")
    assert 39 + dx[0] == pytest.approx(40.3, abs=0.1)
    assert 51.5 + dy[0] == pytest.approx(50.6, abs=0.1)


def test_peak_finds_its_brightest_pixel(image):
    dx, dy = shifts(image, np.array([39.2]), np.array([51.5]), 5.0, "peak")
    assert (39.2 + dx[0], 51.5 + dy[0]) == (pytest.approx(40), pytest.approx(51))


def test_light_beyond_the_radius_does_not_count(image):
    image[20:22, 20:22] = 500
    dx, dy = shifts(image, np.array([26.0]), np.array([20.0]), 3.0, "peak")
    assert np.hypot(dx[0], dy[0]) <= 3


def test_nothing_to_move_to():
    dark = np.full((30, 30), -1.0, np.float32)
    dark[10:12] = np.nan
    assert shifts(dark, np.array([10.0]), np.array([11.0]), 3.0, "centroid") == (0.0, 0.0)
