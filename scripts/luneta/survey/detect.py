"""Finding the objects of a tile, where the survey brings no source list."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS

from luneta.survey.detected import (
    detected_columns,
    detected_schema,
    is_calibrated,
    magnitude_names,
    measured_bands,
)
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError, memory_for
from luneta.survey.locus import phase_free_radius, stellar_locus
from luneta.survey.measure import (
    Objects,
    extract,
    find,
    half_light_radius,
    kron_flux,
    magnitudes,
)
from luneta.survey.position_names import position_names
from luneta.survey.sources import Sources, concatenate, on_the_sky
from luneta.survey.tile_planes import TilePlanes
from luneta.survey.tiles import Tile
from luneta.survey.wcs import pixel_scale, to_sky

__all__ = [
    "detect_sources",
    "detect_tile",
    "detected_columns",
    "extract",
    "position_names",
    "stellar_locus",
]

BRIGHT = 20.0  # signal-to-noise ratio

log = logging.getLogger(__name__)


def detect_tile(tile: Tile, settings: Mapping, unavailable: list[str] | None = None) -> Sources:
    """Find the objects of a tile, and measure them in all bands.

    Parameters
    ----------
    settings : mapping
        `reference_band`, `bands`, and `detection`, `mask`, `weight`, `zero_points`,
        `zero_point`, `remote` of the config's `input` section.
    unavailable : list of str, optional
        Takes the names of files that could not be read this time.

    Returns
    -------
    Sources
        Kept are `detected_columns`. Positions refer to the grid of the reference band. A band
        that cannot be used costs its own magnitudes. What lies where the projection has no sky is
        left out.

    Raises
    ------
    ImageError
        If the reference band, its mask or weight cannot be used, or it has no coordinate system.
    """
    wanted = settings["detection"]
    with TilePlanes(tile, settings) as planes:
        image = planes.detection_plane()
        objects = find(image, wanted)
        flux, error = kron_flux(image, objects)
        radius = half_light_radius(image, objects, flux)
        del image
        values = _all_magnitudes(planes, objects, settings)
        if unavailable is not None:
            unavailable += planes.unavailable
    ra, dec, angle = _on_the_sky(planes.wcs, objects)
    significance = flux / error
    star, known = _stars(objects, radius, significance, tile.name, wanted)
    values |= {
        "half_light_radius": radius * pixel_scale(planes.wcs),
        "axis_ratio": objects.b / objects.a,
        "position_angle": angle,
        "signal_to_noise": significance,
        "star": np.ma.array(star, mask=~known),
    }
    rows = _chosen(flux, star, wanted)
    rows = rows[on_the_sky(ra[rows], dec[rows])]
    log.info("tile %s: %d of %d objects are kept", tile.name, len(rows), len(ra))
    return Sources(
        object_id=position_names(ra[rows], dec[rows]),
        ra=ra[rows],
        dec=dec[rows],
        tile=np.full(len(rows), tile.name, object),
        kept=_kept({name: value[rows] for name, value in values.items()}, settings),
        x=objects.x[rows],
        y=objects.y[rows],
    )


def _all_magnitudes(planes: TilePlanes, objects: Objects, settings: Mapping) -> dict:
    """Magnitudes and their errors in all bands, by the names of their columns."""
    values = {}
    for band in measured_bands(settings):
        names = magnitude_names(settings, band)
        found = _magnitudes(planes, objects, band, settings)
        values |= dict(zip(names, found, strict=True))
    return values


def _magnitudes(planes: TilePlanes, objects: Objects, band: str, settings: Mapping) -> tuple:
    """Magnitudes and their errors in a band; NaN if it cannot be used, or has no zero point."""
    unknown = np.full(len(objects.x), np.nan)
    plane = planes.plane(band)
    if plane is None:
        return unknown, unknown
    if not is_calibrated(settings, band):
        return magnitudes(plane, objects, 0.0)
    zero_point = planes.zero_point(band)
    return (unknown, unknown) if zero_point is None else magnitudes(plane, objects, zero_point)


def _on_the_sky(wcs: WCS, objects: Objects) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right ascension, declination, and position angle east of north, in degrees."""
    ra, dec = to_sky(wcs, objects.x, objects.y)
    along = to_sky(wcs, objects.x + np.cos(objects.theta), objects.y + np.sin(objects.theta))
    sky, ahead = (SkyCoord(*place, unit="deg") for place in ((ra, dec), along))
    return ra, dec, sky.position_angle(ahead).deg % 180


def _stars(
    objects: Objects, radius: np.ndarray, significance: np.ndarray, tile: str, wanted: Mapping
) -> tuple[np.ndarray, np.ndarray]:
    """Whether each object is point-like, and whether that is known; shape (objects,), bool."""
    free = phase_free_radius(radius, objects.x, objects.y)
    tolerance = wanted["star_tolerance"]
    locus = stellar_locus(np.where(objects.clean, free, np.nan), significance, tolerance)
    if np.isnan(locus):
        log.warning(
            "tile %s: which objects are point-like is not known, as the bright ones do not crowd "
            "about one size%s",
            tile, "; none is dropped" if wanted["stars"] == "drop" else "",
        )  # fmt: skip
    with np.errstate(invalid="ignore"):
        star = np.abs(free / locus - 1) <= tolerance
    star &= objects.can_be_point | ~(significance > BRIGHT)
    log.info(
        "tile %s: %d of %d objects are point-like (half-light radius %.2f pixels)",
        tile, star.sum(), len(star), locus,
    )  # fmt: skip
    return star, np.isfinite(free) & np.isfinite(locus)


def _chosen(flux: np.ndarray, star: np.ndarray, wanted: Mapping) -> np.ndarray:
    """Rows that stay: without stars, or the brightest only, if so asked; in their order."""
    rows = np.flatnonzero(~star) if wanted["stars"] == "drop" else np.arange(len(flux))
    if wanted["brightest"] is not None:
        rows = np.sort(rows[np.argsort(-flux[rows], kind="stable")[: wanted["brightest"]]])
    return rows


def _kept(values: Mapping[str, np.ndarray], settings: Mapping) -> pa.Table:
    schema = detected_schema(settings)
    arrays = [_array(values[field.name], field.type) for field in schema]
    return pa.table(arrays, schema=schema)


def _array(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Make a column; NaN and masked values are null."""
    unknown = np.ma.getmaskarray(values)
    if values.dtype.kind == "f":
        unknown = unknown | np.isnan(values)
    data = np.where(unknown, 0, np.asarray(values)).astype(kind.to_pandas_dtype())
    return pa.array(data, kind, mask=unknown)


def _nothing(settings: Mapping) -> Sources:
    empty, none = np.empty(0, object), np.empty(0)
    return Sources(empty, none, none, empty, detected_schema(settings).empty_table())


def detect_sources(
    tiles: Sequence[Tile], settings: Mapping, unavailable: list[str] | None = None
) -> Sources:
    """Find the objects of some tiles; a tile whose images cannot be used gives none.

    Parameters
    ----------
    settings, unavailable
        As of `detect_tile`.
    """
    lost = [] if unavailable is None else unavailable
    parts = [_nothing(settings)]
    for tile in tiles:
        try:
            with memory_for(f"tile {tile.name}"):
                parts.append(detect_tile(tile, settings, lost))
        except ImageError as error:
            log.warning("tile %s: no objects, as %s", tile.name, error)
            if error.flag == Flag.UNAVAILABLE:
                lost.append(error.path or tile.name)
    return concatenate(parts)
