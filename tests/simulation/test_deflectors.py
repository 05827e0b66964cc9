import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM

from luneta.simulation.deflectors import (
    EINSTEIN_RADII,
    comoving_distance,
    einstein_radius,
    fluxes,
    make_deflector,
)


@pytest.mark.parametrize("redshift", [0.1, 0.5, 1.0, 3.0])
def test_distances_are_astropys(redshift):
    expected = FlatLambdaCDM(H0=70, Om0=0.3).comoving_distance(redshift).value
    # astropy has a little less dark energy, for the radiation.
    assert comoving_distance(redshift) == pytest.approx(expected, rel=1e-3)


def test_einstein_radius_of_an_isothermal_sphere():
    # 4 pi (sigma / c)^2 is 1.396 arcsec at 220 km/s; nearly all of it for a very near lens.
    assert einstein_radius(220, 1e-4, 5.0) == pytest.approx(1.396, abs=2e-3)
    behind, between = comoving_distance(2.0), comoving_distance(0.5)
    expected = 4 * 1.396 * (behind - between) / behind
    assert einstein_radius(440, 0.5, 2.0) == pytest.approx(expected, rel=2e-3)


def test_fluxes_are_maggies_and_old_galaxies_are_redder_than_young_ones():
    random = np.random.default_rng(0)
    assert fluxes(20.0, "i", "old", 0.4, random)[3] == pytest.approx(1e-8)
    assert fluxes(22.5, "r", "disc", 0.4, random)[2] == pytest.approx(1e-9)
    g_minus_i = {
        p: -2.5 * np.log10(np.divide(*fluxes(20.0, "r", p, 0.4, random)[[1, 3]]))
        for p in ("old", "disc", "young", "starburst")
    }
    assert list(g_minus_i) == sorted(g_minus_i, key=g_minus_i.get, reverse=True)
    assert g_minus_i["old"] == pytest.approx(1.62 + 0.62, abs=0.25)


def test_the_lyman_break_takes_the_u_light_of_far_sources():
    random = np.random.default_rng(0)
    near, far = (fluxes(24.0, "i", "starburst", z, random) for z in (1.5, 4.0))
    assert near[0] / near[2] > 10 * far[0] / far[2]


def test_deflectors_bend_more_the_brighter_they_are_at_their_redshift():
    random = np.random.default_rng(0)
    drawn = [make_deflector(random) for _ in range(300)]
    radii = np.array([d.einstein_radius for d in drawn])
    assert EINSTEIN_RADII[0] <= radii.min() < 0.5
    assert 2.5 < radii.max() <= EINSTEIN_RADII[1]
    assert 1.1 < np.median(radii) < 1.7
    middle = [d for d in drawn if 0.4 < d.redshift < 0.5]
    brightness = [-d.magnitude for d in middle]
    assert np.corrcoef(brightness, [d.einstein_radius for d in middle])[0, 1] > 0.5
