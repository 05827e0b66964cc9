import numpy as np
import pytest
from keras import ops

from luneta.config import Training
from luneta.training import losses


def value(loss, labels, logits):
    return ops.convert_to_numpy(loss(np.array(labels, "float32"), np.array(logits, "float32")))


LOG = np.log([0.7, 0.2, 0.1])  # softmax of it gives the probabilities back


def test_focal_of_three_classes_by_hand():
    got = value(lambda y, z: losses.focal(y, z, 2.0), [[1, 0, 0], [0, 0, 1]], [LOG, LOG])
    np.testing.assert_allclose(got, [-(0.3**2) * np.log(0.7), -(0.9**2) * np.log(0.1)], rtol=1e-5)


def test_focal_of_two_classes_is_the_papers_binary_form():
    x, gamma = 0.8, 2.0
    p = 1 / (1 + np.exp(-x))
    positive = -((1 - p) ** gamma) * np.log(p)
    negative = -(p**gamma) * np.log(1 - p)
    got = value(lambda y, z: losses.focal(y, z, gamma), [[0, 1], [1, 0]], [[0, x], [0, x]])
    np.testing.assert_allclose(got, [positive, negative], rtol=1e-5)


def test_focal_without_gamma_is_cross_entropy():
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(9, 4)), random.dirichlet(np.ones(4), 9)
    focal = value(lambda y, z: losses.focal(y, z, 0.0), labels, logits)
    np.testing.assert_allclose(focal, value(losses.cross_entropy, labels, logits), rtol=1e-5)


def test_focal_is_finite_for_objects_beyond_doubt():
    got = value(lambda y, z: losses.focal(y, z, 0.5), [[1, 0], [1, 0]], [[90, -90], [-90, 90]])
    np.testing.assert_allclose(got, [0, 180], rtol=1e-5, atol=1e-5)


def test_cross_entropy_of_soft_labels():
    got = value(losses.cross_entropy, [[0.5, 0.25, 0.25]], [LOG])
    np.testing.assert_allclose(got, [-0.5 * np.log(0.7) - 0.25 * np.log(0.2 * 0.1)], rtol=1e-5)


def test_label_smoothing():
    training = Training(label_smoothing=0.3)
    got = value(losses.of_training(training), [[1, 0, 0]], [LOG])
    expected = -(0.8 * np.log(0.7) + 0.1 * np.log(0.2) + 0.1 * np.log(0.1))
    np.testing.assert_allclose(got, [expected], rtol=1e-5)


def test_focal_is_chosen_by_the_config():
    got = value(losses.of_training(Training(loss="focal", focal_gamma=1.0)), [[1, 0, 0]], [LOG])
    np.testing.assert_allclose(got, [-0.3 * np.log(0.7)], rtol=1e-5)


@pytest.mark.parametrize("logits", [[0.3, -1.2], [4.0, 1.0]])
def test_the_courses_loss_of_two_classes_is_cross_entropy(logits):
    training = Training(course_recipe=True)
    got = value(losses.of_training(training), [[0, 1]], [logits])
    p = np.exp(logits[1]) / np.exp(logits).sum()
    by_hand = -(np.log(p) + np.log(1 - (1 - p))) / 2
    np.testing.assert_allclose(got, [by_hand], rtol=1e-5)
    np.testing.assert_allclose(got, value(losses.cross_entropy, [[0, 1]], [logits]), rtol=1e-5)
