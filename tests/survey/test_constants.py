"""Which repeated values are no data, and which an image holds by right."""

import io

import numpy as np
import pytest
from astropy.io import fits

from luneta.survey.constants import (
    describe,
    filled_pixels,
    find_fills,
    mask_fills,
    sample_rows,
    strips_of,
    suspects,
)

SIDE, LIMIT = 64, 0.1
Y, X = np.indices((SIDE, SIDE)) - SIDE // 2
RADIUS = np.hypot(X, Y)


def noise(sigma=1.0, level=0.0, seed=0):
    return np.random.default_rng(seed).normal(level, sigma, (SIDE, SIDE))


def filled(pixels, columns, value=0.0):
    pixels = pixels.copy()
    pixels[:, :columns] = value
    return pixels


def found(pixels, limit=LIMIT):
    """The values, and the share of all pixels that is masked; the sample must suspect them."""
    pixels = np.asarray(pixels, np.float32)
    fills = find_fills(pixels[None], limit)
    assert not fills or suspects(pixels.reshape(1, -1), limit)[0]
    return [fill.value for fill in fills], filled_pixels(pixels, fills).mean()


EXPONENTIAL = 1000 * np.exp(-RADIUS / 4)
ROUND = np.exp(-(RADIUS**2) / (2 * 2.0**2)).astype(np.float32)  # underflows to zero
PHOTONS = np.random.default_rng(3)


@pytest.mark.parametrize("columns", [8, 19, 48, 62])
@pytest.mark.parametrize(
    "pixels",
    [
        noise(),
        noise(3, 100),
        noise(3, 100) + 3000 * np.exp(-RADIUS / 15),
        noise(3) + 3000 * np.exp(-RADIUS / 15),
        1e-12 * noise(),
    ],
    ids=["sky", "sky not subtracted", "bright galaxy, sky not subtracted", "bright galaxy", "tiny"],
)
def test_filled_floats_are_told(pixels, columns):
    assert found(filled(pixels, columns)) == ([0.0], columns / SIDE)


@pytest.mark.parametrize("columns", [8, 19, 48])
@pytest.mark.parametrize(
    ("sigma", "level"), [(1, 0), (2, 0), (3, 0), (5, 0), (20, 0), (1, 1000), (3, 1000)]
)
def test_filled_integers_are_told_and_their_sky_stays(sigma, level, columns):
    values, share = found(filled(np.rint(noise(sigma, level)), columns))
    assert values == [0.0]
    assert share == pytest.approx(columns / SIDE, abs=0.02)


@pytest.mark.parametrize("sigma", [0.2, 0.3, 0.5, 0.6, 0.7, 1, 1.5, 2, 3, 4])
@pytest.mark.parametrize("level", [0, 1000, 0.4])
def test_quantised_noise_repeats_values_by_right(sigma, level):
    pixels = np.rint(noise(sigma, level))
    assert found(pixels) == ([], 0)
    assert found(0.37 * pixels - 3) == ([], 0)


@pytest.mark.parametrize("level", [0, 10])
@pytest.mark.parametrize("quantize", [16, 4, 2, 1, 0.5])
@pytest.mark.parametrize("dither", [-1, 1, 2], ids=["no dither", "dither", "dither but for zeros"])
def test_compressed_floats_repeat_values_by_right(level, quantize, dither):
    """Without dither each row has steps of its own, and zero is a value of all rows."""
    pixels = np.random.default_rng(0).normal(level, 2, (300, 200)).astype(np.float32)
    options = {"compression_type": "RICE_1", "quantize_level": quantize, "quantize_method": dither}

    def written(pixels):
        file = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, **options)]).writeto(file)
        file.seek(0)
        with fits.open(file) as units:
            return units[1].data

    assert found(written(pixels)) == ([], 0)
    pixels[:, :60] = 0
    values, share = found(written(pixels))
    if dither == 1:  # it makes noise of zeros
        assert values == []
    elif dither == 2 or quantize > 0.5 or level > 0:
        assert values == [0.0]
        assert share == pytest.approx(0.3, abs=0.005)


