import numpy as np
import pytest
from sklearn.covariance import EmpiricalCovariance

from luneta.training import outliers
from luneta.training.outliers import Gaussians, OutlierModel


def features_of(labels, seed=0, features=200):
    """Two classes, apart along the first axis; features of widths 2, then 1, then 0.1."""
    width = np.where(np.arange(features) < 5, 2.0, np.where(np.arange(features) < 20, 1.0, 0.1))
    found = np.random.default_rng(seed).normal(size=(len(labels), features)) * width + 3
    found[:, 0] += 12.0 * labels
    return found.astype("float32")


def test_literal_distance():
    """Variance 4 along x, 9 along y and z; classes at the origin and at x = 100."""
    model = Gaussians(
        np.array([[0, 0, 0], [100, 0, 0]], "f4"), np.array([[1, 0, 0]], "f4"),
        np.array([4.0]), np.array(9.0),
    )  # fmt: skip
    got = model.distances(np.array([[6.0, 0, 0], [0, 9, 12], [6, 9, 12], [98, 0, 0]]))
    np.testing.assert_allclose(got, [3.0, 5.0, np.sqrt(34), 1.0])


def test_of_few_features_it_is_the_mahalanobis_distance():
    labels = np.arange(300) % 2
    features = features_of(labels, features=12)
    centres = np.stack([features[labels == k].mean(axis=0) for k in (0, 1)])
    covariance = EmpiricalCovariance(assume_centered=True).fit(features - centres[labels])
    new = features_of(np.array([0, 1, 1, 0]), seed=1, features=12)
    each = [covariance.mahalanobis(new - centre) for centre in centres]
    got = outliers.fit(features, labels).distances(new)
    np.testing.assert_allclose(got, np.sqrt(np.min(each, axis=0)), rtol=1e-6)


def test_of_many_features_the_small_variances_are_averaged():
    labels = np.zeros(100, int)
    features = features_of(labels, features=40)
    values, axes = np.linalg.eigh(np.cov(features.T, bias=True))
    values[:30] = values[:30].mean()  # 100 objects: 10 axes of their own
    covariance = axes @ np.diag(values) @ axes.T
    new = features_of(np.zeros(4, int), seed=1, features=40) - features.mean(axis=0)
    expected = np.einsum("ni,ij,nj->n", new, np.linalg.inv(covariance), new)
    got = outliers.fit(features, labels).distances(new + features.mean(axis=0))
    np.testing.assert_allclose(got, np.sqrt(expected), rtol=1e-4)


def test_strange_objects_are_flagged_and_familiar_ones_are_not():
    labels = np.arange(2000) % 2
    fitted = outliers.fit(features_of(labels), labels)
    held = fitted.distances(features_of(labels, seed=1))
    model = OutlierModel((fitted,), outliers.threshold(held, 0.95))
    familiar = model.scores(features_of(labels, seed=2)[None])
    assert model.flags(familiar).mean() == pytest.approx(0.05, abs=0.02)
    strange = features_of(labels, seed=3)
    strange[:, 0] += 40 - 80 * labels  # beyond both classes, along a direction that is known
    assert model.flags(model.scores(strange[None])).mean() > 0.99
    between = features_of(labels, seed=4)
    between[:, 150:] += 1  # along directions in which nothing ever varies by more than 0.1
    assert model.flags(model.scores(between[None])).mean() > 0.99


def test_fewer_objects_than_features_and_dead_features():
    labels = np.arange(30) % 2
    features = features_of(labels)
    features[:, 100:] = 0
    fitted = outliers.fit(features, labels)
    assert fitted.axes.shape == (3, 200)
    held = features_of(np.arange(40) % 2, seed=1)
    held[:, 100:] = 0
    near = fitted.distances(held)
    assert np.isfinite(near).all()
    held[:, 100:] = 1
    assert fitted.distances(held).min() > near.max()


def test_features_that_never_vary_give_zero():
    fitted = outliers.fit(np.ones((10, 4), "f4"), np.arange(10) % 2)
    np.testing.assert_allclose(fitted.distances(np.ones((3, 4))), 0, atol=1e-6)


def test_a_threshold_takes_finite_scores():
    with pytest.raises(FloatingPointError, match="2 of 4 outlier scores are not finite"):
        outliers.threshold(np.array([1.0, np.nan, np.inf, 2.0]), 0.99)


def test_scores_are_means_over_networks():
    one = Gaussians(np.zeros((1, 2), "f4"), np.eye(2, dtype="f4"), np.ones(2), np.array(1.0))
    model = OutlierModel((one, one), 3.0)
    scores = model.scores(np.array([[[3.0, 4.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, np.nan]]]))
    np.testing.assert_array_equal(scores, [3.0, np.nan])
    assert model.flags(np.array([3.0, 3.1, np.nan])).tolist() == [False, True, True]


def test_files_come_back_and_are_the_same_bytes(tmp_path):
    labels = np.arange(100) % 2
    one, two = (outliers.fit(features_of(labels, seed), labels) for seed in (0, 1))
    model = OutlierModel((one, two), 7.25)
    for name in ("a", "b"):
        model.save(tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = OutlierModel.load(tmp_path / "a.npz")
    assert again.digest == model.digest
    assert again.digest != OutlierModel((two, one), 7.25).digest
    assert again.digest != OutlierModel((one, two), 7.5).digest
    features = np.stack([features_of(labels, 2)] * 2)
    np.testing.assert_array_equal(again.scores(features), model.scores(features))


def test_classes_are_sampled_evenly():
    labels = np.array([0] * 90 + [1] * 10)
    chosen = outliers.sample(labels, seed=1, most=40)
    assert np.bincount(labels[chosen]).tolist() == [20, 10]
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, outliers.sample(labels, seed=1, most=40))
    assert not np.array_equal(chosen, outliers.sample(labels, seed=2, most=40))
    np.testing.assert_array_equal(outliers.sample(labels, seed=1), np.arange(90 + 10))
