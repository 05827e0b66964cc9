"""Every format that images come in, against astropy or a calculation by hand."""

import bz2
import gzip
from pathlib import Path

import fitsio
import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import DistortionLookupTable

from fits_files import tan_wcs
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError, ImageFile, read_pixels
from luneta.survey.wcs import read_grid, to_pixels

PART = slice(5, 40), slice(60, 110)
SLED = Path(__file__).parents[2].parent / "shared/data/sled_ps1/images"


@pytest.fixture
def pixels():
    values = np.random.default_rng(3).normal(100, 5, (150, 170)).astype(np.float32)
    values[20:30, 100:104] = np.nan
    return values


def check(name, expected, rtol=0.0, **wanted):
    """Compare all and a part of an image with what is expected, type included."""
    with ImageFile(str(name), wanted.pop("plane", 0)) as image:
        whole, part = image.read(), image.window(*PART)
        for key, value in wanted.items():
            assert getattr(image, key) == value, key
        assert image.dtype == whole.dtype == part.dtype
        assert image.shape == expected.shape
    assert whole.dtype.isnative and whole.flags.writeable
    np.testing.assert_allclose(whole, expected, rtol=rtol, equal_nan=True)
    np.testing.assert_array_equal(part, whole[PART])


@pytest.mark.parametrize("packer", [None, gzip, bz2])
def test_plain_and_packed(tmp_path, pixels, packer):
    fits.writeto(tmp_path / "x.fits", pixels)
    if packer:
        packed = packer.compress((tmp_path / "x.fits").read_bytes())
        (tmp_path / "x.fits").write_bytes(packed)
    check(tmp_path / "x.fits", pixels, compressed=False, planes=None, dtype=np.float32)


@pytest.mark.parametrize("packer", [gzip, bz2])
def test_tiles_within_a_packed_file(tmp_path, pixels, packer):
    fits.CompImageHDU(pixels, compression_type="RICE_1").writeto(tmp_path / "x.fits")
    expected = fits.getdata(tmp_path / "x.fits", 1)
    (tmp_path / "x.fits.z").write_bytes(packer.compress((tmp_path / "x.fits").read_bytes()))
    check(tmp_path / "x.fits.z", expected, compressed=True)


@pytest.mark.parametrize("packer", [gzip, bz2])
@pytest.mark.parametrize("tiles", [True, False])
def test_a_packed_file_that_breaks_off(tmp_path, pixels, packer, tiles):
    make = fits.CompImageHDU if tiles else fits.ImageHDU
    make(pixels).writeto(tmp_path / "x.fits")
    packed = packer.compress((tmp_path / "x.fits").read_bytes())
    (tmp_path / "x.fits").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(ImageError, match="damaged|truncated"):
        read_pixels(str(tmp_path / "x.fits"))


@pytest.mark.parametrize("dither", [-1, 1, 2])
@pytest.mark.parametrize("level", [0, 4])
@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1"])
def test_compressed_floats(tmp_path, pixels, kind, level, dither):
    if level == 0 and (dither > 0 or not kind.startswith("GZIP")):
        pytest.skip("only gzip stores floats as they are")
    pixels[60:64] = 0
    options = {"quantize_level": level, "quantize_method": dither}
    fits.CompImageHDU(pixels, compression_type=kind, **options).writeto(tmp_path / "x.fits")
    expected = fits.getdata(tmp_path / "x.fits", 1)
    assert np.isnan(expected).sum() == 40
    check(tmp_path / "x.fits", expected, compressed=True, dtype=np.float32)


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4"])
def test_compressed_integers(tmp_path, kind, dtype):
    if kind == "PLIO_1" and dtype in ("u2", "u4"):
        pytest.skip("PLIO stores no such integers")
    values = np.random.default_rng(5).integers(0, 250, (150, 170)).astype(dtype)
    fits.CompImageHDU(values, compression_type=kind).writeto(tmp_path / "x.fits")
    check(tmp_path / "x.fits", values, compressed=True, dtype=np.dtype(dtype))


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_plain_numbers_of_every_kind(tmp_path, dtype):
    values = np.random.default_rng(5).integers(0, 100, (150, 170)).astype(dtype)
    values[7, 70] = np.iinfo(dtype).min if dtype[0] != "f" else -1.5
    values[8, 70] = np.iinfo(dtype).max if dtype[0] != "f" else 1e30
    fits.writeto(tmp_path / "x.fits", values)
    check(tmp_path / "x.fits", values, dtype=np.dtype(dtype))


