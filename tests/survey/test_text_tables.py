"""CSV and its dialects, as spreadsheets, servers and authors write them."""

import numpy as np
import pyarrow as pa
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable

from luneta.survey.sources import read_list
from luneta.survey.tables import TableError, list_columns, read_table
from luneta.survey.text_tables import numbers_of_text

HEAD, BODY = "id,ra,dec\n", "a,150.0,2.0\nb,150.5,-2.5\n"
ROWS = [{"id": "a", "ra": 150.0, "dec": 2.0}, {"id": "b", "ra": 150.5, "dec": -2.5}]


def read(tmp_path, text, name="list.csv", **options):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_table(path, **options)


@pytest.mark.parametrize(
    "text",
    [
        "#Table1\n" + HEAD + BODY,
        "# made by hand\n# on Monday, by two\n\n" + HEAD + BODY,
        "#" + HEAD + BODY,
        "# cut at r < 22\n# id, ra, dec\n" + BODY,
        HEAD + BODY + "# end\n",
        HEAD + "# first, second, third\n" + BODY + "#c,1.0,2.0",
        (HEAD + BODY).replace(",", ";"),
        (HEAD + BODY).replace(",", ";").replace(".", ","),
        (HEAD + BODY).replace(",", "\t"),
        (HEAD + BODY).replace(",", "|"),
        (HEAD + BODY).replace(",", ", "),
        (HEAD + BODY).replace(",", " , "),
        '"id", "ra", "dec"\n"a", 150.0, 2.0\n"b", 150.5, -2.5\n',
        (HEAD + BODY).replace("\n", ",\n"),
        "\ufeff" + HEAD + BODY,
        "\ufeff#Table1\r\n" + (HEAD + BODY).replace("\n", "\r\n"),
        (HEAD + BODY).replace("\n", "\r"),
        ("#c\n" + HEAD + BODY + "# end\n").replace("\n", "\r"),
        "sep=;\n" + (HEAD + BODY).replace(",", ";"),
        "\n" + HEAD + "\n" + BODY + "\n\n",
    ],
)
def test_a_dialect_of_csv(tmp_path, text):
    assert read(tmp_path, text).to_pylist() == ROWS
    assert list_columns(tmp_path / "list.csv").names == ["id", "ra", "dec"]


def test_a_tsv_with_commas(tmp_path):
    assert read(tmp_path, HEAD + BODY, "list.tsv").to_pylist() == ROWS


def test_a_first_comment_is_the_header_where_only_words_follow(tmp_path):
    labels = [{"id": "a", "label": "spiral"}, {"id": "b", "label": "lens"}]
    assert read(tmp_path, "#id,label\na,spiral\nb,lens\n").to_pylist() == labels
    text = "# objects, seen twice\nid,label\na,spiral\nb,lens\n"
    assert read(tmp_path, text).to_pylist() == labels


def test_rows_that_are_all_comments_are_not_lost_in_silence(tmp_path):
    with pytest.raises(TableError, match="all 2 lines below the names begin with #"):
        read(tmp_path, "id,ra\n#1,1.0\n#2,2.0\n")
    assert read(tmp_path, "id,ra\n# nothing found\n").to_pylist() == []
    assert read(tmp_path, 'id,ra\n"#1",1.0\n"#2",2.0\n')["id"].to_pylist() == ["#1", "#2"]


def test_a_table_without_a_line_of_names_says_so(tmp_path):
    with pytest.raises(TableError, match="no line names the columns: the first is 'a,150.0,2.0'"):
        read(tmp_path, "# made by hand\n" + BODY)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_with_the_fix(tmp_path, encoding):
    with pytest.raises(TableError, match="UTF-16.*save it as CSV UTF-8, or run: iconv"):
        read(tmp_path, (HEAD + BODY).encode(encoding))


def test_latin_1_is_text(tmp_path):
    text = "id,ra,note\nÉ1,1.5,séparé\n".encode("latin-1")
    found = read(tmp_path, text, text_columns=["id"]).to_pylist()
    assert found == [{"id": "É1", "ra": 1.5, "note": "séparé"}]


