"""What the config's `cutouts` and `quality` sections change in a tile's cutouts."""

import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord

from fits_files import add_star, tan_wcs, write_image
from luneta.config import Cutouts, validate
from luneta.cutouts.bands import windows_around
from luneta.cutouts.job import run
from luneta.cutouts.quality import QualityError
from luneta.cutouts.resample import noise_growth
from luneta.cutouts.shard import Shard
from luneta.files import read_json
from luneta.survey.flags import Flag
from luneta.survey.tiles import BandFiles, Tile

SHAPE, SCALE = (300, 320), 0.25
X, Y = np.array([60.2, 150.0, 240.7, 100.0]), np.array([70.0, 160.4, 220.0, 230.0])
FLUX = np.array([20_000.0, 20_000.0, 20_000.0, 20_000.0])
WCS = tan_wcs(SHAPE, scale=SCALE, rotation=0)
CUTOUTS = Cutouts().model_dump(mode="json")
INPUT = validate(
    {"survey": "a", "input": {"kind": "tiles", "tiles": "-", "sources": "-", "bands": ["r"]}}
).input.model_dump(mode="json")


def observed(sky=50.0, noise=2.0, gradient=0.0, seed=0):
    pixels = np.random.default_rng(seed).normal(sky, noise, SHAPE)
    pixels += gradient * np.arange(SHAPE[1])
    for x, y, flux in zip(X, Y, FLUX, strict=True):
        add_star(pixels, x, y, flux, sigma=2.0)
    return pixels.astype(np.float32)


class Cut:
    """A job's files, read back."""

    def __init__(
        self, folder, tiles, kept=None, bands=("r",), policies=None, given=None, **changes
    ):
        self.folder = folder
        count, names = len(X), [tile.name for tile in tiles]
        columns = {
            "object_id": [f"{name}{n}" for name in names for n in range(count)],
            "tile": np.repeat(names, count),
            "x": np.tile(X, len(names)),
            "y": np.tile(Y, len(names)),
            "flags": pa.array([0] * count * len(names), pa.int32()),
            "reject_reason": pa.nulls(count * len(names), pa.string()),
        }
        pq.write_table(pa.table(columns | (kept or {})), folder / "objects.parquet")
        settings = {
            **INPUT,
            "pixels": "flux",
            "bands": list(bands),
            "reference_band": "r",
            "quality": policies or {},
            "tiles": [tile.as_dict() for tile in tiles],
            "cutouts": {**CUTOUTS, "size": 32, **changes},
            **(given or {}),
        }
        out = {name: folder / name for name in ("cutouts", "quality", "files")}
        run(folder / "objects.parquet", None, out, settings)
        self.images = Shard(out["cutouts"]).read(0, len(Shard(out["cutouts"])))
        self.quality = pq.read_table(out["quality"]).to_pandas()


@pytest.fixture
def tile(tmp_path):
    return Tile("a", "a", {"r": BandFiles(write_image(tmp_path / "r.fits", observed(), WCS))})


def centroid(stamp, light):
    half = len(stamp) // 2
    y, x = np.indices(stamp.shape) - half
    near = np.where(np.hypot(x, y) < light, np.nan_to_num(stamp), 0).clip(0)
    return np.array([(near * x).sum(), (near * y).sum()]) / near.sum()


def test_the_same_pixels_as_astrocut(tmp_path, tile):
    astrocut = pytest.importorskip("astrocut")
    found = Cut(tmp_path, [tile], background="none", noise_units=False, subset_below=0)
    sky = WCS.pixel_to_world(X, Y)
    for row, position in enumerate(sky):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = (
                astrocut.FITSCutout([str(tmp_path / "r.fits")], position, 32, extension=1)
                .fits_cutouts[0][1]
                .data
            )
        np.testing.assert_array_equal(found.images[row, 0], theirs)