@pytest.mark.parametrize("dtype", ["i2", "i4"])
@pytest.mark.parametrize("compress", [None, "RICE", "GZIP", "HCOMPRESS"])
@pytest.mark.parametrize("blank", [True, False])
def test_scaled_integers_and_blank(tmp_path, dtype, compress, blank):
    stored = np.random.default_rng(6).integers(-1000, 1000, (150, 170)).astype(dtype)
    stored[10, 70:75] = -32768
    with fitsio.FITS(str(tmp_path / "x.fits"), "rw") as file:
        file.write(stored, compress=compress)
        file[-1].write_key("BSCALE", 0.25)
        file[-1].write_key("BZERO", 50.0)
        if blank:
            file[-1].write_key("BLANK", -32768)
    expected = 50 + 0.25 * stored.astype(np.float64)
    if blank:
        expected[10, 70:75] = np.nan
    wanted = np.dtype("f4" if dtype == "i2" else "f8")
    check(tmp_path / "x.fits", expected, rtol=1e-6, dtype=wanted)


def test_blank_among_unscaled_and_unsigned(tmp_path):
    values = np.arange(25_500, dtype=np.uint16).reshape(150, 170)
    fits.writeto(tmp_path / "x.fits", values)
    with fitsio.FITS(str(tmp_path / "x.fits"), "rw") as file:
        file[0].write_key("BLANK", 1000 - 32768)
    expected = np.where(values == 1000, np.nan, values)
    check(tmp_path / "x.fits", expected, dtype=np.float32)


def test_scaled_floats(tmp_path, pixels):
    fits.writeto(tmp_path / "x.fits", pixels)
    with fitsio.FITS(str(tmp_path / "x.fits"), "rw") as file:
        file[0].write_key("BSCALE", 2.0)
        file[0].write_key("BZERO", -7.0)
    check(tmp_path / "x.fits", 2 * pixels - 7, rtol=1e-6)


@pytest.mark.parametrize("kind", [None, "RICE_1", "GZIP_1"])
def test_cubes(tmp_path, kind):
    cube = np.random.default_rng(7).integers(0, 1000, (4, 150, 170)).astype(np.int16)
    make = fits.ImageHDU(cube) if kind is None else fits.CompImageHDU(cube, compression_type=kind)
    make.writeto(tmp_path / "x.fits", checksum=True)
    name = str(tmp_path / "x.fits")
    for plane in (0, 3):
        check(name, cube[plane], plane=plane, planes=4)
        assert np.array_equal(read_pixels(name, plane), cube[plane])
    assert np.array_equal(read_pixels(name), cube)
    with pytest.raises(ImageError, match="has 4 planes, so none of number 4"):
        ImageFile(name, 4)
    (tmp_path / "x.fits.gz").write_bytes(gzip.compress((tmp_path / "x.fits").read_bytes()))
    check(tmp_path / "x.fits.gz", cube[2], plane=2, planes=4)


def test_axes_of_length_one(tmp_path, pixels):
    fits.writeto(tmp_path / "x.fits", pixels[None, None])
    check(tmp_path / "x.fits", pixels, planes=1)
    assert read_grid_shape(tmp_path / "x.fits") == (150, 170)


def read_grid_shape(path):
    with ImageFile(str(path)) as image:
        return image.shape


