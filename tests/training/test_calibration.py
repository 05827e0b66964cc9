import numpy as np
import pytest

from luneta.training.calibration import fit_temperature, probabilities


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_known_temperature_is_recovered(truth):
    random = np.random.default_rng(0)
    logits = random.normal(size=(20_000, 4)) * 2
    sharp = probabilities(logits)
    labels = (random.random((len(sharp), 1)) > sharp.cumsum(axis=1)).sum(axis=1).clip(0, 3)
    assert fit_temperature(logits * truth, labels) == pytest.approx(truth, rel=0.03)


def test_probabilities_of_literal_logits():
    got = probabilities(np.array([[0.0, np.log(9.0) * 2]]), temperature=2.0)
    np.testing.assert_allclose(got, [[0.1, 0.9]], rtol=1e-12)
