"""Finding and measuring objects in the pixels of an image.

With SEP (Barbary 2016), the algorithms of SExtractor (Bertin & Arnouts 1996) as a library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import sep

from luneta.survey.flags import Flag
from luneta.survey.images import ImageError

KRON_FACTOR, KRON_LEAST_RADIUS = 2.5, 3.5
SUB_OBJECTS = 8192
LEAST_AXIS = 12**-0.5  # second moment of a single pixel
LEAST_NOISE = 1e-30
LEAST_GOOD = 0.5  # of an ellipse, for its flux to be told
LEAST_ROUND = 0.6
LIT_NOISE, LEAST_LIT = 2.0, 5


@dataclass(frozen=True)
class Plane:
    """An image less its sky, to find and measure objects in.

    Attributes
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32.
    bad : numpy.ndarray
        Shape (y, x), bool; these pixels belong to no object.
    noise : numpy.ndarray
        Standard deviation of each pixel, shape (y, x), float32.
    saturated : numpy.ndarray
        Shape (y, x), bool; objects with such pixels do not tell the size of point sources.
    """

    pixels: np.ndarray
    bad: np.ndarray
    noise: np.ndarray
    saturated: np.ndarray


@dataclass(frozen=True)
class Objects:
    """The objects of an image, in pixels of it.

    Attributes
    ----------
    x, y : numpy.ndarray
        Zero-based pixel, shape (objects,), float64.
    a, b, theta : numpy.ndarray
        Semi-axes in pixels, and the angle of the major one from x to y in radians; second moments.
        Shape (objects,), float64.
    kron : numpy.ndarray
        Factor from the semi-axes to those of the Kron ellipse, shape (objects,), float64.
    can_be_point : numpy.ndarray
        Whether light reaches the neighbours of the brightest pixel, as it does of all but hot
        pixels and cosmic rays; shape (objects,), bool.
    clean : numpy.ndarray
        Whether the object is such a one, round, not blended, saturated or cut off; shape
        (objects,), bool.
    segments : numpy.ndarray
        Number of the object, from 1, that each pixel belongs to, shape (y, x); 0 is none.
    """

    x: np.ndarray
    y: np.ndarray
    a: np.ndarray
    b: np.ndarray
    theta: np.ndarray
    kron: np.ndarray
    can_be_point: np.ndarray
    clean: np.ndarray
    segments: np.ndarray

    @property
    def apart(self) -> dict:
        """What keeps sep from counting the pixels of neighbours."""
        return {
            "segmap": self.segments,
            "seg_id": np.arange(1, len(self.x) + 1, dtype=np.int32),
        }

    @property
    def ellipse(self) -> tuple:
        """Position, semi-axes and angle, as sep takes them."""
        return self.x, self.y, self.a, self.b, self.theta


def without_sky(
    pixels: np.ndarray,
    bad: np.ndarray,
    noise: np.ndarray | None,
    mesh: int,
    saturated: np.ndarray | None = None,
) -> Plane:
    """Subtract the background map of an image; it also tells the noise, if nothing else does.

    Parameters
    ----------
    pixels, bad, noise, saturated : numpy.ndarray
        As in `Plane`, with the sky; noise may be None, and saturated if no pixel is.
    mesh : int
        Mesh of the map in pixels.
    """
    mesh = min(mesh, *pixels.shape)
    sky = sep.Background(pixels, mask=bad, bw=mesh, bh=mesh)
    if noise is None:
        noise = np.maximum(sky.rms(dtype=np.float32), LEAST_NOISE)
    saturated = np.zeros(bad.shape, bool) if saturated is None else saturated
    return Plane(pixels - sky.back(dtype=np.float32), bad, noise, saturated)


def extract(
    pixels: np.ndarray, bad: np.ndarray, noise: np.ndarray | None, settings: Mapping
) -> dict[str, np.ndarray]:
    """Find objects in an image and measure them, in pixels and counts.

    Fluxes and radii are as SExtractor's FLUX_AUTO (Kron 1980) and FLUX_RADIUS; bad pixels and
    those of neighbours are left out, and the flux scaled by the area left.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32.
    bad : numpy.ndarray
        Shape (y, x), bool; bad pixels belong to no object.
    noise : numpy.ndarray or None
        Standard deviation of each pixel, shape (y, x); of the background map if None.
    settings : mapping
        The config's `input.detection` section.

    Returns
    -------
    dict
        `x`, `y` (zero-based pixel), `a`, `b` (pixels), `theta` (radians from x to y), `flux`,
        `flux_error` (counts), `radius` (half light, pixels), each of shape (objects,), float64.
    """
    plane = without_sky(pixels, bad, noise, settings["mesh"])
    objects = find(plane, settings)
    flux, error = kron_flux(plane, objects)
    shape = {name: getattr(objects, name) for name in ("x", "y", "a", "b", "theta")}
    radius = half_light_radius(plane, objects, flux)
    return {**shape, "flux": flux, "flux_error": error, "radius": radius}


def find(plane: Plane, settings: Mapping) -> Objects:
    """Find the objects of an image.

    Parameters
    ----------
    settings : mapping
        The config's `input.detection` section.

    Raises
    ------
    ImageError
        If too many pixels are above the threshold.
    """
    table, segments = _segmented(plane, settings)
    x, y, a, b, theta = (table[name].astype(float) for name in ("x", "y", "a", "b", "theta"))
    a = np.maximum(a, LEAST_AXIS)
    b = np.clip(b, LEAST_AXIS, a)
    theta = np.clip(theta, -np.pi / 2, np.pi / 2)
    lit = _lit(plane, table["xpeak"], table["ypeak"])
    whole = (table["flag"] & (sep.OBJ_MERGED | sep.OBJ_TRUNC)) == 0
    clean = lit & whole & (b >= LEAST_ROUND * a)
    objects = Objects(x, y, a, b, theta, np.ones(len(x)), lit, clean, segments)
    return _with_kron(plane, objects)


def _segmented(plane: Plane, settings: Mapping) -> tuple[np.ndarray, np.ndarray]:
    """Find objects; a table of them, and the image of their numbers."""
    sep.set_extract_pixstack(max(300_000, plane.pixels.size // 4))
    sep.set_sub_object_limit(SUB_OBJECTS)
    try:
        return sep.extract(
            plane.pixels,
            settings["threshold"],
            err=plane.noise,
            mask=plane.bad,
            minarea=settings["minimum_area"],
            filter_type="conv",
            deblend_nthresh=settings["deblend_levels"],
            deblend_cont=settings["deblend_contrast"],
            segmentation_map=True,
        )
    except Exception as error:  # sep raises no other kind
        raise ImageError(
            Flag.NO_DATA,
            f"nothing can be detected ({error}): too many pixels are above the threshold; "
            f"raise input.detection.threshold, or mask the bad pixels",
        ) from None


def _lit(plane: Plane, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether most neighbours of each pixel are brighter than the noise; shape (objects,)."""
    ny, nx = plane.pixels.shape
    count = np.zeros(len(x), int)
    for dy, dx in ((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx):
        place = np.clip(y + dy, 0, ny - 1), np.clip(x + dx, 0, nx - 1)
        count += plane.pixels[place] > LIT_NOISE * plane.noise[place]
    return count >= LEAST_LIT


def _with_kron(plane: Plane, objects: Objects) -> Objects:
    """Add the size of the Kron ellipse, and what of `clean` depends on it."""
    kron, _ = sep.kron_radius(plane.pixels, *objects.ellipse, 6.0, mask=plane.bad, **objects.apart)
    smallest = KRON_LEAST_RADIUS / KRON_FACTOR / np.sqrt(objects.a * objects.b)
    scale = KRON_FACTOR * np.maximum(np.nan_to_num(kron), smallest)
    values = vars(objects) | {"kron": scale}
    known = Objects(**values)
    clean = objects.clean & (good_share(plane, known) > 0.99) & ~_saturated(plane, known)
    return Objects(**values | {"clean": clean})


def _saturated(plane: Plane, objects: Objects) -> np.ndarray:
    """Whether a saturated pixel lies in each Kron ellipse; shape (objects,)."""
    if not plane.saturated.any():
        return np.zeros(len(objects.x), bool)
    saturated = plane.saturated.astype(np.float32)
    return sep.sum_ellipse(saturated, *objects.ellipse, objects.kron, subpix=5)[0] > 0


def good_share(plane: Plane, objects: Objects) -> np.ndarray:
    """Part of each Kron ellipse that lies on good pixels of an image; shape (objects,)."""
    good = (~plane.bad).astype(np.float32)
    area, _, _ = sep.sum_ellipse(good, *objects.ellipse, objects.kron, subpix=5)
    return area / (np.pi * objects.a * objects.b * objects.kron**2)


def kron_flux(plane: Plane, objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Sum an image in the Kron ellipses of objects.

    Returns
    -------
    flux, error : numpy.ndarray
        Counts, shape (objects,), float64.
    """
    flux, error, _ = sep.sum_ellipse(
        plane.pixels,
        *objects.ellipse,
        objects.kron,
        err=plane.noise,
        subpix=5,
        mask=plane.bad,
        **objects.apart,
    )
    return flux, error


def half_light_radius(plane: Plane, objects: Objects, flux: np.ndarray) -> np.ndarray:
    """Radius of the circle with half of each flux, in pixels; NaN where there is none."""
    reach = np.maximum(objects.kron * objects.a, KRON_LEAST_RADIUS)
    radius, _ = sep.flux_radius(
        plane.pixels,
        objects.x,
        objects.y,
        reach,
        0.5,
        normflux=np.maximum(flux, 1e-30),
        subpix=5,
        mask=plane.bad,
        **objects.apart,
    )
    unknown = ~(flux > 0) | ~np.isfinite(radius) | ~(radius > 0)
    return np.where(unknown, np.nan, radius)


def magnitudes(plane: Plane, objects: Objects, zero_point: float) -> tuple[np.ndarray, np.ndarray]:
    """Measure magnitudes in the Kron ellipses of objects.

    Returns
    -------
    magnitude, error : numpy.ndarray
        Shape (objects,), float64; NaN where the flux is not positive, or less than half of the
        ellipse lies on good pixels.
    """
    flux, error = kron_flux(plane, objects)
    known = (flux > 0) & (good_share(plane, objects) >= LEAST_GOOD)
    flux = np.where(known, flux, np.nan)
    return zero_point - 2.5 * np.log10(flux), 2.5 / np.log(10) * error / flux
