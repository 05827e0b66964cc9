"""Detection against a tile whose objects are known, and on a real field."""

from pathlib import Path

import galsim
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord

from fits_files import add_star, tan_wcs, write_image
from luneta.config.survey import Detection, Mask
from luneta.survey.detect import (
    detect_sources,
    detect_tile,
    detected_columns,
    extract,
    position_names,
)
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError
from luneta.survey.ingest import run
from luneta.survey.tiles import BandFiles, Tile

SCALE, ZERO_POINT, NOISE = 0.262, 27.0, 0.6
SHAPE = (600, 620)
FIELDS = Path(__file__).parents[3] / "shared/data/multi_survey"


def settings(detection=None, **changes):
    return {
        "reference_band": "r",
        "detection": Detection(**(detection or {})).model_dump(mode="json"),
        "mask": Mask().model_dump(mode="json"),
        "weight": "inverse_variance",
        "zero_points": {"r": ZERO_POINT},
        **changes,
    }


def half_light_radius(profile) -> float:
    """Radius of the circle with half the light, by adding up the pixels of a large image."""
    stamp = profile.drawImage(nx=401, ny=401, scale=0.05).array
    yy, xx = np.indices(stamp.shape) - 200
    radius = np.hypot(xx, yy).ravel() * 0.05
    order = np.argsort(radius)
    light = np.cumsum(stamp.ravel()[order])
    return radius[order][np.searchsorted(light, 0.5 * profile.flux)]


def simulate(seed=3):
    """Stars and galaxies on a lattice; gives the image and one row of truth for each."""
    rng = np.random.default_rng(seed)
    image = galsim.ImageF(SHAPE[1], SHAPE[0], scale=SCALE)
    psf, truth = galsim.Moffat(beta=3.5, fwhm=1.1), []
    for number, (gx, gy) in enumerate(
        (x, y) for y in range(60, 560, 80) for x in range(60, 580, 80)
    ):
        x, y = gx + rng.uniform(-5, 5), gy + rng.uniform(-5, 5)
        star, magnitude = number % 3 == 0, rng.uniform(17.5, 18.5)
        axis_ratio, angle = rng.uniform(0.4, 1), rng.uniform(0, 180)
        galaxy = galsim.Exponential(half_light_radius=rng.uniform(1.0, 1.8))
        shape = galaxy.shear(q=axis_ratio, beta=angle * galsim.degrees)
        profile = galsim.Convolve(galsim.DeltaFunction() if star else shape, psf)
        profile = profile.withFlux(10 ** (0.4 * (ZERO_POINT - magnitude)))
        centre = galsim.PositionD(x + 1, y + 1)
        stamp = profile.drawImage(nx=150, ny=150, scale=SCALE, center=centre, dtype=np.float32)
        seen = stamp.bounds & image.bounds
        image[seen] += stamp[seen]
        truth.append((x, y, magnitude, star, 1 if star else axis_ratio, angle, profile))
    return image.array + 100 + rng.normal(0, NOISE, SHAPE).astype(np.float32), truth


@pytest.fixture(scope="module")
def sky():
    return simulate()


def as_tile(tmp_path, pixels, **others):
    wcs = tan_wcs(pixels.shape, scale=SCALE)
    names = {
        kind: write_image(tmp_path / f"{kind}.fits", array, wcs, compressed=False)
        for kind, array in others.items()
    }
    name = write_image(tmp_path / "image.fits", pixels.astype(np.float32), wcs)
    return Tile("a", "a", {"r": BandFiles(name, **names)})


@pytest.fixture(scope="module")
def found(sky, tmp_path_factory):
    return detect_tile(as_tile(tmp_path_factory.mktemp("sky"), sky[0]), settings())


def nearest(found, x, y):
    distance = np.hypot(found.x - x, found.y - y)
    return int(distance.argmin()), distance.min()


def test_every_object_is_found_at_its_place(sky, found):
    apart = np.array([nearest(found, row[0], row[1])[1] for row in sky[1]])
    assert (apart < 0.5).all()
    assert np.median(apart) < 0.1
    assert len(sky[1]) <= len(found.x) <= len(sky[1]) + 3
    world = tan_wcs(SHAPE, scale=SCALE).pixel_to_world(found.x, found.y)
    there = SkyCoord(found.ra, found.dec, unit="deg")
    assert world.separation(there).arcsec.max() < 1e-6


