"""Small FITS files for tests."""

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS


def tan_wcs(shape=(200, 220), ra=150.0, dec=2.0, scale=0.262, rotation=10.0) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(shape[1] + 1) / 2, (shape[0] + 1) / 2]
    angle, step = np.radians(rotation), scale / 3600
    wcs.wcs.cd = step * np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wcs.array_shape = shape
    return wcs


def add_star(pixels, x, y, flux=5000.0, sigma=1.5) -> None:
    yy, xx = np.indices(pixels.shape)
    pixels += (
        flux * np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    )


def write_image(path, pixels, wcs=None, compressed=True, **extensions) -> str:
    """Write a multi-extension file; gives the image's name with its extension."""
    header = wcs.to_header() if wcs is not None else fits.Header()
    make = fits.CompImageHDU if compressed else fits.ImageHDU
    units = [fits.PrimaryHDU(), make(pixels, header, name="IMAGE")]
    units += [make(data, header, name=name) for name, data in extensions.items()]
    fits.HDUList(units).writeto(path, overwrite=True)
    return f"{path}[IMAGE]"
