"""What the headers of stamps say of units, saturation and mask planes is used, or told."""

import numpy as np
import pytest
from astropy.io import fits

from cutout_jobs import job
from fits_files import add_star, tan_wcs
from luneta.config import Stamps
from luneta.survey.flags import Flag

SIDE, SCALE = 32, 0.2


def pixels(level=None):
    noise = np.random.default_rng(1).normal(0, 2, (SIDE, SIDE))
    if level is not None:
        return (level + 1e-3 * noise).astype(np.float32)
    add_star(noise, 16, 16, 20_000.0, sigma=2.0)
    return noise.astype(np.float32)


def write(path, image, wcs=None, **cards):
    header = fits.Header() if wcs is None else wcs.to_header()
    for keyword, value in cards.items():
        header[keyword] = value
    fits.PrimaryHDU(image, header).writeto(path, overwrite=True)
    return str(path)


def cut(folder, names, given=None, masks=None, **changes):
    section = {"kind": "stamps", "table": "-", "bands": ["r"], "pixel_scale": SCALE}
    settings = Stamps.model_validate(section | (given or {})).model_dump(mode="json")
    slices = {"image_r": names} | ({"mask_r": masks} if masks else {})
    objects = {"object_id": [f"o{n}" for n in range(len(names))]}
    return job(folder, objects, slices, settings, **{"size": SIDE, **changes})


def has(quality, flag):
    return ((quality["flags"] & flag.value) != 0).tolist()


@pytest.mark.parametrize("suffix", [".fits", ".fit", ".fits.gz"])
def test_each_stamp_is_in_nanojansky_by_its_own_header(tmp_path, suffix):
    names = [
        write(tmp_path / f"{n}{suffix}", pixels(), **cards)
        for n, cards in enumerate([{"MAGZERO": 31.4}, {"MAGZERO": 28.9}, {"FLUXMAG0": 0.0}, {}])
    ]
    given = {"zero_point": "header", "zero_points": {"r": 30.4}}
    _, quality, files = cut(tmp_path, names, given)
    by_hand = 2 * np.array([1, 10, np.nan, 10**0.4])
    np.testing.assert_allclose(quality["sky_noise_r"], by_hand, rtol=0.15)
    assert has(quality, Flag.HEADER_CONFLICT) == [False, False, True, False]
    assert [(f["flag"], f["path"]) for f in files] == [("header_conflict", names[2])]


def test_a_config_that_contradicts_a_stamp_is_flagged(tmp_path):
    names = [
        write(tmp_path / f"{n}.fits", pixels(), **cards)
        for n, cards in enumerate([{"MAGZERO": 25.0}, {"MAGZERO": 22.5}, {"BUNIT": "nJy"}, {}])
    ]
    _, quality, files = cut(tmp_path, names, {"zero_points": {"r": 22.5}})
    assert has(quality, Flag.HEADER_CONFLICT) == [True, False, True, False]
    assert "MAGZERO = 25" in files[0]["reason"]
    assert files[0]["reason"].startswith(names[0])
    assert quality["usable"].all()


@pytest.mark.parametrize("crop", [0.5, 1.0])
def test_a_surface_brightness_is_averaged(tmp_path, crop):
    names = [
        write(tmp_path / "area.fits", pixels(50.0), BUNIT="MJy/sr"),
        write(tmp_path / "flux.fits", pixels(50.0), BUNIT="adu"),
    ]
    images, quality, _ = cut(tmp_path, names, size=16, crop=crop)
    factor = SIDE * crop / 16
    assert np.nanmedian(images["o0"]) == pytest.approx(50.0, rel=1e-3)
    assert np.nanmedian(images["o1"]) == pytest.approx(50.0 * factor**2, rel=1e-3)
    ratio = quality["sky_noise_r"]["o1"] / quality["sky_noise_r"]["o0"]
    assert ratio == pytest.approx(factor**2, rel=1e-3)


def test_a_surface_brightness_in_nanojansky_by_the_pixels_of_its_wcs(tmp_path):
    wcs = tan_wcs((SIDE, SIDE), scale=0.1, rotation=0)
    names = [write(tmp_path / "area.fits", pixels(50.0), wcs, BUNIT="MJy/sr")]
    images, _, _ = cut(tmp_path, names, {"zero_point": "header"})
    assert np.nanmedian(images["o0"]) == pytest.approx(50e15 * (0.1 / 206264.806) ** 2, rel=1e-3)


def test_a_star_that_reaches_the_saturation_level_is_saturated(tmp_path):
    peak = 20_000 / (2 * np.pi * 4)
    names = [
        write(tmp_path / f"{level}.fits", pixels(), SATURATE=level * peak) for level in (0.5, 2)
    ]
    _, quality, files = cut(tmp_path, names)
    assert has(quality, Flag.SATURATED) == [True, False]
    assert files == []


def test_a_bright_object_that_fills_its_stamp_is_saturated_all_the_same(tmp_path):
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    bright = pixels() + (1000 * np.exp(-(x**2 + y**2) / 72)).astype(np.float32)
    assert (bright > 700).mean() > 0.05
    names = [write(tmp_path / "r.fits", bright, SATURATE=700.0)]
    _, quality, files = cut(tmp_path, names)
    assert has(quality, Flag.SATURATED) == [True]
    assert files == []


def test_what_is_odd_about_a_stamp_is_noted(tmp_path):
    name = write(tmp_path / "r.fits", pixels())
    with open(name, "ab") as file:  # noqa: PTH123
        file.write(b"\n")
    _, quality, files = cut(tmp_path, [name])
    assert quality["flags"].tolist() == [0]
    assert [entry["flag"] for entry in files] == ["note"]
    assert "1 bytes without meaning follow" in files[0]["reason"]


LSST = {"MP_SAT": 2, "HIERARCH MP_DETECTED": 5}


@pytest.mark.parametrize("planes_from", ["header", "config"])
def test_mask_planes_come_from_the_masks_header_or_are_held_against_it(tmp_path, planes_from):
    mask = np.zeros((SIDE, SIDE), np.int32)
    mask[14:19, 14:19] = 1 << 2
    mask[:8] = 1 << 5
    masks = [write(tmp_path / "mask.fits", mask, **LSST)]
    given = {
        "mask": {
            "planes": {"saturated": 1, "detected": 2},
            "ignore": ["detected"],
            "header_names": {"saturated": "SAT"},
            "planes_from": planes_from,
        }
    }
    _, quality, files = cut(tmp_path, [write(tmp_path / "r.fits", pixels())], given, masks)
    by_header = planes_from == "header"
    assert has(quality, Flag.SATURATED) == [by_header]
    assert has(quality, Flag.HEADER_CONFLICT) == [not by_header]
    masked = 25 / SIDE**2 if by_header else 8 / SIDE
    assert quality["masked_fraction"]["o0"] == pytest.approx(masked)
    assert len(files) == (0 if by_header else 1)
