"""Networks as files: equal networks give equal bytes, and no file can run code."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np

from luneta.files import atomic_path, set_aside


class NetworkFileError(ValueError):
    """A file that is no network or is not to be trusted; the message says which, and the fix."""


def digest(network: keras.Model) -> str:
    """Give the sha256 over a network's weights: shapes, types and bytes, in order.

    Names are left out: Keras counts those of some layers anew when a network is loaded.
    """
    total = hashlib.sha256()
    for variable in network.weights:
        values = np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        total.update(f"{values.shape}{values.dtype}".encode())
        total.update(values.tobytes())
    return total.hexdigest()


def _numbered(config: str) -> str:
    """Number the shared objects of a Keras config, which are named by their address in memory."""
    key = r'"shared_object_id": (\d+)'
    numbers = {name: i for i, name in enumerate(dict.fromkeys(re.findall(key, config)))}
    return re.sub(key, lambda found: f'"shared_object_id": {numbers[found[1]]}', config)


def save(network: keras.Model, path: Path | str) -> None:
    """Save a network as .keras; equal networks give equal bytes."""
    with atomic_path(path) as temporary:
        network.save(temporary)
        with zipfile.ZipFile(temporary) as archive:
            members = {name: archive.read(name) for name in sorted(archive.namelist())}
        members["config.json"] = _numbered(members["config.json"].decode()).encode()
        # Keras writes the time of day into the archive
        metadata = {**json.loads(members["metadata.json"]), "date_saved": "1980-01-01@00:00:00"}
        members["metadata.json"] = json.dumps(metadata).encode()
        with zipfile.ZipFile(temporary, "w") as archive:
            for name, content in members.items():
                archive.writestr(zipfile.ZipInfo(name), content)


def save_weights(network: keras.Model, path: Path | str) -> None:
    """Save the weights of a network as .weights.h5, by way of memory.

    HDF5 can lose the error of a write when it closes a file, and then leaves a damaged one. In a
    .keras network Keras lays the same file, made in memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive_path = Path(folder) / "network.keras"
        network.save(archive_path)
        with zipfile.ZipFile(archive_path) as archive:
            content = archive.read("model.weights.h5")
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def refuse_pickle(path: Path) -> None:
    """Refuse a Python pickle and a PyTorch file made of one, and a web page saved by mistake.

    Raises
    ------
    NetworkFileError
        If it is one.
    """
    with path.open("rb") as file:
        start = file.read(16).lstrip()
    pickled = start.startswith(b"\x80")
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            pickled = any(name.endswith((".pkl", ".pickle")) for name in archive.namelist())
    if pickled:
        raise NetworkFileError(
            f"{path} is refused: it is a Python pickle, which can run any code when it is read; "
            "give weights (.weights.h5, .safetensors) or a .keras network; "
            "`python -m luneta.models.torch_files FILE` turns the weights of PyTorch into "
            "safetensors without running anything"
        )
    if start.startswith(b"<"):
        raise NetworkFileError(
            f"{path} is a web page, not a network or weights: the download gave a page instead of "
            "the file; download the file itself"
        )


def load(path: Path | str) -> keras.Model:
    """Load a network for inference.

    Parameters
    ----------
    path
        A .keras file.

    Returns
    -------
    keras.Model
        Not compiled.

    Raises
    ------
    NetworkFileError
        If there is no such file, it is damaged or something else, or it holds code: a Lambda
        layer, a class that Keras does not know, or a pickle.
    """
    path = Path(path)
    if not path.is_file():
        raise NetworkFileError(f"there is no network {path}: check the path")
    refuse_pickle(path)
    if not zipfile.is_zipfile(path):
        raise NetworkFileError(
            f"{path} is no .keras network, or is damaged: give a file as luneta (or "
            "keras.Model.save) writes it, and copy it again if it was cut short"
        )
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises what a damaged or foreign file makes it raise
        raise NetworkFileError(_reason(path, str(error))) from None


def load_known(path: Path | str, model_id: str) -> keras.Model:
    """Load a network that must be the one whose digest a sidecar holds; see `load`.

    Raises
    ------
    luneta.files.DamagedFile
        If the file is damaged or another network; it has then been set aside.
    NetworkFileError
        If there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        return load(path)
    try:
        network = load(path)
    except NetworkFileError as error:
        raise set_aside(path, str(error).removeprefix(f"{path} ")) from None
    if (found := digest(network)) != model_id:
        raise set_aside(
            path,
            f"its weights have the digest {found[:16]}..., its sidecar says {model_id[:16]}..., so "
            "that it is not the network that was trained",
        )
    return network


def _reason(path: Path, error: str) -> str:
    """Say why a network was not loaded."""
    if "Lambda" in error or "lambda" in error:
        return (
            f"{path} is refused: it holds a Lambda layer, which is Python code that would be run; "
            "build the network again with layers and operations of Keras, or give its weights "
            "alone (.weights.h5)"
        )
    first = error.strip().partition("\n")[0][:200]
    return (
        f"{path} cannot be loaded ({first}): give a .keras network of layers that Keras itself "
        "has, undamaged, or its weights alone (.weights.h5)"
    )
