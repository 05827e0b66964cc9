"""A file that becomes shorter while it is read is an error of that file, and no signal."""

import os

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from attack_child import in_child
from luneta.cutouts.stamp_files import StampFiles
from luneta.survey.fits_tables import FitsTables
from luneta.survey.images import ImageError, ImageFile

PIXELS = np.random.default_rng(1).normal(0, 1, (2000, 500)).astype(np.float32)


def cut_short(path):
    os.truncate(path, 2880)


@pytest.mark.parametrize("columns", [np.s_[10:20], np.s_[0:500]])
def test_a_window_of_an_image(tmp_path, columns):
    path = tmp_path / "t.fits"
    fits.PrimaryHDU(PIXELS).writeto(path)

    def read():
        with ImageFile(str(path)) as image:
            first = image.window(np.s_[0:10], columns)
            cut_short(path)
            with pytest.raises(ImageError, match="is truncated: 2,000 rows .* are promised"):
                image.window(np.s_[1500:1510], columns)
            return bool((first == PIXELS[0:10, columns]).all())

    assert in_child(read).text == "True"


@pytest.mark.parametrize("kind", ["RICE_1", "GZIP_1"])
def test_an_image_compressed_in_tiles(tmp_path, kind):
    path = tmp_path / "t.fits"
    unit = fits.CompImageHDU(
        PIXELS, compression_type=kind, quantize_level=0 if kind[0] == "G" else 16
    )
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(path)

    def read():
        with ImageFile(str(path)) as image:
            image.window(np.s_[0:10], np.s_[0:10])
            os.truncate(path, 60_000)
            with pytest.raises(ImageError, match="is damaged"):
                image.window(np.s_[1990:2000], np.s_[0:10])

    assert in_child(read).text == "None"


def test_a_checksum(tmp_path):
    path = tmp_path / "t.fits"
    unit = fits.CompImageHDU(PIXELS, compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), unit]).writeto(path, checksum=True)

    def read():
        with ImageFile(str(path)) as image:
            os.truncate(path, 60_000)
            with pytest.raises(ImageError):
                image.read()

    assert in_child(read).text == "None"


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_numpy(tmp_path, order):
    path = tmp_path / "t.npy"
    stack = np.asarray(PIXELS.reshape(200, 50, 100), order=order)
    np.save(path, stack)

    def read():
        files = StampFiles([0, 150])
        first = files.planes([str(path)], 0)[0]
        cut_short(path)
        with pytest.raises(ImageError, match="has become shorter"):
            files.planes([str(path)], 150)
        return bool((first == stack[0]).all())

    assert in_child(read).text == "True"


def test_a_table_of_fits(tmp_path):
    path = tmp_path / "t.fits"
    Table({"ra": np.arange(100_000.0), "id": np.arange(100_000)}).write(path)

    def read():
        tables = FitsTables(path)
        whole = tables.read(tables.tables[0], None)
        cut_short(path)
        with pytest.raises(ImageError, match="is truncated"):
            tables.read(tables.tables[0], ["ra"])
        return len(whole), whole["ra"][-1].as_py(), whole["id"][7].as_py()

    assert in_child(read).text == "(100000, 99999.0, 7)"
