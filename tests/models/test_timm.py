import importlib.util
import io
import json
import pickle
import re
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import huggingface_hub
import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from luneta.models import timm, torch_files
from luneta.models.architectures import convnext, efficientnet, residual, torch_resnet
from luneta.models.torch_files import StateError

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "timm_references.py"
REFERENCES = Path(__file__).parent / "timm_references"
RULE = runpy.run_path(str(SCRIPT))
BUILDERS = {
    "resnet18": residual.resnet18,
    "resnet50": torch_resnet.timm_resnet50,
    "efficientnet_b0": efficientnet.timm_efficientnet_b0,
    "convnext_pico": convnext.timm_convnext_pico,
    "convnext_nano": convnext.timm_convnext_nano,
    "convnext_tiny": convnext.timm_convnext_tiny,
    "convnext_small": convnext.timm_convnext_small,
    "convnext_base": convnext.timm_convnext_base,
}
# trainable parameters as timm counts them, with the top of 1000 classes and without
PARAMETERS = {
    "resnet18": (11_689_512, 11_176_512),
    "resnet50": (25_557_032, 23_508_032),
    "efficientnet_b0": (5_288_548, 4_007_548),
    "convnext_pico": (9_045_672, 8_532_672),
    "convnext_nano": (15_593_560, 14_952_560),
    "convnext_tiny": (28_589_128, 27_820_128),
    "convnext_small": (50_223_688, 49_454_688),
    "convnext_base": (88_591_464, 87_566_464),
}
FAST = ("resnet18", "resnet50", "efficientnet_b0", "convnext_pico", "convnext_nano")
BY_SPEED = [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in BUILDERS]


def state_of(name):
    with np.load(REFERENCES / f"{name}.npz") as file:
        names, shapes = file["names"].tolist(), file["shapes"].tolist()
    sides = [tuple(int(side) for side in text.split()) for text in shapes]
    return {key: RULE["weight"](name, key, shape) for key, shape in zip(names, sides, strict=True)}


def features_of(network, images):
    output = network(images.transpose(0, 2, 3, 1), training=False)
    values = keras.ops.convert_to_numpy(output)
    return values.mean((1, 2)) if values.ndim == 4 else values


@pytest.fixture(scope="module")
def resnet():
    return residual.resnet18((32, 32, 3)), state_of("resnet18")


