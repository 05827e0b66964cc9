"""A config is held against its files before any job starts."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from luneta.config import ConfigError, validate
from luneta.config_checks import check_paths, column_names

TILE_TABLE = "tile\tband\timage\nt1\tg\tnone_g.fits\nt1\tr\tnone_r.fits\n"


@pytest.fixture
def survey(tmp_path, monkeypatch):
    """A config of tiles whose files are in order, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiles.tsv").write_text(TILE_TABLE)
    (tmp_path / "sources.csv").write_text("object_id,ra,dec\n1,2.0,3.0\n")
    labels = "".join(f"{n},{'round' if n % 2 else 'disc'}\n" for n in range(20))
    (tmp_path / "labels.csv").write_text("object_id,label\n" + labels)
    return {
        "survey": "sky",
        "input": {
            "kind": "tiles",
            "tiles": "tiles.tsv",
            "sources": "sources.csv",
            "bands": ["g", "r"],
        },
        "tasks": {
            "shape": {
                "kind": "multiclass",
                "classes": ["round", "disc"],
                "labels": "labels.csv",
                "training": {"weights": "none"},
            }
        },
    }


def problems(config):
    """The lines in which a config is refused."""
    with pytest.raises(ConfigError) as refused:
        check_paths(validate(config))
    return str(refused.value).splitlines()[1:]


def only_problem(config):
    """The one line in which a config is refused."""
    (line,) = problems(config)
    return line


def test_good_config_passes_without_its_images(survey):
    check_paths(validate(survey))


def test_missing_tile_table(survey):
    survey["input"]["tiles"] = "tilse.tsv"
    assert "input.tiles: tilse.tsv: cannot be read" in only_problem(survey)


def test_tile_table_without_a_column(survey, tmp_path):
    (tmp_path / "tiles.tsv").write_text("tile\tband\nt1\tg\n")
    assert "there is no column image" in only_problem(survey)


def test_empty_tile_table(survey, tmp_path):
    (tmp_path / "tiles.tsv").write_text("tile\tband\timage\n")
    assert "lists no tile" in only_problem(survey)


def test_band_that_no_tile_has(survey):
    survey["input"]["bands"] = ["g", "R"]
    assert only_problem(survey).strip().startswith("input.bands = 'R': no tile of tiles.tsv has")


def test_missing_source_list(survey):
    survey["input"]["sources"] = "nowhere/{tile}.fits"
    assert "input.sources: nowhere/t1.fits: there is no such file" in only_problem(survey)


def test_source_list_without_the_mapped_column(survey):
    survey["input"]["columns"] = {"ra": "RAJ"}
    survey["input"]["keep"] = {"magnitude": "magr"}
    first, second = problems(survey)
    assert "input.columns.ra = 'RAJ': sources.csv has no such column; did you mean ra?" in first
    assert "input.keep.magnitude = 'magr'" in second


def test_broken_source_list(survey, tmp_path):
    (tmp_path / "sources.fits").write_bytes(b"SIMPLE  = nonsense")
    survey["input"]["sources"] = "sources.fits"
    assert "cannot be read as fits" in only_problem(survey)


def test_misspelt_label(survey, tmp_path):
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("100,rond\n101,rond\n102,\n")
    line = only_problem(survey)
    assert "label 'rond' (2 objects)" in line
    assert "did you mean round?" in line


def test_class_without_labels(survey):
    survey["tasks"]["shape"]["classes"] += ["irregular"]
    line = only_problem(survey)
    assert "tasks.shape.classes = 'irregular': 0 objects have this label" in line
    assert "disc (10), round (10)" in line


def test_merged_and_ignored_labels(survey):
    survey["tasks"]["shape"] |= {"classes": ["galaxy", "star"], "ignore": ["disc"]}
    survey["tasks"]["shape"]["merge"] = {"galaxy": ["round"]}
    assert "'star': 0 objects" in only_problem(survey)


def test_label_table_without_its_columns(survey):
    survey["tasks"]["shape"]["label_column"] = "labl"
    line = only_problem(survey)
    assert "tasks.shape.label_column = 'labl': labels.csv has no such column; did you mean" in line


def test_missing_label_table_and_weights_are_told_together(survey):
    survey["tasks"]["shape"]["labels"] = ["labels.csv", "more.csv"]
    survey["tasks"]["shape"]["training"]["weights"] = "net.weights.h5"
    first, second = problems(survey)
    assert "training.weights = 'net.weights.h5': there is no such file" in first
    assert "tasks.shape.labels: more.csv: there is no such file" in second


def test_weights_of_another_format(survey, tmp_path):
    (tmp_path / "net.pth").write_bytes(b"")
    survey["tasks"]["shape"]["training"]["weights"] = "net.pth"
    assert "named *.weights.h5" in only_problem(survey)


def test_what_the_simulation_makes_is_not_missing(survey):
    survey["input"]["sources"] = "results/sky/raw/{tile}_sources.fits"
    survey["tasks"]["shape"]["labels"] = ["results/sky/raw/t1_labels.csv"]
    assert len(problems(survey)) == 2
    survey["simulation"] = {}
    check_paths(validate(survey))


def test_stamp_table(survey, tmp_path):
    (tmp_path / "stamps.csv").write_text("name,file\n1,a.jpg\n")
    survey["input"] = {"kind": "stamps", "table": "stamps.csv", "bands": ["r"]}
    survey["input"] |= {"image": "{fil}_{band}", "columns": {"object_id": "name", "ra": "x"}}
    first, second = problems(survey)
    assert "input.columns.ra = 'x'" in first
    assert "input.image, {fil} = 'fil': stamps.csv has no such column; did you mean file?" in second


def test_column_names_of_each_format(tmp_path):
    columns = {"a": [1], "b": ["x"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    Table(columns).write(tmp_path / "t.fits")
    (tmp_path / "t.tsv").write_text("a\tb\n1\tx\n")
    for suffix in ("parquet", "fits", "tsv"):
        assert column_names(tmp_path / f"t.{suffix}") == ["a", "b"]
