"""The list of candidates: ranked, a row for each system, with what is known of it."""

import logging
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table
from scipy.stats import beta

from catalog_files import arguments, write_shard
from luneta.catalog import candidates, write
from luneta.config import Candidates, ConfigError, Task
from luneta.survey.tables import TableError

ARCSEC = 1 / 3600
NAMES = ["a", "b", "c", "d", "e", "f", "g"]
# a, b and c lie in a row, 1.5 arcsec apart; d has no position; f is not usable
PLACES = {
    "ra": [10, 10, 10, np.nan, 40, 50, 60],
    "dec": [0, 1.5 * ARCSEC, 3 * ARCSEC, 0, 0, 0, 0],
}
SCORES = [0.9, 0.95, 0.7, 0.8, 0.6, 0.99, 0.3]


@pytest.fixture
def catalog(tmp_path):
    """Arguments of `candidates.run`, of a catalog with these scores."""
    shard = write_shard(tmp_path, "north", NAMES, rejected=[5], **PLACES)
    table = pq.read_table(shard["lens"])
    mask = np.array([name == "f" for name in NAMES])
    for stem, values in {"probability": SCORES, "std": [0.05] * 7}.items():
        number = table.schema.get_field_index(f"lens_spiral_{stem}")
        column = pa.array(np.array(values, np.float32), mask=mask)
        table = table.set_column(number, f"lens_spiral_{stem}", column)
    pq.write_table(table, shard["lens"])
    given = arguments(tmp_path, [shard])
    write.run(**given)
    labels = pa.table({"object_id": list("wxyz"), "label": ["spiral", *["smooth"] * 3]})
    pq.write_table(labels, tmp_path / "out_of_fold.parquet")
    return {
        "collection": given["outputs"]["collection"],
        "out_of_fold": tmp_path / "out_of_fold.parquet",
        "candidates": tmp_path / "catalog/lens_candidates.parquet",
        "settings": {
            **Candidates().model_dump(mode="json"),
            "task_name": "lens",
            "positive": "spiral",
            "survey": "test",
            "keep": {"magnitude_r": "MAG_R"},
        },
    }


def listed(catalog, **settings):
    catalog["settings"] |= settings
    candidates.run(**catalog)
    return pq.read_table(catalog["candidates"]).to_pandas()


def test_one_row_a_system_the_best_first(catalog):
    rows = listed(catalog)
    # b takes a and c, which lie within 2 arcsec of it though not of each other
    assert rows["object_id"].tolist() == ["b", "d", "e"]
    assert rows["rank"].tolist() == [1, 2, 3]
    assert rows["members"].tolist() == [3, 1, 1]
    np.testing.assert_allclose(rows["score"], [0.95, 0.8, 0.6], atol=1e-6)
    np.testing.assert_allclose(rows["probability"], rows["score"])
    np.testing.assert_allclose(rows["expected_purity"], [0.95, 0.875, (0.95 + 0.8 + 0.6) / 3])
    assert rows["magnitude_r"].tolist() == [1, 3, 4]
    assert set(rows["model_id"]) == {"lens-model"}


def test_how_far_the_list_goes(catalog):
    assert listed(catalog, probability=0.1)["object_id"].tolist() == ["b", "d", "e", "g"]
    assert listed(catalog, most=2)["object_id"].tolist() == ["b", "d"]
    assert listed(catalog, most=None, radius=0.0, probability=0.5)["object_id"].tolist() == [
        "b", "a", "d", "c", "e",
    ]  # fmt: skip
    none = listed(catalog, probability=0.999)
    assert len(none) == 0 and "expected_purity" in none


def test_systems_are_led_by_their_best():
    ra = np.array([0, 3, 1.5, 4.5, 100, np.nan]) * ARCSEC
    assert candidates.systems(ra, np.zeros(6), 2.0).tolist() == [0, 1, 0, 1, 4, 5]
    assert candidates.systems(ra[:0], ra[:0], 2.0).tolist() == []


