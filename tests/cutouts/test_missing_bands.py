"""Objects that lack a band: which bands they may do without, and what is told of the files."""

import numpy as np
import pytest
from astropy.io import fits

from cutout_jobs import job
from fits_files import tan_wcs, write_image
from luneta.config import ConfigError, Stamps, Tiles, validate
from luneta.survey.flags import Flag
from luneta.survey.stamp_index import deal_stamps, locate
from luneta.survey.tables import read_table
from luneta.survey.tiles import BandFiles, Tile

BANDS = ["g", "r", "z"]
SIDE = 32


def noise(seed=0, shape=(SIDE, SIDE)):
    return np.random.default_rng(seed).normal(10, 2, shape).astype(np.float32)


def write(path, pixels):
    fits.PrimaryHDU(pixels).writeto(path)
    return str(path)


def damaged(path):
    content = open(write(path, noise()), "rb").read()  # noqa: SIM115, PTH123
    path.write_bytes(content[:3000])
    return str(path)


def stamps(folder, rows, required=None, masks=None, **changes):
    """Cut stamps given as a list of file names for each object."""
    given = Stamps(kind="stamps", table="-", bands=BANDS, bands_required=required)
    settings = given.model_dump(mode="json") | changes.pop("given", {})
    slices = {f"image_{band}": [row[n] for row in rows] for n, band in enumerate(BANDS)}
    if masks:
        slices |= {f"mask_{band}": [row[n] for row in masks] for n, band in enumerate(BANDS)}
    objects = {"object_id": [f"o{n}" for n in range(len(rows))]}
    return job(folder, objects, slices, settings, **{"size": SIDE, **changes})


def test_every_bad_file_of_an_object_is_told_with_its_band(tmp_path):
    good = write(tmp_path / "good.fits", noise())
    broken, gone = damaged(tmp_path / "broken.fits"), str(tmp_path / "gone.fits")
    zero = write(tmp_path / "zero.fits", np.zeros((SIDE, SIDE), np.float32))
    empty = write(tmp_path / "empty.fits", np.full((SIDE, SIDE), np.nan, np.float32))
    rows = [[good, broken, gone], [zero, good, empty]]
    _, quality, files = stamps(tmp_path, rows)
    assert quality["flags"].tolist() == [Flag.UNREADABLE_FILE | Flag.MISSING_FILE, Flag.NO_DATA]
    assert [(note["flag"], note["band"], note["path"]) for note in files] == [
        ("unreadable_file", "r", broken),
        ("missing_file", "z", gone),
        ("no_data", "g", zero),
        ("no_data", "z", empty),
    ]
    first, second = quality["reject_reason"]
    assert broken in first and f"{gone} does not exist" in first
    assert "band g, is constant" in second and "band z, has no good pixel" in second


def test_bad_masks_are_told_too(tmp_path):
    rows = [[write(tmp_path / f"{band}.fits", noise(n)) for n, band in enumerate(BANDS)]]
    small = write(tmp_path / "small.fits", np.zeros((8, 8), np.int16))
    mask = write(tmp_path / "mask.fits", np.zeros((SIDE, SIDE), np.int16))
    gone = str(tmp_path / "gone.fits")
    _, quality, files = stamps(tmp_path, rows, masks=[[gone, small, mask]])
    assert quality["flags"].tolist() == [Flag.MISSING_FILE | Flag.SHAPE_MISMATCH]
    assert [(note["flag"], note["band"]) for note in files] == [
        ("missing_file", "g"),
        ("shape_mismatch", "r"),
    ]


def test_one_bad_cube_is_told_once(tmp_path):
    gone = str(tmp_path / "gone.fits")
    _, quality, files = stamps(tmp_path, [[gone] * 3, [gone] * 3])
    assert quality["reject_reason"].tolist() == [f"{gone} does not exist"] * 2
    assert [(note["band"], note["path"]) for note in files] == [(None, gone)]


def others(tmp_path):
    zero = np.zeros((SIDE, SIDE), np.float32)
    return {
        "gone": str(tmp_path / "gone.fits"),
        "broken": damaged(tmp_path / "broken.fits"),
        "constant": write(tmp_path / "zero.fits", zero),
        "of another shape": write(tmp_path / "shape.fits", noise(shape=(40, 40))),
        "not named": "",
    }


def test_a_band_that_is_not_required_is_masked_and_flagged(tmp_path):
    given = [write(tmp_path / f"{n}.fits", noise(n)) for n in range(3)]
    bad = others(tmp_path)
    rows = [given, *([*given[:2], name] for name in bad.values())]
    images, quality, files = stamps(tmp_path, rows, required=["g", "r"], background="map")
    assert quality["flags"].tolist() == [0] + [Flag.MISSING_BAND] * len(bad)
    assert quality["usable"].all()
    assert quality["masked_fraction"].tolist() == pytest.approx([0] + [1 / 3] * len(bad))
    assert np.isfinite(quality["sky_noise_r"]).all()
    assert np.isnan(quality["sky_noise_z"]).tolist() == [False] + [True] * len(bad)
    for name in quality.index[1:]:
        assert np.array_equal(images[name][:2], images["o0"][:2])
        assert np.isnan(images[name][2]).all()
    assert [(note["flag"], note["band"]) for note in files] == [
        ("missing_file", "z"), ("unreadable_file", "z"), ("shape_mismatch", "z"),
        ("missing_file", "z"), ("no_data", "z"),
    ]  # fmt: skip