def test_two_columns_of_one_name_are_refused_if_they_are_asked_for(tmp_path):
    text = "id,ra,ra\na,1,2\n"
    with pytest.raises(TableError, match="two columns are named 'ra'"):
        read(tmp_path, text, columns=["ra"])
    assert read(tmp_path, text, columns=["id"]).to_pylist() == [{"id": "a"}]


@pytest.mark.parametrize(
    "mark",
    ["", "--", "---", "\\N", "NULL", "null", "Null", "N/A", "n/a", "NA", "na", "nan", "NaN", "NAN",
     "None", "none", "<NA>", "...", "-", "?", "(null)", " NULL ", "masked"],
)  # fmt: skip
def test_what_stands_for_no_number_is_missing(tmp_path, mark):
    found = read(tmp_path, f"id,n,x,b\na,1,1.5,true\nb,{mark},{mark},\nc,3,-2,false\n")
    numbers = [None if v is None or v != v else v for v in found["x"].to_pylist()]
    assert (found["n"].to_pylist(), numbers) == ([1, None, 3], [1.5, None, -2.0])
    assert [str(kind) for kind in found.schema.types] == ["string", "int64", "double", "bool"]


@pytest.mark.parametrize("word", ["NA", "None", "NULL", "nan", "N/A", "null"])
def test_words_stay_words_where_words_are_meant(tmp_path, word):
    text = f"id,type,n\n{word},PSF,1\nb,{word},2\n"
    found = read(tmp_path, text, text_columns=["id"])
    assert found["id"].to_pylist() == [word, "b"]
    assert found["type"].to_pylist() == ["PSF", word]


@pytest.mark.parametrize("mark", ["--", "\\N", ""])
def test_marks_that_are_no_words_are_missing_everywhere(tmp_path, mark):
    found = read(tmp_path, f"id,type\n{mark},PSF\nb,{mark}\n", text_columns=["id"])
    assert found.to_pylist() == [{"id": None, "type": "PSF"}, {"id": "b", "type": None}]


@pytest.mark.parametrize(
    ("words", "decimal", "numbers"),
    [
        (["1,234.5", "12.5", "N/A"], ".", [1234.5, 12.5, None]),
        (["1.234,5", "12,5", None], ",", [1234.5, 12.5, None]),
        (["1,234", "5"], ".", None),
        (["1,234", "5"], ",", [1.234, 5.0]),
        (["1,234,567", "1,234", "5"], ".", [1234567, 1234, 5]),
        (["1,234,567", "1,234", "5"], ",", [1234567, 1234, 5]),
        (["1.234", "5"], ",", None),
        (["1.234", "5.25"], ",", [1.234, 5.25]),
        (["0.123", "5.125"], ",", [0.123, 5.125]),
        (["1.234", "12,5"], ",", None),
        (["1.234.567", "12,5"], ".", [1234567.0, 12.5]),
        (["1,234.5", "1.234,5"], ".", None),
        (["1D2", "3D4"], ".", None),
        (["1.5D2", "2d0"], ".", None),
        (["1D+2", "1D02"], ".", [100.0, 100.0]),
        (["11094340384428888064", "5"], ".", [11094340384428888064, 5]),
        (["11094340384428888064", "-5"], ".", None),
        (["111094340384428888064", "5"], ".", None),
        (["+1.5", "-2"], ".", [1.5, -2.0]),
        (["1.5D+03", "2.d0"], ".", [1500.0, 2.0]),
        ([" 7 ", "8"], ".", [7, 8]),
        (["12,34", "5"], ".", None),
        (["1.5", "faint"], ".", None),
        (["--", "NULL"], ".", None),
        (["-", "+"], ".", None),
    ],
)
def test_text_that_is_numbers_but_for_its_spelling(words, decimal, numbers):
    found = numbers_of_text(pa.chunked_array([words], pa.string()), decimal)
    assert (None if found is None else found.to_pylist()) == numbers


def test_decimal_commas_in_one_column_and_points_in_another(tmp_path):
    found = read(tmp_path, "id;m;n\na;1,5;1.25\nb;2,5;NULL\n")
    assert (found["m"].to_pylist(), found["n"].to_pylist()) == ([1.5, 2.5], [1.25, None])


