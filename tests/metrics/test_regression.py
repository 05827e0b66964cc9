import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from luneta.metrics import regression as r


def test_errors_by_hand():
    truth, predicted = [1.0, 2.0, 3.0, 4.0], [1.5, 1.0, 3.0, 6.0]
    assert r.mean_squared_error(truth, predicted) == pytest.approx((0.25 + 1 + 0 + 4) / 4)
    assert r.mean_absolute_error(truth, predicted) == pytest.approx(3.5 / 4)
    assert r.bias(truth, predicted) == pytest.approx(1.5 / 4)
    # sorted errors 0, 0.5, 1, 2; position 3 * 0.68 = 2.04
    assert r.error_68(truth, predicted) == pytest.approx(1.04)


def test_68_per_cent_error_of_a_normal_error_is_its_sigma():
    error = np.random.default_rng(0).normal(0, 0.03, 200_000)
    assert r.error_68(np.zeros(200_000), error) == pytest.approx(0.03, rel=0.01)
    # a pure bias counts in full
    assert r.error_68(np.zeros(5), np.full(5, 0.2)) == pytest.approx(0.2)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=30))
def test_agrees_with_sklearn(pairs):
    truth, predicted = np.array(pairs).T
    assert r.mean_squared_error(truth, predicted) == pytest.approx(
        metrics.mean_squared_error(truth, predicted)
    )
    assert r.mean_absolute_error(truth, predicted) == pytest.approx(
        metrics.mean_absolute_error(truth, predicted)
    )


def test_unknown_truth_is_left_out_and_a_failed_prediction_is_not():
    truth = np.array([[1.0, np.nan], [3.0, 2.0]])
    assert r.mean_absolute_error(truth, [[2.0, 9.0], [3.0, 5.0]]).tolist() == [0.5, 3]
    assert r.error_68(truth, [[2.0, np.nan], [3.0, 5.0]]).tolist() == [0.68, 3]
    broken = np.array([[np.nan, 0.0], [3.0, 5.0]])
    for score in (r.mean_squared_error, r.mean_absolute_error, r.bias, r.error_68):
        found = score(truth, broken)
        assert np.isnan(found[0])
        assert np.isfinite(found[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(r.bias([np.nan], [1.0]))
        assert np.isnan(r.error_68([np.nan], [1.0]))
        assert np.isnan(r.mean_squared_error([], []))


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"truth has shape \(3,\) and prediction \(3, 1\)"):
        r.bias(np.zeros(3), np.zeros((3, 1)))


def test_coverage_by_hand():
    truth = [0.0, 1.0, 2.0, 3.0, np.nan]
    assert r.coverage(truth, [0, 2, 1, 3, 0], [1, 3, 3, 3, 1]) == 0.75
    # a failed prediction is missed
    assert r.coverage([0.0, 0.0], [-1, np.nan], [1, np.nan]) == 0.5


def test_normal_coverage_is_one_two_and_three_sigma():
    truth = np.array([0.99, -1.02, 1.99, -2.01, 2.9, -3.1])
    found = r.normal_coverage(truth, np.zeros(6), np.ones(6))
    assert list(found.values()) == pytest.approx([1 / 6, 3 / 6, 5 / 6])
    assert list(found) == [0.683, 0.955, 0.997]


def test_honest_uncertainties_cover_as_promised():
    random = np.random.default_rng(1)
    truth = random.normal(size=(40_000, 2))
    normal = r.normal_coverage(truth, np.zeros_like(truth), np.ones_like(truth))
    samples = r.sample_coverage(truth[:2000], random.normal(size=(2000, 2000, 2)))
    for level in r.LEVELS:
        assert normal[level] == pytest.approx(level, abs=0.007)
        assert samples[level] == pytest.approx(level, abs=0.03)


def test_sample_coverage_by_hand():
    samples = np.arange(101.0)[:, None] + [0, 1000]  # quantiles 25 and 75 of two objects
    assert r.sample_coverage([25.0, 1024.9], samples, [0.5]) == {0.5: 0.5}


def test_ellipticity_takes_the_better_sign():
    truth = np.array([[1.0, 0.3, 0.2, 0.0, 0.0], [1.0, 0.3, 0.2, 0.0, 0.0], [1.0, 0.3, -0.2, 0, 0]])
    predicted = np.array(
        [[1.1, -0.3, -0.1, 0.1, 0.2], [1.1, 0.3, 0.1, 0, 0], [1, -0.1, -0.3, 0, 0]]
    )
    found = r.with_better_ellipticity_sign(truth, predicted)
    # third: kept 0.16 + 0.01, turned 0.04 + 0.25, so it is kept; only e_x, e_y ever turn
    expected = [[1.1, 0.3, 0.1, 0.1, 0.2], [1.1, 0.3, 0.1, 0, 0], [1, -0.1, -0.3, 0, 0]]
    np.testing.assert_array_equal(found, expected)
    assert predicted[0, 1] == -0.3
    never = r.with_better_ellipticity_sign(np.zeros((1, 5)), np.ones((1, 5)))
    np.testing.assert_array_equal(never, np.ones((1, 5)))


def test_the_better_sign_never_raises_the_loss():
    random = np.random.default_rng(2)
    truth, predicted = random.normal(size=(2, 300, 5))
    turned = predicted * [1, -1, -1, 1, 1]
    both = [((p - truth) ** 2).mean(axis=1) for p in (predicted, turned)]
    found = r.with_better_ellipticity_sign(truth, predicted)
    np.testing.assert_allclose(((found - truth) ** 2).mean(axis=1), np.minimum(*both))