@pytest.fixture
def many(tmp_path):
    """A file of many extensions, as HST writes them: SCI, ERR, SCI, a table, and an odd name."""
    image = np.ones((150, 170), np.float32)
    table = fits.BinTableHDU.from_columns([fits.Column("a", "J", array=[1])], name="CATALOG")
    extensions = [
        fits.PrimaryHDU(),
        fits.ImageHDU(image, name="SCI", ver=1),
        fits.ImageHDU(2 * image, name="ERR", ver=1),
        fits.ImageHDU(3 * image, name="SCI", ver=2),
        table,
        fits.CompImageHDU(4 * image, name="CCD07_r"),
    ]
    fits.HDUList(extensions).writeto(tmp_path / "m.fits")
    return str(tmp_path / "m.fits")


@pytest.mark.parametrize(
    ("extension", "value"),
    [
        ("", 1),
        ("[1]", 1),
        ("[3]", 3),
        ("[5]", 4),
        ("[SCI]", 1),
        ("[err]", 2),
        ("[SCI,2]", 3),
        ("[E*]", 2),
        ("[ccd??_r]", 4),
        ("[CCD*]", 4),
    ],
)
def test_extensions(many, extension, value):
    assert (read_pixels(many + extension) == value).all()


@pytest.mark.parametrize(
    ("extension", "reason"),
    [
        ("[WHT]", r"no extension 'WHT'; it holds 0 PRIMARY \(empty\), 1 SCI \(170 x 150 pixels\)"),
        ("[9]", "no extension 9; it holds"),
        ("[SCI,3]", "no extension 'SCI,3'"),
        ("[CATALOG]", r"has a table in extension 4 \(CATALOG\), not an image"),
        ("[0]", "has 0 axes in extension 0"),
    ],
)
def test_extensions_that_are_not_there(many, extension, reason):
    with pytest.raises(ImageError, match=reason):
        read_pixels(many + extension)


def test_names_that_cfitsio_would_take_for_commands(tmp_path, pixels):
    for name in ("a (1).fits", "a+1.fits", "ü [x].fits"):
        unit = fits.CompImageHDU(pixels)
        (tmp_path / name).write_bytes(b"")
        unit.writeto(tmp_path / name, overwrite=True)
        expected = fits.getdata(tmp_path / name, 1)
        assert np.array_equal(read_pixels(f"{tmp_path / name}[1]"), expected, equal_nan=True)


def test_windows_at_the_edges(tmp_path, pixels):
    fits.writeto(tmp_path / "x.fits", pixels)
    with ImageFile(str(tmp_path / "x.fits")) as image:
        assert image.window(slice(140, 200), slice(160, 999)).shape == (10, 10)
        assert image.window(slice(200, 210), slice(0, 5)).shape == (0, 5)


# ---------------------------------------------------------------- coordinate systems


def gnomonic(ra, dec, ra0, dec0):
    """Standard coordinates xi, eta in degrees (Calabretta & Greisen 2002, section 5.1.3)."""
    ra, dec, ra0, dec0 = (np.radians(angle) for angle in (ra, dec, ra0, dec0))
    cosine = np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(ra - ra0)
    xi = np.cos(dec) * np.sin(ra - ra0)
    eta = np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(ra - ra0)
    return np.degrees(xi / cosine), np.degrees(eta / cosine)


def grid_of(path, cards, shape=(150, 170)):
    header = fits.Header()
    for keyword, value in cards.items():
        header[keyword] = value
    fits.PrimaryHDU(np.zeros(shape, np.int16), header).writeto(path, output_verify="ignore")
    return read_grid(str(path))


TAN = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0,
    "CRPIX1": 85.0, "CRPIX2": 75.0, "CD1_1": -7e-5, "CD1_2": 1e-6, "CD2_1": 1e-6, "CD2_2": 7e-5,
}  # fmt: skip
SIP = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP"}
X, Y = np.array([0.0, 84.0, 150.5, 30.0]), np.array([0.0, 74.0, 20.25, 140.0])


