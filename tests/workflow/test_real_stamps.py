"""Real sets of stamps, through planning, ingestion and cutouts."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits

from luneta.config import load
from luneta.cutouts import job
from luneta.cutouts.shard import Shard
from luneta.plan import make_plan
from luneta.survey import ingest
from luneta.survey.flags import Flag

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY.parent / "shared" / "data"
CHALLENGE, LENSES = DATA / "lens_challenge", DATA / "sled_ps1"

pytestmark = pytest.mark.skipif(
    not (CHALLENGE.exists() and LENSES.exists()),
    reason="the real stamps, ../shared/data/lens_challenge and sled_ps1, are not here",
)


@pytest.fixture
def cut(tmp_path, monkeypatch):
    """Cut all stamps of a committed config; gives the shard and the quality table."""
    monkeypatch.chdir(tmp_path)

    def run(name, root):
        config = load(REPOSITORY / f"config/{name}.yaml").model_dump(mode="json")
        config["input"]["table"] = str(REPOSITORY / f"config/{name}.tsv")
        config["input"]["root"] = str(root)
        plan = make_plan(config)
        assert plan.shards == ["stamps_00000"]
        outputs = {key: Path(f"{name}_{key}") for key in ("cutouts", "quality", "files")}
        objects = Path(f"{name}_objects")
        ingest.run(plan.sources("stamps_00000"), objects, plan.ingest("stamps_00000"))
        stamps = plan.stamps("stamps_00000")[0]
        job.run(objects, stamps, outputs, plan.cutouts("stamps_00000"))
        return Shard(outputs["cutouts"]), pq.read_table(outputs["quality"]).to_pandas()

    return run


def distances(stamps):
    """Pixels from the centre to the centroid of the light near it; NaN where there is none."""
    y, x = np.indices(stamps.shape[1:]) - stamps.shape[1] // 2
    light = np.where((np.hypot(x, y) < 8) & (stamps > 4), stamps, 0)
    with np.errstate(invalid="ignore"):
        centroid = np.array([(light * x).sum((1, 2)), (light * y).sum((1, 2))]) / light.sum((1, 2))
    return np.hypot(*centroid)


def test_the_ground_based_lens_challenge(cut):
    shard, quality = cut("lens_challenge", CHALLENGE / "ground_based")
    assert shard.bands == ["u", "g", "r", "i"]
    assert (len(quality), len(shard)) == (12, 12)
    masked = quality[quality["flags"] == Flag.MASKED.value].set_index("object_id")
    bad = (masked["masked_fraction"] * 4 * 101 * 101).round().to_dict()
    assert bad == {"100003": 49, "100008": 212, "100023": 15}
    assert quality["usable"].all()
    assert quality["sky_noise_r"].between(1e-12, 1e-11).all()
    images = shard.take(np.arange(12))
    assert np.isnan(images).sum() == 49 + 212 + 15
    assert np.nanmax(images) < 2000  # 100 / 1e-12 would be 1e14
    border = np.concatenate([images[..., :10, :].ravel(), images[..., -10:, :].ravel()])
    spread = 1.4826 * np.nanmedian(np.abs(border))
    assert spread == pytest.approx(1, abs=0.05)
    assert np.median(distances(images[:, 3])) < 2


def test_the_space_based_lens_challenge(cut):
    shard, quality = cut("lens_challenge_space", CHALLENGE / "space_based")
    assert (len(quality), len(shard), shard.shape) == (16, 16, (1, 101, 101))
    assert (quality["flags"] == 0).all()
    assert np.median(distances(shard.take(np.arange(16))[:, 0])) < 1


def test_real_lenses_of_pan_starrs(cut):
    shard, quality = cut("sled_ps1", LENSES / "images")
    assert (len(quality), len(shard), shard.shape) == (45, 45, (5, 64, 64))
    assert quality["usable"].all()
    flagged = quality[quality["flags"] != 0]
    assert flagged[["object_id", "flags"]].values.tolist() == [["J1150_1016", Flag.MASKED]]
    images = shard.take(np.arange(45))
    raw = fits.getdata(LENSES / "images" / "J1150_1016_g.fits")[28:92, 28:92]
    assert np.array_equal(np.isnan(images[14, 0]), np.isnan(raw))
    far = distances(images[:, 2])
    assert np.isfinite(far).sum() >= 40
    assert np.nanmedian(far) < 2
    assert np.nanpercentile(far, 90) < 4


def test_the_pixels_are_those_of_the_file_in_units_of_noise(cut):
    shard, quality = cut("sled_ps1", LENSES / "images")
    row = quality["object_id"].tolist().index("2M1310-1714")
    raw = fits.getdata(LENSES / "images" / "2M1310-1714_i.fits").astype(float)[28:92, 28:92]
    exposure = fits.getval(LENSES / "images" / "2M1310-1714_i.fits", "EXPTIME")
    raw *= 10 ** (0.4 * (31.4 - 25)) / exposure  # nJy, as 25 mag are one count per second
    stamp = shard.take([row])[0, 2] * quality["sky_noise_i"][row]
    assert np.ptp(raw - stamp) < 1e-3 * np.ptp(raw)


def test_the_lenses_lie_where_their_headers_say(cut):
    cut("sled_ps1", LENSES / "images")
    objects = pq.read_table("sled_ps1_objects").to_pandas()
    known = SkyCoord(*pd.read_csv(LENSES / "lenses.csv")[["ra", "dec"]].to_numpy().T, unit="deg")
    stamps = SkyCoord(objects["ra"], objects["dec"], unit="deg")
    _, apart, _ = known.match_to_catalog_sky(stamps)
    assert len(objects) == 45
    assert apart.arcsec.max() < 0.5  # two pixels


def test_the_challenge_has_no_positions(cut):
    cut("lens_challenge", CHALLENGE / "ground_based")
    assert np.isnan(pq.read_table("lens_challenge_objects").to_pandas()["ra"]).all()
