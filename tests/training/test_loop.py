import csv
import logging

import keras
import numpy as np
import pytest
from keras import ops

from luneta.models import network as networks
from luneta.training import finetune
from luneta.training.data import Batches
from luneta.training.loop import (
    COLUMNS,
    GRADIENT_COLUMNS,
    Journal,
    Objective,
    Phase,
    train,
    validate,
    with_augmentation,
    write_csv,
)

NO_TURNS = {"augmentation": {"dihedral": False}}


def fit(training, network, learnt, held, pretrained=False, **options):
    return finetune.fit(network, training, learnt, held, pretrained, 1, **options)


def records_of(journal, name):
    return [record[name] for record in journal.progress.records]


def test_validation_by_hand(small_training, small_network, small_batches):
    network, held = small_network(small_training()), small_batches(None)
    held.weights = np.array([1, 3], "float32")
    found = validate(network, held)
    logits = ops.convert_to_numpy(network(held.images)).astype("float64")
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    losses = -np.log(p[np.arange(96), held.labels])
    weights = np.where(held.labels == 1, 3, 1)
    assert found["val_loss"] == pytest.approx((losses * weights).sum() / weights.sum(), rel=1e-4)
    assert found["val_accuracy"] == np.mean((logits[:, 1] > logits[:, 0]) == held.labels)


def test_validation_refuses_what_is_no_number_and_names_the_objects(
    small_training, small_network, small_batches
):
    training = small_training(preprocessing={"stretch": "none"})
    network = small_network(training)
    held = small_batches(None, ids=np.array([f"galaxy{i}" for i in range(96)]))
    held.images = held.images.copy()
    held.images[[3, 90]] = 3e38
    with pytest.raises(FloatingPointError, match=r"2 of 96 objects \(galaxy3, galaxy90\)"):
        validate(network, held)
    learnt = small_batches(1)
    with pytest.raises(FloatingPointError, match="galaxy3, galaxy90"):
        fit(training, network, learnt, held)


def test_a_validation_loss_that_is_no_number_is_no_best_epoch(
    small_training, small_network, small_batches
):
    training = small_training()
    network = small_network(training)
    journal = Journal(network, lambda: {"val_loss": float("nan"), "val_accuracy": 1.0})
    phase = Phase("pretrain", 1, 1e-3, patience=1)
    with pytest.raises(FloatingPointError, match=r"validation loss is not finite in epoch 1 \(pre"):
        train(
            network, with_augmentation(network, []), phase, small_batches(1), journal, training, 1
        )


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1e-12] * 2),
        ("cosine", [1e-12 * 0.5 * (1 + np.cos(np.pi / 4)), 5e-13]),
        ("plateau", [1e-12, 1e-12, 1e-13]),
    ],
)
def test_rates_and_patience(small_training, small_network, small_batches, schedule, rates):
    # A rate that moves no weight: the loss falls in no epoch after the first
    settings = {"schedule": schedule, "patience": 1, "warmup": 0.0, "weight_decay": 0.0}
    settings |= {"fine_tune_learning_rate": 1e-12, "optimizer": "sgd", "fine_tune_epochs": 4}
    training = small_training(**settings)
    journal = fit(training, small_network(training), small_batches(1), small_batches())
    assert len(set(records_of(journal, "val_loss"))) == 1
    np.testing.assert_allclose(records_of(journal, "learning_rate"), rates, rtol=1e-4)


def test_warm_up_rises_from_a_tenth(small_training, small_network, small_batches):
    training = small_training(schedule="constant", warmup=0.75, fine_tune_epochs=2)
    journal = fit(training, small_network(training), small_batches(1), small_batches())
    expected = [1e-3 * (0.1 + 0.9 * 6 / 9), 1e-3]  # after 6 and 12 steps, 9 of them rising
    np.testing.assert_allclose(records_of(journal, "learning_rate"), expected, rtol=1e-4)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_best_or_last_epoch_is_kept(small_training, small_network, small_batches, keep):
    # At this rate the loss goes up and down
    changes = {"keep": keep, "fine_tune_learning_rate": 0.1, "schedule": "constant"}
    training = small_training(**changes, fine_tune_epochs=4, **NO_TURNS)
    network = small_network(training)
    journal = fit(training, network, small_batches(1), small_batches())
    losses = records_of(journal, "val_loss")
    assert min(losses) < losses[-1]
    expected = min(losses) if keep == "best" else losses[-1]
    assert validate(network, small_batches())["val_loss"] == pytest.approx(expected, abs=2e-6)


