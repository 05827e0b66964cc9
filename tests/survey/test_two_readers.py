"""Where two readers read the same file, they read the same: pixels, grids and refusals."""

import gzip
import math
from dataclasses import dataclass

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from luneta.cutouts.plain_fits import read_plain
from luneta.cutouts.stamp_files import StampFiles
from luneta.survey.footprints import Footprint, survey_footprints, unit_vectors
from luneta.survey.images import ImageError, ImageFile, read_pixels
from luneta.survey.tiles import BandFiles, Tile
from luneta.survey.wcs import read_grid, to_pixels, to_sky

SHAPE = (5, 7)
TYPES = {8: "u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}
NUMBERS = {
    "BSCALE": [1.0, 2.5, -1.0, 1],
    "BZERO": [0.0, 32768, -0.5, 2147483648],
    "BLANK": [3, 0, -7],
    "BSOFTEN": [20.0],
    "BOFFSET": [-12.5, 0.0],
    "OBJECT": ["'END'", "'BSCALE'"],
    "DATASUM": ["'0'", "'1'"],
    "PCOUNT": [0, 4000],
    "GCOUNT": [1, 2],
}


def card(keyword, value) -> bytes:
    return f"{keyword:<8}= {value!s:>20}".encode().ljust(80)


def header_of(cards: list[bytes], extension=False, end=b" ") -> bytes:
    first = b"XTENSION= 'IMAGE   '" if extension else b"SIMPLE  =                    T"
    content = b"".join([first.ljust(80), *cards, b"END".ljust(80)])
    return content.ljust(math.ceil(len(content) / 2880) * 2880, end)


def layout(bitpix, shape, extension=False) -> list[bytes]:
    cards = [card("BITPIX", bitpix), card("NAXIS", len(shape))]
    cards += [card(f"NAXIS{n}", length) for n, length in enumerate(shape[::-1], start=1)]
    return cards + ([card("PCOUNT", 0), card("GCOUNT", 1)] if extension else [])


@dataclass(frozen=True)
class OddFile:
    """How a file departs from the plainest image."""

    bitpix: int
    shape: tuple[int, ...]
    cards: tuple[tuple[str, str], ...]
    in_extension: bool
    after_end: bytes
    after_data: str
    cut: bool
    suffix: str

    def write(self, path):
        cards = layout(self.bitpix, self.shape, self.in_extension)
        cards += [card(keyword, value) for keyword, value in self.cards]
        pixels = np.arange(math.prod(self.shape)) % 30 - 7
        content = header_of(cards, self.in_extension, self.after_end)
        content += pixels.astype(TYPES[self.bitpix]).tobytes().ljust(2880, b"\0")
        if self.in_extension:
            content = header_of([card("BITPIX", 8), card("NAXIS", 0)]) + content
        content += AFTER[self.after_data]
        content = content[:-2800] if self.cut else content
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


AFTER = {"": b"", "newline": b"\n", "zeros": bytes(2880), "junk": b"junk", "block": b"x" * 2880}


def odd_files():
    of_pixels = st.sampled_from(
        [(k, str(v)) for key, values in NUMBERS.items() for v in values for k in (key, key.lower())]
    )
    return st.builds(
        OddFile,
        st.sampled_from(sorted(TYPES)),
        st.sampled_from([SHAPE, (3, *SHAPE)]),
        st.lists(of_pixels, max_size=4).map(tuple),
        st.booleans(),
        st.sampled_from([b" ", b" ", b"\0"]),
        st.sampled_from(["", "", *AFTER]),
        st.sampled_from([False, False, False, True]),
        st.sampled_from([".fits", ".fits", ".fit", ".fits.gz"]),
    )


def outcome(read):
    try:
        return read()
    except ImageError as error:
        return str(error)


def by_hand(path):
    """Stored numbers by astropy; what they stand for by the standard, and by Waters et al. 2020."""
    with fits.open(path, memmap=False, do_not_scale_image_data=True) as file:
        unit = next(unit for unit in file if unit.header["NAXIS"] >= 2)
        header, stored = unit.header, np.array(unit.data)
    pixels = stored * float(header.get("BSCALE", 1)) + float(header.get("BZERO", 0))
    if stored.dtype.kind in "iu" and "BLANK" in header:
        pixels[stored == header["BLANK"]] = np.nan
    if {"BSOFTEN", "BOFFSET"} <= set(header):
        asinh = pixels * np.log(10) / 2.5
        with np.errstate(over="ignore"):
            return header["BOFFSET"] + 2 * header["BSOFTEN"] * np.sinh(asinh)
    return pixels


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=250, deadline=None)
@given(odd_files())
def test_every_reader_of_pixels_reads_the_same(tmp_path_factory, odd):
    path = tmp_path_factory.getbasetemp() / f"odd{odd.suffix}"
    odd.write(path)
    full = outcome(lambda: read_pixels(str(path)))
    stamp = outcome(lambda: StampFiles().read(str(path)))
    plain = read_plain(str(path))
    if isinstance(full, str):
        assert stamp == full
        assert plain is None
        return
    np.testing.assert_array_equal(stamp, full)
    assert plain is None or np.array_equal(plain.pixels, full, equal_nan=True)
    with ImageFile(str(path)) as image:
        part = image.window(slice(1, 4), slice(2, 6))
    np.testing.assert_array_equal(part, full.reshape(-1, *SHAPE)[0, 1:4, 2:6])
    single = full.dtype.itemsize <= 4 and full.dtype.kind == "f"
    expected = np.clip(by_hand(path), -3e38, 3e38) if single else by_hand(path)
    np.testing.assert_allclose(np.clip(full, -3e38, 3e38) if single else full, expected, rtol=2e-5)


