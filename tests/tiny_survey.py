"""A tiny survey in a folder of its own, to run through the whole workflow."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

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
        done = self.snakemake("--dry-run")
        assert done.returncode == 0, done.stderr[-3000:]
        text = done.stdout + done.stderr
        if "Nothing to be done" in text:
            return {}
        table = text.split("Job stats:")[-1].split("total")[0]
        return {
            rule: int(count)
            for rule, count in re.findall(r"^(\w+)\s+(\d+)$", table, re.MULTILINE)
            if rule != "all"
        }

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
        },
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