def test_gradient_norms_are_those_of_the_steps(small_training, small_network, small_batches):
    # One plain step of rate 1 a phase: the weights move by the gradient
    plain = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant"}
    plain |= {"warmup": 0.0, "fine_tune_learning_rate": 1.0, "dropout": 0.0, "keep": "last"}
    training = small_training(**plain, fine_tune_epochs=1, **NO_TURNS)
    network = small_network(training)
    before = {layer.name: layer.get_weights() for layer in network.get_layer("backbone").layers}
    before["logits"] = network.get_layer("logits").get_weights()
    journal = fit(training, network, small_batches(1, size=96), small_batches())
    rows = journal.progress.gradients
    assert [tuple(row)[:5] for row in rows] == [GRADIENT_COLUMNS] * 5
    assert [(row["block"], row["layer"]) for row in rows] == [
        ("block1", "block1_conv"),
        ("block2", "block2_conv"),
        ("block3", "block3_dense"),
        ("block4", "block4_dense"),
        ("head", "logits"),
    ]
    for row in rows:
        owner = network if row["block"] == "head" else network.get_layer("backbone")
        after = owner.get_layer(row["layer"]).get_weights()
        moved = [a - b for a, b in zip(after, before[row["layer"]], strict=True)]
        norm = np.sqrt(sum((m**2).sum() for m in moved))
        assert row["norm"] == pytest.approx(norm, rel=1e-3)
        assert (row["epoch"], row["phase"]) == (1, "fine_tune")


def test_gradient_norms_are_means_over_the_steps_of_an_epoch(
    small_training, small_network, small_batches
):
    # Nothing moves and every batch is the whole set or a sixth of it: norms of the same size
    still = {"optimizer": "sgd", "fine_tune_learning_rate": 1e-12, "weight_decay": 0.0}
    training = small_training(**still, dropout=0.0, **NO_TURNS)
    norms = []
    for size in (96, 16):
        journal = fit(training, small_network(training), small_batches(1, size), small_batches())
        norms.append([row["norm"] for row in journal.progress.gradients])
    assert len(norms[0]) == 10  # 5 layers, 2 epochs
    np.testing.assert_allclose(norms[0][:5], norms[0][5:], rtol=1e-4)
    ratio = np.divide(norms[1], norms[0])
    assert (ratio > 0.9).all()
    assert (ratio < 2.5).all()


def test_last_blocks_alone_are_set_free(small_training, small_network, small_batches):
    training = small_training(head_epochs=1, fine_tune_epochs=1, unfreeze=2, keep="last")
    network = small_network(training)
    inner = network.get_layer("backbone")
    before = {layer.name: layer.get_weights() for layer in inner.layers if layer.weights}
    journal = fit(training, network, small_batches(1), small_batches(), pretrained=True)
    moved = {
        name: any(
            not np.array_equal(a, b)
            for a, b in zip(inner.get_layer(name).get_weights(), old, strict=True)
        )
        for name, old in before.items()
    }
    assert moved == {"block1_conv": False, "block2_conv": False, "block3_dense": True,
                     "block4_dense": True}  # fmt: skip
    rows = [(row["phase"], row["layer"]) for row in journal.progress.gradients]
    assert rows == [
        ("head", "logits"),
        ("fine_tune", "block3_dense"),
        ("fine_tune", "block4_dense"),
        ("fine_tune", "logits"),
    ]


def test_a_loss_that_is_no_number_names_epoch_batch_and_objects(
    small_training, small_network, small_batches
):
    training = small_training(activation="relu", preprocessing={"stretch": "none"}, **NO_TURNS)
    names = np.array([f"galaxy{i}" for i in range(96)])
    learnt = small_batches(1, ids=names)
    learnt.images = np.nan_to_num(learnt.images) / 10
    bad = learnt.members(0, 3)[2]
    learnt.images[bad] = 1e38
    members = ", ".join(names[learnt.members(0, 3)][:5])
    with pytest.raises(FloatingPointError) as caught:
        fit(training, small_network(training), learnt, small_batches())
    message = str(caught.value)
    assert f"epoch 1 (fine_tune), batch 4 of 6 (objects {members}, ...)" in message
    assert "lower the learning rate of this phase (now 0.00" in message


