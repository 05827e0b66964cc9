"""Detection with several bands: their sum, their magnitudes, and what one bad band costs."""

from pathlib import Path

import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io.votable.ucd import check_ucd
from astropy.wcs import WCS

from fits_files import tan_wcs, write_image
from luneta.config import ConfigError, validate
from luneta.config.survey import Detection, Mask, Remote
from luneta.survey.detect import detect_sources, detect_tile
from luneta.survey.detected import SPECTRUM, detected_columns, detected_schema
from luneta.survey.flags import Flag
from luneta.survey.images import ImageError
from luneta.survey.ingest import run
from luneta.survey.measure import Plane
from luneta.survey.tile_planes import noise_weighted_sum
from luneta.survey.tiles import BandFiles, Tile

SHAPE, SCALE = (360, 400), 0.262
SPOTS = [(x, y) for y in range(40, 340, 40) for x in range(40, 380, 40)]
SIGMA = 1.6


def settings(bands="gri", detection=None, **changes):
    return {
        "reference_band": "r",
        "bands": list(bands),
        "detection": Detection(**(detection or {})).model_dump(mode="json"),
        "mask": Mask().model_dump(mode="json"),
        "weight": "inverse_variance",
        "zero_points": dict.fromkeys(bands, 25.0),
        **changes,
    }


def gaussian(pixels, x, y, flux, sigma=SIGMA):
    """Add a point source; its pixels are those of a well sampled image."""
    reach = int(5 * sigma)
    rows, columns = (np.arange(int(c) - reach, int(c) + reach + 2) for c in (y, x))
    rows, columns = rows[rows >= 0], columns[columns >= 0]
    rows, columns = rows[rows < len(pixels)], columns[columns < pixels.shape[1]]
    inside = np.ix_(rows, columns)
    square = (rows[:, None] - y) ** 2 + (columns - x) ** 2
    pixels[inside] += flux * np.exp(-square / (2 * sigma**2)) / (2 * np.pi * sigma**2)


def field(flux, noise=1.0, seed=0, shape=SHAPE, spots=SPOTS, sigma=SIGMA):
    """Draw a field of point sources, each of its flux or all of one, on a sky of 100."""
    pixels = np.random.default_rng(seed).normal(100, noise, shape)
    for (x, y), value in zip(spots, np.broadcast_to(flux, len(spots)), strict=True):
        gaussian(pixels, x, y, value, sigma)
    return pixels.astype(np.float32)


def files(folder, band, pixels, wcs=None, **others):
    wcs = wcs or tan_wcs(pixels.shape, scale=SCALE)
    names = {
        kind: write_image(folder / f"{band}_{kind}.fits", array, wcs, compressed=False)
        for kind, array in others.items()
    }
    return BandFiles(write_image(folder / f"{band}.fits", pixels, wcs, compressed=False), **names)


def as_tile(folder, **images):
    return Tile("a", "a", {band: files(folder, band, image) for band, image in images.items()})


def values(found, name):
    return found.kept[name].to_numpy(zero_copy_only=False)


def hits(found, spots=SPOTS):
    """How many places have a detection within 2 pixels, and how many detections have no place."""
    spots = np.array(spots)
    if not len(found.x):
        return 0, 0
    apart = np.hypot(found.x - spots[:, :1], found.y - spots[:, 1:])
    return int((apart.min(axis=1) < 2).sum()), int((apart.min(axis=0) >= 2).sum())


def test_every_band_has_magnitudes_in_one_ellipse_so_that_colours_are_right(tmp_path):
    tile = as_tile(tmp_path, g=field(4000, seed=1), r=field(10000, seed=2), i=field(16000, seed=3))
    found = detect_tile(tile, settings())
    assert hits(found) == (len(SPOTS), 0)
    assert found.kept.column_names == [
        "magnitude_r", "magnitude_error_r", "magnitude_g", "magnitude_error_g",
        "magnitude_i", "magnitude_error_i", "half_light_radius", "axis_ratio", "position_angle",
        "signal_to_noise", "star",
    ]  # fmt: skip
    # 25 - 2.5 log10(10000) = 15; 2.5 log10(10000 / 4000) = 0.99485; 2.5 log10(1.6) = 0.51030
    np.testing.assert_allclose(values(found, "magnitude_r"), 15, atol=0.05)
    colour = values(found, "magnitude_g") - values(found, "magnitude_r")
    assert np.median(colour) == pytest.approx(0.99485, abs=0.003)
    colour = values(found, "magnitude_r") - values(found, "magnitude_i")
    assert np.median(colour) == pytest.approx(0.51030, abs=0.003)


