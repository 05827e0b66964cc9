import numpy as np

from luneta.simulation.sources import CLASSES, galaxy_stamps


def stamps(count=110, **change):
    return galaxy_stamps(count, CLASSES, ["g", "r", "i"], 64, 0.262, **{"seed": 1, **change})


def test_stamps_are_in_units_of_sky_noise_and_evenly_classed():
    images, labels = stamps(120)
    assert images.shape == (120, 3, 64, 64)
    assert images.dtype == np.float32
    assert np.bincount(labels).tolist() == [20] * 6
    corners = np.concatenate([images[:, :, :6, :6], images[:, :, -6:, -6:]])
    assert 0.8 < 1.4826 * np.median(np.abs(corners)) < 1.25
    assert (images[:, 1, 28:36, 28:36].max(axis=(1, 2)) > 5).all()


def test_the_same_seed_gives_the_same_stamps_with_any_number_of_workers():
    images, labels = stamps()
    again, labels_again = stamps(workers=2)
    assert (images == again).all()
    assert (labels == labels_again).all()
    assert (images != stamps(seed=2)[0]).any()


def test_a_part_of_the_classes_and_an_odd_size():
    images, labels = galaxy_stamps(7, ["spiral", "lens"], ["r"], 41, 0.3, seed=1)
    assert images.shape == (7, 1, 41, 41)
    assert set(labels) == {0, 1}