def test_magnitudes_sizes_and_shapes(sky, found):
    values = {name: found.kept[name].to_numpy() for name in found.kept.column_names}
    assert list(values) == detected_columns(settings())
    for x, y, magnitude, star, axis_ratio, angle, profile in sky[1]:
        row, _ = nearest(found, x, y)
        assert values["magnitude_r"][row] == pytest.approx(magnitude, abs=0.1)
        expected = half_light_radius(profile)
        assert values["half_light_radius"][row] == pytest.approx(expected, rel=0.15)
        assert values["axis_ratio"][row] == pytest.approx(axis_ratio, abs=0.15)
        assert values["star"][row] == star
        assert values["signal_to_noise"][row] > 50
        if axis_ratio < 0.7:  # the image's x axis lies at 280 degrees, and y at 10
            wrong = (values["position_angle"][row] - (280 + angle) + 90) % 180 - 90
            assert abs(wrong) < 8


def test_units_are_kept(found):
    schema = found.kept.schema
    units = {f.name: (f.metadata or {}).get(b"unit", b"").decode() for f in schema}
    assert units == {
        "magnitude_r": "mag", "magnitude_error_r": "mag",
        "half_light_radius": "arcsec", "axis_ratio": "",
        "position_angle": "deg", "signal_to_noise": "", "star": "",
    }  # fmt: skip


def test_stars_are_dropped_and_the_brightest_kept_if_asked(sky, tmp_path):
    tile = as_tile(tmp_path, sky[0])
    galaxies = detect_tile(tile, settings({"stars": "drop"}))
    assert not any(galaxies.kept["star"].to_pylist())
    few = detect_tile(tile, settings({"brightest": 5}))
    assert len(few.x) == 5
    brightest = sorted(row[2] for row in sky[1])[:5]
    np.testing.assert_allclose(sorted(few.kept["magnitude_r"].to_pylist()), brightest, atol=0.12)


def test_without_a_zero_point_the_magnitude_is_instrumental_and_is_called_so(sky, found, tmp_path):
    bare = detect_tile(as_tile(tmp_path, sky[0]), settings(zero_points={}))
    np.testing.assert_allclose(
        found.kept["magnitude_r"].to_numpy() - bare.kept["instrumental_magnitude_r"].to_numpy(),
        ZERO_POINT, atol=1e-4,
    )  # fmt: skip
    assert bare.kept["instrumental_magnitude_error_r"].equals(found.kept["magnitude_error_r"])
    assert not [name for name in bare.kept.column_names if name.startswith("magnitude")]
    about = {field.name: field.metadata for field in bare.kept.schema}
    for name in ("instrumental_magnitude_r", "instrumental_magnitude_error_r"):
        assert b"unit" not in about[name]
        assert b"ucd" not in about[name]
    assert b"no zero point" in about["instrumental_magnitude_r"][b"description"]


def star_field(places, shape=(200, 220), flux=5000.0):
    pixels = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    for x, y in places:
        add_star(pixels, x, y, flux)
    return pixels


def positions(found):
    order = np.argsort(found.x)
    return np.stack([found.x, found.y], axis=1)[order].round().astype(int).tolist()


def test_a_blended_pair_is_two(tmp_path):
    tile = as_tile(tmp_path, star_field([(100, 100), (108, 100)]))
    assert positions(detect_tile(tile, settings())) == [[100, 100], [108, 100]]
    one = detect_tile(tile, settings({"deblend_contrast": 1.0}))
    assert len(one.x) == 1


def test_nothing_is_found_where_mask_weight_or_value_say_bad(tmp_path):
    pixels = star_field([(30, 50), (80, 50), (130, 50), (180, 50)])
    mask, weight = np.zeros(pixels.shape, np.int16), np.ones(pixels.shape, np.float32)
    mask[30:70, 60:100] = 4
    weight[30:70, 110:150] = 0
    pixels[30:70, 160:200] = -999
    tile = as_tile(tmp_path, pixels, mask=mask, weight=weight)
    sentinel = Mask(sentinels=[-999]).model_dump(mode="json")
    assert positions(detect_tile(tile, settings(mask=sentinel))) == [[30, 50]]
    ignoring = Mask(planes={"halo": 2}, ignore=["halo"], sentinels=[-999]).model_dump(mode="json")
    assert positions(detect_tile(tile, settings(mask=ignoring))) == [[30, 50], [80, 50]]


def test_the_weight_gives_the_noise(tmp_path):
    pixels = star_field([(60, 100), (160, 100)], flux=300.0)
    variance = np.ones(pixels.shape, np.float32)
    variance[:, 110:] = 100
    tile = as_tile(tmp_path, pixels, weight=variance)
    found = detect_tile(tile, settings({"threshold": 4.0}, weight="variance"))
    assert positions(found) == [[60, 100]]
    error = found.kept["signal_to_noise"][0].as_py()
    assert 10 < error < 40  # 300 counts in a disc of 4 to 9 pixels' radius and noise 1