def test_a_column_with_a_word_among_numbers_stays_text(tmp_path):
    found = read(tmp_path, "id,m\na,1.5\nb,faint\n")
    assert found["m"].to_pylist() == ["1.5", "faint"]


VIZIER = """#RESOURCE=yCat_1
#Column\tRAJ2000\t(A11)
Name\tRAJ2000\tDEJ2000\tmag
 \t"h:m:s"\t"d:m:s"\tmag
----\t-----------\t-----------\t-----
a\t12 30 49.4\t-00 30 36\t17.5
b\t01 02 03.0\t+12 00 00\t""
"""


def test_a_table_of_vizier_has_its_units_and_dashes(tmp_path):
    (tmp_path / "v.tsv").write_text(VIZIER)
    columns = {"object_id": "Name", "ra": "RAJ2000", "dec": "DEJ2000"}
    found = read_list(tmp_path / "v.tsv", {"columns": columns, "keep": {"mag": "mag"}})
    np.testing.assert_allclose(found.ra, [187.7058333, 15.5125], atol=1e-7)
    np.testing.assert_allclose(found.dec, [-0.51, 12.0], atol=1e-7)
    assert found.kept["mag"].to_pylist() == [17.5, None]
    assert found.kept.schema.field("mag").metadata == {b"unit": b"mag"}


CDS = """Title: A table
Authors: Nobody
Table: One
================================================================================
Byte-by-byte Description of file: t.txt
--------------------------------------------------------------------------------
   Bytes Format Units  Label     Explanations
--------------------------------------------------------------------------------
   1-  3 A3     ---    Name      Name
   5-  6 I2     h      RAh       Hour
   8-  9 I2     min    RAm       Minute
  11- 14 F4.1   s      RAs       Second
  16     A1     ---    DE-       Sign
  17- 18 I2     deg    DEd       Degree
  20- 21 I2     arcmin DEm       Minute
  23- 24 I2     arcsec DEs       Second
--------------------------------------------------------------------------------
a   12 30 49.4 -00 30 36
b   01 02 03.5 +12 00 01
c   01 02 03.5  12 00 01
"""
SEXAGESIMAL = {"object_id": "Name", "ra": "{RAh}:{RAm}:{RAs}", "dec": "{DE-}{DEd}:{DEm}:{DEs}"}


@pytest.mark.parametrize("name", ["t.mrt", "t.txt", "t.dat", "t.csv"])
def test_angles_in_three_columns_keep_the_sign_of_minus_zero(tmp_path, name):
    text = CDS
    if name == "t.csv":
        text = "Name,RAh,RAm,RAs,DE-,DEd,DEm,DEs\na,12,30,49.4,-,00,30,36\nb,1,2,3.5,+,12,0,1\nc,1,2,3.5,,12,0,1\n"  # noqa: E501
    (tmp_path / name).write_text(text)
    found = read_list(tmp_path / name, {"columns": SEXAGESIMAL, "keep": {}})
    np.testing.assert_allclose(found.ra, [187.7058333, 15.5145833, 15.5145833], atol=1e-7)
    np.testing.assert_allclose(found.dec, [-0.51, 12.0002778, 12.0002778], atol=1e-7)
    assert found.object_id.tolist() == ["a", "b", "c"]


def test_minus_zero_degrees_without_a_column_of_signs(tmp_path):
    (tmp_path / "t.csv").write_text("id,h,m,d,e\na,0,30,-00,30\nb,1,,5,0\n")
    columns = {"object_id": "id", "ra": "{h}:{m}", "dec": "{d}:{e}"}
    found = read_list(tmp_path / "t.csv", {"columns": columns, "keep": {}})
    assert found.dec[0] == -0.5
    assert found.ra[0] == 7.5
    assert found.missing.tolist() == [False, True]


SEXTRACTOR = """#   1 NUMBER          Running object number
#   2 ALPHA_J2000     Right ascension   [deg]
#   3 DELTA_J2000     Declination   [deg]
     1   150.5  -2.5
     2   150.6  +2.5
"""


