"""Placing the objects of a source list on their tiles."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from astropy.wcs import WCS

from luneta.parquet import read_parquet, write_parquet
from luneta.printable import printable
from luneta.survey.bounds import USUAL_GIGABYTES, set_most_gigabytes
from luneta.survey.detect import detect_sources
from luneta.survey.flags import DESCRIPTIONS, Flag
from luneta.survey.images import ImageError, ImageFile, split_extension
from luneta.survey.remote import local_copy
from luneta.survey.sources import Sources, on_the_sky, read_sources
from luneta.survey.stamp_positions import positions_of_stamps
from luneta.survey.tiles import BandFiles, Tile
from luneta.survey.wcs import read_grid, to_pixels, to_sky
from luneta.urls import shown_url

# Control and format characters, and ends of lines: see `luneta.printable`.
UNSAFE = r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]"
LONGEST_ID = 10_000

log = logging.getLogger(__name__)


def mark(
    flags: np.ndarray,
    reasons: np.ndarray,
    where: np.ndarray,
    flag: Flag,
    reason: str | np.ndarray | None = None,
) -> None:
    """Flag objects in place; the first reason to reject an object stays.

    Parameters
    ----------
    flags : numpy.ndarray
        Shape (objects,), int32.
    reasons : numpy.ndarray
        Shape (objects,), object; None where there is no reason yet.
    where : numpy.ndarray
        Shape (objects,), bool.
    reason : str or numpy.ndarray, optional
        Why the objects are rejected, one for all or shape (objects,); the flag's description if
        not given.
    """
    flags[where] |= flag.value
    new = where & np.equal(reasons, None)
    each = isinstance(reason, np.ndarray)
    reasons[new] = reason[new] if each else reason or DESCRIPTIONS[flag]


def _codes(names: Sequence[str]) -> np.ndarray:
    """Number the distinct names; shape (objects,), int64."""
    encoded = pa.array(names, pa.string()).dictionary_encode()
    return np.asarray(encoded.indices.cast(pa.int64()))


def _firsts(keys: np.ndarray) -> np.ndarray:
    """Row in which each row's key stands first; shape (rows,), int64."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse.ravel()]


def repeated(ids: Sequence[str]) -> np.ndarray:
    """Whether an id stood earlier in the list already; shape (objects,), bool."""
    return _firsts(_codes(ids)) != np.arange(len(ids))


def mark_ids(ids: np.ndarray, flags: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """Flag the rows without a name in place; give whether there is one, shape (objects,), bool."""
    named = ids != ""
    mark(flags, reasons, ~named, Flag.BAD_ID)
    words = pa.array(ids, pa.string())
    for is_odd, what in (
        (pc.match_substring_regex(words, UNSAFE), "holds characters that do not show"),
        (pc.greater(pc.utf8_length(words), LONGEST_ID), f"is longer than {LONGEST_ID} characters"),
    ):
        odd = named & np.asarray(is_odd)
        told = [f"the object_id {printable(name[:80])!r} {what}" for name in ids[odd]]
        each = np.full(len(ids), None, object)
        each[odd] = told
        mark(flags, reasons, odd, Flag.BAD_ID, each)
        named &= ~odd
    return named


def mark_duplicates(
    ids: np.ndarray,
    tile: np.ndarray,
    ra: np.ndarray,
    dec: np.ndarray,
    radius: float,
    flags: np.ndarray,
    reasons: np.ndarray,
) -> None:
    """Flag in place the rows whose name another row before them has, unless it is one object.

    One object may lie in several tiles: rows of one name in two tiles are two placements of it if
    they are at most `radius` arcsec apart. In one tile they are always duplicates.

    Parameters
    ----------
    ids, tile : numpy.ndarray
        Shape (objects,), object.
    ra, dec : numpy.ndarray
        Degrees, shape (objects,), float64; NaN where unknown.
    """
    names = _codes(ids)
    tiles = _codes(tile)
    rows = np.arange(len(names))
    first = _firsts(names)
    same_tile = _firsts(names * (tiles.max(initial=0) + 1) + tiles) != rows
    mark(flags, reasons, same_tile, Flag.DUPLICATE_ID)
    distance = _separation(ra, dec, ra[first], dec[first])
    elsewhere = ~same_tile & (first != rows) & ~(distance <= radius)
    told = np.full(len(names), None, object)
    for row in np.flatnonzero(elsewhere):
        told[row] = (
            f"tile {tile[first[row]]} has the same object_id {_apart(distance[row])}, so it is "
            f"another object (input.overlap_radius = {radius:g} arcsec); the first is used"
        )
    mark(flags, reasons, elsewhere, Flag.DUPLICATE_ID, told)


def _apart(distance: float) -> str:
    return f"{distance:.1f} arcsec away" if np.isfinite(distance) else "at an unknown distance"


def _separation(ra, dec, other_ra, other_dec) -> np.ndarray:
    """Distance on the sky in arcsec by the haversine formula, shape (objects,)."""
    ra, dec, other_ra, other_dec = (np.radians(v) for v in (ra, dec, other_ra, other_dec))
    half = np.sin((dec - other_dec) / 2) ** 2
    half = half + np.cos(dec) * np.cos(other_dec) * np.sin((ra - other_ra) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1)))) * 3600


