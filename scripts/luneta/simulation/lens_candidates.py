"""Lens candidates as a survey's selection hands them on: lenses and what passes for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import galsim
import numpy as np
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.param_util import phi_q2_ellipticity
from scipy.special import i0e

from luneta.simulation.camera import Brightness
from luneta.simulation.deflectors import (
    Deflector,
    Light,
    bulge_and_disc,
    deflector_lights,
    disc_scale,
    fluxes,
    make_deflector,
)
from luneta.simulation.galaxies import arm_light, elliptical
from luneta.simulation.lenses import MASS, make_mass, sersic_amplitude

SOURCE_MAGNITUDES = (20.5, 28.0)  # i band, as it were unlensed
Source = tuple[LightModel, list[dict[str, Any]]]
HALF_FIELD = 10.1  # arcsec: half a stamp of the challenge


@dataclass(frozen=True)
class Candidate:
    """A candidate and the truth about it.

    Attributes
    ----------
    lights : tuple of Light
        All that shines but the lensed images.
    arcs : Light or None
        The lensed images; None if it is not a lens.
    kind : str
        "lens", or the kind of non-lens, of `NON_LENSES`.
    truth : dict
        einstein_radius (arcsec), source_magnitude (i, unlensed), source_redshift, all of a
        lens only, and deflector_magnitude (r), deflector_redshift.
    """

    lights: tuple[Light, ...]
    arcs: Light | None
    kind: str
    truth: dict[str, float]


def _truncated_normal(
    mean: float, deviation: float, limits: tuple[float, float], random: np.random.Generator
) -> float:
    while not limits[0] <= (value := random.normal(mean, deviation)) <= limits[1]:
        pass
    return float(value)


def source_magnitude(random: np.random.Generator) -> float:
    """Draw a source's i magnitude as it were unlensed; there is no cut on what is seen of it."""
    return _truncated_normal(23.7, 1.3, SOURCE_MAGNITUDES, random)


def make_source(
    magnitude: float, position: tuple[float, float], random: np.random.Generator
) -> Source:
    """Draw a star-forming galaxy of unit flux: an elliptical disc, often with clumps.

    Parameters
    ----------
    magnitude : float
        i magnitude: fainter galaxies are smaller.
    position : tuple of float
        x and y in the source plane, arcsec.
    random : numpy.random.Generator
        Source of all that is random.

    Returns
    -------
    tuple of LightModel, list of dict
        The light as lenstronomy knows it.
    """
    radius = float(np.clip(0.3 * 10 ** (-0.09 * (magnitude - 24) + random.normal(0, 0.15)), 0.1, 1))
    index, clumps = random.uniform(0.7, 1.8), int(random.integers(0, 6))
    shared = float(random.uniform(0.15, 0.6)) if clumps else 0.0
    e1, e2 = phi_q2_ellipticity(random.uniform(0, np.pi), random.uniform(0.35, 1.0))
    disc = {
        "amp": (1 - shared) * sersic_amplitude(radius, index),
        "R_sersic": radius, "n_sersic": index, "e1": float(e1), "e2": float(e2),
        "center_x": position[0], "center_y": position[1],
    }  # fmt: skip
    spread = random.normal(0, 0.8 * radius, (clumps, 2)) + position
    spots = [
        {"amp": shared / clumps, "sigma": random.uniform(0.05, 0.1), "center_x": x, "center_y": y}
        for x, y in spread
    ]
    return LightModel(["SERSIC_ELLIPSE", *["GAUSSIAN"] * clumps]), [disc, *spots]


def lensed_light(mass: list[dict[str, Any]], source: Source, reach: float) -> Brightness:
    """Trace rays back to a source of unit flux; beyond `reach` arcsec from the centre is nothing.

    Parameters
    ----------
    mass : list of dict
        As `lenses.Lens.mass`.
    source : tuple
        As `make_source` gives it.
    reach : float
        Half side of the square in which rays are traced, arcsec.
    """
    model, arguments = source

    def brightness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        near = (np.abs(x) <= reach) & (np.abs(y) <= reach)
        light = np.zeros(x.shape)
        light[near] = model.surface_brightness(
            *MASS.ray_shooting(x[near], y[near], mass), arguments
        )
        return light

    return brightness


