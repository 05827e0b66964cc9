"""Every format in which stamps come, from the table to the cutout."""

import fsspec
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from hypothesis import given as given_by_hypothesis
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies
from PIL import Image

from luneta.cutouts.plain_fits import read_plain
from luneta.cutouts.quality import Quality
from luneta.cutouts.stamp_files import StampFiles
from luneta.cutouts.stamps import cut_stamps
from luneta.survey.flags import DESCRIPTIONS, Flag
from luneta.survey.images import ImageError, read_pixels
from luneta.survey.stamp_index import deal_stamps
from luneta.survey.tables import TableError

BANDS = ["g", "r", "i"]
COUNT, SIDE = 5, 32
PIXELS = np.random.default_rng(0).normal(3, 1, (COUNT, 3, SIDE, SIDE)).astype(np.float32)


def one_file_a_band(folder):
    for n, stamp in enumerate(PIXELS):
        for band, pixels in zip(BANDS, stamp, strict=True):
            fits.PrimaryHDU(pixels).writeto(folder / f"o{n}_{band}.fits")
    return {"image": "{id}_{band}.fits"}


def compressed(folder):
    for n, stamp in enumerate(PIXELS):
        for band, pixels in zip(BANDS, stamp, strict=True):
            fits.PrimaryHDU(pixels).writeto(folder / f"o{n}_{band}.fits.gz")
    return {"image": "{id}_{band}.fits.gz"}


def cube_band_first(folder):
    for n, stamp in enumerate(PIXELS):
        fits.PrimaryHDU(stamp).writeto(folder / f"o{n}.fits")
    return {"image": "{id}.fits"}


def cube_band_last(folder):
    for n, stamp in enumerate(PIXELS):
        fits.PrimaryHDU(np.moveaxis(stamp, 0, -1)).writeto(folder / f"o{n}.fits")
    return {"image": "{id}.fits", "axes": "band_last"}


def extension_a_band(folder, names=BANDS):
    for n, stamp in enumerate(PIXELS):
        units = [fits.ImageHDU(p, name=name) for name, p in zip(names, stamp, strict=True)]
        fits.HDUList([fits.PrimaryHDU(), *units]).writeto(folder / f"o{n}.fits")
    return {"image": "{id}.fits[{band}]"}


def extension_by_map(folder):
    extension_a_band(folder, ["HSC-G", "HSC-R2", "HSC-I2"])
    return {"image": {"g": "{id}.fits[HSC-G]", "r": "{id}.fits[HSC-R*]", "i": "{id}.fits[3]"}}


def array_of_all(folder):
    np.save(folder / "all.npy", PIXELS)
    return {"image": "all.npy"}


def array_of_all_band_last(folder):
    np.save(folder / "all.npy", np.moveaxis(PIXELS, 1, -1))
    return {"image": "all.npy"}


def array_a_band(folder):
    for k, band in enumerate(BANDS):
        np.save(folder / f"all_{band}.npy", PIXELS[:, k].astype(np.float64))
    return {"image": "all_{band}.npy"}


def array_an_object(folder):
    for n, stamp in enumerate(PIXELS):
        np.save(folder / f"o{n}.npy", stamp.astype(">f4"))
    return {"image": "{id}.npy"}


def array_by_row(folder):
    np.save(folder / "all.npy", PIXELS[::-1])
    return {"image": "all.npy", "row": "row"}


def hdf5_of_all(folder, **options):
    with h5py.File(folder / "all.h5", "w") as file:
        file.create_dataset("images", data=np.moveaxis(PIXELS, 1, -1), **options)
    return {"image": "all.h5[images]"}


def hdf5_in_chunks(folder):
    hdf5_of_all(folder, chunks=(2, SIDE, SIDE, 3), compression="gzip")
    return {"image": "all.h5"}


def hdf5_a_band(folder):
    with h5py.File(folder / "all.hdf5", "w") as file:
        for k, band in enumerate(BANDS):
            file[f"stamps/{band}"] = PIXELS[::-1, k]
    return {"image": "all.hdf5[stamps/{band}]", "row": "row"}


def settings(folder, **changes):
    (folder / "t.csv").write_text(
        "id,row\n" + "".join(f"o{n},{COUNT - 1 - n}\n" for n in range(COUNT))
    )
    return {
        "table": str(folder / "t.csv"), "bands": BANDS, "axes": "auto", "keep": {},
        "columns": {"object_id": "id", "ra": None, "dec": None}, "stamps_per_shard": 2, **changes,
    }  # fmt: skip


