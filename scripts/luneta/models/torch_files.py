"""Tensors out of a PyTorch file without PyTorch, and without running what the file says.

Zoobot's encoders are published as `pytorch_model.bin`, a pickle. A pickle can name any function
and have it called; this reader knows the few names that tensors need and refuses all others.
"""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from luneta.files import atomic_path


class StateError(ValueError):
    """A state dict that cannot be read or does not fit; the message says why and how to mend."""


_TYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "BoolStorage": np.dtype("?"),
}


def _tensor(
    storage: np.ndarray, start: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray:
    """Cut a tensor out of its storage, copied; the numbers are the file's and may lie."""
    last = start + sum((side - 1) * step for side, step in zip(shape, strides, strict=True))
    count = int(np.prod(shape, dtype="float64"))
    if min((start, *shape, *strides)) < 0 or max(last + 1, count) > storage.size:
        raise StateError(f"a tensor of shape {shape} reaches outside of its {storage.size} numbers")
    steps = tuple(step * storage.itemsize for step in strides)
    return np.lib.stride_tricks.as_strided(storage[start:], shape, steps).copy()


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): lambda tensor, *_: tensor,
    **{("torch", name): kind for name, kind in _TYPES.items()},
}


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that makes nothing but dicts of tensors."""

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        super().__init__(archive.open(f"{folder}/data.pkl"))
        self.archive = archive
        self.folder = folder

    def find_class(self, module: str, name: str) -> Any:
        """Give what a name stands for, if it is one that tensors need."""
        if (module, name) not in _ALLOWED:
            raise StateError(f"it asks for {module}.{name}, which a file of tensors has no need of")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Give a storage: pid is (`storage`, its type, its key, the device, its length)."""
        return np.frombuffer(self.archive.read(f"{self.folder}/data/{pid[2]}"), dtype=pid[1])


def read_tensors(path: Path | str) -> dict[str, np.ndarray]:
    """Read the state dict of a file written by `torch.save`; no code in it is run.

    Parameters
    ----------
    path
        In the zip format of PyTorch 1.6 and later: a state dict, or a dict with a `state_dict`.

    Returns
    -------
    dict
        Tensors by name, of the shapes and types of the file; what is no tensor is left out.

    Raises
    ------
    StateError
        If it is no such file, is damaged, or names anything but tensors.
    """
    mend = (
        "give safetensors instead; where PyTorch is installed and you trust the file, "
        "safetensors.torch.save_file(model.state_dict(), path) writes it"
    )
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            content = _TensorUnpickler(archive, pickles[0].removesuffix("/data.pkl")).load()
        state = content.get("state_dict", content)
        tensors = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    except StateError as error:
        raise StateError(f"{path} is refused: {error}; {mend}") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise StateError(f"{path} is no PyTorch file of tensors ({reason:.120}); {mend}") from None
    if not tensors:
        raise StateError(f"{path} holds no tensors; {mend}")
    return tensors


def to_safetensors(path: Path | str) -> Path:
    """Convert a file written by `torch.save`; gives the new path, beside it.

    Raises
    ------
    StateError
        As `read_tensors`.
    """
    new = Path(path).with_suffix(".safetensors")
    tensors = read_tensors(path)
    with atomic_path(new) as temporary:
        save_file(tensors, temporary)
    return new


def main() -> None:
    """Convert the files named on the command line."""
    parser = argparse.ArgumentParser(description="PyTorch state dicts to safetensors")
    parser.add_argument("paths", nargs="+", type=Path, help="such as pytorch_model.bin")
    for path in parser.parse_args().paths:
        print(to_safetensors(path))


if __name__ == "__main__":
    main()
