import numpy as np
import pytest

from luneta.simulation.lens_masks import SHAPES, draw_masks


@pytest.mark.parametrize(
    "shape", sorted(set(SHAPES), key=lambda shape: shape.__name__), ids=lambda shape: shape.__name__
)
def test_no_shape_takes_more_than_half_of_a_stamp(shape):
    random = np.random.default_rng(0)
    shares = [shape(random, 101).mean() for _ in range(300)]
    assert np.max(shares) <= 0.51
    assert np.count_nonzero(shares) > 200


def test_a_third_of_the_images_is_masked_in_one_band_or_more():
    random = np.random.default_rng(0)
    masks = np.array([draw_masks(random, 4, 101) for _ in range(1000)])
    by_band = masks.any(axis=(2, 3))
    assert 0.28 < by_band.any(axis=1).mean() < 0.40
    assert 0.1 < (by_band.sum(axis=1) == 1).mean() < 0.25
    alike = (masks == masks[:, :1]).all(axis=(1, 2, 3)) & by_band.all(axis=1)
    assert 0.04 < alike.mean() < 0.14
    assert (by_band.all(axis=1) & ~alike).any()
    large = masks[by_band.any(axis=1)].any(axis=1).mean(axis=(1, 2)) > 0.1
    assert 0.15 < large.mean() < 0.7
