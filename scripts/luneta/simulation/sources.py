"""The simulated source set on which backbones are pretrained."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from luneta.runs import end_with_parent
from luneta.simulation.camera import BANDS, check_bands, draw, pixel_noise, stamp_size
from luneta.simulation.galaxies import MORPHOLOGIES, Galaxy, make_galaxy, random_magnitude
from luneta.simulation.lenses import make_lens

CLASSES = (*MORPHOLOGIES, "lens")
# Keeps the source set apart from the tiles of a survey with the same seed.
SEED_DOMAIN = 0x50524554
BLOCK = 100
SEEINGS = (0.88, 0.94, 1.0, 1.06, 1.12)


def make(label: str, random: np.random.Generator) -> Galaxy:
    """Make a random object of a class of `CLASSES`."""
    if label == "lens":
        return make_lens(random)
    return make_galaxy(label, random_magnitude(random), random)


def noisy_stamp(
    galaxy: Galaxy,
    bands: Sequence[str],
    size: int,
    pixel_scale: float,
    random: np.random.Generator,
) -> np.ndarray:
    """Observe a galaxy with a seeing and a depth that vary a little about the survey's.

    Returns
    -------
    numpy.ndarray
        Shape (band, y, x), float32, units of sky noise.
    """
    # Larger than asked, as the outer part of a drawn stamp fades.
    side = max(stamp_size(galaxy.extent, pixel_scale), 2 * (3 * size // 4))
    shift = random.uniform(-0.5, 0.5, 2)
    stamp = draw(galaxy.components, bands, side, pixel_scale, shift, random.choice(SEEINGS))
    first = side // 2 - size // 2
    stamp = stamp[:, first : first + size, first : first + size]
    noise = np.array([pixel_noise(b, pixel_scale) for b in bands]) * random.uniform(0.85, 1.2)
    electrons = np.array([BANDS[b].electrons for b in bands])
    noise, electrons = noise[:, None, None], electrons[:, None, None]
    deviation = np.sqrt(1 + np.maximum(stamp, 0) / electrons / noise**2)
    return (stamp / noise + deviation * random.standard_normal(stamp.shape)).astype(np.float32)


def _block(job: tuple) -> np.ndarray:
    labels, classes, bands, size, pixel_scale, seed = job
    random = np.random.default_rng(seed)
    stamps = np.empty((len(labels), len(bands), size, size), np.float32)
    for k, label in enumerate(labels):
        stamps[k] = noisy_stamp(make(classes[label], random), bands, size, pixel_scale, random)
    return stamps


def galaxy_stamps(
    count: int,
    classes: Sequence[str],
    bands: Sequence[str],
    size: int,
    pixel_scale: float,
    seed: int,
    workers: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Simulate labelled galaxies, shared evenly by the classes.

    Parameters
    ----------
    count : int
        Number of galaxies.
    classes : sequence of str
        Classes, of `CLASSES`.
    bands : sequence of str
        Bands, in the order of the images' second axis.
    size : int
        Side of an image in pixels.
    pixel_scale : float
        Pixel scale, arcsec.
    seed : int
        Seed; the same one gives the same galaxies with any number of workers.
    workers : int
        Processes. They are forked: simulate before TensorFlow is imported, or use 1.

    Returns
    -------
    images : numpy.ndarray
        Shape (galaxy, band, y, x), float32, units of sky noise.
    labels : numpy.ndarray
        Shape (galaxy,), int64, positions in `classes`.
    """
    check_bands(bands)
    root = np.random.SeedSequence([SEED_DOMAIN, seed])
    labels = np.random.default_rng(root).permutation(np.arange(count) % len(classes))
    blocks = [labels[k : k + BLOCK] for k in range(0, count, BLOCK)]
    seeds = root.spawn(len(blocks))
    jobs = [
        (block, tuple(classes), tuple(bands), size, pixel_scale, child)
        for block, child in zip(blocks, seeds, strict=True)
    ]
    if workers == 1:
        return np.concatenate([_block(job) for job in jobs]), labels
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=fork, initializer=end_with_parent) as pool:
        return np.concatenate(list(pool.map(_block, jobs))), labels
