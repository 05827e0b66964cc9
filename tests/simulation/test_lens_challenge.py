"""The simulated set: its form, its truth, and that sums of pixels do not give the lenses away."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from luneta.config import validate
from luneta.cutouts.quality import Quality
from luneta.cutouts.stamps import cut_stamps
from luneta.simulation.deflectors import Light
from luneta.simulation.lens_candidates import lensed_light, make_source
from luneta.simulation.lens_challenge import (
    COLUMNS,
    arc_truth,
    draw,
    run,
    simulate_object,
    sky_noise,
)
from luneta.survey.stamp_index import deal_stamps

COUNT, SEED = 400, 3
SEEING = (1.0, 0.9, 0.7, 0.8)
UNIT = np.ones(4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lens_challenge")
    run(folder, COUNT, SEED)
    return folder


@pytest.fixture(scope="module")
def images(folder):
    with h5py.File(folder / "images.h5") as file:
        return file["data"][:]


@pytest.fixture(scope="module")
def table(folder):
    return pd.read_csv(folder / "labels.csv")


def test_form(images, table):
    assert images.shape == (COUNT, 4, 101, 101)
    assert images.dtype == np.float32
    assert np.isfinite(images).all()
    assert table.columns.tolist() == list(COLUMNS)
    assert table["row"].tolist() == list(range(COUNT))
    assert table["object_id"].is_unique
    assert table["label"].value_counts().to_dict() == {"lens": COUNT // 2, "nolens": COUNT // 2}


def test_the_same_seed_gives_the_same_set_with_any_number_of_threads(folder, tmp_path):
    for name, threads in (("one", 1), ("two", 2)):
        run(tmp_path / name, 60, SEED, threads)
    one, two = ((tmp_path / n / "images.h5").read_bytes() for n in ("one", "two"))
    assert one == two
    one, two = ((tmp_path / n / "labels.csv").read_text() for n in ("one", "two"))
    assert one == two
    assert (folder / "labels.csv").read_text().startswith(one)


def test_an_object_depends_on_its_index_and_the_seed_alone(images, table):
    image, row = simulate_object(77, SEED)
    assert (image == images[77]).all()
    assert row["label"] == table["label"][77]
    assert (simulate_object(77, SEED + 1)[0] != images[77]).any()


def test_masked_regions(images, table):
    masked = (images == 100).mean(axis=(1, 2, 3))
    assert masked == pytest.approx(table["masked_fraction"].to_numpy(), abs=1e-6)
    assert 0.25 < (masked > 0).mean() < 0.42
    assert abs(images[images != 100]).max() < 1e-6


def test_noise_is_that_of_the_depth(images):
    # 5 sigma in 2 arcsec at u 24.3, g 25.1, r 24.9, i 23.8, over 78.5 pixels.
    expected = [4.3e-12, 2.06e-12, 2.48e-12, 6.82e-12]
    assert sky_noise() == pytest.approx(expected, rel=0.01)
    sky = np.where(images == 100, np.nan, images)
    spread = np.nanmedian(abs(sky - np.nanmedian(sky, axis=(2, 3), keepdims=True)), axis=(2, 3))
    assert 1.4826 * np.median(spread, axis=0) == pytest.approx(expected, rel=0.1)


def test_truth_of_lenses(table):
    lenses, others = table[table["label"] == "lens"], table[table["label"] == "nolens"]
    assert others[["einstein_radius", "source_magnitude", "detectable"]].isna().all(axis=None)
    assert lenses[["einstein_radius", "magnification", "arc_magnitude"]].notna().all(axis=None)
    assert (lenses["magnification"] > 1.6).all()
    # Some lenses cannot be seen, most can.
    assert 0.75 < lenses["detectable"].mean() < 0.95
    assert (lenses["arc_signal_to_noise"] < 3).any()
    assert table["deflector_magnitude"].between(14, 26).all()
    assert (lenses["kind"] == "lens").all()
    assert others["kind"].nunique() == 7


def test_signal_to_noise_of_arcs_without_masked_pixels():
    image, noise, good = np.zeros((101, 101)), np.full((101, 101), 2.0), np.ones((101, 101), bool)
    image[10, 10:35] = 4.0
    image[20, 20] = 40.0
    good[20, 20] = False
    arcs = Light(lambda x, y: 2.5 * np.exp(-(x**2 + y**2) / 2) / (2 * np.pi), 1e-9 * UNIT)
    truth = arc_truth(arcs, image, noise, good)
    assert truth["arc_signal_to_noise"] == pytest.approx(10)  # 25 pixels of 2 sigma
    assert truth["arc_pixels"] == 25
    assert truth["magnification"] == pytest.approx(2.5, rel=1e-3)
    assert truth["arc_magnitude"] == pytest.approx(22.5 - 2.5 * np.log10(2.5), abs=2e-3)
    assert truth["detectable"] == 1
    good[10, 10:16] = False
    assert arc_truth(arcs, image, noise, good)["detectable"] == 0


@pytest.mark.parametrize("radius", [0.9, 1.4, 2.8])
def test_a_ring_is_seen_at_the_einstein_radius(radius):
    mass = [
        {"theta_E": radius, "e1": 0.0, "e2": 0.0, "center_x": 0.0, "center_y": 0.0},
        {"gamma1": 0.0, "gamma2": 0.0},
    ]
    model, (disc, *clumps) = make_source(24.0, (0.0, 0.0), np.random.default_rng(0))
    source = {**disc, "e1": 0.0, "e2": 0.0, "R_sersic": 0.15}
    ring = Light(lensed_light(mass, (model, [source, *clumps]), 8.0), 1e-8 * UNIT)
    image = draw([ring], SEEING)[2]
    y, x = np.mgrid[-50:51, -50:51]
    distance = np.round(np.hypot(x, y)).astype(int)
    profile = np.bincount(distance.ravel(), image.ravel()) / np.bincount(distance.ravel())
    assert profile.argmax() * 0.2 == pytest.approx(radius, abs=0.2)


def test_a_point_is_drawn_in_its_place_with_the_width_of_the_seeing():
    point = Light(lambda x, y: ((x == 0) & (y == 0)) / 0.1**2, UNIT, (2.0, -1.0))
    image = draw([point], SEEING)
    assert image.sum(axis=(1, 2)) == pytest.approx(UNIT, abs=0.03)
    y, x = np.mgrid[:101, :101]
    for plane, width in zip(image, SEEING, strict=True):
        core = np.where(plane > plane.max() / 10, plane, 0)
        assert np.average(x, weights=core) == pytest.approx(60, abs=0.05)
        assert np.average(y, weights=core) == pytest.approx(45, abs=0.05)
        across = plane[45, 60:65] - plane.max() / 2
        half = np.interp(0, -across, np.arange(5)) * 0.2
        assert 2 * half == pytest.approx(width, abs=0.06)


def apertures(images):
    """Sum the light in the whole stamp, in circles and in rings, in units of the sky noise."""
    y, x = np.mgrid[-50:51, -50:51] * 0.2
    distance = np.hypot(x, y)
    limits = [(0, 20), (0, 2), (0, 4), (0, 0.6), (0.6, 1.2), (1.2, 2), (2, 3), (3, 4.5)]
    clean = np.where(images == 100, 0, images) / sky_noise()[:, None, None]
    sums = [clean[..., (distance >= a) & (distance < b)].sum(axis=-1) for a, b in limits]
    return np.arcsinh(np.concatenate(sums, axis=1) / 10)


def test_sums_and_colours_do_not_tell_lenses_from_others(images, table):
    lens = (table["label"] == "lens").to_numpy()
    features = apertures(images)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    for chosen, limit in ((features[:, :4], 0.6), (features[:, :12], 0.75), (features, 0.8)):
        scores = cross_val_predict(model, chosen, lens, cv=5, method="predict_proba")[:, 1]
        assert roc_auc_score(lens, scores) < limit


def test_the_stamp_reader_finds_stamps_and_masks_by_the_challenges_preset(folder, images):
    section = {
        "kind": "stamps", "root": str(folder), "table": str(folder / "labels.csv"),
        "image": "images.h5[data]", "row": "row", "columns": {"object_id": "object_id"},
        "keep": {"label": "label"},
    }  # fmt: skip
    given = validate({"survey": "s", "preset": "lens_challenge", "input": section})
    given = given.model_dump(mode="json")["input"]
    path = deal_stamps(given | {"stamps_per_shard": 50}, folder / "index")["stamps_00001"]
    stamps = pq.read_table(path)
    objects = pa.table(
        {
            "object_id": stamps["object_id"],
            "flags": pa.array([0] * 50, pa.int32()),
            "reject_reason": pa.nulls(50, pa.string()),
        }
    )
    assert stamps["object_id"][0].as_py() == "3-000050"
    job = {
        key: given.get(key)
        for key in ("bands", "pixels", "axes", "zero_points", "weight", "mask", "remote")
    }
    job["cutouts"] = {"size": 101, "crop": 1.0, "background": "none", "noise_units": False}
    blocks = cut_stamps(objects, stamps, Quality.of(objects, given["bands"]), job, 1)
    found = np.concatenate([block.copy() for _, block in blocks])
    expected = np.where(images[50:100] == 100, np.nan, images[50:100])
    assert np.isnan(expected).any()
    assert np.array_equal(found, expected, equal_nan=True)


def test_nothing_is_left_of_a_run_that_fails(tmp_path):
    with pytest.raises(ValueError, match="objects = 0, .* give at least one object"):
        run(tmp_path, 0, 1)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_the_set(images, tmp_path):
    script = Path(__file__).parents[2] / "scripts" / "simulate_lens_challenge.py"
    options = [str(tmp_path), "--objects", "3", "--seed", str(SEED), "--threads", "2"]
    subprocess.run([sys.executable, script, *options], check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images.h5", "labels.csv"]
    with h5py.File(tmp_path / "images.h5") as file:
        assert np.array_equal(file["data"][:], images[:3])
        assert file["data"].attrs["bands"].tolist() == ["u", "g", "r", "i"]
        assert file["data"].attrs["zero_point"] == 0
