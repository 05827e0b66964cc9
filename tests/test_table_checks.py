"""What the tables hold is compared with what the config asks of them, before the first job."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from fits_files import tan_wcs, write_image
from luneta.config import ConfigError
from luneta.plan import make_plan

NAMES = [str(n) for n in range(1, 31)]
SDSS = [1237648720693755918 + n for n in range(30)]


@pytest.fixture
def survey(tmp_path, monkeypatch):
    """A config of one tile in the working directory, with a list of 30 objects and their labels."""
    monkeypatch.chdir(tmp_path)
    wcs = tan_wcs((60, 60), 150.0, 2.0)
    write_image(tmp_path / "a_r.fits", np.zeros((60, 60), np.float32), wcs, compressed=False)
    write_image(tmp_path / "b_r.fits", np.zeros((60, 60), np.float32), wcs, compressed=False)
    write_list(tmp_path / "list.csv")
    write_labels(tmp_path / "labels.csv")
    return {
        "survey": "sky",
        "input": {
            "kind": "tiles",
            "images": "{tile}_r.fits[IMAGE]",
            "sources": "list.csv",
            "bands": ["r"],
            "keep": {"size_r": "R"},
        },
        "cutouts": {"size": 32},
        "tasks": {
            "t": {
                "kind": "binary",
                "classes": ["no", "yes"],
                "labels": "labels.csv",
                "training": {"weights": "none", "folds": 2},
            }
        },
    }


def table_of(names=NAMES, **columns):
    ra = 150.0 + np.linspace(-1e-3, 1e-3, len(names))
    return {"object_id": names, "ra": ra, "dec": np.full(len(names), 2.0), "R": 1.5 + 0 * ra} | (
        columns
    )


def write_list(path, names=NAMES, **columns):
    table = table_of(names, **columns)
    if path.suffix == ".csv":
        pd.DataFrame(table).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table(table), path)
    else:
        form = {".ecsv": "ascii.ecsv", ".vot": "votable"}.get(path.suffix)
        Table({n: np.asarray(v) for n, v in table.items()}).write(path, format=form)


def write_labels(path, names=NAMES, column="object_id"):
    labels = ["yes" if n % 2 else "no" for n in range(len(names))]
    pd.DataFrame({column: names, "label": labels}).to_csv(path, index=False)


def refusal(config):
    """The one problem for which a config is refused, before any job."""
    with pytest.raises(ConfigError) as refused:
        make_plan(config, is_run=False)
    first, line = str(refused.value).splitlines()
    assert first == "The config cannot work:"
    return line.strip()


def test_a_good_survey_is_planned(survey):
    assert make_plan(survey).shards == ["a", "b"]


USES = {
    "cutouts.extent.radius": {"extent": {"unit": "radius", "side": 4, "radius": "size_r"}},
    "cutouts.extinction.ebv": {"extinction": {"ebv": "size_r", "coefficients": {"r": 2.2}}},
    "cutouts.area_ratio.radius": {"area_ratio": {"radius": "size_r"}},
    "cutouts.area_ratio.axis_ratio": {"area_ratio": {"radius": "good", "axis_ratio": "size_r"}},
    "cutouts.area_ratio.seeing": {"area_ratio": {"radius": "good", "seeing": "size_r"}},
}


@pytest.mark.parametrize("sources", ["list.{}", "{{tile}}.{}"], ids=["one_list", "list_a_tile"])
@pytest.mark.parametrize("form", ["csv", "parquet", "fits", "ecsv", "vot"])
def test_a_radius_that_is_text(survey, tmp_path, form, sources):
    text = ["1.5"] * 29 + ["large"]
    for name in ("list", "a", "b"):
        write_list(tmp_path / f"{name}.{form}", R=text)
    survey["input"]["sources"] = sources.format(form)
    survey["cutouts"] |= USES["cutouts.extent.radius"]
    path = "list" if "list" in sources else "a"
    assert refusal(survey).startswith(
        f"cutouts.extent.radius = 'size_r': the column 'R' of {path}.{form} holds text, such as "
        "'large', and must hold numbers; store it as numbers, with nothing where"
    )


@pytest.mark.parametrize("key", USES)
def test_every_column_that_is_computed_with_must_hold_numbers(survey, tmp_path, key):
    table = table_of(R=["a"] * 30, good=np.full(30, 2.5))
    pq.write_table(pa.table(table), tmp_path / "list.parquet")
    survey["input"] |= {"sources": "list.parquet", "seeing": 1.0}
    survey["input"]["keep"] = {"size_r": "R", "good": "good"}
    survey["cutouts"] |= USES[key]
    assert refusal(survey).startswith(f"{key} = 'size_r': the column 'R' of list.parquet holds te")


@pytest.mark.parametrize(
    ("values", "content"),
    [
        ([True] * 30, "true and false"),
        ([np.datetime64("2026-01-01", "s")] * 30, "dates or times"),
        (["1.5"] * 30, "text, such as '1.5'"),
        (pa.array(["x"] * 30).dictionary_encode(), "text, such as 'x'"),
    ],
)
def test_what_is_no_number(survey, tmp_path, values, content):
    pq.write_table(pa.table(table_of(R=values)), tmp_path / "list.parquet")
    survey["input"]["sources"] = "list.parquet"
    survey["cutouts"] |= USES["cutouts.extent.radius"]
    assert f"holds {content}, and must hold numbers" in refusal(survey)


def test_numbers_with_nothing_in_some_rows_are_numbers(survey, tmp_path):
    write_list(tmp_path / "list.csv", R=[None] * 10 + [1.5] * 20)
    survey["cutouts"] |= USES["cutouts.extent.radius"]
    make_plan(survey)
    pq.write_table(pa.table(table_of(R=pa.nulls(30))), tmp_path / "list.parquet")
    survey["input"]["sources"] = "list.parquet"
    make_plan(survey)


def test_text_that_is_kept_and_not_computed_with_is_welcome(survey, tmp_path):
    write_list(tmp_path / "list.csv", R=["spiral"] * 30)
    make_plan(survey)


@pytest.mark.parametrize(
    ("columns", "mapped", "words"),
    [
        ({"ra": ["far"] * 30}, {}, "column 'ra' holds text that is no angle: 'far'"),
        ({"px": ["1"] * 29 + ["left"], "py": np.ones(30)},
         {"ra": None, "dec": None, "x": "px", "y": "py"}, "column 'px'"),
        ({"mu": ["fast"] * 30}, {"pm_ra": "mu", "pm_dec": "R"}, "column 'mu' is no proper motion"),
    ],
)  # fmt: skip
def test_positions_of_one_list_a_tile_are_read_before_the_first_job(
    survey, tmp_path, columns, mapped, words
):
    for tile in "ab":
        write_list(tmp_path / f"{tile}.parquet", **columns)
    survey["input"] |= {"sources": "{tile}.parquet", "epoch": 2000.0, "image_epoch": 2016.0}
    survey["input"]["columns"] = mapped
    line = refusal(survey)
    assert line.startswith("input.sources: a.parquet: ") and words in line


def test_of_very_many_lists_three_are_read(survey, tmp_path, monkeypatch):
    from luneta import table_checks

    read = []

    def reading(path, *arguments):
        read.append(path)
        return original(path, *arguments)

    original = table_checks.read_list
    monkeypatch.setattr(table_checks, "read_list", reading)
    for n in range(20):
        (tmp_path / f"n{n:02d}_r.fits").symlink_to(tmp_path / "a_r.fits")
        write_list(tmp_path / f"n{n:02d}.csv")
    survey["input"] |= {"sources": "{tile}.csv", "images": "n{tile}_r.fits[IMAGE]"}
    survey["input"]["sources"] = "n{tile}.csv"
    make_plan(survey)
    assert read == ["n00.csv", "n10.csv", "n19.csv"]


def test_stamps_whose_radius_is_text(survey, tmp_path):
    pd.DataFrame(table_of(R=["x"] * 30, image="x.fits")).to_csv(tmp_path / "stamps.csv")
    survey["input"] = {
        "kind": "stamps", "table": "stamps.csv", "bands": ["r"], "keep": {"size_r": "R"},
        "pixel_scale": 0.3,
    }  # fmt: skip
    survey["cutouts"] |= USES["cutouts.extent.radius"]
    assert "the column 'R' of stamps.csv holds text, such as 'x'" in refusal(survey)


@pytest.mark.parametrize("form", ["parquet", "fits", "vot", "ecsv", "csv"])
def test_rounded_names_of_a_list_stop_before_the_first_job(survey, tmp_path, form):
    write_list(tmp_path / f"list.{form}", np.array(SDSS, float))
    write_labels(tmp_path / "labels.csv", SDSS)
    survey["input"]["sources"] = f"list.{form}"
    line = refusal(survey)
    assert line.startswith(f"list.{form}: column 'object_id' holds names ")
    assert "30 rows share" in line and "as integers or text, from the original table" in line


def test_rounded_names_of_stamps(survey, tmp_path):
    pq.write_table(pa.table(table_of(np.array(SDSS, float), image=["x.fits"] * 30)), "s.parquet")
    survey["input"] = {"kind": "stamps", "table": "s.parquet", "bands": ["r"]}
    assert "s.parquet: column 'object_id' holds names as float64" in refusal(survey)


@pytest.mark.parametrize("kind", ["float64", "excel"])
def test_rounded_names_of_labels(survey, tmp_path, kind):
    write_list(tmp_path / "list.csv", SDSS)
    names = np.array(SDSS, float) if kind == "float64" else ["1.23765E+18"] * 30
    labels = ["yes" if n % 2 else "no" for n in range(30)]
    pq.write_table(pa.table({"object_id": names, "label": labels}), "labels.parquet")
    survey["tasks"]["t"]["labels"] = "labels.parquet"
    line = refusal(survey)
    assert line.startswith("tasks.t.id_column = 'object_id': labels.parquet: column 'object_id' ho")
    assert "30 rows share 1" in line


def test_whole_numbers_that_the_label_table_keeps_as_floats_are_matched(survey):
    labels = ["yes" if n % 2 else "no" for n in range(30)]
    pq.write_table(pa.table({"object_id": np.arange(1.0, 31), "label": labels}), "labels.parquet")
    survey["tasks"]["t"]["labels"] = "labels.parquet"
    assert make_plan(survey).labelled_shards("t") == ["a", "b"]


SPELLINGS = {
    "decimals": (NAMES, [f"{name}.0" for name in NAMES]),
    "leading zeros": ([f"00{name}" for name in NAMES], NAMES),
    "capitals": ([f"ngc{name}" for name in NAMES], [f"NGC{name}" for name in NAMES]),
    "blanks": ([f"NGC {name}" for name in NAMES], [f"NGC{name}" for name in NAMES]),
}


@pytest.mark.parametrize("sources", ["list.csv", "{tile}.csv"], ids=["one_list", "list_a_tile"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_labels_spelt_otherwise_stop_before_the_first_job(survey, tmp_path, spelling, sources):
    ours, theirs = SPELLINGS[spelling]
    for name in ("list", "a", "b"):
        write_list(tmp_path / f"{name}.csv", ours)
    write_labels(tmp_path / "labels.csv", theirs)
    survey["input"]["sources"] = sources
    line = refusal(survey)
    assert line.startswith("tasks.t.id_column = 'object_id': ")
    assert repr(theirs[0]) in line and repr(ours[0]) in line
    assert "30" in line and "differ in zeros, capitals, blanks or decimals alone" in line


def test_a_few_labels_that_lost_their_zeros_are_told_too(survey, tmp_path):
    """A spreadsheet strips the zeros of those names alone that begin with one."""
    ours = [f"{n:03d}" for n in range(90, 120)]
    write_list(tmp_path / "list.csv", ours)
    write_labels(tmp_path / "labels.csv", [name.lstrip("0") for name in ours])
    assert "10 of 30 labelled objects have no cutout" in refusal(survey)


def test_a_very_few_labels_that_are_spelt_otherwise_are_remarked(survey, tmp_path, capsys):
    ours = [f"{n:03d}" for n in range(99, 299)]
    write_list(tmp_path / "list.csv", ours)
    write_labels(tmp_path / "labels.csv", [name.lstrip("0") for name in ours])
    make_plan(survey)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Note: tasks.t.id_column = 'object_id': 1 of 200 labelled objects have")
    assert line.endswith("(1 differ in zeros, capitals, blanks or decimals alone)")


def test_stamps_and_their_labels(survey, tmp_path):
    pd.DataFrame(table_of(image="x.fits")).to_csv(tmp_path / "stamps.csv", index=False)
    write_labels(tmp_path / "labels.csv", [f"{name}.0" for name in NAMES])
    survey["input"] = {"kind": "stamps", "table": "stamps.csv", "bands": ["r"]}
    assert "30 differ in zeros, capitals, blanks or decimals alone" in refusal(survey)


def test_labels_of_which_the_survey_has_none_are_remarked(survey, tmp_path, capsys):
    write_labels(tmp_path / "labels.csv", [f"star{n}" for n in range(30)])
    for _ in range(2):
        make_plan(survey)
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(
            "Note: tasks.t.id_column = 'object_id': 30 of 30 labelled objects ha"
        )
        assert line.endswith("spell the names as there. So far `split` will refuse them")


def test_labels_of_a_larger_survey_are_no_error(survey, tmp_path):
    write_labels(tmp_path / "labels.csv", NAMES + [f"star{n}" for n in range(300)])
    make_plan(survey)


def test_labels_are_compared_again_only_if_something_changed(survey, tmp_path, monkeypatch):
    make_plan(survey)
    monkeypatch.setattr("luneta.table_checks.read_labels", None)  # would fail if it were called
    make_plan(survey)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    write_labels(tmp_path / "labels.csv", [f"{name}.0" for name in NAMES])
    refusal(survey)


def with_candidates(survey, **section):
    survey["tasks"]["t"]["candidates"] = section


def test_grades_of_names_that_are_spelt_otherwise(survey, tmp_path):
    (tmp_path / "grades.csv").write_text("object_id,grade\n7.0,A\n8.0,B\n")
    with_candidates(survey, grades="grades.csv")
    line = refusal(survey)
    assert line.startswith("tasks.t.candidates.grades: grades.csv names '7.0', '8.0', the survey '")
    (tmp_path / "grades.csv").write_text("object_id,grade\n7,A\nelsewhere,B\n")
    make_plan(survey)


def test_grades_are_compared_again_if_they_changed(survey, tmp_path):
    (tmp_path / "grades.csv").write_text("object_id,grade\n7,A\n")
    with_candidates(survey, grades="grades.csv")
    make_plan(survey)
    (tmp_path / "grades.csv").write_text("object_id,grade\n7.0,A\n")
    assert refusal(survey).startswith("tasks.t.candidates.grades: grades.csv names '7.0'")


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("grades", "object_id,grade\n1.2E+18,A\n", "grades: t.csv: column 'object_id' holds names"),
        ("grades", "object_id,grade\n1,A\n1,B\n", "grades: t.csv: 1 has the grades A and B; leave"),
        ("grades", "object_id\n1\n", "t.csv: there is no column 'grade'"),
        ("known", "ra,dec,name\nnorth,2,x\n", "known: t.csv: column 'ra' holds text that"),
        (
            "known",
            "ra,dec,name\n1,2,1.2E+18\n",
            "known: t.csv: column 'name' holds names written as floating",
        ),
        ("known", "ra,dec\n1,2\n", "no column holds the name of the known ones"),
    ],
)
def test_tables_beside_the_candidates_are_read_before_the_first_job(
    survey, tmp_path, key, text, words
):
    (tmp_path / "t.csv").write_text(text)
    with_candidates(survey, **{key: "t.csv"})
    line = refusal(survey)
    assert line.startswith("tasks.t.candidates.") and words in line


def test_labelled_objects_that_lie_in_no_tile(survey, tmp_path):
    write_list(tmp_path / "list.csv", dec=np.full(30, -40.0))
    with pytest.raises(ConfigError) as refused:
        make_plan(survey)
    _, first, second = str(refused.value).splitlines()
    assert first.strip() == (
        "tasks.t.classes = 'no': 15 of its 15 labelled objects lie outside every tile that can be "
        "read, and 0 are fewer than training.folds = 2; check units, frame and columns of the "
        "positions, and the coordinate systems of the images"
    )
    assert "tasks.t.classes = 'yes': 15 of its 15" in second
