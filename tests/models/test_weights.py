import pickle
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from luneta.config import Training
from luneta.models import devices, registry
from luneta.models import network as networks
from luneta.models.saving import save_weights
from luneta.models.weights import Wanted, WeightsError, create, scaling_of

SHARED = Path(__file__).parents[2].parent / "shared/weights"
MOBILENET_V1 = SHARED / "mobilenet_v1_0.25_128_imagenet_dequant_notop.weights.h5"
MOBILENET_V2 = SHARED / "mobilenet_v2_1_224_imagenet_dequant_notop.weights.h5"
SQUEEZENET = SHARED / "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5"

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="../shared/weights is not here")


@pytest.fixture(scope="module", autouse=True)
def backend():
    devices.configure(2)


def small(bands=3, **others):
    return Wanted("MobileNet", 32, bands, **{"width": 0.25, **others})


def values(network):
    return [np.asarray(x) for x in network.get_weights()]


def assert_equal(one, two):
    for a, b in zip(values(one), values(two), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function that gives a backbone of so many bands and a .weights.h5 of it."""
    made = {}

    def give(bands):
        if bands not in made:
            network = create(small(bands), "none")
            path = tmp_path_factory.mktemp("weights") / f"bands{bands}.weights.h5"
            network.save_weights(path)
            made[bands] = network, path
        return made[bands]

    return give


def test_weights_of_the_same_bands_are_taken_as_they_are(trained):
    for bands in (3, 4):
        network, path = trained(bands)
        assert_equal(create(small(bands), path), network)


def test_weights_of_three_bands_are_widened(trained):
    network, path = trained(3)
    wide = create(small(5, stem="zero", rgb=[4, 1, 0]), path)
    old, new = values(network)[0], values(wide)[0]
    np.testing.assert_array_equal(new[:, :, [4, 1, 0]], old)
    assert (new[:, :, [2, 3]] == 0).all()
    for a, b in zip(values(network)[1:], values(wide)[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_kernels_of_blue_green_red_are_turned_for_other_bands(tmp_path):
    wanted = Wanted("VGG16", 32, 3)
    three = create(wanted, "none")
    three.save_weights(tmp_path / "x.weights.h5")
    four = create(Wanted("VGG16", 32, 4, stem="zero"), tmp_path / "x.weights.h5")
    old, new = values(three)[0], values(four)[0]
    np.testing.assert_array_equal(new[:, :, :3], old[:, :, ::-1])


@pytest.mark.parametrize("bands", [1, 3, 5])
def test_a_stem_of_the_wrong_band_count_is_refused(trained, bands):
    _, path = trained(4)
    with pytest.raises(WeightsError, match=f"first layer takes 4 bands.*have {bands}: give .* 3"):
        create(small(bands), path)


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet18", "VGG16"])
def test_weights_of_another_architecture_are_refused(trained, name):
    _, path = trained(3)
    with pytest.raises(WeightsError, match=rf"bands3.weights.h5 does not fit {name} .*backbone"):
        create(Wanted(name, 32, 3), path)


def test_weights_of_another_width_are_refused(trained):
    _, path = trained(3)
    with pytest.raises(WeightsError, match="does not fit MobileNet of width 0.5 .*first is conv1"):
        create(small(width=0.5), path)


def test_weights_that_leave_a_layer_empty_are_refused(trained, tmp_path):
    network, path = trained(3)
    with h5py.File(tmp_path / "x.h5", "w") as file:  # the older format, one layer left out
        file.attrs["layer_names"] = [x.name for x in network.layers if x.weights][:-1]
        for layer in network.layers[:-1]:
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [f"{i}" for i in range(len(layer.weights))]
            for i, variable in enumerate(layer.get_weights()):
                group[str(i)] = variable
    with pytest.raises(WeightsError, match="x.h5 does not fit.*it has no layer conv_pw_13_bn"):
        create(small(), tmp_path / "x.h5")
    with h5py.File(path) as whole, h5py.File(tmp_path / "y.weights.h5", "w") as part:
        for name in whole:
            whole.copy(name, part)
        kernel = part["layers/conv2d/vars/0"]
        kernel[0, 0, 0, 0] = np.nan
    with pytest.raises(WeightsError, match="1 of .* weights are not filled, such as conv1/kernel"):
        create(small(), tmp_path / "y.weights.h5")


def test_older_files_are_read_by_names(tmp_path):
    network = create(small(), "none")
    network.save(tmp_path / "x.h5")  # a whole model: weights are one part of it
    assert_equal(create(small(), tmp_path / "x.h5"), network)


def test_older_files_are_read_in_order_where_names_are_counted(tmp_path):
    wanted = Wanted("InceptionV3", 75, 3)
    network = create(wanted, "none")
    network.save(tmp_path / "x.h5")
    again = create(wanted, tmp_path / "x.h5")
    assert {x.name for x in again.layers} != {x.name for x in network.layers}
    assert_equal(again, network)


@needs_shared
def test_squeezenet_of_imagenet():
    network = create(Wanted("SqueezeNet", 64, 3), SQUEEZENET)
    with h5py.File(SQUEEZENET) as file:
        kernels = {
            name.split("/")[0] + "_" + name.split("/")[1]: file[name] for name in find_kernels(file)
        }
        assert len(kernels) == 25
        for name, kernel in kernels.items():
            layer = network.get_layer("conv1" if name.startswith("conv1") else name)
            np.testing.assert_array_equal(np.asarray(layer.kernel), kernel)
    assert scaling_of(SQUEEZENET, "SqueezeNet") == "caffe"


def find_kernels(file):
    found = []
    file.visititems(
        lambda name, item: found.append(name) if getattr(item, "ndim", 0) == 4 else None
    )
    return found


@needs_shared
def test_imagenet_weights_of_keras_files():
    network = create(Wanted("MobileNetV2", 32, 3), MOBILENET_V2)
    # first filter of the ImageNet file, unlike any random start
    first = np.asarray(network.get_layer("Conv1").kernel).ravel()[:2]
    assert first == pytest.approx([-0.5095339, -1.800353])
    wide = create(Wanted("MobileNet", 32, 4, width=0.25), MOBILENET_V1)
    assert np.isfinite(np.asarray(wide.get_layer("conv1").kernel)).all()


def luneta_network(bands=("g", "r", "i"), **training):
    settings = Training(**{"backbone": "MobileNet", "width": 0.25, "weights": "none", **training})
    return networks.build(settings, list(bands), 32, "flux", 3, 1)


def test_warm_start_takes_the_backbone_of_a_luneta_network(tmp_path):
    network = luneta_network(head_units=[5])
    networks.save(network, tmp_path / "x.keras")
    assert_equal(create(small(), tmp_path / "x.keras"), network.get_layer("backbone"))
    assert scaling_of(tmp_path / "x.keras", "MobileNet") == "signed"
    wide = values(create(small(2), tmp_path / "x.keras"))[0]
    kernel = values(network.get_layer("backbone"))[0]
    np.testing.assert_allclose(wide.sum(axis=2), kernel.sum(axis=2), rtol=1e-5, atol=1e-6)
    with pytest.raises(WeightsError, match=r"x.keras does not fit MobileNet of width 0.5 \(conv1"):
        create(small(width=0.5), tmp_path / "x.keras")
    with pytest.raises(WeightsError, match=r"x.keras does not fit VGG16 \(.*weights for 26"):
        create(Wanted("VGG16", 32, 3), tmp_path / "x.keras")


def test_warm_start_keeps_the_scaling_of_its_network(tmp_path):
    networks.save(luneta_network(backbone="VGG16", width=1), tmp_path / "vgg.keras")
    assert scaling_of(tmp_path / "vgg.keras", "MobileNet") == "caffe"


def test_warm_start_of_a_foreign_network_is_explained(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Dense(2)(inputs)).save(tmp_path / "x.keras")
    with pytest.raises(WeightsError, match="no network of luneta.*named backbone.*weights.h5"):
        create(small(), tmp_path / "x.keras")


def test_warm_start_of_a_network_with_code_is_refused(tmp_path):
    inputs = keras.Input((4,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(tmp_path / "x.keras")
    with pytest.raises(WeightsError, match="x.keras is refused: it holds a Lambda layer"):
        create(small(), tmp_path / "x.keras")


@pytest.mark.parametrize("name", ["x.keras", "x.weights.h5", "x.h5", "x.pt", "x.pkl"])
def test_pickles_are_refused_whatever_they_are_called(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps({"conv1": np.zeros(3)}))
    with pytest.raises(WeightsError, match=f"{name} is refused: it is a Python pickle"):
        create(small(), tmp_path / name)
    with zipfile.ZipFile(tmp_path / name, "w") as archive:  # as torch.save writes it
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with pytest.raises(WeightsError, match=f"{name} is refused: it is a Python pickle"):
        create(small(), tmp_path / name)


@pytest.mark.parametrize("name", ["x.keras", "x.weights.h5", "x.h5"])
def test_web_pages_are_named(tmp_path, name):
    (tmp_path / name).write_text("<!doctype html><html>sign in</html>")
    with pytest.raises(WeightsError, match=f"{name} is a web page"):
        create(small(), tmp_path / name)


@pytest.mark.parametrize("kind", [".weights.h5", ".h5", ".keras"])
def test_damaged_files_are_refused(trained, tmp_path, kind):
    network, path = trained(3)
    whole = tmp_path / f"whole{kind}"
    if kind == ".weights.h5":
        whole = path
    else:
        network.save(whole)
    content = whole.read_bytes()
    broken = tmp_path / f"broken{kind}"
    for part in (b"", b"nonsense", content[: len(content) // 2]):
        broken.write_bytes(part)
        with pytest.raises(WeightsError, match=f"broken{kind}.*(damaged|does not fit)"):
            create(small(), broken)


def test_missing_and_unknown_files_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="no such file"):
        create(small(), tmp_path / "x.weights.h5")
    (tmp_path / "x.npy").write_bytes(b"0")
    with pytest.raises(WeightsError, match="x.npy.*cannot be told; give one of .weights.h5, .h5"):
        create(small(), tmp_path / "x.npy")
    create(small(), "none").save_weights(tmp_path / "x.weights.h5")
    (tmp_path / "x.weights.h5").rename(tmp_path / "y.h5")
    with pytest.raises(WeightsError, match="y.h5 holds weights of Keras 3: rename.*y.weights.h5"):
        create(small(), tmp_path / "y.h5")


def test_imagenet_weights_that_do_not_exist_are_explained():
    with pytest.raises(
        WeightsError, match="'imagenet': there are none of SqueezeNet;.*MobileNetV2"
    ):
        create(Wanted("SqueezeNet", 32, 3), "imagenet")


def test_failed_download_is_explained(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nobody listens
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(WeightsError, match="MobileNet of width 0.25 cannot be downloaded.*path"):
        create(small(4), "imagenet")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError("timed out"), "timed out"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_download_that_breaks_off_is_no_misfit(monkeypatch, tmp_path, error, said):
    def broken(*_):
        raise error

    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", broken)
    with pytest.raises(WeightsError, match=rf"cannot be downloaded \(.*{said}.*room.*path"):
        create(small(4), "imagenet")


def test_damaged_download_is_no_misfit(monkeypatch, tmp_path):
    def cut_short(_, target, *__):
        Path(target).write_bytes(b"half")

    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", cut_short)
    with pytest.raises(WeightsError, match=r"MobileNetV2 of width 1 cannot be downloaded"):
        create(Wanted("MobileNetV2", 32, 3), "imagenet")


def test_width_that_imagenet_lacks_is_a_misfit():
    with pytest.raises(WeightsError, match="imagenet does not fit MobileNet of width 0.3"):
        create(small(width=0.3), "imagenet")


@pytest.fixture(scope="module")
def timm_state():
    """A state dict of timm's ResNet-18, of its names and shapes and random values."""
    random = np.random.default_rng(2)
    with np.load(Path(__file__).parent / "timm_references/resnet18.npz") as file:
        names, shapes = file["names"].tolist(), file["shapes"].tolist()
    sides = [tuple(map(int, text.split())) for text in shapes]
    return {
        name: random.uniform(0.5, 1, shape).astype("float32")
        for name, shape in zip(names, sides, strict=True)
    }


def test_safetensors_of_timm(tmp_path, timm_state):
    path = tmp_path / "model.safetensors"
    save_file(timm_state, path)
    stem = timm_state["conv1.weight"].transpose(2, 3, 1, 0)  # (out, in, y, x) in PyTorch
    three = create(Wanted("ResNet18", 32, 3), path)
    np.testing.assert_array_equal(values(three)[0], stem)
    four = create(Wanted("ResNet18", 32, 4, stem="zero", rgb=[3, 2, 1]), path)
    np.testing.assert_array_equal(values(four)[0][:, :, [3, 2, 1]], stem)
    assert (values(four)[0][:, :, 0] == 0).all()
    for a, b in zip(values(three)[1:], values(four)[1:], strict=True):
        np.testing.assert_array_equal(a, b)


def test_safetensors_that_do_not_fit_are_refused(tmp_path, timm_state):
    path = tmp_path / "model.safetensors"
    save_file({k: v for k, v in timm_state.items() if k != "layer1.0.conv1.weight"}, path)
    message = "model.safetensors does not fit ResNet18.*layer1.0.conv1.weight"
    with pytest.raises(WeightsError, match=message):
        create(Wanted("ResNet18", 32, 3), path)
    save_file({**timm_state, "conv1.weight": np.ones((64, 5, 7, 7), "float32")}, path)
    with pytest.raises(WeightsError, match="model.safetensors: its first layer takes 5 bands"):
        create(Wanted("ResNet18", 32, 3), path)
    path.write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="model.safetensors is no safetensors file"):
        create(Wanted("ResNet18", 32, 3), path)