def _position_reason(position: dict[str, float], missing: bool) -> str:
    """Say what is wrong with a position, given as `ra` and `dec`, or as `x` and `y`."""
    if missing:
        return "the position is missing: the list leaves it empty"
    for name, value in position.items():
        if np.isnan(value):
            return f"the position is not a number: {name} is NaN"
        if np.isinf(value):
            return f"the position is infinite: {name} is {value}"
    if "ra" not in position:
        values = " and ".join(f"{name} is {value:g}" for name, value in position.items())
        return f"the position is none: {values}"
    ra, dec = position["ra"], position["dec"]
    if 0 <= ra <= 360:
        return f"the position lies beyond the pole: dec is {dec:g}, and goes from -90 to 90 degrees"
    values = f"ra is {ra:.10g}" + ("" if abs(dec) <= 90 else f" and dec is {dec:.10g}")
    return f"the position is no point of the sky: {values}; ra goes from 0 to 360 degrees"


def mark_positions(sources: Sources, flags: np.ndarray, reasons: np.ndarray) -> np.ndarray:
    """Flag the rows without a usable position in place.

    Returns
    -------
    numpy.ndarray
        Whether the position is usable, shape (objects,), bool.
    """
    good = sources.on_the_sky() | sources.on_a_pixel()
    told = np.full(len(good), None, object)
    for row in np.flatnonzero(~good):
        sky = {"ra": sources.ra[row], "dec": sources.dec[row]}
        pixel = {"x": sources.x[row], "y": sources.y[row]}
        nowhere, unseen = (np.isnan(list(place.values())).all() for place in (sky, pixel))
        told[row] = _position_reason(pixel if nowhere and not unseen else sky, sources.missing[row])
    mark(flags, reasons, ~good, Flag.BAD_POSITION, told)
    return good


def place(
    sources: Sources,
    tiles: list[Tile],
    reference: str,
    overlap_radius: float = 1.0,
    remote: Mapping | None = None,
) -> dict[str, np.ndarray]:
    """Compute each object's pixel position in its tile's reference band, and its flags.

    Positions that the list gives in pixels stay, and give the position on the sky.

    Parameters
    ----------
    overlap_radius : float
        Arcsec within which rows of one name in two tiles are one object.
    remote : mapping, optional
        The config's `input.remote` section, for images named by URL.

    Returns
    -------
    dict
        `ra`, `dec` (float64, degrees), `x`, `y` (float64, zero-based pixel), `flags` (int32),
        `reject_reason` (object), each of shape (objects,).
    """
    count = len(sources.object_id)
    placed = {
        "ra": sources.ra.copy(),
        "dec": sources.dec.copy(),
        "x": np.where(sources.on_a_pixel() | ~sources.on_the_sky(), sources.x, np.nan),
        "y": np.where(sources.on_a_pixel() | ~sources.on_the_sky(), sources.y, np.nan),
        "flags": np.zeros(count, np.int32),
        "reject_reason": np.full(count, None, object),
    }
    flags, reasons = placed["flags"], placed["reject_reason"]
    mark_ids(sources.object_id, flags, reasons)
    good = mark_positions(sources, flags, reasons)
    outside = (sources.tile == "") & good
    known = outside & ~np.equal(sources.outside, None)
    mark(flags, reasons, known, Flag.OUTSIDE, sources.outside)
    mark(flags, reasons, outside & ~known, Flag.OUTSIDE)
    _mark_unknown_tiles(sources.tile, [tile.name for tile in tiles], good, flags, reasons)
    for tile in tiles:
        here = np.flatnonzero((sources.tile == tile.name) & good)
        if len(here):
            _place_on(tile, reference, here, placed, remote or {})
    _mark_repeats(sources, overlap_radius, placed)
    return placed


def _mark_repeats(sources: Sources, radius: float, placed: dict) -> None:
    """Flag duplicates in place among the rows that nothing stands against yet."""
    rows = np.equal(placed["reject_reason"], None)
    flags, reasons = placed["flags"][rows], placed["reject_reason"][rows]
    sky = placed["ra"][rows], placed["dec"][rows]
    mark_duplicates(sources.object_id[rows], sources.tile[rows], *sky, radius, flags, reasons)
    placed["flags"][rows], placed["reject_reason"][rows] = flags, reasons


