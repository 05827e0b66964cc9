import io
import os

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st

from fits_files import tan_wcs, write_image
from luneta.survey.fits_checks import data_sum
from luneta.survey.flags import DESCRIPTIONS, UNUSABLE, Flag, count
from luneta.survey.images import ImageError, ImageFile, read_pixels
from luneta.survey.wcs import read_grid, to_pixels


@pytest.fixture
def pixels():
    return np.random.default_rng(1).normal(100, 5, (200, 220)).astype(np.float32)


def test_compressed_and_plain_images_are_read_as_astropy_reads_them(tmp_path, pixels):
    plain = write_image(tmp_path / "p.fits", pixels, tan_wcs(), compressed=False)
    assert np.array_equal(read_pixels(plain), pixels)
    compressed = write_image(tmp_path / "c.fits", pixels, tan_wcs())
    assert np.array_equal(read_pixels(compressed), fits.getdata(tmp_path / "c.fits", 1))


def test_without_an_extension_the_first_image_is_read(tmp_path, pixels):
    write_image(tmp_path / "p.fits", pixels, tan_wcs())
    assert read_pixels(str(tmp_path / "p.fits")).shape == (200, 220)


def damage(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[:keep])


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        (1000, "truncated in the header of extension 0: the file ends after 1,000 bytes"),
        (3000, "truncated in the header of extension 1: the file ends after 3,000 bytes"),
        (20_000, "truncated: .* promised in extension 1"),
        (50_000, "truncated: .* promised in extension 1"),
    ],
)
def test_a_truncated_file_is_an_error_never_a_short_read(
    tmp_path, pixels, compressed, keep, reason
):
    name = write_image(tmp_path / "t.fits", pixels, tan_wcs(), compressed=compressed)
    damage(tmp_path / "t.fits", keep)
    for read in (read_pixels, read_grid):
        with pytest.raises(ImageError, match=reason) as raised:
            read(name)
        assert raised.value.flag == Flag.UNREADABLE_FILE
        assert raised.value.path == str(tmp_path / "t.fits")


def test_the_reason_of_a_truncation_has_its_numbers(tmp_path, pixels):
    write_image(tmp_path / "t.fits", pixels, compressed=False)
    path = tmp_path / "t.fits"
    path.write_bytes(path.read_bytes()[: 2 * 2880 + 1000])
    with pytest.raises(
        ImageError, match=r"200 rows \(176,000 bytes of data\).* 175,000 bytes short"
    ):
        read_pixels(str(path))


def test_a_file_whose_last_block_is_not_filled_up_is_whole(tmp_path, pixels):
    fits.writeto(tmp_path / "t.fits", pixels)
    path = tmp_path / "t.fits"
    path.write_bytes(path.read_bytes()[: 2880 + pixels.nbytes])
    assert np.array_equal(read_pixels(str(path)), pixels)


def test_missing_file(tmp_path):
    with pytest.raises(ImageError, match="does not exist") as raised:
        read_pixels(str(tmp_path / "none.fits"))
    assert raised.value.flag == Flag.MISSING_FILE


def fits_bytes(pixels, **cards) -> bytearray:
    """A plain FITS file; cards of its header replaced as written."""
    file = io.BytesIO()
    fits.writeto(file, pixels)
    content = bytearray(file.getvalue())
    for keyword, card in cards.items():
        place = content.index(f"{keyword:<8}=".encode())
        content[place : place + 80] = card.encode("latin-1").ljust(80)
    return content


SMALL = np.arange(600, dtype=np.float32).reshape(20, 30)

