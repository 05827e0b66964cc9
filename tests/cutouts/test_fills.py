"""Bands that one value fills in place of data: masked, flagged and told, in stamps and tiles."""

import numpy as np
import pytest
from astropy.io import fits

from cutout_jobs import job
from fits_files import tan_wcs, write_image
from luneta.config import Stamps, Tiles
from luneta.cutouts.bands import read_band, windows_around
from luneta.survey.flags import Flag
from luneta.survey.tiles import BandFiles, Tile

SHAPE = (420, 400)
BANDS = ["g", "r"]


def noise(shape, seed=0, level=10.0):
    return np.random.default_rng(seed).normal(level, 2, shape).astype(np.float32)


def stamps(folder, cubes, mask=None, pixels="flux", **changes):
    names = []
    for name, cube in cubes.items():
        names.append(str(folder / f"{name}.fits"))
        fits.PrimaryHDU(cube).writeto(names[-1])
    settings = Stamps(kind="stamps", table="-", bands=BANDS, mask=mask or {}, pixels=pixels)
    slices = {f"image_{band}": names for band in BANDS}
    given = settings.model_dump(mode="json")
    return job(folder, {"object_id": list(cubes)}, slices, given, size=32, **changes)


def cube(columns=0, value=0.0, seed=0):
    pixels = noise((2, 32, 32), seed)
    pixels[1, :, :columns] = value
    return pixels


def test_a_stamp_filled_with_zeros_in_one_band(tmp_path):
    images, quality, files = stamps(tmp_path, {"a": cube(), "b": cube(24), "c": cube(2)})
    assert quality["flags"].tolist() == [0, Flag.CONSTANT | Flag.MASKED, 0]
    assert quality["masked_fraction"].tolist() == [0, 0.375, 0]  # 24 of 32 columns of one of two
    assert np.isnan(images["b"][1, :, :24]).all()
    assert np.array_equal(images["b"][1, :, 24:], cube(24)[1, :, 24:])
    assert np.array_equal(images["b"][0], cube(24)[0])
    assert np.array_equal(images["c"], cube(2))  # 6 %
    assert [(note["flag"], note["band"], note["path"]) for note in files] == [
        ("constant", "r", str(tmp_path / "b.fits"))
    ]
    assert "b.fits, band r: the exact value 0 fills 75% of its good pixels" in files[0]["reason"]


def test_a_stamp_of_little_else_says_why_it_is_not_used(tmp_path):
    pixels = cube(30)
    pixels[0, :, :20] = 0
    _, quality, files = stamps(tmp_path, {"a": pixels})
    assert quality["flags"].tolist() == [Flag.CONSTANT | Flag.MASKED | Flag.TOO_MASKED]
    assert (
        quality["reject_reason"]
        .iloc[0]
        .endswith(
            "(cutouts.max_masked_fraction): one value fills a large part of a band "
            "(input.mask.constant)"
        )
    )
    assert [note["band"] for note in files] == ["g", "r"]


def test_a_band_of_one_value_is_refused_as_before(tmp_path):
    _, quality, files = stamps(tmp_path, {"a": cube(32)})
    assert quality["flags"].tolist() == [Flag.NO_DATA]
    assert "band r, is constant: every pixel has the value 0" in quality["reject_reason"].iloc[0]
    assert [(note["flag"], note["band"]) for note in files] == [("no_data", "r")]


@pytest.mark.parametrize(("limit", "flag"), [(None, 0), (0.8, 0), (0.7, 131072 | 2)])
def test_the_limit_is_the_configs(tmp_path, limit, flag):
    _, quality, _ = stamps(tmp_path, {"a": cube(24)}, mask={"constant": limit})
    assert quality["flags"].tolist() == [flag]


