import time

import numpy as np
import pytest

from luneta.metrics import bootstrap as b
from luneta.metrics.classification import DESCRIPTIONS, scores
from luneta.metrics.delong import delong_interval


def predictions(objects, classes, seed=0, separation=1.5):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, objects)
    logits = random.normal(size=(objects, classes)) + separation * np.eye(classes)[labels]
    exponent = np.exp(logits)
    return labels, exponent / exponent.sum(axis=1, keepdims=True)


def test_draws_are_as_many_objects_as_there_are():
    draws = np.array(list(b.resampled(200, draws=500, seed=1)))
    assert np.all(draws.sum(axis=1) == 200)
    # each object is drawn once on average, with the variance of a multinomial, 1 - 1/200
    assert draws.mean(axis=0) == pytest.approx(1, abs=0.2)
    assert draws.var() == pytest.approx(0.995, abs=0.02)
    np.testing.assert_array_equal(draws, list(b.resampled(200, draws=500, seed=1)))
    assert not np.array_equal(draws, list(b.resampled(200, draws=500, seed=2)))


def test_strata_keep_their_numbers():
    labels = np.array(["lens"] * 3 + ["not"] * 17)
    for weights in b.resampled(20, draws=50, stratify=labels):
        assert weights[labels == "lens"].sum() == 3
        assert weights.sum() == 20


def test_groups_are_drawn_as_a_whole():
    groups = np.array([7, 7, 3, 3, 3, 1])
    for weights in b.resampled(6, draws=50, groups=groups):
        assert weights[0] == weights[1]
        assert weights[2] == weights[3] == weights[4]
        assert weights[0] + weights[2] + weights[5] == 3
    strata = [0, 0, 1, 1, 1, 1]
    for weights in b.resampled(6, draws=50, stratify=strata, groups=groups):
        assert weights[0] == 1
        assert weights[2] + weights[5] == 2


def test_a_group_in_two_strata_is_refused():
    with pytest.raises(ValueError, match="1 groups have objects in more than one stratum"):
        list(b.resampled(3, stratify=[0, 1, 1], groups=[5, 5, 6]))


def test_interval_of_a_mean_has_the_known_width():
    values = np.random.default_rng(0).normal(10, 2, 400)
    low, high = b.bootstrap(np.mean, values, draws=4000, seed=3)
    error = values.std() / np.sqrt(400)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.1 * error)
    assert (high - low) / 2 == pytest.approx(error, rel=0.06)
    low, high = b.bootstrap(np.mean, values, draws=4000, seed=3, level=0.955)
    assert (high - low) / 2 == pytest.approx(2.005 * error, rel=0.06)


def test_pairs_stay_together_and_arrays_may_come_out():
    values = np.arange(50.0)
    low, high = b.bootstrap(lambda x, y: [np.sum(x - y), np.mean(x)], values, values, draws=50)
    assert low[0] == high[0] == 0
    assert low[1] < 24.5 < high[1]


def test_groups_widen_the_interval():
    """Ten copies of each of 40 values are still 40 values."""
    values = np.random.default_rng(1).normal(size=40)
    copies, groups = np.repeat(values, 10), np.repeat(np.arange(40), 10)
    low, high = b.bootstrap(np.mean, copies, draws=2000, groups=groups)
    assert (high - low) / 2 == pytest.approx(values.std() / np.sqrt(40), rel=0.08)


def test_arrays_must_be_of_one_length():
    with pytest.raises(ValueError, match=r"arrays have \[2, 3\] objects"):
        b.bootstrap(np.mean, np.zeros(2), np.zeros(3))


def test_nothing_gives_nan():
    assert np.isnan(b.bootstrap(lambda x: np.nan, np.zeros(3), draws=5)).all()
    found = b.intervals(np.zeros(0, int), np.zeros((0, 2)), "binary", draws=5)
    assert np.isnan(list(found.values())).all()


