"""Presets: what they fill in, and that files named as the surveys name them are found and read."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from astropy.io import fits

from cutout_jobs import job
from fits_files import tan_wcs
from luneta.config import ConfigError, validate
from luneta.config.presets import FOLDER, names
from luneta.survey.flags import Flag
from luneta.survey.images import read_pixels
from luneta.survey.masks import bad_pixels, noise_of_weight, sentinel_pixels
from luneta.survey.shards import survey_tiles
from luneta.survey.stamp_positions import positions_of_stamps

SHARED = Path(__file__).parents[2] / "shared" / "data"
KINDS = [
    (name, kind)
    for name in names()
    for kind in yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
]


def config(preset, kind=None, **given):
    """The least that a user writes, and what else is given for the input."""
    needed = {"table": "t.csv"} if kind == "stamps" else {"sources": "s.fits"}
    kind = {"kind": kind} if kind else {}
    return validate({"survey": "sky", "preset": preset, "input": {**kind, **needed, **given}})


def test_all_surveys_have_a_preset():
    assert names() == [
        "cfhtls", "des", "euclid", "galaxy_zoo", "hsc", "kids", "legacysurvey", "lens_challenge",
        "panstarrs", "sdss",
    ]  # fmt: skip


@pytest.mark.parametrize(("preset", "kind"), KINDS)
def test_least_config_is_valid(preset, kind):
    assert config(preset, kind).input.kind == kind


@dataclass
class Delivery:
    """Files of one tile as a survey names them.

    `images`, `masks`, `weights` are names by band; `mask_values` are the values of four pixels:
    good, ignored, bad, saturated.
    """

    preset: str
    tile: str
    images: dict[str, str]
    masks: dict[str, str] = field(default_factory=dict)
    weights: dict[str, str] = field(default_factory=dict)
    mask_values: tuple = ()
    noise_of_four: float | None = None  # what a weight of 4 means
    zero_point: float | None = None
    others: tuple[str, ...] = ()  # other products that lie beside


def _like(pattern, bands):
    return {band: pattern.format(band) for band in bands}


def _euclid(product):
    filters = {"VIS": "VIS", "Y": "NIR-Y", "J": "NIR-J", "H": "NIR-H"}
    return {
        band: f"102070858/{'VIS' if band == 'VIS' else 'NISP'}/EUC_MER_{product.format(name)}"
        f"_TILE102070858-BB87CE_20241104T161703.183124Z_00.00.fits[0]"
        for band, name in filters.items()
    }


def _hsc(extension):
    return {
        band: f"HSC-{band.upper()}/9813/4,4/calexp-HSC-{band.upper()}-9813-4,4.fits[{extension}]"
        for band in "gri"
    }


DELIVERIES = [
    Delivery(
        "sdss",
        "003900-6-0269",
        _like("frame-{}-003900-6-0269.fits.bz2[0]", "gri"),
        zero_point=22.5,
        others=("fpM-003900-r6-0269.fit",),
    ),
    Delivery(
        "legacysurvey",
        "0001m002",
        _like("coadd/000/0001m002/legacysurvey-0001m002-image-{}.fits.fz[1]", "grz"),
        _like("coadd/000/0001m002/legacysurvey-0001m002-maskbits.fits.fz[1]", "grz"),
        _like("coadd/000/0001m002/legacysurvey-0001m002-invvar-{}.fits.fz[1]", "grz"),
        mask_values=(0, 1 | 2 | 1 << 11 | 1 << 12 | 1 << 16, 1 << 17, 1 << 3),
        noise_of_four=0.5,
        zero_point=22.5,
        others=("coadd/000/0001m002/legacysurvey-0001m002-model-r.fits.fz",),
    ),
    Delivery(
        "des",
        "DES0000-0207",
        _like("DES0000-0207/DES0000-0207_r4907p01_{}.fits.fz[SCI]", "gri"),
        _like("DES0000-0207/DES0000-0207_r4907p01_{}.fits.fz[MSK]", "gri"),
        _like("DES0000-0207/DES0000-0207_r4907p01_{}.fits.fz[WGT]", "gri"),
        mask_values=(0, 0, 1, None),
        noise_of_four=0.5,
        zero_point=30.0,
        others=(
            "DES0000-0207/DES0000-0207_r4907p01_g_nobkg.fits.fz",
            "DES0000-0207/DES0000-0207_r4907p01_det.fits.fz",
        ),
    ),
    Delivery(
        "hsc",
        "9813-4,4",
        _hsc("IMAGE"),
        _hsc("MASK"),
        _hsc("VARIANCE"),
        mask_values=(0, 1 << 5 | 1 << 2 | 1 << 9, 1 << 8, 1 << 1 | 1 << 5),
        noise_of_four=2.0,
        zero_point=27.0,
        others=("HSC-I/9813/4,4/det_bkgd-HSC-I-9813-4,4.fits",),
    ),
    Delivery(
        "panstarrs",
        "1784.059",
        _like("rings.v3.skycell.1784.059.stk.{}.unconv.fits[1]", "gri"),
        _like("rings.v3.skycell.1784.059.stk.{}.unconv.mask.fits[1]", "gri"),
        _like("rings.v3.skycell.1784.059.stk.{}.unconv.wt.fits[1]", "gri"),
        mask_values=(0, 0x0080 | 0x4000, 0x0100, 0x0020),
        noise_of_four=2.0,
        others=("rings.v3.skycell.1784.059.stk.i.unconv.num.fits",),
    ),
    Delivery(
        "cfhtls",
        "141927+524056",
        _like("CFHTLS_W_{}_141927+524056_T0007_MEDIAN.fits[0]", "gri"),
        weights=_like("CFHTLS_W_{}_141927+524056_T0007_MEDIAN_weight.fits[0]", "gri"),
        noise_of_four=1.0,
        zero_point=30.0,
    ),
    Delivery(
        "kids",
        "140.0_0.5",
        _like("KiDS_DR4.0_140.0_0.5_{}_sci.fits[0]", "gri"),
        _like("KiDS_DR4.0_140.0_0.5_{}_msk.fits[0]", "gri"),
        _like("KiDS_DR4.0_140.0_0.5_{}_wei.fits[0]", "gri"),
        mask_values=(0, 8 | 16 | 32, 64, 2 | 8),
        noise_of_four=1.0,
        zero_point=0.0,
    ),
    Delivery(
        "euclid",
        "102070858",
        _euclid("BGSUB-MOSAIC-{}"),
        _euclid("MOSAIC-{}-FLAG"),
        _euclid("MOSAIC-{}-RMS"),
        mask_values=(0, 1 << 24 | 1 << 6, 1, 1 << 3),
        noise_of_four=4.0,
        others=("102070858/VIS/EUC_MER_CATALOG-PSF-VIS_TILE102070858-7_2024T1Z_00.00.fits",),
    ),
]


def _unit(extension, pixels):
    """An HDU as the survey stores it: named, by number, or the primary one."""
    if extension == "0":
        return [fits.PrimaryHDU(pixels)]
    name = "" if extension.isdigit() else extension
    return [fits.PrimaryHDU(), fits.CompImageHDU(pixels, name=name)]


def _deliver(root: Path, delivery: Delivery) -> None:
    contents: dict[str, list] = {}

    def add(name, pixels):
        path, extension = name.rstrip("]").rsplit("[", 1)
        units = contents.setdefault(path, [])
        units += _unit(extension, pixels)[1 if units else 0 :]

    for number, (band, name) in enumerate(delivery.images.items()):
        add(name, np.full((4, 5), number, np.float32))
        if band in delivery.masks:
            mask = np.zeros((4, 5), np.int32)
            mask[0, :4] = [value or 0 for value in delivery.mask_values]
            add(delivery.masks[band], mask)
        if band in delivery.weights:
            weight = np.full((4, 5), 4, np.float32)
            weight[1, 1] = 0
            add(delivery.weights[band], weight)
    for path, units in contents.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        fits.HDUList(units).writeto(root / path)
    for path in delivery.others:
        (root / path).write_bytes(b"another product")


@pytest.fixture(params=DELIVERIES, ids=lambda delivery: delivery.preset)
def delivered(request, tmp_path):
    _deliver(tmp_path, request.param)
    section = config(request.param.preset, root=str(tmp_path)).input
    return request.param, survey_tiles(section.model_dump(mode="json")), section


def test_tile_is_found_with_every_band(delivered):
    delivery, tiles, section = delivered
    assert list(tiles) == [delivery.tile]
    assert list(tiles[delivery.tile].bands) == section.bands == list(delivery.images)
    for number, files in enumerate(tiles[delivery.tile].bands.values()):
        assert read_pixels(files.image)[2, 2] == number


def test_mask_bits_mean_what_the_survey_says(delivered):
    delivery, tiles, section = delivered
    settings = section.mask.model_dump(mode="json")
    for band, files in tiles[delivery.tile].bands.items():
        assert (files.mask is not None) == (band in delivery.masks)
        if files.mask is None:
            continue
        bad, saturated = bad_pixels(read_pixels(files.mask), settings)
        is_saturated = delivery.mask_values[3] is not None
        assert bad[0, :4].tolist() == [False, False, True, is_saturated]
        assert saturated[0, :4].tolist() == [False, False, False, is_saturated]
        assert not bad[1:].any()


def test_weight_means_what_the_survey_says(delivered):
    delivery, tiles, section = delivered
    for band, files in tiles[delivery.tile].bands.items():
        assert (files.weight is not None) == (band in delivery.weights)
        if files.weight is not None:
            noise = noise_of_weight(read_pixels(files.weight), section.weight)
            assert noise[2, 2] == delivery.noise_of_four
            assert np.isnan(noise[1, 1])


def test_zero_points(delivered):
    delivery, _, section = delivered
    expected = {} if delivery.zero_point is None else dict.fromkeys("gri", delivery.zero_point)
    found = {band: value for band, value in section.zero_points.items() if band in "gri"}
    assert found == expected


def test_saturation_of_one_band_of_the_legacy_surveys():
    settings = config("legacysurvey").input.mask.model_dump(mode="json")
    bits = np.array([[1 << 2, 1 << 3, 1 << 4, 1 << 14, 1 << 5, 0]], np.int16)
    bad, saturated = bad_pixels(bits, settings)
    assert bad.tolist() == saturated.tolist() == [[True, True, True, True, False, False]]


def test_challenge_marks_bad_pixels_with_100():
    section = config("lens_challenge", "stamps").input
    pixels = np.array([[1e-12, 100.0, -3e-12]], np.float32)
    assert sentinel_pixels(pixels, section.mask.sentinels).tolist() == [[False, True, False]]
    assert section.image["r"].format(ID=100002) == "Band1/imageSDSS_R-100002.fits"


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not here")
def test_challenge_files_are_named_so():
    section = config("lens_challenge", "stamps").input
    for folder in ("lens", "nolens"):
        root = SHARED / "lens_challenge" / "ground_based" / folder
        for template in section.image.values():
            found = list(root.glob(template.replace("{ID}", "*")))
            assert len(found) > 3
            assert read_pixels(str(found[0])).shape == (101, 101)


def test_galaxy_zoo_pictures_are_display_pixels():
    section = config("galaxy_zoo", "stamps").input
    assert section.pixels == "display"
    assert section.image.format(asset_id="58957") == "images/58957.jpg"


def test_a_cutout_of_the_sky_viewer(tmp_path):
    """As the service writes it: (band, y, x), zeros where a band was not observed, TAN."""
    cube = np.random.default_rng(0).normal(0, 0.01, (3, 64, 64)).astype(np.float32)
    cube[0] = 0
    cube[2, :, :16] = 0
    header = tan_wcs((64, 64), 150, 2, rotation=0).to_header()
    header["BANDS"] = "grz"
    fits.PrimaryHDU(cube, header).writeto(tmp_path / "a.fits")
    given = {"kind": "stamps", "table": "-", "bands_required": ["r", "z"]}
    found = validate({"survey": "sky", "preset": "legacysurvey", "input": given})
    section = found.input.model_dump(mode="json")
    assert (section["image"], section["pixel_scale"]) == ("{object_id}.fits", 0.262)
    slices = {f"image_{band}": [str(tmp_path / "a.fits")] for band in "grz"}
    images, quality, files = job(
        tmp_path, {"object_id": ["a"]}, slices, section, background=found.cutouts.background
    )
    assert quality["flags"].tolist() == [Flag.MISSING_BAND | Flag.CONSTANT | Flag.MASKED]
    assert sorted((note["flag"], note["band"]) for note in files) == [
        ("constant", "z"), ("no_data", "g")
    ]  # fmt: skip
    # A nanomaggy is 22.5 mag, a nanojansky 31.4.
    assert images["a"][1] == pytest.approx(cube[1] * 10 ** (0.4 * 8.9), rel=1e-6)
    assert np.isnan(images["a"][2, :, :16]).all()
    ra, dec = positions_of_stamps(pa.table(slices), None)
    sky = tan_wcs((64, 64), 150, 2, rotation=0).pixel_to_world(32, 32)
    assert (ra[0], dec[0]) == (pytest.approx(sky.ra.deg), pytest.approx(sky.dec.deg))


def test_own_settings_win():
    section = config(
        "hsc", columns={"object_id": "id"}, zero_points={"r": 31.4}, weights=None, bands=["r", "i"]
    ).input
    assert section.columns.model_dump()["object_id"] == "id"
    assert section.columns.ra == "ra"
    assert section.zero_points == {"r": 31.4, "i": 27.0}
    assert section.weights is None
    assert section.masks == "*/*/*/calexp-{band}-{tile}.fits[MASK]"


def test_other_bands_leave_out_what_belongs_to_the_presets():
    assert config("hsc", bands=["g", "r"]).input.reference == "g"
    stamps = config("lens_challenge", "stamps", bands=["g", "r"]).input
    assert sorted(stamps.image) == ["g", "r"]


def test_own_tile_table_is_instead_of_patterns():
    section = config("des", tiles="tiles.tsv").input
    assert (section.images, section.masks, section.weights) == (None, None, None)
    assert section.zero_points["r"] == 30.0


@pytest.mark.parametrize("detection", [{}, {"threshold": 3}])
def test_detection_needs_no_source_list(detection):
    given = {"survey": "sky", "preset": "kids", "input": {"detection": detection}}
    assert validate(given).input.sources is None


def test_mask_of_another_encoding_is_instead_of_the_presets():
    mask = config("kids", mask={"encoding": "good"}).input.mask
    assert (mask.encoding, mask.planes) == ("good", {})


def test_unknown_preset():
    with pytest.raises(ConfigError, match="preset = 'legacysurveys'.*did you mean legacysurvey?"):
        config("legacysurveys")
    with pytest.raises(ConfigError, match="allowed are cfhtls, des, euclid"):
        config("lsst_dp1_coadds")


def test_preset_of_another_kind_says_of_which():
    with pytest.raises(ConfigError, match="input.kind = 'stamps': the preset des is for tiles"):
        config("des", "stamps")
    with pytest.raises(ConfigError, match="input.kind = 'tiles': the preset galaxy_zoo is for st"):
        config("galaxy_zoo", "tiles")
    assert config("panstarrs", "stamps").input.pixel_scale == 0.25


def test_kind_follows_the_preset():
    given = {"survey": "sky", "preset": "galaxy_zoo", "input": {"table": "t.csv"}}
    assert validate(given).input.kind == "stamps"


@pytest.mark.parametrize("given", [{}, {"input": None}, {"input": ["r"]}, {"input": "des"}])
def test_config_without_input_is_refused_in_words(given):
    with pytest.raises(ConfigError, match="input"):
        validate({"survey": "sky", "preset": "des", **given})
