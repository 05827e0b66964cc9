import numpy as np
import pytest

from luneta.metrics.checks import checked, checked_score


@pytest.mark.parametrize(
    ("labels", "probabilities", "words"),
    [
        ([0, 1], [[0.5, 0.5]], r"labels have shape \(2,\) and probabilities \(1, 2\)"),
        ([0], [0.5], r"probabilities \(1,\); they must be"),
        ([0, 2], [[0.5, 0.5]] * 2, r"from 0 to 1.* 1 of 2 objects, the first is number 1, 2\."),
        ([-1], [[0.5, 0.5]], r"from 0 to 1.* the first is number 0, -1\."),
        ([np.nan, 1], [[0.5, 0.5]] * 2, r"from 0 to 1.* 1 of 2 .* the first is number 0, nan\."),
        ([0.5, 1], [[0.5, 0.5]] * 2, r"from 0 to 1.* 1 of 2 .* the first is number 0, 0\.5\."),
        ([0], [[3.2, -1.0]], r"between 0 and 1: 1 of 1 .*\[3.2, -1.0\].*softmax"),
        ([0, 0], [[1, 0], [np.nan, 0]], r"1 of 2 objects, the first is number 1, \[nan, 0.0\]"),
    ],
)
def test_bad_input_is_refused(labels, probabilities, words):
    with pytest.raises(ValueError, match=words):
        checked(np.array(labels), np.array(probabilities))


def test_bad_scores_are_refused():
    with pytest.raises(ValueError, match=r"labels have shape \(2,\) and scores \(2, 2\)"):
        checked_score([0, 1], [[0.1, 0.9]] * 2)
    with pytest.raises(ValueError, match="scores must not be NaN: 2 of 3 objects"):
        checked_score([0, 1, 1], [0.1, np.nan, np.nan])


@pytest.mark.parametrize("wrong", [2, -1, 0.5, np.nan])
def test_labels_that_are_neither_yes_nor_no_are_refused(wrong):
    with pytest.raises(ValueError, match=rf"0 or 1, or bool: 1 of 2 .* number 1, {wrong}\."):
        checked_score([1, wrong], [0.1, 0.9])


def test_yes_and_no_may_be_of_any_type():
    for kind in (bool, int, float):
        assert checked_score(np.array([1, 0], kind), [0.1, 0.9])[0].tolist() == [True, False]
        assert checked(np.array([1, 0], kind), [[0.5, 0.5]] * 2)[0].tolist() == [1, 0]


def test_rounding_of_half_precision_passes():
    checked([0], [[1 + 5e-7, -5e-7]])
