"""What was delivered leads to no other file, and to nothing that is no file."""

import os
import warnings

import h5py
import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

import attack_tables
from attack_child import in_child
from luneta.cutouts.plain_fits import read_plain
from luneta.cutouts.stamp_files import StampFiles
from luneta.models.weights import Wanted, WeightsError, create
from luneta.survey.images import read_pixels
from luneta.survey.tables import TableError, read_table

STAMPS = ("t.fits", "t.fits.gz", "t.npy", "t.png", "t.h5")


@pytest.mark.parametrize("name", sorted(attack_tables.PLACES))
def test_a_pipe_a_device_and_the_state_of_the_system_are_no_tables(tmp_path, name):
    path = attack_tables.PLACES[name](tmp_path)
    found = in_child(lambda: read_table(path), seconds=10)
    assert found.error == "TableError"
    is_folder = "holds no Parquet file" in found.text
    assert is_folder or "is a named pipe" in found.text or "a device" in found.text or (
        "lies in /proc or /sys" in found.text
    )  # fmt: skip
    assert "PATH=" not in found.text


@pytest.mark.parametrize("place", ["pipe", "/dev/zero", "/proc/self/environ"])
@pytest.mark.parametrize("name", STAMPS)
def test_a_pipe_a_device_and_the_state_of_the_system_are_no_stamps(tmp_path, name, place):
    path = tmp_path / name
    if place == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(place)
    found = in_child(lambda: StampFiles([0]).planes_of(str(path), 1, 0), seconds=10)
    assert (found.error, found.grown < 50 * 2**20) == ("ImageError", True)
    assert any(words in found.text for words in ("named pipe", "a device", "lies in /proc"))


def test_the_links_of_a_user_are_followed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/t.csv").write_text("ra,dec\n1,2\n")
    fits.PrimaryHDU(np.ones((3, 4), "f4")).writeto(tmp_path / "data/t.fits")
    for name in ("t.csv", "t.fits"):
        (tmp_path / name).symlink_to(tmp_path / "data" / name)
    assert read_table(tmp_path / "t.csv").to_pylist() == [{"ra": 1, "dec": 2}]
    assert read_pixels(str(tmp_path / "t.fits")).shape == (3, 4)
    assert read_plain(str(tmp_path / "t.fits")).pixels.shape == (3, 4)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {witness}']",
        "!!python/name:os.system",
        "!numpy.ndarray {{buffer: !!binary AAAAAAAAAAAAAAAA, dtype: object, shape: [1], order: C}}",
        "!astropy.table.SerializedColumn {{}}",
    ],
)
def test_the_tags_of_a_header_make_no_objects(tmp_path, tag):
    witness = tmp_path / "ran"
    path = tmp_path / "t.ecsv"
    path.write_text(attack_tables.ECSV.format(f"# meta: {tag.format(witness=witness)}\n"))
    found = in_child(lambda: read_table(path).to_pylist())
    assert found.text == "[{'ra': 1.5}]"
    assert not witness.exists()


def test_a_parquet_file_whose_columns_lie_in_another_is_refused(tmp_path):
    pq.write_table(pa.table({"secret": ["x"]}), tmp_path / "secret.parquet")
    about = pq.read_metadata(tmp_path / "secret.parquet")
    about.set_file_path("../secret.parquet")
    about.write_metadata_file(tmp_path / "list.parquet")
    with pytest.raises(TableError, match="columns lie in another file, '../secret.parquet'"):
        read_table(tmp_path / "list.parquet")


@pytest.mark.parametrize("name", ["-", "stdin", "@list", "!t.fits", "t.imh", "t+1", "t.fits;1",
                                  "mem:t", "-.gz", "t.fits#", "t (x.fits"])  # fmt: skip
