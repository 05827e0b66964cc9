"""A simulated set in the form of the ground-based data of the lens finding challenge.

The challenge is that of Metcalf et al. (2019, A&A 625, A119): stamps of 101 x 101 pixels of
0.2 arcsec in u, g, r, i, modelled on KiDS, half of them lenses, some of which nobody can see.
Fluxes are maggies (zero point 0), which makes the noise about 1e-12 as there. The galaxies are
not the challenge's: scores on this set cannot be compared with those of its entries.
"""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any

import galsim
import h5py
import numpy as np
from scipy import fft

from luneta.files import atomic_path
from luneta.runs import end_with_parent
from luneta.simulation.camera import MOFFAT_BETA, transform
from luneta.simulation.deflectors import BANDS, Light
from luneta.simulation.lens_candidates import make_lens, make_non_lens
from luneta.simulation.lens_masks import draw_masks

SIZE, PIXEL_SCALE = 101, 0.2  # pixels, arcsec
REFERENCE = BANDS.index("r")
MASKED_VALUE = 100.0
# The stamps are cut from larger ones, as what leaves one at an edge comes in at the other.
DRAWN = 144
# Of KiDS (de Jong et al. 2013): seeing in arcsec and 5 sigma in 2 arcsec.
SEEING = {"u": 1.0, "g": 0.9, "r": 0.7, "i": 0.8}
DEPTH = {"u": 24.3, "g": 25.1, "r": 24.9, "i": 23.8}
# About the electrons of a maggie in the whole exposure, for the photon noise.
ELECTRONS = {"u": 2e12, "g": 8e12, "r": 1.5e13, "i": 5e12}
BLOCK = 25
PAIR_DOMAIN = 0x50414952

# A lens that can be seen, about as the challenge counts it: so many pixels of the arcs are above
# the noise in the reference band, and the source is magnified so much.
DETECTABLE_PIXELS, DETECTABLE_MAGNIFICATION = 20, 1.6

COLUMNS = (
    "object_id", "row", "label", "kind", "einstein_radius", "source_magnitude", "source_redshift",
    "magnification", "arc_magnitude", "arc_signal_to_noise", "arc_pixels", "detectable",
    "deflector_magnitude", "deflector_redshift", "masked_fraction",
)  # fmt: skip


def sky_noise() -> np.ndarray:
    """Give the noise of a pixel of empty sky at KiDS depth: shape (band,), float64, maggies."""
    pixels = np.pi / PIXEL_SCALE**2
    return np.array([10 ** (-0.4 * DEPTH[band]) / 5 / np.sqrt(pixels) for band in BANDS])


@lru_cache(maxsize=256)
def _point_spread(fwhm: float) -> np.ndarray:
    profile = galsim.Moffat(beta=MOFFAT_BETA, fwhm=fwhm)
    return transform(profile, DRAWN, PIXEL_SCALE).real.copy()


def draw_seeing(random: np.random.Generator) -> tuple[float, ...]:
    """Draw the width (FWHM, arcsec) of the point spread function in each band, in steps of 0.02."""
    return tuple(
        round(0.02 * round(SEEING[band] * np.exp(random.normal(0, 0.1)) / 0.02), 2)
        for band in BANDS
    )


def _spectrum(light: Light) -> np.ndarray:
    """Transform a light in its place, for a flux of one."""
    across, down = np.fft.rfftfreq(DRAWN), np.fft.fftfreq(DRAWN)
    x, y = (place / PIXEL_SCALE for place in light.position)
    row, column = np.exp(-2j * np.pi * across * x), np.exp(-2j * np.pi * down * y)
    moved = (column[:, None] * row[None, :]).astype(np.complex64)
    return transform(light.shape, DRAWN, PIXEL_SCALE) * moved


def draw(lights: Sequence[Light], seeing: Sequence[float]) -> np.ndarray:
    """Draw lights as the camera sees them, without noise.

    Parameters
    ----------
    lights : sequence of Light
        What shines, about the centre of pixel (50, 50).
    seeing : sequence of float
        Full width at half maximum, pixel included, of the Moffat (1969) profile of each
        band, arcsec.

    Returns
    -------
    numpy.ndarray
        Shape (band, y, x), float32, maggies per pixel.
    """
    spectra = [_spectrum(light) for light in lights]
    weights = np.array([light.fluxes for light in lights], np.float32)
    total = np.einsum("lb,lyx->byx", weights, np.array(spectra), optimize=True)
    total *= np.stack([_point_spread(fwhm) for fwhm in seeing])
    stamp = np.fft.fftshift(fft.irfft2(total, s=(DRAWN, DRAWN)), axes=(1, 2))
    first = DRAWN // 2 - SIZE // 2
    return stamp[:, first : first + SIZE, first : first + SIZE]