def cut_shard(path, given, pixels="flux", **cutouts):
    """Cut a shard as its job does; gives the images and the quality."""
    stamps = pq.read_table(path)
    objects = pa.table(
        {
            "object_id": stamps["object_id"],
            "flags": pa.array([0] * len(stamps), pa.int32()),
            "reject_reason": pa.nulls(len(stamps), pa.string()),
        }
    )
    job = {
        "bands": given["bands"], "pixels": pixels, "axes": given["axes"], "zero_points": {},
        "weight": given.get("weight", "variance"), "mask": given.get("mask", {}),
        "remote": given.get("remote"),
        "cutouts": {"size": SIDE, "crop": 1.0, "background": "none", "noise_units": False,
                    **cutouts},
    }  # fmt: skip
    quality = Quality.of(objects, given["bands"])
    blocks = [(r, i.copy()) for r, i in cut_stamps(objects, stamps, quality, job, 1)]
    rows, images = (np.concatenate(arrays) for arrays in zip(*blocks, strict=True))
    assert rows.tolist() == list(range(len(stamps)))
    return images, quality


@pytest.mark.parametrize(
    "write",
    [
        one_file_a_band, compressed, cube_band_first, cube_band_last, extension_a_band,
        extension_by_map, array_of_all, array_of_all_band_last, array_a_band, array_an_object,
        array_by_row, hdf5_of_all, hdf5_in_chunks, hdf5_a_band,
    ],
)  # fmt: skip
def test_each_object_gets_its_own_pixels(tmp_path, write):
    given = settings(tmp_path, **write(tmp_path))
    slices = deal_stamps(given, tmp_path / "index")
    assert list(slices) == ["stamps_00000", "stamps_00001", "stamps_00002"]
    found = [cut_shard(path, given) for path in slices.values()]
    assert all((quality.flags == 0).all() for _, quality in found)
    assert np.array_equal(np.concatenate([images for images, _ in found]), PIXELS)


def test_hsc_like_files_with_image_mask_and_variance(tmp_path):
    """As the HSC data server's cutouts: extensions IMAGE, MASK and VARIANCE, one file a band."""
    for n, stamp in enumerate(PIXELS):
        for band, pixels in zip(BANDS, stamp, strict=True):
            mask = np.zeros((SIDE, SIDE), np.int32)
            mask[n, 4] = 1 << 1  # SAT
            mask[n, 6] = 1 << 5  # DETECTED
            units = [
                fits.PrimaryHDU(),
                fits.ImageHDU(pixels, name="IMAGE"),
                fits.ImageHDU(mask, name="MASK"),
                fits.ImageHDU(np.full((SIDE, SIDE), 0.25, np.float32), name="VARIANCE"),
            ]
            fits.HDUList(units).writeto(tmp_path / f"{band}-o{n}.fits")
    given = settings(
        tmp_path, image="{band}-{id}.fits[IMAGE]", masks="{band}-{id}.fits[MASK]",
        weights="{band}-{id}.fits[VARIANCE]", weight="variance",
        mask={"encoding": "bits", "planes": {"saturated": 1, "detected": 5},
              "ignore": ["detected"], "saturated": ["saturated"]},
    )  # fmt: skip
    path = deal_stamps(given, tmp_path / "index")["stamps_00001"]
    images, quality = cut_shard(path, given, noise="weight")
    assert np.argwhere(np.isnan(images)).tolist() == [
        [o, b, o + 2, 4] for o in (0, 1) for b in range(3)
    ]
    assert quality.sky_noise == pytest.approx(np.full((2, 3), 0.5))


def test_one_mask_array_for_all_bands(tmp_path):
    mask = np.ones((COUNT, SIDE, SIDE), np.uint8)
    mask[3, 1, 2] = 0
    np.save(tmp_path / "good.npy", mask)
    given = settings(
        tmp_path, masks="good.npy", mask={"encoding": "good"}, **array_of_all(tmp_path)
    )
    path = deal_stamps(given, tmp_path / "index")["stamps_00001"]
    images, _ = cut_shard(path, given)
    assert np.argwhere(np.isnan(images)).tolist() == [[1, b, 1, 2] for b in range(3)]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_pictures(tmp_path, suffix):
    shades = [(200, 100, 40), (20, 250, 90), (90, 30, 10), (50, 60, 70), (255, 128, 0)]
    for n, shade in enumerate(shades):
        pixels = np.full((SIDE, SIDE, 3), shade, np.uint8)
        pixels[:8, :8] = 0
        Image.fromarray(pixels).save(tmp_path / f"o{n}.{suffix}", quality=98)
    given = settings(tmp_path, image="{id}." + suffix)
    for shard, path in enumerate(deal_stamps(given, tmp_path / "index").values()):
        images, quality = cut_shard(path, given, "display")
        wanted = shades[2 * shard : 2 * shard + 2]
        assert images[:, :, 20, 20] == pytest.approx(np.array(wanted, float), abs=4)
        assert np.isnan(quality.sky_noise).all()


