"""The simulated camera: flux units, bands, point spread function, drawing of light."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import galsim
import numpy as np
from scipy import fft

ZERO_POINT = 22.5
MOFFAT_BETA = 3.5
STAMP_SIZES = (64, 96, 128, 192, 256, 384)

Brightness = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Band:
    """How sharp and how deep the images of one band are.

    Attributes
    ----------
    fwhm : float
        Full width at half maximum of the point spread function, pixel included, arcsec.
    noise : float
        Sky noise of one square arcsec, nanomaggies (zero point 22.5 mag).
    electrons : float
        Electrons per nanomaggie, for the photon noise of bright objects.
    """

    fwhm: float
    noise: float
    electrons: float


# About a DECaLS stack (Dey et al. 2019), with a seeing that differs from band to band.
BANDS = {
    "g": Band(fwhm=1.30, noise=0.030, electrons=5000.0),
    "r": Band(fwhm=1.10, noise=0.048, electrons=4600.0),
    "i": Band(fwhm=1.00, noise=0.070, electrons=4000.0),
    "z": Band(fwhm=1.00, noise=0.120, electrons=3500.0),
}

# Magnitude in the band minus magnitude in r.
COLOURS = {
    "old": {"g": 0.95, "r": 0.0, "i": -0.40, "z": -0.70},
    "disc": {"g": 0.60, "r": 0.0, "i": -0.28, "z": -0.45},
    "young": {"g": 0.22, "r": 0.0, "i": -0.08, "z": -0.12},
    "starburst": {"g": 0.05, "r": 0.0, "i": 0.0, "z": -0.05},
    "star": {"g": 0.70, "r": 0.0, "i": -0.30, "z": -0.45},
}


@dataclass(frozen=True)
class Component:
    """A part of an object with one shape and one colour.

    Attributes
    ----------
    light : galsim.GSObject or callable
        Shape of unit flux: a GalSim profile, or a function of x and y (arcsec from the
        object's centre) that gives surface brightness per square arcsec.
    flux_r : float
        Flux in r, nanomaggies.
    population : str
        Stars that shine: a key of `COLOURS`.
    reddening : float
        Factor on the colours of the population.
    """

    light: galsim.GSObject | Brightness
    flux_r: float
    population: str
    reddening: float = 1.0

    def flux(self, band: str) -> float:
        """Give the flux in a band, nanomaggies."""
        return self.flux_r * 10 ** (-0.4 * self.reddening * COLOURS[self.population][band])


def check_bands(bands: Sequence[str]) -> None:
    """Refuse bands that the camera does not have.

    Raises
    ------
    ValueError
        With the bands that are unknown and those there are.
    """
    unknown = [band for band in bands if band not in BANDS]
    if unknown:
        raise ValueError(f"the simulation has no bands {unknown}; choose from {list(BANDS)}")


def flux_of(magnitude: float) -> float:
    """Turn an AB magnitude into nanomaggies."""
    return 10 ** (-0.4 * (magnitude - ZERO_POINT))


def magnitude_of(flux: float) -> float:
    """Turn nanomaggies into an AB magnitude."""
    return ZERO_POINT - 2.5 * float(np.log10(flux))


def pixel_noise(band: str, pixel_scale: float) -> float:
    """Give the sky noise of one pixel, nanomaggies; `pixel_scale` in arcsec."""
    return BANDS[band].noise * pixel_scale


def stamp_size(extent: float, pixel_scale: float) -> int:
    """Choose the side of a stamp, in pixels, that holds light out to `extent` arcsec."""
    return next((n for n in STAMP_SIZES if n * pixel_scale / 2 >= extent), STAMP_SIZES[-1])


def _transform_of_profile(profile: galsim.GSObject, size: int, pixel_scale: float) -> np.ndarray:
    half = size // 2
    bounds = galsim.BoundsI(0, half, -half, half - 1)
    image = galsim.ImageCF(bounds, scale=2 * np.pi / (size * pixel_scale))
    profile.drawKImage(image=image, recenter=False)
    return np.fft.ifftshift(image.array, axes=0)


def _transform_of_samples(brightness: Brightness, size: int, pixel_scale: float) -> np.ndarray:
    # Sampled twice as finely, then cut to the frequencies of the stamp: arcs and arms are
    # sharper than a pixel before the point spread function smooths them.
    step = pixel_scale / 2
    axis = (np.arange(2 * size) - size) * step
    x, y = np.meshgrid(axis, axis)
    samples = (brightness(x, y) * step**2).astype(np.float32)
    transform = fft.rfft2(np.fft.ifftshift(samples))
    half = size // 2
    return np.concatenate([transform[:half, : half + 1], transform[-half:, : half + 1]])


def transform(light: galsim.GSObject | Brightness, size: int, pixel_scale: float) -> np.ndarray:
    """Fourier transform a shape on the grid of a stamp.

    Returns
    -------
    numpy.ndarray
        Shape (size, size // 2 + 1), complex64, in the layout of `rfft2`, for an object
        centred on pixel (0, 0).
    """
    if isinstance(light, galsim.GSObject):
        return _transform_of_profile(light, size, pixel_scale)
    return _transform_of_samples(light, size, pixel_scale)


@lru_cache(maxsize=256)
def _point_spread(fwhm: float, size: int, pixel_scale: float) -> np.ndarray:
    return transform(galsim.Moffat(beta=MOFFAT_BETA, fwhm=fwhm), size, pixel_scale).real.copy()


@lru_cache(maxsize=16)
def _fade(size: int) -> np.ndarray:
    """Fall from 1 to 0 over the outer fifth of a stamp, so that no square shows in an image."""
    axis = np.abs(np.arange(size) - size // 2) / (size // 2)
    radius = np.hypot(*np.meshgrid(axis, axis))
    fall = np.clip((radius - 0.8) / 0.2, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * fall)).astype(np.float32)


@lru_cache(maxsize=16)
def _frequencies(size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.fft.rfftfreq(size), np.fft.fftfreq(size)


def _shift(size: int, x: float, y: float) -> np.ndarray:
    across, down = _frequencies(size)
    row, column = np.exp(-2j * np.pi * across * x), np.exp(-2j * np.pi * down * y)
    return (column[:, None] * row[None, :]).astype(np.complex64)


def draw(
    components: Sequence[Component],
    bands: Sequence[str],
    size: int,
    pixel_scale: float,
    shift: tuple[float, float] = (0.0, 0.0),
    seeing: float = 1.0,
) -> np.ndarray:
    """Draw an object as the camera sees it, without noise.

    The point spread function is a Moffat (1969) profile with beta 3.5.

    Parameters
    ----------
    components : sequence of Component
        Parts of the object.
    bands : sequence of str
        Bands, in the order of the first axis.
    size : int
        Side of the stamp in pixels, even.
    pixel_scale : float
        Pixel scale, arcsec.
    shift : tuple of float
        Distance in x and y of the object from the centre of pixel (size // 2, size // 2), pixels.
    seeing : float
        Factor on the width of the point spread function.

    Returns
    -------
    numpy.ndarray
        Shape (band, y, x), float32, nanomaggies per pixel.
    """
    shapes = [transform(c.light, size, pixel_scale) for c in components]
    spectrum = np.empty((len(bands), size, size // 2 + 1), np.complex64)
    moved = _shift(size, *shift)
    for k, band in enumerate(bands):
        light = sum(np.float32(c.flux(band)) * s for c, s in zip(components, shapes, strict=True))
        width = round(BANDS[band].fwhm * seeing, 4)
        spectrum[k] = light * _point_spread(width, size, pixel_scale) * moved
    stamp = fft.irfft2(spectrum, s=(size, size))
    return np.fft.fftshift(stamp, axes=(1, 2)) * _fade(size)
