"""Published results of the strong lens finding challenge, ground-based data.

Metcalf et al. 2019, A&A 625, A119 (arXiv:1802.03609), the table of results: the multi-band set of
the first challenge, as printed there.
"""

from __future__ import annotations

from typing import NamedTuple

CITATION = "Metcalf et al. 2019, A&A 625, A119"
TEST_OBJECTS = 100_000


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
