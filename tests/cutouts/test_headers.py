"""What headers say of zero points, units, saturation and mask planes is used, or told."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from fits_files import add_star, tan_wcs
from luneta.config import Cutouts, validate
from luneta.cutouts.job import run
from luneta.cutouts.shard import Shard
from luneta.files import read_json
from luneta.survey.calibration import saturation_level, zero_point_of_header
from luneta.survey.flags import Flag
from luneta.survey.images import ImageFile
from luneta.survey.tiles import BandFiles, Tile

SHAPE, SCALE, SIZE = (120, 130), 0.2, 32
WCS = tan_wcs(SHAPE, scale=SCALE, rotation=0)
X, Y = np.array([40.0, 90.0]), np.array([40.0, 80.0])
INPUT = {"kind": "tiles", "tiles": "-", "sources": "-", "bands": ["r"]}


def image(value=None, sky=0.0, noise=2.0):
    """Two stars on noise, or a constant with a little noise."""
    pixels = np.random.default_rng(1).normal(sky, noise, SHAPE)
    if value is not None:
        return (value + 0 * pixels + 1e-3 * pixels).astype(np.float32)
    for x, y in zip(X, Y, strict=True):
        add_star(pixels, x, y, 20_000.0, sigma=2.0)
    return pixels.astype(np.float32)


def write(path, pixels, primary=None, wcs=WCS, **cards):
    inner = fits.ImageHDU(pixels, wcs.to_header(), name="IMAGE")
    for keyword, value in cards.items():
        inner.header[keyword] = value
    outer = fits.PrimaryHDU()
    outer.header.update(primary or {})
    fits.HDUList([outer, inner]).writeto(path, overwrite=True)
    return f"{path}[IMAGE]"


class Cut:
    def __init__(self, folder, files, given=None, **changes):
        config = {"survey": "a", "input": INPUT | {"bands": list(files)} | (given or {})}
        settings = validate(config).input.model_dump(mode="json")
        tile = Tile("a", "a", files)
        objects = pa.table(
            {
                "object_id": ["one", "two"],
                "tile": ["a", "a"],
                "x": X,
                "y": Y,
                "flags": pa.array([0, 0], pa.int32()),
                "reject_reason": pa.nulls(2, pa.string()),
            }
        )
        pq.write_table(objects, folder / "objects.parquet")
        settings |= {
            "pixels": "flux",
            "reference_band": "r",
            "quality": {},
            "tiles": [tile.as_dict()],
            "cutouts": Cutouts(size=SIZE, noise_units=False, **changes).model_dump(mode="json"),
        }
        out = {name: folder / name for name in ("cutouts", "quality", "files")}
        run(folder / "objects.parquet", None, out, settings)
        shard = Shard(out["cutouts"])
        self.images = shard.read(0, len(shard))
        self.quality = pq.read_table(out["quality"]).to_pandas()
        self.files = read_json(out["files"])

    @property
    def noise(self):
        return self.quality["sky_noise_r"].to_numpy()

    def has(self, flag):
        return ((self.quality["flags"] & flag.value) != 0).tolist()

    def reasons(self, flag):
        return [entry["reason"] for entry in self.files if entry["flag"] == flag]


HUBBLE = {"PHOTFLAM": 7.0e-20, "PHOTPLAM": 8045.0}
HEADERS = {  # with the AB magnitude of one count, by hand
    "FLUXMAG0": ({"FLUXMAG0": 10**10.8}, 27.0),
    "MAGZERO": ({"MAGZERO": 30.25}, 30.25),
    "MZP_AB": ({"MZP_AB": 30.0, "MZP_VEGA": 29.7}, 30.0),
    "MAGZPT": ({"MAGZPT": 25.5, "EXPTIME": 100.0}, 25.5),
    "ZEROPNT": ({"ZEROPNT": 0.0}, 0.0),
    "nanomaggy": ({"BUNIT": "nanomaggy"}, 22.5),
    "nanomaggies": ({"BUNIT": "nanomaggies"}, 22.5),
    "nJy": ({"BUNIT": "nJy"}, 31.4),
    "uJy/pix": ({"BUNIT": "uJy/pix"}, 23.9),
    "MJy/sr": ({"BUNIT": "MJy/sr"}, 31.4 - 2.5 * np.log10(1e15 * (0.2 * np.pi / 648000) ** 2)),
    "Hubble": ({"PHOTFLAM": 7.0e-20, "PHOTPLAM": 8045.0}, 25.952),
    "Pan-STARRS": ({"HIERARCH FPA.ZP": 25.0, "EXPTIME": 1000.0}, 32.5),
}


@pytest.mark.parametrize("name", HEADERS)
def test_the_zero_point_that_a_header_tells(tmp_path, name):
    cards, expected = HEADERS[name]
    with ImageFile(write(tmp_path / "x.fits", image(), **cards)) as file:
        assert zero_point_of_header(file.unit, SCALE).value == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("cards", [{}, {"BUNIT": "electron/s"}, {"BUNIT": "ADU"}, {"MAGZERO": "?"}])
def test_a_header_that_tells_none(tmp_path, cards):
    with ImageFile(write(tmp_path / "x.fits", image(), **cards)) as file:
        assert zero_point_of_header(file.unit, SCALE) is None


def test_fluxes_are_in_nanojansky_by_the_headers_own_zero_point(tmp_path):
    files = {"r": BandFiles(write(tmp_path / "r.fits", image(), {"FLUXMAG0": 10**12.16}))}
    cut = Cut(tmp_path, files, {"zero_point": "header", "zero_points": {"r": 27.0}})
    nanojansky = 10 ** (0.4 * (31.4 - 30.4))
    assert cut.noise == pytest.approx([2 * nanojansky] * 2, rel=0.05)
    assert cut.has(Flag.HEADER_CONFLICT) == [False, False]


def test_the_configs_zero_point_holds_for_files_that_tell_none(tmp_path):
    files = {"r": BandFiles(write(tmp_path / "r.fits", image()))}
    cut = Cut(tmp_path, files, {"zero_point": "header", "zero_points": {"r": 31.4}})
    assert cut.noise == pytest.approx([2, 2], rel=0.05)
    assert cut.has(Flag.HEADER_CONFLICT) == [False, False]


@pytest.mark.parametrize("primary", [{"FLUXMAG0": 0.0}, {}], ids=["none", "silent"])
def test_an_image_that_is_not_calibrated_has_no_nanojansky(tmp_path, primary):
    files = {"r": BandFiles(write(tmp_path / "r.fits", image(), primary))}
    fallback = {"zero_points": {"r": 27.0}} if primary else {}
    cut = Cut(tmp_path, files, {"zero_point": "header"} | fallback)
    assert np.isnan(cut.noise).all()
    assert cut.has(Flag.HEADER_CONFLICT) == [True, True]
    assert "have no magnitude" in cut.reasons("header_conflict")[0]


@pytest.mark.parametrize(
    ("cards", "given", "contradicts"),
    [
        ({"MAGZERO": 30.0}, 30.0, False),
        ({"MAGZERO": 30.01}, 30.0, False),
        ({"MAGZERO": 25.0}, 30.0, True),
        ({"MAGZPT": 25.0, "EXPTIME": 100.0}, 30.0, False),  # for one count per second
        ({"MAGZPT": 25.0, "EXPTIME": 100.0}, 25.0, False),
        ({"MAGZPT": 25.0, "EXPTIME": 100.0}, 27.0, True),
        ({"BUNIT": "nJy"}, 22.5, True),
        ({"BUNIT": "nanomaggies"}, 22.5, False),
        ({"FLUXMAG0": 0.0}, 27.0, True),
        ({}, 27.0, False),
    ],
)
def test_a_config_that_contradicts_the_header_is_flagged(tmp_path, cards, given, contradicts):
    files = {"r": BandFiles(write(tmp_path / "r.fits", image(), **cards))}
    cut = Cut(tmp_path, files, {"zero_points": {"r": given}})
    assert cut.has(Flag.HEADER_CONFLICT) == [contradicts] * 2
    assert len(cut.reasons("header_conflict")) == contradicts
    assert cut.noise == pytest.approx([2 * 10 ** (0.4 * (31.4 - given))] * 2, rel=0.05)
    for reason in cut.reasons("header_conflict"):
        assert f"input.zero_points.r = {given:g}" in reason
        assert "set input.zero_point: header" in reason


@pytest.mark.parametrize("side", [3.2, 6.4, 12.8])
@pytest.mark.parametrize("unit", ["MJy/sr", "DN/s/arcsec^2", "nanomaggy/arcsec2"])
def test_a_surface_brightness_is_averaged_where_a_flux_is_added_up(tmp_path, unit, side):
    bright = {"r": BandFiles(write(tmp_path / "r.fits", image(50.0), BUNIT=unit))}
    extent = {"unit": "arcsec", "side": side}
    cut = Cut(tmp_path, bright, background="none", extent=extent)
    assert np.nanmedian(cut.images) == pytest.approx(50.0, rel=1e-3)
    flux = {"r": BandFiles(write(tmp_path / "r.fits", image(50.0), BUNIT="adu"))}
    cut = Cut(tmp_path, flux, background="none", extent=extent)
    assert np.nanmedian(cut.images) == pytest.approx(50.0 * (side / SIZE / SCALE) ** 2, rel=1e-2)


def test_a_surface_brightness_on_another_grid_is_averaged(tmp_path):
    coarse_shape = (60, 65)
    coarse = tan_wcs(coarse_shape, scale=2 * SCALE, rotation=0)
    pixels = image(50.0)[: coarse_shape[0], : coarse_shape[1]]
    files = {
        "r": BandFiles(write(tmp_path / "r.fits", image(50.0), BUNIT="MJy/sr")),
        "j": BandFiles(write(tmp_path / "j.fits", pixels, wcs=coarse, BUNIT="MJy/sr")),
    }
    cut = Cut(tmp_path, files, background="none")
    assert np.nanmedian(cut.images, axis=(0, 2, 3)) == pytest.approx([50.0, 50.0], rel=1e-3)


def test_a_surface_brightness_in_nanojansky_is_that_of_a_cutout_pixel(tmp_path):
    files = {"r": BandFiles(write(tmp_path / "r.fits", image(50.0), BUNIT="MJy/sr"))}
    extent = {"unit": "arcsec", "side": 12.8}  # pixels of 0.4 arcsec
    cut = Cut(tmp_path, files, {"zero_point": "header"}, background="none", extent=extent)
    by_hand = 50.0 * 1e15 * (0.4 / 206264.806) ** 2
    assert np.nanmedian(cut.images) == pytest.approx(by_hand, rel=1e-2)


def test_the_noise_of_a_surface_brightness_is_that_of_its_cutout(tmp_path):
    pixels = np.random.default_rng(3).normal(0, 2, SHAPE).astype(np.float32)
    files = {"r": BandFiles(write(tmp_path / "r.fits", pixels, BUNIT="MJy/sr"))}
    cut = Cut(tmp_path, files, background="none", extent={"unit": "arcsec", "side": 12.8})
    assert cut.noise == pytest.approx([np.nanstd(cut.images)] * 2, rel=0.1)


def test_pixels_at_the_saturation_level_of_the_header_are_saturated(tmp_path):
    pixels = image()
    peak = 20_000 / (2 * np.pi * 4)
    pixels[40, 40] *= 3
    files = {"r": BandFiles(write(tmp_path / "r.fits", pixels, SATURATE=2 * peak))}
    assert Cut(tmp_path, files).has(Flag.SATURATED) == [True, False]


def test_a_saturation_level_within_the_sky_is_not_believed(tmp_path):
    files = {"r": BandFiles(write(tmp_path / "r.fits", image(sky=100.0), SATURATE=50.0))}
    cut = Cut(tmp_path, files)
    assert cut.has(Flag.SATURATED) == [False, False]
    assert "50 on saturated, which lies within the sky of the image" in cut.reasons("note")[0]


@pytest.mark.parametrize("level", [50.0, 109.0, 300.0])
def test_a_saturation_level_is_judged_alike_whole_and_in_windows(tmp_path, level):
    pixels = image(sky=100.0)
    pixels[:30, :30] = np.inf  # padding is no saturation
    files = {"r": BandFiles(write(tmp_path / "r.fits", pixels, SATURATE=level))}
    whole, windows = (Cut(tmp_path, files, subset_below=below) for below in (0, 100))
    assert whole.has(Flag.SATURATED) == windows.has(Flag.SATURATED) == [level == 300.0] * 2
    assert whole.reasons("note") == windows.reasons("note")
    assert len(whole.reasons("note")) == (level < 200)


@pytest.mark.parametrize(
    ("cards", "value"),
    [
        ({"MAGZERO": -99.0}, None),
        ({"MAGZERO": 9999.0}, None),
        ({"MAGZERO": "25.0"}, 25.0),
        ({"MAGZERO": -99.0, "MAGZPT": 27.0}, 27.0),
        ({"HIERARCH FPA.ZP": 25.0, "EXPTIME": 1.0}, 25.0),
        (
            {"PHOTFLAM": 7.0e-20, "PHOTPLAM": 8045.0, "BUNIT": "ELECTRONS/S", "EXPTIME": 100.0},
            25.952,
        ),
        ({"PHOTFLAM": 7.0e-20, "PHOTPLAM": 8045.0, "BUNIT": "ELECTRONS", "EXPTIME": 100.0}, 30.952),
        ({"PHOTFLAM": 7.0e-20, "PHOTPLAM": 8045.0, "BUNIT": "ELECTRONS"}, None),
        ({"BUNIT": "MJY/SR"}, 31.4 - 2.5 * np.log10(1e15 * (0.2 * np.pi / 648000) ** 2)),
    ],
)
def test_zero_points_that_are_sentinels_text_or_of_another_unit(tmp_path, cards, value):
    with ImageFile(write(tmp_path / "x.fits", image(), **cards)) as file:
        told = zero_point_of_header(file.unit, SCALE)
    assert told.value == (None if value is None else pytest.approx(value, abs=1e-3))


def test_a_magnitude_that_may_be_of_one_count_per_second_is_used_and_told(tmp_path):
    cards = {"MAGZPT": 25.0, "EXPTIME": 100.0}
    files = {"r": BandFiles(write(tmp_path / "r.fits", image(), **cards))}
    cut = Cut(tmp_path, files, {"zero_point": "header"})
    assert cut.noise == pytest.approx([2 * 10 ** (0.4 * 6.4)] * 2, rel=0.05)
    assert "set input.zero_points.r = 30.000" in cut.reasons("header_conflict")[0]
    rate = {"r": BandFiles(write(tmp_path / "r.fits", image(), **cards, BUNIT="adu/s"))}
    assert Cut(tmp_path, rate, {"zero_point": "header"}).reasons("header_conflict") == []


@pytest.mark.parametrize("unit", ["Jy/beam", "Jy beam-1", "K", "MJy ster^-1", "mag/arcsec^2"])
def test_what_cannot_be_added_up_is_averaged(tmp_path, unit):
    files = {"r": BandFiles(write(tmp_path / "r.fits", image(50.0), BUNIT=unit))}
    cut = Cut(tmp_path, files, background="none", extent={"unit": "arcsec", "side": 12.8})
    assert np.nanmedian(cut.images) == pytest.approx(50.0, rel=1e-3)


def test_a_zero_point_of_the_config_that_is_the_headers_means_the_flux_of_a_pixel(tmp_path):
    files = {"r": BandFiles(write(tmp_path / "r.fits", image(50.0), BUNIT="MJy/sr"))}
    extent = {"background": "none", "extent": {"unit": "arcsec", "side": 12.8}}
    value = 31.4 - 2.5 * np.log10(1e15 * (0.2 * np.pi / 648000) ** 2)
    by_config = Cut(tmp_path, files, {"zero_points": {"r": value}}, **extent)
    by_header = Cut(tmp_path, files, {"zero_point": "header"}, **extent)
    np.testing.assert_allclose(by_config.images, by_header.images, rtol=1e-5)
    assert by_config.has(Flag.HEADER_CONFLICT) == [False, False]


def test_no_saturation_level(tmp_path):
    with ImageFile(write(tmp_path / "x.fits", image(), SATURATE=0.0)) as file:
        assert saturation_level(file.unit) is None


def masked(tmp_path, given, **cards):
    """A star with bit 2 on it, another with bit 5; the config's planes are 1 and 2."""
    mask = np.zeros(SHAPE, np.int32)
    mask[38:43, 38:43] = 1 << 2
    mask[70:90, 80:100] = 1 << 5
    files = BandFiles(
        write(tmp_path / "r.fits", image()), write(tmp_path / "mask.fits", mask, **cards)
    )
    planes = {"planes": {"saturated": 1, "detected": 2}, "ignore": ["detected"]}
    return Cut(tmp_path, {"r": files}, {"mask": planes | given})