def test_errors_are_the_scatter_of_the_magnitudes(tmp_path):
    tile = as_tile(tmp_path, g=field(400, seed=4), r=field(900, seed=5))
    found = detect_tile(tile, settings("gr"))
    for band, flux in (("g", 400), ("r", 900)):
        magnitude, error = (values(found, f"magnitude{part}_{band}") for part in ("", "_error"))
        pull = (magnitude - np.median(magnitude)) / error
        assert 0.8 < pull.std() < 1.25
        assert np.median(magnitude) == pytest.approx(25 - 2.5 * np.log10(flux), abs=0.06)
    # 2.5 / ln 10 = 1.0857
    expected = 1.0857 / values(found, "signal_to_noise")
    np.testing.assert_allclose(values(found, "magnitude_error_r"), expected, rtol=1e-4)


def test_the_sum_finds_what_no_band_shows(tmp_path):
    tile = as_tile(tmp_path, **{band: field(36, seed=n) for n, band in enumerate("griz")})
    alone = {band: detect_tile(tile, settings("griz", reference_band=band)) for band in "griz"}
    assert max(hits(found)[0] for found in alone.values()) < 0.1 * len(SPOTS)
    assert hits(detect_tile(tile, settings("griz", {"bands": "all"}))) == (len(SPOTS), 0)


def test_the_unit_of_a_band_has_no_part_in_the_sum(tmp_path):
    images = {band: field(60, seed=n) for n, band in enumerate("gri")}
    first = detect_tile(as_tile(tmp_path, **images), settings(detection={"bands": "all"}))
    images["g"] = images["g"] * np.float32(1e-12)
    images["i"] = images["i"] * np.float32(3e4)
    other = detect_tile(as_tile(tmp_path, **images), settings(detection={"bands": "all"}))
    assert len(other.x) == len(first.x)
    np.testing.assert_allclose(other.x, first.x, atol=0.01)
    np.testing.assert_allclose(
        values(other, "magnitude_g") - values(first, "magnitude_g"), 30, atol=0.01
    )


def test_the_sum_is_the_mean_weighted_by_inverse_variance():
    def plane(value, noise, bad):
        return Plane(*(np.array([row]) for row in (value, bad, noise, np.zeros(4, bool))))

    first = plane(np.float32([2, 4, 9, 0]), np.float32([2, 2, 2, 2]), [False, False, False, True])
    other = plane(np.float32([3, 9, 9, 0]), np.float32([1, 2, 1, 1]), [False, False, True, True])
    total = noise_weighted_sum([first, other])
    # In units of the typical noise (2 and 1.5) values are 1, 2, 4.5 and 2, 6; the variances are
    # 1, 1, 1 and (1/1.5)^2 = 0.444, (2/1.5)^2 = 1.778.
    np.testing.assert_allclose(
        total.pixels[0], [(1 + 2 * 2.25) / 3.25, (2 + 6 * 0.5625) / 1.5625, 4.5, 0], rtol=1e-6
    )
    np.testing.assert_allclose(total.noise[0, :3], [3.25**-0.5, 1.5625**-0.5, 1], rtol=1e-6)
    assert total.bad[0].tolist() == [False, False, False, True]


