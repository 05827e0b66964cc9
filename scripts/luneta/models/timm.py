"""Weights of timm, Zoobot's encoders among them: PyTorch state dicts into Keras networks.

A state dict is read from safetensors, which needs no PyTorch, and every entry is accounted for.
What pixels the weights expect: those that timm trained on ImageNet, 0 to 1 less the mean and over
the standard deviation of ImageNet (`torch` scaling); Zoobot's encoders plain 0 to 1 (`unit`; the
mean and deviation in their config.json are those of the network that they were started from).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
from huggingface_hub import errors as hub_errors
from huggingface_hub import hf_hub_download
from keras import layers
from safetensors import SafetensorError
from safetensors.numpy import load_file

from luneta.config import HUB
from luneta.models.torch_files import StateError, to_safetensors
from luneta.urls import redacted

PICKLES = (".bin", ".ckpt", ".pkl", ".pt", ".pth")
State = dict[str, np.ndarray]

_OTHER = "probably they are of another architecture: set the backbone to theirs"
_MEND = "check the name and the network, or give the path of a .safetensors file"


@dataclass(frozen=True)
class Naming:
    """How timm names what one of our architectures names.

    Attributes
    ----------
    unit
        Prefix of a unit's modules: its `stage` and `unit` count from 0.
    parts
        Modules of a unit, by the end of our layer's name.
    others
        Modules outside of units, and of units unlike the others, by our layer's whole name.
    stem
        Entry of the first kernel.
    classifier
        Prefix of timm's own top, which is left out.
    """

    unit: str
    parts: dict[str, str]
    others: dict[str, str]
    stem: str
    classifier: str


_RESNET = Naming(
    unit="layer{stage_from_one}.{unit}.",
    parts={
        "shortcut": "downsample.0",
        "shortcut_norm": "downsample.1",
        **{f"conv{n}": f"conv{n}" for n in (1, 2, 3)},
        **{f"conv{n}_norm": f"bn{n}" for n in (1, 2, 3)},
    },
    others={"block1_conv": "conv1", "block1_conv_norm": "bn1"},
    stem="conv1.weight",
    classifier="fc.",
)
_EFFICIENTNET = Naming(
    unit="blocks.{stage}.{unit}.",
    parts={
        "expand": "conv_pw",
        "expand_norm": "bn1",
        "depthwise": "conv_dw",
        "depthwise_norm": "bn2",
        "squeeze": "se.conv_reduce",
        "excite": "se.conv_expand",
        "project": "conv_pwl",
        "project_norm": "bn3",
    },
    others={
        "block1_conv": "conv_stem",
        "block1_conv_norm": "bn1",
        "block2_unit1_depthwise_norm": "blocks.0.0.bn1",
        "block2_unit1_project": "blocks.0.0.conv_pw",
        "block2_unit1_project_norm": "blocks.0.0.bn2",
        "block9_conv": "conv_head",
        "block9_conv_norm": "bn2",
    },
    stem="conv_stem.weight",
    classifier="classifier.",
)
_CONVNEXT = Naming(
    unit="stages.{stage}.blocks.{unit}.",
    parts={
        "depthwise": "conv_dw",
        "norm": "norm",
        "expand": "mlp.fc1",
        "project": "mlp.fc2",
        "scale": "gamma",
    },
    others={
        "block1_conv": "stem.0",
        "block1_norm": "stem.1",
        **{f"block{n + 2}_downsample_norm": f"stages.{n}.downsample.0" for n in (1, 2, 3)},
        **{f"block{n + 2}_downsample_conv": f"stages.{n}.downsample.1" for n in (1, 2, 3)},
        "block6_norm": "head.norm",
    },
    stem="stem.0.weight",
    classifier="head.fc.",
)
ARCHITECTURES = {
    "resnet18": _RESNET,
    "resnet50": _RESNET,
    "efficientnet_b0": _EFFICIENTNET,
    **{f"convnext_{size}": _CONVNEXT for size in ("pico", "nano", "tiny", "small", "base")},
}
_VARIABLES = {
    "kernel": "weight",
    "gamma": "weight",
    "bias": "bias",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def download(repository: str) -> Path:
    """Fetch the weights of a timm model from the Hugging Face hub, or from its cache here.

    Parameters
    ----------
    repository
        `hf_hub:OWNER/NAME`, such as `hf_hub:mwalmsley/zoobot-encoder-convnext_nano`, or
        `hf_hub:OWNER/NAME@REVISION`: a branch, a tag or the hash of a commit; else the newest.

    Returns
    -------
    pathlib.Path
        A .safetensors file with its config.json, if there is one, beside it. Where only a
        `pytorch_model.bin` is published, it is converted (see `luneta.models.torch_files`).

    Raises
    ------
    StateError
        If the name is none, the hub has no such repository or weights, or cannot be reached.
    """
    found = re.fullmatch(rf"{HUB}([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", repository)
    if not found:
        raise StateError(
            f"{repository!r} names no model of the Hugging Face hub: write {HUB}OWNER/NAME, "
            f"such as {HUB}mwalmsley/zoobot-encoder-convnext_nano, or {HUB}OWNER/NAME@REVISION"
        )
    fetch = partial(_fetch, found[1], found[2])
    if fetch("config.json") is None:
        raise StateError(f"{repository} has no config.json, so it is no timm model; {_MEND}")
    path = fetch("model.safetensors") or fetch("pytorch_model.bin")
    if path is None:
        raise StateError(
            f"{repository} has neither model.safetensors nor pytorch_model.bin, or they cannot be "
            f"reached; {_MEND}"
        )
    if path.suffix == ".safetensors":
        return path
    new = path.with_suffix(".safetensors")
    return new if new.exists() else to_safetensors(path)


def _fetch(name: str, revision: str | None, file: str) -> Path | None:
    """Fetch one file of a repository; none if the repository has no such file."""
    told = f"{HUB}{name}{f'@{revision}' if revision else ''}"
    try:
        return Path(hf_hub_download(name, file, revision=revision))
    except hub_errors.RemoteEntryNotFoundError:
        return None
    except hub_errors.LocalEntryNotFoundError:
        if file != "config.json":  # the repository is cached, the network out of reach
            return None
        raise StateError(
            f"{told} is not in the cache here, and the Hugging Face hub cannot be reached or "
            f"HF_HUB_OFFLINE is set; {_MEND}"
        ) from None
    except (hub_errors.HfHubHTTPError, hub_errors.HFValidationError, OSError) as error:
        reason = redacted(str(error).partition("\n")[0])
        raise StateError(f"{told} cannot be fetched ({reason:.200}); {_MEND}") from None


def read(source: str | Path, architecture: str) -> State:
    """Read the weights of one of `ARCHITECTURES` from a file or the Hugging Face hub.

    Parameters
    ----------
    source
        Path of a .safetensors file, or a name as `download` takes it.
    architecture
        timm's name, such as `convnext_nano`.

    Returns
    -------
    dict
        As `load_state`.

    Raises
    ------
    StateError
        As `download` and `load_state`, or if the config.json beside the weights names another
        architecture.
    """
    path = download(source) if str(source).startswith(HUB) else Path(source)
    state = load_state(path)
    stated = _stated_architecture(path.with_name("config.json"))
    if stated is not None and stated.partition(".")[0] != architecture:
        raise StateError(
            f"{source} holds weights of {stated}, as its config.json says, not of {architecture}: "
            f"choose the backbone of {stated}, or weights of {architecture}"
        )
    return state


def _stated_architecture(config: Path) -> str | None:
    """Give the architecture that the config.json beside weights names, if it does."""
    try:
        content = json.loads(config.read_text()) if config.is_file() else {}
    except ValueError as error:
        raise StateError(
            f"{config} is no JSON ({error}): fetch it again with the weights, or remove it"
        ) from None
    stated = content.get("architecture") if isinstance(content, dict) else None
    return stated if isinstance(stated, str) else None


def load_state(path: str | Path) -> State:
    """Read a state dict from safetensors.

    Returns
    -------
    dict
        Arrays by PyTorch's name, in PyTorch's order of axes, float32.

    Raises
    ------
    StateError
        If there is no such file, it is a pickle, or it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise StateError(f"{path}: there is no such file")
    if path.suffix in PICKLES:
        raise StateError(
            f"{path} is a PyTorch pickle, which can run code when it is loaded, and is not read: "
            f"`python -m luneta.models.torch_files {path}` takes the tensors alone out of it, "
            "without PyTorch, and writes safetensors"
        )
    try:
        # Read, not mapped: a file that is cut short meanwhile would end the process.
        state = load_file(path, backend="pread")
    except (SafetensorError, OSError, TypeError, MemoryError) as error:
        raise StateError(
            f"{path} is no safetensors file, or a damaged one ({error}): fetch it again"
        ) from None
    return {name: values.astype("float32") for name, values in state.items()}