LSST = {"MP_SAT": 2, "HIERARCH MP_DETECTED": 5}
IPP = {"MSKNAM01": "SAT", "MSKVAL01": 4, "MSKNAM02": "DETECTED", "MSKVAL02": 32}
NAMES = {"header_names": {"saturated": "SAT"}}


@pytest.mark.parametrize("cards", [LSST, IPP], ids=["LSST", "Pan-STARRS"])
def test_planes_come_from_the_masks_header(tmp_path, cards):
    cut = masked(tmp_path, NAMES | {"planes_from": "header"}, **cards)
    assert cut.has(Flag.SATURATED) == [True, False]
    assert cut.has(Flag.MASKED) == [True, False]
    assert cut.has(Flag.HEADER_CONFLICT) == [False, False]


@pytest.mark.parametrize("cards", [LSST, IPP], ids=["LSST", "Pan-STARRS"])
def test_planes_that_contradict_the_masks_header_are_flagged(tmp_path, cards):
    cut = masked(tmp_path, NAMES, **cards)
    assert cut.has(Flag.HEADER_CONFLICT) == [True, True]
    assert "SAT, bit 2 in the header" in cut.reasons("header_conflict")[0]
    assert "input.mask.planes.saturated = 1" in cut.reasons("header_conflict")[0]


