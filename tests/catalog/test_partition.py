"""Partitions and margins are those that hats would make."""

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from hats.pixel_math import generate_alignment, get_margin
from hats.pixel_math.healpix_shim import margin2order, order2npix
from hats.pixel_tree.negative_tree import compute_negative_tree_pixels
from hats.pixel_tree.pixel_tree import PixelTree

from luneta.catalog import index
from luneta.catalog.partition import (
    NOWHERE,
    healpix_of,
    margin_rows,
    partition,
    partitions_beside,
    shift_to,
    whole_sky,
)
from luneta.config.catalog import widest_margin

ORDER = 7
SETTINGS = {"lowest_order": 1, "highest_order": ORDER, "rows_per_partition": 60}


def points(count, seed=1):
    """Positions all over the sky, most of them in a patch across the corner of four pixels."""
    random = np.random.default_rng(seed)
    ra = np.concatenate([random.uniform(0, 360, count), random.uniform(43, 47, 3 * count)])
    dec = np.concatenate([random.uniform(-90, 90, count), random.uniform(-2, 2, 3 * count)])
    return ra, dec


def divided(healpix, **changes):
    cells, counts = np.unique(healpix >> shift_to(ORDER), return_counts=True)
    return partition(cells, counts, {**SETTINGS, **changes})


@pytest.mark.parametrize(("lowest", "rows"), [(0, 60), (1, 60), (3, 200), (0, 100_000)])
def test_partitions_are_those_of_hats(lowest, rows):
    healpix = healpix_of(*points(400))
    found = divided(healpix, lowest_order=lowest, rows_per_partition=rows)
    histogram = np.bincount(healpix >> shift_to(ORDER), minlength=order2npix(ORDER))
    expected = {
        tuple(map(int, pixel))
        for pixel in generate_alignment(histogram, ORDER, lowest, max(rows, histogram.max()))
        if pixel is not None
    }
    assert set(zip(found.order, found.pixel, found.rows, strict=True)) == expected
    assert (np.diff(found.first) > 0).all()


def test_every_position_lies_in_the_partition_that_counts_it():
    healpix = healpix_of(*points(300))
    found = divided(healpix)
    number = found.number_of(healpix)
    assert (np.bincount(number, minlength=len(found)) == found.rows).all()
    assert found.rows.max() <= 60
    empty = divided(healpix[:1])
    assert empty.number_of(healpix[1:])[-1] == NOWHERE


def test_a_pixel_of_the_highest_order_is_not_divided():
    healpix = healpix_of(np.full(200, 10.0), np.full(200, 3.0))
    found = divided(healpix)
    assert (found.order.tolist(), found.rows.tolist()) == ([ORDER], [200])


def test_empty_pixels_are_those_of_hats():
    found = divided(healpix_of(*points(300)))
    sky = whole_sky(found)
    empty = set(zip(sky.order[sky.rows == 0], sky.pixel[sky.rows == 0], strict=True))
    expected = compute_negative_tree_pixels(PixelTree.from_healpix(found.pixels))
    assert empty == {(pixel.order, pixel.pixel) for pixel in expected}
    areas = 1 / (12 * 4.0**sky.order)
    assert areas.sum() == pytest.approx(1)


@pytest.mark.parametrize("radius", [5.0, 120.0, 500.0])
def test_margins_are_those_of_hats_and_hold_all_within_the_radius(radius):
    ra, dec = points(800)
    healpix = healpix_of(ra, dec)
    sky = whole_sky(divided(healpix))
    rows, numbers = margin_rows(healpix, radius, ORDER, sky)
    pairs = set(zip(rows.tolist(), numbers.tolist(), strict=True))
    assert len(pairs) == len(rows)

    order = int(margin2order(radius / 60))
    cells, own = healpix >> shift_to(order), sky.number_of(healpix)
    expected = set()
    for number, pixel in enumerate(sky.pixels):
        if order - pixel.order > 8:  # of the largest pixels hats lists a million cells
            expected |= {pair for pair in pairs if pair[1] == number}
            continue
        beside = get_margin(pixel.order, pixel.pixel, order - pixel.order)
        expected |= {(int(row), number) for row in np.flatnonzero(np.isin(cells, beside))}
    assert pairs == expected

    # An object is in the margin of each partition that holds one within the radius.
    places = SkyCoord(ra * u.deg, dec * u.deg)
    first, second, _, _ = places.search_around_sky(places, radius * u.arcsec)
    near = own[first] != own[second]
    assert set(zip(first[near].tolist(), own[second][near].tolist(), strict=True)) <= pairs
    if radius > 400:
        assert near.sum() > 20


def test_shards_are_known_beside_the_margins_they_reach_into():
    healpix = healpix_of(*points(500))
    sky = whole_sky(divided(healpix))
    cells = np.unique(healpix >> shift_to(ORDER))
    _, numbers = margin_rows(healpix, 500.0, ORDER, sky)
    assert set(numbers) <= set(partitions_beside(cells, ORDER, sky))


@pytest.mark.parametrize("order", [0, 5, 10, 12])
def test_the_widest_margin_has_cells_below_the_smallest_partitions(order):
    assert margin2order(0.999 * widest_margin(order) / 60) > order


def test_what_is_no_point_of_the_sky_is_nowhere():
    ra, dec = np.array([10, np.nan, 20, np.inf, 370, -99]), np.array([0.0, 0, 91, 0, 0, 0])
    assert (healpix_of(ra, dec) == NOWHERE).tolist() == [False, True, True, True, True, True]


def test_the_index_is_cut_by_its_names_alone():
    names = np.array([f"object_{i:05d}" for i in range(5000)], object)
    cut = index.cuts(names, 500)
    assert 4 <= len(cut) <= 20
    part = index.part_of(names, cut)
    assert (np.diff(part) >= 0).all() and len(np.unique(part)) == len(cut) + 1
    files = index.part_names(cut)
    assert len(set(files)) == len(files) == len(cut) + 1

    # A new name falls in one part, and the others keep their names and members.
    more = np.sort(np.append(names, "object_02345x"))
    cut_again = index.cuts(more, 500)
    assert set(cut) <= set(cut_again) <= {*cut, "object_02345x"}
    members = dict(zip(index.part_names(cut_again), range(len(cut_again) + 1), strict=True))
    again = index.part_of(more, cut_again)
    same = [
        more[again == members[file]].tolist() == names[part == number].tolist()
        for number, file in enumerate(files)
    ]
    assert same.count(False) == 1
