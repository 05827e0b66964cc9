import os
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from PIL import Image

from luneta.cutouts.job import run
from luneta.cutouts.parallel import shared_array, work_through
from luneta.cutouts.shard import Shard
from luneta.cutouts.stamp_pixels import border_sky, cut, kept_side, median
from luneta.survey.flags import Flag
from luneta.survey.stamp_index import deal_stamps

MASK = {"encoding": "bits", "planes": {}, "ignore": [], "saturated": [], "sentinels": []}
CUTOUTS = {
    "size": 32, "crop": 1.0, "background": "map", "noise_units": True, "noise": "sky",
    "annulus": {"inner": 0.7, "outer": 1.0}, "max_masked_fraction": 0.5, "dtype": "float32",
    "compression": "none", "recentre": "none", "recentre_radius": 2.0, "extent": None,
}  # fmt: skip


def picture(path, shade=200, size=60):
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[size // 3 : 2 * size // 3, size // 3 : 2 * size // 3] = (shade, shade // 2, 10)
    Image.fromarray(pixels).save(path)


def write_fits(path, pixels, **cards):
    header = fits.Header(list(cards.items()))
    fits.PrimaryHDU(pixels, header).writeto(path, overwrite=True)
    return str(path)


def noisy(seed=0, shape=(40, 40), level=10.0, noise=2.0, peak=400.0):
    pixels = np.random.default_rng(seed).normal(level, noise, shape).astype(np.float32)
    pixels[shape[0] // 2, shape[1] // 2] += peak
    return pixels


def cut_all(tmp_path, columns, bands, pixels="flux", objects=None, threads=1, **changes):
    """Run the cutouts job on a slice with these columns; gives the shard and the quality table."""
    count = len(next(iter(columns.values())))
    given = pa.table(
        {
            "object_id": [f"o{n}" for n in range(count)],
            "flags": pa.array([0] * count, pa.int32()),
            "reject_reason": pa.nulls(count, pa.string()),
            **(objects or {}),
        }
    )
    pq.write_table(given, tmp_path / "o.parquet")
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    outputs = {k: tmp_path / f"{k}.out" for k in ("cutouts", "quality", "files")}
    top = {k: changes.pop(k) for k in ("mask", "weight", "pixel_scale", "axes", "zero_points")
           if k in changes}  # fmt: skip
    settings = {
        "bands": bands, "pixels": pixels, "quality": {}, "weight": "inverse_variance",
        "zero_points": {}, "cutouts": {**CUTOUTS, **changes}, **top,
        "mask": {**MASK, **top.get("mask", {})},
    }  # fmt: skip
    run(tmp_path / "o.parquet", tmp_path / "s.parquet", outputs, settings, threads)
    return Shard(outputs["cutouts"]), pq.read_table(outputs["quality"]).to_pandas()


def images(bands, names):
    return {f"image_{band}": [row[k] for row in names] for k, band in enumerate(bands)}


def test_pictures_keep_their_channels_and_bad_ones_cost_themselves_only(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.jpeg").write_text("<html><body>404</body></html>")
    picture(tmp_path / "c.png", 100)
    content = (tmp_path / "c.png").read_bytes()
    (tmp_path / "d.png").write_bytes(content[: len(content) // 2])
    Image.new("RGB", (60, 60), "white").save(tmp_path / "f.png")
    files = ("a.png", "b.jpeg", "c.png", "d.png", "e.png", "f.png")
    names = [[str(tmp_path / n)] * 3 for n in files]
    shard, quality = cut_all(
        tmp_path, images(["red", "green", "blue"], names), ["red", "green", "blue"], "display"
    )
    assert quality["flags"].tolist() == [
        0, Flag.UNREADABLE_FILE, 0, Flag.UNREADABLE_FILE, Flag.MISSING_FILE, Flag.NO_DATA
    ]  # fmt: skip
    assert "is not a picture: it starts with b'<html" in quality["reject_reason"][1]
    assert "every pixel has the value 255" in quality["reject_reason"][5]
    assert [int(v) for v in shard.take([0])[0, :, 16, 16]] == [200, 100, 10]
    assert len(shard) == 2


def test_tiny_fluxes_in_units_of_their_noise(tmp_path):
    names = [
        write_fits(tmp_path / f"{b}.fits", noisy(n, (32, 32), 5e-12, noise, 100 * noise))
        for n, (b, noise) in enumerate({"g": 1e-12, "r": 3e-12}.items())
    ]
    shard, quality = cut_all(tmp_path, images("gr", [names]), ["g", "r"])
    stamp = shard.take([0])[0]
    assert stamp[:, 16, 16] == pytest.approx([100, 100], rel=0.15)
    assert np.std(stamp[:, :3]) == pytest.approx(1, rel=0.2)
    assert quality["sky_noise_r"][0] == pytest.approx(3e-12, rel=0.2)


def test_bad_stamps_have_their_own_reasons(tmp_path):
    good = write_fits(tmp_path / "good.fits", noisy())
    cases = {
        "zero": write_fits(tmp_path / "zero.fits", np.zeros((40, 40), np.float32)),
        "nan": write_fits(tmp_path / "nan.fits", np.full((40, 40), np.nan, np.float32)),
        "small": write_fits(tmp_path / "small.fits", noisy(shape=(30, 40))),
        "none": str(tmp_path / "none.fits"),
        "\0": str(tmp_path / "\0.fits"),
        "folder": str(tmp_path),
    }
    (tmp_path / "cut.fits").write_bytes((tmp_path / "good.fits").read_bytes()[:4000])
    cases["cut"] = str(tmp_path / "cut.fits")
    names = [[good, good.replace("good", "./good")], *([good, bad] for bad in cases.values())]
    columns = images("gr", names) | {"refused": [None] * len(names)}
    columns["refused"][3] = "its name leads out"
    shard, quality = cut_all(tmp_path, columns, ["g", "r"])
    assert quality["flags"].tolist() == [
        0, Flag.NO_DATA, Flag.NO_DATA, Flag.MISSING_FILE, Flag.MISSING_FILE, Flag.UNREADABLE_FILE,
        Flag.UNREADABLE_FILE, Flag.UNREADABLE_FILE,
    ]  # fmt: skip
    reasons = quality["reject_reason"].tolist()
    assert "zero.fits, band r, is constant: every pixel has the value 0" in reasons[1]
    assert "nan.fits, band r, has no good pixel" in reasons[2]
    assert reasons[3] == "its name leads out"
    assert "truncated" in reasons[7]
    assert len(set(reasons)) == len(reasons)
    assert len(shard) == 1


def test_bands_of_different_shape(tmp_path):
    names = [write_fits(tmp_path / f"{s}.fits", noisy(shape=(s, s))) for s in (40, 41)]
    _, quality = cut_all(tmp_path, images("gr", [names]), ["g", "r"])
    assert quality["flags"].tolist() == [Flag.SHAPE_MISMATCH]
    assert "40.fits (40, 40)" in quality["reject_reason"][0]
    assert "41.fits (41, 41)" in quality["reject_reason"][0]


def test_groups_of_limited_size_change_nothing(tmp_path, monkeypatch):
    shapes = [(40, 40), (50, 40), (40, 40), (40, 40), (50, 40)]
    names = [[write_fits(tmp_path / f"{n}.fits", noisy(n, s))] for n, s in enumerate(shapes)]
    written = []
    for largest in (32 * 1024**2, 2 * 4 * 40 * 40, 1):
        monkeypatch.setattr("luneta.cutouts.stamp_blocks.LARGEST_GROUP", largest)
        shard, quality = cut_all(tmp_path, images("g", names), ["g"])
        assert quality["usable"].all()
        assert shard.take(np.arange(5))[:, 0, 16, 16].min() > 100
        written.append([(tmp_path / f"{k}.out").read_bytes() for k in ("cutouts", "quality")])
    assert written[0] == written[1] == written[2]


def test_sentinels_are_gone_before_anything_is_measured(tmp_path):
    pixels = noisy(level=0, noise=1e-12, peak=1e-10)
    clean = write_fits(tmp_path / "clean.fits", pixels)
    pixels = pixels.copy()
    pixels[:6] = 100
    marked = write_fits(tmp_path / "marked.fits", pixels)
    shard, quality = cut_all(
        tmp_path, images("g", [[clean], [marked]]), ["g"], size=40, mask={"sentinels": [100.0]}
    )
    assert quality["flags"].tolist() == [0, Flag.MASKED]
    assert quality["masked_fraction"][1] == pytest.approx(6 / 40)
    assert quality["sky_noise_g"][1] == pytest.approx(1e-12, rel=0.1)
    clean, marked = shard.take([0, 1])[:, 0]
    assert np.isnan(marked[:6]).all()
    assert np.nanmax(np.abs(marked)) < 120


def test_masks_and_weights_beside_the_stamp(tmp_path):
    image = write_fits(tmp_path / "i.fits", noisy(noise=1.0))
    mask = np.zeros((40, 40), np.int32)
    mask[2, 3], mask[20, 21], mask[5, 5] = 4, 8, 2
    weight = np.full((40, 40), 1 / 3.0**2, np.float32)
    weight[7, 7] = 0
    columns = images("g", [[image]])
    columns["mask_g"] = [write_fits(tmp_path / "m.fits", mask)]
    columns["weight_g"] = [write_fits(tmp_path / "w.fits", weight)]
    planes = {"planes": {"cosmic": 2, "saturated": 3, "faint": 1}, "ignore": ["faint"],
              "saturated": ["saturated"]}  # fmt: skip
    shard, quality = cut_all(tmp_path, columns, ["g"], size=40, mask=planes, noise="weight")
    stamp = shard.take([0])[0, 0]
    assert np.argwhere(np.isnan(stamp)).tolist() == [[2, 3], [7, 7], [20, 21]]
    assert quality["flags"][0] == Flag.MASKED | Flag.SATURATED
    assert quality["sky_noise_g"][0] == pytest.approx(3)
    assert stamp[20, 20] == pytest.approx(400 / 3, rel=0.02)


def test_a_mask_of_another_shape(tmp_path):
    columns = images("g", [[write_fits(tmp_path / "i.fits", noisy())]])
    columns["mask_g"] = [write_fits(tmp_path / "m.fits", np.zeros((20, 40), np.int16))]
    _, quality = cut_all(tmp_path, columns, ["g"])
    assert quality["flags"].tolist() == [Flag.SHAPE_MISMATCH]
    assert (
        "m.fits has shape (20, 40), the image it belongs to (40, 40)"
        in (quality["reject_reason"][0])
    )


def test_extent_in_arcsec_by_the_stamp_or_the_config(tmp_path):
    pixels = np.zeros((80, 80), np.float32)
    pixels[40, 40] = 500
    pixels[0, 0] = 1
    scale = 0.25 / 3600
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": 2.0,
             "CRPIX1": 41, "CRPIX2": 41, "CDELT1": -scale, "CDELT2": scale}  # fmt: skip
    with_wcs = write_fits(tmp_path / "wcs.fits", pixels, **cards)
    without = write_fits(tmp_path / "plain.fits", pixels)
    extent = {"unit": "arcsec", "side": 15.0, "radius": None, "least": 2.0, "most": 60.0}
    given = {"size": 20, "extent": extent, "background": "none", "noise_units": False}
    columns = images("g", [[with_wcs], [without]])
    shard, quality = cut_all(tmp_path, columns, ["g"], pixel_scale=0.5, **given)
    assert quality["resample_factor"].tolist() == [3.0, 1.5]
    assert shard.take([0])[0, 0, 10, 10] == pytest.approx(500)
    assert shard.take([0, 1]).sum(axis=(1, 2, 3)) == pytest.approx([500, 500], rel=1e-5)
    _, quality = cut_all(tmp_path, columns, ["g"], **given)
    assert quality["flags"].tolist() == [0, Flag.NO_WCS]
    assert "set input.pixel_scale" in quality["reject_reason"][1]


def test_extent_by_the_object_s_radius_and_over_the_edge(tmp_path):
    name = write_fits(tmp_path / "a.fits", noisy(shape=(60, 60)))
    extent = {"unit": "radius", "side": 10.0, "radius": "size", "least": 2.0, "most": 60.0}
    _, quality = cut_all(
        tmp_path, images("g", [[name], [name]]), ["g"], objects={"size": [1.0, 2.0]},
        size=20, extent=extent, pixel_scale=0.25,
    )  # fmt: skip
    assert quality["resample_factor"].tolist() == pytest.approx([2, 4], rel=0.01)
    assert quality["flags"].tolist() == [0, Flag.EDGE | Flag.MASKED]


@pytest.mark.parametrize("how", ["peak", "centroid"])
def test_recentring_on_the_first_band(tmp_path, how):
    pixels = np.zeros((41, 41), np.float32)
    pixels[23, 18] = 50
    pixels[0, ::2] = 1e-3
    name = write_fits(tmp_path / "a.fits", pixels)
    shard, quality = cut_all(
        tmp_path, images("g", [[name]]), ["g"], recentre=how, recentre_radius=5.0, size=21
    )
    assert quality.loc[0, ["shift_x", "shift_y"]].tolist() == pytest.approx([-2, 3])
    assert np.unravel_index(np.nanargmax(shard.take([0])[0, 0]), (21, 21)) == (10, 10)


def test_annulus_and_zero_points(tmp_path):
    name = write_fits(tmp_path / "a.fits", noisy(level=7.0, noise=0.1, peak=100.0))
    for background in ("map", "annulus"):
        shard, quality = cut_all(
            tmp_path, images("g", [[name]]), ["g"], size=40, background=background,
            noise_units=False, zero_points={"g": 28.9},
        )  # fmt: skip
        stamp = shard.take([0])[0, 0]
        assert stamp[20, 20] == pytest.approx(1000, rel=0.01)
        assert np.median(stamp) == pytest.approx(0, abs=0.3)
        assert quality["sky_noise_g"][0] == pytest.approx(1.0, rel=0.15)


def test_the_result_does_not_depend_on_the_number_of_workers(tmp_path):
    names = [[write_fits(tmp_path / f"{n}.fits", noisy(n))] for n in range(300)]
    (tmp_path / "7.fits").write_bytes(b"<html>")
    (tmp_path / "200.fits").unlink()
    written = []
    for threads in (1, 2, 3):
        cut_all(tmp_path, images("g", names), ["g"], threads=threads)
        written.append(
            [(tmp_path / f"{k}.out").read_bytes() for k in ("cutouts", "quality", "files")]
        )
    assert written[0] == written[1] == written[2]
    assert len(Shard(tmp_path / "cutouts.out")) == 298


class Fatal:
    """Ends its process at some slots, as a broken C library would."""

    def __init__(self, array, fatal):
        self.array, self.fatal = array, fatal

    def __call__(self, slots):
        for slot in slots:
            if slot in self.fatal:
                os._exit(11)
            self.array[slot] = slot
        return list(slots)

    def lost(self, slot):
        return [f"lost {slot}"]


def test_a_process_that_dies_costs_its_slot_only():
    array = shared_array((40,))
    done = [x for part in work_through(Fatal(array, {5, 23}), 40, 8, 2) for x in part]
    assert done == [n if n not in (5, 23) else f"lost {n}" for n in range(40)]
    assert array.tolist() == [n if n not in (5, 23) else 0 for n in range(40)]


@pytest.mark.parametrize("threads", [1, 3])
def test_the_buffer_of_cutouts_is_used_again_and_again(tmp_path, monkeypatch, threads):
    names = []
    for number in range(30):
        path = tmp_path / f"{number}.fits"
        fits.PrimaryHDU(np.random.default_rng(number).normal(0, 1, (40, 40))).writeto(path)
        names.append([str(path)])
    (tmp_path / "17.fits").write_bytes(b"no image")
    whole, quality = cut_all(tmp_path, images("g", names), ["g"])
    expected = whole.read(0, 29)
    monkeypatch.setattr("luneta.cutouts.stamps.OBJECTS_AT_ONCE", 4)
    monkeypatch.setattr("luneta.cutouts.stamps.AHEAD", 2)
    shard, found = cut_all(tmp_path, images("g", names), ["g"], threads=threads)
    np.testing.assert_array_equal(shard.read(0, 29), expected)
    assert found.equals(quality)
    assert quality["usable"].tolist() == [number != 17 for number in range(30)]


def test_a_shard_without_a_usable_object(tmp_path):
    flags = {"flags": pa.array([8], pa.int32())}
    for threads in (1, 2):
        shard, quality = cut_all(
            tmp_path, images("g", [["a.fits"]]), ["g"], objects=flags, threads=threads
        )
        assert (len(shard), quality["flags"].tolist()) == (0, [Flag.DUPLICATE_ID])


def test_an_error_of_the_program_is_raised():
    with pytest.raises(TypeError):
        list(work_through(Fatal(None, ()), 4, 2, 2))


@pytest.mark.parametrize(("side", "size"), [(101, 64), (101, 65), (100, 64), (100, 65)])
def test_the_central_pixel_of_a_stamp_lands_at_half_the_size(side, size):
    pixels = np.zeros((1, 1, side, side), np.float32)
    pixels[..., side // 2, side // 2] = 1
    centre = np.array([side // 2])
    small = cut(pixels, centre, centre, np.array([1.0]), size, mean=False)
    assert np.argwhere(small[0, 0]).tolist() == [[size // 2, size // 2]]
    factor = kept_side((side, side), 1.0, size) / size
    small = cut(pixels, centre, centre, np.array([factor]), size, mean=False)[0, 0]
    assert np.unravel_index(small.argmax(), small.shape) == (size // 2, size // 2)
    assert np.isfinite(small).all()
    assert small.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("shape", "size", "side"),
    [
        ((24, 25), 25, 25), ((25, 24), 25, 25), ((63, 64), 64, 64), ((63, 63), 64, 64),
        ((64, 65), 64, 64), ((65, 65), 64, 64), ((40, 64), 64, 64), ((64, 64), 64, 64),
        ((48, 48), 64, 48), ((62, 62), 64, 62), ((101, 101), 64, 100),
    ],
)  # fmt: skip
def test_a_stamp_a_pixel_short_is_padded_and_others_are_resampled(shape, size, side):
    assert kept_side(shape, 1.0, size) == side


def test_a_part_of_a_stamp_a_pixel_short_is_not_resampled():
    assert kept_side((119, 120), 0.534, 64) == 64
    assert kept_side((118, 118), 0.534, 64) == 64  # 63.01 pixels


def test_padding_is_masked_and_at_the_edge(tmp_path):
    pixels = noisy(shape=(24, 25))
    path = write_fits(tmp_path / "a.fits", pixels)
    shard, quality = cut_all(
        tmp_path, images("g", [[path]]), ["g"], size=25, background="none", noise_units=False
    )
    assert quality["flags"].tolist() == [Flag.EDGE | Flag.MASKED]
    assert quality["resample_factor"].tolist() == [1]
    found = shard.take([0])[0, 0]
    # Row 12 of 24 is the centre, and falls on row 12 of 25; the last one is missing.
    assert np.array_equal(found[:24], pixels)
    assert np.isnan(found[24]).all()


def test_a_reduced_picture_keeps_its_shade():
    pixels = np.full((1, 3, 90, 90), 200, np.float32)
    centre = np.array([45])
    small = cut(pixels, centre, centre, np.array([2.5]), 30, mean=True)
    assert small == pytest.approx(np.full((1, 3, 30, 30), 200), rel=1e-5)


def test_border_sky():
    pixels = np.random.default_rng(3).normal(10, 2, (1, 1, 100, 100)).astype(np.float32)
    pixels[..., 30:70, 30:70] += 1e4
    pixels[..., 0, :50] = np.nan
    level, noise = border_sky(pixels)
    assert (level[0, 0], noise[0, 0]) == (pytest.approx(10, abs=0.1), pytest.approx(2, rel=0.05))


def test_padding_tells_neither_sky_nor_noise():
    stamps = np.random.default_rng(1).normal(7, 2, (3, 1, 60, 60)).astype(np.float32)
    stamps[0, :, :40] = 0
    stamps[1] = 0
    level, noise = border_sky(stamps)
    assert level[:, 0].tolist() == pytest.approx([7, 0, 7], abs=0.3)
    assert noise[:, 0].tolist() == pytest.approx([2, 0, 2], rel=0.15)


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_median_is_numpy_s(count):
    values = np.random.default_rng(1).normal(size=(3, 5, count)).astype(np.float32)
    values[0, 1, 0] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.nanmedian(values, axis=-1)
    assert median(values.copy()) == pytest.approx(expected, nan_ok=True)


def given(tmp_path, **changes):
    return {
        "table": str(tmp_path / "t.csv"), "image": "{file}", "bands": ["red", "green", "blue"],
        "columns": {"object_id": "id", "ra": None, "dec": None}, "keep": {},
        "stamps_per_shard": 2, **changes,
    }  # fmt: skip


def test_stamps_are_dealt_in_table_order(tmp_path):
    (tmp_path / "t.csv").write_text("id,file\n01,a.png\n02,b.png\n03,c.png\n")
    slices = deal_stamps(given(tmp_path), tmp_path / "index")
    assert list(slices) == ["stamps_00000", "stamps_00001"]
    first = pq.read_table(slices["stamps_00000"])
    assert first["object_id"].to_pylist() == ["01", "02"]
    assert first["image_green"].to_pylist() == [f"{tmp_path}/a.png", f"{tmp_path}/b.png"]
    time = slices["stamps_00000"].stat().st_mtime_ns
    with (tmp_path / "t.csv").open("a") as table:
        table.write("04,d.png\n05,../x.png\n")
    slices = deal_stamps(given(tmp_path), tmp_path / "index")
    assert slices["stamps_00000"].stat().st_mtime_ns == time
    assert pq.read_metadata(slices["stamps_00001"]).num_rows == 2
    picture(tmp_path / "d.png")
    before = pq.read_table(slices["stamps_00001"])["signature"].to_pylist()
    slices = deal_stamps(given(tmp_path), tmp_path / "index")
    after = pq.read_table(slices["stamps_00001"])["signature"].to_pylist()
    assert (before[0], before[1], after[0]) == ("-", "-", "-")
    assert after[1].startswith(f"{(tmp_path / 'd.png').stat().st_size}:")


@pytest.mark.parametrize("name", ["", "*.parquet"])
def test_stamps_are_dealt_again_when_a_part_of_their_table_changes(tmp_path, name):
    folder = tmp_path / "table"
    folder.mkdir()
    for number in range(2):
        part = pa.table({"id": [f"o{number}"], "file": ["a.png"], "z": [0.1]})
        pq.write_table(part, folder / f"{number}.parquet")
    settings = given(tmp_path, table=str(folder / name), keep={"z": "z"}, root=str(tmp_path))
    deal_stamps(settings, tmp_path / "index")
    part = pa.table({"id": ["o1"], "file": ["a.png"], "z": [0.2]})
    pq.write_table(part, folder / "1.parquet")
    slices = deal_stamps(settings, tmp_path / "index")
    assert pq.read_table(slices["stamps_00000"])["z"].to_pylist() == [0.1, 0.2]


@pytest.mark.parametrize(
    ("image", "name", "refused"),
    [
        ("{file}", "../../etc/passwd", True),
        ("{file}", "/etc/passwd", True),
        ("{file}", "a/../b.png", False),
        ("img/{file}.png", "../b", True),
        ("img/{file}.png", "x/../b", False),
        ("../{file}.png", "b", False),
        ("../{file}.png", "../b", True),
        ("/data/{file}.png", "b", False),
        ("/data/{file}.png", "../b", True),
        ("{file}", "", True),
    ],
)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, image, name, refused):
    (tmp_path / "t.csv").write_text(f"id,file\n1,{name}\n2,ok.png\n")
    slices = deal_stamps(given(tmp_path, image=image), tmp_path / "index")
    reasons = pq.read_table(slices["stamps_00000"])["refused"].to_pylist()
    assert [reason is not None for reason in reasons] == [refused, False]
    if refused and name:
        assert "leads out of the folder" in reasons[0]
        assert repr(name)[1:-1] in reasons[0]


def test_templates_by_band_masks_weights_and_root(tmp_path):
    (tmp_path / "t.csv").write_text("id\n1\n")
    settings = given(
        tmp_path, bands=["g", "r"], image={"g": "{id}.fits[G]", "r": "{id}.fits[R]"},
        masks="masks/{id}_{band}.fits", weights="{id}.fits[VAR]", root=str(tmp_path / "data"),
    )  # fmt: skip
    row = pq.read_table(deal_stamps(settings, tmp_path / "index")["stamps_00000"]).to_pylist()[0]
    root = tmp_path / "data"
    assert row["image_r"] == f"{root}/1.fits[R]"
    assert row["mask_g"] == f"{root}/masks/1_g.fits"
    assert row["weight_r"] == f"{root}/1.fits[VAR]"
    assert "row" not in row


@pytest.mark.parametrize(("side", "size"), [(33, 33), (32, 33), (32, 32), (31, 32), (31, 31)])
def test_a_recentred_stamp_that_lacks_pixels_is_flagged_at_every_side(tmp_path, side, size):
    names, places = [], [(10, 16), (16, 10), (22, 16), (16, 22), (16, 16)]
    for number, (y, x) in enumerate(places):
        pixels = np.random.default_rng(0).normal(0, 1, (side, side)).astype(np.float32)
        pixels[y, x] = 900
        names.append([write_fits(tmp_path / f"{number}.fits", pixels)])
    shard, quality = cut_all(
        tmp_path, images("g", names), ["g"], size=size, recentre="peak", recentre_radius=7.0,
        extent={"unit": "pixels", "side": size},
    )  # fmt: skip
    beyond = (np.isnan(shard.read(0, 5)).any(axis=(1, 2, 3))).tolist()
    assert beyond[:4] == [True] * 4
    assert ((quality["flags"] & Flag.EDGE.value) > 0).tolist() == beyond


@pytest.mark.parametrize(
    ("side", "size"), [(33, 33), (33, 16), (32, 15), (100, 32), (21, 64), (200, 8), (64, 128)]
)
def test_a_centred_stamp_shown_whole_has_no_edge(tmp_path, side, size):
    name = write_fits(tmp_path / "a.fits", noisy(shape=(side, side)))
    _, quality = cut_all(tmp_path, images("g", [[name]]), ["g"], size=size)
    assert quality["flags"].tolist() == [0]


def test_saturation_beside_a_stamp_shown_at_another_scale(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[20, 26] = 1
    names = {"image_g": [write_fits(tmp_path / "a.fits", noisy())] * 2,
             "mask_g": [write_fits(tmp_path / "m.fits", mask)] * 2}  # fmt: skip
    _, quality = cut_all(
        tmp_path, names, ["g"], objects={"radius": [2.0, 30.0]}, pixel_scale=0.5,
        extent={"unit": "radius", "side": 4.0, "radius": "radius", "least": 1, "most": 200},
        mask={"planes": {"saturated": 0}, "saturated": ["saturated"]}, max_masked_fraction=1.0,
    )  # fmt: skip
    assert ((quality["flags"] & Flag.SATURATED.value) > 0).tolist() == [False, True]