def test_a_bit_that_the_header_gives_to_another_plane_is_told(tmp_path):
    cut = masked(tmp_path, NAMES, MP_SAT=1, MP_NO_DATA=2)
    assert cut.has(Flag.HEADER_CONFLICT) == [True, True]
    assert "bit 2, NO_DATA in the header" in cut.reasons("header_conflict")[0]
    assert "input.mask.planes.detected = 2" in cut.reasons("header_conflict")[0]


def test_planes_of_the_config_hold_where_the_mask_numbers_none(tmp_path):
    cut = masked(tmp_path, NAMES | {"planes_from": "header"})
    assert cut.has(Flag.SATURATED) == [False, False]
    assert cut.has(Flag.MASKED) == [False, True]


def test_odd_bytes_and_left_over_sip_are_noted_and_the_objects_are_clean(tmp_path):
    sip = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5}
    name = write(tmp_path / "r.fits", image(), **sip)
    with (tmp_path / "r.fits").open("ab") as file:
        file.write(b"\n")
    cut = Cut(tmp_path, {"r": BandFiles(name)})
    assert cut.quality["flags"].tolist() == [0, 0]
    first, second = cut.reasons("note")
    assert "r.fits[IMAGE]: 1 bytes without meaning follow the last extension" in first
    assert "SIP coefficients (A_ORDER and the like) are not used" in second