def test_a_point_source_at_a_known_place_of_the_sky(tmp_path):
    pixels = np.zeros(SHAPE, np.float32)
    pixels[160, 150], pixels[0, 0] = 1000, 1
    image = write_image(tmp_path / "p.fits", pixels, WCS, compressed=False)
    tile = Tile("a", "a", {"r": BandFiles(image)})
    found = Cut(tmp_path, [tile], background="none", noise_units=False)
    star = SkyCoord(*np.array(WCS.all_pix2world(150, 160, 0)), unit="deg")
    x, y = WCS.world_to_pixel(star)
    assert (x, y) == (pytest.approx(150), pytest.approx(160))
    assert np.argwhere(found.images[1, 0] == 1000).tolist() == [[16, 16]]
    assert found.quality["dy"][1] == pytest.approx(0.4, abs=1e-5)


@pytest.mark.parametrize("side", [4.0, 8.0, 16.0, 24.0])
def test_side_in_arcsec_keeps_flux_and_says_the_factor(tmp_path, tile, side):
    found = Cut(tmp_path, [tile], extent={"unit": "arcsec", "side": side, "radius": None,
                                          "least": 2, "most": 60}, noise_units=False)  # fmt: skip
    factor = side / SCALE / 32
    assert found.quality["resample_factor"].tolist() == pytest.approx([factor] * 4, rel=1e-4)
    radius = 10 / factor  # in new pixels, five sigma of the star
    y, x = np.indices((32, 32)) - 16
    light = found.images[:, 0, np.hypot(x, y) < radius].sum(axis=1)
    np.testing.assert_allclose(light, FLUX, rtol=0.05)
    for row in range(4):
        moved = centroid(found.images[row, 0], 6 / factor) * factor
        expected = found.quality.loc[row, ["dx", "dy"]].to_numpy(float)
        np.testing.assert_allclose(moved, expected, atol=0.35)
    assert found.quality["sky_noise_r"][0] == pytest.approx(2 * noise_growth(32, factor), rel=0.05)


def test_noise_units_hold_after_resampling(tmp_path, tile):
    found = Cut(tmp_path, [tile], extent={"unit": "arcsec", "side": 16.0, "radius": None,
                                          "least": 2, "most": 60})  # fmt: skip
    border = found.images[:, 0, :4]
    assert np.std(border) == pytest.approx(1, rel=0.15)


def test_side_in_radii_follows_each_object(tmp_path, tile):
    extent = {"unit": "radius", "side": 4.0, "radius": "r50", "least": 6.0, "most": 20.0}
    found = Cut(tmp_path, [tile], {"r50": [2.0, 0.1, 50.0, np.nan]}, extent=extent)
    arcsec = np.array([8.0, 6.0, 20.0, 6.0])
    np.testing.assert_allclose(found.quality["resample_factor"], arcsec / SCALE / 32, rtol=0.006)


def test_half_the_pixels_asked_for(tmp_path, tile):
    extent = {"unit": "pixels", "side": 64.0, "radius": None, "least": 2, "most": 60}
    found = Cut(tmp_path, [tile], extent=extent)
    assert found.quality["resample_factor"].tolist() == [2] * 4


def test_recentring_moves_the_cutout_and_says_how_far(tmp_path, tile, monkeypatch):
    monkeypatch.setattr(f"{__name__}.X", X + 2)
    found = Cut(tmp_path, [tile], recentre="centroid", recentre_radius=1.5)
    np.testing.assert_allclose(found.quality["shift_x"], -2, atol=0.3)
    np.testing.assert_allclose(found.quality["shift_y"], 0, atol=0.3)
    for image, row in zip(found.images[:, 0], found.quality.itertuples(), strict=True):
        np.testing.assert_allclose(centroid(image, 6), [row.dx, row.dy], atol=0.35)
        assert abs(row.dx) <= 0.5


def test_without_recentring_nothing_is_shifted(tmp_path, tile):
    assert "shift_x" not in Cut(tmp_path, [tile]).quality


def test_local_sky_of_the_annulus(tmp_path):
    image = write_image(tmp_path / "g.fits", observed(gradient=0.1), WCS)
    tile = Tile("a", "a", {"r": BandFiles(image)})
    found = Cut(tmp_path, [tile], background="annulus", noise_units=False)
    y, x = np.indices((32, 32)) - 16
    ring = (np.hypot(x, y) > 12) & (np.hypot(x, y) < 15)
    assert np.abs(np.median(found.images[:, 0, ring], axis=1)).max() < 0.6