def ring_light(
    radius: float,
    width: float,
    axis_ratio: float,
    angle: float,
    sharpness: float = 0.0,
    direction: float = 0.0,
) -> Brightness:
    """Give a ring of unit flux, Gaussian across, along its turn a von Mises function.

    Parameters
    ----------
    radius, width : float
        Of the ring, and standard deviation across it (much smaller), arcsec.
    axis_ratio, angle : float
        Of the ring; angle of the major axis from x towards y, radian.
    sharpness, direction : float
        Concentration (0: even light all around) and direction of the von Mises function.
    """
    norm = (2 * np.pi) ** 1.5 * radius * width * axis_ratio * i0e(sharpness)

    def brightness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        along = x * np.cos(angle) + y * np.sin(angle)
        across = (y * np.cos(angle) - x * np.sin(angle)) / axis_ratio
        distance = (np.hypot(along, across) - radius) / width
        turn = np.cos(np.arctan2(across, along) - direction) - 1
        return np.exp(-(distance**2) / 2 + sharpness * turn) / norm

    return brightness


def _around(distance: float, random: np.random.Generator) -> tuple[float, float]:
    direction = random.uniform(0, 2 * np.pi)
    return float(distance * np.cos(direction)), float(distance * np.sin(direction))


def place_source(
    deflector: Deflector, distance: float, random: np.random.Generator
) -> tuple[list[dict[str, Any]], Source, float]:
    """Draw the mass of a deflector and a source behind it.

    Parameters
    ----------
    deflector : Deflector
        The mass follows its light.
    distance : float
        Of the source from the axis, in the source plane, arcsec.
    random : numpy.random.Generator
        Source of all that is random.

    Returns
    -------
    mass : list of dict
        As `lenses.Lens.mass`.
    source : tuple
        As `make_source` gives it.
    magnitude : float
        The source's, i band, as it were unlensed.
    """
    magnitude = source_magnitude(random)
    mass = make_mass(deflector.axis_ratio, deflector.angle, random)
    mass[0]["theta_E"] = deflector.einstein_radius
    return mass, make_source(magnitude, _around(distance, random), random), magnitude


def _lensed(
    deflector: Deflector, distance: float, random: np.random.Generator
) -> tuple[Light, float]:
    mass, source, magnitude = place_source(deflector, distance, random)
    size = source[1][0]["R_sersic"]
    reach = min(1.3 * (deflector.einstein_radius + distance) + 5 * size + 0.5, 12.0)
    light = fluxes(magnitude, "i", "starburst", deflector.source_redshift, random)
    return Light(lensed_light(mass, source, reach), light), magnitude


def _small_galaxy(
    magnitude: float,
    population: str,
    redshift: float,
    position: tuple[float, float],
    random: np.random.Generator,
) -> Light:
    radius = np.clip(0.45 * 10 ** (-0.11 * (magnitude - 23) + random.normal(0, 0.15)), 0.1, 2.0)
    profile = galsim.Exponential(half_light_radius=float(radius))
    if population == "old":
        profile = galsim.Sersic(n=2.5, half_light_radius=float(radius))
    shape = elliptical(profile, random.uniform(0.35, 1.0), random.uniform(0, np.pi))
    return Light(shape, fluxes(magnitude, "r", population, redshift, random), position)


