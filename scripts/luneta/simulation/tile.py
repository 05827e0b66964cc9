"""One tile of the simulated demo survey: images with defects, source list, labels, truth."""

from __future__ import annotations

import csv
import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fitsio
import galsim
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from astropy.wcs import WCS

from luneta.files import atomic_path
from luneta.simulation.camera import (
    BANDS,
    Component,
    check_bands,
    draw,
    flux_of,
    pixel_noise,
    stamp_size,
)
from luneta.simulation.galaxies import MORPHOLOGIES, Galaxy, make_galaxy, random_magnitude
from luneta.simulation.lenses import make_lens

log = logging.getLogger(__name__)

FIRST_CENTRE = (150.0, 2.0)  # degrees: the COSMOS field
GRID_BITS = 6  # a grid of 64 x 64 tiles, then from the start again
ROTATION = np.radians(1.3)
BAD_COLUMN, SATURATED = 1, 2  # mask bits 0 and 1
SATURATION = 600.0  # nanomaggies per square arcsec
STAR_MAGNITUDES = (17.0, 22.0)
STARS_PER_SQUARE_ARCMIN = 0.5
SATURATED_STAR_MAGNITUDE = 11.5


@dataclass(frozen=True)
class Defects:
    """What is wrong with a tile.

    Attributes
    ----------
    columns : dict
        For each band, the bad columns.
    dead : tuple of slice
        The strip (y, x) along an edge that has no data.
    star : tuple of float
        x and y of the saturated star, pixels.
    """

    columns: dict[str, list[int]]
    dead: tuple[slice, slice]
    star: tuple[float, float]


def random_of(tile: str, seed: int) -> np.random.Generator:
    """Give the random numbers of a tile: they depend on its name and the seed, on nothing else."""
    digest = hashlib.sha256(f"{seed}/{tile}".encode()).digest()
    return np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest, "big")))


def grid_position(tile: str) -> tuple[int, int]:
    """Give the column and row of a tile on the sky.

    The number at the end of the name (of a name without one, its hash) counts along a
    Z-order curve (Morton 1966), so that the first 4, 16, 64 tiles fill a square.
    """
    digits = re.search(r"\d+$", tile)
    number = int(digits[0]) if digits else int(hashlib.sha256(tile.encode()).hexdigest(), 16)
    column = sum((number >> 2 * k & 1) << k for k in range(GRID_BITS))
    row = sum((number >> 2 * k + 1 & 1) << k for k in range(GRID_BITS))
    return column, row


def wcs_cards(tile: str, pixels: int, pixel_scale: float) -> dict[str, Any]:
    """Give the header cards of a tile's TAN coordinates (Calabretta & Greisen 2002).

    Parameters
    ----------
    tile : str
        Name of the tile.
    pixels : int
        Side of the tile.
    pixel_scale : float
        Pixel scale, arcsec.
    """
    column, row = grid_position(tile)
    scale = pixel_scale / 3600
    dec = FIRST_CENTRE[1] + row * pixels * scale
    ra = FIRST_CENTRE[0] + column * pixels * scale / np.cos(np.radians(dec))
    cosine, sine = scale * np.cos(ROTATION), scale * np.sin(ROTATION)
    return {
        "RADESYS": "ICRS",
        "EQUINOX": 2000.0,
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": float(ra),
        "CRVAL2": float(dec),
        "CRPIX1": (pixels + 1) / 2,
        "CRPIX2": (pixels + 1) / 2,
        "CD1_1": -float(cosine),
        "CD1_2": float(sine),
        "CD2_1": float(sine),
        "CD2_2": float(cosine),
    }


def make_objects(count: int, lens_fraction: float, random: np.random.Generator) -> list[Galaxy]:
    """Make a tile's objects: a fixed share of lenses, the others shared evenly by the classes."""
    lenses = round(count * lens_fraction)
    kinds = ["lens"] * lenses
    kinds += [MORPHOLOGIES[k % len(MORPHOLOGIES)] for k in range(count - lenses)]
    return [
        make_lens(random) if kind == "lens" else make_galaxy(kind, random_magnitude(random), random)
        for kind in random.permutation(kinds)
    ]


