import numpy as np
import pytest
from keras import ops

from luneta.config import Pretraining
from luneta.training import contrastive
from luneta.training.contrastive import found_again, nt_xent


def by_hand(views, temperature):
    """Equation 1 of Chen et al. 2020, loop by loop."""
    count = len(views)
    z = [v / np.linalg.norm(v) for v in np.concatenate([views[:, 0], views[:, 1]])]
    losses = []
    for i in range(2 * count):
        partner = (i + count) % (2 * count)
        others = sum(np.exp(z[i] @ z[k] / temperature) for k in range(2 * count) if k != i)
        losses.append(-np.log(np.exp(z[i] @ z[partner] / temperature) / others))
    return (np.array(losses[:count]) + losses[count:]) / 2


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_is_the_papers(temperature):
    views = np.random.default_rng(1).normal(size=(6, 2, 5))
    got = ops.convert_to_numpy(nt_xent(views.astype("float32"), temperature))
    np.testing.assert_allclose(got, by_hand(views, temperature), rtol=1e-4)


def test_nt_xent_of_two_objects_at_right_angles():
    views = np.array([[[1, 0], [1, 0]], [[0, 1], [0, 2]]], "float32")
    expected = -np.log(np.e / (np.e + 2))  # cosines 1 to the partner, 0 to both others
    np.testing.assert_allclose(ops.convert_to_numpy(nt_xent(views, 1.0)), expected, rtol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(found_again(views)), 1)


def test_views_that_are_nearer_to_another_object_are_not_found():
    views = np.array([[[1, 0], [0, 1]], [[0.1, 1], [-1, 0]]], "float32")
    # the second view of the first object and the first of the second are each other's nearest
    assert ops.convert_to_numpy(found_again(views)).sum() == 0


def test_views_differ_and_come_first_views_first(galaxies):
    images = galaxies[0][:6]
    changes = contrastive.view_changes(images)
    assert changes.shift == 2
    assert changes.noise == pytest.approx(1, rel=0.3)  # scatter of the sky
    model = contrastive.viewer(images.shape[1:], changes, 3)
    first, second = np.split(ops.convert_to_numpy(model(images, training=True)), 2)
    assert first.shape == images.shape
    assert not np.allclose(first, second)
    still = np.split(ops.convert_to_numpy(model(images, training=False)), 2)
    for views in still:
        np.testing.assert_array_equal(views, images)
    # each view still resembles its own object
    total = np.nansum(images, axis=(1, 2, 3))
    np.testing.assert_allclose(np.nansum(first, axis=(1, 2, 3)), total, rtol=0.6)


def test_views_to_validate_on_are_drawn_in_batches(galaxies):
    images = np.ones((7, 3, 32, 32), "float32") * np.arange(0, 70, 10)[:, None, None, None]
    model = contrastive.viewer(images.shape[1:], contrastive.view_changes(galaxies[0]), 3)
    asked = []

    def noting(part, training):
        asked.append(len(part))
        return model(part, training=training)

    views = contrastive.fixed_views(noting, images, 3)
    assert (views.shape, asked) == ((7, 2, *images.shape[1:]), [3, 2, 2])
    for view in (0, 1):  # each is still of its own object
        np.testing.assert_allclose(views[:, view, :, 12:20, 12:20].mean((1, 2, 3)),
                                   np.arange(0, 70, 10), atol=2)  # fmt: skip
    assert not np.allclose(views[:, 0], views[:, 1])


def test_two_epochs_lower_the_loss(galaxies, small_training):
    images = galaxies[0]
    settings = Pretraining(method="contrastive", epochs=2, batch_size=16, learning_rate=3e-3)
    network, journal = contrastive.fit_contrastive(
        images, ["g", "r", "i"], "flux", small_training(), settings, 1
    )
    first, last = journal.progress.records
    assert last["loss"] < first["loss"]
    assert last["val_loss"] < np.log(2 * 10 - 1)  # of ten objects held out, knowing nothing
    assert {row["layer"] for row in journal.progress.gradients} >= {"block1_conv", "projection_2"}
    assert [layer.name for layer in network.layers][-1] == "logits"


def test_too_few_cutouts_are_told(galaxies, small_training):
    with pytest.raises(ValueError, match="at least 4 cutouts, there are 3.*method: supervised"):
        contrastive.fit_contrastive(
            galaxies[0][:3], ["g", "r", "i"], "flux", small_training(), Pretraining(), 1
        )
