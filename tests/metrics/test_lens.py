"""Scores of lens finding, each edge of the definitions of Metcalf et al. (2019) by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luneta.metrics import lens
from luneta.metrics.ranking import ranked


def falling(labels):
    """Labels in the order of falling, distinct scores."""
    return np.array(labels), np.arange(len(labels), 0, -1.0)


def test_tpr0_counts_lenses_before_the_first_false_positive():
    assert lens.tpr0(*falling([1, 1, 0, 1, 1])) == 0.5
    assert lens.tpr0(*falling([0, 1, 1, 1, 1])) == 0
    assert lens.tpr0(*falling([1, 1, 1, 0, 0])) == 1


def test_tpr10_allows_nine_false_positives():
    # one lens before each non-lens: nine of them pass, the tenth does not
    labels, score = falling([1, 0] * 12)
    assert lens.tpr0(labels, score) == pytest.approx(1 / 12)
    assert lens.tpr10(labels, score) == pytest.approx(10 / 12)
    # the lens behind the ninth false positive counts, that behind the tenth does not
    assert lens.tpr10(*falling([0] * 9 + [1] + [0] + [1] * 3)) == 0.25


def test_a_tie_at_the_top_is_accepted_as_a_whole():
    assert lens.tpr0([1, 0, 1, 0], [1.0, 1.0, 0.5, 0.0]) == 0
    assert lens.tpr0([1, 1, 0, 0], [1.0, 1.0, 0.5, 0.0]) == 1
    # lenses above the tie still count
    assert lens.tpr0([1, 1, 0, 0], [1.0, 0.9, 0.9, 0.0]) == 0.5


def test_discrete_scores():
    """An inspector who says yes or no: ten false positives in "yes" give zero for both."""
    labels = [1] * 60 + [0] * 10 + [1] * 40 + [0] * 90
    answers = [1] * 70 + [0] * 130
    assert (lens.tpr0(labels, answers), lens.tpr10(labels, answers)) == (0, 0)
    labels[60] = 1  # nine false positives, and 61 of 101 lenses
    assert (lens.tpr0(labels, answers), lens.tpr10(labels, answers)) == (0, 61 / 101)


def test_a_tie_that_jumps_over_ten_false_positives():
    # 4 lenses and 8 non-lenses are certain, the next score holds 3 lenses and 2 non-lenses
    labels = [1] * 4 + [0] * 8 + [1] * 3 + [0] * 2 + [1] * 3
    score = [0.9] * 12 + [0.8] * 5 + [0.1] * 3
    assert lens.tpr10(labels, score) == 0.4


def test_few_non_lenses_or_none():
    assert lens.tpr10(*falling([0] * 9 + [1, 1])) == 1
    assert lens.tpr10(*falling([0] * 10 + [1, 1])) == 0
    assert np.isnan(lens.tpr0(*falling([1, 1, 1])))
    assert np.isnan(lens.tpr10(*falling([0, 0, 0])))
    assert np.isnan(lens.tpr0([], []))


def test_false_positives_must_be_one_or_more():
    with pytest.raises(ValueError, match=r"false_positives is 0.*Use 1 for TPR0"):
        lens.true_positive_rate_before([1, 0], [1, 0], 0)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 8)), max_size=60),
    st.integers(1, 12),
)
def test_equals_a_search_over_thresholds(rows, allowed):
    rows += [(True, 4), (False, 4)]
    labels, score = (np.array(column) for column in zip(*rows, strict=True))
    rates = [0.0]
    for threshold in range(10):
        accepted = score >= threshold
        if np.sum(accepted & ~labels) < allowed:
            rates.append(np.sum(accepted & labels) / labels.sum())
    assert lens.true_positive_rate_before(labels, score, allowed) == max(rates)


def test_order_of_objects_is_irrelevant():
    random = np.random.default_rng(0)
    labels, score = random.random(500) < 0.3, random.integers(0, 50, 500)
    shuffled = random.permutation(500)
    assert lens.tpr10(labels, score) == lens.tpr10(labels[shuffled], score[shuffled])


def test_completeness_at_a_false_positive_rate():
    # of 100 non-lenses, two in a hundred are allowed: the third ends it
    labels, score = falling([1, 0, 1, 0, 1, 0, 1] + [0] * 97)
    point = lens.at_false_positive_rate(ranked(labels, score), 0.02)
    assert point == (score[4], 3, 2, 0.75, 0.02, 0.6)
    assert lens.completeness_at_false_positive_rate(labels, score, 0.02) == 0.75
    assert lens.completeness_at_false_positive_rate(labels, score, 0.0199) == 0.5
    assert lens.completeness_at_false_positive_rate(labels, score, 0) == 0.25


@pytest.mark.parametrize("hundredths", [7, 29, 57, 58])
def test_a_rate_is_reached_in_spite_of_rounding(hundredths):
    labels, score = falling([0] * hundredths + [1] + [0] * (100 - hundredths))
    rate = hundredths / 100
    assert lens.completeness_at_false_positive_rate(labels, score, rate) == 1


def test_nothing_can_be_accepted():
    point = lens.at_false_positive_rate(ranked([0, 1, 0], [1, 1, 0]), 0.01)
    assert point[:5] == (np.inf, 0, 0, 0, 0)
    assert np.isnan(point.purity)
    no_negatives = lens.at_false_positive_rate(ranked([1, 1], [1, 0]), 0.01)
    assert np.isnan(no_negatives.completeness)


def test_purity_at_completeness():
    labels, score = falling([1, 0, 1, 1, 0, 0, 1, 0])
    assert lens.purity_at_completeness(labels, score, 0.25) == 1
    assert lens.purity_at_completeness(labels, score, 0.26) == pytest.approx(2 / 3)
    assert lens.purity_at_completeness(labels, score, 0.75) == 0.75
    assert lens.purity_at_completeness(labels, score, 1) == pytest.approx(4 / 7)
    point = lens.at_completeness(ranked(labels, score), 0.75)
    assert point == (score[3], 3, 1, 0.75, 0.25, 0.75)
    assert np.isnan(lens.purity_at_completeness([0, 0], [1, 0], 0.5))


@pytest.mark.parametrize("wrong", [0, 50, -0.1])
def test_completeness_is_a_fraction(wrong):
    with pytest.raises(ValueError, match="above 0 and at most 1"):
        lens.at_completeness(ranked([1, 0], [1, 0]), wrong)


def test_weights_are_repetitions():
    random = np.random.default_rng(5)
    labels, score = random.random(120) < 0.4, random.integers(0, 40, 120)
    weights = random.integers(0, 3, (6, 120))
    for measure in (
        lens.tpr0,
        lens.tpr10,
        lambda *a: lens.completeness_at_false_positive_rate(*a[:2], 0.1, *a[2:]),
        lambda *a: lens.purity_at_completeness(*a[:2], 0.5, *a[2:]),
    ):
        expected = [measure(np.repeat(labels, w), np.repeat(score, w)) for w in weights]
        assert measure(labels, score, weights) == pytest.approx(expected)


def test_contamination_on_the_sky():
    """One lens in 1000 galaxies, a false-positive rate of 0.1 per cent, half of them found."""
    assert lens.contamination(0.001, 0.5, 1e-3) == pytest.approx(0.002 * 999)
    # the sample itself: FP/TP is that of the counts
    assert lens.contamination(20 / 400, 60 / 100, 100 / 500) == pytest.approx(20 / 60)
    assert lens.contamination(0.0, 0.5, 1e-3) == 0
    assert np.isnan(lens.contamination(0.1, 0.0, 1e-3))
    assert np.isnan(lens.contamination(0.1, 0.5, 0.0))