def test_rows_in_any_order_of_a_compressed_dataset(tmp_path):
    pixels = np.arange(200 * 4, dtype=np.float32).reshape(200, 2, 2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("images", data=pixels, chunks=(7, 2, 2), compression="gzip")
    rows = [150, 3, 7, 4, 199, 0]
    files = StampFiles(rows)
    for row in rows:
        assert np.array_equal(files.planes([str(tmp_path / "a.h5")], row)[0], pixels[row])


@pytest.mark.parametrize(
    ("name", "row", "flag", "reason"),
    [
        ("a.npy", 5, Flag.MISSING_FILE, "has no row 5: it holds 3 stamps"),
        ("b.npy", 0, Flag.UNREADABLE_FILE, "cannot be read"),
        ("objects.npy", 0, Flag.UNREADABLE_FILE, "Python objects"),
        ("none.npy", 0, Flag.MISSING_FILE, "does not exist"),
        ("a.h5[images]", 9, Flag.MISSING_FILE, "has no row 9: it holds 3 stamps"),
        (
            "a.h5[pictures]",
            0,
            Flag.UNREADABLE_FILE,
            "no dataset 'pictures'; it holds images, scalar",
        ),
        ("b.h5", 0, Flag.UNREADABLE_FILE, "cannot be read"),
        ("none.h5", 0, Flag.MISSING_FILE, "does not exist"),
        ("text.npy", None, Flag.UNREADABLE_FILE, "holds text or objects of shape (3, 4)"),
        ("line.npy", 0, Flag.SHAPE_MISMATCH, "has shape (); a file of one band holds (y, x)"),
        ("a.h5[scalar]", 0, Flag.UNREADABLE_FILE, "of shape ()"),
        ("empty.npy", None, Flag.NO_DATA, "has shape (0, 4): no pixels"),
        ("a.npy", None, Flag.SHAPE_MISMATCH, "a file of one band holds (y, x)"),
    ],
)
def test_broken_arrays_say_why(tmp_path, name, row, flag, reason):
    stamps = np.zeros((3, 4, 5))
    np.save(tmp_path / "a.npy", stamps)
    np.save(tmp_path / "objects.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.full((3, 4), "abc"))
    np.save(tmp_path / "empty.npy", np.zeros((0, 4)))
    np.save(tmp_path / "line.npy", np.zeros(4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["scalar"] = stamps, 1.0
    for suffix in ("npy", "h5"):
        content = (tmp_path / f"a.{suffix}").read_bytes()
        (tmp_path / f"b.{suffix}").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError) as caught:
        StampFiles([row]).planes([str(tmp_path / name)], row)
    assert caught.value.flag == flag
    assert reason in str(caught.value)
    assert flag in DESCRIPTIONS


def test_cubes_with_the_wrong_number_of_bands(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8)))
    name = str(tmp_path / "a.npy")
    with pytest.raises(ImageError, match=r"4 bands ask for \(4, y, x\) or \(y, x, 4\)"):
        StampFiles().planes([name] * 4)
    with pytest.raises(ImageError, match=r"3 bands ask for \(y, x, 3\)"):
        StampFiles(axes="band_last").planes([name] * 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "all.fits"}, "names one file for all objects"),
        ({"image": "https://example.org/all.npy"}, "must be a local file"),
        ({"image": "{file}.fits"}, "asks for the column file; the table has id, row"),
        ({"image": "{id:05d}.fits"}, "leave number formats such as :05d out"),
        ({"image": "all.npy", "row": "id"}, "must hold a whole number from 0"),
        ({"image": "all.npy", "row": "rows"}, "no column 'rows'"),
    ],
)
def test_templates_that_cannot_work_are_refused_when_planning(tmp_path, changes, message):
    with pytest.raises(TableError, match=message):
        deal_stamps(settings(tmp_path, **changes), tmp_path / "index")


# The fast reader of plain files


@pytest.mark.parametrize("dtype", ["u1", ">i2", ">i4", ">f4", ">f8"])
@pytest.mark.parametrize("shape", [(7, 5), (3, 7, 5)])
def test_plain_files_are_read_as_astropy_does(tmp_path, dtype, shape):
    pixels = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    fits.PrimaryHDU(pixels, fits.Header([("OBJECT", "END")] * 40)).writeto(tmp_path / "a.fits")
    found = read_plain(str(tmp_path / "a.fits")).pixels
    assert np.array_equal(found, fits.getdata(tmp_path / "a.fits"))
    assert found.dtype == dtype


