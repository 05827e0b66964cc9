"""Galaxies of the five classes of Dai & Tong (2018): shapes, colours, sizes."""

from __future__ import annotations

from dataclasses import dataclass

import galsim
import numpy as np
from scipy.special import gammainc, gammaincinv, i0e

from luneta.simulation.camera import Brightness, Component, flux_of

MORPHOLOGIES = ("round", "in_between", "cigar", "edge_on", "spiral")
AXIS_RATIOS = {"round": (0.85, 1.0), "in_between": (0.45, 0.80), "cigar": (0.15, 0.35)}

# GalSim tabulates a Sersic profile once for each index; a few of them are enough.
SERSIC_INDICES = (2.0, 2.5, 3.0, 3.5, 4.0)
BULGE_INDEX = 2.0
BULGE_RADIUS = 0.35  # half-light radius of a bulge in units of the disc's scale length
BRIGHTEST, FAINTEST = 16.8, 20.8
# Major axes, against a smooth galaxy's of the same magnitude.
RELATIVE_SIZES = {"round": 1.0, "in_between": 1.1, "cigar": 1.7, "edge_on": 1.8, "spiral": 1.7}


@dataclass(frozen=True)
class Galaxy:
    """An object and the truth about it.

    Attributes
    ----------
    components : tuple of Component
        Its light.
    morphology : str
        One of `MORPHOLOGIES`; of a lens, that of the deflector.
    magnitude_r : float
        AB magnitude of all its light.
    half_light_radius : float
        Along the major axis, arcsec; of a lens, that of the deflector.
    axis_ratio : float
        Minor over major axis, before the atmosphere.
    angle : float
        Of the major axis, from x towards y, radian.
    extent : float
        Radius in arcsec beyond which no light matters.
    einstein_radius : float or None
        In arcsec; None if the galaxy is not a lens.
    """

    components: tuple[Component, ...]
    morphology: str
    magnitude_r: float
    half_light_radius: float
    axis_ratio: float
    angle: float
    extent: float
    einstein_radius: float | None = None


def random_magnitude(random: np.random.Generator) -> float:
    """Draw an r magnitude; counts rise as 10^(0.15 m), less steeply than real ones."""
    low, high = 10 ** (0.15 * BRIGHTEST), 10 ** (0.15 * FAINTEST)
    return float(np.log10(random.uniform(low, high)) / 0.15)


def random_radius(magnitude: float, morphology: str, random: np.random.Generator) -> float:
    """Draw a half-light radius (major axis, arcsec): brighter galaxies look bigger."""
    typical = 0.95 * 10 ** (-0.12 * (magnitude - 20)) * RELATIVE_SIZES[morphology]
    return float(typical * 10 ** random.normal(0, 0.07))


def elliptical(profile: galsim.GSObject, axis_ratio: float, angle: float) -> galsim.GSObject:
    """Squeeze a round profile, keeping its major axis.

    Parameters
    ----------
    profile : galsim.GSObject
        Round profile.
    axis_ratio : float
        Minor over major axis.
    angle : float
        Of the major axis, from x towards y, radian.
    """
    squeezed = profile.transform(1, 0, 0, axis_ratio) / axis_ratio
    return squeezed.rotate(angle * galsim.radians)


def smooth_light(index: float, radius: float, axis_ratio: float, angle: float) -> galsim.GSObject:
    """Give an elliptical Sersic (1968) profile of unit flux; `radius` is the major axis's."""
    return elliptical(galsim.Sersic(n=index, half_light_radius=radius), axis_ratio, angle)


