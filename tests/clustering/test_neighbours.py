import numpy as np
import pytest

from luneta.clustering.neighbours import among_others, nearest


def test_neighbours_on_a_line():
    rows, distances = nearest(np.array([[0.0], [1.0], [3.0], [7.0]], "float32"), 2, 100, 1)
    assert rows.tolist() == [[1, 2], [0, 2], [1, 0], [2, 1]]
    assert distances.tolist() == [[1, 3], [1, 2], [2, 3], [4, 6]]


def test_fewer_objects_than_neighbours():
    rows, _ = nearest(np.array([[0.0], [1.0]], "float32"), 10, 100, 1)
    assert rows.tolist() == [[1], [0]]
    assert nearest(np.zeros((1, 3), "float32"), 10, 100, 1)[0].shape == (1, 0)


@pytest.mark.slow  # the index is compiled first, for 20 s
def test_index_finds_what_the_exact_search_finds():
    points = np.random.default_rng(2).normal(size=(600, 4)).astype("float32")
    exact, distance = nearest(points, 5, 1000, 1)
    found, near = nearest(points, 5, 100, 1)
    same = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(exact, found, strict=True)])
    assert same > 0.97
    assert not (found == np.arange(600)[:, None]).any()
    np.testing.assert_allclose(np.median(near), np.median(distance), rtol=0.02)


def test_an_object_on_two_tiles_is_one_neighbour_and_none_of_its_own():
    points = np.array([[0.0], [0.1], [2.0], [2.3], [9.0]], "float32")
    names = np.array(["a", "a", "b", "b", "c"], object)
    rows, distances = nearest(points, 4, 100, 1)
    found = among_others(rows, distances, names, 2)
    assert [names[r].tolist() for r, _ in found] == [
        ["b", "c"], ["b", "c"], ["a", "c"], ["a", "c"], ["b", "a"],
    ]  # fmt: skip
    np.testing.assert_allclose(found[0][1], [2.0, 9.0])