def is_lens(index: int, seed: int) -> bool:
    """Say whether an object is a lens: one of each pair of indices is, whichever it be."""
    first = np.random.default_rng([seed, index // 2, PAIR_DOMAIN]).integers(2)
    return bool((index + first) % 2)


def arc_truth(arcs: Light, image: np.ndarray, noise: np.ndarray, good: np.ndarray) -> dict:
    """Measure how well the images of a lensed source can be seen in the reference band.

    Parameters
    ----------
    arcs : Light
        The lensed images.
    image : numpy.ndarray
        Shape (y, x), float32, their noiseless light in the reference band.
    noise : numpy.ndarray
        Shape (y, x), its standard deviation, in the same unit.
    good : numpy.ndarray
        Shape (y, x), bool; False where masked.

    Returns
    -------
    dict
        magnification; arc_magnitude, of all images, r; arc_signal_to_noise, the root of the
        summed squares of the pixels'; arc_pixels, those above the noise; detectable.
    """
    magnification = float(transform(arcs.shape, DRAWN, PIXEL_SCALE)[0, 0].real)
    ratio = np.where(good, image / noise, 0)
    pixels = int((ratio > 1).sum())
    return {
        "magnification": magnification,
        "arc_magnitude": -2.5 * np.log10(magnification * arcs.fluxes[REFERENCE]),
        "arc_signal_to_noise": float(np.sqrt((ratio**2).sum())),
        "arc_pixels": pixels,
        "detectable": int(pixels >= DETECTABLE_PIXELS and magnification > DETECTABLE_MAGNIFICATION),
    }


def simulate_object(index: int, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """Simulate one object of a set; it depends on the seed and its index alone.

    Returns
    -------
    image : numpy.ndarray
        Shape (band, y, x), float32, maggies per pixel; masked pixels hold 100.
    row : dict
        Its line in the table, by `COLUMNS`; what is not known of a non-lens is missing.
    """
    random = np.random.default_rng([seed, index])
    lens = is_lens(index, seed)
    candidate = (make_lens if lens else make_non_lens)(random)
    seeing = draw_seeing(random)
    image = draw(candidate.lights, seeing)
    arcs = draw([candidate.arcs], seeing) if candidate.arcs else np.zeros_like(image)
    noise = sky_noise() * np.exp(random.normal(0, 0.1, len(BANDS)))
    electrons = np.array([ELECTRONS[band] for band in BANDS])[:, None, None]
    deviation = np.sqrt(noise[:, None, None] ** 2 + np.maximum(image + arcs, 0) / electrons)
    observed = image + arcs + deviation * random.standard_normal(image.shape)
    masks = draw_masks(random, len(BANDS), SIZE)
    row = {
        "object_id": f"{seed}-{index:06d}", "row": index, "label": "lens" if lens else "nolens",
        "kind": candidate.kind, "masked_fraction": masks.mean(), **candidate.truth,
    }  # fmt: skip
    if candidate.arcs:
        good = ~masks[REFERENCE]
        row |= arc_truth(candidate.arcs, arcs[REFERENCE], deviation[REFERENCE], good)
    return np.where(masks, MASKED_VALUE, observed).astype(np.float32), row


def _block(job: tuple[int, int, int]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    first, last, seed = job
    images, rows = zip(*(simulate_object(k, seed) for k in range(first, last)), strict=True)
    return np.stack(images), list(rows)


def _blocks(
    objects: int, seed: int, threads: int
) -> Iterator[tuple[np.ndarray, list[dict[str, Any]]]]:
    """Give blocks of objects in order; a few are in memory at a time."""
    jobs = [(k, min(k + BLOCK, objects), seed) for k in range(0, objects, BLOCK)]
    if threads == 1:
        yield from map(_block, jobs)
        return
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(threads, mp_context=fork, initializer=end_with_parent) as pool:
        at_once = 8 * threads
        for k in range(0, len(jobs), at_once):
            yield from pool.map(_block, jobs[k : k + at_once])


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def run(folder: Path | str, objects: int, seed: int, threads: int = 1) -> None:
    """Simulate a set and write it: `images.h5`, then `labels.csv`.

    Parameters
    ----------
    folder : path
        Where to write. `images.h5` has one dataset, `data`, shape (object, band, y, x),
        float32, maggies per pixel, masked pixels 100; `labels.csv` a line for each object.
    objects : int
        Number of objects, of which every other one or the next is a lens.
    seed : int
        Seed; the same one gives the same set with any number of threads, and a longer
        set begins with the objects of a shorter one.
    threads : int
        Processes.

    Raises
    ------
    ValueError
        If there are no objects, or no threads to make them.
    """
    if objects < 1 or threads < 1 or seed < 0:
        raise ValueError(
            f"objects = {objects}, threads = {threads}, seed = {seed}: "
            "give at least one object and one thread, and a seed of 0 or more"
        )
    folder, rows, shape = Path(folder), [], (objects, len(BANDS), SIZE, SIZE)
    with atomic_path(folder / "images.h5") as path, h5py.File(path, "w") as file:
        data = file.create_dataset("data", shape, np.float32)
        data.attrs.update(bands=BANDS, pixel_scale=PIXEL_SCALE, zero_point=0.0, seed=seed)
        with closing(_blocks(objects, seed, threads)) as blocks:
            for images, found in blocks:
                data[len(rows) : len(rows) + len(images)] = images
                rows += found
        file.flush()  # HDF5 may lose an error when it closes a file
    with atomic_path(folder / "labels.csv") as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: _text(v) for k, v in row.items()} for row in rows)
