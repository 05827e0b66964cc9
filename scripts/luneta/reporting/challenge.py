"""Published results of the strong lens finding challenge, ground-based data.

Metcalf et al. 2019, A&A 625, A119 (arXiv:1802.03609), the table of results: the multi-band set of
the first challenge, as printed there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

CITATION = "Metcalf et al. 2019, A&A 625, A119"
TEST_OBJECTS = 100_000
HEADER = ("entry", "method", "AUROC", "TPR0", "TPR10")
BESIDE = (
    f"Published results on the ground-based data of the lens challenge ({CITATION}). The data "
    "differ, so that the two tables cannot be compared number by number; TPR0 and TPR10 also "
    f"depend on how many non-lenses were tried: the challenge had {TEST_OBJECTS:,} test objects, "
    "half of them lenses."
)
HANGS = "TPR0 hangs on one object, the most probable of the negatives, whatever its interval."


class Entry(NamedTuple):
    """An entry of the challenge; TPR0 and TPR10 are completenesses, 0 to 1."""

    name: str
    method: str
    roc_auc: float
    tpr0: float
    tpr10: float


GROUND = (
    Entry("CMU-DeepLens-Resnet-ground3", "CNN", 0.98, 0.09, 0.45),
    Entry("CMU-DeepLens-Resnet-Voting", "CNN", 0.98, 0.02, 0.10),
    Entry("LASTRO EPFL", "CNN", 0.97, 0.07, 0.11),
    Entry("CAS Swinburne Melb", "CNN", 0.96, 0.02, 0.08),
    Entry("AstrOmatic", "CNN", 0.96, 0.00, 0.01),
    Entry("Manchester SVM", "Gabor filters, SVM", 0.93, 0.22, 0.35),
    Entry("Manchester2", "human inspection", 0.89, 0.00, 0.01),
    Entry("ALL-star", "histograms of gradients, logistic regression", 0.84, 0.01, 0.02),
    Entry("CAST", "CNN, SVM", 0.83, 0.00, 0.00),
    Entry("YattaLensLite", "SExtractor", 0.82, 0.00, 0.00),
)


def rows() -> list[list[str]]:
    """Write the entries as rows under `HEADER`."""
    return [
        [entry.name, entry.method, *(f"{value:.2f}" for value in entry[2:])] for entry in GROUND
    ]


def holdouts(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Give the hold-out of the binary tasks that have one.

    Parameters
    ----------
    metrics : mapping
        By task, the content of `metrics/{task}.json`.
    """
    return {
        task: content["holdout"]
        for task, content in metrics.items()
        if content["kind"] == "binary" and content["holdout"]
    }


def of_lenses(metrics: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether there are binary tasks with a hold-out, and all of them ask for lenses."""
    found = holdouts(metrics)
    return bool(found) and all(metrics[task]["classes"][1] == "lens" for task in found)
