"""Filling a backbone with weights: ImageNet, files of Keras and PyTorch, luneta's own networks."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np

from luneta.config import HUB, WEIGHTS_FILES
from luneta.models import registry, saving, stems, timm
from luneta.models.saving import NetworkFileError
from luneta.models.torch_files import StateError
from luneta.survey.hdf5_files import open_hdf5, own_dataset, own_item, read_rows
from luneta.survey.table_choice import TableError

# Third axes of kernels beyond this are features, not bands
MOST_BANDS = 24
MOST_CONFIG_BYTES = 2**26


class WeightsError(ValueError):
    """Weights that do not fit their backbone; the message names both and the fix."""


@dataclass(frozen=True)
class Wanted:
    """A backbone to be made and filled.

    Attributes
    ----------
    name, width, activation
        As in the `training` section of the config.
    side, bands
        Of its input (object, y, x, band), y = x = `side` pixels.
    rgb
        Indices of the bands that stand for red, green and blue; the first three if not given.
    stem
        How an RGB stem is widened, see `stems.widen`.
    """

    name: str
    side: int
    bands: int
    width: float = 1.0
    activation: str | None = None
    rgb: list[int] | None = None
    stem: str = "mean"

    @property
    def label(self) -> str:
        """Give what messages call it."""
        width = f" of width {self.width:g}" if registry.find(self.name).has_width else ""
        return f"{self.name}{width}"

    def make(self, bands: int, weights: str | None = None) -> keras.Model:
        """Create it for so many bands."""
        shape = (self.side, self.side, bands)
        return registry.create(self.name, shape, weights, self.width, self.activation)


def scaling_of(source: str | Path, name: str) -> str:
    """Give the input scaling (see `registry.Backbone`) that weights of a source expect.

    Parameters
    ----------
    source
        As `create` takes it.
    name
        Of the backbone.

    Returns
    -------
    str
        That of the backbone, with these exceptions: a .keras network expects what it had, weights
        of PyTorch expect `torch`, or `unit` if they are Zoobot's. These are told by that name: in
        the hub's, the file's or its folder's name, or in the config.json beside the file.
    """
    text = str(source)
    if text.endswith(".keras") and zipfile.is_zipfile(text):
        with zipfile.ZipFile(text) as archive:
            found = re.search(r'"input_scaling_(\w+)"', _config_in(archive, text))
        if found:
            return found[1]
    if text.startswith(HUB) or text.endswith(".safetensors"):
        return "unit" if _is_zoobot(text) else "torch"
    return registry.find(name).scaling


def _config_in(archive: zipfile.ZipFile, source: str) -> str:
    """Read the config of a .keras file, which may be packed."""
    size = archive.getinfo("config.json").file_size
    if size > MOST_CONFIG_BYTES:
        raise WeightsError(
            f"{source} is refused: its config.json has {size:,} bytes, and {MOST_CONFIG_BYTES:,} "
            "are the most; give a network as luneta writes it"
        )
    return archive.read("config.json").decode()


def _is_zoobot(source: str) -> bool:
    if source.startswith(HUB):
        return "zoobot" in source.partition("@")[0].lower()
    path = Path(source)
    config = path.with_name("config.json")
    beside = config.read_text(errors="replace") if config.is_file() else ""
    return any("zoobot" in text.lower() for text in (path.name, path.parent.name, beside))


def create(wanted: Wanted, source: str | Path) -> keras.Model:
    """Create a backbone and fill it.

    Parameters
    ----------
    wanted
        The backbone.
    source
        `none` (random), `imagenet` (downloaded by Keras), `hf_hub:owner/name[@revision]`
        (downloaded from Hugging Face), or a path: .weights.h5, legacy .h5, .keras (a luneta
        network, whose backbone is taken), .safetensors (timm, Zoobot).

    Returns
    -------
    keras.Model
        Named `backbone`; input (object, y, x, band), float32.

    Raises
    ------
    WeightsError
        If the weights are missing, damaged, of another architecture or band count, or do not fill
        the whole network.
    ValueError
        If the backbone cannot be made, see `registry.create`.

    Notes
    -----
    Weights of three bands are of red, green and blue (blue, green and red for `caffe` scaling);
    they are widened where the network has another number of bands, and the new kernel takes the
    bands in the survey's order. Weights of the network's own number of bands are taken as they are.
    """
    network = wanted.make(wanted.bands)
    if str(source) == "none":
        return network
    try:
        found, fill = _reader(source, wanted, tuple(stems.find(network).shape))
        if found is not None and found not in (wanted.bands, 3):
            raise WeightsError(
                f"{source}: its first layer takes {found} bands, the images have {wanted.bands}: "
                f"give weights of {wanted.bands} bands, or of 3, which are widened"
            )
        if found in (None, wanted.bands):
            fill(network)
            return network
        three = wanted.make(3)
        fill(three)
    except (NetworkFileError, StateError) as error:
        raise WeightsError(str(error)) from None
    reverse = scaling_of(source, wanted.name) == "caffe"
    stems.copy_widened(three, network, wanted.rgb, wanted.stem, reverse=reverse)
    return network


def _reader(
    source: str | Path, wanted: Wanted, stem: tuple[int, ...]
) -> tuple[int | None, Callable[[keras.Model], None]]:
    """Give the bands of a source's first layer, if they can be told, and what fills a network."""
    if str(source) == "imagenet":
        return 3, lambda network: _fill_imagenet(network, wanted)
    if str(source).startswith(HUB):
        return _torch_reader(source, wanted)
    path = Path(source)
    if not path.is_file():
        raise WeightsError(f"training.weights = {str(source)!r}: there is no such file")
    if path.suffix == ".safetensors":
        return _torch_reader(path, wanted)
    saving.refuse_pickle(path)
    if path.suffix == ".keras":
        return _keras_reader(path, wanted)
    if path.suffix == ".h5":
        return _h5_reader(path, wanted, stem)
    raise WeightsError(
        f"training.weights = {str(source)!r}: what kind of weights this is cannot be told; give "
        f"one of {', '.join(WEIGHTS_FILES)}"
    )


