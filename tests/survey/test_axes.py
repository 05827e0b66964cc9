"""Longitude and latitude in any order, on any axes: read right, or refused by name."""

import re

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from luneta.survey.flags import Flag
from luneta.survey.images import ImageError
from luneta.survey.wcs import read_grid, to_pixels, to_sky, wcs_notes

X, Y = np.array([0.0, 84.0, 150.5, 30.0]), np.array([0.0, 74.0, 20.25, 140.0])
TAN = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0,
    "CRPIX1": 85.0, "CRPIX2": 75.0, "CD1_1": -7e-5, "CD1_2": 1e-6, "CD2_1": 1e-6, "CD2_2": 7e-5,
}  # fmt: skip


def typed(projection, **cards):
    return TAN | {"CTYPE1": f"RA---{projection}", "CTYPE2": f"DEC--{projection}"} | cards


def iraf(kind, first, second):
    return {
        "WAT1_001": f"wtype={kind} axtype=ra {first}",
        "WAT2_001": f"wtype={kind} axtype=dec {second}",
    }


COR = "3 2 2 0 -1 1 -1 1 {} 2e-3 3e-3"
SYSTEMS = {
    "TAN": TAN,
    "SIN": typed("SIN"),
    "SIP": typed("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=1e-5, A_1_1=-2e-5, B_0_2=3e-5),
    "TPV": typed("TPV", PV1_1=1.01, PV1_2=2e-3, PV1_4=0.3, PV2_1=0.99, PV2_6=0.2),
    "TNX": typed("TNX")
    | iraf("tnx", f'lngcor = "{COR.format(1e-4)}"', f'latcor = "{COR.format(-5e-4)}"'),
    "ZPX": typed("ZPX", CD1_1=-2e-3, CD2_2=2e-3)
    | iraf("zpx", "projp1=1.0 projp3=337.74", "projp1=1.0 projp3=337.74"),
}


def with_axes_exchanged(cards):
    """The same sky on the same pixels, with the latitude as first axis."""
    other = {"1": "2", "2": "1"}
    keyword = re.compile(r"(CTYPE|CRVAL|CD|PV|WAT)([12])(.*)")

    def exchanged(name):
        match = keyword.fullmatch(name)
        return f"{match[1]}{other[match[2]]}{match[3]}" if match else name

    return {exchanged(name): value for name, value in cards.items()}


def grid_of(path, cards, shape=(150, 170)):
    header = fits.Header()
    for name, value in cards.items():
        header[name] = value
    fits.writeto(path, np.zeros(shape, np.int16), header, overwrite=True, output_verify="ignore")
    return read_grid(str(path))


@pytest.mark.parametrize("name", sorted(SYSTEMS.keys() - {"TPV"}))
def test_the_order_of_longitude_and_latitude_does_not_matter(tmp_path, name):
    usual, _ = grid_of(tmp_path / "usual.fits", SYSTEMS[name])
    other, _ = grid_of(tmp_path / "other.fits", with_axes_exchanged(SYSTEMS[name]))
    expected = SkyCoord(*to_sky(usual, X, Y), unit="deg")
    ra, dec = to_sky(other, X, Y)
    assert SkyCoord(ra, dec, unit="deg").separation(expected).arcsec.max() < 1e-6
    np.testing.assert_allclose(to_pixels(other, ra, dec), [X, Y], atol=1e-4)
    if name in ("TAN", "SIN", "SIP"):
        astropys = WCS(fits.getheader(tmp_path / "other.fits")).pixel_to_world(X, Y)
        assert astropys.separation(expected).arcsec.max() < 1e-6


@pytest.mark.parametrize("projection", ["TPV", "TAN"])
def test_polynomials_of_scamp_with_the_latitude_first_are_refused(tmp_path, projection):
    """The convention speaks of xi on axis 1; what it means otherwise is not known."""
    cards = with_axes_exchanged(SYSTEMS["TPV"])
    cards |= {"CTYPE1": f"DEC--{projection}", "CTYPE2": f"RA---{projection}"}
    with pytest.raises(ImageError, match="PV.* the latitude is its first axis") as raised:
        grid_of(tmp_path / "x.fits", cards)
    assert raised.value.flag == Flag.NO_WCS


def third(number, ctype="FREQ", value=1.4e9, step=1e6):
    return {
        f"CTYPE{number}": ctype, f"CRVAL{number}": value, f"CRPIX{number}": 1.0,
        f"CD{number}_{number}": step,
    }  # fmt: skip


def moved(cards, places):
    """Cards with their axes renumbered, such as {1: 2, 2: 3}."""

    def renumbered(match):
        return match[1] + re.sub(r"\d", lambda n: str(places[int(n[0])]), match[2])

    pattern = re.compile(r"(CTYPE|CRVAL|CRPIX|CD)(\d(?:_\d)?)")
    return {pattern.sub(renumbered, name): value for name, value in cards.items()}


@pytest.mark.parametrize("cards", [TAN, with_axes_exchanged(TAN)], ids=["ra dec", "dec ra"])
def test_further_axes_behind_the_celestial_ones_are_left_out(tmp_path, cards):
    plain, _ = grid_of(tmp_path / "plain.fits", TAN)
    cube, shape = grid_of(tmp_path / "cube.fits", cards | third(3), (3, 150, 170))
    assert shape == (150, 170)
    np.testing.assert_allclose(to_sky(cube, X, Y), to_sky(plain, X, Y), atol=1e-10)


@pytest.mark.parametrize(
    ("places", "shape", "words"),
    [
        ({1: 2, 2: 3}, (150, 170, 3), r"axes are 2 and 3 \(CTYPE1 is 'FREQ', CTYPE2 is 'RA---TAN'"),
        ({1: 1, 2: 3}, (150, 3, 170), r"axes are 1 and 3 \(CTYPE1 is 'RA---TAN', CTYPE2 is 'FREQ'"),
    ],
)
def test_celestial_axes_elsewhere_are_refused_by_name(tmp_path, places, shape, words):
    (free,) = {1, 2, 3} - set(places.values())
    with pytest.raises(ImageError, match=words) as raised:
        grid_of(tmp_path / "x.fits", moved(TAN, places) | third(free), shape)
    assert raised.value.flag == Flag.NO_WCS
    assert "reorder the axes" in str(raised.value)


@pytest.mark.parametrize(
    ("frame", "meant"),
    [
        ({"RADESYS": "icrs"}, ("icrs", None)),
        ({"RADESYS": "ICRF"}, ("icrs", None)),
        ({"RADESYS": "fk5", "EQUINOX": 2000.0}, ("fk5", "J2000")),
        ({"RADESYS": "fk4", "EQUINOX": 1950.0}, ("fk4", "B1950")),
        ({"RADECSYS": "Fk4"}, ("fk4", "B1950")),
        ({"EQUINOX": "J2000.0"}, ("fk5", "J2000")),
        ({"EQUINOX": "B1950"}, ("fk4", "B1950")),
        ({"EPOCH": "1950"}, ("fk4", "B1950")),
        ({"EQUINOX": "", "RADESYS": " "}, ("icrs", None)),
        ({"EQUINOX": 0.0}, ("icrs", None)),
    ],
)
def test_frames_as_they_are_written(tmp_path, frame, meant):
    wcs, _ = grid_of(tmp_path / "x.fits", TAN | frame)
    name, equinox = meant
    more = {} if equinox is None else {"equinox": equinox}
    expected = SkyCoord(150.0, 2.0, unit="deg", frame=name, **more).icrs
    centre = SkyCoord(*to_sky(wcs, 84.0, 74.0), unit="deg")
    assert centre.separation(expected).arcsec < 1e-6


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"RADESYS": "GEOCENTRIC"}, "RADESYS is 'GEOCENTRIC'; known are ICRS, ICRF"),
        ({"EQUINOX": "of date"}, "EQUINOX is 'of date', not a year"),
    ],
)
def test_a_frame_that_is_not_known_is_named(tmp_path, cards, words):
    with pytest.raises(ImageError, match=words) as raised:
        grid_of(tmp_path / "x.fits", TAN | cards)
    assert raised.value.flag == Flag.NO_WCS