def test_the_black_sky_of_a_picture_stays(tmp_path):
    pixels = np.zeros((2, 32, 32), np.uint8)
    pixels[:, 10:20, 10:20] = np.random.default_rng(0).integers(50, 250, (10, 10))
    images, quality, _ = stamps(tmp_path, {"a": pixels}, pixels="display")
    assert quality["flags"].tolist() == [0]
    assert np.array_equal(images["a"], pixels)


def test_only_cutouts_that_hold_such_pixels_are_flagged(tmp_path):
    pixels = noise((2, 100, 100))
    pixels[:, :, :15] = 0
    images, quality, files = stamps(tmp_path, {"a": pixels}, crop=0.32)
    assert quality["flags"].tolist() == [0]
    assert np.array_equal(images["a"], pixels[:, 34:66, 34:66])
    assert [note["flag"] for note in files] == ["constant", "constant"]


def test_sentinels_and_masked_pixels_are_not_counted(tmp_path):
    pixels = cube(24)
    pixels[1, :, :24] = 100
    _, quality, files = stamps(tmp_path, {"a": pixels}, mask={"sentinels": [100.0]})
    assert (quality["flags"].tolist(), files) == ([Flag.MASKED], [])


# Tiles


def tile_settings(**changes):
    given = {"kind": "tiles", "tiles": "-", "sources": "-", "bands": BANDS, **changes}
    settings = Tiles(**given).model_dump(mode="json")
    return {**settings, "pixels": "flux", "reference_band": "g"}


def tile(folder, columns, compressed=True, **changes):
    pixels = noise(SHAPE, 1)
    pixels[:, :columns] = 0
    wcs = tan_wcs(SHAPE)
    files = {
        band: BandFiles(write_image(folder / f"{band}.fits", image, wcs, compressed=compressed))
        for band, image in (("g", noise(SHAPE, 0)), ("r", pixels))
    }
    settings = tile_settings(**changes)
    return {**settings, "tiles": [Tile("t", "t", files).as_dict()]}


X, Y = np.array([20.0, 118.0, 119.0, 300.0]), np.array([50.0, 60.0, 200.0, 300.0])


def cut_tile(folder, settings, **cutouts):
    count = len(X)
    objects = {"object_id": [f"o{n}" for n in range(count)], "tile": ["t"] * count, "x": X, "y": Y}
    return job(folder, objects, None, settings, size=32, **cutouts)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("below", [0, 1000], ids=["whole", "in windows"])
def test_a_tile_filled_in_part(tmp_path, below, compressed):
    settings = tile(tmp_path, 103, compressed)
    images, quality, files = cut_tile(tmp_path, settings, subset_below=below)
    # Cutouts start 16 pixels before the object: at 4, 102, 103 and 284.
    both = Flag.CONSTANT | Flag.MASKED
    assert quality["flags"].tolist() == [both, both, 0, 0]
    assert quality["masked_fraction"].tolist() == pytest.approx([0.5, 1 / 64, 0, 0])
    assert np.isnan(images["o0"][1]).all()
    assert np.isfinite(images["o0"][0]).all()
    (note,) = files
    assert (note["tile"], note["band"], note["flag"]) == ("t", "r", "constant")
    assert "r.fits" in note["reason"]
    assert "the exact value 0 fills 26% of its good pixels" in note["reason"]


@pytest.mark.parametrize("columns", [30, 45, 103])
def test_windows_are_masked_like_the_whole(tmp_path, columns):
    settings = tile(tmp_path, columns)
    files = BandFiles(**settings["tiles"][0]["bands"]["r"])
    windows = windows_around(X, Y, SHAPE, 50)
    whole, parts = read_band(files, settings), read_band(files, settings, windows)
    assert bool(whole.fills) == (columns > 40)
    assert parts.fills == whole.fills
    for rows, columns in windows:
        np.testing.assert_array_equal(parts.pixels[rows, columns], whole.pixels[rows, columns])


