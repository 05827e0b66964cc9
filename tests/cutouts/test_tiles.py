import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from fits_files import add_star, tan_wcs, write_image
from luneta.config import Cutouts, validate
from luneta.cutouts.bands import BandImage, align
from luneta.cutouts.job import run
from luneta.cutouts.shard import Shard
from luneta.files import read_json
from luneta.survey.flags import Flag
from luneta.survey.tiles import BandFiles, Tile
from luneta.survey.wcs import to_pixels

MASK = {"planes": {"bad": 0, "saturated": 1}}
CUTOUTS = Cutouts().model_dump(mode="json")
INPUT = validate(
    {"survey": "a", "input": {"kind": "tiles", "tiles": "-", "sources": "-", "bands": ["r"],
                              "mask": MASK}}
).input.model_dump(mode="json")  # fmt: skip
SHAPE = (200, 220)
STARS = np.array([[50.0, 60.3], [120.4, 80.0], [170.0, 150.6], [3.0, 100.0]])  # x, y


def observe(wcs, shape=SHAPE, sky=50.0, noise=4.0, seed=0, flux=5000.0):
    pixels = np.random.default_rng(seed).normal(sky, noise, shape)
    world = tan_wcs(SHAPE).pixel_to_world(*STARS.T)
    for x, y in zip(*to_pixels(wcs, world.ra.deg, world.dec.deg), strict=True):
        add_star(pixels, x, y, flux)
    return pixels.astype(np.float32)


def tile_of(tmp_path, **files):
    return Tile("a", "a", {band: BandFiles(**names) for band, names in files.items()})


def objects_table(path):
    count = len(STARS)
    table = pa.table(
        {
            "object_id": [f"s{n}" for n in range(count)],
            "tile": ["a"] * count,
            "x": STARS[:, 0],
            "y": STARS[:, 1],
            "flags": pa.array([0] * count, pa.int32()),
            "reject_reason": pa.array([None] * count, pa.string()),
        }
    )
    pq.write_table(table, path)
    return path


def cut(tmp_path, tile, bands, size=32, reference="r", policies=None, **changes):
    outputs = {
        "cutouts": tmp_path / "a.arrow",
        "quality": tmp_path / "a.parquet",
        "files": tmp_path / "a.json",
    }
    settings = {
        **INPUT,
        "bands": bands,
        "pixels": "flux",
        "cutouts": {**CUTOUTS, "size": size, **changes},
        "quality": policies or {},
        "tiles": [tile.as_dict()],
        "reference_band": reference,
    }
    run(objects_table(tmp_path / "o.parquet"), None, outputs, settings)
    quality = pq.read_table(outputs["quality"]).to_pandas()
    return Shard(outputs["cutouts"]), quality, read_json(outputs["files"])