def test_without_background_the_sky_stays(tmp_path, tile):
    found = Cut(tmp_path, [tile], background="none", noise_units=False)
    assert np.median(found.images[:, :, :4]) == pytest.approx(50, abs=0.5)


def test_noise_of_the_weight_image(tmp_path):
    weight = np.full(SHAPE, 1 / 4.0, np.float32)
    weight[:, 200:] = 1 / 25.0
    name = write_image(tmp_path / "r.fits", observed(), WCS, False, WEIGHT=weight)
    files = BandFiles(name, weight=name.replace("IMAGE", "WEIGHT"))
    found = Cut(tmp_path, [Tile("a", "a", {"r": files})], noise="weight")
    np.testing.assert_allclose(found.quality["sky_noise_r"], [2, 2, 5, 2], rtol=1e-3)


def test_zero_points_make_nanojansky(tmp_path, tile):
    found = Cut(tmp_path, [tile], noise_units=False, given={"zero_points": {"r": 22.5}})
    y, x = np.indices((32, 32)) - 16
    counts = found.images[0, 0, np.hypot(x, y) < 10].sum() / 10 ** (0.4 * (31.4 - 22.5))
    assert counts == pytest.approx(20_000, rel=0.02)
    assert found.quality["sky_noise_r"][0] == pytest.approx(2 * 3630.8, rel=0.05)


def test_dust_is_corrected_in_flux(tmp_path, tile):
    dust = {"ebv": "ebv", "coefficients": {"r": 2.165}}
    kept = {"ebv": [0.0, 0.1, 1.0, 0.0]}
    plain = Cut(tmp_path, [tile], noise_units=False)
    found = Cut(tmp_path, [tile], kept, noise_units=False, extinction=dust)
    ratio = (found.images / plain.images).reshape(4, -1)
    expected = [1, 10 ** (0.4 * 0.2165), 10 ** (0.4 * 2.165), 1]
    np.testing.assert_allclose(np.median(ratio, axis=1), expected, rtol=1e-5)


def test_objects_without_reddening_are_counted_and_not_corrected(tmp_path, tile, caplog):
    dust = {"ebv": "ebv", "coefficients": {"r": 2.165}}
    kept = {"ebv": [0.0, np.nan, 1.0, None]}
    plain = Cut(tmp_path, [tile], noise_units=False)
    assert "not corrected" not in caplog.text
    found = Cut(tmp_path, [tile], kept, noise_units=False, extinction=dust)
    ratio = np.median((found.images / plain.images).reshape(4, -1), axis=1)
    np.testing.assert_allclose(ratio, [1, 1, 10 ** (0.4 * 2.165), 1], rtol=1e-5)
    assert "2 objects have no ebv: not corrected for dust" in caplog.text


def test_area_ratio_of_barchi(tmp_path, tile):
    names = {"radius": "petrosian_radius", "axis_ratio": "ab", "seeing": None}
    kept = {"petrosian_radius": [3.0, 3.0, np.nan, 6.0], "ab": [1.0, 0.5, 1.0, 0.5]}
    found = Cut(tmp_path, [tile], kept, area_ratio=names, given={"seeing": {"r": 1.2}})
    # pi 3^2 / (pi 0.6^2) = 25
    expected = [25, 12.5, np.nan, 50]
    np.testing.assert_allclose(found.quality["galaxy_area_ratio"], expected, rtol=1e-6)


def test_reading_windows_gives_what_reading_whole_gives(tmp_path, tile):
    plain = {"background": "none", "noise_units": False}
    whole = Cut(tmp_path, [tile], subset_below=0, **plain)
    windows = Cut(tmp_path, [tile], subset_below=100, **plain)
    np.testing.assert_array_equal(windows.images, whole.images)
    whole, windows = (Cut(tmp_path, [tile], subset_below=n) for n in (0, 100))
    assert np.abs(windows.images - whole.images)[:, 0, :8].mean() < 0.25  # of the noise
    np.testing.assert_allclose(
        windows.quality["sky_noise_r"], whole.quality["sky_noise_r"], rtol=0.1
    )


