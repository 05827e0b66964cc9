"""Finding the objects of a tile, where the survey brings no source list.

With SEP (Barbary 2016), the algorithms of SExtractor (Bertin & Arnouts 1996) as a library.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import sep
from astropy import units
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_area

from luneta.survey.flags import Flag
from luneta.survey.images import ImageError, ImageFile
from luneta.survey.masks import bad_pixels, noise_of_weight, sentinel_pixels
from luneta.survey.names import position_names
from luneta.survey.remote import localised
from luneta.survey.sources import Sources, concatenate, on_the_sky
from luneta.survey.tiles import BandFiles, Tile
from luneta.survey.wcs import read_grid

KRON_FACTOR, KRON_LEAST_RADIUS = 2.5, 3.5
LOCUS_SIGNAL_TO_NOISE, LOCUS_LEAST = 20.0, 5
SUB_OBJECTS = 8192
LEAST_AXIS = 12**-0.5  # second moment of a single pixel

log = logging.getLogger(__name__)


def detected_columns(band: str) -> list[str]:
    """Name the columns that detection on a reference band gives, beside the position."""
    return [
        f"magnitude_{band}",
        "half_light_radius",
        "axis_ratio",
        "position_angle",
        "signal_to_noise",
        "star",
    ]


def _schema(band: str) -> pa.Schema:
    """Fields of the detected columns, with their units."""
    names = detected_columns(band)
    kinds = [pa.float32()] * 5 + [pa.bool_()]
    marks = ["mag", "arcsec", None, "deg", None, None]
    return pa.schema(
        [
            pa.field(name, kind, metadata={"unit": unit} if unit else None)
            for name, kind, unit in zip(names, kinds, marks, strict=True)
        ]
    )


def _required(name: str, plane: int, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Read a plane of an image; ImageError if its shape is not the one it must have."""
    with ImageFile(name) as image:
        several = image.planes is not None  # the mask of a cube may be one plane for all bands
    with ImageFile(name, plane if several else 0) as image:
        if shape is not None and tuple(image.shape) != tuple(shape):
            raise ImageError(
                Flag.SHAPE_MISMATCH,
                f"{name} has shape {tuple(image.shape)}, the image it belongs to {tuple(shape)}",
                name,
            )
        return image.read()


