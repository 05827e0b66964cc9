import numpy as np
import pytest

from luneta.training.uncertainty import entropy, summarise


def test_members_that_disagree_wholly():
    """Two sure members that say opposite things: all of ln 2 is disagreement."""
    got = summarise(np.array([[[1.0, 0.0]], [[0.0, 1.0]]]))
    np.testing.assert_array_equal(got.probability, [[0.5, 0.5]])
    np.testing.assert_array_equal(got.std, [[0.5, 0.5]])
    assert got.entropy[0] == pytest.approx(np.log(2))
    assert got.mutual_information[0] == pytest.approx(np.log(2))


def test_members_that_agree():
    got = summarise(np.array([[[0.3, 0.7]]] * 5))
    expected = -0.3 * np.log(0.3) - 0.7 * np.log(0.7)
    assert got.entropy[0] == pytest.approx(expected)
    assert got.mutual_information[0] == pytest.approx(0, abs=1e-12)
    assert got.mutual_information[0] >= 0
    assert got.chosen[0] == 1


def test_by_hand():
    """Members (1/2, 1/2) and (1, 0): mean (3/4, 1/4)."""
    got = summarise(np.array([[[0.5, 0.5]], [[1.0, 0.0]]]))
    total = 2 * np.log(2) - 0.75 * np.log(3)
    assert got.entropy[0] == pytest.approx(total)
    assert got.mutual_information[0] == pytest.approx(total - np.log(2) / 2)
    np.testing.assert_allclose(got.std, [[0.25, 0.25]])


def test_entropy_of_certainty_is_zero():
    np.testing.assert_array_equal(entropy(np.array([[0.0, 1.0, 0.0]])), [0.0])