def patched(content, old, new):
    assert content.count(old) >= 1
    return content.replace(old, new, 1)


NAXIS2 = b"NAXIS2  =" + b" " * 20 + b"7"
DEFECTS = {
    "truncated": lambda c: c[:-2880],
    "header only": lambda c: c[:1000],
    "no END": lambda c: patched(c, b"END" + b" " * 77, b" " * 80),
    "more rows": lambda c: patched(c, NAXIS2, NAXIS2[:-5] + b"99999"),
    "no rows": lambda c: patched(c, NAXIS2, NAXIS2[:-1] + b"0"),
    "other keyword": lambda c: patched(c, b"NAXIS1  ", b"NAXIS1X "),
    "odd BITPIX": lambda c: patched(c, b"-32 / ", b"-31 / "),
    "not a number": lambda c: patched(c, NAXIS2, NAXIS2[:-2] + b"7a"),
    "web page": lambda c: b"<html>" + c,
    "empty": lambda c: b"",
    "not simple": lambda c: patched(c, b" T / conforms", b" F / conforms"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_broken_files_are_left_to_the_full_reader(tmp_path, defect):
    fits.PrimaryHDU(np.ones((7, 5), np.float32)).writeto(tmp_path / "a.fits")
    path = tmp_path / "b.fits"
    path.write_bytes(DEFECTS[defect]((tmp_path / "a.fits").read_bytes()))
    assert read_plain(str(path)) is None
    if defect != "not simple":
        with pytest.raises(ImageError):
            StampFiles().planes([str(path)])


def test_scaled_and_checked_files_are_left_to_the_full_reader(tmp_path):
    scaled = fits.PrimaryHDU(np.arange(35, dtype=np.uint16).reshape(7, 5))
    scaled.writeto(tmp_path / "u2.fits")
    fits.PrimaryHDU(np.ones((7, 5))).writeto(tmp_path / "sum.fits", checksum=True)
    unit = fits.PrimaryHDU(np.arange(35, dtype=np.int16).reshape(7, 5))
    unit.header["BLANK"] = 3
    unit.writeto(tmp_path / "blank.fits")
    for name in ("u2", "sum", "blank"):
        path = str(tmp_path / f"{name}.fits")
        assert read_plain(path) is None
        expected = read_pixels(path)
        assert np.array_equal(StampFiles().planes([path])[0], expected, equal_nan=True)
    assert np.isnan(StampFiles().planes([str(tmp_path / "blank.fits")])[0][0, 3])


def valid_file(path):
    header = fits.Header([("OBJECT", "a lens"), ("EXPTIME", 30.0)])
    fits.PrimaryHDU(np.arange(35, dtype=np.float32).reshape(7, 5), header).writeto(path)
    return path.read_bytes()


@settings_of_hypothesis(max_examples=300, deadline=None)
@given_by_hypothesis(data=strategies.data())
def test_no_mutation_is_read_otherwise_than_by_the_full_reader(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "mutated"
    folder.mkdir(exist_ok=True)
    whole = folder / "whole.fits"
    content = bytearray(whole.read_bytes() if whole.exists() else valid_file(whole))
    for _ in range(data.draw(strategies.integers(1, 4))):
        place = data.draw(strategies.integers(0, 800) | strategies.integers(0, len(content) - 1))
        content[place] = data.draw(strategies.sampled_from(b" 0123456789-/=TFENDAXIS\x00\xff"))
    path = folder / "mutated.fits"
    path.write_bytes(content[: data.draw(strategies.integers(2000, 2 * len(content)))])
    found = read_plain(str(path))
    if found is not None:
        assert np.array_equal(found.pixels, read_pixels(str(path)), equal_nan=True)


def test_files_named_by_url(tmp_path):
    one_file_a_band(tmp_path)
    (tmp_path / "o3_r.fits").unlink()
    for path in tmp_path.glob("*.fits"):
        fsspec.filesystem("memory").pipe(f"memory://formats/{path.name}", path.read_bytes())
    given = settings(tmp_path, image="memory://formats/{id}_{band}.fits")
    allowed = {"protocols": ["memory"]}
    given["remote"] = {"retries": 0, "wait": 0, "timeout": 5, "options": {}, **allowed}
    path = deal_stamps(given, tmp_path / "index")["stamps_00001"]
    images, quality = cut_shard(path, given)
    assert np.array_equal(images[0], PIXELS[2])
    assert quality.flags.tolist() == [0, Flag.MISSING_FILE]
    assert "memory://formats/o3_r.fits does not exist" in quality.reject_reason[1]
