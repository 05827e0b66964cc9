import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from luneta.metrics import ranking as r

TIED = st.lists(st.tuples(st.booleans(), st.integers(-2, 3)), max_size=30)


def columns(rows):
    positive, score = zip(*[*rows, (True, 1), (False, 0)], strict=True)
    return np.array(positive), np.array(score, float)


def test_a_ranking_by_hand():
    ranking = r.ranked([1, 0, 1, 0, 1], [0.9, 0.9, 0.5, 0.2, 0.1])
    np.testing.assert_array_equal(ranking.thresholds, [np.inf, 0.9, 0.5, 0.2, 0.1])
    np.testing.assert_array_equal(ranking.true, [0, 1, 2, 2, 3])
    np.testing.assert_array_equal(ranking.false, [0, 1, 1, 2, 2])
    assert (ranking.positives, ranking.negatives) == (3, 2)
    # pairs: 0.9 with (0.9, 0.2) 1/2 + 1, 0.5 with (0.9, 0.2) 0 + 1, 0.1 none
    assert r.area_under_roc(ranking) == pytest.approx(2.5 / 6)
    assert r.roc_auc([1, 0, 1, 0, 1], [0.9, 0.9, 0.5, 0.2, 0.1]) == pytest.approx(2.5 / 6)
    # precision 1/2, 2/3 and 3/5 as the first, second and third positive object is reached
    expected = (1 / 2 + 2 / 3 + 3 / 5) / 3
    assert r.area_under_precision_recall(ranking) == pytest.approx(expected)


@settings(deadline=None, max_examples=80)
@given(TIED)
def test_curves_and_areas_agree_with_sklearn(rows):
    positive, score = columns(rows)
    area = metrics.roc_auc_score(positive, score)
    assert r.roc_auc(positive, score) == pytest.approx(area)
    assert r.area_under_roc(r.ranked(positive, score)) == pytest.approx(area)
    assert r.average_precision(positive, score) == pytest.approx(
        metrics.average_precision_score(positive, score)
    )
    fpr, tpr, thresholds = metrics.roc_curve(positive, score, drop_intermediate=False)
    for found, expected in zip(r.roc(positive, score), (thresholds, fpr, tpr), strict=True):
        np.testing.assert_allclose(found, expected)
    precision, recall, thresholds = metrics.precision_recall_curve(positive, score)
    expected = thresholds[::-1], precision[-2::-1], recall[-2::-1]
    for found, curve in zip(r.precision_recall(positive, score), expected, strict=True):
        np.testing.assert_allclose(found, curve)


def test_scores_without_ties_and_with_infinities():
    random = np.random.default_rng(1)
    positive, score = random.random(3000) < 0.1, random.normal(size=3000)
    assert r.roc_auc(positive, score) == pytest.approx(metrics.roc_auc_score(positive, score))
    assert r.roc_auc([1, 0, 1], [np.inf, 0, -np.inf]) == 0.5


def test_a_class_without_objects_gives_nan():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for positive in (np.zeros(3, bool), np.ones(3, bool), np.zeros(0, bool)):
            score = np.arange(len(positive))
            assert np.isnan(r.roc_auc(positive, score))
            assert np.isnan(r.area_under_roc(r.ranked(positive, score)))
        assert np.isnan(r.average_precision([0, 0], [1, 2]))
        assert r.average_precision([1, 1], [1, 2]) == 1
        _, false_rate, true_rate = r.roc([0, 0], [1, 2])
        np.testing.assert_array_equal(false_rate, [0, 0.5, 1])
        assert np.isnan(true_rate).all()


def test_one_against_rest():
    random = np.random.default_rng(2)
    labels, probabilities = random.integers(0, 3, 200), random.dirichlet([1, 1, 1], 200)
    expected = [metrics.roc_auc_score(labels == k, probabilities[:, k]) for k in range(3)]
    assert r.one_against_rest_auc(labels, probabilities) == pytest.approx(expected)
    assert r.macro_roc_auc(labels, probabilities) == pytest.approx(
        metrics.roc_auc_score(labels, probabilities, multi_class="ovr")
    )
    two = labels != 2
    found = r.one_against_rest_auc(labels[two], probabilities[two])
    assert np.isnan(found[2])
    assert r.macro_roc_auc(labels[two], probabilities[two]) == pytest.approx(found[:2].mean())


@settings(deadline=None, max_examples=40)
@given(TIED, st.integers(0, 1000))
def test_weights_are_repetitions(rows, seed):
    positive, score = columns(rows)
    weights = np.random.default_rng(seed).integers(0, 3, (4, len(score)))
    for area in (r.roc_auc, r.average_precision):
        expected = [area(np.repeat(positive, w), np.repeat(score, w)) for w in weights]
        assert area(positive, score, weights) == pytest.approx(expected, nan_ok=True)
