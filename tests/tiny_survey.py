"""A tiny survey in a folder of its own, to run through the whole workflow."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

import numpy as np
import yaml

from fits_files import tan_wcs, write_image

REPOSITORY = Path(__file__).parents[1]
LABELLED = ["tiny_0", "tiny_1"]


class Survey:
    """A copy of the workflow in a folder of its own, with one config."""

    def __init__(self, folder: Path, new: bool = True):
        self.folder = folder
        self.results = folder / "results" / "tiny"
        self.log = ""
        for part in ("workflow", "scripts", "envs") if new else ():
            shutil.copytree(
                REPOSITORY / part, folder / part, ignore=shutil.ignore_patterns("__pycache__")
            )

    def copied_to(self, folder: Path) -> Self:
        """Copy the survey with all it has made, times included, to change at will."""
        shutil.copytree(self.folder, folder, copy_function=shutil.copy2)
        return type(self)(folder, new=False)

    def write(self, config: dict, tiles: list[str]) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))
        lines = ["tile\tband\timage\tmask\tweight"]
        for tile in tiles:
            for band in config["input"]["bands"]:
                path = f"results/tiny/raw/{tile}_{band}.fits"
                lines.append(f"{tile}\t{band}\t{path}[IMAGE]\t{path}[MASK]\t{path}[WEIGHT]")
        (self.folder / "tiles.tsv").write_text("\n".join(lines) + "\n")

    def snakemake(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "snakemake", "--configfile", "config.yaml", "--cores", "2",
             *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / "scripts")},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip

    def run(self) -> str:
        done = self.snakemake()
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done.stdout + done.stderr

    def planned(self) -> dict[str, int]:
        """Number of jobs of each rule that a run would start."""
        return self.plan()[0]

    def plan(self) -> tuple[dict[str, int], list[str]]:
        """Number of jobs of each rule that a run would start, and what is said to have changed."""
        done = self.snakemake("--dry-run")
        assert done.returncode == 0, done.stderr[-3000:]
        text = done.stdout + done.stderr
        start = "Since the last run: "
        said = [x.removeprefix(start) for x in text.splitlines() if x.startswith(start)]
        if "Nothing to be done" in text:
            return {}, said
        table = text.split("Job stats:")[-1].split("total")[0]
        jobs = {
            rule: int(count)
            for rule, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)
            if rule != "all"
        }
        return jobs, said

    def contents(self, pattern: str) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.results)): path.read_bytes()
            for path in sorted(self.results.glob(pattern))
        }


def tiny_config() -> dict:
    return {
        "survey": "tiny",
        "seed": 3,
        "simulation": {"pixels": 420, "objects": 45, "lens_fraction": 0.4, "label_fraction": 0.8},
        "input": {
            "kind": "tiles",
            "tiles": "tiles.tsv",
            "sources": "results/tiny/raw/{tile}_sources.fits",
            "columns": {"object_id": "OBJECT_ID", "ra": "RA", "dec": "DEC"},
            "keep": {"magnitude_r": "MAG_R", "radius": "RADIUS"},
            "bands": ["g", "r", "i"],
            "reference_band": "r",
            "mask": {"planes": {"bad": 0, "saturated": 1}},
        },
        "cutouts": {"size": 32},
        "training": {
            "width": 0.35, "weights": "none", "folds": 2, "head_epochs": 1, "fine_tune_epochs": 1,
            "holdout": 0.2,
        },
        "clustering": {"tasks": ["lens"], "components": 8, "smallest_group": 5},
        "tasks": {
            "lens": {
                "kind": "binary",
                "classes": ["nolens", "lens"],
                "labels": [f"results/tiny/raw/{tile}_labels.csv" for tile in LABELLED],
                "label_column": "lens",
                "label_tiles": LABELLED,
            }
        },
    }  # fmt: skip


TILE_PIXELS = 96
TILE_STEP = 0.006  # degrees between tiles of 96 pixels of 0.262 arcsec: they do not overlap
OBJECTS_A_TILE = 5


def plain_config() -> dict:
    """A survey of plain tiles with one list, and nothing to train."""
    return {
        "survey": "tiny",
        "input": {
            "kind": "tiles",
            "images": "tiles/{tile}_{band}.fits[IMAGE]",
            "masks": "tiles/{tile}_{band}_mask.fits[IMAGE]",
            "sources": "sources.csv",
            "bands": ["g", "r"],
            "reference_band": "r",
        },
        "cutouts": {"size": 16},
    }


class PlainSurvey(Survey):
    """A survey of small tiles written by the test, on a row along the equator."""

    def write_config(self, config: dict) -> None:
        (self.folder / "config.yaml").write_text(yaml.safe_dump(config))

    def write_image(self, tile: int, band: str, seed: int = 0, dra: float = 0.0) -> Path:
        """Write tile `t{tile}` of noise; a seed of its own makes it a new delivery."""
        path = self.folder / f"tiles/t{tile}_{band}.fits"
        path.parent.mkdir(exist_ok=True)
        shape = (TILE_PIXELS, TILE_PIXELS)
        noise = np.random.default_rng([tile, seed, ord(band)]).normal(0, 1, shape)
        wcs = tan_wcs(shape, ra=150 + tile * 2 * TILE_STEP + dra, dec=0.0, rotation=0.0)
        write_image(path, noise.astype(np.float32), wcs, compressed=False)
        return path

    def write_mask(self, tile: int, band: str, bad_row: int = 0) -> Path:
        """Write the mask of a tile, with one row of bad pixels."""
        path = self.folder / f"tiles/t{tile}_{band}_mask.fits"
        mask = np.zeros((TILE_PIXELS, TILE_PIXELS), np.int16)
        mask[bad_row] = 1
        write_image(path, mask, compressed=False)
        return path

    def write_tile(self, tile: int) -> None:
        for band in "gr":
            self.write_image(tile, band)
            self.write_mask(tile, band)

    def remove_tile(self, tile: int) -> None:
        for path in (self.folder / "tiles").glob(f"t{tile}_*"):
            path.unlink()

    def write_sources(self, rows: list[tuple[str, float, float]]) -> None:
        lines = ["object_id,ra,dec", *(f"{name},{ra!r},{dec!r}" for name, ra, dec in rows)]
        (self.folder / "sources.csv").write_text("\n".join(lines) + "\n")


def sources_of(tile: int) -> list[tuple[str, float, float]]:
    """Rows of the list that lie on a tile."""
    steps = np.linspace(-0.002, 0.002, OBJECTS_A_TILE)
    ra = 150 + tile * 2 * TILE_STEP
    return [(f"t{tile}-{n}", float(ra + s), float(s / 2)) for n, s in enumerate(steps)]


def small_survey(folder: Path) -> Survey:
    """The smallest survey that has every rule but `pretrain`, which trains as `finetune` does."""
    config = tiny_config()
    config["simulation"] |= {"pixels": 240, "objects": 30}
    del config["training"]["width"]
    config["training"]["backbone"] = "LeNet5"
    config["tasks"]["lens"] |= {
        "labels": ["results/tiny/raw/tiny_0_labels.csv"], "label_tiles": ["tiny_0"],
    }  # fmt: skip
    survey = Survey(folder)
    survey.write(config, ["tiny_0"])
    return survey


def quick_survey(folder: Path, tiles: int = 3) -> PlainSurvey:
    """A few tiles, and nothing to train."""
    survey = PlainSurvey(folder)
    for tile in range(tiles):
        survey.write_tile(tile)
    survey.write_sources([row for tile in range(tiles) for row in sources_of(tile)])
    survey.write_config(plain_config())
    return survey