def read_image(
    files: BandFiles, settings: Mapping
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Read an image with its mask and weight.

    Parameters
    ----------
    files : BandFiles
        Of the reference band.
    settings : mapping
        `mask` and `weight` of the config's `input` section.

    Returns
    -------
    pixels : numpy.ndarray
        Shape (y, x), float32; 0 where bad.
    bad : numpy.ndarray
        Shape (y, x), bool.
    noise : numpy.ndarray or None
        Standard deviation of each pixel, shape (y, x), float32, where the weight image tells it.

    Raises
    ------
    ImageError
        If a file is missing or broken, shapes differ, or no pixel is good.
    """
    stored = _required(files.image, files.plane)
    bad = sentinel_pixels(stored, settings["mask"]["sentinels"])
    pixels = np.ascontiguousarray(stored, np.float32)
    bad |= ~np.isfinite(pixels)
    if files.mask:
        bad |= bad_pixels(_required(files.mask, files.plane, bad.shape), settings["mask"])[0]
    noise = None
    if files.weight:
        weight = _required(files.weight, files.plane, bad.shape)
        noise = noise_of_weight(weight, settings["weight"])
        bad |= np.isnan(noise)
        noise = None if settings["weight"] == "relative" else np.nan_to_num(noise, nan=1.0)
    if bad.all():
        raise ImageError(Flag.NO_DATA, f"{files.image} has no good pixel", files.image)
    return np.where(bad, np.float32(0), pixels), bad, noise


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
    mesh = min(settings["mesh"], *pixels.shape)
    sky = sep.Background(pixels, mask=bad, bw=mesh, bh=mesh)
    pixels = pixels - sky.back(dtype=np.float32)
    noise = np.maximum(sky.rms(dtype=np.float32), 1e-30) if noise is None else noise
    found, segments = _segmented(pixels, bad, noise, settings)
    shape = {name: found[name].astype(float) for name in ("x", "y", "a", "b", "theta")}
    shape["a"] = np.maximum(shape["a"], LEAST_AXIS)
    shape["b"] = np.clip(shape["b"], LEAST_AXIS, shape["a"])
    shape["theta"] = np.clip(shape["theta"], -np.pi / 2, np.pi / 2)
    return {**shape, **_photometry(pixels, bad, noise, segments, shape)}


def _segmented(pixels, bad, noise, settings) -> tuple[np.ndarray, np.ndarray]:
    """Find objects; a table of them, and the image of their numbers."""
    sep.set_extract_pixstack(max(300_000, pixels.size // 4))
    sep.set_sub_object_limit(SUB_OBJECTS)
    try:
        return sep.extract(
            pixels,
            settings["threshold"],
            err=noise,
            mask=bad,
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


def _photometry(pixels, bad, noise, segments, shape) -> dict[str, np.ndarray]:
    """Measure Kron fluxes and half-light radii."""
    place = shape["x"], shape["y"]
    numbers = np.arange(1, len(place[0]) + 1, dtype=np.int32)
    apart = {"mask": bad, "segmap": segments, "seg_id": numbers}
    ellipse = shape["a"], shape["b"], shape["theta"]
    kron, _ = sep.kron_radius(pixels, *place, *ellipse, 6.0, **apart)
    smallest = KRON_LEAST_RADIUS / KRON_FACTOR / np.sqrt(ellipse[0] * ellipse[1])
    scale = KRON_FACTOR * np.maximum(np.nan_to_num(kron), smallest)
    flux, error, _ = sep.sum_ellipse(pixels, *place, *ellipse, scale, err=noise, subpix=5, **apart)
    reach = np.maximum(scale * ellipse[0], KRON_LEAST_RADIUS)
    radius, flag = sep.flux_radius(
        pixels, *place, reach, 0.5, normflux=np.maximum(flux, 1e-30), subpix=5, **apart
    )
    unknown = ~(flux > 0) | ~np.isfinite(radius) | ~(radius > 0)
    return {"flux": flux, "flux_error": error, "radius": np.where(unknown, np.nan, radius)}


def stellar_locus(radius: np.ndarray, signal_to_noise: np.ndarray, tolerance: float) -> float:
    """Half-light radius of point sources: that about which most bright small objects crowd.

    Point sources are the smallest objects there are, all of one size; so of the crowds of objects
    within `tolerance` of one radius it is the densest, unless a fifth of all are smaller still.

    Parameters
    ----------
    radius, signal_to_noise : numpy.ndarray
        Shape (objects,), float64.
    tolerance : float
        Half-width of the locus, as a fraction of its radius.

    Returns
    -------
    float
        NaN where too few objects are bright, or none crowd.
    """
    bright = np.isfinite(radius) & (signal_to_noise > LOCUS_SIGNAL_TO_NOISE)
    logs = np.sort(np.log(radius[bright]))
    while len(logs) >= LOCUS_LEAST:
        width = np.log1p(tolerance)
        crowd = np.searchsorted(logs, logs + width) - np.arange(len(logs))
        start = int(np.argmax(crowd))
        if crowd[start] < LOCUS_LEAST:
            return np.nan
        if start <= 0.2 * len(logs):
            return float(np.exp(np.median(logs[start : start + crowd[start]])))
        logs = logs[:start]
    return np.nan


def _on_the_sky(wcs: WCS, found: Mapping) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right ascension, declination, and position angle east of north, in degrees."""
    x, y, theta = found["x"], found["y"], found["theta"]
    sky = wcs.pixel_to_world(x, y).icrs
    along = wcs.pixel_to_world(x + np.cos(theta), y + np.sin(theta)).icrs
    return sky.ra.deg, sky.dec.deg, sky.position_angle(along).to_value(units.deg) % 180


def _arcsec_per_pixel(wcs: WCS) -> float:
    return float(np.sqrt(proj_plane_pixel_area(wcs)) * 3600)


def detect_tile(tile: Tile, settings: Mapping) -> Sources:
    """Find the objects of a tile on its reference band.

    Parameters
    ----------
    settings : mapping
        `reference_band`, and `detection`, `mask`, `weight`, `zero_points`, `remote` of the
        config's `input` section.

    Returns
    -------
    Sources
        Kept are `detected_columns`. The magnitude is AB where the band has a zero point, else
        instrumental. What lies where the projection has no sky is left out.

    Raises
    ------
    ImageError
        If the image, its mask or weight cannot be used, or it has no coordinate system.
    """
    band, wanted = settings["reference_band"], settings["detection"]
    if band not in tile.bands:
        raise ImageError(
            Flag.MISSING_FILE, f"tile {tile.name} has no image in the reference band {band}"
        )
    with localised(tile.bands[band], settings.get("remote") or {}) as files:
        wcs, _ = read_grid(files.image)
        found = extract(*read_image(files, settings), wanted)
    ra, dec, angle = _on_the_sky(wcs, found)
    significance = found["flux"] / found["flux_error"]
    locus = stellar_locus(found["radius"], significance, wanted["star_tolerance"])
    star = np.abs(found["radius"] / locus - 1) <= wanted["star_tolerance"]
    rows = _chosen(found["flux"], star, wanted)
    rows = rows[on_the_sky(ra[rows], dec[rows])]
    log.info(
        "tile %s: %d objects, %d of them point-like (half-light radius %.2f pixels), %d kept",
        tile.name, len(ra), star.sum(), locus, len(rows),
    )  # fmt: skip
    zero_point = (settings.get("zero_points") or {}).get(band, 0.0)
    values = [
        _magnitude(found["flux"], zero_point),
        found["radius"] * _arcsec_per_pixel(wcs),
        found["b"] / found["a"],
        angle,
        significance,
        star,
    ]
    return Sources(
        object_id=position_names(ra[rows], dec[rows]),
        ra=ra[rows],
        dec=dec[rows],
        tile=np.full(len(rows), tile.name, object),
        kept=_kept([value[rows] for value in values], band),
        x=found["x"][rows],
        y=found["y"][rows],
    )


def _magnitude(flux: np.ndarray, zero_point: float) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(flux > 0, zero_point - 2.5 * np.log10(flux), np.nan)


def _chosen(flux: np.ndarray, star: np.ndarray, wanted: Mapping) -> np.ndarray:
    """Rows that stay: without stars, or the brightest only, if so asked; in their order."""
    rows = np.flatnonzero(~star) if wanted["stars"] == "drop" else np.arange(len(flux))
    if wanted["brightest"] is not None:
        rows = np.sort(rows[np.argsort(-flux[rows], kind="stable")[: wanted["brightest"]]])
    return rows


def _kept(values: Sequence[np.ndarray], band: str) -> pa.Table:
    schema = _schema(band)
    arrays = [
        pa.array(value.astype(field.type.to_pandas_dtype()), field.type, from_pandas=True)
        for value, field in zip(values, schema, strict=True)
    ]
    return pa.table(arrays, schema=schema)


def _nothing(band: str) -> Sources:
    empty, none = np.empty(0, object), np.empty(0)
    return Sources(empty, none, none, empty, _schema(band).empty_table())


def detect_sources(tiles: Sequence[Tile], settings: Mapping) -> Sources:
    """Find the objects of some tiles; a tile whose images cannot be used gives none.

    Parameters
    ----------
    settings : mapping
        As `detect_tile`.
    """
    parts = [_nothing(settings["reference_band"])]
    for tile in tiles:
        try:
            parts.append(detect_tile(tile, settings))
        except ImageError as error:
            log.warning("tile %s: no objects, as %s", tile.name, error)
    return concatenate(parts)