def test_required_bands_are_required_all_the_same(tmp_path):
    good, gone = write(tmp_path / "good.fits", noise()), str(tmp_path / "gone.fits")
    _, quality, files = stamps(tmp_path, [[good, gone, gone]], required=["g", "r"])
    assert quality["flags"].tolist() == [Flag.MISSING_FILE]
    assert [note["band"] for note in files] == ["r", "z"]


def test_an_object_is_judged_by_the_bands_it_has(tmp_path):
    good, gone = write(tmp_path / "good.fits", noise()), str(tmp_path / "gone.fits")
    half = noise()
    half[:, :20] = np.nan
    half = write(tmp_path / "half.fits", half)
    rows = [[good, gone, gone], [half, gone, gone], [half, good, gone]]
    _, quality, _ = stamps(tmp_path, rows, required=["g"])
    lacks, masked = Flag.MISSING_BAND.value, Flag.MASKED.value
    assert quality["flags"].tolist() == [lacks, lacks | masked | Flag.TOO_MASKED, lacks | masked]
    # Pixels of all bands, so that a placement with all of them is the better one.
    expected = [2 / 3, (20 / 32 + 2) / 3, (20 / 32 + 1) / 3]
    assert quality["masked_fraction"].tolist() == pytest.approx(expected)


def test_an_object_without_its_first_band_is_recentred_on_the_next(tmp_path):
    pixels = noise()
    pixels[18, 14] += 5000
    path, gone = write(tmp_path / "r.fits", pixels), str(tmp_path / "gone.fits")
    images, quality, _ = stamps(
        tmp_path, [[gone, path, gone]], required=["r"], recentre="peak", recentre_radius=5.0
    )
    assert quality[["shift_x", "shift_y"]].iloc[0].tolist() == [-2, 2]
    assert images["o0"][1, 16, 16] == pixels[18, 14]


def test_a_table_may_leave_a_band_that_is_not_required_empty(tmp_path):
    (tmp_path / "t.csv").write_text("object_id,a,b\nx,1.fits,2.fits\ny,1.fits,\nz,,2.fits\n")
    settings = {
        "table": str(tmp_path / "t.csv"), "bands": ["g", "r"], "bands_required": ["g"],
        "image": {"g": "{a}", "r": "{b}"}, "columns": {"object_id": "object_id"}, "keep": {},
        "stamps_per_shard": 9,
    }  # fmt: skip
    found = locate(read_table(tmp_path / "t.csv"), settings)
    assert found.names["image_r"] == [str(tmp_path / "2.fits"), "", str(tmp_path / "2.fits")]
    assert found.refused == [None, None, "the table gives no a, which names its file"]
    assert list(deal_stamps(settings, tmp_path / "index")) == ["stamps_00000"]


# Tiles

SHAPE = (120, 130)
X, Y = np.array([40.0, 80.0]), np.array([60.0, 50.0])


def cut_tile(folder, files, required):
    given = Tiles(kind="tiles", tiles="-", sources="-", bands=BANDS, bands_required=required)
    tile = Tile("t", "t", {band: BandFiles(name) for band, name in files.items()})
    settings = {
        **given.model_dump(mode="json"),
        "pixels": "flux",
        "reference_band": "g",
        "tiles": [tile.as_dict()],
    }
    objects = {"object_id": ["a", "b"], "tile": ["t", "t"], "x": X, "y": Y}
    return job(folder, objects, None, settings, size=32)


@pytest.mark.parametrize("lack", ["not in the table", "gone", "broken"])
@pytest.mark.parametrize("required", [None, ["g", "r"]])
def test_a_tile_without_one_of_its_bands(tmp_path, lack, required):
    wcs = tan_wcs(SHAPE)
    files = {
        band: write_image(tmp_path / f"{band}.fits", noise(n, SHAPE), wcs, compressed=False)
        for n, band in enumerate(BANDS)
    }
    path = tmp_path / "z.fits"
    if lack == "not in the table":
        del files["z"]
    elif lack == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20_000])
    images, quality, notes = cut_tile(tmp_path, files, required)
    flag = Flag.UNREADABLE_FILE if lack == "broken" else Flag.MISSING_FILE
    (note,) = notes
    assert (note["tile"], note["band"], note["flag"]) == ("t", "z", flag.name.lower())
    if required is None:
        assert quality["flags"].tolist() == [flag] * 2
        return
    assert quality["flags"].tolist() == [Flag.MISSING_BAND] * 2
    assert quality["masked_fraction"].tolist() == pytest.approx([1 / 3] * 2)
    assert np.isfinite(images["a"][:2]).all()
    assert np.isnan(images["a"][2]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bands_required": ["g", "y"]}, r"\['y'\] are not among bands"),
        ({"bands_required": ["r"], "reference_band": "g"}, "lacks the reference band 'g'"),
        ({"bands_required": []}, "at least 1"),
    ],
)
def test_required_bands_that_cannot_be(changes, message):
    given = {"kind": "tiles", "tiles": "t.tsv", "sources": "s.csv", "bands": BANDS, **changes}
    with pytest.raises(ConfigError, match=message):
        validate({"survey": "a", "input": given})