def scatter(count: int, pixels: int, random: np.random.Generator) -> np.ndarray:
    """Throw positions that keep a distance from each other; some lie at the edges.

    Returns
    -------
    numpy.ndarray
        Shape (objects, 2), float64: x and y in pixels, zero-based.
    """
    distance = 0.6 * pixels / np.sqrt(count)
    places = np.empty((count, 2))
    placed, tries = 0, 0
    while placed < count:
        place = random.uniform(2, pixels - 3, 2)
        tries += 1
        # A crowded tile gives way rather than never ending.
        near = distance * 0.999 ** (tries / count)
        if placed == 0 or np.hypot(*(places[:placed] - place).T).min() > near:
            places[placed] = place
            placed += 1
    return places


def add(image: np.ndarray, stamp: np.ndarray, x: int, y: int) -> None:
    """Add a stamp to an image in place; what falls over the edge is lost.

    Parameters
    ----------
    image : numpy.ndarray
        Shape (band, y, x).
    stamp : numpy.ndarray
        Shape (band, size, size).
    x, y : int
        Pixel of the image on which pixel size // 2 of the stamp falls.
    """
    half, size = stamp.shape[-1] // 2, stamp.shape[-1]
    left, bottom = x - half, y - half
    columns = slice(max(left, 0), min(left + size, image.shape[2]))
    rows = slice(max(bottom, 0), min(bottom + size, image.shape[1]))
    if columns.start < columns.stop and rows.start < rows.stop:
        inside = (
            slice(None),
            slice(rows.start - bottom, rows.stop - bottom),
            slice(columns.start - left, columns.stop - left),
        )
        image[:, rows, columns] += stamp[inside]


def paint(
    image: np.ndarray,
    components: Sequence[Component],
    extent: float,
    place: np.ndarray,
    bands: Sequence[str],
    pixel_scale: float,
) -> None:
    """Draw an object into an image (band, y, x) in place; `extent` in arcsec, `place` x and y."""
    x, y = (int(np.rint(c)) for c in place)
    size = stamp_size(extent, pixel_scale)
    shift = (float(place[0] - x), float(place[1] - y))
    add(image, draw(components, bands, size, pixel_scale, shift), x, y)


def paint_stars(
    image: np.ndarray,
    star: tuple[float, float],
    bands: Sequence[str],
    pixel_scale: float,
    random: np.random.Generator,
) -> None:
    """Draw faint field stars and the one that saturates."""
    pixels = image.shape[-1]
    count = round(STARS_PER_SQUARE_ARCMIN * (pixels * pixel_scale / 60) ** 2)
    magnitudes = [SATURATED_STAR_MAGNITUDE, *random.uniform(*STAR_MAGNITUDES, count)]
    places = np.concatenate([[star], random.uniform(0, pixels, (count, 2))])
    for magnitude, place in zip(magnitudes, places, strict=True):
        point = Component(galsim.DeltaFunction(), flux_of(magnitude), "star")
        extent = 8.0 if magnitude > STAR_MAGNITUDES[0] else 40.0
        paint(image, [point], extent, place, bands, pixel_scale)


