"""DeLong's interval: published numbers, a case by hand, and the definition in O(n²)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from luneta.metrics.delong import delong_covariance, delong_interval

# Patients after a haemorrhage (Turck et al. 2010), the example data of the R package pROC:
# S100b in 0.01 microgram per litre, by outcome (good, poor) and WFNS grade (1 to 5).
S100B = {
    (0, 1): "13 14 10 4 18 4 9 11 7 7 13 19 14 9 16 7 11 8 6 10 6 5 9 4 8 9 8 10 7 5 8 14 10 4 15 "
    "50 48",
    (0, 2): "10 10 8 4 17 11 43 9 8 13 14 15 9 16 11 7 10 15 19 15",
    (0, 3): "5 33 7",
    (0, 4): "16 34 45 28 32 38 47 17",
    (0, 5): "47 50 46 24",
    (1, 1): "7 8",
    (1, 2): "10 7 9 41 25 7 30 9 10 11 14 58",
    (1, 3): "13",
    (1, 4): "16 48 96 23 27 71 26 13",
    (1, 5): "12 44 71 49 33 35 86 52 207 77 3 70 22 56 32 82 74 44",
}


def patients():
    rows = [
        (outcome, grade, int(value))
        for (outcome, grade), values in S100B.items()
        for value in values.split()
    ]
    outcome, grade, s100b = np.array(rows).T
    return outcome == 1, grade, s100b


def by_definition(positive, first, second):
    """Covariance of two areas from the structural components, DeLong et al. (1988)."""

    def components(score):
        psi = [[(x > y) + 0.5 * (x == y) for y in score[~positive]] for x in score[positive]]
        return np.mean(psi, axis=1), np.mean(psi, axis=0)

    result = 0
    for one, other in zip(components(first), components(second), strict=True):
        products = (one - one.mean()) * (other - other.mean())
        result += products.sum() / (len(one) - 1) / len(one)
    return result


def test_published_variances_and_covariance():
    """Those in the tests of pROC: var(r.wfns), var(r.s100b), cov(r.s100b, r.wfns)."""
    poor, grade, s100b = patients()
    areas, covariance = delong_covariance(poor, [grade, s100b])
    assert areas == pytest.approx([0.8236789, 0.7313686], abs=1e-7)
    assert covariance[0, 0] == pytest.approx(0.00146991470882363, rel=1e-12)
    assert covariance[1, 1] == pytest.approx(0.00266868245717244, rel=1e-12)
    assert covariance[0, 1] == covariance[1, 0] == pytest.approx(0.00119615567376754, rel=1e-12)


def test_published_interval():
    """Of pROC: area 0.7314, 95% CI: 0.6301-0.8326 (DeLong)."""
    poor, _, s100b = patients()
    area = delong_interval(poor, s100b, level=0.95)
    assert (round(area.value, 4), round(area.low, 4), round(area.high, 4)) == (
        0.7314,
        0.6301,
        0.8326,
    )


def test_by_hand():
    # components of the positives 1 and 1/2, of the negatives 1/2 and 1: variance 1/8 each
    areas, covariance = delong_covariance([1, 0, 1, 0], [3, 2, 1, 0])
    assert areas == [0.75]
    assert covariance[0, 0] == pytest.approx(0.125 / 2 + 0.125 / 2)
    area = delong_interval([1, 0, 1, 0], [3, 2, 1, 0], level=0.6826894921370859)
    assert area.low == pytest.approx(0.75 - 0.125**0.5)
    assert area.high == 1


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(-3, 3)), max_size=40),
)
def test_equals_the_definition_with_ties(rows):
    rows += [(True, 1, 1), (True, 2, 0), (False, 1, 0), (False, 3, 3)]
    positive, first, second = (np.array(column) for column in zip(*rows, strict=True))
    areas, covariance = delong_covariance(positive, [first, second])
    assert areas == pytest.approx([roc_auc_score(positive, s) for s in (first, second)])
    assert covariance[0, 0] == pytest.approx(by_definition(positive, first, first), abs=1e-14)
    assert covariance[0, 1] == pytest.approx(by_definition(positive, first, second), abs=1e-14)


def test_too_few_objects():
    area = delong_interval([1, 0, 0], [3, 2, 5])
    assert area.value == 0.5
    assert np.isnan([area.low, area.high]).all()
    assert np.isnan(delong_interval([0, 0], [3, 2])).all()
    assert np.isnan(delong_interval([], [])).all()


def test_a_perfect_ranking_has_no_width():
    assert delong_interval([1, 1, 0, 0], [4, 3, 2, 1]) == (1, 1, 1)
