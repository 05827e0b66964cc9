import subprocess
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io.votable.ucd import check_ucd
from astropy.table import Table

from catalog_files import rows_of
from luneta.catalog import provenance, schema, write
from luneta.catalog.read import catalog_schema, partition_files
from luneta.inference.predictions import PredictionsError
from luneta.survey.flags import Flag


@pytest.fixture
def catalog(survey):
    write.run(**survey)
    return survey["outputs"]["collection"]


@pytest.fixture
def leaf(catalog):
    """The only partition of the catalog."""
    (found,) = partition_files(catalog)
    return found


def test_rows_in_are_rows_out(survey, catalog):
    rows = rows_of(catalog)
    given = pd.concat([pd.read_parquet(path) for path in survey["objects"]])
    given = given.sort_values(["object_id", "tile"])
    assert list(rows["object_id"]) == list(given["object_id"])
    np.testing.assert_array_equal(rows["magnitude_r"], given["magnitude_r"])
    assert rows.loc[rows["object_id"] == "n2", "morphology_class"].isna().all()
    assert rows.loc[rows["object_id"] == "n3", "lens_model_id"].item() == "lens-model"


def test_predictions_of_an_older_schema_are_refused(survey):
    path = survey["predictions"]["lens"][1]
    pq.write_table(pq.read_table(path).drop_columns(["lens_run_id"]), path)
    with pytest.raises(PredictionsError, match=r"lacks lens_run_id .* remove it and run again"):
        write.run(**survey)


def test_an_id_of_an_earlier_shard_is_rejected(survey, catalog):
    first, second = rows_of(catalog).query("object_id == 'same'").itertuples()
    assert first.flags == 0
    assert isinstance(first.morphology_class, str)
    assert second.flags & Flag.DUPLICATE_ID
    assert "first is used" in second.reject_reason
    assert pd.isna(second.morphology_class)
    assert np.isnan(second.lens_spiral_probability)


def test_rejects_list_objects_and_files(survey, catalog):
    rejects = pd.read_parquet(survey["outputs"]["rejects"])
    assert list(rejects.query("kind == 'object'")["name"]) == ["n2", "s0", "same"]
    assert list(rejects.query("kind == 'file'")["name"]) == ["north_g.fits", "south_g.fits"]
    assert rejects["reason"].notna().all()


def test_astropy_reads_units_and_ucds(leaf):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = Table.read(leaf, format="parquet.votable")
    assert len(table) == 10
    table.add_index("object_id")
    assert table.loc["n2"]["reject_reason"] == "outside every tile"
    assert table.loc["n3"]["lens_model_id"] == "lens-model"
    units = {name: str(table[name].unit) for name in ("ra", "dec", "x", "dx", "magnitude_r")}
    assert units == {"ra": "deg", "dec": "deg", "x": "pix", "dx": "pix", "magnitude_r": "mag"}
    ucds = {c.name: c.meta.get("ucd") for c in table.itercols()}
    assert ucds["_healpix_29"] == "pos.healpix"
    assert ucds["object_id"] == "meta.id;meta.main"
    assert ucds["ra"] == "pos.eq.ra;meta.main"
    assert ucds["flags"] == "meta.code.qual"
    assert ucds["magnitude_r"] == "phot.mag"
    assert ucds["lens_spiral_probability"] == "stat.probability"
    assert ucds["morphology_class"] == "src.morph.type"
    assert ucds["lens_class"] == "src.class"
    assert "MAG_R" in table["magnitude_r"].description
    assert "2 MASKED" in table["flags"].description


def test_predictions_are_described_by_their_members(catalog):
    told = {
        field.name: field.metadata[b"description"].decode() for field in catalog_schema(catalog)
    }
    assert told["lens_mutual_information"].endswith("in nat: 0 if all members agree")
    assert told["lens_spiral_std"].endswith("over the ensemble's members")
    assert told["lens_model_id"].endswith("networks, calibration, views, draws, outlier model")


def test_all_ucds_are_valid(leaf):
    for field in pq.read_schema(leaf):
        ucd = field.metadata.get(b"ucd", b"").decode()
        assert not ucd or check_ucd(ucd, check_controlled_vocabulary=True, has_colon=True), ucd
        assert field.metadata[b"description"]


def test_provenance_is_in_what_tells_of_the_whole_catalog(catalog, leaf):
    folder = catalog.parent / "test"
    for path in (
        folder / "dataset/_common_metadata",
        catalog.with_name("without_position.parquet"),
    ):
        keys = pq.read_schema(path).metadata
        assert keys[b"IVOA.VOTable-Parquet.version"] == b"1.0"
        assert keys[b"luneta.model_id.lens"] == b"lens-model"
        assert len(keys[b"luneta.config_sha256"]) == 64
        assert len(keys[b"luneta.data_sha256.predictions.lens"]) == 64
        assert b"luneta.version.pyarrow" in keys
        xml = keys[b"IVOA.VOTable-Parquet.content"]
        assert b"luneta.config_sha256" in xml
        assert b'system="ICRS"' in xml
    properties = (folder / "hats.properties").read_text()
    assert "luneta.model_id.lens=lens-model" in properties
    # A leaf stays as it is when only these change.
    assert not any(key.startswith(b"luneta.") for key in pq.read_schema(leaf).metadata)


