import json

import numpy as np
import pytest
from scipy.optimize import approx_fprime, minimize
from scipy.special import log_softmax, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from luneta.training import calibration
from luneta.training.calibration import Calibrator, fit_temperature, probabilities


def drawn(probability, seed=1):
    """Labels, each drawn with its object's probabilities."""
    random = np.random.default_rng(seed).random((len(probability), 1))
    return (random > probability.cumsum(axis=1)).sum(axis=1).clip(0, probability.shape[1] - 1)


def logits_of(count, classes, seed=0):
    return np.random.default_rng(seed).normal(size=(count, classes)) * 2


@pytest.mark.parametrize("truth", [0.5, 1.0, 2.5])
def test_known_temperature_is_recovered(truth):
    logits = logits_of(20_000, 4)
    labels = drawn(probabilities(logits))
    assert fit_temperature(logits * truth, labels) == pytest.approx(truth, rel=0.03)


def test_probabilities_of_literal_logits():
    got = probabilities(np.array([[0.0, np.log(9.0) * 2]]), temperature=2.0)
    np.testing.assert_allclose(got, [[0.1, 0.9]], rtol=1e-12)


def test_temperature_of_the_mean_over_samples():
    samples = np.stack([logits_of(500, 3, seed) for seed in (0, 1, 2)])
    labels = drawn(probabilities(samples).mean(axis=0))
    grid = np.geomspace(0.3, 3, 2000)
    losses = [calibration.log_loss(probabilities(samples, t), labels) for t in grid]
    assert fit_temperature(samples, labels) == pytest.approx(grid[np.argmin(losses)], rel=2e-3)


def test_vector_scaling_of_two_classes_is_logistic_regression():
    logits = logits_of(2000, 2)
    labels = drawn(probabilities(logits * [0.5, 1.5] + [0.0, 0.7]))
    scale, bias = calibration.fit_vector(logits, labels, strength=0)
    reference = LogisticRegression(C=1e12, tol=1e-10, max_iter=10_000).fit(logits, labels)
    np.testing.assert_allclose([-scale[0], scale[1]], reference.coef_[0], atol=1e-4)
    assert bias[1] - bias[0] == pytest.approx(reference.intercept_[0], abs=1e-4)


def test_vector_scaling_minimises_the_penalised_loss():
    samples = np.stack([logits_of(300, 3, seed) for seed in (0, 1)])
    labels = drawn(probabilities(samples[0] * [0.5, 1.5, 1.0] + [0.0, 0.7, 0.0]))
    temperature = fit_temperature(samples, labels)

    def loss(values):
        departure, bias = values.reshape(2, 3)
        each = softmax(samples / temperature * (1 + departure) + bias, axis=-1)
        assigned = each.mean(axis=0)[np.arange(300), labels]
        return -np.log(assigned).sum() + 2.0 / 2 * np.sum(values**2)

    scale, bias = calibration.fit_vector(samples, labels, strength=2.0)
    found = np.concatenate([scale * temperature - 1, bias])
    np.testing.assert_allclose(approx_fprime(found, loss, 1e-6), 0, atol=5e-3)
    reference = minimize(loss, np.zeros(6), method="Nelder-Mead", options={"maxiter": 20_000})
    assert loss(found) <= reference.fun + 1e-6


def test_a_class_of_few_objects_does_not_run_away():
    logits = logits_of(1000, 3)
    labels = drawn(probabilities(logits[:, :2]))  # nobody is of the third class
    _, bias = calibration.fit_vector(logits, labels)
    _, free = calibration.fit_vector(logits, labels, strength=1e-6)
    assert bias[2] < 0
    assert abs(bias[2]) < 8 < abs(free[2])


def test_isotonic_curve_by_hand():
    """Pool adjacent violators: labels 0 1 0 1 1 in order of probability pool to 0 .5 .5 1 1."""
    given = np.array([0.1, 0.2, 0.3, 0.6, 0.9])
    logits = np.stack([np.zeros(5), np.log(given / (1 - given))], axis=1)
    (curve,) = calibration.fit_isotonic(logits, np.array([0, 1, 0, 1, 1]))
    np.testing.assert_allclose(curve[0], [0.1, 0.2, 0.3, 0.6, 0.9], rtol=1e-12)
    np.testing.assert_allclose(curve[1], [1 / 7, 0.5, 0.5, 6 / 7, 6 / 7], rtol=1e-12)
    half = calibration.fit("isotonic", logits, np.array([0, 1, 0, 1, 1])).apply(
        [[0.0, 0.0]]  # probability 0.5: two thirds of the way from 0.3 to 0.6
    )
    expected = 0.999 * (0.5 + (6 / 7 - 0.5) * 2 / 3) + 0.001 * 0.5
    np.testing.assert_allclose(half, [[1 - expected, expected]], rtol=1e-12)