def plane_of(wcs, x=X, y=Y):
    """Where pixels lie in the tangent plane, from the sky that the coordinate system gives."""
    sky = wcs.pixel_to_world(x, y).icrs
    return np.array(gnomonic(sky.ra.deg, sky.dec.deg, 150.0, 2.0))


def linear(u, v, c=TAN):
    return np.array([c["CD1_1"] * u + c["CD1_2"] * v, c["CD2_1"] * u + c["CD2_2"] * v])


def test_tan(tmp_path):
    wcs, shape = grid_of(tmp_path / "x.fits", TAN)
    assert shape == wcs.array_shape == (150, 170)
    np.testing.assert_allclose(plane_of(wcs), linear(X - 84, Y - 74), atol=1e-10)


@pytest.mark.parametrize("suffix", ["-SIP", ""])
def test_sip(tmp_path, suffix):
    sip = {
        "CTYPE1": f"RA---TAN{suffix}", "CTYPE2": f"DEC--TAN{suffix}", "A_ORDER": 2, "B_ORDER": 3,
        "A_2_0": 1e-5, "A_1_1": -2e-5, "B_0_2": 3e-5, "B_0_3": 1e-7,
    }  # fmt: skip
    wcs, _ = grid_of(tmp_path / "x.fits", TAN | sip)
    u, v = X - 84, Y - 74
    # Without the suffix the convention is not asked for: Shupe et al. 2005, section 2.
    used = 1 if suffix else 0
    bent = u + used * (1e-5 * u**2 - 2e-5 * u * v), v + used * (3e-5 * v**2 + 1e-7 * v**3)
    expected = linear(*bent)
    np.testing.assert_allclose(plane_of(wcs), expected, atol=1e-10)


@pytest.mark.parametrize("projection", ["TPV", "TAN"])
def test_tpv_and_the_old_form_of_scamp(tmp_path, projection):
    tpv = {
        "CTYPE1": f"RA---{projection}", "CTYPE2": f"DEC--{projection}",
        "PV1_0": 1e-5, "PV1_1": 1.01, "PV1_2": 2e-3, "PV1_4": 0.3, "PV1_5": 0.1,
        "PV2_0": -2e-5, "PV2_1": 0.99, "PV2_2": 1e-3, "PV2_6": 0.2,
    }  # fmt: skip
    wcs, _ = grid_of(tmp_path / "x.fits", TAN | tpv)
    xi, eta = linear(X - 84, Y - 74)
    expected = [
        1e-5 + 1.01 * xi + 2e-3 * eta + 0.3 * xi**2 + 0.1 * xi * eta,
        -2e-5 + 0.99 * eta + 1e-3 * xi + 0.2 * xi**2,
    ]
    np.testing.assert_allclose(plane_of(wcs), expected, atol=1e-10)


def in_cards(axis, text):
    """A long string as NOAO writes it: 68 characters a card."""
    parts = [text[i : i + 68] for i in range(0, len(text), 68)]
    return {f"WAT{axis}_{n:03d}": part for n, part in enumerate(parts, start=1)}


def test_tnx(tmp_path):
    """Polynomials of type 3 (no Chebyshev), order 3 x 3, half cross terms, as MSCRED writes."""
    lng = [1e-5, 1e-3, 0.05, -2e-3, 0.1, 0.2]
    lat = [-1e-5, 2e-3, -0.04, 1e-3, 0.3, -0.1]
    cards = dict(TAN, CTYPE1="RA---TNX", CTYPE2="DEC--TNX")
    cards["WAT0_001"] = "system=image"
    for axis, name, values in ((1, "ra", lng), (2, "dec", lat)):
        cor = " ".join(f"{v:.10g}" for v in [3, 3, 3, 2, -0.01, 0.01, -0.01, 0.01, *values])
        which = "lngcor" if axis == 1 else "latcor"
        cards |= in_cards(axis, f'wtype=tnx axtype={name} {which} = "{cor} "')
    wcs, _ = grid_of(tmp_path / "x.fits", cards)
    xi, eta = linear(X - 84, Y - 74)
    terms = np.array([np.ones(4), xi, xi**2, eta, xi * eta, eta**2])
    expected = np.array([xi, eta]) + np.array([lng, lat]) @ terms
    np.testing.assert_allclose(plane_of(wcs), expected, atol=1e-10)


