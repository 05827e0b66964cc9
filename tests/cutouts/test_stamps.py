import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from PIL import Image

from luneta.cutouts.job import run
from luneta.cutouts.shard import Shard
from luneta.cutouts.stamps import border_sky, central, read_stamp
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError
from luneta.survey.stamp_index import deal_stamps


def picture(path, shade=200, size=60):
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[size // 3 : 2 * size // 3, size // 3 : 2 * size // 3] = (shade, shade // 2, 10)
    Image.fromarray(pixels).save(path)


def slice_table(tmp_path, names, bands):
    objects = pa.table(
        {
            "object_id": [f"o{n}" for n in range(len(names))],
            "flags": pa.array([0] * len(names), pa.int32()),
            "reject_reason": pa.array([None] * len(names), pa.string()),
        }
    )
    pq.write_table(objects, tmp_path / "o.parquet")
    stamps = {f"image_{b}": [row[k] for row in names] for k, b in enumerate(bands)}
    pq.write_table(pa.table(stamps), tmp_path / "s.parquet")


def cut(tmp_path, bands, pixels, **changes):
    outputs = {k: tmp_path / f"{k}.out" for k in ("cutouts", "quality", "files")}
    settings = {
        "bands": bands,
        "pixels": pixels,
        "cutouts": {"size": 32, "crop": 1.0, "background": "map", "noise_units": True,
                    "max_masked_fraction": 0.5, **changes},
    }  # fmt: skip
    run(tmp_path / "o.parquet", tmp_path / "s.parquet", outputs, settings, threads=2)
    return Shard(outputs["cutouts"]), pq.read_table(outputs["quality"]).to_pandas()


def test_pictures_keep_their_channels_and_bad_ones_cost_themselves_only(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.jpeg").write_text("<html><body>404</body></html>")
    picture(tmp_path / "c.png", 100)
    content = (tmp_path / "c.png").read_bytes()
    (tmp_path / "d.png").write_bytes(content[: len(content) // 2])
    names = [[str(tmp_path / n)] * 3 for n in ("a.png", "b.jpeg", "c.png", "d.png", "e.png")]
    slice_table(tmp_path, names, ["red", "green", "blue"])
    shard, quality = cut(tmp_path, ["red", "green", "blue"], "display")
    assert quality["flags"].tolist() == [
        0, Flag.UNREADABLE_FILE, 0, Flag.UNREADABLE_FILE, Flag.MISSING_FILE
    ]  # fmt: skip
    assert "is not a picture: it starts with b'<html" in quality["reject_reason"][1]
    assert [int(v) for v in shard.take([0])[0, :, 16, 16]] == [200, 100, 10]
    assert len(shard) == 2


def test_flux_stamps_one_file_a_band(tmp_path):
    rng, names = np.random.default_rng(0), []
    for band, noise in (("g", 1e-12), ("r", 3e-12)):
        pixels = rng.normal(5e-12, noise, (32, 32)).astype(np.float32)
        pixels[16, 16] = 100 * noise
        fits.PrimaryHDU(pixels).writeto(tmp_path / f"{band}.fits")
        names.append(str(tmp_path / f"{band}.fits"))
    slice_table(tmp_path, [names], ["g", "r"])
    shard, quality = cut(tmp_path, ["g", "r"], "flux")
    stamp = shard.take([0])[0]
    assert stamp[:, 16, 16] == pytest.approx([95, 98], rel=0.15)
    assert np.std(stamp[:, :3]) == pytest.approx(1, rel=0.2)
    assert quality["sky_noise_r"][0] == pytest.approx(3e-12, rel=0.2)


def test_a_cube_is_read_band_first(tmp_path):
    cube = np.arange(3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8)
    fits.PrimaryHDU(cube).writeto(tmp_path / "c.fits")
    assert np.array_equal(read_stamp([str(tmp_path / "c.fits")] * 3), cube)
    with pytest.raises(ImageError, match=r"4 bands ask for \(4, y, x\)"):
        read_stamp([str(tmp_path / "c.fits")] * 4)


def test_bands_of_different_shape(tmp_path):
    for band, size in (("g", 8), ("r", 9)):
        fits.PrimaryHDU(np.ones((size, size))).writeto(tmp_path / f"{band}.fits")
    with pytest.raises(ImageError, match="differ in shape"):
        read_stamp([str(tmp_path / f"{band}.fits") for band in "gr"])


def test_the_centre_is_kept_and_averaged():
    pixels = np.zeros((1, 40, 40), np.float32)
    pixels[0, 10:30, 10:30] = 7
    assert np.array_equal(central(pixels, 0.5, 20)[0], np.full((20, 20), 7, np.float32))
    assert central(pixels, 0.5, 10)[0] == pytest.approx(np.full((10, 10), 7.0))
    pixels[0, 15, 15] = np.nan
    small = central(pixels, 0.5, 10)[0]
    assert np.isfinite(small).all()
    assert small == pytest.approx(np.full((10, 10), 7.0))


def test_border_sky():
    pixels = np.random.default_rng(3).normal(10, 2, (1, 100, 100))
    pixels[0, 30:70, 30:70] += 1e4
    level, noise = border_sky(pixels)
    assert (level[0], noise[0]) == (pytest.approx(10, abs=0.1), pytest.approx(2, rel=0.05))


def test_stamps_are_dealt_in_table_order(tmp_path):
    (tmp_path / "t.csv").write_text("id,file\n01,a.png\n02,b.png\n03,c.png\n")
    given = {
        "table": str(tmp_path / "t.csv"),
        "image": "{file}",
        "columns": {"object_id": "id", "ra": None, "dec": None},
        "keep": {},
        "bands": ["red", "green", "blue"],
        "stamps_per_shard": 2,
    }
    slices = deal_stamps(given, tmp_path / "index")
    assert list(slices) == ["stamps_00000", "stamps_00001"]
    first = pq.read_table(slices["stamps_00000"])
    assert first["object_id"].to_pylist() == ["01", "02"]
    assert first["image_green"].to_pylist() == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
    time = slices["stamps_00000"].stat().st_mtime_ns
    with (tmp_path / "t.csv").open("a") as table:
        table.write("04,d.png\n")
    slices = deal_stamps(given, tmp_path / "index")
    assert slices["stamps_00000"].stat().st_mtime_ns == time
    assert pq.read_metadata(slices["stamps_00001"]).num_rows == 2


@pytest.mark.parametrize(("side", "size"), [(101, 64), (101, 65), (100, 64), (100, 65)])
def test_the_central_pixel_of_a_stamp_lands_at_half_the_size(side, size):
    pixels = np.zeros((1, side, side), np.float32)
    pixels[0, side // 2, side // 2] = 1
    assert np.argwhere(central(pixels, size / side, size)[0]).tolist() == [[size // 2, size // 2]]