def _misfit(source: str | Path, wanted: Wanted, reason: str) -> WeightsError:
    return WeightsError(
        f"{source} does not fit {wanted.label} ({reason}): give weights of a {wanted.label} "
        "without its top, or set training.backbone to what the weights are of"
    )


def _copy(old: keras.Model, new: keras.Model, source: str | Path, wanted: Wanted) -> None:
    """Copy all weights between two networks of one architecture, or refuse."""
    if len(old.weights) != len(new.weights):
        raise _misfit(source, wanted, f"{len(old.weights)} weights for {len(new.weights)}")
    for a, b in zip(old.weights, new.weights, strict=True):
        if a.shape != b.shape:
            shapes = f"{a.path} {tuple(a.shape)} for {b.path} {tuple(b.shape)}"
            raise _misfit(source, wanted, shapes)
    for a, b in zip(old.weights, new.weights, strict=True):
        b.assign(keras.ops.convert_to_numpy(a))


def _fill_imagenet(network: keras.Model, wanted: Wanted) -> None:
    """Fill a network of three bands with the weights that Keras downloads."""
    if "imagenet" not in registry.find(wanted.name).weights:
        others = ", ".join(x.name for x in registry.BACKBONES.values() if "imagenet" in x.weights)
        raise WeightsError(
            f"training.weights = 'imagenet': there are none of {wanted.name}; use `none`, "
            f"`pretrain`, a file, or a backbone that has them ({others})"
        )
    try:
        loaded = wanted.make(3, "imagenet")
    except Exception as error:  # whatever Keras, the network and the disk raise
        reason = str(error).partition("\n")[0][:200]
        if isinstance(error, ValueError) and "corrupted file" not in reason:
            raise _misfit("imagenet", wanted, reason) from None
        raise WeightsError(
            f"the ImageNet weights of {wanted.label} cannot be downloaded ({reason}): run again "
            "where there is a network and room on the disk, or fetch the file there and set "
            "training.weights to its path"
        ) from None
    _copy(loaded, network, "imagenet", wanted)


def _timm_name(backbone: registry.Backbone) -> str | None:
    """Give timm's name of a backbone, if it is one of those that timm has."""
    name = backbone.create.__name__.removeprefix("timm_")
    return name if name in timm.ARCHITECTURES else None


def _torch_reader(
    source: str | Path, wanted: Wanted
) -> tuple[int | None, Callable[[keras.Model], None]]:
    """Read a PyTorch state dict of timm."""
    architecture = _timm_name(registry.find(wanted.name))
    if architecture is None:
        others = ", ".join(x.name for x in registry.BACKBONES.values() if _timm_name(x))
        raise WeightsError(
            f"{source} holds weights of PyTorch, which {wanted.name} cannot take: set "
            f"training.backbone to what they are of, one of {others}"
        )
    state = timm.read(source, architecture)

    def fill(network: keras.Model) -> None:
        try:
            timm.convert(state, network, architecture)
        except StateError as error:
            raise StateError(f"{source} does not fit {wanted.label}: {error}") from None

    return timm.state_bands(state), fill


def _keras_reader(path: Path, wanted: Wanted) -> tuple[int | None, Callable[[keras.Model], None]]:
    """Take the backbone of a luneta network: a warm start."""
    network = saving.load(path)
    if "backbone" not in [layer.name for layer in network.layers]:
        raise WeightsError(
            f"{path} is no network of luneta: it has no part named backbone; give its weights "
            "without its top as .weights.h5"
        )
    backbone = network.get_layer("backbone")
    return backbone.input_shape[-1], lambda target: _copy(backbone, target, path, wanted)


