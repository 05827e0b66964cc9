"""Detection on the noise-weighted sum of all bands against the reference band, at equal purity.

Simulated tiles with the defects of the demo survey, and galaxies down to where none is found. An
object is found if a detection lies within an arcsec of it; a detection is pure if an object does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree
from timing import finish, show

from luneta.config.survey import Detection, Mask
from luneta.simulation import tile as sky
from luneta.simulation.galaxies import MORPHOLOGIES, make_galaxy
from luneta.survey.measure import find
from luneta.survey.tile_planes import TilePlanes
from luneta.survey.tiles import BandFiles, Tile

BANDS, REFERENCE, SCALE = ["g", "r", "i", "z"], "r", 0.262
BINS = np.arange(21.0, 26.0, 0.5)
THRESHOLDS = np.geomspace(0.8, 4, 12)


def simulate(folder: Path, seed: int, pixels: int, count: int) -> tuple[Tile, np.ndarray]:
    """Write the images of a tile; give it, and x, y and r magnitude of its galaxies."""
    random, name = np.random.default_rng(seed), f"tile_{seed}"
    magnitudes = random.uniform(BINS[0], BINS[-1], count)
    places = sky.scatter(count, pixels, random)
    light = np.zeros((len(BANDS), pixels, pixels), np.float32)
    for number, (magnitude, place) in enumerate(zip(magnitudes, places, strict=True)):
        galaxy = make_galaxy(MORPHOLOGIES[number % len(MORPHOLOGIES)], magnitude, random)
        sky.paint(light, galaxy.components, galaxy.extent, place, BANDS, SCALE)
    defects, cards = sky.make_defects(pixels, BANDS, random), sky.wcs_cards(name, pixels, SCALE)
    files = {}
    for band, image in zip(BANDS, light, strict=True):
        path = folder / f"{name}_{band}.fits"
        sky.write_image(path, *sky.observe(image, band, defects, SCALE, random), cards)
        names = [f"{path}[{unit}]" for unit in ("IMAGE", "MASK", "WEIGHT")]
        files[band] = BandFiles(*names)
    return Tile(name, name, files), np.column_stack([places, magnitudes])


def score(tile: Tile, truth: np.ndarray, bands: str) -> np.ndarray:
    """Count at each threshold: detections, pure ones, objects found in each bin of magnitude."""
    settings = {
        "reference_band": REFERENCE,
        "bands": BANDS,
        "detection": Detection(bands=bands).model_dump(mode="json"),
        "mask": Mask().model_dump(mode="json"),
        "weight": "inverse_variance",
    }
    with TilePlanes(tile, settings) as planes:
        image = planes.detection_plane()
    rows = []
    for threshold in THRESHOLDS:
        objects = find(image, {**settings["detection"], "threshold": threshold})
        places = np.column_stack([objects.x, objects.y])
        radius = 1 / SCALE
        pure = cKDTree(truth[:, :2]).query(places)[0] <= radius
        found = cKDTree(places).query(truth[:, :2])[0] <= radius
        rows.append([len(places), pure.sum(), *np.histogram(truth[found, 2], BINS)[0]])
    return np.array(rows, float)


def at_purity(counts: np.ndarray, objects: np.ndarray, purity: float) -> np.ndarray:
    """Completeness in each bin at the threshold that gives a purity; between two, linearly."""
    purities, complete = counts[:, 1] / counts[:, 0], counts[:, 2:] / objects
    order = np.argsort(purities)
    return np.array([np.interp(purity, purities[order], c[order]) for c in complete.T])


def compare(tiles: int, pixels: int, count: int, purity: float) -> dict[str, float]:
    """Detect on the reference band and on all, and tell both completenesses."""
    totals, objects = {"reference": 0.0, "all": 0.0}, 0.0
    with tempfile.TemporaryDirectory() as name:
        for seed in range(tiles):
            tile, truth = simulate(Path(name), seed, pixels, count)
            objects = objects + np.histogram(truth[:, 2], BINS)[0]
            totals = {bands: total + score(tile, truth, bands) for bands, total in totals.items()}
    found = {bands: at_purity(total, objects, purity) for bands, total in totals.items()}
    results = {}
    table = [("r magnitude", "objects", *found)]
    for number, low in enumerate(BINS[:-1]):
        values = {bands: complete[number] for bands, complete in found.items()}
        table.append((f"{low} to {low + 0.5}", int(objects[number]), *values.values()))
        results |= {f"complete_{bands}_{low}": value for bands, value in values.items()}
    show(table)
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=4)
    parser.add_argument("--pixels", type=int, default=2000)
    parser.add_argument("--objects", type=int, default=800, help="galaxies a tile")
    parser.add_argument("--purity", type=float, default=0.95)
    given = parser.parse_args()
    finish(compare(given.tiles, given.pixels, given.objects, given.purity))
