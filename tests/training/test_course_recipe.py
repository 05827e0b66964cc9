from types import SimpleNamespace

import keras
import numpy as np
import pytest

from luneta.config import Training
from luneta.models import network as networks
from luneta.models import preprocessing
from luneta.training import course_recipe, finetune, optimisers
from luneta.training.schedules import Schedule


def of_keras(losses):
    """The rates that ReduceLROnPlateau gives with the course's arguments, after each epoch."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss="mse")
    callback = keras.callbacks.ReduceLROnPlateau(
        monitor="loss", factor=0.1, patience=10, mode="max"
    )
    callback.set_model(model)
    callback.on_train_begin()
    rates = []
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"loss": loss})
        rates.append(float(model.optimizer.learning_rate))
    return rates


@pytest.mark.parametrize(
    "losses",
    [
        np.exp(-np.arange(35) / 9),
        0.7 + 0.05 * np.sin(np.arange(45)),
        np.concatenate([np.linspace(1, 0.5, 12), np.linspace(0.5, 2, 14), np.full(15, 1.0)]),
    ],
    ids=["falling", "waving", "rising"],
)
def test_rate_falls_as_in_keras(losses):
    records = [{"loss": loss} for loss in losses]
    ours = [course_recipe.rate_factor(records[: n + 1]) for n in range(len(records))]
    np.testing.assert_allclose(ours, of_keras(losses), rtol=1e-5)


def test_a_falling_loss_lowers_the_rate_every_ten_epochs():
    records = [{"loss": 1 / (1 + epoch)} for epoch in range(31)]
    factors = [course_recipe.rate_factor(records[:n]) for n in (10, 11, 20, 21, 31)]
    np.testing.assert_allclose(factors, [1, 0.1, 0.1, 0.01, 0.001])


def test_batch_norm_follows_as_in_keras():
    settings = {"course_recipe": True, "backbone": "ResNet18"}
    store = SimpleNamespace(bands=["g", "r", "i"], shape=(3, 32, 32), pixels="flux")
    task = SimpleNamespace(classes=["no", "yes"])
    training = course_recipe.applied(Training(**settings))
    job = finetune.Job({}, 0, task, training, 1, store, None, None, None)
    statistics = preprocessing.measure(np.ones((4, 3, 32, 32), "f4"), training, "flux")
    network = job.build("none", "float32", statistics)
    assert {layer.momentum for layer in networks.batch_norms(network)} == {0.99}


def test_settings_are_the_scripts():
    given = Training(
        backbone="ResNet50LensFinder", course_recipe=True, mixup=0.3, class_weight_cap=4,
        fine_tune_epochs=50, optimizer="adamw", weights="imagenet", batch_size=32,
    )  # fmt: skip
    used = course_recipe.applied(given)
    assert used.backbone == "ResNet50LensFinder"
    assert (used.weights, used.batch_size, used.mixup) == ("none", 32, 0.0)
    assert used.class_weight_cap == 1
    assert used.preprocessing.stretch == "none"
    assert not used.augmentation.dihedral
    assert used.keep == "last"
    (phase,) = finetune.phases(used, pretrained=False)
    assert (phase.epochs, phase.learning_rate, phase.cosine, phase.warmup) == (50, 0.01, False, 0)
    assert phase.patience > 50
    optimizer = optimisers.make(used, Schedule(0.01, 10), [])
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert (optimizer.momentum, optimizer.nesterov, optimizer.decay) == (0, False, 0)
    assert course_recipe.applied(Training()) == Training()


def test_it_trains_with_the_courses_rates(small_training, small_network, small_batches):
    training = course_recipe.applied(small_training(course_recipe=True, fine_tune_epochs=12))
    journal = finetune.fit(
        small_network(training), training, small_batches(1), small_batches(), False, 1
    )
    records = journal.progress.records
    factors = [1.0, *(course_recipe.rate_factor(records[:n]) for n in range(1, 12))]
    np.testing.assert_allclose([r["learning_rate"] for r in records], 0.01 * np.array(factors))
    assert len(records) == 12  # nothing stops it