def state_bands(state: State) -> int:
    """Give the number of bands that the first kernel of a state dict takes.

    Raises
    ------
    StateError
        If it is a state dict of none of `ARCHITECTURES`.
    """
    stems = tuple(f".{naming.stem}" for naming in ARCHITECTURES.values())
    found = [name for name, x in state.items() if f".{name}".endswith(stems) and x.ndim == 4]
    if not found:
        raise StateError(
            f"weights without a first convolution; known are those of {', '.join(ARCHITECTURES)}"
        )
    # units of a ResNet have a conv1 too, behind a longer prefix
    return state[min(found, key=len)].shape[1]


def convert(state: State, network: keras.Model, architecture: str) -> None:
    """Fill a Keras network with a state dict of timm.

    Parameters
    ----------
    state
        As `load_state` gives it. Prefixes of wrappers (`encoder.`, `model.`, ...), timm's own top
        and batch counts are left out; anything else must find its place.
    network
        Without its top, for as many bands as `state_bands`: `resnet18`, `timm_resnet50`,
        `timm_efficientnet_b0`, `timm_convnext_pico`, ... of `luneta.models.architectures`.
    architecture
        timm's name, a key of `ARCHITECTURES`.

    Raises
    ------
    StateError
        If a weight of the network or an entry of the state is left over, has another shape or is
        not finite. The network is then as it was.
    """
    naming = ARCHITECTURES[architecture]
    state = _own_entries(state, naming)
    targets = _targets(network, naming, architecture)
    missing = [key for key in targets if key not in state]
    spare = [key for key in state if key not in targets]
    if missing or spare:
        told = [
            f"{len(keys)} {what}, such as {keys[0]}"
            for keys, what in ((missing, "are missing"), (spare, "have no place in it"))
            if keys
        ]
        raise StateError(
            f"the weights do not fit {architecture}, which has {len(targets)}: "
            f"{'; '.join(told)}; {_OTHER}"
        )
    values = {
        key: _arranged(state[key], key, layer, variable, architecture)
        for key, (layer, variable) in targets.items()
    }
    for key, (_, variable) in targets.items():
        variable.assign(values[key])


