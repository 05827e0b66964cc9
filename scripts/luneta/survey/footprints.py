"""Where the tiles of a survey lie on the sky, and which of them hold a position."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.coordinates import FK5, ICRS, BaseCoordinateFrame, SkyCoord
from astropy.wcs import WCS, WcsError, Wcsprm
from scipy.spatial import cKDTree

from luneta.code_digest import source_digest
from luneta.files import read_memory, write_json
from luneta.survey.fits_headers import card_value
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError, ImageFile
from luneta.survey.remote import is_remote, local_copy
from luneta.survey.tiles import Tile
from luneta.survey.wcs import frame_of, is_singular, read_grid, to_pixels, to_world, wcs_cards
from luneta.urls import shown_url, url_key

# Uneven, so that a cubic distortion does not look like a scale.
_PROBES = (0.0, 0.2, 0.55, 1.0)
_AGREEMENT = 1e-5  # pixels
_PLAIN = re.compile(r"(CTYPE|CRVAL|CRPIX|CDELT|CUNIT|CROTA)[12]|(CD|PC)[12]_[12]|L[OA][NT]POLE")
_OF_THE_FRAME = {"RADESYS", "EQUINOX", "DATE-OBS", "MJD-OBS"}
_FRAMES = {  # by RADESYS and EQUINOX, as astropy takes them
    ("ICRS", None): ICRS(),
    ("ICRS", 2000): ICRS(),
    (None, None): ICRS(),
    (None, 2000): FK5(),
    ("FK5", 2000): FK5(),
    ("FK5", None): FK5(),
}
_TILES_AT_ONCE = 256

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Footprint:
    """A tile on the sky.

    Attributes
    ----------
    image : str
        The image it was read from.
    shape : tuple of 2 ints
        (y, x).
    centre : tuple of 3 floats
        Unit vector (ICRS) of the centre.
    radius : float
        Radius in radians of a circle around the centre that holds the tile.
    matrix : tuple of 9 floats or None
        The 3 x 3 matrix that turns an ICRS unit vector into (w x, w y, w), with x, y the
        zero-based pixel position and w positive in front of the image. Every gnomonic
        projection without distortion has one; None for others.
    is_passing : bool
        Whether an image that comes before it could not be read this time.
    """

    image: str
    shape: tuple[int, int]
    centre: tuple[float, float, float]
    radius: float
    matrix: tuple[float, ...] | None
    is_passing: bool = False


@dataclass(frozen=True)
class NoFootprint:
    """A tile of which no image tells where it lies, and why; the next run may find out."""

    reason: str
    is_passing: bool = False


def unit_vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Directions of positions in degrees; shape (..., 3), float64."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def survey_footprints(
    tiles: Mapping[str, Tile],
    reference: str,
    versions: Mapping[str, str | None],
    memory: Path,
    remote: Mapping | None = None,
) -> dict[str, Footprint | NoFootprint]:
    """Find the footprints of all tiles; those of unchanged images are remembered.

    Parameters
    ----------
    tiles : mapping
        Tiles by name.
    reference : str
        Band whose grid is a tile's; where it cannot be read, the first band that can, so
        that the objects of such a tile stay with it, and are told why.
    versions : mapping
        Fingerprint of each image, by its name in the tile.
    memory : path
        JSON file of what is known from earlier.
    remote : mapping, optional
        How files named by URL are fetched; each is fetched once.

    Returns
    -------
    dict
        By tile; `NoFootprint` where no image has a readable grid.
    """
    known = read_memory(memory) or {}
    keys = {name: _key(tile, reference, versions) for name, tile in tiles.items()}
    new = [name for name in tiles if known.get(name, [None])[0] != keys[name]]
    measured = dict(
        zip(new, _measure([_grid(tiles[n], reference, remote) for n in new]), strict=True)
    )
    state = {
        name: [keys[name], _kept(measured[name])] if name in measured else known[name]
        for name in tiles
    }
    lasting = {
        name: kept
        for name, kept in state.items()
        if not kept[1]["is_passing"] and not ("reason" in kept[1] and is_unwatched(tiles[name]))
    }
    if lasting != known:
        write_json(memory, lasting, indent=None)
    return {name: _restored(values, tiles[name]) for name, (_, values) in state.items()}


def _kept(found: Footprint | NoFootprint) -> dict:
    """Return a footprint as it is kept, without the secrets of a URL."""
    values = dict(vars(found))
    return values | {"image": url_key(values["image"])} if "image" in values else values


def _restored(values: Mapping, tile: Tile) -> Footprint | NoFootprint:
    """Return what JSON kept, which knows no tuples."""
    if "reason" in values:
        return NoFootprint(**values)
    images = {url_key(files.image): files.image for files in tile.bands.values()}
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return Footprint(**tuples | {"image": images.get(values["image"], values["image"])})


def _key(tile: Tile, reference: str, versions: Mapping[str, str | None]) -> list:
    images = [[url_key(f.image), versions.get(f.image)] for f in tile.bands.values()]
    return [source_digest(Path(__file__)), reference, *images]


def is_unwatched(tile: Tile) -> bool:
    """Whether a tile has images on a server, which may be there the next time."""
    return any(is_remote(files.image) for files in tile.bands.values())


@dataclass(frozen=True)
class _Grid:
    """Pixel positions all over an image, and their coordinates in its own frame."""

    image: str
    shape: tuple[int, int]
    pixels: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    frame: BaseCoordinateFrame
    is_passing: bool = False


def _local(image: str, remote: Mapping | None) -> AbstractContextManager[str]:
    """A name by which an image can be read, for as long as it is open."""
    return local_copy(image, remote or {}) if is_remote(image) else nullcontext(image)


def _grid(tile: Tile, reference: str, remote: Mapping | None) -> _Grid | NoFootprint:
    """Probe the grid of a tile, in the first band whose image has one that works."""
    reasons, is_passing = [], False
    for band in sorted(tile.bands, key=lambda band: band != reference):
        image = tile.bands[band].image
        try:
            with _local(image, remote) as name:
                grid = _plain_grid(name) or _probed(name, *read_grid(name))
            return replace(grid, image=image, is_passing=is_passing)
        except ImageError as error:
            reasons.append(str(error))
            is_passing = is_passing or error.flag == Flag.UNAVAILABLE
        except (ValueError, ArithmeticError, WcsError) as error:
            reasons.append(f"{shown_url(image)}: {error}")
        log.warning("tile %s, band %s: %s", tile.name, band, reasons[-1])
    log.warning("tile %s has no footprint: none of its images has a readable grid", tile.name)
    return NoFootprint(reasons[0] if reasons else "it has no image", is_passing)


def _plain_grid(image: str) -> _Grid | None:
    """Probe a plain gnomonic grid by wcslib alone, ten times as fast as astropy's `WCS`.

    None for any other, of which `read_grid` knows better, as it does of what is wrong.
    """
    with ImageFile(image) as file:
        unit, shape = file.unit, file.shape
    cards = wcs_cards(unit, image)
    linear = {keyword: card for keyword, card in cards.items() if _PLAIN.fullmatch(keyword)}
    others = cards.keys() - linear.keys() - _OF_THE_FRAME
    types = tuple(card_value(cards.get(f"CTYPE{axis}", b"")) for axis in (1, 2))
    frame = _plain_frame(cards)
    if others or types != ("RA---TAN", "DEC--TAN") or frame is None:
        return None
    system = Wcsprm(header=b"".join(linear.values()))
    try:
        system.set()
    except WcsError:
        return None  # such as the unit `degree`, which astropy corrects
    if is_singular(system.cd if system.has_cd() else system.get_pc() * system.get_cdelt()[:, None]):
        return None
    world = system.p2s(pixels := _probes(shape), 0)["world"]
    return _Grid(image, shape, pixels, world[:, 0], world[:, 1], frame)


def _plain_frame(cards: Mapping[str, bytes]) -> BaseCoordinateFrame | None:
    """Return the frame of the commonest headers; None where astropy has to find out."""
    written = (card_value(cards[k]) if k in cards else None for k in ("RADESYS", "EQUINOX"))
    return _FRAMES.get(tuple(written))


def _probes(shape: tuple[int, int]) -> np.ndarray:
    """Pixel positions (x, y) all over an image and on its corners; shape (16, 2)."""
    ny, nx = shape
    y, x = np.meshgrid(np.multiply(_PROBES, ny), np.multiply(_PROBES, nx), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1) - 0.5


def _probed(image: str, wcs: WCS, shape: tuple[int, int]) -> _Grid:
    ny, nx = shape
    pixels = _probes(shape)
    lon, lat = to_world(wcs, *pixels.T)
    return _Grid(image, (int(ny), int(nx)), pixels, lon, lat, frame_of(wcs))


def _measure(grids: Sequence[_Grid | NoFootprint]) -> list[Footprint | NoFootprint]:
    """Compute the footprints of pixel grids."""
    there = [grid for grid in grids if isinstance(grid, _Grid)]
    if not there:
        return list(grids)
    pixels = np.array([grid.pixels for grid in there])
    matrices, centres, radii, plain = _gnomonic(pixels, _directions(there))
    found = (
        Footprint(
            grid.image,
            grid.shape,
            tuple(centre.tolist()),
            float(radius),
            tuple(matrix.ravel().tolist()) if gnomonic else None,
            grid.is_passing,
        )
        for grid, matrix, centre, radius, gnomonic in zip(
            there, matrices, centres, radii, plain, strict=True
        )
    )
    return [next(found) if isinstance(grid, _Grid) else grid for grid in grids]


def _directions(grids: Sequence[_Grid]) -> np.ndarray:
    """ICRS unit vectors of the probes; shape (tiles, probes, 3), NaN where there is none.

    All tiles of a frame are transformed at once, as astropy takes a millisecond for each call.
    """
    lon, lat = np.array([grid.lon for grid in grids]), np.array([grid.lat for grid in grids])
    names = np.array([repr(grid.frame) for grid in grids])
    sky = np.full((*lon.shape, 3), np.nan)
    for name in np.unique(names):
        these = np.flatnonzero(names == name)
        icrs = SkyCoord(lon[these], lat[these], unit="deg", frame=grids[these[0]].frame).icrs
        sky[these] = unit_vectors(icrs.ra.deg, icrs.dec.deg)
    return sky


def _gnomonic(pixels: np.ndarray, sky: np.ndarray) -> tuple[np.ndarray, ...]:
    """Fit the matrix of `Footprint` to probes of each tile.

    Two gnomonic projections are linked by a projective map, found by the direct linear
    transformation (Hartley & Zisserman 2004, section 4.1) in units in which both planes
    reach about 1, then checked on all probes.

    Parameters
    ----------
    pixels : numpy.ndarray
        Shape (tiles, probes, 2), pixels.
    sky : numpy.ndarray
        Unit vectors, shape (tiles, probes, 3).

    Returns
    -------
    matrices, centres, radii, plain
        Shapes (tiles, 3, 3), (tiles, 3), (tiles,) in radians, (tiles,) bool.
    """
    centres = np.nan_to_num(np.nanmean(sky, axis=1))
    centres /= np.maximum(np.linalg.norm(centres, axis=1), 1e-300)[:, None]
    cosines = np.einsum("tpk,tk->tp", sky, centres)
    whole = np.isfinite(cosines).all(axis=1) & (cosines > 0.1).all(axis=1)
    chords = np.linalg.norm(np.where(whole[:, None, None], sky - centres[:, None], 0), axis=2)
    radii = np.where(whole, 1.05 * 2 * np.arcsin(chords.max(axis=1) / 2), np.pi)
    axes = _axes(centres)
    local = np.einsum("tij,tpj->tpi", axes, np.where(whole[:, None, None], sky, centres[:, None]))
    plane = local[..., :2] / local[..., 2:]
    to_unit, plane = _scaled(plane)
    to_pixel, flat = _scaled(pixels)
    fitted = _projective(plane, flat)
    matrices = np.linalg.inv(to_pixel) @ fitted @ to_unit @ axes
    matrices *= np.sign(np.einsum("tk,tk->t", matrices[:, 2], centres))[:, None, None]
    back = np.einsum("tij,tpj->tpi", matrices, sky)
    with np.errstate(invalid="ignore", divide="ignore"):
        off = np.abs(back[..., :2] / back[..., 2:] - pixels).max(axis=(1, 2))
        plain = whole & (off < _AGREEMENT) & (back[..., 2] > 0).all(axis=1)
    return matrices, centres, radii, plain


def _axes(centres: np.ndarray) -> np.ndarray:
    """Rotation of each tile that carries its centre to the third axis; shape (tiles, 3, 3)."""
    helper = np.where(np.abs(centres[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    first = np.cross(helper, centres)
    first /= np.maximum(np.linalg.norm(first, axis=1), 1e-300)[:, None]
    return np.stack([first, np.cross(centres, first), centres], axis=1)


def _scaled(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move and scale plane points to about [-1, 1]; the matrices that do so, and the points."""
    middle = points.mean(axis=1)
    size = np.maximum(np.abs(points - middle[:, None]).max(axis=(1, 2)), 1e-300)
    matrices = np.zeros((len(points), 3, 3))
    matrices[:, 0, 0] = matrices[:, 1, 1] = 1 / size
    matrices[:, :2, 2] = -middle / size[:, None]
    matrices[:, 2, 2] = 1
    return matrices, (points - middle[:, None]) / size[:, None, None]


