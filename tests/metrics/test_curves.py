import numpy as np
import pytest
from sklearn import metrics

from luneta.metrics import curves


def made(objects=400):
    random = np.random.default_rng(0)
    positive = random.random(objects) < 0.5
    return positive, random.normal(1.5 * positive)


def test_band_on_each_threshold_by_hand():
    band = curves.over_folds([[0, 1, 5], [1, 1, np.nan], [2, 1, np.nan], [7, 1, np.nan]])
    np.testing.assert_allclose(band.mean, [2.5, 1, 5])
    np.testing.assert_allclose(band.median, [1.5, 1, 5])
    # deviations -2.5, -1.5, -0.5, 4.5: squares sum to 29
    np.testing.assert_allclose(band.std, [np.sqrt(29 / 3), 0, np.nan])
    # positions 3 * 0.1587 = 0.4761 and 3 * 0.8413 = 2.5239 between the sorted folds
    np.testing.assert_allclose(band.low, [0.4761, 1, 5])
    np.testing.assert_allclose(band.high, [2 + 0.5239 * 5, 1, 5])


def test_folds_without_any_value_give_nan():
    band = curves.over_folds([[np.nan], [np.nan]])
    assert np.isnan(band).all()


def test_the_course_accepts_above_the_threshold():
    thresholds = curves.course_thresholds()
    assert (thresholds[0], thresholds[-1], len(thresholds)) == (1, 0, 1000)
    positive, score = [1, 1, 0, 0], [1.0, 0.5, 0.5, 0.0]
    false_rate, true_rate = curves.roc_on_thresholds(positive, score, [1, 0.5, 0], strict=True)
    np.testing.assert_array_equal(true_rate, [0, 0.5, 1])
    np.testing.assert_array_equal(false_rate, [0, 0, 0.5])
    false_rate, true_rate = curves.roc_on_thresholds(positive, score, [1, 0.5, 0])
    np.testing.assert_array_equal(true_rate, [0.5, 1, 1])
    np.testing.assert_array_equal(false_rate, [0, 0.5, 1])
    precision, _ = curves.precision_recall_on_thresholds(positive, score, [1, 0.5], strict=True)
    np.testing.assert_array_equal(precision, [np.nan, 1])


def test_roc_over_folds_is_that_of_each_fold():
    random = np.random.default_rng(0)
    positive, folds = random.random(300) < 0.4, np.arange(300) % 5
    score = np.clip(random.normal(0.4 + 0.2 * positive, 0.2), 0, 1)
    thresholds = curves.course_thresholds(50)
    false_rate, true_rate = curves.roc_over_folds(positive, score, folds, thresholds, strict=True)
    expected = np.array(
        [[np.mean(score[positive & (folds == fold)] > t) for t in thresholds] for fold in range(5)]
    )
    np.testing.assert_allclose(true_rate.mean, expected.mean(axis=0))
    np.testing.assert_allclose(true_rate.median, np.median(expected, axis=0))
    np.testing.assert_allclose(true_rate.std, expected.std(axis=0, ddof=1))
    np.testing.assert_allclose(true_rate.high, np.percentile(expected, 84.13, axis=0))
    assert false_rate.mean[0] == 0
    assert np.all(np.diff(false_rate.mean) >= 0)


@pytest.mark.parametrize("lenses", [200, 10_000])
def test_small_false_positive_rates_are_resolved(lenses):
    random = np.random.default_rng(2)
    positive = np.arange(20_000) < lenses
    score = random.normal(2.5 * positive)
    found, true = curves.roc_over_folds(positive, score, np.zeros(20_000, int))
    for rate in (1e-2, 1e-3, 5e-4, 2e-4):
        limit = np.sort(score[~positive])[::-1][round(rate * (20_000 - lenses))]
        exact = np.mean(score[positive] > limit)
        at = np.interp(np.log(rate), np.log(np.maximum(found.mean, 1e-9)), true.mean)
        assert at == pytest.approx(exact, abs=0.02), rate
    inside = (found.mean > 1.5e-4) & (found.mean < 1e-3)
    assert len(np.unique(found.mean[inside])) >= 8


def test_a_fold_without_positives_is_left_out_of_their_rate():
    positive, folds = np.array([1, 0, 0, 0]), np.array([0, 0, 1, 1])
    score = np.array([0.9, 0.1, 0.8, 0.2])
    false_rate, true_rate = curves.roc_over_folds(positive, score, folds, [0.5])
    assert true_rate.mean[0] == 1
    assert false_rate.mean[0] == 0.25


def test_scores_of_nan_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        curves.roc_on_thresholds([1, 0], [np.nan, 0], [0.5])


def test_roc_on_thresholds_agrees_with_sklearn():
    positive, score = made()
    fpr, tpr, thresholds = metrics.roc_curve(positive, score, drop_intermediate=False)
    found = curves.roc_on_thresholds(positive, score, thresholds)
    np.testing.assert_allclose(found[0], fpr)
    np.testing.assert_allclose(found[1], tpr)
    precision, recall, thresholds = metrics.precision_recall_curve(positive, score)
    found = curves.precision_recall_on_thresholds(positive, score, thresholds)
    np.testing.assert_allclose(found[0], precision[:-1])
    np.testing.assert_allclose(found[1], recall[:-1])


def test_common_thresholds_span_the_curve():
    positive, score = made()
    thresholds = curves.common_thresholds(score, count=51)
    assert np.all(np.diff(thresholds) < 0)
    fpr, tpr = curves.roc_on_thresholds(positive, score, thresholds)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_roc_without_positives_is_nan():
    fpr, tpr = curves.roc_on_thresholds(np.zeros(3, bool), np.arange(3.0), np.array([1.0]))
    assert fpr[0] == pytest.approx(2 / 3)
    assert np.isnan(tpr[0])


def test_mean_and_standard_error():
    folds = [{"a": 1.0, "b": np.nan}, {"a": 3.0, "b": 2.0}]
    mean, error = curves.mean_and_standard_error(folds)
    assert mean == {"a": 2.0, "b": 2.0}
    assert error["a"] == pytest.approx(np.std([1, 3], ddof=1) / np.sqrt(2))
    assert np.isnan(error["b"])
