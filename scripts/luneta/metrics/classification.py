"""Scores of a classifier, from labels and probabilities alone.

Class numbers count the columns of `probabilities`. In a binary task column 1 is the
positive class. A class that no object belongs to is left out of means over classes, and
a score that cannot be computed is NaN.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from luneta.metrics.checks import checked
from luneta.metrics.counts import (
    accuracy,
    balanced_accuracy,
    cohen_kappa,
    confusion,
    macro_f1,
    matthews,
    precision,
    recall,
)
from luneta.metrics.lens import at_completeness, at_false_positive_rate, reached_before
from luneta.metrics.probability import (
    brier,
    expected_calibration_error,
    log_loss,
    top_k_accuracy,
)
from luneta.metrics.ranking import (
    area_under_precision_recall,
    area_under_roc,
    macro_roc_auc,
    ranked,
)

__all__ = ["DESCRIPTIONS", "Kind", "scores"]

Kind = Literal["multiclass", "binary"]

DESCRIPTIONS = {
    "accuracy": "fraction of objects whose most probable class is right",
    "balanced_accuracy": "recall, mean over the classes",
    "macro_f1": "harmonic mean of precision and recall, mean over the classes",
    "log_loss": "cross-entropy in nat; lower is better",
    "roc_auc": "area under the ROC curve, each class against the rest; 0.5 is chance",
    "brier": "mean squared error of the probabilities; lower is better",
    "ece": "expected calibration error: mean gap between confidence and accuracy, 15 bins",
    "kappa": "Cohen's kappa: agreement beyond chance",
    "mcc": "Matthews correlation of truth and prediction",
    "top_2_accuracy": "fraction of objects whose class is among the two most probable",
    "average_precision": "area under the precision-recall curve, without interpolation",
    "completeness": "fraction of the positive objects found above probability 0.5",
    "purity": "fraction of the objects found above probability 0.5 that are positive",
    "tpr0": "highest completeness before a single false positive",
    "tpr10": "highest completeness with less than ten false positives",
    "completeness_at_fpr_0.01": "completeness where at most 1 in 100 negatives is accepted",
    "completeness_at_fpr_0.001": "completeness where at most 1 in 1000 negatives is accepted",
    "purity_at_completeness_0.5": "purity where half of the positive objects are found",
    "roc_auc_delong": "area under the ROC curve, interval after DeLong et al. (1988)",
}


def _binary_scores(labels, probabilities, table, weights) -> dict:
    ranking = ranked(labels == 1, probabilities[:, 1], weights)
    return {
        "roc_auc": area_under_roc(ranking),
        "average_precision": area_under_precision_recall(ranking),
        "completeness": recall(table)[..., 1],
        "purity": precision(table)[..., 1],
        "tpr0": reached_before(ranking, 1),
        "tpr10": reached_before(ranking, 10),
        "completeness_at_fpr_0.01": at_false_positive_rate(ranking, 0.01).completeness,
        "completeness_at_fpr_0.001": at_false_positive_rate(ranking, 0.001).completeness,
        "purity_at_completeness_0.5": at_completeness(ranking, 0.5).purity,
    }


def _many_class_scores(labels, probabilities, weights) -> dict:
    result = {"roc_auc": macro_roc_auc(labels, probabilities, weights)}
    if probabilities.shape[1] > 2:
        result["top_2_accuracy"] = top_k_accuracy(labels, probabilities, 2, weights)
    return result


def scores(labels, probabilities, kind: Kind, weights=None) -> dict:
    """Score predictions; `DESCRIPTIONS` says what each score is.

    Parameters
    ----------
    labels : array_like
        True class numbers, shape (objects,), int.
    probabilities : array_like
        Shape (objects, classes), float; rows sum to one.
    kind : {"multiclass", "binary"}
        Binary tasks get the scores of `metrics.lens`, `average_precision`, `completeness` and
        `purity` as well; the last two count objects above probability 0.5.
    weights : array_like, optional
        How often each object counts, whole numbers, shape (..., objects): the draws of a
        bootstrap.

    Returns
    -------
    dict
        A float for each name, or an array with the leading axes of the weights.

    Raises
    ------
    ValueError
        As `checks.checked`, or if a binary task has not two columns.
    """
    labels, probabilities = checked(labels, probabilities)
    if kind == "binary" and probabilities.shape[1] != 2:
        raise ValueError(
            f"a binary task has two columns of probabilities, here are {probabilities.shape[1]}. "
            'Give both classes, the positive one last, or use kind="multiclass".'
        )
    table = confusion(labels, probabilities, weights)
    result = {
        "accuracy": accuracy(table),
        "balanced_accuracy": balanced_accuracy(table),
        "macro_f1": macro_f1(table),
        "log_loss": log_loss(labels, probabilities, weights),
        "brier": brier(labels, probabilities, weights),
        "ece": expected_calibration_error(labels, probabilities, weights=weights),
        "kappa": cohen_kappa(table),
        "mcc": matthews(table),
    }
    if kind == "binary":
        result |= _binary_scores(labels, probabilities, table, weights)
    else:
        result |= _many_class_scores(labels, probabilities, weights)
    ordered = {name: result[name] for name in DESCRIPTIONS if name in result}
    return {name: float(v) if np.ndim(v) == 0 else v for name, v in ordered.items()}