@pytest.mark.parametrize(("kind", "classes"), [("binary", 2), ("multiclass", 4)])
def test_intervals_are_those_of_resampled_objects(kind, classes):
    """The fast path, weights, against scoring each resampled set anew."""
    labels, probabilities = predictions(150, classes)
    found = b.intervals(labels, probabilities, kind, draws=60, seed=5)
    names = [name for name in found if name != "roc_auc_delong"]

    def plain(labels, probabilities):
        each = scores(labels, probabilities, kind)
        return [each[name] for name in names]

    low, high = b.bootstrap(plain, labels, probabilities, draws=60, seed=5)
    expected = dict(zip(names, zip(low, high, strict=True), strict=True))
    for name in names:
        assert found[name] == pytest.approx(expected[name]), name
    assert set(names) == set(scores(labels, probabilities, kind)) - {"ece"}


def test_every_value_lies_in_its_interval_even_of_calibrated_probabilities():
    random = np.random.default_rng(4)
    yes = random.random(1000)
    labels = (random.random(1000) < yes).astype(int)
    probabilities = np.stack([1 - yes, yes], axis=1)
    values = scores(labels, probabilities, "binary")
    for name, (low, high) in b.intervals(labels, probabilities, "binary", draws=200).items():
        assert low <= values.get(name, values["roc_auc"]) <= high, name


def test_no_draw_is_refused():
    labels, probabilities = predictions(20, 2)
    with pytest.raises(ValueError, match=r"draws = 0: an interval needs one draw or more"):
        b.intervals(labels, probabilities, "binary", draws=0)
    with pytest.raises(ValueError, match=r"draws = -1"):
        b.bootstrap(np.mean, np.zeros(3), draws=-1)


def test_blocks_do_not_change_the_draws(monkeypatch):
    labels, probabilities = predictions(100, 3)
    whole = b.intervals(labels, probabilities, "multiclass", draws=20)
    monkeypatch.setattr(b, "BLOCK", 300)  # three draws at a time, and a rest of two
    blocks = b.intervals(labels, probabilities, "multiclass", draws=20)
    for name, interval in whole.items():
        assert blocks[name] == pytest.approx(interval, rel=1e-12)


def test_accuracy_has_the_interval_of_a_binomial():
    labels, probabilities = predictions(2000, 2)
    value = scores(labels, probabilities, "binary")["accuracy"]
    low, high = b.intervals(labels, probabilities, "binary", draws=2000)["accuracy"]
    assert (high - low) / 2 == pytest.approx(np.sqrt(value * (1 - value) / 2000), rel=0.07)
    assert low < value < high


def test_stratified_area_has_the_interval_of_delong():
    labels, probabilities = predictions(2000, 2)
    found = b.intervals(labels, probabilities, "binary", draws=2000, stratified=True)
    area = delong_interval(labels, probabilities[:, 1])
    assert found["roc_auc_delong"] == (area.low, area.high)
    assert found["roc_auc"] == pytest.approx((area.low, area.high), abs=0.08 * (1 - area.value))
    assert set(found) <= set(DESCRIPTIONS)


@pytest.mark.parametrize(("kind", "classes"), [("binary", 2), ("multiclass", 5)])
def test_20000_objects_and_1000_draws_take_less_than_5_seconds(kind, classes):
    labels, probabilities = predictions(20_000, classes)
    start = time.process_time()
    b.intervals(labels, probabilities, kind)
    assert time.process_time() - start < 5


def test_stratified_draws_keep_the_number_of_each_class():
    """Where one class is always right and the other never, accuracy is the class's share."""
    labels, probabilities = np.repeat([0, 1], [60, 40]), np.tile([0.3, 0.7], (100, 1))
    fixed = b.intervals(labels, probabilities, "binary", draws=100, stratified=True)["accuracy"]
    assert fixed == (0.4, 0.4)
    low, high = b.intervals(labels, probabilities, "binary", draws=100)["accuracy"]
    assert high - low == pytest.approx(2 * np.sqrt(0.24 / 100), rel=0.4)
