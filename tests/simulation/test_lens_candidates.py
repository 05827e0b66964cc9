import numpy as np
import pytest
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LensModel.Solver.lens_equation_solver import LensEquationSolver

from luneta.simulation.deflectors import make_deflector
from luneta.simulation.lens_candidates import (
    NON_LENSES,
    SOURCE_MAGNITUDES,
    background,
    make_lens,
    make_non_lens,
    make_source,
    place_source,
    ring_light,
)

SOLVER = LensEquationSolver(LensModel(["SIE", "SHEAR"]))


def number_of_images(fraction, offset, random):
    """Of a source at this fraction of the Einstein radius, and so much, from the axis."""
    deflector = make_deflector(random)
    distance = fraction * deflector.einstein_radius + offset
    mass, (_, source), _ = place_source(deflector, distance, random)
    x, y = source[0]["center_x"], source[0]["center_y"]
    assert np.hypot(x, y) == pytest.approx(distance)
    assert mass[0]["theta_E"] == deflector.einstein_radius
    return len(
        SOLVER.image_position_from_source(x, y, mass, min_distance=0.05, search_window=24)[0]
    )


def test_sources_of_lenses_have_several_images_those_of_non_lenses_one():
    random = np.random.default_rng(1)
    assert all(number_of_images(0.65, 0.0, random) >= 2 for _ in range(8))
    assert all(number_of_images(1.5, 0.3, random) == 1 for _ in range(8))


def test_a_source_behind_a_non_lens_is_far_from_the_axis():
    random = np.random.default_rng(2)
    axis = np.arange(-12, 12, 0.1)
    x, y = np.meshgrid(axis, axis)
    for _ in range(5):
        deflector = make_deflector(random)
        light = background(deflector, random)[-1].shape(x, y)
        assert np.average(np.hypot(x, y), weights=light) > 1.5 * deflector.einstein_radius


def test_a_source_has_unit_flux_clumps_included():
    random = np.random.default_rng(3)
    axis = np.arange(-8, 8, 0.02)
    x, y = np.meshgrid(axis, axis)
    for _ in range(4):
        model, arguments = make_source(23.0, (0.4, -0.2), random)
        total = model.surface_brightness(x.ravel(), y.ravel(), arguments).sum() * 0.02**2
        assert total == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("sharpness", [0.0, 3.0])
def test_a_ring_has_unit_flux_and_its_radius(sharpness):
    axis = np.arange(-6, 6, 0.03)
    x, y = np.meshgrid(axis, axis)
    light = ring_light(2.0, 0.3, 0.7, 0.5, sharpness, 1.0)(x, y)
    assert light.sum() * 0.03**2 == pytest.approx(1, abs=5e-3)
    along = x * np.cos(0.5) + y * np.sin(0.5)
    across = (y * np.cos(0.5) - x * np.sin(0.5)) / 0.7
    assert np.average(np.hypot(along, across), weights=light) == pytest.approx(2.0, rel=0.05)


def test_lenses_have_arcs_and_non_lenses_are_of_all_kinds():
    random = np.random.default_rng(4)
    lenses = [make_lens(random) for _ in range(150)]
    others = [make_non_lens(random) for _ in range(150)]
    assert all(c.arcs is not None and c.kind == "lens" for c in lenses)
    assert all(c.arcs is None and "einstein_radius" not in c.truth for c in others)
    assert {c.kind for c in others} == set(NON_LENSES)
    magnitudes = [c.truth["source_magnitude"] for c in lenses]
    assert SOURCE_MAGNITUDES[0] <= min(magnitudes) < 22
    assert 26 < max(magnitudes) <= SOURCE_MAGNITUDES[1]
    assert sum(share for share, _ in NON_LENSES.values()) == pytest.approx(1)


def test_deflectors_of_both_classes_are_equally_bright():
    random = np.random.default_rng(5)
    lenses = [make_lens(random).truth["deflector_magnitude"] for _ in range(200)]
    others = [make_non_lens(random).truth["deflector_magnitude"] for _ in range(200)]
    # The standard error of the difference is about 0.14.
    assert np.mean(lenses) == pytest.approx(np.mean(others), abs=0.4)