def centroid(stamp, radius=6):
    half = stamp.shape[0] // 2
    y, x = np.indices(stamp.shape) - half
    weight = np.where(np.hypot(x, y) < radius, np.nan_to_num(stamp), 0).clip(0)
    return (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()


@pytest.fixture
def image(tmp_path):
    return write_image(tmp_path / "r.fits", observe(tan_wcs()), tan_wcs())


def test_stars_lie_at_the_centre_in_units_of_noise(tmp_path, image):
    shard, quality, files = cut(tmp_path, tile_of(tmp_path, r={"image": image}), ["r"])
    assert (len(shard), shard.bands, shard.pixels, shard.shape) == (4, ["r"], "flux", (1, 32, 32))
    stamps = shard.take(np.arange(3))[:, 0]
    for stamp, dx, dy in zip(stamps, quality["dx"], quality["dy"], strict=False):
        assert centroid(stamp) == pytest.approx((dx, dy), abs=0.1)
    np.testing.assert_allclose(quality["dx"][:3], [0, 0.4, 0], atol=1e-6)
    border = stamps[:, [0, 1, 2, -1], :]
    assert np.std(border) == pytest.approx(1, abs=0.15)
    assert abs(np.median(border)) < 0.2
    assert quality["sky_noise_r"][0] == pytest.approx(4, rel=0.1)
    assert files == []


def test_the_edge_is_padded_and_flagged(tmp_path, image):
    shard, quality, _ = cut(tmp_path, tile_of(tmp_path, r={"image": image}), ["r"])
    assert quality["flags"].tolist() == [0, 0, 0, Flag.EDGE | Flag.MASKED]
    assert np.isnan(shard.take([3])[0, 0]).mean() == pytest.approx(13 / 32)
    assert quality["masked_fraction"][3] == pytest.approx(13 / 32)


def test_too_many_bad_pixels_reject(tmp_path, image):
    tile = tile_of(tmp_path, r={"image": image})
    shard, quality, _ = cut(tmp_path, tile, ["r"], max_masked_fraction=0.3)
    assert len(shard) == 3
    assert quality["flags"][3] & Flag.TOO_MASKED
    assert quality["reject_reason"][3] is not None


def test_mask_and_weight_make_bad_pixels_and_flags(tmp_path):
    mask, weight = np.zeros(SHAPE, np.int16), np.ones(SHAPE, np.float32)
    mask[60, 50], mask[:, 125], weight[150, 165] = 2, 1, 0
    name = write_image(tmp_path / "r.fits", observe(tan_wcs()), tan_wcs(), MASK=mask, WEIGHT=weight)
    files = {part: name.replace("IMAGE", part.upper()) for part in ("mask", "weight")}
    shard, quality, _ = cut(tmp_path, tile_of(tmp_path, r={"image": name, **files}), ["r"])
    bad = [np.argwhere(np.isnan(stamp[0])) for stamp in shard.take([0, 1, 2])]
    assert bad[0].tolist() == [[16, 16]]
    assert set(bad[1][:, 1]) == {16 + 5}
    assert bad[2].tolist() == [[15, 11]]
    assert quality["flags"].tolist()[:3] == [Flag.MASKED | Flag.SATURATED, Flag.MASKED, Flag.MASKED]


def test_a_band_on_another_grid_is_brought_onto_the_reference(tmp_path, image):
    other = tan_wcs((160, 170), rotation=190.0, scale=0.3)
    name = write_image(tmp_path / "z.fits", observe(other, (160, 170), noise=2.0), other)
    tile = tile_of(tmp_path, r={"image": image}, z={"image": name})
    shard, quality, _ = cut(tmp_path, tile, ["r", "z"])
    for row in range(3):
        expected = (quality["dx"][row], quality["dy"][row])
        assert centroid(shard.take([row])[0, 1]) == pytest.approx(expected, abs=0.3)
    flux = [
        np.nansum(shard.take([1])[0, b]) * quality[f"sky_noise_{n}"][1] for b, n in enumerate("rz")
    ]
    assert flux[1] == pytest.approx(flux[0], rel=0.1)


@pytest.mark.parametrize(
    ("make", "flag", "words"),
    [
        (lambda path: path.name, Flag.MISSING_FILE, "does not exist"),
        (lambda path: write_image(path, np.full(SHAPE, np.nan, np.float32), tan_wcs()),
         Flag.NO_DATA, "no good pixel"),
        (lambda path: write_image(path, observe(tan_wcs()), None), Flag.NO_WCS, "no celestial"),
    ],
)  # fmt: skip
def test_a_bad_band_rejects_its_objects_and_is_reported(tmp_path, image, make, flag, words):
    make(tmp_path / "g.fits")
    tile = tile_of(tmp_path, g={"image": f"{tmp_path}/g.fits"}, r={"image": image})
    shard, quality, files = cut(tmp_path, tile, ["g", "r"])
    assert len(shard) == 0
    assert len(quality) == 4
    assert ((quality["flags"] & flag.value) != 0).all()
    assert [(f["tile"], f["band"]) for f in files] == [("a", "g")]
    assert words in files[0]["reason"]
    assert quality["reject_reason"].str.contains(words).all()


def test_a_truncated_band(tmp_path, image):
    path = tmp_path / "g.fits"
    write_image(path, observe(tan_wcs()), tan_wcs())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    tile = tile_of(tmp_path, g={"image": f"{path}[IMAGE]"}, r={"image": image})
    _, quality, files = cut(tmp_path, tile, ["g", "r"])
    assert ((quality["flags"] & Flag.UNREADABLE_FILE.value) != 0).all()
    assert len(files) == 1


def test_the_same_input_gives_the_same_bytes(tmp_path, image):
    tile = tile_of(tmp_path, r={"image": image})
    cut(tmp_path, tile, ["r"])
    first = (tmp_path / "a.arrow").read_bytes()
    cut(tmp_path, tile, ["r"])
    assert (tmp_path / "a.arrow").read_bytes() == first


def test_big_endian_input_is_not_byte_swapped(tmp_path):
    pixels = observe(tan_wcs())
    fits.PrimaryHDU(pixels, tan_wcs().to_header()).writeto(tmp_path / "r.fits")
    shard, quality, _ = cut(tmp_path, tile_of(tmp_path, r={"image": f"{tmp_path}/r.fits"}), ["r"])
    assert np.nanmax(shard.take([0])) > 50


@pytest.mark.parametrize("scale", [0.125, 0.3, 0.8])
def test_noise_of_the_weight_image_on_another_grid(scale):
    shape, target = (240, 240), (80, 80)
    pixels = np.random.default_rng(0).normal(0, 3, shape).astype(np.float32)
    image = BandImage(pixels, noise=np.full(shape, 3, np.float32))
    grid = tan_wcs(target, scale=0.25, rotation=0)
    found = align(image, tan_wcs(shape, scale=scale, rotation=20), (grid, target), "a")
    assert np.nanmedian(found.noise) == pytest.approx(np.nanstd(found.pixels), rel=0.1)