def test_a_shard_without_predictions_has_nulls(survey):
    survey["predictions"]["lens"][0] = None
    write.run(**survey)
    rows = rows_of(survey["outputs"]["collection"])
    assert rows["lens_class"].notna().sum() == 1
    assert rows["morphology_class"].notna().sum() == 7


def test_without_tasks_there_is_a_catalog(survey):
    survey |= {"predictions": {}, "metrics": {}}
    write.run(**survey)
    assert len(rows_of(survey["outputs"]["collection"])) == 10


def test_an_empty_shard_adds_nothing(survey):
    for paths in (*(survey[n] for n in ("objects", "quality")), *survey["predictions"].values()):
        pq.write_table(pq.read_table(paths[0]).slice(0, 0), paths[0])
    clusters = survey["clusters"]["morphology"]
    pq.write_table(pq.read_table(clusters).slice(7), clusters)
    write.run(**survey)
    rows = rows_of(survey["outputs"]["collection"])
    assert list(rows["object_id"]) == ["s0", "s2", "same"]
    assert rows["lens_class"].notna().sum() == 2


def test_rows_that_do_not_agree_are_an_error(survey):
    path = survey["predictions"]["lens"][1]
    pq.write_table(pq.read_table(path).take([1, 0, 2]), path)
    with pytest.raises(
        write.CatalogError, match="shard south: row 0 is 's0' in objects and 'same'"
    ):
        write.run(**survey)
    assert not survey["outputs"]["collection"].exists()
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(write.CatalogError, match="3 rows and .*lens_south.parquet has 2 of it"):
        write.run(**survey)


def test_clusters_that_do_not_agree_are_the_surveys_to_fix(survey):
    path = survey["clusters"]["morphology"]
    pq.write_table(pq.read_table(path).slice(0, 9), path)
    with pytest.raises(write.CatalogError) as error:
        write.run(**survey)
    assert str(error.value) == (
        f"shard south: objects has 3 rows and {path} has 2 of it; remove {path} and run again"
    )


def test_units_that_differ_are_an_error(survey):
    path = survey["objects"][1]
    table = pq.read_table(path)
    number = table.schema.get_field_index("magnitude_r")
    field = table.schema.field(number).with_metadata({"unit": "nJy"})
    pq.write_table(table.cast(table.schema.set(number, field)), path)
    with pytest.raises(write.CatalogError, match="'magnitude_r' has the units"):
        write.run(**survey)


def test_kept_types_that_differ_are_widened(survey):
    path = survey["objects"][1]
    table = pq.read_table(path)
    number = table.schema.get_field_index("magnitude_r")
    wide = table.schema.field(number).with_type(pa.float64())
    pq.write_table(table.cast(table.schema.set(number, wide)), path)
    write.run(**survey)
    kept = catalog_schema(survey["outputs"]["collection"]).field("magnitude_r")
    assert kept.type == pa.float64()
    assert kept.metadata[b"unit"] == b"mag"


def test_the_sky_noise_has_a_unit_where_there_is_a_zero_point(survey):
    survey["settings"]["calibrated"] = ["r"]
    write.run(**survey)
    (leaf,) = partition_files(survey["outputs"]["collection"])
    table = Table.read(leaf, format="parquet.votable")
    assert table["sky_noise_r"].unit == "nJy"
    assert table["sky_noise_g"].unit is None
    told = " ".join(table["sky_noise_g"].description.split())
    assert told.endswith("in the unit of the image: no zero point is known")
    assert "zero point" not in table["sky_noise_r"].description


def test_what_a_kept_column_says_of_itself_is_in_the_catalog(survey):
    about = {"unit": "mag", "ucd": "phot.mag;em.opt.R", "description": "AB magnitude in r"}
    for path in survey["objects"]:
        table = pq.read_table(path)
        number = table.schema.get_field_index("magnitude_r")
        field = table.schema.field(number).with_metadata(about)
        pq.write_table(table.cast(table.schema.set(number, field)), path)
    write.run(**survey)
    known = catalog_schema(survey["outputs"]["collection"]).field("magnitude_r").metadata
    assert {key.decode(): value.decode() for key, value in known.items()} == about
    (leaf,) = partition_files(survey["outputs"]["collection"])
    assert (
        Table.read(leaf, format="parquet.votable")["magnitude_r"].description == "AB magnitude in r"
    )


@pytest.mark.parametrize(
    ("name", "ucd"),
    [("magnitude_r", "phot.mag"), ("mag_err_r", None), ("petrosian_radius", "phys.angSize")],
)
def test_an_error_has_not_the_ucd_of_what_it_is_of(name, ucd):
    assert schema.kept_column(pa.field(name, pa.float32()), "X").ucd == ucd