def test_a_catalog_of_sextractor(tmp_path):
    found = read(tmp_path, SEXTRACTOR, "test.cat")
    assert found["NUMBER"].to_pylist() == [1, 2]
    assert found["DELTA_J2000"].to_pylist() == [-2.5, 2.5]
    assert found.schema.field("ALPHA_J2000").metadata == {b"unit": b"deg"}


@pytest.mark.parametrize("head", ["id ra dec\n", "# by hand\n# id ra dec\n", "#id ra dec\n"])
def test_columns_with_blanks_between(tmp_path, head):
    text = head + "007  150.0 2.0\nb 150.5 NULL\n"
    found = read(tmp_path, text, "list.txt", text_columns=["id"])
    assert found["id"].to_pylist() == ["007", "b"]
    assert found["dec"].to_pylist() == [2.0, None]


def test_text_with_commas_may_be_called_anything(tmp_path):
    assert read(tmp_path, "#Table1\n" + HEAD + BODY, "list.txt").to_pylist() == ROWS


def test_positions_of_an_ecsv_are_found_by_the_names_of_their_parts(tmp_path):
    sky = SkyCoord([150.0, 150.5], [2.0, -2.5], unit="deg")
    table = QTable({"id": [1, 2], "sky": sky, "gal": sky.galactic})
    table.write(tmp_path / "t.ecsv")
    columns = {"object_id": "id", "ra": "sky.ra", "dec": "sky.dec"}
    found = read_list(tmp_path / "t.ecsv", {"columns": columns, "keep": {}})
    assert (found.ra.tolist(), found.dec.tolist()) == ([150.0, 150.5], [2.0, -2.5])
    columns = {"object_id": "id", "ra": "gal.l", "dec": "gal.b"}
    found = read_list(tmp_path / "t.ecsv", {"columns": columns, "keep": {}, "frame": "galactic"})
    np.testing.assert_allclose(found.ra, [150.0, 150.5], atol=1e-9)
    (tmp_path / "t.csv").write_bytes((tmp_path / "t.ecsv").read_bytes())
    assert read_table(tmp_path / "t.csv").column_names == list_columns(tmp_path / "t.ecsv").names


def test_an_ecsv_whose_header_does_not_fit_is_refused(tmp_path):
    text = "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: a, datatype: int64}\nb\n1\n"
    with pytest.raises(TableError, match="describes the columns a, but the line of names has b"):
        read(tmp_path, text, "t.ecsv")


def test_a_position_that_is_left_out_in_words_is_missing(tmp_path):
    text = "id,ra,dec\na,12:30:00,+02:00:00\nb,NULL,--\nc,12:30:00,north\n"
    (tmp_path / "t.csv").write_text(text)
    columns = {"object_id": "id", "ra": "ra", "dec": "dec"}
    found = read_list(tmp_path / "t.csv", {"columns": columns, "keep": {}})
    assert found.missing.tolist() == [False, True, False]
    assert found.on_the_sky().tolist() == [True, False, False]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_three_digits_behind_a_comma_are_no_thousands(tmp_path, mark):
    text = "id,ra,dec,m\na,150#123,2#5,1.5\nb,150#456,3#25,2.5\n".replace(",", mark)
    found = read(tmp_path, text.replace("#", ","))
    assert found["ra"].to_pylist() == [150.123, 150.456]
    assert found["dec"].to_pylist() == [2.5, 3.25]
    assert found["m"].to_pylist() == [1.5, 2.5]


@pytest.mark.parametrize(
    "text",
    ['id,n,m\na,"21,345",1.5\nb,"1,234",2.5\n', "id\tn\tm\na\t21,345\t1.5\nb\t1,234\t2.5\n",
     "id;n;m\na;21,345;1.5\nb;1,234;2.5\n", "id\tn\na\t21,345\nb\t1,234\n"],
)  # fmt: skip
def test_commas_that_may_be_decimal_or_thousands_stay_text(tmp_path, text, caplog):
    assert read(tmp_path, text)["n"].to_pylist() == ["21,345", "1,234"]
    assert "the column 'n' stays text: in numbers such as '21,345'" in caplog.text


def test_a_column_with_decimal_commas_among_points_stays_text_in_a_tsv(tmp_path):
    text = "id\tpair\tm\na\t3,7\t1.5\nb\t4,12\t2.5\n"
    assert read(tmp_path, text, "list.tsv")["pair"].to_pylist() == ["3,7", "4,12"]


