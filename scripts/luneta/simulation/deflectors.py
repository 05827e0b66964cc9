"""Foreground galaxies of lens candidates: redshift, mass, colours and light."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import galsim
import numpy as np

from luneta.simulation.camera import Brightness, flux_of
from luneta.simulation.galaxies import BULGE_INDEX, elliptical, smooth_light

BANDS = ("u", "g", "r", "i")
SERSIC_INDICES = (2.5, 3.0, 3.5, 4.0, 4.0, 4.5, 5.0)
EINSTEIN_RADII = (0.3, 3.5)  # arcsec
DISC_DEFLECTORS = 0.15

# About the colours of an old galaxy against redshift.
OLD_REDSHIFTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
OLD_COLOURS = (  # u - g, g - r, r - i
    (1.75, 1.85, 1.95, 1.90, 1.80, 1.70, 1.70, 1.70, 1.70, 1.60),
    (0.75, 0.93, 1.18, 1.40, 1.62, 1.72, 1.76, 1.78, 1.78, 1.75),
    (0.38, 0.40, 0.45, 0.52, 0.62, 0.80, 0.95, 1.05, 1.15, 1.20),
)
# Of others: the same three colours at redshift 0, and how they grow with redshift.
COLOURS = {
    "disc": ((1.15, 0.55, 0.28), (0.4, 0.7, 0.3)),
    "young": ((0.70, 0.22, 0.10), (-0.2, 0.25, 0.15)),
    "starburst": ((0.20, 0.10, 0.08), (0.05, 0.02, 0.03)),
    "star": ((1.20, 0.70, 0.35), (0.0, 0.0, 0.0)),
}
COLOUR_SCATTER = {"old": 0.05, "disc": 0.10, "young": 0.14, "starburst": 0.14, "star": 0.30}


@dataclass(frozen=True)
class Light:
    """A part of a candidate.

    Attributes
    ----------
    shape : galsim.GSObject or callable
        As in `camera.Component`; unit flux, except of what is lensed, where it is the
        source that has unit flux.
    fluxes : numpy.ndarray
        Shape (band,), float64, of `BANDS`, maggies: 10^(-0.4 m), zero point 0.
    position : tuple of float
        x and y from the centre of the stamp, arcsec.
    """

    shape: galsim.GSObject | Brightness
    fluxes: np.ndarray
    position: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Deflector:
    """A massive galaxy in the foreground: what may act as a lens if something lies behind it.

    Attributes
    ----------
    redshift, source_redshift : float
        Of itself and of a source behind it.
    magnitude : float
        AB, r.
    radius : float
        Half-light radius along the major axis, arcsec.
    axis_ratio, angle : float
        Of the light; angle of the major axis from x towards y, radian.
    einstein_radius : float
        For that source, arcsec.
    """

    redshift: float
    source_redshift: float
    magnitude: float
    radius: float
    axis_ratio: float
    angle: float
    einstein_radius: float


@lru_cache(maxsize=1)
def _comoving_distances() -> tuple[np.ndarray, np.ndarray]:
    """Tabulate the comoving distance (Mpc), flat universe, H0 = 70 km/s/Mpc, Omega_m = 0.3."""
    redshift = np.linspace(0, 6, 1201)
    inverse = 1 / np.sqrt(0.3 * (1 + redshift) ** 3 + 0.7)
    steps = (inverse[1:] + inverse[:-1]) / 2 * np.diff(redshift)
    return redshift, 299792.458 / 70 * np.concatenate([[0], np.cumsum(steps)])


def comoving_distance(redshift: float) -> float:
    """Give the line-of-sight comoving distance in Mpc (Hogg 1999, equation 15)."""
    return float(np.interp(redshift, *_comoving_distances()))


def einstein_radius(dispersion: float, redshift: float, source_redshift: float) -> float:
    """Give the Einstein radius, arcsec, of an isothermal sphere (Narayan & Bartelmann 1996).

    Parameters
    ----------
    dispersion : float
        Velocity dispersion, km/s.
    redshift, source_redshift : float
        Of the deflector and of the source behind it.
    """
    ratio = 1 - comoving_distance(redshift) / comoving_distance(source_redshift)
    return float(np.degrees(4 * np.pi * (dispersion / 299792.458) ** 2 * ratio) * 3600)


def fluxes(
    magnitude: float, band: str, population: str, redshift: float, random: np.random.Generator
) -> np.ndarray:
    """Draw the colours of a population and give its fluxes.

    Returns
    -------
    numpy.ndarray
        Shape (band,), float64, maggies.
    """
    if population == "old":
        colours = np.array([np.interp(redshift, OLD_REDSHIFTS, c) for c in OLD_COLOURS])
    else:
        base, slope = COLOURS[population]
        colours = np.array(base) + redshift * np.array(slope)
    colours += random.normal(0, COLOUR_SCATTER[population], 3) * (1.5, 1.0, 0.7)
    if population == "starburst":  # The Lyman break enters u beyond 2.4, g beyond 3.4.
        colours[:2] += 1.3 * np.maximum(redshift - np.array([2.4, 3.4]), 0)
    relative = -np.concatenate([[0], np.cumsum(colours)])
    return 1e-9 * flux_of(magnitude) * 10 ** (-0.4 * (relative - relative[BANDS.index(band)]))


def make_deflector(random: np.random.Generator) -> Deflector:
    """Draw a massive galaxy whose Einstein radius is within `EINSTEIN_RADII`.

    Its luminosity follows from the velocity dispersion as L ~ sigma^4 (Faber & Jackson 1976).
    """
    while True:
        redshift = 0.12 + 0.68 * random.beta(2.2, 2.2)
        source_redshift = redshift + 0.3 + random.gamma(3.0, 0.45)
        dispersion = 235 * np.exp(random.normal(0, 0.24))
        halo = np.exp(abs(random.normal(0, 0.35)))  # of the group around it
        radius = halo * einstein_radius(dispersion, redshift, min(source_redshift, 5.0))
        if EINSTEIN_RADII[0] <= radius <= EINSTEIN_RADII[1]:
            break
    luminosity = (dispersion / 200) ** 4 * 10 ** random.normal(0, 0.12)
    distance = comoving_distance(redshift)
    modulus = 25 + 5 * np.log10(distance * (1 + redshift))
    kiloparsec = 4.2 * luminosity**0.6 * 10 ** random.normal(0, 0.12)
    return Deflector(
        redshift=float(redshift),
        source_redshift=float(min(source_redshift, 5.0)),
        magnitude=float(-21.3 - 2.5 * np.log10(luminosity) + modulus + 0.7 * redshift),
        radius=float(kiloparsec / 1000 / (distance / (1 + redshift)) * 206265),
        axis_ratio=float(np.clip(random.normal(0.78, 0.13), 0.4, 1.0)),
        angle=float(random.uniform(0, np.pi)),
        einstein_radius=float(radius),
    )


def disc_scale(deflector: Deflector) -> float:
    """Give the scale length, arcsec, of a disc of the deflector's luminosity."""
    return 1.5 * deflector.radius / 1.68


