"""Tensors out of a PyTorch file without PyTorch, and without running what the file says.

Zoobot's encoders are published as `pytorch_model.bin`, a pickle. A pickle can name any function
and have it called; this reader knows the few names that tensors need and refuses all others.
"""

from __future__ import annotations

import argparse
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from luneta.files import atomic_path
from luneta.models.tensor_pickles import Machine, PickleError


class StateError(ValueError):
    """A state dict that cannot be read or does not fit; the message says why, and the fix."""


@dataclass(frozen=True)
class _Kind:
    """The type of a storage's numbers, as PyTorch names it."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """The numbers that tensors are cut out of."""

    numbers: np.ndarray


_TYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "BoolStorage": np.dtype("?"),
}
# Two networks may share their numbers; many more copies of them are a bomb.
MOST_COPIES = 4
MOST_AXES = 8


def _require_numbers(start: Any, shape: Any, strides: Any) -> None:
    """Insist on whole numbers: no bool, no array, no object that acts as a number."""
    are_tuples = type(shape) is tuple and type(strides) is tuple
    if not are_tuples or len(shape) != len(strides) or len(shape) > MOST_AXES:
        raise StateError("the shape or the strides of a tensor are no tuples of one length")
    if any(type(value) is not int for value in (start, *shape, *strides)):
        raise StateError("the start, the shape or the strides of a tensor are no whole numbers")


class _Reader:
    """Makes the tensors of an archive, and counts their bytes."""

    def __init__(self, archive: zipfile.ZipFile, folder: str, size: int):
        self._archive = archive
        self._folder = folder
        self._left = MOST_COPIES * size
        self.names: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): self._dict,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): self._parameter,
            **{("torch", name): _Kind(name) for name in _TYPES},
        }

    def storage(self, said: Any) -> _Storage:
        """Read a storage; `said` is (`storage`, its type, its key, the device, its length)."""
        if type(said) is not tuple or len(said) < 3 or type(said[1]) is not _Kind:
            raise StateError("what it says of a storage is not understood")
        if type(said[2]) is not str:
            raise StateError("the name of a storage is no word")
        content = self._archive.read(f"{self._folder}/data/{said[2]}")
        kind = _TYPES[said[1].name]
        return _Storage(np.frombuffer(content, kind, len(content) // kind.itemsize))

    @staticmethod
    def _dict(*arguments: Any) -> dict:
        if arguments not in ((), ([],)):
            raise StateError("it fills a dict in a way that PyTorch does not")
        return {}

    @staticmethod
    def _parameter(tensor: Any, *_: Any) -> Any:
        return tensor

    def _tensor(self, storage: Any, start: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
        """Cut a tensor out of its storage, copied; the numbers are the file's and may lie."""
        if type(storage) is not _Storage:
            raise StateError("a tensor is made of what is no storage")
        _require_numbers(start, shape, strides)
        numbers = storage.numbers
        count = math.prod(shape)
        last = start + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        is_outside = max(last + 1 if count else start, count) > numbers.size
        if is_outside or min((start, *shape, *strides)) < 0:
            raise StateError(
                f"a tensor of shape {shape} reaches outside of its {numbers.size} numbers"
            )
        self._left -= count * numbers.itemsize
        if self._left < 0:
            raise StateError("its tensors have many times as many numbers as the file")
        if count == 0:
            return np.empty(shape, numbers.dtype)
        steps = tuple(step * numbers.itemsize for step in strides)
        return np.lib.stride_tricks.as_strided(numbers[start:], shape, steps).copy()


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    """Insist on members as PyTorch stores them: not packed, and together no longer than the file.

    Raises
    ------
    StateError
        If not.
    """
    members = archive.infolist()
    if any(m.compress_type != zipfile.ZIP_STORED or m.flag_bits & 1 for m in members):
        raise StateError("it is packed or encrypted, which PyTorch does not do")
    if sum(member.file_size for member in members) > size:
        raise StateError("its members are longer than the file")


def _read_state(archive: zipfile.ZipFile, size: int) -> dict:
    """Read the state dict of an archive, or of the dict that holds it."""
    _check_members(archive, size)
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    folder = pickles[0].removesuffix("/data.pkl")
    reader = _Reader(archive, folder, size)
    content = Machine(reader.names, reader.storage).run(archive.read(pickles[0]))
    state = content.get("state_dict", content)
    if type(state) is not dict:
        raise StateError("what it holds is no state dict")
    return state


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
    fix = (
        "give safetensors instead; where PyTorch is installed and you trust the file, "
        "safetensors.torch.save_file(model.state_dict(), path) writes it"
    )
    try:
        with zipfile.ZipFile(path) as archive:
            state = _read_state(archive, Path(path).stat().st_size)
        tensors = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    except (StateError, PickleError) as error:
        raise StateError(f"{path} is refused: {error}; {fix}") from None
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"{type(error).__name__}: {error}"
        raise StateError(f"{path} is no PyTorch file of tensors ({reason:.120}); {fix}") from None
    if not tensors:
        raise StateError(f"{path} holds no tensors; {fix}")
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
