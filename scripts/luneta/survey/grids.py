"""Pixel grids: whether two images share one, and how an image is brought onto another."""

from __future__ import annotations

import numpy as np
from astropy.wcs import WCS

from luneta.survey.wcs import to_pixels, to_sky

GRID_TOLERANCE = 0.05


def same_grid(wcs: WCS, shape, reference: WCS, reference_shape) -> bool:
    """Whether two images share their pixel grid to 0.05 pixel."""
    if tuple(shape) != tuple(reference_shape):
        return False
    ny, nx = shape
    x = np.array([0, nx - 1, 0, nx - 1, nx / 2])
    y = np.array([0, 0, ny - 1, ny - 1, ny / 2])
    on_reference = np.array(to_pixels(reference, *to_sky(wcs, x, y)))
    return bool(np.abs(on_reference - [x, y]).max() < GRID_TOLERANCE)


def resampled(pixels, wcs: WCS, target: WCS, shape, conserve_flux: bool) -> np.ndarray:
    """Bring an image onto another grid (DeForest 2004).

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (y, x), float32; NaN is bad, as is every new pixel that it reaches.
    wcs, target : astropy.wcs.WCS
        Coordinate systems of the image and of the new grid.
    shape : tuple of 2 ints
        (y, x) of the new grid.
    conserve_flux : bool
        Whether the sum over an object stays, rather than the value of a pixel.

    Returns
    -------
    numpy.ndarray
        Shape (y, x), float32; NaN where there is nothing.
    """
    # Takes a third of the start of a job, and most surveys have their bands on one grid.
    from reproject import reproject_adaptive

    found, _ = reproject_adaptive(
        (pixels, wcs),
        target,
        shape_out=shape,
        conserve_flux=conserve_flux,
        kernel="hann",
        boundary_mode="strict",
        bad_value_mode="strict",
        roundtrip_coords=False,
    )
    return found.astype(np.float32)
