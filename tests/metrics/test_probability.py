import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from luneta.metrics import probability as p


def draw(seed, objects, classes):
    random = np.random.default_rng(seed)
    return random.integers(0, classes, objects), random.dirichlet(np.ones(classes), objects)


def test_log_loss_by_hand():
    labels, probabilities = [0, 1, 1], [[0.5, 0.5], [0.75, 0.25], [0, 1]]
    assert p.log_loss(labels, probabilities) == pytest.approx(np.log(8) / 3)
    # certain and wrong: the epsilon of float64 is 2**-52
    assert p.log_loss([0], [[0, 1]]) == pytest.approx(52 * np.log(2))


def test_brier_by_hand():
    assert p.brier([1, 0], [[0.2, 0.8], [0.7, 0.3]]) == pytest.approx((0.04 + 0.09) / 2)
    assert p.brier([2], [[0.5, 0.3, 0.2]]) == pytest.approx(0.25 + 0.09 + 0.64)
    assert p.brier([0], [[0, 1, 0]]) == 2
    assert p.brier([0], [[0, 1]]) == 1


def test_top_k_by_hand():
    labels = [0, 1, 2, 2]
    probabilities = [[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]
    assert [p.top_k_accuracy(labels, probabilities, k) for k in (1, 2, 3)] == [0.5, 0.75, 1]
    # of equal probabilities, the first columns lead
    assert p.top_k_accuracy([0, 1, 2], np.full((3, 3), 1 / 3), 2) == pytest.approx(2 / 3)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(3, 6))
def test_agrees_with_sklearn(seed, objects, classes):
    labels, probabilities = draw(seed, objects, classes)
    names = range(classes)
    assert p.log_loss(labels, probabilities) == pytest.approx(
        metrics.log_loss(labels, probabilities, labels=names)
    )
    assert p.brier(labels, probabilities) == pytest.approx(
        metrics.brier_score_loss(labels, probabilities, labels=names)
    )
    assert p.top_k_accuracy(labels, probabilities, 2) == pytest.approx(
        metrics.top_k_accuracy_score(labels, probabilities, k=2, labels=names)
    )


def test_binary_brier_agrees_with_sklearn():
    labels, probabilities = draw(4, 200, 2)
    assert p.brier(labels, probabilities) == pytest.approx(
        metrics.brier_score_loss(labels, probabilities[:, 1])
    )


def test_nothing_gives_nan():
    nothing = np.zeros(0, int), np.zeros((0, 3))
    assert np.isnan(p.log_loss(*nothing))
    assert np.isnan(p.brier(*nothing))
    assert np.isnan(p.top_k_accuracy(*nothing))


def test_calibration_error_is_the_sum_over_bins():
    labels, probabilities = draw(5, 500, 4)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    expected = 0
    for low in range(10):
        inside = (confidence > low / 10) & (confidence <= (low + 1) / 10)
        expected += abs(right[inside].sum() - confidence[inside].sum()) / 500
    assert p.expected_calibration_error(labels, probabilities, 10) == pytest.approx(expected)


def test_weights_are_repetitions():
    labels, probabilities = draw(6, 80, 3)
    weights = np.random.default_rng(7).integers(0, 3, (3, 80))
    for score in (p.log_loss, p.brier, p.top_k_accuracy, p.expected_calibration_error):
        found = score(labels, probabilities, weights=weights)
        for row, value in zip(weights, found, strict=True):
            rows = np.repeat(np.arange(80), row)
            assert value == pytest.approx(score(labels[rows], probabilities[rows]))


def test_calibration_error_by_hand():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.35, 0.65]])
    # bin of 0.9: three objects, two right; bin of 0.65: one object, right
    expected = 0.75 * abs(2 / 3 - 0.9) + 0.25 * abs(1 - 0.65)
    assert p.expected_calibration_error(labels, probabilities) == pytest.approx(expected)
    binned = p.reliability(labels, probabilities, bins=10)
    assert binned["count"].sum() == 4
    assert binned["accuracy"][8] == pytest.approx(2 / 3)
    assert np.isnan(binned["accuracy"][0])


def test_certain_and_right_is_perfectly_calibrated():
    labels = np.array([0, 1, 2])
    assert p.expected_calibration_error(labels, np.eye(3)) == 0