def test_a_pixel_bad_in_one_band_is_found_in_the_others(tmp_path):
    mask = np.zeros(SHAPE, np.uint8)
    mask[:200] = 1
    bands = {band: files(tmp_path, band, field(2000, seed=n)) for n, band in enumerate("gi")}
    bands["r"] = files(tmp_path, "r", field(2000, seed=9), mask=mask)
    found = detect_tile(Tile("a", "a", bands), settings(detection={"bands": "all"}))
    assert hits(found) == (len(SPOTS), 0)
    masked = found.y < 185
    assert np.isnan(values(found, "magnitude_r")[masked]).all()
    assert np.isnan(values(found, "magnitude_error_r")[masked]).all()
    assert np.isfinite(values(found, "magnitude_r")[found.y > 215]).all()
    assert np.isfinite(values(found, "magnitude_g")).all()
    assert found.kept["magnitude_r"].null_count == masked.sum()
    alone = detect_tile(Tile("a", "a", bands), settings())
    assert (alone.y > 190).all()


def test_a_flux_that_is_not_positive_has_no_magnitude(tmp_path):
    tile = as_tile(tmp_path, g=field(-3000, seed=1), r=field(3000, seed=2))
    found = detect_tile(tile, settings("gr"))
    assert len(found.x) == len(SPOTS)
    assert found.kept["magnitude_g"].null_count == len(SPOTS)
    assert found.kept["magnitude_error_g"].null_count == len(SPOTS)
    assert found.kept["magnitude_r"].null_count == 0


@pytest.mark.parametrize("bands", ["reference", "all"])
def test_a_band_that_cannot_be_read_costs_its_own_magnitudes(bands, tmp_path, caplog):
    tile = as_tile(tmp_path, r=field(3000, seed=2), i=field(3000, seed=3))
    tile.bands["g"] = BandFiles(str(tmp_path / "none.fits"))
    found = detect_tile(tile, settings("griz", {"bands": bands}))
    assert hits(found) == (len(SPOTS), 0)
    for band in "gz":
        assert found.kept[f"magnitude_{band}"].null_count == len(SPOTS)
    for band in "ri":
        assert found.kept[f"magnitude_{band}"].null_count == 0
    assert caplog.text.count("none.fits") == 1
    assert "band z is not measured: tile a has no image in band z" in caplog.text


