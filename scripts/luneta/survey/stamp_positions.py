"""Where stamps lie on the sky, by their own coordinate systems."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.coordinates import ICRS, SkyCoord
from astropy.wcs import WCS

from luneta.survey.flags import Flag
from luneta.survey.images import ImageError, split_extension
from luneta.survey.remote import is_remote, local_copy
from luneta.survey.wcs import frame_of, read_grid, to_world
from luneta.urls import shown_url

# Files of these kinds are not opened: they hold no coordinate system that is read.
WITHOUT_WCS = {
    ".npy", ".h5", ".hdf5", ".hdf", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp",
    ".gif", ".parquet", ".pq", ".parq",
}  # fmt: skip
SAME_PLACE = 1e-9  # degrees
MANY = 10  # stamps at one place

log = logging.getLogger(__name__)


def positions_of_stamps(
    stamps: pa.Table, remote: Mapping | None, unavailable: list[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Find the positions of stamps' central pixels, those that cutouts are centred on.

    Parameters
    ----------
    stamps : pyarrow.Table
        A slice of the stamp table; `image_{band}` and `refused` are read. The first band that has a
        coordinate system tells.
    remote : mapping or None
        The config's `input.remote` section; without it, files named by URL are not asked.
    unavailable : list of str, optional
        Takes the names of files that could not be read this time.

    Returns
    -------
    ra, dec : numpy.ndarray
        ICRS degrees, shape (objects,), float64; NaN where no image has a coordinate system, or one
        that is a dummy: its stamp lies at (0, 0), the reference point, or ten lie at one place.
    """
    columns = [name for name in stamps.column_names if name.startswith("image_")]
    names = zip(*(stamps[column].to_pylist() for column in columns), strict=True)
    refused = stamps["refused"].to_pylist() if "refused" in stamps.column_names else None
    places: list[tuple[WCS, float, float] | None] = []
    lost = [] if unavailable is None else unavailable
    for row, bands in enumerate(names):
        is_refused = refused is not None and refused[row] is not None
        places.append(None if is_refused else _centre(bands, remote, lost))
    ra, dec = _on_the_sky(places)
    told = np.flatnonzero(np.isfinite(ra))
    if len(told) >= MANY and max(np.ptp(ra[told]), np.ptp(dec[told])) < SAME_PLACE:
        log.warning(
            "the coordinate systems put all %d stamps at ra %g, dec %g, so they are dummies and "
            "give no positions; set input.positions: none",
            len(told), ra[told[0]], dec[told[0]],
        )  # fmt: skip
        ra[told] = dec[told] = np.nan
    log.info("%d of %d stamps tell their position", np.isfinite(ra).sum(), len(ra))
    return ra, dec


def _centre(
    names: Sequence[str], remote: Mapping | None, unavailable: list[str]
) -> tuple[WCS, float, float] | None:
    """Coordinate system and position in degrees of a stamp's central pixel, or None."""
    for name in dict.fromkeys(names):
        suffix = Path(str(split_extension(name)[0])).suffix.lower() if name else ""
        if not name or suffix in WITHOUT_WCS or (is_remote(name) and remote is None):
            continue
        try:
            with local_copy(name, remote or {}) as there:
                wcs, (ny, nx) = read_grid(there)
        except ImageError as error:
            if error.flag == Flag.UNAVAILABLE:
                unavailable.append(error.path or shown_url(name))
            continue  # the cutouts job says what is wrong with it
        if nx == len(names) > 1:  # a cube (y, x, band), whose first axis is not of the sky
            continue
        longitude, latitude = (float(v) for v in to_world(wcs, nx // 2, ny // 2))
        return None if _is_dummy(wcs, longitude, latitude) else (wcs, longitude, latitude)
    return None


def _is_dummy(wcs: WCS, longitude: float, latitude: float) -> bool:
    """Whether a stamp lies at (0, 0), where its reference point is: nobody has filled it in."""
    if (wcs.wcs.crval != 0).any():
        return False
    ny, nx = wcs.array_shape
    half = np.hypot(ny, nx) / 2 * np.sqrt(abs(np.linalg.det(wcs.pixel_scale_matrix)))
    return abs((longitude + 180) % 360 - 180) <= half and abs(latitude) <= half


def _on_the_sky(places: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Bring positions of any frame to ICRS, those of one frame at once."""
    ra, dec = np.full((2, len(places)), np.nan)
    frames: dict[str, tuple] = {}
    for row, place in enumerate(places):
        if place is not None:
            frame = frame_of(place[0])
            frames.setdefault(repr(frame), (frame, []))[1].append((row, *place[1:]))
    for frame, members in frames.values():
        rows, longitude, latitude = (np.array(values) for values in zip(*members, strict=True))
        sky = SkyCoord(longitude, latitude, unit="deg", frame=frame)
        sky = sky if isinstance(frame, ICRS) else sky.icrs
        ra[rows], dec[rows] = sky.spherical.lon.deg, sky.spherical.lat.deg
    return ra, dec