def test_tnx_of_chebyshev_polynomials_on_a_turned_image(tmp_path):
    turned = {"CD1_1": -5e-5, "CD1_2": 4e-5, "CD2_1": 4e-5, "CD2_2": 5e-5}
    cards = dict(TAN | turned, CTYPE1="RA---TNX", CTYPE2="DEC--TNX")
    values = [1e-4, -2e-4, 3e-4, 4e-4, 5e-4, -6e-4]
    for axis, name, which in ((1, "ra", "lngcor"), (2, "dec", "latcor")):
        numbers = " ".join(map(str, [1, 3, 2, 1, -0.02, 0.01, -0.01, 0.03, *values]))
        cards |= in_cards(axis, f'wtype=tnx axtype={name} {which} = "{numbers}"')
    wcs, _ = grid_of(tmp_path / "x.fits", cards)
    xi, eta = linear(X - 84, Y - 74, cards)
    s, t = (2 * xi + 0.01) / 0.03, (2 * eta - 0.02) / 0.04
    terms = [np.ones(4), s, 2 * s**2 - 1, t, s * t, (2 * s**2 - 1) * t]
    moved = np.array(values) @ np.array(terms)
    np.testing.assert_allclose(plane_of(wcs), [xi + moved, eta + moved], atol=1e-10)
    sky = wcs.pixel_to_world(X, Y).icrs
    np.testing.assert_allclose(to_pixels(wcs, sky.ra.deg, sky.dec.deg), [X, Y], atol=1e-3)


def test_zpx(tmp_path):
    """Zenithal polynomial R = theta + P3 theta^3, as the Mosaic and 90Prime imagers have it."""
    cards = dict(TAN, CTYPE1="RA---ZPX", CTYPE2="DEC--ZPX", CD1_1=-2e-3, CD2_2=2e-3)
    cards |= in_cards(1, "wtype=zpx axtype=ra projp1=1.0 projp3=337.74")
    cards |= in_cards(2, "wtype=zpx axtype=dec projp1=1.0 projp3=337.74")
    wcs, _ = grid_of(tmp_path / "x.fits", cards)
    u, v = linear(X - 84, Y - 74, cards)
    radius = np.radians(np.hypot(u, v))
    zenith = radius.copy()
    for _ in range(50):
        zenith = radius - 337.74 * zenith**3
    sky = wcs.pixel_to_world(X, Y).icrs
    centre = SkyCoord(150.0, 2.0, unit="deg")
    np.testing.assert_allclose(sky.separation(centre).rad, zenith, atol=1e-11)
    inside = zenith > 0
    angle = centre.position_angle(sky).rad[inside]
    np.testing.assert_allclose(np.cos(angle - np.arctan2(u, v)[inside]), 1, atol=1e-9)


def test_old_pc_matrix(tmp_path):
    """PC001001 of the draft standard, as Pan-STARRS writes it."""
    cards = {k: v for k, v in TAN.items() if not k.startswith("CD")}
    cards |= {"CDELT1": 7e-5, "CDELT2": 7e-5}
    cards |= {"PC001001": -0.8, "PC001002": 0.6, "PC002001": 0.6, "PC002002": 0.8}
    wcs, _ = grid_of(tmp_path / "x.fits", cards)
    u, v = 7e-5 * (X - 84), 7e-5 * (Y - 74)
    np.testing.assert_allclose(plane_of(wcs), [-0.8 * u + 0.6 * v, 0.6 * u + 0.8 * v], atol=1e-10)