def test_points_below_the_first_lines_of_a_table_with_decimal_commas(tmp_path):
    rows = "".join(f"{n};1,5;2\n" for n in range(60))
    found = read(tmp_path, "id;m;n\n" + rows + "60;1,5;1.234\n")
    assert found["n"].to_pylist() == [*["2"] * 60, "1.234"]


def test_ids_beyond_int64_keep_every_digit(tmp_path):
    ids = [11094340384428888064, 11094340384428888065, 5]
    text = "name,specObjID,x\n" + "".join(f"n,{i},1e300\n" for i in ids)
    for name in ("t.csv", "t.txt"):
        found = read(tmp_path, text if name == "t.csv" else text.replace(",", " "), name)
        assert found["specObjID"].to_pylist() == ids
        assert str(found.schema.field("specObjID").type) == "uint64"
        assert found["x"].to_pylist() == [1e300] * 3


def test_a_row_of_marks_is_no_line_of_dashes(tmp_path):
    found = read(tmp_path, "x,y\n1,2\n--,--\n3,4\n")
    assert found["x"].to_pylist() == [1, None, 3]
    found = read(tmp_path, "x,y\n--,--\n3,4\n")
    assert found["x"].to_pylist() == [None, 3]
    found = read(tmp_path, "x,y\n1,2\n---,---\n3,4\n")
    assert found["x"].to_pylist() == [1, None, 3]


def test_no_row_is_lost_where_a_letter_crosses_the_end_of_the_sample(tmp_path):
    for shift in (0, 1):
        head = "# " + "é" * 30 + "\nid,note\na,x\nb,x\n"
        fill = "#" + "c" * ((1 << 20) - 100 - len(head.encode()) - shift) + "\n"
        found = read(tmp_path, head + fill + "é" * 200 + ",y\nlast,z\n")
        assert found["id"].to_pylist() == ["a", "b", "é" * 200, "last"]


def test_a_late_letter_of_latin_1_loses_no_row(tmp_path):
    rows = ("é" * 30 + ",x\n") * 20000
    found = read(tmp_path, b"# \xc3\xa9\xc3\xa9\nid,note\n" + rows.encode() + b"\xe9n,z\n")
    assert found.num_rows == 20001
    assert found["id"][20000].as_py() == "én"


def test_commented_lines_that_may_be_rows_are_told(tmp_path, caplog):
    found = read(tmp_path, "id,ra\n#1,1.0\n#2,2.0\nc,3.0\n# end\n")
    assert found["id"].to_pylist() == ["c"]
    assert "2 lines that begin with # are left out as comments" in caplog.text
    assert "the first '#1,1.0'" in caplog.text


def test_commented_lines_between_rows_that_may_be_rows_are_refused(tmp_path):
    with pytest.raises(TableError, match="1 lines between the rows begin with #.*'#2,2.0'.*quotes"):
        read(tmp_path, "id,ra\na,1.0\n#2,2.0\nc,3.0\n")
    text = "id,ra\na,1.0\n# second half\nc,3.0\n"
    assert read(tmp_path, text)["id"].to_pylist() == ["a", "c"]


def test_a_remark_of_as_many_words_is_no_header(tmp_path):
    found = read(tmp_path, "# made,byhand\nname,label\na,lens\n")
    assert found.to_pylist() == [{"name": "a", "label": "lens"}]
    with pytest.raises(TableError, match="no line names the columns"):
        read(tmp_path, "# made,byhand\nname,2\na,lens\n")
    found = read(tmp_path, "# id,mag\na,2.5\nb,NULL\n")
    assert found.to_pylist() == [{"id": "a", "mag": 2.5}, {"id": "b", "mag": None}]


def test_commas_that_nothing_proves_are_decimal_between_semicolons_and_told(tmp_path, caplog):
    assert read(tmp_path, "id;ra\na;150,123\nb;21,345\n")["ra"].to_pylist() == [150.123, 21.345]
    assert "commas are read as decimal, as the delimiter is a semicolon" in caplog.text
