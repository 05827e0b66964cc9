"""How much the members of an ensemble say, and how much they disagree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """Predictions of objects by an ensemble.

    Attributes
    ----------
    probability, std
        Mean and population standard deviation over members, float64 (object, class).
    entropy
        Of the mean, in nat, float64 (object,).
    mutual_information
        Between the class and the member, in nat, float64 (object,).
    """

    probability: np.ndarray
    std: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray

    @property
    def chosen(self) -> np.ndarray:
        """Index of the most probable class, int (object,)."""
        return self.probability.argmax(axis=-1)


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Give the entropy -sum p log p over the last axis, in nat; 0 log 0 is 0."""
    safe = np.maximum(probabilities, np.finfo(float).tiny)
    return -np.sum(probabilities * np.log(safe), axis=-1)


def summarise(members: np.ndarray) -> Summary:
    """Combine the calibrated probabilities of an ensemble's members.

    Parameters
    ----------
    members
        (member, object, class): a member is a network that looks at one view with one draw of
        dropout.

    Notes
    -----
    The entropy H of the mean is the whole uncertainty. The mean of the members' entropies is what
    would stay if the member were known, the noise in the data; the rest, the mutual information
    I = H(mean p) - mean H(p), is the members' disagreement, which more training objects would
    lessen (Houlsby et al. 2011, arXiv:1112.5745; Gal 2016, sect. 3.3).
    """
    mean = members.mean(axis=0)
    total = entropy(mean)
    within = entropy(members).mean(axis=0)
    # of members that agree, rounding leaves some 1e-17 on either side of zero
    shared = np.maximum(total - within, 0.0)
    return Summary(mean, members.std(axis=0), total, shared)