def surroundings(deflector: Deflector, random: np.random.Generator) -> tuple[Light, ...]:
    """Draw what else is in the field: faint galaxies, companions of the deflector, stars.

    Counts of galaxies rise as 10^(0.3 m), about 60 in a square arcmin to r = 25.5.
    """
    lights = []
    for _ in range(random.poisson(6.5)):
        magnitude = 19.0 + np.log10(random.uniform(1, 10 ** (0.3 * 6.5))) / 0.3
        population = str(random.choice(["young", "disc", "starburst", "old"]))
        place = tuple(random.uniform(-HALF_FIELD, HALF_FIELD, 2))
        redshift = random.uniform(0.2, 0.9)
        lights.append(_small_galaxy(magnitude, population, redshift, place, random))
    for _ in range(random.poisson(0.6)):
        magnitude = deflector.magnitude + random.exponential(1.2) + 1
        place = _around(random.uniform(1.5, HALF_FIELD), random)
        lights.append(_small_galaxy(magnitude, "old", deflector.redshift, place, random))
    for _ in range(random.poisson(0.25)):
        light = fluxes(random.uniform(17.5, 24.0), "r", "star", 0.0, random)
        place = tuple(random.uniform(-HALF_FIELD, HALF_FIELD, 2))
        lights.append(Light(galsim.Gaussian(sigma=1e-3), light, place))
    return tuple(lights)


def _arc_like_magnitude(random: np.random.Generator) -> float:
    """Draw an r magnitude as the images of a source have it, magnified about four times."""
    return source_magnitude(random) - 1.5 + random.normal(0, 0.4)


def plain(deflector: Deflector, random: np.random.Generator) -> tuple[Light, ...]:
    """Give the deflector with nothing behind it."""
    return deflector_lights(deflector, random)


def background(deflector: Deflector, random: np.random.Generator) -> tuple[Light, ...]:
    """Give the deflector and a source too far from its axis to have more than one image."""
    distance = random.uniform(1.5, 2.5) * deflector.einstein_radius + random.uniform(0.3, 0.8)
    return *deflector_lights(deflector, random), _lensed(deflector, distance, random)[0]


def satellites(deflector: Deflector, random: np.random.Generator) -> tuple[Light, ...]:
    """Give the deflector with one to four blue galaxies at 0.8 to 3 arcsec."""
    count = int(random.integers(1, 5))
    total = _arc_like_magnitude(random)
    shares = random.dirichlet(np.full(count, 2.0))
    found = [
        _small_galaxy(
            total - 2.5 * np.log10(share),
            str(random.choice(["young", "starburst"])),
            deflector.redshift,
            _around(random.uniform(0.8, 3.0), random),
            random,
        )
        for share in shares
    ]
    return *deflector_lights(deflector, random), *found


def spiral(deflector: Deflector, random: np.random.Generator) -> tuple[Light, ...]:
    """Give a disc seen nearly face-on, with an old bulge and young logarithmic arms."""
    axis_ratio, scale = random.uniform(0.65, 1.0), disc_scale(deflector) + random.uniform(0.1, 0.6)
    share = random.uniform(0.2, 0.5)
    smooth = replace(deflector, magnitude=deflector.magnitude - 2.5 * np.log10(1 - share))
    arms = arm_light(
        scale,
        axis_ratio,
        deflector.angle,
        arms=int(random.choice([2, 2, 3])),
        pitch=np.radians(random.uniform(10, 30)),
        winding=int(random.choice([-1, 1])),
        sharpness=random.uniform(2.0, 6.0),
    )
    magnitude = deflector.magnitude - 2.5 * np.log10(share)
    light = fluxes(magnitude, "r", "young", deflector.redshift, random)
    parts = bulge_and_disc(smooth, scale, axis_ratio, random.uniform(0.35, 0.75), random)
    return *parts, Light(arms, light)


def ring(deflector: Deflector, random: np.random.Generator) -> tuple[Light, ...]:
    """Give an old core with a ring of young stars, clumps along it (as Hoag's object)."""
    radius = random.uniform(0.8, 3.0)
    width = radius * random.uniform(0.1, 0.25)
    axis_ratio, angle = random.uniform(0.5, 1.0), random.uniform(0, np.pi)
    shape = ring_light(radius, width, axis_ratio, angle, random.exponential(0.5), angle)
    magnitude = max(_arc_like_magnitude(random), deflector.magnitude - 0.3)
    light = fluxes(magnitude, "r", "young", deflector.redshift, random)
    knots = []
    for turn in random.uniform(0, 2 * np.pi, int(random.integers(0, 4))):
        along, across = radius * np.cos(turn), radius * axis_ratio * np.sin(turn)
        x = along * np.cos(angle) - across * np.sin(angle)
        y = along * np.sin(angle) + across * np.cos(angle)
        knots.append(Light(galsim.Gaussian(sigma=0.15), random.uniform(0.03, 0.15) * light, (x, y)))
    return *deflector_lights(deflector, random), Light(shape, light), *knots