def _mark_unknown_tiles(tile, known: list[str], good, flags, reasons) -> None:
    unknown = good & (tile != "") & ~np.isin(tile.astype(str), known)
    told = np.full(len(tile), None, object)
    told[unknown] = [
        f"the list puts the object in tile {name!r}, which the tile table does not have"
        for name in tile[unknown]
    ]
    mark(flags, reasons, unknown, Flag.OUTSIDE, told)


def _place_on(tile: Tile, reference: str, rows: np.ndarray, placed: dict, remote: Mapping) -> None:
    """Place some objects on their tile, in place."""
    here = np.zeros(len(placed["x"]), bool)
    here[rows] = True
    if reference not in tile.bands:
        reason = f"tile {tile.name} has no image in the reference band {reference}"
        mark(placed["flags"], placed["reject_reason"], here, Flag.MISSING_FILE, reason)
        return
    by_pixel = here & np.isfinite(placed["x"]) & np.isfinite(placed["y"])
    try:
        wcs, (ny, nx) = _grid(tile.bands[reference], bool(by_pixel.any()), remote)
    except ImageError as error:
        log.warning("tile %s: %s", tile.name, error)
        mark(placed["flags"], placed["reject_reason"], here, error.flag, str(error))
        return
    x, y = placed["x"], placed["y"]
    by_sky = here & ~by_pixel
    if wcs is None:
        image = shown_url(tile.bands[reference].image)
        reason = f"{image} has no celestial coordinate system"
        mark(placed["flags"], placed["reject_reason"], by_sky, Flag.NO_WCS, reason)
    elif by_sky.any():
        x[by_sky], y[by_sky] = to_pixels(wcs, placed["ra"][by_sky], placed["dec"][by_sky])
    with np.errstate(invalid="ignore"):
        inside = (x >= -0.5) & (x < nx - 0.5) & (y >= -0.5) & (y < ny - 0.5)
    outside = here & ~inside if wcs is not None else by_pixel & ~inside
    if outside.any():
        reason = _beyond(wcs, (ny, nx))
        mark(placed["flags"], placed["reject_reason"], outside, Flag.OUTSIDE, reason)
    unseen = by_pixel & inside & ~on_the_sky(placed["ra"], placed["dec"])
    if wcs is not None and unseen.any():
        placed["ra"][unseen], placed["dec"][unseen] = to_sky(wcs, x[unseen], y[unseen])


def _beyond(wcs: WCS | None, shape: tuple[int, int]) -> str:
    """Say of positions outside a tile where the tile is."""
    ny, nx = shape
    if wcs is None:
        return f"the position lies outside its tile, which has {nx} x {ny} pixels"
    ra, dec = to_sky(wcs, (nx - 1) / 2, (ny - 1) / 2)
    return f"the position lies outside its tile, whose centre is at ra {ra:.5f}, dec {dec:.5f}"


def _grid(files: BandFiles, by_pixel: bool, remote: Mapping) -> tuple[WCS | None, tuple[int, int]]:
    """Grid of an image; without a coordinate system, if there are positions in pixels."""
    with local_copy(files.image, remote) as name:
        try:
            return read_grid(name)
        except ImageError as error:
            if error.flag != Flag.NO_WCS or not by_pixel:
                raise
        with ImageFile(name, files.plane) as image:
            return None, image.shape


def run(sources: list[Path], output: Path, settings: dict) -> list[str]:
    """Write `objects/{shard}.parquet`: every row of the shard's source lists, placed and flagged.

    Parameters
    ----------
    sources : list of path
        The shard's source lists: one a tile, or its slice of the survey's list; none where the
        objects are to be detected.
    output : path
        See docs/architecture.md for the columns.
    settings : dict
        `tiles` (as `Tile.as_dict`), `columns`, `keep`, `reference_band` (None for stamps),
        `sliced`; `positions` of stamps; `units`, `frame`, `equinox`, `epoch`, `image_epoch`,
        `first_pixel`, `overlap_radius`, `remote` and `detection` of the config's `input` section;
        for detection also `mask`, `weight` and `zero_points`.

    Returns
    -------
    list of str
        Files that could not be read this time.
    """
    set_most_gigabytes(settings.get("most_gigabytes", USUAL_GIGABYTES))
    unavailable: list[str] = []
    tiles = [Tile.from_dict(tile) for tile in settings["tiles"]]
    radius = settings.get("overlap_radius", 1.0)
    if settings.get("detection"):
        given = detect_sources(tiles, settings, unavailable)
        placed = _as_found(given, radius)
    else:
        given = read_sources(sources, settings, [tile.name for tile in tiles])
        reference, remote = settings["reference_band"], settings.get("remote")
        if reference is None:
            given = _with_positions(given, sources[0], settings, unavailable)
            placed = _unplaced(given)
        else:
            placed = place(given, tiles, reference, radius, remote)
            unavailable += _not_read(placed["flags"], given.tile, tiles, reference)
    table = in_tile_order(_objects_table(given, placed), [tile.name for tile in tiles])
    write_parquet(table, output)
    rejected = pc.sum(pc.is_valid(table["reject_reason"])).as_py() or 0
    log.info("%d objects, %d of them not usable", len(table), rejected)
    return unavailable