def test_files_that_cannot_be_used(tmp_path, caplog):
    good = as_tile(tmp_path, star_field([(60, 100)]))
    image = good.bands["r"].image
    small = write_image(tmp_path / "small.fits", np.zeros((10, 10), np.int16))
    plain = write_image(tmp_path / "plain.fits", np.zeros((10, 10), np.float32))
    bad = {
        Flag.MISSING_FILE: BandFiles(str(tmp_path / "none.fits")),
        Flag.SHAPE_MISMATCH: BandFiles(image, mask=small),
        Flag.NO_WCS: BandFiles(plain),
        Flag.NO_DATA: BandFiles(image, weight=write_image(
            tmp_path / "w.fits", np.zeros((200, 220), np.float32))),
    }  # fmt: skip
    for flag, files in bad.items():
        with pytest.raises(ImageError) as error:
            detect_tile(Tile("b", "a", {"r": files}), settings())
        assert error.value.flag == flag
    tiles = [Tile("b", "a", {"r": files}) for files in bad.values()]
    assert len(detect_sources(tiles, settings()).x) == 0
    together = detect_sources([*tiles, good], settings())
    assert together.tile.tolist() == ["a"]
    assert "none.fits" in caplog.text


def test_detected_objects_are_ingested_where_they_were_found(tmp_path):
    tile = as_tile(tmp_path, star_field([(60, 100), (160, 50)]))
    given = settings(tiles=[tile.as_dict()], columns={}, keep={}, sliced=False)
    run([], tmp_path / "o.parquet", given)
    objects = pq.read_table(tmp_path / "o.parquet")
    assert objects.column_names[8:] == detected_columns(given)
    assert objects["flags"].to_pylist() == [0, 0]
    assert sorted(np.round(objects["x"].to_numpy()).tolist()) == [60, 160]
    assert objects["object_id"][0].as_py().startswith("J")
    run([], tmp_path / "again.parquet", given)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "o.parquet").read_bytes()


def test_an_empty_tile_has_no_objects_but_all_columns(tmp_path):
    given = settings(
        tiles=[Tile("b", "a", {"r": BandFiles("none.fits")}).as_dict()],
        columns={}, keep={}, sliced=False,
    )  # fmt: skip
    run([], tmp_path / "o.parquet", given)
    objects = pq.read_table(tmp_path / "o.parquet")
    assert (len(objects), objects.column_names[8:]) == (0, detected_columns(given))


@pytest.mark.parametrize(
    ("ra", "dec", "name"),
    [
        (187.705833, 12.391111, "J123049.39+122327.9"),  # 12 30 49.39992 +12 23 27.9996
        (187.5, -0.5, "J123000.00-003000.0"),
        (0.0, 0.0, "J000000.00+000000.0"),
        (359.99999999, -89.99999, "J235959.99-895959.9"),
        (15.0, 30.0, "J010000.00+300000.0"),
        (10.684708, 41.26875, "J004244.32+411607.5"),  # Andromeda: 00 42 44.330 +41 16 07.50
    ],
)
def test_names_are_truncated_as_the_iau_asks(ra, dec, name):
    assert position_names(np.array([ra]), np.array([dec])).tolist() == [name]


def test_two_of_one_name_are_told_apart_whatever_their_order():
    ra, dec = np.array([15.00002, 15.00001, 16.0]), np.zeros(3)
    first = position_names(ra, dec)
    assert first.tolist() == [
        "J010000.00+000000.0b", "J010000.00+000000.0a", "J010400.00+000000.0"
    ]  # fmt: skip
    assert position_names(ra[::-1], dec[::-1]).tolist() == first[::-1].tolist()


@pytest.mark.skipif(not FIELDS.exists(), reason="../shared/data/multi_survey is not here")
@pytest.mark.parametrize(
    ("name", "least", "most"), [("CFHTLS-test_r", 30, 80), ("VICS82-test_i", 60, 120)]
)
def test_a_real_field(name, least, most):
    tile = Tile("a", "a", {"r": BandFiles(str(FIELDS / f"{name}.fits"))})
    found = detect_tile(tile, settings())
    assert least < len(found.x) < most
    assert len(set(found.object_id)) == len(found.x)


def test_nothing_is_found_in_noise():
    pixels = np.random.default_rng(0).normal(0, 1, (1000, 1000)).astype(np.float32)
    found = extract(pixels, np.zeros(pixels.shape, bool), None, Detection().model_dump())
    assert all(len(values) == 0 for values in found.values())
