"""Positions against published ones, in every unit, frame and epoch."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from luneta.survey.sources import (
    Sources,
    degrees,
    object_names,
    read_list,
    read_sources,
    select,
)
from luneta.survey.tables import TableError, text

COLUMNS = {"object_id": "id", "ra": "ra", "dec": "dec"}
EMPTY = np.array([""], object)
ARCSEC = 1 / 3600


def pick(table, columns=COLUMNS, **settings):
    nowhere = np.full(len(table), "", object)
    return select(table, columns, {}, nowhere, "list.csv", settings)


def one(ra, dec, **settings):
    sources = pick(pa.table({"id": ["a"], "ra": [ra], "dec": [dec]}), **settings)
    return sources.ra[0], sources.dec[0]


def separation(position, ra, dec):
    here, there = SkyCoord(*position, unit="deg"), SkyCoord(ra, dec, unit="deg")
    return here.separation(there).deg


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([12.5], None, 12.5),
        ([1.0], "hourangle", 15.0),
        ([np.pi], "rad", 180.0),
        ([7200.0], "arcsec", 2.0),
        (["12h30m00s"], None, 187.5),
        (["-00d30m00s"], "deg", -0.5),
        (["-00:30:00"], "deg", -0.5),
        (["12 30 36"], "hourangle", 187.65),
        ([" 12:30:36.0 "], "hourangle", 187.65),
        (["150.25"], "deg", 150.25),
    ],
)
def test_degrees(values, unit, expected):
    assert degrees(pa.chunked_array([values]), unit, "ra")[0] == pytest.approx(expected, abs=1e-12)


def test_a_missing_angle_is_not_a_number():
    assert np.isnan(degrees(pa.chunked_array([[None, 1.0]]), "deg", "ra")[0])
    assert np.isnan(degrees(pa.chunked_array([[None, " ", "1:00:00"]]), "deg", "ra")[:2]).all()


def test_a_row_that_is_no_angle_costs_itself_only():
    found = degrees(pa.chunked_array([["12:00:00", "12:75:00", "unknown"]]), "deg", "dec")
    assert found[0] == 12.0
    assert np.isnan(found[1:]).all()


def test_a_column_without_any_angle_is_refused():
    with pytest.raises(TableError, match="column 'ra' holds text that is no angle: 'north'"):
        degrees(pa.chunked_array([["north", None]]), None, "ra")


def test_a_unit_that_is_no_angle():
    with pytest.raises(TableError, match="no angle"):
        degrees(pa.chunked_array([[1.0]]), "kg", "ra")


def test_sexagesimal_right_ascension_is_in_hours():
    ra, dec = one("12:30:49.4", "-12:23:28")
    assert ra == pytest.approx(187.705833, abs=1e-5)
    assert dec == pytest.approx(-12.391111, abs=1e-5)


def test_all_values_tell_whether_a_column_is_sexagesimal():
    places = pa.table({"id": ["a", "b", "c"], "ra": ["12h30m00s", "-99", "12:30:49.4"],
                       "dec": ["1.5", "-99", "-12:30:00"]})  # fmt: skip
    sources = pick(places)
    assert sources.ra[[0, 2]].tolist() == pytest.approx([187.5, 187.705833], abs=1e-6)
    assert sources.dec[[0, 2]].tolist() == [1.5, -12.5]
    assert sources.on_the_sky().tolist() == [True, False, True]


@pytest.mark.parametrize("values", [["187.7", "12:30:49.4"], ["12:30:49.4", "187.7"]])
def test_hours_and_plain_numbers_in_one_column_are_refused(values):
    table = pa.table({"id": ["a", "b"], "ra": values, "dec": [1.0, 2.0]})
    with pytest.raises(TableError, match="'ra' holds hours, .* '12:30:49.4', and plain .* '187.7'"):
        pick(table)


def test_sexagesimal_csv_that_looks_like_times_of_day(tmp_path):
    (tmp_path / "s.csv").write_text("id,ra,dec\na,12:30:36,10:30:00\nb,00:00:04,20:00:36\n")
    sources = read_list(tmp_path / "s.csv", {"columns": COLUMNS, "keep": {}})
    np.testing.assert_allclose(sources.ra, [187.65, 1 / 60], atol=1e-12)
    np.testing.assert_allclose(sources.dec, [10.5, 20.01], atol=1e-12)


@pytest.mark.parametrize(("hours", "degrees"), [('"h:m:s"', '"d:m:s"'), ("h:m:s", "d:m:s")])
def test_sexagesimal_units_as_vizier_writes_them(hours, degrees):
    table = pa.table({"id": ["a"], "ra": ["12 30 49.4"], "dec": ["-00 30 00"]})
    fields = [("id", None), ("ra", {"unit": hours}), ("dec", {"unit": degrees})]
    schema = pa.schema([pa.field(name, pa.string(), metadata=unit) for name, unit in fields])
    sources = pick(table.cast(schema))
    assert sources.ra[0] == pytest.approx(187.7058333, abs=1e-7)
    assert sources.dec[0] == -0.5


@pytest.mark.parametrize("unit", ["DEG", "degrees", "Degree"])
def test_the_config_tells_what_an_odd_unit_means(unit):
    field = pa.field("ra", pa.float64(), metadata={"unit": unit})
    table = pa.table({"id": ["a"], "dec": [2.0]}).append_column(field, [[10.0]])
    assert pick(table, units={"ra": "deg"}).ra[0] == 10.0
    with pytest.raises(TableError, match="'ra' has the unit .*; say what it is by input.units.ra"):
        pick(table)


def test_units_of_the_config_go_before_those_of_the_column(caplog):
    assert one(12.51, 2.5, units={"ra": "hourangle"})[0] == pytest.approx(187.65)
    assert one("12 30 36", "2 30 0", units={"ra": "sexagesimal", "dec": "sexagesimal"}) == (
        pytest.approx(187.65),
        pytest.approx(2.5),
    )
    field = pa.field("ra", pa.float64(), metadata={"unit": "deg"})
    table = pa.table([["a"], [12.5], [0.0]], schema=pa.schema(
        [("id", pa.string()), field, ("dec", pa.float64())]
    ))  # fmt: skip
    assert pick(table).ra[0] == 12.5
    assert not caplog.messages
    assert pick(table, units={"ra": "hourangle"}).ra[0] == pytest.approx(187.5)
    assert caplog.messages == [
        "column 'ra' has the unit 'deg', and is read in 'hourangle', as input.units.ra says"
    ]


def test_the_galactic_centre():
    # zero point of the IAU 1958 system, J2000: 17h45m37.20s -28d56m10.2s (Reid & Brunthaler 2004)
    found = one(0.0, 0.0, frame="galactic")
    assert separation(found, 266.405, -28.936166) < 0.2 * ARCSEC


def test_3c_273_from_b1950():
    # 12h26m33.248s +02d19m43.29s (B1950) is 12h29m06.6997s +02d03m08.598s (ICRF)
    found = one("12:26:33.248", "+02:19:43.29", frame="fk4", equinox="B1950")
    assert separation(found, 187.2779154, 2.0523883) < 0.3 * ARCSEC


def test_theta_persei_from_the_equinox_of_date():
    # Meeus, Astronomical Algorithms (1998), example 21.b
    found = one(41.547214, 49.348483, frame="fk5", equinox="J2028.8671")
    assert separation(found, 41.054063, 49.227750) < 0.3 * ARCSEC


def test_barnards_star_is_carried_back_by_16_years():
    # Gaia DR3 at J2016; SIMBAD gives 17h57m48.4997s +04d41m36.114s at J2000
    table = pa.table({
        "id": ["Barnard"], "ra": [269.44850252], "dec": [4.73942005],
        "pm_ra": [-801.551], "pm_dec": [10362.394],
    })  # fmt: skip
    columns = {**COLUMNS, "pm_ra": "pm_ra", "pm_dec": "pm_dec"}
    found = pick(table, columns, epoch=2016.0, image_epoch=2000.0)
    assert separation((found.ra[0], found.dec[0]), 269.4520823, 4.6933650) < 0.3 * ARCSEC
    per_second = {"pm_ra": "arcsec/yr", "pm_dec": "arcsec/yr"}
    same = pa.table({**table.to_pydict(), "pm_ra": [-0.801551], "pm_dec": [10.362394]})
    again = pick(same, columns, epoch=2016.0, image_epoch=2000.0, units=per_second)
    np.testing.assert_allclose(again.dec, found.dec, atol=1e-10)


def test_a_source_without_proper_motion_stays():
    table = pa.table({
        "id": ["a", "b"], "ra": [10.0, 20.0], "dec": [80.0, 95.0],
        "pm_ra": [None, 5.0], "pm_dec": [np.nan, 5.0],
    })  # fmt: skip
    columns = {**COLUMNS, "pm_ra": "pm_ra", "pm_dec": "pm_dec"}
    found = pick(table, columns, epoch=2016.0, image_epoch=2000.0)
    np.testing.assert_allclose([found.ra, found.dec], [[10, 20], [80, 95]], atol=1e-11)


def test_galactic_proper_motion_moves_along_galactic_longitude():
    table = pa.table({"id": ["a"], "ra": [30.0], "dec": [0.0], "pm_ra": [3.6e6], "pm_dec": [0.0]})
    columns = {**COLUMNS, "pm_ra": "pm_ra", "pm_dec": "pm_dec"}
    found = pick(table, columns, frame="galactic", epoch=2000.0, image_epoch=2001.0)
    there = SkyCoord(found.ra, found.dec, unit="deg").galactic
    # a steady motion along a great circle: tan(angle) = 1 degree in radians
    assert there.l.deg[0] == pytest.approx(30 + np.degrees(np.arctan(np.radians(1))), abs=1e-5)
    assert there.b.deg[0] == pytest.approx(0, abs=1e-5)


def test_proper_motion_in_fk4_is_refused():
    table = pa.table({"id": ["a"], "ra": [1.0], "dec": [1.0], "p": [1.0]})
    columns = {**COLUMNS, "pm_ra": "p", "pm_dec": "p"}
    with pytest.raises(TableError, match="list.csv: proper motions in frame fk4"):
        pick(table, columns, frame="fk4", equinox="B1950", epoch=1950.0, image_epoch=2000.0)


def test_an_equinox_that_is_none():
    with pytest.raises(TableError, match="'1950B' is no equinox; write J2000 or B1950"):
        one(1.0, 1.0, frame="fk4", equinox="1950B")


def longitudes(*values, dec=1.0, **settings):
    rows = {"id": [str(n) for n in range(len(values))], "ra": values, "dec": [dec] * len(values)}
    return pick(pa.table(rows), **settings)


@pytest.mark.parametrize("frame", ["icrs", "fk5"])
def test_what_is_no_point_of_the_sky_stays_as_it_is(frame):
    table = pa.table(
        {"id": list("abcde"), "ra": [-10.0, 360.0, 725.5, np.inf, 5.0], "dec": [0.0] * 4 + [95.0]}
    )
    found = pick(table, frame=frame)
    assert found.ra[[0, 2, 3, 4]].tolist() == [-10.0, 725.5, np.inf, 5.0]
    assert found.dec[4] == 95.0
    assert found.on_the_sky().tolist() == [False, True, False, False, False]
    assert min(found.ra[1], 360 - found.ra[1]) < 1e-5
    assert pick(table, frame="galactic").dec[4] == 95.0


def test_a_list_from_minus_180_to_180_is_wrapped():
    found = longitudes(-180.0, -0.5, 0.0, 179.5)
    assert found.ra.tolist() == [180.0, 359.5, 0.0, 179.5]
    assert found.on_the_sky().all()


def test_a_list_that_runs_across_360_is_wrapped():
    assert longitudes(355.0, 360.0, 364.5).ra.tolist() == [355.0, 0.0, 4.5]
    assert longitudes(100.0, 364.5).on_the_sky().tolist() == [True, False]


def test_a_hair_beyond_the_limits_is_on_the_sky():
    found = longitudes(360.0000001, -1e-7, 10.0, dec=-90.0000001)
    assert found.on_the_sky().all()
    assert found.ra[0] == pytest.approx(1e-7)
    assert found.ra[1] == pytest.approx(360 - 1e-7)
    assert found.dec.tolist() == [-90.0] * 3


@pytest.mark.parametrize("none", [-99.0, -99.9, -999.0, -9999.0, 999.0, 9999.0, 1e20, -1e30])
@pytest.mark.parametrize("unit", [None, "hourangle", "rad"])
def test_values_that_stand_for_none_are_no_positions(none, unit):
    found = longitudes(0.1, none, 5.5, units={"ra": unit} if unit else {})
    assert found.on_the_sky().tolist() == [True, False, True]
    if none < 0:
        assert found.ra[1] == none
    kinds = [pa.string(), pa.float32(), pa.float32()]
    rows = pa.table({"id": ["a", "b"], "ra": [none, 1.0], "dec": [none, 1.0]})
    rows = rows.cast(pa.schema(zip(rows.column_names, kinds, strict=True)))
    assert pick(rows).on_the_sky().tolist() == [False, True]


def test_the_same_value_twice_is_no_position_in_any_unit():
    rows = pa.table({"id": ["a", "b"], "ra": [-9999.0, 7200.0], "dec": [-9999.0, 7200.0]})
    found = pick(rows, units={"ra": "arcsec", "dec": "arcsec"})
    assert found.on_the_sky().tolist() == [False, True]
    assert (found.ra[0], found.dec[0], found.ra[1]) == (-9999.0, -9999.0, 2.0)


def test_pixels_that_stand_for_none_are_none():
    rows = pa.table({"id": list("abc"), "X": [-999.0, 20.0, -5.0], "Y": [-999.0, 30.0, 1e20]})
    found = pick(rows, {"object_id": "id", "ra": None, "dec": None, "x": "X", "y": "Y"})
    assert found.on_a_pixel().tolist() == [False, True, False]
    assert found.x.tolist() == [-999.0, 19.0, -6.0]


def test_a_motion_that_stands_for_none_is_none():
    rows = pa.table({"id": ["a"], "ra": [10.0], "dec": [20.0], "pm": [-9999.0]})
    columns = {**COLUMNS, "pm_ra": "pm", "pm_dec": "pm"}
    found = pick(rows, columns, epoch=2016.0, image_epoch=2000.0)
    np.testing.assert_allclose([found.ra[0], found.dec[0]], [10, 20], atol=1e-11)


def test_pixel_positions_count_from_the_first_pixel():
    table = pa.table({"id": ["a", "b"], "X": [1.0, None], "Y": [2.5, 3.0]})
    columns = {"object_id": "id", "ra": None, "dec": None, "x": "X", "y": "Y"}
    found = pick(table, columns, first_pixel=1)
    np.testing.assert_array_equal(found.x, [0.0, np.nan])
    np.testing.assert_array_equal(found.y, [1.5, 2.0])
    assert found.on_a_pixel().tolist() == [True, False]
    assert found.missing.tolist() == [False, True]
    assert pick(table, columns, first_pixel=0).x[0] == 1.0


def test_a_position_on_the_sky_is_enough_where_there_is_no_pixel():
    table = pa.table({"id": ["a", "b"], "ra": [1.0, None], "dec": [2.0, 2.0], "X": [None, None]})
    columns = {**COLUMNS, "x": "X", "y": "X"}
    assert pick(table, columns).missing.tolist() == [False, True]


def test_a_mapped_tile_goes_before_the_one_given():
    table = pa.table({"id": ["a"], "ra": [1.0], "dec": [2.0], "field": [17]})
    assert pick(table, {**COLUMNS, "tile": "field"}).tile.tolist() == ["17"]


def test_names_are_kept_byte_for_byte_but_for_blanks_around():
    nfd = "e\u0301 \u00a0"
    column = pa.chunked_array([[" ../../etc/passwd ", nfd, None, "", "NGC 1365"]])
    assert text(column).tolist() == ["../../etc/passwd", nfd, "", "", "NGC 1365"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([7, None]), ["7", ""]),
        (pa.array([1237648702972625000], pa.uint64()), ["1237648702972625000"]),
        (pa.array([1.5, float("nan")]), ["1.5", ""]),
        (pa.array([7.0, 2.0**59, -3.0]), ["7", "576460752303423488", "-3"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pa.array([b"a ", b"\xff"]), ["a", "\\xff"]),
    ],
)
def test_names_of_other_types(values, expected):
    assert text(pa.chunked_array([values])).tolist() == expected


def test_a_missing_column_names_those_there_are():
    table = pa.table({"name": ["a"], "ra": [1.0], "dec": [2.0]})
    columns = {"object_id": "ID", "ra": "ra", "dec": "dec"}
    with pytest.raises(TableError, match="no column 'ID'; the table has name, ra, dec"):
        select(table, columns, {}, EMPTY, "list.csv")


def test_what_is_kept_keeps_its_unit_and_not_a_number_is_missing():
    field = pa.field("R", pa.float32(), metadata={"unit": "mag"})
    schema = pa.schema([("id", pa.string()), ("ra", pa.float64()), ("dec", pa.float64()), field])
    table = pa.table([["a", "b"], [1.0, 1.0], [2.0, 2.0], [np.nan, 20.0]], schema=schema)
    kept = select(table, COLUMNS, {"r": "R"}, np.array(["", ""], object), "x").kept
    assert kept.to_pydict() == {"r": [None, 20.0]}
    assert kept.schema.field("r") == field.with_name("r")
    assert kept.schema.field("r").metadata == {b"unit": b"mag"}


def test_only_the_columns_asked_for_are_read(tmp_path):
    table = pa.table({"id": ["a"], "ra": [1.0], "dec": [2.0], "mag": [3.0], "z": [4.0]})
    pq.write_table(table, tmp_path / "s.parquet")
    sources = read_list(tmp_path / "s.parquet", {"columns": COLUMNS, "keep": {"m": "mag"}}, "t1")
    assert sources.kept.column_names == ["m"]
    assert sources.tile.tolist() == ["t1"]


def test_one_list_a_tile(tmp_path):
    for tile, name in (("t1", "007"), ("t2", "b")):
        Table({"id": [name], "ra": [1.0], "dec": [2.0]}).write(tmp_path / f"{tile}.csv")
    settings = {"sliced": False, "columns": COLUMNS, "keep": {}}
    paths = [tmp_path / "t1.csv", tmp_path / "t2.csv"]
    sources = read_sources(paths, settings, ["t1", "t2"])
    assert sources.object_id.tolist() == ["007", "b"]
    assert sources.tile.tolist() == ["t1", "t2"]


@pytest.mark.parametrize("pixels", [True, False])
def test_a_slice_is_read_as_it_was_written(tmp_path, pixels):
    rows = {"object_id": ["a", "a"], "ra": [1.0, None], "dec": [2.0, None], "tile": ["t", ""]}
    place = {"x": [5.0, np.nan], "y": [6.0, np.nan]} if pixels else {}
    pq.write_table(pa.table({**rows, **place, "m": [1.0, 2.0]}), tmp_path / "s.parquet")
    settings = {"sliced": True, "columns": {"object_id": "ID"}, "keep": {"m": "MAG"},
                "units": {"ra": "hourangle"}, "frame": "galactic"}  # fmt: skip
    sources = read_sources([tmp_path / "s.parquet"], settings, [])
    assert sources.ra[0] == 1.0
    assert sources.x.tolist()[0] == pytest.approx(5.0 if pixels else np.nan, nan_ok=True)
    assert sources.tile.tolist() == ["t", ""]
    assert sources.missing.tolist() == [False, True]


def test_a_list_without_pixels_has_none():
    sources = Sources(np.array(["a"], object), np.zeros(1), np.zeros(1), EMPTY, pa.table({}))
    assert np.isnan(sources.x[0])
    assert sources.missing.tolist() == [False]


def test_names_put_together_from_several_columns():
    table = pa.table({"brickname": ["0001m002", "0001m002", None], "objid": [3, 14, 15]})
    found = object_names(table, "{brickname}-{objid}")
    assert found.tolist() == ["0001m002-3", "0001m002-14", ""]
    assert object_names(table, "objid").tolist() == ["3", "14", "15"]


@pytest.mark.parametrize(("odd", "usual"), [("10:00:61", "150.5"), ("150.5", "10:02:00")])
def test_a_row_of_another_form_costs_itself_only(odd, usual):
    from luneta.survey.positions import coordinate

    table = pa.table({"ra": [usual] * 20 + [odd]})
    degrees, _ = coordinate(table, "ra", "ra", {})
    assert degrees[:20].tolist() == pytest.approx([150.5] * 20)
    assert np.isnan(degrees[20])
