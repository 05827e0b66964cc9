import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from luneta.simulation.camera import draw
from luneta.simulation.lenses import (
    EINSTEIN_RADII,
    MASS,
    Lens,
    make_lens,
    make_mass,
    make_source,
    sersic_amplitude,
)


def round_lens(einstein_radius, source_x, radius=0.2):
    mass = [
        {"theta_E": einstein_radius, "e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0},
        {"gamma1": 0.0, "gamma2": 0.0},
    ]
    source = {
        "amp": sersic_amplitude(radius, 1.0),
        "R_sersic": radius,
        "n_sersic": 1.0,
        "center_x": source_x,
        "center_y": 0.0,
    }
    return Lens(mass, [source])


def test_sersic_amplitude_gives_unit_flux():
    lens = round_lens(1e-6, 0.0)
    axis = np.arange(-4, 4, 0.02)
    assert lens.brightness(*np.meshgrid(axis, axis)).sum() * 4e-4 == pytest.approx(1, abs=5e-3)


def test_source_behind_the_centre_makes_a_ring_of_the_einstein_radius():
    axis = np.arange(-4, 4, 0.05)
    x, y = np.meshgrid(axis, axis)
    image = round_lens(1.4, 0.0).brightness(x, y)
    assert np.average(np.hypot(x, y), weights=image**2) == pytest.approx(1.4, rel=0.03)


def test_two_images_are_two_einstein_radii_apart():
    axis = np.arange(-4, 4, 0.01)
    along = round_lens(1.3, 0.4, radius=0.1).brightness(axis, np.zeros_like(axis))
    right, left = axis[axis > 0][along[axis > 0].argmax()], axis[along[axis < 0].argmax()]
    assert (right, left) == (pytest.approx(1.7, abs=0.03), pytest.approx(-0.9, abs=0.03))


def test_every_lens_has_several_images_about_two_einstein_radii_apart():
    random = np.random.default_rng(7)
    solver = LensEquationSolver(LensModel(["SIE", "SHEAR"]))
    for _ in range(12):
        mass = make_mass(random.uniform(0.55, 1), random.uniform(0, np.pi), random)
        radius = mass[0]["theta_E"]
        source = make_source(radius, random)[0]
        x, y = solver.image_position_from_source(
            source["center_x"], source["center_y"], mass, min_distance=0.1, search_window=8
        )
        assert len(x) >= 2
        separation = np.hypot(x[:, None] - x, y[:, None] - y).max()
        assert separation == pytest.approx(2 * radius, rel=0.3)
        back = MASS.ray_shooting(x, y, mass)
        assert np.allclose(
            np.hypot(back[0] - source["center_x"], back[1] - source["center_y"]), 0, atol=1e-3
        )


def test_arcs_are_bluer_than_the_deflector_and_drawn_with_their_flux():
    random = np.random.default_rng(2)
    for _ in range(5):
        galaxy = make_lens(random)
        deflector, arcs = galaxy.components
        assert EINSTEIN_RADII[0] <= galaxy.einstein_radius <= EINSTEIN_RADII[1]
        assert arcs.flux("g") / arcs.flux("i") > 1.5 * deflector.flux("g") / deflector.flux("i")
        assert draw([arcs], ["r"], 128, 0.262).sum() == pytest.approx(arcs.flux_r, rel=0.03)
        assert galaxy.morphology in ("round", "in_between")