def test_the_interval_is_that_of_a_beta_distribution():
    mean, spread = np.array([0.9, 0.5, 0.02]), np.array([0.05, 0.2, 0.02])
    low, high = candidates.interval(mean, spread)
    weight = mean * (1 - mean) / spread**2 - 1
    known = beta(mean * weight, (1 - mean) * weight)
    np.testing.assert_allclose(known.std(), spread, rtol=1e-6)
    np.testing.assert_allclose(low, known.ppf(0.158655), rtol=1e-4)
    np.testing.assert_allclose(high, known.ppf(0.841345), rtol=1e-4)


@pytest.mark.parametrize(("mean", "spread"), [(1.0, 0.0), (0.0, 0.0), (0.7, 0.0), (0.5, 0.5)])
def test_the_interval_stays_between_0_and_1(mean, spread):
    low, high = candidates.interval(np.array([mean]), np.array([spread]))
    assert 0 <= low[0] <= mean <= high[0] <= 1
    if spread == 0:
        assert low[0] == mean == high[0]


def test_probabilities_are_corrected_for_the_surveys_share(catalog):
    rows = listed(catalog, fraction=0.01)
    # Bayes: a quarter of the labels are positive, a hundredth of the survey
    up, down = 0.95 * 0.01 / 0.25, 0.05 * 0.99 / 0.75
    assert rows["probability"][0] == pytest.approx(up / (up + down), rel=1e-5)
    assert rows["score"][0] == pytest.approx(0.95)
    assert rows["object_id"].tolist() == ["b", "d", "e"]
    inside = (rows["probability_low"] < rows["probability"]) & (
        rows["probability"] < rows["probability_high"]
    )
    assert inside.all()
    assert rows["expected_purity"][2] == pytest.approx(rows["probability"].mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "header"), [("lenscat.csv", "name,RA [deg],DEC [deg],zlens"), ("l.csv", "ID,ra,dec,z")]
)
def test_known_ones_are_matched_by_place(catalog, tmp_path, name, header):
    lines = [header, f"J1,10.0,{2 * ARCSEC},-", "J2,40.01,0,0.3", "J3,,,"]
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    rows = listed(catalog, known=str(tmp_path / name))
    assert rows["known_name"].fillna("").tolist() == ["J1", "", ""]
    assert rows["known_distance"][0] == pytest.approx(0.5, abs=1e-3)
    assert rows["known_distance"][1:].isna().all()
    distances = pq.read_table(catalog["candidates"])["known_distance"]
    assert distances.null_count == 2


def test_known_ones_in_other_columns_and_formats(catalog, tmp_path):
    table = Table({"lens": ["J1"], "alpha": ["00:40:00"], "delta": [0.0]})
    table.write(tmp_path / "known.vot", format="votable")
    settings = {"known": str(tmp_path / "known.vot")}
    with pytest.raises(TableError) as error:
        listed(catalog, **settings)
    assert "no column holds the ra of the known ones; it has lens, alpha, delta" in str(error.value)
    columns = {"ra": "alpha", "dec": "delta", "name": "lens"}
    table["alpha"] = [10.0]
    table.write(tmp_path / "known.vot", format="votable", overwrite=True)
    assert listed(catalog, **settings, known_columns=columns)["known_name"][0] == "J1"


def test_names_of_known_ones_are_text_whatever_they_look_like(tmp_path):
    (tmp_path / "known.csv").write_text("ra,dec,Name\n10,2,007\n11,2,18446744073709551615\n")
    names = candidates.read_known(tmp_path / "known.csv", {})[2]
    assert names.tolist() == ["007", "18446744073709551615"]


@pytest.mark.parametrize(
    ("ra", "expected"), [("12:30:49.4", 187.705833), ("12:30:49", 187.704167), ("187.5", 187.5)]
)
def test_known_ones_have_the_positions_that_sources_have(tmp_path, ra, expected):
    """By hand: (12 + 30 / 60 + 49.4 / 3600) * 15."""
    (tmp_path / "known.csv").write_text(f"ra,dec,name\n{ra},-12:30:00,a\n{ra},0:30:00,b\n")
    found = candidates.read_known(tmp_path / "known.csv", {})
    assert found[0].tolist() == pytest.approx([expected] * 2, abs=1e-6)
    assert found[1].tolist() == [-12.5, 0.5]


