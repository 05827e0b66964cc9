import numpy as np
import pytest

from luneta.cutouts.gather import corner, gather, over_edge


@pytest.mark.parametrize(
    ("position", "first"), [(100.0, 68), (100.49, 68), (100.5, 69), (99.51, 68), (0.2, -32)]
)
def test_corner_follows_the_convention(position, first):
    assert corner(np.array([position]), 64)[0] == first


def test_stamps_are_what_slicing_gives():
    image = np.arange(50 * 60, dtype=np.float32).reshape(50, 60)
    stamps = gather(image, np.array([30.2, 20.0]), np.array([25.0, 30.7]), 8)
    assert np.array_equal(stamps[0], image[21:29, 26:34])
    assert np.array_equal(stamps[1], image[27:35, 16:24])


def test_beyond_the_edge_is_filled_and_flagged():
    image = np.ones((50, 60), np.float32)
    x, y = np.array([2.0, 30.0, 59.0, 56.0]), np.array([25.0, 25.0, 49.0, 25.0])
    stamps = gather(image, x, y, 8)
    assert np.isnan(stamps).sum(axis=(1, 2)).tolist() == [2 * 8, 0, 64 - 5 * 5, 0]
    assert over_edge(image.shape, x, y, 8).tolist() == [True, False, True, False]


def test_same_pixels_as_astrocut_convention_on_a_point_source():
    image = np.zeros((40, 40), np.float32)
    image[17, 23] = 1
    stamp = gather(image, np.array([23.3]), np.array([16.8]), 10)[0]
    assert np.argwhere(stamp).tolist() == [[5, 5]]


@pytest.mark.parametrize(
    ("size", "factor", "first", "last"),
    [(8, 1.0, 4, 46), (9, 1.0, 4, 45), (8, 3.0, 12, 40), (9, 3.0, 12, 37), (8, 0.5, 2, 47)],
)
def test_a_resampled_stamp_reaches_over_the_edge_with_its_outermost_pixel(
    size, factor, first, last
):
    x = np.arange(50.0)
    over = over_edge((200, 50), x, np.full(50, 100.0), size, factor)
    assert np.flatnonzero(~over).tolist() == list(range(first, last + 1))
