import numpy as np
import pytest

from luneta.survey.masks import bad_pixels, noise_of_weight, sentinel_pixels

PLANES = {"dead": 0, "saturated": 1, "cosmic": 3}
NOTHING = {"planes": {}, "ignore": [], "saturated": ["saturated"]}


def bits(**changes):
    return {
        "encoding": "bits",
        "planes": PLANES,
        "ignore": [],
        "saturated": ["saturated"],
    } | changes


def bad_and_saturated(mask, settings):
    bad, saturated = bad_pixels(np.asarray(mask), settings)
    assert bad.dtype == saturated.dtype == bool
    return bad.astype(int).tolist(), saturated.astype(int).tolist()


def test_bits_add_up():
    mask = np.array([[0, 1, 2], [3, 8, 16]], np.int16)
    expected = [[0, 1, 1], [1, 1, 1]], [[0, 0, 1], [1, 0, 0]]
    assert bad_and_saturated(mask, bits()) == expected


def test_an_ignored_bit_alone_is_good_and_one_of_no_name_is_bad():
    mask = np.array([[8, 9, 16, 24]], np.int32)
    assert bad_and_saturated(mask, bits(ignore=["cosmic"])) == ([[0, 1, 1, 1]], [[0, 0, 0, 0]])


def test_a_saturated_pixel_that_is_ignored_is_good_but_saturated():
    settings = bits(ignore=["saturated"])
    assert bad_and_saturated(np.array([[2, 3]], np.uint8), settings) == ([[0, 1]], [[1, 1]])


def test_codes_are_numbers_not_sums():
    settings = bits(encoding="codes", planes={"bad": 1, "saturated": 3, "bright": 5})
    settings["ignore"] = ["bright"]
    expected = [[0, 1, 1, 0, 1]], [[0, 0, 1, 0, 0]]
    assert bad_and_saturated(np.array([[0, 1, 3, 5, 7]], np.int32), settings) == expected


def test_good_is_all_that_is_not_zero():
    settings = {"encoding": "good", **NOTHING}
    assert bad_and_saturated(np.array([[0, 1, 255]], np.uint8), settings)[0] == [[1, 0, 0]]
    assert bad_and_saturated([[0.0, 0.5, np.nan]], settings)[0] == [[1, 0, 1]]


def test_without_planes_all_that_is_not_zero_is_bad():
    assert bad_and_saturated([[0, 1, 4]], {"encoding": "bits", **NOTHING})[0] == [[0, 1, 1]]
    assert bad_and_saturated([[0, 1, 4]], {"encoding": "codes", **NOTHING})[0] == [[0, 1, 1]]


@pytest.mark.parametrize(
    ("dtype", "highest"),
    [("u1", 7), ("i2", 15), ("u2", 15), ("i4", 31), ("u4", 31), ("i8", 63), ("u8", 63)],
)
def test_the_highest_bit_of_every_integer(dtype, highest):
    mask = np.array([[0, 1 << highest, (1 << highest) + 1]], np.uint64).astype(dtype)
    assert bad_and_saturated(mask, bits(planes={"top": highest}, ignore=["top"])) == (
        [[0, 0, 1]],
        [[0, 0, 0]],
    )
    saturated = bits(planes={"saturated": highest})
    assert bad_and_saturated(mask, saturated) == ([[0, 1, 1]], [[0, 1, 1]])


def test_a_bit_beyond_the_masks_width_is_on_nowhere():
    assert bad_and_saturated(np.array([[0, 4]], np.uint8), bits(planes={"saturated": 20})) == (
        [[0, 1]],
        [[0, 0]],
    )


def test_a_mask_of_floats_and_one_of_truths():
    assert bad_and_saturated([[0.0, 2.0, 8.0, np.nan]], bits(ignore=["cosmic"])) == (
        [[0, 1, 0, 1]],
        [[0, 1, 0, 1]],
    )
    assert bad_and_saturated([[False, True]], bits()) == ([[0, 1]], [[0, 0]])


def test_big_endian_masks():
    assert bad_and_saturated(np.array([[0, 2]], ">i4"), bits()) == ([[0, 1]], [[0, 1]])


def test_the_mask_given_is_not_changed():
    mask = np.array([[0, 1, 2]], np.int32)
    bad_pixels(mask, bits(encoding="codes"))
    assert mask.tolist() == [[0, 1, 2]]


def test_sentinels_are_compared_in_the_pixels_precision():
    pixels = np.array([[1e-12, 100.0, 0.1, np.nan]], np.float32)
    assert sentinel_pixels(pixels, [100, 0.1]).tolist() == [[False, True, True, False]]
    assert sentinel_pixels(pixels, []).tolist() == [[False] * 4]
    assert sentinel_pixels(np.array([[-99, 3]], np.int16), [-99.0]).tolist() == [[True, False]]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("inverse_variance", [0.5, 2.0]),
        ("variance", [2.0, 0.5]),
        ("rms", [4.0, 0.25]),
        ("relative", [1.0, 1.0]),
    ],
)
def test_noise_of_weight(kind, expected):
    weight = np.array([[4.0, 0.25], [0.0, -1.0], [np.nan, np.inf]], ">f8")
    noise = noise_of_weight(weight, kind)
    assert noise.dtype == np.float32
    assert noise[0].tolist() == expected
    assert np.isnan(noise[1:]).all()