def test_known_ones_in_hours_and_in_numbers_are_refused_by_file(tmp_path):
    (tmp_path / "known.csv").write_text("ra,dec,name\n12:30:49.4,2,a\n187.7,2,b\n")
    with pytest.raises(TableError, match="known.csv: column 'ra' holds hours, minutes and seconds"):
        candidates.read_known(tmp_path / "known.csv", {})


def test_grades_are_experts_own(catalog, tmp_path, caplog):
    grades = tmp_path / "grades.csv"
    # c is a member of the system of b; g is not probable enough
    grades.write_text("object_id,grade\nc,B\ne,A\ng,C\nd,\n")
    with caplog.at_level(logging.INFO):
        rows = listed(catalog, grades=str(grades))
    assert rows["grade"].fillna("").tolist() == ["B", "", "A"]
    assert "1 graded objects are not probable enough to be listed" in caplog.text
    assert grades.read_text().startswith("object_id,grade\nc,B")
    grades.write_text("object_id,grade\nc,B\nb,A\nc,B\n")
    assert listed(catalog)["grade"][0] == "A"
    grades.write_text("object_id,grade\nc,B\nc,A\n")
    with pytest.raises(TableError, match="c has the grades B and A; leave one row of it"):
        listed(catalog)


def test_it_is_a_voparquet_file(catalog):
    listed(catalog)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = Table.read(catalog["candidates"], format="parquet.votable")
    assert str(table["ra"].unit) == "deg" and str(table["known_distance"].unit) == "arcsec"
    assert table["score"].meta["ucd"] == "stat.probability"
    for field in pq.read_schema(catalog["candidates"]):
        ucd = field.metadata.get(b"ucd", b"").decode()
        assert not ucd or check_ucd(ucd, check_controlled_vocabulary=True, has_colon=True), ucd
        assert field.metadata[b"description"]
    first = catalog["candidates"].read_bytes()
    listed(catalog)
    assert catalog["candidates"].read_bytes() == first


def test_only_binary_tasks_that_predict_have_candidates():
    task = {"kind": "binary", "classes": ["no", "yes"], "labels": "labels.csv", "candidates": {}}
    assert Task.model_validate(task).candidates.radius == 2.0
    with pytest.raises(ValueError, match="listed for binary tasks"):
        Task.model_validate(task | {"kind": "multiclass"})
    with pytest.raises(ValueError, match="come from the catalog"):
        Task.model_validate(task | {"predict": False})
    with pytest.raises(ValueError, match="probability"):
        Task.model_validate(task | {"candidates": {"probability": 2}})
    assert issubclass(ConfigError, ValueError)


def test_rows_without_a_spread_have_no_interval():
    rows = pd.DataFrame({"object_id": ["a"], "ra": [1.0], "dec": [1.0], "score": [0.8],
                         "spread": [np.nan]})  # fmt: skip
    found = candidates.ranked(rows, 0.5, Candidates().model_dump(mode="json"))
    assert found[["probability_low", "probability_high"]].isna().all(axis=None)
    assert found["probability"].tolist() == [0.8]


def test_kept_names_that_are_long_numbers_keep_all_digits(tmp_path):
    shard = write_shard(tmp_path, "north", ["a", "b"])
    table = pq.read_table(shard["objects"])
    longs = pa.array([4_611_686_018_427_387_905, None], pa.int64())
    pq.write_table(table.append_column("source_id", longs), shard["objects"])
    given = arguments(tmp_path, [shard])
    given["settings"]["keep"] = {"source_id": "SOURCE_ID"}
    write.run(**given)
    labels = pa.table({"object_id": ["w", "x"], "label": ["spiral", "smooth"]})
    pq.write_table(labels, tmp_path / "out_of_fold.parquet")
    settings = Candidates(probability=0).model_dump(mode="json")
    settings |= {"task_name": "lens", "positive": "spiral", "survey": "test"}
    path = tmp_path / "catalog/lens_candidates.parquet"
    candidates.run(
        given["outputs"]["collection"],
        tmp_path / "out_of_fold.parquet",
        path,
        settings | {"keep": {"source_id": "SOURCE_ID"}},
    )
    table = pq.read_table(path, columns=["object_id", "source_id"])
    assert table.schema.field("source_id").type == pa.int64()
    found = dict(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert found == {"a": 4_611_686_018_427_387_905, "b": None}