def test_windows_are_clipped_to_the_image():
    found = windows_around(np.array([5.0, 318.0]), np.array([150.0, 2.0]), SHAPE, 48)
    assert found == [(slice(126, 174), slice(0, 29)), (slice(0, 26), slice(294, 320))]


def test_edge_distance_is_to_the_nearest_edge(tmp_path, tile):
    found = Cut(tmp_path, [tile])
    np.testing.assert_allclose(found.quality["edge_distance"], [60.7, 139.1, 78.8, 69.5], rtol=1e-5)


def test_sentinels_are_bad_pixels(tmp_path):
    pixels = observed()
    pixels[160:164, 150] = 100.0
    tile = Tile("a", "a", {"r": BandFiles(write_image(tmp_path / "r.fits", pixels, WCS, False))})
    found = Cut(tmp_path, [tile], given={"mask": {**INPUT["mask"], "sentinels": [100.0]}})
    assert np.argwhere(np.isnan(found.images[1, 0])).tolist() == [[16 + n, 16] for n in range(4)]
    assert found.quality["masked_fraction"][1] == pytest.approx(4 / 1024)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_stored_type_and_compression(tmp_path, tile, dtype, compression):
    found = Cut(tmp_path, [tile], dtype=dtype, compression=compression)
    reference = Cut(tmp_path, [tile])
    tolerance = 0 if dtype == "float32" else 1e-3
    np.testing.assert_allclose(found.images, reference.images, rtol=tolerance, atol=1e-3)


def test_two_tiles_and_a_bad_band_in_one(tmp_path, tile):
    other = Tile("b", "a", {"r": BandFiles(write_image(tmp_path / "b.fits", observed(seed=1), WCS)),
                            "g": BandFiles(str(tmp_path / "none.fits"))})  # fmt: skip
    good = Tile("a", "a", {**tile.bands, "g": tile.bands["r"]})
    found = Cut(tmp_path, [good, other], bands=("g", "r"))
    assert found.quality["usable"].tolist() == [True] * 4 + [False] * 4
    assert found.images.shape == (4, 2, 32, 32)
    np.testing.assert_array_equal(found.images[:, 0], found.images[:, 1])
    alone = Cut(tmp_path, [good], bands=("g", "r"))
    np.testing.assert_array_equal(found.images, alone.images)


def test_many_objects_stream_through_memory_alike(tmp_path, tile, monkeypatch):
    random = np.random.default_rng(0)
    places = [np.concatenate([v, random.uniform(20, 280, 1500)]) for v in (X, Y)]
    monkeypatch.setattr(f"{__name__}.X", places[0])
    monkeypatch.setattr(f"{__name__}.Y", places[1])
    found = Cut(tmp_path, [tile], subset_below=0)  # 1504 cutouts outweigh the image
    assert len(found.images) == 1504
    monkeypatch.undo()
    whole = Cut(tmp_path, [tile], subset_below=0)
    np.testing.assert_array_equal(found.images[:4], whole.images)


class TestPolicies:
    @pytest.fixture
    def masked(self, tmp_path):
        mask = np.zeros(SHAPE, np.uint8)
        mask[160, 150] = 1
        name = write_image(tmp_path / "r.fits", observed(), WCS, MASK=mask)
        return Tile("a", "a", {"r": BandFiles(name, mask=name.replace("IMAGE", "MASK"))})

    def test_flag_keeps_the_object(self, tmp_path, masked):
        found = Cut(tmp_path, [masked], policies={"masked": "flag"})
        assert found.quality["usable"].tolist() == [True] * 4
        assert found.quality["flags"][1] == Flag.MASKED
        assert not found.quality["skipped"].any()

    def test_skip_leaves_it_out_and_says_why(self, tmp_path, masked):
        found = Cut(tmp_path, [masked], policies={"masked": "skip"})
        assert found.quality["usable"].tolist() == [True, False, True, True]
        assert found.quality["skipped"].tolist() == [False, True, False, False]
        assert (
            found.quality["reject_reason"][1] == "the cutout holds bad pixels (skipped by config)"
        )
        assert len(found.images) == 3

    def test_fail_stops_and_names_the_object(self, tmp_path, masked):
        with pytest.raises(QualityError, match=r"1 objects.*first a1.*quality.masked: fail"):
            Cut(tmp_path, [masked], policies={"masked": "fail"})
        assert not (tmp_path / "quality").exists()

    def test_fail_names_the_file(self, tmp_path):
        tile = Tile("a", "a", {"r": BandFiles(str(tmp_path / "gone.fits"))})
        with pytest.raises(QualityError, match=r"gone.fits.*quality.missing_file: fail"):
            Cut(tmp_path, [tile], policies={"missing_file": "fail"})