def bulge_and_disc(
    deflector: Deflector,
    scale: float,
    axis_ratio: float,
    bulge: float,
    random: np.random.Generator,
) -> tuple[Light, Light]:
    """Give an old bulge and an exponential disc.

    Parameters
    ----------
    deflector : Deflector
        Its magnitude, redshift and angle are theirs.
    scale : float
        Scale length of the disc, arcsec.
    axis_ratio : float
        Of the disc.
    bulge : float
        The bulge's fraction of the light.
    random : numpy.random.Generator
        Source of all that is random.
    """
    light = fluxes(deflector.magnitude, "r", "disc", deflector.redshift, random)
    old = fluxes(deflector.magnitude, "r", "old", deflector.redshift, random)
    disc = elliptical(galsim.Exponential(scale_radius=scale), axis_ratio, deflector.angle)
    centre = smooth_light(BULGE_INDEX, 0.4 * scale, 0.5 + 0.5 * axis_ratio, deflector.angle)
    return Light(centre, bulge * old), Light(disc, (1 - bulge) * light)


def deflector_lights(deflector: Deflector, random: np.random.Generator) -> tuple[Light, ...]:
    """Give the light of a deflector: an old Sersic galaxy, now and then a bulge with a disc."""
    if random.random() < DISC_DEFLECTORS:
        axis_ratio, bulge = random.uniform(0.3, 1.0), random.uniform(0.3, 0.7)
        return bulge_and_disc(deflector, disc_scale(deflector), axis_ratio, bulge, random)
    index = float(random.choice(SERSIC_INDICES))
    shape = smooth_light(index, deflector.radius, deflector.axis_ratio, deflector.angle)
    light = fluxes(deflector.magnitude, "r", "old", deflector.redshift, random)
    return (Light(shape, light),)