def test_isotonic_of_several_classes_is_one_against_rest():
    logits = logits_of(400, 3)
    labels = drawn(probabilities(logits**3 / 4))
    got = calibration.fit("isotonic", logits, labels).apply(logits)
    given = softmax(logits, axis=1)
    curves = [IsotonicRegression(out_of_bounds="clip") for _ in range(3)]
    each = [c.fit(given[:, k], labels == k).predict(given[:, k]) for k, c in enumerate(curves)]
    each = np.clip(np.stack(each, axis=1), 1 / 402, 401 / 402)
    np.testing.assert_allclose(got, each / each.sum(axis=1, keepdims=True), atol=2e-3)
    np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-12)


def test_isotonic_is_fitted_on_each_sample_as_it_is_applied():
    """Samples far apart: the curve of their means holds nothing of where the samples lie."""
    middle = logits_of(200, 2)
    samples = np.stack([middle + [0, shift] for shift in (-4.0, 4.0)])
    labels = drawn(probabilities(middle))
    got = calibration.fit("isotonic", samples, labels).apply(samples)
    given = softmax(samples, axis=-1)[..., 1].ravel()
    reference = IsotonicRegression(out_of_bounds="clip").fit(given, np.tile(labels, 2))
    expected = np.clip(reference.predict(given), 1 / 202, 201 / 202)
    np.testing.assert_allclose(got[..., 1].ravel(), expected, atol=1.1e-3)


def test_many_samples_are_thinned_before_a_calibration_is_chosen():
    samples = np.stack([logits_of(90, 2, seed) for seed in range(100)])
    labels, fold = drawn(probabilities(samples).mean(axis=0)), np.arange(90) % 3
    even = calibration.choose("auto", samples[::2], labels, fold)
    assert calibration.choose("auto", samples, labels, fold) == even


def test_isotonic_keeps_the_order_and_a_finite_loss():
    logits = np.array([[0.0, x] for x in (-9.0, -2, -1, 1, 2, 9)])
    labels = np.array([0, 0, 0, 1, 1, 1])
    got = calibration.fit("isotonic", logits, labels).apply(logits)[:, 1]
    assert (np.diff(got) > 0).all()
    assert got[0] > 0.12  # 1 / (6 + 2), but for a thousandth
    assert got[-1] < 0.88


@pytest.mark.parametrize("method", calibration.METHODS)
def test_calibrators_survive_json_and_leading_axes(method):
    logits = logits_of(60, 3)
    labels = drawn(probabilities(logits))
    fitted = calibration.fit(method, logits, labels)
    again = Calibrator.from_dict(json.loads(json.dumps(fitted.as_dict())))
    assert again == fitted
    stacked = again.apply(np.stack([logits, 2 * logits]).astype("float32"))
    assert stacked.shape == (2, 60, 3)
    np.testing.assert_allclose(stacked[0], fitted.apply(logits), atol=1e-6)
    np.testing.assert_allclose(stacked.sum(axis=-1), 1, atol=1e-12)


def test_none_is_softmax():
    logits = logits_of(5, 3)
    got = calibration.fit("none", logits, np.zeros(5, int)).apply(logits)
    np.testing.assert_allclose(got, np.exp(log_softmax(logits, axis=1)), rtol=1e-12)


def test_each_fold_is_calibrated_by_the_others():
    logits = logits_of(300, 3)
    labels, folds = drawn(probabilities(logits / 2)), np.arange(300) % 3
    got = calibration.cross_fitted("temperature", logits, labels, folds)
    for fold in range(3):
        held = folds == fold
        temperature = fit_temperature(logits[~held], labels[~held])
        np.testing.assert_array_equal(got[held], probabilities(logits[held], temperature))
    stacked = calibration.cross_fitted("temperature", np.stack([logits] * 2), labels, folds)
    np.testing.assert_allclose(stacked[1], got, rtol=1e-9)


DISTORTIONS = {
    "none": lambda z: z,
    "temperature": lambda z: 3 * z,
    "vector": lambda z: (z - [0.0, 2.0, 0.0]) / [1.0, 0.5, 2.0],
    "isotonic": lambda z: np.sign(z) * np.abs(z) ** 0.2,
}


@pytest.mark.parametrize("expected", calibration.METHODS)
def test_auto_takes_the_method_that_fits(expected):
    classes = 2 if expected == "isotonic" else 3
    logits = logits_of(6000, classes)
    if classes == 2:
        logits[:, 0] = 0
    labels = drawn(probabilities(logits))
    folds = np.random.default_rng(2).integers(0, 5, 6000)
    given = DISTORTIONS[expected](logits)
    chosen, losses = calibration.choose("auto", given, labels, folds)
    assert chosen.method == expected
    assert set(losses) == set(calibration.METHODS)
    again = calibration.cross_fitted(expected, given, labels, folds)[np.arange(6000), labels]
    assert losses[expected] == pytest.approx(-np.log(again).mean(), rel=1e-12)
    assert chosen == calibration.fit(expected, given, labels)


def test_a_named_method_is_used_whatever_its_loss():
    logits = logits_of(200, 3)
    labels, folds = drawn(probabilities(logits)), np.arange(200) % 2
    chosen, losses = calibration.choose("isotonic", logits, labels, folds)
    assert chosen.method == "isotonic"
    assert losses["isotonic"] > losses["temperature"]
