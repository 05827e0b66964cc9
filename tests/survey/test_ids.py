"""Names that were rounded as numbers are refused; other spellings of one name are told."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from luneta.survey.ids import loose, rounded
from luneta.survey.sources import read_list
from luneta.survey.tables import TableError

# Three galaxies of SDSS DR7; as float64 they are one.
SDSS = [1237648720693755918, 1237648720693755904, 1237648720693755900]
SETTINGS = {"columns": {"object_id": "objid", "ra": "ra", "dec": "dec"}, "keep": {}}


def test_numpy_agrees_that_three_galaxies_become_one():
    assert len({float(name) for name in SDSS}) == 1
    assert int(np.float64(SDSS[0])) == 1237648720693755904


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (pa.array([float(n) for n in SDSS]), "3 rows share 1237648720693755904; store the names"),
        (pa.array([2.0**53 + 2, 5.0]), "up to 2^53 only: one is 9007199254740994"),
        (pa.array([1.6777217e7], pa.float32()), "as float32, which holds whole numbers up to 2^24"),
        (pa.array(["1.23765E+18"] * 2 + ["7"]), "2 rows share 1.23765E+18; store the names"),
        (pa.array(["1.2376487206937559e+18"]), "one is 1.2376487206937559e+18"),
        (pa.array(["1.2376487206937559E18"]), "one is 1.2376487206937559E18"),
        (pa.array(["1,23765E+18"]), "one is 1,23765E+18"),
        (pa.array(["1E+18", None]), "one is 1E+18"),
        (pa.array(["1237648720693755904.0"]), "one is 1237648720693755904.0"),
        (pa.array(["1.23765E+18"]).dictionary_encode(), "one is 1.23765E+18"),
    ],
)
def test_names_that_lost_digits(column, words):
    problem = rounded(column, "objid")
    assert problem.startswith("column 'objid' holds names ") and words in problem


@pytest.mark.parametrize(
    "column",
    [
        pa.array(SDSS),
        pa.array([2**63 + 2**62], pa.uint64()),
        pa.array([str(name) for name in SDSS]),
        pa.array([7.0, 2.0**53 - 1, None, np.nan, np.inf]),
        pa.array([7.0], pa.float32()),
        pa.array(["1e5", "12E34", "J1234+56", "1.5", "E+18", "", None]),
        pa.array([None, None]),
        pa.array([], pa.float64()),
    ],
)
def test_names_that_are_whole(column):
    assert rounded(column, "objid") is None


def test_other_spellings_of_a_name():
    spelt = pa.array(["007", "7.0", "7.", " 7", "NGC 0007", "ngc_0007", "0", "000", "J1+2"])
    assert loose(spelt).to_pylist() == [
        "7", "7", "7", "7", "ngc0007", "ngc0007", "0", "0", "j1+2",
    ]  # fmt: skip


def written(folder, form, names):
    """A list of these names in a format."""
    path = folder / f"list.{form}"
    table = Table({"objid": names, "ra": [150.0, 150.1, 150.2], "dec": [2.0, 2.0, 2.0]})
    if form == "parquet":
        pq.write_table(pa.table({name: np.asarray(table[name]) for name in table.colnames}), path)
    else:
        table.write(path, format={"vot": "votable", "ecsv": "ascii.ecsv"}.get(form))
    return path


@pytest.mark.parametrize("form", ["fits", "vot", "ecsv", "parquet", "csv"])
def test_a_list_of_rounded_names_is_refused_in_every_format(tmp_path, form):
    path = written(tmp_path, form, np.array(SDSS, float))
    with pytest.raises(TableError, match="list.*: column 'objid' holds names .* 3 rows share 1"):
        read_list(path, SETTINGS)


@pytest.mark.parametrize("form", ["fits", "vot", "ecsv", "parquet", "csv"])
def test_whole_names_keep_all_digits_in_every_format(tmp_path, form):
    path = written(tmp_path, form, SDSS)
    assert read_list(path, SETTINGS).object_id.tolist() == [str(name) for name in SDSS]


@pytest.mark.parametrize("form", ["fits", "parquet", "csv"])
def test_names_beyond_signed_64_bits_keep_all_digits(tmp_path, form):
    names = np.array([2**64 - 1, 2**63, 2**63 + 1], np.uint64)
    path = written(tmp_path, form, names)
    expected = ["18446744073709551615", "9223372036854775808", "9223372036854775809"]
    assert read_list(path, SETTINGS).object_id.tolist() == expected