def _h5_reader(
    path: Path, wanted: Wanted, stem: tuple[int, ...]
) -> tuple[int | None, Callable[[keras.Model], None]]:
    """Read Keras 3 weights or the older format by layers; the content tells which."""
    shapes: list[tuple[int, ...]] = []

    def note(_: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            shapes.append(item.shape)

    try:
        with open_hdf5(path) as file:
            file.visititems(note)
            legacy = "layer_names" in _legacy_root(file).attrs
    except (OSError, KeyError, RuntimeError, TableError) as error:
        reason = str(error).partition("\n")[0]
        raise _misfit(path, wanted, f"no HDF5 file, or damaged: {reason}") from None
    read = _fill_legacy if legacy else _fill_weights
    return _stem_bands(shapes, stem), lambda network: read(network, path, wanted)


def _stem_bands(shapes: Iterable[tuple[int, ...]], stem: tuple[int, ...]) -> int | None:
    """Give the third axis of the kernel that looks like the stem: the least, as features follow."""
    fitting = [s[2] for s in shapes if len(s) == 4 and s[:2] == stem[:2] and s[3] == stem[3]]
    return min((x for x in fitting if x <= MOST_BANDS), default=None)


def _emptied(network: keras.Model) -> None:
    """Set all weights to NaN: what a file does not fill stays so and is found."""
    for variable in network.weights:
        variable.assign(np.full(variable.shape, np.nan, dtype="float32"))


def _check_filled(network: keras.Model, path: Path, wanted: Wanted) -> None:
    """Refuse a network of which weights are still NaN."""
    empty = [v.path for v in network.weights if np.isnan(keras.ops.convert_to_numpy(v)).any()]
    if empty:
        count = f"{len(empty)} of {len(network.weights)} weights are not filled"
        raise _misfit(path, wanted, f"{count}, such as {empty[0]}")


def _first_layer(error: str) -> str:
    """Shorten what Keras says of weights that do not fit."""
    found = re.search(r"total of (\d+) objects.*? name=([^,>]+)", error, re.DOTALL)
    if found:
        return f"it does not fill {found[1]} layers, the first is {found[2]}"
    return error.partition("\n")[0]


def _fill_weights(network: keras.Model, path: Path, wanted: Wanted) -> None:
    """Fill every weight of a network from a .weights.h5 file of Keras 3."""
    if not path.name.endswith(".weights.h5"):
        raise WeightsError(f"{path} holds weights of Keras 3: rename it to {path.stem}.weights.h5")
    _emptied(network)
    try:
        with warnings.catch_warnings():
            # Keras warns of its own bookkeeping groups, which hold no weights
            warnings.filterwarnings("ignore", message="Skipping nested container")
            network.load_weights(path)
    except (ValueError, OSError, KeyError, MemoryError) as error:
        raise _misfit(path, wanted, _first_layer(str(error))) from None
    _check_filled(network, path, wanted)


def _legacy_root(file: h5py.File) -> h5py.Group:
    root = own_item(file, "model_weights")
    return file if root is None else root


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _legacy_weight(layer: h5py.Group, name: str) -> np.ndarray:
    dataset = own_dataset(layer, name)
    if dataset is None:
        raise KeyError(f"there is no weight {name!r}")
    return np.asarray(read_rows(dataset))


def _legacy_layers(path: Path) -> dict[str, list[np.ndarray]]:
    """Read the arrays of each layer of the older format, in the order of the file."""
    with open_hdf5(path) as file:
        root = _legacy_root(file)
        layers = {}
        for name in map(_text, root.attrs["layer_names"]):
            layer = own_item(root, name)
            if layer is None:
                raise KeyError(f"there is no layer {name!r}")
            names = map(_text, layer.attrs["weight_names"])
            layers[name] = [_legacy_weight(layer, weight) for weight in names]
    return {name: arrays for name, arrays in layers.items() if arrays}


def _fill_legacy(network: keras.Model, path: Path, wanted: Wanted) -> None:
    """Fill a network from an .h5 file of Keras 2: by names of layers, or else in their order.

    Layers whose names Keras counts (`conv2d_17`) do not keep them, and are in order.
    """
    try:
        stored = _legacy_layers(path)
    except (KeyError, OSError, ValueError, MemoryError) as error:
        raise _misfit(path, wanted, f"damaged: {error}") from None
    layers = [layer for layer in network.layers if layer.weights]
    by_name = {re.sub("/", "_", name): arrays for name, arrays in stored.items()}
    if all(layer.name in by_name for layer in layers):
        pairs = [(layer, by_name[layer.name]) for layer in layers]
    elif len(layers) == len(stored):
        pairs = list(zip(layers, stored.values(), strict=True))
    else:
        missing = next(layer.name for layer in layers if layer.name not in by_name)
        raise _misfit(path, wanted, f"it has no layer {missing}")
    for layer, arrays in pairs:
        weights = [*layer.trainable_weights, *layer.non_trainable_weights]
        if [tuple(w.shape) for w in weights] != [a.shape for a in arrays]:
            found = [a.shape for a in arrays]
            raise _misfit(path, wanted, f"layer {layer.name} has weights of shapes {found}")
        for variable, values in zip(weights, arrays, strict=True):
            variable.assign(values)
    _check_filled(network, path, wanted)
