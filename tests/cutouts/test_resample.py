import numpy as np
import pytest

from luneta.cutouts.resample import resample, rounded_factors, source_side, weights


def star(side, sigma, flux=1000.0):
    y, x = np.indices((side, side)) - side // 2
    return flux * np.exp(-(x**2 + y**2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)


@pytest.mark.parametrize("factor", [0.37, 0.8, 1.0, 1.5, 2.0, 3.3])
def test_flux_is_conserved_and_the_star_stays_on_its_pixel(factor):
    size, sigma = 32, 1.5 if factor < 0.5 else 2.5
    stamp = star(source_side(size, factor), sigma).astype(np.float32)
    found = resample(stamp[None], size, factor)[0]
    assert found.shape == (32, 32)
    assert found.sum() == pytest.approx(1000, rel=2e-3)
    assert np.unravel_index(found.argmax(), found.shape) == (16, 16)
    y, x = np.indices(found.shape) - 16
    assert (found * x).sum() / found.sum() == pytest.approx(0, abs=0.02)
    assert (found * y).sum() / found.sum() == pytest.approx(0, abs=0.02)
    width = np.sqrt((found * x**2).sum() / found.sum())
    assert width == pytest.approx(sigma / factor, rel=0.1)


def test_an_even_surface_keeps_its_surface_brightness():
    for factor in (0.5, 0.8, 1.7):
        side = source_side(16, factor)
        found = resample(np.ones((1, side, side), np.float32), 16, factor)[0]
        np.testing.assert_allclose(found, factor**2, rtol=1e-5)


def test_twice_as_large_pixels_add_up_four():
    stamp = np.zeros((1, source_side(8, 2.0), source_side(8, 2.0)), np.float32)
    centre = stamp.shape[1] // 2
    stamp[0, centre, centre + 4] = 5.0  # two new pixels to the right
    found = resample(stamp, 8, 2.0)[0]
    assert found[4, 6] == pytest.approx(5)
    assert found.sum() == pytest.approx(5)


def test_factor_one_changes_nothing():
    stamps = np.random.default_rng(0).normal(size=(3, 11, 11)).astype(np.float32)
    side = source_side(8, 1.0)
    assert side == 13
    wide = np.pad(stamps, ((0, 0), (1, 1), (1, 1)))
    np.testing.assert_array_equal(resample(wide, 8, 1.0), wide[:, 2:10, 2:10])


def test_bad_pixels_are_made_up_for_or_stay_bad():
    side = source_side(8, 2.0)
    stamp = np.full((1, side, side), 3.0, np.float32)
    middle = side // 2
    stamp[0, middle, middle] = np.nan  # a quarter of one new pixel
    assert resample(stamp, 8, 2.0)[0, 4, 4] == pytest.approx(12)
    stamp[0, middle - 1 : middle + 2, middle - 1 : middle + 2] = np.nan
    assert np.isnan(resample(stamp, 8, 2.0)[0, 4, 4])


def test_columns_of_the_weights_sum_to_one_away_from_the_edge():
    share = weights(16, 1.37)
    inner = share.sum(axis=0)[4:-4]
    np.testing.assert_allclose(inner, 1, rtol=1e-5)


def test_factors_are_rounded_to_a_per_cent():
    assert rounded_factors(np.array([1.0, 1.004, 2.5])) == pytest.approx([1, 1, 2.5], rel=0.005)
    assert len(np.unique(rounded_factors(np.linspace(1, 1.1, 1000)))) == 11
