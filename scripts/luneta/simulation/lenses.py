"""Strong gravitational lenses: an early-type galaxy and the arcs it makes of one behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from lenstronomy.LensModel.lens_model import LensModel
from lenstronomy.LightModel.light_model import LightModel
from lenstronomy.Util.param_util import phi_q2_ellipticity, shear_polar2cartesian
from scipy.special import gamma, gammaincinv

from luneta.simulation.camera import Brightness, Component, flux_of, magnitude_of
from luneta.simulation.galaxies import Galaxy, make_smooth

EINSTEIN_RADII = (0.8, 2.2)
DEFLECTOR_MAGNITUDES = (17.6, 20.2)
SOURCE_MAGNITUDES = (20.8, 22.8)
MASS = LensModel(["SIE", "SHEAR"])
LIGHT = LightModel(["SERSIC"])


@dataclass(frozen=True)
class Lens:
    """The mass of a deflector and the source behind it, as lenstronomy's arguments.

    Attributes
    ----------
    mass : list of dict
        Of a singular isothermal ellipsoid (Kormann, Schneider & Bartelmann 1994) and an
        external shear; lengths in arcsec.
    source : list of dict
        Of a round Sersic profile of unit flux.
    """

    mass: list[dict[str, Any]]
    source: list[dict[str, Any]]

    def brightness(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Trace rays back to the source; surface brightness is conserved.

        Parameters
        ----------
        x, y : numpy.ndarray
            Position from the deflector's centre, arcsec, any shape.

        Returns
        -------
        numpy.ndarray
            Surface brightness per square arcsec for a source of unit flux, float64.
        """
        behind = MASS.ray_shooting(x.ravel(), y.ravel(), self.mass)
        return LIGHT.surface_brightness(*behind, self.source).reshape(x.shape)

    def magnification(self, step: float = 0.08) -> float:
        """Give the flux of all images over that of the source."""
        reach = 2.2 * self.mass[0]["theta_E"] + 3 * self.source[0]["R_sersic"]
        axis = np.arange(-reach, reach, step)
        return float(self.brightness(*np.meshgrid(axis, axis)).sum() * step**2)


def sersic_amplitude(radius: float, index: float) -> float:
    """Give the surface brightness at the half-light radius of a round Sersic profile of unit flux.

    Graham & Driver (2005), equation 4; `radius` in arcsec, result per square arcsec.
    """
    width = gammaincinv(2 * index, 0.5)
    shape = index * np.exp(width) * width ** (-2 * index) * gamma(2 * index)
    return float(1 / (2 * np.pi * radius**2 * shape))


def make_mass(axis_ratio: float, angle: float, random: np.random.Generator) -> list[dict[str, Any]]:
    """Draw a mass that roughly follows the deflector's light, and a shear from its surroundings."""
    ratio = float(np.clip(axis_ratio + random.normal(0, 0.05), 0.55, 0.97))
    e1, e2 = phi_q2_ellipticity(angle + random.normal(0, 0.1), ratio)
    gamma1, gamma2 = shear_polar2cartesian(random.uniform(0, np.pi), random.uniform(0, 0.06))
    ellipsoid = {
        "theta_E": float(random.uniform(*EINSTEIN_RADII)),
        "e1": float(e1),
        "e2": float(e2),
        "center_x": 0.0,
        "center_y": 0.0,
    }
    return [ellipsoid, {"gamma1": float(gamma1), "gamma2": float(gamma2)}]


def make_source(einstein_radius: float, random: np.random.Generator) -> list[dict[str, Any]]:
    """Draw a source close enough behind the deflector to have several images."""
    distance = 0.4 * einstein_radius * np.sqrt(random.uniform(0, 1))
    direction = random.uniform(0, 2 * np.pi)
    radius, index = float(random.uniform(0.15, 0.40)), 1.0
    return [
        {
            "amp": sersic_amplitude(radius, index),
            "R_sersic": radius,
            "n_sersic": index,
            "center_x": float(distance * np.cos(direction)),
            "center_y": float(distance * np.sin(direction)),
        }
    ]


def arcs(lens: Lens, magnitude: float, reddening: float) -> Component:
    """Turn a lens and its source's r magnitude, as it were unlensed, into observed light."""
    magnification = lens.magnification()

    def brightness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return lens.brightness(x, y) / magnification

    light: Brightness = brightness
    return Component(light, magnification * flux_of(magnitude), "starburst", reddening)


def make_lens(random: np.random.Generator) -> Galaxy:
    """Make a random strong lens; its morphology and radius are the deflector's.

    Parameters
    ----------
    random : numpy.random.Generator
        Source of all that is random.
    """
    morphology = str(random.choice(["round", "in_between"]))
    deflector = make_smooth(morphology, random.uniform(*DEFLECTOR_MAGNITUDES), random)
    mass = make_mass(deflector.axis_ratio, deflector.angle, random)
    radius = mass[0]["theta_E"]
    lens = Lens(mass, make_source(radius, random))
    images = arcs(lens, random.uniform(*SOURCE_MAGNITUDES), random.normal(1, 0.3))
    return replace(
        deflector,
        components=(*deflector.components, images),
        magnitude_r=magnitude_of(deflector.components[0].flux_r + images.flux_r),
        extent=max(deflector.extent, 4 * radius),
        einstein_radius=radius,
    )
