"""Names of columns that clash are refused from the config, with the two keys and the fix."""

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from astropy.table import Table

from luneta.catalog import index
from luneta.catalog.clashes import (
    PARTITION_COLUMNS,
    SQL_RESERVED,
    clashes,
    made_columns,
    remarks,
    unknown_defaults,
)
from luneta.catalog.schema import OBJECT_COLUMNS, QUALITY_COLUMNS, catalog_columns
from luneta.config import validate

TASK = {"kind": "binary", "classes": ["no", "yes"], "labels": "labels.csv"}


def config(keep=(), tasks=None, bands=("g", "r"), clustered=(), **section):
    given = {"kind": "tiles", "tiles": "tiles.tsv", "sources": "list.csv", "bands": list(bands)}
    given |= {"keep": dict.fromkeys(keep, "COLUMN"), **section}
    tasks = {name: TASK | task for name, task in (tasks or {}).items()}
    whole = {"survey": "sky", "input": given, "tasks": tasks}
    return validate(whole | ({"clustering": {"tasks": list(clustered)}} if clustered else {}))


def problems(detected=(), **settings):
    return list(clashes(config(**settings), list(detected)))


def test_the_names_are_those_of_the_catalog_itself():
    tasks = {"lens": {}, "shape": {"kind": "multiclass", "classes": ["a", "b", "c"]}}
    given = config(keep=["z", "mag_r"], tasks=tasks, clustered=["lens"])
    fields = [pa.field(c.name, c.type) for c in OBJECT_COLUMNS]
    fields += [pa.field(name, pa.float32()) for name in ("z", "mag_r")]
    quality = [pa.field(c.name, c.type) for c in QUALITY_COLUMNS]
    quality += [pa.field(f"sky_noise_{band}", pa.float32()) for band in "gr"]
    shapes = {n: {"kind": t.kind, "classes": t.classes} for n, t in given.tasks.items()}
    settings = {"bands": ["g", "r"], "keep": {}, "tasks": shapes, "clustered": ["lens"]}
    written = catalog_columns(pa.schema(fields), pa.schema(quality), settings)
    beside = {"_healpix_29", "Norder", "Dir", "Npix", "usable", "skipped", "shard", "run_id",
              "model_id"}  # fmt: skip
    assert {made.name for made in made_columns(given, [])} == {c.name for c in written} | beside
    assert problems(keep=["z", "mag_r"], tasks=tasks, clustered=["lens"]) == []


def test_the_names_of_partitions_are_those_of_the_index():
    assert ["object_id", *PARTITION_COLUMNS] == [column.name for column in index.COLUMNS]


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("flags", "a column of this name"),
        ("dx", "a column of this name"),
        ("usable", "a column of this name"),
        ("shard", "a column of this name"),
        ("run_id", "a column of this name"),
        ("_healpix_29", "a column of this name"),
        ("Npix", "a column of this name"),
        ("RA", "the column ra, and FITS and SQL do not tell capitals from small letters"),
        ("npix", "the column Npix, and FITS and SQL do not tell capitals from small letters"),
        ("Tile", "the column tile, and FITS and SQL do not tell capitals from small letters"),
    ],
)
def test_kept_names_that_luneta_writes(name, own):
    said = f"input.keep.{name} = 'COLUMN': luneta writes {own}; keep it by another name"
    assert problems(keep=[name]) == [said]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"keep": ["sky_noise_R"], "bands": ["r"]},
            "makes the column sky_noise_r and sky_noise_R, as does input",
        ),
        (
            {"keep": ["lens_class"], "tasks": {"lens": {}}},
            "tasks.lens: makes the column lens_class",
        ),
        (
            {"keep": ["lens_yes_std"], "tasks": {"lens": {}}},
            "tasks.lens.classes = 'yes': makes the column lens_yes_std, as does input.keep.lens_ye",
        ),
        ({"keep": ["lens_run_id"], "tasks": {"lens": {}}}, "tasks.lens: makes the column lens_run"),
        (
            {"keep": ["lens_pca_1"], "tasks": {"lens": {}}, "clustered": ["lens"]},
            "clustering.tasks = 'lens': makes the column lens_pca_1, as does input.keep.lens_pca_1",
        ),
        ({"keep": ["zed", "ZED"]}, "input.keep.ZED = 'COLUMN': makes the column zed and ZED, as d"),
        ({"bands": ["r", "R"]}, "name the band otherwise, and say by input.band_names how its"),
        (
            {"keep": ["grade"], "tasks": {"lens": {"candidates": {}}}},
            "the list of candidates (tasks.lens.candidates) has the column grade; keep it by an",
        ),
        (
            {"keep": ["spread"], "tasks": {"lens": {"candidates": {}}}},
            "the list of candidates (tasks.lens.candidates) has the column spread; keep it by a",
        ),
    ],
)
def test_columns_that_two_keys_make(settings, words):
    (line,) = problems(**settings)
    assert words in line