def _not_read(
    flags: np.ndarray, names: np.ndarray, tiles: Sequence[Tile], reference: str
) -> list[str]:
    """Name the images of the tiles whose objects could not be placed this time."""
    lost = set(names[(flags & Flag.UNAVAILABLE.value) != 0])
    images = (tile.bands[reference].image for tile in tiles if tile.name in lost)
    return [shown_url(str(split_extension(image)[0])) for image in images]


def in_tile_order(objects: pa.Table, tiles: Sequence[str]) -> pa.Table:
    """Bring the objects of a tile together, in the order of the tiles; others come last.

    So a shard's cutouts can be written tile by tile, in the order of its objects.
    """
    place = {name: number for number, name in enumerate(tiles)}
    numbers = np.array([place.get(name, len(tiles)) for name in objects["tile"].to_pylist()], int)
    order = np.argsort(numbers, kind="stable")
    return objects if (np.diff(order) == 1).all() else objects.take(pa.array(order))


def _as_found(sources: Sources, radius: float) -> dict[str, np.ndarray]:
    """Objects that were detected are where they were found; only their names may repeat."""
    count = len(sources.object_id)
    placed = {name: getattr(sources, name) for name in ("ra", "dec", "x", "y")}
    placed["flags"], placed["reject_reason"] = (
        np.zeros(count, np.int32),
        np.full(count, None, object),
    )
    _mark_repeats(sources, radius, placed)
    return placed


def _with_positions(
    sources: Sources, stamps: Path, settings: Mapping, unavailable: list[str]
) -> Sources:
    """Give stamps the positions that their own coordinate systems tell, if the config asks so."""
    how = settings.get("positions", "columns")
    if how in ("none", "columns") or settings["columns"]["ra"] is not None:
        return sources
    # What is named by URL is fetched only if positions are asked for by name.
    remote = settings.get("remote") if how == "wcs" else None
    ra, dec = positions_of_stamps(read_parquet(stamps), remote, unavailable)
    return replace(sources, ra=ra, dec=dec, missing=np.isnan(ra))


def _unplaced(sources: Sources) -> dict[str, np.ndarray]:
    """Stamps have no place in a tile, and need none; what is no point of the sky is unknown."""
    count, known = len(sources.object_id), sources.on_the_sky()
    flags, reasons = np.zeros(count, np.int32), np.full(count, None, object)
    named = mark_ids(sources.object_id, flags, reasons)
    mark(flags, reasons, named & repeated(sources.object_id), Flag.DUPLICATE_ID)
    nowhere = np.full(count, np.nan)
    return {
        "ra": np.where(known, sources.ra, np.nan),
        "dec": np.where(known, sources.dec, np.nan),
        "x": nowhere,
        "y": nowhere,
        "flags": flags,
        "reject_reason": reasons,
    }


def _objects_table(sources: Sources, placed: dict[str, np.ndarray]) -> pa.Table:
    degrees, pixels = {"unit": "deg"}, {"unit": "pix"}
    columns = [
        (pa.field("object_id", pa.string()), pa.array(sources.object_id, pa.string())),
        (pa.field("ra", pa.float64(), metadata=degrees), pa.array(placed["ra"])),
        (pa.field("dec", pa.float64(), metadata=degrees), pa.array(placed["dec"])),
        (pa.field("tile", pa.string()), pa.array(sources.tile, pa.string())),
        (pa.field("x", pa.float64(), metadata=pixels), pa.array(placed["x"])),
        (pa.field("y", pa.float64(), metadata=pixels), pa.array(placed["y"])),
        (pa.field("flags", pa.int32()), pa.array(placed["flags"])),
        (pa.field("reject_reason", pa.string()), pa.array(placed["reject_reason"], pa.string())),
    ]
    columns += [(sources.kept.schema.field(n), sources.kept[n]) for n in sources.kept.column_names]
    return pa.table(
        [array for _, array in columns], schema=pa.schema([field for field, _ in columns])
    )