def test_two_values_of_one_keyword_are_refused(tmp_path):
    path = tmp_path / "x.fits"
    grid_of(path, TAN)
    content = path.read_bytes()
    blank = content.index(b"END" + b" " * 77)
    again = b"CRVAL1  =                151.0".ljust(80) + b"END".ljust(80)
    path.write_bytes(content[:blank] + again + content[blank + 160 :])
    with pytest.raises(ImageError, match=r"CRVAL1 stands twice in its header, as 150.0 and as 151"):
        read_grid(str(path))


@pytest.mark.parametrize(
    ("system", "cards", "words"),
    [
        ("TPV", {"PV1_1": "abc"}, "PV1_1 of its coordinate system is 'abc', not a number"),
        ("SIP", {"A_2_0": "NaN"}, "A_2_0 of its coordinate system is 'NaN', not a number"),
        ("TAN", {"LONPOLE": "x"}, "LONPOLE of its coordinate system is 'x', not a number"),
    ],
)
def test_a_number_that_is_none_is_named(tmp_path, system, cards, words):
    with pytest.raises(ImageError, match=words):
        grid_of(tmp_path / "x.fits", SYSTEMS[system] | cards)


@pytest.mark.parametrize("name", ["SIP", "TAN", "TNX"])
def test_the_planes_of_a_cube_lie_where_its_first_two_axes_say(tmp_path, name):
    usual, _ = grid_of(tmp_path / "usual.fits", SYSTEMS[name])
    for number, more in enumerate([{}, third(3)]):
        cube, shape = grid_of(tmp_path / f"{number}.fits", SYSTEMS[name] | more, (3, 150, 170))
        assert shape == (150, 170)
        np.testing.assert_allclose(to_sky(cube, X, Y), to_sky(usual, X, Y), atol=1e-10)