def test_names_of_the_noise_of_bands_are_luneta_s_own():
    said = "input.keep.sky_noise_z = 'COLUMN': luneta writes columns of such names; keep it by an"
    (line,) = problems(keep=["sky_noise_z"])
    assert line.startswith(said)


def test_two_tasks_may_not_make_one_column():
    tasks = {
        "a": {"classes": ["no", "b_c"]},
        "a_b": {"classes": ["no", "c"]},
    }
    assert problems(tasks=tasks) == [
        "tasks.a_b.classes = 'c': makes the column a_b_c_probability, as does "
        "tasks.a.classes = 'b_c'; rename the class or the task"
    ]


def test_tasks_and_classes_that_differ_by_case_only():
    (line,) = problems(tasks={"lens": {"classes": ["no", "No"]}})
    assert "lens_no_probability and lens_No_probability" in line
    assert len(problems(tasks={"lens": {}, "Lens": {}})) == 3  # the task, and its two classes


def test_a_baseline_is_not_in_the_catalog():
    assert problems(keep=["lens_class"], tasks={"lens": {"predict": False}}) == []


def test_names_of_a_list_that_is_not_asked_for_are_free():
    assert problems(keep=["grade", "rank", "probability"], tasks={"lens": {}}) == []


def test_detected_columns_clash_too():
    (line,) = problems(detected=["star"], tasks={}, bands=["star"], keep=["Star"])
    assert "input.keep.Star" in line and "as does input.detection" in line


def test_words_that_sql_reserves_are_refused():
    (line,) = problems(keep=["order"])
    assert line == (
        "input.keep.order = 'COLUMN': order is a reserved word of SQL, which does not read it as a "
        "column; keep it by another name, such as order_"
    )
    assert problems(keep=["Select"]) and not problems(keep=["order_", "distance"])


def test_the_reserved_words_are_those_of_duckdb():
    found = duckdb.sql("SELECT keyword_name, keyword_category FROM duckdb_keywords()").fetchall()
    own = {"pivot_wider", "pivot_longer"}
    assert {word for word, kind in found if kind == "reserved"} - own <= set(SQL_RESERVED)


@pytest.mark.parametrize("name", ["size", "index", "T", "values", "shape"])
def test_names_that_pandas_answers_with_something_else_are_refused(name):
    frame = pd.DataFrame({name: [7.5]})
    assert getattr(frame, name) is not frame[name]
    (line,) = problems(keep=[name])
    assert f"pandas answers catalog.{name} with a property of the table" in line


def test_names_of_methods_of_pandas_are_remarked():
    assert problems(keep=["rank"]) == []
    assert remarks(config(keep=["rank", "z"])) == [
        'input.keep.rank: in pandas catalog.rank is a method; write catalog["rank"]'
    ]


def test_default_columns_that_the_catalog_will_not_have():
    wanted = ["object_id", "lens_yes_probability", "z", "_healpix_29", "lens_yse_std", "shift_x"]
    given = config(keep=["z"], tasks={"lens": {}}).model_dump(mode="json")
    given["catalog"]["default_columns"] = wanted
    first, second = unknown_defaults(validate(given), [])
    said = "catalog.default_columns = 'lens_yse_std': the catalog has no such column; did you mean"
    assert first == f"{said} lens_yes_std?"
    assert "'shift_x': the catalog has no such column" in second
    given["cutouts"]["recentre"] = "peak"
    assert list(unknown_defaults(validate(given), [])) == [first]


def test_fits_and_sql_do_not_tell_capitals_from_small_letters(tmp_path):
    """Why names are compared without case: what DuckDB and astropy make of `RA` beside `ra`."""
    catalog = pa.table({"ra": [150.0], "RA": [0.5]})
    assert duckdb.sql("SELECT RA FROM catalog").fetchall() == [(150.0,)] and len(catalog) == 1
    Table({"ra": [150.0], "RA": [0.5]}).write(tmp_path / "t.fits")
    import fitsio

    with fitsio.FITS(tmp_path / "t.fits") as file:
        assert file[1]["RA"].read()[0] == 150.0