@pytest.mark.parametrize("written", ["BSCALE", "bscale"])
def test_a_keyword_that_changes_pixels_is_seen_however_it_is_written(tmp_path, written):
    cards = [*layout(16, SHAPE), card(written, 2.5)]
    pixels = np.arange(35, dtype=">i2").reshape(SHAPE)
    path = tmp_path / "x.fits"
    path.write_bytes(header_of(cards) + pixels.tobytes().ljust(2880, b"\0"))
    assert read_plain(str(path)) is None
    assert StampFiles().read(str(path))[0, 2] == 5.0


def test_hierarch_scales_no_pixel(tmp_path):
    cards = [*layout(16, SHAPE), b"HIERARCH BSCALE = 2.0".ljust(80)]
    pixels = np.arange(35, dtype=">i2").reshape(SHAPE)
    path = tmp_path / "x.fits"
    path.write_bytes(header_of(cards) + pixels.tobytes().ljust(2880, b"\0"))
    np.testing.assert_array_equal(read_plain(str(path)).pixels, pixels)
    np.testing.assert_array_equal(read_pixels(str(path)), pixels)


def test_a_keyword_of_pixels_with_two_values_is_refused(tmp_path):
    cards = [*layout(16, SHAPE), card("BSCALE", 1.0), card("BSCALE", 2.0)]
    path = tmp_path / "x.fits"
    path.write_bytes(header_of(cards) + bytes(2880))
    with pytest.raises(ImageError, match=r"BSCALE stands twice in extension 0, as 1.0 and as 2.0"):
        read_pixels(str(path))


# Grids