def edge_on(deflector: Deflector, random: np.random.Generator) -> tuple[Light, ...]:
    """Give a disc seen from the side: the whole galaxy, or one that lies across another."""
    if random.random() < 0.5:
        axis_ratio, bulge = random.uniform(0.12, 0.25), random.uniform(0.2, 0.6)
        return bulge_and_disc(deflector, disc_scale(deflector), axis_ratio, bulge, random)
    shape = elliptical(
        galsim.Exponential(half_light_radius=random.uniform(0.6, 1.6)),
        random.uniform(0.12, 0.25),
        random.uniform(0, np.pi),
    )
    light = fluxes(_arc_like_magnitude(random), "r", "young", deflector.redshift, random)
    place = _around(random.uniform(0.8, 3.0), random)
    return *deflector_lights(deflector, random), Light(shape, light, place)


def merger(deflector: Deflector, random: np.random.Generator) -> tuple[Light, ...]:
    """Give two galaxies close together and the tail that one has drawn from the other."""
    other = deflector.magnitude + random.uniform(0.2, 2.0)
    population = str(random.choice(["disc", "young"]))
    place = _around(random.uniform(0.8, 3.0), random)
    companion = _small_galaxy(other, population, deflector.redshift, place, random)
    radius, turn = random.uniform(1.2, 4.0), random.uniform(0, 2 * np.pi)
    tail = ring_light(
        radius, 0.15 * radius, random.uniform(0.6, 1.0), turn, random.uniform(1, 6), turn
    )
    magnitude = max(_arc_like_magnitude(random), deflector.magnitude + 0.5)
    light = fluxes(magnitude, "r", population, deflector.redshift, random)
    return *deflector_lights(deflector, random), companion, Light(tail, light)


NON_LENSES: dict[
    str, tuple[float, Callable[[Deflector, np.random.Generator], tuple[Light, ...]]]
] = {
    "plain": (0.35, plain),
    "background": (0.15, background),
    "satellites": (0.17, satellites),
    "spiral": (0.11, spiral),
    "ring": (0.06, ring),
    "edge_on": (0.09, edge_on),
    "merger": (0.07, merger),
}


def make_lens(random: np.random.Generator) -> Candidate:
    """Make a lens: a source behind the deflector with several images, however faint they are."""
    deflector = make_deflector(random)
    distance = 0.65 * deflector.einstein_radius * np.sqrt(random.uniform(0, 1))
    arcs, magnitude = _lensed(deflector, distance, random)
    truth = {
        "einstein_radius": deflector.einstein_radius,
        "source_magnitude": magnitude,
        "source_redshift": deflector.source_redshift,
        "deflector_magnitude": deflector.magnitude,
        "deflector_redshift": deflector.redshift,
    }
    lights = (*deflector_lights(deflector, random), *surroundings(deflector, random))
    return Candidate(lights, arcs, "lens", truth)


def make_non_lens(random: np.random.Generator) -> Candidate:
    """Make a non-lens of a kind of `NON_LENSES`, of the same deflectors and surroundings."""
    deflector = make_deflector(random)
    shares = [share for share, _ in NON_LENSES.values()]
    kind = str(random.choice(list(NON_LENSES), p=shares))
    lights = (*NON_LENSES[kind][1](deflector, random), *surroundings(deflector, random))
    truth = {
        "deflector_magnitude": deflector.magnitude,
        "deflector_redshift": deflector.redshift,
    }
    return Candidate(lights, None, kind, truth)