def test_a_gradient_that_is_no_number_stops_though_the_loss_is_one(
    small_training, small_network, small_batches
):
    training = small_training(**NO_TURNS)
    network, learnt = small_network(training), small_batches(1)
    objective = Objective(lambda y, z: ops.sum(ops.sqrt(ops.maximum(0.0 * z, 0.0)) + 1.0, axis=-1))
    journal = Journal(network, lambda: validate(network, small_batches()))
    with pytest.raises(FloatingPointError, match=r"its gradient is not finite.*batch 1 of 6"):
        train(
            network,
            with_augmentation(network, []),
            Phase("fine_tune", 1, 1e-3, patience=1),
            learnt,
            journal,
            training,
            1,
            objective=objective,
        )


def test_dropout_and_turns_differ_by_epoch_and_repeat_by_seed(
    small_training, small_network, small_batches
):
    training = small_training(dropout=0.5, augmentation={"noise": 3, "shift": 2})
    digests = []
    for seed in (1, 1, 2):
        network = small_network(training)
        finetune.fit(network, training, small_batches(1), small_batches(), False, seed)
        digests.append(networks.digest(network))
    assert digests[0] == digests[1]
    assert digests[0] != digests[2]


def test_tensorboard_shows_both_losses(tmp_path, small_training, small_network, small_batches):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    training = small_training()
    fit(training, small_network(training), small_batches(1), small_batches(), log_folder=tmp_path)
    for part in ("train", "validation"):
        events = EventAccumulator(str(tmp_path / part))
        events.Reload()
        assert "epoch_loss" in events.Tags()["tensors"]
        assert [event.step for event in events.Tensors("epoch_loss")] == [0, 1]


def test_history_is_written_and_logged(tmp_path, small_training, small_network, small_batches,
                                       caplog):  # fmt: skip
    training = small_training()
    with caplog.at_level(logging.INFO):
        journal = fit(training, small_network(training), small_batches(1), small_batches())
    assert sum("fine_tune loss" in record.message for record in caplog.records) == 2
    write_csv(journal.progress.records, COLUMNS, tmp_path / "history.csv")
    with (tmp_path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [float(row["val_loss"]) for row in rows] == records_of(journal, "val_loss")


@pytest.mark.bfloat16
def test_bfloat16_network_keeps_float32_where_it_counts(small_training, small_batches):
    from luneta.models import devices

    training = small_training()
    with devices.arithmetic("bfloat16"):
        network = networks.build(training, ["g", "r", "i"], 32, "flux", 2, 1)
    assert keras.config.dtype_policy().name == "float32"
    assert network.get_layer("preprocessing").output.dtype == "float32"
    assert network.get_layer("backbone").get_layer("block1_conv").compute_dtype == "bfloat16"
    assert network.output.dtype == "float32"
    assert {v.dtype for v in network.trainable_variables} == {"float32"}
    journal = fit(training, network, small_batches(1), small_batches())
    first, last = records_of(journal, "val_loss")
    assert last < first


def test_each_epoch_is_served_whole_in_its_own_order(small_training, small_network, galaxies):
    served = []

    class Noting(Batches):
        def batch(self, epoch, index):
            served.append((epoch, tuple(self.members(epoch, index))))
            return super().batch(epoch, index)

    training = small_training(fine_tune_epochs=3, patience=9)
    learnt = Noting(*galaxies, np.ones(2, "float32"), 16, 1)
    fit(training, small_network(training), learnt, Batches(*galaxies, np.ones(2, "float32"), 16))
    for epoch in (1, 2):  # Keras looks at some batches before the first
        own = [members for number, members in served if number == epoch]
        order = np.random.default_rng([1, epoch]).permutation(96)
        assert own == [tuple(part) for part in order.reshape(6, 16)]
