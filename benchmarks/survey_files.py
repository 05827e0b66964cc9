"""Images and lists for the benchmarks."""

from __future__ import annotations

from pathlib import Path

import fitsio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from astropy.io import fits
from astropy.wcs import WCS

from luneta.config import validate

BANDS = ["g", "r", "z"]
SKY, NOISE = 100.0, 5.0


def tan_header(side: int, ra: float = 150.0, dec: float = 2.0) -> fits.Header:
    """Give the header of a tangential projection with pixels of 0.262 arcsec."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [ra, dec]
    wcs.wcs.crpix = [(side + 1) / 2] * 2
    wcs.wcs.cdelt = [-0.262 / 3600, 0.262 / 3600]
    return wcs.to_header()


def write_tile(folder: Path, side: int, seed: int = 0, bands: list[str] = BANDS) -> dict[str, str]:
    """Write the bands of a tile, RICE-compressed: noise, and a thousand stars; names by band."""
    random = np.random.default_rng(seed)
    names = {}
    y, x = np.indices((21, 21)) - 10
    star = np.exp(-(x**2 + y**2) / 8).astype(np.float32)
    for band in bands:
        pixels = random.standard_normal((side, side), np.float32)
        pixels *= NOISE
        pixels += SKY
        for low, left in random.integers(0, side - 21, (1000, 2)):
            pixels[low : low + 21, left : left + 21] += star * random.uniform(50, 5000)
        path = folder / f"tile_{band}.fits.fz"
        header = [{"name": k, "value": v} for k, v in tan_header(side).items()]
        fitsio.write(str(path), pixels, header=header, compress="RICE", qlevel=4, clobber=True)
        names[band] = f"{path}[1]"
    return names


def write_objects(path: Path, side: int, count: int, tile: str = "tile") -> Path:
    """Write `objects/{shard}.parquet` with objects at random places of a tile."""
    x, y = np.random.default_rng(1).uniform(0, side - 1, (2, count))
    table = pa.table(
        {
            "object_id": [f"object_{number}" for number in range(count)],
            "tile": [tile] * count,
            "x": x,
            "y": y,
            "flags": pa.array(np.zeros(count, np.int32)),
            "reject_reason": pa.nulls(count, pa.string()),
        }
    )
    pq.write_table(table, path)
    return path


def cutout_settings(names: dict[str, str], size: int = 64) -> dict:
    """Give the settings of a cutouts job of one tile, all at their defaults."""
    config = validate(
        {
            "survey": "benchmark",
            "input": {"kind": "tiles", "tiles": "none", "sources": "none", "bands": list(names)},
            "cutouts": {"size": size},
        }
    )
    given = config.input.model_dump(mode="json")
    files = {band: {"image": name} for band, name in names.items()}
    return {
        **{key: given[key] for key in ("mask", "weight", "zero_points", "seeing", "astrometry")},
        "remote": given["remote"],
        "pixel_scale": None,
        "pixels": "flux",
        "quality": {},
        "bands": list(names),
        "reference_band": next(iter(names)),
        "cutouts": config.cutouts.model_dump(mode="json"),
        "tiles": [{"name": "tile", "shard": "tile", "bands": files}],
    }
