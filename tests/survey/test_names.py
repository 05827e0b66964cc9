"""Names put together from columns, by formats, and from positions."""

import numpy as np
import pyarrow as pa
import pytest

from luneta.config import SourceColumns
from luneta.survey.names import object_names, parts_of, text_parts_of
from luneta.survey.position_names import position_names
from luneta.survey.sources import read_list
from luneta.survey.tables import TableError


def test_columns_and_formats_of_a_template():
    assert parts_of("G{l:.4f}{b:+.4f}") == ["l", "b"]
    assert parts_of("{field}-{number:05d}") == ["field", "number"]
    assert text_parts_of("{field}-{number:05d}") == ["field"]
    assert text_parts_of("ID") == ["ID"]
    assert text_parts_of(None) == []
    assert parts_of("{a:b}") == ["a:b"]
    assert parts_of("{a:d}") == ["a"]
    assert text_parts_of("{a:d}{b:05}") == ["b"]


def test_names_by_format():
    table = pa.table({"l": [120.12345, 5.0, None], "b": [-1.5, 0.25, 1.0]})
    expected = ["G120.1235-1.5000", "G5.0000+0.2500", ""]
    assert object_names(table, "G{l:.4f}{b:+.4f}").tolist() == expected


def test_whole_numbers_by_format_are_padded():
    table = pa.table({"f": ["a", None], "n": [7.0, 8.0], "t": ["12", "13"]})
    assert object_names(table, "{f}{n:04d}_{t:03d}").tolist() == ["a0007_012", ""]


@pytest.mark.parametrize("column", [["7", "70", ""], [7, 70, None], [7.0, 70.0, None]])
def test_a_width_pads_whole_numbers_in_front_whatever_their_type(column):
    table = pa.table({"n": column})
    assert object_names(table, "{n:05}").tolist() == ["00007", "00070", ""]
    assert object_names(table, "F{n:+}").tolist() == ["F+7", "F+70", ""]
    assert object_names(table, "{n:4}").tolist() == ["   7", "  70", ""]


def test_words_are_padded_behind_and_never_by_zeros(tmp_path):
    table = pa.table({"n": ["a7", "a70"], "z": ["007", "7"]})
    assert object_names(table, "{n:4}|{z:3}").tolist() == ["a7  |007", "a70 |7  "]
    with pytest.raises(TableError, match="'n' cannot be written as {n:05}: 'a7' is no whole numb"):
        object_names(table, "{n:05}")
    (tmp_path / "t.csv").write_text("n,ra,dec\n7,1,2\n70,1,2\n")
    columns = {"object_id": "{n:05}", "ra": "ra", "dec": "dec"}
    found = read_list(tmp_path / "t.csv", {"columns": columns, "keep": {}})
    assert found.object_id.tolist() == ["00007", "00070"]


@pytest.mark.parametrize("form", ["019d", "d", ".0f", "019"])
@pytest.mark.parametrize("kind", [pa.string(), pa.int64()])
def test_a_long_whole_number_keeps_its_digits(form, kind):
    table = pa.table({"n": pa.array(["1237648720693755123"]).cast(kind)})
    assert object_names(table, f"{{n:{form}}}").tolist() == ["1237648720693755123"]


@pytest.mark.parametrize("form", ["019d", "d", ".0f", "019"])
def test_a_long_number_that_was_rounded_is_refused_in_every_format(form):
    table = pa.table({"n": [1237648720693755123.0, 1237648720693755130.0]})
    with pytest.raises(TableError, match="'n' holds names as float64, .* 2 rows share 12376487"):
        object_names(table, f"{{n:{form}}}")


def test_a_number_is_read_as_tables_write_it():
    with pytest.raises(TableError, match="could not convert '1_000' to a number"):
        object_names(pa.table({"n": ["1_000"]}), "{n:d}")


def test_text_that_is_no_number_cannot_be_formatted():
    with pytest.raises(TableError, match="'t' cannot be written as {t:.2f}: could not convert"):
        object_names(pa.table({"t": ["north"]}), "{t:.2f}")


def test_a_csv_is_read_as_numbers_where_the_template_formats_them(tmp_path):
    (tmp_path / "t.csv").write_text("l,b,brick\n120.12,-1.5,0012\n5.0,0.25,0013\n")
    columns = {"object_id": "{brick}_{l:.1f}{b:+.1f}", "ra": "l", "dec": "b"}
    found = read_list(tmp_path / "t.csv", {"columns": columns, "keep": {}, "frame": "galactic"})
    assert found.object_id.tolist() == ["0012_120.1-1.5", "0013_5.0+0.2"]


def test_names_by_position_are_truncated_and_told_apart(tmp_path):
    # 12h30m49.4233s +12d23m28.043s is cut, not rounded (IAU); 187.70593, 12.39112
    rows = "ra,dec\n187.705930417,12.391123056\n187.705930417,12.391123056\n-999,-999\n"
    (tmp_path / "t.csv").write_text(rows)
    columns = {"object_id": None, "ra": "ra", "dec": "dec"}
    found = read_list(tmp_path / "t.csv", {"columns": columns, "keep": {}})
    assert found.object_id.tolist() == ["J123049.42+122328.0a", "J123049.42+122328.0b", ""]
    assert position_names(np.array([0.0]), np.array([-0.5])).tolist() == ["J000000.00-003000.0"]


def test_no_name_needs_a_position_on_the_sky():
    with pytest.raises(ValueError, match="object_id: null names objects by ra and dec"):
        SourceColumns(object_id=None, ra=None, dec=None, x="X", y="Y")