STEP = 0.25 / 3600
CENTRE = {"RA": 150.0, "DEC": 2.0, "GLON": 238.0, "GLAT": 42.0}
MATRICES = {
    "CD": {"CD1_1": -STEP, "CD1_2": 1e-6, "CD2_1": 1e-6, "CD2_2": STEP},
    "CDELT": {"CDELT1": -STEP, "CDELT2": STEP},
    "CROTA": {"CDELT1": -STEP, "CDELT2": STEP, "CROTA2": 20.0},
    "PC": {"CDELT1": -STEP, "CDELT2": STEP, "PC1_2": 0.1, "PC2_1": -0.1},
}
FRAMES = [
    {}, {"RADESYS": "ICRS"}, {"RADESYS": "icrs", "EQUINOX": 2000.0}, {"RADESYS": "ICRF"},
    {"RADESYS": "FK5", "EQUINOX": 2000.0}, {"RADESYS": "fk5", "EQUINOX": "J2000.0"},
    {"EQUINOX": 2000.0}, {"EQUINOX": 1950.0}, {"EQUINOX": "B1950"}, {"EPOCH": 1950.0},
    {"RADECSYS": "FK4"}, {"RADESYS": "FK5", "EQUINOX": 1975.0}, {"RADESYS": "GEOCENTRIC"},
]  # fmt: skip
TWISTS = [
    {}, {}, {}, {"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-5, "B_0_2": 2e-5},
    {"PV2_1": 1.0}, {"LONPOLE": 170.0}, {"WCSAXES": 2}, {"CUNIT1": "deg", "CUNIT2": "deg"},
    {"CUNIT1": "degree", "CUNIT2": "degree"}, {"CRVAL1": "many"},
]  # fmt: skip


def grid_cards(lon, lat, projection, swapped, matrix, frame, twist) -> dict:
    """Cards of a coordinate system, with the latitude first if swapped."""
    names = (lat, lon) if swapped else (lon, lat)
    types = {f"CTYPE{n}": f"{name:-<4}-{projection}" for n, name in enumerate(names, start=1)}
    values = {f"CRVAL{n}": CENTRE[name] for n, name in enumerate(names, start=1)}
    place = {"CRPIX1": 21.0, "CRPIX2": 14.0}
    return types | values | place | MATRICES[matrix] | frame | twist


@st.composite
def grids(draw):
    lon, lat = draw(st.sampled_from([("RA", "DEC"), ("RA", "DEC"), ("GLON", "GLAT")]))
    projection = draw(st.sampled_from(["TAN", "TAN", "TAN", "SIN", "TAN-SIP", "ZEA"]))
    swapped = draw(st.sampled_from([False, False, True]))
    matrix = draw(st.sampled_from(sorted(MATRICES)))
    frame = draw(st.sampled_from(FRAMES))
    return grid_cards(lon, lat, projection, swapped, matrix, frame, draw(st.sampled_from(TWISTS)))


def write_grid(path, cards, lower=False, inherit=False):
    lines = [card(k.lower() if lower else k, f"'{v}'" if isinstance(v, str) else v)
             for k, v in cards.items()]  # fmt: skip
    pixels = np.zeros((30, 40), ">f4").tobytes().ljust(2880 * 2, b"\0")
    first = [card("BITPIX", -32), *layout(-32, (30, 40))[1:]]
    if not inherit:
        path.write_bytes(header_of(first + lines) + pixels)
        return
    primary = header_of([card("BITPIX", 8), card("NAXIS", 0), *lines])
    inner = header_of([*layout(-32, (30, 40), True), card("INHERIT", "T")], extension=True)
    path.write_bytes(primary + inner + pixels)


def seen_by_planning(path):
    """Where planning sees the image: pixels of probes by the footprint's matrix, or a reason."""
    tile = Tile("a", "a", {"r": BandFiles(str(path))})
    memory = path.with_suffix(".json")
    memory.unlink(missing_ok=True)
    return survey_footprints({"a": tile}, "r", {}, memory)["a"]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(grids(), st.booleans(), st.booleans())
@example(grid_cards("RA", "DEC", "TAN", True, "CD", {}, {}), False, False)
@example(grid_cards("RA", "DEC", "TAN", False, "CD", {"EQUINOX": "B1950"}, {}), False, False)
def test_every_reader_of_grids_sees_the_same_sky(tmp_path_factory, cards, lower, inherit):
    assume(not (lower and inherit))
    path = tmp_path_factory.getbasetemp() / "grid.fits"
    write_grid(path, cards, lower, inherit)
    planned = seen_by_planning(path)
    grid = outcome(lambda: read_grid(str(path)))
    if isinstance(grid, str):
        assert planned.reason == grid
        return
    wcs, shape = grid
    assert isinstance(planned, Footprint)
    assert shape == planned.shape == (30, 40)
    x, y = np.array([0.0, 39.0, 12.25, -0.5]), np.array([0.0, 29.0, 20.5, 14.0])
    ra, dec = to_sky(wcs, x, y)
    np.testing.assert_allclose(to_pixels(wcs, ra, dec), [x, y], atol=1e-4)
    if planned.matrix is not None:
        scaled = np.reshape(planned.matrix, (3, 3)) @ unit_vectors(ra, dec).T
        np.testing.assert_allclose(scaled[:2] / scaled[2], [x, y], atol=1e-4)
    assert planned.centre @ unit_vectors(*to_sky(wcs, 19.5, 14.5)) > np.cos(np.radians(2 / 3600))
    if is_standard(cards) and not inherit:
        sky = WCS(fits.getheader(path)).pixel_to_world(x, y).icrs
        assert sky.separation(SkyCoord(ra, dec, unit="deg")).arcsec.max() < 1e-3


def is_standard(cards) -> bool:
    """Whether astropy reads these cards as the standard means them."""
    frames = {"ICRS", "FK5", "FK4", None}
    sip = "A_ORDER" in cards and not cards["CTYPE1"].endswith("-SIP")
    known = cards.get("RADESYS") in frames and cards.get("RADECSYS") in frames
    return known and not sip and not isinstance(cards.get("EQUINOX"), str)
