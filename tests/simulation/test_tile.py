import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from luneta.config import Simulation
from luneta.simulation import tile as simulated
from luneta.simulation.camera import pixel_noise

BANDS = ["g", "r", "i"]
SETTINGS = {
    "seed": 4,
    "bands": BANDS,
    "simulation": Simulation(pixels=500, objects=40).model_dump(),
}


def simulate(folder, tile="demo_0", **change):
    outputs = {
        "images": {band: folder / f"{tile}_{band}.fits" for band in BANDS},
        **{kind: folder / f"{tile}_{kind}" for kind in ("sources", "labels", "truth")},
    }
    simulated.run(tile, {**SETTINGS, **change}, outputs)
    return outputs


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def sources(outputs):
    return Table.read(outputs["sources"], format="fits")


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_same_tile_has_the_same_bytes(outputs, tmp_path):
    simulate(tmp_path)
    assert contents(tmp_path) == contents(outputs["truth"].parent)


def test_another_seed_and_another_name_give_another_tile(outputs, tmp_path):
    simulate(tmp_path, seed=5)
    other = simulate(tmp_path, "demo_1")
    before = contents(outputs["truth"].parent)
    after = contents(tmp_path)
    assert all(after[name] != content for name, content in before.items())
    assert other["images"]["g"].read_bytes() != before["demo_0_g.fits"]


def test_first_four_tiles_fill_a_square_of_neighbours():
    assert [simulated.grid_position(f"demo_{k}") for k in range(4)] == [
        (0, 0), (1, 0), (0, 1), (1, 1),
    ]  # fmt: skip
    assert simulated.grid_position("north") == simulated.grid_position("north")
    centres = [simulated.wcs_cards(f"demo_{k}", 500, 0.262) for k in (0, 1)]
    step = (centres[1]["CRVAL1"] - centres[0]["CRVAL1"]) * np.cos(np.radians(2))
    assert step * 3600 == pytest.approx(500 * 0.262, rel=1e-6)


def test_every_extension_has_the_rotated_coordinates(outputs):
    with fits.open(outputs["images"]["r"]) as file:
        assert [unit.name for unit in file[1:]] == ["IMAGE", "WEIGHT", "MASK"]
        for unit in file[1:]:
            wcs = WCS(unit.header)
            assert wcs.wcs.ctype[0] == "RA---TAN"
            assert wcs.proj_plane_pixel_scales()[0].to_value("arcsec") == pytest.approx(0.262)
            assert "DATE" not in unit.header
            assert "CHECKSUM" not in unit.header
        assert isinstance(file["IMAGE"], fits.CompImageHDU)


def test_objects_lie_where_the_source_list_says(outputs, sources):
    with fits.open(outputs["images"]["i"]) as file:
        image, mask = file["IMAGE"].data.astype(float), file["MASK"].data
        x, y = WCS(file["IMAGE"].header).all_world2pix(sources["RA"], sources["DEC"], 0)
    truth = pq.read_table(outputs["truth"]).to_pandas()
    offsets = []
    for k in np.flatnonzero((truth.lens == "nolens") & (truth.magnitude_r < 19.5)):
        column, row = round(x[k]), round(y[k])
        if not (12 < column < 487 and 12 < row < 487):
            continue
        box = (slice(row - 5, row + 6), slice(column - 5, column + 6))
        if mask[box].any():
            continue
        around = image[row - 12 : row + 13, column - 12 : column + 13]
        light = np.maximum(image[box] - np.nanpercentile(around, 25), 0) ** 2
        offset = np.mgrid[-5:6, -5:6]
        centre = [(light * o).sum() / light.sum() for o in offset]
        offsets.append(np.hypot(centre[0] + row - y[k], centre[1] + column - x[k]))
    assert len(offsets) >= 5
    assert np.max(offsets) < 1
    assert np.median(offsets) < 0.4


@pytest.mark.parametrize("band", BANDS)
def test_defects_are_masked_and_weigh_nothing(outputs, band):
    with fits.open(outputs["images"][band]) as file:
        image, weight, mask = (file[name].data for name in ("IMAGE", "WEIGHT", "MASK"))
    dead = np.isnan(image)
    assert dead.any()
    assert (mask[dead] & simulated.BAD_COLUMN).all()
    bad = (mask & simulated.BAD_COLUMN).astype(bool)
    assert (bad.mean(axis=0) == 1).sum() >= 3
    saturated = (mask == simulated.SATURATED) & ~dead
    level = np.float32(simulated.SATURATION * 0.262**2)
    assert saturated.any()
    assert np.allclose(image[saturated], level, rtol=1e-2)
    assert np.nanmax(image[~bad]) < 1.01 * level
    assert (weight[mask > 0] == 0).all()
    assert (weight[mask == 0] > 0).all()


def test_noise_is_that_of_the_weight(outputs):
    with fits.open(outputs["images"]["g"]) as file:
        image, weight, mask = (file[name].data for name in ("IMAGE", "WEIGHT", "MASK"))
    difference = np.diff(np.where(mask == 0, image, np.nan), axis=1) / np.sqrt(2)
    noise = 1.4826 * np.nanmedian(np.abs(difference))
    assert noise == pytest.approx(pixel_noise("g", 0.262), rel=0.05)
    assert np.median(weight[mask == 0]) ** -0.5 == pytest.approx(noise, rel=0.05)


def test_source_list_has_units_and_labels_are_a_part_of_it(outputs, sources):
    assert sources.colnames == ["OBJECT_ID", "RA", "DEC", "MAG_R", "RADIUS"]
    assert [str(sources[c].unit) for c in sources.colnames[1:]] == ["deg", "deg", "mag", "arcsec"]
    with outputs["labels"].open() as file:
        labels = list(csv.DictReader(file))
    names = [str(name) for name in sources["OBJECT_ID"]]
    assert names[0] == "demo_0_00000"
    assert len(labels) == 24
    assert {row["object_id"] for row in labels} < set(names)


def test_truth_is_complete_and_agrees_with_the_labels(outputs, sources):
    table = pq.read_table(outputs["truth"])
    assert table.schema.field("einstein_radius").metadata == {b"unit": b"arcsec"}
    truth = table.to_pandas().set_index("object_id")
    assert truth.index.tolist() == [str(name) for name in sources["OBJECT_ID"]]
    assert (truth.lens == "lens").sum() == 5
    assert truth.einstein_radius.isna().equals(truth.lens == "nolens")
    assert truth.drop(columns="einstein_radius").notna().all(axis=None)
    with outputs["labels"].open() as file:
        for row in csv.DictReader(file):
            assert (row["morphology"], row["lens"]) == tuple(
                truth.loc[row["object_id"], ["morphology", "lens"]]
            )


def test_a_crowded_tile_is_filled():
    places = simulated.scatter(400, 200, np.random.default_rng(1))
    assert places.shape == (400, 2)
    assert places.min() >= 2
    assert places.max() <= 197
