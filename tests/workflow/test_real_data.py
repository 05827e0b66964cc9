"""The real DECam patch, through ingestion and cutouts."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from luneta.config import load
from luneta.cutouts import job
from luneta.cutouts.bands import read_band
from luneta.cutouts.shard import Shard
from luneta.plan import make_plan
from luneta.survey import ingest
from luneta.survey.images import read_pixels

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY.parent / "shared" / "data" / "decam_tile"

pytestmark = pytest.mark.skipif(
    not DATA.exists(), reason="the real DECam patch, ../shared/data/decam_tile, is not here"
)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load(REPOSITORY / "config/decam_tile.yaml").model_dump(mode="json")
    config["input"]["tiles"] = str(REPOSITORY / "config/decam_tile.tsv")
    config["input"]["root"] = str(DATA)
    config["input"]["sources"] = str(DATA / "gaia/chunk-05699.fits")
    return make_plan(config)


def cut(plan, shard):
    outputs = {name: Path(f"{shard}_{name}") for name in ("cutouts", "quality", "files")}
    ingest.run(plan.sources(shard), Path(f"{shard}_objects"), plan.ingest(shard))
    job.run(Path(f"{shard}_objects"), None, outputs, plan.cutouts(shard))
    return Shard(outputs["cutouts"]), pq.read_table(outputs["quality"]).to_pandas()


def test_every_gaia_star_keeps_its_row(plan):
    rows = {shard: len(cut(plan, shard)[1]) for shard in plan.shards}
    assert rows == {"patch": 1, "unplaced": 216}


def test_stars_lie_where_gaia_says_in_all_bands(plan):
    shard, quality = cut(plan, "patch")
    y, x = np.indices(shard.shape[1:]) - shard.shape[1] // 2
    offsets = []
    for row, stamp in enumerate(shard.take(np.arange(len(shard)))):
        for band in stamp:
            light = np.where((np.hypot(x, y) < 6) & (band > 3), band, 0)
            centre = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
            offsets.append(np.hypot(*centre))
            assert np.hypot(*(centre - quality.loc[row, ["dx", "dy"]].to_numpy(float))) < 0.5
    assert len(offsets) == 3
    assert max(offsets) < 1
    assert np.median(offsets) < 0.5


def test_data_quality_codes_become_bad_pixels(plan):
    files = plan.tiles["patch"].bands["g"]
    bad = np.isnan(read_band(files, plan.cutouts("patch")).pixels)
    codes, weight = read_pixels(files.mask), read_pixels(files.weight)
    assert (codes == 5).sum() == 65
    assert np.array_equal(bad, (codes != 0) | (weight <= 0))
