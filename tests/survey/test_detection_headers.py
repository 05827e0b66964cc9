"""What headers say of zero points, saturation and mask planes holds for detection too."""

import numpy as np
import pytest
from astropy.io import fits

from fits_files import add_star, tan_wcs, write_image
from luneta.config.survey import Detection, Mask
from luneta.survey.detect import detect_tile
from luneta.survey.measure import find
from luneta.survey.tile_planes import TilePlanes
from luneta.survey.tiles import BandFiles, Tile

SHAPE, SCALE = (200, 220), 0.262
SPOTS = [(x, y) for y in (40, 100, 160) for x in (40, 90, 140, 190)]


def settings(**changes):
    return {
        "reference_band": "r",
        "bands": ["r"],
        "detection": Detection().model_dump(mode="json"),
        "mask": Mask().model_dump(mode="json"),
        "weight": "inverse_variance",
        "zero_points": {},
        "zero_point": "header",
        **changes,
    }


def as_tile(folder, flux=5000.0, mask=None, mask_cards=(), **cards):
    pixels = np.random.default_rng(0).normal(10, 1, SHAPE).astype(np.float32)
    for x, y in SPOTS:
        add_star(pixels, x, y, flux)
    wcs = tan_wcs(SHAPE, scale=SCALE)
    names = {"image": write_image(folder / "image.fits", pixels, wcs, compressed=False)}
    if mask is not None:
        names["mask"] = write_image(folder / "mask.fits", mask, wcs, compressed=False)
    for kind, given in (("image", cards), ("mask", dict(mask_cards))):
        for keyword, value in given.items():
            fits.setval(folder / f"{kind}.fits", keyword, value=value, ext=1)
    return Tile("a", "a", {"r": BandFiles(**names)})


def magnitudes(found):
    return found.kept["magnitude_r"].to_numpy(zero_copy_only=False)


@pytest.mark.parametrize(
    ("cards", "magnitude"),
    [
        ({"MAGZERO": 27.0}, 17.753),  # 27 - 2.5 log10(5000)
        ({"FLUXMAG0": 1e10}, 15.753),  # 25 - 2.5 log10(5000)
        ({"BUNIT": "nanomaggy"}, 13.253),  # 22.5 - 2.5 log10(5000)
        # 1 MJy/sr in (0.262 arcsec)^2, 1 arcsec^2 = 2.3504e-11 sr: 1613.4 nJy, 5000 of them
        # 8.0672e6 nJy; 31.4 - 2.5 log10(8.0672e6)
        ({"BUNIT": "MJy/sr"}, 14.133),
    ],
)
def test_the_zero_point_of_the_header_gives_the_magnitude(cards, magnitude, tmp_path):
    found = detect_tile(as_tile(tmp_path, **cards), settings())
    assert len(found.x) == len(SPOTS)
    np.testing.assert_allclose(magnitudes(found), magnitude, atol=0.03)


@pytest.mark.parametrize("cards", [{}, {"FLUXMAG0": 0.0}])
def test_an_image_without_a_zero_point_has_no_magnitude(cards, tmp_path):
    found = detect_tile(as_tile(tmp_path, **cards), settings())
    assert len(found.x) == len(SPOTS)
    assert np.isnan(magnitudes(found)).all()
    assert found.kept["magnitude_error_r"].null_count == len(SPOTS)


def test_the_zero_point_of_the_config_holds_where_the_header_is_silent(tmp_path):
    found = detect_tile(as_tile(tmp_path), settings(zero_points={"r": 25.0}))
    np.testing.assert_allclose(magnitudes(found), 15.753, atol=0.03)


def test_a_surface_brightness_is_not_added_up_to_a_magnitude(tmp_path, caplog):
    tile = as_tile(tmp_path, BUNIT="mag-counts/arcsec2")
    given = settings(zero_point="config", zero_points={"r": 25.0})
    assert np.isnan(magnitudes(detect_tile(tile, given))).all()
    assert "band r has no magnitudes: its BUNIT is a surface brightness" in caplog.text


def test_the_mask_numbers_its_own_planes(tmp_path):
    mask = np.zeros(SHAPE, np.int32)
    mask[:70] = 1 << 5
    mask[130:] = 1 << 3
    tile = as_tile(tmp_path, mask=mask, mask_cards={"HIERARCH MP_DETECTED": 5, "MP_SAT": 3})
    planes = {"saturated": 1, "detected": 3}
    given = {"planes": planes, "ignore": ["detected"], "header_names": {"saturated": "SAT"}}
    by_header = Mask(**given, planes_from="header").model_dump(mode="json")
    found = detect_tile(tile, settings(mask=by_header, zero_point="config"))
    assert sorted(np.rint(found.y).astype(int)) == [40] * 4 + [100] * 4
    by_config = Mask(**given).model_dump(mode="json")
    found = detect_tile(tile, settings(mask=by_config, zero_point="config"))
    assert sorted(np.rint(found.y).astype(int)) == [100] * 4 + [160] * 4


def test_saturated_objects_do_not_tell_the_size_of_point_sources(tmp_path):
    tile = as_tile(tmp_path, SATURATE=360.0)  # the peak is 10 + 5000 / (2 pi 1.5^2) = 364
    given = settings(zero_point="config")
    with TilePlanes(tile, given) as planes:
        clean = find(planes.detection_plane(), given["detection"]).clean
    fits.setval(tmp_path / "image.fits", "SATURATE", value=380.0, ext=1)
    with TilePlanes(tile, given) as planes:
        free = find(planes.detection_plane(), given["detection"]).clean
    assert free.all()
    assert 0 < (~clean).sum() <= len(SPOTS)


def test_a_level_of_saturation_below_the_sky_is_not_believed(tmp_path):
    tile = as_tile(tmp_path, SATURATE=5.0)
    given = settings(zero_point="config")
    with TilePlanes(tile, given) as planes:
        assert not planes.detection_plane().saturated.any()
