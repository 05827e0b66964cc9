import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score

from luneta.clustering.space import Space, by_size

SETTINGS = {"components": 5, "method": "hdbscan", "groups": 3, "smallest_group": 15}


@pytest.fixture(scope="module")
def blobs():
    """Three groups of 120, 80 and 40 objects in 12 dimensions, and one object far from all."""
    random = np.random.default_rng(0)
    centres = random.normal(0, 8, (3, 12))
    features, truth = make_blobs([120, 80, 40], centers=centres, random_state=1)
    features = np.concatenate([features, np.full((1, 12), 60.0)]).astype("float32")
    return features, truth


@pytest.mark.parametrize("method", ["hdbscan", "kmeans"])
def test_groups_are_found_and_numbered_by_size(blobs, method):
    features, truth = blobs
    space = Space(features[:-1], {**SETTINGS, "method": method}, 1)
    assert adjusted_rand_score(truth, space.group) > 0.95
    sizes = np.bincount(space.group[space.group >= 0])
    assert list(sizes) == sorted(sizes, reverse=True) and len(sizes) == 3


def test_anomaly_score_is_highest_for_the_one_far_from_all(blobs):
    features, _ = blobs
    places = Space(features, SETTINGS, 1).place(features)
    assert places.anomaly.argmax() == 240
    assert 0 < places.anomaly.min() < 0.5 < places.anomaly.max() <= 1


def test_objects_of_the_sample_keep_their_place_and_others_join_the_nearest(blobs):
    features, truth = blobs
    space = Space(features[:240:2], {**SETTINGS, "smallest_group": 10}, 1)
    places = space.place(features[:240])
    np.testing.assert_array_equal(places.map[::2], space.map)
    np.testing.assert_array_equal(places.group[::2], space.group)
    assert adjusted_rand_score(truth[1::2], places.group[1::2]) > 0.95
    np.testing.assert_allclose(places.components[::2], space.sample, atol=1e-4)


def test_two_fits_are_the_same(blobs):
    features, _ = blobs
    first, second = (Space(features, SETTINGS, 5).place(features) for _ in range(2))
    for name in ("components", "map", "group", "anomaly"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_numbering():
    assert by_size(np.array([7, 7, -1, 3, 3, 3, 9])).tolist() == [1, 1, -1, 0, 0, 0, 2]


def test_features_of_any_scale_are_told_apart(blobs):
    features, _ = blobs
    tiny = 1e-6 * features[:240]
    space = Space(tiny[::2], {**SETTINGS, "smallest_group": 10}, 1)
    places = space.place(tiny)
    known = {tuple(point) for point in space.map.tolist()}
    assert sum(tuple(point) in known for point in places.map[1::2].tolist()) < 12
