"""Bad files cost themselves only; a config that cannot work stops before the first job."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from astropy.io import fits
from astropy.table import Table, vstack

from catalog_files import rows_of
from tiny_survey import Survey, tiny_config


def rewrite(path, change):
    with fits.open(path) as file:
        file = fits.HDUList([unit.copy() for unit in file])
    change(file["IMAGE"])
    file.writeto(path, overwrite=True)


def drop_wcs(image):
    for key in ("CTYPE1", "CTYPE2"):
        del image.header[key]


def blank(image):
    image.data = np.full_like(image.data, np.nan)


BAD_TILES = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "no_wcs": lambda path: rewrite(path, drop_wcs),
    "all_nan": lambda path: rewrite(path, blank),
}
FLAGS = {"missing": 64, "truncated": 128, "no_wcs": 256, "all_nan": 512}


@pytest.fixture(scope="module")
def bad(finished, tmp_path_factory):
    """The tiny survey as delivered files: one good tile, and four with a bad band."""
    survey = Survey(tmp_path_factory.mktemp("bad"))
    raw = survey.folder / "raw"
    raw.mkdir()
    lists = []
    for tile in ("good", *BAD_TILES):
        for band in "gri":
            shutil.copy(finished.results / f"raw/tiny_0_{band}.fits", raw / f"{tile}_{band}.fits")
        if tile in BAD_TILES:
            BAD_TILES[tile](raw / f"{tile}_g.fits")
        sources = Table.read(finished.results / "raw/tiny_0_sources.fits")
        sources["OBJECT_ID"] = [f"{tile}_{n}" for n in range(len(sources))]
        if tile == "good":
            sources["OBJECT_ID"][1] = sources["OBJECT_ID"][0]
            far = sources[:1].copy()
            far["OBJECT_ID"], far["RA"] = "far", far["RA"] + 90
            sources = vstack([sources, far])
        sources.write(raw / f"{tile}.fits")
        lists.append(len(sources))
    config = tiny_config()
    del config["simulation"], config["clustering"]
    config["tasks"] = {}
    config["input"]["sources"] = "raw/{tile}.fits"
    survey.write(config, ["good", *BAD_TILES])
    table = survey.folder / "tiles.tsv"
    table.write_text(table.read_text().replace("results/tiny/raw", "raw"))
    survey.rows = sum(lists)
    survey.log = survey.run()
    return survey


def test_every_row_is_there_and_every_defect_flagged(bad):
    rows = rows_of(bad.results / "catalog/collection.properties")
    assert len(rows) == bad.rows
    for tile, flag in FLAGS.items():
        here = rows[rows["tile"] == tile]
        assert ((here["flags"] & flag) != 0).all(), tile
        assert here["reject_reason"].notna().all()
    good = rows[rows["tile"] == "good"]
    assert (good["reject_reason"].isna()).sum() >= 35
    assert (good["flags"] & 8 != 0).sum() == 1
    assert good.set_index("object_id").loc["far", "flags"] & 32


def test_the_good_tile_is_as_in_a_run_without_the_bad_ones(bad, finished):
    def noise(survey, tile):
        table = pq.read_table(survey.results / f"quality/{tile}.parquet")
        return table["sky_noise_r"].to_numpy()[2:40]

    assert np.array_equal(noise(bad, "good"), noise(finished, "tiny_0"), equal_nan=True)


def test_bad_files_are_counted_in_the_last_lines_and_listed_with_reasons(bad):
    assert "4 files could not be used" in bad.log
    rejects = pq.read_table(bad.results / "catalog/rejects.parquet").to_pandas()
    reasons = dict(rejects[rejects["kind"] == "file"][["tile", "reason"]].to_numpy())
    assert "does not exist" in reasons["missing"]
    assert "is truncated" in reasons["truncated"]
    assert "no celestial coordinate system" in reasons["no_wcs"]
    assert "no good pixel" in reasons["all_nan"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["input"]["columns"].update(object_id="NAME"), "NAME"),
        (lambda c: c["cutouts"].update(sise=64), "did you mean"),
        (lambda c: c["input"].update(sources="raw/nothing.fits"), "nothing.fits"),
        (lambda c: c["input"].update(tiles="nowhere.tsv"), "nowhere.tsv"),
    ],
)
def test_a_config_that_cannot_work_stops_before_the_first_job(bad, tmp_path, change, words):
    config = yaml.safe_load((bad.folder / "config.yaml").read_text())
    config["survey"] = "other"
    change(config)
    (bad.folder / "wrong.yaml").write_text(yaml.safe_dump(config))
    done = bad.snakemake("--configfile", "wrong.yaml")
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert words in text
    assert "Traceback" not in text
    assert not (bad.folder / "results/other/objects").exists()


def test_without_a_config_the_message_says_how(bad):
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1"],
        cwd=bad.folder,
        env={**os.environ, "PYTHONPATH": str(bad.folder / "scripts")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "--configfile config/demo.yaml" in done.stdout + done.stderr
