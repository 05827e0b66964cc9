import numpy as np
import pytest
from astropy.io import fits

from fits_files import tan_wcs, write_image
from luneta.survey.flags import DESCRIPTIONS, UNUSABLE, Flag, count
from luneta.survey.images import ImageError, read_grid, read_pixels, to_pixels


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
    path.write_bytes(content[: int(len(content) * keep)])


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("keep", [0.01, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_an_error_never_a_short_read(tmp_path, pixels, compressed, keep):
    name = write_image(tmp_path / "t.fits", pixels, tan_wcs(), compressed=compressed)
    damage(tmp_path / "t.fits", keep)
    with pytest.raises(ImageError, match="cannot be read") as raised:
        read_pixels(name)
    assert raised.value.flag == Flag.UNREADABLE_FILE


def test_missing_file(tmp_path):
    with pytest.raises(ImageError, match="does not exist") as raised:
        read_pixels(str(tmp_path / "none.fits"))
    assert raised.value.flag == Flag.MISSING_FILE


def test_a_web_page_is_recognised(tmp_path):
    (tmp_path / "x.fits").write_text("<html>not found</html>")
    with pytest.raises(ImageError, match="web page"):
        read_pixels(str(tmp_path / "x.fits"))


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
