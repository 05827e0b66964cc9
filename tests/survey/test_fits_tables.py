"""FITS tables: what is undefined by the standard (FITS 4.0, section 7) is missing."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from luneta.survey.tables import TableError, list_columns, read_table

EMPTY = fits.PrimaryHDU().header.tostring().encode()


def table_hdu(rows, columns, **more):
    """The bytes of a binary table: stored rows, and the cards of each column."""
    header = fits.Header()
    shape = {"NAXIS": 2, "NAXIS1": rows.dtype.itemsize, "NAXIS2": len(rows)}
    cards = {"XTENSION": "BINTABLE", "BITPIX": 8, **shape, "PCOUNT": 0, "GCOUNT": 1}
    cards |= {"TFIELDS": len(columns), **more}
    for number, (name, about) in enumerate(columns.items(), start=1):
        cards |= {f"TTYPE{number}": name} | {f"{key}{number}": v for key, v in about.items()}
    for key, value in cards.items():
        header[key] = value
    data = rows.tobytes()
    return header.tostring().encode() + data + b"\0" * (-len(data) % 2880)


def write(path, *hdus):
    path.write_bytes(EMPTY + b"".join(hdus))
    return path


def one_column(tmp_path, values, kind, **about):
    rows = np.array(values, dtype=[("v", kind)])
    path = write(tmp_path / "t.fits", table_hdu(rows, {"v": about}))
    return read_table(path)["v"]


def test_the_stored_value_is_undefined_before_it_is_scaled(tmp_path):
    found = one_column(
        tmp_path, [1500010000, -(2**31), 0], ">i4", TFORM="J", TSCAL=1e-7, TNULL=-(2**31)
    )
    assert found.to_pylist() == [pytest.approx(150.001), None, 0.0]
    found = one_column(
        tmp_path, [10, -32768, 30], ">i2", TFORM="I", TSCAL=0.01, TZERO=20.0, TNULL=-32768
    )
    assert found.to_pylist() == [pytest.approx(20.1), None, pytest.approx(20.3)]


@pytest.mark.parametrize(
    ("kind", "form", "zero", "stored", "values"),
    [
        (">i2", "I", 2**15, [-(2**15), 5, 2**15 - 1], [0, None, 65535]),
        (">i4", "J", 2**31, [-(2**31), 5, 2**31 - 1], [0, None, 2**32 - 1]),
        (">i8", "K", 2**63, [-(2**63), 5, 2**63 - 1], [0, None, 2**64 - 1]),
        ("u1", "B", -128, [0, 5, 255], [-128, None, 127]),
    ],
)
def test_unsigned_and_signed_bytes_with_undefined_values(
    tmp_path, kind, form, zero, stored, values
):
    found = one_column(tmp_path, stored, kind, TFORM=form, TZERO=zero, TNULL=5)
    assert found.to_pylist() == values


def test_ids_with_undefined_values_keep_every_digit(tmp_path):
    ids = [1237648720693755918, -1, 2**63 - 1]
    assert one_column(tmp_path, ids, ">i8", TFORM="K", TNULL=-1).to_pylist() == [
        1237648720693755918, None, 9223372036854775807
    ]  # fmt: skip


def test_logicals_have_a_third_value(tmp_path):
    found = one_column(tmp_path, [b"T", b"F", b"\0"], "S1", TFORM="L")
    assert found.to_pylist() == [True, False, None]


def test_a_bit_is_a_boolean_and_bits_are_an_array(tmp_path):
    assert one_column(tmp_path, [128, 0, 255], "u1", TFORM="X").to_pylist() == [True, False, True]
    rows = np.array([(1, 128)], dtype=[("a", "u1"), ("b", "u1")])
    path = write(tmp_path / "x.fits", table_hdu(rows, {"a": {"TFORM": "B"}, "b": {"TFORM": "8X"}}))
    assert list_columns(path).names == ["a"]
    with pytest.raises(TableError, match="'b' holds an array of 8 bits in each row"):
        read_table(path, columns=["b"])


def test_text_ends_at_a_nul_and_empty_text_is_missing(tmp_path):
    found = one_column(tmp_path, [b"ab  ", b"a\0zz", b"\0\0\0\0", b"    "], "S4", TFORM="4A")
    assert found.to_pylist() == ["ab", "a", None, None]


def test_numbers_that_are_nan_and_scaled_floats(tmp_path):
    found = one_column(tmp_path, [1.5, np.nan], ">f4", TFORM="E", TSCAL=2.0, TZERO=1.0)
    assert found.to_pylist()[0] == 4.0
    assert np.isnan(found.to_pylist()[1])


def test_an_ascii_table_with_undefined_and_blank_numbers(tmp_path):
    columns = {"i": "I4", "f": "F8.3", "d": "D12.3", "s": "A3"}
    rows = [b"  17   1.500   2.500D+03x  ", b"  -1" + b" " * 8 + b"      -99.00   "]
    starts = [1, 5, 13, 25]
    about = {
        name: {"TFORM": form, "TBCOL": start}
        for (name, form), start in zip(columns.items(), starts, strict=True)
    }
    about["i"]["TNULL"], about["d"]["TNULL"] = "-1", "-99.00"
    hdu = table_hdu(np.array(rows, "S27"), about, XTENSION="TABLE")
    path = write(tmp_path / "a.fits", hdu)
    assert read_table(path).to_pylist() == [
        {"i": 17, "f": 1.5, "d": 2500.0, "s": "x"},
        {"i": None, "f": None, "d": None, "s": None},
    ]


def test_what_astropy_writes_masked_is_missing(tmp_path):
    table = Table({"n": [1, 2, 3], "x": [1.0, 2.0, 3.0], "s": ["a", "b", "c"]}, masked=True)
    for name in table.colnames:
        table[name].mask = [False, True, False]
    table.write(tmp_path / "t.fits")
    read = read_table(tmp_path / "t.fits")
    assert read["n"].to_pylist() == [1, None, 3]
    assert read["s"].to_pylist() == ["a", None, "c"]


def ldac(path, chips=1):
    """A catalog as SExtractor writes it: CATALOG_TYPE FITS_LDAC."""
    hdus = [fits.PrimaryHDU()]
    for chip in range(chips):
        cards = np.array([" " * 160], dtype="S160").view("S80")
        head = fits.BinTableHDU.from_columns(
            [fits.Column("Field Header Card", "160A", array=np.array([b" " * 160]))],
            name="LDAC_IMHEAD",
        )
        assert len(cards) == 2
        rows = Table({"NUMBER": [1 + chip], "ALPHA_J2000": [150.0], "DELTA_J2000": [2.0]})
        hdus += [head, fits.BinTableHDU(rows, name="LDAC_OBJECTS")]
    fits.HDUList(hdus).writeto(path)
    return path


@pytest.mark.parametrize("name", ["a.fits", "a.cat", "a.ldac"])
def test_the_objects_of_a_fits_ldac_are_found(tmp_path, name):
    assert read_table(ldac(tmp_path / name))["NUMBER"].to_pylist() == [1]
    assert list_columns(tmp_path / name, ["NUMBER"]).names[0] == "NUMBER"
    assert read_table(f"{tmp_path}/{name}[LDAC_OBJECTS]")["NUMBER"].to_pylist() == [1]
    assert "Field Header Card" in read_table(f"{tmp_path}/{name}[1]").column_names


def test_of_several_chips_none_is_lost_in_silence(tmp_path):
    ldac(tmp_path / "a.fits", chips=2)
    columns = ["NUMBER", "ALPHA_J2000"]
    with pytest.raises(TableError, match=r"2 of its tables have the columns .*\[2\].*\[4\]"):
        read_table(tmp_path / "a.fits", columns=columns)
    assert read_table(f"{tmp_path}/a.fits[4]", columns=columns)["NUMBER"].to_pylist() == [2]
    with pytest.raises(TableError, match=r"2 tables are called \[LDAC_OBJECTS\]"):
        read_table(f"{tmp_path}/a.fits[LDAC_OBJECTS]")


def two_tables(path):
    first = fits.BinTableHDU(Table({"chip": [1]}), name="INFO")
    second = fits.BinTableHDU(Table({"ID": [7], "RA": [1.5]}), name="STARS")
    fits.HDUList([fits.PrimaryHDU(), first, second]).writeto(path)
    return path


def test_the_only_table_with_the_columns_is_meant(tmp_path):
    path = two_tables(tmp_path / "t.fits")
    assert read_table(path, columns=["ID", "RA"]).to_pylist() == [{"ID": 7, "RA": 1.5}]
    assert read_table(path, text_columns=["ID"])["ID"].to_pylist() == [7]
    assert read_table(path).column_names == ["chip"]
    for key in ("2", "STARS", "stars", "STARS,1"):
        assert read_table(f"{path}[{key}]").column_names == ["ID", "RA"]


def test_a_table_that_is_not_there_is_told_with_those_that_are(tmp_path):
    path = two_tables(tmp_path / "t.fits")
    words = r"no table \[GALAXIES\]; the file holds \[1\] \[INFO\].* with chip; \[2\] \[STARS\]"
    with pytest.raises(TableError, match=words):
        read_table(f"{path}[GALAXIES]")
    with pytest.raises(TableError, match="none of its 2 tables has all of the columns ID, dec"):
        read_table(path, columns=["ID", "dec"])


def test_a_file_whose_name_ends_in_brackets_is_taken_by_its_name(tmp_path):
    Table({"a": [1]}).write(tmp_path / "t.fits")
    (tmp_path / "t.fits").rename(tmp_path / "x.fits[1]")
    with pytest.raises(TableError, match="names no known table format"):
        read_table(tmp_path / "x.fits[1]")


def test_a_compressed_table_names_the_tool_that_unpacks_it(tmp_path):
    rows = np.array([1], dtype=[("a", ">i4")])
    hdu = table_hdu(rows, {"a": {"TFORM": "J"}}, ZTABLE=True)
    with pytest.raises(TableError, match="compressed table; unpack the file by funpack"):
        read_table(write(tmp_path / "t.fits.fz", hdu))


def test_a_table_that_breaks_off_is_refused(tmp_path):
    Table({"a": np.arange(5000)}).write(tmp_path / "t.fits")
    content = (tmp_path / "t.fits").read_bytes()
    (tmp_path / "t.fits").write_bytes(content[:-2880])
    with pytest.raises(TableError, match="truncated"):
        read_table(tmp_path / "t.fits")


def test_a_table_without_rows(tmp_path):
    rows = np.empty(0, dtype=[("a", ">i4"), ("s", "S3")])
    path = write(tmp_path / "t.fits", table_hdu(rows, {"a": {"TFORM": "J"}, "s": {"TFORM": "3A"}}))
    assert read_table(path).to_pydict() == {"a": [], "s": []}


def test_an_undefined_value_and_a_scale_written_as_text(tmp_path):
    found = one_column(tmp_path, [10, -999], ">i4", TFORM="J", TNULL="-999")
    assert found.to_pylist() == [10, None]
    found = one_column(tmp_path, [10, -999], ">i4", TFORM="J", TNULL="-999", TSCAL="0.5", TZERO="1")
    assert found.to_pylist() == [6.0, None]