def _projective(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Projective maps from plane points to plane points, least squares; shape (tiles, 3, 3)."""
    (u, v), (x, y) = np.moveaxis(start, 2, 0), np.moveaxis(end, 2, 0)
    one, zero = np.ones_like(u), np.zeros_like(u)
    first = np.stack([u, v, one, zero, zero, zero, -x * u, -x * v, -x], axis=2)
    second = np.stack([zero, zero, zero, u, v, one, -y * u, -y * v, -y], axis=2)
    equations = np.concatenate([first, second], axis=1)
    return np.linalg.svd(equations, full_matrices=False)[2][:, -1].reshape(-1, 3, 3)


def holders(
    ra: np.ndarray,
    dec: np.ndarray,
    footprints: Sequence[Footprint | NoFootprint],
    remote: Mapping | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find all tiles that hold each position.

    Parameters
    ----------
    ra, dec : numpy.ndarray
        ICRS positions in degrees, finite, shape (objects,), float64.
    footprints : sequence of Footprint or NoFootprint
        A tile without one holds nothing.
    remote : mapping, optional
        How files named by URL are fetched.

    Returns
    -------
    rows, tiles : numpy.ndarray
        Shape (pairs,), int64: the row of a position and the number of a tile that holds it.
        Sorted by row, then by how deep in the tile the position lies, deepest first.
    """
    there = [
        number for number, footprint in enumerate(footprints) if isinstance(footprint, Footprint)
    ]
    none = np.zeros(0, np.int64)
    if not there or not len(ra):
        return none, none
    sky = unit_vectors(ra, dec)
    tree = cKDTree(sky)
    parts = [
        _pairs(tree, sky, ra, dec, there[start : start + _TILES_AT_ONCE], footprints, remote)
        for start in range(0, len(there), _TILES_AT_ONCE)
    ]
    rows, tiles, depth = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.lexsort([tiles, -depth, rows])
    return rows[order], tiles[order]


def _pairs(
    tree, sky, ra, dec, numbers: Sequence[int], footprints, remote
) -> tuple[np.ndarray, ...]:
    """Rows, tiles and depths in pixels of the positions inside some tiles."""
    chosen = [footprints[number] for number in numbers]
    reach = 2 * np.sin(np.minimum([f.radius for f in chosen], np.pi) / 2)
    near = tree.query_ball_point([f.centre for f in chosen], reach, return_sorted=False)
    rows = np.concatenate([np.asarray(found, np.int64) for found in near])
    which = np.repeat(np.arange(len(chosen)), [len(found) for found in near])
    x, y = _projected(sky, chosen, rows, which)
    for number, footprint in enumerate(chosen):
        if footprint.matrix is None and len(near[number]):
            here = which == number
            with _local(footprint.image, remote) as name:
                wcs, _ = read_grid(name)
            x[here], y[here] = to_pixels(wcs, ra[rows[here]], dec[rows[here]])
    ny, nx = np.array([f.shape for f in chosen]).T[:, which]
    depth = np.nan_to_num(np.min([x, y, nx - 1 - x, ny - 1 - y], axis=0), nan=-np.inf)
    inside = depth > -0.5
    return rows[inside], np.array(numbers, np.int64)[which[inside]], depth[inside]


def _projected(sky, chosen, rows, which) -> tuple[np.ndarray, np.ndarray]:
    """Pixel positions in the tiles that have a matrix; NaN in others, and behind an image."""
    empty = (np.nan,) * 9
    matrices = np.array([f.matrix or empty for f in chosen]).reshape(-1, 3, 3)
    x, y, w = np.einsum("pij,pj->ip", matrices[which], sky[rows])
    with np.errstate(invalid="ignore", divide="ignore"):
        w = np.where(w > 0, w, np.nan)
        return x / w, y / w