class TestDefects:
    def test_a_constant_image(self, tmp_path):
        image = write_image(tmp_path / "r.fits", np.full(SHAPE, 7.0, np.float32), WCS)
        found = Cut(tmp_path, [Tile("a", "a", {"r": BandFiles(image)})])
        assert (found.quality["flags"] == Flag.NO_DATA).all()
        assert "all its good pixels have the value 7" in found.quality["reject_reason"][0]

    def test_a_mask_of_another_shape(self, tmp_path):
        name = write_image(tmp_path / "r.fits", observed(), WCS)
        mask = write_image(tmp_path / "m.fits", np.zeros((10, 12), np.uint8), None)
        found = Cut(tmp_path, [Tile("a", "a", {"r": BandFiles(name, mask=mask)})])
        assert (found.quality["flags"] == Flag.SHAPE_MISMATCH).all()
        assert "(10, 12)" in found.quality["reject_reason"][0]

    def test_negative_weights_are_bad_pixels(self, tmp_path):
        weight = np.ones(SHAPE, np.float32)
        weight[160, 150] = -1
        name = write_image(tmp_path / "r.fits", observed(), WCS, WEIGHT=weight)
        files = BandFiles(name, weight=name.replace("IMAGE", "WEIGHT"))
        found = Cut(tmp_path, [Tile("a", "a", {"r": files})])
        assert np.argwhere(np.isnan(found.images[1, 0])).tolist() == [[16, 16]]

    def test_values_beyond_all_measure_are_bad_pixels(self, tmp_path):
        pixels = observed()
        pixels[160, 150], pixels[70, 60] = 3e38, -np.inf
        image = write_image(tmp_path / "r.fits", pixels, WCS, compressed=False)
        found = Cut(tmp_path, [Tile("a", "a", {"r": BandFiles(image)})])
        assert np.isnan(found.images).sum(axis=(1, 2, 3)).tolist() == [1, 1, 0, 0]
        assert np.nanstd(found.images[3, 0, :6]) == pytest.approx(1, rel=0.2)

    def test_a_coordinate_system_that_is_off(self, tmp_path, monkeypatch):
        random = np.random.default_rng(5)
        places = random.uniform(20, 280, (2, 60))
        monkeypatch.setattr(f"{__name__}.X", places[0])
        monkeypatch.setattr(f"{__name__}.Y", places[1])
        monkeypatch.setattr(f"{__name__}.FLUX", np.full(60, 5000.0))
        image = write_image(tmp_path / "r.fits", observed(), WCS)
        tile = Tile("a", "a", {"r": BandFiles(image)})
        checked = {"astrometry": {"max_offset": 0.5, "sources": 100}}
        good = Cut(tmp_path, [tile], given=checked)
        assert not (good.quality["flags"] & Flag.WCS_OFFSET.value).any()
        monkeypatch.setattr(f"{__name__}.X", places[0] + 12)  # 3 arcsec
        off = Cut(tmp_path, [tile], given=checked)
        assert ((off.quality["flags"] & Flag.WCS_OFFSET.value) > 0).all()
        assert off.quality["usable"].any()
        assert "3.0" in (tmp_path / "files").read_text()


