import numpy as np
import pytest
import sep

from luneta.cutouts.sky import fit_sky, median, ring, ring_level


def slope(side):
    y, x = np.indices((side, side), np.float32)
    return 100 + 0.004 * x - 0.002 * y


@pytest.mark.parametrize("side", [300, 1027])
def test_a_slope_is_taken_away_and_the_noise_is_known(side):
    random = np.random.default_rng(0)
    pixels = (slope(side) + random.normal(0, 3, (side, side))).astype(np.float32)
    sky = fit_sky(pixels)
    assert sky.step == (1 if side == 300 else 3)
    assert sky.noise == pytest.approx(3, rel=0.02)
    sky.subtract_from(pixels)
    assert abs(np.median(pixels)) < 0.06  # 2 % of the noise
    rest = pixels[: side // 64 * 64, : side // 64 * 64].reshape(side // 64, 64, side // 64, 64)
    assert np.abs(rest.mean(axis=(1, 3))).max() < 0.45  # 0.15 of the noise


def test_the_sparse_fit_agrees_with_that_of_all_pixels():
    random = np.random.default_rng(1)
    pixels = (slope(1500) + random.normal(0, 3, (1500, 1500))).astype(np.float32)
    pixels[200:240, 300:340] += 5000
    full = sep.Background(pixels.copy(), bw=64, bh=64)
    fitted = fit_sky(pixels)
    ours = np.zeros_like(pixels)
    fitted.subtract_from(ours)
    assert np.abs(-ours - full.back()).mean() < 0.1
    assert fitted.noise == pytest.approx(full.globalrms, rel=0.01)


def test_bad_pixels_do_not_count():
    pixels = np.random.default_rng(0).normal(10, 1, (256, 256)).astype(np.float32)
    pixels[:, 100:200] = np.nan
    sky = fit_sky(pixels)
    assert np.median(sky.level) == pytest.approx(10, abs=0.05)
    assert sky.noise == pytest.approx(1, rel=0.05)


def test_ring_keeps_away_from_the_object():
    y, x = np.divmod(ring(32, 0.5, 0.8), 32)
    radius = np.hypot(x - 16, y - 16)
    assert radius.min() >= 8
    assert radius.max() <= 12.8


def test_ring_level_is_the_median_without_bad_pixels():
    stamps = np.full((2, 32, 32), 7.0, np.float32)
    stamps[0, 12:20, 12:20] = 1000
    stamps[1, :, :10] = np.nan
    annulus = {"inner": 0.5, "outer": 1.0}
    assert ring_level(stamps, annulus).tolist() == [7, 7]
    assert ring_level(np.full((1, 32, 32), np.nan, np.float32), annulus).tolist() == [0]


def test_median_without_nan():
    values = np.array([[1, np.nan, 3, 9], [np.nan] * 4], np.float32)
    found = median(values)
    assert found[0] == 3
    assert np.isnan(found[1])
