import warnings

import numpy as np
import pytest
from sklearn import metrics

from luneta.metrics import classification as c
from luneta.metrics.counts import confusion


def make(objects=400, classes=4, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, objects)
    logits = random.normal(size=(objects, classes)) + 1.5 * np.eye(classes)[labels]
    exponent = np.exp(logits)
    return labels, exponent / exponent.sum(axis=1, keepdims=True)


def test_multiclass_scores_agree_with_sklearn():
    labels, probabilities = make()
    predicted = probabilities.argmax(axis=1)
    found = c.scores(labels, probabilities, "multiclass")
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert found["balanced_accuracy"] == pytest.approx(
        metrics.balanced_accuracy_score(labels, predicted)
    )
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, probabilities))
    assert found["roc_auc"] == pytest.approx(
        metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    )
    np.testing.assert_array_equal(
        confusion(labels, probabilities), metrics.confusion_matrix(labels, predicted)
    )


def test_binary_scores_agree_with_sklearn():
    labels, probabilities = make(classes=2)
    predicted = probabilities[:, 1] >= 0.5
    found = c.scores(labels, probabilities, "binary")
    assert found["completeness"] == pytest.approx(metrics.recall_score(labels, predicted))
    assert found["purity"] == pytest.approx(metrics.precision_score(labels, predicted))
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(labels, probabilities[:, 1]))
    assert found["average_precision"] == pytest.approx(
        metrics.average_precision_score(labels, probabilities[:, 1])
    )


def test_scores_by_hand():
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])
    found = c.scores(labels, probabilities, "binary")
    assert found["accuracy"] == 0.75
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["completeness"] == 1.0
    assert found["purity"] == 0.5
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.3, 0.9]).mean())


def test_a_class_that_is_absent_is_left_out():
    labels, probabilities = make(classes=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        present = labels != 2
        found = c.scores(labels[present], probabilities[present], "multiclass")
        assert all(np.isfinite(v) for v in found.values())
        only = c.scores(labels[labels == 1], probabilities[labels == 1], "multiclass")
        assert np.isnan(only["roc_auc"])
        assert np.isfinite(only["accuracy"])
        negatives = c.scores(np.zeros(3, int), np.full((3, 2), 0.5), "binary")
        assert np.isnan(negatives["average_precision"])
        nothing = c.scores(np.zeros(0, int), np.zeros((0, 3)), "multiclass")
        assert np.isnan(nothing["accuracy"])


def test_the_rest_of_the_binary_scores_by_hand():
    # falling by the probability of class 1: + + - + - -
    labels = np.array([1, 1, 0, 1, 0, 0])
    positive = np.array([0.95, 0.9, 0.8, 0.6, 0.4, 0.1])
    found = c.scores(labels, np.column_stack([1 - positive, positive]), "binary")
    assert found["tpr0"] == pytest.approx(2 / 3)
    assert found["tpr10"] == 1
    assert found["completeness_at_fpr_0.01"] == pytest.approx(2 / 3)
    assert found["completeness_at_fpr_0.001"] == pytest.approx(2 / 3)
    assert found["purity_at_completeness_0.5"] == 1
    assert found["kappa"] == pytest.approx((5 / 6 - 1 / 2) / (1 / 2))
    assert found["mcc"] == pytest.approx((3 * 2 - 0 * 1) / np.sqrt(4 * 3 * 3 * 2))
    squares = [0.05**2, 0.1**2, 0.8**2, 0.4**2, 0.4**2, 0.1**2]
    assert found["brier"] == pytest.approx(np.mean(squares))


def test_tpr10_is_taken_at_nine_false_positives():
    labels = np.array([0] * 9 + [1, 0, 1])
    positive = np.linspace(0.9, 0.1, 12)
    found = c.scores(labels, np.column_stack([1 - positive, positive]), "binary")
    assert (found["tpr0"], found["tpr10"]) == (0, 0.5)


def test_every_score_is_described_and_in_order():
    for kind, classes in (("binary", 2), ("multiclass", 2), ("multiclass", 4)):
        names = list(c.scores(*make(classes=classes), kind))
        assert names == [name for name in c.DESCRIPTIONS if name in names]
    assert "top_2_accuracy" in names
    assert "top_2_accuracy" not in c.scores(*make(classes=2), "multiclass")


def test_accuracy_and_completeness_agree_at_probability_one_half():
    """Equal probabilities go to class 0, in every score."""
    found = c.scores([1, 1], [[0.5, 0.5], [0.4, 0.6]], "binary")
    assert found["accuracy"] == found["completeness"] == 0.5


def test_a_binary_task_has_two_columns():
    with pytest.raises(ValueError, match="two columns of probabilities, here are 3"):
        c.scores(*make(classes=3), "binary")


def test_logits_are_refused():
    with pytest.raises(ValueError, match="Apply softmax to logits"):
        c.scores([0], [[3.0, -2.0]], "binary")