@pytest.mark.parametrize("keyword", ["MJD-OBS", "WAT1_001", "CHECKSUM", "A_2_0"])
def test_a_keyword_that_is_not_used_may_stand_twice(tmp_path, keyword):
    path = tmp_path / "x.fits"
    grid_of(path, TAN)
    content = path.read_bytes()
    end = content.index(b"END" + b" " * 77)
    cards = b"".join(f"{keyword:<8}= {value:>20}".encode().ljust(80) for value in (1.0, 2.0))
    path.write_bytes(content[:end] + cards + b"END".ljust(80) + content[end + 240 :])
    assert read_grid(str(path))[1] == (150, 170)


def test_hierarch_does_not_stand_for_a_keyword_of_the_standard(tmp_path):
    wcs, _ = grid_of(tmp_path / "x.fits", TAN | {"HIERARCH EQUINOX": 1950.0})
    assert to_sky(wcs, 84.0, 74.0)[0] == pytest.approx(150.0)


def extension(path, primary, inner):
    first, second = fits.PrimaryHDU(), fits.ImageHDU(np.zeros((150, 170), np.int16), name="SCI")
    first.header.update(primary)
    second.header.update(inner)
    fits.HDUList([first, second]).writeto(path)
    return f"{path}[SCI]"


def test_an_extension_inherits_the_coordinate_system_of_the_primary_header(tmp_path):
    wcs, _ = read_grid(extension(tmp_path / "x.fits", TAN, {"INHERIT": True}))
    np.testing.assert_allclose(to_sky(wcs, 84.0, 74.0), (150.0, 2.0), atol=1e-10)


def test_an_extension_inherits_the_frame_if_it_has_none_of_its_own(tmp_path):
    frame = {"RADESYS": "FK4", "EQUINOX": 1950.0}
    wcs, _ = read_grid(extension(tmp_path / "x.fits", frame, TAN | {"INHERIT": True}))
    assert abs(to_sky(wcs, 84.0, 74.0)[0] - 150.0) > 0.5
    own, _ = read_grid(
        extension(tmp_path / "y.fits", frame, TAN | {"INHERIT": True, "RADESYS": "ICRS"})
    )
    assert to_sky(own, 84.0, 74.0)[0] == pytest.approx(150.0)


def test_without_inherit_the_message_says_where_the_coordinate_system_is(tmp_path):
    with pytest.raises(ImageError, match="the primary header has one, but INHERIT is not T"):
        read_grid(extension(tmp_path / "x.fits", TAN, {}))


def test_coefficients_of_sip_that_are_left_over_are_noted(tmp_path):
    from luneta.survey.images import ImageFile

    sip = {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5}
    grid_of(tmp_path / "left.fits", TAN | sip)
    grid_of(tmp_path / "asked.fits", typed("TAN-SIP") | sip)
    with (
        ImageFile(str(tmp_path / "left.fits")) as left,
        ImageFile(str(tmp_path / "asked.fits")) as asked,
    ):
        assert "SIP coefficients (A_ORDER and the like) are not used" in wcs_notes(left.unit)[0]
        assert wcs_notes(asked.unit) == ()


@pytest.mark.parametrize(("projection", "step"), [("TAN", 0.3), ("ARC", 0.5), ("CAR", 1.0)])
def test_fields_wider_than_ten_degrees(tmp_path, projection, step):
    cards = typed(projection, CD1_1=-step, CD1_2=0.0, CD2_1=0.0, CD2_2=step)
    cards |= {"CRVAL2": 0.0, "CRPIX1": 85.0, "CRPIX2": 75.0}
    wcs, _ = grid_of(tmp_path / "x.fits", cards)
    x, y = np.array([10.0, 84.0, 160.0, 120.0]), np.array([20.0, 74.0, 30.0, 140.0])
    ra, dec = to_sky(wcs, x, y)
    assert SkyCoord(ra, dec, unit="deg").separation(SkyCoord(150, 0, unit="deg")).deg.max() > 20
    np.testing.assert_allclose(to_pixels(wcs, ra, dec), [x, y], atol=1e-4)


def test_a_distortion_does_not_fold_the_sky_around_onto_the_image(tmp_path):
    strong = typed("TAN-SIP", A_ORDER=2, B_ORDER=2, A_2_0=4e-3, B_0_2=4e-3)
    wcs, _ = grid_of(tmp_path / "x.fits", strong)
    ra, dec = np.meshgrid(np.linspace(149.97, 150.03, 90), np.linspace(1.97, 2.03, 90))
    x, y = to_pixels(wcs, ra.ravel(), dec.ravel())
    inside = (x > -0.5) & (x < 169.5) & (y > -0.5) & (y < 149.5)
    back = SkyCoord(*to_sky(wcs, x[inside], y[inside]), unit="deg")
    true = SkyCoord(ra.ravel()[inside], dec.ravel()[inside], unit="deg")
    assert inside.sum() > 50
    assert back.separation(true).arcsec.max() < 0.3
