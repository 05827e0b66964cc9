"""Stamps without columns of positions lie where their own headers say; dummies lie nowhere."""

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from fits_files import tan_wcs
from luneta.config import ConfigError, Stamps, validate
from luneta.config.presets import with_preset
from luneta.survey.ingest import run
from luneta.survey.stamp_index import deal_stamps
from luneta.survey.stamp_positions import positions_of_stamps

SIDE = 30


def stamp(path, ra, dec, shape=(SIDE, SIDE), **cards):
    wcs = tan_wcs(shape[-2:], ra, dec)
    header = wcs.to_header()
    header.update(cards)
    fits.PrimaryHDU(np.zeros(shape, np.float32), header).writeto(path)
    return str(path)


def found(*names, remote=None):
    columns = {f"image_{n}": [row[n] for row in names] for n in range(len(names[0]))}
    return np.array(positions_of_stamps(pa.table(columns), remote)).T.tolist()


NOWHERE = pytest.approx([np.nan, np.nan], nan_ok=True)


def test_the_position_is_that_of_the_central_pixel(tmp_path):
    """The pixel (side // 2, side // 2), on which the cutout is centred; by astropy."""
    even = stamp(tmp_path / "a.fits", 150, 2)
    odd = stamp(tmp_path / "b.fits", 10, -60, (21, 33))
    sky = tan_wcs((SIDE, SIDE), 150, 2).pixel_to_world(15, 15)
    # The reference pixel of an odd stamp is its centre.
    assert found([even], [odd]) == [
        pytest.approx([sky.ra.deg, sky.dec.deg], abs=1e-9), pytest.approx([10, -60], abs=1e-9)
    ]  # fmt: skip


def test_the_frame_is_that_of_the_header(tmp_path):
    shape = (21, 21)
    galactic = WCS(naxis=2)
    galactic.wcs.ctype, galactic.wcs.crval = ["GLON-TAN", "GLAT-TAN"], [96.0, -60.0]
    galactic.wcs.crpix, galactic.wcs.cdelt = [11, 11], [-1e-4, 1e-4]
    path = tmp_path / "g.fits"
    fits.PrimaryHDU(np.zeros(shape, np.float32), galactic.to_header()).writeto(path)
    old = stamp(tmp_path / "o.fits", 150, 2, shape, RADESYS="FK4", EQUINOX=1950.0)
    expected = [SkyCoord(96, -60, unit="deg", frame="galactic").icrs,
                SkyCoord(150, 2, unit="deg", frame="fk4", equinox="B1950").icrs]  # fmt: skip
    for place, sky in zip(found([str(path)], [old]), expected, strict=True):
        assert place == pytest.approx([sky.ra.deg, sky.dec.deg], abs=1e-6)


def test_cubes_compressed_files_and_extensions(tmp_path):
    cube = stamp(tmp_path / "a.fits", 150, 2, (3, 21, 21))
    packed = stamp(tmp_path / "b.fits.gz", 151, 2, (21, 21))
    units = [fits.PrimaryHDU(), fits.ImageHDU(np.zeros((21, 21)), name="MASK")]
    units.append(
        fits.CompImageHDU(
            np.zeros((21, 21), np.float32), tan_wcs((21, 21), 9, 3).to_header(), name="SCI"
        )
    )
    fits.HDUList(units).writeto(tmp_path / "c.fits")
    places = found([cube] * 3, [packed] * 3, [f"{tmp_path}/c.fits[SCI]"] * 3)
    assert places == [pytest.approx(place, abs=1e-9) for place in ([150, 2], [151, 2], [9, 3])]


def test_the_first_band_that_has_a_coordinate_system_tells(tmp_path):
    plain = tmp_path / "plain.fits"
    fits.PrimaryHDU(np.zeros((21, 21), np.float32)).writeto(plain)
    there = stamp(tmp_path / "a.fits", 150, 2, (21, 21))
    gone = str(tmp_path / "gone.fits")
    assert found([str(plain), there], [gone, there], ["", there], [gone, str(plain)]) == [
        *[pytest.approx([150, 2], abs=1e-9)] * 3, NOWHERE
    ]  # fmt: skip