def make_defects(pixels: int, bands: Sequence[str], random: np.random.Generator) -> Defects:
    """Draw the bad columns of each band, the dead edge and the place of the saturated star."""
    columns = {}
    for band in bands:
        first = random.integers(0, pixels, 3)
        columns[band] = sorted({int(c) for c in (*first, min(first[0] + 1, pixels - 1))})
    width = max(4, pixels // 100)
    strip = slice(0, width) if random.random() < 0.5 else slice(pixels - width, pixels)
    dead = (slice(None), strip) if random.random() < 0.5 else (strip, slice(None))
    x, y = random.uniform(0.2 * pixels, 0.8 * pixels, 2)
    return Defects(columns, dead, (float(x), float(y)))


def sky(pixels: int, noise: float, random: np.random.Generator) -> np.ndarray:
    """Give a sky that is not flat: shape (y, x), float32, in the unit of `noise` (of one pixel)."""
    axis = np.linspace(-1, 1, pixels, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    slope_x, slope_y, bend = (noise * random.uniform(-6, 6, 3)).astype(np.float32)
    level = np.float32(noise * random.uniform(20, 60))
    return level + slope_x * x + slope_y * y + bend * (x * x - y * y) / 2


def bleed(image: np.ndarray, star: tuple[float, float], pixel_scale: float) -> np.ndarray:
    """Clip an image (y, x) in place at saturation and let the brightest star bleed along y.

    Returns
    -------
    numpy.ndarray
        Shape (y, x), bool: the saturated pixels.
    """
    level = SATURATION * pixel_scale**2
    saturated = image > level
    x, y = (int(np.rint(c)) for c in star)
    if saturated[y, x]:
        length = max(12, image.shape[0] // 30)
        saturated[max(y - length, 0) : y + length + 1, max(x - 1, 0) : x + 2] = True
    image[saturated] = level
    return saturated


def observe(
    light: np.ndarray,
    band: str,
    defects: Defects,
    pixel_scale: float,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Add sky, noise and defects to the light of a band.

    Parameters
    ----------
    light : numpy.ndarray
        Shape (y, x), float32, nanomaggies per pixel, without noise.
    band : str
        Name of the band.
    defects : Defects
        What is wrong with the tile.
    pixel_scale : float
        Pixel scale, arcsec.
    random : numpy.random.Generator
        Source of all that is random.

    Returns
    -------
    image : numpy.ndarray
        Shape (y, x), float32, nanomaggies per pixel; NaN where dead.
    weight : numpy.ndarray
        Shape (y, x), float32, inverse variance; 0 where bad.
    mask : numpy.ndarray
        Shape (y, x), uint8, bit 0 bad column or dead, bit 1 saturated.
    """
    noise = pixel_noise(band, pixel_scale)
    variance = np.float32(noise**2) + np.maximum(light, 0) / np.float32(BANDS[band].electrons)
    image = light + np.sqrt(variance) * random.standard_normal(light.shape, np.float32)
    image += sky(light.shape[0], noise, random)
    saturated = bleed(image, defects.star, pixel_scale)
    mask = np.where(saturated, SATURATED, 0).astype(np.uint8)
    image[:, defects.columns[band]] += np.float32(40 * noise)
    mask[:, defects.columns[band]] |= BAD_COLUMN
    image[defects.dead] = np.nan
    mask[defects.dead] |= BAD_COLUMN
    return image, np.where(mask == 0, 1 / variance, 0).astype(np.float32), mask


def write_image(
    path: Path | str,
    image: np.ndarray,
    weight: np.ndarray,
    mask: np.ndarray,
    cards: dict[str, Any],
) -> None:
    """Write IMAGE, WEIGHT and MASK, RICE-compressed, with the same dither each time."""
    with atomic_path(path) as temporary, fitsio.FITS(str(temporary), "rw", clobber=True) as file:
        for name, pixels in (("IMAGE", image), ("WEIGHT", weight), ("MASK", mask)):
            unit = {"IMAGE": "nanomaggy", "WEIGHT": "nanomaggy-2", "MASK": ""}[name]
            header = {**cards, "BUNIT": unit} if unit else cards
            # A weight has no noise to set the quantisation by: a thousandth of the sky's will do.
            level = -1e-3 * float(weight.max()) if name == "WEIGHT" else 16.0
            quantised = {
                "qlevel": level,
                "qmethod": "SUBTRACTIVE_DITHER_2",
                "dither_seed": 1,
            }
            file.write(
                pixels,
                extname=name,
                header=[{"name": key, "value": value} for key, value in header.items()],
                compress="RICE_1",
                **(quantised if name != "MASK" else {}),
            )


def write_sources(
    path: Path | str, names: list[str], sky_places: np.ndarray, objects: list[Galaxy]
) -> None:
    """Write the source list; `sky_places` has shape (objects, 2): right ascension, declination."""
    rows = np.rec.fromarrays(
        [
            np.array(names, dtype="S"),
            sky_places[:, 0],
            sky_places[:, 1],
            np.array([o.magnitude_r for o in objects], np.float32),
            np.array([o.half_light_radius for o in objects], np.float32),
        ],
        names=["OBJECT_ID", "RA", "DEC", "MAG_R", "RADIUS"],
    )
    units = ["", "deg", "deg", "mag", "arcsec"]
    with atomic_path(path) as temporary, fitsio.FITS(str(temporary), "rw", clobber=True) as file:
        file.write(rows, extname="SOURCES", units=units)


def truth_table(names: list[str], objects: list[Galaxy]) -> pa.Table:
    """Give the truth about all objects, units in the fields' metadata."""
    units = {"magnitude_r": "mag", "half_light_radius": "arcsec", "einstein_radius": "arcsec"}
    columns = {
        "object_id": pa.array(names, pa.string()),
        "morphology": pa.array([o.morphology for o in objects], pa.string()),
        "lens": pa.array(["nolens" if o.einstein_radius is None else "lens" for o in objects]),
    }
    for name in ("magnitude_r", "half_light_radius", "axis_ratio", "einstein_radius"):
        columns[name] = pa.array([getattr(o, name) for o in objects], pa.float64())
    fields = [
        pa.field(name, column.type, metadata={"unit": units[name]} if name in units else None)
        for name, column in columns.items()
    ]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def write_tables(
    outputs: dict[str, Any], truth: pa.Table, label_fraction: float, random: np.random.Generator
) -> None:
    """Write the truth, and the labels that are given away."""
    count = len(truth)
    given = random.choice(count, round(count * label_fraction), replace=False)
    columns = ["object_id", "morphology", "lens"]
    labels = truth.select(columns).take(np.sort(given)).to_pylist()
    with atomic_path(outputs["labels"]) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(labels)
    with atomic_path(outputs["truth"]) as temporary:
        pyarrow.parquet.write_table(truth, temporary)


def run(tile: str, settings: dict[str, Any], outputs: dict[str, Any]) -> None:
    """Simulate a tile; its files depend on its name and the settings only.

    Parameters
    ----------
    tile : str
        Name of the tile; a number at its end says where on the sky it lies.
    settings : dict
        `seed`, `bands` and `simulation` (the keys of `luneta.config.Simulation`).
    outputs : dict
        Paths: `images` (one for each band), `sources`, `labels`, `truth`.
    """
    bands, simulation = list(settings["bands"]), settings["simulation"]
    check_bands(bands)
    pixels, pixel_scale = simulation["pixels"], simulation["pixel_scale"]
    random = random_of(tile, settings["seed"])
    objects = make_objects(simulation["objects"], simulation["lens_fraction"], random)
    places = scatter(len(objects), pixels, random)
    defects = make_defects(pixels, bands, random)
    light = np.zeros((len(bands), pixels, pixels), np.float32)
    for galaxy, place in zip(objects, places, strict=True):
        paint(light, galaxy.components, galaxy.extent, place, bands, pixel_scale)
    paint_stars(light, defects.star, bands, pixel_scale, random)
    cards = wcs_cards(tile, pixels, pixel_scale)
    for k, band in enumerate(bands):
        observed = observe(light[k], band, defects, pixel_scale, random)
        write_image(outputs["images"][band], *observed, cards)
    names = [f"{tile}_{k:05d}" for k in range(len(objects))]
    write_sources(outputs["sources"], names, WCS(cards).all_pix2world(places, 0), objects)
    write_tables(outputs, truth_table(names, objects), simulation["label_fraction"], random)
    log.info("Tile %s: %d objects in %d bands", tile, len(objects), len(bands))
