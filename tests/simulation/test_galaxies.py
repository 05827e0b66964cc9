import galsim
import numpy as np
import pytest

from luneta.simulation.camera import BANDS, Component, check_bands, draw, magnitude_of
from luneta.simulation.galaxies import (
    AXIS_RATIOS,
    MORPHOLOGIES,
    arm_light,
    half_light_in_scales,
    make_galaxy,
    smooth_light,
)

PIXEL_SCALE = 0.262


def unblurred(components, size=256, step=0.1):
    """The surface brightness that GalSim draws, without the camera."""
    profile = galsim.Add([c.light.withFlux(c.flux_r) for c in components])
    return profile.drawImage(nx=size, ny=size, scale=step, method="no_pixel").array


def axis_ratio_of(image):
    """Axis ratio from adaptive moments (Bernstein & Jarvis 2002)."""
    shape = galsim.hsm.FindAdaptiveMom(galsim.Image(np.ascontiguousarray(image, np.float64)))
    size = shape.observed_shape.e
    return float(np.sqrt((1 - size) / (1 + size)))


@pytest.mark.parametrize("morphology", AXIS_RATIOS)
def test_smooth_galaxies_have_the_axis_ratio_they_claim(morphology):
    random = np.random.default_rng(3)
    for _ in range(3):
        galaxy = make_galaxy(morphology, 18.0, random)
        low, high = AXIS_RATIOS[morphology]
        assert low <= galaxy.axis_ratio <= high
        assert axis_ratio_of(unblurred(galaxy.components)) == pytest.approx(
            galaxy.axis_ratio, abs=0.02
        )


@pytest.mark.parametrize("angle", [0.0, 0.5, 2.0])
def test_position_angle_runs_from_x_towards_y(angle):
    image = unblurred([Component(smooth_light(2.0, 2.0, 0.4, angle), 1.0, "old")])
    axis = np.arange(256) - 127.5
    x, y = np.meshgrid(axis, axis)
    inside = np.hypot(x, y) < 100
    xx, yy, xy = (np.sum(image * p * inside) for p in (x * x, y * y, x * y))
    assert np.sin(0.5 * np.arctan2(2 * xy, xx - yy) - angle) == pytest.approx(0, abs=0.02)


def test_smooth_galaxy_holds_half_its_light_in_the_half_light_ellipse():
    image = unblurred([Component(smooth_light(2.0, 2.0, 0.5, 0.0), 1.0, "old")])
    axis = (np.arange(256) - 127.5) * 0.1
    x, y = np.meshgrid(axis, axis)
    assert image[np.hypot(x, y / 0.5) < 2.0].sum() * 1.0 == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("morphology", MORPHOLOGIES)
def test_drawn_flux_is_that_of_the_magnitude(morphology):
    galaxy = make_galaxy(morphology, 18.5, np.random.default_rng(5))
    stamp = draw(galaxy.components, ["r"], 384, PIXEL_SCALE)
    assert magnitude_of(stamp.sum()) == pytest.approx(18.5, abs=0.06)


@pytest.mark.parametrize("light", [smooth_light(2.5, 1.2, 0.6, 0.7), galsim.DeltaFunction()])
def test_drawing_agrees_with_galsim(light):
    stamp = draw([Component(light, 100.0, "old")], ["r"], 96, PIXEL_SCALE, (0.3, -0.2))[0]
    seen = galsim.Convolve(light, galsim.Moffat(beta=3.5, fwhm=BANDS["r"].fwhm)) * 100
    shifted = seen.shift(0.3 * PIXEL_SCALE, -0.2 * PIXEL_SCALE)
    expected = shifted.drawImage(
        nx=96, ny=96, scale=PIXEL_SCALE, method="no_pixel", offset=(0.5, 0.5)
    ).array
    assert np.abs(stamp - expected).max() < 2e-3 * expected.max()


@pytest.mark.parametrize("winding", [-1, 1])
@pytest.mark.parametrize("arms", [2, 3])
def test_spiral_arms_follow_the_logarithmic_spiral(arms, winding):
    pitch, scale = np.radians(22), 1.5
    light = arm_light(scale, 1.0, 0.0, arms, pitch, winding, sharpness=3.0)
    azimuth = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    phases = []
    for radius in (2.0, 4.0):
        ring = light(radius * np.cos(azimuth), radius * np.sin(azimuth))
        assert np.abs(np.fft.rfft(ring))[1:8].argmax() + 1 == arms
        phases.append(-np.angle(np.fft.rfft(ring)[arms]) / arms)
    soft = np.log(np.hypot(4.0 / scale, 0.3) / np.hypot(2.0 / scale, 0.3))
    turn = arms * (phases[1] - phases[0] - winding * soft / np.tan(pitch))
    assert np.sin(turn / 2) == pytest.approx(0, abs=1e-3)


def test_arms_have_unit_flux():
    axis = np.arange(-20, 20, 0.1)
    light = arm_light(1.5, 0.7, 0.4, 2, np.radians(20), 1, 2.0)
    assert light(*np.meshgrid(axis, axis)).sum() * 0.01 == pytest.approx(1, abs=2e-3)


def test_half_light_radius_of_a_pure_disc():
    assert half_light_in_scales(0, 1, 0) == pytest.approx(1.678, abs=1e-2)


def test_edge_on_discs_are_bluer_than_cigars():
    random = np.random.default_rng(1)
    colours = {}
    for morphology in ("cigar", "edge_on"):
        parts = [make_galaxy(morphology, 18.0, random).components for _ in range(20)]
        colours[morphology] = np.mean(
            [sum(c.flux("g") for c in p) / sum(c.flux("i") for c in p) for p in parts]
        )
    assert colours["edge_on"] > 1.1 * colours["cigar"]


def test_unknown_band_is_refused():
    with pytest.raises(ValueError, match="no bands.*'H'"):
        check_bands(["g", "H"])
