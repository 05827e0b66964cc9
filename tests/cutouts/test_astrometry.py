"""Offsets put in by hand must come out; what cannot be told must not be flagged."""

import time
from pathlib import Path

import numpy as np
import pytest
from astropy.wcs.utils import proj_plane_pixel_area

from luneta.config.survey import Detection
from luneta.cutouts.astrometry import bright_peaks, median_offset
from luneta.survey.detect import extract
from luneta.survey.images import read_pixels
from luneta.survey.wcs import read_grid, to_pixels

SCALE = 0.262
FIELDS = Path(__file__).parents[3] / "shared/data/multi_survey"


def field(side, count, seed=0):
    """Gaussian stars of known places and fluxes on noise of standard deviation 1."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(0, 1, (side, side)).astype(np.float32)
    x, y = rng.uniform(12, side - 12, (2, count))
    flux = 10 ** rng.uniform(2.3, 4.5, count)
    step = np.arange(-8, 9)
    for a, b, f in zip(x, y, flux, strict=True):
        i, j = round(a), round(b)
        profile_x, profile_y = (
            np.exp(-((step + k - c) ** 2) / (2 * 1.7**2)) for k, c in ((i, a), (j, b))
        )
        light = f * profile_y[:, None] * profile_x / (2 * np.pi * 1.7**2)
        pixels[j - 8 : j + 9, i - 8 : i + 9] += light
    return pixels, x, y, flux


@pytest.fixture(scope="module")
def stars():
    return field(2048, 1000)


def turned(x, y, degrees, centre=1024):
    angle = np.radians(degrees)
    dx, dy = x - centre, y - centre
    return (
        centre + dx * np.cos(angle) - dy * np.sin(angle),
        centre + dx * np.sin(angle) + dy * np.cos(angle),
    )


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("east", "north", "expected", "off"),
    [
        (0.0, 0.0, 0.0, False),
        (0.5, 0.0, 0.5, False),
        (3.0, 4.0, 5.0, True),
        (-72.0, 96.0, 120.0, True),
    ],
)
def test_a_shift_is_measured(stars, known, east, north, expected, off):
    pixels, x, y, flux = stars
    found = median_offset(
        pixels, x + east / SCALE, y + north / SCALE, flux if known else None, SCALE, 1.0
    )
    assert found.offset == pytest.approx(expected, abs=0.03)
    assert found.off == off
    assert found.matched > 0.6
    assert ("above the limit of 1 arcsec" in found.reason) == off


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("angle", [1, 20, 180])
def test_a_turned_image_is_off(stars, known, angle):
    pixels, x, y, flux = stars
    found = median_offset(pixels, *turned(x, y, angle), flux if known else None, SCALE, 1.0)
    assert found.off


def test_an_image_turned_upside_down_has_no_offset_at_all(stars):
    pixels, x, y, flux = stars
    found = median_offset(pixels, *turned(x, y, 180), flux, SCALE, 1.0)
    assert np.isnan(found.offset)
    assert "coordinate system is wrong" in found.reason


def test_a_slightly_turned_image_has_the_median_of_its_arcs(stars):
    pixels, x, y, flux = stars
    x1, y1 = turned(x, y, 0.05)
    brightest = np.argsort(-flux)[:100]
    expected = np.median(np.hypot(x1 - x, y1 - y)[brightest]) * SCALE
    found = median_offset(pixels, x1, y1, flux, SCALE, 1.0)
    assert found.offset == pytest.approx(expected, abs=0.02)
    assert not found.off


def test_a_list_of_a_few_of_the_stars_agrees(stars):
    pixels, x, y, _ = stars
    few = np.arange(0, 1000, 40)
    assert not median_offset(pixels, x[few], y[few], None, SCALE, 1.0).off
    assert median_offset(pixels, x[few] + 40, y[few], None, SCALE, 1.0).off


def test_faint_sources_that_are_not_seen_do_no_harm(stars):
    pixels, x, y, _ = stars
    rng = np.random.default_rng(1)
    unseen_x, unseen_y = rng.uniform(0, 2048, (2, 8000))
    x, y = np.concatenate([x, unseen_x]), np.concatenate([y, unseen_y])
    assert not median_offset(pixels, x, y, None, SCALE, 1.0).off
    shifted = median_offset(pixels, x + 20, y, None, SCALE, 1.0)
    assert shifted.offset == pytest.approx(20 * SCALE, abs=0.03)


@pytest.mark.parametrize(("shift", "off"), [(0, False), (20, True), (400, True)])
def test_a_list_without_the_bright_stars_and_without_magnitudes(stars, shift, off):
    pixels, x, y, flux = stars
    rest = np.argsort(-flux)[300:]
    unseen_x, unseen_y = np.random.default_rng(1).uniform(0, 2048, (2, 2000))
    x, y = np.concatenate([x[rest], unseen_x]), np.concatenate([y[rest], unseen_y])
    found = median_offset(pixels, x + shift, y, None, SCALE, 1.0)
    assert found.offset == pytest.approx(shift * SCALE, abs=0.05)
    assert found.off == off


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("shift", [0, 30])
def test_few_sources_cannot_tell(stars, count, shift):
    pixels, x, y, flux = stars
    found = median_offset(pixels, x[:count] + shift, y[:count], flux[:count], SCALE, 1.0)
    assert not found.off
    assert np.isnan(found.offset)
    assert found.reason.startswith(f"too few to compare: {count} sources")


def test_a_sparse_field_tells_agreement_but_not_more():
    pixels, x, y, flux = field(1024, 7, seed=3)
    assert median_offset(pixels, x, y, flux, SCALE, 1.0).offset < 0.05
    rng = np.random.default_rng(0)
    elsewhere = median_offset(pixels, *rng.uniform(12, 1012, (2, 7)), flux, SCALE, 1.0)
    assert not elsewhere.off


def test_an_empty_image_cannot_tell():
    pixels = np.random.default_rng(0).normal(0, 1, (512, 512)).astype(np.float32)
    x, y = np.random.default_rng(1).uniform(0, 512, (2, 50))
    assert not median_offset(pixels, x, y, None, SCALE, 1.0).off
    assert not median_offset(np.full_like(pixels, np.nan), x, y, None, SCALE, np.nan).off


def test_peaks_are_centred_and_hot_pixels_are_none():
    pixels, x, y, flux = field(256, 1, seed=5)
    pixels[100, 40] = 1e5
    pixels[200:, 200:] = np.nan
    found_x, found_y = bright_peaks(pixels, 1.0)
    assert (len(found_x), len(found_y)) == (1, 1)
    assert np.hypot(found_x[0] - x[0], found_y[0] - y[0]) < 0.3


def test_a_large_tile_takes_less_than_a_tenth_of_a_second():
    pixels, x, y, flux = field(4096, 2000)
    taken = []
    for _ in range(5):
        start = time.process_time()
        median_offset(pixels, x, y, flux, SCALE, 1.0)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.1


@pytest.mark.skipif(not FIELDS.exists(), reason="../shared/data/multi_survey is not here")
@pytest.mark.parametrize(("shift", "off"), [(0.0, False), (5.0, True)])
def test_a_real_infrared_image_against_optical_positions(shift, off):
    optical, infrared = (str(FIELDS / f"VICS82-test_{band}.fits") for band in ("i", "J"))
    pixels = read_pixels(optical).astype(np.float32)
    found = extract(pixels, ~np.isfinite(pixels), None, Detection().model_dump())
    sky = read_grid(optical)[0].pixel_to_world(found["x"], found["y"]).icrs
    wcs, _ = read_grid(infrared)
    scale = np.sqrt(proj_plane_pixel_area(wcs)) * 3600
    x, y = to_pixels(wcs, sky.ra.deg, sky.dec.deg)
    image = read_pixels(infrared).astype(np.float32)
    image -= np.nanmedian(image)
    noise = 1.4826 * np.nanmedian(np.abs(image))
    answer = median_offset(image, x + shift / scale, y, found["flux"], scale, noise)
    assert answer.offset == pytest.approx(shift, abs=0.4)
    assert answer.off == off
