import itertools

import numpy as np
import pytest
from astropy import units
from astropy.coordinates import SkyCoord

from luneta.survey.overlaps import best_placement, same_object

ARCSEC = 1 / 3600
NAN = np.nan


def placed(*rows):
    names, ra, dec, tile = zip(*rows, strict=True)
    return (
        np.array(names, object),
        np.array(ra, float),
        np.array(dec, float),
        np.array(tile, object),
    )


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ((True, 0.4, 3, "b"), (False, 0.0, 99, "a")),
        ((True, 0.1, 3, "b"), (True, 0.2, 99, "a")),
        ((True, 0.1, 9, "b"), (True, 0.1, 8, "a")),
        ((True, 0.1, 9, "a"), (True, 0.1, 9, "b")),
        ((True, 0.9, NAN, "b"), (True, NAN, 9, "a")),
        ((True, 0.1, 0, "b"), (True, 0.1, NAN, "a")),
    ],
    ids=["usable", "fewest masked", "farthest from the edge", "tile", "measured", "edge known"],
)
def test_the_best_placement_in_either_order(better, worse):
    for order in ((better, worse), (worse, better)):
        usable, masked, edge, tile = map(np.array, zip(*order, strict=True))
        best = best_placement(np.zeros(2, int), usable, masked, edge, tile)
        assert best.tolist() == [order[0] is better, order[1] is better]


def test_every_object_has_one_best_placement():
    random = np.random.default_rng(1)
    group = random.integers(0, 50, 400)
    values = random.random(400) < 0.5, random.integers(0, 3, 400) / 4, random.integers(0, 4, 400)
    tile = random.choice(["a", "b", "c"], 400)
    best = best_placement(group, *values, tile)
    keys = list(zip(~values[0], values[1], -values[2], tile, range(400), strict=True))
    for number in np.unique(group):
        rows = np.flatnonzero(group == number)
        assert rows[best[rows]].tolist() == [min(rows, key=lambda row: keys[row])]


def test_one_name_near_in_two_tiles_is_one_object():
    rows = placed(("x", 150, 2, "a"), ("y", 150, 2, "a"), ("x", 150 + 0.9 * ARCSEC, 2, "b"))
    assert same_object(*rows, 1.0).tolist() == [0, 1, 0]
    assert same_object(*rows, 0.8).tolist() == [0, 1, 2]
    assert same_object(*rows, None).tolist() == [0, 1, 2]


def test_one_name_twice_in_a_tile_is_two_objects_in_both_tiles():
    rows = placed(*[("x", 10, 0, tile) for tile in "aabb"])
    assert same_object(*rows, 1.0).tolist() == [0, 1, 0, 1]


def test_unknown_positions_and_no_tile_are_near_to_nothing():
    nowhere = placed(
        ("x", NAN, NAN, "a"), ("x", NAN, NAN, "b"), ("x", 10, 95, "a"), ("x", 10, 95, "b")
    )
    assert same_object(*nowhere, 1.0).tolist() == [0, 1, 2, 3]
    assert same_object(*placed(("x", 10, 0, ""), ("x", 10, 0, "a")), 1.0).tolist() == [0, 1]
    assert same_object(*placed(("x", 10, 0, ""))[:3], np.array([""], object), 1.0).tolist() == [0]
    assert len(same_object(*(np.empty(0, object),) * 4, 1.0)) == 0


def test_separations_are_those_of_astropy_at_the_pole_and_across_ra_zero():
    base = [(0.0, 89.9999), (359.99999, 0.0), (180.0, -60.0)]
    for (ra, dec), offset in itertools.product(base, (0.95, 1.05)):
        there = SkyCoord(ra, dec, unit="deg").directional_offset_by(
            70 * units.deg, offset * units.arcsec
        )
        rows = placed(("x", ra, dec, "a"), ("x", there.ra.deg, there.dec.deg, "b"))
        assert len(set(same_object(*rows, 1.0))) == (1 if offset < 1 else 2)


def test_detected_objects_are_matched_to_the_nearest_of_each_tile():
    rows = placed(
        ("a1", 10, 0, "a"),
        ("a2", 10 + 0.6 * ARCSEC, 0, "a"),
        ("b1", 10 + 0.2 * ARCSEC, 0, "b"),
        ("c1", 10 - 0.1 * ARCSEC, 0, "c"),
        ("b2", 11, 0, "b"),
    )
    assert same_object(*rows, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert same_object(*rows, 1.0, by_position=True).tolist() == [0, 1, 0, 0, 2]
