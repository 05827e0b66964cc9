import numpy as np
import pyarrow.parquet as pq
import pytest

from luneta.training.data import (
    Batches,
    Cutouts,
    Epochs,
    Labelled,
    class_weights,
    label_mask,
    validation_mask,
)

EQUAL = np.ones(3, "float32")


def labelled(counts):
    labels = np.repeat(np.arange(len(counts)), counts).astype("int32")
    ids = np.array([f"galaxy{i}" for i in range(len(labels))])
    zeros = np.zeros(len(labels), "int32")
    return Labelled(ids, ids, zeros, labels, zeros)


def numbered(counts, seed=1, size=10, weights=EQUAL, **options):
    """Batches of images that hold the number of their object in every pixel."""
    labels = labelled(counts).labels
    images = np.broadcast_to(np.arange(len(labels), dtype="float32")[:, None, None, None],
                             (len(labels), 1, 2, 2))  # fmt: skip
    return Batches(images.copy(), labels, weights, size, seed, **options)


def epoch(batches, number=0):
    return [batches.batch(number, i) for i in range(batches.num_batches)]


def test_class_weights():
    labels = np.repeat([0, 1, 2], [60, 30, 2])
    weights = class_weights(labels, 3, cap=4)
    np.testing.assert_allclose(weights / weights[0], [1, 2, 4])
    assert weights[labels].mean() == pytest.approx(1)
    np.testing.assert_allclose(class_weights(labels, 3, cap=1), [1, 1, 1])


def test_batches_are_one_hot_and_weighted_by_class():
    batches = numbered([2, 1, 1], seed=None, size=3, weights=np.array([1, 2, 3], "float32"))
    (images, labels, weights), (_, last, _) = epoch(batches)
    np.testing.assert_array_equal(images[:, 0, 0, 0], [0, 1, 2])
    np.testing.assert_array_equal(labels, [[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    np.testing.assert_array_equal(weights, [1, 1, 2])
    np.testing.assert_array_equal(last, [[0, 0, 1]])


def test_epochs_differ_and_repeat_in_any_sequence():
    first, again = numbered([50, 30, 16]), numbered([50, 30, 16])
    orders = []
    for number in range(3):
        orders.append(first.order(number))
        assert sorted(orders[-1]) == list(range(96))
    np.testing.assert_array_equal(again.order(2), orders[2])
    assert not np.array_equal(orders[0], orders[1])
    assert first.num_batches == 9  # the remainder is left out


def test_epochs_serve_one_after_another_without_end():
    batches = numbered([50, 30, 16])
    epochs = Epochs(batches, first=3)
    assert epochs.num_batches is None
    served = [epochs[i][0][:, 0, 0, 0] for i in range(27)]
    np.testing.assert_array_equal(np.concatenate(served[:9]), batches.order(3)[:90])
    np.testing.assert_array_equal(served[17], batches.order(4)[80:90])
    np.testing.assert_array_equal(served[18], batches.order(5)[:10])


def test_balanced_sampling_draws_every_class_as_often():
    batches = numbered([60, 30, 6], size=12, balanced=True)
    assert batches.num_batches == 8
    drawn = np.zeros(96, int)
    for number in range(2):
        order = batches.order(number)
        counts = np.bincount(batches.labels[order])
        np.testing.assert_array_equal(counts, [32, 32, 32])
        drawn += np.bincount(order, minlength=96)
    for members in (slice(0, 60), slice(60, 90), slice(90, 96)):
        assert np.ptp(drawn[members]) <= 2  # once more at most in each epoch


def test_mixup_blends_pixels_labels_and_weights_by_one_share():
    weights = np.array([1, 2, 3], "float32")
    batches = numbered([40, 40, 40], size=60, weights=weights, mixup=0.4)
    images, labels, mixed = epoch(batches)[0]
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(mixed, labels @ weights, rtol=1e-5)
    own = batches.members(0, 0)
    values, top = images[:, 0, 0, 0], labels.max(axis=1)
    between = (top > 0.01) & (top < 0.99)
    assert between.sum() > 10
    for i in np.flatnonzero(between):
        # share of the object's own label, and the partner's number that follows from it
        share = labels[i, batches.labels[own[i]]]
        partner = (values[i] - share * own[i]) / (1 - share)
        assert partner == pytest.approx(round(partner), abs=0.05)
        assert round(partner) in own


def test_mixup_shares_follow_beta():
    batches = numbered([2000, 2000], size=4000, weights=np.ones(2, "float32"), mixup=0.5)
    _, labels, _ = epoch(batches)[0]
    own = labels[np.arange(4000), batches.labels[batches.members(0, 0)]]
    pairs = own[own < 1]  # objects blended with one of the other class
    assert len(pairs) == pytest.approx(2000, abs=150)
    assert pairs.mean() == pytest.approx(0.5, abs=0.03)
    assert pairs.var() == pytest.approx(0.125, rel=0.1)  # of Beta(1/2, 1/2)


def test_mixup_repeats_by_seed_and_epoch_and_knows_no_bad_pixels():
    batches = numbered([30, 30, 30], mixup=1.0)
    batches.images[:, :, 0, 0] = np.nan
    first, again, next_one = epoch(batches)[0][0], epoch(batches)[0][0], epoch(batches, 1)[0][0]
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, next_one)
    np.testing.assert_array_equal(first[:, 0, 0, 0], 0)


def test_label_fractions_are_nested_and_keep_every_class():
    objects = labelled([200, 40, 1])
    masks = [label_mask(objects, fraction, 1) for fraction in (0.05, 0.1, 0.25, 0.5, 1.0)]
    counts = [np.bincount(objects.labels[mask], minlength=3).tolist() for mask in masks]
    assert counts == [[10, 2, 1], [20, 4, 1], [50, 10, 1], [100, 20, 1], [200, 40, 1]]
    for smaller, larger in zip(masks, masks[1:], strict=False):
        assert not (smaller & ~larger).any()
    assert not np.array_equal(masks[0], label_mask(objects, 0.05, 2))


def test_label_fraction_is_fixed_by_the_name():
    objects = labelled([50])
    chosen = set(objects.ids[label_mask(objects, 0.5, 1)])
    backwards = objects.where(np.arange(50)[::-1])
    assert set(backwards.ids[label_mask(backwards, 0.5, 1)]) == chosen


def test_validation_holds_a_tenth_of_each_class():
    objects = labelled([200, 40, 3, 1])
    mask = validation_mask(objects, 1)
    assert np.bincount(objects.labels[mask], minlength=4).tolist() == [20, 4, 1, 0]


def test_cutouts_beyond_memory_are_the_same_from_a_file(survey):
    names = pq.read_table(survey / "a.parquet", columns=["usable"])["usable"].to_numpy()
    rows = np.random.default_rng(0).permutation(int(names.sum()))
    shards = np.where(rows % 2 == 0, "a", "b")
    store = Cutouts({name: survey / f"{name}.arrow" for name in "ab"})
    mapped = store.gather(shards, rows, memory=1000)
    assert isinstance(mapped, np.memmap)
    held = store.gather(shards, rows)
    assert not isinstance(held, np.memmap)
    np.testing.assert_array_equal(mapped, held)
