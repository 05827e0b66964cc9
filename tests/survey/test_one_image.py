"""One image, or one band, needs no {tile} or {band} in the pattern of its files."""

import pytest

from luneta.config import ConfigError, validate
from luneta.survey.shards import survey_tiles


def found(folder, names, bands, **patterns):
    """The image, mask and weight files of each tile and band, by the files that are there."""
    for name in names:
        (folder / name).touch()
    section = {"kind": "tiles", "root": str(folder), "bands": bands, "detection": {}, **patterns}
    given = validate({"survey": "one", "input": section}).input.model_dump(mode="json")
    return {
        name: {
            band: tuple(
                f and f.removeprefix(f"{folder}/") for f in (files.image, files.mask, files.weight)
            )
            for band, files in tile.bands.items()
        }
        for name, tile in survey_tiles(given).items()
    }


def test_one_band_needs_no_band_in_the_pattern(tmp_path):
    tiles = found(tmp_path, ["a.fits", "b.fits"], ["r"], images="{tile}.fits")
    assert tiles == {"a": {"r": ("a.fits", None, None)}, "b": {"r": ("b.fits", None, None)}}


def test_one_image_is_one_tile_named_by_its_file(tmp_path):
    names = ["coma cluster.fits", "mask.fits", "weight.fits"]
    tiles = found(
        tmp_path, names, ["r"],
        images="coma cluster.fits[1]", masks="mask.fits", weights="weight.fits",
    )  # fmt: skip
    assert tiles == {"coma_cluster": {"r": ("coma cluster.fits[1]", "mask.fits", "weight.fits")}}


def test_one_image_a_band_is_one_tile(tmp_path):
    tiles = found(tmp_path, ["m33_g.fits.fz", "m33_r.fits.fz"], ["g", "r"],
                  images="m33_{band}.fits.fz", masks="m33_{band}_mask.fits")  # fmt: skip
    assert tiles == {
        "m33": {
            "g": ("m33_g.fits.fz", "m33_g_mask.fits", None),
            "r": ("m33_r.fits.fz", "m33_r_mask.fits", None),
        }
    }


def test_files_of_one_band_are_tiles_named_by_their_files(tmp_path):
    tiles = found(tmp_path, ["f1.fits", "f2.fits"], ["r"], images="f*.fits", masks="{tile}.mask")
    assert tiles == {"f1": {"r": ("f1.fits", "f1.mask", None)},
                     "f2": {"r": ("f2.fits", "f2.mask", None)}}  # fmt: skip


@pytest.mark.parametrize(
    ("bands", "patterns", "words"),
    [
        (["g", "r"], {"images": "{tile}.fits"}, "images = '{tile}.fits': with 2 bands a file"),
        (["g", "r"], {"images": "*_{band}.fits"}, "write {tile} in place of the *"),
        (["r"], {"images": "{tile}.fits", "masks": "mask.fits"}, "masks = 'mask.fits': must hold"),
        (["r"], {"images": "*.fits", "weights": "w.fits"}, "weights = 'w.fits': must hold {tile}"),
    ],
)
def test_patterns_that_do_not_tell_tiles_or_bands_apart(tmp_path, bands, patterns, words):
    with pytest.raises(ConfigError) as refused:
        found(tmp_path, [], bands, **patterns)
    assert words in str(refused.value)


def test_two_files_of_one_name_are_not_one_tile(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    with pytest.raises(ValueError, match="x/a.fits and .*y/a.fits are tile a, band r"):
        found(tmp_path, ["x/a.fits", "y/a.fits"], ["r"], images="*/a.fits")