def arm_light(
    scale_radius: float,
    axis_ratio: float,
    angle: float,
    arms: int,
    pitch: float,
    winding: int,
    sharpness: float,
) -> Brightness:
    """Give the light of logarithmic spiral arms (e.g. Seigar & James 1998), of unit flux.

    Along the radius the light goes as R exp(-R / h), across the arms as a von Mises
    function of the spiral's phase, m (phi - w ln(R) / tan(pitch)).

    Parameters
    ----------
    scale_radius : float
        Scale length h of the disc, arcsec.
    axis_ratio : float
        Cosine of the inclination.
    angle : float
        Of the line of nodes, from x towards y, radian.
    arms : int
        Number of arms m.
    pitch : float
        Pitch angle, radian.
    winding : int
        w: 1 or -1, the two senses.
    sharpness : float
        Concentration of the von Mises function.
    """
    norm = 4 * np.pi * scale_radius**3 * axis_ratio * i0e(sharpness)

    def brightness(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        along = x * np.cos(angle) + y * np.sin(angle)
        across = (y * np.cos(angle) - x * np.sin(angle)) / axis_ratio
        radius = np.hypot(along, across)
        # The soft centre keeps the spiral from winding up without end.
        turn = np.log(np.hypot(radius / scale_radius, 0.3)) / np.tan(pitch)
        phase = arms * (np.arctan2(across, along) - winding * turn)
        crest = np.exp(sharpness * (np.cos(phase) - 1))
        return radius * np.exp(-radius / scale_radius) * crest / norm

    return brightness


def half_light_in_scales(bulge: float, disc: float, arms: float) -> float:
    """Give the half-light radius, in disc scale lengths, of bulge, disc and arms seen face-on.

    The curves of growth are incomplete gamma functions (Graham & Driver 2005).

    Parameters
    ----------
    bulge, disc, arms : float
        Fractions of the light; they sum to 1.
    """
    radius = np.linspace(0.02, 6, 600)
    width = gammaincinv(2 * BULGE_INDEX, 0.5)
    inner = gammainc(2 * BULGE_INDEX, width * (radius / BULGE_RADIUS) ** (1 / BULGE_INDEX))
    growth = bulge * inner + disc * gammainc(2, radius) + arms * gammainc(3, radius)
    return float(np.interp(0.5, growth, radius))


def _reddening(random: np.random.Generator) -> float:
    return float(random.normal(1.0, 0.07))


def make_smooth(morphology: str, magnitude: float, random: np.random.Generator) -> Galaxy:
    """Make a round, in-between or cigar-shaped galaxy: one Sersic profile of old stars."""
    radius = random_radius(magnitude, morphology, random)
    axis_ratio = float(random.uniform(*AXIS_RATIOS[morphology]))
    index = float(random.choice(SERSIC_INDICES))
    angle = float(random.uniform(0, np.pi))
    light = smooth_light(index, radius, axis_ratio, angle)
    part = Component(light, flux_of(magnitude), "old", _reddening(random))
    return Galaxy((part,), morphology, magnitude, radius, axis_ratio, angle, 8 * radius)


def make_edge_on(magnitude: float, random: np.random.Generator) -> Galaxy:
    """Make a thin disc seen from the side (van der Kruit & Searle 1981) with a small bulge."""
    radius = random_radius(magnitude, "edge_on", random)
    bulge, thickness = random.uniform(0.04, 0.18), random.uniform(0.07, 0.13)
    inclination, angle = np.radians(random.uniform(85, 90)), float(random.uniform(0, np.pi))
    scale = radius / half_light_in_scales(bulge, 1 - bulge, 0)
    disc = galsim.InclinedExponential(
        inclination * galsim.radians, scale_radius=scale, scale_h_over_r=thickness
    ).rotate(angle * galsim.radians)
    centre = smooth_light(BULGE_INDEX, BULGE_RADIUS * scale, 0.75, angle)
    flux, red = flux_of(magnitude), _reddening(random)
    parts = (
        Component(disc, (1 - bulge) * flux, "disc", red),
        Component(centre, bulge * flux, "old", red),
    )
    axis_ratio = float(np.hypot(np.cos(inclination), thickness))
    return Galaxy(parts, "edge_on", magnitude, radius, axis_ratio, angle, 7 * scale)


def make_spiral(magnitude: float, random: np.random.Generator) -> Galaxy:
    """Make a disc seen nearly face-on: old bulge, smooth disc and young logarithmic arms."""
    radius = random_radius(magnitude, "spiral", random)
    bulge, arms = random.uniform(0.08, 0.25), random.uniform(0.45, 0.62)
    disc = 1 - bulge - arms
    scale = radius / half_light_in_scales(bulge, disc, arms)
    axis_ratio, angle = float(random.uniform(0.6, 1.0)), float(random.uniform(0, np.pi))
    spiral = arm_light(
        scale,
        axis_ratio,
        angle,
        arms=int(random.choice([2, 2, 3])),
        pitch=np.radians(random.uniform(16, 32)),
        winding=int(random.choice([-1, 1])),
        sharpness=random.uniform(1.5, 3.0),
    )
    smooth = elliptical(galsim.Exponential(scale_radius=scale), axis_ratio, angle)
    centre = smooth_light(BULGE_INDEX, BULGE_RADIUS * scale, 0.5 + 0.5 * axis_ratio, angle)
    flux, red = flux_of(magnitude), _reddening(random)
    parts = (
        Component(centre, bulge * flux, "old", red),
        Component(smooth, disc * flux, "disc", red),
        Component(spiral, arms * flux, "young", red),
    )
    return Galaxy(parts, "spiral", magnitude, radius, axis_ratio, angle, 8 * scale)


def make_galaxy(morphology: str, magnitude: float, random: np.random.Generator) -> Galaxy:
    """Make a random galaxy of a class of Dai & Tong (2018).

    Parameters
    ----------
    morphology : str
        One of `MORPHOLOGIES`.
    magnitude : float
        AB magnitude in r.
    random : numpy.random.Generator
        Source of all that is random.
    """
    if morphology == "spiral":
        return make_spiral(magnitude, random)
    if morphology == "edge_on":
        return make_edge_on(magnitude, random)
    return make_smooth(morphology, magnitude, random)
