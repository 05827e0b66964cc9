"""The stellar locus, in fields of which every object is known."""

import galsim
import numpy as np
import pytest
import sep

from fits_files import tan_wcs, write_image
from luneta.config.survey import Detection, Mask
from luneta.survey.detect import detect_tile, stellar_locus
from luneta.survey.locus import phase_free_radius
from luneta.survey.tiles import BandFiles, Tile

STEP, MARGIN, SIDE, NOISE = 44, 30, 12, 5.0  # a lattice of 12 x 12 places 44 pixels apart
STARS, GALAXIES, HOT, COSMIC = 26, 60, 25, 25


def places(rng):
    """Places on the lattice in no order, each at random in its pixel."""
    cells = rng.permutation(SIDE**2)
    at = MARGIN + STEP * np.stack([cells % SIDE, cells // SIDE], axis=1)
    return at + rng.uniform(-6, 6, at.shape)


def draw(image, profile, place):
    centre = galsim.PositionD(*(place + 1))
    stamp = profile.drawImage(nx=80, ny=80, scale=1.0, center=centre, dtype=np.float32)
    seen = stamp.bounds & image.bounds
    image[seen] += stamp[seen]


def hit(pixels, rng, place):
    """A cosmic ray: a track up to 8 pixels long and 1 wide."""
    angle, length = rng.uniform(0, np.pi), rng.uniform(0, 8)
    along = place + np.linspace(0, length, 30)[:, None] * [np.cos(angle), np.sin(angle)]
    for x, y in np.unique(np.rint(along).astype(int), axis=0):
        pixels[y, x] += rng.uniform(300, 3000)


def simulate(seed, psf, stars=STARS, galaxies=GALAXIES, sizes=(1.0, 3.0)):
    """Draw a field with hot pixels and cosmic rays; give it and the places of its objects."""
    rng = np.random.default_rng(seed)
    image = galsim.ImageF(2 * MARGIN + STEP * SIDE, 2 * MARGIN + STEP * SIDE, scale=1.0)
    spots, width = places(rng), max(psf.calculateHLR(), 0.6)
    for number, place in enumerate(spots[: stars + galaxies]):
        profile = psf
        if number >= stars:
            galaxy = galsim.Exponential(half_light_radius=width * rng.uniform(*sizes))
            angle = rng.uniform(0, 180) * galsim.degrees
            profile = galsim.Convolve(psf, galaxy.shear(q=rng.uniform(0.4, 1), beta=angle))
        draw(image, profile.withFlux(np.exp(rng.uniform(np.log(3000), np.log(60000)))), place)
    pixels = image.array + 1000 + rng.normal(0, NOISE, image.array.shape)
    for place in spots[-HOT:]:
        x, y = np.rint(place).astype(int)
        pixels[y, x] += rng.uniform(300, 5000)
    for place in spots[-HOT - COSMIC : -HOT]:
        hit(pixels, rng, place)
    return pixels.astype(np.float32), spots[:stars], spots[stars : stars + galaxies]


def detect(folder, pixels, **detection):
    wcs = tan_wcs(pixels.shape)
    name = write_image(folder / "image.fits", pixels, wcs, compressed=False)
    given = {
        "reference_band": "r",
        "bands": ["r"],
        "detection": Detection(**detection).model_dump(mode="json"),
        "mask": Mask().model_dump(mode="json"),
        "weight": "inverse_variance",
    }
    return detect_tile(Tile("a", "a", {"r": BandFiles(name)}), given)


def flags(found, spots):
    """The `star` of what is detected within 1.5 pixels of each place."""
    star = np.array(found.kept["star"].to_pylist(), object)
    apart = np.hypot(found.x - spots[:, :1], found.y - spots[:, 1:])
    near = apart.min(axis=1) < 1.5
    return star[apart.argmin(axis=1)[near]]


def share(found, spots):
    return np.mean([value is True for value in flags(found, spots)])


UNDERSAMPLED = [galsim.Gaussian(fwhm=width) for width in (1.0, 1.2, 1.6)]
UNDERSAMPLED += [galsim.Moffat(beta=3.5, fwhm=width) for width in (0.9, 1.2)]
SAMPLED = [galsim.Moffat(beta=3.5, fwhm=width) for width in (2.0, 3.0, 4.5)]


@pytest.mark.parametrize("psf", [*UNDERSAMPLED, *SAMPLED], ids=lambda psf: f"{psf.fwhm:.1f}px")
@pytest.mark.parametrize("seed", [0, 1])
def test_bright_stars_are_flagged_and_bright_galaxies_are_not(psf, seed, tmp_path):
    pixels, stars, galaxies = simulate(seed, psf)
    found = detect(tmp_path, pixels)
    assert share(found, stars) >= 0.9
    assert share(found, galaxies) < 0.1


def test_hot_pixels_and_cosmic_rays_are_no_stars(tmp_path):
    pixels, stars, galaxies = simulate(2, galsim.Gaussian(fwhm=1.2))
    found = detect(tmp_path, pixels)
    known = np.concatenate([stars, galaxies])
    apart = np.hypot(found.x - known[:, :1], found.y - known[:, 1:]).min(axis=0)
    others = np.array(found.kept["star"].to_pylist())[apart > 3]
    assert len(others) >= HOT
    assert others.mean() < 0.1


def test_the_locus_of_a_few_stars_among_many_galaxies_is_found(tmp_path):
    pixels, stars, galaxies = simulate(3, SAMPLED[1], stars=8, galaxies=85, sizes=(0.7, 2.5))
    found = detect(tmp_path, pixels)
    assert share(found, stars) >= 0.9
    assert share(found, galaxies) < 0.1


def test_where_no_stars_are_it_is_not_known_which_objects_are(tmp_path, caplog):
    pixels, _, galaxies = simulate(4, SAMPLED[1], stars=0)
    found = detect(tmp_path, pixels, stars="drop")
    assert set(found.kept["star"].to_pylist()) == {None}
    assert len(flags(found, galaxies)) == GALAXIES
    assert "which objects are point-like is not known" in caplog.text
    assert "none is dropped" in caplog.text


def test_saturated_stars_do_not_move_the_locus(tmp_path):
    pixels, stars, _ = simulate(5, SAMPLED[1])
    values = pixels[np.rint(stars[:, 1]).astype(int), np.rint(stars[:, 0]).astype(int)]
    flat = np.minimum(pixels, np.float32(np.percentile(values, 60)))
    found = detect(tmp_path, flat)
    unsaturated = stars[values < np.percentile(values, 55)]
    assert share(found, unsaturated) >= 0.9


def test_the_stellar_locus_is_the_crowd_of_the_smallest():
    rng = np.random.default_rng(0)
    stars, galaxies = rng.normal(2.5, 0.05, 30), rng.uniform(3.2, 9.0, 200)
    bright = np.full(230, 100.0)
    radius = np.concatenate([stars, galaxies])
    assert stellar_locus(radius, bright, 0.15) == pytest.approx(2.5, abs=0.1)
    assert np.isnan(stellar_locus(radius, bright / 100, 0.15))
    assert np.isnan(stellar_locus(np.array([1.0, 2.0, 4.0, 8.0, 16.0]), bright[:5], 0.15))


@pytest.mark.parametrize(("stars", "locus"), [(0, np.nan), (2000, 2.0)])
def test_the_range_of_most_galaxies_is_no_locus_however_many_there_are(stars, locus):
    rng = np.random.default_rng(0)
    galaxies = 4 * np.exp(rng.normal(0, 0.35, 60_000))
    radius = np.concatenate([galaxies, 2 * np.exp(rng.normal(0, 0.02, stars))])
    signal_to_noise = 20 / rng.uniform(0, 1, len(radius))
    found = stellar_locus(radius, signal_to_noise, 0.15)
    assert found == pytest.approx(locus, rel=0.02, nan_ok=True)


def test_the_locus_of_the_bright_is_not_that_of_a_crowd_of_the_faint():
    rng = np.random.default_rng(1)
    stars, faint = rng.normal(2.5, 0.05, 20), rng.normal(1.2, 0.02, 300)
    radius = np.concatenate([stars, faint])
    signal_to_noise = np.concatenate([np.full(20, 100.0), np.full(300, 10.0)])
    assert stellar_locus(radius, signal_to_noise, 0.15) == pytest.approx(2.5, abs=0.1)


def measured_radii(psf, x, y):
    """Half-light radii of noiseless point sources about pixel (10, 10), by sep."""
    radii = []
    for place in zip(x, y, strict=True):
        centre = galsim.PositionD(*(np.array(place) + 1))
        image = psf.drawImage(nx=21, ny=21, scale=1.0, center=centre, dtype=float).array
        radii.append(sep.flux_radius(image, [place[0]], [place[1]], [8.0], 0.5, subpix=5)[0][0])
    return np.array(radii)


@pytest.mark.parametrize("psf", [galsim.Gaussian(fwhm=1.0), galsim.Moffat(beta=3.5, fwhm=0.9)])
def test_a_point_source_has_one_radius_wherever_it_lies_in_its_pixel(psf):
    x, y = 10 + np.random.default_rng(0).uniform(-0.5, 0.5, (2, 60))
    radii = measured_radii(psf, x, y)
    free = phase_free_radius(radii, x, y)
    assert np.ptp(np.log(radii)) > 0.3
    assert np.ptp(np.log(free)) < 0.16
    assert free.mean() == pytest.approx(radii.mean(), rel=0.05)


def test_the_radius_of_what_is_larger_than_a_pixel_stays():
    x, y = np.array([7.0, 7.5]), np.array([3.0, 3.5])
    np.testing.assert_array_equal(phase_free_radius(np.array([1.3, np.nan]), x, y), [1.3, np.nan])