def test_a_fetched_band_that_is_broken_is_named_by_its_address(tmp_path, caplog):
    tile = as_tile(tmp_path, g=field(3000), r=field(3000, seed=2))
    content = Path(tile.bands["g"].image.split("[")[0]).read_bytes()
    with fsspec.open("memory://short_g.fits", "wb") as file:
        file.write(content[: len(content) // 2])
    remote = Remote(retries=0, protocols=["memory"]).model_dump(mode="json")
    tile.bands["g"] = BandFiles("memory://short_g.fits[IMAGE]")
    found = detect_tile(tile, settings("gr", {"bands": "all"}, remote=remote))
    assert hits(found) == (len(SPOTS), 0)
    assert found.kept["magnitude_g"].null_count == len(SPOTS)
    assert "band g is not measured: memory://short_g.fits is truncated" in caplog.text
    with pytest.raises(ImageError, match=r"^memory://short_g.fits is truncated"):
        detect_tile(tile, settings("g", reference_band="g", remote=remote))


def test_a_cube_of_bands_is_measured_plane_by_plane(tmp_path):
    planes = np.stack([field(4000, seed=1), field(10000, seed=2)])
    name = write_image(tmp_path / "cube.fits", planes, tan_wcs(SHAPE), compressed=False)
    bands = {band: BandFiles(name, plane=number) for number, band in enumerate("gr")}
    found = detect_tile(Tile("a", "a", bands), settings("gr", {"bands": "all"}))
    colour = values(found, "magnitude_g") - values(found, "magnitude_r")
    assert np.median(colour) == pytest.approx(0.99485, abs=0.003)


def test_without_the_reference_band_there_are_no_objects(tmp_path, caplog):
    tile = as_tile(tmp_path, g=field(3000), i=field(3000))
    given = settings(detection={"bands": ["g", "i"]})
    with pytest.raises(ImageError, match="no image in the reference band r") as error:
        detect_tile(tile, given)
    assert error.value.flag == Flag.MISSING_FILE
    assert len(detect_sources([tile], given).x) == 0
    assert "tile a: no objects" in caplog.text


def test_bands_without_the_reference_band_can_be_detected_on(tmp_path):
    tile = as_tile(tmp_path, g=field(3000), r=field(0, seed=1), i=field(3000, seed=2))
    assert len(detect_tile(tile, settings()).x) < 3
    found = detect_tile(tile, settings(detection={"bands": ["g", "i"]}))
    assert hits(found) == (len(SPOTS), 0)


def larger_pixels(factor, shift):
    """A grid of pixels `factor` times as large, its corner shifted by some of the old ones."""
    wcs = tan_wcs(SHAPE, scale=SCALE)
    other = WCS(wcs.to_header())
    other.wcs.crpix = (wcs.wcs.crpix - 0.5 - shift) / factor + 0.5
    other.wcs.cdelt = [factor, factor]  # the matrix of the other has the scale
    return other


@pytest.mark.parametrize(("factor", "noise"), [(1, 1.0), (2, 1.0), (0.5, 0.2)])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_band_on_another_grid_has_right_magnitudes_and_errors(factor, noise, weighted, tmp_path):
    shift = 0.37
    spots = [((x + 0.5 - shift) / factor - 0.5, (y + 0.5 - shift) / factor - 0.5) for x, y in SPOTS]
    shape = tuple(int(side / factor) for side in SHAPE)
    sigma = 2 * SIGMA
    pixels = field(2000, noise, 6, shape, spots, sigma / factor)
    others = {"weight": np.full(shape, noise**-2, np.float32)} if weighted else {}
    bands = {"r": files(tmp_path, "r", field(9000, seed=7, sigma=sigma))}
    bands["i"] = files(tmp_path, "i", pixels, larger_pixels(factor, shift), **others)
    if weighted:
        ones = np.ones(SHAPE, np.float32)
        bands["r"] = files(tmp_path, "r", field(9000, seed=7, sigma=sigma), weight=ones)
    found = detect_tile(Tile("a", "a", bands), settings("ri"))
    inner = (found.x > 60) & (found.y > 60) & (found.x < 340) & (found.y < 300)
    magnitude, error = (values(found, f"magnitude{part}_i")[inner] for part in ("", "_error"))
    assert inner.sum() == 42
    assert np.median(magnitude) == pytest.approx(25 - 2.5 * np.log10(2000), abs=0.03)
    assert 0.7 < ((magnitude - np.median(magnitude)) / error).std() < 1.35


def test_what_is_ingested_says_what_each_column_is(tmp_path):
    tile = as_tile(tmp_path, g=field(3000), r=field(3000, seed=1))
    given = settings("gr", zero_points={"r": 25.0})
    run([], tmp_path / "o.parquet", given | {
        "tiles": [tile.as_dict()], "columns": {}, "keep": {}, "sliced": False,
    })  # fmt: skip
    schema = pq.read_schema(tmp_path / "o.parquet")
    assert schema.names[8:] == detected_columns(given)
    assert {"magnitude_r", "instrumental_magnitude_g"} < set(schema.names)
    about = {name: schema.field(name).metadata for name in detected_columns(given)}
    assert all(b"description" in said for said in about.values())
    assert about["magnitude_r"][b"ucd"] == b"phot.mag;em.opt.R"
    assert about["magnitude_error_r"][b"ucd"] == b"stat.error;phot.mag;em.opt.R"


@pytest.mark.parametrize("band", [*SPECTRUM, "green", "VIS"])
def test_all_ucds_are_valid(band):
    schema = detected_schema({"bands": [band], "zero_points": {band: 25.0}})
    for field_ in schema:
        ucd = field_.metadata.get(b"ucd")
        assert ucd is not None
        assert check_ucd(ucd.decode(), check_controlled_vocabulary=True), ucd


def test_a_band_that_the_survey_does_not_have_is_refused():
    given = {
        "survey": "sky",
        "input": {
            "kind": "tiles",
            "images": "{tile}_{band}.fits",
            "bands": ["g", "r"],
            "detection": {"bands": ["g", "x"]},
        },
    }
    with pytest.raises(ConfigError, match=r"detection.bands \['x'\] are not among bands"):
        validate(given)