@pytest.mark.parametrize("mean", [0.01, 0.05, 0.3, 1, 2.3])
def test_photons_are_mostly_none(mean):
    counts = PHOTONS.poisson(mean, (SIDE, SIDE))
    assert found(counts) == ([], 0)
    assert found(counts / PHOTONS.uniform(1, 1.2, counts.shape)) == ([], 0)


@pytest.mark.parametrize(
    "pixels",
    [
        np.where(RADIUS < 6, EXPONENTIAL, 0),
        np.where(RADIUS < 12, EXPONENTIAL, 0),
        np.rint(np.where(RADIUS < 12, EXPONENTIAL / 10, 0)),
        np.rint(EXPONENTIAL / 10),
        np.where(RADIUS < 24, np.exp(-7.67 * (RADIUS / 8) ** 0.25), 0),
        ROUND,
        np.where(RADIUS < 4, ROUND, 0),
        PHOTONS.poisson(EXPONENTIAL / 300),
        np.where(RADIUS < 1, 1000.0, 0),
    ],
)
def test_the_empty_sky_of_a_simulation_stays(pixels):
    assert (pixels == 0).mean() > LIMIT
    assert found(pixels) == ([], 0)


@pytest.mark.parametrize(
    "pixels",
    [
        np.rint((X + Y) / 20.0),
        np.rint((X + Y) / 20.0 + noise(0.2)),
        np.maximum(noise(), 0),
        np.zeros((SIDE, SIDE)),
        np.full((SIDE, SIDE), np.nan),
        noise(),
    ],
    ids=["gradient", "gradient with noise", "clipped", "one value", "nothing", "sky"],
)
def test_other_images_stay(pixels):
    assert found(pixels) == ([], 0)


def test_the_limit_is_a_share_of_the_good_pixels():
    pixels = filled(noise(), 6)  # 9.4 %
    assert found(pixels) == ([], 0)
    assert found(pixels, limit=0.05) == ([0.0], 6 / SIDE)
    pixels[:, 32:] = np.nan
    assert found(pixels) == ([0.0], 6 / SIDE)


def test_several_values_and_scattered_pixels():
    values, share = found(filled(filled(noise(), 38, -999), 19))
    assert sorted(values) == [-999, 0]
    assert share == 38 / SIDE
    pixels = noise()
    pixels[np.random.default_rng(1).random(pixels.shape) < 0.15] = 0
    assert found(pixels) == ([0.0], (pixels == 0).mean())
    pixels = noise()
    pixels[:, ::8] = 0
    assert found(pixels) == ([0.0], 1 / 8)
    pixels = noise()
    pixels[RADIUS > 25] = 0
    pixels[5:9, 5:9] = 3  # an island in the corner
    assert found(pixels) == ([0.0], (pixels == 0).mean())


def test_a_plateau_of_saturation_above_the_limit():
    assert found(np.minimum(1e5 * np.exp(-RADIUS / 3) + noise(), 2e4)) == ([], 0)
    values, share = found(np.minimum(1e5 * np.exp(-RADIUS / 10) + noise(), 2e4))
    assert (values, share > LIMIT) == ([20000.0], True)


def test_masking_is_in_place_and_told():
    pixels = filled(noise(), 16).astype(np.float32)
    fills = find_fills(pixels[None], LIMIT)
    where = mask_fills(pixels, fills)
    assert np.array_equal(np.isnan(pixels), where)
    assert where[:, :16].all() and not where[:, 16:].any()
    assert describe("a.fits", fills).startswith(
        "a.fits: the exact value 0 fills 25% of its good pixels, so they are masked as no data"
    )


def test_strips_go_through_the_whole_image():
    assert len(sample_rows(192)) == 0
    starts = sample_rows(4096)
    assert (starts[0], starts[-1], len(starts)) == (0, 4093, 64)
    image = np.arange(4096 * 2, dtype=np.float32).reshape(4096, 2)
    assert np.array_equal(strips_of(image), [image[n : n + 3] for n in starts])
    assert strips_of(image[:100]).shape == (1, 100, 2)