def test_a_unit_the_vo_does_not_know_stays_readable(tmp_path):
    column = schema.Column("flux", pa.float32(), "nanomaggies per sheep", None, "Flux")
    table = pa.table(
        {"flux": pa.array([1.0], pa.float32())}, schema=schema.arrow_schema("t", [column], {})
    )
    pq.write_table(table, tmp_path / "t.parquet")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = Table.read(tmp_path / "t.parquet", format="parquet.votable")
    assert found["flux"].description == "Flux [nanomaggies per sheep]"


def test_code_without_git_is_unknown(monkeypatch):
    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert provenance.code() == {"luneta.git_commit": "unknown", "luneta.git_dirty": "unknown"}


def test_what_decides_no_result_has_no_part_in_its_provenance():
    config = {"survey": "sky", "seed": 1, "device": "cpu", "provenance": {"most_files": 5}}
    facts = provenance.run_facts(config)
    assert provenance.run_facts({**config, "device": "gpu", "provenance": {}}) == facts
    other = provenance.run_facts({**config, "seed": 2})
    assert other["luneta.config_sha256"] != facts["luneta.config_sha256"]
    assert other["luneta.run_id"] != facts["luneta.run_id"]


def test_clusters_follow_their_objects(survey):
    write.run(**survey)
    table = rows_of(survey["outputs"]["collection"]).set_index("object_id")
    groups = table["morphology_group"]
    # rows 2 of north and 0 of south are not usable, "same" of south is the repeat of north's
    assert groups[["n0", "n1", "n3", "n5", "s2"]].tolist() == [0, 1, 2, 4, 1]
    assert groups[["n2", "s0"]].isna().all()
    assert table.loc["n3", "morphology_map_2"] == -1.5
    assert "lens_group" not in table
    field = catalog_schema(survey["outputs"]["collection"]).field("morphology_anomaly_score")
    assert field.metadata[b"ucd"] == b"stat.value"


def test_what_is_not_usable_is_no_outlier(survey):
    write.run(**survey)
    table = rows_of(survey["outputs"]["collection"]).set_index("object_id")
    assert table["lens_outlier"].dtype == bool
    assert not table.loc["n2", "lens_outlier"]
    assert np.isnan(table.loc["n2", "lens_outlier_score"])
    assert table["lens_outlier"].any()
    assert (table["lens_outlier"] == (table["lens_outlier_score"] > 0.5)).all()


def test_a_kept_boolean_that_is_undefined_stays_so_in_every_reader(survey):
    for path in survey["objects"]:
        table = pq.read_table(path)
        known = [None if name == "n1" else name < "n4" for name in table["object_id"].to_pylist()]
        pq.write_table(table.append_column("is_star", pa.array(known, pa.bool_())), path)
    survey["settings"]["keep"] = {**survey["settings"]["keep"], "is_star": "STAR"}
    write.run(**survey)
    (leaf,) = partition_files(survey["outputs"]["collection"])
    rows = pq.read_table(leaf, partitioning=None)
    expected = dict(zip(rows["object_id"].to_pylist(), rows["is_star"].to_pylist(), strict=True))
    assert (expected["n0"], expected["n1"], expected["n5"]) == (True, None, False)
    assert rows.schema.field("is_star").type == pa.bool_()
    table = Table.read(leaf, format="parquet.votable")
    assert dict(zip(table["object_id"], table["is_star"], strict=True)) == expected
    frame = pd.read_parquet(leaf, partitioning=None, dtype_backend="pyarrow")
    assert frame["is_star"].isna().sum() == 1
    assert not (~frame["is_star"])[frame["object_id"] == "n0"].any()


def test_a_kept_column_that_is_empty_everywhere_is_of_numbers(survey):
    for path in survey["objects"]:
        table = pq.read_table(path)
        pq.write_table(table.append_column("note", pa.nulls(len(table))), path)
    write.run(**survey)
    (leaf,) = partition_files(survey["outputs"]["collection"])
    rows = pq.read_table(leaf, partitioning=None)
    assert rows.schema.field("note").type == pa.float64()
    assert rows["note"].null_count == len(rows)


def test_quality_of_other_objects_is_an_error(survey):
    path = survey["quality"][1]
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(write.CatalogError, match="shard south: objects has 3 rows and .* has 2"):
        write.run(**survey)


def test_default_columns_that_are_not_there_are_an_error(survey):
    section = survey["settings"]["catalog"]
    survey["settings"]["catalog"] = section | {"default_columns": ["_healpix_29", "objct_id"]}
    with pytest.raises(write.CatalogError) as error:
        write.run(**survey)
    assert str(error.value) == (
        "catalog.default_columns = 'objct_id': the catalog has no such column; did you mean "
        "object_id?"
    )
    assert not survey["outputs"]["collection"].exists()
    survey["settings"]["catalog"] = section | {"default_columns": ["_healpix_29", "object_id"]}
    write.run(**survey)
    about = survey["outputs"]["collection"].parent / "test/hats.properties"
    assert "hats_cols_default=object_id\n" in about.read_text()