def test_real_pan_starrs_stamps_have_north_up_and_east_left():
    files = sorted(SLED.glob("*_g.fits")) if SLED.exists() else []
    if not files:
        pytest.skip("../shared/data/sled_ps1 is not there")
    wcs, _ = read_grid(str(files[0]))
    here, right, above = (wcs.pixel_to_world(*at) for at in ((60, 60), (61, 60), (60, 61)))
    assert here.separation(right).arcsec == pytest.approx(0.25, abs=1e-3)
    assert right.ra < here.ra and above.dec > here.dec


def test_galactic(tmp_path):
    cards = dict(TAN, CTYPE1="GLON-TAN", CTYPE2="GLAT-TAN")
    wcs, _ = grid_of(tmp_path / "x.fits", cards)
    sky = SkyCoord(l=150 * u.deg, b=2 * u.deg, frame="galactic").icrs
    x, y = to_pixels(wcs, np.array([sky.ra.deg]), np.array([sky.dec.deg]))
    np.testing.assert_allclose([x[0], y[0]], [84, 74], atol=1e-6)


def test_b1950(tmp_path):
    cards = dict(TAN, RADESYS="FK4", EQUINOX=1950.0)
    wcs, _ = grid_of(tmp_path / "x.fits", cards)
    sky = SkyCoord(150.0, 2.0, unit="deg", frame="fk4", equinox="B1950").icrs
    x, y = to_pixels(wcs, np.array([sky.ra.deg]), np.array([sky.dec.deg]))
    np.testing.assert_allclose([x[0], y[0]], [84, 74], atol=0.2)
    assert abs(sky.ra.deg - 150.0) > 0.5


def test_latitude_on_the_first_axis(tmp_path):
    cards = dict(TAN, CTYPE1="DEC--TAN", CTYPE2="RA---TAN", CRVAL1=2.0, CRVAL2=150.0)
    wcs, _ = grid_of(tmp_path / "x.fits", cards)
    sky = wcs.pixel_to_world(84, 74)
    assert (sky.ra.deg, sky.dec.deg) == pytest.approx((150, 2))


def test_a_cubes_grid_is_that_of_its_planes(tmp_path):
    cards = dict(TAN, CTYPE3="WAVE", CRVAL3=5e-7, CDELT3=1e-9, CRPIX3=1, CD3_3=1e-9)
    wcs, shape = grid_of(tmp_path / "x.fits", cards, shape=(3, 150, 170))
    assert (wcs.naxis, shape) == (2, (150, 170))
    np.testing.assert_allclose(plane_of(wcs), linear(X - 84, Y - 74), atol=1e-10)


def test_the_grid_of_a_compressed_image(tmp_path, pixels):
    wcs = tan_wcs(pixels.shape)
    fits.CompImageHDU(pixels, wcs.to_header(), name="SCI").writeto(tmp_path / "x.fits")
    read, shape = read_grid(f"{tmp_path}/x.fits[SCI]")
    assert shape == pixels.shape
    separation = read.pixel_to_world(X, Y).separation(wcs.pixel_to_world(X, Y))
    assert separation.arcsec.max() < 1e-6


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"CD1_1": 0.0, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 0.0}, "singular"),
        ({"CD1_1": 1e-5, "CD1_2": 1e-5, "CD2_1": 1e-5, "CD2_2": 1e-5}, "singular"),
        ({"CTYPE1": "RA---XYZ", "CTYPE2": "DEC--XYZ"}, "projection"),
        ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "no celestial"),
        ({"CTYPE2": "LINEAR"}, "elestial"),
        (SIP | {"A_ORDER": 20_000, "B_ORDER": 2}, "A_ORDER is 20000; it is at most 9"),
        ({"WCSAXES": 100_000}, "WCSAXES is 100000"),
    ],
)
def test_a_coordinate_system_that_cannot_be(tmp_path, changes, reason):
    with pytest.raises(ImageError, match=reason) as raised:
        grid_of(tmp_path / "x.fits", TAN | changes)
    assert raised.value.flag == Flag.NO_WCS