class TestNeighbours:
    """What becomes of an object must not depend on how much was read, or on what lies beside."""

    def test_far_recentring_in_windows(self, tmp_path, tile, monkeypatch):
        monkeypatch.setattr(f"{__name__}.X", X + 25)
        found = Cut(tmp_path, [tile], recentre="peak", recentre_radius=8.0, subset_below=100)
        np.testing.assert_allclose(found.quality["shift_x"], -25, atol=0.5)
        assert found.quality["masked_fraction"].tolist() == [0] * 4

    @pytest.mark.parametrize("subset_below", [0, 100])
    def test_recentring_without_sky_subtraction(self, tmp_path, tile, monkeypatch, subset_below):
        monkeypatch.setattr(f"{__name__}.X", X + 2)
        found = Cut(tmp_path, [tile], background="none", subset_below=subset_below,
                    recentre="centroid", recentre_radius=1.5)  # fmt: skip
        np.testing.assert_allclose(found.quality["shift_x"], -2, atol=0.3)

    def test_an_empty_place_of_a_good_image(self, tmp_path, monkeypatch):
        pixels = observed()
        pixels[:150, :150] = np.nan
        image = write_image(tmp_path / "r.fits", pixels, WCS)
        monkeypatch.setattr(f"{__name__}.X", X[:1])
        monkeypatch.setattr(f"{__name__}.Y", Y[:1])
        found = Cut(tmp_path, [Tile("a", "a", {"r": BandFiles(image)})], subset_below=100)
        assert found.quality["flags"].tolist() == [Flag.MASKED | Flag.TOO_MASKED]
        assert read_json(tmp_path / "files") == []

    def test_saturation_beside_an_object_shown_at_another_scale(self, tmp_path):
        mask = np.zeros(SHAPE, np.uint8)
        mask[160, 156] = 2
        name = write_image(tmp_path / "r.fits", observed(), WCS, MASK=mask)
        tile = Tile("a", "a", {"r": BandFiles(name, mask=name.replace("IMAGE", "MASK"))})
        extent = {"unit": "radius", "side": 4.0, "radius": "r50", "least": 2.0, "most": 60.0}
        given = {"mask": {**INPUT["mask"], "planes": {"bad": 0, "saturated": 1}}}
        found = Cut(tmp_path, [tile], {"r50": [2.0, 2.0, 2.0, 14.0]}, extent=extent, given=given)
        assert found.quality["flags"][1] == Flag.MASKED

    def test_relative_weights_tell_no_noise(self, tmp_path):
        weight = np.full(SHAPE, 7.0, np.float32)
        name = write_image(tmp_path / "r.fits", observed(), WCS, False, WEIGHT=weight)
        files = BandFiles(name, weight=name.replace("IMAGE", "WEIGHT"))
        tile = Tile("a", "a", {"r": files})
        found = Cut(tmp_path, [tile], noise="weight", given={"weight": "relative"})
        np.testing.assert_allclose(found.quality["sky_noise_r"], 2, rtol=0.1)


class TestWithoutCoordinates:
    """Positions in pixels, on images that know of no sky."""

    @pytest.fixture
    def bare(self, tmp_path):
        name = write_image(tmp_path / "bare.fits", observed(), None)
        return Tile("a", "a", {"r": BandFiles(name), "g": BandFiles(name)})

    def test_they_are_cut_all_the_same(self, tmp_path, bare, tile):
        found = Cut(tmp_path, [bare], bands=("g", "r"))
        assert found.quality["usable"].all()
        np.testing.assert_array_equal(found.images[:, 1:], Cut(tmp_path, [tile]).images)

    def test_an_extent_in_arcsec_asks_for_a_scale(self, tmp_path, bare):
        extent = {"unit": "arcsec", "side": 16.0, "radius": None, "least": 2, "most": 60}
        found = Cut(tmp_path, [bare], extent=extent)
        assert "set input.pixel_scale" in found.quality["reject_reason"][0]
        found = Cut(tmp_path, [bare], extent=extent, given={"pixel_scale": 0.25})
        assert found.quality["resample_factor"].tolist() == [2] * 4

    def test_bands_must_be_alike(self, tmp_path, bare):
        small = write_image(tmp_path / "small.fits", observed()[:90, :80], None)
        tile = Tile("a", "a", {**bare.bands, "g": BandFiles(small)})
        found = Cut(tmp_path, [tile], bands=("g", "r"))
        assert (found.quality["flags"] & Flag.SHAPE_MISMATCH.value).all()