def test_safetensors_of_another_architecture_by_their_config_are_refused(tmp_path, timm_state):
    path = tmp_path / "model.safetensors"
    save_file(timm_state, path)
    (tmp_path / "config.json").write_text('{"architecture": "resnet18.a1_in1k"}')
    create(Wanted("ResNet18", 32, 3), path)
    (tmp_path / "config.json").write_text('{"architecture": "resnet34"}')
    with pytest.raises(WeightsError, match=r"holds weights of resnet34, as its config.json says"):
        create(Wanted("ResNet18", 32, 3), path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config.json is no JSON.*remove"):
        create(Wanted("ResNet18", 32, 3), path)


@pytest.mark.parametrize(
    ("name", "scaling"),
    [
        ("zoobot_survey/deep/nets/model.safetensors", "torch"),  # a folder above is no sign
        ("nets/zoobot-encoder/model.safetensors", "unit"),
        ("nets/deep/Zoobot_nano.safetensors", "unit"),
    ],
)
def test_zoobot_is_told_by_the_files_own_name(tmp_path, name, scaling):
    assert scaling_of(tmp_path / name, "TimmConvNeXtNano") == scaling


def test_zoobot_is_told_by_the_config_beside_its_weights(tmp_path):
    folder = tmp_path / "nets"  # pytest names its own after the test
    folder.mkdir()
    (folder / "config.json").write_text('{"hf_hub_id": "mwalmsley/zoobot-encoder-resnet18"}')
    assert scaling_of(folder / "model.safetensors", "ResNet18") == "unit"
    (folder / "config.json").write_text('{"architecture": "resnet18"}')
    assert scaling_of(folder / "model.safetensors", "ResNet18") == "torch"


def test_pytorch_weights_are_for_networks_of_timm_only(tmp_path):
    with pytest.raises(WeightsError, match="weights of PyTorch, which MobileNet cannot take"):
        create(small(), "hf_hub:timm/resnet50.a1_in1k")
    assert scaling_of("hf_hub:mwalmsley/zoobot-encoder-convnext_nano", "ConvNeXtTiny") == "unit"
    assert scaling_of("hf_hub:timm/resnet18.a1_in1k", "ResNet18") == "torch"
    assert scaling_of("hf_hub:timm/resnet18.a1_in1k@zoobot", "ResNet18") == "torch"
    assert scaling_of("none", "ResNet50") == registry.find("ResNet50").scaling == "caffe"


def test_weights_are_saved_as_keras_saves_them(tmp_path):
    layers = [keras.layers.Input((8, 8, 2)), keras.layers.Conv2D(3, 3), keras.layers.Dense(2)]
    backbone = keras.Model(layers[0], keras.Sequential(layers[1:])(layers[0]), name="backbone")
    save_weights(backbone, tmp_path / "ours.weights.h5")
    backbone.save_weights(tmp_path / "theirs.weights.h5")
    found = {}
    for name in ("ours", "theirs"):
        with h5py.File(tmp_path / f"{name}.weights.h5") as file:
            found[name] = {}
            file.visititems(
                lambda place, item, into=found[name]: into.update(
                    {place: item[()].tolist() if isinstance(item, h5py.Dataset) else None}
                )
            )
    assert found["ours"] == found["theirs"] and len(found["ours"]) > 4