@pytest.mark.parametrize("name", BY_SPEED)
def test_features_are_those_of_timm(name):
    network = BUILDERS[name]((None, None, 3))
    timm.convert(state_of(name), network, name)
    with np.load(REFERENCES / f"{name}.npz") as file:
        for picture, images in RULE["images"]().items():
            expected = file[f"features_{picture}"]
            np.testing.assert_allclose(features_of(network, images), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", BY_SPEED)
def test_parameters_are_counted_as_published(name):
    network = BUILDERS[name]((64, 64, 3), 1000)
    total = sum(weight.shape.num_elements() for weight in network.trainable_weights)
    assert (total, total - network.get_layer("logits").count_params()) == PARAMETERS[name]
    assert network.output_shape == (None, 1000)
    layers = [layer.name for layer in network.layers if layer.weights]
    assert layers.pop() == "logits"
    blocks = [int(layer.removeprefix("block").partition("_")[0]) for layer in layers]
    assert blocks == sorted(blocks) and set(blocks) == set(range(1, blocks[-1] + 1))


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_pico"])
def test_saved_networks_need_keras_alone(name, tmp_path):
    network = BUILDERS[name]((40, 40, 3))
    timm.convert(state_of(name), network, name)
    path = tmp_path / "network.keras"
    network.save(path)
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    modules = set(re.findall(r'"module": "(\w+)', config))
    assert modules == {"keras"} and "luneta" not in config
    images = RULE["uniform"]("images", (2, 3, 40, 40), -1, 1)
    loaded = features_of(keras.models.load_model(path, safe_mode=True), images)
    assert np.ptp(loaded) > 1
    np.testing.assert_array_equal(loaded, features_of(network, images))


def test_layer_scale_starts_at_a_millionth():
    layer = convnext.timm_convnext_pico((32, 32, 3)).get_layer("block2_unit1_scale")
    np.testing.assert_array_equal(layer.get_weights()[0], np.full((1, 1, 64, 1), 1e-6, "float32"))


@pytest.mark.parametrize("prefix", ["encoder.", "model.encoder.", "module.", "encoder._orig_mod."])
def test_checkpoints_of_wrapped_encoders_are_read(resnet, prefix):
    network, state = resnet
    wrapped = {prefix + key: values for key, values in state.items()}
    wrapped[f"{prefix}fc.weight"] = np.ones((1000, 512), "float32")
    if prefix == "encoder.":
        wrapped["head.1.weight"] = np.ones((34, 512), "float32")
    timm.convert(wrapped, network, "resnet18")
    # (out, in, y, x) in the state, (y, x, in, out) in the network
    kernel = network.get_layer("block1_conv").get_weights()[0]
    assert kernel[2, 3, 1, 40] == state["conv1.weight"][40, 1, 2, 3]
    assert timm.state_bands(wrapped) == 3


def test_bands_of_a_state():
    unit = {"layer1.0.conv1.weight": np.ones((64, 64, 3, 3))}
    assert timm.state_bands({**unit, "conv1.weight": np.ones((64, 4, 7, 7))}) == 4
    assert timm.state_bands({"stem.0.weight": np.ones((80, 1, 4, 4))}) == 1
    assert timm.state_bands({"encoder.conv_stem.weight": np.ones((32, 5, 3, 3))}) == 5
    with pytest.raises(StateError, match="without a first convolution; known are those of re"):
        timm.state_bands({"blocks.0.attn.qkv.weight": np.ones((9, 3))})


def test_weights_of_another_architecture_are_refused(resnet):
    network, state = resnet
    before = network.get_layer("block1_conv").get_weights()[0]
    with pytest.raises(
        StateError,
        match=r"not fit resnet18, which has 100: 100 are missing, such as conv1.weight; "
        r"126 have no place in it, such as stem.0.weight; probably .* another architecture",
    ):
        timm.convert(state_of("convnext_pico"), network, "resnet18")
    with pytest.raises(StateError, match="is none of timm's resnet50: give the network"):
        timm.convert(state, convnext.timm_convnext_pico((32, 32, 3)), "resnet50")
    np.testing.assert_array_equal(network.get_layer("block1_conv").get_weights()[0], before)


def test_missing_and_spare_entries_are_named(resnet):
    network, state = resnet
    short = {key: x for key, x in state.items() if key != "layer3.1.bn2.running_var"}
    with pytest.raises(
        StateError, match=r"100: 1 are missing, such as layer3.1.bn2.running_var; p"
    ):
        timm.convert(short, network, "resnet18")
    longer = {**state, "layer2.0.se.fc1.weight": np.ones((3, 3), "float32")}
    with pytest.raises(StateError, match=r"100: 1 have no place in it, such as layer2.0.se.fc1"):
        timm.convert(longer, network, "resnet18")


def test_wrong_shapes_and_values_are_named(resnet):
    network, state = resnet
    wide = {**state, "layer4.1.conv2.weight": np.ones((512, 256, 3, 3), "float32")}
    with pytest.raises(
        StateError, match=r"layer4.1.conv2.weight has shape \(512, 256, 3, 3\).*\(3, 3, 512, 512\)"
    ):
        timm.convert(wide, network, "resnet18")
    grey = {**state, "conv1.weight": np.ones((64, 1, 7, 7), "float32")}
    with pytest.raises(StateError, match="as many bands as the weights and widen its stem"):
        timm.convert(grey, network, "resnet18")
    broken = {**state, "bn1.bias": np.full(64, np.nan, "float32")}
    with pytest.raises(StateError, match="bn1.bias holds values that are not finite"):
        timm.convert(broken, network, "resnet18")


def test_safetensors_are_read_as_float32(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": np.array([[1.5, -2]], "float16"), "b": np.array([7])}, path)
    state = timm.load_state(path)
    assert {key: (x.dtype.name, x.tolist()) for key, x in state.items()} == {
        "a": ("float32", [[1.5, -2.0]]),
        "b": ("float32", [7.0]),
    }
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\x80\x3f\x00\xc0")
    assert timm.load_state(path)["a"].tolist() == [1, -2]


def test_missing_and_corrupt_files_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(StateError, match="there is no such file"):
        timm.load_state(path)
    save_file({"a": np.ones(100, "float32")}, path)
    for content in (path.read_bytes()[:-9], b"<html>", b"version https://git-lfs.github.com"):
        path.write_bytes(content)
        with pytest.raises(StateError, match="no safetensors file, or a damaged one .*again"):
            timm.load_state(path)


@pytest.mark.parametrize("suffix", [".bin", ".pth", ".pt", ".ckpt"])
def test_pickles_are_refused_with_the_way_out(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(StateError, match=r"can run code .* `python -m luneta.models.torch_files "):
        timm.load_state(path)


class Storage:
    """Stands for one storage of a file of PyTorch's."""

    def __init__(self, key, values):
        self.key, self.values = key, values


class Global:
    """Is pickled as the name of a function that need not exist here."""

    def __init__(self, module, name, *arguments):
        self.module, self.name, self.arguments = module, name, arguments


class TorchPickler(pickle._Pickler):
    """Writes what torch.save would, by hand, so that the tests need no PyTorch."""

    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            kind = Global("torch", "FloatStorage")
            return "storage", kind, thing.key, "cpu", thing.values.size
        return None

    def save(self, thing, save_persistent_id=True):
        if not isinstance(thing, Global):
            return super().save(thing, save_persistent_id)
        self.write(f"c{thing.module}\n{thing.name}\n".encode())
        if thing.arguments:
            super().save(thing.arguments)
            self.write(b"R")
        return None


def torch_file(path, content, storages=()):
    stream = io.BytesIO()
    TorchPickler(stream, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", stream.getvalue())
        for storage in storages:
            archive.writestr(f"model/data/{storage.key}", storage.values.tobytes())
    return path


def rebuilt(storage, start, shape, strides):
    arguments = (storage, start, shape, strides, False, OrderedDict())
    return Global("torch._utils", "_rebuild_tensor_v2", *arguments)


def test_tensors_are_taken_out_of_a_torch_file(tmp_path):
    storage = Storage("0", np.arange(12, dtype="float32"))
    state = OrderedDict(
        a=rebuilt(storage, 0, (2, 3), (3, 1)), b=rebuilt(storage, 6, (3, 2), (1, 3)), epoch=4
    )
    path = torch_file(tmp_path / "pytorch_model.bin", {"state_dict": state}, [storage])
    command = [sys.executable, "-m", "luneta.models.torch_files", str(path)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    new = tmp_path / "pytorch_model.safetensors"
    assert ran.stdout.strip() == str(new)
    assert {key: x.tolist() for key, x in timm.load_state(new).items()} == {
        "a": [[0, 1, 2], [3, 4, 5]],
        "b": [[6, 9], [7, 10], [8, 11]],  # strided: stored by columns
    }


def test_code_in_a_torch_file_is_not_run(tmp_path):
    witness = tmp_path / "ran"
    attack = Global("os", "system", f"touch {witness}")
    path = torch_file(tmp_path / "evil.bin", {"state_dict": attack})
    with pytest.raises(StateError, match=r"evil.bin is refused: it asks for os.system, .*safeten"):
        torch_files.to_safetensors(path)
    assert not witness.exists() and not path.with_suffix(".safetensors").exists()


@pytest.mark.parametrize(
    ("start", "shape", "strides"),
    [(0, (4, 4), (4, 1)), (-8, (2,), (1,)), (2, (2,), (-9,)), (0, (10**6, 10**6), (0, 0))],
)
def test_tensors_stay_inside_their_storage(tmp_path, start, shape, strides):
    storage = Storage("0", np.zeros(12, "float32"))
    content = {"a": rebuilt(storage, start, shape, strides)}
    path = torch_file(tmp_path / "x.bin", content, [storage])
    with pytest.raises(StateError, match="reaches outside of its 12 numbers"):
        torch_files.read_tensors(path)


def test_what_is_no_torch_file_is_refused(tmp_path):
    path = tmp_path / "x.bin"
    for content in (pickle.dumps({"a": np.ones(3)}), b"", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(StateError, match="no PyTorch file of tensors .*safetensors"):
            torch_files.read_tensors(path)
    with pytest.raises(StateError, match="holds no tensors"):
        torch_files.read_tensors(torch_file(path, {"epoch": 3}))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the Hugging Face hub that holds one repository, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--mwalmsley--zoobot-encoder-resnet18"
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    (snapshot / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    return snapshot


ENCODER = "hf_hub:mwalmsley/zoobot-encoder-resnet18"


def test_weights_come_from_the_hub(hub):
    save_file({"conv1.weight": np.ones((64, 1, 7, 7), "float32")}, hub / "model.safetensors")
    assert timm.download(ENCODER) == hub / "model.safetensors"
    assert timm.state_bands(timm.read(ENCODER, "resnet18")) == 1
    with pytest.raises(StateError, match=r"holds weights of resnet18, .*config.json.*not of resne"):
        timm.read(ENCODER, "resnet50")


def test_a_revision_of_the_hub_is_pinned(hub):
    commit = "89abcdef" * 5
    other = hub.parent / commit
    other.mkdir()
    (hub.parents[1] / "refs" / "v1.0").write_text(commit)
    (other / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    for folder in (hub, other):
        save_file({"conv1.weight": np.ones((64, 1, 7, 7), "f4")}, folder / "model.safetensors")
    assert timm.download(ENCODER) == hub / "model.safetensors"
    for revision in ("v1.0", commit):
        assert timm.download(f"{ENCODER}@{revision}") == other / "model.safetensors"
    with pytest.raises(StateError, match="resnet18@v2 is not in the cache here"):
        timm.download(f"{ENCODER}@v2")


def test_zoobot_pickles_from_the_hub_are_converted(hub):
    storage = Storage("0", np.arange(64 * 3 * 49, dtype="float32"))
    kernel = rebuilt(storage, 0, (64, 3, 7, 7), (147, 49, 7, 1))
    torch_file(hub / "pytorch_model.bin", OrderedDict({"conv1.weight": kernel}), [storage])
    for _ in range(2):  # the second time from what the first one wrote
        state = timm.read(ENCODER, "resnet18")
        assert state["conv1.weight"][1, 1, 1, 1] == 147 + 49 + 7 + 1


def test_what_the_hub_lacks_is_explained(hub):
    with pytest.raises(StateError, match="resnet18 has neither model.safetensors nor pytorch_mode"):
        timm.download(ENCODER)
    with pytest.raises(StateError, match="hf_hub:a/b is not in the cache here, .*HF_HUB_OFFLINE"):
        timm.download("hf_hub:a/b")


@pytest.mark.parametrize(
    "name", ["hf_hub:resnet18", "hf_hub:", "mwalmsley/x", "hf_hub:a/b/c", "hf_hub:a/b@"]
)
def test_names_of_the_hub_are_checked(name):
    with pytest.raises(StateError, match=r"names no model .*write hf_hub:OWNER/NAME"):
        timm.download(name)


@pytest.fixture
def python_with_timm(tmp_path):
    """Give a Python that has torch and timm, made for the test if this one does not."""
    if all(importlib.util.find_spec(name) for name in ("torch", "timm")):
        yield sys.executable
        return
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = str(environment / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", "torch", "timm"]
    made = subprocess.run(command, capture_output=True, text=True)
    try:
        if made.returncode:
            pytest.skip(f"timm cannot be installed: {made.stderr.strip()[-300:]}")
        yield python
    finally:
        shutil.rmtree(environment)  # gigabytes, which pytest would keep


@pytest.mark.slow
def test_references_are_what_timm_gives_today(python_with_timm, tmp_path):
    subprocess.run([python_with_timm, str(SCRIPT), str(tmp_path)], check=True)
    assert {path.stem for path in REFERENCES.glob("*.npz")} == set(RULE["VARIANCES"])
    for path in REFERENCES.glob("*.npz"):
        with np.load(path) as old, np.load(tmp_path / path.name) as new:
            assert old["names"].tolist() == new["names"].tolist()
            assert old["shapes"].tolist() == new["shapes"].tolist()
            for key in ("features_square", "features_odd"):
                np.testing.assert_allclose(new[key], old[key], atol=2e-5)