def test_a_tile_is_left_alone_on_request(tmp_path):
    images, quality, files = cut_tile(tmp_path, tile(tmp_path, 103, mask={"constant": None}))
    assert (quality["flags"].tolist(), files) == ([0, 0, 0, 0], [])
    assert (images["o0"][1] == 0).all()


@pytest.mark.parametrize("below", [0, 1000], ids=["whole", "in windows"])
def test_a_cutout_may_be_filled_where_its_tile_is_not(tmp_path, below):
    """Twenty columns of 400 are 5 % of the tile, and half of the cutout that starts at column 4."""
    settings = tile(tmp_path, 20)
    images, quality, files = cut_tile(tmp_path, settings, subset_below=below)
    assert quality["flags"].tolist() == [Flag.CONSTANT | Flag.MASKED, 0, 0, 0]
    assert np.isnan(images["o0"][1]).sum() == 16 * 32
    (note,) = files
    assert "the exact value 0 fills 50% of a cutout's good pixels" in note["reason"]


def test_a_cutout_may_be_nothing_but_filled(tmp_path):
    settings = tile(tmp_path, 38)  # 9.5 %
    images, quality, _ = cut_tile(tmp_path, settings)
    assert quality["flags"].tolist() == [Flag.CONSTANT | Flag.MASKED, 0, 0, 0]
    assert quality["masked_fraction"].tolist() == [0.5, 0, 0, 0]


def test_the_empty_sky_and_the_coarse_noise_of_tiles_stay(tmp_path):
    wcs = tan_wcs(SHAPE)
    coarse = np.rint(noise(SHAPE) / 2)
    empty = np.zeros(SHAPE, np.float32)
    empty[60, 20], empty[300:303, 300:303] = 70, 50
    files = {
        band: BandFiles(write_image(tmp_path / f"{band}.fits", image, wcs, compressed=False))
        for band, image in (("g", coarse), ("r", empty))
    }
    settings = {**tile_settings(), "tiles": [Tile("t", "t", files).as_dict()]}
    _, quality, notes = cut_tile(tmp_path, settings)
    assert (quality["flags"].tolist(), notes) == ([0, 0, 0, 0], [])


@pytest.mark.parametrize("below", [0, 1000], ids=["whole", "in windows"])
@pytest.mark.parametrize("quantize", [4, 1])
def test_zeros_of_compression_without_dither_stay(tmp_path, quantize, below):
    """A tenth of the pixels, and more than a third, are exactly zero."""
    header = tan_wcs(SHAPE).to_header()
    files = {}
    for seed, band in enumerate(BANDS):
        unit = fits.CompImageHDU(
            noise(SHAPE, seed, 0.0), header, quantize_level=quantize, quantize_method=-1
        )
        fits.HDUList([fits.PrimaryHDU(), unit]).writeto(tmp_path / f"{band}.fits")
        assert (fits.getdata(tmp_path / f"{band}.fits", 1) == 0).mean() > 0.09
        files[band] = BandFiles(f"{tmp_path}/{band}.fits[1]")
    settings = {**tile_settings(), "tiles": [Tile("t", "t", files).as_dict()]}
    _, quality, notes = cut_tile(tmp_path, settings, subset_below=below)
    assert (quality["flags"].tolist(), notes) == ([0, 0, 0, 0], [])


def test_a_band_on_another_grid_keeps_the_flag(tmp_path):
    settings = tile(tmp_path, 103)
    shifted = tan_wcs(SHAPE)
    shifted.wcs.crpix += 0.5
    pixels = noise(SHAPE, 1)
    pixels[:, :103] = 0
    name = write_image(tmp_path / "s.fits", pixels, shifted)
    settings["tiles"][0]["bands"]["r"]["image"] = name
    images, quality, _ = cut_tile(tmp_path, settings)
    assert (quality["flags"] & Flag.CONSTANT.value).astype(bool).tolist() == [
        True,
        True,
        False,
        False,
    ]
    assert np.isnan(images["o0"][1]).all()