DEFECTS = {
    "empty": (b"", "is empty"),
    "web page": (b"<html>not found</html>", "is a web page"),
    "text": (b"object ra dec\n1 2 3\n" * 300, "is not FITS: it starts with b'object ra'"),
    "zip": (b"PK\x03\x04" + bytes(5000), "is a zip archive"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(300), "is a JPEG"),
    "no SIMPLE": (fits_bytes(SMALL)[80:], "is not FITS: it starts with b'BITPIX"),
    "no END": (
        fits_bytes(SMALL).replace(b"END" + b" " * 77, b" " * 80),
        "has no END in the header of extension 0",
    ),
    "NAXIS too big": (fits_bytes(SMALL, NAXIS2="NAXIS2  =    60000"), "truncated: 60,000 rows"),
    "NAXIS too small": (
        fits_bytes(np.ones((200, 300)), NAXIS2="NAXIS2  =       20"),
        "goes on at byte .* no extension",
    ),
    "NAXIS missing": (fits_bytes(SMALL, NAXIS2="COMMENT"), "NAXIS2 of extension 0 is missing"),
    "NAXIS negative": (fits_bytes(SMALL, NAXIS2="NAXIS2  =   -20"), "NAXIS2 .* is -20"),
    "NAXIS a word": (fits_bytes(SMALL, NAXIS2="NAXIS2  = 'many'"), "NAXIS2 .* is 'many'"),
    "BITPIX": (fits_bytes(SMALL, BITPIX="BITPIX  =   12"), "BITPIX of extension 0 is 12; FITS"),
    "one axis": (fits_bytes(np.ones(20)), "no extension with an image; it holds 0 PRIMARY"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_has_its_reason(tmp_path, defect):
    content, reason = DEFECTS[defect]
    path = tmp_path / "x.fits"
    path.write_bytes(content)
    for read in (read_pixels, read_grid):
        with pytest.raises(ImageError, match=reason) as raised:
            read(str(path))
        assert raised.value.flag == Flag.UNREADABLE_FILE
        assert str(path) in str(raised.value)


def test_an_image_without_pixels_is_no_data(tmp_path):
    (tmp_path / "x.fits").write_bytes(fits_bytes(SMALL, NAXIS1="NAXIS1  =    0")[:2880])
    with pytest.raises(ImageError, match="without pixels") as raised:
        read_pixels(f"{tmp_path}/x.fits[0]")
    assert raised.value.flag == Flag.NO_DATA


def test_a_directory_and_links(tmp_path):
    (tmp_path / "folder.fits").mkdir()
    (tmp_path / "loop.fits").symlink_to(tmp_path / "loop.fits")
    (tmp_path / "gone.fits").symlink_to(tmp_path / "nothing")
    for name, reason, flag in (
        ("folder.fits", "is a directory", Flag.UNREADABLE_FILE),
        ("loop.fits", "symbolic link that leads round", Flag.UNREADABLE_FILE),
        ("gone.fits", "does not exist: it is a link to .*nothing", Flag.MISSING_FILE),
    ):
        with pytest.raises(ImageError, match=reason) as raised:
            read_pixels(str(tmp_path / name))
        assert raised.value.flag == flag


def test_a_file_that_may_not_be_read(tmp_path):
    fits.writeto(tmp_path / "x.fits", SMALL)
    (tmp_path / "x.fits").chmod(0)
    if os.access(tmp_path / "x.fits", os.R_OK):
        pytest.skip("this user (root) may read everything")
    with pytest.raises(ImageError, match="may not be read by this user"):
        read_pixels(str(tmp_path / "x.fits"))


def test_letters_beyond_ascii_do_no_harm(tmp_path):
    header = fits.Header({"OBSERVER": "Jose"})
    fits.writeto(tmp_path / "x.fits", SMALL, header)
    content = (tmp_path / "x.fits").read_bytes().replace(b"Jose", b"Jos\xe9")
    (tmp_path / "x.fits").write_bytes(content)
    assert np.array_equal(read_pixels(str(tmp_path / "x.fits")), SMALL)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_wrong_checksum_is_found(tmp_path, pixels, compressed):
    make = fits.CompImageHDU if compressed else fits.ImageHDU
    path = tmp_path / "x.fits"
    fits.HDUList([fits.PrimaryHDU(), make(pixels)]).writeto(path, checksum=True)
    good = read_pixels(str(path))
    assert np.array_equal(good, fits.getdata(path, 1))
    content = bytearray(path.read_bytes())
    with fits.open(path, disable_image_compression=True) as file:
        content[file[1].fileinfo()["datLoc"] + 40_000] ^= 4
    path.write_bytes(content)
    with pytest.raises(ImageError, match="changed since its checksum was written") as raised:
        read_pixels(str(path))
    assert raised.value.flag == Flag.BAD_CHECKSUM


def test_data_sum_is_astropys():
    data = np.random.default_rng(4).integers(0, 256, 2880, dtype=np.uint8)
    assert data_sum(data) == fits.PrimaryHDU()._compute_checksum(data)
    assert data_sum(b"\xff\xff\xff\xff\x00\x00\x00\x02\x01") == 0x01000002


def test_no_wcs(tmp_path, pixels):
    name = write_image(tmp_path / "x.fits", pixels, None)
    with pytest.raises(ImageError, match="no celestial coordinate system") as raised:
        read_grid(name)
    assert raised.value.flag == Flag.NO_WCS


def test_to_pixels_inverts_astropy_and_refuses_the_far_side(tmp_path, pixels):
    wcs, shape = read_grid(write_image(tmp_path / "x.fits", pixels, tan_wcs()))
    sky = wcs.pixel_to_world([10.25, 150.0], [20.5, 3.0])
    ra, dec = np.append(sky.ra.deg, [330.0, np.nan]), np.append(sky.dec.deg, [-2.0, np.nan])
    x, y = to_pixels(wcs, ra, dec)
    assert shape == (200, 220)
    np.testing.assert_allclose(x[:2], [10.25, 150.0], atol=1e-6)
    np.testing.assert_allclose(y[:2], [20.5, 3.0], atol=1e-6)
    assert np.isnan(x[2:]).all()


def test_every_flag_is_described_and_fits_the_column():
    assert set(DESCRIPTIONS) == set(Flag)
    assert max(Flag).value < 2**31
    assert Flag.EDGE not in UNUSABLE


def test_count_of_flags():
    counts = count(np.array([0, 1, 3], np.int32))
    assert (counts["edge"], counts["masked"], counts["outside"]) == (2, 1, 0)


@pytest.fixture(scope="module")
def valid_files():
    """Plain, RICE and gzip tiles, as bytes."""
    values = np.random.default_rng(8).normal(100, 5, (40, 50)).astype(np.float32)
    values[:5] = 0
    kinds = [fits.ImageHDU(values)]
    kinds += [fits.CompImageHDU(values, compression_type=kind) for kind in ("RICE_1", "GZIP_1")]
    files = []
    for unit in kinds:
        file = io.BytesIO()
        fits.HDUList([fits.PrimaryHDU(), unit]).writeto(file)
        files.append(file.getvalue())
    return files


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    kind=st.integers(0, 2),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=6),
    keep=st.one_of(st.just(1.0), st.floats(0, 1)),
)
def test_no_damage_crashes_or_reads_short(valid_files, tmp_path_factory, kind, changes, keep):
    content = bytearray(valid_files[kind])
    for place, byte in changes:
        content[int(place * len(content))] = byte
    path = tmp_path_factory.mktemp("damaged") / "x.fits"
    path.write_bytes(content[: int(keep * len(content))])
    try:
        pixels = read_pixels(str(path))
    except ImageError as error:
        assert len(str(error)) > len(str(path)) + 5
        return
    assert pixels.ndim in (2, 3)
    if not changes:
        path.write_bytes(content)
        assert np.array_equal(pixels, read_pixels(str(path)))


@pytest.mark.parametrize("columns", [slice(3, 9), slice(0, 12)])
def test_a_system_that_reads_less_than_asked_is_asked_again(tmp_path, monkeypatch, columns):
    """As network file systems may (read(2))."""
    pixels = np.arange(120, dtype=np.float32).reshape(10, 12)
    name = write_image(tmp_path / "a.fits", pixels, compressed=False)
    pread, preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda file, size, place: pread(file, min(size, 5), place))
    monkeypatch.setattr(
        os, "preadv", lambda file, views, place: preadv(file, [views[0][:5]], place)
    )
    with ImageFile(name) as image:
        np.testing.assert_array_equal(image.window(slice(2, 7), columns), pixels[2:7, columns])