def test_a_name_is_no_command_of_cfitsio(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    pixels = np.arange(12, dtype="i4").reshape(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unit = fits.CompImageHDU(pixels, compression_type="RICE_1")
        fits.HDUList([fits.PrimaryHDU(), unit]).writeto("made.fits")
    os.rename("made.fits", name)  # noqa: PTH104
    found = in_child(lambda: read_pixels(name).tolist(), seconds=10)
    assert found.text == str(pixels.tolist())


@pytest.fixture(scope="module")
def legacy(tmp_path_factory):
    """A network, and its weights in the older format of Keras."""
    wanted = Wanted("MobileNet", 32, 3, 0.25)
    network = create(wanted, "none")
    path = tmp_path_factory.mktemp("weights") / "weights.h5"
    with h5py.File(path, "w") as file:
        layers = [layer for layer in network.layers if layer.weights]
        file.attrs["layer_names"] = [layer.name.encode() for layer in layers]
        for layer in layers:
            group = file.create_group(layer.name)
            values = layer.get_weights()
            names = [f"w{number}" for number in range(len(values))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, value in zip(names, values, strict=True):
                group[name] = value
    return wanted, network, path


def edited(legacy, folder, kind):
    """Copy the weights; the first kernel then comes from another file."""
    wanted, network, path = legacy
    layer = next(layer.name for layer in network.layers if layer.weights)
    shape = network.get_layer(layer).get_weights()[0].shape
    secret = folder / "secret.raw"
    np.ones(shape, "f4").tofile(secret)
    with h5py.File(folder / "other.h5", "w") as other:
        other["w0"] = np.ones(shape, "f4")
        other["g/w0"] = np.ones(shape, "f4")
    new = folder / "weights.h5"
    new.write_bytes(path.read_bytes())
    with h5py.File(new, "a") as file:
        group = file[layer]
        del group["w0"]
        if kind == "external link":
            group["w0"] = h5py.ExternalLink(str(folder / "other.h5"), "w0")
        elif kind == "soft link":
            file["away"] = h5py.ExternalLink(str(folder / "other.h5"), "g")
            group["w0"] = h5py.SoftLink("/away/w0")
        elif kind == "stored outside":
            outside = [(str(secret), 0, secret.stat().st_size)]
            group.create_dataset("w0", shape, "f4", external=outside)
        elif kind == "a virtual dataset":
            layout = h5py.VirtualLayout(shape, "f4")
            layout[...] = h5py.VirtualSource(str(folder / "other.h5"), "w0", shape)
            group.create_virtual_dataset("w0", layout)
        elif kind == "declares":
            group.create_dataset("w0", (10**9, 10**3), "f4", chunks=(1, 64))
    return wanted, new


def test_old_weights_of_keras_are_read(legacy):
    wanted, network, path = legacy
    for one, two in zip(create(wanted, path).get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("external link", "soft or external link"),
        ("soft link", "soft or external link"),
        ("stored outside", "values lie in other files"),
        ("a virtual dataset", "values lie in other files"),
        ("declares", "asks for 4,000.0 GB"),
    ],
)
def test_old_weights_come_from_their_own_file(legacy, tmp_path, kind, words):
    wanted, path = edited(legacy, tmp_path, kind)
    with pytest.raises(WeightsError, match=words):
        create(wanted, path)


@pytest.mark.parametrize("kind", ["external link", "stored outside", "a virtual dataset"])
def test_new_weights_come_from_their_own_file(tmp_path, kind):
    wanted = Wanted("MobileNet", 32, 3, 0.25)
    network = create(wanted, "none")
    path = tmp_path / "t.weights.h5"
    network.save_weights(path)
    spoil(path, tmp_path, kind)
    with pytest.raises(WeightsError, match=r"t.weights.h5 does not fit"):
        create(wanted, path)


def spoil(path, folder, kind):
    with h5py.File(path, "a") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        name = next(name for name in names if file[name].ndim == 4)
        values = file[name][...]
        with h5py.File(folder / "other.h5", "w") as other:
            other["v"] = values
        values.tofile(folder / "secret.raw")
        del file[name]
        if kind == "external link":
            file[name] = h5py.ExternalLink(str(folder / "other.h5"), "v")
        elif kind == "stored outside":
            outside = [(str(folder / "secret.raw"), 0, values.nbytes)]
            file.create_dataset(name, values.shape, "f4", external=outside)
        else:
            layout = h5py.VirtualLayout(values.shape, "f4")
            layout[...] = h5py.VirtualSource(str(folder / "other.h5"), "v", values.shape)
            file.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("kind", ["external link", "stored outside", "a virtual dataset"])
def test_the_weights_within_a_network_come_from_its_own_file(tmp_path, kind):
    import zipfile

    from luneta.models.saving import NetworkFileError, load

    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)]
    keras.Sequential(layers).save(tmp_path / "t.keras")
    with zipfile.ZipFile(tmp_path / "t.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (tmp_path / "inside.h5").write_bytes(members["model.weights.h5"])
    spoil(tmp_path / "inside.h5", tmp_path, kind)
    members["model.weights.h5"] = (tmp_path / "inside.h5").read_bytes()
    with zipfile.ZipFile(tmp_path / "t.keras", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(NetworkFileError, match=r"t\.keras cannot be loaded"):
        load(tmp_path / "t.keras")
