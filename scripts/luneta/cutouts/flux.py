"""Units and sizes of a cutout that the survey's and the object's own numbers decide."""

from __future__ import annotations

import logging

import numpy as np
import pyarrow as pa

from luneta.cutouts.resample import rounded_factors
from luneta.survey.calibration import NANOJANSKY
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError

log = logging.getLogger(__name__)


def column(objects: pa.Table, name: str) -> np.ndarray:
    """Read a kept column as numbers; shape (objects,), float64, NaN where missing."""
    return np.asarray(objects[name].cast(pa.float64()).fill_null(np.nan), float)


def source_factors(objects: pa.Table, scale: float | None, settings: dict) -> np.ndarray:
    """Image pixels per cutout pixel of each object.

    Parameters
    ----------
    scale : float or None
        Arcsec per image pixel, where it is known.
    settings : dict
        `cutouts` of the config.

    Returns
    -------
    numpy.ndarray
        Shape (objects,), float64; steps of one per cent if they follow each object's radius.

    Raises
    ------
    ImageError
        If the extent is in arcsec, and the scale is not known.
    """
    cutouts = settings["cutouts"]
    extent, size = cutouts.get("extent"), cutouts["size"]
    if extent is None:
        return np.ones(len(objects))
    if extent["unit"] == "pixels":
        return np.full(len(objects), extent["side"] / size)
    if scale is None:
        raise ImageError(
            Flag.NO_WCS,
            "the image has no celestial coordinate system, so its pixels have no size in arcsec, "
            "which cutouts.extent asks for; set input.pixel_scale",
        )
    if extent["unit"] == "arcsec":
        return np.full(len(objects), extent["side"] / scale / size)
    sides = extent["side"] * column(objects, extent["radius"])
    missing = int((~np.isfinite(sides)).sum())
    if missing:
        log.warning("%d objects have no %s: cut at the least size", missing, extent["radius"])
    sides = np.clip(np.nan_to_num(sides, nan=extent["least"]), extent["least"], extent["most"])
    return rounded_factors(sides / scale / size)


def warn_of_missing_dust(objects: pa.Table, settings: dict) -> None:
    """Log how many objects of a shard have no E(B-V), and are not corrected for dust."""
    dust = settings["cutouts"].get("extinction")
    if dust is None:
        return
    missing = int(np.isnan(column(objects, dust["ebv"])).sum())
    if missing:
        log.warning("%d objects have no %s: not corrected for dust", missing, dust["ebv"])


def flux_factors(
    objects: pa.Table,
    part: slice | np.ndarray,
    band: str,
    zero_point: float | np.ndarray | None,
    settings: dict,
) -> np.ndarray:
    """Factor from counts to flux, corrected for Galactic dust, of each object.

    Parameters
    ----------
    part : slice or numpy.ndarray
        Which of the objects.
    zero_point : float, numpy.ndarray or None
        AB magnitude of one count, of all or of each object in `part`; NaN where there is none.

    Returns
    -------
    numpy.ndarray
        Of the objects in `part`, float64; to nanojansky if there is a zero point. Where E(B-V) is
        missing, there is no correction for dust; see `warn_of_missing_dust`.
    """
    given = np.asarray(np.nan if zero_point is None else zero_point, float)
    factor = 10 ** (0.4 * (NANOJANSKY - np.where(np.isnan(given), NANOJANSKY, given)))
    dust = settings["cutouts"].get("extinction")
    if dust is not None and band in dust["coefficients"]:
        reddening = np.nan_to_num(column(objects, dust["ebv"])[part])
        factor = factor * 10 ** (0.4 * dust["coefficients"][band] * reddening)
    return np.broadcast_to(factor, np.arange(len(objects))[part].shape)


def area_ratio(objects: pa.Table, settings: dict) -> np.ndarray:
    """Area of the galaxy's Petrosian ellipse over that of the seeing disc: K of Barchi et al. 2020.

    K = q R^2 / (FWHM / 2)^2 with the semi-major axis R and the axis ratio q.

    Returns
    -------
    numpy.ndarray
        Shape (objects,), float64; NaN where a number is missing.
    """
    names = settings["cutouts"]["area_ratio"]
    ratio = column(objects, names["axis_ratio"]) if names["axis_ratio"] else 1.0
    if names["seeing"]:
        seeing = column(objects, names["seeing"])
    else:
        given = settings["seeing"]
        band = settings.get("reference_band") or settings["bands"][0]
        seeing = given[band] if isinstance(given, dict) else given
    with np.errstate(divide="ignore", invalid="ignore"):
        return ratio * column(objects, names["radius"]) ** 2 / (seeing / 2) ** 2