def _own_entries(state: State, naming: Naming) -> State:
    """Strip the prefixes of wrappers, and leave out the top and the counts of batches."""
    prefixes = ("module.", "model.", "_orig_mod.", "encoder.")
    while naming.stem not in state:
        prefix = next((p for p in prefixes if any(key.startswith(p) for key in state)), None)
        if prefix is None:
            break
        state = {
            key.removeprefix(prefix): values
            for key, values in state.items()
            # beside an encoder there may be the head of a fine-tuned Zoobot
            if key.startswith(prefix) or prefix != "encoder."
        }
    return {
        key: values
        for key, values in state.items()
        if not key.startswith(naming.classifier) and not key.endswith("num_batches_tracked")
    }


def _targets(
    network: keras.Model, naming: Naming, architecture: str
) -> dict[str, tuple[keras.Layer, keras.Variable]]:
    """Give the layer and variable that each entry of the state belongs to."""
    targets = {}
    for layer in network.layers:
        for variable in layer.weights:
            module = _module(layer.name, naming)
            if module is None:
                raise StateError(
                    f"layer {layer.name} of the network is none of timm's {architecture}: give the "
                    "network of that name without its top"
                )
            scale = module.endswith(".gamma")
            targets[module if scale else f"{module}.{_VARIABLES[variable.name]}"] = layer, variable
    return targets


def _module(layer: str, naming: Naming) -> str | None:
    """Give timm's name of one of our layers."""
    if layer in naming.others:
        return naming.others[layer]
    found = re.fullmatch(r"block(\d+)_unit(\d+)_(\w+)", layer)
    if not found or found[3] not in naming.parts:
        return None
    stage, unit = int(found[1]) - 2, int(found[2]) - 1
    prefix = naming.unit.format(stage=stage, stage_from_one=stage + 1, unit=unit)
    return prefix + naming.parts[found[3]]


def _arranged(
    values: np.ndarray,
    key: str,
    layer: keras.Layer,
    variable: keras.Variable,
    architecture: str,
) -> np.ndarray:
    """Bring an entry's axes from PyTorch's order (out, in, y, x) to Keras's (y, x, in, out)."""
    given = values.shape
    if isinstance(layer, layers.Dense) and given[2:] == (1, 1):  # a 1x1 convolution in timm
        values = values[:, :, 0, 0]
    if isinstance(layer, layers.DepthwiseConv2D) and key.endswith(".gamma"):
        values = values.reshape(-1, 1, 1, 1)
    if isinstance(layer, layers.DepthwiseConv2D) and values.ndim == 4:
        values = values.transpose(2, 3, 0, 1)
    elif values.ndim > 1:
        values = values.transpose(*range(2, values.ndim), 1, 0)
    if values.shape != variable.shape:
        raise StateError(
            f"{key} has shape {given} in the weights, which does not fit {variable.path} of shape "
            f"{tuple(variable.shape)} in {architecture}: {_cause(key, architecture)}"
        )
    if not np.isfinite(values).all():
        raise StateError(f"{key} holds values that are not finite: fetch the weights again")
    return values


def _cause(key: str, architecture: str) -> str:
    """Say what a wrong shape probably comes from, and how to fix it."""
    if key == ARCHITECTURES[architecture].stem:
        return (
            "if the second number of the weights is not that of the network's bands, build the "
            "network for as many bands as the weights and widen its stem"
        )
    return _OTHER