def test_a_dummy_at_the_origin_is_read(tmp_path):
    wcs, _ = grid_of(tmp_path / "x.fits", TAN | {"CRVAL1": 0.0, "CRVAL2": 0.0})
    assert wcs.pixel_to_world(84, 74).separation(SkyCoord(0, 0, unit="deg")).arcsec < 1e-6


@pytest.mark.parametrize("digits", range(3, 17))
def test_iraf_strings_of_every_length(tmp_path, digits):
    """Wherever a card happens to end; and without blanks around the equals sign."""
    cards = dict(TAN, CTYPE1="RA---TNX", CTYPE2="DEC--TNX")
    for axis, name, which in ((1, "ra", "lngcor"), (2, "dec", "latcor")):
        values = " ".join(f"{v:.{digits}e}" for v in [3, 2, 2, 0, -1, 1, -1, 1, 1e-4, 2e-3, 3e-3])
        cards |= in_cards(axis, f'wtype=tnx axtype={name} {which}="{values}"')
    wcs, _ = grid_of(tmp_path / "x.fits", cards)
    xi, eta = linear(X - 84, Y - 74)
    moved = 1e-4 + 2e-3 * xi + 3e-3 * eta
    np.testing.assert_allclose(plane_of(wcs), [xi + moved, eta + moved], atol=1e-10)


def test_a_broken_iraf_string_does_not_spoil_the_next_file(tmp_path):
    cards = dict(TAN, CTYPE1="RA---TNX", CTYPE2="DEC--TNX")
    broken = cards | in_cards(1, 'wtype=tnx axtype=ra lngcor = "3 2 2 0 -1 1 -1 1 many"')
    with pytest.raises(ImageError, match="'many'") as raised:
        grid_of(tmp_path / "broken.fits", broken)
    assert raised.value.flag == Flag.NO_WCS
    wcs, _ = grid_of(tmp_path / "good.fits", cards)
    np.testing.assert_allclose(plane_of(wcs), linear(X - 84, Y - 74), atol=1e-10)


def test_distortions_in_tables_of_other_extensions(tmp_path, pixels):
    wcs = tan_wcs(pixels.shape)
    table = np.random.default_rng(9).normal(0, 2, (10, 10)).astype(np.float32)
    tables = [DistortionLookupTable(t, (1, 1), (1, 1), (17, 15)) for t in (table, table.T.copy())]
    wcs.cpdis1, wcs.cpdis2 = tables
    file = wcs.to_fits(relax=True)
    file[0].data = pixels
    file.writeto(tmp_path / "x.fits")
    read, _ = read_grid(str(tmp_path / "x.fits"))
    assert read.pixel_to_world(X, Y).separation(wcs.pixel_to_world(X, Y)).arcsec.max() < 1e-5


@pytest.mark.parametrize("compressed", [False, True])
def test_the_asinh_scale_of_pan_starrs_is_undone(tmp_path, compressed):
    flux = np.array([[0.0, 100.0, -35.5, 5.0e4]] * 40, np.float32)
    soft, offset = 20.0, -12.5
    stored = 1.0857362047581296 * np.arcsinh((flux - offset) / (2 * soft))
    scaled = np.round(stored / 1e-4).astype(np.int32)
    header = fits.Header({"BSOFTEN": soft, "BOFFSET": offset})
    make = fits.CompImageHDU if compressed else fits.ImageHDU
    unit = make(scaled, header)
    unit.header["BSCALE"] = 1e-4
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(tmp_path / "stack.fits")
    with ImageFile(f"{tmp_path}/stack.fits[1]") as image:
        np.testing.assert_allclose(image.read(), flux, rtol=1e-3, atol=0.01)
        window = image.window(slice(2, 5), slice(1, 3))
        np.testing.assert_allclose(window, flux[2:5, 1:3], rtol=1e-3, atol=0.01)
        assert image.dtype == image.read().dtype