def test_pictures_and_arrays_lie_nowhere(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    assert found(["a.jpg"], [f"{tmp_path}/a.npy"], ["b.h5[images]"]) == [NOWHERE] * 3


@pytest.mark.parametrize(("ra", "dec"), [(0, 0), (180, 45)])
def test_dummies_lie_nowhere(tmp_path, ra, dec):
    """The lens challenge puts all stamps at (0, 0); others put all at any place."""
    names = [[stamp(tmp_path / f"{n}.fits", ra, dec, (21, 21))] for n in range(10)]
    assert found(*names) == [NOWHERE] * 10
    assert (found(*names[:9]) == [NOWHERE] * 9) == (ra == 0)


def test_a_reference_point_at_the_origin_may_be_far_away(tmp_path):
    header = WCS(naxis=2)
    header.wcs.ctype, header.wcs.crval = ["RA---CAR", "DEC--CAR"], [0, 0]
    header.wcs.cdelt, header.wcs.crpix = [-0.01, 0.01], [1000.0, -500.0]
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(np.zeros((21, 21), np.float32), header.to_header()).writeto(path)
    assert found([str(path)]) == [pytest.approx([0.01 * (1000 - 11), 0.01 * (11 + 500)])]


def test_files_named_by_url_are_fetched_only_on_request(tmp_path):
    stamp(tmp_path / "a.fits", 150, 2, (21, 21))
    name = "memory://positions/a.fits"
    fsspec.filesystem("memory").pipe(name, (tmp_path / "a.fits").read_bytes())
    remote = {"retries": 0, "wait": 0, "timeout": 5, "options": {}, "protocols": ["memory"]}
    assert found([name]) == [NOWHERE]
    assert found([name], remote=remote) == [pytest.approx([150, 2], abs=1e-9)]


def ingested(folder, positions, columns=None):
    (folder / "t.csv").write_text("object_id,ra,dec\na,1.5,2.5\nb,3.5,4.5\n")
    section = {
        "kind": "stamps", "table": str(folder / "t.csv"), "image": "{object_id}.fits",
        "bands": ["g"], "positions": positions, "columns": columns or {},
    }  # fmt: skip
    given = Stamps(**section).model_dump(mode="json")
    (slice_,) = deal_stamps(given, folder / "index").values()
    settings = {**given, "tiles": [], "sliced": True, "reference_band": None}
    run([slice_], folder / "o.parquet", settings)
    return pq.read_table(folder / "o.parquet")


@pytest.mark.parametrize(
    ("positions", "columns", "ra"),
    [
        ("auto", None, [150, 151]),
        ("wcs", None, [150, 151]),
        ("none", None, [None, None]),
        ("auto", {"ra": "ra", "dec": "dec"}, [1.5, 3.5]),
        ("columns", {"ra": "ra", "dec": "dec"}, [1.5, 3.5]),
    ],
)
def test_the_config_says_where_positions_come_from(tmp_path, positions, columns, ra):
    stamp(tmp_path / "a.fits", 150, 2, (21, 21))
    stamp(tmp_path / "b.fits", 151, 2, (21, 21))
    objects = ingested(tmp_path, positions, columns)
    found = [
        None if value is None or np.isnan(value) else value for value in objects["ra"].to_pylist()
    ]
    assert found == [value if value is None else pytest.approx(value, abs=1e-9) for value in ra]
    assert objects["flags"].to_pylist() == [0, 0]


@pytest.mark.parametrize(
    ("positions", "columns", "message"),
    [
        ("columns", {}, "needs columns.ra and columns.dec; name them"),
        ("wcs", {"ra": "ra", "dec": "dec"}, "leaves columns.ra and columns.dec unread"),
        ("none", {"ra": "ra", "dec": "dec"}, "leaves columns.ra and columns.dec unread"),
    ],
)
def test_settings_that_contradict_each_other(positions, columns, message):
    section = {"kind": "stamps", "table": "t.csv", "bands": ["g"], "positions": positions}
    with pytest.raises(ConfigError, match=message):
        validate({"survey": "a", "input": {**section, "columns": columns}})


def test_the_lens_challenge_has_dummies():
    given = {"preset": "lens_challenge", "survey": "a", "input": {"table": "t.csv"}}
    assert with_preset(given)["input"]["positions"] == "none"
