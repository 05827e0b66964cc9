import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from luneta.metrics import counts as c


def table(labels, predicted, classes):
    return c.confusion(labels, np.eye(classes)[predicted])


def test_counts_at_a_threshold():
    positive = [1, 1, 1, 0, 0, 0, 0]
    score = [0.9, 0.5, 0.1, 0.8, 0.5, 0.4, 0.0]
    assert c.counts_at(positive, score) == (2, 2, 2, 1)
    assert c.counts_at(positive, score, strict=True) == (1, 1, 3, 2)
    assert c.counts_at(positive, score, threshold=0.0) == (3, 4, 0, 0)
    assert c.counts_at(positive, score, threshold=1.0) == (0, 0, 4, 3)
    assert c.counts_at([], []) == (0, 0, 0, 0)
    np.testing.assert_array_equal(c.table_of(c.Counts(2, 3, 5, 7)), [[5, 3], [7, 2]])


def test_a_score_of_nan_is_refused():
    with pytest.raises(ValueError, match=r"1 of 3 objects, the first is number 2"):
        c.counts_at([1, 0, 0], [0.1, 0.2, np.nan])


def test_binary_scores_by_hand():
    matrix = c.table_of(c.Counts(90, 20, 870, 20))  # TP, FP, TN, FN of 1000
    assert c.accuracy(matrix) == 0.96
    assert c.precision(matrix)[1] == pytest.approx(90 / 110)
    assert c.recall(matrix)[1] == pytest.approx(90 / 110)
    assert c.balanced_accuracy(matrix) == pytest.approx((90 / 110 + 870 / 890) / 2)
    assert c.f_beta(matrix)[1] == pytest.approx(180 / 220)
    assert c.f_beta(c.table_of(c.Counts(3, 1, 5, 2)), beta=2)[1] == pytest.approx(15 / 24)
    # chance: (110 * 110 + 890 * 890) / 1000²
    assert c.cohen_kappa(matrix) == pytest.approx((0.96 - 0.8042) / (1 - 0.8042))
    assert c.matthews(matrix) == pytest.approx((90 * 870 - 20 * 20) / (110 * 890))


def test_kappa_of_three_classes_by_hand():
    """Agreement 140 / 200, by chance (100 * 120 + 60 * 60 + 40 * 20) / 200² = 0.41."""
    matrix = [[88, 10, 2], [14, 40, 6], [18, 10, 12]]
    assert c.accuracy(matrix) == pytest.approx(0.7)
    assert c.cohen_kappa(matrix) == pytest.approx((0.7 - 0.41) / 0.59)


def test_class_counts():
    counts = c.class_counts([[5, 1, 0], [2, 3, 0], [1, 1, 7]])
    np.testing.assert_array_equal(counts.true_positive, [5, 3, 7])
    np.testing.assert_array_equal(counts.false_positive, [3, 2, 0])
    np.testing.assert_array_equal(counts.true_negative, [11, 13, 11])
    np.testing.assert_array_equal(counts.false_negative, [1, 2, 2])


@settings(deadline=None, max_examples=80)
@given(
    st.integers(2, 5).flatmap(
        lambda k: st.tuples(
            st.just(k),
            st.lists(
                st.tuples(st.integers(0, k - 1), st.integers(0, k - 1)), min_size=1, max_size=40
            ),
        )
    )
)
def test_agrees_with_sklearn(case):
    classes, pairs = case
    labels, predicted = np.array(pairs).T
    matrix = table(labels, predicted, classes)
    np.testing.assert_array_equal(
        matrix, metrics.confusion_matrix(labels, predicted, labels=range(classes))
    )
    options = {"labels": range(classes), "average": None, "zero_division": np.nan}
    for found, reference in [
        (c.precision(matrix), metrics.precision_score(labels, predicted, **options)),
        (c.recall(matrix), metrics.recall_score(labels, predicted, **options)),
        (c.f_beta(matrix, 0.5), metrics.fbeta_score(labels, predicted, beta=0.5, **options)),
    ]:
        np.testing.assert_allclose(found, reference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of classes that do not occur
        balanced = metrics.balanced_accuracy_score(labels, predicted)
        kappa = metrics.cohen_kappa_score(labels, predicted, labels=range(classes))
    assert c.accuracy(matrix) == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert c.balanced_accuracy(matrix) == pytest.approx(balanced)
    assert c.macro_f1(matrix) == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert c.cohen_kappa(matrix) == pytest.approx(kappa, nan_ok=True)
    if len(set(labels)) > 1:
        assert c.matthews(matrix) == pytest.approx(metrics.matthews_corrcoef(labels, predicted))


def test_what_cannot_be_computed_is_nan():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one_class = table([1, 1, 1], [1, 1, 1], 2)
        assert np.isnan(c.cohen_kappa(one_class))
        assert np.isnan(c.matthews(one_class))
        assert np.isnan(c.matthews(table([1, 1], [0, 1], 2)))
        np.testing.assert_array_equal(c.recall(one_class), [np.nan, 1])
        assert c.balanced_accuracy(one_class) == 1
        empty = np.zeros((3, 3), int)
        for score in (c.accuracy, c.balanced_accuracy, c.macro_f1, c.cohen_kappa, c.matthews):
            assert np.isnan(score(empty))


def test_one_predicted_class_is_uncorrelated():
    assert c.matthews(table([0, 1, 1], [1, 1, 1], 2)) == 0


def test_equal_probabilities_go_to_the_first_class():
    np.testing.assert_array_equal(c.confusion([0, 1], [[0.5, 0.5]] * 2), [[1, 0], [1, 0]])


def test_weights_are_repetitions():
    random = np.random.default_rng(3)
    labels, probabilities = random.integers(0, 3, 50), random.dirichlet([1, 1, 1], 50)
    weights = random.integers(0, 4, (2, 50))
    found = c.confusion(labels, probabilities, weights)
    for row, matrix in zip(weights, found, strict=True):
        rows = np.repeat(np.arange(50), row)
        np.testing.assert_array_equal(matrix, c.confusion(labels[rows], probabilities[rows]))
    assert c.matthews(found).shape == (2,)
